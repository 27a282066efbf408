//! Messages of this server (protocol section 4) and their encoding.

use std::fmt::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::activity::ActivityNotice;
use super::client::JsonString;
use super::error_code::error_code;
use super::moderation::ModerationNotice;
use crate::id::{MeetingId, UserId};

/// The kind of a message of this server.
///
/// Every message of Orange's begins with it, as `{"type":"…"`; a protocol with envelopes names it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// The snapshot of a room.
    RoomState,
    /// [`Event::Error`].
    Error,
    /// [`Event::DirectMessage`].
    DirectMessage,
    /// [`Event::Chat`].
    Chat,
    /// The chat before a member joined, see [`encode_chat_history`].
    ChatHistory,
    /// [`ActivityNotice::Reactions`].
    Reactions,
    /// [`ActivityNotice::ChatUpdate`].
    ChatUpdate,
    /// [`ActivityNotice::Clock`].
    Clock,
    /// [`Event::MuteMic`].
    MuteMic,
    /// [`Event::E2eeMlsMessage`].
    E2eeMlsMessage,
    /// [`Event::UserLeftNotification`].
    UserLeftNotification,
    /// [`ModerationNotice::Moderated`].
    Moderated,
    /// [`ModerationNotice::Removed`].
    Removed,
    /// [`ModerationNotice::Ended`].
    Ended,
    /// [`ModerationNotice::Muted`].
    Muted,
    /// [`ModerationNotice::ChatCleared`].
    ChatCleared,
    /// [`ModerationNotice::Knocks`].
    Knocks,
    /// [`MEDIA_MOVED`].
    MediaMoved,
    /// Everyone's presence, of Phoenix Presence; without a `type`.
    PresenceState,
    /// A change of presences, of Phoenix Presence; without a `type`.
    PresenceDiff,
    /// A message of a durable object, whose sockets have a protocol of their own.
    Object,
}

/// The node of the media sessions of a room is gone: clients that look at once need not find out.
pub const MEDIA_MOVED: &str = r#"{"type":"mediaMoved"}"#;

impl MessageKind {
    /// The kinds whose messages begin with their name, as Orange's do.
    const OF_ORANGE: [Self; 18] = [
        Self::RoomState,
        Self::Error,
        Self::DirectMessage,
        Self::Chat,
        Self::ChatHistory,
        Self::Reactions,
        Self::ChatUpdate,
        Self::Clock,
        Self::MuteMic,
        Self::E2eeMlsMessage,
        Self::UserLeftNotification,
        Self::Moderated,
        Self::Removed,
        Self::Ended,
        Self::Muted,
        Self::ChatCleared,
        Self::Knocks,
        Self::MediaMoved,
    ];

    /// The kind's name: the `type` in Orange's protocol, the event in Phoenix's.
    pub const fn event_name(self) -> &'static str {
        match self {
            Self::RoomState => "roomState",
            Self::Error => "error",
            Self::DirectMessage => "directMessage",
            Self::Chat => "chat",
            Self::ChatHistory => "chatHistory",
            Self::Reactions => "reactions",
            Self::ChatUpdate => "chatUpdate",
            Self::Clock => "clock",
            Self::MuteMic => "muteMic",
            Self::E2eeMlsMessage => "e2eeMlsMessage",
            Self::UserLeftNotification => "userLeftNotification",
            Self::Moderated => "moderated",
            Self::Removed => "removed",
            Self::Ended => "ended",
            Self::Muted => "muted",
            Self::ChatCleared => "chatCleared",
            Self::Knocks => "knocks",
            Self::MediaMoved => "mediaMoved",
            Self::PresenceState => "presence_state",
            Self::PresenceDiff => "presence_diff",
            Self::Object => "object",
        }
    }

    /// The kind of a message that [`Event::encode`] or [`encode_room_state`] wrote; `None` for other texts.
    pub fn of_message(json: &str) -> Option<Self> {
        let (name, _) = json.strip_prefix(r#"{"type":""#)?.split_once('"')?;
        Self::OF_ORANGE.into_iter().find(|kind| kind.event_name() == name)
    }
}

/// A message that is sent once and that a client must not miss: all but the snapshot.
#[derive(Clone, Debug)]
pub enum Event {
    /// The member's last message was rejected.
    Error {
        /// The reason, as a sentence.
        error: String,
    },
    /// A private text message of another member.
    DirectMessage {
        /// The other member's name.
        from: Arc<str>,
        /// The text.
        message: JsonString,
    },
    /// A chat message, sent to its author too.
    Chat(ChatMessage),
    /// Request to switch the microphone off.
    MuteMic,
    /// An opaque message of the end-to-end encryption's group (MLS).
    E2eeMlsMessage {
        /// The sender's payload, byte for byte.
        payload: JsonString,
    },
    /// A member has left.
    UserLeftNotification {
        /// The member.
        id: UserId,
    },
    /// A message about what members do together.
    Activity(Box<ActivityNotice>),
    /// A message about moderation.
    Moderation(Box<ModerationNotice>),
}

/// A message of the chat.
#[derive(Clone, Debug)]
pub struct ChatMessage {
    /// Number of the message, greater than that of every earlier one.
    pub id: u64,
    /// The author.
    pub from: UserId,
    /// The author's name at the time of writing.
    pub name: Arc<str>,
    /// The text.
    pub message: JsonString,
    /// Time of arrival in milliseconds since 1970.
    pub at: u64,
    /// The file that it tells of, if it tells of one.
    pub file: Option<SharedFile>,
}

/// A file in the chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedFile {
    /// Its id, by which members get it.
    pub id: String,
    /// The name that its owner gave it.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its media type, by its content.
    pub kind: String,
}

impl ChatMessage {
    /// Encodes the message as a JSON object without a `type`, as in the history.
    pub fn to_json(&self) -> String {
        let Self { id, from, name, message, at, file } = self;
        let (name, message) = (json_text(name), message.as_json());
        // Texts and numbers always serialize.
        let file = file.as_ref().and_then(|file| serde_json::to_string(file).ok());
        let file = file.map(|file| format!(r#","file":{file}"#)).unwrap_or_default();
        format!(r#"{{"id":{id},"from":"{from}","name":{name},"message":{message},"at":{at}{file}}}"#)
    }
}

impl Event {
    /// The kind of the message.
    pub const fn kind(&self) -> MessageKind {
        match self {
            Self::Error { .. } => MessageKind::Error,
            Self::DirectMessage { .. } => MessageKind::DirectMessage,
            Self::Chat(_) => MessageKind::Chat,
            Self::MuteMic => MessageKind::MuteMic,
            Self::E2eeMlsMessage { .. } => MessageKind::E2eeMlsMessage,
            Self::UserLeftNotification { .. } => MessageKind::UserLeftNotification,
            Self::Activity(notice) => notice.kind(),
            Self::Moderation(notice) => match **notice {
                ModerationNotice::Moderated { .. } => MessageKind::Moderated,
                ModerationNotice::Removed { .. } => MessageKind::Removed,
                ModerationNotice::Ended { .. } => MessageKind::Ended,
                ModerationNotice::Muted { .. } => MessageKind::Muted,
                ModerationNotice::ChatCleared { .. } => MessageKind::ChatCleared,
                ModerationNotice::Knocks { .. } => MessageKind::Knocks,
            },
        }
    }

    /// The sentence by which the sender of a message learns that it was not carried out.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Error { error } => Some(error),
            Self::Moderation(notice) => match &**notice {
                ModerationNotice::Moderated { error, .. } => error.as_deref(),
                _ => None,
            },
            _ => None,
        }
    }

    /// Encodes the event as the JSON text of a message.
    pub fn encode(&self) -> String {
        match self {
            Self::Error { error } => {
                let code = error_code(error).map(|code| format!(r#","code":"{code}""#)).unwrap_or_default();
                format!(r#"{{"type":"error","error":{}{code}}}"#, json_text(error))
            }
            Self::DirectMessage { from, message } => {
                format!(
                    r#"{{"type":"directMessage","from":{},"message":{}}}"#,
                    json_text(from),
                    message.as_json()
                )
            }
            Self::Chat(message) => message.to_json().replacen('{', r#"{"type":"chat","#, 1),
            Self::MuteMic => r#"{"type":"muteMic"}"#.to_owned(),
            Self::E2eeMlsMessage { payload } => {
                format!(r#"{{"type":"e2eeMlsMessage","payload":{}}}"#, payload.as_json())
            }
            // An id has no character that JSON would escape.
            Self::UserLeftNotification { id } => format!(r#"{{"type":"userLeftNotification","id":"{id}"}}"#),
            Self::Activity(notice) => notice.to_json(),
            Self::Moderation(notice) => notice.to_json(),
        }
    }
}

/// The AI participant's state, as everyone sees it.
///
/// Source: protocol section 2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AiState {
    /// True if the AI is in the room.
    pub enabled: bool,
    /// Id of the user the AI listens to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub controlling_user: Option<String>,
    /// Reason of the last failure to connect the AI.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// True while the AI connects.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub connection_pending: Option<bool>,
}

impl AiState {
    /// State after the AI failed to connect, with the reference's sentence.
    pub fn failed() -> Self {
        Self {
            connection_pending: Some(false),
            error: Some("Error establishing connection with AI".to_owned()),
            ..Self::default()
        }
    }

    /// Encodes the state as JSON text.
    #[expect(clippy::expect_used, reason = "texts and booleans always serialize")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("the AI's state is plain data")
    }
}

/// Encodes a `roomState` by concatenating users that are already JSON; `rules` are JSON too, if they are not the default,
/// and so is the video of `watch`.
pub fn encode_room_state<'a>(
    meeting: Option<MeetingId>,
    users: impl Iterator<Item = &'a str> + Clone,
    ai: &AiState,
    rules: Option<&str>,
    watch: Option<&str>,
) -> String {
    let ai = ai.to_json();
    let users_bytes: usize = users.clone().map(|json| json.len() + 1).sum();
    let mut text = String::with_capacity(users_bytes + ai.len() + 128);
    text.push_str(r#"{"type":"roomState","state":{"#);
    if let Some(meeting) = meeting {
        // Formatting into a String cannot fail.
        let _ = write!(text, r#""meetingId":"{meeting}","#);
    }
    text.push_str(r#""users":["#);
    for (place, json) in users.enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(json);
    }
    text.push_str(r#"],"ai":"#);
    text.push_str(&ai);
    if let Some(rules) = rules {
        text.push_str(r#","room":"#);
        text.push_str(rules);
    }
    if let Some(watch) = watch {
        text.push_str(r#","watch":"#);
        text.push_str(watch);
    }
    text.push_str("}}");
    text
}

/// Encodes the chat's history by concatenating messages that are already JSON, oldest first.
pub fn encode_chat_history<'a>(messages: impl Iterator<Item = &'a str> + Clone) -> String {
    let bytes: usize = messages.clone().map(|json| json.len() + 1).sum();
    let mut text = String::with_capacity(bytes + 64);
    text.push_str(r#"{"type":"chatHistory","messages":["#);
    for (place, json) in messages.enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(json);
    }
    text.push_str("]}");
    text
}

/// Encodes a text as JSON.
pub fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client::{ClientMessage, MessageLimits};

    fn json_string(json: &str) -> JsonString {
        let text = format!(r#"{{"type":"e2eeMlsMessage","payload":{json}}}"#);
        let Ok(ClientMessage::E2eeMlsMessage { payload }) =
            ClientMessage::parse(&text, MessageLimits::default())
        else {
            panic!("{json}")
        };
        payload
    }

    #[test]
    fn events_are_encoded_byte_for_byte() {
        let id = UserId::parse("b-1").unwrap();
        for (event, text) in [
            (Event::Error { error: "no \"type\"".into() }, r#"{"type":"error","error":"no \"type\""}"#),
            (
                Event::DirectMessage { from: "Ada".into(), message: json_string(r#""hi \ud83c""#) },
                r#"{"type":"directMessage","from":"Ada","message":"hi \ud83c"}"#,
            ),
            (
                Event::Chat(ChatMessage {
                    id: 8,
                    from: id.clone(),
                    name: "<img>\"".into(),
                    message: json_string(r#""hi \u00e9""#),
                    at: 7,
                    file: None,
                }),
                r#"{"type":"chat","id":8,"from":"b-1","name":"<img>\"","message":"hi \u00e9","at":7}"#,
            ),
            (Event::MuteMic, r#"{"type":"muteMic"}"#),
            (
                Event::E2eeMlsMessage { payload: json_string(r#""{\"a\":1}""#) },
                r#"{"type":"e2eeMlsMessage","payload":"{\"a\":1}"}"#,
            ),
            (Event::UserLeftNotification { id }, r#"{"type":"userLeftNotification","id":"b-1"}"#),
        ] {
            assert_eq!(event.encode(), text);
            assert_eq!(MessageKind::of_message(text), Some(event.kind()));
        }
    }

    #[test]
    fn kind_of_a_message_is_its_type() {
        let snapshot = encode_room_state(None, [].into_iter(), &AiState::default(), None, None);
        assert_eq!(MessageKind::of_message(&snapshot), Some(MessageKind::RoomState));
        for text in
            ["", "{}", r#"{"type":"#, r#"{"type":"chat"#, r#"{"type":"presence_state"}"#, r#"{"joins":{}}"#]
        {
            assert_eq!(MessageKind::of_message(text), None, "{text}");
        }
    }

    #[test]
    fn history_is_encoded_byte_for_byte() {
        let text = encode_chat_history([r#"{"id":1}"#, r#"{"id":2}"#].into_iter());
        assert_eq!(text, r#"{"type":"chatHistory","messages":[{"id":1},{"id":2}]}"#);
        assert_eq!(MessageKind::of_message(&text), Some(MessageKind::ChatHistory));
    }

    #[test]
    fn snapshot_is_encoded_byte_for_byte() {
        let meeting = MeetingId::parse("6b1f4a2e-6c5c-4a0e-9d0e-3f1f6c1d2e3f").unwrap();
        assert_eq!(
            encode_room_state(Some(meeting), ["{1}", "{2}"].into_iter(), &AiState::failed(), None, None),
            r#"{"type":"roomState","state":{"meetingId":"6b1f4a2e-6c5c-4a0e-9d0e-3f1f6c1d2e3f","users":[{1},{2}],"ai":{"enabled":false,"error":"Error establishing connection with AI","connectionPending":false}}}"#
        );
        assert_eq!(
            encode_room_state(None, [].into_iter(), &AiState::default(), None, None),
            r#"{"type":"roomState","state":{"users":[],"ai":{"enabled":false}}}"#
        );
    }
}
