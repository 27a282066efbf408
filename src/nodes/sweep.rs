//! Rooms whose members were all on a node that is gone, and journals of rooms that have ended.
//!
//! Nobody misses the owner of a room without a member elsewhere. So one of the nodes, the one with the lowest id, looks at
//! the last entries of all journals some time after a node is gone, and claims the rooms that nobody living owns. They
//! end as on a single node. That time is as long as members have to return: a node that was only cut off has its rooms
//! still when it is back.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesUnordered};
use satsuma_cluster::entry::{Entry, Line};
use tokio::time::Instant;
use tracing::info;

use super::engine::{Engine, NoAnswer, StoredEntry, Subject, SubjectKind};
use super::node::Cluster;
use super::panics::{Panics, Restart};
use super::room::MAX_ENTRY_BYTES;
use crate::clock::now;
use crate::id::{NodeId, RoomName};
use crate::room::replica::lines::RoomState;

/// Time after the start of a node, and the shortest after the end of another one: nodes with members take their rooms over
/// in it.
const TAKEOVERS: Duration = Duration::from_secs(3);

/// Time between two looks without an occasion.
const INTERVAL: Duration = Duration::from_secs(600);

/// Journals that are read or purged at a time, and rooms that are started in one [`STARTS`].
const AT_A_TIME: usize = 64;

/// Time between the starts of rooms, each of which reads its journal and appends to it.
const STARTS: Duration = Duration::from_millis(250);

/// Time for which an ended room's last entries stay: a node that missed them still tells its sockets of them.
const PURGED_AFTER: Duration = Duration::from_secs(60);

/// Maximum number of ended journals to be purged. The engine removes the others after a day.
const MAX_ENDED: usize = 65_536;

/// The sweeping of a node.
pub(super) struct Sweep {
    started: Instant,
    at: Instant,
    /// The number of nodes that were gone when this was last looked at.
    gone: u64,
    reading: Option<BoxFuture<'static, Result<Vec<Found>, NoAnswer>>>,
    found: VecDeque<Found>,
    start_at: Instant,
    purging: FuturesUnordered<BoxFuture<'static, ()>>,
}

/// The way to start a room that nobody joins here.
type StartOrphan = Box<dyn Fn(RoomName) + Send + Sync>;

/// Rooms of a node that have left something behind.
#[derive(Default)]
pub(super) struct Leftovers {
    /// It, and the time in which a node that is gone may be back.
    start_orphan: OnceLock<(StartOrphan, Duration)>,
    ended: Mutex<EndedJournals>,
    panics: Mutex<Panics>,
}

/// A room that has not ended, and the node that owns it by its journal; none if it was handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    room: RoomName,
    owner: Option<NodeId>,
}

/// The state of a room's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Alive,
    /// It is gone, but not for long.
    MayReturn,
    Gone,
}

/// Journals of rooms that have ended, in the order of the times at which they are purged.
#[derive(Debug, Default)]
pub(super) struct EndedJournals(VecDeque<(Instant, Subject, u64)>);

impl EndedJournals {
    /// Adds a journal, of which the entries below a number are to go.
    pub(super) fn push(&mut self, now: Instant, subject: Subject, below: u64) {
        if self.0.len() >= MAX_ENDED {
            self.0.pop_front();
        }
        self.0.push_back((now + PURGED_AFTER, subject, below));
    }

    /// The next journal that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Subject, u64)> {
        self.0.pop_front_if(|(at, ..)| *at <= now).map(|(_, subject, below)| (subject, below))
    }
}

impl Sweep {
    pub(super) fn new(now: Instant) -> Self {
        let purging = FuturesUnordered::new();
        Self {
            started: now,
            at: now + TAKEOVERS,
            gone: 0,
            reading: None,
            found: VecDeque::new(),
            start_at: now,
            purging,
        }
    }

    /// Begins what is due, and starts some of the rooms that were found.
    pub(super) fn poll<E: Engine>(&mut self, now: Instant, cluster: &Cluster<E>) {
        let (gone, grace) = (cluster.gone_nodes(), cluster.grace());
        if gone != self.gone {
            self.gone = gone;
            self.at = self.at.min(now + grace);
        }
        if self.at <= now && self.reading.is_none() {
            self.at = now + INTERVAL;
            if cluster.is_sweeper() {
                self.reading = Some(Box::pin(read(cluster.engine().clone())));
            }
        }
        if self.start_at <= now && !self.found.is_empty() {
            self.start_at = now + STARTS;
            for Found { room, owner } in self.found.drain(..self.found.len().min(AT_A_TIME)) {
                match cluster.standing(owner, now, self.started, grace) {
                    Standing::Alive => {}
                    Standing::MayReturn => self.at = self.at.min(now + grace),
                    Standing::Gone => cluster.start_orphan(room),
                }
            }
        }
        while self.purging.len() < AT_A_TIME
            && let Some((subject, below)) = cluster.ended().pop(now)
        {
            let engine = cluster.engine().clone();
            self.purging.push(Box::pin(async move { engine.purge(subject, below).await }));
        }
    }

    /// Waits for journals that are being read or purged, for ever if there are none. Nothing is lost if the wait is given up.
    pub(super) async fn read(&mut self) {
        let reading = async {
            match &mut self.reading {
                Some(reading) => reading.await,
                None => std::future::pending().await,
            }
        };
        let read = tokio::select! {
            read = reading => read,
            Some(()) = self.purging.next(), if !self.purging.is_empty() => return,
        };
        self.reading = None;
        match read {
            Ok(found) => self.found = found.into(),
            Err(NoAnswer) => self.at = now() + TAKEOVERS,
        }
    }
}

impl<E: Engine> Cluster<E> {
    fn ended(&self) -> MutexGuard<'_, EndedJournals> {
        self.inner.leftovers.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Purges the journal of an ended room below a number, after a while.
    pub(super) fn purge_later(&self, subject: Subject, below: u64) {
        self.ended().push(now(), subject, below);
    }

    fn panics(&self) -> MutexGuard<'_, Panics> {
        self.inner.leftovers.panics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count_panic(&self, room: &RoomName) {
        self.panics().count(now().into_std(), room);
    }

    pub(super) fn restart(&self, room: &RoomName) -> Restart {
        self.panics().restart(now().into_std(), room)
    }

    pub(super) fn start_orphans_with(&self, start: StartOrphan, grace: Duration) {
        // There is one registry of rooms.
        let _ = self.inner.leftovers.start_orphan.set((start, grace.max(TAKEOVERS)));
    }

    /// The time after a node's death in which its rooms are left to whoever returns.
    fn grace(&self) -> Duration {
        self.inner.leftovers.start_orphan.get().map_or(TAKEOVERS, |(_, grace)| *grace)
    }

    fn start_orphan(&self, room: RoomName) {
        if let Some((start, _)) = self.inner.leftovers.start_orphan.get() {
            info!(event = "orphanFound", room = room.as_str());
            start(room);
        }
    }

    /// Number of times that a node was found to be gone.
    fn gone_nodes(&self) -> u64 {
        self.inner.changed.borrow().gone
    }

    /// True if this node looks after what belongs to nobody: one of all does.
    fn is_sweeper(&self) -> bool {
        let membership = self.membership();
        let first = membership.takers().min();
        !membership.is_cut_off() && first == Some(self.node())
    }

    /// The state of a room's owner. One that was never heard of may have been cut off when this node started.
    fn standing(&self, owner: Option<NodeId>, now: Instant, started: Instant, grace: Duration) -> Standing {
        let membership = self.membership();
        let Some(owner) = owner else { return Standing::Gone };
        let heard = membership.last_heard(owner);
        let may_return = now.into_std() < heard.unwrap_or(started.into_std()) + grace;
        if heard.is_some() && membership.is_alive(owner) {
            Standing::Alive
        } else if may_return {
            Standing::MayReturn
        } else {
            Standing::Gone
        }
    }
}

/// Reads the last entries of all rooms.
async fn read<E: Engine>(engine: E) -> Result<Vec<Found>, NoAnswer> {
    let subjects = engine.subjects(SubjectKind::Room).await?;
    let last = |subject| {
        let engine = engine.clone();
        async move { engine.last(subject).await }
    };
    let mut entries = stream::iter(subjects).map(last).buffer_unordered(AT_A_TIME);
    let mut found = Vec::new();
    while let Some(entry) = entries.next().await {
        found.extend(entry?.and_then(|entry| living(&entry)));
    }
    Ok(found)
}

/// The room of a journal's last entry, unless it has ended. What cannot be read is another release's.
fn living(entry: &StoredEntry) -> Option<Found> {
    let entry = Entry::<RoomState>::decode(&entry.bytes, MAX_ENTRY_BYTES).ok()?;
    let room = RoomName::parse(&entry.subject).ok()?;
    let life = entry.lines.iter().rev().find_map(|line| match line {
        Line::Ended => Some(None),
        Line::HandedOver { .. } => Some(Some(None)),
        _ => None,
    });
    life.unwrap_or(Some(Some(entry.by))).map(|owner| Found { room, owner })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(lines: Vec<Line<RoomState>>) -> Option<Option<NodeId>> {
        let by = NodeId::new(7);
        let entry = Entry { subject: "r".into(), by, epoch: 1, number: 3, taken: Vec::new(), lines };
        let stored = StoredEntry { sequence: 9, expected: 8, bytes: entry.encode().into() };
        living(&stored).map(|found| found.owner)
    }

    #[test]
    fn last_entry_tells_the_owner() {
        assert_eq!(last(vec![Line::Claimed { from: None }]), Some(Some(NodeId::new(7))));
        assert_eq!(last(vec![Line::HandedOver { to: None }]), Some(None));
        assert_eq!(last(vec![Line::HandedOver { to: Some(NodeId::new(8)) }]), Some(None));
        assert_eq!(last(vec![Line::Claimed { from: None }, Line::Ended]), None);
        assert_eq!(living(&StoredEntry { sequence: 1, expected: 0, bytes: "{".into() }), None);
    }

    #[test]
    fn ended_journals_wait_for_a_minute() {
        let (mut ended, now) = (EndedJournals::default(), crate::clock::now());
        let subject = Subject::room(&RoomName::parse("r").unwrap());
        ended.push(now, subject, 5);
        assert_eq!(ended.pop(now + PURGED_AFTER - Duration::from_millis(1)), None);
        assert_eq!(ended.pop(now + PURGED_AFTER), Some((subject, 5)));
        assert_eq!(ended.pop(now + PURGED_AFTER), None);
        (0..=MAX_ENDED as u64).for_each(|below| ended.push(now, subject, below));
        assert_eq!(ended.pop(now + PURGED_AFTER), Some((subject, 1)), "the oldest is left to the engine");
    }
}
