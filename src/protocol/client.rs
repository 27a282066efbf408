//! Messages of clients (protocol section 3).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::activity::Activity;
use super::ai::{AiMessage, AiWish, TrackReference};
use super::moderation::{self, ModerationRequest};
use super::user::User;
use super::watch::{self, WatchRequest};
use crate::id::UserId;

/// Maximum length of a chat message in characters.
const CHAT_CHARS: usize = 2000;

/// Allowed ratio of a user object's text to the object as kept; whitespace and escapes make the text longer.
const USER_TEXT_FACTOR: usize = 4;

/// Limits on a message's text, applied before it is parsed further.
#[derive(Clone, Copy, Debug)]
pub struct MessageLimits {
    /// Maximum size in bytes of a message other than `callsApiHistoryEntry`.
    pub frame_bytes: usize,
    /// Maximum size in bytes of a user object as kept.
    pub user_bytes: usize,
}

impl Default for MessageLimits {
    fn default() -> Self {
        Self { frame_bytes: 1 << 20, user_bytes: 8192 }
    }
}

/// A message of a client.
#[derive(Clone, Debug)]
pub enum ClientMessage {
    /// Replaces the sender's user object.
    UserUpdate(Box<User>),
    /// Signals that the sender is alive.
    Heartbeat,
    /// The sender leaves for good.
    UserLeft,
    /// A text message to one member.
    DirectMessage {
        /// The recipient; `None` for an id that is invalid.
        to: Option<UserId>,
        /// The text.
        message: JsonString,
    },
    /// A text message to everyone in the room.
    Chat {
        /// The text.
        message: JsonString,
    },
    /// A request of a moderator.
    Moderate(Box<ModerationRequest>),
    /// Request to switch off a member's microphone.
    MuteUser {
        /// The member; `None` for an id that is invalid.
        id: Option<UserId>,
    },
    /// An opaque message of the end-to-end encryption's group (MLS).
    E2eeMlsMessage {
        /// The payload that all others receive, byte for byte.
        payload: JsonString,
    },
    /// A record of the client's request to the media API.
    CallsApiHistoryEntry(HistoryEntry),
    /// A ping that the reference's library would answer by itself.
    PartyserverPing,
    /// A request about the AI.
    Ai(AiMessage),
    /// Reactions, and other activities of members.
    Activity(Activity),
}

/// A string as JSON text, quotes and escapes included.
///
/// Forwarding the original text keeps every character, even lone surrogates, which JavaScript's
/// strings can hold and Rust's cannot.
#[derive(Clone, Debug)]
pub struct JsonString(Box<RawValue>);

impl JsonString {
    /// Wraps JSON text; `None` unless it is one string.
    pub fn parse(json: &str) -> Option<Self> {
        let raw: &RawValue = serde_json::from_str(json).ok()?;
        raw.get().starts_with('"').then(|| Self(raw.to_owned()))
    }

    /// The JSON text, quotes included.
    pub fn as_json(&self) -> &str {
        self.0.get()
    }
}

/// The logged part of a `callsApiHistoryEntry`; its bodies hold ICE passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// `request` or `response`, as the client sent it; at most 200 characters.
    pub kind: String,
    /// The endpoint as the client sent it, without its query; at most 200 characters.
    pub endpoint: String,
    /// Size of the whole message in bytes.
    pub bytes: usize,
}

/// Reason for rejecting a message. The sentence goes to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// The text exceeds the limit of its message type.
    #[error("the message is too long")]
    TooLong,
    /// The text of the user object is far longer than the limit of a kept one.
    #[error("the user object has {bytes} bytes; at most {most} are allowed")]
    UserTooLong {
        /// Size of the object's text in bytes, as received.
        bytes: usize,
        /// Maximum size in bytes of a user object as kept.
        most: usize,
    },
    /// The text is not JSON.
    #[error("the message is not valid JSON")]
    NotJson,
    /// The JSON is not an object with a `type`.
    #[error("the message is not a JSON object with a text field \"type\"")]
    NoType,
    /// The `type` is unknown.
    #[error("the message's \"type\" is not known")]
    UnknownType,
    /// The event of an envelope is unknown.
    #[error("the event is not known")]
    UnknownEvent,
    /// The payload in an envelope is not an object.
    #[error("the payload is not a JSON object")]
    NoPayload,
    /// The payload in an envelope has another `type` than the envelope.
    #[error("the payload's \"type\" is not the event's name")]
    OtherType,
    /// A field is missing or has a wrong type.
    #[error("{message} needs a field \"{field}\" that is {expected}")]
    Field {
        /// The message's type.
        message: &'static str,
        /// The field's name.
        field: &'static str,
        /// Description of a valid value.
        expected: &'static str,
    },
}

/// All fields that a message may have, as raw JSON. One pass over the text finds the type and
/// checks that all of it is JSON; only the fields that the type needs are parsed further.
#[derive(Deserialize)]
struct MessageFields<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    user: Option<&'a RawValue>,
    #[serde(borrow, default)]
    to: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    entry: Option<&'a RawValue>,
    #[serde(borrow, default)]
    voice: Option<&'a RawValue>,
    #[serde(borrow, default)]
    instructions: Option<&'a RawValue>,
    #[serde(borrow, default)]
    track: Option<&'a RawValue>,
    #[serde(borrow, default)]
    emoji: Option<&'a RawValue>,
    #[serde(rename = "ref", borrow, default)]
    reference: Option<&'a RawValue>,
}

impl ClientMessage {
    /// Parses one text frame. The memory used is bounded by the limits, not by the text.
    ///
    /// # Errors
    /// [`InvalidMessage`] if the text is not a valid message.
    pub fn parse(text: &str, limits: MessageLimits) -> Result<Self, InvalidMessage> {
        let fields: MessageFields = serde_json::from_str(text).map_err(|error| match error.classify() {
            Category::Data => InvalidMessage::NoType,
            Category::Io | Category::Syntax | Category::Eof => InvalidMessage::NotJson,
        })?;
        let kind = fields.kind.clone().ok_or(InvalidMessage::NoType)?;
        Self::read(&kind, &fields, text, limits)
    }

    /// Parses the payload of an envelope that names the message's `kind`. Its own `type` may be left out.
    ///
    /// # Errors
    /// [`InvalidMessage`] if both are not a valid message.
    pub fn parse_payload(kind: &str, payload: &str, limits: MessageLimits) -> Result<Self, InvalidMessage> {
        // An array would be taken for the values of an object's fields.
        let object = Some(payload).filter(|payload| payload.trim_start().starts_with('{'));
        let fields: MessageFields =
            object.and_then(|object| serde_json::from_str(object).ok()).ok_or(InvalidMessage::NoPayload)?;
        if fields.kind.as_ref().is_some_and(|other| other != kind) {
            return Err(InvalidMessage::OtherType);
        }
        Self::read(kind, &fields, payload, limits).map_err(|error| match error {
            InvalidMessage::UnknownType => InvalidMessage::UnknownEvent,
            error => error,
        })
    }

    fn read(
        kind: &str,
        fields: &MessageFields<'_>,
        text: &str,
        limits: MessageLimits,
    ) -> Result<Self, InvalidMessage> {
        let bytes = text.len();
        if bytes > limits.frame_bytes && kind != "callsApiHistoryEntry" {
            return Err(InvalidMessage::TooLong);
        }
        Ok(match kind {
            "userUpdate" => Self::UserUpdate(read_user(fields.user, limits.user_bytes)?),
            "heartbeat" => Self::Heartbeat,
            "userLeft" => Self::UserLeft,
            "directMessage" => Self::DirectMessage {
                to: read_id("directMessage", "to", fields.to)?,
                message: read_text("directMessage", "message", fields.message)?,
            },
            "chat" => Self::Chat { message: read_chat(fields.message)? },
            "moderate" => Self::Moderate(Box::new(read_moderation(text)?)),
            "muteUser" => Self::MuteUser { id: read_id("muteUser", "id", fields.id)? },
            "e2eeMlsMessage" => {
                Self::E2eeMlsMessage { payload: read_text("e2eeMlsMessage", "payload", fields.payload)? }
            }
            "callsApiHistoryEntry" => Self::CallsApiHistoryEntry(HistoryEntry::read(fields.entry, bytes)),
            "partyserver-ping" => Self::PartyserverPing,
            "enableAi" => Self::Ai(AiMessage::Enable(AiWish::read(fields.voice, fields.instructions)?)),
            "disableAi" => Self::Ai(AiMessage::Disable),
            "requestAiControl" => Self::Ai(AiMessage::RequestControl(TrackReference::read(fields.track)?)),
            "relenquishAiControl" => Self::Ai(AiMessage::RelinquishControl),
            "react" => Self::Activity(Activity::React {
                emoji: read("react", "emoji", "one emoji of at most 64 bytes", fields.emoji)?,
            }),
            "clock" => Self::Activity(Activity::Clock {
                reference: read("clock", "ref", "a whole number", fields.reference)?,
            }),
            "watch" => Self::Activity(Activity::Watch(read_watch(text)?)),
            "stopAnswer" => Self::Activity(Activity::StopAnswer),
            _ => return Err(InvalidMessage::UnknownType),
        })
    }

    /// The message's `type`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::UserUpdate(_) => "userUpdate",
            Self::Heartbeat => "heartbeat",
            Self::UserLeft => "userLeft",
            Self::DirectMessage { .. } => "directMessage",
            Self::Chat { .. } => "chat",
            Self::Moderate(_) => "moderate",
            Self::MuteUser { .. } => "muteUser",
            Self::E2eeMlsMessage { .. } => "e2eeMlsMessage",
            Self::CallsApiHistoryEntry(_) => "callsApiHistoryEntry",
            Self::PartyserverPing => "partyserver-ping",
            Self::Ai(AiMessage::Enable(_)) => "enableAi",
            Self::Ai(AiMessage::Disable) => "disableAi",
            Self::Ai(AiMessage::RequestControl(_)) => "requestAiControl",
            Self::Ai(AiMessage::RelinquishControl) => "relenquishAiControl",
            Self::Activity(activity) => activity.kind(),
        }
    }
}

impl HistoryEntry {
    /// Reads the known fields. An entry is only logged, so a malformed one is not an error.
    fn read(entry: Option<&RawValue>, bytes: usize) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Head<'a> {
            #[serde(borrow)]
            r#type: Cow<'a, str>,
            #[serde(borrow)]
            endpoint: Cow<'a, str>,
        }
        let head: Head = entry.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        let clip = |text: &str| text.split('?').next().unwrap_or_default().chars().take(200).collect();
        Self { kind: clip(&head.r#type), endpoint: clip(&head.endpoint), bytes }
    }
}

pub(super) fn read<'a, T: Deserialize<'a>>(
    message: &'static str,
    field: &'static str,
    expected: &'static str,
    raw: Option<&'a RawValue>,
) -> Result<T, InvalidMessage> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).ok_or(InvalidMessage::Field {
        message,
        field,
        expected,
    })
}

fn read_user(raw: Option<&RawValue>, most: usize) -> Result<Box<User>, InvalidMessage> {
    let bytes = raw.map_or(0, |raw| raw.get().len());
    if bytes > most.saturating_mul(USER_TEXT_FACTOR) {
        return Err(InvalidMessage::UserTooLong { bytes, most });
    }
    read("userUpdate", "user", "a user object", raw)
}

/// Reads a member's id. An invalid one matches nobody, which is not an error: the reference only
/// logs a message to an absent member.
fn read_id(
    message: &'static str,
    field: &'static str,
    raw: Option<&RawValue>,
) -> Result<Option<UserId>, InvalidMessage> {
    let id: Cow<str> = read(message, field, "a text", raw)?;
    Ok(UserId::parse(&id).ok())
}

fn read_text(
    message: &'static str,
    field: &'static str,
    raw: Option<&RawValue>,
) -> Result<JsonString, InvalidMessage> {
    raw.filter(|raw| raw.get().starts_with('"'))
        .map(|raw| JsonString(raw.to_owned()))
        .ok_or(InvalidMessage::Field { message, field, expected: "a text" })
}

/// Reads a moderator's request, of which only short ones are: its fields are read into memory first.
fn read_moderation(text: &str) -> Result<ModerationRequest, InvalidMessage> {
    if text.len() > moderation::MAX_BYTES {
        return Err(InvalidMessage::TooLong);
    }
    ModerationRequest::parse(text).ok_or(InvalidMessage::Field {
        message: "moderate",
        field: "action",
        expected: "one of docs/protocol.md, with its other fields",
    })
}

/// Reads a request about a video, of which only short ones are, as of moderators.
fn read_watch(text: &str) -> Result<WatchRequest, InvalidMessage> {
    if text.len() > watch::MAX_BYTES {
        return Err(InvalidMessage::TooLong);
    }
    WatchRequest::parse(text).map_err(|(field, expected)| InvalidMessage::Field {
        message: "watch",
        field,
        expected,
    })
}

/// Reads a chat message. Its length is counted in unescaped characters, since an escape takes six
/// bytes for one.
fn read_chat(raw: Option<&RawValue>) -> Result<JsonString, InvalidMessage> {
    let expected = "a text of 1 to 2000 characters, not all of them blank";
    let text: Cow<str> = read("chat", "message", expected, raw)?;
    if text.trim().is_empty() || text.chars().count() > CHAT_CHARS {
        return Err(InvalidMessage::Field { message: "chat", field: "message", expected });
    }
    read_text("chat", "message", raw)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<ClientMessage, InvalidMessage> {
        ClientMessage::parse(text, MessageLimits::default())
    }

    fn error(text: &str) -> InvalidMessage {
        parse(text).expect_err(text)
    }

    /// Eleven such updates took 1.09 GB before any limit applied.
    #[test]
    fn long_user_text_is_rejected() {
        let user = |items: usize| {
            format!(r#"{{"type":"userUpdate","user":{{"x":[{}0]}}}}"#, r#"{"a":0},"#.repeat(items))
        };
        let (kept, long, longest) = (user(3_000), user(5_000), user(131_000));
        assert_eq!(parse(&kept).map(|message| message.kind()), Ok("userUpdate"));
        assert_eq!(error(&long), InvalidMessage::UserTooLong { bytes: 40_009, most: 8192 });
        assert!(matches!(error(&longest), InvalidMessage::UserTooLong { .. }));
        assert_eq!(error(&user(131_072)), InvalidMessage::TooLong);
    }

    #[test]
    fn only_a_history_entry_may_exceed_the_frame_limit() {
        let of = |kind: &str| {
            format!(r#"{{"type":"{kind}","entry":{{"type":"request"}},"x":"{}"}}"#, "x".repeat(1 << 20))
        };
        assert_eq!(
            parse(&of("callsApiHistoryEntry")).map(|message| message.kind()),
            Ok("callsApiHistoryEntry")
        );
        for kind in ["heartbeat", "userLeft", "e2eeMlsMessage", "unknown"] {
            assert_eq!(error(&of(kind)), InvalidMessage::TooLong, "{kind}");
        }
    }

    #[test]
    fn every_type_is_read() {
        for (text, kind) in [
            (r#"{"type":"userUpdate","user":{}}"#, "userUpdate"),
            (r#"{"type":"heartbeat"}"#, "heartbeat"),
            (r#"{"type":"userLeft"}"#, "userLeft"),
            (r#"{"type":"directMessage","to":"b","message":"hi"}"#, "directMessage"),
            (r#"{"type":"chat","message":"hi"}"#, "chat"),
            (r#"{"type":"muteUser","id":"b"}"#, "muteUser"),
            (r#"{"type":"moderate","action":"lock","on":true}"#, "moderate"),
            (r#"{"type":"e2eeMlsMessage","payload":"x"}"#, "e2eeMlsMessage"),
            (r#"{"type":"callsApiHistoryEntry"}"#, "callsApiHistoryEntry"),
            (r#"{"type":"watch","action":"stop"}"#, "watch"),
            (r#"{"type":"clock","ref":7}"#, "clock"),
            (r#"{"type":"partyserver-ping"}"#, "partyserver-ping"),
            (r#"{"type":"enableAi","voice":"alloy"}"#, "enableAi"),
            (r#"{"type":"disableAi"}"#, "disableAi"),
            (r#"{"type":"requestAiControl","track":{"sessionId":"s","trackName":"t"}}"#, "requestAiControl"),
            (r#"{"type":"relenquishAiControl"}"#, "relenquishAiControl"),
            (r#"{"type":"react","emoji":"👍"}"#, "react"),
            (r#"{"type":"stopAnswer"}"#, "stopAnswer"),
            (r#"{"typ\u0065":"heart\u0062eat"}"#, "heartbeat"),
        ] {
            assert_eq!(parse(text).map(|message| message.kind()), Ok(kind), "{text}");
        }
    }

    #[test]
    fn error_names_the_defect() {
        assert_eq!(error("{nope"), InvalidMessage::NotJson);
        assert_eq!(error(""), InvalidMessage::NotJson);
        assert_eq!(error(r#"{"type":"heartbeat"} x"#), InvalidMessage::NotJson);
        assert_eq!(error("[]"), InvalidMessage::NoType);
        assert_eq!(error(r#"{"type":7}"#), InvalidMessage::NoType);
        assert_eq!(error(r#"{"type":"teleport"}"#), InvalidMessage::UnknownType);
        assert_eq!(
            error(r#"{"type":"userUpdate","user":7}"#).to_string(),
            r#"userUpdate needs a field "user" that is a user object"#
        );
        assert_eq!(
            error(r#"{"type":"react","emoji":"well"}"#).to_string(),
            r#"react needs a field "emoji" that is one emoji of at most 64 bytes"#
        );
        assert_eq!(
            error(r#"{"type":"directMessage","to":"b","message":{}}"#).to_string(),
            r#"directMessage needs a field "message" that is a text"#
        );
    }

    #[test]
    fn a_payload_keeps_every_character() {
        // A lone surrogate is valid in JavaScript's strings and in JSON, but not in Rust's.
        let text = r#"{"type":"e2eeMlsMessage","payload":"\ud83c \u0000 é🍊\/"}"#;
        let Ok(ClientMessage::E2eeMlsMessage { payload }) = parse(text) else { panic!() };
        assert_eq!(payload.as_json(), r#""\ud83c \u0000 é🍊\/""#);
    }

    #[test]
    fn chat_message_has_limits() {
        let chat = |line: &str| parse(&format!(r#"{{"type":"chat","message":{line}}}"#));
        for line in ["\"x\"", "\" \\u00e9 \"", &format!("\"{}\"", "\\u00e9".repeat(2000))] {
            let Ok(ClientMessage::Chat { message }) = chat(line) else { panic!("{line}") };
            assert_eq!(message.as_json(), line, "it goes on as it came");
        }
        let too_long = format!("\"{}\"", "é".repeat(2001));
        for line in ["\"\"", "\" \\n\\u00a0\"", &too_long, "7", "null", r#""\ud83c""#] {
            let error = chat(line).expect_err(line).to_string();
            assert_eq!(
                error,
                r#"chat needs a field "message" that is a text of 1 to 2000 characters, not all of them blank"#
            );
        }
    }

    #[test]
    fn payload_of_an_envelope_may_leave_out_its_type() {
        let parse = |kind: &str, payload: &str| {
            ClientMessage::parse_payload(kind, payload, MessageLimits::default())
                .map(|message| message.kind())
        };
        assert_eq!(parse("chat", r#"{"message":"hi"}"#), Ok("chat"));
        assert_eq!(parse("chat", r#"{"message":"hi","type":"chat"}"#), Ok("chat"));
        assert_eq!(parse("heartbeat", "{}"), Ok("heartbeat"));
        assert_eq!(parse("chat", r#"{"message":"hi","type":"userLeft"}"#), Err(InvalidMessage::OtherType));
        assert_eq!(parse("teleport", "{}"), Err(InvalidMessage::UnknownEvent));
        for payload in ["null", "7", "[]", "\"x\"", r#"{"type":7}"#] {
            assert_eq!(parse("chat", payload), Err(InvalidMessage::NoPayload), "{payload}");
        }
        assert!(matches!(parse("chat", "{}"), Err(InvalidMessage::Field { .. })));
        let long = format!(r#"{{"x":"{}"}}"#, "x".repeat(1 << 20));
        assert_eq!(parse("heartbeat", &long), Err(InvalidMessage::TooLong));
    }

    #[test]
    fn deep_nesting_is_rejected() {
        let deep = "[".repeat(500_000);
        assert_eq!(error(&deep), InvalidMessage::NoType);
        let nested =
            format!(r#"{{"type":"userUpdate","user":{{"x":{}{}}}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert!(matches!(error(&nested), InvalidMessage::Field { .. } | InvalidMessage::NotJson));
    }

    #[test]
    fn history_entry_is_kept_without_query_and_bodies() {
        let text =
            r#"{"type":"callsApiHistoryEntry","entry":{"type":"request","endpoint":"/x?token=1","body":{}}}"#;
        let Ok(ClientMessage::CallsApiHistoryEntry(entry)) = parse(text) else { panic!() };
        assert_eq!(entry, HistoryEntry { kind: "request".into(), endpoint: "/x".into(), bytes: text.len() });
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = parse(&text);
        }

        #[test]
        fn parsing_json_like_text_never_panics(kind in "userUpdate|directMessage|chat|muteUser|e2eeMlsMessage|enableAi|requestAiControl|react", field in "emoji|user|to|id|message|payload|voice|track", value in r#"null|1e999|-0|"\\ud800"|\[\[\]\]|\{"tracks":1\}|"[a-z]{0,9}""#) {
            let _ = parse(&format!(r#"{{"type":"{kind}","{field}":{value}}}"#));
        }
    }
}
