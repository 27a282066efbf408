//! Selection of the addresses advertised to peers, and of the one that a received packet was sent to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use str0m::net::Protocol;

use crate::engine::Address;
use crate::settings::MediaAddress;

/// Origin of the clients of the server's pages, and so of their media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// This machine only.
    Loopback,
    /// Other machines.
    Network,
}

impl Reach {
    /// Reach of a listener's address.
    pub fn of(listener: IpAddr) -> Self {
        if listener.to_canonical().is_loopback() { Self::Loopback } else { Self::Network }
    }
}

/// The addresses and protocols advertised to peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// Not empty.
    sockets: Vec<SocketAddr>,
    protocols: Vec<Protocol>,
}

impl Advertised {
    /// Chooses the addresses for sockets that are `bound`.
    ///
    /// `configured` addresses take precedence. A socket bound to one address has that one. A socket bound to all
    /// addresses has those of `interfaces` that other machines can reach. Loopback addresses are advertised only if
    /// the pages are reached through loopback, or if there is no other address.
    pub(crate) fn choose(
        configured: &[MediaAddress],
        bound: SocketAddr,
        interfaces: &[IpAddr],
        reach: Reach,
        protocols: &[Protocol],
    ) -> Self {
        let mut sockets: Vec<SocketAddr> = Vec::new();
        let mut advertise = |address: SocketAddr| {
            if !sockets.contains(&address) {
                sockets.push(address);
            }
        };
        if !configured.is_empty() {
            for address in configured {
                advertise(match *address {
                    MediaAddress::Ip(ip) => SocketAddr::new(ip, bound.port()),
                    MediaAddress::Socket(address) => address,
                });
            }
        } else if !bound.ip().is_unspecified() {
            advertise(canonical(bound));
        } else {
            let speaks = |ip: &IpAddr| ip.is_ipv4() || bound.is_ipv6();
            let spoken = || interfaces.iter().map(IpAddr::to_canonical).filter(speaks);
            let far: Vec<_> = spoken().filter(|ip| is_reachable(*ip)).collect();
            let mut near: Vec<_> = spoken().filter(IpAddr::is_loopback).collect();
            if near.is_empty() {
                near.push(Ipv4Addr::LOCALHOST.into());
            }
            if reach == Reach::Network && !far.is_empty() {
                near.clear();
            }
            for ip in far.into_iter().chain(near) {
                advertise(SocketAddr::new(ip, bound.port()));
            }
        }
        Self { sockets, protocols: protocols.to_vec() }
    }

    /// True if none of the addresses is reachable from the whole internet.
    pub fn is_private(&self) -> bool {
        self.sockets.iter().all(|address| match address.ip() {
            // RFC 1918, and RFC 6598 for carrier-grade NAT.
            IpAddr::V4(ip) => {
                ip.is_private() || ip.is_loopback() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64)
            }
            IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback(),
        })
    }

    /// The addresses, without protocols.
    pub fn sockets(&self) -> &[SocketAddr] {
        &self.sockets
    }

    /// The address of each ICE candidate, with its protocol.
    pub(crate) fn candidates(&self) -> Vec<Address> {
        let of = |&proto: &Protocol| self.sockets.iter().map(move |&address| Address { proto, address });
        self.protocols.iter().flat_map(of).collect()
    }

    /// Returns the advertised address that corresponds to `local`, where a packet arrived.
    ///
    /// Behind NAT a peer sends to an address that this machine does not have, but str0m requires an advertised one:
    /// preferably one with the same IP address, otherwise the first of the same family.
    pub(crate) fn meant_by(&self, local: SocketAddr) -> SocketAddr {
        if self.sockets.contains(&local) {
            return local;
        }
        let same_ip = self.sockets.iter().find(|address| address.ip() == local.ip());
        let of_family = || self.sockets.iter().find(|address| address.is_ipv4() == local.is_ipv4());
        same_ip.or_else(of_family).copied().unwrap_or(local)
    }
}

/// True if another machine can reach the address without a zone.
fn is_reachable(ip: IpAddr) -> bool {
    let is_near = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(is_near || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified())
}

/// Converts an IPv4-mapped IPv6 address to IPv4.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// An address of this machine, and the name of its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name of the interface, such as `eth0`.
    pub name: String,
    /// One of its addresses.
    pub ip: IpAddr,
}

/// The addresses of this machine's interfaces.
///
/// # Errors
/// The system cannot list them.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let all = if_addrs::get_if_addrs()?.into_iter();
    Ok(all.map(|interface| Interface { ip: interface.ip(), name: interface.name }).collect())
}

/// Addresses of the interfaces whose names begin with none of the prefixes in `hidden`.
pub fn shown(interfaces: &[Interface], hidden: &[String]) -> Vec<IpAddr> {
    let is_hidden = |name: &str| hidden.iter().any(|beginning| name.starts_with(beginning.as_str()));
    interfaces.iter().filter(|interface| !is_hidden(&interface.name)).map(|interface| interface.ip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::HIDDEN_INTERFACES;

    const INTERFACES: [&str; 7] =
        ["127.0.0.1", "::1", "192.168.1.5", "fe80::1", "2001:db8::5", "169.254.3.4", "172.17.0.1"];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn choose(configured: &[&str], bound: &str, interfaces: &[&str], reach: Reach) -> Vec<String> {
        let configured: Vec<MediaAddress> = configured.iter().map(|text| text.parse().unwrap()).collect();
        let interfaces: Vec<IpAddr> = interfaces.iter().map(|text| ip(text)).collect();
        let chosen =
            Advertised::choose(&configured, bound.parse().unwrap(), &interfaces, reach, &[Protocol::Udp]);
        chosen.sockets().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn public_server_advertises_all_reachable_addresses() {
        assert_eq!(
            choose(&[], "[::]:8789", &INTERFACES, Reach::Network),
            ["192.168.1.5:8789", "[2001:db8::5]:8789", "172.17.0.1:8789"]
        );
        assert_eq!(
            choose(&[], "0.0.0.0:8789", &INTERFACES, Reach::Network),
            ["192.168.1.5:8789", "172.17.0.1:8789"],
            "a socket without IPv6"
        );
    }

    #[test]
    fn loopback_is_advertised_only_locally_or_alone() {
        let advertised = choose(&[], "[::]:1", &INTERFACES, Reach::Loopback);
        assert_eq!(
            advertised,
            ["192.168.1.5:1", "[2001:db8::5]:1", "172.17.0.1:1", "127.0.0.1:1", "[::1]:1"]
        );
        assert_eq!(choose(&[], "[::]:1", &INTERFACES[..2], Reach::Network), ["127.0.0.1:1", "[::1]:1"]);
        assert_eq!(choose(&[], "0.0.0.0:1", &INTERFACES[..2], Reach::Network), ["127.0.0.1:1"]);
        assert_eq!(choose(&[], "[::]:1", &[], Reach::Network), ["127.0.0.1:1"], "the system tells none");
    }

    #[test]
    fn socket_of_one_address_advertises_it() {
        assert_eq!(choose(&[], "192.168.1.5:1", &INTERFACES, Reach::Loopback), ["192.168.1.5:1"]);
        assert_eq!(choose(&[], "[::ffff:192.168.1.5]:1", &INTERFACES, Reach::Loopback), ["192.168.1.5:1"]);
    }

    #[test]
    fn configured_addresses_take_precedence() {
        let configured = ["203.0.113.7", "203.0.113.8:9000", "[2001:db8::9]", "2001:db8::9", "203.0.113.7:5"];
        assert_eq!(
            choose(&configured, "10.0.0.1:5", &INTERFACES, Reach::Loopback),
            ["203.0.113.7:5", "203.0.113.8:9000", "[2001:db8::9]:5"],
            "each once"
        );
        assert!("meet.example".parse::<MediaAddress>().is_err());
        assert!("203.0.113.7:99999".parse::<MediaAddress>().is_err());
    }

    #[test]
    fn local_address_maps_to_advertised_one() {
        let advertised =
            ["203.0.113.7:9000", "192.168.1.5:9001", "2001:db8::9"].map(|text| text.parse().unwrap());
        let bound = "[::]:8789".parse().unwrap();
        let advertised = Advertised::choose(&advertised, bound, &[], Reach::Network, &[Protocol::Udp]);
        for (local, meant) in [
            ("203.0.113.7:9000", "203.0.113.7:9000"),
            ("192.168.1.5:8789", "192.168.1.5:9001"),
            ("10.0.0.3:8789", "203.0.113.7:9000"),
            ("[fd00::3]:8789", "[2001:db8::9]:8789"),
        ] {
            assert_eq!(advertised.meant_by(local.parse().unwrap()).to_string(), meant, "{local}");
        }
    }

    #[test]
    fn each_address_is_a_candidate_of_each_protocol() {
        let protocols = [Protocol::Udp, Protocol::Tcp];
        let bound = "127.0.0.1:7".parse().unwrap();
        let advertised = Advertised::choose(&[], bound, &[], Reach::Network, &protocols).candidates();
        let advertised: Vec<_> =
            advertised.iter().map(|advertised| (advertised.proto, advertised.address)).collect();
        assert_eq!(advertised, [(Protocol::Udp, bound), (Protocol::Tcp, bound)]);
    }

    #[test]
    fn container_interfaces_are_hidden() {
        let interfaces = [
            ("eth0", "192.0.2.1"),
            ("docker0", "172.17.0.1"),
            ("br-0a1b", "172.18.0.1"),
            ("bridge0", "10.0.0.1"),
        ];
        let interfaces =
            interfaces.map(|(name, address)| Interface { name: name.to_owned(), ip: ip(address) });
        let hidden = HIDDEN_INTERFACES.map(str::to_owned);
        assert_eq!(shown(&interfaces, &hidden), [ip("192.0.2.1"), ip("10.0.0.1")]);
        assert_eq!(shown(&interfaces, &[]).len(), 4);
    }

    #[test]
    fn interfaces_include_loopback() {
        assert!(interfaces().unwrap().iter().any(|interface| interface.ip.is_loopback()));
    }

    #[test]
    fn reach_follows_the_listener() {
        assert_eq!(Reach::of(ip("::ffff:127.0.0.1")), Reach::Loopback);
        assert_eq!(Reach::of(ip("0.0.0.0")), Reach::Network);
    }
}
