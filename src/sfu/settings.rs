//! Settings of the media server.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use super::engine::IceSecret;
use super::net::addresses::Reach;
use super::net::bind::Transport;

/// Settings of the media server.
#[derive(Clone, Debug)]
pub struct SfuSettings {
    /// Address for media, by UDP and TCP; port 0 lets the system choose one. Default: `[::]:8789`, which is also all
    /// of IPv4.
    pub listen: SocketAddr,
    /// The addresses advertised to peers as ICE candidates. Default: none, which means those of the interfaces.
    pub advertise: Vec<MediaAddress>,
    /// An address that no interface of this machine has, such as that of a cloud's NAT; advertised in addition to
    /// those of interfaces. Default: none.
    pub public_address: Option<IpAddr>,
    /// Name prefixes of interfaces whose addresses are not advertised. Default:
    /// [`HIDDEN_INTERFACES`].
    pub hidden_interfaces: Vec<String>,
    /// Origin of the clients: this machine alone, or the network. Default: the network.
    pub reach: Reach,
    /// The transports that peers may use. Default: UDP and TCP.
    pub transport: Transport,
    /// Limits of TCP connections.
    pub tcp: TcpLimits,
    /// Limits of sessions.
    pub limits: SfuLimits,
    /// Secret from which ICE passwords are derived; the same across restarts.
    pub secret: IceSecret,
    /// First 32 bits of all session ids, by which several media servers are told apart; the other 96 are random.
    /// Default: none, and all are.
    pub session_prefix: Option<u32>,
}

impl SfuSettings {
    /// Creates the default settings.
    pub fn new(secret: IceSecret) -> Self {
        Self {
            listen: SocketAddr::from(([0; 16], 8789)),
            advertise: Vec::new(),
            public_address: None,
            hidden_interfaces: HIDDEN_INTERFACES.map(str::to_owned).into(),
            reach: Reach::Network,
            transport: Transport::UdpAndTcp,
            tcp: TcpLimits::default(),
            limits: SfuLimits::default(),
            secret,
            session_prefix: None,
        }
    }
}

/// Name prefixes of container and virtual machine interfaces: their addresses are unreachable from elsewhere,
/// and each costs every connection failed connectivity checks.
pub const HIDDEN_INTERFACES: [&str; 14] = [
    "docker", "br-", "veth", "virbr", "vnet", "podman", "cni", "flannel", "cali", "cilium", "lxc", "lxd",
    "vmnet", "vboxnet",
];

/// An address advertised as an ICE candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaAddress {
    /// An address with the port of [`SfuSettings::listen`].
    Ip(IpAddr),
    /// An address with its own port, as behind a port mapping.
    Socket(SocketAddr),
}

/// An invalid [`MediaAddress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an IP address, with or without a port")]
pub struct InvalidMediaAddress;

impl FromStr for MediaAddress {
    type Err = InvalidMediaAddress;

    fn from_str(text: &str) -> Result<Self, InvalidMediaAddress> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Socket(address));
        }
        text.trim_matches(['[', ']']).parse().map(Self::Ip).map_err(|_| InvalidMediaAddress)
    }
}

impl fmt::Display for MediaAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Socket(address) => address.fmt(f),
        }
    }
}

/// Limits of the media server and of one session.
#[derive(Clone, Copy, Debug)]
pub struct SfuLimits {
    /// Sessions in total. Default: 2000.
    pub sessions: usize,
    /// Sessions of one owner. Default: 20.
    pub sessions_per_owner: usize,
    /// Sessions of one client network; 0 is no limit. Default: 500.
    pub sessions_per_network: usize,
    /// Subscriptions of one owner in all its sessions. Default: 1200.
    pub subscriptions_per_owner: usize,
    /// Subscriptions of one owner to one track, over all of the owner's sessions. Default: 8.
    pub subscriptions_per_owner_and_track: usize,
    /// Tracks that one session publishes and subscribes to, in total. Default: 400.
    pub tracks_per_session: usize,
    /// Subscribers of one track. Default: 1000.
    pub subscribers_per_track: usize,
    /// Subscribers of one track from one network; 0 is no limit. Default: 750.
    pub subscribers_per_track_and_network: usize,
    /// Time for a session to connect, and for one that lost its connection to reconnect. Default: 30 s, as in the
    /// Calls API.
    pub connect: Duration,
    /// Lifetime of a session that negotiated nothing. A client opens one some time before it publishes or
    /// subscribes, and can open another. Opening sessions costs nothing, so idle ones must not fill the table for
    /// long. Default: 10 minutes.
    pub idle: Duration,
}

impl Default for SfuLimits {
    fn default() -> Self {
        Self {
            sessions: 2000,
            sessions_per_owner: 20,
            sessions_per_network: 500,
            subscriptions_per_owner: 1200,
            subscriptions_per_owner_and_track: 8,
            tracks_per_session: 400,
            subscribers_per_track: 1000,
            subscribers_per_track_and_network: 750,
            connect: Duration::from_secs(30),
            idle: Duration::from_secs(10 * 60),
        }
    }
}

/// Limits and timeouts of TCP connections.
#[derive(Clone, Copy, Debug)]
pub struct TcpLimits {
    /// Connections in total. Default: 2048.
    pub connections: usize,
    /// Connections per client network. Default: 256.
    pub per_network: usize,
    /// Timeout for the first frame. Default: 5 s.
    pub first: Duration,
    /// Timeout for the first answer of the media server. Default: 10 s.
    pub answered: Duration,
    /// Time without a frame after which a connection is closed; a peer's connectivity checks come every few seconds.
    /// Default: 30 s.
    pub idle: Duration,
    /// Timeout of a write to the peer. Default: 10 s.
    pub unread: Duration,
    /// Longest time that a frame may wait to be written. Default: 400 ms.
    pub waiting: Duration,
    /// Time for a peer to close a connection that was closed here. Default: 500 ms.
    pub closing: Duration,
}

impl Default for TcpLimits {
    fn default() -> Self {
        Self {
            connections: 2048,
            per_network: 256,
            first: Duration::from_secs(5),
            answered: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            unread: Duration::from_secs(10),
            waiting: Duration::from_millis(400),
            closing: Duration::from_millis(500),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_address_round_trips_or_is_refused() {
        for (text, shown) in [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7:8789", "203.0.113.7:8789"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:9", "[2001:db8::7]:9"),
        ] {
            let address: MediaAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse(), Ok(address));
        }
        for text in ["", "meet.example", "203.0.113.7:99999", "203.0.113", "[2001:db8::7]:"] {
            assert_eq!(text.parse::<MediaAddress>(), Err(InvalidMediaAddress), "{text}");
        }
    }
}
