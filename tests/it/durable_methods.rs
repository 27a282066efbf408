//! Methods of durable objects from outside of the server: the operator's script, and the callback.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use satsuma::config::DurableConfig;
use satsuma::durable::keys::KeyNumber;
use satsuma::durable::method::{Change, MethodCall, MethodError, MethodOutcome, Payer, Target};
use satsuma::durable::methods::Methods;
use satsuma::durable::script::{Script, ScriptLimits};
use satsuma::id::ObjectId;
use satsuma::metrics::{ByReason, Metrics};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::client::Ask;
use crate::durable::{KEY, Pooled, keys};
use crate::harness::{TestServer, eventually, logged};

fn call(method: &str, params: Value, state: Value) -> MethodCall {
    let raw = |value: &Value| RawValue::from_string(value.to_string()).unwrap();
    let state = state.as_object().unwrap().iter();
    MethodCall {
        object: ObjectId::parse("room:1").unwrap(),
        target: Target::Method(method.to_owned()),
        payer: Payer::Key(KeyNumber::default()),
        params: raw(&params),
        state: Arc::new(state.map(|(key, value)| (key.as_str().into(), raw(value).into())).collect()),
        alarm: None,
        version: 7,
        at: 0,
    }
}

/// Everything that a call did, as JSON.
fn shown(result: Result<MethodOutcome, MethodError>) -> Result<Value, MethodError> {
    let read = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).unwrap();
    result.map(|outcome| {
        let changes = outcome.changes.iter().map(|change| match change {
            Change::Put { key, value } => json!([key, read(value)]),
            Change::Delete { key } => json!([key]),
        });
        let updates = outcome.updates.iter().map(|update| json!([update.key, read(&update.value)]));
        json!([read(&outcome.result), changes.collect::<Vec<_>>(), updates.collect::<Vec<_>>()])
    })
}

fn unavailable<T>(problem: &str) -> Result<T, MethodError> {
    Err(MethodError::Unavailable(problem.to_owned()))
}

/// A reply of the receiver: status and body; none to hang.
type Reply = Option<(u16, String)>;

/// A receiver of callbacks that gives prepared replies.
struct Receiver {
    url: String,
    posted: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

impl Receiver {
    async fn start() -> Self {
        let (posted, replies) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<VecDeque<Reply>>>::default());
        let (seen, next) = (posted.clone(), replies.clone());
        let app = Router::new().fallback(async move |_: Uri, headers: HeaderMap, body: Bytes| {
            seen.lock().unwrap().push((headers, body));
            let reply = next.lock().unwrap().pop_front().unwrap();
            let Some((status, body)) = reply else { std::future::pending().await };
            (StatusCode::from_u16(status).unwrap(), [("location", "/elsewhere")], body)
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/objects?token=hush", listener.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "a test's server ends with it")]
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, posted, replies }
    }

    fn config(&self) -> DurableConfig {
        let mut config = DurableConfig::default();
        config.callback_url.0 = Some(self.url.parse().unwrap());
        config.callback_secret.0 = Some(SECRET.into());
        config
    }

    fn methods(&self) -> Methods {
        Methods::load(&self.config(), Metrics::new()).unwrap()
    }

    fn reply(&self, status: u16, body: impl Into<String>) {
        self.replies.lock().unwrap().push_back(Some((status, body.into())));
    }

    fn hang(&self) {
        self.replies.lock().unwrap().push_back(None);
    }

    fn count(&self) -> usize {
        self.posted.lock().unwrap().len()
    }
}

#[tokio::test]
async fn callback_is_signed_and_its_answer_is_one_step() {
    let receiver = Receiver::start().await;
    let methods = receiver.methods();
    let answer = json!({
        "result": { "ok": true },
        "set": { "b": [1], "a": null, "__proto__": 2 },
        "delete": ["old", "a"],
        "broadcast": [{ "key": "k", "value": 1 }, "b", "a", "old", "kept", "never"],
    });
    receiver.reply(200, answer.to_string());
    let state = json!({ "old": 1, "kept": { "x": 1.0 } });
    let done = methods.call(call("method_join", json!({ "who": "ü" }), state)).await;
    assert_eq!(
        shown(done),
        Ok(json!([
            { "ok": true },
            [["old"], ["__proto__", 2], ["a", null], ["b", [1]]],
            [["k", 1], ["b", [1]], ["a", null], ["old", null], ["kept", { "x": 1.0 }], ["never", null]],
        ]))
    );

    let (headers, body) = receiver.posted.lock().unwrap().remove(0);
    let expected = r#"{"object":"room:1","method":"method_join","params":{"who":"ü"},"state":{"kept":{"x":1.0},"old":1},"version":7}"#;
    assert_eq!(str::from_utf8(&body).unwrap(), expected);
    let header = |name: &str| headers[name].to_str().unwrap();
    assert_eq!(header("content-type"), "application/json");
    assert!(header("webhook-id").starts_with("msg_"));
    let age = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
        - header("webhook-timestamp").parse::<u64>().unwrap();
    assert!(age < 60, "{age}");
    let signed = [header("webhook-id"), header("webhook-timestamp"), expected].join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(&SECRET[6..]).unwrap());
    let signature = STANDARD.decode(header("webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
    hmac::verify(&key, signed.as_bytes(), &signature).unwrap();
}

#[tokio::test]
async fn callback_status_is_told_to_the_caller() {
    let receiver = Receiver::start().await;
    let methods = receiver.methods();
    let long = "ü".repeat(2000);
    let text = |text: &str| text.to_owned();
    for (status, body, expected) in [
        (200, "{}".to_owned(), Ok(json!([null, [], []]))),
        (204, String::new(), Ok(json!([null, [], []]))),
        (201, r#"{"result":1,"more":2}"#.to_owned(), Ok(json!([1, [], []]))),
        (404, String::new(), Err(MethodError::NotFound)),
        (400, r#"{"error":"no such seat"}"#.to_owned(), Err(MethodError::Invalid(text("no such seat")))),
        (
            422,
            "<html>".to_owned(),
            Err(MethodError::Invalid(text("the callback does not take the parameters"))),
        ),
        (500, r#"{"error":"no luck"}"#.to_owned(), Err(MethodError::Failed(text("no luck")))),
        (500, json!({ "error": long }).to_string(), Err(MethodError::Failed("ü".repeat(512)))),
        (500, String::new(), Err(MethodError::Failed(text("the callback failed")))),
        (401, String::new(), unavailable("the callback answered 401")),
        (503, r#"{"error":"hush"}"#.to_owned(), unavailable("the callback answered 503")),
        (302, String::new(), unavailable("the callback answered 302")),
        (307, String::new(), unavailable("the callback answered 307")),
    ] {
        receiver.reply(status, body);
        assert_eq!(shown(methods.call(call("m", json!({}), json!({}))).await), expected, "{status}");
    }
    assert_eq!(receiver.count(), 13, "each call is made once");
}

#[tokio::test]
async fn callback_garbage_changes_nothing() {
    let receiver = Receiver::start().await;
    let methods = receiver.methods();
    let form = "it is not a JSON object with result, set, delete and broadcast";
    let key = "a key has 1 to 2048 bytes";
    let nested = |value: &str| format!("{}{value}{}", "[".repeat(129), "]".repeat(129));
    let many: Vec<u32> = vec![0; 20_001];
    for (answer, problem) in [
        (String::new(), form),
        ("<html>".to_owned(), form),
        ("[]".to_owned(), form),
        ("1".to_owned(), form),
        (r#"{"result":1}{"#.to_owned(), form),
        (r#"{"set":[]}"#.to_owned(), form),
        (r#"{"delete":{}}"#.to_owned(), form),
        (r#"{"delete":[1]}"#.to_owned(), form),
        (r#"{"broadcast":"k"}"#.to_owned(), form),
        (r#"{"set":null}"#.to_owned(), form),
        (r#"{"broadcast":[1]}"#.to_owned(), "a broadcast is a key, or an object with key and value"),
        (r#"{"broadcast":[["k",1]]}"#.to_owned(), "a broadcast is a key, or an object with key and value"),
        (r#"{"broadcast":[{"key":"k"}]}"#.to_owned(), "a broadcast is a key, or an object with key and value"),
        (r#"{"set":{"":1}}"#.to_owned(), key),
        (format!(r#"{{"delete":["{}"]}}"#, "k".repeat(2049)), key),
        (r#"{"broadcast":[""]}"#.to_owned(), key),
        (format!(r#"{{"result":{}}}"#, nested("")), "a value is nested more than 128 deep"),
        (format!(r#"{{"set":{{"k":{}}}}}"#, nested("")), "a value is nested more than 128 deep"),
        (json!({ "broadcast": [{ "key": "k", "value": nested("") }], "delete": many.iter().map(|_| "k").collect::<Vec<_>>() }).to_string(),
         "it has more than 20000 changes and messages"),
    ] {
        receiver.reply(200, answer.clone());
        let failed = shown(methods.call(call("m", json!({}), json!({ "k": 1 }))).await);
        let start = answer.chars().take(60).collect::<String>();
        assert_eq!(failed, unavailable(&format!("invalid answer from the callback: {problem}")), "{start}");
    }
    receiver.reply(200, format!(r#"{{"result":"{}"}}"#, "x".repeat(9 << 20)));
    let failed = methods.call(call("m", json!({}), json!({}))).await;
    assert_eq!(shown(failed), unavailable("the callback's answer is too large"));
}

#[tokio::test]
async fn callback_that_hangs_times_out_and_is_made_once() {
    let receiver = Receiver::start().await;
    let mut config = receiver.config();
    config.callback_timeout = Duration::from_millis(50);
    let metrics = Metrics::new();
    let methods = Methods::load(&config, metrics.clone()).unwrap();
    receiver.hang();
    assert_eq!(shown(methods.call(call("m", json!({}), json!({}))).await), Err(MethodError::TimedOut));
    assert_eq!(receiver.count(), 1);
    let text = metrics.render();
    assert!(
        text.contains(r#"satsuma_durable_call_seconds_count{kind="callback",outcome="timed_out"} 1"#),
        "{text}"
    );

    // Nothing listens where the listener was.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    config.callback_url.0 = Some(format!("http://{gone}/hush").parse().unwrap());
    let methods = Methods::load(&config, metrics).unwrap();
    let failed = methods.call(call("m", json!({}), json!({}))).await;
    assert_eq!(shown(failed), unavailable("the callback cannot be reached"));
}

const COUNTER: &str = "export class Counter { method_version() { return 1; } }";

fn script(source: &str) -> (tempfile::TempDir, DurableConfig) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("objects.mjs");
    fs::write(&path, source).unwrap();
    let mut config = DurableConfig::default();
    config.script.0 = Some(path);
    config.script_threads = 1;
    (directory, config)
}

#[tokio::test]
async fn script_comes_before_the_callback() {
    let receiver = Receiver::start().await;
    let (_directory, mut config) = script(COUNTER);
    (config.callback_url, config.callback_secret) =
        (receiver.config().callback_url, receiver.config().callback_secret);
    let methods = Methods::load(&config, Metrics::new()).unwrap();
    assert_eq!(shown(methods.call(call("version", json!({}), json!({}))).await), Ok(json!([1, [], []])));
    receiver.reply(200, r#"{"result":"called"}"#);
    let other = methods.call(call("join", json!({}), json!({}))).await;
    assert_eq!(shown(other), Ok(json!(["called", [], []])));
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn broken_script_keeps_the_one_before() {
    let (_directory, config) = script(COUNTER);
    let path = config.script.as_deref().unwrap().to_owned();
    let metrics = Metrics::new();
    let limits = ScriptLimits { time: Duration::from_secs(20), memory_bytes: 16 << 20 };
    let script = Script::load(&path, limits, 1, metrics.clone()).unwrap();
    let counted = async |reason, count| {
        let reloads = || metrics.durable_script_reloads.get_or_create(&ByReason { reason }).get();
        eventually(format!("{count} {reason}"), async || reloads() == count).await;
    };
    let version = async || shown(script.call(call("version", json!({}), json!({}))).await);
    let checks = async {
        assert_eq!(version().await, Ok(json!([1, [], []])));
        replace(&path, "export class Counter {");
        counted("unusable", 1).await;
        assert_eq!(version().await, Ok(json!([1, [], []])));
        replace(&path, &COUNTER.replace('1', "2"));
        counted("used", 1).await;
        assert_eq!(version().await, Ok(json!([2, [], []])));
        fs::remove_file(&path).unwrap();
        counted("unusable", 2).await;
        assert_eq!(version().await, Ok(json!([2, [], []])));
        replace(&path, COUNTER);
        counted("used", 2).await;
        assert_eq!(version().await, Ok(json!([1, [], []])));
    };
    tokio::select! {
        () = script.keep_fresh(Duration::from_millis(5)) => {}
        () = checks => {}
    }
}

/// Writes a file as a whole, as deployments do.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, path).unwrap();
}

#[tokio::test]
async fn script_that_is_broken_prevents_the_start() {
    let (_directory, mut config) = script("export class {");
    let faults = Methods::load(&config, Metrics::new()).unwrap_err().to_string();
    let path = config.script.as_deref().unwrap().display().to_string();
    assert!(faults.starts_with(&format!("{path}: durable.script: ")), "{faults}");
    config.script.0 = Some("/nowhere/objects.mjs".into());
    let faults = Methods::load(&config, Metrics::new()).unwrap_err().to_string();
    assert!(faults.starts_with("/nowhere/objects.mjs: durable.script: cannot be read: "), "{faults}");
}

#[tokio::test]
async fn endless_calls_hold_nobody_up_for_long() {
    let (_directory, mut config) = script(
        "export class A { method_loop() { for (;;); } method_one() { return 1; }
         method_search(data) { return Array.prototype.indexOf.call({ length: data.steps }, 1); } }",
    );
    config.script_time = Duration::from_millis(100);
    let methods = Methods::load(&config, Metrics::new()).unwrap();
    let limit = Err(MethodError::Limit("the method took more than 100ms".to_owned()));
    let run = async |name, params| shown(methods.call(call(name, params, json!({}))).await);
    let calls = (0..8).map(|at| run(if at % 4 == 3 { "one" } else { "loop" }, json!({})));
    for (at, result) in futures_util::future::join_all(calls).await.into_iter().enumerate() {
        assert_eq!(result, if at % 4 == 3 { Ok(json!([1, [], []])) } else { limit.clone() }, "{at}");
    }
    // A search in native code, which the engine does not stop: the one thread is replaced.
    assert_eq!(run("search", json!({ "steps": 1e8 })).await, limit);
    assert_eq!(run("one", json!({})).await, Ok(json!([1, [], []])));
    assert_eq!(run("search", json!({ "steps": 10 })).await, Ok(json!([-1, [], []])));
}

#[tokio::test]
async fn server_calls_the_script_for_http_sockets_and_alarms() {
    let (_directory, durable) = script(
        r#"export class DurableObject {
          constructor(state) { this.storage = state.storage; }
          async method_join({ user }) {
            if (!user) throw new Error("user is required");
            const members = (await this.storage.get("members")) ?? [];
            members.push(user);
            await this.storage.put("members", members);
            this.broadcastUpdate("members", members);
            return { count: members.length };
          }
          async method_lose() {
            await this.storage.put("members", []);
            this.broadcastUpdate("members", []);
            for (;;);
          }
          method_echo() { return "mine"; }
          async method_later() { await this.storage.setAlarm(Date.now()); }
          async alarm() {
            await this.storage.put("rang", true);
            this.broadcastUpdate("rang", true);
          }
        }"#,
    );
    let server = TestServer::with(|config| {
        keys(config);
        config.durable.script = durable.script;
        config.durable.script_time = Duration::from_millis(200);
    })
    .await;
    let mut socket = Ask::path(&format!("/durable/{KEY}/object/room/websocket")).open(&server).await;
    assert_eq!(socket.next().await["type"], "init");
    let mut library = Pooled::connect(server.addresses().http).await;
    for (method, params, status, expected) in [
        ("join", r#"{"user":"Ada"}"#, 200, r#"{"result":{"count":1},"count":1}"#),
        ("method_join", r#"{"user":"Bob"}"#, 200, r#"{"result":{"count":2},"count":2}"#),
        ("join", "{}", 500, r#"{"error":"user is required"}"#),
        ("lose", "{}", 500, r#"{"error":"the method took more than 200ms"}"#),
        ("echo", "{}", 200, r#"{"result":"mine"}"#),
        ("increment", "{}", 200, r#"{"result":{"value":1},"value":1}"#),
        ("alarm", "{}", 404, r#"{"error":"Method not found: alarm"}"#),
        ("later", "{}", 200, r#"{"result":null}"#),
    ] {
        let answer = library.call("POST", &format!("/object/room/method/{method}"), Some(params)).await;
        assert_eq!(answer, (status, expected.to_owned()), "{method}");
    }
    for (key, value) in [
        ("members", json!(["Ada"])),
        ("members", json!(["Ada", "Bob"])),
        ("value", json!(1)),
        ("rang", json!(true)),
    ] {
        let update = socket.next().await;
        assert_eq!((&update["key"], &update["value"]), (&json!(key), &value), "{update}");
    }
    let state = library.call("GET", "/object/room/state", None).await.1;
    assert_eq!(state, r#"{"data":{"members":["Ada","Bob"],"rang":true,"value":1}}"#);
}

#[tokio::test]
async fn server_answers_what_the_callback_says() {
    let receiver = Receiver::start().await;
    let server = TestServer::with(|config| {
        keys(config);
        config.durable.callback_url = receiver.config().callback_url;
        config.durable.callback_secret = receiver.config().callback_secret;
        config.durable.callback_timeout = Duration::from_millis(100);
    })
    .await;
    let mut library = Pooled::connect(server.addresses().http).await;
    receiver.reply(200, r#"{"result":{"n":1},"set":{"k":[1]},"broadcast":["k"]}"#);
    receiver.hang();
    receiver.reply(200, "<html>");
    receiver.reply(200, r#"{"set":{"k":2,"big":"BIG"}}"#.replace("BIG", &"x".repeat(200_000)));
    for (status, expected) in [
        (200, r#"{"result":{"n":1},"n":1}"#),
        (504, r#"{"error":"the method did not answer in time"}"#),
        (
            502,
            r#"{"error":"invalid answer from the callback: it is not a JSON object with result, set, delete and broadcast"}"#,
        ),
        (413, r#"{"error":"the value is too long"}"#),
    ] {
        let answer = library.call("POST", "/object/o/method/own", Some("{}")).await;
        assert_eq!(answer, (status, expected.to_owned()));
    }
    assert_eq!(library.call("GET", "/object/o/state", None).await.1, r#"{"data":{"k":[1]}}"#);
    assert!(!logged().contains("hush"), "the callback's URL may have a token");
}

#[tokio::test]
async fn slow_calls_of_one_key_do_not_hold_up_another() {
    let class = "export class D { method_slow() { for (;;); } method_quick() { return 1; } }";
    let (_directory, config) = script(class);
    let path = config.script.as_deref().unwrap();
    let limits = ScriptLimits { time: Duration::from_millis(50), memory_bytes: 16 << 20 };
    let script = Script::load(path, limits, 1, Metrics::new()).unwrap();
    let slow = MethodCall { payer: Payer::Alarms, ..call("slow", json!({}), json!({})) };
    let ended = AtomicUsize::new(0);
    let slow = join_all((0..20).map(async |_| {
        let failed = script.call(slow.clone()).await;
        assert!(matches!(failed, Err(MethodError::Limit(_))), "{failed:?}");
        ended.fetch_add(1, Ordering::Relaxed);
    }));
    let quick = async {
        let done = shown(script.call(call("quick", json!({}), json!({}))).await);
        (done, ended.load(Ordering::Relaxed))
    };
    // The slow ones are first in the queue.
    let (_, (done, ended)) = tokio::join!(slow, quick);
    assert_eq!(done, Ok(json!([1, [], []])));
    assert!(ended <= 2, "{ended} slow calls went first");
}
