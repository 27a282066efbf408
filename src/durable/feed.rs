//! The queue of messages to one socket of an object. Never blocks.
//!
//! A socket that lags gets the newest value of each key only: an update replaces an older one of its key that still
//! waits, and takes its place behind everything else. So no older value comes after a newer one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use crate::metrics::{Counted, Metrics};
use crate::protocol::close::Close;
use crate::protocol::deflate::Encoding;
use crate::protocol::server::MessageKind;
use crate::room::message::{Payload, SharedMessage};
use crate::room::outbox::{OutboxLimits, TooSlow};

/// Messages and bytes from which a socket lags.
const LAG_MESSAGES: usize = 32;
const LAG_BYTES: usize = 64 * 1024;

/// Queued bytes up to which no socket is too slow, even if the memory for all sockets is exhausted.
const LEAST_BYTES: usize = 64 * 1024;

/// Memory of a queue entry in bytes.
const ENTRY_BYTES: usize = 96;

/// Answers to a socket's own messages, in number and bytes, from which it is not read until it has taken some.
const MAX_ANSWERS: usize = 16;
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// The object's end of the queue. Dropping it closes the socket: the object failed.
#[derive(Debug)]
pub struct Feed {
    shared: Arc<Shared>,
}

/// The socket's end of the queue.
#[derive(Debug)]
pub struct FeedReader {
    shared: Arc<Shared>,
}

/// The next action of a socket.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Write this message.
    Message(Payload),
    /// Write the close frame; there is nothing after it.
    Close(Close),
}

/// The next action of a socket, for the node that has it.
#[derive(Debug)]
pub enum Relayed {
    /// The whole state.
    State(SharedMessage),
    /// A change of a key.
    Update(Arc<str>, SharedMessage),
    /// The answer to a message of the socket.
    Answer(SharedMessage),
    /// A message of the socket was handled, and has no answer.
    Skip,
    /// The end.
    Close(Close),
}

#[derive(Debug)]
struct Shared {
    state: Mutex<FeedState>,
    limits: OutboxLimits,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct FeedState {
    /// The encoding that the socket accepts.
    encoding: Encoding,
    /// Messages by their numbers, which have gaps where one was replaced.
    queue: BTreeMap<u64, Queued>,
    /// The number of each key's queued update, while the socket lags.
    newest: Option<HashMap<Arc<str>, u64>>,
    last_number: u64,
    /// Memory of all queued messages, in bytes.
    bytes: usize,
    /// Memory of the queue's entries, in the gauge of queued bytes.
    entries: Counted,
    /// True if the socket is another node's, which counts its messages.
    tells_skips: bool,
    /// Messages of the socket that are not answered yet, or whose answers are queued.
    answers: usize,
    /// Bytes of the queued answers.
    answer_bytes: usize,
    /// The time of the last message that was taken, or of the first that was queued since.
    waiting_since: Option<Instant>,
    /// The reason of the socket's end, once everything before it is taken.
    end: Option<Close>,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Queued {
    message: SharedMessage,
    cost: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Update(Arc<str>),
    /// Bytes of an answer.
    Answer(usize),
    State,
    Skip,
}

impl Feed {
    /// An empty queue for a socket that accepts `encoding`.
    pub fn new(encoding: Encoding, limits: OutboxLimits, metrics: Arc<Metrics>) -> (Self, FeedReader) {
        let state = FeedState {
            encoding,
            queue: BTreeMap::new(),
            newest: None,
            last_number: 0,
            bytes: 0,
            entries: Counted::new(&metrics.outbox_bytes, 0),
            tells_skips: false,
            answers: 0,
            answer_bytes: 0,
            waiting_since: None,
            end: None,
            waker: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), limits, metrics });
        (Self { shared: shared.clone() }, FeedReader { shared })
    }

    /// The encoding that the socket accepts.
    pub fn encoding(&self) -> Encoding {
        self.shared.lock().encoding
    }

    /// Queues the whole state, which replaces all updates that wait.
    pub fn push_state(&self, now: Instant, message: &SharedMessage) -> Result<(), TooSlow> {
        let mut state = self.shared.lock();
        let replaced: Vec<u64> = state
            .queue
            .iter()
            .filter(|(_, queued)| !matches!(queued.kind, Kind::Answer(_) | Kind::Skip))
            .map(|(number, _)| *number)
            .collect();
        replaced.into_iter().for_each(|number| state.forget(number));
        if let Some(newest) = &mut state.newest {
            newest.clear();
        }
        self.push(state, now, message, Kind::State)
    }

    /// Queues an update of a key.
    ///
    /// # Errors
    /// [`TooSlow`] if the socket has to be closed instead.
    pub fn push_update(&self, now: Instant, key: &Arc<str>, message: &SharedMessage) -> Result<(), TooSlow> {
        let mut state = self.shared.lock();
        if state.queue.len() >= LAG_MESSAGES || state.bytes >= LAG_BYTES {
            state.index();
        }
        if let Some(older) = state.newest.as_mut().and_then(|newest| newest.remove(key)) {
            state.forget(older);
            self.shared.metrics.durable_conflated_updates.inc();
        }
        self.push(state, now, message, Kind::Update(key.clone()))
    }

    /// Queues the answer to a message of the socket.
    ///
    /// # Errors
    /// [`TooSlow`] if the socket has to be closed instead.
    pub fn push_answer(&self, now: Instant, message: &SharedMessage) -> Result<(), TooSlow> {
        let bytes = message.cost();
        let mut state = self.shared.lock();
        state.answer_bytes += bytes;
        self.push(state, now, message, Kind::Answer(bytes))
    }

    /// Counts a message of the socket that gets no answer as handled.
    pub fn skip_answer(&self, now: Instant) {
        let mut state = self.shared.lock();
        if state.tells_skips {
            let nothing = SharedMessage::new(MessageKind::Object, String::new(), &self.shared.metrics);
            // A socket that is too slow for it is found out by the next message.
            let _ = self.push(state, now, &nothing, Kind::Skip);
            return;
        }
        state.answers = state.answers.saturating_sub(1);
        state.wake();
    }

    fn push(
        &self,
        mut state: MutexGuard<'_, FeedState>,
        now: Instant,
        message: &SharedMessage,
        kind: Kind,
    ) -> Result<(), TooSlow> {
        let limits = &self.shared.limits;
        let cost = message.cost() + ENTRY_BYTES;
        let bytes = state.bytes.saturating_add(cost);
        let takes_nothing =
            state.waiting_since.is_some_and(|since| now.duration_since(since) > limits.write_stall);
        let is_over = bytes > limits.member_bytes.saturating_mul(2)
            || (bytes > limits.member_bytes && takes_nothing)
            || (state.bytes > LEAST_BYTES && self.shared.limits.is_exhausted(&self.shared.metrics));
        if is_over {
            return Err(TooSlow);
        }
        state.waiting_since.get_or_insert(now);
        state.bytes = bytes;
        state.last_number += 1;
        let number = state.last_number;
        if let (Some(newest), Kind::Update(key)) = (&mut state.newest, &kind) {
            newest.insert(key.clone(), number);
        }
        state.queue.insert(number, Queued { message: message.clone(), cost, kind });
        state.count_entries();
        state.wake();
        Ok(())
    }

    /// Closes the socket after everything that is queued.
    pub fn close(&self, close: Close) {
        self.shared.lock().end(close);
    }

    /// Closes the socket, and drops everything that is queued.
    pub fn discard(&self, close: Close) {
        let mut state = self.shared.lock();
        state.queue = BTreeMap::new();
        (state.newest, state.bytes) = (None, 0);
        state.count_entries();
        state.end(close);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.lock().end(Close::ObjectFailed);
    }
}

impl FeedReader {
    /// The next action, or `Pending` until there is one. Only the last caller is woken.
    pub fn poll_take(&self, now: impl FnOnce() -> Instant, context: &Context<'_>) -> Poll<Taken> {
        self.poll_next(
            now,
            context,
            |queued, encoding| Taken::Message(queued.message.payload(encoding)),
            Taken::Close,
        )
    }

    /// The same, for the node that has the socket.
    pub fn poll_relayed(&self, now: impl FnOnce() -> Instant, context: &Context<'_>) -> Poll<Relayed> {
        let relayed = |queued: Queued, _| match queued.kind {
            Kind::Update(key) => Relayed::Update(key, queued.message),
            Kind::Answer(_) => Relayed::Answer(queued.message),
            Kind::State => Relayed::State(queued.message),
            Kind::Skip => Relayed::Skip,
        };
        self.poll_next(now, context, relayed, Relayed::Close)
    }

    /// Has the socket's node told of messages that have no answer.
    pub fn tell_skips(&self) {
        self.shared.lock().tells_skips = true;
    }

    fn poll_next<T>(
        &self,
        now: impl FnOnce() -> Instant,
        context: &Context<'_>,
        take: impl FnOnce(Queued, Encoding) -> T,
        close: impl FnOnce(Close) -> T,
    ) -> Poll<T> {
        let mut state = self.shared.lock();
        if let Some((_, queued)) = state.queue.pop_first() {
            state.bytes -= queued.cost;
            match &queued.kind {
                Kind::Update(key) => {
                    if let Some(newest) = &mut state.newest {
                        newest.remove(key);
                    }
                }
                Kind::Answer(bytes) => {
                    state.answer_bytes = state.answer_bytes.saturating_sub(*bytes);
                    state.answers = state.answers.saturating_sub(1);
                }
                Kind::State | Kind::Skip => {}
            }
            state.waiting_since = None;
            if state.queue.is_empty() {
                state.newest = None;
            } else {
                state.waiting_since = Some(now());
            }
            state.count_entries();
            return Poll::Ready(take(queued, state.encoding));
        }
        if let Some(end) = state.end {
            return Poll::Ready(close(end));
        }
        state.keep_waker(context);
        Poll::Pending
    }

    /// Ready once the socket is to be closed, even if messages are still queued.
    pub fn poll_end(&self, context: &Context<'_>) -> Poll<Close> {
        let mut state = self.shared.lock();
        if let Some(close) = state.end {
            return Poll::Ready(close);
        }
        state.keep_waker(context);
        Poll::Pending
    }

    /// Counts a message of the socket, which is answered later.
    pub fn expect_answer(&self) {
        self.shared.lock().answers += 1;
    }

    /// Ready while few of the socket's own messages wait for their answers to be made and taken.
    pub fn poll_answered(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.shared.lock();
        if state.is_answered() {
            return Poll::Ready(());
        }
        state.keep_waker(context);
        Poll::Pending
    }

    /// True if the socket should be read, as far as its own messages are concerned.
    pub fn is_answered(&self) -> bool {
        self.shared.lock().is_answered()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, FeedState> {
        // No code that runs under the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FeedState {
    fn is_answered(&self) -> bool {
        self.end.is_some() || (self.answers < MAX_ANSWERS && self.answer_bytes < MAX_ANSWER_BYTES)
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn keep_waker(&mut self, context: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
        }
    }

    /// Sets the reason of the end; the first one stays.
    fn end(&mut self, close: Close) {
        self.end.get_or_insert(close);
        self.wake();
    }

    fn forget(&mut self, number: u64) {
        if let Some(queued) = self.queue.remove(&number) {
            self.bytes -= queued.cost;
        }
    }

    /// Finds the newest update of each key, and drops the others.
    fn index(&mut self) {
        if self.newest.is_some() {
            return;
        }
        let mut newest = HashMap::new();
        let mut older = Vec::new();
        for (number, queued) in &self.queue {
            if let Kind::Update(key) = &queued.kind {
                older.extend(newest.insert(key.clone(), *number));
            }
        }
        older.into_iter().for_each(|number| self.forget(number));
        self.newest = Some(newest);
    }

    fn count_entries(&mut self) {
        self.entries.set(self.queue.len() * ENTRY_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::now;

    const STALL: Duration = Duration::from_secs(20);

    fn feed(member_bytes: usize) -> (Feed, FeedReader, Arc<Metrics>) {
        let limits = OutboxLimits { member_bytes, all_bytes: 1 << 20, write_stall: STALL };
        let metrics = Metrics::new();
        let (feed, reader) = Feed::new(Encoding::Identity, limits, metrics.clone());
        (feed, reader, metrics)
    }

    fn message(text: impl Into<String>) -> SharedMessage {
        SharedMessage::new(MessageKind::Object, text.into(), &Metrics::new())
    }

    fn update(feed: &Feed, key: &str, text: impl Into<String>) -> Result<(), TooSlow> {
        feed.push_update(now(), &key.into(), &message(text))
    }

    fn take_all(reader: &FeedReader) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            match reader.poll_take(now, &Context::from_waker(Waker::noop())) {
                Poll::Ready(Taken::Message(payload)) => {
                    all.push(String::from_utf8(payload.bytes.to_vec()).unwrap());
                }
                Poll::Ready(Taken::Close(close)) => {
                    all.push(close.label().to_owned());
                    return all;
                }
                Poll::Pending => return all,
            }
        }
    }

    #[test]
    fn socket_that_keeps_up_gets_every_update() {
        let (feed, reader, metrics) = feed(1 << 20);
        let mut all = Vec::new();
        for n in 0..100 {
            update(&feed, "k", n.to_string()).unwrap();
            if n % 10 == 9 {
                all.extend(take_all(&reader));
            }
        }
        assert_eq!(all, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!((metrics.durable_conflated_updates.get(), metrics.outbox_bytes.get()), (0, 0));
    }

    #[test]
    fn lagging_socket_gets_the_newest_of_each_key() {
        let (feed, reader, metrics) = feed(1 << 20);
        for n in 0..1000 {
            update(&feed, if n % 2 == 0 { "even" } else { "odd" }, n.to_string()).unwrap();
            if n == 500 {
                feed.push_answer(now(), &message("answer")).unwrap();
            }
        }
        assert_eq!(take_all(&reader), ["answer", "998", "999"]);
        assert!(metrics.durable_conflated_updates.get() > 900);
        update(&feed, "even", "1000").unwrap();
        update(&feed, "even", "1001").unwrap();
        assert_eq!(take_all(&reader), ["1000", "1001"], "it keeps up again");
    }

    #[test]
    fn state_replaces_waiting_updates() {
        let (feed, reader, _) = feed(1 << 20);
        update(&feed, "k", "1").unwrap();
        feed.push_answer(now(), &message("answer")).unwrap();
        feed.push_state(now(), &message("state")).unwrap();
        update(&feed, "k", "2").unwrap();
        assert_eq!(take_all(&reader), ["answer", "state", "2"]);
    }

    #[test]
    fn slow_socket_is_closed_by_time_and_by_memory() {
        let (feed, reader, _) = feed(100_000);
        let long = message("x".repeat(60_000));
        let push = |key: &str, after| feed.push_update(now() + after, &key.into(), &long);
        push("a", Duration::ZERO).unwrap();
        push("b", Duration::ZERO).unwrap();
        push("b", STALL / 2).unwrap();
        assert_eq!(push("c", 2 * STALL), Err(TooSlow), "over its bytes, and for long");
        let _ = reader.poll_take(now, &Context::from_waker(Waker::noop()));
        push("c", STALL / 2).unwrap();
        push("d", STALL / 2).unwrap();
        assert_eq!(push("e", STALL / 2), Err(TooSlow), "over twice its bytes");
        feed.discard(Close::TooSlow);
        assert_eq!(take_all(&reader), ["too_slow"]);
    }

    #[test]
    fn exhausted_memory_closes_sockets_that_lag() {
        let (feed, _reader, metrics) = feed(1 << 30);
        let _all = Counted::new(&metrics.outbox_bytes, 2 << 20);
        update(&feed, "a", "x".repeat(LEAST_BYTES)).unwrap();
        assert_eq!(update(&feed, "b", "1"), Err(TooSlow));
    }

    #[test]
    fn own_messages_wait_for_their_answers() {
        let (feed, reader, _) = feed(1 << 30);
        for _ in 0..MAX_ANSWERS {
            assert!(reader.is_answered());
            reader.expect_answer();
        }
        assert!(reader.poll_answered(&Context::from_waker(Waker::noop())).is_pending());
        feed.skip_answer(now());
        assert!(reader.is_answered());
        feed.push_answer(now(), &message("x".repeat(MAX_ANSWER_BYTES))).unwrap();
        assert!(!reader.is_answered());
        take_all(&reader);
        assert!(reader.is_answered());
    }

    #[test]
    fn dropped_feed_closes_its_socket() {
        let (feed, reader, _) = feed(1000);
        update(&feed, "k", "1").unwrap();
        drop(feed);
        assert_eq!(take_all(&reader), ["1", "object_failed"]);
    }
}
