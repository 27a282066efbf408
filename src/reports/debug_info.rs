//! `GET /api/debugInfo?id=`: a report's JSON, for operators and holders of its signed link.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use url::form_urlencoded;

use super::service::{ReportService, failing, link_opens};
use crate::clock::wall_clock;
use crate::http::bearer::bears;
use crate::http::error::ApiError;
use crate::id::ReportId;

/// Returns the JSON.
///
/// An unauthorized client cannot find out that a report exists.
pub async fn get(
    State(service): State<Arc<ReportService>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let (mut id, mut expires, mut signature) = (None, None, None);
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match &*name {
            "id" => id = id.or(Some(value)),
            "exp" => expires = expires.or(Some(value)),
            "sig" => signature = signature.or(Some(value)),
            _ => {}
        }
    }
    let Some(id) = id else {
        return Ok((StatusCode::BAD_REQUEST, "missing id param").into_response());
    };
    let id = ReportId::parse(&id);
    let by_link = match (id, expires, signature) {
        (Ok(id), Some(expires), Some(signature)) => {
            link_opens(service.http.identities.signing_key(), id, &expires, &signature, wall_clock())
        }
        _ => false,
    };
    if !by_link && !bears(&headers, &service.operator_token) {
        return Err(ApiError::NoOperator);
    }
    let id = id.map_err(|_| ApiError::NotFound)?;
    let json = service.reports.json(id).await.map_err(failing)?.ok_or(ApiError::NotFound)?;
    Ok(([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], json).into_response())
}
