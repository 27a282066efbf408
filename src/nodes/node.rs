//! The task of a node: its sign of life, the nodes that it sees, and messages of other nodes on their way to rooms.

mod messages;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use bytes::Bytes;
use dashmap::DashMap;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use satsuma_cluster::Membership;
use satsuma_cluster::membership::{Heartbeat, PROBE_TIMEOUT, Probed, REMEMBERED, Task};
use satsuma_cluster::message::{NodeMessage, Pulse};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::engine::{Engine, EngineEvent, RequestFailure};
use super::events::SharedEvents;
use super::local_rooms::RoomHere;
use super::newcomer::Introduced;
use super::objects::ObjectCalls;
use super::places::PlacedRooms;
use super::reach::{Change, Reach};
use super::requests::Requests;
use super::sweep::{Leftovers, Sweep};
use crate::clock::{now, wall_clock};
use crate::id::{NodeId, RoomName};
use crate::media_access::MediaAccess;
use crate::media_api::passed::PassedCalls;
use crate::metrics::Metrics;

/// Number of rooms that a node takes over at a time.
const MAX_TAKEOVERS: usize = 64;

/// Heartbeats after which places in the directory of media are looked through for those that nobody tells any more.
const PRUNED_EVERY: u64 = 20;

/// Maximum number of nodes with another secret that are shown.
const MAX_FOREIGN: usize = 64;

/// A node among others, as its rooms see it. Clones are the same node.
pub struct Cluster<E> {
    pub(super) inner: Arc<Inner<E>>,
}

/// The identity of a node, as the others see it.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    /// Its id.
    pub node: NodeId,
    /// Its name, for people.
    pub name: String,
    /// The fingerprint of the secret that all nodes share.
    pub fingerprint: String,
}

pub(super) struct Inner<E> {
    pub(super) identity: NodeIdentity,
    engine: E,
    membership: RwLock<Membership>,
    /// The rooms on this node, by name.
    pub(super) rooms: DashMap<RoomName, RoomHere>,
    requests: Requests,
    objects: ObjectCalls,
    /// The events of this node, and those of others.
    pub(super) events: OnceLock<SharedEvents>,
    /// The nodes of the media of rooms with a part here.
    pub(super) media: DashMap<RoomName, NodeId>,
    /// The directory of media, if this node has an embedded media server.
    pub(super) directory: OnceLock<MediaAccess>,
    /// The rooms whose members' places in it this node was told.
    pub(super) placed: Mutex<PlacedRooms>,
    /// The last pulse of each other node.
    pulses: Mutex<BTreeMap<NodeId, Pulse>>,
    /// Nodes with another secret: their last pulses, and the times of these.
    foreign_nodes: Mutex<BTreeMap<NodeId, (Pulse, Instant)>>,
    reach: Mutex<Reach>,
    pub(super) changed: watch::Sender<Changes>,
    takeovers: Arc<Semaphore>,
    last_link: AtomicU64,
    pub(super) leftovers: Leftovers,
    pub(super) owned: AtomicU32,
    metrics: Arc<Metrics>,
}

/// A message of another node about a room.
#[derive(Debug)]
pub(super) struct PeerBytes {
    pub(super) from: NodeId,
    pub(super) message: Bytes,
}

/// Numbers of changes that all rooms have to look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes {
    /// Nodes that are gone.
    pub gone: u64,
    /// Interruptions of the way to the engine that are over.
    pub interruptions: u64,
    /// Interruptions that have begun.
    pub cuts: u64,
}

/// The task of a node.
pub struct NodeTask<E> {
    cluster: Cluster<E>,
    /// Events that came before the task began.
    heard: VecDeque<EngineEvent>,
    events: mpsc::Receiver<EngineEvent>,
    work: FuturesUnordered<BoxFuture<'static, Option<(NodeId, Probed)>>>,
    /// Answers calls of other nodes about media sessions here.
    media: Option<Arc<PassedCalls>>,
    /// Such calls, beside this task: a long one holds up no sign of life.
    calls: JoinSet<()>,
    is_interrupted: bool,
    sweep: Sweep,
}

impl<E> Clone for Cluster<E> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<E> fmt::Debug for Cluster<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("node", &self.inner.identity.node).finish_non_exhaustive()
    }
}

impl<E: Engine> Cluster<E> {
    /// A node that has listened, and the task that it needs.
    pub fn new(
        identity: NodeIdentity,
        engine: E,
        introduced: Introduced,
        metrics: Arc<Metrics>,
    ) -> (Self, NodeTask<E>) {
        let inner = Inner {
            membership: RwLock::new(Membership::new(now().into_std(), identity.node)),
            identity,
            engine,
            foreign_nodes: Mutex::default(),
            reach: Mutex::new(Reach::new(wall_clock())),
            rooms: DashMap::new(),
            media: DashMap::new(),
            directory: OnceLock::new(),
            placed: Mutex::default(),
            requests: Requests::default(),
            objects: ObjectCalls::default(),
            events: OnceLock::new(),
            pulses: Mutex::default(),
            changed: watch::Sender::new(Changes::default()),
            takeovers: Arc::new(Semaphore::new(MAX_TAKEOVERS)),
            last_link: AtomicU64::new(0),
            leftovers: Leftovers::default(),
            owned: AtomicU32::new(0),
            metrics,
        };
        let cluster = Self { inner: Arc::new(inner) };
        let Introduced { heard, events } = introduced;
        let work = FuturesUnordered::new();
        let task = NodeTask {
            cluster: cluster.clone(),
            heard: heard.into(),
            events,
            work,
            media: None,
            calls: JoinSet::new(),
            is_interrupted: false,
            sweep: Sweep::new(now()),
        };
        (cluster, task)
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.inner.identity.node
    }

    /// The engine.
    pub fn engine(&self) -> &E {
        &self.inner.engine
    }

    /// Tells the other nodes that this one takes no more rooms.
    pub fn begin_to_leave(&self) {
        self.membership_mut().drain();
    }

    /// True if this node does not hear itself through the engine.
    pub fn is_cut_off(&self) -> bool {
        self.membership().is_cut_off()
    }

    pub(super) fn membership(&self) -> RwLockReadGuard<'_, Membership> {
        self.inner.membership.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn membership_mut(&self) -> RwLockWriteGuard<'_, Membership> {
        self.inner.membership.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pulses(&self) -> MutexGuard<'_, BTreeMap<NodeId, Pulse>> {
        self.inner.pulses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn foreign_nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, (Pulse, Instant)>> {
        self.inner.foreign_nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reach(&self) -> Reach {
        *self.inner.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// True if the node shares the secret, as it has told.
    pub(super) fn is_member(&self, node: NodeId) -> bool {
        node == self.node() || self.pulses().contains_key(&node)
    }

    /// A watch on the changes.
    pub fn changes(&self) -> watch::Receiver<Changes> {
        self.inner.changed.subscribe()
    }

    pub(super) fn takeovers(&self) -> Arc<Semaphore> {
        self.inner.takeovers.clone()
    }

    /// A number that no link of this node had.
    pub(super) fn next_link(&self) -> u64 {
        self.inner.last_link.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn count_owned(&self, is_owned: bool) {
        match is_owned {
            true => self.inner.owned.fetch_add(1, Ordering::Relaxed),
            false => self.inner.owned.fetch_sub(1, Ordering::Relaxed),
        };
        self.metrics().rooms_owned.inc_by(if is_owned { 1 } else { -1 });
    }

    pub(super) fn requests(&self) -> &Requests {
        &self.inner.requests
    }

    pub(super) fn objects(&self) -> &ObjectCalls {
        &self.inner.objects
    }

    /// Takes the result of a request to a node.
    pub(super) fn probed(&self, node: NodeId, result: Probed) {
        let task = self.membership_mut().probed(now().into_std(), node, result);
        if let Some(Task::Gone(node)) = task {
            self.gone(node);
        }
    }

    fn gone(&self, node: NodeId) {
        let name = self.pulses().get(&node).map(|pulse| pulse.name.clone());
        warn!(event = "nodeGone", node = %node, name);
        if let Some(rooms) = self.requests().own.get() {
            rooms.node_gone(node);
        }
        self.inner.changed.send_modify(|changes| changes.gone += 1);
    }
}

impl<E: Engine> NodeTask<E> {
    /// Runs until it is stopped, which is after the rooms of the node have ended. Calls about media sessions here are
    /// answered by `media`.
    pub async fn run(mut self, media: Option<Arc<PassedCalls>>, stop: CancellationToken) {
        if let Some(media) = &media {
            let _ = self.cluster.inner.directory.set(media.calls().access().clone());
        }
        self.media = media;
        // In their order with those to come, and before anything is sent.
        while let Some(event) = self.heard.pop_front() {
            self.event(event);
        }
        loop {
            let deadline = self.cluster.membership().deadline();
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(deadline.into()) => {}
                Some(result) = self.work.next(), if !self.work.is_empty() => {
                    if let Some((node, result)) = result {
                        self.cluster.probed(node, result);
                    }
                }
                Some(_) = self.calls.join_next(), if !self.calls.is_empty() => {}
                event = self.events.recv() => match event {
                    Some(event) => self.event(event),
                    None => break,
                },
                () = self.sweep.read() => {}
                () = stop.cancelled() => break,
            }
            let tasks = self.cluster.membership_mut().poll(now().into_std());
            tasks.into_iter().for_each(|task| self.task(task));
            self.count_living();
            self.sweep.poll(now(), &self.cluster);
        }
        let heartbeat = Heartbeat {
            node: self.cluster.node(),
            number: u64::MAX,
            version: satsuma_cluster::entry::VERSION,
            is_draining: true,
        };
        let engine = self.cluster.engine();
        engine.send_to_all(self.cluster.pulse(heartbeat, true).encode().into()).await;
        engine.flush().await;
    }

    fn count_living(&self) {
        let living = i64::try_from(self.cluster.membership().living()).unwrap_or(i64::MAX);
        self.cluster.metrics().nodes_alive.set(living);
    }

    /// Takes a change of the way to the engine.
    fn reach(&self, change: Change) {
        let mut reach = self.cluster.inner.reach.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lasted) = reach.change(wall_clock(), change) {
            info!(event = "engineBack", away_seconds = lasted.as_secs_f64(), "the engine is reached again");
        }
    }

    fn task(&mut self, task: Task) {
        let engine = self.cluster.engine().clone();
        match task {
            Task::Heartbeat(heartbeat) => {
                if heartbeat.number.is_multiple_of(PRUNED_EVERY) {
                    self.cluster.placed().prune(now().into_std());
                }
                let pulse = Bytes::from(self.cluster.pulse(heartbeat, false).encode());
                self.work.push(Box::pin(async move {
                    engine.send_to_all(pulse).await;
                    None
                }));
            }
            Task::Probe(node) => self.work.push(Box::pin(async move {
                let asked = engine.request(node, NodeMessage::Probe.encode().into(), PROBE_TIMEOUT).await;
                Some((node, probed(asked.map(drop))))
            })),
            Task::Gone(node) => self.cluster.gone(node),
            Task::CutOff => {
                warn!(event = "cutOff", "this node does not hear itself through the engine");
                self.reach(Change::CutOff);
                self.cluster.inner.changed.send_modify(|changes| changes.cuts += 1);
            }
            Task::Rejoined => {
                self.reach(Change::Rejoined);
                self.interrupted();
            }
        }
    }

    /// Has all rooms look for entries that they missed.
    fn interrupted(&self) {
        self.cluster.inner.changed.send_modify(|changes| changes.interruptions += 1);
    }

    fn event(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::ToAll(bytes) => match Pulse::decode(&bytes) {
                Ok(pulse) => self.heard(pulse),
                Err(_) => Metrics::count(&self.cluster.inner.metrics.drops, "unknown_message"),
            },
            EngineEvent::Message { from, message, reply } => self.message(from, &message, reply),
            EngineEvent::Connected => {
                self.reach(Change::Connected);
                if std::mem::take(&mut self.is_interrupted) {
                    self.interrupted();
                }
            }
            EngineEvent::Disconnected => {
                self.reach(Change::Disconnected);
                self.is_interrupted = true;
            }
        }
    }

    fn heard(&mut self, pulse: Pulse) {
        if pulse.fingerprint != self.cluster.inner.identity.fingerprint {
            return self.heard_stranger(pulse);
        }
        let Pulse { heartbeat, is_last, .. } = pulse;
        let node = heartbeat.node;
        let task = {
            let mut membership = self.cluster.membership_mut();
            if is_last { membership.left(node) } else { membership.heard(now().into_std(), heartbeat) }
        };
        if node != self.cluster.node() {
            if pulse.wants_events && !is_last {
                self.cluster.events_are_wanted();
            }
            let mut pulses = self.cluster.pulses();
            let membership = self.cluster.membership();
            if membership.knows(node) {
                pulses.insert(node, pulse);
            }
            if pulses.len() > membership.len() {
                pulses.retain(|node, _| membership.knows(*node));
            }
        }
        if let Some(task) = task {
            self.task(task);
        }
    }

    /// Takes the pulse of a node with another secret, which takes no part.
    fn heard_stranger(&self, pulse: Pulse) {
        let now = now().into_std();
        let mut foreign_nodes = self.cluster.foreign_nodes();
        let is_known = foreign_nodes.contains_key(&pulse.heartbeat.node);
        if !is_known {
            foreign_nodes.retain(|_, (_, heard)| now.saturating_duration_since(*heard) < REMEMBERED);
            if foreign_nodes.len() >= MAX_FOREIGN {
                return;
            }
            let (node, name) = (pulse.heartbeat.node, &*pulse.name);
            error!(event = "otherSecret", %node, name, "a node with another secret uses this cluster's names in the engine");
        }
        foreign_nodes.insert(pulse.heartbeat.node, (pulse, now));
    }
}

/// The result of a request as a probe.
pub(super) fn probed(asked: Result<(), RequestFailure>) -> Probed {
    match asked {
        Ok(()) => Probed::Answered,
        Err(RequestFailure::NobodyListens) => Probed::NobodyListens,
        Err(RequestFailure::NoAnswer) => Probed::Silence,
    }
}
