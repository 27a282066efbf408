//! `POST /admin/tokens`: makes access tokens.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;

use super::Operators;
use crate::auth::minting::TokenRequest;
use crate::clock::wall_clock;
use crate::http::error::ApiError;
use crate::http::json::defect;

/// The answer of a server without keys of access tokens.
pub(super) const NO_KEYS: ApiError = ApiError::refused(
    StatusCode::NOT_FOUND,
    "no_token_keys",
    "there is no key in auth.keys, so the server would accept no token",
);

/// The routes, which require the operator token.
pub(super) fn routes() -> Router<Arc<Operators>> {
    Router::new().route("/admin/tokens", post(create))
}

/// Makes a token with the first key of the configuration.
async fn create(State(operators): State<Arc<Operators>>, body: String) -> Result<Response, ApiError> {
    let tokens = operators.http.identities.access_tokens().ok_or(NO_KEYS)?;
    let invalid = |error: String| (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response();
    let request = match serde_json::from_str::<TokenRequest>(&body) {
        Ok(request) => request,
        Err(error) => return Ok(invalid(format!("the body is no request for a token: {}", defect(&error)))),
    };
    Ok(match request.mint(tokens, &operators.address, wall_clock()) {
        Ok(minted) => Json(minted).into_response(),
        Err(defect) => invalid(format!("the token would be refused: {defect}")),
    })
}
