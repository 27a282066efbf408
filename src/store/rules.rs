//! The settings of rooms by name, stored before they are answered.

use std::sync::Arc;

use sqlx::sqlite::SqlitePool;

use crate::id::RoomName;

/// The stored settings of rooms; a cheap clone.
#[derive(Clone, Debug)]
pub struct StoredRules {
    pool: SqlitePool,
}

/// Settings of rooms cannot be stored or read.
#[derive(Debug, thiserror::Error)]
#[error("the settings of rooms cannot be stored or read ({0})")]
pub struct RulesError(#[from] sqlx::Error);

impl StoredRules {
    /// The settings in the database of `pool`.
    pub(super) fn new(pool: SqlitePool) -> Self {
        Self { pool }
    }

    /// Stores the settings of a room as JSON; `None` removes them.
    ///
    /// # Errors
    /// [`RulesError`].
    pub async fn set(&self, room: &RoomName, json: Option<&str>) -> Result<(), RulesError> {
        let query = match json {
            Some(json) => sqlx::query(
                "INSERT INTO room_rules (room, rules) VALUES ($1, $2)
                 ON CONFLICT (room) DO UPDATE SET rules = excluded.rules",
            )
            .bind(room.as_str().to_owned())
            .bind(json.to_owned()),
            None => sqlx::query("DELETE FROM room_rules WHERE room = $1").bind(room.as_str().to_owned()),
        };
        query.execute(&self.pool).await?;
        Ok(())
    }

    /// The settings of all rooms that have some. A row that was edited by hand and is invalid is left out.
    ///
    /// # Errors
    /// [`RulesError`].
    pub async fn all(&self) -> Result<Vec<(RoomName, Arc<str>)>, RulesError> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT room, rules FROM room_rules").fetch_all(&self.pool).await?;
        let rooms =
            rows.into_iter().filter_map(|(room, json)| Some((RoomName::parse(&room).ok()?, json.into())));
        Ok(rooms.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    #[tokio::test]
    async fn newest_settings_of_a_room_survive_a_restart() {
        let fixture = Fixture::open().await;
        let rules = fixture.store.rules();
        let [one, two] = ["one", "two"].map(|room| RoomName::parse(room).unwrap());
        for (room, json) in [(&one, Some("{}")), (&two, Some("{}")), (&one, Some("[1]")), (&two, None)] {
            rules.set(room, json).await.unwrap();
        }
        let fixture = fixture.reopen().await;
        assert_eq!(fixture.store.rules().all().await.unwrap(), [(one, "[1]".into())]);
    }
}
