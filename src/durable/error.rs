//! Failures of requests for objects, and the one table from failure to status.

use axum::http::StatusCode;

use super::method::MethodError;
use super::object::LimitBroken;
use crate::id::InvalidObjectId;

/// A failed request; nothing of it is applied, unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// An id, key or name in the address is invalid.
    #[error("{0}")]
    InvalidName(&'static str),
    /// The body is not what the request takes.
    #[error("{0}")]
    InvalidBody(String),
    /// The handshake of a socket is invalid.
    #[error("not a WebSocket handshake of version 13 over HTTP/1.1")]
    InvalidHandshake,
    /// The key of access is missing or wrong.
    #[error("this needs a key: Authorization: Bearer ..., or the first part of the path")]
    Unauthorized,
    /// A topic of Phoenix Channels is joined without a token of its object.
    #[error("this needs a token of the object, as the parameter \"token\"")]
    TokenNeeded,
    /// There is nothing at the address.
    #[error("Not found")]
    NotFound,
    /// The object has no value of that key.
    #[error("Key not found")]
    KeyNotFound,
    /// Nothing has the method.
    #[error("Method not found: {0}")]
    MethodNotFound(String),
    /// The address has other HTTP methods.
    #[error("Method not allowed")]
    MethodNotAllowed(&'static str),
    /// The body did not arrive in time.
    #[error("the body did not arrive in time")]
    BodyTooSlow,
    /// The body, a value or the object is too large.
    #[error("{0}")]
    TooLarge(&'static str),
    /// The rate of calls is exceeded.
    #[error("{0}")]
    TooFast(&'static str),
    /// The method failed, with its own message.
    #[error("{0}")]
    Failed(String),
    /// The server has no space for more.
    #[error("{0}")]
    Full(&'static str),
    /// The server shuts down.
    #[error("the server is restarting")]
    Stopping,
    /// The database cannot be read or written.
    #[error("the database cannot be written at the moment; try again later")]
    StoreFailing,
    /// Code outside of this server cannot be reached.
    #[error("{0}")]
    Unavailable(String),
    /// Code outside of this server did not answer in time.
    #[error("the method did not answer in time")]
    MethodTimedOut,
    /// The object did not get to the call in time.
    #[error("the object is busy; the call was not made")]
    Busy,
    /// The disk does not answer.
    #[error("the database does not answer; the call may have been made")]
    Hanging,
    /// Another node of the cluster owns the object.
    #[error("another node has the object; the call was not made")]
    Elsewhere,
    /// Another node of the cluster took the object over.
    #[error("another node has taken the object over; nothing of the call is stored")]
    Moved,
    /// The node of the cluster that is to own the object cannot be reached.
    #[error("the object's node cannot be reached; the call was not made")]
    Unreachable,
    /// The cluster's engine does not answer.
    #[error("the cluster's engine does not answer; nothing of the call is stored")]
    EngineAway,
    /// The cluster's engine, or the object's node, stopped answering in the middle of the call.
    #[error("the cluster does not answer; the call may have been made")]
    EngineSilent,
    /// The object's journal is that of another release.
    #[error("the object cannot be read")]
    Unreadable,
    /// A failure that another node told.
    #[error("{sentence}")]
    Remote {
        /// The status of the answer.
        status: StatusCode,
        /// The sentence for the client.
        sentence: String,
    },
    /// A defect of the server.
    #[error("internal error")]
    Internal,
}

impl ObjectError {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::InvalidName(_) | Self::InvalidBody(_) | Self::InvalidHandshake => StatusCode::BAD_REQUEST,
            Self::Unauthorized | Self::TokenNeeded => StatusCode::UNAUTHORIZED,
            Self::NotFound | Self::KeyNotFound | Self::MethodNotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooFast(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Failed(_) | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable(_) => StatusCode::BAD_GATEWAY,
            Self::Full(_)
            | Self::Stopping
            | Self::StoreFailing
            | Self::Busy
            | Self::Elsewhere
            | Self::Moved
            | Self::Unreachable
            | Self::EngineAway
            | Self::Unreadable => StatusCode::SERVICE_UNAVAILABLE,
            Self::MethodTimedOut | Self::Hanging | Self::EngineSilent => StatusCode::GATEWAY_TIMEOUT,
            Self::Remote { status, .. } => *status,
        }
    }

    /// A failure that another node told.
    pub fn remote(status: u16, sentence: String) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::Remote { status, sentence }
    }

    /// True if the object could not be stored or read, which is no matter of the call.
    pub fn is_of_store(&self) -> bool {
        matches!(
            self,
            Self::StoreFailing
                | Self::Elsewhere
                | Self::Moved
                | Self::EngineAway
                | Self::EngineSilent
                | Self::Unreadable
        )
    }

    /// The label of the metric: the reason that the library `cloudflare_durable` reports.
    pub fn reason(&self) -> &'static str {
        match self.status().as_u16() {
            400 => "invalid_request",
            401 => "unauthorized",
            404 => "not_found",
            429 => "rate_limited",
            500 => "server_error",
            _ => "http_error",
        }
    }
}

impl From<InvalidObjectId> for ObjectError {
    fn from(_: InvalidObjectId) -> Self {
        Self::InvalidName("an object's id has 1 to 128 characters and no slash or control characters")
    }
}

impl From<LimitBroken> for ObjectError {
    fn from(broken: LimitBroken) -> Self {
        match broken {
            LimitBroken::Key => Self::InvalidName("a key has 1 to 2048 bytes"),
            LimitBroken::Depth => Self::InvalidBody(broken.to_string()),
            LimitBroken::Value => Self::TooLarge("the value is too long"),
            LimitBroken::Keys => Self::TooLarge("the object has too many keys"),
            LimitBroken::Object => Self::TooLarge("the object is too large"),
        }
    }
}

impl ObjectError {
    /// The failure of a method that the caller named.
    pub fn of_method(error: MethodError, name: &str) -> Self {
        match error {
            MethodError::NotFound => Self::MethodNotFound(name.to_owned()),
            MethodError::Invalid(sentence) => Self::InvalidBody(sentence),
            MethodError::Failed(sentence) | MethodError::Limit(sentence) => Self::Failed(sentence),
            MethodError::TimedOut => Self::MethodTimedOut,
            MethodError::Unavailable(sentence) => Self::Unavailable(sentence),
            MethodError::Busy(sentence) => Self::Full(sentence),
        }
    }
}
