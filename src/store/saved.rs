//! Rooms and their changes in persistent form, as plain data.

use std::sync::Arc;

use crate::id::{IdentityId, MeetingId, RoomName, UserId};

/// A change of the persistent state.
#[derive(Clone, Debug, PartialEq)]
pub enum Persist {
    /// A meeting began.
    MeetingStarted,
    /// A meeting has more members than ever before.
    Peak {
        /// The number of members.
        members: usize,
    },
    /// A member is new, or its user object changed.
    Member(SavedMember),
    /// A member is gone.
    MemberRemoved {
        /// The member.
        user: UserId,
    },
    /// The id of a former member, reserved for its identity.
    Departed {
        /// The id.
        user: UserId,
        /// The identity that it is reserved for.
        identity: IdentityId,
    },
    /// The id is no longer reserved, because its member is back or newer ids took its place.
    DepartedForgotten {
        /// The id.
        user: UserId,
    },
    /// The AI's state changed.
    Ai {
        /// The AI as JSON, with its session.
        json: Arc<str>,
    },
    /// The rules of the meeting changed.
    Moderation {
        /// The rules as JSON.
        json: Arc<str>,
    },
    /// What is watched together changed.
    Watch {
        /// The video as JSON.
        json: Arc<str>,
    },
    /// A message of the chat is to be remembered.
    ChatMessage {
        /// Its id.
        id: u64,
        /// The message as JSON.
        json: Arc<str>,
        /// The id of the oldest message that is still remembered.
        first: u64,
    },
    /// Messages of the chat are no longer remembered.
    ChatForgotten {
        /// The id of the oldest message that still is.
        first: u64,
    },
    /// The meeting ended, and with it all memberships.
    MeetingEnded,
}

/// A member in persistent form.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedMember {
    /// The id of the user object.
    pub user: UserId,
    /// The authenticated identity.
    pub identity: IdentityId,
    /// The user object as JSON.
    pub json: Arc<str>,
    /// Its place in the order in which members came.
    pub arrival: i64,
}

/// A room in persistent form.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedRoom {
    /// The room's name.
    pub room: RoomName,
    /// The current meeting.
    pub meeting: MeetingId,
    /// The AI as JSON (written and read by the room), if it was ever enabled.
    pub ai: Option<Arc<str>>,
    /// The rules of the meeting as JSON (written and read by the room), if they were ever changed.
    pub moderation: Option<Arc<str>>,
    /// What is watched together as JSON (written and read by the room), if a video was ever shared.
    pub watch: Option<Arc<str>>,
    /// The remembered messages of the chat by their ids, oldest first.
    pub chat: Vec<(u64, Arc<str>)>,
    /// The members.
    pub members: Vec<SavedMember>,
    /// Reserved ids of former members, and their identities.
    pub departed: Vec<(UserId, IdentityId)>,
    /// Events that members had not acknowledged when the server stopped, in order.
    pub unconfirmed: Vec<(UserId, Arc<str>)>,
}
