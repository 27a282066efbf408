//! The store's task, which owns all unwritten changes.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::clock::{now, wall_clock};
use crate::metrics::{Counted, Metrics};
use crate::store::batch::{Changes, WriteBatch};
use crate::store::owner::FencedWrite;
use crate::store::sql::Database;
use crate::store::{Load, StoreCommand, StoreError, StoreHealth};

/// Settings of the store's task; only tests need anything but the default.
#[derive(Clone, Debug)]
pub(super) struct StoreSettings {
    /// The most changes that may wait for the task to take them.
    pub(super) queue: usize,
    /// The most keys that may wait to be written; above it, only what is known already is merged.
    pub(super) max_pending: usize,
    /// Delay from the first change to the write of its batch: the most that `kill -9` loses.
    pub(super) delay: Duration,
    /// The wait after a first failure; each further failure doubles it.
    pub(super) backoff: Duration,
    /// The longest wait between two tries.
    pub(super) max_backoff: Duration,
    /// Duration of a write after which the store is reported as failing.
    pub(super) hung_after: Duration,
    /// Timeout of SQLite for a lock of another process, such as a backup.
    pub(super) busy_timeout: Duration,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            queue: 65_536,
            max_pending: 1_000_000,
            // Long enough that the members of a busy room, whose rows are adjacent, are written together.
            delay: Duration::from_millis(500),
            backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(30),
            hung_after: Duration::from_secs(10),
            busy_timeout: Duration::from_secs(5),
        }
    }
}

/// The task's state; see [`Task::run`].
pub(super) struct Task {
    commands: mpsc::Receiver<StoreCommand>,
    /// The server stops: nothing more is taken, and waits between tries are short.
    closing: bool,
    /// The connection, unless a write has it.
    database: Option<Database>,
    pending: WriteBatch,
    /// True if it has been logged already that changes are dropped here, or at the queue.
    pending_full: bool,
    queue_full: Arc<AtomicBool>,
    /// Callers that wait for the pending changes to be written.
    flushes: Vec<oneshot::Sender<()>>,
    /// Rooms to load after the next write.
    loads: Vec<Load>,
    writing: Option<Writing>,
    /// The time to write the pending changes, unless a write is in progress then.
    due: Option<Instant>,
    /// Failed tries since the last good one.
    failures: u32,
    health: watch::Sender<StoreHealth>,
    waiting: Counted,
    metrics: Arc<Metrics>,
    settings: StoreSettings,
}

/// The database, the loads that were not carried out, and the result of a write.
type WriteResult = (Database, Vec<Load>, Result<Vec<FencedWrite>, sqlx::Error>);

/// A write in progress.
struct Writing {
    batch: Arc<WriteBatch>,
    flushes: Vec<oneshot::Sender<()>>,
    started: Instant,
    outcome: Pin<Box<dyn Future<Output = WriteResult> + Send>>,
}

impl Task {
    /// A task that has nothing to write yet.
    pub(super) fn new(
        commands: mpsc::Receiver<StoreCommand>,
        database: Database,
        health: watch::Sender<StoreHealth>,
        queue_full: Arc<AtomicBool>,
        metrics: Arc<Metrics>,
        settings: StoreSettings,
    ) -> Self {
        Self {
            commands,
            closing: false,
            database: Some(database),
            pending: WriteBatch::default(),
            pending_full: false,
            queue_full,
            flushes: Vec::new(),
            loads: Vec::new(),
            writing: None,
            due: None,
            failures: 0,
            health,
            waiting: Counted::new(&metrics.store_pending, 0),
            metrics,
            settings,
        }
    }

    /// Receives, merges and writes until the store stops.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<Instant>) -> Result<(), StoreError> {
        let mut deadline = None;
        while !(self.closing && self.pending.is_empty() && self.writing.is_none()) {
            let hung_at = self.hung_at();
            tokio::select! {
                command = self.commands.recv(), if !self.closing => match command {
                    Some(command) => {
                        self.take(command);
                        // Many at once, so that the timers below are not set for each; bounded,
                        // so that a flood keeps nothing from being written.
                        for _ in 0..1_024 {
                            let Ok(command) = self.commands.try_recv() else { break };
                            self.take(command);
                        }
                    }
                    None => {
                        self.closing = true;
                        self.due = Some(now());
                    }
                },
                written = finished(self.writing.as_mut()) => self.finish(written),
                () = until(self.due), if self.writing.is_none() => self.start(),
                () = until(hung_at) => self.fail("a write does not come to its end".into()),
                stopped = &mut stop, if deadline.is_none() => match stopped {
                    // Changes already in the queue are still received.
                    Ok(at) => {
                        deadline = Some(at);
                        self.commands.close();
                    }
                    Err(_) => return Err(StoreError::Stopped),
                },
                () = until(deadline) => return Err(self.unwritten()),
            }
            self.waiting.set(self.pending.len() + self.in_flight().map_or(0, WriteBatch::len));
        }
        if let (Some(database), Some(deadline)) = (self.database.take(), deadline) {
            // Everything is in the write-ahead log already; the checkpoint is optional.
            match tokio::time::timeout_at(deadline, database.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the database was not closed cleanly"),
                Err(_) => tracing::warn!("the database was not closed in time; nothing is lost"),
            }
        }
        Ok(())
    }

    fn take(&mut self, command: StoreCommand) {
        let (meeting, changes) = match command {
            StoreCommand::Persist { epoch, change } => {
                (change.meeting, Changes::of(change.at, change.room, change.what).by(epoch))
            }
            StoreCommand::PersistUnconfirmed { epoch, meeting, events } => {
                (meeting, Changes::unconfirmed(events).by(epoch))
            }
            StoreCommand::PersistEnded { epoch, meeting, ended } => {
                (meeting, Changes::ended_for(ended).by(epoch))
            }
            StoreCommand::Record { epoch, record } => (record.meeting, Changes::recorded(record).by(epoch)),
            StoreCommand::Quarantine { epoch, room, meeting } => {
                (meeting, Changes::quarantined(wall_clock(), room).by(epoch))
            }
            StoreCommand::Load(load) => {
                self.loads.push(load);
                return self.hurry();
            }
            StoreCommand::Flush(done) => return self.flush(done),
        };
        let in_flight = self.in_flight();
        let keys = self.pending.len() + in_flight.map_or(0, WriteBatch::len);
        // The end of a meeting is always accepted: it frees more than it takes.
        if keys >= self.settings.max_pending
            && !changes.ends()
            && !self.pending.knows(meeting, &changes)
            && !in_flight.is_some_and(|batch| batch.knows(meeting, &changes))
        {
            Metrics::count(&self.metrics.drops, "store_pending");
            if !mem::replace(&mut self.pending_full, true) {
                tracing::error!(keys, "too much waits to be written; new members are not persisted");
            }
            return;
        }
        if let Err(fenced) = self.pending.put(meeting, changes) {
            return self.refuse(&[fenced]);
        }
        self.due.get_or_insert_with(|| now() + self.settings.delay);
    }

    fn flush(&mut self, done: oneshot::Sender<()>) {
        match &mut self.writing {
            Some(writing) if self.pending.is_empty() => writing.flushes.push(done),
            None if self.pending.is_empty() => {
                let _ = done.send(());
            }
            _ => {
                self.flushes.push(done);
                self.hurry();
            }
        }
    }

    /// Schedules the next write at once. After a failure the next try has its time, which a caller that waits does
    /// not shorten.
    fn hurry(&mut self) {
        if self.failures == 0 {
            self.due = Some(now());
        }
    }

    fn start(&mut self) {
        self.due = None;
        if self.pending.is_empty() && self.loads.is_empty() {
            return;
        }
        let Some(mut database) = self.database.take() else { return };
        let batch = Arc::new(mem::take(&mut self.pending));
        let shared = Arc::clone(&batch);
        // SQLite works on a thread of its own, so this task stays free to receive and merge.
        let mut loads = mem::take(&mut self.loads);
        let outcome = Box::pin(async move {
            let result = database.write(&shared).await;
            if result.is_ok() {
                for Load { epoch, room, loaded } in loads.drain(..) {
                    // The waiting caller may have given up.
                    let _ = loaded.send(database.load(&room, epoch, wall_clock()).await);
                }
            }
            (database, loads, result)
        });
        let flushes = mem::take(&mut self.flushes);
        self.writing = Some(Writing { batch, flushes, started: now(), outcome });
    }

    fn finish(&mut self, (database, loads, result): WriteResult) {
        self.database = Some(database);
        let Some(Writing { batch, mut flushes, started, outcome }) = self.writing.take() else {
            return;
        };
        drop(outcome);
        self.metrics.store_write_seconds.observe((now() - started).as_secs_f64());
        match result {
            Ok(fenced) => {
                self.refuse(&fenced);
                for done in flushes {
                    // The waiting caller may have given up.
                    let _ = done.send(());
                }
                self.succeed();
            }
            Err(error) => {
                self.metrics.store_failures.inc();
                let newer = mem::replace(&mut self.pending, Arc::unwrap_or_clone(batch));
                let fenced = self.pending.then(newer);
                self.refuse(&fenced);
                self.loads.extend(loads);
                flushes.append(&mut self.flushes);
                self.flushes = flushes;
                self.due = Some(now() + self.backoff());
                self.failures = self.failures.saturating_add(1);
                self.fail(error.to_string());
            }
        }
    }

    /// Counts and logs writes that a later owner of their rooms has fenced off.
    fn refuse(&self, fenced: &[FencedWrite]) {
        let Some(first) = fenced.first() else { return };
        for _ in fenced {
            Metrics::count(&self.metrics.drops, "fenced_write");
        }
        tracing::error!(event = "writeFenced", rooms = fenced.len(), error = %first, "rooms have a later owner");
    }

    fn backoff(&self) -> Duration {
        let longest = if self.closing { self.settings.backoff } else { self.settings.max_backoff };
        self.settings.backoff.saturating_mul(2_u32.saturating_pow(self.failures)).min(longest)
    }

    fn succeed(&mut self) {
        self.failures = 0;
        if self.commands.is_empty() {
            self.pending_full = false;
            self.queue_full.store(false, Ordering::Relaxed);
        }
        if let StoreHealth::Failing { since, .. } = self.health.send_replace(StoreHealth::Healthy) {
            let for_seconds = wall_clock().duration_since(since).unwrap_or_default().as_secs();
            tracing::info!(for_seconds, "the store can write again; nothing that waited is lost");
        }
    }

    fn fail(&mut self, message: String) {
        let since = match &*self.health.borrow() {
            StoreHealth::Failing { since, .. } => *since,
            StoreHealth::Healthy => {
                tracing::error!(error = message, "the store cannot write; it keeps trying");
                wall_clock()
            }
        };
        self.health.send_replace(StoreHealth::Failing { since, message });
    }

    fn in_flight(&self) -> Option<&WriteBatch> {
        self.writing.as_ref().map(|writing| &*writing.batch)
    }

    /// The time to report the current write as hanging; none if that is reported already.
    fn hung_at(&self) -> Option<Instant> {
        let healthy = *self.health.borrow() == StoreHealth::Healthy;
        let writing = self.writing.as_ref().filter(|_| healthy)?;
        Some(writing.started + self.settings.hung_after)
    }

    fn unwritten(&self) -> StoreError {
        let changes = self.pending.len() + self.in_flight().map_or(0, WriteBatch::len);
        let why = match &*self.health.borrow() {
            StoreHealth::Healthy => "the time was too short".into(),
            StoreHealth::Failing { message, .. } => message.clone(),
        };
        StoreError::Unwritten { changes, why }
    }
}

impl Drop for Task {
    // By a panic or an abort, too, so that a dead store is never reported as healthy.
    fn drop(&mut self) {
        let message = "the store has stopped".into();
        self.health.send_replace(StoreHealth::Failing { since: wall_clock(), message });
    }
}

async fn finished(writing: Option<&mut Writing>) -> WriteResult {
    match writing {
        Some(writing) => writing.outcome.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
