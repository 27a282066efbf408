//! Durable objects over several nodes: their journals in the engine, and calls from node to node. What an object is, the
//! feature above knows.
//!
//! A call and its answer are bytes. What is longer than one message is fetched in pieces by whoever receives it.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use satsuma_cluster::membership::PROBE_TIMEOUT;
use satsuma_cluster::message::NodeMessage;
use satsuma_cluster::successor::preferred;
use satsuma_cluster::writer::Appended;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use super::engine::{Engine, NoAnswer, RequestFailure, Stored, StoredEntry, Subject, SubjectKind};
use super::node::{Changes, Cluster, probed};
use super::pieces::{Pieces, Reply};
use crate::clock::now;
use crate::id::{NodeId, ObjectId};

/// Calls of other nodes that are carried out at a time.
const MAX_CALLS: usize = 8192;

/// Bytes of the long calls of other nodes that are being received.
const MAX_ARRIVING: usize = 64 << 20;

/// Time for a piece of a long call.
const PIECE: Duration = Duration::from_secs(2);

const CALL: u8 = 0;
const FURTHER: u8 = 1;

/// The engine and the other nodes, as durable objects see them.
pub trait ObjectNodes: Debug + Send + Sync {
    /// This node.
    fn own(&self) -> NodeId;

    /// True if a node may own objects: it is this one or lives, and is not leaving.
    fn takes(&self, node: NodeId) -> bool;

    /// The node that is to own an object which nobody owns.
    fn preferred(&self, id: &ObjectId) -> NodeId;

    /// Finds out if a node that an entry names cannot own objects any more.
    fn is_gone(&self, node: NodeId) -> BoxFuture<'static, bool>;

    /// True if this node knows that it does not reach the engine.
    fn is_away(&self) -> bool;

    /// A watch on nodes that are gone, and on interruptions.
    fn changes(&self) -> watch::Receiver<Changes>;

    /// Appends an entry to a journal if its last one has this number.
    fn append(&self, subject: Subject, expected: u64, entry: Bytes) -> BoxFuture<'static, Appended>;

    /// Reads the last entry of a journal.
    fn last(&self, subject: Subject) -> BoxFuture<'static, Result<Option<StoredEntry>, NoAnswer>>;

    /// Reads all entries of a journal.
    fn all(&self, subject: Subject) -> BoxFuture<'static, Result<Vec<StoredEntry>, NoAnswer>>;

    /// Removes the entries of a journal below a number.
    fn purge(&self, subject: Subject, below: u64) -> BoxFuture<'static, ()>;

    /// The journals of a kind.
    fn subjects(&self, kind: SubjectKind) -> BoxFuture<'static, Result<Vec<Subject>, NoAnswer>>;

    /// The space that a kind of journals takes in the engine.
    fn stored(&self, kind: SubjectKind) -> BoxFuture<'static, Result<Stored, NoAnswer>>;

    /// Calls another node.
    ///
    /// The future's error is [`CallFailure`].
    fn call(
        &self,
        to: NodeId,
        call: Vec<u8>,
        until: Instant,
    ) -> BoxFuture<'static, Result<Vec<u8>, CallFailure>>;

    /// Gives calls of other nodes the objects of this one.
    fn serve(&self, objects: Arc<dyn OwnObjects>);
}

/// The objects of this node, for calls of others.
pub trait OwnObjects: Send + Sync {
    /// Answers a call.
    fn answer(&self, from: NodeId, call: Vec<u8>) -> BoxFuture<'static, Vec<u8>>;
}

/// A call got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// It cannot have arrived.
    NotMade,
    /// It may have been carried out.
    Unknown,
}

/// The calls of a node.
pub(super) struct ObjectCalls {
    own: OnceLock<Arc<dyn OwnObjects>>,
    pieces: Pieces,
    calls: Semaphore,
    arriving: Semaphore,
}

impl Default for ObjectCalls {
    fn default() -> Self {
        let (calls, arriving) = (Semaphore::new(MAX_CALLS), Semaphore::new(MAX_ARRIVING));
        Self { own: OnceLock::new(), pieces: Pieces::default(), calls, arriving }
    }
}

fn message(kind: u8, body: &[u8]) -> Bytes {
    let body = [&[kind], body].concat();
    NodeMessage::ObjectCall(&body).encode().into()
}

impl<E: Engine> ObjectNodes for Cluster<E> {
    fn own(&self) -> NodeId {
        self.node()
    }

    fn takes(&self, node: NodeId) -> bool {
        self.membership().takers().any(|taker| taker == node)
    }

    fn preferred(&self, id: &ObjectId) -> NodeId {
        preferred(id.as_str(), self.membership().takers()).unwrap_or(self.node())
    }

    fn is_gone(&self, node: NodeId) -> BoxFuture<'static, bool> {
        let cluster = self.clone();
        async move {
            let is_known = node == cluster.node() || cluster.membership().knows(node);
            if !is_known {
                // Of before this one's start, or not heard yet.
                let probe = NodeMessage::Probe.encode().into();
                let asked = cluster.engine().request(node, probe, PROBE_TIMEOUT).await;
                cluster.probed(node, probed(asked.clone().map(drop)));
                return asked.is_err();
            }
            !cluster.takes(node)
        }
        .boxed()
    }

    fn is_away(&self) -> bool {
        self.reach().state().is_away
    }

    fn changes(&self) -> watch::Receiver<Changes> {
        Self::changes(self)
    }

    fn append(&self, subject: Subject, expected: u64, entry: Bytes) -> BoxFuture<'static, Appended> {
        let engine = self.engine().clone();
        async move { engine.append(subject, expected, entry).await }.boxed()
    }

    fn last(&self, subject: Subject) -> BoxFuture<'static, Result<Option<StoredEntry>, NoAnswer>> {
        let engine = self.engine().clone();
        async move { engine.last(subject).await }.boxed()
    }

    fn all(&self, subject: Subject) -> BoxFuture<'static, Result<Vec<StoredEntry>, NoAnswer>> {
        let engine = self.engine().clone();
        async move { engine.all(subject).await }.boxed()
    }

    fn purge(&self, subject: Subject, below: u64) -> BoxFuture<'static, ()> {
        let engine = self.engine().clone();
        async move { engine.purge(subject, below).await }.boxed()
    }

    fn subjects(&self, kind: SubjectKind) -> BoxFuture<'static, Result<Vec<Subject>, NoAnswer>> {
        let engine = self.engine().clone();
        async move { engine.subjects(kind).await }.boxed()
    }

    fn stored(&self, kind: SubjectKind) -> BoxFuture<'static, Result<Stored, NoAnswer>> {
        let engine = self.engine().clone();
        async move { engine.stored(kind).await }.boxed()
    }

    fn call(
        &self,
        to: NodeId,
        call: Vec<u8>,
        until: Instant,
    ) -> BoxFuture<'static, Result<Vec<u8>, CallFailure>> {
        let cluster = self.clone();
        async move {
            tokio::select! {
                answer = cluster.call_objects(to, call, until) => answer,
                // A node that dies does not answer any more.
                () = cluster.until_gone(to) => Err(CallFailure::Unknown),
            }
        }
        .boxed()
    }

    fn serve(&self, objects: Arc<dyn OwnObjects>) {
        // There is one registry of objects in a process.
        let _ = self.objects().own.set(objects);
    }
}

impl<E: Engine> Cluster<E> {
    async fn call_objects(&self, to: NodeId, call: Vec<u8>, until: Instant) -> Result<Vec<u8>, CallFailure> {
        if self.reach().state().is_away {
            // It would not be sent, or much later.
            return Err(CallFailure::NotMade);
        }
        let first = self.objects().pieces.first(call);
        if first.is_empty() {
            // Too long: nothing here has that size.
            return Err(CallFailure::NotMade);
        }
        let most = until.saturating_duration_since(now());
        let reply = match self.engine().request(to, message(CALL, &first), most).await {
            Ok(reply) => reply,
            Err(RequestFailure::NobodyListens) => {
                self.probed(to, probed(Err(RequestFailure::NobodyListens)));
                return Err(CallFailure::NotMade);
            }
            Err(RequestFailure::NoAnswer) => return Err(CallFailure::Unknown),
        };
        let answer = self.fetch_pieces(to, &reply, until).await.ok_or(CallFailure::Unknown)?;
        // An empty answer is that of a node without objects, or with too many calls.
        if answer.is_empty() { Err(CallFailure::NotMade) } else { Ok(answer) }
    }

    /// Puts something together whose first piece another node sent.
    async fn fetch_pieces(&self, from: NodeId, first: &[u8], until: Instant) -> Option<Vec<u8>> {
        let (answer, total, mut bytes) = match Reply::decode(first)? {
            Reply::Whole(bytes) => return Some(bytes.to_vec()),
            Reply::First { answer, total, bytes } => (answer, total, bytes.to_vec()),
        };
        while bytes.len() < total {
            let at = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let ask = message(FURTHER, &[answer.to_be_bytes(), at.to_be_bytes()].concat());
            let most = until.saturating_duration_since(now()).min(PIECE);
            let piece = self.engine().request(from, ask, most).await.ok()?;
            match Reply::decode(&piece) {
                Some(Reply::Whole(piece)) if !piece.is_empty() => bytes.extend_from_slice(piece),
                _ => return None,
            }
        }
        Some(bytes)
    }

    /// Answers a message of another node about objects.
    pub(super) async fn answer_object_call(&self, from: NodeId, body: Bytes) -> Bytes {
        let calls = self.objects();
        match body.split_first() {
            Some((&CALL, first)) => {
                let answer = self.carry_out_call(from, first).await.unwrap_or_default();
                calls.pieces.first(answer)
            }
            Some((&FURTHER, rest)) => {
                let read = || {
                    let (answer, at) = rest.split_first_chunk()?;
                    Some((u64::from_be_bytes(*answer), u64::from_be_bytes(at.try_into().ok()?)))
                };
                read().map(|(answer, at)| calls.pieces.next(answer, at)).unwrap_or_default()
            }
            _ => Bytes::new(),
        }
    }

    /// None if nothing was done.
    async fn carry_out_call(&self, from: NodeId, first: &[u8]) -> Option<Vec<u8>> {
        let calls = self.objects();
        let (own, _call) = (calls.own.get()?, calls.calls.try_acquire().ok()?);
        let until = now() + PIECE;
        let bytes = match Reply::decode(first)? {
            Reply::First { total, .. } => u32::try_from(total).ok()?,
            Reply::Whole(_) => 0,
        };
        let _space = timeout_at(until, calls.arriving.acquire_many(bytes)).await.ok()?.ok()?;
        let call = self.fetch_pieces(from, first, until).await?;
        Some(own.answer(from, call).await)
    }
}
