//! The public listener's routes: those of all features, behind the checks of the web kit.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;

use crate::admin::readiness::asks_for_engine;
use crate::durable::api::DurableApi;
use crate::events::api::EventApi;
use crate::http::base_path;
use crate::http::context::HttpContext;
use crate::http::deadline::deadline;
use crate::http::error::ApiError;
use crate::http::guesses::tell_guesses;
use crate::http::request_guard::{guard, observe};
use crate::login::Login;
use crate::media_api::proxy::Proxy;
use crate::media_api::serve::MediaApi;
use crate::orange::Orange;
use crate::reports::service::ReportService;
use crate::room::readiness::Readiness;
use crate::room_api::RoomApi;
use crate::site::Site;
use crate::site::error_page::error_pages;
use crate::site::paths::normalize_path;
use crate::site::token_link::exchange;
use crate::ws::Sockets;
use crate::ws::upgrade::store_refusal;
use crate::{durable, events, login, media_api, orange, reports, room_api, site, ws};

/// The features' states.
#[derive(Clone, FromRef)]
pub(super) struct AppState {
    pub(super) http: Arc<HttpContext>,
    pub(super) readiness: Readiness,
    pub(super) sockets: Arc<Sockets>,
    pub(super) proxy: Arc<Proxy>,
    /// The media API for other servers, if it is on.
    pub(super) media_api: Option<Arc<MediaApi>>,
    pub(super) reports: Arc<ReportService>,
    pub(super) site: Arc<Site>,
    /// The stock client, if its folder is configured; it replaces the pages of `site`.
    pub(super) orange: Option<Arc<Orange>>,
    /// Passwords, settings and moderation of rooms.
    pub(super) rooms: Arc<RoomApi>,
    /// Streams of events, and messages to rooms.
    pub(super) events: Arc<EventApi>,
    /// Durable objects, if a key is configured.
    pub(super) durable: Option<Arc<DurableApi>>,
    /// The login, if one is configured.
    pub(super) login: Option<Arc<Login>>,
}

/// Returns all public routes, relative to the root; [`base_path`] mounts them below the configured path.
/// `phoenix_path` is that of Phoenix Channels, if they are on.
pub(super) fn router(state: AppState, phoenix_path: Option<&str>) -> Router {
    let AppState { http, .. } = &state;
    let pages = match &state.orange {
        Some(orange) => orange::router(orange.clone()),
        None => site::router(),
    };
    // Their links may have access tokens.
    let pages = pages.layer(from_fn_with_state(http.clone(), exchange));
    let routes = pages
        .merge(ws::router(phoenix_path))
        .merge(reports::router())
        .merge(events::api::router())
        .merge(room_api::router())
        .merge(state.login.clone().map_or_else(Router::new, login::router))
        .route("/healthz", get(async || (NOT_CACHED, "ok\n")))
        .route("/readyz", get(readyz))
        .layer(DefaultBodyLimit::max(http.body_bytes))
        .layer(from_fn_with_state(http.request_timeout, deadline))
        .merge(ws::waiting_router(phoenix_path))
        .merge(media_api::router())
        .merge(reports::uploads(&state.reports))
        .merge(room_api::files::router());
    let routes = match &state.durable {
        None => routes,
        Some(durable) => routes.merge(durable::api::router(durable.clone())),
    };
    let routes = match &state.orange {
        None => routes,
        Some(orange) => routes.layer(from_fn_with_state(orange.clone(), orange::data::load_data)),
    };
    // Layers run from the last to the first.
    let routes = routes
        .layer(from_fn(normalize_path))
        .layer(CatchPanicLayer::custom(|_| ApiError::Internal.into_response()))
        .layer(from_fn_with_state(http.clone(), tell_guesses))
        .layer(from_fn_with_state(http.clone(), guard))
        .layer(from_fn(media_api::refusals::refusals))
        .layer(from_fn_with_state(state.sockets.clone(), store_refusal));
    let routes = match &state.durable {
        None => routes,
        Some(durable) => routes.layer(from_fn_with_state(durable.clone(), durable::api::refusals)),
    };
    let routes = routes.layer(from_fn_with_state(state.site.clone(), error_pages));
    let routes = match &state.orange {
        None => routes,
        Some(_) => routes.layer(from_fn(orange::data::convert)),
    };
    let routes = match cross_origin(http) {
        None => routes,
        Some(layer) => routes.layer(layer),
    };
    let routes = routes.layer(from_fn_with_state(http.clone(), observe));
    base_path::below(http.clone(), routes.with_state(state.clone()))
}

/// Lets pages of the allowed origins use the API with access tokens: without cookies, which are this server's own
/// pages'. None without such tokens or origins.
fn cross_origin(http: &HttpContext) -> Option<CorsLayer> {
    const LIFETIME: Duration = Duration::from_secs(10 * 60);
    http.identities.access_tokens()?;
    let origins = http.origins.allowed().filter_map(|origin| HeaderValue::from_str(origin.as_str()).ok());
    let origins: Vec<HeaderValue> = origins.collect();
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE])
        .max_age(LIFETIME);
    (!origins.is_empty()).then(|| layer.allow_origin(origins))
}

/// Headers of the health endpoints: a cached answer would outlive the server.
const NOT_CACHED: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

/// `GET /readyz`: ready or not, without the reason.
async fn readyz(State(readiness): State<Readiness>, uri: Uri) -> impl IntoResponse {
    let state = readiness.state().await;
    match state.is_ready() && (state.reaches_engine() || !asks_for_engine(&uri)) {
        true => (StatusCode::OK, NOT_CACHED, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, NOT_CACHED, "not ready\n"),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, DurableConfig, Flags};
    use crate::site::reserved::RESERVED;

    /// A second route of the same pattern would panic at the start.
    #[test]
    fn durable_path_is_no_other_route() {
        for (name, _) in RESERVED.iter().filter(|(name, _)| *name != "durable") {
            let variable = [("SATSUMA_DURABLE__PATH".into(), format!("/{name}").into())];
            assert!(Config::load(None, variable, &Flags::default()).is_err(), "{name}");
        }
    }

    #[test]
    fn routes_are_all_reserved() {
        let mut found = Vec::new();
        for text in [
            include_str!("router.rs"),
            include_str!("../admin/mod.rs"),
            include_str!("../media_api/mod.rs"),
            include_str!("../reports/mod.rs"),
            include_str!("../events/api.rs"),
            include_str!("../admin/events.rs"),
            include_str!("../admin/webhooks.rs"),
            include_str!("../orange/mod.rs"),
            include_str!("../site/mod.rs"),
            include_str!("../site/forms.rs"),
            include_str!("../ws/mod.rs"),
            include_str!("../ws/phoenix/mod.rs"),
        ] {
            let routes = text.split("#[cfg(test)]").next().unwrap().split(".route(\"/").skip(1);
            let first = |route: &'static str| route.split(['"', '/']).next().unwrap();
            found.extend(routes.map(first).filter(|name| !name.is_empty() && !name.starts_with('{')));
        }
        // Mounted by its setting, of which this is the default.
        found.push(DurableConfig::default().path.leak().trim_start_matches('/'));
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, RESERVED.map(|(name, _)| name));
    }
}
