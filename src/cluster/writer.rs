//! The owner's only way to write a subject's journal.
//!
//! One append is under way at a time; lines that come meanwhile go into the next entry. An append without an answer
//! may still be stored later, so the same bytes are appended again with the same expectation until the
//! engine says where they are: an entry that had grown meanwhile would say things twice. A refusal is looked into by
//! reading the last entry: it is this one (stored after all), or another's claim (this node is *fenced*, and
//! writes nothing any more), or an older one: the engine lost its end, and the same entries are written again.

mod released;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::entry::{Entry, Line, Record, State};
use crate::journal::Journal;
use crate::link::LinkId;
use crate::node::NodeId;

/// Minimum time between two entries, so that a flood of lines costs the engine 500 entries a second.
pub const SHORTEST_PAUSE: Duration = Duration::from_millis(2);

/// Maximum time that a line waits that is written at leisure.
pub const LEISURE: Duration = Duration::from_secs(5);

/// Time without an answer after which a request is made again.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Pauses before a request is made again, of which about three quarters to the whole is waited.
const SHORTEST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// Maximum number of lines that wait; the owner takes no further items then.
pub const MAX_PENDING: usize = 4096;

/// Maximum size in bytes of the lines that wait, as far as they were [counted](JournalWriter::count). The engine takes no
/// entry of any length, and one that it does not take would be appended without an end.
pub const MAX_PENDING_BYTES: usize = 256 << 10;

/// The writer of a journal, from the claim on.
#[derive(Clone, Debug)]
pub struct JournalWriter<S: State> {
    subject: Arc<str>,
    node: NodeId,
    epoch: u64,
    /// The number of the next new entry.
    next_number: u64,
    /// The engine's number of the last entry.
    sequence: u64,
    pending: Vec<Line<S>>,
    pending_bytes: usize,
    taken: BTreeMap<LinkId, u64>,
    prompt: u64,
    /// Time at which pending lines are written at the latest.
    due: Option<Instant>,
    /// Time before which no further entry is written.
    quiet_until: Option<Instant>,
    /// The entries to be stored, of which the first is under way; several if the engine lost its end.
    unstored: VecDeque<Arc<Entry<S>>>,
    stage: Stage,
    question: u64,
    failures: u32,
    /// The number of the first entry that was not shown, stored or not.
    unshown: u64,
    /// True if entries were shown before they were stored, until all are.
    has_released: bool,
    /// Bytes of the entries that are not stored, as far as their lines were counted.
    unstored_bytes: usize,
    /// The stored entries that a reader would need, so that they can be written again.
    stored: VecDeque<Record<S>>,
    fenced: bool,
}

/// Stage of the first unstored entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The request is to be made.
    Due(Ask),
    /// It is to be made again at that time.
    Waiting(Ask, Instant),
    /// It was made, and an answer is awaited until that time.
    Asked(Ask, Instant),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Append,
    Read,
}

/// A request to the engine. Its answer carries the question's number.
#[derive(Clone, Debug, PartialEq)]
pub enum Request<S: State> {
    /// Append the entry if the subject's last one has the expected number.
    Append {
        /// The question.
        question: u64,
        /// The expected number; 0 for none.
        expected: u64,
        /// The entry.
        entry: Arc<Entry<S>>,
    },
    /// Read the subject's last entry.
    ReadLast {
        /// The question.
        question: u64,
    },
}

/// The engine's answer to an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is stored under this number.
    Stored(u64),
    /// The last entry is another one.
    Refused,
    /// The engine cannot tell, or nobody answers for it: the entry may be stored, also later.
    Unknown,
}

/// News of the writer.
#[derive(Clone, Debug, PartialEq)]
pub enum Written<S: State> {
    /// The entry is stored: what it says may be shown.
    Stored(Record<S>),
    /// The engine has an entry that was shown before: it had lost it, or was away.
    Restored(Record<S>),
    /// Another node owns the subject. Nothing that was not stored may be shown.
    Fenced,
}

impl<S: State> JournalWriter<S> {
    /// A writer that claims a subject after the last of its `records`, which are all that there are.
    pub fn claim(now: Instant, subject: Arc<str>, node: NodeId, records: Vec<Record<S>>) -> Self {
        Self::claim_with(now, subject, node, records, Vec::new())
    }

    /// The same with further lines in the entry of the claim, so that nobody sees the one without the others.
    pub fn claim_with(
        now: Instant,
        subject: Arc<str>,
        node: NodeId,
        records: Vec<Record<S>>,
        lines: Vec<Line<S>>,
    ) -> Self {
        let journal = Journal::read_back(&records);
        let from = journal.position().map(|(_, by, _)| by);
        let epoch = journal.epoch() + 1;
        let mut claim = Entry::claim(subject.clone(), node, epoch, from);
        claim.lines.extend(lines);
        Self {
            subject,
            node,
            epoch,
            next_number: 1,
            sequence: journal.sequence(),
            pending: Vec::new(),
            pending_bytes: 0,
            taken: BTreeMap::new(),
            prompt: 0,
            due: None,
            quiet_until: Some(now),
            unstored: [claim.into()].into(),
            stage: Stage::Due(Ask::Append),
            question: 0,
            failures: 0,
            unshown: 0,
            has_released: false,
            unstored_bytes: 0,
            stored: records.into(),
            fenced: false,
        }
    }

    /// The owner's epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// True once another node owns the subject.
    pub fn is_fenced(&self) -> bool {
        self.fenced
    }

    /// True if everything is stored.
    pub fn is_idle(&self) -> bool {
        self.unstored.is_empty() && self.pending.is_empty()
    }

    /// True if an answer is overdue: it is unknown what is stored.
    pub fn is_in_doubt(&self) -> bool {
        self.failures > 0
    }

    /// True if so many lines wait that no further item should be taken.
    pub fn is_full(&self) -> bool {
        self.pending.len() >= MAX_PENDING || self.pending_bytes >= MAX_PENDING_BYTES
    }

    /// Bytes by which the next entry may still grow.
    pub fn space(&self) -> usize {
        MAX_PENDING_BYTES.saturating_sub(self.pending_bytes)
    }

    /// Counts the size of a line that was added to the next entry.
    pub fn count(&mut self, bytes: usize) {
        self.pending_bytes = self.pending_bytes.saturating_add(bytes);
    }

    /// The stored entries that a reader would need.
    pub fn stored(&self) -> impl Iterator<Item = &Record<S>> {
        self.stored.iter()
    }

    /// Adds a line to the next entry, and returns the number that this entry will have.
    pub fn push(&mut self, now: Instant, line: Line<S>) -> u64 {
        self.pending.push(line);
        self.prompt += 1;
        self.due = Some(now);
        self.next_number
    }

    /// Adds a line that may wait for others.
    pub fn push_at_leisure(&mut self, now: Instant, line: Line<S>) {
        self.pending.push(line);
        self.due.get_or_insert(now + LEISURE);
    }

    /// Adds a line before those that wait. It must be about the state as it is stored, so nothing may be under way.
    pub fn push_first(&mut self, now: Instant, line: Line<S>) {
        debug_assert!(self.is_quiet(), "an entry is under way");
        self.pending.insert(0, line);
        self.due = Some(now);
    }

    /// The lines of the next entry.
    pub fn pending(&self) -> &[Line<S>] {
        &self.pending
    }

    /// The lines of the next entry, of which a newer one may replace an older one.
    pub fn pending_mut(&mut self) -> &mut [Line<S>] {
        &mut self.pending
    }

    /// Number of lines so far that are not written at leisure.
    pub fn prompt_lines(&self) -> u64 {
        self.prompt
    }

    /// The number of the entry that the last line is in.
    pub fn last_number(&self) -> u64 {
        if self.pending.is_empty() { self.next_number - 1 } else { self.next_number }
    }

    /// True if no entry is under way.
    pub fn is_quiet(&self) -> bool {
        self.unstored.is_empty()
    }

    /// Records that an item of a link was handled: its lines are in the next entry or in an earlier one.
    pub fn take(&mut self, link: LinkId, number: u64) {
        self.taken.insert(link, number);
    }

    /// Time of the next [poll](Self::poll) that has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        if self.fenced {
            None
        } else if self.unstored.is_empty() {
            self.due.map(|due| self.quiet_until.map_or(due, |quiet| quiet.max(due)))
        } else {
            match self.stage {
                Stage::Due(_) => self.quiet_until,
                Stage::Waiting(_, at) | Stage::Asked(_, at) => Some(at),
            }
        }
    }

    /// The next request to the engine, if one is due.
    pub fn poll(&mut self, now: Instant) -> Option<Request<S>> {
        if self.fenced {
            return None;
        }
        if self.unstored.is_empty() {
            let is_quiet = self.quiet_until.is_some_and(|quiet| quiet > now);
            if self.due.is_none_or(|due| due > now) || is_quiet {
                return None;
            }
            self.begin();
            self.stage = Stage::Due(Ask::Append);
        }
        match self.stage {
            Stage::Asked(ask, until) if until <= now => self.fail(now, ask),
            _ => {}
        }
        let ask = match self.stage {
            Stage::Due(ask) => ask,
            Stage::Waiting(ask, at) if at <= now => ask,
            Stage::Waiting(..) | Stage::Asked(..) => return None,
        };
        self.question += 1;
        self.stage = Stage::Asked(ask, now + ANSWER_TIMEOUT);
        let question = self.question;
        Some(match ask {
            Ask::Read => Request::ReadLast { question },
            Ask::Append => {
                let entry = self.unstored.front()?.clone();
                Request::Append { question, expected: self.sequence, entry }
            }
        })
    }

    /// Makes an entry of the pending lines.
    fn begin(&mut self) {
        let entry = Entry {
            subject: self.subject.clone(),
            by: self.node,
            epoch: self.epoch,
            number: self.next_number,
            taken: std::mem::take(&mut self.taken).into_iter().collect(),
            lines: std::mem::take(&mut self.pending),
        };
        self.next_number += 1;
        self.due = None;
        self.unstored_bytes += std::mem::take(&mut self.pending_bytes);
        self.unstored.push_back(entry.into());
    }

    /// Asks again, later each time and not at the same time as others.
    fn fail(&mut self, now: Instant, ask: Ask) {
        let longest = SHORTEST_BACKOFF.saturating_mul(1 << self.failures.min(5)).min(LONGEST_BACKOFF);
        self.failures += 1;
        let spread = (u64::from(self.node.bits()) ^ self.question).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let jitter = longest.mul_f64(spread as f64 / f64::from(1 << 24) / 4.0);
        self.stage = Stage::Waiting(ask, now + longest - jitter);
    }

    /// True if the answer is that to the question that was asked last. One that something overtook is not believed: a
    /// read from before the last append would look like an engine that lost its end.
    fn is_answer(&self, question: u64, to: Ask) -> bool {
        !self.fenced && question == self.question && matches!(self.stage, Stage::Asked(ask, _) if ask == to)
    }

    /// Takes the engine's answer to an append.
    pub fn appended(&mut self, now: Instant, question: u64, answer: Appended) -> Option<Written<S>> {
        if !self.is_answer(question, Ask::Append) {
            return None;
        }
        match answer {
            Appended::Stored(sequence) => self.store(now, sequence),
            Appended::Refused => {
                self.stage = Stage::Due(Ask::Read);
                None
            }
            Appended::Unknown => {
                self.fail(now, Ask::Append);
                None
            }
        }
    }

    /// Takes the engine's answer to a read of the last entry: `None` within it if there is no entry, and instead of it
    /// if the engine did not answer.
    pub fn read_last(
        &mut self,
        now: Instant,
        question: u64,
        last: Option<Option<Record<S>>>,
    ) -> Option<Written<S>> {
        if !self.is_answer(question, Ask::Read) {
            return None;
        }
        let Some(last) = last else {
            self.fail(now, Ask::Read);
            return None;
        };
        let current = self.unstored.front()?.clone();
        let Some(last) = last else {
            self.write_again(0, 0);
            return None;
        };
        if last.entry.is_same(&current) {
            return self.store(now, last.sequence);
        }
        if let Some(at) = self.stored.iter().position(|stored| stored.entry.is_same(&last.entry)) {
            self.stored[at].sequence = last.sequence;
            self.write_again(at + 1, last.sequence);
            return None;
        }
        if (last.entry.by, last.entry.epoch) == (self.node, self.epoch) {
            // An append from before the engine lost its end came late: readers leave it out, and go on after it.
            self.sequence = last.sequence;
            self.stage = Stage::Due(Ask::Append);
            return None;
        }
        self.fenced = true;
        Some(Written::Fenced)
    }

    /// Writes the stored entries again from an index on, the engine having lost them.
    fn write_again(&mut self, from: usize, sequence: u64) {
        let lost: Vec<_> = self.stored.drain(from..).map(|record| record.entry).collect();
        for entry in lost.into_iter().rev() {
            self.unstored.push_front(entry);
        }
        self.sequence = sequence;
        self.stage = Stage::Due(Ask::Append);
    }

    fn store(&mut self, now: Instant, sequence: u64) -> Option<Written<S>> {
        let entry = self.unstored.pop_front()?;
        let record = Record { sequence, expected: self.sequence, entry };
        self.sequence = sequence;
        self.failures = 0;
        self.quiet_until = Some(now + SHORTEST_PAUSE);
        self.stage = Stage::Due(Ask::Append);
        self.stored.push_back(record.clone());
        if self.unstored.is_empty() {
            (self.has_released, self.unstored_bytes) = (false, 0);
        }
        // Others were shown before: the engine had lost them, or it was away.
        let is_new = record.entry.epoch == self.epoch && record.entry.number >= self.unshown;
        if is_new {
            self.unshown = record.entry.number + 1;
        }
        Some(if is_new { Written::Stored(record) } else { Written::Restored(record) })
    }

    /// Forgets stored entries below a number of the engine: nobody needs them, and they are purged there.
    pub fn forget_below(&mut self, sequence: u64) {
        while self.stored.front().is_some_and(|record| record.sequence < sequence) {
            self.stored.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
