//! Forwards a publisher's packets to its subscribers, and their keyframe requests back to it.

use std::time::Instant;

use str0m::format::PayloadParams;
use str0m::media::{KeyframeRequestKind, MediaKind, Mid, Pt, Rid, SenderFeedback};
use str0m::rtp::{RtpPacket, RtpWrite};

use super::peer::keep_for_retransmission;
use super::session::{Session, Subscription, SubscriptionState};
use super::{Engine, SessionKey, TrackKey};
use crate::clock::StreamClock;
use crate::counters::DropReason;
use crate::forward::ReceivedPacket;
use crate::keyframe::{KeyframeThrottle, Why, starts_keyframe};
use crate::layers::Layers;
use crate::request::TrackKind;

/// Maximum number of SSRCs remembered per session.
const MAX_STREAMS: usize = 1024;

/// A published track.
pub(super) struct Track {
    pub(super) publisher: SessionKey,
    pub(super) name: String,
    pub(super) mid: Mid,
    pub(super) kind: TrackKind,
    pub(super) published: Instant,
    pub(super) layers: Layers,
    /// Keyframe requests of each layer.
    asking: Vec<KeyframeThrottle>,
    /// Capture clock of each layer.
    pub(super) clocks: Vec<StreamClock>,
    /// Sessions that subscribe to the track, with the mid of the subscription.
    pub(super) subscribers: Vec<(SessionKey, Mid)>,
    /// The payload type in the answer to the publisher; none if the publisher chooses among several.
    pub(super) answered: Option<Pt>,
    /// The publisher's payload types that were seen, with their formats.
    formats: Vec<(Pt, PayloadParams)>,
}

impl Track {
    pub(super) fn new(
        publisher: SessionKey,
        name: String,
        mid: Mid,
        kind: TrackKind,
        rids: Vec<Option<String>>,
        now: Instant,
    ) -> Self {
        let asking = rids.iter().map(|_| KeyframeThrottle::default()).collect();
        let clocks = vec![StreamClock::default(); rids.len()];
        Self {
            publisher,
            name,
            mid,
            kind,
            published: now,
            layers: Layers::new(rids),
            asking,
            clocks,
            subscribers: Vec::new(),
            answered: None,
            formats: Vec::new(),
        }
    }

    /// The name of the codec that was seen last.
    pub(super) fn codec(&self) -> Option<String> {
        self.formats.last().map(|(_, params)| params.spec().codec.to_string())
    }
}

/// Maximum size of a forwarded payload, that of an Ethernet frame. str0m reserves 2,000 bytes for a packet including
/// the header that it adds, and panics in the subscriber's session if that is exceeded.
const MAX_PAYLOAD_BYTES: usize = 1500;

impl Engine {
    /// Forwards one packet to all subscribers of its track.
    pub(super) fn forward(&mut self, now: Instant, from: SessionKey, packet: RtpPacket) {
        if packet.payload.len() > MAX_PAYLOAD_BYTES {
            self.counters.dropped(DropReason::TooLong);
            return;
        }
        let Some((key, layer)) = self.track_of(from, &packet) else {
            self.counters.dropped(DropReason::UnknownStream);
            return;
        };
        let payload_type = packet.header.payload_type;
        let Some(format) = self.format(key, from, payload_type) else {
            self.counters.dropped(DropReason::NoCodec);
            return;
        };
        let (Some(track), Some(publisher)) = (self.tracks.get_mut(key), self.sessions.get_mut(from)) else {
            return;
        };
        let was_live = track.layers.is_live(layer, now);
        track.layers.saw(layer, now, packet.payload.len());
        let is_video = track.kind == TrackKind::Video;
        let codec = format.spec().codec;
        let (ssrc, time, arrived) = (*packet.header.ssrc, packet.header.timestamp, packet.timestamp);
        let clock_hz = format.spec().clock_rate.get();
        let captured = track.clocks[layer].captured(&mut publisher.clock, ssrc, time, clock_hz, arrived);
        let incoming = ReceivedPacket {
            layer,
            ssrc,
            seq: *packet.seq_no,
            time,
            arrived,
            captured,
            clock_hz,
            codec,
            payload: &packet.payload,
            starts_keyframe: !is_video || starts_keyframe(codec, &packet.payload),
        };
        if is_video && incoming.starts_keyframe {
            track.asking[layer].came(now);
        }
        // Taken out so that `self` can be borrowed.
        let subscribers = std::mem::take(&mut track.subscribers);
        let mut somebody_waits = false;
        for (subscriber, mid) in &subscribers {
            somebody_waits |= self.forward_to(now, *subscriber, *mid, &incoming, &packet, format);
        }
        if !was_live {
            for (subscriber, _) in &subscribers {
                self.choose_layers(now, *subscriber);
            }
        }
        if let Some(track) = self.tracks.get_mut(key) {
            track.subscribers = subscribers;
        }
        if somebody_waits {
            self.ask_publisher(now, key, layer, Why::Waiting);
        }
    }

    /// Forwards a packet to one subscriber; true if that one waits for a keyframe of this layer.
    fn forward_to(
        &mut self,
        now: Instant,
        to: SessionKey,
        mid: Mid,
        incoming: &ReceivedPacket<'_>,
        packet: &RtpPacket,
        format: PayloadParams,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(to) else { return false };
        let takes_media = session.link.takes_media();
        let Some(subscription) = session.subscriptions.get_mut(&mid) else { return false };
        // str0m would queue packets until the peer is connected, and then send them all at once.
        if subscription.state != SubscriptionState::Open || subscription.barred || !takes_media {
            return false;
        }
        let codecs = session.rtc.as_deref().map(str0m::Rtc::codec_config);
        let theirs = codecs.and_then(|codecs| subscription.payload_type(format, codecs));
        let Some(payload_type) = theirs else {
            self.counters.dropped(DropReason::NoCodec);
            return false;
        };
        let Some(outgoing) = subscription.forward.rewrite(incoming) else {
            let waits = subscription.forward.waits_for() == Some(incoming.layer);
            let is_late = subscription.forward.current() == Some(incoming.layer);
            self.counters.dropped(match (waits, is_late) {
                (true, _) => DropReason::NoKeyframe,
                (false, true) => DropReason::Late,
                (false, false) => DropReason::LayerNotWanted,
            });
            return waits;
        };
        let is_video = subscription.kind == TrackKind::Video;
        // The publisher already paced it: while bandwidth suffices, a second pacer would only add delay.
        let is_paced = is_video && session.is_constrained;
        let mut extensions = packet.header.ext_vals.clone();
        // These identify the publisher's streams; str0m writes the subscriber's.
        extensions.mid = None;
        extensions.rid = None;
        extensions.rid_repair = None;
        extensions.transport_cc = None;
        let mut write = RtpWrite::new(
            payload_type,
            outgoing.seq.into(),
            outgoing.time,
            incoming.captured,
            packet.payload.clone(),
        )
        .marker(packet.header.marker)
        .ext_vals(extensions)
        .nackable(is_video);
        if let Some(patch) = outgoing.vp8_patch {
            write = write.vp8_patch(patch);
        }
        let known = subscription.ssrc;
        let written = self.write(now, to, |rtc| {
            let mut api = rtc.direct_api();
            // Looking a stream up by its mid scans all streams.
            let ssrc =
                match known.filter(|ssrc| api.stream_tx(ssrc).is_some_and(|stream| stream.mid() == mid)) {
                    Some(ssrc) => ssrc,
                    None => {
                        let stream = api.stream_tx_by_mid(mid, None).ok_or("it has no stream")?;
                        if is_video {
                            keep_for_retransmission(stream);
                        }
                        stream.ssrc()
                    }
                };
            let stream = api.stream_tx(&ssrc).ok_or("it has no stream")?;
            stream.set_unpaced(!is_paced);
            stream.write_rtp(write);
            Ok::<_, &str>(ssrc)
        });
        let Some(Ok(ssrc)) = written else {
            self.counters.dropped(DropReason::Refused);
            return false;
        };
        self.counters.forwarded_packets += 1;
        self.counters.forwarded_bytes += packet.payload.len() as u64;
        if let Some(session) = self.sessions.get_mut(to) {
            session.awaited.push(payload_type);
            if let Some(subscription) = session.subscriptions.get_mut(&mid) {
                subscription.packets += 1;
                subscription.ssrc = Some(ssrc);
            }
        }
        false
    }

    /// Handles a publisher's RTCP sender report.
    pub(super) fn take_report(&mut self, from: SessionKey, report: &SenderFeedback) {
        let SenderFeedback { mid, rid, received_at, sender_info } = report;
        let Some(session) = self.sessions.get_mut(from) else { return };
        let track = session.publications.get(mid).and_then(|key| self.tracks.get_mut(*key));
        let Some(track) = track else { return };
        let clock = track.layers.index_of(rid.as_deref()).and_then(|layer| track.clocks.get_mut(layer));
        let Some(clock) = clock else { return };
        // str0m extends the timestamp; the lower 32 bits are as received.
        let timestamp = sender_info.rtp_time.numer() as u32;
        clock.report(&mut session.clock, *sender_info.ssrc, timestamp, sender_info.ntp_time, *received_at);
    }

    /// Returns the track and the layer that a packet belongs to.
    fn track_of(&mut self, from: SessionKey, packet: &RtpPacket) -> Option<(TrackKey, usize)> {
        let session = self.sessions.get_mut(from)?;
        let ssrc = packet.header.ssrc;
        if let Some(found) = session.streams.get(&ssrc) {
            return Some(*found);
        }
        let rtc = session.rtc.as_deref_mut()?;
        let mut api = rtc.direct_api();
        let stream = api.stream_rx(&ssrc)?;
        let (mid, rid) = (stream.mid(), stream.rid());
        let key = *session.publications.get(&mid)?;
        let layers = &self.tracks.get(key)?.layers;
        let layer = layers.index_of(rid.as_deref())?;
        // A publisher may use another SSRC for each packet. Entries that are removed here are looked up again.
        if session.streams.len() >= MAX_STREAMS {
            session.streams.clear();
        }
        session.streams.insert(ssrc, (key, layer));
        Some((key, layer))
    }

    /// Returns the subscriber's payload types for a track: those of the track's codec.
    pub(super) fn formats_for(&self, subscriber: SessionKey, key: TrackKey) -> Vec<u8> {
        let ours = self.sessions.get(subscriber).and_then(Session::codecs);
        let (Some(track), Some(ours)) = (self.tracks.get(key), ours) else { return Vec::new() };
        let theirs = self.sessions.get(track.publisher).and_then(Session::codecs);
        let answered = theirs.and_then(|theirs| theirs.find(|params| Some(params.pt()) == track.answered));
        let seen = track.formats.iter().map(|(_, params)| params).chain(answered);
        let mut formats: Vec<u8> =
            seen.filter_map(|params| ours.match_params(*params)).map(|params| *params.pt()).collect();
        formats.sort_unstable();
        formats.dedup();
        formats
    }

    /// Returns the format that a publisher's payload type stands for.
    fn format(&mut self, key: TrackKey, from: SessionKey, payload_type: Pt) -> Option<PayloadParams> {
        let track = self.tracks.get_mut(key)?;
        if let Some((_, params)) = track.formats.iter().find(|(known, _)| *known == payload_type) {
            return Some(*params);
        }
        let codecs = self.sessions.get(from)?.codecs()?;
        let params = *codecs.find(|params| params.pt() == payload_type)?;
        track.formats.push((payload_type, params));
        Some(params)
    }

    /// Handles a subscriber's keyframe request (PLI or FIR).
    pub(super) fn keyframe_requested(&mut self, now: Instant, of: SessionKey, mid: Mid) {
        self.counters.keyframe_requests_received += 1;
        let Some(subscription) = self.sessions.get(of).and_then(|s| s.subscriptions.get(&mid)) else {
            return;
        };
        let wanted = subscription.forward.waits_for().or(subscription.forward.current());
        let (Some(key), Some(layer)) = (subscription.track, wanted) else { return };
        self.ask_publisher(now, key, layer, Why::Lost);
    }

    /// Requests the keyframes that a session's subscriptions wait for.
    pub(super) fn request_awaited_keyframes(&mut self, now: Instant, of: SessionKey) {
        let Some(session) = self.sessions.get(of).filter(|session| session.link.takes_media()) else {
            return;
        };
        let open = session.subscriptions.values().filter(|s| s.state == SubscriptionState::Open);
        let waited: Vec<_> = open.filter_map(|s| Some((s.track?, s.forward.waits_for()?))).collect();
        for (key, layer) in waited {
            self.ask_publisher(now, key, layer, Why::Waiting);
        }
    }

    /// Requests keyframes of all tracks that a session subscribes to: a decoder that missed seconds of video waits as
    /// long again before it asks for one.
    pub(super) fn request_keyframes(&mut self, now: Instant, of: SessionKey) {
        let Some(session) = self.sessions.get(of) else { return };
        let open = session.subscriptions.values().filter(|s| s.state == SubscriptionState::Open);
        let current = open.filter_map(|s| Some((s.track?, s.forward.waits_for().or(s.forward.current())?)));
        let missed: Vec<_> = current.collect();
        for (key, layer) in missed {
            self.ask_publisher(now, key, layer, Why::Lost);
        }
    }

    /// Repeats the keyframe requests that are still needed: a publisher may send nothing until it is asked.
    pub(super) fn ask_again(&mut self, now: Instant) {
        let keys: Vec<SessionKey> = self.sessions.keys().collect();
        for key in keys {
            self.request_awaited_keyframes(now, key);
        }
    }

    /// Requests a keyframe from the publisher, if one is due.
    fn ask_publisher(&mut self, now: Instant, key: TrackKey, layer: usize, why: Why) {
        let Some(track) = self.tracks.get_mut(key) else { return };
        if track.kind != TrackKind::Video || !track.layers.is_active(now) {
            return;
        }
        if !track.asking.get_mut(layer).is_some_and(|asking| asking.ask(now, why)) {
            return;
        }
        let (publisher, mid) = (track.publisher, track.mid);
        let rid = track.layers.rid(layer).map(Rid::from);
        let asked = self.write(now, publisher, |rtc| {
            let mut api = rtc.direct_api();
            let stream = api.stream_rx_by_mid(mid, rid).ok_or("nothing came yet")?;
            stream.request_keyframe(KeyframeRequestKind::Pli);
            Ok::<_, &str>(())
        });
        if let Some(Ok(())) = asked {
            self.counters.keyframe_requests_sent += 1;
        }
    }

    /// Ends a track; its subscribers keep their transceivers until they close them.
    pub(super) fn unpublish(&mut self, key: TrackKey) {
        let Some(track) = self.tracks.remove(key) else { return };
        self.by_name.remove(&(track.publisher, track.name));
        for (subscriber, mid) in track.subscribers {
            let session = self.sessions.get_mut(subscriber);
            if let Some(subscription) = session.and_then(|session| session.subscriptions.get_mut(&mid)) {
                subscription.track = None;
            }
        }
    }

    /// Removes a subscriber from a track.
    pub(super) fn unlink(&mut self, subscriber: SessionKey, mid: Mid, key: Option<TrackKey>) {
        if let Some(track) = key.and_then(|key| self.tracks.get_mut(key)) {
            track.subscribers.retain(|other| *other != (subscriber, mid));
        }
    }
}

impl Subscription {
    /// Returns the subscriber's payload type for a publisher's format.
    fn payload_type(&mut self, format: PayloadParams, codecs: &str0m::format::CodecConfig) -> Option<Pt> {
        let theirs = format.pt();
        if let Some((_, ours)) = self.payload_types.iter().find(|(known, _)| *known == theirs) {
            return *ours;
        }
        let is_offered = |pt: &Pt| self.formats.is_empty() || self.formats.contains(pt);
        let ours = codecs.match_params(format).map(PayloadParams::pt).filter(is_offered);
        self.payload_types.push((theirs, ours));
        ours
    }
}

/// Converts to str0m's kind.
pub(super) fn media_kind(kind: TrackKind) -> MediaKind {
    match kind {
        TrackKind::Audio => MediaKind::Audio,
        TrackKind::Video => MediaKind::Video,
    }
}

/// Converts from str0m's kind.
pub(super) fn kind_of(kind: MediaKind) -> TrackKind {
    match kind {
        MediaKind::Audio => TrackKind::Audio,
        MediaKind::Video => TrackKind::Video,
    }
}
