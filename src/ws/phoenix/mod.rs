//! Rooms over Phoenix Channels: one socket for up to a hundred rooms, each of them a topic `room:{name}`.
//!
//! `upgrade` opens a socket, `longpoll` is the other transport; [`session`] speaks the protocol on any transport, with
//! the rooms of `topic`.

pub mod client;
pub mod feature;
mod joining;
mod longpoll;
pub mod session;
mod topic;
mod upgrade;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::{FromRef, State};
use axum::http::HeaderName;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::json;

use self::feature::FeatureTopics;
use super::Sockets;
use super::keep_alive::KeepAlive;
use super::longpoll::LongPollSessions;
use crate::auth::Identities;
use crate::clock::wall_clock;
use crate::config::PhoenixConfig;
use crate::http::context::HttpContext;
use crate::http::extract::CurrentUser;
use crate::limit::ConcurrencyLimit;

/// The keep-alive of a WebSocket. Clients send a heartbeat every 30 s, so that few are ever pinged; Phoenix closes a
/// silent socket after as long.
pub const KEEP_ALIVE: KeepAlive =
    KeepAlive { ping_after: Duration::from_secs(40), close_after: Duration::from_secs(60) };

/// The endpoint's limits.
#[derive(Debug)]
pub struct PhoenixEndpoint {
    /// Maximum number of topics of one socket.
    topics: usize,
    /// The limits on joined topics of all sockets: those on sockets, since each topic costs a membership.
    memberships: ConcurrencyLimit,
    /// The sessions of long polling.
    longpoll: Arc<LongPollSessions>,
    /// Topics of another feature than rooms, once it is there.
    features: OnceLock<Arc<dyn FeatureTopics>>,
}

impl PhoenixEndpoint {
    /// The endpoint of a server with limits of `connections` sockets in total and `per_network` for each network.
    /// `None` if it is disabled.
    pub fn new(config: &PhoenixConfig, connections: usize, per_network: usize) -> Option<Self> {
        let memberships = ConcurrencyLimit::new(connections, per_network);
        config.enabled.then(|| Self {
            topics: config.topics,
            memberships,
            longpoll: Arc::default(),
            features: OnceLock::new(),
        })
    }

    /// Serves the topics of another feature as well. Only the first one is taken.
    pub fn serve(&self, topics: Arc<dyn FeatureTopics>) {
        let _ = self.features.set(topics);
    }
}

/// Returns the routes of the endpoint at `path`.
pub(super) fn router<S>(path: &str) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<HttpContext>: FromRef<S>,
    Arc<Sockets>: FromRef<S>,
{
    Router::new()
        .route(&format!("{path}/websocket"), get(upgrade::upgrade))
        .route("/api/socket-token", post(socket_token))
}

/// Returns the route of long polling, whose requests have timeouts of their own.
pub(super) fn longpoll_router<S>(path: &str) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<HttpContext>: FromRef<S>,
    Arc<Sockets>: FromRef<S>,
{
    Router::new().route(&format!("{path}/longpoll"), any(longpoll::longpoll))
}

/// `POST /api/socket-token`: a token with which the user can open sockets for a few minutes.
async fn socket_token(
    State(http): State<Arc<HttpContext>>,
    CurrentUser(identity): CurrentUser,
) -> impl IntoResponse {
    let token = http.identities.socket_token(&identity, wall_clock());
    let seconds = Identities::SOCKET_TOKEN_LIFETIME.as_secs();
    (NOT_CACHED, Json(json!({"token": token, "expiresIn": seconds})))
}

/// A token is a secret of its user.
const NOT_CACHED: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];
