//! The time limit of a request.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::error::ApiError;

const TOO_SLOW: ApiError = ApiError::refused(
    StatusCode::REQUEST_TIMEOUT,
    "too_slow",
    "the request took too long: it arrived slowly, or the server is busy",
);

/// Answers 408 with a sentence where request and answer take longer than this together.
///
/// `tower_http::timeout` has no body, and a page shows nothing then.
pub async fn deadline(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => TOO_SLOW.into_response(),
    }
}
