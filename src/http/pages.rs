//! The pages of a visit, and the forms that link them.

use std::sync::Arc;

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use url::{Url, form_urlencoded};

use super::app::{App, wall_clock};
use super::error::ApiError;
use super::error_page;
use super::paths::{room_of, taken, with_query};
use super::request_guard::scheme_text;
use super::router::Use;
use super::site::{OwnPage, Site, file};
use crate::client::loader::is_of_room;
use crate::client::visit::{self, name_needed, with_cookie};
use crate::config::{BasePath, Origin};
use crate::id::RoomName;
use crate::identity::peer::RemotePeer;
use crate::identity::{Auth, AuthMethod};

/// The web app manifest of the stock client.
const ORANGE_MANIFEST: &str = r##"{"name":"Orange Meets","short_name":"Orange Meets","icons":[{"src":"/android-chrome-192x192.png","sizes":"192x192","type":"image/png"},{"src":"/android-chrome-512x512.png","sizes":"512x512","type":"image/png"}],"theme_color":"#ffffff","background_color":"#ffffff","display":"standalone"}"##;

/// Characters to escape in a path segment and in a query value: all but RFC 3986's unreserved characters
/// (section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Characters to escape in an already escaped path: those that no header or URL may contain, and the
/// backslash, which browsers read as a slash.
const LOCATION_PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\');

/// `GET /`: the start page, for authenticated users.
pub async fn home(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<RemotePeer>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    match page(&app, OwnPage::Start, &peer, &uri, &headers).await {
        Err(error) => error_page::answer(&app, &peer, &headers, error).await,
        Ok(page) => page,
    }
}

/// `GET /{room}`: the room's page, for authenticated users.
pub async fn room(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<RemotePeer>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    match page(&app, OwnPage::Room, &peer, &uri, &headers).await {
        Err(error) => error_page::answer(&app, &peer, &headers, error).await,
        Ok(page) => page,
    }
}

/// `GET` of any other address: a page or a file of the stock client, or a redirect to a room of the
/// built-in client.
pub async fn other(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<RemotePeer>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let found = match &app.site.stock {
        _ if method != Method::GET && method != Method::HEAD => Err(ApiError::NotFound),
        Some(stock) => visit::open(&app, stock, &peer, &uri, &headers).await,
        None => to_room(&app, &uri),
    };
    match found {
        Err(error) => error_page::answer(&app, &peer, &headers, error).await,
        Ok(page) => page,
    }
}

/// Redirects to the built-in client's one page for lobby and meeting; the stock client has two.
fn to_room(app: &App, uri: &Uri) -> Result<Response, ApiError> {
    let ids = app.site.routes().find(uri.path()).unwrap_or_default();
    if !is_of_room(ids) {
        return Err(ApiError::NotFound);
    }
    let room = room_of(uri.path())?;
    if taken(room.as_str()).is_some_and(|(_, by)| by == Use::Page) {
        return Err(ApiError::NotFound);
    }
    Ok(redirect(&with_query(format!("/{}", escape(room.as_str())), uri)))
}

/// Returns a page for authenticated users, or a redirect to the username form.
async fn page(
    app: &App,
    page: OwnPage,
    peer: &RemotePeer,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    if let Some(stock) = &app.site.stock {
        return visit::open(app, stock, peer, uri, headers).await;
    }
    if page == OwnPage::Room {
        room_of(uri.path())?;
    }
    match app.identities.identify(headers, peer, wall_clock()).await {
        Auth::User { renew, .. } => Ok(with_cookie(Site::own_page(app, page, peer, headers).await?, renew)),
        Auth::Anonymous => name_needed(app, uri, peer),
    }
}

/// `GET /set-username`: the username form.
pub async fn name_form(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<RemotePeer>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let page = match &app.site.stock {
        Some(stock) => visit::open(&app, stock, &peer, &uri, &headers).await,
        None => own_name_form(&app, &peer, &headers).await,
    };
    match page {
        Err(error) => error_page::answer(&app, &peer, &headers, error).await,
        Ok(page) => page,
    }
}

/// Returns the built-in username form, unless the server accepts no chosen names.
async fn own_name_form(app: &App, peer: &RemotePeer, headers: &HeaderMap) -> Result<Response, ApiError> {
    if !app.identities.takes_names() {
        return match app.identities.identify(headers, peer, wall_clock()).await {
            Auth::User { .. } => Ok(redirect("/")),
            Auth::Anonymous => Err(app.nobody()),
        };
    }
    Site::own_page(app, OwnPage::Name, peer, headers).await
}

/// `GET /site.webmanifest`: the manifest for installing the page as an app.
pub async fn web_manifest(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    match &app.site.stock {
        Some(_) => Ok(([(CONTENT_TYPE, "application/manifest+json")], ORANGE_MANIFEST).into_response()),
        None => file(&app, &app.site.own, "site.webmanifest", &headers).await,
    }
}

/// A form of one field, as received.
pub type Sent = Result<Form<Vec<(String, String)>>, FormRejection>;

/// Returns the field of this name; the first one if there are several.
fn field(sent: Sent, name: &'static str) -> Result<String, ApiError> {
    let Form(fields) = sent.map_err(|refused| match refused {
        FormRejection::InvalidFormContentType(_) => ApiError::NotUrlEncoded,
        refused if refused.status() == StatusCode::PAYLOAD_TOO_LARGE => ApiError::BodyTooLarge,
        _ => ApiError::BrokenBody,
    })?;
    let found = fields.into_iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value).ok_or(ApiError::MissingField(name))
}

/// `POST /set-username`: sets the username and redirects to the page the visitor came from.
pub async fn set_name(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<RemotePeer>,
    uri: Uri,
    headers: HeaderMap,
    sent: Sent,
) -> Response {
    let now = wall_clock();
    let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let return_url = query.into_iter().find(|(name, _)| name == "return-url").map(|(_, url)| url);
    let return_url = return_url.unwrap_or_default();
    let back =
        redirect(&return_path(&return_url, &app.base_path, |origin| app.origins.leads_here(origin, &peer)));
    // A name from a proxy or from Access takes precedence over the form's.
    if let Auth::User { by: AuthMethod::ProxyHeader | AuthMethod::Access, .. } =
        app.identities.identify(&headers, &peer, now).await
    {
        return back;
    }
    if !app.identities.takes_names() {
        return error_page::answer(&app, &peer, &headers, app.nobody()).await;
    }
    let (typed, error) = match field(sent, "username") {
        Ok(name) => match app.identities.sign_in(&headers, &name, &peer, now) {
            Ok(cookie) => return with_cookie(back, Some(cookie)),
            Err(error) => (name, error.into()),
        },
        Err(error) => (String::new(), error),
    };
    error_page::form_again(&app, &peer, &headers, error, OwnPage::Name, &typed).await
}

/// `GET /new`: redirects to a room with an unguessable name.
pub async fn new_room(uri: Uri) -> Result<Response, ApiError> {
    let mut random = [0; 6];
    getrandom::fill(&mut random).map_err(|_| ApiError::Internal)?;
    Ok(redirect(&with_query(format!("/{}", BASE64_URL_SAFE_NO_PAD.encode(random)), &uri)))
}

/// `POST /?index`: redirects to the room of that name.
pub async fn open_room(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<RemotePeer>,
    headers: HeaderMap,
    sent: Sent,
) -> Response {
    let (typed, error) = match field(sent, "room") {
        Ok(typed) => match path_of(&app, &typed).await {
            Ok(path) => return redirect(&path),
            Err(error) => (typed, error),
        },
        Err(error) => (String::new(), error),
    };
    error_page::form_again(&app, &peer, &headers, error, OwnPage::Start, &typed).await
}

/// Returns the path of the room that a user wants to open.
async fn path_of(app: &App, typed: &str) -> Result<String, ApiError> {
    let room = RoomName::parse(&typed.trim().replace(' ', "-"))?;
    if matches!(room.as_str(), "." | "..") {
        // As path segments these two lead elsewhere, even when escaped.
        return Err(ApiError::NoPage);
    }
    let escaped = escape(room.as_str());
    let is_file = match &app.site.stock {
        // A failed lookup is no reason to refuse a room.
        Some(stock) => stock.files.has(&escaped).await.unwrap_or(false),
        None => false,
    };
    // A proxy that strips the base path would take this room's page for the start page.
    let is_base = room.as_str() == app.base_path.first_segment();
    if is_file || is_base || taken(room.as_str()).is_some() {
        return Err(ApiError::NameTaken);
    }
    Ok(format!("/{escaped}"))
}

/// Redirects by 302 to a path on this server.
pub fn redirect(path: &str) -> Response {
    lead(StatusCode::FOUND, path)
}

/// Redirects by 308 to a path on this server; the browser sends a form there unchanged.
pub fn moved(path: &str) -> Response {
    lead(StatusCode::PERMANENT_REDIRECT, path)
}

fn lead(status: StatusCode, path: &str) -> Response {
    debug_assert!(path.starts_with('/') && !path.starts_with("//"), "{path} leaves this server");
    match HeaderValue::try_from(utf8_percent_encode(path, LOCATION_PATH).to_string()) {
        // The redirect holds for this visitor alone, and only until it has a name or the page moves.
        Ok(location) => {
            let headers = [(LOCATION, location), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
            (status, headers).into_response()
        }
        Err(_) => ApiError::Internal.into_response(),
    }
}

/// Escapes a text for a path segment or a query value.
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// Returns the address of a request: absolute if its host is known.
pub fn whole_url(uri: &Uri, peer: &RemotePeer) -> String {
    let (base, path) = (peer.base_path.as_str(), uri.path_and_query().map_or("/", |path| path.as_str()));
    match &peer.host {
        Some(host) => format!("{}://{host}{base}{path}", scheme_text(peer.scheme)),
        None => format!("{base}{path}"),
    }
}

/// Returns the path below `base` that `return_url` names, or `/` if it names another server.
///
/// Parsed as browsers do (WHATWG URL), so that both read the same target: `\\evil.example`,
/// `/\evil.example` and `//evil.example` are all other servers.
fn return_path(return_url: &str, base: &BasePath, is_ours: impl FnOnce(&Origin) -> bool) -> String {
    const OURS: &str = "http://ours.invalid";
    let url = Url::parse(&format!("{OURS}{base}")).and_then(|start| start.join(return_url)).ok();
    let url = url.filter(|url| url.has_host());
    let Some(url) = url else { return "/".to_owned() };
    let origin = url.origin().ascii_serialization();
    if origin != OURS && !origin.parse().is_ok_and(|origin| is_ours(&origin)) {
        return "/".to_owned();
    }
    let Some(inside) = base.strip(url.path()) else { return "/".to_owned() };
    // "http://ours//evil.example" is on this server, but its path alone is another server's address.
    let mut path = format!("/{}", inside.trim_start_matches('/'));
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
    fn return_path_is_on_this_server() {
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
            assert_eq!(return_path(return_url, &BasePath::default(), ours), path, "{return_url}");
        }
        let base = "/meet".parse().unwrap();
        for (return_url, path) in [
            ("https://meet.example/meet/a%20b?c", "/a%20b?c"),
            ("/meet/r", "/r"),
            ("r", "/r"),
            ("/meet", "/"),
            ("/", "/"),
            ("/other/r", "/"),
            ("/meet/../other", "/"),
            ("/meet//evil.example", "/evil.example"),
            ("https://meet.example/meeting", "/"),
            ("https://evil.example/meet/a", "/"),
        ] {
            assert_eq!(return_path(return_url, &base, ours), path, "{return_url}");
        }
    }

    #[test]
    fn location_is_escaped_as_browsers_read_it() {
        for (path, location) in [
            ("/a%20b?x=%2F#y", "/a%20b?x=%2F#y"),
            ("/\\evil.example", "/%5Cevil.example"),
            ("/new?\u{e9}=\r\nset-cookie: a", "/new?%C3%A9=%0D%0Aset-cookie:%20a"),
        ] {
            for (response, status) in
                [(redirect(path), StatusCode::FOUND), (moved(path), StatusCode::PERMANENT_REDIRECT)]
            {
                assert_eq!(response.status(), status, "{path}");
                assert_eq!(response.headers()[LOCATION], location);
                assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
            }
        }
    }

    proptest! {
        #[test]
        fn location_never_leaves_this_server(return_url in r#"[/\\:.?#a-z@\t %]{0,24}"#) {
            let path = return_path(&return_url, &BasePath::default(), ours);
            let base = Url::parse("https://meet.example/set-username").unwrap();
            prop_assert!(path.starts_with('/') && !path.starts_with("//"));
            let target = base.join(&path).unwrap();
            prop_assert_eq!(target.host_str(), Some("meet.example"));
            let sent = redirect(&path);
            let sent = base.join(sent.headers()[LOCATION].to_str().unwrap()).unwrap();
            prop_assert_eq!((sent.host_str(), sent.path()), (Some("meet.example"), target.path()));
        }
    }
}
