//! Rooms that panic again and again. (**pure**)

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::id::RoomName;

/// Panics after which a room is ended, so that its members begin another meeting.
const ENDED_AFTER: u32 = 2;

/// Panics after which a room is not started: its journal itself makes this release fail.
const REFUSED_AFTER: u32 = 4;

/// Time after the last panic in which it counts.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Maximum number of rooms. More are not remembered.
const MAX_ROOMS: usize = 10_000;

/// The start of a room that may have panicked before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    /// It goes on as it was.
    Continue,
    /// Its journal is ended.
    End,
    /// It is not started for a while.
    Refuse,
}

/// The panics of rooms on this node.
#[derive(Debug, Default)]
pub(super) struct Panics {
    rooms: HashMap<RoomName, (u32, Instant)>,
}

impl Panics {
    /// Counts a panic.
    pub(super) fn count(&mut self, now: Instant, room: &RoomName) {
        self.rooms.retain(|_, (_, last)| now.saturating_duration_since(*last) < REMEMBERED);
        if self.rooms.len() < MAX_ROOMS || self.rooms.contains_key(room) {
            let (count, last) = self.rooms.entry(room.clone()).or_insert((0, now));
            (*count, *last) = (*count + 1, now);
        }
    }

    /// Decides about the start of a room.
    pub(super) fn restart(&self, now: Instant, room: &RoomName) -> Restart {
        let known = self.rooms.get(room);
        match known.filter(|(_, last)| now.saturating_duration_since(*last) < REMEMBERED) {
            Some((count, _)) if *count >= REFUSED_AFTER => Restart::Refuse,
            Some((count, _)) if *count >= ENDED_AFTER => Restart::End,
            _ => Restart::Continue,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an instant can only be had from the clock")]
    fn room_that_panics_again_is_ended_and_then_refused() {
        let (mut panics, start) = (Panics::default(), Instant::now());
        let [bad, good] = ["bad", "good"].map(|name| RoomName::parse(name).unwrap());
        let expected = [
            Restart::Continue,
            Restart::Continue,
            Restart::End,
            Restart::End,
            Restart::Refuse,
            Restart::Refuse,
        ];
        for (second, expected) in (0..).zip(expected) {
            let now = start + Duration::from_secs(second);
            assert_eq!(panics.restart(now, &bad), expected, "after {second} panics");
            panics.count(now, &bad);
        }
        assert_eq!(panics.restart(start, &good), Restart::Continue);
        let later = start + REMEMBERED + Duration::from_secs(10);
        assert_eq!(panics.restart(later, &bad), Restart::Continue);
        panics.count(later, &good);
        assert_eq!(panics.rooms.len(), 1, "what does not count is forgotten");
    }
}
