//! A message to members: its JSON, and encodings of that, each made at most once for all recipients.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::metrics::{Counted, Metrics};
use crate::protocol::deflate::{Encoding, deflate};
use crate::protocol::server::MessageKind;

/// Minimum size in bytes for compression. A shorter message fits into one packet as it is, so that
/// compressing it saves nothing.
pub const DEFLATE_FROM_BYTES: usize = 1024;

/// Memory of a short message besides its bytes: the shared block, its counter and the allocator's overhead.
const OVERHEAD_BYTES: usize = 160;

/// A message, shared by all outboxes that hold it.
#[derive(Clone, Debug)]
pub struct SharedMessage(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    kind: MessageKind,
    /// The message itself. It is what every protocol sends, each in a frame or an envelope of its own, so
    /// that all encodings can be made of it.
    json: Bytes,
    /// The compressed JSON, once it was needed; `None` inside if compression would not make it shorter.
    deflated: OnceLock<Option<Bytes>>,
}

/// A message as written to one socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The bytes between the frame's header and its end.
    pub bytes: Bytes,
    /// The encoding of those bytes.
    pub encoding: Encoding,
    /// The message's kind, which envelopes of other protocols than Orange's name.
    pub kind: MessageKind,
}

impl SharedMessage {
    /// Wraps the JSON of a message. Its memory is counted from now on.
    pub fn new(kind: MessageKind, json: String, metrics: &Metrics) -> Self {
        Self(Arc::new(Shared { kind, json: counted(json.into_bytes(), metrics), deflated: OnceLock::new() }))
    }

    /// Compresses the message for all sockets that accept that, if it makes the message shorter; once, however
    /// often and from however many threads it is called.
    pub fn compress(&self, metrics: &Metrics) {
        self.0.deflated.get_or_init(|| {
            let json = &self.0.json;
            let deflated = if json.len() < DEFLATE_FROM_BYTES { None } else { deflate(json) }?;
            metrics.deflate_from_bytes.inc_by(json.len() as u64);
            metrics.deflate_to_bytes.inc_by(deflated.len() as u64);
            Some(counted(deflated, metrics))
        });
    }

    /// The message as JSON.
    pub fn json(&self) -> &Bytes {
        &self.0.json
    }

    /// Memory in bytes while it is queued, regardless of the number of outboxes that share it. It grows when
    /// the message is compressed.
    pub fn cost(&self) -> usize {
        self.0.json.len() + self.deflated().map_or(0, Bytes::len) + OVERHEAD_BYTES
    }

    /// The compressed JSON, if it was made.
    pub fn deflated(&self) -> Option<&Bytes> {
        self.0.deflated.get()?.as_ref()
    }

    /// The payload for a socket that accepts `encoding`. A message that was not compressed is sent as it is:
    /// compressing it for one socket costs more than it saves.
    pub fn payload(&self, encoding: Encoding) -> Payload {
        let deflated = if encoding == Encoding::Deflate { self.deflated() } else { None };
        let kind = self.0.kind;
        match deflated {
            Some(deflated) => Payload { bytes: deflated.clone(), encoding, kind },
            None => Payload { bytes: self.0.json.clone(), encoding: Encoding::Identity, kind },
        }
    }
}

/// Wraps bytes that count in the gauge of queued bytes until the last owner drops them: once,
/// however many outboxes share them.
fn counted(bytes: Vec<u8>, metrics: &Metrics) -> Bytes {
    struct Owner {
        bytes: Vec<u8>,
        _counted: Counted,
    }
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    let counted = Counted::new(&metrics.outbox_bytes, bytes.len() + OVERHEAD_BYTES);
    Bytes::from_owner(Owner { bytes, _counted: counted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::deflate::inflate;

    fn compressed(json: &str, metrics: &Metrics) -> SharedMessage {
        let message = SharedMessage::new(MessageKind::RoomState, json.to_owned(), metrics);
        message.compress(metrics);
        message
    }

    #[test]
    fn encodings_are_equivalent_and_shared() {
        let metrics = Metrics::new();
        let json = "a user, and another user, and a third one".repeat(100);
        let message = compressed(&json, &metrics);
        let (plain, deflated) = (message.payload(Encoding::Identity), message.payload(Encoding::Deflate));
        assert_eq!((plain.encoding, plain.bytes), (Encoding::Identity, Bytes::from(json.clone())));
        assert_eq!([plain.kind, deflated.kind], [MessageKind::RoomState; 2]);
        assert_eq!(deflated.encoding, Encoding::Deflate);
        assert_eq!(inflate(&deflated.bytes, 1 << 20).unwrap(), json.as_bytes());
        assert_eq!(deflated.bytes.as_ptr(), message.clone().payload(Encoding::Deflate).bytes.as_ptr());
    }

    #[test]
    fn message_is_compressed_at_most_once() {
        let metrics = Metrics::new();
        let message = SharedMessage::new(MessageKind::RoomState, "x".repeat(5000), &metrics);
        assert_eq!(message.payload(Encoding::Deflate).encoding, Encoding::Identity, "nobody needed it yet");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| message.clone().compress(&metrics));
            }
        });
        assert_eq!(metrics.deflate_from_bytes.get(), 5000);
        assert_eq!(metrics.deflate_to_bytes.get(), message.deflated().unwrap().len() as u64);
    }

    #[test]
    fn short_message_is_not_compressed() {
        let metrics = Metrics::new();
        for (bytes, encoding) in
            [(DEFLATE_FROM_BYTES - 1, Encoding::Identity), (DEFLATE_FROM_BYTES, Encoding::Deflate)]
        {
            let message = compressed(&"x".repeat(bytes), &metrics);
            assert_eq!(message.payload(Encoding::Deflate).encoding, encoding);
        }
        assert_eq!(metrics.deflate_from_bytes.get(), DEFLATE_FROM_BYTES as u64);
    }

    #[test]
    fn queued_bytes_are_counted_once_per_encoding() {
        let metrics = Metrics::new();
        let message = SharedMessage::new(MessageKind::RoomState, "x".repeat(2000), &metrics);
        assert_eq!((metrics.outbox_bytes.get(), message.cost()), (2160, 2160));
        message.compress(&metrics);
        let deflated_bytes = message.deflated().unwrap().len();
        assert_eq!(message.cost(), 2160 + deflated_bytes);
        let both = 2160 + (deflated_bytes + OVERHEAD_BYTES) as i64;
        let [plain, deflated, other] = [Encoding::Identity, Encoding::Deflate, Encoding::Identity]
            .map(|encoding| message.payload(encoding));
        assert_eq!(metrics.outbox_bytes.get(), both);
        drop((message, deflated, other));
        assert_eq!(metrics.outbox_bytes.get(), 2160, "one encoding does not hold the other");
        drop(plain);
        assert_eq!(metrics.outbox_bytes.get(), 0);
    }
}
