//! Sockets of durable objects.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Ask, Client};
use crate::durable::{KEY, OTHER, Pooled, keys, server};
use crate::harness::{TestServer, answer};

async fn open(server: &TestServer, object: &str) -> Client {
    Ask::path(&format!("/durable/{KEY}/object/{object}/websocket")).open(server).await
}

async fn call(server: &TestServer, method: &str, path: &str, body: &str) -> u16 {
    Pooled::connect(server.addresses().http).await.call(method, path, Some(body)).await.0
}

/// A message without its time, which is checked.
async fn next(client: &mut Client) -> Value {
    let mut message = client.next().await;
    if let Some(time) = message.as_object_mut().unwrap().remove("timestamp") {
        let time = time.as_str().unwrap().to_owned();
        assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[19] == b'.', "{time}");
    }
    message
}

#[tokio::test]
async fn socket_gets_the_state_and_every_change() {
    let server = server().await;
    call(&server, "POST", "/initialize/o", r#"{"b":2,"a":null}"#).await;
    let mut one = open(&server, "o").await;
    assert_eq!(next(&mut one).await, json!({"type": "init", "state": {"a": null, "b": 2}}));
    let mut two = Ask::path(&format!("/durable/{KEY}//object/o/websocket/")).open(&server).await;
    next(&mut two).await;
    call(&server, "PUT", "/object/o/state/k%2Fx", r#"{"value":[1]}"#).await;
    call(&server, "POST", "/object/o/method/increment", "{}").await;
    call(&server, "POST", "/initialize/o", r#"{"z":1,"b":3}"#).await;
    assert_eq!(call(&server, "POST", "/object/o/method/nothing", "{}").await, 404);
    call(&server, "DELETE", "/object/o/state/b", "").await;
    call(&server, "POST", "/object/other/method/increment", "{}").await;
    call(&server, "DELETE", "/object/o/state/z", "").await;
    let update = |key: &str, value: Value| json!({"type": "update", "key": key, "value": value});
    for client in [&mut one, &mut two] {
        for expected in [
            update("k/x", json!([1])),
            update("value", json!(1)),
            update("z", json!(1)),
            update("b", json!(3)),
            update("b", Value::Null),
            update("z", Value::Null),
        ] {
            assert_eq!(next(client).await, expected);
        }
    }
}

#[tokio::test]
async fn client_messages_are_answered() {
    let server = server().await;
    let mut client = open(&server, "o").await;
    let mut other = open(&server, "o").await;
    next(&mut client).await;
    next(&mut other).await;
    client
        .say(json!({"type": "method", "id": 1, "method": "method_increment", "params": {"increment": 2}}))
        .await;
    assert_eq!(
        next(&mut client).await,
        json!({"type": "update", "key": "value", "value": 2}),
        "before its answer"
    );
    assert_eq!(
        next(&mut client).await,
        json!({"type": "response", "id": 1, "success": true, "result": {"value": 2}})
    );
    for (message, expected) in [
        (
            json!({"type": "method", "id": "x", "method": "none"}),
            json!({"type": "response", "id": "x", "success": false, "error": "Method not found"}),
        ),
        (
            json!({"type": "method", "id": 3, "method": "update", "params": {}}),
            json!({"type": "response", "id": 3, "success": false, "error": "Content is required"}),
        ),
        (
            json!({"type": "echo", "id": 4, "data": {"a": 1}}),
            json!({"type": "echo_response", "id": 4, "data": {"a": 1}}),
        ),
        (
            json!({"type": "get", "id": 5, "key": "value"}),
            json!({"type": "get_response", "id": 5, "key": "value", "value": 2}),
        ),
        (
            json!({"type": "get", "id": 6, "key": "__proto__"}),
            json!({"type": "get_response", "id": 6, "key": "__proto__", "value": null}),
        ),
        (json!({"type": "join"}), json!({"type": "error", "error": "Unknown message type"})),
        (json!([1]), json!({"type": "error", "error": "Failed to process message"})),
        (
            json!({"type": "set", "id": 7, "key": ""}),
            json!({"type": "error", "id": 7, "error": "The message lacks a field of its type"}),
        ),
        (
            json!({"type": "set", "id": 8, "key": "", "value": 1}),
            json!({"type": "error", "id": 8, "error": "a key has 1 to 2048 bytes"}),
        ),
    ] {
        client.say(message).await;
        assert_eq!(next(&mut client).await, expected);
    }
    client.say_raw(Message::text("no JSON")).await;
    assert_eq!(next(&mut client).await, json!({"type": "error", "error": "Failed to process message"}));
    client.say(json!({"type": "set", "id": 9, "key": "k", "value": null})).await;
    assert_eq!(next(&mut client).await, json!({"type": "update", "key": "k", "value": null}));
    assert_eq!(
        next(&mut client).await,
        json!({"type": "set_response", "id": 9, "key": "k", "value": null, "status": "success"})
    );
    client.say(json!({"type": "update", "value": 42})).await;
    assert_eq!(next(&mut client).await, json!({"type": "update", "key": "value", "value": 42}));
    for (key, value) in [("value", json!(2)), ("k", Value::Null), ("value", json!(42))] {
        assert_eq!(next(&mut other).await, json!({"type": "update", "key": key, "value": value}));
    }
    client.close().await;
    server.until_metric("satsuma_durable_sockets", 1.0).await;
}

/// Two sockets and many callers: everyone sees one order, and the state agrees with it.
#[tokio::test]
async fn sockets_agree_on_one_order() {
    let server = server().await;
    let (mut one, mut two) = (open(&server, "o").await, open(&server, "o").await);
    next(&mut one).await;
    next(&mut two).await;
    let address = server.addresses().http;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        writers.spawn(async move {
            let mut library = Pooled::connect(address).await;
            for n in 0..20 {
                let (key, body) = (n % 3, format!(r#"{{"value":"{writer}-{n}"}}"#));
                library.call("PUT", &format!("/object/o/state/k{key}"), Some(&body)).await;
            }
        });
    }
    let mut seen = Vec::new();
    for _ in 0..160 {
        seen.push(next(&mut one).await);
    }
    for update in &seen {
        assert_eq!(next(&mut two).await, *update);
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let (_, state) = Pooled::connect(address).await.call("GET", "/object/o/state", None).await;
    let state: Value = serde_json::from_str(&state).unwrap();
    for key in ["k0", "k1", "k2"] {
        let last = seen.iter().rev().find(|update| update["key"] == key).unwrap();
        assert_eq!(state["data"][key], last["value"]);
    }
}

#[tokio::test]
async fn compressing_socket_gets_the_same() {
    let server = server().await;
    let path = format!("/durable/{KEY}/object/o/websocket");
    let mut clients = [
        Ask::path(&path).compressing().open(&server).await,
        Ask::path(&path).compressing().open(&server).await,
    ];
    let long = "long ".repeat(2000);
    for client in &mut clients {
        next(client).await;
    }
    call(&server, "PUT", "/object/o/state/k", &json!({"value": long}).to_string()).await;
    for client in &mut clients {
        assert_eq!(next(client).await["value"], *long);
    }
    assert!(server.metric("satsuma_deflate_from_bytes_total").await > 0.0);
}

#[tokio::test]
async fn sockets_are_refused_without_key_and_over_limits() {
    let server = TestServer::with(|config| {
        keys(config);
        config.durable.sockets_per_object = 1;
        config.durable.sockets = 2;
    })
    .await;
    let status = async |path: &str| match Ask::path(path).try_open(&server).await {
        Ok(_) => 101,
        Err(status) => status,
    };
    assert_eq!(status("/durable/wrong-key-0123456789/object/o/websocket").await, 401);
    assert_eq!(status(&format!("/durable/{OTHER}/object/o/websocket")).await, 404);
    assert_eq!(answer(server.get(&format!("/durable/{KEY}/object/o/websocket"))).await.status, 400);
    let first = open(&server, "o").await;
    assert_eq!(status(&format!("/durable/{KEY}/object/o/websocket")).await, 503);
    let second = open(&server, "p").await;
    assert_eq!(status(&format!("/durable/{KEY}/object/q/websocket")).await, 503);
    first.close().await;
    server.until_metric("satsuma_durable_sockets", 1.0).await;
    server.until_metric("satsuma_connections", 1.0).await;
    open(&server, "q").await;
    drop(second);
}

#[tokio::test]
async fn shutdown_closes_sockets_for_a_restart() {
    let server = server().await;
    let mut client = open(&server, "o").await;
    next(&mut client).await;
    call(&server, "PUT", "/object/o/state/k", r#"{"value":1}"#).await;
    let (stopped, (code, _)) = tokio::join!(server.stop(), client.closed_after(|_| {}));
    assert_eq!(code, 1012);
    let server = stopped.start_with(|_| {}).await;
    let mut client = open(&server, "o").await;
    assert_eq!(next(&mut client).await, json!({"type": "init", "state": {"k": 1}}));
}

/// A socket that does not read gets the newest values once it does, and holds up nobody.
#[tokio::test]
async fn lagging_socket_gets_the_newest_values() {
    let server = TestServer::with(|config| {
        keys(config);
        config.durable.calls_per_second_per_object = 0;
        config.limits.write_stall = Duration::from_secs(60);
    })
    .await;
    let mut client = open(&server, "o").await;
    next(&mut client).await;
    client.stop_reading().await;
    let mut library = Pooled::connect(server.addresses().http).await;
    let long = "x".repeat(60_000);
    let mut last = 0;
    // More than the buffers of both systems hold.
    while server.metric("satsuma_durable_conflated_updates_total").await < 100.0 {
        for _ in 0..50 {
            last += 1;
            let body = json!({"value": format!("{last} {long}")}).to_string();
            assert_eq!(
                library.call("PUT", &format!("/object/o/state/k{}", last % 2), Some(&body)).await.0,
                200
            );
        }
    }
    assert!(server.metric("satsuma_outbox_bytes").await < 2e6);
    let socket = client.ask().open(&server).await;
    drop(socket);
}
