//! Keyframes: detects the packet that starts one, and throttles requests for them.

use std::time::{Duration, Instant};

use str0m::format::{Codec, detect_av1_keyframe, detect_h266_keyframe, detect_vp8_keyframe};

/// Time after which an unanswered request is repeated while a subscriber waits for its first keyframe.
const WAITING: Duration = Duration::from_millis(300);

/// Least time between requests made because of packet loss. One receiver that cannot decode anything requests keyframes
/// all the time, and each keyframe costs all subscribers bandwidth.
const LOST: Duration = Duration::from_secs(1);

/// Time after a keyframe in which a loss report is taken to be older than that keyframe.
const FRESH: Duration = Duration::from_millis(300);

/// True if a packet is the first of a keyframe.
///
/// Audio and unknown codecs have no keyframes: a receiver can start with any packet.
///
/// str0m's functions for H.264 and H.265 detect the slices of a keyframe, later ones included, but not the parameter
/// sets, which browsers send before each keyframe and without which no receiver can decode it: a keyframe starts with
/// the first of these. The function for VP9 matches every packet of a keyframe, and of every spatial layer.
pub fn starts_keyframe(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        // The payload descriptor is readable even if the frame is encrypted end to end.
        Codec::Vp8 => detect_vp8_keyframe(payload),
        Codec::Vp9 => starts_vp9(payload),
        Codec::H264 => starts_h264(payload),
        Codec::H265 => starts_h265(payload),
        Codec::H266 => detect_h266_keyframe(payload),
        Codec::Av1 => detect_av1_keyframe(payload),
        _ => true,
    }
}

/// RFC 9628 section 4.2: not inter-predicted, the start of a frame, the lowest spatial layer.
fn starts_vp9(payload: &[u8]) -> bool {
    const PICTURE_ID: u8 = 0x80;
    const PREDICTED: u8 = 0x40;
    const LAYERS: u8 = 0x20;
    const BEGIN: u8 = 0x08;

    let Some((&first, rest)) = payload.split_first() else { return false };
    if first & PREDICTED != 0 || first & BEGIN == 0 {
        return false;
    }
    if first & LAYERS == 0 {
        return true;
    }
    let picture_id = match (first & PICTURE_ID, rest.first()) {
        (0, _) => 0,
        (_, Some(wide)) if wide & 0x80 != 0 => 2,
        _ => 1,
    };
    rest.get(picture_id).is_some_and(|indices| indices >> 1 & 0x07 == 0)
}

/// RFC 6184: a sequence parameter set (SPS).
fn starts_h264(payload: &[u8]) -> bool {
    const SEVERAL: u8 = 24;
    const FRAGMENT: u8 = 28;

    fn starts(header: u8) -> bool {
        header & 0x1f == 7
    }

    let Some((&header, rest)) = payload.split_first() else { return false };
    match header & 0x1f {
        SEVERAL => units(rest).any(|unit| unit.first().is_some_and(|header| starts(*header))),
        FRAGMENT => rest.first().is_some_and(|header| header & 0x80 != 0 && starts(*header)),
        _ => starts(header),
    }
}

/// RFC 7798: a video parameter set (VPS), which precedes the sequence parameter set.
fn starts_h265(payload: &[u8]) -> bool {
    const SEVERAL: u8 = 48;
    const FRAGMENT: u8 = 49;

    fn starts(kind: u8) -> bool {
        kind == 32
    }
    fn kind(header: u8) -> u8 {
        header >> 1 & 0x3f
    }

    let Some((&[header, _], rest)) = payload.split_first_chunk::<2>() else { return false };
    match kind(header) {
        SEVERAL => units(rest).any(|unit| unit.first().is_some_and(|header| starts(kind(*header)))),
        FRAGMENT => rest.first().is_some_and(|header| header & 0x80 != 0 && starts(header & 0x3f)),
        other => starts(other),
    }
}

/// NAL units of an aggregation packet, each preceded by its length. Stops at a truncated unit.
fn units(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (unit, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = after;
        Some(unit)
    })
}

/// Reason for a keyframe request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A subscriber shows no video until it gets a keyframe.
    Waiting,
    /// A decoder reports a loss.
    Lost,
}

/// Keyframe requests to the publisher of a layer, and keyframes received from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyframeThrottle {
    requested: Option<Instant>,
    came: Option<Instant>,
}

impl KeyframeThrottle {
    /// Returns true if a request is to be sent to the publisher now, and records it as sent.
    ///
    /// A throttled request is not remembered: a waiting subscriber requests again with the next packet, and a decoder
    /// that still lacks data reports again.
    pub fn ask(&mut self, now: Instant, why: Why) -> bool {
        let apart = match why {
            Why::Waiting => WAITING,
            Why::Lost if within(self.came, now, FRESH) => return false,
            Why::Lost => LOST,
        };
        if within(self.requested, now, apart) {
            return false;
        }
        self.requested = Some(now);
        true
    }

    /// Records a keyframe, which answers all earlier requests.
    pub fn came(&mut self, now: Instant) {
        self.came = Some(now);
    }
}

/// True if `at` is less than `long` before `now`.
fn within(at: Option<Instant>, now: Instant, long: Duration) -> bool {
    at.is_some_and(|at| now.saturating_duration_since(at) < long)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use str0m::format::detect_vp9_keyframe;

    use super::*;

    fn check(codec: Codec, cases: &[(&str, &[u8], bool)]) {
        for (what, payload, expected) in cases {
            assert_eq!(starts_keyframe(codec, payload), *expected, "{codec}: {what}");
        }
    }

    #[test]
    fn vp8_keyframe_start_is_detected() {
        check(
            Codec::Vp8,
            &[
                ("start, intra", &[0x10, 0x00], true),
                ("start, predicted", &[0x10, 0x01], false),
                ("not the start", &[0x00, 0x00], false),
                ("a later partition", &[0x11, 0x00], false),
                ("long PictureID, TL0PICIDX, TID; intra", &[0x90, 0xe0, 0x81, 0x02, 0x03, 0x00, 0x10], true),
                ("the same; predicted", &[0x90, 0xe0, 0x81, 0x02, 0x03, 0x00, 0x11], false),
                ("cut off", &[0x90, 0xe0, 0x81], false),
                ("nothing", &[], false),
            ],
        );
    }

    #[test]
    fn vp9_keyframe_start_is_detected() {
        check(
            Codec::Vp9,
            &[
                ("begin, no layers", &[0x08, 0x82], true),
                ("begin, PictureID, no layers", &[0x88, 0x01], true),
                ("predicted", &[0x48, 0x82], false),
                ("not the begin", &[0x00, 0x82], false),
                ("lowest layer, short PictureID", &[0xa8, 0x01, 0x00, 0x05], true),
                ("lowest layer, long PictureID", &[0xa8, 0x81, 0xff, 0x00, 0x05], true),
                ("lowest layer, another temporal one", &[0x28, 0x30], true),
                ("a higher layer, long PictureID", &[0xa8, 0x81, 0x00, 0x03, 0x05], false),
                ("a higher layer, no PictureID", &[0x28, 0x02], false),
                ("cut off", &[0xa8, 0x81, 0x00], false),
                ("nothing", &[], false),
            ],
        );
    }

    #[test]
    fn h264_keyframe_starts_with_its_sps() {
        check(
            Codec::H264,
            &[
                ("IDR, or a later slice of it", &[0x65, 0x88], false),
                ("SPS", &[0x67, 0x42], true),
                ("PPS", &[0x68, 0xce], false),
                ("a predicted slice", &[0x41, 0x9a], false),
                ("SPS and PPS together", &[0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce], true),
                ("PPS and IDR together", &[0x78, 0, 2, 0x68, 0xce, 0, 2, 0x65, 0x88], false),
                ("predicted slices together", &[0x78, 0, 1, 0x41, 0, 1, 0x41], false),
                ("together, cut off", &[0x78, 0, 9, 0x67], false),
                ("SPS, PPS and IDR together", &[0x78, 0, 1, 0x67, 0, 1, 0x68, 0, 1, 0x65], true),
                ("first fragment of IDR", &[0x7c, 0x85, 0x88], false),
                ("first fragment of SPS", &[0x7c, 0x87, 0x42], true),
                ("later fragment of IDR", &[0x7c, 0x05, 0x88], false),
                ("first fragment of a predicted slice", &[0x5c, 0x81, 0x9a], false),
                ("a fragment without its header", &[0x7c], false),
                ("nothing", &[], false),
            ],
        );
    }

    #[test]
    fn h265_keyframe_starts_with_its_vps() {
        check(
            Codec::H265,
            &[
                ("IDR", &[19 << 1, 1, 0xaf], false),
                ("CRA", &[21 << 1, 1, 0xaf], false),
                ("VPS", &[32 << 1, 1], true),
                ("SPS", &[33 << 1, 1], false),
                ("PPS", &[34 << 1, 1], false),
                ("a predicted slice", &[1 << 1, 1, 0xd0], false),
                ("a reserved kind after the last", &[22 << 1, 1], false),
                ("VPS together with others", &[48 << 1, 1, 0, 2, 34 << 1, 1, 0, 2, 32 << 1, 1], true),
                ("others together", &[48 << 1, 1, 0, 2, 34 << 1, 1, 0, 2, 1 << 1, 1], false),
                ("first fragment of IDR", &[49 << 1, 1, 0x80 | 19, 0xaf], false),
                ("first fragment of VPS", &[49 << 1, 1, 0x80 | 32, 0xaf], true),
                ("later fragment of IDR", &[49 << 1, 1, 19, 0xaf], false),
                ("one octet", &[19 << 1], false),
                ("nothing", &[], false),
            ],
        );
    }

    #[test]
    fn av1_keyframe_starts_with_a_new_sequence() {
        check(
            Codec::Av1,
            &[("new", &[0x18, 0x0a], true), ("not new", &[0x10, 0x32], false), ("nothing", &[], false)],
        );
    }

    #[test]
    fn audio_and_unknown_codecs_start_anywhere() {
        for codec in [Codec::Opus, Codec::PCMU, Codec::G722, Codec::Tele, Codec::Unknown, Codec::Null] {
            assert!(starts_keyframe(codec, &[]), "{codec}");
            assert!(starts_keyframe(codec, &[0x41]), "{codec}");
        }
    }

    const VIDEO: [Codec; 6] = [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::H265, Codec::H266, Codec::Av1];

    proptest! {
        #[test]
        fn arbitrary_payload_agrees_with_str0m(
            payload in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            for codec in VIDEO {
                starts_keyframe(codec, &payload);
            }
            prop_assert!(!starts_keyframe(Codec::Vp9, &payload) || detect_vp9_keyframe(&payload));
        }

        #[test]
        fn arbitrary_aggregation_packets_do_not_panic(
            units in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..6)), 0..6),
        ) {
            let kinds =
                [(Codec::H264, &[0x78][..]), (Codec::H265, &[48 << 1, 1]), (Codec::H266, &[0, 28 << 3])];
            for (codec, header) in kinds {
                let mut payload = header.to_vec();
                for (length, unit) in &units {
                    // A third of the lengths are wrong.
                    let length = if length % 3 == 0 { *length } else { unit.len() as u16 };
                    payload.extend(length.to_be_bytes());
                    payload.extend(unit);
                }
                starts_keyframe(codec, &payload);
            }
        }

        #[test]
        fn keyframe_requests_are_throttled(
            events in prop::collection::vec((0u64..400, 0u8..4), 1..200),
        ) {
            let mut throttle = KeyframeThrottle::default();
            let mut now = noon();
            let mut last: Option<Instant> = None;
            for (later, what) in events {
                now += Duration::from_millis(later);
                let (why, apart) = match what {
                    0 => { throttle.came(now); continue }
                    1 => (Why::Lost, LOST),
                    _ => (Why::Waiting, WAITING),
                };
                let due = last.is_none_or(|last| now - last >= apart);
                let requested = throttle.ask(now, why);
                prop_assert!(!requested || due, "no two requests are too close");
                prop_assert!(requested || !due || why == Why::Lost, "who waits is never put off for longer");
                if requested { last = Some(now) }
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test has to start at some time")]
    fn noon() -> Instant {
        Instant::now()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn waiting_request_repeats_every_300_ms() {
        let start = noon();
        let mut throttle = KeyframeThrottle::default();
        assert!(throttle.ask(start, Why::Waiting));
        assert!(!throttle.ask(start + ms(299), Why::Waiting));
        assert!(throttle.ask(start + ms(300), Why::Waiting));
        assert!(!throttle.ask(start + ms(301), Why::Waiting), "the second counts, too");
    }

    #[test]
    fn loss_requests_are_limited_to_one_a_second() {
        let start = noon();
        let mut throttle = KeyframeThrottle::default();
        let passed = (0..100).filter(|i| throttle.ask(start + ms(i * 50), Why::Lost)).count();
        assert_eq!(passed, 5, "in five seconds");
    }

    #[test]
    fn loss_request_right_after_keyframe_is_ignored() {
        let start = noon();
        let mut throttle = KeyframeThrottle::default();
        throttle.came(start);
        assert!(!throttle.ask(start + ms(299), Why::Lost));
        assert!(throttle.ask(start + ms(300), Why::Lost));

        let mut throttle = KeyframeThrottle::default();
        throttle.came(start);
        assert!(throttle.ask(start + ms(1), Why::Waiting), "who came after it waits for the next");
    }

    #[test]
    fn loss_request_does_not_delay_waiting_one() {
        let start = noon();
        let mut throttle = KeyframeThrottle::default();
        assert!(throttle.ask(start, Why::Lost));
        assert!(!throttle.ask(start + ms(100), Why::Waiting), "one is under way");
        assert!(throttle.ask(start + ms(300), Why::Waiting));
        assert!(!throttle.ask(start + ms(1200), Why::Lost));
        assert!(throttle.ask(start + ms(1300), Why::Lost));
    }
}
