//! The frames between a long-poll session and its connection, as of a WebSocket's client.

use std::io::Cursor;

use bytes::{BufMut, BytesMut};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// A reader of the connection's frames, each of which is a whole message.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    /// The frame that is being read, and the bytes of its payload that are still to come.
    frame: Option<(Frame, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    /// A text whose beginning was not told yet.
    NewText,
    Text,
    Ping,
    Pong,
}

/// A part of what the connection writes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A text message begins.
    TextBegins,
    /// Bytes of the message.
    Text {
        /// The bytes.
        bytes: BytesMut,
        /// True if the message ends with them.
        is_end: bool,
    },
    /// A ping, whose answer confirms everything before it.
    Ping(BytesMut),
    /// The end of the session.
    Close,
}

impl FrameReader {
    /// True if the last frame is complete.
    pub(super) fn is_between_frames(&self) -> bool {
        self.frame.is_none()
    }

    /// Takes the next part, with at most `space` bytes of a message; `None` until it is there. Pongs are skipped.
    pub(super) fn next(&mut self, buffer: &mut BytesMut, space: usize) -> Option<Part> {
        loop {
            let Some((frame, left)) = &mut self.frame else {
                if let Some(close) = self.begin(buffer)? {
                    return Some(close);
                }
                continue;
            };
            match frame {
                Frame::NewText => {
                    *frame = Frame::Text;
                    return Some(Part::TextBegins);
                }
                Frame::Text => {
                    let taken = (*left).min(space).min(buffer.len());
                    if taken == 0 && *left > 0 {
                        return None;
                    }
                    *left -= taken;
                    let is_end = *left == 0;
                    if is_end {
                        self.frame = None;
                    }
                    return Some(Part::Text { bytes: buffer.split_to(taken), is_end });
                }
                Frame::Ping | Frame::Pong => {
                    if buffer.len() < *left {
                        return None;
                    }
                    let (is_ping, payload) = (*frame == Frame::Ping, buffer.split_to(*left));
                    self.frame = None;
                    if is_ping {
                        return Some(Part::Ping(payload));
                    }
                }
            }
        }
    }

    /// Tells the beginning of the message once more, of which no byte was taken.
    pub(super) fn rewind(&mut self) {
        if let Some((frame @ Frame::Text, _)) = &mut self.frame {
            *frame = Frame::NewText;
        }
    }

    /// Takes the header of a frame; the end of the session, if it is one.
    fn begin(&mut self, buffer: &mut BytesMut) -> Option<Option<Part>> {
        let mut cursor = Cursor::new(&buffer[..]);
        // The connection is in this process, and writes no invalid header.
        let Ok(header) = FrameHeader::parse(&mut cursor) else { return Some(Some(Part::Close)) };
        let (header, payload_bytes) = header?;
        let header_bytes = usize::try_from(cursor.position()).ok()?;
        let frame = match header.opcode {
            OpCode::Data(Data::Text) => Frame::NewText,
            OpCode::Control(Control::Ping) => Frame::Ping,
            OpCode::Control(Control::Pong) => Frame::Pong,
            _ => return Some(Some(Part::Close)),
        };
        let _header = buffer.split_to(header_bytes);
        self.frame = Some((frame, usize::try_from(payload_bytes).ok()?));
        Some(None)
    }
}

/// Appends a frame of the client's. It is masked by zeros: no proxy is between the two that could take the bytes
/// for something else.
pub(super) fn put(opcode: OpCode, payload: &[u8], buffer: &mut BytesMut) {
    let header = FrameHeader { opcode, mask: Some([0; 4]), ..FrameHeader::default() };
    // Writing into memory does not fail.
    let _ = header.format(payload.len() as u64, &mut buffer.writer());
    buffer.extend_from_slice(payload);
}

/// Appends the answer to a ping.
pub(super) fn put_pong(ping: &[u8], buffer: &mut BytesMut) {
    put(OpCode::Control(Control::Pong), ping, buffer);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(opcode: OpCode, payload: &[u8], buffer: &mut Vec<u8>) {
        let header = FrameHeader { opcode, ..FrameHeader::default() };
        header.format(payload.len() as u64, buffer).unwrap();
        buffer.extend_from_slice(payload);
    }

    #[test]
    fn frames_are_read_in_pieces_of_any_size() {
        let long = "x".repeat(70_000);
        let mut bytes = Vec::new();
        for text in ["one", "", &long] {
            server(OpCode::Data(Data::Text), text.as_bytes(), &mut bytes);
            server(OpCode::Control(Control::Pong), b"p", &mut bytes);
        }
        server(OpCode::Control(Control::Ping), b"12345678", &mut bytes);
        server(OpCode::Control(Control::Close), b"\x03\xe8", &mut bytes);
        for (size, space) in [(1, 7), (999, 16_000), (100_000, 100_000)] {
            let (mut reader, mut buffer) = (FrameReader::default(), BytesMut::new());
            let mut seen = Vec::new();
            let mut message = Vec::new();
            for piece in bytes.chunks(size) {
                buffer.extend_from_slice(piece);
                while let Some(part) = reader.next(&mut buffer, space) {
                    match part {
                        Part::TextBegins => assert!(message.is_empty() && !reader.is_between_frames()),
                        Part::Text { bytes, is_end } => {
                            assert!(bytes.len() <= space);
                            message.extend_from_slice(&bytes);
                            if is_end {
                                seen.push(String::from_utf8(std::mem::take(&mut message)).unwrap());
                            }
                        }
                        Part::Ping(ping) => seen.push(format!("ping {}", str::from_utf8(&ping).unwrap())),
                        Part::Close => {
                            seen.push("close".to_owned());
                            break;
                        }
                    }
                }
            }
            assert_eq!(seen[..3], ["one".to_owned(), String::new(), long.clone()]);
            assert_eq!(seen[3..5], ["ping 12345678", "close"]);
        }
    }
}
