//! Removal of reports that are too old, and of the oldest if all take too many bytes.

use std::time::SystemTime;

use sqlx::SqliteConnection;

use super::{CARDS, Reports, ReportsError};
use crate::id::ReportId;
use crate::store::sql::rfc3339;

/// Reports that one transaction removes: megabytes each, and others wait for the lock.
const REPORTS: i64 = 50;

/// Counts that one transaction removes.
const COUNTS: i64 = 10_000;

impl Reports {
    /// Removes the reports and counts of before `oldest`, and the oldest reports over `most_bytes`.
    ///
    /// # Errors
    /// [`ReportsError`]; what was removed until then stays so.
    pub async fn expire(&self, oldest: SystemTime, most_bytes: usize) -> Result<(), ReportsError> {
        let oldest = rfc3339(oldest);
        loop {
            let delete = sqlx::query(
                "DELETE FROM reports WHERE id IN
                    (SELECT id FROM reports WHERE created < $1 ORDER BY created, id LIMIT $2)",
            );
            let delete = delete.bind(oldest.clone()).bind(REPORTS).execute(&self.pool).await?;
            self.count_removed("age", delete.rows_affected());
            if delete.rows_affected() == 0 {
                break;
            }
        }
        for delete in [
            r#"DELETE FROM "AnalyticsRefreshes" WHERE id IN
                (SELECT id FROM "AnalyticsRefreshes" WHERE created < $1 LIMIT $2)"#,
            r#"DELETE FROM "AnalyticsSimpleCallFeedback" WHERE id IN
                (SELECT id FROM "AnalyticsSimpleCallFeedback" WHERE created < $1 LIMIT $2)"#,
        ] {
            let delete = || sqlx::query(delete).bind(oldest.clone()).bind(COUNTS);
            while delete().execute(&self.pool).await?.rows_affected() > 0 {}
        }
        let mut transaction = self.begin().await?;
        let removed = make_room(&mut transaction, None, most_bytes).await?;
        transaction.commit().await?;
        self.count_removed("size", removed);
        // Waiting cards are still delivered; the others are useless without their report.
        let delete = sqlx::query(
            "DELETE FROM deliveries
             WHERE state <> 'waiting' AND destination = $1 AND id NOT IN (SELECT id FROM reports)",
        );
        delete.bind(CARDS).execute(&self.pool).await?;
        self.deliveries.measure().await;
        Ok(())
    }
}

impl Reports {
    /// Removes the rows of meetings that ended before `oldest`, unless feedback of them is still stored, and of those that
    /// nothing was heard of since: another node went on with them.
    ///
    /// # Errors
    /// [`ReportsError`]; what was removed until then stays so.
    pub async fn expire_meetings(&self, oldest: SystemTime) -> Result<(), ReportsError> {
        let oldest = rfc3339(oldest);
        loop {
            let delete = sqlx::query(
                r#"DELETE FROM "Meetings" WHERE id IN
                    (SELECT id FROM "Meetings" WHERE created < $1 AND (ended < $1 OR (ended IS NULL
                        AND modified < $1 AND id NOT IN (SELECT meeting_id FROM kept_rooms))) AND id NOT IN
                        (SELECT "meetingId" FROM "AnalyticsSimpleCallFeedback" WHERE "meetingId" IS NOT NULL)
                     ORDER BY created, id LIMIT $2)"#,
            );
            let delete = delete.bind(oldest.clone()).bind(COUNTS).execute(&self.pool).await?;
            if delete.rows_affected() == 0 {
                return Ok(());
            }
        }
    }
}

/// Removes the oldest reports, but never `newest`, until all take `most_bytes`; says how many.
pub(super) async fn make_room(
    db: &mut SqliteConnection,
    newest: Option<ReportId>,
    most_bytes: usize,
) -> Result<u64, sqlx::Error> {
    let select = sqlx::query_scalar("SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM reports");
    let bytes: i64 = select.fetch_one(&mut *db).await?;
    let mut excess = bytes - i64::try_from(most_bytes).unwrap_or(i64::MAX);
    let newest = newest.map(|id| id.to_string()).unwrap_or_default();
    let mut removed = 0;
    while excess > 0 {
        let select =
            sqlx::query_as("SELECT id, bytes FROM reports WHERE id <> $1 ORDER BY created, id LIMIT 1");
        let oldest: Option<(String, i64)> = select.bind(newest.clone()).fetch_optional(&mut *db).await?;
        let Some((id, bytes)) = oldest else { break };
        sqlx::query("DELETE FROM reports WHERE id = $1").bind(id).execute(&mut *db).await?;
        excess -= bytes;
        removed += 1;
    }
    Ok(removed)
}
