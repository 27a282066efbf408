//! The pause in reading a client whose messages other members are slow to take.

use std::time::Duration;

use tokio::time::Instant;

/// Maximum pause; then the next message is read all the same. A member that never confirms anything must not
/// block the messages of others.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The pause of one socket.
#[derive(Debug, Default)]
pub(super) struct RecipientPause {
    /// End of the pause, if there is one.
    until: Option<Instant>,
    /// True once a pause has reached its end: one message is read although others fall behind.
    is_next_allowed: bool,
}

/// Change of the pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PauseChange {
    /// It has begun.
    Begun,
    /// It is over: the others have caught up.
    Over,
}

impl RecipientPause {
    /// True if the next message is read although others fall behind.
    pub(super) fn allows_next(&self) -> bool {
        self.is_next_allowed
    }

    /// True while nothing is to be read.
    pub(super) fn is_active(&self) -> bool {
        self.until.is_some()
    }

    /// End of the pause.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// Begins or ends the pause as the others fall behind or have caught up.
    pub(super) fn update(&mut self, now: impl FnOnce() -> Instant, fall_behind: bool) -> Option<PauseChange> {
        match (fall_behind, self.until) {
            (true, None) => {
                self.until = Some(now() + LONGEST_PAUSE);
                Some(PauseChange::Begun)
            }
            (false, Some(_)) => {
                self.until = None;
                Some(PauseChange::Over)
            }
            (true, Some(_)) | (false, None) => None,
        }
    }

    /// Ends a pause whose end has come, and allows one message.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.until.take_if(|until| *until <= now).is_some() {
            self.is_next_allowed = true;
        }
    }

    /// Records that a message was read.
    pub(super) fn message_read(&mut self) {
        self.is_next_allowed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pause_ends_after_one_message_or_when_others_caught_up() {
        let start = crate::clock::now();
        let mut pause = RecipientPause::default();
        assert_eq!(pause.update(|| start, true), Some(PauseChange::Begun));
        assert_eq!(pause.update(|| start, true), None);
        assert_eq!(pause.update(|| start, false), Some(PauseChange::Over));
        assert_eq!(pause.update(|| start, true), Some(PauseChange::Begun));
        pause.expire(start + LONGEST_PAUSE / 2);
        assert!(pause.is_active());
        pause.expire(start + LONGEST_PAUSE);
        assert!(!pause.is_active() && pause.allows_next());
        pause.message_read();
        assert!(!pause.allows_next());
    }
}
