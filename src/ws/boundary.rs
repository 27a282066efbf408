//! Follows frames as they are read, before the library sees them.

use std::collections::VecDeque;
use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::OpCode;

use crate::protocol::deflate::Form;

/// The longest header of a frame with a mask (RFC 6455 section 5.2).
const LONGEST_HEADER_BYTES: usize = 14;

/// A frame of more bytes leaves nothing behind; it is more than is read at a time.
const LARGE_BYTES: u64 = 64 * 1024;

/// The bytes of a message, and its frames, that cost one token of the rate limit as they arrive.
/// Honest clients send a message in few frames, and a million empty ones are work for a core.
pub(super) const BYTES_A_TOKEN: usize = 64 * 1024;
const FRAMES_A_TOKEN: usize = 16;

/// The bits of a header's first byte that are the opcode (RFC 6455 section 5.2).
const OPCODE: u8 = 0x0f;

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;

/// The three reserved bits.
const RESERVED: u8 = 0x70;

/// The reserved bit of a compressed message (RFC 7692 section 6).
const DEFLATED: u8 = 0x40;

/// Where the frames begin and end, and which messages are compressed.
///
/// The library keeps the buffer of the longest frame for as long as the socket lives: a thousand
/// clients that once sent 8 MiB would cost 8 GB. So after a large frame nothing is read past the end
/// of a frame, and with the message that it belonged to, the library's state is made anew.
///
/// Nor does the library know compressed messages. So the first frame of one is made that of a binary
/// message, which it joins without looking into it; masks, fragments and rules stay with it. The bit
/// stays where it means nothing (on other frames, or if nothing was negotiated), and the library
/// refuses it there.
#[derive(Debug)]
pub(super) struct Boundary {
    header: [u8; LONGEST_HEADER_BYTES],
    header_bytes: usize,
    /// The bytes of the current frame's payload that were not read yet.
    payload_left: u64,
    /// Whether a frame was large since the library's state was new.
    is_large: bool,
    /// The frames and bytes of the message that is arriving, as far as they are not charged.
    frames: usize,
    bytes: usize,
    /// All bytes of that message's content.
    arrived: usize,
    /// True if the current frame is a data frame, and not a ping or pong.
    is_data: bool,
    /// What the client may send.
    form: Form,
    /// What the library takes for binary messages, in their order: those that it has not given out.
    binaries: VecDeque<Binary>,
}

/// What the library takes for a binary message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Plain,
    Deflated,
    DeflatedText,
}

impl Boundary {
    pub(super) fn new(form: Form) -> Self {
        Self {
            header: [0; LONGEST_HEADER_BYTES],
            header_bytes: 0,
            payload_left: 0,
            is_large: false,
            frames: 0,
            bytes: 0,
            arrived: 0,
            is_data: false,
            form,
            binaries: VecDeque::new(),
        }
    }

    /// Whether the library's state is to be made anew now that it gave out a message of data.
    pub(super) fn is_to_be_renewed(&self) -> bool {
        self.is_large && self.header_bytes == 0 && self.payload_left == 0
    }

    /// Takes note that the library's state is new.
    pub(super) fn renewed(&mut self) {
        self.is_large = false;
    }

    /// Whether enough arrived of a message to charge it before more is read.
    pub(super) fn is_piece_due(&self) -> bool {
        self.frames >= FRAMES_A_TOKEN || self.bytes >= BYTES_A_TOKEN
    }

    /// The tokens that are due for what arrived of a message; they are charged then.
    pub(super) fn take_piece(&mut self) -> u32 {
        let tokens = self.frames / FRAMES_A_TOKEN + self.bytes / BYTES_A_TOKEN;
        self.frames %= FRAMES_A_TOKEN;
        self.bytes %= BYTES_A_TOKEN;
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    /// The bytes that arrived of a message that is not whole.
    pub(super) fn arriving_bytes(&self) -> usize {
        self.arrived
    }

    /// Takes note that a message is whole, which is charged by what it says.
    pub(super) fn message_is_whole(&mut self) {
        (self.frames, self.bytes, self.arrived) = (0, 0, 0);
    }

    /// What the binary message is that the library has given out.
    pub(super) fn next_binary(&mut self) -> Binary {
        self.binaries.pop_front().unwrap_or(Binary::Plain)
    }

    /// How many of `wanted` bytes may be read at once.
    pub(super) fn most(&self, wanted: usize) -> usize {
        match (self.is_large, self.payload_left) {
            (false, _) => wanted,
            (true, 0) => wanted.min(1),
            (true, left) => wanted.min(usize::try_from(left).unwrap_or(usize::MAX)),
        }
    }

    /// Takes in what was read, and changes the headers in it that the library would not understand.
    pub(super) fn pass(&mut self, mut bytes: &mut [u8]) {
        self.bytes += bytes.len();
        while !bytes.is_empty() {
            let of_payload = bytes.len().min(usize::try_from(self.payload_left).unwrap_or(usize::MAX));
            self.payload_left -= of_payload as u64;
            self.arrived += if self.is_data { of_payload } else { 0 };
            let Some((first, rest)) = bytes[of_payload..].split_first_mut() else { return };
            if self.header_bytes == 0 && self.form == Form::Deflated {
                self.begin(first);
            }
            self.header[self.header_bytes] = *first;
            self.header_bytes += 1;
            bytes = rest;
            // What is no header is the library's to complain about, when it comes to it.
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

    /// Looks at the first byte of a frame, of a client that may send compressed messages.
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
