//! The presences of a room as a Phoenix client keeps them, compared with the room's snapshots.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;

use super::user::UpdateStamp;

#[derive(Clone, Debug, Deserialize)]
struct Meta {
    phx_ref: String,
    // The same as `user::STAMP`, which a test holds.
    #[serde(default, rename = "t")]
    stamp: Option<UpdateStamp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Entry {
    metas: Vec<Meta>,
}

#[derive(Debug, Deserialize)]
struct Diff {
    joins: HashMap<String, Entry>,
    leaves: HashMap<String, Entry>,
}

/// The message of a snapshot.
#[derive(Deserialize)]
struct Snapshot<'a> {
    #[serde(borrow)]
    state: SnapshotState<'a>,
}

#[derive(Deserialize)]
struct SnapshotState<'a> {
    #[serde(borrow)]
    users: Vec<SnapshotUser<'a>>,
}

#[derive(Deserialize)]
struct SnapshotUser<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(default, rename = "t")]
    stamp: Option<UpdateStamp>,
}

/// A room's presences, and its last snapshot.
#[derive(Debug, Default)]
pub struct Presences {
    entries: HashMap<String, Entry>,
    /// Diffs before the first state, which wait for it.
    early: Vec<Diff>,
    is_known: bool,
    /// Parsed only when it is compared: there are many of them.
    snapshot: String,
}

impl Presences {
    /// Replaces all presences by the payload of a `presence_state`.
    ///
    /// # Errors
    /// The parser's.
    pub fn set(&mut self, payload: &str) -> Result<(), serde_json::Error> {
        self.entries = serde_json::from_str(payload)?;
        self.is_known = true;
        for diff in std::mem::take(&mut self.early) {
            self.apply(diff);
        }
        Ok(())
    }

    /// Changes them by the payload of a `presence_diff`.
    ///
    /// # Errors
    /// The parser's.
    pub fn change(&mut self, payload: &str) -> Result<(), serde_json::Error> {
        let diff = serde_json::from_str(payload)?;
        if self.is_known {
            self.apply(diff);
        } else {
            self.early.push(diff);
        }
        Ok(())
    }

    /// Joins come before leaves, and metas are matched by `phx_ref` alone, as in `presence.js`.
    fn apply(&mut self, Diff { joins, leaves }: Diff) {
        for (key, joined) in joins {
            let entry = self.entries.entry(key).or_default();
            entry.metas.retain(|meta| joined.metas.iter().all(|new| new.phx_ref != meta.phx_ref));
            entry.metas.extend(joined.metas);
        }
        for (key, left) in leaves {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.metas.retain(|meta| left.metas.iter().all(|old| old.phx_ref != meta.phx_ref));
            if entry.metas.is_empty() {
                self.entries.remove(&key);
            }
        }
    }

    /// Sets the room's last snapshot, a message of the room.
    pub fn set_snapshot(&mut self, message: &str) {
        self.snapshot.clear();
        self.snapshot.push_str(message);
    }

    /// True if the presences are the members of the last snapshot, each once and with the same update.
    pub fn agree(&self) -> bool {
        let Ok(Snapshot { state }) = serde_json::from_str(&self.snapshot) else { return false };
        let same = |user: &SnapshotUser<'_>| {
            let metas = self.entries.get(&*user.id).map(|entry| &*entry.metas);
            matches!(metas, Some([meta]) if meta.stamp == user.stamp)
        };
        self.entries.len() == state.users.len() && state.users.iter().all(same)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::user::STAMP;

    fn meta(reference: &str, update: u32) -> Value {
        json!({"id": "x", "phx_ref": reference, STAMP: [1, update, 0]})
    }

    fn snapshot(members: &[(&str, u32)]) -> String {
        let users: Vec<_> =
            members.iter().map(|(id, update)| json!({"id": id, STAMP: [1, update, 0]})).collect();
        json!({"type": "roomState", "state": {"users": users}}).to_string()
    }

    #[test]
    fn diffs_lead_to_the_snapshot() {
        let mut presences = Presences::default();
        // Before the state: it waits.
        let came = json!({"joins": {"b": {"metas": [meta("2", 1)]}}, "leaves": {}});
        presences.change(&came.to_string()).unwrap();
        presences.set_snapshot(&snapshot(&[("a", 1), ("b", 1)]));
        assert!(!presences.agree());
        presences.set(&json!({"a": {"metas": [meta("1", 1)]}}).to_string()).unwrap();
        assert!(presences.agree());

        let changed =
            json!({"joins": {"a": {"metas": [meta("3", 2)]}}, "leaves": {"a": {"metas": [meta("1", 1)]}}});
        presences.change(&changed.to_string()).unwrap();
        assert!(!presences.agree(), "the snapshot is older");
        presences.set_snapshot(&snapshot(&[("a", 2), ("b", 1)]));
        assert!(presences.agree());

        let left = json!({"joins": {}, "leaves": {"b": {"metas": [meta("2", 1)]}, "c": {"metas": []}}});
        presences.change(&left.to_string()).unwrap();
        assert!(!presences.agree());
        presences.set_snapshot(&snapshot(&[("a", 2)]));
        assert!(presences.agree());
    }

    #[test]
    fn second_meta_of_a_member_disagrees() {
        let mut presences = Presences::default();
        presences.set(&json!({"a": {"metas": [meta("1", 1), meta("2", 1)]}}).to_string()).unwrap();
        presences.set_snapshot(&snapshot(&[("a", 1)]));
        assert!(!presences.agree());
        assert!(presences.set("[]").is_err() && presences.change("{}").is_err());
    }
}
