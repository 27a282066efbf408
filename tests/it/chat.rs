//! The room's chat: all members receive its lines, in one order and without loss.

use std::collections::BTreeSet;

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
