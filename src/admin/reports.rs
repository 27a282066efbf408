//! The operators' view of reports, counts and meetings.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Path, State};
use axum::http::Uri;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Operators;
use super::query::{Filters, Page};
use crate::http::error::ApiError;
use crate::id::ReportId;
use crate::nodes::meetings::MeetingListing;
use crate::reports::service::failing;
use crate::store::reports::{Cursor, DeliveryView, MeetingLine, ReportLine};

/// The routes, which require the operator token.
pub(super) fn routes() -> Router<Arc<Operators>> {
    Router::new()
        .route("/admin/reports", get(reports))
        .route("/admin/reports/{id}", get(report))
        .route("/admin/feedback", get(feedback))
        .route("/admin/meetings", get(meetings))
}

/// A page of reports, newest first.
#[derive(Serialize)]
struct ReportPage {
    /// The `before` of the next page; null if this page is not full.
    next: Option<String>,
    /// The reports of this page.
    reports: Vec<ReportSummary>,
}

/// A report in the list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportSummary {
    /// Bytes that the report takes.
    bytes: i64,
    /// Time of receipt.
    created: String,
    /// Number of history entries that were left out.
    cut_entries: i64,
    /// Delivery of its card; null without a webhook.
    delivery: Option<DeliverySummary>,
    /// The text of the form.
    description: String,
    /// The report's id.
    id: String,
    /// Verified id of the reporter.
    identity: String,
    /// `bug` or `dead_track`.
    kind: String,
    /// Id of the meeting, if it is known.
    meeting_id: Option<String>,
    /// Verified name of the reporter.
    name: String,
    /// The room, if it is known.
    room: Option<String>,
}

/// Delivery of a report's card.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeliverySummary {
    /// Number of attempts.
    attempts: i64,
    /// Error of the last attempt.
    last_error: Option<String>,
    /// Time of the next attempt.
    next_try: Option<String>,
    /// `waiting`, `delivered` or `dead`.
    state: String,
}

/// A complete report.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportDetails {
    #[serde(flatten)]
    summary: ReportSummary,
    /// The reporter's browser.
    user_agent: String,
    /// The page's address.
    url: String,
}

/// A complete report with its history, as unparsed JSON.
#[derive(Serialize)]
struct ReportWithHistory {
    report: ReportDetails,
    history: Box<RawValue>,
}

/// Counts of calls.
#[derive(Serialize)]
struct FeedbackCounts {
    /// The counts of each day and version.
    days: Vec<DayCounts>,
}

/// The counts of a day and a version.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DayCounts {
    /// Calls reported with trouble.
    calls_with_issues: i64,
    /// Calls reported without trouble.
    calls_without_issues: i64,
    /// The day in UTC.
    day: String,
    /// Refreshes of a room's page.
    refreshes: i64,
    /// Version of the server.
    version: String,
}

/// A page of meetings, newest first.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MeetingPage {
    /// The meetings of this page.
    meetings: Vec<MeetingView>,
    /// The `before` of the next page; null if this page is not full.
    next: Option<String>,
    /// The nodes that did not answer in time; absent if all did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    silent_nodes: Vec<String>,
}

/// A meeting.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MeetingView {
    /// Start time.
    created: String,
    /// Its length; null while it runs.
    duration_seconds: Option<f64>,
    /// End time; null while it runs.
    ended: Option<String>,
    /// The meeting's id.
    id: String,
    /// Maximum number of members at a time.
    peak_members: i64,
}

impl From<ReportLine> for ReportSummary {
    fn from(line: ReportLine) -> Self {
        Self {
            bytes: line.bytes,
            created: line.created,
            cut_entries: line.cut_entries,
            delivery: line.delivery.map(DeliverySummary::from),
            description: line.description,
            id: line.id,
            identity: line.identity,
            kind: line.kind,
            meeting_id: line.meeting,
            name: line.name,
            room: line.room,
        }
    }
}

impl From<DeliveryView> for DeliverySummary {
    fn from(delivery: DeliveryView) -> Self {
        let DeliveryView { state, attempts, next_try, last_error } = delivery;
        Self { attempts, last_error, next_try, state }
    }
}

impl From<MeetingLine> for MeetingView {
    fn from(line: MeetingLine) -> Self {
        let MeetingLine { id, created, ended, peak_members } = line;
        let duration = ended.as_deref().and_then(|ended| duration(&created, ended));
        Self { created, duration_seconds: duration.map(super::seconds), ended, id, peak_members }
    }
}

/// `GET /admin/reports`: a page of reports.
async fn reports(State(operators): State<Arc<Operators>>, uri: Uri) -> Result<Json<ReportPage>, ApiError> {
    let Page { filter, before, limit } = Page::read(&uri, Filters::Reports)?;
    let lines = operators.reports.list(&filter, before.as_ref(), limit).await.map_err(failing)?;
    let next = next(&lines, limit, ReportLine::cursor);
    Ok(Json(ReportPage { next, reports: lines.into_iter().map(ReportSummary::from).collect() }))
}

/// `GET /admin/reports/{id}`: a complete report.
async fn report(
    State(operators): State<Arc<Operators>>,
    Path(id): Path<String>,
) -> Result<Json<ReportWithHistory>, ApiError> {
    let id = ReportId::parse(&id)?;
    let found = operators.reports.look_up(id).await.map_err(failing)?.ok_or(ApiError::NotFound)?;
    let history = RawValue::from_string(found.json).map_err(|_| ApiError::Internal)?;
    let report = ReportDetails { summary: found.line.into(), user_agent: found.user_agent, url: found.url };
    Ok(Json(ReportWithHistory { report, history }))
}

/// `GET /admin/feedback`: the counts by version and day.
async fn feedback(State(operators): State<Arc<Operators>>) -> Result<Json<FeedbackCounts>, ApiError> {
    let days = operators.reports.counts().await.map_err(failing)?;
    let days = days.into_iter().map(|counted| DayCounts {
        calls_with_issues: counted.counts.with_issues,
        calls_without_issues: counted.counts.without_issues,
        day: counted.day,
        refreshes: counted.counts.refreshes,
        version: counted.version,
    });
    Ok(Json(FeedbackCounts { days: days.collect() }))
}

/// `GET /admin/meetings`: a page of meetings, of all nodes.
async fn meetings(State(operators): State<Arc<Operators>>, uri: Uri) -> Result<Json<MeetingPage>, ApiError> {
    let Page { before, limit, .. } = Page::read(&uri, Filters::None)?;
    let listed = match &operators.meetings {
        Some(nodes) => nodes.meetings(before, limit).await,
        None => {
            let meetings = operators.reports.meetings(before.as_ref(), limit).await;
            meetings.map(|meetings| MeetingListing { meetings, silent: Vec::new() })
        }
    };
    let MeetingListing { meetings: lines, silent } = listed.map_err(failing)?;
    let next = next(&lines, limit, MeetingLine::cursor);
    let meetings = lines.into_iter().map(MeetingView::from).collect();
    Ok(Json(MeetingPage { meetings, next, silent_nodes: silent }))
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
