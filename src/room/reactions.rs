//! Reactions: emoji that members show for a moment, sent to all together and at most twice a second.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::id::UserId;
use crate::protocol::activity::{ActivityNotice, Reaction};
use crate::protocol::emoji::Emoji;

/// Shortest time between two messages about reactions.
const WINDOW: Duration = Duration::from_millis(500);

/// The reactions that are not sent yet: of each member the newest, so that a flood of one is a single one.
#[derive(Debug)]
pub struct Reactions {
    pending: BTreeMap<UserId, Emoji>,
    /// Earliest time of the next message.
    next: Instant,
}

impl Reactions {
    /// No reactions.
    pub fn new(now: Instant) -> Self {
        Self { pending: BTreeMap::new(), next: now }
    }

    /// Adds a member's reaction, in place of one that is not sent yet.
    pub fn add(&mut self, user: UserId, emoji: Emoji) {
        self.pending.insert(user, emoji);
    }

    /// Forgets a member's reaction.
    pub fn forget(&mut self, user: &UserId) {
        self.pending.remove(user);
    }

    /// Forgets all reactions.
    pub fn clear(&mut self) {
        self.pending.clear();
    }

    /// The time of the next message, if there is something to send.
    pub fn due(&self) -> Option<Instant> {
        (!self.pending.is_empty()).then_some(self.next)
    }

    /// The message that is due, if one is.
    pub fn take(&mut self, now: Instant) -> Option<ActivityNotice> {
        self.due().filter(|due| *due <= now)?;
        self.next = now + WINDOW;
        let all = std::mem::take(&mut self.pending).into_iter();
        Some(ActivityNotice::Reactions { reactions: all.map(|(id, emoji)| Reaction { id, emoji }).collect() })
    }
}
