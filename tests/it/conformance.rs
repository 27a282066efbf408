//! Plays the recorded sessions of `tests/conformance` as `run.js` does, and compares the results.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use satsuma::config::Config;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use uuid::Uuid;

use crate::client::{Ask, Client, Received};
use crate::harness::{Person, TestServer};
use crate::memory_engine::MemoryNetwork;

/// Divisor of the recordings' times in the fast round.
///
/// A step's usual wait is 500 ms, and the answers must fit into the rest of it.
const FAST: u32 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_sessions_pass_in_real_time() {
    play_all(vec![TestServer::start().await], 1, |ask| ask).await;
}

/// Every other socket is at another node than the one that owns the room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_sessions_pass_over_two_nodes() {
    let network = MemoryNetwork::default();
    let (first, _) = TestServer::node(&network, None, scaled).await;
    let (second, _) = TestServer::node(&network, Some(&first), scaled).await;
    play_all(vec![first, second], FAST, |ask| ask).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_sessions_pass_with_scaled_times() {
    play_all(vec![fast_server().await], FAST, |ask| ask).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_sessions_pass_compressed() {
    play_all(vec![fast_server().await], FAST, Ask::compressing).await;
}

async fn fast_server() -> TestServer {
    TestServer::with(scaled).await
}

fn scaled(config: &mut Config) {
    config.room.tick /= FAST;
    config.room.heartbeat_timeout /= FAST;
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    name: String,
    #[serde(rename = "about")]
    _about: String,
    room: Option<String>,
    steps: Vec<Step>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Step {
    connect: Option<Connect>,
    send: Option<Send>,
    sends: Vec<Send>,
    close: Option<CloseWith>,
    terminate: Option<Who>,
    beat: Vec<String>,
    wait: Option<u64>,
    expect: BTreeMap<String, Seen>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Connect {
    r#as: String,
    name: Option<String>,
    pk: Option<bool>,
    same_pk_as: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    r#as: String,
    msg: Option<Value>,
    raw: Option<String>,
    bytes: Option<Vec<u8>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CloseWith {
    r#as: String,
    code: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Who {
    r#as: String,
}

/// A client's observations in a step: its events in order, and the last of its snapshots.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Seen {
    events: Vec<Value>,
    room_state: Option<Value>,
}

fn scenarios() -> Vec<Scenario> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let files = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let recordings = files.filter(|path| path.extension().is_some_and(|end| end == "json"));
    let read = |path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    recordings.map(read).collect()
}

async fn play_all(servers: Vec<TestServer>, pace: u32, ask: fn(Ask) -> Ask) {
    let scenarios = scenarios();
    assert!(!scenarios.is_empty(), "there are no recordings in tests/conformance");
    let servers = std::sync::Arc::new(servers);
    let mut plays = JoinSet::new();
    for scenario in scenarios {
        let servers = servers.clone();
        plays.spawn(async move { Player::new(&servers, &scenario, pace, ask).play(&scenario).await });
    }
    let differences: Vec<String> = plays.join_all().await.into_iter().flatten().collect();
    assert!(differences.is_empty(), "not as recorded:\n{}", differences.join("\n"));
}

struct Player<'a> {
    /// The servers that clients connect to, in turn.
    servers: &'a [TestServer],
    connects: usize,
    pace: u32,
    /// The request for a socket.
    ask: fn(Ask) -> Ask,
    room: String,
    people: BTreeMap<String, Person>,
    /// In the order of their first appearance, in which their ids are replaced.
    clients: Vec<Played>,
    meetings: Vec<String>,
}

struct Played {
    name: String,
    pk: Option<String>,
    socket: Option<Client>,
    /// Events of the client that no server sent.
    noted: Vec<Value>,
}

impl<'a> Player<'a> {
    fn new(servers: &'a [TestServer], scenario: &Scenario, pace: u32, ask: fn(Ask) -> Ask) -> Self {
        let random = Uuid::new_v4().simple().to_string();
        let room = scenario.room.as_deref().unwrap_or("conf-*").replacen('*', &random, 1);
        let (people, clients, meetings) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { servers, connects: 0, pace, ask, room, people, clients, meetings }
    }

    /// Plays every step, and returns the differences from the recording.
    async fn play(mut self, scenario: &Scenario) -> Vec<String> {
        let mut differences = Vec::new();
        for (number, step) in scenario.steps.iter().enumerate() {
            self.act(step).await;
            self.wait(step).await;
            let mut wanted = step.expect.clone();
            for (client, got) in self.collect() {
                let wanted = wanted.remove(&client).unwrap_or_default();
                if got != wanted {
                    let name = &scenario.name;
                    differences.push(format!(
                        "scenario {name}, step {number}, client {client}\n  want {}\n  got  {}",
                        wanted.shown(),
                        got.shown(),
                    ));
                }
            }
            assert!(wanted.is_empty(), "{} expects something of unknown clients", scenario.name);
        }
        differences
    }

    async fn act(&mut self, step: &Step) {
        if let Some(connect) = &step.connect {
            self.connect(connect).await;
        }
        for send in step.send.iter().chain(&step.sends) {
            let message = self.message(send);
            self.socket(&send.r#as).say_raw(message).await;
        }
        if let Some(CloseWith { r#as, code }) = &step.close {
            self.socket(r#as).say_close(*code).await;
        }
        if let Some(Who { r#as }) = &step.terminate {
            let client = self.client(r#as);
            client.socket.take().unwrap().drop_tcp().await;
            // The JavaScript library's event for a connection that it ended itself.
            client.noted.push(json!({"close": 1006, "reason": ""}));
        }
    }

    async fn connect(&mut self, connect: &Connect) {
        let Connect { r#as, name, pk, same_pk_as } = connect;
        let pk = match same_pk_as {
            Some(other) => self.client(other).pk.clone(),
            None => pk.unwrap_or(true).then(|| self.own_pk(r#as)),
        };
        let mut ask = (self.ask)(Ask::room(&self.room));
        if let Some(pk) = &pk {
            ask = ask.pk(pk);
        }
        if let Some(name) = name {
            if !self.people.contains_key(name) {
                self.people.insert(name.clone(), Person::log_in(&self.servers[0], name).await);
            }
            ask = ask.by(&self.people[name]);
        }
        let server = &self.servers[self.connects % self.servers.len()];
        self.connects += 1;
        let (socket, noted) = match ask.try_open(server).await {
            Ok(socket) => (Some(socket), json!({"open": true})),
            Err(status) => (None, json!({"refused": status})),
        };
        self.clients.retain(|client| client.name != *r#as);
        self.clients.push(Played { name: r#as.clone(), pk, socket, noted: vec![noted] });
    }

    fn own_pk(&self, client: &str) -> String {
        let room = self.room.replace(|char: char| !char.is_ascii_alphanumeric(), "");
        format!("{client}0000000-0000-4000-8000-{}", &room[room.len().saturating_sub(12)..])
    }

    fn message(&self, send: &Send) -> Message {
        match (&send.msg, &send.raw, &send.bytes) {
            (Some(message), None, None) => {
                let mut text = message.to_string();
                for client in &self.clients {
                    text = text
                        .replace(&format!("$pk({})", client.name), client.pk.as_deref().unwrap_or("none"));
                }
                Message::text(text)
            }
            (None, Some(raw), None) => Message::text(raw.as_str()),
            (None, None, Some(bytes)) => Message::Binary(Bytes::from(bytes.clone())),
            _ => panic!("a message is one of msg, raw and bytes"),
        }
    }

    async fn wait(&mut self, step: &Step) {
        let wait = Duration::from_millis(step.wait.unwrap_or(500)) / self.pace;
        if step.beat.is_empty() {
            return pause(wait).await;
        }
        let end = now() + wait;
        while now() < end {
            for client in &step.beat {
                self.socket(client).say(json!({"type": "heartbeat"})).await;
            }
            sleep_until(end.min(now() + Duration::from_secs(3) / self.pace)).await;
        }
    }

    fn collect(&mut self) -> Vec<(String, Seen)> {
        let mut all = Vec::new();
        for place in 0..self.clients.len() {
            let client = &mut self.clients[place];
            let received = client.socket.as_mut().map(Client::received_so_far).unwrap_or_default();
            let mut seen = Seen { events: std::mem::take(&mut client.noted), room_state: None };
            let name = client.name.clone();
            for received in received {
                let mut message = match received {
                    Received::Text(text) => match serde_json::from_str(&text) {
                        Ok(message) => self.normal(message),
                        Err(_) => json!({"raw": text}),
                    },
                    Received::Binary(bytes) => json!({"binary": bytes}),
                    Received::Closed(code, reason) => json!({"close": code, "reason": reason}),
                };
                if message["type"] == "roomState" {
                    seen.room_state = Some(message["state"].take());
                } else {
                    seen.events.push(message);
                }
            }
            all.push((name, seen));
        }
        all
    }

    /// Replaces values that differ in every play by names.
    fn normal(&mut self, mut message: Value) -> Value {
        if message["type"] == "error" && message["error"].is_string() {
            message["error"] = json!("<text>");
        }
        self.name_values(&mut message);
        message
    }

    fn name_values(&mut self, value: &mut Value) {
        match value {
            Value::Array(values) => values.iter_mut().for_each(|value| self.name_values(value)),
            Value::Object(fields) => {
                for (key, value) in fields {
                    match value {
                        Value::String(id) if key == "meetingId" => {
                            let place = self.meetings.iter().position(|seen| seen == id);
                            let place = place.unwrap_or_else(|| {
                                self.meetings.push(id.clone());
                                self.meetings.len() - 1
                            });
                            *id = format!("<meeting {place}>");
                        }
                        value => self.name_values(value),
                    }
                }
            }
            Value::String(text) => {
                for client in &self.clients {
                    if let Some(pk) = &client.pk {
                        *text = text.replace(pk.as_str(), &format!("<pk {}>", client.name));
                    }
                }
            }
            _ => {}
        }
    }

    fn client(&mut self, name: &str) -> &mut Played {
        self.clients.iter_mut().find(|client| client.name == name).unwrap()
    }

    fn socket(&mut self, name: &str) -> &mut Client {
        self.client(name).socket.as_mut().unwrap()
    }
}

impl Seen {
    fn shown(&self) -> String {
        let state = self.room_state.as_ref().map(Value::to_string);
        format!("{} and {}", json!(self.events), state.as_deref().unwrap_or("no roomState"))
    }
}

/// Waits in slices, so that a machine that stalls for a moment loses one slice and not the whole wait:
/// the expected messages have the other slices to arrive in.
async fn pause(wait: Duration) {
    const SLICES: u32 = 8;
    for _ in 0..SLICES {
        sleep(wait / SLICES).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "the recordings are played in their own time")]
fn now() -> Instant {
    Instant::now()
}
