//! Room events: the rooms' actors publish them to the log, and to the queue of the event bridge.
//!
//! The log is written first, on the room's task, so that its lines keep their order among the others of that room
//! and none is lost. The [queue](super::event_queue) takes an event without waiting; while nobody records events, it
//! costs one load of a flag.

use super::event_queue::{EventQueue, PublishedEvent};
use super::io::RoomEvent;
use super::log;
use crate::clock::wall_clock;
use crate::id::{MeetingId, RoomName};

/// The publisher of all rooms' events. A clone publishes to the same queue.
#[derive(Clone, Debug, Default)]
pub struct RoomEvents {
    queue: EventQueue,
}

impl RoomEvents {
    /// A publisher to the log and to a queue.
    pub fn new(queue: EventQueue) -> Self {
        Self { queue }
    }

    /// Writes an event to the log and queues it if events are recorded. Never waits.
    pub fn publish(&self, room: &RoomName, meeting: Option<MeetingId>, event: RoomEvent) {
        if !event.is_unlogged() {
            log::write(room, meeting, &event);
        }
        if let Some(meeting) = meeting
            && self.queue.is_recording()
            && !event.is_diagnostic()
        {
            self.queue.push(PublishedEvent { time: wall_clock(), room: room.clone(), meeting, event });
        }
    }

    /// True if chat messages are to be published.
    pub fn wants_chat(&self) -> bool {
        self.queue.wants_chat()
    }
}
