//! Calls that are stored together, and what follows once they are.

use std::mem;
use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tracing::debug;

use super::Actor;
use crate::clock::now;
use crate::durable::builtin::timestamp;
use crate::durable::command::{Answer, Ask, Reply, ToSocket};
use crate::durable::error::ObjectError;
use crate::durable::feed::{Feed, FeedReader};
use crate::durable::object::{Object, Unstored};
use crate::id::ConnectionId;
use crate::metrics::Metrics;
use crate::protocol::close::Close;
use crate::protocol::deflate::Encoding;
use crate::protocol::server::MessageKind;
use crate::room::message::SharedMessage;
use crate::store::objects::ObjectWrite;

/// Minimum size in bytes of a message compressed on a blocking thread; compressing so much takes milliseconds.
const LONG_BYTES: usize = 256 << 10;

/// Number of sockets from which others get their turn after each update.
const MANY_SOCKETS: usize = 64;

/// Changes that are applied in memory, and what is to be done once they are stored.
#[derive(Default)]
pub(super) struct Batch {
    /// The changes; none while only reads were made.
    pub(super) unstored: Option<Unstored>,
    effects: Vec<Effect>,
    /// The state as an answer, until it changes.
    pub(super) data: Option<SharedMessage>,
}

/// A consequence of a call, in the order of the calls.
pub(super) enum Effect {
    /// The answer to a request.
    Answer(oneshot::Sender<Reply>, Result<Answer, ObjectError>),
    /// A change that the sockets are told.
    Update { at: u64, key: Arc<str>, value: Arc<RawValue> },
    /// The end of a socket's message.
    Message { socket: ConnectionId, at: u64, id: Option<Box<RawValue>>, ask: Ask, outcome: Outcome },
    /// A new socket with its first message.
    Subscribe {
        socket: ConnectionId,
        encoding: Encoding,
        answer: oneshot::Sender<Option<Result<FeedReader, ObjectError>>>,
        outcome: Result<SharedMessage, ObjectError>,
    },
    /// The alarm's handler was called.
    Alarm(oneshot::Sender<()>),
}

/// The outcome of a socket's message: the result of a method, or the value that was read.
pub(super) type Outcome = Result<Option<Arc<RawValue>>, ObjectError>;

impl Batch {
    pub(super) fn len(&self) -> usize {
        self.effects.len()
    }

    /// True if somebody waits for these changes to be stored.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.effects.is_empty()
    }
}

impl Actor {
    /// Carries out an effect, now if nothing before it is to be stored, else after that.
    pub(super) async fn effect(&mut self, effect: Effect, batch: &mut Batch) {
        if batch.unstored.is_some() {
            batch.effects.push(effect);
        } else {
            self.carry_out(effect).await;
        }
    }

    /// Stores the changes of a batch, and carries out what follows.
    ///
    /// # Errors
    /// [`ObjectError::StoreFailing`] or an error of the cluster; everyone who waited for these changes was told, and the object is as stored.
    pub(super) async fn store(&mut self, batch: &mut Batch) -> Result<(), ObjectError> {
        let effects = mem::take(&mut batch.effects);
        let (Some(unstored), Some(object)) = (batch.unstored.take(), &self.object) else {
            for effect in effects {
                self.carry_out(effect).await;
            }
            return Ok(());
        };
        if self.deps.cluster.is_some() {
            return self.store_in_journal(unstored, effects, batch).await;
        }
        let Unstored { changes, before } = unstored;
        let write = ObjectWrite { id: self.id.clone(), changes, before, after: *object.row() };
        let stored = self.deps.store.commit(write).await;
        self.measure();
        if stored.is_ok() {
            for effect in effects {
                self.carry_out(effect).await;
            }
            return Ok(());
        }
        (self.init, batch.data) = (None, None);
        let told = self.object.take().map(|object| *object.row());
        for effect in effects {
            self.fail(effect, &ObjectError::StoreFailing).await;
        }
        if self.load().await.is_ok() && self.object.as_ref().map(Object::row) != told.as_ref() {
            // The sockets may know neither what was rolled back nor what was stored in spite of the error.
            self.tell_state();
        }
        Err(ObjectError::StoreFailing)
    }

    pub(super) async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Answer(answer, result) => drop(answer.send(Reply::Answered(result))),
            Effect::Update { at, key, value } => self.tell_update(at, &key, &value).await,
            Effect::Message { socket, at, id, ask, outcome } => {
                self.answer_message(socket, at, id.as_deref(), &ask, outcome);
            }
            Effect::Subscribe { socket, encoding, answer, outcome } => {
                let subscribed = outcome.and_then(|init| self.subscribe(socket, encoding, &init));
                if answer.send(Some(subscribed)).is_err() {
                    self.feeds.remove(&socket);
                }
                self.measure();
            }
            Effect::Alarm(done) => drop(done.send(())),
        }
    }

    /// Tells whoever waits for an effect that the changes before it are not stored.
    pub(super) async fn fail(&mut self, effect: Effect, failure: &ObjectError) {
        let failure = failure.clone();
        let failed = match effect {
            Effect::Answer(answer, _) => Effect::Answer(answer, Err(failure)),
            Effect::Update { .. } => return,
            Effect::Message { socket, at, id, ask, .. } => {
                Effect::Message { socket, at, id, ask, outcome: Err(failure) }
            }
            Effect::Subscribe { socket, encoding, answer, .. } => {
                Effect::Subscribe { socket, encoding, answer, outcome: Err(failure) }
            }
            // It stays due.
            Effect::Alarm(_) => return,
        };
        self.carry_out(failed).await;
    }

    fn subscribe(
        &mut self,
        socket: ConnectionId,
        encoding: Encoding,
        init: &SharedMessage,
    ) -> Result<FeedReader, ObjectError> {
        if self.is_stopping {
            return Err(ObjectError::Stopping);
        }
        if self.feeds.len() >= self.deps.sockets {
            return Err(ObjectError::Full("the object has too many sockets"));
        }
        let (feed, reader) = Feed::new(encoding, self.deps.outbox, self.deps.metrics.clone());
        feed.push_state(now(), init).map_err(|_| ObjectError::Full("too much waits to be read"))?;
        self.feeds.insert(socket, feed);
        self.deps.metrics.durable_sockets_opened.inc();
        Ok(reader)
    }

    async fn tell_update(&mut self, at: u64, key: &Arc<str>, value: &RawValue) {
        if self.feeds.is_empty() {
            return;
        }
        let update = ToSocket::Update { key, value, timestamp: timestamp(at) };
        let message = self.message(&update);
        let accepting =
            self.feeds.values().filter(|feed| feed.encoding() == Encoding::Deflate).take(2).count();
        // Compressing pays only if several share the result.
        if accepting > 1 {
            compress(&message, &self.deps.metrics).await;
        }
        let now = now();
        let slow = self.feeds.iter().filter(|(_, feed)| feed.push_update(now, key, &message).is_err());
        let slow: Vec<ConnectionId> = slow.map(|(socket, _)| *socket).collect();
        self.drop_slow(&slow);
        if self.feeds.len() >= MANY_SOCKETS {
            // One call may change thousands of keys.
            tokio::task::yield_now().await;
        }
    }

    /// Tells all sockets the whole state.
    pub(super) fn tell_state(&mut self) {
        if self.feeds.is_empty() {
            return;
        }
        let Ok(init) = self.init() else { return };
        let now = now();
        let slow = self.feeds.iter().filter(|(_, feed)| feed.push_state(now, &init).is_err());
        let slow: Vec<ConnectionId> = slow.map(|(socket, _)| *socket).collect();
        self.drop_slow(&slow);
    }

    fn drop_slow(&mut self, sockets: &[ConnectionId]) {
        for socket in sockets {
            if let Some(feed) = self.feeds.remove(socket) {
                Metrics::count(&self.deps.metrics.drops, "outbox_over_budget");
                feed.discard(Close::TooSlow);
            }
        }
        if !sockets.is_empty() {
            self.measure();
        }
    }

    fn answer_message(
        &mut self,
        socket: ConnectionId,
        at: u64,
        id: Option<&RawValue>,
        ask: &Ask,
        outcome: Outcome,
    ) {
        let Some(feed) = self.feeds.get(&socket) else { return };
        let failure = outcome.as_ref().err().map(|error| {
            debug!(event = "messageFailed", object = self.id.as_str(), reason = error.reason());
            match error {
                // As the worker says it to a socket.
                ObjectError::MethodNotFound(_) => "Method not found".to_owned(),
                error => error.to_string(),
            }
        });
        let value = outcome.ok().flatten();
        let answer = match (ask, failure.as_deref()) {
            (Ask::Method { .. } | Ask::State, error) => {
                let result = value.as_deref();
                ToSocket::Response { id, success: error.is_none(), result, error }
            }
            (_, Some(error)) => ToSocket::Error { id, error },
            (Ask::Echo(data), None) => {
                ToSocket::EchoResponse { id, data: data.as_deref(), timestamp: timestamp(at) }
            }
            (Ask::Get(key), None) => {
                ToSocket::GetResponse { id, key, value: value.as_deref(), timestamp: timestamp(at) }
            }
            (Ask::Set(key, value), None) => {
                ToSocket::SetResponse { id, key, value, status: "success", timestamp: timestamp(at) }
            }
            (Ask::Update(..), None) => return feed.skip_answer(now()),
            (Ask::Invalid(error), None) => ToSocket::Error { id, error },
        };
        let message = self.message(&answer);
        if feed.push_answer(now(), &message).is_err() {
            self.drop_slow(&[socket]);
        }
    }

    /// A message to sockets.
    pub(super) fn message(&self, message: &ToSocket<'_>) -> SharedMessage {
        SharedMessage::new(MessageKind::Object, message.to_json(), &self.deps.metrics)
    }
}

/// Compresses a message, on a blocking thread if it is long.
async fn compress(message: &SharedMessage, metrics: &Arc<Metrics>) {
    if message.json().len() < LONG_BYTES {
        return message.compress(metrics);
    }
    let (message, metrics) = (message.clone(), metrics.clone());
    // If the thread panics, the message is sent as it is.
    let _ = tokio::task::spawn_blocking(move || message.compress(&metrics)).await;
}
