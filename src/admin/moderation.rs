//! `POST /admin/rooms/{room}/moderate`: moderation by operators.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;

use super::Operators;
use crate::http::error::ApiError;
use crate::id::RoomName;
use crate::protocol::moderation::ModerationAction;
use crate::room::registry::CannotModerate;
use crate::room::state::Denied;

/// The routes, which require the operator token.
pub(super) fn routes() -> Router<Arc<Operators>> {
    Router::new().route("/admin/rooms/{room}/moderate", post(moderate))
}

/// Carries out an action in a running room.
async fn moderate(
    State(operators): State<Arc<Operators>>,
    Path(room): Path<String>,
    body: String,
) -> Result<Response, ApiError> {
    let room = RoomName::parse(&room)?;
    let refused = |status: StatusCode, error: String| {
        (status, Json(json!({"error": error, "ok": false}))).into_response()
    };
    let action = match serde_json::from_str::<ModerationAction>(&body) {
        Ok(action) => action,
        Err(error) => {
            return Ok(refused(StatusCode::BAD_REQUEST, format!("the body is no action: {error}")));
        }
    };
    match operators.registry.moderate(&room, action).await {
        Ok(()) => Ok(Json(json!({"ok": true})).into_response()),
        Err(CannotModerate::NoRoom) => Err(ApiError::NotFound),
        Err(CannotModerate::Silent) => Err(ApiError::RoomSilent),
        Err(CannotModerate::Denied(denied)) => {
            let status = match denied {
                Denied::TooLong => StatusCode::BAD_REQUEST,
                _ => StatusCode::CONFLICT,
            };
            Ok(refused(status, denied.to_string()))
        }
    }
}
