//! The pages of a visit and the forms that lead from one to the next.

use std::fmt::Write;
use std::sync::Arc;

use axum::Form;
use axum::extract::{Extension, Query, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use url::Url;

use super::app::{App, wall_clock};
use super::error::ApiError;
use super::gate::scheme_text;
use super::site::{OwnPage, Site, file};
use crate::client::visit::{self, name_needed, with_cookie};
use crate::config::Origin;
use crate::id::RoomName;
use crate::identity::peer::Peer;
use crate::identity::{Asked, Proof};

/// The web app manifest of the stock client.
const ORANGE_MANIFEST: &str = r##"{"name":"Orange Meets","short_name":"Orange Meets","icons":[{"src":"/android-chrome-192x192.png","sizes":"192x192","type":"image/png"},{"src":"/android-chrome-512x512.png","sizes":"512x512","type":"image/png"}],"theme_color":"#ffffff","background_color":"#ffffff","display":"standalone"}"##;

/// What is escaped in one segment of a path and in a query's value: everything but RFC 3986's
/// unreserved characters (section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `GET /`: the start page, for whoever has a name.
pub async fn home(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    page(&app, OwnPage::Start, &peer, &uri, &headers).await
}

/// `GET /{room}`: the room's page, for whoever has a name.
pub async fn room(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    page(&app, OwnPage::Room, &peer, &uri, &headers).await
}

/// `GET` of any other address: a page or a file of the stock client.
pub async fn other(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let found = match &app.site.stock {
        Some(stock) if method == Method::GET || method == Method::HEAD => {
            visit::open(&app, stock, &peer, &uri, &headers).await
        }
        _ => Err(ApiError::NotFound),
    };
    match found {
        Err(ApiError::NotFound) => Site::nothing_here(&app, &peer, &headers).await,
        answer => answer.into_response(),
    }
}

/// A page for whoever has a name; the way to the form for one otherwise.
async fn page(
    app: &App,
    page: OwnPage,
    peer: &Peer,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    if let Some(stock) = &app.site.stock {
        return visit::open(app, stock, peer, uri, headers).await;
    }
    match app.identities.identify(headers, peer, wall_clock()).await {
        Asked::Known { renew, .. } => Ok(with_cookie(Site::own_page(app, page, peer, headers).await?, renew)),
        Asked::Nobody => Ok(name_needed(app, uri, peer)),
    }
}

/// `GET /set-username`: the form.
pub async fn name_form(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    match &app.site.stock {
        Some(stock) => visit::open(&app, stock, &peer, &uri, &headers).await,
        None => Site::own_page(&app, OwnPage::Name, &peer, &headers).await,
    }
}

/// `GET /site.webmanifest`: what a phone shows that keeps the page among its programs.
pub async fn web_manifest(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    match &app.site.stock {
        Some(_) => Ok(([(CONTENT_TYPE, "application/manifest+json")], ORANGE_MANIFEST).into_response()),
        None => file(&app, &app.site.own, "site.webmanifest", &headers).await,
    }
}

/// The query of `/set-username`.
#[derive(Deserialize)]
pub struct ReturnTo {
    #[serde(rename = "return-url", default)]
    return_url: String,
}

/// The form of `/set-username`.
#[derive(Deserialize)]
pub struct NameForm {
    username: Option<String>,
}

/// `POST /set-username`: takes the name and goes back to where the visitor came from.
pub async fn set_name(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Query(ReturnTo { return_url }): Query<ReturnTo>,
    headers: HeaderMap,
    Form(form): Form<NameForm>,
) -> Result<Response, ApiError> {
    let now = wall_clock();
    let response = redirect(&return_path(&return_url, |origin| app.origins.leads_here(origin, &peer)));
    // A proxy or Access brings the name along, and it wins over the form's.
    if let Asked::Known { by: Proof::ProxyHeader | Proof::Access, .. } =
        app.identities.identify(&headers, &peer, now).await
    {
        return Ok(response);
    }
    let name = form.username.ok_or(ApiError::MissingField("username"))?;
    let cookie = app.identities.sign_in(&headers, &name, &peer, now)?;
    Ok(with_cookie(response, Some(cookie)))
}

/// `GET /new`: a room that nobody else can guess.
pub async fn new_room(uri: Uri) -> Result<Response, ApiError> {
    let mut random = [0; 6];
    getrandom::fill(&mut random).map_err(|_| ApiError::Internal)?;
    let mut location = format!("/{}", BASE64_URL_SAFE_NO_PAD.encode(random));
    if let Some(query) = uri.query() {
        // Formatting into a String cannot fail.
        let _ = write!(location, "?{query}");
    }
    Ok(redirect(&location))
}

/// The form of `/`.
#[derive(Deserialize)]
pub struct RoomForm {
    room: Option<String>,
}

/// `POST /?index`: goes to the room of that name.
pub async fn open_room(Form(form): Form<RoomForm>) -> Result<Response, ApiError> {
    let room = form.room.ok_or(ApiError::MissingField("room"))?;
    let room = RoomName::parse(&room.trim().replace(' ', "-"))?;
    if matches!(room.as_str(), "." | "..") {
        // As a segment of a path these two lead elsewhere, however they are escaped.
        return Err(ApiError::NoPage);
    }
    Ok(redirect(&format!("/{}", escape(room.as_str()))))
}

/// Answers 302 with a path of ours.
pub fn redirect(path: &str) -> Response {
    debug_assert!(path.starts_with('/') && !path.starts_with("//"), "{path} leaves this server");
    match HeaderValue::from_str(path) {
        Ok(location) => (StatusCode::FOUND, [(LOCATION, location)]).into_response(),
        Err(_) => ApiError::Internal.into_response(),
    }
}

/// A text as a segment of a path, or as a value in a query.
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// The address that a request was sent to, whole where its host is known.
pub fn whole_url(uri: &Uri, peer: &Peer) -> String {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    match &peer.host {
        Some(host) => format!("{}://{host}{path}", scheme_text(peer.scheme)),
        None => path.to_owned(),
    }
}

/// The path of ours that `return_url` names, or `/` if it names another server's.
///
/// It is read as browsers read it (WHATWG URL), so that nothing means one thing here and another
/// there: `\\evil.example`, `/\evil.example` and `//evil.example` are all other servers.
fn return_path(return_url: &str, is_ours: impl FnOnce(&Origin) -> bool) -> String {
    const OURS: &str = "http://ours.invalid";
    let url = Url::parse(OURS).and_then(|base| base.join(return_url)).ok().filter(|url| url.has_host());
    let Some(url) = url else { return "/".to_owned() };
    let origin = url.origin().ascii_serialization();
    if origin != OURS && !origin.parse().is_ok_and(|origin| is_ours(&origin)) {
        return "/".to_owned();
    }
    // "http://ours//evil.example" is ours, but its path alone is another server's address.
    let mut path = format!("/{}", url.path().trim_start_matches('/'));
    for (mark, part) in [('?', url.query()), ('#', url.fragment())] {
        if let Some(part) = part {
            path.push(mark);
            path.push_str(part);
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ours(origin: &Origin) -> bool {
        origin.to_string() == "https://meet.example"
    }

    #[test]
    fn only_our_own_pages_are_returned_to() {
        for (return_url, path) in [
            ("", "/"),
            ("/room?x=1#y", "/room?x=1#y"),
            ("room", "/room"),
            ("https://meet.example/a%20b?c", "/a%20b?c"),
            ("https://meet.example:443/a", "/a"),
            ("https://meet.example//evil.example", "/evil.example"),
            ("/.//evil.example", "/evil.example"),
            ("https://user:secret@meet.example/a", "/a"),
            ("https://evil.example/a", "/"),
            ("https://meet.example.evil.example/a", "/"),
            ("https://meet.example@evil.example/a", "/"),
            ("http://meet.example/a", "/"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("\\\\evil.example", "/"),
            ("/\t/evil.example", "/"),
            ("javascript:alert(1)", "/"),
            ("data:text/html,x", "/"),
            ("http:evil.example", "/evil.example"),
        ] {
            assert_eq!(return_path(return_url, ours), path, "{return_url}");
        }
    }

    proptest! {
        #[test]
        fn a_location_never_leaves_this_server(return_url in r#"[/\\:.?#a-z@\t %]{0,24}"#) {
            let path = return_path(&return_url, ours);
            let base = Url::parse("https://meet.example/set-username").unwrap();
            prop_assert!(path.starts_with('/') && !path.starts_with("//"));
            let target = base.join(&path).unwrap();
            prop_assert_eq!(target.host_str(), Some("meet.example"));
            prop_assert!(HeaderValue::from_str(&path).is_ok());
        }
    }
}
