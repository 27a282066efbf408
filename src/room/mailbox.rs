//! The way into a room's task: what can be asked of it, and what it tells operators.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Permit;
use tokio::sync::mpsc::error::{SendError, TrySendError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::io::{Gone, Join, JoinRefusal};
use super::outbox::OutboxReader;
use crate::id::{ConnectionId, MeetingId, UserId};
use crate::protocol::client::{ClientMessage, InvalidMessage};

/// How many commands wait for one room. A socket that finds it full waits, and only that socket.
const MAILBOX: usize = 256;

/// The most bytes of long messages that wait for one room.
const MAILBOX_BYTES: usize = 4 << 20;

/// The bytes that are free where any message may be read: a few compressed bytes may be as long.
const ROOMY_BYTES: u32 = 1 << 20;

/// Shorter messages are bounded by their number alone.
const LONG_BYTES: usize = 4 << 10;

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
    Message(Incoming),
    /// A socket is gone.
    Disconnected(Gone),
    /// Operators want to know.
    Describe(oneshot::Sender<RoomView>),
    /// Panic, so that a test can see what a panic does.
    #[cfg(test)]
    Panic,
}

/// A text frame, read.
#[derive(Debug)]
pub struct Incoming {
    /// The socket.
    pub connection: ConnectionId,
    /// The message, or what is wrong with the text.
    pub message: Result<ClientMessage, InvalidMessage>,
    /// The bytes of the text.
    pub bytes: usize,
    /// The share of the mailbox's bytes that a long one holds until the room has handled it.
    pub permit: Option<OwnedSemaphorePermit>,
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
    mailbox: Mailbox,
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
        let (mailbox, commands) = Mailbox::new(MAILBOX);
        let stop = CancellationToken::new();
        (Self { mailbox, stop: stop.clone() }, Inbox { commands, stop })
    }

    /// Tells the room to send everyone away, keep everything, and end. It needs no place in the
    /// mailbox: the fullest room hears it first.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }

    /// The way into the room's mailbox.
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Whether both lead to the same task.
    pub fn is_same(&self, other: &Self) -> bool {
        self.mailbox.commands.same_channel(&other.mailbox.commands)
    }
}

/// The sending side of a room's mailbox, bounded in commands and in bytes.
#[derive(Clone, Debug)]
pub struct Mailbox {
    commands: mpsc::Sender<Command>,
    bytes: Arc<Semaphore>,
}

impl Mailbox {
    /// A mailbox for `commands`, and the end that is read.
    pub fn new(commands: usize) -> (Self, mpsc::Receiver<Command>) {
        let (commands, received) = mpsc::channel(commands);
        (Self { commands, bytes: Arc::new(Semaphore::new(MAILBOX_BYTES)) }, received)
    }

    /// Sends a command that no client can make long.
    ///
    /// # Errors
    /// [`SendError`] if the room is gone.
    pub async fn send(&self, command: Command) -> Result<(), SendError<Command>> {
        self.commands.send(command).await
    }

    /// Sends what a socket said, if there is room for it now, or in the one that its [turn](Self::turn) brought.
    ///
    /// # Errors
    /// [`TrySendError`] if there is none, or if the room is gone.
    pub fn try_deliver(
        &self,
        mut incoming: Incoming,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<(), TrySendError<Incoming>> {
        if let bytes @ 1.. = long_bytes(incoming.bytes) {
            let of_turn = turn.and_then(|mut turn| turn.split(bytes as usize));
            match of_turn.or_else(|| self.bytes.clone().try_acquire_many_owned(bytes).ok()) {
                Some(permit) => incoming.permit = Some(permit),
                None => return Err(TrySendError::Full(incoming)),
            }
        }
        self.commands.try_send(Command::Message(incoming)).map_err(|error| match error {
            // It waits without its share, or those who wait would hold all that each of them waits for.
            TrySendError::Full(Command::Message(incoming)) => {
                TrySendError::Full(Incoming { permit: None, ..incoming })
            }
            TrySendError::Closed(Command::Message(incoming)) => TrySendError::Closed(incoming),
            _ => unreachable!("the command that was given comes back"),
        })
    }

    /// Waits until a message of `bytes` has room; `None` if the room is gone.
    pub async fn reserve(&self, bytes: usize) -> Option<Reserved<'_>> {
        let bytes = match long_bytes(bytes) {
            0 => None,
            bytes => tokio::select! {
                permit = self.bytes.clone().acquire_many_owned(bytes) => Some(permit.ok()?),
                () = self.commands.closed() => return None,
            },
        };
        Some(Reserved { command: self.commands.reserve().await.ok()?, bytes })
    }

    /// True if there is room for a long message. Without room, further messages would wait in memory.
    pub fn is_roomy(&self) -> bool {
        self.bytes.available_permits() >= ROOMY_BYTES as usize
    }

    /// Waits for room for a long message, which nobody else gets until this is dropped; `None` if the room is gone.
    ///
    /// A connection that gave it back before reading would find it taken by the next waiter, for ever.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            permit = self.bytes.clone().acquire_many_owned(ROOMY_BYTES) => permit.ok(),
            () = self.commands.closed() => None,
        }
    }

    /// Waits until the room is gone.
    pub async fn closed(&self) {
        self.commands.closed().await;
    }

    /// Whether the room is gone.
    pub fn is_closed(&self) -> bool {
        self.commands.is_closed()
    }
}

/// Room for one message in a mailbox.
#[derive(Debug)]
pub struct Reserved<'a> {
    command: Permit<'a, Command>,
    bytes: Option<OwnedSemaphorePermit>,
}

impl Reserved<'_> {
    /// Sends the message.
    pub fn deliver(self, incoming: Incoming) {
        self.command.send(Command::Message(Incoming { permit: self.bytes, ..incoming }));
    }
}

/// The bytes that a message of `bytes` takes of the mailbox's: none if it is short, at most all.
fn long_bytes(bytes: usize) -> u32 {
    if bytes < LONG_BYTES { 0 } else { u32::try_from(bytes.min(MAILBOX_BYTES)).unwrap_or(u32::MAX) }
}
