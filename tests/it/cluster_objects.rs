//! Durable objects of several nodes: one owns an object, and any node answers for it.

use std::sync::Arc;

use satsuma::config::Optional;
use satsuma::id::{NodeId, ObjectId};
use satsuma::nodes::engine::{Engine, StoredEntry, Subject};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::cluster::{Mortal, two_nodes_with};
use crate::durable::{Pooled, keys};
use crate::harness::{TestServer, eventually};
use crate::memory_engine::MemoryNetwork;

async fn call(node: &TestServer, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
    let mut library = Pooled::connect(node.addresses().http).await;
    let (status, text) = library.call(method, path, body).await;
    (status, serde_json::from_str(&text).unwrap())
}

/// Adds one to a counter, and returns the status and the sum.
async fn increment(node: &TestServer, object: &str) -> (u16, u64) {
    let (status, answer) =
        call(node, "POST", &format!("/object/{object}/method/increment"), Some("{}")).await;
    (status, answer["value"].as_u64().unwrap_or_default())
}

async fn sum(node: &TestServer, object: &str) -> Value {
    let (status, answer) = call(node, "GET", &format!("/object/{object}/state"), None).await;
    if status == 200 { answer["data"]["value"].clone() } else { Value::from(status) }
}

/// The entries that an object's journal has.
async fn journal(network: &MemoryNetwork, object: &str) -> Vec<StoredEntry> {
    let (engine, _events) = network.node(NodeId::new(9));
    engine.all(Subject::object(&ObjectId::parse(object).unwrap())).await.unwrap()
}

/// Text that does not get shorter by compression.
fn noise(bytes: usize) -> String {
    let mut state = 7_u64;
    let noise = (0..bytes).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + u8::try_from((state >> 33) % 75).unwrap())
    });
    noise.map(|char| if char.is_ascii_alphanumeric() { char } else { '-' }).collect()
}

#[tokio::test]
async fn any_node_answers_for_an_object() {
    let (_network, a, b) = two_nodes_with(keys).await;
    assert_eq!(call(&b, "GET", "/object/o/state", None).await, (200, json!({"data": {}})));
    let put = call(&a, "PUT", "/object/o/state/color", Some(r#"{"value":[1.0]}"#)).await;
    assert_eq!(put, (200, json!({"success": true, "key": "color"})));
    for node in [&a, &b] {
        let read = call(node, "GET", "/object/o/state/color", None).await;
        assert_eq!(read, (200, json!({"key": "color", "value": [1.0]})));
        let (status, missing) = call(node, "GET", "/object/o/state/none", None).await;
        assert_eq!((status, &missing), (404, &json!({"error": "Key not found"})));
        let (status, unknown) = call(node, "POST", "/object/o/method/nothing", Some("{}")).await;
        assert_eq!((status, &unknown), (404, &json!({"error": "Method not found: nothing"})));
        let (status, _) = call(node, "DELETE", "/object/o/state/color", None).await;
        assert_eq!(status, 200);
        let init = call(node, "POST", "/initialize/o", Some(r#"{"color":[1.0]}"#)).await;
        assert_eq!(init, (200, json!({"success": true})));
    }
}

#[tokio::test]
async fn calls_of_two_nodes_are_counted_once_each() {
    let (_network, a, b) = two_nodes_with(keys).await;
    let (a, b) = (Arc::new(a), Arc::new(b));
    let mut callers = JoinSet::new();
    for caller in 0..10 {
        let node = if caller % 2 == 0 { a.clone() } else { b.clone() };
        callers.spawn(async move {
            let mut seen = Vec::new();
            for number in 0..10 {
                let (status, value) = increment(&node, &format!("o{}", number % 3)).await;
                assert_eq!(status, 200);
                seen.push((number % 3, value));
            }
            seen
        });
    }
    let mut seen: Vec<_> = callers.join_all().await.concat();
    seen.sort_unstable();
    let wanted = |object: u64, calls: u64| (1..=calls).map(move |value| (object, value));
    assert_eq!(seen, wanted(0, 40).chain(wanted(1, 30)).chain(wanted(2, 30)).collect::<Vec<_>>());
    for node in [&a, &b] {
        assert_eq!(sum(node, "o0").await, 40);
    }
}

#[tokio::test]
async fn object_outlives_its_owner() {
    let network = MemoryNetwork::default();
    let owner = Mortal::start_first(&network, keys);
    for object in ["o", "p", "q"] {
        assert_eq!(increment(&owner.server, object).await, (200, 1));
    }
    let (b, _) = TestServer::node(&network, Some(&owner.server), keys).await;
    let (c, _) = TestServer::node(&network, Some(&owner.server), keys).await;
    for object in ["o", "p", "q"] {
        assert_eq!(increment(&b, object).await, (200, 2));
        assert_eq!(increment(&c, object).await, (200, 3));
    }
    let dead = owner.kill();
    for object in ["o", "p", "q"] {
        // A read is asked again of the next owner.
        assert_eq!(sum(&c, object).await, 3);
        assert_eq!(increment(&b, object).await, (200, 4));
        assert_eq!(sum(&c, object).await, 4);
    }
    drop(dead);
}

/// The owner dies while a step waits to be stored: nobody was told, and the next owner knows nothing of it.
#[tokio::test]
async fn step_that_is_not_stored_is_shown_to_nobody() {
    let network = MemoryNetwork::default();
    let owner = Mortal::start_first(&network, keys);
    assert_eq!(increment(&owner.server, "o").await, (200, 1));
    let (b, _) = TestServer::node(&network, Some(&owner.server), keys).await;
    let b = Arc::new(b);
    let silent = network.be_silent_after(1);
    assert_eq!(increment(&b, "o").await, (200, 2));
    let asked = tokio::spawn({
        let b = b.clone();
        async move { increment(&b, "o").await }
    });
    silent.await.unwrap();
    let dead = owner.kill();
    network.be_silent(false);
    assert_eq!(asked.await.unwrap().0, 504, "it may have been stored");
    assert_eq!(sum(&b, "o").await, 2);
    assert_eq!(increment(&b, "o").await, (200, 3));
    drop(dead);
}

/// The engine stores a step and its answer is lost: the step counts once.
#[tokio::test]
async fn step_in_doubt_is_stored_once() {
    let (network, a, b) = two_nodes_with(keys).await;
    assert_eq!(increment(&a, "o").await, (200, 1));
    network.lose_answers(1);
    assert_eq!(increment(&b, "o").await, (200, 2));
    network.lose_answers(1);
    assert_eq!(increment(&a, "p").await, (200, 1), "also the first one of an object");
    assert_eq!((sum(&a, "o").await, sum(&b, "p").await), (json!(2), json!(1)));
}

/// The owner is cut off, another node takes the object over, and the owner finds out before it says anything.
#[tokio::test]
async fn owner_that_is_cut_off_loses_the_object() {
    let network = MemoryNetwork::default();
    let (a, id) = TestServer::node(&network, None, keys).await;
    assert_eq!(increment(&a, "o").await, (200, 1));
    let (b, _) = TestServer::node(&network, Some(&a), keys).await;
    assert_eq!(increment(&b, "o").await, (200, 2));
    network.cut_off(id, true);
    // Nobody knows if the first call reached the owner.
    eventually("the other node owns it".to_owned(), async || {
        call(&b, "PUT", "/object/o/state/value", Some(r#"{"value":10}"#)).await.0 == 200
    })
    .await;
    let (status, refused) = call(&a, "PUT", "/object/o/state/value", Some(r#"{"value":99}"#)).await;
    assert_eq!(status, 503, "{refused}");
    assert_eq!(sum(&a, "o").await, 503, "it forgot what it was refused");
    network.cut_off(id, false);
    eventually("the owner is known".to_owned(), async || sum(&a, "o").await == 10).await;
    assert_eq!(increment(&a, "o").await, (200, 11));
    assert_eq!(sum(&b, "o").await, 11);
}

#[tokio::test]
async fn silent_engine_refuses_calls_and_loses_none() {
    let (network, a, b) = two_nodes_with(keys).await;
    assert_eq!(increment(&a, "o").await, (200, 1));
    network.be_silent(true);
    let (first, other) = tokio::join!(increment(&b, "o"), increment(&b, "new"));
    assert_eq!((first.0, other.0), (504, 503), "one that may be stored, and one that cannot be");
    network.be_silent(false);
    let (status, value) = increment(&b, "o").await;
    assert_eq!((status, value), (200, 2));
    assert_eq!(increment(&a, "new").await, (200, 1));
}

/// More than one entry of a journal and one message take.
#[tokio::test]
async fn long_values_pass_between_nodes() {
    let (network, a, b) = two_nodes_with(keys).await;
    let long = noise(120 << 10);
    let values = json!({"a": long, "b": long.chars().rev().collect::<String>(), "c": [long]});
    let (status, _) = call(&a, "POST", "/initialize/o", Some(&values.to_string())).await;
    assert_eq!(status, 200);
    assert!(journal(&network, "o").await.len() > 2);
    for (node, name) in [(&a, "x"), (&b, "y")] {
        assert_eq!(call(node, "GET", "/object/o/state", None).await, (200, json!({"data": values})));
        let (status, _) = call(node, "POST", &format!("/initialize/{name}"), Some(&values.to_string())).await;
        assert_eq!(status, 200);
        let (status, echo) = call(node, "POST", "/object/o/method/echo", Some(&values.to_string())).await;
        assert_eq!((status, &echo["result"]), (200, &values));
    }
    for node in [&a, &b] {
        for name in ["x", "y"] {
            let (status, read) = call(node, "GET", &format!("/object/{name}/state/c"), None).await;
            assert_eq!((status, &read["value"]), (200, &values["c"]));
        }
    }
}

#[tokio::test]
async fn journal_does_not_grow_without_an_end() {
    let (network, a, b) = two_nodes_with(keys).await;
    let mut library = Pooled::connect(a.addresses().http).await;
    let value = json!({"value": noise(500)}).to_string();
    for number in 0..300 {
        let (status, _) =
            library.call("PUT", &format!("/object/o/state/k{}", number % 7), Some(&value)).await;
        assert_eq!(status, 200);
    }
    let kept = journal(&network, "o").await;
    let bytes: usize = kept.iter().map(|entry| entry.bytes.len()).sum();
    assert!(bytes < 100 << 10, "{} entries, {bytes} bytes", kept.len());
    let (_, state) = call(&b, "GET", "/object/o/state", None).await;
    assert_eq!(state["data"].as_object().unwrap().len(), 7);
    for number in 0..7 {
        library.call("DELETE", &format!("/object/o/state/k{number}"), None).await;
    }
    assert!(journal(&network, "o").await.is_empty(), "nothing is left of an empty object");
    assert_eq!(call(&b, "GET", "/object/o/state", None).await.1, json!({"data": {}}));
    assert_eq!(increment(&b, "o").await, (200, 1));
    assert_eq!(sum(&a, "o").await, 1);
}

#[tokio::test]
async fn reads_make_no_object() {
    let (network, a, b) = two_nodes_with(keys).await;
    for node in [&a, &b] {
        assert_eq!(call(node, "GET", "/object/none/state", None).await.0, 200);
        assert_eq!(call(node, "GET", "/object/none/state/k", None).await.0, 404);
        assert_eq!(call(node, "DELETE", "/object/none/state/k", None).await.0, 200);
        assert_eq!(call(node, "POST", "/object/none/method/get_value", Some("{}")).await.0, 200);
    }
    assert!(journal(&network, "none").await.is_empty());
}

#[tokio::test]
async fn operators_see_objects_of_all_nodes() {
    let (_network, a, b) = two_nodes_with(keys).await;
    for number in 0..6 {
        let node = if number % 2 == 0 { &a } else { &b };
        assert_eq!(increment(node, &format!("o{number}")).await.0, 200);
    }
    for node in [&a, &b] {
        let listed = node.admin_get("/admin/objects?prefix=o&limit=4").await.json();
        let ids: Vec<_> = listed["objects"].as_array().unwrap().iter().map(|object| &object["id"]).collect();
        assert_eq!((json!(ids), &listed["next"]), (json!(["o0", "o1", "o2", "o3"]), &json!("o3")));
        let rest = node.admin_get("/admin/objects?after=o3").await.json();
        assert_eq!(rest["objects"].as_array().unwrap().len(), 2, "{rest}");
        let shown = node.admin_get("/admin/objects/o1").await.json();
        assert_eq!((&shown["values"], &shown["keys"]), (&json!({"value": 1}), &json!(1)));
        assert_eq!(node.admin_get("/admin/objects/none").await.status, 404);
    }
    let token = std::fs::read_to_string(b.data_dir().join("operator.token")).unwrap();
    for (object, node) in [("o0", &b), ("o1", &a), ("o2", &b)] {
        let token = match std::ptr::eq(node, &b) {
            true => token.clone(),
            false => std::fs::read_to_string(a.data_dir().join("operator.token")).unwrap(),
        };
        let delete = node.admin_request(&axum::http::Method::DELETE, &format!("/admin/objects/{object}"));
        assert_eq!(delete.bearer_auth(token.trim()).send().await.unwrap().status(), 204);
        assert_eq!(a.admin_get(&format!("/admin/objects/{object}")).await.status, 404);
    }
    assert_eq!(sum(&a, "o2").await, Value::Null);
}

#[tokio::test]
async fn leaving_owner_gives_its_objects_up() {
    let (_network, a, b) = two_nodes_with(keys).await;
    for object in ["o", "p", "q", "r"] {
        assert_eq!(increment(&a, object).await, (200, 1));
    }
    a.stop().await;
    for object in ["o", "p", "q", "r"] {
        assert_eq!(increment(&b, object).await, (200, 2));
    }
}

const SCRIPT: &str = r#"
export class DurableObject {
  constructor(state) {
    this.storage = state.storage;
  }
  async method_later({ ms }) {
    await this.storage.setAlarm(Date.now() + ms);
  }
  async alarm() {
    await this.storage.put("rung", ((await this.storage.get("rung")) ?? 0) + 1);
  }
}
"#;

/// Alarms of the node that dies are handled by others, each by one.
#[tokio::test]
async fn alarms_outlive_their_node() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("objects.mjs");
    std::fs::write(&path, SCRIPT).unwrap();
    let edit = |config: &mut satsuma::config::Config| {
        keys(config);
        config.durable.script = Optional(Some(path.clone()));
    };
    let network = MemoryNetwork::default();
    let owner = Mortal::start_edited(&network, None, edit);
    let (b, _) = TestServer::node(&network, Some(&owner.server), edit).await;
    let (c, _) = TestServer::node(&network, Some(&owner.server), edit).await;
    let objects: Vec<_> = (0..30).map(|number| format!("o{number}")).collect();
    let mut library = Pooled::connect(b.addresses().http).await;
    for object in &objects {
        let path = format!("/object/{object}/method/later");
        assert_eq!(library.call("POST", &path, Some(r#"{"ms":3000}"#)).await.0, 200);
    }
    // A third of them is at each node, and the time of none has come.
    let dead = owner.kill();
    for object in &objects {
        eventually(format!("the alarm of {object} is handled"), async || {
            let path = format!("/object/{object}/state/rung");
            call(&c, "GET", &path, None).await.1["value"] == 1
        })
        .await;
    }
    let handled = r#"satsuma_durable_alarms_total{reason="handled"}"#;
    assert_eq!(b.metric(handled).await + c.metric(handled).await, 30.0, "each once");
    assert!(b.metric(handled).await > 0.0 && c.metric(handled).await > 0.0, "shared by both");
    let (engine, _events) = network.node(NodeId::new(9));
    let left = engine.subjects(satsuma::nodes::engine::SubjectKind::Alarm).await.unwrap();
    let cleared = async || left.is_empty() || engine.all(left[0]).await.unwrap().is_empty();
    eventually("nothing is left of them".to_owned(), cleared).await;
    drop(dead);
}
