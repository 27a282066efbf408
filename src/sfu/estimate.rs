//! Bandwidth limit of a subscriber's connection, derived from its receiver's reports (REMB).
//!
//! For subscribers that do not send transport-wide feedback (TWCC). A REMB is not the capacity: on a good connection it
//! follows the sent bitrate, at most half above it. So nothing is limited until the receiver reports less than it is
//! sent, and keeps doing so.

use std::time::{Duration, Instant};

/// Time for which reports may be below the sent bitrate: a receiver takes a burst of jitter for congestion, and its
/// reports lag behind a stream that has just started.
const TOLERATED: Duration = Duration::from_secs(3);

/// Percentage of the sent bitrate below which a report is tolerated for only half of [`TOLERATED`].
const SEVERE_PERCENT: u64 = 70;

/// Percentage of the sent bitrate from which a report counts as sufficient.
const SHORT_PERCENT: u64 = 95;

/// Time between two raises of a limit. No report shows that a connection could take more than is sent, so a limit is
/// raised until a raise fails; each failed raise doubles the time.
const RAISE_EVERY: Duration = Duration::from_secs(5);

/// Longest time between two raises: each failed raise delays audio for a moment.
const RAISE_EVERY_MAX: Duration = Duration::from_secs(80);

/// Time after a raise for which a new limit counts as its failure.
const REFUTABLE: Duration = Duration::from_secs(30);

/// Limit on the bitrate sent to a receiver, derived from its reports.
#[derive(Clone, Copy, Debug)]
pub struct RembLimit {
    limit: Option<u64>,
    /// Start of the current series of short reports, and the first one's bits a second.
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
    /// Bits a second that may be sent; `None` means no limit.
    pub fn bits(&self) -> Option<u64> {
        self.limit
    }

    /// Processes a report of `bits` a second from a receiver that is sent `sent` bits a second. `is_lossy` is true
    /// if it lost many packets.
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
            // The reports rise: the receiver's estimate only lags behind the sent bitrate.
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

    /// Raises the limit if that is due; removes it once it reaches `wanted` bits a second.
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
        // The sent bitrate triples at once, and reports follow by 2 % each.
        let mut reported = 140_000;
        for report in 0..300 {
            let sent = if report < 25 { 600_000 } else { 1_800_000 };
            remb.report(at(start, report * 200), reported, sent, false);
            assert_eq!(remb.bits(), None, "{report}");
            reported = (reported + reported / 50).min(sent * 3 / 2);
        }
    }

    #[test]
    fn short_jitter_sets_no_limit() {
        let (start, mut remb) = (noon(), RembLimit::default());
        let reports = [(0, 1_500_000), (1000, 850_000), (1200, 860_000), (2200, 930_000), (3200, 1_000_000)];
        for (ms, bits) in reports {
            remb.report(at(start, ms), bits, 1_000_000, false);
            assert_eq!(remb.bits(), None, "{ms}");
        }
    }

    #[test]
    fn lasting_or_lossy_shortage_sets_limit() {
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
    fn failed_raises_become_rarer() {
        let (start, mut remb) = (noon(), RembLimit::default());
        remb.report(start, 600_000, 2_400_000, true);
        let mut refuted = Vec::new();
        for ms in (0..600_000).step_by(500) {
            let now = at(start, ms);
            remb.raise(now, 2_400_000);
            // The whole video is sent as soon as it fits, but the connection still takes only 600 kbit/s.
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
    fn limit_ends_once_everything_fits() {
        let (start, mut remb) = (noon(), RembLimit::default());
        remb.report(start, 600_000, 2_400_000, true);
        remb.report(at(start, 1000), 3_000_000, 600_000, false);
        remb.raise(at(start, 1500), 2_400_000);
        assert_eq!(remb.bits(), None);
    }
}
