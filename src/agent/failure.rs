//! Failures of the steps of agents' jobs.

use axum::http::StatusCode;

use crate::media_api::call::UpstreamError;

/// A failed step of a job, for the log; it contains no secret and no body.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{step}: {cause}")]
pub struct StepFailure {
    /// The step.
    pub step: JobStep,
    /// The cause.
    pub cause: Cause,
}

/// A step of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobStep {
    /// Opening the agent's session.
    #[error("sessions/new")]
    NewSession,
    /// Adding a track to the session.
    #[error("tracks/new")]
    NewTracks,
    /// Sending the offer to the AI's model.
    #[error("the model")]
    Model,
    /// Sending the other side's answer to the media API.
    #[error("renegotiate")]
    Renegotiate,
    /// Closing the agent's track.
    #[error("tracks/close")]
    CloseTracks,
}

/// The cause of a step's failure.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Cause {
    /// No answer from the media API.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// No answer from the model.
    #[error("{0}")]
    Model(&'static str),
    /// The answer has an error status.
    #[error("answered {status}{}", shown(code))]
    Status {
        /// The status.
        status: StatusCode,
        /// The error code, if any.
        code: Option<String>,
    },
    /// The answer has a success status, but its body has an error.
    #[error("refused{}", shown(code))]
    Refused {
        /// The error code.
        code: Option<String>,
    },
    /// The answer lacks a required field.
    #[error("the answer has no {0}")]
    Lacks(&'static str),
    /// The answer is incomplete, or exceeds the limit.
    #[error("the answer is too long or incomplete")]
    Unreadable,
    /// The server is stopping.
    #[error("the server stops")]
    Stopping,
}

impl Cause {
    /// True if the track to be closed no longer exists.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(*status, StatusCode::NOT_FOUND | StatusCode::GONE),
            Self::Refused { code } => code.as_deref() == Some("not_found_track_error"),
            _ => false,
        }
    }

    /// True if the call may have succeeded all the same.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Self::Upstream(error) => {
                !matches!(error, UpstreamError::NotConfigured(_) | UpstreamError::CircuitOpen)
            }
            Self::Status { status, .. } => status.is_server_error(),
            Self::Refused { .. } => false,
            Self::Model(_) | Self::Lacks(_) | Self::Unreadable | Self::Stopping => true,
        }
    }

    /// True if a retry might succeed.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Upstream(error) => !matches!(error, UpstreamError::NotConfigured(_)),
            // 406: concurrent changes of one session; 425: not connected yet; 429: too many calls.
            Self::Status { status, .. } => {
                status.is_server_error() || matches!(status.as_u16(), 406 | 408 | 425 | 429)
            }
            _ => true,
        }
    }
}

fn shown(code: &Option<String>) -> String {
    code.as_ref().map(|code| format!(", {code}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_transient_failures_are_retried() {
        let status =
            |status: u16| Cause::Status { status: StatusCode::from_u16(status).unwrap(), code: None };
        for passing in [
            status(500),
            status(503),
            status(406),
            status(425),
            status(429),
            UpstreamError::TimedOut.into(),
            Cause::Unreadable,
        ] {
            assert!(passing.is_passing() && !passing.is_gone(), "{passing}");
        }
        for lasting in [status(400), status(401), status(403), UpstreamError::NotConfigured("x").into()] {
            assert!(!lasting.is_passing() && !lasting.is_gone(), "{lasting}");
        }
        for gone in [status(404), status(410), Cause::Refused { code: Some("not_found_track_error".into()) }]
        {
            assert!(gone.is_gone(), "{gone}");
        }
    }
}
