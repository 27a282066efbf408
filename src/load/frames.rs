//! WebSocket frames as a client of a load test sees them: counted, and skipped where nobody reads them.
//!
//! A library would copy, inflate and check every payload, and the tool would drown before the server. Headers are
//! the library's.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The most bytes that a message may have which is read and not only counted.
const LONGEST_MESSAGE: u64 = 64 << 20;

/// The most bytes of a control frame's payload (RFC 6455 section 5.5).
const LONGEST_CONTROL: u64 = 125;

/// The handling of message payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payloads {
    /// They are counted.
    Skipped,
    /// Their first bytes are kept, as many as are said.
    Heads(usize),
    /// They are kept for [`Frames::message`].
    Kept,
}

/// The encoding of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Plain,
    /// Compressed, if their first bit says so (RFC 7692).
    Deflate,
}

/// An event at the end of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameEvent {
    /// A whole message came, in so many bytes with the headers of its frames.
    Message {
        /// The bytes on the wire.
        wire_bytes: u64,
    },
    /// A ping, to be answered with the same payload.
    Ping(Vec<u8>),
    /// The server closes, with a code unless it gave none.
    Close(Option<u16>),
}

/// A protocol error in the server's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A bit that nobody agreed on.
    #[error("a frame has a reserved bit set")]
    ReservedBit,
    /// A kind of frame that there is none of.
    #[error("a frame has an unknown opcode")]
    Opcode,
    /// Servers do not mask.
    #[error("a frame is masked")]
    Masked,
    /// A control frame is short and whole.
    #[error("a control frame is fragmented or too long")]
    Control,
    /// The parts of a message are not in order.
    #[error("a fragment is out of place")]
    Fragment,
    /// A message would fill the tool's memory.
    #[error("a message has more than 64 MiB")]
    TooLong,
}

/// The frame that is being read.
#[derive(Clone, Copy, Debug)]
struct PartialFrame {
    opcode: OpCode,
    is_last: bool,
    left: u64,
}

impl PartialFrame {
    fn is_control(&self) -> bool {
        matches!(self.opcode, OpCode::Control(_))
    }
}

/// Reads a server's frames out of bytes that come in any pieces.
#[derive(Debug)]
pub struct Frames {
    payloads: Payloads,
    encoding: Encoding,
    header: [u8; LONGEST_HEADER],
    header_bytes: usize,
    frame: Option<PartialFrame>,
    control: Vec<u8>,
    message: Vec<u8>,
    is_compressed: bool,
    is_within_message: bool,
    wire_bytes: u64,
}

/// The most bytes of a header, which has a mask (RFC 6455 section 5.2).
const LONGEST_HEADER: usize = 14;

impl Frames {
    /// A reader for a connection that has just been opened.
    pub fn new(payloads: Payloads, encoding: Encoding) -> Self {
        Self {
            payloads,
            encoding,
            header: [0; LONGEST_HEADER],
            header_bytes: 0,
            frame: None,
            control: Vec::new(),
            message: Vec::new(),
            is_compressed: false,
            is_within_message: false,
            wire_bytes: 0,
        }
    }

    /// Reads on in `bytes` until something ends, and leaves there what comes after it.
    ///
    /// # Errors
    /// [`Broken`] if this is no server's WebSocket; then nothing more can be read.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<FrameEvent>, Broken> {
        loop {
            let mut frame = match self.frame {
                Some(frame) => frame,
                None => match self.read_header(bytes)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            let here = frame.left.min(bytes.len() as u64);
            let (payload, rest) = bytes.split_at(here as usize);
            *bytes = rest;
            if frame.is_control() {
                self.control.extend_from_slice(payload);
            } else {
                let kept = match self.payloads {
                    Payloads::Skipped => 0,
                    Payloads::Heads(most) => most.saturating_sub(self.message.len()).min(payload.len()),
                    Payloads::Kept => payload.len(),
                };
                self.message.extend_from_slice(&payload[..kept]);
            }
            frame.left -= here;
            self.frame = Some(frame);
            if frame.left > 0 {
                return Ok(None);
            }
            if let Some(event) = self.end_frame(frame) {
                return Ok(Some(event));
            }
        }
    }

    /// Number of the next bytes that may be discarded unread.
    pub fn skippable(&self) -> u64 {
        match self.frame {
            Some(frame) if !frame.is_control() => match self.payloads {
                Payloads::Skipped => frame.left,
                Payloads::Heads(most) if self.message.len() >= most => frame.left,
                Payloads::Heads(_) | Payloads::Kept => 0,
            },
            _ => 0,
        }
    }

    /// Records discarded bytes, at most [`Frames::skippable`].
    pub fn skip(&mut self, bytes: u64) -> Option<FrameEvent> {
        let frame = self.frame.as_mut()?;
        frame.left = frame.left.saturating_sub(bytes);
        let frame = *frame;
        if frame.left == 0 { self.end_frame(frame) } else { None }
    }

    /// Changes the handling of payloads, from the next message on.
    pub fn keep(&mut self, payloads: Payloads) {
        self.payloads = payloads;
    }

    /// The payload of the message that ended last, or what was kept of it, and whether it is compressed.
    pub fn message(&self) -> (&[u8], Encoding) {
        (&self.message, if self.is_compressed { Encoding::Deflate } else { Encoding::Plain })
    }

    /// Reads a header, or as much of it as is here.
    fn read_header(&mut self, bytes: &mut &[u8]) -> Result<Option<PartialFrame>, Broken> {
        let (header, left) = loop {
            let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
            self.header[self.header_bytes] = *first;
            self.header_bytes += 1;
            *bytes = rest;
            let here = Cursor::new(&self.header[..self.header_bytes]);
            match FrameHeader::parse(&mut { here }) {
                Ok(Some(header)) => break header,
                Ok(None) => {}
                Err(_) => return Err(Broken::Opcode),
            }
        };
        let frame = PartialFrame { opcode: header.opcode, is_last: header.is_final, left };
        self.check(&header, frame)?;
        self.wire_bytes += if frame.is_control() { 0 } else { self.header_bytes as u64 + left };
        self.header_bytes = 0;
        self.frame = Some(frame);
        Ok(Some(frame))
    }

    fn check(&mut self, header: &FrameHeader, frame: PartialFrame) -> Result<(), Broken> {
        let begins = matches!(frame.opcode, OpCode::Data(Data::Text | Data::Binary));
        let may_be_compressed = self.encoding == Encoding::Deflate && begins;
        if header.rsv2 || header.rsv3 || (header.rsv1 && !may_be_compressed) {
            return Err(Broken::ReservedBit);
        }
        if header.mask.is_some() {
            return Err(Broken::Masked);
        }
        if frame.is_control() {
            let is_good = frame.is_last && frame.left <= LONGEST_CONTROL;
            self.control.clear();
            return if is_good { Ok(()) } else { Err(Broken::Control) };
        }
        if begins == self.is_within_message {
            return Err(Broken::Fragment);
        }
        if begins {
            self.is_within_message = true;
            self.is_compressed = header.rsv1;
            self.wire_bytes = 0;
            self.message.clear();
        }
        let would_be = (self.message.len() as u64).saturating_add(frame.left);
        if self.payloads == Payloads::Kept && would_be > LONGEST_MESSAGE {
            return Err(Broken::TooLong);
        }
        // The header's own bytes are counted with it, and a length of 2^63 adds up to nothing.
        if frame.left > u64::MAX >> 1 { Err(Broken::TooLong) } else { Ok(()) }
    }

    fn end_frame(&mut self, frame: PartialFrame) -> Option<FrameEvent> {
        self.frame = None;
        match frame.opcode {
            OpCode::Control(Control::Ping) => Some(FrameEvent::Ping(std::mem::take(&mut self.control))),
            OpCode::Control(Control::Close) => {
                Some(FrameEvent::Close(self.control.first_chunk().copied().map(u16::from_be_bytes)))
            }
            OpCode::Data(_) if frame.is_last => {
                self.is_within_message = false;
                Some(FrameEvent::Message { wire_bytes: self.wire_bytes })
            }
            _ => None,
        }
    }
}

/// A client's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFrame<'a> {
    /// A text message.
    Text(&'a str),
    /// The answer to a ping.
    Pong(&'a [u8]),
    /// A close, with the code that the server gave.
    Close(Option<u16>),
}

/// Appends a client's frame to `out`, masked with `key` as the protocol asks of clients.
pub fn write(frame: ClientFrame<'_>, key: [u8; 4], out: &mut Vec<u8>) {
    let code;
    let (opcode, payload) = match frame {
        ClientFrame::Text(text) => (OpCode::Data(Data::Text), text.as_bytes()),
        ClientFrame::Pong(payload) => (OpCode::Control(Control::Pong), payload),
        ClientFrame::Close(None) => (OpCode::Control(Control::Close), &[][..]),
        ClientFrame::Close(Some(number)) => {
            code = number.to_be_bytes();
            (OpCode::Control(Control::Close), &code[..])
        }
    };
    let header = FrameHeader { opcode, mask: Some(key), ..FrameHeader::default() };
    // Writing into a Vec cannot fail.
    let _ = header.format(payload.len() as u64, out);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

#[cfg(test)]
mod tests {
    use tungstenite::protocol::Role;
    use tungstenite::{Message, WebSocket};

    use super::*;

    /// A frame of a server.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            short @ 0..126 => bytes.push(short as u8),
            middle @ 126..=0xFFFF => {
                bytes.push(126);
                bytes.extend((middle as u16).to_be_bytes());
            }
            long => {
                bytes.push(127);
                bytes.extend((long as u64).to_be_bytes());
            }
        }
        bytes.extend(payload);
        bytes
    }

    fn all(frames: &mut Frames, pieces: &[&[u8]]) -> Result<Vec<FrameEvent>, Broken> {
        let mut events = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            while let Some(event) = frames.next(&mut rest)? {
                events.push(event);
            }
            assert_eq!(rest, b"");
        }
        Ok(events)
    }

    fn broken(bytes: &[u8]) -> Broken {
        all(&mut Frames::new(Payloads::Kept, Encoding::Plain), &[bytes]).unwrap_err()
    }

    /// Fragments with pings between, all three lengths, an empty message, a close.
    fn conversation() -> (Vec<u8>, Vec<FrameEvent>) {
        let middle = vec![b'm'; 300];
        let long = vec![b'l'; 70_000];
        let bytes = [
            frame(0x81, b"hello"),
            frame(0x01, b"one "),
            frame(0x89, b"are you there"),
            frame(0x00, &middle),
            frame(0x8A, b"nobody asked"),
            frame(0x80, b""),
            frame(0x82, &long),
            frame(0x81, b""),
            frame(0x88, b"\x03\xf5too slow"),
        ];
        let events = vec![
            FrameEvent::Message { wire_bytes: 7 },
            FrameEvent::Ping(b"are you there".to_vec()),
            FrameEvent::Message { wire_bytes: 6 + 304 + 2 },
            FrameEvent::Message { wire_bytes: 70_010 },
            FrameEvent::Message { wire_bytes: 2 },
            FrameEvent::Close(Some(1013)),
        ];
        (bytes.concat(), events)
    }

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let (bytes, events) = conversation();
        let near_a_header = |cut: &usize| *cut < 400 || *cut > bytes.len() - 40;
        for payloads in [Payloads::Skipped, Payloads::Kept] {
            for cut in (0..=bytes.len()).filter(near_a_header) {
                let (first, second) = bytes.split_at(cut);
                let mut frames = Frames::new(payloads, Encoding::Plain);
                assert_eq!(all(&mut frames, &[first, second]).unwrap(), events, "{payloads:?} cut at {cut}");
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(all(&mut Frames::new(payloads, Encoding::Plain), &single).unwrap(), events);
        }
    }

    #[test]
    fn what_is_skippable_may_be_skipped_in_any_pieces() {
        let (bytes, events) = conversation();
        for piece in [1, 3, 100, 100_000] {
            let mut frames = Frames::new(Payloads::Skipped, Encoding::Plain);
            let (mut rest, mut seen) = (&bytes[..], Vec::new());
            let mut skipped = 0;
            while !rest.is_empty() {
                let skip = frames.skippable().min(piece) as usize;
                if skip > 0 {
                    rest = &rest[skip..];
                    skipped += skip;
                    seen.extend(frames.skip(skip as u64));
                } else {
                    let (mut byte, after) = rest.split_at(1);
                    rest = after;
                    seen.extend(frames.next(&mut byte).unwrap());
                }
            }
            assert_eq!(seen, events, "in pieces of {piece}");
            assert!(skipped > 70_000, "only {skipped} bytes were skipped");
        }
        let mut kept = Frames::new(Payloads::Kept, Encoding::Plain);
        kept.next(&mut &bytes[..4]).unwrap();
        assert_eq!(kept.skippable(), 0, "what is kept is not thrown away");
    }

    #[test]
    fn heads_of_messages_are_kept_and_the_rest_is_skippable() {
        let bytes = [frame(0x01, b"one "), frame(0x89, b"?"), frame(0x80, &[b'x'; 300])].concat();
        let mut frames = Frames::new(Payloads::Heads(6), Encoding::Plain);
        assert_eq!(frames.next(&mut &bytes[..6]).unwrap(), None);
        assert_eq!(frames.next(&mut &bytes[6..9]).unwrap(), Some(FrameEvent::Ping(b"?".to_vec())));
        assert_eq!((frames.next(&mut &bytes[9..14]).unwrap(), frames.skippable()), (None, 0));
        assert_eq!((frames.next(&mut &bytes[14..20]).unwrap(), frames.skippable()), (None, 293));
        assert_eq!(frames.skip(293), Some(FrameEvent::Message { wire_bytes: 6 + 304 }));
        assert_eq!(frames.message().0, b"one xx");
    }

    #[test]
    fn the_payload_of_a_message_is_that_of_its_fragments() {
        let mut frames = Frames::new(Payloads::Kept, Encoding::Deflate);
        let bytes = [frame(0x41, b"com"), frame(0x89, b"?"), frame(0x80, b"pressed")].concat();
        all(&mut frames, &[&bytes]).unwrap();
        assert_eq!(frames.message(), (&b"compressed"[..], Encoding::Deflate));
        all(&mut frames, &[&frame(0x81, b"plain")]).unwrap();
        assert_eq!(frames.message(), (&b"plain"[..], Encoding::Plain));
    }

    #[test]
    fn a_close_has_a_code_or_none() {
        let close = |payload: &[u8]| {
            all(&mut Frames::new(Payloads::Skipped, Encoding::Plain), &[&frame(0x88, payload)]).unwrap()
        };
        assert_eq!(close(b""), [FrameEvent::Close(None)]);
        assert_eq!(close(b"\x03\xe8"), [FrameEvent::Close(Some(1000))]);
    }

    #[test]
    fn invalid_server_frames_are_errors() {
        assert_eq!(broken(&[0xC1, 0]), Broken::ReservedBit, "compressed, and nobody agreed on it");
        assert_eq!(broken(&[0x91, 0]), Broken::ReservedBit);
        assert_eq!(broken(&[0x83, 0]), Broken::Opcode);
        assert_eq!(broken(&[0x81, 0x80, 0, 0, 0, 0]), Broken::Masked);
        assert_eq!(broken(&[0x09, 0]), Broken::Control);
        assert_eq!(broken(&[0x89, 126, 0, 126]), Broken::Control);
        assert_eq!(broken(&[0x80, 0]), Broken::Fragment);
        assert_eq!(broken(&[0x01, 0, 0x81, 0]), Broken::Fragment);
        assert_eq!(broken(&[0x82, 127, 0, 0, 0, 0, 4, 0, 0, 1]), Broken::TooLong);
        let endless = [0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255];
        assert_eq!(
            all(&mut Frames::new(Payloads::Skipped, Encoding::Plain), &[&endless]),
            Err(Broken::TooLong)
        );
    }

    #[test]
    fn a_library_reads_what_is_written() {
        let long = "l".repeat(70_000);
        let texts = ["", "short", &"m".repeat(126), &long];
        let mut bytes = Vec::new();
        for text in texts {
            write(ClientFrame::Text(text), [1, 2, 3, 250], &mut bytes);
        }
        write(ClientFrame::Pong(b"here"), [9, 8, 7, 6], &mut bytes);
        write(ClientFrame::Close(Some(1000)), [0; 4], &mut bytes);
        let mut server = WebSocket::from_raw_socket(Wire(&bytes), Role::Server, None);
        for text in texts {
            assert_eq!(server.read().unwrap(), Message::text(text));
        }
        assert_eq!(server.read().unwrap(), Message::Pong("here".into()));
        let Message::Close(Some(close)) = server.read().unwrap() else { panic!("no close") };
        assert_eq!(u16::from(close.code), 1000);
    }

    /// Written bytes, to be read; the library's answers are discarded.
    struct Wire<'a>(&'a [u8]);

    impl std::io::Read for Wire<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl std::io::Write for Wire<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
