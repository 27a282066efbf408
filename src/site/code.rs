//! `GET /api/rooms/{room}/code.svg`: a QR code of the room's address, for a phone to scan from a screen.
//!
//! It shows the address of that room at the host that was asked, and nothing that a client chooses: a drawing service for
//! any text would invite others to use it.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};

use super::POLICY;
use super::forms::whole_url;
use super::paths::room_of;
use crate::auth::peer::RemotePeer;
use crate::http::error::ApiError;
use crate::http::extract::CurrentUser;
use crate::http::page_policy::protect;
use crate::http::redirect::escape;

/// Pixels of a module: every one is the same, so that the picture is sharp at its own size.
const MODULE: u32 = 6;

/// Answers with the picture.
pub async fn code(CurrentUser(_): CurrentUser, peer: RemotePeer, uri: Uri) -> Result<Response, ApiError> {
    let room = room_of(uri.path().strip_prefix("/api/rooms").unwrap_or_default())?;
    let page = format!("/{}", escape(room.as_str())).parse().map_err(|_| ApiError::Internal)?;
    let picture = draw(&whole_url(&page, &peer)).ok_or(ApiError::Internal)?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("image/svg+xml")),
        (CACHE_CONTROL, HeaderValue::from_static("private, max-age=3600")),
    ];
    let mut response = (headers, picture).into_response();
    protect(response.headers_mut(), POLICY, &peer);
    Ok(response)
}

/// Draws a text; `None` if it is longer than any code can hold, which no address of a room is.
fn draw(text: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M).ok()?;
    Some(code.render::<svg::Color<'_>>().module_dimensions(MODULE, MODULE).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_address_of_a_room_can_be_drawn() {
        // 128 characters of four bytes, each byte escaped, below a long host.
        let longest = format!("https://{}/{}", "h".repeat(253), "%F0%9F%8D%8A".repeat(128));
        let drawn = draw(&longest).unwrap();
        assert!(drawn.starts_with("<?xml") && drawn.len() < 300_000, "{}", drawn.len());
        assert_ne!(draw("http://a/r"), draw("http://a/s"));
    }
}
