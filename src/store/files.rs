//! Files that members share, on the disk beside the database: a folder for each meeting, in which each file stands
//! beside its description.
//!
//! A file is there once both are; until then it has another name, and is removed at the next start. Folders of meetings
//! that no longer run are removed when the meeting ends, or at the next start.

mod index;

use std::collections::HashSet;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use self::index::Index;
use crate::id::{IdentityId, MeetingId};

/// Random bytes of an id.
const ID_BYTES: usize = 16;

/// Ending of the name of a file that is not whole yet, and of a description.
const PART: &str = "part";
const INFO: &str = "json";

/// Limits of shared files.
#[derive(Clone, Copy, Debug)]
pub struct FileLimits {
    /// Maximum size of a file in bytes.
    pub file_bytes: u64,
    /// Maximum number of files of one meeting.
    pub room_files: usize,
    /// Maximum size in bytes of all files of one meeting.
    pub room_bytes: u64,
    /// Maximum size in bytes of all files of one identity.
    pub identity_bytes: u64,
    /// Maximum size in bytes of all files.
    pub all_bytes: u64,
}

/// The id of a file: random, so that nobody finds it who was not told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileId(String);

impl FileId {
    /// A new id.
    ///
    /// # Errors
    /// The operating system's, if it has no random bytes.
    fn random() -> io::Result<Self> {
        let mut bytes = [0; ID_BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::from)?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Reads an id; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        (bytes.len() == ID_BYTES).then(|| Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The description of a file, in persistent form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// The name that its owner gave it.
    pub name: String,
    /// Its media type, by its content.
    pub kind: String,
    /// Its size.
    pub bytes: u64,
    /// Its owner.
    owner: String,
}

/// Reason for not storing a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file is too large.
    #[error("the file has more than {0} bytes (files.file_bytes)")]
    TooLarge(u64),
    /// The meeting has too many files.
    #[error("this meeting has {0} files already (files.room_files)")]
    TooMany(usize),
    /// The meeting's files are too large.
    #[error("the files of this meeting would have more than {0} bytes (files.room_bytes)")]
    RoomFull(u64),
    /// The identity's files are too large.
    #[error("your files would have more than {0} bytes (files.identity_bytes)")]
    IdentityFull(u64),
    /// All files are too large.
    #[error("the server has no space left for files (files.all_bytes)")]
    Full,
    /// The disk is full.
    #[error("the server's disk is full")]
    DiskFull,
    /// The disk fails.
    #[error("the file could not be stored")]
    Disk(#[source] io::Error),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Disk(error),
        }
    }
}

/// The shared files of all meetings. A clone is the same.
#[derive(Clone, Debug)]
pub struct Files(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    limits: FileLimits,
    index: Mutex<Index>,
}

impl Files {
    /// Opens the folder, and removes files of all meetings but those of `running`, and files that are not whole.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(folder: PathBuf, limits: FileLimits, running: &HashSet<MeetingId>) -> io::Result<Self> {
        make_folder(&folder)?;
        let mut index = Index::default();
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match MeetingId::parse(name) {
                Ok(meeting) if running.contains(&meeting) => scan(&path, meeting, &mut index)?,
                // Nothing else stands here.
                Ok(_) => std::fs::remove_dir_all(&path)?,
                Err(_) => {
                    tracing::warn!(path = %path.display(), "not a folder of shared files; it is left alone")
                }
            }
        }
        Ok(Self(Arc::new(Shared { folder, limits, index: Mutex::new(index) })))
    }

    /// The limits.
    pub fn limits(&self) -> FileLimits {
        self.0.limits
    }

    /// Begins to store a file of at most `most` bytes, if its length is known.
    ///
    /// # Errors
    /// [`FileError`].
    pub async fn begin(
        &self,
        meeting: MeetingId,
        owner: &IdentityId,
        most: Option<u64>,
    ) -> Result<Upload, FileError> {
        let limits = self.0.limits;
        if most.is_some_and(|most| most > limits.file_bytes) {
            return Err(FileError::TooLarge(limits.file_bytes));
        }
        let reserved = most.unwrap_or(limits.file_bytes);
        let id = FileId::random()?;
        self.0.lock().reserve(&limits, meeting, owner, reserved)?;
        // From here on its end gives the space back.
        let mut upload = Upload {
            files: self.clone(),
            meeting,
            owner: owner.clone(),
            id,
            reserved,
            written: 0,
            file: None,
            is_done: false,
        };
        // The folder around it is closed to others.
        tokio::fs::create_dir_all(self.0.of(meeting)).await?;
        upload.file = Some(File::create_new(self.0.path(meeting, &upload.id, Some(PART))).await?);
        Ok(upload)
    }

    /// Opens a file of a meeting; `None` if there is none.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn read(&self, meeting: MeetingId, id: &FileId) -> io::Result<Option<(File, FileInfo)>> {
        let Some(info) = self.0.lock().find(meeting, id) else { return Ok(None) };
        match File::open(self.0.path(meeting, id, None)).await {
            Ok(file) => Ok(Some((file, info))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a file.
    pub fn remove(&self, meeting: MeetingId, id: &FileId) {
        self.0.lock().remove(meeting, id);
        let (whole, info) = (self.0.path(meeting, id, None), self.0.path(meeting, id, Some(INFO)));
        let folder = self.0.of(meeting);
        let remove = move || {
            remove_file(&whole);
            remove_file(&info);
            // Not while there are others.
            let _ = std::fs::remove_dir(folder);
        };
        tokio::task::spawn_blocking(remove);
    }

    /// Removes all files of a meeting that has ended.
    pub fn end(&self, meeting: MeetingId) {
        // Most meetings have none.
        if !self.0.lock().end(meeting) {
            return;
        }
        let folder = self.0.of(meeting);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = std::fs::remove_dir_all(&folder)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(event = "sharedFilesNotRemoved", meeting = %meeting, %error);
            }
        });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, meeting: MeetingId) -> PathBuf {
        self.folder.join(meeting.to_string())
    }

    fn path(&self, meeting: MeetingId, id: &FileId, ending: Option<&str>) -> PathBuf {
        let path = self.of(meeting).join(id.as_str());
        ending.map_or(path.clone(), |ending| path.with_extension(ending))
    }
}

/// A file that is being received. Dropped before it is whole, it is removed.
#[derive(Debug)]
pub struct Upload {
    files: Files,
    meeting: MeetingId,
    owner: IdentityId,
    id: FileId,
    reserved: u64,
    written: u64,
    file: Option<File>,
    is_done: bool,
}

impl Upload {
    /// Writes further bytes.
    ///
    /// # Errors
    /// [`FileError`].
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), FileError> {
        self.written += bytes.len() as u64;
        if self.written > self.reserved {
            return Err(FileError::TooLarge(self.files.0.limits.file_bytes));
        }
        if let Some(file) = &mut self.file {
            file.write_all(&bytes).await?;
        }
        Ok(())
    }

    /// Makes the file a whole one, which a crash does not take away.
    ///
    /// # Errors
    /// [`FileError`].
    pub async fn finish(mut self, name: String, kind: String) -> Result<(FileId, FileInfo), FileError> {
        let info = FileInfo { name, kind, bytes: self.written, owner: self.owner.as_str().to_owned() };
        if let Some(mut file) = self.file.take() {
            file.flush().await?;
            file.sync_all().await?;
        }
        let shared = self.files.0.clone();
        let (meeting, id, described) = (self.meeting, self.id.clone(), info.clone());
        let finished = tokio::task::spawn_blocking(move || -> io::Result<()> {
            let json = serde_json::to_vec(&described).map_err(io::Error::other)?;
            let path = shared.path(meeting, &id, Some(INFO));
            std::fs::write(&path, json)?;
            std::fs::File::open(&path)?.sync_all()?;
            std::fs::rename(shared.path(meeting, &id, Some(PART)), shared.path(meeting, &id, None))?;
            std::fs::File::open(shared.of(meeting))?.sync_all()
        });
        finished.await.map_err(io::Error::other)??;
        self.is_done = true;
        self.files.0.lock().keep(self.meeting, &self.owner, self.id.clone(), info.clone(), self.reserved);
        Ok((self.id.clone(), info))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        self.files.0.lock().release(self.meeting, &self.owner, self.reserved);
        let paths = [PART, INFO].map(|ending| self.files.0.path(self.meeting, &self.id, Some(ending)));
        tokio::task::spawn_blocking(move || paths.iter().for_each(|path| remove_file(path)));
    }
}

fn remove_file(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(event = "sharedFilesNotRemoved", path = %path.display(), %error);
    }
}

/// Takes the whole files of a meeting into the index, and removes the others.
fn scan(folder: &Path, meeting: MeetingId, index: &mut Index) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(id) = FileId::parse(name)
            && let Ok(json) = std::fs::read(path.with_extension(INFO))
            && let Ok(info) = serde_json::from_slice::<FileInfo>(&json)
        {
            let owner = IdentityId::new(info.owner.clone());
            index.keep(meeting, &owner, id, info, 0);
        } else if !path.with_extension("").is_file() || !name.ends_with(INFO) {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Makes the folder of all meetings, as closed to others as the data directory.
fn make_folder(folder: &Path) -> io::Result<()> {
    let around = folder.parent().unwrap_or(folder);
    std::fs::create_dir_all(around)?;
    let mode = std::fs::metadata(around)?.permissions().mode() & 0o770;
    DirBuilder::new().recursive(true).mode(mode).create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FileLimits =
        FileLimits { file_bytes: 10, room_files: 3, room_bytes: 25, identity_bytes: 20, all_bytes: 40 };

    fn identity(name: &str) -> IdentityId {
        IdentityId::new(name)
    }

    async fn store(
        files: &Files,
        meeting: MeetingId,
        owner: &str,
        content: &str,
    ) -> Result<FileId, FileError> {
        let mut upload = files.begin(meeting, &identity(owner), Some(content.len() as u64)).await?;
        upload.write(Bytes::copy_from_slice(content.as_bytes())).await?;
        Ok(upload.finish("a.txt".into(), "text/plain".into()).await?.0)
    }

    async fn content(files: &Files, meeting: MeetingId, id: &FileId) -> Option<String> {
        let (mut file, _) = files.read(meeting, id).await.unwrap()?;
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut file, &mut text).await.unwrap();
        Some(text)
    }

    #[tokio::test]
    async fn whole_files_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let open = |running: &[MeetingId]| {
            Files::open(folder.path().join("files"), LIMITS, &running.iter().copied().collect()).unwrap()
        };
        let [going, over] = [MeetingId::random(), MeetingId::random()];
        let files = open(&[]);
        let id = store(&files, going, "A", "hello").await.unwrap();
        store(&files, over, "A", "bye").await.unwrap();
        // The next process finds one that was being received when the last one was killed.
        let mut cut = files.begin(going, &identity("A"), None).await.unwrap();
        cut.write(Bytes::from_static(b"hal")).await.unwrap();
        std::mem::forget(cut);
        let files = open(&[going]);
        assert_eq!(content(&files, going, &id).await.as_deref(), Some("hello"));
        let names = |meeting: MeetingId| {
            let found = std::fs::read_dir(folder.path().join("files").join(meeting.to_string()));
            found.map(|found| found.count()).unwrap_or_default()
        };
        assert_eq!((names(going), names(over)), (2, 0));
        assert!(files.read(going, &FileId::random().unwrap()).await.unwrap().is_none());
        assert!(files.read(over, &id).await.unwrap().is_none(), "an id is its meeting's");
        files.remove(going, &id);
        assert!(files.read(going, &id).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn limits_are_those_of_file_room_identity_and_server() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path().into(), LIMITS, &HashSet::new()).unwrap();
        let [one, two] = [MeetingId::random(), MeetingId::random()];
        let refused = store(&files, one, "A", "eleven bytes").await.unwrap_err();
        assert!(matches!(refused, FileError::TooLarge(10)), "{refused}");
        let mut liar = files.begin(one, &identity("A"), Some(3)).await.unwrap();
        assert!(matches!(liar.write(Bytes::from_static(b"more")).await, Err(FileError::TooLarge(_))));
        drop(liar);
        for owner in ["A", "B"] {
            store(&files, one, owner, "ten bytes!").await.unwrap();
        }
        let refused = store(&files, one, "A", "six by").await.unwrap_err();
        assert!(matches!(refused, FileError::RoomFull(25)), "{refused}");
        store(&files, one, "C", "x").await.unwrap();
        assert!(matches!(store(&files, one, "C", "x").await, Err(FileError::TooMany(3))));
        store(&files, two, "A", "ten bytes!").await.unwrap();
        assert!(matches!(store(&files, two, "A", "x").await, Err(FileError::IdentityFull(20))));
        assert!(matches!(store(&files, two, "D", "ten bytes!").await, Err(FileError::Full)));
        // What ends gives its space back, whoever it was of.
        files.end(one);
        for _ in 0..2 {
            let upload = files.begin(two, &identity("A"), Some(10)).await.unwrap();
            drop(upload);
        }
        store(&files, two, "D", "ten bytes!").await.unwrap();
    }

    #[test]
    fn ids_are_no_paths() {
        assert!(FileId::parse(FileId::random().unwrap().as_str()).is_some());
        for text in
            ["", "..", "../../../../etc/pass", "AAAAAAAAAAAAAAAAAAAA/A", "AAAAAAAAAAAAAAAAAAAAAA.json"]
        {
            assert_eq!(FileId::parse(text), None, "{text}");
        }
    }
}
