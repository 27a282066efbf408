//! Access to the operators' API: a token in the request, or the console's cookie from the console's own page.

use std::sync::Arc;

use axum::extract::{Request as HttpRequest, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, COOKIE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cookie::Cookie;

use super::Operators;
use super::sessions::{Role, SessionKey};
use crate::clock::{now, wall_clock};
use crate::http::bearer::{bearer, bears};
use crate::http::error::ApiError;
use crate::http::listener::SocketPeer;
use crate::http::origin::is_at;
use crate::id::RoomScope;
use crate::network::{ClientNetwork, client_network};

/// The path of the console's session, which everybody may end.
const SESSION_PATH: &str = "/admin/session";

/// Name of the console's cookie.
pub(super) const COOKIE_NAME: &str = "satsuma_console";

/// Header of the console's requests. A page of another origin cannot send it: browsers ask the server first, which
/// allows nobody.
const CONSOLE: HeaderName = HeaderName::from_static("x-satsuma-console");

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const FOREIGN: ApiError = ApiError::refused(
    StatusCode::FORBIDDEN,
    "foreign_console",
    "with the console's cookie only the console's own page may use this API; programs send the operator token",
);

const VIEWER: ApiError = ApiError::refused(
    StatusCode::FORBIDDEN,
    "viewer",
    "viewers may look and change nothing; this needs the operator token",
);

/// The rights of a request; an extension of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    /// The role.
    pub(super) role: Role,
    /// The session of the console, if it came by one.
    pub(super) session: Option<SessionKey>,
}

/// Middleware: lets in whoever may use the API.
pub(super) async fn only_operators(
    State(operators): State<Arc<Operators>>,
    mut request: HttpRequest,
    next: Next,
) -> Response {
    let network = request.extensions().get::<SocketPeer>().map(|socket| {
        let peer = operators.peer(socket, request.uri(), request.headers());
        client_network(peer.address)
    });
    let (method, path) = (request.method(), request.uri().path());
    let access = match access(&operators, network, method, path, request.headers()).await {
        Ok(access) => access,
        Err(error) => return error.into_response(),
    };
    request.extensions_mut().insert(access);
    let mut response = next.run(request).await;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The rights of a request from a network, where access tokens from there may be guesses.
///
/// # Errors
/// [`ApiError`] if it has none for this method and path.
pub(super) async fn access(
    operators: &Operators,
    network: Option<ClientNetwork>,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<Access, ApiError> {
    let access = if headers.contains_key(AUTHORIZATION) {
        Access {
            role: by_token(operators, network, headers).await.ok_or(ApiError::NoOperator)?,
            session: None,
        }
    } else {
        let session = session(headers).ok_or(ApiError::NoOperator)?;
        if !is_own_page(method, headers) {
            return Err(FOREIGN);
        }
        let role = operators.console.sessions.role(&session, now()).ok_or(ApiError::NoOperator)?;
        Access { role, session: Some(session) }
    };
    let changes_nothing = [Method::GET, Method::HEAD].contains(method);
    let is_own_session = path == SESSION_PATH;
    if access.role == Role::Viewer && !changes_nothing && !is_own_session {
        return Err(VIEWER);
    }
    Ok(access)
}

/// The role of the request's token: the operator token, the viewers' token, or an access token of all rooms with the
/// grant `admin`.
async fn by_token(
    operators: &Operators,
    network: Option<ClientNetwork>,
    headers: &HeaderMap,
) -> Option<Role> {
    if bears(headers, &operators.token) {
        return Some(Role::Operator);
    }
    if operators.console.viewer_token.as_ref().is_some_and(|viewer| bears(headers, viewer)) {
        return Some(Role::Viewer);
    }
    let identities = &operators.http.identities;
    let token = bearer(headers)?.as_bytes();
    let identity = identities.identify_by_access_token(token, network, wall_clock()).await?;
    (identity.grants.admin && identity.scope == RoomScope::any()).then_some(Role::Operator)
}

/// The session that the request's cookie names.
pub(super) fn session(headers: &HeaderMap) -> Option<SessionKey> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut cookies = lines.flat_map(Cookie::split_parse).filter_map(Result::ok);
    cookies.find(|cookie| cookie.name() == COOKIE_NAME).map(|cookie| SessionKey::of(cookie.value()))
}

/// True if a request that browsers send with the console's cookie comes from the console's own page.
///
/// `SameSite=Strict` is not enough: a page at another port of this host is of the same site. The header proves it in
/// browsers that keep the same-origin policy; `Origin` and `Sec-Fetch-Site` are what they say of themselves.
pub(super) fn is_own_page(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        let only = values.next()?.to_str().ok();
        only.filter(|_| values.next().is_none())
    };
    let is_site = !headers.contains_key(&FETCH_SITE) || text(&FETCH_SITE) == Some("same-origin");
    let is_origin = match (headers.contains_key(ORIGIN), method) {
        (false, method) => [Method::GET, Method::HEAD].contains(method),
        (true, _) => text(&ORIGIN).zip(text(&HOST)).is_some_and(|(origin, host)| {
            let host = host.to_ascii_lowercase();
            origin.parse().is_ok_and(|origin| is_at(&origin, &host))
        }),
    };
    headers.contains_key(&CONSOLE) && is_site && is_origin
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_the_consoles_page_is_accepted() {
        const OWN: (&str, &str) = ("x-satsuma-console", "1");
        const HOST: (&str, &str) = ("host", "127.0.0.1:8788");
        const ORIGIN: (&str, &str) = ("origin", "http://127.0.0.1:8788");
        let site = |site| ("sec-fetch-site", site);
        for (method, lines, accepted) in [
            ("POST", &[OWN, HOST, ORIGIN][..], true),
            ("POST", &[OWN, HOST, ORIGIN, site("same-origin")], true),
            ("POST", &[OWN, ("host", "Ops.example"), ("origin", "https://ops.example")], true),
            ("GET", &[OWN, HOST], true),
            ("GET", &[OWN, HOST, site("same-origin")], true),
            // Without the header, as a form or an image of any page.
            ("POST", &[HOST, ORIGIN], false),
            ("GET", &[HOST, site("same-origin")], false),
            // Without an origin, which every browser sends.
            ("POST", &[OWN, HOST], false),
            ("DELETE", &[OWN, HOST, site("same-origin")], false),
            // Another port of the same host, which is of the same site.
            ("POST", &[OWN, HOST, ("origin", "http://127.0.0.1:8787"), site("same-site")], false),
            ("POST", &[OWN, HOST, ("origin", "http://127.0.0.1:3000")], false),
            ("GET", &[OWN, HOST, ("origin", "http://127.0.0.1:3000")], false),
            ("GET", &[OWN, HOST, site("same-site")], false),
            ("GET", &[OWN, HOST, site("none")], false),
            ("GET", &[OWN, HOST, site("cross-site")], false),
            ("POST", &[OWN, HOST, ("origin", "https://evil.example")], false),
            ("POST", &[OWN, HOST, ("origin", "null")], false),
            ("POST", &[OWN, HOST, ORIGIN, ("origin", "https://evil.example")], false),
            ("POST", &[OWN, HOST, ORIGIN, site("same-origin"), site("cross-site")], false),
            ("POST", &[OWN, ORIGIN], false),
        ] {
            let method = method.parse().unwrap();
            assert_eq!(is_own_page(&method, &headers(lines)), accepted, "{method} {lines:?}");
        }
    }

    #[test]
    fn session_is_found_among_other_cookies() {
        let found = |line| session(&headers(&[("cookie", line)]));
        assert_eq!(found("__session=a; satsuma_console=b"), Some(SessionKey::of("b")));
        assert_eq!(found("satsuma_console2=b"), None);
        assert_eq!(session(&HeaderMap::new()), None);
    }
}
