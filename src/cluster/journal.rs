//! A journal as a reader knows it: entries go in, in the order of their places, and lead to a state and an owner.
//!
//! A reader takes an entry only if it continues what it has: the next one of the owner that it knows, or a claim that
//! expects the entry that it saw last. Everything else was seen before, or shows that something was missed. So a lost
//! or repeated message of the engine is found by a comparison, and an entry that an engine accepted against
//! its condition is rejected by all readers alike.

use std::collections::{BTreeMap, VecDeque};

use crate::entry::{Entry, Line, Record, State};
use crate::link::LinkId;
use crate::node::NodeId;

/// Number of owners whose last entries a reader remembers.
const REIGNS: usize = 8;

/// Number of entries after which the state is written as a whole.
const MAX_ENTRIES: usize = 256;

/// A journal's entries, folded.
#[derive(Clone, Debug)]
pub struct Journal<S: State> {
    state: S,
    taken: BTreeMap<LinkId, u64>,
    life: Life,
    /// The last entry's number in the engine.
    sequence: u64,
    /// The last owners, and the number of the last entry of each; the newest is the last.
    reigns: VecDeque<Reign>,
    /// True once the state is known: from the first claim, or from a whole state on.
    is_founded: bool,
    /// The entries since those that nobody needs, and the state's mark after each.
    marks: VecDeque<(u64, u64)>,
    /// The number in the engine of the last whole state, or of the claim that began with an empty one.
    whole: u64,
    /// The entries since then.
    since_whole: usize,
}

/// Stage of a subject's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Nothing was ever written, or the subject has ended.
    Ended,
    /// A node owns it.
    Owned(NodeId),
    /// Its owner is leaving, and the next is to claim it at once.
    HandedOver {
        /// The node that is to claim it, if there is one.
        to: Option<NodeId>,
    },
}

/// An owner, as far as a reader saw it write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reign {
    epoch: u64,
    by: NodeId,
    last: u64,
}

/// Relation of an entry to what a reader has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    /// It is the next one.
    Next,
    /// It was taken before.
    Known,
    /// Others before it were missed, or it is no part of the journal: the journal is to be read back.
    Gap,
}

impl<S: State> Default for Journal<S> {
    fn default() -> Self {
        Self {
            state: S::default(),
            taken: BTreeMap::new(),
            life: Life::Ended,
            sequence: 0,
            reigns: VecDeque::new(),
            is_founded: true,
            marks: VecDeque::new(),
            whole: 0,
            since_whole: 0,
        }
    }
}

impl<S: State> Journal<S> {
    /// Reads a journal back from all its entries that there still are, in order. Those that do not continue the ones
    /// before are left out; what preceded the first may have been purged.
    pub fn read_back<'a>(records: impl IntoIterator<Item = &'a Record<S>>) -> Self
    where
        S: 'a,
    {
        let mut journal = Self::default();
        let mut records = records.into_iter();
        if let Some(first) = records.next() {
            journal.accept(first);
        }
        for record in records {
            journal.apply(record);
        }
        journal
    }

    /// Takes an entry, if it is the next one.
    pub fn apply(&mut self, record: &Record<S>) -> Continuity {
        let entry = &*record.entry;
        match self.continuity(record) {
            Continuity::Next => {}
            Continuity::Known => {
                if self
                    .reigns
                    .back()
                    .is_some_and(|reign| (reign.epoch, reign.last) == (entry.epoch, entry.number))
                {
                    // Its owner wrote it again, since the engine had lost it.
                    self.sequence = record.sequence;
                }
                return Continuity::Known;
            }
            Continuity::Gap => return Continuity::Gap,
        }
        self.accept(record);
        Continuity::Next
    }

    fn accept(&mut self, record: &Record<S>) {
        let entry = &*record.entry;
        if self.reigns.is_empty() {
            self.is_founded = entry.is_claim();
            self.whole = record.sequence;
        }
        self.sequence = record.sequence;
        self.since_whole += 1;
        match self.reigns.back_mut() {
            Some(reign) if (reign.epoch, reign.by) == (entry.epoch, entry.by) => reign.last = entry.number,
            _ => {
                if self.reigns.len() == REIGNS {
                    self.reigns.pop_front();
                }
                self.reigns.push_back(Reign { epoch: entry.epoch, by: entry.by, last: entry.number });
                self.life = Life::Owned(entry.by);
            }
        }
        for line in &entry.lines {
            self.line(record.sequence, entry.by, line);
        }
        for (link, number) in &entry.taken {
            // A node has one link at a time, and ends it only when all its items are answered.
            self.taken.retain(|other, _| other.node != link.node || other.number >= link.number);
            let taken = self.taken.entry(*link).or_default();
            *taken = (*taken).max(*number);
        }
        self.marks.push_back((record.sequence, self.state.mark()));
        let passed = self.state.passed();
        while self.marks.len() > 1 && self.marks.front().is_some_and(|(_, mark)| *mark <= passed) {
            self.marks.pop_front();
        }
    }

    fn line(&mut self, sequence: u64, by: NodeId, line: &Line<S>) {
        match line {
            Line::Claimed { .. } => {
                if self.life == Life::Ended {
                    self.begin(sequence);
                }
                self.life = Life::Owned(by);
            }
            Line::Change(line) => self.state.apply(line),
            Line::Whole(whole) => {
                self.state.replace(whole.state.clone());
                self.taken = whole.taken.iter().copied().collect();
                (self.is_founded, self.whole, self.since_whole) = (true, sequence, 0);
            }
            Line::HandedOver { to } => self.life = Life::HandedOver { to: *to },
            Line::Ended => {
                self.begin(sequence);
                self.life = Life::Ended;
            }
        }
    }

    fn begin(&mut self, sequence: u64) {
        self.state = S::default();
        self.taken.clear();
        self.marks.clear();
        (self.is_founded, self.whole, self.since_whole) = (true, sequence, 0);
    }

    /// The relation of an entry to those that were taken.
    pub fn continuity(&self, record: &Record<S>) -> Continuity {
        let entry = &*record.entry;
        let Some(last) = self.reigns.back() else {
            // Without the entries before it, any other one would say too little.
            let is_first = entry.is_claim() && record.expected == 0;
            return if is_first { Continuity::Next } else { Continuity::Gap };
        };
        let is_next_of_owner =
            (entry.by, entry.epoch) == (last.by, last.epoch) && entry.number == last.last + 1;
        let is_claim = entry.is_claim() && record.expected == self.sequence && entry.epoch == last.epoch + 1;
        if is_next_of_owner || is_claim {
            return Continuity::Next;
        }
        if self.has(entry) { Continuity::Known } else { Continuity::Gap }
    }

    /// True if the entry was taken, as far as that is remembered.
    pub fn has(&self, entry: &Entry<S>) -> bool {
        let is_of =
            |reign: &Reign| (reign.epoch, reign.by) == (entry.epoch, entry.by) && entry.number <= reign.last;
        self.reigns.iter().any(is_of)
    }

    /// The state; not to be used before it is [founded](Self::is_founded).
    pub fn state(&self) -> &S {
        &self.state
    }

    /// True if the state is known: what was purged before the first entry that was read does not matter.
    pub fn is_founded(&self) -> bool {
        self.is_founded
    }

    /// The stage of the subject's life.
    pub fn life(&self) -> Life {
        self.life
    }

    /// The number of the last entry in the engine; 0 for none. A claim expects it.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The place of the last entry: its owner's epoch, its owner, and its number there.
    pub fn position(&self) -> Option<(u64, NodeId, u64)> {
        self.reigns.back().map(|reign| (reign.epoch, reign.by, reign.last))
    }

    /// The epoch of the last owner; 0 if there was none.
    pub fn epoch(&self) -> u64 {
        self.reigns.back().map_or(0, |reign| reign.epoch)
    }

    /// The item of a link up to which everything is in the journal; 0 for none.
    pub fn taken(&self, link: LinkId) -> u64 {
        self.taken.get(&link).copied().unwrap_or_default()
    }

    /// The same, of all links.
    pub fn all_taken(&self) -> Vec<(LinkId, u64)> {
        self.taken.iter().map(|(link, number)| (*link, *number)).collect()
    }

    /// Forgets the links of a node, which is gone for good.
    pub fn forget_links_of(&mut self, node: NodeId) {
        self.taken.retain(|link, _| link.node != node);
    }

    /// True if so much came since the last whole state that its owner should write one.
    pub fn wants_whole(&self) -> bool {
        self.since_whole >= MAX_ENTRIES
    }

    /// The number in the engine below which nobody needs an entry any more: not to know the state, nor for a line that
    /// somebody has not passed.
    pub fn needed_from(&self) -> u64 {
        let passed = self.state.passed();
        let needed = self.marks.iter().find(|(_, mark)| *mark > passed).map(|(sequence, _)| *sequence);
        needed.map_or(self.whole, |needed| needed.min(self.whole))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::entry::Whole;
    use crate::entry::tests::{Log, LogLine};

    /// A node that writes a journal without an engine that could fail.
    pub(crate) struct Scribe {
        pub(crate) records: Vec<Record<Log>>,
        pub(crate) journal: Journal<Log>,
    }

    impl Scribe {
        pub(crate) fn new() -> Self {
            Self { records: Vec::new(), journal: Journal::default() }
        }

        pub(crate) fn write(&mut self, by: u32, lines: Vec<Line<Log>>) {
            let by = NodeId::new(by);
            let (epoch, number) = match self.journal.position() {
                Some((epoch, owner, last)) if owner == by && !matches!(lines[0], Line::Claimed { .. }) => {
                    (epoch, last + 1)
                }
                _ => (self.journal.epoch() + 1, 0),
            };
            let expected = self.journal.sequence();
            // The engine counts the entries of others as well.
            let sequence = expected + 3;
            let entry = Arc::new(Entry { subject: "s".into(), by, epoch, number, taken: Vec::new(), lines });
            let record = Record { sequence, expected, entry };
            assert_eq!(self.journal.apply(&record), Continuity::Next);
            self.records.push(record);
        }

        pub(crate) fn claim(&mut self, by: u32) {
            self.write(by, vec![Line::Claimed { from: None }]);
        }

        pub(crate) fn number(&mut self, by: u32, number: u64) {
            self.write(by, vec![Line::Change(LogLine::Number(number))]);
        }

        pub(crate) fn whole(&mut self, by: u32) {
            let whole = Whole { state: self.journal.state().clone(), taken: self.journal.all_taken() };
            self.write(by, vec![Line::Whole(Box::new(whole))]);
        }
    }

    #[test]
    fn lost_and_repeated_entries_are_found() {
        let mut scribe = Scribe::new();
        scribe.claim(1);
        (1..=3).for_each(|number| scribe.number(1, number));
        scribe.claim(2);
        scribe.number(2, 4);
        let records = &scribe.records;
        for lost in 1..records.len() - 1 {
            let mut journal = Journal::read_back(&records[..lost]);
            assert_eq!(journal.apply(&records[lost + 1]), Continuity::Gap, "{lost}");
            assert_eq!(journal.apply(&records[lost - 1]), Continuity::Known, "{lost}");
            assert_eq!(journal.apply(&records[lost]), Continuity::Next, "{lost}");
        }
    }

    /// The owner is frozen, another one claims, and the engine stores a late append against its condition.
    #[test]
    fn entry_of_a_fenced_owner_is_no_part() {
        let mut scribe = Scribe::new();
        scribe.claim(1);
        scribe.number(1, 1);
        let mut late = scribe.records[1].clone();
        scribe.claim(2);
        scribe.number(2, 5);
        let entry = Entry { number: 2, ..(*late.entry).clone() };
        (late.entry, late.sequence) = (Arc::new(entry), 100);
        assert_eq!(scribe.journal.apply(&late), Continuity::Gap);
        let mut records = scribe.records.clone();
        records.push(late);
        scribe.number(2, 7);
        records.push(scribe.records.last().unwrap().clone());
        assert_eq!(Journal::read_back(&records).state().sum, 1 + 5 + 7, "readers leave it out");
    }

    #[test]
    fn ended_subject_begins_anew() {
        let mut scribe = Scribe::new();
        scribe.claim(1);
        scribe.number(1, 9);
        scribe.write(1, vec![Line::Ended]);
        assert_eq!((scribe.journal.life(), scribe.journal.state().sum), (Life::Ended, 0));
        scribe.claim(2);
        assert_eq!((scribe.journal.life(), scribe.journal.epoch()), (Life::Owned(NodeId::new(2)), 2));
        scribe.write(2, vec![Line::HandedOver { to: Some(NodeId::new(3)) }]);
        assert_eq!(scribe.journal.life(), Life::HandedOver { to: Some(NodeId::new(3)) });
    }

    /// The engine loses its end, the owner says it again, and numbers differ from those before.
    #[test]
    fn repeated_end_has_other_numbers() {
        let mut scribe = Scribe::new();
        scribe.claim(1);
        (1..=3).for_each(|number| scribe.number(1, number));
        let mut again = scribe.records[3].clone();
        again.sequence = 77;
        assert_eq!(scribe.journal.apply(&again), Continuity::Known);
        let entry = Entry::claim("s".into(), NodeId::new(2), 2, Some(NodeId::new(1)));
        let claim = Record { sequence: 80, expected: 77, entry: entry.into() };
        assert_eq!(scribe.journal.apply(&claim), Continuity::Next);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Claim(u32),
        Number(u64),
        Passed(u64),
        Whole,
        Ended,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            1 => (1..4_u32).prop_map(Step::Claim),
            8 => (1..100_u64).prop_map(Step::Number),
            2 => (1..50_u64).prop_map(Step::Passed),
            2 => Just(Step::Whole),
            1 => Just(Step::Ended),
        ];
        prop::collection::vec(step, 0..60)
    }

    fn written(steps: Vec<Step>) -> Scribe {
        let mut scribe = Scribe::new();
        scribe.claim(1);
        let mut by = 1;
        for step in steps {
            if scribe.journal.life() == Life::Ended && !matches!(step, Step::Claim(_)) {
                continue;
            }
            match step {
                Step::Claim(node) => {
                    by = node;
                    scribe.claim(by);
                }
                Step::Number(number) => scribe.number(by, number),
                Step::Passed(passed) => scribe.write(by, vec![Line::Change(LogLine::Passed(passed))]),
                Step::Whole => scribe.whole(by),
                Step::Ended => scribe.write(by, vec![Line::Ended]),
            }
        }
        scribe
    }

    proptest! {
        /// After a purge a reader knows the same state, and every line that somebody has not passed.
        #[test]
        fn purged_journal_tells_the_same(steps in steps()) {
            let scribe = written(steps);
            let all = Journal::read_back(&scribe.records);
            let from = all.needed_from();
            let kept: Vec<_> = scribe.records.iter().filter(|record| record.sequence >= from).cloned().collect();
            let purged = Journal::read_back(&kept);
            prop_assert!(purged.is_founded());
            prop_assert_eq!(purged.life(), all.life());
            prop_assert_eq!(purged.position(), all.position());
            let (state, known) = (purged.state(), all.state());
            prop_assert_eq!((state.sum, state.count, state.passed), (known.sum, known.count, known.passed));
            let needed = usize::try_from(known.count - known.passed).unwrap();
            prop_assert!(state.seen.len() >= needed);
            prop_assert!(known.seen.ends_with(&state.seen));
        }

        /// A reader that lost any entries knows the journal once it has read it back, and takes every later one once.
        #[test]
        fn reader_that_lost_entries_reads_back(steps in steps(), lost: Vec<bool>) {
            let scribe = written(steps);
            let mut journal = Journal::default();
            for (at, record) in scribe.records.iter().enumerate() {
                if lost.get(at) == Some(&true) {
                    continue;
                }
                if journal.apply(record) == Continuity::Gap {
                    journal = Journal::read_back(&scribe.records[..=at]);
                }
                let known = Journal::read_back(&scribe.records[..=at]);
                if journal.is_founded() && at > 0 && lost.first() != Some(&true) {
                    prop_assert_eq!(journal.state(), known.state());
                }
                prop_assert_eq!(journal.position(), known.position());
            }
        }
    }
}
