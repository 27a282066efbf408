//! What every request handler of the public listener may touch.

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
use crate::feedback::desk::Desk;
use crate::http::charge::Charge;
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
use crate::ws::admission::Admission;
use crate::ws::connection::ConnectionLimits;
use crate::ws::refusals::Refusals;

/// The server as its request handlers see it.
pub struct App {
    /// Who is asking.
    pub identities: Identities,
    /// What browsers are shown.
    pub site: Site,
    /// Which pages may ask.
    pub origins: OriginRule,
    /// Whose forwarding headers are believed.
    pub proxies: TrustedProxies,
    /// The path below which browsers reach everything.
    pub base_path: BasePath,
    /// Whose addresses are.
    pub charge: Charge,
    /// The rooms.
    pub registry: Registry,
    /// Whether people should be sent here.
    pub readiness: Readiness,
    /// The media API.
    pub calls: Proxy,
    /// The media API for other servers, where it is served.
    pub media_api: Option<MediaApi>,
    /// The places for sockets.
    pub admission: Admission,
    /// The bound on messages of which a part arrived.
    pub arrivals: Arrivals,
    /// The limits of a socket.
    pub connection_limits: ConnectionLimits,
    /// Whether sockets may be compressed.
    pub socket_compression: bool,
    /// The last refusals of sockets.
    pub refusals: Refusals,
    /// The sockets' tasks.
    pub sockets: Sockets,
    /// Where reports are taken.
    pub desk: Desk,
    /// Where things are counted.
    pub metrics: Arc<Metrics>,
    /// How often a warning may be written that a stranger causes.
    pub warnings: DefaultDirectRateLimiter,
    /// The most bytes of a request's headers.
    pub header_bytes: usize,
    /// The most bytes of a URL.
    pub url_bytes: usize,
    /// The most bytes of a form.
    pub body_bytes: usize,
    /// The time for a request to arrive and be answered, and for an upgrade to happen.
    pub handshake: Duration,
}

impl App {
    /// The refusal of a request that is nobody's.
    pub fn nobody(&self) -> ApiError {
        if self.identities.takes_names() { ApiError::NoIdentity } else { ApiError::LoginRequired }
    }
}

/// The owner of the sockets' tasks.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Runs them, and waits for their end.
    pub tasks: TaskTracker,
    /// Ends them where they stand.
    pub abort: CancellationToken,
    last_id: AtomicU64,
}

impl Sockets {
    /// An id that no socket had before.
    pub fn next_id(&self) -> ConnectionId {
        ConnectionId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Ten warnings at once, and one a second after that.
pub fn warnings() -> DefaultDirectRateLimiter {
    RateLimiter::direct(
        Quota::per_second(NonZeroU32::MIN).allow_burst(const { NonZeroU32::new(10).unwrap() }),
    )
}

/// The time of day, for cookies and tokens.
#[expect(clippy::disallowed_methods, reason = "request handlers are edges, where the time comes in")]
pub fn wall_clock() -> SystemTime {
    SystemTime::now()
}
