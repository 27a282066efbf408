//! Delivery of events and snapshots to the outboxes.

use tokio::time::Instant;

use super::{Actor, MemberOutbox};
use crate::id::UserId;
use crate::room::io::Recipients;
use crate::room::message::SharedMessage;
use crate::room::outbox::{Standing, TooSlow};

/// Minimum size in bytes of a message compressed on a blocking thread; compressing so much takes
/// milliseconds.
const LONG_BYTES: usize = 256 << 10;

/// Fraction of a member's byte budget that a sender may have unconfirmed while a recipient falls behind.
const HELD_BACK_SHARE: usize = 16;

impl Actor {
    /// Encodes a text, compressed if it is for several members and one of them accepts that.
    ///
    /// A message for one member is not compressed: compressing pays only if many share the result.
    /// A long text is compressed on a blocking thread, where it delays no other room.
    pub(super) async fn encoded(&self, text: String, to: &Recipients) -> SharedMessage {
        let metrics = &self.deps.metrics;
        if matches!(to, Recipients::One(_)) || self.room.audience().deflated == 0 {
            return SharedMessage::plain(text, metrics);
        }
        if text.len() < LONG_BYTES {
            return SharedMessage::deflated(text, metrics);
        }
        let counted = metrics.clone();
        let deflated = tokio::task::spawn_blocking(move || SharedMessage::deflated(text, &counted));
        deflated.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
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
        let account = from.and_then(|from| self.outboxes.get(from)).map(|seated| seated.outbox.account());
        let (mut slow, mut standing) = (Vec::new(), Standing::KeepsUp);
        let mut push = |user: &UserId, seated: &MemberOutbox| match seated.outbox.push(now, event, account) {
            Ok(Standing::KeepsUp) => {}
            Ok(Standing::FallsBehind) => standing = Standing::FallsBehind,
            Err(TooSlow) => slow.push(user.clone()),
        };
        match to {
            Recipients::One(user) => {
                self.outboxes.get(user).into_iter().for_each(|seated| push(user, seated))
            }
            Recipients::AllBut(user) => {
                let others = self.outboxes.iter().filter(|(to, _)| *to != user);
                others.for_each(|(to, seated)| push(to, seated));
            }
            Recipients::All => self.outboxes.iter().for_each(|(to, seated)| push(to, seated)),
        }
        if let Some(account) = account {
            account.set_most(match standing {
                Standing::KeepsUp => usize::MAX,
                Standing::FallsBehind => self.deps.outbox.member_bytes / HELD_BACK_SHARE,
            });
        }
        slow
    }

    /// Queues the newest state as a snapshot for all members, and returns those that are too slow for it.
    pub(super) async fn broadcast(&mut self) -> Vec<UserId> {
        let snapshot = self.encoded(self.room.encode_snapshot(), &Recipients::All).await;
        if self.room.audience().deflated > 0 {
            let bytes = snapshot.text().len();
            self.room.learn_deflated(bytes, snapshot.deflated_bytes().unwrap_or(bytes));
        }
        self.deps.metrics.broadcasts.inc();
        let slow = |seated: &MemberOutbox| seated.outbox.put_snapshot(&snapshot) == Err(TooSlow);
        self.outboxes.iter().filter(|(_, seated)| slow(seated)).map(|(user, _)| user.clone()).collect()
    }
}
