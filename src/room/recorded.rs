//! The events of a room that has a journal: their places there, and the news that they are recorded.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::replica::lines::RecordedEvents;
use crate::id::MeetingId;

/// The place of an event in its room's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalPlace {
    /// The epoch of the owner that wrote it.
    pub epoch: u64,
    /// Its number there; that of the first, if it stands for several changes of a member.
    pub first: u64,
    /// The number of the last.
    pub last: u64,
    /// The number of the last event of the meeting, as programs see it, that other nodes have recorded.
    pub seq: u64,
    /// Tells the room that it is recorded.
    pub mark: RecordedMark,
}

/// The last recorded event of a room. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct RecordedMark {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    last: Mutex<Option<(MeetingId, RecordedEvents)>>,
    moved: Notify,
}

impl RecordedMark {
    /// Tells the room that events of a meeting are recorded.
    pub fn set(&self, meeting: MeetingId, recorded: RecordedEvents) {
        // No code panics under this lock.
        *self.shared.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((meeting, recorded));
        self.shared.moved.notify_one();
    }

    /// Waits until events are recorded after the last time. Nothing is lost if the wait is given up.
    pub async fn moved(&self) {
        self.shared.moved.notified().await;
    }

    /// The events that are recorded since the last time.
    pub fn take(&self) -> Option<(MeetingId, RecordedEvents)> {
        self.shared.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl PartialEq for RecordedMark {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for RecordedMark {}
