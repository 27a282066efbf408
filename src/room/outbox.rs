//! The outbox of one member: the newest snapshot, a presence message, and events within a byte budget. Never blocks.
//!
//! The outbox belongs to the member, not to the socket. While the member is disconnected its events
//! are queued; on its return they are sent before anything newer, also those that an earlier socket
//! took but that were not confirmed: a written byte may be lost in a buffer of the network. So an
//! event can arrive twice across a reconnect, but none is missed. The confirmation is the pong to a
//! WebSocket ping sent after the events; every client answers it (RFC 6455 section 5.5.3) once it
//! has received everything before it.

mod limits;
mod reader;

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::charge::{Account, EventCharge};
use super::message::{Payload, SharedMessage};
use crate::id::ConnectionId;
use crate::metrics::{Counted, Metrics};
use crate::protocol::close::Close;
use crate::protocol::deflate::Encoding;
pub use limits::{OutboxLimits, Standing, TooSlow};
pub use reader::{Acknowledged, OutboxReader, Taken};

/// Bytes of events after which a confirmation is requested. Without this, a client that always lags
/// a little would never get a ping, and would exhaust its budget.
const CONFIRM_BYTES: usize = 64 * 1024;

/// Memory of an event's queue entry in bytes.
const ENTRY_BYTES: usize = 64;

/// Queued bytes up to which no member is too slow, even if the memory for all members is exhausted.
const LEAST_BYTES: usize = 64 * 1024;

/// Capacity to which a queue is shrunk once it is empty.
const IDLE_ENTRIES: usize = 64;

/// The room's end of an outbox. Dropping it closes the socket: the room is gone.
#[derive(Debug)]
pub struct Outbox {
    shared: Arc<OutboxShared>,
}

#[derive(Debug)]
struct OutboxShared {
    state: Mutex<OutboxState>,
    limits: OutboxLimits,
    account: Arc<Account>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct OutboxState {
    /// The attached socket; any other one is superseded.
    connection: Option<ConnectionId>,
    /// The encoding that this socket accepts.
    encoding: Encoding,
    /// Wakes that socket's task.
    waker: Option<Waker>,
    queue: VecDeque<Queued>,
    /// Events that were taken but not confirmed, oldest first.
    sent: VecDeque<QueuedEvent>,
    /// Memory of all events in `queue` and `sent`, in bytes.
    event_bytes: usize,
    /// Memory of their queue entries, in the gauge of queued bytes.
    entries: Counted,
    /// Start of the time in which events were pending and none was confirmed.
    waiting_since: Option<Instant>,
    last_number: u64,
    /// The newest event that was taken since the last ping.
    to_confirm: Option<u64>,
    /// Bytes of events taken since the last ping.
    unpinged_bytes: usize,
    /// Close reason of the socket, sent once the queue is empty.
    end: Option<Close>,
    /// Start of the current throttling: the socket is not read, because the member sent too much or
    /// the room is busy.
    throttled_since: Option<Instant>,
    /// True if the socket was throttled at any time since the room last looked.
    was_throttled: bool,
}

#[derive(Debug)]
enum Queued {
    /// A state or a difference of presences, as this socket's payload like a snapshot. The member's next one
    /// follows it only if it was taken.
    Presence(Payload),
    /// A message that only the attached socket gets; a newer one of its kind replaces it while it was not taken.
    Transient(Payload),
    /// As this socket's payload: the next socket has no use for it, and a slow reader should not hold the
    /// encodings of others in memory.
    Snapshot(Payload),
    /// As a message: the next socket may accept another encoding.
    Event(QueuedEvent),
}

#[derive(Debug)]
struct QueuedEvent {
    number: u64,
    message: SharedMessage,
    /// Bytes by which it counts in the member's budget.
    cost: usize,
    _charge: Option<EventCharge>,
}

impl Outbox {
    /// An empty outbox without a socket.
    pub fn new(limits: OutboxLimits, metrics: Arc<Metrics>) -> Self {
        let state = OutboxState {
            connection: None,
            encoding: Encoding::Identity,
            waker: None,
            queue: VecDeque::new(),
            sent: VecDeque::new(),
            event_bytes: 0,
            entries: Counted::new(&metrics.outbox_bytes, 0),
            waiting_since: None,
            last_number: 0,
            to_confirm: None,
            unpinged_bytes: 0,
            end: None,
            throttled_since: None,
            was_throttled: false,
        };
        let account = Arc::new(Account::default());
        Self { shared: Arc::new(OutboxShared { state: Mutex::new(state), limits, account, metrics }) }
    }

    /// The account of the events that this member sends.
    pub fn account(&self) -> &Arc<Account> {
        &self.shared.account
    }

    /// Attaches `connection`, which accepts `encoding`; an older socket is superseded.
    ///
    /// Events that the older one did not confirm are sent again, before everything else.
    pub fn attach(&self, now: Instant, connection: ConnectionId, encoding: Encoding) -> OutboxReader {
        let mut state = self.shared.lock();
        state.rewind();
        state.wait_from(now);
        state.connection = Some(connection);
        state.throttled_since = None;
        state.encoding = encoding;
        state.end = None;
        state.wake();
        OutboxReader { shared: self.shared.clone(), connection }
    }

    /// Detaches `connection`. Events are queued for the next one.
    pub fn detach(&self, connection: ConnectionId) {
        let mut state = self.shared.lock();
        if state.connection == Some(connection) {
            state.connection = None;
            state.waker = None;
            state.throttled_since = None;
            state.rewind();
        }
    }

    /// Queues an event behind everything else, charged to its sender's account.
    ///
    /// # Errors
    /// [`TooSlow`] if the member has to be removed instead; the event is not added.
    pub fn push(
        &self,
        now: Instant,
        event: &SharedMessage,
        from: Option<&Arc<Account>>,
    ) -> Result<Standing, TooSlow> {
        let OutboxShared { limits, .. } = &*self.shared;
        let mut state = self.shared.lock();
        let cost = cost(event);
        let bytes = state.event_bytes.saturating_add(cost);
        let falls_behind = bytes > limits.member_bytes / 2;
        if (falls_behind && state.confirms_nothing(now, limits.write_stall))
            || (bytes > LEAST_BYTES && self.shared.limits.is_exhausted(&self.shared.metrics))
        {
            return Err(TooSlow);
        }
        state.waiting_since.get_or_insert(now);
        state.event_bytes = bytes;
        state.last_number += 1;
        let number = state.last_number;
        let _charge = from.map(|account| account.charge(event.json().len()));
        state.queue.push_back(Queued::Event(QueuedEvent { number, message: event.clone(), cost, _charge }));
        state.count_entries();
        state.wake();
        Ok(if falls_behind { Standing::FallsBehind } else { Standing::KeepsUp })
    }

    /// Queues a snapshot, replacing one not yet taken.
    ///
    /// A disconnected member gets none: its return makes a new one.
    ///
    /// # Errors
    /// [`TooSlow`] if the member did not take the older one, and the memory for slow members is exhausted.
    pub fn put_snapshot(&self, snapshot: &SharedMessage) -> Result<(), TooSlow> {
        let mut state = self.shared.lock();
        if state.connection.is_none() {
            return Ok(());
        }
        let snapshot = snapshot.payload(state.encoding);
        let older = state.queue.iter_mut().find(|queued| matches!(queued, Queued::Snapshot(_)));
        if let Some(older) = older {
            if self.shared.limits.is_exhausted(&self.shared.metrics) {
                return Err(TooSlow);
            }
            *older = Queued::Snapshot(snapshot);
            self.shared.metrics.conflated_snapshots.inc();
        } else {
            state.queue.push_back(Queued::Snapshot(snapshot));
        }
        state.wake();
        Ok(())
    }

    /// Queues the presences and the snapshot that a member gets when it joins, before everything that waits for it.
    pub fn put_first(&self, presences: &SharedMessage, snapshot: &SharedMessage) {
        let mut state = self.shared.lock();
        let encoding = state.encoding;
        state.queue.push_front(Queued::Snapshot(snapshot.payload(encoding)));
        state.queue.push_front(Queued::Presence(presences.payload(encoding)));
        state.wake();
    }

    /// Queues the chat's history for the attached socket, before everything that waits for it.
    pub fn put_history(&self, history: &SharedMessage) {
        let mut state = self.shared.lock();
        let payload = history.payload(state.encoding);
        state.queue.push_front(Queued::Transient(payload));
        state.wake();
    }

    /// Queues a message for the attached socket alone, in place of one of its kind that was not taken.
    pub fn put_transient(&self, message: &SharedMessage) {
        let mut state = self.shared.lock();
        if state.connection.is_none() {
            return;
        }
        let payload = message.payload(state.encoding);
        let is_older =
            |queued: &&mut Queued| matches!(queued, Queued::Transient(older) if older.kind == payload.kind);
        match state.queue.iter_mut().find(is_older) {
            Some(older) => *older = Queued::Transient(payload),
            None => state.queue.push_back(Queued::Transient(payload)),
        }
        state.wake();
    }

    /// Queues a difference of presences. False if the member did not take the presence message before it, and is
    /// to be sent the whole state instead. A disconnected member needs neither: its return makes a new state.
    pub fn put_presence_diff(&self, diff: &SharedMessage) -> bool {
        let mut state = self.shared.lock();
        if state.connection.is_none() {
            return true;
        }
        if state.queue.iter().any(|queued| matches!(queued, Queued::Presence(_))) {
            return false;
        }
        let diff = Queued::Presence(diff.payload(state.encoding));
        state.queue.push_back(diff);
        state.wake();
        true
    }

    /// Queues the whole state of the presences, replacing a presence message not yet taken.
    ///
    /// # Errors
    /// [`TooSlow`] if the member did not take the older one, and the memory for slow members is exhausted.
    pub fn put_presence_state(&self, presences: &SharedMessage) -> Result<(), TooSlow> {
        let mut state = self.shared.lock();
        if state.connection.is_none() {
            return Ok(());
        }
        let presences = Queued::Presence(presences.payload(state.encoding));
        match state.queue.iter_mut().find(|queued| matches!(queued, Queued::Presence(_))) {
            Some(_) if self.shared.limits.is_exhausted(&self.shared.metrics) => return Err(TooSlow),
            Some(older) => {
                *older = presences;
                self.shared.metrics.conflated_presences.inc();
            }
            None => state.queue.push_back(presences),
        }
        state.wake();
        Ok(())
    }

    /// Closes the attached socket once the queue is written.
    pub fn close(&self, close: Close) {
        self.shared.lock().end(close);
    }

    /// Closes the attached socket without writing the queue, for a removed member.
    pub fn discard(&self, close: Close) {
        let mut state = self.shared.lock();
        state.queue.clear();
        state.sent.clear();
        state.event_bytes = 0;
        state.count_entries();
        state.end(close);
    }

    /// The JSON of all unconfirmed events, oldest first.
    pub fn unconfirmed(&self) -> Vec<Bytes> {
        let state = self.shared.lock();
        let queued = state.queue.iter().filter_map(|queued| match queued {
            Queued::Event(event) => Some(event),
            Queued::Snapshot(_) | Queued::Presence(_) | Queued::Transient(_) => None,
        });
        state.sent.iter().chain(queued).map(|event| event.message.json().clone()).collect()
    }

    /// Number of unconfirmed events.
    pub fn unconfirmed_events(&self) -> usize {
        let state = self.shared.lock();
        let queued = state.queue.iter().filter(|queued| matches!(queued, Queued::Event(_)));
        state.sent.len() + queued.count()
    }

    /// True if the member's socket was throttled since the last call, so that a heartbeat may be unread.
    pub fn take_throttled(&self) -> bool {
        let mut state = self.shared.lock();
        let is_throttled = state.throttled_since.is_some();
        mem::replace(&mut state.was_throttled, is_throttled)
    }

    /// Memory of all unconfirmed events in bytes.
    pub fn event_bytes(&self) -> usize {
        self.shared.lock().event_bytes
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.shared.lock().end(Close::RoomFailed);
    }
}

impl OutboxShared {
    fn lock(&self) -> MutexGuard<'_, OutboxState> {
        // No code that runs under the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OutboxState {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Restarts the confirmation timeout at `now`, if events are pending.
    fn wait_from(&mut self, now: Instant) {
        self.waiting_since = (self.event_bytes > 0).then_some(now);
    }

    fn confirms_nothing(&self, now: Instant, write_stall: Duration) -> bool {
        self.throttled_since.is_none()
            && self.waiting_since.is_some_and(|since| now.duration_since(since) > write_stall)
    }

    /// Updates the gauge of queue entries, and releases the memory of a long queue.
    fn count_entries(&mut self) {
        let events = self.queue.len() + self.sent.len();
        self.entries.set(events * ENTRY_BYTES);
        if events == 0 && self.sent.capacity().max(self.queue.capacity()) > IDLE_ENTRIES {
            self.queue.shrink_to(IDLE_ENTRIES);
            self.sent.shrink_to(IDLE_ENTRIES);
        }
    }

    /// Sets the close reason. The first one stays: the end of the room does not replace that
    /// of a removed member.
    fn end(&mut self, close: Close) {
        self.end.get_or_insert(close);
        self.wake();
    }

    /// Moves unconfirmed events back to the front; a snapshot or presence message from before the
    /// reconnect is dropped.
    fn rewind(&mut self) {
        self.queue.retain(|queued| matches!(queued, Queued::Event(..)));
        for event in mem::take(&mut self.sent).into_iter().rev() {
            self.queue.push_front(Queued::Event(event));
        }
        self.to_confirm = None;
        self.unpinged_bytes = 0;
    }

    fn take(&mut self, connection: ConnectionId) -> Option<Taken> {
        if self.connection != Some(connection) {
            return Some(Taken::Close(Close::Superseded));
        }
        if self.unpinged_bytes >= CONFIRM_BYTES {
            return self.ping();
        }
        match self.queue.pop_front() {
            Some(Queued::Snapshot(payload) | Queued::Presence(payload) | Queued::Transient(payload)) => {
                Some(Taken::Message(payload))
            }
            Some(Queued::Event(mut event)) => {
                let payload = event.message.payload(self.encoding);
                if payload.encoding != Encoding::Identity {
                    // It counts as well if it was made since the event was queued.
                    let cost = cost(&event.message);
                    self.event_bytes += cost - event.cost;
                    event.cost = cost;
                }
                self.to_confirm = Some(event.number);
                self.unpinged_bytes += payload.bytes.len();
                self.sent.push_back(event);
                Some(Taken::Message(payload))
            }
            None => self.ping().or(self.end.map(Taken::Close)),
        }
    }

    /// The ping that requests a confirmation of the taken events, if one is due.
    fn ping(&mut self) -> Option<Taken> {
        self.unpinged_bytes = 0;
        self.to_confirm.take().map(Taken::Ping)
    }
}

/// Memory of an event in one outbox, as if no other shared it.
fn cost(event: &SharedMessage) -> usize {
    event.cost() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use super::*;
    use crate::id::NodeId;
    use crate::protocol::deflate::inflate;
    use crate::protocol::server::MessageKind;

    const A: ConnectionId = ConnectionId::new(NodeId::new(0), 1);
    const B: ConnectionId = ConnectionId::new(NodeId::new(0), 2);

    const STALL: Duration = Duration::from_secs(20);

    fn outbox() -> Outbox {
        outbox_of(1000)
    }

    fn outbox_of(member_bytes: usize) -> Outbox {
        let limits = OutboxLimits { member_bytes, all_bytes: 1 << 20, write_stall: STALL };
        Outbox::new(limits, Metrics::new())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "an instant can only be had from the clock; tests add to it"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    fn push(outbox: &Outbox, event: SharedMessage) {
        outbox.push(start(), &event, None).unwrap();
    }

    fn take_all(reader: &OutboxReader) -> Vec<Taken> {
        let mut all = Vec::new();
        let context = Context::from_waker(Waker::noop());
        while let Poll::Ready(taken) = reader.poll_take(&context) {
            let is_close = matches!(taken, Taken::Close(_));
            all.push(taken);
            if is_close {
                break;
            }
        }
        all
    }

    fn text(text: &'static str) -> Taken {
        Taken::Message(message(text).payload(Encoding::Identity))
    }

    fn message(text: &str) -> SharedMessage {
        SharedMessage::new(MessageKind::Chat, text.to_owned(), &Metrics::new())
    }

    fn of_bytes(bytes: usize) -> SharedMessage {
        message(&"x".repeat(bytes))
    }

    #[test]
    fn newer_snapshot_replaces_queued_one() {
        let outbox = outbox();
        let reader = outbox.attach(start(), A, Encoding::Identity);
        outbox.put_snapshot(&message("s1")).unwrap();
        push(&outbox, message("e1"));
        outbox.put_snapshot(&message("s2")).unwrap();
        assert_eq!(take_all(&reader), [text("s2"), text("e1"), Taken::Ping(1)]);
        assert_eq!(outbox.shared.metrics.conflated_snapshots.get(), 1);
    }

    #[test]
    fn state_replaces_untaken_difference() {
        let outbox = outbox();
        let reader = outbox.attach(start(), A, Encoding::Identity);
        assert!(outbox.put_presence_diff(&message("d1")));
        push(&outbox, message("e1"));
        assert!(!outbox.put_presence_diff(&message("d2")));
        outbox.put_presence_state(&message("p2")).unwrap();
        assert_eq!(take_all(&reader), [text("p2"), text("e1"), Taken::Ping(1)]);
        assert!(outbox.put_presence_diff(&message("d3")), "it is up to date");
        assert_eq!(outbox.shared.metrics.conflated_presences.get(), 1);
    }

    #[test]
    fn joining_member_gets_presences_and_snapshot_first() {
        let outbox = outbox();
        push(&outbox, message("e1"));
        let reader = outbox.attach(start(), A, Encoding::Identity);
        outbox.put_first(&message("p1"), &message("s1"));
        outbox.put_snapshot(&message("s2")).unwrap();
        assert_eq!(take_all(&reader), [text("p1"), text("s2"), text("e1"), Taken::Ping(1)]);
        assert!(outbox.put_presence_diff(&message("d1")));
        outbox.detach(A);
        let reader = outbox.attach(start(), B, Encoding::Identity);
        assert_eq!(take_all(&reader), [text("e1"), Taken::Ping(1)], "presences of before are dropped");
    }

    #[test]
    fn unconfirmed_events_are_sent_again_first() {
        let outbox = outbox();
        let first = outbox.attach(start(), A, Encoding::Identity);
        for event in ["e1", "e2", "e3"] {
            push(&outbox, message(event));
        }
        assert_eq!(take_all(&first), [text("e1"), text("e2"), text("e3"), Taken::Ping(3)]);
        assert_eq!(first.acknowledge(start(), 1), Acknowledged::News);
        outbox.detach(A);
        push(&outbox, message("e4"));
        let second = outbox.attach(start(), B, Encoding::Identity);
        outbox.put_snapshot(&message("s")).unwrap();
        assert_eq!(take_all(&second), [text("e2"), text("e3"), text("e4"), text("s"), Taken::Ping(4)]);
        assert_eq!(second.acknowledge(start(), 4), Acknowledged::News);
        assert_eq!(outbox.event_bytes(), 0);
    }

    /// A client that always lagged a little never got a ping to confirm, and was removed
    /// after 8 MiB of traffic although it read all of it.
    #[test]
    fn never_empty_queue_is_confirmed() {
        let outbox = outbox_of(10 * CONFIRM_BYTES);
        let reader = outbox.attach(start(), A, Encoding::Identity);
        for _ in 0..4 {
            push(&outbox, of_bytes(CONFIRM_BYTES / 2));
        }
        let pings = take_all(&reader).into_iter().filter(|taken| matches!(taken, Taken::Ping(_)));
        assert_eq!(pings.collect::<Vec<_>>(), [Taken::Ping(2), Taken::Ping(4)]);
    }

    #[test]
    fn superseded_socket_takes_and_confirms_nothing() {
        let outbox = outbox();
        let first = outbox.attach(start(), A, Encoding::Identity);
        push(&outbox, message("e1"));
        let second = outbox.attach(start(), B, Encoding::Identity);
        assert_eq!(take_all(&first), [Taken::Close(Close::Superseded)]);
        assert_eq!(first.acknowledge(start(), 1), Acknowledged::Unsolicited);
        assert_eq!(take_all(&second), [text("e1"), Taken::Ping(1)]);
        outbox.detach(A);
        push(&outbox, message("e2"));
        assert_eq!(take_all(&second), [text("e2"), Taken::Ping(2)], "the older socket's end touches nothing");
    }

    #[test]
    fn throttled_socket_is_reported_once() {
        let outbox = outbox();
        let reader = outbox.attach(start(), A, Encoding::Identity);
        assert!(!outbox.take_throttled());
        reader.set_throttled(start(), true);
        reader.set_throttled(start(), false);
        assert!(outbox.take_throttled(), "it was between two looks");
        assert!(!outbox.take_throttled());
        reader.set_throttled(start(), true);
        assert!(outbox.take_throttled() && outbox.take_throttled(), "it is");
        outbox.detach(A);
        assert!(
            outbox.take_throttled() && !outbox.take_throttled(),
            "a socket that is gone is no sign of life"
        );
        reader.set_throttled(start(), true);
        assert!(!outbox.take_throttled());
    }

    /// Nine messages of 1 MiB at once removed all members with a latency of 50 ms.
    #[test]
    fn member_without_confirmations_becomes_too_slow() {
        let (outbox, now) = (outbox_of(10_000), start());
        let reader = outbox.attach(now, A, Encoding::Identity);
        let event = of_bytes(4_000);
        let push = |after| outbox.push(now + after, &event, None);
        assert_eq!(push(Duration::ZERO), Ok(Standing::KeepsUp));
        assert_eq!(push(Duration::ZERO), Ok(Standing::FallsBehind));
        assert_eq!(push(STALL), Ok(Standing::FallsBehind), "over its bytes, but not for long");
        let _ = take_all(&reader);
        assert_eq!(reader.acknowledge(now + STALL, 1), Acknowledged::News);
        let late = STALL + Duration::from_secs(1);
        assert_eq!(push(late), Ok(Standing::FallsBehind), "it confirmed one");
        // Throttled from here on; confirmations may be unread meanwhile.
        reader.set_throttled(now + STALL + STALL / 2, true);
        assert_eq!(push(5 * STALL), Ok(Standing::FallsBehind));
        reader.set_throttled(now + 5 * STALL, false);
        assert_eq!(push(5 * STALL), Ok(Standing::FallsBehind));
        assert_eq!(push(6 * STALL), Err(TooSlow));
        let _ = take_all(&reader);
        let _ = reader.acknowledge(now + 6 * STALL, u64::MAX);
        assert_eq!(outbox.event_bytes(), 0);
        assert_eq!(push(6 * STALL), Ok(Standing::KeepsUp));
    }

    /// 25,000 events of 18 bytes counted as 0.45 MB and took 5.7 MB.
    #[test]
    fn memory_of_short_events_is_counted() {
        let outbox = outbox_of(1 << 30);
        let reader = outbox.attach(start(), A, Encoding::Identity);
        let events: Vec<_> = (0..1000)
            .map(|_| SharedMessage::new(MessageKind::Chat, "x".repeat(18), &outbox.shared.metrics))
            .collect();
        for event in events {
            outbox.push(start(), &event, None).unwrap();
        }
        assert!((200_000..300_000).contains(&outbox.event_bytes()), "{}", outbox.event_bytes());
        assert_eq!(outbox.shared.metrics.outbox_bytes.get() as usize, outbox.event_bytes());
        let _ = take_all(&reader);
        let _ = reader.acknowledge(start(), u64::MAX);
        assert_eq!(outbox.shared.metrics.outbox_bytes.get(), 0);
        assert!(outbox.shared.lock().sent.capacity() <= 2 * IDLE_ENTRIES);
    }

    #[test]
    fn exhausted_memory_makes_slow_members_too_slow() {
        let outbox = outbox_of(1 << 30);
        let reader = outbox.attach(start(), A, Encoding::Identity);
        let _all = Counted::new(&outbox.shared.metrics.outbox_bytes, 2 << 20);
        assert_eq!(outbox.push(start(), &of_bytes(LEAST_BYTES / 2), None), Ok(Standing::KeepsUp));
        assert_eq!(outbox.push(start(), &of_bytes(LEAST_BYTES / 2), None), Err(TooSlow));
        outbox.put_snapshot(&message("s1")).unwrap();
        assert_eq!(outbox.put_snapshot(&message("s2")), Err(TooSlow), "the older one was not taken");
        assert!(outbox.put_presence_diff(&message("d1")), "nothing is there that it could replace");
        assert_eq!(outbox.put_presence_state(&message("p1")), Err(TooSlow));
        let _ = take_all(&reader);
        assert_eq!(outbox.put_snapshot(&message("s3")), Ok(()));
        assert_eq!(outbox.put_presence_state(&message("p2")), Ok(()));
    }

    #[test]
    fn first_close_follows_queued_events() {
        let outbox = outbox();
        let reader = outbox.attach(start(), A, Encoding::Identity);
        push(&outbox, message("own notice"));
        outbox.close(Close::TimedOut);
        drop(outbox);
        assert_eq!(take_all(&reader), [text("own notice"), Taken::Ping(1), Taken::Close(Close::TimedOut)]);
    }

    #[test]
    fn dropped_outbox_closes_its_socket() {
        let outbox = outbox();
        let reader = outbox.attach(start(), A, Encoding::Identity);
        drop(outbox);
        assert_eq!(take_all(&reader), [Taken::Close(Close::RoomFailed)]);
    }

    /// A client may reconnect with another encoding than before.
    #[test]
    fn queued_event_has_the_encoding_of_its_socket() {
        let outbox = outbox_of(100_000);
        let long = "an event that is long enough ".repeat(50);
        let event = SharedMessage::new(MessageKind::Chat, long.clone(), &Metrics::new());
        event.compress(&Metrics::new());
        let take_one = |reader: &OutboxReader| match reader.poll_take(&Context::from_waker(Waker::noop())) {
            Poll::Ready(Taken::Message(payload)) => payload,
            other => panic!("{other:?}"),
        };
        push(&outbox, event.clone());
        for (connection, encoding) in
            [(A, Encoding::Deflate), (B, Encoding::Identity), (A, Encoding::Deflate)]
        {
            let reader = outbox.attach(start(), connection, encoding);
            let payload = take_one(&reader);
            assert_eq!(payload, event.payload(encoding));
            if encoding == Encoding::Deflate {
                assert_eq!(inflate(&payload.bytes, 1 << 20).unwrap(), long.as_bytes());
            }
            assert_eq!(outbox.event_bytes(), cost(&event), "the budget knows one size");
            outbox.put_snapshot(&event).unwrap();
            let _ping_or_snapshot = reader.poll_take(&Context::from_waker(Waker::noop()));
            outbox.detach(connection);
        }
        assert_eq!(outbox.unconfirmed(), [long]);
    }

    /// Only what was known at queueing counted; then a budget would be exceeded by what is made later.
    #[test]
    fn later_made_encoding_counts_in_the_budget() {
        let (outbox, metrics) = (outbox_of(100_000), Metrics::new());
        let reader = outbox.attach(start(), A, Encoding::Deflate);
        let event = of_bytes(5000);
        push(&outbox, event.clone());
        let plain_bytes = outbox.event_bytes();
        event.compress(&metrics);
        let _ = take_all(&reader);
        assert_eq!(outbox.event_bytes(), plain_bytes + event.deflated().unwrap().len());
        let _ = reader.acknowledge(start(), 1);
        assert_eq!(outbox.event_bytes(), 0);
    }
}
