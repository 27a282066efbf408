//! Every way in which a call can fail here, and the one table to status and error code.

use axum::http::StatusCode;

use super::api::ApiFailure;
use super::call::UpstreamError;
use super::turn::NoCredentials;

/// Why a call is not answered by the media API. The sentence is what the client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// No such call.
    #[error("no such path and method in the media API")]
    NotFound,
    /// Nobody known is asking.
    #[error("log in first: POST a username to /set-username, or come through the configured proxy")]
    NoIdentity,
    /// Nobody known is asking, and only a login in front of this server makes people known.
    #[error(
        "this server learns who you are from the login in front of it, and this request came without one"
    )]
    LoginRequired,
    /// Another server did not prove itself.
    #[error("missing or wrong application secret: Authorization: Bearer …")]
    NoSecret,
    /// The session belongs to somebody else, or its cookie is missing.
    #[error("this session was not opened by you, or its cookie is missing")]
    NotYourSession,
    /// Too many calls on one session.
    #[error("too many calls on this session")]
    TooManyCalls,
    /// Too many calls of one identity are under way.
    #[error("too many of your calls are under way")]
    TooManyAtOnce,
    /// Too many new sessions of one identity.
    #[error("too many new sessions; try again in a minute")]
    TooManySessions,
    /// Too many new sessions of one network.
    #[error("too many new sessions from this network; try again in a minute")]
    TooManySessionsOfNetwork,
    /// The call did not come through.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The media API refused in a way that is passed on by its status alone.
    #[error("the media API answered {0}")]
    Refused(StatusCode),
}

impl CallFailure {
    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
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

    /// The word by which it is counted.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotFound => "call_not_found",
            Self::NoIdentity => "call_no_identity",
            Self::LoginRequired => "call_login_required",
            Self::NoSecret => "call_no_secret",
            Self::NotYourSession => "call_not_your_session",
            Self::TooManyCalls => "call_too_many",
            Self::TooManyAtOnce => "call_too_many_at_once",
            Self::TooManySessions => "call_too_many_sessions",
            Self::TooManySessionsOfNetwork => "call_too_many_sessions_of_network",
            Self::Upstream(error) => error.label(),
            Self::Refused(_) => "call_refused",
        }
    }

    /// When the client may come back, in seconds, where that can be told.
    pub fn retry_after(self) -> Option<u16> {
        match self {
            Self::TooManyCalls | Self::TooManyAtOnce | Self::Upstream(UpstreamError::RequestsBusy) => Some(1),
            Self::TooManySessions | Self::TooManySessionsOfNetwork => Some(60),
            Self::Upstream(UpstreamError::CircuitOpen | UpstreamError::Unreachable) => Some(5),
            _ => None,
        }
    }

    /// The failure in the media API's own form.
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

/// The media API's error code that goes best with a status.
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
