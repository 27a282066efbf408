//! Requests about a room by whoever is no member of it, and their answers: for the room here, or for the node that owns it.
//!
//! Between nodes they are JSON: they are rare, and releases may add fields.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::io::{CannotPost, Post, ShareFile};
use super::mailbox::RoomView;
use super::rules::RulesChange;
use super::state::{CannotShareFile, Denied, Moderator};
use crate::id::{IdentityId, MeetingId, NodeId, RoomName, UserId};
use crate::protocol::client::JsonString;
use crate::protocol::moderation::ModerationAction;

/// A request about a room.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RoomRequest {
    /// To describe it.
    Describe,
    /// To carry out an action of a moderator.
    Moderate {
        /// Whoever asks.
        by: Moderator,
        /// The action.
        action: ModerationAction,
    },
    /// To say if somebody may change its settings.
    MayChange {
        /// Whoever asks.
        by: Moderator,
    },
    /// To change the settings of its meeting.
    SetRules {
        /// Whoever asks.
        by: Moderator,
        /// The change.
        change: RulesChange,
    },
    /// To change the settings with which its meetings begin.
    LastingRules {
        /// The change.
        change: RulesChange,
    },
    /// To write a message.
    Post {
        /// The message.
        post: WirePost,
        /// The key by which a repeated request is known.
        once: Option<Once>,
    },
    /// For its meeting, by whoever gets a file.
    MeetingOf {
        /// The identity.
        identity: IdentityId,
    },
    /// To say if somebody may share a file.
    AdmitsFiles {
        /// The identity.
        identity: IdentityId,
    },
    /// To tell everyone of a file.
    ShareFile {
        /// The file.
        file: ShareFile,
    },
}

/// The answer to a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RoomAnswer {
    /// The room does not run here, or another node owns it: nothing was done.
    NotHere,
    /// There was no answer in time; whether something was done is not known.
    Silent,
    /// The room.
    View(Box<RoomView>),
    /// The request was carried out, or denied.
    Decided(Result<(), Denied>),
    /// The message was written, or refused.
    Posted(Result<(), CannotPost>),
    /// The key was used with another message.
    OtherRequest,
    /// The meeting, if the identity is a member of it.
    Meeting(Option<MeetingId>),
    /// The meeting, if the identity may share files in it.
    AdmitsFiles(Result<MeetingId, CannotShareFile>),
    /// The file was told of, or refused.
    FileShared(Result<(), CannotShareFile>),
}

/// A message of a program, as it passes between nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WirePost {
    at: u64,
    name: Arc<str>,
    to: Option<UserId>,
    /// JSON text.
    message: String,
}

/// The key of a request that is carried out once, however often it comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    /// Whoever asks.
    pub identity: IdentityId,
    /// Its key.
    pub key: String,
    /// The digest of the request.
    pub digest: [u8; 32],
}

/// News of a node for the others, so that it holds at all of them. It may be lost.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Notice {
    /// A request with a key was carried out.
    Done(Once),
    /// An identity knew the password of a room.
    Proved {
        /// The room.
        room: RoomName,
        /// The identity.
        identity: IdentityId,
        /// The hash of the password.
        hash: Arc<str>,
    },
    /// A meeting has ended, and with it its files.
    Ended(MeetingId),
    /// Programs are shown as observers of a room at a node, in place of those before.
    Observed {
        /// The room.
        room: RoomName,
        /// The node.
        node: NodeId,
        /// Their names.
        names: Vec<Arc<str>>,
    },
}

/// A room in the list of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoomSummary {
    /// Its meeting, if one runs.
    pub meeting: Option<MeetingId>,
    /// Number of members, including disconnected ones.
    pub members: usize,
    /// Number of connected members.
    pub connections: usize,
    /// Bytes of queued and unconfirmed events of the members at its node.
    pub queued_bytes: usize,
}

/// The rooms of all nodes.
#[derive(Clone, Debug, Default)]
pub struct RoomListing {
    /// The rooms, sorted by name; without a summary where a room did not answer.
    pub rooms: Vec<(RoomName, Option<RoomSummary>)>,
    /// The nodes that did not answer.
    pub silent: Vec<String>,
}

/// The rooms of this node, for requests of others.
pub trait OwnRooms: Send + Sync {
    /// Answers a request about a room of this node.
    fn answer(&self, room: RoomName, request: RoomRequest) -> BoxFuture<'static, RoomAnswer>;

    /// Lists rooms of this node.
    fn list(&self, rooms: Vec<RoomName>) -> BoxFuture<'static, Vec<(RoomName, Option<RoomSummary>)>>;

    /// Takes news of another node.
    fn hear(&self, notice: Notice) -> BoxFuture<'static, ()>;

    /// Forgets what a node told that is gone.
    fn node_gone(&self, node: NodeId);
}

impl RoomRequest {
    /// True for one that changes nothing, so that it may be made again.
    pub fn is_query(&self) -> bool {
        matches!(
            self,
            Self::Describe | Self::MayChange { .. } | Self::MeetingOf { .. } | Self::AdmitsFiles { .. }
        )
    }
}

impl From<Post> for WirePost {
    fn from(Post { at, name, to, message }: Post) -> Self {
        Self { at, name, to, message: message.as_json().to_owned() }
    }
}

impl WirePost {
    /// The message; none if the text is none.
    pub fn read(self) -> Option<Post> {
        let Self { at, name, to, message } = self;
        Some(Post { at, name, to, message: JsonString::parse(&message)? })
    }
}

impl From<&RoomView> for RoomSummary {
    fn from(view: &RoomView) -> Self {
        let members = &view.members;
        Self {
            meeting: view.meeting,
            members: members.len(),
            connections: members.iter().filter(|member| member.connection.is_some()).count(),
            queued_bytes: members.iter().map(|member| member.queued_bytes).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Nodes of the next release have to read it.
    #[test]
    fn recorded_requests_are_read_and_written() {
        for recorded in [
            json!("describe"),
            json!({"moderate": {"by": "operator", "action": {"action": "lock", "on": true}}}),
            json!({"setRules": {"by": "operator", "change": {"chatHistory": null, "locked": true}}}),
            json!({"post": {"post": {"at": 7, "name": "a", "to": null, "message": "\"hi\""}, "once": null}}),
        ] {
            let request: RoomRequest = serde_json::from_value(recorded.clone()).unwrap();
            assert_eq!(serde_json::to_value(&request).unwrap(), recorded);
        }
        for recorded in [
            json!("notHere"),
            json!({"decided": {"Err": "NoModerator"}}),
            json!({"decided": {"Ok": null}}),
            json!({"posted": {"Err": "UnknownMember"}}),
        ] {
            let answer: RoomAnswer = serde_json::from_value(recorded.clone()).unwrap();
            assert_eq!(serde_json::to_value(&answer).unwrap(), recorded);
        }
        let forged = WirePost { at: 0, name: "a".into(), to: None, message: "1".to_owned() };
        assert!(forged.read().is_none());
    }

    #[test]
    fn change_that_removes_is_not_one_that_leaves() {
        let removed = RulesChange { password: Some(None), ..RulesChange::default() };
        for change in [removed, RulesChange::default()] {
            let json = serde_json::to_string(&change).unwrap();
            assert_eq!(serde_json::from_str::<RulesChange>(&json).unwrap(), change, "{json}");
        }
    }
}
