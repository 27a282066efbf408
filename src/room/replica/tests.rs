//! A replica that is alone with an engine that never fails. What several do is the simulation's.

use std::sync::Arc;

use satsuma_cluster::Membership;
use satsuma_cluster::entry::{Entry, Line, Record};
use satsuma_cluster::writer::{Appended, Request};

use super::*;
use crate::config::ModeratorDefault;
use crate::id::{ConnectionId, Grants, IdentityId, MeetingId, UserId};
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
        Self { replica, membership: Membership::new(now, NODE), now, records: Vec::new() }
    }

    /// Another node takes the room over from this one, and has no sockets.
    fn next_node(self, node: NodeId) -> Self {
        let name = RoomName::parse("r").unwrap();
        let replica = RoomReplica::new(name, settings(), node, 1);
        Self { replica, membership: Membership::new(self.now, node), ..self }
    }

    fn join(&mut self, user: &str) {
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
            liveness: Liveness::Connection,
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
                    Action::Purge { below } => self.records.retain(|record| record.sequence >= below),
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

/// The one before may have been about to.
#[test]
fn next_owner_soon_writes_a_whole_state() {
    let mut alone = Alone::new();
    alone.join("a");
    alone.wait(Duration::from_secs(1));
    let mut next = alone.next_node(NodeId::new(2));
    let probed = satsuma_cluster::membership::Probed::NobodyListens;
    for _ in 0..2 {
        next.now += Duration::from_secs(2);
        let own = satsuma_cluster::membership::Heartbeat {
            node: NodeId::new(2),
            number: 1,
            version: 1,
            is_draining: false,
        };
        next.membership.heard(next.now, own);
        next.membership.probed(next.now, NODE, probed);
    }
    assert!(!next.membership.is_alive(NODE));
    next.join("b");
    next.wait(Duration::from_secs(5));
    assert!(next.replica.room().is_some() && next.whole_states() == 0, "{:?}", next.records);
    next.wait(Duration::from_secs(60));
    assert_eq!(next.whole_states(), 1, "{:?}", next.records);
}
