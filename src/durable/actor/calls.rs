//! The commands of an object, carried out one by one.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{Instrument, debug_span, warn};

use super::batch::{Batch, Effect};
use super::{Actor, INIT_TIME, unix_millis};
use crate::clock::now;
use crate::durable::command::{Answer, Ask, Command, Request, SocketMessage, ToSocket, Work};
use crate::durable::error::ObjectError;
use crate::durable::method::{
    AlarmChange, Change, MethodCall, MethodError, MethodOutcome, ObjectState, Payer, Target, Update,
};
use crate::durable::object::{Object, Step};
use crate::durable::session::no_params;
use crate::metrics::Metrics;
use crate::protocol::server::MessageKind;
use crate::room::message::SharedMessage;
use crate::store::objects::Alarm;

/// Time of a method after which calls before it no longer wait for it to be stored together.
const QUICK: Duration = Duration::from_millis(2);

/// Failed calls of an alarm's handler after which it is given up.
const MAX_FAILURES: u32 = 6;

/// Delay of the first further call of an alarm's handler, in milliseconds; each further one doubles it.
const FIRST_RETRY: u64 = 2000;

/// A finished call: its result, and what the sockets are told before it is answered.
type Called<T> = Result<(T, Vec<Update>), ObjectError>;

impl Actor {
    pub(super) async fn obey(&mut self, command: Command, batch: &mut Batch) {
        self.inbox.shared.is_used.store(true, Ordering::Relaxed);
        let command = match self.deps.cluster.is_some() {
            true => match self.admit(command, batch).await {
                Some(command) => command,
                None => return,
            },
            false => command,
        };
        match command {
            Command::Request(work) => self.work(work, batch).await,
            Command::Message(message) => self.hear(message, batch).await,
            Command::Subscribe { socket, encoding, answer } => {
                let outcome = match self.load().await {
                    Ok(()) => self.deps.memory.admit().and_then(|()| self.init_of_new_socket()),
                    Err(error) => Err(error),
                };
                self.effect(Effect::Subscribe { socket, encoding, answer, outcome }, batch).await;
            }
            Command::Gone(socket) => {
                self.feeds.remove(&socket);
                self.measure();
            }
            Command::Alarm { due, done } => self.ring(due, done, batch).await,
            #[cfg(test)]
            Command::Panic => panic!("by a test"),
        }
    }

    async fn work(&mut self, work: Work, batch: &mut Batch) {
        let Work { request, turn_by, answer, permit: _permit } = work;
        if answer.is_closed() {
            return;
        }
        let at = unix_millis();
        let called =
            if turn_by < now() { Err(ObjectError::Busy) } else { self.perform(at, request, batch).await };
        let result = self.tell(at, called, batch).await;
        self.effect(Effect::Answer(answer, result), batch).await;
    }

    async fn hear(&mut self, message: SocketMessage, batch: &mut Batch) {
        let SocketMessage { socket, key, id, ask, refusal, permit: _permit } = message;
        let at = unix_millis();
        let called = match refusal {
            Some(refusal) => Err(refusal),
            None => self.understand(at, &ask, Payer::Key(key), batch).await,
        };
        let outcome = self.tell(at, called, batch).await;
        self.effect(Effect::Message { socket, at, id, ask, outcome }, batch).await;
    }

    /// Queues the updates of a call, and returns its result.
    async fn tell<T>(&mut self, at: u64, called: Called<T>, batch: &mut Batch) -> Result<T, ObjectError> {
        let (result, updates) = called?;
        for Update { key, value } in updates {
            self.effect(Effect::Update { at, key, value }, batch).await;
        }
        Ok(result)
    }

    async fn perform(&mut self, at: u64, request: Request, batch: &mut Batch) -> Called<Answer> {
        self.load().await?;
        let quiet = |answer| Ok((answer, Vec::new()));
        match request {
            Request::State => quiet(Answer::State(self.data(batch)?)),
            Request::Value(key) => {
                let value = self.state()?.get(&key).cloned();
                value.map_or(Err(ObjectError::KeyNotFound), |value| quiet(Answer::Value(value)))
            }
            Request::Initialize(values) => {
                let updates = values.iter().cloned().map(|(key, value)| Update { key, value }).collect();
                let changes = values.into_iter().map(|(key, value)| Change::Put { key, value }).collect();
                self.change(at, changes, None, batch)?;
                Ok((Answer::Done(true), updates))
            }
            Request::Put { key, value } => {
                let updates = self.put(at, key, value, batch)?;
                Ok((Answer::Done(true), updates))
            }
            Request::Delete(key) => {
                let is_changed = self.change(at, vec![Change::Delete { key: key.clone() }], None, batch)?;
                Ok((
                    Answer::Done(is_changed),
                    vec![Update { key, value: Arc::from(RawValue::NULL.to_owned()) }],
                ))
            }
            Request::Method { name, params, key } => {
                let (result, updates) = self.call(at, name, params, Payer::Key(key), batch).await?;
                Ok((Answer::Result(result), updates))
            }
            Request::Remove => {
                let null = || Arc::from(RawValue::NULL.to_owned());
                let removed =
                    self.state()?.keys().map(|key| Update { key: key.clone(), value: null() }).collect();
                let step = self.object()?.removal(at);
                let is_changed = self.take_step(step, batch)?;
                Ok((Answer::Done(is_changed), removed))
            }
        }
    }

    /// Carries out a socket's message.
    async fn understand(
        &mut self,
        at: u64,
        ask: &Ask,
        payer: Payer,
        batch: &mut Batch,
    ) -> Result<(Option<Arc<RawValue>>, Vec<Update>), ObjectError> {
        match ask {
            Ask::Echo(_) | Ask::Invalid(_) => Ok((None, Vec::new())),
            Ask::State => {
                self.deps.check_queued_bytes()?;
                self.load().await?;
                let state = serde_json::value::to_raw_value(self.state()?);
                Ok((Some(Arc::from(state.map_err(|_| ObjectError::Internal)?)), Vec::new()))
            }
            Ask::Get(key) => {
                self.load().await?;
                Ok((self.state()?.get(key).cloned(), Vec::new()))
            }
            Ask::Set(key, value) | Ask::Update(key, value) => {
                self.load().await?;
                Ok((None, self.put(at, key.clone(), value.clone(), batch)?))
            }
            Ask::Method { name, params } => {
                self.load().await?;
                let (result, updates) = self.call(at, name.clone(), params.clone(), payer, batch).await?;
                Ok((Some(Arc::from(result)), updates))
            }
        }
    }

    fn put(
        &mut self,
        at: u64,
        key: Arc<str>,
        value: Arc<RawValue>,
        batch: &mut Batch,
    ) -> Result<Vec<Update>, ObjectError> {
        let change = Change::Put { key: key.clone(), value: value.clone() };
        self.change(at, vec![change], None, batch)?;
        Ok(vec![Update { key, value }])
    }

    /// Calls a method, and applies what it does.
    async fn call(
        &mut self,
        at: u64,
        name: String,
        params: Box<RawValue>,
        payer: Payer,
        batch: &mut Batch,
    ) -> Called<Box<RawValue>> {
        let called = self.run_method(at, Target::Method(name.clone()), params, payer, batch).await;
        let outcome = called.map_err(|failure| match failure {
            Failure::Method(error) => ObjectError::of_method(error, &name),
            Failure::Object(error) => error,
        })?;
        let MethodOutcome { result, changes, updates, alarm } = outcome;
        self.change(at, changes, alarm, batch)?;
        Ok((result, updates))
    }

    /// Calls the code of a method. If it is not quick, what was called before it does not wait for it.
    async fn run_method(
        &mut self,
        at: u64,
        target: Target,
        params: Box<RawValue>,
        payer: Payer,
        batch: &mut Batch,
    ) -> Result<MethodOutcome, Failure> {
        let object = self.object().map_err(Failure::Object)?;
        let row = object.row();
        let call = MethodCall {
            object: self.id.clone(),
            payer,
            params,
            state: object.state().clone(),
            alarm: row.alarm.filter(|_| target != Target::Alarm).map(|alarm| alarm.due),
            version: row.version,
            at,
            target,
        };
        let span = debug_span!("object_method", object = self.id.as_str(), method = call.target.name());
        let deps = self.deps.clone();
        let mut calling = pin!(deps.methods.call(call).instrument(span));
        if batch.is_waited_for() {
            match timeout(QUICK, &mut calling).await {
                Ok(outcome) => return outcome.map_err(Failure::Method),
                Err(_) => self.store(batch).await.map_err(Failure::Object)?,
            }
        }
        calling.await.map_err(Failure::Method)
    }

    /// Calls the alarm's handler, if that is still due at `due`.
    async fn ring(&mut self, due: u64, done: oneshot::Sender<()>, batch: &mut Batch) {
        let at = unix_millis();
        if self.load().await.is_err() {
            return;
        }
        let alarm = self.object.as_ref().and_then(|object| object.row().alarm);
        let Some(alarm) = alarm.filter(|alarm| alarm.due == due) else {
            return self.effect(Effect::Alarm(done), batch).await;
        };
        if due > at {
            // Of a node whose clock is ahead.
            return;
        }
        let called = match self.run_method(at, Target::Alarm, no_params(), Payer::Alarms, batch).await {
            Ok(outcome) => {
                let MethodOutcome { changes, updates, alarm, .. } = outcome;
                let alarm = alarm.or(Some(AlarmChange::Clear));
                self.change(at, changes, alarm, batch).map(|_| ((), updates))
            }
            Err(Failure::Method(error)) => Err(ObjectError::of_method(error, "alarm")),
            Err(Failure::Object(error)) => Err(error),
        };
        match called {
            Ok(called) => {
                Metrics::count(&self.deps.metrics.durable_alarms, "handled");
                // Nothing that was just applied can fail.
                let _ = self.tell(at, Ok(called), batch).await;
            }
            // It stays due.
            Err(error) if error.is_of_store() => return,
            Err(error) => self.postpone(at, alarm, &error, batch),
        }
        self.effect(Effect::Alarm(done), batch).await;
    }

    /// Sets a failed alarm to a later time, or gives it up.
    fn postpone(&mut self, at: u64, alarm: Alarm, error: &ObjectError, batch: &mut Batch) {
        let failures = alarm.failures + 1;
        let object = self.id.as_str();
        let next = if failures > MAX_FAILURES {
            Metrics::count(&self.deps.metrics.durable_alarms, "given_up");
            warn!(event = "alarmGivenUp", object, failures, %error);
            None
        } else {
            Metrics::count(&self.deps.metrics.durable_alarms, "failed");
            warn!(event = "alarmFailed", object, failures, %error, "it is tried again");
            Some(Alarm { due: at + (FIRST_RETRY << alarm.failures), failures })
        };
        let step = self.object.as_ref().and_then(|object| object.alarm_step(at, next));
        // It does not grow, so no limit refuses it.
        let _ = self.take_step(step, batch);
    }

    /// Applies changes; true if there were any.
    fn change(
        &mut self,
        at: u64,
        changes: Vec<Change>,
        alarm: Option<AlarmChange>,
        batch: &mut Batch,
    ) -> Result<bool, ObjectError> {
        let step = self.object()?.step(at, changes, alarm, &self.deps.limits)?;
        self.take_step(step, batch)
    }

    fn take_step(&mut self, step: Option<Step>, batch: &mut Batch) -> Result<bool, ObjectError> {
        let (Some(step), Some(object)) = (step, &mut self.object) else { return Ok(false) };
        if step.after().bytes > object.row().bytes {
            self.deps.memory.admit()?;
        }
        self.deps.totals.change(object.row(), step.after())?;
        self.counted = Some(*step.after());
        object.apply(step, &mut batch.unstored);
        (self.init, batch.data) = (None, None);
        Ok(true)
    }

    /// The object, which was loaded before.
    fn object(&self) -> Result<&Object, ObjectError> {
        self.object.as_ref().ok_or(ObjectError::StoreFailing)
    }

    fn state(&self) -> Result<&Arc<ObjectState>, ObjectError> {
        Ok(self.object()?.state())
    }

    /// The first message of a new socket, unless too much waits for others to read it.
    fn init_of_new_socket(&mut self) -> Result<SharedMessage, ObjectError> {
        if self.init.is_none() {
            self.deps.check_queued_bytes()?;
        }
        self.init()
    }

    /// The state as a message.
    pub(super) fn init(&mut self) -> Result<SharedMessage, ObjectError> {
        if let Some((init, _)) = &self.init {
            return Ok(init.clone());
        }
        let init = self.message(&ToSocket::Init { state: self.state()? });
        self.init = Some((init.clone(), now() + INIT_TIME));
        Ok(init)
    }

    /// The answer to a request for the state.
    fn data(&self, batch: &mut Batch) -> Result<SharedMessage, ObjectError> {
        if let Some(data) = &batch.data {
            return Ok(data.clone());
        }
        self.deps.check_queued_bytes()?;
        let values = serde_json::to_string(self.state()?).map_err(|_| ObjectError::Internal)?;
        let json = format!("{{\"data\":{values}}}");
        let data = SharedMessage::new(MessageKind::Object, json, &self.deps.metrics);
        Ok(batch.data.insert(data).clone())
    }
}

/// A method that was not called, or failed.
enum Failure {
    Method(MethodError),
    Object(ObjectError),
}
