//! The settings of the embedded media server.

use std::net::{IpAddr, SocketAddr};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::value::{Optional, Text, text, texts};

/// Who carries media.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaUpstream {
    /// Cloudflare where its application is set, the embedded media server otherwise.
    #[default]
    Auto,
    /// The media server of this process.
    Embedded,
    /// The media API at `calls.api_url`.
    Cloudflare,
}

/// The embedded media server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SfuConfig {
    /// The address and port for media, over UDP and TCP; port 0 lets the system choose one.
    #[serde(with = "text")]
    pub udp_listen: SocketAddr,
    /// The addresses that clients are told; none are those of this machine's interfaces.
    #[serde(with = "texts")]
    pub advertise: Vec<MediaAddress>,
    /// Beginnings of the names of interfaces whose addresses clients are not told.
    #[serde(with = "texts")]
    pub hidden_interfaces: Vec<String>,
    /// Whether clients may send their media over TCP.
    pub tcp: bool,
    /// Connections for media over TCP in all; at least 1.
    pub tcp_connections: usize,
    /// Of those, from one client network; at least 1.
    pub tcp_connections_per_network: usize,
    /// The id of the application, where the media API is served to other servers.
    pub app_id: String,
    /// The application's secret; with it the media API is served to other servers.
    pub api_secret: Optional<SecretString>,
    /// Sessions in all; at least 1.
    pub sessions: usize,
    /// Sessions of one identity; at least 1.
    pub sessions_per_identity: usize,
    /// Sessions that clients of one network opened; 0 is no limit.
    pub sessions_per_network: usize,
    /// Subscriptions of one identity in all of its sessions; at least 1.
    pub subscriptions_per_identity: usize,
    /// Subscriptions of one identity to one track; at least 1.
    pub subscriptions_per_identity_and_track: usize,
    /// Tracks that one session publishes and subscribes to; at least 1.
    pub tracks_per_session: usize,
    /// Subscribers of one track; at least 1.
    pub subscribers_per_track: usize,
    /// Subscribers of one track from one network; 0 is no limit.
    pub subscribers_per_track_and_network: usize,
}

/// The interfaces of containers and virtual machines, by the programs that make them: nobody elsewhere
/// reaches their addresses, and each costs every connection checks in vain.
const HIDDEN_INTERFACES: [&str; 14] = [
    "docker", "br-", "veth", "virbr", "vnet", "podman", "cni", "flannel", "cali", "cilium", "lxc", "lxd",
    "vmnet", "vboxnet",
];

impl Default for SfuConfig {
    fn default() -> Self {
        Self {
            udp_listen: SocketAddr::from(([0; 16], 8789)),
            advertise: Vec::new(),
            hidden_interfaces: HIDDEN_INTERFACES.map(str::to_owned).into(),
            tcp: true,
            tcp_connections: 2048,
            tcp_connections_per_network: 256,
            app_id: "embedded".to_owned(),
            api_secret: Optional(None),
            sessions: 2000,
            sessions_per_identity: 20,
            sessions_per_network: 500,
            subscriptions_per_identity: 1200,
            subscriptions_per_identity_and_track: 8,
            tracks_per_session: 400,
            subscribers_per_track: 1000,
            subscribers_per_track_and_network: 750,
        }
    }
}

/// An address that clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaAddress {
    /// With the port that media arrive at.
    Ip(IpAddr),
    /// With a port of its own, as behind a mapping of ports.
    Socket(SocketAddr),
}

impl Text for MediaAddress {
    const NOUN: &str = "an IP address, with a port if that is another than sfu.udp_listen's";
    const EXAMPLE: &str = "\"203.0.113.7\" or \"203.0.113.7:8789\"";

    fn read(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Socket(address));
        }
        text.trim_matches(['[', ']']).parse().ok().map(Self::Ip)
    }

    fn write(&self) -> String {
        match self {
            Self::Ip(ip) => ip.to_string(),
            Self::Socket(address) => address.to_string(),
        }
    }
}
