//! The rooms on a node, as its own task and other nodes' messages find them.

use tokio::sync::mpsc;

use super::engine::Engine;
use super::node::{Cluster, PeerBytes};
use crate::id::RoomName;

/// Messages of other nodes that wait for a room. Further ones are lost, and said again.
const QUEUED_MESSAGES: usize = 256;

/// A room on this node.
#[derive(Debug)]
pub(super) struct RoomHere {
    pub(super) messages: mpsc::Sender<PeerBytes>,
    is_owned: bool,
}

impl<E: Engine> Cluster<E> {
    /// Opens the way of other nodes' messages to a room here.
    pub(super) fn open(&self, room: &RoomName) -> (mpsc::Sender<PeerBytes>, mpsc::Receiver<PeerBytes>) {
        let (sender, messages) = mpsc::channel(QUEUED_MESSAGES);
        self.inner.rooms.insert(room.clone(), RoomHere { messages: sender.clone(), is_owned: false });
        (sender, messages)
    }

    pub(super) fn close(&self, room: &RoomName, sender: &mpsc::Sender<PeerBytes>) {
        if self.inner.rooms.remove_if(room, |_, known| known.messages.same_channel(sender)).is_some() {
            self.inner.media.remove(room);
        }
    }

    /// Tells if a room that runs here is this node's.
    pub(super) fn set_owned(&self, room: &RoomName, is_owned: bool) {
        if let Some(mut here) = self.inner.rooms.get_mut(room) {
            here.is_owned = is_owned;
        }
    }

    /// True if this node owns the room.
    pub(super) fn owns(&self, room: &RoomName) -> bool {
        self.inner.rooms.get(room).is_some_and(|here| here.is_owned)
    }

    /// The rooms that this node owns, sorted by name.
    pub(super) fn owned_rooms(&self) -> Vec<RoomName> {
        let owned = self.inner.rooms.iter().filter(|here| here.is_owned);
        let mut owned: Vec<RoomName> = owned.map(|here| here.key().clone()).collect();
        owned.sort_unstable();
        owned
    }
}
