//! Moderation: what moderators ask for, and what they and others are told.

use serde::{Deserialize, Serialize};

use crate::id::{MediaKind, UserId};

/// Maximum size in bytes of a client's message.
pub const MAX_BYTES: usize = 4096;

/// Maximum characters of a reason.
const MAX_REASON_CHARS: usize = 200;

/// Maximum bytes of a reference.
const MAX_REF_BYTES: usize = 64;

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModerationRequest {
    /// The client's own reference, which the answer repeats; without one there is no answer to success.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The action.
    #[serde(flatten)]
    pub action: ModerationAction,
}

/// An action of a moderator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "camelCase")]
pub enum ModerationAction {
    /// Stops a member's microphone, camera or screen, until it switches that on again.
    Mute {
        /// The member.
        id: UserId,
        /// The kind of media; the microphone, if there is none.
        #[serde(default)]
        kind: MediaKind,
    },
    /// Removes a member, and bans its identity until the meeting ends.
    Remove {
        /// The member.
        id: UserId,
        /// The reason that it is told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Ends the ban after so many seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<u32>,
        /// Bans its network as well.
        #[serde(default)]
        network: bool,
    },
    /// Ends the ban of a member that was removed, or of one that was not let in.
    Unban {
        /// The member's id at that time.
        id: UserId,
    },
    /// Closes the room to everyone who was not in this meeting, or opens it again.
    Lock {
        /// True to close it.
        on: bool,
    },
    /// Lets people wait until a moderator lets them in, or lets them in at once again.
    WaitingRoom {
        /// True to let them wait.
        on: bool,
    },
    /// Lets somebody in who waits.
    Admit {
        /// The id of the one who waits.
        id: UserId,
    },
    /// Sends somebody away who waits, until the meeting ends.
    Refuse {
        /// The id of the one who waits.
        id: UserId,
    },
    /// Lowers a raised hand, or all of them.
    LowerHands {
        /// The member; all, if there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<UserId>,
    },
    /// Ends the meeting for everyone.
    End,
    /// Shows a member in the foreground for everyone, or nobody.
    Spotlight {
        /// The member; nobody, if there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<UserId>,
    },
    /// Lets everyone write to the chat, or moderators alone.
    Chat {
        /// True to let everyone.
        on: bool,
    },
    /// Lets everyone share a screen, or moderators alone.
    Screens {
        /// True to let everyone.
        on: bool,
    },
    /// Lets everyone share and control videos, or moderators alone.
    Videos {
        /// True to let everyone.
        on: bool,
    },
    /// Ends the video that is watched.
    StopVideo,
    /// Lets everyone share files, or moderators alone.
    Files {
        /// True to let everyone.
        on: bool,
    },
    /// Remembers the chat for those who join later, or forgets it and remembers nothing.
    ChatHistory {
        /// True to remember it.
        on: bool,
    },
    /// Forgets the messages of the chat, also at those who see them.
    ClearChat,
    /// Gives a member another name, until the meeting ends.
    Rename {
        /// The member.
        id: UserId,
        /// The name.
        name: String,
    },
    /// Makes a member a moderator until the meeting ends.
    GrantModeration {
        /// The member.
        id: UserId,
    },
    /// Takes moderation from a member until the meeting ends.
    RevokeModeration {
        /// The member.
        id: UserId,
    },
}

impl ModerationRequest {
    /// Parses a message's text; `None` if a field is missing, too long or of a wrong type.
    pub fn parse(json: &str) -> Option<Self> {
        let request: Self = serde_json::from_str(json).ok()?;
        let is_ref = request.reference.as_ref().is_none_or(|reference| reference.len() <= MAX_REF_BYTES);
        (is_ref && request.action.is_valid()).then_some(request)
    }
}

impl ModerationAction {
    /// True if its texts have no more than their maximum length.
    pub fn is_valid(&self) -> bool {
        match self {
            Self::Remove { reason: Some(reason), .. } => reason.chars().count() <= MAX_REASON_CHARS,
            _ => true,
        }
    }

    /// The action's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Mute { .. } => "mute",
            Self::Remove { .. } => "remove",
            Self::Unban { .. } => "unban",
            Self::Lock { .. } => "lock",
            Self::WaitingRoom { .. } => "waitingRoom",
            Self::Admit { .. } => "admit",
            Self::Refuse { .. } => "refuse",
            Self::LowerHands { .. } => "lowerHands",
            Self::End => "end",
            Self::Spotlight { .. } => "spotlight",
            Self::Chat { .. } => "chat",
            Self::Screens { .. } => "screens",
            Self::Videos { .. } => "videos",
            Self::StopVideo => "stopVideo",
            Self::Files { .. } => "files",
            Self::ChatHistory { .. } => "chatHistory",
            Self::ClearChat => "clearChat",
            Self::Rename { .. } => "rename",
            Self::GrantModeration { .. } => "grantModeration",
            Self::RevokeModeration { .. } => "revokeModeration",
        }
    }

    /// The member that it is about, if it is about one.
    pub const fn target(&self) -> Option<&UserId> {
        match self {
            Self::Mute { id, .. }
            | Self::Remove { id, .. }
            | Self::Unban { id }
            | Self::Admit { id }
            | Self::Refuse { id }
            | Self::Rename { id, .. }
            | Self::GrantModeration { id }
            | Self::RevokeModeration { id } => Some(id),
            Self::LowerHands { id } | Self::Spotlight { id } => id.as_ref(),
            Self::Lock { .. }
            | Self::WaitingRoom { .. }
            | Self::Chat { .. }
            | Self::Screens { .. }
            | Self::Videos { .. }
            | Self::StopVideo
            | Self::Files { .. }
            | Self::ChatHistory { .. }
            | Self::ClearChat
            | Self::End => None,
        }
    }

    /// The state that it switches something to, if it is a switch.
    pub const fn on(&self) -> Option<bool> {
        match self {
            Self::Lock { on }
            | Self::WaitingRoom { on }
            | Self::Chat { on }
            | Self::Screens { on }
            | Self::Videos { on }
            | Self::Files { on }
            | Self::ChatHistory { on } => Some(*on),
            _ => None,
        }
    }
}

/// A message about moderation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ModerationNotice {
    /// The answer to a request.
    Moderated {
        /// The reference of the request.
        #[serde(rename = "ref")]
        reference: String,
        /// True if it was carried out.
        ok: bool,
        /// The reason for which it was not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// The member is removed; its socket closes next.
    Removed {
        /// The name of the moderator; none for an operator.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        /// The reason.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The meeting was ended for everyone; the sockets close next.
    Ended {
        /// The name of the moderator; none for an operator.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// The member's microphone, camera or screen is stopped, until it switches that on again.
    Muted {
        /// The kind of media.
        kind: MediaKind,
        /// The name of the moderator; none for an operator.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// The chat's messages were forgotten.
    ChatCleared {
        /// Messages with a lower id are to be shown no longer.
        before: u64,
        /// The name of the moderator; none for an operator.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// Those who wait to be let in, for moderators.
    Knocks {
        /// They, in the order in which they came.
        knocks: Vec<KnockView>,
    },
}

/// Somebody who waits to be let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnockView {
    /// The id under which it wants to join.
    pub id: UserId,
    /// Its name.
    pub name: String,
}

impl ModerationNotice {
    /// Encodes the message.
    #[expect(clippy::expect_used, reason = "texts and booleans always serialize")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a notice is plain data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read() {
        let id = || UserId::parse("b").unwrap();
        let read = |json: &str| ModerationRequest::parse(json);
        for (json, action) in [
            (
                r#"{"type":"moderate","action":"mute","id":"b"}"#,
                ModerationAction::Mute { id: id(), kind: MediaKind::Audio },
            ),
            (
                r#"{"action":"mute","id":"b","kind":"screen"}"#,
                ModerationAction::Mute { id: id(), kind: MediaKind::Screen },
            ),
            (
                r#"{"action":"remove","id":"b","reason":"x","network":true}"#,
                ModerationAction::Remove { id: id(), reason: Some("x".into()), seconds: None, network: true },
            ),
            (r#"{"action":"lock","on":true}"#, ModerationAction::Lock { on: true }),
            (r#"{"action":"lowerHands"}"#, ModerationAction::LowerHands { id: None }),
            (r#"{"action":"end"}"#, ModerationAction::End),
            (r#"{"action":"spotlight"}"#, ModerationAction::Spotlight { id: None }),
            (
                r#"{"action":"rename","id":"b","name":"Bee"}"#,
                ModerationAction::Rename { id: id(), name: "Bee".into() },
            ),
        ] {
            assert_eq!(read(json), Some(ModerationRequest { reference: None, action }), "{json}");
        }
        assert_eq!(
            read(r#"{"ref":"1","action":"lock","on":false}"#).unwrap().reference.as_deref(),
            Some("1")
        );
        let long = format!(r#"{{"action":"remove","id":"b","reason":"{}"}}"#, "x".repeat(201));
        for json in [
            "{}",
            r#"{"action":"fly"}"#,
            r#"{"action":"mute"}"#,
            r#"{"action":"mute","id":"ai"}"#,
            r#"{"action":"mute","id":"b","kind":"smell"}"#,
            r#"{"action":"lock","on":"yes"}"#,
            r#"{"action":"remove","id":"b","seconds":-1}"#,
            &format!(r#"{{"ref":"{}","action":"lock","on":true}}"#, "x".repeat(65)),
            &long,
        ] {
            assert_eq!(read(json), None, "{json}");
        }
    }

    #[test]
    fn notices_are_encoded_byte_for_byte() {
        let failed =
            ModerationNotice::Moderated { reference: "1".into(), ok: false, error: Some("no".into()) };
        assert_eq!(failed.to_json(), r#"{"type":"moderated","ref":"1","ok":false,"error":"no"}"#);
        let removed = ModerationNotice::Removed { by: Some("Ada".into()), reason: None };
        assert_eq!(removed.to_json(), r#"{"type":"removed","by":"Ada"}"#);
        let cleared = ModerationNotice::ChatCleared { before: 7, by: None };
        assert_eq!(cleared.to_json(), r#"{"type":"chatCleared","before":7}"#);
        let knock = KnockView { id: UserId::parse("b").unwrap(), name: "Bob".into() };
        let knocks = ModerationNotice::Knocks { knocks: vec![knock] };
        assert_eq!(knocks.to_json(), r#"{"type":"knocks","knocks":[{"id":"b","name":"Bob"}]}"#);
    }
}
