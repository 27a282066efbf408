//! Inputs and effects of a room, as plain data.

mod agent;
mod sharing;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::agent::job::AgentJob;
use crate::assistant::AnswerReport;
use crate::id::{ConnectionId, Grants, IdentityId, MeetingId, UserId};
use crate::media_access::MediaPlace;
use crate::network::ClientNetwork;
use crate::protocol::client::{ClientMessage, HistoryEntry, JsonString};
use crate::protocol::close::Close;
use crate::protocol::moderation::ModerationAction;
use crate::protocol::server::Event;
use crate::room::rules::RulesChange;
use crate::room::state::{Denied, Moderator};
use crate::store::saved::Persist;
pub use agent::{AgentOutcome, AgentTask};
pub use sharing::ShareFile;

/// An input of a room.
#[derive(Debug)]
pub enum Input {
    /// A socket asks to join.
    Join(Join),
    /// A member's socket sent a message.
    Message {
        /// The socket.
        connection: ConnectionId,
        /// Wall-clock time of arrival, in milliseconds since 1970. Shown to members; no duration is
        /// measured with it.
        at: u64,
        /// The message.
        message: ClientMessage,
    },
    /// A member's socket sent an invalid message.
    Rejected {
        /// The socket.
        connection: ConnectionId,
        /// The defect of the text, as a sentence.
        why: String,
    },
    /// A socket is gone.
    Disconnected(Disconnection),
    /// A member confirmed nothing for too long, or the memory for slow members is exhausted.
    TooSlow {
        /// The member.
        user: UserId,
    },
    /// A request of whoever is not here as a member.
    Moderate {
        /// Whoever asks.
        by: Moderator,
        /// The action.
        action: ModerationAction,
    },
    /// Change the settings of the meeting.
    SetRules {
        /// Whoever asks.
        by: Moderator,
        /// The change.
        change: RulesChange,
    },
    /// The settings with which meetings begin were changed.
    LastingRules {
        /// The change.
        change: RulesChange,
    },
    /// A job of an agent has ended.
    AgentDone {
        /// The job.
        job: AgentJob,
        /// The job's result.
        outcome: AgentOutcome,
    },
    /// News of an answer of the assistant.
    Answer(AnswerReport),
    /// A program outside writes to the room.
    Post(Post),
    /// A file that a member shares.
    ShareFile(ShareFile),
    /// The room's deadline has passed.
    Wake,
    /// The server stops; sockets are closed so that their clients reconnect to the next process.
    Shutdown,
}

/// A message of a program outside, which is no member.
#[derive(Clone, Debug)]
pub struct Post {
    /// Wall-clock time of arrival, in milliseconds since 1970.
    pub at: u64,
    /// The name shown as the author's.
    pub name: Arc<str>,
    /// The member that gets it alone; everyone gets a chat message otherwise.
    pub to: Option<UserId>,
    /// The text.
    pub message: JsonString,
}

/// Reason for not carrying out a [`Post`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CannotPost {
    /// No meeting is running.
    NoMeeting,
    /// The recipient is not a member.
    UnknownMember,
    /// The room is at another node of the cluster.
    OtherNode,
}

/// A closed socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnection {
    /// The socket.
    pub connection: ConnectionId,
    /// True if the client said that its page was left (RFC 6455 section 7.4.1, code 1001). Firefox
    /// closes a page's sockets this way before the page learns of its end and could send
    /// `userLeft`.
    pub is_page_left: bool,
}

/// The sign of life that a member is expected to give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Liveness {
    /// Orange's `heartbeat` messages.
    #[default]
    Heartbeat,
    /// Its connection, whose transport has a keep-alive of its own: the member is alive as long as it is attached.
    Connection,
}

/// A socket's request to join a room.
#[derive(Clone, Debug)]
pub struct Join {
    /// The socket.
    pub connection: ConnectionId,
    /// The id that the client claims.
    pub user: UserId,
    /// The authenticated identity.
    pub identity: IdentityId,
    /// The identity's name.
    pub name: Arc<str>,
    /// The identity's rights.
    pub grants: Grants,
    /// The client's network, if known.
    pub network: Option<ClientNetwork>,
    /// The meeting that begins if this is the first member of an empty room. (Randomness, like
    /// time, is an argument.)
    pub new_meeting: MeetingId,
    /// True if the member is sent presence messages.
    pub presence: bool,
    /// The sign of life that the member gives from now on.
    pub liveness: Liveness,
    /// The hash of the room's password that the identity proved to know, if any.
    pub password: Option<Arc<str>>,
}

/// An effect to be carried out for a room. Effects are carried out in order.
#[derive(Debug)]
pub enum Effect {
    /// Attach the socket to the user's outbox; an older socket is superseded.
    Admit {
        /// The socket.
        connection: ConnectionId,
        /// The member.
        user: UserId,
    },
    /// Refuse the socket's join.
    Refuse {
        /// The socket.
        connection: ConnectionId,
        /// The reason.
        refusal: JoinRefusal,
    },
    /// The socket is gone; its member's queued events wait for the next one.
    Detach {
        /// The socket.
        connection: ConnectionId,
        /// The member.
        user: UserId,
    },
    /// Put the event into the outboxes.
    Send {
        /// The recipients.
        to: Recipients,
        /// The event.
        event: Event,
    },
    /// Put the event into the outboxes of all who are connected; it is lost to the others, and replaces an older one of
    /// its kind that was not sent yet.
    SendTransient(Event),
    /// Encode the newest state and queue it in every outbox.
    Snapshot,
    /// The member is removed: close its socket, if any, after its queue is written.
    Remove {
        /// The member.
        user: UserId,
        /// The close reason.
        close: Close,
    },
    /// Close the member's socket after its queue is written; the member stays.
    SendAway {
        /// The member.
        user: UserId,
        /// The close reason.
        close: Close,
    },
    /// Persist a change.
    Persist {
        /// The changed meeting.
        meeting: MeetingId,
        /// The change.
        change: Persist,
    },
    /// Publish an event: write it to the log, and hand it to subscribers.
    Publish {
        /// The meeting that it belongs to.
        meeting: Option<MeetingId>,
        /// The event.
        event: RoomEvent,
    },
    /// Set the member's place in the directory of media.
    PlaceMedia {
        /// The member.
        user: UserId,
        /// Its identity.
        identity: IdentityId,
        /// The place.
        place: MediaPlace,
    },
    /// Carry out a task for an agent.
    Agent(AgentTask),
    /// Answer a request of whoever is not here as a member.
    Moderated(Result<(), Denied>),
    /// Remember the members of a meeting that was ended for all.
    RememberEnded(MeetingId, Vec<UserId>),
    /// End the room: it has no member and no state to remember.
    Retire,
}

/// The recipients of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Recipients {
    /// One member.
    One(UserId),
    /// Everyone but one member.
    AllBut(UserId),
    /// Everyone.
    All,
}

/// Reason for refusing a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinRefusal {
    /// The claimed id belongs to another identity.
    IdTaken,
    /// The room has reached its limit of members.
    RoomFull,
    /// The identity has reached its limit of members in the room.
    IdentityFull,
    /// The network has reached its limit of members in the room.
    NetworkFull,
    /// No meeting runs, and the identity may not start one.
    NotStarted,
    /// The identity, or its network, was removed from this meeting.
    Banned,
    /// The room is closed to everyone who was not in this meeting.
    Locked,
    /// A moderator has to let the identity in.
    Waiting,
    /// The identity has to enter the room's password first.
    PasswordNeeded,
    /// The client was in a meeting of this room that a moderator ended.
    Ended,
    /// The server stops.
    ShuttingDown,
}

/// Reason for waking a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Timed-out members are removed and everyone gets a snapshot.
    Tick,
    /// Recent changes are sent as one snapshot.
    Snapshot,
    /// Recent reactions are sent as one message.
    Reactions,
    /// The grace period of a disconnected member ends.
    GiveUp,
}

/// Something that happened in a room, with the reference's name in the log (protocol section 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomEvent {
    /// The tick.
    Alarm,
    /// A socket was admitted.
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
    /// A member sent `userLeft`.
    UserLeft {
        /// The user.
        user: UserId,
    },
    /// A member did not return in its grace period after its page was left, or before it had sent anything.
    UserGone {
        /// The user.
        user: UserId,
    },
    /// A member's heartbeats timed out.
    UserTimedOut {
        /// The user.
        user: UserId,
    },
    /// The first member of an empty room joined.
    StartingMeeting,
    /// The last member is gone.
    EndingMeeting,
    /// The room's task panicked, which ended the meeting.
    RoomFailed,
    /// Somebody became a member.
    MemberJoined {
        /// The user.
        user: UserId,
        /// Its identity.
        identity: IdentityId,
        /// Its user object as JSON.
        json: Arc<str>,
    },
    /// A member was removed, for whatever reason.
    MemberLeft {
        /// The user.
        user: UserId,
        /// Its last user object as JSON.
        json: Arc<str>,
        /// The reason, as that of its socket's close.
        reason: Close,
    },
    /// A member's user object was replaced.
    MemberUpdated {
        /// The user.
        user: UserId,
        /// The user object before, as JSON.
        before: Arc<str>,
        /// The user object now, as JSON.
        after: Arc<str>,
    },
    /// A chat message, published only while a consumer wants them.
    ChatMessage {
        /// The message's number.
        id: u64,
        /// The author.
        from: UserId,
        /// The author's name.
        name: Arc<str>,
        /// The text as JSON.
        message: Arc<str>,
    },
    /// A member was too slow, so that events would be lost.
    ErrorBroadcastingToUser {
        /// The user.
        user: UserId,
    },
    /// A member's message was invalid or was rejected.
    ErrorHandlingMessage {
        /// The user.
        user: UserId,
        /// The sentence sent to the client.
        why: String,
    },
    /// A message named an id that is not a member.
    UnknownRecipient {
        /// The user who sent it.
        user: UserId,
        /// The message's type.
        r#type: &'static str,
    },
    /// A moderator acted.
    Moderated {
        /// The moderator; none for an operator.
        by: Option<UserId>,
        /// The action's name, and the state that it switched something to, if it is a switch.
        action: (std::borrow::Cow<'static, str>, Option<bool>),
        /// The member that it was about, if there was one.
        target: Option<UserId>,
    },
    /// A client's request to the media API.
    ClientNegotiationRecord {
        /// The user.
        user: UserId,
        /// The logged part, without its bodies (they hold ICE passwords).
        entry: HistoryEntry,
    },
}

impl RoomEvent {
    /// True for events that are for the log only: those of the room's own clock, and those of no meaning outside that
    /// a client can cause at any rate.
    pub fn is_diagnostic(&self) -> bool {
        match self {
            Self::Alarm
            | Self::ErrorHandlingMessage { .. }
            | Self::UnknownRecipient { .. }
            | Self::ClientNegotiationRecord { .. } => true,
            Self::OnConnect { .. }
            | Self::OnClose { .. }
            | Self::UserLeft { .. }
            | Self::UserGone { .. }
            | Self::UserTimedOut { .. }
            | Self::StartingMeeting
            | Self::EndingMeeting
            | Self::Moderated { .. }
            | Self::RoomFailed
            | Self::MemberJoined { .. }
            | Self::MemberLeft { .. }
            | Self::MemberUpdated { .. }
            | Self::ChatMessage { .. }
            | Self::ErrorBroadcastingToUser { .. } => false,
        }
    }

    /// True for events that are not for the log: it has others for the same occasions, and no contents of members.
    pub fn is_unlogged(&self) -> bool {
        matches!(
            self,
            Self::RoomFailed
                | Self::MemberJoined { .. }
                | Self::MemberLeft { .. }
                | Self::MemberUpdated { .. }
                | Self::ChatMessage { .. }
        )
    }
}
