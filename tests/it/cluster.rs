//! Several nodes in one process, with an engine in memory between them.

use std::time::Duration;

use satsuma::config::{Config, ModeratorDefault};
use satsuma::id::NodeId;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::client::{Ask, Client, user_of};
use crate::harness::{Person, TestServer};
use crate::memory_engine::MemoryNetwork;

/// Two nodes, the first of which every room here begins on.
pub async fn two_nodes() -> (MemoryNetwork, TestServer, TestServer) {
    two_nodes_with(|_| {}).await
}

pub async fn two_nodes_with(edit: fn(&mut Config)) -> (MemoryNetwork, TestServer, TestServer) {
    let network = MemoryNetwork::default();
    let (a, _) = TestServer::node(&network, None, edit).await;
    let (b, _) = TestServer::node(&network, Some(&a), edit).await;
    (network, a, b)
}

/// A node in a runtime of its own, so that it can be killed: nothing of it runs on, and it says goodbye to nobody.
pub struct Mortal {
    runtime: Runtime,
    pub server: TestServer,
    pub id: NodeId,
}

impl Mortal {
    pub fn start(network: &MemoryNetwork) -> Self {
        Self::run(network, None, |_| {})
    }

    pub fn start_first(network: &MemoryNetwork, edit: impl FnOnce(&mut Config) + Send) -> Self {
        Self::run(network, None, edit)
    }

    /// The same, with the keys of another node.
    pub fn start_beside(network: &MemoryNetwork, other: &TestServer) -> Self {
        Self::start_with(network, other, |_| {})
    }

    pub fn start_with(
        network: &MemoryNetwork,
        other: &TestServer,
        edit: impl FnOnce(&mut Config) + Send,
    ) -> Self {
        Self::run(network, Some(other), edit)
    }

    pub fn start_edited(
        network: &MemoryNetwork,
        other: Option<&TestServer>,
        edit: impl FnOnce(&mut Config) + Send,
    ) -> Self {
        Self::run(network, other, edit)
    }

    fn run(
        network: &MemoryNetwork,
        other: Option<&TestServer>,
        edit: impl FnOnce(&mut Config) + Send,
    ) -> Self {
        // The runtime may not block where another one runs.
        let start = || {
            let runtime = Runtime::new().unwrap();
            let (server, id) = runtime.block_on(TestServer::node(network, other, edit));
            Self { runtime, server, id }
        };
        std::thread::scope(|scope| scope.spawn(start).join().unwrap())
    }

    pub fn kill(self) -> TestServer {
        self.runtime.shutdown_background();
        self.server
    }
}

/// Says a number in the chat.
pub async fn chat(from: &mut Client, number: u32) {
    from.say(json!({"type": "chat", "message": number.to_string()})).await;
}

/// The numbers of the chat messages up to that one, as a client is told them.
pub async fn told(client: &mut Client, through: u32) -> Vec<u32> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&through) {
        let message = client.until(|message| message["type"] == "chat").await;
        numbers.push(message["message"].as_str().unwrap().parse().unwrap());
    }
    numbers
}

pub fn users(state: &Value) -> usize {
    state["users"].as_array().unwrap().len()
}

#[tokio::test]
async fn members_on_two_nodes_are_in_one_room() {
    let (_network, a, b) = two_nodes().await;
    let mut ada = Client::join(&a, "r", "Ada").await;
    let mut bob = Client::join(&b, "r", "Bob").await;
    let ids = [ada.pk(), bob.pk()];
    let state = ada.until_state(|state| state["users"].as_array().unwrap().len() == 2).await;
    bob.until_state(|other| *other == state).await;
    bob.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    let seen = ada.until_state(|state| user_of(state, &ids[1])["raisedHand"] == true).await;
    bob.until_state(|other| *other == seen).await;
    bob.say(json!({"type": "chat", "message": "hello"})).await;
    let told = ada.event().await;
    assert_eq!(
        (&told["type"], &told["message"], &told["from"]),
        (&json!("chat"), &json!("hello"), &json!(ids[1]))
    );
    assert_eq!(bob.event().await, told);
    ada.say(json!({"type": "directMessage", "to": ids[1], "message": "hi"})).await;
    assert_eq!(bob.event().await["message"], "hi");
    bob.say(json!({"type": "userLeft"})).await;
    assert_eq!(bob.closed().await.0, 1000);
    assert_eq!(ada.event().await, json!({"type": "userLeftNotification", "id": ids[1]}));
    ada.until_users(&[&ids[0]]).await;
}

#[tokio::test]
async fn newer_socket_at_another_node_replaces_the_older_one() {
    let (_network, a, b) = two_nodes().await;
    let mut ada = Client::join(&a, "r", "Ada").await;
    let mut bob = Client::join(&b, "r", "Bob").await;
    ada.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    let pk = ada.pk();
    bob.until_state(|state| user_of(state, &pk)["raisedHand"] == true).await;
    let mut newer = ada.ask().open(&b).await;
    assert_eq!(ada.closed().await.0, 4001);
    newer.until_state(|state| user_of(state, &pk)["raisedHand"] == true).await;
    newer.say(json!({"type": "chat", "message": "here"})).await;
    assert_eq!(bob.event().await["message"], "here");
    assert_eq!(newer.event().await["message"], "here");
    let _again = newer.ask().open(&a).await;
    assert_eq!(newer.closed().await.0, 4001);
}

#[tokio::test]
async fn foreign_id_is_refused_at_any_node() {
    let (_network, a, b) = two_nodes().await;
    let ada = Client::join(&a, "r", "Ada").await;
    let eve = Person::log_in(&b, "Eve").await;
    let refused = Ask::room("r").by(&eve).pk(&ada.pk()).try_open(&b).await;
    assert_eq!(refused.err(), Some(403));
}

#[tokio::test]
async fn orange_and_phoenix_meet_over_two_nodes() {
    let (_network, a, b) = two_nodes().await;
    let mut ada = Client::join(&a, "r", "Ada").await;
    chat(&mut ada, 1).await;
    assert_eq!(told(&mut ada, 1).await, [1]);
    let bob = Person::log_in(&b, "Bob").await;
    let ask = Ask::path("/socket/websocket?vsn=2.0.0").by(&bob).header("origin", &b.http());
    let mut bob = ask.open(&b).await;
    bob.say(json!(["1", "1", "room:r", "phx_join", {"_pk": "bob"}])).await;
    let reply = bob.until(|frame| frame[1] == "1" && frame[3] == "phx_reply").await;
    assert_eq!(reply[4]["status"], "ok");
    let presences = bob.until(|frame| frame[3] == "presence_state").await;
    assert!(presences[4].get(ada.pk()).is_some(), "{presences}");
    let history = bob.until(|frame| frame[3] == "chatHistory").await;
    assert_eq!(history[4]["messages"][0]["message"], "1");
    ada.until_state(|state| users(state) == 2).await;
    bob.say(json!(["1", "2", "room:r", "chat", {"message": "2"}])).await;
    let reply = bob.until(|frame| frame[1] == "2" && frame[3] == "phx_reply").await;
    assert_eq!(reply[4]["status"], "ok");
    assert_eq!(told(&mut ada, 2).await, [2]);
    bob.say(json!(["1", "3", "room:r", "moderate", {"action": "admit", "id": "nobody"}])).await;
    let reply = bob.until(|frame| frame[1] == "3" && frame[3] == "phx_reply").await;
    assert_eq!(reply[4]["status"], "error", "{reply}");
}

#[tokio::test]
async fn moderators_reach_members_at_other_nodes() {
    let (_network, a, b) = two_nodes_with(|config| config.moderation.default = ModeratorDefault::First).await;
    let mut ada = Client::join(&a, "r", "Ada").await;
    let eve = Person::log_in(&a, "Eve").await;
    let mut guest = Ask::room("r").by(&eve).pk("eve").open(&b).await;
    ada.until_state(|state| users(state) == 2).await;
    guest.say(json!({"type": "moderate", "ref": "1", "action": "lock", "on": true})).await;
    let refused = guest.until(|message| message["type"] == "moderated").await;
    assert_eq!(refused["error"], "you may not moderate this room");
    ada.say(json!({"type": "moderate", "ref": "1", "action": "remove", "id": "eve", "ban": true})).await;
    assert_eq!(guest.closed().await.0, 4403);
    for node in [&a, &b] {
        let refused = Ask::room("r").by(&eve).pk("eve-again").try_open(node).await;
        assert_eq!(refused.err(), Some(403));
    }
}

/// A member that confirms nothing loses its membership, also at a node that does not own the room.
#[tokio::test]
async fn slow_reader_at_another_node_is_removed() {
    let (_network, a, b) = two_nodes_with(|config| {
        config.limits.outbox_bytes = 64 << 10;
        config.limits.write_stall = Duration::from_millis(500);
        config.limits.messages_per_second = 10_000;
        config.limits.message_burst = 10_000;
    })
    .await;
    let mut ada = Client::join(&a, "r", "Ada").await;
    let mut bob = Client::join(&b, "r", "Bob").await;
    let mut cyd = Client::join(&b, "r", "Cyd").await;
    ada.until_state(|state| users(state) == 3).await;
    let pk = cyd.pk();
    cyd.stop_reading().await;
    let is_gone = |message: &Value| *message == json!({"type": "userLeftNotification", "id": pk});
    let mut gone = false;
    while !gone {
        ada.say(json!({"type": "e2eeMlsMessage", "payload": "x".repeat(20_000)})).await;
        let message = bob.until(|message| message["type"] == "e2eeMlsMessage" || is_gone(message)).await;
        gone = is_gone(&message);
    }
    assert_eq!(b.metric(r#"satsuma_drops_total{reason="outbox_over_budget"}"#).await, 1.0);
    ada.until_state(|state| users(state) == 2).await;
}

/// The owner is killed while two members at two other nodes talk.
#[tokio::test]
async fn members_elsewhere_survive_the_death_of_the_owner() {
    let network = MemoryNetwork::default();
    let owner = Mortal::start(&network);
    let (b, _) = TestServer::node(&network, Some(&owner.server), |_| {}).await;
    let (c, _) = TestServer::node(&network, Some(&owner.server), |_| {}).await;
    let ada = Client::join(&owner.server, "r", "Ada").await;
    let (mut bob, mut cyd) = (Client::join(&b, "r", "Bob").await, Client::join(&c, "r", "Cyd").await);
    let meeting = bob.until_state(|state| users(state) == 3).await["meetingId"].clone();
    cyd.until_state(|state| users(state) == 3).await;
    chat(&mut bob, 1).await;
    chat(&mut bob, 2).await;
    assert_eq!((told(&mut bob, 2).await, told(&mut cyd, 2).await), (vec![1, 2], vec![1, 2]));
    // One that may be lost on its way to the owner, and has to be said again.
    chat(&mut bob, 3).await;
    let dead = owner.kill();
    chat(&mut cyd, 4).await;
    chat(&mut bob, 5).await;
    let (by_bob, by_cyd) = (told(&mut bob, 5).await, told(&mut cyd, 5).await);
    let mut all = [&by_bob[..], &by_cyd[..]].concat();
    // Either may have been told 4 after 5.
    if !all.contains(&4) {
        all.push(told(&mut bob, 4).await[0]);
        told(&mut cyd, 4).await;
    }
    assert_eq!(by_bob, by_cyd, "both are told the same, in the same order");
    assert!([3, 4, 5].iter().all(|number| all.contains(number)), "{all:?}");
    bob.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    let pk = bob.pk();
    let state = bob.until_state(|state| user_of(state, &pk)["raisedHand"] == true).await;
    assert_eq!((users(&state), &state["meetingId"]), (3, &meeting));
    cyd.until_state(|other| *other == state).await;
    // The member of the dead node comes back at another one, as who it was.
    let mut again = ada.ask().open(&c).await;
    assert_eq!(again.until_state(|state| users(state) == 3).await["meetingId"], meeting);
    drop(dead);
}

/// What a node was told of its members a moment before it dies is not forgotten: nobody is back in the lobby.
#[tokio::test]
async fn members_of_a_dead_node_stay_in_the_meeting() {
    let network = MemoryNetwork::default();
    let owner = Mortal::start(&network);
    let (b, _) = TestServer::node(&network, Some(&owner.server), |_| {}).await;
    let mut ada = Client::join(&owner.server, "r", "Ada").await;
    let mut bob = Client::join(&b, "r", "Bob").await;
    let pk = ada.pk();
    ada.say(json!({"type": "userUpdate", "user": {"joined": true}})).await;
    bob.until_state(|state| user_of(state, &pk)["joined"] == true).await;
    let dead = owner.kill();
    bob.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    let of_bob = bob.pk();
    let state = bob.until_state(|state| user_of(state, &of_bob)["raisedHand"] == true).await;
    assert_eq!(user_of(&state, &pk)["joined"], true, "{state}");
    drop(dead);
}

/// The owner is cut off from the engine: another node takes the room over, and the owner finds out.
#[tokio::test]
async fn owner_that_is_cut_off_is_fenced() {
    let network = MemoryNetwork::default();
    let (a, id) = TestServer::node(&network, None, |_| {}).await;
    let (b, _) = TestServer::node(&network, Some(&a), |_| {}).await;
    let mut ada = Client::join(&a, "r", "Ada").await;
    let mut bob = Client::join(&b, "r", "Bob").await;
    ada.until_state(|state| users(state) == 2).await;
    network.cut_off(id, true);
    chat(&mut ada, 1).await;
    chat(&mut bob, 2).await;
    assert_eq!(told(&mut bob, 2).await, [2], "the next owner took it");
    network.cut_off(id, false);
    assert_eq!(told(&mut bob, 1).await, [1], "what was said at the old owner is not lost");
    assert_eq!(told(&mut ada, 1).await, [2, 1], "nobody is told another order");
}

#[tokio::test]
async fn leaving_owner_hands_the_room_over() {
    let (_network, a, b) = two_nodes().await;
    let mut ada = Client::join(&a, "r", "Ada").await;
    let mut bob = Client::join(&b, "r", "Bob").await;
    let meeting = bob.until_state(|state| users(state) == 2).await["meetingId"].clone();
    let meet_again = async {
        assert_eq!(ada.closed().await.0, 1012);
        chat(&mut bob, 1).await;
        assert_eq!(told(&mut bob, 1).await, [1]);
        let mut ada = ada.ask().open(&b).await;
        assert_eq!(ada.until_state(|state| users(state) == 2).await["meetingId"], meeting);
    };
    tokio::join!(a.stop(), meet_again);
}

#[tokio::test]
async fn silent_engine_holds_events_up_and_loses_none() {
    let (network, a, b) = two_nodes().await;
    let mut ada = Client::join(&a, "r", "Ada").await;
    let mut bob = Client::join(&b, "r", "Bob").await;
    ada.until_state(|state| users(state) == 2).await;
    network.be_silent(true);
    for number in 1..=3 {
        chat(&mut bob, number).await;
    }
    ada.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    let pk = ada.pk();
    bob.until_state(|state| user_of(state, &pk)["raisedHand"] == true).await;
    assert!(Ask::room("another").try_open(&b).await.is_err(), "no room begins meanwhile");
    network.be_silent(false);
    assert_eq!((told(&mut ada, 3).await, told(&mut bob, 3).await), (vec![1, 2, 3], vec![1, 2, 3]));
    Client::join(&b, "another", "Bob").await;
}

#[tokio::test]
async fn lone_node_ends_its_rooms() {
    let network = MemoryNetwork::default();
    let (a, _) =
        TestServer::node(&network, None, |config| config.room.tick = Duration::from_millis(50)).await;
    let mut ada = Client::join(&a, "r", "Ada").await;
    chat(&mut ada, 1).await;
    assert_eq!(told(&mut ada, 1).await, [1]);
    ada.say(json!({"type": "userLeft"})).await;
    ada.closed().await;
    a.until_metric("satsuma_rooms", 0.0).await;
    let mut again = Client::join(&a, "r", "Ada").await;
    again.until_state(|state| users(state) == 1).await;
}
