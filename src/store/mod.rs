//! State that survives a restart: the history of meetings, and the running rooms.
//!
//! Rooms never wait for the disk: a [`StoreHandle`] only hands a change over. One task merges the
//! changes, so that the newest value of each thing wins, and writes them behind in batches.

mod batch;
mod chat;
pub mod data_dir;
pub mod dead_letters;
pub mod deliveries;
pub mod ended;
pub mod events;
pub mod files;
#[cfg(test)]
mod fixture;
mod load;
pub mod objects;
mod owner;
pub mod reports;
pub mod revocations;
pub mod rules;
pub mod saved;
mod sql;
mod task;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::clock::wall_clock;
use crate::id::{MeetingId, RoomName, UserId};
use crate::metrics::Metrics;
use deliveries::Deliveries;
use ended::{EndedMeeting, StoredEnded};
use events::Events;
pub use owner::{FencedWrite, OwnerEpoch};
use reports::Reports;
use revocations::StoredRevocations;
use rules::StoredRules;
use saved::{MeetingRecord, Persist, SavedRoom};
use sql::Database;
pub use sql::StoreError;
use task::{StoreSettings, Task};

/// Timeout for report reads and writes that are in progress at a shutdown.
const CLOSE: Duration = Duration::from_secs(1);

/// A change of a meeting's persistent state.
#[derive(Clone, Debug)]
pub struct Change {
    /// The time of the change.
    pub at: SystemTime,
    /// The room.
    pub room: RoomName,
    /// The room's meeting.
    pub meeting: MeetingId,
    /// The change itself.
    pub what: Persist,
}

/// The store's current ability to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreHealth {
    /// The last write went well.
    Healthy,
    /// Changes wait in memory because the last write failed or hangs; it is tried again.
    Failing {
        /// The time of the first of these failures.
        since: SystemTime,
        /// The database's error, for operators only.
        message: String,
    },
}

/// The store: owns the task that writes, which ends with it.
#[derive(Debug)]
pub struct Store {
    handle: StoreHandle,
    reports: Reports,
    stop: oneshot::Sender<Instant>,
    task: AbortOnDropHandle<Result<(), StoreError>>,
}

impl Store {
    /// Opens the database, brings its tables up to date, and loads the stored rooms.
    ///
    /// The file must exist (see [`data_dir::DataDir`], which makes it with the right mode).
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Open`] or [`StoreError::Migrate`]. A single row that
    /// is invalid is no error: it is skipped with a warning.
    pub async fn open(database: &Path, metrics: Arc<Metrics>) -> Result<(Self, Vec<SavedRoom>), StoreError> {
        Self::open_with(Database::options(database), StoreSettings::default(), metrics).await
    }

    async fn open_with(
        options: sqlx::sqlite::SqliteConnectOptions,
        settings: StoreSettings,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Vec<SavedRoom>), StoreError> {
        let options = options.busy_timeout(settings.busy_timeout);
        let (database, epoch, rooms) = Database::open(options.clone(), wall_clock()).await?;
        let reports = Reports::open(options, Arc::clone(&metrics));
        let (commands, received) = mpsc::channel(settings.queue);
        let (health_sender, health) = watch::channel(StoreHealth::Healthy);
        let (stop, stopped) = oneshot::channel();
        let queue_full = Arc::default();
        let handle = StoreHandle { epoch, commands, health, metrics, queue_full };
        let (full, metrics) = (Arc::clone(&handle.queue_full), Arc::clone(&handle.metrics));
        let task = Task::new(received, database, health_sender, full, metrics, settings);
        #[expect(clippy::disallowed_methods, reason = "the Store owns the task and aborts it")]
        let task = AbortOnDropHandle::new(tokio::spawn(task.run(stopped)));
        Ok((Self { handle, reports, stop, task }, rooms))
    }

    /// A handle that queues changes for the store.
    pub fn handle(&self) -> StoreHandle {
        self.handle.clone()
    }

    /// The reports of users, to be received, delivered or listed.
    pub fn reports(&self) -> Reports {
        self.reports.clone()
    }

    /// The messages for destinations outside.
    pub fn deliveries(&self) -> Deliveries {
        self.reports.deliveries()
    }

    /// The settings of rooms by name.
    pub fn rules(&self) -> StoredRules {
        self.reports.rules()
    }

    /// The ids of those whose meeting was ended for all.
    pub fn ended(&self) -> StoredEnded {
        self.reports.ended()
    }

    /// The events for programs outside.
    pub fn events(&self) -> Events {
        self.reports.events()
    }

    /// The revocations of access tokens.
    pub fn revocations(&self) -> StoredRevocations {
        self.reports.revocations()
    }

    /// Writes everything that was handed over until now, and closes the database.
    ///
    /// # Errors
    /// [`StoreError::Unwritten`] if that was not done at `deadline`; [`StoreError::Stopped`] if the
    /// task was gone already.
    pub async fn shutdown(self, deadline: Instant) -> Result<(), StoreError> {
        // First, since the task folds the log into the file, which needs that nobody reads it; but
        // whoever reads for long must not take the time of what is still to be written.
        let _ = timeout_at(deadline, timeout(CLOSE, self.reports.close())).await;
        // If the task is gone, its end says so below.
        let _ = self.stop.send(deadline);
        self.task.await.unwrap_or(Err(StoreError::Stopped))
    }
}

/// The access of one owner of rooms to the store: a cheap clone that hands changes to the store's task, and never
/// waits for it.
#[derive(Clone, Debug)]
pub struct StoreHandle {
    /// The owner's epoch, which every change carries.
    epoch: OwnerEpoch,
    commands: mpsc::Sender<StoreCommand>,
    health: watch::Receiver<StoreHealth>,
    metrics: Arc<Metrics>,
    queue_full: Arc<AtomicBool>,
}

#[derive(Debug)]
enum StoreCommand {
    Persist { epoch: OwnerEpoch, change: Change },
    PersistUnconfirmed { epoch: OwnerEpoch, meeting: MeetingId, events: Vec<(UserId, Arc<str>)> },
    PersistEnded { epoch: OwnerEpoch, meeting: MeetingId, ended: EndedMeeting },
    Record { epoch: OwnerEpoch, record: MeetingRecord },
    Quarantine { epoch: OwnerEpoch, room: RoomName, meeting: MeetingId },
    Load(Load),
    Flush(oneshot::Sender<()>),
}

/// A request to load a room.
#[derive(Debug)]
struct Load {
    epoch: OwnerEpoch,
    room: RoomName,
    loaded: oneshot::Sender<Result<Option<SavedRoom>, StoreError>>,
}

impl StoreHandle {
    /// A handle without a store, which persists nothing.
    pub fn of_nothing(metrics: Arc<Metrics>) -> Self {
        let health = watch::channel(StoreHealth::Healthy).1;
        Self {
            epoch: OwnerEpoch::default(),
            commands: mpsc::channel(1).0,
            health,
            metrics,
            queue_full: Arc::default(),
        }
    }

    /// Persists a change.
    pub fn persist(&self, change: Change) {
        self.hand_over(StoreCommand::Persist { epoch: self.epoch, change });
    }

    /// Persists the events that members have not acknowledged, in place of those persisted before.
    ///
    /// Those of a past run stay stored until this replaces them (by none, too), their member is
    /// removed or the meeting ends: after a crash they are delivered again, but never lost.
    pub fn persist_unconfirmed(&self, meeting: MeetingId, events: Vec<(UserId, Arc<str>)>) {
        self.hand_over(StoreCommand::PersistUnconfirmed { epoch: self.epoch, meeting, events });
    }

    /// Persists who was in a meeting that was ended for all, in place of those of the room's meetings before.
    pub fn persist_ended(&self, meeting: MeetingId, ended: EndedMeeting) {
        self.hand_over(StoreCommand::PersistEnded { epoch: self.epoch, meeting, ended });
    }

    /// Records a meeting for the list of all, and nothing of its room, which is in a journal.
    pub fn record(&self, record: MeetingRecord) {
        self.hand_over(StoreCommand::Record { epoch: self.epoch, record });
    }

    /// Moves the stored state of a room that panicked to a table that is never loaded.
    ///
    /// The meeting is ended, and later changes of it are not expected.
    pub fn quarantine(&self, room: RoomName, meeting: MeetingId) {
        self.hand_over(StoreCommand::Quarantine { epoch: self.epoch, room, meeting });
    }

    /// Loads a stored room as of everything that was handed over before, and makes this handle's epoch its owner;
    /// none if no meeting of it runs.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if a later owner has the room; [`StoreError::Open`] or [`StoreError::Damaged`] if the
    /// database cannot be read; [`StoreError::Stopped`].
    pub async fn load(&self, room: RoomName) -> Result<Option<SavedRoom>, StoreError> {
        let (loaded, room_loaded) = oneshot::channel();
        let load = Load { epoch: self.epoch, room, loaded };
        self.commands.send(StoreCommand::Load(load)).await.map_err(|_| StoreError::Stopped)?;
        room_loaded.await.unwrap_or(Err(StoreError::Stopped))
    }

    /// Waits until everything that was handed over before is written, however long that takes.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] if the store stops before.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let (done, written) = oneshot::channel();
        self.commands.send(StoreCommand::Flush(done)).await.map_err(|_| StoreError::Stopped)?;
        written.await.map_err(|_| StoreError::Stopped)
    }

    /// The epoch of the owner, which every change carries.
    pub fn epoch(&self) -> OwnerEpoch {
        self.epoch
    }

    /// The store's current ability to write.
    pub fn health(&self) -> StoreHealth {
        self.health.borrow().clone()
    }

    /// A watch on the changes of [`Self::health`].
    pub fn watch_health(&self) -> watch::Receiver<StoreHealth> {
        self.health.clone()
    }

    fn hand_over(&self, command: StoreCommand) {
        match self.commands.try_send(command) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                Metrics::count(&self.metrics.drops, "store_queue");
                if !self.queue_full.swap(true, Ordering::Relaxed) {
                    tracing::error!("the store's queue is full; changes are not persisted");
                }
            }
            Err(TrySendError::Closed(_)) => Metrics::count(&self.metrics.drops, "store_stopped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{ConnectOptions, Connection, SqliteConnection};

    use super::saved::SavedMember;
    use super::*;
    use crate::clock::now;
    use crate::id::IdentityId;
    use crate::metrics::ByReason;

    /// A directory with a database, and what looks into it from beside the store.
    struct Disk {
        directory: tempfile::TempDir,
        metrics: Arc<Metrics>,
    }

    impl Disk {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            std::fs::File::create(directory.path().join("rooms.db")).unwrap();
            Self { directory, metrics: Metrics::new() }
        }

        fn options(&self) -> SqliteConnectOptions {
            Database::options(&self.directory.path().join("rooms.db"))
        }

        async fn open(&self) -> (Store, Vec<SavedRoom>) {
            self.open_with(StoreSettings::default()).await
        }

        async fn open_with(&self, settings: StoreSettings) -> (Store, Vec<SavedRoom>) {
            Store::open_with(self.options(), settings, Arc::clone(&self.metrics)).await.unwrap()
        }

        async fn beside(&self) -> SqliteConnection {
            self.options().connect().await.unwrap()
        }

        async fn count(&self, table: &str) -> i64 {
            let select = sqlx::AssertSqlSafe(format!(r#"SELECT COUNT(*) FROM "{table}""#));
            sqlx::query_scalar(select).fetch_one(&mut self.beside().await).await.unwrap()
        }

        /// `created`, `modified`, `userCount` and `ended` of a meeting.
        async fn row(&self, meeting: MeetingId) -> (String, String, i64, Option<String>) {
            let select = r#"SELECT created, modified, "userCount", ended FROM "Meetings"
                WHERE id = $1 AND deleted IS NULL"#;
            let select = sqlx::query_as(select).bind(meeting.to_string());
            select.fetch_one(&mut self.beside().await).await.unwrap()
        }

        fn drops(&self, reason: &'static str) -> u64 {
            self.metrics.drops.get_or_create(&ByReason { reason }).get()
        }
    }

    /// A room's meeting whose clock starts in 2026.
    struct Meeting {
        store: StoreHandle,
        room: RoomName,
        id: MeetingId,
    }

    impl Meeting {
        fn new(store: &Store, room: &str) -> Self {
            let room = RoomName::parse(room).unwrap();
            Self { store: store.handle(), room, id: MeetingId::random() }
        }

        fn persist(&self, second: u64, what: Persist) {
            let at = at(second);
            self.store.persist(Change { at, room: self.room.clone(), meeting: self.id, what });
        }

        fn member(&self, second: u64, name: &str, json: &str) {
            self.persist(second, Persist::Member(member(name, json)));
        }

        fn removed(&self, second: u64, name: &str) {
            self.persist(second, Persist::MemberRemoved { user: user(name) });
        }
    }

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_767_225_600 + second)
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn member(name: &str, json: &str) -> SavedMember {
        let identity = IdentityId::new(format!("cookie:{name}"));
        SavedMember { user: user(name), identity, json: json.into(), arrival: 7 }
    }

    fn soon() -> Instant {
        now() + Duration::from_secs(20)
    }

    fn impatient() -> StoreSettings {
        StoreSettings {
            delay: Duration::from_millis(1),
            backoff: Duration::from_millis(1),
            max_backoff: Duration::from_millis(8),
            busy_timeout: Duration::from_millis(50),
            ..StoreSettings::default()
        }
    }

    async fn until_failing(store: &StoreHandle) -> String {
        let mut health = store.watch_health();
        let failing = health.wait_for(|health| *health != StoreHealth::Healthy);
        let health = tokio::time::timeout_at(soon(), failing).await.unwrap().unwrap();
        let StoreHealth::Failing { message, .. } = &*health else { unreachable!() };
        message.clone()
    }

    async fn flush(store: &StoreHandle) {
        tokio::time::timeout_at(soon(), store.flush()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn room_is_restored_unchanged() {
        let disk = Disk::new();
        let (store, rooms) = disk.open().await;
        assert_eq!(rooms, []);
        let meeting = Meeting::new(&store, "Küche 🍊");
        meeting.persist(0, Persist::MeetingStarted);
        meeting.member(1, "b", r#"{"id":"b","name":"O'Hara \u0000 \" 你好"}"#);
        meeting.member(1, "a", r#"{"id":"a"}"#);
        meeting.member(2, "a", r#"{"id":"a","raisedHand":true}"#);
        for id in ["c", "d", "e"] {
            let identity = IdentityId::new(format!("cookie:{id}"));
            meeting.persist(3, Persist::Departed { user: user(id), identity });
        }
        meeting.persist(3, Persist::DepartedForgotten { user: user("d") });
        meeting.persist(3, Persist::Ai { json: r#"{"enabled":true}"#.into() });
        for id in 1..=100 {
            let json = format!(r#"{{"id":{id}}}"#).into();
            meeting.persist(3, Persist::ChatMessage { id, json, first: id.saturating_sub(1) });
        }
        let events = (0..130).map(|n| (user("b"), format!(r#"{{"n":{n}}}"#).into()));
        let events: Vec<(UserId, Arc<str>)> = events.collect();
        store.handle().persist_unconfirmed(meeting.id, events.clone());
        store.shutdown(soon()).await.unwrap();

        let (store, rooms) = disk.open().await;
        let saved = SavedRoom {
            room: meeting.room.clone(),
            meeting: meeting.id,
            ai: Some(r#"{"enabled":true}"#.into()),
            moderation: None,
            watch: None,
            chat: [99, 100].map(|id| (id, format!(r#"{{"id":{id}}}"#).into())).into(),
            members: vec![
                member("a", r#"{"id":"a","raisedHand":true}"#),
                member("b", r#"{"id":"b","name":"O'Hara \u0000 \" 你好"}"#),
            ],
            departed: ["c", "e"].map(|id| (user(id), IdentityId::new(format!("cookie:{id}")))).into(),
            unconfirmed: events,
            journal: None,
        };
        assert_eq!(rooms, [saved]);
        assert_eq!(store.handle().health(), StoreHealth::Healthy);
        assert_eq!(disk.metrics.store_pending.get(), 0);
    }

    #[tokio::test]
    async fn kill_loses_only_unflushed_changes() {
        let disk = Disk::new();
        let (store, _) = disk.open().await;
        let meeting = Meeting::new(&store, "r");
        meeting.member(0, "a", "{}");
        flush(&meeting.store).await;
        // With nothing to write there is nothing to wait for.
        flush(&meeting.store).await;
        meeting.member(0, "b", "{}");
        drop(store);
        let (_store, rooms) = disk.open().await;
        assert_eq!(rooms[0].members, [member("a", "{}")]);
        assert_eq!(meeting.store.flush().await.unwrap_err().to_string(), "the store has stopped");
        assert_eq!(disk.metrics.store_pending.get(), 0);
        assert_ne!(meeting.store.health(), StoreHealth::Healthy);
    }

    #[tokio::test]
    async fn change_is_written_without_a_flush() {
        let disk = Disk::new();
        let (store, _) = disk.open().await;
        let meeting = Meeting::new(&store, "r");
        meeting.member(0, "a", "{}");
        let started = now();
        while disk.count("kept_seats").await == 0 {
            assert!(started.elapsed() < Duration::from_secs(20));
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn newest_value_wins_within_and_across_batches() {
        let disk = Disk::new();
        let (store, _) = disk.open().await;
        let meeting = Meeting::new(&store, "r");
        for name in ["stays", "leaves", "returns", "leaves-at-once"] {
            meeting.member(0, name, r#"{"v":1}"#);
        }
        meeting.removed(0, "leaves-at-once");
        flush(&meeting.store).await;
        meeting.member(1, "stays", r#"{"v":2}"#);
        meeting.removed(1, "leaves");
        meeting.removed(1, "returns");
        meeting.member(1, "returns", r#"{"v":3}"#);
        store.shutdown(soon()).await.unwrap();
        let (_store, rooms) = disk.open().await;
        assert_eq!(rooms[0].members, [member("returns", r#"{"v":3}"#), member("stays", r#"{"v":2}"#)]);
    }

    #[tokio::test]
    async fn forgotten_chat_is_removed() {
        let disk = Disk::new();
        let (store, _) = disk.open().await;
        let meeting = Meeting::new(&store, "r");
        meeting.persist(0, Persist::MeetingStarted);
        for id in 1..=130 {
            let json = format!(r#"{{"id":{id}}}"#).into();
            meeting.persist(1, Persist::ChatMessage { id, json, first: 0 });
        }
        flush(&meeting.store).await;
        assert_eq!(disk.count("kept_chat").await, 130);
        meeting.persist(2, Persist::ChatMessage { id: 131, json: "{}".into(), first: 129 });
        flush(&meeting.store).await;
        assert_eq!(disk.count("kept_chat").await, 3);
        meeting.persist(3, Persist::ChatForgotten { first: 132 });
        meeting.persist(3, Persist::ChatMessage { id: 132, json: "{}".into(), first: 132 });
        store.shutdown(soon()).await.unwrap();
        let (_store, rooms) = disk.open().await;
        assert_eq!(rooms[0].chat, [(132, "{}".into())]);
    }

    #[tokio::test]
    async fn more_rows_than_one_statement_takes_are_all_written() {
        let disk = Disk::new();
        let (store, _) = disk.open().await;
        for room in 0..129 {
            let meeting = Meeting::new(&store, &format!("r{room}"));
            for name in ["a", "b"] {
                meeting.member(0, name, "{}");
            }
        }
        store.shutdown(soon()).await.unwrap();
        let (_store, rooms) = disk.open().await;
        assert_eq!((rooms.len(), disk.count("kept_seats").await), (129, 258));
    }

    #[tokio::test]
    async fn ended_meeting_leaves_only_its_row() {
        let disk = Disk::new();
        let (store, _) = disk.open().await;
        // One that ends in a later batch, and one that ends in its first.
        let [long, short] = ["long", "short"].map(|room| Meeting::new(&store, room));
        long.persist(0, Persist::MeetingStarted);
        long.persist(0, Persist::Peak { members: 2 });
        long.member(0, "a", "{}");
        long.persist(0, Persist::ChatMessage { id: 1, json: "{}".into(), first: 0 });
        store.handle().persist_unconfirmed(long.id, vec![(user("a"), "{}".into())]);
        flush(&long.store).await;
        for meeting in [&long, &short] {
            meeting.persist(7, Persist::Peak { members: 1 });
            meeting.member(7, "b", "{}");
            meeting.persist(9, Persist::MeetingEnded);
            // Late ones do not bring a meeting back.
            meeting.removed(10, "b");
            meeting.persist(10, Persist::Ai { json: "{}".into() });
            meeting.persist(10, Persist::ChatMessage { id: 2, json: "{}".into(), first: 0 });
            store.handle().persist_unconfirmed(meeting.id, vec![(user("a"), "{}".into())]);
        }
        store.shutdown(soon()).await.unwrap();

        let (_store, rooms) = disk.open().await;
        assert_eq!(rooms, []);
        for table in ["kept_rooms", "kept_seats", "kept_events", "kept_chat"] {
            assert_eq!(disk.count(table).await, 0, "{table}");
        }
        let time = |second| format!("2026-01-01T00:00:{second:02}.000Z");
        assert_eq!(disk.row(long.id).await, (time(0), time(9), 2, Some(time(9))));
        assert_eq!(disk.row(short.id).await, (time(7), time(9), 1, Some(time(9))));
    }

    #[tokio::test]
    async fn peak_never_falls_and_alone_modifies_the_row() {
        let disk = Disk::new();
        let (store, _) = disk.open().await;
        let meeting = Meeting::new(&store, "r");
        for (second, members) in [(0, 1), (1, 5), (2, 3)] {
            meeting.persist(second, Persist::Peak { members });
            flush(&meeting.store).await;
        }
        meeting.member(3, "a", "{}");
        flush(&meeting.store).await;
        let (created, modified, peak, ended) = disk.row(meeting.id).await;
        assert_eq!(created, "2026-01-01T00:00:00.000Z");
        assert_eq!(modified, "2026-01-01T00:00:01.000Z");
        assert_eq!((peak, ended), (5, None));
    }

    #[tokio::test]
    async fn reopened_meeting_has_no_old_members() {
        let disk = Disk::new();
        let (store, _) = disk.open().await;
        let [in_one_batch, in_two] = ["one", "two"].map(|room| Meeting::new(&store, room));
        for meeting in [&in_one_batch, &in_two] {
            meeting.member(0, "old", "{}");
        }
        flush(&in_two.store).await;
        for meeting in [&in_one_batch, &in_two] {
            meeting.persist(1, Persist::MeetingEnded);
        }
        in_one_batch.member(2, "new", "{}");
        flush(&in_two.store).await;
        assert!(disk.row(in_two.id).await.3.is_some());
        in_two.member(2, "new", "{}");
        store.shutdown(soon()).await.unwrap();
        let (_store, rooms) = disk.open().await;
        for meeting in [&in_one_batch, &in_two] {
            assert_eq!(disk.row(meeting.id).await.3, None);
            let room = rooms.iter().find(|room| room.meeting == meeting.id).unwrap();
            assert_eq!(room.members, [member("new", "{}")]);
        }
    }

    #[tokio::test]
    async fn restored_events_stay_until_replaced_or_removed() {
        let disk = Disk::new();
        let (store, _) = disk.open().await;
        let meeting = Meeting::new(&store, "r");
        for name in ["a", "b"] {
            meeting.member(0, name, "{}");
        }
        let of = |name: &str, n: u8| (user(name), Arc::from(format!(r#"{{"n":{n}}}"#)));
        meeting.store.persist_unconfirmed(meeting.id, vec![of("a", 1), of("b", 2), of("a", 3)]);
        store.shutdown(soon()).await.unwrap();

        let (store, rooms) = disk.open().await;
        assert_eq!(rooms[0].unconfirmed, [of("a", 1), of("b", 2), of("a", 3)]);
        drop(store);
        let (store, rooms) = disk.open().await;
        assert_eq!(rooms[0].unconfirmed.len(), 3, "a crash delivers twice rather than never");
        let meeting = Meeting { store: store.handle(), ..meeting };
        meeting.removed(1, "a");
        flush(&meeting.store).await;
        drop(store);
        let (store, rooms) = disk.open().await;
        assert_eq!(rooms[0].unconfirmed, [of("b", 2)]);
        let meeting = Meeting { store: store.handle(), ..meeting };
        meeting.store.persist_unconfirmed(meeting.id, vec![of("b", 4), of("c", 5)]);
        meeting.member(2, "c", "{}");
        meeting.removed(2, "b");
        meeting.member(3, "b", "{}");
        store.shutdown(soon()).await.unwrap();
        let (store, rooms) = disk.open().await;
        assert_eq!(rooms[0].unconfirmed, [of("c", 5)], "who left and came back is somebody new");
        store.handle().persist_unconfirmed(meeting.id, vec![]);
        store.shutdown(soon()).await.unwrap();
        assert_eq!(disk.open().await.1[0].unconfirmed, []);
    }

    #[tokio::test]
    async fn newer_of_two_meetings_is_restored() {
        let disk = Disk::new();
        let (store, _) = disk.open().await;
        let [old, new] = [(); 2].map(|()| Meeting::new(&store, "r"));
        new.member(5, "a", "{}");
        old.member(4, "b", "{}");
        store.shutdown(soon()).await.unwrap();
        let (_store, rooms) = disk.open().await;
        assert_eq!(rooms.iter().map(|room| room.meeting).collect::<Vec<_>>(), [new.id]);
        assert_eq!((disk.count("kept_rooms").await, disk.count("kept_seats").await), (1, 1));
        assert!(disk.row(old.id).await.3.is_some());
        assert_eq!(disk.row(new.id).await.3, None);
    }

    #[tokio::test]
    async fn invalid_rows_are_skipped() {
        let disk = Disk::new();
        let (store, _) = disk.open().await;
        let meeting = Meeting::new(&store, "r");
        meeting.member(0, "a", "{}");
        store.shutdown(soon()).await.unwrap();
        let strange = format!(
            "INSERT INTO kept_rooms (meeting_id, room, ai) VALUES ('no uuid', 'x', NULL), ('{0}', '', NULL);
             INSERT INTO kept_seats (meeting_id, user_id, identity_id, json) VALUES ('no uuid', 'b', 'i', '{{}}'), ('{0}', 'b', 'i', '{{}}'),
                ('{1}', 'ai', 'i', '{{}}'), ('{1}', 'c', 'i', '[]'), ('{1}', 'd', 'i', '{{'),
                ('{1}', 'e', 'i', X'ff'), ('{1}', X'ff', 'i', '{{}}'), ('{1}', 'f', X'ff', '{{}}');
             INSERT INTO kept_events VALUES ('{1}', 0, 'a', 'no JSON'), ('{1}', 1, 'a', '{{}}');
             UPDATE kept_rooms SET ai = 'no JSON';",
            MeetingId::random(),
            meeting.id,
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(strange)).execute(&mut disk.beside().await).await.unwrap();
        let (_store, rooms) = disk.open().await;
        assert_eq!(rooms.len(), 1);
        assert_eq!((&rooms[0].members[..], &rooms[0].ai), (&[member("a", "{}")][..], &None));
        assert_eq!(rooms[0].unconfirmed, [(user("a"), "{}".into())]);
    }

    #[tokio::test]
    async fn panicked_room_is_quarantined_and_not_restored() {
        let disk = Disk::new();
        let (store, _) = disk.open().await;
        let meeting = Meeting::new(&store, "r");
        meeting.member(0, "a", r#"{"poison":1}"#);
        flush(&meeting.store).await;
        meeting.member(1, "b", "{}");
        meeting.store.quarantine(meeting.room.clone(), meeting.id);
        meeting.member(2, "late", "{}");
        flush(&meeting.store).await;
        let json: String = sqlx::query_scalar("SELECT json FROM set_aside WHERE room = 'r'")
            .fetch_one(&mut disk.beside().await)
            .await
            .unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["seats"][0], serde_json::json!(["a", "cookie:a", r#"{"poison":1}"#]));
        assert_eq!(json["seats"][1][0], "b");
        assert_eq!(json["seats"].as_array().unwrap().len(), 2);
        assert!(disk.row(meeting.id).await.3.is_some());
        assert_eq!(disk.count("kept_seats").await, 0);

        for n in 0..110 {
            let room = RoomName::parse(&format!("r{n}")).unwrap();
            store.handle().quarantine(room, MeetingId::random());
        }
        store.shutdown(soon()).await.unwrap();
        assert_eq!(disk.open().await.1, []);
        assert_eq!(disk.count("set_aside").await, 100);
    }

    #[tokio::test]
    async fn full_disk_is_reported_and_loses_nothing() {
        let disk = Disk::new();
        disk.open().await.0.shutdown(soon()).await.unwrap();
        let ballast = "CREATE TABLE ballast (b); INSERT INTO ballast VALUES (zeroblob(4000000))";
        let mut beside = disk.beside().await;
        sqlx::raw_sql(ballast).execute(&mut beside).await.unwrap();
        beside.close().await.unwrap();
        // SQLite raises the limit to the size that the file has.
        let options = disk.options().pragma("max_page_count", "1");
        let metrics = Arc::clone(&disk.metrics);
        let (store, _) = Store::open_with(options, impatient(), metrics).await.unwrap();
        let meeting = Meeting::new(&store, "r");
        let big = format!(r#"{{"v":"{}"}}"#, "x".repeat(8_000));
        for n in 0..200 {
            meeting.member(0, &format!("u{n}"), &big);
        }
        let message = until_failing(&meeting.store).await;
        assert!(message.contains("full"), "{message}");
        assert!(disk.metrics.store_failures.get() >= 1);
        assert_eq!(disk.metrics.store_pending.get(), 201);
        // Changes received meanwhile are merged over the waiting ones.
        meeting.member(1, "u0", "{}");
        meeting.removed(1, "u1");
        sqlx::query("DROP TABLE ballast").execute(&mut disk.beside().await).await.unwrap();
        flush(&meeting.store).await;
        assert_eq!(meeting.store.health(), StoreHealth::Healthy);
        store.shutdown(soon()).await.unwrap();
        let (_store, rooms) = disk.open().await;
        assert_eq!(rooms[0].members.len(), 199);
        assert_eq!(rooms[0].members[0], member("u0", "{}"));
        assert_eq!(disk.metrics.store_pending.get(), 0);
    }

    #[tokio::test]
    async fn foreign_lock_is_reported_with_lost_changes() {
        let disk = Disk::new();
        let (store, _) = disk.open_with(impatient()).await;
        let mut beside = disk.beside().await;
        let lock = beside.begin_with("BEGIN EXCLUSIVE").await.unwrap();
        let meeting = Meeting::new(&store, "r");
        meeting.member(0, "a", "{}");
        let message = until_failing(&meeting.store).await;
        assert!(message.contains("locked"), "{message}");
        let deadline = now() + Duration::from_millis(50);
        let error = store.shutdown(deadline).await.unwrap_err();
        let expected = format!("2 changes could not be written in time ({message})");
        assert_eq!(error.to_string(), expected);
        lock.rollback().await.unwrap();
        meeting.member(0, "a", "{}");
        assert_eq!(disk.drops("store_stopped"), 1);
    }

    #[tokio::test]
    async fn hanging_disk_is_reported_and_changes_merged() {
        let disk = Disk::new();
        let settings = StoreSettings {
            busy_timeout: Duration::from_secs(60),
            hung_after: Duration::from_millis(20),
            queue: 4,
            ..impatient()
        };
        let (store, _) = disk.open_with(settings).await;
        let mut beside = disk.beside().await;
        let lock = beside.begin_with("BEGIN EXCLUSIVE").await.unwrap();
        let meeting = Meeting::new(&store, "r");
        meeting.member(0, "a", "{}");
        let message = until_failing(&meeting.store).await;
        assert_eq!(message, "a write does not come to its end");
        // More than the queue takes: each is received although the write is still under way.
        let mut flushed = tokio::task::JoinSet::new();
        for n in 0..100 {
            meeting.member(1, "a", &format!(r#"{{"n":{n}}}"#));
            let store = meeting.store.clone();
            flushed.spawn(async move { store.flush().await });
            tokio::task::yield_now().await;
        }
        assert_eq!(disk.drops("store_queue"), 0);
        lock.commit().await.unwrap();
        for done in flushed.join_all().await {
            done.unwrap();
        }
        assert_eq!(meeting.store.health(), StoreHealth::Healthy);
        assert_eq!(disk.metrics.store_failures.get(), 0);
        store.shutdown(soon()).await.unwrap();
        assert_eq!(disk.open().await.1[0].members, [member("a", r#"{"n":99}"#)]);
    }

    #[tokio::test]
    async fn failed_write_is_merged_under_newer_changes() {
        let disk = Disk::new();
        let settings = StoreSettings {
            busy_timeout: Duration::from_millis(300),
            hung_after: Duration::from_millis(5),
            ..impatient()
        };
        let (store, _) = disk.open_with(settings).await;
        let mut beside = disk.beside().await;
        let lock = beside.begin_with("BEGIN EXCLUSIVE").await.unwrap();
        let meeting = Meeting::new(&store, "r");
        meeting.member(0, "a", r#"{"v":1}"#);
        meeting.member(0, "b", "{}");
        let handle = store.handle();
        let mut flushed = tokio::task::JoinSet::new();
        flushed.spawn(async move { handle.flush().await.unwrap() });
        // The report that the write hangs shows that it is in progress.
        until_failing(&meeting.store).await;
        meeting.member(1, "a", r#"{"v":2}"#);
        meeting.removed(1, "b");
        let mut health = meeting.store.watch_health();
        let locked = health.wait_for(|health| format!("{health:?}").contains("locked"));
        drop(tokio::time::timeout_at(soon(), locked).await.unwrap().unwrap());
        lock.rollback().await.unwrap();
        let flushed = flushed.join_next();
        tokio::time::timeout_at(soon(), flushed).await.unwrap().unwrap().unwrap();
        store.shutdown(soon()).await.unwrap();
        assert!(disk.metrics.store_failures.get() >= 1);
        assert_eq!(disk.open().await.1[0].members, [member("a", r#"{"v":2}"#)]);
    }

    #[tokio::test]
    async fn full_map_takes_only_newer_values_and_ends() {
        let disk = Disk::new();
        let (store, _) = disk.open_with(StoreSettings { max_pending: 3, ..impatient() }).await;
        let mut beside = disk.beside().await;
        let lock = beside.begin_with("BEGIN EXCLUSIVE").await.unwrap();
        let [full, ended] = ["full", "ended"].map(|room| Meeting::new(&store, room));
        full.member(0, "a", "{}");
        full.member(0, "b", "{}");
        until_failing(&full.store).await;
        full.member(1, "c", "{}");
        full.member(1, "b", r#"{"v":2}"#);
        ended.persist(1, Persist::MeetingEnded);
        lock.rollback().await.unwrap();
        flush(&full.store).await;
        assert_eq!(disk.drops("store_pending"), 1);
        assert!(disk.row(ended.id).await.3.is_some());
        store.shutdown(soon()).await.unwrap();
        let (_store, rooms) = disk.open().await;
        assert_eq!(rooms[0].members, [member("a", "{}"), member("b", r#"{"v":2}"#)]);
    }

    #[tokio::test]
    async fn a_full_queue_drops_and_counts_without_waiting() {
        let disk = Disk::new();
        let (store, _) = disk.open_with(StoreSettings { queue: 1, ..impatient() }).await;
        let meeting = Meeting::new(&store, "r");
        for name in ["a", "b", "c"] {
            meeting.member(0, name, "{}");
        }
        assert_eq!(disk.drops("store_queue"), 2);
        store.shutdown(soon()).await.unwrap();
        assert_eq!(disk.open().await.1[0].members, [member("a", "{}")]);
    }

    #[tokio::test]
    async fn write_of_older_owner_is_fenced() {
        let disk = Disk::new();
        let (old, _) = disk.open().await;
        let meeting = Meeting::new(&old, "r");
        let ended = Meeting::new(&old, "ended");
        for meeting in [&meeting, &ended] {
            meeting.member(0, "a", "{}");
        }
        flush(&meeting.store).await;

        let (new, rooms) = disk.open().await;
        assert_eq!(rooms.len(), 2);
        assert!(old.handle().epoch() < new.handle().epoch());
        let ended_by_new = Meeting { store: new.handle(), room: ended.room.clone(), id: ended.id };
        ended_by_new.persist(1, Persist::MeetingEnded);
        flush(&ended_by_new.store).await;
        // The old owner, which was suspended, continues.
        meeting.member(2, "late", "{}");
        meeting.removed(2, "a");
        meeting.store.persist_unconfirmed(meeting.id, vec![(user("a"), "{}".into())]);
        ended.member(2, "late", "{}");
        let other = Meeting::new(&old, "other");
        other.member(2, "late", "{}");
        flush(&meeting.store).await;
        assert_eq!(disk.drops("fenced_write"), 3);
        assert_eq!(meeting.store.health(), StoreHealth::Healthy);
        let refused = meeting.store.load(meeting.room.clone()).await.unwrap_err();
        let expected = format!("meeting {} belongs to owner epoch 2, not to 1", meeting.id);
        assert_eq!(refused.to_string(), expected);

        let meeting = Meeting { store: new.handle(), ..meeting };
        meeting.member(3, "b", "{}");
        new.shutdown(soon()).await.unwrap();
        let (_store, rooms) = disk.open().await;
        assert_eq!(rooms.len(), 1, "the old owner brings no room back and makes none");
        assert_eq!(rooms[0].members, [member("a", "{}"), member("b", "{}")]);
        assert_eq!(rooms[0].unconfirmed, []);
        assert_eq!(disk.drops("fenced_write"), 3);
    }

    #[tokio::test]
    async fn room_is_loaded_with_its_unwritten_changes() {
        let disk = Disk::new();
        let (store, _) = disk.open().await;
        let [meeting, other] = ["r", "other"].map(|room| Meeting::new(&store, room));
        meeting.member(0, "a", r#"{"id":"a"}"#);
        other.member(0, "b", "{}");
        meeting.persist(1, Persist::Ai { json: "{}".into() });
        let identity = IdentityId::new("cookie:c");
        meeting.persist(1, Persist::Departed { user: user("c"), identity: identity.clone() });
        meeting.store.persist_unconfirmed(meeting.id, vec![(user("a"), "{}".into())]);
        let expected = SavedRoom {
            room: meeting.room.clone(),
            meeting: meeting.id,
            ai: Some("{}".into()),
            moderation: None,
            watch: None,
            chat: Vec::new(),
            members: vec![member("a", r#"{"id":"a"}"#)],
            departed: vec![(user("c"), identity)],
            unconfirmed: vec![(user("a"), "{}".into())],
            journal: None,
        };
        let handle = store.handle();
        let load = |room: &str| handle.load(RoomName::parse(room).unwrap());
        assert_eq!(load("r").await.unwrap(), Some(expected.clone()));
        assert_eq!(load("r").await.unwrap(), Some(expected), "nothing is pending now");
        assert_eq!(load("nowhere").await.unwrap(), None);
        meeting.persist(2, Persist::MeetingEnded);
        assert_eq!(load("r").await.unwrap(), None);
        assert_eq!(load("other").await.unwrap().unwrap().members, [member("b", "{}")]);
        drop(store);
        let gone = other.store.load(other.room.clone()).await;
        assert!(matches!(gone, Err(StoreError::Stopped)), "{gone:?}");
    }

    #[tokio::test]
    async fn room_is_loaded_once_the_database_can_write() {
        let disk = Disk::new();
        let (store, _) = disk.open_with(impatient()).await;
        let mut beside = disk.beside().await;
        let lock = beside.begin_with("BEGIN EXCLUSIVE").await.unwrap();
        let meeting = Meeting::new(&store, "r");
        meeting.member(0, "a", "{}");
        let handle = store.handle();
        let mut loaded = tokio::task::JoinSet::new();
        let room = meeting.room.clone();
        loaded.spawn(async move { handle.load(room).await.unwrap() });
        until_failing(&meeting.store).await;
        lock.rollback().await.unwrap();
        let room = tokio::time::timeout_at(soon(), loaded.join_next()).await.unwrap().unwrap().unwrap();
        assert_eq!(room.unwrap().members, [member("a", "{}")]);
    }

    /// A database of the release before owner epochs.
    #[tokio::test]
    async fn rooms_without_epochs_are_taken_over() {
        let disk = Disk::new();
        let mut beside = disk.beside().await;
        sql::MIGRATOR.run_to(3, &mut beside).await.unwrap();
        let meeting = MeetingId::random();
        let rows = format!(
            r#"INSERT INTO "Meetings" VALUES ('{meeting}', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z', NULL, 1, NULL);
               INSERT INTO kept_rooms VALUES ('{meeting}', 'r', NULL);
               INSERT INTO kept_seats VALUES ('{meeting}', 'a', 'cookie:a', '{{}}');"#
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(rows)).execute(&mut beside).await.unwrap();
        beside.close().await.unwrap();
        let (store, rooms) = disk.open().await;
        assert_eq!(rooms[0].members, [SavedMember { arrival: 0, ..member("a", "{}") }]);
        assert_eq!(store.handle().epoch().to_string(), "1");
        store.shutdown(soon()).await.unwrap();
        let (store, rooms) = disk.open().await;
        assert_eq!((rooms.len(), store.handle().epoch().to_string()), (1, "2".to_owned()));
        let epoch: i64 = sqlx::query_scalar("SELECT epoch FROM kept_rooms")
            .fetch_one(&mut disk.beside().await)
            .await
            .unwrap();
        assert_eq!(epoch, 2);
    }

    #[tokio::test]
    async fn non_database_file_error_names_the_file() {
        let disk = Disk::new();
        let path = disk.directory.path().join("rooms.db");
        std::fs::write(&path, "no database ".repeat(1_000)).unwrap();
        let error = Store::open(&path, Metrics::new()).await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        let missing = disk.directory.path().join("missing.db");
        let error = Store::open(&missing, Metrics::new()).await.unwrap_err();
        assert!(matches!(error, StoreError::Open { .. }), "{error:?}");
        assert!(error.to_string().contains("missing.db"), "{error}");
    }

    #[tokio::test]
    async fn a_database_of_a_later_version_is_refused() {
        let disk = Disk::new();
        disk.open().await.0.shutdown(soon()).await.unwrap();
        let later = "UPDATE _sqlx_migrations SET version = version + 9998";
        sqlx::query(later).execute(&mut disk.beside().await).await.unwrap();
        let path = disk.directory.path().join("rooms.db");
        let error = Store::open(&path, Metrics::new()).await.unwrap_err();
        assert!(matches!(error, StoreError::Migrate { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn wrong_clock_is_clamped() {
        let disk = Disk::new();
        let (store, _) = disk.open().await;
        let meeting = Meeting::new(&store, "r");
        let before_1970 = UNIX_EPOCH - Duration::from_secs(1);
        let after_9999 = UNIX_EPOCH + Duration::from_secs(300_000_000_000);
        for at in [before_1970, after_9999] {
            let (room, what) = (meeting.room.clone(), Persist::MeetingEnded);
            meeting.store.persist(Change { at, room, meeting: meeting.id, what });
        }
        flush(&meeting.store).await;
        let (created, modified, ..) = disk.row(meeting.id).await;
        assert_eq!(created, "1970-01-01T00:00:00.000Z");
        assert_eq!(modified, "9999-12-31T23:59:59.000Z");
    }
}
