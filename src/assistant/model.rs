//! The client of a model with an API like that of OpenAI.

use std::collections::VecDeque;

use axum::http::HeaderValue;
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use reqwest::Response;
use reqwest::redirect::Policy;
use secrecy::ExposeSecret;
use tracing::debug;
use url::Url;

use super::events::{BadStream, EventReader, Part};
use super::prompt::{PromptLine, Request, messages};
use crate::agent::failure::{Cause, JobStep, StepFailure};
use crate::config::{AssistantConfig, HttpUrl, VERSION};

/// Maximum size in bytes of a whole stream, whatever it holds.
const MAX_STREAM_BYTES: usize = 1 << 20;

/// The client of the model.
#[derive(Debug)]
pub(super) struct Model {
    client: reqwest::Client,
    endpoint: Url,
    token: Option<HeaderValue>,
    model: String,
    instructions: String,
    answer_tokens: usize,
}

/// An answer that streams in.
#[derive(Debug)]
pub(super) struct AnswerStream {
    response: Response,
    reader: EventReader,
    parts: VecDeque<Part>,
    bytes: usize,
}

impl Model {
    /// Creates the client without connecting; none without a URL.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub(super) fn new(config: &AssistantConfig) -> Result<Option<Self>, reqwest::Error> {
        let (Some(url), Some(model)) = (&config.url.0, &config.model.0) else { return Ok(None) };
        let Ok(endpoint) = Url::parse(&format!("{}/chat/completions", url.as_str().trim_end_matches('/')))
        else {
            return Ok(None);
        };
        // A redirect could leak the token to another host.
        let mut client = reqwest::Client::builder().redirect(Policy::none());
        if HttpUrl::is_loopback(url) {
            // A proxy cannot reach this machine's loopback.
            client = client.no_proxy();
        }
        let token = config.token.as_ref().and_then(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Ok(Some(Self {
            client: client.build()?,
            endpoint,
            token,
            model: model.clone(),
            instructions: config.instructions.clone(),
            answer_tokens: config.answer_tokens,
        }))
    }

    /// Asks the model.
    ///
    /// # Errors
    /// [`StepFailure`] if it does not begin to stream an answer.
    pub(super) async fn ask(&self, lines: &[PromptLine]) -> Result<AnswerStream, StepFailure> {
        let body = Request {
            model: &self.model,
            messages: messages(&self.instructions, lines),
            max_tokens: self.answer_tokens,
            stream: true,
        };
        let mut request = self
            .client
            .post(self.endpoint.clone())
            .header(ACCEPT, "text/event-stream")
            .header(USER_AGENT, format!("satsuma/{VERSION}"))
            .json(&body);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let response = request.send().await.map_err(no_answer)?;
        let status = response.status();
        if !status.is_success() {
            return Err(failed(Cause::Status { status, code: None }));
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(|kind| kind.trim().to_ascii_lowercase().starts_with("text/event-stream")) {
            return Err(failed(Cause::Lacks("event stream")));
        }
        Ok(AnswerStream { response, reader: EventReader::default(), parts: VecDeque::new(), bytes: 0 })
    }
}

impl AnswerStream {
    /// Waits for more text; none at the end. It may be dropped while it waits, and called again.
    ///
    /// # Errors
    /// [`StepFailure`] if the stream breaks off, or exceeds its limits.
    pub(super) async fn next(&mut self) -> Result<Option<String>, StepFailure> {
        loop {
            match self.parts.pop_front() {
                Some(Part::Text(text)) => return Ok(Some(text)),
                Some(Part::End) => return Ok(None),
                None => {}
            }
            let Some(bytes) = self.response.chunk().await.map_err(no_answer)? else {
                return Err(failed(Cause::Unreadable));
            };
            self.bytes += bytes.len();
            if self.bytes > MAX_STREAM_BYTES {
                return Err(failed(Cause::Unreadable));
            }
            let parts = self.reader.read(&bytes).map_err(|bad| match bad {
                BadStream::TooLong | BadStream::Malformed => failed(Cause::Unreadable),
                BadStream::Refused => failed(Cause::Refused { code: None }),
            });
            self.parts.extend(parts?);
        }
    }
}

fn failed(cause: Cause) -> StepFailure {
    StepFailure { step: JobStep::Model, cause }
}

/// Converts an error of the client. Its text may contain the URL, so it is only logged without it.
fn no_answer(error: reqwest::Error) -> StepFailure {
    let cause = if error.is_connect() { "it cannot be reached" } else { "the connection broke off" };
    debug!(event = "assistantFailed", error = %error.without_url());
    failed(Cause::Model(cause))
}
