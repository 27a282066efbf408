//! The state shared by all request handlers of the public listener.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::calls::proxy::Proxy;
use crate::calls::serve::MediaApi;
use crate::config::BasePath;
use crate::feedback::service::ReportService;
use crate::http::charge::AddressClassifier;
use crate::http::error::ApiError;
use crate::http::origin::OriginRule;
use crate::http::site::Site;
use crate::id::ConnectionId;
use crate::identity::Identities;
use crate::identity::peer::TrustedProxies;
use crate::metrics::Metrics;
use crate::room::arrivals::Arrivals;
use crate::room::readiness::Readiness;
use crate::room::registry::Registry;
use crate::ws::admission::SocketLimit;
use crate::ws::connection::ConnectionLimits;
use crate::ws::refusals::Refusals;

/// The server as its request handlers see it.
pub struct App {
    /// Authentication of users.
    pub identities: Identities,
    /// Files for browsers.
    pub site: Site,
    /// Origins that may send requests and open sockets.
    pub origins: OriginRule,
    /// Proxies with trusted forwarding headers.
    pub proxies: TrustedProxies,
    /// The path below which browsers reach this server.
    pub base_path: BasePath,
    /// Decides to which network a request is charged.
    pub charge: AddressClassifier,
    /// The rooms.
    pub registry: Registry,
    /// Readiness, as `GET /readyz` reports it.
    pub readiness: Readiness,
    /// Proxy to the media API.
    pub calls: Proxy,
    /// The media API served to other servers; `None` if it is off.
    pub media_api: Option<MediaApi>,
    /// Limits on open sockets.
    pub admission: SocketLimit,
    /// Memory limit for partially received messages.
    pub arrivals: Arrivals,
    /// Limits of each socket.
    pub connection_limits: ConnectionLimits,
    /// True if sockets may use compression.
    pub socket_compression: bool,
    /// The last refused sockets.
    pub refusals: Refusals,
    /// The sockets' tasks.
    pub sockets: SocketTasks,
    /// Reports sent by users.
    pub desk: ReportService,
    /// Metrics of the server.
    pub metrics: Arc<Metrics>,
    /// Rate limit of warnings that network input can cause.
    pub warnings: DefaultDirectRateLimiter,
    /// Maximum bytes of a request's headers.
    pub header_bytes: usize,
    /// Maximum bytes of a URL.
    pub url_bytes: usize,
    /// Maximum bytes of a form.
    pub body_bytes: usize,
    /// Timeout of a request from its arrival to its answer, and of an upgrade.
    pub handshake: Duration,
}

impl App {
    /// Returns the error for an unauthenticated request.
    pub fn nobody(&self) -> ApiError {
        if self.identities.takes_names() { ApiError::NoIdentity } else { ApiError::LoginRequired }
    }
}

/// The sockets' tasks and ids.
#[derive(Debug, Default)]
pub struct SocketTasks {
    /// Runs the tasks, and waits for their end.
    pub tasks: TaskTracker,
    /// Aborts the tasks without a close handshake.
    pub abort: CancellationToken,
    last_id: AtomicU64,
}

impl SocketTasks {
    /// Returns a new id, unique in this process.
    pub fn next_id(&self) -> ConnectionId {
        ConnectionId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Creates the rate limit of warnings: a burst of 10, then one a second.
pub fn warnings() -> DefaultDirectRateLimiter {
    RateLimiter::direct(
        Quota::per_second(NonZeroU32::MIN).allow_burst(const { NonZeroU32::new(10).unwrap() }),
    )
}

/// Returns the time of day, for cookies and tokens.
#[expect(clippy::disallowed_methods, reason = "request handlers are edges, where the time comes in")]
pub fn wall_clock() -> SystemTime {
    SystemTime::now()
}
