//! Page requests of the stock client: a file, a document, or a redirect to the name form.

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

/// The stock client.
#[derive(Debug)]
pub struct StockClient {
    /// The build's manifest.
    pub build: Build,
    /// The build's files.
    pub files: Assets,
    /// The content security policy of its pages.
    pub policy: Policy,
}

/// Answers a GET request: with the file of that name, or with the page.
///
/// # Errors
/// [`ApiError::NotFound`] if there is neither; errors of [`room_of`] for an invalid room's page.
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
    // The document contains a name, and possibly credentials.
    let kind = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    let mut response = (kind, html).into_response();
    protect(response.headers_mut(), &stock.policy.of(&nonce), way(peer));
    Ok(with_cookie(response, cookie))
}

/// Returns the transport of pages to `peer`.
pub fn way(peer: &RemotePeer) -> PageTransport {
    match peer.scheme {
        Scheme::Https => PageTransport::Secure,
        Scheme::Http => PageTransport::Plain,
    }
}

/// Redirects a client without a name to the name form, which leads back to `uri`.
///
/// # Errors
/// [`ApiError::LoginRequired`] if this server accepts no names.
pub fn name_needed(app: &App, uri: &Uri, peer: &RemotePeer) -> Result<Response, ApiError> {
    if !app.identities.takes_names() {
        return Err(app.nobody());
    }
    let form = format!("/set-username?return-url={}", escape(&whole_url(uri, peer)));
    // Escaping may make a long URL exceed the limit; losing the return URL is better than losing the visitor.
    Ok(redirect(if form.len() <= app.url_bytes { &form } else { "/set-username" }))
}

/// Adds the renewed cookie to an answer, if one is due.
pub fn with_cookie(mut response: Response, cookie: Option<HeaderValue>) -> Response {
    if let Some(cookie) = cookie {
        // An intermediate cache would otherwise hand the cookie to another user.
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}
