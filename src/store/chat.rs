//! The remembered messages of rooms' chats: their changes, merged, and the SQL that writes and loads them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Row};

use crate::id::MeetingId;
use crate::store::batch::WriteBatch;
use crate::store::load::{rows_of, sensible};
use crate::store::saved::SavedRoom;
use crate::store::sql::ROWS;

/// Changes of a meeting's chat that are not written yet.
///
/// A message that is forgotten before it was written is never written, so that a flood costs no more than the
/// history's own size in each batch.
#[derive(Clone, Debug, Default)]
pub(super) struct ChatChanges {
    /// The messages with lower ids are forgotten.
    first: u64,
    messages: BTreeMap<u64, Arc<str>>,
}

impl ChatChanges {
    /// A new message, and the id of the oldest one from now on.
    pub(super) fn message(id: u64, json: Arc<str>, first: u64) -> Self {
        Self { first, messages: [(id, json)].into() }
    }

    /// The removal of messages with ids lower than `first`.
    pub(super) fn forgotten(first: u64) -> Self {
        Self { first, messages: BTreeMap::new() }
    }

    /// True if no message waits.
    pub(super) fn adds_nothing(&self) -> bool {
        self.messages.is_empty()
    }

    /// Number of values to write.
    pub(super) fn keys(&self) -> usize {
        self.messages.len()
    }

    /// Adds newer changes.
    pub(super) fn then(&mut self, mut newer: Self) {
        self.first = self.first.max(newer.first);
        self.messages.append(&mut newer.messages);
        if self.messages.first_key_value().is_some_and(|(oldest, _)| *oldest < self.first) {
            self.messages = self.messages.split_off(&self.first);
        }
    }
}

/// Writes the changes of a batch. Those of meetings without a row are dropped.
pub(super) async fn write(db: &mut SqliteConnection, batch: &WriteBatch) -> Result<(), sqlx::Error> {
    for (meeting, changes) in &batch.meetings {
        let ChatChanges { first, messages } = &changes.chat;
        if *first > 0 {
            let delete = sqlx::query("DELETE FROM kept_chat WHERE meeting_id = $1 AND id < $2");
            delete.bind(meeting.to_string()).bind(column(*first)).execute(&mut *db).await?;
        }
        if messages.is_empty() {
            continue;
        }
        let room = sqlx::query("SELECT 1 FROM kept_rooms WHERE meeting_id = $1");
        if room.bind(meeting.to_string()).fetch_optional(&mut *db).await?.is_none() {
            continue;
        }
        let messages: Vec<_> = messages.iter().collect();
        for messages in messages.chunks(ROWS) {
            let mut insert = QueryBuilder::new("INSERT INTO kept_chat (meeting_id, id, json) ");
            insert.push_values(messages, |mut values, (id, json)| {
                values.push_bind(meeting.to_string()).push_bind(column(**id)).push_bind(Arc::clone(json));
            });
            // A batch that failed may be half written.
            insert.push(" ON CONFLICT (meeting_id, id) DO UPDATE SET json = excluded.json");
            insert.build().persistent(messages.len() == ROWS).execute(&mut *db).await?;
        }
    }
    Ok(())
}

/// Loads the messages of one meeting or of all into their rooms.
pub(super) async fn load(
    db: &mut SqliteConnection,
    only: Option<MeetingId>,
    rooms: &mut HashMap<MeetingId, &mut SavedRoom>,
) -> Result<(), sqlx::Error> {
    let mut select = rows_of(only, "SELECT meeting_id, id, json FROM kept_chat", "id");
    for row in select.build().fetch_all(&mut *db).await? {
        let read = || -> Result<_, Box<dyn std::error::Error + Send + Sync>> {
            let meeting = MeetingId::parse(&row.try_get::<String, _>("meeting_id")?)?;
            let (id, json): (i64, String) = (row.try_get("id")?, row.try_get("json")?);
            serde_json::from_str::<serde_json::Map<_, _>>(&json)?;
            Ok((meeting, u64::try_from(id)?, Arc::<str>::from(json)))
        };
        let Some((meeting, id, json)) = sensible(&row, read()) else { continue };
        if let Some(room) = rooms.get_mut(&meeting) {
            room.chat.push((id, json));
        }
    }
    Ok(())
}

fn column(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgotten_messages_are_not_written() {
        let mut changes = ChatChanges::default();
        for id in 1..=100 {
            changes.then(ChatChanges::message(id, format!("{id}").into(), id.saturating_sub(2)));
        }
        assert_eq!((changes.first, changes.messages.keys().copied().collect()), (98, vec![98, 99, 100]));
        changes.then(ChatChanges::message(50, "late".into(), 98));
        assert_eq!(changes.keys(), 3);
        changes.then(ChatChanges::forgotten(u64::MAX));
        assert!(changes.adds_nothing());
        assert_eq!(column(u64::MAX), i64::MAX);
    }
}
