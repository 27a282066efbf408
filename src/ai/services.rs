//! The AI's calls: four to invite it, one to subscribe it to a track, one to end it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderValue, StatusCode};
use reqwest::redirect::Policy;
use secrecy::ExposeSecret;
use tracing::debug;
use url::Url;

use super::job::AiSession;
use super::wire::{self, Answered, Cause, JobStep, StepFailure};
use crate::calls::api::{Action, CallTarget, Caller};
use crate::calls::call::Call;
use crate::calls::upstream::Upstream;
use crate::config::{AiConfig as AiSettings, Calls, HttpUrl};
use crate::id::{MeetingId, SessionId};
use crate::protocol::ai::{AiWish, TrackReference};

/// Maximum length of an answer in bytes; a description of one track has a hundredth of that.
const ANSWER_BYTES: usize = 256 << 10;

/// Clients of the media API and the model.
#[derive(Debug)]
pub(super) struct Services {
    upstream: Arc<Upstream>,
    extra_params: String,
    client: reqwest::Client,
    model: Result<Model, String>,
}

#[derive(Debug)]
struct Model {
    endpoint: Url,
    token: HeaderValue,
    id: String,
}

impl Services {
    /// Creates the clients without connecting.
    pub(super) fn new(
        upstream: Arc<Upstream>,
        calls: &Calls,
        ai: &AiSettings,
    ) -> Result<Self, reqwest::Error> {
        let mut client = reqwest::Client::builder()
            .connect_timeout(calls.connect_timeout)
            .timeout(calls.timeout)
            // A redirect could leak the token to another host.
            .redirect(Policy::none());
        if ai.model_endpoint.as_ref().is_some_and(HttpUrl::is_loopback) {
            // A proxy cannot reach this machine's loopback.
            client = client.no_proxy();
        }
        let client = client.build()?;
        let extra_params = calls.extra_params.as_deref().unwrap_or_default().to_owned();
        Ok(Self { upstream, extra_params, client, model: Model::new(ai) })
    }

    /// Returns an error naming the missing variables, if the AI cannot be invited.
    pub(super) fn missing(&self) -> Option<String> {
        let model = self.model.as_ref().err().map(String::as_str);
        let missing: Vec<&str> = model.into_iter().chain(self.upstream.missing()).collect();
        (!missing.is_empty()).then(|| missing.join("; "))
    }

    /// Opens a session whose peer is a server.
    pub(super) async fn new_session(&self, meeting: MeetingId) -> Result<SessionId, StepFailure> {
        let step = JobStep::NewSession;
        let query = wire::query(meeting, &["thirdparty=true", &self.extra_params]);
        let answered = self.call(step, CallTarget::NewSession, query, Bytes::new()).await?;
        answered.session().map_err(|cause| StepFailure { step, cause })
    }

    /// Publishes the AI's track.
    pub(super) async fn new_track(
        &self,
        meeting: MeetingId,
        session: &SessionId,
    ) -> Result<Answered, StepFailure> {
        self.on_session(JobStep::NewTracks, Action::NewTracks, meeting, session, wire::NEW_TRACK.to_owned())
            .await
    }

    /// Sends the model an SDP offer, and returns its answer.
    pub(super) async fn ask_model(&self, wish: &AiWish, offer: String) -> Result<String, StepFailure> {
        let asked = async {
            let model = self.model.as_ref().map_err(|_| Cause::Model("it is not configured"))?;
            let request = self
                .client
                .post(wire::model_url(&model.endpoint, &model.id, wish))
                .header(AUTHORIZATION, &model.token)
                .header(CONTENT_TYPE, "application/sdp")
                .header(USER_AGENT, concat!("satsuma/", env!("CARGO_PKG_VERSION")))
                .body(offer);
            let mut response = request.send().await.map_err(no_answer)?;
            let status = response.status();
            if !status.is_success() {
                return Err(Cause::Status { status, code: None });
            }
            let mut body = Vec::new();
            while let Some(part) = response.chunk().await.map_err(no_answer)? {
                if body.len() + part.len() > ANSWER_BYTES {
                    return Err(Cause::Unreadable);
                }
                body.extend_from_slice(&part);
            }
            let answer = String::from_utf8(body).ok().filter(|text| wire::is_sdp(text));
            answer.ok_or(Cause::Lacks("SDP answer"))
        };
        asked.await.map_err(|cause| StepFailure { step: JobStep::Model, cause })
    }

    /// Sends the media API the model's answer.
    pub(super) async fn renegotiate(&self, on: &AiSession, answer: &str) -> Result<(), StepFailure> {
        let body = wire::answer_body(answer);
        let called =
            self.on_session(JobStep::Renegotiate, Action::Renegotiate, on.meeting, &on.session, body);
        called.await.map(drop)
    }

    /// Subscribes the AI to a track.
    pub(super) async fn hear(&self, on: &AiSession, track: &TrackReference) -> Result<(), StepFailure> {
        let body = wire::hear_body(track);
        let called = self.on_session(JobStep::NewTracks, Action::NewTracks, on.meeting, &on.session, body);
        called.await.map(drop)
    }

    /// Closes the AI's track; one that no longer exists counts as closed.
    pub(super) async fn close(&self, on: &AiSession) -> Result<(), StepFailure> {
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
                .call(Call {
                    target,
                    caller: Caller::Ai,
                    network: None,
                    query: Some(query),
                    body,
                    deadline: None,
                })
                .await?;
            let status: StatusCode = answer.status;
            let body =
                axum::body::to_bytes(answer.body, ANSWER_BYTES).await.map_err(|_| Cause::Unreadable)?;
            Answered::read(status, &body)
        };
        called.await.map_err(|cause| StepFailure { step, cause })
    }
}

impl Model {
    fn new(settings: &AiSettings) -> Result<Self, String> {
        let endpoint = settings.model_endpoint.as_ref().and_then(|url| Url::parse(url.as_str()).ok());
        let token = settings.api_token.as_ref().and_then(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        match (endpoint, token) {
            (Some(endpoint), Some(token)) => Ok(Self { endpoint, token, id: settings.model_id.clone() }),
            (None, None) => Err("OPENAI_MODEL_ENDPOINT and OPENAI_API_TOKEN are not set".to_owned()),
            (None, Some(_)) => Err("OPENAI_MODEL_ENDPOINT is not set".to_owned()),
            (Some(_), None) => Err("OPENAI_API_TOKEN is not set, or is no header's text".to_owned()),
        }
    }
}

/// Converts an error of the model's client. Its text may contain the URL, so it is only logged without it.
fn no_answer(error: reqwest::Error) -> Cause {
    let cause = match &error {
        error if error.is_timeout() => "it did not answer in time",
        error if error.is_connect() => "it cannot be reached",
        _ => "the connection broke off",
    };
    debug!(event = "modelFailed", error = %error.without_url());
    Cause::Model(cause)
}
