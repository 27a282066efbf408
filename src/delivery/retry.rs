//! **Pure**: retry times of messages and pauses of their destination.

use std::time::{Duration, SystemTime};

use crate::store::deliveries::{DeliveryOutcome, LONGEST_WAIT};

/// Wait after the first failure, without jitter.
pub const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Maximum wait.
pub const LAST_WAIT: Duration = Duration::from_secs(60 * 60);

/// Age of a message at its last attempt.
pub const GIVE_UP_AFTER: Duration = LONGEST_WAIT;

/// Returns the wait after the `failures`th consecutive failure: it doubles from a second to an hour.
///
/// `chance`, from 0 to 1, spreads it over a range from the wait to twice the wait, and at the maximum over the
/// second half of the hour, so that messages that failed together are not retried together.
pub fn wait(failures: u32, chance: f64) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(failures.clamp(1, 20)));
    let longest = doubled.min(LAST_WAIT);
    let shortest = longest / 2;
    shortest + (longest - shortest).mul_f64(chance.clamp(0.0, 1.0))
}

/// Returns the outcome for a message that failed at `now`, for the `failures`th time.
///
/// `pause` is the one that the destination requires. The last attempt is made when the message is three days old,
/// or at the next opportunity after that.
pub fn after_failure(
    created: SystemTime,
    now: SystemTime,
    failures: u32,
    chance: f64,
    pause: Option<Duration>,
) -> DeliveryOutcome {
    let last = created + GIVE_UP_AFTER;
    if now >= last {
        return DeliveryOutcome::Dead;
    }
    let wait = wait(failures, chance);
    let until = now + wait.max(pause.unwrap_or_default());
    DeliveryOutcome::Postponed { until: until.min(last) }
}

/// Returns the wait requested by `Retry-After` (RFC 9110 section 10.2.3): seconds, or until a date.
///
/// It is limited to [`GIVE_UP_AFTER`]: after that nothing would be delivered any more.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        value.parse().map_or(GIVE_UP_AFTER, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(GIVE_UP_AFTER))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_780_000_000 + seconds)
    }

    #[test]
    fn waits_double_from_one_second_to_one_hour() {
        let shortest: Vec<_> = (1..=14).map(|failures| wait(failures, 0.0).as_secs()).collect();
        assert_eq!(shortest, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1800, 1800, 1800]);
        let longest: Vec<_> = (1..=14).map(|failures| wait(failures, 1.0).as_secs()).collect();
        assert_eq!(longest, [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600, 3600]);
        assert_eq!(wait(u32::MAX, 1.0), LAST_WAIT);
    }

    #[test]
    fn card_is_retried_for_three_days() {
        let until = |now, failures| after_failure(at(0), at(now), failures, 0.0, None);
        assert_eq!(until(10, 1), DeliveryOutcome::Postponed { until: at(11) });
        assert_eq!(until(259_199, 90), DeliveryOutcome::Postponed { until: at(259_200) });
        assert_eq!(until(259_200, 91), DeliveryOutcome::Dead);
        // The server was off for a week.
        assert_eq!(until(604_800, 1), DeliveryOutcome::Dead);
    }

    #[test]
    fn webhook_pause_is_respected_up_to_three_days() {
        let until = |pause| after_failure(at(0), at(0), 3, 0.0, Some(Duration::from_secs(pause)));
        assert_eq!(until(0), DeliveryOutcome::Postponed { until: at(4) });
        assert_eq!(until(4000), DeliveryOutcome::Postponed { until: at(4000) });
        assert_eq!(until(400_000), DeliveryOutcome::Postponed { until: at(259_200) });
    }

    #[test]
    fn retry_after_is_parsed_in_both_formats() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_700);
        for (value, wait) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(77)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Sat, 06 Nov 2094 08:00:00 GMT", Some(259_200)),
            ("99999999999999999999999", Some(259_200)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now), wait.map(Duration::from_secs), "{value}");
        }
    }

    proptest! {
        #[test]
        fn wait_is_between_one_second_and_one_hour(failures: u32, chance in -1.0..2.0) {
            prop_assert!((FIRST_WAIT..=LAST_WAIT).contains(&wait(failures, chance)));
        }

        #[test]
        fn arbitrary_retry_after_does_not_panic(value in ".{0,40}") {
            prop_assert!(retry_after(&value, at(0)).is_none_or(|wait| wait <= GIVE_UP_AFTER));
        }
    }
}
