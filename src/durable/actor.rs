//! The task that owns one object: takes calls one after the other, stores what they change, tells the sockets, and
//! only then answers.
//!
//! Calls that wait are applied in memory one after the other and stored together; a failure of the store fails all of
//! them, and the object is read again.

mod batch;
mod calls;
mod shared;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::error;

use self::batch::Batch;
use super::cluster::ObjectCluster;
use super::cluster::journal::ObjectJournal;
use super::command::{Command, Reply, Work};
use super::error::ObjectError;
use super::feed::Feed;
use super::memory::Memory;
use super::methods::Methods;
use super::object::{Object, ObjectLimits};
use super::totals::StoredTotals;
use crate::clock::{now, wall_clock};
use crate::id::{ConnectionId, ObjectId};
use crate::metrics::{Counted, Metrics};
use crate::protocol::close::Close;
use crate::room::message::SharedMessage;
use crate::room::outbox::OutboxLimits;
use crate::store::objects::{ObjectRow, Objects};

/// Commands that wait for an object. A caller that finds them full waits, and only that caller.
const QUEUE: usize = 64;

/// Commands whose changes are stored together.
const MAX_BATCH: usize = 256;

/// Time after which no further command joins a batch: the first ones wait for it.
const BATCH_TIME: Duration = Duration::from_millis(2);

/// Pause between attempts to read an object again.
const RETRY: Duration = Duration::from_secs(1);

/// Time for which the state is kept as a message: many sockets come together, after a restart.
const INIT_TIME: Duration = Duration::from_secs(5);

/// Memory of an object besides its keys and values, and of each of its keys.
const OBJECT_BYTES: usize = 2048;
const KEY_BYTES: usize = 128;

/// Dependencies of all objects.
#[derive(Debug)]
pub struct ObjectDeps {
    /// The store.
    pub store: Objects,
    /// The code of the methods.
    pub methods: Methods,
    /// Limits of each object.
    pub limits: ObjectLimits,
    /// Maximum number of sockets of one object.
    pub sockets: usize,
    /// Limits of the queues to sockets.
    pub outbox: OutboxLimits,
    /// The sums over all stored objects.
    pub totals: StoredTotals,
    /// The objects in memory.
    pub memory: Memory,
    /// The objects of all nodes, if this server is one of several; they are stored in journals then.
    pub cluster: Option<Arc<ObjectCluster>>,
    /// Time after its last use for which an object stays in memory.
    pub idle_timeout: Duration,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

impl ObjectDeps {
    /// Refuses to make another long message while those that wait for slow readers take too much memory.
    ///
    /// # Errors
    /// [`ObjectError::Full`].
    pub fn check_queued_bytes(&self) -> Result<(), ObjectError> {
        match self.outbox.is_exhausted(&self.metrics) {
            true => Err(ObjectError::Full("too much waits to be read")),
            false => Ok(()),
        }
    }
}

/// The sending end of an object's task.
#[derive(Clone, Debug)]
pub struct ObjectHandle {
    /// Its commands.
    pub commands: mpsc::Sender<Command>,
    /// Everything else that both ends know.
    pub shared: Arc<HandleState>,
}

/// The shared state of an object's task and those who use it.
#[derive(Debug, Default)]
pub struct HandleState {
    /// Ends the task once nothing waits, unless it has sockets.
    pub evict: CancellationToken,
    /// Closes the sockets, and ends the task.
    pub stop: CancellationToken,
    /// True if the object was used since this was last looked at.
    pub is_used: AtomicBool,
    /// Number of sockets.
    pub sockets: AtomicUsize,
}

/// The receiving end of an [`ObjectHandle`].
#[derive(Debug)]
pub struct Inbox {
    commands: mpsc::Receiver<Command>,
    shared: Arc<HandleState>,
}

impl ObjectHandle {
    /// A handle, and the end that a task reads.
    pub fn new() -> (Self, Inbox) {
        let (sender, commands) = mpsc::channel(QUEUE);
        let shared = Arc::<HandleState>::default();
        (Self { commands: sender, shared: shared.clone() }, Inbox { commands, shared })
    }

    /// True if both belong to the same task.
    pub fn is_same(&self, other: &Self) -> bool {
        self.commands.same_channel(&other.commands)
    }
}

/// The reason for which an object's task goes on.
enum Wake {
    Command(Command),
    Stop,
    Idle,
    ForgetInit,
    Confirm,
}

/// The owner of one object.
pub struct Actor {
    id: ObjectId,
    /// None until it was read, and after a failure of the store.
    object: Option<Object>,
    /// The way to its journal, if it has one and was read.
    journal: Option<ObjectJournal>,
    /// True if sockets are to be told the state once it is known again.
    is_untold: bool,
    /// Time until which the cluster's engine is not asked again.
    away_until: Option<Instant>,
    /// The row that is counted in the sums over all objects; none before the object was read.
    counted: Option<ObjectRow>,
    inbox: Inbox,
    feeds: HashMap<ConnectionId, Feed>,
    /// The first message of sockets, until the state changes or this time.
    init: Option<(SharedMessage, Instant)>,
    is_stopping: bool,
    deps: Arc<ObjectDeps>,
    bytes: Counted,
    sockets: Counted,
    _loaded: Counted,
}

impl Actor {
    /// The owner of an object, which it reads when it needs it.
    pub fn new(id: ObjectId, inbox: Inbox, deps: Arc<ObjectDeps>) -> Self {
        let metrics = &deps.metrics;
        Self {
            id,
            object: None,
            journal: None,
            is_untold: false,
            away_until: None,
            counted: None,
            inbox,
            feeds: HashMap::new(),
            init: None,
            is_stopping: false,
            bytes: Counted::new(&metrics.durable_loaded_bytes, OBJECT_BYTES),
            sockets: Counted::new(&metrics.durable_sockets, 0),
            _loaded: Counted::new(&metrics.durable_loaded, 1),
            deps,
        }
    }

    /// Runs until the object is not in use, stops or panics; then `retire` removes it from the registry, and only
    /// then are late commands given back, so that their callers find another task.
    pub async fn run(mut self, retire: impl FnOnce()) {
        let outcome = AssertUnwindSafe(self.serve()).catch_unwind().await;
        if outcome.is_err() {
            self.deps.metrics.durable_panics.inc();
            error!(event = "objectPanicked", object = self.id.as_str());
            self.feeds.clear();
            // The sums still count changes that were applied and not stored.
            // Those of a cluster follow the engine.
            if self.deps.cluster.is_none()
                && let (Some(counted), Ok(saved)) = (self.counted, self.deps.store.load(&self.id).await)
            {
                self.deps.totals.correct(&counted, &saved.row);
            }
        }
        retire();
        self.inbox.commands.close();
        while let Some(command) = self.inbox.commands.recv().await {
            match command {
                Command::Request(Work { request, answer, .. }) => drop(answer.send(Reply::Again(request))),
                Command::Subscribe { answer, .. } => drop(answer.send(None)),
                _ => {}
            }
        }
    }

    async fn serve(&mut self) {
        let shared = self.inbox.shared.clone();
        loop {
            let is_free = self.feeds.is_empty();
            let is_shared = !is_free && self.deps.cluster.is_some();
            let forget_at = self.init.as_ref().map(|(_, until)| *until);
            let wake = tokio::select! {
                biased;
                () = shared.stop.cancelled(), if !self.is_stopping => Wake::Stop,
                command = self.inbox.commands.recv() => command.map_or(Wake::Idle, Wake::Command),
                () = sleep_until(forget_at.unwrap_or_else(now)), if forget_at.is_some() => Wake::ForgetInit,
                () = async { tokio::time::sleep(shared::CONFIRMED_EVERY).await }, if is_shared => Wake::Confirm,
                () = shared.evict.cancelled(), if is_free => Wake::Idle,
                () = tokio::time::sleep(self.deps.idle_timeout), if is_free => Wake::Idle,
            };
            let mut is_idle = false;
            match wake {
                Wake::Command(first) => self.serve_waiting(first).await,
                Wake::ForgetInit => self.init = None,
                Wake::Confirm => self.look_after_sockets().await,
                Wake::Stop => {
                    self.is_stopping = true;
                    self.feeds.values().for_each(|feed| feed.close(Close::ServiceRestart));
                }
                Wake::Idle => {
                    is_idle = true;
                    if self.object.is_none() && self.counted.is_some() {
                        // It is not forgotten until it is known what of it is stored.
                        is_idle = self.load().await.is_ok();
                        if !is_idle {
                            tokio::time::sleep(RETRY).await;
                        }
                    }
                }
            }
            let is_empty = self.object.as_ref().is_none_or(|object| !object.row().is_stored());
            let is_done =
                self.is_stopping || is_idle || (is_empty && self.counted.is_none_or(|row| !row.is_stored()));
            if is_done && self.feeds.is_empty() && self.inbox.commands.is_empty() {
                return;
            }
        }
    }

    /// Carries out a command and those that wait behind it, and stores what they change.
    async fn serve_waiting(&mut self, first: Command) {
        let started = now();
        let mut batch = Batch::default();
        let mut next = Some(first);
        while let Some(command) = next {
            self.obey(command, &mut batch).await;
            let is_full = batch.len() >= MAX_BATCH || started.elapsed() >= BATCH_TIME;
            next = if is_full { None } else { self.inbox.commands.try_recv().ok() };
        }
        // Whoever waits was told of a failure.
        let _ = self.store(&mut batch).await;
    }

    /// Reads the object, unless it is in memory.
    async fn load(&mut self) -> Result<(), ObjectError> {
        if self.object.is_some() {
            return Ok(());
        }
        if self.deps.cluster.is_some() {
            return self.open_journal().await;
        }
        let saved = self.deps.store.load(&self.id).await.map_err(|error| {
            error!(event = "objectUnreadable", object = self.id.as_str(), %error);
            ObjectError::StoreFailing
        })?;
        if let Some(counted) = self.counted {
            self.deps.totals.correct(&counted, &saved.row);
        }
        self.counted = Some(saved.row);
        self.object = Some(Object::restore(saved));
        self.measure();
        Ok(())
    }

    /// Updates the gauges of this object.
    fn measure(&mut self) {
        if let Some(row) = self.object.as_ref().map(Object::row) {
            let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
            self.bytes.set(OBJECT_BYTES + number(row.bytes) + KEY_BYTES * number(row.keys));
        }
        self.sockets.set(self.feeds.len());
        self.inbox.shared.sockets.store(self.feeds.len(), Ordering::Relaxed);
    }
}

/// The time of day in milliseconds since 1970.
fn unix_millis() -> u64 {
    let since_1970 = wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
