//! `GET /readyz` of the operators' listener: readiness for new clients, with its reason.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use serde::Serialize;

use super::Operators;
use crate::room::shared::EngineState;
use crate::store::StoreHealth;

/// Readiness for new clients.
#[derive(Debug, Serialize)]
pub(super) struct ReadinessView {
    /// The way to the engine: `connected`, or `away since` a time; absent if this server is no node of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<String>,
    /// Readiness of the store of durable objects; absent if they are not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    objects: Option<StoreReadiness>,
    /// Readiness of the rooms.
    rooms: RoomsReadiness,
    /// Readiness of the server.
    status: ServerStatus,
    /// Readiness of the store.
    store: StoreReadiness,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum ServerStatus {
    /// New clients are accepted.
    Ready,
    /// Rooms or a store fail.
    Failing,
    /// The server shuts down.
    Stopping,
}

#[derive(Debug, Serialize)]
struct RoomsReadiness {
    /// State of joins.
    status: PartStatus,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum PartStatus {
    Ok,
    Failing,
}

#[derive(Debug, Serialize)]
struct StoreReadiness {
    /// Error of the last write; absent while it succeeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Time of the first failure; absent while writes succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// State of writes.
    status: PartStatus,
}

/// Returns the readiness. A store that cannot write makes the server unready as well, since rooms would not survive a
/// restart; its rooms continue all the same. An engine that is away does so for those alone who ask for it, by `?engine`.
pub(super) async fn readyz(
    State(operators): State<Arc<Operators>>,
    uri: Uri,
) -> (StatusCode, Json<ReadinessView>) {
    let state = operators.readiness.state().await;
    let is_ready = state.is_ready() && (state.reaches_engine() || !asks_for_engine(&uri));
    let code = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let status = match (state.stopping, state.is_ready()) {
        (true, _) => ServerStatus::Stopping,
        (false, false) => ServerStatus::Failing,
        (false, true) => ServerStatus::Ready,
    };
    let rooms = RoomsReadiness { status: if state.joins { PartStatus::Ok } else { PartStatus::Failing } };
    let (store, objects) = (view(state.store), state.objects.map(view));
    (code, Json(ReadinessView { engine: state.engine.map(engine), objects, rooms, status, store }))
}

/// True if an engine that is away is to be told by the status.
pub fn asks_for_engine(uri: &Uri) -> bool {
    let parameters = uri.query().unwrap_or_default().split('&');
    parameters.into_iter().any(|parameter| parameter.split('=').next() == Some("engine"))
}

fn engine(EngineState { is_away, since }: EngineState) -> String {
    if is_away {
        format!("away since {}", humantime::format_rfc3339_seconds(since))
    } else {
        "connected".to_owned()
    }
}

fn view(health: StoreHealth) -> StoreReadiness {
    match health {
        StoreHealth::Healthy => StoreReadiness { error: None, since: None, status: PartStatus::Ok },
        StoreHealth::Failing { since, message } => StoreReadiness {
            error: Some(message),
            since: Some(humantime::format_rfc3339_seconds(since).to_string()),
            status: PartStatus::Failing,
        },
    }
}
