//! The assistant in the chat, against a stand-in for a model that streams, hangs, breaks off and floods.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::stream;
use satsuma::config::{Config, ModeratorDefault, Optional};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

use crate::client::{Ask, Client};
use crate::harness::{Person, TestServer, eventually, logged};

const TOKEN: &str = "the-assistants-token";

type Chunks = UnboundedReceiver<io::Result<Bytes>>;

/// A stand-in for a model's API.
pub struct Model {
    url: String,
    seen: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    answers: UnboundedSender<Chunks>,
    _task: JoinSet<()>,
}

/// The stream of one answer, which the test sends; the stream ends when it is dropped.
pub struct Answer(UnboundedSender<io::Result<Bytes>>);

#[derive(Clone)]
struct Stage {
    seen: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    answers: Arc<tokio::sync::Mutex<UnboundedReceiver<Chunks>>>,
}

impl Model {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (answers, received) = mpsc::unbounded_channel();
        let seen = Arc::default();
        let stage = Stage { seen: Arc::clone(&seen), answers: Arc::new(received.into()) };
        let app = Router::new().route("/v1/chat/completions", post(complete)).with_state(stage);
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, seen, answers, _task: task }
    }

    pub fn configure(&self, config: &mut Config) {
        config.assistant.url = Optional(Some(self.url.parse().unwrap()));
        config.assistant.model = Optional(Some("a-model".to_owned()));
        config.assistant.token = Optional(Some(TOKEN.into()));
    }

    /// Prepares the answer to the next request, or to one that waits for it.
    pub fn answer(&self) -> Answer {
        let (sender, chunks) = mpsc::unbounded_channel();
        self.answers.send(chunks).unwrap();
        Answer(sender)
    }

    fn seen(&self) -> Vec<(HeaderMap, Value)> {
        self.seen.lock().unwrap().clone()
    }
}

async fn complete(State(stage): State<Stage>, headers: HeaderMap, body: Bytes) -> Response {
    stage.seen.lock().unwrap().push((headers, serde_json::from_slice(&body).unwrap()));
    let chunks = stage.answers.lock().await.recv().await.unwrap();
    let body = stream::unfold(chunks, |mut chunks| async move { Some((chunks.recv().await?, chunks)) });
    ([("content-type", "text/event-stream")], Body::from_stream(body)).into_response()
}

impl Answer {
    fn raw(&self, bytes: impl Into<Bytes>) -> bool {
        self.0.send(Ok(bytes.into())).is_ok()
    }

    pub fn text(&self, text: &str) -> bool {
        self.raw(format!("data: {}\n\n", json!({"choices": [{"delta": {"content": text}}]})))
    }

    pub fn done(self) {
        self.raw("data: [DONE]\n\n");
    }
}

async fn server(model: &Model, edit: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::with(|config| {
        model.configure(config);
        edit(config);
    })
    .await
}

async fn ask(client: &mut Client, question: &str) {
    client.say(json!({"type": "chat", "message": format!("@ai {question}")})).await;
}

/// Waits for the end of an answer, and returns its text.
async fn answer(client: &mut Client) -> String {
    let is_answer = |message: &Value| message["type"] == "chat" && message["from"] == "*assistant";
    client.until(is_answer).await["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn answer_streams_into_the_chat() {
    let model = Model::start().await;
    let server = server(&model, |config| config.assistant.name = "Robot".to_owned()).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    ada.say(json!({"type": "chat", "message": "The sky is red."})).await;
    let stream = model.answer();
    ask(&mut ada, "which colour has the sky?").await;
    let begun = bob.until(|message| message["type"] == "chatUpdate").await;
    assert_eq!(
        (&begun["name"], &begun["message"], &begun["asker"]),
        (&json!("Robot"), &json!(""), &json!(ada.pk()))
    );
    stream.text("Red");
    let grown = bob.until(|message| message["type"] == "chatUpdate").await;
    assert_eq!((&grown["message"], &grown["id"]), (&json!("Red"), &begun["id"]));
    stream.text(", you say.");
    stream.done();
    let ended = bob.until(|message| message["type"] == "chat" && message["from"] == "*assistant").await;
    assert_eq!((&ended["message"], &ended["id"]), (&json!("Red, you say."), &begun["id"]));

    let (headers, body) = model.seen().pop().unwrap();
    assert_eq!(headers["authorization"], format!("Bearer {TOKEN}"));
    let chat = [("user", "Ada: The sky is red."), ("user", "Ada: which colour has the sky?")]
        .map(|(role, content)| json!({"role": role, "content": content}));
    assert_eq!(body["messages"].as_array().unwrap()[1..], chat);
    assert_eq!(
        (&body["model"], &body["stream"], &body["max_tokens"]),
        (&json!("a-model"), &json!(true), &json!(500))
    );

    let mut eve = Client::join(&server, "r", "Eve").await;
    let history = eve.until(|message| message["type"] == "chatHistory").await;
    assert_eq!(history["messages"][2]["message"], "Red, you say.", "it is remembered after its question");
    assert!(!logged().contains(TOKEN));
}

#[tokio::test]
async fn model_that_hangs_or_breaks_off_ends_within_bounds() {
    let model = Model::start().await;
    let server = server(&model, |config| {
        config.assistant.timeout = Duration::from_secs(1);
        config.assistant.answers_per_room = 0;
    })
    .await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    // It accepts the request, and never answers.
    ask(&mut ada, "1").await;
    assert_eq!(answer(&mut ada).await, "I could not answer.");
    // It hangs in the middle.
    let stream = model.answer();
    ask(&mut ada, "2").await;
    stream.text("Well");
    assert_eq!(answer(&mut ada).await, "Well\n[The answer broke off.]");
    // The stream ends without an end.
    let stream = model.answer();
    ask(&mut ada, "3").await;
    stream.text("Well,");
    drop(stream);
    assert_eq!(answer(&mut ada).await, "Well,\n[The answer broke off.]");
    // The connection breaks.
    let stream = model.answer();
    ask(&mut ada, "4").await;
    stream.0.send(Err(io::Error::other("broken"))).unwrap();
    assert_eq!(answer(&mut ada).await, "I could not answer.");
    // It reports an error, whose text is not for the room.
    let stream = model.answer();
    ask(&mut ada, "5").await;
    stream.raw("data: {\"error\":{\"message\":\"quota of account 7\"}}\n\n");
    assert_eq!(answer(&mut ada).await, "I could not answer.");
    // It has nothing to say.
    let stream = model.answer();
    ask(&mut ada, "6").await;
    stream.done();
    assert_eq!(answer(&mut ada).await, "I could not answer.");
    let failed = server.metric(r#"satsuma_assistant_jobs_total{kind="answer",outcome="failed"}"#).await;
    let timed_out = server.metric(r#"satsuma_assistant_jobs_total{kind="answer",outcome="timed_out"}"#).await;
    assert_eq!((failed, timed_out), (4.0, 2.0));
}

#[tokio::test]
async fn model_that_floods_is_cut_off() {
    let model = Model::start().await;
    let server = server(&model, |config| config.assistant.answer_chars = 1000).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    // More text than an answer may have; the rest is not read.
    let stream = model.answer();
    ask(&mut ada, "1").await;
    for _ in 0..300 {
        stream.text(&"🍊".repeat(100));
    }
    let text = answer(&mut ada).await;
    assert_eq!((text.chars().filter(|char| *char == '🍊').count(), text.ends_with(" […]")), (1000, true));
    eventually("the stream is closed".to_owned(), async || stream.0.is_closed()).await;
    // A flood without any text, and one event without an end.
    for flood in [": x\n\n".repeat(500_000), "x".repeat(1 << 20)] {
        let stream = model.answer();
        ask(&mut ada, "2").await;
        stream.text("Well");
        stream.raw(flood);
        assert_eq!(answer(&mut ada).await, "Well\n[The answer broke off.]");
        eventually("the stream is closed".to_owned(), async || stream.0.is_closed()).await;
    }
    // Many tiny pieces become few messages.
    let stream = model.answer();
    ask(&mut ada, "3").await;
    for _ in 0..900 {
        stream.text("x");
    }
    stream.done();
    let (mut updates, mut end) = (0, false);
    while !end {
        let message = ada.next().await;
        updates += usize::from(message["type"] == "chatUpdate");
        end = message["type"] == "chat" && message["from"] == "*assistant";
    }
    assert!(updates < 100, "{updates}");
}

#[tokio::test]
async fn answer_is_stopped_by_who_asked() {
    let model = Model::start().await;
    let server = server(&model, |config| config.moderation.default = ModeratorDefault::Nobody).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let stream = model.answer();
    ask(&mut ada, "1").await;
    stream.text("Beca");
    bob.until(|message| message["type"] == "chatUpdate" && message["message"] == "Beca").await;
    ask(&mut bob, "2").await;
    let error = bob.until(|message| message["type"] == "error").await;
    assert_eq!(error["error"], "the assistant is answering somebody; ask again when it is done");
    bob.say(json!({"type": "stopAnswer"})).await;
    let error = bob.until(|message| message["type"] == "error").await;
    assert_eq!(error["error"], "only who asked and moderators may stop the assistant");
    ada.say(json!({"type": "stopAnswer"})).await;
    assert_eq!(answer(&mut bob).await, "Beca\n[The answer was stopped.]");
    eventually("the request is cancelled".to_owned(), async || stream.0.is_closed()).await;
}

#[tokio::test]
async fn budgets_of_rooms_and_of_the_server_end() {
    let model = Model::start().await;
    let server = server(&model, |config| {
        config.assistant.answers_per_room = 2;
        config.assistant.answers_per_day = 3;
    })
    .await;
    let no_budget = "the assistant has no answers left for now; the limit is a number of answers a day";
    for (room, answers) in [("r", 2), ("s", 1)] {
        let mut ada = Client::join(&server, room, "Ada").await;
        for _ in 0..answers {
            let stream = model.answer();
            ask(&mut ada, "why?").await;
            stream.text("Because.");
            stream.done();
            assert_eq!(answer(&mut ada).await, "Because.");
        }
        ask(&mut ada, "why?").await;
        let error = ada.until(|message| message["type"] == "error").await;
        assert_eq!(error["error"], no_budget, "{room}");
    }
    assert_eq!(model.seen().len(), 3);
}

/// A network without answers must not use up those of rooms that others start later.
#[tokio::test]
async fn refused_question_costs_a_room_nothing() {
    let model = Model::start().await;
    let server = server(&model, |config| {
        config.assistant.answers_per_room = 2;
        config.assistant.answers_per_network = 1;
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        config.room.tick = Duration::from_millis(50);
    })
    .await;
    let proxied = |person: &Person, room: &str, network: &str| {
        Ask::room(room).by(person).header("x-forwarded-for", network)
    };
    let eve = Person::log_in(&server, "Eve").await;
    for (room, is_answered) in [("r", true), ("s", false)] {
        let mut client = proxied(&eve, room, "192.0.2.1").open(&server).await;
        client.until_state(|_| true).await;
        for _ in 0..3 {
            let stream = is_answered.then(|| model.answer());
            ask(&mut client, "why?").await;
            if let Some(stream) = stream {
                stream.text("Because.");
                stream.done();
                answer(&mut client).await;
                break;
            }
            client.until(|message| message["type"] == "error").await;
        }
        client.say(json!({"type": "userLeft"})).await;
        client.closed().await;
    }
    eventually("the meeting is over".to_owned(), async || {
        server.admin_get("/admin/rooms/s").await.status == 404
    })
    .await;
    let ada = Person::log_in(&server, "Ada").await;
    let mut client = proxied(&ada, "s", "192.0.2.2").open(&server).await;
    client.until_state(|_| true).await;
    let stream = model.answer();
    ask(&mut client, "why?").await;
    stream.text("Because.");
    stream.done();
    assert_eq!(answer(&mut client).await, "Because.");
}

#[tokio::test]
async fn restart_ends_an_answer() {
    let model = Model::start().await;
    let server = server(&model, |_| {}).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let stream = model.answer();
    ask(&mut ada, "1").await;
    stream.text("Well");
    ada.until(|message| message["type"] == "chatUpdate" && message["message"] == "Well").await;
    let server = server.restart().await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let history = bob.until(|message| message["type"] == "chatHistory").await;
    assert_eq!(history["messages"][1]["message"], "Well\n[The answer broke off.]");
}

#[tokio::test]
async fn without_a_model_a_question_is_a_message() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    ask(&mut ada, "why?").await;
    let messages = ada.echo().await;
    assert!(messages.iter().all(|message| message["type"] != "chatUpdate" && message["type"] != "error"));
}
