//! What this server says (protocol section 4), encoded.

use std::fmt::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::client::JsonString;
use crate::id::{MeetingId, UserId};

/// A message that is said once, and that a client must not miss: everything but the snapshot.
#[derive(Clone, Debug)]
pub enum Event {
    /// The member's last message could not be carried out.
    Error {
        /// What was wrong with it, as a sentence.
        error: String,
    },
    /// A line of another member.
    DirectMessage {
        /// The other member's name.
        from: Arc<str>,
        /// The line.
        message: JsonString,
    },
    /// A line of the room's chat, for its sender too.
    Chat {
        /// Its number; each is greater than the one before.
        id: u64,
        /// Who wrote it.
        from: UserId,
        /// The sender's name when it was written.
        name: Arc<str>,
        /// The line.
        message: JsonString,
        /// When it came, in milliseconds since 1970.
        at: u64,
    },
    /// Switch the microphone off.
    MuteMic,
    /// An opaque message of the end-to-end encryption's group.
    E2eeMlsMessage {
        /// What the sender sent, character for character.
        payload: JsonString,
    },
    /// A member is gone.
    UserLeftNotification {
        /// The member.
        id: UserId,
    },
}

impl Event {
    /// The event as the JSON text of a message.
    pub fn encode(&self) -> String {
        match self {
            Self::Error { error } => format!(r#"{{"type":"error","error":{}}}"#, json_text(error)),
            Self::DirectMessage { from, message } => {
                format!(
                    r#"{{"type":"directMessage","from":{},"message":{}}}"#,
                    json_text(from),
                    message.as_json()
                )
            }
            Self::Chat { id, from, name, message, at } => {
                format!(
                    r#"{{"type":"chat","id":{id},"from":"{from}","name":{},"message":{},"at":{at}}}"#,
                    json_text(name),
                    message.as_json()
                )
            }
            Self::MuteMic => r#"{"type":"muteMic"}"#.to_owned(),
            Self::E2eeMlsMessage { payload } => {
                format!(r#"{{"type":"e2eeMlsMessage","payload":{}}}"#, payload.as_json())
            }
            // An id has no character that JSON would escape.
            Self::UserLeftNotification { id } => format!(r#"{{"type":"userLeftNotification","id":"{id}"}}"#),
        }
    }
}

/// The AI participant's state, as everyone sees it.
///
/// Source: protocol section 2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AiState {
    /// Whether the AI is in the room.
    pub enabled: bool,
    /// Whom it hears.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub controlling_user: Option<String>,
    /// Why it is not here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// Whether it is on its way.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub connection_pending: Option<bool>,
}

impl AiState {
    /// The state after an AI that could not come, with the reference's sentence.
    pub fn failed() -> Self {
        Self {
            connection_pending: Some(false),
            error: Some("Error establishing connection with AI".to_owned()),
            ..Self::default()
        }
    }

    /// The state as JSON text.
    #[expect(clippy::expect_used, reason = "texts and booleans always serialize")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("the AI's state is plain data")
    }
}

/// Encodes a `roomState`: a concatenation of users that are JSON already.
pub fn encode_room_state<'a>(
    meeting: Option<MeetingId>,
    users: impl Iterator<Item = &'a str> + Clone,
    ai: &AiState,
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
    text.push_str("}}");
    text
}

fn json_text(text: &str) -> String {
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
                Event::Chat {
                    id: 8,
                    from: id.clone(),
                    name: "<img>\"".into(),
                    message: json_string(r#""hi \u00e9""#),
                    at: 7,
                },
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
        }
    }

    #[test]
    fn a_snapshot_is_encoded_byte_for_byte() {
        let meeting = MeetingId::parse("6b1f4a2e-6c5c-4a0e-9d0e-3f1f6c1d2e3f").unwrap();
        assert_eq!(
            encode_room_state(Some(meeting), ["{1}", "{2}"].into_iter(), &AiState::failed()),
            r#"{"type":"roomState","state":{"meetingId":"6b1f4a2e-6c5c-4a0e-9d0e-3f1f6c1d2e3f","users":[{1},{2}],"ai":{"enabled":false,"error":"Error establishing connection with AI","connectionPending":false}}}"#
        );
        assert_eq!(
            encode_room_state(None, [].into_iter(), &AiState::default()),
            r#"{"type":"roomState","state":{"users":[],"ai":{"enabled":false}}}"#
        );
    }
}
