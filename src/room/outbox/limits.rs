//! Limits of an outbox, and the standing of its member.

use std::time::Duration;

use crate::metrics::Metrics;

/// Limits of queued data.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Budget of one member's events in bytes. Above half of it the member must confirm some; the
    /// other half is for events that arrive while their senders are throttled.
    pub member_bytes: usize,
    /// Maximum size in bytes of everything queued, for all members of all rooms.
    pub all_bytes: usize,
    /// Timeout for a confirmation by a member over half of its budget.
    pub write_stall: Duration,
}

impl OutboxLimits {
    /// True if the queued bytes of the whole server exceed their limit.
    pub fn is_exhausted(&self, metrics: &Metrics) -> bool {
        usize::try_from(metrics.outbox_bytes.get()).is_ok_and(|bytes| bytes > self.all_bytes)
    }
}

/// The member confirmed nothing for too long, or the memory for slow members is exhausted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow;

/// A member's standing relative to its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// At most half of the budget is queued.
    KeepsUp,
    /// More than half is queued: its heavy senders are to be throttled.
    FallsBehind,
}
