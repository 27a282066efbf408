//! The directory of media: the rooms that people are in, with their rights there, and the owners of media sessions.
//! It decides who may receive whose tracks.
//!
//! Rooms say who is in them; the media API asks before it subscribes a session to a track, and the embedded SFU is
//! told of every change, so that what is forwarded already stops as well.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::id::{IdentityId, SessionId, UserId};
pub use satsuma_sfu::access::{MediaRights, ScreenTrack, SessionAccess};

/// Sessions of one person; for a further one its oldest that it does not announce becomes a former one.
const MAX_SESSIONS: usize = 64;

/// Former sessions of one person: nobody receives them, and nobody else can announce them.
const MAX_FORMER: usize = 1024;

/// Time for which the sessions of a person in no room are remembered. Later they are taken for its own again when it
/// announces them in a room.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// A member's place in a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaPlace {
    /// Its rights.
    pub rights: MediaRights,
    /// The sessions that it announces as its own. One that is known to be somebody else's stays that one's.
    pub sessions: Vec<SessionId>,
    /// The tracks that it announces as its screen, or did.
    pub screens: Vec<(SessionId, ScreenTrack)>,
}

/// The directory of rooms and sessions. A clone is the same directory.
#[derive(Clone, Debug)]
pub struct MediaAccess {
    shared: Option<Arc<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    last_room: u64,
    people: HashMap<IdentityId, Person>,
    sessions: HashMap<SessionId, Owner>,
    /// Sessions whose access may have changed since the last drain.
    dirty: HashSet<SessionId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    Person(IdentityId),
    /// A person that opened many others since.
    Former(IdentityId),
    /// The agent of a room.
    Agent(u64),
}

#[derive(Debug, Default)]
struct Person {
    places: Vec<PersonPlace>,
    /// Its sessions, the oldest first.
    sessions: VecDeque<SessionId>,
    /// Its former sessions, the oldest first.
    former: VecDeque<SessionId>,
    /// The last time when it opened a session or left a room.
    last: Option<Instant>,
}

#[derive(Debug)]
struct PersonPlace {
    room: u64,
    user: UserId,
    rights: MediaRights,
    sessions: Vec<SessionId>,
    screens: Vec<(SessionId, ScreenTrack)>,
}

impl MediaAccess {
    /// An empty directory; with `checks` off, everything is allowed and nothing is kept.
    pub fn new(checks: bool) -> Self {
        Self { shared: checks.then(Arc::default) }
    }

    /// True if it decides on subscriptions.
    pub fn checks(&self) -> bool {
        self.shared.is_some()
    }

    /// A room without members.
    pub fn room(&self) -> RoomAccess {
        let number = self.shared.as_ref().map_or(0, |shared| {
            let mut state = shared.lock();
            state.last_room += 1;
            state.last_room
        });
        RoomAccess { shared: self.shared.clone(), number, members: HashMap::new(), agent: None }
    }

    /// Records that a person opened a session.
    pub fn opened(&self, now: Instant, session: SessionId, by: &IdentityId) {
        let Some(shared) = &self.shared else { return };
        shared.change(|state| {
            state.own(session, by);
            state.people.entry(by.clone()).or_default().last = Some(now);
        });
    }

    /// True if a person may subscribe to tracks of a session: it is its own, or they share a room.
    pub fn may_subscribe(&self, by: &IdentityId, session: &SessionId) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.lock().may_subscribe(by, session))
    }

    /// True if an agent's session may subscribe to tracks of a session: it is that of a member of the agent's room, who may
    /// send media.
    pub fn agent_may_subscribe(&self, agent: &SessionId, session: &SessionId) -> bool {
        let Some(shared) = &self.shared else { return true };
        let state = shared.lock();
        let Some(Owner::Agent(room)) = state.sessions.get(agent) else { return false };
        state.owner_places(session).any(|place| place.room == *room && place.rights.publishes())
    }

    /// Waits for changes, and returns the access of each session that may have another one since the last call.
    pub async fn changes(&self) -> Vec<(SessionId, SessionAccess)> {
        let Some(shared) = &self.shared else { return std::future::pending().await };
        loop {
            let came = shared.changed.notified();
            let changes = shared.lock().drain();
            if !changes.is_empty() {
                return changes;
            }
            came.await;
        }
    }

    /// Forgets the sessions of those who are in no room for long.
    pub fn prune(&self, now: Instant) {
        let Some(shared) = &self.shared else { return };
        let mut state = shared.lock();
        let State { people, sessions, .. } = &mut *state;
        people.retain(|_, person| {
            let is_old = person.last.is_none_or(|last| now.saturating_duration_since(last) > REMEMBERED);
            let is_forgotten = person.places.is_empty() && is_old;
            if is_forgotten {
                for session in person.sessions.iter().chain(&person.former) {
                    sessions.remove(session);
                }
            }
            !is_forgotten
        });
    }
}

/// A room in the directory; it ends when this is dropped.
#[derive(Debug)]
pub struct RoomAccess {
    shared: Option<Arc<Shared>>,
    number: u64,
    members: HashMap<UserId, IdentityId>,
    agent: Option<SessionId>,
}

impl RoomAccess {
    /// Sets the place of a member.
    pub fn set(&mut self, user: &UserId, identity: &IdentityId, place: MediaPlace) {
        let Some(shared) = &self.shared else { return };
        self.members.insert(user.clone(), identity.clone());
        let MediaPlace { rights, sessions, screens } = place;
        shared.change(|state| {
            let announced = sessions.clone();
            let place = PersonPlace { room: self.number, user: user.clone(), rights, sessions, screens };
            let person = state.people.entry(identity.clone()).or_default();
            let is_own = |place: &&mut PersonPlace| place.room == self.number && place.user == *user;
            match person.places.iter_mut().find(is_own) {
                Some(own) => *own = place,
                None => person.places.push(place),
            }
            for session in announced {
                match state.sessions.get(&session) {
                    None => state.own(session, identity),
                    Some(Owner::Former(owner)) if owner == identity => state.own(session, identity),
                    Some(_) => {}
                }
            }
            state.touch(identity);
        });
    }

    /// Removes a member.
    pub fn leave(&mut self, now: Instant, user: &UserId) {
        let (Some(shared), Some(identity)) = (&self.shared, self.members.remove(user)) else { return };
        shared.change(|state| state.leave(self.number, user, &identity, Some(now)));
    }

    /// Sets the session of the room's agent; `None` if there is none.
    pub fn set_agent(&mut self, session: Option<&SessionId>) {
        if self.agent.as_ref() == session {
            return;
        }
        let before = mem::replace(&mut self.agent, session.cloned());
        let Some(shared) = &self.shared else { return };
        shared.change(|state| {
            if let Some(session) = before {
                state.sessions.remove(&session);
                state.dirty.insert(session);
            }
            if let Some(session) = session {
                state.sessions.insert(session.clone(), Owner::Agent(self.number));
                state.dirty.insert(session.clone());
            }
        });
    }

    /// True if the room's agent may subscribe to tracks of a session: it is that of a member who may send media.
    pub fn agent_may_subscribe(&self, session: &SessionId) -> bool {
        let Some(shared) = &self.shared else { return true };
        let state = shared.lock();
        state.owner_places(session).any(|place| place.room == self.number && place.rights.publishes())
    }
}

impl Drop for RoomAccess {
    fn drop(&mut self) {
        self.set_agent(None);
        let Some(shared) = &self.shared else { return };
        shared.change(|state| {
            for (user, identity) in &self.members {
                state.leave(self.number, user, identity, None);
            }
        });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let is_dirty = {
            let mut state = self.lock();
            change(&mut state);
            !state.dirty.is_empty()
        };
        if is_dirty {
            self.changed.notify_one();
        }
    }
}

impl Person {
    /// Removes the oldest session that none of the places announces.
    fn take_oldest(&mut self) -> Option<SessionId> {
        let is_announced = |session| self.places.iter().any(|place| place.sessions.contains(session));
        let at = self.sessions.iter().position(|session| !is_announced(session))?;
        self.sessions.remove(at)
    }
}

impl State {
    /// Makes a session that of a person.
    fn own(&mut self, session: SessionId, by: &IdentityId) {
        let person = self.people.entry(by.clone()).or_default();
        if person.sessions.contains(&session) {
            return;
        }
        if person.sessions.len() >= MAX_SESSIONS
            && let Some(oldest) = person.take_oldest()
        {
            self.sessions.insert(oldest.clone(), Owner::Former(by.clone()));
            person.former.push_back(oldest.clone());
            self.dirty.insert(oldest);
        }
        if person.former.len() > MAX_FORMER
            && let Some(oldest) = person.former.pop_front()
        {
            self.sessions.remove(&oldest);
        }
        person.former.retain(|former| *former != session);
        person.sessions.push_back(session.clone());
        self.sessions.insert(session.clone(), Owner::Person(by.clone()));
        self.dirty.insert(session);
    }

    fn leave(&mut self, room: u64, user: &UserId, identity: &IdentityId, now: Option<Instant>) {
        if let Some(person) = self.people.get_mut(identity) {
            person.places.retain(|place| place.room != room || place.user != *user);
            person.last = now.or(person.last);
        }
        self.touch(identity);
    }

    /// Marks a person's sessions as changed.
    fn touch(&mut self, identity: &IdentityId) {
        if let Some(person) = self.people.get(identity) {
            self.dirty.extend(person.sessions.iter().cloned());
        }
    }

    /// The places of the person who owns a session.
    fn owner_places(&self, session: &SessionId) -> impl Iterator<Item = &PersonPlace> {
        let person = match self.sessions.get(session) {
            Some(Owner::Person(identity)) => self.people.get(identity),
            _ => None,
        };
        person.into_iter().flat_map(|person| &person.places)
    }

    fn may_subscribe(&self, by: &IdentityId, session: &SessionId) -> bool {
        let own = self.people.get(by).into_iter().flat_map(|person| &person.places);
        let mut own = own.filter(|place| place.rights.subscribe);
        match self.sessions.get(session) {
            Some(Owner::Person(owner) | Owner::Former(owner)) if owner == by => true,
            None | Some(Owner::Former(_)) => false,
            Some(Owner::Agent(room)) => own.any(|place| place.room == *room),
            Some(Owner::Person(_)) => own.any(|place| {
                self.owner_places(session).any(|other| other.room == place.room && other.rights.publishes())
            }),
        }
    }

    fn drain(&mut self) -> Vec<(SessionId, SessionAccess)> {
        let dirty = mem::take(&mut self.dirty);
        dirty.into_iter().map(|session| (session.clone(), self.access(&session))).collect()
    }

    fn access(&self, session: &SessionId) -> SessionAccess {
        use satsuma_sfu::access::Place;
        if let Some(Owner::Agent(room)) = self.sessions.get(session) {
            let places = vec![Place { room: *room, rights: MediaRights::ALL }];
            return SessionAccess { places, screens: Vec::new() };
        }
        let mut access = SessionAccess::default();
        for place in self.owner_places(session) {
            access.places.push(Place { room: place.room, rights: place.rights });
            let own = place.screens.iter().filter(|(of, _)| of == session);
            access.screens.extend(own.map(|(_, track)| track.clone()));
        }
        access
    }
}

#[cfg(test)]
mod tests {
    use satsuma_sfu::request::TrackKind;

    use super::*;
    use crate::clock::now;

    fn identity(name: &str) -> IdentityId {
        IdentityId::new(format!("cookie:{name}"))
    }

    fn session(id: &str) -> SessionId {
        SessionId::parse(id).unwrap()
    }

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    fn place(rights: MediaRights, sessions: &[&str]) -> MediaPlace {
        MediaPlace {
            rights,
            sessions: sessions.iter().map(|id| session(id)).collect(),
            ..MediaPlace::default()
        }
    }

    fn enter(room: &mut RoomAccess, name: &str, rights: MediaRights) {
        room.set(&user(name), &identity(name), place(rights, &[]));
    }

    #[tokio::test]
    async fn members_of_one_room_receive_each_other() {
        let access = MediaAccess::new(true);
        let start = now().into_std();
        let (mut here, mut there) = (access.room(), access.room());
        for name in ["ada", "bob", "eve", "kim"] {
            access.opened(start, session(name), &identity(name));
        }
        enter(&mut here, "ada", MediaRights::ALL);
        enter(&mut here, "bob", MediaRights { subscribe: false, ..MediaRights::ALL });
        enter(&mut there, "eve", MediaRights::ALL);
        let may = |by: &str, of: &str| access.may_subscribe(&identity(by), &session(of));
        assert!(may("ada", "bob") && !may("bob", "ada"), "without the right to subscribe");
        assert!(may("bob", "bob"), "its own");
        assert!(!may("eve", "ada") && !may("ada", "eve"), "in another room");
        assert!(!may("kim", "ada") && !may("ada", "kim"), "in no room");
        assert!(!may("ada", "nothing"));
        let changes = access.changes().await;
        let of = |id: &str| &changes.iter().find(|(of, _)| *of == session(id)).unwrap().1;
        assert!(of("bob").may_send(TrackKind::Audio, "t", of("ada")));
        assert!(!of("eve").may_send(TrackKind::Audio, "t", of("ada")));
        here.leave(start, &user("ada"));
        assert!(!may("ada", "bob"));
        drop(there);
        let changes = access.changes().await;
        assert!(changes.iter().all(|(_, access)| access.places.is_empty()), "{changes:?}");
    }

    #[test]
    fn announcement_claims_unknown_sessions_only() {
        let access = MediaAccess::new(true);
        let mut room = access.room();
        access.opened(now().into_std(), session("s"), &identity("ada"));
        room.set(&user("eve"), &identity("eve"), place(MediaRights::ALL, &["s", "t"]));
        enter(&mut room, "bob", MediaRights::ALL);
        assert!(access.may_subscribe(&identity("bob"), &session("t")));
        assert!(!access.may_subscribe(&identity("bob"), &session("s")), "it is Ada's, who is not here");
        assert!(!access.may_subscribe(&identity("eve"), &session("s")));
    }

    #[test]
    fn agent_hears_its_room_only_and_is_heard_there() {
        let access = MediaAccess::new(true);
        let (mut here, mut there) = (access.room(), access.room());
        access.opened(now().into_std(), session("a"), &identity("ada"));
        access.opened(now().into_std(), session("e"), &identity("eve"));
        enter(&mut here, "ada", MediaRights::ALL);
        enter(&mut there, "eve", MediaRights::ALL);
        here.set_agent(Some(&session("ai")));
        assert!(here.agent_may_subscribe(&session("a")));
        assert!(!here.agent_may_subscribe(&session("e")) && !here.agent_may_subscribe(&session("x")));
        let heard = |of: &str| access.agent_may_subscribe(&session("ai"), &session(of));
        assert!(heard("a") && !heard("e") && !heard("x"));
        assert!(!access.agent_may_subscribe(&session("e"), &session("a")), "no agent's");
        assert!(access.may_subscribe(&identity("ada"), &session("ai")));
        assert!(!access.may_subscribe(&identity("eve"), &session("ai")));
        here.set_agent(None);
        assert!(!access.may_subscribe(&identity("ada"), &session("ai")));
    }

    #[test]
    fn second_membership_of_a_person_keeps_its_place() {
        let access = MediaAccess::new(true);
        let mut room = access.room();
        access.opened(now().into_std(), session("a"), &identity("ada"));
        enter(&mut room, "bob", MediaRights::ALL);
        for id in ["tab-1", "tab-2"] {
            room.set(&user(id), &identity("ada"), place(MediaRights::ALL, &[]));
        }
        room.leave(now().into_std(), &user("tab-1"));
        assert!(access.may_subscribe(&identity("bob"), &session("a")));
        room.leave(now().into_std(), &user("tab-2"));
        assert!(!access.may_subscribe(&identity("bob"), &session("a")));
    }

    /// An id of somebody's past session must not bring that session into another room.
    #[test]
    fn session_in_use_stays_and_a_former_one_is_nobody_elses() {
        let access = MediaAccess::new(true);
        let (mut here, mut there) = (access.room(), access.room());
        for id in ["used", "past"] {
            access.opened(now().into_std(), session(id), &identity("ada"));
        }
        here.set(&user("ada"), &identity("ada"), place(MediaRights::ALL, &["used"]));
        enter(&mut here, "bob", MediaRights::ALL);
        for number in 0..MAX_SESSIONS {
            access.opened(now().into_std(), session(&format!("s{number}")), &identity("ada"));
        }
        there.set(&user("eve"), &identity("eve"), place(MediaRights::ALL, &["used", "past"]));
        enter(&mut there, "kim", MediaRights::ALL);
        let may = |by: &str, of: &str| access.may_subscribe(&identity(by), &session(of));
        assert!(may("bob", "used") && !may("bob", "past"));
        for by in ["eve", "kim"] {
            assert!(!may(by, "used") && !may(by, "past"), "{by}");
        }
        here.set(&user("ada"), &identity("ada"), place(MediaRights::ALL, &["used", "past"]));
        assert!(may("bob", "used") && may("bob", "past"), "it is announced again");
    }

    #[test]
    fn memory_is_bounded() {
        let access = MediaAccess::new(true);
        let start = now().into_std();
        let most = MAX_SESSIONS + MAX_FORMER;
        for number in 0..=most {
            access.opened(start, session(&format!("s{number}")), &identity("ada"));
        }
        let shared = access.shared.clone().unwrap();
        assert_eq!(shared.lock().sessions.len(), most);
        assert!(!access.may_subscribe(&identity("ada"), &session("s0")), "the oldest is forgotten");
        access.prune(start + REMEMBERED);
        assert_eq!(shared.lock().people.len(), 1);
        access.prune(start + REMEMBERED + Duration::from_secs(1));
        let state = shared.lock();
        assert_eq!((state.people.len(), state.sessions.len()), (0, 0));
    }

    #[test]
    fn everything_is_allowed_where_nothing_is_checked() {
        let access = MediaAccess::new(false);
        let mut room = access.room();
        enter(&mut room, "ada", MediaRights::default());
        assert!(access.may_subscribe(&identity("eve"), &session("s")));
        assert!(room.agent_may_subscribe(&session("s")) && !access.checks());
    }
}
