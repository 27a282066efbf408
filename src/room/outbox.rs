//! What waits for one member: the newest snapshot, and events within a byte budget. Never blocks.
//!
//! The outbox belongs to the seat, not to the socket. While the socket is away its events wait; on
//! its return they go out before anything newer, also those that an earlier socket took but whose
//! arrival nobody confirmed: a written byte may die in a buffer of the network. So an event can
//! come twice over a reconnect, but none is missed. What confirms is a WebSocket ping after the
//! events, answered by every client (RFC 6455 section 5.5.3) once it has everything before it.

mod limits;

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::charge::{Account, Charge};
use super::message::{Message, Payload};
use crate::id::ConnectionId;
use crate::metrics::{Counted, Metrics};
use crate::protocol::close::Close;
use crate::protocol::deflate::Form;
pub use limits::{OutboxLimits, Standing, TooSlow};

/// Events of that many bytes are not taken without asking for a confirmation. Without this, a
/// client that is always a little behind would never be asked, and its budget run out.
const CONFIRM_BYTES: usize = 64 * 1024;

/// What an event's place in a queue takes.
const PLACE_BYTES: usize = 64;

/// With so little waiting nobody is too slow, however much waits for others.
const LEAST_BYTES: usize = 64 * 1024;

/// A queue that was longer gives its memory back once it is empty.
const KEPT_PLACES: usize = 64;

/// The room's end of an outbox. Dropping it closes the socket: the room is gone.
#[derive(Debug)]
pub struct Outbox {
    shared: Arc<Shared>,
}

/// A socket's end of an outbox.
#[derive(Clone, Debug)]
pub struct OutboxReader {
    shared: Arc<Shared>,
    connection: ConnectionId,
    form: Form,
}

/// The next thing that a socket should do.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Write this message.
    Message(Payload),
    /// Write a ping, and call [`OutboxReader::acknowledge`] with the number when it is answered.
    Ping(u64),
    /// Write the close frame; there is nothing after it.
    Close(Close),
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    limits: OutboxLimits,
    account: Arc<Account>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct State {
    /// The socket that may take. Another one has lost the seat.
    connection: Option<ConnectionId>,
    /// What that socket takes.
    form: Form,
    /// Wakes that socket's task.
    waker: Option<Waker>,
    queue: VecDeque<Queued>,
    /// Events that were taken but not confirmed, oldest first.
    sent: VecDeque<Event>,
    /// What all events in `queue` and `sent` take.
    event_bytes: usize,
    /// The places of those events, in the gauge of everything that waits.
    places: Counted,
    /// Since when events wait without that one was confirmed.
    waiting_since: Option<Instant>,
    last_number: u64,
    /// The newest event that was taken since the last ping.
    to_confirm: Option<u64>,
    /// The bytes of the events that were taken since the last ping.
    unasked_bytes: usize,
    /// What the socket is closed with, once the queue is empty.
    end: Option<Close>,
    /// Since when what the member sends is not read, because it sent too much or the room is busy.
    throttled_since: Option<Instant>,
    /// Whether that was so since the room last looked.
    was_throttled: bool,
}

#[derive(Debug)]
enum Queued {
    /// In the socket's own form: a snapshot is worthless to the next socket.
    Snapshot(Payload),
    /// In both forms: the next socket may take the other one.
    Event(Event),
}

#[derive(Debug)]
struct Event {
    number: u64,
    message: Message,
    _charge: Option<Charge>,
}

impl Outbox {
    /// An empty outbox for a seat that nobody has taken yet.
    pub fn new(limits: OutboxLimits, metrics: Arc<Metrics>) -> Self {
        let state = State {
            connection: None,
            form: Form::Plain,
            waker: None,
            queue: VecDeque::new(),
            sent: VecDeque::new(),
            event_bytes: 0,
            places: Counted::new(&metrics.outbox_bytes, 0),
            waiting_since: None,
            last_number: 0,
            to_confirm: None,
            unasked_bytes: 0,
            end: None,
            throttled_since: None,
            was_throttled: false,
        };
        let account = Arc::new(Account::default());
        Self { shared: Arc::new(Shared { state: Mutex::new(state), limits, account, metrics }) }
    }

    /// The account of what the member itself sends.
    pub fn account(&self) -> &Arc<Account> {
        &self.shared.account
    }

    /// Gives the outbox to `connection`, which takes `form`; an older socket is told that it lost the seat.
    ///
    /// What the older one did not confirm goes out again, before everything else.
    pub fn attach(&self, now: Instant, connection: ConnectionId, form: Form) -> OutboxReader {
        let mut state = self.shared.lock();
        state.rewind();
        state.wait_from(now);
        state.connection = Some(connection);
        state.throttled_since = None;
        state.form = form;
        state.end = None;
        state.wake();
        OutboxReader { shared: self.shared.clone(), connection, form }
    }

    /// Takes note that `connection` is gone. Events wait for the next one.
    pub fn detach(&self, connection: ConnectionId) {
        let mut state = self.shared.lock();
        if state.connection == Some(connection) {
            state.connection = None;
            state.waker = None;
            state.throttled_since = None;
            state.rewind();
        }
    }

    /// Adds an event behind everything that waits, on the account of whoever sent it.
    ///
    /// # Errors
    /// [`TooSlow`] if the member has to give up its seat for it; the event is not added.
    pub fn push(
        &self,
        now: Instant,
        event: &Message,
        from: Option<&Arc<Account>>,
    ) -> Result<Standing, TooSlow> {
        let Shared { limits, .. } = &*self.shared;
        let mut state = self.shared.lock();
        let cost = cost(event);
        let bytes = state.event_bytes.saturating_add(cost);
        let falls_behind = bytes > limits.member_bytes / 2;
        if (falls_behind && state.confirms_nothing(now, limits.write_stall))
            || (bytes > LEAST_BYTES && self.shared.is_exhausted())
        {
            return Err(TooSlow);
        }
        state.waiting_since.get_or_insert(now);
        state.event_bytes = bytes;
        state.last_number += 1;
        let number = state.last_number;
        let _charge = from.map(|account| account.charge(event.text().len()));
        state.queue.push_back(Queued::Event(Event { number, message: event.clone(), _charge }));
        state.count_places();
        state.wake();
        Ok(if falls_behind { Standing::FallsBehind } else { Standing::KeepsUp })
    }

    /// Makes `snapshot` the one that waits; an older one gives it its place.
    ///
    /// A member whose socket is away gets none: its return makes a new one.
    ///
    /// # Errors
    /// [`TooSlow`] if the member did not take the older one, and there is no memory left for who is slow.
    pub fn put_snapshot(&self, snapshot: &Message) -> Result<(), TooSlow> {
        let mut state = self.shared.lock();
        if state.connection.is_none() {
            return Ok(());
        }
        let snapshot = snapshot.payload(state.form);
        let older = state.queue.iter_mut().find(|queued| matches!(queued, Queued::Snapshot(_)));
        if let Some(older) = older {
            if self.shared.is_exhausted() {
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

    /// Closes the attached socket once everything that waits was written.
    pub fn close(&self, close: Close) {
        self.shared.lock().end(close);
    }

    /// Closes the attached socket without writing what waits; the seat is lost.
    pub fn discard(&self, close: Close) {
        let mut state = self.shared.lock();
        state.queue.clear();
        state.sent.clear();
        state.event_bytes = 0;
        state.count_places();
        state.end(close);
    }

    /// The texts of the events that no socket has confirmed, oldest first.
    pub fn unconfirmed(&self) -> Vec<Bytes> {
        let state = self.shared.lock();
        let queued = state.queue.iter().filter_map(|queued| match queued {
            Queued::Event(event) => Some(event),
            Queued::Snapshot(_) => None,
        });
        state.sent.iter().chain(queued).map(|event| event.message.text().clone()).collect()
    }

    /// Whether the member's socket was not read since the last call, so that a heartbeat may wait there.
    pub fn take_throttled(&self) -> bool {
        let mut state = self.shared.lock();
        let is_throttled = state.throttled_since.is_some();
        mem::replace(&mut state.was_throttled, is_throttled)
    }

    /// What all events take that no socket has confirmed, in bytes.
    pub fn event_bytes(&self) -> usize {
        self.shared.lock().event_bytes
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.shared.lock().end(Close::RoomFailed);
    }
}

impl OutboxReader {
    /// The form in which messages are taken.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The next thing to do, or `Pending` until there is one. Only the last caller is woken.
    pub fn poll_take(&self, context: &Context<'_>) -> Poll<Taken> {
        let mut state = self.shared.lock();
        match state.take(self.connection) {
            Some(taken) => Poll::Ready(taken),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Ready once the socket is to be closed, whatever waits to be written before; `Pending` until
    /// then. Only the last caller is woken.
    pub fn poll_end(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.shared.lock();
        if state.connection != Some(self.connection) || state.end.is_some() {
            return Poll::Ready(());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Takes note of whether the socket is read no further for now. Its member is alive meanwhile, and what
    /// it confirms may wait there, too.
    pub fn set_throttled(&self, now: Instant, throttled: bool) {
        let mut state = self.shared.lock();
        if state.connection == Some(self.connection) {
            // What it confirmed may have waited there as long as that.
            if let (Some(throttled), Some(waiting)) = (state.throttled_since.take(), &mut state.waiting_since)
            {
                *waiting += now.duration_since(throttled.max(*waiting));
            }
            state.throttled_since = throttled.then_some(now);
            state.was_throttled |= throttled;
        }
    }

    /// Ready while what the member sent does not wait for others who fall behind; else its socket is not to
    /// be read. Only the last caller is woken.
    pub fn poll_within_account(&self, context: &Context<'_>) -> Poll<()> {
        self.shared.account.poll_within(context)
    }

    /// Takes note that the client has everything up to the ping of that number.
    ///
    /// Gives back whether that was news: a client may also send pongs that nobody asked for.
    pub fn acknowledge(&self, now: Instant, number: u64) -> Acknowledged {
        let mut state = self.shared.lock();
        if state.connection != Some(self.connection) {
            return Acknowledged::Unasked;
        }
        let mut news = Acknowledged::Unasked;
        while let Some(event) = state.sent.pop_front_if(|event| event.number <= number) {
            state.event_bytes -= cost(&event.message);
            news = Acknowledged::News;
        }
        if news == Acknowledged::News {
            state.wait_from(now);
            state.count_places();
        }
        news
    }
}

/// Whether a pong confirmed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// It answered a ping of ours.
    News,
    /// Nobody asked for it.
    Unasked,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that runs under the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all that waits on this server takes more than it may.
    fn is_exhausted(&self) -> bool {
        usize::try_from(self.metrics.outbox_bytes.get()).is_ok_and(|bytes| bytes > self.limits.all_bytes)
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Measures from `now` on how long the member confirms nothing.
    fn wait_from(&mut self, now: Instant) {
        self.waiting_since = (self.event_bytes > 0).then_some(now);
    }

    fn confirms_nothing(&self, now: Instant, write_stall: Duration) -> bool {
        self.throttled_since.is_none()
            && self.waiting_since.is_some_and(|since| now.duration_since(since) > write_stall)
    }

    /// Counts the places of the events, and gives back what a long queue took.
    fn count_places(&mut self) {
        let events = self.queue.len() + self.sent.len();
        self.places.set(events * PLACE_BYTES);
        if events == 0 && self.sent.capacity().max(self.queue.capacity()) > KEPT_PLACES {
            self.queue.shrink_to(KEPT_PLACES);
            self.sent.shrink_to(KEPT_PLACES);
        }
    }

    /// The first reason stays: a removed member's socket does not hear that its room is gone.
    fn end(&mut self, close: Close) {
        self.end.get_or_insert(close);
        self.wake();
    }

    /// Puts what was not confirmed back to the front; a snapshot of before the break is worthless.
    fn rewind(&mut self) {
        self.queue.retain(|queued| matches!(queued, Queued::Event(..)));
        for event in mem::take(&mut self.sent).into_iter().rev() {
            self.queue.push_front(Queued::Event(event));
        }
        self.to_confirm = None;
        self.unasked_bytes = 0;
    }

    fn take(&mut self, connection: ConnectionId) -> Option<Taken> {
        if self.connection != Some(connection) {
            return Some(Taken::Close(Close::Superseded));
        }
        if self.unasked_bytes >= CONFIRM_BYTES {
            return self.ask();
        }
        match self.queue.pop_front() {
            Some(Queued::Snapshot(snapshot)) => Some(Taken::Message(snapshot)),
            Some(Queued::Event(event)) => {
                let payload = event.message.payload(self.form);
                self.to_confirm = Some(event.number);
                self.unasked_bytes += payload.bytes.len();
                self.sent.push_back(event);
                Some(Taken::Message(payload))
            }
            None => self.ask().or(self.end.map(Taken::Close)),
        }
    }

    /// The ping that asks for a confirmation of what was taken, if one is due.
    fn ask(&mut self) -> Option<Taken> {
        self.unasked_bytes = 0;
        self.to_confirm.take().map(Taken::Ping)
    }
}

/// What an event takes in one outbox, as if no other shared it.
fn cost(event: &Message) -> usize {
    event.cost() + PLACE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::deflate::inflate;

    const A: ConnectionId = ConnectionId(1);
    const B: ConnectionId = ConnectionId(2);

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

    fn push(outbox: &Outbox, event: Message) {
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
        Taken::Message(Payload { bytes: Bytes::from_static(text.as_bytes()), form: Form::Plain })
    }

    fn message(text: &str) -> Message {
        Message::plain(text.to_owned(), &Metrics::new())
    }

    fn of_bytes(bytes: usize) -> Message {
        message(&"x".repeat(bytes))
    }

    #[test]
    fn a_newer_snapshot_takes_the_place_of_the_one_that_waits() {
        let outbox = outbox();
        let reader = outbox.attach(start(), A, Form::Plain);
        outbox.put_snapshot(&message("s1")).unwrap();
        push(&outbox, message("e1"));
        outbox.put_snapshot(&message("s2")).unwrap();
        assert_eq!(take_all(&reader), [text("s2"), text("e1"), Taken::Ping(1)]);
        assert_eq!(outbox.shared.metrics.conflated_snapshots.get(), 1);
    }

    #[test]
    fn what_was_not_confirmed_goes_out_again_before_anything_newer() {
        let outbox = outbox();
        let first = outbox.attach(start(), A, Form::Plain);
        for event in ["e1", "e2", "e3"] {
            push(&outbox, message(event));
        }
        assert_eq!(take_all(&first), [text("e1"), text("e2"), text("e3"), Taken::Ping(3)]);
        assert_eq!(first.acknowledge(start(), 1), Acknowledged::News);
        outbox.detach(A);
        push(&outbox, message("e4"));
        let second = outbox.attach(start(), B, Form::Plain);
        outbox.put_snapshot(&message("s")).unwrap();
        assert_eq!(take_all(&second), [text("e2"), text("e3"), text("e4"), text("s"), Taken::Ping(4)]);
        assert_eq!(second.acknowledge(start(), 4), Acknowledged::News);
        assert_eq!(outbox.event_bytes(), 0);
    }

    /// A client that was always a little behind was never asked to confirm anything, and lost its
    /// seat after 8 MiB of traffic although it read all of it.
    #[test]
    fn a_queue_that_is_never_empty_is_confirmed_all_the_same() {
        let outbox = outbox_of(10 * CONFIRM_BYTES);
        let reader = outbox.attach(start(), A, Form::Plain);
        for _ in 0..4 {
            push(&outbox, of_bytes(CONFIRM_BYTES / 2));
        }
        let pings = take_all(&reader).into_iter().filter(|taken| matches!(taken, Taken::Ping(_)));
        assert_eq!(pings.collect::<Vec<_>>(), [Taken::Ping(2), Taken::Ping(4)]);
    }

    #[test]
    fn a_socket_that_lost_its_seat_takes_nothing_and_confirms_nothing() {
        let outbox = outbox();
        let first = outbox.attach(start(), A, Form::Plain);
        push(&outbox, message("e1"));
        let second = outbox.attach(start(), B, Form::Plain);
        assert_eq!(take_all(&first), [Taken::Close(Close::Superseded)]);
        assert_eq!(first.acknowledge(start(), 1), Acknowledged::Unasked);
        assert_eq!(take_all(&second), [text("e1"), Taken::Ping(1)]);
        outbox.detach(A);
        push(&outbox, message("e2"));
        assert_eq!(take_all(&second), [text("e2"), Taken::Ping(2)], "the older socket's end touches nothing");
    }

    #[test]
    fn the_room_learns_once_that_a_socket_was_throttled() {
        let outbox = outbox();
        let reader = outbox.attach(start(), A, Form::Plain);
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

    /// Nine messages of 1 MiB at once took the places of all who are 50 ms away.
    #[test]
    fn only_who_confirms_nothing_for_the_write_timeout_is_too_slow() {
        let (outbox, now) = (outbox_of(10_000), start());
        let reader = outbox.attach(now, A, Form::Plain);
        let event = of_bytes(4_000);
        let push = |after| outbox.push(now + after, &event, None);
        assert_eq!(push(Duration::ZERO), Ok(Standing::KeepsUp));
        assert_eq!(push(Duration::ZERO), Ok(Standing::FallsBehind));
        assert_eq!(push(STALL), Ok(Standing::FallsBehind), "over its bytes, but not for long");
        let _ = take_all(&reader);
        assert_eq!(reader.acknowledge(now + STALL, 1), Acknowledged::News);
        let late = STALL + Duration::from_secs(1);
        assert_eq!(push(late), Ok(Standing::FallsBehind), "it confirmed one");
        // Not read for ten seconds, in which it may have confirmed more.
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

    /// 25,000 events of 18 bytes counted as 0.45 MB and took 5.7.
    #[test]
    fn what_short_events_take_is_counted_and_given_back() {
        let outbox = outbox_of(1 << 30);
        let reader = outbox.attach(start(), A, Form::Plain);
        let events: Vec<_> =
            (0..1000).map(|_| Message::plain("x".repeat(18), &outbox.shared.metrics)).collect();
        for event in events {
            outbox.push(start(), &event, None).unwrap();
        }
        assert!((200_000..300_000).contains(&outbox.event_bytes()), "{}", outbox.event_bytes());
        assert_eq!(outbox.shared.metrics.outbox_bytes.get() as usize, outbox.event_bytes());
        let _ = take_all(&reader);
        let _ = reader.acknowledge(start(), u64::MAX);
        assert_eq!(outbox.shared.metrics.outbox_bytes.get(), 0);
        assert!(outbox.shared.lock().sent.capacity() <= 2 * KEPT_PLACES);
    }

    #[test]
    fn where_memory_is_exhausted_those_who_are_slow_go() {
        let outbox = outbox_of(1 << 30);
        let reader = outbox.attach(start(), A, Form::Plain);
        let _all = Counted::new(&outbox.shared.metrics.outbox_bytes, 2 << 20);
        assert_eq!(outbox.push(start(), &of_bytes(LEAST_BYTES / 2), None), Ok(Standing::KeepsUp));
        assert_eq!(outbox.push(start(), &of_bytes(LEAST_BYTES / 2), None), Err(TooSlow));
        outbox.put_snapshot(&message("s1")).unwrap();
        assert_eq!(outbox.put_snapshot(&message("s2")), Err(TooSlow), "the older one was not taken");
        let _ = take_all(&reader);
        assert_eq!(outbox.put_snapshot(&message("s3")), Ok(()));
    }

    #[test]
    fn a_close_comes_after_everything_that_waits_and_the_first_reason_stays() {
        let outbox = outbox();
        let reader = outbox.attach(start(), A, Form::Plain);
        push(&outbox, message("own notice"));
        outbox.close(Close::TimedOut);
        drop(outbox);
        assert_eq!(take_all(&reader), [text("own notice"), Taken::Ping(1), Taken::Close(Close::TimedOut)]);
    }

    #[test]
    fn a_room_that_is_gone_closes_its_sockets() {
        let outbox = outbox();
        let reader = outbox.attach(start(), A, Form::Plain);
        drop(outbox);
        assert_eq!(take_all(&reader), [Taken::Close(Close::RoomFailed)]);
    }

    /// Whoever comes back may take another form than before.
    #[test]
    fn what_waits_comes_in_the_form_that_the_socket_takes() {
        let outbox = outbox_of(100_000);
        let long = "an event that is long enough ".repeat(50);
        let event = Message::deflated(long.clone(), &Metrics::new());
        let take_one = |reader: &OutboxReader| match reader.poll_take(&Context::from_waker(Waker::noop())) {
            Poll::Ready(Taken::Message(payload)) => payload,
            other => panic!("{other:?}"),
        };
        push(&outbox, event.clone());
        for (connection, form) in [(A, Form::Deflated), (B, Form::Plain), (A, Form::Deflated)] {
            let reader = outbox.attach(start(), connection, form);
            let payload = take_one(&reader);
            assert_eq!(payload, event.payload(form));
            if form == Form::Deflated {
                assert_eq!(inflate(&payload.bytes, 1 << 20).unwrap(), long.as_bytes());
            }
            assert_eq!(outbox.event_bytes(), cost(&event), "the budget knows one size");
            outbox.put_snapshot(&event).unwrap();
            let _ping_or_snapshot = reader.poll_take(&Context::from_waker(Waker::noop()));
            outbox.detach(connection);
        }
        assert_eq!(outbox.unconfirmed(), [long]);
    }
}
