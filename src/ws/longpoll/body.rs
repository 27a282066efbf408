//! The messages in the body of a client's request.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::frames;

/// Maximum number of messages in one request; clients send no more.
const MAX_MESSAGES: usize = 100;

/// Reason for refusing a body. None of its messages is handled then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidBody {
    /// It has too many messages.
    TooMany,
    /// It is not UTF-8, or a line is neither a text message nor base64.
    Malformed,
}

/// Encodes the messages of a body as frames: if it `is_ndjson`, one of each line, of which those that do not begin
/// with `[` are base64 of a binary message; otherwise the whole body is one text.
///
/// # Errors
/// [`InvalidBody`].
pub fn to_frames(body: &[u8], is_ndjson: bool) -> Result<BytesMut, InvalidBody> {
    let text = str::from_utf8(body).map_err(|_| InvalidBody::Malformed)?;
    let mut all = BytesMut::with_capacity(body.len() + 64);
    if !is_ndjson {
        frames::put(OpCode::Data(Data::Text), text.as_bytes(), &mut all);
        return Ok(all);
    }
    let lines = text.lines().filter(|line| !line.is_empty());
    for (number, line) in lines.enumerate() {
        if number == MAX_MESSAGES {
            return Err(InvalidBody::TooMany);
        }
        if line.starts_with('[') {
            frames::put(OpCode::Data(Data::Text), line.as_bytes(), &mut all);
        } else {
            let bytes = STANDARD.decode(line).map_err(|_| InvalidBody::Malformed)?;
            frames::put(OpCode::Data(Data::Binary), &bytes, &mut all);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(messages: &[(Data, &[u8])]) -> BytesMut {
        let mut all = BytesMut::new();
        messages.iter().for_each(|(data, payload)| frames::put(OpCode::Data(*data), payload, &mut all));
        all
    }

    #[test]
    fn lines_are_messages() {
        let body = "[1]\n\n[\"2 \u{e9}\"]\r\nAAEC\n";
        let expected = [
            (Data::Text, &b"[1]"[..]),
            (Data::Text, "[\"2 \u{e9}\"]".as_bytes()),
            (Data::Binary, b"\0\x01\x02"),
        ];
        assert_eq!(to_frames(body.as_bytes(), true), Ok(of(&expected)));
        assert_eq!(to_frames(b"", true), Ok(BytesMut::new()));
        assert_eq!(to_frames(b"{\"a\":\n1}", false), Ok(of(&[(Data::Text, b"{\"a\":\n1}")])));
    }

    #[test]
    fn bad_body_is_refused_whole() {
        assert_eq!(to_frames(b"[1]\n{\"a\":1}", true), Err(InvalidBody::Malformed));
        assert_eq!(to_frames(b"[1]\n[\"\xff\"]", true), Err(InvalidBody::Malformed));
        assert_eq!(to_frames(b"\xff", false), Err(InvalidBody::Malformed));
        assert!(to_frames("[1]\n".repeat(100).as_bytes(), true).is_ok());
        assert_eq!(to_frames("[1]\n".repeat(101).as_bytes(), true), Err(InvalidBody::TooMany));
    }
}
