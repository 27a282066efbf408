//! Where files come from: a folder, or this program itself. No name leads out of either.

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
/// A file that is new there is seen when this one is compiled anew.
#[derive(RustEmbed)]
#[folder = "static/"]
struct BuiltIn;

/// Where files come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// This program.
    BuiltIn,
    /// A folder, by its real path.
    Folder(PathBuf),
}

/// A file's path below a source: segments that are names, and nothing that leads elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(String);

/// A file that is there.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where it is.
    pub place: Place,
    /// What tells this version of it from others.
    pub stamp: Stamp,
}

/// Where a file is.
#[derive(Clone, Debug)]
pub enum Place {
    /// In this program.
    Memory(Bytes),
    /// On the disk.
    Disk(PathBuf),
}

/// What tells one version of a file from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Its length.
    pub bytes: u64,
    /// When it was written, where that is known.
    pub modified: Option<SystemTime>,
}

impl FilePath {
    /// Reads a path as it stands in a URL, percent-encoded and without a slash at its start.
    ///
    /// Hidden files are nobody's business, and `..` is one of them.
    pub fn parse(encoded: &str) -> Option<Self> {
        let path = percent_decode_str(encoded).decode_utf8().ok()?;
        let is_name = |segment: &str| {
            !segment.is_empty()
                && !segment.starts_with('.')
                && !segment.contains(|c: char| c == '\\' || c == ':' || c.is_control())
        };
        // An encoded slash would name a file of which the rules for names know nothing.
        let slashes = |text: &str| text.bytes().filter(|&b| b == b'/').count();
        let is_path = path.split('/').all(is_name) && slashes(&path) == slashes(encoded);
        is_path.then(|| Self(path.into_owned()))
    }

    /// The path, with a slash between its names.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The file beside it whose name is longer by `suffix`.
    pub fn with(&self, suffix: &str) -> Self {
        Self(format!("{}{suffix}", self.0))
    }
}

impl Source {
    /// The files below a folder.
    ///
    /// # Errors
    /// What the system says if there is no such folder.
    pub fn folder(path: &Path) -> io::Result<Self> {
        let real = path.canonicalize()?;
        if !real.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self::Folder(real))
    }

    /// Looks for a file; a link that leads out of the folder leads to nothing.
    ///
    /// # Errors
    /// What the system says, other than that there is no such file.
    pub async fn find(&self, path: &FilePath) -> io::Result<Option<Found>> {
        match self {
            Self::BuiltIn => Ok(BuiltIn::get(path.as_str()).map(|file| {
                let data = match file.data {
                    Cow::Borrowed(data) => Bytes::from_static(data),
                    Cow::Owned(data) => data.into(),
                };
                let stamp = Stamp { bytes: data.len() as u64, modified: None };
                Found { place: Place::Memory(data), stamp }
            })),
            Self::Folder(root) => {
                let (root, file) = (root.clone(), root.join(path.as_str()));
                let found = tokio::task::spawn_blocking(move || find(&root, &file)).await;
                found.map_err(io::Error::other)?
            }
        }
    }
}

fn find(root: &Path, file: &Path) -> io::Result<Option<Found>> {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    let found = file.canonicalize().and_then(|real| Ok((fs::metadata(&real)?, real)));
    match found {
        Ok((data, real)) if data.is_file() && real.starts_with(root) => {
            let stamp = Stamp { bytes: data.len(), modified: data.modified().ok() };
            Ok(Some(Found { place: Place::Disk(real), stamp }))
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
    fn no_path_leads_elsewhere() {
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
    async fn links_lead_to_files_of_the_folder_alone() {
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
        let source = Source::folder(&root).unwrap();
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
        assert!(Source::folder(&root.join("a.txt")).is_err());
        assert!(Source::folder(&root.join("nowhere")).is_err());
    }

    proptest! {
        #[test]
        fn a_path_below_a_folder_stays_below(path in "[a./\\\\%25eE2fF]{0,16}") {
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
