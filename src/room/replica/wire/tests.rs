use std::fmt::Debug;

use proptest::prelude::*;

use super::*;
use crate::id::{Grants, IdentityId, MeetingId};
use crate::protocol::client::{ClientMessage, MessageLimits};
use crate::protocol::user::User;
use crate::room::io::{Disconnection, Join, Liveness};

const NODE: NodeId = NodeId::new(0xa1b2_c3d4);
const SOCKET: ConnectionId = ConnectionId::new(NODE, 300);
const LINK: LinkId = LinkId { node: NODE, number: 2 };

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

fn join() -> Join {
    Join {
        connection: SOCKET,
        user: user("u-1"),
        identity: IdentityId::new("cookie:7"),
        name: "Ada é".into(),
        grants: Grants::everyone(),
        network: None,
        new_meeting: MeetingId::from_bytes([7; 16]),
        presence: true,
        liveness: Liveness::Connection,
        password: None,
    }
}

fn says(json: &str) -> RemoteCommand {
    let message = ClientMessage::parse(json, MessageLimits::default()).map_err(|error| error.to_string());
    RemoteCommand::Message { connection: SOCKET, message, bytes: u32::try_from(json.len()).unwrap() }
}

const REFUSALS: [JoinRefusal; 11] = [
    JoinRefusal::IdTaken,
    JoinRefusal::RoomFull,
    JoinRefusal::IdentityFull,
    JoinRefusal::NetworkFull,
    JoinRefusal::NotStarted,
    JoinRefusal::Banned,
    JoinRefusal::Locked,
    JoinRefusal::Waiting,
    JoinRefusal::PasswordNeeded,
    JoinRefusal::Ended,
    JoinRefusal::ShuttingDown,
];

/// Messages of every kind.
fn messages() -> Vec<PeerMessage> {
    let update = Some(Box::new(User::fresh("u-1", "Ada")));
    let refused =
        |(item, refusal): (u64, JoinRefusal)| (item, ItemFailure::Refused { connection: SOCKET, refusal });
    let mut answers: Vec<_> = (5..).zip(REFUSALS).map(refused).collect();
    answers.push((99, ItemFailure::Failed("no".to_owned())));
    vec![
        PeerMessage::Attach(Attach {
            link: LINK,
            epoch: 3,
            unanswered: 41,
            members: vec![
                AttachedMember { join: join(), update },
                AttachedMember { join: join(), update: None },
            ],
        }),
        PeerMessage::Up(Up {
            link: LINK,
            epoch: 3,
            unanswered: 41,
            first: 42,
            items: vec![
                says(r#"{"type":"chat","message":"hi"}"#),
                RemoteCommand::Disconnected(Disconnection { connection: SOCKET, is_page_left: true }),
            ],
        }),
        PeerMessage::Answer(Answer { link: LINK, epoch: 3, through: 99, answers }),
        PeerMessage::AttachAgain { link: LINK, epoch: 4 },
        PeerMessage::NotOwner { link: LINK },
        PeerMessage::Confirmed { epoch: 3, members: vec![(user("u-1"), 7), (user("u-2"), 300)] },
        PeerMessage::SnapshotWanted { epoch: 3 },
    ]
}

fn broadcasts() -> Vec<Broadcast> {
    let of = |content| Broadcast { epoch: 3, entry: 41, snapshot: 300, content };
    vec![
        of(Content::Snapshot(r#"{"type":"roomState"}"#.into())),
        of(Content::Transient("{}".into())),
        of(Content::Position),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn same(one: &impl Debug, other: &impl Debug) {
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}

/// Nodes of two releases talk to each other: what one wrote, the other reads. New bytes need another version.
#[test]
fn version_1_keeps_its_bytes() {
    let recorded: Vec<&str> = include_str!("version_1.hex").lines().collect();
    assert_eq!(recorded.len(), messages().len() + broadcasts().len());
    let (of_messages, of_broadcasts) = recorded.split_at(messages().len());
    for (message, recorded) in messages().iter().zip(of_messages) {
        assert_eq!(hex(&message.encode()), *recorded, "{message:?}");
        same(&PeerMessage::decode(&bytes(recorded)).unwrap(), message);
    }
    for (broadcast, recorded) in broadcasts().iter().zip(of_broadcasts) {
        assert_eq!(hex(&broadcast.encode()), *recorded, "{broadcast:?}");
        same(&Broadcast::decode(&bytes(recorded)).unwrap(), broadcast);
    }
}

#[test]
fn next_version_may_say_more() {
    let position = broadcasts().pop().unwrap();
    let mut next = position.encode();
    next[1] += 1;
    same(&Broadcast::decode(&next).unwrap(), &position);
    next.extend([1, 2, 3]);
    same(&Broadcast::decode(&next).unwrap(), &position);
    next[1] += 1;
    assert_eq!(Broadcast::decode(&next).unwrap_err(), CodecError::UnknownVersion, "not the one after it");
    let mut own = position.encode();
    own.push(0);
    assert_eq!(Broadcast::decode(&own).unwrap_err(), CodecError::Malformed);
}

#[test]
fn long_snapshot_is_compressed_and_bounded() {
    let of = |bytes: usize| Broadcast {
        epoch: 1,
        entry: 1,
        snapshot: 1,
        content: Content::Snapshot("x".repeat(bytes).into()),
    };
    let bytes = of(100_000).encode();
    assert!(bytes.len() < 1000, "{}", bytes.len());
    same(&Broadcast::decode(&bytes).unwrap(), &of(100_000));
    let bomb = of(MAX_MESSAGE_BYTES).encode();
    assert!(bomb.len() < 200_000);
    assert_eq!(Broadcast::decode(&bomb).unwrap_err(), CodecError::Malformed);
}

#[test]
fn foreign_messages_are_refused() {
    let refused = |bytes: &[u8]| PeerMessage::decode(bytes).unwrap_err();
    assert_eq!(refused(&[]), CodecError::UnknownVersion);
    assert_eq!(refused(&[PLAIN]), CodecError::UnknownVersion);
    assert_eq!(refused(&[7, VERSION]), CodecError::UnknownVersion);
    let gone = RemoteCommand::Disconnected(Disconnection { connection: SOCKET, is_page_left: false });
    let up = |count, first| {
        let items = vec![gone.clone(); count];
        PeerMessage::Up(Up { link: LINK, epoch: 1, unanswered: 1, first, items }).encode()
    };
    assert!(PeerMessage::decode(&up(MAX_ITEMS, 1)).is_ok());
    assert_eq!(refused(&up(MAX_ITEMS + 1, 1)), CodecError::Malformed, "too many items");
    assert_eq!(refused(&up(1, u64::MAX)), CodecError::Malformed, "numbers that do not exist");
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_read_or_refused(
        kind in 0..3_u8,
        version in 0..3_u8,
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = [&[kind, version][..], &rest].concat();
        let _ = PeerMessage::decode(&bytes);
        let _ = Broadcast::decode(&bytes);
    }

    /// A message with one byte changed is read or refused, and what is read can be written again.
    #[test]
    fn damaged_messages_are_read_or_refused(which in 0..7_usize, at in 0..1000_usize, byte: u8) {
        let mut bytes = messages().swap_remove(which).encode();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(message) = PeerMessage::decode(&bytes) {
            same(&PeerMessage::decode(&message.encode()).unwrap(), &message);
        }
    }
}
