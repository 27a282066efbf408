//! This server as a node of a cluster.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::{StartError, own};
use crate::config::Config;
use crate::id::NodeId;
use crate::media_api::checking::CheckedCalls;
use crate::media_api::nodes::MediaNodes;
use crate::media_api::passed::PassedCalls;
use crate::metrics::Metrics;
use crate::nodes::engine::{Engine, EngineEvent};
use crate::nodes::nats::NatsEngine;
use crate::nodes::newcomer::{Introduced, listen};
use crate::nodes::node::{Cluster, NodeIdentity};
use crate::nodes::status::ClusterView;
use crate::room::shared::SharedRooms;

/// The engine of a cluster, as the node sees it that this server is to be.
#[derive(Debug)]
pub struct EngineNode<E> {
    /// The node.
    pub id: NodeId,
    /// Its name, for people.
    pub name: String,
    /// The fingerprint of the secret that all nodes share.
    pub fingerprint: String,
    /// The engine.
    pub engine: E,
    /// The engine's events.
    pub events: mpsc::Receiver<EngineEvent>,
}

/// A node that does not run yet.
pub(super) struct NodeParts {
    pub(super) id: NodeId,
    pub(super) rooms: Arc<dyn SharedRooms>,
    /// Its view of the cluster.
    pub(super) view: Arc<dyn ClusterView>,
    pub(super) media: Arc<dyn MediaNodes>,
    task: NodeRun,
}

/// Runs the node's task, which answers calls of other nodes about media sessions here, until it is stopped.
type NodeRun = Box<dyn FnOnce(Option<Arc<PassedCalls>>, CancellationToken) -> BoxFuture<'static, ()> + Send>;

/// Makes the node once there are metrics.
pub(super) type MakeNode = Box<dyn FnOnce(Arc<Metrics>) -> NodeParts + Send>;

/// A node that runs.
pub(super) struct RunningNode {
    rooms: Arc<dyn SharedRooms>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl<E: Engine> EngineNode<E> {
    /// Listens to the other nodes, and prepares this one.
    ///
    /// # Errors
    /// [`StartError`] if they share another secret.
    pub(super) async fn introduce(self) -> Result<MakeNode, StartError> {
        let Self { id, name, fingerprint, engine, events } = self;
        let introduced: Introduced = listen(events, &fingerprint).await?;
        Ok(Box::new(move |metrics| {
            let identity = NodeIdentity { node: id, name, fingerprint };
            let (cluster, task) = Cluster::new(identity, engine, introduced, metrics);
            let cluster = Arc::new(cluster);
            let task =
                Box::new(move |media, stop| -> BoxFuture<'static, ()> { Box::pin(task.run(media, stop)) });
            NodeParts { id, rooms: cluster.clone(), view: cluster.clone(), media: cluster, task }
        }))
    }
}

/// Validates the engine that a configuration names, by a connection to it.
///
/// # Errors
/// The error with which a server would not start.
pub async fn check_engine(config: &Config) -> Result<(), StartError> {
    if !config.cluster.is_configured() {
        return Ok(());
    }
    check(config)?;
    config.cluster.shared_secret()?;
    NatsEngine::check(&config.cluster, config.limits.frame_bytes).await?;
    Ok(())
}

/// Connects the node that a configuration makes of this server, if it does.
///
/// # Errors
/// [`StartError`].
pub(super) async fn connect(
    config: &Config,
    id: NodeId,
    metrics: &Arc<Metrics>,
) -> Result<Option<MakeNode>, StartError> {
    if !config.cluster.is_configured() {
        return Ok(None);
    }
    check(config)?;
    warn!(
        event = "clusterLimits",
        "rooms are shared by the nodes; durable objects, files, media of the embedded server, rules of rooms by name, \
         lists of meetings, event streams and the console know this node alone (docs/cluster.md)"
    );
    let frame_bytes = config.limits.frame_bytes;
    let (engine, events) = NatsEngine::start(&config.cluster, id, frame_bytes, metrics.clone()).await?;
    let name = config.http.listen.to_string();
    let fingerprint = config.cluster.shared_secret()?.map(|secret| secret.fingerprint(&[]));
    let fingerprint = fingerprint.unwrap_or_default();
    Ok(Some(EngineNode { id, name, fingerprint, engine, events }.introduce().await?))
}

/// The calls of other nodes about media sessions here.
pub(super) fn passed_calls(
    config: &Config,
    calls: Arc<CheckedCalls>,
    metrics: Arc<Metrics>,
) -> Arc<PassedCalls> {
    Arc::new(PassedCalls::new(calls, config.limits.call_bytes, message_bytes(config), metrics))
}

/// Size in bytes of the longest message about media that the engine takes for sure.
pub(super) fn message_bytes(config: &Config) -> usize {
    config.limits.frame_bytes
}

/// Refuses settings that cannot hold over several nodes: of Cloudflare's media each node would have to know the rooms of
/// all others.
pub(super) fn check(config: &Config) -> Result<(), StartError> {
    if config.calls.room_check && !config.embeds_media() {
        return Err(StartError::RoomCheckInCluster);
    }
    Ok(())
}

impl NodeParts {
    pub(super) fn start(self, media: Option<Arc<PassedCalls>>) -> RunningNode {
        let stop = CancellationToken::new();
        let task = own((self.task)(media, stop.clone()));
        info!(event = "nodeStarted", node = %self.id);
        RunningNode { rooms: self.rooms, stop, task }
    }
}

impl RunningNode {
    /// Tells other nodes that this one takes no more rooms.
    pub(super) fn drain(&self) {
        self.rooms.drain();
    }

    /// Says goodbye to the other nodes.
    pub(super) async fn stop(self, deadline: Instant) {
        self.stop.cancel();
        let _ = timeout_at(deadline, self.task).await;
    }
}
