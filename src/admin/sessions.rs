//! Sessions of the console: who has shown a token, and may use the API by a cookie for a while.
//!
//! They are in memory alone: a restart signs operators out.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde::Serialize;
use tokio::time::Instant;

/// Time without a request after which a session ends. An open console asks every few seconds.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Maximum time of a session.
pub(super) const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// Maximum number of sessions; a further one ends the one that was idle for longest.
const MAX_SESSIONS: usize = 100;

/// The rights of whoever uses the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    /// May do everything.
    Operator,
    /// May look.
    Viewer,
}

/// The sessions.
#[derive(Debug, Default)]
pub(super) struct ConsoleSessions {
    sessions: Mutex<HashMap<SessionKey, Session>>,
}

/// The digest of a session's token: what is found in memory opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SessionKey([u8; 32]);

#[derive(Clone, Copy, Debug)]
struct Session {
    role: Role,
    opened: Instant,
    used: Instant,
}

impl Session {
    fn lasts(&self, now: Instant) -> bool {
        now < self.opened + LIFETIME && now < self.used + IDLE_TIMEOUT
    }
}

impl SessionKey {
    /// The key of a token that a request shows.
    pub(super) fn of(token: &str) -> Self {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(key)
    }
}

impl ConsoleSessions {
    /// Opens a session; returns its token.
    ///
    /// # Errors
    /// [`getrandom::Error`] if the system has no random bytes.
    pub(super) fn open(&self, role: Role, now: Instant) -> Result<SecretString, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        let token = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let mut sessions = self.lock();
        sessions.retain(|_, session| session.lasts(now));
        if sessions.len() >= MAX_SESSIONS {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.used).map(|(key, _)| *key);
            oldest.and_then(|oldest| sessions.remove(&oldest));
        }
        sessions.insert(SessionKey::of(&token), Session { role, opened: now, used: now });
        Ok(token.into())
    }

    /// The role of a session that lasts, which counts as used.
    pub(super) fn role(&self, key: &SessionKey, now: Instant) -> Option<Role> {
        let mut sessions = self.lock();
        let session = sessions.get_mut(key).filter(|session| session.lasts(now))?;
        session.used = now;
        Some(session.role)
    }

    /// True while a session lasts; it does not count as used.
    pub(super) fn lasts(&self, key: &SessionKey, now: Instant) -> bool {
        self.lock().get(key).is_some_and(|session| session.lasts(now))
    }

    /// Ends a session.
    pub(super) fn close(&self, key: &SessionKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionKey, Session>> {
        // No code panics under this lock.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::clock::now;

    fn open(sessions: &ConsoleSessions, at: Instant) -> SessionKey {
        SessionKey::of(sessions.open(Role::Operator, at).unwrap().expose_secret())
    }

    #[test]
    fn session_ends_when_idle_old_or_closed() {
        let (sessions, start) = (ConsoleSessions::default(), now());
        let key = open(&sessions, start);
        let mut at = start;
        // Used again and again, until it is too old.
        while at + IDLE_TIMEOUT / 2 < start + LIFETIME {
            assert_eq!(sessions.role(&key, at), Some(Role::Operator));
            at += IDLE_TIMEOUT / 2;
        }
        assert!(sessions.lasts(&key, at) && !sessions.lasts(&key, start + LIFETIME));
        assert_eq!(sessions.role(&key, start + LIFETIME), None);
        let key = open(&sessions, start);
        assert_eq!(sessions.role(&key, start + IDLE_TIMEOUT), None);
        let key = open(&sessions, start);
        sessions.close(&key);
        assert_eq!(sessions.role(&key, start), None);
        assert_eq!(sessions.role(&SessionKey::of(""), start), None);
    }

    #[test]
    fn sessions_are_bounded_and_differ() {
        let (sessions, start) = (ConsoleSessions::default(), now());
        let keys: Vec<_> = (0..=MAX_SESSIONS as u32)
            .map(|n| open(&sessions, start + Duration::from_secs(n.into())))
            .collect();
        let at = start + Duration::from_secs(MAX_SESSIONS as u64);
        let lasting = keys.iter().filter(|key| sessions.lasts(key, at)).count();
        assert_eq!((lasting, sessions.lasts(&keys[0], at)), (MAX_SESSIONS, false));
    }
}
