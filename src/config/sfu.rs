//! The settings of the embedded media server.

use std::net::SocketAddr;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::value::{Optional, text, texts};
use satsuma_sfu::{HIDDEN_INTERFACES, MediaAddress, SfuLimits, TcpLimits};

/// The media server in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaUpstream {
    /// Cloudflare if its application is configured, otherwise the embedded media server.
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
    /// Address and port for media, over UDP and TCP; port 0 lets the system choose one.
    #[serde(with = "text")]
    pub udp_listen: SocketAddr,
    /// Addresses advertised as ICE candidates; if empty, those of this machine's interfaces.
    #[serde(with = "texts")]
    pub advertise: Vec<MediaAddress>,
    /// Name prefixes of interfaces whose addresses are not advertised.
    #[serde(with = "texts")]
    pub hidden_interfaces: Vec<String>,
    /// True if clients may send and receive media over TCP.
    pub tcp: bool,
    /// TCP connections for media in total; at least 1.
    pub tcp_connections: usize,
    /// TCP connections for media from one client network; at least 1.
    pub tcp_connections_per_network: usize,
    /// Id of the application under which the media API is served to other servers.
    pub app_id: String,
    /// Secret of the application; if set, the media API is served to other servers.
    pub api_secret: Optional<SecretString>,
    /// Sessions in total; at least 1.
    pub sessions: usize,
    /// Sessions of one identity; at least 1.
    pub sessions_per_identity: usize,
    /// Sessions that clients of one network opened; 0 is no limit.
    pub sessions_per_network: usize,
    /// Subscriptions of one identity in all its sessions; at least 1.
    pub subscriptions_per_identity: usize,
    /// Subscriptions of one identity to one track; at least 1.
    pub subscriptions_per_identity_and_track: usize,
    /// Tracks published and subscribed to by one session; at least 1.
    pub tracks_per_session: usize,
    /// Subscribers of one track; at least 1.
    pub subscribers_per_track: usize,
    /// Subscribers of one track from one network; 0 is no limit.
    pub subscribers_per_track_and_network: usize,
}

impl Default for SfuConfig {
    fn default() -> Self {
        let (limits, tcp) = (SfuLimits::default(), TcpLimits::default());
        Self {
            udp_listen: SocketAddr::from(([0; 16], 8789)),
            advertise: Vec::new(),
            hidden_interfaces: HIDDEN_INTERFACES.map(str::to_owned).into(),
            tcp: true,
            tcp_connections: tcp.connections,
            tcp_connections_per_network: tcp.per_network,
            app_id: "embedded".to_owned(),
            api_secret: Optional(None),
            sessions: limits.sessions,
            sessions_per_identity: limits.sessions_per_owner,
            sessions_per_network: limits.sessions_per_network,
            subscriptions_per_identity: limits.subscriptions_per_owner,
            subscriptions_per_identity_and_track: limits.subscriptions_per_owner_and_track,
            tracks_per_session: limits.tracks_per_session,
            subscribers_per_track: limits.subscribers_per_track,
            subscribers_per_track_and_network: limits.subscribers_per_track_and_network,
        }
    }
}
