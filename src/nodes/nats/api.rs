//! JetStream's API as JSON: the few requests that a journal needs, and their answers.
//!
//! They are plain messages, so nothing of the client's JetStream part is used: its types follow the newest server,
//! and refuse answers of older ones.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use satsuma_cluster::writer::Appended;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::nodes::engine::{StoredEntry, Subject, SubjectKind};

/// The header with the condition of an append, which stays with the entry.
pub const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

/// The header with an entry's number, in what is read and in what is republished.
pub const SEQUENCE: &str = "Nats-Sequence";

/// The header with the number of entries after this one, where a server takes requests for several.
pub const PENDING: &str = "Nats-Num-Pending";

/// The version of the layout below. Nodes with another one do not share streams.
const LAYOUT: u32 = 1;

/// Time after which an entry of a room is removed. The owner of a room writes its whole state more often, so nothing but
/// rooms that have ended are forgotten, which nobody else removes.
const ROOM_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// The names of everything in NATS.
#[derive(Clone, Debug)]
pub struct Names {
    /// The first part of all names.
    pub prefix: String,
    /// The number of streams.
    pub shards: u16,
}

impl Names {
    /// The stream of a kind and shard.
    pub fn stream(&self, kind: SubjectKind, shard: u16) -> String {
        format!("{}_{}_{shard}", self.prefix, kind.token())
    }

    /// The stream of a subject.
    pub fn stream_of(&self, subject: Subject) -> String {
        self.stream(subject.kind(), subject.shard(self.shards))
    }

    /// The journal of a subject; only JetStream listens there.
    pub fn journal(&self, subject: Subject) -> String {
        format!("{}.j.{}.{subject}", self.prefix, subject.shard(self.shards))
    }

    /// All journals of a kind in a shard.
    pub fn journals(&self, kind: SubjectKind, shard: u16) -> String {
        format!("{}.j.{shard}.{}.*", self.prefix, kind.token())
    }

    /// The subject of a journal.
    pub fn subject(&self, journal: &str) -> Option<Subject> {
        let rest = journal.strip_prefix(&self.prefix)?.strip_prefix(".j.")?;
        Subject::parse(rest.split_once('.')?.1)
    }

    /// Everything that followers of a subject get.
    pub fn followed(&self, subject: Subject) -> String {
        format!("{}.d.{subject}.*", self.prefix)
    }

    /// Broadcasts to followers.
    pub fn broadcast(&self, subject: Subject) -> String {
        format!("{}.d.{subject}.b", self.prefix)
    }

    /// Messages to a node; the last part is the sender.
    pub fn node(&self, to: impl std::fmt::Display, from: impl std::fmt::Display) -> String {
        format!("{}.n.{to}.{from}", self.prefix)
    }

    /// Messages to all nodes.
    pub fn all(&self) -> String {
        format!("{}.a", self.prefix)
    }

    /// An address at which nobody listens.
    pub fn nobody(&self) -> String {
        format!("{}.x", self.prefix)
    }

    /// The stream of a kind and shard as it has to be.
    pub fn stream_config(&self, kind: SubjectKind, shard: u16, replicas: usize) -> StreamConfig {
        let Self { prefix, shards } = self;
        let max_age = match kind {
            SubjectKind::Room => ROOM_AGE,
            SubjectKind::Object | SubjectKind::Setting | SubjectKind::Alarm => Duration::ZERO,
        };
        StreamConfig {
            name: self.stream(kind, shard),
            description: format!("Satsuma's journals: layout {LAYOUT}, shard {shard} of {shards}"),
            subjects: vec![self.journals(kind, shard)],
            retention: "limits".to_owned(),
            storage: "file".to_owned(),
            discard: "new".to_owned(),
            num_replicas: replicas,
            max_consumers: -1,
            max_msgs: -1,
            max_msgs_per_subject: -1,
            max_bytes: -1,
            max_msg_size: -1,
            max_age: u64::try_from(max_age.as_nanos()).unwrap_or(u64::MAX),
            allow_direct: true,
            republish: Some(Republish {
                src: self.journals(kind, shard),
                dest: format!("{prefix}.d.{}.{{{{wildcard(1)}}}}.f", kind.token()),
            }),
        }
    }
}

/// A stream's configuration, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamConfig {
    /// Its name.
    pub name: String,
    /// Its purpose, which has the layout and the number of shards.
    #[serde(default)]
    pub description: String,
    /// The subjects that it takes.
    #[serde(default)]
    pub subjects: Vec<String>,
    retention: String,
    storage: String,
    /// A full stream refuses entries; it must not forget old ones.
    discard: String,
    /// The copies.
    pub num_replicas: usize,
    max_consumers: i64,
    max_msgs: i64,
    #[serde(default = "unlimited")]
    max_msgs_per_subject: i64,
    max_bytes: i64,
    #[serde(default = "unlimited")]
    max_msg_size: i64,
    max_age: u64,
    #[serde(default)]
    allow_direct: bool,
    republish: Option<Republish>,
}

fn unlimited() -> i64 {
    -1
}

/// The address to which a stream publishes what it stores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Republish {
    src: String,
    dest: String,
}

impl StreamConfig {
    /// The first difference that matters to a stream that there is already; none if it can be used.
    pub fn difference(&self, found: &Self) -> Option<String> {
        if self.description != found.description {
            return Some(format!(
                "its description is {:?} in place of {:?}",
                found.description, self.description
            ));
        }
        // Copies can be changed by operators at any time, and a limit of bytes is theirs to set.
        let found = Self { num_replicas: self.num_replicas, max_bytes: self.max_bytes, ..found.clone() };
        (*self != found).then(|| "its configuration was changed".to_owned())
    }
}

/// The answer to a request for a stream.
#[derive(Debug, Deserialize)]
pub struct StreamInfo {
    /// The stream's configuration.
    pub config: StreamConfig,
}

/// The answer to a request for a stream's subjects.
#[derive(Debug, Deserialize)]
pub struct SubjectsInfo {
    /// The number of all subjects.
    #[serde(default)]
    pub total: u64,
    /// The state.
    pub state: SubjectsState,
}

/// The answer to a request for a stream's size.
#[derive(Debug, Deserialize)]
pub struct SizeInfo {
    /// The state.
    pub state: SizeState,
}

/// The size of a stream.
#[derive(Debug, Deserialize)]
pub struct SizeState {
    /// Bytes of its entries.
    #[serde(default)]
    pub bytes: u64,
    /// The number of subjects with entries.
    #[serde(default)]
    pub num_subjects: u64,
}

/// The state of a stream.
#[derive(Debug, Deserialize)]
pub struct SubjectsState {
    /// The number of entries by subject.
    #[serde(default)]
    pub subjects: std::collections::BTreeMap<String, u64>,
}

/// The error of an answer.
#[derive(Debug, Deserialize)]
pub struct ApiError {
    /// JetStream's own code of the error.
    #[serde(default)]
    pub err_code: u16,
    /// The error as text.
    #[serde(default)]
    pub description: String,
}

impl ApiError {
    const NO_MESSAGE: u16 = 10037;
    const NO_STREAM: u16 = 10059;
    const NAME_IN_USE: u16 = 10058;
    const WRONG_LAST: u16 = 10071;

    /// True if there is no such stream.
    pub fn is_no_stream(&self) -> bool {
        self.err_code == Self::NO_STREAM
    }

    /// True if a stream of that name was made by somebody else.
    pub fn is_name_in_use(&self) -> bool {
        self.err_code == Self::NAME_IN_USE
    }
}

/// An answer that is an error, or none of JetStream.
#[derive(Debug)]
pub enum Failure {
    /// JetStream says so.
    Refused(ApiError),
    /// It cannot be read.
    Malformed,
}

/// Reads an answer.
///
/// # Errors
/// [`Failure`].
pub fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T, Failure> {
    #[derive(Deserialize)]
    struct Envelope {
        error: Option<ApiError>,
    }
    let Envelope { error } = serde_json::from_slice(answer).map_err(|_| Failure::Malformed)?;
    match error {
        Some(error) => Err(Failure::Refused(error)),
        None => serde_json::from_slice(answer).map_err(|_| Failure::Malformed),
    }
}

/// Reads the answer to an append.
pub fn read_appended(answer: &[u8]) -> Appended {
    #[derive(Deserialize)]
    struct Stored {
        seq: u64,
    }
    match read(answer) {
        Ok(Stored { seq }) => Appended::Stored(seq),
        Err(Failure::Refused(error)) if error.err_code == ApiError::WRONG_LAST => Appended::Refused,
        // Among others: another append to the subject is under way, of which nobody knows yet how it ends.
        Err(_) => Appended::Unknown,
    }
}

/// Reads the answer of a stream's leader to a request for the last entry.
///
/// # Errors
/// [`Failure`].
pub fn read_last(answer: &[u8]) -> Result<Option<StoredEntry>, Failure> {
    #[derive(Deserialize)]
    struct Found {
        message: Message,
    }
    #[derive(Deserialize)]
    struct Message {
        seq: u64,
        #[serde(default)]
        hdrs: String,
        #[serde(default)]
        data: String,
    }
    let Found { message } = match read(answer) {
        Err(Failure::Refused(error)) if error.err_code == ApiError::NO_MESSAGE => return Ok(None),
        other => other?,
    };
    let headers = STANDARD.decode(message.hdrs).map_err(|_| Failure::Malformed)?;
    let headers = String::from_utf8(headers).map_err(|_| Failure::Malformed)?;
    let fields = headers.lines().filter_map(|line| line.split_once(':'));
    let mut expected = fields.filter(|(name, _)| name.eq_ignore_ascii_case(EXPECTED));
    let expected = expected.next().and_then(|(_, value)| value.trim().parse().ok());
    Ok(Some(StoredEntry {
        sequence: message.seq,
        expected: expected.ok_or(Failure::Malformed)?,
        bytes: Bytes::from(STANDARD.decode(message.data).map_err(|_| Failure::Malformed)?),
    }))
}

#[cfg(test)]
mod tests {
    use crate::id::RoomName;

    use super::*;

    fn names() -> Names {
        Names { prefix: "satsuma".to_owned(), shards: 4 }
    }

    #[test]
    fn names_lead_back_to_subjects() {
        let subject = Subject::room(&RoomName::parse("abc").unwrap());
        let journal = names().journal(subject);
        assert_eq!(journal, format!("satsuma.j.{}.room.ungWv48Bz-pBQUDeXa4iIw", subject.shard(4)));
        assert_eq!(names().subject(&journal), Some(subject));
        for bad in ["", "satsuma.j.0", "other.j.0.room.ungWv48Bz-pBQUDeXa4iIw", "satsuma.j.0.room.x"] {
            assert_eq!(names().subject(bad), None, "{bad}");
        }
    }

    #[test]
    fn answers_to_appends_are_told_apart() {
        let stored = br#"{"stream":"satsuma_j_0","seq":7}"#;
        assert_eq!(read_appended(stored), Appended::Stored(7));
        let wrong = br#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 7"},"stream":"s","seq":0}"#;
        assert_eq!(read_appended(wrong), Appended::Refused);
        // A second append of the same subject, and a stream without space.
        for doubt in ["10164", "10077"] {
            let answer = format!(r#"{{"error":{{"code":503,"err_code":{doubt},"description":""}}}}"#);
            assert_eq!(read_appended(answer.as_bytes()), Appended::Unknown, "{doubt}");
        }
        assert_eq!(read_appended(b""), Appended::Unknown);
        assert_eq!(read_appended(b"{}"), Appended::Unknown);
    }

    /// As 2.9.10 and 2.15.1 answer.
    #[test]
    fn last_entry_is_read_with_its_condition() {
        let headers = STANDARD.encode("NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 3\r\n\r\n");
        let answer = format!(
            r#"{{"type":"io.nats.jetstream.api.v1.stream_msg_get_response","message":{{"subject":"s","seq":5,"hdrs":"{headers}","data":"aGk=","time":"2026-01-01T00:00:00Z"}}}}"#
        );
        let wanted = StoredEntry { sequence: 5, expected: 3, bytes: "hi".into() };
        assert_eq!(read_last(answer.as_bytes()).unwrap(), Some(wanted));
        let none = br#"{"error":{"code":404,"err_code":10037,"description":"no message found"}}"#;
        assert_eq!(read_last(none).unwrap(), None);
        assert!(
            read_last(br#"{"message":{"seq":5,"data":"aGk="}}"#).is_err(),
            "nobody knows what it continues"
        );
    }

    #[test]
    fn stream_of_another_layout_is_refused() {
        let wanted = names().stream_config(SubjectKind::Room, 1, 3);
        let json = serde_json::to_string(&wanted).unwrap();
        let found: StreamConfig = serde_json::from_str(&json).unwrap();
        assert_eq!(wanted.difference(&StreamConfig { num_replicas: 1, ..found.clone() }), None);
        let other = Names { shards: 8, ..names() }.stream_config(SubjectKind::Room, 1, 3);
        assert!(wanted.difference(&other).unwrap().contains("shard 1 of 8"));
        let lossy = StreamConfig { discard: "old".to_owned(), ..found };
        assert!(wanted.difference(&lossy).is_some());
    }
}
