//! The media API for agents, whose sessions have no browser.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::StatusCode;

use super::failure::{Cause, JobStep, StepFailure};
use super::job::AgentSession;
use super::wire::{self, Answered};
use crate::id::{MeetingId, RoomName, SessionId};
use crate::media_api::api::{Action, CallTarget, Caller};
use crate::media_api::call::Call;
use crate::media_api::upstream::Upstream;

/// Maximum length of an answer in bytes; a description of one track has a hundredth of that.
pub const ANSWER_BYTES: usize = 256 << 10;

/// The client of the media API.
#[derive(Debug)]
pub(super) struct Media {
    upstream: Arc<Upstream>,
    extra_params: String,
}

impl Media {
    /// A client that adds the parameters of `calls.extra_params` to every call.
    pub(super) fn new(upstream: Arc<Upstream>, extra_params: Option<&str>) -> Self {
        Self { upstream, extra_params: extra_params.unwrap_or_default().to_owned() }
    }

    /// The settings without which no call can succeed.
    pub(super) fn missing(&self) -> Option<&str> {
        self.upstream.missing()
    }

    /// Opens a session in a room, whose peer is a server.
    pub(super) async fn new_session(
        &self,
        room: &RoomName,
        meeting: MeetingId,
    ) -> Result<SessionId, StepFailure> {
        let step = JobStep::NewSession;
        let of_room = self.upstream.room_parameter(room).unwrap_or_default();
        let query = wire::query(meeting, &["thirdparty=true", &self.extra_params, &of_room]);
        let answered = self.call(step, CallTarget::NewSession, query, Bytes::new()).await?;
        answered.session().map_err(|cause| StepFailure { step, cause })
    }

    /// Adds tracks to a session: its own, or those of others.
    pub(super) async fn new_tracks(
        &self,
        meeting: MeetingId,
        session: &SessionId,
        body: String,
    ) -> Result<Answered, StepFailure> {
        self.on_session(JobStep::NewTracks, Action::NewTracks, meeting, session, body).await
    }

    /// Sends the other side's SDP answer.
    pub(super) async fn renegotiate(&self, on: &AgentSession, answer: &str) -> Result<(), StepFailure> {
        let body = wire::answer_body(answer);
        let called =
            self.on_session(JobStep::Renegotiate, Action::Renegotiate, on.meeting, &on.session, body);
        called.await.map(drop)
    }

    /// Closes the agent's track; one that no longer exists counts as closed.
    pub(super) async fn close(&self, on: &AgentSession) -> Result<(), StepFailure> {
        let body = wire::close_body(&on.mid);
        let called =
            self.on_session(JobStep::CloseTracks, Action::CloseTracks, on.meeting, &on.session, body);
        match called.await {
            Err(failure) if failure.cause.is_gone() => Ok(()),
            result => result.map(drop),
        }
    }

    async fn on_session(
        &self,
        step: JobStep,
        action: Action,
        meeting: MeetingId,
        session: &SessionId,
        body: String,
    ) -> Result<Answered, StepFailure> {
        let target = CallTarget::Session { session: session.clone(), action };
        let query = wire::query(meeting, &[&self.extra_params]);
        self.call(step, target, query, body.into()).await
    }

    async fn call(
        &self,
        step: JobStep,
        target: CallTarget,
        query: String,
        body: Bytes,
    ) -> Result<Answered, StepFailure> {
        let called = async {
            let answer = self
                .upstream
                .call(Call { target, caller: Caller::Ai, network: None, query: Some(query), body })
                .await?;
            let status: StatusCode = answer.status;
            let body =
                axum::body::to_bytes(answer.body, ANSWER_BYTES).await.map_err(|_| Cause::Unreadable)?;
            Answered::read(status, &body)
        };
        called.await.map_err(|cause| StepFailure { step, cause })
    }
}
