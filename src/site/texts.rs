//! `GET /api/texts`: the page's words, in the best language that there is a table for, `texts/{language}.json`.
//!
//! A language is added by its file alone. The page has one address to ask, which its document can preload, in place of
//! a list of languages and a request for each that is missing.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, State};
use axum::http::header::{ACCEPT_LANGUAGE, CONTENT_LANGUAGE, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use axum::routing::get;

use super::Site;
use crate::http::context::HttpContext;
use crate::http::error::ApiError;

/// Maximum languages that are looked for; browsers send fewer.
const MAX_RANGES: usize = 16;

/// Maximum characters of a tag with a table.
const MAX_TAG: usize = 35;

/// The language of those who ask for no other one.
const DEFAULT: &str = "en";

/// Returns the route, which the page shares with pages of errors in front of another client.
pub fn router<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<HttpContext>: FromRef<S>,
    Arc<Site>: FromRef<S>,
{
    Router::new().route("/api/texts", get(texts))
}

async fn texts(
    State(http): State<Arc<HttpContext>>,
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut chosen = DEFAULT.to_owned();
    for tag in wanted(&headers) {
        if site.files.has(&path(&tag)).await.map_err(|_| ApiError::Internal)? {
            chosen = tag;
            break;
        }
    }
    let mut response = http.file(&site.files, &path(&chosen), &headers).await?;
    let answer = response.headers_mut();
    answer.insert(VARY, HeaderValue::from_static("accept-encoding, accept-language"));
    if let Ok(language) = HeaderValue::try_from(chosen) {
        answer.insert(CONTENT_LANGUAGE, language);
    }
    Ok(response)
}

fn path(tag: &str) -> String {
    format!("texts/{tag}.json")
}

/// The tags to look for, best first: each range of `Accept-Language` and what is left of it without its last subtags
/// (RFC 4647 section 3.4), up to the default.
fn wanted(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(ACCEPT_LANGUAGE).iter().filter_map(|line| line.to_str().ok());
    let mut ranges = Vec::new();
    for entry in lines.flat_map(|line| line.split(',')).take(MAX_RANGES) {
        let (tag, rest) = entry.split_once(';').unwrap_or((entry, ""));
        let weight = rest.trim().strip_prefix("q=").map_or(Some(1.0), |q| q.trim().parse().ok());
        let weight: f32 = weight.unwrap_or(0.0);
        let tag = tag.trim();
        let is_tag = tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if weight > 0.0 && is_tag && !tag.is_empty() && tag.len() <= MAX_TAG {
            ranges.push((tag, weight));
        }
    }
    ranges.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let mut tags = Vec::new();
    for (tag, _) in ranges {
        let mut left = Some(tag);
        while let Some(tag) = left {
            tags.push(tag.to_owned());
            left = tag.rsplit_once('-').map(|(shorter, _)| shorter);
        }
    }
    if let Some(default) = tags.iter().position(|tag| tag == DEFAULT) {
        tags.truncate(default);
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_ordered_and_shortened() {
        for (accepted, tags) in [
            ("de-AT,de;q=0.9,en;q=0.8,fr;q=0.7", &["de-AT", "de", "de"][..]),
            ("fr;q=0.1, zh-Hant-TW ;q=0.5", &["zh-Hant-TW", "zh-Hant", "zh", "fr"]),
            ("en-GB,de", &["en-GB"]),
            ("*, ../de, de;q=0, fr;q=x, de;q=NaN", &[]),
            ("", &[]),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_LANGUAGE, HeaderValue::from_static(accepted))]);
            assert_eq!(wanted(&headers), tags, "{accepted}");
        }
        let many = HeaderValue::try_from("a,".repeat(1000)).unwrap();
        assert_eq!(wanted(&HeaderMap::from_iter([(ACCEPT_LANGUAGE, many)])).len(), MAX_RANGES);
    }
}
