//! The built-in page: its files, its forms, the data that it asks for, and the pages of errors.

mod code;
pub mod data;
pub mod error_page;
pub mod forms;
pub mod pages;
pub mod paths;
pub mod reserved;
mod sign_in;
pub mod texts;
pub mod token_link;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::Response;
use axum::routing::get;

use self::data::PageSettings;
use self::reserved::reserved;
use crate::auth::peer::RemotePeer;
use crate::config::{Config, WatchConfig};
use crate::http::assets::Assets;
use crate::http::assets::kind::FileKind;
use crate::http::assets::source::FileSource;
use crate::http::context::HttpContext;
use crate::http::error::ApiError;
use crate::http::page_policy::protect;
use crate::media_api::proxy::Proxy;

/// Path prefix of the page's files.
const FILES: &str = "/static/";

/// `Content-Security-Policy` of the pages, without `media-src` and `frame-src`: everything from this server alone.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      connect-src 'self' ws: wss:; worker-src 'self'; \
                      manifest-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";

/// The built-in page's files and settings.
#[derive(Debug)]
pub struct Site {
    files: Assets,
    settings: PageSettings,
    /// The pages' `Content-Security-Policy`.
    policy: String,
    /// True if users can sign in with an account elsewhere.
    sign_in: bool,
}

/// Reasons for having no pages to serve.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSite {
    /// The base path collides with one of the server's own addresses.
    #[error(
        "http.base_path: begins with /{0}, which is an address of this server itself, so that a proxy which strips the path would not be understood; choose another path (also in http.public_url)"
    )]
    BasePath(&'static str),
    /// The folder of the page's files is unusable.
    #[error("http.static_dir: {path} cannot be used: {error}", path = .path.display())]
    StaticDir {
        /// Path of the folder.
        path: PathBuf,
        /// The I/O error.
        error: io::Error,
    },
}

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/`: the form for a room's name.
    Start,
    /// `/{room}`: the lobby and the room.
    Room,
    /// `/set-username`: the form for a username.
    Name,
    /// The 404 page.
    NotFound,
    /// The page that shows an error.
    Error,
}

impl Page {
    /// Returns the page's file name.
    pub fn file(self) -> &'static str {
        match self {
            Self::Start => "index.html",
            Self::Room => "room.html",
            Self::Name => "set-username.html",
            Self::NotFound => "404.html",
            Self::Error => "refused.html",
        }
    }
}

impl Site {
    /// Opens the page's files: those of this binary, or of the configured folder.
    ///
    /// # Errors
    /// Returns [`InvalidSite`], which names the setting at fault.
    pub fn open(config: &Config) -> Result<Self, InvalidSite> {
        let source = match config.http.static_dir.as_ref() {
            None => FileSource::BuiltIn,
            Some(path) => FileSource::folder(path)
                .map_err(|error| InvalidSite::StaticDir { path: path.clone(), error })?,
        };
        let base_path = config.http.base_path();
        if let Some((name, _)) = reserved(base_path.first_segment()) {
            return Err(InvalidSite::BasePath(name));
        }
        let files = Assets::new(source, config.limits.file_cache_bytes).below(base_path);
        let sign_in = config.auth.oidc.0.is_some();
        Ok(Self { files, settings: PageSettings::new(config), policy: policy(&config.watch), sign_in })
    }

    /// Answers with a page.
    ///
    /// # Errors
    /// Returns [`ApiError`] if the page is missing or unreadable.
    async fn page(
        &self,
        http: &HttpContext,
        page: Page,
        peer: &RemotePeer,
        headers: &HeaderMap,
    ) -> Result<Response, ApiError> {
        let mut response = http.file(&self.files, page.file(), headers).await?;
        let answer = response.headers_mut();
        protect(answer, &self.policy, peer);
        // The page depends on the visitor: one without a username is redirected to the form.
        answer.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        Ok(response)
    }

    /// Answers with the file at an address below `/static/`.
    ///
    /// # Errors
    /// Returns [`ApiError::NotFound`], or [`ApiError::Internal`] for an unreadable file.
    pub async fn file(
        &self,
        http: &HttpContext,
        peer: &RemotePeer,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Response, ApiError> {
        // The path as sent: the router decodes once, and the path must not be decoded again.
        let path = uri.path().strip_prefix(FILES).unwrap_or_default();
        let mut response = http.file(&self.files, path, headers).await?;
        if FileKind::of(path).is_shown() {
            protect(response.headers_mut(), &self.policy, peer);
        }
        Ok(response)
    }
}

/// The policy of the pages, which may load what members may share, and nothing else of other servers.
fn policy(watch: &WatchConfig) -> String {
    let media: String = watch.media_sources().into_iter().map(|source| format!(" {source}")).collect();
    let frames = watch.frame_source().map(|source| format!("; frame-src {source}")).unwrap_or_default();
    format!("{POLICY}; media-src 'self' blob: mediastream:{media}{frames}")
}

/// Returns the routes of the built-in page: its pages, forms, files and data.
pub fn router<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<HttpContext>: FromRef<S>,
    Arc<Site>: FromRef<S>,
    Arc<Proxy>: FromRef<S>,
{
    forms::router()
        .merge(texts::router())
        .route("/", get(pages::page).post(forms::open_room))
        .route("/call-quality-feedback", get(pages::page))
        .route("/set-username", get(pages::name_form))
        .route(pages::ROOM, get(pages::page))
        .route("/static/{*path}", get(pages::own_file))
        .route("/site.webmanifest", get(pages::web_manifest))
        .route("/api/user", get(data::user))
        .route("/api/rooms/{room}/settings", get(data::settings))
        .route("/api/rooms/{room}/code.svg", get(code::code))
        .fallback(pages::other)
}
