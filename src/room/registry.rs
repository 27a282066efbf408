//! Registry of running rooms: finds or starts the one room of a name, and joins members to it.

mod answering;
mod rules;
mod sharing;
mod starting;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use moka::future::Cache;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;
use tracing::{error, info, warn};

pub use self::answering::CannotDescribe;
use self::answering::WeakRooms;
pub use self::rules::CannotModerate;
pub use self::sharing::ShareError;
use super::actor::{Actor, RoomDeps, RoomPermit};
use super::ai::Ai;
use super::events::RoomEvents;
use super::io::{CannotPost, Join, JoinRefusal, Liveness, RoomEvent};
use super::link::MemberLink;
use super::mailbox::{Command, RoomHandle};
use super::passwords::Passwords;
use super::shared::{EngineState, SharedRooms};
use crate::clock::now;
use crate::id::{ConnectionId, Grants, IdentityId, MeetingId, NodeId, RoomName, UserId};
use crate::limit::{ConcurrencyLimit, Exceeded, Rate, RateExceeded, UserRate};
use crate::metrics::Metrics;
use crate::network::ClientNetwork;
use crate::protocol::deflate::Encoding;
use crate::store::StoreHandle;
use crate::store::saved::SavedRoom;

/// Number of rooms that are shut down or queried at a time.
const DRAIN_BATCH: usize = 64;

/// Maximum time between two batches of a shutdown.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Timeout of a room's answer to an operator's query.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeout of a join to a room that other nodes share: its owner may be gone, and the next one not known.
const SHARED_JOIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Remembered requests with a key, and the time for which they are.
const MAX_DONE: u64 = 10_000;
const DONE_REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// Limits of the registry itself.
#[derive(Clone, Copy, Debug)]
pub struct RegistryLimits {
    /// Maximum number of running rooms.
    pub rooms: usize,
    /// Rate of new rooms of one identity.
    pub new_rooms: Rate,
    /// Maximum number of running rooms started by one network; 0 is no limit.
    pub rooms_of_network: usize,
    /// Rate of new rooms of one network.
    pub new_rooms_of_network: Rate,
}

/// All rooms of this server. A clone shares them.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    rooms: DashMap<RoomName, RoomHandle>,
    running: ConcurrencyLimit,
    new_rooms: UserRate,
    passwords: Passwords,
    /// The requests with a key that were carried out, each with its digest.
    done: Cache<(IdentityId, String), [u8; 32]>,
    deps: RoomDeps,
    /// Runs the rooms if other nodes share them.
    shared: Option<Arc<dyn SharedRooms>>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

/// Reason for a failed join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotJoin {
    /// The room refused the join.
    Refused(JoinRefusal),
    /// The server's limit of running rooms is reached.
    RoomsFull,
    /// The identity's rate of new rooms is exceeded.
    TooManyNewRooms,
    /// The network's limit of running rooms is reached.
    TooManyRoomsOfNetwork,
    /// The network's rate of new rooms is exceeded.
    TooManyNewRoomsOfNetwork,
    /// The node that owns the room did not answer in time.
    Unreachable,
}

/// Reason for not writing a program's message to a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostError {
    /// The room refuses it.
    Refused(CannotPost),
    /// The room did not answer in time.
    Silent,
    /// The key of the request was used with another one.
    OtherRequest,
}

/// A program that is shown as an observer of a room, until this is dropped.
pub struct Observation {
    registry: Registry,
    room: RoomName,
    number: u64,
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.registry.inner.deps.observers.remove(&self.room, self.number);
        self.registry.tell_observed(&self.room);
        self.registry.share_observers(&self.room);
    }
}

impl Inner {
    /// The permit of a restored room, which has no starter and is claimed by the first network that returns.
    fn permit(&self) -> Option<RoomPermit> {
        let permit = self.running.try_acquire(None).ok()?;
        Some(RoomPermit { permit: Some(permit), network: None, is_claimed: false })
    }

    /// The permit of a room that a client starts. The limits on running rooms are checked first: a client
    /// that finds them reached has not started a room.
    fn permit_for(
        &self,
        identity: &IdentityId,
        network: Option<ClientNetwork>,
    ) -> Result<RoomPermit, CannotJoin> {
        let permit = self.running.try_acquire(network).map_err(|exceeded| match exceeded {
            Exceeded::Total => CannotJoin::RoomsFull,
            Exceeded::Network => CannotJoin::TooManyRoomsOfNetwork,
        })?;
        self.new_rooms.check(identity, network).map_err(|exceeded| match exceeded {
            RateExceeded::Identity => CannotJoin::TooManyNewRooms,
            RateExceeded::Network => CannotJoin::TooManyNewRoomsOfNetwork,
        })?;
        Ok(RoomPermit { permit: Some(permit), network, is_claimed: true })
    }
}

impl Registry {
    /// Creates a registry and starts every stored room at once, so that no other identity takes its
    /// members' ids.
    pub fn start(limits: RegistryLimits, deps: RoomDeps, saved: Vec<SavedRoom>) -> Self {
        let registry = Self::new(limits, deps, None, saved.len());
        saved.into_iter().for_each(|room| registry.restore(room));
        registry
    }

    /// Creates a registry whose rooms other nodes share. They are stored elsewhere.
    pub fn start_shared(limits: RegistryLimits, deps: RoomDeps, shared: Arc<dyn SharedRooms>) -> Self {
        let registry = Self::new(limits, deps, Some(shared.clone()), 0);
        // The other node's requests keep no room running.
        shared.serve(Arc::new(WeakRooms(Arc::downgrade(&registry.inner))));
        registry.take_orphans(&*shared);
        registry
    }

    fn new(
        limits: RegistryLimits,
        deps: RoomDeps,
        shared: Option<Arc<dyn SharedRooms>>,
        least_rooms: usize,
    ) -> Self {
        let rooms = limits.rooms.max(least_rooms);
        Self {
            inner: Arc::new(Inner {
                rooms: DashMap::new(),
                running: ConcurrencyLimit::new(rooms, limits.rooms_of_network),
                new_rooms: UserRate::new(limits.new_rooms, limits.new_rooms_of_network),
                passwords: Passwords::default(),
                done: Cache::builder().max_capacity(MAX_DONE).time_to_live(DONE_REMEMBERED).build(),
                deps,
                shared,
                tasks: TaskTracker::new(),
                stopping: CancellationToken::new(),
            }),
        }
    }

    /// Joins the room of that name, and starts it if needed; a new room counts for the client's
    /// identity, and for its network if known. The member's outbox gets the messages in the `encoding` that its
    /// socket accepts.
    ///
    /// # Errors
    /// [`CannotJoin`] with the reason; nothing was changed then.
    pub async fn join(
        &self,
        name: &RoomName,
        mut join: Join,
        encoding: Encoding,
    ) -> Result<MemberLink, CannotJoin> {
        join.password = self.inner.passwords.proof(name, &join.identity).await;
        let joined = self.join_running(name, join, encoding);
        if self.inner.shared.is_none() {
            return joined.await;
        }
        timeout(SHARED_JOIN_TIMEOUT, joined).await.unwrap_or(Err(CannotJoin::Unreachable))
    }

    async fn join_running(
        &self,
        name: &RoomName,
        join: Join,
        encoding: Encoding,
    ) -> Result<MemberLink, CannotJoin> {
        loop {
            // Anew each time: the meeting may have been ended for all while this one waited.
            if self.inner.deps.ended.contains(now().into_std(), name, &join.user) {
                return Err(CannotJoin::Refused(JoinRefusal::Ended));
            }
            let room = self.find_or_start(name, &join)?;
            let (ack, answer) = oneshot::channel();
            // A command that could not be sent is dropped here; otherwise its ack would be awaited forever.
            let ask = Command::Join { join: join.clone(), encoding, ack };
            let was_sent = room.mailbox().send(ask).await.is_ok();
            // A retiring room accepts no join, or drops its ack. Ask again: the registry has
            // another room by then, or starts one. Without this, a join would be lost.
            match answer.await {
                Ok(Ok(outbox)) => {
                    return Ok(MemberLink::new(join.connection, room.mailbox().clone(), outbox));
                }
                Ok(Err(refusal)) => return Err(CannotJoin::Refused(refusal)),
                Err(_) if !was_sent => self.forget(name, &room),
                Err(_) => {}
            }
        }
    }

    /// True if a room can be joined, tried with one that is not registered, persisted, counted or logged.
    pub async fn try_a_join(&self) -> bool {
        let (handle, inbox) = RoomHandle::new();
        let metrics = Metrics::new();
        let store = StoreHandle::of_nothing(metrics.clone());
        let events = RoomEvents::default();
        let deps = RoomDeps { store, events, metrics, ..self.inner.deps.clone() };
        let permit = RoomPermit { permit: None, network: None, is_claimed: true };
        let Ok(name) = RoomName::parse("readiness") else { return false };
        let room = async move { Actor::new(name, None, inbox, permit, deps).run(|| {}).await };
        self.inner.tasks.spawn(room.with_subscriber(NoSubscriber::new()));
        let join = Join {
            connection: ConnectionId::new(NodeId::random(), 0),
            user: UserId::random(),
            identity: IdentityId::new("readiness"),
            name: "readiness".into(),
            grants: Grants::everyone(),
            network: None,
            new_meeting: MeetingId::random(),
            presence: false,
            liveness: Liveness::Heartbeat,
            password: None,
        };
        let (ack, answer) = oneshot::channel();
        let _ = handle.mailbox().send(Command::Join { join, encoding: Encoding::Identity, ack }).await;
        let joined = matches!(answer.await, Ok(Ok(_)));
        handle.shutdown();
        joined
    }

    /// This node's way to the engine, if it is one of several.
    pub fn engine(&self) -> Option<EngineState> {
        self.inner.shared.as_ref().map(|shared| shared.engine_state())
    }

    /// Names of all running rooms, sorted.
    pub fn names(&self) -> Vec<RoomName> {
        let mut names: Vec<_> = self.inner.rooms.iter().map(|entry| entry.key().clone()).collect();
        names.sort();
        names
    }

    /// True if a room of that name runs.
    pub fn is_running(&self, name: &RoomName) -> bool {
        self.inner.rooms.contains_key(name)
    }

    /// Shows a program as an observer in a room, also in one that starts later, until the observation is dropped.
    pub fn observe(&self, room: &RoomName, name: Arc<str>) -> Observation {
        let number = self.inner.deps.observers.add(room, name);
        self.tell_observed(room);
        self.share_observers(room);
        Observation { registry: self.clone(), room: room.clone(), number }
    }

    fn tell_observed(&self, room: &RoomName) {
        if let Some(room) = self.inner.rooms.get(room) {
            room.mailbox().try_observed();
        }
    }

    /// Prunes unused entries of the limits; otherwise every identity ever seen would stay in memory.
    pub fn prune(&self) {
        self.inner.new_rooms.prune();
        self.inner.deps.ai.prune();
        self.inner.deps.ended.prune(now().into_std());
        self.prune_observers();
    }

    /// Closes all sockets, room by room, and waits until all rooms have persisted their state.
    ///
    /// After `deadline` sockets are no longer waited for. Joins are refused from now on.
    pub async fn shutdown(&self, deadline: Instant) {
        self.send_away(deadline).await;
        self.end(deadline).await;
    }

    /// First half of [`Self::shutdown`]: starts no more rooms, and closes all sockets so that their
    /// clients reconnect.
    pub async fn send_away(&self, deadline: Instant) {
        self.inner.stopping.cancel();
        let rooms: Vec<RoomHandle> = self.inner.rooms.iter().map(|entry| entry.value().clone()).collect();
        // Batch by batch, so that clients do not all reconnect in the same second; within half of
        // the time, so that the last batch has the other half to end.
        let batches = rooms.chunks(DRAIN_BATCH);
        let batch_count = u32::try_from(batches.len()).unwrap_or(u32::MAX).max(1);
        let pause = (deadline.saturating_duration_since(now()) / 2 / batch_count).min(LONGEST_PAUSE);
        for batch in batches {
            batch.iter().for_each(RoomHandle::shutdown);
            let mut ends: FuturesUnordered<_> = batch.iter().map(|room| room.mailbox().closed()).collect();
            let _ = timeout(pause, async { while ends.next().await.is_some() {} }).await;
        }
        info!(rooms = rooms.len(), "all rooms are shutting down");
    }

    /// Second half of [`Self::shutdown`]: waits for all rooms to end.
    pub async fn end(&self, deadline: Instant) {
        self.inner.tasks.close();
        if tokio::time::timeout_at(deadline, self.inner.tasks.wait()).await.is_err() {
            warn!(rooms = self.inner.tasks.len(), "the deadline ends the wait for slow sockets");
            self.inner.deps.force.cancel();
            self.inner.tasks.wait().await;
        }
        info!("all rooms are persisted");
    }

    fn find_or_start(&self, name: &RoomName, join: &Join) -> Result<RoomHandle, CannotJoin> {
        let entry = self.inner.rooms.entry(name.clone());
        // Checked under the entry's lock: a room is either seen by the shutdown's iteration or not started.
        if self.inner.stopping.is_cancelled() {
            return Err(CannotJoin::Refused(JoinRefusal::ShuttingDown));
        }
        match entry {
            Entry::Occupied(running) => Ok(running.get().clone()),
            Entry::Vacant(_) if self.is_engine_away() => Err(CannotJoin::Unreachable),
            // A meeting may run in a room that other nodes share; its owner refuses the join if not.
            Entry::Vacant(_) if !join.grants.create && self.inner.shared.is_none() => {
                Err(CannotJoin::Refused(JoinRefusal::NotStarted))
            }
            Entry::Vacant(vacant) => {
                let permit = self.inner.permit_for(&join.identity, join.network)?;
                let handle = self.spawn(name.clone(), None, permit, false);
                vacant.insert(handle.clone());
                Ok(handle)
            }
        }
    }

    /// Starts a stored room. One whose stored state makes it panic is quarantined; otherwise no
    /// start of the server would ever succeed again.
    fn restore(&self, saved: SavedRoom) {
        let (name, meeting, ai) = (saved.room.clone(), saved.meeting, saved.ai.clone());
        let Entry::Vacant(vacant) = self.inner.rooms.entry(name.clone()) else { return };
        let Some(permit) = self.inner.permit() else { return };
        let spawn = AssertUnwindSafe(|| self.spawn(name.clone(), Some(saved), permit, false));
        match catch_unwind(spawn) {
            Ok(handle) => drop(vacant.insert(handle)),
            Err(_) => {
                let deps = &self.inner.deps;
                deps.metrics.room_panics.inc();
                error!(event = "roomPanicked", room = name.as_str(), meeting_id = %meeting);
                deps.events.publish(&name, Some(meeting), RoomEvent::RoomFailed);
                deps.store.quarantine(name, meeting);
                let ai = ai.map(|saved| Ai::restore(0, meeting, &saved, |_| false));
                if let Some(session) = ai.as_ref().and_then(Ai::session) {
                    deps.ai.agents().close(session.clone());
                }
            }
        }
    }

    fn forget(&self, name: &RoomName, room: &RoomHandle) {
        self.inner.rooms.remove_if(name, |_, running| running.is_same(room));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::task::{Context, Poll, Waker};

    use axum::http::Uri;
    use futures_util::{FutureExt, poll};
    use tempfile::TempDir;

    use super::*;
    use crate::ai::AiHandle;
    use crate::config::{AiConfig as AiSettings, Calls, ModeratorDefault, Optional, TurnConfig};
    use crate::media_api::upstream::Upstream;
    use crate::network::client_network;
    use crate::protocol::ai::{AiMessage, TrackReference};
    use crate::protocol::client::ClientMessage;
    use crate::protocol::close::Close;
    use crate::protocol::server::MessageKind;
    use crate::room::chat::HistoryLimits;
    use crate::room::io::Disconnection;
    use crate::room::link::Taken;
    use crate::room::mailbox::Incoming;
    use crate::room::outbox::OutboxLimits;
    use crate::room::rules::RoomRules;
    use crate::room::state::RoomSettings;
    use crate::store::Store;
    use crate::store::data_dir::DataDir;

    const NODE: NodeId = NodeId::new(0);

    pub struct TestRegistry {
        pub registry: Registry,
        store: Store,
        pub metrics: Arc<Metrics>,
        _dir: TempDir,
    }

    pub async fn test_registry(tick: Duration, rooms: usize) -> TestRegistry {
        test_registry_with(tick, rooms, Calls::default(), Vec::new()).await
    }

    async fn test_registry_with(
        tick: Duration,
        rooms: usize,
        calls: Calls,
        all_saved: Vec<SavedRoom>,
    ) -> TestRegistry {
        let dir = tempfile::tempdir().unwrap();
        let database = DataDir::open(dir.path()).unwrap().database();
        let metrics = Metrics::new();
        let (store, _) = Store::open(&database, metrics.clone()).await.unwrap();
        let settings = RoomSettings {
            tick,
            heartbeat_timeout: Duration::from_secs(3600),
            restore_grace: Duration::from_secs(30),
            members: 10,
            members_per_identity: 10,
            members_per_network: 10,
            user_bytes: 8192,
            ai_starts_per_minute: 0,
            moderators: ModeratorDefault::Everyone,
            rules: RoomRules::default(),
            chat: HistoryLimits::default(),
            assistant: None,
            watch: crate::room::watch::WatchSettings::default(),
            files: false,
        };
        let upstream =
            Upstream::new(&calls, &TurnConfig::default(), 1024, None, metrics.clone()).unwrap().into();
        let deps = RoomDeps {
            settings,
            outbox: OutboxLimits {
                member_bytes: 100_000,
                all_bytes: 1 << 30,
                write_stall: Duration::from_secs(20),
            },
            store: store.handle(),
            ai: AiHandle::new(upstream, &calls, &AiSettings::default(), Rate::UNLIMITED, metrics.clone())
                .unwrap(),
            media: crate::media_access::MediaAccess::new(true),
            rulebook: Arc::default(),
            ended: Arc::default(),
            observers: Arc::default(),
            assistant: None,
            files: None,
            events: RoomEvents::default(),
            metrics: metrics.clone(),
            force: CancellationToken::new(),
        };
        let limits = RegistryLimits {
            rooms,
            new_rooms: Rate::per_minute(1000),
            rooms_of_network: 2,
            new_rooms_of_network: Rate::per_minute(5),
        };
        TestRegistry { registry: Registry::start(limits, deps, all_saved), store, metrics, _dir: dir }
    }

    fn name(name: &str) -> RoomName {
        RoomName::parse(name).unwrap()
    }

    fn asks(connection: u64, user: &str) -> Join {
        Join {
            connection: ConnectionId::new(NODE, connection),
            user: UserId::parse(user).unwrap(),
            identity: IdentityId::new(user),
            name: user.into(),
            grants: Grants::everyone(),
            network: None,
            new_meeting: MeetingId::random(),
            presence: false,
            liveness: Liveness::Heartbeat,
            password: None,
        }
    }

    async fn leave(joined: &mut MemberLink, connection: u64) {
        let said = Command::Message(Incoming {
            connection: ConnectionId::new(NODE, connection),
            bytes: 0,
            permit: None,
            reply: None,
            message: Ok(ClientMessage::UserLeft),
        });
        joined.mailbox().send(said).await.unwrap();
    }

    async fn closed(link: &mut MemberLink) -> Close {
        loop {
            if let Taken::Close(close) = std::future::poll_fn(|context| link.poll_next(context)).await {
                return close;
            }
        }
    }

    /// A join that reached a room as it retired was lost: the room dropped it, and its socket
    /// waited forever, or was in a room that nobody else could find.
    #[tokio::test(start_paused = true)]
    async fn join_to_retiring_room_gets_another_one() {
        let tick = Duration::from_secs(15);
        let TestRegistry { registry, .. } = test_registry(tick, 10).await;
        let room = name("r");
        let tick_at = now() + tick;
        let mut first = registry.join(&room, asks(1, "a"), Encoding::Identity).await.unwrap();
        let meeting = registry.describe(&room).await.unwrap().meeting;
        leave(&mut first, 1).await;
        assert_eq!(closed(&mut first).await, Close::UserLeft);

        // This task and the room's wake at the same instant, and this one runs first: the room finds
        // its tick due and the join in its mailbox, and retires with the join unread.
        tokio::time::sleep_until(tick_at).await;
        let second = registry.join(&room, asks(2, "b"), Encoding::Identity);
        tokio::pin!(second);
        assert!(poll!(&mut second).is_pending(), "the join waits in the mailbox");
        let _second = second.await.unwrap();
        let view = registry.describe(&room).await.unwrap();
        assert_eq!(view.members.len(), 1);
        assert_ne!(view.meeting, meeting);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn acknowledged_join_is_in_the_registered_room() {
        let TestRegistry { registry, metrics, store, .. } = test_registry(Duration::from_millis(1), 1).await;
        let tasks = TaskTracker::new();
        let checks: Vec<_> = (0..4u64)
            .map(|task| {
                let registry = registry.clone();
                tasks.spawn(async move {
                    let (room, user) = (name("r"), format!("u{task}"));
                    for turn in 0..300 {
                        let connection = task * 1000 + turn;
                        let mut joined = loop {
                            match registry.join(&room, asks(connection, &user), Encoding::Identity).await {
                                Ok(joined) => break joined,
                                // The retired room still holds the only permit for a moment.
                                Err(CannotJoin::RoomsFull) => tokio::task::yield_now().await,
                                Err(error) => panic!("{error:?}"),
                            }
                        };
                        let view = registry.describe(&room).await.expect("the room of a member runs");
                        let own = view.members.iter().find(|member| member.user.as_str() == user);
                        let own = own.and_then(|member| member.connection).map(|(connection, _)| connection);
                        assert_eq!(own, Some(ConnectionId::new(NODE, connection)));
                        leave(&mut joined, connection).await;
                        assert_eq!(closed(&mut joined).await, Close::UserLeft);
                    }
                })
            })
            .collect();
        for check in checks {
            check.await.unwrap();
        }
        registry.shutdown(now() + Duration::from_secs(10)).await;
        assert_eq!((metrics.rooms.get(), metrics.members.get(), metrics.outbox_bytes.get()), (0, 0, 0));
        store.shutdown(now() + Duration::from_secs(10)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn network_at_its_room_limit_is_refused() {
        let TestRegistry { registry, .. } = test_registry(Duration::from_secs(15), 100).await;
        let network = |address: &str| Some(client_network(address.parse().unwrap()));
        let join = async |room: &str, number: u64, from: &str| {
            // One identity per join: a client without a cookie gets a new one.
            let ask = asks(number, &format!("u{number}"));
            registry.join(&name(room), Join { network: network(from), ..ask }, Encoding::Identity).await
        };
        let mut first = join("1", 1, "2001:db8::1").await.unwrap();
        let _second = join("2", 2, "2001:db8::2").await.unwrap();
        let refused = join("3", 3, "2001:db8::3").await.unwrap_err();
        assert_eq!(refused, CannotJoin::TooManyRoomsOfNetwork);
        let _no_new_room = join("2", 4, "2001:db8::3").await.unwrap();
        let _other_network = join("3", 5, "2001:db8:0:1::1").await.unwrap();
        for number in 10..20 {
            registry.join(&name(&number.to_string()), asks(number, "p"), Encoding::Identity).await.unwrap();
        }
        leave(&mut first, 1).await;
        while registry.is_running(&name("1")) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let _in_its_place = join("4", 6, "2001:db8::1").await.unwrap();
        registry.shutdown(now() + Duration::from_secs(10)).await;
    }

    /// Attempts at a network's limit used up the rate of each of its identities elsewhere.
    #[tokio::test]
    async fn room_refused_for_network_costs_no_identity_token() {
        let TestRegistry { registry, .. } = test_registry(Duration::from_secs(15), 100).await;
        let office = Some(client_network([192, 0, 2, 1].into()));
        let join = async |room: &str, network| {
            registry.join(&name(room), Join { network, ..asks(9, "ada") }, Encoding::Identity).await
        };
        let mut links = Vec::new();
        for number in 0..2 {
            let join = Join { network: office, ..asks(number, &format!("u{number}")) };
            links.push(registry.join(&name(&number.to_string()), join, Encoding::Identity).await.unwrap());
        }
        for _ in 0..1100 {
            assert_eq!(join("new", office).await.unwrap_err(), CannotJoin::TooManyRoomsOfNetwork);
        }
        join("new", Some(client_network([192, 0, 2, 2].into()))).await.expect("nothing was started");
    }

    /// After a restart a network could start as many rooms again as its limit allows.
    #[tokio::test]
    async fn restored_room_counts_for_first_returning_network() {
        let saved = |number: u64| SavedRoom {
            room: name(&format!("saved{number}")),
            meeting: MeetingId::random(),
            ai: None,
            moderation: None,
            watch: None,
            chat: Vec::new(),
            members: Vec::new(),
            departed: Vec::new(),
            unconfirmed: Vec::new(),
            journal: None,
        };
        let all_saved = (0..3).map(saved).collect();
        let TestRegistry { registry, .. } =
            test_registry_with(Duration::from_secs(3600), 10, Calls::default(), all_saved).await;
        let [office, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(|address| client_network(address.into()));
        let join = async |room: &str, number: u64, network| {
            let ask = asks(number, &format!("u{number}"));
            registry.join(&name(room), Join { network: Some(network), ..ask }, Encoding::Identity).await
        };
        for number in 0..3 {
            join(&format!("saved{number}"), number, office).await.expect("it is no new room");
            join(&format!("saved{number}"), 10 + number, other).await.expect("nor for who comes later");
        }
        assert_eq!(join("new", 20, office).await.unwrap_err(), CannotJoin::TooManyRoomsOfNetwork);
        join("new", 21, other).await.unwrap();
    }

    #[tokio::test]
    async fn rooms_started_by_one_network_are_rate_limited() {
        let TestRegistry { registry, .. } = test_registry(Duration::from_millis(10), 100).await;
        let network = Some(client_network([192, 0, 2, 1].into()));
        for number in 0..5 {
            let room = name(&number.to_string());
            let user = format!("u{number}");
            let mut joined = registry
                .join(&room, Join { network, ..asks(number, &user) }, Encoding::Identity)
                .await
                .unwrap();
            leave(&mut joined, number).await;
            while registry.is_running(&room) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let refused = registry
            .join(&name("5"), Join { network, ..asks(9, "u9") }, Encoding::Identity)
            .await
            .unwrap_err();
        assert_eq!(refused, CannotJoin::TooManyNewRoomsOfNetwork);
        let network = Some(client_network([192, 0, 2, 2].into()));
        registry.join(&name("5"), Join { network, ..asks(9, "u9") }, Encoding::Identity).await.unwrap();
    }

    /// A join that reached an ended room held its own ack, and waited for it forever.
    #[tokio::test]
    async fn join_to_ended_room_gets_another_one() {
        let TestRegistry { registry, store, .. } = test_registry(Duration::from_secs(15), 10).await;
        let (ended, inbox) = RoomHandle::new();
        drop(inbox);
        registry.inner.rooms.insert(name("r"), ended);
        let joined =
            timeout(Duration::from_secs(10), registry.join(&name("r"), asks(1, "a"), Encoding::Identity))
                .await;
        leave(&mut joined.expect("the join is not forgotten").unwrap(), 1).await;
        store.handle().flush().await.unwrap();
    }

    /// Sends a message, and returns the room's reply.
    async fn reply(
        link: &mut MemberLink,
        message: Result<ClientMessage, String>,
    ) -> Option<Result<(), String>> {
        let (reply, result) = oneshot::channel();
        link.send(message, 0, Some(reply)).unwrap();
        result.await.ok()
    }

    #[tokio::test]
    async fn sender_is_told_the_result_of_its_message() {
        let TestRegistry { registry, .. } = test_registry(Duration::from_secs(15), 10).await;
        let room = name("r");
        let mut link = registry.join(&room, asks(1, "a"), Encoding::Identity).await.unwrap();
        assert_eq!(reply(&mut link, Ok(ClientMessage::Heartbeat)).await, Some(Ok(())));
        assert_eq!(reply(&mut link, Err("no JSON".to_owned())).await, Some(Err("no JSON".to_owned())));
        let control = ClientMessage::Ai(AiMessage::RequestControl(TrackReference {
            session: crate::id::SessionId::parse("s").unwrap(),
            track_name: "t".into(),
        }));
        let refused = "the AI is not in this room";
        assert_eq!(reply(&mut link, Ok(control)).await, Some(Err(refused.to_owned())));
        // The error events are sent as well, with the same sentences.
        let mut errors = Vec::new();
        let context = Context::from_waker(Waker::noop());
        while let Poll::Ready(taken) = link.poll_next(&context) {
            if let Taken::Message(payload) = taken
                && payload.kind == MessageKind::Error
            {
                errors.push(String::from_utf8(payload.bytes.into()).unwrap());
            }
        }
        let error = |why: &str| format!(r#"{{"type":"error","error":"{why}"}}"#);
        let coded = format!(r#"{{"type":"error","error":"{refused}","code":"ai_not_here"}}"#);
        assert_eq!(errors, [error("no JSON"), coded]);
        // A newer connection of the member, and then none.
        let mut newer = registry.join(&room, asks(2, "a"), Encoding::Identity).await.unwrap();
        assert!(matches!(reply(&mut link, Ok(ClientMessage::Heartbeat)).await, Some(Err(_))));
        assert_eq!(reply(&mut newer, Ok(ClientMessage::UserLeft)).await, Some(Ok(())));
        assert!(matches!(reply(&mut newer, Ok(ClientMessage::Heartbeat)).await, Some(Err(_))));
    }

    #[tokio::test]
    async fn failed_room_drops_the_reply() {
        let TestRegistry { registry, .. } = test_registry(Duration::from_secs(15), 10).await;
        let mut link = registry.join(&name("r"), asks(1, "a"), Encoding::Identity).await.unwrap();
        link.mailbox().send(Command::Panic).await.unwrap();
        assert_eq!(reply(&mut link, Ok(ClientMessage::Heartbeat)).await, None);
    }

    #[tokio::test]
    async fn leave_removes_the_member_at_once() {
        let TestRegistry { registry, .. } = test_registry(Duration::from_secs(15), 10).await;
        let room = name("r");
        let link = registry.join(&room, asks(1, "a"), Encoding::Identity).await.unwrap();
        let _other = registry.join(&room, asks(2, "b"), Encoding::Identity).await.unwrap();
        link.leave().await;
        let members = registry.describe(&room).await.unwrap().members;
        assert_eq!(members.into_iter().map(|member| member.user.to_string()).collect::<Vec<_>>(), ["b"]);
    }

    #[tokio::test]
    async fn a_panic_in_one_room_ends_that_room_alone() {
        let TestRegistry { registry, metrics, store, .. } = test_registry(Duration::from_secs(15), 10).await;
        let (bad, good) = (name("bad"), name("good"));
        let mut victim = registry.join(&bad, asks(1, "a"), Encoding::Identity).await.unwrap();
        let mut other = registry.join(&good, asks(2, "b"), Encoding::Identity).await.unwrap();
        let meeting = registry.describe(&bad).await.unwrap().meeting;
        victim.mailbox().send(Command::Panic).await.unwrap();
        assert_eq!(closed(&mut victim).await, Close::RoomFailed);

        let mut again = registry.join(&bad, asks(3, "a"), Encoding::Identity).await.unwrap();
        assert_ne!(registry.describe(&bad).await.unwrap().meeting, meeting, "the next join starts afresh");
        leave(&mut again, 3).await;
        leave(&mut other, 2).await;
        assert_eq!(closed(&mut other).await, Close::UserLeft, "the other room serves on");
        assert_eq!(metrics.room_panics.get(), 1);
        store.handle().flush().await.unwrap();
    }

    /// A room that panicked forgot its AI, which went on billing.
    #[tokio::test]
    async fn a_panic_closes_the_ai_of_the_room() {
        let (tell, mut closings) = tokio::sync::mpsc::unbounded_channel();
        let media_api = axum::Router::new().fallback(async move |uri: Uri, body: String| {
            tell.send((uri.path().to_owned(), body)).unwrap();
            "{}"
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let calls = Calls {
            api_url: format!("http://{}", listener.local_addr().unwrap()).parse().unwrap(),
            app_id: Optional(Some("app".to_owned())),
            app_secret: Optional(Some("secret".into())),
            ..Calls::default()
        };
        let tasks = TaskTracker::new();
        tasks.spawn(async move { axum::serve(listener, media_api).await });
        let session = r#"{"sessionId":"s1","trackName":"ai-generated-voice","mid":"3"}"#;
        let saved = SavedRoom {
            room: name("bad"),
            meeting: MeetingId::random(),
            ai: Some(format!(r#"{{"enabled":true,"connectionPending":false,"session":{session}}}"#).into()),
            moderation: None,
            watch: None,
            chat: Vec::new(),
            members: Vec::new(),
            departed: Vec::new(),
            unconfirmed: Vec::new(),
            journal: None,
        };
        let TestRegistry { registry, .. } =
            test_registry_with(Duration::from_secs(15), 10, calls, vec![saved]).await;
        let mut victim = registry.join(&name("bad"), asks(1, "a"), Encoding::Identity).await.unwrap();
        victim.mailbox().send(Command::Panic).await.unwrap();
        let body = r#"{"tracks":[{"mid":"3"}],"force":true}"#;
        let closing = ("/apps/app/sessions/s1/tracks/close".to_owned(), body.to_owned());
        let heard = timeout(Duration::from_secs(10), closings.recv()).await;
        assert_eq!(heard.expect("the track is closed"), Some(closing));
        assert_eq!(closed(&mut victim).await, Close::RoomFailed);
    }

    #[tokio::test]
    async fn rooms_are_limited_in_all_and_for_each_identity() {
        let TestRegistry { registry, .. } = test_registry(Duration::from_secs(15), 2).await;
        let _one = registry.join(&name("1"), asks(1, "a"), Encoding::Identity).await.unwrap();
        let _two = registry.join(&name("2"), asks(2, "a"), Encoding::Identity).await.unwrap();
        assert_eq!(
            registry.join(&name("3"), asks(3, "a"), Encoding::Identity).await.unwrap_err(),
            CannotJoin::RoomsFull
        );
        let _more = registry.join(&name("1"), asks(4, "b"), Encoding::Identity).await.unwrap();
    }

    /// The stop command went through the mailbox, and was lost if that was full for too long: the
    /// room ran on, and the process never ended.
    #[tokio::test]
    async fn shutdown_without_time_ends_room_with_full_mailbox() {
        let TestRegistry { registry, .. } = test_registry(Duration::from_secs(15), 10).await;
        let joined = registry.join(&name("r"), asks(1, "a"), Encoding::Identity).await.unwrap();
        while joined
            .mailbox()
            .send(Command::Describe(oneshot::channel().0))
            .now_or_never()
            .is_some_and(|sent| sent.is_ok())
        {}
        registry.shutdown(now()).await;
        assert!(joined.mailbox().is_closed());
    }

    #[tokio::test]
    async fn shutdown_closes_sockets_and_refuses_joins() {
        let TestRegistry { registry, .. } = test_registry(Duration::from_secs(15), 10).await;
        let mut joined = registry.join(&name("r"), asks(1, "a"), Encoding::Identity).await.unwrap();
        let shutdown = registry.shutdown(now() + Duration::from_secs(60));
        tokio::pin!(shutdown);
        assert!(poll!(&mut shutdown).is_pending());
        let late = registry.join(&name("r"), asks(2, "b"), Encoding::Identity).await.unwrap_err();
        assert_eq!(late, CannotJoin::Refused(JoinRefusal::ShuttingDown));
        assert_eq!(closed(&mut joined).await, Close::ServiceRestart);
        assert!(poll!(&mut shutdown).is_pending(), "the room waits for its socket");
        joined
            .mailbox()
            .send(Command::Disconnected(Disconnection {
                connection: ConnectionId::new(NODE, 1),
                is_page_left: false,
            }))
            .await
            .unwrap();
        shutdown.await;
        let context = Context::from_waker(Waker::noop());
        assert_eq!(joined.poll_next(&context), Poll::Ready(Taken::Close(Close::Superseded)));
    }
}
