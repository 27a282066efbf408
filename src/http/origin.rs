//! The rule against cross-site requests: a browser's request must come from one of this server's pages.
//!
//! A browser sends the cookie no matter which site's page makes the request, but names that page's
//! origin in `Origin` (RFC 6454 section 7). A WebSocket needs the rule most: nothing else keeps a
//! foreign page from opening it and reading its messages (RFC 6455 section 10.2).

use axum::http::header::{ORIGIN, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, Method};

use super::host::HostNames;
use crate::auth::peer::{RemotePeer, Scheme};
use crate::config::Origin;

/// The accepted origins.
#[derive(Clone, Debug, Default)]
pub struct OriginRule {
    public: Option<Origin>,
    allowed: Vec<Origin>,
    /// Host names of this server, used without a public URL.
    hosts: HostNames,
}

impl OriginRule {
    /// Creates the rule from the origin of `http.public_url`, if set, and `http.allowed_origins`.
    pub fn new(public: Option<Origin>, allowed: Vec<Origin>) -> Self {
        Self { public, allowed, hosts: HostNames::new(&[]) }
    }

    /// The origins beside this server's own.
    pub fn allowed(&self) -> impl Iterator<Item = &Origin> {
        self.allowed.iter()
    }

    /// Returns `Https` if the public URL says so, regardless of a proxy's headers.
    pub fn public_scheme(&self) -> Option<Scheme> {
        let is_https = self.public.as_ref().is_some_and(|public| public.as_str().starts_with("https:"));
        is_https.then_some(Scheme::Https)
    }

    /// True if the host that `peer` requested means this server, as far as can be told.
    ///
    /// Without a public URL that is a host that nobody else can resolve to this server, the host of an
    /// allowed origin, or any host requested over https: for it a browser verified a certificate.
    pub fn knows_host(&self, peer: &RemotePeer) -> bool {
        let Some(host) = peer.host.as_deref() else { return self.public.is_some() };
        self.public.is_some()
            || peer.scheme == Scheme::Https
            || self.hosts.contain(host)
            || self.allowed.iter().any(|origin| is_at(origin, host))
    }

    /// Checks the `Origin` of a request.
    ///
    /// Applies to all methods but GET, HEAD and OPTIONS, and to every upgrade. A request without an
    /// `Origin` is not from a browser and passes. The accepted origin is that of the public URL,
    /// compared whole. Without a public URL it is the requested host and port, if [they mean this
    /// server](Self::knows_host); the scheme is not compared then, because a proxy that ends TLS may not
    /// pass it on, but the scheme of the origin gives a missing port.
    ///
    /// # Errors
    /// Returns [`ForeignOrigin`] if the `Origin` is neither this server's nor allowed, is `null`, is malformed
    /// or occurs several times. The answer is a 403.
    pub fn check(
        &self,
        method: &Method,
        headers: &HeaderMap,
        peer: &RemotePeer,
    ) -> Result<(), ForeignOrigin> {
        let changes_nothing = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
        if changes_nothing && !headers.contains_key(UPGRADE) {
            return Ok(());
        }
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(only) = origins.next() else {
            return Ok(());
        };
        if origins.next().is_none() && self.accepts(only, peer) {
            return Ok(());
        }
        Err(ForeignOrigin {
            origin: shown(headers),
            expected: self.expected(peer),
            host: self.knows_host(peer),
        })
    }

    fn accepts(&self, origin: &HeaderValue, peer: &RemotePeer) -> bool {
        let Some(origin) = origin.to_str().ok().and_then(|text| text.parse().ok()) else {
            return false;
        };
        self.is_ours(&origin, peer) || self.allowed.contains(&origin)
    }

    /// True if a redirect may lead to `origin`: it is this server's, or the host that `peer` requested.
    ///
    /// With a public URL set, a proxy that does not pass on scheme or host makes a request look as if it
    /// were for another origin; its visitor must still return to the page.
    pub fn leads_here(&self, origin: &Origin, peer: &RemotePeer) -> bool {
        self.is_ours(origin, peer) || peer.host.as_deref().is_some_and(|host| is_at(origin, host))
    }

    /// True if `origin` is that of this server's own pages, as seen by `peer`.
    fn is_ours(&self, origin: &Origin, peer: &RemotePeer) -> bool {
        match &self.public {
            Some(public) => public == origin,
            None => self.knows_host(peer) && peer.host.as_deref().is_some_and(|host| is_at(origin, host)),
        }
    }

    fn expected(&self, peer: &RemotePeer) -> String {
        match (&self.public, &peer.host) {
            (Some(public), _) => public.to_string(),
            (None, Some(host)) if self.knows_host(peer) => host.clone(),
            (None, Some(_)) => "an IP address, localhost or a name of this machine".into(),
            (None, None) => "a request that names its host".into(),
        }
    }
}

/// True if `origin` is a web origin at `host`; a missing port defaults by the origin's scheme.
pub fn is_at(origin: &Origin, host: &str) -> bool {
    let scheme = origin.as_str().split_once("://").map_or("", |(scheme, _)| scheme);
    origin.is_web() && format!("{scheme}://{host}").parse().is_ok_and(|at: Origin| at == *origin)
}

/// Formats the header for a log: on one line and of bounded length, since it is network input.
fn shown(headers: &HeaderMap) -> String {
    let all: Vec<_> = headers
        .get_all(ORIGIN)
        .iter()
        .take(2)
        .map(|origin| String::from_utf8_lossy(origin.as_bytes()))
        .collect();
    all.join(", ").escape_debug().take(200).collect()
}

/// The refusal of a request from a foreign page.
///
/// Behind a proxy that does not pass on the host, this server's own pages look foreign too: the caller
/// logs a warning that names both values and the setting that helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Origin {origin} is neither {expected} nor in http.allowed_origins")]
pub struct ForeignOrigin {
    /// The request's `Origin`, safe to log.
    pub origin: String,
    /// The accepted value.
    pub expected: String,
    /// True if the host means this server.
    pub host: bool,
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use axum::http::{HeaderName, Uri};
    use proptest::prelude::*;

    use super::*;
    use crate::auth::peer::{Scheme, TrustedProxies};

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        headers
    }

    /// Creates a rule for a machine with these names.
    fn rule_of(names: &[&str], allowed: Vec<Origin>) -> OriginRule {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        OriginRule { hosts: HostNames::new(&names), ..OriginRule::new(None, allowed) }
    }

    fn peer(headers: &HeaderMap, proxies: &TrustedProxies) -> RemotePeer {
        let socket = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        RemotePeer::new(socket, Scheme::Http, &Uri::from_static("/"), headers, proxies)
    }

    fn post(rule: &OriginRule, lines: &[(&'static str, &str)]) -> Result<(), ForeignOrigin> {
        let headers = headers(lines);
        let peer = peer(&headers, &TrustedProxies::default());
        rule.check(&Method::POST, &headers, &peer)
    }

    const ACCEPTED: bool = true;
    const REFUSED: bool = false;

    #[test]
    fn requested_host_is_ours_without_public_url() {
        let friends = vec!["https://friend.example:8443".parse().unwrap()];
        let rule = rule_of(&["meet.example"], friends);
        let rows = [
            ("http://meet.example", "meet.example", ACCEPTED),
            ("https://meet.example", "meet.example", ACCEPTED),
            ("https://meet.example", "meet.example:443", ACCEPTED),
            ("https://meet.example:443", "meet.example", ACCEPTED),
            ("http://meet.example", "meet.example:80", ACCEPTED),
            ("http://meet.example:80", "meet.example", ACCEPTED),
            ("https://meet.example", "meet.example:80", REFUSED),
            ("http://meet.example", "meet.example:443", REFUSED),
            ("http://meet.example:8787", "meet.example:8787", ACCEPTED),
            ("https://meet.example:8787", "meet.example:8787", ACCEPTED),
            ("http://meet.example:8787", "meet.example", REFUSED),
            ("http://meet.example", "meet.example:8787", REFUSED),
            ("http://meet.example:8788", "meet.example:8787", REFUSED),
            ("HTTPS://Meet.Example", "meet.EXAMPLE", ACCEPTED),
            ("http://localhost:8787", "localhost:8787", ACCEPTED),
            ("http://localhost:8787", "127.0.0.1:8787", REFUSED),
            ("http://127.0.0.1:8787", "127.0.0.1:8787", ACCEPTED),
            ("http://[::1]:8787", "[::1]:8787", ACCEPTED),
            ("http://[::1]", "[0:0::1]:80", ACCEPTED),
            ("http://[::1]:8787", "[::2]:8787", REFUSED),
            ("https://evil.example", "meet.example", REFUSED),
            ("https://meet.example.evil.example", "meet.example", REFUSED),
            ("https://evilmeet.example", "meet.example", REFUSED),
            ("https://sub.meet.example", "meet.example", REFUSED),
            ("null", "meet.example", REFUSED),
            ("null", "null", REFUSED),
            ("", "meet.example", REFUSED),
            ("", "", REFUSED),
            ("meet.example", "meet.example", REFUSED),
            ("https://", "meet.example", REFUSED),
            ("://meet.example", "meet.example", REFUSED),
            ("https://meet.example/path", "meet.example", REFUSED),
            ("https://meet.example?", "meet.example", REFUSED),
            ("https://meet.example#", "meet.example", REFUSED),
            ("https://user@meet.example", "meet.example", REFUSED),
            ("https://meet.example@evil.example", "meet.example", REFUSED),
            ("https://meet.example https://evil.example", "meet.example", REFUSED),
            ("https://evil.example, https://meet.example", "meet.example", REFUSED),
            ("https://meet.example:99999", "meet.example", REFUSED),
            ("https://m\u{e9}et.example", "meet.example", REFUSED),
            ("chrome-extension://meet.example", "meet.example", REFUSED),
            ("file://", "meet.example", REFUSED),
            ("https://meet.example", "user@meet.example", REFUSED),
            ("https://meet.example", "meet.example, meet.example", REFUSED),
            ("https://friend.example:8443", "meet.example", ACCEPTED),
            ("HTTPS://FRIEND.example:8443", "meet.example", ACCEPTED),
            ("http://friend.example:8443", "meet.example", REFUSED),
            ("https://friend.example", "meet.example", REFUSED),
        ];
        for (origin, host, accepted) in rows {
            let result = post(&rule, &[("origin", origin), ("host", host)]);
            assert_eq!(result.is_ok(), accepted, "{origin} at {host}");
        }
        assert!(post(&rule, &[("origin", "https://meet.example")]).is_err());
    }

    #[test]
    fn public_url_is_compared_whole() {
        let allowed = ["http://localhost:5173", "capacitor://localhost"];
        let allowed = allowed.map(|origin| origin.parse().unwrap()).to_vec();
        let rule = OriginRule::new(Some("https://meet.example".parse().unwrap()), allowed);
        let rows = [
            ("https://meet.example", ACCEPTED),
            ("https://meet.example:443", ACCEPTED),
            ("https://MEET.example", ACCEPTED),
            ("http://meet.example", REFUSED),
            ("http://meet.example:443", REFUSED),
            ("https://meet.example:8443", REFUSED),
            ("https://inner:8787", REFUSED),
            ("http://inner:8787", REFUSED),
            ("http://localhost:5173", ACCEPTED),
            ("https://localhost:5173", REFUSED),
            ("capacitor://localhost", ACCEPTED),
            ("tauri://localhost", REFUSED),
            ("null", REFUSED),
        ];
        for (origin, accepted) in rows {
            let result = post(&rule, &[("origin", origin), ("host", "inner:8787")]);
            assert_eq!(result.is_ok(), accepted, "{origin}");
        }
    }

    #[test]
    fn forwarded_host_counts_from_trusted_proxy_only() {
        let rule = rule_of(&["meet.example"], Vec::new());
        let headers = headers(&[
            ("origin", "https://meet.example"),
            ("host", "inner:8787"),
            ("x-forwarded-host", "meet.example"),
        ]);
        let trusted = TrustedProxies::new(["10.0.0.0/8".parse().unwrap()]);
        assert!(rule.check(&Method::POST, &headers, &peer(&headers, &trusted)).is_ok());
        let refused = rule.check(&Method::POST, &headers, &peer(&headers, &Default::default()));
        assert_eq!(
            refused.unwrap_err().to_string(),
            "the Origin https://meet.example is neither inner:8787 nor in http.allowed_origins"
        );
    }

    #[test]
    fn spoofable_host_is_not_ours() {
        let rule = OriginRule::default();
        let rebound = [("origin", "http://evil.example:8787"), ("host", "evil.example:8787")];
        let refused = post(&rule, &rebound).unwrap_err();
        assert!(!refused.host && refused.expected.contains("IP address"), "{refused:?}");
        for origin in ["http://10.0.0.7:8787", "http://localhost:8787", "http://meetbox:8787"] {
            let host = origin.trim_start_matches("http://");
            assert!(post(&rule, &[("origin", origin), ("host", host)]).is_ok(), "{origin}");
        }
        let allowed = OriginRule::new(None, vec!["http://evil.example:8787".parse().unwrap()]);
        assert!(post(&allowed, &rebound).is_ok());
        // A browser verified a certificate for the name.
        let headers = headers(&rebound);
        let peer = RemotePeer { scheme: Scheme::Https, ..peer(&headers, &TrustedProxies::default()) };
        assert!(rule.check(&Method::POST, &headers, &peer).is_ok());
    }

    #[test]
    fn several_origins_are_refused() {
        let rule = rule_of(&["meet.example"], Vec::new());
        for second in ["https://meet.example", "https://evil.example"] {
            let first = ("origin", "https://meet.example");
            let lines = [first, ("origin", second), ("host", "meet.example")];
            assert!(post(&rule, &lines).is_err(), "{second}");
        }
    }

    #[test]
    fn unsafe_methods_and_upgrades_are_checked() {
        let rule = rule_of(&["meet.example"], Vec::new());
        let plain = headers(&[("origin", "https://evil.example"), ("host", "meet.example")]);
        let upgrade = headers(&[
            ("origin", "https://evil.example"),
            ("host", "meet.example"),
            ("upgrade", "websocket"),
        ]);
        let check = |method: &Method, headers: &HeaderMap| {
            rule.check(method, headers, &peer(headers, &TrustedProxies::default()))
        };
        for method in ["GET", "HEAD", "OPTIONS"].map(|m| m.parse().unwrap()) {
            assert!(check(&method, &plain).is_ok(), "{method}");
            assert!(check(&method, &upgrade).is_err(), "{method} with an upgrade");
        }
        // HTTP/2 opens a WebSocket by CONNECT (RFC 8441).
        let asked = ["POST", "PUT", "PATCH", "DELETE", "CONNECT", "TRACE", "get", "BREW"];
        for method in asked.map(|m| m.parse().unwrap()) {
            assert!(check(&method, &plain).is_err(), "{method}");
        }
    }

    #[test]
    fn request_without_origin_passes() {
        assert!(post(&rule_of(&["meet.example"], Vec::new()), &[("host", "meet.example")]).is_ok());
        assert!(post(&rule_of(&["meet.example"], Vec::new()), &[]).is_ok());
    }

    #[test]
    fn refused_origin_is_safe_to_log() {
        let rule = rule_of(&["meet.example"], Vec::new());
        let long = format!("https://evil.example/{}\t", "x".repeat(60_000));
        let refused = post(&rule, &[("origin", &long)]).unwrap_err();
        assert_eq!(refused.origin.chars().count(), 200);
        assert!(!post(&rule, &[("origin", "a\tb")]).unwrap_err().origin.contains('\t'));
    }

    proptest! {
        #[test]
        fn arbitrary_origin_only_own_host_is_accepted(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = headers(&[("host", "meet.example")]);
                headers.insert(ORIGIN, value);
                let peer = peer(&headers, &TrustedProxies::default());
                prop_assert!(rule_of(&["meet.example"], Vec::new()).check(&Method::POST, &headers, &peer).is_err());
            }
        }

        #[test]
        fn parsed_origin_parses_again_to_itself(
            text in "[a-z]{1,5}://[a-zA-Z0-9.:-]{1,20}",
        ) {
            if let Ok(origin) = text.parse::<Origin>() {
                prop_assert_eq!(origin.to_string().parse::<Origin>(), Ok(origin));
            }
        }
    }
}
