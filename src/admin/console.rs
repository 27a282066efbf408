//! The operators' console: its page and the page's files, which need no token and hold nothing secret.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::map_response;
use axum::response::{Redirect, Response};
use axum::routing::get;
use secrecy::SecretString;

use super::Operators;
use super::login::GUESSES;
use super::sessions::ConsoleSessions;
use crate::config::{Admin, KeyFileError, KeySource};
use crate::http::assets::Assets;
use crate::http::assets::source::FileSource;
use crate::http::error::ApiError;
use crate::limit::KeyedLimit;
use crate::network::ClientNetwork;

/// `Content-Security-Policy` of everything here: scripts, styles and requests of this listener alone, nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// Bytes of files and their compressed forms in memory.
const CACHE_BYTES: usize = 1 << 20;

/// The console's state.
pub struct Console {
    files: Assets,
    /// Sessions of those who signed in.
    pub(super) sessions: ConsoleSessions,
    /// The token of those who may look and change nothing.
    pub(super) viewer_token: Option<SecretString>,
    /// Wrong tokens by network.
    pub(super) guesses: KeyedLimit<ClientNetwork>,
}

impl Console {
    /// A console without sessions.
    ///
    /// # Errors
    /// [`KeyFileError`] if the viewers' token cannot be read.
    pub fn open(config: &Admin) -> Result<Self, KeyFileError> {
        let viewer_token = config
            .viewer_token_file
            .as_ref()
            .map(|path| KeySource::File(path.clone()).read("admin.viewer_token_file", viewer_token_defect));
        Ok(Self {
            files: Assets::new(FileSource::Console, CACHE_BYTES),
            sessions: ConsoleSessions::default(),
            viewer_token: viewer_token.transpose()?,
            guesses: KeyedLimit::rate(GUESSES),
        })
    }
}

/// The error of a token that could be guessed; none for a good one.
fn viewer_token_defect(token: &str) -> Option<&'static str> {
    let is_good = (32..=256).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    (!is_good).then_some("a token has 32 to 256 visible ASCII characters; openssl rand -hex 32 makes one")
}

/// The routes, which need no token.
pub(super) fn routes() -> Router<Arc<Operators>> {
    Router::new()
        .route("/", get(async || Redirect::temporary("/console")))
        .route("/console", get(page))
        .route("/static/{*path}", get(file))
        .layer(map_response(protected))
}

async fn page(State(operators): State<Arc<Operators>>, headers: HeaderMap) -> Result<Response, ApiError> {
    operators.http.file(&operators.console.files, "console.html", &headers).await
}

async fn file(
    State(operators): State<Arc<Operators>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    operators.http.file(&operators.console.files, &path, &headers).await
}

async fn protected(mut response: Response) -> Response {
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), microphone=(), geolocation=(), display-capture=()",
        ),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
