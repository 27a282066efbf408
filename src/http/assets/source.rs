//! Sources of files: a folder, or this binary. No path leads out of either.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use axum::body::Bytes;
use percent_encoding::percent_decode_str;
use rust_embed::RustEmbed;

/// The files of `static/`, compiled in.
///
/// A new file there is picked up only when this module is recompiled.
#[derive(RustEmbed)]
#[folder = "static/"]
struct BuiltIn;

/// A source of files.
#[derive(Clone, Debug)]
pub enum FileSource {
    /// This binary, without the operators' console.
    BuiltIn,
    /// This binary.
    Console,
    /// A folder, by its canonical path.
    Folder(PathBuf),
}

/// A file's path below a source: plain names, with nothing that leads out of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(String);

/// An existing file.
#[derive(Clone, Debug)]
pub struct FoundFile {
    /// Location of its content.
    pub place: FileLocation,
    /// Identifies this version of the file.
    pub stamp: FileStamp,
}

/// Location of a file's content.
#[derive(Clone, Debug)]
pub enum FileLocation {
    /// In this binary.
    Memory(Bytes),
    /// On disk.
    Disk(PathBuf),
}

/// Identifies a version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileStamp {
    /// Length of the file.
    pub bytes: u64,
    /// Modification time, if known.
    pub modified: Option<SystemTime>,
}

impl FilePath {
    /// Parses a path from a URL, percent-encoded and without a leading slash.
    ///
    /// Rejects hidden files, `..` among them.
    pub fn parse(encoded: &str) -> Option<Self> {
        let path = percent_decode_str(encoded).decode_utf8().ok()?;
        let is_name = |segment: &str| {
            !segment.is_empty()
                && !segment.starts_with('.')
                && !segment.contains(|c: char| c == '\\' || c == ':' || c.is_control())
        };
        // An encoded slash would evade the rules for names.
        let slashes = |text: &str| text.bytes().filter(|&b| b == b'/').count();
        let is_path = path.split('/').all(is_name) && slashes(&path) == slashes(encoded);
        is_path.then(|| Self(path.into_owned()))
    }

    /// Returns the path, with slashes between the names.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FileSource {
    /// Creates a source from a folder.
    ///
    /// # Errors
    /// Returns the I/O error if there is no such folder.
    pub fn folder(path: &Path) -> io::Result<Self> {
        let real = path.canonicalize()?;
        if !real.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self::Folder(real))
    }

    /// Finds a file. A symbolic link out of the folder counts as missing.
    ///
    /// # Errors
    /// Returns any I/O error other than "not found".
    pub async fn find(&self, path: &FilePath) -> io::Result<Option<FoundFile>> {
        match self {
            Self::BuiltIn if is_of_console(path) => Ok(None),
            Self::BuiltIn | Self::Console => Ok(BuiltIn::get(path.as_str()).map(|file| {
                let data = match file.data {
                    Cow::Borrowed(data) => Bytes::from_static(data),
                    Cow::Owned(data) => data.into(),
                };
                let stamp = FileStamp { bytes: data.len() as u64, modified: None };
                FoundFile { place: FileLocation::Memory(data), stamp }
            })),
            Self::Folder(root) => {
                let (root, file) = (root.clone(), root.join(path.as_str()));
                let found = tokio::task::spawn_blocking(move || find(&root, &file)).await;
                found.map_err(io::Error::other)?
            }
        }
    }
}

/// True for a file of the operators' console, which the public listener has no use for.
fn is_of_console(path: &FilePath) -> bool {
    path.as_str().starts_with("console.") || path.as_str().starts_with("js/console/")
}

fn find(root: &Path, file: &Path) -> io::Result<Option<FoundFile>> {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    let found = file.canonicalize().and_then(|real| Ok((fs::metadata(&real)?, real)));
    match found {
        Ok((data, real)) if data.is_file() && real.starts_with(root) => {
            let stamp = FileStamp { bytes: data.len(), modified: data.modified().ok() };
            Ok(Some(FoundFile { place: FileLocation::Disk(real), stamp }))
        }
        Ok(_) => Ok(None),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory | InvalidFilename) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn path_outside_the_source_is_rejected() {
        for path in ["a", "a/b.js", "a%20b", "%E2%9C%93.txt", "routes/_room.$roomName.room-AB.js", "a..b"] {
            assert!(FilePath::parse(path).is_some(), "{path}");
        }
        for path in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "../a",
            "%2e%2e/a",
            "a/%2E%2E",
            "..%2fa",
            "a%2fb",
            "a%5c..%5cb",
            "..\\a",
            ".env",
            "a/.git/config",
            "a%00",
            "%ff",
            "c:a",
            "a%0a",
        ] {
            assert_eq!(FilePath::parse(path), None, "{path}");
        }
    }

    #[tokio::test]
    async fn symlink_out_of_the_folder_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("a.txt"), "a").unwrap();
        fs::write(dir.path().join("secret"), "s").unwrap();
        for (to, link) in
            [("a.txt", "inside"), ("../secret", "outside"), ("../", "up"), ("nowhere", "dangling")]
        {
            std::os::unix::fs::symlink(to, root.join(link)).unwrap();
        }
        let source = FileSource::folder(&root).unwrap();
        for (path, is) in [
            ("a.txt", true),
            ("inside", true),
            ("outside", false),
            ("up/secret", false),
            ("dangling", false),
            ("sub", false),
            ("a.txt/b", false),
            ("b.txt", false),
            (&*"x".repeat(5000), false),
        ] {
            let found = source.find(&FilePath::parse(path).unwrap()).await.unwrap();
            assert_eq!(found.is_some(), is, "{path}");
        }
        assert!(FileSource::folder(&root.join("a.txt")).is_err());
        assert!(FileSource::folder(&root.join("nowhere")).is_err());
    }

    proptest! {
        #[test]
        fn parsed_path_stays_below_the_folder(path in "[a./\\\\%25eE2fF]{0,16}") {
            if let Some(path) = FilePath::parse(&path) {
                let mut depth = 0_i32;
                for part in Path::new(path.as_str()).components() {
                    prop_assert!(matches!(part, std::path::Component::Normal(_)));
                    depth += 1;
                }
                prop_assert!(depth > 0);
            }
        }
    }
}
