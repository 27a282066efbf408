//! A client's view of presences, as the stock client's `presence.js` keeps it.

use std::collections::BTreeMap;

use serde_json::Value;

/// Metas by key.
pub type View = BTreeMap<String, Vec<Value>>;

/// The presences as one client knows them.
#[derive(Debug, Default)]
pub struct ModelClient {
    /// Its metas, after everything that it applied.
    pub view: View,
    has_state: bool,
    pending: Vec<(View, View)>,
}

fn view(json: &Value) -> View {
    let entries = json.as_object().unwrap().iter();
    entries.map(|(key, entry)| (key.clone(), entry["metas"].as_array().unwrap().clone())).collect()
}

/// True if one of the metas is of the same version. Versions are compared by `phx_ref`, and by nothing else.
fn contains(metas: &[Value], meta: &Value) -> bool {
    metas.iter().any(|other| other["phx_ref"] == meta["phx_ref"])
}

fn without(metas: &[Value], others: &[Value]) -> Vec<Value> {
    metas.iter().filter(|meta| !contains(others, meta)).cloned().collect()
}

impl ModelClient {
    /// The channel joins anew: what the client knows stays until the next state.
    pub fn rejoin(&mut self) {
        self.has_state = false;
    }

    /// `syncState`.
    pub fn state(&mut self, json: &Value) {
        let new = view(json);
        let (mut joins, mut leaves) = (View::new(), View::new());
        for (key, metas) in &self.view {
            let left = without(metas, new.get(key).map_or(&[], Vec::as_slice));
            if !left.is_empty() {
                leaves.insert(key.clone(), left);
            }
        }
        for (key, metas) in new {
            let joined = without(&metas, self.view.get(&key).map_or(&[], Vec::as_slice));
            if !joined.is_empty() {
                joins.insert(key, joined);
            }
        }
        self.sync(joins, &leaves);
        self.has_state = true;
        for (joins, leaves) in std::mem::take(&mut self.pending) {
            self.sync(joins, &leaves);
        }
    }

    /// `syncDiff`, after the state.
    pub fn diff(&mut self, json: &Value) {
        let (joins, leaves) = (view(&json["joins"]), view(&json["leaves"]));
        if self.has_state {
            self.sync(joins, &leaves);
        } else {
            self.pending.push((joins, leaves));
        }
    }

    fn sync(&mut self, joins: View, leaves: &View) {
        for (key, metas) in joins {
            let mut all = without(self.view.get(&key).map_or(&[], Vec::as_slice), &metas);
            all.extend(metas);
            self.view.insert(key, all);
        }
        for (key, metas) in leaves {
            if let Some(own) = self.view.get_mut(key) {
                *own = without(own, metas);
                if own.is_empty() {
                    self.view.remove(key);
                }
            }
        }
    }
}
