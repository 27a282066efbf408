//! Calls that other nodes pass on to this one, which has their sessions.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use http_body_util::BodyExt;
use tokio::sync::Semaphore;

use super::call::{Answer, UpstreamError};
use super::checking::CheckedCalls;
use super::failure::CallFailure;
use super::passing::{PassedAnswer, PassedCall};
use crate::metrics::Metrics;

/// Calls of other nodes that are made at a time. Each node limits those of its clients already.
const MAX_CALLS: usize = 1024;

/// The calls of other nodes.
#[derive(Debug)]
pub struct PassedCalls {
    calls: Arc<CheckedCalls>,
    permits: Semaphore,
    body_bytes: usize,
    message_bytes: usize,
    metrics: Arc<Metrics>,
}

impl PassedCalls {
    /// Calls with bodies of at most `body_bytes`, whose answers are messages of at most `message_bytes`.
    pub fn new(
        calls: Arc<CheckedCalls>,
        body_bytes: usize,
        message_bytes: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { calls, permits: Semaphore::new(MAX_CALLS), body_bytes, message_bytes, metrics }
    }

    /// The calls that they become.
    pub fn calls(&self) -> &CheckedCalls {
        &self.calls
    }

    /// Makes a call, and returns its answer.
    pub async fn answer(&self, call: &[u8]) -> Vec<u8> {
        let answered = self.answered(call).await;
        let answer = answered.unwrap_or_else(|failure| self.failed(failure)).encode();
        if answer.len() > self.message_bytes {
            return self.failed(UpstreamError::BadAnswer.into()).encode();
        }
        answer
    }

    async fn answered(&self, call: &[u8]) -> Result<PassedAnswer, CallFailure> {
        let _permit = self.permits.try_acquire().map_err(|_| UpstreamError::RequestsBusy)?;
        let passed = PassedCall::decode(call, self.body_bytes);
        let PassedCall { call, rights } = passed.map_err(|_| CallFailure::NotFound)?;
        let Answer { status, headers, body } = self.calls.call_here(call, rights).await?;
        let body = body.collect().await.map_err(|_| UpstreamError::BadAnswer)?.to_bytes();
        let retry_after = headers.get(RETRY_AFTER).and_then(|seconds| seconds.to_str().ok()?.parse().ok());
        Ok(PassedAnswer { status, retry_after, body })
    }

    fn failed(&self, failure: CallFailure) -> PassedAnswer {
        Metrics::count(&self.metrics.refusals, failure.label());
        let body = Bytes::from(serde_json::json!(failure.to_api()).to_string());
        let status: StatusCode = failure.status();
        PassedAnswer { status, retry_after: failure.retry_after(), body }
    }
}
