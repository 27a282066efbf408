//! Every way in which the embedded media server refuses, and the one table to status and code.

use axum::http::StatusCode;

/// Why a call, or one of its tracks, fails. The sentence is what the client reads.
///
/// Statuses and codes are those of the Calls API (its "Errors" in the API's description).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SfuError {
    /// The body is no JSON of the right form.
    #[error("the body is not what this call takes: {0}")]
    Decoding(String),
    /// A field has a value that makes no sense.
    #[error("{0}")]
    InvalidParams(&'static str),
    /// There are no tracks.
    #[error("there are no tracks")]
    Empty,
    /// There is no such session any more, or there never was.
    #[error("there is no such session, or it has ended")]
    NoSession,
    /// The session description cannot be read, or does not fit to the session.
    #[error("the session description cannot be used: {0}")]
    Description(String),
    /// There is no offer that this could be the answer to.
    #[error("the session made no offer that waits for an answer")]
    NoOffer,
    /// An offer of the server's waits for its answer.
    #[error("the session's last offer waits for its answer")]
    OfferPending,
    /// The client's answer does not accept a track.
    #[error("the answer does not accept the track, or not its codec")]
    NotAccepted,
    /// The publisher has no such track.
    #[error("there is no such track")]
    NoTrack,
    /// The session publishes a track of that name already.
    #[error("the session publishes a track of this name already")]
    RepeatedTrack,
    /// The session subscribes to this track already.
    #[error("the session subscribes to this track already")]
    RepeatedSubscription,
    /// The track that is to be closed or changed is not the session's.
    #[error("the session has no such track to close")]
    NothingToClose,
    /// The track that is to be changed is not one that the session subscribes to.
    #[error("the session has no such track to change")]
    NothingToChange,
    /// A session, or the whole server, has as many of something as it may.
    #[error("{0}")]
    TooMany(&'static str),
    /// What the API has and this server has not.
    #[error("{0}")]
    Unsupported(&'static str),
    /// Too many long descriptions are to be read.
    #[error("too many long calls at a time: try again")]
    Busy,
    /// The media thread does not answer.
    #[error("the media server does not answer")]
    Unavailable,
    /// A bug of ours ended the session.
    #[error("the session ended by an error of the server")]
    Internal,
}

impl SfuError {
    /// The status of the answer, where the whole call failed.
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
