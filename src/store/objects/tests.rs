use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use tempfile::TempDir;

use super::*;
use crate::clock::now;

/// A store in a temporary directory.
struct Disk {
    directory: TempDir,
    store: ObjectStore,
    totals: Totals,
    metrics: Arc<Metrics>,
}

impl Disk {
    async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::File::create(directory.path().join("objects.db")).unwrap();
        Self::open_in(directory).await
    }

    async fn open_in(directory: TempDir) -> Self {
        let metrics = Metrics::new();
        let path = directory.path().join("objects.db");
        let (store, totals) = ObjectStore::open(&path, true, metrics.clone()).await.unwrap();
        Self { directory, store, totals, metrics }
    }

    async fn reopen(self) -> Self {
        self.store.shutdown(now() + Duration::from_secs(20)).await.unwrap();
        assert!(!self.directory.path().join("objects.db-wal").exists(), "the file alone is a backup");
        Self::open_in(self.directory).await
    }

    async fn beside(&self) -> SqliteConnection {
        sql::options(&self.directory.path().join("objects.db"), false).connect().await.unwrap()
    }

    fn objects(&self) -> Objects {
        self.store.objects()
    }
}

fn id(id: &str) -> ObjectId {
    ObjectId::parse(id).unwrap()
}

fn json(text: &str) -> Arc<RawValue> {
    Arc::from(RawValue::from_string(text.to_owned()).unwrap())
}

/// The write of an object that had `before`, with these changes.
fn write(name: &str, before: &SavedObject, changes: &[(&str, Option<&str>)]) -> (ObjectWrite, SavedObject) {
    let changes: BTreeMap<Arc<str>, _> =
        changes.iter().map(|(key, value)| ((*key).into(), value.map(json))).collect();
    let mut after = before.clone();
    for (key, value) in &changes {
        match value {
            Some(value) => drop(after.values.insert(key.clone(), value.clone())),
            None => drop(after.values.remove(key)),
        }
    }
    after.row.keys = after.values.len() as u64;
    after.row.bytes = after.values.iter().map(|(key, value)| (key.len() + value.get().len()) as u64).sum();
    after.row.version += 1;
    (ObjectWrite { id: id(name), changes, before: before.row, after: after.row }, after)
}

fn shown(object: &SavedObject) -> Vec<(&str, &str)> {
    object.values.iter().map(|(key, value)| (&**key, value.get())).collect()
}

#[tokio::test]
async fn object_is_restored_unchanged() {
    let disk = Disk::open().await;
    assert_eq!(disk.totals, Totals::default());
    let values = [
        ("a/b//c", Some("1.0")),
        ("__proto__", Some("null")),
        ("k\u{0}x", Some(r#""\u0000""#)),
        ("K", Some(" { \"b\" : [ ] } ")),
        ("é🍊", Some("[]")),
    ];
    let (first, mut after) = write("o", &SavedObject::default(), &values);
    let due = u64::try_from(i64::MAX).unwrap();
    after.row.alarm = Some(Alarm { due, failures: 3 });
    let first = ObjectWrite { after: after.row, ..first };
    disk.objects().commit(first).await.unwrap();

    let disk = disk.reopen().await;
    assert_eq!(disk.totals, Totals { objects: 1, keys: 5, bytes: after.row.bytes });
    let loaded = disk.objects().load(&id("o")).await.unwrap();
    assert_eq!(shown(&loaded), shown(&after));
    assert_eq!(loaded.row, after.row);
    let other = disk.objects().load(&id("O")).await.unwrap();
    assert_eq!((other.values.len(), other.row), (0, ObjectRow::default()));
}

#[tokio::test]
async fn object_without_values_is_removed() {
    let disk = Disk::open().await;
    let (first, after) =
        write("o", &SavedObject::default(), &[("a", Some("1")), ("b", Some("2")), ("c", Some("3"))]);
    disk.objects().commit(first).await.unwrap();
    let (second, after) = write("o", &after, &[("a", None), ("missing", None), ("b", Some("22"))]);
    disk.objects().commit(second).await.unwrap();
    assert_eq!(shown(&disk.objects().load(&id("o")).await.unwrap()), [("b", "22"), ("c", "3")]);
    let (third, after) = write("o", &after, &[("b", None), ("c", None)]);
    disk.objects().commit(third).await.unwrap();
    let disk = disk.reopen().await;
    assert_eq!(disk.totals, Totals::default());
    assert_eq!(disk.objects().load(&id("o")).await.unwrap().row, ObjectRow::default());
    for table in ["objects", "entries"] {
        let count = AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
        let rows: i64 = sqlx::query_scalar(count).fetch_one(&mut disk.beside().await).await.unwrap();
        assert_eq!(rows, 0, "{table}");
    }
    drop(after);
}

#[tokio::test]
async fn waiting_writes_share_a_commit() {
    let disk = Disk::open().await;
    let objects = disk.objects();
    let writes = (0..200).map(|n| {
        let (write, _) = write(&format!("o{n}"), &SavedObject::default(), &[("n", Some("1"))]);
        objects.commit(write)
    });
    for result in futures_util::future::join_all(writes).await {
        result.unwrap();
    }
    assert_eq!(disk.metrics.durable_commit_objects.get(), 200);
    let text = disk.metrics.render();
    let commits = text.lines().find_map(|line| line.strip_prefix("satsuma_durable_commit_seconds_count "));
    let commits: u64 = commits.unwrap().parse().unwrap();
    assert!(commits <= 20, "{commits} commits of 200 writes");
    let disk = disk.reopen().await;
    assert_eq!(disk.totals, Totals { objects: 200, keys: 200, bytes: 400 });
}

#[tokio::test]
async fn objects_are_listed_by_prefix_and_page() {
    let disk = Disk::open().await;
    for name in ["a", "b:1", "b:2", "b:3", "b;", "c"] {
        let (write, _) = write(name, &SavedObject::default(), &[("k", Some("1"))]);
        disk.objects().commit(write).await.unwrap();
    }
    let list = async |prefix, after: Option<&str>, limit| {
        let after = after.map(id);
        let lines = disk.objects().list(prefix, after.as_ref(), limit).await.unwrap();
        lines.into_iter().map(|line| line.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list("", None, 3).await, ["a", "b:1", "b:2"]);
    assert_eq!(list("", Some("b:2"), 3).await, ["b:3", "b;", "c"]);
    assert_eq!(list("b:", None, 9).await, ["b:1", "b:2", "b:3"]);
    assert_eq!(list("b:", Some("b:1"), 1).await, ["b:2"]);
    assert_eq!(list("b:", Some("a"), 1).await, ["b:1"]);
    assert!(list("d", None, 9).await.is_empty());
}

#[tokio::test]
async fn earliest_alarm_is_announced_and_found() {
    let disk = Disk::open().await;
    let mut announced = disk.objects().watch_alarms();
    for (name, due) in [("late", 300), ("soon", 100), ("none", 0)] {
        let (mut write, _) = write(name, &SavedObject::default(), &[("k", Some("1"))]);
        write.after.alarm = (due > 0).then_some(Alarm { due, failures: 0 });
        disk.objects().commit(write).await.unwrap();
    }
    assert_eq!(*announced.borrow_and_update(), 100);
    let alarms = disk.objects().next_alarms(9).await.unwrap();
    assert_eq!(alarms.iter().map(|alarm| alarm.due).collect::<Vec<_>>(), [100, 300]);
    assert_eq!(alarms[0].id, id("soon"));
}

#[tokio::test]
async fn write_is_refused_whole_on_a_full_disk() {
    let disk = Disk::open().await;
    let (small, kept) = write("o", &SavedObject::default(), &[("k", Some("1"))]);
    disk.objects().commit(small).await.unwrap();
    // As on a full disk: the file cannot grow. The writer's own connection has the limit, so another is used.
    let mut connection = disk.beside().await;
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut connection).await.unwrap();
    connection.execute(AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"))).await.unwrap();
    let long = format!("\"{}\"", "x".repeat(1 << 20));
    let (first, _) = write("o", &kept, &[("k", Some("2"))]);
    let (second, _) = write("p", &SavedObject::default(), &[("k", Some(&long))]);
    let error = sql::write(&mut connection, &[first, second]).await.unwrap_err();
    assert!(error.to_string().contains("full"), "{error}");
    connection.close().await.unwrap();
    assert_eq!(shown(&disk.objects().load(&id("o")).await.unwrap()), [("k", "1")]);
    assert_eq!(disk.reopen().await.totals, Totals { objects: 1, keys: 1, bytes: 2 });
}

#[tokio::test]
async fn failed_commit_is_told_and_the_next_one_succeeds() {
    let disk = Disk::open().await;
    disk.beside().await.execute("ALTER TABLE entries RENAME TO away").await.unwrap();
    let (first, _) = write("o", &SavedObject::default(), &[("k", Some("1"))]);
    let error = disk.objects().commit(first.clone()).await.unwrap_err();
    assert!(error.to_string().contains("no such table"), "{error}");
    assert_eq!(disk.metrics.durable_commit_failures.get(), 1);
    disk.beside().await.execute("ALTER TABLE away RENAME TO entries").await.unwrap();
    disk.objects().commit(first).await.unwrap();
    assert_eq!(disk.reopen().await.totals, Totals { objects: 1, keys: 1, bytes: 2 });
}

#[tokio::test]
async fn commit_after_shutdown_is_refused() {
    let disk = Disk::open().await;
    let objects = disk.objects();
    disk.store.shutdown(now() + Duration::from_secs(20)).await.unwrap();
    let (write, _) = write("o", &SavedObject::default(), &[("k", Some("1"))]);
    assert!(matches!(objects.commit(write).await, Err(ObjectsError::Stopped)));
    assert!(matches!(objects.load(&id("o")).await, Err(ObjectsError::Stopped)));
}
