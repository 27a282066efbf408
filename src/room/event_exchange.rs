//! Events on their way between nodes: those of this one for the streams of others, and the places of others' events here.
//!
//! A node numbers the events that it has recorded while another one wants them, and keeps the newest, so that whoever
//! missed some gets them by their numbers. While nobody wants any, nothing is numbered or kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::id::RoomName;

/// Bytes of the newest events for nodes that missed some.
const MAX_BYTES: usize = 1 << 20;

/// Bytes of the events of one message; a longer one is alone.
const PART_BYTES: usize = 48 << 10;

/// Time for which events are numbered after the last sign that another node wants them: as long as a node wants them after
/// its last stream. While the engine is away no sign comes, and the numbers tell afterwards what was missed.
const WANTED: Duration = Duration::from_secs(24 * 60 * 60);

/// The events of a node. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct EventExchange(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    own: Mutex<OwnEvents>,
    came: Notify,
}

#[derive(Debug, Default)]
struct OwnEvents {
    /// The last sign that another node wants events.
    wanted: Option<Instant>,
    /// The number of the next event.
    next: u64,
    newest: VecDeque<SharedEvent>,
    bytes: usize,
}

/// An event as it passes between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedEvent {
    /// Its id.
    pub id: String,
    /// The room, if it is of one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub room: Option<RoomName>,
    /// Its type.
    pub kind: String,
    /// The whole event as JSON.
    pub body: String,
}

/// Events of a node in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsPart {
    /// The number of the first.
    pub first: u64,
    /// The events.
    pub events: Vec<SharedEvent>,
}

impl EventExchange {
    /// Takes a sign that another node wants events.
    pub fn want(&self, now: Instant) {
        self.lock().wanted = Some(now);
    }

    /// True while another node wants events.
    pub fn is_wanted(&self, now: Instant) -> bool {
        self.lock().wanted.is_some_and(|last| now.saturating_duration_since(last) < WANTED)
    }

    /// Numbers events for the other nodes.
    pub fn publish(&self, events: impl IntoIterator<Item = SharedEvent>) {
        {
            let mut own = self.lock();
            for event in events {
                own.next += 1;
                own.bytes += event.body.len();
                own.newest.push_back(event);
            }
            while own.bytes > MAX_BYTES
                && let Some(oldest) = own.newest.pop_front()
            {
                own.bytes -= oldest.body.len();
            }
        }
        self.0.came.notify_one();
    }

    /// Waits until events were published after this was last waited for.
    pub async fn came(&self) {
        self.0.came.notified().await;
    }

    /// The number of the next event.
    pub fn next(&self) -> u64 {
        self.lock().next
    }

    /// The events from a number on, or the oldest that there still are: as many as fit into one message.
    pub fn part(&self, from: u64) -> EventsPart {
        let own = self.lock();
        let oldest = own.next - own.newest.len() as u64;
        let first = from.clamp(oldest, own.next);
        let mut bytes = 0;
        let skipped = usize::try_from(first - oldest).unwrap_or(usize::MAX);
        let fits = |event: &&SharedEvent| {
            let is_first = bytes == 0;
            bytes += event.body.len();
            is_first || bytes <= PART_BYTES
        };
        EventsPart { first, events: own.newest.iter().skip(skipped).take_while(fits).cloned().collect() }
    }

    fn lock(&self) -> MutexGuard<'_, OwnEvents> {
        // No code panics under this lock.
        self.0.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64, bytes: usize) -> SharedEvent {
        let (id, kind) = (number.to_string(), "member.left".to_owned());
        SharedEvent { id, room: None, kind, body: "x".repeat(bytes) }
    }

    fn ids(part: &EventsPart) -> Vec<&str> {
        part.events.iter().map(|event| &*event.id).collect()
    }

    #[test]
    fn newest_events_are_kept_by_their_numbers() {
        let exchange = EventExchange::default();
        assert_eq!(exchange.part(7), EventsPart::default());
        exchange.publish((0..3).map(|number| event(number, 10)));
        assert_eq!((exchange.next(), ids(&exchange.part(1))), (3, vec!["1", "2"]));
        assert_eq!((exchange.part(9).first, exchange.part(9).events.len()), (3, 0));
        // One that is too long for a message with others.
        exchange.publish([event(3, 2 * PART_BYTES), event(4, 1)]);
        assert_eq!(ids(&exchange.part(0)), ["0", "1", "2"]);
        assert_eq!((ids(&exchange.part(3)), ids(&exchange.part(4))), (vec!["3"], vec!["4"]));
        exchange.publish((5..8).map(|number| event(number, MAX_BYTES / 2)));
        let part = exchange.part(0);
        assert_eq!((part.first, ids(&part)), (6, vec!["6"]), "older ones are forgotten");
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "an instant can only be had from the clock; tests add to it"
    )]
    fn events_are_wanted_for_a_while() {
        let (exchange, now) = (EventExchange::default(), Instant::now());
        assert!(!exchange.is_wanted(now));
        exchange.want(now);
        assert!(exchange.is_wanted(now) && !exchange.is_wanted(now + WANTED));
    }
}
