//! Encoding of the server's frames.

use super::{Ref, Version};
use crate::protocol::server::{MessageKind, json_text};

/// The parts of a frame around the JSON of its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The text before the payload.
    pub head: String,
    /// The text after it.
    pub tail: &'static str,
}

/// Result of a client's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It was handled.
    Ok,
    /// It was refused.
    Error,
}

/// The envelope of a room's message.
///
/// Those of presences are pushes to the one that joined, with its `join_ref`: a client that joins the topic anew
/// drops what was on its way for the join before. Otherwise it would apply an old difference to the new state, and
/// keep a presence that has ended. Everything else is a broadcast to the topic.
pub fn envelope(version: Version, join_ref: Option<&Ref>, topic: &str, kind: MessageKind) -> Envelope {
    let is_of_join = matches!(kind, MessageKind::PresenceState | MessageKind::PresenceDiff);
    let join_ref = join_ref.filter(|_| is_of_join);
    head(version, [join_ref, None], topic, kind.event_name())
}

/// A reply with `response`, a JSON object, to the message of these references.
pub fn reply(
    version: Version,
    join_ref: Option<&Ref>,
    message_ref: Option<&Ref>,
    topic: &str,
    (status, response): (Status, &str),
) -> String {
    let status = match status {
        Status::Ok => "ok",
        Status::Error => "error",
    };
    let payload = format!(r#"{{"response":{response},"status":"{status}"}}"#);
    whole(version, [join_ref, message_ref], topic, "phx_reply", &payload)
}

/// A reply with a result: nothing more to say, or the reason for the refusal.
pub fn reply_reason(
    version: Version,
    join_ref: Option<&Ref>,
    message_ref: Option<&Ref>,
    topic: &str,
    result: Result<(), &str>,
) -> String {
    match result {
        Ok(()) => reply(version, join_ref, message_ref, topic, (Status::Ok, "{}")),
        Err(reason) => {
            let response = format!(r#"{{"reason":{}}}"#, json_text(reason));
            reply(version, join_ref, message_ref, topic, (Status::Error, &response))
        }
    }
}

/// The end of a joined topic, after which the client does not join it again by itself.
pub fn channel_closed(version: Version, join_ref: Option<&Ref>, topic: &str) -> String {
    whole(version, [join_ref, join_ref], topic, "phx_close", "{}")
}

/// The failure of a joined topic, after which the client joins it again.
pub fn channel_failed(version: Version, join_ref: Option<&Ref>, topic: &str) -> String {
    whole(version, [join_ref, join_ref], topic, "phx_error", r#"{"reason":"channel_crash"}"#)
}

/// A message of a topic that is not a room's, with `payload`, a JSON object.
pub fn push(version: Version, topic: &str, event: &str, payload: &str) -> String {
    whole(version, [None, None], topic, event, payload)
}

fn whole(version: Version, refs: [Option<&Ref>; 2], topic: &str, event: &str, payload: &str) -> String {
    let Envelope { mut head, tail } = head(version, refs, topic, event);
    head.reserve_exact(payload.len() + tail.len());
    head + payload + tail
}

/// The envelope of a message with these references: of its join, and its own. Version 1 names the second alone.
fn head(version: Version, refs: [Option<&Ref>; 2], topic: &str, event: &str) -> Envelope {
    let [join_ref, message_ref] = refs.map(|reference| reference.map_or("null", Ref::as_json));
    let topic = json_text(topic);
    match version {
        Version::V2 => {
            Envelope { head: format!(r#"[{join_ref},{message_ref},{topic},"{event}","#), tail: "]" }
        }
        Version::V1 => {
            let head = format!(r#"{{"topic":{topic},"event":"{event}","ref":{message_ref},"payload":"#);
            Envelope { head, tail: "}" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ClientFrame;
    use super::*;

    const TOPIC: &str = "room:\"a\"";

    fn references(text: &str) -> [Option<Ref>; 2] {
        let frame = ClientFrame::parse(Version::V2, text).unwrap();
        [frame.join_ref, frame.message_ref]
    }

    #[test]
    fn v2_frames_are_encoded_byte_for_byte() {
        let [join_ref, message_ref] = references(r#"["1",7,"t","e",{}]"#);
        let (join_ref, message_ref) = (join_ref.as_ref(), message_ref.as_ref());
        let v2 = Version::V2;
        for (frame, text) in [
            (
                reply(v2, join_ref, message_ref, TOPIC, (Status::Ok, r#"{"id":"x"}"#)),
                r#"["1",7,"room:\"a\"","phx_reply",{"response":{"id":"x"},"status":"ok"}]"#,
            ),
            (
                reply_reason(v2, None, message_ref, "phoenix", Ok(())),
                r#"[null,7,"phoenix","phx_reply",{"response":{},"status":"ok"}]"#,
            ),
            (
                reply_reason(v2, join_ref, None, TOPIC, Err("no \"x\"")),
                r#"["1",null,"room:\"a\"","phx_reply",{"response":{"reason":"no \"x\""},"status":"error"}]"#,
            ),
            (channel_closed(v2, join_ref, TOPIC), r#"["1","1","room:\"a\"","phx_close",{}]"#),
            (
                channel_failed(v2, None, TOPIC),
                r#"[null,null,"room:\"a\"","phx_error",{"reason":"channel_crash"}]"#,
            ),
        ] {
            assert_eq!(frame, text);
        }
    }

    #[test]
    fn v1_frames_are_encoded_byte_for_byte() {
        let [join_ref, _] = references(r#"["1",7,"t","e",{}]"#);
        let join_ref = join_ref.as_ref();
        assert_eq!(
            reply_reason(Version::V1, None, join_ref, TOPIC, Ok(())),
            r#"{"topic":"room:\"a\"","event":"phx_reply","ref":"1","payload":{"response":{},"status":"ok"}}"#
        );
        assert_eq!(
            channel_closed(Version::V1, join_ref, TOPIC),
            r#"{"topic":"room:\"a\"","event":"phx_close","ref":"1","payload":{}}"#
        );
    }

    #[test]
    fn only_presences_name_their_join() {
        let [join_ref, _] = references(r#"["1",7,"t","e",{}]"#);
        let text = |version, kind| {
            let Envelope { head, tail } = envelope(version, join_ref.as_ref(), "room:a", kind);
            head + "{}" + tail
        };
        for (kind, v2) in [
            (MessageKind::PresenceState, r#"["1",null,"room:a","presence_state",{}]"#),
            (MessageKind::PresenceDiff, r#"["1",null,"room:a","presence_diff",{}]"#),
            (MessageKind::RoomState, r#"[null,null,"room:a","roomState",{}]"#),
        ] {
            assert_eq!(text(Version::V2, kind), v2);
            let v1 =
                format!(r#"{{"topic":"room:a","event":"{}","ref":null,"payload":{{}}}}"#, kind.event_name());
            assert_eq!(text(Version::V1, kind), v1);
        }
    }
}
