//! Moderation and the settings of rooms, by operators.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;

use super::Operators;
use crate::http::error::ApiError;
use crate::id::RoomName;
use crate::room::state::Moderator;
use crate::room_api::{
    ChangeBody, SettingsView, moderated, password_refused, read_action, refused, set_lasting,
};

/// The routes, which require the operator token.
pub(super) fn routes() -> Router<Arc<Operators>> {
    Router::new()
        .route("/admin/rooms/{room}/moderate", post(moderate))
        .route("/admin/rooms/{room}/settings", get(settings).put(change))
        .route("/admin/room-settings", get(lasting))
}

/// Carries out an action in a running room.
async fn moderate(
    State(operators): State<Arc<Operators>>,
    Path(room): Path<String>,
    body: String,
) -> Result<Response, ApiError> {
    let room = RoomName::parse(&room)?;
    match read_action(&body) {
        Ok(action) => moderated(operators.registry.moderate(&room, Moderator::Operator, action).await),
        Err(answer) => Ok(answer),
    }
}

/// All rooms with settings of their own.
#[derive(Debug, Serialize)]
struct LastingSettings {
    /// The rooms, sorted by name.
    rooms: Vec<RoomSettings>,
}

/// A room with settings of its own.
#[derive(Debug, Serialize)]
struct RoomSettings {
    /// The room's name.
    room: RoomName,
    /// The settings with which its meetings begin.
    settings: SettingsView,
}

/// The settings with which meetings begin, of all rooms that have some.
async fn lasting(State(operators): State<Arc<Operators>>) -> Json<LastingSettings> {
    let rooms = operators.registry.lasting_rules();
    let rooms = rooms.into_iter().map(|(room, rules)| RoomSettings { room, settings: rules.into() });
    Json(LastingSettings { rooms: rooms.collect() })
}

/// The settings of a room: those of its meeting, or those with which one would begin.
async fn settings(
    State(operators): State<Arc<Operators>>,
    Path(room): Path<String>,
) -> Result<Json<SettingsView>, ApiError> {
    let room = RoomName::parse(&room)?;
    Ok(Json(operators.registry.rules(&room).await.into()))
}

/// Changes the settings of a room by its name; those that are not named stay.
async fn change(
    State(operators): State<Arc<Operators>>,
    Path(room): Path<String>,
    body: String,
) -> Result<Response, ApiError> {
    let room = RoomName::parse(&room)?;
    let asked = match ChangeBody::read(&body) {
        Ok(asked) => asked,
        Err(error) => return Ok(refused(StatusCode::BAD_REQUEST, &error)),
    };
    match asked.hashed(&operators.registry).await {
        Ok(change) => set_lasting(&operators.registry, &room, change).await,
        Err(error) => Ok(password_refused(error)),
    }
}
