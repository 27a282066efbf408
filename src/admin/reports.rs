//! The operators' view of reports, counts and meetings.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Path, State};
use axum::http::Uri;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Operators;
use super::query::{Filters, Page};
use crate::feedback::service::failing;
use crate::http::error::ApiError;
use crate::id::ReportId;
use crate::store::reports::{Cursor, DeliveryView, MeetingLine, ReportLine};

/// The routes, which require the operator token.
pub(super) fn routes() -> Router<Arc<Operators>> {
    Router::new()
        .route("/admin/reports", get(reports))
        .route("/admin/reports/{id}", get(report))
        .route("/admin/feedback", get(feedback))
        .route("/admin/meetings", get(meetings))
}

/// `GET /admin/reports`: a page of reports, newest first; `next` is the `before` of the next page.
async fn reports(State(operators): State<Arc<Operators>>, uri: Uri) -> Result<Json<Value>, ApiError> {
    let Page { filter, before, limit } = Page::read(&uri, Filters::Reports)?;
    let lines = operators.reports.list(&filter, before.as_ref(), limit).await.map_err(failing)?;
    let next = next(&lines, limit, ReportLine::cursor);
    let lines: Vec<_> = lines.into_iter().map(line).collect();
    Ok(Json(json!({"reports": lines, "next": next})))
}

/// A complete report: the fields of lists, and the rest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole {
    #[serde(flatten)]
    line: Value,
    user_agent: String,
    url: String,
}

/// A complete report with its history, as unparsed JSON.
#[derive(Serialize)]
struct WithHistory {
    report: Whole,
    history: Box<RawValue>,
}

/// `GET /admin/reports/{id}`: a complete report.
async fn report(
    State(operators): State<Arc<Operators>>,
    Path(id): Path<String>,
) -> Result<Json<WithHistory>, ApiError> {
    let id = ReportId::parse(&id)?;
    let found = operators.reports.look_up(id).await.map_err(failing)?.ok_or(ApiError::NotFound)?;
    let history = RawValue::from_string(found.json).map_err(|_| ApiError::Internal)?;
    let report = Whole { line: line(found.line), user_agent: found.user_agent, url: found.url };
    Ok(Json(WithHistory { report, history }))
}

fn line(line: ReportLine) -> Value {
    let delivery = line.delivery.map(|DeliveryView { state, attempts, next_try, last_error }| {
        json!({"state": state, "attempts": attempts, "nextTry": next_try, "lastError": last_error})
    });
    json!({
        "id": line.id,
        "kind": line.kind,
        "created": line.created,
        "room": line.room,
        "meetingId": line.meeting,
        "identity": line.identity,
        "name": line.name,
        "description": line.description,
        "cutEntries": line.cut_entries,
        "bytes": line.bytes,
        "delivery": delivery,
    })
}

/// `GET /admin/feedback`: the counts by version and day.
async fn feedback(State(operators): State<Arc<Operators>>) -> Result<Json<Value>, ApiError> {
    let days = operators.reports.counts().await.map_err(failing)?;
    let days: Vec<_> = days
        .into_iter()
        .map(|counted| {
            json!({
                "day": counted.day,
                "version": counted.version,
                "refreshes": counted.counts.refreshes,
                "callsWithIssues": counted.counts.with_issues,
                "callsWithoutIssues": counted.counts.without_issues,
            })
        })
        .collect();
    Ok(Json(json!({"days": days})))
}

/// `GET /admin/meetings`: a page of meetings, newest first.
async fn meetings(State(operators): State<Arc<Operators>>, uri: Uri) -> Result<Json<Value>, ApiError> {
    let Page { before, limit, .. } = Page::read(&uri, Filters::None)?;
    let lines = operators.reports.meetings(before.as_ref(), limit).await.map_err(failing)?;
    let next = next(&lines, limit, MeetingLine::cursor);
    let lines: Vec<_> = lines.into_iter().map(meeting).collect();
    Ok(Json(json!({"meetings": lines, "next": next})))
}

fn meeting(line: MeetingLine) -> Value {
    let MeetingLine { id, created, ended, peak_members } = line;
    let duration = ended.as_deref().and_then(|ended| duration(&created, ended));
    json!({
        "id": id,
        "created": created,
        "ended": ended,
        "peakMembers": peak_members,
        "durationSeconds": duration.map(super::seconds),
    })
}

/// Returns the duration between two times in the store's format.
fn duration(from: &str, to: &str) -> Option<Duration> {
    let time = |text| -> Option<SystemTime> { humantime::parse_rfc3339(text).ok() };
    // A clock that was set back in between gives a duration of zero.
    Some(time(to)?.duration_since(time(from)?).unwrap_or_default())
}

/// Returns the cursor of the next page, if this one is full.
fn next<T>(lines: &[T], limit: u32, cursor: fn(&T) -> Cursor) -> Option<String> {
    let last = lines.last()?;
    (lines.len() >= limit as usize).then(|| cursor(last).to_string())
}
