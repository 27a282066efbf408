//! The load tool against the real server: its counts add up, and no member remains.

use std::process::{Output, Stdio};
use std::time::Duration;

use satsuma_load::report::RunReport;
use satsuma_load::run::{CannotRun, run};
use satsuma_load::{Options, Protocols};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::harness::{PATIENCE, Reach, TestServer};
use crate::memory_engine::MemoryNetwork;
use crate::nats_server::{NatsServer, free_port, newest};
use crate::process::Process;

/// A short run: 2 rooms of 3, each 20 updates a second, for half a second.
fn short(url: &str) -> Options {
    Options {
        urls: vec![url.parse().unwrap()],
        rooms: 2,
        users: 3,
        rate: 20.0,
        protocol: Protocols::Orange,
        deflate: false,
        churn: 0.0,
        duration: Duration::from_millis(500),
        warm_up: Duration::ZERO,
        join_rate: 500.0,
        pids: Vec::new(),
        nats: Vec::new(),
        json: false,
    }
}

async fn load(options: Options) -> Result<RunReport, CannotRun> {
    timeout(PATIENCE, run(&options, CancellationToken::new(), |_| {})).await.unwrap()
}

/// Waits until the server has removed all members.
async fn until_empty(server: &TestServer) {
    for gauge in ["connections", "members", "rooms", "tcp_connections", "outbox_bytes", "store_pending"] {
        server.until_metric(&format!("satsuma_{gauge}"), 0.0).await;
    }
}

/// A server whose rooms end soon after their last member.
async fn quick() -> TestServer {
    TestServer::with(|config| {
        config.room.tick = Duration::from_millis(50);
        config.room.heartbeat_timeout = Duration::from_secs(15);
    })
    .await
}

fn assert_adds_up(report: &RunReport) {
    let updates = report.updates;
    assert!(updates.sent > 0, "{report}");
    assert_eq!(updates.seen + updates.overtaken + updates.unseen, updates.watched, "{report}");
    assert!(report.received.frames > 0 && report.received.bytes > report.received.frames * 400, "{report}");
    assert!(report.closes.is_empty() && report.broken.is_empty() && report.refusals.is_empty(), "{report}");
}

#[tokio::test]
async fn load_updates_arrive_and_users_leave() {
    let server = quick().await;
    let report = load(short(&server.http())).await.unwrap();
    assert_adds_up(&report);
    report.verdict().unwrap();
    let updates = report.updates;
    // 6 users of 20 a second for half a second, one of three in each room is its watcher.
    assert!((54..=66).contains(&updates.sent), "{report}");
    assert_eq!(updates.unseen, 0, "{report}");
    assert!(updates.watched < updates.sent && updates.seen > 0, "{report}");
    let latency = report.latency_ms.unwrap();
    assert!(latency.p50 > 0.0 && latency.p50 <= latency.p99 && latency.p99 <= latency.max, "{report}");
    // Three users of about 450 bytes.
    let snapshot = report.received.snapshot_bytes.unwrap();
    assert!((1200.0..1600.0).contains(&snapshot), "{report}");
    assert_eq!((report.joins.made, report.leaves.properly), (6, 6), "{report}");
    assert_eq!(server.metric("satsuma_messages_total{type=\"userLeft\"}").await, 6.0);
    until_empty(&server).await;
}

#[tokio::test]
async fn load_counts_discarded_bytes() {
    let server = quick().await;
    let options = Options { rooms: 1, users: 30, rate: 2.0, ..short(&server.http()) };
    let report = load(Options { warm_up: Duration::from_millis(200), ..options }).await.unwrap();
    assert_adds_up(&report);
    assert_eq!((report.updates.unseen, report.leaves.properly), (0, 30), "{report}");
    let snapshot = report.received.snapshot_bytes.unwrap();
    assert!(snapshot > 12_000.0, "so long that payloads are skipped: {report}");
    // Everyone receives the same as the watcher; frames are cut at the beginning and the end.
    let expected = report.received.frames as f64 * snapshot;
    let share = report.received.bytes as f64 / expected;
    assert!((0.9..1.1).contains(&share), "{share}: {report}");
}

#[tokio::test]
async fn idle_load_users_send_only_heartbeats() {
    let server = quick().await;
    let report = load(Options { rate: 0.0, ..short(&server.http()) }).await.unwrap();
    report.verdict().unwrap();
    assert_eq!((report.updates.sent, report.latency_ms), (0, None), "{report}");
    assert_eq!(server.metric("satsuma_messages_total{type=\"userUpdate\"}").await, 6.0);
    assert!(server.metric("satsuma_messages_total{type=\"heartbeat\"}").await >= 6.0);
    until_empty(&server).await;
}

#[tokio::test]
async fn load_churn_leaves_no_members() {
    // A dropped socket's member is removed by a tick; no other heartbeat gets this old.
    let server = TestServer::with(|config| {
        config.room.tick = Duration::from_millis(50);
        config.room.heartbeat_timeout = Duration::from_secs(2);
    })
    .await;
    let options = Options { churn: 20.0, rooms: 2, users: 4, ..short(&server.http()) };
    let report = load(options).await.unwrap();
    assert_adds_up(&report);
    assert!(report.joins.made >= 12, "{report}");
    assert!(report.leaves.dropped >= 2 && report.leaves.properly >= 8, "{report}");
    assert_eq!(report.leaves.dropped + report.leaves.properly, report.joins.made, "{report}");
    until_empty(&server).await;
}

/// A few seconds of the load that is run by hand for ten minutes against a release build:
/// `satsuma load --rooms 50 --users 6 --churn 10 --for 10m --pid …`.
#[tokio::test]
async fn mixed_load_completes_and_leaves_no_members() {
    let server = TestServer::with(|config| {
        config.room.tick = Duration::from_millis(100);
        // Longer than the interval of users' heartbeats.
        config.room.heartbeat_timeout = Duration::from_millis(6500);
    })
    .await;
    let crowds = [
        Options { rooms: 6, users: 5, rate: 3.0, churn: 20.0, ..short(&server.http()) },
        Options { rooms: 1, users: 30, rate: 1.0, churn: 5.0, deflate: true, ..short(&server.http()) },
        Options { rooms: 10, users: 3, rate: 0.0, ..short(&server.http()) },
    ];
    let runs = crowds.map(|crowd| load(Options { duration: Duration::from_secs(1), ..crowd }));
    let [small, large, idle] = runs;
    let reports = tokio::join!(small, large, idle);
    for report in [&reports.0, &reports.1, &reports.2] {
        let report = report.as_ref().unwrap();
        assert!(report.closes.is_empty() && report.broken.is_empty(), "{report}");
        assert!(report.refusals.is_empty(), "{report}");
        assert_eq!(report.leaves.dropped + report.leaves.properly, report.joins.made, "{report}");
    }
    assert_eq!(server.metric("satsuma_room_panics_total").await, 0.0);
    until_empty(&server).await;
}

#[tokio::test]
async fn load_is_spread_over_nodes() {
    let network = MemoryNetwork::default();
    let edit = |config: &mut satsuma::config::Config| config.room.tick = Duration::from_millis(50);
    let (a, _) = TestServer::node(&network, None, edit).await;
    let (b, _) = TestServer::node(&network, Some(&a), edit).await;
    let urls = [&a, &b].map(|node| node.http().parse().unwrap()).to_vec();
    let report = load(Options { urls, ..short(&a.http()) }).await.unwrap();
    assert_adds_up(&report);
    report.verdict().unwrap();
    assert_eq!(report.urls, [a.http(), b.http()]);
    // The watcher of each room of three is with one of the others, and without the other one.
    let (all, across) = (report.latency_ms.unwrap(), report.latency_across_ms.unwrap());
    assert!(across.p50 > 0.0 && across.max <= all.max, "{report}");
    assert!(report.to_string().contains("\n  across       p50 "), "{report}");
    for node in [&a, &b] {
        // Each node had three of the six.
        node.until_metric("satsuma_closes_total{reason=\"user_left\"}", 3.0).await;
        node.until_metric("satsuma_connections", 0.0).await;
    }
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn load_counts_the_messages_of_nats() {
    let monitoring = free_port();
    let nats = NatsServer::start(&newest(), &format!("http: \"127.0.0.1:{monitoring}\"")).await;
    let dir = tempfile::tempdir().unwrap();
    let url = nats.url();
    let mut nodes = Vec::new();
    for number in 0..2 {
        let settings = [
            ("SATSUMA_CLUSTER__NATS", &*url),
            ("SATSUMA_CLUSTER__SECRET", "a-secret-of-tests-that-all-nodes-share"),
            ("SATSUMA_CALLS__ROOM_CHECK", "false"),
        ];
        nodes.push(Process::start(&dir.path().join(format!("node-{number}")), &settings).await);
    }
    let urls: Vec<_> = nodes.iter().map(|node| format!("http://{}", node.reached_at().http)).collect();
    let options = Options {
        urls: urls.iter().map(|url| url.parse().unwrap()).collect(),
        pids: nodes.iter().map(Process::pid).collect(),
        nats: vec![format!("http://127.0.0.1:{monitoring}").parse().unwrap()],
        ..short(&urls[0])
    };
    let report = load(options.clone()).await.unwrap();
    assert_adds_up(&report);
    let bus = report.bus.unwrap();
    // Messages of a relayed member go to the owner, and those of the owner to the relay.
    assert!(bus.traffic.in_messages > 20 && bus.traffic.out_bytes > 10_000, "{report}");
    assert!(bus.messages_per_update.unwrap() > 1.0, "{report}");
    assert!(report.server.unwrap().resident_joined_bytes > 2 << 20, "{report}");

    let missing = Options { nats: vec!["http://127.0.0.1:1".parse().unwrap()], ..options };
    let error = load(missing).await.unwrap_err().to_string();
    assert!(error.starts_with("--nats http://127.0.0.1:1: ") && error.contains("-m 8222"), "{error}");
}

#[tokio::test]
async fn load_reports_the_negotiated_compression() {
    let server = quick().await;
    let report = load(Options { deflate: true, ..short(&server.http()) }).await.unwrap();
    assert_adds_up(&report);
    assert_eq!(report.updates.unseen, 0, "{report}");
    assert!(report.compression.offered);
    let is_noted = report.notes.iter().any(|note| note.contains("uncompressed"));
    assert_eq!(is_noted, report.compression.agreed.is_none(), "{report}");
    until_empty(&server).await;
}

#[tokio::test]
async fn load_reports_the_servers_refusal() {
    let server = TestServer::with(|config| config.limits.members_per_room = 2).await;
    let report = load(short(&server.http())).await.unwrap();
    assert_eq!((report.joins.made, report.joins.refused), (4, 2), "{report}");
    assert_eq!(report.refusals["503"].says, "the room is full");
    assert_eq!(report.verdict().unwrap_err().to_string(), "2 not let in: 2 × 503 (the room is full)");
}

#[tokio::test]
async fn load_without_any_join_fails() {
    let server = TestServer::with(|config| config.limits.connections = 0).await;
    let error = load(short(&server.http())).await.unwrap_err().to_string();
    assert_eq!(error, "the server lets nobody in: 503: the server is full");
    // The operators' listener has neither a login nor rooms.
    let wrong = format!("http://{}", server.addresses().admin);
    let error = load(short(&wrong)).await.unwrap_err().to_string();
    assert!(error.starts_with("the server lets nobody in: 404: "), "{error}");
    let address = server.addresses().http;
    server.stop().await;
    let error = load(short(&format!("http://{address}"))).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("http://{address} cannot be reached: ")), "{error}");
}

#[tokio::test]
async fn stopped_load_reports_partial_results() {
    let server = quick().await;
    let stop = CancellationToken::new();
    let options = Options { duration: Duration::from_secs(3600), ..short(&server.http()) };
    let stopping = stop.clone();
    let on_progress = move |progress: satsuma_load::run::RunProgress| {
        if progress.p99.is_some() {
            stopping.cancel();
        }
    };
    let report = timeout(PATIENCE, run(&options, stop, on_progress)).await.unwrap().unwrap();
    assert!(!report.is_whole && report.updates.seen > 0, "{report}");
    assert_eq!(report.leaves.properly, 6, "{report}");
    until_empty(&server).await;
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_satsuma"));
    command.arg("load").args(arguments).kill_on_drop(true).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn output(arguments: &[&str]) -> Output {
    timeout(PATIENCE, program(arguments).output()).await.unwrap().unwrap()
}

#[tokio::test]
async fn load_prints_one_json_object() {
    let server = quick().await;
    let pid = std::process::id().to_string();
    let url = server.http();
    let line = ["--url", &url, "--rooms=2", "--users=3", "--for=1s", "--warm-up=0s", "--json", "--pid", &pid];
    let output = output(&line).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{error}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["joins"]["made"], &report["leaves"]["properly"]), (&6.into(), &6.into()));
    assert_eq!(report["updates"]["sent"], 6);
    assert_eq!(report["updates"]["seen"], report["updates"]["watched"]);
    assert!(report["latencyMs"]["p99"].as_f64().unwrap() > 0.0);
    assert!(report["server"]["residentBeforeBytes"].as_u64().unwrap() > 1 << 20);
    assert!(error.contains("measuring: 6 of 6 users in"), "{error}");
}

#[tokio::test]
async fn load_reports_on_ctrl_c_and_rejects_bad_flags() {
    let server = quick().await;
    let url = server.http();
    let mut child =
        program(&["--url", &url, "--users=3", "--rate=20", "--for=1h", "--warm-up=0s"]).spawn().unwrap();
    let mut progress = BufReader::new(child.stderr.take().unwrap()).lines();
    while !timeout(PATIENCE, progress.next_line()).await.unwrap().unwrap().unwrap().contains("p99") {}
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let drained = async { while let Ok(Some(_)) = progress.next_line().await {} };
    let (output, ()) =
        timeout(PATIENCE, async { tokio::join!(child.wait_with_output(), drained) }).await.unwrap();
    let output = output.unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{table}");
    assert!(table.contains("latency      p50 ") && table.contains("note: stopped early"), "{table}");

    let wrong = self::output(&["--url", "https://127.0.0.1:1"]).await;
    let error = String::from_utf8(wrong.stderr).unwrap();
    assert!(!wrong.status.success() && error.contains("http:// (or ws://) only"), "{error}");
}
