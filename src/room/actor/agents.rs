//! The jobs of the room's agent.

use super::{Actor, Asking, Turn};
use crate::agent::{JobReport, RunningJob};
use crate::room::io::{AgentOutcome, AgentTask, Input};

impl Actor {
    /// Carries out a task for an agent.
    pub(super) fn run_agent_task(&mut self, task: AgentTask) {
        let ai = &self.deps.ai;
        match task {
            AgentTask::InviteAi { job, meeting, wish } => {
                let room = (&self.name, self.permit.network);
                self.agent_job = Some(ai.invite(job, room, meeting, wish));
            }
            AgentTask::HearTrack { job, session, track } => {
                self.agent_job = Some(if self.media.agent_may_subscribe(&track.session) {
                    ai.hear(job, &self.name, session, track)
                } else {
                    ai.refuse_to_hear(job, &self.name, session.meeting)
                });
            }
            AgentTask::Cancel(job) => drop(self.agent_job.take_if(|running| running.job() == job)),
            AgentTask::Close(session) => ai.agents().close(session),
        }
    }

    /// Hands the result of a job to the room.
    pub(super) async fn agent_reported(&mut self, report: JobReport) -> Turn {
        let Some(job) = self.agent_job.take().map(|running| running.job()) else { return Turn::Continue };
        let (outcome, opened) = match report {
            JobReport::Opened(opened) => (AgentOutcome::Opened(opened.session().clone()), Some(opened)),
            JobReport::Done => (AgentOutcome::Done, None),
            JobReport::Failed => (AgentOutcome::Failed, None),
        };
        let turn = self.handle(Input::AgentDone { job, outcome }, Asking::None).await;
        // After the handler: if the room had panicked, the track would have been dropped, and so closed.
        if let Some(opened) = opened {
            opened.hand_over();
        }
        turn
    }
}

/// Waits for the result of a job; forever, if there is none.
pub(super) async fn reported(job: &mut Option<RunningJob>) -> JobReport {
    match job {
        Some(running) => running.report().await,
        None => std::future::pending().await,
    }
}
