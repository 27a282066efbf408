//! Alarms of durable objects, and methods that take their time.

use std::time::{Duration, Instant};

use satsuma::config::{Config, Optional};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Ask;
use crate::durable::{KEY, Pooled, keys};
use crate::harness::{TestServer, eventually};

const SCRIPT: &str = r#"
export class DurableObject {
  constructor(state) {
    this.storage = state.storage;
  }
  async method_later({ ms }) {
    await this.storage.setAlarm(Date.now() + ms);
  }
  async method_slow() {
    const end = Date.now() + 300;
    while (Date.now() < end);
    await this.storage.put("slow", true);
  }
  async alarm() {
    const rung = ((await this.storage.get("rung")) ?? 0) + 1;
    await this.storage.put("rung", rung);
    this.broadcastUpdate("rung", rung);
    if (rung < 3) await this.storage.setAlarm(Date.now());
  }
}
"#;

/// Writes the script, and sets it.
fn script(directory: &TempDir) -> impl Fn(&mut Config) + use<> {
    let path = directory.path().join("objects.mjs");
    std::fs::write(&path, SCRIPT).unwrap();
    move |config| {
        keys(config);
        config.durable.script = Optional(Some(path.clone()));
        config.durable.idle_timeout = Duration::from_millis(10);
    }
}

async fn later(server: &TestServer, object: &str, ms: u32) {
    let mut library = Pooled::connect(server.addresses().http).await;
    let path = format!("/object/{object}/method/later");
    let (status, text) = library.call("POST", &path, Some(&json!({"ms": ms}).to_string())).await;
    assert_eq!((status, &*text), (200, r#"{"result":null}"#));
}

async fn rung(server: &TestServer, object: &str) -> Value {
    let mut library = Pooled::connect(server.addresses().http).await;
    let (_, text) = library.call("GET", &format!("/object/{object}/state"), None).await;
    serde_json::from_str::<Value>(&text).unwrap()["data"]["rung"].clone()
}

#[tokio::test]
async fn alarms_are_called_and_set_again() {
    let directory = tempfile::tempdir().unwrap();
    let server = TestServer::with(script(&directory)).await;
    let mut client = Ask::path(&format!("/durable/{KEY}/object/o/websocket")).open(&server).await;
    client.next().await;
    later(&server, "o", 20).await;
    for expected in 1..=3 {
        let update = client.next().await;
        assert_eq!((&update["key"], &update["value"]), (&json!("rung"), &json!(expected)));
    }
    // Many at once, of objects that are not in memory.
    for n in 0..100 {
        later(&server, &format!("p{n}"), 50).await;
    }
    eventually("all alarms are called".to_owned(), async || {
        server.metric(r#"satsuma_durable_alarms_total{reason="handled"}"#).await >= 303.0
    })
    .await;
    for n in 0..100 {
        assert_eq!(rung(&server, &format!("p{n}")).await, 3);
    }
}

#[tokio::test]
async fn alarm_of_before_a_restart_is_called() {
    let directory = tempfile::tempdir().unwrap();
    let server = TestServer::with(script(&directory)).await;
    later(&server, "o", 1_000).await;
    let server = server.restart().await;
    eventually("the alarm is called".to_owned(), async || rung(&server, "o").await == 3).await;
}

/// A call that was made before a slow one is answered before that has ended.
#[tokio::test]
async fn slow_method_delays_no_earlier_call() {
    let directory = tempfile::tempdir().unwrap();
    let server = TestServer::with(script(&directory)).await;
    let mut client = Ask::path(&format!("/durable/{KEY}/object/o/websocket")).open(&server).await;
    client.next().await;
    let started = now();
    client.say(json!({"type": "set", "id": 1, "key": "a", "value": 1})).await;
    client.say(json!({"type": "method", "id": 2, "method": "slow"})).await;
    client.say(json!({"type": "get", "id": 3, "key": "slow"})).await;
    assert_eq!(client.next().await["type"], "update");
    assert_eq!(client.next().await["type"], "set_response");
    assert!(started.elapsed() < Duration::from_millis(300), "it waited for the slow one");
    assert_eq!(client.next().await, json!({"type": "response", "id": 2, "success": true, "result": null}));
    assert_eq!(client.next().await["value"], true, "one after the other");
}

#[expect(clippy::disallowed_methods, reason = "a wait is measured")]
fn now() -> Instant {
    Instant::now()
}
