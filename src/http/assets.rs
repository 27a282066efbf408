//! Files for browsers: with type, length, tag, ranges; compressed once and kept.
//!
//! A service such as tower-http's `ServeDir` serves folders only, follows links out of them, gives
//! no tags, and compresses anew for each request; the half that would be left of it is written here.

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
use self::condition::{Part, is_known, is_other_wanted, part};
use self::kind::{Freshness, Kind, Nature};
use self::source::{FilePath, Found, Place, Source, Stamp};
use super::base_path::with_links_below;
use crate::config::BasePath;

/// Files up to this length are read whole and kept; longer ones are read as they are sent.
const WHOLE_BYTES: u64 = 8 << 20;

/// Below this length a compressed file saves no packet.
const WORTHWHILE_BYTES: u64 = 1024;

/// The files of one source.
#[derive(Debug)]
pub struct Assets {
    source: Source,
    /// The path below which the links of pages lead.
    base_path: BasePath,
    kept: Cache<Key, Arc<Kept>>,
    /// One at a time, so that rooms go on while a first visitor's files are compressed.
    compressing: Arc<Semaphore>,
}

/// A version of a file, and how it is coded.
type Key = (String, Stamp, Coding);

/// A file as it is sent.
#[derive(Debug)]
struct Kept {
    body: Bytes,
    tag: String,
    /// Not the one that was asked for where that makes the file no smaller.
    coding: Coding,
}

impl Assets {
    /// The files of `source`; at most so many bytes of them are kept in memory.
    pub fn new(source: Source, kept_bytes: usize) -> Self {
        let weight = |_: &Key, kept: &Arc<Kept>| u32::try_from(kept.body.len() + 256).unwrap_or(u32::MAX);
        let kept = Cache::builder().weigher(weight).max_capacity(kept_bytes as u64).build();
        let base_path = BasePath::default();
        Self { source, base_path, kept, compressing: Arc::new(Semaphore::new(1)) }
    }

    /// The same files, with pages whose links to the root lead to `base_path`.
    pub fn below(self, base_path: BasePath) -> Self {
        Self { base_path, ..self }
    }

    /// Answers a request for the file at `path`, which is percent-encoded and has no slash at its
    /// start; `None` where there is no such file.
    ///
    /// # Errors
    /// What the system says if a file that is there cannot be read.
    pub async fn get(&self, path: &str, headers: &HeaderMap) -> io::Result<Option<Response>> {
        let Some(path) = FilePath::parse(path) else { return Ok(None) };
        let Some(found) = self.source.find(&path).await? else { return Ok(None) };
        let kind = Kind::of(path.as_str());
        let bytes = found.stamp.bytes;
        let varies = kind.nature == Nature::Text && bytes >= WORTHWHILE_BYTES;
        // A part is a part of the file as it is.
        let coding =
            if varies && !headers.contains_key(RANGE) { Coding::best(headers) } else { Coding::Identity };
        let mut response = match self.coded(&path, found, coding).await? {
            Coded::Kept(kept) => respond(&kept, headers)?,
            Coded::Long(file, stamp) => stream(&file, stamp, headers).await?,
        };
        let status = response.status();
        let answer = response.headers_mut();
        let mut set = |name: HeaderName, value| answer.insert(name, HeaderValue::from_static(value));
        // A cache that kept the refusal of a part would hand it to everybody who wants the file.
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

    /// Whether there is a file at `path`, which is as for [`Self::get`].
    ///
    /// # Errors
    /// What the system says if it cannot tell.
    pub async fn has(&self, path: &str) -> io::Result<bool> {
        let Some(path) = FilePath::parse(path) else { return Ok(false) };
        Ok(self.source.find(&path).await?.is_some())
    }

    /// The text of the file at `path`, which is as for [`Self::get`]; `None` where there is no such
    /// file, or one too long to be a page.
    ///
    /// # Errors
    /// What the system says if a file that is there cannot be read.
    pub async fn text(&self, path: &str) -> io::Result<Option<String>> {
        let Some(path) = FilePath::parse(path) else { return Ok(None) };
        let found = self.source.find(&path).await?;
        let Some(found) = found.filter(|found| found.stamp.bytes <= WHOLE_BYTES) else { return Ok(None) };
        let kept = self.kept(&path, found, Coding::Identity, Work::Read).await?;
        Ok(Some(String::from_utf8_lossy(&kept.body).into_owned()))
    }

    async fn coded(&self, path: &FilePath, found: Found, coding: Coding) -> io::Result<Coded> {
        // A compressed page has links that cannot be seen.
        if coding != Coding::Identity && !self.has_links(path) {
            // Somebody may have taken more time over it than we would.
            let sibling = self.source.find(&path.with(coding.suffix())).await?;
            if let Some(sibling) = sibling.filter(|sibling| sibling.stamp.bytes <= WHOLE_BYTES) {
                return self.kept(path, sibling, coding, Work::Read).await.map(Coded::Kept);
            }
        }
        match found.place {
            Place::Disk(file) if found.stamp.bytes > WHOLE_BYTES => Ok(Coded::Long(file, found.stamp)),
            _ => self.kept(path, found, coding, Work::Compress).await.map(Coded::Kept),
        }
    }

    /// A file in the form asked for; requests at the same time share the work.
    async fn kept(&self, path: &FilePath, found: Found, coding: Coding, work: Work) -> io::Result<Arc<Kept>> {
        let key = (path.as_str().to_owned(), found.stamp, coding);
        let make = async {
            let body = match found.place {
                Place::Memory(body) => body,
                Place::Disk(file) => tokio::fs::read(file).await?.into(),
            };
            let body = if self.has_links(path) { with_links_below(&self.base_path, body) } else { body };
            let kept = match (coding, work) {
                (Coding::Identity, _) | (_, Work::Read) => Kept::new(body, coding),
                (_, Work::Compress) => self.compress(body, coding).await?,
            };
            Ok(Arc::new(kept))
        };
        let kept = self.kept.try_get_with(key, make).await;
        // The error is shared by all who waited.
        kept.map_err(|error: Arc<io::Error>| io::Error::new(error.kind(), error))
    }

    /// True for a page whose links need the base path.
    fn has_links(&self, path: &FilePath) -> bool {
        !self.base_path.is_root() && Kind::of(path.as_str()).content_type.starts_with("text/html")
    }

    async fn compress(&self, body: Bytes, coding: Coding) -> io::Result<Kept> {
        let place = self.compressing.clone().acquire_owned().await.map_err(io::Error::other)?;
        let work = move || {
            let _place = place;
            let packed = coding.compress(&body)?;
            let is_smaller = packed.len() < body.len();
            Ok(if is_smaller { Kept::new(packed.into(), coding) } else { Kept::new(body, Coding::Identity) })
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
    }
}

/// What is to be done with bytes that were found.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// Nothing: they are in the form asked for.
    Read,
    /// They are made smaller.
    Compress,
}

enum Coded {
    Kept(Arc<Kept>),
    Long(PathBuf, Stamp),
}

impl Kept {
    fn new(body: Bytes, coding: Coding) -> Self {
        // Of the content, because files out of containers and archives often share one time.
        let mut hash = DefaultHasher::new();
        body.hash(&mut hash);
        Self { tag: format!("\"{:016x}{}\"", hash.finish(), coding.suffix()), body, coding }
    }
}

fn respond(kept: &Kept, headers: &HeaderMap) -> io::Result<Response> {
    let length = kept.body.len() as u64;
    let mut response = match answer(headers, &kept.tag, length)? {
        Answer::Finished(response) => return Ok(response),
        Answer::Bytes(range, mut response) => {
            let range = usize::try_from(range.start).unwrap_or(0)..usize::try_from(range.end).unwrap_or(0);
            *response.body_mut() = kept.body.slice(range).into();
            response
        }
    };
    if let Some(token) = kept.coding.token() {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(token));
    }
    Ok(response)
}

/// Sends a file as it is read.
async fn stream(file: &Path, stamp: Stamp, headers: &HeaderMap) -> io::Result<Response> {
    let since = stamp.modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let tag = format!("\"{:x}-{:x}\"", stamp.bytes, since.unwrap_or_default().as_nanos());
    match answer(headers, &tag, stamp.bytes)? {
        Answer::Finished(response) => Ok(response),
        Answer::Bytes(range, mut response) => {
            let mut file = File::open(file).await?;
            file.seek(SeekFrom::Start(range.start)).await?;
            let bytes = file.take(range.end - range.start);
            *response.body_mut() = Body::from_stream(ReaderStream::with_capacity(bytes, 64 << 10));
            Ok(response)
        }
    }
}

/// What is to be answered, as far as tag and length tell.
enum Answer {
    /// An answer without a body.
    Finished(Response),
    /// These bytes, in an answer that has everything else.
    Bytes(Range<u64>, Response),
}

fn answer(headers: &HeaderMap, tag: &str, length: u64) -> io::Result<Answer> {
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
            Part::Whole => (StatusCode::OK, Some(0..length)),
            Part::Beyond => {
                set(CONTENT_RANGE, format!("bytes */{length}"))?;
                (StatusCode::RANGE_NOT_SATISFIABLE, None)
            }
            Part::Bytes(range) => {
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
        Some(range) => Answer::Bytes(range, response),
        None => Answer::Finished(response),
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
        let assets = Assets::new(Source::folder(dir.path()).unwrap(), MANY);
        (dir, assets)
    }

    /// Status, headers and body.
    async fn get(assets: &Assets, path: &str, asked: &[(HeaderName, &str)]) -> (u16, HeaderMap, Bytes) {
        let lines = asked.iter();
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
    async fn a_file_has_its_type_length_and_tag_and_is_not_sent_twice() {
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
    async fn another_content_of_the_same_length_has_another_tag() {
        let (dir, assets) = folder(&[("a.css", b"a{}")]);
        let (_, before, _) = get(&assets, "a.css", &[]).await;
        let file = fs::File::options().write(true).open(dir.path().join("a.css")).unwrap();
        fs::write(dir.path().join("a.css"), b"b{}").unwrap();
        // A clock may be too coarse to tell the two apart.
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let (status, after, body) = get(&assets, "a.css", &[(IF_NONE_MATCH, text(&before, ETAG))]).await;
        assert_eq!((status, &body[..]), (200, &b"b{}"[..]));
        assert_ne!(before.get(ETAG), after.get(ETAG));
    }

    #[tokio::test]
    async fn text_is_compressed_once_and_other_files_are_not() {
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
        assets.kept.run_pending_tasks().await;
        assert_eq!(assets.kept.entry_count(), 3);

        let (_, headers, body) = get(&assets, "a.png", &[(ACCEPT_ENCODING, "br")]).await;
        assert!(!headers.contains_key(CONTENT_ENCODING) && !headers.contains_key(VARY));
        assert_eq!(body.len(), long.len());
    }

    #[tokio::test]
    async fn a_compressed_file_beside_it_is_used() {
        let long = "let a = 1;\n".repeat(1000);
        let (_dir, assets) = folder(&[("a.js", long.as_bytes()), ("a.js.br", b"br"), ("a.js.gz", b"gz")]);
        for (accept, coding, content) in [("br", "br", "br"), ("gzip", "gzip", "gz"), ("", "", &long)] {
            let (_, headers, body) = get(&assets, "a.js", &[(ACCEPT_ENCODING, accept)]).await;
            assert_eq!(text(&headers, CONTENT_ENCODING), coding);
            assert_eq!(text(&headers, CONTENT_TYPE), "text/javascript; charset=utf-8");
            assert_eq!(body, content.as_bytes());
        }
    }

    #[tokio::test]
    async fn parts_are_of_the_file_as_it_is_whether_it_is_kept_or_not() {
        let long = usize::try_from(WHOLE_BYTES).unwrap() + 1000;
        let content: Vec<u8> = (0..long).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let (_dir, assets) = folder(&[("short.js", &content[..2000]), ("long.mp4", &content)]);
        for (path, length) in [("short.js", 2000), ("long.mp4", long)] {
            let asked = [(RANGE, "bytes=100-1099"), (ACCEPT_ENCODING, "br")];
            let (status, headers, body) = get(&assets, path, &asked).await;
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
        assets.kept.run_pending_tasks().await;
        assert!(assets.kept.weighted_size() < MANY as u64);
    }

    #[tokio::test]
    async fn what_is_compiled_in_is_served_and_nothing_else() {
        let assets = Assets::new(Source::BuiltIn, MANY);
        let (status, headers, body) = get(&assets, "index.html", &[]).await;
        assert_eq!((status, text(&headers, CONTENT_TYPE)), (200, "text/html; charset=utf-8"));
        assert_eq!(body, fs::read("static/index.html").unwrap());
        for path in ["", "nothing.html", "../Cargo.toml", "%2e%2e/Cargo.toml", "/etc/passwd"] {
            assert!(assets.get(path, &HeaderMap::new()).await.unwrap().is_none(), "{path}");
        }
    }
}
