//! The answer to tokens from a network that guesses signatures.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::warn;

use super::context::HttpContext;
use super::error::{ApiError, Refusal};
use crate::auth::peer::RemotePeer;
use crate::metrics::Metrics;

const TOO_MANY_GUESSES: ApiError = ApiError::Refused(Refusal {
    status: StatusCode::TOO_MANY_REQUESTS,
    label: "too_many_guesses",
    message: "too many forged tokens came from your network; try again in a minute",
    network_limit: Some(SETTING),
});

const SETTING: &str = "limits.token_guesses_per_minute_per_network";

/// Middleware that tells apart a refused token, and one that was not looked at because its network guesses: the
/// latter may be good, and its client is to try again.
pub async fn tell_guesses(State(http): State<Arc<HttpContext>>, request: Request, next: Next) -> Response {
    let network = request.extensions().get::<RemotePeer>().and_then(RemotePeer::network);
    let network = network.filter(|network| http.identities.guesses().is_exhausted(Some(*network)));
    let Some(network) = network.filter(|_| may_have_token(&request)) else {
        return next.run(request).await;
    };
    let response = next.run(request).await;
    if response.status() != StatusCode::UNAUTHORIZED {
        return response;
    }
    Metrics::count(&http.metrics.refusals, TOO_MANY_GUESSES.label());
    if http.warnings.check().is_ok() {
        warn!(event = "networkLimitReached", %network, setting = SETTING);
    }
    TOO_MANY_GUESSES.into_response()
}

/// True if the request has something where tokens are.
fn may_have_token(request: &Request) -> bool {
    let headers = request.headers();
    [AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, COOKIE].iter().any(|name| headers.contains_key(name))
        || request.uri().query().is_some_and(|query| query.contains("oken="))
}
