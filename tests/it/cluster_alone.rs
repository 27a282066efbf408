//! Rooms whose members are all on one node go on while the engine is away.

use serde_json::json;

use crate::client::{Client, user_of};
use crate::cluster::{chat, told, two_nodes, users};
use crate::harness::TestServer;
use crate::memory_engine::MemoryNetwork;

/// Ada and Bob on the first node.
async fn together(a: &TestServer) -> (Client, Client) {
    let mut ada = Client::join(a, "r", "Ada").await;
    let bob = Client::join(a, "r", "Bob").await;
    ada.until_state(|state| users(state) == 2).await;
    chat(&mut ada, 1).await;
    told(&mut ada, 1).await;
    (ada, bob)
}

#[tokio::test]
async fn room_on_one_node_goes_on_without_the_engine() {
    let (network, a, b) = two_nodes().await;
    let (mut ada, mut bob) = together(&a).await;
    network.be_silent(true);
    for number in 2..=4 {
        chat(&mut bob, number).await;
    }
    assert_eq!((told(&mut ada, 4).await, told(&mut bob, 4).await), (vec![2, 3, 4], vec![1, 2, 3, 4]));
    assert_eq!(a.metric("satsuma_rooms_alone").await, 1.0);
    let mut cyd = Client::join(&a, "r", "Cyd").await;
    cyd.until_state(|state| users(state) == 3).await;
    let pk = ada.pk();
    ada.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    cyd.until_state(|state| user_of(state, &pk)["raisedHand"] == true).await;
    network.be_silent(false);
    a.until_metric("satsuma_rooms_alone", 0.0).await;
    let mut dan = Client::join(&b, "r", "Dan").await;
    dan.until_state(|state| users(state) == 4).await;
    chat(&mut dan, 5).await;
    for client in [&mut ada, &mut bob, &mut cyd, &mut dan] {
        assert_eq!(told(client, 5).await, [5], "all in one room, and nothing twice");
    }
}

/// Somebody at another node took it for dead.
#[tokio::test]
async fn members_of_a_room_that_was_taken_over_meanwhile_begin_anew() {
    let network = MemoryNetwork::default();
    let (a, id) = TestServer::node(&network, None, |_| {}).await;
    let (b, _) = TestServer::node(&network, Some(&a), |_| {}).await;
    let (mut ada, mut bob) = together(&a).await;
    network.cut_off(id, true);
    chat(&mut bob, 2).await;
    assert_eq!(told(&mut ada, 2).await, [2], "they go on alone");
    // It joins once the node is found to be gone.
    let mut cyd = Client::join(&b, "r", "Cyd").await;
    chat(&mut cyd, 3).await;
    assert_eq!(told(&mut cyd, 3).await, [3], "it is told nothing of that");
    network.cut_off(id, false);
    assert_eq!((ada.closed().await.0, bob.closed().await.0), (1011, 1011));
    let mut ada = ada.ask().open(&a).await;
    chat(&mut ada, 4).await;
    assert_eq!(told(&mut cyd, 4).await, [4]);
    a.until_metric("satsuma_rooms_alone", 0.0).await;
}

/// What a member at another node does not see is shown to nobody.
#[tokio::test]
async fn room_on_two_nodes_waits_for_the_engine() {
    let (network, a, b) = two_nodes().await;
    let (mut ada, mut bob) = together(&a).await;
    let mut cyd = Client::join(&b, "r", "Cyd").await;
    ada.until_state(|state| users(state) == 3).await;
    let (mut eve, mut fay) = (Client::join(&a, "s", "Eve").await, Client::join(&a, "s", "Fay").await);
    eve.until_state(|state| users(state) == 2).await;
    network.be_silent(true);
    chat(&mut bob, 2).await;
    chat(&mut eve, 1).await;
    assert_eq!(told(&mut fay, 1).await, [1], "long enough for rooms on one node to go on");
    assert_eq!(a.metric("satsuma_rooms_alone").await, 1.0);
    network.be_silent(false);
    for client in [&mut ada, &mut bob, &mut cyd] {
        assert_eq!(told(client, 2).await.last(), Some(&2));
    }
}
