//! What browsers are shown: the stock client, or our own page from this program or a folder.

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
use super::assets::kind::Kind;
use super::assets::source::Source;
use super::error::ApiError;
use super::paths::taken;
use super::{pages, problem};
use crate::client::loader::Told;
use crate::client::manifest::{Build, InvalidBuild};
use crate::client::policy::{Policy, protect};
use crate::client::routes::Routes;
use crate::client::visit::{StockClient, way};
use crate::config::Config;
use crate::identity::peer::Peer;

/// Where the files of our own page are.
const OWN_FILES: &str = "/static/";

/// Our own pages run and show what this server has, and nothing else.
pub const OWN_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                          media-src 'self' blob: mediastream:; connect-src 'self' ws: wss:; worker-src 'self'; \
                          manifest-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; \
                          frame-ancestors 'none'";

/// What browsers are shown.
#[derive(Debug)]
pub struct Site {
    /// The stock client, where its folder is configured.
    pub stock: Option<StockClient>,
    /// The files of our own page.
    pub own: Assets,
    /// What a client is told of the settings, whichever it is.
    pub told: Told,
    /// The routes of Orange, for who asks for their data without a build.
    orange: Routes,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSite {
    /// The folder of the stock client holds no build that can be served.
    #[error(transparent)]
    Client(#[from] InvalidBuild),
    /// The base path is an address of ours.
    #[error(
        "http.base_path: begins with /{0}, which is an address of this server itself, so that a proxy which strips the path would not be understood; choose another path (also in http.public_url)"
    )]
    BasePath(&'static str),
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
    /// Where nothing is.
    Nothing,
    /// What says why there is no page.
    Refused,
}

impl OwnPage {
    /// Its file.
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
                let source = Source::folder(dir)
                    .map_err(|error| InvalidBuild::Unreadable { path: dir.clone(), error })?;
                let policy = Policy::new(client.user_directory_url.as_ref(), &client.policy);
                Some(StockClient { build, files: Assets::new(source, kept_bytes), policy })
            }
        };
        let own = Assets::new(source, kept_bytes).below(base_path);
        Ok(Self { stock, own, told: Told::new(config), orange: Routes::orange() })
    }

    /// Finds what is to be shown, and says only what an operator should know of it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn check(config: &Config) -> Result<Option<String>, InvalidSite> {
        Ok(Self::open(config)?.warning().map(str::to_owned))
    }

    /// What an operator should know of what was found.
    pub fn warning(&self) -> Option<&str> {
        self.stock.as_ref().and_then(|stock| stock.build.warning.as_deref())
    }

    /// The routes for whose data clients ask.
    pub fn routes(&self) -> &Routes {
        self.stock.as_ref().map_or(&self.orange, |stock| &stock.build.routes)
    }

    /// Answers with a page of our own.
    ///
    /// # Errors
    /// [`ApiError`] if it is not there, or cannot be read.
    pub async fn own_page(
        app: &App,
        page: OwnPage,
        peer: &Peer,
        headers: &HeaderMap,
    ) -> Result<Response, ApiError> {
        let mut response = file(app, &app.site.own, page.file(), headers).await?;
        let answer = response.headers_mut();
        protect(answer, OWN_POLICY, way(peer));
        // It is for whoever has a name; everyone else is led to the form.
        answer.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        Ok(response)
    }
}

/// `GET /static/...`: a file of our own page; where there is none, what else is at the address.
pub async fn own_file(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    // As it was sent: what is decoded once by the router is not to be decoded again.
    let path = uri.path().strip_prefix(OWN_FILES).unwrap_or_default();
    match file(&app, &app.site.own, path, &headers).await {
        // A room may have the name of this folder.
        Err(ApiError::NotFound) => pages::other(State(app), Extension(peer), method, uri, headers).await,
        Err(error) => problem::answer(&app, &peer, &headers, error).await,
        Ok(mut response) => {
            if Kind::of(path).is_shown() {
                protect(response.headers_mut(), OWN_POLICY, way(&peer));
            }
            response
        }
    }
}

/// Answers with a file.
///
/// # Errors
/// [`ApiError::NotFound`], and [`ApiError::Internal`] for a file that is there and cannot be read.
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
