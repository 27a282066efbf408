//! Failures of calls, and their mapping to status and error code.

use axum::http::StatusCode;

use super::api::ApiFailure;
use super::call::UpstreamError;
use super::turn::NoCredentials;

/// A call that the media API did not answer. The message is sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// Unknown path or method.
    #[error("no such path and method in the media API")]
    NotFound,
    /// The client is anonymous.
    #[error("log in first: POST a username to /set-username, or come through the configured proxy")]
    NoIdentity,
    /// The client is anonymous, and only a login in front of this server can identify it.
    #[error(
        "this server learns who you are from the login in front of it, and this request came without one"
    )]
    LoginRequired,
    /// Another server sent no valid application secret.
    #[error("missing or wrong application secret: Authorization: Bearer …")]
    NoSecret,
    /// The session belongs to another identity, or its cookie is missing.
    #[error("this session was not opened by you, or its cookie is missing")]
    NotYourSession,
    /// The body is not JSON, or nested too deep.
    #[error("the body is not JSON that this server can read: an object, nested at most 128 levels deep")]
    Malformed,
    /// A field of the body is repeated, of another type, or named like a known one in other letters.
    #[error(
        "a field of the body is repeated, of another type, or misspelt: names are as the API writes them"
    )]
    Ambiguous,
    /// The identity may not send media of this kind.
    #[error("you may not publish media of this kind")]
    MayNotPublish,
    /// The tracks or data channels belong to no member of the caller's rooms.
    #[error("no such track")]
    NoSuchTrack,
    /// Too many calls on one session.
    #[error("too many calls on this session")]
    TooManyCalls,
    /// Too many concurrent calls of one identity.
    #[error("too many of your calls are under way")]
    TooManyAtOnce,
    /// Too many new sessions of one identity.
    #[error("too many new sessions; try again in a minute")]
    TooManySessions,
    /// Too many new sessions of one network.
    #[error("too many new sessions from this network; try again in a minute")]
    TooManySessionsOfNetwork,
    /// The call failed before an answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The media API refused; only its status is forwarded.
    #[error("the media API answered {0}")]
    Refused(StatusCode),
}

impl CallFailure {
    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NotFound | Self::NoSuchTrack => StatusCode::NOT_FOUND,
            Self::Malformed | Self::Ambiguous => StatusCode::BAD_REQUEST,
            Self::MayNotPublish => StatusCode::FORBIDDEN,
            Self::NoIdentity | Self::LoginRequired | Self::NoSecret | Self::NotYourSession => {
                StatusCode::UNAUTHORIZED
            }
            Self::TooManyCalls
            | Self::TooManyAtOnce
            | Self::TooManySessions
            | Self::TooManySessionsOfNetwork => StatusCode::TOO_MANY_REQUESTS,
            Self::Refused(status) => status,
            Self::Upstream(error) => match error {
                UpstreamError::NotConfigured(_) | UpstreamError::RequestsBusy => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
                UpstreamError::Unreachable | UpstreamError::CircuitOpen | UpstreamError::BadAnswer => {
                    StatusCode::BAD_GATEWAY
                }
                UpstreamError::TimedOut => StatusCode::GATEWAY_TIMEOUT,
                UpstreamError::RequestTooLong => StatusCode::PAYLOAD_TOO_LARGE,
                UpstreamError::RequestTooSlow => StatusCode::REQUEST_TIMEOUT,
                UpstreamError::RequestBroken => StatusCode::BAD_REQUEST,
            },
        }
    }

    /// Label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotFound => "call_not_found",
            Self::NoIdentity => "call_no_identity",
            Self::LoginRequired => "call_login_required",
            Self::NoSecret => "call_no_secret",
            Self::NotYourSession => "call_not_your_session",
            Self::Malformed => "call_malformed",
            Self::Ambiguous => "call_ambiguous",
            Self::MayNotPublish => "call_may_not_publish",
            Self::NoSuchTrack => "call_no_such_track",
            Self::TooManyCalls => "call_too_many",
            Self::TooManyAtOnce => "call_too_many_at_once",
            Self::TooManySessions => "call_too_many_sessions",
            Self::TooManySessionsOfNetwork => "call_too_many_sessions_of_network",
            Self::Upstream(error) => error.label(),
            Self::Refused(_) => "call_refused",
        }
    }

    /// Value of `Retry-After` in seconds, if known.
    pub fn retry_after(self) -> Option<u16> {
        match self {
            Self::TooManyCalls | Self::TooManyAtOnce | Self::Upstream(UpstreamError::RequestsBusy) => Some(1),
            Self::TooManySessions | Self::TooManySessionsOfNetwork => Some(60),
            Self::Upstream(UpstreamError::CircuitOpen | UpstreamError::Unreachable) => Some(5),
            _ => None,
        }
    }

    /// Returns the failure in the media API's format.
    pub fn to_api(self) -> ApiFailure {
        ApiFailure { error_code: error_code(self.status()).to_owned(), error_description: self.to_string() }
    }
}

impl From<NoCredentials> for CallFailure {
    fn from(error: NoCredentials) -> Self {
        match error {
            NoCredentials::Upstream(error) => error.into(),
            NoCredentials::Refused(status) => Self::Refused(status),
        }
    }
}

/// Returns the media API's error code closest to a status.
pub fn error_code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => "unauthorized",
        404 => "not_found",
        406 => "invalid_session_description",
        410 | 425 => "session_error",
        413 => "payload_too_large",
        400..500 if !matches!(status.as_u16(), 408 | 429) => "invalid_params",
        500 => "internal_error",
        _ => "temporarily_unavailable_error",
    }
}
