//! The work of an owner for its room and for the nodes that are attached to it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use satsuma_cluster::entry::{Line, Record, Whole};
use satsuma_cluster::journal::Life;
use satsuma_cluster::link::Up;
use satsuma_cluster::{Downlink, JournalWriter, LinkId};

use super::super::lines::RoomState;
use super::super::messages::{Attach, Content, PeerMessage};
use super::super::{Action, Role, RoomReplica, Surroundings};
use super::outside::OutsideEvents;
use super::{FIRST_WHOLE, Owner, POSITIONS, WHOLE_AT_LEAST, has_joined};
use crate::id::{NodeId, UserId};
use crate::protocol::close::Close;
use crate::room::codec::RemoteCommand;
use crate::room::io::Input;
use crate::room::state::Room;

impl RoomReplica {
    /// Begins to own the room: the claim is stored.
    pub(in crate::room::replica) fn begin(
        &mut self,
        surroundings: Surroundings<'_>,
        writer: JournalWriter<RoomState>,
    ) {
        let Surroundings { now, at, .. } = surroundings;
        let state = self.journal.state();
        let room = match state.to_saved(&self.name) {
            None => Room::new(self.settings.clone(), now),
            Some(saved) => {
                let mut room = Room::restore(self.settings.clone(), now, &saved);
                room.restore_chat(now, at, &saved);
                room.continue_chat_after(state.last_chat());
                room
            }
        };
        let ghosts = state.sockets().count() > 0;
        let is_taken_over = state.meeting().is_some();
        let joined =
            room.members().filter(|member| has_joined(&member.json)).map(|member| member.user).collect();
        let owner = Owner {
            room,
            writer,
            downlinks: BTreeMap::new(),
            handled: self.journal.all_taken().into_iter().collect(),
            admitted: state.sockets().map(|(user, socket)| (user.clone(), socket.connection)).collect(),
            joined,
            owed_from: state.sockets().map(|(user, socket)| (user.clone(), socket.owed_from)).collect(),
            events: state.events(),
            held: VecDeque::new(),
            stored: 0,
            prompt: 0,
            snapshot: 0,
            snapshot_after: None,
            changed_at: now,
            positions: 0,
            ghosts_at: ghosts.then(|| now + self.settings.restore_grace),
            purged_below: 0,
            whole_at: now + if is_taken_over { FIRST_WHOLE } else { WHOLE_AT_LEAST },
            is_ending: false,
            outside: OutsideEvents::new(self.recording, state),
            away_since: None,
            looked_at: now,
            is_alone: false,
        };
        self.adopts = false;
        owner.publish_again(state, &mut self.actions);
        let epoch = owner.epoch();
        self.role = Role::Owner(owner.into());
        // The sockets of this node are attached as those of others are.
        let attach = Attach {
            link: self.uplink.id(),
            epoch,
            unanswered: self.uplink.unanswered(),
            members: self.sockets.attached(),
        };
        self.attached(surroundings, self.node, attach);
        self.uplink.attach(epoch);
        if self.is_leaving
            && let Role::Owner(owner) = &mut self.role
        {
            owner.hand_over(surroundings, self.node, self.journal.state().nodes());
        }
    }

    /// Takes the attachment of a node.
    pub(in crate::room::replica) fn attached(
        &mut self,
        surroundings: Surroundings<'_>,
        from: NodeId,
        attach: Attach,
    ) {
        let Role::Owner(owner) = &mut self.role else { return };
        let Attach { link, epoch, unanswered, members } = attach;
        if epoch != owner.epoch() || owner.is_ending {
            return;
        }
        // A node has one link at a time, and ends it only when all its items are answered.
        owner.downlinks.retain(|other, _| other.node != link.node || other.number >= link.number);
        owner.handled.retain(|other, _| other.node != link.node || other.number >= link.number);
        let handled = owner.handled.get(&link).copied().unwrap_or_default();
        let end = || (from, Downlink::attach(link, epoch, unanswered, handled));
        owner.downlinks.entry(link).or_insert_with(end);
        for member in members {
            owner.attach(surroundings, member, &mut self.actions);
        }
        self.answer(surroundings.now, link);
    }

    /// Takes what sockets of a node said.
    pub(in crate::room::replica) fn up(
        &mut self,
        surroundings: Surroundings<'_>,
        from: NodeId,
        up: Up<RemoteCommand>,
    ) {
        let Role::Owner(owner) = &mut self.role else { return };
        let link = up.link;
        let epoch = owner.epoch();
        if owner.writer.is_full() || owner.is_ending {
            // It is said again.
            return;
        }
        let Some((_, downlink)) = owner.downlinks.get_mut(&link) else {
            let message = PeerMessage::AttachAgain { link, epoch };
            self.actions.push(Action::Send { to: from, message });
            return;
        };
        // An entry is bounded; the rest is said again.
        let mut space = owner.writer.space();
        let mut items = up.items;
        let fitting = items.iter().position(|item| match space.checked_sub(text_bytes(item)) {
            Some(left) => {
                space = left;
                false
            }
            None => true,
        });
        items.truncate(fitting.unwrap_or(items.len()).max(1));
        for (number, command) in downlink.take(Up { items, ..up }) {
            owner.item(surroundings, link, number, command, &mut self.actions);
        }
        self.answer(surroundings.now, link);
    }

    fn answer(&mut self, now: Instant, link: LinkId) {
        let Role::Owner(owner) = &self.role else { return };
        let Some((node, downlink)) = owner.downlinks.get(&link) else { return };
        let (to, answer) = (*node, downlink.answer());
        if to == self.node {
            self.answered(now, answer);
        } else {
            self.actions.push(Action::Send { to, message: PeerMessage::Answer(answer) });
        }
    }

    /// Does what is due for the room.
    pub(in crate::room::replica) fn own(&mut self, surroundings: Surroundings<'_>) {
        let now = surroundings.now;
        while let Some(up) = self.uplink.poll(now) {
            self.up(surroundings, self.node, up);
        }
        let Role::Owner(owner) = &mut self.role else { return };
        owner.look_at_engine(surroundings);
        if owner.room.deadline().is_some_and(|(at, _)| at <= now) && !owner.writer.is_full() {
            owner.run(surroundings, Input::Wake, &mut self.actions);
        }
        if owner.ghosts_at.take_if(|at| *at <= now).is_some() && !owner.is_ending {
            let members: Vec<UserId> = owner.room.members().map(|member| member.user).collect();
            let ghosts = owner.admitted.keys().filter(|user| !members.contains(user)).cloned();
            for user in ghosts.collect::<Vec<_>>() {
                owner.remove(now, user, Close::TimedOut);
            }
        }
        owner.end_if_recorded(now);
        owner.snapshot_stored(&mut self.actions);
        let due = POSITIONS.get(owner.positions).is_some_and(|after| owner.changed_at + *after <= now);
        if due {
            owner.positions += 1;
            self.actions.push(owner.broadcast(Content::Position));
        }
        let wants_whole = self.journal.wants_whole() || owner.whole_at <= now;
        if owner.writer.is_quiet() && !owner.is_ending && wants_whole {
            owner.whole_at = now + WHOLE_AT_LEAST;
            let whole = Whole { state: self.journal.state().clone(), taken: self.journal.all_taken() };
            owner.writer.push_first(now, Line::Whole(Box::new(whole)));
        }
        self.go_on_alone(surroundings);
    }

    /// Carries out what waited for an entry.
    pub(in crate::room::replica) fn entry_stored(
        &mut self,
        surroundings: Surroundings<'_>,
        record: &Record<RoomState>,
    ) {
        let Role::Owner(owner) = &mut self.role else { return };
        let number = record.entry.number;
        owner.stored = number;
        owner.touch(surroundings.now);
        while let Some((_, effect)) = owner.held.pop_front_if(|(entry, _)| *entry <= number) {
            self.actions.push(Action::Effect(effect));
        }
        owner.publish_stored(record, &mut self.actions);
        owner.snapshot_stored(&mut self.actions);
        let below = self.journal.needed_from();
        // Not for a whole state that is shown and may never be stored.
        let is_known = !owner.writer.has_released();
        if is_known
            && below > owner.purged_below
            && record.entry.lines.iter().any(|line| matches!(line, Line::Whole(_)))
        {
            owner.purged_below = below;
            owner.writer.forget_below(below);
            self.actions.push(Action::Purge { below });
        }
        let links: Vec<LinkId> = owner
            .downlinks
            .iter_mut()
            .filter_map(|(link, (_, downlink))| downlink.stored(number).then_some(*link))
            .collect();
        for link in links {
            self.answer(surroundings.now, link);
        }
        let has_ended = |line: &Line<RoomState>| matches!(line, Line::Ended | Line::HandedOver { .. });
        if record.entry.lines.iter().any(has_ended) {
            self.role = Role::Seeking;
            self.uplink.detach();
            self.forget_ended();
            if self.journal.life() == Life::Ended {
                self.actions.push(Action::PurgeEnded { below: record.sequence });
            }
        }
    }
}

/// Size in bytes of what a client wrote.
fn text_bytes(command: &RemoteCommand) -> usize {
    if let RemoteCommand::Message { bytes, .. } = command { *bytes as usize } else { 0 }
}
