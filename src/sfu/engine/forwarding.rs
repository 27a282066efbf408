//! Who receives what: a publisher's packets to its subscribers, and their wishes back to it.

use std::time::Instant;

use str0m::format::PayloadParams;
use str0m::media::{KeyframeRequestKind, MediaKind, Mid, Pt, Rid, SenderFeedback};
use str0m::rtp::{RtpPacket, RtpWrite};

use super::peer::keep_for_retransmission;
use super::session::{Session, Subscription, SubscriptionState};
use super::{Engine, SessionKey, TrackKey};
use crate::sfu::clock::StreamClock;
use crate::sfu::counters::Drop;
use crate::sfu::forward::Incoming;
use crate::sfu::keyframe::{Asking, Why, starts_keyframe};
use crate::sfu::layers::Layers;
use crate::sfu::request::Kind;

/// How many streams of a session are kept in mind.
const MOST_STREAMS: usize = 1024;

/// A published track.
pub(super) struct Track {
    pub(super) publisher: SessionKey,
    pub(super) name: String,
    pub(super) mid: Mid,
    pub(super) kind: Kind,
    pub(super) published: Instant,
    pub(super) layers: Layers,
    /// For each layer, when a picture that needs no other was asked for.
    asking: Vec<Asking>,
    /// For each layer, when its packets were captured.
    pub(super) clocks: Vec<StreamClock>,
    /// Who receives it.
    pub(super) subscribers: Vec<(SessionKey, Mid)>,
    /// The payload type that the publisher was answered with; none where it was left the choice.
    pub(super) answered: Option<Pt>,
    /// What the publisher's payload types mean.
    formats: Vec<(Pt, PayloadParams)>,
}

impl Track {
    pub(super) fn new(
        publisher: SessionKey,
        name: String,
        mid: Mid,
        kind: Kind,
        rids: Vec<Option<String>>,
        now: Instant,
    ) -> Self {
        let asking = rids.iter().map(|_| Asking::default()).collect();
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

/// The longest payload that is forwarded: an Ethernet frame. The library keeps 2,000 bytes for a packet, which it
/// gives a header of its own to, and panics in the subscriber's session where it does not fit.
const MOST_PAYLOAD_BYTES: usize = 1500;

impl Engine {
    /// Forwards one packet to everybody who receives its track.
    pub(super) fn forward(&mut self, now: Instant, from: SessionKey, packet: RtpPacket) {
        if packet.payload.len() > MOST_PAYLOAD_BYTES {
            self.counters.dropped(Drop::TooLong);
            return;
        }
        let Some((key, layer)) = self.track_of(from, &packet) else {
            self.counters.dropped(Drop::UnknownStream);
            return;
        };
        let payload_type = packet.header.payload_type;
        let Some(format) = self.format(key, from, payload_type) else {
            self.counters.dropped(Drop::NoCodec);
            return;
        };
        let (Some(track), Some(publisher)) = (self.tracks.get_mut(key), self.sessions.get_mut(from)) else {
            return;
        };
        let was_live = track.layers.is_live(layer, now);
        track.layers.saw(layer, now, packet.payload.len());
        let is_video = track.kind == Kind::Video;
        let codec = format.spec().codec;
        let (ssrc, time, arrived) = (*packet.header.ssrc, packet.header.timestamp, packet.timestamp);
        let clock_hz = format.spec().clock_rate.get();
        let captured = track.clocks[layer].captured(&mut publisher.clock, ssrc, time, clock_hz, arrived);
        let incoming = Incoming {
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
        // The list is taken out while others are borrowed.
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

    /// Forwards a packet to one subscriber; tells whether that one waits for a keyframe of its layer.
    fn forward_to(
        &mut self,
        now: Instant,
        to: SessionKey,
        mid: Mid,
        incoming: &Incoming<'_>,
        packet: &RtpPacket,
        format: PayloadParams,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(to) else { return false };
        let takes_media = session.link.takes_media();
        let Some(subscription) = session.subscriptions.get_mut(&mid) else { return false };
        // The library would keep everything until there is a connection, and send it all at once then.
        if subscription.state != SubscriptionState::Open || !takes_media {
            return false;
        }
        let codecs = session.rtc.as_deref().map(str0m::Rtc::codec_config);
        let theirs = codecs.and_then(|codecs| subscription.payload_type(format, codecs));
        let Some(payload_type) = theirs else {
            self.counters.dropped(Drop::NoCodec);
            return false;
        };
        let Some(outgoing) = subscription.forward.rewrite(incoming) else {
            let waits = subscription.forward.waits_for() == Some(incoming.layer);
            let is_late = subscription.forward.current() == Some(incoming.layer);
            self.counters.dropped(match (waits, is_late) {
                (true, _) => Drop::NoKeyframe,
                (false, true) => Drop::Late,
                (false, false) => Drop::LayerNotWanted,
            });
            return waits;
        };
        let is_video = subscription.kind == Kind::Video;
        // The publisher paced it already, and a second pacer would only add to the delay, where there is room.
        let is_paced = is_video && session.is_constrained;
        let mut extensions = packet.header.ext_vals.clone();
        // These name the publisher's own streams; the library writes the subscriber's.
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
            // By its mid the library looks through all streams.
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
            self.counters.dropped(Drop::Refused);
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

    /// Takes a publisher's sender report.
    pub(super) fn take_report(&mut self, from: SessionKey, report: &SenderFeedback) {
        let SenderFeedback { mid, rid, received_at, sender_info } = report;
        let Some(session) = self.sessions.get_mut(from) else { return };
        let track = session.publications.get(mid).and_then(|key| self.tracks.get_mut(*key));
        let Some(track) = track else { return };
        let clock = track.layers.index_of(rid.as_deref()).and_then(|layer| track.clocks.get_mut(layer));
        let Some(clock) = clock else { return };
        // The library extends the timestamp; its lower half is as it came.
        let timestamp = sender_info.rtp_time.numer() as u32;
        clock.report(&mut session.clock, *sender_info.ssrc, timestamp, sender_info.ntp_time, *received_at);
    }

    /// To which layer of which track a packet belongs.
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
        // A publisher may take another SSRC with each packet. What is forgotten is found again.
        if session.streams.len() >= MOST_STREAMS {
            session.streams.clear();
        }
        session.streams.insert(ssrc, (key, layer));
        Some((key, layer))
    }

    /// The payload types by which a session is to receive a track: those of its codec.
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

    /// What a publisher's payload type means.
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

    /// A client's decoder lost something and asks for a new beginning.
    pub(super) fn picture_was_lost(&mut self, now: Instant, of: SessionKey, mid: Mid) {
        self.counters.keyframe_requests_received += 1;
        let Some(subscription) = self.sessions.get(of).and_then(|s| s.subscriptions.get(&mid)) else {
            return;
        };
        let wanted = subscription.forward.waits_for().or(subscription.forward.current());
        let (Some(key), Some(layer)) = (subscription.track, wanted) else { return };
        self.ask_publisher(now, key, layer, Why::Lost);
    }

    /// Asks for the beginnings that a session's subscriptions wait for.
    pub(super) fn ask_for_pictures(&mut self, now: Instant, of: SessionKey) {
        let Some(session) = self.sessions.get(of).filter(|session| session.link.takes_media()) else {
            return;
        };
        let open = session.subscriptions.values().filter(|s| s.state == SubscriptionState::Open);
        let waited: Vec<_> = open.filter_map(|s| Some((s.track?, s.forward.waits_for()?))).collect();
        for (key, layer) in waited {
            self.ask_publisher(now, key, layer, Why::Waiting);
        }
    }

    /// Requests keyframes of all tracks that a session subscribes to: a decoder that missed seconds waits as long again
    /// before it asks.
    pub(super) fn request_keyframes(&mut self, now: Instant, of: SessionKey) {
        let Some(session) = self.sessions.get(of) else { return };
        let open = session.subscriptions.values().filter(|s| s.state == SubscriptionState::Open);
        let current = open.filter_map(|s| Some((s.track?, s.forward.waits_for().or(s.forward.current())?)));
        let missed: Vec<_> = current.collect();
        for (key, layer) in missed {
            self.ask_publisher(now, key, layer, Why::Lost);
        }
    }

    /// Asks again for what somebody still waits for: the publisher may send nothing until it is asked.
    pub(super) fn ask_again(&mut self, now: Instant) {
        let keys: Vec<SessionKey> = self.sessions.keys().collect();
        for key in keys {
            self.ask_for_pictures(now, key);
        }
    }

    /// Asks the publisher for a picture that needs no other, if that is due.
    fn ask_publisher(&mut self, now: Instant, key: TrackKey, layer: usize, why: Why) {
        let Some(track) = self.tracks.get_mut(key) else { return };
        if track.kind != Kind::Video || !track.layers.is_active(now) {
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

    /// A subscriber leaves a track.
    pub(super) fn unlink(&mut self, subscriber: SessionKey, mid: Mid, key: Option<TrackKey>) {
        if let Some(track) = key.and_then(|key| self.tracks.get_mut(key)) {
            track.subscribers.retain(|other| *other != (subscriber, mid));
        }
    }
}

impl Subscription {
    /// The payload type by which this client knows a publisher's format.
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

/// Sound or picture, as the library calls it.
pub(super) fn media_kind(kind: Kind) -> MediaKind {
    match kind {
        Kind::Audio => MediaKind::Audio,
        Kind::Video => MediaKind::Video,
    }
}

/// Sound or picture, as we call it.
pub(super) fn kind_of(kind: MediaKind) -> Kind {
    match kind {
        MediaKind::Audio => Kind::Audio,
        MediaKind::Video => Kind::Video,
    }
}
