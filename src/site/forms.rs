//! The forms of the start page and of the username, and the redirect to a new room.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, FromRef, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use url::{Url, form_urlencoded};

use super::Page;
use super::error_page::form_again;
use super::reserved::reserved;
use crate::auth::access_token::AccessTokens;
use crate::auth::peer::RemotePeer;
use crate::auth::{Auth, AuthMethod};
use crate::clock::wall_clock;
use crate::config::{BasePath, Origin};
use crate::http::context::HttpContext;
use crate::http::error::ApiError;
use crate::http::extract::with_cookie;
use crate::http::redirect::{escape, redirect, with_query};
use crate::id::RoomName;

/// Returns the routes that the stock client shares.
pub fn router<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<HttpContext>: FromRef<S>,
{
    Router::new()
        .route("/new", get(new_room))
        .route("/set-username", post(set_name))
        .route("/api/logout", post(sign_out))
}

/// A form as received.
pub type FormFields = Result<Form<Vec<(String, String)>>, FormRejection>;

/// Returns the field of this name; the first one if there are several.
///
/// # Errors
/// Returns the error to show if the form is malformed or lacks the field.
pub fn field(fields: FormFields, name: &'static str) -> Result<String, ApiError> {
    let Form(fields) = fields.map_err(|refused| match refused {
        FormRejection::InvalidFormContentType(_) => ApiError::NotUrlEncoded,
        refused if refused.status() == StatusCode::PAYLOAD_TOO_LARGE => ApiError::BodyTooLarge,
        _ => ApiError::BrokenBody,
    })?;
    let found = fields.into_iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value).ok_or(ApiError::MissingField(name))
}

/// `POST /set-username`: sets the username and redirects to the page the visitor came from.
async fn set_name(
    State(http): State<Arc<HttpContext>>,
    peer: RemotePeer,
    auth: Auth,
    uri: Uri,
    headers: HeaderMap,
    fields: FormFields,
) -> Result<Response, ApiError> {
    let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let return_url = query.into_iter().find(|(name, _)| name == "return-url").map(|(_, url)| url);
    let return_url = return_url.unwrap_or_default();
    let is_ours = |origin: &Origin| http.origins.leads_here(origin, &peer);
    let back = redirect(&return_path(&return_url, &http.base_path, is_ours));
    // A name from a proxy or from Access takes precedence over the form's.
    if let Auth::User { by: AuthMethod::ProxyHeader | AuthMethod::Access, .. } = auth {
        return Ok(back);
    }
    if !http.identities.takes_names() {
        return Err(http.unauthenticated());
    }
    let (typed, error) = match field(fields, "username") {
        Ok(name) => match http.identities.sign_in(&headers, &name, &peer, wall_clock()) {
            Ok(cookie) => {
                let mut response = with_cookie(back, Some(cookie));
                if let Auth::User { by: AuthMethod::Token, .. } = auth {
                    // Whoever chooses a name leaves the identity of a link.
                    let removal = AccessTokens::set_cookie("", 0, &peer, wall_clock());
                    response.headers_mut().append(SET_COOKIE, removal);
                }
                return Ok(response);
            }
            Err(error) => (name, error.into()),
        },
        Err(error) => (String::new(), error),
    };
    Ok(form_again(error, Page::Name, typed))
}

/// `POST /api/logout`: leaves the identity of a login, or of a link.
async fn sign_out(peer: RemotePeer) -> Response {
    let mut response = redirect("/");
    response.headers_mut().append(SET_COOKIE, AccessTokens::set_cookie("", 0, &peer, wall_clock()));
    response
}

/// `GET /new`: redirects to a room with an unguessable name that can be read aloud.
async fn new_room(uri: Uri) -> Result<Response, ApiError> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| ApiError::Internal)?;
    Ok(redirect(&with_query(format!("/{}", readable(u64::from_le_bytes(random))), &uri)))
}

/// Syllables of a random name, in groups of two: 16 consonants and 5 vowels are 80 syllables, eight of which are 50 bits.
const SYLLABLES: usize = 8;

/// A name of syllables, such as `bako-lufe-rimo-zuda`.
fn readable(mut random: u64) -> String {
    const CONSONANTS: [char; 16] =
        ['b', 'd', 'f', 'g', 'h', 'j', 'k', 'l', 'm', 'n', 'p', 'r', 's', 't', 'v', 'z'];
    const VOWELS: [char; 5] = ['a', 'e', 'i', 'o', 'u'];
    let mut pick = |letters: &[char]| {
        let count = letters.len() as u64;
        let letter = letters[usize::try_from(random % count).unwrap_or(0)];
        random /= count;
        letter
    };
    let mut name = String::new();
    for syllable in 0..SYLLABLES {
        if syllable > 0 && syllable % 2 == 0 {
            name.push('-');
        }
        name.push(pick(&CONSONANTS));
        name.push(pick(&VOWELS));
    }
    name
}

/// `POST /?index`: redirects to the room of that name.
pub async fn open_room(State(http): State<Arc<HttpContext>>, fields: FormFields) -> Response {
    let (typed, error) = match field(fields, "room") {
        Ok(typed) => match room_path(&http, &typed) {
            Ok(path) => return redirect(&path),
            Err(error) => (typed, error),
        },
        Err(error) => (String::new(), error),
    };
    form_again(error, Page::Start, typed)
}

/// Returns the path of the room that a user wants to open.
///
/// # Errors
/// Returns the error to show if no room can have that name.
pub fn room_path(http: &HttpContext, typed: &str) -> Result<String, ApiError> {
    let room = RoomName::parse(&typed.trim().replace(' ', "-"))?;
    // A proxy that strips the base path would take this room's page for the start page.
    let is_base = room.as_str() == http.base_path.first_segment();
    if is_base || reserved(room.as_str()).is_some() {
        return Err(ApiError::NameTaken);
    }
    Ok(format!("/{}", escape(room.as_str())))
}

/// Redirects a client without a name to the name form, which leads back to `uri`.
///
/// # Errors
/// [`ApiError::LoginRequired`] if this server accepts no names.
pub fn name_needed(http: &HttpContext, uri: &Uri, peer: &RemotePeer) -> Result<Response, ApiError> {
    if !http.identities.takes_names() {
        return Err(http.unauthenticated());
    }
    let form = format!("/set-username?return-url={}", escape(&whole_url(uri, peer)));
    // Escaping may make a long URL exceed the limit; losing the return URL is better than losing the visitor.
    Ok(redirect(if form.len() <= http.url_bytes { &form } else { "/set-username" }))
}

/// Returns the address of a request: absolute if its host is known.
pub(super) fn whole_url(uri: &Uri, peer: &RemotePeer) -> String {
    let (base, path) = (peer.base_path.as_str(), uri.path_and_query().map_or("/", |path| path.as_str()));
    match &peer.host {
        Some(host) => format!("{}://{host}{base}{path}", peer.scheme.as_str()),
        None => format!("{base}{path}"),
    }
}

/// Returns the path below `base` that `return_url` names, or `/` if it names another server.
///
/// Parsed as browsers do (WHATWG URL), so that both read the same target: `\\evil.example`,
/// `/\evil.example` and `//evil.example` are all other servers.
pub fn return_path(return_url: &str, base: &BasePath, is_ours: impl FnOnce(&Origin) -> bool) -> String {
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
    use axum::http::header::LOCATION;
    use proptest::prelude::*;

    use super::*;

    fn ours(origin: &Origin) -> bool {
        origin.to_string() == "https://meet.example"
    }

    #[test]
    fn random_names_are_readable_and_differ() {
        assert_eq!(readable(0), "baba-baba-baba-baba");
        // The last syllable depends on the highest of the random bits that are used.
        assert_ne!(readable(0), readable(80_u64.pow(7)));
        let names: std::collections::BTreeSet<_> = (0..80 * 80).map(readable).collect();
        assert_eq!(names.len(), 80 * 80);
        assert!(names.iter().all(|name| RoomName::parse(name).is_ok() && name.len() == 19));
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
