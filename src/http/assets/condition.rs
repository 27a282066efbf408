//! Conditional and range requests for a file.

use std::ops::Range;

use axum::http::HeaderMap;
use axum::http::header::{IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};

/// The requested part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestedPart {
    /// The whole file.
    Whole,
    /// A range of bytes.
    Bytes(Range<u64>),
    /// A range beyond the end of the file.
    Beyond,
}

/// True if the client has the file of this tag already (RFC 9110 section 13.1.2).
pub fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let lines = headers.get_all(IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).any(|known| {
        // A proxy that compresses makes the tag weak; `If-None-Match` compares weakly.
        known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
    })
}

/// True if the client accepts only another version than that of this tag (RFC 9110 section 13.1.1).
pub fn is_other_wanted(headers: &HeaderMap, tag: &str) -> bool {
    let mut lines = headers.get_all(IF_MATCH).iter().peekable();
    let is_asked = lines.peek().is_some();
    let mut wanted = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    // `If-Match` compares strongly: a weak tag never matches.
    is_asked && !wanted.any(|wanted| ["*", tag].contains(&wanted.trim()))
}

/// Returns the requested part of a file of this tag and length (RFC 9110 section 14.2).
///
/// Several ranges, or malformed ones, get the whole file: no player needs them.
pub fn part(headers: &HeaderMap, tag: &str, length: u64) -> RequestedPart {
    let mut ranges = headers.get_all(RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return RequestedPart::Whole };
    // A part of another version would not fit the client's.
    if headers.get(IF_RANGE).is_some_and(|known| known.as_bytes() != tag.as_bytes()) {
        return RequestedPart::Whole;
    }
    let range = range.to_str().ok().and_then(|range| range.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.trim().split_once('-')) else {
        return RequestedPart::Whole;
    };
    let number = |text: &str| match text {
        text if text.bytes().all(|b| b.is_ascii_digit()) => text.parse::<u64>().ok(),
        _ => None,
    };
    let bytes = match (number(first), number(last), first, last) {
        (Some(first), Some(last), ..) if first > last => return RequestedPart::Whole,
        (Some(first), Some(last), ..) => first..last.saturating_add(1).min(length),
        (Some(first), None, _, "") => first..length,
        (None, Some(0), "", _) => return RequestedPart::Beyond,
        (None, Some(last), "", _) => length.saturating_sub(last)..length,
        _ => return RequestedPart::Whole,
    };
    if bytes.start < length { RequestedPart::Bytes(bytes) } else { RequestedPart::Beyond }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let lines = lines.iter();
        lines.map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn known_tag_is_found_among_others() {
        for (known, is) in [
            (r#""a""#, true),
            (r#"W/"a""#, true),
            (r#""b", "a""#, true),
            ("*", true),
            (r#""b""#, false),
            ("a", false),
            ("", false),
        ] {
            assert_eq!(is_known(&headers(&[(IF_NONE_MATCH, known)]), r#""a""#), is, "{known}");
        }
        assert!(!is_known(&HeaderMap::new(), r#""a""#));
    }

    #[test]
    fn if_match_accepts_only_the_wanted_version() {
        for (wanted, is_other) in [
            (r#""a""#, false),
            (r#""b", "a""#, false),
            ("*", false),
            (r#"W/"a""#, true),
            (r#""b""#, true),
            ("", true),
        ] {
            assert_eq!(is_other_wanted(&headers(&[(IF_MATCH, wanted)]), r#""a""#), is_other, "{wanted}");
        }
        assert!(!is_other_wanted(&HeaderMap::new(), r#""a""#));
    }

    #[test]
    fn ranges_follow_the_rfc() {
        for (range, expected) in [
            ("bytes=0-0", RequestedPart::Bytes(0..1)),
            ("bytes=0-9", RequestedPart::Bytes(0..10)),
            ("bytes=2-", RequestedPart::Bytes(2..10)),
            ("bytes=2-99", RequestedPart::Bytes(2..10)),
            ("bytes=-3", RequestedPart::Bytes(7..10)),
            ("bytes=-99", RequestedPart::Bytes(0..10)),
            ("bytes=10-", RequestedPart::Beyond),
            ("bytes=10-20", RequestedPart::Beyond),
            ("bytes=-0", RequestedPart::Beyond),
            ("bytes=3-2", RequestedPart::Whole),
            ("bytes=0-1,4-5", RequestedPart::Whole),
            ("bytes=-", RequestedPart::Whole),
            ("bytes=+1-2", RequestedPart::Whole),
            ("bytes=a-b", RequestedPart::Whole),
            ("lines=0-1", RequestedPart::Whole),
            ("", RequestedPart::Whole),
        ] {
            assert_eq!(part(&headers(&[(RANGE, range)]), r#""a""#, 10), expected, "{range}");
        }
        let empty = headers(&[(RANGE, "bytes=0-")]);
        assert_eq!(part(&empty, r#""a""#, 0), RequestedPart::Beyond);
    }

    #[test]
    fn if_range_mismatch_gets_whole_file() {
        for (known, expected) in [
            (r#""a""#, RequestedPart::Bytes(0..1)),
            (r#""b""#, RequestedPart::Whole),
            (r#"W/"a""#, RequestedPart::Whole),
        ] {
            let headers = headers(&[(RANGE, "bytes=0-0"), (IF_RANGE, known)]);
            assert_eq!(part(&headers, r#""a""#, 10), expected, "{known}");
        }
    }

    proptest! {
        #[test]
        fn part_is_nonempty_and_within_the_file(range in "bytes=[0-9]{0,20}-[0-9]{0,20}", length in 0..100_u64) {
            if let RequestedPart::Bytes(bytes) = part(&headers(&[(RANGE, &range)]), r#""a""#, length) {
                prop_assert!(bytes.start < bytes.end && bytes.end <= length);
            }
        }
    }
}
