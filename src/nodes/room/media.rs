//! A room's task sees to the node that has the room's media.

use crate::id::NodeId;
use crate::nodes::engine::Engine;
use crate::nodes::room::RoomTask;
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
            self.media.chosen = None;
        } else if is_at_gone
            && is_chosen_gone
            && self.cluster.has_media()
            && self.replica.journal().state().meeting().is_some()
        {
            let chosen = self.cluster.preferred_for(&self.name);
            self.media.chosen = Some(chosen);
            self.input(ReplicaInput::MediaAt(chosen));
        }
    }
}
