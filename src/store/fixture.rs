//! A store in a temporary directory, for tests.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnection;
use tempfile::TempDir;

use super::Store;
use super::sql::Database;
use crate::clock::now;
use crate::metrics::Metrics;

pub(super) struct Fixture {
    pub(super) directory: TempDir,
    pub(super) store: Store,
    pub(super) metrics: Arc<Metrics>,
}

impl Fixture {
    pub(super) async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::File::create(directory.path().join("r.db")).unwrap();
        Self::open_in(directory).await
    }

    /// Opens the database `r.db` of a directory.
    pub(super) async fn open_in(directory: TempDir) -> Self {
        let metrics = Metrics::new();
        let (store, _) = Store::open(&directory.path().join("r.db"), metrics.clone()).await.unwrap();
        Self { directory, store, metrics }
    }

    pub(super) async fn reopen(self) -> Self {
        self.store.shutdown(now() + Duration::from_secs(20)).await.unwrap();
        Self::open_in(self.directory).await
    }

    /// A connection of another process to the same database.
    pub(super) async fn beside(&self) -> SqliteConnection {
        Database::options(&self.directory.path().join("r.db")).connect().await.unwrap()
    }
}

/// A time of day, this many seconds into the tests.
pub(super) fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_767_225_600 + second)
}
