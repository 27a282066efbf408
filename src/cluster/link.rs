//! The numbered way from a node with clients of a subject to the subject's owner.
//!
//! The [`Uplink`] keeps what clients said until the owner has answered that everything it caused is stored, and says it
//! again to the owner, or to the next one. The [`Downlink`] is the owner's end: it takes each item once, in order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::node::NodeId;

/// Maximum number of items without an answer.
pub const MAX_ITEMS: usize = 256;

/// Maximum size in bytes of all items without an answer.
pub const MAX_BYTES: usize = 1 << 20;

/// Time without an answer after which items are said again.
pub const RESEND: Duration = Duration::from_millis(500);

/// The id of a link: the node that it begins at, and its number there, which is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LinkId {
    /// The node.
    pub node: NodeId,
    /// The number.
    pub number: u64,
}

/// Items on their way to the owner of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Up<T> {
    /// The link.
    pub link: LinkId,
    /// The epoch of the owner that the link is attached to.
    pub epoch: u64,
    /// The number of the first item without an answer: answers to those before have arrived.
    pub unanswered: u64,
    /// The number of the first of these items.
    pub first: u64,
    /// The items.
    pub items: Vec<T>,
}

/// The owner's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer<A> {
    /// The link.
    pub link: LinkId,
    /// The owner's epoch.
    pub epoch: u64,
    /// Everything that the items up to this one caused is stored.
    pub through: u64,
    /// Answers to single items.
    pub answers: Vec<(u64, A)>,
}

/// The link takes no further item for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many items wait for the subject's owner")]
pub struct LinkFull;

/// The end of a link at the node with the clients.
#[derive(Clone, Debug)]
pub struct Uplink<T> {
    id: LinkId,
    /// The number of the first item in the queue.
    first: u64,
    items: VecDeque<(T, usize)>,
    bytes: usize,
    attached: Option<Attached>,
}

/// State of the way to one owner.
#[derive(Clone, Copy, Debug)]
struct Attached {
    epoch: u64,
    /// The number of the first item that was not sent.
    unsent: u64,
    /// Time at which unanswered items are sent again.
    resend: Option<Instant>,
}

impl<T: Clone> Uplink<T> {
    /// A link without items, attached to no owner.
    pub fn new(id: LinkId) -> Self {
        Self { id, first: 1, items: VecDeque::new(), bytes: 0, attached: None }
    }

    /// The link's id.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// The number of the first item without an answer, or of the next one. An attachment tells it: items that an owner
    /// answered may have left no trace, and the next owner would wait for them.
    pub fn unanswered(&self) -> u64 {
        self.first
    }

    /// The items without an answer, oldest first.
    pub fn items(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(|(item, _)| item)
    }

    /// True if there is space for a further item.
    pub fn has_space(&self) -> bool {
        self.items.len() < MAX_ITEMS && self.bytes < MAX_BYTES
    }

    /// Takes an item of a size in bytes, and returns its number.
    ///
    /// # Errors
    /// [`LinkFull`]; the client is not to be read until there is [space](Self::has_space).
    pub fn push(&mut self, item: T, bytes: usize) -> Result<u64, LinkFull> {
        if !self.has_space() {
            return Err(LinkFull);
        }
        self.bytes += bytes;
        self.items.push_back((item, bytes));
        Ok(self.first + self.items.len() as u64 - 1)
    }

    /// Says all items without an answer to the owner of an epoch, which knows of the link.
    pub fn attach(&mut self, epoch: u64) {
        self.attached = Some(Attached { epoch, unsent: self.first, resend: None });
    }

    /// Says nothing until the link is attached again.
    pub fn detach(&mut self) {
        self.attached = None;
    }

    /// Forgets all items; their numbers are not used again.
    pub fn clear(&mut self) {
        self.first += self.items.len() as u64;
        self.items.clear();
        self.bytes = 0;
    }

    /// The epoch of the owner that the link is attached to.
    pub fn epoch(&self) -> Option<u64> {
        self.attached.map(|attached| attached.epoch)
    }

    /// The items to be sent now.
    pub fn poll(&mut self, now: Instant) -> Option<Up<T>> {
        let next = self.first + self.items.len() as u64;
        let attached = self.attached.as_mut()?;
        if attached.resend.is_some_and(|at| at <= now) {
            (attached.unsent, attached.resend) = (self.first, None);
        }
        let first = attached.unsent.max(self.first);
        let skipped = usize::try_from(first - self.first).unwrap_or(usize::MAX);
        let items: Vec<T> = self.items.iter().skip(skipped).map(|(item, _)| item.clone()).collect();
        if items.is_empty() {
            return None;
        }
        attached.unsent = next;
        attached.resend.get_or_insert(now + RESEND);
        Some(Up { link: self.id, epoch: attached.epoch, unanswered: self.first, first, items })
    }

    /// Time of the next [poll](Self::poll) that has items to send again.
    pub fn deadline(&self) -> Option<Instant> {
        self.attached?.resend.filter(|_| !self.items.is_empty())
    }

    /// Takes the owner's answer, and returns the answers to single items, with their numbers. One of another owner is
    /// ignored.
    pub fn answered<A>(&mut self, now: Instant, answer: Answer<A>) -> Vec<(u64, A)> {
        let Some(attached) = self.attached.as_mut() else {
            return Vec::new();
        };
        if answer.link != self.id || answer.epoch != attached.epoch {
            return Vec::new();
        }
        let is_new = |(number, _): &(u64, A)| (self.first..=answer.through).contains(number);
        let answers = answer.answers.into_iter().filter(is_new).collect();
        let before = self.first;
        while self.first <= answer.through {
            let Some((_, bytes)) = self.items.pop_front() else {
                break;
            };
            self.bytes -= bytes;
            self.first += 1;
        }
        if self.first > before {
            attached.resend = (attached.unsent > self.first).then_some(now + RESEND);
        }
        answers
    }
}

/// The end of a link at the owner.
#[derive(Clone, Debug)]
pub struct Downlink<A> {
    link: LinkId,
    epoch: u64,
    /// The number of the next item to be taken.
    next: u64,
    /// Items that were taken and wait for an entry to be stored: the item's number, and the entry's.
    waiting: VecDeque<(u64, u64)>,
    through: u64,
    answers: VecDeque<(u64, A)>,
}

impl<A: Clone> Downlink<A> {
    /// The end of a link that attaches to the owner of an epoch. `unanswered` is the first item that will be said
    /// again; those up to `taken` are in the journal, and are not taken twice.
    pub fn attach(link: LinkId, epoch: u64, unanswered: u64, taken: u64) -> Self {
        let next = unanswered.max(taken + 1);
        Self { link, epoch, next, waiting: VecDeque::new(), through: next - 1, answers: VecDeque::new() }
    }

    /// The owner's epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Takes those items that are next, with their numbers. None of them if some before them are missing: they are said
    /// again with the missing ones.
    pub fn take<T>(&mut self, up: Up<T>) -> Vec<(u64, T)> {
        while self.answers.front().is_some_and(|(number, _)| *number < up.unanswered) {
            self.answers.pop_front();
        }
        if up.link != self.link || up.epoch != self.epoch || up.first > self.next {
            return Vec::new();
        }
        let numbered = (up.first..).zip(up.items);
        let taken: Vec<_> = numbered.filter(|(number, _)| *number >= self.next).collect();
        self.next += taken.len() as u64;
        taken
    }

    /// Records that an item was handled, whose consequences are stored with the entry `waits_for`; none if they need
    /// not be stored. `answer` is for the item alone.
    pub fn handled(&mut self, number: u64, waits_for: Option<u64>, answer: Option<A>) {
        self.answers.extend(answer.map(|answer| (number, answer)));
        match waits_for {
            Some(entry) => self.waiting.push_back((number, entry)),
            // It is answered with those before it.
            None => match self.waiting.back_mut() {
                Some((waiting, _)) => *waiting = number,
                None => self.through = number,
            },
        }
    }

    /// Records that an entry is stored; true if there is a new answer.
    pub fn stored(&mut self, entry: u64) -> bool {
        let before = self.through;
        while let Some((number, _)) = self.waiting.pop_front_if(|(_, waits_for)| *waits_for <= entry) {
            self.through = number;
        }
        self.through > before
    }

    /// The answer, which is sent whenever items arrive and whenever it changes.
    pub fn answer(&self) -> Answer<A> {
        let told = self.answers.iter().filter(|(number, _)| *number <= self.through).cloned();
        Answer { link: self.link, epoch: self.epoch, through: self.through, answers: told.collect() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> LinkId {
        LinkId { node: NodeId::new(1), number: 1 }
    }

    #[expect(clippy::disallowed_methods, reason = "an instant can only be had from the clock")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn full_link_takes_nothing() {
        let mut link = Uplink::new(id());
        for number in 1..=MAX_ITEMS as u64 {
            assert_eq!(link.push((), 1), Ok(number));
        }
        assert_eq!(link.push((), 1), Err(LinkFull));
        let mut link = Uplink::new(id());
        link.push((), MAX_BYTES).unwrap();
        assert_eq!(link.push((), 1), Err(LinkFull));
        link.attach(1);
        assert!(link.poll(start()).is_some());
        let answer = Answer::<()> { link: id(), epoch: 1, through: 1, answers: Vec::new() };
        link.answered(start(), Answer { epoch: 2, ..answer.clone() });
        assert!(!link.has_space(), "another owner's answer does not count");
        link.answered(start(), answer);
        assert_eq!(link.push((), 1), Ok(2));
    }

    #[test]
    fn answer_waits_for_the_store() {
        let mut link = Downlink::attach(id(), 1, 1, 0);
        let up = Up { link: id(), epoch: 1, unanswered: 1, first: 1, items: vec!["a", "b", "c"] };
        assert_eq!(link.take(up), [(1, "a"), (2, "b"), (3, "c")]);
        link.handled(1, None, None);
        assert_eq!(link.answer().through, 1);
        link.handled(2, Some(7), Some("no"));
        link.handled(3, None, None);
        assert_eq!((link.answer().through, link.answer().answers), (1, vec![]), "nothing overtakes");
        assert!(!link.stored(6) && link.stored(7));
        assert_eq!((link.answer().through, link.answer().answers), (3, vec![(2, "no")]));
        let up = Up::<&str> { link: id(), epoch: 1, unanswered: 4, first: 4, items: vec![] };
        link.take(up);
        assert!(link.answer().answers.is_empty(), "it has arrived");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Poll { arrives: bool },
        Store,
        Answer { arrives: bool },
        Wait,
        NextOwner,
    }

    proptest! {
        /// Whatever is lost or repeated, and however often the owner changes: each item is taken once, in order.
        #[test]
        fn every_item_is_taken_once(steps in prop::collection::vec(prop_oneof![
            4 => Just(Step::Push),
            4 => any::<bool>().prop_map(|arrives| Step::Poll { arrives }),
            2 => Just(Step::Store),
            2 => any::<bool>().prop_map(|arrives| Step::Answer { arrives }),
            2 => Just(Step::Wait),
            1 => Just(Step::NextOwner),
        ], 0..200)) {
            let (mut now, mut epoch) = (start(), 1);
            let mut up = Uplink::new(id());
            up.attach(epoch);
            let mut down = Downlink::<u64>::attach(id(), epoch, 1, 0);
            // Every third item leaves no trace, of the others: those in the journal, and those that wait for it.
            let is_traced = |item: &u64| !item.is_multiple_of(3);
            let (mut stored, mut taken, mut answered) = (Vec::new(), Vec::new(), Vec::new());
            let (mut pushed, mut entry) = (0, 0);
            let end = [Step::Wait, Step::Poll { arrives: true }, Step::Store, Step::Answer { arrives: true }];
            for step in steps.into_iter().chain(end) {
                match step {
                    Step::Push => {
                        if up.push(pushed + 1, 1).is_ok() {
                            pushed += 1;
                        }
                    }
                    Step::Poll { arrives } => {
                        let Some(said) = up.poll(now).filter(|_| arrives) else { continue };
                        for (number, item) in down.take(said) {
                            prop_assert_eq!(number, item);
                            down.handled(number, is_traced(&item).then_some(entry + 1), Some(item));
                            taken.extend(Some(item).filter(is_traced));
                        }
                    }
                    Step::Store => {
                        entry += 1;
                        stored.append(&mut taken);
                        down.stored(entry);
                    }
                    Step::Answer { arrives } => if arrives {
                        answered.extend(up.answered(now, down.answer()).into_iter().map(|(_, answer)| answer));
                    },
                    Step::Wait => now += RESEND,
                    Step::NextOwner => {
                        epoch += 1;
                        up.attach(epoch);
                        taken.clear();
                        let in_journal = stored.last().copied().unwrap_or(0);
                        down = Downlink::attach(id(), epoch, up.unanswered(), in_journal);
                    }
                }
            }
            let all: Vec<u64> = (1..=pushed).filter(is_traced).collect();
            prop_assert_eq!(&stored, &all);
            prop_assert_eq!(up.items().count(), 0);
            prop_assert!(answered.is_sorted_by(|a, b| a < b), "{:?}", answered);
        }
    }
}
