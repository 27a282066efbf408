//! The pages, and the files behind them.

use std::sync::Arc;

use axum::extract::{MatchedPath, State};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use percent_encoding::percent_decode_str;

use super::forms::name_needed;
use super::paths::room_of;
use super::reserved::{ReservedFor, reserved};
use super::{Page, Site};
use crate::auth::Auth;
use crate::auth::peer::RemotePeer;
use crate::http::context::HttpContext;
use crate::http::error::ApiError;
use crate::http::extract::with_cookie;
use crate::http::redirect::{escape, redirect, with_query};

/// Route of a room's page.
pub const ROOM: &str = "/{room}";

/// `GET /` and `GET /{room}`: the start page and the room's page, for authenticated users.
pub async fn page(
    State(http): State<Arc<HttpContext>>,
    State(site): State<Arc<Site>>,
    route: MatchedPath,
    peer: RemotePeer,
    auth: Auth,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (page, room) = match route.as_str() {
        ROOM => (Page::Room, Some(room_of(uri.path())?)),
        _ => (Page::Start, None),
    };
    match auth {
        Auth::User { identity, .. } if room.is_some_and(|room| !identity.may_enter(&room)) => {
            Err(ApiError::ForbiddenRoom)
        }
        Auth::User { renew, .. } => Ok(with_cookie(site.page(&http, page, &peer, &headers).await?, renew)),
        Auth::Anonymous => name_needed(&http, &uri, &peer),
    }
}

/// `GET /set-username`: the username form, unless the server accepts no chosen names.
pub async fn name_form(
    State(http): State<Arc<HttpContext>>,
    State(site): State<Arc<Site>>,
    peer: RemotePeer,
    auth: Auth,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    match auth {
        _ if http.identities.takes_names() && site.has_sign_in() => site.name_page(&uri, &peer).await,
        _ if http.identities.takes_names() => site.page(&http, Page::Name, &peer, &headers).await,
        Auth::User { .. } => Ok(redirect("/")),
        Auth::Anonymous => Err(http.unauthenticated()),
    }
}

/// `GET /site.webmanifest`: the manifest for installing the page as an app.
pub async fn web_manifest(
    State(http): State<Arc<HttpContext>>,
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    http.file(&site.files, "site.webmanifest", &headers).await
}

/// `GET /static/...`: a file; if there is none, falls back to [`other`].
pub async fn own_file(
    State(http): State<Arc<HttpContext>>,
    State(site): State<Arc<Site>>,
    peer: RemotePeer,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    match site.file(&http, &peer, &uri, &headers).await {
        // A room may have the same name as this folder.
        Err(ApiError::NotFound) => other(method, uri).await,
        found => found,
    }
}

/// `GET /{room}/room` and `GET /{room}/`: redirects to the one page for lobby and meeting; the stock client has
/// two. Nothing is at any other address.
pub async fn other(method: Method, uri: Uri) -> Result<Response, ApiError> {
    if !is_of_room(uri.path()) || (method != Method::GET && method != Method::HEAD) {
        return Err(ApiError::NotFound);
    }
    let room = room_of(uri.path())?;
    if reserved(room.as_str()).is_some_and(|(_, by)| by == ReservedFor::Page) {
        return Err(ApiError::NotFound);
    }
    Ok(redirect(&with_query(format!("/{}", escape(room.as_str())), &uri)))
}

/// True if the stock client has a page of a room at `path`, which is percent-encoded as sent.
fn is_of_room(path: &str) -> bool {
    let mut segments = path.trim_end_matches('/').split('/').skip(1);
    let is_room = segments.next().is_some_and(|room| !room.is_empty());
    let is_page = segments.next().is_none_or(|page| {
        percent_decode_str(page).decode_utf8().is_ok_and(|page| page.eq_ignore_ascii_case("room"))
    });
    is_room && is_page && segments.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_clients_room_pages_are_recognized() {
        for path in ["/a/room", "/a/ROOM/", "/a/", "/a%2Fb/room", "/room/r%6fom", "/a"] {
            assert!(is_of_room(path), "{path}");
        }
        for path in ["/", "//", "//room", "/a/b", "/a/room/b", "//a/room", "/a/rooms"] {
            assert!(!is_of_room(path), "{path}");
        }
    }
}
