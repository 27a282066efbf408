//! Demultiplexes datagrams to sessions.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use str0m::Input;
use str0m::ice::StunMessage;
use str0m::net::{Protocol, Receive};

use super::session::{Link, Session};
use super::{Datagram, Engine, SessionKey, Transmit};
use crate::counters::DropReason;
use crate::request::Ice;

impl Engine {
    /// Returns the session of a datagram: that of its source address, or the one that a connectivity check names.
    pub(super) fn owner(
        &mut self,
        now: Instant,
        known: Option<SessionKey>,
        datagram: Datagram<'_>,
    ) -> Result<SessionKey, DropReason> {
        // RFC 7983 section 7: 0 to 3 is STUN.
        let is_stun = datagram.contents.first().is_some_and(|first| *first < 4);
        if !is_stun {
            return known.ok_or(DropReason::UnknownSource);
        }
        let message = catch_unwind(|| {
            let message = StunMessage::parse(datagram.contents).ok()?;
            Some(message.split_username().map(|(ufrag, _)| ufrag.to_owned()))
        });
        let message = message.ok().flatten();
        let named = match &message {
            Some(Some(ufrag)) => self.by_ufrag.get(ufrag).copied(),
            // Responses to the server's own checks carry no USERNAME.
            Some(None) | None => known,
        };
        if let Some(key) = known
            && named == known
        {
            return Ok(key);
        }
        // A source address can be forged, and a whole office shares one: a check that names a session passes in any
        // case.
        let is_expected =
            named.and_then(|key| self.sessions.get_mut(key)).is_some_and(|own| own.expects(now));
        if !is_expected && !self.stun_limiter.admit(now, datagram.source.ip()) {
            return Err(DropReason::UnknownTooMany);
        }
        let owner = match message {
            Some(None) => self.asked(now, datagram),
            Some(Some(_)) if named.is_none() && known.is_none() => {
                self.refuse(datagram);
                None
            }
            _ => named,
        };
        owner.ok_or(DropReason::UnknownSource)
    }

    /// True if another session is connected and used this source address for media lately: a peer that forges the
    /// address must not get that session's media.
    pub(super) fn is_in_use(&self, now: Instant, by: SessionKey, source: (Protocol, SocketAddr)) -> bool {
        let session = self.sessions.get(by).filter(|session| session.link == Link::Connected);
        session.is_some_and(|session| session.is_path(now, source))
    }

    /// Refuses a check for a session that no longer exists, such as one from before a restart: a browser then fails
    /// the connection. Without a response it waits, the stock client for 13 s and more.
    fn refuse(&mut self, datagram: Datagram<'_>) {
        let Datagram { proto, source, destination, contents } = datagram;
        // A TCP connection without an answer is closed, which has the same effect.
        if proto != Protocol::Udp {
            return;
        }
        let secret = &self.settings.secret;
        let reply = catch_unwind(AssertUnwindSafe(|| secret.refusal(contents))).ok().flatten();
        let Some(contents) = reply else { return };
        let transmit =
            Transmit { proto, source: destination, destination: source, is_video: false, contents };
        self.said.transmits.push_back(transmit);
    }

    /// Returns the session to whose own check a datagram is the response. Until such a response arrives, the source
    /// of an ICE-lite peer is unknown, since that makes no checks.
    fn asked(&self, now: Instant, datagram: Datagram<'_>) -> Option<SessionKey> {
        let Datagram { proto, source, destination, contents } = datagram;
        // Few sessions match: those with a server as the peer.
        let asking = |(_, session): &(SessionKey, &Session)| {
            session.ice == Ice::Full && session.link != Link::Connected
        };
        let accepts = || {
            let input = Input::Receive(now, Receive::new(proto, source, destination, contents).ok()?);
            let mut asking = self.sessions.iter().filter(asking);
            let found =
                asking.find(|(_, session)| session.rtc.as_deref().is_some_and(|rtc| rtc.accepts(&input)));
            found.map(|(key, _)| key)
        };
        catch_unwind(AssertUnwindSafe(accepts)).ok().flatten()
    }

    /// Maps a source address to a session.
    pub(super) fn learn(&mut self, key: SessionKey, proto: Protocol, source: SocketAddr) {
        if let Some(other) = self.by_source.insert((proto, source), key)
            && let Some(other) = self.sessions.get_mut(other)
        {
            other.sources.retain(|known| *known != (proto, source));
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        if let Some(oldest) = session.learn((proto, source)) {
            self.by_source.remove(&oldest);
        }
    }

    /// Records a packet from a session's peer, and whether media use its source address.
    pub(super) fn touch(&mut self, now: Instant, key: SessionKey, datagram: Datagram<'_>) {
        let Datagram { proto, source, contents, .. } = datagram;
        let is_path = match contents.first() {
            Some(0..4) => is_nominating(contents),
            _ => true,
        };
        if let Some(session) = self.sessions.get_mut(key) {
            session.heard(now, (proto, source), is_path);
        }
    }
}

/// True if a connectivity check nominates its path (RFC 8445 section 8.1.1).
fn is_nominating(contents: &[u8]) -> bool {
    let nominates = || StunMessage::parse(contents).is_ok_and(|message| message.use_candidate());
    catch_unwind(nominates).unwrap_or(false)
}
