//! Decides to which client's network a request's costs are charged.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::HeaderMap;
use tracing::warn;

use crate::config::Config;
use crate::identity::peer::{AddressOwner, Peer, Trust, TrustedProxies};

/// Headers that proxies add, and browsers never send.
const OF_PROXIES: [&str; 6] =
    ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];

/// Finds whose addresses are.
#[derive(Debug)]
pub struct Charge {
    exempt: TrustedProxies,
    /// By the configuration every request comes through a proxy, whose address is not known.
    proxy_is_unknown: bool,
    /// Browsers speak TLS with this server, so that a proxy is in front of it on this machine at most.
    speaks_tls: bool,
    warned: AtomicBool,
}

impl Charge {
    /// The rules of this configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            exempt: TrustedProxies::new(config.limits.exempt_networks.iter().copied()),
            proxy_is_unknown: config.has_unknown_proxy(),
            speaks_tls: config.speaks_tls(),
            warned: AtomicBool::new(false),
        }
    }

    /// Whose the address of a request with these headers is.
    ///
    /// A proxy that is not trusted gives everybody its own address, and a limit for it would lock
    /// all of them out. It is known by the headers that it adds; those count only from where proxies
    /// are, this machine and, without TLS here, private networks: anybody else would write them to be
    /// rid of the limits.
    pub fn owner(&self, peer: &Peer, headers: &HeaderMap) -> AddressOwner {
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

    /// Says once that a proxy hides its clients' addresses from the limits, and how to mend it.
    ///
    /// To be called for what people alone ask for: proxies look themselves whether a server is well.
    pub fn warn_once(&self, peer: &Peer) {
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

/// Whether an address is this machine's or of a private network (RFC 1918, 4193, 6598).
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
    use crate::identity::peer::Scheme;

    const FORWARDED: &[(&str, &str)] = &[("x-forwarded-for", "203.0.113.9")];

    fn owner(config: &Config, socket: &str, lines: &[(&'static str, &str)]) -> AddressOwner {
        let headers: HeaderMap = lines
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let proxies = TrustedProxies::new(config.http.trusted_proxies.iter().copied());
        let uri = Uri::from_static("/");
        let peer = Peer::new(socket.parse().unwrap(), Scheme::Http, &uri, &headers, &proxies);
        Charge::new(config).owner(&peer, &headers)
    }

    #[test]
    fn a_direct_client_is_charged_and_cannot_talk_its_way_out() {
        let config = Config::default();
        for address in ["127.0.0.1", "192.168.1.7", "203.0.113.9", "2001:db8::1"] {
            assert_eq!(owner(&config, address, &[]), AddressOwner::Client, "{address}");
        }
        for address in ["203.0.113.9", "2001:db8::1", "100.128.0.1", "::ffff:8.8.8.8"] {
            assert_eq!(owner(&config, address, FORWARDED), AddressOwner::Client, "{address}");
        }
    }

    #[test]
    fn an_internal_proxy_is_known_by_its_headers() {
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
    fn a_trusted_proxy_tells_whose_the_address_is() {
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
    fn https_that_is_spoken_elsewhere_needs_a_trusted_proxy() {
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
    fn exempt_networks_are_charged_nothing() {
        let mut config = Config::default();
        config.limits.exempt_networks = vec!["203.0.113.0/24".parse().unwrap()];
        config.http.trusted_proxies = vec!["10.0.0.1/32".parse().unwrap()];
        assert_eq!(owner(&config, "203.0.113.9", &[]), AddressOwner::Exempt);
        assert_eq!(owner(&config, "10.0.0.1", FORWARDED), AddressOwner::Exempt);
        assert_eq!(owner(&config, "10.0.0.1", &[("x-forwarded-for", "198.51.100.1")]), AddressOwner::Client);
    }
}
