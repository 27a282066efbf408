//! The real client library `partytracks` against this server, while the media API fails.
//!
//! `tests/partytracks/client.mjs` runs the library in Node and exits with success only at its goal.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::join_all;
use satsuma::config::Config;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;

use crate::cloud::{Cloud, Script};
use crate::harness::{Person, TestServer, eventually_within};

/// Timeout of the library; its longest pause between two tries is ten seconds.
const LIMIT_SECONDS: u64 = 40;

/// Each run is a process of its own that starts slowly.
static PERMITS: Semaphore = Semaphore::const_new(3);

const ICE: &str = "/generate-ice-servers";

/// Failures of the media API, with the status that a client gets.
const FAILURES: [(&str, u16); 9] = [
    ("401", 401),
    ("404", 404),
    ("410", 410),
    ("429", 429),
    ("500", 500),
    ("502 in HTML", 502),
    ("200 with an error code", 200),
    ("broken off", 502),
    ("silent", 504),
];

fn script(failure: &str) -> Script {
    let log = |status| {
        let body = r#"{"errorCode":"session_error","errorDescription":"as scripted"}"#;
        Script::Answer(status, body.to_owned())
    };
    match failure {
        "401" => log(401),
        "404" => log(404),
        "410" => log(410),
        "429" => Script::AnswerWith(429, vec![("retry-after", "1")], "slow down".to_owned()),
        "500" => log(500),
        "502 in HTML" => Script::AnswerWith(502, vec![], "<html>Bad gateway</html>".to_owned()),
        "200 with an error code" => log(200),
        "broken off" => Script::Drop,
        "silent" => Script::Silence,
        other => panic!("no failure is called {other}"),
    }
}

/// Runs a scenario, and returns the client's log, line by line.
async fn run(server: &TestServer, scenario: &str) -> Vec<Value> {
    let _permit = PERMITS.acquire().await.unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/partytracks");
    assert!(folder.join("node_modules/partytracks").is_dir(), "run npm ci in tests/partytracks");
    let ada = Person::log_in(server, "Ada").await;
    let mut node = tokio::process::Command::new("node");
    node.arg(folder.join("client.mjs")).args([
        &server.http(),
        ada.cookie(),
        scenario,
        &LIMIT_SECONDS.to_string(),
    ]);
    let mut node = node.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("node cannot be started");
    let mut log = String::new();
    node.stdout.take().unwrap().read_to_string(&mut log).await.unwrap();
    let status = node.wait().await.unwrap();
    assert!(status.success(), "{scenario}:\n{log}");
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The statuses that the client got for requests whose path ends in `path`.
fn statuses(log: &[Value], path: &str) -> Vec<u64> {
    let requests = log.iter().filter(|fact| fact["fact"] == "request");
    let own = requests.filter(|fact| fact["path"].as_str().unwrap().ends_with(path));
    own.filter_map(|fact| fact["status"].as_u64()).collect()
}

async fn server(cloud: &Cloud, edit: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::with(|config| {
        cloud.configure(config);
        // Long enough for a stand-in, short enough for a test.
        config.calls.timeout = Duration::from_millis(700);
        // The library is alone, without a room.
        config.calls.room_check = false;
        edit(config);
    })
    .await
}

/// Lets an operation fail twice in every way, after which the library must still reach its goal.
async fn heals(operation: &str, scenario: &str) {
    heals_if(operation, "", scenario).await;
}

/// The same for requests whose body contains `part`.
async fn heals_if(operation: &str, part: &str, scenario: &str) {
    let runs = FAILURES.map(async |(failure, status)| {
        let cloud = Cloud::start().await;
        let server = server(&cloud, |_| {}).await;
        for _ in 0..2 {
            cloud.script_body(operation, part, script(failure));
        }
        let log = run(&server, scenario).await;
        let got = statuses(&log, operation);
        // Without TURN there are other ICE servers, so that is no failure.
        let seen = if operation == ICE { 200 } else { status };
        assert!(got.contains(&seen.into()), "{operation}, {failure}: {got:?}");
        assert!(!log.iter().any(|fact| fact["fact"] == "reload"));
    });
    join_all(runs).await;
}

#[tokio::test]
#[ignore = "needs node"]
async fn failed_session_is_reopened() {
    heals("/sessions/new", "session").await;
}

#[tokio::test]
#[ignore = "needs node"]
async fn failed_push_is_retried() {
    heals("/tracks/new", "push").await;
}

#[tokio::test]
#[ignore = "needs node"]
async fn failed_update_is_dropped() {
    heals("/tracks/update", "update").await;
}

#[tokio::test]
#[ignore = "needs node"]
async fn push_after_failed_close_works() {
    heals("/tracks/close", "close").await;
}

/// The library drops a failed renegotiation; its connection fails, and it opens a new session.
#[tokio::test]
#[ignore = "needs node"]
async fn failed_renegotiation_opens_a_new_session() {
    heals("/renegotiate", "pull-flowing").await;
}

#[tokio::test]
#[ignore = "needs node"]
async fn failed_turn_leaves_ice_servers() {
    heals(ICE, "ice").await;
}

#[tokio::test]
#[ignore = "needs node"]
async fn failed_pull_is_retried() {
    heals_if("/tracks/new", r#""location":"remote""#, "pull-many").await;
}

/// Our own refusals are recoverable like the API's: here every second call is too fast.
#[tokio::test]
#[ignore = "needs node"]
async fn rate_limits_only_slow_the_library_down() {
    let cloud = Cloud::start().await;
    let server = server(&cloud, |config| config.limits.calls_per_second = 1).await;
    let log = run(&server, "close").await;
    let refused = ["/tracks/new", "/tracks/close"].map(|path| statuses(&log, path).contains(&429));
    assert!(refused.contains(&true), "{log:?}");
}

#[tokio::test]
#[ignore = "needs node"]
async fn library_recovers_when_the_api_returns() {
    let mut cloud = Cloud::down().await;
    let server = server(&cloud, |_| {}).await;
    let back = async {
        let open = r#"satsuma_call_seconds_count{operation="new_session",status="circuit_open"}"#;
        // The client may wait for its permit.
        let fact = async || server.metric(open).await > 0.0;
        eventually_within(Duration::from_secs(120), "the circuit is open".to_owned(), fact).await;
        cloud.come_up().await;
    };
    let (log, ()) = tokio::join!(run(&server, "push"), back);
    assert!(statuses(&log, "/sessions/new").contains(&502), "{log:?}");
}

#[tokio::test]
#[ignore = "needs node"]
async fn complete_call_passes_through_the_proxy() {
    let cloud = Cloud::start().await;
    let server = server(&cloud, |_| {}).await;
    for scenario in ["push-many", "pull-connected", "close-pull", "update"] {
        let log = run(&server, scenario).await;
        let failed =
            log.iter().any(|fact| fact["fact"] == "unhandled" || fact["status"].as_u64() >= Some(300));
        assert!(!failed, "{scenario}: {log:?}");
    }
    let tracks = cloud.seen_at("/tracks/new");
    assert!(
        tracks.iter().any(|seen| seen.json()["tracks"].as_array().unwrap().len() == 3),
        "pushes are batched"
    );
    for seen in cloud.seen() {
        assert!(seen.target.starts_with("/v1/apps/app/sessions/") || seen.target.starts_with("/v1/turn/"));
        assert_eq!(seen.header("cookie"), "");
    }
}
