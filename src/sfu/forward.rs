//! Rewrites sequence numbers and timestamps of packets for one subscriber's stream.
//!
//! A subscriber sees one continuous stream, whatever its sources: layers of a track, successive tracks on one
//! transceiver, a publisher that restarted. Gaps and reordering are kept, so that retransmitted packets fit in: within
//! one layer all sequence numbers are shifted by the same offset.

use std::time::{Duration, Instant};

use str0m::format::Codec;
use str0m::rtp::{Vp8Descriptor, Vp8Patch};

/// Greatest distance of a sequence number from the highest of its layer. Beyond it the source restarted.
const FAR: u64 = 10_000;

/// Time for which packets of a replaced source count as late ones.
const LATE: Duration = Duration::from_secs(2);

/// Largest timestamp step. From half of the range on, it would look like a step back.
const LONGEST_STEP: u128 = 1 << 30;

/// Masks of a VP8 PictureID: 15 bits and 7 bits.
const PICTURE_LONG: u16 = 0x7fff;
const PICTURE_SHORT: u16 = 0x7f;

/// A packet received from the publisher.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedPacket<'a> {
    /// Index of its layer.
    pub layer: usize,
    /// SSRC of its source.
    pub ssrc: u32,
    /// Its extended sequence number.
    pub seq: u64,
    /// Its RTP timestamp.
    pub time: u32,
    /// Its arrival time.
    pub arrived: Instant,
    /// Capture time of its media: see [`super::clock`].
    pub captured: Instant,
    /// Clock rate of its timestamp, in Hz.
    pub clock_hz: u32,
    /// Its codec.
    pub codec: Codec,
    /// Its payload.
    pub payload: &'a [u8],
    /// True if a receiver can start with it: see [`super::keyframe::starts_keyframe`].
    pub starts_keyframe: bool,
}

/// The rewritten header fields of a packet for the subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RewrittenPacket {
    /// Its extended sequence number.
    pub seq: u64,
    /// Its RTP timestamp.
    pub time: u32,
    /// Changes to the VP8 payload descriptor, if any.
    pub vp8_patch: Option<Vp8Patch>,
}

/// RTP rewriter of one subscriber's stream.
#[derive(Clone, Copy, Debug)]
pub struct RtpRewriter {
    /// The wanted layer.
    target: Option<usize>,
    /// The layer sent at present.
    stream: Option<LayerOffsets>,
    /// SSRC of the previous source, and the time of the change.
    left: Option<(u32, Instant)>,
    /// The next sequence number, one above the highest sent.
    next: u64,
    /// The latest timestamp sent, and its capture time.
    newest: Option<(u32, Instant)>,
    /// The latest PictureID sent.
    picture: Option<u16>,
    /// The latest TL0PICIDX sent.
    base_picture: Option<u8>,
}

/// Offsets of one layer's numbers, fixed at the keyframe with which it started.
#[derive(Clone, Copy, Debug)]
struct LayerOffsets {
    layer: usize,
    ssrc: u32,
    /// First sequence number, as received and as sent.
    came: u64,
    sent: u64,
    /// The highest sequence number received.
    highest: u64,
    time: u32,
    /// Offsets of PictureID and TL0PICIDX, set by the first packet that has them.
    picture: Option<u16>,
    base_picture: Option<u8>,
}

impl RtpRewriter {
    /// Creates a stream whose first packet has this sequence number.
    ///
    /// Its highest bit is cleared: str0m needs a first number below 65,536, and receivers take one close to that limit
    /// for a number from before the first.
    pub fn new(first_seq: u16) -> Self {
        Self {
            target: None,
            stream: None,
            left: None,
            next: u64::from(first_seq & 0x7fff),
            newest: None,
            picture: None,
            base_picture: None,
        }
    }

    /// Sets the wanted layer. The current one is sent until the wanted one has a keyframe; `None` pauses at once.
    pub fn aim(&mut self, layer: Option<usize>) {
        self.target = layer;
        if layer.is_none() {
            self.stream = None;
        }
    }

    /// The layer sent at present.
    pub fn current(&self) -> Option<usize> {
        self.stream.map(|stream| stream.layer)
    }

    /// The layer whose keyframe is awaited.
    pub fn waits_for(&self) -> Option<usize> {
        self.target.filter(|target| self.current() != Some(*target))
    }

    /// Ends the current source; the next packets are from another one with unrelated numbers.
    pub fn source_changed(&mut self) {
        self.stream = None;
    }

    /// Rewrites a packet; `None` if it is not for this subscriber.
    pub fn rewrite(&mut self, packet: &ReceivedPacket<'_>) -> Option<RewrittenPacket> {
        let is_late = |(ssrc, at): (u32, Instant)| {
            ssrc == packet.ssrc && packet.arrived.saturating_duration_since(at) < LATE
        };
        if self.left.is_some_and(is_late) {
            return None;
        }
        let current = self.stream.filter(|stream| stream.layer == packet.layer);
        if let Some(stream) = current {
            if stream.ssrc != packet.ssrc {
                // The numbers of the new source may be close to the old ones, but are unrelated.
                self.left = Some((stream.ssrc, packet.arrived));
                self.source_changed();
            } else if stream.is_far(packet) {
                self.source_changed();
            }
        }
        if packet.starts_keyframe && self.waits_for() == Some(packet.layer) {
            self.stream = Some(self.start(packet));
        }
        let stream = self.stream.as_mut().filter(|stream| stream.layer == packet.layer)?;
        // Packets from before the keyframe are dropped: their numbers are in use by the previous source.
        let seq = stream.sent + packet.seq.checked_sub(stream.came)?;
        stream.highest = stream.highest.max(packet.seq);
        self.next = self.next.max(seq + 1);

        let time = packet.time.wrapping_add(stream.time);
        if self.newest.is_none_or(|(newest, _)| is_after(time, newest)) {
            self.newest = Some((time, packet.captured));
        }
        let vp8_patch = if packet.codec == Codec::Vp8 { self.patch(packet.payload) } else { None };
        Some(RewrittenPacket { seq, time, vp8_patch })
    }

    /// Starts a layer right after the last number sent.
    fn start(&self, packet: &ReceivedPacket<'_>) -> LayerOffsets {
        // Timestamps of layers are unrelated; only the difference of capture times is comparable.
        let time = self.newest.map_or(0, |(newest, captured)| {
            let step = ticks(packet.captured.saturating_duration_since(captured), packet.clock_hz);
            newest.wrapping_add(step).wrapping_sub(packet.time)
        });
        LayerOffsets {
            layer: packet.layer,
            ssrc: packet.ssrc,
            came: packet.seq,
            sent: self.next,
            highest: packet.seq,
            time,
            picture: None,
            base_picture: None,
        }
    }

    /// Shifts the numbers of a VP8 payload descriptor (RFC 7741 section 4.2), if present.
    fn patch(&mut self, payload: &[u8]) -> Option<Vp8Patch> {
        let stream = self.stream.as_mut()?;
        let descriptor = Vp8Descriptor::parse(payload).ok()?;
        let mut patch = descriptor.patch();
        let mut moved = false;

        if let Some(came) = descriptor.picture_id() {
            // The PictureID follows two octets; its first bit is set if it has 15 bits.
            let long = payload.get(2).is_some_and(|octet| octet & 0x80 != 0);
            let bits = if long { PICTURE_LONG } else { PICTURE_SHORT };
            let last = self.picture;
            let offset = *stream
                .picture
                .get_or_insert_with(|| last.map_or(0, |last| last.wrapping_add(1).wrapping_sub(came)));
            let sent = came.wrapping_add(offset) & bits;
            let step = last.map_or(0, |last| sent.wrapping_sub(last) & bits);
            self.picture = match last {
                Some(last) if step > bits / 2 => Some(last),
                Some(last) => Some(last.wrapping_add(step) & PICTURE_LONG),
                None => Some(sent),
            };
            patch = patch.picture_id(sent);
            moved |= sent != came;
        }
        if let Some(came) = descriptor.tl0_pic_idx() {
            let last = self.base_picture;
            let offset = *stream
                .base_picture
                .get_or_insert_with(|| last.map_or(0, |last| last.wrapping_add(1).wrapping_sub(came)));
            let sent = came.wrapping_add(offset);
            if last.is_none_or(|last| sent.wrapping_sub(last) <= u8::MAX / 2) {
                self.base_picture = Some(sent);
            }
            patch = patch.tl0_pic_idx(sent);
            moved |= sent != came;
        }
        if moved { patch.build().ok() } else { None }
    }
}

impl LayerOffsets {
    /// True if the packet's sequence number is too far from the highest of its layer.
    fn is_far(&self, packet: &ReceivedPacket<'_>) -> bool {
        self.highest.abs_diff(packet.seq) > FAR
    }
}

/// Timestamp step for a duration; at least 1, since a new frame needs a new timestamp.
fn ticks(elapsed: Duration, clock_hz: u32) -> u32 {
    let ticks = elapsed.as_nanos().saturating_mul(u128::from(clock_hz)) / 1_000_000_000;
    u32::try_from(ticks.clamp(1, LONGEST_STEP)).unwrap_or(1)
}

/// True if `time` is later than `other`, with wrap-around (RFC 3550).
fn is_after(time: u32, other: u32) -> bool {
    time != other && time.wrapping_sub(other) < 1 << 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const AFTER: [u8; 2] = [0x10, 0x01];

    #[expect(clippy::disallowed_methods, reason = "a test has to start at some time")]
    fn noon() -> Instant {
        Instant::now()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A packet that does not start a keyframe.
    fn packet(layer: usize, seq: u64, time: u32, arrived: Instant) -> ReceivedPacket<'static> {
        let (codec, payload) = (Codec::H264, &AFTER[..]);
        let ssrc = 100 + layer as u32;
        ReceivedPacket {
            layer,
            ssrc,
            seq,
            time,
            arrived,
            captured: arrived,
            clock_hz: 90_000,
            codec,
            payload,
            starts_keyframe: false,
        }
    }

    fn key(layer: usize, seq: u64, time: u32, arrived: Instant) -> ReceivedPacket<'static> {
        ReceivedPacket { starts_keyframe: true, ..packet(layer, seq, time, arrived) }
    }

    /// Sequence number and timestamp that a packet is sent with.
    fn sent(forward: &mut RtpRewriter, packet: ReceivedPacket<'_>) -> Option<(u64, u32)> {
        forward.rewrite(&packet).map(|out| (out.seq, out.time))
    }

    fn started(first: u16, at: Instant) -> RtpRewriter {
        let mut forward = RtpRewriter::new(first);
        forward.aim(Some(0));
        assert!(forward.rewrite(&key(0, 1000, 5000, at)).is_some());
        forward
    }

    #[test]
    fn nothing_is_sent_before_wanted_keyframe() {
        let at = noon();
        let mut forward = RtpRewriter::new(700);
        assert_eq!(sent(&mut forward, key(0, 10, 90, at)), None, "nobody wants it");
        assert_eq!((forward.current(), forward.waits_for()), (None, None));

        forward.aim(Some(0));
        assert_eq!((forward.current(), forward.waits_for()), (None, Some(0)));
        assert_eq!(sent(&mut forward, packet(0, 11, 91, at)), None, "not a keyframe");
        assert_eq!(sent(&mut forward, key(1, 50, 60, at)), None, "another layer");
        assert_eq!(sent(&mut forward, key(0, 12, 92, at)), Some((700, 92)));
        assert_eq!((forward.current(), forward.waits_for()), (Some(0), None));
        assert_eq!(sent(&mut forward, packet(0, 11, 91, at)), None, "from before the keyframe");
        assert_eq!(sent(&mut forward, packet(0, 13, 92, at)), Some((701, 92)));
        assert_eq!(sent(&mut forward, packet(1, 51, 60, at)), None, "another layer");
    }

    #[test]
    fn first_number_is_below_half_of_the_range() {
        let at = noon();
        for (first, leaves) in [(0, 0), (32_767, 32_767), (32_768, 0), (65_535, 32_767)] {
            let mut forward = RtpRewriter::new(first);
            forward.aim(Some(0));
            assert_eq!(sent(&mut forward, key(0, 99, 1, at)), Some((leaves, 1)), "{first}");
        }
    }

    #[test]
    fn gaps_and_reordering_are_kept() {
        let at = noon();
        let mut forward = started(0, at);
        for seq in [1001, 1005, 1003, 1050, 1002, 1049] {
            assert_eq!(sent(&mut forward, packet(0, seq, 5000, at)), Some((seq - 1000, 5000)));
        }
    }

    #[test]
    fn layer_switch_is_seamless_at_a_keyframe() {
        let at = noon();
        let mut forward = started(0, at);
        forward.aim(Some(1));
        assert_eq!((forward.current(), forward.waits_for()), (Some(0), Some(1)));
        assert_eq!(sent(&mut forward, packet(1, 77, 100, at)), None, "not yet");
        assert_eq!(sent(&mut forward, packet(0, 1003, 8000, at + ms(30))), Some((3, 8000)), "still");

        // 70 ms after the newest frame arrived.
        assert_eq!(sent(&mut forward, key(1, 80, 3_000_000_000, at + ms(100))), Some((4, 8000 + 6300)));
        assert_eq!((forward.current(), forward.waits_for()), (Some(1), None));
        assert_eq!(sent(&mut forward, packet(0, 1002, 5000, at)), None, "late, of the layer before");
        assert_eq!(sent(&mut forward, packet(1, 79, 100, at)), None, "from before the keyframe");
        assert_eq!(
            sent(&mut forward, packet(1, 82, 3_000_003_000, at + ms(900))),
            Some((6, 8000 + 6300 + 3000)),
            "from then on the publisher's clock counts"
        );
    }

    #[test]
    fn cancelled_switch_changes_nothing() {
        let at = noon();
        let mut forward = started(0, at);
        forward.aim(Some(1));
        forward.aim(Some(0));
        assert_eq!(forward.waits_for(), None);
        assert_eq!(sent(&mut forward, key(1, 80, 3, at)), None);
        assert_eq!(sent(&mut forward, packet(0, 1001, 5001, at)), Some((1, 5001)));
    }

    #[test]
    fn timestamp_advances_even_without_elapsed_time() {
        let at = noon();
        let mut forward = started(0, at);
        for (layer, clock_hz) in [(1, 90_000), (2, 0)] {
            forward.aim(Some(layer));
            let (newest, arrived) = forward.newest.unwrap();
            let early = arrived.checked_sub(ms(5)).unwrap();
            let packet = ReceivedPacket { clock_hz, ..key(layer, 1, 0, early) };
            assert_eq!(sent(&mut forward, packet).unwrap().1, newest + 1);
        }
    }

    #[test]
    fn timestamp_never_steps_back_after_a_pause() {
        let at = noon();
        for hours in [1, 6, 7, 13, 14, 1000] {
            let mut forward = started(0, at);
            forward.aim(None);
            forward.aim(Some(0));
            let later = at + Duration::from_secs(hours * 3600);
            let (_, time) = sent(&mut forward, key(0, 5000, 1, later)).unwrap();
            assert!(is_after(time, 5000), "after {hours} h");
        }
    }

    #[test]
    fn pause_ends_at_a_keyframe() {
        let at = noon();
        let mut forward = started(10, at);
        forward.aim(None);
        assert_eq!((forward.current(), forward.waits_for()), (None, None));
        assert_eq!(sent(&mut forward, key(0, 1001, 5001, at)), None);
        forward.aim(Some(0));
        assert_eq!(forward.waits_for(), Some(0));
        assert_eq!(sent(&mut forward, packet(0, 1300, 6000, at)), None);
        assert_eq!(sent(&mut forward, key(0, 1400, 9000, at + ms(10))), Some((11, 5900)), "no gap");
    }

    #[test]
    fn new_source_continues_numbers() {
        let at = noon();
        let mut forward = started(10, at);
        assert_eq!(sent(&mut forward, packet(0, 1004, 6000, at)), Some((14, 6000)));
        forward.source_changed();
        assert_eq!((forward.current(), forward.waits_for()), (None, Some(0)));
        assert_eq!(sent(&mut forward, packet(0, 1005, 6000, at)), None);
        assert_eq!(sent(&mut forward, key(0, 3, 70, at + ms(1))), Some((15, 6090)));
    }

    #[test]
    fn restarted_source_is_a_new_source() {
        let at = noon();
        for seq in [1000 + FAR + 1, 60_000, u64::MAX] {
            let mut forward = started(0, at);
            assert_eq!(sent(&mut forward, packet(0, seq, 0, at)), None);
            assert_eq!(forward.waits_for(), Some(0));
            assert_eq!(sent(&mut forward, key(0, seq, 0, at)), Some((1, 5001)));
        }
        let mut forward = started(0, at);
        assert_eq!(sent(&mut forward, packet(0, 1000 + FAR, 0, at)), Some((FAR, 0)), "a long gap");
        assert_eq!(sent(&mut forward, packet(0, 1001, 5000, at)), Some((1, 5000)), "and late ones");
        assert_eq!(sent(&mut forward, key(0, 999, 5000, at)), Some((FAR + 1, 5001)), "too far back");
    }

    #[test]
    fn new_ssrc_with_near_numbers_is_a_new_source() {
        let at = noon();
        let mut forward = started(0, at);
        assert_eq!(sent(&mut forward, packet(0, 1001, 8000, at)), Some((1, 8000)));
        let other = |packet: ReceivedPacket<'static>| ReceivedPacket { ssrc: 7, ..packet };
        assert_eq!(sent(&mut forward, other(packet(0, 1002, 3, at))), None, "it waits for a keyframe");
        assert_eq!(forward.waits_for(), Some(0));
        assert_eq!(sent(&mut forward, key(0, 1003, 11_000, at)), None, "late, of the source before");
        assert_eq!(sent(&mut forward, other(key(0, 1003, 3000, at + ms(50)))), Some((2, 8000 + 4500)));
        assert_eq!(sent(&mut forward, packet(0, 1002, 8000, at + ms(60))), None, "late");
        assert_eq!(sent(&mut forward, other(packet(0, 1004, 3000, at + ms(60)))), Some((3, 8000 + 4500)));
        assert_eq!(sent(&mut forward, packet(0, 1005, 9000, at + LATE + ms(1))), None);
        assert_eq!(forward.waits_for(), Some(0), "one that comes back is another one again");
    }

    #[test]
    fn stray_number_of_another_layer_is_ignored() {
        let at = noon();
        let mut forward = started(0, at);
        assert_eq!(sent(&mut forward, key(1, 1_000_000, 0, at)), None);
        assert_eq!(sent(&mut forward, packet(0, 1001, 5001, at)), Some((1, 5001)));
    }

    #[test]
    fn sequence_numbers_wrap_around() {
        let at = noon();
        let mut forward = RtpRewriter::new(32_000);
        forward.aim(Some(0));
        let first = 65_536 * 3 - 500;
        let time = u32::MAX - 40_000;
        for i in 0..200_000_u32 {
            let packet =
                ReceivedPacket { starts_keyframe: true, ..packet(0, first + u64::from(i), time, at) };
            let time = time.wrapping_add(i * 960);
            let out = forward.rewrite(&ReceivedPacket { time, codec: Codec::Opus, ..packet });
            let seq = 32_000 + u64::from(i);
            assert_eq!(out, Some(RewrittenPacket { seq, time, vp8_patch: None }));
        }
    }

    /// A VP8 payload that starts a keyframe, with the given descriptor fields.
    fn vp8(picture: Option<(u16, bool)>, base: Option<u8>) -> Vec<u8> {
        let extension =
            if picture.is_some() { 0x80 } else { 0 } | if base.is_some() { 0x40 | 0x20 } else { 0 };
        let mut payload = vec![0x90, extension];
        match picture {
            Some((id, true)) => payload.extend((id | 0x8000).to_be_bytes()),
            Some((id, false)) => payload.push(id as u8),
            None => {}
        }
        if let Some(base) = base {
            payload.extend([base, 0]);
        }
        payload.extend([0x00, 0x55]);
        payload
    }

    /// A patch to these values.
    fn to(payload: &[u8], picture: Option<u16>, base: Option<u8>) -> Option<Vp8Patch> {
        let mut patch = Vp8Descriptor::parse(payload).unwrap().patch();
        if let Some(id) = picture {
            patch = patch.picture_id(id);
        }
        if let Some(base) = base {
            patch = patch.tl0_pic_idx(base);
        }
        Some(patch.build().unwrap())
    }

    fn patch(forward: &mut RtpRewriter, layer: usize, seq: u64, payload: &[u8]) -> Option<Vp8Patch> {
        let packet = ReceivedPacket { codec: Codec::Vp8, payload, ..key(layer, seq, 0, noon()) };
        forward.rewrite(&packet).expect("it goes out").vp8_patch
    }

    #[test]
    fn vp8_picture_ids_continue_across_a_switch() {
        for long in [true, false] {
            let (top, bits) = if long { (0x7ffe, PICTURE_LONG) } else { (0x7e, PICTURE_SHORT) };
            let mut forward = RtpRewriter::new(0);
            forward.aim(Some(0));
            assert_eq!(patch(&mut forward, 0, 1, &vp8(Some((top, long)), Some(254))), None, "as it is");
            assert_eq!(patch(&mut forward, 0, 2, &vp8(Some((top + 1, long)), Some(255))), None);
            assert_eq!(patch(&mut forward, 0, 3, &vp8(Some((0, long)), Some(0))), None, "it wraps");
            assert_eq!(patch(&mut forward, 0, 2, &vp8(Some((top + 1, long)), Some(255))), None, "late");

            forward.aim(Some(1));
            let first = vp8(Some((top, long)), Some(9));
            assert_eq!(patch(&mut forward, 1, 100, &first), to(&first, Some(1), Some(1)));
            assert_eq!(patch(&mut forward, 1, 101, &first), to(&first, Some(1), Some(1)), "same picture");
            let wraps = vp8(Some((1, long)), Some(10));
            assert_eq!(patch(&mut forward, 1, 102, &wraps), to(&wraps, Some(4), Some(2)));
            assert_eq!(patch(&mut forward, 1, 100, &first), to(&first, Some(1), Some(1)), "sent again");

            // Switching back continues after the newest numbers, regardless of late packets.
            forward.aim(Some(0));
            let back = vp8(Some((bits, long)), Some(0));
            assert_eq!(patch(&mut forward, 0, 50, &back), to(&back, Some(5), Some(3)));
        }
    }

    #[test]
    fn vp8_picture_ids_keep_their_width() {
        let mut forward = RtpRewriter::new(0);
        forward.aim(Some(0));
        assert_eq!(patch(&mut forward, 0, 1, &vp8(Some((0x1234, true)), None)), None);
        forward.aim(Some(1));
        let short = vp8(Some((3, false)), None);
        assert_eq!(patch(&mut forward, 1, 1, &short), to(&short, Some(0x35), None));
        forward.aim(Some(0));
        let long = vp8(Some((7, true)), None);
        assert_eq!(patch(&mut forward, 0, 2, &long), to(&long, Some(0x1236), None));
    }

    #[test]
    fn vp8_without_picture_ids_is_unchanged() {
        let mut forward = RtpRewriter::new(0);
        forward.aim(Some(0));
        patch(&mut forward, 0, 1, &vp8(Some((500, true)), Some(7)));
        forward.aim(Some(1));
        for payload in [&vp8(None, None)[..], &[0x10, 0x00], &[]] {
            assert_eq!(patch(&mut forward, 1, 1, payload), None);
        }
        let base = vp8(None, Some(200));
        assert_eq!(patch(&mut forward, 1, 2, &base), to(&base, None, Some(8)));
    }

    #[derive(Clone, Debug)]
    enum Event {
        Packet { layer: usize, back: u64, skip: u64, later: u64, key: bool },
        Aim(Option<usize>),
        Changed,
        Restart { layer: usize, seq: u64, time: u32 },
    }

    fn event() -> impl Strategy<Value = Event> {
        let packet = (0..3_usize, 0..12_u64, 1..5_u64, 0..80_u64, prop::bool::weighted(0.15));
        let packet = packet.prop_map(|(layer, back, skip, later, key)| {
            // Most packets come in order.
            let back = back.saturating_sub(8);
            Event::Packet { layer, back, skip: if skip == 4 { 3 } else { 1 }, later, key }
        });
        prop_oneof![
            40 => packet,
            2 => prop::option::weighted(0.8, 0..3_usize).prop_map(Event::Aim),
            1 => Just(Event::Changed),
            1 => (0..3_usize, 1_000..400_000_u64, any::<u32>())
                .prop_map(|(layer, seq, time)| Event::Restart { layer, seq, time }),
        ]
    }

    proptest! {
        /// Checks the output: while the offset of a layer's sequence numbers is constant, gaps are kept. Where the
        /// offset changes, all numbers must be continuous.
        #[test]
        fn output_is_one_continuous_stream(
            events in prop::collection::vec(event(), 1..400),
            first in 0..32_768_u16,
        ) {
            let mut forward = RtpRewriter::new(first);
            forward.aim(Some(0));
            let mut now = noon();
            let mut layers = [(5_000_u64, 0_u32), (70_000, 4_000_000_000), (200, 12)];
            // The packet sent under each sequence number.
            let mut out: HashMap<u64, (usize, u64)> = HashMap::new();
            let mut run: Option<(usize, u64, u64, u32)> = None;
            let mut next = u64::from(first);
            let mut newest: Option<u32> = None;

            for event in events {
                let packet = match event {
                    Event::Aim(layer) => {
                        forward.aim(layer);
                        if layer.is_none() { run = None }
                        continue;
                    }
                    Event::Changed => { forward.source_changed(); run = None; continue }
                    Event::Restart { layer, seq, time } => { layers[layer] = (seq, time); continue }
                    Event::Packet { layer, back, skip, later, key } => {
                        now += ms(later);
                        let (seq, time) = &mut layers[layer];
                        if back == 0 {
                            *seq += skip;
                            *time = time.wrapping_add(later as u32 * 90);
                        }
                        let starts_keyframe = key && back == 0;
                        ReceivedPacket { starts_keyframe, ..packet(layer, *seq - back, *time, now) }
                    }
                };
                let Some(sent) = forward.rewrite(&packet) else { continue };
                prop_assert_eq!(forward.current(), Some(packet.layer));
                let time_offset = sent.time.wrapping_sub(packet.time);
                let in_run = run.is_some_and(|(layer, came, sent_first, offset)| {
                    layer == packet.layer
                        && packet.seq >= came
                        && sent.seq - sent_first == packet.seq - came
                        && offset == time_offset
                });
                if in_run {
                    if let Some(before) = out.insert(sent.seq, (packet.layer, packet.seq)) {
                        prop_assert_eq!(before, (packet.layer, packet.seq), "one number, two packets");
                    }
                } else {
                    prop_assert!(packet.starts_keyframe, "a seam without a keyframe");
                    prop_assert_eq!(sent.seq, next, "a seam with a gap");
                    prop_assert!(newest.is_none_or(|newest| is_after(sent.time, newest)), "a step back");
                    prop_assert!(out.insert(sent.seq, (packet.layer, packet.seq)).is_none());
                    run = Some((packet.layer, packet.seq, sent.seq, time_offset));
                }
                next = next.max(sent.seq + 1);
                if newest.is_none_or(|newest| is_after(sent.time, newest)) { newest = Some(sent.time) }
            }
        }

        #[test]
        fn arbitrary_packets_do_not_panic(
            packets in prop::collection::vec(
                (0..3_usize, any::<u64>(), any::<u32>(), any::<u32>(), any::<bool>(),
                 prop::collection::vec(any::<u8>(), 0..10), prop::option::of(0..3_usize), 0..u32::MAX as u64),
                1..60,
            ),
            first: u16,
        ) {
            let mut forward = RtpRewriter::new(first);
            let start = noon();
            let mut last = 0;
            for (layer, seq, time, clock_hz, key, payload, aim, at) in packets {
                forward.aim(aim.or(forward.target));
                let incoming = ReceivedPacket {
                    seq: if key { seq } else { last },
                    clock_hz,
                    starts_keyframe: key,
                    codec: Codec::Vp8,
                    payload: &payload,
                    ..packet(layer, 0, time, start + ms(at))
                };
                last = incoming.seq.wrapping_add(1);
                forward.rewrite(&incoming);
            }
        }
    }
}
