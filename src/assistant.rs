//! The assistant: a language model that answers in a room's chat, a kind of agent without a media session.
//!
//! Rooms start an answer without waiting for it. It streams in: the room takes the newest text whenever it can, so that
//! a model that floods its stream costs no more than one that pauses. Dropping a [`RunningAnswer`] cancels it.

mod events;
mod model;
mod prompt;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::agent::failure::{Cause, JobStep, StepFailure};
use crate::agent::job::AgentJob;
use crate::agent::{AgentEvents, AgentKind, Agents, JobReport, RunningJob};
use crate::clock::now;
use crate::config::AssistantConfig;
use crate::id::{MeetingId, RoomName};
use crate::limit::{KeyedLimit, Rate};
use crate::media_api::upstream::Upstream;
use crate::metrics::Metrics;
use crate::network::ClientNetwork;
use model::Model;
pub use prompt::PromptLine;

/// The names of the assistant's log events. It opens no tracks.
const EVENTS: AgentEvents = AgentEvents {
    job_done: "assistantAnswered",
    job_failed: "assistantFailed",
    job_cancelled: "assistantCancelled",
    track_closed: "assistantTrackClosed",
    track_still_open: "assistantTrackStillOpen",
    track_not_closed: "assistantTrackNotClosed",
};

/// A handle to the assistant. Clones share the same budgets.
#[derive(Clone, Debug)]
pub struct AssistantHandle {
    agents: Agents,
    model: Arc<Model>,
    answer_chars: usize,
    of_room: Arc<KeyedLimit<RoomName>>,
    of_network: Arc<KeyedLimit<ClientNetwork>>,
    of_all: Arc<KeyedLimit<()>>,
}

/// The budget of the room, its network or the server is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfBudget;

/// An answer in progress. Dropping it cancels it.
#[derive(Debug)]
pub struct RunningAnswer {
    job: RunningJob,
    text: watch::Receiver<AnswerText>,
}

#[derive(Clone, Debug, Default)]
struct AnswerText {
    text: String,
    /// True if the rest was cut off.
    is_cut: bool,
}

/// News of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerReport {
    /// The job.
    pub job: AgentJob,
    /// The text so far.
    pub text: String,
    /// The end, if this is it.
    pub end: Option<AnswerEnd>,
}

/// The way in which an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerEnd {
    /// It is complete.
    Complete,
    /// The rest was too long.
    Cut,
    /// The model failed, or took too long.
    Failed,
    /// There was no budget for it.
    OutOfBudget,
}

impl RunningAnswer {
    /// The job's number, assigned by the room.
    pub fn job(&self) -> AgentJob {
        self.job.job()
    }

    /// Waits for news. Not to be called again after the end.
    pub async fn report(&mut self) -> AnswerReport {
        let job = self.job.job();
        tokio::select! {
            // An answer that is complete is not told as one that grew.
            biased;
            outcome = self.job.report() => {
                let AnswerText { text, is_cut } = self.text.borrow().clone();
                let end = match outcome {
                    JobReport::Failed => AnswerEnd::Failed,
                    JobReport::Opened(_) | JobReport::Done if is_cut => AnswerEnd::Cut,
                    JobReport::Opened(_) | JobReport::Done => AnswerEnd::Complete,
                };
                AnswerReport { job, text, end: Some(end) }
            }
            Ok(()) = self.text.changed() => {
                let text = self.text.borrow_and_update().text.clone();
                AnswerReport { job, text, end: None }
            }
        }
    }
}

impl AssistantHandle {
    /// Creates the assistant; none without a URL.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(
        config: &AssistantConfig,
        upstream: Arc<Upstream>,
        metrics: &Metrics,
    ) -> Result<Option<Self>, reqwest::Error> {
        let Some(model) = Model::new(config)? else { return Ok(None) };
        let kind = AgentKind {
            timeout: config.timeout,
            timeout_setting: "assistant.timeout",
            jobs: metrics.assistant_jobs.clone(),
            events: EVENTS,
        };
        Ok(Some(Self {
            agents: Agents::new(kind, upstream, None),
            model: Arc::new(model),
            answer_chars: config.answer_chars,
            of_room: Arc::new(KeyedLimit::rate(Rate::per_day(config.answers_per_room))),
            of_network: Arc::new(KeyedLimit::rate(Rate::per_day(config.answers_per_network))),
            of_all: Arc::new(KeyedLimit::rate(Rate::per_day(config.answers_per_day))),
        }))
    }

    /// Starts an answer in a room that a client of `network` started; at most once in `pace` it tells that its text grew.
    ///
    /// # Errors
    /// [`OutOfBudget`].
    pub fn ask(
        &self,
        job: AgentJob,
        (room, network): (&RoomName, Option<ClientNetwork>),
        meeting: MeetingId,
        lines: Vec<PromptLine>,
        pace: Duration,
    ) -> Result<RunningAnswer, OutOfBudget> {
        self.charge(room, network)?;
        let (grown, text) = watch::channel(AnswerText::default());
        let (model, most) = (self.model.clone(), self.answer_chars);
        let work = async move { answer(&model, &lines, most, pace, grown).await.map(|()| JobReport::Done) };
        Ok(RunningAnswer { job: self.agents.start("answer", job, room, meeting, work), text })
    }

    /// Charges an answer to all of its budgets, or to none.
    fn charge(&self, room: &RoomName, network: Option<ClientNetwork>) -> Result<(), OutOfBudget> {
        self.of_room.check(room).map_err(|_| OutOfBudget)?;
        if network.is_some_and(|network| self.of_network.check(&network).is_err()) {
            self.of_room.refund(room);
            return Err(OutOfBudget);
        }
        if self.of_all.check(&()).is_err() {
            self.of_room.refund(room);
            network.inspect(|network| self.of_network.refund(network));
            return Err(OutOfBudget);
        }
        Ok(())
    }

    /// Prunes the budgets that are whole again.
    pub fn prune(&self) {
        self.of_room.prune();
        self.of_network.prune();
    }

    /// Cancels all answers; new ones fail from now on.
    pub fn stop_jobs(&self) {
        self.agents.stop_jobs();
    }

    /// Waits until all answers have ended, until `deadline`.
    pub async fn shutdown(&self, deadline: Instant) {
        self.agents.shutdown(deadline).await;
    }
}

/// Asks the model and collects its answer, which is told in `grown` as it grows.
async fn answer(
    model: &Model,
    lines: &[PromptLine],
    most: usize,
    pace: Duration,
    grown: watch::Sender<AnswerText>,
) -> Result<(), StepFailure> {
    let mut stream = model.ask(lines).await?;
    let (mut answer, mut chars) = (AnswerText::default(), 0);
    // The time at which the text is told, if it has grown.
    let mut due: Option<Instant> = None;
    let mut told = now();
    let result = loop {
        let more = tokio::select! {
            more = stream.next() => more,
            () = sleep_until(due.unwrap_or(told)), if due.is_some() => {
                grown.send_replace(answer.clone());
                (due, told) = (None, now());
                continue;
            }
        };
        match more {
            Ok(Some(more)) => {
                let shown = more.chars().filter(|char| !char.is_control() || matches!(char, '\n' | '\t'));
                for char in shown {
                    if chars == most {
                        answer.is_cut = true;
                        break;
                    }
                    answer.text.push(char);
                    chars += 1;
                }
                if answer.is_cut {
                    break Ok(());
                }
                due = due.or(Some(told + pace));
            }
            Ok(None) if answer.text.trim().is_empty() => {
                break Err(StepFailure { step: JobStep::Model, cause: Cause::Lacks("text") });
            }
            Ok(None) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    // The end takes the text from here.
    grown.send_replace(answer);
    result
}
