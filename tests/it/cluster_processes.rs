//! Several nodes as real processes, on a real NATS server.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::client::{Ask, Client, user_of};
use crate::cluster::{chat, told, users};
use crate::durable::{KEY, Pooled};
use crate::event_webhooks::SECRET as WEBHOOK_SECRET;
use crate::harness::{Person, Reach, eventually, metric};
use crate::nats_server::{NatsServer, newest};
use crate::process::Process;
use crate::webhook::{Posted, Webhook};

const SECRET: &str = "a secret of tests that all nodes share";

/// Number of kills in a test: `KILLS`, or five.
fn kills() -> usize {
    std::env::var("KILLS").map_or(5, |kills| kills.parse().expect("KILLS is a number"))
}

/// Nodes on one NATS server.
struct Nodes {
    nats: NatsServer,
    dir: TempDir,
    started: usize,
    /// Further settings of all nodes.
    settings: Vec<(&'static str, String)>,
}

impl Nodes {
    async fn new() -> Self {
        let nats = NatsServer::start(&newest(), "").await;
        Self { nats, dir: tempfile::tempdir().unwrap(), started: 0, settings: Vec::new() }
    }

    async fn start(&mut self) -> Process {
        self.started += 1;
        let data = self.dir.path().join(format!("node-{}", self.started));
        self.start_in(&data).await
    }

    async fn start_in(&self, data: &Path) -> Process {
        let nats = self.nats.url();
        let secret = SECRET.replace(' ', "-");
        let mut settings = vec![
            ("SATSUMA_CLUSTER__NATS", &*nats),
            ("SATSUMA_CLUSTER__SECRET", &*secret),
            ("SATSUMA_CALLS__ROOM_CHECK", "false"),
            ("SATSUMA_DURABLE__KEYS", KEY),
            ("SATSUMA_DURABLE__CALLS_PER_SECOND_PER_OBJECT", "0"),
        ];
        settings.extend(self.settings.iter().map(|(name, value)| (*name, &**value)));
        Process::start(data, &settings).await
    }
}

/// The owner of a room is killed while members at two other nodes talk, again and again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
#[expect(clippy::disallowed_methods, reason = "the time that members wait is measured")]
async fn killed_owner_is_replaced() {
    let mut nodes = Nodes::new().await;
    let (b, c) = (nodes.start().await, nodes.start().await);
    let mut waits = Vec::new();
    for round in 0..kills() {
        let a = nodes.start().await;
        let room = format!("r{round}");
        let ada = Client::join(&a, &room, "Ada").await;
        let (mut bob, mut cyd) = (Client::join(&b, &room, "Bob").await, Client::join(&c, &room, "Cyd").await);
        let meeting = bob.until_state(|state| users(state) == 3).await["meetingId"].clone();
        for number in 1..=20 {
            chat(if number % 2 == 0 { &mut bob } else { &mut cyd }, number).await;
        }
        a.kill();
        let killed = Instant::now();
        chat(&mut bob, 21).await;
        let (by_bob, by_cyd) = (told(&mut bob, 21).await, told(&mut cyd, 21).await);
        waits.push(killed.elapsed());
        assert_eq!(by_bob, by_cyd, "both are told the same, in the same order");
        let mut sorted = by_bob.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), by_bob.len(), "nothing is told twice");
        let of_bob: Vec<_> = by_bob.iter().filter(|number| *number % 2 == 0).copied().collect();
        assert_eq!(of_bob, (2..=20).step_by(2).collect::<Vec<_>>(), "nothing that bob said is lost");
        // The member of the dead node comes back as who it was.
        let mut ada = ada.ask().open(&c).await;
        let state = ada.until_state(|state| users(state) == 3).await;
        assert_eq!(state["meetingId"], meeting);
    }
    waits.sort_unstable();
    let (median, late) = (waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
    println!("{} kills: members waited {median:?} at the median, {late:?} at p99: {waits:?}", waits.len());
    assert!(median < Duration::from_millis(2500), "{waits:?}");
}

/// An owner is killed at the moment at which a message is told, before its webhook can know.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn events_of_a_killed_node_are_posted_by_another() {
    let (mut nodes, hook) = (Nodes::new().await, Webhook::start([]).await);
    let webhook = format!(
        "[{{name = 'app', url = '{}', secret = '{WEBHOOK_SECRET}', chat = true, allow_private = true}}]",
        hook.url()
    );
    nodes.settings.push(("SATSUMA_WEBHOOKS", webhook));
    let b = nodes.start().await;
    for number in 1..=kills() as u32 {
        let a = nodes.start().await;
        let room = format!("r{number}");
        let _ada = Client::join(&a, &room, "Ada").await;
        let mut bob = Client::join(&b, &room, "Bob").await;
        chat(&mut bob, number).await;
        assert_eq!(told(&mut bob, number).await, [number]);
        a.kill();
        let is_posted =
            |posted: &Posted| posted.card["data"]["message"].as_str() == Some(&*number.to_string());
        eventually(format!("{number} is posted"), async || hook.posted().iter().any(is_posted)).await;
    }
    let mut of_ids = std::collections::BTreeMap::new();
    for posted in hook.posted() {
        let (id, data) = (posted.card["id"].to_string(), posted.card["data"].to_string());
        assert_eq!(*of_ids.entry(id).or_insert_with(|| data.clone()), data, "one id is one event");
    }
    let joined = hook.posted().into_iter().filter(|posted| posted.card["type"] == "member.joined");
    let joined: std::collections::BTreeSet<_> = joined.map(|posted| posted.card["id"].to_string()).collect();
    assert_eq!(joined.len(), 2 * kills());
}

/// Nodes are replaced one after another: the rooms stay, and sockets elsewhere stay open.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn stopped_nodes_hand_rooms_over() {
    let mut nodes = Nodes::new().await;
    let (a, b) = (nodes.start().await, nodes.start().await);
    let mut ada = Client::join(&a, "r", "Ada").await;
    let mut bob = Client::join(&b, "r", "Bob").await;
    let meeting = ada.until_state(|state| users(state) == 2).await["meetingId"].clone();
    bob.until_state(|state| users(state) == 2).await;
    let c = nodes.start().await;
    a.stop().await;
    assert_eq!(ada.closed().await.0, 1012);
    chat(&mut bob, 1).await;
    assert_eq!(told(&mut bob, 1).await, [1]);
    let mut ada = ada.ask().open(&c).await;
    ada.until_state(|state| users(state) == 2).await;
    b.stop().await;
    assert_eq!(bob.closed().await.0, 1012);
    chat(&mut ada, 2).await;
    assert_eq!(told(&mut ada, 2).await, [2]);
    let mut bob = bob.ask().open(&c).await;
    let state = bob.until_state(|state| users(state) == 2).await;
    assert_eq!(state["meetingId"], meeting);
    c.stop().await;
}

/// A cluster of one node, which is killed and started again: the room and its members are as they were.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn lone_node_finds_its_rooms_again() {
    let mut nodes = Nodes::new().await;
    let a = nodes.start().await;
    let mut ada = Client::join(&a, "r", "Ada").await;
    let pk = ada.pk();
    ada.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    let state = ada.until_state(|state| user_of(state, &pk)["raisedHand"] == true).await;
    let meeting = state["meetingId"].clone();
    chat(&mut ada, 1).await;
    assert_eq!(told(&mut ada, 1).await, [1]);
    a.kill();
    let a = nodes.start().await;
    let eve = Person::log_in(&a, "Eve").await;
    let mut again = ada.ask().open(&a).await;
    let state = again.until_state(|state| !user_of(state, &pk).is_null()).await;
    assert_eq!(state["meetingId"], meeting);
    // The id is still that of whoever had it.
    assert_eq!(Ask::room("r").by(&eve).pk(&pk).try_open(&a).await.err(), Some(403));
    a.stop().await;
}

/// A single server becomes a cluster of one and a single one again; everybody is who they were, although each has keys of
/// its own for cookies.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn single_server_becomes_a_node_and_back() {
    let nodes = Nodes::new().await;
    let data = nodes.dir.path().join("data");
    let single = Process::start(&data, &[]).await;
    let mut ada = Client::join(&single, "r", "Ada").await;
    let pk = ada.pk();
    let meeting = ada.until_state(|state| users(state) == 1).await["meetingId"].clone();
    let mut ask = ada.ask();
    single.stop().await;
    for is_node in [true, false, true] {
        let server = if is_node { nodes.start_in(&data).await } else { Process::start(&data, &[]).await };
        let mut ada = ask.open(&server).await;
        let state = ada.until_state(|state| !user_of(state, &pk).is_null()).await;
        assert_eq!(state["meetingId"], meeting);
        ask = ada.ask();
        server.stop().await;
        assert_eq!(ada.closed().await.0, 1012);
    }
}

/// The engine is killed and started again: nobody is thrown out, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn restart_of_the_engine_is_survived() {
    let mut nodes = Nodes::new().await;
    let (a, b) = (nodes.start().await, nodes.start().await);
    let mut ada = Client::join(&a, "r", "Ada").await;
    let mut bob = Client::join(&b, "r", "Bob").await;
    ada.until_state(|state| users(state) == 2).await;
    nodes.nats.kill();
    for number in 1..=5 {
        chat(if number % 2 == 0 { &mut ada } else { &mut bob }, number).await;
    }
    eventually("the loss of the engine is known".to_owned(), async || {
        metric(&a, "satsuma_engine_connected").await == 0.0
    })
    .await;
    nodes.nats.restart();
    let mut numbers = Vec::new();
    while numbers.len() < 5 {
        let message = ada.until(|message| message["type"] == "chat").await;
        numbers.push(message["message"].clone());
    }
    for number in &numbers {
        assert_eq!(bob.until(|message| message["type"] == "chat").await["message"], *number);
    }
    a.stop().await;
    b.stop().await;
}

/// Counters that callers at two nodes add to: of a dozen a third node owned none in one test of a hundred.
const COUNTERS: usize = 48;

/// The sums that a caller was told of each counter, and its calls of which nobody knows if they were made.
#[derive(Default)]
struct Counted {
    told: Vec<(usize, u64)>,
    doubtful: Vec<usize>,
}

/// Adds to one counter after the other until it is told to stop.
async fn add(address: std::net::SocketAddr, round: usize, is_over: Arc<AtomicBool>) -> Counted {
    let mut library = Pooled::connect(address).await;
    let mut counted = Counted::default();
    for counter in (0..COUNTERS).cycle() {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let path = format!("/object/r{round}-{counter}/method/increment");
        let (status, text) = library.call("POST", &path, Some("{}")).await;
        match status {
            200 => {
                let value = serde_json::from_str::<Value>(&text).unwrap()["value"].as_u64().unwrap();
                counted.told.push((counter, value));
            }
            503 => {}
            504 => counted.doubtful.push(counter),
            _ => panic!("{status} {text}"),
        }
    }
    counted
}

/// A node is killed while callers at two others add to counters, a third of which it owns: no sum is told twice, and none
/// is lost.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server"]
async fn objects_outlive_killed_nodes() {
    let mut nodes = Nodes::new().await;
    let (b, c) = (nodes.start().await, nodes.start().await);
    for round in 0..kills() {
        let a = nodes.start().await;
        let is_over = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for node in [&b, &c, &b, &c] {
            callers.spawn(add(node.reached_at().http, round, is_over.clone()));
        }
        let commits = r#"satsuma_journal_appends_total{reason="stored"}"#;
        let calls = r#"satsuma_durable_request_seconds_count{kind="call_method",outcome="ok"}"#;
        let made = async || metric(&b, calls).await + metric(&c, calls).await;
        eventually("the killed one owns some".to_owned(), async || metric(&a, commits).await > 20.0).await;
        a.kill();
        let before = made().await;
        // Four callers go round once, also past those that wait for the next owner.
        let round_of_all = (4 * COUNTERS) as f64;
        eventually("calls are made again".to_owned(), async || made().await > before + round_of_all).await;
        is_over.store(true, Ordering::Relaxed);
        let all = callers.join_all().await;
        for counter in 0..COUNTERS {
            let told = all.iter().flat_map(|counted| &counted.told).filter(|(of, _)| *of == counter);
            let told: Vec<u64> = told.map(|(_, value)| *value).collect();
            let distinct: HashSet<u64> = told.iter().copied().collect();
            assert_eq!(distinct.len(), told.len(), "a sum is told once");
            let doubtful =
                all.iter().flat_map(|counted| &counted.doubtful).filter(|of| **of == counter).count();
            for node in [&b, &c] {
                let mut library = Pooled::connect(node.reached_at().http).await;
                let path = format!("/object/r{round}-{counter}/state/value");
                let (_, text) = library.call("GET", &path, None).await;
                let sum = serde_json::from_str::<Value>(&text).unwrap()["value"].as_u64().unwrap();
                let (least, most) = (told.len() as u64, (told.len() + doubtful) as u64);
                assert!((least..=most).contains(&sum), "{sum}, and {least} to {most} were added");
            }
        }
        let doubtful: usize = all.iter().map(|counted| counted.doubtful.len()).sum();
        println!("round {round}: {doubtful} calls in doubt");
    }
}
