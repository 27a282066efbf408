//! The ids of those whose meeting was ended for all, so that a restart does not let their clients back in.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::QueryBuilder;
use sqlx::sqlite::{SqliteConnection, SqlitePool};

use super::batch::WriteBatch;
use super::sql::ROWS;
use crate::id::{RoomName, UserId};

/// Time for which the ids of an ended meeting are remembered. Whoever means to come back loads the page again, and has
/// another id.
pub const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// A meeting that was ended for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedMeeting {
    /// Its room.
    pub room: RoomName,
    /// The time of its end.
    pub at: SystemTime,
    /// Its members.
    pub users: Vec<UserId>,
}

/// The ids cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("those whose meetings were ended cannot be read ({0})")]
pub struct EndedError(#[from] sqlx::Error);

/// The stored ids; a cheap clone.
#[derive(Clone, Debug)]
pub struct StoredEnded {
    pool: SqlitePool,
}

impl StoredEnded {
    /// Those in the database of `pool`.
    pub(super) fn new(pool: SqlitePool) -> Self {
        Self { pool }
    }

    /// The last meeting of each room that was ended no longer than [`REMEMBERED`] before `now`, the oldest first. A row
    /// that was edited by hand and is invalid is left out.
    ///
    /// # Errors
    /// [`EndedError`].
    pub async fn recent(&self, now: SystemTime) -> Result<Vec<EndedMeeting>, EndedError> {
        let select = "SELECT room, user_id, ended FROM ended_members WHERE ended > $1 ORDER BY room, user_id";
        let rows: Vec<(String, String, i64)> =
            sqlx::query_as(select).bind(oldest(now)).fetch_all(&self.pool).await?;
        let mut rooms: BTreeMap<RoomName, (i64, Vec<UserId>)> = BTreeMap::new();
        for (room, user, ended) in rows {
            let (Ok(room), Ok(user)) = (RoomName::parse(&room), UserId::parse(&user)) else { continue };
            let (last, users) = rooms.entry(room).or_default();
            *last = ended.max(*last);
            users.push(user);
        }
        let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let meetings =
            rooms.into_iter().map(|(room, (at, users))| EndedMeeting { room, at: time(at), users });
        let mut meetings: Vec<_> = meetings.collect();
        meetings.sort_by_key(|meeting| meeting.at);
        Ok(meetings)
    }
}

/// Writes the ids of a batch, each room's in place of older ones.
pub(super) async fn write(db: &mut SqliteConnection, batch: &WriteBatch) -> Result<(), sqlx::Error> {
    let mut last = None;
    for meeting in batch.meetings.values().filter_map(|changes| changes.ended_for.as_ref()) {
        last = last.max(Some(meeting.at));
        let delete = sqlx::query("DELETE FROM ended_members WHERE room = $1");
        delete.bind(meeting.room.as_str().to_owned()).execute(&mut *db).await?;
        for users in meeting.users.chunks(ROWS) {
            let mut insert = QueryBuilder::new("INSERT INTO ended_members (room, user_id, ended) ");
            insert.push_values(users, |mut values, user| {
                values.push_bind(meeting.room.as_str().to_owned()).push_bind(user.to_string());
                values.push_bind(seconds(meeting.at));
            });
            insert.build().persistent(users.len() == ROWS).execute(&mut *db).await?;
        }
    }
    if let Some(last) = last {
        let delete = sqlx::query("DELETE FROM ended_members WHERE ended <= $1");
        delete.bind(oldest(last)).execute(&mut *db).await?;
    }
    Ok(())
}

/// The second until which meetings are forgotten.
fn oldest(now: SystemTime) -> i64 {
    seconds(now).saturating_sub_unsigned(REMEMBERED.as_secs())
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;
    use crate::id::MeetingId;

    #[tokio::test]
    async fn last_ended_meeting_of_a_room_survives_a_restart_for_an_hour() {
        let fixture = Fixture::open().await;
        let start = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let meeting = |room: &str, minute: u64, users: &[&str]| EndedMeeting {
            room: RoomName::parse(room).unwrap(),
            at: start + Duration::from_secs(minute * 60),
            users: users.iter().map(|id| UserId::parse(id).unwrap()).collect(),
        };
        let many: Vec<String> = (100..300).map(|number| format!("user{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let (last, other) = (meeting("r", 59, &many), meeting("s", 30, &["carol"]));
        for ended in [meeting("r", 0, &["ada", "bob"]), other.clone(), last.clone()] {
            fixture.store.handle().persist_ended(MeetingId::random(), ended);
            fixture.store.handle().flush().await.unwrap();
        }
        let fixture = fixture.reopen().await;
        let recent = |minute: u64| {
            let stored = fixture.store.ended();
            async move { stored.recent(start + Duration::from_secs(minute * 60)).await.unwrap() }
        };
        assert_eq!(recent(60).await, [other, last.clone()]);
        assert_eq!(recent(90).await, [last]);
        assert_eq!(recent(119).await, []);
    }
}
