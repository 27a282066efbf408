//! Objects with a real store, without HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions, Executor};
use tempfile::TempDir;

use super::actor::ObjectDeps;
use super::command::{Answer, Command, Request};
use super::error::ObjectError;
use super::feed::{FeedReader, Taken};
use super::keys::KeyNumber;
use super::memory::Memory;
use super::methods::Methods;
use super::object::ObjectLimits;
use super::registry::ObjectRegistry;
use super::totals::StoredTotals;
use crate::clock::now;
use crate::config::DurableConfig;
use crate::id::{ConnectionId, NodeId, ObjectId};
use crate::metrics::{Counted, Metrics};
use crate::protocol::close::Close;
use crate::protocol::deflate::Encoding;
use crate::room::outbox::OutboxLimits;
use crate::store::objects::{Alarm, ObjectRow, ObjectStore, ObjectWrite};

const PATIENCE: Duration = Duration::from_secs(20);

struct Fixture {
    registry: ObjectRegistry,
    store: ObjectStore,
    metrics: Arc<Metrics>,
    directory: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(Duration::from_secs(60), 1 << 30).await
    }

    async fn with(idle_timeout: Duration, memory_bytes: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("objects.db");
        std::fs::File::create(&path).unwrap();
        let metrics = Metrics::new();
        let (store, totals) = ObjectStore::open(&path, false, metrics.clone()).await.unwrap();
        let deps = ObjectDeps {
            store: store.objects(),
            methods: Methods::load(&DurableConfig::default(), metrics.clone()).unwrap(),
            limits: ObjectLimits { keys: 100, value_bytes: 1 << 20, object_bytes: 4 << 20 },
            sockets: 10,
            outbox: OutboxLimits { member_bytes: 8 << 20, all_bytes: 64 << 20, write_stall: PATIENCE },
            totals: StoredTotals::new(totals, 1000, 1 << 30, metrics.clone()),
            memory: Memory::new(memory_bytes, metrics.clone()),
            cluster: None,
            idle_timeout,
            metrics: metrics.clone(),
        };
        Self { registry: ObjectRegistry::new(deps), store, metrics, directory }
    }

    async fn request(&self, object: &str, request: Request) -> Result<Answer, ObjectError> {
        self.registry.request(&id(object), request, PATIENCE, None).await
    }

    async fn put(&self, object: &str, key: &str, json: &str) -> Result<(), ObjectError> {
        self.request(object, Request::Put { key: key.into(), value: Arc::from(raw(json)) }).await.map(drop)
    }

    async fn increment(&self, object: &str) -> Result<u64, ObjectError> {
        let increment =
            Request::Method { name: "increment".into(), params: raw("{}"), key: KeyNumber::default() };
        match self.request(object, increment).await? {
            Answer::Result(result) => {
                Ok(serde_json::from_str::<Value>(result.get()).unwrap()["value"].as_u64().unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    async fn state(&self, object: &str) -> Value {
        match self.request(object, Request::State).await.unwrap() {
            Answer::State(state) => serde_json::from_slice::<Value>(state.json()).unwrap()["data"].clone(),
            other => panic!("{other:?}"),
        }
    }

    async fn subscribe(&self, object: &str, number: u64) -> FeedReader {
        let socket = ConnectionId::new(NodeId::new(0), number);
        self.registry.subscribe(&id(object), socket, Encoding::Identity).await.unwrap().feed
    }

    async fn beside(&self) -> SqliteConnection {
        let path = self.directory.path().join("objects.db");
        sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.unwrap()
    }

    /// Waits until no object is in memory.
    async fn until_empty(&self) {
        let empty = async {
            while self.metrics.durable_loaded.get() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, empty).await.unwrap();
    }
}

fn id(id: &str) -> ObjectId {
    ObjectId::parse(id).unwrap()
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

/// The next message of a socket; none once it is closed.
async fn next(feed: &FeedReader) -> Option<Value> {
    let taken = std::future::poll_fn(|context| feed.poll_take(now, context));
    match tokio::time::timeout(PATIENCE, taken).await.unwrap() {
        Taken::Message(payload) => Some(serde_json::from_slice(&payload.bytes).unwrap()),
        Taken::Close(_) => None,
    }
}

/// All messages that are there.
fn take_all(feed: &FeedReader) -> Vec<Value> {
    let context = std::task::Context::from_waker(std::task::Waker::noop());
    std::iter::from_fn(|| match feed.poll_take(now, &context) {
        Poll::Ready(Taken::Message(payload)) => Some(serde_json::from_slice(&payload.bytes).unwrap()),
        _ => None,
    })
    .collect()
}

/// A call of the property test.
#[derive(Clone, Debug)]
enum Op {
    Put(u8, u16),
    Delete(u8),
    Increment(i8),
    Initialize(Vec<(u8, u16)>),
    /// Refused as a whole by the limit of keys.
    TooMany,
    Read,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..4_u8, any::<u16>()).prop_map(|(key, value)| Op::Put(key, value)),
        (0..4_u8).prop_map(Op::Delete),
        any::<i8>().prop_map(Op::Increment),
        proptest::collection::vec((0..4_u8, any::<u16>()), 0..4).prop_map(Op::Initialize),
        Just(Op::TooMany),
        Just(Op::Read),
    ]
}

impl Op {
    fn request(&self) -> Request {
        let member =
            |(key, value): (u8, u16)| (Arc::from(format!("k{key}")), Arc::from(raw(&value.to_string())));
        match self {
            Self::Put(key, value) => {
                let (key, value) = member((*key, *value));
                Request::Put { key, value }
            }
            Self::Delete(key) => Request::Delete(format!("k{key}").into()),
            Self::Increment(by) => Request::Method {
                name: "increment".into(),
                params: raw(&format!("{{\"increment\":{by}}}")),
                key: KeyNumber::default(),
            },
            Self::Initialize(members) => Request::Initialize(members.iter().copied().map(member).collect()),
            Self::TooMany => Request::Initialize(
                (0..101).map(|n| (Arc::from(format!("x{n}")), Arc::from(raw("1")))).collect(),
            ),
            Self::Read => Request::State,
        }
    }
}

/// Applies an update to a model of the state.
fn follow(state: &mut BTreeMap<String, Value>, update: &Value) {
    let key = update["key"].as_str().unwrap().to_owned();
    match &update["value"] {
        Value::Null => drop(state.remove(&key)),
        value => drop(state.insert(key, value.clone())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever calls interleave: the updates are one order of whole calls, from which every answer and the state
    /// follow, in memory and on the disk.
    #[test]
    fn interleaved_calls_have_one_order(tasks in proptest::collection::vec(proptest::collection::vec(op(), 1..8), 1..6)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new().await;
            let feed = fixture.subscribe("o", 1).await;
            assert_eq!(next(&feed).await.unwrap()["state"], serde_json::json!({}));
            let fixture = Arc::new(fixture);
            let running: Vec<_> = tasks.iter().cloned().map(|ops| {
                let fixture = fixture.clone();
                runtime.spawn(async move {
                    let mut answers = Vec::new();
                    for op in ops {
                        answers.push((op.clone(), fixture.request("o", op.request()).await));
                    }
                    answers
                })
            }).collect();
            let mut sums = Vec::new();
            for task in join_all(running).await {
                for (op, answer) in task.unwrap() {
                    match (op, answer) {
                        (Op::TooMany, answer) => {
                            assert_eq!(answer.unwrap_err(), ObjectError::TooLarge("the object has too many keys"));
                        }
                        (Op::Increment(_), Ok(Answer::Result(result))) => {
                            sums.push(serde_json::from_str::<Value>(result.get()).unwrap()["value"].clone());
                        }
                        (_, answer) => drop(answer.unwrap()),
                    }
                }
            }
            let (mut state, mut told) = (BTreeMap::new(), Vec::new());
            for update in take_all(&feed) {
                assert_eq!(update["type"], "update");
                if update["key"] == "value" {
                    told.push(update["value"].clone());
                }
                follow(&mut state, &update);
            }
            // Every answer of an increment is the value that the sockets were told for it.
            let sorted = |mut sums: Vec<Value>| { sums.sort_by_key(Value::as_i64); sums };
            assert_eq!(sorted(sums), sorted(told));
            let expected = serde_json::json!(state);
            assert_eq!(fixture.state("o").await, expected);
            let saved = fixture.store.objects().load(&id("o")).await.unwrap();
            assert_eq!(serde_json::json!(saved.values), expected);
            assert_eq!(fixture.metrics.durable_keys.get(), i64::try_from(saved.row.keys).unwrap());
            assert_eq!(fixture.metrics.durable_bytes.get(), i64::try_from(saved.row.bytes).unwrap());
        });
    }
}

#[tokio::test]
async fn object_that_panics_is_loaded_anew() {
    let fixture = Fixture::new().await;
    fixture.put("o", "k", "1").await.unwrap();
    let (object, socket) = (id("o"), ConnectionId::new(NodeId::new(0), 1));
    let link = fixture.registry.subscribe(&object, socket, Encoding::Identity).await.unwrap();
    next(&link.feed).await.unwrap();
    let (panicked, after) = tokio::join!(link.commands.send(Command::Panic), fixture.increment("o"));
    panicked.unwrap();
    // A call behind the panic is made on the object that was loaded anew.
    assert_eq!(after, Ok(1));
    assert_eq!(next(&link.feed).await, None);
    let context = std::task::Context::from_waker(std::task::Waker::noop());
    assert_eq!(link.feed.poll_take(now, &context), Poll::Ready(Taken::Close(Close::ObjectFailed)));
    assert_eq!(fixture.state("o").await, serde_json::json!({"k": 1, "value": 1}));
    assert_eq!(fixture.metrics.durable_panics.get(), 1);
    assert_eq!(fixture.metrics.durable_sockets.get(), 0);
}

#[tokio::test]
async fn failed_commit_rolls_back_and_tells_the_sockets() {
    let fixture = Fixture::new().await;
    fixture.put("o", "a", "1").await.unwrap();
    let feed = fixture.subscribe("o", 1).await;
    next(&feed).await.unwrap();
    let mut beside = fixture.beside().await;
    beside
        .execute("CREATE TRIGGER full BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'full'); END")
        .await
        .unwrap();
    let calls = (0..20).map(|n| async move { n });
    let results = join_all(calls.map(async |n| {
        let n = n.await;
        if n % 3 == 0 {
            fixture.request("o", Request::State).await.map(drop)
        } else {
            fixture.put("o", "a", "2").await
        }
    }))
    .await;
    assert!(results.contains(&Err(ObjectError::StoreFailing)));
    beside.execute("DROP TRIGGER full").await.unwrap();
    assert_eq!(fixture.state("o").await, serde_json::json!({"a": 1}));
    fixture.put("o", "a", "3").await.unwrap();
    let told = take_all(&feed);
    let (last, states) = told.split_last().unwrap();
    assert_eq!(last["value"], 3);
    assert!(!states.is_empty(), "each was told the state that is stored");
    for state in states {
        assert_eq!((&state["type"], &state["state"]), (&"init".into(), &serde_json::json!({"a": 1})));
    }
    assert_eq!(fixture.metrics.durable_bytes.get(), 2);
}

#[tokio::test]
async fn objects_in_memory_are_bounded() {
    const LONG: usize = 256 << 10;
    let fixture = Fixture::with(Duration::from_secs(60), 2 << 20).await;
    let value = format!("\"{}\"", "x".repeat(LONG));
    let held = fixture.subscribe("o0", 1).await;
    for n in 0..40 {
        fixture.put(&format!("o{n}"), "k", &value).await.unwrap();
        let loaded = fixture.metrics.durable_loaded_bytes.get();
        assert!(loaded < 4 << 20, "{loaded}");
    }
    next(&held).await.unwrap();
    assert_eq!(next(&held).await.unwrap()["key"], "k", "an object with a socket stays");
    for n in 0..40 {
        assert_eq!(fixture.state(&format!("o{n}")).await["k"].as_str().unwrap().len(), LONG);
    }
    assert!(fixture.metrics.durable_loaded.get() < 16);
}

#[tokio::test]
async fn unused_objects_and_their_tasks_end() {
    let fixture = Fixture::with(Duration::from_millis(1), 1 << 30).await;
    for _ in 0..20 {
        // Evictions and calls cross each other.
        let sums = join_all((0..10).map(|_| fixture.increment("o"))).await;
        assert!(sums.iter().all(Result::is_ok));
        fixture.until_empty().await;
    }
    assert_eq!(fixture.increment("o").await, Ok(201));
    assert_eq!(fixture.state("other").await, serde_json::json!({}));
}

#[tokio::test]
async fn failing_alarm_is_postponed_and_given_up() {
    let fixture = Fixture::new().await;
    let objects = fixture.store.objects();
    let mut row =
        ObjectRow { version: 1, alarm: Some(Alarm { due: 1, failures: 0 }), ..ObjectRow::default() };
    let write =
        ObjectWrite { id: id("o"), changes: BTreeMap::new(), before: ObjectRow::default(), after: row };
    objects.commit(write).await.unwrap();
    fixture.registry.ring(&id("o"), 7).await;
    assert_eq!(objects.load(&id("o")).await.unwrap().row, row, "not the one that is due");
    for failures in 1..=6 {
        let due = row.alarm.unwrap().due;
        fixture.registry.ring(&id("o"), due).await;
        let saved = objects.load(&id("o")).await.unwrap().row;
        let alarm = saved.alarm.unwrap();
        assert_eq!(alarm.failures, failures);
        let delay = alarm.due - saved.changed_at;
        assert_eq!(delay, 1000 << failures);
        // As if that time had passed.
        row = ObjectRow { alarm: Some(Alarm { due: failures.into(), ..alarm }), ..saved };
        fixture.registry.request(&id("o"), Request::Remove, PATIENCE, None).await.unwrap();
        let write =
            ObjectWrite { id: id("o"), changes: BTreeMap::new(), before: ObjectRow::default(), after: row };
        fixture.until_empty().await;
        objects.commit(write).await.unwrap();
    }
    fixture.registry.ring(&id("o"), 6).await;
    assert_eq!(objects.load(&id("o")).await.unwrap().row, ObjectRow::default());
    let count = |outcome| {
        fixture.metrics.durable_alarms.get_or_create(&crate::metrics::ByReason { reason: outcome }).get()
    };
    assert_eq!((count("failed"), count("given_up")), (6, 1));
}

#[tokio::test]
async fn shutdown_stores_what_was_taken() {
    let fixture = Fixture::new().await;
    let feed = fixture.subscribe("o", 1).await;
    next(&feed).await.unwrap();
    let calls = join_all((0..50).map(|_| fixture.increment("o")));
    let deadline = now() + PATIENCE;
    let (sums, ()) = tokio::join!(calls, fixture.registry.send_away(deadline));
    let done = sums.iter().filter(|sum| sum.is_ok()).count();
    assert!(sums.iter().all(|sum| sum.is_ok() || *sum == Err(ObjectError::Stopping)), "{sums:?}");
    while next(&feed).await.is_some() {}
    assert_eq!(fixture.increment("p").await, Err(ObjectError::Stopping));
    // Nobody tells that the socket is gone, so its object waits until the deadline.
    drop(feed);
    assert_eq!(fixture.registry.end(now() + Duration::from_millis(50)).await, 1);
    let saved = fixture.store.objects().load(&id("o")).await.unwrap();
    let stored = saved.values.get("value").map_or(0, |value| value.get().parse().unwrap());
    assert_eq!(stored, done);
    assert_eq!(fixture.registry.deps().metrics.durable_loaded.get(), 0);
}

#[tokio::test]
async fn sockets_that_come_together_share_the_state() {
    let fixture = Fixture::new().await;
    fixture.increment("o").await.unwrap();
    let state = async |socket| {
        let feed = fixture.subscribe("o", socket).await;
        let Taken::Message(payload) = std::future::poll_fn(|context| feed.poll_take(now, context)).await
        else {
            panic!("no state")
        };
        (payload.bytes, feed)
    };
    let ((first, _a), (second, _b)) = (state(1).await, state(2).await);
    assert_eq!(
        (first.as_ptr(), &first[..]),
        (second.as_ptr(), &br#"{"type":"init","state":{"value":1}}"#[..])
    );
    fixture.increment("o").await.unwrap();
    assert_eq!(state(3).await.0, r#"{"type":"init","state":{"value":2}}"#);
    // While others' messages take all memory, nobody gets another long one.
    let queued = Counted::new(&fixture.metrics.outbox_bytes, 65 << 20);
    fixture.increment("o").await.unwrap();
    let socket = ConnectionId::new(NodeId::new(0), 4);
    let refused = fixture.registry.subscribe(&id("o"), socket, Encoding::Identity).await;
    assert!(matches!(refused, Err(ObjectError::Full(_))), "{refused:?}");
    drop(queued);
    assert_eq!(state(5).await.0, r#"{"type":"init","state":{"value":3}}"#);
}
