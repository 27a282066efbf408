//! A stand-in for the webhook: records every request, and sends scripted answers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::harness::PATIENCE;

/// The answer to a request.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    /// With this status.
    Status(u16),
    /// With this status and `Retry-After`.
    RetryAfter(u16, &'static str),
    /// With a redirect to here.
    Redirect,
    /// No answer.
    Nothing,
    /// An answer with an endless body.
    Endless,
}

/// A recorded request.
#[derive(Clone, Debug)]
pub struct Posted {
    pub at: Instant,
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub card: Value,
    pub body: Bytes,
}

impl Posted {
    /// The title of its card.
    pub fn title(&self) -> &str {
        self.card["cardsV2"][0]["card"]["header"]["title"].as_str().unwrap()
    }
}

#[derive(Default)]
struct Shared {
    posted: Mutex<Vec<Posted>>,
    /// The scripted answers; 200 after the last one.
    script: Mutex<VecDeque<Reply>>,
    came: Notify,
}

/// A running stand-in, stopped on drop.
pub struct Webhook {
    shared: Arc<Shared>,
    url: String,
    _tasks: JoinSet<()>,
}

impl Webhook {
    /// Answers with these, in order, and then with 200.
    pub async fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        Self::on(listener, script)
    }

    fn on(listener: TcpListener, script: impl IntoIterator<Item = Reply>) -> Self {
        let shared = Arc::new(Shared::default());
        shared.script.lock().unwrap().extend(script);
        let url = format!("http://{}/hook/SECRET-PATH?token=SECRET-TOKEN", listener.local_addr().unwrap());
        let router = Router::new().fallback(take).with_state(shared.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { shared, url, _tasks: tasks }
    }

    /// The secret URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Every request until now.
    pub fn posted(&self) -> Vec<Posted> {
        self.shared.posted.lock().unwrap().clone()
    }

    /// Waits for this many requests.
    #[track_caller]
    pub fn until(&self, count: usize) -> impl Future<Output = Vec<Posted>> {
        let at = std::panic::Location::caller();
        async move {
            let came = async {
                loop {
                    let next = self.shared.came.notified();
                    if self.posted().len() >= count {
                        return self.posted();
                    }
                    next.await;
                }
            };
            match timeout(PATIENCE, came).await {
                Ok(posted) => posted,
                Err(_) => panic!("{at}: only {} of {count} requests came", self.posted().len()),
            }
        }
    }
}

async fn take(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let card = serde_json::from_slice(&body).unwrap_or_default();
    #[expect(clippy::disallowed_methods, reason = "the stand-in notes when something came")]
    let at = Instant::now();
    shared.posted.lock().unwrap().push(Posted { at, method, path: uri.to_string(), headers, card, body });
    let reply = shared.script.lock().unwrap().pop_front().unwrap_or(Reply::Status(200));
    shared.came.notify_waiters();
    match reply {
        Reply::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Reply::RetryAfter(status, wait) => {
            (StatusCode::from_u16(status).unwrap(), [("retry-after", wait)]).into_response()
        }
        Reply::Redirect => (StatusCode::TEMPORARY_REDIRECT, [("location", "/elsewhere")]).into_response(),
        Reply::Nothing => std::future::pending().await,
        Reply::Endless => {
            let endless = futures_util::stream::repeat_with(|| {
                Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 1024]))
            });
            axum::body::Body::from_stream(endless).into_response()
        }
    }
}

/// An address that breaks off every connection.
pub struct Broken {
    address: String,
    connections: Arc<Mutex<usize>>,
    _tasks: JoinSet<()>,
}

impl Broken {
    /// Reads a little of every connection, and closes it without an answer.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(Mutex::new(0));
        let count = connections.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
                *count.lock().unwrap() += 1;
                let mut some = [0; 64];
                // Closed with or without received bytes.
                let _ = timeout(Duration::from_secs(1), stream.read(&mut some)).await;
            }
        });
        Self { address, connections, _tasks: tasks }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook/SECRET-PATH", self.address)
    }

    /// Number of connections broken off.
    pub fn count(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}
