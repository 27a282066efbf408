//! Capture times: when, on this server's clock, the media of a packet were captured.
//!
//! Subscribers play audio and video of one publisher in step by the sender reports that they get, which the
//! library makes of the last packet that was written and its time. A packet's arrival is no such time: one that
//! was retransmitted comes a round trip late, and encoders delay audio and video differently. The publisher's own
//! sender reports tell what was captured when on its clock (RFC 3550 section 6.4.1).

use std::time::{Duration, Instant, SystemTime};

/// Age of a capture time beyond which it is not believed: the publisher's clock was set, or its numbers jumped.
const MAX_AGE: Duration = Duration::from_secs(10);

/// The difference of two clocks' speeds that is followed, in millionths; crystals differ by less.
const MAX_DRIFT_PPM: u32 = 100;

/// A point that two clocks have in common: that of the packet that was under way for the shortest time.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    arrived: Instant,
}

impl Anchor {
    /// The instant that is `nanos` from the anchor on the other clock, as seen at `now`.
    fn at(self, nanos: i64, now: Instant) -> Option<Instant> {
        let leak = now.saturating_duration_since(self.arrived) * MAX_DRIFT_PPM / 1_000_000;
        shift(self.arrived, nanos)?.checked_add(leak)
    }
}

/// The wall clock of a publisher, which all of its streams share.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublisherClock {
    anchor: Option<(SystemTime, Anchor)>,
}

impl PublisherClock {
    /// Our instant for a time of the publisher's, none where it makes no sense of a packet that arrived at `now`.
    fn instant(&mut self, time: SystemTime, now: Instant) -> Option<Instant> {
        let (origin, anchor) = self.anchor?;
        let at = anchor.at(nanos_between(origin, time)?, now)?;
        if at < now {
            return Some(at).filter(|at| now.saturating_duration_since(*at) <= MAX_AGE);
        }
        // It was under way for less time than all before.
        self.anchor = Some((time, Anchor { arrived: now }));
        Some(now)
    }

    fn observe(&mut self, time: SystemTime, now: Instant) {
        if self.instant(time, now).is_none() {
            self.anchor = Some((time, Anchor { arrived: now }));
        }
    }
}

/// The clock of one stream, which counts in its packets' timestamps.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamClock {
    ssrc: Option<u32>,
    /// A timestamp, and what the publisher's wall clock showed then.
    report: Option<(u32, SystemTime)>,
    /// The same by arrival, while there is no report.
    anchor: Option<(u32, Anchor)>,
}

impl StreamClock {
    /// Takes a sender report that arrived at `now`.
    pub fn report(
        &mut self,
        publisher: &mut PublisherClock,
        ssrc: u32,
        timestamp: u32,
        time: SystemTime,
        now: Instant,
    ) {
        self.follow(ssrc);
        self.report = Some((timestamp, time));
        publisher.observe(time, now);
    }

    /// The capture time of a packet that arrived at `now`, which is never later.
    pub fn captured(
        &mut self,
        publisher: &mut PublisherClock,
        ssrc: u32,
        timestamp: u32,
        clock_hz: u32,
        now: Instant,
    ) -> Instant {
        self.follow(ssrc);
        let reported = self.report.and_then(|(origin, time)| {
            let time = shift_time(time, nanos_of(timestamp, origin, clock_hz))?;
            publisher.instant(time, now)
        });
        reported.unwrap_or_else(|| {
            let at = self
                .anchor
                .and_then(|(origin, anchor)| anchor.at(nanos_of(timestamp, origin, clock_hz), now));
            match at {
                Some(at) if at < now && now.saturating_duration_since(at) <= MAX_AGE => at,
                _ => {
                    self.anchor = Some((timestamp, Anchor { arrived: now }));
                    now
                }
            }
        })
    }

    /// Another source has another clock.
    fn follow(&mut self, ssrc: u32) {
        if self.ssrc != Some(ssrc) {
            *self = Self { ssrc: Some(ssrc), ..Self::default() };
        }
    }
}

/// The time from one timestamp to another, either of which may be the later one.
fn nanos_of(timestamp: u32, origin: u32, clock_hz: u32) -> i64 {
    let ticks = i64::from(timestamp.wrapping_sub(origin).cast_signed());
    ticks * 1_000_000_000 / i64::from(clock_hz.max(1))
}

fn nanos_between(from: SystemTime, to: SystemTime) -> Option<i64> {
    match to.duration_since(from) {
        Ok(later) => later.as_nanos().try_into().ok(),
        Err(earlier) => i64::try_from(earlier.duration().as_nanos()).ok().map(|nanos| -nanos),
    }
}

fn shift(at: Instant, nanos: i64) -> Option<Instant> {
    let by = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { at.checked_sub(by) } else { at.checked_add(by) }
}

fn shift_time(at: SystemTime, nanos: i64) -> Option<SystemTime> {
    let by = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { at.checked_sub(by) } else { at.checked_add(by) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
    fn noon() -> Instant {
        Instant::now() + Duration::from_secs(100_000)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The publisher's wall clock, which is years behind.
    fn wall(at: Duration) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1000) + at
    }

    #[test]
    fn late_packets_do_not_move_capture_times() {
        let start = noon();
        let (mut publisher, mut clock) = (PublisherClock::default(), StreamClock::default());
        for picture in 0..300_u64 {
            // Every tenth is retransmitted 250 ms later.
            let late = if picture % 10 == 9 { ms(250) } else { ms(0) };
            let sent = ms(picture * 33);
            let time = u32::MAX - 9_000;
            let time = time.wrapping_add(picture as u32 * 33 * 90);
            let at = clock.captured(&mut publisher, 1, time, 90_000, start + sent + late);
            assert!(at - (start + sent) < ms(2), "{picture}");
        }
    }

    #[test]
    fn reports_bring_streams_of_one_publisher_in_step() {
        let start = noon();
        let mut publisher = PublisherClock::default();
        let (mut audio, mut video) = (StreamClock::default(), StreamClock::default());
        audio.report(&mut publisher, 1, 48_000, wall(ms(1000)), start + ms(1040));
        video.report(&mut publisher, 2, 180_000, wall(ms(1000)), start + ms(1050));
        // Both were captured at 2,000 ms; the picture took 120 ms longer.
        let heard = audio.captured(&mut publisher, 1, 96_000, 48_000, start + ms(2045));
        let seen = video.captured(&mut publisher, 2, 270_000, 90_000, start + ms(2165));
        assert!(heard.max(seen) - heard.min(seen) < ms(1));
        assert!(heard <= start + ms(2045));
    }

    #[test]
    fn clock_that_was_set_is_followed() {
        let start = noon();
        for set in [wall(Duration::from_secs(90_000)), wall(ms(0)) - Duration::from_secs(500)] {
            let (mut publisher, mut clock) = (PublisherClock::default(), StreamClock::default());
            clock.report(&mut publisher, 1, 0, wall(ms(0)), start);
            clock.report(&mut publisher, 1, 90_000, set, start + ms(1000));
            let at = clock.captured(&mut publisher, 1, 90_000 + 9_000, 90_000, start + ms(1150));
            assert!(at - (start + ms(1100)) < ms(1), "{set:?}");
        }
    }

    #[test]
    fn another_source_has_another_clock() {
        let start = noon();
        let (mut publisher, mut clock) = (PublisherClock::default(), StreamClock::default());
        clock.report(&mut publisher, 1, 0, wall(ms(0)), start);
        assert_eq!(clock.captured(&mut publisher, 2, 2_000_000_000, 90_000, start + ms(5)), start + ms(5));
    }

    proptest! {
        #[test]
        fn capture_times_are_never_later_than_arrival(
            events in prop::collection::vec(
                (0..20_000_u64, any::<u32>(), any::<u32>(), 0..100_000_u32, any::<bool>()), 1..60),
        ) {
            let mut now = noon();
            let (mut publisher, mut clock) = (PublisherClock::default(), StreamClock::default());
            for (later, time, seconds, clock_hz, is_report) in events {
                now += ms(later);
                if is_report {
                    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into());
                    clock.report(&mut publisher, 1, time, wall, now);
                }
                let at = clock.captured(&mut publisher, 1, time, clock_hz, now);
                prop_assert!(at <= now && now - at <= MAX_AGE);
            }
        }
    }
}
