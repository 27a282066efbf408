//! Phoenix Presence of a room's members: the presences that were published last, as states and as differences.
//!
//! A room has presences while a member asks for them, and publishes them where it publishes its snapshot. A client
//! applies each difference to what it has, and knows versions of a presence by `phx_ref` alone. It accepts a
//! whole state at any time, so a state can stand for all differences before it: the two must lead to the same.

use std::fmt::Write;
use std::mem;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::protocol::user::User;

/// The fields that a meta has besides the user object's; a user object's own of these names are left out.
const META_FIELDS: [&str; 3] = ["online_at", "phx_ref", "phx_ref_prev"];

/// Keys that the stock client before 1.8.9 finds in every object of JavaScript: one of them broke it for the whole
/// room. A member that claims such an id has no presence.
const INHERITED_KEYS: [&str; 12] = [
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
];

/// The presences of a room, as they were published last.
#[derive(Debug)]
pub struct Presences {
    /// The first part of every `phx_ref`, which tells those of two rooms or processes apart.
    prefix: String,
    /// The number of the newest version.
    last_version: u64,
    /// In the order of their keys.
    published: Vec<Presence>,
}

/// One member's presence; it has one meta.
#[derive(Debug)]
struct Presence {
    key: Arc<str>,
    /// The user object of the member, as JSON.
    user: Arc<str>,
    /// The same without the fields of a meta.
    shown: Arc<str>,
    online_at: u64,
    version: u64,
    previous: Option<u64>,
}

impl Presences {
    /// No presences yet. The prefix is random, since a client that joins anew compares what it has by `phx_ref`.
    pub fn new(prefix: u64) -> Self {
        let prefix = URL_SAFE_NO_PAD.encode(prefix.to_be_bytes());
        Self { prefix, last_version: 0, published: Vec::new() }
    }

    /// Publishes the room's users, as pairs of key and user object in the order of their keys, and returns the
    /// payload of the `presence_diff` from the users before, if they differ. `online_at` returns the time, in
    /// seconds since 1970, since which a member of this key is there.
    pub fn update<'a>(
        &mut self,
        users: impl Iterator<Item = (&'a str, &'a Arc<str>)>,
        online_at: impl Fn(&str) -> u64,
    ) -> Option<String> {
        let old = mem::take(&mut self.published);
        self.published.reserve(old.len() + 1);
        let mut old = old.into_iter().peekable();
        let (mut joins, mut leaves) = (Vec::new(), Vec::new());
        for (key, user) in users {
            leaves.extend(std::iter::from_fn(|| old.next_if(|old| *old.key < *key)));
            match old.next_if(|old| *old.key == *key) {
                // Members that came and went since have another object.
                Some(old) if Arc::ptr_eq(&old.user, user) => self.published.push(old),
                Some(mut old) if old.user == *user && old.online_at == online_at(key) => {
                    old.user = user.clone();
                    self.published.push(old);
                }
                Some(old) => {
                    let online_at = online_at(key);
                    let previous = (old.online_at == online_at).then_some(old.version);
                    joins.push(self.published.len());
                    self.publish(old.key.clone(), user, online_at, previous);
                    leaves.push(old);
                }
                None if INHERITED_KEYS.binary_search(&key).is_ok() => {}
                None => {
                    joins.push(self.published.len());
                    self.publish(key.into(), user, online_at(key), None);
                }
            }
        }
        leaves.extend(old);
        if joins.is_empty() && leaves.is_empty() {
            return None;
        }
        let mut diff = r#"{"joins":"#.to_owned();
        self.write_all(joins.iter().map(|place| &self.published[*place]), &mut diff);
        diff.push_str(r#","leaves":"#);
        self.write_all(leaves.iter(), &mut diff);
        diff.push('}');
        Some(diff)
    }

    /// The payload of the `presence_state`: everything that was published.
    pub fn state(&self) -> String {
        let bytes =
            self.published.iter().map(|presence| presence.key.len() + presence.shown.len() + 100).sum();
        let mut state = String::with_capacity(bytes);
        self.write_all(self.published.iter(), &mut state);
        state
    }

    fn publish(&mut self, key: Arc<str>, user: &Arc<str>, online_at: u64, previous: Option<u64>) {
        self.last_version += 1;
        let (version, shown) = (self.last_version, shown(user));
        self.published.push(Presence { key, user: user.clone(), shown, online_at, version, previous });
    }

    fn write_all<'a>(&self, presences: impl Iterator<Item = &'a Presence>, json: &mut String) {
        json.push('{');
        for (place, Presence { key, shown, online_at, version, previous, .. }) in presences.enumerate() {
            let comma = if place > 0 { "," } else { "" };
            // A user object has an id, so that a comma follows. A key has no character that JSON would escape.
            // Formatting into a String cannot fail.
            let user = shown.strip_suffix('}').unwrap_or(shown);
            let _ = write!(json, r#"{comma}"{key}":{{"metas":[{user},"online_at":{online_at},"#);
            let _ = write!(json, r#""phx_ref":"{}{version:x}""#, self.prefix);
            if let Some(previous) = previous {
                let _ = write!(json, r#","phx_ref_prev":"{}{previous:x}""#, self.prefix);
            }
            json.push_str("}]}");
        }
        json.push('}');
    }
}

/// A user object without fields of the names that a meta adds. A JSON object with two fields of one name is read
/// differently by different clients.
fn shown(user: &Arc<str>) -> Arc<str> {
    // Field names are encoded without needless escapes. The text may also stand inside of a field, to no harm.
    if !user.contains(r#""online_at""#) && !user.contains(r#""phx_ref"#) {
        return user.clone();
    }
    let Ok(mut parsed) = serde_json::from_str::<User>(user) else { return user.clone() };
    META_FIELDS.iter().for_each(|name| parsed.other.remove(name));
    parsed.to_json().into()
}

#[cfg(test)]
pub mod model;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::model::ModelClient;
    use super::*;

    /// The prefix of 64 zero bits.
    const PREFIX: &str = "AAAAAAAAAAA";

    type Users = BTreeMap<String, Arc<str>>;

    fn users<const N: usize>(users: [(&str, &str); N]) -> Users {
        users.map(|(key, user)| (key.to_owned(), user.into())).into()
    }

    fn update(presences: &mut Presences, users: &Users, online_at: u64) -> Option<String> {
        presences.update(users.iter().map(|(key, user)| (key.as_str(), user)), |_| online_at)
    }

    #[test]
    fn payloads_are_encoded_byte_for_byte() {
        let mut presences = Presences::new(0);
        assert_eq!((update(&mut presences, &users([]), 7), presences.state()), (None, "{}".to_owned()));
        let [ann, bob] = [r#"{"id":"ann","name":"Ann"}"#, r#"{"id":"bob","name":"\"B\""}"#];
        let joined = r#""ann":{"metas":[{"id":"ann","name":"Ann","online_at":7,"phx_ref":"AAAAAAAAAAA1"}]}"#;
        assert_eq!(
            update(&mut presences, &users([("ann", ann)]), 7),
            Some(format!(r#"{{"joins":{{{joined}}},"leaves":{{}}}}"#))
        );
        let both = users([("ann", r#"{"id":"ann","name":"A"}"#), ("bob", bob)]);
        let updated = r#""ann":{"metas":[{"id":"ann","name":"A","online_at":7,"phx_ref":"AAAAAAAAAAA2","phx_ref_prev":"AAAAAAAAAAA1"}]}"#;
        let second =
            r#""bob":{"metas":[{"id":"bob","name":"\"B\"","online_at":7,"phx_ref":"AAAAAAAAAAA3"}]}"#;
        assert_eq!(
            update(&mut presences, &both, 7),
            Some(format!(r#"{{"joins":{{{updated},{second}}},"leaves":{{{joined}}}}}"#))
        );
        assert_eq!(presences.state(), format!("{{{updated},{second}}}"));
        assert_eq!(
            update(&mut presences, &users([("bob", bob)]), 7),
            Some(format!(r#"{{"joins":{{}},"leaves":{{{updated}}}}}"#))
        );
        assert_eq!(presences.state(), format!("{{{second}}}"));
    }

    #[test]
    fn equal_object_is_no_new_version() {
        let mut presences = Presences::new(0);
        let ann = || users([("ann", r#"{"id":"ann"}"#)]);
        assert!(update(&mut presences, &ann(), 7).is_some());
        let state = presences.state();
        assert_eq!(update(&mut presences, &ann(), 7), None);
        assert_eq!(presences.state(), state);
        // A member of the same id that came since is another, of which there is no earlier version.
        let diff: Value = serde_json::from_str(&update(&mut presences, &ann(), 8).unwrap()).unwrap();
        assert_eq!(
            diff["joins"]["ann"]["metas"],
            json!([{"id": "ann", "online_at": 8, "phx_ref": format!("{PREFIX}2")}])
        );
        assert_eq!(diff["leaves"]["ann"]["metas"][0]["phx_ref"], format!("{PREFIX}1"));
    }

    /// A user object's own `phx_ref` hid all its updates from clients, or was a second field of that name.
    #[test]
    fn user_object_cannot_replace_fields_of_the_meta() {
        let mut presences = Presences::new(0);
        let user = User {
            other: serde_json::from_str::<User>(
                r#"{"online_at":1,"phx_ref":"x","phx_\u0072ef_prev":"y","z":{"phx_ref":2}}"#,
            )
            .unwrap()
            .other,
            ..User::fresh("ann", "Ann")
        };
        update(&mut presences, &users([("ann", &user.to_json())]), 7);
        let state = presences.state();
        assert_eq!(state.matches("phx_ref").count(), 2, "{state}");
        assert!(
            state.ends_with(r#""z":{"phx_ref":2},"online_at":7,"phx_ref":"AAAAAAAAAAA1"}]}}"#),
            "{state}"
        );
    }

    /// `presence.js` before 1.8.9 finds `constructor` in its empty object, and fails on it for everyone.
    #[test]
    fn key_that_breaks_older_clients_is_left_out() {
        assert!(INHERITED_KEYS.is_sorted());
        let mut presences = Presences::new(0);
        let mut all = users([("ann", r#"{"id":"ann"}"#)]);
        update(&mut presences, &all, 7);
        let state = presences.state();
        for key in INHERITED_KEYS {
            all.insert(key.to_owned(), format!(r#"{{"id":"{key}"}}"#).into());
        }
        assert_eq!(update(&mut presences, &all, 7), None);
        assert_eq!(presences.state(), state);
    }

    proptest! {
        /// A client that gets every difference, and one that gets states now and then in place of them, know
        /// what the state says, which is everyone's newest object under a version of its own.
        #[test]
        fn differences_lead_to_the_state(
            steps in prop::collection::vec(
                (prop::collection::btree_map("[a-d]", (0..3u8, 0..2u64), 0..4), any::<bool>()), 1..20),
        ) {
            let mut presences = Presences::new(9);
            let (mut eager, mut lazy) = (ModelClient::default(), ModelClient::default());
            eager.state(&json!({}));
            lazy.state(&json!({}));
            let mut refs = std::collections::HashMap::new();
            for (members, is_taken) in steps {
                let objects: BTreeMap<String, Arc<str>> = members
                    .iter()
                    .map(|(key, (hand, _))| (key.clone(), format!(r#"{{"id":"{key}","hand":{hand}}}"#).into()))
                    .collect();
                let users = objects.iter().map(|(key, user)| (key.as_str(), user));
                let diff = presences.update(users, |key| members[key].1);
                let state: Value = serde_json::from_str(&presences.state()).unwrap();
                if let Some(diff) = diff {
                    let diff = serde_json::from_str(&diff).unwrap();
                    eager.diff(&diff);
                    if is_taken { lazy.diff(&diff) } else { lazy.state(&state) }
                }
                let mut expected = ModelClient::default();
                expected.state(&state);
                prop_assert_eq!(&eager.view, &expected.view);
                prop_assert_eq!(&lazy.view, &expected.view);
                let shown: BTreeMap<_, _> = expected
                    .view
                    .iter()
                    .map(|(key, metas)| (key.clone(), (metas[0]["hand"].as_u64().unwrap() as u8, metas[0]["online_at"].as_u64().unwrap())))
                    .collect();
                prop_assert_eq!(&shown, &members);
                for (key, metas) in &expected.view {
                    let reference = metas[0]["phx_ref"].as_str().unwrap().to_owned();
                    let version = (key.clone(), members[key]);
                    prop_assert_eq!(refs.entry(reference).or_insert_with(|| version.clone()), &version);
                }
            }
        }
    }
}
