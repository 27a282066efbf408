//! The interface between a connection, which transports messages, and the protocol that they are in.

use std::num::NonZeroU32;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Instant;
use tungstenite::Utf8Bytes;

use crate::protocol::close::Close;
use crate::room::message::Payload;

/// One protocol on one socket, with its memberships in rooms.
///
/// A connection asks its session for output, gives it every text that the client sends, and stops reading while the
/// session says so. A session never waits for the client: what it has for it stays in the rooms' outboxes until
/// the connection asks. All `poll` methods wake the task that called them last.
pub trait Session {
    /// The next output for the client, or `Pending` until there is some.
    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<Output>;

    /// Ready once the session has ended, even if output is still queued before its close.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Handles a text message of the client.
    fn receive(&mut self, text: &Utf8Bytes) -> Next;

    /// Handles a binary message of the client; most protocols have none, and ignore it.
    fn receive_binary(&mut self, _bytes: &Bytes) -> Next {
        Next::Read
    }

    /// Handles a pong. False if it does not answer a ping of this session: the client sent it unsolicited.
    fn receive_pong(&mut self, now: Instant, payload: &[u8]) -> bool;

    /// Ready once everything received has been handed to the rooms; no message may be given to the session before
    /// that. Called whenever the task is woken.
    fn poll_handed_on(&mut self, context: &mut Context<'_>) -> Poll<Next>;

    /// Ready once the rooms have space for a further message, which then stays reserved.
    fn poll_space(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Releases the reserved space: no message is there to use it.
    fn release_space(&mut self);

    /// True while the client should not be read because a room has no space.
    fn is_congested(&self) -> bool;

    /// Ready unless other members fall behind with this client's messages.
    fn poll_keeps_up(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Tells the rooms that the client is not read, or is again.
    fn set_throttled(&mut self, now: Instant, throttled: bool);

    /// Takes the client out of its rooms at once: it may be here no longer, and takes its time to close the socket.
    /// There are protocols without rooms.
    fn revoke(&mut self) {}

    /// Ends the session: its socket is gone. Messages that the client sent before still count.
    fn end(self, is_page_left: bool) -> impl Future<Output = ()> + Send;
}

/// Output of a session.
#[derive(Debug)]
pub enum Output {
    /// A text message of a room.
    Text(Payload),
    /// A text message whose payload is a message of a room.
    Enveloped {
        /// The text before the payload.
        head: String,
        /// The payload, shared by all who get it.
        payload: Payload,
        /// The text behind it.
        tail: &'static str,
    },
    /// A text message of the session's own, such as the reply to a message.
    Reply(String),
    /// A ping with this payload; the client returns it in a pong.
    Ping(Bytes),
    /// A close frame; there is nothing after it.
    Close(Close),
}

/// Consequence of a client's message for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Further messages may be read.
    Read,
    /// Further messages may be read once this many further tokens of the rate limit are paid: the message makes more
    /// work than others of its size.
    Charge(NonZeroU32),
    /// No further message is wanted: the session is about to close.
    Stop,
    /// The client broke a rule; it is sent this close, and reading ends.
    Reject(Close),
}
