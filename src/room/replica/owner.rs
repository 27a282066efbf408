//! The owner of a room: the room itself, and its journal's writer.

mod alone;
mod outside;
mod serving;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use satsuma_cluster::entry::Line;
use satsuma_cluster::successor::claim_delay;
use satsuma_cluster::{Downlink, JournalWriter, LinkId};

use self::outside::OutsideEvents;
use super::lines::{RoomLine, RoomState};
use super::messages::{AttachedMember, Broadcast, Content, ItemFailure};
use super::{Action, Surroundings};
use crate::id::{ConnectionId, NodeId, UserId};
use crate::protocol::client::ClientMessage;
use crate::protocol::close::Close;
use crate::protocol::server::{ChatMessage, Event};
use crate::room::codec::RemoteCommand;
use crate::room::io::{Effect, Input, Recipients, RoomEvent};
use crate::room::mailbox::NO_MEMBER;
use crate::room::state::Room;
use crate::store::saved::{Persist, SavedMember};

/// Times after the last change at which the owner tells its position, so that a node that lost the end of the journal
/// finds out: a while after, since every further entry tells it as well.
const POSITIONS: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(1000), Duration::from_millis(2500)];

/// Maximum time between two whole states, also of a room in which nothing happens: the engine removes entries that are
/// a day old, since nobody else removes those of rooms that have ended.
pub(super) const WHOLE_AT_LEAST: Duration = Duration::from_secs(6 * 60 * 60);

/// The same after a takeover: the last whole state may be older than one of this owner could be.
pub(super) const FIRST_WHOLE: Duration = Duration::from_secs(60);

/// True for the user object of a member that has left the lobby. One that has such a field elsewhere is only written
/// sooner.
fn has_joined(json: &str) -> bool {
    json.contains(r#""joined":true"#)
}

/// A room and its journal's writer.
#[derive(Debug)]
pub(super) struct Owner {
    room: Room,
    writer: JournalWriter<RoomState>,
    downlinks: BTreeMap<LinkId, (NodeId, Downlink<ItemFailure>)>,
    /// The last item of each link that was handled, stored or not: a link that attaches again goes on behind it.
    handled: BTreeMap<LinkId, u64>,
    /// The socket of each member, as the lines so far say, stored or not.
    admitted: BTreeMap<UserId, ConnectionId>,
    /// The members of whom it is written that they have left the lobby.
    joined: BTreeSet<UserId>,
    /// The number of each member's first event that is not confirmed.
    owed_from: BTreeMap<UserId, u64>,
    /// The number of the last event.
    events: u64,
    /// Effects that wait for an entry to be stored, with its number.
    held: VecDeque<(u64, Effect)>,
    stored: u64,
    /// The number of the entry with the last line that is not written at leisure.
    prompt: u64,
    snapshot: u64,
    /// The entry that a snapshot waits for.
    snapshot_after: Option<u64>,
    changed_at: Instant,
    positions: usize,
    /// The time at which members are removed that a dead node had and nobody persists.
    ghosts_at: Option<Instant>,
    purged_below: u64,
    /// The time at which the whole state is written at the latest.
    whole_at: Instant,
    is_ending: bool,
    pub(super) outside: OutsideEvents,
    /// The time since which the engine is away, when this was last looked at.
    away_since: Option<Instant>,
    looked_at: Instant,
    /// True if events are shown that are not stored.
    is_alone: bool,
}

impl Owner {
    pub(super) fn room(&self) -> &Room {
        &self.room
    }

    pub(super) fn written(&self) -> u64 {
        self.writer.last_number()
    }

    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    pub(super) fn writer_mut(&mut self) -> &mut JournalWriter<RoomState> {
        &mut self.writer
    }

    pub(super) fn room_mut(&mut self) -> &mut Room {
        &mut self.room
    }

    pub(super) fn epoch(&self) -> u64 {
        self.writer.epoch()
    }

    /// Number of lines that are not written.
    pub(super) fn pending(&self) -> usize {
        self.writer.pending().len()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let is_served = !self.is_ending && !self.writer.is_full();
        let room = self.room.deadline().filter(|_| is_served).map(|(at, _)| at);
        let position = POSITIONS.get(self.positions).map(|after| self.changed_at + *after);
        let whole = Some(self.whole_at).filter(|_| !self.is_ending && self.writer.is_quiet());
        let (end, alone) = (self.outside.end_at, self.alone_deadline());
        [room, position, self.writer.deadline(), self.ghosts_at, whole, end, alone]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn node_gone(&mut self, node: NodeId) {
        // If it is alive after all, it has to attach again. Its members are not forgotten: their heartbeats decide.
        self.downlinks.retain(|_, (at, _)| *at != node);
    }

    pub(super) fn confirmed(&mut self, now: Instant, epoch: u64, members: Vec<(UserId, u64)>) {
        if epoch != self.epoch() {
            return;
        }
        for (user, number) in members {
            let Some(owed) = self.owed_from.get_mut(&user).filter(|owed| **owed <= number) else { continue };
            *owed = number + 1;
            let pending = self.writer.pending_mut().iter_mut().find_map(|line| match line {
                Line::Change(RoomLine::Confirmed(members)) => Some(members),
                _ => None,
            });
            match pending {
                Some(members) => members.push((user, number)),
                None => {
                    let line = RoomLine::Confirmed(vec![(user, number)]);
                    self.writer.push_at_leisure(now, Line::Change(line));
                }
            }
        }
    }

    /// Writes down the node of the media sessions: at leisure, since all nodes choose alike without it.
    pub(super) fn media_at(&mut self, now: Instant, node: NodeId) {
        if !self.is_ending {
            self.writer.push_at_leisure(now, Line::Change(RoomLine::MediaAt(node)));
        }
    }

    pub(super) fn hand_over(
        &mut self,
        surroundings: Surroundings<'_>,
        own: NodeId,
        nodes: BTreeMap<NodeId, usize>,
    ) {
        if self.is_ending {
            return;
        }
        self.is_ending = true;
        let takers: Vec<NodeId> = surroundings.membership.takers().filter(|node| *node != own).collect();
        let rank = |node: &NodeId| claim_delay(nodes.clone(), *node, |other| takers.contains(&other));
        let to = takers.iter().copied().filter(|node| nodes.contains_key(node)).min_by_key(rank);
        self.writer.push(surroundings.now, Line::HandedOver { to });
    }

    /// Broadcasts a snapshot of the newest state.
    pub(super) fn snapshot(&mut self, actions: &mut Vec<Action>) {
        self.snapshot += 1;
        let json: Arc<str> = self.room.encode_snapshot().into();
        actions.push(Action::Snapshot(json.clone()));
        actions.push(self.broadcast(Content::Snapshot(json)));
    }

    fn broadcast(&self, content: Content) -> Action {
        let (epoch, entry, snapshot) = (self.epoch(), self.stored, self.snapshot);
        Action::Broadcast(Broadcast { epoch, entry, snapshot, content })
    }

    fn line(&mut self, now: Instant, line: RoomLine) {
        self.prompt = self.writer.push(now, Line::Change(line));
    }

    /// Sends a snapshot that waits for an entry, if that is stored or may take long.
    fn snapshot_stored(&mut self, actions: &mut Vec<Action>) {
        let is_due = |entry: &mut u64| *entry <= self.stored || self.writer.is_in_doubt();
        if self.snapshot_after.take_if(is_due).is_some() {
            self.snapshot(actions);
        }
    }

    /// Hands the room an input of its own node: news of its agents, or a request of whoever is no member.
    pub(super) fn input(&mut self, surroundings: Surroundings<'_>, input: Input, actions: &mut Vec<Action>) {
        self.run(surroundings, input, actions);
    }

    /// Hands an input to the room, and writes down its effects. Returns the refusal of a join, or the failure of a
    /// message.
    fn run(
        &mut self,
        surroundings: Surroundings<'_>,
        input: Input,
        actions: &mut Vec<Action>,
    ) -> Option<ItemFailure> {
        let now = surroundings.now;
        if self.is_ending {
            return None;
        }
        let (mut sender, mut failure) = (None, None);
        if let Input::Message { connection, .. } | Input::Rejected { connection, .. } = &input {
            sender = self.room.user_at(*connection);
            failure = sender.is_none().then(|| ItemFailure::Failed(NO_MEMBER.to_owned()));
        }
        for effect in self.room.handle(now, input) {
            match effect {
                Effect::Admit { connection, user } => {
                    let next = self.events + 1;
                    let owed_from = *self.owed_from.entry(user.clone()).or_insert(next);
                    self.admitted.insert(user.clone(), connection);
                    self.line(now, RoomLine::Admitted { user, connection, owed_from });
                }
                Effect::Refuse { connection, refusal } => {
                    failure = Some(ItemFailure::Refused { connection, refusal });
                }
                // The outbox is where the socket was.
                Effect::Detach { .. } => {}
                Effect::Send { to, event } => {
                    let published = Self::published(&event);
                    if let (Recipients::One(to), Some(why)) = (&to, event.failure())
                        && sender.as_ref() == Some(to)
                    {
                        failure = Some(ItemFailure::Failed(why.to_owned()));
                    }
                    self.events += 1;
                    let chat = if let Event::Chat(message) = &event { Some(message.id) } else { None };
                    let (number, json) = (self.events, Arc::<str>::from(event.encode()));
                    self.writer.count(json.len());
                    self.line(now, RoomLine::Event { number, to, json, chat });
                    if let Some(published) = published {
                        self.publish(surroundings, self.room.meeting(), published, actions);
                    }
                }
                Effect::SendTransient(event) => {
                    let json: Arc<str> = event.encode().into();
                    actions.push(Action::Transient(json.clone()));
                    actions.push(self.broadcast(Content::Transient(json)));
                }
                Effect::Snapshot => {
                    if self.prompt > self.stored && !self.writer.is_in_doubt() {
                        // Behind the events that belong to it, and not to members that it removed.
                        self.snapshot_after = Some(self.prompt);
                    } else {
                        self.snapshot(actions);
                    }
                    self.touch(now);
                }
                Effect::Remove { user, close } => self.remove(now, user, close),
                Effect::Persist { change: Persist::Member(member), .. } => self.member(now, member),
                // For the list of meetings.
                effect @ Effect::Persist { change: Persist::Peak { .. } | Persist::MeetingEnded, .. } => {
                    self.hold(effect, actions);
                }
                Effect::Persist { meeting, change } => {
                    if let Some(line) = RoomLine::of_change(meeting, change) {
                        self.writer.count(line.text_bytes());
                        self.line(now, line);
                    }
                }
                Effect::RememberEnded(_, users) => self.line(now, RoomLine::KeptOut(users)),
                Effect::Retire => self.end(now),
                Effect::Publish { meeting, event } => self.publish(surroundings, meeting, event, actions),
                effect @ (Effect::SendAway { .. }
                | Effect::PlaceMedia { .. }
                | Effect::Agent(_)
                | Effect::Moderated(_)) => self.hold(effect, actions),
            }
        }
        failure
    }

    /// A chat message for programs outside.
    fn published(event: &Event) -> Option<RoomEvent> {
        let Event::Chat(ChatMessage { id, from, name, message, .. }) = event else { return None };
        let (from, name, message) = (from.clone(), name.clone(), message.as_json().into());
        Some(RoomEvent::ChatMessage { id: *id, from, name, message })
    }

    fn remove(&mut self, now: Instant, user: UserId, close: Close) {
        self.admitted.remove(&user);
        self.joined.remove(&user);
        self.owed_from.remove(&user);
        self.line(now, RoomLine::Removed { user, close });
    }

    /// Writes a member's user object: soon for a new member and for one that leaves the lobby, and at leisure otherwise:
    /// its node tells the next owner the newest. If that dies as well, nobody seems to be back in the lobby.
    fn member(&mut self, now: Instant, member: SavedMember) {
        let SavedMember { user, identity, json, arrival } = member;
        self.writer.count(json.len());
        let comes_in = !self.joined.contains(&user) && has_joined(&json);
        if comes_in {
            self.joined.insert(user.clone());
        }
        let last = self.writer.pending_mut().iter_mut().rev().find_map(|line| match line {
            Line::Change(RoomLine::Member { user: other, json, .. }) if *other == user => Some(Some(json)),
            Line::Change(RoomLine::MemberRemoved(other)) if *other == user => Some(None),
            _ => None,
        });
        let is_new = match last {
            Some(Some(pending)) if !comes_in => {
                *pending = json;
                return;
            }
            last => comes_in || last.is_some() || self.is_unwritten(&user),
        };
        let line = Line::Change(RoomLine::Member { user, identity, json, arrival });
        if is_new {
            self.prompt = self.writer.push(now, line);
        } else {
            self.writer.push_at_leisure(now, line);
        }
    }

    /// True if the member's admission is not written yet: its user object goes into the same entry.
    fn is_unwritten(&self, user: &UserId) -> bool {
        self.writer
            .pending()
            .iter()
            .any(|line| matches!(line, Line::Change(RoomLine::Admitted { user: other, .. }) if other == user))
    }

    /// Carries out an effect once everything before it is stored that is not written at leisure.
    fn hold(&mut self, effect: Effect, actions: &mut Vec<Action>) {
        let entry = self.prompt;
        if entry <= self.stored && self.held.is_empty() {
            actions.push(Action::Effect(effect));
        } else {
            self.held.push_back((entry, effect));
        }
    }

    fn touch(&mut self, now: Instant) {
        (self.changed_at, self.positions) = (now, 0);
    }

    /// Takes a member's socket at an attached node.
    fn attach(&mut self, surroundings: Surroundings<'_>, member: AttachedMember, actions: &mut Vec<Action>) {
        let AttachedMember { join, update } = member;
        let (user, connection) = (join.user.clone(), join.connection);
        // Another socket may have taken the membership since.
        if self.admitted.get(&user) != Some(&connection) || self.room.user_at(connection).is_some() {
            return;
        }
        if self.run(surroundings, Input::Join(join), actions).is_some() {
            self.remove(surroundings.now, user, Close::TimedOut);
            return;
        }
        if let Some(update) = update {
            let message = ClientMessage::UserUpdate(update);
            self.run(surroundings, Input::Message { connection, at: surroundings.at, message }, actions);
        }
    }

    /// Handles one item of a link.
    fn item(
        &mut self,
        surroundings: Surroundings<'_>,
        link: LinkId,
        number: u64,
        command: RemoteCommand,
        actions: &mut Vec<Action>,
    ) {
        let at = surroundings.at;
        let is_current = match &command {
            // Another socket may have taken the membership since.
            RemoteCommand::TooSlow { user, connection } => self.admitted.get(user) == Some(connection),
            _ => true,
        };
        let input = match command {
            RemoteCommand::Join(join) => Input::Join(join),
            RemoteCommand::Message { connection, message: Ok(message), .. } => {
                Input::Message { connection, at, message }
            }
            RemoteCommand::Message { connection, message: Err(why), .. } => {
                Input::Rejected { connection, why }
            }
            RemoteCommand::Disconnected(gone) => Input::Disconnected(gone),
            RemoteCommand::TooSlow { user, .. } => Input::TooSlow { user },
        };
        let before = self.writer.prompt_lines();
        let failure = if is_current { self.run(surroundings, input, actions) } else { None };
        let waits_for = (self.writer.prompt_lines() > before).then(|| self.writer.last_number());
        self.writer.take(link, number);
        self.handled.insert(link, number);
        if let Some((_, downlink)) = self.downlinks.get_mut(&link) {
            downlink.handled(number, waits_for, failure);
        }
    }
}
