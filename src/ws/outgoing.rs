//! The queue of frames to be written, as slices of shared bytes.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::protocol::deflate::Encoding;

/// Maximum size of an unmasked frame's header in bytes (RFC 6455 section 5.2).
const HEADER_BYTES: usize = 10;

/// Maximum bytes of a stored block (RFC 1951 section 3.2.4).
const STORED_BYTES: usize = 0xffff;

/// Header of a stored block that begins at a byte: not the last one, without compression.
const STORED: u8 = 0;

/// The queue of frames to be written.
#[derive(Debug, Default)]
pub(super) struct FrameQueue {
    frames: VecDeque<OutgoingFrame>,
    bytes: usize,
    /// Total bytes taken by the stream.
    written: u64,
    /// True after a close frame: nothing may follow it, not even the library's own replies.
    closed: bool,
}

#[derive(Debug)]
struct OutgoingFrame {
    around: Around,
    payload: Bytes,
    written: usize,
}

/// The bytes around a frame's shared payload.
#[derive(Debug)]
enum Around {
    /// A header of this length before it.
    Header([u8; HEADER_BYTES], u8),
    /// A header and the head of an envelope before it, up to an offset, and the envelope's tail behind it.
    Envelope(Box<[u8]>, u32),
}

impl FrameQueue {
    /// True if nothing is queued.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Queued bytes.
    pub(super) fn unwritten_bytes(&self) -> usize {
        self.bytes
    }

    /// Total bytes taken by the stream.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written
    }

    /// Lets nothing follow.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Queues a frame.
    pub(super) fn push(&mut self, opcode: OpCode, encoding: Encoding, payload: Bytes) {
        let (header, bytes) = header(opcode, encoding, payload.len());
        self.push_frame(Around::Header(header, bytes), payload);
    }

    /// Queues a text frame of a head, a payload of this encoding, and a tail.
    pub(super) fn push_enveloped(&mut self, head: &str, encoding: Encoding, payload: Bytes, tail: &str) {
        let (before, behind) = match encoding {
            Encoding::Identity => (head.as_bytes().to_vec(), tail.as_bytes().to_vec()),
            Encoding::Deflate => (stored(head.as_bytes()), deflate_tail(tail.as_bytes())),
        };
        let payload_bytes = before.len() + payload.len() + behind.len();
        let (header, bytes) = header(OpCode::Data(Data::Text), encoding, payload_bytes);
        let around = [&header[..usize::from(bytes)], &before, &behind].concat();
        // A head is some hundred bytes long: references and topics have limits.
        let split = u32::try_from(around.len() - behind.len()).unwrap_or(u32::MAX);
        self.push_frame(Around::Envelope(around.into(), split), payload);
    }

    /// Queues a complete frame of the library's own.
    ///
    /// It replaces a queued pong of which nothing was written: only the newest ping must be
    /// answered (RFC 6455 section 5.5.3), and a client that pings without reading would make them
    /// pile up here.
    pub(super) fn push_reply(&mut self, frame: Bytes) {
        if let Some(last) = self.frames.back().filter(|last| !self.closed && last.is_unwritten_reply()) {
            self.bytes -= last.payload.len();
            self.frames.pop_back();
        }
        self.push_frame(Around::Header([0; HEADER_BYTES], 0), frame);
    }

    fn push_frame(&mut self, around: Around, payload: Bytes) {
        if self.closed {
            return;
        }
        let frame = OutgoingFrame { around, payload, written: 0 };
        self.bytes += frame.bytes();
        self.frames.push_back(frame);
    }

    /// Fills `slices` with unwritten bytes, and returns their number.
    pub(super) fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = self.frames.iter().flat_map(OutgoingFrame::unwritten).filter(|piece| !piece.is_empty());
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    /// Records that the stream took bytes.
    pub(super) fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        self.written += written as u64;
        while let Some(frame) = self.frames.front_mut() {
            let left = frame.bytes() - frame.written;
            if written < left {
                frame.written += written;
                return;
            }
            written -= left;
            self.frames.pop_front();
        }
    }
}

impl OutgoingFrame {
    /// The bytes before and behind the payload.
    fn around(&self) -> (&[u8], &[u8]) {
        match &self.around {
            Around::Header(header, bytes) => (&header[..usize::from(*bytes)], &[]),
            Around::Envelope(around, split) => around.split_at(*split as usize),
        }
    }

    fn bytes(&self) -> usize {
        let (before, behind) = self.around();
        before.len() + self.payload.len() + behind.len()
    }

    fn is_unwritten_reply(&self) -> bool {
        matches!(self.around, Around::Header(_, 0)) && self.written == 0
    }

    fn unwritten(&self) -> [&[u8]; 3] {
        let (before, behind) = self.around();
        let mut written = self.written;
        [before, &self.payload, behind].map(|piece| {
            let of_piece = written.min(piece.len());
            written -= of_piece;
            &piece[of_piece..]
        })
    }
}

/// The header of a final frame, and its length.
fn header(opcode: OpCode, encoding: Encoding, payload_bytes: usize) -> ([u8; HEADER_BYTES], u8) {
    let rsv1 = encoding == Encoding::Deflate;
    let head = FrameHeader { is_final: true, rsv1, opcode, ..FrameHeader::default() };
    let mut header = [0; HEADER_BYTES];
    let mut rest = &mut header[..];
    // The array has the size of the longest header, so the write cannot fail.
    let _ = head.format(payload_bytes as u64, &mut rest);
    let bytes = HEADER_BYTES - rest.len();
    (header, bytes as u8)
}

/// Encodes text as stored blocks, before a compressed payload. What follows begins at a byte, and refers to nothing
/// before itself, since it was compressed alone.
fn stored(text: &[u8]) -> Vec<u8> {
    let mut blocks = Vec::with_capacity(text.len() + 5);
    for block in text.chunks(STORED_BYTES) {
        blocks.push(STORED);
        blocks.extend(stored_content(block));
    }
    blocks
}

/// Encodes the tail behind a compressed payload.
///
/// The payload ends in the header of an empty stored block, whose length was cut off (RFC 7692 section 7.2.1). The
/// tail becomes this block's content, and a further header takes its place: the receiver appends the length.
fn deflate_tail(tail: &[u8]) -> Vec<u8> {
    debug_assert!(tail.len() <= STORED_BYTES, "a tail is one block");
    let mut bytes = stored_content(tail);
    bytes.push(STORED);
    bytes
}

/// A stored block behind its header: length, the complement of that, and the bytes.
fn stored_content(block: &[u8]) -> Vec<u8> {
    let bytes = u16::try_from(block.len()).unwrap_or(u16::MAX);
    [&bytes.to_le_bytes()[..], &(!bytes).to_le_bytes(), block].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::io::Read;

    use super::*;
    use crate::protocol::deflate::{deflate, inflate};

    /// The bytes of a queue, written in steps of `step` bytes.
    fn written(queue: &mut FrameQueue, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); 4];
            let count = queue.fill(&mut slices);
            let bytes = slices[..count].iter().flat_map(|slice| slice.iter().copied()).take(step);
            let before = all.len();
            all.extend(bytes);
            queue.advance(all.len() - before);
        }
        assert_eq!((queue.unwritten_bytes(), queue.written_bytes()), (0, all.len() as u64));
        all
    }

    /// The payload of the only frame.
    fn payload(frame: &[u8], first: u8) -> &[u8] {
        assert_eq!(frame[0], first);
        let header = match frame[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        &frame[header..]
    }

    fn enveloped(head: &str, json: &str, tail: &str, encoding: Encoding) -> FrameQueue {
        let mut queue = FrameQueue::default();
        let bytes = match encoding {
            Encoding::Identity => json.as_bytes().to_vec(),
            Encoding::Deflate => deflate(json.as_bytes()).expect("it compresses"),
        };
        queue.push_enveloped(head, encoding, bytes.into(), tail);
        queue
    }

    #[test]
    fn envelope_is_around_the_payload() {
        let mut queue = enveloped("[1,", "{}", "]", Encoding::Identity);
        queue.push(OpCode::Data(Data::Text), Encoding::Identity, "x".into());
        assert_eq!(queue.unwritten_bytes(), 11);
        assert_eq!(written(&mut queue, 3), b"\x81\x06[1,{}]\x81\x01x");
    }

    #[test]
    fn compressed_envelope_is_stored_blocks() {
        let json = "a".repeat(1000);
        let mut queue = enveloped("[1,", &json, "]", Encoding::Deflate);
        let frame = written(&mut queue, usize::MAX);
        let payload = payload(&frame, 0xc1);
        assert!(payload.starts_with(b"\x00\x03\x00\xfc\xff[1,"), "{payload:x?}");
        assert!(payload.ends_with(b"\x00\x01\x00\xfe\xff]\x00"), "{payload:x?}");
        assert_eq!(inflate(payload, 2000).unwrap(), format!("[1,{json}]").as_bytes());
    }

    #[test]
    fn nothing_follows_a_close() {
        let mut queue = FrameQueue::default();
        queue.close();
        queue.push_enveloped("[", Encoding::Identity, "{}".into(), "]");
        queue.push_reply("pong".into());
        assert!(queue.is_empty() && queue.unwritten_bytes() == 0);
    }

    /// The size of a socket's memory.
    #[test]
    fn frame_is_as_small_as_without_envelopes() {
        assert!(size_of::<OutgoingFrame>() <= 64);
    }

    proptest! {
        #[test]
        fn every_inflater_reads_compressed_envelopes(
            head in prop_oneof![".{0,200}", Just("x".repeat(65_535)), Just("x".repeat(70_000))],
            item in ".{1,20}",
            tail in ".{0,9}",
            step in 100..5000usize,
        ) {
            let json = item.repeat(500);
            let mut queue = enveloped(&head, &json, &tail, Encoding::Deflate);
            let frame = written(&mut queue, step);
            let payload = payload(&frame, 0xc1);
            let expected = head + &json + &tail;
            prop_assert_eq!(inflate(payload, 1 << 20).unwrap(), expected.as_bytes());
            // RFC 7692 section 7.2.2; then an empty last block, for a decoder of whole streams.
            let stream = [payload, &[0x00, 0x00, 0xff, 0xff, 0x03, 0x00]].concat();
            let mut text = String::new();
            flate2::read::DeflateDecoder::new(&stream[..]).read_to_string(&mut text).unwrap();
            prop_assert_eq!(text, expected);
        }
    }
}
