//! A client: it joins, says things, confirms what it gets, and comes back.

use satsuma::id::{ConnectionId, Grants, IdentityId, MeetingId, UserId};
use satsuma::protocol::client::{ClientMessage, MessageLimits};
use satsuma::room::codec::RemoteCommand;
use satsuma::room::io::{Join, Liveness};
use satsuma::room::outbox::OutboxReader;

use crate::random::Random;

/// The socket of a client.
pub struct Socket {
    pub connection: ConnectionId,
    /// The index of its node, and the node's life.
    pub node: (usize, u64),
    /// Present once its join is admitted.
    pub reader: Option<OutboxReader>,
    /// True if it may be told of events by a member that it was before.
    pub opened_at: u64,
}

/// A person, who comes back as the same member until it leaves.
pub struct Client {
    pub number: usize,
    pub life: u64,
    pub socket: Option<Socket>,
    /// Time at which it connects, while it has no socket.
    pub connects_at: u64,
    /// The events that it was told in this life, in order.
    pub told: Vec<String>,
    pub snapshot: String,
    /// The node, and its life, at which it was when that was alone.
    pub left_alone: Option<(usize, u64)>,
    said: u64,
    pub next_heartbeat: u64,
}

/// Something that was said, to be found in the journal.
pub struct Said {
    pub connection: ConnectionId,
    pub text: String,
    pub at: u64,
    /// True if it is certain to become an event, if it arrives.
    pub is_event: bool,
}

impl Client {
    pub fn new(number: usize) -> Self {
        let connects_at = 1000 * number as u64;
        Self {
            number,
            life: 0,
            socket: None,
            connects_at,
            told: Vec::new(),
            snapshot: String::new(),
            left_alone: None,
            said: 0,
            next_heartbeat: 0,
        }
    }

    pub fn user(&self) -> UserId {
        UserId::parse(&format!("u{}-{}", self.number, self.life)).unwrap()
    }

    pub fn connection(&self) -> Option<ConnectionId> {
        self.socket.as_ref().map(|socket| socket.connection)
    }

    pub fn is_open(&self) -> bool {
        self.socket.as_ref().is_some_and(|socket| socket.reader.is_some())
    }

    /// Begins as another member.
    pub fn begin_anew(&mut self) {
        self.life += 1;
        self.told.clear();
        self.snapshot.clear();
    }

    pub fn join(&self, connection: ConnectionId, random: &mut Random) -> Join {
        Join {
            connection,
            user: self.user(),
            identity: IdentityId::new(format!("cookie:{}", self.number)),
            name: format!("Client {}", self.number).into(),
            grants: Grants::everyone(),
            network: None,
            new_meeting: MeetingId::from_bytes(
                (u128::from(random.next()) << 64 | u128::from(random.next())).to_be_bytes(),
            ),
            presence: false,
            liveness: Liveness::Heartbeat,
            password: None,
        }
    }

    /// Says something. Returns the message, and the text to look for.
    pub fn say(&mut self, others: &[UserId], random: &mut Random) -> (String, Option<(String, bool)>) {
        self.said += 1;
        let text = format!("{}.{}.{}", self.number, self.life, self.said);
        match random.within(0, 100) {
            0..40 => (format!(r#"{{"type":"chat","message":"{text}"}}"#), Some((text, true))),
            40..55 => (format!(r#"{{"type":"e2eeMlsMessage","payload":"{text}"}}"#), Some((text, true))),
            55..65 => {
                let to = random.pick(others).map_or("nobody", UserId::as_str);
                (format!(r#"{{"type":"directMessage","to":"{to}","message":"{text}"}}"#), Some((text, false)))
            }
            65..97 => {
                let hand = random.chance(500);
                let user = format!(
                    r#"{{"id":"x","name":"x","joined":true,"raisedHand":{hand},"speaking":false,"tracks":{{"audioEnabled":true,"audioUnavailable":false,"videoEnabled":true,"screenShareEnabled":false}}}}"#
                );
                (format!(r#"{{"type":"userUpdate","user":{user}}}"#), None)
            }
            _ => (r#"{"type":"muteUser","id":"u0-0"}"#.to_owned(), None),
        }
    }
}

/// The command of a text.
pub fn command(connection: ConnectionId, text: &str) -> RemoteCommand {
    let message = ClientMessage::parse(text, MessageLimits::default())
        .unwrap_or_else(|error| panic!("{error}: {text}"));
    RemoteCommand::Message { connection, message: Ok(message), bytes: text.len() as u32 }
}
