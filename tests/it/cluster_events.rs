//! Streams of events, observers and lists of meetings over several nodes.

use std::collections::HashSet;

use satsuma::id::NodeId;
use satsuma::nodes::engine::Engine;
use serde_json::{Value, json};

use crate::client::Client;
use crate::cluster::{Mortal, two_nodes_with, users};
use crate::event_streams::{Stream, agent, configured, leave, operators};
use crate::harness::{TestServer, eventually};
use crate::memory_engine::MemoryNetwork;

async fn three_nodes() -> (MemoryNetwork, [TestServer; 3]) {
    let (network, a, b) = two_nodes_with(configured).await;
    let (c, _) = TestServer::node(&network, Some(&a), configured).await;
    (network, [a, b, c])
}

/// The types and rooms of the next events, until a number of meetings has ended.
async fn until_ended(stream: &mut Stream, mut meetings: usize) -> Vec<(String, String, String)> {
    let mut told = Vec::new();
    while meetings > 0 {
        let event = stream.next().await.expect("the stream goes on");
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        if event["type"] == "meeting.ended" {
            meetings -= 1;
        }
        told.push((text("type"), text("room"), text("id")));
    }
    told
}

/// Whoever asks any node for events gets those of all, each once.
#[tokio::test]
async fn stream_of_any_node_has_the_events_of_all() {
    let (_network, nodes) = three_nodes().await;
    let mut all = Vec::new();
    for node in &nodes {
        all.push(Stream::open(operators(node, "")).await);
    }
    let mut of_one = Stream::open(nodes[2].get("/api/rooms/r1/events").bearer_auth(agent("r1"))).await;
    for (number, node) in nodes.iter().enumerate() {
        leave(Client::join(node, &format!("r{number}"), "Ada").await).await;
    }
    let expected = ["meeting.started", "member.joined", "member.left", "meeting.ended"];
    let mut ids: Vec<HashSet<String>> = Vec::new();
    for stream in &mut all {
        let told = until_ended(stream, 3).await;
        for number in 0..3 {
            let room = format!("r{number}");
            let types: Vec<&str> =
                told.iter().filter(|(_, of, _)| *of == room).map(|(kind, ..)| &**kind).collect();
            assert_eq!(types, expected, "{room}: {told:?}");
        }
        ids.push(told.iter().map(|(.., id)| id.clone()).collect());
        assert_eq!(ids.last().unwrap().len(), told.len(), "each once");
    }
    assert!(ids.iter().all(|other| *other == ids[0]), "the same everywhere");
    assert_eq!(of_one.until("meeting.ended").await, expected);
}

/// Nobody records or sends anything while nobody reads.
#[tokio::test]
async fn events_without_streams_cost_nothing() {
    let (_network, nodes) = three_nodes().await;
    leave(Client::join(&nodes[0], "r", "Ada").await).await;
    nodes[0].until_metric("satsuma_rooms", 0.0).await;
    // What comes after the first stream is told, and nothing of before.
    let mut stream = Stream::open(operators(&nodes[1], "")).await;
    let _ada = Client::join(&nodes[0], "s", "Ada").await;
    assert_eq!(stream.next().await.unwrap()["room"], "s");
    assert_eq!(nodes[1].metric("satsuma_events_total{type=\"meeting.started\"}").await, 0.0);
    assert_eq!(nodes[0].metric("satsuma_events_total{type=\"meeting.started\"}").await, 1.0);
}

#[tokio::test]
async fn stream_resumes_at_another_node() {
    let (_network, [a, b, c]) = three_nodes().await;
    let mut stream = Stream::open(operators(&a, "?rooms=r*")).await;
    let ada = Client::join(&b, "r", "Ada").await;
    stream.until("member.joined").await;
    let last_id = stream.last_id.clone();
    drop(stream);
    leave(ada).await;
    leave(Client::join(&c, "r2", "Bob").await).await;
    // At the same node exactly there; at another one some events before come again.
    let resumed = |node: &TestServer| operators(node, "?rooms=r*").header("last-event-id", &last_id);
    let mut stream = Stream::open(resumed(&a)).await;
    let told = until_ended(&mut stream, 2).await;
    assert!(told.iter().all(|(kind, room, _)| (&**kind, &**room) != ("member.joined", "r")), "{told:?}");
    let ids: HashSet<String> = told.into_iter().map(|(.., id)| id).collect();
    for node in [&b, &c] {
        let mut stream = Stream::open(resumed(node)).await;
        let again = until_ended(&mut stream, 2).await;
        assert_eq!(again[0].0, "meeting.started", "none is said to be lost: {again:?}");
        let again: HashSet<String> = again.into_iter().map(|(.., id)| id).collect();
        assert!(again.is_superset(&ids), "nothing is missing");
    }
    // A program may name an event by its id alone.
    let plain = last_id.split('@').next().unwrap();
    let mut stream = Stream::open(operators(&a, "").header("last-event-id", plain)).await;
    assert_eq!(until_ended(&mut stream, 2).await[0].0, "meeting.started");
}

/// A node with a stream is killed: the program goes on at another node, and hears of the rooms that were taken over.
#[tokio::test]
async fn stream_goes_on_after_the_death_of_a_node() {
    let network = MemoryNetwork::default();
    let owner = Mortal::start_first(&network, configured);
    let (b, _) = TestServer::node(&network, Some(&owner.server), configured).await;
    let mut stream = Stream::open(operators(&b, "")).await;
    let _ada = Client::join(&owner.server, "r", "Ada").await;
    let mut bob = Client::join(&b, "r", "Bob").await;
    bob.until_state(|state| users(state) == 2).await;
    let mut joined = 0;
    while joined < 2 {
        joined += usize::from(stream.next().await.unwrap()["type"] == "member.joined");
    }
    let dead = owner.kill();
    bob.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    stream.until("hand.raised").await;
    drop(dead);
}

#[tokio::test]
async fn lost_events_of_another_node_are_fetched() {
    let (network, a, b) = two_nodes_with(configured).await;
    let mut stream = Stream::open(operators(&b, "")).await;
    network.lose_broadcasts(3);
    for number in 0..4 {
        leave(Client::join(&a, &format!("r{number}"), "Ada").await).await;
        a.until_metric(r#"satsuma_events_total{type="meeting.ended"}"#, f64::from(number + 1)).await;
    }
    let told = until_ended(&mut stream, 4).await;
    assert_eq!(told.len(), 16, "{told:?}");
    assert!(told.iter().all(|(kind, ..)| kind != "events.lost"), "{told:?}");
}

#[tokio::test]
async fn members_see_observers_at_any_node() {
    let (_network, [a, b, c]) = three_nodes().await;
    let mut ada = Client::join(&a, "r", "Ada").await;
    let mut bob = Client::join(&b, "r", "Bob").await;
    let shown = || "/api/rooms/r/events?shown=true";
    let stream = Stream::open(c.get(shown()).bearer_auth(agent("r"))).await;
    for client in [&mut ada, &mut bob] {
        client.until_state(|state| state["room"]["observers"] == json!(["Bot"])).await;
    }
    let second = Stream::open(b.get(shown()).bearer_auth(agent("r"))).await;
    drop(stream);
    c.until_metric("satsuma_event_streams", 0.0).await;
    ada.until_state(|state| state["room"]["observers"] == json!(["Bot"])).await;
    drop(second);
    ada.until_state(|state| state.get("room").is_none()).await;
}

/// An observer at a node that is killed is shown no longer than the node seems to live.
#[tokio::test]
async fn observer_is_gone_with_its_node() {
    let (network, a, _b) = two_nodes_with(configured).await;
    let dying = Mortal::start_with(&network, &a, configured);
    let mut ada = Client::join(&a, "r", "Ada").await;
    let stream =
        Stream::open(dying.server.get("/api/rooms/r/events?shown=true").bearer_auth(agent("r"))).await;
    ada.until_state(|state| state["room"]["observers"] == json!(["Bot"])).await;
    let dead = dying.kill();
    ada.until_state(|state| state.get("room").is_none()).await;
    drop((stream, dead));
}

/// The meetings of an answer: their ids, their peaks, and if they have ended.
fn meetings(page: &Value) -> Vec<(String, i64, bool)> {
    let rows = page["meetings"].as_array().unwrap().iter();
    let row = |row: &Value| {
        let id = row["id"].as_str().unwrap().to_owned();
        (id, row["peakMembers"].as_i64().unwrap(), row["ended"].is_string())
    };
    rows.map(row).collect()
}

#[tokio::test]
async fn any_node_lists_the_meetings_of_all() {
    let (_network, nodes) = three_nodes().await;
    let mut running = Vec::new();
    let mut ids = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        let room = format!("r{number}");
        let mut ada = Client::join(node, &room, "Ada").await;
        let _bob = Client::join(&nodes[0], &room, "Bob").await;
        let state = ada.until_state(|state| users(state) == 2).await;
        ids.push(state["meetingId"].as_str().unwrap().to_owned());
        running.push((ada, _bob));
    }
    ids.reverse();
    for node in &nodes {
        let all = async || meetings(&node.admin_get("/admin/meetings").await.json());
        let expected: Vec<_> = ids.iter().map(|id| (id.clone(), 2, false)).collect();
        eventually("all meetings are listed".to_owned(), async || all().await == expected).await;
        let mut pages = Vec::new();
        let mut next = String::new();
        while pages.len() < ids.len() {
            let page = node.admin_get(&format!("/admin/meetings?limit=1{next}")).await.json();
            assert_eq!(page.get("silentNodes"), None);
            pages.extend(meetings(&page));
            next = format!("&before={}", page["next"].as_str().unwrap());
        }
        assert_eq!(pages, expected, "page by page");
    }
    for (ada, bob) in running {
        leave(ada).await;
        leave(bob).await;
    }
    let ended: Vec<_> = ids.iter().map(|id| (id.clone(), 2, true)).collect();
    let all = async || meetings(&nodes[2].admin_get("/admin/meetings").await.json());
    eventually("all meetings have ended".to_owned(), async || all().await == ended).await;
}

/// A meeting whose room moves is one meeting, and a node that does not answer is named.
#[tokio::test]
async fn meeting_that_moved_is_listed_once() {
    let (network, a, b) = two_nodes_with(configured).await;
    let mut ada = Client::join(&a, "r", "Ada").await;
    let mut bob = Client::join(&b, "r", "Bob").await;
    let meeting = bob.until_state(|state| users(state) == 2).await["meetingId"].clone();
    let listed = async |node: &TestServer| node.admin_get("/admin/meetings").await.json();
    // It is written a moment after it began.
    let is_written = async || listed(&b).await["meetings"][0]["peakMembers"] == 2;
    eventually("the first owner lists it".to_owned(), is_written).await;
    let of_both = listed(&b).await["meetings"][0].clone();
    let at_rest = async {
        assert_eq!(ada.closed().await.0, 1012);
        let is_owned = async || b.metric("satsuma_rooms_owned").await == 1.0;
        eventually("the room was handed over".to_owned(), is_owned).await;
    };
    let (stopped, ()) = tokio::join!(a.stop(), at_rest);
    let is_listed = async || listed(&b).await["meetings"][0]["id"] == meeting;
    eventually("the next owner lists it".to_owned(), is_listed).await;
    let (a, _) = stopped.start_as_node(&network).await;
    for node in [&a, &b] {
        let page = listed(node).await;
        assert_eq!(meetings(&page), [(meeting.as_str().unwrap().to_owned(), 2, false)]);
        assert_eq!(page["meetings"][0]["created"], of_both["created"]);
    }
    let (silent, _events) = network.node(NodeId::new(9));
    let pulse = json!({"node": 9, "number": 1, "version": 1, "is_draining": false, "name": "n", "fingerprint": "tests"});
    silent.send_to_all(pulse.to_string().into()).await;
    b.until_metric("satsuma_nodes_alive", 2.0).await;
    assert_eq!(listed(&b).await["silentNodes"], json!(["n (00000009)"]));
}
