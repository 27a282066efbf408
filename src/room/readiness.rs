//! Readiness of this server: a probe joins a room, and the stores must be able to write.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::registry::Registry;
use super::shared::EngineState;
use crate::clock::now;
use crate::store::objects::Objects;
use crate::store::{StoreHandle, StoreHealth};

/// Timeout of the probe's join.
const PATIENCE: Duration = Duration::from_secs(2);

/// Lifetime of a cached answer: unauthenticated clients may ask at any rate.
const FRESH: Duration = Duration::from_secs(1);

/// Readiness probe of the server.
#[derive(Clone)]
pub struct Readiness(Arc<Inner>);

struct Inner {
    registry: Registry,
    store: StoreHandle,
    /// The store of durable objects, if they are served.
    objects: Option<Objects>,
    stopping: CancellationToken,
    /// Time of the last probe's join, and true if it succeeded.
    tried: Mutex<Option<(Instant, bool)>>,
}

/// State of the conditions of readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadinessState {
    /// True if the server is stopping.
    pub stopping: bool,
    /// True if a room could be joined.
    pub joins: bool,
    /// Health of the store; unless it can write, the promised persistence over a restart would not hold.
    pub store: StoreHealth,
    /// Health of the store of durable objects; none if they are not served.
    pub objects: Option<StoreHealth>,
    /// The way to the engine; none if this server is no node of several. Its loss alone makes nobody unready: nodes that
    /// are restarted, or get no clients, since their engine does not answer are worse off afterwards.
    pub engine: Option<EngineState>,
}

impl ReadinessState {
    /// True if the engine is there, or none is needed.
    pub fn reaches_engine(&self) -> bool {
        self.engine.is_none_or(|engine| !engine.is_away)
    }

    /// True if clients should be sent to this server.
    pub fn is_ready(&self) -> bool {
        let stores = [Some(&self.store), self.objects.as_ref()];
        !self.stopping
            && self.joins
            && stores.into_iter().flatten().all(|store| *store == StoreHealth::Healthy)
    }
}

impl Readiness {
    /// Creates a probe of these rooms and stores; `stopping` is cancelled when the server stops.
    pub fn new(
        registry: Registry,
        store: StoreHandle,
        objects: Option<Objects>,
        stopping: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner { registry, store, objects, stopping, tried: Mutex::default() }))
    }

    /// The current state.
    pub async fn state(&self) -> ReadinessState {
        let Inner { registry, store, objects, stopping, tried } = &*self.0;
        let stopping = stopping.is_cancelled();
        // One probe at a time: concurrent callers get the same answer.
        let mut tried = tried.lock().await;
        let joins = match *tried {
            Some((at, joins)) if now().duration_since(at) < FRESH => joins,
            _ if stopping => false,
            _ => timeout(PATIENCE, registry.try_a_join()).await.unwrap_or(false),
        };
        if !stopping {
            *tried = Some((now(), joins));
        }
        ReadinessState {
            stopping,
            joins,
            store: store.health(),
            objects: objects.as_ref().map(Objects::health),
            engine: registry.engine(),
        }
    }
}
