//! The queue of cards that wait for the webhook.

use std::time::{Duration, SystemTime};

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Reports, ReportsError};
use crate::id::ReportId;
use crate::store::sql::rfc3339;

/// Time for which delivery of a card is retried, and so the longest delay of a retry.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// A card that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The report that it tells of.
    pub report: ReportId,
    /// The message, as JSON.
    pub card: String,
    /// Number of attempts.
    pub attempts: u32,
    /// Time of queueing.
    pub created: SystemTime,
}

/// The outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The webhook has it.
    Delivered,
    /// It is tried again.
    Postponed {
        /// Time of the next attempt.
        until: SystemTime,
    },
    /// It has been tried for too long; only operators see it now.
    Dead,
}

impl Reports {
    /// The cards to deliver at `now`, the longest waiting first, without those of `except`.
    ///
    /// A time that no card can be put off to was written by a clock that was ahead, and is not
    /// waited for.
    ///
    /// # Errors
    /// [`ReportsError`].
    pub async fn due(
        &self,
        now: SystemTime,
        most: usize,
        except: &[ReportId],
    ) -> Result<Vec<Due>, ReportsError> {
        let select = sqlx::query(
            "SELECT report_id, card, attempts, created FROM deliveries
             WHERE state = 'waiting' AND (next_try <= $1 OR next_try > $2)
             ORDER BY next_try, report_id LIMIT $3",
        );
        let limit = i64::try_from(most + except.len()).unwrap_or(i64::MAX);
        let select = select.bind(rfc3339(now)).bind(rfc3339(now + LONGEST_WAIT)).bind(limit);
        let rows = select.fetch_all(&self.pool).await?;
        let due = rows.iter().map(|row| read(row, now)).collect::<Result<Vec<_>, _>>()?;
        let due = due.into_iter().flatten().filter(|due| !except.contains(&due.report));
        Ok(due.take(most).collect())
    }

    /// The time at which the next card is due, without those of `except`.
    ///
    /// # Errors
    /// [`ReportsError`].
    pub async fn next_due(&self, except: &[ReportId]) -> Result<Option<SystemTime>, ReportsError> {
        let select = sqlx::query_as(
            "SELECT report_id, next_try FROM deliveries WHERE state = 'waiting'
             ORDER BY next_try, report_id LIMIT $1",
        );
        let limit = i64::try_from(except.len() + 1).unwrap_or(i64::MAX);
        let rows: Vec<(String, String)> = select.bind(limit).fetch_all(&self.pool).await?;
        let under_way = |id: &str| except.iter().any(|except| except.to_string() == id);
        let next = rows.into_iter().find(|(id, _)| !under_way(id));
        // A time that cannot be read is long past.
        Ok(next.map(|(_, time)| humantime::parse_rfc3339(&time).unwrap_or(SystemTime::UNIX_EPOCH)))
    }

    /// Waits until a card has been queued.
    pub async fn queued(&self) {
        self.queued.notified().await;
    }

    /// Records the outcome of an attempt, and the reason if it failed.
    ///
    /// # Errors
    /// [`ReportsError`].
    pub async fn attempted(
        &self,
        report: ReportId,
        outcome: DeliveryOutcome,
        failure: Option<&str>,
    ) -> Result<(), ReportsError> {
        let (state, until) = match outcome {
            DeliveryOutcome::Delivered => ("delivered", None),
            DeliveryOutcome::Postponed { until } => ("waiting", Some(rfc3339(until))),
            DeliveryOutcome::Dead => ("dead", None),
        };
        let update = sqlx::query(
            "UPDATE deliveries SET state = $2, attempts = attempts + 1, last_error = $4,
                next_try = COALESCE($3, next_try),
                card = CASE WHEN $2 = 'delivered' THEN '' ELSE card END
             WHERE report_id = $1",
        );
        let update = update.bind(report.to_string()).bind(state).bind(until);
        update.bind(failure.map(str::to_owned)).execute(&self.pool).await?;
        Ok(())
    }

    /// Brings the gauges of waiting and dead cards up to date, where the queue can be read.
    ///
    /// It is for the one task that delivers: two at a time could leave an older count.
    pub async fn measure_queue(&self) {
        let metrics = &self.metrics;
        for (state, gauge) in [("waiting", &metrics.deliveries_waiting), ("dead", &metrics.deliveries_dead)] {
            let count = sqlx::query_scalar("SELECT COUNT(*) FROM deliveries WHERE state = $1");
            if let Ok(count) = count.bind(state).fetch_one(&self.pool).await {
                gauge.set(count);
            }
        }
    }
}

/// A card, or none where the row makes no sense, which is left for operators.
fn read(row: &SqliteRow, now: SystemTime) -> Result<Option<Due>, sqlx::Error> {
    let (id, created): (String, String) = (row.try_get("report_id")?, row.try_get("created")?);
    let attempts: i64 = row.try_get("attempts")?;
    let Ok(report) = ReportId::parse(&id) else { return Ok(None) };
    Ok(Some(Due {
        report,
        card: row.try_get("card")?,
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
        created: humantime::parse_rfc3339(&created).unwrap_or(now),
    }))
}
