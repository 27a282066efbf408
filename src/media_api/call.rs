//! A call of the media API and its answer, independent of the backend.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode};

use super::api::{CallTarget, Caller};
use crate::id::PublishGrants;
use crate::network::ClientNetwork;

/// A call of the media API.
#[derive(Debug)]
pub struct Call {
    /// The operation.
    pub target: CallTarget,
    /// The caller.
    pub caller: Caller,
    /// The network of a user's client, if known.
    pub network: Option<ClientNetwork>,
    /// The query without its `?`, forwarded unchanged.
    pub query: Option<String>,
    /// The body; empty if there is none. It is a session description or less, so it is never streamed, and a call
    /// that was not sent can be retried.
    pub body: Bytes,
}

/// The rights of a person who makes a call. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallerRights {
    /// The kinds of media that it may publish.
    pub publish: PublishGrants,
    /// True if it may receive the media of others.
    pub subscribe: bool,
}

/// The media API's answer.
#[derive(Debug)]
pub struct Answer {
    /// The status, never a redirect.
    pub status: StatusCode,
    /// The headers that are forwarded to a client: `Content-Type` and `Retry-After`.
    pub headers: HeaderMap,
    /// The body, streamed; it ends in an error if it exceeds the limit.
    pub body: Body,
}

/// A call without an answer. The message may be shown to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// The application's settings are missing.
    #[error("this server has no media API: {0}")]
    NotConfigured(&'static str),
    /// The media API cannot be reached, or closed the connection.
    #[error("the media API cannot be reached")]
    Unreachable,
    /// The circuit breaker is open after recent failures, so the call was not tried.
    #[error("the media API cannot be reached at this time")]
    CircuitOpen,
    /// The media API did not answer in time.
    #[error("the media API did not answer in time")]
    TimedOut,
    /// The media API answered with a redirect, or exceeded the size limit.
    #[error("invalid response from the media API")]
    BadAnswer,
    /// The request's body exceeds the limit.
    #[error("the body is too long")]
    RequestTooLong,
    /// The request's body did not arrive in time.
    #[error("the body did not arrive in time")]
    RequestTooSlow,
    /// Too many large bodies are in transit.
    #[error("too many large bodies are under way; try again in a moment")]
    RequestsBusy,
    /// The request's body is incomplete.
    #[error("the body is incomplete")]
    RequestBroken,
}

impl UpstreamError {
    /// Label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotConfigured(_) => "not_configured",
            Self::Unreachable => "unreachable",
            Self::CircuitOpen => "circuit_open",
            Self::TimedOut => "timed_out",
            Self::BadAnswer => "bad_answer",
            Self::RequestTooLong => "request_too_long",
            Self::RequestTooSlow => "request_too_slow",
            Self::RequestsBusy => "requests_busy",
            Self::RequestBroken => "request_broken",
        }
    }
}
