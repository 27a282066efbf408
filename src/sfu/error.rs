//! Errors of the embedded media server, and the one table from error to status and code.

use http::StatusCode;

/// Error of a call, or of one of its tracks. Its text is sent to the client.
///
/// Statuses and codes are those of the Calls API ("Errors" in its OpenAPI description).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SfuError {
    /// The body is not JSON of the expected form.
    #[error("invalid body: {0}")]
    Decoding(String),
    /// A field has an invalid value.
    #[error("{0}")]
    InvalidParams(&'static str),
    /// The call lists no tracks.
    #[error("the call names no tracks")]
    Empty,
    /// The session has ended or never existed.
    #[error("no such session, or it has ended")]
    NoSession,
    /// The session description cannot be parsed, or does not match the session.
    #[error("invalid session description: {0}")]
    Description(String),
    /// The client sent an answer, but the server made no offer.
    #[error("no offer of this session waits for an answer")]
    NoOffer,
    /// The server's last offer is not answered yet.
    #[error("the session's last offer waits for its answer")]
    OfferPending,
    /// The client's answer does not accept a track.
    #[error("the answer does not accept the track, or not its codec")]
    NotAccepted,
    /// The publisher has no such track.
    #[error("no such track")]
    NoTrack,
    /// The session already publishes a track of that name.
    #[error("the session publishes a track of this name already")]
    RepeatedTrack,
    /// The session already subscribes to this track.
    #[error("the session subscribes to this track already")]
    RepeatedSubscription,
    /// The track to close or change does not belong to the session.
    #[error("the session has no such track to close")]
    NothingToClose,
    /// The session does not subscribe to the track to change.
    #[error("the session has no such track to change")]
    NothingToChange,
    /// A limit of the session, or of the whole server, is reached.
    #[error("{0}")]
    TooMany(&'static str),
    /// A feature of the API that this server does not have.
    #[error("{0}")]
    Unsupported(&'static str),
    /// Too many long descriptions are waiting to be parsed.
    #[error("too many long calls at a time: try again")]
    Busy,
    /// The media thread does not answer.
    #[error("the media server does not answer")]
    Unavailable,
    /// A bug in the server ended the session.
    #[error("the session ended by an error of the server")]
    Internal,
}

impl SfuError {
    /// Status of the response if the whole call failed.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Decoding(_)
            | Self::InvalidParams(_)
            | Self::Empty
            | Self::RepeatedTrack
            | Self::RepeatedSubscription => StatusCode::BAD_REQUEST,
            Self::NoSession => StatusCode::GONE,
            Self::Description(_) | Self::NoOffer | Self::OfferPending | Self::NotAccepted => {
                StatusCode::NOT_ACCEPTABLE
            }
            Self::NoTrack | Self::NothingToClose | Self::NothingToChange => StatusCode::NOT_FOUND,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The API's error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Decoding(_) => "decoding_error",
            Self::InvalidParams(_) | Self::Unsupported(_) | Self::RepeatedSubscription => "invalid_params",
            Self::Empty => "empty_track_error",
            Self::NoSession => "session_error",
            Self::Description(_) | Self::NoOffer | Self::OfferPending | Self::NotAccepted => {
                "invalid_session_description"
            }
            Self::NoTrack => "not_found_track_error",
            Self::RepeatedTrack => "repeated_local_track_error",
            Self::NothingToClose => "close_track_error",
            Self::NothingToChange => "update_track_error",
            Self::TooMany(_) | Self::Unavailable | Self::Busy => "temporarily_unavailable_error",
            Self::Internal => "internal_error",
        }
    }
}
