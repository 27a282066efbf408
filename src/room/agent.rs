//! The lifecycle of an agent in a room, of which there is at most one of a kind.
//!
//! The media API cannot end a session, and an agent may bill as long as its track is open. So each session that a job
//! reports is either held here or requested to be closed, in the same step.

use std::mem;

use super::io::{AgentOutcome, AgentTask};
use crate::agent::job::{AgentJob, AgentSession};

/// An agent in a room; `P` is the further state of its kind while it is present.
#[derive(Debug)]
pub struct RoomAgent<P> {
    stage: AgentStage<P>,
    /// Number of the last job; no two jobs share one.
    last_job: u64,
}

/// A stage of an agent.
#[derive(Debug)]
pub enum AgentStage<P> {
    /// It is not in the room.
    Away,
    /// The last start failed.
    Failed,
    /// A job is starting it.
    Starting(AgentJob),
    /// It is in the room.
    Present(AgentSession, P),
}

/// The consequence of a job's result for an agent.
#[derive(Debug, PartialEq)]
pub enum AgentChange {
    /// The agent is in the room.
    Arrived,
    /// The agent could not be started.
    Failed,
    /// The job's session is not wanted any more, and is closed by this task.
    Unwanted(AgentTask),
    /// The job was not that of the start.
    Other(AgentOutcome),
}

impl<P> RoomAgent<P> {
    /// An agent in this stage.
    pub fn new(stage: AgentStage<P>) -> Self {
        Self { stage, last_job: 0 }
    }

    /// The stage.
    pub fn stage(&self) -> &AgentStage<P> {
        &self.stage
    }

    /// The session and the further state, while the agent is present.
    pub fn present(&self) -> Option<(&AgentSession, &P)> {
        match &self.stage {
            AgentStage::Present(session, presence) => Some((session, presence)),
            _ => None,
        }
    }

    /// The session and the further state, while the agent is present.
    pub fn present_mut(&mut self) -> Option<(&AgentSession, &mut P)> {
        match &mut self.stage {
            AgentStage::Present(session, presence) => Some((session, presence)),
            _ => None,
        }
    }

    /// The number of a new job.
    pub fn next_job(&mut self) -> AgentJob {
        self.last_job += 1;
        AgentJob(self.last_job)
    }

    /// Begins to start the agent, which must not be in the room or on its way, and returns the job for that.
    pub fn start(&mut self) -> AgentJob {
        let job = self.next_job();
        self.stage = AgentStage::Starting(job);
        job
    }

    /// Handles a job's result; `arrive` makes the further state of an agent that has arrived.
    pub fn done(
        &mut self,
        job: AgentJob,
        outcome: AgentOutcome,
        arrive: impl FnOnce(&AgentSession) -> P,
    ) -> AgentChange {
        let is_start = matches!(self.stage, AgentStage::Starting(awaited) if awaited == job);
        match outcome {
            AgentOutcome::Opened(session) if is_start => {
                let presence = arrive(&session);
                self.stage = AgentStage::Present(session, presence);
                AgentChange::Arrived
            }
            AgentOutcome::Opened(session) => AgentChange::Unwanted(AgentTask::Close(session)),
            _ if is_start => {
                self.stage = AgentStage::Failed;
                AgentChange::Failed
            }
            outcome => AgentChange::Other(outcome),
        }
    }

    /// Removes the agent, and returns the task for that, and its further state if it was present.
    pub fn end(&mut self) -> (Option<AgentTask>, Option<P>) {
        match mem::replace(&mut self.stage, AgentStage::Away) {
            AgentStage::Away | AgentStage::Failed => (None, None),
            AgentStage::Starting(job) => (Some(AgentTask::Cancel(job)), None),
            AgentStage::Present(session, presence) => (Some(AgentTask::Close(session)), Some(presence)),
        }
    }
}
