//! Events for programs outside on their way through the journal.
//!
//! The owner of a room writes them down with the lines that they tell of, and publishes them when these are stored. They
//! stay in the state that the journal leads to until its node has recorded them, in its log and for its webhooks. So
//! the next owner knows which ones may have been told by nobody, and tells them under the same ids.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::id::{IdentityId, UserId};
use crate::protocol::close::Close;
use crate::room::io::RoomEvent;

/// The events that a node records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// True if it records events.
    pub events: bool,
    /// True if chat messages are among them.
    pub chat: bool,
}

/// An event of a room, as its journal holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JournaledEvent {
    /// Its number: one more than that of the one before, as long as the meeting runs.
    pub number: u64,
    /// The epoch of the owner that wrote it: one that was not stored has the number of another.
    pub epoch: u64,
    /// Its time in milliseconds since 1970.
    pub at: u64,
    /// Its contents.
    pub event: OutsideEvent,
}

/// The contents of such an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OutsideEvent {
    /// The first member of an empty room joined.
    MeetingStarted,
    /// Nobody is left.
    MeetingEnded,
    /// Somebody became a member.
    Joined {
        /// The member.
        user: UserId,
        /// Its identity.
        identity: IdentityId,
        /// Its user object as JSON.
        json: Arc<str>,
    },
    /// A member was removed.
    Left {
        /// The member.
        user: UserId,
        /// Its last user object as JSON.
        json: Arc<str>,
        /// The reason.
        reason: Close,
    },
    /// A member's user object was replaced.
    Updated {
        /// The member.
        user: UserId,
        /// The user object before, as JSON.
        before: Arc<str>,
        /// The user object now, as JSON.
        after: Arc<str>,
    },
    /// A chat message.
    Chat {
        /// The message's number.
        id: u64,
        /// The author.
        from: UserId,
        /// The author's name.
        name: Arc<str>,
        /// The text as JSON.
        message: Arc<str>,
    },
    /// A moderator acted.
    Moderated {
        /// The moderator; none for an operator.
        by: Option<UserId>,
        /// The action's name.
        action: Cow<'static, str>,
        /// The state that it switched something to.
        on: Option<bool>,
        /// The member that it was about.
        target: Option<UserId>,
    },
}

impl Recording {
    /// The contents that an event has in the journal; none if it does not get there.
    pub fn journaled(self, event: &RoomEvent) -> Option<OutsideEvent> {
        if !self.events {
            return None;
        }
        Some(match event.clone() {
            RoomEvent::StartingMeeting => OutsideEvent::MeetingStarted,
            RoomEvent::EndingMeeting => OutsideEvent::MeetingEnded,
            RoomEvent::MemberJoined { user, identity, json } => OutsideEvent::Joined { user, identity, json },
            RoomEvent::MemberLeft { user, json, reason } => OutsideEvent::Left { user, json, reason },
            RoomEvent::MemberUpdated { user, before, after } => OutsideEvent::Updated { user, before, after },
            RoomEvent::ChatMessage { id, from, name, message } if self.chat => {
                OutsideEvent::Chat { id, from, name, message }
            }
            RoomEvent::Moderated { by, action: (action, on), target } => {
                OutsideEvent::Moderated { by, action, on, target }
            }
            _ => return None,
        })
    }
}

impl JournaledEvent {
    /// The time of the event.
    pub fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.at)
    }

    /// The member whose user object it replaced, if it is about that.
    pub fn updated(&self) -> Option<&UserId> {
        if let OutsideEvent::Updated { user, .. } = &self.event { Some(user) } else { None }
    }

    /// Size in bytes of its texts.
    pub fn text_bytes(&self) -> usize {
        match &self.event {
            OutsideEvent::Joined { json, .. } | OutsideEvent::Left { json, .. } => json.len(),
            OutsideEvent::Updated { before, after, .. } => before.len() + after.len(),
            OutsideEvent::Chat { message, .. } => message.len(),
            OutsideEvent::MeetingStarted | OutsideEvent::MeetingEnded | OutsideEvent::Moderated { .. } => 0,
        }
    }
}

impl From<OutsideEvent> for RoomEvent {
    fn from(event: OutsideEvent) -> Self {
        match event {
            OutsideEvent::MeetingStarted => Self::StartingMeeting,
            OutsideEvent::MeetingEnded => Self::EndingMeeting,
            OutsideEvent::Joined { user, identity, json } => Self::MemberJoined { user, identity, json },
            OutsideEvent::Left { user, json, reason } => Self::MemberLeft { user, json, reason },
            OutsideEvent::Updated { user, before, after } => Self::MemberUpdated { user, before, after },
            OutsideEvent::Chat { id, from, name, message } => Self::ChatMessage { id, from, name, message },
            OutsideEvent::Moderated { by, action, on, target } => {
                Self::Moderated { by, action: (action, on), target }
            }
        }
    }
}
