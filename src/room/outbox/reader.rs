//! The socket's end of an outbox.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::OutboxShared;
use crate::id::ConnectionId;
use crate::protocol::close::Close;
use crate::room::message::Payload;

/// A socket's end of an outbox.
#[derive(Clone, Debug)]
pub struct OutboxReader {
    pub(super) shared: Arc<OutboxShared>,
    pub(super) connection: ConnectionId,
}

/// The next action of a socket.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Write this message.
    Message(Payload),
    /// Write a ping, and call [`OutboxReader::acknowledge`] with the number when it is answered.
    Ping(u64),
    /// Write the close frame; there is nothing after it.
    Close(Close),
}

impl OutboxReader {
    /// The next action, or `Pending` until there is one. Only the last caller is woken.
    pub fn poll_take(&self, context: &Context<'_>) -> Poll<Taken> {
        let mut state = self.shared.lock();
        match state.take(self.connection) {
            Some(taken) => Poll::Ready(taken),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Ready, with the reason, once the socket is to be closed, even if messages are still queued; `Pending` until
    /// then. Only the last caller is woken.
    pub fn poll_end(&self, context: &Context<'_>) -> Poll<Close> {
        let mut state = self.shared.lock();
        if state.connection != Some(self.connection) {
            return Poll::Ready(Close::Superseded);
        }
        if let Some(close) = state.end {
            return Poll::Ready(close);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Records that the socket is throttled, or no longer is. Meanwhile its member counts as alive,
    /// and its confirmations may be unread.
    pub fn set_throttled(&self, now: Instant, throttled: bool) {
        let mut state = self.shared.lock();
        if state.connection == Some(self.connection) {
            // Confirmations may have been unread for all of that time.
            if let (Some(throttled), Some(waiting)) = (state.throttled_since.take(), &mut state.waiting_since)
            {
                *waiting += now.duration_since(throttled.max(*waiting));
            }
            state.throttled_since = throttled.then_some(now);
            state.was_throttled |= throttled;
        }
    }

    /// Ready unless the member's events exceed its account's limit because others fall behind;
    /// until then its socket is not to be read. Only the last caller is woken.
    pub fn poll_within_account(&self, context: &Context<'_>) -> Poll<()> {
        self.shared.account.poll_within(context)
    }

    /// Records that the client has received everything up to the ping of that number.
    ///
    /// Returns [`Acknowledged::Unsolicited`] for an unsolicited pong, which a client may send.
    pub fn acknowledge(&self, now: Instant, number: u64) -> Acknowledged {
        let mut state = self.shared.lock();
        if state.connection != Some(self.connection) {
            return Acknowledged::Unsolicited;
        }
        let mut news = Acknowledged::Unsolicited;
        while let Some(event) = state.sent.pop_front_if(|event| event.number <= number) {
            state.event_bytes -= event.cost;
            news = Acknowledged::News;
        }
        if news == Acknowledged::News {
            state.wait_from(now);
            state.count_entries();
        }
        news
    }
}

/// Result of a pong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// It answered a ping and confirmed events.
    News,
    /// It was unsolicited.
    Unsolicited,
}
