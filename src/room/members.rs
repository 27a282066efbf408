//! The members of a room: their seats, their sockets, and who is given up soon.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::departed::{Departed, DepartedId};
use super::io::{Gone, Join, JoinRefusal};
use super::pace::Audience;
use super::seat::Seat;
use super::state::RoomSettings;
use crate::id::{ConnectionId, IdentityId, UserId};
use crate::protocol::deflate::Form;

/// How long a member is waited for who most likely does not come back. A page that is loaded again
/// has another id; one that only lost its connection tries again within half a second.
pub const SHORT_GRACE: Duration = Duration::from_secs(2);

/// The members.
#[derive(Debug, Default)]
pub struct Members {
    /// In the order of the wire: plain string order of the ids.
    seats: BTreeMap<UserId, Seat>,
    /// Who sits where. A socket that lost its seat is not here, so what it still says is ignored.
    connections: HashMap<ConnectionId, (UserId, Form)>,
    /// Who is given up soon, unless a socket comes back for it.
    leaving: VecDeque<(Instant, UserId)>,
    departed: Departed,
}

impl Members {
    /// Adds a seat of before a restart.
    pub fn restore(&mut self, user: UserId, seat: Seat) {
        self.seats.insert(user, seat);
    }

    /// Adds an id whose member left before a restart.
    pub fn restore_departed(&mut self, user: UserId, identity: IdentityId) {
        self.departed.add(DepartedId { user, identity, network: None });
    }

    /// The seat of a member.
    pub fn get(&self, user: &UserId) -> Option<&Seat> {
        self.seats.get(user)
    }

    /// The seat of a member.
    pub fn get_mut(&mut self, user: &UserId) -> Option<&mut Seat> {
        self.seats.get_mut(user)
    }

    /// Whether somebody of that id is a member.
    pub fn contains(&self, user: &UserId) -> bool {
        self.seats.contains_key(user)
    }

    /// All members, in the order of the wire.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&UserId, &Seat)> + Clone {
        self.seats.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// Whether no member has a socket.
    pub fn is_deserted(&self) -> bool {
        self.connections.is_empty()
    }

    /// Whose socket it is.
    pub fn user_at(&self, connection: ConnectionId) -> Option<UserId> {
        self.connections.get(&connection).map(|(user, _)| user.clone())
    }

    /// The sockets that get a broadcast.
    pub fn audience(&self) -> Audience {
        self.connections.values().map(|(_, form)| *form).collect()
    }

    /// Decides about a join; gives back the member that gives way to it, if one must.
    ///
    /// Of an identity that has as many members as it may, the one without a socket that was silent for
    /// the longest time gives way.
    ///
    /// # Errors
    /// [`JoinRefusal`]; nobody is to give way then.
    pub fn admits(&self, settings: &RoomSettings, join: &Join) -> Result<Option<UserId>, JoinRefusal> {
        if let Some(seat) = self.seats.get(&join.user) {
            return if seat.identity == join.identity { Ok(None) } else { Err(JoinRefusal::SeatTaken) };
        }
        if self.departed.owner(&join.user).is_some_and(|owner| *owner != join.identity) {
            return Err(JoinRefusal::SeatTaken);
        }
        let is_own = |seat: &Seat| seat.identity == join.identity;
        let is_identity_full = self.is_full_for(settings.members_per_identity, is_own);
        let away = self.seats.iter().filter(|(_, seat)| is_own(seat) && seat.connection.is_none());
        let gives_way = if is_identity_full { away.min_by_key(|(_, seat)| seat.heartbeat) } else { None };
        let Some((gives_way, seat)) = gives_way else {
            return if self.seats.len() >= settings.members {
                Err(JoinRefusal::RoomFull)
            } else if is_identity_full {
                Err(JoinRefusal::IdentityFull)
            } else if self.is_full_for_network(settings, join) {
                Err(JoinRefusal::NetworkFull)
            } else {
                Ok(None)
            };
        };
        // Of the same network it makes room there, too.
        if seat.network != join.network && self.is_full_for_network(settings, join) {
            return Err(JoinRefusal::NetworkFull);
        }
        Ok(Some(gives_way.clone()))
    }

    fn is_full_for_network(&self, settings: &RoomSettings, join: &Join) -> bool {
        join.network.is_some()
            && self.is_full_for(settings.members_per_network, |seat| seat.network == join.network)
    }

    /// Whether there are `limit` members of a kind; 0 is no limit. Most rooms have fewer in all, and
    /// nobody is counted there.
    fn is_full_for(&self, limit: usize, is_of_kind: impl Fn(&Seat) -> bool) -> bool {
        limit > 0
            && self.seats.len() >= limit
            && self.seats.values().filter(|seat| is_of_kind(seat)).count() >= limit
    }

    /// Gives a seat to a socket; gives back whether the id was that of a member who had left.
    pub fn seat(&mut self, now: Instant, join: &Join) -> bool {
        let Join { connection, user, identity, name, network, form, .. } = join;
        self.leaving.retain(|(_, leaving)| leaving != user);
        match self.seats.get_mut(user) {
            Some(seat) => {
                seat.rename(name.clone());
                seat.network = *network;
                if let Some(older) = seat.connection.replace(*connection) {
                    self.connections.remove(&older);
                }
            }
            None => {
                let seat = Seat::fresh(user, identity.clone(), name.clone(), *network, *connection, now);
                self.seats.insert(user.clone(), seat);
            }
        }
        self.connections.insert(*connection, (user.clone(), *form));
        self.departed.take(user)
    }

    /// Takes note that a socket is gone, and gives back whose it was; one that lost its seat to a newer
    /// one is nobody's. A member that never said anything, or whose page was left, is given up soon.
    pub fn detach(&mut self, now: Instant, gone: Gone) -> Option<UserId> {
        let (user, _) = self.connections.remove(&gone.connection)?;
        if let Some(seat) = self.seats.get_mut(&user) {
            seat.connection = None;
            if gone.is_page_left || !seat.has_spoken {
                self.leaving.push_back((now + SHORT_GRACE, user.clone()));
            }
        }
        Some(user)
    }

    /// When the next member is given up.
    pub fn next_given_up(&self) -> Option<Instant> {
        self.leaving.front().map(|(at, _)| *at)
    }

    /// A member that is to be given up by now.
    pub fn given_up(&self, now: Instant) -> Option<UserId> {
        self.leaving.front().filter(|(at, _)| *at <= now).map(|(_, user)| user.clone())
    }

    /// Those whose last heartbeat is older than `timeout`.
    pub fn silent(&self, now: Instant, timeout: Duration) -> Vec<UserId> {
        let is_silent = |seat: &Seat| now.saturating_duration_since(seat.heartbeat) > timeout;
        self.seats.iter().filter(|(_, seat)| is_silent(seat)).map(|(user, _)| user.clone()).collect()
    }

    /// Takes a member out; its id stays its own. Gives back what is remembered of it, and the id that
    /// is forgotten for it.
    pub fn remove(&mut self, user: &UserId) -> Option<(IdentityId, Option<UserId>)> {
        let Seat { identity, network, connection, .. } = self.seats.remove(user)?;
        if let Some(connection) = connection {
            self.connections.remove(&connection);
        }
        self.leaving.retain(|(_, leaving)| leaving != user);
        let departed = DepartedId { user: user.clone(), identity: identity.clone(), network };
        let forgotten = self.departed.add(departed);
        Some((identity, forgotten))
    }

    /// Forgets everybody, since the meeting ended.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
