//! The mailbox of a room's task: its commands, and the room's state for operators.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::error::{SendError, TrySendError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::io::{CannotPost, Disconnection, Join, JoinRefusal, Post, ShareFile};
use super::link::RoomGone;
use super::outbox::OutboxReader;
use super::rules::{RoomRules, RulesChange};
use super::state::{CannotShareFile, Denied, Moderator};
use crate::id::{ConnectionId, IdentityId, MeetingId, UserId};
use crate::protocol::client::ClientMessage;
use crate::protocol::deflate::Encoding;
use crate::protocol::moderation::{KnockView, ModerationAction};

/// Capacity of a room's mailbox in commands. A socket that finds it full waits, and only that socket.
const MAILBOX: usize = 256;

/// Maximum total size in bytes of long messages in one mailbox.
const MAILBOX_BYTES: usize = 4 << 20;

/// Free bytes required before any message may be read: a few compressed bytes may inflate to that size.
const ROOMY_BYTES: u32 = 1 << 20;

/// Minimum size in bytes of a long message; shorter ones are limited by their number alone.
const LONG_BYTES: usize = 4 << 10;

/// The answer to a message from a socket that a newer one has superseded, or whose member was removed.
pub const NO_MEMBER: &str = "the connection has no membership any more";

/// A command to a room's task.
#[derive(Debug)]
pub enum Command {
    /// Request to join. A retiring room drops the ack.
    Join {
        /// The join.
        join: Join,
        /// The encoding that the socket accepts.
        encoding: Encoding,
        /// The answer.
        ack: oneshot::Sender<Result<OutboxReader, JoinRefusal>>,
    },
    /// A text frame arrived.
    Message(Incoming),
    /// A socket is gone.
    Disconnected(Disconnection),
    /// A request to moderate, by whoever is not here as a member.
    Moderate {
        /// Whoever asks.
        by: Moderator,
        /// The action.
        action: ModerationAction,
        /// The answer.
        answer: oneshot::Sender<Result<(), Denied>>,
    },
    /// A question for the right to change the room's settings.
    MayChange {
        /// Whoever asks.
        by: Moderator,
        /// The answer.
        answer: oneshot::Sender<Result<(), Denied>>,
    },
    /// A change of the settings with which meetings begin.
    LastingRules {
        /// The change.
        change: RulesChange,
        /// The answer.
        answer: oneshot::Sender<Result<(), Denied>>,
    },
    /// A change of the settings of the meeting.
    SetRules {
        /// Whoever asks.
        by: Moderator,
        /// The change.
        change: RulesChange,
        /// The answer.
        answer: oneshot::Sender<Result<(), Denied>>,
    },
    /// A message of a program outside.
    Post {
        /// The message.
        post: Post,
        /// The answer.
        answer: oneshot::Sender<Result<(), CannotPost>>,
    },
    /// Query of whoever gets a file.
    MeetingOf {
        /// The identity.
        identity: IdentityId,
        /// The meeting, if it is a member.
        answer: oneshot::Sender<Option<MeetingId>>,
    },
    /// Query of whoever shares a file, before it is received.
    AdmitsFiles {
        /// The identity.
        identity: IdentityId,
        /// The answer.
        answer: oneshot::Sender<Result<MeetingId, CannotShareFile>>,
    },
    /// A file that was received.
    ShareFile {
        /// The file.
        file: ShareFile,
        /// The answer.
        answer: oneshot::Sender<Result<(), CannotShareFile>>,
    },
    /// Its observers have changed.
    Observed,
    /// Query of an operator.
    Describe(oneshot::Sender<RoomView>),
    /// Panics, for tests of a panic's consequences.
    #[cfg(test)]
    Panic,
}

/// A parsed text frame.
#[derive(Debug)]
pub struct Incoming {
    /// The socket.
    pub connection: ConnectionId,
    /// The message, or the defect of the text as a sentence.
    pub message: Result<ClientMessage, String>,
    /// Size of the text in bytes.
    pub bytes: usize,
    /// The permit for a long message's bytes in the mailbox, held until the room has handled it.
    pub permit: Option<OwnedSemaphorePermit>,
    /// The answer, for a session whose client is told the result: once the room has handled the message, or the
    /// sentence of the `error` event that the sender got for it. Dropped if the room fails.
    pub reply: Option<Reply>,
}

/// The way back for the result of a message.
pub type Reply = oneshot::Sender<Result<(), String>>;

/// A room's state for operators.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RoomView {
    /// Its meeting, if one runs.
    pub meeting: Option<MeetingId>,
    /// Its members, in snapshot order.
    pub members: Vec<MemberStatus>,
    /// Its settings.
    pub rules: RoomRules,
    /// Those who wait to be admitted, in the order in which they came.
    pub waiting: Vec<KnockView>,
}

/// A member's state for operators.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The member's id.
    pub user: UserId,
    /// The name of its identity.
    pub name: Arc<str>,
    /// Its socket and the time since it joined, if it is connected.
    pub connection: Option<(ConnectionId, Duration)>,
    /// Time since its last heartbeat; none while its connection serves as one.
    pub heartbeat_age: Duration,
    /// Bytes of its queued and unconfirmed events.
    pub queued_bytes: usize,
    /// Its user object as JSON.
    pub json: Arc<str>,
    /// True if the other members do not see it.
    pub is_hidden: bool,
}

/// The sending end of a room's task.
#[derive(Clone, Debug)]
pub struct RoomHandle {
    mailbox: Mailbox,
    stop: CancellationToken,
}

/// The receiving end of a [`RoomHandle`], read by a room's task.
#[derive(Debug)]
pub struct Inbox {
    /// The commands.
    pub commands: mpsc::Receiver<Command>,
    /// Cancelled when the room is to close all sockets and end.
    pub stop: CancellationToken,
}

impl RoomHandle {
    /// Creates a handle, and the end that an actor reads.
    pub fn new() -> (Self, Inbox) {
        let (mailbox, commands) = Mailbox::new(MAILBOX);
        let stop = CancellationToken::new();
        (Self { mailbox, stop: stop.clone() }, Inbox { commands, stop })
    }

    /// Tells the room to close all sockets, persist everything, and end. This bypasses the mailbox:
    /// even a room with a full one gets it at once.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }

    /// The room's mailbox.
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// True if both belong to the same task.
    pub fn is_same(&self, other: &Self) -> bool {
        self.mailbox.commands.same_channel(&other.mailbox.commands)
    }
}

/// The sending side of a room's mailbox, limited in commands and in bytes.
#[derive(Clone, Debug)]
pub struct Mailbox {
    commands: mpsc::Sender<Command>,
    bytes: Arc<Semaphore>,
}

impl Mailbox {
    /// Creates a mailbox for `commands`, and its receiving end.
    pub fn new(commands: usize) -> (Self, mpsc::Receiver<Command>) {
        let (commands, received) = mpsc::channel(commands);
        (Self { commands, bytes: Arc::new(Semaphore::new(MAILBOX_BYTES)) }, received)
    }

    /// Sends a command of bounded size, which a client cannot lengthen.
    ///
    /// # Errors
    /// [`SendError`] if the room is gone.
    pub async fn send(&self, command: Command) -> Result<(), SendError<Command>> {
        self.commands.send(command).await
    }

    /// Tells the room that a socket is gone, if the mailbox has space now.
    pub fn try_disconnect(&self, gone: Disconnection) {
        let _ = self.commands.try_send(Command::Disconnected(gone));
    }

    /// Tells the room that its observers have changed, if the mailbox has space now.
    pub fn try_observed(&self) {
        let _ = self.commands.try_send(Command::Observed);
    }

    /// Sends a socket's message if the mailbox has space now, or in the space that its
    /// [turn](Self::turn) reserved.
    ///
    /// # Errors
    /// [`TrySendError`] if the mailbox is full, or if the room is gone.
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
            // Releases the bytes while waiting; otherwise waiting messages could hold all the bytes
            // that each waits for.
            TrySendError::Full(Command::Message(incoming)) => {
                TrySendError::Full(Incoming { permit: None, ..incoming })
            }
            TrySendError::Closed(Command::Message(incoming)) => TrySendError::Closed(incoming),
            _ => unreachable!("the command that was given comes back"),
        })
    }

    /// Sends a socket's message once the mailbox has space for it.
    ///
    /// # Errors
    /// [`RoomGone`].
    pub async fn deliver(&self, incoming: Incoming) -> Result<(), RoomGone> {
        let permit = match long_bytes(incoming.bytes) {
            0 => None,
            bytes => tokio::select! {
                permit = self.bytes.clone().acquire_many_owned(bytes) => Some(permit.map_err(|_| RoomGone)?),
                () = self.commands.closed() => return Err(RoomGone),
            },
        };
        let command = Command::Message(Incoming { permit, ..incoming });
        self.commands.send(command).await.map_err(|_| RoomGone)
    }

    /// True if a long message has space. Without space, further messages would wait in memory.
    pub fn is_roomy(&self) -> bool {
        self.bytes.available_permits() >= ROOMY_BYTES as usize
    }

    /// Waits for space for a long message, reserved until this is dropped; `None` if the room is gone.
    ///
    /// A connection that released it before reading would each time find it taken by the next
    /// waiter, forever.
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

    /// True if the room is gone.
    pub fn is_closed(&self) -> bool {
        self.commands.is_closed()
    }
}

/// Bytes that a message of `bytes` takes of the mailbox's limit: none if it is short, at most the whole.
fn long_bytes(bytes: usize) -> u32 {
    if bytes < LONG_BYTES { 0 } else { u32::try_from(bytes.min(MAILBOX_BYTES)).unwrap_or(u32::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    const NODE: NodeId = NodeId::new(0);

    fn heartbeat(bytes: usize) -> Incoming {
        Incoming {
            connection: ConnectionId::new(NODE, 7),
            message: Ok(ClientMessage::Heartbeat),
            bytes,
            permit: None,
            reply: None,
        }
    }

    /// Long messages filled a room's mailbox by their number alone: 256 of 1 MiB.
    #[tokio::test(start_paused = true)]
    async fn long_messages_wait_for_their_bytes() {
        let (mailbox, mut commands) = Mailbox::new(256);
        let long = || heartbeat(1 << 20);
        for _ in 0..4 {
            mailbox.try_deliver(long(), None).unwrap();
        }
        assert!(matches!(mailbox.try_deliver(long(), None), Err(TrySendError::Full(_))));
        mailbox.try_deliver(heartbeat(100), None).unwrap();
        let handled = commands.recv().await;
        assert!(mailbox.try_deliver(long(), None).is_err(), "its share is held until it is handled");
        drop(handled);
        mailbox.deliver(long()).await.unwrap();
        drop(commands);
        assert_eq!(mailbox.deliver(long()).await, Err(RoomGone), "no message waits for a room that is gone");
    }

    /// A waiting message held its bytes while it waited for as many again: four of them blocked a
    /// room for good.
    #[tokio::test(start_paused = true)]
    async fn waiting_message_holds_no_bytes() {
        let (mailbox, mut commands) = Mailbox::new(1);
        mailbox.try_deliver(heartbeat(0), None).unwrap();
        let waiting: Vec<_> =
            (0..4).map(|_| mailbox.try_deliver(heartbeat(1 << 20), None).unwrap_err()).collect();
        drop(commands.recv().await);
        let delivered =
            tokio::time::timeout(Duration::from_secs(1), mailbox.deliver(heartbeat(1 << 20))).await;
        assert_eq!(delivered, Ok(Ok(())));
        drop(waiting);
    }
}
