//! Settings of rooms by name, and revoked tokens, at all nodes.

use axum::http::Method;
use serde_json::{Value, json};

use crate::access_tokens::{auth, token};
use crate::client::{Ask, Client};
use crate::cluster::{two_nodes, two_nodes_with};
use crate::harness::{Answer, Person, TestServer, answer, eventually};
use crate::memory_engine::MemoryNetwork;

/// Sets a room's settings by its name.
async fn set(node: &TestServer, room: &str, change: Value) -> Answer {
    node.admin_put(&format!("/admin/rooms/{room}/settings"), &change).await
}

async fn settings(node: &TestServer, room: &str) -> Value {
    node.admin_get(&format!("/admin/rooms/{room}/settings")).await.json()
}

#[tokio::test]
async fn settings_of_a_room_hold_at_all_nodes() {
    let (network, a, b) = two_nodes().await;
    assert_eq!(set(&a, "r", json!({"videos": false, "chat": false})).await.status, 200);
    // Whoever begins the meeting has them, however soon it is.
    let mut ada = Client::join(&b, "r", "Ada").await;
    ada.until_state(|state| state["room"]["videos"] == false && state["room"]["chat"] == false).await;
    // A change at one node does not undo that of another.
    assert_eq!(set(&a, "r", json!({"locked": true})).await.status, 200);
    ada.until_state(|state| state["room"]["locked"] == true && state["room"]["chat"] == false).await;
    let eve = Person::log_in(&a, "Eve").await;
    assert_eq!(Ask::room("r").by(&eve).try_open(&a).await.err(), Some(403));
    assert_eq!(set(&b, "r", json!({"locked": false})).await.status, 200);
    ada.until_state(|state| state["room"]["locked"] == false).await;
    assert_eq!(set(&b, "s", json!({"screens": false})).await.status, 200);
    assert_eq!(settings(&a, "s").await["screens"], false, "at once");
    let list = async || a.admin_get("/admin/room-settings").await.json()["rooms"].clone();
    let has_both = async || {
        let rooms = list().await;
        rooms[0]["room"] == "r" && rooms[0]["settings"]["chat"] == false && rooms[1]["room"] == "s"
    };
    eventually("the list has both".to_owned(), has_both).await;
    // A node that comes later has them as well, and after the death of all others.
    let (c, _) = TestServer::node(&network, Some(&a), |_| {}).await;
    assert_eq!(settings(&c, "s").await["screens"], false);
    assert_eq!(settings(&c, "r").await["chat"], false);
    // Without the engine nobody could know.
    network.be_silent(true);
    assert_eq!(set(&c, "t", json!({"locked": true})).await.status, 503);
    network.be_silent(false);
    assert_eq!(settings(&c, "t").await["locked"], false);
}

#[tokio::test]
async fn settings_of_a_single_node_become_those_of_all() {
    let single = TestServer::start().await;
    assert_eq!(set(&single, "r", json!({"locked": true})).await.status, 200);
    let stopped = single.stop().await;
    let network = MemoryNetwork::default();
    let (a, _) = TestServer::node(&network, None, |_| {}).await;
    assert_eq!(settings(&a, "r").await["locked"], false);
    let (b, _) = stopped.start_as_node(&network).await;
    eventually("it is given to all".to_owned(), async || settings(&a, "r").await["locked"] == true).await;
    // The last word is that of all.
    assert_eq!(set(&a, "r", json!({"locked": false})).await.status, 200);
    eventually("it is taken".to_owned(), async || settings(&b, "r").await["locked"] == false).await;
    let single = b.stop().await.start_with(|_| {}).await;
    assert_eq!(settings(&single, "r").await["locked"], false, "a single node has them again");
}

#[tokio::test]
async fn password_of_one_node_opens_all() {
    let (_network, a, b) = two_nodes().await;
    assert_eq!(set(&a, "r", json!({"password": "secret"})).await.status, 200);
    let ada = Person::log_in(&a, "Ada").await;
    assert_eq!(Ask::room("r").by(&ada).try_open(&b).await.err(), Some(403));
    let entered = a.request(&Method::POST, "/api/rooms/r/enter").header("cookie", ada.cookie());
    let entered =
        answer(entered.header("origin", a.http()).body(json!({"password": "secret"}).to_string())).await;
    assert_eq!(entered.status, 204, "{entered:?}");
    let comes_in = async || Ask::room("r").by(&ada).try_open(&b).await.is_ok();
    eventually("the other node knows it".to_owned(), comes_in).await;
}

#[tokio::test]
async fn revoked_token_is_refused_at_all_nodes() {
    let (network, a, b) = two_nodes_with(|config| config.auth = auth()).await;
    let bearer = format!("Bearer {}", token("Ada", "r"));
    let open = async |node: &TestServer| {
        Ask::room("r").pk("x").header("authorization", &bearer).try_open(node).await
    };
    let mut socket = open(&b).await.ok().unwrap();
    let revoked = a.admin_post("/admin/tokens/revoke", &json!({"identity": "ada"})).await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    socket.closed().await;
    assert!(open(&b).await.is_err());
    let listed = b.admin_get("/admin/tokens/revocations").await.json();
    assert_eq!(listed["revocations"][0]["identity"], "ada", "{listed}");
    let (c, _) = TestServer::node(&network, Some(&a), |config| config.auth = auth()).await;
    assert!(open(&c).await.is_err(), "a node that comes later knows it before it lets anybody in");
}
