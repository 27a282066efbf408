//! The AI participant over the embedded media server: it sends audio, and receives that of its controller.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use satsuma::config::Optional;
use serde_json::{Value, json};
use str0m::media::Mid;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::client::{Client, ids_of, user_of};
use crate::harness::{Answer, Person, TestServer, eventually};
use crate::media_session::{ApiClient, MediaSession};
use crate::peer::{MICROPHONE, Net, Peer};

const TOKEN: &str = "the-models-token";

/// A stand-in for the AI service: answers an offer, and sends audio.
struct Model {
    url: String,
    calls: Calls,
    _task: JoinSet<()>,
}

type Calls = Arc<Mutex<Vec<Arc<Call>>>>;

/// A session of the AI service.
struct Call {
    peer: Peer,
    /// The transceiver on which it sends and receives.
    mid: Mid,
}

impl Model {
    async fn start() -> Self {
        let calls = Calls::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/model", listener.local_addr().unwrap());
        let routes = Router::new().route("/model", post(speak)).with_state(calls.clone());
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, calls, _task: task }
    }

    /// Configures a server to use this service.
    async fn server(&self) -> TestServer {
        TestServer::with(|config| {
            config.ai.model_endpoint = Optional(Some(self.url.parse().unwrap()));
            config.ai.api_token = Optional(Some(TOKEN.into()));
        })
        .await
    }

    /// The newest session.
    fn last(&self) -> Arc<Call> {
        self.calls.lock().unwrap().last().expect("somebody was called").clone()
    }
}

async fn speak(State(calls): State<Calls>, headers: HeaderMap, offer: String) -> (StatusCode, String) {
    assert_eq!(headers["authorization"], format!("Bearer {TOKEN}"));
    assert!(!offer.contains("a=ice-lite"), "a peer behind a wall of its own needs our checks: {offer}");
    let peer = Peer::new(Net::Udp).await;
    let answer = peer.answer(&offer).await;
    let mid = the_mid(&answer);
    peer.say(mid, "I am an AI").await;
    calls.lock().unwrap().push(Arc::new(Call { peer, mid }));
    (StatusCode::CREATED, answer)
}

/// The transceiver of a description that has one.
fn the_mid(sdp: &str) -> Mid {
    let [mid] = sdp.lines().filter_map(|line| line.strip_prefix("a=mid:")).collect::<Vec<_>>()[..] else {
        panic!("not one section: {sdp}");
    };
    Mid::from(mid)
}

/// Invites the AI; returns its session.
async fn invite(client: &mut Client) -> String {
    client.say(json!({"type": "enableAi"})).await;
    let state = client.until_state(|state| state["ai"]["connectionPending"] == true).await;
    assert_eq!(state["ai"]["enabled"], false);
    let state = client.until_state(|state| state["ai"]["connectionPending"] == false).await;
    assert_eq!(state["ai"], json!({"enabled": true, "connectionPending": false}));
    let audio = user_of(&state, "ai")["tracks"]["audio"].as_str().unwrap();
    audio.strip_suffix("/ai-generated-voice").unwrap().to_owned()
}

async fn sessions_of(server: &TestServer, owner: &str) -> Vec<Value> {
    let report: Answer = server.admin_get("/admin/sfu").await;
    let mut report = report.json();
    let Value::Array(sessions) = report["sessions"].take() else { panic!("{report}") };
    sessions.into_iter().filter(|session| session["owner"] == owner).collect()
}

#[tokio::test]
async fn ai_exchanges_audio_and_leaves() {
    let model = Model::start().await;
    let server = model.server().await;
    let person = Person::log_in(&server, "Ada").await;
    let mut ada = crate::client::Ask::room("r").by(&person).pk("ada").open(&server).await;
    let media = MediaSession::open(&server, ApiClient::for_cookie(person.cookie()), Net::Udp).await;
    let bob = Person::log_in(&server, "Bob").await;
    let bob_media = MediaSession::open(&server, ApiClient::for_cookie(bob.cookie()), Net::Udp).await;
    let mut bob = crate::client::Ask::room("r").by(&bob).pk("bob").open(&server).await;
    let (own, _) = media.publish(&[("mic", MICROPHONE)]).await;
    media.peer.say(own[0], "Ada asks").await;
    let (of_bob, _) = bob_media.publish(&[("mic", MICROPHONE)]).await;
    bob_media.peer.say(of_bob[0], "Bob asks").await;
    tokio::join!(media.peer.until_connected(), bob_media.peer.until_connected());

    let session = invite(&mut ada).await;
    let name = "ai-generated-voice";
    let voice = media.subscribe(&session, name).await;
    media.peer.until_received(voice, "I am an AI").await;
    let [of_ai] = &sessions_of(&server, "ai").await[..] else { panic!("not one session of an AI") };
    assert_eq!((&of_ai["id"], &of_ai["state"]), (&json!(session), &json!("connected")));

    // It receives no audio until a member requests control, and then that one's, on its only transceiver.
    let call = model.last();
    let (ai, ear) = (&call.peer, call.mid);
    assert_eq!(ai.received(ear, "Ada asks") + ai.received(ear, "Bob asks"), 0);
    let request = |session: &str| json!({"type": "requestAiControl", "track": {"sessionId": session, "trackName": "mic"}});
    ada.say(request(&media.session)).await;
    let pk = ada.pk();
    ada.until_state(|state| state["ai"]["controllingUser"] == *pk).await;
    ai.until_received(ear, "Ada asks").await;
    assert_eq!(ai.received(ear, "Bob asks"), 0);
    bob.say(request(&bob_media.session)).await;
    let pk = bob.pk();
    bob.until_state(|state| state["ai"]["controllingUser"] == *pk).await;
    ai.until_received(ear, "Bob asks").await;
    media.peer.until_received(voice, "I am an AI").await;

    ada.say(json!({"type": "disableAi"})).await;
    let state = ada.until_state(|state| state["ai"] == json!({"enabled": false})).await;
    assert_eq!(ids_of(&state).len(), 2);
    server.until_metric(r#"satsuma_ai_jobs_total{kind="close",outcome="done"}"#, 1.0).await;
    let pull = json!({"tracks": [{"location": "remote", "sessionId": session, "trackName": name}]});
    let gone = bob_media.call(axum::http::Method::POST, "/tracks/new", &pull).await;
    assert_eq!(gone["tracks"][0]["errorCode"], "not_found_track_error");
    eventually("the AI's session carries nothing".to_owned(), async || {
        let sessions = sessions_of(&server, "ai").await;
        sessions.iter().all(|session| session["publishes"] == 0 && session["subscribes"] == 0)
    })
    .await;
}

#[tokio::test]
async fn ai_is_lost_on_restart_and_can_be_reinvited() {
    let model = Model::start().await;
    let server = model.server().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let before = invite(&mut ada).await;
    model.last().peer.until_connected().await;
    let ask = ada.ask();
    let server = server.restart().await;
    let mut ada = ask.open(&server).await;
    let state = ada.until_state(|_| true).await;
    assert_eq!((&state["ai"]["enabled"], state["ai"]["error"].is_string()), (&json!(false), true), "{state}");
    assert_eq!(ids_of(&state), [ada.pk()]);
    assert_ne!(invite(&mut ada).await, before);
    model.last().peer.until_connected().await;
}
