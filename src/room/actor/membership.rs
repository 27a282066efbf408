//! Members' outboxes: attached at a join, closed at a removal.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Actor, unix_millis};
use crate::id::{ConnectionId, UserId};
use crate::metrics::Metrics;
use crate::protocol::close::Close;
use crate::protocol::deflate::Encoding;
use crate::room::actor::RoomDeps;
use crate::room::io::JoinRefusal;
use crate::room::outbox::{Outbox, OutboxReader};

/// A member's outbox, and the actor's knowledge of its reader.
pub(super) struct MemberOutbox {
    pub(super) outbox: Outbox,
    /// Time of the latest join.
    pub(super) since: Instant,
    /// The encoding that the attached socket accepts; `None` without a socket. The outbox knows it as well, but
    /// asking each of a large room's would lock them all for every message.
    pub(super) encoding: Option<Encoding>,
    /// True if the member is sent presence messages.
    pub(super) presence: bool,
    /// Time since which the member is in the room, in seconds since 1970.
    pub(super) online_at: u64,
}

impl MemberOutbox {
    /// The outbox of a new member without a socket.
    pub(super) fn new(outbox: Outbox, now: Instant) -> Self {
        Self { outbox, since: now, encoding: None, presence: false, online_at: unix_millis() / 1000 }
    }
}

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
        user: UserId,
        joining: Option<Joining>,
    ) -> bool {
        let Some(Joining { encoding, presence, answer }) = joining else { return false };
        let RoomDeps { outbox, metrics, .. } = &self.deps;
        let member = self
            .outboxes
            .entry(user.clone())
            .or_insert_with(|| MemberOutbox::new(Outbox::new(*outbox, metrics.clone()), now));
        (member.since, member.encoding) = (now, Some(encoding));
        let had_presence = std::mem::replace(&mut member.presence, presence);
        let reader = member.outbox.attach(now, connection, encoding);
        self.count_presence_member(had_presence, presence);
        self.queue_history(&user);
        if presence {
            self.queue_first(&user);
        }
        answer.send(Ok(reader)).is_ok()
    }

    pub(super) fn remove(&mut self, user: &UserId, close: Close) {
        let Some(member) = self.outboxes.remove(user) else { return };
        self.count_presence_member(member.presence, false);
        match close {
            Close::TooSlow => {
                Metrics::count(&self.deps.metrics.drops, "outbox_over_budget");
                member.outbox.discard(close);
            }
            _ => member.outbox.close(close),
        }
    }
}
