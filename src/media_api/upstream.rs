//! The interface to the media API's backend, used by proxy, AI and TURN.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::timeout_at;

use super::api::CallTarget;
use super::call::{Answer, Call, CallerRights, UpstreamError};
use super::nodes::{MediaNodes, NodeState, NotPassedOn, node_of, room_of, room_parameter};
use super::passing::{PassedAnswer, PassedCall};
use super::remote::Remote;
use crate::clock::now;
use crate::config::{Calls, TurnConfig};
use crate::id::{NodeId, RoomName, SessionId};
use crate::metrics::{ByCall, Metrics};
use satsuma_sfu::api::ApiRequest;
use satsuma_sfu::{SfuError, SfuHandle};

/// The backend of the media API.
#[derive(Debug)]
pub struct Upstream {
    /// The remote API; also of the TURN service, which is used with either backend.
    remote: Remote,
    /// The embedded media server, if in use.
    embedded: Option<SfuHandle>,
    /// The other nodes, if this is one of several with embedded media servers.
    others: Option<Others>,
    body_bytes: usize,
    timeout: std::time::Duration,
    metrics: Arc<Metrics>,
}

/// The other nodes of a cluster.
#[derive(Debug)]
struct Others {
    nodes: Arc<dyn MediaNodes>,
    /// Maximum size in bytes of a message between nodes.
    message_bytes: usize,
}

/// The place of a call's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// This node, or the remote media API.
    Here,
    /// Another node.
    Node(NodeId),
    /// A node that is gone.
    Gone,
}

impl Upstream {
    /// Creates a client for bodies of at most `body_bytes`, without connecting.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub fn new(
        calls: &Calls,
        turn: &TurnConfig,
        body_bytes: usize,
        embedded: Option<SfuHandle>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, reqwest::Error> {
        let remote = Remote::new(calls, turn, body_bytes)?;
        Ok(Self { remote, embedded, others: None, body_bytes, timeout: calls.timeout, metrics })
    }

    /// Lets calls about sessions of other nodes go there, in messages of at most `message_bytes`. Without an embedded
    /// media server there are no such sessions.
    #[must_use]
    pub fn with_nodes(self, nodes: Arc<dyn MediaNodes>, message_bytes: usize) -> Self {
        let others = self.embedded.is_some().then_some(Others { nodes, message_bytes });
        Self { others, ..self }
    }

    /// Returns an error naming the missing settings, if calls cannot be made.
    pub fn missing(&self) -> Option<&'static str> {
        if self.embedded.is_some() { None } else { self.remote.missing() }
    }

    /// The embedded media server, if in use.
    pub fn embedded(&self) -> Option<&SfuHandle> {
        self.embedded.as_ref()
    }

    /// True if a TURN service is configured.
    pub fn has_turn(&self) -> bool {
        self.remote.has_turn()
    }

    /// True if there are other nodes.
    pub(super) fn has_nodes(&self) -> bool {
        self.others.is_some()
    }

    /// The parameter by which clients name the room for which they open a session; none if this makes no difference.
    pub fn room_parameter(&self, room: &RoomName) -> Option<String> {
        self.others.as_ref().map(|_| room_parameter(room))
    }

    /// The place of a call's session, or of the session that it opens.
    pub(super) async fn place(&self, call: &Call) -> Place {
        let Some(Others { nodes, .. }) = &self.others else { return Place::Here };
        let node = match &call.target {
            CallTarget::Session { session, .. } => node_of(session),
            CallTarget::NewSession => match call.query.as_deref().and_then(room_of) {
                Some(room) => Some(nodes.home(room).await),
                None => None,
            },
        };
        match node.filter(|node| *node != nodes.own()) {
            None => Place::Here,
            Some(node) if nodes.state(node) == NodeState::Gone => Place::Gone,
            Some(node) => Place::Node(node),
        }
    }

    /// True if a session is that of another node, which is alive.
    pub(super) fn is_of_other_node(&self, session: &SessionId) -> bool {
        self.others.as_ref().is_some_and(|others| {
            let other = node_of(session).filter(|node| *node != others.nodes.own());
            other.is_some_and(|node| others.nodes.state(node) == NodeState::Alive)
        })
    }

    /// Makes a call of a program, on the node of its session.
    ///
    /// # Errors
    /// [`UpstreamError`]; an answer of any status except a redirect is not an error.
    pub async fn call(&self, call: Call) -> Result<Answer, UpstreamError> {
        match self.place(&call).await {
            Place::Here => self.call_here(call).await,
            Place::Node(node) => {
                self.pass_on(node, PassedCall { call, rights: CallerRights::default() }).await
            }
            Place::Gone => Ok(gone(&call.target)),
        }
    }

    /// Passes a call on to another node.
    ///
    /// # Errors
    /// [`UpstreamError`]; an answer of any status is not an error.
    pub(super) async fn pass_on(&self, to: NodeId, passed: PassedCall) -> Result<Answer, UpstreamError> {
        let Some(Others { nodes, message_bytes }) = &self.others else {
            return Err(UpstreamError::Unreachable);
        };
        let bytes = passed.encode();
        let (outcome, answer) = if bytes.len() > *message_bytes {
            ("too_long", Err(UpstreamError::RequestTooLong))
        } else {
            match nodes.pass_on(to, bytes.into(), self.timeout).await {
                Ok(bytes) => match PassedAnswer::decode(&bytes, self.body_bytes) {
                    Ok(answer) => ("answered", Ok(answer.into())),
                    Err(_) => ("unreadable", Err(UpstreamError::BadAnswer)),
                },
                // The next attempt to open a session goes elsewhere.
                Err(NotPassedOn::Gone) if passed.call.target == CallTarget::NewSession => {
                    ("gone", Err(UpstreamError::Unreachable))
                }
                Err(NotPassedOn::Gone) => ("gone", Ok(gone(&passed.call.target))),
                Err(NotPassedOn::Unreachable) => ("unreachable", Err(UpstreamError::Unreachable)),
                Err(NotPassedOn::TimedOut) => ("timed_out", Err(UpstreamError::TimedOut)),
            }
        };
        Metrics::count(&self.metrics.media_calls_passed_on, outcome);
        answer
    }

    /// Makes a call on this node, and returns once the headers of its answer arrived.
    ///
    /// A call that was provably not sent is retried once; no other is.
    ///
    /// # Errors
    /// [`UpstreamError`]; an answer of any status except a redirect is not an error.
    pub(super) async fn call_here(&self, call: Call) -> Result<Answer, UpstreamError> {
        let operation = call.target.label();
        match &self.embedded {
            Some(sfu) => self.timed(operation, self.call_embedded(sfu, call)).await,
            None => self.timed(operation, self.remote.call(call)).await,
        }
    }

    /// Requests new TURN credentials; the service's answer is returned unparsed.
    ///
    /// # Errors
    /// As [`Self::call`]; [`UpstreamError::NotConfigured`] where [`Self::has_turn`] is false.
    pub async fn turn_credentials(&self) -> Result<Answer, UpstreamError> {
        self.timed("turn_credentials", self.remote.turn_credentials()).await
    }

    async fn call_embedded(&self, sfu: &SfuHandle, call: Call) -> Result<Answer, UpstreamError> {
        let Call { target, caller, network, query, body } = call;
        let deadline = now() + self.timeout;
        let asked = ApiRequest { target, query, body, caller, network };
        let (status, text) =
            timeout_at(deadline, sfu.serve(asked)).await.map_err(|_| UpstreamError::TimedOut)?;
        Ok(json(status, text))
    }

    async fn timed(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<Answer, UpstreamError>>,
    ) -> Result<Answer, UpstreamError> {
        let start = now();
        let result = call.await;
        let status = match &result {
            Ok(answer) => answer.status.as_str().to_owned(),
            Err(error) => error.label().to_owned(),
        };
        let labels = ByCall { operation, status };
        self.metrics.call_seconds.get_or_create(&labels).observe(start.elapsed().as_secs_f64());
        result
    }
}

/// The answer to a call about a session that ended with its node, from which clients recover by a new one.
pub(super) fn gone(target: &CallTarget) -> Answer {
    let (status, text) = satsuma_sfu::api::answer(target, Err(SfuError::NoSession));
    json(status, text)
}

fn json(status: StatusCode, body: impl Into<Body>) -> Answer {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    Answer { status, headers, body: body.into() }
}

impl From<PassedAnswer> for Answer {
    fn from(answer: PassedAnswer) -> Self {
        let mut told = json(answer.status, answer.body);
        if let Some(seconds) = answer.retry_after {
            told.headers.insert(RETRY_AFTER, seconds.into());
        }
        told
    }
}
