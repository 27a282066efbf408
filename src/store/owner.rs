//! Owner epochs, by which a process that has lost its rooms to a later one cannot write them any more.

use std::collections::HashMap;
use std::fmt;

use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Row};

use crate::id::MeetingId;
use crate::store::batch::{Changes, WriteBatch};
use crate::store::sql::ROWS;

/// Number of an ownership of rooms. A later owner has a higher one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnerEpoch(i64);

impl OwnerEpoch {
    /// The value of the database's column.
    pub(super) fn column(self) -> i64 {
        self.0
    }
}

impl fmt::Display for OwnerEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A write or load of a room that a later owner has taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("meeting {meeting} belongs to owner epoch {owner}, not to {epoch}")]
pub struct FencedWrite {
    /// The meeting.
    pub meeting: MeetingId,
    /// The epoch of the refused write.
    pub epoch: OwnerEpoch,
    /// The epoch of the owner.
    pub owner: OwnerEpoch,
}

impl FencedWrite {
    /// Compares the epoch of a write to the owner's.
    ///
    /// # Errors
    /// [`FencedWrite`] if the owner's is later.
    pub(super) fn check(meeting: MeetingId, epoch: OwnerEpoch, owner: OwnerEpoch) -> Result<(), Self> {
        if epoch < owner { Err(Self { meeting, epoch, owner }) } else { Ok(()) }
    }
}

/// Takes the next epoch.
pub(super) async fn next_epoch(db: &mut SqliteConnection) -> Result<OwnerEpoch, sqlx::Error> {
    let update = sqlx::query_scalar("UPDATE owner_epoch SET epoch = epoch + 1 RETURNING epoch");
    update.fetch_one(db).await.map(OwnerEpoch)
}

/// Makes `epoch` the owner of all rooms.
pub(super) async fn claim_all(db: &mut SqliteConnection, epoch: OwnerEpoch) -> Result<(), sqlx::Error> {
    let update = sqlx::query("UPDATE kept_rooms SET epoch = $1 WHERE epoch < $1");
    update.bind(epoch.0).execute(db).await.map(drop)
}

/// Makes `epoch` the owner of a meeting's room, unless a later owner has it.
pub(super) async fn claim(
    db: &mut SqliteConnection,
    meeting: MeetingId,
    epoch: OwnerEpoch,
) -> Result<Result<(), FencedWrite>, sqlx::Error> {
    let select = sqlx::query_scalar("SELECT epoch FROM kept_rooms WHERE meeting_id = $1");
    let owner = OwnerEpoch(select.bind(meeting.to_string()).fetch_one(&mut *db).await?);
    if let Err(fenced) = FencedWrite::check(meeting, epoch, owner) {
        return Ok(Err(fenced));
    }
    let update = sqlx::query("UPDATE kept_rooms SET epoch = $1 WHERE meeting_id = $2");
    update.bind(epoch.0).bind(meeting.to_string()).execute(db).await?;
    Ok(Ok(()))
}

/// The changes of a batch that an older owner made.
///
/// A meeting without a row belongs to the latest epoch, so that an older owner does not bring back what a later
/// one has ended.
pub(super) async fn fenced(
    db: &mut SqliteConnection,
    batch: &WriteBatch,
) -> Result<Vec<FencedWrite>, sqlx::Error> {
    let latest = sqlx::query_scalar("SELECT epoch FROM owner_epoch");
    let latest = OwnerEpoch(latest.fetch_one(&mut *db).await?);
    let mut owners = HashMap::new();
    let meetings: Vec<_> = batch.meetings.keys().map(ToString::to_string).collect();
    for meetings in meetings.chunks(ROWS) {
        let mut select = QueryBuilder::new("SELECT meeting_id, epoch FROM kept_rooms WHERE meeting_id IN (");
        let mut ids = select.separated(", ");
        for meeting in meetings {
            ids.push_bind(meeting);
        }
        select.push(")");
        let rows = select.build().persistent(meetings.len() == ROWS).fetch_all(&mut *db).await?;
        for row in rows {
            owners.insert(row.try_get::<String, _>("meeting_id")?, OwnerEpoch(row.try_get("epoch")?));
        }
    }
    let check = |(meeting, changes): (&MeetingId, &Changes)| {
        let owner = owners.get(&meeting.to_string()).copied().unwrap_or(latest);
        FencedWrite::check(*meeting, changes.epoch, owner).err()
    };
    Ok(batch.meetings.iter().filter_map(check).collect())
}
