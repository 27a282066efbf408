//! Loading of the stored rooms.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use serde::de::IgnoredAny;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};

use crate::id::{IdentityId, MeetingId, RoomName, UserId};
use crate::store::chat;
use crate::store::saved::{JournalPlace, SavedMember, SavedRoom};
use crate::store::sql::{forget, rfc3339};

/// Loads all rooms, or the rooms of one name; `now` is when meetings that cannot go on are ended.
pub(super) async fn load(
    db: &mut SqliteConnection,
    name: Option<&RoomName>,
    now: SystemTime,
) -> Result<Vec<SavedRoom>, sqlx::Error> {
    let mut select = QueryBuilder::new(
        r#"SELECT meeting_id, room, ai, moderation, watch, journal FROM kept_rooms LEFT JOIN "Meetings" ON id = meeting_id"#,
    );
    if let Some(name) = name {
        select.push(" WHERE room = ").push_bind(name.to_string());
    }
    select.push(" ORDER BY COALESCE(created, '') DESC, meeting_id");
    let rows = select.build().fetch_all(&mut *db).await?;
    let mut rooms = Vec::with_capacity(rows.len());
    let mut names = HashSet::new();
    for room in rows.iter().filter_map(|row| sensible(row, saved_room(row))) {
        if names.insert(room.room.clone()) {
            rooms.push(room);
            continue;
        }
        let meeting = room.meeting.to_string();
        tracing::warn!(room = %room.room, meeting, "a newer meeting of the room runs; ending this");
        let end = sqlx::query(r#"UPDATE "Meetings" SET modified = $1, ended = $1 WHERE id = $2"#);
        end.bind(rfc3339(now)).bind(meeting.clone()).execute(&mut *db).await?;
        forget(db, &meeting).await?;
    }
    // Of several meetings of one name only the newest is left.
    let only = name.and_then(|_| rooms.first()).map(|room| room.meeting);
    if name.is_some() && only.is_none() {
        return Ok(rooms);
    }
    let mut by_meeting: HashMap<_, _> = rooms.iter_mut().map(|room| (room.meeting, room)).collect();
    let mut members =
        rows_of(only, "SELECT meeting_id, user_id, identity_id, json, arrival FROM kept_seats", "user_id");
    for row in members.build().fetch_all(&mut *db).await? {
        let Some((meeting, user, json)) = sensible(&row, user_json(&row)) else { continue };
        let Some(identity) = sensible(&row, text(&row, "identity_id")) else { continue };
        if let Some(room) = by_meeting.get_mut(&meeting) {
            let arrival = row.try_get("arrival").unwrap_or_default();
            room.members.push(SavedMember { user, identity: IdentityId::new(identity), json, arrival });
        }
    }
    let mut departed = rows_of(only, "SELECT meeting_id, user_id, identity_id FROM kept_departed", "user_id");
    for row in departed.build().fetch_all(&mut *db).await? {
        let Some((meeting, user)) = sensible(&row, meeting_and_user(&row)) else { continue };
        let Some(identity) = sensible(&row, text(&row, "identity_id")) else { continue };
        if let Some(room) = by_meeting.get_mut(&meeting) {
            room.departed.push((user, IdentityId::new(identity)));
        }
    }
    let mut events = rows_of(only, "SELECT meeting_id, user_id, json FROM kept_events", "position");
    for row in events.build().fetch_all(&mut *db).await? {
        let Some((meeting, user, json)) = sensible(&row, user_json(&row)) else { continue };
        if let Some(room) = by_meeting.get_mut(&meeting) {
            room.unconfirmed.push((user, json));
        }
    }
    chat::load(db, only, &mut by_meeting).await?;
    Ok(rooms)
}

/// The query for the rows of one meeting or of all, in order.
pub(super) fn rows_of(only: Option<MeetingId>, select: &str, order: &str) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(select);
    if let Some(meeting) = only {
        query.push(" WHERE meeting_id = ").push_bind(meeting.to_string());
    }
    query.push(" ORDER BY meeting_id, ").push(order);
    query
}

type Unreadable = Box<dyn std::error::Error + Send + Sync>;

fn text(row: &SqliteRow, column: &str) -> Result<String, Unreadable> {
    Ok(row.try_get(column)?)
}

fn saved_room(row: &SqliteRow) -> Result<SavedRoom, Unreadable> {
    let ai: Option<String> = row.try_get("ai")?;
    let moderation: Option<String> = row.try_get("moderation")?;
    let watch: Option<String> = row.try_get("watch")?;
    let journal: Option<String> = row.try_get("journal")?;
    Ok(SavedRoom {
        room: RoomName::parse(&text(row, "room")?)?,
        meeting: MeetingId::parse(&text(row, "meeting_id")?)?,
        ai: ai.filter(|ai| is_object(ai)).map(Arc::from),
        moderation: moderation.filter(|rules| is_object(rules)).map(Arc::from),
        // Nothing is watched where it is `null`.
        watch: watch.filter(|watch| is_object(watch)).map(Arc::from),
        chat: Vec::new(),
        members: Vec::new(),
        departed: Vec::new(),
        unconfirmed: Vec::new(),
        journal: journal.as_deref().and_then(JournalPlace::parse),
    })
}

fn user_json(row: &SqliteRow) -> Result<(MeetingId, UserId, Arc<str>), Unreadable> {
    let json = text(row, "json")?;
    if !is_object(&json) {
        return Err("the JSON is no object".into());
    }
    let (meeting, user) = meeting_and_user(row)?;
    Ok((meeting, user, json.into()))
}

fn meeting_and_user(row: &SqliteRow) -> Result<(MeetingId, UserId), Unreadable> {
    let meeting = MeetingId::parse(&text(row, "meeting_id")?)?;
    Ok((meeting, UserId::parse(&text(row, "user_id")?)?))
}

fn is_object(json: &str) -> bool {
    json.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(json).is_ok()
}

/// The decoded row, or none and a warning: one invalid row must not prevent the start.
pub(super) fn sensible<T>(row: &SqliteRow, read: Result<T, Unreadable>) -> Option<T> {
    read.map_err(|why| {
        let meeting = text(row, "meeting_id").unwrap_or_default();
        tracing::warn!(meeting, %why, "a stored row is invalid and is skipped");
    })
    .ok()
}
