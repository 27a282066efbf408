//! Messages between the nodes of a room.

use std::sync::Arc;

use satsuma_cluster::LinkId;
use satsuma_cluster::link::{Answer, Up};

use crate::id::{ConnectionId, UserId};
use crate::protocol::user::User;
use crate::room::codec::RemoteCommand;
use crate::room::io::{Join, JoinRefusal};

/// A message from one node to another about a room.
#[derive(Clone, Debug)]
pub enum PeerMessage {
    /// A relay attaches to the owner.
    Attach(Attach),
    /// Messages of sockets, to the owner.
    Up(Up<RemoteCommand>),
    /// The item up to which they are stored, to the relay.
    Answer(Answer<ItemFailure>),
    /// The owner does not know the link: the relay is to attach again.
    AttachAgain {
        /// The link.
        link: LinkId,
        /// The owner's epoch.
        epoch: u64,
    },
    /// The node does not own the room, whatever the journal says.
    NotOwner {
        /// The link.
        link: LinkId,
    },
    /// The events up to which members have confirmed, to the owner.
    Confirmed {
        /// The owner's epoch.
        epoch: u64,
        /// The members, and the numbers of their last confirmed events.
        members: Vec<(UserId, u64)>,
    },
    /// A relay missed a snapshot.
    SnapshotWanted {
        /// The owner's epoch.
        epoch: u64,
    },
}

/// A relay's attachment to an owner: all that the owner's memory has to know of the sockets there.
#[derive(Clone, Debug)]
pub struct Attach {
    /// The link.
    pub link: LinkId,
    /// The owner's epoch.
    pub epoch: u64,
    /// The first item without an answer.
    pub unanswered: u64,
    /// The members whose sockets are open at the relay.
    pub members: Vec<AttachedMember>,
}

/// A member whose socket is open at a relay.
#[derive(Clone, Debug)]
pub struct AttachedMember {
    /// The join that was admitted.
    pub join: Join,
    /// The newest user object that the client sent, if it sent one.
    pub update: Option<Box<User>>,
}

/// The failure of an item of a link, for the one who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemFailure {
    /// A join was refused.
    Refused {
        /// The socket.
        connection: ConnectionId,
        /// The reason.
        refusal: JoinRefusal,
    },
    /// A message was not carried out, for this reason, which its sender was told as well.
    Failed(String),
}

/// A message of the owner to all nodes with members. Any of them may be lost.
#[derive(Clone, Debug)]
pub struct Broadcast {
    /// The owner's epoch.
    pub epoch: u64,
    /// The number of the owner's last stored entry.
    pub entry: u64,
    /// The number of the owner's last snapshot.
    pub snapshot: u64,
    /// The contents.
    pub content: Content,
}

/// The contents of a broadcast.
#[derive(Clone, Debug)]
pub enum Content {
    /// That snapshot, as JSON.
    Snapshot(Arc<str>),
    /// A message for those who are connected, as JSON.
    Transient(Arc<str>),
    /// Nothing but the position, so that a lost end is found.
    Position,
}
