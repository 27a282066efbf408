//! Sockets that join: their members' outboxes, and the answer.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Actor;
use super::time::unix_seconds;
use crate::id::{ConnectionId, UserId};
use crate::protocol::deflate::Encoding;
use crate::room::fanout::JoiningSocket;
use crate::room::io::JoinRefusal;
use crate::room::outbox::OutboxReader;

/// The socket that waits for the answer to its join.
pub(super) struct Joining {
    pub(super) encoding: Encoding,
    pub(super) presence: bool,
    pub(super) answer: oneshot::Sender<Result<OutboxReader, JoinRefusal>>,
}

impl Actor {
    /// Attaches the socket to the member's outbox. False if nobody waits for the answer any more.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        user: &UserId,
        joining: Option<Joining>,
    ) -> bool {
        let Some(Joining { encoding, presence, answer }) = joining else { return false };
        let socket = JoiningSocket { connection, encoding, presence };
        let reader = self.fanout.attach(now, unix_seconds, user, socket, || self.room.users());
        self.queue_history(user);
        if presence {
            self.fanout.put_first(user, || self.room.encode_snapshot());
        }
        answer.send(Ok(reader)).is_ok()
    }
}
