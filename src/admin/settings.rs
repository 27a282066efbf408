//! `GET /admin/settings`: the settings in force, each with its source.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::Operators;
use crate::config::ShownSetting;

/// The routes, which require the operator token.
pub(super) fn routes() -> Router<Arc<Operators>> {
    Router::new().route("/admin/settings", get(list))
}

/// All settings.
#[derive(Serialize)]
struct SettingList<'a> {
    /// The settings, in the order of their keys.
    settings: &'a [ShownSetting],
}

async fn list(State(operators): State<Arc<Operators>>) -> Response {
    Json(SettingList { settings: &operators.settings }).into_response()
}
