//! Data requests, `?_data={route id}`: loads of data and submitted forms of the stock client.
//!
//! Page loaders are answered here. All other requests go to the handler at the same path, which is independent
//! of the client. [`convert`] puts every answer into the client's format.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, SET_COOKIE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};
use tokio::time::timeout;
use url::form_urlencoded;

use super::Orange;
use super::loader::{Loader, is_of_room, is_resource};
use crate::auth::Auth;
use crate::auth::peer::RemotePeer;
use crate::clock::wall_clock;
use crate::http::error::ApiError;
use crate::http::extract::with_cookie;
use crate::site::forms::name_needed;
use crate::site::paths::room_of;

const RESPONSE: HeaderName = HeaderName::from_static("x-remix-response");
/// Header with the target of a redirect that a browser's fetch does not follow.
const REDIRECT: HeaderName = HeaderName::from_static("x-remix-redirect");
const STATUS: HeaderName = HeaderName::from_static("x-remix-status");
const REVALIDATE: HeaderName = HeaderName::from_static("x-remix-revalidate");
const CATCH: HeaderName = HeaderName::from_static("x-remix-catch");
const ERROR: HeaderName = HeaderName::from_static("x-remix-error");
const YES: HeaderValue = HeaderValue::from_static("yes");

/// Maximum length of an error message in bytes.
const SENTENCE_BYTES: usize = 4096;

/// Query parameter of data requests.
const PARAMETER: &str = "_data";

/// Middleware that answers loads of data and forwards all other requests without Remix's parameters.
pub async fn load_data(State(orange): State<Arc<Orange>>, mut request: Request, next: Next) -> Response {
    let uri = request.uri();
    let Some(id) = requested_route(uri) else {
        return next.run(request).await;
    };
    let Some(found) = orange.build.routes.find(uri.path()).filter(|ids| ids.contains(&id)) else {
        return error(StatusCode::FORBIDDEN, "that route is not one of this path");
    };
    if is_of_room(found)
        && let Err(error) = room_of(uri.path())
    {
        return error.into_response();
    }
    let leaf = found.last().cloned().unwrap_or_default();
    if request.method() == Method::GET || request.method() == Method::HEAD {
        if let Some(loader) = Loader::of(&id) {
            let (head, _) = request.into_parts();
            let answer = timeout(orange.http.request_timeout, answer(&orange, loader, &leaf, &head)).await;
            return answer.unwrap_or_else(|_| ApiError::Internal.into_response());
        }
        if !is_resource(&id) {
            return error(StatusCode::BAD_REQUEST, "that route has no data");
        }
    }
    // The handler does not know the parameter, and must not pass it on.
    *request.uri_mut() = page_of(request.uri());
    next.run(request).await
}

/// Middleware that converts the responses to data requests to the client's format; outside of the request guard,
/// whose refusals are converted as well.
pub async fn convert(request: Request, next: Next) -> Response {
    let is_data = requested_route(request.uri()).is_some();
    let response = next.run(request).await;
    // To another spelling of the address a browser's fetch sends the same form again.
    let is_moved = response.status() == StatusCode::PERMANENT_REDIRECT;
    if !is_data || is_moved || response.headers().contains_key(ERROR) {
        return response;
    }
    let (head, body) = response.into_parts();
    if head.status.is_server_error() {
        let sentence = Limited::new(body, SENTENCE_BYTES).collect().await;
        let sentence = sentence.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
        return error(head.status, &sentence.unwrap_or_default());
    }
    converted(Response::from_parts(head, body))
}

/// Returns the route id of a data request.
fn requested_route(uri: &Uri) -> Option<String> {
    // The media API and sockets have query parameters of their own.
    if ["/partytracks/", "/api/calls/", "/parties/"].iter().any(|path| uri.path().starts_with(path)) {
        return None;
    }
    let mut query = form_urlencoded::parse(uri.query()?.as_bytes());
    query.find(|(name, _)| name == PARAMETER).map(|(_, id)| id.into_owned())
}

/// Answers with the data of a page's route, or with a redirect to the name form.
async fn answer(orange: &Orange, loader: Loader, leaf: &str, head: &request::Parts) -> Response {
    let Some(peer) = head.extensions.get::<RemotePeer>() else {
        return ApiError::Internal.into_response();
    };
    let identities = &orange.http.identities;
    match identities.identify(&head.headers, peer, wall_clock()).await {
        Auth::User { identity, by, renew } => {
            with_cookie(not_cached(&orange.load(loader, head.uri.path(), &identity, by).await), renew)
        }
        Auth::Anonymous
            if loader == Loader::Root && leaf == "routes/set-username" && identities.takes_names() =>
        {
            not_cached(&orange.settings.to_nobody())
        }
        Auth::Anonymous => {
            let form = name_needed(&orange.http, &page_of(&head.uri), peer);
            form.unwrap_or_else(IntoResponse::into_response)
        }
    }
}

fn not_cached(data: &Value) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(data)).into_response()
}

/// Returns the page of a data request: its URL without Remix's parameters.
fn page_of(uri: &Uri) -> Uri {
    let kept = uri.query().unwrap_or_default().split('&').filter(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        name != PARAMETER && *pair != "index" && !pair.is_empty()
    });
    let query = kept.collect::<Vec<_>>().join("&");
    let page = if query.is_empty() { uri.path().to_owned() } else { format!("{}?{query}", uri.path()) };
    page.parse().unwrap_or_default()
}

/// Converts a plain response to the client's format.
fn converted(mut response: Response) -> Response {
    let (status, headers) = (response.status(), response.headers_mut());
    if status.is_redirection() {
        let Some(location) = headers.remove(LOCATION) else { return response };
        headers.insert(REDIRECT, location);
        headers.insert(STATUS, HeaderValue::from_static("302"));
        if headers.contains_key(SET_COOKIE) {
            headers.insert(REVALIDATE, YES);
        }
        // Without a redirect status, a browser's fetch does not follow it by itself.
        for name in [CONTENT_LENGTH, CONTENT_TYPE] {
            headers.remove(name);
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        *response.status_mut() = StatusCode::NO_CONTENT;
        *response.body_mut() = Body::empty();
    } else if status.is_client_error() {
        headers.insert(CATCH, YES);
    } else {
        headers.insert(RESPONSE, YES);
    }
    response
}

/// An error in the client's format.
fn error(status: StatusCode, sentence: &str) -> Response {
    let headers = [(ERROR, YES), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (status, headers, Json(json!({"message": sentence}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_is_not_followed_by_fetch() {
        let plain = (StatusCode::FOUND, [(LOCATION, "/a")], "x").into_response();
        let response = converted(plain);
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert_eq!(response.headers()[REDIRECT], "/a");
        assert_eq!(response.headers()[STATUS], "302");
        assert!(!response.headers().contains_key(LOCATION) && !response.headers().contains_key(REVALIDATE));

        let plain = (StatusCode::FOUND, [(LOCATION, "/a"), (SET_COOKIE, "a=b")]).into_response();
        let response = converted(plain);
        assert_eq!(response.headers()[REVALIDATE], YES);
        assert_eq!(response.headers()[SET_COOKIE], "a=b");
    }

    #[test]
    fn page_url_has_no_data_parameters() {
        for (asked, page) in [
            ("/a?_data=routes%2F_room", "/a"),
            ("/a?x=1&_data=root&y=2", "/a?x=1&y=2"),
            ("/?index&_data=routes%2F_index", "/"),
            ("/a%20b?index=1", "/a%20b?index=1"),
            ("/a", "/a"),
        ] {
            assert_eq!(page_of(&asked.parse().unwrap()), page, "{asked}");
        }
    }
}
