//! The wire format of Phoenix Channels: clients' frames, and the frames around a room's messages.
//!
//! Both serializers of Phoenix are spoken: version 2 writes a frame as an array of five, version 1 as an object.
//! A room's message is the same JSON for all protocols, so that a frame of it is a head, that JSON and a tail.

mod encode;
mod parse;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde_json::value::RawValue;

pub use encode::{Envelope, Status, channel_closed, channel_failed, envelope, push, reply, reply_reason};
pub use parse::Unreadable;

/// The topic of a socket's own messages: its heartbeats.
pub const SOCKET_TOPIC: &str = "phoenix";

/// The event of a heartbeat.
pub const HEARTBEAT: &str = "heartbeat";

/// The event that joins a topic.
pub const JOIN: &str = "phx_join";

/// The event that leaves a topic.
pub const LEAVE: &str = "phx_leave";

/// The version of the serializer, chosen by a socket's `vsn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `1.0.0`: objects.
    V1,
    /// `2.0.0`: arrays, and binary frames for payloads that are bytes.
    V2,
}

impl Version {
    /// Parses a `vsn`; the patch level does not matter. `None` if it is neither version.
    pub fn parse(vsn: &str) -> Option<Self> {
        let (version, patch) = vsn.rsplit_once('.')?;
        let is_patch = (1..=3).contains(&patch.len()) && patch.bytes().all(|byte| byte.is_ascii_digit());
        match version {
            "1.0" if is_patch => Some(Self::V1),
            "2.0" if is_patch => Some(Self::V2),
            _ => None,
        }
    }

    /// Label for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::V1 => "1",
            Self::V2 => "2",
        }
    }
}

/// A reference that a client chose for a join or a push: a text or a number, given back as it came.
///
/// It is held as JSON, texts in one form, so that two are equal if their JSON is.
#[derive(Clone, PartialEq, Eq)]
pub struct Ref(Arc<str>);

impl Ref {
    /// Maximum size in bytes of a reference, as of those in binary frames.
    pub const MAX_BYTES: usize = 255;

    /// The reference as JSON.
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Ref {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A frame of a client.
#[derive(Debug)]
pub struct ClientFrame<'a> {
    /// The reference of the join that the message belongs to.
    pub join_ref: Option<Ref>,
    /// The message's own reference, which its reply repeats.
    pub message_ref: Option<Ref>,
    /// The topic, decoded.
    pub topic: Cow<'a, str>,
    /// The event, decoded.
    pub event: Cow<'a, str>,
    /// The payload.
    pub payload: FramePayload<'a>,
}

/// The payload of a client's frame.
#[derive(Clone, Copy, Debug)]
pub enum FramePayload<'a> {
    /// Any JSON.
    Json(&'a RawValue),
    /// Bytes of a binary frame. No event of a room has such a payload.
    Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vsn_names_one_of_two_versions() {
        for (vsn, version) in [
            ("1.0.0", Some(Version::V1)),
            ("2.0.0", Some(Version::V2)),
            ("2.0.9", Some(Version::V2)),
            ("2.5.0", None),
            ("3.0.0", None),
            ("2.0", None),
            ("2.0.", None),
            ("2.0.x", None),
            ("2.0.0.0", None),
            ("2.0.0-rc", None),
            ("abc", None),
            ("", None),
        ] {
            assert_eq!(Version::parse(vsn), version, "{vsn}");
        }
    }
}
