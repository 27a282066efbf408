//! `kill -9` at random moments: acknowledged data is there, once, and nothing is corrupt.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use satsuma::server::Addresses;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection, Executor};

use crate::client::{Ask, Client, ids_of, user_of};
use crate::feedback::{OK, bug, info};
use crate::harness::{Person, Reach, eventually, eventually_within, metric};
use crate::process::Process;

const ROUNDS: u64 = 20;

/// Number of stored rooms in the measured start.
const ROOMS: usize = 10_000;

/// Limit of a start. A build without optimization, between other tests, is ten times slower.
const START: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 });

/// Members are stored for longer than the test takes, and the quota admits all reports.
const PATIENT: [(&str, &str); 6] = [
    ("SATSUMA_ROOM__TICK", "100ms"),
    ("SATSUMA_ROOM__HEARTBEAT_TIMEOUT", "10m"),
    ("SATSUMA_ROOM__RESTORE_GRACE", "10m"),
    ("SATSUMA_LIMITS__NEW_ROOMS_PER_MINUTE", "0"),
    ("SATSUMA_FEEDBACK__REPORTS_PER_IDENTITY", "0"),
    ("SATSUMA_FEEDBACK__REPORTS_PER_ADDRESS", "0"),
];

/// Members that do not return at once are removed.
const IMPATIENT: [(&str, &str); 3] = [
    // Each of the ten thousand rooms has one.
    ("SATSUMA_ROOM__TICK", "1s"),
    ("SATSUMA_ROOM__HEARTBEAT_TIMEOUT", "200ms"),
    ("SATSUMA_ROOM__RESTORE_GRACE", "200ms"),
];

/// A deterministic generator.
struct Dice(u64);

impl Dice {
    /// A number below `sides` (splitmix64).
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// Content of the database, read while no server uses it or beside one.
struct Database(SqliteConnection);

impl Database {
    async fn of(data: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(data.join("satsuma.db"));
        let options = options.busy_timeout(Duration::from_secs(5));
        Self(SqliteConnection::connect_with(&options).await.unwrap())
    }

    async fn texts(&mut self, query: &str) -> Vec<String> {
        sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_all(&mut self.0).await.unwrap()
    }

    async fn count(&mut self, what: &str) -> i64 {
        let query = format!("SELECT COUNT(*) FROM {what}");
        sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut self.0).await.unwrap()
    }

    /// Asserts that nothing is corrupt, every meeting has its end, and no room is left.
    async fn assert_at_rest(&mut self) {
        assert_eq!(self.texts("PRAGMA integrity_check").await, ["ok"]);
        assert_eq!(self.count("pragma_foreign_key_check").await, 0);
        assert_eq!(self.count(r#""Meetings" WHERE ended IS NULL OR ended < created"#).await, 0);
        for table in ["kept_rooms", "kept_seats", "kept_events", "set_aside"] {
            assert_eq!(self.count(table).await, 0, "{table}");
        }
    }

    async fn close(self) {
        self.0.close().await.unwrap();
    }
}

/// Starts a server, and returns the duration of the start.
async fn timed_start(data: &Path, settings: &[(&str, &str)]) -> (Process, Duration) {
    let launched = now();
    let process = Process::start(data, settings).await;
    (process, launched.elapsed())
}

/// Kills a start as soon as the process has the data directory.
async fn killed_start(data: &Path) {
    let process = Process::launch(data, &PATIENT);
    let lock = data.join("satsuma.lock");
    let pid = format!("{}\n", process.pid());
    eventually_within(START, "the directory is locked".to_owned(), async || {
        std::fs::read_to_string(&lock).is_ok_and(|text| text == pid)
    })
    .await;
    process.kill();
}

fn meeting(state: &Value) -> String {
    state["meetingId"].as_str().unwrap().to_owned()
}

/// Requests and acknowledgements over all rounds.
#[derive(Default)]
struct Ledger {
    /// Every report that was sent, and those that were answered "ok".
    tried: RefCell<HashSet<String>>,
    answered: RefCell<HashSet<String>>,
    /// The number of Ada's last update.
    updates: Cell<u64>,
    meetings: HashSet<String>,
}

impl Ledger {
    /// Posts reports one after the other until the server is gone.
    async fn report(&self, server: &Addresses, ada: &Person, round: u64) {
        for number in 0.. {
            let description = format!("report {round}-{number}");
            self.tried.borrow_mut().insert(description.clone());
            let Ok(answer) = bug(server, ada, &description, &info("stays")).send().await else { return };
            let status = answer.status();
            let Ok(text) = answer.text().await else { return };
            assert_eq!((status.as_u16(), &*text), (200, OK));
            self.answered.borrow_mut().insert(description);
        }
    }

    /// Updates Ada's user again and again until the server is gone.
    async fn update_until_gone(&self, ada: &mut Client) {
        let mut update = async || {
            self.updates.set(self.updates.get() + 1);
            ada.try_say(json!({"type": "userUpdate", "user": {"number": self.updates.get()}})).await
        };
        while update().await {
            tokio::task::yield_now().await;
        }
    }

    /// Kills the server once this many more reports are answered.
    async fn kill_after(&self, process: &RefCell<Option<Process>>, reports: u64) {
        let wanted = self.answered.borrow().len() + usize::try_from(reports).unwrap();
        eventually(format!("{reports} reports are answered"), async || {
            self.answered.borrow().len() >= wanted
        })
        .await;
        process.take().unwrap().kill();
    }
}

#[tokio::test]
async fn crashes_lose_no_report_and_no_meeting() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut dice = Dice(6);
    let mut ledger = Ledger::default();
    let mut longest = Duration::ZERO;
    let (mut ada, mut bob, mut stays) = (None, None, None);
    let mut seen = 0;

    for round in 0..ROUNDS {
        if round > 0 && dice.roll(3) == 0 {
            killed_start(&data).await;
        }
        let (process, took) = timed_start(&data, &PATIENT).await;
        longest = longest.max(took);
        let person = Person::log_in(&process, "Ada").await;
        let ask = ada.take().unwrap_or_else(|| Ask::room("stays").by(&person).pk("ada"));
        let mut here: Client = ask.open(&process).await;
        let state = here.until_state(|_| true).await;
        let ask = bob.take().unwrap_or_else(|| Ask::room("stays").by(&person).pk("bob"));
        let mut other: Client = ask.open(&process).await;
        other.until_users(&["ada", "bob"]).await;
        match &stays {
            None => {
                stays = Some(meeting(&state));
                // From now on changes are stored; earlier ones may be lost in a crash.
                let is_stored = async || {
                    let mut database = Database::of(&data).await;
                    let is_stored = database.count("kept_seats").await == 2;
                    database.close().await;
                    is_stored
                };
                eventually("both members are stored".to_owned(), is_stored).await;
            }
            Some(stays) => {
                assert_eq!(meeting(&state), *stays, "round {round}: another meeting began");
                let number = user_of(&state, "ada")["number"].as_u64().unwrap_or(0);
                assert!(
                    (seen..=ledger.updates.get()).contains(&number),
                    "round {round}: {seen}, then {number}"
                );
                seen = number;
            }
        }
        let mut visitor = Client::join(&process, &format!("visit-{round}"), "Cyd").await;
        ledger.meetings.insert(meeting(&visitor.until_state(|_| true).await));
        if dice.roll(2) == 0 {
            visitor.say(json!({"type": "userLeft"})).await;
            visitor.closed().await;
        }

        let reports = dice.roll(12);
        let reached = process.reached_at();
        let process = RefCell::new(Some(process));
        tokio::join!(
            ledger.report(&reached, &person, round),
            ledger.update_until_gone(&mut here),
            ledger.kill_after(&process, reports),
        );
        (ada, bob) = (Some(here.ask()), Some(other.ask()));
    }

    let (process, took) = timed_start(&data, &IMPATIENT).await;
    longest = longest.max(took);
    eventually("every meeting ends".to_owned(), async || metric(&process, "satsuma_rooms").await == 0.0)
        .await;
    process.stop().await;
    eprintln!("{ROUNDS} starts, the longest in {longest:?}");
    assert!(longest < START, "a start took {longest:?}");

    let mut database = Database::of(&data).await;
    database.assert_at_rest().await;
    let reports = database.texts("SELECT description FROM reports").await;
    let once: HashSet<String> = reports.iter().cloned().collect();
    assert_eq!(once.len(), reports.len(), "a report is there twice");
    let (tried, answered) = (ledger.tried.into_inner(), ledger.answered.into_inner());
    assert!(answered.len() > 20, "only {} reports", answered.len());
    assert!(answered.is_subset(&once), "lost: {:?}", answered.difference(&once).collect::<Vec<_>>());
    assert!(once.is_subset(&tried));
    let whole = "reports JOIN report_histories ON report_id = id";
    assert_eq!(database.count(whole).await, i64::try_from(reports.len()).unwrap());
    let stays = stays.unwrap();
    let meetings = database.texts(r#"SELECT id FROM "Meetings""#).await;
    assert!(meetings.contains(&stays), "the meeting of those who always came back");
    ledger.meetings.insert(stays);
    assert!(meetings.iter().all(|id| ledger.meetings.contains(id)), "a meeting that nobody saw");
    database.close().await;
}

#[tokio::test]
async fn crash_restores_10000_rooms_that_expire_unused() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let process = Process::start(&data, &[]).await;
    let person = Person::log_in(&process, "Ada").await;
    let mut ada = Ask::room("seed").by(&person).pk("seat-0").open(&process).await;
    ada.until_users(&["seat-0"]).await;
    process.stop().await;

    // Copies of the server's own rows: a meeting of three in each room.
    let mut database = Database::of(&data).await;
    let copy = format!(
        r#"CREATE TEMP TABLE copies AS WITH RECURSIVE numbers (n) AS
               (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {ROOMS} - 2)
           SELECT n, printf('00000000-0000-4000-8000-%012d', n) AS copy FROM numbers;
           INSERT INTO "Meetings" (id, created, modified, "userCount")
               SELECT copy, created, modified, 3 FROM "Meetings", copies;
           INSERT INTO kept_rooms (meeting_id, room, ai)
               SELECT copy, 'room-' || n, ai FROM kept_rooms, copies;
           INSERT INTO kept_seats (meeting_id, user_id, identity_id, json)
               SELECT copy, 'seat-' || seat, identity_id, replace(json, 'seat-0', 'seat-' || seat)
               FROM kept_seats, copies, (SELECT 0 AS seat UNION SELECT 1 UNION SELECT 2);"#
    );
    database.0.execute(AssertSqlSafe(copy)).await.unwrap();
    database.close().await;

    let (process, took) = timed_start(&data, &[]).await;
    assert_eq!(metric(&process, "satsuma_rooms").await, ROOMS as f64);
    process.kill();
    let (process, again) = timed_start(&data, &[]).await;
    eprintln!("{ROOMS} stored rooms: started in {took:?}, after a crash in {again:?}");
    assert!(took < START && again < START, "a start took {took:?}, or {again:?}");
    assert_eq!(metric(&process, "satsuma_rooms").await, ROOMS as f64);
    let members = 3 * (ROOMS - 1) + 1;
    assert_eq!(metric(&process, "satsuma_members").await, members as f64);
    let mut back = Ask::room("room-4711").by(&person).pk("seat-1").open(&process).await;
    let state = back.until_state(|_| true).await;
    assert_eq!(meeting(&state), "00000000-0000-4000-8000-000000004711");
    assert_eq!(ids_of(&state), ["seat-0", "seat-1", "seat-2"]);
    process.kill();

    let process = Process::start(&data, &IMPATIENT).await;
    let rooms = async || metric(&process, "satsuma_rooms").await == 0.0;
    eventually_within(START * 3, "every meeting ends".to_owned(), rooms).await;
    process.stop().await;
    let mut database = Database::of(&data).await;
    database.assert_at_rest().await;
    assert_eq!(database.count(r#""Meetings""#).await, ROOMS as i64);
    database.close().await;
}

#[expect(clippy::disallowed_methods, reason = "a start is measured")]
fn now() -> Instant {
    Instant::now()
}
