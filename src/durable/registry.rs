//! Registry of the objects in memory: finds or loads the one object of an id.

use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::actor::{Actor, ObjectDeps, ObjectHandle};
use super::cluster::Route;
use super::cluster::calls::Forwarded;
use super::cluster::sessions::{self, Opened};
use super::command::{Answer, Command, Reply, Request, Work};
use super::error::ObjectError;
use super::feed::FeedReader;
use crate::clock::now;
use crate::id::{ConnectionId, ObjectId};
use crate::protocol::deflate::Encoding;

/// Number of objects whose sockets are closed at a time.
const DRAIN_BATCH: usize = 64;

/// Maximum time between two batches of a shutdown.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Time for an answer beyond the time for its turn; only a disk that hangs takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Time in which the owner of an object has to be found that another node has.
const OWNER_PATIENCE: Duration = Duration::from_secs(3);

/// Pause before it is looked for again.
const PAUSE: Duration = Duration::from_millis(50);

/// All objects of this server. A clone shares them.
#[derive(Clone, Debug)]
pub struct ObjectRegistry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    objects: DashMap<ObjectId, ObjectHandle>,
    deps: Arc<ObjectDeps>,
    tasks: TaskTracker,
    stopping: CancellationToken,
    /// Ends all tasks, whatever they do.
    force: CancellationToken,
}

/// A registry that may be gone.
#[derive(Debug)]
pub struct WeakRegistry(Weak<Inner>);

impl WeakRegistry {
    /// The registry, if it is not gone.
    pub fn upgrade(&self) -> Option<ObjectRegistry> {
        self.0.upgrade().map(|inner| ObjectRegistry { inner })
    }
}

/// A socket's connection to its object.
#[derive(Debug)]
pub struct ObjectLink {
    /// The way to the object.
    pub commands: mpsc::Sender<Command>,
    /// The messages of the object.
    pub feed: FeedReader,
}

impl ObjectRegistry {
    /// A registry with nothing in memory.
    pub fn new(deps: ObjectDeps) -> Self {
        let (stopping, force) = (CancellationToken::new(), CancellationToken::new());
        let inner = Inner {
            objects: DashMap::new(),
            deps: Arc::new(deps),
            tasks: TaskTracker::new(),
            stopping,
            force,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The dependencies of all objects.
    pub fn deps(&self) -> &ObjectDeps {
        &self.inner.deps
    }

    /// The same, without keeping it.
    pub fn downgrade(&self) -> WeakRegistry {
        WeakRegistry(Arc::downgrade(&self.inner))
    }

    /// Carries out a request, which may wait for `patience` until it is its turn; on the node that owns the object, if
    /// there are several.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn request(
        &self,
        id: &ObjectId,
        request: Request,
        patience: Duration,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Answer, ObjectError> {
        let turn_by = now() + patience;
        let asked = async {
            match self.inner.deps.cluster.is_some() {
                true => self.ask_owner(id, request, turn_by, permit).await,
                false => self.ask(id, request, turn_by, permit).await.unwrap_or(Err(ObjectError::Internal)),
            }
        };
        timeout_at(turn_by + ANSWER_TIMEOUT, asked).await.unwrap_or(Err(ObjectError::Hanging))
    }

    /// Carries out a request that another node passes on.
    ///
    /// # Errors
    /// [`ObjectError::Elsewhere`] if this node does not own the object; or any other.
    pub async fn request_here(
        &self,
        id: &ObjectId,
        request: Request,
        patience: Duration,
    ) -> Result<Answer, ObjectError> {
        let turn_by = now() + patience;
        let asked = self.ask(id, request, turn_by, None);
        let asked = timeout_at(turn_by + ANSWER_TIMEOUT, asked).await;
        asked.unwrap_or(Ok(Err(ObjectError::Hanging))).unwrap_or(Err(ObjectError::Elsewhere))
    }

    /// Has the node that owns an object carry out a request. One that may have been carried out is not made again,
    /// unless it changes nothing.
    async fn ask_owner(
        &self,
        id: &ObjectId,
        mut request: Request,
        turn_by: Instant,
        mut permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Answer, ObjectError> {
        let Some(cluster) = &self.inner.deps.cluster else { return Err(ObjectError::Internal) };
        let until = now() + OWNER_PATIENCE;
        loop {
            match cluster.route(id).await? {
                Route::Here => match self.ask(id, request, turn_by, permit.take()).await {
                    Ok(answered) => return answered,
                    Err(unread) => request = unread,
                },
                Route::At(node) => {
                    if self.inner.stopping.is_cancelled() {
                        return Err(ObjectError::Stopping);
                    }
                    let is_query = request.is_query();
                    let metrics = &self.inner.deps.metrics;
                    match cluster.forward(node, id, request.clone(), turn_by, metrics).await {
                        Forwarded::Answered(answered) => return answered,
                        Forwarded::Unknown if !is_query => return Err(ObjectError::EngineSilent),
                        Forwarded::NotDone | Forwarded::Unknown => cluster.forget(id),
                    }
                }
            }
            if now() >= until {
                return Err(ObjectError::Unreachable);
            }
            sleep(PAUSE).await;
        }
    }

    /// Has the object's task here carry out a request; returns that if another node owns the object.
    async fn ask(
        &self,
        id: &ObjectId,
        mut request: Request,
        turn_by: Instant,
        mut permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Result<Answer, ObjectError>, Request> {
        loop {
            let handle = match self.find_or_start(id) {
                Ok(handle) => handle,
                Err(error) => return Ok(Err(error)),
            };
            let (answer, reply) = oneshot::channel();
            let command = Command::Request(Work { request, turn_by, answer, permit: permit.take() });
            match timeout_at(turn_by, handle.commands.send(command)).await {
                Err(_) => return Ok(Err(ObjectError::Busy)),
                Ok(Err(SendError(Command::Request(work)))) => {
                    (request, permit) = (work.request, work.permit);
                    self.forget(id, &handle);
                    continue;
                }
                Ok(_) => {}
            }
            match reply.await {
                Ok(Reply::Answered(result)) => return Ok(result),
                Ok(Reply::Again(unread)) => request = unread,
                Ok(Reply::Elsewhere(unread)) => return Err(unread),
                Err(_) => return Ok(Err(ObjectError::Internal)),
            }
        }
    }

    /// Connects a socket to an object, wherever that is, and queues the object's state for it.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn subscribe(
        &self,
        id: &ObjectId,
        socket: ConnectionId,
        encoding: Encoding,
    ) -> Result<ObjectLink, ObjectError> {
        let Some(cluster) = &self.inner.deps.cluster else {
            return self.subscribe_here(id, socket, encoding).await;
        };
        let until = now() + OWNER_PATIENCE;
        loop {
            match cluster.route(id).await? {
                Route::Here => match self.subscribe_here(id, socket, encoding).await {
                    Err(ObjectError::Elsewhere) => {}
                    subscribed => return subscribed,
                },
                Route::At(_) if self.inner.stopping.is_cancelled() => return Err(ObjectError::Stopping),
                Route::At(node) => match sessions::open(self, cluster, node, id, (socket, encoding)).await {
                    Opened::Link(link) => return Ok(link),
                    Opened::Refused(error) => return Err(error),
                    Opened::NotDone => cluster.forget(id),
                },
            }
            if now() >= until {
                return Err(ObjectError::Unreachable);
            }
            sleep(PAUSE).await;
        }
    }

    /// Connects a socket to an object of this node.
    ///
    /// # Errors
    /// [`ObjectError::Elsewhere`] if another node owns the object; or any other.
    pub async fn subscribe_here(
        &self,
        id: &ObjectId,
        socket: ConnectionId,
        encoding: Encoding,
    ) -> Result<ObjectLink, ObjectError> {
        loop {
            let handle = self.find_or_start(id)?;
            let (answer, reply) = oneshot::channel();
            if handle.commands.send(Command::Subscribe { socket, encoding, answer }).await.is_err() {
                self.forget(id, &handle);
                continue;
            }
            // A subscription that comes later finds nobody who waits for it, and ends.
            match timeout(ANSWER_TIMEOUT, reply).await.map_err(|_| ObjectError::Hanging)? {
                Ok(Some(feed)) => return Ok(ObjectLink { commands: handle.commands, feed: feed? }),
                Ok(None) => {}
                Err(_) => return Err(ObjectError::Internal),
            }
        }
    }

    /// Runs a task for as long as the objects do.
    pub fn track(&self, task: impl Future<Output = ()> + Send + 'static) {
        let force = self.inner.force.clone();
        self.inner.tasks.spawn(async move { force.run_until_cancelled(task).await });
    }

    /// Calls the handler of an object's alarm, and waits until that is done or found to be not due.
    pub async fn ring(&self, id: &ObjectId, due: u64) {
        self.ring_here(id, due).await;
    }

    /// The same; false if the alarm may still be due.
    pub async fn ring_here(&self, id: &ObjectId, due: u64) -> bool {
        let Ok(handle) = self.find_or_start(id) else { return false };
        let (done, rung) = oneshot::channel();
        if handle.commands.send(Command::Alarm { due, done }).await.is_err() {
            self.forget(id, &handle);
            return false;
        }
        rung.await.is_ok()
    }

    /// The same on the node that owns the object.
    pub async fn ring_anywhere(&self, id: &ObjectId, due: u64) -> bool {
        let Some(cluster) = &self.inner.deps.cluster else { return self.ring_here(id, due).await };
        match cluster.route(id).await {
            Ok(Route::Here) => self.ring_here(id, due).await,
            Ok(Route::At(node)) => {
                let is_rung = cluster.forward_alarm(node, id, due).await;
                if !is_rung {
                    cluster.forget(id);
                }
                is_rung
            }
            Err(_) => false,
        }
    }

    /// Cancelled once no more requests are taken.
    pub fn stopping(&self) -> &CancellationToken {
        &self.inner.stopping
    }

    /// First half of a shutdown: takes no more requests, and closes all sockets so that their clients reconnect.
    pub async fn send_away(&self, deadline: Instant) {
        self.inner.stopping.cancel();
        let handles: Vec<ObjectHandle> =
            self.inner.objects.iter().map(|entry| entry.value().clone()).collect();
        // Batch by batch, so that clients do not all reconnect in the same second; within half of the time, so that
        // the last batch has the other half to end.
        let batches = handles.chunks(DRAIN_BATCH);
        let count = u32::try_from(batches.len()).unwrap_or(u32::MAX).max(1);
        let pause = (deadline.saturating_duration_since(now()) / 2 / count).min(LONGEST_PAUSE);
        for batch in batches {
            batch.iter().for_each(|handle| handle.shared.stop.cancel());
            let mut ends: FuturesUnordered<_> = batch.iter().map(|handle| handle.commands.closed()).collect();
            let _ = timeout(pause, async { while ends.next().await.is_some() {} }).await;
        }
    }

    /// Second half of a shutdown: waits until all calls that were taken are answered; returns the number of objects
    /// that were cut off at the deadline.
    pub async fn end(&self, deadline: Instant) -> usize {
        self.inner.tasks.close();
        if timeout_at(deadline, self.inner.tasks.wait()).await.is_ok() {
            info!("all objects are stored");
            return 0;
        }
        let objects = self.inner.tasks.len();
        warn!(objects, "the deadline ends the wait for objects");
        self.inner.force.cancel();
        self.inner.tasks.wait().await;
        objects
    }

    fn find_or_start(&self, id: &ObjectId) -> Result<ObjectHandle, ObjectError> {
        if let Some(handle) = self.inner.objects.get(id)
            && !self.inner.stopping.is_cancelled()
        {
            return Ok(handle.clone());
        }
        let entry = self.inner.objects.entry(id.clone());
        // Checked under the entry's lock: an object is either seen by the shutdown's iteration or not started.
        if self.inner.stopping.is_cancelled() {
            return Err(ObjectError::Stopping);
        }
        match entry {
            Entry::Occupied(running) => Ok(running.get().clone()),
            Entry::Vacant(vacant) => {
                self.inner.deps.memory.admit()?;
                let handle = self.spawn(id.clone());
                self.inner.deps.memory.add(handle.clone());
                vacant.insert(handle.clone());
                Ok(handle)
            }
        }
    }

    /// Starts an object's task; the caller holds the entry of the id, so that there is only one.
    fn spawn(&self, id: ObjectId) -> ObjectHandle {
        let (handle, inbox) = ObjectHandle::new();
        let actor = Actor::new(id.clone(), inbox, self.inner.deps.clone());
        let (registry, own) = (self.clone(), handle.clone());
        let force = self.inner.force.clone();
        let run = Box::pin(actor.run(move || registry.forget(&id, &own)));
        self.inner.tasks.spawn(async move { force.run_until_cancelled(run).await });
        handle
    }

    fn forget(&self, id: &ObjectId, handle: &ObjectHandle) {
        self.inner.objects.remove_if(id, |_, running| running.is_same(handle));
    }
}
