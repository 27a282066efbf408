//! The task of a node: its sign of life, the nodes that it sees, and messages of other nodes on their way to rooms.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use dashmap::DashMap;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use satsuma_cluster::Membership;
use satsuma_cluster::membership::{Heartbeat, PROBE_TIMEOUT, Probed, Task};
use satsuma_cluster::message::{NodeMessage, Pulse};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::engine::{Engine, EngineEvent, ReplyAddress, RequestFailure};
use crate::clock::now;
use crate::id::{NodeId, RoomName};
use crate::metrics::Metrics;
use crate::room::replica::messages::{Attach, PeerMessage};

/// Number of rooms that a node takes over at a time.
const MAX_TAKEOVERS: usize = 64;

/// Messages of other nodes that wait for a room. Further ones are lost, and said again.
pub(super) const QUEUED_MESSAGES: usize = 256;

/// A node among others, as its rooms see it. Clones are the same node.
pub struct Cluster<E> {
    inner: Arc<Inner<E>>,
}

struct Inner<E> {
    node: NodeId,
    name: String,
    engine: E,
    membership: RwLock<Membership>,
    /// The rooms on this node, by name.
    rooms: DashMap<RoomName, mpsc::Sender<PeerBytes>>,
    /// The last pulse of each other node.
    pulses: Mutex<BTreeMap<NodeId, Pulse>>,
    changed: watch::Sender<Changes>,
    takeovers: Arc<Semaphore>,
    last_link: AtomicU64,
    owned: AtomicU32,
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
pub(super) struct Changes {
    /// Nodes that are gone.
    pub(super) gone: u64,
    /// Interruptions of the way to the engine that are over.
    pub(super) interruptions: u64,
}

/// A node, as this one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its last pulse.
    pub pulse: Pulse,
    /// False once it is taken for gone.
    pub is_alive: bool,
}

/// The task of a node.
pub struct NodeTask<E> {
    cluster: Cluster<E>,
    events: mpsc::Receiver<EngineEvent>,
    work: FuturesUnordered<BoxFuture<'static, Option<(NodeId, Probed)>>>,
    is_interrupted: bool,
}

impl<E> Clone for Cluster<E> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<E> fmt::Debug for Cluster<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("node", &self.inner.node).finish_non_exhaustive()
    }
}

impl<E: Engine> Cluster<E> {
    /// A node with a name for people, and the task that it needs.
    pub fn new(
        node: NodeId,
        name: String,
        engine: E,
        events: mpsc::Receiver<EngineEvent>,
        metrics: Arc<Metrics>,
    ) -> (Self, NodeTask<E>) {
        let inner = Inner {
            node,
            name,
            engine,
            membership: RwLock::new(Membership::new(now().into_std(), node)),
            rooms: DashMap::new(),
            pulses: Mutex::default(),
            changed: watch::Sender::new(Changes::default()),
            takeovers: Arc::new(Semaphore::new(MAX_TAKEOVERS)),
            last_link: AtomicU64::new(0),
            owned: AtomicU32::new(0),
            metrics,
        };
        let cluster = Self { inner: Arc::new(inner) };
        let work = FuturesUnordered::new();
        (cluster.clone(), NodeTask { cluster, events, work, is_interrupted: false })
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// The engine.
    pub fn engine(&self) -> &E {
        &self.inner.engine
    }

    /// Tells the other nodes that this one takes no more rooms.
    pub fn begin_to_leave(&self) {
        self.membership_mut().drain();
    }

    /// The other nodes.
    pub fn nodes(&self) -> Vec<NodeStatus> {
        let (pulses, membership) = (self.pulses(), self.membership());
        let status = |(node, pulse): (&NodeId, &Pulse)| NodeStatus {
            pulse: pulse.clone(),
            is_alive: membership.is_alive(*node),
        };
        pulses.iter().map(status).collect()
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

    fn pulses(&self) -> MutexGuard<'_, BTreeMap<NodeId, Pulse>> {
        self.inner.pulses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes(&self) -> watch::Receiver<Changes> {
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
    }

    /// Opens the way of other nodes' messages to a room here.
    pub(super) fn open(&self, room: &RoomName) -> (mpsc::Sender<PeerBytes>, mpsc::Receiver<PeerBytes>) {
        let (sender, messages) = mpsc::channel(QUEUED_MESSAGES);
        self.inner.rooms.insert(room.clone(), sender.clone());
        (sender, messages)
    }

    pub(super) fn close(&self, room: &RoomName, sender: &mpsc::Sender<PeerBytes>) {
        self.inner.rooms.remove_if(room, |_, known| known.same_channel(sender));
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
        self.inner.changed.send_modify(|changes| changes.gone += 1);
    }
}

impl<E: Engine> NodeTask<E> {
    /// Runs until it is stopped, which is after the rooms of the node have ended.
    pub async fn run(mut self, stop: CancellationToken) {
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
                event = self.events.recv() => match event {
                    Some(event) => self.event(event),
                    None => break,
                },
                () = stop.cancelled() => break,
            }
            let tasks = self.cluster.membership_mut().poll(now().into_std());
            tasks.into_iter().for_each(|task| self.task(task));
        }
        let heartbeat = Heartbeat {
            node: self.cluster.node(),
            number: u64::MAX,
            version: satsuma_cluster::entry::VERSION,
            is_draining: true,
        };
        let engine = self.cluster.engine();
        engine.send_to_all(self.pulse(heartbeat, true).encode().into()).await;
        engine.flush().await;
    }

    fn pulse(&self, heartbeat: Heartbeat, is_last: bool) -> Pulse {
        let Inner { name, owned, rooms, metrics, .. } = &*self.cluster.inner;
        let owned = owned.load(Ordering::Relaxed);
        let rooms = u32::try_from(rooms.len()).unwrap_or(u32::MAX);
        Pulse {
            heartbeat,
            is_last,
            name: name.clone(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            owned,
            relayed: rooms.saturating_sub(owned),
            clients: u32::try_from(metrics.connections.get()).unwrap_or_default(),
        }
    }

    fn task(&mut self, task: Task) {
        let engine = self.cluster.engine().clone();
        match task {
            Task::Heartbeat(heartbeat) => {
                let pulse = Bytes::from(self.pulse(heartbeat, false).encode());
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
            Task::CutOff => warn!(event = "cutOff", "this node does not hear itself through the engine"),
            Task::Rejoined => {
                info!(event = "rejoined", "this node hears itself again");
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
                if std::mem::take(&mut self.is_interrupted) {
                    self.interrupted();
                }
            }
            EngineEvent::Disconnected => self.is_interrupted = true,
        }
    }

    fn heard(&mut self, pulse: Pulse) {
        let Pulse { heartbeat, is_last, .. } = pulse;
        let node = heartbeat.node;
        let task = {
            let mut membership = self.cluster.membership_mut();
            if is_last { membership.left(node) } else { membership.heard(now().into_std(), heartbeat) }
        };
        if node != self.cluster.node() {
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

    fn message(&mut self, from: NodeId, message: &Bytes, reply: Option<ReplyAddress>) {
        if let Some(reply) = reply {
            let engine = self.cluster.engine().clone();
            self.work.push(Box::pin(async move {
                engine.reply(reply, Bytes::new()).await;
                None
            }));
        }
        let metrics = &self.cluster.inner.metrics;
        let (name, body) = match NodeMessage::decode(message) {
            Ok(NodeMessage::Probe) => return,
            Ok(NodeMessage::Subject { name, body }) => (name, body),
            Err(_) => return Metrics::count(&metrics.drops, "unknown_message"),
        };
        let Ok(name) = RoomName::parse(name) else { return };
        let body = message.slice_ref(body);
        let room = self.cluster.inner.rooms.get(&name).map(|room| room.clone());
        match room {
            Some(room) => {
                if room.try_send(PeerBytes { from, message: body }).is_err() {
                    Metrics::count(&metrics.drops, "message_of_node");
                }
            }
            None => self.disown(from, &name, &body),
        }
    }

    /// Tells a relay that the room is not here.
    fn disown(&mut self, to: NodeId, name: &RoomName, message: &[u8]) {
        let link = match PeerMessage::decode(message) {
            Ok(PeerMessage::Attach(Attach { link, .. })) => link,
            Ok(PeerMessage::Up(up)) => up.link,
            _ => return,
        };
        let body = PeerMessage::NotOwner { link }.encode();
        let message = NodeMessage::Subject { name: name.as_str(), body: &body }.encode();
        let engine = self.cluster.engine().clone();
        self.work.push(Box::pin(async move {
            engine.send(to, message.into()).await;
            None
        }));
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
