//! Page requests of the stock client: a file, a document, or a redirect to the name form.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Map;

use super::Orange;
use super::document::Document;
use super::loader::{Loader, is_of_room, is_resource};
use crate::auth::Auth;
use crate::auth::peer::RemotePeer;
use crate::clock::wall_clock;
use crate::http::error::ApiError;
use crate::http::extract::with_cookie;
use crate::http::page_policy::protect;
use crate::http::redirect::redirect;
use crate::site::Page;
use crate::site::error_page::form_again;
use crate::site::forms::{FormFields, field, name_needed, room_path};
use crate::site::paths::room_of;

/// The client's web app manifest.
const MANIFEST: &str = r##"{"name":"Orange Meets","short_name":"Orange Meets","icons":[{"src":"/android-chrome-192x192.png","sizes":"192x192","type":"image/png"},{"src":"/android-chrome-512x512.png","sizes":"512x512","type":"image/png"}],"theme_color":"#ffffff","background_color":"#ffffff","display":"standalone"}"##;

/// `GET /site.webmanifest`: the manifest for installing the client as an app.
pub async fn web_manifest() -> Response {
    ([(CONTENT_TYPE, "application/manifest+json")], MANIFEST).into_response()
}

/// `GET /static/...`: a file of the built-in page, which the pages of errors need; else as [`page`].
pub async fn own_file(
    State(orange): State<Arc<Orange>>,
    peer: RemotePeer,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    match orange.site.file(&orange.http, &peer, &uri, &headers).await {
        // A room may have the same name as this folder.
        Err(ApiError::NotFound) => page(State(orange), peer, method, uri, headers).await,
        found => found,
    }
}

/// `POST /?index`: redirects to the room of that name, unless it is the name of one of the build's files.
pub async fn open_room(State(orange): State<Arc<Orange>>, fields: FormFields) -> Response {
    let (typed, error) = match field(fields, "room") {
        Ok(typed) => match room_path(&orange.http, &typed) {
            // A failed lookup is no reason to refuse a room.
            Ok(path) if orange.files.has(&path[1..]).await.unwrap_or(false) => (typed, ApiError::NameTaken),
            Ok(path) => return redirect(&path),
            Err(error) => (typed, error),
        },
        Err(error) => (String::new(), error),
    };
    form_again(error, Page::Start, typed)
}

/// `GET` of any other address: the file of that name, or the page.
///
/// # Errors
/// [`ApiError::NotFound`] if there is neither; errors of [`room_of`] for an invalid room's page.
pub async fn page(
    State(orange): State<Arc<Orange>>,
    peer: RemotePeer,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Orange { http, build, files, .. } = &*orange;
    if method != Method::GET && method != Method::HEAD {
        return Err(ApiError::NotFound);
    }
    let inside = uri.path().strip_prefix('/').filter(|inside| !inside.is_empty());
    if let Some(inside) = inside {
        match http.file(files, inside, &headers).await {
            Err(ApiError::NotFound) => {}
            answer => return answer,
        }
    }
    let routes = build.routes.find(uri.path()).ok_or(ApiError::NotFound)?;
    let leaf = routes.last().filter(|leaf| !is_resource(leaf)).ok_or(ApiError::NotFound)?;
    if is_of_room(routes) {
        room_of(uri.path())?;
    }
    let mut data = Map::new();
    let loaders = routes.iter().filter_map(|id| Some((id, Loader::of(id)?)));
    let cookie = match http.identities.identify(&headers, &peer, wall_clock()).await {
        Auth::User { identity, by, renew } => {
            for (id, loader) in loaders {
                data.insert(id.clone(), orange.load(loader, uri.path(), &identity, by).await);
            }
            renew
        }
        Auth::Anonymous if leaf == "routes/set-username" && http.identities.takes_names() => {
            data.insert("root".to_owned(), orange.settings.to_nobody());
            None
        }
        Auth::Anonymous => return name_needed(http, &uri, &peer),
    };
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| ApiError::Internal)?;
    let nonce = BASE64_STANDARD.encode(random);
    let document = Document { build, routes, data: &data, path: uri.path(), nonce: &nonce };
    let html = document.render();
    // The document contains a name, and possibly credentials.
    let kind = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    let mut response = (kind, html).into_response();
    protect(response.headers_mut(), &orange.policy.of(&nonce), &peer);
    Ok(with_cookie(response, cookie))
}
