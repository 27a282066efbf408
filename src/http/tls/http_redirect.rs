//! The response to plain HTTP on a TLS port.

use axum::Router;
use axum::extract::{Extension, Request};
use axum::http::header::{CACHE_CONTROL, CONNECTION, LOCATION, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use crate::auth::peer::{RemotePeer, TrustedProxies};
use crate::http::error::ApiError;
use crate::http::listener::SocketPeer;

/// Headers that proxies add. A request from a proxy without TLS would be redirected in a loop.
const OF_PROXIES: [&str; 5] =
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "via"];

/// Creates the router for such connections: it redirects browsers and refuses other clients.
pub fn router() -> Router {
    Router::new().fallback(hint)
}

async fn hint(Extension(peer): Extension<SocketPeer>, request: Request) -> Response {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    // TLS may be turned off later, so nothing may be cached.
    let fixed = [
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (CONNECTION, HeaderValue::from_static("close")),
    ];
    match https_url(peer, method, uri, headers) {
        Some(url) => (StatusCode::TEMPORARY_REDIRECT, fixed, [(LOCATION, url)]).into_response(),
        None => (fixed, ApiError::PlainHttp.into_response()).into_response(),
    }
}

/// Returns the https address of the requested page, if a redirect is safe.
fn https_url(peer: SocketPeer, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<HeaderValue> {
    let is_page = [Method::GET, Method::HEAD].contains(method) && !headers.contains_key(UPGRADE);
    if !is_page || OF_PROXIES.iter().any(|&name| headers.contains_key(name)) {
        return None;
    }
    let SocketPeer { address, scheme } = peer;
    let host = RemotePeer::new(address.ip(), scheme, uri, headers, &TrustedProxies::default()).host?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    HeaderValue::from_str(&format!("https://{host}{path}")).ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;
    use crate::auth::peer::Scheme;

    fn url(method: &Method, uri: &'static str, lines: &[(&'static str, &'static str)]) -> String {
        let peer = SocketPeer { address: "192.0.2.9:1".parse().unwrap(), scheme: Scheme::Http };
        let lines = lines
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let url = https_url(peer, method, &Uri::from_static(uri), &lines.collect());
        url.map_or(String::new(), |url| url.to_str().unwrap().to_owned())
    }

    #[test]
    fn only_pages_are_redirected_to_https() {
        let host = ("host", "192.168.1.5:8443");
        assert_eq!(url(&Method::GET, "/my%20room?x=1", &[host]), "https://192.168.1.5:8443/my%20room?x=1");
        assert_eq!(url(&Method::HEAD, "/", &[("host", "Meet.example")]), "https://meet.example/");
        for nowhere in [
            url(&Method::POST, "/", &[host]),
            url(&Method::GET, "/parties/rooms/r", &[host, ("upgrade", "websocket")]),
            url(&Method::GET, "/", &[]),
            url(&Method::GET, "/", &[("host", "a@b")]),
            url(&Method::GET, "/", &[host, ("x-forwarded-proto", "https")]),
            url(&Method::OPTIONS, "*", &[host]),
        ] {
            assert_eq!(nowhere, "");
        }
    }
}
