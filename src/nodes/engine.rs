//! The engine between nodes, as they see it: journals with conditional appends, and messages that may be lost.
//!
//! Little is asked of it, so that little can break: appends with a condition, single reads, purges, and plain messages.
//! There is no lease, no queue and no consumer with a state of its own. Every answer may be lost, and no
//! call waits for ever.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use satsuma_cluster::NodeId;
use satsuma_cluster::writer::Appended;

use crate::id::{ObjectId, RoomName};

/// The engine, as one node sees it. Clones are the same node.
///
/// A future that is dropped may have had its effect. None takes much longer than the time after which the writer of a
/// journal asks again, [`ANSWER_TIMEOUT`](satsuma_cluster::writer::ANSWER_TIMEOUT).
pub trait Engine: Clone + Send + Sync + 'static {
    /// A subscription to a subject.
    type Following: Following;

    /// Appends an entry to a subject's journal if its last entry has this number; 0 for none.
    fn append(&self, subject: Subject, expected: u64, entry: Bytes) -> impl Future<Output = Appended> + Send;

    /// Reads the last entry of a journal.
    fn last(&self, subject: Subject) -> impl Future<Output = Result<Option<StoredEntry>, NoAnswer>> + Send;

    /// Reads all entries that a journal still has, in order.
    fn all(&self, subject: Subject) -> impl Future<Output = Result<Vec<StoredEntry>, NoAnswer>> + Send;

    /// Removes the entries below a number. That it did not succeed is no harm: what is purged later is the same.
    fn purge(&self, subject: Subject, below: u64) -> impl Future<Output = ()> + Send;

    /// The subjects of a kind that have entries.
    fn subjects(&self, kind: SubjectKind) -> impl Future<Output = Result<Vec<Subject>, NoAnswer>> + Send;

    /// The space that a kind of journals takes.
    fn stored(&self, kind: SubjectKind) -> impl Future<Output = Result<Stored, NoAnswer>> + Send;

    /// Sends a message to a node.
    fn send(&self, to: NodeId, message: Bytes) -> impl Future<Output = ()> + Send;

    /// Sends a message to a node and waits for its answer.
    fn request(
        &self,
        to: NodeId,
        message: Bytes,
        timeout: Duration,
    ) -> impl Future<Output = Result<Bytes, RequestFailure>> + Send;

    /// Answers the request of another node.
    fn reply(&self, to: ReplyAddress, message: Bytes) -> impl Future<Output = ()> + Send;

    /// Sends a message to all nodes, this one too.
    fn send_to_all(&self, message: Bytes) -> impl Future<Output = ()> + Send;

    /// Sends a message to the nodes that follow a subject, to this one too if it does.
    fn broadcast(&self, subject: Subject, message: Bytes) -> impl Future<Output = ()> + Send;

    /// Follows a subject: its entries as they are stored, and its broadcasts, until the result is dropped. What is
    /// stored from now on arrives unless it is lost, which its numbers show.
    fn follow(&self, subject: Subject) -> impl Future<Output = Result<Self::Following, NoAnswer>> + Send;

    /// The server that this node is connected to, or was last.
    fn server(&self) -> EngineServer;

    /// Waits until everything that was sent before has reached the engine, or cannot.
    fn flush(&self) -> impl Future<Output = ()> + Send;
}

/// A subscription to the stored entries and broadcasts of a subject.
pub trait Following: Send + 'static {
    /// Waits for the next one; none if the engine is gone for good. Nothing is lost if the wait is given up.
    fn next(&mut self) -> impl Future<Output = Option<Followed>> + Send;
}

/// News of a followed subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// An entry was stored.
    Stored(StoredEntry),
    /// A node sent a broadcast.
    Broadcast(Bytes),
}

/// News of the engine, for the one task that a node has for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// A message to this node.
    Message {
        /// The node that says that it sent it.
        from: NodeId,
        /// The message.
        message: Bytes,
        /// The address of the answer, if one is expected.
        reply: Option<ReplyAddress>,
    },
    /// A message to all nodes.
    ToAll(Bytes),
    /// The engine can be reached.
    Connected,
    /// The connection to the engine is lost. It is made again without an end.
    Disconnected,
}

/// A server of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineServer {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// A stored entry, as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its number, greater than those of the subject's earlier entries.
    pub sequence: u64,
    /// The number that its writer expected of the subject's last entry; 0 for none.
    pub expected: u64,
    /// The entry.
    pub bytes: Bytes,
}

/// The space that journals take in the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Their number.
    pub subjects: u64,
    /// Bytes of their entries.
    pub bytes: u64,
}

/// The engine did not answer in time, or cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no answer from the engine")]
pub struct NoAnswer;

/// A request to a node failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestFailure {
    /// The engine says that nobody listens at the node's address.
    #[error("nobody listens at the node's address")]
    NobodyListens,
    /// Nothing came in time.
    #[error("no answer from the node")]
    NoAnswer,
}

/// The address of the answer to a request, which only the engine understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyAddress(String);

impl ReplyAddress {
    /// An address of the engine.
    pub fn new(address: impl Into<String>) -> Self {
        Self(address.into())
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The kind of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SubjectKind {
    /// A room.
    Room,
    /// A durable object.
    Object,
    /// A setting that all nodes share.
    Setting,
    /// The alarm of a durable object.
    Alarm,
}

impl SubjectKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Room, Self::Object, Self::Setting, Self::Alarm];

    /// The kind as it is written in addresses.
    pub fn token(self) -> &'static str {
        match self {
            Self::Room => "room",
            Self::Object => "object",
            Self::Setting => "setting",
            Self::Alarm => "alarm",
        }
    }
}

/// The address of a journal: its kind, and a hash in place of a name of any length and alphabet. Its entries have the
/// name itself, so that a reader sees if two names have one hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    kind: SubjectKind,
    hash: u128,
}

impl Subject {
    /// The subject of a room.
    pub fn room(name: &RoomName) -> Self {
        Self::new(SubjectKind::Room, name.as_str())
    }

    /// The subject of a durable object.
    pub fn object(id: &ObjectId) -> Self {
        Self::new(SubjectKind::Object, id.as_str())
    }

    /// The subject of a durable object's alarm.
    pub fn alarm(id: &ObjectId) -> Self {
        Self::new(SubjectKind::Alarm, id.as_str())
    }

    /// The subject of a setting with a key.
    pub fn setting(key: &str) -> Self {
        Self::new(SubjectKind::Setting, key)
    }

    fn new(kind: SubjectKind, name: &str) -> Self {
        let hash = digest(&SHA256, name.as_bytes());
        let half = hash.as_ref().iter().take(16);
        Self { kind, hash: half.fold(0, |hash, byte| hash << 8 | u128::from(*byte)) }
    }

    /// Parses the [`fmt::Display`] form.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, hash) = text.split_once('.')?;
        let kind = SubjectKind::ALL.into_iter().find(|known| known.token() == kind)?;
        let hash = URL_SAFE_NO_PAD.decode(hash).ok()?;
        Some(Self { kind, hash: u128::from_be_bytes(hash.try_into().ok()?) })
    }

    /// The kind.
    pub fn kind(self) -> SubjectKind {
        self.kind
    }

    /// Its place among a number of shards, over which all subjects are spread evenly.
    pub fn shard(self, shards: u16) -> u16 {
        let shards = u128::from(shards.max(1));
        u16::try_from(self.hash % shards).unwrap_or_default()
    }
}

/// For example `room.ungWv48Bz-pBQUDeXa4iIw`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = URL_SAFE_NO_PAD.encode(self.hash.to_be_bytes());
        write!(f, "{}.{hash}", self.kind.token())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another release has to find the journals of this one.
    #[test]
    fn subjects_are_hashes_of_names() {
        let room = |name: &str| Subject::room(&RoomName::parse(name).unwrap());
        assert_eq!(room("abc").to_string(), "room.ungWv48Bz-pBQUDeXa4iIw");
        let object = Subject::object(&ObjectId::parse("abc").unwrap());
        assert_eq!(object.to_string(), "object.ungWv48Bz-pBQUDeXa4iIw");
        for subject in [room("abc"), room("é.> *"), object] {
            assert_eq!(Subject::parse(&subject.to_string()), Some(subject));
        }
        for bad in
            ["", "room", "room.", "room.abc", "door.ungWv48Bz-pBQUDeXa4iIw", "room.ungWv48Bz-pBQUDeXa4iIw="]
        {
            assert_eq!(Subject::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn shards_are_filled_evenly() {
        let mut counts = [0; 4];
        for number in 0..4000 {
            let name = RoomName::parse(&format!("room {number}")).unwrap();
            counts[usize::from(Subject::room(&name).shard(4))] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }
}
