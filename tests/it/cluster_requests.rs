//! Requests of operators and programs about rooms that other nodes own.

use axum::http::Method;
use satsuma::config::ModeratorDefault;
use satsuma::id::NodeId;
use satsuma::nodes::engine::Engine;
use serde_json::{Value, json};

use crate::access_tokens::{auth, token_with};
use crate::client::{Ask, Client};
use crate::cluster::{Mortal, chat, told, two_nodes_with, users};
use crate::harness::{Answer, Person, TestServer, answer, eventually};
use crate::memory_engine::MemoryNetwork;

/// Three nodes: the first one owns the room `r` of Ada, Bob is at the second, and nobody at the third.
async fn three_nodes() -> (MemoryNetwork, [TestServer; 3], Client, Client) {
    let network = MemoryNetwork::default();
    let (a, _) = TestServer::node(&network, None, |config| config.auth = auth()).await;
    let (b, _) = TestServer::node(&network, Some(&a), |config| config.auth = auth()).await;
    let (c, _) = TestServer::node(&network, Some(&a), |config| config.auth = auth()).await;
    let mut ada = Client::join(&a, "r", "Ada").await;
    let bob = Client::join(&b, "r", "Bob").await;
    ada.until_state(|state| users(state) == 2).await;
    (network, [a, b, c], ada, bob)
}

/// A chat message of an operator with a key.
async fn post(node: &TestServer, key: &str, message: &str) -> Answer {
    let request = node.admin_request(&Method::POST, "/admin/rooms/r/chat");
    let token = std::fs::read_to_string(node.data_dir().join("operator.token")).unwrap();
    let request = request.bearer_auth(token.trim()).json(&json!({"message": message}));
    answer(request.header("x-idempotency-key", key)).await
}

#[tokio::test]
async fn any_node_shows_all_rooms() {
    let (_network, nodes, ada, bob) = three_nodes().await;
    let _cyd = Client::join(&nodes[1], "s", "Cyd").await;
    for node in &nodes {
        let listed = node.admin_get("/admin/rooms").await.json();
        let rooms: Vec<_> = listed["rooms"].as_array().unwrap().iter().map(|room| &room["room"]).collect();
        assert_eq!(rooms, ["r", "s"], "{listed}");
        assert_eq!((&listed["rooms"][0]["members"], listed.get("silentNodes")), (&json!(2), None));
        let room = node.admin_get("/admin/rooms/r").await;
        let members = room.json()["members"].clone();
        let ids: Vec<_> = members.as_array().unwrap().iter().map(|member| member["id"].clone()).collect();
        assert!(ids.contains(&json!(ada.pk())) && ids.contains(&json!(bob.pk())), "{room:?}");
        assert_eq!(node.admin_get("/admin/rooms/nobody").await.status, 404);
        let token = token_with("Bot", "r", json!({"agent": true}));
        let state = answer(node.get("/api/rooms/r").bearer_auth(&token)).await;
        assert_eq!(state.json()["members"].as_array().unwrap().len(), 2, "{state:?}");
        let foreign = answer(node.get("/api/rooms/s").bearer_auth(&token)).await;
        assert_eq!(foreign.status, 403, "the node that is asked decides");
    }
}

#[tokio::test]
async fn operators_moderate_from_any_node() {
    let (_network, [a, b, c], mut ada, mut bob) = three_nodes().await;
    let moderate = |node: &TestServer, body: Value| {
        let (url, token) = ("/admin/rooms/r/moderate", node.data_dir().join("operator.token"));
        let token = std::fs::read_to_string(token).unwrap();
        answer(node.admin_request(&Method::POST, url).bearer_auth(token.trim()).body(body.to_string()))
    };
    assert_eq!(moderate(&c, json!({"action": "lock", "on": true})).await.json(), json!({"ok": true}));
    bob.until_state(|state| state["room"]["locked"] == true).await;
    for node in [&a, &b, &c] {
        let eve = Person::log_in(node, "Eve").await;
        assert_eq!(Ask::room("r").by(&eve).try_open(node).await.err(), Some(403));
        let settings = node.admin_get("/admin/rooms/r/settings").await.json();
        assert_eq!(settings["locked"], true);
    }
    let unknown = moderate(&b, json!({"action": "mute", "id": "nobody"})).await;
    assert_eq!((unknown.status, &unknown.json()["ok"]), (409, &json!(false)));
    let removed = moderate(&c, json!({"action": "remove", "id": bob.pk()})).await;
    assert_eq!(removed.json(), json!({"ok": true}));
    assert_eq!(bob.closed().await.0, 4403);
    assert_eq!(moderate(&b, json!({"action": "end"})).await.json(), json!({"ok": true}));
    ada.closed().await;
    let over = async || moderate(&b, json!({"action": "end"})).await.status;
    eventually("the room is gone".to_owned(), async || over().await == 404).await;
}

#[tokio::test]
async fn key_holds_at_all_nodes() {
    let (_network, [a, b, c], mut ada, mut bob) = three_nodes().await;
    let (first, second) = tokio::join!(post(&b, "k", "1"), post(&c, "k", "1"));
    assert_eq!((first.status, second.status), (204, 204));
    for node in [&a, &b, &c] {
        assert_eq!(post(node, "k", "1").await.status, 204);
        assert_eq!(post(node, "k", "other").await.status, 422);
    }
    assert_eq!(post(&c, "k2", "2").await.status, 204);
    assert_eq!((told(&mut ada, 2).await, told(&mut bob, 2).await), (vec![1, 2], vec![1, 2]), "once each");
}

/// The owner is killed: a request of the next moment waits for the next one, and a repeated one is known there.
#[tokio::test]
async fn request_outlives_the_owner() {
    let network = MemoryNetwork::default();
    let owner = Mortal::start(&network);
    let (b, _) = TestServer::node(&network, Some(&owner.server), |_| {}).await;
    let (c, _) = TestServer::node(&network, Some(&owner.server), |_| {}).await;
    let ada = Client::join(&owner.server, "r", "Ada").await;
    let mut bob = Client::join(&b, "r", "Bob").await;
    bob.until_state(|state| users(state) == 2).await;
    assert_eq!(post(&c, "k1", "1").await.status, 204);
    assert_eq!(told(&mut bob, 1).await, [1]);
    let id = owner.id;
    let dead = owner.kill();
    // Whatever reaches it before may have been carried out, and is not made again.
    eventually("nobody listens".to_owned(), async || !network.listens(id)).await;
    let is_written = async || post(&c, "k2", "2").await.status == 204;
    eventually("the next owner is asked".to_owned(), is_written).await;
    assert_eq!(post(&b, "k1", "1").await.status, 204, "it was carried out by the dead one");
    chat(&mut bob, 3).await;
    assert_eq!(told(&mut bob, 3).await, [2, 3]);
    let room = c.admin_get("/admin/rooms/r").await;
    assert_eq!(room.json()["members"].as_array().unwrap().len(), 2, "{room:?}");
    drop((dead, ada));
}

#[tokio::test]
async fn silent_node_is_named() {
    let network = MemoryNetwork::default();
    let (a, _) = TestServer::node(&network, None, |_| {}).await;
    let _ada = Client::join(&a, "r", "Ada").await;
    // It listens, and answers nobody.
    let (silent, _events) = network.node(NodeId::new(9));
    let pulse = json!({"node": 9, "number": 1, "version": 1, "is_draining": false, "name": "n", "fingerprint": "tests"});
    silent.send_to_all(pulse.to_string().into()).await;
    a.until_metric("satsuma_nodes_alive", 1.0).await;
    let listed = a.admin_get("/admin/rooms").await.json();
    assert_eq!(listed["rooms"][0]["room"], "r");
    assert_eq!(listed["silentNodes"], json!(["n (00000009)"]));
}

/// More than the engine passes on in one message.
#[tokio::test]
async fn large_room_is_shown_at_another_node() {
    let (_network, a, b) =
        two_nodes_with(|config| config.moderation.default = ModeratorDefault::Everyone).await;
    let mut members = Vec::new();
    for number in 0..20 {
        let mut member = Client::join(&a, "r", &format!("Member {number}")).await;
        member.say(json!({"type": "userUpdate", "user": {"note": "x".repeat(7000)}})).await;
        members.push(member);
    }
    members[0].until_state(|state| state.to_string().len() > 20 * 7000).await;
    let room = b.admin_get("/admin/rooms/r").await;
    assert_eq!(room.json()["members"].as_array().unwrap().len(), 20);
}
