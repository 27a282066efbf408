//! Messages of a room to other nodes, on their way to the engine.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use satsuma_cluster::membership::{PROBE_TIMEOUT, Probed};
use satsuma_cluster::message::NodeMessage;

use crate::id::{NodeId, RoomName};
use crate::metrics::Metrics;
use crate::nodes::engine::{Engine, Subject};
use crate::nodes::node::probed;
use crate::nodes::places::RoomPlaces;
use crate::room::replica::messages::{Broadcast, Content, PeerMessage};

/// Messages that wait for the engine. Of further ones the oldest are lost, and said again.
const MAX_QUEUED: usize = 512;

/// The messages of a room, sent one after another. A slow engine holds up no room: what waits is bounded, and
/// of snapshots only the newest waits.
pub(super) struct Outgoing<E> {
    engine: E,
    room: RoomName,
    subject: Subject,
    metrics: Arc<Metrics>,
    queue: VecDeque<Message>,
    sending: Option<BoxFuture<'static, Option<(NodeId, Probed)>>>,
}

/// A message that waits.
#[derive(Debug)]
pub(super) enum Message {
    /// To a node.
    ToNode(NodeId, PeerMessage),
    /// To all nodes with members.
    ToAll(Broadcast),
    /// The places of the room's members, to the node of its media.
    Places(NodeId, Box<RoomPlaces>),
    /// To the engine: entries below this number are not needed any more.
    Purge(u64),
}

impl<E: Engine> Outgoing<E> {
    pub(super) fn new(engine: E, room: RoomName, metrics: Arc<Metrics>) -> Self {
        let subject = Subject::room(&room);
        Self { engine, room, subject, metrics, queue: VecDeque::new(), sending: None }
    }

    /// Queues a message.
    pub(super) fn push(&mut self, message: Message) {
        if matches!(message, Message::Places(..)) {
            self.queue.retain(|queued| !matches!(queued, Message::Places(..)));
        }
        if is_snapshot(&message) {
            self.queue.retain(|queued| !is_snapshot(queued));
        }
        if self.queue.len() >= MAX_QUEUED {
            self.queue.pop_front();
            Metrics::count(&self.metrics.drops, "message_to_node");
        }
        self.queue.push_back(message);
    }

    /// Sends what waits, without an end; returns what is learned of a node by that. Nothing is lost if the wait is given
    /// up.
    pub(super) async fn send(&mut self) -> (NodeId, Probed) {
        loop {
            let sending = match &mut self.sending {
                Some(sending) => sending,
                None => match self.queue.pop_front() {
                    Some(message) => {
                        let sending = self.begin(message);
                        self.sending.insert(sending)
                    }
                    None => return std::future::pending().await,
                },
            };
            let learned = sending.await;
            self.sending = None;
            if let Some(learned) = learned {
                return learned;
            }
        }
    }

    fn begin(&self, message: Message) -> BoxFuture<'static, Option<(NodeId, Probed)>> {
        let (engine, subject) = (self.engine.clone(), self.subject);
        match message {
            Message::ToNode(to, message) => {
                let body = message.encode();
                let bytes = NodeMessage::Subject { name: self.room.as_str(), body: &body }.encode();
                // The first message to an owner shows if it is there: a journal may name one that nobody heard of.
                let is_asked = matches!(message, PeerMessage::Attach(_));
                Box::pin(async move {
                    if is_asked {
                        let asked = engine.request(to, bytes.into(), PROBE_TIMEOUT).await;
                        return Some((to, probed(asked.map(drop))));
                    }
                    engine.send(to, bytes.into()).await;
                    None
                })
            }
            Message::ToAll(broadcast) => {
                let bytes = broadcast.encode();
                Box::pin(async move {
                    engine.broadcast(subject, bytes.into()).await;
                    None
                })
            }
            Message::Places(to, places) => {
                let body = places.encode();
                let bytes = NodeMessage::MediaPlaces { name: self.room.as_str(), body: &body }.encode();
                Box::pin(async move {
                    engine.send(to, bytes.into()).await;
                    None
                })
            }
            Message::Purge(below) => Box::pin(async move {
                engine.purge(subject, below).await;
                None
            }),
        }
    }
}

fn is_snapshot(message: &Message) -> bool {
    matches!(message, Message::ToAll(Broadcast { content: Content::Snapshot(_), .. }))
}
