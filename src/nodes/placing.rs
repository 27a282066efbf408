//! The node of a room's media: all sessions of a room are on one, since no media pass between nodes.
//!
//! The room's owner chooses it and writes it into the journal, where it stays while that node lives. Before that is
//! written, and after the node has died, every node makes the same choice by itself: of those that take rooms, the
//! one that [is preferred](preferred) for the name.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use satsuma_cluster::entry::Line;
use satsuma_cluster::message::NodeMessage;
use satsuma_cluster::successor::preferred;
use tokio::time::sleep;

use super::engine::{Engine, Subject};
use super::node::Cluster;
use super::places::{PlacedRooms, RoomPlaces};
use super::room::record;
use crate::clock::now;
use crate::id::{NodeId, RoomName};

/// Time for the answer of a room's owner.
const ANSWER: Duration = Duration::from_millis(500);

/// Attempts to ask it: a room may be between two owners.
const TRIES: usize = 5;

/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// The result of an attempt to ask the owner of a room.
enum Asked {
    /// The node that it chose.
    Known(NodeId),
    /// There is no room, or nothing is chosen yet.
    Nothing,
    /// Nobody answered.
    Again,
}

impl<E: Engine> Cluster<E> {
    /// The node on which new sessions of a room are opened.
    pub(super) async fn media_home(&self, room: &RoomName) -> NodeId {
        let known = match self.media_of(room) {
            Some(node) => Some(node),
            None => self.ask_owner(room).await,
        };
        let is_there = |node: &NodeId| *node == self.node() || self.membership().is_alive(*node);
        known.filter(is_there).unwrap_or_else(|| self.preferred_for(room))
    }

    /// The node that is to have a room's media if none has them.
    pub(super) fn preferred_for(&self, room: &RoomName) -> NodeId {
        let membership = self.membership();
        preferred(room.as_str(), membership.takers()).unwrap_or(self.node())
    }

    /// True if a room has a part here.
    pub(super) fn has_room(&self, room: &RoomName) -> bool {
        self.inner.rooms.contains_key(room)
    }

    /// The node of a room's media, if the room has a part here that knows it.
    pub(super) fn media_of(&self, room: &RoomName) -> Option<NodeId> {
        self.inner.media.get(room).map(|node| *node)
    }

    pub(super) fn set_media_of(&self, room: &RoomName, node: Option<NodeId>) {
        match node {
            Some(node) => drop(self.inner.media.insert(room.clone(), node)),
            None => drop(self.inner.media.remove(room)),
        }
    }

    /// True if this node has an embedded media server.
    pub(super) fn has_media(&self) -> bool {
        self.inner.directory.get().is_some()
    }

    pub(super) fn placed(&self) -> MutexGuard<'_, PlacedRooms> {
        self.inner.placed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the places of a room's members, whose media are here.
    pub(super) fn take_places(&self, room: &RoomName, places: RoomPlaces) {
        if let Some(directory) = self.inner.directory.get() {
            self.placed().take(now().into_std(), directory, room, places);
        }
    }

    /// Asks the owner of a room that has no part on this node.
    async fn ask_owner(&self, room: &RoomName) -> Option<NodeId> {
        if self.has_room(room) {
            return None;
        }
        for _ in 0..TRIES {
            match self.try_to_ask(room).await {
                Asked::Known(node) => return Some(node),
                Asked::Nothing => return None,
                Asked::Again => sleep(PAUSE).await,
            }
        }
        None
    }

    async fn try_to_ask(&self, room: &RoomName) -> Asked {
        let last = match self.engine().last(Subject::room(room)).await {
            Ok(Some(last)) => record(room, &last),
            Ok(None) => return Asked::Nothing,
            Err(_) => return Asked::Again,
        };
        let Some(last) = last else { return Asked::Nothing };
        let has_ended = |line: &Line<_>| matches!(line, Line::Ended);
        if last.entry.lines.last().is_some_and(has_ended) || last.entry.by == self.node() {
            return Asked::Nothing;
        }
        let message = NodeMessage::MediaOf(room.as_str()).encode();
        match self.engine().request(last.entry.by, message.into(), ANSWER).await {
            Ok(answer) => match <[u8; 4]>::try_from(&answer[..]) {
                Ok(bits) => Asked::Known(NodeId::new(u32::from_be_bytes(bits))),
                Err(_) => Asked::Nothing,
            },
            Err(_) => Asked::Again,
        }
    }
}
