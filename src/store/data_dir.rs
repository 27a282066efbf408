//! The data directory: its path, its exclusive lock, and the secrets in it.

mod secret;

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use secrecy::zeroize::Zeroizing;
use secrecy::{SecretSlice, SecretString};

use self::secret::SecretFile;
use crate::config::SharedSecret;

const LOCK: &str = "satsuma.lock";
const DATABASE: &str = "satsuma.db";
const FILES: &str = "files";
const OBJECTS: &str = "objects.db";
/// Name of the file in the data directory with the operator token.
pub const OPERATOR_TOKEN_FILE: &str = "operator.token";
/// Far more than any secret file of ours has, in bytes.
const MAX_SECRET_BYTES: u64 = 4096;

const SIGNING_KEY: SecretFile = SecretFile {
    name: "signing.key",
    encoding: &BASE64_STANDARD,
    bytes: 64,
    form: "64 random bytes as base64",
    loss: "everybody is then asked for their name again",
};
/// The key of the nodes of which this was one, so that a single node knows everybody as well.
const CLUSTER_KEY: SecretFile = SecretFile { name: "cluster.key", ..SIGNING_KEY };
const OPERATOR_TOKEN: SecretFile = SecretFile {
    name: OPERATOR_TOKEN_FILE,
    encoding: &BASE64_URL_SAFE_NO_PAD,
    bytes: 32,
    form: "32 random bytes as base64url without padding",
    loss: "operators then need the new one",
};

/// A data directory that this process has to itself, until the value is dropped.
pub struct DataDir {
    path: PathBuf,
    signing_key: SecretSlice<u8>,
    former_key: Option<SecretSlice<u8>>,
    operator_token: SecretString,
    /// The lock ends when this is closed, also by `kill -9`.
    _lock: File,
}

impl DataDir {
    /// Makes the directory and its files where they are missing, and locks it.
    ///
    /// A directory that is made gets mode 0700, every file 0600. Where the directory's group may write,
    /// it may use the files as well (0660): a platform that gives each container another user has only
    /// the group in common.
    ///
    /// # Errors
    /// [`DataDirError`]; each names the path.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        Self::open_shared(path, None)
    }

    /// The same for a node of several, whose keys follow from the secret that all of them share. Its own signing key
    /// stays in its file, for the day on which it is a single node again; its operator token is replaced.
    ///
    /// # Errors
    /// [`DataDirError`]; each names the path.
    pub fn open_shared(path: &Path, shared: Option<&SharedSecret>) -> Result<Self, DataDirError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| DataDirError::io("create the data directory", path, error))?;
        let access = DirAccess::of(path)?;
        let lock = lock(path, access)?;
        let (signing_key, _) = SIGNING_KEY.read_or_make(path, access)?;
        let (_, mut operator_token) = OPERATOR_TOKEN.read_or_make(path, access)?;
        let mut former_key = CLUSTER_KEY.find(path, access)?.map(|key| key.to_vec().into());
        if let Some(shared) = shared {
            CLUSTER_KEY.keep(path, access, former_key.as_ref(), &shared.signing_key())?;
            former_key = Some(signing_key.to_vec().into());
            operator_token = OPERATOR_TOKEN.replace(path, access, operator_token, shared.operator_token())?;
        }
        make_database(path, DATABASE, access)?;
        Ok(Self {
            path: path.to_owned(),
            signing_key: shared.map_or_else(|| signing_key.to_vec().into(), SharedSecret::signing_key),
            former_key,
            operator_token: operator_token.as_str().into(),
            _lock: lock,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The 64 bytes that cookies are signed with.
    pub fn signing_key(&self) -> &SecretSlice<u8> {
        &self.signing_key
    }

    /// The key that signed cookies when this was a single node, or a node of several, and is not any more.
    pub fn former_key(&self) -> Option<&SecretSlice<u8>> {
        self.former_key.as_ref()
    }

    /// The token that operators show at `/admin`.
    pub fn operator_token(&self) -> &SecretString {
        &self.operator_token
    }

    /// The database file; it exists, maybe empty.
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// The folder of shared files.
    pub fn files(&self) -> PathBuf {
        self.path.join(FILES)
    }

    /// The database file of durable objects, which is made if it is missing.
    ///
    /// # Errors
    /// [`DataDirError`] names the path.
    pub fn make_objects(&self) -> Result<PathBuf, DataDirError> {
        make_database(&self.path, OBJECTS, DirAccess::of(&self.path)?)?;
        Ok(self.path.join(OBJECTS))
    }
}

impl fmt::Debug for DataDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataDir").field("path", &self.path).finish_non_exhaustive()
    }
}

/// An error that makes a data directory unusable.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has locked it.
    #[error(
        "the data directory {} is in use by another satsuma process{}; stop that one, or name another directory \
         by --data-dir",
        path.display(),
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process, if it is known.
        pid: Option<u32>,
    },
    /// Everybody could replace its files.
    #[error(
        "everybody may write to the data directory {} (its mode is {mode:04o}), and so read or replace \
         its keys; run chmod o-w on it",
        path.display()
    )]
    WritableByAll {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A secret file does not hold what it should; it is never replaced by itself.
    #[error(
        "{} does not hold {form}; restore it from a backup, or remove it and a new one is made \
         ({loss})",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The expected contents.
        form: &'static str,
        /// The consequence of a new one.
        loss: &'static str,
    },
    /// The system has no random bytes for a new secret.
    #[error("cannot make {}: the system gives no random bytes ({source})", path.display())]
    Random {
        /// The file to be made.
        path: PathBuf,
        /// The system's error.
        source: getrandom::Error,
    },
    /// The file system refused an operation.
    #[error("cannot {doing} {} ({source}){}", path.display(), way_out(source))]
    Io {
        /// The failed operation, as a verb and its object.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// The advice for a failed operation.
fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; run this as a user who may read and write the data directory, or name another one by --data-dir"
        }
        _ => "",
    }
}

impl DataDirError {
    fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source }
    }
}

/// Permissions for the files of a data directory, derived from the directory's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DirAccess {
    /// The permissions of each file.
    mode: u32,
    /// True if others than owner and group can reach the files at all.
    is_open: bool,
}

impl DirAccess {
    pub(super) fn of(directory: &Path) -> Result<Self, DataDirError> {
        let metadata = fs::metadata(directory).map_err(|error| DataDirError::io("read", directory, error))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o002 != 0 {
            return Err(DataDirError::WritableByAll { path: directory.to_owned(), mode });
        }
        let files = if mode & 0o020 != 0 { 0o660 } else { 0o600 };
        Ok(Self { mode: files, is_open: mode & 0o001 != 0 })
    }

    /// Makes a folder, and gives it its permissions if it is there.
    pub(super) fn make_folder(self, path: &Path) -> io::Result<()> {
        // Whoever may read a file may open its folder.
        let mode = self.mode | (self.mode & 0o440) >> 2;
        DirBuilder::new().recursive(true).mode(mode).create(path)?;
        fs::set_permissions(path, Permissions::from_mode(mode))
    }

    /// Makes a file that is not there yet.
    pub(super) fn create_file(self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().write(true).create_new(true).mode(self.mode).open(path)?;
        self.settle(&file)?;
        Ok(file)
    }

    /// Gives a file that this process made its permissions, whatever its umask takes away.
    fn settle(self, file: &File) -> io::Result<()> {
        file.set_permissions(Permissions::from_mode(self.mode))
    }

    /// Takes from a file what others may do with it, and from its group what that may not do.
    fn close(self, file: &File, path: &Path) -> Result<(), DataDirError> {
        let wrong = |error| DataDirError::io("make private", path, error);
        let mode = || Ok(file.metadata().map_err(wrong)?.permissions().mode() & 0o7777);
        let found = mode()?;
        if found & !self.mode & 0o077 == 0 {
            return Ok(());
        }
        match file.set_permissions(Permissions::from_mode(found & self.mode)) {
            // A file of another user's, which its directory keeps from others.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !self.is_open => return Ok(()),
            result => result.map_err(wrong)?,
        }
        // Some file systems have no permissions, and say that they changed them.
        let (path, now) = (path.display(), mode()?);
        let (found, now) = (format!("{found:04o}"), format!("{now:04o}"));
        if now == found {
            tracing::warn!(%path, found, "others may read this, and its file system does not let that be changed");
        } else {
            tracing::warn!(%path, found, now, "others could read this; its permissions are changed");
        }
        Ok(())
    }
}

fn lock(directory: &Path, access: DirAccess) -> Result<File, DataDirError> {
    let path = directory.join(LOCK);
    let wrong = |error| DataDirError::io("lock", &path, error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(access.mode)
        .open(&path)
        .map_err(wrong)?;
    // Fails for a file of another user's, whose permissions are right already, as it was opened.
    let _ = access.settle(&file);
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // The id only helps; the sentence is true without it.
            let _ = file.take(32).read_to_string(&mut pid);
            let (path, pid) = (directory.to_owned(), pid.trim().parse().ok());
            return Err(DataDirError::InUse { path, pid });
        }
        Err(TryLockError::Error(error)) => return Err(wrong(error)),
    }
    file.set_len(0).map_err(wrong)?;
    writeln!(file, "{}", std::process::id()).map_err(wrong)?;
    Ok(file)
}

fn make_database(directory: &Path, name: &str, access: DirAccess) -> Result<(), DataDirError> {
    let path = directory.join(name);
    // SQLite would make it readable by everyone; the files beside it inherit its permissions.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(file) => {
            access.settle(&file).map_err(|error| DataDirError::io("create the database", &path, error))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(DataDirError::io("create the database", &path, error)),
    }
    for end in ["", "-wal", "-shm"] {
        let path = directory.join(format!("{name}{end}"));
        match File::open(&path) {
            Ok(file) => access.close(&file, &path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(DataDirError::io("read", &path, error)),
        }
    }
    Ok(())
}

/// Reads a private file of the data directory, of at most `most` bytes; `None` if there is none.
///
/// # Errors
/// [`DataDirError`] names the path.
pub fn read_private(path: &Path, most: u64) -> Result<Option<Zeroizing<Vec<u8>>>, DataDirError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataDirError::io("read", path, error)),
    };
    let directory = path.parent().unwrap_or(Path::new("."));
    DirAccess::of(directory)?.close(&file, path)?;
    let mut raw = Zeroizing::new(Vec::with_capacity(4096));
    file.take(most).read_to_end(&mut raw).map_err(|error| DataDirError::io("read", path, error))?;
    Ok(Some(raw))
}

/// Writes a private file of the data directory, in place of the one before, so that a crash leaves
/// one of the two.
///
/// # Errors
/// [`DataDirError`] names the path.
pub fn write_private(directory: &Path, name: &str, text: &[u8]) -> Result<(), DataDirError> {
    write_whole(directory, name, text, DirAccess::of(directory)?)
        .map_err(|error| DataDirError::io("create", &directory.join(name), error))
}

fn write_whole(directory: &Path, name: &str, text: &[u8], access: DirAccess) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.new"));
    // A file left by a crash may have any contents; the lock ensures that no other process writes it.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    access.settle(&file)?;
    file.write_all(text)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(name))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn files(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn everything_is_made_private_and_stays_the_same() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("new/data");
        let first = DataDir::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        let names = ["operator.token", "satsuma.db", "satsuma.lock", "signing.key"];
        assert_eq!(files(&path), names);
        for name in names {
            assert_eq!(mode(&path.join(name)), 0o600, "{name}");
        }
        let key = first.signing_key().expose_secret().to_vec();
        let token = first.operator_token().expose_secret().to_owned();
        assert_eq!((key.len(), token.len()), (64, 43));
        assert!(key.iter().any(|&byte| byte != 0));
        assert_eq!(first.database(), path.join("satsuma.db"));
        assert_eq!(format!("{first:?}"), format!("DataDir {{ path: {path:?}, .. }}"));
        drop(first);

        let second = DataDir::open(&path).unwrap();
        assert_eq!(second.signing_key().expose_secret(), key);
        assert_eq!(second.operator_token().expose_secret(), token);
        let other = DataDir::open(&outer.path().join("other")).unwrap();
        assert_ne!(other.signing_key().expose_secret(), key);
        assert_ne!(other.operator_token().expose_secret(), token);
    }

    #[test]
    fn a_directory_in_use_is_refused_until_it_is_free() {
        let directory = tempfile::tempdir().unwrap();
        let first = DataDir::open(directory.path()).unwrap();
        let error = DataDir::open(directory.path()).unwrap_err();
        let expected = format!(
            "the data directory {} is in use by another satsuma process (pid {}); stop that one, or name another \
             directory by --data-dir",
            directory.path().display(),
            std::process::id()
        );
        assert_eq!(error.to_string(), expected);
        drop(first);
        DataDir::open(directory.path()).unwrap();
    }

    #[test]
    fn malformed_secret_is_an_error_and_stays() {
        for (name, bad) in [
            ("signing.key", ""),
            ("signing.key", "c2hvcnQ="),
            ("signing.key", "not base64!"),
            ("operator.token", "\n"),
            ("operator.token", "short"),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(name);
            fs::write(&path, bad).unwrap();
            let error = DataDir::open(directory.path()).unwrap_err();
            assert!(matches!(error, DataDirError::Malformed { .. }), "{error:?}");
            assert!(error.to_string().starts_with(path.to_str().unwrap()), "{error}");
            assert!(error.to_string().contains("remove it"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
    }

    #[test]
    fn readable_files_are_made_private() {
        let directory = tempfile::tempdir().unwrap();
        drop(DataDir::open(directory.path()).unwrap());
        let names = ["signing.key", "operator.token", "satsuma.db"];
        for name in names {
            let path = directory.path().join(name);
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        }
        drop(DataDir::open(directory.path()).unwrap());
        for name in names {
            assert_eq!(mode(&directory.path().join(name)), 0o600, "{name}");
        }
    }

    #[test]
    fn a_directory_that_everybody_may_write_is_refused() {
        for mode in [0o777, 0o1777, 0o702] {
            let directory = tempfile::tempdir().unwrap();
            fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
            let error = DataDir::open(directory.path()).unwrap_err();
            assert!(matches!(error, DataDirError::WritableByAll { .. }), "{error:?}");
            assert!(error.to_string().contains(&format!("{mode:04o}")), "{error}");
            assert!(files(directory.path()).is_empty());
        }
    }

    #[test]
    fn a_group_that_may_write_may_use_the_files() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o2770)).unwrap();
        let names = ["signing.key", "operator.token", "satsuma.db", "satsuma.lock"];
        for _ in 0..2 {
            drop(DataDir::open(directory.path()).unwrap());
            for name in names {
                assert_eq!(mode(&directory.path().join(name)), 0o660, "{name}");
            }
        }
        let key = directory.path().join("signing.key");
        fs::set_permissions(&key, Permissions::from_mode(0o664)).unwrap();
        drop(DataDir::open(directory.path()).unwrap());
        assert_eq!(mode(&key), 0o660);
    }

    #[test]
    fn partial_secret_after_crash_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let half = directory.path().join("signing.key.new");
        fs::write(&half, "aGFsZg==").unwrap();
        fs::set_permissions(&half, Permissions::from_mode(0o644)).unwrap();
        let data = DataDir::open(directory.path()).unwrap();
        assert_eq!(data.signing_key().expose_secret().len(), 64);
        assert!(!half.exists());
        assert_eq!(mode(&directory.path().join("signing.key")), 0o600);
    }

    #[test]
    fn nodes_of_one_secret_share_their_keys() {
        let shared = |text: &str| SharedSecret::new(text.repeat(32).into());
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let keys = |data: &DataDir| {
            (data.signing_key().expose_secret().to_vec(), data.operator_token().expose_secret().to_owned())
        };
        let alone = dirs.each_ref().map(|dir| keys(&DataDir::open(dir.path()).unwrap()));
        assert_ne!(alone[0], alone[1]);
        let open = |dir: &tempfile::TempDir, secret| {
            DataDir::open_shared(dir.path(), Some(&shared(secret))).unwrap()
        };
        let together = dirs.each_ref().map(|dir| keys(&open(dir, "a")));
        assert_eq!(together[0], together[1]);
        assert_ne!(together[0].0, alone[0].0);
        let file = dirs[0].path().join(OPERATOR_TOKEN_FILE);
        assert_eq!(fs::read_to_string(&file).unwrap().trim(), together[0].1, "operators read it there");
        assert_eq!(mode(&file), 0o600);
        assert_ne!(keys(&open(&dirs[0], "b")), together[1]);
        let again = keys(&DataDir::open(dirs[0].path()).unwrap());
        assert_eq!(again.0, alone[0].0, "a single node again has its own cookies");
    }

    #[test]
    fn an_error_names_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let error = DataDir::open(&file).unwrap_err().to_string();
        assert!(error.contains(file.to_str().unwrap()), "{error}");
        fs::create_dir(directory.path().join("signing.key")).unwrap();
        let error = DataDir::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("signing.key"), "{error}");
    }

    #[tokio::test]
    async fn the_files_that_sqlite_makes_are_private_too() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::open(directory.path()).unwrap();
        let metrics = crate::metrics::Metrics::new();
        let (_store, _) = crate::store::Store::open(&data.database(), metrics).await.unwrap();
        for name in ["satsuma.db", "satsuma.db-wal", "satsuma.db-shm"] {
            assert_eq!(mode(&directory.path().join(name)), 0o600, "{name}");
        }
    }
}
