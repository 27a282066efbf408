//! Lists of objects: for operators, and of due alarms.

use sqlx::Row;

use super::sql::object_row;
use super::{ObjectRow, Objects, ObjectsError};
use crate::id::ObjectId;

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectLine {
    /// Its id.
    pub id: ObjectId,
    /// Everything else that is stored of it besides its values.
    pub row: ObjectRow,
}

/// An alarm that is due, or will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueAlarm {
    /// The object.
    pub id: ObjectId,
    /// The time, in milliseconds since 1970.
    pub due: u64,
}

impl Objects {
    /// The stored objects whose ids begin with `prefix`, in order of their ids, after the id `after`; at most `limit`.
    ///
    /// # Errors
    /// [`ObjectsError`].
    pub async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectId>,
        limit: u32,
    ) -> Result<Vec<ObjectLine>, ObjectsError> {
        // The ids from the prefix on are adjacent; the first without it ends the list.
        let select = sqlx::query(
            "SELECT id, keys, bytes, version, changed_at, alarm, alarm_failures FROM objects
             WHERE id >= $1 AND id > $2 ORDER BY id LIMIT $3",
        );
        let select = select.bind(prefix.to_owned());
        let select = select.bind(after.map_or(String::new(), |after| after.as_str().to_owned()));
        let rows = select.bind(i64::from(limit)).fetch_all(&self.readers).await?;
        let mut lines = Vec::with_capacity(rows.len());
        for row in rows {
            let id: String = row.try_get("id")?;
            if !id.starts_with(prefix) {
                break;
            }
            // An id that this version would not accept cannot be reached, and is not shown.
            let Ok(id) = ObjectId::parse(&id) else { continue };
            lines.push(ObjectLine { id, row: object_row(&row)? });
        }
        Ok(lines)
    }

    /// The earliest alarms, due or not, at most `limit`; the earliest first.
    ///
    /// # Errors
    /// [`ObjectsError`].
    pub async fn next_alarms(&self, limit: u32) -> Result<Vec<DueAlarm>, ObjectsError> {
        let select =
            sqlx::query("SELECT id, alarm FROM objects WHERE alarm IS NOT NULL ORDER BY alarm LIMIT $1");
        let rows = select.bind(i64::from(limit)).fetch_all(&self.readers).await?;
        let mut alarms = Vec::with_capacity(rows.len());
        for row in rows {
            let (id, due): (String, i64) = (row.try_get("id")?, row.try_get("alarm")?);
            let Ok(id) = ObjectId::parse(&id) else { continue };
            alarms.push(DueAlarm { id, due: due.try_into().unwrap_or(0) });
        }
        Ok(alarms)
    }
}
