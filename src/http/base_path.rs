//! The path below which browsers reach this server (`http.base_path`): stripped from requests, and added
//! to addresses in responses.
//!
//! Handlers know addresses relative to the root alone. A proxy may pass the path on or strip it. A proxy
//! that strips it is either trusted or sends `X-Forwarded-Prefix`, which grants nothing to a client that
//! forges it; all other requests must be below the path.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::middleware::{self, Next};
use axum::response::Response;

use super::context::HttpContext;
use super::listener::SocketPeer;
use super::redirect::{moved, with_query};
use crate::config::BasePath;

/// Addresses also answered at the root: load balancers check this machine, not the proxy.
const AT_THE_ROOT: [&str; 2] = ["/healthz", "/readyz"];

/// The prefix that a proxy stripped from the path.
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// HTML attributes with addresses as values.
const ATTRIBUTES: [&str; 5] = ["href", "src", "action", "formaction", "poster"];

/// Marks a request for an address outside the base path.
#[derive(Clone, Copy, Debug)]
pub struct OutsideBasePath;

/// Mounts `routes` below the configured path, if there is one.
pub fn below(http: Arc<HttpContext>, routes: Router) -> Router {
    if http.base_path.is_root() {
        return routes;
    }
    // Wraps the whole router: a layer on it would run only after a route was matched.
    Router::new().fallback_service(routes).layer(middleware::from_fn_with_state(http, translate))
}

async fn translate(State(http): State<Arc<HttpContext>>, mut request: Request, next: Next) -> Response {
    let base = &http.base_path;
    let socket = request.extensions().get::<SocketPeer>();
    let may_strip = is_stripped(base, request.headers())
        || socket.is_some_and(|socket| http.proxies.contain(socket.address.ip()));
    match place(base, request.uri().path(), request.headers(), may_strip) {
        PathPosition::Below => {
            if let Some(uri) = without_base(base, request.uri()) {
                *request.uri_mut() = uri;
            }
        }
        PathPosition::Start => return moved(&with_query(base.to_string(), request.uri())),
        PathPosition::Stripped => {}
        PathPosition::Outside => {
            request.extensions_mut().insert(OutsideBasePath);
        }
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Some(address) = headers.get(LOCATION).and_then(|address| with_base(base, address)) {
        headers.insert(LOCATION, address);
    }
    response
}

/// Position of a request's path relative to the base path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PathPosition {
    /// Below the base path.
    Below,
    /// The base path itself, without a trailing slash.
    Start,
    /// At the root: a proxy stripped the base path, or the address is also answered there.
    Stripped,
    /// Any other path.
    Outside,
}

fn place(base: &BasePath, path: &str, headers: &HeaderMap, may_strip: bool) -> PathPosition {
    if is_stripped(base, headers) {
        PathPosition::Stripped
    } else if path == base.as_str() {
        PathPosition::Start
    } else if base.strip(path).is_some() {
        PathPosition::Below
    } else if may_strip || AT_THE_ROOT.contains(&path) {
        PathPosition::Stripped
    } else {
        PathPosition::Outside
    }
}

/// True if `X-Forwarded-Prefix` names exactly the base path.
fn is_stripped(base: &BasePath, headers: &HeaderMap) -> bool {
    let prefix = headers.get(FORWARDED_PREFIX).and_then(|prefix| prefix.to_str().ok());
    prefix.is_some_and(|prefix| prefix.trim_end_matches('/') == base.as_str())
}

/// Strips the base path from an address.
fn without_base(base: &BasePath, uri: &Uri) -> Option<Uri> {
    let inside = base.strip(uri.path_and_query()?.as_str())?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(inside).ok()?);
    Uri::from_parts(parts).ok()
}

/// Adds the base path to an address; `None` if it is not an absolute path.
fn with_base(base: &BasePath, address: &HeaderValue) -> Option<HeaderValue> {
    let path = address.to_str().ok().filter(|path| path.starts_with('/'))?;
    HeaderValue::try_from(format!("{}{path}", base.as_str())).ok()
}

/// Rewrites the links of a page from the root to the base path.
pub fn with_links_below(base: &BasePath, page: Bytes) -> Bytes {
    let Ok(html) = str::from_utf8(&page) else { return page };
    let mut placed = String::with_capacity(html.len() + 1024);
    let mut rest = html;
    while let Some(found) = rest.find("=\"/") {
        let (name, slash) = (&rest[..found], found + 2);
        let is_link = ATTRIBUTES.iter().any(|attribute| {
            name.strip_suffix(attribute).is_some_and(|before| before.ends_with(char::is_whitespace))
        });
        placed.push_str(&rest[..slash]);
        if is_link && !rest[slash..].starts_with("//") {
            placed.push_str(base.as_str());
        }
        rest = &rest[slash..];
    }
    placed.push_str(rest);
    placed.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> BasePath {
        "/meet".parse().unwrap()
    }

    #[test]
    fn base_path_passed_on_differs_from_stripped() {
        let (said, nothing) = (
            HeaderMap::from_iter([(FORWARDED_PREFIX, HeaderValue::from_static("/meet/"))]),
            HeaderMap::from_iter([(FORWARDED_PREFIX, HeaderValue::from_static("/other"))]),
        );
        for (path, headers, trusted, expected) in [
            ("/meet/", &nothing, false, PathPosition::Below),
            ("/meet/r", &nothing, true, PathPosition::Below),
            ("/meet", &nothing, true, PathPosition::Start),
            ("/r", &nothing, false, PathPosition::Outside),
            ("/meeting", &nothing, false, PathPosition::Outside),
            ("/", &nothing, false, PathPosition::Outside),
            ("*", &nothing, false, PathPosition::Outside),
            ("/r", &nothing, true, PathPosition::Stripped),
            ("/healthz", &nothing, false, PathPosition::Stripped),
            ("/meet/healthz", &nothing, false, PathPosition::Below),
            // A room of that name: the proxy is known to have stripped the path.
            ("/meet", &said, false, PathPosition::Stripped),
            ("/meet/room", &said, true, PathPosition::Stripped),
        ] {
            assert_eq!(place(&base(), path, headers, trusted), expected, "{path} {trusted}");
        }
    }

    #[test]
    fn base_path_is_stripped_and_added_back() {
        for (asked, known) in [
            ("/meet/", "/"),
            ("/meet/a%20b?x=/meet/&y#z", "/a%20b?x=/meet/&y"),
            ("/meet/meet/r", "/meet/r"),
            ("/meet//r", "//r"),
            ("http://h.example/meet/r?q", "http://h.example/r?q"),
        ] {
            let uri = without_base(&base(), &asked.parse().unwrap()).unwrap();
            assert_eq!(uri.to_string(), known, "{asked}");
        }
        let told = |address| with_base(&base(), &HeaderValue::from_static(address));
        assert_eq!(told("/a?b").unwrap(), "/meet/a?b");
        assert_eq!(told("https://elsewhere.example/a"), None);
    }

    #[test]
    fn page_links_are_rewritten() {
        let html = "<a  href=\"/\">/</a><a href=\"\"><img src=\"/static/a.svg\"><form\naction=\"/?index\">\
                    <a href=\"//evil.example\" data-href=\"/x\" href=\"https://a/\"><p title=\"/\">=\"/é";
        let placed = "<a  href=\"/meet/\">/</a><a href=\"\"><img src=\"/meet/static/a.svg\"><form\naction=\"/meet/?index\">\
                      <a href=\"//evil.example\" data-href=\"/x\" href=\"https://a/\"><p title=\"/\">=\"/é";
        assert_eq!(with_links_below(&base(), html.into()), placed);
        let latin: Bytes = Bytes::from_static(b"<a href=\"/\">\xe9");
        assert_eq!(with_links_below(&base(), latin.clone()), latin);
    }

    /// Covers every page, so that a new one cannot link outside the path.
    #[test]
    fn no_page_links_outside_the_base_path() {
        for page in ["index.html", "room.html", "set-username.html", "404.html", "refused.html"] {
            let html = std::fs::read_to_string(format!("static/{page}")).unwrap();
            let placed = with_links_below(&base(), html.clone().into());
            let placed = str::from_utf8(&placed).unwrap();
            assert_eq!(placed.matches("=\"/").count(), placed.matches("=\"/meet/").count(), "{page}");
            assert_eq!(placed.matches("/meet").count(), html.matches("=\"/").count(), "{page}");
        }
    }
}
