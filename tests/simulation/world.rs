//! The world: time, the network, and everything that goes wrong.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use satsuma::id::{ConnectionId, MeetingId, NodeId, UserId};
use satsuma::protocol::close::Close;
use satsuma::room::codec::RemoteCommand;
use satsuma::room::io::Disconnection;
use satsuma::room::outbox::Taken;
use satsuma::room::replica::lines::RecordedEvents;
use satsuma::room::replica::messages::{Broadcast, PeerMessage};
use satsuma::room::replica::{Action, Delivery, ReplicaInput, RoomReplica, Surroundings};
use satsuma_cluster::membership::{Heartbeat, Probed, Task};
use satsuma_cluster::writer::{Appended, Request};

use crate::client::{Client, Said, Socket, command};
use crate::engine::Engine;
use crate::node::Node;
use crate::random::Random;

/// Microseconds of a second and of a millisecond.
const S: u64 = 1_000_000;
const MS: u64 = 1000;

/// Length of the time in which things go wrong, of that in which clients still talk, and of all.
const FAULTS: u64 = 40 * S;
const TALK: u64 = 58 * S;
const END: u64 = 62 * S;

const NODES: usize = 3;
const CLIENTS: usize = 6;

/// A defect of the world, to see that the checks find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// The engine appends whatever is expected.
    NoCondition,
    /// Nodes show an entry when they ask for its append.
    ShownBeforeStored,
}

/// The ends of the journal that the engine loses in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Losses {
    /// None.
    None,
    /// Some, while no node dies: its owner writes them again.
    Recoverable,
    /// Some, with everything else that goes wrong.
    ForGood,
}

/// The events of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub events: u64,
    pub claims: u64,
    pub fenced: u64,
    pub kills: u64,
    pub freezes: u64,
    pub cuts: u64,
    pub drains: u64,
    pub pauses: u64,
    pub lost_ends: u64,
    pub late_appends: u64,
    pub lost_entries: u64,
    pub purged: u64,
    pub most_records: usize,
    /// Times that a room went on alone, and that its members were sent away after it.
    pub alone: u64,
    pub taken_back: u64,
}

impl Summary {
    pub fn add(&mut self, other: Self) {
        self.events += other.events;
        self.claims += other.claims;
        self.fenced += other.fenced;
        self.kills += other.kills;
        self.freezes += other.freezes;
        self.cuts += other.cuts;
        self.drains += other.drains;
        self.pauses += other.pauses;
        self.lost_ends += other.lost_ends;
        self.late_appends += other.late_appends;
        self.lost_entries += other.lost_entries;
        self.purged += other.purged;
        self.most_records = self.most_records.max(other.most_records);
        self.alone += other.alone;
        self.taken_back += other.taken_back;
    }
}

/// Something that happens at some time.
enum Event {
    /// For a life of a node.
    Node(usize, u64, ForNode),
    /// A request reaches the engine.
    Request {
        node: usize,
        life: u64,
        writer: u64,
        request: Request<satsuma::room::replica::lines::RoomState>,
        is_answered: bool,
    },
    ReadAll {
        node: usize,
        life: u64,
        question: u64,
    },
    Client(usize),
    /// A client reads its socket, if it is the same one.
    Read(usize, ConnectionId),
    Confirm(usize, ConnectionId, u64),
    Fault,
    Restart(usize),
    /// A leaving node closes its sockets, and ends.
    Leave(usize, u64, bool),
}

enum ForNode {
    Input(ReplicaInput),
    Heartbeat(Heartbeat),
    Probed(NodeId, Probed),
    Goodbye(NodeId),
    Recorded(MeetingId, u64),
    Said(ConnectionId, String),
    Join(Box<satsuma::room::io::Join>),
    Gone(ConnectionId, UserId),
    Wake,
}

/// A run.
pub struct World {
    flaw: Flaw,
    pub losses: Losses,
    /// True if interruptions may last longer than members may be silent.
    has_long_outages: bool,
    /// True if nearly all clients connect to the same node.
    is_gathered: bool,
    base: Instant,
    pub now: u64,
    random: Random,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    count: u64,
    /// The time of the last message of each way, which none overtakes.
    ways: BTreeMap<(usize, usize), u64>,
    pub nodes: Vec<Node>,
    pub clients: Vec<Client>,
    pub engine: Engine,
    pub said: Vec<Said>,
    /// Events for programs outside that some node has recorded: their meetings and numbers.
    pub recorded: BTreeSet<(MeetingId, u64)>,
    /// Sockets that were open, and are not any more.
    pub ended: Vec<ConnectionId>,
    pub summary: Summary,
    is_loud: bool,
}

/// The engine's place among the ways.
const ENGINE: usize = usize::MAX;

impl World {
    pub fn new(seed: u64, flaw: Flaw) -> Self {
        let base = crate::start() + Duration::from_secs(1000);
        let mut world = Self {
            flaw,
            losses: match seed % 20 {
                0 => Losses::Recoverable,
                10 => Losses::ForGood,
                _ => Losses::None,
            },
            has_long_outages: seed % 5 >= 3,
            is_gathered: seed % 5 == 4,
            base,
            now: 0,
            random: Random::new(seed),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            count: 0,
            ways: BTreeMap::new(),
            nodes: Vec::new(),
            clients: (0..CLIENTS).map(Client::new).collect(),
            engine: Engine::default(),
            said: Vec::new(),
            recorded: BTreeSet::new(),
            ended: Vec::new(),
            summary: Summary::default(),
            is_loud: std::env::var("SIMULATION_LOG").is_ok(),
        };
        for index in 0..NODES {
            let node = world.new_node(index, 1);
            world.nodes.push(node);
            world.wake(index);
        }
        for client in 0..CLIENTS {
            world.push(world.clients[client].connects_at, Event::Client(client));
        }
        let first = world.random.within(2 * S, 6 * S);
        world.push(first, Event::Fault);
        world
    }

    fn new_node(&mut self, index: usize, life: u64) -> Node {
        let id = NodeId::new((index as u32 + 1) * 0x100 + life as u32);
        let skew = self.random.within(0, 4000) as i64 - 2000;
        Node::new(self.instant(), id, life, skew)
    }

    fn instant(&self) -> Instant {
        self.base + Duration::from_micros(self.now)
    }

    fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.base).as_micros() as u64
    }

    fn push(&mut self, at: u64, event: Event) {
        self.count += 1;
        self.queue.push(Reverse((at.max(self.now), self.count)));
        self.events.insert(self.count, event);
    }

    fn log(&self, text: impl FnOnce() -> String) {
        if self.is_loud {
            println!("{:>9.3} {}", self.now as f64 / 1e6, text());
        }
    }

    /// The time of arrival of a message of a way.
    fn arrival(&mut self, from: usize, to: usize) -> u64 {
        let latency = if self.random.chance(20) {
            self.random.within(MS, 30 * MS)
        } else {
            self.random.within(50, 800)
        };
        let way = self.ways.entry((from, to)).or_default();
        *way = (self.now + latency).max(*way);
        *way
    }

    fn is_quiet_time(&self) -> bool {
        self.now >= FAULTS
    }

    /// True if a node's messages reach the engine, and the engine's the node.
    fn is_reached(&self, node: usize) -> bool {
        self.nodes[node].cut_until <= self.now && self.engine.down_until <= self.now
    }

    pub fn index_of(&self, id: NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id && node.is_alive)
    }

    /// Runs to the end, and checks everything.
    pub fn run(mut self) -> Result<Summary, String> {
        while let Some(Reverse((at, key))) = self.queue.pop() {
            if at > END {
                break;
            }
            self.now = at;
            if self.count > 600_000 {
                let now = self.instant();
                let late = |node: &Node| {
                    let replica = node.replica.as_ref().and_then(|replica| replica.deadline());
                    let since = |at: Instant| now.checked_duration_since(at);
                    (node.id, replica.and_then(since), since(node.membership.deadline()))
                };
                let late: Vec<_> = self.nodes.iter().map(late).collect();
                return Err(format!("I8: no end at {:.3} s: {late:?}", self.now as f64 / 1e6));
            }
            if let Some(event) = self.events.remove(&key) {
                self.event(event).map_err(|why| format!("at {:.3} s: {why}", self.now as f64 / 1e6))?;
            }
        }
        self.summary.claims = self.engine.claims;
        self.summary.purged = self.engine.purged;
        self.summary.most_records = self.engine.most_records;
        self.check()?;
        Ok(self.summary)
    }

    fn event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Node(index, life, what) => self.at_node(index, life, what)?,
            Event::Request { node, life, writer, request, is_answered } => {
                self.request(node, life, writer, request, is_answered)?;
            }
            Event::ReadAll { node, life, question } => {
                if self.is_reached(node) {
                    let records = Some(self.engine.records().to_vec());
                    self.answer(node, life, ReplicaInput::ReadAll { question, records });
                }
            }
            Event::Client(client) => self.client(client),
            Event::Read(client, connection) => self.read(client, connection)?,
            Event::Confirm(client, connection, number) => self.confirm(client, connection, number),
            Event::Fault => self.fault(),
            Event::Restart(index) => {
                let life = self.nodes[index].life + 1;
                self.nodes[index] = self.new_node(index, life);
                self.log(|| format!("node {index} is back"));
                self.wake(index);
            }
            Event::Leave(index, life, is_last) => self.leave(index, life, is_last)?,
        }
        Ok(())
    }

    // Nodes.

    fn wake(&mut self, index: usize) {
        let life = self.nodes[index].life;
        self.push(self.now, Event::Node(index, life, ForNode::Wake));
    }

    fn at_node(&mut self, index: usize, life: u64, what: ForNode) -> Result<(), String> {
        if self.nodes[index].life != life || !self.nodes[index].is_alive {
            return Ok(());
        }
        if self.nodes[index].frozen_until > self.now {
            let thaw = self.nodes[index].frozen_until;
            self.push(thaw, Event::Node(index, life, what));
            return Ok(());
        }
        let now = self.instant();
        let is_owner = |node: &Node| node.replica.as_ref().is_some_and(|replica| replica.room().is_some());
        let owned = is_owner(&self.nodes[index]);
        let task = match what {
            ForNode::Input(input) => {
                let has_replica = self.nodes[index].replica.is_some();
                let is_request = matches!(input, ReplicaInput::Peer { .. });
                if has_replica || is_request {
                    self.handle(index, input)?;
                }
                None
            }
            ForNode::Heartbeat(heartbeat) => self.nodes[index].membership.heard(now, heartbeat),
            ForNode::Probed(node, result) => self.nodes[index].membership.probed(now, node, result),
            ForNode::Goodbye(node) => self.nodes[index].membership.left(node),
            ForNode::Recorded(meeting, through) => {
                self.recorded.insert((meeting, through));
                if self.nodes[index].replica.is_some() {
                    let recorded = RecordedEvents { through, seq: through };
                    self.handle(index, ReplicaInput::Recorded(meeting, recorded))?;
                }
                None
            }
            ForNode::Said(connection, text) => {
                self.nodes[index].unread.push((connection, text));
                None
            }
            ForNode::Join(join) => {
                let (connection, bytes) = (join.connection, 200);
                let result = self.command(index, RemoteCommand::Join(*join), bytes)?;
                if !result {
                    // As a handshake that is answered 503; the client comes back by itself.
                    self.log(|| format!("node {index} has no space for a join"));
                    self.lose_socket(connection, false);
                }
                None
            }
            ForNode::Gone(connection, user) => {
                let gone = Disconnection { connection, is_page_left: false };
                self.nodes[index].unread.retain(|(other, _)| *other != connection);
                self.nodes[index].detach(&user, connection);
                self.command(index, RemoteCommand::Disconnected(gone), 0)?;
                None
            }
            ForNode::Wake => {
                self.nodes[index].wakes_at = u64::MAX;
                if self.nodes[index]
                    .replica
                    .as_ref()
                    .and_then(|replica| replica.deadline())
                    .is_some_and(|at| at <= now)
                {
                    self.handle(index, ReplicaInput::Wake)?;
                }
                None
            }
        };
        if let Some(task) = task {
            self.task(index, task)?;
        }
        let tasks = self.nodes[index].membership.poll(now);
        for task in tasks {
            self.task(index, task)?;
        }
        self.read_sockets(index)?;
        if owned && !is_owner(&self.nodes[index]) {
            let life = self.nodes[index].replica.as_ref().map(|replica| replica.journal().life());
            self.summary.fenced += u64::from(matches!(life, Some(satsuma_cluster::journal::Life::Owned(_))));
        }
        let node = &mut self.nodes[index];
        if node.replica.as_ref().is_some_and(|replica| replica.is_idle()) {
            node.replica = None;
        }
        let replica = node.replica.as_ref().and_then(|replica| replica.deadline());
        let deadline = replica.unwrap_or(node.membership.deadline()).min(node.membership.deadline());
        // A deadline that has passed would be handled again and again, without an end.
        let at = self.micros(deadline).max(self.now + 1);
        if at < self.nodes[index].wakes_at {
            self.nodes[index].wakes_at = at;
            self.push(at, Event::Node(index, life, ForNode::Wake));
        }
        Ok(())
    }

    fn read_sockets(&mut self, index: usize) -> Result<(), String> {
        loop {
            let node = &mut self.nodes[index];
            let has_space = node.replica.as_ref().is_none_or(|replica| replica.has_space());
            if node.unread.is_empty() || !has_space {
                return Ok(());
            }
            let (connection, text) = node.unread.remove(0);
            let bytes = text.len();
            self.command(index, command(connection, &text), bytes)?;
        }
    }

    fn surroundings<T>(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut satsuma::room::replica::RoomReplica, Surroundings<'_>) -> T,
    ) -> T {
        let now = self.instant();
        let at = (1_700_000_000_000 + self.now as i64 / 1000 + self.nodes[index].skew) as u64;
        let node = &mut self.nodes[index];
        node.replica();
        let Node { replica, membership, .. } = node;
        act(replica.as_mut().unwrap(), Surroundings { now, at, membership })
    }

    fn handle(&mut self, index: usize, input: ReplicaInput) -> Result<(), String> {
        self.surroundings(index, |replica, surroundings| replica.handle(surroundings, input));
        self.carry_out(index)
    }

    fn command(&mut self, index: usize, command: RemoteCommand, bytes: usize) -> Result<bool, String> {
        let result =
            self.surroundings(index, |replica, surroundings| replica.command(surroundings, command, bytes));
        self.carry_out(index)?;
        Ok(result.is_ok())
    }

    fn task(&mut self, index: usize, task: Task) -> Result<(), String> {
        match task {
            Task::Heartbeat(heartbeat) => {
                if !self.is_reached(index) {
                    return Ok(());
                }
                for to in 0..self.nodes.len() {
                    self.send(index, to, ForNode::Heartbeat(heartbeat));
                }
            }
            Task::Probe(node) => self.probe(index, node),
            Task::Gone(node) => {
                self.log(|| format!("node {index} takes {node} for gone"));
                if self.nodes[index].replica.is_some() {
                    self.handle(index, ReplicaInput::NodeGone(node))?;
                }
            }
            Task::CutOff => {
                if self.nodes[index].replica.is_some() {
                    self.handle(index, ReplicaInput::Wake)?;
                }
            }
            Task::Rejoined => {
                if self.nodes[index].replica.is_some() {
                    self.handle(index, ReplicaInput::Interrupted)?;
                }
            }
        }
        Ok(())
    }

    fn probe(&mut self, index: usize, node: NodeId) {
        let life = self.nodes[index].life;
        let target = self.index_of(node);
        let (after, result) = match target {
            _ if !self.is_reached(index) => (500 * MS, Probed::Silence),
            None => (MS, Probed::NobodyListens),
            Some(target) if self.is_reached(target) && self.nodes[target].frozen_until <= self.now => {
                (MS, Probed::Answered)
            }
            Some(_) => (500 * MS, Probed::Silence),
        };
        self.push(self.now + after, Event::Node(index, life, ForNode::Probed(node, result)));
    }

    /// Sends something from one node to another through the engine.
    fn send(&mut self, from: usize, to: usize, what: ForNode) {
        let arrives = self.arrival(from, to);
        let is_reached = self.is_reached(from) && self.is_reached(to) && self.nodes[to].is_alive;
        if is_reached {
            let life = self.nodes[to].life;
            self.push(arrives, Event::Node(to, life, what));
        }
    }

    fn carry_out(&mut self, index: usize) -> Result<(), String> {
        let actions = self.nodes[index].replica().take_actions();
        let (now, life) = (self.instant(), self.nodes[index].life);
        let (own, now_micros) = (self.nodes[index].id, self.now);
        let is_alone = self.nodes[index].replica().is_alone();
        let was_alone = std::mem::replace(&mut self.nodes[index].was_alone, is_alone);
        self.summary.alone += u64::from(is_alone && !was_alone);
        for action in actions {
            match action {
                Action::Request { writer, request } => self.ask(index, writer, request)?,
                Action::ReadAll { question } => {
                    if self.is_reached(index) {
                        let at = self.arrival(index, ENGINE);
                        self.push(at, Event::ReadAll { node: index, life, question });
                    }
                }
                Action::Purge { below } => {
                    if self.is_reached(index) {
                        self.engine.purge(below);
                    }
                }
                Action::Send { to, message } => match self.index_of(to) {
                    Some(to) => {
                        let message =
                            PeerMessage::decode(&message.encode()).map_err(|error| error.to_string())?;
                        self.send(index, to, ForNode::Input(ReplicaInput::Peer { from: own, message }));
                    }
                    None => self.probe(index, to),
                },
                Action::Broadcast(broadcast) => {
                    let broadcast =
                        Broadcast::decode(&broadcast.encode()).map_err(|error| error.to_string())?;
                    for to in (0..self.nodes.len()).filter(|to| *to != index).collect::<Vec<_>>() {
                        self.send(index, to, ForNode::Input(ReplicaInput::Broadcast(broadcast.clone())));
                    }
                }
                Action::Deliver(delivery) => {
                    self.log(|| format!("node {index}: {delivery:?}"));
                    if let Delivery::Remove { user, close: Close::RoomFailed } = &delivery {
                        self.taken_back(user);
                    }
                    let engine = (!is_alone).then_some(&self.engine);
                    let admitted = self.nodes[index].deliver(now, delivery, engine)?;
                    if let Some((user, connection, reader)) = admitted {
                        let waiting =
                            self.clients.iter_mut().find(|client| client.connection() == Some(connection));
                        if let Some(client) = waiting {
                            if client.user() != user {
                                return Err(format!("I6: {connection} was admitted as {user}"));
                            }
                            let now = self.now;
                            if let Some(socket) = &mut client.socket {
                                (socket.reader, socket.opened_at) = (Some(reader), now);
                            }
                        }
                    }
                }
                Action::Refuse { connection, refusal } => {
                    self.log(|| format!("node {index} refuses {connection}: {refusal:?}"));
                    self.lose_socket(connection, true);
                }
                Action::Snapshot(json) => self.nodes[index].snapshot(&json),
                Action::Transient(json) => self.nodes[index].transient(&json),
                Action::PurgeEnded { below } => {
                    if self.is_reached(index) {
                        self.engine.purge(below);
                    }
                }
                Action::Publish { meeting, event, .. } => {
                    let longest = if now_micros < TALK { 1200 * MS } else { 2 * MS };
                    let at = now_micros + self.random.within(MS, longest);
                    let at = at.max(self.nodes[index].recorded_at);
                    self.nodes[index].recorded_at = at;
                    self.push(at, Event::Node(index, life, ForNode::Recorded(meeting, event.number)));
                }
                Action::SendAway(close) => self.nodes[index].send_away(close),
                Action::RepeatSnapshot
                | Action::Failed { .. }
                | Action::Answered { .. }
                | Action::Effect(_) => {}
            }
        }
        for client in 0..self.clients.len() {
            let socket = self.clients[client].socket.as_ref();
            let here = socket.filter(|socket| socket.node == (index, life) && socket.reader.is_some());
            if let Some(connection) = here.map(|socket| socket.connection) {
                let after = self.random.within(100, 3 * MS);
                self.push(self.now + after, Event::Read(client, connection));
            }
        }
        Ok(())
    }

    // The engine.

    fn ask(
        &mut self,
        node: usize,
        writer: u64,
        request: Request<satsuma::room::replica::lines::RoomState>,
    ) -> Result<(), String> {
        let life = self.nodes[node].life;
        if self.flaw == Flaw::ShownBeforeStored
            && let Request::Append { entry, expected, .. } = &request
        {
            let record = satsuma_cluster::entry::Record {
                sequence: expected + 1,
                expected: *expected,
                entry: entry.clone(),
            };
            let writer_answer = ReplicaInput::Appended {
                writer,
                question: question_of(&request),
                answer: Appended::Stored(record.sequence),
            };
            self.push(self.now, Event::Node(node, life, ForNode::Input(writer_answer)));
        }
        let mut at = self.arrival(node, ENGINE);
        let is_answered = !self.random.chance(if self.is_quiet_time() { 0 } else { 20 });
        if !self.is_reached(node) {
            // Commands wait in the client of the engine, or in a buffer of the network, and are lost or arrive late.
            let until = self.nodes[node].cut_until.max(self.engine.down_until);
            if matches!(request, Request::ReadLast { .. }) || self.random.chance(500) {
                return Ok(());
            }
            at = until + self.random.within(0, 20 * MS);
        } else if !self.is_quiet_time() && self.random.chance(20) {
            if self.random.chance(300) {
                return Ok(());
            }
            at += self.random.within(100 * MS, 1500 * MS);
            self.summary.late_appends += 1;
        }
        self.push(at, Event::Request { node, life, writer, request, is_answered });
        Ok(())
    }

    fn request(
        &mut self,
        node: usize,
        life: u64,
        writer: u64,
        request: Request<satsuma::room::replica::lines::RoomState>,
        is_answered: bool,
    ) -> Result<(), String> {
        if self.engine.down_until > self.now {
            return Ok(());
        }
        let input = match request {
            Request::ReadLast { question } => {
                ReplicaInput::ReadLast { writer, question, last: Some(self.engine.last().cloned()) }
            }
            Request::Append { question, expected, entry } => {
                let last = self.engine.last().map_or(0, |last| last.sequence);
                let expected = if self.flaw == Flaw::NoCondition { last } else { expected };
                let answer = self.engine.append(expected, &entry)?;
                if let Appended::Stored(sequence) = answer {
                    self.log(|| {
                        format!(
                            "stored {sequence}: {} e{} n{}: {:?}",
                            entry.by, entry.epoch, entry.number, entry.lines
                        )
                    });
                    self.publish();
                } else if entry.is_claim() || self.nodes[node].life == life {
                    self.log(|| {
                        format!(
                            "refused: {} e{} n{} expecting {expected}, not {last}",
                            entry.by, entry.epoch, entry.number
                        )
                    });
                }
                ReplicaInput::Appended { writer, question, answer }
            }
        };
        if is_answered {
            self.answer(node, life, input);
        }
        Ok(())
    }

    fn answer(&mut self, node: usize, life: u64, input: ReplicaInput) {
        let at = self.arrival(ENGINE, node);
        if self.is_reached(node) {
            self.push(at, Event::Node(node, life, ForNode::Input(input)));
        }
    }

    /// Publishes the last entry to all nodes.
    fn publish(&mut self) {
        let Some(record) = self.engine.last().cloned() else { return };
        for to in 0..self.nodes.len() {
            let at = self.arrival(ENGINE, to);
            let is_lost = !self.is_quiet_time() && self.random.chance(30);
            if is_lost {
                self.summary.lost_entries += 1;
            } else if self.is_reached(to) && self.nodes[to].is_alive {
                let life = self.nodes[to].life;
                self.push(at, Event::Node(to, life, ForNode::Input(ReplicaInput::Stored(record.clone()))));
            }
        }
    }

    // Clients.

    fn client(&mut self, index: usize) {
        let now = self.now;
        if self.clients[index].socket.is_none() {
            if self.clients[index].connects_at <= now {
                self.connect(index);
            }
        } else if self.clients[index].is_open() && now < TALK {
            self.talk(index);
        }
        let next = self.random.within(30 * MS, 600 * MS);
        self.push(now + next, Event::Client(index));
    }

    fn connect(&mut self, index: usize) {
        let up: Vec<usize> = (0..self.nodes.len())
            .filter(|at| self.nodes[*at].is_alive && !self.nodes[*at].is_draining)
            .collect();
        let Some(&any) = self.random.pick(&up) else { return };
        let on = |node: &usize| {
            let sockets = self.clients.iter().filter_map(|client| client.socket.as_ref());
            sockets.filter(|socket| socket.node.0 == *node).count()
        };
        let fullest = up.iter().copied().max_by_key(on).unwrap_or(any);
        let node = if self.is_gathered && !self.random.chance(50) { fullest } else { any };
        self.nodes[node].connections += 1;
        let connection = ConnectionId::new(self.nodes[node].id, self.nodes[node].connections);
        let life = self.nodes[node].life;
        // What it saw at a node that was alone may never be.
        if self.clients[index].left_alone.take().is_some_and(|left| left != (node, life)) {
            self.clients[index].begin_anew();
        }
        let join = self.clients[index].join(connection, &mut self.random);
        self.clients[index].socket =
            Some(Socket { connection, node: (node, life), reader: None, opened_at: 0 });
        self.clients[index].next_heartbeat = self.now;
        let at = self.now + self.random.within(MS, 20 * MS);
        self.push(at, Event::Node(node, life, ForNode::Join(join.into())));
    }

    fn talk(&mut self, index: usize) {
        if self.clients[index].next_heartbeat <= self.now {
            self.clients[index].next_heartbeat = self.now + 3 * S;
            self.say(index, r#"{"type":"heartbeat"}"#.to_owned());
        }
        if self.random.chance(8) && !self.is_quiet_time() {
            self.say(index, r#"{"type":"userLeft"}"#.to_owned());
            return;
        }
        if self.random.chance(15) && !self.is_quiet_time() {
            let connection = self.clients[index].connection().unwrap();
            self.log(|| format!("client {index} drops {connection}"));
            self.lose_socket(connection, true);
            return;
        }
        let others: Vec<UserId> = self.clients.iter().map(Client::user).collect();
        let burst = if self.random.chance(50) { 8 } else { 1 };
        for _ in 0..burst {
            let (message, text) = self.clients[index].say(&others, &mut self.random);
            if let Some((text, is_event)) = text {
                let connection = self.clients[index].connection().unwrap();
                self.said.push(Said { connection, text, at: self.now, is_event });
            }
            self.say(index, message);
        }
    }

    fn say(&mut self, index: usize, text: String) {
        let Some(Socket { connection, node: (node, life), .. }) = &self.clients[index].socket else { return };
        let (connection, node, life) = (*connection, *node, *life);
        let way = self.ways.entry((1000 + index, node)).or_default();
        *way = (self.now + 300).max(*way);
        let at = *way;
        self.push(at, Event::Node(node, life, ForNode::Said(connection, text)));
    }

    /// Ends a socket from the client's side, or for both.
    fn lose_socket(&mut self, connection: ConnectionId, tells_node: bool) {
        let now = self.now;
        let Some(index) = self.clients.iter().position(|client| client.connection() == Some(connection))
        else {
            return;
        };
        let Some(Socket { node: (node, life), .. }) = self.clients[index].socket.take() else { return };
        let at = &self.nodes[node];
        if at.is_alive && at.life == life && at.replica.as_ref().is_some_and(RoomReplica::is_alone) {
            self.clients[index].left_alone = Some((node, life));
        }
        self.ended.push(connection);
        self.clients[index].connects_at = now + self.random.within(200 * MS, 3 * S);
        if tells_node {
            let user = self.clients[index].user();
            let way = self.ways.entry((1000 + index, node)).or_default();
            *way = (now + 400).max(*way);
            let at = *way;
            self.push(at, Event::Node(node, life, ForNode::Gone(connection, user)));
        }
    }

    /// A member was shown what never was, and is not there to be told so.
    fn taken_back(&mut self, user: &UserId) {
        self.summary.taken_back += 1;
        let Some(index) = self.clients.iter().position(|client| client.user() == *user) else { return };
        if self.clients[index].is_open() {
            return;
        }
        if let Some(connection) = self.clients[index].connection() {
            self.lose_socket(connection, true);
        }
        self.clients[index].begin_anew();
    }

    fn read(&mut self, index: usize, connection: ConnectionId) -> Result<(), String> {
        let Some(socket) =
            self.clients[index].socket.as_ref().filter(|socket| socket.connection == connection)
        else {
            return Ok(());
        };
        let (node, life) = socket.node;
        if self.nodes[node].life != life || self.nodes[node].frozen_until > self.now {
            return Ok(());
        }
        let Some(reader) = socket.reader.clone() else { return Ok(()) };
        while let Poll::Ready(taken) = reader.poll_take(&Context::from_waker(Waker::noop())) {
            match taken {
                Taken::Message(payload) => {
                    let text =
                        String::from_utf8(payload.bytes.to_vec()).map_err(|error| error.to_string())?;
                    if text.starts_with(r#"{"type":"roomState""#) {
                        self.clients[index].snapshot = text;
                    } else if !text.starts_with(r#"{"type":"chatHistory""#) {
                        self.clients[index].told.push(text);
                    }
                }
                Taken::Ping(number) => {
                    let after = self.random.within(500, 20 * MS);
                    self.push(self.now + after, Event::Confirm(index, connection, number));
                }
                Taken::Close(close) => {
                    self.log(|| format!("client {index} is closed: {close:?}"));
                    self.lose_socket(connection, true);
                    if close != Close::Superseded && close != Close::ServiceRestart {
                        self.clients[index].begin_anew();
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn confirm(&mut self, index: usize, connection: ConnectionId, number: u64) {
        let Some(socket) =
            self.clients[index].socket.as_ref().filter(|socket| socket.connection == connection)
        else {
            return;
        };
        let ((node, life), Some(reader)) = (socket.node, socket.reader.clone()) else { return };
        if self.nodes[node].life != life {
            return;
        }
        if self.nodes[node].frozen_until > self.now {
            let thaw = self.nodes[node].frozen_until;
            self.push(thaw, Event::Confirm(index, connection, number));
            return;
        }
        reader.acknowledge(self.instant().into(), number);
        let user = self.clients[index].user();
        if let Some(number) = self.nodes[node].event_number(&user, number) {
            let input = ReplicaInput::Confirmed { user, number };
            self.push(self.now, Event::Node(node, life, ForNode::Input(input)));
        }
    }

    // Faults.

    fn fault(&mut self) {
        if self.is_quiet_time() {
            return;
        }
        let next = self.random.within(500 * MS, 5 * S);
        self.push(self.now + next, Event::Fault);
        let index = self.random.within(0, NODES as u64) as usize;
        let is_deadly = self.losses != Losses::Recoverable;
        if !self.nodes[index].is_alive {
            return;
        }
        match self.random.within(0, 100) {
            0..30 if is_deadly => {
                self.log(|| format!("node {index} is killed"));
                self.summary.kills += 1;
                self.kill(index);
            }
            30..50 if is_deadly && self.nodes[index].frozen_until <= self.now => {
                let time = self.random.within(100 * MS, 5 * S);
                self.log(|| format!("node {index} is frozen for {} ms", time / MS));
                self.summary.freezes += 1;
                self.nodes[index].frozen_until = self.nodes[index].frozen_until.max(self.now + time);
            }
            50..70 if is_deadly => {
                let time = self.outage(100 * MS, 6 * S);
                self.log(|| format!("node {index} is cut off for {} ms", time / MS));
                self.summary.cuts += 1;
                self.nodes[index].cut_until = self.nodes[index].cut_until.max(self.now + time);
            }
            70..80 => {
                let time = self.outage(200 * MS, 7 * S);
                self.log(|| format!("the engine is away for {} ms", time / MS));
                self.summary.pauses += 1;
                self.engine.down_until = self.engine.down_until.max(self.now + time);
            }
            80..95 if is_deadly && !self.nodes[index].is_draining => {
                self.log(|| format!("node {index} leaves"));
                self.summary.drains += 1;
                let life = self.nodes[index].life;
                self.nodes[index].is_draining = true;
                self.nodes[index].membership.drain();
                self.push(self.now, Event::Leave(index, life, false));
            }
            _ if self.losses != Losses::None => {
                let entries = self.random.within(1, 6) as usize;
                self.log(|| format!("the engine loses {entries} entries"));
                self.summary.lost_ends += 1;
                self.engine.lose_end(entries);
            }
            _ => {}
        }
    }

    /// The length of an interruption, which is over soon after the last fault.
    fn outage(&mut self, shortest: u64, longest: u64) -> u64 {
        if self.has_long_outages && self.random.chance(500) {
            let left = FAULTS + longest - self.now;
            return self.random.within(10 * S, 30 * S).min(left);
        }
        self.random.within(shortest, longest)
    }

    fn kill(&mut self, index: usize) {
        let was_alone = self.nodes[index].replica.as_ref().is_some_and(RoomReplica::is_alone);
        self.nodes[index].is_alive = false;
        self.nodes[index].replica = None;
        let own: Vec<ConnectionId> = self
            .clients
            .iter()
            .filter_map(|client| client.socket.as_ref().filter(|socket| socket.node.0 == index))
            .map(|socket| socket.connection)
            .collect();
        for connection in own {
            let client = self.clients.iter().position(|client| client.connection() == Some(connection));
            self.lose_socket(connection, false);
            // They saw what is lost with the node.
            if let Some(client) = client.filter(|_| was_alone) {
                self.clients[client].begin_anew();
            }
        }
        let after = self.random.within(S, 5 * S);
        self.push(self.now + after, Event::Restart(index));
    }

    fn leave(&mut self, index: usize, life: u64, is_last: bool) -> Result<(), String> {
        if self.nodes[index].life != life || !self.nodes[index].is_alive {
            return Ok(());
        }
        if is_last {
            let goodbye = self.nodes[index].id;
            for to in 0..self.nodes.len() {
                self.send(index, to, ForNode::Goodbye(goodbye));
            }
            self.kill(index);
            return Ok(());
        }
        if self.nodes[index].replica.is_some() {
            self.push(self.now, Event::Node(index, life, ForNode::Input(ReplicaInput::Leave)));
        }
        self.push(self.now + 500 * MS, Event::Leave(index, life, true));
        Ok(())
    }
}

fn question_of<S: satsuma_cluster::entry::State>(request: &Request<S>) -> u64 {
    match request {
        Request::Append { question, .. } | Request::ReadLast { question } => *question,
    }
}

/// The text of an event, if it is one that a client said.
pub fn text_of(json: &Arc<str>) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(json).ok()?;
    let text = value.get("message").or_else(|| value.get("payload"))?;
    text.as_str().map(str::to_owned)
}
