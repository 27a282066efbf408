//! Room events: the rooms' actors publish them to the log, and to the queue of the event bridge.
//!
//! The log is written first, on the room's task, so that its lines keep their order among the others of that room
//! and none is lost. The [queue](super::event_queue) takes an event without waiting; while nobody records events, it
//! costs one load of a flag.

use super::event_queue::{EventQueue, JournalPlace, PublishedEvent};
use super::io::RoomEvent;
use super::log;
use super::replica::journaled::{JournaledEvent, Recording};
use super::replica::lines::RecordedEvents;
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
            let (time, room) = (wall_clock(), room.clone());
            self.queue.push(PublishedEvent { time, room, meeting, event, place: None });
        }
    }

    /// The same for an event that waits in its room's journal until it is recorded.
    pub fn publish_journaled(
        &self,
        room: &RoomName,
        meeting: MeetingId,
        event: &JournaledEvent,
        place: JournalPlace,
    ) {
        let (time, event) = (event.time(), RoomEvent::from(event.event.clone()));
        if !event.is_unlogged() {
            log::write(room, Some(meeting), &event);
        }
        let is_wanted = match event {
            RoomEvent::ChatMessage { .. } => self.queue.wants_chat(),
            _ => self.queue.is_recording(),
        };
        if is_wanted {
            let (room, place) = (room.clone(), Some(place));
            self.queue.push(PublishedEvent { time, room, meeting, event, place });
        } else {
            // This node records none: nobody is to wait for it.
            let JournalPlace { last, seq, mark, .. } = place;
            mark.set(meeting, RecordedEvents { through: last, seq });
        }
    }

    /// True if chat messages are to be published.
    pub fn wants_chat(&self) -> bool {
        self.queue.wants_chat()
    }

    /// The events that are recorded.
    pub fn recording(&self) -> Recording {
        Recording { events: self.queue.is_recording(), chat: self.queue.wants_chat() }
    }
}
