//! Inputs and actions of a replica, as plain data.

use std::sync::Arc;
use std::time::Instant;

use satsuma_cluster::Membership;
use satsuma_cluster::entry::Record;
use satsuma_cluster::writer::{Appended, Request};

use super::journaled::JournaledEvent;
use super::lines::{RecordedEvents, RoomState};
use super::messages::{Broadcast, PeerMessage};
use super::sockets::Delivery;
use crate::id::{ConnectionId, MeetingId, NodeId, UserId};
use crate::protocol::close::Close;
use crate::room::io::{Effect, Input, JoinRefusal};

/// An input of a replica.
#[derive(Debug)]
pub enum ReplicaInput {
    /// The engine's answer to an append.
    Appended {
        /// The number of the writer.
        writer: u64,
        /// The question.
        question: u64,
        /// The answer.
        answer: Appended,
    },
    /// The engine's answer to a read of the last entry; none if it did not answer.
    ReadLast {
        /// The number of the writer.
        writer: u64,
        /// The question.
        question: u64,
        /// The last entry.
        last: Option<Option<Record<RoomState>>>,
    },
    /// The engine's answer to a read of all entries; none if it did not answer.
    ReadAll {
        /// The question.
        question: u64,
        /// The entries.
        records: Option<Vec<Record<RoomState>>>,
    },
    /// An entry, as the engine published it when it was stored.
    Stored(Record<RoomState>),
    /// A message of another node.
    Peer {
        /// The node.
        from: NodeId,
        /// The message.
        message: PeerMessage,
    },
    /// A message of the owner to all.
    Broadcast(Broadcast),
    /// A node is gone, as [`Membership`] says.
    NodeGone(NodeId),
    /// A member on this node has confirmed its events up to a number.
    Confirmed {
        /// The member.
        user: UserId,
        /// The number of the last one.
        number: u64,
    },
    /// This node is to leave: the room is handed over.
    Leave,
    /// An input of the room from this node: news of its agents, or a request of whoever is no member. Ignored by all
    /// but the owner.
    Room(Box<Input>),
    /// This node has recorded events of a meeting for programs outside. Ignored by all but the owner.
    Recorded(MeetingId, RecordedEvents),
    /// The media sessions of the meeting are to be opened on this node. Ignored by all but the owner.
    MediaAt(NodeId),
    /// Entries may have been missed: the way to the engine was interrupted.
    Interrupted,
    /// A deadline has passed.
    Wake,
}

/// An action for whoever has the engine and the sockets. They are carried out in order.
#[derive(Debug)]
pub enum Action {
    /// Make a request of a writer to the engine.
    Request {
        /// The number of the writer.
        writer: u64,
        /// The request.
        request: Request<RoomState>,
    },
    /// Read all entries that there are.
    ReadAll {
        /// The question.
        question: u64,
    },
    /// Purge entries below a number of the engine.
    Purge {
        /// The number.
        below: u64,
    },
    /// Send a message to another node.
    Send {
        /// The node.
        to: NodeId,
        /// The message.
        message: PeerMessage,
    },
    /// Send a message to all nodes with members.
    Broadcast(Broadcast),
    /// Change the outboxes on this node.
    Deliver(Delivery),
    /// Refuse a socket's join.
    Refuse {
        /// The socket.
        connection: ConnectionId,
        /// The reason.
        refusal: JoinRefusal,
    },
    /// A message was not carried out.
    Failed {
        /// The number that [`RoomReplica::command`](super::RoomReplica::command) gave it.
        item: u64,
        /// The reason.
        why: String,
    },
    /// All that sockets said up to this item was handled, and what it caused is stored.
    Answered {
        /// The item's number.
        through: u64,
    },
    /// Queue a snapshot for all members on this node.
    Snapshot(Arc<str>),
    /// Queue the last snapshot again.
    RepeatSnapshot,
    /// Close the sockets of all members on this node; their memberships stay.
    SendAway(Close),
    /// Purge the entries below the last one, some time later: the room has ended.
    PurgeEnded {
        /// The number of the last entry.
        below: u64,
    },
    /// Queue a message for all who are connected to this node.
    Transient(Arc<str>),
    /// Publish an event to programs outside. Other nodes may have told it before, if they had no time to say so.
    Publish {
        /// The meeting.
        meeting: MeetingId,
        /// The event.
        event: JournaledEvent,
        /// The number of the last event of the meeting that other nodes have recorded.
        seq: u64,
    },
    /// Carry out an effect of the room, which everything before it is stored of.
    Effect(Effect),
}

/// Facts that a replica knows besides its inputs.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The time.
    pub now: Instant,
    /// The time in milliseconds since 1970.
    pub at: u64,
    /// The nodes.
    pub membership: &'a Membership,
}
