//! Rooms over Phoenix Channels, by hand-written frames: what each of them is answered with.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::client::{Ask, Client, Received};
use crate::harness::{Person, TestServer, answer, logged};
use crate::raw::{Frame, Raw};

const ENDPOINT: &str = "/socket/websocket?vsn=2.0.0";

/// A request for a socket by a page of the server.
fn ask(server: &TestServer, path: &str, person: &Person) -> Ask {
    Ask::path(path).by(person).header("origin", &server.http())
}

/// A socket of a new user, with the second serializer.
async fn connect(server: &TestServer, name: &str) -> Client {
    let person = Person::log_in(server, name).await;
    ask(server, ENDPOINT, &person).open(server).await
}

/// Sends a frame, and waits for the reply to its reference.
async fn push(client: &mut Client, frame: Value) -> Value {
    let reference = frame[1].clone();
    client.say(frame).await;
    reply_to(client, &reference).await
}

async fn reply_to(client: &mut Client, reference: &Value) -> Value {
    client.until(|frame| frame[3] == "phx_reply" && frame[1] == *reference).await
}

fn ok(join_ref: Value, reference: Value, topic: &str) -> Value {
    json!([join_ref, reference, topic, "phx_reply", {"response": {}, "status": "ok"}])
}

fn refused(join_ref: Value, reference: Value, topic: &str, reason: &str) -> Value {
    json!([join_ref, reference, topic, "phx_reply", {"response": {"reason": reason}, "status": "error"}])
}

fn closed(join_ref: Value, topic: &str) -> Value {
    json!([join_ref, join_ref, topic, "phx_close", {}])
}

/// Joins a room as a member with this id; returns the reply.
async fn join(client: &mut Client, join_ref: &str, room: &str, pk: &str) -> Value {
    push(client, json!([join_ref, join_ref, format!("room:{room}"), "phx_join", {"_pk": pk}])).await
}

/// Waits until every frame that was sent before has been read, and returns the frames until then.
async fn settle(client: &mut Client) -> Vec<Value> {
    let mut before = Vec::new();
    client.say(json!([null, "settle", "phoenix", "heartbeat", {}])).await;
    loop {
        let frame = client.next().await;
        if frame[1] == "settle" {
            return before;
        }
        before.push(frame);
    }
}

/// The exchange that was recorded from Phoenix, with this server's room in place of the channel.
#[tokio::test]
async fn recorded_exchange_is_repeated() {
    let server = TestServer::start().await;
    let mut ann = connect(&server, "Ann").await;
    ann.say(json!(["1", "1", "room:a", "phx_join", {"x": 1}])).await;
    let reply = ann.next().await;
    let id = reply[4]["response"]["id"].as_str().unwrap().to_owned();
    let response = json!({"response": {"id": id, "name": "Ann"}, "status": "ok"});
    assert_eq!(reply, json!(["1", "1", "room:a", "phx_reply", response]));
    let presence = ann.next().await;
    assert_eq!(
        json!([presence[0], presence[1], presence[2], presence[3]]),
        json!(["1", null, "room:a", "presence_state"])
    );
    let meta = &presence[4][&*id]["metas"][0];
    assert_eq!(meta["name"], "Ann");
    let state = ann.next().await;
    assert_eq!(json!([state[0], state[1], state[2], state[3]]), json!([null, null, "room:a", "roomState"]));
    assert_eq!((&state[4]["type"], &state[4]["state"]["users"][0]["id"]), (&json!("roomState"), &json!(id)));

    let heartbeat = push(&mut ann, json!([null, "5", "phoenix", "heartbeat", {}])).await;
    assert_eq!(heartbeat, ok(json!(null), json!("5"), "phoenix"));
    let left = push(&mut ann, json!(["1", "7", "room:a", "phx_leave", {}])).await;
    assert_eq!(left, ok(json!("1"), json!("7"), "room:a"));
    assert_eq!(ann.next().await, closed(json!("1"), "room:a"));
    ann.say(json!(["1", "8", "room:a", "echo", {}])).await;
    assert_eq!(ann.next().await, refused(json!("1"), json!("8"), "room:a", "unmatched topic"));
}

#[tokio::test]
async fn join_of_a_joined_topic_replaces_it() {
    let server = TestServer::start().await;
    let mut ann = connect(&server, "Ann").await;
    ann.say(json!(["1", "1", "room:b", "phx_join", {}])).await;
    ann.say(json!(["2", "2", "room:b", "phx_join", {}])).await;
    let first = reply_to(&mut ann, &json!("1")).await;
    let second = reply_to(&mut ann, &json!("2")).await;
    assert_eq!(second[0], "2");
    assert_eq!(ann.next().await, closed(json!("1"), "room:b"));
    let (first, second) = (&first[4]["response"]["id"], &second[4]["response"]["id"]);
    assert_ne!(first, second, "without a _pk each join is another member");
    let state = ann.until(|frame| frame[3] == "roomState").await;
    let users = state[4]["state"]["users"].as_array().unwrap();
    assert!(users.len() == 1 && users[0]["id"] == *second, "{users:?}");

    ann.say(json!(["1", "3", "room:b", "chat", {"message": "old"}])).await;
    ann.say(json!([null, "4", "room:b", "chat", {"message": "new"}])).await;
    let mut answers = Vec::new();
    while answers.len() < 2 {
        answers.push(ann.until(|frame| frame[3] == "chat" || frame[3] == "phx_reply").await);
    }
    answers.sort_by_key(|frame| frame[3].to_string());
    assert_eq!(answers[0][4]["message"], "new", "of the older join nothing is handled");
    assert_eq!(answers[1], ok(json!("2"), json!("4"), "room:b"));
}

#[tokio::test]
async fn same_member_is_taken_over_by_its_rejoin() {
    let server = TestServer::start().await;
    let mut ann = connect(&server, "Ann").await;
    join(&mut ann, "1", "b", "ann").await;
    assert_eq!(join(&mut ann, "2", "b", "ann").await[4]["response"]["id"], "ann");
    assert_eq!(ann.next().await, closed(json!("1"), "room:b"));
    let mut bob = Client::join(&server, "b", "Bob").await;
    let pk = bob.pk();
    let state = bob.until_state(|state| state["users"].as_array().unwrap().len() == 2).await;
    let mut ids: Vec<_> = state["users"].as_array().unwrap().iter().map(|user| user["id"].clone()).collect();
    ids.retain(|id| *id != *pk);
    assert_eq!(ids, ["ann"]);
    assert_eq!(push(&mut ann, json!(["2", "3", "room:b", "heartbeat", {}])).await[4]["status"], "ok");
}

#[tokio::test]
async fn message_without_a_joined_topic_is_answered() {
    let server = TestServer::start().await;
    let mut ann = connect(&server, "Ann").await;
    let long = "x".repeat(129);
    let name_rule = "a room name has 1 to 128 characters and no control or invisible characters";
    for (frame, reason) in [
        (json!(["1", 2, "phoenix", "phx_join", {}]), "unmatched topic"),
        (json!(["1", 2, "rooms:a", "phx_join", {}]), "unmatched topic"),
        (json!(["1", 2, "room:a", "chat", {}]), "unmatched topic"),
        (json!(["1", 2, "room:a", "x".repeat(256), {}]), "unmatched topic"),
        (json!(["1", 2, format!("room:{}", "x".repeat(5000)), "phx_join", {}]), name_rule),
        (json!(["1", 2, "room:", "phx_join", {}]), name_rule),
        (json!(["1", 2, format!("room:{long}"), "phx_join", {}]), name_rule),
        (
            json!(["1", 2, "room:a", "phx_join", "x"]),
            "the parameters of a join are an object, in which _pk is a text",
        ),
        (
            json!(["1", 2, "room:a", "phx_join", {"_pk": "ai"}]),
            "_pk has 1 to 64 of the characters A-Z, a-z, 0-9, _ and -, and is not \"ai\"",
        ),
    ] {
        // The reply names no more of an overlong topic.
        let topic: String = frame[2].as_str().unwrap().chars().take(4096).collect();
        assert_eq!(push(&mut ann, frame).await, refused(json!("1"), json!(2), &topic, reason));
    }
    let left = push(&mut ann, json!(["1", "3", "room:a", "phx_leave", {}])).await;
    assert_eq!(left, ok(json!("1"), json!("3"), "room:a"));
    ann.say(json!([null, null, "room:a", "chat", {}])).await;
    assert_eq!(settle(&mut ann).await, [] as [Value; 0], "without a reference there is no reply");
    assert!(server.metric("satsuma_phoenix_joins_total{reason=\"unmatched\"}").await >= 1.0);
}

#[tokio::test]
async fn topics_beyond_the_limit_are_refused() {
    let server = TestServer::with(|config| config.phoenix.topics = 2).await;
    let mut ann = connect(&server, "Ann").await;
    for room in ["a", "b"] {
        assert_eq!(join(&mut ann, room, room, "ann").await[4]["status"], "ok");
    }
    let third = join(&mut ann, "c", "c", "ann").await;
    assert_eq!(third, refused(json!("c"), json!("c"), "room:c", "too many channels joined"));
    push(&mut ann, json!(["a", "4", "room:a", "phx_leave", {}])).await;
    assert_eq!(join(&mut ann, "c", "c", "ann").await[4]["status"], "ok");
}

#[tokio::test]
async fn refused_event_is_answered_and_announced() {
    let server = TestServer::start().await;
    let mut ann = connect(&server, "Ann").await;
    join(&mut ann, "1", "a", "ann").await;
    let chat_rule =
        "chat needs a field \"message\" that is a text of 1 to 2000 characters, not all of them blank";
    for (event, payload, reason) in [
        ("teleport", json!({}), "the event is not known"),
        ("chat", json!({"message": ""}), chat_rule),
        ("chat", json!([]), "the payload is not a JSON object"),
        (
            "chat",
            json!({"type": "muteUser", "message": "x"}),
            "the payload's \"type\" is not the event's name",
        ),
        (
            "requestAiControl",
            json!({"track": {"sessionId": "s", "trackName": "t"}}),
            "the AI is not in this room",
        ),
    ] {
        ann.say(json!(["1", "9", "room:a", event, payload])).await;
        let (mut reply, mut error) = (None, None);
        while reply.is_none() || error.is_none() {
            let frame = ann.until(|frame| frame[3] == "phx_reply" || frame[3] == "error").await;
            if frame[3] == "error" { error = Some(frame) } else { reply = Some(frame) }
        }
        let mut announced = json!({"type": "error", "error": reason});
        // One that users can cause has a code.
        if event == "requestAiControl" {
            announced["code"] = json!("ai_not_here");
        }
        assert_eq!(error.unwrap(), json!([null, null, "room:a", "error", announced]));
        assert_eq!(reply.unwrap(), refused(json!("1"), json!("9"), "room:a", reason));
    }
    let chat = json!({"type": "chat", "message": "still here"});
    assert_eq!(push(&mut ann, json!(["1", "10", "room:a", "chat", chat])).await[4]["status"], "ok");
}

#[tokio::test]
async fn binary_push_is_answered_with_an_error() {
    let server = TestServer::start().await;
    let mut ann = connect(&server, "Ann").await;
    join(&mut ann, "1", "bin", "ann").await;
    let push = Bytes::from_static(b"\x00\x01\x01\x08\x0412room:binecho\x01\x02\x03");
    ann.say_raw(Message::Binary(push)).await;
    let reply = reply_to(&mut ann, &json!("2")).await;
    assert_eq!(reply, refused(json!("1"), json!("2"), "room:bin", "no binary events"));
    ann.say_raw(Message::Binary(Bytes::from_static(b"\x00\x01"))).await;
    assert_eq!(ann.closed().await.0, 1011);
}

#[tokio::test]
async fn unreadable_frame_closes_its_socket_alone() {
    let server = TestServer::start().await;
    let mut bob = Client::join(&server, "a", "Bob").await;
    for text in ["", "nope", "[]", "[1,2]", r#"{"topic":"room:a"}"#, r#"["1","1","room:a",7,{}]"#] {
        let mut ann = connect(&server, "Ann").await;
        join(&mut ann, "1", "a", "ann").await;
        ann.say_raw(Message::text(text)).await;
        assert_eq!(ann.closed().await, (1011, "A message cannot be read".to_owned()), "{text}");
    }
    bob.echo().await;
}

#[tokio::test]
async fn version_1_has_objects() {
    let server = TestServer::start().await;
    let ann = Person::log_in(&server, "Ann").await;
    for path in ["/socket/websocket", "/socket/websocket?vsn=1.0.0"] {
        let mut ann = ask(&server, path, &ann).open(&server).await;
        ann.say(json!({"topic": "room:v1", "event": "phx_join", "payload": {"_pk": "ann"}, "ref": "1"}))
            .await;
        let response = json!({"response": {"id": "ann", "name": "Ann"}, "status": "ok"});
        assert_eq!(
            ann.next().await,
            json!({"topic": "room:v1", "event": "phx_reply", "payload": response, "ref": "1"})
        );
        for event in ["presence_state", "roomState"] {
            let mut frame = ann.next().await;
            assert!(!frame["payload"].take().is_null());
            assert_eq!(frame, json!({"topic": "room:v1", "event": event, "payload": null, "ref": null}));
        }
        ann.say(json!({"topic": "room:v1", "event": "phx_leave", "payload": {}, "ref": "5"})).await;
        let reply = ann.until(|frame| frame["event"] == "phx_reply").await;
        assert_eq!(reply["payload"], json!({"response": {}, "status": "ok"}));
        let close = json!({"topic": "room:v1", "event": "phx_close", "payload": {}, "ref": null});
        assert_eq!(ann.next().await, close);
    }
}

/// Some clients do not wait for the answer of their join.
#[tokio::test]
async fn messages_of_a_join_under_way_keep_their_order() {
    let server = TestServer::start().await;
    let mut ann = connect(&server, "Ann").await;
    ann.say(json!(["1", "1", "room:a", "phx_join", {"_pk": "ann"}])).await;
    for number in 0..40 {
        ann.say(json!(["1", number, "room:a", "chat", {"message": number.to_string()}])).await;
    }
    ann.say(json!(["1", "leave", "room:a", "phx_leave", {}])).await;
    ann.say(json!(["2", "2", "room:a", "phx_join", {"_pk": "ann"}])).await;
    let (mut chats, mut replies) = (Vec::new(), Vec::new());
    loop {
        let frame = ann.next().await;
        match frame[3].as_str().unwrap() {
            "chat" => chats.push(frame[4]["message"].as_str().unwrap().to_owned()),
            "phx_reply" => replies.push(frame[1].clone()),
            "phx_close" => replies.push(json!("closed")),
            _ => {}
        }
        if frame[1] == "2" {
            break;
        }
    }
    let numbers: Vec<_> = (0..40).collect();
    let mut expected = vec![json!("1")];
    expected.extend(numbers.iter().map(|number| json!(number)));
    expected.extend([json!("leave"), json!("closed"), json!("2")]);
    assert_eq!(replies, expected);
    // The last ones may be dropped with the channel that was left.
    let texts: Vec<_> = numbers.iter().map(i32::to_string).collect();
    assert_eq!(chats, texts[..chats.len()]);
}

#[tokio::test]
async fn members_of_both_protocols_share_a_room() {
    let server = TestServer::start().await;
    let mut ann = connect(&server, "Ann").await;
    join(&mut ann, "1", "a/b c", "ann").await;
    let bob = Person::log_in(&server, "Bob").await;
    let mut bob = Ask::room("a/b c").by(&bob).pk("bob").open(&server).await;
    bob.until_users(&["ann", "bob"]).await;
    let joined = ann.until(|frame| frame[3] == "presence_diff" && frame[4]["joins"]["bob"].is_object()).await;
    assert_eq!(joined[4]["joins"]["bob"]["metas"][0]["name"], "Bob");
    for number in 0..20 {
        if number % 2 == 0 {
            bob.say(json!({"type": "chat", "message": number.to_string()})).await;
        } else {
            ann.say(json!([null, null, "room:a/b c", "chat", {"message": number.to_string()}])).await;
        }
    }
    let mut seen = [Vec::new(), Vec::new()];
    while seen[0].len() < 20 {
        seen[0].push(bob.until(|message| message["type"] == "chat").await);
        seen[1].push(ann.until(|frame| frame[3] == "chat").await[4].clone());
    }
    assert_eq!(seen[0], seen[1], "one order, and one text");

    ann.say(json!(["1", "2", "room:a/b c", "directMessage", {"to": "bob", "message": "psst"}])).await;
    let direct = bob.until(|message| message["type"] == "directMessage").await;
    assert_eq!((&direct["from"], &direct["message"]), (&json!("Ann"), &json!("psst")));
    bob.say(json!({"type": "muteUser", "id": "ann"})).await;
    let mute = ann.until(|frame| frame[3] == "muteMic").await;
    assert_eq!(mute, json!([null, null, "room:a/b c", "muteMic", {"type": "muteMic"}]));
    drop(bob);
    let left = push(&mut ann, json!(["1", "3", "room:a/b c", "userLeft", {}])).await;
    assert_eq!(left[4]["status"], "ok");
    assert_eq!(ann.until(|frame| frame[3] == "phx_close").await, closed(json!("1"), "room:a/b c"));
}

#[tokio::test]
async fn chosen_id_outlasts_its_socket() {
    let server = TestServer::start().await;
    let person = Person::log_in(&server, "Ann").await;
    let mut bob = Client::join(&server, "a", "Bob").await;
    let mut ann = ask(&server, ENDPOINT, &person).open(&server).await;
    join(&mut ann, "1", "a", "ann").await;
    drop(ann);
    server.until_away("a", "ann").await;
    bob.say(json!({"type": "directMessage", "to": "ann", "message": "while you were away"})).await;
    bob.echo().await;
    let mut ann = ask(&server, ENDPOINT, &person).open(&server).await;
    join(&mut ann, "1", "a", "ann").await;
    let mut events = Vec::new();
    while events.last().is_none_or(|event| event != "directMessage") {
        events.push(ann.next().await[3].as_str().unwrap().to_owned());
    }
    assert_eq!(events, ["presence_state", "roomState", "directMessage"]);
    let others = bob.received_so_far();
    let is_leave = |text: &str| text.contains("userLeftNotification");
    assert!(!others.iter().any(|received| matches!(received, Received::Text(text) if is_leave(text))));
}

#[tokio::test]
async fn member_without_a_chosen_id_goes_with_its_socket() {
    let server = TestServer::start().await;
    let mut bob = Client::join(&server, "a", "Bob").await;
    let mut ann = connect(&server, "Ann").await;
    let reply = push(&mut ann, json!(["1", "1", "room:a", "phx_join", {}])).await;
    let id = reply[4]["response"]["id"].clone();
    drop(ann);
    let left = bob.until(|message| message["type"] == "userLeftNotification").await;
    assert_eq!(left["id"], id);
}

#[tokio::test]
async fn newer_socket_takes_the_topic_alone() {
    let server = TestServer::start().await;
    let person = Person::log_in(&server, "Ann").await;
    let mut older = ask(&server, ENDPOINT, &person).open(&server).await;
    join(&mut older, "1", "a", "ann").await;
    join(&mut older, "2", "b", "ann").await;
    let mut newer = ask(&server, ENDPOINT, &person).open(&server).await;
    assert_eq!(join(&mut newer, "1", "a", "ann").await[4]["status"], "ok");
    assert_eq!(older.until(|frame| frame[3] == "phx_close").await, closed(json!("1"), "room:a"));
    assert_eq!(push(&mut older, json!(["2", "3", "room:b", "heartbeat", {}])).await[4]["status"], "ok");
    let gone = push(&mut older, json!(["1", "4", "room:a", "heartbeat", {}])).await;
    assert_eq!(gone, refused(json!("1"), json!("4"), "room:a", "unmatched topic"));

    let mut mallory = connect(&server, "Mallory").await;
    let taken = join(&mut mallory, "1", "a", "ann").await;
    assert_eq!(taken, refused(json!("1"), json!("1"), "room:a", "id in use"));
}

#[tokio::test]
async fn full_room_refuses_a_join_with_its_sentence() {
    let server = TestServer::with(|config| config.limits.members_per_room = 1).await;
    let _bob = Client::join(&server, "a", "Bob").await;
    let mut ann = connect(&server, "Ann").await;
    let full = join(&mut ann, "1", "a", "ann").await;
    assert_eq!(full, refused(json!("1"), json!("1"), "room:a", "the room is full"));
    assert_eq!(join(&mut ann, "2", "b", "ann").await[4]["status"], "ok");
}

/// Every topic costs a membership, of which a network has no more over one transport than over the other.
#[tokio::test]
async fn topics_of_a_network_are_limited_as_sockets_are() {
    let server = TestServer::with(|config| config.limits.connections_per_address = 3).await;
    let mut ann = connect(&server, "Ann").await;
    let mut bob = connect(&server, "Bob").await;
    for room in ["a", "b"] {
        assert_eq!(join(&mut ann, room, room, "ann").await[4]["status"], "ok");
    }
    assert_eq!(join(&mut bob, "1", "a", "bob").await[4]["status"], "ok");
    let refusal = join(&mut bob, "2", "b", "bob").await;
    assert_eq!(refusal[4]["response"]["reason"], "too many connections from this address");
    push(&mut ann, json!(["a", "4", "room:a", "phx_leave", {}])).await;
    assert_eq!(join(&mut bob, "2", "b", "bob").await[4]["status"], "ok");
}

#[tokio::test]
async fn restart_closes_every_socket_with_1012() {
    let server = TestServer::start().await;
    let mut ann = connect(&server, "Ann").await;
    join(&mut ann, "1", "a", "ann").await;
    join(&mut ann, "2", "b", "ann").await;
    let mut idle = connect(&server, "Idle").await;
    settle(&mut idle).await;
    let stopped = server.stop();
    let (_, of_ann, of_idle) = tokio::join!(stopped, ann.closed(), idle.closed());
    let restart = (1012, "The server restarts".to_owned());
    assert_eq!((of_ann, of_idle), (restart.clone(), restart));
}

#[tokio::test]
async fn compressed_message_has_its_envelope() {
    let server = TestServer::start().await;
    let bob = Person::log_in(&server, "Bob").await;
    let mut bob = ask(&server, ENDPOINT, &bob).compressing().open(&server).await;
    let mut ann = connect(&server, "Ann").await;
    join(&mut bob, "1", "a", "bob").await;
    join(&mut ann, "1", "a", "ann").await;
    let text = "lorem ipsum ".repeat(160);
    ann.say(json!(["1", null, "room:a", "chat", {"message": text}])).await;
    let is_chat = |frame: &Value| frame[3] == "chat";
    let (to_ann, to_bob) = (ann.until(is_chat).await, bob.until(is_chat).await);
    assert_eq!(to_ann, to_bob);
    assert_eq!(to_bob[4]["message"], *text);
    assert!(server.metric("satsuma_deflate_to_bytes_total").await > 0.0, "it was compressed");
}

#[tokio::test]
async fn refused_upgrade_has_a_status() {
    let server = TestServer::start().await;
    let ann = Person::log_in(&server, "Ann").await;
    let token = answer(server.post_form("/api/socket-token", &[]).header("cookie", ann.cookie())).await;
    assert_eq!((token.status, token.header("cache-control")), (200, "no-store"), "{token:?}");
    assert_eq!(token.json()["expiresIn"], 300);
    let token = token.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(answer(server.post_form("/api/socket-token", &[])).await.status, 401);
    let evil = server.post_form("/api/socket-token", &[]).header("origin", "https://evil.example");
    assert_eq!(answer(evil.header("cookie", ann.cookie())).await.status, 403);

    let plain = |path: &str| Ask::path(path);
    let own = server.http();
    let with_token = format!("{ENDPOINT}&token={token}");
    for (ask, status) in [
        (ask(&server, ENDPOINT, &ann), 101),
        (plain(ENDPOINT).by(&ann), 401),
        (plain(ENDPOINT).header("origin", &own), 401),
        (plain(ENDPOINT).by(&ann).header("origin", "https://evil.example"), 403),
        (plain(&with_token), 101),
        (plain(&with_token).header("origin", "https://evil.example"), 403),
        (plain(&format!("{ENDPOINT}&token=x&token={token}")), 101),
        (plain(&format!("{ENDPOINT}&token={token}x")).by(&ann).header("origin", &own), 401),
        (ask(&server, "/socket/websocket?vsn=3.0.0", &ann), 400),
        (ask(&server, "/socket/websocket?vsn[a]=2.0.0", &ann), 400),
        (ask(&server, ENDPOINT, &ann).header("sec-websocket-protocol", "graphql-ws"), 403),
        (ask(&server, "/sockets/websocket", &ann), 404),
    ] {
        assert_eq!(ask.answer(&server).await.status, status, "{}", ask.clone().target());
    }
    let plain_get = answer(server.get(ENDPOINT).header("cookie", ann.cookie())).await;
    assert_eq!(plain_get.status, 400, "{plain_get:?}");
    let lost = server.get(ENDPOINT).header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(answer(lost).await.status, 426);

    let bearer = format!("base64url.bearer.phx.{}", BASE64_STANDARD_NO_PAD.encode(&token));
    let both = plain(ENDPOINT).header("sec-websocket-protocol", &format!("phoenix, {bearer}"));
    let both = both.answer(&server).await;
    assert_eq!((both.status, both.header("sec-websocket-protocol")), (101, "phoenix"));
    let alone = plain(ENDPOINT).header("sec-websocket-protocol", &bearer).answer(&server).await;
    assert_eq!((alone.status, alone.header("sec-websocket-protocol")), (101, ""));
    assert!(!logged().contains(&token), "no token is logged");
}

#[tokio::test]
async fn token_names_the_user_of_a_socket() {
    let server = TestServer::start().await;
    let ann = Person::log_in(&server, "Ann").await;
    let token = answer(server.post_form("/api/socket-token", &[]).header("cookie", ann.cookie())).await;
    let path = format!("{ENDPOINT}&token={}", token.json()["token"].as_str().unwrap());
    let mut by_token = Ask::path(&path).open(&server).await;
    assert_eq!(
        join(&mut by_token, "1", "a", "ann").await[4]["response"],
        json!({"id": "ann", "name": "Ann"})
    );
    let mut by_cookie = ask(&server, ENDPOINT, &ann).open(&server).await;
    let taken = join(&mut by_cookie, "1", "a", "ann").await;
    assert_eq!(taken[4]["status"], "ok", "it is the same identity");
}

#[tokio::test]
async fn endpoint_can_be_moved_or_switched_off() {
    let server = TestServer::with(|config| config.phoenix.path = "/live/phoenix".to_owned()).await;
    let ann = Person::log_in(&server, "Ann").await;
    assert_eq!(ask(&server, "/live/phoenix/websocket", &ann).answer(&server).await.status, 101);
    assert_eq!(ask(&server, ENDPOINT, &ann).answer(&server).await.status, 404);
    let server = TestServer::with(|config| config.phoenix.enabled = false).await;
    let ann = Person::log_in(&server, "Ann").await;
    assert_eq!(ask(&server, ENDPOINT, &ann).answer(&server).await.status, 404);
    let token = server.post_form("/api/socket-token", &[]).header("cookie", ann.cookie());
    assert_eq!(answer(token).await.status, 404);
}

#[tokio::test]
async fn sockets_joins_and_events_are_counted() {
    let server = TestServer::start().await;
    let mut ann = connect(&server, "Ann").await;
    join(&mut ann, "1", "a", "ann").await;
    push(&mut ann, json!(["1", "2", "room:a", "chat", {"message": "hi"}])).await;
    push(&mut ann, json!(["1", "3", "room:a", "chat", {}])).await;
    for (name, value) in [
        ("satsuma_phoenix_sockets{transport=\"websocket\",version=\"2\"}", 1.0),
        ("satsuma_phoenix_connects_total{kind=\"websocket\",outcome=\"connected\"}", 1.0),
        ("satsuma_phoenix_joins_total{reason=\"joined\"}", 1.0),
        ("satsuma_phoenix_event_seconds_count{kind=\"chat\",outcome=\"ok\"}", 1.0),
        ("satsuma_phoenix_event_seconds_count{kind=\"invalid\",outcome=\"error\"}", 1.0),
        ("satsuma_phoenix_event_seconds_count{kind=\"phx_join\",outcome=\"ok\"}", 1.0),
        ("satsuma_connections", 1.0),
    ] {
        assert_eq!(server.metric(name).await, value, "{name}");
    }
    drop(ann);
    server.until_metric("satsuma_phoenix_sockets{transport=\"websocket\",version=\"2\"}", 0.0).await;
}

/// Refused joins are cheap, and harm nobody else.
#[tokio::test]
async fn hundred_bad_joins_are_all_answered() {
    let server = TestServer::start().await;
    let mut bob = Client::join(&server, "a", "Bob").await;
    let mut mallory = connect(&server, "Mallory").await;
    let pk = bob.pk();
    for number in 0..25 {
        for (topic, payload) in [
            ("room:a", json!({"_pk": pk})),
            ("room:a", json!([])),
            ("room:\u{7}", json!({})),
            ("topic", json!({})),
        ] {
            mallory.say(json!([number, number, topic, "phx_join", payload])).await;
        }
    }
    for number in 0..100 {
        let reply = mallory.until(|frame| frame[3] == "phx_reply").await;
        assert_eq!(reply[4]["status"], "error", "{number}");
    }
    bob.echo().await;
    assert_eq!(server.metric("satsuma_phoenix_joins_total{reason=\"seat_taken\"}").await, 25.0);
}

/// Heartbeats and joins alone could make a server keep replies without a bound.
#[tokio::test]
async fn client_that_reads_nothing_is_not_read() {
    let server = TestServer::with(|config| {
        config.limits.write_stall = Duration::from_secs(1);
        config.limits.messages_per_second = 1_000_000;
        config.limits.message_burst = 1_000_000;
    });
    let server = server.await;
    let mut bob = Client::join(&server, "a", "Bob").await;
    let ann = Person::log_in(&server, "Ann").await;
    let (_, mut raw) =
        Raw::open(server.addresses().http, ENDPOINT, &[("cookie", ann.cookie()), ("origin", &server.http())])
            .await;
    let reference = "x".repeat(255);
    let heartbeat = json!([null, reference, "phoenix", "heartbeat", {}]).to_string();
    let frames = Frame::new(0x81, heartbeat).masked().repeat(1000);
    // The writes end once the server closes the socket.
    while raw.try_say(&frames).await {}
    server.until_metric("satsuma_closes_total{reason=\"stalled\"}", 1.0).await;
    bob.echo().await;
}

/// A member that confirms nothing loses its membership, and its socket with all other topics.
#[tokio::test]
async fn too_slow_reader_is_closed_with_1013() {
    let server = TestServer::with(|config| {
        config.limits.outbox_bytes = 64 << 10;
        config.limits.write_stall = Duration::from_secs(1);
    });
    let server = server.await;
    let ann = Person::log_in(&server, "Ann").await;
    let headers = [("cookie", ann.cookie()), ("origin", &*server.http())];
    let (_, mut raw) = Raw::open(server.addresses().http, ENDPOINT, &headers).await;
    for room in ["a", "b"] {
        let join = json!([room, room, format!("room:{room}"), "phx_join", {"_pk": "ann"}]);
        raw.say(&Frame::new(0x81, join.to_string()).masked()).await;
    }
    let mut bob = Client::join(&server, "a", "Bob").await;
    bob.until_state(|state| state["users"].as_array().unwrap().len() == 2).await;
    let talk = async {
        loop {
            bob.say(json!({"type": "chat", "message": "x".repeat(2000)})).await;
            bob.until(|message| message["type"] == "chat").await;
        }
    };
    // It reads everything, but answers no ping.
    let read = async {
        loop {
            let frame = raw.frame().await.expect("a close frame");
            if frame.first == 0x88 {
                return u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
            }
        }
    };
    let code = tokio::select! { code = read => code, () = talk => 0 };
    assert_eq!(code, 1013);
    server.until_metric("satsuma_closes_total{reason=\"too_slow\"}", 1.0).await;
}

#[tokio::test]
async fn history_of_the_chat_follows_the_first_state() {
    let server = TestServer::start().await;
    let mut ann = connect(&server, "Ann").await;
    join(&mut ann, "1", "c", "ann").await;
    for text in ["one", "two"] {
        push(&mut ann, json!(["1", text, "room:c", "chat", {"message": text}])).await;
    }
    let mut bob = connect(&server, "Bob").await;
    join(&mut bob, "1", "c", "bob").await;
    let frames: Vec<Value> = settle(&mut bob).await;
    let kinds: Vec<&Value> = frames.iter().map(|frame| &frame[3]).collect();
    assert_eq!(kinds[..3], ["presence_state", "roomState", "chatHistory"]);
    let texts: Vec<&Value> =
        frames[2][4]["messages"].as_array().unwrap().iter().map(|line| &line["message"]).collect();
    assert_eq!(texts, ["one", "two"]);
}
