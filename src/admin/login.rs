//! `/admin/session`: signing in to the console and out of it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::header::{CACHE_CONTROL, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use axum::{Json, Router};
use bytes::Bytes;
use cookie::SameSite;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::Operators;
use super::access::{Access, COOKIE_NAME, access, is_own_page};
use super::sessions::{LIFETIME, Role};
use crate::auth::peer::Scheme;
use crate::auth::set_cookie::set_cookie;
use crate::clock::now;
use crate::config::VERSION;
use crate::http::bearer::is_equal;
use crate::http::error::ApiError;
use crate::http::listener::SocketPeer;
use crate::limit::Rate;
use crate::network::client_network;

/// Wrong tokens a minute from one network.
pub(super) const GUESSES: Rate = Rate::per_minute(10);

/// Maximum bytes of the body.
const MAX_BYTES: usize = 4096;

/// The path of the API, and so of the cookie: other pages of this host do not need it.
const PATH: &str = "/admin";

const FOREIGN: ApiError = ApiError::refused(
    StatusCode::FORBIDDEN,
    "foreign_console",
    "only the console's own page may sign in; programs send the operator token with each request",
);

const WRONG: ApiError =
    ApiError::refused(StatusCode::UNAUTHORIZED, "wrong_operator_token", "this is not the operator token");

const GUESSING: ApiError = ApiError::refused(
    StatusCode::TOO_MANY_REQUESTS,
    "operator_guesses",
    "too many wrong tokens came from this network; try again in a minute",
);

const NO_LOGIN: ApiError = ApiError::refused(
    StatusCode::BAD_REQUEST,
    "no_login",
    "the body is to be a JSON object with the text \"token\" alone, of up to 4096 bytes",
);

/// A session, as the console shows it.
#[derive(Serialize)]
struct SessionView {
    /// `operator` or `viewer`; null for nobody.
    role: Option<Role>,
    /// The server's version; null for nobody.
    version: Option<&'static str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    token: String,
}

/// The routes that need no session.
pub(super) fn open_routes() -> Router<Arc<Operators>> {
    let login = post(login).layer(DefaultBodyLimit::max(MAX_BYTES));
    Router::new().route("/admin/session", login.get(show))
}

/// The route that needs one.
pub(super) fn routes() -> Router<Arc<Operators>> {
    Router::new().route("/admin/session", delete(logout))
}

/// Signs in by the operator token, or by the viewers'.
async fn login(
    State(operators): State<Arc<Operators>>,
    Extension(socket): Extension<SocketPeer>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    if !is_own_page(&Method::POST, &headers) {
        return Err(FOREIGN);
    }
    let peer = operators.peer(&socket, &uri, &headers);
    let (console, network) = (&operators.console, client_network(peer.address));
    // Before the token is looked at: a right one after too many wrong ones would tell a guesser.
    console.guesses.check(&network).map_err(|_| GUESSING)?;
    let body = body.map_err(|_| NO_LOGIN)?;
    let Login { token } = serde_json::from_slice(&body).map_err(|_| NO_LOGIN)?;
    let given = token.trim();
    let is_viewer = console.viewer_token.as_ref().map(|viewer| is_equal(given, viewer));
    let role = match (is_equal(given, &operators.token), is_viewer) {
        (true, _) => Role::Operator,
        (false, Some(true)) => Role::Viewer,
        _ => {
            if operators.http.warnings.check().is_ok() {
                warn!(event = "consoleLoginRefused", address = %peer.address);
            }
            return Err(WRONG);
        }
    };
    console.guesses.refund(&network);
    let session = console.sessions.open(role, now()).map_err(|_| ApiError::Internal)?;
    info!(event = "consoleLogin", ?role, address = %peer.address);
    // The scheme as the browser sees it: a proxy in front may end TLS.
    let is_secure = headers.get("origin").is_some_and(|origin| origin.as_bytes().starts_with(b"https:"));
    let scheme = if is_secure { Scheme::Https } else { Scheme::Http };
    let cookie = session_cookie(session.expose_secret(), LIFETIME, scheme);
    let headers = [(SET_COOKIE, cookie), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((headers, Json(SessionView { role: Some(role), version: Some(VERSION) })).into_response())
}

/// Shows the role. Nobody is no error: the console asks when it opens, and browsers report errors.
async fn show(
    State(operators): State<Arc<Operators>>,
    Extension(socket): Extension<SocketPeer>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let network = client_network(operators.peer(&socket, &uri, &headers).address);
    let access = access(&operators, Some(network), &Method::GET, uri.path(), &headers).await;
    let role = access.ok().map(|access| access.role);
    let headers = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (headers, Json(SessionView { role, version: role.map(|_| VERSION) })).into_response()
}

/// Ends the session.
async fn logout(
    State(operators): State<Arc<Operators>>,
    Extension(access): Extension<Access>,
) -> Result<Response, ApiError> {
    if let Some(session) = access.session {
        operators.console.sessions.close(&session);
        info!(event = "consoleLogout", role = ?access.role);
    }
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, session_cookie("", Duration::ZERO, Scheme::Http))])
        .into_response())
}

fn session_cookie(value: &str, lifetime: Duration, scheme: Scheme) -> HeaderValue {
    set_cookie(COOKIE_NAME, value, PATH.to_owned(), SameSite::Strict, lifetime, scheme)
}
