//! The room's chat: all members receive its lines, in one order and without loss.

use std::collections::BTreeSet;
use std::time::Duration;

use satsuma::config::ModeratorDefault;
use serde_json::{Value, json};

use crate::client::Client;
use crate::harness::TestServer;

fn line(text: &str) -> Value {
    json!({"type": "chat", "message": text})
}

/// The texts of the chat's lines, without repetitions.
fn texts(messages: &[Value]) -> Vec<&str> {
    let mut received = BTreeSet::new();
    let lines = messages.iter().filter(|message| message["type"] == "chat");
    lines
        .filter(|line| received.insert(line["id"].as_u64().unwrap()))
        .map(|line| line["message"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn lines_reach_all_members_in_the_same_order() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada <b>").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let mut eve = Client::join(&server, "another", "Eve").await;
    for number in 0..50 {
        ada.say(line(&format!("a{number}"))).await;
        bob.say(line(&format!("b{number}"))).await;
    }
    let (mut at_ada, mut at_bob) = (ada.echo().await, bob.echo().await);
    at_ada.extend(ada.echo().await);
    at_bob.extend(bob.echo().await);
    let received = texts(&at_ada);
    assert_eq!(received, texts(&at_bob));
    assert_eq!(received.len(), 100);
    for person in ["a", "b"] {
        let own: Vec<_> = received.iter().filter(|text| text.starts_with(person)).collect();
        assert_eq!(
            own,
            (0..50).map(|number| format!("{person}{number}")).collect::<Vec<_>>().iter().collect::<Vec<_>>()
        );
    }
    let first = at_bob.iter().find(|message| message["message"] == "a0").unwrap();
    assert_eq!((&first["from"], &first["name"]), (&json!(ada.pk()), &json!("Ada <b>")));
    assert!(first["at"].as_u64().unwrap() > 1_700_000_000_000, "{first}");
    assert!(texts(&eve.echo().await).is_empty(), "another room receiver nothing");
}

#[tokio::test]
async fn lines_wait_for_an_absent_member_over_a_restart() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    ada.say(line("one")).await;
    bob.until(|message| message["message"] == "one").await;
    let (pk, ask) = (bob.pk(), bob.drop_tcp().await);
    server.until_away("r", &pk).await;
    for text in ["two", "three"] {
        ada.say(line(text)).await;
    }
    ada.echo().await;
    let server = server.restart().await;
    let mut ada = ada.ask().open(&server).await;
    ada.say(line("four")).await;
    let mut bob = ask.open(&server).await;
    let mut received = Vec::new();
    while texts(&received).last() != Some(&"four") {
        received.push(bob.next().await);
    }
    // "one" may be repeated: Bob's socket closed before he confirmed it.
    assert!(texts(&received).ends_with(&["two", "three", "four"]), "{received:?}");
}

#[tokio::test]
async fn invalid_line_is_an_error_for_its_sender_only() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    for message in [json!({"type": "chat"}), line(""), line(" \n "), line(&"x".repeat(2001))] {
        ada.say(message).await;
        let error = ada.event().await;
        assert_eq!(
            error["error"],
            "chat needs a field \"message\" that is a text of 1 to 2000 characters, not all of them blank"
        );
    }
    ada.say(line(&"🍊".repeat(2000))).await;
    assert_eq!(bob.event().await["message"].as_str().unwrap().chars().count(), 2000);
}

/// The texts of a history.
fn told(history: &Value) -> Vec<&str> {
    history["messages"].as_array().unwrap().iter().map(|line| line["message"].as_str().unwrap()).collect()
}

/// Everything until the first snapshot.
async fn before_the_snapshot(client: &mut Client) -> Vec<Value> {
    let mut received = Vec::new();
    loop {
        let message = client.next().await;
        if message["type"] == "roomState" {
            return received;
        }
        received.push(message);
    }
}

#[tokio::test]
async fn history_is_told_to_those_who_join_later() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    assert!(ada.echo().await.iter().all(|message| message["type"] != "chatHistory"), "nothing was written");
    for text in ["one", "two"] {
        ada.say(line(text)).await;
    }
    ada.echo().await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let [history] = &before_the_snapshot(&mut bob).await[..] else { panic!("one message is due") };
    assert_eq!((&history["type"], told(history)), (&json!("chatHistory"), vec!["one", "two"]));
    assert_eq!(history["messages"][0]["name"], "Ada");
    assert!(history["messages"][0]["at"].as_u64().unwrap() > 1_700_000_000_000);
    let mut eve = Client::join(&server, "another", "Eve").await;
    assert!(before_the_snapshot(&mut eve).await.is_empty(), "rooms have their own");
}

#[tokio::test]
async fn history_survives_a_restart_and_ends_with_its_meeting() {
    let server = TestServer::with(|config| config.room.tick = Duration::from_millis(50)).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    for number in 0..250 {
        ada.say(line(&format!("{number}"))).await;
    }
    ada.echo().await;
    let server = server.restart().await;
    let mut ada = ada.ask().open(&server).await;
    ada.say(line("after")).await;
    ada.until(|message| message["message"] == "after").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let received = before_the_snapshot(&mut bob).await;
    let texts = told(&received[0]);
    assert_eq!((texts.len(), texts[0], texts[199]), (200, "51", "after"));
    for client in [&mut ada, &mut bob] {
        client.say(json!({"type": "userLeft"})).await;
    }
    server.until_metric("satsuma_rooms", 0.0).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    assert!(before_the_snapshot(&mut ada).await.is_empty(), "the meeting is over");
}

#[tokio::test]
async fn history_can_be_switched_off() {
    let server = TestServer::with(|config| config.chat.history = false).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    ada.say(line("one")).await;
    ada.echo().await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    assert!(before_the_snapshot(&mut bob).await.is_empty());
}

#[tokio::test]
async fn moderator_clears_the_chat_for_good() {
    let server = TestServer::with(|config| config.moderation.default = ModeratorDefault::First).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    ada.say(line("a slip of the tongue")).await;
    bob.until(|message| message["type"] == "chat").await;
    bob.say(json!({"type": "moderate", "action": "clearChat"})).await;
    assert_eq!(bob.event().await["error"], "you may not moderate this room");
    ada.say(json!({"type": "moderate", "action": "clearChat", "ref": "1"})).await;
    assert_eq!(ada.until(|message| message["ref"] == "1").await["ok"], true);
    let cleared = bob.until(|message| message["type"] == "chatCleared").await;
    assert_eq!(cleared["by"], "Ada");
    ada.say(line("two")).await;
    let two = ada.until(|message| message["message"] == "two").await;
    assert!(two["id"].as_u64() >= cleared["before"].as_u64());
    // Neither those who come later nor the next process know it.
    let mut cyd = Client::join(&server, "r", "Cyd").await;
    assert_eq!(told(&before_the_snapshot(&mut cyd).await[0]), ["two"]);
    let server = server.restart().await;
    let mut dan = Client::join(&server, "r", "Dan").await;
    assert_eq!(told(&before_the_snapshot(&mut dan).await[0]), ["two"]);
}

#[tokio::test]
async fn room_has_its_own_setting_of_the_history() {
    let server = TestServer::with(|config| config.moderation.default = ModeratorDefault::First).await;
    let done = json!({"ok": true});
    let off = json!({"chatHistory": false});
    assert_eq!(server.admin_put("/admin/rooms/r/settings", &off).await.json(), done);
    let mut ada = Client::join(&server, "r", "Ada").await;
    ada.say(line("one")).await;
    ada.echo().await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    assert!(before_the_snapshot(&mut bob).await.is_empty());
    // Over a restart, too; then a moderator switches it on for the meeting.
    let server = server.restart().await;
    let mut ada = ada.ask().open(&server).await;
    ada.say(line("two")).await;
    ada.say(json!({"type": "moderate", "action": "chatHistory", "on": true, "ref": "1"})).await;
    assert_eq!(ada.until(|message| message["ref"] == "1").await["ok"], true);
    ada.say(line("three")).await;
    ada.echo().await;
    let mut cyd = Client::join(&server, "r", "Cyd").await;
    assert_eq!(told(&before_the_snapshot(&mut cyd).await[0]), ["three"]);
    let mut dan = Client::join(&server, "r", "Dan").await;
    let state = dan.until_state(|state| state["room"]["chatHistory"] == true).await;
    assert_eq!(state["room"]["locked"], false);
    let reset = json!({"chatHistory": null});
    assert_eq!(server.admin_put("/admin/rooms/r/settings", &reset).await.json(), done);
    let settings = server.admin_get("/admin/rooms/r/settings").await.json();
    assert_eq!(settings["chatHistory"], true, "as the server's settings say");
}

#[tokio::test]
async fn reactions_reach_all_and_a_flood_of_them_is_few() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    ada.say(json!({"type": "react", "emoji": "❤️"})).await;
    let seen = bob.until(|message| message["type"] == "reactions").await;
    assert_eq!(seen["reactions"], json!([{"id": ada.pk(), "emoji": "❤️"}]));
    for number in 0..150 {
        ada.say(json!({"type": "react", "emoji": if number % 2 == 0 { "👎" } else { "👍" }})).await;
    }
    ada.say(json!({"type": "react", "emoji": "🎉"})).await;
    ada.say(json!({"type": "react", "emoji": "🎉🎉"})).await;
    let error = ada.until(|message| message["type"] == "error").await;
    assert_eq!(error["error"], "react needs a field \"emoji\" that is one emoji of at most 64 bytes");
    let mut few = 0;
    loop {
        let seen = bob.until(|message| message["type"] == "reactions").await;
        few += 1;
        if seen["reactions"][0]["emoji"] == "🎉" {
            break;
        }
    }
    assert!(few < 20, "150 became {few}");
}
