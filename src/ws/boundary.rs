//! Tracks frame boundaries in the bytes read, before the library sees them.

use std::collections::VecDeque;
use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::OpCode;

use crate::protocol::deflate::Encoding;

/// Maximum size of a masked frame's header in bytes (RFC 6455 section 5.2).
const LONGEST_HEADER_BYTES: usize = 14;

/// Size in bytes above which a frame causes the library's state to be renewed; more than a single read.
const LARGE_BYTES: u64 = 64 * 1024;

/// Bytes of a message, and number of its frames, that cost one token of the rate limit as they
/// arrive. Legitimate clients send a message in few frames, and a million empty ones keep a core busy.
pub(in crate::ws) const BYTES_A_TOKEN: usize = 64 * 1024;
const FRAMES_A_TOKEN: usize = 16;

/// Mask of the opcode in a header's first byte (RFC 6455 section 5.2).
const OPCODE: u8 = 0x0f;

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;

/// Mask of the three reserved bits.
const RESERVED: u8 = 0x70;

/// The reserved bit RSV1, set on compressed messages (RFC 7692 section 6).
const DEFLATED: u8 = 0x40;

/// Tracker of frame boundaries and of compressed messages.
///
/// The library keeps the buffer of the longest frame for the socket's lifetime: a thousand clients
/// that once sent 8 MiB would cost 8 GB. So after a large frame nothing is read past the end of a
/// frame, and once the message that it belonged to is complete, the library's state is renewed.
///
/// The library does not support compressed messages either. So the first frame of one is rewritten
/// as that of a binary message, which the library joins without parsing its content; masks,
/// fragments and rules are left to the library. The bit stays where it means nothing (on other
/// frames, or if nothing was negotiated), and the library rejects it there.
#[derive(Debug)]
pub(super) struct Boundary {
    header: [u8; LONGEST_HEADER_BYTES],
    header_bytes: usize,
    /// Unread bytes of the current frame's payload.
    payload_left: u64,
    /// True if a frame was large since the library's state was last renewed.
    is_large: bool,
    /// Frames and bytes of the arriving message that are not yet charged.
    frames: usize,
    bytes: usize,
    /// Total payload bytes of that message.
    arrived: usize,
    /// True if the current frame is a data frame, and not a ping or pong.
    is_data: bool,
    /// Encoding that the client may use.
    encoding: Encoding,
    /// Messages passed to the library as binary and not yet returned by it, in order.
    binaries: VecDeque<Binary>,
}

/// Actual kind of a message that the library takes for a binary one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Plain,
    Deflated,
    DeflatedText,
}

impl Boundary {
    pub(super) fn new(encoding: Encoding) -> Self {
        Self {
            header: [0; LONGEST_HEADER_BYTES],
            header_bytes: 0,
            payload_left: 0,
            is_large: false,
            frames: 0,
            bytes: 0,
            arrived: 0,
            is_data: false,
            encoding,
            binaries: VecDeque::new(),
        }
    }

    /// True if the library's state is to be renewed, now that it has returned a data message.
    pub(super) fn is_to_be_renewed(&self) -> bool {
        self.is_large && self.header_bytes == 0 && self.payload_left == 0
    }

    /// Records that the library's state was renewed.
    pub(super) fn renewed(&mut self) {
        self.is_large = false;
    }

    /// True if enough of a message arrived to charge it before more is read.
    pub(super) fn is_piece_due(&self) -> bool {
        self.frames >= FRAMES_A_TOKEN || self.bytes >= BYTES_A_TOKEN
    }

    /// Returns the tokens due for the arrived part of a message, which then counts as charged.
    pub(super) fn take_piece(&mut self) -> u32 {
        let tokens = self.frames / FRAMES_A_TOKEN + self.bytes / BYTES_A_TOKEN;
        self.frames %= FRAMES_A_TOKEN;
        self.bytes %= BYTES_A_TOKEN;
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    /// Bytes received of an incomplete message.
    pub(super) fn arriving_bytes(&self) -> usize {
        self.arrived
    }

    /// Records that a message is complete, which is charged by its content.
    pub(super) fn message_is_whole(&mut self) {
        (self.frames, self.bytes, self.arrived) = (0, 0, 0);
    }

    /// Kind of the binary message that the library has returned.
    pub(super) fn next_binary(&mut self) -> Binary {
        self.binaries.pop_front().unwrap_or(Binary::Plain)
    }

    /// Maximum number of bytes to read at once, out of `wanted`.
    pub(super) fn most(&self, wanted: usize) -> usize {
        match (self.is_large, self.payload_left) {
            (false, _) => wanted,
            (true, 0) => wanted.min(1),
            (true, left) => wanted.min(usize::try_from(left).unwrap_or(usize::MAX)),
        }
    }

    /// Processes bytes read, and rewrites headers that the library would not understand.
    pub(super) fn pass(&mut self, mut bytes: &mut [u8]) {
        self.bytes += bytes.len();
        while !bytes.is_empty() {
            let of_payload = bytes.len().min(usize::try_from(self.payload_left).unwrap_or(usize::MAX));
            self.payload_left -= of_payload as u64;
            self.arrived += if self.is_data { of_payload } else { 0 };
            let Some((first, rest)) = bytes[of_payload..].split_first_mut() else { return };
            if self.header_bytes == 0 && self.encoding == Encoding::Deflate {
                self.begin(first);
            }
            self.header[self.header_bytes] = *first;
            self.header_bytes += 1;
            bytes = rest;
            // An invalid header is left to the library to reject.
            let header = FrameHeader::parse(&mut Cursor::new(&self.header[..self.header_bytes]));
            if let Ok(Some((header, payload))) = header {
                self.is_data = matches!(header.opcode, OpCode::Data(_));
                self.header_bytes = 0;
                self.frames += 1;
                self.payload_left = payload;
                self.is_large |= payload > LARGE_BYTES;
            } else if self.header_bytes == LONGEST_HEADER_BYTES {
                self.header_bytes = 0;
            }
        }
    }

    /// Rewrites the first byte of a frame from a client that may send compressed messages.
    fn begin(&mut self, first: &mut u8) {
        let binary = match (*first & OPCODE, *first & RESERVED) {
            (BINARY, 0) => Binary::Plain,
            (BINARY, DEFLATED) => Binary::Deflated,
            (TEXT, DEFLATED) => Binary::DeflatedText,
            _ => return,
        };
        self.binaries.push_back(binary);
        *first = *first & !(DEFLATED | OPCODE) | BINARY;
    }
}
