//! The compact binary form of commands and events, for a room and a member on different nodes.
//!
//! One version byte, then postcard (<https://postcard.jamesmunns.com/wire-format>). The types here are the
//! format, and not those of the room: a change of those that would change bytes has to be made here as well, with
//! another version. A room in this process is reached without any of this.

mod error;
mod network;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::io::{Disconnection, Join, Liveness};
use crate::id::{ConnectionId, Grants, IdentityId, MeetingId, NodeId, SessionId, UserId};
use crate::protocol::ai::{AiMessage, AiWish, TrackReference};
use crate::protocol::client::{ClientMessage, HistoryEntry, JsonString};
use crate::protocol::moderation::ModerationRequest;
use crate::protocol::server::{ChatMessage, Event};

pub use error::CodecError;
use network::WireNetwork;

/// Version of the format, the first byte.
const VERSION: u8 = 4;

/// A command to a room on another node.
#[derive(Clone, Debug)]
pub enum RemoteCommand {
    /// A request to join.
    Join(Join),
    /// A client's message.
    Message {
        /// The socket.
        connection: ConnectionId,
        /// The message, or the defect of the text as a sentence.
        message: Result<ClientMessage, String>,
        /// Size of the text in bytes.
        bytes: u32,
    },
    /// A socket is gone.
    Disconnected(Disconnection),
    /// A member confirms nothing, or the memory for slow members is exhausted at its node.
    TooSlow {
        /// The member.
        user: UserId,
        /// Its socket, the last one if it is disconnected.
        connection: ConnectionId,
    },
}

impl RemoteCommand {
    /// Encodes the command.
    pub fn encode(&self) -> Vec<u8> {
        encode(&WireCommand::of(self))
    }

    /// Decodes a command.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        decode::<WireCommand>(bytes)?.read().ok_or(CodecError::Malformed)
    }
}

/// Encodes an event of a room.
pub fn encode_event(event: &Event) -> Vec<u8> {
    encode(&WireEvent::of(event))
}

/// Decodes an event of a room.
///
/// # Errors
/// [`CodecError`].
pub fn decode_event(bytes: &[u8]) -> Result<Event, CodecError> {
    decode::<WireEvent>(bytes)?.read().ok_or(CodecError::Malformed)
}

#[expect(
    clippy::expect_used,
    reason = "memory takes all bytes, and the wire types have no lengths that are unknown"
)]
fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).expect("plain data is encoded")
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    let Some((&VERSION, rest)) = bytes.split_first() else { return Err(CodecError::UnknownVersion) };
    match postcard::take_from_bytes(rest) {
        Ok((value, [])) => Ok(value),
        _ => Err(CodecError::Malformed),
    }
}

#[derive(Serialize, Deserialize)]
enum WireCommand<'a> {
    #[serde(borrow)]
    Join(WireJoin<'a>),
    Message {
        connection: WireConnection,
        bytes: u32,
        message: WireMessage<'a>,
    },
    Rejected {
        connection: WireConnection,
        bytes: u32,
        why: &'a str,
    },
    Disconnected {
        connection: WireConnection,
        is_page_left: bool,
    },
    TooSlow {
        user: &'a str,
        connection: WireConnection,
    },
}

#[derive(Serialize, Deserialize)]
struct WireConnection {
    node: u32,
    number: u64,
}

#[derive(Serialize, Deserialize)]
struct WireJoin<'a> {
    connection: WireConnection,
    user: &'a str,
    identity: &'a str,
    name: &'a str,
    /// The bits of `Grants`.
    grants: u16,
    network: Option<WireNetwork>,
    new_meeting: [u8; 16],
    presence: bool,
    liveness: WireLiveness,
    password: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
enum WireLiveness {
    Heartbeat,
    Connection,
}

#[derive(Serialize, Deserialize)]
enum WireMessage<'a> {
    /// As JSON, in which unknown fields stay as the client wrote them.
    #[serde(borrow)]
    UserUpdate(Cow<'a, str>),
    Heartbeat,
    UserLeft,
    DirectMessage {
        to: Option<&'a str>,
        message: &'a str,
    },
    Chat {
        message: &'a str,
    },
    MuteUser {
        id: Option<&'a str>,
    },

    E2eeMlsMessage {
        payload: &'a str,
    },
    CallsApiHistoryEntry {
        kind: &'a str,
        endpoint: &'a str,
        bytes: u64,
    },
    PartyserverPing,
    EnableAi {
        voice: Option<&'a str>,
        instructions: Option<&'a str>,
    },
    DisableAi,
    RequestAiControl {
        session: &'a str,
        track_name: &'a str,
    },
    RelinquishAiControl,
    /// As JSON, whose tags this format does not have.
    Moderate(String),
    /// As JSON.
    Activity(String),
}

#[derive(Serialize, Deserialize)]
enum WireEvent<'a> {
    Error {
        error: &'a str,
    },
    DirectMessage {
        from: &'a str,
        message: &'a str,
    },
    Chat {
        id: u64,
        from: &'a str,
        name: &'a str,
        message: &'a str,
        at: u64,
        /// As JSON.
        file: Option<Cow<'a, str>>,
    },
    MuteMic,
    E2eeMlsMessage {
        payload: &'a str,
    },
    UserLeftNotification {
        id: &'a str,
    },
    /// As JSON.
    Moderation(String),
    /// As JSON.
    Activity(String),
}

impl<'a> WireCommand<'a> {
    fn of(command: &'a RemoteCommand) -> Self {
        match command {
            RemoteCommand::Join(join) => Self::Join(WireJoin::of(join)),
            RemoteCommand::Message { connection, message: Ok(message), bytes } => Self::Message {
                connection: WireConnection::of(*connection),
                bytes: *bytes,
                message: WireMessage::of(message),
            },
            RemoteCommand::Message { connection, message: Err(why), bytes } => {
                Self::Rejected { connection: WireConnection::of(*connection), bytes: *bytes, why }
            }
            RemoteCommand::Disconnected(Disconnection { connection, is_page_left }) => Self::Disconnected {
                connection: WireConnection::of(*connection),
                is_page_left: *is_page_left,
            },
            RemoteCommand::TooSlow { user, connection } => {
                Self::TooSlow { user: user.as_str(), connection: WireConnection::of(*connection) }
            }
        }
    }

    fn read(self) -> Option<RemoteCommand> {
        Some(match self {
            Self::Join(join) => RemoteCommand::Join(join.read()?),
            Self::Message { connection, bytes, message } => {
                RemoteCommand::Message { connection: connection.read(), message: Ok(message.read()?), bytes }
            }
            Self::Rejected { connection, bytes, why } => {
                RemoteCommand::Message { connection: connection.read(), message: Err(why.to_owned()), bytes }
            }
            Self::Disconnected { connection, is_page_left } => {
                RemoteCommand::Disconnected(Disconnection { connection: connection.read(), is_page_left })
            }
            Self::TooSlow { user, connection } => {
                RemoteCommand::TooSlow { user: UserId::parse(user).ok()?, connection: connection.read() }
            }
        })
    }
}

impl WireConnection {
    fn of(connection: ConnectionId) -> Self {
        Self { node: connection.node().bits(), number: connection.number() }
    }

    fn read(self) -> ConnectionId {
        ConnectionId::new(NodeId::new(self.node), self.number)
    }
}

impl<'a> WireJoin<'a> {
    fn of(join: &'a Join) -> Self {
        let Join {
            connection,
            user,
            identity,
            name,
            grants,
            network,
            new_meeting,
            presence,
            liveness,
            password,
        } = join;
        Self {
            connection: WireConnection::of(*connection),
            user: user.as_str(),
            identity: identity.as_str(),
            name,
            grants: grants.bits(),
            network: network.map(WireNetwork::of),
            new_meeting: new_meeting.to_bytes(),
            presence: *presence,
            liveness: match liveness {
                Liveness::Heartbeat => WireLiveness::Heartbeat,
                Liveness::Connection => WireLiveness::Connection,
            },
            password: password.as_deref(),
        }
    }

    fn read(self) -> Option<Join> {
        Some(Join {
            connection: self.connection.read(),
            user: UserId::parse(self.user).ok()?,
            identity: IdentityId::new(self.identity),
            name: self.name.into(),
            grants: Grants::from_bits(self.grants),
            network: self.network.map(WireNetwork::read),
            new_meeting: MeetingId::from_bytes(self.new_meeting),
            presence: self.presence,
            liveness: match self.liveness {
                WireLiveness::Heartbeat => Liveness::Heartbeat,
                WireLiveness::Connection => Liveness::Connection,
            },
            password: self.password.map(Into::into),
        })
    }
}

impl<'a> WireMessage<'a> {
    fn of(message: &'a ClientMessage) -> Self {
        match message {
            ClientMessage::UserUpdate(user) => Self::UserUpdate(user.to_json().into()),
            ClientMessage::Heartbeat => Self::Heartbeat,
            ClientMessage::UserLeft => Self::UserLeft,
            ClientMessage::DirectMessage { to, message } => {
                Self::DirectMessage { to: to.as_ref().map(UserId::as_str), message: message.as_json() }
            }
            ClientMessage::Chat { message } => Self::Chat { message: message.as_json() },
            ClientMessage::Moderate(request) => {
                Self::Moderate(serde_json::to_string(request).unwrap_or_default())
            }
            ClientMessage::Activity(activity) => Self::Activity(activity.to_json()),
            ClientMessage::MuteUser { id } => Self::MuteUser { id: id.as_ref().map(UserId::as_str) },
            ClientMessage::E2eeMlsMessage { payload } => Self::E2eeMlsMessage { payload: payload.as_json() },
            ClientMessage::CallsApiHistoryEntry(HistoryEntry { kind, endpoint, bytes }) => {
                Self::CallsApiHistoryEntry { kind, endpoint, bytes: *bytes as u64 }
            }
            ClientMessage::PartyserverPing => Self::PartyserverPing,
            ClientMessage::Ai(AiMessage::Enable(AiWish { voice, instructions })) => {
                Self::EnableAi { voice: voice.as_deref(), instructions: instructions.as_deref() }
            }
            ClientMessage::Ai(AiMessage::Disable) => Self::DisableAi,
            ClientMessage::Ai(AiMessage::RequestControl(TrackReference { session, track_name })) => {
                Self::RequestAiControl { session: session.as_str(), track_name }
            }
            ClientMessage::Ai(AiMessage::RelinquishControl) => Self::RelinquishAiControl,
        }
    }

    fn read(self) -> Option<ClientMessage> {
        Some(match self {
            Self::UserUpdate(json) => ClientMessage::UserUpdate(Box::new(serde_json::from_str(&json).ok()?)),
            Self::Heartbeat => ClientMessage::Heartbeat,
            Self::UserLeft => ClientMessage::UserLeft,
            Self::DirectMessage { to, message } => {
                ClientMessage::DirectMessage { to: read_user(to)?, message: JsonString::parse(message)? }
            }
            Self::Chat { message } => ClientMessage::Chat { message: JsonString::parse(message)? },
            Self::MuteUser { id } => ClientMessage::MuteUser { id: read_user(id)? },
            Self::Moderate(json) => ClientMessage::Moderate(Box::new(ModerationRequest::parse(&json)?)),
            Self::Activity(json) => ClientMessage::Activity(serde_json::from_str(&json).ok()?),
            Self::E2eeMlsMessage { payload } => {
                ClientMessage::E2eeMlsMessage { payload: JsonString::parse(payload)? }
            }
            Self::CallsApiHistoryEntry { kind, endpoint, bytes } => {
                ClientMessage::CallsApiHistoryEntry(HistoryEntry {
                    kind: kind.to_owned(),
                    endpoint: endpoint.to_owned(),
                    bytes: usize::try_from(bytes).ok()?,
                })
            }
            Self::PartyserverPing => ClientMessage::PartyserverPing,
            Self::EnableAi { voice, instructions } => ClientMessage::Ai(AiMessage::Enable(AiWish {
                voice: voice.map(Into::into),
                instructions: instructions.map(Into::into),
            })),
            Self::DisableAi => ClientMessage::Ai(AiMessage::Disable),
            Self::RequestAiControl { session, track_name } => {
                ClientMessage::Ai(AiMessage::RequestControl(TrackReference {
                    session: SessionId::parse(session).ok()?,
                    track_name: track_name.into(),
                }))
            }
            Self::RelinquishAiControl => ClientMessage::Ai(AiMessage::RelinquishControl),
        })
    }
}

impl<'a> WireEvent<'a> {
    fn of(event: &'a Event) -> Self {
        match event {
            Event::Error { error } => Self::Error { error },
            Event::DirectMessage { from, message } => {
                Self::DirectMessage { from, message: message.as_json() }
            }
            Event::Chat(ChatMessage { id, from, name, message, at, file }) => Self::Chat {
                id: *id,
                from: from.as_str(),
                name,
                message: message.as_json(),
                at: *at,
                file: file.as_ref().and_then(|file| serde_json::to_string(file).ok()).map(Cow::Owned),
            },
            Event::MuteMic => Self::MuteMic,
            Event::E2eeMlsMessage { payload } => Self::E2eeMlsMessage { payload: payload.as_json() },
            Event::UserLeftNotification { id } => Self::UserLeftNotification { id: id.as_str() },
            Event::Moderation(notice) => Self::Moderation(notice.to_json()),
            Event::Activity(notice) => Self::Activity(notice.to_json()),
        }
    }

    fn read(self) -> Option<Event> {
        Some(match self {
            Self::Error { error } => Event::Error { error: error.to_owned() },
            Self::DirectMessage { from, message } => {
                Event::DirectMessage { from: from.into(), message: JsonString::parse(message)? }
            }
            Self::Chat { id, from, name, message, at, file } => Event::Chat(ChatMessage {
                id,
                from: UserId::author(from).ok()?,
                name: name.into(),
                message: JsonString::parse(message)?,
                at,
                file: match file {
                    None => None,
                    Some(json) => Some(serde_json::from_str(&json).ok()?),
                },
            }),
            Self::MuteMic => Event::MuteMic,
            Self::E2eeMlsMessage { payload } => {
                Event::E2eeMlsMessage { payload: JsonString::parse(payload)? }
            }
            Self::UserLeftNotification { id } => Event::UserLeftNotification { id: UserId::parse(id).ok()? },
            Self::Moderation(json) => Event::Moderation(Box::new(serde_json::from_str(&json).ok()?)),
            Self::Activity(json) => Event::Activity(Box::new(serde_json::from_str(&json).ok()?)),
        })
    }
}

/// Reads an id that may be absent; `None` if it is there and invalid.
fn read_user(id: Option<&str>) -> Option<Option<UserId>> {
    match id {
        None => Some(None),
        Some(id) => UserId::parse(id).ok().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::*;
    use crate::network::client_network;
    use crate::protocol::client::MessageLimits;

    const ID: ConnectionId = ConnectionId::new(NodeId::new(0xa1b2_c3d4), 300);

    fn text(json: &str) -> JsonString {
        JsonString::parse(json).unwrap()
    }

    fn join(network: Option<&str>) -> Join {
        Join {
            connection: ID,
            user: UserId::parse("u-1").unwrap(),
            identity: IdentityId::new("cookie:7"),
            name: "Ada é".into(),
            grants: Grants::everyone(),
            network: network.map(|address| client_network(address.parse().unwrap())),
            new_meeting: MeetingId::parse("6b1f4a2e-6c5c-4a0e-9d0e-3f1f6c1d2e3f").unwrap(),
            presence: false,
            liveness: Liveness::Heartbeat,
            password: network.map(Into::into),
        }
    }

    fn says(json: &str) -> RemoteCommand {
        let message = ClientMessage::parse(json, MessageLimits::default()).map_err(|error| error.to_string());
        RemoteCommand::Message { connection: ID, message, bytes: u32::try_from(json.len()).unwrap() }
    }

    /// Commands of every kind.
    fn commands() -> Vec<RemoteCommand> {
        let mut commands: Vec<_> =
            [None, Some("192.0.2.1"), Some("2001:db8:0:1::5"), Some("64:ff9b:0:0:1::")]
                .map(|network| RemoteCommand::Join(join(network)))
                .into();
        commands.push(RemoteCommand::Join(Join {
            presence: true,
            liveness: Liveness::Connection,
            ..join(None)
        }));
        commands.extend(
            [
                r#"{"type":"userUpdate","user":{"joined":true,"x":[1, 2]}}"#,
                r#"{"type":"heartbeat"}"#,
                r#"{"type":"userLeft"}"#,
                r#"{"type":"directMessage","to":"b","message":"hi \ud83c"}"#,
                r#"{"type":"directMessage","to":"?","message":""}"#,
                r#"{"type":"chat","message":"hi"}"#,
                r#"{"type":"muteUser","id":"b"}"#,
                r#"{"type":"e2eeMlsMessage","payload":"{\"a\":1}"}"#,
                r#"{"type":"callsApiHistoryEntry","entry":{"type":"request","endpoint":"/sessions/new"}}"#,
                r#"{"type":"partyserver-ping"}"#,
                r#"{"type":"enableAi","voice":"alloy"}"#,
                r#"{"type":"disableAi"}"#,
                r#"{"type":"requestAiControl","track":{"sessionId":"s","trackName":"t"}}"#,
                r#"{"type":"relenquishAiControl"}"#,
                "no JSON",
            ]
            .map(says),
        );
        commands.push(RemoteCommand::Disconnected(Disconnection { connection: ID, is_page_left: true }));
        commands.push(RemoteCommand::TooSlow { user: UserId::parse("u-1").unwrap(), connection: ID });
        commands
    }

    /// Events of every kind.
    fn events() -> Vec<Event> {
        let from = UserId::parse("b-1").unwrap();
        vec![
            Event::Error { error: "no \"type\"".into() },
            Event::DirectMessage { from: "Ada".into(), message: text(r#""hi \ud83c""#) },
            Event::Chat(ChatMessage {
                id: 1_700_000_000_000,
                from: from.clone(),
                name: "B".into(),
                message: text(r#""hi""#),
                at: 7,
                file: None,
            }),
            Event::MuteMic,
            Event::E2eeMlsMessage { payload: text(r#""x""#) },
            Event::UserLeftNotification { id: from },
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
    fn version_4_keeps_its_bytes() {
        let recorded: Vec<&str> = include_str!("codec/version_4.hex").lines().collect();
        let (of_commands, of_events) = recorded.split_at(commands().len());
        for (command, recorded) in commands().iter().zip(of_commands) {
            assert_eq!(hex(&command.encode()), *recorded, "{command:?}");
            same(&RemoteCommand::decode(&bytes(recorded)).unwrap(), command);
        }
        for (event, recorded) in events().iter().zip(of_events) {
            assert_eq!(hex(&encode_event(event)), *recorded, "{event:?}");
            same(&decode_event(&bytes(recorded)).unwrap(), event);
        }
        assert_eq!(of_events.len(), events().len());
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let good =
            RemoteCommand::Disconnected(Disconnection { connection: ID, is_page_left: false }).encode();
        let refused = |bytes: &[u8]| RemoteCommand::decode(bytes).unwrap_err();
        assert_eq!(refused(&[]), CodecError::UnknownVersion);
        assert_eq!(refused(&[&[1], &good[1..]].concat()), CodecError::UnknownVersion);
        assert_eq!(refused(&good[..good.len() - 1]), CodecError::Malformed);
        assert_eq!(refused(&[&good[..], &[0]].concat()), CodecError::Malformed);
        let no_id = encode(&WireEvent::UserLeftNotification { id: "ai" });
        assert_eq!(decode_event(&no_id).unwrap_err(), CodecError::Malformed);
        let no_string = encode(&WireEvent::E2eeMlsMessage { payload: "{}" });
        assert_eq!(decode_event(&no_string).unwrap_err(), CodecError::Malformed);
    }

    fn client_text() -> impl Strategy<Value = String> {
        let value = any::<String>().prop_map(|text| serde_json::Value::from(text).to_string());
        let kinds = prop::sample::select(vec![
            ("directMessage", "message"),
            ("chat", "message"),
            ("e2eeMlsMessage", "payload"),
            ("enableAi", "instructions"),
            ("callsApiHistoryEntry", "entry"),
        ]);
        let user = (any::<bool>(), value.clone()).prop_map(|(joined, other)| {
            format!(r#"{{"type":"userUpdate","user":{{"joined":{joined},"other":[{other}],{other}:1}}}}"#)
        });
        let others = (kinds, value)
            .prop_map(|((kind, field), value)| format!(r#"{{"type":"{kind}","to":"u","{field}":{value}}}"#));
        prop_oneof![1 => user, 3 => others]
    }

    proptest! {
        #[test]
        fn commands_and_events_survive_a_round_trip(
            text in client_text(),
            (node, number, at) in any::<(u32, u64, u64)>(),
            (name, network) in any::<(String, Option<std::net::IpAddr>)>(),
            is_page_left in any::<bool>(),
        ) {
            let connection = ConnectionId::new(NodeId::new(node), number);
            let network = network.map(client_network);
            let said = says(&text);
            let commands = [
                RemoteCommand::Join(Join { connection, name: name.as_str().into(), network, ..join(None) }),
                RemoteCommand::Disconnected(Disconnection { connection, is_page_left }),
                said.clone(),
            ];
            for command in commands {
                same(&RemoteCommand::decode(&command.encode()).unwrap(), &command);
            }
            let RemoteCommand::Message { message, .. } = said else { unreachable!() };
            let event = match message {
                Ok(ClientMessage::Chat { message }) => Event::Chat(ChatMessage {
                    id: number, from: UserId::parse("u").unwrap(), name: name.into(), message, at,
                    file: None,
                }),
                Ok(ClientMessage::DirectMessage { message, .. }) => Event::DirectMessage { from: name.into(), message },
                Ok(ClientMessage::E2eeMlsMessage { payload }) => Event::E2eeMlsMessage { payload },
                _ => Event::Error { error: name },
            };
            same(&decode_event(&encode_event(&event)).unwrap(), &event);
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            bytes.insert(0, VERSION);
            let _ = RemoteCommand::decode(&bytes);
            let _ = decode_event(&bytes);
        }
    }
}
