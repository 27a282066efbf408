//! Tasks of a room for agents, and their results.

use crate::agent::job::{AgentJob, AgentSession};
use crate::assistant::PromptLine;
use crate::id::MeetingId;
use crate::protocol::ai::{AiWish, TrackReference};

/// A task for an agent; a room does not wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentTask {
    /// Start an AI session; ends in [`AgentOutcome::Opened`] or [`AgentOutcome::Failed`].
    InviteAi {
        /// The job.
        job: AgentJob,
        /// The meeting of the AI.
        meeting: MeetingId,
        /// The AI's options.
        wish: AiWish,
    },
    /// Make the AI listen to a track; ends in [`AgentOutcome::Done`] or [`AgentOutcome::Failed`].
    HearTrack {
        /// The job.
        job: AgentJob,
        /// The AI's session.
        session: AgentSession,
        /// The track.
        track: TrackReference,
    },
    /// Answer a question in the chat; tells its news as [`Input::Answer`](super::Input::Answer).
    Answer {
        /// The job.
        job: AgentJob,
        /// The meeting.
        meeting: MeetingId,
        /// The question, and the messages before it that the assistant may see.
        lines: Vec<PromptLine>,
    },
    /// Cancel the answer; its end is no longer needed.
    CancelAnswer(AgentJob),
    /// Cancel the job; its result is no longer needed.
    Cancel(AgentJob),
    /// Close the session's track, which ends the billing of the agent's service.
    Close(AgentSession),
}

/// Result of an agent's job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentOutcome {
    /// The agent is connected on this session.
    Opened(AgentSession),
    /// The job is done.
    Done,
    /// The job failed, or nobody waited for it.
    Failed,
}
