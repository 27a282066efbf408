//! The members of a room: their sockets, their limits, and the grace periods of disconnected ones.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::departed::{Departed, DepartedId};
use super::io::{Disconnection, Join, JoinRefusal, Liveness};
use super::member::Member;
use super::state::RoomSettings;
use crate::id::{ConnectionId, IdentityId, UserId};

/// Grace period of a member that most likely does not return. A reloaded page has another id; a
/// page that only lost its connection reconnects within half a second.
pub const SHORT_GRACE: Duration = Duration::from_secs(2);

/// The members of a room.
#[derive(Debug, Default)]
pub struct Members {
    /// In snapshot order: plain string order of the ids.
    by_id: BTreeMap<UserId, Member>,
    /// The member of each socket. A superseded socket is not in the map, so its messages are ignored.
    connections: HashMap<ConnectionId, UserId>,
    /// Ends of grace periods; members are removed then unless a socket returns.
    leaving: VecDeque<(Instant, UserId)>,
    departed: Departed,
    /// The place of the newest member in the order in which members came.
    last_arrival: i64,
}

impl Members {
    /// Adds a member from before a restart.
    pub fn restore(&mut self, user: UserId, member: Member) {
        self.last_arrival = self.last_arrival.max(member.arrival);
        self.by_id.insert(user, member);
    }

    /// Reserves the id of a member that left before a restart.
    pub fn restore_departed(&mut self, user: UserId, identity: IdentityId) {
        self.departed.add(DepartedId { user, identity, network: None });
    }

    /// The state of a member.
    pub fn get(&self, user: &UserId) -> Option<&Member> {
        self.by_id.get(user)
    }

    /// The state of a member, mutable.
    pub fn get_mut(&mut self, user: &UserId) -> Option<&mut Member> {
        self.by_id.get_mut(user)
    }

    /// True if the id belongs to a member.
    pub fn contains(&self, user: &UserId) -> bool {
        self.by_id.contains_key(user)
    }

    /// All members, in snapshot order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&UserId, &Member)> + Clone {
        self.by_id.iter()
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// True if there are no members.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// True if no member has a socket.
    pub fn is_deserted(&self) -> bool {
        self.connections.is_empty()
    }

    /// The member of a socket.
    pub fn user_at(&self, connection: ConnectionId) -> Option<UserId> {
        self.connections.get(&connection).cloned()
    }

    /// True if an identity is or was in this meeting, as far as that is remembered.
    pub fn knows(&self, identity: &IdentityId) -> bool {
        self.by_id.values().any(|member| member.identity == *identity) || self.departed.knows(identity)
    }

    /// The ids of former members, as far as they are remembered.
    pub fn departed(&self) -> impl Iterator<Item = &UserId> {
        self.departed.users()
    }

    /// Checks a join against the limits; returns the member to be evicted for it, if any.
    ///
    /// If the identity has reached its limit, its member without a socket and with the oldest
    /// heartbeat is evicted.
    ///
    /// # Errors
    /// [`JoinRefusal`]; nobody is to be evicted then.
    pub fn admits(&self, settings: &RoomSettings, join: &Join) -> Result<Option<UserId>, JoinRefusal> {
        if let Some(member) = self.by_id.get(&join.user) {
            return if member.identity == join.identity { Ok(None) } else { Err(JoinRefusal::IdTaken) };
        }
        if self.departed.owner(&join.user).is_some_and(|owner| *owner != join.identity) {
            return Err(JoinRefusal::IdTaken);
        }
        let is_own = |member: &Member| member.identity == join.identity;
        let is_identity_full = self.is_full_for(settings.members_per_identity, is_own);
        let away = self.by_id.iter().filter(|(_, member)| is_own(member) && member.connection.is_none());
        let gives_way = if is_identity_full { away.min_by_key(|(_, member)| member.heartbeat) } else { None };
        let Some((gives_way, member)) = gives_way else {
            return if self.by_id.len() >= settings.members {
                Err(JoinRefusal::RoomFull)
            } else if is_identity_full {
                Err(JoinRefusal::IdentityFull)
            } else if self.is_full_for_network(settings, join) {
                Err(JoinRefusal::NetworkFull)
            } else {
                Ok(None)
            };
        };
        // Evicting a member of the same network makes room there, too.
        if member.network != join.network && self.is_full_for_network(settings, join) {
            return Err(JoinRefusal::NetworkFull);
        }
        Ok(Some(gives_way.clone()))
    }

    fn is_full_for_network(&self, settings: &RoomSettings, join: &Join) -> bool {
        join.network.is_some()
            && self.is_full_for(settings.members_per_network, |member| member.network == join.network)
    }

    /// True if at least `limit` members match; 0 is no limit. Most rooms have fewer members in
    /// total, and need no count.
    fn is_full_for(&self, limit: usize, is_of_kind: impl Fn(&Member) -> bool) -> bool {
        limit > 0
            && self.by_id.len() >= limit
            && self.by_id.values().filter(|member| is_of_kind(member)).count() >= limit
    }

    /// Adds a member or attaches its new socket; returns true if the id was that of a former member.
    pub fn admit(&mut self, now: Instant, join: &Join) -> bool {
        let Join { connection, user, name, grants, network, liveness, .. } = join;
        self.leaving.retain(|(_, leaving)| leaving != user);
        match self.by_id.get_mut(user) {
            Some(member) => {
                member.rename(name.clone());
                member.grants = *grants;
                member.network = *network;
                member.liveness = *liveness;
                member.has_spoken |= *liveness == Liveness::Connection;
                if let Some(older) = member.connection.replace(*connection) {
                    self.connections.remove(&older);
                }
            }
            None => {
                self.last_arrival += 1;
                self.by_id.insert(user.clone(), Member::fresh(join, self.last_arrival, now));
            }
        }
        self.connections.insert(*connection, user.clone());
        self.departed.take(user)
    }

    /// Detaches a socket and returns its member; a superseded socket has none. A member that never
    /// sent anything, or whose page was left, gets only a short grace period.
    pub fn detach(&mut self, now: Instant, gone: Disconnection) -> Option<UserId> {
        let user = self.connections.remove(&gone.connection)?;
        if let Some(member) = self.by_id.get_mut(&user) {
            member.connection = None;
            if member.liveness == Liveness::Connection {
                member.heartbeat = now;
            }
            if gone.is_page_left || !member.has_spoken {
                self.leaving.push_back((now + SHORT_GRACE, user.clone()));
            }
        }
        Some(user)
    }

    /// End of the next grace period.
    pub fn next_given_up(&self) -> Option<Instant> {
        self.leaving.front().map(|(at, _)| *at)
    }

    /// A member whose grace period has ended by now.
    pub fn given_up(&self, now: Instant) -> Option<UserId> {
        self.leaving.front().filter(|(at, _)| *at <= now).map(|(_, user)| user.clone())
    }

    /// Members whose last heartbeat is older than `timeout`, but for those whose connection serves as one.
    pub fn silent(&self, now: Instant, timeout: Duration) -> Vec<UserId> {
        let is_silent = |member: &Member| {
            member
                .last_heartbeat()
                .is_some_and(|heartbeat| now.saturating_duration_since(heartbeat) > timeout)
        };
        self.by_id.iter().filter(|(_, member)| is_silent(member)).map(|(user, _)| user.clone()).collect()
    }

    /// Removes a member; its id is reserved for its identity. Returns that identity, and the id
    /// released in exchange.
    pub fn remove(&mut self, user: &UserId) -> Option<(IdentityId, Option<UserId>)> {
        let Member { identity, network, connection, .. } = self.by_id.remove(user)?;
        if let Some(connection) = connection {
            self.connections.remove(&connection);
        }
        self.leaving.retain(|(_, leaving)| leaving != user);
        let departed = DepartedId { user: user.clone(), identity: identity.clone(), network };
        let forgotten = self.departed.add(departed);
        Some((identity, forgotten))
    }

    /// Removes everyone because the meeting has ended.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
