//! The operators' listener: health, metrics, and the state of the server. `docs/openapi.json` describes its answers.
//!
//! Views list their fields in alphabetical order, which is their order on the wire.

mod access;
mod cluster;
mod console;
mod events;
mod login;
mod moderation;
mod objects;
mod query;
pub mod readiness;
mod reports;
pub mod revocations;
mod rooms;
mod sessions;
mod settings;
mod tokens;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request as HttpRequest, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
pub use console::Console;
use secrecy::SecretString;

use crate::auth::peer::RemotePeer;
use crate::config::ShownSetting;
use crate::durable::registry::ObjectRegistry;
use crate::events::api::EventApi;
use crate::events::webhooks::Webhooks;
use crate::http::context::HttpContext;
use crate::http::error::ApiError;
use crate::http::host::HostNames;
use crate::http::listener::SocketPeer;
use crate::metrics::Metrics;
use crate::nodes::meetings::MeetingLists;
use crate::nodes::status::ClusterView;
use crate::room::readiness::Readiness;
use crate::room::registry::Registry;
use crate::room::shared_settings::SharedSettings;
use crate::store::reports::Reports;
use crate::store::revocations::StoredRevocations;
use satsuma_sfu::SfuHandle;

/// State of the operators' handlers.
pub struct Operators {
    /// The rooms.
    pub registry: Registry,
    /// Users' reports.
    pub reports: Reports,
    /// The embedded media server, if in use.
    pub sfu: Option<SfuHandle>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The operator token.
    pub token: SecretString,
    /// Allowed `Host` names of this listener.
    pub hosts: HostNames,
    /// Readiness for new clients.
    pub readiness: Readiness,
    /// Durable objects, if a key is configured.
    pub objects: Option<ObjectRegistry>,
    /// The public listener's state.
    pub http: Arc<HttpContext>,
    /// The address of the public listener, without a slash at its end.
    pub address: String,
    /// Destinations of events.
    pub webhooks: Webhooks,
    /// Streams of events, and messages to rooms.
    pub events: Arc<EventApi>,
    /// Revocations of access tokens.
    pub revocations: StoredRevocations,
    /// The console.
    pub console: Console,
    /// The settings in force.
    pub settings: Vec<ShownSetting>,
    /// The cluster, if this server is one of its nodes.
    pub cluster: Option<Arc<dyn ClusterView>>,
    /// The meetings of all nodes, if there are several.
    pub meetings: Option<Arc<dyn MeetingLists>>,
    /// The settings that all nodes share, if there are several.
    pub shared_settings: Option<Arc<dyn SharedSettings>>,
}

impl Operators {
    /// The client of a request of this listener.
    fn peer(&self, socket: &SocketPeer, uri: &Uri, headers: &HeaderMap) -> RemotePeer {
        RemotePeer::new(socket.address.ip(), socket.scheme, uri, headers, &self.http.proxies)
    }
}

/// Returns all routes of the operators' listener. `/admin/` requires the operator token, or a session of the console.
pub fn router(operators: Arc<Operators>) -> Router {
    let guarded = Router::new()
        .route("/admin/rooms", get(rooms::list))
        .route("/admin/rooms/{room}", get(rooms::one))
        .route("/admin/sfu", get(sfu))
        .merge(reports::routes())
        .merge(objects::routes())
        .merge(tokens::routes())
        .merge(revocations::routes())
        .merge(moderation::routes())
        .merge(webhooks::routes())
        .merge(events::routes())
        .merge(login::routes())
        .merge(settings::routes())
        .merge(cluster::routes())
        .layer(middleware::from_fn_with_state(operators.clone(), access::only_operators));
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readiness::readyz))
        .route("/metrics", get(metrics))
        .merge(guarded)
        .merge(login::open_routes())
        .merge(console::routes())
        .fallback(async || ApiError::NotFound)
        .layer(middleware::from_fn_with_state(operators.clone(), only_known_hosts))
        .with_state(operators)
}

/// Refuses unknown `Host` names, against DNS rebinding by a web page.
async fn only_known_hosts(
    State(operators): State<Arc<Operators>>,
    request: HttpRequest,
    next: Next,
) -> Response {
    if !operators.hosts.admit(request.uri(), request.headers()) {
        return ApiError::UnknownOperatorsHost.into_response();
    }
    next.run(request).await
}

/// `GET /metrics`: the metrics as OpenMetrics text.
async fn metrics(State(operators): State<Arc<Operators>>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, OPEN_METRICS)], operators.metrics.render()).into_response()
}

/// `GET /admin/sfu`: the sessions, tracks and subscriptions of the embedded media server.
async fn sfu(State(operators): State<Arc<Operators>>) -> Result<Response, ApiError> {
    let sfu = operators.sfu.as_ref().ok_or(ApiError::NotFound)?;
    let report = sfu.report().await.map_err(|_| ApiError::Internal)?;
    Ok(Json(report).into_response())
}

/// Converts to seconds, rounded to milliseconds for readability.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
