//! Programs that follow the events of rooms, and asked to be shown to their members.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::id::RoomName;

/// Maximum number of observers that are shown in one room.
const MAX_SHOWN: usize = 16;

/// The observers by their rooms.
#[derive(Debug, Default)]
pub struct Observers {
    rooms: DashMap<RoomName, Vec<(u64, Arc<str>)>>,
    added: AtomicU64,
    removed: AtomicU64,
}

impl Observers {
    /// Adds an observer of a room; returns its number there.
    pub fn add(&self, room: &RoomName, name: Arc<str>) -> u64 {
        let number = self.added.fetch_add(1, Ordering::Relaxed);
        self.rooms.entry(room.clone()).or_default().push((number, name));
        number
    }

    /// Removes an observer.
    pub fn remove(&self, room: &RoomName, number: u64) {
        if let Some(mut observers) = self.rooms.get_mut(room) {
            observers.retain(|(other, _)| *other != number);
        }
        self.rooms.remove_if(room, |_, observers| observers.is_empty());
        self.removed.fetch_add(1, Ordering::Relaxed);
    }

    /// The names to show in a room, each once, in the order in which they came.
    pub fn names(&self, room: &RoomName) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = Vec::new();
        // Rooms ask at each of their ticks, and most servers have no observer.
        if self.added.load(Ordering::Relaxed) == self.removed.load(Ordering::Relaxed) {
            return names;
        }
        for (_, name) in self.rooms.get(room).iter().flat_map(|observers| observers.iter()) {
            if names.len() < MAX_SHOWN && !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observer_of_several_streams_is_shown_once_until_the_last_one_ends() {
        let (observers, room) = (Observers::default(), RoomName::parse("r").unwrap());
        let [one, two, other] =
            ["Recorder", "Recorder", "Notes"].map(|name| observers.add(&room, name.into()));
        assert_eq!(observers.names(&room), ["Recorder".into(), "Notes".into()]);
        observers.remove(&room, one);
        assert_eq!(observers.names(&room), ["Recorder".into(), "Notes".into()]);
        observers.remove(&room, two);
        assert_eq!(observers.names(&room), ["Notes".into()]);
        observers.remove(&room, other);
        assert!(observers.rooms.is_empty());
    }
}
