//! Start of the embedded media server, if in use.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretSlice};
use tokio::time::sleep;
use tracing::{info, warn};

use super::{Addresses, StartError, platform};
use crate::clock::now;
use crate::config::Config;
use crate::id::NodeId;
use crate::media_access::MediaAccess;
use crate::metrics::{ByReason, Metrics};
use crate::room::ai::Ai;
use crate::store::saved::SavedRoom;
use satsuma_sfu::{
    BUFFER_BYTES, IceSecret, Reach, SfuHandle, SfuLimits, SfuSettings, SfuThread, TcpLimits, Transport,
};

/// Time between two looks at the sessions that are left.
const DRAIN_PAUSE: Duration = Duration::from_millis(500);

/// Starts the embedded media server, if it is configured to carry the media. The ids of its sessions name the node, if
/// there are several.
///
/// # Errors
/// [`StartError::Listen`] with its address.
pub(super) async fn start(
    config: &Config,
    addresses: Addresses,
    metrics: &Metrics,
    signing_key: &SecretSlice<u8>,
    node: Option<NodeId>,
) -> Result<Option<(SfuHandle, SfuThread)>, StartError> {
    if !config.embeds_media() {
        return Ok(None);
    }
    let sfu = &config.sfu;
    let reach = Reach::of(addresses.http.ip());
    let is_found =
        reach == Reach::Network && sfu.advertise.is_empty() && sfu.udp_listen.ip().is_unspecified();
    let settings = SfuSettings {
        listen: sfu.udp_listen,
        advertise: sfu.advertise.clone(),
        public_address: if is_found { platform::public_address().await } else { None },
        hidden_interfaces: sfu.hidden_interfaces.clone(),
        reach,
        transport: if sfu.tcp { Transport::UdpAndTcp } else { Transport::Udp },
        tcp: TcpLimits {
            connections: sfu.tcp_connections,
            per_network: sfu.tcp_connections_per_network,
            ..TcpLimits::default()
        },
        limits: SfuLimits {
            sessions: sfu.sessions,
            sessions_per_owner: sfu.sessions_per_identity,
            sessions_per_network: sfu.sessions_per_network,
            subscriptions_per_owner: sfu.subscriptions_per_identity,
            subscriptions_per_owner_and_track: sfu.subscriptions_per_identity_and_track,
            tracks_per_session: sfu.tracks_per_session,
            subscribers_per_track: sfu.subscribers_per_track,
            subscribers_per_track_and_network: sfu.subscribers_per_track_and_network,
            ..SfuLimits::default()
        },
        secret: IceSecret::new(signing_key.expose_secret()),
        session_prefix: node.map(NodeId::bits),
    };
    let (setting, address) = ("sfu.udp_listen", sfu.udp_listen);
    let accept_errors = metrics.accept_errors.get_or_create_owned(&ByReason { reason: "resources" });
    let counted = metrics.sfu.clone().with_accept_errors(accept_errors);
    let started = satsuma_sfu::start(settings, counted).await;
    let (handle, thread) = started.map_err(|error| StartError::Listen { setting, address, error })?;
    let buffers = handle.buffers();
    if buffers.are_small() {
        warn!(
            event = "sfuBuffersSmall",
            wanted_bytes = BUFFER_BYTES,
            receive_bytes = buffers.receive_bytes,
            send_bytes = buffers.send_bytes,
            "the system gives the media socket small buffers, and packets may be lost when it is busy: \
             raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    if reach == Reach::Network && sfu.advertise.is_empty() && handle.advertised().is_private() {
        info!(
            event = "sfuAddressesPrivate",
            setting = "sfu.advertise",
            "clients are told private addresses: whoever is not in this network gets media once the setting has the \
             public address of this machine"
        );
    }
    Ok(Some((handle, thread)))
}

/// Tells the media server who may receive whose media, as members come and go.
pub(super) async fn keep_access(sfu: SfuHandle, access: MediaAccess) {
    loop {
        let changes = access.changes().await;
        // A rule that is lost would leave somebody with media that it may not receive.
        while let Err(error) = sfu.set_access(changes.clone()).await {
            if !sfu.is_running() {
                return;
            }
            warn!(event = "sfuAccessNotSet", %error, "the media server does not hear who may receive media; trying again");
        }
    }
}

/// Removes the AI sessions of stored rooms: they ended with the previous process.
pub(super) fn forget_ais(kept: &mut [SavedRoom]) {
    for room in kept {
        room.ai = room.ai.take().map(|ai| Ai::without_session(&ai).into());
    }
}

/// Waits until the last media session is closed, for at most that long, and returns the time that it took. Rooms are
/// handed over meanwhile, and other nodes pass calls on to this one.
pub(super) async fn drain(sfu: Option<&SfuHandle>, most: Duration) -> Duration {
    let Some(sfu) = sfu.filter(|_| !most.is_zero()) else { return Duration::ZERO };
    let start = now();
    let mut is_told = false;
    loop {
        let left = most.saturating_sub(start.elapsed());
        let sessions = sfu.report().await.map_or(0, |report| report.sessions.len());
        if sessions == 0 || left.is_zero() {
            return start.elapsed();
        }
        if !is_told {
            info!(event = "mediaDraining", sessions, ?most);
            is_told = true;
        }
        sleep(left.min(DRAIN_PAUSE)).await;
    }
}

/// Ends all media sessions and notifies their peers.
pub(super) async fn end(sfu: Option<&SfuHandle>) {
    let Some(sfu) = sfu else { return };
    if let Ok(sessions) = sfu.end_all().await {
        info!(sessions, "all media sessions are ended");
    }
}
