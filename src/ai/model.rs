//! The AI's model: the service that speaks and listens.

use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use reqwest::redirect::Policy;
use secrecy::ExposeSecret;
use tracing::debug;
use url::Url;

use super::wire::model_url;
use crate::agent::failure::{Cause, JobStep, StepFailure};
use crate::agent::{ANSWER_BYTES, is_sdp};
use crate::config::{AiConfig, Calls, HttpUrl, VERSION};
use crate::protocol::ai::AiWish;

/// The client of the model.
#[derive(Debug)]
pub(super) struct Model {
    client: reqwest::Client,
    endpoint: Url,
    token: HeaderValue,
    id: String,
}

impl Model {
    /// Creates the client without connecting; an error names the missing variables.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub(super) fn new(calls: &Calls, ai: &AiConfig) -> Result<Result<Self, &'static str>, reqwest::Error> {
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
        let endpoint = ai.model_endpoint.as_ref().and_then(|url| Url::parse(url.as_str()).ok());
        let token = ai.api_token.as_ref().and_then(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Ok(match (endpoint, token) {
            (Some(endpoint), Some(token)) => Ok(Self { client, endpoint, token, id: ai.model_id.clone() }),
            (None, None) => Err("OPENAI_MODEL_ENDPOINT and OPENAI_API_TOKEN are not set"),
            (None, Some(_)) => Err("OPENAI_MODEL_ENDPOINT is not set"),
            (Some(_), None) => Err("OPENAI_API_TOKEN is not set, or is no header's text"),
        })
    }

    /// Sends the model an SDP offer, and returns its answer.
    pub(super) async fn answer(&self, wish: &AiWish, offer: String) -> Result<String, StepFailure> {
        let answered = async {
            let request = self
                .client
                .post(model_url(&self.endpoint, &self.id, wish))
                .header(AUTHORIZATION, &self.token)
                .header(CONTENT_TYPE, "application/sdp")
                .header(USER_AGENT, format!("satsuma/{VERSION}"))
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
            let answer = String::from_utf8(body).ok().filter(|text| is_sdp(text));
            answer.ok_or(Cause::Lacks("SDP answer"))
        };
        answered.await.map_err(|cause| StepFailure { step: JobStep::Model, cause })
    }
}

/// The failure of a job that needs a model without one.
pub(super) fn not_configured(missing: &'static str) -> StepFailure {
    StepFailure { step: JobStep::Model, cause: Cause::Model(missing) }
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
