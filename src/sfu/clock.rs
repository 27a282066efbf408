//! Capture time of each packet's media, on this server's clock.
//!
//! Subscribers synchronize a publisher's audio and video by the sender reports that they get. str0m derives those from
//! the last packet written and its time. The arrival time is unsuitable: a retransmitted packet arrives a round trip
//! late, and encoders delay audio and video differently. The publisher's own sender reports map RTP timestamps to its
//! wall clock (RFC 3550 section 6.4.1).

use std::time::{Duration, Instant, SystemTime};

/// Greatest plausible age of a capture time. Beyond it the publisher's clock was set, or its timestamps jumped.
const MAX_AGE: Duration = Duration::from_secs(10);

/// Difference in speed of two clocks that is compensated, in millionths; crystals differ by less.
const MAX_DRIFT_PPM: u32 = 100;

/// Reference point of two clocks: that of the packet with the shortest transit time.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    arrived: Instant,
}

impl Anchor {
    /// Our instant for `nanos` after the anchor on the other clock, as seen at `now`.
    fn at(self, nanos: i64, now: Instant) -> Option<Instant> {
        let leak = now.saturating_duration_since(self.arrived) * MAX_DRIFT_PPM / 1_000_000;
        shift(self.arrived, nanos)?.checked_add(leak)
    }
}

/// The wall clock of a publisher, shared by all of its streams.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublisherClock {
    anchor: Option<(SystemTime, Anchor)>,
}

impl PublisherClock {
    /// Our instant for the publisher's `time`; `None` if implausible for a packet that arrived at `now`.
    fn instant(&mut self, time: SystemTime, now: Instant) -> Option<Instant> {
        let (origin, anchor) = self.anchor?;
        let at = anchor.at(nanos_between(origin, time)?, now)?;
        if at < now {
            return Some(at).filter(|at| now.saturating_duration_since(*at) <= MAX_AGE);
        }
        // Its transit time was shorter than that of all packets before.
        self.anchor = Some((time, Anchor { arrived: now }));
        Some(now)
    }

    fn observe(&mut self, time: SystemTime, now: Instant) {
        if self.instant(time, now).is_none() {
            self.anchor = Some((time, Anchor { arrived: now }));
        }
    }
}

/// The RTP clock of one stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamClock {
    ssrc: Option<u32>,
    /// RTP timestamp of the last sender report, and the publisher's wall clock at that time.
    report: Option<(u32, SystemTime)>,
    /// RTP timestamp and arrival of a reference packet, used until there is a sender report.
    anchor: Option<(u32, Anchor)>,
}

impl StreamClock {
    /// Processes a sender report that arrived at `now`.
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

    /// Capture time of a packet that arrived at `now`; never later than `now`.
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

    /// A new SSRC has a new clock.
    fn follow(&mut self, ssrc: u32) {
        if self.ssrc != Some(ssrc) {
            *self = Self { ssrc: Some(ssrc), ..Self::default() };
        }
    }
}

/// Nanoseconds from `origin` to `timestamp`; negative if `timestamp` is the earlier one.
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

    /// The publisher's wall clock, years behind ours.
    fn wall(at: Duration) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1000) + at
    }

    #[test]
    fn late_packets_do_not_move_capture_times() {
        let start = noon();
        let (mut publisher, mut clock) = (PublisherClock::default(), StreamClock::default());
        for picture in 0..300_u64 {
            // Every tenth packet is retransmitted 250 ms later.
            let late = if picture % 10 == 9 { ms(250) } else { ms(0) };
            let sent = ms(picture * 33);
            let time = u32::MAX - 9_000;
            let time = time.wrapping_add(picture as u32 * 33 * 90);
            let at = clock.captured(&mut publisher, 1, time, 90_000, start + sent + late);
            assert!(at - (start + sent) < ms(2), "{picture}");
        }
    }

    #[test]
    fn sender_reports_synchronize_streams_of_a_publisher() {
        let start = noon();
        let mut publisher = PublisherClock::default();
        let (mut audio, mut video) = (StreamClock::default(), StreamClock::default());
        audio.report(&mut publisher, 1, 48_000, wall(ms(1000)), start + ms(1040));
        video.report(&mut publisher, 2, 180_000, wall(ms(1000)), start + ms(1050));
        // Both were captured at 2,000 ms; the video packet took 120 ms longer.
        let heard = audio.captured(&mut publisher, 1, 96_000, 48_000, start + ms(2045));
        let seen = video.captured(&mut publisher, 2, 270_000, 90_000, start + ms(2165));
        assert!(heard.max(seen) - heard.min(seen) < ms(1));
        assert!(heard <= start + ms(2045));
    }

    #[test]
    fn publisher_clock_jump_is_followed() {
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
    fn new_ssrc_has_new_clock() {
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
