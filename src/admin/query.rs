//! Query parameters of the operators' lists: a page, newest first.

use axum::http::Uri;
use url::form_urlencoded;

use crate::http::error::ApiError;
use crate::id::RoomName;
use crate::store::reports::{Cursor, ReportFilter, ReportKind};

const DEFAULT_LIMIT: u32 = 50;
const MOST: u32 = 200;

/// A page of a list: its filter, start and size.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) filter: ReportFilter,
    pub(super) before: Option<Cursor>,
    pub(super) limit: u32,
}

/// Filters that a list supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filters {
    Reports,
    None,
}

impl Page {
    /// Parses a query.
    ///
    /// # Errors
    /// [`ApiError::InvalidQuery`] for invalid or unknown parameters: an ignored filter would return unwanted lines.
    pub(super) fn read(uri: &Uri, filters: Filters) -> Result<Self, ApiError> {
        let mut page = Self { filter: ReportFilter::default(), before: None, limit: DEFAULT_LIMIT };
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            match (&*name, filters) {
                ("limit", _) => {
                    let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                    page.limit = limit.ok_or(ApiError::InvalidQuery("limit is 1 to 200"))?;
                }
                ("before", _) => {
                    let wrong = ApiError::InvalidQuery("before is what an answer gave as next");
                    page.before = Some(value.parse().map_err(|_| wrong)?);
                }
                ("kind", Filters::Reports) => {
                    let wrong = ApiError::InvalidQuery("kind is bug or dead_track");
                    page.filter.kind = Some(ReportKind::parse(&value).ok_or(wrong)?);
                }
                ("room", Filters::Reports) => {
                    let wrong = ApiError::InvalidQuery("room is not a room's name");
                    page.filter.room = Some(RoomName::parse(&value).map_err(|_| wrong)?);
                }
                (_, Filters::Reports) => {
                    return Err(ApiError::InvalidQuery("parameters are kind, room, before and limit"));
                }
                (_, Filters::None) => {
                    return Err(ApiError::InvalidQuery("parameters are before and limit"));
                }
            }
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, filters: Filters) -> Result<Page, String> {
        Page::read(&format!("/x?{query}").parse().unwrap(), filters).map_err(|error| error.to_string())
    }

    #[test]
    fn page_query_is_parsed() {
        let page = read("", Filters::Reports).unwrap();
        assert_eq!((page.limit, page.before, page.filter.kind), (50, None, None));
        let before = "2026-11-22T01:02:03.004Z_00000000-0000-4000-8000-000000000000";
        let query = format!("kind=dead_track&room=my+room&limit=200&before={before}");
        let page = read(&query, Filters::Reports).unwrap();
        assert_eq!(page.filter.kind, Some(ReportKind::DeadTrack));
        assert_eq!(page.filter.room.unwrap().as_str(), "my room");
        assert_eq!((page.limit, page.before.unwrap().to_string()), (200, before.to_owned()));
    }

    #[test]
    fn error_names_the_invalid_parameter() {
        for (query, filters, name) in [
            ("limit=0", Filters::None, "limit"),
            ("limit=201", Filters::None, "limit"),
            ("limit=many", Filters::Reports, "limit"),
            ("before=yesterday", Filters::None, "before"),
            ("before=2026-11-22T01:02:03.004Z_x", Filters::None, "before"),
            ("kind=cat", Filters::Reports, "kind"),
            ("room=", Filters::Reports, "room"),
            ("kind=bug", Filters::None, "parameters are before and limit"),
            ("knd=bug", Filters::Reports, "parameters are kind, room"),
        ] {
            let error = read(query, filters).unwrap_err();
            assert!(error.contains(name), "{query}: {error}");
        }
    }
}
