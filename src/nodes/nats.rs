//! NATS with JetStream as the engine. Nothing outside this folder knows NATS.
//!
//! A journal is a subject of a stream; JetStream publishes what it stores again, and that is what followers get. Node to
//! node there are plain messages. Only what old servers have as well is used: no consumers, no key-value buckets.

mod api;
mod start;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Message, Request, RequestErrorKind, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use satsuma_cluster::NodeId;
use satsuma_cluster::writer::{ANSWER_TIMEOUT, Appended};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error};

use self::api::{Names, SizeInfo, SubjectsInfo};
use super::engine::{
    Engine, EngineEvent, EngineServer, Followed, Following, NoAnswer, ReplyAddress, RequestFailure, Stored,
    StoredEntry, Subject, SubjectKind,
};
use crate::clock::now;
use crate::metrics::Metrics;

pub use self::start::NatsError;

/// Time for reading all entries of a journal, and for listing journals.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Entries asked for at once.
const BATCH: usize = 256;

/// NATS, as one node sees it.
#[derive(Clone, Debug)]
pub struct NatsEngine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    /// True once the connection is closed by this node.
    is_closing: Arc<AtomicBool>,
    names: Names,
    node: NodeId,
    metrics: Arc<Metrics>,
    /// Passes events on; it ends with the last clone.
    _events: AbortOnDropHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }
}

impl NatsEngine {
    fn is_connected(&self) -> bool {
        // A message that is queued without a connection would be sent long after it was given up.
        self.0.client.connection_state() == State::Connected
    }

    /// Sends a message, unless it cannot be taken in time.
    async fn publish(&self, subject: String, message: Bytes) {
        let sent = match self.is_connected() {
            true => timeout(ANSWER_TIMEOUT, self.0.client.publish(subject, message)).await,
            false => return self.count_lost(),
        };
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                debug!(%error, "a message to other nodes cannot be sent");
                self.count_lost();
            }
            Err(_) => self.count_lost(),
        }
    }

    fn count_lost(&self) {
        self.0.metrics.engine_messages_lost.inc();
    }

    /// Makes a request, whose answer has to come in time.
    async fn ask(
        &self,
        subject: String,
        request: Request,
        most: Duration,
    ) -> Result<Message, RequestFailure> {
        if !self.is_connected() {
            return Err(RequestFailure::NoAnswer);
        }
        let request = request.timeout(Some(most));
        match timeout(most, self.0.client.send_request(subject, request)).await {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(failure)) => match failure.kind() {
                RequestErrorKind::NoResponders => Err(RequestFailure::NobodyListens),
                RequestErrorKind::MaxPayloadExceeded => {
                    error!(
                        event = "engineMessageTooLong",
                        %failure,
                        "NATS takes no messages of this length; raise its max_payload"
                    );
                    Err(RequestFailure::NoAnswer)
                }
                _ => Err(RequestFailure::NoAnswer),
            },
            Err(_) => Err(RequestFailure::NoAnswer),
        }
    }

    /// Asks JetStream's API.
    async fn api(&self, call: &str, body: &serde_json::Value) -> Result<Bytes, NoAnswer> {
        let request = Request::new().payload(body.to_string().into());
        let answer = self.ask(format!("$JS.API.{call}"), request, ANSWER_TIMEOUT).await;
        answer.map(|message| message.payload).map_err(|_| NoAnswer)
    }

    /// Waits until the server has handled everything that was sent before.
    async fn round_trip(&self) -> Result<(), NoAnswer> {
        match self.ask(self.0.names.nobody(), Request::new(), ANSWER_TIMEOUT).await {
            Ok(_) | Err(RequestFailure::NobodyListens) => Ok(()),
            Err(RequestFailure::NoAnswer) => Err(NoAnswer),
        }
    }

    async fn read_all(&self, subject: Subject) -> Result<Vec<StoredEntry>, NoAnswer> {
        let (mut entries, mut takes_batches) = (Vec::new(), true);
        loop {
            let from = entries.last().map_or(1, |last: &StoredEntry| last.sequence + 1);
            let is_last = match takes_batches {
                true => {
                    let batch = self.read_batch(subject, from, &mut entries).await?;
                    takes_batches = batch != Batch::Unknown;
                    batch == Batch::Last
                }
                false => match self.read_next(subject, from).await? {
                    Some(entry) => {
                        entries.push(entry);
                        false
                    }
                    None => true,
                },
            };
            if is_last {
                return Ok(entries);
            }
        }
    }

    /// Reads many entries by one request, which servers before 2.11 answer by a single one.
    async fn read_batch(
        &self,
        subject: Subject,
        from: u64,
        entries: &mut Vec<StoredEntry>,
    ) -> Result<Batch, NoAnswer> {
        if !self.is_connected() {
            return Err(NoAnswer);
        }
        let Inner { client, names, .. } = &*self.0;
        let inbox = client.new_inbox();
        let body = json!({"seq": from, "next_by_subj": names.journal(subject), "batch": BATCH});
        let get = format!("$JS.API.DIRECT.GET.{}", names.stream_of(subject));
        let asked = async {
            let answers = client.subscribe(inbox.clone()).await.map_err(|_| NoAnswer)?;
            let body = body.to_string().into();
            client.publish_with_reply(get, inbox, body).await.map_err(|_| NoAnswer)?;
            Ok(answers)
        };
        let mut answers = timeout(ANSWER_TIMEOUT, asked).await.map_err(|_| NoAnswer)??;
        loop {
            let answer = timeout(ANSWER_TIMEOUT, answers.next()).await.map_err(|_| NoAnswer)?;
            let answer = answer.ok_or(NoAnswer)?;
            match answer.status.map(|status| status.as_u16()) {
                None => {
                    entries.push(stored(&answer).ok_or(NoAnswer)?);
                    if header(&answer, api::PENDING).is_none() {
                        return Ok(Batch::Unknown);
                    }
                }
                // The end of the batch, and nothing there.
                Some(204) if header(&answer, api::PENDING) == Some(0) => return Ok(Batch::Last),
                Some(204) => return Ok(Batch::Partial),
                Some(404) => return Ok(Batch::Last),
                Some(_) => return Err(NoAnswer),
            }
        }
    }

    async fn read_next(&self, subject: Subject, from: u64) -> Result<Option<StoredEntry>, NoAnswer> {
        let names = &self.0.names;
        let body = json!({"seq": from, "next_by_subj": names.journal(subject)});
        let get = format!("$JS.API.DIRECT.GET.{}", names.stream_of(subject));
        let request = Request::new().payload(body.to_string().into());
        let answer = self.ask(get, request, ANSWER_TIMEOUT).await.map_err(|_| NoAnswer)?;
        match answer.status.map(|status| status.as_u16()) {
            None => stored(&answer).ok_or(NoAnswer).map(Some),
            Some(404) => Ok(None),
            Some(_) => Err(NoAnswer),
        }
    }

    async fn list(&self, kind: SubjectKind) -> Result<Vec<Subject>, NoAnswer> {
        let names = &self.0.names;
        let mut found = Vec::new();
        for shard in 0..names.shards {
            let (call, filter) =
                (format!("STREAM.INFO.{}", names.stream(kind, shard)), names.journals(kind, shard));
            let mut offset = 0;
            loop {
                let body = json!({"subjects_filter": filter, "offset": offset});
                let info: SubjectsInfo = api::read(&self.api(&call, &body).await?).map_err(|_| NoAnswer)?;
                let page = info.state.subjects.len();
                found.extend(info.state.subjects.keys().filter_map(|journal| names.subject(journal)));
                offset += page;
                if page == 0 || u64::try_from(offset).unwrap_or(u64::MAX) >= info.total {
                    break;
                }
            }
        }
        Ok(found)
    }
}

/// The answer to a request for many entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Batch {
    /// There are no more.
    Last,
    /// There are more.
    Partial,
    /// The server answered by one entry.
    Unknown,
}

/// The number in a message's header.
fn header(message: &Message, name: &str) -> Option<u64> {
    message.headers.as_ref()?.get(name)?.as_str().parse().ok()
}

/// The entry in a message, as it is read and as it is republished.
fn stored(message: &Message) -> Option<StoredEntry> {
    let sequence = header(message, api::SEQUENCE)?;
    let expected = header(message, api::EXPECTED)?;
    Some(StoredEntry { sequence, expected, bytes: message.payload.clone() })
}

impl Engine for NatsEngine {
    type Following = NatsFollowing;

    async fn append(&self, subject: Subject, expected: u64, entry: Bytes) -> Appended {
        let Inner { names, metrics, .. } = &*self.0;
        let asked = now();
        let mut headers = HeaderMap::new();
        headers.insert(api::EXPECTED, expected.to_string());
        let request = Request::new().headers(headers).payload(entry);
        let appended = match self.ask(names.journal(subject), request, ANSWER_TIMEOUT).await {
            Ok(answer) => api::read_appended(&answer.payload),
            // Also if nobody listens: a stream that is without a leader for a moment.
            Err(_) => Appended::Unknown,
        };
        let outcome = match appended {
            Appended::Stored(_) => {
                metrics.journal_append_seconds.observe(asked.elapsed().as_secs_f64());
                "stored"
            }
            Appended::Refused => "refused",
            Appended::Unknown => "unknown",
        };
        Metrics::count(&metrics.journal_appends, outcome);
        appended
    }

    /// The leader is asked: a copy may be behind, and an older entry looks like an engine that lost its end.
    async fn last(&self, subject: Subject) -> Result<Option<StoredEntry>, NoAnswer> {
        let names = &self.0.names;
        let call = format!("STREAM.MSG.GET.{}", names.stream_of(subject));
        let answer = self.api(&call, &json!({"last_by_subj": names.journal(subject)})).await?;
        api::read_last(&answer).map_err(|_| NoAnswer)
    }

    async fn all(&self, subject: Subject) -> Result<Vec<StoredEntry>, NoAnswer> {
        timeout(READ_TIMEOUT, self.read_all(subject)).await.unwrap_or(Err(NoAnswer))
    }

    async fn purge(&self, subject: Subject, below: u64) {
        // There is nothing below the first number, and NATS takes it for no limit: it would remove everything.
        if below <= 1 {
            return;
        }
        let names = &self.0.names;
        let call = format!("STREAM.PURGE.{}", names.stream_of(subject));
        if let Err(error) = self.api(&call, &json!({"filter": names.journal(subject), "seq": below})).await {
            debug!(%error, "a journal was not purged");
        }
    }

    async fn subjects(&self, kind: SubjectKind) -> Result<Vec<Subject>, NoAnswer> {
        timeout(READ_TIMEOUT, self.list(kind)).await.unwrap_or(Err(NoAnswer))
    }

    async fn stored(&self, kind: SubjectKind) -> Result<Stored, NoAnswer> {
        let names = &self.0.names;
        let mut stored = Stored::default();
        for shard in 0..names.shards {
            let call = format!("STREAM.INFO.{}", names.stream(kind, shard));
            let info: SizeInfo = api::read(&self.api(&call, &json!({})).await?).map_err(|_| NoAnswer)?;
            stored.subjects += info.state.num_subjects;
            stored.bytes += info.state.bytes;
        }
        Ok(stored)
    }

    async fn send(&self, to: NodeId, message: Bytes) {
        self.publish(self.0.names.node(to, self.0.node), message).await;
    }

    async fn request(&self, to: NodeId, message: Bytes, most: Duration) -> Result<Bytes, RequestFailure> {
        let request = Request::new().payload(message);
        let answer = self.ask(self.0.names.node(to, self.0.node), request, most).await?;
        Ok(answer.payload)
    }

    async fn reply(&self, to: ReplyAddress, message: Bytes) {
        self.publish(to.as_str().to_owned(), message).await;
    }

    async fn send_to_all(&self, message: Bytes) {
        self.publish(self.0.names.all(), message).await;
    }

    async fn broadcast(&self, subject: Subject, message: Bytes) {
        self.publish(self.0.names.broadcast(subject), message).await;
    }

    async fn follow(&self, subject: Subject) -> Result<NatsFollowing, NoAnswer> {
        if !self.is_connected() {
            return Err(NoAnswer);
        }
        let subscribed = self.0.client.subscribe(self.0.names.followed(subject));
        let subscriber = timeout(ANSWER_TIMEOUT, subscribed).await.map_err(|_| NoAnswer)?;
        let following = NatsFollowing(subscriber.map_err(|_| NoAnswer)?);
        self.round_trip().await?;
        Ok(following)
    }

    fn server(&self) -> EngineServer {
        let info = self.0.client.server_info();
        EngineServer { name: info.server_name, version: info.version }
    }

    async fn flush(&self) {
        let _ = self.round_trip().await;
    }
}

/// A subscription to a subject.
#[derive(Debug)]
pub struct NatsFollowing(Subscriber);

impl Following for NatsFollowing {
    async fn next(&mut self) -> Option<Followed> {
        loop {
            let message = self.0.next().await?;
            if message.subject.ends_with(".b") {
                return Some(Followed::Broadcast(message.payload));
            }
            // Anything else is from a program that has no business there.
            if let Some(entry) = stored(&message) {
                return Some(Followed::Stored(entry));
            }
        }
    }
}

/// Passes on what comes for a node, until nobody takes it.
async fn pass_on(
    names: Names,
    mut own: Subscriber,
    mut all: Subscriber,
    mut connected: watch::Receiver<bool>,
    events: mpsc::Sender<EngineEvent>,
) {
    loop {
        let event = tokio::select! {
            biased;
            Ok(()) = connected.changed() => match *connected.borrow_and_update() {
                true => EngineEvent::Connected,
                false => EngineEvent::Disconnected,
            },
            Some(message) = own.next() => match received(&names, message) {
                Some(event) => event,
                None => continue,
            },
            Some(message) = all.next() => EngineEvent::ToAll(message.payload),
            else => return,
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// A message to this node; its address names the sender.
fn received(names: &Names, message: Message) -> Option<EngineEvent> {
    let parts = message.subject.strip_prefix(&names.prefix)?.strip_prefix(".n.")?;
    let from = u32::from_str_radix(parts.split_once('.')?.1, 16).ok()?;
    let reply = message.reply.map(|reply| ReplyAddress::new(reply.as_str()));
    Some(EngineEvent::Message { from: NodeId::new(from), message: message.payload, reply })
}
