//! The keep-alive of a transport whose clients may be silent: pings, and the end of a client that answers none.

use std::time::Duration;

use tokio::time::Instant;

/// Times of a keep-alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Time without any frame of the client after which it is sent a ping.
    pub ping_after: Duration,
    /// Time without any frame of the client after which its socket is closed.
    pub close_after: Duration,
}

/// The silence of one client, if its transport has a keep-alive.
#[derive(Debug)]
pub(super) struct Silence {
    times: Option<KeepAlive>,
    /// Time of the client's last frame.
    since: Instant,
    /// True if a ping was sent since then.
    is_pinged: bool,
}

/// Consequence of a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SilenceDue {
    Ping,
    Close,
}

impl Silence {
    pub(super) fn new(times: Option<KeepAlive>, now: Instant) -> Self {
        Self { times, since: now, is_pinged: false }
    }

    /// Records that a frame of the client arrived, or that the client could not be heard until now.
    pub(super) fn end(&mut self, now: impl FnOnce() -> Instant) {
        if self.times.is_some() {
            (self.since, self.is_pinged) = (now(), false);
        }
    }

    /// True if a pong of this payload answers the keep-alive's ping.
    pub(super) fn is_answered_by(&self, pong: &[u8]) -> bool {
        self.is_pinged && pong.is_empty()
    }

    /// Time of the next consequence.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let times = self.times?;
        Some(self.since + if self.is_pinged { times.close_after } else { times.ping_after })
    }

    /// Returns a consequence whose time has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<SilenceDue> {
        self.deadline().filter(|at| *at <= now)?;
        Some(if std::mem::replace(&mut self.is_pinged, true) { SilenceDue::Close } else { SilenceDue::Ping })
    }
}
