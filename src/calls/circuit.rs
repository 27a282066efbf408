//! The circuit breaker: while the media API is down, calls fail at once instead of piling up.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many failures in a row open the circuit.
const FAILURES: u32 = 5;

/// How long the circuit is open after the first of them; each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause: a call every ten seconds does no harm, and finds the API soon after it is back.
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// Counts failures in a row, and lets one call through after each pause to see whether it is over.
///
/// It is read on every call, so it is atomics and no lock; calls that race may count once too often.
#[derive(Debug)]
pub(super) struct Circuit {
    start: Instant,
    failures: AtomicU32,
    /// Milliseconds after `start` before which an open circuit lets nothing through.
    retry_at: AtomicU64,
}

/// The circuit is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Open;

impl Circuit {
    /// A closed circuit.
    pub(super) fn new(now: Instant) -> Self {
        Self { start: now, failures: AtomicU32::new(0), retry_at: AtomicU64::new(0) }
    }

    /// Asks whether a call may be tried.
    ///
    /// # Errors
    /// [`Open`] if it would very likely fail.
    pub(super) fn check(&self, now: Instant) -> Result<(), Open> {
        let failures = self.failures.load(Ordering::Acquire);
        if failures < FAILURES {
            return Ok(());
        }
        let retry_at = self.retry_at.load(Ordering::Acquire);
        let next = self.millis(now + pause(failures));
        // Of all who see that the pause is over, one wins and tries; the others wait for its result.
        let is_over = self.millis(now) >= retry_at;
        let won = is_over
            && self.retry_at.compare_exchange(retry_at, next, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if won { Ok(()) } else { Err(Open) }
    }

    /// The API answered, whatever it said.
    pub(super) fn succeeded(&self) {
        self.failures.store(0, Ordering::Release);
    }

    /// The call was not tried, or ended for a reason that is not the API's: another may try at once.
    pub(super) fn untried(&self, now: Instant) {
        if self.failures.load(Ordering::Acquire) >= FAILURES {
            self.retry_at.store(self.millis(now), Ordering::Release);
        }
    }

    /// The API could not be reached or did not answer. True if this opened the circuit.
    pub(super) fn failed(&self, now: Instant) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        self.retry_at.fetch_max(self.millis(now + pause(failures)), Ordering::AcqRel);
        failures == FAILURES
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(FAILURES).min(8);
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(LAST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "std offers no other first instant")]
    fn some_time() -> Instant {
        Instant::now()
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_by_one_success() {
        let start = some_time();
        let circuit = Circuit::new(start);
        for _ in 1..FAILURES {
            assert!(!circuit.failed(start));
        }
        circuit.succeeded();
        for _ in 1..FAILURES {
            assert!(!circuit.failed(start));
            assert_eq!(circuit.check(start), Ok(()));
        }
        assert!(circuit.failed(start), "the one that opens it says so");
        assert_eq!(circuit.check(start), Err(Open));

        let later = start + FIRST_PAUSE;
        assert_eq!(circuit.check(later), Ok(()), "one tries");
        assert_eq!(circuit.check(later), Err(Open), "and one only");
        circuit.succeeded();
        assert_eq!(circuit.check(later), Ok(()));
        assert_eq!(circuit.check(later), Ok(()));
    }

    #[test]
    fn the_pauses_grow_to_a_limit_while_it_stays_down() {
        let mut now = some_time();
        let circuit = Circuit::new(now);
        for _ in 0..FAILURES {
            circuit.failed(now);
        }
        for seconds in [1, 2, 4, 8, 10, 10] {
            assert_eq!(
                circuit.check(now + Duration::from_millis(seconds * 1000 - 1)),
                Err(Open),
                "{seconds}"
            );
            now += Duration::from_secs(seconds);
            assert_eq!(circuit.check(now), Ok(()), "{seconds}");
            assert!(!circuit.failed(now));
        }
    }

    #[test]
    fn a_trial_that_its_client_ends_is_followed_by_another_at_once() {
        let now = some_time();
        let circuit = Circuit::new(now);
        for _ in 0..FAILURES {
            circuit.failed(now);
        }
        let later = now + FIRST_PAUSE;
        assert_eq!(circuit.check(later), Ok(()));
        circuit.untried(later);
        assert_eq!(circuit.check(later), Ok(()));
        assert_eq!(circuit.check(later), Err(Open));
    }

    #[test]
    fn a_trial_that_never_ends_is_followed_by_another() {
        let now = some_time();
        let circuit = Circuit::new(now);
        for _ in 0..FAILURES {
            circuit.failed(now);
        }
        // Its client hung up, so nobody tells what became of it.
        assert_eq!(circuit.check(now + FIRST_PAUSE), Ok(()));
        assert_eq!(circuit.check(now + FIRST_PAUSE * 2), Ok(()));
    }
}
