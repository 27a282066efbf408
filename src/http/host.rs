//! Host names in a request's `Host` that can only mean this machine.
//!
//! A page of another site can resolve its own name to this server's address (DNS rebinding); its browser
//! then attributes the answers to that site. `Host` still holds the site's name.

use std::net::Ipv4Addr;

use axum::http::{HeaderMap, Uri, header::HOST};
use url::Host;

use super::tls::names::machine_names;
use crate::auth::peer::{RemotePeer, Scheme, TrustedProxies};

/// Host names that nobody else can resolve to this machine.
#[derive(Clone, Debug, Default)]
pub struct HostNames(Vec<String>);

impl HostNames {
    /// Collects the machine's names and the configured ones.
    pub fn new(configured: &[String]) -> Self {
        let configured = configured.iter().map(|name| name.trim_end_matches('.').to_lowercase());
        Self(machine_names().into_iter().chain(configured).collect())
    }

    /// True if `host`, or `host:port`, is an IP address, `localhost`, a name without a dot (no public
    /// name server answers for one), or one of the known names.
    pub fn contain(&self, host: &str) -> bool {
        let bare = match host.rsplit_once(':') {
            Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
            _ => host,
        };
        let Ok(Host::Domain(name)) = Host::parse(bare) else { return Host::parse(bare).is_ok() };
        let name = name.trim_end_matches('.');
        !name.contains('.') || name.ends_with(".localhost") || self.0.iter().any(|known| known == name)
    }

    /// True if a request's host [is known](Self::contain), or if it has none, which no browser sends.
    pub fn admit(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let names_none = uri.authority().is_none() && !headers.contains_key(HOST);
        let (nobody, proxies) = (Ipv4Addr::UNSPECIFIED.into(), TrustedProxies::default());
        let host = || RemotePeer::new(nobody, Scheme::Http, uri, headers, &proxies).host;
        names_none || host().is_some_and(|host| self.contain(&host))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_unspoofable_names_are_ours() {
        let names = HostNames::new(&["Meet.LAN.".to_owned()]);
        for host in [
            "127.0.0.1",
            "192.168.1.7:8787",
            "[::1]:8787",
            "[fe80::1]",
            "localhost",
            "localhost:8787",
            "app.localhost:1",
            "localhost.",
            "meetbox",
            "meetbox:8787",
            "meet.lan:8787",
        ] {
            assert!(names.contain(host), "{host}");
        }
        for host in ["evil.example", "evil.example:8787", "localhost.evil.example", "127.0.0.1.evil.example"]
        {
            assert!(!names.contain(host), "{host}");
        }
        for name in machine_names() {
            assert!(names.contain(&name), "{name}");
        }
    }

    #[test]
    fn request_without_host_is_admitted() {
        let names = HostNames::default();
        let admits = |host: Option<&'static str>| {
            let host = host.map(|host| (HOST, HeaderValue::from_static(host)));
            names.admit(&Uri::from_static("/metrics"), &HeaderMap::from_iter(host))
        };
        assert!(admits(None) && admits(Some("127.0.0.1:8788")) && admits(Some("satsuma:8788")));
        assert!(!admits(Some("evil.example")) && !admits(Some("")) && !admits(Some("a@localhost")));
        assert!(!names.admit(&Uri::from_static("http://evil.example/metrics"), &HeaderMap::new()));
    }
}
