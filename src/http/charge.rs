//! Choice of the client network that a request is charged to.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::HeaderMap;
use tracing::warn;

use crate::auth::peer::{AddressOwner, RemotePeer, Trust, TrustedProxies};
use crate::config::Config;

/// Headers that proxies add and browsers never send.
const OF_PROXIES: [&str; 6] =
    ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];

/// Classifies the owner of a request's address.
#[derive(Debug)]
pub struct AddressClassifier {
    exempt: TrustedProxies,
    /// True if the configuration implies a proxy whose address it does not name.
    proxy_is_unknown: bool,
    /// True if this server ends TLS: a proxy in front of it is then on this machine at most.
    speaks_tls: bool,
    warned: AtomicBool,
}

impl AddressClassifier {
    /// Creates the rules of a configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            exempt: TrustedProxies::new(config.limits.exempt_networks.iter().copied()),
            proxy_is_unknown: config.has_unknown_proxy(),
            speaks_tls: config.speaks_tls(),
            warned: AtomicBool::new(false),
        }
    }

    /// Classifies the address of a request with these headers.
    ///
    /// All clients behind an untrusted proxy share its address, and a limit on it would lock all of them
    /// out. Such a proxy is recognized by the headers it adds. These count only from addresses where
    /// proxies run: this machine and, without TLS here, private networks. Any other client would add
    /// them to evade the limits.
    pub fn owner(&self, peer: &RemotePeer, headers: &HeaderMap) -> AddressOwner {
        if self.exempt.contain(peer.address) {
            return AddressOwner::Exempt;
        }
        if peer.trust == Trust::TrustedProxy {
            return peer.owner;
        }
        let may_be_proxys =
            if self.speaks_tls { peer.address.is_loopback() } else { is_internal(peer.address) };
        let is_told = || may_be_proxys && OF_PROXIES.iter().any(|name| headers.contains_key(*name));
        if !self.proxy_is_unknown && !is_told() {
            return peer.owner;
        }
        AddressOwner::UntrustedProxy
    }

    /// Warns once that a proxy hides its clients' addresses from the limits, and names the remedy.
    ///
    /// Call it only for resources that people alone request: proxies send health checks of their own.
    pub fn warn_once(&self, peer: &RemotePeer) {
        let (event, setting, mend) = match peer.owner {
            AddressOwner::Client | AddressOwner::Exempt => return,
            AddressOwner::UntrustedProxy => {
                ("proxyNotTrusted", "http.trusted_proxies", "add its address there")
            }
            AddressOwner::TrustedProxy => {
                ("proxyTellsNoClient", "http.trusted_proxies", "let it send X-Forwarded-For")
            }
        };
        if !self.warned.swap(true, Ordering::Relaxed) {
            warn!(
                event,
                address = %peer.address,
                setting,
                mend,
                "a proxy hides where people come from: limits for each client's network are off for them",
            );
        }
    }
}

/// True for an address of this machine or of a private network (RFC 1918, 4193, 6598).
fn is_internal(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let is_shared = first == 100 && second & 0xc0 == 64;
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || is_shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, Uri};

    use super::*;
    use crate::auth::peer::Scheme;

    const FORWARDED: &[(&str, &str)] = &[("x-forwarded-for", "203.0.113.9")];

    fn owner(config: &Config, socket: &str, lines: &[(&'static str, &str)]) -> AddressOwner {
        let headers: HeaderMap = lines
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let proxies = TrustedProxies::new(config.http.trusted_proxies.iter().copied());
        let uri = Uri::from_static("/");
        let peer = RemotePeer::new(socket.parse().unwrap(), Scheme::Http, &uri, &headers, &proxies);
        AddressClassifier::new(config).owner(&peer, &headers)
    }

    #[test]
    fn direct_client_is_charged_despite_proxy_headers() {
        let config = Config::default();
        for address in ["127.0.0.1", "192.168.1.7", "203.0.113.9", "2001:db8::1"] {
            assert_eq!(owner(&config, address, &[]), AddressOwner::Client, "{address}");
        }
        for address in ["203.0.113.9", "2001:db8::1", "100.128.0.1", "::ffff:8.8.8.8"] {
            assert_eq!(owner(&config, address, FORWARDED), AddressOwner::Client, "{address}");
        }
    }

    #[test]
    fn internal_proxy_is_recognized_by_its_headers() {
        let config = Config::default();
        for address in ["127.0.0.1", "::1", "172.18.0.5", "10.0.0.1", "100.64.0.1", "fd00::1", "fe80::1"] {
            for name in OF_PROXIES {
                assert_eq!(
                    owner(&config, address, &[(name, "x")]),
                    AddressOwner::UntrustedProxy,
                    "{address} {name}"
                );
            }
        }
    }

    #[test]
    fn trusted_proxy_names_the_charged_client() {
        let mut config = Config::default();
        config.http.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        assert_eq!(owner(&config, "10.0.0.1", FORWARDED), AddressOwner::Client);
        assert_eq!(owner(&config, "10.0.0.1", &[]), AddressOwner::TrustedProxy);
        assert_eq!(
            owner(&config, "10.0.0.1", &[("x-forwarded-for", "10.0.0.2")]),
            AddressOwner::TrustedProxy
        );
        assert_eq!(owner(&config, "10.0.0.1", &[("x-forwarded-for", "192.168.1.7")]), AddressOwner::Client);
        assert_eq!(owner(&config, "203.0.113.9", &[]), AddressOwner::Client, "it came around the proxy");
    }

    #[test]
    fn external_tls_needs_a_trusted_proxy() {
        let mut config = Config::default();
        config.http.public_url =
            "https://meet.example".parse().map(Some).map(crate::config::Optional).unwrap();
        assert_eq!(owner(&config, "127.0.0.1", &[]), AddressOwner::UntrustedProxy);
        assert_eq!(owner(&config, "203.0.113.9", &[]), AddressOwner::UntrustedProxy);
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        assert_eq!(owner(&config, "127.0.0.1", FORWARDED), AddressOwner::Client);
        config.http.trusted_proxies.clear();
        config.http.tls_self_signed = true;
        assert_eq!(owner(&config, "203.0.113.9", &[]), AddressOwner::Client);
        assert_eq!(owner(&config, "192.168.1.7", FORWARDED), AddressOwner::Client, "a visitor of the LAN");
        assert_eq!(owner(&config, "127.0.0.1", FORWARDED), AddressOwner::UntrustedProxy);
    }

    #[test]
    fn exempt_network_is_not_charged() {
        let mut config = Config::default();
        config.limits.exempt_networks = vec!["203.0.113.0/24".parse().unwrap()];
        config.http.trusted_proxies = vec!["10.0.0.1/32".parse().unwrap()];
        assert_eq!(owner(&config, "203.0.113.9", &[]), AddressOwner::Exempt);
        assert_eq!(owner(&config, "10.0.0.1", FORWARDED), AddressOwner::Exempt);
        assert_eq!(owner(&config, "10.0.0.1", &[("x-forwarded-for", "198.51.100.1")]), AddressOwner::Client);
    }
}
