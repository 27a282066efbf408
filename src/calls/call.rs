//! A call of the media API and its answer, whoever serves it.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::api::{CallTarget, Caller};
use crate::network::ClientNetwork;

/// A call of the media API.
#[derive(Debug)]
pub struct Call {
    /// What is called.
    pub target: CallTarget,
    /// Who calls.
    pub caller: Caller,
    /// The network from which a person calls, where it is known.
    pub network: Option<ClientNetwork>,
    /// The query, without its `?`, as it is passed on.
    pub query: Option<String>,
    /// The body.
    pub body: CallBody,
    /// When the caller gives up, if that is before the configured time is over.
    pub deadline: Option<Instant>,
}

/// The body of a call.
#[derive(Debug)]
pub enum CallBody {
    /// There is none.
    Empty,
    /// It is here.
    Whole(Bytes),
    /// It is still coming, and is passed on as it comes.
    Stream(Body),
}

/// What the media API answered.
#[derive(Debug)]
pub struct Answer {
    /// The status, never a redirect.
    pub status: StatusCode,
    /// The headers that concern a client: the content's type, and when to come back.
    pub headers: HeaderMap,
    /// The body, as it comes; it ends in an error where it is longer than the limit.
    pub body: Body,
}

/// Why there is no answer. The sentence may be shown to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// The settings that name the application are missing.
    #[error("this server has no media API: {0}")]
    NotConfigured(&'static str),
    /// The media API cannot be reached, or broke the connection off.
    #[error("the media API cannot be reached")]
    Unreachable,
    /// It could not be reached a moment ago, and was not tried.
    #[error("the media API cannot be reached at this time")]
    CircuitOpen,
    /// The media API did not answer in time.
    #[error("the media API did not answer in time")]
    TimedOut,
    /// The media API answered with a redirect, or with more than the limit.
    #[error("invalid response from the media API")]
    BadAnswer,
    /// The request's body is longer than the limit.
    #[error("the body is too long")]
    RequestTooLong,
    /// The request's body did not arrive in time.
    #[error("the body did not arrive in time")]
    RequestTooSlow,
    /// Too many large bodies are under way.
    #[error("too many large bodies are under way; try again in a moment")]
    RequestsBusy,
    /// The request's body broke off.
    #[error("the body is incomplete")]
    RequestBroken,
}

impl UpstreamError {
    /// The word for it in metrics.
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
