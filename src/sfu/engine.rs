//! The SFU as a state machine without I/O or a clock: sessions, tracks and subscriptions.
//!
//! Input (a request, a datagram, an expired timer) is handled at once. Output is produced while [`Engine::transmit`]
//! is polled: a session with ten packets of a batch to send is processed once, and no output accumulates in between.

mod access;
mod bandwidth;
mod calls;
mod credentials;
mod demux;
mod forwarding;
mod outputs;
mod peer;
mod report;
mod session;
mod stun_limiter;
mod table;
mod update;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use slotmap::{SlotMap, new_key_type};
use str0m::config::DtlsCert;
pub use str0m::net::Protocol;
use str0m::net::Receive;
use str0m::{Event, Input};

pub use super::counters::{Counters, DropReason};
use super::settings::SfuLimits;
use crate::id::SessionId;
pub use credentials::IceSecret;
use forwarding::Track;
use outputs::PeerOutputs;
use peer::candidate;
use session::{Link, Session};
use stun_limiter::StunLimiter;

/// Interval of the periodic work: timeouts of sessions, layer choice and keyframe requests.
const TICK: Duration = Duration::from_millis(500);

new_key_type! {
    /// Key of an open session.
    struct SessionKey;
    /// Key of a published track.
    struct TrackKey;
}

/// An engine's settings, fixed at creation.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Limits on sessions and tracks.
    pub limits: SfuLimits,
    /// The server's ICE candidates, under which clients reach it.
    pub candidates: Vec<Address>,
    /// Derives the ICE passwords; the same across restarts.
    pub secret: IceSecret,
    /// First 32 bits of all session ids, if they are not random.
    pub session_prefix: Option<u32>,
}

/// A transport address of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Transport protocol.
    pub proto: Protocol,
    /// IP address and port.
    pub address: SocketAddr,
}

/// A datagram from the network.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Transport protocol.
    pub proto: Protocol,
    /// The peer's address.
    pub source: SocketAddr,
    /// The local candidate that received it.
    pub destination: SocketAddr,
    /// The payload.
    pub contents: &'a [u8],
}

/// A datagram to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Transport protocol.
    pub proto: Protocol,
    /// The local candidate to send from.
    pub source: SocketAddr,
    /// The peer's address.
    pub destination: SocketAddr,
    /// True for video, which is sent after everything else. Set only for transports other than UDP.
    pub is_video: bool,
    /// The payload.
    pub contents: Vec<u8>,
}

/// The media server.
pub struct Engine {
    settings: EngineSettings,
    certificate: Option<DtlsCert>,
    /// The candidates as SDP attribute values.
    candidate_lines: Vec<String>,
    sessions: SlotMap<SessionKey, Session>,
    tracks: SlotMap<TrackKey, Track>,
    by_id: HashMap<SessionId, SessionKey>,
    by_ufrag: HashMap<String, SessionKey>,
    by_source: HashMap<(Protocol, SocketAddr), SessionKey>,
    by_name: HashMap<(SessionKey, String), TrackKey>,
    timers: BTreeSet<(Instant, SessionKey)>,
    next_tick: Instant,
    stun_limiter: StunLimiter,
    said: PeerOutputs,
    /// Sessions that ended during the current operation and are not removed yet.
    ended: Vec<SessionKey>,
    /// Sessions with written packets that are not sent yet, written at `written_at`.
    unsent: VecDeque<SessionKey>,
    written_at: Instant,
    counters: Counters,
}

impl Engine {
    /// Creates a media server without sessions.
    pub fn new(settings: EngineSettings, start: Instant) -> Self {
        let candidates = settings.candidates.iter().filter_map(|address| candidate(*address));
        let candidate_lines = candidates.map(|candidate| candidate.to_sdp_string()).collect();
        let provider = str0m::crypto::from_feature_flags();
        Self {
            settings,
            // One certificate for all sessions, as RFC 8827 section 6.5 permits: generating one takes longer than the
            // rest.
            certificate: provider.dtls_provider.generate_certificate(),
            candidate_lines,
            sessions: SlotMap::with_key(),
            tracks: SlotMap::with_key(),
            by_id: HashMap::new(),
            by_ufrag: HashMap::new(),
            by_source: HashMap::new(),
            by_name: HashMap::new(),
            timers: BTreeSet::new(),
            next_tick: start + TICK,
            stun_limiter: StunLimiter::new(start),
            said: PeerOutputs::default(),
            ended: Vec::new(),
            unsent: VecDeque::new(),
            written_at: start,
            counters: Counters::default(),
        }
    }

    /// Latest time for the next call of [`Self::advance`]; none without sessions.
    pub fn deadline(&self) -> Option<Instant> {
        let timer = self.timers.first().map_or(self.next_tick, |(at, _)| *at);
        (!self.sessions.is_empty()).then(|| timer.min(self.next_tick))
    }

    /// Returns the next datagram to send. To be called after each of the other calls until it returns none.
    pub fn transmit(&mut self) -> Option<Transmit> {
        while self.said.transmits.is_empty() {
            let key = self.unsent.pop_front()?;
            self.send_written(self.written_at, key);
            self.settle(self.written_at);
        }
        self.said.transmits.pop_front()
    }

    /// Returns the counters since the start and the current gauges.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Handles all timers that have expired at `now`.
    pub fn advance(&mut self, now: Instant) {
        // Each session once: a peer that always asks to be called at once cannot delay the others.
        let due = self.timers.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| *key);
        let due: Vec<SessionKey> = due.collect();
        for key in due {
            self.input(now, key, Input::Timeout(now));
        }
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.tick(now);
        }
        self.settle(now);
    }

    /// Handles a datagram from the network.
    pub fn receive(&mut self, now: Instant, datagram: Datagram<'_>) {
        let Datagram { proto, source, destination, contents } = datagram;
        self.counters.received_packets += 1;
        self.counters.received_bytes += contents.len() as u64;
        let known = self.by_source.get(&(proto, source)).copied();
        let key = match self.owner(now, known, datagram) {
            Ok(key) => key,
            Err(why) => {
                self.counters.dropped(why);
                return;
            }
        };
        // str0m parses network input here, which may panic.
        let parsed = catch_unwind(|| Receive::new(proto, source, destination, contents));
        let Ok(Ok(receive)) = parsed else {
            self.counters.dropped(DropReason::Malformed);
            return;
        };
        let input = Input::Receive(now, receive);
        let Some(rtc) = self.sessions.get(key).and_then(|session| session.rtc.as_deref()) else {
            self.counters.dropped(DropReason::UnknownSource);
            return;
        };
        if known != Some(key) {
            let accepts = catch_unwind(AssertUnwindSafe(|| rtc.accepts(&input)));
            if !accepts.unwrap_or(false) {
                self.counters.dropped(DropReason::UnknownSource);
                return;
            }
            if known.is_some_and(|other| self.is_in_use(now, other, (proto, source))) {
                self.counters.dropped(DropReason::UnknownSource);
                return;
            }
            self.learn(key, proto, source);
        }
        self.touch(now, key, datagram);
        if let Some(session) = self.sessions.get_mut(key) {
            session.received_bytes += contents.len() as u64;
        }
        self.input(now, key, input);
        self.settle(now);
    }

    /// Forwards received packets, handles events and removes ended sessions until nothing is left to do.
    fn settle(&mut self, now: Instant) {
        while let Some((key, packet)) = self.said.packets.pop_front() {
            self.forward(now, key, packet);
            self.take_events(now);
        }
        self.take_events(now);
        if self.ended.is_empty() {
            return;
        }
        while let Some(key) = self.ended.pop() {
            self.remove(now, key);
        }
        self.count_gauges();
    }

    /// Handles the events of sessions.
    fn take_events(&mut self, now: Instant) {
        while let Some((key, event)) = self.said.events.pop_front() {
            let Some(session) = self.sessions.get_mut(key) else { continue };
            match event {
                Event::Connected => {
                    session.link = Link::Connected;
                    self.request_awaited_keyframes(now, key);
                }
                Event::IceConnectionStateChange(state) => {
                    let before = session.link;
                    session.link = before.after(state, now);
                    if matches!(before, Link::Lost(_)) && session.link == Link::Connected {
                        self.request_keyframes(now, key);
                    }
                }
                Event::KeyframeRequest(request) => self.keyframe_requested(now, key, request.mid),
                Event::SenderFeedback(report) => self.take_report(key, &report),
                Event::EgressBitrateEstimate(estimate) => self.take_estimate(now, key, &estimate),
                Event::MediaEgressStats(stats) => session.count_losses(now, &stats, &mut self.counters),
                Event::MediaIngressStats(stats) => session.count_requests(&stats, &mut self.counters),
                Event::Closed => self.ended.push(key),
                _ => {}
            }
        }
    }

    /// Does the periodic work: ends timed-out sessions, chooses layers and repeats keyframe requests.
    fn tick(&mut self, now: Instant) {
        let SfuLimits { connect, idle, .. } = self.settings.limits;
        let over = |session: &Session| match session.link {
            Link::New(since) => now.saturating_duration_since(since) > idle,
            Link::Connecting(since) | Link::Lost(since) => now.saturating_duration_since(since) > connect,
            Link::Connected => false,
        };
        self.ended.extend(self.sessions.iter().filter(|(_, session)| over(session)).map(|(key, _)| key));
        self.choose_again(now);
        self.ask_again(now);
        self.count_gauges();
    }

    /// Ends all sessions and returns their number.
    fn end_all(&mut self, now: Instant) -> usize {
        let keys: Vec<SessionKey> = self.sessions.keys().collect();
        for key in &keys {
            self.remove(now, *key);
        }
        keys.len()
    }

    /// Ends a session with its tracks and subscriptions, and notifies its peer.
    fn remove(&mut self, now: Instant, key: SessionKey) {
        self.send_close(now, key);
        let Some(session) = self.sessions.remove(key) else { return };
        self.by_id.remove(&session.id);
        self.by_ufrag.remove(&session.ufrag);
        for source in &session.sources {
            self.by_source.remove(source);
        }
        if let Some(at) = session.timer {
            self.timers.remove(&(at, key));
        }
        for track in session.publications.values() {
            self.unpublish(*track);
        }
        for (mid, subscription) in &session.subscriptions {
            self.unlink(key, *mid, subscription.track);
        }
        let age = now.saturating_duration_since(session.opened);
        tracing::debug!(event = "mediaSessionEnded", session = %session.id, link = session.link.label(), ?age);
    }

    fn count_gauges(&mut self) {
        let sessions = || self.sessions.values();
        self.counters.connected = sessions().filter(|session| session.link == Link::Connected).count();
        self.counters.subscriptions = sessions().map(|session| session.subscriptions.len()).sum();
        self.counters.sessions = self.sessions.len();
        self.counters.tracks = self.tracks.len();
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("counters", &self.counters).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
