//! The bytes of messages between the nodes of a room.
//!
//! A byte that tells if the rest is compressed, one for the version, then postcard. As in
//! [`codec`](crate::room::codec) the types here are the format. A field that a later version adds comes after all
//! others of its message, so that a reader of the version before leaves it out; new kinds of messages are sent only
//! once all nodes know them ([`Membership::version`](satsuma_cluster::Membership::version)).

use std::borrow::Cow;

use satsuma_cluster::LinkId;
use satsuma_cluster::compression;
use satsuma_cluster::link::{Answer, MAX_ITEMS, Up};
use serde::{Deserialize, Serialize};

use super::messages::{Attach, AttachedMember, Broadcast, Content, ItemFailure, PeerMessage};
use crate::id::{ConnectionId, NodeId, UserId};
use crate::room::codec::{CodecError, RemoteCommand};
use crate::room::io::JoinRefusal;

/// Version of the format.
const VERSION: u8 = 1;

/// Minimum size in bytes of a message that is compressed.
const COMPRESSED_FROM: usize = 1024;

/// Maximum size in bytes of a message, not compressed.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

const PLAIN: u8 = 0;
const COMPRESSED: u8 = 1;

impl PeerMessage {
    /// Encodes the message.
    pub fn encode(&self) -> Vec<u8> {
        pack(&WirePeer::of(self))
    }

    /// Decodes a message.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let inflated = inflate(bytes)?;
        read::<WirePeer>(&inflated)?.read().ok_or(CodecError::Malformed)
    }
}

impl Broadcast {
    /// Encodes the broadcast.
    pub fn encode(&self) -> Vec<u8> {
        let Self { epoch, entry, snapshot, content } = self;
        let content = match content {
            Content::Snapshot(json) => WireContent::Snapshot(json),
            Content::Transient(json) => WireContent::Transient(json),
            Content::Position => WireContent::Position,
        };
        pack(&WireBroadcast { epoch: *epoch, entry: *entry, snapshot: *snapshot, content })
    }

    /// Decodes a broadcast.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let inflated = inflate(bytes)?;
        let WireBroadcast { epoch, entry, snapshot, content } = read(&inflated)?;
        let content = match content {
            WireContent::Snapshot(json) => Content::Snapshot(json.into()),
            WireContent::Transient(json) => Content::Transient(json.into()),
            WireContent::Position => Content::Position,
        };
        Ok(Self { epoch, entry, snapshot, content })
    }
}

#[expect(clippy::expect_used, reason = "the wire types have no unknown lengths")]
fn pack(value: &impl Serialize) -> Vec<u8> {
    let plain = postcard::to_extend(value, vec![PLAIN, VERSION]).expect("plain data is encoded");
    if plain.len() < COMPRESSED_FROM {
        return plain;
    }
    let mut bytes = vec![COMPRESSED];
    compression::deflate(&plain[1..], &mut bytes);
    if bytes.len() < plain.len() { bytes } else { plain }
}

/// The version and what follows it.
fn inflate(bytes: &[u8]) -> Result<Cow<'_, [u8]>, CodecError> {
    let (&kind, rest) = bytes.split_first().ok_or(CodecError::UnknownVersion)?;
    let message = match kind {
        PLAIN => Cow::Borrowed(rest),
        COMPRESSED => Cow::Owned(compression::inflate(rest, MAX_MESSAGE_BYTES).ok_or(CodecError::Malformed)?),
        _ => return Err(CodecError::UnknownVersion),
    };
    if message.len() > MAX_MESSAGE_BYTES { Err(CodecError::Malformed) } else { Ok(message) }
}

fn read<'a, T: Deserialize<'a>>(message: &'a [u8]) -> Result<T, CodecError> {
    let (&version, rest) = message.split_first().ok_or(CodecError::UnknownVersion)?;
    let is_newer = version == VERSION + 1;
    if version != VERSION && !is_newer {
        return Err(CodecError::UnknownVersion);
    }
    match postcard::take_from_bytes(rest) {
        Ok((value, unknown)) if unknown.is_empty() || is_newer => Ok(value),
        _ => Err(CodecError::Malformed),
    }
}

#[derive(Serialize, Deserialize)]
struct WireBroadcast<'a> {
    epoch: u64,
    entry: u64,
    snapshot: u64,
    #[serde(borrow)]
    content: WireContent<'a>,
}

#[derive(Serialize, Deserialize)]
enum WireContent<'a> {
    Snapshot(&'a str),
    Transient(&'a str),
    Position,
}

#[derive(Serialize, Deserialize)]
enum WirePeer<'a> {
    Attach {
        link: WireLink,
        epoch: u64,
        unanswered: u64,
        #[serde(borrow)]
        members: Vec<WireMember<'a>>,
    },
    Up {
        link: WireLink,
        epoch: u64,
        unanswered: u64,
        first: u64,
        /// Each as its own bytes, so that a version of theirs is theirs.
        #[serde(borrow)]
        items: Vec<Cow<'a, [u8]>>,
    },
    Answer {
        link: WireLink,
        epoch: u64,
        through: u64,
        #[serde(borrow)]
        answers: Vec<(u64, WireFailure<'a>)>,
    },
    AttachAgain {
        link: WireLink,
        epoch: u64,
    },
    NotOwner {
        link: WireLink,
    },
    Confirmed {
        epoch: u64,
        members: Vec<(&'a str, u64)>,
    },
    SnapshotWanted {
        epoch: u64,
    },
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct WireLink {
    node: u32,
    number: u64,
}

#[derive(Serialize, Deserialize)]
struct WireMember<'a> {
    /// The bytes of a join.
    #[serde(borrow)]
    join: Cow<'a, [u8]>,
    /// As JSON, in which unknown fields stay as the client wrote them.
    update: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
enum WireFailure<'a> {
    Refused { node: u32, number: u64, refusal: WireRefusal },
    Failed(&'a str),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum WireRefusal {
    IdTaken,
    RoomFull,
    IdentityFull,
    NetworkFull,
    NotStarted,
    Banned,
    Locked,
    Waiting,
    PasswordNeeded,
    Ended,
    ShuttingDown,
}

impl WireLink {
    fn of(link: LinkId) -> Self {
        Self { node: link.node.bits(), number: link.number }
    }

    fn read(self) -> LinkId {
        LinkId { node: NodeId::new(self.node), number: self.number }
    }
}

impl<'a> WirePeer<'a> {
    fn of(message: &'a PeerMessage) -> Self {
        match message {
            PeerMessage::Attach(Attach { link, epoch, unanswered, members }) => Self::Attach {
                link: WireLink::of(*link),
                epoch: *epoch,
                unanswered: *unanswered,
                members: members.iter().map(WireMember::of).collect(),
            },
            PeerMessage::Up(Up { link, epoch, unanswered, first, items }) => Self::Up {
                link: WireLink::of(*link),
                epoch: *epoch,
                unanswered: *unanswered,
                first: *first,
                items: items.iter().map(|item| item.encode().into()).collect(),
            },
            PeerMessage::Answer(Answer { link, epoch, through, answers }) => Self::Answer {
                link: WireLink::of(*link),
                epoch: *epoch,
                through: *through,
                answers: answers.iter().map(|(item, answer)| (*item, WireFailure::of(answer))).collect(),
            },
            PeerMessage::AttachAgain { link, epoch } => {
                Self::AttachAgain { link: WireLink::of(*link), epoch: *epoch }
            }
            PeerMessage::NotOwner { link } => Self::NotOwner { link: WireLink::of(*link) },
            PeerMessage::Confirmed { epoch, members } => Self::Confirmed {
                epoch: *epoch,
                members: members.iter().map(|(user, number)| (user.as_str(), *number)).collect(),
            },
            PeerMessage::SnapshotWanted { epoch } => Self::SnapshotWanted { epoch: *epoch },
        }
    }

    fn read(self) -> Option<PeerMessage> {
        Some(match self {
            Self::Attach { link, epoch, unanswered, members } => PeerMessage::Attach(Attach {
                link: link.read(),
                epoch,
                unanswered,
                members: members.into_iter().map(WireMember::read).collect::<Option<_>>()?,
            }),
            Self::Up { items, .. } if items.len() > MAX_ITEMS => return None,
            Self::Up { link, epoch, unanswered, first, items } => PeerMessage::Up(Up {
                link: link.read(),
                epoch,
                unanswered,
                // The numbers of all items have to fit.
                first: first.checked_add(MAX_ITEMS as u64).map(|_| first)?,
                items: items.iter().map(|item| RemoteCommand::decode(item).ok()).collect::<Option<_>>()?,
            }),
            Self::Answer { answers, .. } if answers.len() > MAX_ITEMS => return None,
            Self::Answer { link, epoch, through, answers } => PeerMessage::Answer(Answer {
                link: link.read(),
                epoch,
                through,
                answers: answers.into_iter().map(|(item, answer)| (item, answer.read())).collect(),
            }),
            Self::AttachAgain { link, epoch } => PeerMessage::AttachAgain { link: link.read(), epoch },
            Self::NotOwner { link } => PeerMessage::NotOwner { link: link.read() },
            Self::Confirmed { epoch, members } => {
                let member = |(user, number)| Some((UserId::parse(user).ok()?, number));
                PeerMessage::Confirmed {
                    epoch,
                    members: members.into_iter().map(member).collect::<Option<_>>()?,
                }
            }
            Self::SnapshotWanted { epoch } => PeerMessage::SnapshotWanted { epoch },
        })
    }
}

impl WireMember<'_> {
    fn of(member: &AttachedMember) -> Self {
        let AttachedMember { join, update } = member;
        Self {
            join: RemoteCommand::Join(join.clone()).encode().into(),
            update: update.as_ref().map(|user| user.to_json().into()),
        }
    }

    fn read(self) -> Option<AttachedMember> {
        let RemoteCommand::Join(join) = RemoteCommand::decode(&self.join).ok()? else { return None };
        let update = match self.update {
            None => None,
            Some(json) => Some(serde_json::from_str(&json).ok()?),
        };
        Some(AttachedMember { join, update })
    }
}

impl<'a> WireFailure<'a> {
    fn of(failure: &'a ItemFailure) -> Self {
        match failure {
            ItemFailure::Refused { connection, refusal } => Self::Refused {
                node: connection.node().bits(),
                number: connection.number(),
                refusal: WireRefusal::of(*refusal),
            },
            ItemFailure::Failed(why) => Self::Failed(why),
        }
    }

    fn read(self) -> ItemFailure {
        match self {
            Self::Refused { node, number, refusal } => ItemFailure::Refused {
                connection: ConnectionId::new(NodeId::new(node), number),
                refusal: refusal.read(),
            },
            Self::Failed(why) => ItemFailure::Failed(why.to_owned()),
        }
    }
}

impl WireRefusal {
    fn of(refusal: JoinRefusal) -> Self {
        match refusal {
            JoinRefusal::IdTaken => Self::IdTaken,
            JoinRefusal::RoomFull => Self::RoomFull,
            JoinRefusal::IdentityFull => Self::IdentityFull,
            JoinRefusal::NetworkFull => Self::NetworkFull,
            JoinRefusal::NotStarted => Self::NotStarted,
            JoinRefusal::Banned => Self::Banned,
            JoinRefusal::Locked => Self::Locked,
            JoinRefusal::Waiting => Self::Waiting,
            JoinRefusal::PasswordNeeded => Self::PasswordNeeded,
            JoinRefusal::Ended => Self::Ended,
            JoinRefusal::ShuttingDown => Self::ShuttingDown,
        }
    }

    fn read(self) -> JoinRefusal {
        match self {
            Self::IdTaken => JoinRefusal::IdTaken,
            Self::RoomFull => JoinRefusal::RoomFull,
            Self::IdentityFull => JoinRefusal::IdentityFull,
            Self::NetworkFull => JoinRefusal::NetworkFull,
            Self::NotStarted => JoinRefusal::NotStarted,
            Self::Banned => JoinRefusal::Banned,
            Self::Locked => JoinRefusal::Locked,
            Self::Waiting => JoinRefusal::Waiting,
            Self::PasswordNeeded => JoinRefusal::PasswordNeeded,
            Self::Ended => JoinRefusal::Ended,
            Self::ShuttingDown => JoinRefusal::ShuttingDown,
        }
    }
}

#[cfg(test)]
mod tests;
