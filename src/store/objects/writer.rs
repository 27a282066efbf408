//! The task that writes objects: it takes everything that waits, and commits it together.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::{ObjectWrite, ObjectsError, sql};
use crate::clock::{now, wall_clock};
use crate::metrics::Metrics;
use crate::store::StoreHealth;

/// Objects in one transaction.
const MAX_OBJECTS: usize = 1024;

/// Bytes of values after which a transaction takes no further object, so that small writes do not wait for many long
/// ones.
const MAX_BYTES: usize = 4 << 20;

/// Pause between attempts to write while writes fail: without calls nothing else would show that they succeed again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Duration of a write after which the store is reported as failing.
const HUNG_AFTER: Duration = Duration::from_secs(10);

/// A write that waits, and its answer.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) write: ObjectWrite,
    pub(super) done: oneshot::Sender<Result<(), ObjectsError>>,
}

/// The task's state; see [`Writer::run`].
pub(super) struct Writer {
    options: SqliteConnectOptions,
    /// None after a failed write: the next one opens the file anew, whatever became of it.
    connection: Option<SqliteConnection>,
    commits: mpsc::Receiver<Commit>,
    alarms: Arc<watch::Sender<u64>>,
    health: watch::Sender<StoreHealth>,
    metrics: Arc<Metrics>,
}

impl Writer {
    /// A task that has nothing to write yet.
    pub(super) fn new(
        options: SqliteConnectOptions,
        connection: SqliteConnection,
        commits: mpsc::Receiver<Commit>,
        alarms: Arc<watch::Sender<u64>>,
        health: watch::Sender<StoreHealth>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { options, connection: Some(connection), commits, alarms, health, metrics }
    }

    /// Commits until it is told to stop; then what waits is still committed, and the log folded into the file.
    ///
    /// # Errors
    /// The database's error when it is closed.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<()>) -> Result<(), sqlx::Error> {
        let mut is_stopping = false;
        loop {
            let is_failing = *self.health.borrow() != StoreHealth::Healthy;
            let first = tokio::select! {
                biased;
                commit = self.commits.recv() => commit,
                _ = &mut stop, if !is_stopping => {
                    is_stopping = true;
                    self.commits.close();
                    continue;
                }
                () = sleep(PROBE_INTERVAL), if is_failing => {
                    // The error is that of the health.
                    let _ = self.attempt(None).await;
                    continue;
                }
            };
            let Some(first) = first else { break };
            let group = self.group(first);
            self.commit(group).await;
        }
        let Some(mut connection) = self.connection.take() else { return Ok(()) };
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await?;
        connection.close().await
    }

    /// Everything that waits, within the limits of a transaction.
    fn group(&mut self, first: Commit) -> Vec<Commit> {
        let mut bytes = length(&first.write);
        let mut group = vec![first];
        while group.len() < MAX_OBJECTS && bytes < MAX_BYTES {
            let Ok(next) = self.commits.try_recv() else { break };
            bytes += length(&next.write);
            group.push(next);
        }
        group
    }

    async fn commit(&mut self, group: Vec<Commit>) {
        let started = now();
        let (writes, waiting): (Vec<_>, Vec<_>) =
            group.into_iter().map(|commit| (commit.write, commit.done)).unzip();
        let result = self.attempt(Some(&writes)).await.map_err(ObjectsError::from);
        self.metrics.durable_commit_seconds.observe(started.elapsed().as_secs_f64());
        self.metrics.durable_commit_objects.inc_by(writes.len() as u64);
        if let Err(error) = &result {
            self.metrics.durable_commit_failures.inc();
            tracing::error!(event = "objectsNotStored", objects = writes.len(), %error, "their callers are told");
        } else {
            self.announce_alarms(&writes);
        }
        for done in waiting {
            // The waiting caller may have given up.
            let _ = done.send(result.clone());
        }
    }

    /// Writes, or only tries if it could write, and reports the health.
    async fn attempt(&mut self, writes: Option<&[ObjectWrite]>) -> Result<(), sqlx::Error> {
        let Self { options, connection, health, .. } = self;
        let mut writing = pin!(write(options, connection, writes));
        let result = match timeout(HUNG_AFTER, &mut writing).await {
            Ok(result) => result,
            Err(_) => {
                fail(health, "a write does not come to its end".to_owned());
                writing.await
            }
        };
        match &result {
            Err(error) => fail(health, error.to_string()),
            Ok(()) => succeed(health),
        }
        result
    }

    /// Tells the earliest alarm that was set, so that nobody sleeps past it.
    fn announce_alarms(&self, writes: &[ObjectWrite]) {
        let set = writes.iter().filter(|write| write.after.alarm != write.before.alarm);
        if let Some(earliest) = set.filter_map(|write| write.after.alarm).map(|alarm| alarm.due).min() {
            self.alarms.send_replace(earliest);
        }
    }
}

async fn write(
    options: &SqliteConnectOptions,
    kept: &mut Option<SqliteConnection>,
    writes: Option<&[ObjectWrite]>,
) -> Result<(), sqlx::Error> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => options.connect().await?,
    };
    match writes {
        Some(writes) => sql::write(&mut connection, writes).await?,
        None => sql::probe(&mut connection).await?,
    }
    *kept = Some(connection);
    Ok(())
}

fn fail(health: &watch::Sender<StoreHealth>, message: String) {
    health.send_modify(|health| {
        let since = match health {
            StoreHealth::Failing { since, .. } => *since,
            StoreHealth::Healthy => wall_clock(),
        };
        *health = StoreHealth::Failing { since, message };
    });
}

fn succeed(health: &watch::Sender<StoreHealth>) {
    let is_changed = health
        .send_if_modified(|health| std::mem::replace(health, StoreHealth::Healthy) != StoreHealth::Healthy);
    if is_changed {
        tracing::info!("objects can be stored again");
    }
}

fn length(write: &ObjectWrite) -> usize {
    write
        .changes
        .iter()
        .map(|(key, value)| key.len() + value.as_ref().map_or(0, |value| value.get().len()))
        .sum()
}
