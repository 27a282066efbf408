//! What is done with sessions' peers, and what they say to it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use str0m::media::Pt;
use str0m::net::Protocol;
use str0m::rtp::RtpPacket;
use str0m::{Event, Input, Output, Reason, Rtc, RtcError};

use super::credentials::reseed;
use super::{Engine, SessionKey, Transmit};
use crate::sfu::counters::Drop;
use crate::sfu::request::Ice;

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
pub(super) struct Said {
    /// What they told of themselves.
    pub(super) events: VecDeque<(SessionKey, Event)>,
    /// Packets that came to them.
    pub(super) packets: VecDeque<(SessionKey, RtpPacket)>,
    /// What they want sent.
    pub(super) transmits: VecDeque<Transmit>,
}

impl Engine {
    /// Hands something to a session's peer, and takes what it says.
    pub(super) fn input(&mut self, now: Instant, key: SessionKey, input: Input<'_>) {
        let is_time = matches!(input, Input::Timeout(_));
        let Some(session) = self.sessions.get_mut(key) else { return };
        let mut awaited = std::mem::take(&mut session.awaited);
        let mut said = std::mem::take(&mut self.said);
        let before = said.transmits.len();
        let done = self.attempt(key, |rtc| match rtc.handle_input(input) {
            // Network input may be malformed. A timeout cannot be.
            Err(error) if is_time => Err(error),
            _ => said.hear(now, key, rtc, &mut awaited).map(|at| (at, rtc.is_alive())),
        });
        self.said = said;
        let (mut timer, mut wait) = (None, IDLE_WAIT);
        if let Some(session) = self.sessions.get_mut(key) {
            awaited.clear();
            session.awaited = awaited;
            // What is put off for books alone is put off by every packet: with it they are kept, too.
            timer = session.timer.filter(|at| *at > now && !session.waits_for_books);
            session.waits_for_books = matches!(done, Some(Ok((Wanted::ForBooks(_), true))))
                || timer.is_none() && matches!(done, Some(Ok((Wanted::Later, true))));
            if session.is_measured() {
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
    pub(super) fn with_rtc<T, E: std::fmt::Display>(
        &mut self,
        now: Instant,
        key: SessionKey,
        act: impl FnOnce(&mut Rtc) -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        reseed();
        let result = self.attempt(key, act)?;
        self.input(now, key, Input::Timeout(now));
        Some(result)
    }

    /// Writes something to a session's peer, which is sent once somebody asks for it.
    pub(super) fn write<T, E: std::fmt::Display>(
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
    pub(super) fn send_written(&mut self, now: Instant, key: SessionKey) {
        // It may have ended since.
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.has_unsent = false;
        self.input(now, key, Input::Timeout(now));
    }

    /// Sends RTCP BYE and a DTLS close_notify to a session's peer. A browser notices a peer that only falls silent after
    /// many seconds.
    pub(super) fn send_close(&mut self, now: Instant, key: SessionKey) {
        if !self.sessions.get(key).is_some_and(|session| session.link.takes_media()) {
            return;
        }
        let mut said = std::mem::take(&mut self.said);
        let _ = self.attempt(key, |rtc| {
            rtc.close()?;
            said.hear(now, key, rtc, &mut Vec::new())
        });
        self.said = said;
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
        let mut time = now;
        for _ in 0..MOST_PASSES {
            let before = self.transmits.len();
            let Some(at) = self.hear_once(key, rtc, awaited)? else { return Ok(Wanted::Later) };
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

    /// Takes what there is, until the peer has no more or the last awaited packet came: what else there is
    /// came before it, and asking on costs as much as the packet. Tells when the peer wants to be called.
    fn hear_once(
        &mut self,
        key: SessionKey,
        rtc: &mut Rtc,
        awaited: &mut Vec<Pt>,
    ) -> Result<Option<Instant>, RtcError> {
        loop {
            match rtc.poll_output()? {
                Output::Timeout(at) => return Ok(Some(at)),
                Output::Transmit(transmit) => {
                    let contents: Vec<u8> = transmit.contents.into();
                    let sent = media_payload_type(&contents);
                    let transmit = Transmit {
                        proto: transmit.proto,
                        source: transmit.source,
                        destination: transmit.destination,
                        is_video: transmit.proto != Protocol::Udp && sent.is_some_and(|pt| is_video(rtc, pt)),
                        contents,
                    };
                    self.transmits.push_back(transmit);
                    if let Some(place) = awaited.iter().position(|awaited| Some(**awaited) == sent) {
                        awaited.swap_remove(place);
                        if awaited.is_empty() {
                            return Ok(None);
                        }
                    }
                }
                Output::Event(Event::RtpPacket(packet)) => self.packets.push_back((key, packet)),
                Output::Event(event) => self.events.push_back((key, event)),
            }
        }
    }
}

/// Whether a payload type is one of video, or sends video again.
fn is_video(rtc: &Rtc, payload_type: u8) -> bool {
    let mut formats = rtc.codec_config().params().iter();
    let format = formats.find(|format| {
        *format.pt() == payload_type || format.resend().is_some_and(|again| *again == payload_type)
    });
    format.is_some_and(|format| format.spec().codec.is_video())
}

/// The payload type of an encrypted media packet; none of what is something else (RFC 7983, RFC 5761).
fn media_payload_type(contents: &[u8]) -> Option<u8> {
    match *contents {
        [128..=191, second, ..] if !(64..=95).contains(&(second & 0x7f)) => Some(second & 0x7f),
        _ => None,
    }
}
