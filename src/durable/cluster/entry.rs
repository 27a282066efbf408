//! **Pure**: the entries of an object's journal as bytes.
//!
//! A *step* is what a batch of calls changed, or the whole state. It is JSON, compressed if that makes it shorter, in as
//! many entries as its length needs; it counts once the last of them is stored. Each entry has a header, so that the last
//! one tells the owner and what an operator's list shows, without the values.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use satsuma_cluster::compression::{deflate, inflate};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::id::{NodeId, ObjectId};
use crate::store::objects::{Alarm, ObjectRow, Values};

/// Version of the format. A reader of another one leaves the object alone.
const VERSION: u8 = 1;

/// Size in bytes of a step's part in one entry. The start of a node requires a little more of the engine, whatever the
/// limits on clients.
pub const PART: usize = 96 << 10;

/// Minimum size in bytes of a step that is compressed.
const COMPRESSED_FROM: usize = 1024;

/// Maximum size in bytes of a step: the largest that a setting allows an object, and its escapes.
const MAX_STEP: usize = 2 << 30;

/// The head of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The object. Names are shortened to a hash where entries are stored; a reader compares them.
    pub object: Arc<str>,
    /// The node that writes it.
    pub by: NodeId,
    /// One more than that of the entry which the owner's claim follows.
    pub epoch: u64,
    /// The number among the entries of this owner and epoch; the claim is 0.
    #[serde(rename = "n")]
    pub number: u64,
    /// The kind of step.
    pub step: StepKind,
    /// The number of this part of the step.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub part: u32,
    /// The number of parts that follow.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left: u32,
    /// True if the step's JSON is compressed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deflated: bool,
    /// The object as it is once this entry is stored.
    pub row: Row,
}

/// The kind of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StepKind {
    /// Nothing but a claim.
    Claim,
    /// Changes of the state.
    Changes,
    /// The state as a whole, so that entries before it are not needed.
    Whole,
}

/// Everything of an object but its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    keys: u64,
    bytes: u64,
    version: u64,
    changed_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alarm: Option<u64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    failures: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl From<&ObjectRow> for Row {
    fn from(row: &ObjectRow) -> Self {
        let ObjectRow { keys, bytes, version, changed_at, alarm } = *row;
        let failures = alarm.map_or(0, |alarm| alarm.failures);
        Self { keys, bytes, version, changed_at, alarm: alarm.map(|alarm| alarm.due), failures }
    }
}

impl From<Row> for ObjectRow {
    fn from(row: Row) -> Self {
        let Row { keys, bytes, version, changed_at, alarm, failures } = row;
        Self { keys, bytes, version, changed_at, alarm: alarm.map(|due| Alarm { due, failures }) }
    }
}

/// The bytes are no entry that this release may act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Another version, or no entry at all.
    #[error("an entry of another release, or none of this server")]
    Entry,
    /// Two objects have one journal.
    #[error("an entry of another object")]
    Other,
    /// A step that is not what its header says.
    #[error("a step that cannot be read")]
    Step,
    /// Entries are missing.
    #[error("the beginning of the journal is missing")]
    Beginning,
}

/// Encodes an entry.
#[expect(clippy::expect_used, reason = "a header is plain data, and shorter than 64 KiB")]
pub fn encode(header: &Header, part: &[u8]) -> Bytes {
    let head = serde_json::to_vec(header).expect("a header is plain data");
    let length = u16::try_from(head.len()).expect("a header is short");
    [&[VERSION], &length.to_be_bytes()[..], &head, part].concat().into()
}

/// Decodes an entry of an object.
///
/// # Errors
/// [`Unreadable`].
pub fn decode<'a>(object: &ObjectId, bytes: &'a [u8]) -> Result<(Header, &'a [u8]), Unreadable> {
    let (header, part) = decode_any(bytes)?;
    if *header.object != *object.as_str() {
        return Err(Unreadable::Other);
    }
    Ok((header, part))
}

/// Decodes an entry of any object.
///
/// # Errors
/// [`Unreadable`].
pub fn decode_any(bytes: &[u8]) -> Result<(Header, &[u8]), Unreadable> {
    let read = || {
        let ([version, high, low], rest) = bytes.split_first_chunk()?;
        if *version != VERSION {
            return None;
        }
        let (head, part) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
        Some((serde_json::from_slice(head).ok()?, part))
    };
    read().ok_or(Unreadable::Entry)
}

/// A step as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// True if the bytes are compressed.
    pub deflated: bool,
    /// The bytes, for as many entries as they need.
    pub bytes: Vec<u8>,
}

impl Step {
    /// The parts, of which there is at least one.
    pub fn parts(&self) -> Vec<&[u8]> {
        if self.bytes.is_empty() { vec![&[]] } else { self.bytes.chunks(PART).collect() }
    }
}

/// The new values of changed keys; none for a removed one.
pub type Changes = BTreeMap<Arc<str>, Option<Arc<RawValue>>>;

#[derive(Serialize)]
struct Written<'a> {
    put: BTreeMap<&'a str, &'a RawValue>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    delete: Vec<&'a str>,
}

#[derive(Deserialize)]
struct Read {
    put: BTreeMap<Arc<str>, Box<RawValue>>,
    #[serde(default)]
    delete: Vec<Arc<str>>,
}

/// The step of changes.
pub fn changes(changes: &Changes) -> Step {
    let put = changes.iter().filter_map(|(key, value)| Some((&**key, &**value.as_ref()?))).collect();
    let delete = changes.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| &**key).collect();
    written(&Written { put, delete })
}

/// The step of a whole state.
pub fn whole(values: &Values) -> Step {
    let put = values.iter().map(|(key, value)| (&**key, &**value)).collect();
    written(&Written { put, delete: Vec::new() })
}

#[expect(clippy::expect_used, reason = "texts and valid JSON are JSON")]
fn written(step: &Written<'_>) -> Step {
    let json = serde_json::to_vec(step).expect("values are JSON");
    if json.len() >= COMPRESSED_FROM {
        let mut bytes = Vec::new();
        deflate(&json, &mut bytes);
        if bytes.len() < json.len() {
            return Step { deflated: true, bytes };
        }
    }
    Step { deflated: false, bytes: json }
}

/// Reads the changes of a step; a whole state is the changes of an empty one.
///
/// # Errors
/// [`Unreadable::Step`].
pub fn read(step: &Step) -> Result<Changes, Unreadable> {
    let inflated;
    let json = match step.deflated {
        true => {
            let plain = inflate(&step.bytes, MAX_STEP).filter(|plain| plain.len() <= MAX_STEP);
            inflated = plain.ok_or(Unreadable::Step)?;
            &inflated
        }
        false => &step.bytes,
    };
    let Read { put, delete } = serde_json::from_slice(json).map_err(|_| Unreadable::Step)?;
    let put = put.into_iter().map(|(key, value)| (key, Some(Arc::from(value))));
    Ok(put.chain(delete.into_iter().map(|key| (key, None))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Arc<RawValue> {
        Arc::from(RawValue::from_string(text.to_owned()).unwrap())
    }

    fn header() -> Header {
        let row = ObjectRow {
            keys: 1,
            bytes: 6,
            version: 3,
            changed_at: 1_780_000_000_000,
            alarm: Some(Alarm { due: 7, failures: 2 }),
        };
        Header {
            object: "é:1".into(),
            by: NodeId::new(7),
            epoch: 3,
            number: 41,
            step: StepKind::Changes,
            part: 1,
            left: 2,
            deflated: true,
            row: Row::from(&row),
        }
    }

    /// As this release writes it; the next one has to read it.
    #[test]
    fn recorded_entry_is_read_and_written() {
        let head = r#"{"object":"é:1","by":7,"epoch":3,"n":41,"step":"changes","part":1,"left":2,"deflated":true,"row":{"keys":1,"bytes":6,"version":3,"changedAt":1780000000000,"alarm":7,"failures":2}}"#;
        let recorded = [&[1, 0, u8::try_from(head.len()).unwrap()], head.as_bytes(), &[8, 9]].concat();
        assert_eq!(encode(&header(), &[8, 9]), recorded);
        let object = ObjectId::parse("é:1").unwrap();
        assert_eq!(decode(&object, &recorded), Ok((header(), &[8, 9][..])));
        assert_eq!(decode(&ObjectId::parse("e").unwrap(), &recorded), Err(Unreadable::Other));
        let mut next = recorded.clone();
        next[0] = 2;
        assert_eq!(decode_any(&next), Err(Unreadable::Entry));
        for length in 0..head.len() + 3 {
            assert!(decode_any(&recorded[..length]).is_err(), "{length}");
        }
        let short = r#"{"object":"o","by":7,"epoch":1,"n":0,"step":"claim","row":{"keys":0,"bytes":0,"version":0,"changedAt":0},"new":[1]}"#;
        let bytes = [&[1, 0, u8::try_from(short.len()).unwrap()], short.as_bytes()].concat();
        let (claim, part) = decode_any(&bytes).unwrap();
        assert_eq!((claim.step, claim.left, part.len()), (StepKind::Claim, 0, 0), "a new field is ignored");
    }

    #[test]
    fn long_step_has_several_parts() {
        // Text that does not compress.
        let mut state = 1_u64;
        let text: String = (0..3 * PART)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                char::from(b'0' + u8::try_from(state >> 58).unwrap())
            })
            .map(|char| if char.is_ascii_alphanumeric() { char } else { '-' })
            .collect();
        let changed = Changes::from([
            ("a".into(), Some(json(&format!("\"{text}\"")))),
            ("b\"".into(), None),
            ("c".into(), Some(json("1.0"))),
        ]);
        let step = changes(&changed);
        assert!(step.deflated && step.parts().len() > 1, "{}", step.bytes.len());
        let joined = Step { deflated: true, bytes: step.parts().concat() };
        let read = read(&joined).unwrap();
        assert_eq!(read.keys().collect::<Vec<_>>(), changed.keys().collect::<Vec<_>>());
        assert_eq!(read["a"].as_ref().unwrap().get().len(), text.len() + 2);
        assert_eq!((read["c"].as_ref().unwrap().get(), read["b\""].is_none()), ("1.0", true));
        let cut = Step { bytes: step.bytes[..step.bytes.len() - 9].to_vec(), ..step };
        assert!(super::read(&cut).is_err());
    }

    #[test]
    fn empty_state_is_a_step() {
        let step = whole(&Values::new());
        assert_eq!((step.parts().len(), &*step.bytes), (1, &b"{\"put\":{}}"[..]));
        assert!(read(&step).unwrap().is_empty());
    }
}
