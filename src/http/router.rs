//! The public listener's routes.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, StatusCode};
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::{any, get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

use super::app::App;
use super::error::ApiError;
use super::{base_path, pages, paths, request_guard, site};
use crate::calls::{proxy, serve};
use crate::client::data;
use crate::feedback::{bug_report, counted, dead_track, debug_info};
use crate::ws::upgrade;

/// A feature that reserves the first segment of a path, so that no new room gets that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// One of this server's pages, forms or health endpoints.
    Page,
    /// WebSockets and the media API: a room of that name would have no address for its page.
    Calls,
    /// This server's own files and reports; room pages below it have other names.
    Shared,
    /// The admin listener, which a proxy may expose at the same host.
    Operators,
}

/// Reserved room names in lower case: the first segment of every route below and of every admin route. A
/// test checks that none is missing.
#[rustfmt::skip]
pub const TAKEN: [(&str, Use); 14] = [
    ("admin", Use::Operators),
    ("api", Use::Shared),
    ("apps", Use::Shared),
    ("call-quality-feedback", Use::Page),
    ("healthz", Use::Page),
    ("metrics", Use::Operators),
    ("new", Use::Page),
    ("parties", Use::Calls),
    ("partytracks", Use::Calls),
    ("readyz", Use::Page),
    ("set-username", Use::Page),
    ("site.webmanifest", Use::Page),
    ("static", Use::Shared),
    ("v1", Use::Shared),
];

/// All public routes, relative to the root; [`base_path`] mounts them below the configured path.
pub fn router(app: Arc<App>) -> Router {
    // Media API calls have their own body limits and timeouts.
    let calls = Router::new()
        .route("/api/calls/{*path}", any(proxy::api_calls))
        .route("/partytracks/{*path}", any(proxy::partytracks))
        .route("/v1/apps/{app_id}/sessions/{*path}", any(serve::api))
        .route("/apps/{app_id}/sessions/{*path}", any(serve::api));
    let routes = Router::new()
        .route("/", get(pages::home).post(pages::open_room))
        .route("/healthz", get(async || (NOT_KEPT, "ok\n")))
        .route("/readyz", get(readyz))
        .route("/new", get(pages::new_room))
        .route("/set-username", get(pages::name_form).post(pages::set_name))
        .route("/static/{*path}", get(site::own_file))
        .route("/parties/{*path}", get(upgrade::upgrade))
        .route("/api/deadTrack", post(dead_track::post))
        .route("/api/debugInfo", get(debug_info::get))
        .route("/api/reportRefresh", post(counted::refresh))
        .route("/call-quality-feedback", get(pages::home).post(counted::call_quality))
        .route("/{room}", get(pages::room))
        .route("/site.webmanifest", get(pages::web_manifest))
        .fallback(pages::other)
        .layer(DefaultBodyLimit::max(app.body_bytes))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, app.handshake))
        .merge(calls)
        .merge(uploads(&app))
        .layer(middleware::from_fn_with_state(app.clone(), data::data))
        .layer(middleware::from_fn(paths::normalize_path))
        .layer(CatchPanicLayer::custom(|_| ApiError::Internal.into_response()))
        .layer(middleware::from_fn_with_state(app.clone(), request_guard::gate))
        .with_state(app.clone());
    base_path::below(app, routes)
}

/// Headers of the health endpoints: a cached answer would outlive the server.
const NOT_KEPT: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

/// `GET /readyz`: ready or not, without the reason.
async fn readyz(State(app): State<Arc<App>>) -> impl IntoResponse {
    match app.readiness.state().await.is_ready() {
        true => (StatusCode::OK, NOT_KEPT, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, NOT_KEPT, "not ready\n"),
    }
}

/// Routes with long bodies that arrive slowly; they enforce their own limits.
fn uploads(app: &App) -> Router<Arc<App>> {
    let time = app.desk.limits.form_timeout;
    Router::new()
        .route("/api/bugReport", post(bug_report::post))
        .layer(DefaultBodyLimit::disable())
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_all_reserved() {
        let mut found = Vec::new();
        for text in [include_str!("router.rs"), include_str!("../admin/mod.rs")] {
            let routes = text.split("#[cfg(test)]").next().unwrap().split(".route(\"/").skip(1);
            let first = |route: &'static str| route.split(['"', '/']).next().unwrap();
            found.extend(routes.map(first).filter(|name| !name.is_empty() && !name.starts_with('{')));
        }
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, TAKEN.map(|(name, _)| name));
    }
}
