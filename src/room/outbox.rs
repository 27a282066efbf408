//! What waits for one member: the newest snapshot, and events within a byte budget. Never blocks.
//!
//! The outbox belongs to the seat, not to the socket. While the socket is away its events wait; on
//! its return they go out before anything newer, also those that an earlier socket took but whose
//! arrival nobody confirmed: a written byte may die in a buffer of the network. So an event can
//! come twice over a reconnect, but none is missed. What confirms is a WebSocket ping after the
//! events, answered by every client (RFC 6455 section 5.5.3) once it has everything before it.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::message::{Message, Payload};
use crate::id::ConnectionId;
use crate::metrics::Metrics;
use crate::protocol::close::Close;
use crate::protocol::deflate::Form;

/// Events of that many bytes are not taken without asking for a confirmation. Without this, a
/// client that is always a little behind would never be asked, and its budget run out.
const CONFIRM_BYTES: usize = 64 * 1024;

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

/// The budget is spent: the member would miss an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverBudget;

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    budget_bytes: usize,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    /// The socket that may take. Another one has lost the seat.
    connection: Option<ConnectionId>,
    /// What that socket takes.
    form: Form,
    /// Wakes that socket's task.
    waker: Option<Waker>,
    queue: VecDeque<Queued>,
    /// Events that were taken but not confirmed, oldest first.
    sent: VecDeque<(u64, Message)>,
    /// The bytes of all events in `queue` and `sent`.
    event_bytes: usize,
    last_number: u64,
    /// The newest event that was taken since the last ping.
    to_confirm: Option<u64>,
    /// The bytes of the events that were taken since the last ping.
    unasked_bytes: usize,
    /// What the socket is closed with, once the queue is empty.
    end: Option<Close>,
    /// Whether what the member sends is not read, because it sent too much or the room is busy.
    throttled: bool,
    /// Whether that was so since the room last looked.
    was_throttled: bool,
}

#[derive(Debug)]
enum Queued {
    /// In the socket's own form: a snapshot is worthless to the next socket.
    Snapshot(Payload),
    /// In both forms: the next socket may take the other one.
    Event(u64, Message),
}

impl Outbox {
    /// An empty outbox for a seat that nobody has taken yet.
    pub fn new(budget_bytes: usize, metrics: Arc<Metrics>) -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::default(), budget_bytes, metrics }) }
    }

    /// Gives the outbox to `connection`, which takes `form`; an older socket is told that it lost the seat.
    ///
    /// What the older one did not confirm goes out again, before everything else.
    pub fn attach(&self, connection: ConnectionId, form: Form) -> OutboxReader {
        let mut state = self.shared.lock();
        state.rewind();
        state.connection = Some(connection);
        state.throttled = false;
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
            state.throttled = false;
            state.rewind();
        }
    }

    /// Adds an event behind everything that waits.
    ///
    /// # Errors
    /// [`OverBudget`] if the budget does not hold it; the event is not added.
    pub fn push(&self, event: Message) -> Result<(), OverBudget> {
        let mut state = self.shared.lock();
        let bytes = event.text().len();
        if state.event_bytes.saturating_add(bytes) > self.shared.budget_bytes {
            return Err(OverBudget);
        }
        state.event_bytes += bytes;
        state.last_number += 1;
        let number = state.last_number;
        state.queue.push_back(Queued::Event(number, event));
        state.wake();
        Ok(())
    }

    /// Makes `snapshot` the one that waits; an older one gives it its place.
    ///
    /// A member whose socket is away gets none: its return makes a new one.
    pub fn put_snapshot(&self, snapshot: &Message) {
        let mut state = self.shared.lock();
        if state.connection.is_none() {
            return;
        }
        let snapshot = snapshot.payload(state.form);
        let older = state.queue.iter_mut().find(|queued| matches!(queued, Queued::Snapshot(_)));
        if let Some(older) = older {
            *older = Queued::Snapshot(snapshot);
            self.shared.metrics.conflated_snapshots.inc();
        } else {
            state.queue.push_back(Queued::Snapshot(snapshot));
        }
        state.wake();
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
        state.end(close);
    }

    /// The texts of the events that no socket has confirmed, oldest first.
    pub fn unconfirmed(&self) -> Vec<Bytes> {
        let state = self.shared.lock();
        let queued = state.queue.iter().filter_map(|queued| match queued {
            Queued::Event(_, event) => Some(event),
            Queued::Snapshot(_) => None,
        });
        state.sent.iter().map(|(_, event)| event).chain(queued).map(|event| event.text().clone()).collect()
    }

    /// Whether the member's socket was not read since the last call, so that a heartbeat may wait there.
    pub fn take_throttled(&self) -> bool {
        let mut state = self.shared.lock();
        let is_throttled = state.throttled;
        mem::replace(&mut state.was_throttled, is_throttled)
    }

    /// The bytes of all events that no socket has confirmed.
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

    /// Takes note of whether the socket is read no further for now. Its member is alive meanwhile.
    pub fn set_throttled(&self, throttled: bool) {
        let mut state = self.shared.lock();
        if state.connection == Some(self.connection) {
            state.throttled = throttled;
            state.was_throttled |= throttled;
        }
    }

    /// Takes note that the client has everything up to the ping of that number.
    ///
    /// Gives back whether that was news: a client may also send pongs that nobody asked for.
    pub fn acknowledge(&self, number: u64) -> Acknowledged {
        let mut state = self.shared.lock();
        if state.connection != Some(self.connection) {
            return Acknowledged::Unasked;
        }
        let mut news = Acknowledged::Unasked;
        while state.sent.front().is_some_and(|(sent, _)| *sent <= number) {
            if let Some((_, event)) = state.sent.pop_front() {
                state.event_bytes -= event.text().len();
                news = Acknowledged::News;
            }
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
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
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
        for (number, event) in mem::take(&mut self.sent).into_iter().rev() {
            self.queue.push_front(Queued::Event(number, event));
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
            Some(Queued::Event(number, event)) => {
                let payload = event.payload(self.form);
                self.to_confirm = Some(number);
                self.unasked_bytes += payload.bytes.len();
                self.sent.push_back((number, event));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::deflate::inflate;

    const A: ConnectionId = ConnectionId(1);
    const B: ConnectionId = ConnectionId(2);

    fn outbox() -> Outbox {
        Outbox::new(100, Metrics::new())
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
        let reader = outbox.attach(A, Form::Plain);
        outbox.put_snapshot(&message("s1"));
        outbox.push(message("e1")).unwrap();
        outbox.put_snapshot(&message("s2"));
        assert_eq!(take_all(&reader), [text("s2"), text("e1"), Taken::Ping(1)]);
        assert_eq!(outbox.shared.metrics.conflated_snapshots.get(), 1);
    }

    #[test]
    fn what_was_not_confirmed_goes_out_again_before_anything_newer() {
        let outbox = outbox();
        let first = outbox.attach(A, Form::Plain);
        for event in ["e1", "e2", "e3"] {
            outbox.push(message(event)).unwrap();
        }
        assert_eq!(take_all(&first), [text("e1"), text("e2"), text("e3"), Taken::Ping(3)]);
        assert_eq!(first.acknowledge(1), Acknowledged::News);
        outbox.detach(A);
        outbox.push(message("e4")).unwrap();
        let second = outbox.attach(B, Form::Plain);
        outbox.put_snapshot(&message("s"));
        assert_eq!(take_all(&second), [text("e2"), text("e3"), text("e4"), text("s"), Taken::Ping(4)]);
        assert_eq!(second.acknowledge(4), Acknowledged::News);
        assert_eq!(outbox.event_bytes(), 0);
    }

    /// A client that was always a little behind was never asked to confirm anything, and lost its
    /// seat after 8 MiB of traffic although it read all of it.
    #[test]
    fn a_queue_that_is_never_empty_is_confirmed_all_the_same() {
        let outbox = Outbox::new(10 * CONFIRM_BYTES, Metrics::new());
        let reader = outbox.attach(A, Form::Plain);
        for _ in 0..4 {
            outbox.push(of_bytes(CONFIRM_BYTES / 2)).unwrap();
        }
        let pings = take_all(&reader).into_iter().filter(|taken| matches!(taken, Taken::Ping(_)));
        assert_eq!(pings.collect::<Vec<_>>(), [Taken::Ping(2), Taken::Ping(4)]);
    }

    #[test]
    fn a_socket_that_lost_its_seat_takes_nothing_and_confirms_nothing() {
        let outbox = outbox();
        let first = outbox.attach(A, Form::Plain);
        outbox.push(message("e1")).unwrap();
        let second = outbox.attach(B, Form::Plain);
        assert_eq!(take_all(&first), [Taken::Close(Close::Superseded)]);
        assert_eq!(first.acknowledge(1), Acknowledged::Unasked);
        assert_eq!(take_all(&second), [text("e1"), Taken::Ping(1)]);
        outbox.detach(A);
        outbox.push(message("e2")).unwrap();
        assert_eq!(take_all(&second), [text("e2"), Taken::Ping(2)], "the older socket's end touches nothing");
    }

    #[test]
    fn the_room_learns_once_that_a_socket_was_throttled() {
        let outbox = outbox();
        let reader = outbox.attach(A, Form::Plain);
        assert!(!outbox.take_throttled());
        reader.set_throttled(true);
        reader.set_throttled(false);
        assert!(outbox.take_throttled(), "it was between two looks");
        assert!(!outbox.take_throttled());
        reader.set_throttled(true);
        assert!(outbox.take_throttled() && outbox.take_throttled(), "it is");
        outbox.detach(A);
        assert!(
            outbox.take_throttled() && !outbox.take_throttled(),
            "a socket that is gone is no sign of life"
        );
        reader.set_throttled(true);
        assert!(!outbox.take_throttled());
    }

    #[test]
    fn the_budget_counts_what_is_not_confirmed() {
        let outbox = outbox();
        let reader = outbox.attach(A, Form::Plain);
        outbox.push(of_bytes(60)).unwrap();
        let _ = take_all(&reader);
        assert_eq!(outbox.push(of_bytes(41)), Err(OverBudget));
        let _ = reader.acknowledge(1);
        assert_eq!(outbox.push(of_bytes(41)), Ok(()));
    }

    #[test]
    fn a_close_comes_after_everything_that_waits_and_the_first_reason_stays() {
        let outbox = outbox();
        let reader = outbox.attach(A, Form::Plain);
        outbox.push(message("own notice")).unwrap();
        outbox.close(Close::TimedOut);
        drop(outbox);
        assert_eq!(take_all(&reader), [text("own notice"), Taken::Ping(1), Taken::Close(Close::TimedOut)]);
    }

    #[test]
    fn a_room_that_is_gone_closes_its_sockets() {
        let outbox = outbox();
        let reader = outbox.attach(A, Form::Plain);
        drop(outbox);
        assert_eq!(take_all(&reader), [Taken::Close(Close::RoomFailed)]);
    }

    /// Whoever comes back may take another form than before.
    #[test]
    fn what_waits_comes_in_the_form_that_the_socket_takes() {
        let outbox = Outbox::new(100_000, Metrics::new());
        let long = "an event that is long enough ".repeat(50);
        let event = Message::deflated(long.clone(), &Metrics::new());
        let take_one = |reader: &OutboxReader| match reader.poll_take(&Context::from_waker(Waker::noop())) {
            Poll::Ready(Taken::Message(payload)) => payload,
            other => panic!("{other:?}"),
        };
        outbox.push(event.clone()).unwrap();
        for (connection, form) in [(A, Form::Deflated), (B, Form::Plain), (A, Form::Deflated)] {
            let reader = outbox.attach(connection, form);
            let payload = take_one(&reader);
            assert_eq!(payload, event.payload(form));
            if form == Form::Deflated {
                assert_eq!(inflate(&payload.bytes, 1 << 20).unwrap(), long.as_bytes());
            }
            assert_eq!(outbox.event_bytes(), long.len(), "the budget knows one size");
            outbox.put_snapshot(&event);
            let _ping_or_snapshot = reader.poll_take(&Context::from_waker(Waker::noop()));
            outbox.detach(connection);
        }
        assert_eq!(outbox.unconfirmed(), [long]);
    }
}
