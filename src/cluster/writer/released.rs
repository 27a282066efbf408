//! Entries that are shown before they are stored: for an owner who is alone with its clients while the engine is away.

use std::time::Instant;

use super::{Ask, JournalWriter, Stage};
use crate::entry::{Record, State};

/// Maximum number of entries that wait to be stored when further ones are shown, and of bytes of their lines. With more the
/// owner takes no further items, as soon as enough lines wait.
const MAX_UNSTORED: usize = 4096;
const MAX_UNSTORED_BYTES: usize = 2 << 20;

impl<S: State> JournalWriter<S> {
    /// True if entries may be shown that are not stored: not too many wait.
    pub fn can_release(&self) -> bool {
        !self.fenced && self.unstored.len() < MAX_UNSTORED && self.unstored_bytes < MAX_UNSTORED_BYTES
    }

    /// The time at which the lines that wait are written at the latest, if there are some.
    pub fn lines_due(&self) -> Option<Instant> {
        self.due
    }

    /// The entries that were not shown, with the one that the lines make whose time has come. They are stored in their order
    /// when the engine is back, under other numbers of it; if another node has claimed the subject meanwhile, they
    /// never are.
    pub fn release(&mut self, now: Instant) -> Vec<Record<S>> {
        if !self.can_release() {
            return Vec::new();
        }
        if self.due.is_some_and(|due| due <= now) {
            if self.unstored.is_empty() {
                self.stage = Stage::Due(Ask::Append);
            }
            self.begin();
        }
        let (sequence, from) = (self.sequence, self.unshown);
        self.unshown = self.next_number;
        let unshown = self.unstored.iter().filter(|entry| entry.epoch == self.epoch && entry.number >= from);
        let released = unshown.map(|entry| Record { sequence, expected: sequence, entry: entry.clone() });
        let released: Vec<Record<S>> = released.collect();
        self.has_released |= !released.is_empty();
        released
    }

    /// True if entries were shown that are not stored.
    pub fn has_released(&self) -> bool {
        self.has_released
    }
}
