//! Schedules of a member's repeated actions.

use std::time::{Duration, Instant};

/// Moments that are a period apart.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    next: Instant,
    period: Duration,
}

impl Schedule {
    /// Moments every `period`, the first one `phase` (0 to 1) of a period after `start`.
    ///
    /// With phases by chance, many members' moments are spread evenly.
    pub fn new(start: Instant, period: Duration, phase: f64) -> Self {
        Self { next: start + period.mul_f64(phase.clamp(0.0, 1.0)), period }
    }

    /// The next moment.
    pub fn due(&self) -> Instant {
        self.next
    }

    /// Takes the next moment if it has come, and tells how late it is.
    ///
    /// None is left out: whoever was held up does everything late, so that the load stays what was asked.
    pub fn take(&mut self, now: Instant) -> Option<Duration> {
        let late = now.checked_duration_since(self.next)?;
        self.next += self.period;
        Some(late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test begins at some instant")]
    fn start() -> Instant {
        Instant::now()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn moments_come_at_their_times_and_none_is_left_out() {
        let start = start();
        let mut schedule = Schedule::new(start, SECOND, 0.25);
        assert_eq!(schedule.due(), start + SECOND / 4);
        assert_eq!(schedule.take(start), None);
        assert_eq!(schedule.take(start + SECOND / 4), Some(Duration::ZERO));
        let much_later = start + SECOND * 3;
        let late: Vec<_> = std::iter::from_fn(|| schedule.take(much_later)).collect();
        assert_eq!(late, [SECOND * 7 / 4, SECOND * 3 / 4], "1.25 and 2.25 were to come before 3");
        assert_eq!(schedule.due(), start + SECOND * 13 / 4);
    }

    #[test]
    fn phases_spread_the_members_over_a_period() {
        let start = start();
        let mut tenths = [0; 10];
        for member in 0..1000 {
            let schedule = Schedule::new(start, SECOND, f64::from(member) / 1000.0);
            let after = schedule.due() - start;
            tenths[(after.as_millis() / 100) as usize] += 1;
        }
        assert_eq!(tenths, [100; 10]);
    }
}
