//! Drives the sessions' str0m peers and collects their output.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use str0m::media::Pt;
use str0m::net::Protocol;
use str0m::rtp::RtpPacket;
use str0m::{Event, Input, Output, Reason, Rtc, RtcError};

use super::credentials::reseed;
use super::{Engine, SessionKey, Transmit};
use crate::counters::DropReason;
use crate::request::Ice;

/// Shortest timeout of a peer: str0m asks to be called again right after each packet, for its bookkeeping, and
/// packets can share one call.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Maximum delay of a peer's bookkeeping while nothing is left to send: mostly the next packet comes before. With
/// TWCC it is [`SHORTEST_WAIT`], since bandwidth estimation is part of the bookkeeping.
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// str0m sends one packet at a time, and the next once this time has passed.
const NEXT_PACKET: Duration = Duration::from_micros(1);

/// Maximum number of polls of a session in one call; it has no more packets than are written to it in a batch,
/// retransmitted or sent as probes.
const MAX_PASSES: usize = 512;

/// Next timeout of a session's peer.
enum Wanted {
    /// At this time.
    Known(Instant),
    /// At this time, for bandwidth estimation and pacing.
    ForBooks(Instant),
    /// Not known yet: the last awaited packet was sent, and the peer was not polled further.
    Later,
}

/// Output of sessions' peers that is not handled yet.
#[derive(Default)]
pub(super) struct PeerOutputs {
    /// Events of the sessions.
    pub(super) events: VecDeque<(SessionKey, Event)>,
    /// RTP packets received from the sessions' clients.
    pub(super) packets: VecDeque<(SessionKey, RtpPacket)>,
    /// Datagrams to send.
    pub(super) transmits: VecDeque<Transmit>,
}

impl Engine {
    /// Passes input to a session's peer and collects its output.
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
            // A timeout only for bookkeeping is postponed by every packet, since each packet does that bookkeeping,
            // too.
            timer = session.timer.filter(|at| *at > now && !session.timer_is_bookkeeping);
            session.timer_is_bookkeeping = matches!(done, Some(Ok((Wanted::ForBooks(_), true))))
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

    /// Calls a session's peer and collects its output.
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

    /// Writes to a session's peer; the output is collected once [`Self::transmit`] asks for it.
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

    /// Collects the output of a session to which something was written.
    pub(super) fn send_written(&mut self, now: Instant, key: SessionKey) {
        // The session may have ended since.
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.has_unsent = false;
        self.input(now, key, Input::Timeout(now));
    }

    /// Sends RTCP BYE and a DTLS close_notify to a session's peer. Without them a browser takes many seconds to
    /// notice.
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

    /// Calls a session's peer. A panic in it ends that session only.
    fn attempt<T>(&mut self, key: SessionKey, act: impl FnOnce(&mut Rtc) -> T) -> Option<T> {
        let session = self.sessions.get_mut(key)?;
        let rtc = session.rtc.as_deref_mut()?;
        let done = catch_unwind(AssertUnwindSafe(|| act(rtc)));
        if done.is_err() {
            // Its state may be inconsistent.
            session.rtc = None;
            self.counters.dropped(DropReason::Panic);
            self.ended.push(key);
        }
        done.ok()
    }

    /// Maps the addresses that a session with its own connectivity checks sent to: responses carry no USERNAME.
    fn expect_answers(&mut self, key: SessionKey, before: usize) {
        let asked = self.said.transmits.iter().skip(before).map(|sent| (sent.proto, sent.destination));
        let new: Vec<_> = asked.filter(|asked| !self.by_source.contains_key(asked)).collect();
        for (proto, destination) in new {
            self.learn(key, proto, destination);
        }
    }

    fn set_timer(&mut self, key: SessionKey, at: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        // str0m's "never" is years away; a timeout in the past counts as due now.
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

impl PeerOutputs {
    /// Collects a peer's output, at least until the awaited packets are sent.
    fn hear(
        &mut self,
        now: Instant,
        key: SessionKey,
        rtc: &mut Rtc,
        awaited: &mut Vec<Pt>,
    ) -> Result<Wanted, RtcError> {
        let mut time = now;
        for _ in 0..MAX_PASSES {
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

    /// Polls until the peer has no more output or the last awaited packet was sent: other output precedes it, and
    /// another poll costs as much as the packet. Returns the next timeout, or none if it stopped at an awaited
    /// packet.
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

/// True if a payload type is one of video, or of its retransmissions.
fn is_video(rtc: &Rtc, payload_type: u8) -> bool {
    let mut formats = rtc.codec_config().params().iter();
    let format = formats.find(|format| {
        *format.pt() == payload_type || format.resend().is_some_and(|again| *again == payload_type)
    });
    format.is_some_and(|format| format.spec().codec.is_video())
}

/// Returns the payload type of an SRTP packet; none for anything else (RFC 7983, RFC 5761).
fn media_payload_type(contents: &[u8]) -> Option<u8> {
    match *contents {
        [128..=191, second, ..] if !(64..=95).contains(&(second & 0x7f)) => Some(second & 0x7f),
        _ => None,
    }
}
