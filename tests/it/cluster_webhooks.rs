//! Webhooks of several nodes: the events of a killed node are told by the next owner of its rooms.

use std::time::Duration;

use satsuma::config::{Config, WebhookConfig};
use serde_json::{Value, json};

use crate::client::Client;
use crate::cluster::{Mortal, chat, told, users};
use crate::event_webhooks::webhook;
use crate::harness::{TestServer, eventually_within};
use crate::memory_engine::MemoryNetwork;
use crate::webhook::{Posted, Webhook};

/// Time in which an event comes although its node was killed.
const LONG: Duration = Duration::from_secs(30);

fn to(hook: &Webhook) -> impl FnOnce(&mut Config) + Send + use<> {
    let webhook = WebhookConfig { chat: true, ..webhook("app", hook.url()) };
    move |config| config.webhooks = vec![webhook]
}

/// The posted chat messages of a text.
fn chats(hook: &Webhook, text: u32) -> Vec<Posted> {
    let is_chat = |posted: &Posted| posted.card["data"]["message"].as_str() == Some(&*text.to_string());
    hook.posted().into_iter().filter(is_chat).collect()
}

async fn until_posted(hook: &Webhook, text: u32, times: usize) -> Vec<Posted> {
    eventually_within(LONG, format!("{text} is posted"), async || chats(hook, text).len() >= times).await;
    chats(hook, text)
}

/// The owner, with Ada, and another node with Bob; both nodes have the webhook.
async fn killable(hook: &Webhook) -> (MemoryNetwork, Mortal, TestServer, Client) {
    let network = MemoryNetwork::default();
    let owner = Mortal::start_edited(&network, None, to(hook));
    let (b, _) = TestServer::node(&network, Some(&owner.server), to(hook)).await;
    let _ada = Client::join(&owner.server, "r", "Ada").await;
    let mut bob = Client::join(&b, "r", "Bob").await;
    bob.until_state(|state| users(state) == 2).await;
    chat(&mut bob, 1).await;
    until_posted(hook, 1, 1).await;
    (network, owner, b, bob)
}

/// The entry is stored, and its writer dies before it knows.
#[tokio::test]
async fn stored_event_of_a_killed_node_is_told_by_the_next_owner() {
    let hook = Webhook::start([]).await;
    let (network, owner, b, mut bob) = killable(&hook).await;
    network.cut_off_after_entry(owner.id);
    chat(&mut bob, 2).await;
    assert_eq!(told(&mut bob, 2).await, [1, 2], "it is stored");
    let dead = owner.kill();
    let posted = until_posted(&hook, 2, 1).await;
    assert_eq!(posted[0].card["type"], "chat.message");
    chat(&mut bob, 3).await;
    let last = until_posted(&hook, 3, 1).await;
    assert_eq!(chats(&hook, 2).len(), 1, "the dead node had not told it");
    let seq = |posted: &Posted| posted.card["seq"].as_u64().unwrap();
    assert!(seq(&last[0]) > seq(&posted[0]) && seq(&posted[0]) > 3, "numbers go on");
    assert_eq!(b.metric("satsuma_room_panics_total").await, 0.0);
    drop(dead);
}

/// The event was told, but its node dies before the journal says so.
#[tokio::test]
async fn repeated_event_has_the_same_id() {
    let hook = Webhook::start([]).await;
    let (_network, owner, _b, mut bob) = killable(&hook).await;
    chat(&mut bob, 2).await;
    let first = until_posted(&hook, 2, 1).await;
    let dead = owner.kill();
    let all = until_posted(&hook, 2, 2).await;
    assert_eq!(all[1].card["id"], first[0].card["id"]);
    let ids = |kind: &str| -> Vec<Value> {
        let of_kind = |posted: &Posted| (posted.card["type"] == kind).then(|| posted.card["id"].clone());
        let mut ids: Vec<Value> = hook.posted().iter().filter_map(of_kind).collect();
        ids.dedup();
        ids
    };
    assert_eq!((ids("meeting.started").len(), ids("member.joined").len()), (1, 2));
    drop(dead);
}

/// A meeting ends when its last events are recorded, and only once.
#[tokio::test]
async fn end_of_a_meeting_is_told_once() {
    let hook = Webhook::start([]).await;
    let network = MemoryNetwork::default();
    let settings = to(&hook);
    let (a, _) = TestServer::node(&network, None, |config| {
        settings(config);
        config.room.tick = Duration::from_millis(100);
    })
    .await;
    for round in 1..=2 {
        let mut ada = Client::join(&a, "r", "Ada").await;
        ada.say(json!({"type": "userLeft"})).await;
        ada.closed().await;
        let ended = || {
            let ids = hook.posted().into_iter().filter(|posted| posted.card["type"] == "meeting.ended");
            ids.map(|posted| posted.card["meeting"].clone()).collect::<Vec<_>>()
        };
        eventually_within(LONG, "the meeting ended".to_owned(), async || ended().len() == round).await;
        a.until_metric("satsuma_rooms", 0.0).await;
    }
    let kinds: Vec<Value> = hook.posted().iter().map(|posted| posted.card["type"].clone()).collect();
    let one = ["meeting.started", "member.joined", "member.left", "meeting.ended"];
    assert_eq!(kinds, [one, one].concat());
}
