//! Messages that were given up, for operators: listed, and replayed.

use std::time::SystemTime;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::deliveries::{Deliveries, DeliveriesError};
use super::sql::rfc3339;
use crate::id::DeliveryId;

/// A message that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its place in the list.
    pub place: i64,
    /// The message's id.
    pub id: DeliveryId,
    /// The destination.
    pub destination: String,
    /// The kind of the message.
    pub kind: String,
    /// The message.
    pub body: String,
    /// Number of attempts.
    pub attempts: i64,
    /// Time of queueing.
    pub created: String,
    /// Error of the last attempt.
    pub last_error: Option<String>,
}

/// The queue of one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// Messages that wait.
    pub waiting: i64,
    /// Messages that were given up.
    pub dead: i64,
    /// Error of the last attempt of a waiting message that failed.
    pub last_error: Option<String>,
}

impl Deliveries {
    /// The state of a destination's queue.
    ///
    /// # Errors
    /// [`DeliveriesError`].
    pub async fn queue_state(&self, destination: &str) -> Result<QueueState, DeliveriesError> {
        let select = sqlx::query_as(
            "SELECT COUNT(*) FILTER (WHERE state IN ('waiting', 'blocked')), COUNT(*) FILTER (WHERE state = 'dead'),
                MAX(CASE WHEN state = 'waiting' THEN last_error END)
             FROM deliveries WHERE destination = $1",
        );
        let row: (i64, i64, Option<String>) =
            select.bind(destination.to_owned()).fetch_one(self.pool()).await?;
        Ok(QueueState { waiting: row.0, dead: row.1, last_error: row.2 })
    }

    /// At most `most` messages that were given up, of one destination or of all webhooks, the newest first, before a
    /// place in that list.
    ///
    /// # Errors
    /// [`DeliveriesError`].
    pub async fn dead(
        &self,
        destination: Option<&str>,
        before: Option<i64>,
        most: u32,
    ) -> Result<Vec<DeadLetter>, DeliveriesError> {
        let select = sqlx::query(
            "SELECT rowid, id, destination, kind, body, attempts, created, last_error FROM deliveries
             WHERE state = 'dead' AND rowid < $2
                AND CASE WHEN $1 IS NULL THEN destination LIKE 'webhook:%' ELSE destination = $1 END
             ORDER BY rowid DESC LIMIT $3",
        );
        let select = select.bind(destination.map(str::to_owned)).bind(before.unwrap_or(i64::MAX));
        let rows = select.bind(i64::from(most)).fetch_all(self.pool()).await?;
        Ok(rows.iter().map(read).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// Makes messages of a destination that were given up due at `now`: one, or all. They are delivered beside the
    /// others, whose order has gone on without them. Returns their number.
    ///
    /// # Errors
    /// [`DeliveriesError`].
    pub async fn replay(
        &self,
        destination: &str,
        id: Option<DeliveryId>,
        now: SystemTime,
    ) -> Result<u64, DeliveriesError> {
        let update = sqlx::query(
            "UPDATE deliveries SET state = 'waiting', attempts = 0, created = $3, next_try = $3, lane = NULL
             WHERE destination = $1 AND state = 'dead' AND ($2 IS NULL OR id = $2)",
        );
        let update = update.bind(destination.to_owned()).bind(id.map(|id| id.to_string())).bind(rfc3339(now));
        let replayed = update.execute(self.pool()).await?.rows_affected();
        self.wake();
        Ok(replayed)
    }
}

/// A message; none if the row was edited by hand and is invalid.
fn read(row: &SqliteRow) -> Result<Option<DeadLetter>, sqlx::Error> {
    let id: String = row.try_get("id")?;
    let Ok(id) = DeliveryId::parse(&id) else { return Ok(None) };
    Ok(Some(DeadLetter {
        place: row.try_get("rowid")?,
        id,
        destination: row.try_get("destination")?,
        kind: row.try_get("kind")?,
        body: row.try_get("body")?,
        attempts: row.try_get("attempts")?,
        created: row.try_get("created")?,
        last_error: row.try_get("last_error")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ReportId;
    use crate::store::deliveries::DeliveryOutcome;
    use crate::store::fixture::{Fixture, at};

    #[tokio::test]
    async fn dead_letters_are_listed_and_replayed() {
        let fixture = Fixture::open().await;
        let queue = fixture.store.deliveries();
        let mut ids = Vec::new();
        for (destination, body) in
            [("webhook:a", "1"), ("webhook:a", "2"), ("webhook:b", "3"), ("feedback", "4")]
        {
            let id = DeliveryId::from(ReportId::random());
            queue.queue(id, destination, body, at(0)).await;
            queue.attempted(destination, id, DeliveryOutcome::Dead, Some("refused")).await.unwrap();
            ids.push(id);
        }
        let bodies = async |destination, before, most| -> Vec<String> {
            let dead = queue.dead(destination, before, most).await.unwrap();
            dead.into_iter().map(|dead| dead.body).collect()
        };
        assert_eq!(bodies(None, None, 10).await, ["3", "2", "1"], "without cards");
        assert_eq!(bodies(Some("webhook:a"), None, 1).await, ["2"]);
        let place = queue.dead(Some("webhook:a"), None, 1).await.unwrap()[0].place;
        assert_eq!(bodies(Some("webhook:a"), Some(place), 9).await, ["1"]);
        let state = queue.queue_state("webhook:a").await.unwrap();
        assert_eq!((state.waiting, state.dead), (0, 2));

        assert_eq!(queue.replay("webhook:a", Some(ids[2]), at(9)).await.unwrap(), 0, "another's");
        assert_eq!(queue.replay("webhook:a", Some(ids[0]), at(9)).await.unwrap(), 1);
        let due = queue.due("webhook:a", at(9), 9, &[]).await.unwrap();
        assert_eq!((due.len(), &*due[0].body, due[0].attempts, due[0].created), (1, "1", 0, at(9)));
        let state = queue.queue_state("webhook:a").await.unwrap();
        assert_eq!((state.waiting, state.dead, state.last_error.as_deref()), (1, 1, Some("refused")));
        assert_eq!(queue.replay("webhook:a", None, at(9)).await.unwrap(), 1, "all that are left");
    }
}
