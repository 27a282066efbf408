//! The sockets of a room on one node, and what the journal's entries mean for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use satsuma_cluster::entry::{Line, Record, State};

use super::lines::{RoomLine, RoomState};
use super::messages::AttachedMember;
use crate::id::{ConnectionId, NodeId, UserId};
use crate::protocol::close::Close;
use crate::protocol::user::User;
use crate::room::io::{Join, Recipients};

/// A task for the outboxes of the members on this node.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    /// Attach a socket to its member's outbox. A new outbox is filled with what the member is owed.
    Admit {
        /// The member.
        user: UserId,
        /// The socket.
        connection: ConnectionId,
        /// The events that it has not confirmed, if its outbox is not on this node.
        owed: Vec<(u64, Arc<str>)>,
    },
    /// Queue an event.
    Event {
        /// The recipients, of those on this node.
        to: Recipients,
        /// Its number.
        number: u64,
        /// The message.
        json: Arc<str>,
    },
    /// Remove a member's outbox, and close its socket after everything before.
    Remove {
        /// The member.
        user: UserId,
        /// The reason.
        close: Close,
    },
    /// Keep these ids out of the room for a time.
    KeepOut(Vec<UserId>),
}

/// The sockets of a room on one node.
#[derive(Debug)]
pub(super) struct LocalSockets {
    node: NodeId,
    /// Sockets whose joins are not admitted yet.
    joining: BTreeMap<ConnectionId, Join>,
    /// Members with an outbox here.
    members: BTreeMap<UserId, LocalMember>,
}

/// A member with an outbox on this node.
#[derive(Debug)]
struct LocalMember {
    connection: ConnectionId,
    /// False while the member is disconnected, and its outbox waits.
    is_open: bool,
    join: Join,
    update: Option<Box<User>>,
    /// The number of the last event that was queued, or passed.
    delivered: u64,
}

impl LocalSockets {
    pub(super) fn new(node: NodeId) -> Self {
        Self { node, joining: BTreeMap::new(), members: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.joining.is_empty() && self.members.is_empty()
    }

    pub(super) fn is_joining(&self) -> bool {
        !self.joining.is_empty()
    }

    /// True if a socket is open, or waits for the answer to its join.
    pub(super) fn is_open(&self) -> bool {
        self.is_joining() || self.members.values().any(|member| member.is_open)
    }

    pub(super) fn join(&mut self, join: Join) {
        self.joining.insert(join.connection, join);
    }

    /// The joins that are not admitted yet.
    pub(super) fn joins(&self) -> Vec<Join> {
        self.joining.values().cloned().collect()
    }

    /// Forgets a join that was refused; true if its socket still waits.
    pub(super) fn refused(&mut self, connection: ConnectionId) -> bool {
        self.joining.remove(&connection).is_some()
    }

    pub(super) fn updated(&mut self, connection: ConnectionId, user: &User) {
        let sender = self.members.values_mut().find(|member| member.connection == connection);
        if let Some(member) = sender {
            member.update = Some(Box::new(user.clone()));
        }
    }

    pub(super) fn disconnected(&mut self, connection: ConnectionId) {
        self.joining.remove(&connection);
        let own = self.members.values_mut().find(|member| member.connection == connection);
        if let Some(member) = own {
            member.is_open = false;
        }
    }

    /// Forgets a member whose outbox was given up, since its socket reads too slowly.
    pub(super) fn too_slow(&mut self, user: &UserId, connection: ConnectionId) {
        if self.members.get(user).is_some_and(|member| member.connection == connection) {
            self.members.remove(user);
        }
    }

    /// The members whose sockets are open.
    pub(super) fn attached(&self) -> Vec<AttachedMember> {
        let open = self.members.values().filter(|member| member.is_open);
        open.map(|member| AttachedMember { join: member.join.clone(), update: member.update.clone() })
            .collect()
    }

    /// Carries out an entry that was just taken, from the state `before` to the one `after` it. Returns sockets that
    /// were admitted, but are gone.
    pub(super) fn deliver(
        &mut self,
        record: &Record<RoomState>,
        events_before: u64,
        after: &RoomState,
        deliveries: &mut Vec<Delivery>,
    ) -> Vec<ConnectionId> {
        let (mut events, mut gone) = (events_before, Vec::new());
        for line in &record.entry.lines {
            match line {
                Line::Change(RoomLine::Event { number, to, json, .. }) => {
                    events = *number;
                    self.event(to, *number, json, deliveries);
                }
                Line::Change(RoomLine::Admitted { user, connection, owed_from }) => {
                    let owed = after.owed(user, *owed_from).filter(|event| event.number <= events);
                    let owed = owed.map(|event| (event.number, event.json.clone())).collect();
                    gone.extend(self.admitted(user, *connection, events, owed, deliveries));
                }
                Line::Change(RoomLine::Removed { user, close }) => self.remove(user, *close, deliveries),
                Line::Change(RoomLine::KeptOut(users)) => deliveries.push(Delivery::KeepOut(users.clone())),
                Line::Ended => self.remove_all(Close::TimedOut, deliveries),
                Line::Change(_) | Line::Claimed { .. } | Line::Whole(_) | Line::HandedOver { .. } => {}
            }
        }
        gone
    }

    fn event(&mut self, to: &Recipients, number: u64, json: &Arc<str>, deliveries: &mut Vec<Delivery>) {
        let mut is_for_somebody = false;
        for (user, member) in &mut self.members {
            is_for_somebody |= to.include(user);
            member.delivered = number;
        }
        if is_for_somebody {
            deliveries.push(Delivery::Event { to: to.clone(), number, json: json.clone() });
        }
    }

    fn admitted(
        &mut self,
        user: &UserId,
        connection: ConnectionId,
        events: u64,
        owed: Vec<(u64, Arc<str>)>,
        deliveries: &mut Vec<Delivery>,
    ) -> Option<ConnectionId> {
        if connection.node() != self.node {
            self.remove(user, Close::Superseded, deliveries);
            return None;
        }
        let known = self.members.get_mut(user);
        if known.as_ref().is_some_and(|known| known.connection == connection) {
            return None;
        }
        let Some(join) = self.joining.remove(&connection) else {
            return Some(connection);
        };
        let owed = match known {
            Some(known) => {
                (known.connection, known.is_open, known.join, known.update) = (connection, true, join, None);
                // Its outbox has them.
                Vec::new()
            }
            None => {
                let member = LocalMember { connection, is_open: true, join, update: None, delivered: events };
                self.members.insert(user.clone(), member);
                owed
            }
        };
        deliveries.push(Delivery::Admit { user: user.clone(), connection, owed });
        None
    }

    fn remove(&mut self, user: &UserId, close: Close, deliveries: &mut Vec<Delivery>) {
        if self.members.remove(user).is_some() {
            deliveries.push(Delivery::Remove { user: user.clone(), close });
        }
    }

    pub(super) fn remove_all(&mut self, close: Close, deliveries: &mut Vec<Delivery>) {
        let users: Vec<UserId> = self.members.keys().cloned().collect();
        users.iter().for_each(|user| self.remove(user, close, deliveries));
    }

    /// Brings the sockets to a state that was read as a whole, since entries in between are not there any more. Returns
    /// sockets that were admitted, but are gone.
    pub(super) fn reconcile(
        &mut self,
        state: &RoomState,
        deliveries: &mut Vec<Delivery>,
    ) -> Vec<ConnectionId> {
        for (user, member) in &mut self.members {
            for event in state.owed(user, member.delivered + 1) {
                let (to, json) = (Recipients::One(user.clone()), event.json.clone());
                deliveries.push(Delivery::Event { to, number: event.number, json });
            }
            member.delivered = state.mark();
        }
        let users: Vec<UserId> = self.members.keys().cloned().collect();
        for user in users.iter().filter(|user| state.socket(user).is_none()) {
            self.remove(user, Close::TimedOut, deliveries);
        }
        let mut gone = Vec::new();
        for (user, socket) in state.sockets() {
            let owed = state.owed(user, socket.owed_from);
            let owed = owed.map(|event| (event.number, event.json.clone())).collect();
            gone.extend(self.admitted(user, socket.connection, state.events(), owed, deliveries));
        }
        gone
    }
}
