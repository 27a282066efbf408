//! Lists of reports and meetings for operators: newest first, page by page.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, QueryBuilder, Row, Sqlite};
use uuid::Uuid;

use super::{CARDS, ReportKind, Reports, ReportsError};
use crate::id::{ReportId, RoomName};

/// A position in a list: after the row of that time and id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    created: String,
    id: String,
}

/// A text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCursor;

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (created, id) = text.split_once('_').ok_or(InvalidCursor)?;
        humantime::parse_rfc3339(created).map_err(|_| InvalidCursor)?;
        let id = Uuid::try_parse(id).map_err(|_| InvalidCursor)?.to_string();
        Ok(Self { created: created.to_owned(), id })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}", self.created, self.id)
    }
}

/// A filter on reports.
#[derive(Clone, Debug, Default)]
pub struct ReportFilter {
    /// Only those of this kind.
    pub kind: Option<ReportKind>,
    /// Only those of this room.
    pub room: Option<RoomName>,
}

/// A report as a list shows it.
#[derive(Clone, Debug)]
pub struct ReportLine {
    /// Its id.
    pub id: String,
    /// Its kind's name.
    pub kind: String,
    /// Time of receipt.
    pub created: String,
    /// The room, where it is known.
    pub room: Option<String>,
    /// The meeting, where it is known.
    pub meeting: Option<String>,
    /// The authenticated id of the reporter.
    pub identity: String,
    /// The authenticated name.
    pub name: String,
    /// The text typed into the form.
    pub description: String,
    /// Number of history entries that were left out.
    pub cut_entries: i64,
    /// The bytes that it takes.
    pub bytes: i64,
    /// The delivery state of its card, if it has one.
    pub delivery: Option<DeliveryView>,
}

/// The delivery state of a card.
#[derive(Clone, Debug)]
pub struct DeliveryView {
    /// `waiting`, `delivered` or `dead`.
    pub state: String,
    /// Number of attempts.
    pub attempts: i64,
    /// Time of the next attempt, if it waits.
    pub next_try: Option<String>,
    /// Error of the last attempt.
    pub last_error: Option<String>,
}

/// A whole report.
#[derive(Clone, Debug)]
pub struct ReportView {
    /// The fields shown in lists.
    pub line: ReportLine,
    /// The browser.
    pub user_agent: String,
    /// The page.
    pub url: String,
    /// The history, or all of a dead track's report, as JSON.
    pub json: String,
}

/// A meeting as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, Serialize, Deserialize)]
pub struct MeetingLine {
    /// Its id.
    pub id: String,
    /// Start time.
    pub created: String,
    /// End time, if it has ended.
    pub ended: Option<String>,
    /// The most members that it had.
    #[sqlx(rename = "userCount")]
    pub peak_members: i64,
}

impl ReportLine {
    /// The position after this line.
    pub fn cursor(&self) -> Cursor {
        Cursor { created: self.created.clone(), id: self.id.clone() }
    }
}

impl MeetingLine {
    /// The position after this line.
    pub fn cursor(&self) -> Cursor {
        Cursor { created: self.created.clone(), id: self.id.clone() }
    }
}

const COLUMNS: &str =
    "SELECT reports.id, reports.kind, reports.created, room, meeting_id, identity_id, name, description, user_agent,
        url, cut_entries, bytes, state, attempts, next_try, last_error
     FROM reports LEFT JOIN deliveries ON deliveries.destination = ";

/// The query for reports and the delivery state of their cards, to which conditions are added.
fn select() -> QueryBuilder<Sqlite> {
    let mut select = QueryBuilder::new(COLUMNS);
    select.push_bind(CARDS).push(" AND deliveries.id = reports.id WHERE 1 = 1");
    select
}

impl Reports {
    /// At most `most` reports that pass the filter, newest first, from a position on.
    ///
    /// # Errors
    /// [`ReportsError`].
    pub async fn list(
        &self,
        filter: &ReportFilter,
        from: Option<&Cursor>,
        most: u32,
    ) -> Result<Vec<ReportLine>, ReportsError> {
        let mut select = select();
        if let Some(kind) = filter.kind {
            select.push(" AND reports.kind = ").push_bind(kind.as_str());
        }
        if let Some(room) = &filter.room {
            select.push(" AND room = ").push_bind(room.to_string());
        }
        if let Some(Cursor { created, id }) = from {
            select.push(" AND (reports.created < ").push_bind(created.clone());
            select.push(" OR (reports.created = ").push_bind(created.clone());
            select.push(" AND reports.id < ").push_bind(id.clone()).push("))");
        }
        select.push(" ORDER BY reports.created DESC, reports.id DESC LIMIT ").push_bind(i64::from(most));
        let rows = select.build().fetch_all(&self.pool).await?;
        Ok(rows.iter().map(line).collect::<Result<_, _>>()?)
    }

    /// A whole report, if it is there.
    ///
    /// # Errors
    /// [`ReportsError`].
    pub async fn look_up(&self, id: ReportId) -> Result<Option<ReportView>, ReportsError> {
        let mut select = select();
        select.push(" AND reports.id = ").push_bind(id.to_string());
        let Some(row) = select.build().fetch_optional(&self.pool).await? else { return Ok(None) };
        // A report that was removed between the two questions has no JSON any more.
        let Some(json) = self.json(id).await? else { return Ok(None) };
        let view = ReportView {
            line: line(&row)?,
            user_agent: row.try_get("user_agent")?,
            url: row.try_get("url")?,
            json,
        };
        Ok(Some(view))
    }

    /// At most `most` meetings, newest first, from a position on.
    ///
    /// # Errors
    /// [`ReportsError`].
    pub async fn meetings(&self, from: Option<&Cursor>, most: u32) -> Result<Vec<MeetingLine>, ReportsError> {
        let mut select = QueryBuilder::new(
            r#"SELECT id, created, ended, CAST("userCount" AS BIGINT) AS "userCount" FROM "Meetings""#,
        );
        if let Some(Cursor { created, id }) = from {
            select.push(" WHERE created < ").push_bind(created.clone());
            select.push(" OR (created = ").push_bind(created.clone());
            select.push(" AND id < ").push_bind(id.clone()).push(")");
        }
        select.push(" ORDER BY created DESC, id DESC LIMIT ").push_bind(i64::from(most));
        Ok(select.build_query_as().fetch_all(&self.pool).await?)
    }
}

fn line(row: &SqliteRow) -> Result<ReportLine, sqlx::Error> {
    let state: Option<String> = row.try_get("state")?;
    let delivery = match state {
        None => None,
        Some(state) => {
            let next_try: Option<String> = row.try_get("next_try")?;
            Some(DeliveryView {
                next_try: next_try.filter(|_| state == "waiting"),
                state,
                attempts: row.try_get("attempts")?,
                last_error: row.try_get("last_error")?,
            })
        }
    };
    Ok(ReportLine {
        id: row.try_get("id")?,
        kind: row.try_get("kind")?,
        created: row.try_get("created")?,
        room: row.try_get("room")?,
        meeting: row.try_get("meeting_id")?,
        identity: row.try_get("identity_id")?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        cut_entries: row.try_get("cut_entries")?,
        bytes: row.try_get("bytes")?,
        delivery,
    })
}
