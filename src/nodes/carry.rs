//! SHELL: rooms that a single node stored are carried over into their journals, when it starts as a node of several.
//!
//! It happens before anybody can join, since a room that is joined before begins anew. [`kept`] decides.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use satsuma_cluster::entry::{Line, Record};
use satsuma_cluster::journal::Life;
use satsuma_cluster::membership::PROBE_TIMEOUT;
use satsuma_cluster::message::NodeMessage;
use satsuma_cluster::writer::{Request, Written};
use satsuma_cluster::{Journal, JournalWriter};
use tokio::time::timeout;
use tracing::{info, warn};

use super::engine::{Engine, Subject};
use super::room::record;
use crate::clock::{now, wall_clock};
use crate::id::NodeId;
use crate::room::replica::kept::{self, Carry};
use crate::room::replica::lines::RoomState;
use crate::store::saved::{JournalPlace, Persist, SavedRoom};
use crate::store::{Change, StoreError, StoreHandle};

/// Rooms that are carried over at a time.
const AT_A_TIME: usize = 64;

/// Time for one room. The engine may be without a leader for a while.
const PATIENCE: Duration = Duration::from_secs(30);

/// The stored rooms are not carried over.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// The engine does not answer.
    #[error(
        "cluster.nats: the stored rooms cannot be carried over, since NATS does not answer; nothing is lost, start again"
    )]
    NoAnswer,
    /// The place in the journal cannot be stored.
    #[error("the stored rooms cannot be carried over: {0}")]
    Store(#[from] StoreError),
}

/// Writes stored rooms into their journals as the node `own`, and forgets them here. Interrupted anywhere, it is done by
/// the next start.
///
/// # Errors
/// [`CarryError`]; the rooms are still stored.
pub async fn carry_over<E: Engine>(
    engine: &E,
    own: NodeId,
    store: &StoreHandle,
    rooms: Vec<SavedRoom>,
) -> Result<(), CarryError> {
    if rooms.is_empty() {
        return Ok(());
    }
    let rooms: Vec<Arc<SavedRoom>> = rooms.into_iter().map(Arc::new).collect();
    let mut carried = Vec::new();
    let look = |room: Arc<SavedRoom>| {
        let engine = engine.clone();
        async move {
            let prepared = timeout(PATIENCE, prepare(&engine, own, &room)).await;
            (room, prepared)
        }
    };
    let mut found = stream::iter(rooms.clone()).map(look).buffer_unordered(AT_A_TIME);
    while let Some((room, prepared)) = found.next().await {
        match prepared.unwrap_or(Err(CarryError::NoAnswer))? {
            Prepared::Empty(records) => {
                let epoch = Journal::read_back(&records).epoch() + 1;
                let place = JournalPlace { epoch, by: own, number: 0 };
                persist(store, &room, Persist::Journal(place));
                carried.push((room, records));
            }
            Prepared::Known => {}
            Prepared::Taken => warn!(
                event = "roomNotCarriedOver",
                room = room.room.as_str(),
                meeting_id = %room.meeting,
                "another meeting runs in the room on other nodes"
            ),
        }
    }
    store.flush().await?;
    let count = carried.len();
    let carry = |(room, records): (Arc<SavedRoom>, _)| {
        let engine = engine.clone();
        async move { timeout(PATIENCE, write(&engine, own, &room, records)).await }
    };
    let mut writing = stream::iter(carried).map(carry).buffer_unordered(AT_A_TIME);
    while let Some(written) = writing.next().await {
        written.map_err(|_| CarryError::NoAnswer)?;
    }
    rooms.iter().for_each(|room| persist(store, room, Persist::MovedAway));
    store.flush().await?;
    info!(event = "roomsCarriedOver", rooms = count, "stored rooms are in their journals");
    Ok(())
}

fn persist(store: &StoreHandle, room: &SavedRoom, what: Persist) {
    let (room, meeting) = (room.room.clone(), room.meeting);
    store.persist(Change { at: wall_clock(), room, meeting, what });
}

/// The journal of a room that is to be carried over.
enum Prepared {
    /// It is empty but for these entries of meetings that have ended.
    Empty(Vec<Record<RoomState>>),
    /// It has the room.
    Known,
    /// It has another meeting.
    Taken,
}

/// Empties the journal of a room, unless it has something newer.
async fn prepare<E: Engine>(engine: &E, own: NodeId, room: &SavedRoom) -> Result<Prepared, CarryError> {
    loop {
        let records = read(engine, room).await?;
        let journal = Journal::read_back(&records);
        match Carry::of(room, &journal, has_owner(engine, &journal).await) {
            Carry::Write => return Ok(Prepared::Empty(records)),
            Carry::Known => return Ok(Prepared::Known),
            Carry::Taken => return Ok(Prepared::Taken),
            Carry::Replace => {
                let name = room.room.as_str().into();
                let writer =
                    JournalWriter::claim_with(now().into_std(), name, own, records, vec![Line::Ended]);
                // If another node was faster, the journal is looked at again.
                Pen { engine, room, writer }.write(Vec::new()).await;
            }
        }
    }
}

/// True if a living node owns the room, or is to.
async fn has_owner<E: Engine>(engine: &E, journal: &Journal<RoomState>) -> bool {
    let owner = match journal.life() {
        Life::Owned(owner) | Life::HandedOver { to: Some(owner) } => owner,
        Life::HandedOver { to: None } | Life::Ended => return false,
    };
    let probe = NodeMessage::Probe.encode();
    engine.request(owner, probe.into(), PROBE_TIMEOUT).await.is_ok()
}

async fn read<E: Engine>(engine: &E, room: &SavedRoom) -> Result<Vec<Record<RoomState>>, CarryError> {
    let entries = engine.all(Subject::room(&room.room)).await.map_err(|_| CarryError::NoAnswer)?;
    // An entry that cannot be read is another release's, or another room's; it is logged, and left alone.
    Ok(entries.iter().map_while(|entry| record(&room.room, entry)).collect())
}

async fn write<E: Engine>(engine: &E, own: NodeId, room: &SavedRoom, records: Vec<Record<RoomState>>) {
    let writer = JournalWriter::claim(now().into_std(), room.room.as_str().into(), own, records);
    let mut pen = Pen { engine, room, writer };
    let mut is_written = pen.write(Vec::new()).await;
    let mut entries = kept::lines(room, own).into_iter().peekable();
    while let Some(lines) = entries.next().filter(|_| is_written) {
        let mut lines: Vec<_> = lines.into_iter().map(Line::Change).collect();
        if entries.peek().is_none() {
            lines.push(Line::HandedOver { to: None });
        }
        is_written = pen.write(lines).await;
    }
    if !is_written {
        warn!(
            event = "roomNotCarriedOver",
            room = room.room.as_str(),
            "another node claimed the room meanwhile"
        );
    }
}

/// The writer of a room's journal, with the engine that it asks.
struct Pen<'a, E> {
    engine: &'a E,
    room: &'a SavedRoom,
    writer: JournalWriter<RoomState>,
}

impl<E: Engine> Pen<'_, E> {
    /// Writes lines as one entry, after the claim if that is not stored yet. False if another node owns the room.
    async fn write(&mut self, lines: Vec<Line<RoomState>>) -> bool {
        for line in lines {
            self.writer.push(now().into_std(), line);
        }
        let subject = Subject::room(&self.room.room);
        while !self.writer.is_idle() {
            let written = match self.writer.poll(now().into_std()) {
                Some(Request::Append { question, expected, entry }) => {
                    let answer = self.engine.append(subject, expected, entry.encode().into()).await;
                    self.writer.appended(now().into_std(), question, answer)
                }
                Some(Request::ReadLast { question }) => {
                    let last = self.engine.last(subject).await.ok();
                    let last = last.map(|last| last.and_then(|entry| record(&self.room.room, &entry)));
                    self.writer.read_last(now().into_std(), question, last)
                }
                None => {
                    let at = self.writer.deadline().map_or_else(now, Into::into);
                    tokio::time::sleep_until(at).await;
                    None
                }
            };
            if written == Some(Written::Fenced) {
                return false;
            }
        }
        true
    }
}
