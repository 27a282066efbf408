//! Reports of users, stored before the request is answered, so that not even `kill -9` loses one.
//!
//! Unlike the rooms' state, reports are rare and are written at once, by connections of their own.

mod counts;
mod expiry;
mod lists;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqliteConnection, Transaction};

pub use counts::{CountedDay, FeedbackCounts};
pub use lists::{Cursor, DeliveryView, MeetingLine, ReportFilter, ReportLine, ReportView};

use crate::id::{IdentityId, ReportId, RoomName};
use crate::metrics::{ByReason, Metrics};
use crate::store::deliveries::{Deliveries, NewDelivery};
use crate::store::ended::StoredEnded;
use crate::store::events::Events;
use crate::store::revocations::StoredRevocations;
use crate::store::rules::StoredRules;
use crate::store::sql::rfc3339;

/// One writes, and one reads meanwhile.
const CONNECTIONS: u32 = 2;

/// Timeout of a request for a connection; SQLite's own timeout for a lock is as long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Approximate size of a row without its texts, indexes included.
const ROW_BYTES: usize = 512;

/// Destination of the cards that tell of reports.
pub const CARDS: &str = "feedback";

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

/// A report to be stored.
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
    /// The history, or all of a dead track's report, as JSON.
    pub json: String,
}

/// Reports cannot be stored or read. Clients learn no more than that.
#[derive(Debug, thiserror::Error)]
#[error("reports cannot be stored or read ({0})")]
pub struct ReportsError(#[from] sqlx::Error);

/// The reports, and what is counted of calls; a cheap clone.
#[derive(Clone, Debug)]
pub struct Reports {
    pool: SqlitePool,
    metrics: Arc<Metrics>,
    deliveries: Deliveries,
}

impl Reports {
    /// Opens the tables, which exist, when they are first needed.
    pub(super) fn open(options: SqliteConnectOptions, metrics: Arc<Metrics>) -> Self {
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(PATIENCE);
        // A report answered with 200 must survive a power failure, too; reports are rare enough for that.
        let pool = pool.connect_lazy_with(options.synchronous(SqliteSynchronous::Full));
        let deliveries = Deliveries::new(pool.clone(), Arc::clone(&metrics));
        Self { pool, metrics, deliveries }
    }

    /// The settings of rooms by name, which share the connections.
    pub(super) fn rules(&self) -> StoredRules {
        StoredRules::new(self.pool.clone())
    }

    /// The ids of those whose meeting was ended, which share the connections.
    pub(super) fn ended(&self) -> StoredEnded {
        StoredEnded::new(self.pool.clone())
    }

    /// The events for programs outside, which share the connections.
    pub(super) fn events(&self) -> Events {
        Events::new(self.pool.clone(), self.deliveries.clone())
    }

    /// The messages for destinations outside, which share the connections.
    pub(super) fn deliveries(&self) -> Deliveries {
        self.deliveries.clone()
    }

    /// The revocations of access tokens, which share the connections.
    pub(super) fn revocations(&self) -> StoredRevocations {
        StoredRevocations::new(self.pool.clone())
    }

    /// Waits for the calls that are under way, and closes the connections.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    /// Stores a report, and queues its `card` if there is one: both or neither.
    ///
    /// Over `most_bytes` in all, the oldest other reports are removed.
    ///
    /// # Errors
    /// [`ReportsError`]; then nothing is stored.
    pub async fn add(
        &self,
        report: NewReport,
        card: Option<String>,
        most_bytes: usize,
    ) -> Result<(), ReportsError> {
        let mut transaction = self.begin().await?;
        let id = report.id;
        let queued = card.is_some();
        let created = report.created;
        insert(&mut transaction, report, card.as_deref().map_or(0, str::len)).await?;
        if let Some(card) = card {
            let (id, destination, body) = (id.into(), CARDS.into(), card.into());
            let card = NewDelivery { id, destination, kind: "card", body, created, lane: None };
            Deliveries::add(&mut transaction, card).await?;
        }
        let removed = expiry::make_room(&mut transaction, Some(id), most_bytes).await?;
        transaction.commit().await?;
        self.count_removed("size", removed);
        if queued {
            self.deliveries.wake();
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

    /// SQLite waits only for a lock taken at the beginning; for one taken later it gives up.
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

    use sqlx::Connection;
    use tokio::time::Instant;

    use super::*;
    use crate::id::MeetingId;
    use crate::store::Change;
    use crate::store::deliveries::DeliveryOutcome;
    use crate::store::fixture::{Fixture, at};
    use crate::store::saved::Persist;

    const PLENTY: usize = 1 << 30;

    impl Fixture {
        fn reports(&self) -> Reports {
            self.store.reports()
        }

        async fn add_report(&self, second: u64, card: Option<&str>) -> ReportId {
            let report = report(second);
            let id = report.id;
            self.reports().add(report, card.map(str::to_owned), PLENTY).await.unwrap();
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
        let id = fixture.add_report(0, Some("{}")).await;
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
    async fn report_shows_the_delivery_of_its_card() {
        let fixture = Fixture::open().await;
        let (with, without) = (fixture.add_report(0, Some("{}")).await, fixture.add_report(1, None).await);
        let shown = async |id| fixture.reports().look_up(id).await.unwrap().unwrap().line.delivery;
        assert!(shown(without).await.is_none());
        let queue = fixture.store.deliveries();
        let until = DeliveryOutcome::Postponed { until: at(60) };
        queue.attempted(CARDS, with.into(), until, Some("busy")).await.unwrap();
        let view = shown(with).await.unwrap();
        assert_eq!((&*view.state, view.attempts, view.last_error.as_deref()), ("waiting", 1, Some("busy")));
        assert_eq!(view.next_try.as_deref(), Some("2026-01-01T00:01:00.000Z"));
        queue.attempted(CARDS, with.into(), DeliveryOutcome::Dead, Some("busy")).await.unwrap();
        let view = shown(with).await.unwrap();
        assert_eq!((&*view.state, view.attempts, view.next_try), ("dead", 2, None));
    }

    #[tokio::test]
    async fn old_reports_are_removed_and_meetings_stay() {
        let fixture = Fixture::open().await;
        let meeting = MeetingId::random();
        let change =
            Change { at: at(0), room: RoomName::parse("r").unwrap(), meeting, what: Persist::MeetingStarted };
        fixture.store.handle().persist(change);
        fixture.store.handle().flush().await.unwrap();
        let first = fixture.add_report(0, Some("{}")).await;
        for second in 1..120 {
            fixture.add_report(second, Some("{}")).await;
        }
        let cards = fixture.reports().deliveries();
        cards.attempted(CARDS, first.into(), DeliveryOutcome::Delivered, None).await.unwrap();
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
        let persist = |meeting, second, what| {
            let change = Change { at: at(second), room: RoomName::parse("r").unwrap(), meeting, what };
            fixture.store.handle().persist(change);
        };
        for (meeting, ended) in [(running, None), (rated, Some(50)), (late, Some(120)), (over, Some(50))] {
            persist(meeting, 0, Persist::MeetingStarted);
            if let Some(second) = ended {
                persist(meeting, second, Persist::MeetingEnded);
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
            ids.insert(0, fixture.add_report(second, None).await.to_string());
        }
        assert_eq!(fixture.ids().await, ids);
        let bytes =
            fixture.reports().list(&ReportFilter::default(), None, 1).await.unwrap()[0].bytes as usize;
        assert!(bytes > 500, "{bytes}");
        let newest = report(9);
        ids.insert(0, newest.id.to_string());
        fixture.reports().add(newest, None, 3 * bytes).await.unwrap();
        assert_eq!(fixture.ids().await, ids[..3]);
        assert_eq!(fixture.removed("size"), 3);
        // Nothing else fits beside one that is longer than all may be.
        let long = NewReport { json: "x".repeat(4 * bytes), ..report(10) };
        let id = long.id.to_string();
        fixture.reports().add(long, None, 3 * bytes).await.unwrap();
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
            reports.add(report, None, PLENTY).await.unwrap();
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
        let persist =
            |what| fixture.store.handle().persist(Change { at: at(0), room: room.clone(), meeting, what });
        persist(Persist::MeetingStarted);
        fixture.store.handle().flush().await.unwrap();
        let by_room = fixture.add_report(1, None).await;
        let dead = NewReport { room: None, meeting: Some(meeting.to_string()), ..report(2) };
        let by_meeting = dead.id;
        fixture.reports().add(dead, None, PLENTY).await.unwrap();
        for id in [by_room, by_meeting] {
            let line = fixture.reports().look_up(id).await.unwrap().unwrap().line;
            assert_eq!((line.room.as_deref(), line.meeting), (Some("r"), Some(meeting.to_string())));
        }
        persist(Persist::MeetingEnded);
        fixture.store.handle().flush().await.unwrap();
        let late = fixture.add_report(3, None).await;
        assert_eq!(fixture.reports().look_up(late).await.unwrap().unwrap().line.meeting, None);
    }

    #[tokio::test]
    async fn report_is_refused_whole_on_a_full_disk() {
        let fixture = Fixture::open().await;
        // As on a full disk: the file cannot grow, and the report does not fit into it.
        let mut other = fixture.beside().await;
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut other).await.unwrap();
        other.close().await.unwrap();
        let limit = format!("PRAGMA max_page_count = {pages}");
        for _ in 0..CONNECTIONS {
            sqlx::query(sqlx::AssertSqlSafe(limit.clone())).execute(&fixture.reports().pool).await.unwrap();
        }
        let long = NewReport { json: "x".repeat(1 << 20), ..report(0) };
        let error = fixture.reports().add(long, Some("{}".into()), PLENTY).await.unwrap_err();
        assert!(error.to_string().contains("full"), "{error}");
        assert_eq!((fixture.rows("reports").await, fixture.rows("deliveries").await), (0, 0));
    }

    #[tokio::test]
    async fn reports_after_shutdown_are_refused() {
        let fixture = Fixture::open().await;
        let reports = fixture.reports();
        fixture.add_report(0, None).await;
        fixture.store.shutdown(soon()).await.unwrap();
        assert!(reports.add(report(1), None, PLENTY).await.is_err());
        assert!(reports.json(ReportId::random()).await.is_err());
        // The file alone is a backup.
        assert!(!fixture.directory.path().join("r.db-wal").exists());
    }
}
