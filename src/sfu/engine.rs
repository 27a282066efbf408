//! The media server as a value: sessions, tracks, and who receives what. It has no socket and no clock.
//!
//! Whatever enters (a request, a datagram, a time that has come) is dealt with at once. What is to be
//! sent is made while [`Engine::transmit`] asks for it: a session that is to send ten packets of a batch
//! is looked after once, and nothing piles up in between.

mod calls;
mod forwarding;
mod peer;
mod report;
mod session;
mod sources;
mod strangers;
mod update;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use slotmap::{SlotMap, new_key_type};
use str0m::bwe::BweKind;
use str0m::config::DtlsCert;
use str0m::media::Pt;
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpPacket;
use str0m::{Event, Input, Output, Reason, Rtc, RtcError};

use super::counters::{Counters, Drop};
use super::request::{Ice, Limits};
use crate::id::SessionId;
use forwarding::Track;
use peer::candidate;
use session::{Link, Session};
use strangers::Strangers;

/// How often sessions are looked at that nothing happens to.
const TICK: Duration = Duration::from_millis(500);

/// The library wants to be called again right after each packet, to keep its books. Together will do.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// How long books may wait where nothing is left to send: mostly the next packet comes before. While
/// layers are chosen they are not to wait: the measurement of the connection is among them.
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// The library sends one packet at a time, and the next once so much time went on.
const NEXT_PACKET: Duration = Duration::from_micros(1);

/// How often a session is asked at once for what it has to send; it has no more packets than are written
/// to it in a batch, sent again or made up to measure the connection.
const MOST_PASSES: usize = 512;

new_key_type! {
    /// A session, as long as it lives.
    struct SessionKey;
    /// A track, as long as it is published.
    struct TrackKey;
}

/// What an engine is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What sessions may use.
    pub limits: Limits,
    /// Where clients find this server.
    pub candidates: Vec<Address>,
}

/// An address at which clients find this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Over what.
    pub proto: Protocol,
    /// The address.
    pub address: SocketAddr,
}

/// What came from the network.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Over what.
    pub proto: Protocol,
    /// From where.
    pub source: SocketAddr,
    /// To which of the candidates.
    pub destination: SocketAddr,
    /// The bytes.
    pub contents: &'a [u8],
}

/// What goes into the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Over what.
    pub proto: Protocol,
    /// From which of the candidates.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// The bytes.
    pub contents: Vec<u8>,
}

/// The media server.
pub struct Engine {
    settings: Settings,
    certificate: Option<DtlsCert>,
    /// The candidates as lines of a description.
    candidate_lines: Vec<String>,
    sessions: SlotMap<SessionKey, Session>,
    tracks: SlotMap<TrackKey, Track>,
    by_id: HashMap<SessionId, SessionKey>,
    by_ufrag: HashMap<String, SessionKey>,
    by_source: HashMap<(Protocol, SocketAddr), SessionKey>,
    by_name: HashMap<(SessionKey, String), TrackKey>,
    timers: BTreeSet<(Instant, SessionKey)>,
    next_tick: Instant,
    strangers: Strangers,
    said: Said,
    /// Sessions that ended while something was done with them.
    ended: Vec<SessionKey>,
    /// Sessions to which something was written that they did not send yet, and since when.
    unsent: VecDeque<SessionKey>,
    written_at: Instant,
    counters: Counters,
}

/// When a session's peer wants to be called.
enum Wanted {
    /// Then.
    Known(Instant),
    /// Then, to measure the connection and to pace what it sends.
    ForBooks(Instant),
    /// Some time after it sent all that there was.
    Later,
}

/// What sessions said and nobody dealt with yet.
#[derive(Default)]
struct Said {
    /// What they told of themselves.
    events: VecDeque<(SessionKey, Event)>,
    /// Packets that came to them.
    packets: VecDeque<(SessionKey, RtpPacket)>,
    /// What they want sent.
    transmits: VecDeque<Transmit>,
}

impl Engine {
    /// A media server without sessions.
    pub fn new(settings: Settings, start: Instant) -> Self {
        let candidates = settings.candidates.iter().filter_map(|address| candidate(*address));
        let candidate_lines = candidates.map(|candidate| candidate.to_sdp_string()).collect();
        let provider = str0m::crypto::from_feature_flags();
        Self {
            settings,
            // One for all, as RFC 8827 section 6.5 lets it be: making one takes longer than the rest.
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
            strangers: Strangers::new(start),
            said: Said::default(),
            ended: Vec::new(),
            unsent: VecDeque::new(),
            written_at: start,
            counters: Counters::default(),
        }
    }

    /// When [`Self::advance`] is to be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let timer = self.timers.first().map_or(self.next_tick, |(at, _)| *at);
        (!self.sessions.is_empty()).then(|| timer.min(self.next_tick))
    }

    /// What is to be sent next. To be called after each of the other calls until there is nothing.
    pub fn transmit(&mut self) -> Option<Transmit> {
        while self.said.transmits.is_empty() {
            let key = self.unsent.pop_front()?;
            self.send_written(self.written_at, key);
            self.settle(self.written_at);
        }
        self.said.transmits.pop_front()
    }

    /// What was counted since the beginning, and how much there is now.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Does what is due at `now`.
    pub fn advance(&mut self, now: Instant) {
        // Each once: a peer that wants to be called at once for ever keeps nobody else waiting.
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

    /// Takes what came from the network.
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
        // The library takes bytes of strangers apart here.
        let parsed = catch_unwind(|| Receive::new(proto, source, destination, contents));
        let Ok(Ok(receive)) = parsed else {
            self.counters.dropped(Drop::Malformed);
            return;
        };
        let input = Input::Receive(now, receive);
        let Some(rtc) = self.sessions.get(key).and_then(|session| session.rtc.as_deref()) else {
            self.counters.dropped(Drop::UnknownSource);
            return;
        };
        if known != Some(key) {
            let accepts = catch_unwind(AssertUnwindSafe(|| rtc.accepts(&input)));
            if !accepts.unwrap_or(false) {
                self.counters.dropped(Drop::UnknownSource);
                return;
            }
            self.learn(key, proto, source);
        }
        if let Some(session) = self.sessions.get_mut(key) {
            session.received_bytes += contents.len() as u64;
        }
        self.input(now, key, input);
        self.settle(now);
    }

    /// Hands something to a session's peer, and takes what it says.
    fn input(&mut self, now: Instant, key: SessionKey, input: Input<'_>) {
        let is_time = matches!(input, Input::Timeout(_));
        let Some(session) = self.sessions.get_mut(key) else { return };
        let mut awaited = std::mem::take(&mut session.awaited);
        let mut said = std::mem::take(&mut self.said);
        let before = said.transmits.len();
        let done = self.attempt(key, |rtc| match rtc.handle_input(input) {
            // What strangers send may be nonsense. That time goes on cannot be wrong.
            Err(error) if is_time => Err(error),
            _ => said.hear(now, key, rtc, &mut awaited).map(|at| (at, rtc.is_alive())),
        });
        self.said = said;
        let (mut timer, mut wait) = (None, IDLE_WAIT);
        if let Some(session) = self.sessions.get_mut(key) {
            awaited.clear();
            session.awaited = awaited;
            timer = session.timer.filter(|at| *at > now);
            if session.has_choice {
                wait = SHORTEST_WAIT;
            }
            let sent = self.said.transmits.iter().skip(before);
            session.sent_bytes += sent.map(|sent| sent.contents.len() as u64).sum::<u64>();
            if session.ice == Ice::Full {
                self.expect_answers(key, before);
            }
        }
        match done {
            Some(Ok((Wanted::Known(at), true))) => self.set_timer(key, at.max(now + SHORTEST_WAIT)),
            Some(Ok((Wanted::ForBooks(at), true))) => self.set_timer(key, at.max(now + wait)),
            Some(Ok((Wanted::Later, true))) => {
                self.set_timer(key, timer.map_or(now + wait, |at| at.min(now + wait)));
            }
            Some(Ok((_, false))) => self.ended.push(key),
            Some(Err(error)) => {
                tracing::debug!(event = "mediaSessionFailed", %error);
                self.ended.push(key);
            }
            None => {}
        }
    }

    /// Does something with a session's peer, and takes what it says.
    fn with_rtc<T, E: std::fmt::Display>(
        &mut self,
        now: Instant,
        key: SessionKey,
        act: impl FnOnce(&mut Rtc) -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        let result = self.attempt(key, act)?;
        self.input(now, key, Input::Timeout(now));
        Some(result)
    }

    /// Writes something to a session's peer, which is sent once somebody asks for it.
    fn write<T, E: std::fmt::Display>(
        &mut self,
        now: Instant,
        key: SessionKey,
        act: impl FnOnce(&mut Rtc) -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        let result = self.attempt(key, act)?;
        self.written_at = now;
        if let Some(session) = self.sessions.get_mut(key)
            && !std::mem::replace(&mut session.has_unsent, true)
        {
            self.unsent.push_back(key);
        }
        Some(result)
    }

    /// Lets a session's peer send what was written to it.
    fn send_written(&mut self, now: Instant, key: SessionKey) {
        // It may have ended since.
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.has_unsent = false;
        self.input(now, key, Input::Timeout(now));
    }

    /// Does something with a session's peer. A panic in it ends the session, and nothing else.
    fn attempt<T>(&mut self, key: SessionKey, act: impl FnOnce(&mut Rtc) -> T) -> Option<T> {
        let session = self.sessions.get_mut(key)?;
        let rtc = session.rtc.as_deref_mut()?;
        let done = catch_unwind(AssertUnwindSafe(|| act(rtc)));
        if done.is_err() {
            // What is left of it cannot be trusted.
            session.rtc = None;
            self.counters.dropped(Drop::Panic);
            self.ended.push(key);
        }
        done.ok()
    }

    /// Keeps in mind whom a session asks that makes checks of its own: answers to them name nobody.
    fn expect_answers(&mut self, key: SessionKey, before: usize) {
        let asked = self.said.transmits.iter().skip(before).map(|sent| (sent.proto, sent.destination));
        let new: Vec<_> = asked.filter(|asked| !self.by_source.contains_key(asked)).collect();
        for (proto, destination) in new {
            self.learn(key, proto, destination);
        }
    }

    fn set_timer(&mut self, key: SessionKey, at: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        // The library's "never" is years away, and its own past is now.
        let at =
            Some(at).filter(|at| at.saturating_duration_since(self.next_tick) < Duration::from_secs(3600));
        if session.timer == at {
            return;
        }
        if let Some(before) = std::mem::replace(&mut session.timer, at) {
            self.timers.remove(&(before, key));
        }
        if let Some(at) = at {
            self.timers.insert((at, key));
        }
    }

    /// Deals with everything that came of what was done, until nothing comes any more.
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

    /// Deals with what sessions told of themselves.
    fn take_events(&mut self, now: Instant) {
        while let Some((key, event)) = self.said.events.pop_front() {
            let Some(session) = self.sessions.get_mut(key) else { continue };
            match event {
                Event::Connected => {
                    session.link = Link::Connected;
                    self.ask_for_pictures(now, key);
                }
                Event::IceConnectionStateChange(state) => session.link = session.link.after(state, now),
                Event::KeyframeRequest(request) => self.picture_was_lost(now, key, request.mid),
                Event::EgressBitrateEstimate(BweKind::Twcc { estimate, .. }) if session.has_choice => {
                    session.estimate = Some(estimate.as_u64());
                    self.choose_layers(now, key);
                }
                Event::MediaEgressStats(stats) => session.count_losses(&stats, &mut self.counters),
                Event::MediaIngressStats(stats) => session.count_requests(&stats, &mut self.counters),
                Event::Closed => self.ended.push(key),
                _ => {}
            }
        }
    }

    /// Looks after sessions that nothing happens to.
    fn tick(&mut self, now: Instant) {
        let Limits { connect, idle, .. } = self.settings.limits;
        let over = |session: &Session| match session.link {
            Link::New(since) => now.saturating_duration_since(since) > idle,
            Link::Connecting(since) | Link::Lost(since) => now.saturating_duration_since(since) > connect,
            Link::Connected => false,
        };
        self.ended.extend(self.sessions.iter().filter(|(_, session)| over(session)).map(|(key, _)| key));
        let subscribers = self.sessions.iter().filter(|(_, session)| session.has_choice);
        let subscribers: Vec<SessionKey> = subscribers.map(|(key, _)| key).collect();
        for key in subscribers {
            self.choose_layers(now, key);
        }
        self.ask_again(now);
        self.count_gauges();
    }

    /// Ends a session: its tracks are gone for everybody.
    fn remove(&mut self, now: Instant, key: SessionKey) {
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

impl Said {
    /// Takes what a session's peer has to say, which is at least the packets that are awaited.
    fn hear(
        &mut self,
        now: Instant,
        key: SessionKey,
        rtc: &mut Rtc,
        awaited: &mut Vec<Pt>,
    ) -> Result<Wanted, RtcError> {
        let awaits_some = !awaited.is_empty();
        let mut time = now;
        for _ in 0..MOST_PASSES {
            let before = self.transmits.len();
            let at = self.hear_once(key, rtc)?;
            for sent in self.transmits.iter().skip(before).filter_map(media_payload_type) {
                if let Some(place) = awaited.iter().position(|awaited| **awaited == sent) {
                    awaited.swap_remove(place);
                }
            }
            if awaits_some && awaited.is_empty() {
                return Ok(Wanted::Later);
            }
            if at > time + NEXT_PACKET || (self.transmits.len() == before && awaited.is_empty()) {
                return Ok(match rtc.last_timeout_reason() {
                    Reason::BweDelayControl | Reason::BweProbeControl | Reason::Pacer(_) => {
                        Wanted::ForBooks(at)
                    }
                    _ => Wanted::Known(at),
                });
            }
            time = at.max(time);
            rtc.handle_input(Input::Timeout(time))?;
        }
        Ok(Wanted::Known(now))
    }

    fn hear_once(&mut self, key: SessionKey, rtc: &mut Rtc) -> Result<Instant, RtcError> {
        loop {
            match rtc.poll_output()? {
                Output::Timeout(at) => return Ok(at),
                Output::Transmit(transmit) => self.transmits.push_back(Transmit {
                    proto: transmit.proto,
                    source: transmit.source,
                    destination: transmit.destination,
                    contents: transmit.contents.into(),
                }),
                Output::Event(Event::RtpPacket(packet)) => self.packets.push_back((key, packet)),
                Output::Event(event) => self.events.push_back((key, event)),
            }
        }
    }
}

/// The payload type of an encrypted media packet; none of what is something else (RFC 7983, RFC 5761).
fn media_payload_type(transmit: &Transmit) -> Option<u8> {
    match transmit.contents[..] {
        [128..=191, second, ..] if !(64..=95).contains(&(second & 0x7f)) => Some(second & 0x7f),
        _ => None,
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("counters", &self.counters).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
