//! A message to members, encoded once for all of them in each encoding that they accept.

use std::sync::Arc;

use bytes::Bytes;

use crate::metrics::{Counted, Metrics};
use crate::protocol::deflate::{Encoding, deflate};

/// Minimum size in bytes for compression. A shorter message fits into one packet as it is, so that
/// compressing it saves nothing.
pub const DEFLATE_FROM_BYTES: usize = 1024;

/// Memory of a short message besides its bytes: the shared block, its counter and the allocator's overhead.
const OVERHEAD_BYTES: usize = 160;

/// A message, shared by all outboxes that hold it.
#[derive(Clone, Debug)]
pub struct SharedMessage(Arc<Forms>);

#[derive(Debug)]
struct Forms {
    plain: Bytes,
    deflated: Option<Bytes>,
}

/// A message as written to one socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The bytes between the frame's header and its end.
    pub bytes: Bytes,
    /// The encoding of those bytes.
    pub form: Encoding,
}

impl SharedMessage {
    /// A message that every socket gets uncompressed.
    pub fn plain(text: String, metrics: &Metrics) -> Self {
        Self(Arc::new(Forms { plain: counted(text.into_bytes(), metrics), deflated: None }))
    }

    /// A message that is compressed once for all sockets that accept it, if that makes it shorter.
    pub fn deflated(text: String, metrics: &Metrics) -> Self {
        let deflated = if text.len() < DEFLATE_FROM_BYTES { None } else { deflate(text.as_bytes()) };
        let Some(deflated) = deflated else { return Self::plain(text, metrics) };
        metrics.deflate_from_bytes.inc_by(text.len() as u64);
        metrics.deflate_to_bytes.inc_by(deflated.len() as u64);
        let deflated = Some(counted(deflated, metrics));
        Self(Arc::new(Forms { plain: counted(text.into_bytes(), metrics), deflated }))
    }

    /// The uncompressed text.
    pub fn text(&self) -> &Bytes {
        &self.0.plain
    }

    /// Memory in bytes while it is queued, regardless of the number of outboxes that share it.
    pub fn cost(&self) -> usize {
        self.0.plain.len() + self.deflated_bytes().unwrap_or_default() + OVERHEAD_BYTES
    }

    /// Size of the compressed form in bytes, if it has one.
    pub fn deflated_bytes(&self) -> Option<usize> {
        self.0.deflated.as_ref().map(Bytes::len)
    }

    /// The payload for a socket that accepts `form`; a message without a compressed form is always
    /// sent plain.
    pub fn payload(&self, form: Encoding) -> Payload {
        match &self.0.deflated {
            Some(deflated) if form == Encoding::Deflate => Payload { bytes: deflated.clone(), form },
            _ => Payload { bytes: self.0.plain.clone(), form: Encoding::Identity },
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

    #[test]
    fn encodings_are_equivalent_and_shared() {
        let metrics = Metrics::new();
        let text = "a user, and another user, and a third one".repeat(100);
        let message = SharedMessage::deflated(text.clone(), &metrics);
        let (plain, deflated) = (message.payload(Encoding::Identity), message.payload(Encoding::Deflate));
        assert_eq!((plain.form, plain.bytes), (Encoding::Identity, Bytes::from(text.clone())));
        assert_eq!(deflated.form, Encoding::Deflate);
        assert_eq!(inflate(&deflated.bytes, 1 << 20).unwrap(), text.as_bytes());
        assert_eq!(deflated.bytes.as_ptr(), message.clone().payload(Encoding::Deflate).bytes.as_ptr());
        assert_eq!(metrics.deflate_from_bytes.get(), text.len() as u64);
        assert_eq!(Some(metrics.deflate_to_bytes.get()), message.deflated_bytes().map(|bytes| bytes as u64));
    }

    #[test]
    fn short_or_incompressible_message_is_plain() {
        let metrics = Metrics::new();
        let mut noise = [0; 3000];
        getrandom::fill(&mut noise).unwrap();
        let noise: String =
            noise.iter().map(|byte| char::from_u32(0x4e00 + u32::from(*byte)).unwrap()).collect();
        let short = "x".repeat(DEFLATE_FROM_BYTES - 1);
        assert_eq!(
            SharedMessage::deflated(short, &metrics).payload(Encoding::Deflate).form,
            Encoding::Identity
        );
        assert_eq!(SharedMessage::plain(noise, &metrics).payload(Encoding::Deflate).form, Encoding::Identity);
        assert_eq!(metrics.deflate_from_bytes.get(), 0);
    }

    #[test]
    fn queued_bytes_are_counted_once_per_encoding() {
        let metrics = Metrics::new();
        let message = SharedMessage::deflated("x".repeat(2000), &metrics);
        let held = 2000 + message.deflated_bytes().unwrap() as i64 + 2 * OVERHEAD_BYTES as i64;
        let [plain, deflated, other] =
            [Encoding::Identity, Encoding::Deflate, Encoding::Identity].map(|form| message.payload(form));
        assert_eq!(metrics.outbox_bytes.get(), held);
        drop((message, deflated, other));
        assert_eq!(
            metrics.outbox_bytes.get(),
            2000 + OVERHEAD_BYTES as i64,
            "who takes one form does not hold the other"
        );
        drop(plain);
        assert_eq!(metrics.outbox_bytes.get(), 0);
    }
}
