//! A client's network in the compact form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::network::ClientNetwork;

/// An IPv4 address, or the first half of IPv6 ones.
#[derive(Serialize, Deserialize)]
pub(super) enum WireNetwork {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl WireNetwork {
    pub(super) fn of(network: ClientNetwork) -> Self {
        match network.first_address() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }

    pub(super) fn read(self) -> ClientNetwork {
        ClientNetwork::containing(match self {
            Self::V4(octets) => Ipv4Addr::from(octets).into(),
            Self::V6(half) => Ipv6Addr::from_bits(u128::from(u64::from_be_bytes(half)) << 64).into(),
        })
    }
}
