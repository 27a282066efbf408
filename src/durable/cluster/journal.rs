//! The way of one object to its journal: read and claimed when the object comes into memory, appended to by each step.
//!
//! Every append expects the last entry that this node knows, so one that lost the object finds out by its next step, and
//! nothing of that is stored. An append without an answer is made again unchanged; if that does not help in time, the
//! object is read and claimed anew, after which nothing of before can be stored any more.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use satsuma_cluster::writer::Appended;
use tokio::time::{Instant, sleep};
use tracing::{debug, error, warn};

use super::ObjectCluster;
use super::entry::{self, Changes, Header, Row, Step, StepKind};
use super::fold::{self, Fold, Growth, Place};
use crate::clock::now;
use crate::durable::error::ObjectError;
use crate::id::ObjectId;
use crate::nodes::engine::{StoredEntry, Subject};
use crate::store::objects::{ObjectRow, SavedObject, Values};

/// Time in which the engine has to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Pause before the engine is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// Time after which an owner looks if it still is one, before it answers.
const CONFIRMED: Duration = Duration::from_secs(1);

/// Bytes beyond those of the state, and entries, that a journal may have before the state is written as a whole.
const MAX_BYTES: u64 = 64 << 10;
const MAX_ENTRIES: u64 = 4096;

/// Attempts to write a step of which the engine lost what was before.
const MAX_LOSSES: usize = 3;

/// The journal of an object that is in this node's memory.
#[derive(Debug)]
pub struct ObjectJournal {
    cluster: Arc<ObjectCluster>,
    id: ObjectId,
    /// The place of the next entry; its number is 0 before the claim.
    next: Place,
    /// The engine's number of the last entry.
    sequence: u64,
    growth: Growth,
    confirmed: Instant,
    /// The engine's number of the alarm's entry, if it has one of this node.
    alarm: Option<u64>,
}

/// A step was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unwritten {
    /// Another node owns the object.
    Fenced,
    /// The engine lost the end of the journal.
    LostEnd,
    /// The engine did not answer, and nothing of the step counts.
    Away,
    /// The engine did not answer, and the step may count.
    Doubt,
}

impl From<Unwritten> for ObjectError {
    fn from(unwritten: Unwritten) -> Self {
        match unwritten {
            Unwritten::Fenced | Unwritten::LostEnd => Self::Moved,
            Unwritten::Away => Self::EngineAway,
            Unwritten::Doubt => Self::EngineSilent,
        }
    }
}

impl ObjectJournal {
    /// Reads an object, and claims it unless there is nothing of it.
    ///
    /// # Errors
    /// [`ObjectError::Elsewhere`] if another node owns it; or the error of the engine, or of the journal.
    pub async fn open(
        cluster: &Arc<ObjectCluster>,
        id: &ObjectId,
    ) -> Result<(Self, SavedObject), ObjectError> {
        let until = now() + PATIENCE;
        loop {
            match Self::try_open(cluster, id, until).await? {
                Some(opened) => return Ok(opened),
                None if now() < until => sleep(PAUSE).await,
                None => return Err(ObjectError::EngineAway),
            }
        }
    }

    /// None if the engine did not answer, or another node was faster.
    async fn try_open(
        cluster: &Arc<ObjectCluster>,
        id: &ObjectId,
        until: Instant,
    ) -> Result<Option<(Self, SavedObject)>, ObjectError> {
        let (nodes, subject) = (&cluster.nodes, Subject::object(id));
        let Ok(entries) = nodes.all(subject).await else { return Ok(None) };
        let fold = read(id, &entries)?;
        let own = nodes.own();
        let mut journal = Self {
            cluster: cluster.clone(),
            id: id.clone(),
            next: Place { by: own, epoch: fold.place.map_or(0, |place| place.epoch) + 1, number: 0 },
            sequence: fold.sequence,
            growth: fold.since_whole,
            confirmed: now(),
            alarm: None,
        };
        let Some(last) = fold.place else { return Ok(Some((journal, fold.object))) };
        if last.by != own && !nodes.is_gone(last.by).await {
            cluster.remember(id, last.by);
            return Err(ObjectError::Elsewhere);
        }
        if !fold.object.row.is_stored() {
            // Whoever emptied it did not come to remove the journal. A claim meanwhile is not below this number.
            nodes.purge(subject, fold.sequence + 1).await;
            journal.sequence = match nodes.last(subject).await {
                Ok(None) => 0,
                Ok(Some(last)) if last.sequence == fold.sequence => fold.sequence,
                _ => return Ok(None),
            };
            return Ok(Some((journal, SavedObject::default())));
        }
        let header = Header {
            object: id.as_str().into(),
            by: own,
            epoch: journal.next.epoch,
            number: 0,
            step: StepKind::Claim,
            part: 0,
            left: 0,
            deflated: false,
            row: Row::from(&fold.object.row),
        };
        let claim = entry::encode(&header, &[]);
        journal.growth.add(claim.len());
        match nodes.append(subject, journal.sequence, claim).await {
            Appended::Stored(sequence) => journal.sequence = sequence,
            Appended::Refused | Appended::Unknown => return Ok(None),
        }
        journal.next.number = 1;
        debug!(event = "objectOwned", object = id.as_str(), epoch = journal.next.epoch, former = %last.by);
        if let Some(alarm) = fold.object.row.alarm {
            journal.tell_alarm(until).await?;
            cluster.alarms.set(id, Some(alarm.due));
        }
        cluster.remember(id, own);
        Ok(Some((journal, fold.object)))
    }

    /// Stores a step: the changes, or the whole state if that is the first one, or nothing is left.
    ///
    /// # Errors
    /// [`ObjectError::Moved`] and [`ObjectError::EngineAway`] if nothing of it is stored, and
    /// [`ObjectError::EngineSilent`] if nobody knows. The journal is of no use after either.
    pub async fn commit(
        &mut self,
        changes: &Changes,
        values: &Values,
        (before, after): (&ObjectRow, &ObjectRow),
    ) -> Result<(), ObjectError> {
        let until = now() + PATIENCE;
        if after.alarm.is_some() && self.alarm.is_none() {
            self.tell_alarm(until).await?;
        }
        let is_first = self.next.number == 0;
        let is_whole = is_first || !after.is_stored();
        let (mut kind, mut step) = match is_whole {
            true => (StepKind::Whole, entry::whole(values)),
            false => (StepKind::Changes, entry::changes(changes)),
        };
        for attempt in 0.. {
            match self.write(kind, &step, (before, after), until).await {
                Ok(_) => break,
                Err(Unwritten::LostEnd) if attempt < MAX_LOSSES => {
                    warn!(event = "objectJournalLost", object = self.id.as_str(), "it is written again");
                    (kind, step) = (StepKind::Whole, entry::whole(values));
                }
                Err(unwritten) => {
                    if unwritten == Unwritten::Fenced {
                        self.cluster.forget(&self.id);
                    }
                    return Err(unwritten.into());
                }
            }
        }
        if is_first {
            self.cluster.remember(&self.id, self.next.by);
        }
        if before.alarm != after.alarm || is_first {
            self.cluster.alarms.set(&self.id, after.alarm.map(|alarm| alarm.due));
        }
        if after.alarm.is_none()
            && let Some(sequence) = self.alarm.take()
        {
            self.cluster.nodes.purge(Subject::alarm(&self.id), sequence + 1).await;
        }
        Ok(())
    }

    /// Writes the state as a whole if the journal has grown much beyond it, and removes what is not needed then.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub async fn compact(&mut self, values: &Values, row: &ObjectRow) -> Result<(), ObjectError> {
        let Growth { entries, bytes } = self.growth;
        if self.next.number == 0 || (bytes < row.bytes + MAX_BYTES && entries < MAX_ENTRIES) {
            return Ok(());
        }
        let step = entry::whole(values);
        let first = self.write(StepKind::Whole, &step, (row, row), now() + PATIENCE).await?;
        self.cluster.nodes.purge(Subject::object(&self.id), first).await;
        Ok(())
    }

    /// Removes the journal of an object of which nothing is left, and gives the object up.
    pub async fn remove(&mut self) {
        let (nodes, subject) = (&self.cluster.nodes, Subject::object(&self.id));
        nodes.purge(subject, self.sequence + 1).await;
        // If it is not removed, or somebody claimed it meanwhile, the next step finds out.
        if let Ok(None) = nodes.last(subject).await {
            self.sequence = 0;
        }
        (self.next.epoch, self.next.number) = (self.next.epoch + 1, 0);
        self.growth = Growth::default();
        self.cluster.forget(&self.id);
    }

    /// Finds out if this node still owns the object, unless it did so a moment ago. If the engine does not answer, nobody
    /// knows.
    ///
    /// # Errors
    /// [`ObjectError::Moved`]; the journal is of no use then.
    pub async fn confirm(&mut self) -> Result<(), ObjectError> {
        if self.confirmed.elapsed() < CONFIRMED || self.cluster.nodes.is_away() {
            return Ok(());
        }
        let Ok(last) = self.cluster.nodes.last(Subject::object(&self.id)).await else { return Ok(()) };
        let is_owned = match last {
            None => self.next.number == 0,
            Some(last) => entry::decode(&self.id, &last.bytes).is_ok_and(|(header, _)| self.is_own(&header)),
        };
        if !is_owned {
            self.cluster.forget(&self.id);
            return Err(ObjectError::Moved);
        }
        self.confirmed = now();
        Ok(())
    }

    fn is_own(&self, header: &Header) -> bool {
        (header.by, header.epoch) == (self.next.by, self.next.epoch)
    }

    /// Writes a step in as many entries as it needs; returns the engine's number of the first.
    async fn write(
        &mut self,
        kind: StepKind,
        step: &Step,
        rows: (&ObjectRow, &ObjectRow),
        until: Instant,
    ) -> Result<u64, Unwritten> {
        let entries = fold::entries(&self.id, self.next, kind, step, rows);
        let (count, mut first, mut growth) = (entries.len(), 0, Growth::default());
        for (at, (place, bytes)) in (1..).zip(entries) {
            growth.add(bytes.len());
            let doubt = if at == count { Unwritten::Doubt } else { Unwritten::Away };
            self.sequence = self.append(place, bytes, until, doubt).await?;
            self.next.number = place.number + 1;
            if at == 1 {
                first = self.sequence;
            }
        }
        if kind == StepKind::Whole {
            self.growth = growth;
        } else {
            self.growth.entries += growth.entries;
            self.growth.bytes += growth.bytes;
        }
        self.confirmed = now();
        Ok(first)
    }

    async fn append(
        &mut self,
        place: Place,
        bytes: Bytes,
        until: Instant,
        doubt: Unwritten,
    ) -> Result<u64, Unwritten> {
        let (nodes, subject) = (self.cluster.nodes.clone(), Subject::object(&self.id));
        let mut is_sent = false;
        loop {
            // What is not sent cannot be stored later.
            if is_sent || !nodes.is_away() {
                is_sent = true;
                match nodes.append(subject, self.sequence, bytes.clone()).await {
                    Appended::Stored(sequence) => return Ok(sequence),
                    Appended::Unknown => {}
                    Appended::Refused => match nodes.last(subject).await {
                        Ok(Some(last)) => match entry::decode(&self.id, &last.bytes) {
                            Ok((header, _)) if Place::of(&header) == place => return Ok(last.sequence),
                            Ok((header, _)) if self.is_own(&header) => {
                                self.sequence = last.sequence;
                                return Err(Unwritten::LostEnd);
                            }
                            _ => return Err(Unwritten::Fenced),
                        },
                        Ok(None) => return Err(Unwritten::Fenced),
                        Err(_) => {}
                    },
                }
            }
            if now() >= until {
                return Err(if is_sent { doubt } else { Unwritten::Away });
            }
            sleep(PAUSE).await;
        }
    }

    /// Writes the entry by which other nodes know that the object has an alarm, and which of them looks after it.
    async fn tell_alarm(&mut self, until: Instant) -> Result<(), ObjectError> {
        let (nodes, subject) = (&self.cluster.nodes, Subject::alarm(&self.id));
        loop {
            if let Ok(last) = nodes.last(subject).await {
                let expected = last.map_or(0, |last| last.sequence);
                let entry = super::alarms::encode(&self.id, self.next.by);
                if let Appended::Stored(sequence) = nodes.append(subject, expected, entry).await {
                    self.alarm = Some(sequence);
                    if expected > 0 {
                        nodes.purge(subject, sequence).await;
                    }
                    return Ok(());
                }
            }
            if now() >= until {
                return Err(ObjectError::EngineAway);
            }
            sleep(PAUSE).await;
        }
    }
}

/// Folds a journal.
///
/// # Errors
/// [`ObjectError::Unreadable`]; the log tells the reason.
pub(super) fn read(id: &ObjectId, entries: &[StoredEntry]) -> Result<Fold, ObjectError> {
    Fold::read(id, entries).map_err(|why| {
        error!(event = "objectUnreadable", object = id.as_str(), %why);
        ObjectError::Unreadable
    })
}
