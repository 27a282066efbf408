//! **Pure**: the lines of a stream of server-sent events (HTML standard, section 9.2.6).

/// Maximum bytes of an event.
const MAX_EVENT_BYTES: usize = 4 << 20;

/// The events of a stream that arrives in pieces.
#[derive(Debug, Default)]
pub(super) struct EventParser {
    /// The unfinished line.
    line: Vec<u8>,
    data: Option<String>,
    id: Option<String>,
}

/// An event, or an id without one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StreamEvent {
    /// The id after which the stream resumes.
    pub(super) id: Option<String>,
    /// Its text.
    pub(super) data: Option<String>,
}

/// An event is longer than any of this server's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl EventParser {
    /// Takes the next bytes; returns the events that they complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<StreamEvent>, TooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.end_line(&String::from_utf8_lossy(&line)));
                }
                b'\r' => {}
                byte => self.line.push(byte),
            }
            let bytes = self.line.len() + self.data.as_ref().map_or(0, String::len);
            if bytes > MAX_EVENT_BYTES {
                return Err(TooLong);
            }
        }
        Ok(events)
    }

    fn end_line(&mut self, line: &str) -> Option<StreamEvent> {
        if line.is_empty() {
            let event = StreamEvent { id: self.id.take(), data: self.data.take() };
            return (event.id.is_some() || event.data.is_some()).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                none => *none = Some(value.to_owned()),
            },
            // A comment, which keeps the connection alive, or a field of no interest.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        "retry: 3000\nid: start\n\n:\n\nid: 1\r\ndata: a é\r\n\r\ndata:b\ndata: c\n\nid: 2\n\ndata: cut";

    #[test]
    fn events_do_not_depend_on_how_bytes_arrive() {
        let event = |id: Option<&str>, data: Option<&str>| StreamEvent {
            id: id.map(str::to_owned),
            data: data.map(str::to_owned),
        };
        let expected = [
            event(Some("start"), None),
            event(Some("1"), Some("a é")),
            event(None, Some("b\nc")),
            event(Some("2"), None),
        ];
        for size in 1..STREAM.len() {
            let mut parser = EventParser::default();
            let pieces = STREAM.as_bytes().chunks(size);
            let events: Vec<_> = pieces.flat_map(|piece| parser.push(piece).unwrap()).collect();
            assert_eq!(events, expected, "pieces of {size}");
        }
    }

    #[test]
    fn endless_event_is_refused() {
        let mut parser = EventParser::default();
        let piece = format!("data: {}\n", "x".repeat(1 << 20));
        let results: Vec<_> = (0..5).map(|_| parser.push(piece.as_bytes()).is_ok()).collect();
        assert_eq!(results, [true, true, true, false, false]);
    }
}
