//! SHELL: methods outside of this server, called by HTTP.
//!
//! A call is posted with the object's values, signed as by Standard Webhooks, and its answer says what to change. The
//! object waits meanwhile, so the answer has a short time, and a call is never made twice: the receiver may have acted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::method::{Change, MethodCall, MethodError, MethodOutcome, ObjectState, Target, Update};
use super::object::{MAX_DEPTH, depth};
use crate::clock::wall_clock;
use crate::config::{DurableConfig, HttpUrl};
use crate::delivery::signature::{ID, SIGNATURE, SigningKey, TIMESTAMP};
use crate::delivery::webhook::{InvalidWebhook, client};

/// Maximum concurrent calls.
const MAX_CALLS: usize = 256;

/// Maximum bytes of an answer beyond those of an object.
const ANSWER_OVERHEAD: usize = 256 << 10;

/// Maximum changes and messages of one answer.
const MAX_STEPS: usize = 20_000;

/// Maximum bytes of a key.
const MAX_KEY_BYTES: usize = 2048;

/// Maximum bytes of an error's message.
const MAX_MESSAGE_BYTES: usize = 1024;

/// The receiver of calls.
pub struct Callback {
    client: reqwest::Client,
    url: HttpUrl,
    key: SigningKey,
    max_answer_bytes: usize,
    calls: Semaphore,
}

/// A call as it is posted.
#[derive(Serialize)]
struct Posted<'c> {
    object: &'c str,
    method: &'c str,
    params: &'c RawValue,
    state: &'c ObjectState,
    version: u64,
}

/// The answer to a call: everything that it does. Deletions apply before the values that are set.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    result: Option<Box<RawValue>>,
    set: BTreeMap<String, Box<RawValue>>,
    delete: Vec<String>,
    broadcast: Vec<Box<RawValue>>,
}

/// A message to the object's sockets.
#[derive(Deserialize)]
struct Broadcast {
    key: String,
    value: Box<RawValue>,
}

/// An answer with an error.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl Callback {
    /// Creates the client of the configured receiver, if there is one.
    ///
    /// # Errors
    /// [`InvalidWebhook`] if TLS cannot be set up.
    pub fn new(config: &DurableConfig) -> Result<Option<Self>, InvalidWebhook> {
        let (Some(url), Some(key)) = (config.callback_url.as_ref(), config.callback_key()) else {
            return Ok(None);
        };
        Ok(Some(Self {
            client: client("durable.callback_url", url.as_str(), config.callback_timeout)?,
            url: url.clone(),
            key: SigningKey::new(&key),
            max_answer_bytes: config.object_bytes + ANSWER_OVERHEAD,
            calls: Semaphore::new(MAX_CALLS),
        }))
    }

    /// Calls a method, once.
    ///
    /// # Errors
    /// [`MethodError`]; the receiver may have acted nevertheless.
    pub async fn call(&self, call: &MethodCall) -> Result<MethodOutcome, MethodError> {
        let Target::Method(method) = &call.target else { return Err(MethodError::NotFound) };
        let Ok(_counted) = self.calls.try_acquire() else {
            return Err(MethodError::Busy("too many calls wait for the callback; the call was not made"));
        };
        let posted = Posted {
            object: call.object.as_str(),
            method,
            params: &call.params,
            state: &call.state,
            version: call.version,
        };
        let body = serde_json::to_vec(&posted).map_err(|error| MethodError::Failed(error.to_string()))?;
        let (status, answer) = self.post(body).await?;
        match status {
            200..=299 => outcome(&answer, &call.state),
            404 => Err(MethodError::NotFound),
            400 | 409 | 413 | 422 => Err(MethodError::Invalid(
                message(&answer).unwrap_or_else(|| "the callback does not take the parameters".to_owned()),
            )),
            500 => {
                Err(MethodError::Failed(message(&answer).unwrap_or_else(|| "the callback failed".to_owned())))
            }
            _ => unavailable(&format!("the callback answered {status}")),
        }
    }

    /// Posts a call and reads its answer.
    async fn post(&self, body: Vec<u8>) -> Result<(u16, Vec<u8>), MethodError> {
        let id = format!("msg_{}", Uuid::new_v4().simple());
        let timestamp = wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let signature = self.key.sign(&id, timestamp, &body);
        let request = self.client.post(self.url.as_str()).header(CONTENT_TYPE, "application/json");
        let request = request.header(ID, id).header(TIMESTAMP, timestamp).header(SIGNATURE, signature);
        let mut answer = request.body(body).send().await.map_err(|error| failure(&error))?;
        let (status, mut read) = (answer.status().as_u16(), Vec::new());
        if status == StatusCode::NO_CONTENT {
            return Ok((200, b"{}".to_vec()));
        }
        while let Some(chunk) = answer.chunk().await.map_err(|error| failure(&error))? {
            if read.len() + chunk.len() > self.max_answer_bytes {
                return unavailable("the callback's answer is too large");
            }
            read.extend_from_slice(&chunk);
        }
        Ok((status, read))
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback(..)")
    }
}

fn unavailable<T>(problem: &str) -> Result<T, MethodError> {
    Err(MethodError::Unavailable(problem.to_owned()))
}

fn failure(error: &reqwest::Error) -> MethodError {
    if error.is_timeout() {
        MethodError::TimedOut
    } else {
        MethodError::Unavailable("the callback cannot be reached".to_owned())
    }
}

/// The message of an answer with an error; none if it has no such text.
fn message(answer: &[u8]) -> Option<String> {
    let Refusal { mut error } = serde_json::from_slice(answer).ok()?;
    error.truncate(error.floor_char_boundary(MAX_MESSAGE_BYTES));
    Some(error)
}

/// Reads an answer.
///
/// # Errors
/// [`MethodError::Unavailable`] if it is not of the right form.
fn outcome(answer: &[u8], state: &ObjectState) -> Result<MethodOutcome, MethodError> {
    let wrong =
        |problem: &str| MethodError::Unavailable(format!("invalid answer from the callback: {problem}"));
    // A list would be taken for the members in their order.
    let answer = if answer.trim_ascii_start().starts_with(b"{") { answer } else { b"" };
    let read: Answer = serde_json::from_slice(answer)
        .map_err(|_| wrong("it is not a JSON object with result, set, delete and broadcast"))?;
    let Answer { result, set, delete, broadcast } = read;
    if set.len() + delete.len() + broadcast.len() > MAX_STEPS {
        return Err(wrong(&format!("it has more than {MAX_STEPS} changes and messages")));
    }
    let is_key = |key: &str| (1..=MAX_KEY_BYTES).contains(&key.len());
    let is_flat = |value: &RawValue| depth(value.get()) <= MAX_DEPTH;
    let broadcast: Vec<_> = broadcast.iter().map(|message| read_message(message)).collect();
    let messages = broadcast.iter().flatten();
    if broadcast.iter().any(Option::is_none) {
        return Err(wrong("a broadcast is a key, or an object with key and value"));
    }
    let mut keys = set.keys().chain(&delete).chain(messages.clone().map(|(key, _)| key));
    if !keys.all(|key| is_key(key)) {
        return Err(wrong(&format!("a key has 1 to {MAX_KEY_BYTES} bytes")));
    }
    let values = set.values().chain(messages.filter_map(|(_, value)| value.as_ref())).chain(&result);
    if !values.map(|value| &**value).all(is_flat) {
        return Err(wrong(&format!("a value is nested more than {MAX_DEPTH} deep")));
    }
    let set: BTreeMap<Arc<str>, Arc<RawValue>> =
        set.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    let after = |key: &str| {
        let kept = || state.get(key).filter(|_| !delete.iter().any(|deleted| deleted == key));
        set.get(key).or_else(kept).cloned().unwrap_or_else(|| RawValue::NULL.to_owned().into())
    };
    let updates = broadcast
        .into_iter()
        .flatten()
        .map(|(key, value)| Update { value: value.map_or_else(|| after(&key), Arc::from), key: key.into() });
    let updates = updates.collect();
    let deleted = delete.iter().filter(|key| !set.contains_key(key.as_str()));
    let deleted = deleted.map(|key| Change::Delete { key: key.as_str().into() });
    let changes = deleted.collect::<Vec<_>>().into_iter();
    let changes = changes.chain(set.into_iter().map(|(key, value)| Change::Put { key, value })).collect();
    let result = result.unwrap_or_else(|| RawValue::NULL.to_owned());
    Ok(MethodOutcome { result, changes, updates, alarm: None })
}

/// Reads a message: a key alone stands for the value that it has after the call.
fn read_message(message: &RawValue) -> Option<(String, Option<Box<RawValue>>)> {
    if let Ok(key) = serde_json::from_str(message.get()) {
        return Some((key, None));
    }
    let message = Some(message.get()).filter(|message| message.starts_with('{'))?;
    let Broadcast { key, value } = serde_json::from_str(message).ok()?;
    Some((key, Some(value)))
}
