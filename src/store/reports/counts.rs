//! Counts of calls: refreshes of a room's page, and answers about a call's quality.

use std::time::SystemTime;

use uuid::Uuid;

use super::{Reports, ReportsError};
use crate::id::MeetingId;
use crate::store::sql::rfc3339;

/// The most days that are shown at once, each with its versions.
const DAYS: i64 = 1000;

/// The counts of one version on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedDay {
    /// The day in UTC, as `YYYY-MM-DD`.
    pub day: String,
    /// The server's version.
    pub version: String,
    /// The counts.
    pub counts: FeedbackCounts,
}

/// The counts themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedbackCounts {
    /// Pages of rooms that were loaded again.
    pub refreshes: i64,
    /// Answers that there were issues in a call.
    pub with_issues: i64,
    /// Answers that there were none.
    pub without_issues: i64,
}

impl Reports {
    /// Counts a refresh.
    ///
    /// # Errors
    /// [`ReportsError`].
    pub async fn refreshed(&self, version: &str, now: SystemTime) -> Result<(), ReportsError> {
        let insert = sqlx::query(
            r#"INSERT INTO "AnalyticsRefreshes" (id, created, modified, version) VALUES ($1, $2, $2, $3)"#,
        );
        let insert = insert.bind(Uuid::new_v4().to_string()).bind(rfc3339(now)).bind(version.to_owned());
        insert.execute(&self.pool).await?;
        Ok(())
    }

    /// Stores an answer about a call's quality; false if there is no row of its meeting.
    ///
    /// # Errors
    /// [`ReportsError`].
    pub async fn call_rated(
        &self,
        version: &str,
        meeting: MeetingId,
        experienced_issues: i64,
        now: SystemTime,
    ) -> Result<bool, ReportsError> {
        let insert = sqlx::query(
            r#"INSERT INTO "AnalyticsSimpleCallFeedback"
                (id, created, modified, version, "experiencedIssues", "meetingId")
               SELECT $1, $2, $2, $3, $4, id FROM "Meetings" WHERE id = $5"#,
        );
        let insert = insert.bind(Uuid::new_v4().to_string()).bind(rfc3339(now)).bind(version.to_owned());
        let insert = insert.bind(experienced_issues).bind(meeting.to_string());
        Ok(insert.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// The counts, by version and day, newest first.
    ///
    /// # Errors
    /// [`ReportsError`].
    pub async fn counts(&self) -> Result<Vec<CountedDay>, ReportsError> {
        let select = sqlx::query_as(
            r#"SELECT day, version, CAST(SUM(refreshes) AS BIGINT), CAST(SUM(issues) AS BIGINT),
                CAST(SUM(fine) AS BIGINT)
               FROM (
                SELECT SUBSTR(created, 1, 10) AS day, version, 1 AS refreshes, 0 AS issues, 0 AS fine
                FROM "AnalyticsRefreshes"
                UNION ALL
                SELECT SUBSTR(created, 1, 10), version, 0, "experiencedIssues", 1 - "experiencedIssues"
                FROM "AnalyticsSimpleCallFeedback"
               ) AS counted
               GROUP BY day, version ORDER BY day DESC, version LIMIT $1"#,
        );
        let rows: Vec<(String, String, i64, i64, i64)> = select.bind(DAYS).fetch_all(&self.pool).await?;
        let days = rows.into_iter().map(|(day, version, refreshes, with_issues, without_issues)| {
            CountedDay { day, version, counts: FeedbackCounts { refreshes, with_issues, without_issues } }
        });
        Ok(days.collect())
    }
}
