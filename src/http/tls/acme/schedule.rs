//! PURE: times of renewals and retries.

use std::time::{Duration, SystemTime};

use crate::http::tls::pair::Validity;

/// Longest pause after a failed order, unless the authority requests more.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 60 * 60);

/// Longest pause that an authority can request.
pub const LONGEST_REQUESTED: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns the time of a renewal: a third of the validity is left for retries.
pub fn renewal_time(validity: &Validity) -> SystemTime {
    let whole = validity.until.duration_since(validity.from).unwrap_or_default();
    validity.until - whole / 3
}

/// Returns the pause after the `failures`th consecutive failure: it doubles from `first`.
pub fn pause(first: Duration, failures: u32, requested: Duration) -> Duration {
    let doubled = first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    doubled.min(LONGEST_PAUSE.max(first)).max(requested.min(LONGEST_REQUESTED))
}

/// Parses the pause of a `Retry-After` (RFC 9110 section 10.2.3): seconds, or until a date.
pub fn requested_pause(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let pause = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        value.parse().map_or(LONGEST_REQUESTED, Duration::from_secs)
    } else {
        httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(pause.min(LONGEST_REQUESTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    fn at(hours: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + HOUR * 500_000 + HOUR * hours
    }

    #[test]
    fn renewal_leaves_a_third_of_the_validity() {
        for (hours, renewal) in [(90 * 24, 60 * 24), (6 * 24, 4 * 24), (3, 2), (0, 0)] {
            assert_eq!(renewal_time(&Validity { from: at(0), until: at(hours) }), at(renewal));
        }
        assert_eq!(renewal_time(&Validity { from: at(9), until: at(3) }), at(3), "a nonsensical period");
    }

    #[test]
    fn pause_doubles_up_to_its_maximum() {
        let minute = Duration::from_secs(60);
        let pauses: Vec<_> =
            (1..=11).map(|failures| pause(minute, failures, Duration::ZERO).as_secs() / 60).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360]);
        assert_eq!(pause(minute, u32::MAX, Duration::ZERO), LONGEST_PAUSE);
        assert_eq!(pause(HOUR * 24, 3, Duration::ZERO), HOUR * 24, "never shorter than configured");
        assert_eq!(pause(minute, 1, HOUR), HOUR);
        assert_eq!(pause(minute, 1, Duration::MAX), LONGEST_REQUESTED);
    }

    #[test]
    fn requested_pause_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Fri, 27 Nov 2026 06:00:00 GMT").unwrap();
        assert_eq!(requested_pause(" 60 ", now), Some(Duration::from_secs(60)));
        assert_eq!(requested_pause("Fri, 27 Nov 2026 07:00:00 GMT", now), Some(HOUR));
        assert_eq!(requested_pause("Fri, 27 Nov 2026 05:00:00 GMT", now), Some(Duration::ZERO));
        for endless in ["18446744073709551615", "99999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            assert_eq!(requested_pause(endless, now), Some(LONGEST_REQUESTED), "{endless}");
        }
        assert_eq!(requested_pause("", now), None);
        assert_eq!(requested_pause("-1", now), None);
    }
}
