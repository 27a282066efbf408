//! Calls on objects from the node that is asked to the owner, and their answers, as bytes.
//!
//! Whoever asks was checked by the node that it asked, which also counts its calls. The owner believes that because the
//! message came through the engine. They are JSON, of which a reader ignores fields that it does not know.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::ObjectCluster;
use super::sessions::{self, Item, Said};
use crate::clock::now;
use crate::durable::command::{Answer, Request};
use crate::durable::error::ObjectError;
use crate::durable::registry::{ObjectRegistry, WeakRegistry};
use crate::id::{ConnectionId, NodeId, ObjectId};
use crate::metrics::Metrics;
use crate::nodes::objects::{CallFailure, OwnObjects};
use crate::protocol::server::MessageKind;
use crate::room::message::SharedMessage;

/// Time for the answer beyond the time for its turn: a method may run for a minute.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(70);

/// A call on an object.
#[derive(Debug, Serialize, Deserialize)]
struct ObjectCall {
    object: String,
    /// Milliseconds for which it may wait for its turn.
    patience: u64,
    call: Call,
}

/// The call itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Call {
    /// A request.
    Request(Request),
    /// The object's alarm is due, which was set to this time.
    Ring(u64),
    /// A socket wants to hear of all changes.
    Open {
        /// The number of its session on its node.
        session: u64,
        /// The socket.
        socket: ConnectionId,
    },
    /// A message of a socket.
    Say {
        /// The session.
        session: u64,
        /// The message.
        said: Said,
    },
    /// A socket is gone.
    Leave {
        /// The session.
        session: u64,
    },
    /// The question if a socket is served.
    Still {
        /// The session.
        session: u64,
    },
    /// Messages to a socket, from the owner.
    Push {
        /// The session.
        session: u64,
        /// The messages.
        items: Vec<Item>,
    },
}

/// The owner's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Called {
    /// Another node owns the object, or this one stops: nothing was done.
    NotHere,
    /// The handler was called, or the alarm is not due any more.
    Rung,
    /// It is done; false if there was nothing to do.
    Done(bool),
    /// The result of a method, all values with their envelope, or one value.
    Value(Box<RawValue>),
    /// It failed.
    Failed {
        /// The status.
        status: u16,
        /// The sentence for the client.
        sentence: String,
    },
}

/// The end of a call on another node.
#[derive(Debug)]
pub enum Forwarded {
    /// It was answered.
    Answered(Result<Answer, ObjectError>),
    /// Nothing was done.
    NotDone,
    /// Nobody knows if something was done.
    Unknown,
}

/// The result of a request, as its answer has to be read.
#[derive(Clone, Copy, Debug)]
enum Expected {
    Result,
    State,
    Value,
    Done,
}

impl Expected {
    fn of(request: &Request) -> Self {
        match request {
            Request::Method { .. } => Self::Result,
            Request::State => Self::State,
            Request::Value(_) => Self::Value,
            Request::Initialize(_) | Request::Put { .. } | Request::Delete(_) | Request::Remove => Self::Done,
        }
    }
}

impl ObjectCluster {
    /// Has another node carry out a request.
    pub async fn forward(
        &self,
        to: NodeId,
        id: &ObjectId,
        request: Request,
        turn_by: Instant,
        metrics: &Metrics,
    ) -> Forwarded {
        let expected = Expected::of(&request);
        let called = match self
            .call(to, id, Call::Request(request), patience(turn_by), turn_by + ANSWER_TIMEOUT)
            .await
        {
            Ok(called) => called,
            Err(CallFailure::NotMade) => return Forwarded::NotDone,
            Err(CallFailure::Unknown) => return Forwarded::Unknown,
        };
        let answer = match (called, expected) {
            (Called::NotHere, _) => return Forwarded::NotDone,
            (Called::Failed { status, sentence }, _) => Err(ObjectError::remote(status, sentence)),
            (Called::Done(is_changed), Expected::Done) => Ok(Answer::Done(is_changed)),
            (Called::Value(value), Expected::Result) => Ok(Answer::Result(value)),
            (Called::Value(value), Expected::Value) => Ok(Answer::Value(Arc::from(value))),
            (Called::Value(value), Expected::State) => {
                let json = Box::<str>::from(value).into_string();
                Ok(Answer::State(SharedMessage::new(MessageKind::Object, json, metrics)))
            }
            _ => Err(ObjectError::Internal),
        };
        Forwarded::Answered(answer)
    }

    /// Has another node call the handler of an alarm; false if that is not known to be done.
    pub async fn forward_alarm(&self, to: NodeId, id: &ObjectId, due: u64) -> bool {
        let until = now() + ANSWER_TIMEOUT;
        matches!(self.call(to, id, Call::Ring(due), ANSWER_TIMEOUT, until).await, Ok(Called::Rung))
    }

    /// Makes a call on another node, which may wait there for its turn.
    pub(super) async fn call(
        &self,
        to: NodeId,
        id: &ObjectId,
        call: Call,
        patience: Duration,
        until: Instant,
    ) -> Result<Called, CallFailure> {
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let call = ObjectCall { object: id.as_str().to_owned(), patience, call };
        let bytes = serde_json::to_vec(&call).map_err(|_| CallFailure::NotMade)?;
        let answer = self.nodes.call(to, bytes, until).await?;
        serde_json::from_slice(&answer).map_err(|_| CallFailure::Unknown)
    }
}

fn patience(turn_by: Instant) -> Duration {
    turn_by.saturating_duration_since(now())
}

/// The objects of this node, for calls of others.
pub struct Served(WeakRegistry);

impl Served {
    /// The objects of a registry.
    pub fn new(registry: &ObjectRegistry) -> Arc<Self> {
        Arc::new(Self(registry.downgrade()))
    }
}

impl OwnObjects for Served {
    fn answer(&self, from: NodeId, call: Vec<u8>) -> BoxFuture<'static, Vec<u8>> {
        let registry = self.0.upgrade();
        async move {
            let called = match registry {
                Some(registry) => carry_out(&registry, from, &call).await,
                None => Called::NotHere,
            };
            drop(call);
            // Without bytes whoever asks knows that there is no answer.
            serde_json::to_vec(&called).unwrap_or_default()
        }
        .boxed()
    }
}

async fn carry_out(registry: &ObjectRegistry, from: NodeId, call: &[u8]) -> Called {
    let failed =
        |error: &ObjectError| Called::Failed { status: error.status().as_u16(), sentence: error.to_string() };
    let Ok(ObjectCall { object, patience, call }) = serde_json::from_slice(call) else {
        return failed(&ObjectError::InvalidBody("the object's node runs another release".to_owned()));
    };
    let id = match ObjectId::parse(&object) {
        Ok(id) => id,
        Err(error) => return failed(&ObjectError::from(error)),
    };
    let Some(cluster) = &registry.deps().cluster else { return Called::NotHere };
    let _waiting = match &call {
        // They wait for a socket, or for nothing.
        Call::Push { .. } | Call::Leave { .. } | Call::Still { .. } => None,
        Call::Request(_) | Call::Ring(_) | Call::Open { .. } | Call::Say { .. } => match cluster.enter(&id) {
            Ok(waiting) => Some(waiting),
            Err(error) => return failed(&error),
        },
    };
    let request = match call {
        Call::Ring(due) => {
            return if registry.ring_here(&id, due).await { Called::Rung } else { Called::NotHere };
        }
        Call::Request(request) => request,
        call => return carry_out_of_session(registry, from, id, call).await,
    };
    match registry.request_here(&id, request, Duration::from_millis(patience)).await {
        Ok(Answer::Done(is_changed)) => Called::Done(is_changed),
        Ok(Answer::Result(result)) => Called::Value(result),
        Ok(Answer::Value(value)) => Called::Value((*value).to_owned()),
        Ok(Answer::State(state)) => {
            let json = String::from_utf8(state.json().to_vec()).ok();
            match json.and_then(|json| RawValue::from_string(json).ok()) {
                Some(json) => Called::Value(json),
                None => failed(&ObjectError::Internal),
            }
        }
        Err(ObjectError::Elsewhere | ObjectError::Stopping) => Called::NotHere,
        Err(error) => failed(&error),
    }
}

/// Carries out what concerns a socket: of another node here, or of this one there.
async fn carry_out_of_session(registry: &ObjectRegistry, from: NodeId, id: ObjectId, call: Call) -> Called {
    let Some(cluster) = &registry.deps().cluster else { return Called::NotHere };
    let is_done = match call {
        Call::Open { session, socket } => {
            match sessions::serve(registry, cluster, id, from, (session, socket)).await {
                Ok(()) => true,
                Err(ObjectError::Elsewhere | ObjectError::Stopping) => false,
                Err(error) => {
                    return Called::Failed { status: error.status().as_u16(), sentence: error.to_string() };
                }
            }
        }
        Call::Say { session, said } => cluster.sessions.hear(from, session, said).await,
        Call::Leave { session } => {
            cluster.sessions.leave(from, session).await;
            true
        }
        Call::Still { session } => cluster.sessions.serves(from, session),
        Call::Push { session, items } => cluster.sessions.take(session, items, &registry.deps().metrics),
        Call::Request(_) | Call::Ring(_) => false,
    };
    if is_done { Called::Done(true) } else { Called::NotHere }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Nodes of the next release have to read it.
    #[test]
    fn recorded_calls_are_read_and_written() {
        let of = |call| json!({"object": "o", "patience": 7, "call": call}).to_string();
        for recorded in [
            of(json!({"request": "State"})),
            of(json!({"request": {"Put": {"key": "k", "value": 1}}})),
            of(json!({"request": {"Method": {"name": "m", "params": {}, "key": 0}}})),
            of(json!({"request": {"Initialize": [["a", null]]}})),
            of(json!({"ring": 9})),
        ] {
            let call: ObjectCall = serde_json::from_str(&recorded).unwrap();
            let written: serde_json::Value =
                serde_json::from_str(&serde_json::to_string(&call).unwrap()).unwrap();
            assert_eq!(written, serde_json::from_str::<serde_json::Value>(&recorded).unwrap());
        }
        for recorded in [
            r#""notHere""#,
            r#"{"done":true}"#,
            r#"{"value":{"a":1.0}}"#,
            r#"{"failed":{"status":404,"sentence":"Key not found"}}"#,
        ] {
            let called: Called = serde_json::from_str(recorded).unwrap();
            assert_eq!(serde_json::to_string(&called).unwrap(), recorded);
        }
    }
}
