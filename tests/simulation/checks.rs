//! The invariants, checked at the end of a run.

use std::collections::{BTreeMap, HashMap, HashSet};

use satsuma::id::UserId;
use satsuma::room::replica::lines::RoomLine;
use satsuma_cluster::entry::Line;

use crate::world::{Losses, Summary, World, text_of};

impl World {
    /// Checks what is to hold once all faults are over.
    pub fn check(&mut self) -> Result<(), String> {
        let events = self.events();
        self.summary = Summary { events: events.len() as u64, ..self.summary };
        // Entries that the engine forgot when nobody was left who knew them are lost.
        if self.losses != Losses::ForGood {
            self.check_said(&events)?;
            self.check_order()?;
            self.check_told()?;
            self.check_recorded()?;
        }
        self.check_convergence()?;
        self.check_bounds()
    }

    /// The places of the events that clients said, by their texts.
    fn events(&self) -> HashMap<String, Vec<usize>> {
        let mut events: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, line) in self.engine.lines.iter().enumerate() {
            if let Line::Change(RoomLine::Event { json, .. }) = line
                && let Some(text) = text_of(json)
            {
                events.entry(text).or_default().push(place);
            }
        }
        events
    }

    /// I4: what a socket said is in the journal once, in order; all of it, if the socket lives on.
    fn check_said(&self, events: &HashMap<String, Vec<usize>>) -> Result<(), String> {
        let open: Vec<_> = self.clients.iter().filter(|client| client.is_open()).collect();
        let mut last = HashMap::new();
        for said in &self.said {
            let places = events.get(&said.text).map_or(&[][..], |places| places);
            match places {
                [] => {
                    let lives = open.iter().any(|client| client.connection() == Some(said.connection));
                    if lives && said.is_event {
                        return Err(format!("I4: lost: {} of {} at {}", said.text, said.connection, said.at));
                    }
                }
                [place] => {
                    let before = last.insert(said.connection, *place);
                    if before.is_some_and(|before| before > *place) {
                        return Err(format!("I4: out of order: {} of {}", said.text, said.connection));
                    }
                }
                _ => return Err(format!("I4: {} is in the journal {} times", said.text, places.len())),
            }
        }
        Ok(())
    }

    /// I2: every client sees events in the journal's order, each event's first coming.
    fn check_order(&self) -> Result<(), String> {
        for client in &self.clients {
            let (mut seen, mut last) = (HashSet::new(), 0);
            for text in &client.told {
                let is_said = text_of(&text.as_str().into()).is_some();
                if !is_said || !seen.insert(text) {
                    continue;
                }
                let Some(place) = self.engine.place(text) else {
                    if text.contains(r#""type":"error""#) {
                        continue;
                    }
                    return Err(format!("I3: client {} saw {text}", client.number));
                };
                if place < last {
                    return Err(format!("I2: client {} saw {text} out of order", client.number));
                }
                last = place;
            }
        }
        Ok(())
    }

    /// I1: a client that is there has every event that was for it since it became a member.
    fn check_told(&self) -> Result<(), String> {
        let mut since: BTreeMap<UserId, usize> = BTreeMap::new();
        for (place, line) in self.engine.lines.iter().enumerate() {
            match line {
                Line::Change(RoomLine::Admitted { user, .. }) => {
                    since.entry(user.clone()).or_insert(place);
                }
                Line::Change(RoomLine::Removed { user, .. }) => drop(since.remove(user)),
                Line::Ended => since.clear(),
                _ => {}
            }
        }
        for client in self.clients.iter().filter(|client| client.is_open()) {
            let user = client.user();
            let Some(from) = since.get(&user) else {
                return Err(format!("I6: client {} is connected, and no member", client.number));
            };
            let told: HashSet<&str> = client.told.iter().map(String::as_str).collect();
            for line in &self.engine.lines[*from..] {
                let Line::Change(RoomLine::Event { to, json, .. }) = line else { continue };
                if to.include(&user) && text_of(json).is_some() && !told.contains(&**json) {
                    return Err(format!("I1: client {} ({user}) never got {json}", client.number));
                }
            }
        }
        Ok(())
    }

    /// I9: every event for programs outside that is in the journal is recorded by some node.
    fn check_recorded(&self) -> Result<(), String> {
        let (mut numbers, mut meeting) = (Vec::new(), None);
        for line in &self.engine.lines {
            match line {
                Line::Change(RoomLine::Published(event)) => numbers.push(event.number),
                Line::Change(RoomLine::Meeting(id)) => meeting = Some(*id),
                Line::Ended => (numbers, meeting) = (Vec::new(), None),
                _ => {}
            }
            let Some(meeting) = meeting else { continue };
            let missing = numbers.drain(..).find(|number| !self.recorded.contains(&(meeting, *number)));
            if let Some(number) = missing {
                return Err(format!("I9: event {number} of {meeting} is recorded by nobody"));
            }
        }
        Ok(())
    }

    /// I7: one owner, everybody attached, everybody's snapshot the owner's.
    fn check_convergence(&self) -> Result<(), String> {
        let waiting = self.clients.iter().find(|client| !client.is_open());
        if let Some(client) = waiting {
            let at = client.connection();
            return Err(format!("I8: client {} waits for its join without an end: {at:?}", client.number));
        }
        let owners: Vec<_> = self
            .nodes
            .iter()
            .filter(|node| node.is_alive && node.replica.as_ref().is_some_and(|own| own.room().is_some()))
            .collect();
        let [owner] = owners[..] else {
            return Err(format!("I7: {} owners", owners.len()));
        };
        let room = owner.replica.as_ref().and_then(|replica| replica.room()).unwrap();
        let snapshot = room.encode_snapshot();
        for node in self.nodes.iter().filter(|node| node.is_alive) {
            let Some(replica) = &node.replica else { continue };
            if node.id != owner.id && replica.attached_to() != Some(owner.id) {
                return Err(format!("I7: {} is not attached to {}", node.id, owner.id));
            }
        }
        for client in &self.clients {
            if client.snapshot != snapshot {
                return Err(format!(
                    "I7: client {} has\n{}\nand not\n{snapshot}",
                    client.number, client.snapshot
                ));
            }
        }
        Ok(())
    }

    /// I8: nothing grows without a bound.
    fn check_bounds(&self) -> Result<(), String> {
        for replica in self.nodes.iter().filter_map(|node| node.replica.as_ref()) {
            let (items, lines) = replica.backlog();
            if items > 0 || lines > 20 {
                return Err(format!("I8: {items} items and {lines} lines wait"));
            }
        }
        if self.summary.most_records > 2000 {
            return Err(format!("I8: the journal had {} entries", self.summary.most_records));
        }
        Ok(())
    }
}
