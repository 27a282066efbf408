//! The open sessions of long polling, found by their tokens.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use dashmap::DashMap;
use tokio::sync::{mpsc, oneshot};

use super::answer::Chunk;
use super::poller::{Answer, Poller, PollerHandle, Post, poller};
use super::token::SessionToken;
use crate::room::arrivals::{ArrivalPermit, ArrivalShare};

/// All open sessions.
#[derive(Debug, Default)]
pub struct LongPollSessions {
    sessions: DashMap<u64, Arc<OpenSession>>,
}

/// An open session.
#[derive(Debug)]
pub(in crate::ws) struct OpenSession {
    token: SessionToken,
    handle: PollerHandle,
    /// The client's share of the memory for incomplete messages.
    pub(in crate::ws) share: Arc<ArrivalShare>,
}

/// A session among the open ones, until this is dropped.
#[derive(Debug)]
pub(in crate::ws) struct Listed {
    sessions: Arc<LongPollSessions>,
    id: u64,
}

/// Result of a poll.
#[derive(Debug)]
pub(in crate::ws) enum Polled {
    /// Messages, as the elements of an array.
    Messages(mpsc::Receiver<Chunk>),
    /// There were none within the time of a poll.
    Nothing,
}

/// The session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ws) struct Gone;

impl LongPollSessions {
    /// Adds a session, whose polls wait for `poll_time`. Its task is still to be run.
    ///
    /// # Errors
    /// Those of the operating system's generator, which makes the token.
    pub(in crate::ws) fn open(
        self: &Arc<Self>,
        poll_time: Duration,
        share: Arc<ArrivalShare>,
    ) -> Result<(Arc<OpenSession>, Listed, Poller), getrandom::Error> {
        let token = SessionToken::random()?;
        let (handle, poller) = poller(poll_time);
        let (id, session) = (token.id(), Arc::new(OpenSession { token, handle, share }));
        self.sessions.insert(id, session.clone());
        Ok((session, Listed { sessions: self.clone(), id }, poller))
    }

    /// The open session of a token.
    pub(in crate::ws) fn find(&self, token: &SessionToken) -> Option<Arc<OpenSession>> {
        let session = self.sessions.get(&token.id())?.clone();
        session.token.is_same_secret(token).then_some(session)
    }
}

impl OpenSession {
    /// The token as text, which is for the session's client alone.
    pub(in crate::ws) fn token(&self) -> String {
        self.token.to_text()
    }

    #[cfg(test)]
    pub(super) fn handle(&self) -> &PollerHandle {
        &self.handle
    }

    /// Waits for messages.
    ///
    /// # Errors
    /// [`Gone`].
    pub(in crate::ws) async fn poll(&self) -> Result<Polled, Gone> {
        let (poll, answer) = oneshot::channel();
        self.handle.polls.send(poll).await.map_err(|_| Gone)?;
        match answer.await {
            Ok(Answer::Messages(chunks)) => Ok(Polled::Messages(chunks)),
            Ok(Answer::Nothing) => Ok(Polled::Nothing),
            Ok(Answer::Gone) | Err(_) => Err(Gone),
        }
    }

    /// Hands messages of the client on. What was begun goes on if this is dropped.
    ///
    /// # Errors
    /// [`Gone`].
    pub(in crate::ws) async fn post(&self, frames: BytesMut, permit: ArrivalPermit) -> Result<(), Gone> {
        let (done, posted) = oneshot::channel();
        let post = Post { frames, _permit: Some(permit), done };
        self.handle.posts.send(post).await.map_err(|_| Gone)?;
        posted.await.map_err(|_| Gone)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.sessions.sessions.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::arrivals::Arrivals;

    #[tokio::test]
    async fn session_is_found_by_its_whole_token() {
        let sessions = Arc::new(LongPollSessions::default());
        let open = || {
            let share = Arrivals::new(1000).share(None);
            sessions.open(Duration::from_secs(10), share).unwrap()
        };
        let (one, listed, poller) = open();
        let (_other, _other_listed, _other_poller) = open();
        let token = SessionToken::parse(&one.token()).unwrap();
        assert!(Arc::ptr_eq(&sessions.find(&token).unwrap(), &one));
        let mut forged = one.token();
        let other = if forged.as_bytes()[30] == b'A' { "B" } else { "A" };
        forged.replace_range(30..31, other);
        assert!(sessions.find(&SessionToken::parse(&forged).unwrap()).is_none());
        drop(poller);
        assert!(one.poll().await.is_err());
        drop(listed);
        assert!(sessions.find(&token).is_none());
    }
}
