//! Files for browsers: the stock client, or the built-in client from this binary or a folder.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use axum::response::Response;
use tracing::warn;

use super::app::App;
use super::assets::Assets;
use super::assets::kind::FileKind;
use super::assets::source::FileSource;
use super::error::ApiError;
use super::paths::taken;
use super::{error_page, pages};
use crate::client::loader::ClientSettings;
use crate::client::manifest::{Build, InvalidBuild};
use crate::client::policy::{Policy, protect};
use crate::client::routes::Routes;
use crate::client::visit::{StockClient, way};
use crate::config::Config;
use crate::identity::peer::RemotePeer;

/// Path prefix of the built-in client's files.
const OWN_FILES: &str = "/static/";

/// `Content-Security-Policy` of the built-in pages: scripts and media from this server alone.
pub const OWN_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                          media-src 'self' blob: mediastream:; connect-src 'self' ws: wss:; worker-src 'self'; \
                          manifest-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; \
                          frame-ancestors 'none'";

/// The pages and files for browsers.
#[derive(Debug)]
pub struct Site {
    /// The stock client, if its folder is configured.
    pub stock: Option<StockClient>,
    /// Files of the built-in client.
    pub own: Assets,
    /// Settings that either client receives.
    pub told: ClientSettings,
    /// Routes of Orange, for clients that request their data without a stock build.
    orange: Routes,
}

/// Reasons for having no pages to serve.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSite {
    /// The folder of the stock client holds no usable build.
    #[error(transparent)]
    Client(#[from] InvalidBuild),
    /// The base path collides with one of the server's own addresses.
    #[error(
        "http.base_path: begins with /{0}, which is an address of this server itself, so that a proxy which strips the path would not be understood; choose another path (also in http.public_url)"
    )]
    BasePath(&'static str),
    /// The folder of the built-in client is unusable.
    #[error("http.static_dir: {path} cannot be used: {error}", path = .path.display())]
    StaticDir {
        /// Path of the folder.
        path: PathBuf,
        /// The I/O error.
        error: io::Error,
    },
}

/// A page of the built-in client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnPage {
    /// `/`: asks for a room's name.
    Start,
    /// `/{room}`: the lobby and the room.
    Room,
    /// `/set-username`: the form for a username.
    Name,
    /// The 404 page.
    Nothing,
    /// The page that shows an error.
    Refused,
}

impl OwnPage {
    /// Returns the page's file name.
    pub fn file(self) -> &'static str {
        match self {
            Self::Start => "index.html",
            Self::Room => "room.html",
            Self::Name => "set-username.html",
            Self::Nothing => "404.html",
            Self::Refused => "refused.html",
        }
    }
}

impl Site {
    /// Opens the configured pages and files.
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
        if let Some((name, _)) = taken(base_path.first_segment()) {
            return Err(InvalidSite::BasePath(name));
        }
        let kept_bytes = config.limits.kept_files_bytes;
        let client = &config.client;
        let stock = match client.dir.as_ref() {
            None => None,
            Some(dir) => {
                let build = Build::find(dir)?;
                let source = FileSource::folder(dir)
                    .map_err(|error| InvalidBuild::Unreadable { path: dir.clone(), error })?;
                let policy = Policy::new(client.user_directory_url.as_ref(), &client.policy);
                Some(StockClient { build, files: Assets::new(source, kept_bytes), policy })
            }
        };
        let own = Assets::new(source, kept_bytes).below(base_path);
        Ok(Self { stock, own, told: ClientSettings::new(config), orange: Routes::orange() })
    }

    /// Opens the configured files, and returns only a warning for the operator, if any.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn check(config: &Config) -> Result<Option<String>, InvalidSite> {
        Ok(Self::open(config)?.warning().map(str::to_owned))
    }

    /// Returns the stock build's warning for the operator, if any.
    pub fn warning(&self) -> Option<&str> {
        self.stock.as_ref().and_then(|stock| stock.build.warning.as_deref())
    }

    /// Returns the routes whose data clients may request.
    pub fn routes(&self) -> &Routes {
        self.stock.as_ref().map_or(&self.orange, |stock| &stock.build.routes)
    }

    /// Answers with a built-in page.
    ///
    /// # Errors
    /// Returns [`ApiError`] if the page is missing or unreadable.
    pub async fn own_page(
        app: &App,
        page: OwnPage,
        peer: &RemotePeer,
        headers: &HeaderMap,
    ) -> Result<Response, ApiError> {
        let mut response = file(app, &app.site.own, page.file(), headers).await?;
        let answer = response.headers_mut();
        protect(answer, OWN_POLICY, way(peer));
        // The page depends on the visitor: one without a username is redirected to the form.
        answer.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        Ok(response)
    }
}

/// `GET /static/...`: a file of the built-in client; if there is none, falls back to [`pages::other`].
pub async fn own_file(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<RemotePeer>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    // The path as sent: the router decodes once, and the path must not be decoded again.
    let path = uri.path().strip_prefix(OWN_FILES).unwrap_or_default();
    match file(&app, &app.site.own, path, &headers).await {
        // A room may have the same name as this folder.
        Err(ApiError::NotFound) => pages::other(State(app), Extension(peer), method, uri, headers).await,
        Err(error) => error_page::answer(&app, &peer, &headers, error).await,
        Ok(mut response) => {
            if FileKind::of(path).is_shown() {
                protect(response.headers_mut(), OWN_POLICY, way(&peer));
            }
            response
        }
    }
}

/// Answers with a file.
///
/// # Errors
/// Returns [`ApiError::NotFound`], or [`ApiError::Internal`] for an unreadable file.
pub async fn file(app: &App, files: &Assets, path: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
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
