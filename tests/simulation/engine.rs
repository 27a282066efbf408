//! A model of the engine: a stream of one subject, whose appends have an exact condition.

use std::collections::HashMap;
use std::sync::Arc;

use satsuma::id::{ConnectionId, NodeId};
use satsuma::room::replica::lines::{RoomLine, RoomState};
use satsuma_cluster::entry::{Entry, Line, Record};
use satsuma_cluster::writer::Appended;

/// The engine.
#[derive(Default)]
pub struct Engine {
    records: Vec<Record<RoomState>>,
    count: u64,
    /// Every event ever stored, in order: its place by its text.
    places: HashMap<Arc<str>, usize>,
    /// Every line ever stored, once, in order.
    pub lines: Vec<Line<RoomState>>,
    /// The entries that were stored before, by their writers' numbers.
    known: HashMap<(NodeId, u64, u64), Arc<Entry<RoomState>>>,
    /// The sockets whose admissions were stored.
    admitted: Vec<ConnectionId>,
    pub claims: u64,
    /// Time until which it answers nobody.
    pub down_until: u64,
    pub purged: u64,
    pub most_records: usize,
}

impl Engine {
    pub fn last(&self) -> Option<&Record<RoomState>> {
        self.records.last()
    }

    pub fn records(&self) -> &[Record<RoomState>] {
        &self.records
    }

    /// Appends an entry if the last one has the expected number. The entry goes through its bytes.
    pub fn append(&mut self, expected: u64, entry: &Entry<RoomState>) -> Result<Appended, String> {
        if self.last().map_or(0, |last| last.sequence) != expected {
            return Ok(Appended::Refused);
        }
        let entry = Entry::decode(&entry.encode(), 8 << 20).map_err(|error| error.to_string())?;
        let entry = Arc::new(entry);
        // Others write to the same stream.
        self.count += 1 + expected % 3;
        let key = (entry.by, entry.epoch, entry.number);
        match self.known.get(&key) {
            Some(known) if **known != *entry => return Err(format!("two entries of one number: {key:?}")),
            Some(_) => {}
            None => self.note(&entry),
        }
        self.known.insert(key, entry.clone());
        self.records.push(Record { sequence: self.count, expected, entry });
        self.most_records = self.most_records.max(self.records.len());
        Ok(Appended::Stored(self.count))
    }

    fn note(&mut self, entry: &Entry<RoomState>) {
        for line in &entry.lines {
            match line {
                Line::Change(RoomLine::Event { json, .. }) => {
                    self.places.entry(json.clone()).or_insert(self.lines.len());
                }
                Line::Change(RoomLine::Admitted { connection, .. }) => self.admitted.push(*connection),
                Line::Claimed { .. } => self.claims += 1,
                _ => {}
            }
            self.lines.push(line.clone());
        }
    }

    /// The place of an event among all lines.
    pub fn place(&self, json: &str) -> Option<usize> {
        self.places.get(json).copied()
    }

    pub fn has_admitted(&self, connection: ConnectionId) -> bool {
        self.admitted.contains(&connection)
    }

    pub fn purge(&mut self, below: u64) {
        let before = self.records.len();
        let last = self.last().map_or(0, |last| last.sequence);
        self.records.retain(|record| record.sequence >= below || record.sequence == last);
        self.purged += (before - self.records.len()) as u64;
    }

    /// Forgets the last entries, whose numbers are given again.
    pub fn lose_end(&mut self, entries: usize) {
        self.records.truncate(self.records.len().saturating_sub(entries).max(1));
        self.count = self.last().map_or(0, |last| last.sequence);
    }
}
