//! Rooms over Phoenix Channels by long polling: each request and its answer, and the ends of a session.

use axum::http::Method;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::harness::{Answer, PATIENCE, Person, TestServer, answer, eventually};

const ENDPOINT: &str = "/socket/longpoll?vsn=2.0.0";

/// The client of one session.
struct Poller<'a> {
    server: &'a TestServer,
    person: Person,
    token: String,
}

impl<'a> Poller<'a> {
    async fn open(server: &'a TestServer, name: &str) -> Self {
        Self::open_as(server, &Person::log_in(server, name).await).await
    }

    async fn open_as(server: &'a TestServer, person: &Person) -> Self {
        let opened = answer(from_page(server, ENDPOINT, person)).await.json();
        assert_eq!((&opened["status"], &opened["messages"]), (&json!(410), &json!([])), "{opened}");
        let token = opened["token"].as_str().unwrap().to_owned();
        Self { server, person: person.clone(), token }
    }

    fn request(&self, method: &Method) -> RequestBuilder {
        let request = self.server.request(method, ENDPOINT);
        let request = request.header("cookie", self.person.cookie()).header("origin", self.server.http());
        request.header("x-phoenix-longpoll-token", &self.token)
    }

    async fn poll(&self) -> Value {
        polled(self.request(&Method::GET)).await
    }

    async fn post(&self, body: impl Into<reqwest::Body>) -> Value {
        let request = self.request(&Method::POST).header("content-type", "application/x-ndjson");
        answer(request.body(body)).await.json()["status"].clone()
    }

    async fn say(&self, frames: &[Value]) {
        let lines: Vec<_> = frames.iter().map(Value::to_string).collect();
        assert_eq!(self.post(lines.join("\n")).await, 200);
    }

    /// Polls until a frame of this event comes, and returns all frames.
    async fn until(&self, event: &str) -> Vec<Value> {
        let mut frames: Vec<Value> = Vec::new();
        while !frames.iter().any(|frame| frame[3] == event) {
            let polled = self.poll().await;
            let messages = polled["messages"].as_array().unwrap_or_else(|| panic!("{polled}"));
            frames.extend(messages.iter().map(|text| serde_json::from_str(text.as_str().unwrap()).unwrap()));
        }
        frames
    }

    async fn join(&self, room: &str, pk: Option<&str>) -> Vec<Value> {
        self.say(&[json!(["1", "1", format!("room:{room}"), "phx_join", {"_pk": pk}])]).await;
        self.until("roomState").await
    }
}

/// A GET of a person's page on this server, as browsers send it.
fn from_page(server: &TestServer, path: &str, person: &Person) -> RequestBuilder {
    server.get(path).header("cookie", person.cookie()).header("sec-fetch-site", "same-origin")
}

/// The answer to a poll, which may take 10 s.
async fn polled(request: RequestBuilder) -> Value {
    let response = request.timeout(2 * PATIENCE).send().await.unwrap();
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

fn status(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["status"].clone()
}

fn lines(frames: &[Value]) -> Vec<&str> {
    let chats = frames.iter().filter(|frame| frame[3] == "chat");
    chats.map(|frame| frame[4]["message"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn member_by_polls_meets_one_by_socket() {
    let server = TestServer::start().await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let ada = Poller::open(&server, "Ada").await;
    let joined = ada.join("r", None).await;
    let events: Vec<_> = joined.iter().take(3).map(|frame| frame[3].as_str().unwrap()).collect();
    assert_eq!(events, ["phx_reply", "presence_state", "roomState"]);
    assert_eq!(joined[0][4]["response"]["name"], "Ada");
    ada.say(&[
        json!(["1", "2", "room:r", "chat", {"message": "one"}]),
        json!(["1", "3", "room:r", "chat", {"message": "two"}]),
    ])
    .await;
    for text in ["one", "two"] {
        let chat = bob.until(|message| message["type"] == "chat").await;
        assert_eq!(chat["message"], text);
    }
    bob.say(json!({"type": "chat", "message": "three"})).await;
    let mut heard = Vec::new();
    while heard.len() < 3 {
        heard.extend(ada.until("chat").await.into_iter().filter(|frame| frame[3] == "chat"));
    }
    assert_eq!(lines(&heard), ["one", "two", "three"]);
    ada.say(&[json!(["1", "4", "room:r", "phx_leave", {}])]).await;
    assert_eq!(ada.until("phx_close").await.last().unwrap(), &json!(["1", "1", "room:r", "phx_close", {}]));
    bob.until(|message| message["type"] == "userLeftNotification").await;
}

#[tokio::test]
async fn user_is_known_by_token_or_own_cookie() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    let request = server.request(&Method::POST, "/api/socket-token").header("cookie", ada.cookie());
    let token = answer(request).await.json()["token"].as_str().unwrap().to_owned();
    let with_cookie = || server.get(ENDPOINT).header("cookie", ada.cookie());
    let path = |path: String| server.get(&path);
    for (request, wanted) in [
        (path(format!("/socket/longpoll?token={token}&vsn=2.0.0")), 410),
        (path(format!("/socket/longpoll?token={token}&vsn=2.0.0&token=nonsense")), 410),
        (path(format!("/socket/longpoll?token={token}&token=a&token=b")), 403),
        (path("/socket/longpoll?token=nonsense".to_owned()), 403),
        (server.get(ENDPOINT).header("x-phoenix-authtoken", &token), 410),
        (with_cookie().header("x-phoenix-authtoken", "nonsense"), 403),
        (server.get(ENDPOINT), 403),
        (with_cookie(), 403),
        (with_cookie().header("origin", server.http()), 410),
        (with_cookie().header("origin", "https://evil.example"), 403),
        (with_cookie().header("sec-fetch-site", "same-origin"), 410),
        (with_cookie().header("sec-fetch-site", "cross-site"), 403),
        (from_page(&server, "/socket/longpoll?vsn=3.0.0", &ada), 403),
    ] {
        let described = format!("{request:?}");
        assert_eq!(status(&answer(request).await), wanted, "{described}");
    }
    assert!(!crate::harness::logged().contains(&token));
}

#[tokio::test]
async fn answers_have_their_headers() {
    let server = TestServer::start().await;
    let ada = Poller::open(&server, "Ada").await;
    ada.say(&[json!([null, "1", "phoenix", "heartbeat", {}])]).await;
    let polled = answer(ada.request(&Method::GET)).await;
    assert_eq!(polled.json()["status"], 200);
    assert_eq!(polled.json()["token"], ada.token);
    for (name, value) in [
        ("cache-control", "no-store"),
        ("content-type", "application/json"),
        ("access-control-allow-origin", "*"),
    ] {
        assert_eq!(polled.header(name), value);
    }
    let asks = server
        .request(&Method::OPTIONS, ENDPOINT)
        .header("origin", server.http())
        .header("access-control-request-headers", "content-type,x-phoenix-authtoken");
    let allowed = answer(asks).await;
    assert_eq!((allowed.status, &*allowed.text), (200, ""));
    for (name, value) in [
        ("access-control-allow-methods", "get, post, options"),
        ("access-control-allow-headers", "content-type,x-phoenix-authtoken"),
        ("access-control-max-age", "3600"),
    ] {
        assert_eq!(allowed.header(name), value);
    }
    let foreign = server.request(&Method::OPTIONS, ENDPOINT).header("origin", "https://evil.example");
    let refused = answer(foreign.header("access-control-request-headers", "content-type")).await;
    assert_eq!((status(&refused), refused.header("access-control-allow-headers")), (json!(403), ""));
    for method in [Method::PUT, Method::DELETE, Method::HEAD] {
        assert_eq!(answer(server.request(&method, ENDPOINT)).await.status, 400, "{method}");
    }
}

#[tokio::test]
async fn bad_bodies_are_refused_whole() {
    let server = TestServer::start().await;
    let ada = Poller::open(&server, "Ada").await;
    let heartbeat = json!([null, "1", "phoenix", "heartbeat", {}]).to_string();
    let many = |count: usize| vec![heartbeat.clone(); count].join("\n");
    assert_eq!(ada.post(many(101)).await, 413);
    assert_eq!(ada.post(format!("{heartbeat}\n{{}}")).await, 400);
    assert_eq!(ada.post(format!("{heartbeat}\n%%%")).await, 400);
    assert_eq!(ada.post(b"[\"\xff\"]".to_vec()).await, 400);
    assert_eq!(ada.post("x".repeat(9 << 20)).await, 413);
    assert_eq!(ada.post(String::new()).await, 200);
    let unknown = Poller { token: "lp-unknown".to_owned(), ..Poller::open(&server, "Bob").await };
    assert_eq!(unknown.post(heartbeat.clone()).await, 410);
    // Nothing of the refused bodies was handled, and the session goes on.
    assert_eq!(ada.post(many(100)).await, 200);
    let mut replies = 0;
    while replies < 100 {
        replies += ada.until("phx_reply").await.len();
    }
    assert_eq!(replies, 100);
    // Not a message of the protocol: a socket would be closed.
    assert_eq!(ada.post("[1]".to_owned()).await, 200);
    assert_eq!(ada.poll().await["status"], 410);
}

#[tokio::test]
async fn other_serializer_and_bytes_are_read() {
    let server = TestServer::start().await;
    let person = Person::log_in(&server, "Ada").await;
    let v1 = |method: &Method, token: &str| {
        let request = server.request(method, &format!("/socket/longpoll?token={token}"));
        request.header("cookie", person.cookie()).header("origin", server.http())
    };
    let token = answer(v1(&Method::GET, "")).await;
    assert_eq!(status(&token), 403, "an empty token is one");
    let opened = answer(from_page(&server, "/socket/longpoll", &person)).await.json();
    let token = opened["token"].as_str().unwrap();
    let body = "{\"topic\":\"phoenix\",\n\"event\":\"heartbeat\",\"payload\":{},\"ref\":\"1\"}";
    assert_eq!(status(&answer(v1(&Method::POST, token).body(body)).await), 200);
    let polled = answer(v1(&Method::GET, token)).await.json();
    let frame: Value = serde_json::from_str(polled["messages"][0].as_str().unwrap()).unwrap();
    assert_eq!((&frame["event"], &frame["ref"]), (&json!("phx_reply"), &json!("1")));

    let bob = Poller::open(&server, "Bob").await;
    bob.join("r", None).await;
    // 00, the lengths, "1", "2", "room:r", "echo", and three bytes.
    assert_eq!(bob.post("AAEBBgQxMnJvb206cmVjaG8BAgM=").await, 200);
    let reply = bob.until("phx_reply").await.pop().unwrap();
    assert_eq!(reply[4], json!({"status": "error", "response": {"reason": "no binary events"}}));
}

/// Messages of an answer that its client did not get are sent again; those that the next poll confirmed are not.
#[tokio::test]
async fn unconfirmed_answer_comes_again_to_the_member() {
    let server = TestServer::start().await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let person = Person::log_in(&server, "Ada").await;
    let first = Poller::open_as(&server, &person).await;
    first.join("r", Some("ada-1")).await;
    bob.say(json!({"type": "chat", "message": "confirmed"})).await;
    assert_eq!(lines(&first.until("chat").await), ["confirmed"]);
    bob.say(json!({"type": "chat", "message": "lost"})).await;
    assert_eq!(lines(&first.until("chat").await), ["lost"]);
    let second = Poller::open_as(&server, &person).await;
    let mut heard = second.join("r", Some("ada-1")).await;
    bob.say(json!({"type": "chat", "message": "last"})).await;
    while !lines(&heard).contains(&"last") {
        heard.extend(second.until("chat").await);
    }
    assert_eq!(lines(&heard), ["lost", "last"]);
}

#[tokio::test]
async fn sessions_count_as_connections() {
    let server = TestServer::with(|config| config.limits.connections_per_address = 1).await;
    let ada = Poller::open(&server, "Ada").await;
    server.until_metric("satsuma_connections", 1.0).await;
    let bob = Person::log_in(&server, "Bob").await;
    let refused = answer(from_page(&server, ENDPOINT, &bob)).await;
    assert_eq!(status(&refused), 500, "a stock client comes back later");
    // An unreadable frame ends the session of its sender, whose next one finds its place free.
    assert_eq!(ada.post("[1]").await, 200);
    eventually("a session is opened again".to_owned(), async || ada.poll().await["status"] == 410).await;
    server.until_metric("satsuma_connections", 1.0).await;
}

#[tokio::test]
async fn drain_answers_the_waiting_poll() {
    let server = TestServer::start().await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let ada = Poller::open(&server, "Ada").await;
    ada.join("r", Some("ada-1")).await;
    bob.say(json!({"type": "chat", "message": "hi"})).await;
    ada.until("chat").await;
    let request = ada.request(&Method::GET);
    let mut poll = JoinSet::new();
    poll.spawn(polled(request));
    // The poll has come once it has confirmed the message.
    eventually("nothing waits for Ada".to_owned(), async || {
        let view = server.admin_get("/admin/rooms/r").await.json();
        let members = view["members"].as_array().unwrap();
        members.iter().any(|member| member["id"] == "ada-1" && member["queuedBytes"] == 0)
    })
    .await;
    server.stop().await;
    assert_eq!(poll.join_next().await.unwrap().unwrap()["status"], 410);
}

/// One network's posts would fill the memory for messages that arrive, and more would wait for it for ever.
#[tokio::test]
async fn slow_bodies_end_in_time() {
    let server = TestServer::start().await;
    let ada = Poller::open(&server, "Ada").await;
    let endless = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let request = ada.request(&Method::POST).header("content-type", "application/x-ndjson");
    let posted = request.body(reqwest::Body::wrap_stream(endless));
    let (slow, polled) = tokio::join!(
        async { posted.timeout(2 * PATIENCE).send().await.unwrap().text().await.unwrap() },
        ada.poll(),
    );
    assert_eq!(slow, r#"{"status":408}"#);
    assert_eq!(polled["status"], 204, "polls are answered meanwhile");
}
