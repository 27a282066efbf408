//! Reports of users, stored before the request is answered, so that not even `kill -9` loses one.
//!
//! Unlike the rooms' state, reports are rare and are written at once, by connections of their own.

mod counts;
mod expiry;
mod lists;
mod queue;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqliteConnection, Transaction};
use tokio::sync::Notify;

pub use counts::{CountedDay, FeedbackCounts};
pub use lists::{Cursor, DeliveryView, MeetingLine, ReportFilter, ReportLine, ReportView};
pub use queue::{DeliveryOutcome, Due, LONGEST_WAIT};

use crate::id::{IdentityId, ReportId, RoomName};
use crate::metrics::{ByReason, Metrics};
use crate::store::sql::rfc3339;

/// One writes, and one reads meanwhile.
const CONNECTIONS: u32 = 2;

/// Timeout of a request for a connection; SQLite's own timeout for a lock is as long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Approximate size of a row without its texts, indexes included.
const ROW_BYTES: usize = 512;

/// The kind of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// Somebody filled in the form.
    Bug,
    /// A client pulls a track that carries nothing.
    DeadTrack,
}

impl ReportKind {
    /// The kind as lists and metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bug => "bug",
            Self::DeadTrack => "dead_track",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Bug, Self::DeadTrack].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A report that is to be kept.
#[derive(Clone, Debug)]
pub struct NewReport {
    /// Its id.
    pub id: ReportId,
    /// The report's kind.
    pub kind: ReportKind,
    /// Time of receipt.
    pub created: SystemTime,
    /// The room, where the report names it; else that of the meeting, while it runs.
    pub room: Option<RoomName>,
    /// The meeting, where the report names it; else that of the room, while it runs.
    pub meeting: Option<String>,
    /// The authenticated id of the reporter.
    pub identity: IdentityId,
    /// The authenticated name.
    pub name: Arc<str>,
    /// The text typed into the form.
    pub description: String,
    /// The browser.
    pub user_agent: String,
    /// The page.
    pub url: String,
    /// Number of history entries that were left out.
    pub cut_entries: u64,
    /// The history, or all of a dead track's report; pretty-printed JSON.
    pub json: String,
}

/// The store failed; clients are told nothing but that.
#[derive(Debug, thiserror::Error)]
#[error("the store does not keep or show reports ({0})")]
pub struct ReportsError(#[from] sqlx::Error);

/// The reports, and what is counted of calls; a cheap clone.
#[derive(Clone, Debug)]
pub struct Reports {
    pool: SqlitePool,
    metrics: Arc<Metrics>,
    queued: Arc<Notify>,
}

impl Reports {
    /// Opens the tables, which exist, when they are first needed.
    pub(super) fn open(options: SqliteConnectOptions, metrics: Arc<Metrics>) -> Self {
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(PATIENCE);
        // A report answered with 200 must survive a power failure, too; reports are rare enough for that.
        let pool = pool.connect_lazy_with(options.synchronous(SqliteSynchronous::Full));
        Self { pool, metrics, queued: Arc::default() }
    }

    /// Waits for the verbs that are under way, and closes the connections.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    /// Keeps a report, and queues its `card` where there is one: both or neither.
    ///
    /// Over `most_bytes` in all, the oldest other reports are removed.
    ///
    /// # Errors
    /// [`ReportsError`]; then nothing is kept.
    pub async fn keep(
        &self,
        report: NewReport,
        card: Option<String>,
        most_bytes: usize,
    ) -> Result<(), ReportsError> {
        let mut transaction = self.begin().await?;
        let id = report.id;
        let queued = card.is_some();
        let created = rfc3339(report.created);
        insert(&mut transaction, report, card.as_deref().map_or(0, str::len)).await?;
        if let Some(card) = card {
            let insert = sqlx::query(
                "INSERT INTO deliveries (report_id, card, state, attempts, created, next_try)
                 VALUES ($1, $2, 'waiting', 0, $3, $3)",
            );
            insert.bind(id.to_string()).bind(card).bind(created).execute(&mut *transaction).await?;
        }
        let removed = expiry::make_room(&mut transaction, Some(id), most_bytes).await?;
        transaction.commit().await?;
        self.count_removed("size", removed);
        if queued {
            self.queued.notify_one();
        }
        Ok(())
    }

    /// The JSON of a report, if it is there.
    ///
    /// # Errors
    /// [`ReportsError`].
    pub async fn json(&self, id: ReportId) -> Result<Option<String>, ReportsError> {
        let select = sqlx::query_scalar("SELECT json FROM report_histories WHERE report_id = $1");
        Ok(select.bind(id.to_string()).fetch_optional(&self.pool).await?)
    }

    /// Asking for the lock at once makes SQLite wait for it; asking later, it would give up.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.pool.begin_with("BEGIN IMMEDIATE").await
    }

    fn count_removed(&self, reason: &'static str, reports: u64) {
        if reports > 0 {
            let reason = ByReason { reason };
            self.metrics.reports_removed.get_or_create(&reason).inc_by(reports);
        }
    }
}

async fn insert(db: &mut SqliteConnection, report: NewReport, card_bytes: usize) -> Result<(), sqlx::Error> {
    let NewReport { id, kind, created, room, meeting, identity, name, .. } = report;
    let NewReport { description, user_agent, url, cut_entries, json, .. } = report;
    let texts = [&description, &user_agent, &url, &json].map(String::len);
    let bytes = ROW_BYTES + card_bytes + name.len() + texts.into_iter().sum::<usize>();
    let insert = sqlx::query(
        "INSERT INTO reports (id, kind, created, room, meeting_id, identity_id, name, description,
            user_agent, url, cut_entries, bytes)
         VALUES ($1, $2, $3,
            COALESCE($4, (SELECT MAX(room) FROM kept_rooms WHERE meeting_id = $5)),
            COALESCE($5, (SELECT MAX(meeting_id) FROM kept_rooms WHERE room = $4)),
            $6, $7, $8, $9, $10, $11, $12)",
    );
    let insert = insert.bind(id.to_string()).bind(kind.as_str()).bind(rfc3339(created));
    let insert = insert.bind(room.map(|room| room.to_string())).bind(meeting);
    let insert = insert.bind(identity.to_string()).bind(name).bind(description);
    let insert = insert.bind(user_agent).bind(url);
    let insert = insert.bind(i64::try_from(cut_entries).unwrap_or(i64::MAX));
    insert.bind(i64::try_from(bytes).unwrap_or(i64::MAX)).execute(&mut *db).await?;
    let insert = sqlx::query("INSERT INTO report_histories (report_id, json) VALUES ($1, $2)");
    insert.bind(id.to_string()).bind(json).execute(&mut *db).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use sqlx::{ConnectOptions, Connection};
    use tokio::time::Instant;

    use super::*;
    use crate::id::MeetingId;
    use crate::store::saved::Persist;
    use crate::store::sql::Database;
    use crate::store::{Change, Store};

    const PLENTY: usize = 1 << 30;

    struct Fixture {
        directory: tempfile::TempDir,
        store: Store,
        metrics: Arc<Metrics>,
    }

    impl Fixture {
        async fn open() -> Self {
            let directory = tempfile::tempdir().unwrap();
            std::fs::File::create(directory.path().join("r.db")).unwrap();
            Self::open_in(directory).await
        }

        async fn open_in(directory: tempfile::TempDir) -> Self {
            let metrics = Metrics::new();
            let (store, _) = Store::open(&directory.path().join("r.db"), metrics.clone()).await.unwrap();
            Self { directory, store, metrics }
        }

        async fn reopen(self) -> Self {
            self.store.shutdown(soon()).await.unwrap();
            Self::open_in(self.directory).await
        }

        fn reports(&self) -> Reports {
            self.store.reports()
        }

        async fn keep(&self, second: u64, card: Option<&str>) -> ReportId {
            let report = report(second);
            let id = report.id;
            self.reports().keep(report, card.map(str::to_owned), PLENTY).await.unwrap();
            id
        }

        async fn ids(&self) -> Vec<String> {
            let lines = self.reports().list(&ReportFilter::default(), None, 200).await.unwrap();
            lines.into_iter().map(|line| line.id).collect()
        }

        async fn rows(&self, table: &str) -> i64 {
            let select = sqlx::AssertSqlSafe(format!(r#"SELECT COUNT(*) FROM "{table}""#));
            sqlx::query_scalar(select).fetch_one(&self.reports().pool).await.unwrap()
        }

        fn removed(&self, reason: &'static str) -> u64 {
            self.metrics.reports_removed.get_or_create(&ByReason { reason }).get()
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a deadline far away")]
    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_767_225_600 + second)
    }

    fn report(second: u64) -> NewReport {
        NewReport {
            id: ReportId::random(),
            kind: ReportKind::Bug,
            created: at(second),
            room: Some(RoomName::parse("r").unwrap()),
            meeting: None,
            identity: IdentityId::new("cookie:ada"),
            name: "Ada".into(),
            description: "it hangs".into(),
            user_agent: "Browser/1".into(),
            url: "https://meet.example/r".into(),
            cut_entries: 0,
            json: "{\n  \"apiHistory\": []\n}".into(),
        }
    }

    #[tokio::test]
    async fn report_is_readable_at_once_and_after_restart() {
        let fixture = Fixture::open().await;
        let id = fixture.keep(0, Some("{}")).await;
        let fixture = fixture.reopen().await;
        let view = fixture.reports().look_up(id).await.unwrap().unwrap();
        assert_eq!((&*view.line.kind, &*view.line.created), ("bug", "2026-01-01T00:00:00.000Z"));
        assert_eq!((view.line.room.as_deref(), view.line.meeting), (Some("r"), None));
        assert_eq!((&*view.line.identity, &*view.line.name), ("cookie:ada", "Ada"));
        assert_eq!((&*view.line.description, &*view.user_agent), ("it hangs", "Browser/1"));
        assert_eq!((&*view.url, &*view.json), ("https://meet.example/r", "{\n  \"apiHistory\": []\n}"));
        assert_eq!(view.line.delivery.unwrap().state, "waiting");
        assert_eq!(fixture.reports().json(ReportId::random()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_card_is_due_until_it_is_delivered() {
        let fixture = Fixture::open().await;
        let [first, second] = [fixture.keep(0, Some("1")).await, fixture.keep(1, Some("2")).await];
        fixture.keep(2, None).await;
        let reports = fixture.reports();
        let due = async |seconds, except: &[ReportId]| -> Vec<String> {
            let due = reports.due(at(seconds), 10, except).await.unwrap();
            due.into_iter().map(|due| format!("{} {}", due.card, due.attempts)).collect()
        };
        assert_eq!(due(0, &[]).await, ["1 0"]);
        assert_eq!(due(5, &[]).await, ["1 0", "2 0"]);
        assert_eq!(due(5, &[first]).await, ["2 0"]);
        assert_eq!(reports.next_due(&[first]).await.unwrap(), Some(at(1)));
        reports.measure_queue().await;
        assert_eq!(fixture.metrics.deliveries_waiting.get(), 2);

        reports.attempted(first, DeliveryOutcome::Postponed { until: at(60) }, Some("busy")).await.unwrap();
        reports.attempted(second, DeliveryOutcome::Delivered, None).await.unwrap();
        assert_eq!(due(59, &[]).await, [""; 0]);
        assert_eq!(reports.next_due(&[]).await.unwrap(), Some(at(60)));
        assert_eq!(due(60, &[]).await, ["1 1"]);
        let view = reports.look_up(first).await.unwrap().unwrap().line.delivery.unwrap();
        assert_eq!((&*view.state, view.attempts, view.last_error.as_deref()), ("waiting", 1, Some("busy")));
        assert_eq!(view.next_try.as_deref(), Some("2026-01-01T00:01:00.000Z"));

        reports.attempted(first, DeliveryOutcome::Dead, Some("busy")).await.unwrap();
        assert_eq!(due(1_000_000, &[]).await, [""; 0]);
        assert_eq!(reports.next_due(&[]).await.unwrap(), None);
        let view = reports.look_up(first).await.unwrap().unwrap().line.delivery.unwrap();
        assert_eq!((&*view.state, view.attempts, view.next_try), ("dead", 2, None));
        reports.measure_queue().await;
        let gauges = (fixture.metrics.deliveries_waiting.get(), fixture.metrics.deliveries_dead.get());
        assert_eq!(gauges, (0, 1));
    }

    /// A report that came while the clock was a year ahead had its card delivered a year later.
    #[tokio::test]
    async fn clock_that_was_ahead_delays_no_card() {
        let fixture = Fixture::open().await;
        let reports = fixture.reports();
        let year = 365 * 86_400;
        let early = fixture.keep(year, Some("early")).await;
        let due = reports.due(at(0), 10, &[]).await.unwrap();
        assert_eq!(due.iter().map(|due| due.report).collect::<Vec<_>>(), [early]);
        // As after every failure, but by the clock of now.
        let until = at(0) + LONGEST_WAIT;
        reports.attempted(early, DeliveryOutcome::Postponed { until }, Some("busy")).await.unwrap();
        assert_eq!(reports.due(at(0), 10, &[]).await.unwrap(), []);
        assert_eq!(reports.due(until, 10, &[]).await.unwrap().len(), 1);
        // Those whose time has come regularly are not held up by it, nor it by those under way.
        let now = fixture.keep(0, Some("now")).await;
        let late = fixture.keep(year, Some("late")).await;
        let due = reports.due(at(0), 1, &[now]).await.unwrap();
        assert_eq!(due.iter().map(|due| due.report).collect::<Vec<_>>(), [late]);
    }

    #[tokio::test]
    async fn old_reports_are_removed_and_meetings_stay() {
        let fixture = Fixture::open().await;
        let meeting = MeetingId::random();
        let change =
            Change { at: at(0), room: RoomName::parse("r").unwrap(), meeting, what: Persist::MeetingStarted };
        fixture.store.handle().persist(change);
        fixture.store.handle().flush().await.unwrap();
        let first = fixture.keep(0, Some("{}")).await;
        for second in 1..120 {
            fixture.keep(second, Some("{}")).await;
        }
        fixture.reports().attempted(first, DeliveryOutcome::Delivered, None).await.unwrap();
        for second in [0, 200] {
            fixture.reports().refreshed("1", at(second)).await.unwrap();
            assert!(fixture.reports().call_rated("1", meeting, 1, at(second)).await.unwrap());
        }
        fixture.reports().expire(at(110), PLENTY).await.unwrap();
        assert_eq!(
            (fixture.ids().await.len(), fixture.removed("age"), fixture.removed("size")),
            (10, 110, 0)
        );
        for (table, left) in [
            ("report_histories", 10),
            // A delivered card is removed with its report; a waiting one is still to be delivered.
            ("deliveries", 119),
            ("AnalyticsRefreshes", 1),
            ("AnalyticsSimpleCallFeedback", 1),
            ("Meetings", 1),
        ] {
            assert_eq!(fixture.rows(table).await, left, "{table}");
        }
        assert_eq!(fixture.metrics.deliveries_waiting.get(), 119);
    }

    #[tokio::test]
    async fn old_unrated_meetings_are_removed() {
        let fixture = Fixture::open().await;
        let [running, rated, late, over] = [0; 4].map(|_| MeetingId::random());
        let keep = |meeting, second, what| {
            let change = Change { at: at(second), room: RoomName::parse("r").unwrap(), meeting, what };
            fixture.store.handle().persist(change);
        };
        for (meeting, ended) in [(running, None), (rated, Some(50)), (late, Some(120)), (over, Some(50))] {
            keep(meeting, 0, Persist::MeetingStarted);
            if let Some(second) = ended {
                keep(meeting, second, Persist::MeetingEnded);
            }
        }
        fixture.store.handle().flush().await.unwrap();
        assert!(fixture.reports().call_rated("1", rated, 1, at(60)).await.unwrap());
        fixture.reports().expire_meetings(at(110)).await.unwrap();
        assert_eq!(fixture.rows("Meetings").await, 3);
        fixture.reports().expire(at(110), PLENTY).await.unwrap();
        fixture.reports().expire_meetings(at(110)).await.unwrap();
        assert_eq!(fixture.rows("Meetings").await, 2, "the one that runs, and the one that ended late");
    }

    #[tokio::test]
    async fn oldest_reports_are_evicted_over_the_byte_limit() {
        let fixture = Fixture::open().await;
        let mut ids = Vec::new();
        for second in 0..5 {
            ids.insert(0, fixture.keep(second, None).await.to_string());
        }
        assert_eq!(fixture.ids().await, ids);
        let bytes =
            fixture.reports().list(&ReportFilter::default(), None, 1).await.unwrap()[0].bytes as usize;
        assert!(bytes > 500, "{bytes}");
        let newest = report(9);
        ids.insert(0, newest.id.to_string());
        fixture.reports().keep(newest, None, 3 * bytes).await.unwrap();
        assert_eq!(fixture.ids().await, ids[..3]);
        assert_eq!(fixture.removed("size"), 3);
        // Nothing else fits beside one that is longer than all may be.
        let long = NewReport { json: "x".repeat(4 * bytes), ..report(10) };
        let id = long.id.to_string();
        fixture.reports().keep(long, None, 3 * bytes).await.unwrap();
        assert_eq!(fixture.ids().await, [id]);
        // A lower setting applies at the next pruning.
        fixture.reports().expire(at(0), 0).await.unwrap();
        assert_eq!((fixture.ids().await.len(), fixture.removed("size")), (0, 7));
    }

    #[tokio::test]
    async fn lists_are_filtered_and_paged_newest_first() {
        let fixture = Fixture::open().await;
        let reports = fixture.reports();
        for second in 0..7 {
            // Some share their time.
            let kind = if second % 2 == 0 { ReportKind::Bug } else { ReportKind::DeadTrack };
            let room = Some(RoomName::parse(if second < 4 { "a" } else { "b" }).unwrap());
            let report = NewReport { kind, room, created: at(second / 3), ..report(0) };
            reports.keep(report, None, PLENTY).await.unwrap();
        }
        let filter =
            |kind, room: Option<&str>| ReportFilter { kind, room: room.map(|r| RoomName::parse(r).unwrap()) };
        let mut seen = Vec::new();
        let mut from = None;
        loop {
            let lines = reports.list(&ReportFilter::default(), from.as_ref(), 2).await.unwrap();
            let Some(last) = lines.last() else { break };
            // Through the text, as a client passes it.
            from = Some(last.cursor().to_string().parse().unwrap());
            seen.extend(lines.into_iter().map(|line| line.id));
        }
        assert_eq!((seen.len(), seen), (7, fixture.ids().await));
        let count = async |filter: ReportFilter| reports.list(&filter, None, 100).await.unwrap().len();
        assert_eq!(count(filter(Some(ReportKind::Bug), None)).await, 4);
        assert_eq!(count(filter(None, Some("a"))).await, 4);
        assert_eq!(count(filter(Some(ReportKind::DeadTrack), Some("a"))).await, 2);
        assert_eq!(count(filter(None, Some("c"))).await, 0);
    }

    #[tokio::test]
    async fn counts_are_by_version_and_day() {
        const DAY: u64 = 24 * 60 * 60;
        let fixture = Fixture::open().await;
        let reports = fixture.reports();
        let meeting = MeetingId::random();
        assert!(!reports.call_rated("1", meeting, 1, at(0)).await.unwrap(), "the meeting is unknown");
        let change =
            Change { at: at(0), room: RoomName::parse("r").unwrap(), meeting, what: Persist::MeetingStarted };
        fixture.store.handle().persist(change);
        fixture.store.handle().flush().await.unwrap();
        for (version, second, issues) in [("1", 0, 1), ("1", 5, 0), ("1", 6, 0), ("2", DAY, 1)] {
            assert!(reports.call_rated(version, meeting, issues, at(second)).await.unwrap());
        }
        for second in [DAY - 1, DAY, DAY + 1] {
            reports.refreshed("1", at(second)).await.unwrap();
        }
        let counts =
            |day: &str, version: &str, [refreshes, with_issues, without_issues]: [i64; 3]| CountedDay {
                day: day.into(),
                version: version.into(),
                counts: FeedbackCounts { refreshes, with_issues, without_issues },
            };
        let expected = [
            counts("2026-01-02", "1", [2, 0, 0]),
            counts("2026-01-02", "2", [0, 1, 0]),
            counts("2026-01-01", "1", [1, 1, 2]),
        ];
        assert_eq!(reports.counts().await.unwrap(), expected);
    }

    #[tokio::test]
    async fn report_of_running_meeting_gets_room_and_meeting() {
        let fixture = Fixture::open().await;
        let (meeting, room) = (MeetingId::random(), RoomName::parse("r").unwrap());
        let keep =
            |what| fixture.store.handle().persist(Change { at: at(0), room: room.clone(), meeting, what });
        keep(Persist::MeetingStarted);
        fixture.store.handle().flush().await.unwrap();
        let by_room = fixture.keep(1, None).await;
        let dead = NewReport { room: None, meeting: Some(meeting.to_string()), ..report(2) };
        let by_meeting = dead.id;
        fixture.reports().keep(dead, None, PLENTY).await.unwrap();
        for id in [by_room, by_meeting] {
            let line = fixture.reports().look_up(id).await.unwrap().unwrap().line;
            assert_eq!((line.room.as_deref(), line.meeting), (Some("r"), Some(meeting.to_string())));
        }
        keep(Persist::MeetingEnded);
        fixture.store.handle().flush().await.unwrap();
        let late = fixture.keep(3, None).await;
        assert_eq!(fixture.reports().look_up(late).await.unwrap().unwrap().line.meeting, None);
    }

    #[tokio::test]
    async fn a_failing_store_keeps_nothing_and_says_so() {
        let fixture = Fixture::open().await;
        // As on a full disk: the file cannot grow, and the report does not fit into it.
        let mut other = Database::options(&fixture.directory.path().join("r.db")).connect().await.unwrap();
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut other).await.unwrap();
        other.close().await.unwrap();
        let limit = format!("PRAGMA max_page_count = {pages}");
        for _ in 0..CONNECTIONS {
            sqlx::query(sqlx::AssertSqlSafe(limit.clone())).execute(&fixture.reports().pool).await.unwrap();
        }
        let long = NewReport { json: "x".repeat(1 << 20), ..report(0) };
        let error = fixture.reports().keep(long, Some("{}".into()), PLENTY).await.unwrap_err();
        assert!(error.to_string().contains("full"), "{error}");
        assert_eq!((fixture.rows("reports").await, fixture.rows("deliveries").await), (0, 0));
    }

    #[tokio::test]
    async fn reports_after_shutdown_are_refused() {
        let fixture = Fixture::open().await;
        let reports = fixture.reports();
        fixture.keep(0, None).await;
        fixture.store.shutdown(soon()).await.unwrap();
        assert!(reports.keep(report(1), None, PLENTY).await.is_err());
        assert!(reports.json(ReportId::random()).await.is_err());
        // The file alone is a backup.
        assert!(!fixture.directory.path().join("r.db-wal").exists());
    }
}
