//! A member's received messages: a watcher reads them, others count them by their heads.

use super::deflate::{Context, Inflater};
use super::frames::{Encoding, Frames, Payloads};
use super::member::{Role, WatchedRoom};
use super::phoenix::{self, HEAD_BYTES, MessageKind};
use super::presence::Presences;
use super::protocol::Protocol;
use super::watch::{WatchedMessage, Watcher};
use super::world::RunCounts;

/// A member's reading of messages.
#[derive(Debug)]
pub struct Inbox {
    protocol: Protocol,
    watching: Option<Box<Watching>>,
}

/// A watcher's reading state.
#[derive(Debug)]
struct Watching {
    watcher: Watcher,
    inflater: Inflater,
}

/// A message's arrival.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its bytes on the wire.
    pub wire_bytes: u64,
    /// Its time, by the tool's clock.
    pub at: u64,
    /// True if messages are being counted.
    pub is_measured: bool,
}

/// The consequence of a message for the membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The member is still in its room.
    Member,
    /// The server ended its channel.
    ChannelClosed,
}

impl Inbox {
    /// The inbox of member number `number`, whose connection is compressed with `context`.
    pub fn new(protocol: Protocol, role: Role, number: u32, context: Context) -> Self {
        let watching = (role == Role::Watcher)
            .then(|| Box::new(Watching { watcher: Watcher::new(number), inflater: Inflater::new(context) }));
        Self { protocol, watching }
    }

    /// True if it reads every message.
    pub fn is_watching(&self) -> bool {
        self.watching.is_some()
    }

    /// True if it reads presences.
    pub fn has_presences(&self) -> bool {
        self.is_watching() && self.protocol == Protocol::Phoenix
    }

    /// The handling of payloads that it needs.
    pub fn payloads(&self) -> Payloads {
        match (&self.watching, self.protocol) {
            (Some(_), _) => Payloads::Kept,
            (None, Protocol::Orange) => Payloads::Skipped,
            (None, Protocol::Phoenix) => Payloads::Heads(HEAD_BYTES),
        }
    }

    /// Takes the message that has just ended in `frames`; `servers` has the server of each member, by number.
    ///
    /// # Errors
    /// Sentences: the message is malformed, or says that the room failed.
    pub fn take(
        &mut self,
        frames: &Frames,
        arrival: Arrival,
        room: &WatchedRoom,
        servers: &[usize],
        counts: &mut RunCounts,
    ) -> Result<Standing, String> {
        let (payload, encoding) = frames.message();
        let (watcher, inflater) = match self.watching.as_deref_mut() {
            Some(Watching { watcher, inflater }) => (Some(watcher), Some(inflater)),
            None => (None, None),
        };
        let message = match (encoding, inflater) {
            (Encoding::Plain, _) => payload,
            (Encoding::Deflate, Some(inflater)) => {
                inflater.inflate(payload).map_err(|error| error.to_string())?
            }
            (Encoding::Deflate, None) => return Ok(Standing::Member),
        };
        match self.protocol {
            Protocol::Orange => {
                if let Some(watcher) = watcher {
                    see(watcher, message, arrival, servers, counts)?;
                }
                Ok(Standing::Member)
            }
            Protocol::Phoenix => take_of_channel(watcher, message, arrival, room, servers, counts),
        }
    }
}

fn take_of_channel(
    watcher: Option<&mut Watcher>,
    message: &[u8],
    arrival: Arrival,
    room: &WatchedRoom,
    servers: &[usize],
    counts: &mut RunCounts,
) -> Result<Standing, String> {
    let head = &message[..message.len().min(HEAD_BYTES)];
    let kind = MessageKind::of(head);
    counts.channels.count(kind, head, arrival);
    match kind {
        MessageKind::ChannelClosed => return Ok(Standing::ChannelClosed),
        MessageKind::ChannelFailed => return Err("the channel failed".to_owned()),
        MessageKind::Reply | MessageKind::Refusal => return Ok(Standing::Member),
        MessageKind::PresenceState | MessageKind::PresenceDiff | MessageKind::Room => {}
    }
    let Some(watcher) = watcher else { return Ok(Standing::Member) };
    let malformed = |error: serde_json::Error| format!("a message is not of Phoenix Channels: {error}");
    let payload = phoenix::payload(message).map_err(malformed)?.get();
    let mut presences = room.presences.borrow_mut();
    let presences = presences.get_or_insert_with(Presences::default);
    match kind {
        MessageKind::PresenceState => presences.set(payload).map_err(malformed)?,
        MessageKind::PresenceDiff => presences.change(payload).map_err(malformed)?,
        _ => {
            if see(watcher, payload.as_bytes(), arrival, servers, counts)? == WatchedMessage::Snapshot {
                presences.set_snapshot(payload);
            }
        }
    }
    Ok(Standing::Member)
}

/// Looks at a message of the room.
fn see(
    watcher: &mut Watcher,
    message: &[u8],
    arrival: Arrival,
    servers: &[usize],
    counts: &mut RunCounts,
) -> Result<WatchedMessage, String> {
    let sightings = &mut counts.sightings;
    let seen = watcher.see(message, arrival.at, servers, sightings).map_err(|error| error.to_string())?;
    if arrival.is_measured && seen == WatchedMessage::Snapshot {
        sightings.snapshots += 1;
        sightings.snapshot_bytes += arrival.wire_bytes;
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::member::Watch;

    fn room() -> WatchedRoom {
        WatchedRoom { name: "r".into(), watch: Cell::new(Watch::On), presences: RefCell::default() }
    }

    /// Gives an inbox a server's message of less than 64 KiB.
    fn give(
        inbox: &mut Inbox,
        room: &WatchedRoom,
        counts: &mut RunCounts,
        text: &str,
    ) -> Result<Standing, String> {
        let mut frames = Frames::new(inbox.payloads(), Encoding::Plain);
        let mut bytes = vec![0x81, 126];
        bytes.extend((text.len() as u16).to_be_bytes());
        bytes.extend(text.as_bytes());
        frames.next(&mut &bytes[..]).unwrap().unwrap();
        let arrival = Arrival { wire_bytes: bytes.len() as u64, at: 900, is_measured: true };
        inbox.take(&frames, arrival, room, &[], counts)
    }

    #[test]
    fn watcher_reads_snapshots_and_presences() {
        let (room, mut counts) = (room(), RunCounts::default());
        let mut inbox = Inbox::new(Protocol::Phoenix, Role::Watcher, 1, Context::None);
        let mut give = |text: &str| give(&mut inbox, &room, &mut counts, text).unwrap();
        give(r#"["1",null,"room:r","presence_state",{"a":{"metas":[{"phx_ref":"1","t":[2,1,100]}]}}]"#);
        give(r#"[null,null,"room:r","chat",{"type":"chat","message":"hi"}]"#);
        give(
            r#"[null,null,"room:r","roomState",{"type":"roomState","state":{"users":[{"id":"a","t":[2,1,100]}]}}]"#,
        );
        assert!(room.presences.borrow().as_ref().unwrap().agree());
        give(
            r#"[null,null,"room:r","presence_diff",{"joins":{},"leaves":{"a":{"metas":[{"phx_ref":"1"}]}}}]"#,
        );
        assert!(!room.presences.borrow().as_ref().unwrap().agree());
        let channels = &counts.channels;
        assert_eq!((channels.presence_states, channels.presence_diffs), (1, 1));
        assert_eq!((counts.sightings.snapshots, counts.sightings.latencies.most()), (1, Some(800)));
    }

    #[test]
    fn others_count_by_the_head() {
        let (room, mut counts) = (room(), RunCounts::default());
        let mut inbox = Inbox::new(Protocol::Phoenix, Role::Other, 1, Context::None);
        let mut give = |text: &str| give(&mut inbox, &room, &mut counts, text);
        let state = format!(r#"["1",null,"room:r","presence_state",{{"a":"{}"}}]"#, "x".repeat(10_000));
        assert_eq!(give(&state), Ok(Standing::Member));
        assert_eq!(
            give(r#"["1","2","room:r","phx_reply",{"response":{},"status":"ok"}]"#),
            Ok(Standing::Member)
        );
        let refused = r#"["1","3","room:r","phx_reply",{"response":{"reason":"no"},"status":"error"}]"#;
        assert_eq!(give(refused), Ok(Standing::Member));
        assert_eq!(give(r#"["1","1","room:r","phx_close",{}]"#), Ok(Standing::ChannelClosed));
        assert!(give(r#"["1","1","room:r","phx_error",{}]"#).is_err());
        let channels = &counts.channels;
        assert_eq!((channels.replies, channels.refused, channels.presence_states), (1, 1, 1));
        assert_eq!(channels.first_refusal.as_deref(), Some(refused));
        assert!(channels.presence_bytes > 10_000 && room.presences.borrow().is_none());
    }
}
