//! One session: a peer connection, what it publishes and what it subscribes to.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::change::SdpPendingOffer;
use str0m::format::CodecConfig;
use str0m::media::{Mid, Pt};
use str0m::net::Protocol;
use str0m::rtp::Ssrc;
use str0m::stats::{MediaEgressStats, MediaIngressStats};
use str0m::{IceConnectionState, Rtc};

use super::TrackKey;
use crate::access::SessionAccess;
use crate::api::Caller;
use crate::clock::PublisherClock;
use crate::counters::Counters;
use crate::description::{MLine, Terms, TransportCc};
use crate::estimate::RembLimit;
use crate::forward::RtpRewriter;
use crate::id::SessionId;
use crate::network::ClientNetwork;
use crate::request::{Ice, LayerWish, TrackKind};

/// Source addresses remembered per session; a phone that moves between networks has fewer.
const MAX_SOURCES: usize = 8;

/// Connectivity checks per second that a session admits from unknown addresses because they name it: a browser with
/// many interfaces sends about 20.
const MAX_CHECKS: u32 = 50;

/// Time for which an address counts as in use after a packet from it: a client sends more often, if only checks.
const IN_USE: Duration = Duration::from_secs(5);

/// Share of lost packets above which a video is lossy: radio links lose less, full queues more.
const MUCH_LOSS: f32 = 0.15;

/// Time for which a session counts as lossy; losses are counted every two seconds.
const LOSSY: Duration = Duration::from_secs(3);

pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) owner: Caller,
    /// Its rights to receive and send; none are checked if the embedding server set none.
    pub(super) access: Option<SessionAccess>,
    /// The network of the client that opened it, if known.
    pub(super) network: Option<ClientNetwork>,
    pub(super) ice: Ice,
    pub(super) opened: Instant,
    pub(super) link: Link,
    /// The str0m peer; none before the first description and after a panic.
    pub(super) rtc: Option<Box<Rtc>>,
    /// The username fragment by which the client's connectivity checks name this session; empty before the first
    /// description.
    pub(super) ufrag: String,
    /// The m-lines of the client's last description.
    pub(super) sections: Vec<MLine>,
    /// True if the client's offer had no BUNDLE group.
    pub(super) is_unbundled: bool,
    /// The server's offer that the client has not answered yet.
    pub(super) pending: Option<Pending>,
    pub(super) publications: HashMap<Mid, TrackKey>,
    pub(super) subscriptions: HashMap<Mid, Subscription>,
    /// Source addresses of the peer, the most recently used last.
    pub(super) sources: VecDeque<(Protocol, SocketAddr)>,
    /// The source address that the peer nominated or sent media from last, and the time of its last packet; never
    /// evicted.
    path: Option<((Protocol, SocketAddr), Instant)>,
    /// Start of the current one-second window, and the checks from unknown addresses within it.
    checks: (Instant, u32),
    /// The clock of the session's published tracks.
    pub(super) clock: PublisherClock,
    /// Track and layer of each received stream.
    pub(super) streams: HashMap<Ssrc, (TrackKey, usize)>,
    /// Time of the next timeout that the peer asked for.
    pub(super) timer: Option<Instant>,
    /// True if that timeout is only for the peer's internal bookkeeping.
    pub(super) timer_is_bookkeeping: bool,
    /// True if packets were written to the peer that it has not sent yet.
    pub(super) has_unsent: bool,
    /// Payload types of the packets that are written and not sent yet.
    pub(super) awaited: Vec<Pt>,
    /// True if TWCC is possible on the connection: there was simulcast when the peer was created.
    pub(super) is_measurable: bool,
    /// True if TWCC is requested from the next negotiation on: the session subscribes, or once subscribed, to a track
    /// with several layers, or its connection was too narrow.
    pub(super) wants_twcc: bool,
    /// Estimated bandwidth of the connection in bits per second, if the client sends TWCC feedback.
    pub(super) twcc: Option<u64>,
    /// Time since which `twcc` is only the initial guess, confirmed by no feedback.
    pub(super) unmeasured: Option<Instant>,
    /// Bandwidth limit from the client's REMB messages, without TWCC.
    pub(super) remb: RembLimit,
    /// Time of the last high loss that the client reported.
    lossy: Option<Instant>,
    /// Bits per second that all subscriptions would take at their best layers, as of the last layer choice.
    pub(super) wanted: u64,
    /// True if the connection takes less than all subscriptions need: then video is paced, so that audio goes first.
    pub(super) is_constrained: bool,
    /// Time since which the connection takes less than what is sent.
    pub(super) short_since: Option<Instant>,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    /// Last known counts of each transceiver: packets lost, NACKs, PLIs.
    lost: HashMap<Mid, [u64; 3]>,
    asked: HashMap<(Mid, Option<str0m::media::Rid>), [u64; 2]>,
}

/// State of a session's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Nothing negotiated, since this time.
    New(Instant),
    /// Negotiated but not connected yet, since this time.
    Connecting(Instant),
    Connected,
    /// Was connected, and is not since this time.
    Lost(Instant),
}

impl Link {
    /// Returns the state after a change of the ICE state. A connection that never was up cannot be lost, and one that
    /// is checked again (the client restarted ICE) is lost until a check is answered. Otherwise a client that
    /// vanishes during an ICE restart never expires.
    pub(super) fn after(self, state: IceConnectionState, now: Instant) -> Self {
        let is_up = matches!(state, IceConnectionState::Connected | IceConnectionState::Completed);
        match self {
            Self::Connected if !is_up => Self::Lost(now),
            Self::Lost(_) if is_up => Self::Connected,
            other => other,
        }
    }

    /// True if media can be sent: the peer is connected, or was until its connection was lost.
    pub(super) fn takes_media(self) -> bool {
        matches!(self, Self::Connected | Self::Lost(_))
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::New(_) => "new",
            Self::Connecting(_) => "connecting",
            Self::Connected => "connected",
            Self::Lost(_) => "lost",
        }
    }
}

/// An offer of the server that waits for the client's answer.
pub(super) struct Pending {
    pub(super) offer: SdpPendingOffer,
    pub(super) made: Instant,
    /// Tracks to publish once it is answered.
    pub(super) publications: Vec<(Mid, String, TrackKind)>,
    /// Subscriptions to open once it is answered.
    pub(super) subscriptions: Vec<Mid>,
}

/// A session's subscription to a track, sent on one transceiver.
pub(super) struct Subscription {
    /// None once the publisher ended it.
    pub(super) track: Option<TrackKey>,
    pub(super) publisher: SessionId,
    pub(super) name: String,
    pub(super) kind: TrackKind,
    pub(super) wish: LayerWish,
    pub(super) state: SubscriptionState,
    pub(super) forward: RtpRewriter,
    /// Time since which it is paused because the connection is too narrow.
    pub(super) paused: Option<Instant>,
    /// True while the session may not receive the track.
    pub(super) barred: bool,
    /// The subscriber's payload type for each of the publisher's; none if the client cannot receive it.
    pub(super) payload_types: Vec<(Pt, Option<Pt>)>,
    /// The SSRC of the outgoing stream, once a packet was sent.
    pub(super) ssrc: Option<Ssrc>,
    /// The payload types offered for it; all if empty.
    pub(super) formats: Vec<u8>,
    pub(super) packets: u64,
}

/// The client's consent to a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubscriptionState {
    /// Offered, not answered yet.
    Offered,
    /// Accepted.
    Open,
    /// Refused by the client, entirely or for the track's codec.
    Refused,
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        owner: Caller,
        network: Option<ClientNetwork>,
        ice: Ice,
        now: Instant,
    ) -> Self {
        Self {
            id,
            owner,
            access: None,
            network,
            ice,
            opened: now,
            link: Link::New(now),
            rtc: None,
            ufrag: String::new(),
            sections: Vec::new(),
            is_unbundled: false,
            pending: None,
            publications: HashMap::new(),
            subscriptions: HashMap::new(),
            sources: VecDeque::new(),
            path: None,
            checks: (now, 0),
            clock: PublisherClock::default(),
            streams: HashMap::new(),
            timer: None,
            timer_is_bookkeeping: false,
            has_unsent: false,
            awaited: Vec::new(),
            is_measurable: false,
            wants_twcc: false,
            twcc: None,
            unmeasured: None,
            remb: RembLimit::default(),
            lossy: None,
            wanted: u64::MAX,
            is_constrained: false,
            short_since: None,
            received_bytes: 0,
            sent_bytes: 0,
            lost: HashMap::new(),
            asked: HashMap::new(),
        }
    }

    /// Adds a source address and returns the one that is evicted for it: the least recently used that carries no
    /// media.
    pub(super) fn learn(&mut self, source: (Protocol, SocketAddr)) -> Option<(Protocol, SocketAddr)> {
        self.sources.retain(|known| *known != source);
        self.sources.push_back(source);
        if self.sources.len() <= MAX_SOURCES {
            return None;
        }
        let path = self.path.map(|(path, _)| path);
        let oldest = self.sources.iter().position(|known| Some(*known) != path)?;
        self.sources.remove(oldest)
    }

    /// Records a packet from a source address; `is_path` if media use this address.
    pub(super) fn heard(&mut self, now: Instant, source: (Protocol, SocketAddr), is_path: bool) {
        if self.sources.back() != Some(&source)
            && let Some(place) = self.sources.iter().position(|known| *known == source)
        {
            self.sources.remove(place);
            self.sources.push_back(source);
        }
        if is_path {
            self.path = Some((source, now));
        }
    }

    /// True if media came from this address within the last [`IN_USE`].
    pub(super) fn is_path(&self, now: Instant, source: (Protocol, SocketAddr)) -> bool {
        self.path.is_some_and(|(path, heard)| path == source && now.saturating_duration_since(heard) < IN_USE)
    }

    /// Admits a connectivity check from an unknown address that names this session; false once over [`MAX_CHECKS`].
    pub(super) fn expects(&mut self, now: Instant) -> bool {
        let (since, checks) = &mut self.checks;
        if now.saturating_duration_since(*since) >= Duration::from_secs(1) {
            (*since, *checks) = (now, 0);
        }
        *checks += 1;
        *checks <= MAX_CHECKS
    }

    /// Estimated bandwidth of the connection in bits per second; none if no limit is known.
    pub(super) fn estimate(&self) -> Option<u64> {
        self.twcc.or(self.remb.bits())
    }

    /// True if TWCC is in use on the connection, or will be from the next negotiation on.
    pub(super) fn is_measured(&self) -> bool {
        self.wants_twcc && self.is_measurable
    }

    /// Returns the terms that apply to the session's descriptions.
    pub(super) fn terms(&self) -> Terms {
        let subscriptions = self.subscriptions.iter().filter(|(_, s)| !s.formats.is_empty());
        Terms {
            feedback: if self.is_measured() { TransportCc::Wanted } else { TransportCc::Unwanted },
            is_unbundled: self.is_unbundled,
            formats: subscriptions.map(|(mid, s)| (mid.to_string(), s.formats.clone())).collect(),
        }
    }

    /// True if the client accepts a subscription's track, by the last negotiation.
    pub(super) fn accepts(&self, mid: Mid) -> bool {
        let (Some(rtc), Some(subscription)) = (self.rtc.as_deref(), self.subscriptions.get(&mid)) else {
            return false;
        };
        let Some(media) = rtc.media(mid).filter(|media| media.direction().is_sending()) else { return false };
        let formats = &subscription.formats;
        media.remote_pts().iter().any(|pt| formats.is_empty() || formats.contains(pt))
    }

    /// Opens subscriptions that the client had refused and accepts now.
    pub(super) fn accept_again(&mut self) {
        let refused = self.subscriptions.iter().filter(|(_, s)| s.state == SubscriptionState::Refused);
        let taken: Vec<Mid> = refused.map(|(mid, _)| *mid).filter(|mid| self.accepts(*mid)).collect();
        for mid in taken {
            if let Some(subscription) = self.subscriptions.get_mut(&mid) {
                subscription.state = SubscriptionState::Open;
            }
        }
    }

    /// Returns the client's mid of an m-line.
    pub(super) fn client_mid(&self, mid: Mid) -> String {
        let section = self.sections.iter().find(|section| section.alias == mid);
        section.map_or_else(|| mid.to_string(), |section| section.mid.clone())
    }

    /// Number of tracks that the session publishes and subscribes to.
    pub(super) fn tracks(&self) -> usize {
        self.publications.len() + self.subscriptions.len()
    }

    /// Packets that the client reported as lost.
    pub(super) fn lost_packets(&self) -> u64 {
        self.lost.values().map(|counted| counted[0]).sum()
    }

    /// True if the client reported high loss of video within the last [`LOSSY`].
    pub(super) fn is_lossy(&self, now: Instant) -> bool {
        self.lossy.is_some_and(|at| now.saturating_duration_since(at) < LOSSY)
    }

    /// Takes str0m's statistics of a stream to the client.
    pub(super) fn count_losses(&mut self, now: Instant, stats: &MediaEgressStats, counters: &mut Counters) {
        let is_video = self.subscriptions.get(&stats.mid).is_some_and(|s| s.kind == TrackKind::Video);
        if is_video && stats.loss.is_some_and(|loss| loss > MUCH_LOSS) {
            self.lossy = Some(now);
        }
        let lost = stats.remote.as_ref().map_or(0, |remote| remote.packets_lost);
        let counted = self.lost.entry(stats.mid).or_default();
        counters.nacks_received += stats.nacks.saturating_sub(counted[1]);
        *counted = [lost, stats.nacks, stats.plis];
    }

    /// Takes str0m's statistics of a stream from the client.
    pub(super) fn count_requests(&mut self, stats: &MediaIngressStats, counters: &mut Counters) {
        let counted = self.asked.entry((stats.mid, stats.rid)).or_default();
        counters.nacks_sent += stats.nacks.saturating_sub(counted[0]);
        *counted = [stats.nacks, stats.plis];
    }

    /// Removes the counts of a transceiver that ended.
    pub(super) fn forget(&mut self, mid: Mid) {
        self.lost.remove(&mid);
        self.asked.retain(|(of, _), _| *of != mid);
    }

    /// The codecs negotiated with the client; none before the first description.
    pub(super) fn codecs(&self) -> Option<&CodecConfig> {
        self.rtc.as_deref().map(Rtc::codec_config)
    }
}
