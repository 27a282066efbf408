//! A visit to a page of the stock client: its file, its document, or the way to the form for a name.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Map;

use super::document::Document;
use super::loader::{Loader, is_of_room, is_resource, load};
use super::manifest::Build;
use super::policy::{PageTransport, Policy, protect};
use crate::http::app::{App, wall_clock};
use crate::http::assets::Assets;
use crate::http::error::ApiError;
use crate::http::pages::{escape, redirect, whole_url};
use crate::http::paths::room_of;
use crate::http::site::file;
use crate::identity::Auth;
use crate::identity::peer::{RemotePeer, Scheme};

/// The stock client as it is served.
#[derive(Debug)]
pub struct StockClient {
    /// Its build.
    pub build: Build,
    /// Its folder.
    pub files: Assets,
    /// What its pages may do.
    pub policy: Policy,
}

/// Answers whoever opens an address: with a file of that name, or with the page there.
///
/// # Errors
/// [`ApiError::NotFound`] where neither is, and those of [`room_of`] for a page of what is no room.
pub async fn open(
    app: &App,
    stock: &StockClient,
    peer: &RemotePeer,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let inside = uri.path().strip_prefix('/').filter(|inside| !inside.is_empty());
    if let Some(inside) = inside {
        match file(app, &stock.files, inside, headers).await {
            Err(ApiError::NotFound) => {}
            answer => return answer,
        }
    }
    let routes = stock.build.routes.find(uri.path()).ok_or(ApiError::NotFound)?;
    let leaf = routes.last().filter(|leaf| !is_resource(leaf)).ok_or(ApiError::NotFound)?;
    if is_of_room(routes) {
        room_of(uri.path())?;
    }
    let mut data = Map::new();
    let loaders = routes.iter().filter_map(|id| Some((id, Loader::of(id)?)));
    let cookie = match app.identities.identify(headers, peer, wall_clock()).await {
        Auth::User { identity, by, renew } => {
            for (id, loader) in loaders {
                data.insert(id.clone(), load(app, loader, &identity, by).await);
            }
            renew
        }
        Auth::Anonymous if leaf == "routes/set-username" && app.identities.takes_names() => {
            data.insert("root".to_owned(), app.site.told.to_nobody());
            None
        }
        Auth::Anonymous => return name_needed(app, uri, peer),
    };
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| ApiError::Internal)?;
    let nonce = BASE64_STANDARD.encode(random);
    let document = Document { build: &stock.build, routes, data: &data, path: uri.path(), nonce: &nonce };
    let html = document.render();
    // It holds a name, and perhaps credentials.
    let kind = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    let mut response = (kind, html).into_response();
    protect(response.headers_mut(), &stock.policy.of(&nonce), way(peer));
    Ok(with_cookie(response, cookie))
}

/// How a page goes to `peer`.
pub fn way(peer: &RemotePeer) -> PageTransport {
    match peer.scheme {
        Scheme::Https => PageTransport::Secure,
        Scheme::Http => PageTransport::Plain,
    }
}

/// Leads whoever has no name to the form for one, and from there back to `uri`.
///
/// # Errors
/// [`ApiError::LoginRequired`], where this server takes no names.
pub fn name_needed(app: &App, uri: &Uri, peer: &RemotePeer) -> Result<Response, ApiError> {
    if !app.identities.takes_names() {
        return Err(app.nobody());
    }
    let form = format!("/set-username?return-url={}", escape(&whole_url(uri, peer)));
    // Escaped, a long URL can be longer than a URL may be; better to lose it than the visitor.
    Ok(redirect(if form.len() <= app.url_bytes { &form } else { "/set-username" }))
}

/// An answer that also renews a cookie, where one is due.
pub fn with_cookie(mut response: Response, cookie: Option<HeaderValue>) -> Response {
    if let Some(cookie) = cookie {
        // A cache in between that kept the cookie would hand it to somebody else.
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}
