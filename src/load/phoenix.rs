//! Messages of a Phoenix server (version 2) as its members see them: by their heads, or whole.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// Bytes of a message that tell its kind.
pub const HEAD_BYTES: usize = 256;

/// The kind of a server's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// The answer to a push that was accepted.
    Reply,
    /// The answer to a push that was refused.
    Refusal,
    /// All members.
    PresenceState,
    /// Members that came, changed or went.
    PresenceDiff,
    /// The member is not in the room any more.
    ChannelClosed,
    /// The room failed.
    ChannelFailed,
    /// A message of the room.
    Room,
}

impl MessageKind {
    /// The kind of a message that begins with `head`: [`HEAD_BYTES`], or all of it if it is shorter.
    ///
    /// It is found by position: nothing before the event has a comma in it, the topics being the tool's own.
    pub fn of(head: &[u8]) -> Self {
        let event = head.split(|byte| *byte == b',').nth(3).unwrap_or_default().trim_ascii();
        match event {
            b"\"phx_reply\"" => {
                let refused = br#""status":"error""#;
                let is_refusal = head.windows(refused.len()).any(|window| window == refused);
                if is_refusal { Self::Refusal } else { Self::Reply }
            }
            b"\"presence_state\"" => Self::PresenceState,
            b"\"presence_diff\"" => Self::PresenceDiff,
            b"\"phx_close\"" => Self::ChannelClosed,
            b"\"phx_error\"" => Self::ChannelFailed,
            _ => Self::Room,
        }
    }
}

#[derive(Deserialize)]
struct Frame<'a>(IgnoredAny, IgnoredAny, IgnoredAny, IgnoredAny, #[serde(borrow)] &'a RawValue);

/// The payload of a message.
///
/// # Errors
/// The parser's, if it is no message of the protocol.
pub fn payload(message: &[u8]) -> Result<&RawValue, serde_json::Error> {
    serde_json::from_slice::<Frame<'_>>(message).map(|frame| frame.4)
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    response: Response,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    reason: Option<String>,
}

/// The result of a join by the answer to it; an error is the server's reason.
pub fn joined(message: &[u8]) -> Result<(), String> {
    if !matches!(MessageKind::of(message), MessageKind::Reply | MessageKind::Refusal) {
        return Err("the first message is no answer to the join".to_owned());
    }
    let reply = payload(message).and_then(|payload| serde_json::from_str::<Reply<'_>>(payload.get()));
    match reply {
        Ok(reply) if reply.status == "ok" => Ok(()),
        Ok(reply) => Err(reply.response.reason.unwrap_or_else(|| "no reason given".to_owned())),
        Err(error) => Err(format!("the answer to the join is malformed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_the_head() {
        for (head, kind) in [
            (r#"["1","7","room:load-1","phx_reply",{"response":{},"status":"ok"}]"#, MessageKind::Reply),
            (
                r#"["1", "7", "room:load-1", "phx_reply", {"status":"error","response":{"reason":"no"}}]"#,
                MessageKind::Refusal,
            ),
            (r#"[null,"7","phoenix","phx_reply",{"response":{},"status":"ok"}]"#, MessageKind::Reply),
            (r#"["1",null,"room:load-1","presence_state",{"a":{"me"#, MessageKind::PresenceState),
            (r#"[null,null,"room:load-1","presence_diff",{"joins":{"#, MessageKind::PresenceDiff),
            (r#"[null,null,"room:load-1","roomState",{"type":"#, MessageKind::Room),
            (r#"["1","1","room:load-1","phx_close",{}]"#, MessageKind::ChannelClosed),
            (r#"["1","1","room:load-1","phx_error",{"reason":"x"}]"#, MessageKind::ChannelFailed),
            ("", MessageKind::Room),
        ] {
            assert_eq!(MessageKind::of(head.as_bytes()), kind, "{head}");
        }
    }

    #[test]
    fn answer_to_the_join_is_read() {
        let joined =
            |payload: &str| joined(format!(r#"["1","1","room:a","phx_reply",{payload}]"#).as_bytes());
        assert_eq!(joined(r#"{"response":{"id":"x"},"status":"ok"}"#), Ok(()));
        let full = joined(r#"{"response":{"reason":"the room is full"},"status":"error"}"#);
        assert_eq!(full, Err("the room is full".to_owned()));
        assert!(joined("7").is_err());
        assert!(super::joined(br#"["1",null,"room:a","presence_state",{}]"#).is_err());
    }
}
