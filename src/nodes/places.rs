//! The places of a room's members in the directory of media, on the node that has the room's media.
//!
//! Only the owner of a room knows its members with their rights, and only the node of the media can hold anything back.
//! So the owner tells that node all places whenever one changed, and once in a while, so that a message
//! that was lost does no lasting harm.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::id::{IdentityId, MeetingId, RoomName, SessionId, UserId};
use crate::media_access::{MediaAccess, MediaPlace, MediaRights, RoomAccess, ScreenTrack};
use crate::media_api::passing;

/// Version of the format.
const VERSION: u8 = 1;

/// Maximum size in bytes of a message, not compressed.
const MAX_BYTES: usize = 16 << 20;

/// Time without news of a room after which its places are forgotten, in ticks of the room.
const TICKS: u32 = 4;

/// Longest tick that is believed.
const LONGEST_TICK: Duration = Duration::from_secs(60 * 60);

/// The places of all members of a room.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RoomPlaces {
    /// The owner that tells them, and the number of its message.
    pub(super) epoch: u64,
    pub(super) number: u64,
    /// The meeting.
    pub(super) meeting: MeetingId,
    /// The time between two messages at most.
    pub(super) tick: Duration,
    /// The members.
    pub(super) members: Vec<(UserId, IdentityId, MediaPlace)>,
    /// The session of the room's agent, if it has one.
    pub(super) agent: Option<SessionId>,
}

#[derive(Deserialize, Serialize)]
struct WirePlaces {
    v: u8,
    epoch: u64,
    number: u64,
    meeting: MeetingId,
    tick_millis: u64,
    members: Vec<WireMember>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    agent: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct WireMember {
    user: UserId,
    identity: IdentityId,
    /// Subscribe, audio, video, screen.
    rights: [bool; 4],
    sessions: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    screens: Vec<(String, String, bool)>,
}

impl RoomPlaces {
    /// Encodes the message.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { epoch, number, meeting, tick, members, agent } = self;
        let member = |(user, identity, place): &(UserId, IdentityId, MediaPlace)| {
            let MediaRights { subscribe, audio, video, screen } = place.rights;
            let screen_of = |(session, track): &(SessionId, ScreenTrack)| {
                (session.to_string(), track.name.clone(), track.is_camera)
            };
            WireMember {
                user: user.clone(),
                identity: identity.clone(),
                rights: [subscribe, audio, video, screen],
                sessions: place.sessions.iter().map(ToString::to_string).collect(),
                screens: place.screens.iter().map(screen_of).collect(),
            }
        };
        let wire = WirePlaces {
            v: VERSION,
            epoch: *epoch,
            number: *number,
            meeting: *meeting,
            tick_millis: u64::try_from(tick.as_millis()).unwrap_or(u64::MAX),
            members: members.iter().map(member).collect(),
            agent: agent.as_ref().map(ToString::to_string),
        };
        passing::pack(&wire, b"")
    }

    /// Decodes a message.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let wire: WirePlaces = passing::unpack_head(bytes, MAX_BYTES)?;
        let WirePlaces { v, epoch, number, meeting, tick_millis, members, agent } = wire;
        if v != VERSION {
            return None;
        }
        let session = |id: &String| SessionId::parse(id).ok();
        let member = |member: WireMember| {
            let [subscribe, audio, video, screen] = member.rights;
            let screen_of = |(id, name, is_camera): (String, String, bool)| {
                Some((session(&id)?, ScreenTrack { name, is_camera }))
            };
            let place = MediaPlace {
                rights: MediaRights { subscribe, audio, video, screen },
                sessions: member.sessions.iter().filter_map(session).collect(),
                screens: member.screens.into_iter().filter_map(screen_of).collect(),
            };
            (member.user, member.identity, place)
        };
        let tick = Duration::from_millis(tick_millis);
        let (members, agent) = (members.into_iter().map(member).collect(), agent.as_ref().and_then(session));
        Some(Self { epoch, number, meeting, tick, members, agent })
    }
}

/// The rooms whose places this node was told.
#[derive(Debug, Default)]
pub(super) struct PlacedRooms {
    rooms: HashMap<RoomName, PlacedRoom>,
}

#[derive(Debug)]
struct PlacedRoom {
    access: RoomAccess,
    members: HashMap<UserId, (IdentityId, MediaPlace)>,
    meeting: MeetingId,
    newest: (u64, u64),
    forgotten_at: Instant,
}

impl PlacedRooms {
    /// Takes the places of a room, unless newer ones were told before.
    pub(super) fn take(&mut self, now: Instant, directory: &MediaAccess, room: &RoomName, told: RoomPlaces) {
        let RoomPlaces { epoch, number, meeting, tick, members, agent } = told;
        let placed = self.rooms.entry(room.clone()).or_insert_with(|| PlacedRoom {
            access: directory.room(),
            members: HashMap::new(),
            meeting,
            newest: (0, 0),
            forgotten_at: now,
        });
        if placed.meeting == meeting && (epoch, number) < placed.newest {
            return;
        }
        (placed.meeting, placed.newest) = (meeting, (epoch, number));
        placed.forgotten_at = now + tick.min(LONGEST_TICK) * TICKS;
        let mut before = std::mem::take(&mut placed.members);
        for (user, identity, place) in members {
            let new = (identity, place);
            if before.remove(&user).as_ref() != Some(&new) {
                placed.access.set(&user, &new.0, new.1.clone());
            }
            placed.members.insert(user, new);
        }
        before.keys().for_each(|gone| placed.access.leave(now, gone));
        placed.access.set_agent(agent.as_ref());
    }

    /// Forgets rooms whose owners are silent: they ended, or another node has their media.
    pub(super) fn prune(&mut self, now: Instant) {
        self.rooms.retain(|_, room| room.forgotten_at > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;

    fn session(id: &str) -> SessionId {
        SessionId::parse(id).unwrap()
    }

    fn places(epoch: u64, number: u64, names: &[&str]) -> RoomPlaces {
        let member = |name: &&str| {
            let place = MediaPlace {
                rights: MediaRights { screen: false, ..MediaRights::ALL },
                sessions: vec![session(name)],
                screens: vec![(session(name), ScreenTrack { name: "s".to_owned(), is_camera: true })],
            };
            (UserId::parse(name).unwrap(), IdentityId::new(format!("cookie:{name}")), place)
        };
        RoomPlaces {
            epoch,
            number,
            meeting: MeetingId::from_bytes([7; 16]),
            tick: Duration::from_secs(15),
            members: names.iter().map(member).collect(),
            agent: Some(session("agent")),
        }
    }

    #[test]
    fn places_survive_encoding() {
        let told = places(3, 4, &["ada", "bob"]);
        assert_eq!(RoomPlaces::decode(&told.encode()), Some(told));
        assert_eq!(RoomPlaces::decode(b""), None);
        assert_eq!(RoomPlaces::decode(b"\0{}\n"), None);
    }

    #[test]
    fn newest_places_count_until_their_owner_is_silent() {
        let (directory, mut rooms) = (MediaAccess::new(true), PlacedRooms::default());
        let (room, start) = (RoomName::parse("r").unwrap(), now().into_std());
        let may = |by: &str, of: &str| {
            directory.may_subscribe(&IdentityId::new(format!("cookie:{by}")), &session(of))
        };
        rooms.take(start, &directory, &room, places(1, 2, &["ada", "bob"]));
        assert!(may("ada", "bob") && may("bob", "agent") && !may("eve", "bob"));
        rooms.take(start, &directory, &room, places(1, 1, &["ada", "bob", "eve"]));
        assert!(!may("eve", "bob"), "it is older");
        rooms.take(start, &directory, &room, places(2, 1, &["ada"]));
        assert!(!may("ada", "bob") && !may("bob", "ada"), "he left");
        let another = RoomPlaces { meeting: MeetingId::from_bytes([8; 16]), ..places(1, 1, &["ada", "bob"]) };
        rooms.take(start, &directory, &room, another);
        assert!(may("ada", "bob"), "another meeting");
        rooms.prune(start + Duration::from_secs(59));
        assert!(may("ada", "bob"));
        rooms.prune(start + Duration::from_secs(61));
        assert!(!may("ada", "bob") && !may("ada", "agent"));
    }
}
