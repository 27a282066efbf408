//! A server in which two browsers meet: run `cargo run -p satsuma-sfu --example embed`, open
//! <http://127.0.0.1:8080> twice, and allow camera and microphone.
//!
//! The page publishes its tracks and subscribes to everybody else's by the Calls API, which is mounted at `/calls/`.
//! A real server also logs people in, and lets them call only their own sessions.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use satsuma_sfu::api::{ApiRequest, CallTarget, Caller, PersonId, SessionId};
use satsuma_sfu::request::{Reply, Request};
use satsuma_sfu::{IceSecret, Reach, SfuHandle, SfuMetrics, SfuSettings};
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> io::Result<()> {
    // Browsers give a page camera and microphone on this machine, elsewhere only with HTTPS.
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    println!("open http://{} twice", listener.local_addr()?);
    serve(listener, ctrl_c()).await
}

async fn ctrl_c() {
    // Without signals the server runs until it is killed.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Serves page and media until `stop`.
///
/// # Errors
/// The media port cannot be bound, or the media thread ended by a panic.
pub async fn serve(listener: TcpListener, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let settings = SfuSettings {
        listen: ([127, 0, 0, 1], 0).into(),
        reach: Reach::Loopback,
        ..SfuSettings::new(IceSecret::new(b"a secret of this server, the same across restarts"))
    };
    let (sfu, thread) = satsuma_sfu::start(settings, SfuMetrics::default()).await?;
    let app = App { sfu: sfu.clone(), sessions: Arc::default() };
    let router = Router::new()
        .route("/", get(Html(include_str!("embed.html"))))
        .route("/tracks", get(tracks))
        .route("/calls/{*path}", any(call))
        .with_state(app);
    axum::serve(listener, router).with_graceful_shutdown(stop).await?;
    // Peers are notified that their sessions ended.
    let _ = sfu.end_all().await;
    thread.join().await.map_err(io::Error::other)
}

#[derive(Clone)]
struct App {
    sfu: SfuHandle,
    /// Sessions of all pages; those that ended are removed when the tracks are listed.
    sessions: Arc<Mutex<Vec<SessionId>>>,
}

/// `/calls/…`: a call of the Calls API, whose path continues as at Cloudflare.
async fn call(
    State(app): State<App>,
    method: Method,
    Path(path): Path<String>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Response {
    let Some(target) = CallTarget::parse(&method, &path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let opens = target == CallTarget::NewSession;
    // The limits per person and per network apply to these.
    let (caller, network) = (Caller::Person(PersonId::new("somebody")), None);
    let (status, text) = app.sfu.serve(ApiRequest { target, query, body, caller, network }).await;
    if opens && status.is_success() {
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        let session = answer["sessionId"].as_str().and_then(|id| SessionId::parse(id).ok());
        app.sessions.lock().unwrap_or_else(PoisonError::into_inner).extend(session);
    }
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}

/// `/tracks`: the published tracks of all sessions, in the form in which the API takes subscriptions.
async fn tracks(State(app): State<App>) -> Json<Vec<Value>> {
    let sessions = app.sessions.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut all = Vec::new();
    for session in sessions {
        match app.sfu.ask(Request::Tracks { session: session.clone() }).await {
            Ok(Reply::Session(tracks)) => {
                let own = tracks.iter().filter(|track| track.publisher.is_none());
                all.extend(own.map(|track| json!({"sessionId": session, "trackName": track.name})));
            }
            _ => app.sessions.lock().unwrap_or_else(PoisonError::into_inner).retain(|it| *it != session),
        }
    }
    Json(all)
}
