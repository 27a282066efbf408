//! Redirects within this server.

use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::ApiError;

/// Characters to escape in a path segment and in a query value: all but RFC 3986's unreserved characters
/// (section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Characters to escape in an already escaped path: those that no header or URL may contain, and the
/// backslash, which browsers read as a slash.
const LOCATION_PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\');

/// Redirects by 302 to a path on this server.
pub fn redirect(path: &str) -> Response {
    to(StatusCode::FOUND, path)
}

/// Redirects by 308 to a path on this server; the browser sends a form there unchanged.
pub fn moved(path: &str) -> Response {
    to(StatusCode::PERMANENT_REDIRECT, path)
}

fn to(status: StatusCode, path: &str) -> Response {
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

/// Appends the query of `uri` to a path.
pub fn with_query(path: String, uri: &Uri) -> String {
    match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
