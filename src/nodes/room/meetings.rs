//! The life of a meeting, as its node records it for the list of all, and its end, which is that of its files.

use satsuma_cluster::journal::Life;

use super::RoomTask;
use crate::clock::wall_clock;
use crate::id::MeetingId;
use crate::nodes::engine::Engine;
use crate::room::requests::Notice;
use crate::store::saved::MeetingRecord;

impl<E: Engine> RoomTask<E> {
    /// Looks if the meeting has ended. Its files may be at nodes that have no part of the room any more, so its owner tells
    /// all.
    pub(super) async fn see_meeting(&mut self) {
        let journal = self.replica.journal();
        let meeting = journal.state().meeting();
        if meeting == self.meeting || (meeting.is_none() && journal.life() != Life::Ended) {
            return;
        }
        let Some(ended) = std::mem::replace(&mut self.meeting, meeting) else { return };
        let Some(files) = &self.deps.files else { return };
        files.end(ended);
        if self.is_owner {
            self.cluster.tell_all(Notice::Ended(ended)).await;
        }
    }

    /// Records the number of a meeting's members, or that it has ended.
    pub(super) fn record(&self, meeting: MeetingId, members: Option<usize>) {
        let room = self.name.clone();
        self.deps.store.record(MeetingRecord { at: wall_clock(), room, meeting, members });
    }
}
