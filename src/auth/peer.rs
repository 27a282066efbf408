//! The peer of a request: address, scheme and host, seen through trusted proxies.
//!
//! Any client can write `X-Forwarded-*` headers. They are believed only if the socket's own peer is a
//! configured proxy, and of a list only the entries such a proxy vouches for: every proxy appends at the
//! right.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::HOST;
use axum::http::{HeaderMap, Uri};
use ipnet::{IpNet, Ipv4Net};
use url::Host;

use crate::config::BasePath;
use crate::network::{ClientNetwork, client_network};

/// Addresses with trusted `X-Forwarded-*` headers and user header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Takes the configured networks; an empty list trusts nobody.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(networks.into_iter().map(canonical_network).collect())
    }

    /// True if `address` belongs to a trusted proxy.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Converts a network of IPv4-mapped addresses (`::ffff:10.0.0.0/104`) to IPv4, because the addresses
/// compared with it are converted too.
fn canonical_network(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V6(v6) => v6.prefix_len().checked_sub(96).zip(v6.network().to_ipv4_mapped()),
        IpNet::V4(_) => None,
    };
    match mapped.map(|(prefix, address)| Ipv4Net::new(address, prefix)) {
        Some(Ok(v4)) => IpNet::V4(v4),
        _ => network,
    }
}

/// Protocol between the client and the first proxy or server of this installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// Returns the scheme as written in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Trust in the socket's own peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// One of the [`TrustedProxies`]: its forwarding headers were used.
    TrustedProxy,
    /// Any other peer: its forwarding headers were ignored.
    Untrusted,
}

/// The peer of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemotePeer {
    /// The client's address; an IPv4-mapped IPv6 address is converted to IPv4.
    pub address: IpAddr,
    /// Protocol that the client used.
    pub scheme: Scheme,
    /// The requested host, as `host` or `host:port` in lower case (a domain in its ASCII form, an IPv6
    /// address in brackets). `None` if the request has none, several, or a malformed one.
    pub host: Option<String>,
    /// Trust in the socket's own peer.
    pub trust: Trust,
    /// Owner of the address, as far as known.
    pub owner: AddressOwner,
    /// The path below which the client reaches this server.
    pub base_path: BasePath,
}

/// The owner of a request's address, as far as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressOwner {
    /// The client itself: it connected directly, or a trusted proxy passed its address on.
    Client,
    /// A trusted proxy that passed no address on.
    TrustedProxy,
    /// A proxy that is not configured as trusted.
    UntrustedProxy,
    /// A host in a network exempt from limits.
    Exempt,
}

impl RemotePeer {
    /// Returns the network that the request is charged to; `None` if the address is not the client's
    /// own, since a limit would then count all clients as one.
    pub fn network(&self) -> Option<ClientNetwork> {
        match self.owner {
            AddressOwner::Client => Some(client_network(self.address)),
            AddressOwner::TrustedProxy | AddressOwner::UntrustedProxy | AddressOwner::Exempt => None,
        }
    }

    /// Determines the client of a request from `socket` to a listener of scheme `listener`.
    ///
    /// From a trusted proxy, `X-Forwarded-For` is read from right to left past the trusted addresses;
    /// the first other one is the client, and a malformed one ends the search at the last valid address.
    /// Of `X-Forwarded-Proto` and `X-Forwarded-Host` the last value counts, since the nearest proxy
    /// wrote it; a malformed one is ignored.
    ///
    /// The host is `uri`'s authority (HTTP/2's `:authority`; RFC 9112 section 3.2.2 puts an absolute URI
    /// before `Host`), otherwise the single `Host` header.
    pub fn new(
        socket: IpAddr,
        listener: Scheme,
        uri: &Uri,
        headers: &HeaderMap,
        proxies: &TrustedProxies,
    ) -> Self {
        let socket = socket.to_canonical();
        let asked = match uri.authority() {
            Some(authority) => host_text(authority.as_str()),
            None => only_host_header(headers).and_then(host_text),
        };
        if !proxies.contain(socket) {
            let (trust, owner) = (Trust::Untrusted, AddressOwner::Client);
            let base_path = BasePath::default();
            return Self { address: socket, scheme: listener, host: asked, trust, owner, base_path };
        }
        let address = forwarded_for(socket, headers, proxies);
        let is_proxys = proxies.contain(address);
        Self {
            address,
            scheme: last_value(headers, "x-forwarded-proto").and_then(scheme).unwrap_or(listener),
            host: last_value(headers, "x-forwarded-host").and_then(host_text).or(asked),
            trust: Trust::TrustedProxy,
            owner: if is_proxys { AddressOwner::TrustedProxy } else { AddressOwner::Client },
            base_path: BasePath::default(),
        }
    }
}

fn forwarded_for(socket: IpAddr, headers: &HeaderMap, proxies: &TrustedProxies) -> IpAddr {
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    // A line that is not ASCII yields one entry that is no address, and so ends the search.
    let entries = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    let mut client = socket;
    for entry in entries {
        let Some(address) = address(entry.trim()) else {
            break;
        };
        client = address;
        if !proxies.contain(client) {
            break;
        }
    }
    client
}

/// Parses an address as proxies write it: bare, in brackets, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(address.to_canonical())
}

fn last_value<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let line = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    line.rsplit(',').next().map(str::trim)
}

fn scheme(text: &str) -> Option<Scheme> {
    // Traefik sends a WebSocket's scheme.
    let is = |name: &str| text.eq_ignore_ascii_case(name);
    if is("https") || is("wss") {
        Some(Scheme::Https)
    } else if is("http") || is("ws") {
        Some(Scheme::Http)
    } else {
        None
    }
}

fn only_host_header(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        _ => None,
    }
}

fn host_text(authority: &str) -> Option<String> {
    let (host, port) = parse_authority(authority)?;
    Some(match port {
        Some(port) => format!("{host}:{port}"),
        None => host.to_string(),
    })
}

/// Parses `host` or `host:port`; a user name before the host makes it malformed.
///
/// Normalizes the host as browsers do (WHATWG URL section 3.5): lower case, punycode, shortest IPv6.
fn parse_authority(text: &str) -> Option<(Host, Option<u16>)> {
    // A domain has at most 253 characters and a port 6; longer input is not scanned.
    if text.len() > 260 || !text.is_ascii() {
        return None;
    }
    let (host, port) = match text.rsplit_once(':') {
        // A colon within the brackets of an IPv6 address starts no port.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let port = match port {
        Some(port) if digits(port) => Some(port.parse().ok()?),
        Some(_) => return None,
        None => None,
    };
    // The library decodes `%6d`, which no browser sends in a host.
    if host.contains('%') {
        return None;
    }
    Some((Host::parse(host).ok()?, port))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn proxies() -> TrustedProxies {
        TrustedProxies::new(["10.0.0.0/8", "fd00::/8", "::ffff:192.168.7.0/120"].map(|n| n.parse().unwrap()))
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        let mut headers = HeaderMap::new();
        lines.iter().map(line).for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    fn peer(socket: &str, lines: &[(&'static str, &str)]) -> RemotePeer {
        let uri = Uri::from_static("/new");
        RemotePeer::new(ip(socket), Scheme::Http, &uri, &headers(lines), &proxies())
    }

    #[test]
    fn untrusted_socket_is_the_client() {
        let spoofed = peer(
            "203.0.113.9",
            &[
                ("host", "meet.example"),
                ("x-forwarded-for", "10.0.0.1, 127.0.0.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "evil.example"),
            ],
        );
        assert_eq!(
            spoofed,
            RemotePeer {
                address: ip("203.0.113.9"),
                scheme: Scheme::Http,
                host: Some("meet.example".into()),
                trust: Trust::Untrusted,
                owner: AddressOwner::Client,
                base_path: BasePath::default(),
            }
        );
    }

    #[test]
    fn trusted_proxy_names_client_scheme_and_host() {
        let forwarded = peer(
            "10.1.1.1",
            &[
                ("host", "satsuma:8787"),
                ("x-forwarded-for", "203.0.113.9"),
                ("x-forwarded-proto", "HTTPS"),
                ("x-forwarded-host", "Meet.Example"),
            ],
        );
        assert_eq!(
            forwarded,
            RemotePeer {
                address: ip("203.0.113.9"),
                scheme: Scheme::Https,
                host: Some("meet.example".into()),
                trust: Trust::TrustedProxy,
                owner: AddressOwner::Client,
                base_path: BasePath::default(),
            }
        );
    }

    #[test]
    fn forwarded_for_is_read_from_the_right() {
        let rows: &[(&[&str], &str)] = &[
            (&[], "10.1.1.1"),
            (&[""], "10.1.1.1"),
            (&["203.0.113.9"], "203.0.113.9"),
            // Entries forged by the client are left of those added by the proxy.
            (&["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
            (&["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
            (&["1.1.1.1, 203.0.113.9, 10.2.2.2,10.3.3.3"], "203.0.113.9"),
            (&["1.1.1.1, 203.0.113.9", "10.2.2.2, fd00::1"], "203.0.113.9"),
            (&["203.0.113.9, 192.168.7.3"], "203.0.113.9"),
            // All trusted: the farthest counts.
            (&["10.4.4.4, 10.2.2.2"], "10.4.4.4"),
            // A malformed entry ends the search.
            (&["1.1.1.1, unknown, 10.2.2.2"], "10.2.2.2"),
            (&["1.1.1.1, unknown"], "10.1.1.1"),
            (&["1.1.1.1,, 10.2.2.2"], "10.2.2.2"),
            (&["1.1.1.1", "é", "10.2.2.2"], "10.2.2.2"),
            // Formats of various proxies.
            (&["203.0.113.9:5123"], "203.0.113.9"),
            (&["[2001:db8::1]:5123"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["::ffff:203.0.113.9"], "203.0.113.9"),
            (&["1.1.1.1, ::ffff:10.2.2.2"], "1.1.1.1"),
        ];
        for (values, client) in rows {
            let lines: Vec<_> = values.iter().map(|v| ("x-forwarded-for", *v)).collect();
            assert_eq!(peer("10.1.1.1", &lines).address, ip(client), "{values:?}");
        }
    }

    #[test]
    fn mapped_socket_address_becomes_ipv4() {
        let mapped = peer("::ffff:10.1.1.1", &[("x-forwarded-for", "203.0.113.9")]);
        assert_eq!((mapped.address, mapped.trust), (ip("203.0.113.9"), Trust::TrustedProxy));
        assert_eq!(peer("::ffff:203.0.113.9", &[]).address, ip("203.0.113.9"));
        assert!(proxies().contain(ip("::ffff:10.1.1.1")));
        assert!(!TrustedProxies::default().contain(ip("127.0.0.1")));
    }

    #[test]
    fn last_forwarded_scheme_and_host_count() {
        let two = peer(
            "10.1.1.1",
            &[
                ("host", "satsuma:8787"),
                ("x-forwarded-proto", "https, http"),
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-host", "other.example, meet.example:8443"),
            ],
        );
        assert_eq!((two.scheme, two.host.as_deref()), (Scheme::Http, Some("meet.example:8443")));
        let garbage = peer(
            "10.1.1.1",
            &[("host", "satsuma:8787"), ("x-forwarded-proto", "gopher"), ("x-forwarded-host", "a b")],
        );
        assert_eq!((garbage.scheme, garbage.host.as_deref()), (Scheme::Http, Some("satsuma:8787")));
        assert_eq!(peer("10.1.1.1", &[("x-forwarded-proto", "wss")]).scheme, Scheme::Https);
    }

    #[test]
    fn host_is_authority_or_single_host_header() {
        let uri = Uri::from_static("https://Meet.Example:8443/new");
        let headers = headers(&[("host", "other.example")]);
        let http2 = RemotePeer::new(ip("::1"), Scheme::Https, &uri, &headers, &proxies());
        assert_eq!(http2.host.as_deref(), Some("meet.example:8443"));
        assert_eq!(http2.scheme, Scheme::Https);

        let rows = [
            ("MEET.example", Some("meet.example")),
            ("meet.example:80", Some("meet.example:80")),
            ("localhost:8787", Some("localhost:8787")),
            ("my_host", Some("my_host")),
            ("127.0.0.1:8787", Some("127.0.0.1:8787")),
            ("[::1]", Some("[::1]")),
            ("[0:0:0::1]:8787", Some("[::1]:8787")),
            ("", None),
            (":80", None),
            ("::1", None),
            ("[::1", None),
            ("meet.example:", None),
            ("meet.example:+80", None),
            ("meet.example:65536", None),
            ("meet.example:80:80", None),
            ("user@meet.example", None),
            ("meet.example/path", None),
            ("%6deet.example", None),
            ("a b", None),
            ("é", None),
        ];
        for (host, expected) in rows {
            assert_eq!(peer("::1", &[("host", host)]).host.as_deref(), expected, "{host}");
        }
        assert_eq!(peer("::1", &[("host", &"a".repeat(60_000))]).host, None);
        assert_eq!(peer("::1", &[("host", "a.example"), ("host", "a.example")]).host, None);
        assert_eq!(peer("::1", &[]).host, None);
    }

    proptest! {
        #[test]
        fn arbitrary_headers_never_panic(
            lines in prop::collection::vec(
                (0..4usize, prop::collection::vec(any::<u8>(), 0..40)),
                0..8,
            ),
        ) {
            let names = ["host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.append(names[name], value);
                }
            }
            for socket in ["10.0.0.1", "203.0.113.9"] {
                let uri = Uri::from_static("/");
                let _ = RemotePeer::new(ip(socket), Scheme::Http, &uri, &headers, &proxies());
            }
        }

        #[test]
        fn entries_left_of_the_client_are_ignored(forged in "[ -~]{0,60}") {
            let value = format!("{forged},203.0.113.9, 10.2.2.2");
            let found = peer("10.1.1.1", &[("x-forwarded-for", &value)]);
            prop_assert_eq!(found.address, ip("203.0.113.9"));
        }

        #[test]
        fn parsed_host_parses_again_to_itself(text in "[a-zA-Z0-9.:\\[\\]-]{0,30}") {
            if let Some(host) = host_text(&text) {
                prop_assert_eq!(host_text(&host), Some(host.clone()));
            }
        }
    }
}
