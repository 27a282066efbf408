//! A scripted stand-in for Cloudflare's media API and TURN service, and for the AI's model.
//!
//! It records every request, checks the secrets, and answers as documented, unless a test scripted
//! another answer for the next request of a path.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response};
use futures_util::stream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use satsuma::config::{Config, HttpUrl, Optional};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::harness::eventually;

pub const SECRET: &str = "the-apps-secret";
pub const TURN_TOKEN: &str = "the-turn-token";
pub const MODEL_TOKEN: &str = "the-models-token";

/// A recorded request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    /// The path and the query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// A scripted answer.
pub enum Script {
    /// This status and body, with a content type of JSON.
    Answer(u16, String),
    /// The same with further headers.
    AnswerWith(u16, Vec<(&'static str, &'static str)>, String),
    /// The usual answer, once the test sends (or drops) its signal.
    After(oneshot::Receiver<()>),
    /// No answer.
    Silence,
    /// The connection is closed before the answer.
    Drop,
    /// The connection is closed in the middle of the answer.
    DropInBody,
    /// An endless body.
    Endless,
    /// 200 with the chunks that the test sends.
    Chunks(mpsc::UnboundedReceiver<Bytes>),
}

/// The stand-in.
pub struct Cloud {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    /// The end of a path, a part of the body, and the answer.
    scripts: VecDeque<(String, String, Script)>,
    /// The m-lines that each session negotiated, by their `mid`.
    sessions: BTreeMap<String, Vec<String>>,
    connections: usize,
}

impl Cloud {
    pub async fn start() -> Self {
        let mut cloud = Self::down().await;
        cloud.come_up().await;
        cloud
    }

    /// An address without a listener.
    pub async fn down() -> Self {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        Self { address, state: Arc::default(), tasks: JoinSet::new() }
    }

    pub async fn come_up(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.tasks.spawn(serve(listener, self.state.clone()));
    }

    /// Points a server's settings at this stand-in, with everything configured.
    pub fn configure(&self, config: &mut Config) {
        config.calls.api_url = self.url("/v1");
        config.calls.app_id = Optional(Some("app".to_owned()));
        config.calls.app_secret = Optional(Some(SECRET.into()));
        config.turn.service_id = Optional(Some("key".to_owned()));
        config.turn.service_token = Optional(Some(TURN_TOKEN.into()));
        config.ai.model_endpoint = Optional(Some(self.url("/model")));
        config.ai.api_token = Optional(Some(MODEL_TOKEN.into()));
    }

    pub fn url(&self, path: &str) -> HttpUrl {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    /// Scripts the next request whose path ends in `path`.
    pub fn script(&self, path: &str, script: Script) {
        self.script_body(path, "", script);
    }

    /// Scripts the next request whose path ends in `path` and whose body holds `part`.
    pub fn script_body(&self, path: &str, part: &str, script: Script) {
        self.state.lock().unwrap().scripts.push_back((path.to_owned(), part.to_owned(), script));
    }

    /// Every request until now, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    /// The requests whose path ends in `path`.
    pub fn seen_at(&self, path: &str) -> Vec<Seen> {
        self.seen()
            .into_iter()
            .filter(|seen| seen.target.split('?').next().unwrap().ends_with(path))
            .collect()
    }

    /// Number of connections opened.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    /// Waits for this many requests whose path ends in `path`.
    #[track_caller]
    pub fn until_seen(&self, path: &str, count: usize) -> impl Future<Output = ()> {
        eventually(format!("{count} requests came for {path}"), async move || {
            self.seen_at(path).len() >= count
        })
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        state.lock().unwrap().connections += 1;
        let state = state.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(state.clone(), request));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let find = |holds: &dyn Fn(&str) -> bool| {
        let scripts = &mut state.lock().unwrap().scripts;
        let place = scripts.iter().position(|(end, part, _)| path.ends_with(end) && holds(part))?;
        scripts.remove(place).map(|(_, _, script)| script)
    };
    let mut script = find(&str::is_empty);
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    if script.is_none() {
        script = find(&|part| String::from_utf8_lossy(&body).contains(part));
    }
    let seen = Seen { method: head.method, target: head.uri.to_string(), headers: head.headers, body };
    state.lock().unwrap().seen.push(seen.clone());
    let (status, headers, body) = match script {
        Some(Script::Answer(status, body)) => (status, vec![], body.into()),
        Some(Script::AnswerWith(status, headers, body)) => (status, headers, body.into()),
        Some(Script::Silence) => std::future::pending().await,
        Some(Script::Drop) => return Err(io::Error::other("as scripted")),
        Some(Script::DropInBody) => {
            let parts = [Ok(Bytes::from("{\"session")), Err(io::Error::other("as scripted"))];
            (200, vec![], Body::from_stream(stream::iter(parts)))
        }
        Some(Script::Endless) => {
            let chunk = Bytes::from(vec![b' '; 1 << 16]);
            (200, vec![], Body::from_stream(stream::repeat_with(move || io::Result::Ok(chunk.clone()))))
        }
        Some(Script::Chunks(mut chunks)) => {
            let chunks =
                stream::poll_fn(move |context| chunks.poll_recv(context).map(|c| c.map(io::Result::Ok)));
            (200, vec![], Body::from_stream(chunks))
        }
        Some(Script::After(gate)) => {
            let _ = gate.await;
            usual(&state, &seen)
        }
        None => usual(&state, &seen),
    };
    let mut response = Response::builder().status(status).header("content-type", "application/json");
    for (name, value) in headers {
        response.headers_mut().unwrap().insert(name, HeaderValue::from_static(value));
    }
    Ok(response.body(body).unwrap())
}

/// The documented answer, and the refusal of a wrong secret.
fn usual(state: &Mutex<State>, seen: &Seen) -> (u16, Vec<(&'static str, &'static str)>, Body) {
    let (path, _) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
    let secret = match path {
        "/model" => MODEL_TOKEN,
        path if path.starts_with("/v1/turn/") => TURN_TOKEN,
        _ => SECRET,
    };
    if seen.header("authorization") != format!("Bearer {secret}") {
        return (401, vec![], r#"{"errorCode":"unauthorized","errorDescription":"wrong secret"}"#.into());
    }
    let last: Vec<&str> = path.rsplitn(3, '/').collect();
    let (status, json) = match (seen.method.as_str(), &last[..]) {
        ("POST", ["new", "sessions", _]) => {
            let mut state = state.lock().unwrap();
            let session = format!("{:032x}", state.sessions.len() + 1);
            state.sessions.insert(session.clone(), Vec::new());
            (201, json!({"sessionId": session}))
        }
        ("POST", ["new", "tracks", above]) => {
            let mut state = state.lock().unwrap();
            let session = above.rsplit('/').next().unwrap();
            let sections = state.sessions.entry(session.to_owned()).or_default();
            match serde_json::from_slice::<Value>(&seen.body) {
                Ok(request) if request["tracks"].is_array() => (200, new_tracks(&request, sections)),
                _ => (400, json!({"errorCode": "decoding_error", "errorDescription": "no tracks"})),
            }
        }
        ("PUT", ["close", "tracks", _]) => {
            let request = seen.json();
            let answer = request["sessionDescription"]["sdp"].as_str().map(answer_to);
            (
                200,
                json!({"requiresImmediateRenegotiation": false, "tracks": request["tracks"], "sessionDescription": answer}),
            )
        }
        ("PUT", ["update", "tracks", _]) => {
            (200, json!({"requiresImmediateRenegotiation": false, "tracks": seen.json()["tracks"]}))
        }
        ("GET", [_, "sessions", _]) => (200, json!({"tracks": [], "dataChannels": []})),
        ("POST", ["generate-ice-servers", ..]) => (
            201,
            json!({"iceServers": [{"urls": ["stun:stun.example:3478"]},
                                  {"urls": ["turn:turn.example:3478"], "username": "u", "credential": "c"}]}),
        ),
        ("POST", ["model", ..]) => {
            let answer = answer_to(std::str::from_utf8(&seen.body).unwrap());
            return (
                201,
                vec![("content-type", "application/sdp")],
                answer["sdp"].as_str().unwrap().to_owned().into(),
            );
        }
        _ => (200, json!({})),
    };
    (status, vec![], json.to_string().into())
}

/// Answers a request for tracks of a session with these negotiated m-lines.
fn new_tracks(request: &Value, sections: &mut Vec<String>) -> Value {
    let tracks = request["tracks"].as_array().unwrap();
    let is_pull = tracks[0]["location"] == "remote";
    let mut response = tracks.clone();
    for track in &mut response {
        let known = track["mid"].as_str().map(str::to_owned);
        let mid = known.unwrap_or_else(|| (sections.len()).to_string());
        // "#name" refers to an existing transceiver.
        if !mid.starts_with('#') && !sections.contains(&mid) {
            sections.push(mid.clone());
        }
        track["mid"] = mid.into();
        track.as_object_mut().unwrap().remove("location");
    }
    let into_own = response.iter().all(|track| track["mid"].as_str().unwrap().starts_with('#'));
    let offered = request["sessionDescription"]["sdp"].as_str();
    let (description, renegotiate) = match offered {
        Some(offer) => (answer_to(offer), false),
        None if is_pull && into_own => (Value::Null, false),
        None => (offer_of(sections), true),
    };
    json!({"requiresImmediateRenegotiation": renegotiate, "tracks": response, "sessionDescription": description})
}

fn answer_to(offer: &str) -> Value {
    json!({"type": "answer", "sdp": offer.replace("a=sendonly", "a=recvonly")})
}

fn offer_of(sections: &[String]) -> Value {
    let mut sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n".to_owned();
    for mid in sections {
        sdp.push_str(&format!(
            "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=sendonly\r\n"
        ));
    }
    json!({"type": "offer", "sdp": sdp})
}
