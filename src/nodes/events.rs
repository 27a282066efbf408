//! The events of all nodes, for streams at any: each node that others want events of broadcasts those that it has
//! recorded, and each node records those of others in its own log beside its own, from which its streams read.
//!
//! A node wants events while it has streams, and for a day after, which its pulses tell. Events are numbered by their
//! node, so whoever misses some asks it for them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::engine::{Engine, Followed, Subject};
use super::node::{Changes, Cluster};
use super::requests::Asked;
use super::room::feed::{Feed, News};
use crate::clock::{now, wall_clock};
use crate::id::NodeId;
use crate::metrics::Metrics;
use crate::room::event_exchange::{EventExchange, EventsPart};
use crate::room::event_queue::EventQueue;

/// The key under which events are broadcast.
const EVENTS: &str = "events";

/// Time for a node to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The streams' way to the other nodes.
pub trait EventNodes: std::fmt::Debug + Send + Sync {
    /// This node.
    fn own(&self) -> NodeId;

    /// Gives the other nodes the events of this one, and this one theirs.
    fn serve(&self, exchange: EventExchange, queue: EventQueue);

    /// Has all nodes record their events, and waits until they do. Further ones follow from pulses.
    fn want(&self) -> BoxFuture<'static, ()>;

    /// Sends the events that are not sent yet.
    fn flush(&self) -> BoxFuture<'static, ()>;
}

/// The events of this node and the places of others'.
#[derive(Debug)]
pub(super) struct SharedEvents {
    exchange: EventExchange,
    queue: EventQueue,
    /// The number of the next event that is not sent yet.
    sent: AtomicU64,
    /// The number of the next event of each other node.
    places: Mutex<HashMap<NodeId, u64>>,
}

/// A broadcast.
#[derive(Debug, Serialize, Deserialize)]
struct EventsOf {
    node: NodeId,
    #[serde(flatten)]
    part: EventsPart,
}

impl SharedEvents {
    fn places(&self) -> MutexGuard<'_, HashMap<NodeId, u64>> {
        // No code panics under this lock.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a sign that another node wants events.
    fn want(&self) {
        self.exchange.want(now().into_std());
        self.queue.record();
    }

    /// Hands events of another node to the recorder, unless they came before.
    fn take(&self, node: NodeId, part: EventsPart) {
        let EventsPart { first, events } = part;
        let end = first + events.len() as u64;
        let (lost, known) = {
            let mut places = self.places();
            let place = places.entry(node).or_insert(first);
            let (lost, known) = (first.saturating_sub(*place), place.saturating_sub(first));
            *place = end.max(*place);
            (lost, known)
        };
        if !self.queue.is_recording() {
            return;
        }
        if lost > 0 {
            self.queue.push_shared_lost(lost);
        }
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        self.queue.push_shared(events.into_iter().skip(known));
    }
}

impl<E: Engine> EventNodes for Cluster<E> {
    fn own(&self) -> NodeId {
        self.node()
    }

    fn serve(&self, exchange: EventExchange, queue: EventQueue) {
        // A node has one recorder.
        let _ = self.inner.events.set(SharedEvents {
            exchange,
            queue,
            sent: AtomicU64::new(0),
            places: Mutex::default(),
        });
    }

    fn want(&self) -> BoxFuture<'static, ()> {
        let cluster = self.clone();
        async move { cluster.want_events().await }.boxed()
    }

    fn flush(&self) -> BoxFuture<'static, ()> {
        let cluster = self.clone();
        async move {
            if let Some(events) = cluster.inner.events.get() {
                cluster.send_events(events).await;
            }
        }
        .boxed()
    }
}

impl<E: Engine> Cluster<E> {
    /// True while this node has streams, or had one in the last day.
    pub(super) fn wants_events(&self) -> bool {
        self.inner.events.get().is_some_and(|events| events.queue.is_wanted(wall_clock()))
    }

    /// Takes a pulse of a node that wants events.
    pub(super) fn events_are_wanted(&self) {
        if let Some(events) = self.inner.events.get() {
            events.want();
        }
    }

    /// Answers a node that wants events: the number of the next.
    pub(super) fn begin_events(&self) -> Option<u64> {
        let events = self.inner.events.get()?;
        events.want();
        Some(events.exchange.next())
    }

    /// The events of this node from a number on, for one that missed them.
    pub(super) fn own_events(&self, from: u64) -> Option<EventsPart> {
        Some(self.inner.events.get()?.exchange.part(from))
    }

    async fn want_events(&self) {
        let others = self.nodes().into_iter().filter(|node| node.is_alive && node.is_member);
        let asked = others.map(|other| async move {
            let node = other.pulse.heartbeat.node;
            let next = self.request(node, Asked::WantEvents.encode(), now() + PATIENCE).await.ok()?;
            Some((node, serde_json::from_slice::<Option<u64>>(&next).ok()??))
        });
        let answers = join_all(asked).await;
        let Some(events) = self.inner.events.get() else { return };
        for (node, next) in answers.into_iter().flatten() {
            events.places().entry(node).or_insert(next);
        }
    }

    /// Exchanges events with the other nodes, without an end.
    pub async fn exchange_events(self) {
        let Some(events) = self.inner.events.get() else { return };
        let mut feed = Feed::new(self.engine().clone(), Subject::setting(EVENTS));
        let mut changes: watch::Receiver<Changes> = self.changes();
        let mut interruptions = changes.borrow().interruptions;
        loop {
            tokio::select! {
                () = events.exchange.came() => self.send_events(events).await,
                news = feed.next() => match news {
                    News::Begun => self.catch_up(events).await,
                    News::Followed(Followed::Broadcast(bytes)) => self.events_came(events, &bytes).await,
                    News::Followed(Followed::Stored(_)) => {}
                },
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = changes.borrow_and_update().interruptions;
                    if std::mem::replace(&mut interruptions, now) != now {
                        self.catch_up(events).await;
                    }
                    self.forget_places(events);
                }
            }
        }
    }

    async fn send_events(&self, events: &SharedEvents) {
        loop {
            let part = events.exchange.part(events.sent.load(Ordering::Relaxed));
            if part.events.is_empty() {
                return;
            }
            events.sent.store(part.first + part.events.len() as u64, Ordering::Relaxed);
            let Ok(message) = serde_json::to_vec(&EventsOf { node: self.node(), part }) else { return };
            self.engine().broadcast(Subject::setting(EVENTS), message.into()).await;
        }
    }

    async fn events_came(&self, events: &SharedEvents, bytes: &Bytes) {
        let Ok(EventsOf { node, part }) = serde_json::from_slice(bytes) else {
            return Metrics::count(&self.metrics().drops, "unknown_message");
        };
        if node == self.node() || !self.is_member(node) {
            return;
        }
        let place = events.places().get(&node).copied();
        if let Some(place) = place.filter(|place| *place < part.first) {
            self.fetch_events(events, node, place).await;
        }
        events.take(node, part);
    }

    /// Asks a node for the events from a number on.
    async fn fetch_events(&self, events: &SharedEvents, node: NodeId, from: u64) {
        let mut from = from;
        loop {
            let ask = Asked::Events { from }.encode();
            let Ok(answer) = self.request(node, ask, now() + PATIENCE).await else { return };
            let Ok(Some(part)) = serde_json::from_slice::<Option<EventsPart>>(&answer) else { return };
            if part.events.is_empty() {
                return;
            }
            from = part.first + part.events.len() as u64;
            events.take(node, part);
        }
    }

    /// Asks all nodes for what was missed during an interruption.
    async fn catch_up(&self, events: &SharedEvents) {
        let places: Vec<(NodeId, u64)> =
            events.places().iter().map(|(node, place)| (*node, *place)).collect();
        let alive = places.into_iter().filter(|(node, _)| self.membership().is_alive(*node));
        join_all(alive.map(|(node, place)| self.fetch_events(events, node, place))).await;
    }

    fn forget_places(&self, events: &SharedEvents) {
        let membership = self.membership();
        events.places().retain(|node, _| membership.knows(*node));
    }
}
