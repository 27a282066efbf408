//! This server as a node of a cluster.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::resources::Resources;
use super::{StartError, own};
use crate::admin::revocations::{self, InForce};
use crate::clock::wall_clock;
use crate::config::Config;
use crate::durable::cluster::{ObjectCluster, carry as carry_objects};
use crate::id::NodeId;
use crate::media_api::checking::CheckedCalls;
use crate::media_api::nodes::MediaNodes;
use crate::media_api::passed::PassedCalls;
use crate::metrics::Metrics;
use crate::nodes::carry::{self, CarryError};
use crate::nodes::engine::{Engine, EngineEvent};
use crate::nodes::events::EventNodes;
use crate::nodes::meetings::MeetingLists;
use crate::nodes::nats::NatsEngine;
use crate::nodes::newcomer::{Introduced, listen};
use crate::nodes::node::{Cluster, NodeIdentity};
use crate::nodes::settings::EngineSettings;
use crate::nodes::status::ClusterView;
use crate::room::rulebook::Rulebook;
use crate::room::shared::SharedRooms;
use crate::room::shared_files::SharedFiles;
use crate::room::shared_settings::{OwnSettings, SharedSetting, SharedSettings};
use crate::store::StoreHandle;
use crate::store::revocations::{StoredRevocation, StoredRevocations};
use crate::store::saved::SavedRoom;

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
    /// The durable objects of all nodes.
    pub(super) objects: Arc<ObjectCluster>,
    /// The files that members share.
    pub(super) files: Arc<dyn SharedFiles>,
    /// The lists of meetings.
    pub(super) meetings: Arc<dyn MeetingLists>,
    /// The events.
    pub(super) events: Arc<dyn EventNodes>,
    /// The settings that all nodes share.
    pub(super) settings: Arc<dyn SharedSettings>,
    /// Those that there were.
    known: Vec<SharedSetting>,
    carry_over: CarryOver,
    task: NodeRun,
    follow: Box<dyn FnOnce(Arc<dyn OwnSettings>) -> BoxFuture<'static, ()> + Send>,
    exchange: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>,
}

/// Runs the node's task, which answers calls of other nodes about media sessions here, until it is stopped.
type NodeRun = Box<dyn FnOnce(Option<Arc<PassedCalls>>, CancellationToken) -> BoxFuture<'static, ()> + Send>;

/// Writes rooms that this server stored as a single node into their journals, the first time that it is called.
type CarryOver =
    Option<Box<dyn FnOnce(StoreHandle, Vec<SavedRoom>) -> BoxFuture<'static, Result<(), CarryError>> + Send>>;

/// Makes the node once there are metrics.
pub(super) type MakeNode = Box<dyn FnOnce(Arc<Metrics>) -> NodeParts + Send>;

/// This node's copy of the settings that all nodes share.
pub(super) struct CopiedSettings {
    pub(super) rulebook: Arc<Rulebook>,
    pub(super) tokens: Option<InForce>,
    pub(super) revocations: StoredRevocations,
}

/// A node that runs.
pub(super) struct RunningNode {
    rooms: Arc<dyn SharedRooms>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
    events: Arc<dyn EventNodes>,
    /// Follows the settings that all nodes share, and exchanges events with the others.
    _followers: [AbortOnDropHandle<()>; 2],
}

impl<E: Engine> EngineNode<E> {
    /// Listens to the other nodes, and prepares this one.
    ///
    /// # Errors
    /// [`StartError`] if they share another secret.
    pub(super) async fn introduce(self) -> Result<MakeNode, StartError> {
        let Self { id, name, fingerprint, engine, events } = self;
        let introduced: Introduced = listen(events, &fingerprint).await?;
        let settings = Arc::new(EngineSettings::new(engine.clone()));
        let known = settings.all().await?;
        let followed = settings.clone();
        let make: MakeNode = Box::new(move |metrics| {
            let carrier = engine.clone();
            let carry_over: CarryOver = Some(Box::new(move |store, rooms| {
                Box::pin(async move { carry::carry_over(&carrier, id, &store, rooms).await })
            }));
            let identity = NodeIdentity { node: id, name, fingerprint };
            let (cluster, task) = Cluster::new(identity, engine, introduced, metrics);
            let cluster = Arc::new(cluster);
            let task =
                Box::new(move |media, stop| -> BoxFuture<'static, ()> { Box::pin(task.run(media, stop)) });
            let follow = {
                let cluster = cluster.clone();
                Box::new(move |own| -> BoxFuture<'static, ()> {
                    Box::pin(followed.follow(own, cluster.changes()))
                })
            };
            let (rooms, view, files) = (cluster.clone(), cluster.clone(), cluster.clone());
            let exchanging = Cluster::clone(&cluster);
            let exchange =
                Box::new(move || -> BoxFuture<'static, ()> { Box::pin(exchanging.exchange_events()) });
            let objects = Arc::new(ObjectCluster::new(cluster.clone()));
            let (meetings, events, media) = (cluster.clone(), cluster.clone(), cluster);
            NodeParts {
                id,
                rooms,
                view,
                media,
                objects,
                files,
                meetings,
                events,
                settings,
                known,
                carry_over,
                task,
                follow,
                exchange,
            }
        });
        Ok(make)
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
        "rooms, their files, events and durable objects are shared by the nodes; limits know this node alone \
         (docs/cluster.md)"
    );
    let frame_bytes = config.limits.frame_bytes;
    let (engine, events) = NatsEngine::start(&config.cluster, id, frame_bytes, metrics.clone()).await?;
    let name = config.http.listen.to_string();
    let fingerprint = config.cluster.shared_secret()?.map(|secret| secret.fingerprint(&[]));
    let fingerprint = fingerprint.unwrap_or_default();
    Ok(Some(EngineNode { id, name, fingerprint, engine, events }.introduce().await?))
}

/// Writes the rooms and objects that this server stored as a single node into their journals. It is the last that may
/// fail: after it a single node would not find them.
///
/// # Errors
/// [`StartError`]; what is not carried over is still stored.
pub(super) async fn carry_over<S>(
    node: Option<(NodeParts, S)>,
    resources: &Resources,
) -> Result<Option<(NodeParts, S)>, StartError> {
    let Some((mut node, settings)) = node else { return Ok(None) };
    if let Some(objects) = &resources.objects {
        carry_objects::carry_over(&node.objects, &objects.store.objects()).await?;
    }
    if let Some(carry_over) = node.carry_over.take() {
        carry_over(resources.store.handle(), resources.kept.clone()).await?;
    }
    Ok(Some((node, settings)))
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

impl CopiedSettings {
    async fn take(&self, setting: SharedSetting) {
        match setting {
            SharedSetting::Rules { room, rules } => {
                if let Err(error) = self.rulebook.take(&room, rules).await {
                    warn!(event = "roomSettingsNotStored", room = room.as_str(), %error);
                }
            }
            SharedSetting::Revoked { identity, key, at } => {
                if let Some(tokens) = &self.tokens {
                    let revoked = StoredRevocation { identity, key, at };
                    revocations::take(tokens, &self.revocations, revoked, wall_clock()).await;
                }
            }
        }
    }

    async fn stored(&self) -> Vec<SharedSetting> {
        let rules = self.rulebook.all().into_iter().map(|(room, rules)| SharedSetting::Rules { room, rules });
        let revoked = match &self.tokens {
            Some(tokens) => revocations::in_force(tokens, &self.revocations, wall_clock()).await,
            None => Vec::new(),
        };
        let revoked = revoked
            .into_iter()
            .map(|StoredRevocation { identity, key, at }| SharedSetting::Revoked { identity, key, at });
        rules.chain(revoked).collect()
    }
}

/// The same, for the task that follows them.
pub(super) struct Followed(pub(super) Arc<CopiedSettings>);

impl OwnSettings for Followed {
    fn take(&self, setting: SharedSetting) -> BoxFuture<'static, ()> {
        let copy = self.0.clone();
        Box::pin(async move { copy.take(setting).await })
    }

    fn stored(&self) -> BoxFuture<'static, Vec<SharedSetting>> {
        let copy = self.0.clone();
        Box::pin(async move { copy.stored().await })
    }
}

impl NodeParts {
    /// Puts the settings in force that all nodes share, before anybody is let in.
    pub(super) async fn settle(&mut self, copy: &CopiedSettings) {
        for setting in std::mem::take(&mut self.known) {
            copy.take(setting).await;
        }
    }

    pub(super) fn start(self, media: Option<Arc<PassedCalls>>, settings: Arc<CopiedSettings>) -> RunningNode {
        let stop = CancellationToken::new();
        let task = own((self.task)(media, stop.clone()));
        let followers = [own((self.follow)(Arc::new(Followed(settings)))), own((self.exchange)())];
        info!(event = "nodeStarted", node = %self.id);
        RunningNode { rooms: self.rooms, stop, task, events: self.events, _followers: followers }
    }
}

impl RunningNode {
    /// Tells other nodes that this one takes no more rooms.
    pub(super) fn drain(&self) {
        self.rooms.drain();
    }

    /// Gives the last events to the other nodes, and says goodbye.
    pub(super) async fn stop(self, deadline: Instant) {
        let _ = timeout_at(deadline, self.events.flush()).await;
        self.stop.cancel();
        let _ = timeout_at(deadline, self.task).await;
    }
}
