//! The outboxes of a room's members on this node: all that the room sends reaches their sockets through here.
//!
//! It knows members, sockets and messages, and nothing of the room, which need not be in this process. Today it is:
//! the room's [actor](super::actor) carries out its effects here.

mod presence;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use self::presence::PresenceFeed;
use super::io::Recipients;
use super::message::SharedMessage;
use super::outbox::{Outbox, OutboxLimits, OutboxReader, Standing, TooSlow};
use super::snapshot_throttle::{Audience, Fanout, SnapshotThrottle};
use crate::id::{ConnectionId, UserId};
use crate::metrics::{Counted, Metrics};
use crate::protocol::close::Close;
use crate::protocol::deflate::Encoding;
use crate::protocol::server::MessageKind;

/// Minimum size in bytes of a message compressed on a blocking thread; compressing so much takes
/// milliseconds.
const LONG_BYTES: usize = 256 << 10;

/// Maximum size in bytes of a history that is compressed on the room's task; more takes milliseconds.
const MAX_COMPRESSED_BYTES: usize = 256 << 10;

/// Fraction of a member's byte budget that a sender may have unconfirmed while a recipient falls behind.
const SENDER_SHARE: usize = 16;

/// The outboxes of a room's members.
#[derive(Debug)]
pub struct LocalFanout {
    outboxes: HashMap<UserId, MemberOutbox>,
    snapshot_throttle: SnapshotThrottle,
    /// The presences, while a member is sent them.
    presence: Option<PresenceFeed>,
    /// Time since which the AI is in the room, in seconds since 1970.
    ai_online_at: Option<u64>,
    limits: OutboxLimits,
    metrics: Arc<Metrics>,
    members: Counted,
}

/// A member's outbox, and the knowledge of its reader.
#[derive(Debug)]
pub struct MemberOutbox {
    outbox: Outbox,
    /// Time of the latest join.
    since: Instant,
    /// The encoding that the attached socket accepts; `None` without a socket. The outbox knows it as well, but
    /// asking each of a large room's would lock them all for every message.
    encoding: Option<Encoding>,
    /// True if the member is sent presence messages.
    presence: bool,
    /// Time since which the member is in the room, in seconds since 1970.
    online_at: u64,
}

/// A socket that joins.
#[derive(Clone, Copy, Debug)]
pub struct JoiningSocket {
    /// The socket.
    pub connection: ConnectionId,
    /// The encoding that it accepts.
    pub encoding: Encoding,
    /// True if its member is sent presence messages.
    pub presence: bool,
}

/// Result of a broadcast snapshot.
#[derive(Debug)]
pub struct Broadcast {
    /// The members that are too slow for it.
    pub slow: Vec<UserId>,
    /// The time that the next one has to wait, in proportion to the cost of this one.
    pub window: Duration,
}

impl MemberOutbox {
    /// Time of the latest join.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Memory of all unconfirmed events in bytes.
    pub fn event_bytes(&self) -> usize {
        self.outbox.event_bytes()
    }

    /// Number of events that the member has not confirmed.
    pub fn unconfirmed_events(&self) -> usize {
        self.outbox.unconfirmed_events()
    }
}

impl LocalFanout {
    /// The outboxes of no members.
    pub fn new(limits: OutboxLimits, metrics: Arc<Metrics>) -> Self {
        Self {
            outboxes: HashMap::new(),
            snapshot_throttle: SnapshotThrottle::default(),
            presence: None,
            ai_online_at: None,
            limits,
            members: Counted::new(&metrics.members, 0),
            metrics,
        }
    }

    /// Adds outboxes without sockets for members from before a restart, with the events that they had not confirmed.
    /// `at` is the time in seconds since 1970.
    pub fn restore(
        &mut self,
        now: Instant,
        at: u64,
        members: impl Iterator<Item = UserId>,
        unconfirmed: &[(UserId, Arc<str>)],
    ) {
        for user in members {
            self.add(now, at, user);
        }
        let mut shared: HashMap<&str, SharedMessage> = HashMap::new();
        for (user, text) in unconfirmed {
            let Some(member) = self.outboxes.get(user) else { continue };
            // A store edited by hand may hold any text.
            let pushed = MessageKind::of_message(text).ok_or(TooSlow).and_then(|kind| {
                let message = || SharedMessage::new(kind, text.to_string(), &self.metrics);
                member.outbox.push(now, shared.entry(text).or_insert_with(message), None)
            });
            if pushed.is_err() {
                Metrics::count(&self.metrics.drops, "restored_event");
            }
        }
    }

    /// Number of members, disconnected ones too.
    pub fn len(&self) -> usize {
        self.outboxes.len()
    }

    /// True if there are no members.
    pub fn is_empty(&self) -> bool {
        self.outboxes.is_empty()
    }

    /// A member's outbox.
    pub fn get(&self, user: &UserId) -> Option<&MemberOutbox> {
        self.outboxes.get(user)
    }

    fn add(&mut self, now: Instant, at: u64, user: UserId) {
        let outbox = Outbox::new(self.limits, self.metrics.clone());
        let member = MemberOutbox { outbox, since: now, encoding: None, presence: false, online_at: at };
        self.outboxes.insert(user, member);
        self.members.set(self.outboxes.len());
    }

    /// Attaches a socket to its member's outbox; an older one is superseded. `at` is the time in seconds since 1970,
    /// `users` are those of the room.
    pub fn attach<'a, U>(
        &mut self,
        now: Instant,
        at: fn() -> u64,
        user: &UserId,
        socket: JoiningSocket,
        users: impl FnOnce() -> U,
    ) -> OutboxReader
    where
        U: Iterator<Item = (&'a str, &'a Arc<str>)>,
    {
        let JoiningSocket { connection, encoding, presence } = socket;
        if !self.outboxes.contains_key(user) {
            self.add(now, at(), user.clone());
        }
        #[expect(clippy::expect_used, reason = "it was added if it was missing")]
        let member = self.outboxes.get_mut(user).expect("the member has an outbox");
        (member.since, member.encoding) = (now, Some(encoding));
        let had_presence = std::mem::replace(&mut member.presence, presence);
        let reader = member.outbox.attach(now, connection, encoding);
        self.count_presence_member(had_presence, presence, at, users);
        reader
    }

    /// Detaches a socket; events are queued for the member's next one.
    pub fn detach(&mut self, user: &UserId, connection: ConnectionId) {
        if let Some(member) = self.outboxes.get_mut(user) {
            member.outbox.detach(connection);
            member.encoding = None;
        }
    }

    /// Removes a member, and closes its socket.
    pub fn remove(&mut self, user: &UserId, close: Close) {
        let Some(member) = self.outboxes.remove(user) else { return };
        self.members.set(self.outboxes.len());
        self.forget_presence_member(member.presence);
        match close {
            Close::TooSlow => {
                Metrics::count(&self.metrics.drops, "outbox_over_budget");
                member.outbox.discard(close);
            }
            _ => member.outbox.close(close),
        }
    }

    /// Closes a member's socket once its queue is written; the member stays.
    pub fn send_away(&self, user: &UserId, close: Close) {
        if let Some(member) = self.outboxes.get(user) {
            member.outbox.close(close);
        }
    }

    /// Members whose sockets were throttled since the last call, so that their heartbeats may be unread.
    pub fn take_throttled(&self) -> impl Iterator<Item = &UserId> {
        self.outboxes.iter().filter(|(_, member)| member.outbox.take_throttled()).map(|(user, _)| user)
    }

    /// True if all events are confirmed.
    pub fn is_confirmed(&self) -> bool {
        self.outboxes.values().all(|member| member.outbox.event_bytes() == 0)
    }

    /// The unconfirmed events of all members, those of each in order.
    pub fn unconfirmed(&self) -> Vec<(UserId, Arc<str>)> {
        // One text per event, shared by its recipients: a copy for each member might not fit into memory.
        let mut texts: HashMap<*const u8, Arc<str>> = HashMap::new();
        let mut unconfirmed = Vec::new();
        for (user, member) in &self.outboxes {
            for event in member.outbox.unconfirmed() {
                let text =
                    texts.entry(event.as_ptr()).or_insert_with(|| String::from_utf8_lossy(&event).into());
                unconfirmed.push((user.clone(), text.clone()));
            }
        }
        unconfirmed
    }

    /// Makes a message, compressed if that is wanted.
    async fn message(&self, kind: MessageKind, json: String, is_compressed: bool) -> SharedMessage {
        let message = SharedMessage::new(kind, json, &self.metrics);
        if is_compressed { self.compress(message).await } else { message }
    }

    /// Compresses a message that many share.
    ///
    /// It is done before the outboxes get the message, and not by the first socket that needs it: the others would
    /// block their threads meanwhile, and an outbox could not tell what the message costs. A long message is
    /// compressed on a blocking thread, where it delays no other room.
    async fn compress(&self, message: SharedMessage) -> SharedMessage {
        let metrics = &self.metrics;
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
    fn is_compressed_for(&self, to: &Recipients) -> bool {
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
    pub async fn send(
        &self,
        now: Instant,
        to: &Recipients,
        kind: MessageKind,
        json: String,
        from: Option<&UserId>,
    ) -> Vec<UserId> {
        let event = self.message(kind, json, self.is_compressed_for(to)).await;
        let account = from.and_then(|from| self.outboxes.get(from)).map(|member| member.outbox.account());
        let (mut slow, mut standing) = (Vec::new(), Standing::KeepsUp);
        let mut push = |user: &UserId, member: &MemberOutbox| match member.outbox.push(now, &event, account) {
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
                Standing::FallsBehind => self.limits.member_bytes / SENDER_SHARE,
            });
        }
        slow
    }

    /// Queues a message for all who are connected.
    pub async fn send_transient(&self, kind: MessageKind, json: String) {
        let is_compressed = self.is_compressed_for(&Recipients::All);
        let message = self.message(kind, json, is_compressed).await;
        self.outboxes.values().for_each(|member| member.outbox.put_transient(&message));
    }

    /// Queues the chat's history for a member that joins, before everything that waits for it. One that only this
    /// member gets is not compressed: it would not pay.
    pub fn put_history(&self, user: &UserId, history: &SharedMessage, is_shared: bool) {
        if let Some(member) = self.outboxes.get(user) {
            let is_compressed = is_shared && member.encoding == Some(Encoding::Deflate);
            if is_compressed && history.json().len() <= MAX_COMPRESSED_BYTES {
                history.compress(&self.metrics);
            }
            member.outbox.put_history(history);
        }
    }

    /// Queues a snapshot for a member alone, which has just joined.
    pub fn put_snapshot(&self, user: &UserId, snapshot: String) {
        if let Some(member) = self.outboxes.get(user) {
            let snapshot = SharedMessage::new(MessageKind::RoomState, snapshot, &self.metrics);
            // One that is too slow for it gets the next one, or is too slow for that as well.
            let _ = member.outbox.put_snapshot(&snapshot);
        }
    }

    /// True while a member is sent presences.
    pub fn has_presences(&self) -> bool {
        self.presence.is_some()
    }

    /// Queues a snapshot of the room for all members, behind the presences of its users for those that are sent them.
    /// `at` is the time in seconds since 1970.
    pub async fn broadcast<'a>(
        &mut self,
        at: fn() -> u64,
        snapshot: String,
        users: impl Iterator<Item = (&'a str, &'a Arc<str>)>,
        is_ai_online: bool,
    ) -> Broadcast {
        let presences = self.broadcast_presences(at, users, is_ai_online).await;
        let is_compressed = self.is_compressed_for(&Recipients::All);
        let snapshot = self.message(MessageKind::RoomState, snapshot, is_compressed).await;
        let audience: Audience = self.outboxes.values().filter_map(|member| member.encoding).collect();
        let bytes = snapshot.json().len();
        if audience.deflated > 0 {
            self.snapshot_throttle.learn(bytes, snapshot.deflated().map_or(bytes, Bytes::len));
        }
        let window = self.snapshot_throttle.window(Fanout { bytes, audience }, &presences.costs);
        self.metrics.broadcasts.inc();
        let slow = |member: &MemberOutbox| member.outbox.put_snapshot(&snapshot) == Err(TooSlow);
        let slow = self.outboxes.iter().filter(|(_, member)| slow(member)).map(|(user, _)| user.clone());
        Broadcast { slow: presences.slow.into_iter().chain(slow).collect(), window }
    }
}

#[cfg(test)]
mod tests {
    use std::iter;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::clock::now;
    use crate::id::NodeId;
    use crate::room::outbox::Taken;

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    fn fanout() -> LocalFanout {
        let limits =
            OutboxLimits { member_bytes: 4096, all_bytes: 1 << 20, write_stall: Duration::from_secs(20) };
        LocalFanout::new(limits, Metrics::new())
    }

    fn attach(fanout: &mut LocalFanout, id: &str, number: u64) -> OutboxReader {
        let connection = ConnectionId::new(NodeId::new(1), number);
        let socket = JoiningSocket { connection, encoding: Encoding::Identity, presence: false };
        fanout.attach(now(), || 0, &user(id), socket, iter::empty)
    }

    async fn chat(fanout: &LocalFanout, to: &Recipients, text: &str) -> Vec<UserId> {
        let json = format!(r#"{{"type":"chat","message":"{text}"}}"#);
        fanout.send(now(), to, MessageKind::Chat, json, None).await
    }

    fn taken(reader: &OutboxReader) -> Vec<String> {
        let mut all = Vec::new();
        while let Poll::Ready(taken) = reader.poll_take(&Context::from_waker(Waker::noop())) {
            match taken {
                Taken::Message(payload) => all.push(String::from_utf8(payload.bytes.to_vec()).unwrap()),
                Taken::Ping(number) => all.push(format!("ping {number}")),
                Taken::Close(close) => {
                    all.push(format!("{close:?}"));
                    break;
                }
            }
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn recipients_get_events_in_order() {
        let mut fanout = fanout();
        let [a, b] = [attach(&mut fanout, "a", 1), attach(&mut fanout, "b", 2)];
        chat(&fanout, &Recipients::All, "1").await;
        chat(&fanout, &Recipients::AllBut(user("a")), "2").await;
        chat(&fanout, &Recipients::One(user("a")), "3").await;
        chat(&fanout, &Recipients::One(user("nobody")), "4").await;
        let of = |numbers: [u64; 2]| {
            let texts = numbers.map(|number| format!(r#"{{"type":"chat","message":"{number}"}}"#));
            texts.into_iter().chain(iter::once("ping 2".to_owned())).collect::<Vec<_>>()
        };
        assert_eq!((taken(&a), taken(&b)), (of([1, 3]), of([1, 2])));
    }

    #[tokio::test(start_paused = true)]
    async fn events_wait_for_the_next_socket() {
        let mut fanout = fanout();
        let first = attach(&mut fanout, "a", 1);
        chat(&fanout, &Recipients::All, "1").await;
        assert_eq!(taken(&first).len(), 2, "taken, but not confirmed");
        fanout.detach(&user("a"), ConnectionId::new(NodeId::new(1), 1));
        chat(&fanout, &Recipients::All, "2").await;
        assert!(!fanout.is_confirmed());
        let texts: Vec<_> = fanout.unconfirmed().into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts.iter().map(|text| text.len()).collect::<Vec<_>>(), [29, 29]);

        let mut restored = self::fanout();
        restored.restore(now(), 0, iter::once(user("a")), &fanout.unconfirmed());
        for fanout in [&mut fanout, &mut restored] {
            let next = attach(fanout, "a", 3);
            assert_eq!(taken(&next).len(), 3);
            next.acknowledge(now(), 2);
            assert!(fanout.is_confirmed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn removed_member_is_told_all_before_its_close() {
        let mut fanout = fanout();
        let [a, b] = [attach(&mut fanout, "a", 1), attach(&mut fanout, "b", 2)];
        chat(&fanout, &Recipients::All, "1").await;
        fanout.remove(&user("a"), Close::Removed);
        fanout.remove(&user("b"), Close::TooSlow);
        assert_eq!(taken(&a).last().unwrap(), "Removed");
        assert_eq!(taken(&a).len(), 1);
        assert_eq!(taken(&b), ["TooSlow"], "its queue is not written");
        assert!(fanout.is_empty() && fanout.get(&user("a")).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn member_over_its_budget_is_too_slow() {
        let mut fanout = fanout();
        let _a = attach(&mut fanout, "a", 1);
        let _b = attach(&mut fanout, "b", 2);
        let long = "x".repeat(2000);
        assert_eq!(chat(&fanout, &Recipients::One(user("a")), &long).await, []);
        tokio::time::advance(Duration::from_secs(21)).await;
        assert_eq!(chat(&fanout, &Recipients::All, &long).await, [user("a")]);
        let sent = fanout.broadcast(|| 0, r#"{"type":"roomState"}"#.to_owned(), iter::empty(), false).await;
        assert!(sent.slow.is_empty() && sent.window > Duration::ZERO);
    }
}
