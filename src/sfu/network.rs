//! The network of a client: the key of limits on clients that can create identities freely.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Minimum IPv6 prefix length assigned to one subscriber of an internet provider (RFC 6177).
const V6_PREFIX: u8 = 64;

/// Prefix under which NAT64 translators write IPv4 addresses (RFC 6052 section 2.1).
const NAT64_PREFIX: u128 = 0x0064_ff9b << 96;

/// A client's network: an IPv4 address, or an IPv6 network of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientNetwork(IpNet);

/// Returns the network to which every limit per address applies.
///
/// An IPv4-mapped address counts as its IPv4 address, and so does one from a NAT64 translator: otherwise
/// the whole IPv4 internet would be one network there.
pub fn client_network(address: IpAddr) -> ClientNetwork {
    ClientNetwork::containing(match address.to_canonical() {
        IpAddr::V6(v6) => translated(v6).map_or(v6.into(), IpAddr::V4),
        v4 => v4,
    })
}

impl ClientNetwork {
    /// Returns the network of an address that is no IPv4 address in the form of an IPv6 one.
    pub fn containing(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(v4) => IpNet::V4(Ipv4Net::from(v4)),
            IpAddr::V6(v6) => IpNet::V6(Ipv6Net::new_assert(v6, V6_PREFIX).trunc()),
        })
    }

    /// Returns its first address.
    pub fn first_address(self) -> IpAddr {
        self.0.network()
    }
}

fn translated(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let below = address.to_bits() ^ NAT64_PREFIX;
    u32::try_from(below).ok().map(Ipv4Addr::from_bits)
}

/// Networks that are no part of the public internet (IANA's special-purpose registries), so that a request that
/// somebody else chose must not reach them. Those of IPv6 with an IPv4 address inside are decided by that address.
const SPECIAL: [IpNet; 21] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    // Multicast, reserved, broadcast.
    v4([224, 0, 0, 0], 3),
    // Unspecified, loopback, and IPv4-compatible addresses.
    v6([0; 8], 96),
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64),
    // Teredo, ORCHID, benchmarking and others.
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
    // Unique local, link-local and site-local addresses, multicast.
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
    v6([0xfe00, 0, 0, 0, 0, 0, 0, 0], 7),
];

const fn v4([a, b, c, d]: [u8; 4], length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length))
}

/// True for an address of the public internet: not loopback, private, link-local, multicast or reserved, nor such an
/// IPv4 address in the form of an IPv6 one (mapped, NAT64, 6to4).
pub fn is_public(address: IpAddr) -> bool {
    let address = match address.to_canonical() {
        IpAddr::V6(v6) => embedded(v6).map_or(v6.into(), IpAddr::V4),
        v4 => v4,
    };
    !SPECIAL.iter().any(|network| network.contains(&address))
}

/// The IPv4 address to which a translator or tunnel would pass a packet on.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    // 6to4 (RFC 3056 section 2).
    let [first, high, low, ..] = address.segments();
    let tunnelled = (first == 0x2002).then(|| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    translated(address).or(tunnelled)
}

impl fmt::Display for ClientNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpNet::V4(v4) => v4.addr().fmt(f),
            IpNet::V6(v6) => v6.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(address: &str) -> String {
        client_network(address.parse().unwrap()).to_string()
    }

    #[test]
    fn v4_is_one_address_and_v6_is_one_slash_64() {
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("64:ff9b::192.0.2.1"), "192.0.2.1");
        assert_eq!(of("2001:db8:0:1:2:3:4:5"), "2001:db8:0:1::/64");
        assert_eq!(of("::1"), "::/64");
        assert_eq!(of("64:ff9b:1::192.0.2.1"), "64:ff9b:1::/64");
    }

    proptest! {
        #[test]
        fn low_64_bits_never_matter(high: u64, low: u64, other: u64) {
            // The prefixes of embedded IPv4 addresses are the exceptions.
            prop_assume!(high != 0 && u128::from(high) << 64 != NAT64_PREFIX);
            let address = |low: u64| IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)));
            prop_assert_eq!(client_network(address(low)), client_network(address(other)));
        }

        #[test]
        fn v4_addresses_are_distinct_networks(one: u32, other: u32) {
            let of = |bits: u32| client_network(IpAddr::V4(Ipv4Addr::from_bits(bits)));
            prop_assert_eq!(of(one) == of(other), one == other);
            let mapped = IpAddr::V6(Ipv4Addr::from_bits(one).to_ipv6_mapped());
            prop_assert_eq!(client_network(mapped), of(one));
        }
    }

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for public in
            ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "64:ff9b::8.8.8.8", "2002:808:808::1"]
        {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for special in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.8",
            "198.19.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
    }
}
