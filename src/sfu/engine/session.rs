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
use crate::calls::api::Caller;
use crate::id::SessionId;
use crate::network::ClientNetwork;
use crate::sfu::clock::PublisherClock;
use crate::sfu::counters::Counters;
use crate::sfu::description::{Feedback, Section, Terms};
use crate::sfu::estimate::RembLimit;
use crate::sfu::forward::Forward;
use crate::sfu::request::{Ice, Kind, LayerWish};

/// Source addresses that are remembered of a session's peer; more than a phone that walks has.
const MAX_SOURCES: usize = 8;

/// Connectivity checks a second from unknown addresses that are admitted for naming a session: a browser with many
/// interfaces makes about 20.
const MOST_CHECKS: u32 = 50;

/// Time for which an address is in use after something came from it: a client sends more often, if only checks.
const IN_USE: Duration = Duration::from_secs(5);

/// The share of a video's packets that is much to lose: radio links lose less, and full queues more.
const MUCH_LOSS: f32 = 0.15;

/// Time for which such a loss is remembered; losses are counted every two seconds.
const LOSSY: Duration = Duration::from_secs(3);

/// One session.
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) owner: Caller,
    /// The network of the client that opened it, where it is known.
    pub(super) network: Option<ClientNetwork>,
    pub(super) ice: Ice,
    pub(super) opened: Instant,
    pub(super) link: Link,
    /// The peer; none before the first description and after a panic.
    pub(super) rtc: Option<Box<Rtc>>,
    /// By what the client's connectivity checks name this session; empty before the first description.
    pub(super) ufrag: String,
    /// The sections of the client's last description.
    pub(super) sections: Vec<Section>,
    /// Whether the client's offer named no bundle.
    pub(super) is_unbundled: bool,
    /// The offer that waits for the client's answer.
    pub(super) pending: Option<Pending>,
    pub(super) publications: HashMap<Mid, TrackKey>,
    pub(super) subscriptions: HashMap<Mid, Subscription>,
    /// Source addresses of the peer, the one that was heard last at the end.
    pub(super) sources: VecDeque<(Protocol, SocketAddr)>,
    /// The one of these that the peer nominated or sent media from last, which is never forgotten; and when.
    path: Option<((Protocol, SocketAddr), Instant)>,
    /// The second that runs, and the checks from addresses that are not known as its own in it.
    checks: (Instant, u32),
    /// The clock of what it publishes.
    pub(super) clock: PublisherClock,
    /// To which layer of which track a stream belongs.
    pub(super) streams: HashMap<Ssrc, (TrackKey, usize)>,
    /// When the peer wants to be called.
    pub(super) timer: Option<Instant>,
    /// Whether it does only to keep its books.
    pub(super) waits_for_books: bool,
    /// Whether something was written to the peer that it did not send yet.
    pub(super) has_unsent: bool,
    /// The payload types of the packets among that.
    pub(super) awaited: Vec<Pt>,
    /// Whether its connection can be measured finely: there was simulcast when it began.
    pub(super) is_measurable: bool,
    /// Whether its connection is measured finely, from the next negotiation on: it subscribes, or did, to a track
    /// of several layers, or its connection was too narrow.
    pub(super) wants_twcc: bool,
    /// What the connection takes, in bits a second, where the client reports each packet (TWCC).
    pub(super) twcc: Option<u64>,
    /// Since when that is a guess that no report confirmed.
    pub(super) unmeasured: Option<Instant>,
    /// The same by its reports of a bandwidth (REMB), elsewhere.
    pub(super) remb: RembLimit,
    /// When the client missed much.
    lossy: Option<Instant>,
    /// What all that it subscribes to would take at best, in bits a second, as of the last look.
    pub(super) wanted: u64,
    /// Whether it takes less than all that is subscribed to: then video is paced, so that audio goes first.
    pub(super) is_constrained: bool,
    /// Since when it takes less than what flows.
    pub(super) short_since: Option<Instant>,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    /// What each transceiver counted so far: packets lost, NACKs, requests for pictures.
    lost: HashMap<Mid, [u64; 3]>,
    asked: HashMap<(Mid, Option<str0m::media::Rid>), [u64; 2]>,
}

/// How a session's connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Nothing was negotiated, since then.
    New(Instant),
    /// It was, and no connection came, since then.
    Connecting(Instant),
    /// It is there.
    Connected,
    /// It was there, and is lost since then.
    Lost(Instant),
}

impl Link {
    /// What ICE says. A connection that never was cannot be lost, and one that is checked anew (the
    /// client restarted ICE) is lost until a check is answered: else who restarts and leaves stays.
    pub(super) fn after(self, state: IceConnectionState, now: Instant) -> Self {
        let is_up = matches!(state, IceConnectionState::Connected | IceConnectionState::Completed);
        match self {
            Self::Connected if !is_up => Self::Lost(now),
            Self::Lost(_) if is_up => Self::Connected,
            other => other,
        }
    }

    /// Whether there is, or was lately, somebody to whom media can be sent.
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

/// An offer of ours that waits for its answer.
pub(super) struct Pending {
    pub(super) offer: SdpPendingOffer,
    pub(super) made: Instant,
    /// What is published once it is answered.
    pub(super) publications: Vec<(Mid, String, Kind)>,
    /// What is subscribed to then.
    pub(super) subscriptions: Vec<Mid>,
}

/// What a transceiver of a session carries to it.
pub(super) struct Subscription {
    /// None once the publisher ended it.
    pub(super) track: Option<TrackKey>,
    pub(super) publisher: SessionId,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) wish: LayerWish,
    pub(super) state: SubscriptionState,
    pub(super) forward: Forward,
    /// Since when it is paused because the connection takes no more.
    pub(super) paused: Option<Instant>,
    /// The payload type here for each of the publisher's; none where this client cannot take it.
    pub(super) payload_types: Vec<(Pt, Option<Pt>)>,
    /// The stream by which the library sends it, once something was sent.
    pub(super) ssrc: Option<Ssrc>,
    /// The payload types that were offered for it; all where there are none.
    pub(super) formats: Vec<u8>,
    pub(super) packets: u64,
}

/// Whether the client agreed to a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubscriptionState {
    /// It was offered.
    Offered,
    /// It did.
    Open,
    /// It did not, or not to the track's codec.
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
            waits_for_books: false,
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

    /// Adds a source address; gives back the one that it displaces: the least recently heard that carries no media.
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

    /// Notes that a source address was heard, and whether media take it.
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

    /// Admits a connectivity check from an unknown address that names this session; false once over [`MOST_CHECKS`].
    pub(super) fn expects(&mut self, now: Instant) -> bool {
        let (since, checks) = &mut self.checks;
        if now.saturating_duration_since(*since) >= Duration::from_secs(1) {
            (*since, *checks) = (now, 0);
        }
        *checks += 1;
        *checks <= MOST_CHECKS
    }

    /// What the connection takes, in bits a second; none where nothing is known to be short.
    pub(super) fn estimate(&self) -> Option<u64> {
        self.twcc.or(self.remb.bits())
    }

    /// Whether its connection is measured finely, or will be.
    pub(super) fn is_measured(&self) -> bool {
        self.wants_twcc && self.is_measurable
    }

    /// What is negotiated with the client.
    pub(super) fn terms(&self) -> Terms {
        let subscriptions = self.subscriptions.iter().filter(|(_, s)| !s.formats.is_empty());
        Terms {
            feedback: if self.is_measured() { Feedback::Wanted } else { Feedback::Unwanted },
            is_unbundled: self.is_unbundled,
            formats: subscriptions.map(|(mid, s)| (mid.to_string(), s.formats.clone())).collect(),
        }
    }

    /// Whether the client takes a subscription's track, by the last negotiation.
    pub(super) fn accepts(&self, mid: Mid) -> bool {
        let (Some(rtc), Some(subscription)) = (self.rtc.as_deref(), self.subscriptions.get(&mid)) else {
            return false;
        };
        let Some(media) = rtc.media(mid).filter(|media| media.direction().is_sending()) else { return false };
        let formats = &subscription.formats;
        media.remote_pts().iter().any(|pt| formats.is_empty() || formats.contains(pt))
    }

    /// Opens subscriptions that the client refused and takes now.
    pub(super) fn accept_again(&mut self) {
        let refused = self.subscriptions.iter().filter(|(_, s)| s.state == SubscriptionState::Refused);
        let taken: Vec<Mid> = refused.map(|(mid, _)| *mid).filter(|mid| self.accepts(*mid)).collect();
        for mid in taken {
            if let Some(subscription) = self.subscriptions.get_mut(&mid) {
                subscription.state = SubscriptionState::Open;
            }
        }
    }

    /// The client's name of a section.
    pub(super) fn client_mid(&self, mid: Mid) -> String {
        let section = self.sections.iter().find(|section| section.alias == mid);
        section.map_or_else(|| mid.to_string(), |section| section.mid.clone())
    }

    /// How many tracks it publishes and subscribes to.
    pub(super) fn tracks(&self) -> usize {
        self.publications.len() + self.subscriptions.len()
    }

    /// Packets that the client said it missed.
    pub(super) fn lost_packets(&self) -> u64 {
        self.lost.values().map(|counted| counted[0]).sum()
    }

    /// Whether the client missed much video lately.
    pub(super) fn is_lossy(&self, now: Instant) -> bool {
        self.lossy.is_some_and(|at| now.saturating_duration_since(at) < LOSSY)
    }

    /// Counts what the library counted of a stream to the client.
    pub(super) fn count_losses(&mut self, now: Instant, stats: &MediaEgressStats, counters: &mut Counters) {
        let is_video = self.subscriptions.get(&stats.mid).is_some_and(|s| s.kind == Kind::Video);
        if is_video && stats.loss.is_some_and(|loss| loss > MUCH_LOSS) {
            self.lossy = Some(now);
        }
        let lost = stats.remote.as_ref().map_or(0, |remote| remote.packets_lost);
        let counted = self.lost.entry(stats.mid).or_default();
        counters.nacks_received += stats.nacks.saturating_sub(counted[1]);
        *counted = [lost, stats.nacks, stats.plis];
    }

    /// Counts what the library counted of a stream from the client.
    pub(super) fn count_requests(&mut self, stats: &MediaIngressStats, counters: &mut Counters) {
        let counted = self.asked.entry((stats.mid, stats.rid)).or_default();
        counters.nacks_sent += stats.nacks.saturating_sub(counted[0]);
        *counted = [stats.nacks, stats.plis];
    }

    /// Forgets what was counted of a transceiver that is gone.
    pub(super) fn forget(&mut self, mid: Mid) {
        self.lost.remove(&mid);
        self.asked.retain(|(of, _), _| *of != mid);
    }

    /// The client's codecs, once something was negotiated.
    pub(super) fn codecs(&self) -> Option<&CodecConfig> {
        self.rtc.as_deref().map(Rtc::codec_config)
    }
}
