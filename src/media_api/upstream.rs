//! The interface to the media API's backend, used by proxy, AI and TURN.

use std::sync::Arc;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use tokio::time::timeout_at;

use super::call::{Answer, Call, UpstreamError};
use super::remote::Remote;
use crate::clock::now;
use crate::config::{Calls, TurnConfig};
use crate::metrics::{ByCall, Metrics};
use satsuma_sfu::SfuHandle;
use satsuma_sfu::api::ApiRequest;

/// The backend of the media API.
#[derive(Debug)]
pub struct Upstream {
    /// The remote API; also of the TURN service, which is used with either backend.
    remote: Remote,
    /// The embedded media server, if in use.
    embedded: Option<SfuHandle>,
    timeout: std::time::Duration,
    metrics: Arc<Metrics>,
}

impl Upstream {
    /// Creates a client for bodies of at most `body_bytes`, without connecting.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub fn new(
        calls: &Calls,
        turn: &TurnConfig,
        body_bytes: usize,
        embedded: Option<SfuHandle>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, reqwest::Error> {
        let remote = Remote::new(calls, turn, body_bytes)?;
        Ok(Self { remote, embedded, timeout: calls.timeout, metrics })
    }

    /// Returns an error naming the missing settings, if calls cannot be made.
    pub fn missing(&self) -> Option<&'static str> {
        if self.embedded.is_some() { None } else { self.remote.missing() }
    }

    /// The embedded media server, if in use.
    pub fn embedded(&self) -> Option<&SfuHandle> {
        self.embedded.as_ref()
    }

    /// True if a TURN service is configured.
    pub fn has_turn(&self) -> bool {
        self.remote.has_turn()
    }

    /// Makes a call, and returns once the headers of its answer arrived.
    ///
    /// A call that was provably not sent is retried once; no other is.
    ///
    /// # Errors
    /// [`UpstreamError`]; an answer of any status except a redirect is not an error.
    pub async fn call(&self, call: Call) -> Result<Answer, UpstreamError> {
        let operation = call.target.label();
        match &self.embedded {
            Some(sfu) => self.timed(operation, self.call_embedded(sfu, call)).await,
            None => self.timed(operation, self.remote.call(call)).await,
        }
    }

    /// Requests new TURN credentials; the service's answer is returned unparsed.
    ///
    /// # Errors
    /// As [`Self::call`]; [`UpstreamError::NotConfigured`] where [`Self::has_turn`] is false.
    pub async fn turn_credentials(&self) -> Result<Answer, UpstreamError> {
        self.timed("turn_credentials", self.remote.turn_credentials()).await
    }

    async fn call_embedded(&self, sfu: &SfuHandle, call: Call) -> Result<Answer, UpstreamError> {
        let Call { target, caller, network, query, body } = call;
        let deadline = now() + self.timeout;
        let asked = ApiRequest { target, query, body, caller, network };
        let (status, text) =
            timeout_at(deadline, sfu.serve(asked)).await.map_err(|_| UpstreamError::TimedOut)?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        Ok(Answer { status, headers, body: text.into() })
    }

    async fn timed(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<Answer, UpstreamError>>,
    ) -> Result<Answer, UpstreamError> {
        let start = now();
        let result = call.await;
        let status = match &result {
            Ok(answer) => answer.status.as_str().to_owned(),
            Err(error) => error.label().to_owned(),
        };
        let labels = ByCall { operation, status };
        self.metrics.call_seconds.get_or_create(&labels).observe(start.elapsed().as_secs_f64());
        result
    }
}
