//! Close codes: every code with which this server closes a socket, and what the client does next.
//!
//! The stock client (`partysocket`) opens a new socket after *every* close, whatever the code; a
//! code therefore tells people and logs what happened, and other clients what to do.

/// Why this server closes a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Close {
    /// The member said `userLeft`. The client is done.
    UserLeft,
    /// The member's heartbeats stopped. The client may join again, as a fresh user.
    TimedOut,
    /// The same member opened a newer socket. The client should not come back with this `_pk`.
    Superseded,
    /// The server restarts. The client comes back and finds its seat.
    ServiceRestart,
    /// The room ended by a fault of ours. The client comes back to a new meeting.
    RoomFailed,
    /// A message is longer than the limit. The client should not send it again.
    MessageTooBig,
    /// The bytes are no WebSocket protocol. The client is broken.
    ProtocolError,
    /// A text frame that is no UTF-8 (RFC 6455 section 8.1). The client is broken.
    InvalidText,
    /// A compressed message that cannot be inflated. The client is broken.
    InvalidDeflate,
    /// The client sent too fast for too long. It may come back and be slower.
    TooFast,
    /// So much of unfinished messages is in memory that others waited for the client's, which did not become whole. It may
    /// come back.
    TooMuchArrives,
    /// The client reads too slowly: what waits for it is over the budget. Its seat is given up; it
    /// may join again, as a fresh user.
    TooSlow,
    /// The client took no byte for the configured time. Its seat stays until its heartbeats are old.
    Stalled,
}

impl Close {
    /// The status code of the close frame (RFC 6455 section 7.4; 4000 and up are ours).
    pub const fn code(self) -> u16 {
        match self {
            Self::UserLeft => 1000,
            Self::ProtocolError => 1002,
            Self::InvalidText | Self::InvalidDeflate => 1007,
            Self::TooFast => 1008,
            Self::MessageTooBig => 1009,
            Self::TimedOut | Self::RoomFailed => 1011,
            Self::ServiceRestart => 1012,
            Self::TooMuchArrives | Self::TooSlow | Self::Stalled => 1013,
            Self::Superseded => 4001,
        }
    }

    /// The reason of the close frame; the first two are the reference's.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::UserLeft => "User left",
            Self::TimedOut => "",
            Self::Superseded => "A newer connection took this seat",
            Self::ServiceRestart => "The server restarts",
            Self::RoomFailed => "The room failed",
            Self::MessageTooBig => "Message too big",
            Self::ProtocolError => "Protocol error",
            Self::InvalidText => "Text is not UTF-8",
            Self::InvalidDeflate => "Compressed data is broken",
            Self::TooFast => "Too many messages for too long",
            Self::TooMuchArrives => "Too many long messages at once",
            Self::TooSlow => "Too much waits to be read",
            Self::Stalled => "Nothing was read for too long",
        }
    }

    /// The word by which metrics and logs count it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::UserLeft => "user_left",
            Self::TimedOut => "timed_out",
            Self::Superseded => "superseded",
            Self::ServiceRestart => "service_restart",
            Self::RoomFailed => "room_failed",
            Self::MessageTooBig => "message_too_big",
            Self::ProtocolError => "protocol_error",
            Self::InvalidText => "invalid_text",
            Self::InvalidDeflate => "invalid_deflate",
            Self::TooFast => "too_fast",
            Self::TooMuchArrives => "too_much_arrives",
            Self::TooSlow => "too_slow",
            Self::Stalled => "stalled",
        }
    }
}
