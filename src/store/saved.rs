//! Rooms and their changes in persistent form, as plain data.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::id::{IdentityId, MeetingId, NodeId, RoomName, UserId};

/// A meeting for the list of all, whose room is in a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeetingRecord {
    /// The time of this.
    pub at: SystemTime,
    /// The room.
    pub room: RoomName,
    /// The meeting.
    pub meeting: MeetingId,
    /// The number of its members; none once it has ended.
    pub members: Option<usize>,
}

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
    /// The video that is watched together changed.
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
    /// The meeting goes on elsewhere: nothing is stored here that would bring the room back.
    MovedAway,
    /// The room is stored as its journal had it at this place.
    Journal(JournalPlace),
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
    /// The video that is watched together, as JSON (written and read by the room), if a video was ever shared.
    pub watch: Option<Arc<str>>,
    /// The remembered messages of the chat by their ids, oldest first.
    pub chat: Vec<(u64, Arc<str>)>,
    /// The members.
    pub members: Vec<SavedMember>,
    /// Reserved ids of former members, and their identities.
    pub departed: Vec<(UserId, IdentityId)>,
    /// Events that members had not acknowledged when the server stopped, in order.
    pub unconfirmed: Vec<(UserId, Arc<str>)>,
    /// The place in the room's journal from which this was taken, or to which it is being carried over, if the room was
    /// one that several nodes share.
    pub journal: Option<JournalPlace>,
}

/// The place of an entry in a room's journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalPlace {
    /// The epoch of the room's owner.
    pub epoch: u64,
    /// The owner.
    pub by: NodeId,
    /// The number of the entry among those of this owner and epoch.
    pub number: u64,
}

impl JournalPlace {
    /// Parses the [`fmt::Display`] form.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let mut part = || parts.next();
        let (epoch, by, number) = (part()?, part()?, part()?);
        let by = NodeId::new(u32::from_str_radix(by, 16).ok()?);
        let place = Self { epoch: epoch.parse().ok()?, by, number: number.parse().ok()? };
        part().is_none().then_some(place)
    }
}

/// For example `3:00a1b2c3:41`.
impl fmt::Display for JournalPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.epoch, self.by, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_is_read_as_it_is_written() {
        let place = JournalPlace { epoch: 3, by: NodeId::new(0xa1_b2c3), number: 41 };
        assert_eq!(place.to_string(), "3:00a1b2c3:41");
        assert_eq!(JournalPlace::parse("3:00a1b2c3:41"), Some(place));
        for bad in ["", "3", "3:x:1", "3:1", "3:1:2:", "-1:1:1"] {
            assert_eq!(JournalPlace::parse(bad), None, "{bad}");
        }
    }
}
