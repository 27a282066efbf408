//! Rooms in which some members compress and others do not.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::client::{Ask, Client, ids_of};
use crate::harness::{Person, TestServer, eventually};
use crate::raw::{Frame, Raw, inflated};

const OFFER: (&str, &str) = ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits");

/// Long enough that a snapshot of ten such names exceeds a packet.
fn long_name(place: usize) -> String {
    format!("Member {place} {}", "of a long name ".repeat(3))
}

async fn raw(server: &TestServer, room: &str, headers: &[(&str, &str)]) -> (String, Raw) {
    let person = Person::log_in(server, "Raw").await;
    let headers = [headers, &[("cookie", person.cookie())]].concat();
    Raw::open(server.addresses().http, &format!("/parties/rooms/{room}"), &headers).await
}

/// The next compressed message, as the bytes of its frame.
async fn next_deflated(client: &mut Raw, wanted: impl Fn(&Value) -> bool) -> Vec<u8> {
    loop {
        let frame = client.frame().await.expect("the socket was closed");
        if frame.first == 0xc1 && wanted(&serde_json::from_slice(&inflated(&frame.payload)).unwrap()) {
            return frame.unmasked();
        }
        if frame.first == 0x89 {
            client.say(&Frame::new(0x8a, frame.payload).masked()).await;
        }
    }
}

#[tokio::test]
async fn handshake_answers_the_offered_extensions() {
    let server = TestServer::start().await;
    let (head, _client) = raw(&server, "r", &[OFFER]).await;
    let answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert!(head.contains(&format!("sec-websocket-extensions: {answer}\r\n")), "{head}");
    for headers in [&[][..], &[("sec-websocket-extensions", "permessage-deflate; server_max_window_bits=10")]]
    {
        let (head, _client) = raw(&server, "r", headers).await;
        assert!(!head.contains("sec-websocket-extensions"), "{head}");
    }
    let ada = Person::log_in(&server, "Ada").await;
    let malformed = Ask::room("r").by(&ada).header("sec-websocket-extensions", "permessage-deflate; =");
    assert_eq!(malformed.answer(&server).await.status, StatusCode::BAD_REQUEST);

    let server = TestServer::with(|config| config.http.socket_compression = false).await;
    let (head, _client) = raw(&server, "r", &[OFFER]).await;
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
}

#[tokio::test]
async fn broadcast_is_compressed_once_for_all() {
    let server = TestServer::start().await;
    let (_, mut one) = raw(&server, "r", &[OFFER]).await;
    let (_, mut other) = raw(&server, "r", &[OFFER]).await;
    let mut plain = Client::join(&server, "r", &long_name(0)).await;
    let mut compressing = Ask::room("r")
        .by(&Person::log_in(&server, &long_name(1)).await)
        .pk("z")
        .compressing()
        .open(&server)
        .await;
    let line = "the same line ".repeat(100);
    plain.say(json!({"type": "chat", "message": line})).await;
    for client in [&mut plain, &mut compressing] {
        assert_eq!(client.until(|message| message["type"] == "chat").await["message"], line);
    }
    for client in [&mut plain, &mut compressing] {
        let note = "fields that nobody knows are kept ".repeat(30);
        client
            .say(json!({"type": "userUpdate", "user": {
                "id": client.pk(), "name": "x", "joined": true, "raisedHand": true, "speaking": false,
                "tracks": {}, "note": note,
            }}))
            .await;
    }
    let is_chat: fn(&Value) -> bool = |message| message["type"] == "chat";
    let shows_both_hands: fn(&Value) -> bool = |message| {
        let users = message["state"]["users"].as_array().map_or(&[][..], Vec::as_slice);
        users.iter().filter(|user| user["raisedHand"] == true).count() == 2
    };
    for wanted in [is_chat, shows_both_hands] {
        let frame = next_deflated(&mut one, wanted).await;
        assert_eq!(next_deflated(&mut other, wanted).await, frame);
    }
    assert!(
        server.metric("satsuma_deflate_to_bytes_total").await
            < server.metric("satsuma_deflate_from_bytes_total").await
    );
    assert_eq!(server.metric("satsuma_deflated_connections").await, 3.0);
    drop((one, other));
    compressing.close().await;
    eventually("nobody compresses".into(), async || {
        server.metric("satsuma_deflated_connections").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn room_without_compression_never_compresses() {
    let server = TestServer::start().await;
    let mut clients = Vec::new();
    for place in 0..10 {
        clients.push(Client::join(&server, "r", &long_name(place)).await);
    }
    clients[0].until_state(|state| ids_of(state).len() == 10).await;
    assert_eq!(server.metric("satsuma_deflate_from_bytes_total").await, 0.0);
}

/// A member that reconnects without compression gets the events that waited for a compressed socket, and vice versa.
#[tokio::test]
async fn events_wait_for_a_socket_of_either_encoding() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let bob = Person::log_in(&server, "Bob").await;
    let plain = Ask::room("r").by(&bob).pk("bob");
    let mut waits_for = plain.clone().compressing().open(&server).await;
    waits_for.until_state(|state| ids_of(state).contains(&"bob")).await;
    for (place, next) in [plain.clone(), plain.compressing()].into_iter().enumerate() {
        waits_for.drop_tcp().await;
        let line = format!("{place} {}", "while he was away ".repeat(100));
        ada.say(json!({"type": "chat", "message": line})).await;
        ada.until(|message| message["message"] == *line).await;
        waits_for = next.open(&server).await;
        waits_for.until(|message| message["message"] == *line).await;
    }
}

#[tokio::test]
async fn compression_bomb_closes_only_its_socket() {
    let server = TestServer::with(|config| config.limits.history_entry_bytes = 1 << 20).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let (_, mut bomber) = raw(&server, "r", &[OFFER]).await;
    let payload = crate::raw::deflated(&vec![b' '; 64 << 20], 9, 15);
    assert!(payload.len() < 100_000);
    bomber.say(&Frame::new(0xc1, payload).masked()).await;
    loop {
        let frame = bomber.frame().await.expect("no close frame");
        if frame.first == 0x88 {
            assert_eq!(frame.payload[..2], 1009u16.to_be_bytes());
            break;
        }
    }
    ada.echo().await;
}
