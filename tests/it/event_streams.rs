//! Streams of events, and programs outside that act in rooms.

use std::time::Duration;

use axum::http::Method;
use futures_util::{StreamExt, stream};
use reqwest::{RequestBuilder, Response};
use satsuma::config::Config;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::access_tokens::{auth, token, token_with};
use crate::client::Client;
use crate::harness::{Answer, PATIENCE, TestServer, answer, eventually};

pub fn configured(config: &mut Config) {
    config.auth = auth();
    config.room.tick = Duration::from_millis(100);
}

/// A reader of a stream.
pub struct Stream {
    bytes: stream::BoxStream<'static, Vec<u8>>,
    text: String,
    pub last_id: String,
}

impl Stream {
    pub async fn open(request: RequestBuilder) -> Self {
        let response: Response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let bytes = response.bytes_stream().take_while(|chunk| std::future::ready(chunk.is_ok()));
        let bytes = bytes.map(|chunk| chunk.unwrap().to_vec()).boxed();
        let mut stream = Self { bytes, text: String::new(), last_id: String::new() };
        // Nothing after these lines is missed.
        while stream.last_id.is_empty() && !stream.text.contains("retry:") {
            assert!(stream.read().await);
        }
        stream
    }

    async fn read(&mut self) -> bool {
        let chunk = timeout(PATIENCE, self.bytes.next()).await.expect("something comes");
        let Some(chunk) = chunk else { return false };
        self.text += std::str::from_utf8(&chunk).unwrap();
        true
    }

    /// The next event; none at the end of the stream.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            let Some((block, rest)) = self.text.split_once("\n\n") else {
                if !self.read().await {
                    return None;
                }
                continue;
            };
            let (mut data, mut id) = (None, None);
            for line in block.lines() {
                match line.split_once(": ") {
                    Some(("data", value)) => data = Some(serde_json::from_str(value).unwrap()),
                    Some(("id", value)) => id = Some(value.to_owned()),
                    Some(("retry", _)) | None => assert!(line.starts_with("retry") || line == ":", "{line}"),
                    Some(_) => panic!("{line}"),
                }
            }
            self.text = rest.to_owned();
            if let Some(id) = id {
                self.last_id = id;
            }
            if data.is_some() {
                return data;
            }
        }
    }

    /// The types of the next events until one of this type.
    pub async fn until(&mut self, kind: &str) -> Vec<String> {
        let mut types = Vec::new();
        while types.last().is_none_or(|last| last != kind) {
            let event = self.next().await.expect("the stream goes on");
            types.push(event["type"].as_str().unwrap().to_owned());
        }
        types
    }
}

pub fn operators(server: &TestServer, query: &str) -> RequestBuilder {
    let token = std::fs::read_to_string(server.data_dir().join("operator.token")).unwrap();
    server.admin(&format!("/admin/events{query}")).bearer_auth(token.trim())
}

pub fn agent(room: &str) -> String {
    token_with("Bot", room, json!({"agent": true}))
}

fn post(server: &TestServer, path: &str, token: &str, body: &Value) -> RequestBuilder {
    server.request(&Method::POST, path).bearer_auth(token).body(body.to_string())
}

pub async fn leave(mut client: Client) {
    client.say(json!({"type": "userLeft"})).await;
    client.closed().await;
}

#[tokio::test]
async fn stream_shows_a_meeting_as_it_happens() {
    let server = TestServer::with(configured).await;
    let mut all = Stream::open(operators(&server, "")).await;
    let mut some = Stream::open(operators(&server, "?events=meeting.*&rooms=r*")).await;
    assert_eq!(server.metric("satsuma_event_streams").await, 2.0);
    leave(Client::join(&server, "r", "Ada").await).await;
    let types = all.until("meeting.ended").await;
    assert_eq!(types, ["meeting.started", "member.joined", "member.left", "meeting.ended"]);
    assert_eq!(some.until("meeting.ended").await, ["meeting.started", "meeting.ended"]);
    drop((all, some));
    server.until_metric("satsuma_event_streams", 0.0).await;
}

#[tokio::test]
async fn stream_tells_to_which_state_rules_were_switched() {
    let server = TestServer::with(configured).await;
    let mut stream = Stream::open(operators(&server, "?events=moderation.*")).await;
    let _ada = Client::join(&server, "r", "Ada").await;
    for on in [true, false] {
        let done = server.admin_post("/admin/rooms/r/moderate", &json!({"action": "lock", "on": on})).await;
        assert_eq!(done.status, 200, "{done:?}");
        let told = stream.next().await.unwrap()["data"].take();
        assert_eq!(told, json!({"action": "lock", "on": on, "by": null, "target": null}));
    }
}

#[tokio::test]
async fn stream_resumes_after_the_last_event() {
    let server = TestServer::with(configured).await;
    let stream = Stream::open(operators(&server, "")).await;
    // The connection is lost before an event came.
    let resume = |server: &TestServer, id: &str| operators(server, "").header("last-event-id", id);
    let mut last_id = stream.last_id.clone();
    if last_id.is_empty() {
        last_id = stream.text.split("id: ").nth(1).unwrap().split('\n').next().unwrap().to_owned();
    }
    drop(stream);
    let ada = Client::join(&server, "r", "Ada").await;
    let mut stream = Stream::open(resume(&server, &last_id)).await;
    assert_eq!(stream.until("member.joined").await, ["meeting.started", "member.joined"]);
    let last_id = stream.last_id.clone();
    drop(stream);
    leave(ada).await;
    server.until_metric("satsuma_events_total{type=\"meeting.ended\"}", 1.0).await;
    // Over a restart, too.
    let server = server.restart().await;
    let mut stream = Stream::open(resume(&server, &last_id)).await;
    assert_eq!(stream.until("meeting.ended").await, ["member.left", "meeting.ended"]);
    let _bob = Client::join(&server, "r", "Bob").await;
    assert_eq!(stream.until("member.joined").await, ["meeting.started", "member.joined"]);
    for unknown in ["evt_2f1c3a4e-6a0e-4d0e-9a55-0d3d3c7f9f10", "x\u{7f}"] {
        let Ok(value) = reqwest::header::HeaderValue::from_str(unknown) else { continue };
        let mut stream = Stream::open(operators(&server, "").header("last-event-id", value)).await;
        let lost = stream.next().await.unwrap();
        assert_eq!((&lost["type"], &lost["data"]), (&json!("events.lost"), &json!({"lost": null})));
    }
}

#[tokio::test]
async fn stream_is_told_what_the_log_has_lost() {
    let server = TestServer::with(|config| {
        configured(config);
        config.events.log_bytes = 1;
    })
    .await;
    let stream = Stream::open(operators(&server, "")).await;
    drop(stream);
    for _ in 0..2 {
        leave(Client::join(&server, "r", "Ada").await).await;
    }
    eventually("all is told".into(), async || {
        server.metric("satsuma_events_total{type=\"member.left\"}").await == 2.0
    })
    .await;
    let server = server.restart().await;
    let mut stream = Stream::open(operators(&server, "").header("last-event-id", "start")).await;
    let lost = stream.next().await.unwrap();
    assert_eq!(lost["type"], "events.lost");
    assert!(lost["data"]["lost"].as_u64().unwrap() >= 4, "{lost}");
    assert!(stream.next().await.is_some(), "the newest is kept");
}

#[tokio::test]
async fn stream_ends_with_the_server() {
    let server = TestServer::with(configured).await;
    let mut operators = Stream::open(operators(&server, "")).await;
    let room = server.get("/api/rooms/r/events").bearer_auth(agent("r"));
    let mut room = Stream::open(room).await;
    let _ada = Client::join(&server, "r", "Ada").await;
    for stream in [&mut operators, &mut room] {
        stream.until("member.joined").await;
    }
    let ended = async {
        for stream in [&mut operators, &mut room] {
            assert_eq!(stream.next().await, None, "the meeting goes on after the restart");
        }
    };
    tokio::join!(Box::pin(server.stop()), ended);
}

#[tokio::test]
async fn rooms_stream_needs_an_agent_of_the_room() {
    let server = TestServer::with(configured).await;
    for path in ["/api/rooms/r/events", "/api/rooms/r"] {
        assert_eq!(answer(server.get(path)).await.status, 401, "{path}");
        let refused = async |token: &str| answer(server.get(path).bearer_auth(token)).await;
        let [person, other] = [refused(&token("Ada", "r")).await, refused(&agent("other")).await];
        assert_eq!((person.status, other.status, &person.text), (403, 403, &other.text), "{path}");
        let _ada = Client::join(&server, "r", "Ada").await;
        assert_eq!(refused(&agent("other")).await.text, other.text, "whether it runs or not");
    }
    let mut stream = Stream::open(server.get("/api/rooms/r/events").bearer_auth(agent("r*"))).await;
    let _elsewhere = Client::join(&server, "r2", "Bob").await;
    let _bob = Client::join(&server, "r", "Bob").await;
    loop {
        let event = stream.next().await.unwrap();
        assert_eq!(event["room"], "r");
        if event["data"]["member"]["name"] == "Bob" {
            break;
        }
    }
    let wrong = server.get("/api/rooms/r/events?rooms=x").bearer_auth(agent("r"));
    assert_eq!(answer(wrong).await.status, 400);
}

#[tokio::test]
async fn members_see_a_stream_that_asks_to_be_shown() {
    let server = TestServer::with(configured).await;
    let open = async |query: &str| {
        Stream::open(server.get(&format!("/api/rooms/r/events{query}")).bearer_auth(agent("r"))).await
    };
    let shown = open("?shown=true").await;
    let _hidden = open("").await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    ada.until_state(|state| state["room"]["observers"] == json!(["Bot"])).await;
    drop(shown);
    ada.until_state(|state| state.get("room").is_none()).await;
    let _again = open("?events=member.*&shown=true").await;
    let state = ada.until_state(|state| state["room"]["observers"] == json!(["Bot"])).await;
    assert_eq!(state["users"].as_array().unwrap().len(), 1, "it takes no seat");
    let wrong = server.get("/api/rooms/r/events?shown=yes").bearer_auth(agent("r"));
    assert_eq!(answer(wrong).await.status, 400);
    assert_eq!(answer(operators(&server, "?shown=true")).await.status, 400, "of no single room");
}

#[tokio::test]
async fn streams_of_one_identity_are_limited() {
    let server = TestServer::with(|config| {
        configured(config);
        config.events.streams_per_identity = 1;
        config.events.streams = 2;
    })
    .await;
    let open = |name: &str| {
        let token = token_with(name, "r", json!({"agent": true}));
        server.get("/api/rooms/r/events").bearer_auth(token)
    };
    let one = Stream::open(open("Bot")).await;
    assert_eq!(answer(open("Bot")).await.status, 429);
    let _other = Stream::open(open("Bat")).await;
    assert_eq!(answer(operators(&server, "")).await.status, 429, "of all");
    drop(one);
    eventually("the place is free".into(), async || answer_head(open("Bot")).await == 200).await;
}

/// The status of an answer that has no end.
async fn answer_head(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

/// A client that does not read costs no memory, and loses nothing while the log holds it.
#[tokio::test]
async fn slow_reader_gets_everything_late() {
    let server = TestServer::with(configured).await;
    let mut slow = Stream::open(operators(&server, "?events=member.joined")).await;
    let mut clients = Vec::new();
    for number in 0..150 {
        clients.push(Client::join(&server, &format!("r{}", number % 20), "Ada").await);
    }
    server.until_metric("satsuma_events_total{type=\"member.joined\"}", 150.0).await;
    for _ in 0..150 {
        assert_eq!(slow.next().await.unwrap()["type"], "member.joined");
    }
}

#[tokio::test]
async fn program_writes_to_a_room_without_joining() {
    let server = TestServer::with(|config| {
        configured(config);
        config.events.chat = true;
    })
    .await;
    let bot = agent("r");
    let chat = json!({"message": "Lunch at 12"});
    let refused = answer(post(&server, "/api/rooms/r/chat", &bot, &chat)).await;
    assert_eq!((refused.status, refused.text.contains("no meeting")), (404, true));
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    ada.until_state(|state| state["users"].as_array().unwrap().len() == 2).await;
    let mut events =
        Stream::open(server.get("/api/rooms/r/events?events=chat.message").bearer_auth(&bot)).await;
    assert_eq!(answer(post(&server, "/api/rooms/r/chat", &bot, &chat)).await.status, 204);
    for client in [&mut ada, &mut bob] {
        let heard = client.until(|message| message["type"] == "chat").await;
        assert_eq!((&heard["name"], &heard["message"]), (&json!("Bot"), &json!("Lunch at 12")));
        assert_eq!(heard["from"], "*outside");
    }
    assert_eq!(events.next().await.unwrap()["data"]["message"], "Lunch at 12");
    let direct = json!({"to": bob.pk(), "message": "psst", "name": "Reception"});
    assert_eq!(answer(post(&server, "/api/rooms/r/messages", &bot, &direct)).await.status, 204);
    let heard = bob.until(|message| message["type"] == "directMessage").await;
    assert_eq!((&heard["from"], &heard["message"]), (&json!("Reception"), &json!("psst")));

    // The grants of a token may leave out the chat.
    let reader = token_with("reader", "r", json!({"agent": true, "chat": false}));
    for (path, body) in [("/api/rooms/r/chat", &chat), ("/api/rooms/r/messages", &direct)] {
        assert_eq!(answer(post(&server, path, &reader, body)).await.status, 403, "{path}");
    }

    let state = answer(server.get("/api/rooms/r").bearer_auth(&bot)).await.json();
    let names: Vec<&str> =
        state["members"].as_array().unwrap().iter().map(|member| member["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 2, "it takes no seat: {state}");
    assert!(state["meeting"].is_string() && state["members"][0]["connected"] == true, "{state}");

    // By operators, too.
    let told = server.admin_post("/admin/rooms/r/chat", &json!({"message": "Maintenance at 13"})).await;
    assert_eq!(told.status, 204);
    let heard = ada.until(|message| message["message"] == "Maintenance at 13").await;
    assert_eq!(heard["name"], "Operator");
}

#[tokio::test]
async fn invalid_messages_are_refused_with_their_field() {
    let server = TestServer::with(configured).await;
    let _ada = Client::join(&server, "r", "Ada").await;
    let bot = agent("r");
    let long = "x".repeat(2001);
    for (path, body, status, named) in [
        ("chat", json!({"message": ""}), 400, "\"message\""),
        ("chat", json!({"message": long}), 400, "2000"),
        ("chat", json!({"message": "x", "name": "a\u{7}"}), 400, "\"name\""),
        ("chat", json!({"message": "x", "from": "ada"}), 400, "JSON"),
        ("chat", json!(["x"]), 400, "JSON"),
        ("messages", json!({"message": "x"}), 400, "JSON"),
        ("messages", json!({"to": "nobody", "message": "x"}), 404, "\"to\""),
        ("messages", json!({"to": "*outside", "message": "x"}), 404, "\"to\""),
    ] {
        let refused = answer(post(&server, &format!("/api/rooms/r/{path}"), &bot, &body)).await;
        assert_eq!(refused.status, status, "{path} {body}: {refused:?}");
        assert!(refused.text.contains(named), "{path} {body}: {refused:?}");
    }
    for (bearer, status) in [(token("Ada", "r"), 403), (agent("other"), 403)] {
        let refused = answer(post(&server, "/api/rooms/r/chat", &bearer, &json!({"message": "x"}))).await;
        assert_eq!(refused.status, status);
    }
}

#[tokio::test]
async fn repeated_request_acts_once() {
    let server = TestServer::with(configured).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    ada.until_users(&[&ada.pk()]).await;
    let (bot, other) = (agent("r"), token_with("Bat", "r", json!({"agent": true})));
    let send = async |token: &str, key: &str, message: &str| -> Answer {
        let request = post(&server, "/api/rooms/r/chat", token, &json!({"message": message}));
        answer(request.header("x-idempotency-key", key)).await
    };
    let [first, second] = [send(&bot, "k1", "one"), send(&bot, "k1", "one")];
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.status, second.status), (204, 204));
    assert_eq!(send(&bot, "k1", "one").await.status, 204);
    assert_eq!(send(&bot, "k1", "other").await.status, 422);
    assert_eq!(send(&bot, "", "x").await.status, 400);
    assert_eq!(send(&bot, &"k".repeat(129), "x").await.status, 400);
    assert_eq!(send(&other, "k1", "two").await.status, 204, "each identity has its keys");
    assert_eq!(send(&bot, "k2", "three").await.status, 204);
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last| last != "three") {
        let message = ada.until(|message| message["type"] == "chat").await;
        heard.push(message["message"].as_str().unwrap().to_owned());
    }
    assert_eq!(heard, ["one", "two", "three"]);
}

#[tokio::test]
async fn requests_are_charged_to_the_token() {
    let server = TestServer::with(|config| {
        configured(config);
        config.events.requests_per_minute = 2;
    })
    .await;
    let state = async |name: &str| {
        let token = token_with(name, "r", json!({"agent": true}));
        answer(server.get("/api/rooms/r").bearer_auth(token)).await.status
    };
    assert_eq!([state("Bot").await, state("Bot").await, state("Bot").await], [200, 200, 429]);
    assert_eq!(state("Bat").await, 200, "another one's");
}
