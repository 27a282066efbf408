//! Files that members share, on the disk beside the database: a folder for each meeting, in which each file stands
//! beside its description.
//!
//! A file is there once both are; until then it has another name, and is removed at the next start. Folders of meetings
//! that no longer run are removed when the meeting ends, or at the next start.

mod id;
mod index;

use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

pub use self::id::FileId;
use self::index::Index;
use super::data_dir::DirAccess;
use crate::id::{IdentityId, MeetingId, NodeId};
use crate::network::ClientNetwork;

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
    /// Maximum size in bytes of all files of one network since the start; 0 is no limit.
    pub network_bytes: u64,
    /// Maximum size in bytes of all files.
    pub all_bytes: u64,
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
    /// The network's files are too large.
    #[error("the files of this network would have more than {0} bytes (files.network_bytes)")]
    NetworkFull(u64),
    /// All files are too large.
    #[error("the server has no space left for files (files.all_bytes)")]
    Full,
    /// The disk is full.
    #[error("the server's disk is full")]
    DiskFull,
    /// The meeting ended meanwhile, and its folder is gone.
    #[error("the meeting has ended")]
    Ended,
    /// The disk fails.
    #[error("the file could not be stored")]
    Disk(#[source] io::Error),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            io::ErrorKind::NotFound => Self::Ended,
            _ => Self::Disk(error),
        }
    }
}

/// The one whose file it is.
#[derive(Clone, Debug)]
pub struct FileOwner {
    /// The identity.
    pub identity: IdentityId,
    /// Its network, unless none counts. It is not stored.
    pub network: Option<ClientNetwork>,
}

/// The shared files of all meetings. A clone is the same.
#[derive(Clone, Debug)]
pub struct Files(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    access: DirAccess,
    limits: FileLimits,
    /// This node, if it is one of several.
    node: Option<NodeId>,
    index: Mutex<Index>,
}

impl Files {
    /// Opens the folder, and removes files of all meetings but those of `running`, and files that are not whole. Ids of
    /// further files name the node, if it is one of several.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(
        folder: PathBuf,
        limits: FileLimits,
        node: Option<NodeId>,
        running: &HashSet<MeetingId>,
    ) -> io::Result<Self> {
        let around = folder.parent().unwrap_or(&folder);
        std::fs::create_dir_all(around)?;
        let access = DirAccess::of(around).map_err(io::Error::other)?;
        access.make_folder(&folder)?;
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
        Ok(Self(Arc::new(Shared { folder, access, limits, node, index: Mutex::new(index) })))
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
        owner: &FileOwner,
        most: Option<u64>,
    ) -> Result<Upload, FileError> {
        let limits = self.0.limits;
        if most.is_some_and(|most| most > limits.file_bytes) {
            return Err(FileError::TooLarge(limits.file_bytes));
        }
        let reserved = most.unwrap_or(limits.file_bytes);
        let id = FileId::random(self.0.node)?;
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
        let (shared, id) = (self.0.clone(), upload.id.clone());
        let made = tokio::task::spawn_blocking(move || shared.create(meeting, &id)).await;
        upload.file = Some(File::from_std(made.map_err(io::Error::other)??));
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

    /// The description of a file of a meeting; `None` if there is none.
    pub fn find(&self, meeting: MeetingId, id: &FileId) -> Option<FileInfo> {
        self.0.lock().find(meeting, id)
    }

    /// At most `most` bytes of a file of a meeting, from a byte on; `None` if there is no such file.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn read_part(
        &self,
        meeting: MeetingId,
        id: &FileId,
        from: u64,
        most: u64,
    ) -> io::Result<Option<Vec<u8>>> {
        if self.find(meeting, id).is_none() {
            return Ok(None);
        }
        let path = self.0.path(meeting, id, None);
        let read = move || -> io::Result<Vec<u8>> {
            let mut file = std::fs::File::open(path)?;
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.take(most).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match tokio::task::spawn_blocking(read).await.map_err(io::Error::other)? {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a file.
    pub fn remove(&self, meeting: MeetingId, id: &FileId) {
        self.0.lock().remove(meeting, id);
        self.0.remove(meeting, id);
    }

    /// Removes all files of a meeting that has ended.
    pub fn end(&self, meeting: MeetingId) {
        // Most meetings have none.
        if !self.0.lock().end(meeting) {
            return;
        }
        let folder = self.0.of(meeting);
        tokio::task::spawn_blocking(move || {
            // The last upload that is under way removes what it still writes.
            if let Err(error) = std::fs::remove_dir_all(&folder)
                && !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty)
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

    /// Creates a file that is to be received, and its folder, which the end of another upload may remove at the same time.
    fn create(&self, meeting: MeetingId, id: &FileId) -> io::Result<std::fs::File> {
        loop {
            self.access.make_folder(&self.of(meeting))?;
            match self.access.create_file(&self.path(meeting, id, Some(PART))) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                made => return made,
            }
        }
    }

    /// Removes all that the disk has of a file, and the meeting's folder with the last one.
    fn remove(&self, meeting: MeetingId, id: &FileId) {
        let paths = [None, Some(PART), Some(INFO)].map(|ending| self.path(meeting, id, ending));
        let folder = self.of(meeting);
        tokio::task::spawn_blocking(move || {
            paths.iter().for_each(|path| remove_file(path));
            // It fails while there are others.
            let _ = std::fs::remove_dir(folder);
        });
    }
}

/// A file that is being received. Dropped before it is whole, it is removed.
#[derive(Debug)]
pub struct Upload {
    files: Files,
    meeting: MeetingId,
    owner: FileOwner,
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

    /// Makes the file a whole one, which a crash does not take away. Dropped before its end it leaves a file behind that no
    /// limit counts.
    ///
    /// # Errors
    /// [`FileError`].
    pub async fn finish(mut self, name: String, kind: String) -> Result<(FileId, FileInfo), FileError> {
        let info =
            FileInfo { name, kind, bytes: self.written, owner: self.owner.identity.as_str().to_owned() };
        if let Some(mut file) = self.file.take() {
            file.flush().await?;
            file.sync_all().await?;
        }
        let shared = self.files.0.clone();
        let (meeting, id, described) = (self.meeting, self.id.clone(), info.clone());
        let finished = tokio::task::spawn_blocking(move || -> io::Result<()> {
            let json = serde_json::to_vec(&described).map_err(io::Error::other)?;
            let path = shared.path(meeting, &id, Some(INFO));
            let mut info = shared.access.create_file(&path)?;
            info.write_all(&json)?;
            info.sync_all()?;
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
        self.files.0.remove(self.meeting, &self.id);
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
        let Some(id) = FileId::parse(name) else {
            if !path.with_extension("").is_file() || !name.ends_with(INFO) {
                std::fs::remove_file(&path)?;
            }
            continue;
        };
        match read_info(&path.with_extension(INFO)) {
            Ok(Some(info)) => {
                let identity = IdentityId::new(info.owner.clone());
                index.keep(meeting, &FileOwner { identity, network: None }, id, info, 0);
            }
            Ok(None) => std::fs::remove_file(&path)?,
            // It may be a whole one of a disk that fails now.
            Err(error) => tracing::warn!(event = "fileNotRead", path = %path.display(), %error),
        }
    }
    Ok(())
}

/// The description of a file; `None` if there is none, or not a whole one.
fn read_info(path: &Path) -> io::Result<Option<FileInfo>> {
    match std::fs::read(path) {
        Ok(json) => Ok(serde_json::from_slice(&json).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FileLimits = FileLimits {
        file_bytes: 10,
        room_files: 3,
        room_bytes: 25,
        identity_bytes: 20,
        network_bytes: 0,
        all_bytes: 40,
    };

    fn owner(name: &str) -> FileOwner {
        FileOwner { identity: IdentityId::new(name), network: None }
    }

    async fn store(
        files: &Files,
        meeting: MeetingId,
        owner: &str,
        content: &str,
    ) -> Result<FileId, FileError> {
        let mut upload = files.begin(meeting, &self::owner(owner), Some(content.len() as u64)).await?;
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
            Files::open(folder.path().join("files"), LIMITS, None, &running.iter().copied().collect())
                .unwrap()
        };
        let [going, over] = [MeetingId::random(), MeetingId::random()];
        let files = open(&[]);
        let id = store(&files, going, "A", "hello").await.unwrap();
        store(&files, over, "A", "bye").await.unwrap();
        // The next process finds one that was being received when the last one was killed.
        let mut cut = files.begin(going, &owner("A"), None).await.unwrap();
        cut.write(Bytes::from_static(b"hal")).await.unwrap();
        std::mem::forget(cut);
        let files = open(&[going]);
        assert_eq!(content(&files, going, &id).await.as_deref(), Some("hello"));
        let names = |meeting: MeetingId| {
            let found = std::fs::read_dir(folder.path().join("files").join(meeting.to_string()));
            found.map(|found| found.count()).unwrap_or_default()
        };
        assert_eq!((names(going), names(over)), (2, 0));
        assert!(files.read(going, &FileId::random(None).unwrap()).await.unwrap().is_none());
        assert!(files.read(over, &id).await.unwrap().is_none(), "an id is its meeting's");
        let part = async |from, most| files.read_part(going, &id, from, most).await.unwrap();
        assert_eq!(part(1, 3).await.as_deref(), Some(&b"ell"[..]));
        assert_eq!(
            (part(4, 9).await.as_deref(), part(9, 9).await.as_deref()),
            (Some(&b"o"[..]), Some(&[][..]))
        );
        files.remove(going, &id);
        assert!(files.read(going, &id).await.unwrap().is_none());
        assert!(files.read_part(going, &id, 0, 9).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn limits_are_those_of_file_room_identity_and_server() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path().join("files"), LIMITS, None, &HashSet::new()).unwrap();
        let [one, two] = [MeetingId::random(), MeetingId::random()];
        let refused = store(&files, one, "A", "eleven bytes").await.unwrap_err();
        assert!(matches!(refused, FileError::TooLarge(10)), "{refused}");
        let mut liar = files.begin(one, &owner("A"), Some(3)).await.unwrap();
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
        // A meeting that ends gives its space back, whoever it was of.
        files.end(one);
        for _ in 0..2 {
            let upload = files.begin(two, &owner("A"), Some(10)).await.unwrap();
            drop(upload);
        }
        store(&files, two, "D", "ten bytes!").await.unwrap();
    }

    #[tokio::test]
    async fn files_of_a_network_are_limited() {
        let folder = tempfile::tempdir().unwrap();
        let limits = FileLimits { network_bytes: 15, ..LIMITS };
        let files = Files::open(folder.path().join("files"), limits, None, &HashSet::new()).unwrap();
        let of = |identity: &str, last: u8| FileOwner {
            network: Some(crate::network::client_network([192, 0, 2, last].into())),
            ..owner(identity)
        };
        let meeting = MeetingId::random();
        let first = files.begin(meeting, &of("A", 1), Some(10)).await.unwrap();
        let refused = files.begin(meeting, &of("B", 1), Some(10)).await.unwrap_err();
        assert!(matches!(refused, FileError::NetworkFull(15)), "{refused}");
        files.begin(meeting, &of("C", 2), Some(10)).await.unwrap();
        first.finish("a.txt".into(), "text/plain".into()).await.unwrap();
        files.begin(meeting, &of("B", 1), Some(10)).await.unwrap();
    }

    #[tokio::test]
    async fn file_of_a_meeting_that_ends_meanwhile_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path().join("files"), LIMITS, None, &HashSet::new()).unwrap();
        let meeting = MeetingId::random();
        let upload = files.begin(meeting, &owner("A"), Some(1)).await.unwrap();
        std::fs::remove_dir_all(folder.path().join("files").join(meeting.to_string())).unwrap();
        let refused = upload.finish("a.txt".into(), "text/plain".into()).await.unwrap_err();
        assert!(matches!(refused, FileError::Ended), "{refused}");
        // The space of a file that was given up is free, and so is its folder.
        drop(files.begin(meeting, &owner("A"), Some(1)).await.unwrap());
        let is_empty = || std::fs::read_dir(folder.path().join("files")).unwrap().next().is_none();
        while !is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn files_are_closed_to_others() {
        use std::fs::Permissions;
        use std::os::unix::fs::PermissionsExt;
        for (around, folders, whole) in [(0o755, 0o700, 0o600), (0o770, 0o770, 0o660)] {
            let data = tempfile::tempdir().unwrap();
            std::fs::set_permissions(data.path(), Permissions::from_mode(around)).unwrap();
            let files = Files::open(data.path().join("files"), LIMITS, None, &HashSet::new()).unwrap();
            let meeting = MeetingId::random();
            let id = store(&files, meeting, "A", "hello").await.unwrap();
            let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(files.0.folder.clone()), mode(files.0.of(meeting))), (folders, folders));
            for ending in [None, Some(INFO)] {
                assert_eq!(mode(files.0.path(meeting, &id, ending)), whole);
            }
        }
    }
}
