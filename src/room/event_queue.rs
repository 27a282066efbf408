//! The queue between the rooms and the recorder of events: bounded, and never waited for by a room.
//!
//! Updates of a member that is queued already replace its newest state there, so that a client that updates its user
//! object without end takes the place of one event.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;

use super::event_exchange::SharedEvent;
use super::io::RoomEvent;
pub use super::recorded::{JournalPlace, RecordedMark};
use crate::id::{MeetingId, ReportId, RoomName, UserId};

/// Maximum number of queued events.
const MAX_EVENTS: usize = 100_000;

/// Maximum bytes of queued user objects and messages.
const MAX_BYTES: usize = 64 << 20;

/// An event of a room, its time and its meeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedEvent {
    /// The time of the event.
    pub time: SystemTime,
    /// The room.
    pub room: RoomName,
    /// Its meeting.
    pub meeting: MeetingId,
    /// The event.
    pub event: RoomEvent,
    /// Its place in the room's journal, if the room has one.
    pub place: Option<JournalPlace>,
}

/// A stored report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedReport {
    /// The time of its receipt.
    pub time: SystemTime,
    /// Its id.
    pub id: ReportId,
    /// Its kind, as lists name it.
    pub kind: &'static str,
    /// The room, if the report names it.
    pub room: Option<RoomName>,
    /// The verified name of the reporter.
    pub name: Arc<str>,
}

/// A queued event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueuedEvent {
    /// Of a room.
    Room(PublishedEvent),
    /// A stored report.
    Report(CreatedReport),
    /// Of another node, which has recorded it.
    Shared(SharedEvent),
    /// A number of events of another node that did not come.
    SharedLost(u64),
}

/// Everything that was queued since the queue was last drained.
#[derive(Debug, Default)]
pub struct Drained {
    /// The events in their order.
    pub events: VecDeque<QueuedEvent>,
    /// Number of events that found the queue full, after all of these.
    pub lost: u64,
}

/// The queue. A clone is the same queue.
#[derive(Clone, Debug, Default)]
pub struct EventQueue {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    recording: AtomicBool,
    chat: AtomicBool,
    queued: Mutex<Queued>,
    came: Notify,
    /// The time until which events are for streams, in seconds since 1970.
    until: AtomicU64,
}

#[derive(Debug, Default)]
struct Queued {
    events: VecDeque<QueuedEvent>,
    bytes: usize,
    /// The place in `events` of a member's newest update, while nothing else of that member came after it.
    updates: HashMap<(MeetingId, UserId), usize>,
    lost: u64,
}

impl EventQueue {
    /// Queues events from now on.
    pub fn record(&self) {
        self.shared.recording.store(true, Ordering::Relaxed);
    }

    /// Queues chat messages as well.
    pub fn record_chat(&self) {
        self.shared.chat.store(true, Ordering::Relaxed);
    }

    /// True if events are queued.
    pub fn is_recording(&self) -> bool {
        self.shared.recording.load(Ordering::Relaxed)
    }

    /// True if chat messages are queued.
    pub fn wants_chat(&self) -> bool {
        self.is_recording() && self.shared.chat.load(Ordering::Relaxed)
    }

    /// Queues a room's event.
    pub fn push(&self, event: PublishedEvent) {
        self.shared.lock().push(event);
        self.shared.came.notify_one();
    }

    /// Queues a report.
    pub fn push_report(&self, report: CreatedReport) {
        if self.is_recording() {
            self.shared.lock().add(QueuedEvent::Report(report), 0);
            self.shared.came.notify_one();
        }
    }

    /// Waits until something was queued after the queue was last drained.
    pub async fn came(&self) {
        self.shared.came.notified().await;
    }

    /// Sets the time until which events are for streams.
    pub fn set_until(&self, until: SystemTime) {
        self.shared.until.store(seconds(until), Ordering::Relaxed);
    }

    /// True while events are for streams.
    pub fn is_wanted(&self, at: SystemTime) -> bool {
        self.shared.until.load(Ordering::Relaxed) > seconds(at)
    }

    /// Queues events of another node.
    pub fn push_shared(&self, events: impl IntoIterator<Item = SharedEvent>) {
        {
            let mut queued = self.shared.lock();
            for event in events {
                let bytes = event.body.len();
                queued.add(QueuedEvent::Shared(event), bytes);
            }
        }
        self.shared.came.notify_one();
    }

    /// Queues that events of another node are lost.
    pub fn push_shared_lost(&self, lost: u64) {
        self.shared.lock().add(QueuedEvent::SharedLost(lost), 0);
        self.shared.came.notify_one();
    }

    /// Takes everything out of the queue.
    pub fn drain(&self) -> Drained {
        let Queued { events, lost, .. } = mem::take(&mut *self.shared.lock());
        Drained { events, lost }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queued> {
        // No code panics under this lock.
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queued {
    fn push(&mut self, event: PublishedEvent) {
        let PublishedEvent { meeting, event: content, .. } = &event;
        let (subject, bytes) = match content {
            RoomEvent::MemberUpdated { user, after, .. } => {
                let key = (*meeting, user.clone());
                if let Some(&place) = self.updates.get(&key)
                    && let Some(QueuedEvent::Room(queued)) = self.events.get_mut(place)
                    && let RoomEvent::MemberUpdated { after: newest, .. } = &mut queued.event
                {
                    self.bytes = self.bytes - newest.len() + after.len();
                    *newest = after.clone();
                    queued.time = event.time;
                    if let (Some(queued), Some(place)) = (&mut queued.place, &event.place) {
                        queued.last = place.last;
                    }
                    return;
                }
                (Some(key), after.len())
            }
            RoomEvent::MemberLeft { user, json, .. } | RoomEvent::MemberJoined { user, json, .. } => {
                self.updates.remove(&(*meeting, user.clone()));
                (None, json.len())
            }
            RoomEvent::ChatMessage { message, .. } => (None, message.len()),
            _ => (None, 0),
        };
        let place = self.events.len();
        if self.add(QueuedEvent::Room(event), bytes)
            && let Some(key) = subject
        {
            self.updates.insert(key, place);
        }
    }

    /// Adds an event if there is space; returns whether it was added.
    fn add(&mut self, event: QueuedEvent, bytes: usize) -> bool {
        // Once one is lost, those after it are too: otherwise the loss would have no place in the order.
        let has_space = self.lost == 0 && self.events.len() < MAX_EVENTS && self.bytes + bytes <= MAX_BYTES;
        if has_space {
            self.bytes += bytes;
            self.events.push_back(event);
        } else {
            self.lost += 1;
        }
        has_space
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::id::IdentityId;
    use crate::protocol::close::Close;

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    fn push(queue: &EventQueue, meeting: MeetingId, event: RoomEvent) {
        queue.push(PublishedEvent {
            time: UNIX_EPOCH,
            room: RoomName::parse("r").unwrap(),
            meeting,
            event,
            place: None,
        });
    }

    fn update(id: &str, before: &str, after: &str) -> RoomEvent {
        RoomEvent::MemberUpdated { user: user(id), before: before.into(), after: after.into() }
    }

    fn drained(queue: &EventQueue) -> Vec<RoomEvent> {
        let events = queue.drain().events.into_iter();
        let events = events.map(|event| match event {
            QueuedEvent::Room(event) => event.event,
            other => panic!("{other:?}"),
        });
        events.collect()
    }

    #[tokio::test]
    async fn update_replaces_the_queued_one_of_its_member() {
        let (queue, meeting) = (EventQueue::default(), MeetingId::random());
        queue.record();
        push(&queue, meeting, update("a", "0", "1"));
        push(&queue, meeting, update("b", "0", "7"));
        push(&queue, meeting, update("a", "1", "2"));
        push(&queue, MeetingId::random(), update("a", "0", "x"));
        queue.came().await;
        assert_eq!(drained(&queue), [update("a", "0", "2"), update("b", "0", "7"), update("a", "0", "x")]);
        push(&queue, meeting, update("a", "2", "3"));
        assert_eq!(drained(&queue), [update("a", "2", "3")], "the drained one is gone");
    }

    #[test]
    fn update_of_a_returned_member_keeps_its_place() {
        let (queue, meeting) = (EventQueue::default(), MeetingId::random());
        let left = RoomEvent::MemberLeft { user: user("a"), json: "1".into(), reason: Close::UserLeft };
        let identity = IdentityId::new("cookie:a");
        let joined = RoomEvent::MemberJoined { user: user("a"), identity, json: "2".into() };
        let events = [update("a", "0", "1"), left, joined, update("a", "2", "3")];
        for event in &events {
            push(&queue, meeting, event.clone());
        }
        assert_eq!(drained(&queue), events);
    }

    #[test]
    fn full_queue_counts_what_it_loses() {
        let (queue, meeting) = (EventQueue::default(), MeetingId::random());
        let chat = |bytes| RoomEvent::ChatMessage {
            id: 1,
            from: user("a"),
            name: "A".into(),
            message: "x".repeat(bytes).into(),
        };
        push(&queue, meeting, update("a", "0", "1"));
        push(&queue, meeting, chat(MAX_BYTES - 1));
        push(&queue, meeting, chat(1));
        push(&queue, meeting, RoomEvent::EndingMeeting);
        push(&queue, meeting, update("a", "1", "2"));
        let Drained { events, lost } = queue.drain();
        assert_eq!((events.len(), lost), (2, 2), "a conflated update needs no space");
        for _ in 0..MAX_EVENTS + 3 {
            push(&queue, meeting, RoomEvent::EndingMeeting);
        }
        let Drained { events, lost } = queue.drain();
        assert_eq!((events.len(), lost), (MAX_EVENTS, 3));
    }

    #[test]
    fn nothing_is_queued_before_it_is_recorded() {
        let events = crate::room::events::RoomEvents::default();
        let meeting = Some(MeetingId::random());
        let room = RoomName::parse("r").unwrap();
        events.publish(&room, meeting, RoomEvent::StartingMeeting);
        let queue = EventQueue::default();
        let events = crate::room::events::RoomEvents::new(queue.clone());
        events.publish(&room, meeting, RoomEvent::StartingMeeting);
        assert!(queue.drain().events.is_empty());
        queue.record();
        assert!(!events.wants_chat());
        events.publish(&room, None, RoomEvent::Alarm);
        events.publish(&room, meeting, RoomEvent::Alarm);
        events.publish(&room, meeting, RoomEvent::StartingMeeting);
        assert_eq!(drained(&queue), [RoomEvent::StartingMeeting]);
    }
}
