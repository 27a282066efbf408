//! The queue of messages for destinations outside, each of which is delivered at least once.
//!
//! Like reports they are written at once: what is queued survives `kill -9`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sqlx::sqlite::{SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};
use tokio::sync::watch;

use crate::id::DeliveryId;
use crate::metrics::Metrics;
use crate::store::sql::rfc3339;

/// Time for which a delivery is retried, and so the longest delay of a retry.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// A message to be queued.
#[derive(Clone, Debug)]
pub(super) struct NewDelivery {
    /// The message's id.
    pub(super) id: DeliveryId,
    /// The destination's name.
    pub(super) destination: Arc<str>,
    /// The kind of the message, which its destination knows.
    pub(super) kind: &'static str,
    /// The message.
    pub(super) body: Arc<str>,
    /// Time of queueing; it is due at once, or once those before it in its lane are done.
    pub(super) created: SystemTime,
    /// The lane whose messages are delivered one after the other, if order matters, and the place in it.
    pub(super) lane: Option<(String, i64)>,
}

/// A queued message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The message's id.
    pub id: DeliveryId,
    /// The kind of the message.
    pub kind: String,
    /// The message.
    pub body: String,
    /// Number of attempts.
    pub attempts: u32,
    /// Time of queueing.
    pub created: SystemTime,
}

/// The outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The destination has it.
    Delivered,
    /// It is tried again.
    Postponed {
        /// Time of the next attempt.
        until: SystemTime,
    },
    /// It has been tried for too long; only operators see it now.
    Dead,
}

/// The queue cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the delivery queue cannot be read or written ({0})")]
pub struct DeliveriesError(#[from] sqlx::Error);

/// The queue; a cheap clone.
#[derive(Clone, Debug)]
pub struct Deliveries {
    pool: SqlitePool,
    metrics: Arc<Metrics>,
    queued: watch::Sender<()>,
}

impl Deliveries {
    /// The queue in the database of `pool`.
    pub(super) fn new(pool: SqlitePool, metrics: Arc<Metrics>) -> Self {
        Self { pool, metrics, queued: watch::channel(()).0 }
    }

    /// Adds a message to the queue, in the transaction of `db`; once that is committed, [`Self::wake`] is due.
    pub(super) async fn add(db: &mut SqliteConnection, delivery: NewDelivery) -> Result<(), sqlx::Error> {
        let NewDelivery { id, destination, kind, body, created, lane } = delivery;
        let (lane, position) = lane.unzip();
        let insert = sqlx::query(
            "INSERT INTO deliveries (destination, id, kind, body, state, attempts, created, next_try, lane, position)
             VALUES ($1, $2, $3, $4,
                CASE WHEN EXISTS (SELECT 1 FROM deliveries
                    WHERE destination = $1 AND lane = $6 AND state IN ('waiting', 'blocked'))
                    THEN 'blocked' ELSE 'waiting' END,
                0, $5, $5, $6, $7)
             ON CONFLICT DO NOTHING",
        );
        let insert = insert.bind(destination).bind(id.to_string()).bind(kind).bind(body);
        let insert = insert.bind(rfc3339(created)).bind(lane).bind(position.unwrap_or_default());
        insert.execute(db).await.map(drop)
    }

    /// The connections to the database.
    pub(super) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// Wakes the senders.
    pub(super) fn wake(&self) {
        self.queued.send_replace(());
    }

    /// A watch that changes with every new message.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.queued.subscribe()
    }

    /// At most `most` messages that are due for a destination at `now`, the longest waiting first, without those
    /// of `except`.
    ///
    /// A time that no message can be put off to was written by a clock that was ahead, and is not waited for.
    ///
    /// # Errors
    /// [`DeliveriesError`].
    pub async fn due(
        &self,
        destination: &str,
        now: SystemTime,
        most: usize,
        except: &[DeliveryId],
    ) -> Result<Vec<Delivery>, DeliveriesError> {
        let mut select = waiting("SELECT id, kind, body, attempts, created", destination);
        select.push(" AND (next_try <= ").push_bind(rfc3339(now));
        select.push(" OR next_try > ").push_bind(rfc3339(now + LONGEST_WAIT)).push(")");
        order(&mut select, most + except.len());
        let rows = select.build().fetch_all(&self.pool).await?;
        let due = rows.iter().map(|row| read(row, now)).collect::<Result<Vec<_>, _>>()?;
        let due = due.into_iter().flatten().filter(|due| !except.contains(&due.id));
        Ok(due.take(most).collect())
    }

    /// The time at which the next message for a destination is due, without those of `except`.
    ///
    /// # Errors
    /// [`DeliveriesError`].
    pub async fn next_due(
        &self,
        destination: &str,
        except: &[DeliveryId],
    ) -> Result<Option<SystemTime>, DeliveriesError> {
        let mut select = waiting("SELECT id, next_try", destination);
        order(&mut select, except.len() + 1);
        let rows: Vec<(String, String)> = select.build_query_as().fetch_all(&self.pool).await?;
        let under_way = |id: &str| except.iter().any(|except| except.to_string() == id);
        let next = rows.into_iter().find(|(id, _)| !under_way(id));
        // A time that cannot be read is long past.
        Ok(next.map(|(_, time)| humantime::parse_rfc3339(&time).unwrap_or(SystemTime::UNIX_EPOCH)))
    }

    /// Records the outcome of an attempt, and the reason if it failed.
    ///
    /// # Errors
    /// [`DeliveriesError`].
    pub async fn attempted(
        &self,
        destination: &str,
        id: DeliveryId,
        outcome: DeliveryOutcome,
        failure: Option<&str>,
    ) -> Result<(), DeliveriesError> {
        let (state, until) = match outcome {
            DeliveryOutcome::Delivered => ("delivered", None),
            DeliveryOutcome::Postponed { until } => ("waiting", Some(rfc3339(until))),
            DeliveryOutcome::Dead => ("dead", None),
        };
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let update = sqlx::query_scalar(
            "UPDATE deliveries SET state = $3, attempts = attempts + 1, last_error = $5,
                next_try = COALESCE($4, next_try),
                body = CASE WHEN $3 = 'delivered' THEN '' ELSE body END
             WHERE destination = $1 AND id = $2 RETURNING lane",
        );
        let update = update.bind(destination.to_owned()).bind(id.to_string()).bind(state).bind(until);
        let lane: Option<Option<String>> =
            update.bind(failure.map(str::to_owned)).fetch_optional(&mut *transaction).await?;
        if let (Some(Some(lane)), "delivered" | "dead") = (lane, state) {
            next_in_lane(&mut transaction, destination, &lane).await?;
            let delete = sqlx::query(
                "DELETE FROM deliveries WHERE destination = $1 AND id = $2 AND state = 'delivered'",
            );
            delete.bind(destination.to_owned()).bind(id.to_string()).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Brings the gauges of waiting and dead messages up to date, if the queue can be read.
    pub async fn measure(&self) {
        let metrics = &self.metrics;
        let waiting = ["waiting", "blocked"];
        for (states, gauge) in
            [(waiting, &metrics.deliveries_waiting), (["dead"; 2], &metrics.deliveries_dead)]
        {
            let count = sqlx::query_scalar("SELECT COUNT(*) FROM deliveries WHERE state IN ($1, $2)");
            if let Ok(count) = count.bind(states[0]).bind(states[1]).fetch_one(&self.pool).await {
                gauge.set(count);
            }
        }
    }
}

/// Makes the next message of a lane due, if its message at the front is done.
async fn next_in_lane(db: &mut SqliteConnection, destination: &str, lane: &str) -> Result<(), sqlx::Error> {
    let update = sqlx::query(
        "UPDATE deliveries SET state = 'waiting' WHERE destination = $1 AND lane = $2 AND state = 'blocked'
            AND position = (SELECT MIN(position) FROM deliveries
                WHERE destination = $1 AND lane = $2 AND state IN ('waiting', 'blocked'))",
    );
    update.bind(destination.to_owned()).bind(lane.to_owned()).execute(db).await.map(drop)
}

fn waiting(select: &str, destination: &str) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(select);
    query.push(" FROM deliveries WHERE state = 'waiting' AND destination = ");
    query.push_bind(destination.to_owned());
    query
}

fn order(query: &mut QueryBuilder<Sqlite>, limit: usize) {
    query.push(" ORDER BY next_try, id LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
}

/// A message; none if the row is invalid, which is left for operators.
fn read(row: &SqliteRow, now: SystemTime) -> Result<Option<Delivery>, sqlx::Error> {
    let (id, created): (String, String) = (row.try_get("id")?, row.try_get("created")?);
    let attempts: i64 = row.try_get("attempts")?;
    let Ok(id) = DeliveryId::parse(&id) else { return Ok(None) };
    Ok(Some(Delivery {
        id,
        kind: row.try_get("kind")?,
        body: row.try_get("body")?,
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
        created: humantime::parse_rfc3339(&created).unwrap_or(now),
    }))
}

#[cfg(test)]
impl Deliveries {
    /// Queues a message by itself, and wakes the senders.
    pub(crate) async fn queue(&self, id: DeliveryId, destination: &str, body: &str, created: SystemTime) {
        let (destination, body) = (destination.into(), body.into());
        let delivery = NewDelivery { id, destination, kind: "test", body, created, lane: None };
        Self::add(&mut self.pool.acquire().await.unwrap(), delivery).await.unwrap();
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{ConnectOptions, Connection};

    use super::*;
    use crate::id::ReportId;

    use crate::store::fixture::{Fixture, at};
    use crate::store::reports::CARDS;
    use crate::store::sql::{Database, MIGRATOR};

    impl Fixture {
        async fn queue(&self, second: u64, destination: &'static str, body: &str) -> DeliveryId {
            let id = DeliveryId::from(ReportId::random());
            self.store.deliveries().queue(id, destination, body, at(second)).await;
            id
        }

        /// State, attempts, next attempt and last error of a message.
        async fn row(&self, id: DeliveryId) -> (String, i64, String, Option<String>) {
            let select =
                sqlx::query_as("SELECT state, attempts, next_try, last_error FROM deliveries WHERE id = $1");
            select.bind(id.to_string()).fetch_one(&mut self.beside().await).await.unwrap()
        }
    }

    #[tokio::test]
    async fn message_is_due_until_it_is_delivered() {
        let fixture = Fixture::open().await;
        let queue = fixture.store.deliveries();
        let [first, second] = [fixture.queue(0, "a", "1").await, fixture.queue(1, "a", "2").await];
        let due = async |seconds, except: &[DeliveryId]| -> Vec<String> {
            let due = queue.due("a", at(seconds), 10, except).await.unwrap();
            due.into_iter().map(|due| format!("{} {} {}", due.kind, due.body, due.attempts)).collect()
        };
        assert_eq!(due(0, &[]).await, ["test 1 0"]);
        assert_eq!(due(5, &[]).await, ["test 1 0", "test 2 0"]);
        assert_eq!(due(5, &[first]).await, ["test 2 0"]);
        assert_eq!(queue.next_due("a", &[first]).await.unwrap(), Some(at(1)));
        queue.measure().await;
        assert_eq!(fixture.metrics.deliveries_waiting.get(), 2);

        let postponed = DeliveryOutcome::Postponed { until: at(60) };
        queue.attempted("a", first, postponed, Some("busy")).await.unwrap();
        queue.attempted("a", second, DeliveryOutcome::Delivered, None).await.unwrap();
        assert_eq!(due(59, &[]).await, [""; 0]);
        assert_eq!(queue.next_due("a", &[]).await.unwrap(), Some(at(60)));
        assert_eq!(due(60, &[]).await, ["test 1 1"]);
        let busy = Some("busy".to_owned());
        let next_try = "2026-01-01T00:01:00.000Z".to_owned();
        assert_eq!(fixture.row(first).await, ("waiting".to_owned(), 1, next_try.clone(), busy.clone()));
        let body: String = sqlx::query_scalar("SELECT body FROM deliveries WHERE id = $1")
            .bind(second.to_string())
            .fetch_one(&mut fixture.beside().await)
            .await
            .unwrap();
        assert_eq!(body, "", "a delivered message is emptied");

        queue.attempted("a", first, DeliveryOutcome::Dead, Some("busy")).await.unwrap();
        assert_eq!(due(1_000_000, &[]).await, [""; 0]);
        assert_eq!(queue.next_due("a", &[]).await.unwrap(), None);
        assert_eq!(fixture.row(first).await, ("dead".to_owned(), 2, next_try, busy));
        queue.measure().await;
        let gauges = (fixture.metrics.deliveries_waiting.get(), fixture.metrics.deliveries_dead.get());
        assert_eq!(gauges, (0, 1));
    }

    #[tokio::test]
    async fn destinations_have_separate_queues() {
        let fixture = Fixture::open().await;
        let queue = fixture.store.deliveries();
        let id = fixture.queue(1, "a", "1").await;
        // The same message, for another destination.
        queue.queue(id, "b", "1", at(2)).await;
        queue.attempted("a", id, DeliveryOutcome::Dead, Some("refused")).await.unwrap();
        assert_eq!(queue.due("a", at(9), 10, &[]).await.unwrap(), []);
        let due = queue.due("b", at(9), 10, &[]).await.unwrap();
        assert_eq!(due.iter().map(|due| (due.id, due.attempts)).collect::<Vec<_>>(), [(id, 0)]);
        assert_eq!(queue.next_due("b", &[]).await.unwrap(), Some(at(2)));
        assert_eq!(queue.next_due("c", &[]).await.unwrap(), None);
    }

    /// A report that came while the clock was a year ahead had its card delivered a year later.
    #[tokio::test]
    async fn clock_that_was_ahead_delays_no_message() {
        let fixture = Fixture::open().await;
        let queue = fixture.store.deliveries();
        let year = 365 * 86_400;
        let early = fixture.queue(year, "a", "early").await;
        let due = queue.due("a", at(0), 10, &[]).await.unwrap();
        assert_eq!(due.iter().map(|due| due.id).collect::<Vec<_>>(), [early]);
        // As after every failure, but by the clock of now.
        let until = at(0) + LONGEST_WAIT;
        queue.attempted("a", early, DeliveryOutcome::Postponed { until }, Some("busy")).await.unwrap();
        assert_eq!(queue.due("a", at(0), 10, &[]).await.unwrap(), []);
        assert_eq!(queue.due("a", until, 10, &[]).await.unwrap().len(), 1);
        // Those whose time has come regularly are not delayed by it, nor it by those under way.
        let now = fixture.queue(0, "a", "now").await;
        let late = fixture.queue(year, "a", "late").await;
        let due = queue.due("a", at(0), 1, &[now]).await.unwrap();
        assert_eq!(due.iter().map(|due| due.id).collect::<Vec<_>>(), [late]);
    }

    /// A database of the release before destinations.
    #[tokio::test]
    async fn queued_cards_survive_the_upgrade() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r.db");
        std::fs::File::create(&path).unwrap();
        let mut old = Database::options(&path).connect().await.unwrap();
        MIGRATOR.run_to(4, &mut old).await.unwrap();
        let [waiting, delivered, dead] = [(); 3].map(|()| DeliveryId::from(ReportId::random()));
        let insert = format!(
            "INSERT INTO deliveries (report_id, card, state, attempts, created, next_try, last_error) VALUES
                ('{waiting}', '{{\"text\":\"1\"}}', 'waiting', 3, '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:09.000Z', 'busy'),
                ('{delivered}', '', 'delivered', 1, '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z', NULL),
                ('{dead}', '{{}}', 'dead', 91, '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z', 'refused')"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&mut old).await.unwrap();
        old.close().await.unwrap();

        let fixture = Fixture::open_in(directory).await;
        let queue = fixture.store.deliveries();
        assert_eq!(queue.next_due(CARDS, &[]).await.unwrap(), Some(at(9)));
        let (kind, body, created) = ("card".to_owned(), r#"{"text":"1"}"#.to_owned(), at(0));
        let due = Delivery { id: waiting, kind, body, attempts: 3, created };
        assert_eq!(queue.due(CARDS, at(9), 10, &[]).await.unwrap(), [due]);
        assert_eq!(fixture.row(waiting).await.3.as_deref(), Some("busy"));
        assert_eq!(fixture.row(delivered).await.0, "delivered");
        let (state, attempts, _, error) = fixture.row(dead).await;
        assert_eq!((&*state, attempts, error.as_deref()), ("dead", 91, Some("refused")));
    }
}
