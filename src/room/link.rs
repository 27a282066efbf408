//! A member's link to its room: messages go up, and everything that the room sends comes down.
//!
//! It is all that a socket's session knows of a room, so that the room need not be in this process. Today it is:
//! the link is a mailbox and the reading end of an outbox.

use std::fmt;
use std::mem;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use super::io::Disconnection;
use super::mailbox::{Command, Incoming, Mailbox, Reply};
use super::outbox::OutboxReader;
pub use super::outbox::{Acknowledged, Taken};
use crate::id::ConnectionId;
use crate::protocol::client::ClientMessage;
use crate::protocol::close::Close;

/// A member's link to its room.
#[derive(Debug)]
pub struct MemberLink {
    connection: ConnectionId,
    mailbox: Mailbox,
    outbox: OutboxReader,
    uplink: Uplink,
    /// True until the room was told that the socket is gone.
    is_attached: bool,
}

/// State of the way to the room.
enum Uplink {
    /// Nothing waits. A turn is space that is reserved for the next message.
    Free { turn: Option<OwnedSemaphorePermit> },
    /// Waits for a turn; nothing should be read from the client meanwhile.
    Waiting(BoxFuture<'static, Option<OwnedSemaphorePermit>>),
    /// A message waits for its own space.
    Sending(BoxFuture<'static, Result<(), RoomGone>>),
}

/// The room is gone. What it queued last, a close, is still to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the room is gone")]
pub struct RoomGone;

impl MemberLink {
    /// A link to a room in this process.
    pub fn new(connection: ConnectionId, mailbox: Mailbox, outbox: OutboxReader) -> Self {
        Self { connection, mailbox, outbox, uplink: Uplink::Free { turn: None }, is_attached: true }
    }

    /// The next action for the client, or `Pending` until there is one. Only the last caller is woken.
    pub fn poll_next(&mut self, context: &Context<'_>) -> Poll<Taken> {
        self.outbox.poll_take(context)
    }

    /// Ready, with the reason, once the membership has ended for this socket, even if messages are still queued.
    /// Only the last caller is woken.
    pub fn poll_end(&mut self, context: &Context<'_>) -> Poll<Close> {
        self.outbox.poll_end(context)
    }

    /// Records that the client has received everything up to the ping of that number.
    pub fn ack(&mut self, now: Instant, number: u64) -> Acknowledged {
        self.outbox.acknowledge(now, number)
    }

    /// Tells the room that the client is throttled, or no longer is: it is alive, although its heartbeats and
    /// confirmations may be unread.
    pub fn set_throttled(&mut self, now: Instant, throttled: bool) {
        self.outbox.set_throttled(now, throttled);
    }

    /// Ready unless other members fall behind with this member's messages; until then its socket is not to be
    /// read. Only the last caller is woken.
    pub fn poll_keeps_up(&mut self, context: &Context<'_>) -> Poll<()> {
        self.outbox.poll_within_account(context)
    }

    /// Sends a message of `bytes` to the room, or the defect of an invalid one as a sentence. If the room has no space for it yet,
    /// it waits in the link until [`Self::poll_sent`]; no other may be sent before that. With `reply`, the room
    /// answers once it has handled the message; it drops the reply if it fails.
    ///
    /// # Errors
    /// [`RoomGone`].
    pub fn send(
        &mut self,
        message: Result<ClientMessage, String>,
        bytes: usize,
        reply: Option<Reply>,
    ) -> Result<(), RoomGone> {
        let turn = match mem::take(&mut self.uplink) {
            Uplink::Free { turn } => turn,
            Uplink::Waiting(_) => None,
            Uplink::Sending(_) => unreachable!("a message is sent before the one before it"),
        };
        let incoming = Incoming { connection: self.connection, message, bytes, permit: None, reply };
        match self.mailbox.try_deliver(incoming, turn) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(incoming)) => {
                let mailbox = self.mailbox.clone();
                self.uplink = Uplink::Sending(async move { mailbox.deliver(incoming).await }.boxed());
                Ok(())
            }
            Err(TrySendError::Closed(_)) => Err(RoomGone),
        }
    }

    /// Ready once no message waits for space, to be called whenever the socket's task is woken.
    ///
    /// # Errors
    /// [`RoomGone`].
    pub fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RoomGone>> {
        let result = match &mut self.uplink {
            Uplink::Free { .. } => return Poll::Ready(Ok(())),
            Uplink::Waiting(turn) => match turn.poll_unpin(context) {
                Poll::Ready(Some(turn)) => {
                    self.uplink = Uplink::Free { turn: Some(turn) };
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(None) => Err(RoomGone),
                Poll::Pending => return Poll::Ready(Ok(())),
            },
            Uplink::Sending(sent) => ready!(sent.poll_unpin(context)),
        };
        self.uplink = Uplink::default();
        Poll::Ready(result)
    }

    /// Ready once the room has space for a message of any length. A message that was read without it would wait
    /// in memory, inflated from a few bytes.
    ///
    /// The space stays reserved for the next message until [`Self::release_space`]. A socket that gave it back
    /// before it read would find it taken by the next that waits, forever.
    pub fn poll_space(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Uplink::Free { turn: None } = self.uplink {
            if self.mailbox.is_roomy() {
                return Poll::Ready(());
            }
            let mailbox = self.mailbox.clone();
            self.uplink = Uplink::Waiting(async move { mailbox.turn().await }.boxed());
            // A room that is gone has space, and the next message finds it gone.
            let _ = self.poll_sent(context);
        }
        if matches!(self.uplink, Uplink::Free { .. }) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Releases reserved space, because no message is there to use it.
    pub fn release_space(&mut self) {
        if let Uplink::Free { turn } = &mut self.uplink {
            *turn = None;
        }
    }

    /// True while a message waits for space in the room.
    pub fn is_sending(&self) -> bool {
        matches!(self.uplink, Uplink::Sending(_))
    }

    /// True while the client is not to be read because its room is busy.
    pub fn is_congested(&self) -> bool {
        !matches!(self.uplink, Uplink::Free { .. })
    }

    #[cfg(test)]
    pub(super) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Tells the room that the socket is gone, after a message that still waits for space: the client believes
    /// that it arrived.
    pub async fn disconnect(mut self, is_page_left: bool) {
        self.finish_sending().await;
        let gone = Disconnection { connection: self.connection, is_page_left };
        // A room that is gone needs no notice.
        let _ = self.mailbox.send(Command::Disconnected(gone)).await;
        self.is_attached = false;
    }

    /// Tells the room that the member leaves for good, as by `userLeft`, after a message that still waits for
    /// space.
    pub async fn leave(mut self) {
        self.finish_sending().await;
        let message = Ok(ClientMessage::UserLeft);
        let left = Incoming { connection: self.connection, message, bytes: 0, permit: None, reply: None };
        // A room that is gone needs no notice.
        let _ = self.mailbox.deliver(left).await;
        self.is_attached = false;
    }

    /// Tells the room, if it has space now, that the member leaves for good; it learns it by the end of the socket at the
    /// latest.
    pub fn revoke(&mut self) {
        let message = Ok(ClientMessage::UserLeft);
        let left = Incoming { connection: self.connection, message, bytes: 0, permit: None, reply: None };
        let _ = self.mailbox.try_deliver(left, None);
    }

    async fn finish_sending(&mut self) {
        if let Uplink::Sending(sent) = mem::take(&mut self.uplink) {
            let _ = sent.await;
        }
    }
}

/// Tells the room, if it has space, that the socket is gone. Otherwise a panic of the socket's task would leave a
/// member behind whose connection counts as its sign of life.
impl Drop for MemberLink {
    fn drop(&mut self) {
        if self.is_attached {
            self.mailbox.try_disconnect(Disconnection { connection: self.connection, is_page_left: false });
        }
    }
}

impl Default for Uplink {
    fn default() -> Self {
        Self::Free { turn: None }
    }
}

impl fmt::Debug for Uplink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Free { turn: None } => "Free",
            Self::Free { turn: Some(_) } => "Reserved",
            Self::Waiting(_) => "Waiting",
            Self::Sending(_) => "Sending",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;
    use crate::id::NodeId;
    use crate::metrics::Metrics;
    use crate::protocol::deflate::Encoding;
    use crate::room::outbox::{Outbox, OutboxLimits};

    const ID: ConnectionId = ConnectionId::new(NodeId::new(0), 7);

    #[expect(clippy::disallowed_methods, reason = "an instant can only be had from the clock")]
    fn link(commands: usize) -> (MemberLink, mpsc::Receiver<Command>, Outbox) {
        let limits =
            OutboxLimits { member_bytes: 1000, all_bytes: 1000, write_stall: Duration::from_secs(20) };
        let outbox = Outbox::new(limits, Metrics::new());
        let (mailbox, received) = Mailbox::new(commands);
        let reader = outbox.attach(Instant::now(), ID, Encoding::Identity);
        (MemberLink::new(ID, mailbox, reader), received, outbox)
    }

    fn send(link: &mut MemberLink) -> Result<(), RoomGone> {
        link.send(Ok(ClientMessage::Heartbeat), 0, None)
    }

    fn is_message(command: Option<Command>) -> bool {
        matches!(command, Some(Command::Message(_)))
    }

    #[tokio::test]
    async fn message_waits_in_the_link_for_a_full_room() {
        let (mut link, mut commands, _outbox) = link(1);
        let mut context = Context::from_waker(Waker::noop());
        send(&mut link).unwrap();
        assert!(link.poll_sent(&mut context).is_ready() && !link.is_congested());
        send(&mut link).unwrap();
        assert!(link.poll_sent(&mut context).is_pending() && link.is_congested());
        assert!(is_message(commands.recv().await));
        assert_eq!(link.poll_sent(&mut context), Poll::Ready(Ok(())));
        assert!(is_message(commands.recv().await) && !link.is_congested());
    }

    #[tokio::test]
    async fn waiting_message_precedes_the_disconnection() {
        let (mut link, mut commands, _outbox) = link(1);
        send(&mut link).unwrap();
        send(&mut link).unwrap();
        let all = async {
            assert!(is_message(commands.recv().await));
            assert!(is_message(commands.recv().await));
            let gone = Disconnection { connection: ID, is_page_left: true };
            assert!(matches!(commands.recv().await, Some(Command::Disconnected(other)) if other == gone));
        };
        tokio::join!(link.disconnect(true), all);
    }

    #[tokio::test]
    async fn waiting_message_precedes_the_leave() {
        let (mut link, mut commands, _outbox) = link(1);
        send(&mut link).unwrap();
        send(&mut link).unwrap();
        let all = async {
            assert!(is_message(commands.recv().await));
            assert!(is_message(commands.recv().await));
            let Some(Command::Message(last)) = commands.recv().await else { panic!("no message") };
            assert!(last.connection == ID && matches!(last.message, Ok(ClientMessage::UserLeft)));
        };
        tokio::join!(link.leave(), all);
    }

    /// A member whose connection is its sign of life would have stayed for ever.
    #[tokio::test]
    async fn dropped_link_tells_its_room() {
        let (link, mut commands, _outbox) = link(1);
        drop(link);
        let gone = Disconnection { connection: ID, is_page_left: false };
        assert!(matches!(commands.recv().await, Some(Command::Disconnected(other)) if other == gone));
    }

    #[tokio::test]
    async fn room_that_is_gone_holds_up_nothing() {
        let (mut link, commands, _outbox) = link(1);
        let mut context = Context::from_waker(Waker::noop());
        send(&mut link).unwrap();
        send(&mut link).unwrap();
        drop(commands);
        assert_eq!(link.poll_sent(&mut context), Poll::Ready(Err(RoomGone)));
        assert_eq!(send(&mut link), Err(RoomGone));
        assert!(link.poll_space(&mut context).is_ready() && !link.is_congested());
        link.disconnect(false).await;
    }
}
