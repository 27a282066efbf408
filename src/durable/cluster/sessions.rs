//! Sockets of one node on objects of another.
//!
//! The owner has a queue for each as for its own sockets, and pushes what is in it to the node of the socket, one batch after
//! the other, each once the last one has arrived. That node has a queue of the same kind. What a socket says is passed on
//! one message after the other. When anything fails the socket is closed, and its client comes back for the state.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use dashmap::DashMap;
use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::ObjectCluster;
use super::calls::{Call, Called};
use crate::clock::now;
use crate::durable::command::{Ask, Command, SocketMessage};
use crate::durable::error::ObjectError;
use crate::durable::feed::{Feed, FeedReader, Relayed};
use crate::durable::keys::KeyNumber;
use crate::durable::registry::{ObjectLink, ObjectRegistry};
use crate::id::{ConnectionId, NodeId, ObjectId};
use crate::metrics::Metrics;
use crate::nodes::objects::CallFailure;
use crate::protocol::close::Close;
use crate::protocol::deflate::Encoding;
use crate::protocol::server::MessageKind;
use crate::room::message::SharedMessage;

/// Messages of a socket that wait to be passed on.
const QUEUE: usize = 16;

/// Messages to a socket, and their bytes, in one batch.
const MAX_ITEMS: usize = 64;
const MAX_BYTES: usize = 64 << 10;

/// Time for the other node to take something.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Interval at which a socket's node looks if the owner still serves it.
const CHECKED_EVERY: Duration = Duration::from_secs(30);

/// The sockets on objects of other nodes, and those of other nodes on objects here.
#[derive(Debug, Default)]
pub struct Sessions {
    last: AtomicU64,
    relayed: DashMap<u64, Arc<Feed>>,
    served: DashMap<(NodeId, u64), (ConnectionId, mpsc::Sender<Command>)>,
}

/// A message to a socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Item {
    /// The whole state.
    State(Box<RawValue>),
    /// A change of a key.
    Update(Arc<str>, Box<RawValue>),
    /// The answer to a message of the socket.
    Answer(Box<RawValue>),
    /// A message of the socket was handled, and has no answer.
    Skip,
    /// The end.
    Close(Close),
}

/// A message of a socket. A list has one element or none: JSON's null is a value.
#[derive(Debug, Serialize, Deserialize)]
pub struct Said {
    key: KeyNumber,
    id: Vec<Box<RawValue>>,
    ask: Asked,
    /// The status and sentence with which it is refused, if it is.
    refusal: Option<(u16, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Asked {
    Method { name: String, params: Box<RawValue> },
    Echo(Vec<Box<RawValue>>),
    Get(Arc<str>),
    Set(Arc<str>, Box<RawValue>),
    Update(Arc<str>, Box<RawValue>),
    State,
}

impl From<SocketMessage> for Said {
    fn from(message: SocketMessage) -> Self {
        let SocketMessage { key, id, ask, refusal, .. } = message;
        let mut refusal = refusal.map(|error| (error.status().as_u16(), error.to_string()));
        let ask = match ask {
            Ask::Method { name, params } => Asked::Method { name, params },
            Ask::Echo(data) => Asked::Echo(data.into_iter().collect()),
            Ask::Get(key) => Asked::Get(key),
            Ask::Set(key, value) => Asked::Set(key, (*value).to_owned()),
            Ask::Update(key, value) => Asked::Update(key, (*value).to_owned()),
            Ask::State => Asked::State,
            Ask::Invalid(sentence) => {
                refusal.get_or_insert_with(|| (StatusCode::BAD_REQUEST.as_u16(), sentence.to_owned()));
                Asked::Echo(Vec::new())
            }
        };
        Self { key, id: id.into_iter().collect(), ask, refusal }
    }
}

impl Said {
    fn of(self, socket: ConnectionId) -> SocketMessage {
        let Self { key, id, ask, refusal } = self;
        let ask = match ask {
            Asked::Method { name, params } => Ask::Method { name, params },
            Asked::Echo(data) => Ask::Echo(data.into_iter().next()),
            Asked::Get(key) => Ask::Get(key),
            Asked::Set(key, value) => Ask::Set(key, Arc::from(value)),
            Asked::Update(key, value) => Ask::Update(key, Arc::from(value)),
            Asked::State => Ask::State,
        };
        let refusal = refusal.map(|(status, sentence)| {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            ObjectError::Remote { status, sentence }
        });
        SocketMessage { socket, key, id: id.into_iter().next(), ask, refusal, permit: None }
    }
}

/// The result of an attempt to subscribe a socket to an object of another node.
pub enum Opened {
    /// It is subscribed.
    Link(ObjectLink),
    /// The owner refuses it.
    Refused(ObjectError),
    /// The other node is not the owner.
    NotDone,
}

/// Subscribes a socket of this node to an object of another.
pub async fn open(
    registry: &ObjectRegistry,
    cluster: &Arc<ObjectCluster>,
    to: NodeId,
    id: &ObjectId,
    (socket, encoding): (ConnectionId, Encoding),
) -> Opened {
    let deps = registry.deps();
    let number = cluster.sessions.last.fetch_add(1, Ordering::Relaxed) + 1;
    let (feed, reader) = Feed::new(encoding, deps.outbox, deps.metrics.clone());
    let feed = Arc::new(feed);
    // Its state may come before the answer.
    cluster.sessions.relayed.insert(number, feed.clone());
    let relay = Relay { cluster: cluster.clone(), to, id: id.clone(), number, feed };
    let answer = relay.call(Call::Open { session: number, socket }).await;
    let refused = match answer {
        Ok(Called::Done(true)) => {
            let (commands, received) = mpsc::channel(QUEUE);
            let stopping = registry.stopping().clone();
            registry.track(async move { relay.run(received, &stopping).await });
            return Opened::Link(ObjectLink { commands, feed: reader });
        }
        Ok(Called::Failed { status, sentence }) => Opened::Refused(ObjectError::remote(status, sentence)),
        Ok(_) | Err(CallFailure::NotMade) => Opened::NotDone,
        Err(CallFailure::Unknown) => Opened::Refused(ObjectError::EngineSilent),
    };
    cluster.sessions.relayed.remove(&number);
    refused
}

/// The way of a socket of this node to an object of another.
struct Relay {
    cluster: Arc<ObjectCluster>,
    to: NodeId,
    id: ObjectId,
    number: u64,
    feed: Arc<Feed>,
}

impl Relay {
    async fn call(&self, call: Call) -> Result<Called, CallFailure> {
        self.cluster.call(self.to, &self.id, call, TIMEOUT, now() + TIMEOUT).await
    }

    /// Passes on what the socket says, until it is gone.
    async fn run(
        self,
        mut commands: mpsc::Receiver<Command>,
        stopping: &tokio_util::sync::CancellationToken,
    ) {
        let mut changes = self.cluster.nodes.changes();
        let mut is_open = true;
        loop {
            let is_served = tokio::select! {
                command = commands.recv() => match command {
                    None | Some(Command::Gone(_)) => break,
                    Some(Command::Message(message)) if is_open => {
                        let said = Said::from(message);
                        let call = Call::Say { session: self.number, said };
                        matches!(self.call(call).await, Ok(Called::Done(_)))
                    }
                    Some(_) => true,
                },
                () = stopping.cancelled(), if is_open => false,
                Ok(()) = changes.changed(), if is_open => self.is_served().await,
                () = sleep(CHECKED_EVERY), if is_open => self.is_served().await,
            };
            if is_open && !is_served {
                is_open = false;
                self.feed.close(Close::ServiceRestart);
            }
        }
        self.cluster.sessions.relayed.remove(&self.number);
        // If it is lost, the next message to the socket tells.
        let _ = self.call(Call::Leave { session: self.number }).await;
    }

    async fn is_served(&self) -> bool {
        if self.cluster.nodes.is_gone(self.to).await {
            return false;
        }
        matches!(self.call(Call::Still { session: self.number }).await, Ok(Called::Done(true)))
    }
}

impl Sessions {
    /// Takes messages to a socket of this node; false if there is none.
    pub fn take(&self, number: u64, items: Vec<Item>, metrics: &Metrics) -> bool {
        let Some(feed) = self.relayed.get(&number).map(|feed| feed.clone()) else { return false };
        let message = |json: Box<RawValue>| {
            SharedMessage::new(MessageKind::Object, Box::<str>::from(json).into_string(), metrics)
        };
        for item in items {
            let taken = match item {
                Item::State(json) => feed.push_state(now(), &message(json)),
                Item::Update(key, json) => feed.push_update(now(), &key, &message(json)),
                Item::Answer(json) => feed.push_answer(now(), &message(json)),
                Item::Skip => {
                    feed.skip_answer(now());
                    Ok(())
                }
                Item::Close(close) => {
                    feed.close(close);
                    Ok(())
                }
            };
            if taken.is_err() {
                Metrics::count(&metrics.drops, "outbox_over_budget");
                feed.discard(Close::TooSlow);
                return false;
            }
        }
        true
    }

    /// True if a socket of another node is served.
    pub fn serves(&self, from: NodeId, number: u64) -> bool {
        self.served.contains_key(&(from, number))
    }

    /// Passes on what a socket of another node says; false if it is not served.
    pub async fn hear(&self, from: NodeId, number: u64, said: Said) -> bool {
        let Some((socket, commands)) = self.served.get(&(from, number)).map(|served| served.clone()) else {
            return false;
        };
        commands.send(Command::Message(said.of(socket))).await.is_ok()
    }

    /// Ends the service of a socket of another node.
    pub async fn leave(&self, from: NodeId, number: u64) {
        if let Some((_, (socket, commands))) = self.served.remove(&(from, number)) {
            let _ = commands.send(Command::Gone(socket)).await;
        }
    }
}

/// Subscribes a socket of another node to an object here.
///
/// # Errors
/// [`ObjectError`].
pub async fn serve(
    registry: &ObjectRegistry,
    cluster: &Arc<ObjectCluster>,
    id: ObjectId,
    from: NodeId,
    (number, socket): (u64, ConnectionId),
) -> Result<(), ObjectError> {
    let ObjectLink { commands, feed } = registry.subscribe_here(&id, socket, Encoding::Identity).await?;
    feed.tell_skips();
    cluster.sessions.served.insert((from, number), (socket, commands));
    let cluster = cluster.clone();
    registry.track(async move {
        push(&cluster, &id, from, number, &feed).await;
        cluster.sessions.leave(from, number).await;
    });
    Ok(())
}

/// Pushes messages to the node of a socket until one of both ends.
async fn push(cluster: &ObjectCluster, id: &ObjectId, to: NodeId, number: u64, feed: &FeedReader) {
    let mut changes = cluster.nodes.changes();
    loop {
        let items = tokio::select! {
            items = batch(feed) => items,
            changed = changes.changed() => {
                if changed.is_err() || cluster.nodes.is_gone(to).await {
                    return;
                }
                continue;
            }
        };
        let is_last = matches!(items.last(), Some(Item::Close(_)));
        let call = Call::Push { session: number, items };
        let taken = cluster.call(to, id, call, TIMEOUT, now() + TIMEOUT).await;
        if is_last || !matches!(taken, Ok(Called::Done(true))) {
            return;
        }
        if !cluster.sessions.serves(to, number) {
            return;
        }
    }
}

/// Waits for messages, and takes those that there are.
async fn batch(feed: &FeedReader) -> Vec<Item> {
    let mut items = Vec::new();
    let mut bytes = 0;
    let mut next = Some(poll_fn(|context| feed.poll_relayed(now, context)).await);
    while let Some(relayed) = next {
        let (item, length) = match relayed {
            Relayed::State(message) => {
                read(&message).map_or((Item::Skip, 0), |json| (Item::State(json), message.json().len()))
            }
            Relayed::Update(key, message) => {
                read(&message).map_or((Item::Skip, 0), |json| (Item::Update(key, json), message.json().len()))
            }
            Relayed::Answer(message) => {
                read(&message).map_or((Item::Skip, 0), |json| (Item::Answer(json), message.json().len()))
            }
            Relayed::Skip => (Item::Skip, 0),
            Relayed::Close(close) => (Item::Close(close), 0),
        };
        let is_last = matches!(item, Item::Close(_));
        items.push(item);
        bytes += length;
        let is_full = is_last || items.len() >= MAX_ITEMS || bytes >= MAX_BYTES;
        next = if is_full { None } else { poll_fn(|context| feed.poll_relayed(now, context)).now_or_never() };
    }
    items
}

fn read(message: &SharedMessage) -> Option<Box<RawValue>> {
    RawValue::from_string(String::from_utf8(message.json().to_vec()).ok()?).ok()
}
