//! Static files, with content type, length, entity tag and ranges; compressed once and cached.
//!
//! docs/adr/0021-static-files.md has the reasons against tower-http's `ServeDir`.

pub mod coding;
pub mod condition;
pub mod kind;
pub mod source;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::{Body, Bytes};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE,
    VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use moka::future::Cache;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::Semaphore;
use tokio_util::io::ReaderStream;

use self::coding::Coding;
use self::condition::{RequestedPart, is_known, is_other_wanted, part};
use self::kind::{FileKind, Freshness, Nature};
use self::source::{FileLocation, FilePath, FileSource, FileStamp, FoundFile};
use super::base_path::with_links_below;
use crate::config::BasePath;

/// Maximum size of a file that is read whole and cached; longer ones are streamed from disk.
const WHOLE_BYTES: u64 = 8 << 20;

/// Minimum size of a file to compress; below it, compression saves no packet.
const WORTHWHILE_BYTES: u64 = 1024;

/// The files of one source.
#[derive(Debug)]
pub struct Assets {
    source: FileSource,
    /// The path that links of pages are rewritten to.
    base_path: BasePath,
    cached: Cache<CacheKey, Arc<CachedFile>>,
    /// One compression at a time, so that a first visitor's files leave CPU time for rooms.
    compressing: Arc<Semaphore>,
}

/// Cache key: a version of a file and its encoding.
type CacheKey = (String, FileStamp, Coding);

/// A file body as it is sent.
#[derive(Debug)]
struct CachedFile {
    body: Bytes,
    tag: String,
    /// `Identity` in place of the requested one if compression does not make the file smaller.
    coding: Coding,
}

impl Assets {
    /// Creates the files of `source`, with a cache of at most `kept_bytes` bytes.
    pub fn new(source: FileSource, kept_bytes: usize) -> Self {
        let weight = |_: &CacheKey, cached: &Arc<CachedFile>| {
            u32::try_from(cached.body.len() + 256).unwrap_or(u32::MAX)
        };
        let cached = Cache::builder().weigher(weight).max_capacity(kept_bytes as u64).build();
        let base_path = BasePath::default();
        Self { source, base_path, cached, compressing: Arc::new(Semaphore::new(1)) }
    }

    /// Rewrites links of pages from the root to `base_path`.
    pub fn below(self, base_path: BasePath) -> Self {
        Self { base_path, ..self }
    }

    /// Answers a request for the file at `path`, which is percent-encoded and has no leading slash;
    /// `None` if there is no such file.
    ///
    /// # Errors
    /// Returns the I/O error if the file exists but cannot be read.
    pub async fn get(&self, path: &str, headers: &HeaderMap) -> io::Result<Option<Response>> {
        let Some(path) = FilePath::parse(path) else { return Ok(None) };
        let Some(found) = self.source.find(&path).await? else { return Ok(None) };
        let kind = FileKind::of(path.as_str());
        let bytes = found.stamp.bytes;
        let varies = kind.nature == Nature::Text && bytes >= WORTHWHILE_BYTES;
        // A range refers to the uncompressed file.
        let coding =
            if varies && !headers.contains_key(RANGE) { Coding::best(headers) } else { Coding::Identity };
        let mut response = match self.coded(&path, found, coding).await? {
            Coded::Cached(cached) => respond(&cached, headers)?,
            Coded::Long(file, stamp) => stream(&file, stamp, headers).await?,
        };
        let status = response.status();
        let answer = response.headers_mut();
        let mut set = |name: HeaderName, value| answer.insert(name, HeaderValue::from_static(value));
        // A cached 412 or 416 would be served to everybody who requests the file.
        let is_refused = status.is_client_error();
        let fresh = Freshness::of(path.as_str()).cache_control();
        set(CACHE_CONTROL, if is_refused { "no-store" } else { fresh });
        if varies {
            set(VARY, "accept-encoding");
        }
        if status != StatusCode::NOT_MODIFIED && !is_refused {
            set(CONTENT_TYPE, kind.content_type);
            set(ACCEPT_RANGES, "bytes");
        }
        Ok(Some(response))
    }

    /// True if there is a file at `path`, spelled as for [`Self::get`].
    ///
    /// # Errors
    /// Returns the I/O error of the lookup.
    pub async fn has(&self, path: &str) -> io::Result<bool> {
        let Some(path) = FilePath::parse(path) else { return Ok(false) };
        Ok(self.source.find(&path).await?.is_some())
    }

    /// Returns the text of the file at `path`, spelled as for [`Self::get`]; `None` if there is no such
    /// file, or if it is too long for a page.
    ///
    /// # Errors
    /// Returns the I/O error if the file exists but cannot be read.
    pub async fn text(&self, path: &str) -> io::Result<Option<String>> {
        let Some(path) = FilePath::parse(path) else { return Ok(None) };
        let found = self.source.find(&path).await?;
        let Some(found) = found.filter(|found| found.stamp.bytes <= WHOLE_BYTES) else { return Ok(None) };
        let cached = self.cached(&path, found, Coding::Identity).await?;
        Ok(Some(String::from_utf8_lossy(&cached.body).into_owned()))
    }

    async fn coded(&self, path: &FilePath, found: FoundFile, coding: Coding) -> io::Result<Coded> {
        match found.place {
            FileLocation::Disk(file) if found.stamp.bytes > WHOLE_BYTES => Ok(Coded::Long(file, found.stamp)),
            _ => self.cached(path, found, coding).await.map(Coded::Cached),
        }
    }

    /// Returns a file in the requested encoding; concurrent requests share the work.
    async fn cached(&self, path: &FilePath, found: FoundFile, coding: Coding) -> io::Result<Arc<CachedFile>> {
        let key = (path.as_str().to_owned(), found.stamp, coding);
        let make = async {
            let body = match found.place {
                FileLocation::Memory(body) => body,
                FileLocation::Disk(file) => tokio::fs::read(file).await?.into(),
            };
            let body = if self.has_links(path) { with_links_below(&self.base_path, body) } else { body };
            let cached = match coding {
                Coding::Identity => CachedFile::new(body, coding),
                coding => self.compress(body, coding).await?,
            };
            Ok(Arc::new(cached))
        };
        let cached = self.cached.try_get_with(key, make).await;
        // All waiting requests share the error.
        cached.map_err(|error: Arc<io::Error>| io::Error::new(error.kind(), error))
    }

    /// True for a page with links that need the base path.
    fn has_links(&self, path: &FilePath) -> bool {
        !self.base_path.is_root() && FileKind::of(path.as_str()).content_type.starts_with("text/html")
    }

    async fn compress(&self, body: Bytes, coding: Coding) -> io::Result<CachedFile> {
        let place = self.compressing.clone().acquire_owned().await.map_err(io::Error::other)?;
        let work = move || {
            let _place = place;
            let packed = coding.compress(&body)?;
            let is_smaller = packed.len() < body.len();
            Ok(if is_smaller {
                CachedFile::new(packed.into(), coding)
            } else {
                CachedFile::new(body, Coding::Identity)
            })
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
    }
}

enum Coded {
    Cached(Arc<CachedFile>),
    Long(PathBuf, FileStamp),
}

impl CachedFile {
    fn new(body: Bytes, coding: Coding) -> Self {
        // Hashes the content: files from containers and archives often share one modification time.
        let mut hash = DefaultHasher::new();
        body.hash(&mut hash);
        Self { tag: format!("\"{:016x}{}\"", hash.finish(), coding.suffix()), body, coding }
    }
}

fn respond(cached: &CachedFile, headers: &HeaderMap) -> io::Result<Response> {
    let length = cached.body.len() as u64;
    let mut response = match answer(headers, &cached.tag, length)? {
        AssetAnswer::Finished(response) => return Ok(response),
        AssetAnswer::Bytes(range, mut response) => {
            let range = usize::try_from(range.start).unwrap_or(0)..usize::try_from(range.end).unwrap_or(0);
            *response.body_mut() = cached.body.slice(range).into();
            response
        }
    };
    if let Some(token) = cached.coding.token() {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(token));
    }
    Ok(response)
}

/// Streams a file from disk.
async fn stream(file: &Path, stamp: FileStamp, headers: &HeaderMap) -> io::Result<Response> {
    let since = stamp.modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let tag = format!("\"{:x}-{:x}\"", stamp.bytes, since.unwrap_or_default().as_nanos());
    match answer(headers, &tag, stamp.bytes)? {
        AssetAnswer::Finished(response) => Ok(response),
        AssetAnswer::Bytes(range, mut response) => {
            let mut file = File::open(file).await?;
            file.seek(SeekFrom::Start(range.start)).await?;
            let bytes = file.take(range.end - range.start);
            *response.body_mut() = Body::from_stream(ReaderStream::with_capacity(bytes, 64 << 10));
            Ok(response)
        }
    }
}

/// Answer to a request, given the entity tag and the length.
enum AssetAnswer {
    /// A complete response without a body.
    Finished(Response),
    /// The byte range to send, and a response that lacks only its body.
    Bytes(Range<u64>, Response),
}

fn answer(headers: &HeaderMap, tag: &str, length: u64) -> io::Result<AssetAnswer> {
    let mut response = Response::new(Body::empty());
    let mut set = |name: HeaderName, value: String| {
        let value = HeaderValue::try_from(value).map_err(io::Error::other)?;
        response.headers_mut().insert(name, value);
        io::Result::Ok(())
    };
    set(ETAG, tag.to_owned())?;
    let (status, range) = if is_other_wanted(headers, tag) {
        (StatusCode::PRECONDITION_FAILED, None)
    } else if is_known(headers, tag) {
        (StatusCode::NOT_MODIFIED, None)
    } else {
        match part(headers, tag, length) {
            RequestedPart::Whole => (StatusCode::OK, Some(0..length)),
            RequestedPart::Beyond => {
                set(CONTENT_RANGE, format!("bytes */{length}"))?;
                (StatusCode::RANGE_NOT_SATISFIABLE, None)
            }
            RequestedPart::Bytes(range) => {
                set(CONTENT_RANGE, format!("bytes {}-{}/{length}", range.start, range.end - 1))?;
                (StatusCode::PARTIAL_CONTENT, Some(range))
            }
        }
    };
    if let Some(range) = &range {
        set(CONTENT_LENGTH, (range.end - range.start).to_string())?;
    }
    *response.status_mut() = status;
    Ok(match range {
        Some(range) => AssetAnswer::Bytes(range, response),
        None => AssetAnswer::Finished(response),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use axum::http::header::{ACCEPT_ENCODING, IF_MATCH, IF_NONE_MATCH};
    use http_body_util::BodyExt;
    use tempfile::TempDir;

    use super::*;

    const MANY: usize = 1 << 20;

    fn folder(files: &[(&str, &[u8])]) -> (TempDir, Assets) {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let assets = Assets::new(FileSource::folder(dir.path()).unwrap(), MANY);
        (dir, assets)
    }

    /// Status, headers and body.
    async fn get(assets: &Assets, path: &str, headers: &[(HeaderName, &str)]) -> (u16, HeaderMap, Bytes) {
        let lines = headers.iter();
        let headers = lines.map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        let response =
            assets.get(path, &headers.collect()).await.unwrap().unwrap_or_else(|| panic!("{path}"));
        let (head, body) = response.into_parts();
        (head.status.as_u16(), head.headers, body.collect().await.unwrap().to_bytes())
    }

    fn text(headers: &HeaderMap, name: HeaderName) -> &str {
        headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[tokio::test]
    async fn file_has_headers_and_known_tag_gets_304() {
        let (_dir, assets) = folder(&[("build/a-AAAA2222.js", b"a()"), ("b.wasm", b"\0asm")]);
        let (status, headers, body) = get(&assets, "build/a-AAAA2222.js", &[]).await;
        assert_eq!((status, &body[..]), (200, &b"a()"[..]));
        assert_eq!(text(&headers, CONTENT_TYPE), "text/javascript; charset=utf-8");
        assert_eq!(text(&headers, CONTENT_LENGTH), "3");
        assert_eq!(text(&headers, CACHE_CONTROL), "public, max-age=31536000, immutable");

        let (_, headers, _) = get(&assets, "b.wasm", &[]).await;
        assert_eq!(text(&headers, CONTENT_TYPE), "application/wasm");
        assert_eq!(text(&headers, CACHE_CONTROL), "no-cache");
        let tag = text(&headers, ETAG);
        let (status, headers, body) = get(&assets, "b.wasm", &[(IF_NONE_MATCH, tag)]).await;
        assert_eq!((status, body.len(), text(&headers, ETAG)), (304, 0, tag));
        assert_eq!(text(&headers, CACHE_CONTROL), "no-cache");
    }

    #[tokio::test]
    async fn changed_content_of_same_length_changes_tag() {
        let (dir, assets) = folder(&[("a.css", b"a{}")]);
        let (_, before, _) = get(&assets, "a.css", &[]).await;
        let file = fs::File::options().write(true).open(dir.path().join("a.css")).unwrap();
        fs::write(dir.path().join("a.css"), b"b{}").unwrap();
        // The clock may be too coarse to tell the two versions apart.
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let (status, after, body) = get(&assets, "a.css", &[(IF_NONE_MATCH, text(&before, ETAG))]).await;
        assert_eq!((status, &body[..]), (200, &b"b{}"[..]));
        assert_ne!(before.get(ETAG), after.get(ETAG));
    }

    #[tokio::test]
    async fn only_text_is_compressed_and_only_once() {
        let long = "let a = 1;\n".repeat(1000);
        let (_dir, assets) = folder(&[("a.js", long.as_bytes()), ("a.png", long.as_bytes())]);
        let mut tags = Vec::new();
        for (accept, coding) in [("gzip, br", "br"), ("gzip", "gzip"), ("zstd", "")] {
            for _ in 0..2 {
                let (_, headers, body) = get(&assets, "a.js", &[(ACCEPT_ENCODING, accept)]).await;
                assert_eq!(text(&headers, CONTENT_ENCODING), coding);
                assert_eq!(text(&headers, VARY), "accept-encoding");
                assert_eq!(text(&headers, CONTENT_LENGTH), body.len().to_string());
                assert_eq!(body.len() < long.len() / 2, !coding.is_empty());
                tags.push(text(&headers, ETAG).to_owned());
            }
        }
        tags.dedup();
        assert_eq!(tags.len(), 3, "each form has a tag of its own: {tags:?}");
        assets.cached.run_pending_tasks().await;
        assert_eq!(assets.cached.entry_count(), 3);

        let (_, headers, body) = get(&assets, "a.png", &[(ACCEPT_ENCODING, "br")]).await;
        assert!(!headers.contains_key(CONTENT_ENCODING) && !headers.contains_key(VARY));
        assert_eq!(body.len(), long.len());
    }

    #[tokio::test]
    async fn ranges_are_of_the_uncompressed_file() {
        let long = usize::try_from(WHOLE_BYTES).unwrap() + 1000;
        let content: Vec<u8> = (0..long).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let (_dir, assets) = folder(&[("short.js", &content[..2000]), ("long.mp4", &content)]);
        for (path, length) in [("short.js", 2000), ("long.mp4", long)] {
            let headers = [(RANGE, "bytes=100-1099"), (ACCEPT_ENCODING, "br")];
            let (status, headers, body) = get(&assets, path, &headers).await;
            assert_eq!((status, &body[..]), (206, &content[100..1100]), "{path}");
            assert_eq!(text(&headers, CONTENT_RANGE), format!("bytes 100-1099/{length}"));
            assert_eq!(text(&headers, CONTENT_LENGTH), "1000");

            let (status, headers, body) = get(&assets, path, &[(RANGE, "bytes=99999999-")]).await;
            assert_eq!((status, body.len()), (416, 0));
            assert_eq!(text(&headers, CACHE_CONTROL), "no-store");
            assert_eq!(text(&headers, CONTENT_RANGE), format!("bytes */{length}"));

            let (status, headers, body) = get(&assets, path, &[]).await;
            assert_eq!((status, body.len()), (200, length));
            let known = get(&assets, path, &[(IF_NONE_MATCH, text(&headers, ETAG))]).await;
            assert_eq!(known.0, 304);
            let (status, headers, body) = get(&assets, path, &[(IF_MATCH, r#""another""#)]).await;
            assert_eq!((status, body.len(), text(&headers, CACHE_CONTROL)), (412, 0, "no-store"));
        }
        assets.cached.run_pending_tasks().await;
        assert!(assets.cached.weighted_size() < MANY as u64);
    }

    #[tokio::test]
    async fn built_in_source_serves_only_built_in_files() {
        let assets = Assets::new(FileSource::BuiltIn, MANY);
        let (status, headers, body) = get(&assets, "index.html", &[]).await;
        assert_eq!((status, text(&headers, CONTENT_TYPE)), (200, "text/html; charset=utf-8"));
        assert_eq!(body, fs::read("static/index.html").unwrap());
        for path in ["", "nothing.html", "../Cargo.toml", "%2e%2e/Cargo.toml", "/etc/passwd"] {
            assert!(assets.get(path, &HeaderMap::new()).await.unwrap().is_none(), "{path}");
        }
    }
}
