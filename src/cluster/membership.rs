//! The nodes that are alive, as one of them sees it: heartbeats, suspicion, and a second proof.
//!
//! A node is *gone* if it says goodbye; if three heartbeats are missing and the engine says that nobody listens at its
//! address; or if six are missing and a probe gets no answer. A wrong verdict costs work and never correctness: the
//! journal decides who owns what. Silence counts only while this node hears itself through the engine:
//! one that is cut off would take all others for dead.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::node::NodeId;

/// Time between two heartbeats.
pub const HEARTBEAT: Duration = Duration::from_millis(250);

/// Silence after which a node is suspected, and asked.
pub const SUSPECTED_AFTER: Duration = Duration::from_millis(750);

/// Silence after which a node without an answer to a probe is gone.
pub const GONE_AFTER: Duration = Duration::from_millis(1500);

/// Time for the answer to a probe.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// Time between the two proofs that nobody listens at a node's address, in place of missing heartbeats.
pub const SECOND_PROOF: Duration = Duration::from_millis(100);

/// Time without an own heartbeat after which this node counts itself as cut off.
pub const CUT_OFF_AFTER: Duration = Duration::from_secs(1);

/// Time after the end of a cut in which nobody is declared gone.
pub const SETTLING: Duration = Duration::from_secs(1);

/// Time for which a node that is gone is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(600);

/// Maximum number of nodes. More are ignored, so that made-up ids do not fill the memory.
pub const MAX_NODES: usize = 1024;

/// A sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The node.
    pub node: NodeId,
    /// One more than that of its last heartbeat.
    pub number: u64,
    /// The newest version of the entries that it reads.
    pub version: u16,
    /// True if it takes no more subjects.
    pub is_draining: bool,
}

/// A task for whoever owns the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Send a heartbeat to everyone, this node too.
    Heartbeat(Heartbeat),
    /// Ask a node for an answer, and tell the result by [`Membership::probed`].
    Probe(NodeId),
    /// A node is gone: its subjects may be claimed.
    Gone(NodeId),
    /// This node does not hear itself: it knows nothing of others.
    CutOff,
    /// It hears itself again.
    Rejoined,
}

/// Result of a probe, or of any request to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// It answered.
    Answered,
    /// Nobody listens at its address.
    NobodyListens,
    /// Nothing came in time.
    Silence,
}

/// The nodes, as this one sees them.
#[derive(Clone, Debug)]
pub struct Membership {
    own: NodeId,
    next_heartbeat: Instant,
    polled: Instant,
    number: u64,
    is_draining: bool,
    /// Time of the last own heartbeat that came back.
    heard_itself: Instant,
    is_cut_off: bool,
    /// Nobody is declared gone before.
    settled_at: Instant,
    nodes: BTreeMap<NodeId, Node>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    heard: Instant,
    number: u64,
    version: u16,
    is_draining: bool,
    probe: Probe,
    is_gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    None,
    Asked(Instant),
    /// Nobody listened for the first time, and the next probe is due.
    NobodyListens {
        first: Instant,
        next: Instant,
    },
    Silence,
}

impl Membership {
    /// A node that has heard nothing yet.
    pub fn new(now: Instant, own: NodeId) -> Self {
        Self {
            own,
            next_heartbeat: now,
            polled: now,
            number: 0,
            is_draining: false,
            heard_itself: now,
            is_cut_off: false,
            settled_at: now + SETTLING,
            nodes: BTreeMap::new(),
        }
    }

    /// This node's id.
    pub fn own(&self) -> NodeId {
        self.own
    }

    /// True if this node takes no more subjects.
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Says in heartbeats that this node takes no more subjects.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// True if the node may be alive: it was heard of, or it is not known for long enough to be missed.
    pub fn is_alive(&self, node: NodeId) -> bool {
        node == self.own || self.nodes.get(&node).is_none_or(|node| !node.is_gone)
    }

    /// True if the node was heard of, and is not forgotten.
    pub fn knows(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node)
    }

    /// Time of a node's last sign of life; none if it is not known.
    pub fn last_heard(&self, node: NodeId) -> Option<Instant> {
        self.nodes.get(&node).map(|node| node.heard)
    }

    /// Number of other nodes that are alive.
    pub fn living(&self) -> usize {
        self.nodes.values().filter(|node| !node.is_gone).count()
    }

    /// Number of other nodes that are known, those that are gone too.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True if no other node is known.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The nodes that are alive and take subjects, this one too unless it is draining.
    pub fn takers(&self) -> impl Iterator<Item = NodeId> {
        let others = self.nodes.iter().filter(|(_, node)| !node.is_gone && !node.is_draining);
        let own = (!self.is_draining).then_some(self.own);
        own.into_iter().chain(others.map(|(id, _)| *id))
    }

    /// The newest version of entries that all living nodes read; `own` is this node's.
    pub fn version(&self, own: u16) -> u16 {
        let others = self.nodes.values().filter(|node| !node.is_gone).map(|node| node.version);
        others.fold(own, u16::min)
    }

    /// True if this node does not hear itself.
    pub fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    /// Takes a heartbeat, this node's own ones as well.
    pub fn heard(&mut self, now: Instant, heartbeat: Heartbeat) -> Option<Task> {
        let Heartbeat { node, number, version, is_draining } = heartbeat;
        if node == self.own {
            self.heard_itself = now;
            return self.rejoin(now);
        }
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(&node) {
            return None;
        }
        let fresh = Node { heard: now, number, version, is_draining, probe: Probe::None, is_gone: false };
        let known = self.nodes.entry(node).or_insert(fresh);
        if number >= known.number {
            // A node that was taken for gone is back; it finds out by itself what it lost.
            *known = fresh;
        }
        None
    }

    fn rejoin(&mut self, now: Instant) -> Option<Task> {
        if !self.is_cut_off {
            return None;
        }
        self.is_cut_off = false;
        self.settled_at = now + SETTLING;
        for node in self.nodes.values_mut().filter(|node| !node.is_gone) {
            // Their silence was this node's deafness.
            (node.heard, node.probe) = (now, Probe::None);
        }
        Some(Task::Rejoined)
    }

    /// Takes the goodbye of a node.
    pub fn left(&mut self, node: NodeId) -> Option<Task> {
        let known = self.nodes.get_mut(&node).filter(|known| !known.is_gone)?;
        known.is_gone = true;
        Some(Task::Gone(node))
    }

    fn expect(&mut self, now: Instant, node: NodeId) {
        if node != self.own && self.nodes.len() < MAX_NODES {
            self.nodes.entry(node).or_insert(Node {
                heard: now,
                number: 0,
                version: u16::MAX,
                is_draining: false,
                probe: Probe::None,
                is_gone: false,
            });
        }
    }

    /// Takes the result of a probe, or of any other request to a node. One that was never heard of is known from then
    /// on, as that which a journal names after all its readers were started anew.
    pub fn probed(&mut self, now: Instant, node: NodeId, result: Probed) -> Option<Task> {
        self.expect(now, node);
        let is_settled = !self.is_cut_off && now >= self.settled_at;
        let known = self.nodes.get_mut(&node).filter(|known| !known.is_gone)?;
        match result {
            Probed::Answered => (known.heard, known.probe) = (now, Probe::None),
            Probed::NobodyListens => {
                let is_missed = now.saturating_duration_since(known.heard) >= SUSPECTED_AFTER;
                let is_second =
                    matches!(known.probe, Probe::NobodyListens { first, .. } if first + SECOND_PROOF <= now);
                if is_settled && (is_missed || is_second) {
                    known.is_gone = true;
                    return Some(Task::Gone(node));
                }
                if !matches!(known.probe, Probe::NobodyListens { .. }) {
                    known.probe = Probe::NobodyListens { first: now, next: now + SECOND_PROOF };
                }
            }
            Probed::Silence => {
                if !matches!(known.probe, Probe::NobodyListens { .. }) {
                    known.probe = Probe::Silence;
                }
            }
        }
        None
    }

    /// The tasks that are due now.
    pub fn poll(&mut self, now: Instant) -> Vec<Task> {
        let mut tasks = Vec::new();
        self.polled = now;
        if now >= self.next_heartbeat {
            self.number += 1;
            self.next_heartbeat = now + HEARTBEAT;
            tasks.push(Task::Heartbeat(Heartbeat {
                node: self.own,
                number: self.number,
                version: crate::entry::VERSION,
                is_draining: self.is_draining,
            }));
        }
        if !self.is_cut_off && now.saturating_duration_since(self.heard_itself) >= CUT_OFF_AFTER {
            self.is_cut_off = true;
            tasks.push(Task::CutOff);
        }
        if self.is_cut_off {
            return tasks;
        }
        self.nodes.retain(|_, node| !node.is_gone || now.saturating_duration_since(node.heard) < REMEMBERED);
        for (id, node) in self.nodes.iter_mut().filter(|(_, node)| !node.is_gone) {
            let silence = now.saturating_duration_since(node.heard);
            match node.probe {
                Probe::Asked(at) if now.saturating_duration_since(at) >= PROBE_TIMEOUT => {
                    node.probe = Probe::Silence;
                }
                Probe::NobodyListens { first, next } if next <= now => {
                    tasks.push(Task::Probe(*id));
                    node.probe = Probe::NobodyListens { first, next: now + SECOND_PROOF };
                }
                _ => {}
            }
            match node.probe {
                Probe::Silence if silence >= GONE_AFTER && now >= self.settled_at => {
                    node.is_gone = true;
                    tasks.push(Task::Gone(*id));
                }
                Probe::None if silence >= SUSPECTED_AFTER => {
                    node.probe = Probe::Asked(now);
                    tasks.push(Task::Probe(*id));
                }
                _ => {}
            }
        }
        tasks
    }

    /// Time of the next [poll](Self::poll).
    pub fn deadline(&self) -> Instant {
        // A date that the last poll could do nothing about waits for the next heartbeat.
        let dates = self.nodes.values().filter_map(Node::due).filter(|due| *due > self.polled);
        dates.fold(self.next_heartbeat, Instant::min)
    }
}

impl Node {
    fn due(&self) -> Option<Instant> {
        match self.probe {
            _ if self.is_gone => None,
            Probe::None => None,
            Probe::Asked(at) => Some(at + PROBE_TIMEOUT),
            Probe::NobodyListens { next, .. } => Some(next),
            Probe::Silence => Some(self.heard + GONE_AFTER),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: NodeId = NodeId::new(1);
    const OTHER: NodeId = NodeId::new(2);

    #[expect(clippy::disallowed_methods, reason = "an instant can only be had from the clock")]
    fn start() -> Instant {
        Instant::now()
    }

    /// A node's view, with time passing in steps.
    struct Stage {
        membership: Membership,
        start: Instant,
        now: Instant,
        /// True while this node's heartbeats come back, and while the other's arrive.
        hears_itself: bool,
        hears_other: bool,
        /// The answer to probes.
        answer: Option<Probed>,
        number: u64,
        tasks: Vec<(u128, Task)>,
    }

    impl Stage {
        fn new() -> Self {
            let now = start();
            let membership = Membership::new(now, OWN);
            Self {
                membership,
                start: now,
                now,
                hears_itself: true,
                hears_other: true,
                answer: None,
                number: 0,
                tasks: Vec::new(),
            }
        }

        fn run(&mut self, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                for task in self.membership.poll(self.now) {
                    self.task(task);
                }
                self.now = self.membership.deadline().min(end).max(self.now + Duration::from_millis(1));
            }
        }

        fn task(&mut self, task: Task) {
            match task {
                Task::Heartbeat(heartbeat) => {
                    if self.hears_itself {
                        let news = self.membership.heard(self.now, heartbeat);
                        news.into_iter().for_each(|task| self.task(task));
                    }
                    if self.hears_other && self.hears_itself {
                        self.number += 1;
                        let heartbeat = Heartbeat { node: OTHER, number: self.number, ..heartbeat };
                        assert_eq!(self.membership.heard(self.now, heartbeat), None);
                    }
                }
                Task::Probe(node) => {
                    if let Some(answer) = self.answer {
                        let news = self.membership.probed(self.now, node, answer);
                        news.into_iter().for_each(|task| self.task(task));
                    }
                }
                news => self.tasks.push(((self.now - self.start).as_millis(), news)),
            }
        }

        fn gone_after(&self, since: u128) -> u128 {
            match self.tasks[..] {
                [(at, Task::Gone(OTHER))] => at - since,
                _ => panic!("{:?}", self.tasks),
            }
        }
    }

    #[test]
    fn killed_node_is_gone_within_a_second() {
        let mut stage = Stage::new();
        stage.run(Duration::from_secs(10));
        assert!(stage.membership.is_alive(OTHER) && stage.tasks.is_empty());
        (stage.hears_other, stage.answer) = (false, Some(Probed::NobodyListens));
        stage.run(Duration::from_secs(5));
        let after = stage.gone_after(10_000);
        assert!((500..=1000).contains(&after), "{after}");
        assert!(!stage.membership.is_alive(OTHER));
        assert_eq!(stage.membership.takers().collect::<Vec<_>>(), [OWN]);
    }

    #[test]
    fn request_without_a_listener_is_proof_with_a_second_one() {
        let mut stage = Stage::new();
        stage.run(Duration::from_secs(10));
        (stage.hears_other, stage.answer) = (false, Some(Probed::NobodyListens));
        assert_eq!(stage.membership.probed(stage.now, OTHER, Probed::NobodyListens), None);
        stage.run(Duration::from_secs(1));
        let after = stage.gone_after(10_000);
        assert!(after <= 150, "{after}");
    }

    #[test]
    fn suspected_node_is_asked_ten_times_a_second() {
        let now = start();
        let mut membership = Membership::new(now, OWN);
        membership.probed(now, OTHER, Probed::NobodyListens);
        let probes = (0..500).flat_map(|millis| membership.poll(now + Duration::from_millis(millis)));
        assert_eq!(probes.filter(|task| *task == Task::Probe(OTHER)).count(), 4);
    }

    #[test]
    fn hanging_node_is_gone_after_six_heartbeats() {
        for answer in [None, Some(Probed::Silence)] {
            let mut stage = Stage::new();
            stage.run(Duration::from_secs(10));
            (stage.hears_other, stage.answer) = (false, answer);
            stage.run(Duration::from_secs(5));
            let after = stage.gone_after(10_000);
            assert!((1250..=2000).contains(&after), "{after}");
        }
    }

    #[test]
    fn node_that_answers_is_not_gone() {
        let mut stage = Stage::new();
        stage.run(Duration::from_secs(10));
        (stage.hears_other, stage.answer) = (false, Some(Probed::Answered));
        stage.run(Duration::from_secs(60));
        assert_eq!(stage.tasks, []);
    }

    #[test]
    fn node_that_is_cut_off_declares_nobody_gone() {
        let mut stage = Stage::new();
        stage.run(Duration::from_secs(10));
        (stage.hears_itself, stage.answer) = (false, Some(Probed::Silence));
        stage.run(Duration::from_secs(60));
        assert!(
            matches!(stage.tasks[..], [(at, Task::CutOff)] if (10_750..=11_250).contains(&at)),
            "{:?}",
            stage.tasks
        );
        stage.tasks.clear();
        (stage.hears_itself, stage.hears_other) = (true, false);
        let back = (stage.now - stage.start).as_millis();
        stage.run(Duration::from_secs(10));
        let [(_, Task::Rejoined), (gone, Task::Gone(OTHER))] = stage.tasks[..] else {
            panic!("{:?}", stage.tasks)
        };
        assert!(gone - back >= 1000);
    }

    #[test]
    fn goodbye_and_return_are_believed() {
        let mut stage = Stage::new();
        stage.run(Duration::from_secs(1));
        assert_eq!(stage.membership.left(OTHER), Some(Task::Gone(OTHER)));
        assert_eq!(stage.membership.left(OTHER), None);
        stage.run(Duration::from_secs(1));
        assert!(stage.membership.is_alive(OTHER), "it is heard of again");
    }

    #[test]
    fn node_of_a_journal_is_missed() {
        let mut stage = Stage::new();
        stage.hears_other = false;
        stage.answer = Some(Probed::NobodyListens);
        assert_eq!(stage.membership.probed(stage.now, OTHER, Probed::NobodyListens), None);
        assert!(stage.membership.is_alive(OTHER));
        stage.run(Duration::from_secs(3));
        assert!(stage.gone_after(0) <= 1500);
    }

    #[test]
    fn made_up_nodes_do_not_fill_the_memory() {
        let now = start();
        let mut membership = Membership::new(now, OWN);
        for bits in 2..10_000 {
            membership
                .heard(now, Heartbeat { node: NodeId::new(bits), number: 1, version: 1, is_draining: false });
        }
        assert_eq!(membership.takers().count(), MAX_NODES + 1);
        assert_eq!(membership.version(7), 1);
    }

    proptest! {
        /// A node that is heard of in time is never gone, whatever else happens; and no poll is due at once again.
        #[test]
        fn node_that_is_heard_of_is_never_gone(steps in prop::collection::vec((1..700_u64, 0..4_u8, any::<bool>()), 1..100)) {
            let mut stage = Stage::new();
            for (millis, answer, hears_itself) in steps {
                stage.hears_itself = hears_itself;
                stage.answer = [None, Some(Probed::Answered), Some(Probed::Silence), None][usize::from(answer)];
                stage.run(Duration::from_millis(millis));
                stage.number += 1;
                let number = stage.number;
                stage.membership.heard(stage.now, Heartbeat { node: OTHER, number, version: 1, is_draining: false });
                prop_assert!(stage.membership.is_alive(OTHER));
                prop_assert!(stage.membership.deadline() <= stage.now + HEARTBEAT);
            }
        }
    }
}
