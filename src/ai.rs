//! The AI participant's jobs: invite it, subscribe it to a member's track.

mod model;
mod wire;

use std::sync::Arc;

use tokio::time::Instant;

use crate::agent::failure::StepFailure;
use crate::agent::job::{AgentJob, AgentSession};
use crate::agent::{AgentEvents, AgentKind, Agents, JobReport, OpenSession, RunningJob};
use crate::config::{AiConfig, Calls};
use crate::id::{MeetingId, RoomName};
use crate::limit::{KeyedLimit, Rate};
use crate::media_api::upstream::Upstream;
use crate::metrics::Metrics;
use crate::network::ClientNetwork;
use crate::protocol::ai::{AiWish, TrackReference};
use model::Model;

/// The names of the AI's log events.
const EVENTS: AgentEvents = AgentEvents {
    job_done: "aiJobDone",
    job_failed: "aiJobFailed",
    job_cancelled: "aiJobCancelled",
    track_closed: "aiTrackClosed",
    track_still_open: "aiTrackStillOpen",
    track_not_closed: "aiTrackNotClosed",
};

/// A handle to the owner of the AI's jobs. Clones share the same owner.
#[derive(Clone, Debug)]
pub struct AiHandle {
    agents: Agents,
    /// The model, or the settings that it lacks.
    model: Arc<Result<Model, &'static str>>,
    /// Rate limit of invitations of rooms of one network, each of which costs money.
    starts: Arc<KeyedLimit<ClientNetwork>>,
}

impl AiHandle {
    /// Creates the AI. With incomplete settings every job fails at once.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(
        upstream: Arc<Upstream>,
        calls: &Calls,
        ai: &AiConfig,
        starts_of_network: Rate,
        metrics: Arc<Metrics>,
    ) -> Result<Self, reqwest::Error> {
        let kind = AgentKind {
            timeout: ai.timeout,
            timeout_setting: "ai.timeout",
            jobs: metrics.ai_jobs.clone(),
            events: EVENTS,
        };
        Ok(Self {
            agents: Agents::new(kind, upstream, calls.extra_params.as_deref()),
            model: Arc::new(Model::new(calls, ai)?),
            starts: Arc::new(KeyedLimit::rate(starts_of_network)),
        })
    }

    /// Starts to invite an AI into a room that a client of `network` started. The limit is per network: clients
    /// can open any number of rooms, so a limit per room would be ineffective.
    pub fn invite(
        &self,
        job: AgentJob,
        (room, network): (&RoomName, Option<ClientNetwork>),
        meeting: MeetingId,
        wish: AiWish,
    ) -> RunningJob {
        if network.is_some_and(|network| self.starts.check(&network).is_err()) {
            let why = "limits.ai_starts_per_minute_per_network is reached";
            return self.agents.fail("invite", "rate_limited", job, (room, meeting), why);
        }
        let (ai, of_room) = (self.clone(), room.clone());
        let work = async move { ai.handshake(&of_room, meeting, wish).await.map(JobReport::Opened) };
        self.start("invite", job, room, meeting, work)
    }

    /// Starts to subscribe a room's AI to a track.
    pub fn hear(
        &self,
        job: AgentJob,
        room: &RoomName,
        session: AgentSession,
        track: TrackReference,
    ) -> RunningJob {
        let (agents, meeting) = (self.agents.clone(), session.meeting);
        let work = async move {
            agents.subscribe(&session, wire::hear_body(&track)).await.map(|()| JobReport::Done)
        };
        self.start("hear", job, room, meeting, work)
    }

    /// Refuses to subscribe a room's AI to a track that is none of a member.
    pub fn refuse_to_hear(&self, job: AgentJob, room: &RoomName, meeting: MeetingId) -> RunningJob {
        self.agents.fail(
            "hear",
            "refused",
            job,
            (room, meeting),
            "the track is not that of a member of this room",
        )
    }

    /// The owner of the AI's sessions.
    pub fn agents(&self) -> &Agents {
        &self.agents
    }

    /// Prunes rate limit entries of idle networks.
    pub fn prune(&self) {
        self.starts.prune();
    }

    /// Cancels all jobs; new ones fail from now on. Tracks that they opened are closed.
    pub fn stop_jobs(&self) {
        self.agents.stop_jobs();
    }

    /// Waits until all jobs have ended and all tracks to be closed are closed.
    ///
    /// Gives up at `deadline`; returns the number of tracks left open for good.
    pub async fn shutdown(&self, deadline: Instant) -> usize {
        self.agents.shutdown(deadline).await
    }

    fn start(
        &self,
        label: &'static str,
        job: AgentJob,
        room: &RoomName,
        meeting: MeetingId,
        work: impl Future<Output = Result<JobReport, StepFailure>> + Send + 'static,
    ) -> RunningJob {
        let model = self.model.as_ref().as_ref().err().copied();
        let missing: Vec<&str> = model.into_iter().chain(self.agents.missing()).collect();
        if missing.is_empty() {
            self.agents.start(label, job, room, meeting, work)
        } else {
            self.agents.fail(label, "not_configured", job, (room, meeting), &missing.join("; "))
        }
    }

    /// Steps 1 to 4 of protocol section 6.
    async fn handshake(
        &self,
        room: &RoomName,
        meeting: MeetingId,
        wish: AiWish,
    ) -> Result<OpenSession, StepFailure> {
        let (opened, offer) = self.agents.open((room, meeting), wire::TRACK_NAME, wire::NEW_TRACK).await?;
        let answer = match &*self.model {
            Ok(model) => model.answer(&wish, offer).await?,
            Err(missing) => return Err(model::not_configured(missing)),
        };
        self.agents.renegotiate(opened.session(), &answer).await?;
        Ok(opened)
    }
}
