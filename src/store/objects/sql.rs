//! The SQL of objects' values.

use std::path::Path;
use std::sync::Arc;

use serde_json::value::RawValue;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, QueryBuilder, Row};

use super::{Alarm, ObjectRow, ObjectWrite, ObjectsError, SavedObject, Totals, Values};
use crate::id::ObjectId;
use crate::store::StoreError;
use crate::store::sql::Database;

static MIGRATOR: Migrator = sqlx::migrate!("src/store/object_migrations");

/// Rows of the longest statement. Batches are split into powers of two, so that few statements are prepared, each
/// once.
const MAX_ROWS: usize = 64;

/// Options for opening the file, which must exist.
pub(super) fn options(database: &Path, sync: bool) -> SqliteConnectOptions {
    let synchronous = if sync { SqliteSynchronous::Full } else { SqliteSynchronous::Normal };
    Database::options(database).synchronous(synchronous)
}

/// Connects, migrates, and reads the sums over all objects.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn open(options: &SqliteConnectOptions) -> Result<(SqliteConnection, Totals), StoreError> {
    let path = options.get_filename();
    let wrong = |error| StoreError::opening(path, error);
    let mut connection = options.connect().await.map_err(wrong)?;
    MIGRATOR.run(&mut connection).await.map_err(|error| StoreError::migrating(path, error))?;
    let totals = read_totals(&mut connection).await.map_err(wrong)?;
    Ok((connection, totals))
}

async fn read_totals(db: &mut SqliteConnection) -> Result<Totals, sqlx::Error> {
    let row = sqlx::query("SELECT objects, keys, bytes FROM totals").fetch_one(db).await?;
    Ok(Totals {
        objects: unsigned(&row, "objects")?,
        keys: unsigned(&row, "keys")?,
        bytes: unsigned(&row, "bytes")?,
    })
}

/// Loads an object; an empty one if it is not stored.
///
/// # Errors
/// [`ObjectsError`].
pub(super) async fn load(db: &mut SqliteConnection, id: &ObjectId) -> Result<SavedObject, ObjectsError> {
    let select = sqlx::query(
        "SELECT keys, bytes, version, changed_at, alarm, alarm_failures FROM objects WHERE id = $1",
    );
    let Some(row) = select.bind(id.as_str().to_owned()).fetch_optional(&mut *db).await? else {
        return Ok(SavedObject::default());
    };
    let row = object_row(&row)?;
    let select = sqlx::query("SELECT key, value FROM entries WHERE object = $1");
    let entries = select.bind(id.as_str().to_owned()).fetch_all(&mut *db).await?;
    let mut values = Values::new();
    for entry in entries {
        let (key, value): (String, String) = (entry.try_get("key")?, entry.try_get("value")?);
        let value: Box<RawValue> =
            RawValue::from_string(value).map_err(|_| ObjectsError::Damaged(id.clone()))?;
        values.insert(key.into(), Arc::from(value));
    }
    Ok(SavedObject { values, row })
}

/// Reads the columns that `SELECT`s of objects share.
pub(super) fn object_row(row: &SqliteRow) -> Result<ObjectRow, sqlx::Error> {
    let due: Option<i64> = row.try_get("alarm")?;
    let failures = u32::try_from(unsigned(row, "alarm_failures")?).unwrap_or(u32::MAX);
    Ok(ObjectRow {
        keys: unsigned(row, "keys")?,
        bytes: unsigned(row, "bytes")?,
        version: unsigned(row, "version")?,
        changed_at: unsigned(row, "changed_at")?,
        alarm: due.map(|due| Alarm { due: due.try_into().unwrap_or(0), failures }),
    })
}

/// A count; one below zero, which nothing here writes, is zero.
fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, sqlx::Error> {
    Ok(row.try_get::<i64, _>(column)?.try_into().unwrap_or(0))
}

fn signed(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// Writes the changes of objects, of which each is there once, in one transaction.
pub(super) async fn write(db: &mut SqliteConnection, writes: &[ObjectWrite]) -> Result<(), sqlx::Error> {
    // SQLite waits only for a lock taken at the beginning; for one taken later it gives up.
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    for ObjectWrite { id, after, .. } in writes {
        if after.is_stored() {
            continue;
        }
        for delete in ["DELETE FROM entries WHERE object = $1", "DELETE FROM objects WHERE id = $1"] {
            sqlx::query(delete).bind(id.as_str().to_owned()).execute(&mut *transaction).await?;
        }
    }
    write_entries(&mut transaction, writes).await?;
    write_rows(&mut transaction, writes).await?;
    write_totals(&mut transaction, writes).await?;
    transaction.commit().await
}

/// Writes nothing new, and fails if nothing could be written.
pub(super) async fn probe(db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE totals SET objects = objects").execute(db).await.map(drop)
}

async fn write_entries(db: &mut SqliteConnection, writes: &[ObjectWrite]) -> Result<(), sqlx::Error> {
    let mut puts = Vec::new();
    for ObjectWrite { id, changes, after, .. } in writes {
        if !after.is_stored() {
            continue;
        }
        for (key, value) in changes {
            if let Some(value) = value {
                puts.push((id, key, value));
                continue;
            }
            let delete = sqlx::query("DELETE FROM entries WHERE object = $1 AND key = $2");
            delete.bind(id.as_str().to_owned()).bind(Arc::clone(key)).execute(&mut *db).await?;
        }
    }
    for rows in powers_of_two(&puts) {
        let mut insert = QueryBuilder::new("INSERT INTO entries (object, key, value) ");
        insert.push_values(rows, |mut values, (id, key, value)| {
            values.push_bind(id.as_str().to_owned()).push_bind(Arc::clone(key));
            values.push_bind(value.get().to_owned());
        });
        insert.push(" ON CONFLICT (object, key) DO UPDATE SET value = excluded.value");
        insert.build().execute(&mut *db).await?;
    }
    Ok(())
}

async fn write_rows(db: &mut SqliteConnection, writes: &[ObjectWrite]) -> Result<(), sqlx::Error> {
    let stored: Vec<_> = writes.iter().filter(|write| write.after.is_stored()).collect();
    for rows in powers_of_two(&stored) {
        let mut insert = QueryBuilder::new(
            "INSERT INTO objects (id, keys, bytes, version, changed_at, alarm, alarm_failures) ",
        );
        insert.push_values(rows, |mut values, ObjectWrite { id, after, .. }| {
            values.push_bind(id.as_str().to_owned());
            values.push_bind(signed(after.keys)).push_bind(signed(after.bytes));
            values.push_bind(signed(after.version)).push_bind(signed(after.changed_at));
            values.push_bind(after.alarm.map(|alarm| signed(alarm.due)));
            values.push_bind(after.alarm.map_or(0, |alarm| i64::from(alarm.failures)));
        });
        insert.push(
            " ON CONFLICT (id) DO UPDATE SET keys = excluded.keys, bytes = excluded.bytes,
                version = excluded.version, changed_at = excluded.changed_at,
                alarm = excluded.alarm, alarm_failures = excluded.alarm_failures",
        );
        insert.build().execute(&mut *db).await?;
    }
    Ok(())
}

async fn write_totals(db: &mut SqliteConnection, writes: &[ObjectWrite]) -> Result<(), sqlx::Error> {
    let growth = |number: fn(&ObjectRow) -> u64| -> i64 {
        writes.iter().map(|write| signed(number(&write.after)) - signed(number(&write.before))).sum()
    };
    let objects = growth(|row| u64::from(row.is_stored()));
    let (keys, bytes) = (growth(|row| row.keys), growth(|row| row.bytes));
    if (objects, keys, bytes) == (0, 0, 0) {
        return Ok(());
    }
    let update =
        sqlx::query("UPDATE totals SET objects = objects + $1, keys = keys + $2, bytes = bytes + $3");
    update.bind(objects).bind(keys).bind(bytes).execute(db).await.map(drop)
}

/// Splits rows into parts whose lengths are powers of two, the longest first.
fn powers_of_two<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let length = rows.len().min(MAX_ROWS);
        let part = 1 << length.checked_ilog2()?;
        let (first, rest) = rows.split_at(part);
        rows = rest;
        Some(first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_split_into_powers_of_two() {
        let rows: Vec<u32> = (0..203).collect();
        let parts: Vec<_> = powers_of_two(&rows).collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [64, 64, 64, 8, 2, 1]);
        assert_eq!(parts.concat(), rows);
        assert_eq!(powers_of_two::<u32>(&[]).count(), 0);
    }
}
