//! Refusals by the request guard, in the formats of the media API.

use axum::extract::Request;
use axum::http::Method;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::api::{ApiFailure, CallTarget};
use super::failure::error_code;
use super::recovery::{self, RecoverableBody, TracksRequest};
use crate::http::error::ApiError;

/// Middleware that formats a refusal by the request guard for the mount that a request belongs to.
pub async fn refusals(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !path.starts_with("/api/calls/") && !path.starts_with("/partytracks/") {
        return next.run(request).await;
    }
    let (method, path) = (request.method().clone(), path.to_owned());
    let response = next.run(request).await;
    let error = response.extensions().get::<ApiError>().copied();
    error.and_then(|error| refusal(&method, &path, error)).unwrap_or(response)
}

/// Formats an error for the mount that `path` belongs to; `None` for other paths.
fn refusal(method: &Method, path: &str, error: ApiError) -> Option<Response> {
    let status = error.status();
    let failure =
        ApiFailure { error_code: error_code(status).to_owned(), error_description: error.to_string() };
    let (content_type, text) = if path.starts_with("/api/calls/") {
        ("application/json", serde_json::json!(failure).to_string())
    } else {
        let target = CallTarget::parse(method, path.strip_prefix("/partytracks/")?)?;
        let RecoverableBody { content_type, text } =
            recovery::failure(&target, &TracksRequest::Unknown, &failure);
        (content_type, text)
    };
    let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store")];
    Some((status, headers, text).into_response())
}
