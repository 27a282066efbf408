//! A replica that is alone with an engine that never fails. What several do is the simulation's.

use std::sync::Arc;

use satsuma_cluster::Membership;
use satsuma_cluster::entry::{Entry, Line, Record};
use satsuma_cluster::writer::{Appended, Request};

use super::*;
use crate::config::ModeratorDefault;
use crate::id::{ConnectionId, Grants, IdentityId, MeetingId, UserId};
use crate::protocol::close::Close;
use crate::room::chat::HistoryLimits;
use crate::room::io::{Join, Liveness};
use crate::room::rules::RoomRules;
use crate::room::watch::WatchSettings;

const NODE: NodeId = NodeId::new(1);

struct Alone {
    replica: RoomReplica,
    membership: Membership,
    now: Instant,
    records: Vec<Record<RoomState>>,
    /// The snapshots that were shown again, and the closes of all sockets.
    repeated: usize,
    sent_away: Vec<Close>,
    answers: bool,
}

fn settings() -> RoomSettings {
    RoomSettings {
        tick: Duration::from_secs(60),
        heartbeat_timeout: Duration::from_secs(15),
        restore_grace: Duration::from_secs(15),
        members: 100,
        members_per_identity: 0,
        members_per_network: 0,
        user_bytes: 8192,
        ai_starts_per_minute: 0,
        moderators: ModeratorDefault::First,
        rules: RoomRules::default(),
        assistant: None,
        watch: WatchSettings::default(),
        files: false,
        chat: HistoryLimits::default(),
    }
}

impl Alone {
    #[expect(clippy::disallowed_methods, reason = "an instant can only be had from the clock")]
    fn new() -> Self {
        let now = Instant::now();
        let name = RoomName::parse("r").unwrap();
        let replica = RoomReplica::new(name, settings(), NODE, 1);
        let (membership, records) = (Membership::new(now, NODE), Vec::new());
        Self { replica, membership, now, records, repeated: 0, sent_away: Vec::new(), answers: true }
    }

    /// Another node takes the room over from this one, and has no sockets.
    fn next_node(self, node: NodeId) -> Self {
        let name = RoomName::parse("r").unwrap();
        let replica = RoomReplica::new(name, settings(), node, 1);
        Self { replica, membership: Membership::new(self.now, node), ..self }
    }

    fn join(&mut self, user: &str) {
        self.join_with(user, Liveness::Connection);
    }

    fn join_with(&mut self, user: &str, liveness: Liveness) {
        let connection = ConnectionId::new(self.membership.own(), 1);
        let join = Join {
            connection,
            user: UserId::parse(user).unwrap(),
            identity: IdentityId::new("cookie:a"),
            name: "A".into(),
            grants: Grants::everyone(),
            network: None,
            new_meeting: MeetingId::from_bytes([7; 16]),
            presence: false,
            liveness,
            password: None,
        };
        let surroundings = Surroundings { now: self.now, at: 0, membership: &self.membership };
        self.replica.command(surroundings, RemoteCommand::Join(join), 0).unwrap();
        self.settle();
    }

    fn input(&mut self, input: ReplicaInput) {
        let surroundings = Surroundings { now: self.now, at: 0, membership: &self.membership };
        self.replica.handle(surroundings, input);
    }

    /// Answers all requests.
    fn settle(&mut self) {
        loop {
            let actions = self.replica.take_actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::RepeatSnapshot => self.repeated += 1,
                    Action::SendAway(close) => self.sent_away.push(close),
                    Action::Request { .. } | Action::ReadAll { .. } if !self.answers => {}
                    Action::Request { writer, request: Request::Append { question, expected, entry } } => {
                        let answer = self.append(expected, entry);
                        self.input(ReplicaInput::Appended { writer, question, answer });
                    }
                    Action::Request { writer, request: Request::ReadLast { question } } => {
                        let last = Some(self.records.last().cloned());
                        self.input(ReplicaInput::ReadLast { writer, question, last });
                    }
                    Action::ReadAll { question } => {
                        let records = Some(self.records.clone());
                        self.input(ReplicaInput::ReadAll { question, records });
                    }
                    Action::Purge { below } | Action::PurgeEnded { below } => {
                        self.records.retain(|record| record.sequence >= below)
                    }
                    _ => {}
                }
            }
        }
    }

    fn append(&mut self, expected: u64, entry: Arc<Entry<RoomState>>) -> Appended {
        let last = self.records.last().map_or(0, |last| last.sequence);
        if last != expected {
            return Appended::Refused;
        }
        self.records.push(Record { sequence: last + 1, expected, entry });
        Appended::Stored(last + 1)
    }

    /// Lets time pass.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.replica.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(ReplicaInput::Wake);
            self.settle();
        }
        self.now = end;
    }

    /// The first node is gone.
    fn lose_owner(&mut self) {
        let probed = satsuma_cluster::membership::Probed::NobodyListens;
        for _ in 0..2 {
            self.now += Duration::from_secs(2);
            let own = satsuma_cluster::membership::Heartbeat {
                node: self.membership.own(),
                number: 1,
                version: 1,
                is_draining: false,
            };
            self.membership.heard(self.now, own);
            self.membership.probed(self.now, NODE, probed);
        }
        assert!(!self.membership.is_alive(NODE));
    }

    fn whole_states(&self) -> usize {
        let lines = self.records.iter().flat_map(|record| &record.entry.lines);
        lines.filter(|line| matches!(line, Line::Whole(_))).count()
    }
}

/// The engine removes what is a day old.
#[test]
fn quiet_room_writes_its_whole_state() {
    let mut alone = Alone::new();
    alone.join("a");
    alone.wait(Duration::from_secs(5 * 60 * 60));
    assert!(alone.replica.room().is_some() && alone.whole_states() == 0);
    alone.wait(Duration::from_secs(2 * 60 * 60));
    assert_eq!(alone.whole_states(), 1);
    assert_eq!(alone.records[0].entry.lines.len(), alone.whole_states(), "what was before is purged");
    let first = alone.records[0].sequence;
    alone.wait(Duration::from_secs(24 * 60 * 60));
    assert!(alone.records[0].sequence > first, "the oldest entry is never a day old");
    let records = alone.records.clone();
    assert!(Journal::read_back(&records).state().meeting().is_some());
}

/// The engine is away: this node does not hear itself.
fn cut_off(alone: &mut Alone) {
    alone.answers = false;
    alone.membership.poll(alone.now + satsuma_cluster::membership::CUT_OFF_AFTER);
    assert!(alone.membership.is_cut_off());
}

/// A heartbeat comes back.
fn reconnect(alone: &mut Alone) {
    let node = alone.membership.own();
    let heartbeat =
        satsuma_cluster::membership::Heartbeat { node, number: 9, version: 1, is_draining: false };
    alone.membership.heard(alone.now, heartbeat);
    alone.answers = true;
    alone.input(ReplicaInput::Interrupted);
    alone.settle();
}

#[test]
fn nobody_is_silent_while_the_engine_is_away() {
    let mut alone = Alone::new();
    alone.join_with("a", Liveness::Heartbeat);
    alone.wait(Duration::from_secs(10));
    cut_off(&mut alone);
    alone.wait(Duration::from_secs(600));
    assert_eq!(alone.replica.room().unwrap().members().len(), 1);
    assert!(alone.sent_away.is_empty(), "the owner goes on");
    reconnect(&mut alone);
    alone.wait(Duration::from_secs(14));
    assert_eq!(alone.replica.room().unwrap().members().len(), 1, "the time begins anew");
    alone.wait(Duration::from_secs(120));
    assert!(alone.replica.room().is_none(), "and ends");
}

#[test]
fn sockets_of_a_node_that_is_cut_off_are_sent_away() {
    let mut alone = Alone::new();
    cut_off(&mut alone);
    alone.join("a");
    alone.wait(Duration::from_secs(19));
    assert_eq!((alone.repeated, &alone.sent_away[..]), (0, &[][..]));
    alone.wait(Duration::from_secs(200));
    assert_eq!(
        (alone.repeated, &alone.sent_away[..]),
        (3, &[Close::ServiceRestart][..]),
        "once a tick, and once"
    );
    reconnect(&mut alone);
    alone.wait(Duration::from_secs(1));
    assert!(alone.replica.room().is_some());
    cut_off(&mut alone);
    alone.wait(Duration::from_secs(100));
    assert_eq!(alone.sent_away.len(), 1, "an owner's sockets stay");
}

/// The owner is gone, and nobody returns.
#[test]
fn orphan_ends_when_the_time_of_its_members_is_over() {
    let mut alone = Alone::new();
    alone.join("a");
    alone.wait(Duration::from_secs(1));
    let mut next = alone.next_node(NodeId::new(2));
    next.lose_owner();
    next.input(ReplicaInput::Wake);
    next.settle();
    assert!(next.replica.is_idle(), "whoever is not told to does not claim it");
    next.replica.adopt();
    next.input(ReplicaInput::Wake);
    next.settle();
    next.wait(Duration::from_secs(1));
    assert_eq!(next.replica.room().map(|room| room.members().len()), Some(1));
    next.wait(Duration::from_secs(120));
    assert!(next.replica.room().is_none() && next.replica.is_idle());
    let [last] = &next.records[..] else { panic!("not purged: {:?}", next.records) };
    assert_eq!(last.entry.lines.last(), Some(&Line::Ended));
}

/// The state of the room makes whoever has it fail.
#[test]
fn condemned_room_is_ended_and_another_begins() {
    let mut alone = Alone::new();
    alone.join("a");
    alone.wait(Duration::from_secs(1));
    let mut next = alone.next_node(NodeId::new(2));
    next.lose_owner();
    next.replica.condemn();
    next.join("b");
    next.wait(Duration::from_secs(1));
    let ended = next.records.iter().position(|record| record.entry.lines.contains(&Line::Ended)).unwrap();
    assert!(next.records[ended].entry.is_claim(), "nothing was done with it");
    let members: Vec<UserId> = next.replica.room().unwrap().members().map(|member| member.user).collect();
    assert_eq!(members, [UserId::parse("b").unwrap()]);
}

/// The one before may have been about to.
#[test]
fn next_owner_soon_writes_a_whole_state() {
    let mut alone = Alone::new();
    alone.join("a");
    alone.wait(Duration::from_secs(1));
    let mut next = alone.next_node(NodeId::new(2));
    next.lose_owner();
    next.join("b");
    next.wait(Duration::from_secs(5));
    assert!(next.replica.room().is_some() && next.whole_states() == 0, "{:?}", next.records);
    next.wait(Duration::from_secs(60));
    assert_eq!(next.whole_states(), 1, "{:?}", next.records);
}
