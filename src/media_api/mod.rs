//! The media API (Cloudflare Calls): its operations as data, the interface to its backends, and the
//! proxy for clients.

pub mod call;
pub mod checking;
pub mod circuit;
pub mod failure;
mod mount;
pub mod nodes;
pub mod passed;
pub mod passing;
mod permission;
pub mod proxy;
pub mod recovery;
pub mod refusals;
pub mod remote;
pub mod serve;
pub mod session_lock;
pub mod turn;
pub mod upstream;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::any;

use self::proxy::Proxy;
use self::serve::MediaApi;
use crate::http::context::HttpContext;
pub use satsuma_sfu::api;

/// Returns the routes of the media API. Its calls have their own body limits and timeouts.
pub fn router<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<HttpContext>: FromRef<S>,
    Arc<Proxy>: FromRef<S>,
    Option<Arc<MediaApi>>: FromRef<S>,
{
    Router::new()
        .route("/api/calls/{*path}", any(proxy::api_calls))
        .route("/partytracks/{*path}", any(proxy::partytracks))
        .route("/v1/apps/{app_id}/sessions/{*path}", any(serve::api))
        .route("/apps/{app_id}/sessions/{*path}", any(serve::api))
}
