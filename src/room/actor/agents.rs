//! The jobs of the room's agent.

use std::time::Duration;

use super::{Actor, Asking, Turn};
use crate::agent::job::AgentJob;
use crate::agent::{JobReport, RunningJob};
use crate::assistant::{AnswerEnd, AnswerReport, OutOfBudget, PromptLine, RunningAnswer};
use crate::id::MeetingId;
use crate::room::io::{AgentOutcome, AgentTask, Input};

/// Time between two updates of an answer, which go to every member.
const SHORTEST_PACE: Duration = Duration::from_millis(300);

/// Further time for each member.
const PACE_OF_MEMBER: Duration = Duration::from_millis(2);

impl Actor {
    /// Carries out a task for an agent.
    ///
    /// The news that it has at once is returned.
    pub(super) fn run_agent_task(&mut self, task: AgentTask) -> Option<Input> {
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
            AgentTask::Answer { job, meeting, lines } => return Some(self.answer(job, meeting, lines)),
            AgentTask::CancelAnswer(job) => drop(self.answer.take_if(|running| running.job() == job)),
        }
        None
    }

    fn answer(&mut self, job: AgentJob, meeting: MeetingId, lines: Vec<PromptLine>) -> Input {
        let room = (&self.name, self.permit.network);
        let members = u32::try_from(self.fanout.len()).unwrap_or(u32::MAX);
        let pace = SHORTEST_PACE + PACE_OF_MEMBER.saturating_mul(members);
        let assistant = self.deps.assistant.as_ref().ok_or(OutOfBudget);
        let running = assistant.and_then(|assistant| assistant.ask(job, room, meeting, lines, pace));
        self.answer = running.ok();
        let end = self.answer.is_none().then_some(AnswerEnd::OutOfBudget);
        // An empty text shows that the answer has begun.
        Input::Answer(AnswerReport { job, text: String::new(), end })
    }

    /// Handles news of the assistant's answer.
    pub(super) async fn answer_reported(&mut self, report: AnswerReport) -> Turn {
        if report.end.is_some() {
            self.answer = None;
        }
        self.handle(Input::Answer(report), Asking::None).await
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

/// News of the assistant's answer, if there is one.
pub(super) async fn answered(answer: &mut Option<RunningAnswer>) -> AnswerReport {
    match answer {
        Some(running) => running.report().await,
        None => std::future::pending().await,
    }
}
