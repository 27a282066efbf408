//! The jobs of a room's agents that are in progress, for whoever carries out the room's effects.

use std::time::Duration;

use super::actor::RoomDeps;
use super::io::{AgentOutcome, AgentTask, Input};
use crate::agent::job::AgentJob;
use crate::agent::{JobReport, OpenSession, RunningJob};
use crate::assistant::{AnswerEnd, AnswerReport, OutOfBudget, PromptLine, RunningAnswer};
use crate::id::{MeetingId, RoomName, SessionId};
use crate::network::ClientNetwork;

/// Time between two updates of an answer, which go to every member.
const SHORTEST_PACE: Duration = Duration::from_millis(300);

/// Further time for each member.
const PACE_OF_MEMBER: Duration = Duration::from_millis(2);

/// The jobs in progress. They are cancelled when this is dropped.
#[derive(Debug, Default)]
pub struct AgentJobs {
    job: Option<RunningJob>,
    answer: Option<RunningAnswer>,
}

/// The room of the jobs.
#[derive(Clone, Copy, Debug)]
pub struct JobRoom<'a> {
    /// Its name.
    pub name: &'a RoomName,
    /// The network of the client that started it, if known.
    pub network: Option<ClientNetwork>,
    /// Number of members.
    pub members: usize,
}

/// News of a job.
#[derive(Debug)]
pub enum AgentNews {
    /// The AI's job has ended.
    Job(JobReport),
    /// The assistant's answer grew or ended.
    Answer(AnswerReport),
}

impl AgentJobs {
    /// Carries out a task. The news that it has at once is returned.
    pub fn run(
        &mut self,
        deps: &RoomDeps,
        room: JobRoom<'_>,
        may_hear: impl FnOnce(&SessionId) -> bool,
        task: AgentTask,
    ) -> Option<Input> {
        let ai = &deps.ai;
        match task {
            AgentTask::InviteAi { job, meeting, wish } => {
                self.job = Some(ai.invite(job, (room.name, room.network), meeting, wish));
            }
            AgentTask::HearTrack { job, session, track } => {
                self.job = Some(if may_hear(&track.session) {
                    ai.hear(job, room.name, session, track)
                } else {
                    ai.refuse_to_hear(job, room.name, session.meeting)
                });
            }
            AgentTask::Cancel(job) => drop(self.job.take_if(|running| running.job() == job)),
            AgentTask::Close(session) => ai.agents().close(session),
            AgentTask::Answer { job, meeting, lines } => {
                return Some(self.answer(deps, room, job, meeting, lines));
            }
            AgentTask::CancelAnswer(job) => drop(self.answer.take_if(|running| running.job() == job)),
        }
        None
    }

    fn answer(
        &mut self,
        deps: &RoomDeps,
        room: JobRoom<'_>,
        job: AgentJob,
        meeting: MeetingId,
        lines: Vec<PromptLine>,
    ) -> Input {
        let members = u32::try_from(room.members).unwrap_or(u32::MAX);
        let pace = SHORTEST_PACE + PACE_OF_MEMBER.saturating_mul(members);
        let assistant = deps.assistant.as_ref().ok_or(OutOfBudget);
        let of_room = (room.name, room.network);
        let running = assistant.and_then(|assistant| assistant.ask(job, of_room, meeting, lines, pace));
        self.answer = running.ok();
        let end = self.answer.is_none().then_some(AnswerEnd::OutOfBudget);
        // An empty text shows that the answer has begun.
        Input::Answer(AnswerReport { job, text: String::new(), end })
    }

    /// Waits for news; for ever, if there is no job. Nothing is lost if the wait is given up.
    pub async fn next(&mut self) -> AgentNews {
        let Self { job, answer } = self;
        tokio::select! {
            biased;
            report = reported(job) => AgentNews::Job(report),
            report = answered(answer) => AgentNews::Answer(report),
        }
    }

    /// The input that news are for the room, and the session that is to be [handed over](OpenSession::hand_over) once
    /// the room has handled it: if the room panics, its track is dropped, and so closed.
    pub fn take(&mut self, news: AgentNews) -> Option<(Input, Option<OpenSession>)> {
        let report = match news {
            AgentNews::Answer(report) => {
                if report.end.is_some() {
                    self.answer = None;
                }
                return Some((Input::Answer(report), None));
            }
            AgentNews::Job(report) => report,
        };
        let job = self.job.take()?.job();
        let (outcome, opened) = match report {
            JobReport::Opened(opened) => (AgentOutcome::Opened(opened.session().clone()), Some(opened)),
            JobReport::Done => (AgentOutcome::Done, None),
            JobReport::Failed => (AgentOutcome::Failed, None),
        };
        Some((Input::AgentDone { job, outcome }, opened))
    }
}

async fn reported(job: &mut Option<RunningJob>) -> JobReport {
    match job {
        Some(running) => running.report().await,
        None => std::future::pending().await,
    }
}

async fn answered(answer: &mut Option<RunningAnswer>) -> AnswerReport {
    match answer {
        Some(running) => running.report().await,
        None => std::future::pending().await,
    }
}
