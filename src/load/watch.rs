//! A room's watcher: finds the updates that a snapshot shows for the first time, and their age.

use std::collections::HashMap;

use serde::Deserialize;

use super::histogram::Histogram;
use super::user::UpdateStamp;

/// Measured updates as seen by all watchers.
#[derive(Clone, Debug, Default)]
pub struct Sightings {
    /// Microseconds from an update to its sight by another member, each update once.
    pub latencies: Histogram,
    /// Those of them whose two members are on different servers.
    pub across: Histogram,
    /// Updates that no snapshot showed, because their member's next one came before.
    pub overtaken: u64,
    /// Snapshots that came while it was measured.
    pub snapshots: u64,
    /// Their bytes on the wire.
    pub snapshot_bytes: u64,
}

impl Sightings {
    /// Number of updates that are accounted for.
    pub fn settled(&self) -> u64 {
        self.latencies.total() + self.overtaken
    }
}

/// The member of a room that reads its snapshots.
#[derive(Debug)]
pub struct Watcher {
    member: u32,
    last: HashMap<u32, u32>,
}

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchedMessage {
    /// A `roomState`.
    Snapshot,
    /// Anything else.
    Other,
}

/// A message is not what the protocol says.
#[derive(Debug, thiserror::Error)]
#[error("a message is not of the room protocol: {0}")]
pub struct NotOurs(#[from] serde_json::Error);

#[derive(Deserialize)]
struct TypedMessage {
    #[serde(default)]
    state: Option<WatchedState>,
}

#[derive(Deserialize)]
struct WatchedState {
    users: Vec<Shown>,
}

/// A user, of which everything but the stamp is skipped.
#[derive(Deserialize)]
struct Shown {
    // The same as `user::STAMP`, which a test holds.
    #[serde(default, rename = "t")]
    stamp: Option<UpdateStamp>,
}

impl Watcher {
    /// The member of this number begins to watch.
    pub fn new(member: u32) -> Self {
        Self { member, last: HashMap::new() }
    }

    /// Looks at a message that came at `now`, and enters into `found` what is new in it; `servers` has the server of
    /// each member, by number.
    ///
    /// # Errors
    /// [`NotOurs`] if it is no message of a room.
    pub fn see(
        &mut self,
        message: &[u8],
        now: u64,
        servers: &[usize],
        found: &mut Sightings,
    ) -> Result<WatchedMessage, NotOurs> {
        let Some(WatchedState { users }) = serde_json::from_slice::<TypedMessage>(message)?.state else {
            return Ok(WatchedMessage::Other);
        };
        for stamp in users.into_iter().filter_map(|user| user.stamp) {
            let UpdateStamp { member, update, at } = stamp;
            // Its own updates it has from itself; those of number 0 are not measured.
            if member == self.member || update == 0 {
                continue;
            }
            let last = self.last.entry(member).or_default();
            if update > *last {
                let latency = now.saturating_sub(at);
                found.latencies.record(latency);
                let server = |member: u32| servers.get(member as usize);
                if server(member) != server(self.member) {
                    found.across.record(latency);
                }
                found.overtaken += u64::from(update - *last - 1);
                *last = update;
            }
        }
        Ok(WatchedMessage::Snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::{STAMP, SyntheticUser};

    /// A snapshot with these stamps, as a server writes it.
    fn snapshot(stamps: &[(u32, u32, u64)]) -> String {
        let mut users = vec![r#"{"id":"x","name":"somebody else","tracks":{}}"#.to_owned()];
        for &(member, update, at) in stamps {
            let mut text = String::new();
            SyntheticUser::random().write_update(UpdateStamp { member, update, at }, &mut text);
            let message: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(message["user"][STAMP].is_array());
            users.push(message["user"].to_string());
        }
        format!(
            r#"{{"state":{{"meetingId":"m","users":[{}],"ai":{{}}}},"type":"roomState"}}"#,
            users.join(",")
        )
    }

    #[test]
    fn update_is_seen_once_or_overtaken() {
        let (mut watcher, mut found) = (Watcher::new(1), Sightings::default());
        let mut see = |text: &str, now| {
            let message = watcher.see(text.as_bytes(), now, &[0, 0, 0, 1], &mut found).unwrap();
            (message, found.latencies.total(), found.overtaken, found.latencies.most())
        };
        // The watcher's own, and one from before the measurement.
        assert_eq!(see(&snapshot(&[(1, 5, 10), (2, 0, 10)]), 50), (WatchedMessage::Snapshot, 0, 0, None));
        assert_eq!(
            see(&snapshot(&[(2, 1, 100), (3, 1, 60)]), 160),
            (WatchedMessage::Snapshot, 2, 0, Some(100))
        );
        // The same again, and then an old one.
        assert_eq!(
            see(&snapshot(&[(2, 1, 100), (3, 1, 60)]), 900),
            (WatchedMessage::Snapshot, 2, 0, Some(100))
        );
        assert_eq!(
            see(&snapshot(&[(2, 4, 800), (3, 1, 60)]), 1000),
            (WatchedMessage::Snapshot, 3, 2, Some(200))
        );
        assert_eq!(see(&snapshot(&[(2, 3, 700)]), 2000), (WatchedMessage::Snapshot, 3, 2, Some(200)));
        assert_eq!(see(r#"{"type":"userLeftNotification","id":"x"}"#, 2000).0, WatchedMessage::Other);
        assert_eq!(found.settled(), 5);
        // Of the three that were seen, that of member 3.
        assert_eq!((found.across.total(), found.across.most()), (1, Some(100)));
    }

    #[test]
    fn invalid_message_is_an_error() {
        let mut watcher = Watcher::new(1);
        for text in ["", "no", "[1]", r#"{"state":{"users":7}}"#] {
            assert!(watcher.see(text.as_bytes(), 0, &[], &mut Sightings::default()).is_err(), "{text}");
        }
    }
}
