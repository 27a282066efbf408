//! The lines of a room's journal, and the state that they lead to.
//!
//! A room's journal holds everything that a room persists: each change that goes to the store on a single node is a line
//! here, so that a part of the room's state that outlasts a restart outlasts its owner as well. To these come what the
//! memory of a single process knows: the sockets of members, and the events that they have not confirmed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use satsuma_cluster::entry::State;
use serde::{Deserialize, Serialize};

use super::journaled::JournaledEvent;
use crate::id::{ConnectionId, IdentityId, MeetingId, NodeId, RoomName, UserId};
use crate::protocol::close::Close;
use crate::protocol::server::{AiState, encode_room_state};
use crate::room::io::Recipients;
use crate::store::saved::{Persist, SavedMember, SavedRoom};

/// Maximum number of events for programs outside that wait in the state to be recorded, and of bytes of their texts. Of
/// more the oldest are told by the owner's node alone.
const MAX_UNRECORDED: usize = 256;
const MAX_UNRECORDED_BYTES: usize = 128 << 10;

/// A line of a room's journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RoomLine {
    /// A meeting began.
    Meeting(MeetingId),
    /// A member is new, or its user object changed.
    Member {
        /// The member.
        user: UserId,
        /// Its identity.
        identity: IdentityId,
        /// Its user object as JSON.
        json: Arc<str>,
        /// Its place in the order in which members came.
        arrival: i64,
    },
    /// A member is gone.
    MemberRemoved(UserId),
    /// An id is reserved for the identity of its former member.
    Departed(UserId, IdentityId),
    /// An id is no longer reserved.
    DepartedForgotten(UserId),
    /// The AI's state changed.
    Ai(Arc<str>),
    /// The rules of the meeting changed.
    Moderation(Arc<str>),
    /// The video that is watched changed.
    Watch(Arc<str>),
    /// A message of the chat is to be remembered.
    Chat {
        /// Its id.
        id: u64,
        /// The message as JSON.
        json: Arc<str>,
        /// The id of the oldest message that is still remembered.
        first: u64,
    },
    /// Messages of the chat below this id are forgotten.
    ChatForgotten(u64),
    /// A socket is its member's from here on.
    Admitted {
        /// The member.
        user: UserId,
        /// The socket.
        connection: ConnectionId,
        /// The number of the first event that the member has not confirmed.
        owed_from: u64,
    },
    /// An event.
    Event {
        /// Its number: one more than the one before, as long as the meeting runs.
        number: u64,
        /// The recipients.
        to: Recipients,
        /// The message.
        json: Arc<str>,
        /// The id of the chat message that it is, if it is one.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        chat: Option<u64>,
    },
    /// A member is removed, and its socket closed.
    Removed {
        /// The member.
        user: UserId,
        /// The reason.
        close: Close,
    },
    /// Members have confirmed their events up to these numbers.
    Confirmed(Vec<(UserId, u64)>),
    /// The meeting was ended for all: these ids are kept out of the next one for a time.
    KeptOut(Vec<UserId>),
    /// The meeting's media sessions are opened on this node.
    MediaAt(NodeId),
    /// An event for programs outside.
    Published(JournaledEvent),
    /// The owner's node has recorded those events.
    Recorded(RecordedEvents),
}

/// The events for programs outside that a node has recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedEvents {
    /// The number of the last one.
    pub through: u64,
    /// Its number in the meeting, as programs see it: one that is published may be told as several, or not at all.
    pub seq: u64,
}

/// A room as its journal tells it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoomState {
    meeting: Option<MeetingId>,
    members: BTreeMap<UserId, (IdentityId, Arc<str>, i64)>,
    departed: Vec<(UserId, IdentityId)>,
    ai: Option<Arc<str>>,
    moderation: Option<Arc<str>>,
    watch: Option<Arc<str>>,
    chat: VecDeque<(u64, Arc<str>)>,
    /// The id of the last chat message, remembered or not.
    last_chat: u64,
    sockets: BTreeMap<UserId, MemberSocket>,
    /// The number of the last event.
    events: u64,
    /// The node of the media sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    media_at: Option<NodeId>,
    /// The events for programs outside that perhaps no node has recorded.
    #[serde(skip_serializing_if = "VecDeque::is_empty")]
    unrecorded: VecDeque<JournaledEvent>,
    #[serde(skip_serializing_if = "RecordedEvents::is_none")]
    recorded: RecordedEvents,
    /// The events that somebody may not have confirmed. They stay in their entries when a whole state is written.
    #[serde(skip)]
    unconfirmed: VecDeque<LoggedEvent>,
}

/// The socket of a member, the last one if it is disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberSocket {
    /// The socket.
    pub connection: ConnectionId,
    /// The number of the first event that the member has not confirmed.
    pub owed_from: u64,
}

/// An event of the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedEvent {
    /// Its number.
    pub number: u64,
    /// The recipients.
    pub to: Recipients,
    /// The message.
    pub json: Arc<str>,
}

impl Recipients {
    /// True if a member is one of them.
    pub fn include(&self, user: &UserId) -> bool {
        match self {
            Self::One(to) => to == user,
            Self::AllBut(but) => but != user,
            Self::All => true,
        }
    }
}

impl RoomLine {
    /// The line of a persisted change. None for those that follow from others: the number of members, and the end of
    /// the meeting, which ends the journal.
    pub fn of_change(meeting: MeetingId, change: Persist) -> Option<Self> {
        Some(match change {
            Persist::MeetingStarted => Self::Meeting(meeting),
            Persist::Peak { .. } | Persist::MeetingEnded | Persist::MovedAway | Persist::Journal(_) => {
                return None;
            }
            Persist::Member(SavedMember { user, identity, json, arrival }) => {
                Self::Member { user, identity, json, arrival }
            }
            Persist::MemberRemoved { user } => Self::MemberRemoved(user),
            Persist::Departed { user, identity } => Self::Departed(user, identity),
            Persist::DepartedForgotten { user } => Self::DepartedForgotten(user),
            Persist::Ai { json } => Self::Ai(json),
            Persist::Moderation { json } => Self::Moderation(json),
            Persist::Watch { json } => Self::Watch(json),
            Persist::ChatMessage { id, json, first } => Self::Chat { id, json, first },
            Persist::ChatForgotten { first } => Self::ChatForgotten(first),
        })
    }
}

impl RoomLine {
    /// Size in bytes of the text of a change, which is what may be long in one.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Ai(json) | Self::Moderation(json) | Self::Watch(json) => json.len(),
            Self::Published(event) => event.text_bytes(),
            Self::Member { json, .. } | Self::Chat { json, .. } | Self::Event { json, .. } => json.len(),
            _ => 0,
        }
    }
}

impl RoomState {
    /// The room in the form of the store; none if no meeting runs. The events that members have not confirmed are not
    /// in it: each is owed to a socket, wherever that is.
    pub fn to_saved(&self, room: &RoomName) -> Option<SavedRoom> {
        let member =
            |(user, (identity, json, arrival)): (&UserId, &(IdentityId, Arc<str>, i64))| SavedMember {
                user: user.clone(),
                identity: identity.clone(),
                json: json.clone(),
                arrival: *arrival,
            };
        Some(SavedRoom {
            room: room.clone(),
            meeting: self.meeting?,
            ai: self.ai.clone(),
            moderation: self.moderation.clone(),
            watch: self.watch.clone(),
            chat: self.chat.iter().cloned().collect(),
            members: self.members.iter().map(member).collect(),
            departed: self.departed.clone(),
            unconfirmed: Vec::new(),
            journal: None,
        })
    }

    /// True for the id of a member.
    pub fn is_member(&self, user: &UserId) -> bool {
        self.members.contains_key(user)
    }

    /// The meeting, if one runs.
    pub fn meeting(&self) -> Option<MeetingId> {
        self.meeting
    }

    /// The id of the last chat message. The next owner's clock may be behind.
    pub fn last_chat(&self) -> u64 {
        self.last_chat
    }

    /// The events for programs outside that perhaps no node has recorded.
    pub fn unrecorded(&self) -> impl Iterator<Item = &JournaledEvent> {
        self.unrecorded.iter()
    }

    /// The events that a node has recorded.
    pub fn recorded(&self) -> RecordedEvents {
        self.recorded
    }

    /// The number of the last event for programs outside.
    pub fn published(&self) -> u64 {
        self.unrecorded.back().map_or(self.recorded.through, |last| last.number)
    }

    /// The node of the meeting's media sessions.
    pub fn media_at(&self) -> Option<NodeId> {
        self.media_at
    }

    /// The number of the last event.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The room as this node knows it without its owner: the members, and nothing of what their owner alone knows.
    pub fn encode_snapshot(&self) -> String {
        let users = self.members.values().map(|(_, json, _)| &**json);
        encode_room_state(self.meeting, users, &AiState::default(), None, None)
    }

    /// The remembered messages of the chat as JSON, oldest first.
    pub fn chat(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.chat.iter().map(|(_, json)| &**json)
    }

    /// The sockets of all members, by their ids.
    pub fn sockets(&self) -> impl Iterator<Item = (&UserId, &MemberSocket)> {
        self.sockets.iter()
    }

    /// The socket of a member.
    pub fn socket(&self, user: &UserId) -> Option<&MemberSocket> {
        self.sockets.get(user)
    }

    /// The events from a number on that are for a member.
    pub fn owed<'a>(&'a self, user: &'a UserId, from: u64) -> impl Iterator<Item = &'a LoggedEvent> {
        self.unconfirmed.iter().filter(move |event| event.number >= from && event.to.include(user))
    }

    /// The nodes with members, and the number of members of each.
    pub fn nodes(&self) -> BTreeMap<NodeId, usize> {
        let mut nodes = BTreeMap::new();
        for socket in self.sockets.values() {
            *nodes.entry(socket.connection.node()).or_default() += 1;
        }
        nodes
    }

    /// Keeps an event, and of all that are kept not more than there may be.
    fn keep_published(&mut self, event: JournaledEvent) {
        self.unrecorded.push_back(event);
        let mut bytes: usize = self.unrecorded.iter().map(JournaledEvent::text_bytes).sum();
        while self.unrecorded.len() > MAX_UNRECORDED || bytes > MAX_UNRECORDED_BYTES {
            let Some(oldest) = self.unrecorded.pop_front() else { break };
            bytes -= oldest.text_bytes();
        }
    }

    fn forget_confirmed(&mut self) {
        let passed = self.passed();
        while self.unconfirmed.front().is_some_and(|event| event.number <= passed) {
            self.unconfirmed.pop_front();
        }
    }
}

impl RecordedEvents {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl State for RoomState {
    type Line = RoomLine;

    fn apply(&mut self, line: &RoomLine) {
        match line.clone() {
            RoomLine::Meeting(meeting) => self.meeting = Some(meeting),
            RoomLine::Member { user, identity, json, arrival } => {
                self.members.insert(user, (identity, json, arrival));
            }
            RoomLine::MemberRemoved(user) => drop(self.members.remove(&user)),
            RoomLine::Departed(user, identity) => {
                self.departed.retain(|(other, _)| *other != user);
                self.departed.push((user, identity));
            }
            RoomLine::DepartedForgotten(user) => self.departed.retain(|(other, _)| *other != user),
            RoomLine::Ai(json) => self.ai = Some(json),
            RoomLine::Moderation(json) => self.moderation = Some(json),
            RoomLine::Watch(json) => self.watch = Some(json),
            RoomLine::Chat { id, json, first } => {
                self.chat.push_back((id, json));
                self.chat.retain(|(id, _)| *id >= first);
            }
            RoomLine::ChatForgotten(first) => self.chat.retain(|(id, _)| *id >= first),
            RoomLine::Admitted { user, connection, owed_from } => {
                self.sockets.insert(user, MemberSocket { connection, owed_from });
            }
            RoomLine::Event { number, to, json, chat } => {
                self.events = number;
                self.last_chat = self.last_chat.max(chat.unwrap_or_default());
                self.unconfirmed.push_back(LoggedEvent { number, to, json });
            }
            RoomLine::Removed { user, .. } => drop(self.sockets.remove(&user)),
            RoomLine::Confirmed(users) => {
                for (user, number) in users {
                    if let Some(socket) = self.sockets.get_mut(&user) {
                        socket.owed_from = socket.owed_from.max(number + 1);
                    }
                }
            }
            RoomLine::KeptOut(_) => {}
            RoomLine::MediaAt(node) => self.media_at = Some(node),
            RoomLine::Published(event) => self.keep_published(event),
            RoomLine::Recorded(recorded) => {
                self.recorded = recorded;
                while self.unrecorded.front().is_some_and(|event| event.number <= recorded.through) {
                    self.unrecorded.pop_front();
                }
            }
        }
        self.forget_confirmed();
    }

    fn replace(&mut self, whole: Self) {
        let unconfirmed = std::mem::take(&mut self.unconfirmed);
        *self = Self { unconfirmed, ..whole };
        self.forget_confirmed();
    }

    fn mark(&self) -> u64 {
        self.events
    }

    fn passed(&self) -> u64 {
        if self.meeting.is_none() {
            // The members are not known yet: a journal is read back, whose first entries are there for their events.
            return 0;
        }
        let owed = self.sockets.values().map(|socket| socket.owed_from.saturating_sub(1)).min();
        owed.unwrap_or(self.events).min(self.events)
    }
}
