//! The commands that an object's task takes, and their answers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::error::ObjectError;
use super::feed::FeedReader;
use super::keys::KeyNumber;
use super::method::ObjectState;
use crate::id::ConnectionId;
use crate::protocol::deflate::Encoding;
use crate::room::message::SharedMessage;

/// Keys with their values, in the order in which they came.
pub type Entries = Vec<(Arc<str>, Arc<RawValue>)>;

/// A request for an object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Sets several keys; the others stay.
    Initialize(Entries),
    /// Calls a method.
    Method {
        /// Its name, with or without the prefix.
        name: String,
        /// Its parameters.
        params: Box<RawValue>,
        /// The key that pays for its time.
        key: KeyNumber,
    },
    /// Reads all values.
    State,
    /// Reads one value.
    Value(Arc<str>),
    /// Sets one value.
    Put {
        /// The key.
        key: Arc<str>,
        /// The value.
        value: Arc<RawValue>,
    },
    /// Removes a key, which may be missing.
    Delete(Arc<str>),
    /// Removes all values and the alarm, for operators.
    Remove,
}

impl Request {
    /// True for one that changes nothing, so that it may be made again.
    pub fn is_query(&self) -> bool {
        matches!(self, Self::State | Self::Value(_))
    }
}

/// The answer to a [`Request`].
#[derive(Clone, Debug)]
pub enum Answer {
    /// It is done; false if there was nothing to do.
    Done(bool),
    /// The result of a method.
    Result(Box<RawValue>),
    /// All values, as the JSON `{"data":{…}}`.
    State(SharedMessage),
    /// One value.
    Value(Arc<RawValue>),
}

/// The end of a request in an object's task.
#[derive(Debug)]
pub enum Reply {
    /// It was answered.
    Answered(Result<Answer, ObjectError>),
    /// It was not looked at, since the object left the memory; it is to be sent again.
    Again(Request),
    /// It was not looked at, since another node owns the object.
    Elsewhere(Request),
}

/// A command to an object's task.
#[derive(Debug)]
pub enum Command {
    /// A request.
    Request(Work),
    /// A message of a socket.
    Message(SocketMessage),
    /// A socket that wants to hear of all changes.
    Subscribe {
        /// The socket.
        socket: ConnectionId,
        /// The encoding that it accepts.
        encoding: Encoding,
        /// The answer; none from an object that left the memory, so that it is to be asked again.
        answer: oneshot::Sender<Option<Result<FeedReader, ObjectError>>>,
    },
    /// A socket is gone.
    Gone(ConnectionId),
    /// The object's alarm is due.
    Alarm {
        /// The time for which it was set, in milliseconds since 1970.
        due: u64,
        /// Told once the handler was called, or the alarm is found to be not due; dropped if it stays due.
        done: oneshot::Sender<()>,
    },
    /// Panics, for tests of a panic's consequences.
    #[cfg(test)]
    Panic,
}

/// A request, and the one that waits for its answer.
#[derive(Debug)]
pub struct Work {
    /// The request.
    pub request: Request,
    /// Time until which it may wait for its turn.
    pub turn_by: Instant,
    /// The answer. A request whose caller is gone before its turn is not looked at.
    pub answer: oneshot::Sender<Reply>,
    /// The body's share of the memory for waiting bodies.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// A message of a socket.
#[derive(Debug)]
pub struct SocketMessage {
    /// The socket.
    pub socket: ConnectionId,
    /// The key that pays for its time.
    pub key: KeyNumber,
    /// The client's id of the message, which the answer repeats.
    pub id: Option<Box<RawValue>>,
    /// The message.
    pub ask: Ask,
    /// The reason for which it is refused, if it is.
    pub refusal: Option<ObjectError>,
    /// The message's share of the memory for waiting messages.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// The content of a socket's message.
#[derive(Clone, Debug)]
pub enum Ask {
    /// `method`: calls a method.
    Method {
        /// Its name, with or without the prefix.
        name: String,
        /// Its parameters.
        params: Box<RawValue>,
    },
    /// `echo`: wants its data back.
    Echo(Option<Box<RawValue>>),
    /// `get`: reads a value.
    Get(Arc<str>),
    /// `set`: sets a value, and wants to be told.
    Set(Arc<str>, Arc<RawValue>),
    /// `update`: sets a value.
    Update(Arc<str>, Arc<RawValue>),
    /// Reads all values. Asked by channels of Phoenix only.
    State,
    /// Anything else; the sentence for the client.
    Invalid(&'static str),
}

/// A message to a socket.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToSocket<'a> {
    /// The whole state.
    Init {
        /// All values.
        state: &'a ObjectState,
    },
    /// A change of one value.
    Update {
        /// The key.
        key: &'a str,
        /// Its new value; null once it was removed.
        value: &'a RawValue,
        /// The time of the change.
        timestamp: String,
    },
    /// The end of a method.
    Response {
        /// The id of the client's message.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
        /// True if it did not fail.
        success: bool,
        /// Its result.
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<&'a RawValue>,
        /// Its failure.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
    },
    /// The data of an `echo`.
    EchoResponse {
        /// The id of the client's message.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
        /// The data.
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a RawValue>,
        /// The time of the answer.
        timestamp: String,
    },
    /// The value for a `get`.
    GetResponse {
        /// The id of the client's message.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
        /// The key.
        key: &'a str,
        /// The value; null if there is none.
        value: Option<&'a RawValue>,
        /// The time of the answer.
        timestamp: String,
    },
    /// The end of a `set`.
    SetResponse {
        /// The id of the client's message.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
        /// The key.
        key: &'a str,
        /// The value.
        value: &'a RawValue,
        /// Always `success`.
        status: &'static str,
        /// The time of the answer.
        timestamp: String,
    },
    /// A message that was not understood, or failed.
    Error {
        /// The id of the client's message.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
        /// The sentence for the client.
        error: &'a str,
    },
}

impl ToSocket<'_> {
    /// The message as JSON.
    pub fn to_json(&self) -> String {
        #[expect(clippy::expect_used, reason = "texts, booleans and valid JSON are JSON")]
        serde_json::to_string(self).expect("a message is JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_worker_writes_them() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let (id, value, time) = (raw("1"), raw("{\"a\":1.0}"), "2026-11-25T22:58:39.836Z".to_owned());
        let state = ObjectState::from([
            ("b".into(), Arc::from(value.clone())),
            ("__proto__".into(), Arc::from(raw("null"))),
        ]);
        let (id, value, timestamp) = (Some(&*id), &*value, || time.clone());
        for (message, json) in [
            (ToSocket::Init { state: &state }, r#"{"type":"init","state":{"__proto__":null,"b":{"a":1.0}}}"#),
            (
                ToSocket::Update { key: "counter", value, timestamp: timestamp() },
                r#"{"type":"update","key":"counter","value":{"a":1.0},"timestamp":"2026-11-25T22:58:39.836Z"}"#,
            ),
            (
                ToSocket::Response { id, success: true, result: Some(value), error: None },
                r#"{"type":"response","id":1,"success":true,"result":{"a":1.0}}"#,
            ),
            (
                ToSocket::Response { id, success: false, result: None, error: Some("Method not found") },
                r#"{"type":"response","id":1,"success":false,"error":"Method not found"}"#,
            ),
            (
                ToSocket::EchoResponse { id, data: Some(value), timestamp: timestamp() },
                r#"{"type":"echo_response","id":1,"data":{"a":1.0},"timestamp":"2026-11-25T22:58:39.836Z"}"#,
            ),
            (
                ToSocket::GetResponse { id, key: "k", value: None, timestamp: timestamp() },
                r#"{"type":"get_response","id":1,"key":"k","value":null,"timestamp":"2026-11-25T22:58:39.836Z"}"#,
            ),
            (
                ToSocket::SetResponse { id, key: "k", value, status: "success", timestamp: timestamp() },
                r#"{"type":"set_response","id":1,"key":"k","value":{"a":1.0},"status":"success","timestamp":"2026-11-25T22:58:39.836Z"}"#,
            ),
            (
                ToSocket::Error { id: None, error: "Failed to process message" },
                r#"{"type":"error","error":"Failed to process message"}"#,
            ),
        ] {
            assert_eq!(message.to_json(), json);
        }
    }
}
