//! Rooms beyond the recorded sessions: ids, leaving, limits on messages.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Ask, Client, Received, ids_of, user_of};
use crate::harness::{Person, TestServer};

const BINARY: &[u8] = &[0, 1, 2, 255];

fn numbers(messages: &[Value]) -> Vec<u64> {
    let numbers = messages.iter().filter_map(|message| message["message"].as_str()?.parse().ok());
    numbers.collect()
}

#[tokio::test]
async fn newer_socket_replaces_the_older_one() {
    let server = TestServer::start().await;
    let mut older = Client::join(&server, "r", "Ada").await;
    older.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    let pk = older.pk();
    let mut bob = Client::join(&server, "r", "Bob").await;
    let before = bob.until_state(|state| user_of(state, &pk)["raisedHand"] == true).await;

    let mut newer = older.ask().open(&server).await;
    assert_eq!(older.closed().await, (4001, "A newer connection took this seat".to_owned()));
    newer.until_state(|state| *state == before).await;
    // The older socket is closed completely.
    server.until_metric("satsuma_connections", 2.0).await;
    for message in newer.echo().await {
        assert_eq!(message["type"], "roomState", "the member received an end");
    }
    for message in bob.echo().await {
        assert_eq!(message["state"], before, "the others received something");
    }
    let view = server.admin_get("/admin/rooms/r").await.json();
    let seats = view["members"].as_array().unwrap();
    assert!(seats.len() == 2 && seats.iter().all(|seat| !seat["connection"].is_null()), "{view}");
    server.until_metric(r#"satsuma_closes_total{reason="superseded"}"#, 1.0).await;
}

#[tokio::test]
async fn two_ids_of_one_identity_are_two_members() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    let mut phone = Ask::room("r").by(&ada).pk("phone").open(&server).await;
    let mut laptop = Ask::room("r").by(&ada).pk("laptop").open(&server).await;
    phone.until_users(&["laptop", "phone"]).await;
    laptop.say(json!({"type": "userLeft"})).await;
    assert_eq!(phone.event().await, json!({"type": "userLeftNotification", "id": "laptop"}));
    phone.until_users(&["phone"]).await;
}

#[tokio::test]
async fn same_id_can_be_in_two_rooms() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    let mut here = Ask::room("here").by(&ada).pk("a").open(&server).await;
    let there = Ask::room("there").by(&ada).pk("a").open(&server).await;
    let eve = Person::log_in(&server, "Eve").await;
    // Ids are per room: this one is free in a third room.
    let _elsewhere = Ask::room("elsewhere").by(&eve).pk("a").open(&server).await;
    there.close().await;
    here.echo().await;
}

#[tokio::test]
async fn frames_after_user_left_are_ignored() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let late = json!({"type": "directMessage", "to": bob.pk(), "message": "too late"});
    let left = json!({"type": "userLeft"});
    for message in [&left, &late, &json!({"type": "e2eeMlsMessage", "payload": "too late"}), &left] {
        // The server may have closed already, as this test expects.
        ada.try_say(message.clone()).await;
    }
    assert_eq!(ada.closed().await, (1000, "User left".to_owned()));
    assert_eq!(bob.event().await, json!({"type": "userLeftNotification", "id": ada.pk()}));
    server.until_metric("satsuma_connections", 1.0).await;
    for message in bob.echo().await {
        assert_eq!(message["type"], "roomState", "something was received after the end");
    }
    assert_eq!(server.metric(r#"satsuma_messages_total{type="userLeft"}"#).await, 1.0);
    assert_eq!(server.metric(r#"satsuma_messages_total{type="e2eeMlsMessage"}"#).await, 0.0);
}

#[tokio::test]
async fn returning_member_is_fresh_in_the_same_meeting() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    ada.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    let pk = ada.pk();
    let before = ada.until_state(|state| user_of(state, &pk)["raisedHand"] == true).await;
    ada.say(json!({"type": "userLeft"})).await;
    ada.closed().await;
    let mut back = ada.ask().open(&server).await;
    let state = back.until_users(&[&pk]).await;
    assert_eq!(user_of(&state, &pk)["raisedHand"], false);
    assert_eq!(state["meetingId"], before["meetingId"]);
    // Messages to a known id do not reach another identity that takes it later.
    back.say(json!({"type": "userLeft"})).await;
    back.closed().await;
    let bob = Person::log_in(&server, "Bob").await;
    assert_eq!(Ask::room("r").by(&bob).pk(&pk).answer(&server).await.status, 403);
    ada.ask().open(&server).await.until_users(&[&pk]).await;
}

#[tokio::test]
async fn users_are_ordered_by_id() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    let mut clients = Vec::new();
    for pk in ["b", "a", "9", "B", "_", "10", "-", "aa"] {
        clients.push(Ask::room("r").by(&ada).pk(pk).open(&server).await);
    }
    for client in &mut clients {
        client.until_users(&["-", "10", "9", "B", "_", "a", "aa", "b"]).await;
    }
}

#[tokio::test]
async fn unknown_user_fields_are_preserved() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let pk = ada.pk();
    let extra = json!({"k": [1, 2.5, {"z": null}], "t": "🍊"});
    let user = json!({"joined": true, "extra": extra, "tracks": {"audioEnabled": true, "hd": [true]}});
    ada.say(json!({"type": "userUpdate", "user": user})).await;
    let stored = |state: &Value| {
        user_of(state, &pk)["extra"] == extra && user_of(state, &pk)["tracks"]["hd"][0] == true
    };
    bob.until_state(stored).await;
    bob.say(json!({"type": "muteUser", "id": pk})).await;
    let muted = |state: &Value| user_of(state, &pk)["tracks"]["audioEnabled"] == false;
    assert!(stored(&bob.until_state(muted).await), "muting forgot them");
    let mut back = ada.drop_tcp().await.open(&server).await;
    assert!(stored(&back.until_state(|_| true).await), "the return forgot them");
}

#[tokio::test]
async fn large_user_object_is_refused_and_old_one_kept() {
    let server = TestServer::with(|config| config.limits.user_bytes = 1000).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let pk = ada.pk();
    let mut update = async |bytes: usize, hand: bool| {
        let user = json!({"raisedHand": hand, "extra": "x".repeat(bytes)});
        ada.say(json!({"type": "userUpdate", "user": user})).await;
        ada.echo().await
    };
    update(600, true).await;
    let after = update(1000, false).await;
    let errors: Vec<_> = after.iter().filter(|message| message["type"] == "error").collect();
    assert!(errors.len() == 1 && errors[0]["error"].as_str().unwrap().contains("at most 1000"), "{after:?}");
    let mut bob = Client::join(&server, "r", "Bob").await;
    let state = bob.until_state(|state| ids_of(state).len() == 2).await;
    assert_eq!(user_of(&state, &pk)["raisedHand"], true);
    assert_eq!(user_of(&state, &pk)["extra"], "x".repeat(600));
}

#[tokio::test]
async fn long_message_closes_only_its_socket() {
    let server = TestServer::with(|config| config.limits.frame_bytes = 10_000).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let mls = |bytes: usize| json!({"type": "e2eeMlsMessage", "payload": "x".repeat(bytes)});
    ada.say(mls(9_000)).await;
    assert_eq!(bob.event().await, mls(9_000));
    ada.say(mls(10_000)).await;
    assert_eq!(ada.closed().await, (1009, "Message too big".to_owned()));
    server.until_metric("satsuma_connections", 1.0).await;
    assert!(bob.echo().await.iter().all(|message| message["type"] == "roomState"));
    let _back = ada.ask().open(&server).await;
}

#[tokio::test]
async fn long_fragmented_message_closes_its_socket() {
    let server = TestServer::with(|config| {
        config.limits.frame_bytes = 10_000;
        config.limits.history_entry_bytes = 20_000;
    });
    let server = server.await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let entry = json!({"type": "callsApiHistoryEntry", "entry": {"body": "x".repeat(30_000)}});
    ada.try_say(entry).await;
    assert_eq!(ada.closed().await.0, 1009);
    let mut bob = Client::join(&server, "r", "Bob").await;
    bob.say_in_pieces(&"x".repeat(30_000), 1_000).await;
    assert_eq!(bob.closed().await.0, 1009);
}

#[tokio::test]
async fn long_history_entry_is_read_and_dropped() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let entry = json!({"type": "request", "endpoint": "/sessions/new", "body": "x".repeat(3 << 20)});
    ada.say(json!({"type": "callsApiHistoryEntry", "entry": entry, "sessionId": "s"})).await;
    assert!(ada.echo().await.iter().all(|message| message["type"] == "roomState"));
    assert!(bob.echo().await.iter().all(|message| message["type"] == "roomState"));
    assert_eq!(server.metric(r#"satsuma_messages_total{type="callsApiHistoryEntry"}"#).await, 1.0);
    assert_eq!(server.metric("satsuma_connections").await, 2.0);
}

#[tokio::test]
async fn burst_is_throttled_and_arrives_whole() {
    let server = TestServer::with(|config| {
        config.limits.messages_per_second = 100;
        config.limits.message_burst = 100;
    });
    let server = server.await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    for number in 1..=300 {
        ada.say(json!({"type": "directMessage", "to": bob.pk(), "message": number.to_string()})).await;
    }
    let mut received = Vec::new();
    while received.len() < 300 {
        received.push(bob.event().await);
    }
    assert_eq!(numbers(&received), (1..=300).collect::<Vec<_>>());
    assert!(server.metric("satsuma_held_back_total").await > 0.0);
    ada.echo().await;
}

#[tokio::test]
async fn member_throttled_for_too_long_is_closed() {
    let server = TestServer::with(|config| {
        config.limits.messages_per_second = 20;
        config.limits.message_burst = 1;
        config.limits.throttle_timeout = Duration::from_millis(100);
    });
    let server = server.await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    for _ in 0..50 {
        ada.try_say(json!({"type": "heartbeat"})).await;
    }
    assert_eq!(ada.closed().await, (1008, "Too many messages for too long".to_owned()));
    // It may return.
    ada.ask().open(&server).await.until_users(&[&ada.pk()]).await;
    server.until_metric(r#"satsuma_closes_total{reason="too_fast"}"#, 1.0).await;
}

#[tokio::test]
async fn binary_message_is_ignored() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    ada.say_raw(Message::Binary(BINARY.into())).await;
    assert!(ada.echo().await.iter().all(|message| message["type"] == "roomState"));
    assert!(bob.echo().await.iter().all(|message| message["type"] == "roomState"));
}

#[tokio::test]
async fn tick_sends_a_snapshot_without_changes() {
    let server = TestServer::with(|config| config.room.tick = Duration::from_millis(20)).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let first = bob.until_state(|state| ids_of(state).len() == 2).await;
    for _ in 0..5 {
        assert_eq!(bob.next().await["state"], first);
    }
    ada.until_state(|state| *state == first).await;
}

#[tokio::test]
async fn only_heartbeats_keep_a_member_alive() {
    let server = TestServer::with(|config| {
        config.room.tick = Duration::from_millis(100);
        config.room.heartbeat_timeout = Duration::from_secs(1);
    });
    let server = server.await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let (ada_pk, bob_pk) = (ada.pk(), bob.pk());
    // Each snapshot, sent by every tick, is answered: by one with a heartbeat, by the other with
    // another message.
    let gone = loop {
        ada.say(json!({"type": "heartbeat"})).await;
        bob.try_say(json!({"type": "partyserver-ping"})).await;
        let message = ada.next().await;
        if message["type"] != "roomState" {
            break message;
        }
    };
    assert_eq!(gone, json!({"type": "userLeftNotification", "id": bob_pk}));
    ada.until_users(&[&ada_pk]).await;
    assert_eq!(bob.event().await, gone, "the removed one receiver its own notice");
    assert_eq!(bob.closed().await, (1011, String::new()));
}

#[tokio::test]
async fn error_goes_only_to_its_sender() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    for (text, why) in [
        ("", "JSON"),
        ("{nope", "JSON"),
        ("[]", "\"type\""),
        ("\"heartbeat\"", "\"type\""),
        ("{\"type\":7}", "\"type\""),
        ("{\"type\":\"teleport\"}", "not known"),
        ("{\"type\":\"userUpdate\"}", "\"user\""),
        ("{\"type\":\"userUpdate\",\"user\":{\"tracks\":null}}", "\"user\""),
        ("{\"type\":\"e2eeMlsMessage\",\"payload\":{}}", "\"payload\""),
        ("{\"type\":\"directMessage\",\"to\":\"x\"}", "\"message\""),
    ] {
        ada.say_raw(Message::text(text)).await;
        let error = ada.event().await;
        assert_eq!(error["type"], "error", "{text}");
        assert!(error["error"].as_str().unwrap().contains(why), "{text}: {error}");
    }
    assert!(bob.echo().await.iter().all(|message| message["type"] == "roomState"));
}

#[tokio::test]
async fn message_text_is_forwarded_verbatim() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    // A lone surrogate, which JavaScript's strings may hold, and redundant escapes.
    let payload = r#""\ud83c \u0041 \/ é🍊 {\"a\":[0,255]}""#;
    let text = format!(r#"{{"type":"e2eeMlsMessage","payload":{payload}}}"#);
    ada.say_raw(Message::text(text.as_str())).await;
    bob.until_text(&text).await;
}

/// Firefox closes a page's sockets with 1001 before the page can send `userLeft`. Its user stayed for
/// the heartbeat's timeout and a tick.
#[tokio::test]
async fn member_whose_page_closed_is_removed_early() {
    let server = TestServer::with(|config| config.room.heartbeat_timeout = Duration::from_secs(3600)).await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    ada.say(json!({"type": "heartbeat"})).await;
    let pk = ada.pk();
    bob.until_state(|state| !user_of(state, &pk).is_null()).await;
    ada.say_close(1001).await;
    bob.until_users(&[&bob.pk()]).await;
}

#[tokio::test]
async fn client_close_is_answered() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    ada.say(json!({"type": "heartbeat"})).await;
    ada.say_close(1000).await;
    assert_eq!(ada.closed().await.0, 1000);
    server.until_away("r", &ada.pk()).await;
    server.until_metric(r#"satsuma_closes_total{reason="closed_by_client"}"#, 1.0).await;
    assert!(ada.received_so_far().iter().all(|received| !matches!(received, Received::Closed(..))));
}
