//! Durable objects as a part of the server.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{StartError, own};
use crate::config::Config;
use crate::durable::actor::ObjectDeps;
use crate::durable::alarm::ring_alarms;
use crate::durable::api::DurableApi;
use crate::durable::channel::ObjectTopics;
use crate::durable::cluster::calls::Served;
use crate::durable::cluster::{ObjectCluster, alarms};
use crate::durable::keys::AccessKeys;
use crate::durable::memory::Memory;
use crate::durable::methods::Methods;
use crate::durable::object::ObjectLimits;
use crate::durable::registry::ObjectRegistry;
use crate::durable::totals::StoredTotals;
use crate::http::context::HttpContext;
use crate::metrics::Metrics;
use crate::room::outbox::OutboxLimits;
use crate::store::StoreError;
use crate::store::data_dir::DataDir;
use crate::store::objects::{ObjectStore, Totals};
use crate::ws::Sockets;

/// The durable objects as opened at the start.
pub(super) struct OpenedObjects {
    /// Their store.
    pub(super) store: ObjectStore,
    totals: Totals,
    keys: AccessKeys,
    methods: Methods,
}

impl OpenedObjects {
    /// Loads the methods and opens the store, which is made only if there are keys to the objects.
    ///
    /// # Errors
    /// The error of the methods or of the store.
    pub(super) async fn open(
        config: &Config,
        data_dir: &DataDir,
        keys: Option<AccessKeys>,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Self>, StartError> {
        let Some(keys) = keys else { return Ok(None) };
        let methods = Methods::load(&config.durable, metrics.clone())?;
        let database = data_dir.make_objects()?;
        let (store, totals) = ObjectStore::open(&database, config.durable.sync, metrics.clone()).await?;
        Ok(Some(Self { store, totals, keys, methods }))
    }
}

/// The running durable objects.
pub(super) struct RunningObjects {
    store: ObjectStore,
    registry: ObjectRegistry,
    alarms: AbortOnDropHandle<()>,
    /// What a node of a cluster does besides.
    shared: Vec<AbortOnDropHandle<()>>,
    script: AbortOnDropHandle<()>,
}

impl RunningObjects {
    /// Starts the durable objects, and returns their API.
    pub(super) fn start(
        config: &Config,
        OpenedObjects { store, totals, keys, methods }: OpenedObjects,
        sockets: &Arc<Sockets>,
        http: &Arc<HttpContext>,
        cluster: Option<Arc<ObjectCluster>>,
    ) -> (Self, Arc<DurableApi>) {
        let metrics = http.metrics.clone();
        let (durable, limits) = (&config.durable, &config.limits);
        let deps = ObjectDeps {
            store: store.objects(),
            methods,
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
            cluster: cluster.clone(),
            idle_timeout: durable.idle_timeout,
            metrics: metrics.clone(),
        };
        let registry = ObjectRegistry::new(deps);
        let (alarms, shared) = match cluster {
            None => (own(ring_alarms(registry.clone())), Vec::new()),
            Some(cluster) => share(&registry, cluster),
        };
        let reloaded = registry.clone();
        let script = own(async move { reloaded.deps().methods.keep_fresh().await });
        let api = Arc::new(DurableApi::new(config, registry.clone(), keys, sockets.clone(), http.clone()));
        if let Some(phoenix) = &sockets.phoenix {
            phoenix.serve(Arc::new(ObjectTopics::new(&api)));
        }
        (Self { store, registry, alarms, shared, script }, api)
    }

    /// Takes no more requests, and closes all sockets.
    pub(super) async fn send_away(&self, deadline: Instant) {
        self.registry.send_away(deadline).await;
    }

    /// Waits until every request that was taken is answered; returns the number of objects that were
    /// cut off.
    pub(super) async fn end(&self, deadline: Instant) -> usize {
        self.registry.end(deadline).await
    }

    /// Closes the store, once nothing uses it.
    ///
    /// # Errors
    /// [`StoreError`] if something could not be stored.
    pub(super) async fn close(self, deadline: Instant) -> Result<(), StoreError> {
        drop((self.alarms, self.shared, self.script));
        self.store.shutdown(deadline).await
    }
}

/// Starts what the objects of a node need; the first rings alarms.
fn share(
    registry: &ObjectRegistry,
    cluster: Arc<ObjectCluster>,
) -> (AbortOnDropHandle<()>, Vec<AbortOnDropHandle<()>>) {
    cluster.nodes().serve(Served::new(registry));
    let alarms = {
        let (registry, cluster) = (registry.clone(), cluster.clone());
        own(async move { alarms::ring(registry, &cluster).await })
    };
    let search = {
        let cluster = cluster.clone();
        own(async move { alarms::search(&cluster).await })
    };
    let registry = registry.clone();
    let count = own(async move { cluster.count(&registry.deps().totals).await });
    (alarms, vec![search, count])
}
