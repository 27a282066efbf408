//! A room's part on one node of several, as a value: inputs go in, actions come out. No clock, no engine, no socket.
//!
//! A node with members of a room has a replica of it: the room's journal, folded, and the sockets there. One replica is
//! the *owner* and has the [`Room`]; the others are *relays*, which pass on what their sockets say over a numbered
//! link, and show what the journal's entries say. The owner's own sockets use such a link as well, so that nothing
//! they said is lost when the owner is fenced. Events, admissions and removals reach sockets, those of the owner
//! too, when the entry that holds them is stored ([ADR 25](../../../docs/adr/0025-a-journal-says-who-owns.md)).

mod following;
mod io;
pub mod journaled;
pub mod kept;
pub mod lines;
pub mod messages;
mod outage;
mod owner;
mod peers;
mod sockets;
mod wire;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use satsuma_cluster::link::LinkFull;
use satsuma_cluster::{Journal, JournalWriter, LinkId, Uplink};

use self::journaled::Recording;
use self::lines::RoomState;
use self::messages::{Attach, PeerMessage};
use self::outage::Outage;
use self::owner::Owner;
use self::sockets::LocalSockets;
use super::codec::RemoteCommand;
use super::rules::RoomRules;
use super::state::{Room, RoomSettings};
use crate::id::{NodeId, RoomName};
use crate::protocol::client::ClientMessage;

pub use self::io::{Action, ReplicaInput, Surroundings};
pub use self::sockets::Delivery;
pub use self::wire::MAX_MESSAGE_BYTES;

/// Time without an answer after which a request is made again.
const RETRY: Duration = Duration::from_millis(500);

/// A room's part on one node.
#[derive(Debug)]
pub struct RoomReplica {
    node: NodeId,
    name: RoomName,
    settings: RoomSettings,
    journal: Journal<RoomState>,
    role: Role,
    uplink: Uplink<RemoteCommand>,
    /// News of sockets that are gone or too slow, for which the link has no space yet.
    gone: VecDeque<RemoteCommand>,
    sockets: LocalSockets,
    /// The question to the engine for all entries, and the time at which it is asked again.
    reading: Option<(u64, Instant)>,
    questions: u64,
    writers: u64,
    /// When the room of an owner that is gone is claimed, and the owner's epoch.
    claim_at: Option<(Instant, u64)>,
    /// The epoch of an owner that says that it is none.
    disowned: Option<u64>,
    /// Epoch and number of the last snapshot.
    snapshot: (u64, u64),
    snapshot_wanted_at: Option<Instant>,
    is_leaving: bool,
    recording: Recording,
    /// True while the room is to be claimed although it has no sockets here.
    adopts: bool,
    /// True if the claim is to end the room, which cannot go on.
    is_condemned: bool,
    outage: Outage,
    actions: Vec<Action>,
}

#[derive(Debug)]
enum Role {
    /// It is not known who owns the room, or nobody does.
    Seeking,
    /// This node claims the room.
    Claiming(Box<JournalWriter<RoomState>>),
    Owner(Box<Owner>),
    Relay(Relay),
}

/// A replica's attachment to the owner.
#[derive(Clone, Copy, Debug)]
struct Relay {
    owner: NodeId,
    epoch: u64,
    is_attached: bool,
    /// The time at which it attaches again, if it is not attached.
    attach_at: Instant,
}

impl RoomReplica {
    /// A replica that knows nothing. `link` is a number that was not used for a link of this node.
    pub fn new(name: RoomName, settings: RoomSettings, node: NodeId, link: u64) -> Self {
        Self {
            node,
            name,
            settings,
            journal: Journal::default(),
            role: Role::Seeking,
            uplink: Uplink::new(LinkId { node, number: link }),
            gone: VecDeque::new(),
            sockets: LocalSockets::new(node),
            reading: None,
            questions: 0,
            writers: 0,
            claim_at: None,
            disowned: None,
            snapshot: (0, 0),
            snapshot_wanted_at: None,
            is_leaving: false,
            recording: Recording::default(),
            adopts: false,
            is_condemned: false,
            outage: Outage::default(),
            actions: Vec::new(),
        }
    }

    /// Sets the settings with which meetings begin, if another node does not own the room then.
    pub fn set_lasting_rules(&mut self, rules: RoomRules) {
        self.settings.rules = rules;
    }

    /// Claims the room, unless a living node owns it, although it has no sockets here: its members were on a node that is
    /// gone, and the room has to end for them.
    pub fn adopt(&mut self) {
        self.adopts = true;
    }

    /// Ends the room with the next claim: its state makes whoever has it fail.
    pub fn condemn(&mut self) {
        self.is_condemned = true;
    }

    /// Sets the programs that are shown as observers, if this node owns the room.
    pub fn set_observers(&mut self, names: Vec<Arc<str>>) {
        if let Role::Owner(owner) = &mut self.role {
            owner.room_mut().set_observers(names);
        }
    }

    /// Sets the events that this node records for programs outside.
    pub fn set_recording(&mut self, recording: Recording) {
        self.recording = recording;
        if let Role::Owner(owner) = &mut self.role {
            owner.outside.set_recording(recording);
        }
    }

    /// The room, if this node owns it.
    pub fn room(&self) -> Option<&Room> {
        match &self.role {
            Role::Owner(owner) => Some(owner.room()),
            _ => None,
        }
    }

    /// The number of the entry with the last line so far, stored or not, if this node owns the room.
    pub fn last_written(&self) -> Option<u64> {
        match &self.role {
            Role::Owner(owner) => Some(owner.written()),
            _ => None,
        }
    }

    /// The number of the last entry that is stored, if this node owns the room.
    pub fn last_stored(&self) -> Option<u64> {
        match &self.role {
            Role::Owner(owner) => Some(owner.stored()),
            _ => None,
        }
    }

    /// The owner that this replica is attached to.
    pub fn attached_to(&self) -> Option<NodeId> {
        match self.role {
            Role::Relay(Relay { owner, is_attached: true, .. }) => Some(owner),
            _ => None,
        }
    }

    /// Sets the time that the next snapshot has to wait, if this node owns the room.
    pub fn throttle_snapshots(&mut self, now: Instant, window: Duration) {
        if let Role::Owner(owner) = &mut self.role {
            owner.room_mut().throttle_snapshots(now, window);
        }
    }

    /// Lets the chat's history grow no further, or lifts that, if this node owns the room.
    pub fn set_chat_exhausted(&mut self, is_exhausted: bool) {
        if let Role::Owner(owner) = &mut self.role {
            owner.room_mut().set_chat_exhausted(is_exhausted);
        }
    }

    /// True if nothing is under way: the room has an owner that this replica is, or is attached to, or it is not needed
    /// here.
    pub fn is_settled(&self) -> bool {
        match &self.role {
            Role::Owner(_) => true,
            Role::Relay(relay) => relay.is_attached,
            Role::Seeking => self.is_idle(),
            Role::Claiming(_) => false,
        }
    }

    /// True if this node may end: it does not own the room, and the owner knows that its sockets are gone, if there is one.
    pub fn has_left(&self) -> bool {
        let is_told = self.gone.is_empty() && self.uplink.items().next().is_none();
        match &self.role {
            Role::Owner(_) | Role::Claiming(_) => false,
            Role::Relay(_) => is_told && !self.sockets.is_open(),
            Role::Seeking => !self.sockets.is_open(),
        }
    }

    /// The journal.
    pub fn journal(&self) -> &Journal<RoomState> {
        &self.journal
    }

    /// True if the room may be forgotten on this node: it does not own it, and has no sockets of it.
    pub fn is_idle(&self) -> bool {
        let owns = matches!(self.role, Role::Owner(_) | Role::Claiming(_));
        !owns
            && !self.adopts
            && self.sockets.is_empty()
            && self.uplink.items().next().is_none()
            && self.gone.is_empty()
    }

    /// Number of items without an answer, and of lines that are not written.
    pub fn backlog(&self) -> (usize, usize) {
        let lines = if let Role::Owner(owner) = &self.role { owner.pending() } else { 0 };
        (self.uplink.items().count(), lines)
    }

    /// Takes what a socket says, of a size in bytes, and returns its number among the items of the link; 0 for one that
    /// waits.
    ///
    /// # Errors
    /// [`LinkFull`]: the socket is not to be read until there is [space](Self::has_space). It does not happen to a
    /// socket that is gone.
    pub fn command(
        &mut self,
        surroundings: Surroundings<'_>,
        command: RemoteCommand,
        bytes: usize,
    ) -> Result<u64, LinkFull> {
        let mut item = 0;
        match &command {
            RemoteCommand::Disconnected(gone) => {
                self.sockets.disconnected(gone.connection);
                self.gone.push_back(command);
            }
            RemoteCommand::TooSlow { user, connection } => {
                self.sockets.too_slow(user, *connection);
                self.gone.push_back(command);
            }
            RemoteCommand::Join(join) => {
                item = self.uplink.push(command.clone(), bytes)?;
                self.sockets.join(join.clone());
            }
            RemoteCommand::Message { connection, message, .. } => {
                item = self.uplink.push(command.clone(), bytes)?;
                if let Ok(ClientMessage::UserUpdate(user)) = message {
                    self.sockets.updated(*connection, user);
                }
            }
        }
        self.advance(surroundings);
        Ok(item)
    }

    /// True if a socket may be read.
    pub fn has_space(&self) -> bool {
        self.gone.is_empty() && self.uplink.has_space()
    }

    /// Handles an input.
    pub fn handle(&mut self, surroundings: Surroundings<'_>, input: ReplicaInput) {
        match input {
            ReplicaInput::Appended { writer, question, answer } => {
                let written =
                    self.writer(writer).and_then(|own| own.appended(surroundings.now, question, answer));
                self.written(surroundings, written);
            }
            ReplicaInput::ReadLast { writer, question, last } => {
                let written =
                    self.writer(writer).and_then(|own| own.read_last(surroundings.now, question, last));
                self.written(surroundings, written);
            }
            ReplicaInput::ReadAll { question, records } => self.read_all(surroundings, question, records),
            ReplicaInput::Stored(record) => self.stored(surroundings, &record),
            ReplicaInput::Peer { from, message } => self.peer(surroundings, from, message),
            ReplicaInput::Broadcast(broadcast) => self.broadcast(surroundings, broadcast),
            ReplicaInput::NodeGone(node) => self.node_gone(surroundings, node),
            ReplicaInput::Confirmed { user, number } => self.confirmed(surroundings, user, number),
            ReplicaInput::Leave => {
                (self.is_leaving, self.adopts) = (true, false);
                if let Role::Owner(owner) = &mut self.role {
                    owner.hand_over(surroundings, self.node, self.journal.state().nodes());
                }
            }
            ReplicaInput::Room(input) => {
                if let Role::Owner(owner) = &mut self.role {
                    owner.input(surroundings, *input, &mut self.actions);
                }
            }
            ReplicaInput::Recorded(meeting, recorded) => {
                if let Role::Owner(owner) = &mut self.role {
                    owner.recorded(surroundings.now, meeting, recorded);
                }
            }
            ReplicaInput::MediaAt(node) => {
                if let Role::Owner(owner) = &mut self.role {
                    owner.media_at(surroundings.now, node);
                }
            }
            ReplicaInput::Interrupted if matches!(self.role, Role::Relay(_)) => self.read(surroundings.now),
            ReplicaInput::Interrupted => {}
            ReplicaInput::Wake => {}
        }
        self.advance(surroundings);
    }

    /// The actions that are due.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The latest time for the next input.
    pub fn deadline(&self) -> Option<Instant> {
        let of_role = match &self.role {
            Role::Seeking => None,
            Role::Claiming(writer) => writer.deadline(),
            Role::Owner(owner) => owner.deadline(),
            Role::Relay(relay) if !relay.is_attached => Some(relay.attach_at),
            Role::Relay(_) => self.uplink.deadline(),
        };
        let reading = self.reading.map(|(_, at)| at);
        let claim = self.claim_at.filter(|_| self.reading.is_none() && !self.is_idle()).map(|(at, _)| at);
        let outage = self.outage.deadline().filter(|_| self.room().is_none());
        [of_role, reading, claim, outage].into_iter().flatten().min()
    }

    fn writer(&mut self, number: u64) -> Option<&mut JournalWriter<RoomState>> {
        match &mut self.role {
            _ if number != self.writers => None,
            Role::Claiming(writer) => Some(writer),
            Role::Owner(owner) => Some(owner.writer_mut()),
            Role::Seeking | Role::Relay(_) => None,
        }
    }

    /// Does what is due, after every input.
    fn advance(&mut self, surroundings: Surroundings<'_>) {
        let now = surroundings.now;
        while let Some(gone) = self.gone.pop_front() {
            if !self.uplink.has_space() {
                self.gone.push_front(gone);
                break;
            }
            let _ = self.uplink.push(gone, 0);
        }
        if self.reading.is_some_and(|(_, at)| at <= now) {
            self.reading = None;
            self.read(now);
        }
        match &self.role {
            Role::Seeking if self.claim_at.is_none_or(|(at, _)| at <= now) && !self.is_idle() => {
                self.read(now)
            }
            Role::Relay(_) if self.claim_at.is_some_and(|(at, _)| at <= now) && !self.is_idle() => {
                self.read(now)
            }
            _ => {}
        }
        self.attach(now);
        self.endure(surroundings);
        if let Role::Owner(_) = &self.role {
            self.own(surroundings);
        } else if let Some(up) = self.uplink.poll(now)
            && let Role::Relay(Relay { owner, .. }) = self.role
        {
            self.actions.push(Action::Send { to: owner, message: PeerMessage::Up(up) });
        }
        let (writers, request) = match &mut self.role {
            Role::Claiming(writer) => (self.writers, writer.poll(now)),
            Role::Owner(owner) => (self.writers, owner.writer_mut().poll(now)),
            Role::Seeking | Role::Relay(_) => return,
        };
        self.actions.extend(request.map(|request| Action::Request { writer: writers, request }));
    }

    /// Attaches to the owner, if that is due.
    fn attach(&mut self, now: Instant) {
        let Role::Relay(relay) = &mut self.role else { return };
        if relay.is_attached || relay.attach_at > now {
            return;
        }
        relay.attach_at = now + RETRY;
        let attach = Attach {
            link: self.uplink.id(),
            epoch: relay.epoch,
            unanswered: self.uplink.unanswered(),
            members: self.sockets.attached(),
        };
        self.actions.push(Action::Send { to: relay.owner, message: PeerMessage::Attach(attach) });
    }

    fn read(&mut self, now: Instant) {
        if self.reading.is_none() {
            self.questions += 1;
            self.reading = Some((self.questions, now + RETRY));
            self.actions.push(Action::ReadAll { question: self.questions });
        }
    }
}

#[cfg(test)]
mod tests;
