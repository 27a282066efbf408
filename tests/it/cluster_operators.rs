//! Several nodes, as their operators see them.

use satsuma::id::NodeId;
use satsuma::nodes::engine::Engine;
use satsuma_cluster::message::NodeMessage;
use serde_json::{Value, json};

use crate::client::Client;
use crate::cluster::{two_nodes, users};
use crate::harness::{TestServer, answer, eventually};
use crate::memory_engine::MemoryNetwork;

/// The cluster as a node sees it.
async fn cluster(node: &TestServer) -> Value {
    node.admin_get("/admin/cluster").await.json()
}

/// The cluster as a node sees it once it has this many nodes that are alive.
async fn until_alive(node: &TestServer, number: usize) -> Value {
    let living = |cluster: &Value| {
        let nodes = cluster["nodes"].as_array().unwrap();
        nodes.iter().filter(|node| node["alive"] == true).count()
    };
    eventually(format!("{number} nodes are alive"), async || living(&cluster(node).await) == number).await;
    cluster(node).await
}

#[tokio::test]
async fn nodes_see_each_other() {
    let (_network, a, b) = two_nodes().await;
    let mut ada = Client::join(&a, "r", "Ada").await;
    let _bob = Client::join(&b, "r", "Bob").await;
    ada.until_state(|state| users(state) == 2).await;
    let is_told = async || {
        let seen = until_alive(&b, 2).await;
        let other = &seen["nodes"][1];
        (&other["owned"], &other["sockets"]) == (&json!(1), &json!(1))
    };
    eventually("the room of the other node is told".to_owned(), is_told).await;
    let seen = cluster(&b).await;
    let (own, other) = (&seen["nodes"][0], &seen["nodes"][1]);
    assert_eq!((&own["this"], &own["relayed"], &own["owned"]), (&json!(true), &json!(1), &json!(0)));
    assert_eq!((&other["this"], &other["sameSecret"]), (&json!(false), &json!(true)));
    assert_eq!(seen["node"], own["id"]);
    assert!(other["lastPulseSecondsAgo"].as_f64().unwrap() < 60.0, "{other}");
    let engine = &seen["engine"];
    assert_eq!((&engine["status"], &engine["server"]), (&json!("connected"), &json!("memory")));
    assert_eq!(b.metric("satsuma_nodes_alive").await, 1.0);
    assert_eq!(a.metric("satsuma_rooms_owned").await, 1.0);
    // The room is handed over, and that is counted.
    a.stop().await;
    let seen = until_alive(&b, 1).await;
    assert_eq!(seen["nodes"][1]["alive"], false);
    let is_taken = async || cluster(&b).await["takeovers"] == json!({"died": 0, "handedOver": 1});
    eventually("the takeover is counted".to_owned(), is_taken).await;
}

#[tokio::test]
async fn single_node_says_that_it_is_none() {
    let server = TestServer::start().await;
    let seen = cluster(&server).await;
    assert_eq!((&seen["clustered"], &seen["nodes"]), (&json!(false), &json!([])));
    let ready = answer(server.admin("/readyz?engine")).await;
    assert_eq!((ready.status, ready.json().get("engine")), (200, None));
}

#[tokio::test]
async fn lost_engine_is_told_to_those_who_ask() {
    let network = MemoryNetwork::default();
    let (a, id) = TestServer::node(&network, None, |_| {}).await;
    let ready = answer(a.admin("/readyz?engine")).await;
    assert_eq!((ready.status, &ready.json()["engine"]), (200, &json!("connected")));
    network.cut_off(id, true);
    let engine = async || cluster(&a).await["engine"].clone();
    eventually("the loss is known".to_owned(), async || engine().await["status"] == "away").await;
    let ready = answer(a.admin("/readyz")).await;
    assert_eq!(ready.status, 200, "nobody restarts a node for its engine: {ready:?}");
    assert!(ready.json()["engine"].as_str().unwrap().starts_with("away since 2"), "{ready:?}");
    assert_eq!(answer(a.admin("/readyz?engine")).await.status, 503);
    assert_eq!(answer(a.get("/readyz")).await.status, 200);
    assert_eq!(answer(a.get("/readyz?engine=1")).await.status, 503);
    assert_eq!(answer(a.admin("/healthz")).await.status, 200);
    network.cut_off(id, false);
    eventually("the engine is back".to_owned(), async || engine().await["status"] == "connected").await;
    assert_eq!(engine().await["reconnects"], 1);
    assert_eq!(answer(a.admin("/readyz?engine")).await.status, 200);
}

#[tokio::test]
async fn node_with_another_secret_takes_no_part() {
    let network = MemoryNetwork::default();
    let (a, id) = TestServer::node(&network, None, |_| {}).await;
    let error = TestServer::foreign_node(&network).await.err().unwrap().to_string();
    assert!(error.starts_with("cluster.secret: the node ") && error.contains("another secret"), "{error}");
    // One that began while it could hear nobody is seen, and no node.
    let pulse = json!({"node": 7, "number": 1, "version": 1, "is_draining": false, "fingerprint": "another"});
    let (foreign, _events) = network.node(NodeId::new(7));
    foreign.send_to_all(pulse.to_string().into()).await;
    eventually("the foreign node is seen".to_owned(), async || cluster(&a).await["nodes"][1].is_object())
        .await;
    let seen = cluster(&a).await;
    assert_eq!(
        (&seen["nodes"][1]["sameSecret"], &seen["nodes"][1]["id"]),
        (&json!(false), &json!("00000007"))
    );
    assert_eq!(a.metric("satsuma_nodes_alive").await, 0.0);
    foreign.send(id, NodeMessage::Probe.encode().into()).await;
    a.until_metric(r#"satsuma_drops_total{reason="message_of_stranger"}"#, 1.0).await;
}
