//! Entries of a journal, and their bytes.
//!
//! The bytes are JSON, so that a reader of the version before or after ignores fields that it does not know. A *line*
//! that it does not know is an error: it must not act on a state that it understands in part. From 1 KiB on the
//! JSON is compressed, after a byte that no JSON begins with.

use std::fmt::Debug;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::compression::{deflate, inflate};
use crate::link::LinkId;
use crate::node::NodeId;

/// Version of the format. It grows by one with each release that changes what a reader has to know.
pub const VERSION: u16 = 1;

/// Minimum size in bytes of JSON that is compressed.
const COMPRESSED_FROM: usize = 1024;

/// The first byte of compressed JSON.
const COMPRESSED: u8 = 1;

/// The state of a subject, which the lines of its journal lead to.
pub trait State: Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned {
    /// A change of the state.
    type Line: Clone + Debug + PartialEq + Serialize + DeserializeOwned;

    /// Carries out a change.
    fn apply(&mut self, line: &Self::Line);

    /// Takes the state that an entry tells as a whole. Of what there was before, only that stays which a whole
    /// state does not tell.
    fn replace(&mut self, whole: Self);

    /// A number that grows with the lines that may be needed after a whole state was written.
    fn mark(&self) -> u64;

    /// The mark that everybody has passed: lines up to it are not needed any more.
    fn passed(&self) -> u64;
}

/// An entry of a journal. It is appended as one, so its lines are stored together or not at all.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<S: State> {
    /// The subject's name. Names are shortened to a hash where entries are stored; a reader compares them.
    pub subject: Arc<str>,
    /// The node that writes it.
    pub by: NodeId,
    /// One more than that of the entry that the owner's claim follows.
    pub epoch: u64,
    /// The number among the entries of this owner and epoch; the claim is 0.
    pub number: u64,
    /// For each link the item up to which everything that the items caused is in this entry or an earlier one.
    pub taken: Vec<(LinkId, u64)>,
    /// The lines.
    pub lines: Vec<Line<S>>,
}

/// A line of an entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", bound = "")]
pub enum Line<S: State> {
    /// The writer owns the subject from here on.
    Claimed {
        /// The owner before, if there was one.
        from: Option<NodeId>,
    },
    /// A change of the state.
    Change(S::Line),
    /// The state as a whole, so that entries before it are not needed to know it.
    Whole(Box<Whole<S>>),
    /// The owner is leaving.
    HandedOver {
        /// The node that is to claim the subject, if there is one.
        to: Option<NodeId>,
    },
    /// The subject has ended; the next claim begins with an empty state.
    Ended,
}

/// A whole state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Whole<S: State> {
    /// The state.
    pub state: S,
    /// See [`Entry::taken`], for all links.
    pub taken: Vec<(LinkId, u64)>,
}

/// A stored entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Record<S: State> {
    /// The number that the engine gave it, greater than those of the subject's earlier entries.
    pub sequence: u64,
    /// The number that its writer expected of the subject's last entry; 0 for none.
    pub expected: u64,
    /// The entry.
    pub entry: Arc<Entry<S>>,
}

/// The bytes are no entry that this version may act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// A version that is not this one, nor next to it.
    #[error("an entry of version {0}, of which this release (version {VERSION}) cannot know enough")]
    UnknownVersion(u16),
    /// More bytes than allowed.
    #[error("an entry of more than {most} bytes")]
    TooLong {
        /// The limit.
        most: usize,
    },
    /// Not an entry, or one with an unknown line.
    #[error("not an entry, or one with a line that this release does not know")]
    Malformed,
}

/// An entry as it is written. The state is a whole in itself, which `serde` cannot borrow.
#[derive(Serialize)]
#[serde(bound = "")]
struct Written<'a, S: State> {
    v: u16,
    subject: &'a str,
    by: NodeId,
    epoch: u64,
    n: u64,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    taken: &'a [(LinkId, u64)],
    lines: &'a [Line<S>],
}

#[derive(Deserialize)]
struct Version {
    v: u16,
}

#[derive(Deserialize)]
#[serde(bound = "")]
struct ReadEntry<S: State> {
    subject: Arc<str>,
    by: NodeId,
    epoch: u64,
    n: u64,
    #[serde(default)]
    taken: Vec<(LinkId, u64)>,
    lines: Vec<Line<S>>,
}

impl<S: State> Entry<S> {
    /// The entry by which a node claims a subject.
    pub fn claim(subject: Arc<str>, by: NodeId, epoch: u64, from: Option<NodeId>) -> Self {
        Self { subject, by, epoch, number: 0, taken: Vec::new(), lines: vec![Line::Claimed { from }] }
    }

    /// True for a claim.
    pub fn is_claim(&self) -> bool {
        self.number == 0 && matches!(self.lines.first(), Some(Line::Claimed { .. }))
    }

    /// True if both have the same place in the same owner's sequence.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.by, self.epoch, self.number) == (other.by, other.epoch, other.number)
    }

    /// Encodes the entry.
    #[expect(clippy::expect_used, reason = "lines are plain data")]
    pub fn encode(&self) -> Vec<u8> {
        let Self { subject, by, epoch, number, taken, lines } = self;
        let written = Written { v: VERSION, subject, by: *by, epoch: *epoch, n: *number, taken, lines };
        let json = serde_json::to_vec(&written).expect("an entry is plain data");
        if json.len() < COMPRESSED_FROM {
            return json;
        }
        let mut bytes = vec![COMPRESSED];
        deflate(&json, &mut bytes);
        bytes
    }

    /// Decodes an entry of at most `most` bytes of JSON.
    ///
    /// # Errors
    /// [`EntryError`].
    pub fn decode(bytes: &[u8], most: usize) -> Result<Self, EntryError> {
        let inflated;
        let json = match bytes.split_first() {
            Some((&COMPRESSED, compressed)) => {
                inflated = inflate(compressed, most).ok_or(EntryError::Malformed)?;
                &inflated[..]
            }
            _ => bytes,
        };
        if json.len() > most {
            return Err(EntryError::TooLong { most });
        }
        let Version { v } = serde_json::from_slice(json).map_err(|_| EntryError::Malformed)?;
        if v.abs_diff(VERSION) > 1 {
            return Err(EntryError::UnknownVersion(v));
        }
        let read: ReadEntry<S> = serde_json::from_slice(json).map_err(|_| EntryError::Malformed)?;
        let ReadEntry { subject, by, epoch, n, taken, lines } = read;
        Ok(Self { subject, by, epoch, number: n, taken, lines })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A list of numbers, of which the last ones are needed until they are passed.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Log {
        pub(crate) sum: u64,
        pub(crate) count: u64,
        pub(crate) passed: u64,
        #[serde(skip)]
        pub(crate) seen: Vec<u64>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(crate) enum LogLine {
        Number(u64),
        Passed(u64),
        Text(String),
    }

    impl State for Log {
        type Line = LogLine;

        fn apply(&mut self, line: &LogLine) {
            match line {
                LogLine::Number(number) => {
                    self.sum = self.sum.wrapping_add(*number);
                    self.count += 1;
                    self.seen.push(*number);
                }
                LogLine::Passed(passed) => self.passed = self.passed.max(*passed).min(self.count),
                LogLine::Text(_) => {}
            }
        }

        fn replace(&mut self, whole: Self) {
            let seen = std::mem::take(&mut self.seen);
            *self = Self { seen, ..whole };
        }

        fn mark(&self) -> u64 {
            self.count
        }

        fn passed(&self) -> u64 {
            self.passed
        }
    }

    fn sample() -> Entry<Log> {
        let link = LinkId { node: NodeId::new(0xa1b2_c3d4), number: 2 };
        let whole =
            Whole { state: Log { sum: 7, count: 2, passed: 1, seen: Vec::new() }, taken: vec![(link, 5)] };
        Entry {
            subject: "weekly é".into(),
            by: NodeId::new(7),
            epoch: 3,
            number: 41,
            taken: vec![(link, 9)],
            lines: vec![
                Line::Claimed { from: Some(NodeId::new(1)) },
                Line::Change(LogLine::Number(5)),
                Line::Whole(Box::new(whole)),
                Line::HandedOver { to: None },
                Line::Ended,
            ],
        }
    }

    /// As a release of version 1 wrote it.
    const RECORDED: &str = r#"{"v":1,"subject":"weekly é","by":7,"epoch":3,"n":41,"taken":[[{"node":2712847316,"number":2},9]],"lines":[{"claimed":{"from":1}},{"change":{"number":5}},{"whole":{"state":{"sum":7,"count":2,"passed":1},"taken":[[{"node":2712847316,"number":2},5]]}},{"handedOver":{"to":null}},"ended"]}"#;

    #[test]
    fn recorded_entry_is_read_and_written() {
        assert_eq!(Entry::decode(RECORDED.as_bytes(), 4096), Ok(sample()));
        assert_eq!(String::from_utf8(sample().encode()).unwrap(), RECORDED);
    }

    #[test]
    fn adjacent_versions_are_read() {
        let of = |text: &str| Entry::<Log>::decode(text.as_bytes(), 4096);
        let next = RECORDED.replace(r#""v":1,"#, r#""v":2,"new":[{}],"#);
        assert_eq!(of(&next), Ok(sample()), "an unknown field is ignored");
        assert_eq!(of(&RECORDED.replace(r#""v":1"#, r#""v":3"#)), Err(EntryError::UnknownVersion(3)));
        let unknown = RECORDED.replace(r#""ended""#, r#"{"sealed":{}}"#);
        assert_eq!(of(&unknown), Err(EntryError::Malformed), "an unknown line is not");
        assert_eq!(of(&RECORDED.replace("number\":5", "numeral\":5")), Err(EntryError::Malformed));
    }

    #[test]
    fn long_entry_is_compressed_and_bounded() {
        let text = LogLine::Text("x".repeat(100_000));
        let entry = Entry { lines: vec![Line::Change(text)], ..sample() };
        let bytes = entry.encode();
        assert!(bytes.len() < 2000, "{}", bytes.len());
        assert_eq!(Entry::decode(&bytes, 200_000), Ok(entry));
        assert_eq!(Entry::<Log>::decode(&bytes, 99_999), Err(EntryError::TooLong { most: 99_999 }));
        let json = sample().encode();
        assert_eq!(
            Entry::<Log>::decode(&json, json.len() - 1).unwrap_err().to_string(),
            format!("an entry of more than {} bytes", json.len() - 1)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_entry_or_an_error(bytes: Vec<u8>) {
            let _ = Entry::<Log>::decode(&bytes, 1000);
        }

        #[test]
        fn entries_survive_encoding(numbers: Vec<u64>, by: u32, epoch: u64, number: u64, subject: String) {
            let lines = numbers.into_iter().map(|number| Line::Change(LogLine::Number(number))).collect();
            let entry = Entry::<Log> {
                subject: subject.into(), by: NodeId::new(by), epoch, number, taken: Vec::new(), lines,
            };
            prop_assert_eq!(Entry::decode(&entry.encode(), 1 << 20), Ok(entry));
        }
    }
}
