//! Progress of writing to a socket, and the deadline of one that takes nothing.

use std::time::Duration;

use tokio::time::Instant;

/// Progress of writing to one socket.
#[derive(Debug)]
pub(super) struct WriteProgress {
    /// Bytes that the stream had taken at the last check; growth moves the deadline.
    written: u64,
    /// Deadline of the next progress; `None` while nothing waits to be written.
    deadline: Option<Instant>,
    /// Time without progress after which the socket is closed.
    timeout: Duration,
}

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    /// Bytes that the stream took since the last check.
    pub(super) written: u64,
    /// True if the deadline changed.
    pub(super) is_moved: bool,
}

impl WriteProgress {
    /// The progress of a socket to which nothing was written yet.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { written: 0, deadline: None, timeout }
    }

    /// Checks the progress, given all bytes that the stream has ever taken; moves the deadline if there was any.
    pub(super) fn check(
        &mut self,
        now: impl FnOnce() -> Instant,
        written: u64,
        wants_write: bool,
    ) -> Checked {
        let newly = written - self.written;
        self.written = written;
        let before = self.deadline;
        self.deadline = match before {
            _ if !wants_write => None,
            Some(at) if newly == 0 => Some(at),
            _ => Some(now() + self.timeout),
        };
        Checked { written: newly, is_moved: self.deadline != before }
    }

    /// Deadline of the next progress.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn deadline_moves_only_with_progress() {
        let timeout = Duration::from_secs(20);
        let mut progress = WriteProgress::new(timeout);
        let start = crate::clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(progress.check(|| at(0), 10, true), Checked { written: 10, is_moved: true });
        assert_eq!(progress.check(|| at(5), 10, true), Checked { written: 0, is_moved: false });
        assert_eq!(progress.deadline(), Some(at(20)));
        assert_eq!(progress.check(|| at(6), 15, true), Checked { written: 5, is_moved: true });
        assert_eq!(progress.deadline(), Some(at(26)));
        assert_eq!(progress.check(|| at(7), 20, false), Checked { written: 5, is_moved: true });
        assert_eq!(progress.deadline(), None);
    }
}
