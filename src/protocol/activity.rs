//! Activities of members beside talking: messages that the reference does not have.

use serde::{Deserialize, Serialize};

use super::emoji::Emoji;
use super::server::MessageKind;
use super::watch::WatchRequest;
use crate::id::UserId;

/// A client's message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Activity {
    /// Shows everyone an emoji for a moment.
    React {
        /// The emoji.
        emoji: Emoji,
    },
    /// Stops the assistant's answer.
    StopAnswer,
    /// Asks for the server's time.
    Clock {
        /// The client's own number, which the answer repeats.
        #[serde(rename = "ref")]
        reference: u64,
    },
    /// Shares or controls a video.
    Watch(WatchRequest),
}

impl Activity {
    /// The message's `type`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::React { .. } => "react",
            Self::StopAnswer => "stopAnswer",
            Self::Clock { .. } => "clock",
            Self::Watch(_) => "watch",
        }
    }

    /// Encodes the message.
    #[expect(clippy::expect_used, reason = "texts and numbers always serialize")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an activity is plain data")
    }
}

/// A message to members. It is lost to those who are away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ActivityNotice {
    /// Emoji that members showed since the last of these messages.
    Reactions {
        /// The newest of each member.
        reactions: Vec<Reaction>,
    },
    /// A message of the chat that is being written; it ends by a `chat` with the same id.
    ChatUpdate {
        /// Number of the message.
        id: u64,
        /// The author, which is no member.
        from: String,
        /// The author's name.
        name: String,
        /// The text so far.
        message: String,
        /// Time of the beginning in milliseconds since 1970.
        at: u64,
        /// The member for whom it is written.
        asker: UserId,
    },
    /// The server's time.
    Clock {
        /// The number of the question.
        #[serde(rename = "ref")]
        reference: u64,
        /// The time in milliseconds since 1970.
        at: u64,
    },
}

/// A member's emoji.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaction {
    /// The member.
    pub id: UserId,
    /// The emoji.
    pub emoji: Emoji,
}

impl ActivityNotice {
    /// The kind of the message.
    pub const fn kind(&self) -> MessageKind {
        match self {
            Self::Reactions { .. } => MessageKind::Reactions,
            Self::ChatUpdate { .. } => MessageKind::ChatUpdate,
            Self::Clock { .. } => MessageKind::Clock,
        }
    }

    /// Encodes the message.
    #[expect(clippy::expect_used, reason = "texts and numbers always serialize")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a notice is plain data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_encoded_byte_for_byte() {
        let reaction = Reaction { id: UserId::parse("b").unwrap(), emoji: Emoji::parse("👍").unwrap() };
        let notice = ActivityNotice::Reactions { reactions: vec![reaction] };
        assert_eq!(notice.to_json(), r#"{"type":"reactions","reactions":[{"id":"b","emoji":"👍"}]}"#);
        assert_eq!(MessageKind::of_message(&notice.to_json()), Some(notice.kind()));
    }
}
