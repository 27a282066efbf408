//! Messages of other nodes: on their way to rooms, and calls about media sessions here.

use bytes::Bytes;
use satsuma_cluster::message::NodeMessage;

use super::{NodeTask, PeerBytes};
use crate::id::{NodeId, RoomName};
use crate::metrics::Metrics;
use crate::nodes::engine::{Engine, ReplyAddress};
use crate::nodes::places::RoomPlaces;
use crate::room::replica::messages::{Attach, PeerMessage};

impl<E: Engine> NodeTask<E> {
    pub(super) fn message(&mut self, from: NodeId, message: &Bytes, reply: Option<ReplyAddress>) {
        if let (Ok(NodeMessage::MediaCall(call)), Some(media), true) =
            (NodeMessage::decode(message), &self.media, self.cluster.is_member(from))
        {
            let Some(reply) = reply else { return };
            let (engine, media, call) =
                (self.cluster.engine().clone(), media.clone(), message.slice_ref(call));
            self.calls.spawn(async move {
                let answer = media.answer(&call).await;
                engine.reply(reply, answer.into()).await;
            });
            return;
        }
        if let (Ok(NodeMessage::Request { body }), true) =
            (NodeMessage::decode(message), self.cluster.is_member(from))
        {
            let (cluster, body) = (self.cluster.clone(), message.slice_ref(body));
            self.calls.spawn(async move {
                let answer = cluster.answer(body).await;
                if let Some(reply) = reply {
                    cluster.engine().reply(reply, answer).await;
                }
            });
            return;
        }
        if let (Ok(NodeMessage::ObjectCall(body)), true) =
            (NodeMessage::decode(message), self.cluster.is_member(from))
        {
            let (cluster, body) = (self.cluster.clone(), message.slice_ref(body));
            self.calls.spawn(async move {
                let answer = cluster.answer_object_call(from, body).await;
                if let Some(reply) = reply {
                    cluster.engine().reply(reply, answer).await;
                }
            });
            return;
        }
        if let Some(reply) = reply {
            let engine = self.cluster.engine().clone();
            let answer = match NodeMessage::decode(message) {
                Ok(NodeMessage::MediaOf(room)) if self.cluster.is_member(from) => self.media_of(room),
                _ => Bytes::new(),
            };
            self.work.push(Box::pin(async move {
                engine.reply(reply, answer).await;
                None
            }));
        }
        let metrics = &self.cluster.inner.metrics;
        if !self.cluster.is_member(from) {
            return Metrics::count(&metrics.drops, "message_of_stranger");
        }
        let (name, body) = match NodeMessage::decode(message) {
            Ok(
                NodeMessage::Probe
                | NodeMessage::Request { .. }
                | NodeMessage::MediaCall(_)
                | NodeMessage::ObjectCall(_)
                | NodeMessage::MediaOf(_),
            ) => return,
            Ok(NodeMessage::Subject { name, body }) => (name, body),
            Ok(NodeMessage::MediaPlaces { name, body }) => {
                return match (RoomName::parse(name), RoomPlaces::decode(body)) {
                    (Ok(name), Some(places)) => self.cluster.take_places(&name, places),
                    _ => Metrics::count(&metrics.drops, "unknown_message"),
                };
            }
            Err(_) => return Metrics::count(&metrics.drops, "unknown_message"),
        };
        let Ok(name) = RoomName::parse(name) else { return };
        let body = message.slice_ref(body);
        let room = self.cluster.inner.rooms.get(&name).map(|room| room.messages.clone());
        match room {
            Some(room) => {
                if room.try_send(PeerBytes { from, message: body }).is_err() {
                    Metrics::count(&metrics.drops, "message_of_node");
                }
            }
            None => self.disown(from, &name, &body),
        }
    }

    /// The answer to the question for the node of a room's media.
    fn media_of(&self, room: &str) -> Bytes {
        let node = RoomName::parse(room).ok().and_then(|room| self.cluster.media_of(&room));
        node.map(|node| Bytes::copy_from_slice(&node.bits().to_be_bytes())).unwrap_or_default()
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
