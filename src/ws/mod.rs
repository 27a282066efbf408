//! The WebSocket layer: from an HTTP request to a membership, and from a membership to frames.
//!
//! [`upgrade`] does all checks before the upgrade, [`extension`] negotiates compression;
//! [`refusals`] are stored for pages. [`connection`] is the task of one socket and its transport: it reads and
//! writes frames ([`socket`]) and limits what a client may send and how slowly it may read. [`session`] is its
//! interface to a protocol; [`orange_session`] speaks Orange's, [`phoenix`] Phoenix Channels, which [`longpoll`] carries as well. No other module depends on the WebSocket library.

pub mod admission;
mod arriving;
mod boundary;
pub mod connection;
pub mod extension;
mod handshake;
pub mod keep_alive;
pub mod lease;
pub mod longpoll;
pub mod orange_session;
mod outgoing;
mod phase;
pub mod phoenix;
mod progress;
mod recipient_pause;
pub mod refusals;
pub mod session;
pub mod socket;
mod throttle;
pub mod upgrade;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::get;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::admission::SocketLimit;
use self::connection::ConnectionLimits;
use self::phoenix::PhoenixEndpoint;
use self::refusals::Refusals;
use crate::config::Config;
use crate::http::context::HttpContext;
use crate::id::{ConnectionId, NodeId};
use crate::metrics::Metrics;
use crate::protocol::client::MessageLimits;
use crate::room::arrivals::Arrivals;
use crate::room::registry::Registry;

/// The state of all sockets.
pub struct Sockets {
    /// The rooms that sockets join.
    pub registry: Registry,
    /// Limits on open sockets.
    pub limit: SocketLimit,
    /// Memory limit for partially received messages.
    pub arrivals: Arrivals,
    /// Limits of each socket.
    pub connection_limits: ConnectionLimits,
    /// Limits of each message in Orange's protocol.
    pub message_limits: MessageLimits,
    /// True if sockets may use compression.
    pub compression: bool,
    /// Timeout of the handshake after its answer.
    pub handshake: Duration,
    /// The last refused sockets.
    pub refusals: Refusals,
    /// Phoenix Channels, if they are enabled.
    pub phoenix: Option<PhoenixEndpoint>,
    /// Cancelled when the server begins to stop.
    pub stopping: CancellationToken,
    /// The sockets' tasks.
    pub tasks: SocketTasks,
}

impl Sockets {
    /// The sockets of a server with this configuration on a node, which stops when `stopping` is cancelled.
    pub fn new(
        config: &Config,
        node: NodeId,
        registry: Registry,
        metrics: Arc<Metrics>,
        stopping: CancellationToken,
    ) -> Self {
        let limits = &config.limits;
        let per_network = limits.connections_per_address as usize;
        Self {
            registry,
            limit: SocketLimit::new(limits.connections, per_network, metrics),
            arrivals: Arrivals::new(limits.arriving_bytes),
            connection_limits: ConnectionLimits {
                message_bytes: limits.frame_bytes.max(limits.history_entry_bytes),
                messages_per_second: NonZeroU32::new(limits.messages_per_second).unwrap_or(NonZeroU32::MIN),
                message_burst: NonZeroU32::new(limits.message_burst).unwrap_or(NonZeroU32::MIN),
                throttled_time: limits.throttle_timeout,
                write_stall: limits.write_stall,
                keep_alive: None,
            },
            message_limits: MessageLimits { frame_bytes: limits.frame_bytes, user_bytes: limits.user_bytes },
            compression: config.http.socket_compression,
            handshake: limits.handshake,
            refusals: Refusals::new(),
            phoenix: PhoenixEndpoint::new(&config.phoenix, limits.connections, per_network),
            stopping,
            tasks: SocketTasks::new(node),
        }
    }
}

/// The sockets' tasks and ids.
#[derive(Debug)]
pub struct SocketTasks {
    /// Runs the tasks, and waits for their end.
    pub tracker: TaskTracker,
    /// Aborts the tasks without a close handshake.
    pub abort: CancellationToken,
    /// This process, as a part of the sockets' ids.
    node: NodeId,
    /// The number of the newest socket.
    last_number: AtomicU64,
}

impl SocketTasks {
    /// No tasks yet, on this node.
    pub fn new(node: NodeId) -> Self {
        let (tracker, abort) = (TaskTracker::new(), CancellationToken::new());
        Self { tracker, abort, node, last_number: AtomicU64::new(0) }
    }

    /// Returns a new id.
    pub fn next_id(&self) -> ConnectionId {
        ConnectionId::new(self.node, self.last_number.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Returns the routes of sockets, Phoenix Channels' at `phoenix_path` if there is one.
pub fn router<S>(phoenix_path: Option<&str>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<HttpContext>: FromRef<S>,
    Arc<Sockets>: FromRef<S>,
{
    let routes = Router::new().route("/parties/{*path}", get(upgrade::upgrade));
    match phoenix_path {
        Some(path) => routes.merge(phoenix::router(path)),
        None => routes,
    }
}

/// Returns the routes of long polling, below `phoenix_path` if there is one. Its requests wait for messages, and have
/// timeouts of their own.
pub fn waiting_router<S>(phoenix_path: Option<&str>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<HttpContext>: FromRef<S>,
    Arc<Sockets>: FromRef<S>,
{
    phoenix_path.map_or_else(Router::new, phoenix::longpoll_router)
}
