//! Normalization of page addresses, and the room that an address names.

use axum::extract::Request;
use axum::http::Uri;
use axum::middleware::Next;
use axum::response::Response;
use percent_encoding::percent_decode_str;

use super::reserved::{ReservedFor, reserved};
use crate::http::error::ApiError;
use crate::http::redirect::{moved, with_query};
use crate::id::RoomName;

/// Redirects a page's other spellings to its one address.
///
/// The stock client's router accepts `/Set-Username` and `/new/`, too, and sends their forms there.
pub async fn normalize_path(request: Request, next: Next) -> Response {
    match respelled(request.uri()) {
        Some(address) => moved(&address),
        None => next.run(request).await,
    }
}

/// Returns the normal address of the page that `uri` spells differently; `None` if it is normal already.
fn respelled(uri: &Uri) -> Option<String> {
    let path = uri.path().strip_prefix('/')?;
    let bare = path.trim_end_matches('/');
    let page = if bare.is_empty() {
        ""
    } else {
        let name = percent_decode_str(bare).decode_utf8().ok()?;
        reserved(&name).filter(|(_, by)| *by == ReservedFor::Page)?.0
    };
    (page != path).then(|| with_query(format!("/{page}"), uri))
}

/// Returns the room of the page at `path`, which is percent-encoded as sent.
///
/// Stricter than a socket's address: a browser's `decodeURIComponent` rejects some encodings, and such a
/// page would have no room.
///
/// # Errors
/// Returns the error to show if the path names no valid room.
pub fn room_of(path: &str) -> Result<RoomName, ApiError> {
    let segment = path.split('/').nth(1).unwrap_or_default();
    let is_encoded = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !segment.split('%').skip(1).all(is_encoded) {
        return Err(ApiError::BrokenEncoding);
    }
    let name = percent_decode_str(segment).decode_utf8().map_err(|_| ApiError::BrokenEncoding)?;
    let room = RoomName::parse(&name)?;
    if reserved(room.as_str()).is_some_and(|(_, by)| by == ReservedFor::Sockets) {
        return Err(ApiError::NameTaken);
    }
    Ok(room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::InvalidId;

    #[test]
    fn page_has_one_address() {
        for (asked, address) in [
            ("/set-username/", Some("/set-username")),
            ("/Set-Username?return-url=%2Fr&_data=x", Some("/set-username?return-url=%2Fr&_data=x")),
            ("/set%2dusername//", Some("/set-username")),
            ("/NEW/?x=1", Some("/new?x=1")),
            ("/n%65w", Some("/new")),
            ("/call-quality-feedback/", Some("/call-quality-feedback")),
            ("//", Some("/")),
            ("/", None),
            ("/?x", None),
            ("/set-username", None),
            ("/new", None),
            ("/new/room", None),
            ("/%2Fnew", None),
            ("//new", None),
            ("/static/", None),
            ("/r/", None),
            ("/%ff", None),
        ] {
            assert_eq!(respelled(&asked.parse().unwrap()).as_deref(), address, "{asked}");
        }
    }

    #[test]
    fn page_browser_and_socket_agree_on_room() {
        let long = "a".repeat(129);
        for (path, name) in [
            ("/a", "a"),
            ("/a/room", "a"),
            ("/a%20b%2Fc/", "a b/c"),
            ("/caf%c3%a9", "café"),
            ("/100%25", "100%"),
            ("/static/room", "static"),
        ] {
            assert_eq!(room_of(path).unwrap().as_str(), name, "{path}");
        }
        for (path, error) in [
            ("/%", ApiError::BrokenEncoding),
            ("/%zz", ApiError::BrokenEncoding),
            ("/a%2", ApiError::BrokenEncoding),
            ("/%ff", ApiError::BrokenEncoding),
            ("/%+1", ApiError::BrokenEncoding),
            ("/%00", ApiError::InvalidId(InvalidId::RoomName)),
            ("/a%0d%0ab", ApiError::InvalidId(InvalidId::RoomName)),
            (&format!("/{long}"), ApiError::InvalidId(InvalidId::RoomName)),
            ("//room", ApiError::InvalidId(InvalidId::RoomName)),
            ("/%2e%2E", ApiError::InvalidId(InvalidId::DotSegment)),
            ("/Parties/room", ApiError::NameTaken),
        ] {
            assert_eq!(room_of(path), Err(error), "{path}");
        }
    }
}
