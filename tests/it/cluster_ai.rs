//! The AI in a room of several nodes.

use satsuma::config::Config;
use serde_json::json;

use crate::ai::{disable, enable, is_here, request, until_closed};
use crate::client::{Client, ids_of};
use crate::cloud::Cloud;
use crate::cluster::{Mortal, users};
use crate::harness::TestServer;
use crate::memory_engine::MemoryNetwork;

/// Bob, whose node does not own the room, invites the AI and controls it; it outlives the owner, and the next one closes its
/// track.
#[tokio::test]
async fn ai_is_invited_at_another_node_and_outlives_the_owner() {
    let (cloud, network) = (Cloud::start().await, MemoryNetwork::default());
    let edit = |config: &mut Config| {
        cloud.configure(config);
        config.limits.ai_starts_per_minute = 0;
    };
    let owner = Mortal::start_first(&network, edit);
    let (b, _) = TestServer::node(&network, Some(&owner.server), edit).await;
    let mut ada = Client::join(&owner.server, "r", "Ada").await;
    let mut bob = Client::join(&b, "r", "Bob").await;
    let meeting = ada.until_state(|state| users(state) == 2).await["meetingId"].clone();
    bob.say(enable()).await;
    for client in [&mut ada, &mut bob] {
        let state = client.until_state(is_here).await;
        assert_eq!(ids_of(&state).last(), Some(&"ai"), "{state}");
    }
    bob.say(request()).await;
    let pk = bob.pk();
    for client in [&mut ada, &mut bob] {
        client.until_state(|state| state["ai"]["controllingUser"] == *pk).await;
    }
    assert_eq!(cloud.seen_at("/sessions/new").len(), 1, "one node invites it");

    let dead = owner.kill();
    bob.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    let state = bob.until_state(|state| crate::client::user_of(state, &pk)["raisedHand"] == true).await;
    assert!(is_here(&state), "{state}");
    bob.say(disable()).await;
    let state = bob.until_state(|state| state["ai"]["enabled"] == false).await;
    assert!(!ids_of(&state).contains(&"ai"), "{state}");
    until_closed(&cloud, &meeting).await;
    drop(dead);
}
