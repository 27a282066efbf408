//! Reasons for denying an action of a moderator.

use serde::{Deserialize, Serialize};

/// Reason for not carrying out an action. The sentence goes to whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Denied {
    /// The member is no moderator.
    #[error("you may not moderate this room")]
    NoModerator,
    /// The member is no moderator, and asked to mute somebody.
    #[error("you may not mute others")]
    NoMute,
    /// The id is not that of a member.
    #[error("\"id\" is not a member of this room")]
    UnknownMember,
    /// The id is not that of somebody who waits.
    #[error("nobody with this \"id\" waits to be let in")]
    NobodyWaits,
    /// The id is not that of somebody who was removed.
    #[error("nobody with this \"id\" was removed")]
    NobodyBanned,
    /// A member asks to remove itself.
    #[error("leave the room instead of removing yourself")]
    Oneself,
    /// The room is at another node of the cluster.
    #[error("another node of the cluster owns this room, and has to be asked")]
    OtherNode,
    /// There is no meeting.
    #[error("no meeting is running in this room")]
    NoMeeting,
    /// A text is too long.
    #[error("\"reason\" has up to 200 characters")]
    TooLong,
    /// A name is none.
    #[error("\"name\" has 1 to 64 characters, and no control or invisible characters")]
    InvalidName,
}
