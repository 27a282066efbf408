//! What browsers are shown: our own page, from this program or from a folder.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use tracing::warn;

use super::app::App;
use super::assets::Assets;
use super::assets::source::Source;
use super::error::ApiError;
use crate::config::Config;

/// Where the files of our own page are.
const OWN_FILES: &str = "/static/";

/// Our own pages run and show what this server has, and nothing else.
const OWN_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                          media-src 'self' blob: mediastream:; connect-src 'self' ws: wss:; worker-src 'self'; \
                          manifest-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; \
                          frame-ancestors 'none'";

/// What browsers are shown.
#[derive(Debug)]
pub struct Site {
    own: Assets,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSite {
    /// The folder of our own page cannot be used.
    #[error("http.static_dir: {path} cannot be used: {error}", path = .path.display())]
    StaticDir {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// A page of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnPage {
    /// `/`: a name for a room.
    Start,
    /// `/{room}`: the lobby and the room.
    Room,
    /// `/set-username`: the form for a name.
    Name,
}

impl OwnPage {
    fn file(self) -> &'static str {
        match self {
            Self::Start => "index.html",
            Self::Room => "room.html",
            Self::Name => "set-username.html",
        }
    }
}

impl Site {
    /// Finds what is to be shown.
    ///
    /// # Errors
    /// [`InvalidSite`] says which setting leads to nothing.
    pub fn open(config: &Config) -> Result<Self, InvalidSite> {
        let source = match config.http.static_dir.as_ref() {
            None => Source::BuiltIn,
            Some(path) => {
                Source::folder(path).map_err(|error| InvalidSite::StaticDir { path: path.clone(), error })?
            }
        };
        Ok(Self { own: Assets::new(source, config.limits.kept_files_bytes) })
    }

    /// Answers with a page of our own.
    ///
    /// # Errors
    /// [`ApiError`] if it is not there, or cannot be read.
    pub async fn own_page(app: &App, page: OwnPage, headers: &HeaderMap) -> Result<Response, ApiError> {
        let mut response = file(app, &app.site.own, page.file(), headers).await?;
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(OWN_POLICY));
        Ok(response)
    }
}

/// `GET /static/...`: a file of our own page.
pub async fn own_file(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Response {
    // As it was sent: what is decoded once by the router is not to be decoded again.
    let path = uri.path().strip_prefix(OWN_FILES).unwrap_or_default();
    file(&app, &app.site.own, path, &headers).await.into_response()
}

async fn file(app: &App, files: &Assets, path: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    match files.get(path, headers).await {
        Ok(response) => response.ok_or(ApiError::NotFound),
        Err(error) => {
            if app.warnings.check().is_ok() {
                warn!(event = "fileUnreadable", path, %error);
            }
            Err(ApiError::Internal)
        }
    }
}
