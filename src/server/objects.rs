//! Durable objects as a part of the server.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::own;
use crate::config::Config;
use crate::durable::actor::ObjectDeps;
use crate::durable::alarm::ring_alarms;
use crate::durable::api::DurableApi;
use crate::durable::keys::AccessKeys;
use crate::durable::memory::Memory;
use crate::durable::methods::Methods;
use crate::durable::object::ObjectLimits;
use crate::durable::registry::ObjectRegistry;
use crate::durable::totals::StoredTotals;
use crate::metrics::Metrics;
use crate::room::outbox::OutboxLimits;
use crate::store::StoreError;
use crate::store::objects::{ObjectStore, Totals};
use crate::ws::Sockets;

/// The running durable objects.
pub(super) struct RunningObjects {
    store: ObjectStore,
    registry: ObjectRegistry,
    alarms: AbortOnDropHandle<()>,
}

impl RunningObjects {
    /// Starts the durable objects, and returns their API.
    pub(super) fn start(
        config: &Config,
        (store, totals, keys): (ObjectStore, Totals, AccessKeys),
        sockets: Arc<Sockets>,
        metrics: Arc<Metrics>,
    ) -> (Self, Arc<DurableApi>) {
        let (durable, limits) = (&config.durable, &config.limits);
        let deps = ObjectDeps {
            store: store.objects(),
            methods: Methods::default(),
            limits: ObjectLimits {
                keys: durable.keys_per_object,
                value_bytes: durable.value_bytes,
                object_bytes: durable.object_bytes,
            },
            sockets: durable.sockets_per_object,
            outbox: OutboxLimits {
                member_bytes: limits.outbox_bytes,
                all_bytes: limits.outboxes_bytes,
                write_stall: limits.write_stall,
            },
            totals: StoredTotals::new(totals, durable.objects, durable.stored_bytes, metrics.clone()),
            memory: Memory::new(durable.memory_bytes, metrics.clone()),
            idle_timeout: durable.idle_timeout,
            metrics: metrics.clone(),
        };
        let registry = ObjectRegistry::new(deps);
        let alarms = own(ring_alarms(registry.clone()));
        let api = DurableApi::new(config, registry.clone(), keys, sockets, metrics);
        (Self { store, registry, alarms }, Arc::new(api))
    }

    /// Takes no more requests, and closes all sockets.
    pub(super) async fn send_away(&self, deadline: Instant) {
        self.registry.send_away(deadline).await;
    }

    /// Waits until every request that was taken is answered.
    pub(super) async fn end(&self, deadline: Instant) {
        self.registry.end(deadline).await;
    }

    /// Closes the store, once nothing uses it.
    ///
    /// # Errors
    /// [`StoreError`] if something could not be stored.
    pub(super) async fn close(self, deadline: Instant) -> Result<(), StoreError> {
        drop(self.alarms);
        self.store.shutdown(deadline).await
    }
}
