//! A room's task sees to the node that has the room's media.

use tokio::time::Instant;

use super::RoomTask;
use super::sending::Message;
use crate::clock::now;
use crate::id::{IdentityId, NodeId, SessionId, UserId};
use crate::media_access::MediaPlace;
use crate::nodes::engine::Engine;
use crate::nodes::places::RoomPlaces;
use crate::protocol::server::{MEDIA_MOVED, MessageKind};
use crate::room::replica::ReplicaInput;

/// The node of a room's media, as its task knows it.
#[derive(Debug, Default)]
pub(super) struct RoomMedia {
    /// The node that the journal names.
    at: Option<NodeId>,
    /// The node that is chosen, and perhaps not written yet, if this one owns the room.
    chosen: Option<NodeId>,
    /// The node of which the members here were told that it is gone.
    missed: Option<NodeId>,
    /// The places that were told last, if this node owns the room.
    told: Option<Told>,
    /// The number of the last message about places.
    number: u64,
}

#[derive(Debug)]
struct Told {
    to: NodeId,
    at: Instant,
    members: Vec<(UserId, IdentityId, MediaPlace)>,
    agent: Option<SessionId>,
}

impl<E: Engine> RoomTask<E> {
    /// Tells members that the node of their media is gone, and has another one have them.
    pub(super) async fn see_to_media(&mut self) {
        let at = self.replica.journal().state().media_at();
        if at != self.media.at {
            self.media.at = at;
            self.cluster.set_media_of(&self.name, at);
        }
        let is_gone = |node: NodeId| !self.cluster.membership().is_alive(node);
        let (is_at_gone, is_chosen_gone) = (at.is_none_or(is_gone), self.media.chosen.is_none_or(is_gone));
        if is_at_gone && at.is_some() && self.media.missed != at {
            self.media.missed = at;
            self.fanout.send_transient(MessageKind::MediaMoved, MEDIA_MOVED.to_owned()).await;
        }
        if self.replica.room().is_none() {
            (self.media.chosen, self.media.told) = (None, None);
        } else if is_at_gone
            && is_chosen_gone
            && self.cluster.has_media()
            && self.replica.journal().state().meeting().is_some()
        {
            let chosen = self.cluster.preferred_for(&self.name);
            self.media.chosen = Some(chosen);
            self.input(ReplicaInput::MediaAt(chosen));
            self.tell_places();
        }
    }

    /// Tells the node of the media the places of all members, if one changed, or if the last time was a tick ago.
    pub(super) fn tell_places(&mut self) {
        if !self.deps.media.checks() || !self.cluster.has_media() {
            return;
        }
        let Some(room) = self.replica.room() else { return };
        let (Some(to), Some(meeting)) = (self.media.chosen.or(self.media.at), room.meeting()) else { return };
        let (members, agent) = (room.media_places(), room.ai().session().map(|agent| agent.session.clone()));
        let (now, tick) = (now(), self.deps.settings.tick);
        let is_known = |told: &Told| {
            told.to == to && told.members == members && told.agent == agent && now < told.at + tick / 2
        };
        if self.media.told.as_ref().is_some_and(is_known) {
            return;
        }
        self.media.number += 1;
        let (epoch, number) = (self.replica.journal().epoch(), self.media.number);
        self.media.told = Some(Told { to, at: now, members: members.clone(), agent: agent.clone() });
        let places = RoomPlaces { epoch, number, meeting, tick, members, agent };
        if to == self.cluster.node() {
            self.cluster.take_places(&self.name, places);
        } else {
            self.outgoing.push(Message::Places(to, Box::new(places)));
        }
    }
}
