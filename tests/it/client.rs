//! WebSocket clients of rooms.

use std::fmt::Debug;
use std::panic::Location;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use url::form_urlencoded;
use uuid::Uuid;

use crate::harness::{Answer, PATIENCE, Person, Reach, TestServer, answer};
use crate::raw::compressing;

/// The transport of a client.
type Network = Box<dyn ByteStream>;

trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for S {}

/// A request for a room's socket, which can be sent any number of times.
#[derive(Clone)]
pub struct Ask {
    path: String,
    pk: Option<String>,
    headers: HeaderMap,
    compresses: bool,
}

impl Ask {
    /// Without identity and `_pk`.
    pub fn room(name: &str) -> Self {
        let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
        Self::path(&format!("/parties/rooms/{}", name.replace('+', "%20")))
    }

    /// To a path that may belong to no room.
    pub fn path(path: &str) -> Self {
        Self { path: path.to_owned(), pk: None, headers: HeaderMap::new(), compresses: false }
    }

    pub fn by(self, person: &Person) -> Self {
        self.header("cookie", person.cookie())
    }

    pub fn pk(self, pk: &str) -> Self {
        Self { pk: Some(pk.to_owned()), ..self }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self
    }

    /// Offers compression as Chromium does, and compresses messages if it is accepted.
    pub fn compressing(self) -> Self {
        let ask = self.header("sec-websocket-extensions", "permessage-deflate; client_max_window_bits");
        Self { compresses: true, ..ask }
    }

    /// Opens the socket.
    pub async fn open(self, server: &impl Reach) -> Client {
        self.try_open(server).await.unwrap_or_else(|status| panic!("refused with {status}"))
    }

    /// Opens the socket, or returns the status of the refusal.
    pub async fn try_open(self, server: &impl Reach) -> Result<Client, u16> {
        let address = server.reached_at().http;
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let stream: Network = if self.compresses { Box::new(compressing(stream)) } else { Box::new(stream) };
        let mut request = format!("ws://{address}{}", self.target()).into_client_request().unwrap();
        request.headers_mut().extend(self.headers.clone());
        let socket = match timeout(PATIENCE, client_async(request, stream)).await.unwrap() {
            Ok((socket, answer)) => {
                assert_eq!(answer.headers().contains_key("sec-websocket-extensions"), self.compresses);
                socket
            }
            Err(Error::Http(response)) => return Err(response.status().as_u16()),
            Err(error) => panic!("no answer to a handshake: {error}"),
        };
        let (sink, stream) = socket.split();
        let (queue, received) = mpsc::unbounded_channel();
        let mut reader = JoinSet::new();
        reader.spawn(read(stream, queue));
        Ok(Client { ask: self, sink, received, reader })
    }

    /// The plain answer to the request: 101, or a refusal and its sentence.
    pub async fn answer(&self, server: &TestServer) -> Answer {
        let request = server
            .get(&self.target())
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        answer(request.headers(self.headers.clone())).await
    }

    /// Path and query.
    pub fn target(&self) -> String {
        let pk = self.pk.iter().map(|pk| ("_pk", pk));
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pk).finish();
        if query.is_empty() { self.path.clone() } else { format!("{}?{query}", self.path) }
    }
}

/// An event of a client's socket.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    Text(String),
    Binary(usize),
    /// With 1006 if there was no close frame.
    Closed(u16, String),
}

/// A client with an open socket, which reads continuously as browsers do.
pub struct Client {
    ask: Ask,
    sink: SplitSink<WebSocketStream<Network>, Message>,
    received: UnboundedReceiver<Received>,
    reader: JoinSet<()>,
}

impl Client {
    /// A new identity with a new `_pk` in a room.
    pub async fn join(server: &impl Reach, room: &str, name: &str) -> Self {
        let person = Person::log_in(server, name).await;
        Ask::room(room).by(&person).pk(&Uuid::new_v4().to_string()).open(server).await
    }

    /// The request that opened the socket, to reconnect or to open a second one.
    pub fn ask(&self) -> Ask {
        self.ask.clone()
    }

    pub fn pk(&self) -> String {
        self.ask.pk.clone().unwrap()
    }

    pub async fn say(&mut self, message: Value) {
        self.say_raw(Message::text(message.to_string())).await;
    }

    pub async fn say_raw(&mut self, message: Message) {
        self.sink.send(message).await.unwrap();
    }

    /// Sends to a server that may have closed the socket; returns true if it was sent.
    pub async fn try_say(&mut self, message: Value) -> bool {
        self.try_say_raw(Message::text(message.to_string())).await
    }

    /// The same for text that may not be JSON.
    pub async fn try_say_raw(&mut self, message: Message) -> bool {
        self.sink.send(message).await.is_ok()
    }

    /// Begins a text message and sends it in frames of `bytes` each, without ending it.
    pub async fn say_in_pieces(&mut self, text: &str, bytes: usize) {
        for (number, piece) in text.as_bytes().chunks(bytes).enumerate() {
            let kind = if number == 0 { Data::Text } else { Data::Continue };
            let frame = Frame::message(Bytes::copy_from_slice(piece), OpCode::Data(kind), false);
            let _ = self.sink.send(Message::Frame(frame)).await;
        }
    }

    /// Sends a message to itself and waits for it; by then the server has handled all earlier ones.
    ///
    /// Returns every message received before.
    pub async fn echo(&mut self) -> Vec<Value> {
        let (pk, mark) = (self.pk(), Uuid::new_v4().to_string());
        self.say(json!({"type": "directMessage", "to": pk, "message": mark})).await;
        let mut before = Vec::new();
        loop {
            let message = self.next().await;
            if message["message"] == *mark {
                return before;
            }
            before.push(message);
        }
    }

    /// The next message.
    #[track_caller]
    pub fn next(&mut self) -> impl Future<Output = Value> {
        self.until(|_| true)
    }

    /// The next message that is no snapshot.
    #[track_caller]
    pub fn event(&mut self) -> impl Future<Output = Value> {
        self.until(|message| message["type"] != "roomState")
    }

    /// The first matching message; earlier ones are dropped.
    #[track_caller]
    pub fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> impl Future<Output = Value> {
        self.wait(Location::caller(), "a message", move |received| match received {
            Received::Text(text) => serde_json::from_str(text).ok().filter(|message| wanted(message)).map(Ok),
            Received::Binary(_) => None,
            Received::Closed(..) => Some(Err("the socket was closed")),
        })
    }

    /// The first matching state.
    #[track_caller]
    pub fn until_state(&mut self, wanted: impl Fn(&Value) -> bool) -> impl Future<Output = Value> {
        let state = self.until(move |message| message["type"] == "roomState" && wanted(&message["state"]));
        async move { state.await["state"].take() }
    }

    /// The first state with these ids, in this order.
    #[track_caller]
    pub fn until_users(&mut self, ids: &[&str]) -> impl Future<Output = Value> {
        self.until_state(move |state| ids_of(state) == ids)
    }

    /// Waits for a message of exactly this text.
    #[track_caller]
    pub fn until_text(&mut self, wanted: &str) -> impl Future<Output = ()> {
        self.wait(Location::caller(), "a text", move |received| match received {
            Received::Text(text) => (text == wanted).then_some(Ok(())),
            Received::Binary(_) => None,
            Received::Closed(..) => Some(Err("the socket was closed")),
        })
    }

    /// The close code and reason of the server; earlier messages are dropped.
    #[track_caller]
    pub fn closed(&mut self) -> impl Future<Output = (u16, String)> {
        self.wait(Location::caller(), "the end", |received| match received {
            Received::Closed(code, reason) => Some(Ok((*code, reason.clone()))),
            Received::Text(_) | Received::Binary(_) => None,
        })
    }

    /// Waits for the close, and returns every message before it.
    pub async fn closed_after(&mut self, mut take: impl FnMut(Value)) -> (u16, String) {
        self.wait(Location::caller(), "the end", |received| match received {
            Received::Text(text) => {
                take(serde_json::from_str(text).unwrap());
                None
            }
            Received::Binary(_) => None,
            Received::Closed(code, reason) => Some(Ok((*code, reason.clone()))),
        })
        .await
    }

    /// All events since the last call of any of these methods.
    pub fn received_so_far(&mut self) -> Vec<Received> {
        std::iter::from_fn(|| self.received.try_recv().ok()).collect()
    }

    /// Stops reading, and thereby confirming.
    pub async fn stop_reading(&mut self) {
        self.reader.shutdown().await;
    }

    /// Ends the TCP connection without a close frame.
    pub async fn drop_tcp(self) -> Ask {
        self.drop_tcp_after(|_| ()).await
    }

    /// Ends the TCP connection without a close frame, and returns the events until then.
    pub async fn drop_tcp_after(mut self, take: impl FnMut(Value)) -> Ask {
        drop(self.sink);
        self.reader.shutdown().await;
        let texts =
            std::iter::from_fn(|| self.received.try_recv().ok()).filter_map(|received| match received {
                Received::Text(text) => serde_json::from_str(&text).ok(),
                Received::Binary(_) | Received::Closed(..) => None,
            });
        texts.for_each(take);
        self.ask
    }

    /// Closes the socket (RFC 6455), without waiting for the answer.
    pub async fn say_close(&mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
        self.say_raw(Message::Close(Some(frame))).await;
    }

    /// Closes the socket (RFC 6455), and waits for the answer.
    pub async fn close(mut self) -> Ask {
        self.say_close(1000).await;
        assert_eq!(self.closed().await.0, 1000);
        self.ask
    }

    async fn wait<T>(
        &mut self,
        at: &'static Location<'static>,
        what: &str,
        mut take: impl FnMut(&Received) -> Option<Result<T, &'static str>>,
    ) -> T {
        let mut passed = Vec::new();
        let find = async {
            while let Some(received) = self.received.recv().await {
                let found = take(&received);
                passed.push(received);
                if let Some(found) = found {
                    return found;
                }
            }
            Err("the socket is at its end")
        };
        match timeout(PATIENCE, find).await.unwrap_or(Err("it did not come in time")) {
            Ok(found) => found,
            Err(why) => panic!("{at}: {why}: waited for {what}, and received {}", shown(&passed)),
        }
    }
}

/// The ids of a state's users, in their order.
pub fn ids_of(state: &Value) -> Vec<&str> {
    state["users"].as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap()).collect()
}

/// The user of that id in a state; null if there is none.
pub fn user_of<'a>(state: &'a Value, pk: &str) -> &'a Value {
    state["users"].as_array().unwrap().iter().find(|user| user["id"] == pk).unwrap_or(&Value::Null)
}

async fn read(mut stream: SplitStream<WebSocketStream<Network>>, queue: UnboundedSender<Received>) {
    let mut closed = false;
    // Reading on after a close frame sends its answer.
    while let Some(Ok(message)) = stream.next().await {
        let received = match message {
            Message::Text(text) => Received::Text(text.as_str().to_owned()),
            Message::Binary(bytes) => Received::Binary(bytes.len()),
            Message::Close(frame) => {
                closed = true;
                frame.map_or(Received::Closed(1005, String::new()), |frame| {
                    Received::Closed(frame.code.into(), frame.reason.as_str().to_owned())
                })
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        // The receiver is dropped once the test is over.
        let _ = queue.send(received);
    }
    if !closed {
        let _ = queue.send(Received::Closed(1006, String::new()));
    }
}

/// The last few messages, each truncated, for a readable failure.
fn shown(received: &[impl Debug]) -> String {
    let last = received.iter().rev().take(8).rev();
    let lines = last.map(|received| format!("\n  {:.300}", format!("{received:?}")));
    format!("{} things, the last of them{}", received.len(), lines.collect::<String>())
}
