//! Those whose meeting was ended for all: their clients try to come back by themselves, and would start another one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use dashmap::DashMap;

use crate::id::{RoomName, UserId};
use crate::store::ended::{EndedMeeting, REMEMBERED};

/// Maximum number of remembered meetings, and of the ids of all.
const MAX_MEETINGS: usize = 4096;
const MAX_IDS: usize = 200_000;

/// The ids of ended meetings by their rooms, and the times until which they are remembered.
#[derive(Debug, Default)]
pub struct EndedMeetings {
    rooms: DashMap<RoomName, (Instant, Vec<UserId>)>,
    ids: AtomicUsize,
}

impl EndedMeetings {
    /// The meetings that the store remembers, at the time `now` of both clocks.
    pub fn restored((now, at): (Instant, SystemTime), meetings: &[EndedMeeting]) -> Self {
        let ended = Self::default();
        for meeting in meetings {
            let age = at.duration_since(meeting.at).unwrap_or_default();
            ended.remember(now + REMEMBERED.saturating_sub(age), meeting);
        }
        ended
    }

    /// Remembers the members of a meeting that was ended, until a time.
    pub fn remember(&self, until: Instant, EndedMeeting { room, users, .. }: &EndedMeeting) {
        self.forget(room);
        while self.rooms.len() >= MAX_MEETINGS || self.ids.load(Ordering::Relaxed) + users.len() > MAX_IDS {
            // In a statement of its own: a guard of the map must not be held while it is changed.
            let oldest = self.rooms.iter().min_by_key(|ended| ended.0).map(|ended| ended.key().clone());
            let Some(oldest) = oldest else { break };
            self.forget(&oldest);
        }
        let mut users = users.clone();
        users.sort_unstable();
        self.ids.fetch_add(users.len(), Ordering::Relaxed);
        if let Some((_, before)) = self.rooms.insert(room.clone(), (until, users)) {
            self.ids.fetch_sub(before.len(), Ordering::Relaxed);
        }
    }

    fn forget(&self, room: &RoomName) {
        if let Some((_, (_, users))) = self.rooms.remove(room) {
            self.ids.fetch_sub(users.len(), Ordering::Relaxed);
        }
    }

    /// True if the id was that of a member of the room's last meeting, which was ended, or of one that waited for it.
    pub fn contains(&self, now: Instant, room: &RoomName, user: &UserId) -> bool {
        !self.rooms.is_empty()
            && self.rooms.get(room).is_some_and(|ended| {
                let (until, users) = &*ended;
                now < *until && users.binary_search(user).is_ok()
            })
    }

    /// Forgets old meetings.
    pub fn prune(&self, now: Instant) {
        self.rooms.retain(|_, (until, users)| {
            let stays = now < *until;
            if !stays {
                self.ids.fetch_sub(users.len(), Ordering::Relaxed);
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::clock::now;

    fn meeting(room: &str, users: &[&str]) -> EndedMeeting {
        let users = users.iter().map(|id| UserId::parse(id).unwrap()).collect();
        EndedMeeting { room: RoomName::parse(room).unwrap(), at: UNIX_EPOCH, users }
    }

    #[test]
    fn oldest_meeting_is_forgotten_for_a_further_one() {
        let (ended, start) = (EndedMeetings::default(), now().into_std());
        let last = MAX_MEETINGS + 1;
        for number in 1..=last {
            let until = start + Duration::from_millis(number.try_into().unwrap());
            ended.remember(until, &meeting(&format!("r{number}"), &["ada"]));
        }
        assert_eq!(ended.rooms.len(), MAX_MEETINGS);
        let EndedMeeting { room, users, .. } = meeting("r1", &["ada"]);
        assert!(!ended.contains(start, &room, &users[0]));
        assert!(ended.contains(start, &meeting(&format!("r{last}"), &[]).room, &users[0]));
    }

    #[test]
    fn ids_of_an_ended_meeting_are_remembered_for_an_hour() {
        let start = now().into_std();
        let EndedMeeting { room, at, users } = meeting("r", &["bob", "ada"]);
        let half = REMEMBERED / 2;
        let ended = EndedMeetings::restored((start, at + half), &[meeting("r", &["bob", "ada"])]);
        for user in &users {
            assert!(ended.contains(start, &room, user) && !ended.contains(start + half, &room, user));
        }
        assert!(!ended.contains(start, &meeting("s", &[]).room, &users[0]));
        ended.prune(start + half);
        assert!(ended.rooms.is_empty());
    }
}
