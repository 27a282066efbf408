//! Durable objects as topics of Phoenix Channels.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Ask, Client};
use crate::durable::{KEY, OTHER, Pooled, keys, server};
use crate::harness::{Person, TestServer};

const TOPIC: &str = "durable_object:o";

async fn call(server: &TestServer, path: &str, body: &str) -> (u16, Value) {
    let (status, body) = Pooled::connect(server.addresses().http).await.call("POST", path, Some(body)).await;
    (status, serde_json::from_slice(body.as_ref()).unwrap())
}

/// A token of the object, asked for with the key that opens everything.
async fn token(server: &TestServer, object: &str) -> String {
    let (status, answer) = call(server, &format!("/object/{object}/token"), "").await;
    assert_eq!((status, &answer["expiresIn"]), (200, &json!(300)));
    answer["token"].as_str().unwrap().to_owned()
}

/// A socket that a token opens.
async fn connect(server: &TestServer, token: &str) -> Client {
    Ask::path(&format!("/socket/websocket?vsn=2.0.0&token={token}")).open(server).await
}

/// Sends a frame, and waits for the status and response of its reply.
async fn push(client: &mut Client, frame: Value) -> (String, Value) {
    let reference = frame[1].clone();
    client.say(frame).await;
    let reply = client.until(|frame| frame[3] == "phx_reply" && frame[1] == reference).await;
    (reply[4]["status"].as_str().unwrap().to_owned(), reply[4]["response"].clone())
}

fn ok(response: Value) -> (String, Value) {
    ("ok".to_owned(), response)
}

fn refused(reason: &str) -> (String, Value) {
    ("error".to_owned(), json!({"reason": reason}))
}

fn updated(payload: Value) -> Value {
    json!([null, null, TOPIC, "state_updated", payload])
}

#[tokio::test]
async fn topic_has_the_objects_state_and_methods() {
    let server = server().await;
    call(&server, "/initialize/o", r#"{"a":1}"#).await;
    let mut ann = connect(&server, &token(&server, "o").await).await;
    let joined = push(&mut ann, json!(["1", "1", TOPIC, "phx_join", {}])).await;
    assert_eq!(joined, ok(json!({"state": {"a": 1}})));
    call(&server, "/object/o/method/increment", "{}").await;
    assert_eq!(ann.next().await, updated(json!({"value": 1})));

    // Changes reach the socket before the answer to what made them.
    ann.say(json!(["1", "2", TOPIC, "update_state", {"key": "k", "value": null}])).await;
    assert_eq!(ann.next().await, updated(json!({"k": null})));
    let done = json!(["1", "2", TOPIC, "phx_reply", {"response": {}, "status": "ok"}]);
    assert_eq!(ann.next().await, done);
    let called = push(&mut ann, json!(["1", "3", TOPIC, "call_method", {"method": "increment"}])).await;
    assert_eq!(called, ok(json!({"result": {"value": 2}})));
    let unknown = push(&mut ann, json!(["1", "4", TOPIC, "call_method", {"method": "nothing"}])).await;
    assert_eq!(unknown, refused("Method not found"));
    assert_eq!(push(&mut ann, json!(["1", "5", TOPIC, "chat", {}])).await, refused("the event is not known"));
    assert_eq!(push(&mut ann, json!(["1", "6", TOPIC, "refresh_state", {}])).await, ok(json!({})));
    assert_eq!(ann.next().await, updated(json!({"a": 1, "k": null, "value": 2})));

    // A call before the leave is answered before it.
    ann.say(json!(["1", "7", TOPIC, "call_method", {"method": "echo", "params": [1]}])).await;
    ann.say(json!(["1", "8", TOPIC, "phx_leave", {}])).await;
    ann.say(json!(["1", "9", TOPIC, "refresh_state", {}])).await;
    assert_eq!(ann.next().await[4]["response"], json!({"result": [1]}));
    let left = json!(["1", "8", TOPIC, "phx_reply", {"response": {}, "status": "ok"}]);
    assert_eq!(ann.next().await, left);
    assert_eq!(ann.next().await, json!(["1", "1", TOPIC, "phx_close", {}]));
    assert_eq!(ann.next().await[4]["response"]["reason"], "unmatched topic");
    let after = push(&mut ann, json!(["1", "10", TOPIC, "refresh_state", {}])).await;
    assert_eq!(after, refused("unmatched topic"));
}

#[tokio::test]
async fn topic_opens_only_to_its_objects_token() {
    let server = server().await;
    let other = token(&server, "p").await;
    let mut ann = connect(&server, &other).await;
    let needed = refused("this needs a token of the object, as the parameter \"token\"");
    assert_eq!(push(&mut ann, json!(["1", "1", TOPIC, "phx_join", {}])).await, needed);
    assert_eq!(push(&mut ann, json!(["1", "2", TOPIC, "phx_join", {"token": other}])).await, needed);
    assert_eq!(push(&mut ann, json!(["1", "3", TOPIC, "phx_join", {"token": KEY}])).await, needed);
    let own = token(&server, "o").await;
    let joined = push(&mut ann, json!(["1", "4", TOPIC, "phx_join", {"token": own}])).await;
    assert_eq!(joined, ok(json!({"state": {}})));
    let room = push(&mut ann, json!(["2", "5", "room:r", "phx_join", {}])).await;
    assert_eq!(room, refused("this socket's token opens no room"));
    // A key gets tokens of its own objects only.
    let path = format!("/durable/{OTHER}/object/o/token");
    let answer = reqwest::Client::new().post(server.http() + &path).send().await.unwrap();
    assert_eq!(answer.status(), 404);

    // A room's user has no token of an object, and a socket's token is none.
    let bob = Person::log_in(&server, "Bob").await;
    let ask = Ask::path("/socket/websocket?vsn=2.0.0").by(&bob).header("origin", &server.http());
    let mut bob = ask.open(&server).await;
    assert_eq!(push(&mut bob, json!(["1", "1", TOPIC, "phx_join", {}])).await, needed);
    let own = token(&server, "o").await;
    let joined = push(&mut bob, json!(["1", "2", TOPIC, "phx_join", {"token": own}])).await;
    assert_eq!(joined, ok(json!({"state": {}})));
    let room = push(&mut bob, json!(["2", "3", "room:r", "phx_join", {"_pk": "b"}])).await;
    assert_eq!(room.0, "ok");
    let done = push(&mut ann, json!(["1", "9", TOPIC, "update_state", {"key": "k", "value": [1]}])).await;
    assert_eq!(done, ok(json!({})));
    assert_eq!(bob.until(|frame| frame[3] == "state_updated").await, updated(json!({"k": [1]})));
}

#[tokio::test]
async fn topic_joined_anew_replaces_its_join() {
    let server = server().await;
    let mut ann = connect(&server, &token(&server, "o").await).await;
    push(&mut ann, json!(["1", "1", TOPIC, "phx_join", {}])).await;
    ann.say(json!(["2", "2", TOPIC, "phx_join", {}])).await;
    // Held until the join is over.
    ann.say(json!(["2", "3", TOPIC, "call_method", {"method": "increment"}])).await;
    // Of the join before: no answer.
    ann.say(json!(["1", "4", TOPIC, "call_method", {"method": "increment"}])).await;
    assert_eq!(ann.next().await, json!(["1", "1", TOPIC, "phx_close", {}]));
    let joined = json!(["2", "2", TOPIC, "phx_reply", {"response": {"state": {}}, "status": "ok"}]);
    assert_eq!(ann.next().await, joined);
    assert_eq!(ann.next().await, updated(json!({"value": 1})));
    assert_eq!(ann.next().await[4]["response"], json!({"result": {"value": 1}}));
    let last = push(&mut ann, json!(["2", "5", TOPIC, "call_method", {"method": "increment"}])).await;
    assert_eq!(last, ok(json!({"result": {"value": 2}})));
}

#[tokio::test]
async fn long_states_cost_their_socket_tokens() {
    let server = TestServer::with(|config| {
        keys(config);
        config.durable.value_bytes = 4 << 20;
    })
    .await;
    call(&server, "/initialize/o", &json!({ "long": "x".repeat(3 << 20) }).to_string()).await;
    let token = token(&server, "o").await;
    let (mut ann, mut bob) = (connect(&server, &token).await, connect(&server, &token).await);
    for client in [&mut ann, &mut bob] {
        assert_eq!(push(client, json!(["1", "1", TOPIC, "phx_join", {}])).await.0, "ok");
    }
    assert_eq!(server.metric("satsuma_held_back_total").await, 0.0);
    // Each as 48 messages, of which a socket may send 200 at once.
    for number in 2..8 {
        assert_eq!(push(&mut ann, json!(["1", number, TOPIC, "refresh_state", {}])).await.0, "ok");
    }
    assert!(server.metric("satsuma_held_back_total").await > 0.0);
    let call = json!(["1", "2", TOPIC, "call_method", {"method": "increment"}]);
    assert_eq!(push(&mut bob, call).await.0, "ok", "another socket does not pay");
}

#[tokio::test]
async fn lagging_topic_gets_the_newest_values() {
    let server = TestServer::with(|config| {
        keys(config);
        config.durable.calls_per_second_per_object = 0;
        config.limits.write_stall = Duration::from_secs(60);
    })
    .await;
    let mut ann = connect(&server, &token(&server, "o").await).await;
    push(&mut ann, json!(["1", "1", TOPIC, "phx_join", {}])).await;
    ann.stop_reading().await;
    let mut library = Pooled::connect(server.addresses().http).await;
    let long = "x".repeat(60_000);
    let mut last = 0;
    while server.metric("satsuma_durable_conflated_updates_total").await < 100.0 {
        for _ in 0..50 {
            last += 1;
            let body = json!({"value": [last, long]}).to_string();
            assert_eq!(library.call("PUT", "/object/o/state/k", Some(&body)).await.0, 200);
        }
    }
    assert!(server.metric("satsuma_outbox_bytes").await < 2e6);
    assert_eq!(server.metric("satsuma_durable_sockets").await, 1.0, "it is not given up");
}

#[tokio::test]
async fn unread_states_count_in_the_memory_of_all_sockets() {
    let server = TestServer::with(|config| {
        keys(config);
        config.durable.value_bytes = 8 << 20;
        config.limits.outboxes_bytes = 16 << 20;
        config.limits.write_stall = Duration::from_secs(60);
    })
    .await;
    call(&server, "/initialize/o", &json!({ "long": "x".repeat(7 << 20) }).to_string()).await;
    let token = token(&server, "o").await;
    let mut silent = Vec::new();
    // The buffers of both systems take the first ones.
    while server.metric("satsuma_outbox_bytes").await <= 16e6 * 1.1 {
        let mut client = connect(&server, &token).await;
        client.say(json!(["1", "1", TOPIC, "phx_join", {}])).await;
        client.stop_reading().await;
        silent.push(client);
        assert!(silent.len() < 100, "nothing is counted");
    }
    let mut ann = connect(&server, &token).await;
    let joined = push(&mut ann, json!(["1", "1", TOPIC, "phx_join", {}])).await;
    assert_eq!(joined, refused("too much waits to be read"));
}
