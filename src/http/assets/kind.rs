//! Media type, compressibility and cache lifetime of a file, from its name.

/// Media type and compressibility of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileKind {
    /// The media type.
    pub content_type: &'static str,
    /// Compressibility of the file.
    pub nature: Nature,
}

/// Compressibility of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Compression makes it smaller.
    Text,
    /// Compressed already.
    Packed,
}

/// Time for which a browser may use a file without revalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Unlimited: the file's name contains a hash of its content.
    Immutable,
    /// None: the browser revalidates each time.
    Revalidated,
}

/// Media types by file extension: IANA's registry, and RFC 9239 for scripts.
#[rustfmt::skip]
const KINDS: [(&str, &str, Nature); 35] = [
    ("aac", "audio/aac", Nature::Packed),
    ("avif", "image/avif", Nature::Packed),
    ("css", "text/css; charset=utf-8", Nature::Text),
    ("csv", "text/csv; charset=utf-8", Nature::Text),
    ("gif", "image/gif", Nature::Packed),
    ("htm", "text/html; charset=utf-8", Nature::Text),
    ("html", "text/html; charset=utf-8", Nature::Text),
    ("ico", "image/x-icon", Nature::Text),
    ("jpeg", "image/jpeg", Nature::Packed),
    ("jpg", "image/jpeg", Nature::Packed),
    ("js", "text/javascript; charset=utf-8", Nature::Text),
    ("json", "application/json", Nature::Text),
    ("m4a", "audio/mp4", Nature::Packed),
    ("map", "application/json", Nature::Text),
    ("md", "text/markdown; charset=utf-8", Nature::Text),
    ("mjs", "text/javascript; charset=utf-8", Nature::Text),
    ("mp3", "audio/mpeg", Nature::Packed),
    ("mp4", "video/mp4", Nature::Packed),
    ("oga", "audio/ogg", Nature::Packed),
    ("ogg", "audio/ogg", Nature::Packed),
    ("onnx", "application/octet-stream", Nature::Text),
    ("otf", "font/otf", Nature::Text),
    ("pdf", "application/pdf", Nature::Packed),
    ("png", "image/png", Nature::Packed),
    ("svg", "image/svg+xml", Nature::Text),
    ("ttf", "font/ttf", Nature::Text),
    ("txt", "text/plain; charset=utf-8", Nature::Text),
    ("wasm", "application/wasm", Nature::Text),
    ("wav", "audio/wav", Nature::Text),
    ("webm", "video/webm", Nature::Packed),
    ("webmanifest", "application/manifest+json", Nature::Text),
    ("webp", "image/webp", Nature::Packed),
    ("woff", "font/woff", Nature::Packed),
    ("woff2", "font/woff2", Nature::Packed),
    ("xml", "text/xml; charset=utf-8", Nature::Text),
];

impl FileKind {
    /// Returns a file's kind. An unknown extension means bytes, which no browser runs or shows.
    pub fn of(name: &str) -> Self {
        let end = name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase());
        let known = KINDS.iter().find(|(known, ..)| end.as_deref() == Some(known));
        let &(_, content_type, nature) = known.unwrap_or(&("", "application/octet-stream", Nature::Packed));
        Self { content_type, nature }
    }

    /// True if a browser renders such a file as a document, whose scripts run.
    pub fn is_shown(self) -> bool {
        ["text/html", "image/svg", "text/xml"].iter().any(|kind| self.content_type.starts_with(kind))
    }
}

impl Freshness {
    /// Returns the freshness of the file at a path.
    ///
    /// Remix writes everything below `build/`, with eight letters and digits of a hash before the
    /// extension. Elsewhere the same form may be an ordinary word, in a file that changes later.
    pub fn of(path: &str) -> Self {
        let name = path.strip_prefix("build/").and_then(|inside| inside.rsplit('/').next());
        let stem = name.and_then(|name| name.rsplit_once('.')).map(|(stem, _)| stem);
        // A source map's name is "name-HASH.js.map".
        let stem = stem.map(|stem| stem.strip_suffix(".js").unwrap_or(stem));
        let hash = stem.and_then(|stem| stem.rsplit_once('-')).map(|(_, hash)| hash);
        let is_hash = |hash: &str| {
            hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        };
        if hash.is_some_and(is_hash) { Self::Immutable } else { Self::Revalidated }
    }

    /// Returns the value of `Cache-Control`.
    pub fn cache_control(self) -> &'static str {
        match self {
            Self::Immutable => "public, max-age=31536000, immutable",
            Self::Revalidated => "no-cache",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_match_what_browsers_require() {
        for (name, content_type) in [
            ("e2ee/orange_mls_worker_bg.wasm", "application/wasm"),
            ("e2ee/worker.js", "text/javascript; charset=utf-8"),
            ("main.MJS", "text/javascript; charset=utf-8"),
            ("build/_assets/join-AB12CD34.mp3", "audio/mpeg"),
            ("site.webmanifest", "application/manifest+json"),
            ("a.html", "text/html; charset=utf-8"),
            ("README", "application/octet-stream"),
            ("a.exe", "application/octet-stream"),
        ] {
            assert_eq!(FileKind::of(name).content_type, content_type, "{name}");
        }
        for (name, is_shown) in
            [("a.html", true), ("a.SVG", true), ("a.xml", true), ("a.js", false), ("a", false)]
        {
            assert_eq!(FileKind::of(name).is_shown(), is_shown, "{name}");
        }
        assert!(KINDS.is_sorted_by_key(|(end, ..)| *end));
    }

    #[test]
    fn only_hashed_build_files_are_immutable() {
        for (path, freshness) in [
            ("build/root-FPDW35NQ.js", Freshness::Immutable),
            ("build/routes/_room.$roomName._index-AKLW76OP.js", Freshness::Immutable),
            ("build/_assets/tailwind-UO3UZPQ5.css", Freshness::Immutable),
            ("build/root-FPDW35NQ.js.map", Freshness::Immutable),
            ("build/root.js", Freshness::Revalidated),
            ("build/root-fpdw35nq.js", Freshness::Revalidated),
            ("build/root-FPDW35N.js", Freshness::Revalidated),
            ("icon-ABCDEFGH.png", Freshness::Revalidated),
            ("index.html", Freshness::Revalidated),
        ] {
            assert_eq!(Freshness::of(path), freshness, "{path}");
        }
    }
}
