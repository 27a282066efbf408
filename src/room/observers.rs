//! Programs that follow the events of rooms, and asked to be shown to their members.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use crate::id::{NodeId, RoomName};

/// Maximum number of observers that are shown in one room.
const MAX_SHOWN: usize = 16;

/// Time after which the observers at another node are forgotten that does not tell of them any more. It does once a minute.
const FORGOTTEN: Duration = Duration::from_secs(3 * 60);

/// The observers by their rooms.
#[derive(Debug, Default)]
pub struct Observers {
    rooms: DashMap<RoomName, Vec<(u64, Arc<str>)>>,
    /// Those at other nodes.
    elsewhere: DashMap<RoomName, Vec<Elsewhere>>,
    added: AtomicU64,
    removed: AtomicU64,
}

/// The observers of a room at another node.
#[derive(Debug)]
struct Elsewhere {
    node: NodeId,
    names: Vec<Arc<str>>,
    told: Instant,
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

    /// Takes the observers of a room at another node, in place of those that it told before.
    pub fn set_elsewhere(&self, now: Instant, room: &RoomName, node: NodeId, mut names: Vec<Arc<str>>) {
        names.truncate(MAX_SHOWN);
        let mut nodes = self.elsewhere.entry(room.clone()).or_default();
        let before = nodes.len();
        nodes.retain(|other| other.node != node);
        self.removed.fetch_add((before - nodes.len()) as u64, Ordering::Relaxed);
        if !names.is_empty() {
            self.added.fetch_add(1, Ordering::Relaxed);
            nodes.push(Elsewhere { node, names, told: now });
        }
        drop(nodes);
        self.elsewhere.remove_if(room, |_, nodes| nodes.is_empty());
    }

    /// Forgets the observers at a node that is gone; returns their rooms.
    pub fn node_gone(&self, node: NodeId) -> Vec<RoomName> {
        self.forget(|elsewhere| elsewhere.node == node)
    }

    /// Forgets observers at other nodes that nobody tells of any more; returns their rooms.
    pub fn prune(&self, now: Instant) -> Vec<RoomName> {
        self.forget(|elsewhere| now.saturating_duration_since(elsewhere.told) > FORGOTTEN)
    }

    fn forget(&self, is_old: impl Fn(&Elsewhere) -> bool) -> Vec<RoomName> {
        let mut rooms = Vec::new();
        self.elsewhere.retain(|room, nodes| {
            let before = nodes.len();
            nodes.retain(|elsewhere| !is_old(elsewhere));
            let gone = before - nodes.len();
            if gone > 0 {
                self.removed.fetch_add(gone as u64, Ordering::Relaxed);
                rooms.push(room.clone());
            }
            !nodes.is_empty()
        });
        rooms
    }

    /// The rooms with observers at this node.
    pub fn own_rooms(&self) -> Vec<RoomName> {
        self.rooms.iter().map(|entry| entry.key().clone()).collect()
    }

    /// The names of a room's observers at this node, each once, in the order in which they came.
    pub fn own_names(&self, room: &RoomName) -> Vec<Arc<str>> {
        let mut names = Vec::new();
        for (_, name) in self.rooms.get(room).iter().flat_map(|observers| observers.iter()) {
            show(&mut names, name);
        }
        names
    }

    /// The names to show in a room, each once: those of this node first, in the order in which they came.
    pub fn names(&self, room: &RoomName) -> Vec<Arc<str>> {
        // Rooms ask at each of their ticks, and most servers have no observer.
        if self.added.load(Ordering::Relaxed) == self.removed.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut names = self.own_names(room);
        if let Some(nodes) = self.elsewhere.get(room) {
            nodes.iter().flat_map(|elsewhere| &elsewhere.names).for_each(|name| show(&mut names, name));
        }
        names
    }
}

/// Adds a name, unless it is there, or there are enough.
fn show(names: &mut Vec<Arc<str>>, name: &Arc<str>) {
    if names.len() < MAX_SHOWN && !names.contains(name) {
        names.push(name.clone());
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

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "an instant can only be had from the clock; tests add to it"
    )]
    fn observers_at_other_nodes_are_shown_until_these_tell_otherwise_or_are_gone() {
        let (observers, room, now) = (Observers::default(), RoomName::parse("r").unwrap(), Instant::now());
        let [a, b] = [7, 8].map(NodeId::new);
        let tell = |node, names: &[&str]| {
            observers.set_elsewhere(now, &room, node, names.iter().map(|name| (*name).into()).collect());
        };
        tell(a, &["Recorder", "Notes"]);
        tell(b, &["Notes", "Words"]);
        let own = observers.add(&room, "Own".into());
        let expected: [Arc<str>; 4] = ["Own".into(), "Recorder".into(), "Notes".into(), "Words".into()];
        assert_eq!(observers.names(&room), expected);
        assert_eq!(
            (observers.own_names(&room), observers.own_rooms()),
            (vec!["Own".into()], vec![room.clone()])
        );
        observers.remove(&room, own);
        tell(a, &["Notes"]);
        assert_eq!(observers.names(&room), ["Notes".into(), "Words".into()]);
        tell(a, &[]);
        assert_eq!(observers.node_gone(a), []);
        assert_eq!(observers.prune(now + FORGOTTEN), []);
        assert_eq!(observers.node_gone(b), std::slice::from_ref(&room));
        tell(a, &["Notes"]);
        assert_eq!(observers.prune(now + FORGOTTEN + Duration::from_secs(1)), std::slice::from_ref(&room));
        assert!(observers.names(&room).is_empty() && observers.elsewhere.is_empty());
        assert_eq!(observers.added.load(Ordering::Relaxed), observers.removed.load(Ordering::Relaxed));
        let many: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        tell(a, &many.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(observers.names(&room).len(), MAX_SHOWN);
    }
}
