//! The names by which a room and its agents' jobs refer to each other, as plain data.

use std::sync::Arc;

use crate::id::{MeetingId, SessionId};

/// Number of a job that a room started for an agent, by which a late result is recognized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AgentJob(pub u64);

/// An agent's session at the media API, and its only track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSession {
    /// The meeting that it was opened for.
    pub meeting: MeetingId,
    /// The session.
    pub session: SessionId,
    /// The track's name.
    pub track_name: Arc<str>,
    /// The track's mid in the session description; closing the track needs it.
    pub mid: Arc<str>,
}
