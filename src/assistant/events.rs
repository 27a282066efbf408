//! Server-sent events, as far as streams of models use them, and the parts of answers in them.

use serde::Deserialize;

/// Maximum size in bytes of one event.
const MAX_EVENT_BYTES: usize = 64 << 10;

/// A part of a streamed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// More text.
    Text(String),
    /// The end.
    End,
}

/// Reason for giving up on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadStream {
    /// An event is too long.
    TooLong,
    /// An event is no part of an answer.
    Malformed,
    /// The API reports an error.
    Refused,
}

/// Reads events from bytes in pieces of any size. Its memory is bounded by the longest event.
#[derive(Debug, Default)]
pub(super) struct EventReader {
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// The data of the event that is not complete yet.
    data: Vec<u8>,
}

impl EventReader {
    /// Reads the next bytes, and returns the parts that they complete.
    ///
    /// # Errors
    /// [`BadStream`]; nothing more can be read then.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Vec<Part>, BadStream> {
        let mut parts = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() + self.data.len() > MAX_EVENT_BYTES {
                    return Err(BadStream::TooLong);
                }
                continue;
            }
            let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
            if line.is_empty() {
                let data = std::mem::take(&mut self.data);
                parts.extend(part(&data)?);
            } else if let Some(data) = line.strip_prefix(b"data:") {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            }
            self.line.clear();
        }
        Ok(parts)
    }
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    error: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    #[serde(default)]
    finish_reason: Option<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
}

/// The parts in the data of an event. Of several choices only the first counts; none were asked for.
fn part(data: &[u8]) -> Result<Vec<Part>, BadStream> {
    if data.is_empty() {
        return Ok(Vec::new());
    }
    if data == b"[DONE]" {
        return Ok(vec![Part::End]);
    }
    let Chunk { choices, error } = serde_json::from_slice(data).map_err(|_| BadStream::Malformed)?;
    if error.is_some() {
        return Err(BadStream::Refused);
    }
    let Some(Choice { delta, finish_reason }) = choices.into_iter().next() else { return Ok(Vec::new()) };
    let text = delta.content.filter(|text| !text.is_empty()).map(Part::Text);
    Ok(text.into_iter().chain(finish_reason.map(|_| Part::End)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Part {
        Part::Text(text.to_owned())
    }

    const STREAM: &str = concat!(
        ": a comment\r\n\r\n",
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"},\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"Hé\"}}]}\n\n",
        "event: x\ndata:{\"choices\":\ndata: [{\"delta\":{\"content\":\"llo\"}}]}\n\n",
        "data: {\"choices\":[],\"usage\":{}}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
    );

    #[test]
    fn parts_are_read_from_pieces_of_any_size() {
        for size in [1, 2, 7, 1000] {
            let mut reader = EventReader::default();
            let pieces = STREAM.as_bytes().chunks(size).flat_map(|piece| reader.read(piece).unwrap());
            assert_eq!(pieces.collect::<Vec<_>>(), [text("Hé"), text("llo"), Part::End, Part::End], "{size}");
        }
    }

    #[test]
    fn bad_streams_are_given_up() {
        let read = |bytes: &[u8]| EventReader::default().read(bytes);
        assert_eq!(read(b"data: {\"error\":{\"message\":\"x\"}}\n\n"), Err(BadStream::Refused));
        for malformed in
            ["data: <html>\n\n", "data: 7\n\n", "data: {\"choices\":[{\"delta\":{\"content\":7}}]}\n\n"]
        {
            assert_eq!(read(malformed.as_bytes()), Err(BadStream::Malformed), "{malformed}");
        }
        assert_eq!(read(&b"x".repeat(MAX_EVENT_BYTES + 1)), Err(BadStream::TooLong));
        let lines = format!("data: {}\n", "x".repeat(1000)).repeat(66);
        assert_eq!(read(lines.as_bytes()), Err(BadStream::TooLong));
        assert_eq!(read(": x\n\n".repeat(100_000).as_bytes()), Ok(vec![]), "comments take no memory");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = EventReader::default().read(&bytes);
        }
    }
}
