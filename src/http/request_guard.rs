//! The checks that every request of the public listener passes first: peer, sizes and origin.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{ACCEPT, RANGE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::warn;

use super::base_path::OutsideBasePath;
use super::context::HttpContext;
use super::error::ApiError;
use super::listener::SocketPeer;
use crate::auth::peer::RemotePeer;
use crate::clock::now;
use crate::metrics::{ByRoute, Metrics};

/// Outermost middleware: determines the peer, and measures the response.
pub async fn observe(State(http): State<Arc<HttpContext>>, mut request: Request, next: Next) -> Response {
    let start = now();
    let route = request.extensions().get::<MatchedPath>().map(|route| route.as_str().to_owned());
    if let Some(&SocketPeer { address, scheme }) = request.extensions().get::<SocketPeer>() {
        let mut peer = RemotePeer::new(address.ip(), scheme, request.uri(), request.headers(), &http.proxies);
        peer.owner = http.charge.owner(&peer, request.headers());
        // A cookie without `Secure` would leak with the first plain HTTP request that an attacker makes a
        // browser send.
        peer.scheme = http.origins.public_scheme().unwrap_or(peer.scheme);
        peer.base_path = http.base_path.clone();
        request.extensions_mut().insert(peer);
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Not "no-referrer": with it browsers send this server's own forms with "Origin: null".
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    let route = ByRoute {
        route: route.unwrap_or_else(|| "unmatched".to_owned()),
        status: response.status().as_u16(),
    };
    http.metrics.http_seconds.get_or_create(&route).observe(start.elapsed().as_secs_f64());
    response
}

/// Middleware that refuses foreign pages and overlong requests.
pub async fn guard(State(http): State<Arc<HttpContext>>, mut request: Request, next: Next) -> Response {
    match admit(&http, &mut request) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            Metrics::count(&http.metrics.refusals, error.label());
            error.into_response()
        }
    }
}

fn admit(http: &HttpContext, request: &mut Request) -> Result<(), ApiError> {
    if request.uri().path_and_query().is_some_and(|path| path.as_str().len() > http.url_bytes) {
        return Err(ApiError::UrlTooLong);
    }
    // The library limits its buffer instead, which can hold twice as much before it checks.
    let header_bytes: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if header_bytes > http.header_bytes {
        return Err(ApiError::HeadersTooLarge);
    }
    // Ranges do not apply to HEAD (RFC 9110 section 14.2).
    if request.method() == Method::HEAD {
        request.headers_mut().remove(RANGE);
    }
    let peer = request.extensions().get::<RemotePeer>().ok_or(ApiError::Internal)?;
    if request.extensions().get::<OutsideBasePath>().is_some() {
        return Err(ApiError::OutsideBasePath);
    }
    if let Err(refused) = http.origins.check(request.method(), request.headers(), peer) {
        // Common with a proxy that does not pass on the host, but any client can cause it at any rate.
        if http.warnings.check().is_ok() {
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
    if accepts_html(request.headers()) && peer.host.is_some() && !http.origins.knows_host(peer) {
        if http.warnings.check().is_ok() {
            let host = peer.host.as_deref().unwrap_or_default();
            warn!(event = "hostUnknown", host, setting = "http.public_url");
        }
        return Err(ApiError::UnknownHost);
    }
    Ok(())
}

/// True if the client accepts HTML.
pub fn accepts_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    accepted.into_iter().any(|line| line.contains("text/html"))
}
