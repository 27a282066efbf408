//! Durable objects of several nodes: one owns an object, and any node answers for it.

use std::sync::Arc;

use satsuma::config::Optional;
use satsuma::id::{NodeId, ObjectId};
use satsuma::nodes::engine::{Engine, StoredEntry, Subject};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::client::{Ask, Client};
use crate::cluster::{Mortal, two_nodes_with};
use crate::durable::{KEY, Pooled, keys};
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
    let silent = network.be_silent_after(1);
    assert_eq!(increment(&b, "o").await, (200, 2));
    let killing = async {
        silent.await.unwrap();
        let dead = owner.kill();
        network.be_silent(false);
        dead
    };
    let (asked, dead) = tokio::join!(increment(&b, "o"), killing);
    assert_eq!(asked.0, 504, "it may have been stored");
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
    assert_eq!(increment(&b, "o").await, (200, 2));
    network.be_silent(true);
    let (first, other) = tokio::join!(increment(&b, "o"), increment(&b, "new"));
    assert_eq!((first.0, other.0), (504, 503), "one that may be stored, and one that cannot be");
    network.be_silent(false);
    let (status, value) = increment(&b, "o").await;
    assert_eq!((status, value), (200, 3));
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

async fn open(server: &TestServer, object: &str) -> Client {
    Ask::path(&format!("/durable/{KEY}/object/{object}/websocket")).open(server).await
}

/// A message without its time.
async fn next(client: &mut Client) -> Value {
    let mut message = client.next().await;
    message.as_object_mut().unwrap().remove("timestamp");
    message
}

#[tokio::test]
async fn sockets_at_any_node_get_every_change() {
    let (_network, a, b) = two_nodes_with(keys).await;
    let init = call(&a, "POST", "/initialize/o", Some(r#"{"b":2,"a":null}"#)).await;
    assert_eq!(init.0, 200);
    let (mut one, mut two) = (open(&a, "o").await, open(&b, "o").await);
    for client in [&mut one, &mut two] {
        assert_eq!(next(client).await, json!({"type": "init", "state": {"a": null, "b": 2}}));
    }
    let update = |key: &str, value: Value| json!({"type": "update", "key": key, "value": value});
    for node in [&a, &b] {
        call(node, "PUT", "/object/o/state/k%2Fx", Some(r#"{"value":[1.0]}"#)).await;
        call(node, "DELETE", "/object/o/state/k%2Fx", None).await;
        for client in [&mut one, &mut two] {
            assert_eq!(next(client).await, update("k/x", json!([1.0])));
            assert_eq!(next(client).await, update("k/x", Value::Null));
        }
    }
    // The socket at the other node says everything that there is to say.
    for (said, answers) in [
        (
            json!({"type": "method", "id": 1, "method": "increment"}),
            vec![
                update("value", json!(1)),
                json!({"type": "response", "id": 1, "success": true, "result": {"value": 1}}),
            ],
        ),
        (
            json!({"type": "method", "id": "x", "method": "nothing"}),
            vec![json!({"type": "response", "id": "x", "success": false, "error": "Method not found"})],
        ),
        (json!({"type": "update", "value": 7}), vec![update("value", json!(7))]),
        (
            json!({"type": "set", "id": null, "key": "k", "value": null}),
            vec![
                update("k", Value::Null),
                json!({"type": "set_response", "id": null, "key": "k", "value": null, "status": "success"}),
            ],
        ),
        (
            json!({"type": "get", "key": "value"}),
            vec![json!({"type": "get_response", "key": "value", "value": 7})],
        ),
        (
            json!({"type": "echo", "id": 2, "data": null}),
            vec![json!({"type": "echo_response", "id": 2, "data": null})],
        ),
        (json!({"type": "echo"}), vec![json!({"type": "echo_response"})]),
        (
            json!({"type": "join", "id": 3}),
            vec![json!({"type": "error", "id": 3, "error": "Unknown message type"})],
        ),
    ] {
        two.say(said).await;
        for answer in answers {
            assert_eq!(next(&mut two).await, answer);
            if answer["type"] == "update" {
                assert_eq!(next(&mut one).await, answer);
            }
        }
    }
    // More than wait for their answers at a time, of which half have none.
    for number in 0..100 {
        two.say(json!({"type": "update", "key": "n", "value": number})).await;
        two.say(json!({"type": "get", "id": number, "key": "n"})).await;
    }
    let answer = two.until(|message| message["type"] == "get_response" && message["id"] == 99).await;
    assert_eq!(answer["value"], 99);
    one.until(|message| message["key"] == "n" && message["value"] == 99).await;
    drop(two.close().await);
    let sockets = async |node: &TestServer| node.metric("satsuma_durable_sockets").await;
    eventually("the owner has one".to_owned(), async || sockets(&a).await + sockets(&b).await == 1.0).await;
}

#[tokio::test]
async fn sockets_come_back_after_the_death_of_the_owner() {
    let network = MemoryNetwork::default();
    let owner = Mortal::start_first(&network, keys);
    assert_eq!(increment(&owner.server, "o").await, (200, 1));
    let (b, _) = TestServer::node(&network, Some(&owner.server), keys).await;
    let (c, _) = TestServer::node(&network, Some(&owner.server), keys).await;
    let (mut two, mut three) = (open(&b, "o").await, open(&c, "o").await);
    assert_eq!(next(&mut two).await["state"], json!({"value": 1}));
    assert_eq!(next(&mut three).await["state"], json!({"value": 1}));
    let dead = owner.kill();
    assert_eq!((two.closed().await.0, three.closed().await.0), (1012, 1012));
    let (mut two, mut three) = (open(&b, "o").await, open(&c, "o").await);
    assert_eq!(next(&mut two).await["state"], json!({"value": 1}));
    assert_eq!(next(&mut three).await["state"], json!({"value": 1}));
    two.say(json!({"type": "method", "id": 1, "method": "increment"})).await;
    let update = json!({"type": "update", "key": "value", "value": 2});
    assert_eq!((next(&mut two).await, next(&mut three).await), (update.clone(), update));
    drop(dead);
}

/// The owner is cut off: its own sockets are closed when it finds out, and those of others at once.
#[tokio::test]
async fn sockets_of_a_fenced_owner_are_closed() {
    let network = MemoryNetwork::default();
    let (a, id) = TestServer::node(&network, None, keys).await;
    assert_eq!(increment(&a, "o").await, (200, 1));
    let (b, _) = TestServer::node(&network, Some(&a), keys).await;
    let (mut one, mut two) = (open(&a, "o").await, open(&b, "o").await);
    next(&mut one).await;
    next(&mut two).await;
    network.cut_off(id, true);
    assert_eq!(two.closed().await.0, 1012);
    let mut two = open(&b, "o").await;
    assert_eq!(next(&mut two).await["state"], json!({"value": 1}));
    assert_eq!(increment(&b, "o").await, (200, 2));
    assert_eq!(next(&mut two).await["value"], 2);
    network.cut_off(id, false);
    assert_eq!(one.closed().await.0, 1012, "nothing of the next owner reached it");
    let mut one = open(&a, "o").await;
    assert_eq!(next(&mut one).await["state"], json!({"value": 2}));
    assert_eq!(a.metric("satsuma_durable_fenced_total").await, 1.0);
}

#[tokio::test]
async fn topics_of_objects_are_at_any_node() {
    const TOPIC: &str = "durable_object:o";
    let (_network, a, b) = two_nodes_with(keys).await;
    assert_eq!(increment(&a, "o").await, (200, 1));
    let (status, token) = call(&a, "POST", "/object/o/token", Some("")).await;
    assert_eq!(status, 200);
    let token = token["token"].as_str().unwrap();
    let mut ann = Ask::path(&format!("/socket/websocket?vsn=2.0.0&token={token}")).open(&b).await;
    ann.say(json!(["1", "1", TOPIC, "phx_join", {}])).await;
    let joined = ann.until(|frame| frame[3] == "phx_reply").await;
    assert_eq!(joined[4], json!({"status": "ok", "response": {"state": {"value": 1}}}));
    assert_eq!(increment(&a, "o").await, (200, 2));
    assert_eq!(ann.next().await, json!([null, null, TOPIC, "state_updated", {"value": 2}]));
    ann.say(json!(["1", "2", TOPIC, "call_method", {"method": "increment"}])).await;
    assert_eq!(ann.next().await, json!([null, null, TOPIC, "state_updated", {"value": 3}]));
    assert_eq!(ann.next().await[4], json!({"status": "ok", "response": {"result": {"value": 3}}}));
    ann.say(json!(["1", "3", TOPIC, "refresh_state", {}])).await;
    assert_eq!(ann.next().await[4], json!({"status": "ok", "response": {}}));
    assert_eq!(ann.next().await[4], json!({"value": 3}));
}

#[tokio::test]
async fn objects_of_a_single_server_are_carried_over() {
    let network = MemoryNetwork::default();
    let mut stopped = Vec::new();
    for calls in [1, 2] {
        let single = TestServer::with(keys).await;
        for _ in 0..calls {
            increment(&single, "both").await;
        }
        let long = json!({"long": noise(120 << 10), "n": calls}).to_string();
        assert_eq!(call(&single, "POST", &format!("/initialize/own{calls}"), Some(&long)).await.0, 200);
        stopped.push((single.stop().await, long));
    }
    let (second, second_long) = stopped.pop().unwrap();
    let (first, first_long) = stopped.pop().unwrap();
    let (a, _) = first.start_as_node(&network).await;
    let (b, _) = second.start_as_node(&network).await;
    for node in [&a, &b] {
        assert_eq!(sum(node, "both").await, 1, "the cluster has it already");
        for (object, long) in [("own1", &first_long), ("own2", &second_long)] {
            let (_, state) = call(node, "GET", &format!("/object/{object}/state"), None).await;
            assert_eq!(state["data"], serde_json::from_str::<Value>(long).unwrap());
        }
    }
    assert_eq!(increment(&b, "own1").await, (200, 1));
    a.stop().await;
    let stopped = b.stop().await;
    let single = stopped.start_with(|_| {}).await;
    assert_eq!(sum(&single, "both").await, 2, "what was not carried over is where it was");
    assert_eq!(call(&single, "GET", "/object/own2/state", None).await.1, json!({"data": {}}));
}
