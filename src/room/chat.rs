//! The history of a room's chat: its last messages, for members who join later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Limits of a history, fixed at the room's creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// True if messages are remembered, unless the room has it otherwise.
    pub is_on: bool,
    /// Maximum number of messages.
    pub messages: usize,
    /// Maximum age of a message.
    pub age: Duration,
    /// Maximum memory in bytes.
    pub bytes: usize,
    /// Maximum memory in bytes of the histories of all rooms, which the rooms' owner watches.
    pub all_bytes: usize,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        let age = Duration::from_secs(24 * 60 * 60);
        Self { is_on: true, messages: 200, age, bytes: 128 << 10, all_bytes: 64 << 20 }
    }
}

/// Memory of a message besides its text: its entry in the queue and its own allocation.
const OVERHEAD_BYTES: usize = 80;

/// Bytes that a history may have even if the memory for all rooms is exhausted.
const LEAST_BYTES: usize = 4096;

/// The last messages of a meeting's chat, oldest first.
#[derive(Debug)]
pub struct ChatHistory {
    limits: HistoryLimits,
    /// False if nothing is remembered.
    is_on: bool,
    messages: VecDeque<Message>,
    /// Messages with lower ids are forgotten.
    first: u64,
    bytes: usize,
    /// Maximum memory for now: less than the limit while the memory for all rooms is exhausted.
    quota: usize,
    /// Number of changes, so that an encoding is made anew only after one.
    version: u64,
}

#[derive(Debug)]
struct Message {
    id: u64,
    json: Arc<str>,
    /// The time at which it is forgotten.
    until: Instant,
}

impl Message {
    fn cost(&self) -> usize {
        self.json.len() + OVERHEAD_BYTES
    }
}

impl ChatHistory {
    /// An empty history.
    pub fn new(limits: HistoryLimits) -> Self {
        let is_on = limits.is_on;
        Self { limits, is_on, messages: VecDeque::new(), first: 0, bytes: 0, quota: limits.bytes, version: 0 }
    }

    /// Restores messages from before a restart: ids, and objects that hold the time of writing as `at`, which is
    /// compared with `at`, the time now in milliseconds since 1970.
    pub fn restore(limits: HistoryLimits, now: Instant, at: u64, saved: &[(u64, Arc<str>)]) -> Self {
        #[derive(serde::Deserialize)]
        struct Written {
            at: u64,
        }
        let mut history = Self::new(limits);
        for (id, json) in saved {
            let Ok(Written { at: written }) = serde_json::from_str(json) else { continue };
            let left = limits.age.saturating_sub(Duration::from_millis(at.saturating_sub(written)));
            history.insert(Message { id: *id, json: json.clone(), until: now + left });
        }
        history
    }

    /// True if messages are remembered.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Remembers messages from now on, or none, and forgets those that there are. True if some were forgotten.
    pub fn set_on(&mut self, on: bool) -> bool {
        self.is_on = on;
        !on && self.clear()
    }

    /// Limits the memory to what is used already, because the memory for all rooms is exhausted, or lifts that.
    pub fn set_exhausted(&mut self, is_exhausted: bool) {
        let used = if is_exhausted { self.bytes.max(LEAST_BYTES) } else { usize::MAX };
        self.quota = used.min(self.limits.bytes);
    }

    /// Adds a message in the order of ids; the oldest give way to it. False if nothing is remembered.
    pub fn push(&mut self, now: Instant, id: u64, json: Arc<str>) -> bool {
        self.is_on && self.insert(Message { id, json, until: now + self.limits.age })
    }

    /// Forgets messages that are too old, or all that were restored although nothing is remembered any more. True if
    /// there were some.
    pub fn expire(&mut self, now: Instant) -> bool {
        if !self.is_on {
            return self.clear();
        }
        let before = self.messages.len();
        while self.messages.front().is_some_and(|oldest| oldest.until <= now) {
            self.pop();
        }
        self.messages.len() < before
    }

    /// Forgets all messages. True if there were some.
    pub fn clear(&mut self) -> bool {
        let had_some = !self.messages.is_empty();
        while !self.messages.is_empty() {
            self.pop();
        }
        self.messages.shrink_to_fit();
        had_some
    }

    /// The lowest id that a message may have; those with lower ones are forgotten.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// True if there is no message.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The id of the newest message.
    pub fn last(&self) -> Option<u64> {
        self.messages.back().map(|message| message.id)
    }

    /// Memory in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A number that is another one after each change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The messages' objects, oldest first.
    pub fn messages(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.messages.iter().map(|message| &*message.json)
    }

    fn insert(&mut self, message: Message) -> bool {
        let cost = message.cost();
        let place = self.messages.partition_point(|other| other.id < message.id);
        let is_known = self.messages.get(place).is_some_and(|other| other.id == message.id);
        if cost > self.quota || message.id < self.first || is_known {
            return false;
        }
        self.version += 1;
        self.bytes += cost;
        self.messages.insert(place, message);
        while self.messages.len() > self.limits.messages || self.bytes > self.quota {
            self.pop();
        }
        true
    }

    fn pop(&mut self) {
        if let Some(oldest) = self.messages.pop_front() {
            self.version += 1;
            self.bytes -= oldest.cost();
            self.first = self.first.max(oldest.id + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HistoryLimits =
        HistoryLimits { is_on: true, messages: 3, age: Duration::from_secs(60), bytes: 1000, all_bytes: 0 };

    #[expect(clippy::disallowed_methods, reason = "an instant can only be had from the clock")]
    fn start() -> Instant {
        Instant::now()
    }

    fn texts(history: &ChatHistory) -> Vec<&str> {
        history.messages().collect()
    }

    #[test]
    fn oldest_messages_give_way() {
        let now = start();
        let mut history = ChatHistory::new(LIMITS);
        for (id, text) in [(1, "a"), (3, "c"), (2, "b"), (4, "d")] {
            assert!(history.push(now, id, text.into()));
        }
        assert_eq!(texts(&history), ["b", "c", "d"], "in the order of ids");
        assert!(!history.push(now, 1, "late".into()));
        let long = "x".repeat(800);
        assert!(history.push(now, 5, long.as_str().into()));
        assert_eq!(texts(&history), ["d", long.as_str()]);
        assert!(!history.push(now, 6, "x".repeat(1000).into()), "longer than all of the memory");
        assert_eq!(texts(&history).len(), 2);
    }

    #[test]
    fn old_messages_are_forgotten() {
        let now = start();
        let mut history = ChatHistory::new(LIMITS);
        history.push(now, 1, "a".into());
        history.push(now + Duration::from_secs(30), 2, "b".into());
        assert!(!history.expire(now + Duration::from_secs(59)));
        let version = history.version();
        assert!(history.expire(now + Duration::from_secs(60)));
        assert_ne!(history.version(), version);
        assert_eq!(texts(&history), ["b"]);
        assert!(history.clear() && !history.clear());
        assert_eq!(history.bytes(), 0);
    }

    #[test]
    fn history_that_is_off_remembers_nothing() {
        let now = start();
        let mut history = ChatHistory::new(LIMITS);
        history.push(now, 1, "a".into());
        assert!(history.set_on(false));
        assert!(!history.push(now, 2, "b".into()) && history.is_empty());
        assert!(!history.set_on(true));
        assert!(history.push(now, 3, "c".into()));
        let saved = [(1, r#"{"at":0}"#.into())];
        let mut off = ChatHistory::restore(HistoryLimits { is_on: false, ..LIMITS }, now, 0, &saved);
        assert!(off.expire(now) && off.is_empty(), "it was on before the restart");
    }

    #[test]
    fn exhausted_memory_lets_a_history_grow_no_further() {
        let now = start();
        let limits = HistoryLimits { messages: 100, bytes: 20_000, ..LIMITS };
        let mut history = ChatHistory::new(limits);
        for id in 0..50 {
            history.push(now, id, "x".repeat(100).into());
        }
        let bytes = history.bytes();
        history.set_exhausted(true);
        for id in 50..100 {
            assert!(history.push(now, id, "x".repeat(100).into()));
        }
        assert_eq!((history.bytes(), history.last()), (bytes, Some(99)));
        history.set_exhausted(false);
        history.push(now, 100, "x".repeat(100).into());
        assert!(history.bytes() > bytes);
    }

    #[test]
    fn restored_messages_keep_their_age() {
        let now = start();
        let saved = [(1, r#"{"at":1000}"#), (2, r#"{"at":41000}"#), (3, "{}"), (4, r#"{"at":99000}"#)];
        let saved = saved.map(|(id, json)| (id, json.into()));
        let mut history = ChatHistory::restore(LIMITS, now, 61_000, &saved);
        assert!(history.expire(now));
        assert_eq!(texts(&history), [r#"{"at":41000}"#, r#"{"at":99000}"#]);
        assert!(history.expire(now + Duration::from_secs(40)), "20 s of its minute were over");
        assert_eq!(history.last(), Some(4));
    }

    proptest! {
        #[test]
        fn limits_hold(steps in prop::collection::vec((0..40_u64, 0..600_usize, any::<bool>(), 0..30_u64), 1..60)) {
            let mut now = start();
            let mut history = ChatHistory::new(LIMITS);
            for (id, length, is_exhausted, wait) in steps {
                now += Duration::from_secs(wait);
                history.expire(now);
                history.set_exhausted(is_exhausted);
                history.push(now, id, "x".repeat(length).into());
                prop_assert!(history.messages().count() <= LIMITS.messages);
                prop_assert!(history.bytes() <= LIMITS.bytes);
                let sum: usize = history.messages().map(|json| json.len() + OVERHEAD_BYTES).sum();
                prop_assert_eq!(sum, history.bytes());
                prop_assert!(history.is_empty() || history.last() >= Some(history.first()));
            }
        }
    }
}
