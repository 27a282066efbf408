//! `POST /api/deadTrack`: a client reports a subscribed track without media.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::bug_report::{accepted, user_agent};
use super::card::{self, CardContext, dashboard_link};
use super::form::{NAME_CHARS, name, read_body, required_text, text};
use super::history::keep_newest;
use super::service::ReportService;
use crate::auth::Identity;
use crate::auth::peer::RemotePeer;
use crate::clock::wall_clock;
use crate::config::VERSION;
use crate::http::error::ApiError;
use crate::http::extract::CurrentUser;
use crate::id::ReportId;
use crate::store::reports::{NewReport, ReportKind};

const KIND: &str = "dead_track";

/// Maximum length of a link or an id in characters.
const TEXT_CHARS: usize = 4096;

/// Placeholder for a user whom the client does not name.
const SOMEBODY: &str = "somebody unknown";

/// Accepts the JSON with any content type: the stock client sends none.
pub async fn post(
    State(service): State<Arc<ReportService>>,
    peer: RemotePeer,
    CurrentUser(identity): CurrentUser,
    request: Request,
) -> Result<Response, ApiError> {
    let (what, author) = ((KIND, &service.report_quota), identity.id.clone());
    let store = |request| store(&service, &peer, identity, request);
    service.submit(what, (&author, &peer), service.http.body_bytes, request, store).await?;
    Ok(accepted())
}

/// The report's relevant fields; others are only stored with it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReportFields<'a> {
    #[serde(borrow)]
    pull_session_trace: Option<&'a RawValue>,
    #[serde(borrow)]
    pushed_session_trace: Option<&'a RawValue>,
    #[serde(borrow)]
    track_id: Option<&'a RawValue>,
    #[serde(borrow)]
    pulling_user: Option<&'a RawValue>,
    #[serde(borrow)]
    pushing_user: Option<&'a RawValue>,
    #[serde(borrow)]
    meeting_id: Option<&'a RawValue>,
}

async fn store(
    service: &ReportService,
    peer: &RemotePeer,
    identity: Identity,
    request: Request,
) -> Result<(), ApiError> {
    let (parts, body) = request.into_parts();
    let budget = service.budget(peer, service.http.body_bytes);
    let (body, _upload) = read_body(&parts.headers, body, budget).await?;
    let body: &RawValue = serde_json::from_slice(&body).map_err(|_| ApiError::NotJson)?;
    if !body.get().starts_with('{') {
        return Err(ApiError::NotJson);
    }
    let members: ReportFields<'_> = serde_json::from_str(body.get()).map_err(|_| ApiError::NotJson)?;
    let pull_trace = required_text(members.pull_session_trace, "pullSessionTrace", TEXT_CHARS)?;
    let push_trace = required_text(members.pushed_session_trace, "pushedSessionTrace", TEXT_CHARS)?;
    let track_id = required_text(members.track_id, "trackId", TEXT_CHARS)?;
    let pulling_user = name(members.pulling_user, "pullingUser")?;
    let pushing_user = name(members.pushing_user, "pushingUser")?;
    let meeting = text(members.meeting_id, "meetingId", NAME_CHARS)?.filter(|meeting| !meeting.is_empty());

    let now = wall_clock();
    let address = service.address(peer);
    let host = Url::parse(&address).ok().and_then(|url| url.host_str().map(str::to_owned));
    // The subscriber is the reporter.
    let pulling_user = pulling_user.unwrap_or_else(|| identity.name.to_string());
    let history = keep_newest(body, service.limits.history_bytes);
    let report = NewReport {
        id: ReportId::random(),
        kind: ReportKind::DeadTrack,
        created: now,
        room: None,
        meeting: meeting.clone(),
        identity: identity.id,
        name: identity.name,
        description: track_id.clone(),
        user_agent: user_agent(&parts.headers),
        url: address,
        cut_entries: history.cut_entries,
        json: history.json,
    };
    let card = || {
        let dashboard = service.dashboard.as_ref().zip(meeting.as_deref());
        let dashboard = dashboard.map(|(dashboard, meeting)| dashboard_link(dashboard.as_str(), meeting));
        let origin =
            CardContext { time: now, environment: host.as_deref().unwrap_or_default(), release: VERSION };
        let report = card::DeadTrack {
            pulling_user: &pulling_user,
            pushing_user: pushing_user.as_deref().unwrap_or(SOMEBODY),
            track_id: &track_id,
            pull_trace: &pull_trace,
            push_trace: &push_trace,
            dashboard: dashboard.as_deref(),
        };
        card::dead_track(origin, report)
    };
    service.store(report, card).await
}
