//! SHELL: daily removal of expired and excess data.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};
use tracing::error;

use crate::clock::{now, wall_clock};
use crate::store::reports::Reports;

/// Interval of the removal.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Pause after a failure of the store.
const AGAIN: Duration = Duration::from_secs(60 * 60);

/// Maximum forward step of the wall clock that is trusted.
const DOUBT: Duration = Duration::from_secs(60 * 60);

/// Retention times and the size limit.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Retention of reports and counts.
    pub reports: Duration,
    /// Maximum size of all reports in bytes.
    pub report_bytes: usize,
    /// Retention of an ended meeting's row.
    pub meetings: Duration,
}

/// Removes expired data, and the oldest reports above `report_bytes`: at once, and then daily.
///
/// After the clock was set forward nothing expires for a day: the data may be of yesterday. The operator has a
/// day to correct the clock.
pub async fn prune_regularly(reports: Reports, retention: Retention) {
    let mut before = Moment::now();
    loop {
        let moment = Moment::now();
        let has_leapt = moment.has_leapt_from(&before);
        if has_leapt {
            error!(event = "clockLeapt", "the clock was set forward; nothing is called too old for a day");
        }
        let oldest = |retained: Duration| {
            moment.wall.checked_sub(retained).filter(|_| !has_leapt).unwrap_or(SystemTime::UNIX_EPOCH)
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

/// A moment by the wall clock and the monotonic clock.
#[derive(Clone, Copy, Debug)]
struct Moment {
    wall: SystemTime,
    steady: Instant,
}

impl Moment {
    fn now() -> Self {
        Self { wall: wall_clock(), steady: now() }
    }

    /// True if the wall clock advanced much more since `before` than the monotonic clock.
    fn has_leapt_from(&self, before: &Self) -> bool {
        let by_wall = self.wall.duration_since(before.wall).unwrap_or_default();
        by_wall > self.steady.duration_since(before.steady) + DOUBT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_set_forward_is_distrusted() {
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
        // A clock that was set back expires nothing early.
        let back = Moment { wall: before.wall - DAY * 1000, ..hours(0, 24) };
        assert!(!back.has_leapt_from(&before));
    }
}
