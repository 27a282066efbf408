//! Close codes of this server, and the expected reaction of the client to each.
//!
//! The stock client (`partysocket`) opens a new socket after *every* close, whatever the code; a
//! code therefore informs people and logs, and tells other clients how to react.

use serde::{Deserialize, Serialize};

/// Reason for which this server closes a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Close {
    /// The member sent `userLeft`. The client is done.
    UserLeft,
    /// The member's heartbeats timed out. The client may join again, as a fresh user.
    TimedOut,
    /// A moderator removed the member. The client should not reconnect.
    Removed,
    /// The client's access token has expired. With a new one it may reconnect and resume its memberships.
    TokenExpired,
    /// The client's access token was revoked. It should not reconnect.
    TokenRevoked,
    /// A moderator ended the meeting for everyone. The client should not reconnect.
    Ended,
    /// The same member opened a newer socket. The client should not reconnect with this `_pk`.
    Superseded,
    /// The server restarts. The client may reconnect and resume its membership.
    ServiceRestart,
    /// The room failed because of a server fault. The client may reconnect, to a new meeting.
    RoomFailed,
    /// The durable object failed because of a server fault. The client may reconnect, and gets its state.
    ObjectFailed,
    /// A message exceeds the size limit. The client should not send it again.
    MessageTooBig,
    /// The bytes violate the WebSocket protocol. The client is broken.
    ProtocolError,
    /// A text frame is not UTF-8 (RFC 6455 section 8.1). The client is broken.
    InvalidText,
    /// A compressed message that cannot be inflated. The client is broken.
    InvalidDeflate,
    /// The client was throttled for too long. It may reconnect and send more slowly.
    TooFast,
    /// The memory for incomplete messages was full, and the client's message, which was allowed to
    /// exceed it, did not complete in time. The client may reconnect.
    TooMuchArrives,
    /// The client reads too slowly: its queued and unconfirmed messages are over the budget. It
    /// loses its membership and may join again, as a fresh user.
    TooSlow,
    /// Nothing was heard of the client, not even a pong. It may reconnect and resume its memberships.
    Idle,
    /// A frame is not a message of the socket's protocol. The client is broken.
    Unreadable,
    /// The client took no byte for the configured time. Its membership stays until its heartbeats time out.
    Stalled,
}

impl Close {
    /// Status code of the close frame (RFC 6455 section 7.4; 4000 and up are ours).
    pub const fn code(self) -> u16 {
        match self {
            Self::UserLeft => 1000,
            Self::ProtocolError | Self::Idle => 1002,
            Self::InvalidText | Self::InvalidDeflate => 1007,
            Self::TooFast => 1008,
            Self::MessageTooBig => 1009,
            Self::TimedOut | Self::RoomFailed | Self::ObjectFailed | Self::Unreadable => 1011,
            Self::ServiceRestart => 1012,
            Self::TooMuchArrives | Self::TooSlow | Self::Stalled => 1013,
            Self::Superseded => 4001,
            Self::TokenExpired | Self::TokenRevoked => 4401,
            Self::Removed => 4403,
            Self::Ended => 4410,
        }
    }

    /// Reason text of the close frame; the first two are the reference's.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::UserLeft => "User left",
            Self::TimedOut => "",
            Self::Superseded => "A newer connection took this seat",
            Self::Removed => "Removed by a moderator",
            Self::TokenExpired => "The access token has expired",
            Self::TokenRevoked => "The access token was revoked",
            Self::Ended => "The meeting was ended",
            Self::ServiceRestart => "The server restarts",
            Self::RoomFailed => "The room failed",
            Self::ObjectFailed => "The object failed",
            Self::MessageTooBig => "Message too big",
            Self::ProtocolError => "Protocol error",
            Self::InvalidText => "Text is not UTF-8",
            Self::InvalidDeflate => "Compressed data is broken",
            Self::TooFast => "Too many messages for too long",
            Self::TooMuchArrives => "Too many long messages at once",
            Self::TooSlow => "Too much waits to be read",
            Self::Stalled => "Nothing was read for too long",
            Self::Idle => "Nothing was heard for too long",
            Self::Unreadable => "A message cannot be read",
        }
    }

    /// Label for metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::UserLeft => "user_left",
            Self::TimedOut => "timed_out",
            Self::Superseded => "superseded",
            Self::Removed => "removed",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::Ended => "ended",
            Self::ServiceRestart => "service_restart",
            Self::RoomFailed => "room_failed",
            Self::ObjectFailed => "object_failed",
            Self::MessageTooBig => "message_too_big",
            Self::ProtocolError => "protocol_error",
            Self::InvalidText => "invalid_text",
            Self::InvalidDeflate => "invalid_deflate",
            Self::TooFast => "too_fast",
            Self::TooMuchArrives => "too_much_arrives",
            Self::TooSlow => "too_slow",
            Self::Stalled => "stalled",
            Self::Idle => "idle",
            Self::Unreadable => "unreadable_message",
        }
    }
}
