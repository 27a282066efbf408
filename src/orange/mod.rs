//! The unmodified stock Orange client, served from the folder `client.dir`: its build, its documents, and its data.
//!
//! It is a Remix application whose server is Orange itself. Protocol section 10 specifies its server.

pub mod data;
pub mod document;
pub mod loader;
pub mod manifest;
pub mod policy;
pub mod routes;
pub mod visit;

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::get;

use self::loader::ClientSettings;
use self::manifest::{Build, InvalidBuild};
use self::policy::Policy;
use crate::config::Config;
use crate::http::assets::Assets;
use crate::http::assets::source::FileSource;
use crate::http::context::HttpContext;
use crate::media_api::proxy::Proxy;
use crate::site::Site;
use crate::site::forms;
use crate::site::texts;

/// The stock client.
pub struct Orange {
    build: Build,
    files: Assets,
    policy: Policy,
    settings: ClientSettings,
    http: Arc<HttpContext>,
    proxy: Arc<Proxy>,
    site: Arc<Site>,
}

/// The stock client's build in its folder.
#[derive(Debug)]
pub struct OrangeFiles {
    build: Build,
    files: Assets,
}

impl OrangeFiles {
    /// Opens the configured folder; `None` if no folder is configured.
    ///
    /// # Errors
    /// Returns [`InvalidBuild`] if it has no usable build.
    pub fn open(config: &Config) -> Result<Option<Self>, InvalidBuild> {
        let open = |dir: &Path| {
            let build = Build::find(dir)?;
            let source = FileSource::folder(dir)
                .map_err(|error| InvalidBuild::Unreadable { path: dir.to_owned(), error })?;
            Ok(Self { build, files: Assets::new(source, config.limits.file_cache_bytes) })
        };
        config.client.dir.as_ref().map(|dir| open(dir)).transpose()
    }

    /// Returns the build's warning for the operator, if any.
    pub fn warning(&self) -> Option<&str> {
        self.build.warning.as_deref()
    }
}

impl Orange {
    /// Creates the client from its files and the configuration.
    pub fn new(
        OrangeFiles { build, files }: OrangeFiles,
        config: &Config,
        http: Arc<HttpContext>,
        proxy: Arc<Proxy>,
        site: Arc<Site>,
    ) -> Self {
        let policy = Policy::new(config.client.user_directory_url.as_ref(), &config.client.policy);
        Self { build, files, policy, settings: ClientSettings::new(config), http, proxy, site }
    }
}

/// Returns the routes of the client: its pages and files, and the forms that it shares with the built-in page.
pub fn router<S>(orange: Arc<Orange>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<HttpContext>: FromRef<S>,
    Arc<Site>: FromRef<S>,
{
    let pages = Router::new()
        .route("/", get(visit::page).post(visit::open_room))
        .route("/call-quality-feedback", get(visit::page))
        .route("/set-username", get(visit::page))
        .route("/{room}", get(visit::page))
        .route("/static/{*path}", get(visit::own_file))
        .route("/site.webmanifest", get(visit::web_manifest))
        .fallback(visit::page)
        .with_state(orange);
    forms::router().merge(texts::router()).merge(pages)
}
