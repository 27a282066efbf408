//! Circuit breaker: while the media API is down, calls fail at once instead of piling up.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Consecutive failures that open the circuit.
const FAILURES: u32 = 5;

/// Pause after the circuit opens; each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Maximum pause: one call every ten seconds is harmless, and detects soon that the API is back.
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// Counts consecutive failures, and lets one trial call through after each pause.
///
/// It is read on every call, so it uses atomics and no lock; racing calls may be counted once too often.
#[derive(Debug)]
pub(super) struct Circuit {
    start: Instant,
    failures: AtomicU32,
    /// Time of the next trial of an open circuit, in milliseconds after `start`.
    retry_at: AtomicU64,
}

/// Error: the circuit is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Open;

impl Circuit {
    /// Creates a closed circuit.
    pub(super) fn new(now: Instant) -> Self {
        Self { start: now, failures: AtomicU32::new(0), retry_at: AtomicU64::new(0) }
    }

    /// Checks that a call may be tried.
    ///
    /// # Errors
    /// [`Open`] after too many failures, until the next trial is due.
    pub(super) fn check(&self, now: Instant) -> Result<(), Open> {
        let failures = self.failures.load(Ordering::Acquire);
        if failures < FAILURES {
            return Ok(());
        }
        let retry_at = self.retry_at.load(Ordering::Acquire);
        let next = self.millis(now + pause(failures));
        // Of all callers after the pause one wins and tries; the others wait for its result.
        let is_over = self.millis(now) >= retry_at;
        let won = is_over
            && self.retry_at.compare_exchange(retry_at, next, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if won { Ok(()) } else { Err(Open) }
    }

    /// Records an answer of any status, closing the circuit.
    pub(super) fn succeeded(&self) {
        self.failures.store(0, Ordering::Release);
    }

    /// Records a call without an answer. True if this opened the circuit.
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
    fn circuit_opens_on_failures_and_closes_on_success() {
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
    fn pauses_double_up_to_the_maximum() {
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
    fn trial_without_result_is_repeated_after_pause() {
        let now = some_time();
        let circuit = Circuit::new(now);
        for _ in 0..FAILURES {
            circuit.failed(now);
        }
        // The client disconnected, so no result is recorded.
        assert_eq!(circuit.check(now + FIRST_PAUSE), Ok(()));
        assert_eq!(circuit.check(now + FIRST_PAUSE * 2), Ok(()));
    }
}
