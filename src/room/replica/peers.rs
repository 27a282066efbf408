//! Messages of other nodes to a replica.

use std::time::Instant;

use satsuma_cluster::LinkId;
use satsuma_cluster::link::Answer;

use super::messages::{Attach, Broadcast, Content, ItemFailure, PeerMessage};
use super::{Action, RETRY, Relay, Role, RoomReplica, Surroundings};
use crate::id::{NodeId, UserId};

impl RoomReplica {
    pub(super) fn peer(&mut self, surroundings: Surroundings<'_>, from: NodeId, message: PeerMessage) {
        let now = surroundings.now;
        match (&mut self.role, message) {
            (Role::Owner(_), PeerMessage::Attach(attach)) => self.attached(surroundings, from, attach),
            (Role::Owner(_), PeerMessage::Up(up)) => self.up(surroundings, from, up),
            (Role::Owner(owner), PeerMessage::Confirmed { epoch, members }) => {
                owner.confirmed(now, epoch, members);
            }
            (Role::Owner(owner), PeerMessage::SnapshotWanted { epoch }) if epoch == owner.epoch() => {
                owner.snapshot(&mut self.actions);
            }
            // It is known within moments who owns the room; the other node asks again.
            (Role::Claiming(_), _) => {}
            (_, PeerMessage::Attach(Attach { link, .. })) => self.not_owner(from, link),
            (_, PeerMessage::Up(up)) => self.not_owner(from, up.link),
            (Role::Relay(relay), PeerMessage::Answer(answer))
                if relay.owner == from && relay.epoch == answer.epoch =>
            {
                if !relay.is_attached {
                    relay.is_attached = true;
                    self.adopts = false;
                    self.uplink.attach(answer.epoch);
                }
                self.answered(now, answer);
            }
            (Role::Relay(relay), PeerMessage::AttachAgain { link, epoch })
                if relay.owner == from && relay.epoch == epoch && link == self.uplink.id() =>
            {
                (relay.is_attached, relay.attach_at) = (false, now);
                self.uplink.detach();
            }
            (Role::Relay(relay), PeerMessage::NotOwner { link })
                if relay.owner == from && link == self.uplink.id() =>
            {
                self.disowned = Some(relay.epoch);
                self.read(now);
            }
            _ => {}
        }
    }

    pub(super) fn not_owner(&mut self, to: NodeId, link: LinkId) {
        self.actions.push(Action::Send { to, message: PeerMessage::NotOwner { link } });
    }

    /// Takes the owner's answer to what this node's sockets said.
    pub(super) fn answered(&mut self, now: Instant, answer: Answer<ItemFailure>) {
        let before = self.uplink.unanswered();
        for (item, failure) in self.uplink.answered(now, answer) {
            match failure {
                ItemFailure::Refused { connection, refusal } => {
                    if self.sockets.refused(connection) {
                        self.actions.push(Action::Refuse { connection, refusal });
                    }
                }
                ItemFailure::Failed(why) => self.actions.push(Action::Failed { item, why }),
            }
        }
        let next = self.uplink.unanswered();
        if next > before {
            self.actions.push(Action::Answered { through: next - 1 });
        }
    }

    pub(super) fn broadcast(&mut self, surroundings: Surroundings<'_>, broadcast: Broadcast) {
        let Role::Relay(relay) = self.role else { return };
        let Broadcast { epoch, entry, snapshot, content } = broadcast;
        if epoch < relay.epoch {
            return;
        }
        let known = self.journal.position().map_or(0, |(_, _, number)| number);
        if epoch > relay.epoch || entry > known {
            self.read(surroundings.now);
        }
        if epoch > relay.epoch {
            return;
        }
        match content {
            Content::Snapshot(json) => {
                if (epoch, snapshot) > self.snapshot {
                    self.snapshot = (epoch, snapshot);
                    self.actions.push(Action::Snapshot(json));
                }
            }
            Content::Transient(json) => self.actions.push(Action::Transient(json)),
            Content::Position => {
                let is_due = self.snapshot_wanted_at.is_none_or(|at| at <= surroundings.now);
                if (epoch, snapshot) > self.snapshot && is_due {
                    self.snapshot_wanted_at = Some(surroundings.now + RETRY);
                    let message = PeerMessage::SnapshotWanted { epoch };
                    self.actions.push(Action::Send { to: relay.owner, message });
                }
            }
        }
    }

    pub(super) fn confirmed(&mut self, surroundings: Surroundings<'_>, user: UserId, number: u64) {
        match &mut self.role {
            Role::Owner(owner) => owner.confirmed(surroundings.now, owner.epoch(), vec![(user, number)]),
            Role::Relay(Relay { owner, epoch, is_attached: true, .. }) => {
                let message = PeerMessage::Confirmed { epoch: *epoch, members: vec![(user, number)] };
                self.actions.push(Action::Send { to: *owner, message });
            }
            Role::Relay(_) | Role::Seeking | Role::Claiming(_) => {}
        }
    }
}
