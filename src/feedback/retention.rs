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

/// How long, and how much, is kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// How long reports and counts are kept.
    pub reports: Duration,
    /// The most bytes of all reports.
    pub report_bytes: usize,
    /// How long the row of an ended meeting is kept.
    pub meetings: Duration,
}

/// Removes what is older than its retention, and the oldest reports over `report_bytes`: now, and then
/// every day.
///
/// Nothing goes by a clock that was just set forward: what it calls old may be of yesterday. Whoever
/// looks after the machine has a day to set it right.
pub async fn prune_regularly(reports: Reports, retention: Retention) {
    let mut before = Moment::now();
    loop {
        let moment = Moment::now();
        let has_leapt = moment.has_leapt_from(&before);
        if has_leapt {
            error!(event = "clockLeapt", "the clock was set forward; nothing is called too old for a day");
        }
        let oldest = |kept: Duration| {
            moment.wall.checked_sub(kept).filter(|_| !has_leapt).unwrap_or(SystemTime::UNIX_EPOCH)
        };
        before = moment;
        let tidied = async {
            reports.expire(oldest(retention.reports), retention.report_bytes).await?;
            reports.expire_meetings(oldest(retention.meetings)).await
        };
        let pause = match tidied.await {
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
