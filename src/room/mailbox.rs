//! The way into a room's task: what can be asked of it, and what it tells operators.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::io::{Join, JoinRefusal};
use super::outbox::OutboxReader;
use crate::id::{ConnectionId, MeetingId, UserId};
use crate::protocol::client::{ClientMessage, InvalidMessage};

/// How many commands wait for one room. A socket that finds it full waits, and only that socket.
const MAILBOX: usize = 256;

/// What is asked of a room's task.
#[derive(Debug)]
pub enum Command {
    /// Somebody asks for a seat. A room that is retiring drops the ack.
    Join {
        /// Who asks.
        join: Join,
        /// The answer.
        ack: oneshot::Sender<Result<OutboxReader, JoinRefusal>>,
    },
    /// A text frame came.
    Said {
        /// The socket.
        connection: ConnectionId,
        /// The message, or what is wrong with the text.
        message: Result<ClientMessage, InvalidMessage>,
    },
    /// A socket is gone.
    Disconnected {
        /// The socket.
        connection: ConnectionId,
    },
    /// Operators want to know.
    Describe(oneshot::Sender<RoomView>),
    /// Panic, so that a test can see what a panic does.
    #[cfg(test)]
    Panic,
}

/// What operators see of a room.
#[derive(Clone, Debug)]
pub struct RoomView {
    /// Its meeting, if one runs.
    pub meeting: Option<MeetingId>,
    /// Its members, in the order of the wire.
    pub members: Vec<MemberStatus>,
}

/// What operators see of a member.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    /// The id on the wire.
    pub user: UserId,
    /// The name of its identity.
    pub name: Arc<str>,
    /// Its socket and the time since it joined, if it is not away.
    pub connection: Option<(ConnectionId, Duration)>,
    /// The time since its last heartbeat.
    pub heartbeat_age: Duration,
    /// The bytes of events that wait for it or are not confirmed.
    pub queued_bytes: usize,
}

/// What sends to a room's task.
#[derive(Clone, Debug)]
pub struct RoomHandle {
    mailbox: mpsc::Sender<Command>,
    stop: CancellationToken,
}

/// The other end of a [`RoomHandle`], which a room's task reads.
#[derive(Debug)]
pub struct Inbox {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) stop: CancellationToken,
}

impl RoomHandle {
    /// A handle, and the end that an actor reads.
    pub fn new() -> (Self, Inbox) {
        let (mailbox, commands) = mpsc::channel(MAILBOX);
        let stop = CancellationToken::new();
        (Self { mailbox, stop: stop.clone() }, Inbox { commands, stop })
    }

    /// Tells the room to send everyone away, keep everything, and end. It needs no place in the
    /// mailbox: the fullest room hears it first.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }

    /// The way into the room's mailbox.
    pub fn mailbox(&self) -> &mpsc::Sender<Command> {
        &self.mailbox
    }

    /// Whether both lead to the same task.
    pub fn is_same(&self, other: &Self) -> bool {
        self.mailbox.same_channel(&other.mailbox)
    }
}
