//! The remains of a meeting that ends, and of a room that the server stops.

use super::Actor;
use crate::clock::{now, wall_clock};
use crate::id::{MeetingId, UserId};
use crate::store::ended::{EndedMeeting, REMEMBERED};

impl Actor {
    /// Removes the files of a meeting that ends.
    pub(super) fn end_files(&self, meeting: MeetingId) {
        if let Some(files) = &self.deps.files {
            files.end(meeting);
        }
    }

    /// Keeps the members of a meeting that was ended for all out of the room, over a restart as well.
    pub(super) fn remember_ended(&self, meeting: MeetingId, users: Vec<UserId>) {
        let ended = EndedMeeting { room: self.name.clone(), at: wall_clock(), users };
        self.deps.ended.remember(now().into_std() + REMEMBERED, &ended);
        self.deps.store.persist_ended(meeting, ended);
    }

    /// Hands unconfirmed events to the store, for the members' return after the restart.
    pub(super) fn persist_unconfirmed(&self) {
        let Some(meeting) = self.room.meeting() else { return };
        self.deps.store.persist_unconfirmed(meeting, self.fanout.unconfirmed());
    }
}
