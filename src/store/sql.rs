//! The SQL that writes and loads the stored state.
//!
//! The SQL also runs on PostgreSQL; what is SQLite's alone stands in [`Database::options`],
//! [`Database::open`] and [`Database::close`].

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, QueryBuilder};

use crate::id::{MeetingId, RoomName};
use crate::store::batch::{Life, MeetingRow, WriteBatch};
use crate::store::chat;
use crate::store::ended;
use crate::store::load::load;
use crate::store::owner::{self, FencedWrite, OwnerEpoch};
use crate::store::saved::SavedRoom;

pub(super) static MIGRATOR: Migrator = sqlx::migrate!("src/store/migrations");

/// Rows written by one statement; full statements are prepared once.
pub(super) const ROWS: usize = 64;

/// Pages that the write-ahead log holds before a checkpoint into the file: 16 MB. A checkpoint waits
/// for the disk and writes every changed page again, which a busy server would do three times a
/// second with SQLite's default of a quarter of this.
const FOLDED_PAGES: &str = "4000";

/// Number of quarantined rooms to store after a panic, to find its cause.
const MAX_QUARANTINED: i64 = 100;

/// An error of opening the store, or of writing everything.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is there, but is no database that can be read.
    #[error(
        "the database {} is damaged or is no database ({source}); restore it from a backup, or \
         move it away to start with an empty one",
        path.display()
    )]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// The database's error.
        source: sqlx::Error,
    },
    /// The database cannot be opened or read.
    #[error("the database {} cannot be opened ({source})", path.display())]
    Open {
        /// The database file.
        path: PathBuf,
        /// The database's error.
        source: sqlx::Error,
    },
    /// The tables are not those of this version, and cannot be made so.
    #[error(
        "the database {} cannot be brought to this version's tables ({source})",
        path.display()
    )]
    Migrate {
        /// The database file.
        path: PathBuf,
        /// The migration's error.
        source: sqlx::migrate::MigrateError,
    },
    /// The deadline passed before everything was written.
    #[error("{changes} changes could not be written in time ({why})")]
    Unwritten {
        /// Number of lost changes.
        changes: usize,
        /// The database's last error.
        why: String,
    },
    /// A later owner has taken the room over.
    #[error(transparent)]
    Fenced(#[from] FencedWrite),
    /// The store's task is gone.
    #[error("the store has stopped")]
    Stopped,
}

/// The only connection that writes.
pub(super) struct Database {
    options: SqliteConnectOptions,
    /// None after a failed write: the next try opens the file anew, whatever became of it.
    connection: Option<SqliteConnection>,
}

impl Database {
    /// Options for opening the file, which must exist.
    pub(super) fn options(database: &Path) -> SqliteConnectOptions {
        // In WAL mode, NORMAL loses the last writes when the power fails, but never corrupts.
        SqliteConnectOptions::new()
            .filename(database)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .pragma("wal_autocheckpoint", FOLDED_PAGES)
            .foreign_keys(true)
            .disable_statement_logging()
    }

    /// Connects, migrates, takes the next owner epoch, and loads all rooms for it; `now` is when meetings that
    /// cannot go on are ended.
    pub(super) async fn open(
        options: SqliteConnectOptions,
        now: SystemTime,
    ) -> Result<(Self, OwnerEpoch, Vec<SavedRoom>), StoreError> {
        let path = options.get_filename().to_owned();
        let wrong = |error| StoreError::opening(&path, error);
        let mut connection = options.connect().await.map_err(wrong)?;
        MIGRATOR.run(&mut connection).await.map_err(|error| StoreError::migrating(&path, error))?;
        let (epoch, rooms) = load_all(&mut connection, now).await.map_err(wrong)?;
        Ok((Self { options, connection: Some(connection) }, epoch, rooms))
    }

    /// Loads a room for its owner, if it is stored.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if a later owner has it; [`StoreError::Open`] or [`StoreError::Damaged`].
    pub(super) async fn load(
        &mut self,
        room: &RoomName,
        epoch: OwnerEpoch,
        now: SystemTime,
    ) -> Result<Option<SavedRoom>, StoreError> {
        let path = self.options.get_filename().to_owned();
        let mut connection = self.connect().await.map_err(|error| StoreError::opening(&path, error))?;
        let loaded = load_one(&mut connection, room, epoch, now).await;
        let loaded = loaded.map_err(|error| StoreError::opening(&path, error))?;
        self.connection = Some(connection);
        Ok(loaded?)
    }

    async fn connect(&mut self) -> Result<SqliteConnection, sqlx::Error> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.options.connect().await,
        }
    }

    /// Writes a batch, without the changes of older owners, which are returned. A batch that failed may be half
    /// written, and is written again whole.
    pub(super) async fn write(&mut self, batch: &WriteBatch) -> Result<Vec<FencedWrite>, sqlx::Error> {
        let mut connection = self.connect().await?;
        // SQLite waits only for a lock taken at the beginning; for one taken later it gives up.
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let mut fenced = owner::fenced(&mut transaction, batch).await?;
        let batch = without(batch, &fenced);
        write_meetings(&mut transaction, &batch).await?;
        write_members(&mut transaction, &batch).await?;
        write_departed(&mut transaction, &batch).await?;
        chat::write(&mut transaction, &batch).await?;
        ended::write(&mut transaction, &batch).await?;
        transaction.commit().await?;
        if !batch.has_bulk() {
            self.connection = Some(connection);
            return Ok(fenced);
        }
        // Apart from the rest: what many members have not confirmed can be more than a shutdown's
        // time allows, and must not lose the members of other rooms.
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        // Another owner may have come between the transactions.
        let late = owner::fenced(&mut transaction, &batch).await?;
        let batch = without(&batch, &late);
        fenced.extend(late);
        write_unconfirmed(&mut transaction, &batch).await?;
        for (meeting, _, row) in batch.stored().filter(|(_, _, row)| row.life == Life::Quarantined) {
            quarantine(&mut transaction, meeting, row).await?;
        }
        transaction.commit().await?;
        self.connection = Some(connection);
        Ok(fenced)
    }

    /// Checkpoints the write-ahead log into the file, so that the file alone is a backup, and closes it.
    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        let Some(mut connection) = self.connection else { return Ok(()) };
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await?;
        connection.close().await
    }
}

async fn load_all(
    db: &mut SqliteConnection,
    now: SystemTime,
) -> Result<(OwnerEpoch, Vec<SavedRoom>), sqlx::Error> {
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    let epoch = owner::next_epoch(&mut transaction).await?;
    let rooms = load(&mut transaction, None, now).await?;
    owner::claim_all(&mut transaction, epoch).await?;
    transaction.commit().await?;
    Ok((epoch, rooms))
}

async fn load_one(
    db: &mut SqliteConnection,
    name: &RoomName,
    epoch: OwnerEpoch,
    now: SystemTime,
) -> Result<Result<Option<SavedRoom>, FencedWrite>, sqlx::Error> {
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    let room = load(&mut transaction, Some(name), now).await?.pop();
    if let Some(room) = &room
        && let Err(fenced) = owner::claim(&mut transaction, room.meeting, epoch).await?
    {
        return Ok(Err(fenced));
    }
    transaction.commit().await?;
    Ok(Ok(room))
}

/// The batch without the changes that are fenced.
fn without<'a>(batch: &'a WriteBatch, fenced: &[FencedWrite]) -> Cow<'a, WriteBatch> {
    if fenced.is_empty() {
        return Cow::Borrowed(batch);
    }
    let mut batch = batch.clone();
    batch.meetings.retain(|meeting, _| fenced.iter().all(|fenced| fenced.meeting != *meeting));
    Cow::Owned(batch)
}

async fn write_meetings(db: &mut SqliteConnection, batch: &WriteBatch) -> Result<(), sqlx::Error> {
    for (meeting, _) in batch.meetings.iter().filter(|(_, changes)| changes.clears) {
        forget(db, &meeting.to_string()).await?;
    }
    let rows: Vec<_> = batch.meetings.iter().filter(|(_, changes)| changes.row.is_some()).collect();
    for rows in rows.chunks(ROWS) {
        let mut insert =
            QueryBuilder::new(r#"INSERT INTO "Meetings" (id, created, modified, "userCount", ended) "#);
        insert.push_values(rows, |mut values, (meeting, changes)| {
            let Some(row) = &changes.row else { return };
            values.push_bind(meeting.to_string());
            values.push_bind(rfc3339(row.first)).push_bind(rfc3339(row.last));
            values.push_bind(i64::try_from(row.peak).unwrap_or(i64::MAX));
            values.push_bind(row.life.is_over().then(|| rfc3339(row.last)));
        });
        // A row that says all this already stays untouched: most changes are a user's alone.
        insert.push(
            r#" ON CONFLICT (id) DO UPDATE SET modified = excluded.modified, ended = excluded.ended,
                "userCount" = CASE WHEN excluded."userCount" > "Meetings"."userCount"
                    THEN excluded."userCount" ELSE "Meetings"."userCount" END
                WHERE excluded."userCount" > "Meetings"."userCount"
                    OR excluded.ended IS DISTINCT FROM "Meetings".ended"#,
        );
        insert.build().persistent(rows.len() == ROWS).execute(&mut *db).await?;
    }
    let stored: Vec<_> = batch.stored().collect();
    for rows in stored.chunks(ROWS) {
        let mut insert = QueryBuilder::new("INSERT INTO kept_rooms (meeting_id, room, epoch) ");
        insert.push_values(rows, |mut values, (meeting, changes, row)| {
            values.push_bind(meeting.to_string()).push_bind(row.room.as_str().to_owned());
            values.push_bind(changes.epoch.column());
        });
        insert.push(
            " ON CONFLICT (meeting_id) DO UPDATE SET epoch = excluded.epoch
                WHERE kept_rooms.epoch < excluded.epoch",
        );
        insert.build().persistent(rows.len() == ROWS).execute(&mut *db).await?;
    }
    for (meeting, changes) in &batch.meetings {
        if let Some(ai) = &changes.ai {
            let update = sqlx::query("UPDATE kept_rooms SET ai = $1 WHERE meeting_id = $2");
            update.bind(Arc::clone(ai)).bind(meeting.to_string()).execute(&mut *db).await?;
        }
        if let Some(watch) = &changes.watch {
            let update = sqlx::query("UPDATE kept_rooms SET watch = $1 WHERE meeting_id = $2");
            update.bind(Arc::clone(watch)).bind(meeting.to_string()).execute(&mut *db).await?;
        }
        if let Some(place) = &changes.journal {
            let update = sqlx::query("UPDATE kept_rooms SET journal = $1 WHERE meeting_id = $2");
            update.bind(place.to_string()).bind(meeting.to_string()).execute(&mut *db).await?;
        }
        if let Some(rules) = &changes.moderation {
            let update = sqlx::query("UPDATE kept_rooms SET moderation = $1 WHERE meeting_id = $2");
            update.bind(Arc::clone(rules)).bind(meeting.to_string()).execute(&mut *db).await?;
        }
    }
    Ok(())
}

async fn write_members(db: &mut SqliteConnection, batch: &WriteBatch) -> Result<(), sqlx::Error> {
    for (meeting, changes) in &batch.meetings {
        for (user, _) in changes.members.iter().filter(|(_, member)| member.is_none()) {
            for delete in [
                "DELETE FROM kept_seats WHERE meeting_id = $1 AND user_id = $2",
                "DELETE FROM kept_events WHERE meeting_id = $1 AND user_id = $2",
            ] {
                let delete = sqlx::query(delete).bind(meeting.to_string());
                delete.bind(user.to_string()).execute(&mut *db).await?;
            }
        }
    }
    let members: Vec<_> = batch
        .stored()
        .flat_map(|(meeting, changes, _)| changes.members.values().flatten().map(move |s| (meeting, s)))
        .collect();
    for members in members.chunks(ROWS) {
        let mut insert =
            QueryBuilder::new("INSERT INTO kept_seats (meeting_id, user_id, identity_id, json, arrival) ");
        insert.push_values(members, |mut values, (meeting, member)| {
            values.push_bind(meeting.to_string()).push_bind(member.user.to_string());
            values.push_bind(member.identity.to_string()).push_bind(Arc::clone(&member.json));
            values.push_bind(member.arrival);
        });
        insert.push(
            " ON CONFLICT (meeting_id, user_id) DO UPDATE
                SET identity_id = excluded.identity_id, json = excluded.json, arrival = excluded.arrival",
        );
        insert.build().persistent(members.len() == ROWS).execute(&mut *db).await?;
    }
    Ok(())
}

async fn write_departed(db: &mut SqliteConnection, batch: &WriteBatch) -> Result<(), sqlx::Error> {
    for (meeting, changes) in &batch.meetings {
        for (user, _) in changes.departed.iter().filter(|(_, identity)| identity.is_none()) {
            let delete = sqlx::query("DELETE FROM kept_departed WHERE meeting_id = $1 AND user_id = $2");
            delete.bind(meeting.to_string()).bind(user.to_string()).execute(&mut *db).await?;
        }
    }
    let departed: Vec<_> = batch
        .stored()
        .flat_map(|(meeting, changes, _)| {
            let known =
                changes.departed.iter().filter_map(|(user, identity)| Some((user, identity.as_ref()?)));
            known.map(move |(user, identity)| (meeting, user, identity))
        })
        .collect();
    for departed in departed.chunks(ROWS) {
        let mut insert = QueryBuilder::new("INSERT INTO kept_departed (meeting_id, user_id, identity_id) ");
        insert.push_values(departed, |mut values, (meeting, user, identity)| {
            values.push_bind(meeting.to_string()).push_bind(user.to_string()).push_bind(identity.to_string());
        });
        insert.push(" ON CONFLICT (meeting_id, user_id) DO UPDATE SET identity_id = excluded.identity_id");
        insert.build().persistent(departed.len() == ROWS).execute(&mut *db).await?;
    }
    Ok(())
}

async fn write_unconfirmed(db: &mut SqliteConnection, batch: &WriteBatch) -> Result<(), sqlx::Error> {
    for (meeting, changes) in &batch.meetings {
        let Some(events) = &changes.unconfirmed else { continue };
        let meeting = meeting.to_string();
        let delete = sqlx::query("DELETE FROM kept_events WHERE meeting_id = $1");
        delete.bind(meeting.clone()).execute(&mut *db).await?;
        let room = sqlx::query("SELECT 1 FROM kept_rooms WHERE meeting_id = $1");
        if room.bind(meeting.clone()).fetch_optional(&mut *db).await?.is_none() {
            continue;
        }
        let events: Vec<_> = (0_i64..).zip(events).collect();
        for events in events.chunks(ROWS) {
            let mut insert =
                QueryBuilder::new("INSERT INTO kept_events (meeting_id, position, user_id, json) ");
            insert.push_values(events, |mut values, (position, (user, json))| {
                values.push_bind(meeting.clone()).push_bind(*position);
                values.push_bind(user.to_string()).push_bind(Arc::clone(json));
            });
            insert.build().persistent(events.len() == ROWS).execute(&mut *db).await?;
        }
    }
    Ok(())
}

async fn quarantine(
    db: &mut SqliteConnection,
    meeting: MeetingId,
    row: &MeetingRow,
) -> Result<(), sqlx::Error> {
    let id = meeting.to_string();
    let select = sqlx::query_scalar("SELECT ai FROM kept_rooms WHERE meeting_id = $1");
    let ai: Option<String> = select.bind(id.clone()).fetch_one(&mut *db).await?;
    let select = sqlx::query_as(
        "SELECT user_id, identity_id, json FROM kept_seats WHERE meeting_id = $1 ORDER BY user_id",
    );
    let seats: Vec<(String, String, String)> = select.bind(id.clone()).fetch_all(&mut *db).await?;
    let select =
        sqlx::query_as("SELECT user_id, json FROM kept_events WHERE meeting_id = $1 ORDER BY position");
    let waiting: Vec<(String, String)> = select.bind(id.clone()).fetch_all(&mut *db).await?;
    let json = serde_json::json!({ "ai": ai, "seats": seats, "waiting": waiting }).to_string();
    let insert = sqlx::query(
        "INSERT INTO set_aside (meeting_id, room, set_aside_at, json) VALUES ($1, $2, $3, $4)
         ON CONFLICT (meeting_id) DO NOTHING",
    );
    let insert = insert.bind(id.clone()).bind(row.room.to_string());
    insert.bind(rfc3339(row.last)).bind(json).execute(&mut *db).await?;
    let delete = sqlx::query(
        "DELETE FROM set_aside WHERE meeting_id NOT IN
            (SELECT meeting_id FROM set_aside ORDER BY set_aside_at DESC, meeting_id LIMIT $1)",
    );
    delete.bind(MAX_QUARANTINED).execute(&mut *db).await?;
    forget(db, &id).await
}

/// Deletes a meeting's stored rows, its members and events included.
pub(super) async fn forget(db: &mut SqliteConnection, meeting: &str) -> Result<(), sqlx::Error> {
    let delete = sqlx::query("DELETE FROM kept_rooms WHERE meeting_id = $1");
    delete.bind(meeting.to_owned()).execute(db).await.map(drop)
}

impl StoreError {
    pub(super) fn opening(path: &Path, source: sqlx::Error) -> Self {
        let path = path.to_owned();
        // The primary code is the low byte: 11 is SQLITE_CORRUPT, 26 is SQLITE_NOTADB.
        let code = source.as_database_error().and_then(|e| e.code()?.parse::<u32>().ok());
        match code.map(|code| code & 0xff) {
            Some(11 | 26) => Self::Damaged { path, source },
            _ => Self::Open { path, source },
        }
    }

    pub(super) fn migrating(path: &Path, error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
                Self::opening(path, source)
            }
            source => Self::Migrate { path: path.to_owned(), source },
        }
    }
}

/// The time as text, clamped to the years 1970 to 9999 in case the clock is wrong.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let last = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_millis(time.clamp(UNIX_EPOCH, last)).to_string()
}
