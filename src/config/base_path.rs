//! The server's base path and its public URL.

use std::fmt;
use std::sync::Arc;

use url::Url;

use super::value::{Origin, Text};

/// The most characters of a base path.
const MAX_CHARS: usize = 200;

/// The path prefix of a server without a trailing slash: `/meet`, or empty for a server at the root of its host.
///
/// Its characters need no escaping in URLs, HTML and cookies, so the path is written verbatim everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BasePath(Arc<str>);

impl BasePath {
    /// The path without a trailing slash; empty at the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if the server is at the root of its host.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The first segment; empty at the root.
    pub fn first_segment(&self) -> &str {
        self.0.split('/').nth(1).unwrap_or_default()
    }

    /// Removes this prefix from `path`, keeping the leading slash; `None` if `path` is not below it.
    pub fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix(self.as_str()).filter(|path| path.starts_with('/'))
    }
}

/// Writes the path with a trailing slash, as in browsers.
impl fmt::Display for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.0)
    }
}

impl Text for BasePath {
    const NOUN: &str = "a path that begins with a slash, and of which each part is of letters, digits, -, _, ~ \
                        and dots that do not begin it";
    const EXAMPLE: &str = "\"/meet\"";

    fn read(text: &str) -> Option<Self> {
        let is_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'~' | b'.');
        let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_char);
        let path = text.strip_prefix('/')?;
        if path.is_empty() {
            return Some(Self::default());
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let is_path = path.len() < MAX_CHARS && path.split('/').all(is_part);
        is_path.then(|| Self(format!("/{path}").into()))
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// The URL at which browsers reach the server: an origin and a base path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    origin: Origin,
    base_path: BasePath,
}

impl PublicUrl {
    /// The origin.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The base path.
    pub fn base_path(&self) -> &BasePath {
        &self.base_path
    }

    /// True if the scheme is `http` or `https`.
    pub fn is_web(&self) -> bool {
        self.origin.is_web()
    }

    /// True if the scheme is `https`.
    pub fn is_https(&self) -> bool {
        self.origin.as_str().starts_with("https:")
    }
}

impl Text for PublicUrl {
    const NOUN: &str = "a URL, scheme://host[:port][/path], with no query";
    const EXAMPLE: &str = "\"https://meet.example.org\"";

    fn read(text: &str) -> Option<Self> {
        let mut url = Url::parse(text).ok()?;
        let base_path = BasePath::read(if url.path().is_empty() { "/" } else { url.path() })?;
        url.set_path("");
        Some(Self { origin: Origin::read(url.as_str())?, base_path })
    }

    fn write(&self) -> String {
        format!("{}{}", self.origin, self.base_path.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_path_is_normalized_or_refused() {
        for (text, path) in
            [("/", ""), ("/meet", "/meet"), ("/meet/", "/meet"), ("/a/B-1_~.x/", "/a/B-1_~.x")]
        {
            let read: BasePath = text.parse().unwrap();
            assert_eq!((read.as_str(), read.is_root()), (path, path.is_empty()), "{text}");
            assert_eq!(BasePath::read(&read.write()), Some(read));
        }
        for text in [
            "",
            "meet",
            "meet/",
            "//",
            "//evil.example",
            "/a//b",
            "/a//",
            "/a/../b",
            "/..",
            "/.",
            "/.well-known",
            "/a?b",
            "/a#b",
            "/a;b",
            "/a b",
            "/a%20b",
            "/caf\u{e9}",
            "/a\"b",
            "https://a/b",
            "/a\\b",
        ] {
            assert!(text.parse::<BasePath>().is_err(), "{text}");
        }
        assert!(format!("/{}", "a".repeat(MAX_CHARS)).parse::<BasePath>().is_err());
    }

    #[test]
    fn strip_matches_whole_segments() {
        let base: BasePath = "/meet".parse().unwrap();
        for (path, inside) in [
            ("/meet/", Some("/")),
            ("/meet/r?", Some("/r?")),
            ("/meet//r", Some("//r")),
            ("/meet", None),
            ("/meeting/r", None),
            ("/Meet/r", None),
            ("/r", None),
            ("*", None),
        ] {
            assert_eq!(base.strip(path), inside, "{path}");
        }
        assert_eq!(BasePath::default().strip("/r"), Some("/r"));
    }

    #[test]
    fn public_url_has_an_origin_and_a_path() {
        for (text, origin, path) in [
            ("https://Meet.example", "https://meet.example", ""),
            ("https://meet.example:443/", "https://meet.example", ""),
            ("http://meet.example:8443/meet/", "http://meet.example:8443", "/meet"),
        ] {
            let url: PublicUrl = text.parse().unwrap();
            assert_eq!((url.origin().as_str(), url.base_path().as_str()), (origin, path));
            assert_eq!(PublicUrl::read(&url.write()), Some(url));
        }
        for text in [
            "meet.example",
            "https://a/b?c",
            "https://a/b#c",
            "https://me@a/",
            "https://a//b",
            "https://a/%20",
        ] {
            assert!(text.parse::<PublicUrl>().is_err(), "{text}");
        }
    }
}
