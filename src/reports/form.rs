//! Reading of a report's body: a form in either encoding, or JSON, within limits.

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

/// Maximum length of a name in characters.
pub const NAME_CHARS: usize = 254;

/// Returns the `Content-Length`, if any.
pub fn announced_bytes(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A body's memory and size limit.
#[derive(Clone, Copy, Debug)]
pub struct BodyBudget<'a> {
    /// The memory for all forms.
    pub uploads: &'a UploadBudget,
    /// The sender's network, if known.
    pub network: Option<ClientNetwork>,
    /// Maximum length of this body in bytes.
    pub most_bytes: usize,
}

/// Reads a whole body; its memory is released when the [`Upload`] is dropped.
///
/// # Errors
/// [`ApiError::BodyTooLarge`] if it exceeds the limit, [`ApiError::UploadsBusy`] if there is no memory for it,
/// [`ApiError::BrokenBody`] if it ends early.
pub async fn read_body(
    headers: &HeaderMap,
    body: Body,
    budget: BodyBudget<'_>,
) -> Result<(Bytes, Upload), ApiError> {
    let BodyBudget { uploads, network, most_bytes } = budget;
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
    // Allocated at once, as reserved: a growing vector would take twice as much.
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

/// Reads and discards an unwanted body of at most `most_bytes`: a browser that is still sending may never
/// see the answer.
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

/// Reads a form, as `multipart/form-data` or url-encoded, and extracts the fields of these names.
///
/// The first of several fields of one name counts; other fields are discarded.
///
/// # Errors
/// As [`read_body`]; [`ApiError::NotAForm`] for another content type; [`ApiError::InvalidField`] if a field
/// is not UTF-8.
pub async fn read_form<const N: usize>(
    request: Request,
    names: [&'static str; N],
    budget: BodyBudget<'_>,
) -> Result<([Option<String>; N], Upload), ApiError> {
    let (parts, body) = request.into_parts();
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match &*kind {
        "multipart/form-data" => {
            let (bytes, upload) = read_body(&parts.headers, body, budget).await?;
            let request = Request::from_parts(parts, Body::from(bytes));
            let form = Multipart::from_request(request, &()).await.map_err(|_| ApiError::BrokenBody)?;
            Ok((multipart(form, names).await?, upload))
        }
        "application/x-www-form-urlencoded" => {
            let (bytes, upload) = read_body(&parts.headers, body, budget).await?;
            let decode = move || url_encoded(&bytes, names);
            // Decoding megabytes would block the rooms of this thread.
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

/// Parses the text of a JSON member, if present and not null.
///
/// # Errors
/// [`ApiError::InvalidField`] if it is not a text of at most `most_chars` characters.
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

/// Parses a user's name as [`text`], removing characters that reverse or hide the text beside it.
///
/// # Errors
/// As [`text`].
pub fn name(member: Option<&RawValue>, field: &'static str) -> Result<Option<String>, ApiError> {
    Ok(text(member, field, NAME_CHARS)?.map(|name| visible(&name).into_owned()))
}

/// Parses a required, non-empty text as [`text`].
///
/// # Errors
/// [`ApiError::MissingField`] if it is missing or empty, and those of [`text`].
pub fn required_text(
    member: Option<&RawValue>,
    field: &'static str,
    most_chars: usize,
) -> Result<String, ApiError> {
    text(member, field, most_chars)?.filter(|text| !text.is_empty()).ok_or(ApiError::MissingField(field))
}
