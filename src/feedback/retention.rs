//! SHELL: once a day, what is too old or too much is removed.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};
use tracing::error;

use crate::store::reports::Reports;

/// How often.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The wait after the store failed.
const AGAIN: Duration = Duration::from_secs(60 * 60);

/// How far the clock may be set forward without being doubted.
const DOUBT: Duration = Duration::from_secs(60 * 60);

/// Removes what is older than `retention`, and the oldest reports over `most_bytes`: now, and then
/// every day.
///
/// Nothing goes by a clock that was just set forward: what it calls old may be of yesterday. Whoever
/// looks after the machine has a day to set it right.
pub async fn keep_tidy(reports: Reports, retention: Duration, most_bytes: usize) {
    let mut before = Moment::now();
    loop {
        let moment = Moment::now();
        let oldest = if moment.has_leapt_from(&before) {
            error!(event = "clockLeapt", "the clock was set forward; no report is called too old for a day");
            SystemTime::UNIX_EPOCH
        } else {
            moment.wall.checked_sub(retention).unwrap_or(SystemTime::UNIX_EPOCH)
        };
        before = moment;
        let pause = match reports.expire(oldest, most_bytes).await {
            Ok(()) => DAY,
            Err(error) => {
                error!(event = "reportsNotTidied", %error, "it is tried again in an hour");
                AGAIN
            }
        };
        sleep(pause).await;
    }
}

/// A moment by the clock that can be set, and by the one that cannot.
#[derive(Clone, Copy, Debug)]
struct Moment {
    wall: SystemTime,
    steady: Instant,
}

impl Moment {
    #[expect(clippy::disallowed_methods, reason = "the task is a shell")]
    fn now() -> Self {
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }

    /// Whether the clock went much further since `before` than time did.
    fn has_leapt_from(&self, before: &Self) -> bool {
        let by_wall = self.wall.duration_since(before.wall).unwrap_or_default();
        by_wall > self.steady.duration_since(before.steady) + DOUBT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_that_is_set_forward_is_doubted() {
        let before = Moment::now();
        let hours = |wall: u32, steady: u32| Moment {
            wall: before.wall + AGAIN * wall,
            steady: before.steady + AGAIN * steady,
        };
        assert!(!hours(0, 0).has_leapt_from(&before));
        assert!(!hours(24, 24).has_leapt_from(&before));
        assert!(!hours(25, 24).has_leapt_from(&before));
        assert!(hours(26, 24).has_leapt_from(&before));
        assert!(hours(24 * 365, 24).has_leapt_from(&before));
        // Set back, nothing is older than it was.
        let back = Moment { wall: before.wall - DAY * 1000, ..hours(0, 24) };
        assert!(!back.has_leapt_from(&before));
    }
}
