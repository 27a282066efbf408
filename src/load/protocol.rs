//! The protocols in which members speak to the server, and the texts that they send.

use std::fmt::Write;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use uuid::Uuid;

use super::user::{SyntheticUser, UpdateStamp};

/// A member's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// That of Orange Meets, over a room's own socket.
    Orange,
    /// Phoenix Channels, version 2, with presence.
    Phoenix,
}

/// The protocols of a run's members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocols {
    /// That of Orange Meets.
    #[default]
    Orange,
    /// Phoenix Channels with presence.
    Phoenix,
    /// Phoenix Channels for every second member of a room, its watcher included, and Orange's for the others.
    Mixed,
}

impl Protocols {
    /// The protocol of a room's member number `place`; that of its watcher is 0.
    pub fn of(self, place: usize) -> Protocol {
        match self {
            Self::Orange => Protocol::Orange,
            Self::Mixed if place % 2 == 1 => Protocol::Orange,
            Self::Phoenix | Self::Mixed => Protocol::Phoenix,
        }
    }
}

impl Protocol {
    /// The stock clients' time between two heartbeats.
    pub fn heartbeat_period(self) -> Duration {
        Duration::from_secs(match self {
            Self::Orange => 5,
            Self::Phoenix => 30,
        })
    }
}

/// A member's side of its protocol: each function appends a message to `text`.
#[derive(Debug)]
pub struct Speaker {
    protocol: Protocol,
    room: String,
    /// Number of the last message; that of the join is 1.
    last_ref: u64,
}

impl Speaker {
    /// A member that has not said anything; the room's name is of letters, digits and `-`.
    pub fn new(protocol: Protocol, room: &str) -> Self {
        Self { protocol, room: room.to_owned(), last_ref: 0 }
    }

    /// Writes the join of a Phoenix channel. A socket of Orange is a member once it is open.
    pub fn join(&mut self, id: Uuid, text: &mut String) {
        self.push("phx_join", text, |text| write!(text, r#"{{"_pk":"{id}"}}"#));
    }

    /// Writes a heartbeat.
    pub fn heartbeat(&mut self, text: &mut String) {
        match self.protocol {
            Protocol::Orange => text.push_str(r#"{"type":"heartbeat"}"#),
            Protocol::Phoenix => {
                self.last_ref += 1;
                // Formatting into a String cannot fail.
                let _ = write!(text, r#"[null,"{}","phoenix","heartbeat",{{}}]"#, self.last_ref);
            }
        }
    }

    /// Writes the `userUpdate` with which the member says how it is now.
    pub fn update(&mut self, user: &SyntheticUser, stamp: UpdateStamp, text: &mut String) {
        match self.protocol {
            Protocol::Orange => user.write_update(stamp, text),
            Protocol::Phoenix => self.push("userUpdate", text, |text| {
                user.write_update(stamp, text);
                Ok(())
            }),
        }
    }

    /// Writes that the member leaves.
    pub fn leave(&mut self, text: &mut String) {
        match self.protocol {
            Protocol::Orange => text.push_str(r#"{"type":"userLeft"}"#),
            Protocol::Phoenix => self.push("phx_leave", text, |text| text.write_str("{}")),
        }
    }

    /// Writes a push to the room's topic, which the server answers by its number.
    fn push(
        &mut self,
        event: &str,
        text: &mut String,
        payload: impl FnOnce(&mut String) -> std::fmt::Result,
    ) {
        self.last_ref += 1;
        let Self { room, last_ref, .. } = self;
        // Formatting into a String cannot fail.
        let _ = write!(text, r#"["1","{last_ref}","room:{room}","{event}","#);
        let _ = payload(text);
        text.push(']');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn phoenix_messages_are_numbered_pushes() {
        let mut speaker = Speaker::new(Protocol::Phoenix, "load-1");
        let mut say = |write: &dyn Fn(&mut Speaker, &mut String)| -> Value {
            let mut text = String::new();
            write(&mut speaker, &mut text);
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
        };
        let user = SyntheticUser::random();
        assert_eq!(
            say(&|speaker, text| speaker.join(user.id, text)),
            json!(["1", "1", "room:load-1", "phx_join", {"_pk": user.id.to_string()}])
        );
        assert_eq!(
            say(&|speaker, text| speaker.heartbeat(text)),
            json!([null, "2", "phoenix", "heartbeat", {}])
        );
        let stamp = UpdateStamp { member: 4, update: 5, at: 6 };
        let update = say(&|speaker, text| speaker.update(&user, stamp, text));
        assert_eq!((&update[1], &update[3]), (&json!("3"), &json!("userUpdate")));
        assert_eq!(update[4]["user"]["t"], json!([4, 5, 6]));
        assert_eq!(
            say(&|speaker, text| speaker.leave(text)),
            json!(["1", "4", "room:load-1", "phx_leave", {}])
        );
    }

    #[test]
    fn mixed_rooms_have_half_of_each() {
        let phoenix =
            |protocols: Protocols| (0..10).filter(|place| protocols.of(*place) == Protocol::Phoenix).count();
        assert_eq!([Protocols::Orange, Protocols::Phoenix, Protocols::Mixed].map(phoenix), [0, 10, 5]);
        assert_eq!(Protocols::Mixed.of(0), Protocol::Phoenix, "the watcher sees presences");
    }
}
