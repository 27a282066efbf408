//! `POST /api/reportRefresh` and `POST /call-quality-feedback`: events that are only counted.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::form::read_form;
use super::service::{ReportService, failing};
use crate::auth::peer::RemotePeer;
use crate::clock::wall_clock;
use crate::config::VERSION;
use crate::http::error::ApiError;
use crate::http::extract::CurrentUser;
use crate::id::MeetingId;

const REFRESH: &str = "refresh";
const CALL_QUALITY: &str = "call_quality";

/// Timeout of flushing a meeting's row.
const FLUSH: Duration = Duration::from_secs(3);

/// Counts a refresh of a room's page.
pub async fn refresh(
    State(service): State<Arc<ReportService>>,
    peer: RemotePeer,
    CurrentUser(identity): CurrentUser,
) -> Result<StatusCode, ApiError> {
    if !service.count_quota.admits(&identity.id, &peer) {
        service.count(REFRESH, "rate_limited");
        return Ok(StatusCode::CREATED);
    }
    let result = service.reports.refreshed(VERSION, wall_clock()).await.map_err(failing);
    service.count_result(REFRESH, &result);
    result.map(|()| StatusCode::CREATED)
}

/// Counts the answer to "Experience any issues?", and redirects to the home page.
pub async fn call_quality(
    State(service): State<Arc<ReportService>>,
    peer: RemotePeer,
    CurrentUser(identity): CurrentUser,
    request: Request,
) -> Result<Response, ApiError> {
    let what = (CALL_QUALITY, &service.count_quota);
    let store = |request| rate(&service, &peer, request);
    service.submit(what, (&identity.id, &peer), service.http.body_bytes, request, store).await?;
    Ok(home())
}

async fn rate(service: &ReportService, peer: &RemotePeer, request: Request) -> Result<(), ApiError> {
    let fields = ["experiencedIssues", "meetingId"];
    let budget = service.budget(peer, service.http.body_bytes);
    let ([issues, meeting], _upload) = read_form(request, fields, budget).await?;
    let issues = match issues.as_deref() {
        Some("true") => 1,
        Some("false") => 0,
        Some(_) => {
            let rule = "is neither true nor false";
            return Err(ApiError::InvalidField { field: "experiencedIssues", rule });
        }
        None => return Err(ApiError::MissingField("experiencedIssues")),
    };
    let meeting = meeting.ok_or(ApiError::MissingField("meetingId"))?;
    let unknown = ApiError::InvalidField { field: "meetingId", rule: "names no meeting of this server" };
    let meeting = MeetingId::parse(&meeting).map_err(|_| unknown)?;
    let reports = &service.reports;
    if reports.call_rated(VERSION, meeting, issues, wall_clock()).await.map_err(failing)? {
        return Ok(());
    }
    // Rooms are written behind: a new meeting may not have its row yet.
    let flushed = timeout(FLUSH, service.store.flush()).await;
    if reports.call_rated(VERSION, meeting, issues, wall_clock()).await.map_err(failing)? {
        return Ok(());
    }
    if matches!(flushed, Ok(Ok(()))) { Err(unknown) } else { Err(ApiError::StoreFailing) }
}

fn home() -> Response {
    (StatusCode::FOUND, [(LOCATION, HeaderValue::from_static("/"))]).into_response()
}
