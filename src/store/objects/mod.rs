//! The values of durable objects, in a database of their own: a call is answered once it is stored, and its commits
//! neither wait for the rooms' batches nor hold them up.
//!
//! One task writes: it takes everything that waits, and stores it in one transaction with one sync of the disk.
//! Objects are read when they are needed, by connections of their own.

mod lists;
mod sql;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

pub use lists::{DueAlarm, ObjectLine};

use super::{StoreError, StoreHealth};
use crate::id::ObjectId;
use crate::metrics::Metrics;
use writer::{Commit, Writer};

/// Connections that read, beside the one that writes.
const READERS: u32 = 4;

/// Timeout of a request for a connection; SQLite's own timeout for a lock is as long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Timeout for reads that are in progress at a shutdown.
const CLOSE: Duration = Duration::from_secs(1);

/// Writes that may wait for the task to take them; each object has at most one.
const QUEUE: usize = 4096;

/// An object's values by key, in order of the keys.
pub type Values = BTreeMap<Arc<str>, Arc<RawValue>>;

/// A stored object.
#[derive(Clone, Debug, Default)]
pub struct SavedObject {
    /// Its values.
    pub values: Values,
    /// Everything else that is stored of it.
    pub row: ObjectRow,
}

/// Everything that is stored of an object besides its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectRow {
    /// Number of its values.
    pub keys: u64,
    /// Bytes of its keys and values.
    pub bytes: u64,
    /// Number of its changes.
    pub version: u64,
    /// Time of the last change, in milliseconds since 1970.
    pub changed_at: u64,
    /// Its alarm, if it has one.
    pub alarm: Option<Alarm>,
}

/// The alarm of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// The time at which it is due, in milliseconds since 1970.
    pub due: u64,
    /// Failed calls of its handler so far.
    pub failures: u32,
}

impl ObjectRow {
    /// True if the object is stored at all: it has values or an alarm.
    pub fn is_stored(&self) -> bool {
        self.keys > 0 || self.alarm.is_some()
    }
}

/// The changes of one object, stored as one step.
#[derive(Clone, Debug)]
pub struct ObjectWrite {
    /// The object.
    pub id: ObjectId,
    /// The new values of changed keys; none for a removed key.
    pub changes: BTreeMap<Arc<str>, Option<Arc<RawValue>>>,
    /// The row before the changes.
    pub before: ObjectRow,
    /// The row after the changes.
    pub after: ObjectRow,
}

/// Sums over all stored objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of objects.
    pub objects: u64,
    /// Number of keys.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// Objects cannot be stored or read. Clients learn no more than that.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ObjectsError {
    /// The database's error.
    #[error("objects cannot be stored or read ({0})")]
    Database(Arc<sqlx::Error>),
    /// A stored row is invalid.
    #[error("the object {0} is damaged")]
    Damaged(ObjectId),
    /// The store has stopped.
    #[error("the store of objects has stopped")]
    Stopped,
}

impl From<sqlx::Error> for ObjectsError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolClosed => Self::Stopped,
            error => Self::Database(Arc::new(error)),
        }
    }
}

/// The store of objects: owns the task that writes, which ends with it.
#[derive(Debug)]
pub struct ObjectStore {
    objects: Objects,
    path: PathBuf,
    stop: oneshot::Sender<()>,
    task: AbortOnDropHandle<Result<(), sqlx::Error>>,
}

/// The access to all objects; a cheap clone.
#[derive(Clone, Debug)]
pub struct Objects {
    readers: SqlitePool,
    commits: mpsc::Sender<Commit>,
    /// The earliest alarm that was set since it was last looked at, in milliseconds since 1970.
    alarms: Arc<watch::Sender<u64>>,
    health: watch::Receiver<StoreHealth>,
}

impl ObjectStore {
    /// Opens the database, which must exist, and brings its tables up to date; returns the sums over all objects.
    ///
    /// With `sync` a commit returns once the disk has it; without, the last commits are lost if the power fails.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Open`] or [`StoreError::Migrate`].
    pub async fn open(
        database: &Path,
        sync: bool,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Totals), StoreError> {
        let options = sql::options(database, sync).busy_timeout(PATIENCE);
        let (connection, totals) = sql::open(&options).await?;
        let readers = SqlitePoolOptions::new().max_connections(READERS).acquire_timeout(PATIENCE);
        let readers = readers.connect_lazy_with(options.clone());
        let (commits, received) = mpsc::channel(QUEUE);
        let (stop, stopped) = oneshot::channel();
        let alarms = Arc::new(watch::channel(u64::MAX).0);
        let (told, health) = watch::channel(StoreHealth::Healthy);
        let writer = Writer::new(options, connection, received, alarms.clone(), told, metrics);
        #[expect(clippy::disallowed_methods, reason = "the store owns the task and aborts it")]
        let task = AbortOnDropHandle::new(tokio::spawn(writer.run(stopped)));
        let objects = Objects { readers, commits, alarms, health };
        Ok((Self { objects, path: database.to_owned(), stop, task }, totals))
    }

    /// The access to all objects.
    pub fn objects(&self) -> Objects {
        self.objects.clone()
    }

    /// Stores everything that was handed over until now, and closes the database.
    ///
    /// # Errors
    /// [`StoreError::Unwritten`] if that was not done at `deadline`; [`StoreError::Open`] if the file could not be
    /// closed in order, which loses nothing.
    pub async fn shutdown(self, deadline: Instant) -> Result<(), StoreError> {
        // First, since the task folds the log into the file, which needs that nobody reads it.
        let _ = timeout_at(deadline, timeout(CLOSE, self.objects.readers.close())).await;
        // If the task is gone, its end says so below.
        let _ = self.stop.send(());
        match timeout_at(deadline, self.task).await {
            Ok(Ok(closed)) => closed.map_err(|source| StoreError::Open { path: self.path, source }),
            Ok(Err(_)) => Err(StoreError::Stopped),
            Err(_) => Err(StoreError::Unwritten { changes: 1, why: "the disk was too slow".into() }),
        }
    }
}

impl Objects {
    /// Stores the changes of an object, together with those of other objects that wait.
    ///
    /// # Errors
    /// [`ObjectsError`]; then either all of it is stored or nothing, which only [`Self::load`] tells.
    pub async fn commit(&self, write: ObjectWrite) -> Result<(), ObjectsError> {
        let (done, committed) = oneshot::channel();
        self.commits.send(Commit { write, done }).await.map_err(|_| ObjectsError::Stopped)?;
        committed.await.unwrap_or(Err(ObjectsError::Stopped))
    }

    /// Loads an object; an empty one if it is not stored.
    ///
    /// # Errors
    /// [`ObjectsError`].
    pub async fn load(&self, id: &ObjectId) -> Result<SavedObject, ObjectsError> {
        let mut reader = self.readers.acquire().await?;
        sql::load(&mut reader, id).await
    }

    /// The current ability to write.
    pub fn health(&self) -> StoreHealth {
        self.health.borrow().clone()
    }

    /// A watch on alarms that were set: the earliest since it was last marked as seen.
    pub fn watch_alarms(&self) -> watch::Receiver<u64> {
        self.alarms.subscribe()
    }
}

#[cfg(test)]
mod tests;
