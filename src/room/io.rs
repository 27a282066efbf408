//! What goes into a room and what comes out of it: plain data.

use std::sync::Arc;

use crate::id::{ConnectionId, IdentityId, MeetingId, RoomName, SessionId, UserId};
use crate::network::ClientNetwork;
use crate::protocol::ai::{AiWish, TrackReference};
use crate::protocol::client::{ClientMessage, HistoryEntry, InvalidMessage};
use crate::protocol::close::Close;
use crate::protocol::deflate::Form;
use crate::protocol::server::Event;

/// Something that happened to a room.
#[derive(Debug)]
pub enum Input {
    /// Somebody asks for a seat.
    Join(Join),
    /// A member's socket sent a message.
    Message {
        /// The socket.
        connection: ConnectionId,
        /// When it came by the wall clock, in milliseconds since 1970. Members see it; nothing is
        /// measured by it.
        at: u64,
        /// What it said.
        message: ClientMessage,
    },
    /// A member's socket sent a text that is no message.
    Rejected {
        /// The socket.
        connection: ConnectionId,
        /// What is wrong with the text.
        why: InvalidMessage,
    },
    /// A socket is gone.
    Disconnected(Gone),
    /// A member confirms nothing of what waits for it, or there is no memory left for who is slow.
    TooSlow {
        /// The member.
        user: UserId,
    },
    /// A job for the AI is done.
    AiDone {
        /// The job.
        job: AiJob,
        /// What became of it.
        outcome: AiOutcome,
    },
    /// The room's deadline has passed.
    Wake,
    /// The server stops; sockets are sent away so that they come back to the next one.
    Shutdown,
}

/// A socket that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The socket.
    pub connection: ConnectionId,
    /// Whether its client said that its page is left (RFC 6455 section 7.4.1, code 1001). Firefox
    /// closes a page's sockets so before the page hears of its end, and could say that it leaves.
    pub is_page_left: bool,
}

/// A socket's wish to sit in a room.
#[derive(Clone, Debug)]
pub struct Join {
    /// The socket.
    pub connection: ConnectionId,
    /// The id that its client claims.
    pub user: UserId,
    /// Who it was proven to be.
    pub identity: IdentityId,
    /// The name that goes with that identity.
    pub name: Arc<str>,
    /// The network of its client, where it is known.
    pub network: Option<ClientNetwork>,
    /// What its socket takes.
    pub form: Form,
    /// The meeting that begins if this is the first member of an empty room. (Chance, like time,
    /// is an argument.)
    pub new_meeting: MeetingId,
}

/// Something that a room wants done. Effects are carried out in their order.
#[derive(Debug)]
pub enum Effect {
    /// The socket has the user's seat from now on, and its outbox; an older socket loses both.
    Admit {
        /// The socket.
        connection: ConnectionId,
        /// What it takes.
        form: Form,
        /// The seat.
        user: UserId,
    },
    /// The socket does not get a seat.
    Refuse {
        /// The socket.
        connection: ConnectionId,
        /// Why not.
        refusal: JoinRefusal,
    },
    /// The socket is gone from its seat; what waits there is kept for the next one.
    Detach {
        /// The socket.
        connection: ConnectionId,
        /// The seat.
        user: UserId,
    },
    /// Put the event into the outboxes.
    Send {
        /// Whose outboxes.
        to: Recipients,
        /// The event.
        event: Event,
    },
    /// Encode the newest state and put it into every outbox.
    Snapshot,
    /// The seat is gone: close its socket, if any, once what waits was written.
    Remove {
        /// The seat.
        user: UserId,
        /// How the socket is closed.
        close: Close,
    },
    /// Close the seat's socket once what waits was written; the seat stays.
    SendAway {
        /// The seat.
        user: UserId,
        /// How the socket is closed.
        close: Close,
    },
    /// Keep a change of what survives a restart.
    Keep {
        /// The meeting that changed.
        meeting: MeetingId,
        /// What changed.
        change: Keep,
    },
    /// Write a line into the log.
    Log {
        /// The meeting that it belongs to.
        meeting: Option<MeetingId>,
        /// What happened.
        note: Note,
    },
    /// Do something at the AI's services.
    Ai(AiTask),
    /// Nobody is here and nothing is left to remember: end the room.
    Retire,
}

/// The number of a job that a room started for its AI, so that a late result is known as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AiJob(pub u64);

/// Something to be done at the AI's services, which a room does not wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AiTask {
    /// Bring an AI; ends in [`AiOutcome::Came`] or [`AiOutcome::Failed`].
    Invite {
        /// The job.
        job: AiJob,
        /// The meeting that it is for.
        meeting: MeetingId,
        /// How it should be.
        wish: AiWish,
    },
    /// Let the AI hear a track; ends in [`AiOutcome::Hears`] or [`AiOutcome::Failed`].
    Hear {
        /// The job.
        job: AiJob,
        /// The AI's session.
        session: AiSession,
        /// The track.
        track: TrackReference,
    },
    /// The result of the job is not wanted any more.
    Cancel(AiJob),
    /// Close the AI's track, and with it what the AI service bills for.
    Close(AiSession),
}

/// What became of a job for the AI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AiOutcome {
    /// The AI speaks and listens on this session.
    Came(AiSession),
    /// The AI hears the track.
    Hears,
    /// It did not work, or nobody waited for it.
    Failed,
}

/// The AI's session at the media API, and the one track on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AiSession {
    /// The meeting for which it was opened.
    pub meeting: MeetingId,
    /// The session.
    pub session: SessionId,
    /// The track's name.
    pub track_name: Arc<str>,
    /// Where the track is in the session's description; closing it asks for this.
    pub mid: Arc<str>,
}

/// Whose outboxes an event goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// One member.
    One(UserId),
    /// Everyone but one member.
    AllBut(UserId),
    /// Everyone.
    All,
}

/// Why a socket does not get a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefusal {
    /// The claimed id is in use by another identity.
    #[error("this _pk is in use by somebody else")]
    SeatTaken,
    /// The room has as many members as the limit allows.
    #[error("the room is full")]
    RoomFull,
    /// As many members of the room are of one identity as the limit allows.
    #[error("you are in this room too many times already; close one of its pages")]
    IdentityFull,
    /// As many members of the room come from one network as the limit allows.
    #[error("too many members of this room come from your network")]
    NetworkFull,
    /// The server stops.
    #[error("the server is restarting")]
    ShuttingDown,
}

/// A change of what survives a restart.
#[derive(Clone, Debug, PartialEq)]
pub enum Keep {
    /// A meeting began.
    MeetingStarted,
    /// A meeting has as many members as never before.
    Peak {
        /// How many.
        members: usize,
    },
    /// A seat is new, or its user changed.
    Seat(KeptSeat),
    /// A seat is gone.
    SeatRemoved {
        /// Whose.
        user: UserId,
    },
    /// The id of a member who left, whose it stays.
    Departed {
        /// The id.
        user: UserId,
        /// Whose it is.
        identity: IdentityId,
    },
    /// The id is not remembered any more, since its member is back or others left.
    DepartedForgotten {
        /// The id.
        user: UserId,
    },
    /// The AI's state changed.
    Ai {
        /// The AI as JSON, its session included.
        json: Arc<str>,
    },
    /// The meeting ended; its seats are gone with it.
    MeetingEnded,
}

/// A seat as it survives a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptSeat {
    /// Whose it is on the wire.
    pub user: UserId,
    /// Whose it is in truth.
    pub identity: IdentityId,
    /// The user object as JSON.
    pub json: Arc<str>,
}

/// A room as it survives a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptRoom {
    /// Its name.
    pub room: RoomName,
    /// Its meeting.
    pub meeting: MeetingId,
    /// The AI as JSON ([`super::ai::Ai::restore`] reads it), if it was ever switched on.
    pub ai: Option<Arc<str>>,
    /// Its seats.
    pub seats: Vec<KeptSeat>,
    /// The ids of members who left, and whose they are.
    pub departed: Vec<(UserId, IdentityId)>,
    /// Events that members had not acknowledged when the server stopped, in their order.
    pub waiting: Vec<(UserId, Arc<str>)>,
}

/// What a room should be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Old seats are removed and everyone gets a snapshot.
    Tick,
    /// Changes of the last moments are sent as one snapshot.
    Snapshot,
    /// A member whose socket ended is given up.
    GiveUp,
}

/// A line for the log, by the reference's event names (protocol section 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The tick.
    Alarm,
    /// A socket has a seat.
    OnConnect {
        /// The user.
        user: UserId,
        /// The socket.
        connection: ConnectionId,
    },
    /// A socket is gone.
    OnClose {
        /// The user.
        user: UserId,
        /// The socket.
        connection: ConnectionId,
    },
    /// A member left by saying so.
    UserLeft {
        /// The user.
        user: UserId,
    },
    /// A member's page was left, or it never said anything, and no socket came back for it.
    UserGone {
        /// The user.
        user: UserId,
    },
    /// A member's heartbeats stopped.
    UserTimedOut {
        /// The user.
        user: UserId,
    },
    /// The first member of an empty room came.
    StartingMeeting,
    /// Nobody is left.
    EndingMeeting,
    /// A member was too slow, so that events would be lost.
    ErrorBroadcastingToUser {
        /// The user.
        user: UserId,
    },
    /// A text of a member's socket was no message, or could not be carried out.
    ErrorHandlingMessage {
        /// The user.
        user: UserId,
        /// The sentence that its client got.
        why: String,
    },
    /// A message named a member who is not here.
    UnknownRecipient {
        /// The user who sent it.
        user: UserId,
        /// The message's type.
        r#type: &'static str,
    },
    /// What a client did at the media API.
    ClientNegotiationRecord {
        /// The user.
        user: UserId,
        /// What is logged of it; never its bodies (they hold ICE passwords).
        entry: HistoryEntry,
    },
}
