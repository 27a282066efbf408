//! Messages between nodes, and their bytes: pulses to all, and messages to one.
//!
//! A pulse is JSON, of which a reader ignores fields that it does not know. A message to one node is a header of a few
//! bytes and contents that belong to a subject, or to none; their bytes are those of whoever owns the subject.

use serde::{Deserialize, Serialize};

use crate::membership::Heartbeat;

/// Version of the format.
const VERSION: u8 = 1;

/// Maximum size in bytes of a pulse.
pub const MAX_PULSE_BYTES: usize = 4096;

/// Maximum size in bytes of a subject's name.
pub const MAX_NAME_BYTES: usize = 1024;

const PROBE: u8 = 0;
const SUBJECT: u8 = 1;
const REQUEST: u8 = 2;
const MEDIA_CALL: u8 = 3;
const MEDIA_OF: u8 = 4;
const MEDIA_PLACES: u8 = 5;
const OBJECT_CALL: u8 = 6;

/// The message of a node to all others, several times a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// The sign of life.
    #[serde(flatten)]
    pub heartbeat: Heartbeat,
    /// True in the last pulse of a node, which ends.
    #[serde(default)]
    pub is_last: bool,
    /// The node's name, for people.
    #[serde(default)]
    pub name: String,
    /// The release that it runs.
    #[serde(default)]
    pub release: String,
    /// Number of rooms that it owns.
    #[serde(default)]
    pub owned: u32,
    /// Number of rooms whose members it has, while another node owns them.
    #[serde(default)]
    pub relayed: u32,
    /// Number of its clients.
    #[serde(default)]
    pub clients: u32,
    /// True if it wants the events of the others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wants_events: bool,
    /// The fingerprint of the secret that all nodes share. Whoever has another one is none of them.
    #[serde(default)]
    pub fingerprint: String,
}

/// A message to one node. The engine tells who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeMessage<'a> {
    /// A question for a sign of life.
    Probe,
    /// A message about a subject.
    Subject {
        /// The subject's name.
        name: &'a str,
        /// The message.
        body: &'a [u8],
    },
    /// A request about anything, whose answer is the reply. A release that does not know it replies nothing.
    Request {
        /// The request.
        body: &'a [u8],
    },
    /// A call about a media session of the recipient, which answers it.
    MediaCall(&'a [u8]),
    /// A call about a durable object of the recipient, or for a piece of a long one or of its answer.
    ObjectCall(&'a [u8]),
    /// The question on which node the media of a subject are, by its name. The answer has the four bytes of that node,
    /// or none.
    MediaOf(&'a str),
    /// The places of a subject's members in the directory of media.
    MediaPlaces {
        /// The subject's name.
        name: &'a str,
        /// The places.
        body: &'a [u8],
    },
}

/// The bytes are no message that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a message of a node, or one that this release does not know")]
pub struct UnknownMessage;

impl Pulse {
    /// Encodes the pulse.
    #[expect(clippy::expect_used, reason = "a pulse is plain data")]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a pulse is plain data")
    }

    /// Decodes a pulse.
    ///
    /// # Errors
    /// [`UnknownMessage`].
    pub fn decode(bytes: &[u8]) -> Result<Self, UnknownMessage> {
        if bytes.len() > MAX_PULSE_BYTES {
            return Err(UnknownMessage);
        }
        serde_json::from_slice(bytes).map_err(|_| UnknownMessage)
    }
}

impl<'a> NodeMessage<'a> {
    /// Encodes the message.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Probe => vec![VERSION, PROBE],
            Self::Request { body } => [&[VERSION, REQUEST][..], body].concat(),
            Self::MediaCall(call) => [&[VERSION, MEDIA_CALL][..], call].concat(),
            Self::ObjectCall(call) => [&[VERSION, OBJECT_CALL][..], call].concat(),
            Self::MediaOf(name) => [&[VERSION, MEDIA_OF][..], name.as_bytes()].concat(),
            Self::Subject { name, body } => named(SUBJECT, name, body),
            Self::MediaPlaces { name, body } => named(MEDIA_PLACES, name, body),
        }
    }

    /// Decodes a message.
    ///
    /// # Errors
    /// [`UnknownMessage`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, UnknownMessage> {
        Self::read(bytes).ok_or(UnknownMessage)
    }

    fn read(bytes: &'a [u8]) -> Option<Self> {
        let ([version, kind], rest) = bytes.split_first_chunk()?;
        if version.abs_diff(VERSION) > 1 {
            return None;
        }
        match *kind {
            PROBE => Some(Self::Probe),
            REQUEST => Some(Self::Request { body: rest }),
            MEDIA_CALL => Some(Self::MediaCall(rest)),
            OBJECT_CALL => Some(Self::ObjectCall(rest)),
            MEDIA_OF if rest.len() <= MAX_NAME_BYTES => Some(Self::MediaOf(std::str::from_utf8(rest).ok()?)),
            SUBJECT => read_named(rest).map(|(name, body)| Self::Subject { name, body }),
            MEDIA_PLACES => read_named(rest).map(|(name, body)| Self::MediaPlaces { name, body }),
            _ => None,
        }
    }
}

/// A message with the name of a subject.
fn named(kind: u8, name: &str, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
    let header = [VERSION, kind];
    [&header[..], &length.to_be_bytes(), name.as_bytes(), body].concat()
}

fn read_named(rest: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (name, body) = rest.split_at_checked(length).filter(|_| length <= MAX_NAME_BYTES)?;
    Some((std::str::from_utf8(name).ok()?, body))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::node::NodeId;

    fn pulse() -> Pulse {
        let heartbeat = Heartbeat { node: NodeId::new(7), number: 300, version: 1, is_draining: false };
        let (name, release) = ("a".into(), "0.2.0".into());
        let fingerprint = "F89r".into();
        let wants_events = false;
        Pulse {
            heartbeat,
            is_last: true,
            name,
            release,
            owned: 3,
            relayed: 2,
            clients: 9,
            wants_events,
            fingerprint,
        }
    }

    /// As a release of version 1 wrote it.
    const RECORDED: &str = r#"{"node":7,"number":300,"version":1,"is_draining":false,"is_last":true,"name":"a","release":"0.2.0","owned":3,"relayed":2,"clients":9,"fingerprint":"F89r"}"#;

    #[test]
    fn recorded_pulse_is_read_and_written() {
        assert_eq!(String::from_utf8(pulse().encode()).unwrap(), RECORDED);
        assert_eq!(Pulse::decode(RECORDED.as_bytes()), Ok(pulse()));
        let next = RECORDED.replace(r#""name":"a""#, r#""name":"a","new":[1]"#);
        assert_eq!(Pulse::decode(next.as_bytes()), Ok(pulse()), "an unknown field is ignored");
        let wants = RECORDED.replace(r#""clients":9"#, r#""clients":9,"wants_events":true"#);
        let wanting = Pulse { wants_events: true, ..pulse() };
        assert_eq!(String::from_utf8(wanting.encode()).unwrap(), wants);
        assert_eq!(Pulse::decode(wants.as_bytes()), Ok(wanting));
        let least = r#"{"node":7,"number":300,"version":1,"is_draining":false}"#;
        assert_eq!(Pulse::decode(least.as_bytes()).unwrap().heartbeat, pulse().heartbeat);
        assert_eq!(Pulse::decode(&[b' '; MAX_PULSE_BYTES + 1]), Err(UnknownMessage));
    }

    #[test]
    fn recorded_messages_are_read_and_written() {
        let subject = NodeMessage::Subject { name: "é", body: &[7, 8] };
        for (message, recorded) in [
            (NodeMessage::Probe, &[1, 0][..]),
            (subject, &[1, 1, 0, 2, 0xc3, 0xa9, 7, 8]),
            (NodeMessage::MediaCall(&[7, 8]), &[1, 3, 7, 8]),
            (NodeMessage::MediaOf("é"), &[1, 4, 0xc3, 0xa9]),
            (NodeMessage::MediaPlaces { name: "é", body: &[7] }, &[1, 5, 0, 2, 0xc3, 0xa9, 7]),
            (NodeMessage::Request { body: &[7, 8] }, &[1, 2, 7, 8]),
            (NodeMessage::ObjectCall(&[7, 8]), &[1, 6, 7, 8]),
        ] {
            assert_eq!(message.encode(), recorded);
            assert_eq!(NodeMessage::decode(recorded), Ok(message));
        }
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        let long = NodeMessage::Subject { name: &long, body: &[] }.encode();
        assert_eq!(NodeMessage::decode(&long), Err(UnknownMessage));
        assert_eq!(NodeMessage::decode(&[3, 0]), Err(UnknownMessage), "a version that is not next");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_or_refused(version in 0..3_u8, rest: Vec<u8>) {
            let bytes = [&[version][..], &rest].concat();
            let _ = Pulse::decode(&bytes);
            if let Ok(message) = NodeMessage::decode(&bytes) {
                let again = message.encode();
                prop_assert_eq!(NodeMessage::decode(&again), Ok(message));
            }
        }
    }
}
