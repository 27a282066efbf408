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
}
