//! A node that is cut off from the engine: its sockets see the last state, and are sent away if it lasts.

use std::time::{Duration, Instant};

use super::{Action, RoomReplica, Surroundings};
use crate::protocol::close::Close;

/// Time after which the sockets of a node that does not hear itself are sent to other nodes.
pub const SENT_AWAY_AFTER: Duration = Duration::from_secs(20);

/// An interruption of the way to the engine.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outage {
    since: Option<Instant>,
    /// The next time at which the last snapshot is shown again.
    repeat_at: Option<Instant>,
    is_sent_away: bool,
}

impl Outage {
    /// The time of the next thing to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let away = self.since.filter(|_| !self.is_sent_away).map(|since| since + SENT_AWAY_AFTER);
        [away, self.repeat_at].into_iter().flatten().min()
    }
}

impl RoomReplica {
    /// Shows sockets the last state again while the owner cannot be heard, so that they know their connection is good, and
    /// sends them away when it takes too long. The owner goes on with its own.
    pub(super) fn endure(&mut self, surroundings: Surroundings<'_>) {
        let now = surroundings.now;
        if !surroundings.membership.is_cut_off() {
            self.outage = Outage::default();
            return;
        }
        let tick = self.settings.tick;
        let since = *self.outage.since.get_or_insert(now);
        let repeat_at = self.outage.repeat_at.get_or_insert(now + tick);
        let is_due = *repeat_at <= now;
        if is_due {
            *repeat_at = now + tick;
        }
        if self.room().is_some() {
            return;
        }
        if is_due {
            self.actions.push(Action::RepeatSnapshot);
        }
        if since + SENT_AWAY_AFTER <= now && !self.outage.is_sent_away {
            self.outage.is_sent_away = true;
            self.actions.push(Action::SendAway(Close::ServiceRestart));
        }
    }
}
