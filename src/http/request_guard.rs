//! The check that every request of the public listener passes first: peer, sizes and origin.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{RANGE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::warn;

use super::app::App;
use super::base_path::OutsideBasePath;
use super::error::ApiError;
use super::error_page;
use super::listener::SocketPeer;
use crate::calls::proxy::refused_at_the_gate;
use crate::client::data;
use crate::identity::peer::{RemotePeer, Scheme};
use crate::metrics::{ByRoute, Metrics};
use crate::ws::upgrade::claimed_id;

/// Determines the peer, refuses foreign pages and overlong URLs, and counts the response.
pub async fn gate(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let start = now();
    let route = request.extensions().get::<MatchedPath>().map(|route| route.as_str().to_owned());
    let mut response = match admit(&app, &mut request) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            Metrics::count(&app.metrics.refusals, error.label());
            if let Some(user) = claimed_id(request.uri()) {
                app.refusals.remember(user, error).await;
            }
            let told = refused_at_the_gate(request.method(), request.uri().path(), error)
                .or_else(|| data::refused(request.uri(), error));
            match (told, request.extensions().get::<RemotePeer>()) {
                (Some(told), _) => told,
                (None, Some(peer)) => error_page::answer(&app, peer, request.headers(), error).await,
                (None, None) => error.into_response(),
            }
        }
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Not "no-referrer": with it browsers send this server's own forms with "Origin: null".
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    let route = ByRoute {
        route: route.unwrap_or_else(|| "unmatched".to_owned()),
        status: response.status().as_u16(),
    };
    app.metrics.http_seconds.get_or_create(&route).observe(start.elapsed().as_secs_f64());
    response
}

fn admit(app: &App, request: &mut Request) -> Result<(), ApiError> {
    if request.uri().path_and_query().is_some_and(|path| path.as_str().len() > app.url_bytes) {
        return Err(ApiError::UrlTooLong);
    }
    // The library limits its buffer instead, which can hold twice as much before it checks.
    let header_bytes: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if header_bytes > app.header_bytes {
        return Err(ApiError::HeadersTooLarge);
    }
    // Ranges do not apply to HEAD (RFC 9110 section 14.2).
    if request.method() == Method::HEAD {
        request.headers_mut().remove(RANGE);
    }
    let SocketPeer { address, scheme } =
        *request.extensions().get::<SocketPeer>().ok_or(ApiError::Internal)?;
    let mut peer = RemotePeer::new(address.ip(), scheme, request.uri(), request.headers(), &app.proxies);
    peer.owner = app.charge.owner(&peer, request.headers());
    // A cookie without `Secure` would leak with the first plain HTTP request that an attacker makes a
    // browser send.
    peer.scheme = app.origins.public_scheme().unwrap_or(peer.scheme);
    peer.base_path = app.base_path.clone();
    request.extensions_mut().insert(peer.clone());
    if request.extensions().get::<OutsideBasePath>().is_some() {
        return Err(ApiError::OutsideBasePath);
    }
    if let Err(refused) = app.origins.check(request.method(), request.headers(), &peer) {
        // Common with a proxy that does not pass on the host, but any client can cause it at any rate.
        if app.warnings.check().is_ok() {
            warn!(
                event = "originRefused",
                origin = refused.origin,
                expected = refused.expected,
                setting = "http.allowed_origins, http.public_url or http.trusted_proxies",
            );
        }
        return Err(if refused.host { ApiError::ForeignOrigin } else { ApiError::UnknownHost });
    }
    // The page's form and socket would be refused: fail at once instead.
    if error_page::wants_page(request.headers()) && peer.host.is_some() && !app.origins.knows_host(&peer) {
        if app.warnings.check().is_ok() {
            let host = peer.host.as_deref().unwrap_or_default();
            warn!(event = "hostUnknown", host, setting = "http.public_url");
        }
        return Err(ApiError::UnknownHost);
    }
    Ok(())
}

/// Returns the scheme as written in a URL.
pub fn scheme_text(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    }
}

#[expect(clippy::disallowed_methods, reason = "an edge measures how long it takes")]
fn now() -> Instant {
    Instant::now()
}
