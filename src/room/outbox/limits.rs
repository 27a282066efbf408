//! How much may wait, and who keeps up.

use std::time::Duration;

/// The limits of what waits.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// The bytes of events for one member. Half of them are for what arrives while its senders are held back:
    /// from there on it must confirm some.
    pub member_bytes: usize,
    /// The bytes of everything that waits, for all members of all rooms.
    pub all_bytes: usize,
    /// How long a member that is over its bytes may confirm nothing.
    pub write_stall: Duration,
}

/// The member has confirmed nothing for too long, or there is no memory left for who is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow;

/// Whether a member keeps up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Less than half of its bytes wait.
    KeepsUp,
    /// More: who sends much is to be held back.
    FallsBehind,
}
