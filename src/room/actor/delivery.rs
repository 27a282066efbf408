//! Delivery of events and snapshots to the outboxes.

use bytes::Bytes;
use tokio::time::Instant;

use super::Actor;
use super::membership::MemberOutbox;
use crate::id::UserId;
use crate::protocol::deflate::Encoding;
use crate::protocol::server::{ChatMessage, Event, MessageKind};
use crate::room::io::{Recipients, RoomEvent};
use crate::room::message::SharedMessage;
use crate::room::outbox::{Standing, TooSlow};
use crate::room::snapshot_throttle::{Audience, Fanout};

/// Minimum size in bytes of a message compressed on a blocking thread; compressing so much takes
/// milliseconds.
const LONG_BYTES: usize = 256 << 10;

/// Fraction of a member's byte budget that a sender may have unconfirmed while a recipient falls behind.
const SENDER_SHARE: usize = 16;

impl Actor {
    /// Publishes a chat message, if a consumer wants them.
    pub(super) fn publish_chat(&self, event: &Event) {
        if let Event::Chat(ChatMessage { id, from, name, message, .. }) = event
            && self.deps.events.wants_chat()
        {
            let (from, name, message) = (from.clone(), name.clone(), message.as_json().into());
            let chat = RoomEvent::ChatMessage { id: *id, from, name, message };
            self.deps.events.publish(&self.name, self.room.meeting(), chat);
        }
    }

    /// Makes a message, compressed if that is wanted.
    pub(super) async fn message(
        &self,
        kind: MessageKind,
        json: String,
        is_compressed: bool,
    ) -> SharedMessage {
        let message = SharedMessage::new(kind, json, &self.deps.metrics);
        if is_compressed { self.compress(message).await } else { message }
    }

    /// Compresses a message that many share.
    ///
    /// It is done before the outboxes get the message, and not by the first socket that needs it: the others would
    /// block their threads meanwhile, and an outbox could not tell what the message costs. A long message is
    /// compressed on a blocking thread, where it delays no other room.
    pub(super) async fn compress(&self, message: SharedMessage) -> SharedMessage {
        let metrics = &self.deps.metrics;
        if message.json().len() < LONG_BYTES {
            message.compress(metrics);
            return message;
        }
        let counted = metrics.clone();
        let compressed = tokio::task::spawn_blocking(move || {
            message.compress(&counted);
            message
        });
        compressed.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }

    /// True if a message is for several members and one of them accepts compressed ones. One for a single member
    /// is not compressed: it pays only if many share the result.
    pub(super) fn is_compressed_for(&self, to: &Recipients) -> bool {
        let accepts = |member: &MemberOutbox| member.encoding == Some(Encoding::Deflate);
        match to {
            Recipients::One(_) => false,
            Recipients::AllBut(but) => {
                self.outboxes.iter().any(|(user, member)| accepts(member) && user != but)
            }
            Recipients::All => self.outboxes.values().any(accepts),
        }
    }

    /// Queues an event in its recipients' outboxes, charged to its sender, and returns the members
    /// that are too slow for it.
    ///
    /// A sender with much unconfirmed data is throttled while a recipient falls behind.
    pub(super) fn send(
        &self,
        now: Instant,
        to: &Recipients,
        event: &SharedMessage,
        from: Option<&UserId>,
    ) -> Vec<UserId> {
        let account = from.and_then(|from| self.outboxes.get(from)).map(|member| member.outbox.account());
        let (mut slow, mut standing) = (Vec::new(), Standing::KeepsUp);
        let mut push = |user: &UserId, member: &MemberOutbox| match member.outbox.push(now, event, account) {
            Ok(Standing::KeepsUp) => {}
            Ok(Standing::FallsBehind) => standing = Standing::FallsBehind,
            Err(TooSlow) => slow.push(user.clone()),
        };
        match to {
            Recipients::One(user) => {
                self.outboxes.get(user).into_iter().for_each(|member| push(user, member))
            }
            Recipients::AllBut(user) => {
                let others = self.outboxes.iter().filter(|(to, _)| *to != user);
                others.for_each(|(to, member)| push(to, member));
            }
            Recipients::All => self.outboxes.iter().for_each(|(to, member)| push(to, member)),
        }
        if let Some(account) = account {
            account.set_most(match standing {
                Standing::KeepsUp => usize::MAX,
                Standing::FallsBehind => self.deps.outbox.member_bytes / SENDER_SHARE,
            });
        }
        slow
    }

    /// Queues a message for all who are connected.
    pub(super) async fn send_transient(&self, event: &Event) {
        let is_compressed = self.is_compressed_for(&Recipients::All);
        let message = self.message(event.kind(), event.encode(), is_compressed).await;
        self.outboxes.values().for_each(|member| member.outbox.put_transient(&message));
    }

    /// Queues the newest state as a snapshot for all members, behind the presences for those that are sent them,
    /// and returns the members that are too slow for it. The next one waits for a time in proportion to the cost
    /// of this one.
    pub(super) async fn broadcast(&mut self, now: Instant) -> Vec<UserId> {
        let presences = self.broadcast_presences().await;
        let is_compressed = self.is_compressed_for(&Recipients::All);
        let snapshot = self.message(MessageKind::RoomState, self.room.encode_snapshot(), is_compressed).await;
        let audience: Audience = self.outboxes.values().filter_map(|member| member.encoding).collect();
        let bytes = snapshot.json().len();
        if audience.deflated > 0 {
            self.snapshot_throttle.learn(bytes, snapshot.deflated().map_or(bytes, Bytes::len));
        }
        let window = self.snapshot_throttle.window(Fanout { bytes, audience }, &presences.costs);
        self.room.throttle_snapshots(now.into_std(), window);
        self.deps.metrics.broadcasts.inc();
        let slow = |member: &MemberOutbox| member.outbox.put_snapshot(&snapshot) == Err(TooSlow);
        let slow = self.outboxes.iter().filter(|(_, member)| slow(member)).map(|(user, _)| user.clone());
        presences.slow.into_iter().chain(slow).collect()
    }
}
