//! The settings of rooms that are set by name, and outlast their meetings.

use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use tokio::sync::Mutex;

use super::rules::{RoomRules, RulesChange};
use super::shared_settings::{EngineSilent, SharedSetting, SharedSettings};
use crate::id::RoomName;
use crate::store::rules::{RulesError, StoredRules};

/// Maximum number of rooms with settings of their own.
const MAX_ROOMS: usize = 10_000;

/// Reason for not changing settings.
#[derive(Debug, thiserror::Error)]
pub enum CannotChange {
    /// Too many rooms have settings.
    #[error("{MAX_ROOMS} rooms have settings of their own; no further one can")]
    Full,
    /// They could not be stored.
    #[error(transparent)]
    Store(#[from] RulesError),
    /// They could not be given to the other nodes.
    #[error(transparent)]
    Engine(#[from] EngineSilent),
}

/// The settings by room.
#[derive(Debug, Default)]
pub struct Rulebook {
    rooms: DashMap<RoomName, RoomRules>,
    stored: Option<StoredRules>,
    /// The settings that all nodes share, if there are several: these here are a copy.
    shared: OnceLock<Arc<dyn SharedSettings>>,
    /// Held while a change is stored, so that changes of one room are not mixed.
    writing: Mutex<()>,
}

impl Rulebook {
    /// The stored settings. What cannot be read is as by default.
    pub fn new(stored: StoredRules, all: Vec<(RoomName, Arc<str>)>) -> Self {
        let read = |(room, json): (RoomName, Arc<str>)| Some((room, serde_json::from_str(&json).ok()?));
        let rooms = all.into_iter().filter_map(read).collect();
        Self { rooms, stored: Some(stored), shared: OnceLock::new(), writing: Mutex::default() }
    }

    /// Makes them a copy of those that all nodes share.
    pub fn share(&self, shared: Arc<dyn SharedSettings>) {
        // A node has one engine.
        let _ = self.shared.set(shared);
    }

    /// The settings of a room.
    pub fn get(&self, room: &RoomName) -> RoomRules {
        self.rooms.get(room).map(|rules| rules.clone()).unwrap_or_default()
    }

    /// The settings of all rooms that have some, sorted by name.
    pub fn all(&self) -> Vec<(RoomName, RoomRules)> {
        let rooms = self.rooms.iter().map(|entry| (entry.key().clone(), entry.value().clone()));
        let mut rooms: Vec<_> = rooms.collect();
        rooms.sort_unstable_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        rooms
    }

    /// Changes the settings of a room, and returns once that is stored.
    ///
    /// # Errors
    /// [`CannotChange`]; they are as before then.
    pub async fn change(&self, room: &RoomName, change: &RulesChange) -> Result<(), CannotChange> {
        let _one_at_a_time = self.writing.lock().await;
        let mut rules = self.get(room);
        // A copy may be old.
        if !rules.apply(change) && self.shared.get().is_none() {
            return Ok(());
        }
        if rules != RoomRules::default() && self.rooms.len() >= MAX_ROOMS && !self.rooms.contains_key(room) {
            return Err(CannotChange::Full);
        }
        if let Some(shared) = self.shared.get() {
            rules = Self::change_for_all(&**shared, room, change).await?;
        }
        Ok(self.keep(room, rules).await?)
    }

    /// Changes the settings that all nodes share; those of the room afterwards.
    async fn change_for_all(
        shared: &dyn SharedSettings,
        room: &RoomName,
        change: &RulesChange,
    ) -> Result<RoomRules, EngineSilent> {
        let (name, change) = (room.clone(), change.clone());
        let update = move |stored: Option<&SharedSetting>| {
            let mut rules = rules_of(stored);
            let setting = |rules| SharedSetting::Rules { room: name.clone(), rules };
            rules.apply(&change).then(|| setting(rules))
        };
        let changed = shared.update(SharedSetting::key_of_rules(room), Box::new(update)).await?;
        Ok(rules_of(changed.as_ref()))
    }

    /// Takes the settings of a room that are in force for all nodes. They are in force here even if the disk is full.
    ///
    /// # Errors
    /// [`RulesError`].
    pub async fn take(&self, room: &RoomName, rules: RoomRules) -> Result<(), RulesError> {
        let _one_at_a_time = self.writing.lock().await;
        if self.get(room) == rules {
            return Ok(());
        }
        let is_kept = self.keep(room, rules.clone()).await;
        self.put(room, rules);
        is_kept
    }

    /// Asks for the settings of a room that all nodes share, and takes them.
    pub async fn refresh(&self, room: &RoomName) {
        let Some(shared) = self.shared.get() else { return };
        if let Ok(Some(SharedSetting::Rules { rules, .. })) =
            shared.read(SharedSetting::key_of_rules(room)).await
        {
            let _ = self.take(room, rules).await;
        }
    }

    async fn keep(&self, room: &RoomName, rules: RoomRules) -> Result<(), RulesError> {
        if let Some(stored) = &self.stored {
            let is_default = rules == RoomRules::default();
            let json = if is_default { None } else { serde_json::to_string(&rules).ok() };
            stored.set(room, json.as_deref()).await?;
        }
        self.put(room, rules);
        Ok(())
    }

    fn put(&self, room: &RoomName, rules: RoomRules) {
        if rules == RoomRules::default() {
            self.rooms.remove(room);
        } else {
            self.rooms.insert(room.clone(), rules);
        }
    }
}

fn rules_of(setting: Option<&SharedSetting>) -> RoomRules {
    match setting {
        Some(SharedSetting::Rules { rules, .. }) => rules.clone(),
        _ => RoomRules::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn settings_are_kept_until_they_are_the_default() {
        let book = Rulebook::default();
        let room = RoomName::parse("r").unwrap();
        let lock = |on| RulesChange { locked: Some(on), ..RulesChange::default() };
        book.change(&room, &lock(true)).await.unwrap();
        assert!(book.get(&room).locked && !book.get(&RoomName::parse("s").unwrap()).locked);
        book.change(&room, &lock(false)).await.unwrap();
        assert!(book.rooms.is_empty());
    }

    #[tokio::test]
    async fn number_of_rooms_is_limited() {
        let book = Rulebook::default();
        for number in 0..MAX_ROOMS {
            book.rooms.insert(RoomName::parse(&number.to_string()).unwrap(), RoomRules::default());
        }
        let change = RulesChange { chat: Some(false), ..RulesChange::default() };
        let further = book.change(&RoomName::parse("r").unwrap(), &change).await;
        assert!(matches!(further, Err(CannotChange::Full)));
        book.change(&RoomName::parse("7").unwrap(), &change).await.unwrap();
    }
}
