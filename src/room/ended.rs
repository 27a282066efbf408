//! Those whose meeting was ended for all: their clients try to come back by themselves, and would start another one.

use std::time::{Duration, Instant};

use dashmap::DashMap;

use crate::id::{RoomName, UserId};

/// Time for which the ids of an ended meeting are remembered. Whoever means to come back loads the page again, and has
/// another id.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// Maximum number of remembered meetings.
const MAX_MEETINGS: usize = 4096;

/// The ids of ended meetings, by their rooms.
#[derive(Debug, Default)]
pub struct EndedMeetings {
    rooms: DashMap<RoomName, (Instant, Vec<UserId>)>,
}

impl EndedMeetings {
    /// Remembers the members of a meeting that was ended.
    pub fn remember(&self, now: Instant, room: &RoomName, mut users: Vec<UserId>) {
        if self.rooms.len() >= MAX_MEETINGS {
            // In a statement of its own: a guard of the map must not be held while it is changed.
            let oldest = self.rooms.iter().min_by_key(|ended| ended.0).map(|ended| ended.key().clone());
            oldest.map(|room| self.rooms.remove(&room));
        }
        users.sort_unstable();
        self.rooms.insert(room.clone(), (now, users));
    }

    /// True if the id was that of a member of the room's last meeting, which was ended.
    pub fn contains(&self, now: Instant, room: &RoomName, user: &UserId) -> bool {
        !self.rooms.is_empty()
            && self.rooms.get(room).is_some_and(|ended| {
                let (at, users) = &*ended;
                now.saturating_duration_since(*at) < REMEMBERED && users.binary_search(user).is_ok()
            })
    }

    /// Forgets old meetings.
    pub fn prune(&self, now: Instant) {
        self.rooms.retain(|_, (at, _)| now.saturating_duration_since(*at) < REMEMBERED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;

    #[test]
    fn oldest_meeting_is_forgotten_for_a_further_one() {
        let (ended, start) = (EndedMeetings::default(), now().into_std());
        let ada = UserId::parse("ada").unwrap();
        let room = |number: usize| RoomName::parse(&format!("r{number}")).unwrap();
        for number in 0..=MAX_MEETINGS {
            let at = start + Duration::from_millis(number.try_into().unwrap());
            ended.remember(at, &room(number), vec![ada.clone()]);
        }
        assert_eq!(ended.rooms.len(), MAX_MEETINGS);
        assert!(!ended.contains(start, &room(0), &ada) && ended.contains(start, &room(MAX_MEETINGS), &ada));
    }

    #[test]
    fn ids_of_an_ended_meeting_are_remembered_for_an_hour() {
        let (ended, start) = (EndedMeetings::default(), now().into_std());
        let [room, other] = ["r", "s"].map(|name| RoomName::parse(name).unwrap());
        let [ada, bob] = ["ada", "bob"].map(|id| UserId::parse(id).unwrap());
        ended.remember(start, &room, vec![bob.clone(), ada.clone()]);
        assert!(ended.contains(start, &room, &ada) && ended.contains(start, &room, &bob));
        assert!(!ended.contains(start, &other, &ada));
        assert!(!ended.contains(start + REMEMBERED, &room, &ada));
        ended.prune(start + REMEMBERED);
        assert!(ended.rooms.is_empty());
    }
}
