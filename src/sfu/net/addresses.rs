//! Which addresses peers are told, and which of them a packet was meant for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use str0m::net::Protocol;

use crate::config::MediaAddress;
use crate::sfu::engine::Address;

/// From where people reach the server's pages, and so from where media are expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// From this machine alone.
    Loopback,
    /// From other machines.
    Network,
}

impl Reach {
    /// The reach of a listener.
    pub fn of(listener: IpAddr) -> Self {
        if listener.to_canonical().is_loopback() { Self::Loopback } else { Self::Network }
    }
}

/// The addresses that peers are told, of each protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// Never empty.
    sockets: Vec<SocketAddr>,
    protocols: Vec<Protocol>,
}

impl Advertised {
    /// Chooses the addresses for sockets that are `bound`.
    ///
    /// What is `configured` wins. A socket of one address has that one. Any other has those of all
    /// `interfaces` that other machines may reach. This machine's own loopback is for those who reach
    /// the pages by it, or where there is nothing else.
    pub fn choose(
        configured: &[MediaAddress],
        bound: SocketAddr,
        interfaces: &[IpAddr],
        reach: Reach,
        protocols: &[Protocol],
    ) -> Self {
        let mut sockets: Vec<SocketAddr> = Vec::new();
        let mut tell = |address: SocketAddr| {
            if !sockets.contains(&address) {
                sockets.push(address);
            }
        };
        if !configured.is_empty() {
            for address in configured {
                tell(match *address {
                    MediaAddress::Ip(ip) => SocketAddr::new(ip, bound.port()),
                    MediaAddress::Socket(address) => address,
                });
            }
        } else if !bound.ip().is_unspecified() {
            tell(canonical(bound));
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
                tell(SocketAddr::new(ip, bound.port()));
            }
        }
        Self { sockets, protocols: protocols.to_vec() }
    }

    /// Whether no address is one that the whole internet may reach.
    pub fn is_private(&self) -> bool {
        self.sockets.iter().all(|address| match address.ip() {
            // RFC 1918, and RFC 6598 for carriers.
            IpAddr::V4(ip) => {
                ip.is_private() || ip.is_loopback() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64)
            }
            IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback(),
        })
    }

    /// The addresses, without their protocols.
    pub fn sockets(&self) -> &[SocketAddr] {
        &self.sockets
    }

    /// What the engine is told.
    pub fn candidates(&self) -> Vec<Address> {
        let of = |&proto: &Protocol| self.sockets.iter().map(move |&address| Address { proto, address });
        self.protocols.iter().flat_map(of).collect()
    }

    /// The address for which `local`, where a packet arrived, stands in peers' eyes.
    ///
    /// Behind a translation of addresses a peer sends to one that this machine does not have. str0m
    /// wants to see one that was told: best one of the same IP, then the first of the family.
    pub fn meant_by(&self, local: SocketAddr) -> SocketAddr {
        if self.sockets.contains(&local) {
            return local;
        }
        let same_ip = self.sockets.iter().find(|address| address.ip() == local.ip());
        let of_family = || self.sockets.iter().find(|address| address.is_ipv4() == local.is_ipv4());
        same_ip.or_else(of_family).copied().unwrap_or(local)
    }
}

/// Whether another machine may reach the address without a zone.
fn is_reachable(ip: IpAddr) -> bool {
    let is_near = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(is_near || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified())
}

/// The address without an IPv6 form around an IPv4 address.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// An address of this machine, and the name of its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Such as `eth0`.
    pub name: String,
    /// One of its addresses.
    pub ip: IpAddr,
}

/// The addresses of this machine's interfaces.
///
/// # Errors
/// The system does not tell them.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let all = if_addrs::get_if_addrs()?.into_iter();
    Ok(all.map(|interface| Interface { ip: interface.ip(), name: interface.name }).collect())
}

/// The addresses of all interfaces but those whose names begin with one of `hidden`.
pub fn shown(interfaces: &[Interface], hidden: &[String]) -> Vec<IpAddr> {
    let is_hidden = |name: &str| hidden.iter().any(|beginning| name.starts_with(beginning.as_str()));
    interfaces.iter().filter(|interface| !is_hidden(&interface.name)).map(|interface| interface.ip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_public_server_tells_every_address_that_others_may_reach() {
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
    fn loopback_is_told_to_those_who_come_by_it_and_alone_only_where_nothing_else_is() {
        let told = choose(&[], "[::]:1", &INTERFACES, Reach::Loopback);
        assert_eq!(told, ["192.168.1.5:1", "[2001:db8::5]:1", "172.17.0.1:1", "127.0.0.1:1", "[::1]:1"]);
        assert_eq!(choose(&[], "[::]:1", &INTERFACES[..2], Reach::Network), ["127.0.0.1:1", "[::1]:1"]);
        assert_eq!(choose(&[], "0.0.0.0:1", &INTERFACES[..2], Reach::Network), ["127.0.0.1:1"]);
        assert_eq!(choose(&[], "[::]:1", &[], Reach::Network), ["127.0.0.1:1"], "the system tells none");
    }

    #[test]
    fn a_socket_of_one_address_has_that_one() {
        assert_eq!(choose(&[], "192.168.1.5:1", &INTERFACES, Reach::Loopback), ["192.168.1.5:1"]);
        assert_eq!(choose(&[], "[::ffff:192.168.1.5]:1", &INTERFACES, Reach::Loopback), ["192.168.1.5:1"]);
    }

    #[test]
    fn what_is_configured_wins() {
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
    fn a_packet_is_meant_for_an_address_that_was_told() {
        let told = ["203.0.113.7:9000", "192.168.1.5:9001", "2001:db8::9"].map(|text| text.parse().unwrap());
        let bound = "[::]:8789".parse().unwrap();
        let told = Advertised::choose(&told, bound, &[], Reach::Network, &[Protocol::Udp]);
        for (local, meant) in [
            ("203.0.113.7:9000", "203.0.113.7:9000"),
            ("192.168.1.5:8789", "192.168.1.5:9001"),
            ("10.0.0.3:8789", "203.0.113.7:9000"),
            ("[fd00::3]:8789", "[2001:db8::9]:8789"),
        ] {
            assert_eq!(told.meant_by(local.parse().unwrap()).to_string(), meant, "{local}");
        }
    }

    #[test]
    fn each_protocol_is_told_each_address() {
        let protocols = [Protocol::Udp, Protocol::Tcp];
        let bound = "127.0.0.1:7".parse().unwrap();
        let told = Advertised::choose(&[], bound, &[], Reach::Network, &protocols).candidates();
        let told: Vec<_> = told.iter().map(|told| (told.proto, told.address)).collect();
        assert_eq!(told, [(Protocol::Udp, bound), (Protocol::Tcp, bound)]);
    }

    #[test]
    fn interfaces_of_containers_are_not_told() {
        let interfaces = [
            ("eth0", "192.0.2.1"),
            ("docker0", "172.17.0.1"),
            ("br-0a1b", "172.18.0.1"),
            ("bridge0", "10.0.0.1"),
        ];
        let interfaces =
            interfaces.map(|(name, address)| Interface { name: name.to_owned(), ip: ip(address) });
        let hidden = crate::config::Sfu::default().hidden_interfaces;
        assert_eq!(shown(&interfaces, &hidden), [ip("192.0.2.1"), ip("10.0.0.1")]);
        assert_eq!(shown(&interfaces, &[]).len(), 4);
    }

    #[test]
    fn the_machine_tells_its_loopback_at_least() {
        assert!(interfaces().unwrap().iter().any(|interface| interface.ip.is_loopback()));
    }

    #[test]
    fn reach_is_that_of_the_listener() {
        assert_eq!(Reach::of(ip("::ffff:127.0.0.1")), Reach::Loopback);
        assert_eq!(Reach::of(ip("0.0.0.0")), Reach::Network);
    }
}
