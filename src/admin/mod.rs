//! The operators' listener: health, metrics, and the state of the rooms.

mod query;
mod reports;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request as HttpRequest, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use crate::http::error::ApiError;
use crate::http::host::HostNames;
use crate::id::RoomName;
use crate::metrics::Metrics;
use crate::room::mailbox::{MemberStatus, RoomView};
use crate::room::readiness::Readiness;
use crate::room::registry::Registry;
use crate::sfu::handle::SfuHandle;
use crate::store::StoreHealth;
use crate::store::reports::Reports;

/// State of the operators' handlers.
pub struct Operators {
    /// The rooms.
    pub registry: Registry,
    /// Users' reports.
    pub reports: Reports,
    /// The embedded media server, if in use.
    pub sfu: Option<SfuHandle>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The operator token.
    pub token: SecretString,
    /// Allowed `Host` names of this listener.
    pub hosts: HostNames,
    /// Readiness for new clients.
    pub readiness: Readiness,
}

/// Returns all routes of the operators' listener. `/admin/` requires the operator token.
pub fn router(operators: Arc<Operators>) -> Router {
    let guarded = Router::new()
        .route("/admin/rooms", get(rooms))
        .route("/admin/rooms/{room}", get(room))
        .route("/admin/sfu", get(sfu))
        .merge(reports::routes())
        .layer(middleware::from_fn_with_state(operators.clone(), only_operators));
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .merge(guarded)
        .fallback(async || ApiError::NotFound)
        .layer(middleware::from_fn_with_state(operators.clone(), only_known_hosts))
        .with_state(operators)
}

/// Refuses unknown `Host` names, against DNS rebinding by a web page.
async fn only_known_hosts(
    State(operators): State<Arc<Operators>>,
    request: HttpRequest,
    next: Next,
) -> Response {
    if !operators.hosts.admit(request.uri(), request.headers()) {
        return ApiError::UnknownOperatorsHost.into_response();
    }
    next.run(request).await
}

async fn only_operators(
    State(operators): State<Arc<Operators>>,
    request: HttpRequest,
    next: Next,
) -> Response {
    if !bears(request.headers(), &operators.token) {
        return ApiError::NoOperator.into_response();
    }
    let mut response = next.run(request).await;
    response.headers_mut().insert(CACHE_CONTROL, axum::http::HeaderValue::from_static("no-store"));
    response
}

/// True if the request's bearer token (RFC 6750 section 2.1) equals `token`.
pub(crate) fn bears(headers: &HeaderMap, token: &SecretString) -> bool {
    let Some(given) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) else { return false };
    let Some((scheme, given)) = given.split_once(' ') else { return false };
    scheme.eq_ignore_ascii_case("bearer")
        && bool::from(given.trim().as_bytes().ct_eq(token.expose_secret().as_bytes()))
}

/// `GET /readyz`: readiness for new clients. A store that cannot write makes the server unready as well, since
/// rooms would not survive a restart; its rooms continue all the same.
async fn readyz(State(operators): State<Arc<Operators>>) -> Response {
    let state = operators.readiness.state().await;
    let word = match (state.stopping, state.is_ready()) {
        (true, _) => "stopping",
        (false, false) => "failing",
        (false, true) => "ready",
    };
    let status = if state.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let rooms = json!({"status": if state.joins { "ok" } else { "failing" }});
    let store = match state.store {
        StoreHealth::Healthy => json!({"status": "ok"}),
        StoreHealth::Failing { since, message } => {
            json!({"status": "failing", "since": humantime::format_rfc3339_seconds(since).to_string(), "error": message})
        }
    };
    (status, Json(json!({"status": word, "rooms": rooms, "store": store}))).into_response()
}

async fn metrics(State(operators): State<Arc<Operators>>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, OPEN_METRICS)], operators.metrics.render()).into_response()
}

async fn rooms(State(operators): State<Arc<Operators>>) -> Json<Value> {
    let rooms = operators.registry.describe_all().await.into_iter().map(|(room, view)| match view {
        Some(view) => json!({
            "room": room,
            "meetingId": view.meeting,
            "members": view.members.len(),
            "connections": view.members.iter().filter(|member| member.connection.is_some()).count(),
            "queuedBytes": view.members.iter().map(|member| member.queued_bytes).sum::<usize>(),
        }),
        None => json!({"room": room, "error": "the room did not answer"}),
    });
    Json(json!({"rooms": rooms.collect::<Vec<_>>()}))
}

/// `GET /admin/sfu`: the sessions, tracks and subscriptions of the embedded media server.
async fn sfu(State(operators): State<Arc<Operators>>) -> Result<Response, ApiError> {
    let sfu = operators.sfu.as_ref().ok_or(ApiError::NotFound)?;
    let report = sfu.report().await.map_err(|_| ApiError::Internal)?;
    Ok(Json(report).into_response())
}

async fn room(
    State(operators): State<Arc<Operators>>,
    Path(room): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let room = RoomName::parse(&room)?;
    if !operators.registry.is_running(&room) {
        return Err(ApiError::NotFound);
    }
    let RoomView { meeting, members } =
        operators.registry.describe(&room).await.ok_or(ApiError::RoomSilent)?;
    let members: Vec<_> = members.into_iter().map(member).collect();
    Ok(Json(json!({"room": room, "meetingId": meeting, "members": members})))
}

fn member(member: MemberStatus) -> Value {
    let MemberStatus { user, name, connection, heartbeat_age, queued_bytes } = member;
    let connection = connection.map(|(id, age)| json!({"id": id.0, "ageSeconds": seconds(age)}));
    json!({
        "id": user,
        "name": name,
        "connection": connection,
        "lastHeartbeatSecondsAgo": seconds(heartbeat_age),
        "queuedBytes": queued_bytes,
    })
}

/// Converts to seconds, rounded to milliseconds for readability.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_the_complete_token_is_accepted() {
        let token = SecretString::from("right");
        for (value, opens) in [
            ("Bearer right", true),
            ("bearer right", true),
            ("Bearer righ", false),
            ("Bearer right2", false),
            ("Basic right", false),
            ("right", false),
            ("Bearer ", false),
        ] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
            assert_eq!(bears(&headers, &token), opens, "{value}");
        }
        assert!(!bears(&HeaderMap::new(), &token));
    }
}
