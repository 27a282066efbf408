//! A replica follows the journal: its entries, its owner, and the claim when the owner is gone.

use std::time::{Duration, Instant};

use satsuma_cluster::entry::{Line, Record};
use satsuma_cluster::journal::{Continuity, Life};
use satsuma_cluster::successor::claim_delay;
use satsuma_cluster::writer::Written;
use satsuma_cluster::{Journal, JournalWriter, Membership};

use super::lines::RoomState;
use super::sockets::Delivery;
use super::{Action, RETRY, Relay, Role, RoomReplica, Surroundings};
use crate::id::{ConnectionId, NodeId};
use crate::room::codec::RemoteCommand;
use crate::room::io::{Disconnection, Effect, RoomEvent};

impl RoomReplica {
    pub(super) fn read_all(
        &mut self,
        surroundings: Surroundings<'_>,
        question: u64,
        records: Option<Vec<Record<RoomState>>>,
    ) {
        if self.reading.is_none_or(|(asked, _)| asked != question) {
            return;
        }
        let Some(records) = records else { return };
        self.reading = None;
        self.catch_up(surroundings, &records);
        match self.role {
            Role::Seeking | Role::Relay(_) => self.decide(surroundings, records),
            // The writer reads by itself.
            Role::Claiming(_) | Role::Owner(_) => {}
        }
    }

    /// Takes the entries that were missed.
    pub(super) fn catch_up(&mut self, surroundings: Surroundings<'_>, records: &[Record<RoomState>]) {
        let whole = Journal::read_back(records);
        for record in records {
            self.take(surroundings, record);
        }
        let is_behind =
            records.last().is_some_and(|last| whole.has(&last.entry) && !self.journal.has(&last.entry));
        if is_behind {
            // The entries between are purged, or the engine lost them.
            self.start_over(whole);
        }
    }

    /// Goes on with a journal that does not continue what this node knows.
    pub(super) fn start_over(&mut self, journal: Journal<RoomState>) {
        self.journal = journal;
        let mut deliveries = Vec::new();
        let gone = self.sockets.reconcile(self.journal.state(), &mut deliveries);
        self.delivered(deliveries, gone);
    }

    /// Takes an entry, if it is the next one, and shows what it says.
    pub(super) fn take(&mut self, surroundings: Surroundings<'_>, record: &Record<RoomState>) -> Continuity {
        let events = self.journal.state().events();
        let continuity = self.journal.apply(record);
        if continuity == Continuity::Next {
            let mut deliveries = Vec::new();
            let gone = self.sockets.deliver(record, events, self.journal.state(), &mut deliveries);
            self.delivered(deliveries, gone);
            self.claim_at = None;
            self.follow(surroundings, record);
        }
        continuity
    }

    pub(super) fn delivered(&mut self, deliveries: Vec<Delivery>, gone: Vec<ConnectionId>) {
        self.actions.extend(deliveries.into_iter().map(Action::Deliver));
        let gone = gone.into_iter().map(|connection| Disconnection { connection, is_page_left: false });
        self.gone.extend(gone.map(RemoteCommand::Disconnected));
    }

    /// Follows the owner that an entry names.
    pub(super) fn follow(&mut self, surroundings: Surroundings<'_>, record: &Record<RoomState>) {
        if matches!(self.role, Role::Claiming(_) | Role::Owner(_)) {
            return;
        }
        match self.journal.life() {
            Life::Owned(owner) if owner != self.node => {
                if record.entry.is_claim() {
                    self.relay(surroundings.now, owner);
                }
            }
            Life::Owned(_) | Life::Ended | Life::HandedOver { .. } => {
                self.role = Role::Seeking;
                self.uplink.detach();
                self.forget_ended();
            }
        }
    }

    /// Forgets what the sockets of an ended meeting said. Those that join want another one.
    pub(super) fn forget_ended(&mut self) {
        if self.journal.life() == Life::Ended && !self.sockets.is_joining() {
            self.uplink.clear();
            self.gone.clear();
        }
    }

    pub(super) fn relay(&mut self, now: Instant, owner: NodeId) {
        self.uplink.detach();
        let epoch = self.journal.epoch();
        self.role = Role::Relay(Relay { owner, epoch, is_attached: false, attach_at: now });
    }

    /// Decides what to do about a journal that was just read.
    pub(super) fn decide(&mut self, surroundings: Surroundings<'_>, records: Vec<Record<RoomState>>) {
        let Surroundings { now, membership, .. } = surroundings;
        let epoch = self.journal.epoch();
        let owner = match self.journal.life() {
            Life::Owned(owner) => Some(owner),
            Life::HandedOver { to } => to.filter(|to| *to != self.node),
            Life::Ended => None,
        };
        if self.journal.life() == Life::Ended {
            self.adopts = false;
        }
        let is_owned = matches!(self.journal.life(), Life::Owned(owner) if owner != self.node);
        let is_there = owner.is_some_and(|owner| owner != self.node && membership.is_alive(owner));
        if is_owned && is_there && self.disowned != Some(epoch) {
            self.claim_at = None;
            let is_known = matches!(self.role, Role::Relay(relay) if relay.epoch == epoch);
            if let Some(owner) = owner.filter(|_| !is_known) {
                self.relay(now, owner);
            }
            return;
        }
        if self.is_leaving || self.is_idle() {
            (self.role, self.claim_at) = (Role::Seeking, Some((now + RETRY, epoch)));
            return;
        }
        let at = match self.claim_at {
            Some((at, of)) if of == epoch => at,
            _ => now + self.patience(membership, owner),
        };
        self.claim_at = Some((at, epoch));
        if at <= now {
            self.claim_at = None;
            self.writers += 1;
            self.uplink.detach();
            let ended = if self.is_condemned { vec![Line::Ended] } else { Vec::new() };
            let writer = JournalWriter::claim_with(now, self.name.as_str().into(), self.node, records, ended);
            self.role = Role::Claiming(writer.into());
        } else if !is_owned {
            self.role = Role::Seeking;
        }
    }

    /// The time for which others have the first right to claim the room of an owner that is not there.
    pub(super) fn patience(&self, membership: &Membership, owner: Option<NodeId>) -> Duration {
        match (self.journal.life(), owner) {
            (_, None) => Duration::ZERO,
            (Life::Owned(owner), _) if owner == self.node => Duration::ZERO,
            (life, owner) => {
                let is_other =
                    |node: &NodeId| Some(*node) != owner || matches!(life, Life::HandedOver { .. });
                let nodes = self.journal.state().nodes().into_iter().filter(|(node, _)| is_other(node));
                claim_delay(nodes, self.node, |node| membership.is_alive(node))
            }
        }
    }

    /// Takes an entry that the engine published.
    pub(super) fn stored(&mut self, surroundings: Surroundings<'_>, record: &Record<RoomState>) {
        let own = match &self.role {
            Role::Claiming(writer) => Some(writer.epoch()),
            Role::Owner(owner) => Some(owner.epoch()),
            Role::Seeking | Role::Relay(_) => None,
        };
        match own {
            // The writer is told by the engine's answer.
            Some(epoch) if record.entry.epoch < epoch || record.entry.by == self.node => {}
            Some(_) => self.lose(surroundings.now),
            None => {
                if self.take(surroundings, record) == Continuity::Gap {
                    self.read(surroundings.now);
                }
            }
        }
    }

    pub(super) fn written(&mut self, surroundings: Surroundings<'_>, written: Option<Written<RoomState>>) {
        match written {
            None => {}
            Some(Written::Fenced) => self.lose(surroundings.now),
            Some(Written::Restored(record)) if self.journal.has(&record.entry) => {
                self.journal.apply(&record);
            }
            Some(Written::Restored(_)) => {}
            Some(Written::Stored(record)) => {
                let meeting = self.journal.state().meeting();
                if self.take(surroundings, &record) == Continuity::Gap
                    && let Role::Claiming(writer) = &self.role
                {
                    // The engine lost entries that this node knew, and nobody is left who could write them again.
                    self.start_over(Journal::read_back(writer.stored()));
                }
                match std::mem::replace(&mut self.role, Role::Seeking) {
                    // Ended by the claim: the sockets that are here begin another meeting.
                    Role::Claiming(_) if self.journal.life() == Life::Ended => {
                        self.is_condemned = false;
                        self.forget_ended();
                        let event = RoomEvent::RoomFailed;
                        self.actions.push(Action::Effect(Effect::Publish { meeting, event }));
                    }
                    Role::Claiming(writer) => self.begin(surroundings, *writer),
                    Role::Owner(owner) => {
                        self.role = Role::Owner(owner);
                        self.entry_stored(surroundings, &record);
                    }
                    other => self.role = other,
                }
            }
        }
    }

    /// Gives up the room, or the claim to it. What was not stored was shown to nobody, or to sockets that are sent away; what
    /// others said is in the link still.
    pub(super) fn lose(&mut self, now: Instant) {
        self.take_back();
        self.role = Role::Seeking;
        self.uplink.detach();
        self.read(now);
    }

    pub(super) fn node_gone(&mut self, surroundings: Surroundings<'_>, node: NodeId) {
        match &mut self.role {
            Role::Owner(owner) => owner.node_gone(node),
            Role::Relay(relay) if relay.owner == node => self.read(surroundings.now),
            Role::Seeking => self.read(surroundings.now),
            Role::Relay(_) | Role::Claiming(_) => {}
        }
    }
}
