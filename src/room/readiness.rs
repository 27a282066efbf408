//! Whether this server should be sent people: that a room can be joined, tried, and that the store can write.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::registry::Registry;
use crate::store::{StoreHandle, StoreHealth};

/// How long a join may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// An answer is good for so long: anybody may ask, as often as it likes.
const FRESH: Duration = Duration::from_secs(1);

/// Knows whether the server is ready.
#[derive(Clone)]
pub struct Readiness(Arc<Inner>);

struct Inner {
    registry: Registry,
    store: StoreHandle,
    stopping: CancellationToken,
    /// When a room was last joined to see whether it works, and whether it did.
    tried: Mutex<Option<(Instant, bool)>>,
}

/// What is to be known before people are sent here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Whether the server stops.
    pub stopping: bool,
    /// Whether a room could be joined.
    pub joins: bool,
    /// Whether the store can write; what is promised over a restart would not hold otherwise.
    pub store: StoreHealth,
}

impl State {
    /// Whether people should be sent here.
    pub fn is_ready(&self) -> bool {
        !self.stopping && self.joins && self.store == StoreHealth::Healthy
    }
}

impl Readiness {
    /// Looks at these rooms and this store; `stopping` is cancelled when the server stops.
    pub fn new(registry: Registry, store: StoreHandle, stopping: CancellationToken) -> Self {
        Self(Arc::new(Inner { registry, store, stopping, tried: Mutex::default() }))
    }

    /// How things are now.
    pub async fn state(&self) -> State {
        let Inner { registry, store, stopping, tried } = &*self.0;
        let stopping = stopping.is_cancelled();
        // One at a time: who asks meanwhile gets the same answer.
        let mut tried = tried.lock().await;
        let joins = match *tried {
            Some((at, joins)) if now().duration_since(at) < FRESH => joins,
            _ if stopping => false,
            _ => timeout(PATIENCE, registry.try_a_join()).await.unwrap_or(false),
        };
        if !stopping {
            *tried = Some((now(), joins));
        }
        State { stopping, joins, store: store.health() }
    }
}

#[expect(clippy::disallowed_methods, reason = "how old an answer is")]
fn now() -> Instant {
    Instant::now()
}
