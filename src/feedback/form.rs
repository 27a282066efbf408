//! Reads the body of a report: a form in either encoding, or JSON, within its limits.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use futures_util::StreamExt;
use serde_json::value::RawValue;
use url::form_urlencoded;

use super::budget::{Upload, UploadBudget};
use crate::http::error::ApiError;
use crate::id::visible;
use crate::network::ClientNetwork;

/// The most characters of a name.
pub const NAME_CHARS: usize = 254;

/// The bytes that a request says its body has, where it says so.
pub fn announced_bytes(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Where a body's memory comes from.
#[derive(Clone, Copy, Debug)]
pub struct BodyRoom<'a> {
    /// The memory for all.
    pub uploads: &'a UploadBudget,
    /// The network of the one who sends it, where it is known.
    pub network: Option<ClientNetwork>,
    /// The most bytes of this body.
    pub most_bytes: usize,
}

/// Reads a body whole; its memory is free again when the [`Upload`] is dropped.
///
/// # Errors
/// [`ApiError::BodyTooLarge`] if it is longer than it may be, [`ApiError::UploadsBusy`] if there is no
/// memory for it, [`ApiError::BrokenBody`] if it ends early.
pub async fn read_body(
    headers: &HeaderMap,
    body: Body,
    room: BodyRoom<'_>,
) -> Result<(Bytes, Upload), ApiError> {
    let BodyRoom { uploads, network, most_bytes } = room;
    let announced = announced_bytes(headers);
    if announced.is_some_and(|bytes| bytes > most_bytes) {
        return Err(ApiError::BodyTooLarge);
    }
    let upload = match uploads.reserve(announced.unwrap_or(most_bytes), network).await {
        Ok(upload) => upload,
        Err(busy) => {
            drain(body, most_bytes).await;
            return Err(busy);
        }
    };
    // Reserved already, and in one piece: a vector that grows would take twice as much.
    let mut whole = Vec::with_capacity(announced.unwrap_or_default());
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::BrokenBody)?;
        if whole.len() + chunk.len() > most_bytes {
            return Err(ApiError::BodyTooLarge);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok((whole.into(), upload))
}

/// Reads and drops a body that nobody wants, of at most `most_bytes`: a browser that is still sending
/// when it is answered may never see the answer.
pub async fn drain(body: Body, most_bytes: usize) {
    let mut chunks = body.into_data_stream();
    let mut drained = 0;
    while let Some(Ok(chunk)) = chunks.next().await {
        drained += chunk.len();
        if drained > most_bytes {
            break;
        }
    }
}

/// Reads a form, as `multipart/form-data` or url-encoded, and takes the fields of these names out.
///
/// Of a field that comes several times the first one counts; others are not kept.
///
/// # Errors
/// As [`read_body`]; [`ApiError::NotAForm`] for another content type; [`ApiError::InvalidField`] if a
/// field is no UTF-8.
pub async fn read_form<const N: usize>(
    request: Request,
    names: [&'static str; N],
    room: BodyRoom<'_>,
) -> Result<([Option<String>; N], Upload), ApiError> {
    let (parts, body) = request.into_parts();
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match &*kind {
        "multipart/form-data" => {
            let (bytes, upload) = read_body(&parts.headers, body, room).await?;
            let request = Request::from_parts(parts, Body::from(bytes));
            let form = Multipart::from_request(request, &()).await.map_err(|_| ApiError::BrokenBody)?;
            Ok((multipart(form, names).await?, upload))
        }
        "application/x-www-form-urlencoded" => {
            let (bytes, upload) = read_body(&parts.headers, body, room).await?;
            let decode = move || url_encoded(&bytes, names);
            // Megabytes take their time, in which rooms are to go on.
            let found = tokio::task::spawn_blocking(decode).await.map_err(|_| ApiError::Internal)?;
            Ok((found, upload))
        }
        _ => Err(ApiError::NotAForm),
    }
}

async fn multipart<const N: usize>(
    mut form: Multipart,
    names: [&'static str; N],
) -> Result<[Option<String>; N], ApiError> {
    let mut found = [const { None }; N];
    while let Some(field) = form.next_field().await.map_err(|_| ApiError::BrokenBody)? {
        let at = names.iter().position(|name| field.name() == Some(*name));
        let Some(at) = at.filter(|&at| found[at].is_none()) else { continue };
        let bytes = field.bytes().await.map_err(|_| ApiError::BrokenBody)?;
        let text = String::from_utf8(bytes.into());
        let wrong = ApiError::InvalidField { field: names[at], rule: "is not UTF-8" };
        found[at] = Some(text.map_err(|_| wrong)?);
    }
    Ok(found)
}

fn url_encoded<const N: usize>(bytes: &[u8], names: [&'static str; N]) -> [Option<String>; N] {
    let mut found = [const { None }; N];
    for (name, value) in form_urlencoded::parse(bytes) {
        let at = names.iter().position(|known| *known == name);
        if let Some(at) = at.filter(|&at| found[at].is_none()) {
            found[at] = Some(value.into_owned());
        }
    }
    found
}

/// The text of a JSON member, if it is there and not null.
///
/// # Errors
/// [`ApiError::InvalidField`] if it is no text of at most `most_chars` characters.
pub fn text(
    member: Option<&RawValue>,
    field: &'static str,
    most_chars: usize,
) -> Result<Option<String>, ApiError> {
    let Some(member) = member else { return Ok(None) };
    let text: String = serde_json::from_str(member.get())
        .map_err(|_| ApiError::InvalidField { field, rule: "is not a text" })?;
    if text.chars().count() > most_chars {
        return Err(ApiError::InvalidField { field, rule: "is too long" });
    }
    Ok(Some(text))
}

/// The same for what a client says that somebody's name is: without what turns or hides the text beside it.
///
/// # Errors
/// Those of [`text`].
pub fn name(member: Option<&RawValue>, field: &'static str) -> Result<Option<String>, ApiError> {
    Ok(text(member, field, NAME_CHARS)?.map(|name| visible(&name).into_owned()))
}

/// The same, where it must be there and not empty.
///
/// # Errors
/// [`ApiError::MissingField`] beside those of [`text`].
pub fn required_text(
    member: Option<&RawValue>,
    field: &'static str,
    most_chars: usize,
) -> Result<String, ApiError> {
    text(member, field, most_chars)?.filter(|text| !text.is_empty()).ok_or(ApiError::MissingField(field))
}
