//! The messages of an answer, as elements of a JSON array that is written piece by piece.

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::mpsc::error::SendError;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Bytes from which a piece is handed on, and a client that takes one in the time of a session is no slower than.
const CHUNK_BYTES: usize = 16 << 10;

/// Bytes of messages from which an answer begins no further one.
const ANSWER_BYTES: usize = 256 << 10;

/// A piece of an answer. Without a last one the answer is broken off.
#[derive(Debug)]
pub(in crate::ws) struct Chunk {
    /// Elements of the array, or parts of them.
    pub(in crate::ws) bytes: Bytes,
    /// True if nothing follows.
    pub(in crate::ws) is_last: bool,
}

/// An answer that is being written.
#[derive(Debug)]
pub(super) struct Answering {
    chunks: Sender<Chunk>,
    /// The next piece.
    chunk: BytesMut,
    /// Bytes of the messages until now.
    bytes: usize,
    is_first: bool,
    is_last: bool,
}

impl Answering {
    /// An answer without a message yet, and its reader.
    pub(super) fn begin() -> (Self, Receiver<Chunk>) {
        let (chunks, received) = mpsc::channel(1);
        (Self { chunks, chunk: BytesMut::new(), bytes: 0, is_first: true, is_last: false }, received)
    }

    /// Begins an element.
    pub(super) fn begin_message(&mut self) {
        let begin: &[u8] = if self.is_first { b"\"" } else { b",\"" };
        self.is_first = false;
        self.chunk.extend_from_slice(begin);
    }

    /// Adds bytes of the message, which ends with them if `is_end`.
    pub(super) fn add(&mut self, bytes: &[u8], is_end: bool) {
        self.bytes += bytes.len();
        escape(bytes, &mut self.chunk);
        if is_end {
            self.chunk.put_u8(b'"');
        }
    }

    /// Ends the answer, with the pieces that are not yet handed on.
    pub(super) fn finish(&mut self) {
        self.is_last = true;
    }

    /// True if it takes no further message.
    pub(super) fn is_long(&self) -> bool {
        self.bytes >= ANSWER_BYTES
    }

    /// Number of bytes that the next piece has space for.
    pub(super) fn space(&self) -> usize {
        if self.is_last { 0 } else { CHUNK_BYTES.saturating_sub(self.chunk.len()) }
    }

    /// True if the next piece has space.
    pub(super) fn has_space(&self) -> bool {
        self.space() > 0
    }

    /// True once all was handed on.
    pub(super) fn is_finished(&self) -> bool {
        self.is_last && self.chunk.is_empty()
    }

    /// Waits until a piece is full and wanted, and sends it. Nothing is lost if this is dropped before.
    ///
    /// # Errors
    /// [`SendError`] if nobody reads the answer any more.
    pub(super) async fn send_next(&mut self) -> Result<(), SendError<()>> {
        if self.has_space() {
            self.chunks.closed().await;
            return Err(SendError(()));
        }
        let permit = self.chunks.reserve().await?;
        permit.send(Chunk { bytes: self.chunk.split().freeze(), is_last: self.is_last });
        Ok(())
    }
}

/// Appends bytes of a text as those of a JSON string. Every byte of a character of several stays as it is, so that it
/// does not matter where a text is divided.
fn escape(bytes: &[u8], json: &mut BytesMut) {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)) {
        json.extend_from_slice(&rest[..at]);
        match rest[at] {
            byte @ (b'"' | b'\\') => json.extend_from_slice(&[b'\\', byte]),
            byte => json.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        }
        rest = &rest[at + 1..];
    }
    json.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_in_pieces_is_one_json_string(text in ".*|[\"\\\\\u{0}-\u{1f}é\u{1f600}]*", size in 1..5usize) {
            let mut json = BytesMut::from(&b"\""[..]);
            text.as_bytes().chunks(size).for_each(|bytes| escape(bytes, &mut json));
            json.put_u8(b'"');
            prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
        }
    }
}
