//! The bandwidth of a subscriber's connection, by its receiver's reports (REMB).
//!
//! It serves subscribers that do not report each packet (TWCC), at no cost while nothing is short. A report
//! is no capacity: on a good connection it follows what is sent, half as much again at most. So it limits
//! nothing until the receiver reports less than it is sent and stays there.

use std::time::{Duration, Instant};

/// Time for which reports may be short of what is sent: a receiver takes a burst of jitter for congestion, and
/// its reports lag behind what begins.
const TOLERATED: Duration = Duration::from_secs(3);

/// Percent of the sent bits below which reports are tolerated for half the time.
const SEVERE_PERCENT: u64 = 70;

/// Percent of the sent bits from which on a report is not short.
const SHORT_PERCENT: u64 = 95;

/// Time between two raises of a limit. No report tells that there is room for more than is sent, so a limit
/// is raised until it is refuted; each raise that was refuted doubles the time.
const RAISE_EVERY: Duration = Duration::from_secs(5);

/// The longest time between two raises: each that fails delays audio for a moment.
const RAISE_EVERY_MAX: Duration = Duration::from_secs(80);

/// Time after a raise for which a new limit counts as its refutation.
const REFUTABLE: Duration = Duration::from_secs(30);

/// The limit that a receiver's reports put on what it is sent.
#[derive(Clone, Copy, Debug)]
pub struct RembLimit {
    limit: Option<u64>,
    /// Since when reports are short, and the one with which that began.
    short: Option<(Instant, u64)>,
    raised: Option<Instant>,
    next_raise: Option<Instant>,
    raise_every: Duration,
}

impl Default for RembLimit {
    fn default() -> Self {
        Self { limit: None, short: None, raised: None, next_raise: None, raise_every: RAISE_EVERY }
    }
}

impl RembLimit {
    /// The bits a second that may be sent; none where nothing is known to be short.
    pub fn bits(&self) -> Option<u64> {
        self.limit
    }

    /// Takes a report of a receiver that is sent `sent` bits a second, of which many are lost or not.
    pub fn report(&mut self, now: Instant, bits: u64, sent: u64, is_lossy: bool) {
        if bits >= percent(sent, SHORT_PERCENT) {
            self.short = None;
            self.limit = self.limit.map(|limit| limit.max(bits));
            return;
        }
        let (since, first) = *self.short.get_or_insert((now, bits));
        let tolerated = if bits < percent(sent, SEVERE_PERCENT) { TOLERATED / 2 } else { TOLERATED };
        let lasts = now.saturating_duration_since(since) >= tolerated;
        if is_lossy || lasts && bits <= percent(first, 110) {
            self.lower(now, bits);
        } else if lasts {
            // It rises: the receiver's estimate only lags behind what is sent.
            self.short = Some((now, bits));
        }
    }

    fn lower(&mut self, now: Instant, bits: u64) {
        let refutes = self.raised.take().is_some_and(|at| now.saturating_duration_since(at) < REFUTABLE);
        self.raise_every = if refutes {
            (self.raise_every * 2).min(RAISE_EVERY_MAX)
        } else {
            RAISE_EVERY.max(self.raise_every / 2)
        };
        self.next_raise = Some(now + self.raise_every);
        self.limit = Some(bits);
        self.short = None;
    }

    /// Raises the limit where that is due, up to the `wanted` bits, at which it ends.
    pub fn raise(&mut self, now: Instant, wanted: u64) {
        let Some(limit) = self.limit else { return };
        if limit >= wanted {
            self.limit = None;
        } else if self.next_raise.is_none_or(|at| now >= at) {
            self.limit = Some((limit + limit / 4).min(wanted));
            self.raised = Some(now);
            self.next_raise = Some(now + self.raise_every);
        }
    }
}

fn percent(bits: u64, percent: u64) -> u64 {
    bits / 100 * percent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test has to start at some time")]
    fn noon() -> Instant {
        Instant::now()
    }

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn good_connection_is_never_limited() {
        let (start, mut remb) = (noon(), RembLimit::default());
        // What is sent grows threefold at once, and reports follow by 2 % each.
        let mut reported = 140_000;
        for report in 0..300 {
            let sent = if report < 25 { 600_000 } else { 1_800_000 };
            remb.report(at(start, report * 200), reported, sent, false);
            assert_eq!(remb.bits(), None, "{report}");
            reported = (reported + reported / 50).min(sent * 3 / 2);
        }
    }

    #[test]
    fn moment_of_jitter_is_tolerated() {
        let (start, mut remb) = (noon(), RembLimit::default());
        let reports = [(0, 1_500_000), (1000, 850_000), (1200, 860_000), (2200, 930_000), (3200, 1_000_000)];
        for (ms, bits) in reports {
            remb.report(at(start, ms), bits, 1_000_000, false);
            assert_eq!(remb.bits(), None, "{ms}");
        }
    }

    #[test]
    fn shortage_limits_when_it_lasts_or_much_is_lost() {
        for (bits, is_lossy, after) in
            [(850_000, false, 3000), (500_000, false, 1500), (850_000, true, 0), (500_000, true, 0)]
        {
            let (start, mut remb) = (noon(), RembLimit::default());
            let limited = (0..=4000).step_by(250).find(|ms| {
                remb.report(at(start, *ms), bits, 1_000_000, is_lossy);
                remb.bits().is_some()
            });
            assert_eq!((limited, remb.bits()), (Some(after), Some(bits)));
        }
        let mut remb = RembLimit::default();
        remb.report(noon(), 1_000_000, 1_000_000, true);
        assert_eq!(remb.bits(), None, "loss alone is a bad radio link");
    }

    #[test]
    fn limit_is_raised_and_refuted_ever_more_rarely() {
        let (start, mut remb) = (noon(), RembLimit::default());
        remb.report(start, 600_000, 2_400_000, true);
        let mut refuted = Vec::new();
        for ms in (0..600_000).step_by(500) {
            let now = at(start, ms);
            remb.raise(now, 2_400_000);
            // The video is sent as soon as it fits, and the connection still takes 600 kbit/s.
            if remb.bits().is_none() {
                refuted.push(ms);
                remb.report(now, 600_000, 2_400_000, true);
            }
        }
        let apart: Vec<u64> = refuted.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(apart.len() >= 2 && apart.windows(2).all(|two| two[1] > two[0]), "{refuted:?}");
        assert!(refuted[0] >= 30_000, "{refuted:?}");
    }

    #[test]
    fn limit_ends_where_all_fits() {
        let (start, mut remb) = (noon(), RembLimit::default());
        remb.report(start, 600_000, 2_400_000, true);
        remb.report(at(start, 1000), 3_000_000, 600_000, false);
        remb.raise(at(start, 1500), 2_400_000);
        assert_eq!(remb.bits(), None);
    }
}
