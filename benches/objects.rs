//! Calls on durable objects over HTTP, each stored before it is answered, against a bare loop of group commits in
//! SQLite with as many waiting.
//!
//! Server and clients share this process' cores. `-- 64 256` names the numbers of calls that wait at a time.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench measures time and may panic"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use satsuma::config::{Config, DurableKey, KeySource};
use satsuma::server::Server;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, QueryBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

const OBJECTS: usize = 64;
const KEY: &str = "bench-key-0123456789";
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);

fn main() {
    // `cargo test --benches` runs this as well, where there is nothing to check.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run());
}

async fn run() {
    let named: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let waiting = if named.is_empty() { vec![64, 256] } else { named };
    for waiting in waiting {
        let dir = tempfile::tempdir_in(".").unwrap();
        let bare = bare(&dir.path().join("bare.db"), waiting).await;
        let [synced, unsynced, unstored] = [("increment", true), ("increment", false), ("echo", true)]
            .map(|(method, sync)| http(dir.path(), waiting, method, sync));
        let (synced, group) = synced.await;
        let ((unsynced, _), (unstored, _)) = (unsynced.await, unstored.await);
        println!(
            "{waiting:4} waiting on {OBJECTS} objects: bare loop {bare:6.0} rows a second; HTTP {synced:6.0} calls \
             ({:.0} %) in commits of {group:.0} objects, unsynced {unsynced:6.0}, not stored {unstored:6.0} ({:.0} %)",
            100.0 * synced / bare,
            100.0 * synced / bare.min(unstored),
        );
    }
}

/// Counts what is done in the measured time.
async fn measured(done: Arc<AtomicU64>) -> f64 {
    tokio::time::sleep(WARM_UP).await;
    let (before, start) = (done.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(MEASURED).await;
    (done.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64()
}

/// Tasks that each store one row after the other; one connection takes all that wait, and commits them together.
async fn bare(path: &Path, waiting: usize) -> f64 {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
    let mut connection =
        options.pragma("wal_autocheckpoint", "4000").disable_statement_logging().connect().await.unwrap();
    let create =
        "CREATE TABLE entries (object TEXT, key TEXT, value TEXT, PRIMARY KEY (object, key)) WITHOUT ROWID";
    sqlx::query(create).execute(&mut connection).await.unwrap();
    let (rows, mut received) = mpsc::channel::<(usize, u64, oneshot::Sender<()>)>(waiting);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(first) = received.recv().await {
            let mut group = vec![first];
            while let Ok(next) = received.try_recv() {
                group.push(next);
            }
            commit(&mut connection, &group).await;
            group.into_iter().for_each(|(_, _, done)| done.send(()).unwrap_or(()));
        }
    });
    let done = Arc::<AtomicU64>::default();
    for task in 0..waiting {
        let (rows, done) = (rows.clone(), done.clone());
        tasks.spawn(async move {
            for value in 0.. {
                let (stored, wait) = oneshot::channel();
                // At the end the tasks are dropped one after the other.
                if rows.send((task, value, stored)).await.is_err() || wait.await.is_err() {
                    return;
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    measured(done).await
}

async fn commit(connection: &mut SqliteConnection, group: &[(usize, u64, oneshot::Sender<()>)]) {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let mut rest = group;
    while !rest.is_empty() {
        let (rows, others) = rest.split_at(1 << rest.len().min(64).ilog2());
        let mut insert = QueryBuilder::new("INSERT INTO entries (object, key, value) ");
        insert.push_values(rows, |mut values, (object, value, _)| {
            values.push_bind(format!("object-{object}")).push_bind("value").push_bind(value.to_string());
        });
        insert.push(" ON CONFLICT (object, key) DO UPDATE SET value = excluded.value");
        insert.build().execute(&mut *transaction).await.unwrap();
        rest = others;
    }
    transaction.commit().await.unwrap();
}

/// Clients with a connection each that increment the counters of objects.
async fn http(dir: &Path, waiting: usize, method: &'static str, sync: bool) -> (f64, f64) {
    let mut config = Config { data_dir: dir.join(format!("data-{method}-{sync}")), ..Config::default() };
    config.http.listen.set_port(0);
    config.admin.listen.set_port(0);
    config.sfu.udp_listen = ([127, 0, 0, 1], 0).into();
    config.durable.keys = vec![DurableKey { secret: KeySource::Text(KEY.into()), prefix: String::new() }];
    config.durable.calls_per_second = 0;
    config.durable.calls_per_second_per_object = 0;
    config.durable.sync = sync;
    let server = Server::start(config).await.unwrap();
    let address = server.addresses().http;
    let (done, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let mut clients = JoinSet::new();
    for client in 0..waiting {
        clients.spawn(call(address, client % OBJECTS, method, done.clone(), stop.clone()));
    }
    let calls = measured(done.clone()).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let metrics = server.metrics().render();
    let number = |name: &str| {
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse::<f64>().unwrap())
    };
    let group = number("satsuma_durable_commit_objects_total")
        / number("satsuma_durable_commit_seconds_count").max(1.0);
    let mut sum = 0;
    for object in (0..OBJECTS.min(waiting)).filter(|_| method == "increment") {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let path = format!("/durable/{KEY}/object/o{object}/state/value");
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let value = answer.split_once("\"value\":").expect("a value").1.trim_end_matches('}');
        sum += value.parse::<u64>().unwrap();
    }
    assert!(method != "increment" || sum == done.load(Ordering::Relaxed), "each call counts once");
    server.shutdown();
    server.join().await.unwrap();
    (calls, group)
}

async fn call(address: SocketAddr, object: usize, method: &str, done: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    let path = format!("/durable/{KEY}/object/o{object}/method/{method}");
    let request = format!(
        "POST {path} HTTP/1.1\r\ncontent-length: 2\r\nhost: {address}\r\nuser-agent: mint/1.7.1\r\n\
         content-type: application/json\r\n\r\n{{}}"
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut length = 0;
        // The answer ends with the object in which its members are.
        while !(buffer[..length].starts_with(b"HTTP/1.1 200") && buffer[..length].ends_with(b"}")) {
            let read = stream.read(&mut buffer[length..]).await.unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&buffer[..length]));
            length += read;
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}
