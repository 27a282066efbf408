//! `kill -9` after an answer: what was answered is there.

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection, Executor};
use tokio::task::JoinSet;

use crate::durable::{KEY, Pooled};
use crate::harness::{Reach, metric};
use crate::process::Process;

const ROUNDS: usize = 20;

/// Stored objects in the measured start.
const OBJECTS: usize = 1_000_000;

/// Limit of a start. A build without optimization, between other tests, is ten times slower.
const START: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 });

fn settings() -> [(&'static str, &'static str); 2] {
    [("SATSUMA_DURABLE__KEYS", KEY), ("SATSUMA_DURABLE__CALLS_PER_SECOND_PER_OBJECT", "0")]
}

/// Increments a counter until the server is gone; the last value that was answered.
async fn count(address: std::net::SocketAddr, object: usize, seen: u64) -> u64 {
    let mut library = Pooled::connect(address).await;
    let answered = Cell::new(seen);
    let path = format!("/object/c{object}/method/increment");
    while let Some((status, text)) = library.try_call("POST", &path, Some("{}")).await {
        assert_eq!(status, 200, "{text}");
        let value = serde_json::from_str::<Value>(&text).unwrap()["value"].as_u64().unwrap();
        // One call may have been stored and not answered at each kill.
        assert!(
            value == answered.get() + 1 || value == answered.get() + 2,
            "{value} after {}",
            answered.get()
        );
        answered.set(value);
    }
    answered.get()
}

#[tokio::test]
async fn crashes_lose_no_answered_call() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut seen = [0; 8];
    for round in 0..ROUNDS {
        let process = Process::start(&data, &settings()).await;
        let address = process.reached_at().http;
        let mut counters = JoinSet::new();
        for (object, seen) in seen.into_iter().enumerate() {
            counters.spawn(async move { (object, count(address, object, seen).await) });
        }
        let wanted = (seen.iter().sum::<u64>() + 8 + 7 * (round as u64 % 5)) as f64;
        let calls = r#"satsuma_durable_request_seconds_count{kind="call_method",outcome="ok"}"#;
        let start = seen.iter().sum::<u64>() as f64;
        crate::harness::eventually(format!("{wanted} calls"), async || {
            metric(&process, calls).await + start >= wanted
        })
        .await;
        process.kill();
        while let Some(counted) = counters.join_next().await {
            let (object, last) = counted.unwrap();
            assert!(last >= seen[object]);
            seen[object] = last;
        }
    }
    let process = Process::start(&data, &settings()).await;
    let mut library = Pooled::connect(process.reached_at().http).await;
    for (object, seen) in seen.into_iter().enumerate() {
        let (_, text) = library.call("GET", &format!("/object/c{object}/state/value"), None).await;
        let value = serde_json::from_str::<Value>(&text).unwrap()["value"].as_u64().unwrap();
        assert!(value == seen || value == seen + 1, "{value}, and {seen} was answered");
    }
    process.stop().await;
    let options = SqliteConnectOptions::new().filename(data.join("objects.db"));
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    let check: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut database).await.unwrap();
    assert_eq!(check, "ok");
    let sums: (i64, i64, i64) =
        sqlx::query_as("SELECT objects, keys, bytes FROM totals").fetch_one(&mut database).await.unwrap();
    let rows: (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT COUNT(*) FROM objects), COUNT(*), SUM(LENGTH(key) + LENGTH(value)) FROM entries",
    )
    .fetch_one(&mut database)
    .await
    .unwrap();
    assert_eq!(sums, rows);
}

#[tokio::test]
async fn million_objects_start_quickly() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    Process::start(&data, &settings()).await.stop().await;
    let options = SqliteConnectOptions::new().filename(data.join("objects.db"));
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    let seeded = now();
    let seed = format!(
        "PRAGMA synchronous = OFF;
         WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {OBJECTS} - 1)
             INSERT INTO objects (id, keys, bytes, version, changed_at)
             SELECT printf('o%07d', n), 1, 6, 1, 0 FROM numbers;
         INSERT INTO entries (object, key, value) SELECT id, 'value', '7' FROM objects;
         UPDATE totals SET objects = {OBJECTS}, keys = {OBJECTS}, bytes = 6 * {OBJECTS};"
    );
    database.execute(AssertSqlSafe(seed)).await.unwrap();
    database.close().await.unwrap();
    let seeded = seeded.elapsed();

    let launched = now();
    let process = Process::start(&data, &settings()).await;
    let took = launched.elapsed();
    assert_eq!(metric(&process, "satsuma_durable_objects").await, OBJECTS as f64);
    assert_eq!(metric(&process, "satsuma_durable_loaded").await, 0.0);
    let mut library = Pooled::connect(process.reached_at().http).await;
    let called = now();
    let (_, text) = library.call("POST", "/object/o0654321/method/increment", Some("{}")).await;
    assert_eq!(text, r#"{"result":{"value":8},"value":8}"#);
    eprintln!(
        "{OBJECTS} objects: seeded in {seeded:?}, started in {took:?}, called one in {:?}",
        called.elapsed()
    );
    assert!(took < START, "a start took {took:?}");
    process.stop().await;
}

#[expect(clippy::disallowed_methods, reason = "a start is measured")]
fn now() -> Instant {
    Instant::now()
}
