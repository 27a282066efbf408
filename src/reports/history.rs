//! PURE: a report's history in its stored form: as it came, or cut to its newest entries if it is too long.
//!
//! The text is not parsed into values: a history of megabytes would take many times its size, and numbers and order
//! would not be preserved.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Name of the member, or of the first entry, that counts the removed entries.
const NOTE: &str = "satsuma:cut";

/// Maximum number of an object's members; the stock client's history has two.
const MEMBERS: usize = 64;

/// Maximum length of a member's name, in bytes as JSON.
const NAME_BYTES: usize = 256;

/// A history within its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Its JSON.
    pub json: String,
    /// Number of removed entries.
    pub cut_entries: u64,
}

/// Returns `history`, with only its newest entries if it exceeds `most_bytes`.
///
/// The stock client's history is an object of lists with the newest entries last. The lists share the bytes so
/// that a short list stays complete beside a long one. The number of removed entries is recorded for each list
/// under `satsuma:cut`.
pub fn keep_newest(history: &RawValue, most_bytes: usize) -> History {
    if history.get().len() <= most_bytes {
        return History { json: history.get().to_owned(), cut_entries: 0 };
    }
    // Reserved for the braces and the counts.
    let budget = most_bytes.saturating_sub(256);
    let (parts, list) = match history.get().as_bytes().first() {
        Some(b'{') => (MemberVisitor::read(history, budget), false),
        Some(b'[') => (vec![ObjectMember { name: Cow::Borrowed(""), value: history }], true),
        _ => (Vec::new(), false),
    };
    let mut shares = Shares { left: budget, waiting: parts.len() };
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|&at| parts[at].value.get().len());
    let mut retained: Vec<Option<RetainedPart>> = parts.iter().map(|_| None).collect();
    for at in order {
        let share = shares.next();
        let note = json_bytes(&parts[at].name) * 2 + 64;
        let part = RetainedPart::of(parts[at].value, share.saturating_sub(note));
        shares.left = shares.left.saturating_sub(part.json.len() + note);
        retained[at] = Some(part);
    }
    written(&parts, retained.into_iter().flatten().collect(), list)
}

fn written(parts: &[ObjectMember<'_>], retained: Vec<RetainedPart>, list: bool) -> History {
    let cut_entries = retained.iter().map(|part| part.cut).sum();
    if let (true, Some(part)) = (list, retained.first()) {
        let rest = part.json.strip_prefix('[').unwrap_or("]");
        let comma = if rest == "]" { "" } else { "," };
        return History {
            json: format!("[{{{NOTE:?}:{{\"entries\":{}}}}}{comma}{rest}", part.cut),
            cut_entries,
        };
    }
    let mut json = String::from("{");
    let mut notes = Vec::new();
    for (ObjectMember { name, .. }, part) in parts.iter().zip(&retained) {
        let name = serde_json::Value::from(&**name);
        json.push_str(&format!("{name}:{},", part.json));
        if part.cut > 0 {
            notes.push(format!("{name}:{}", part.cut));
        }
    }
    // A removed value that is not a list entry counts as one.
    let cut_entries = cut_entries.max(1);
    let notes = if notes.is_empty() { "\"all\":1".to_owned() } else { notes.join(",") };
    json.push_str(&format!("{NOTE:?}:{{{notes}}}}}"));
    History { json, cut_entries }
}

/// The remaining bytes, shared among the remaining parts, the shortest first.
struct Shares {
    left: usize,
    waiting: usize,
}

impl Shares {
    fn next(&mut self) -> usize {
        let share = self.left / self.waiting.max(1);
        self.waiting = self.waiting.saturating_sub(1);
        share
    }
}

/// The retained entries of one part.
struct RetainedPart {
    json: String,
    cut: u64,
}

impl RetainedPart {
    /// Returns the whole `value` if it is short enough, otherwise its newest entries.
    fn of(value: &RawValue, most_bytes: usize) -> Self {
        if value.get().len() <= most_bytes {
            return Self { json: value.get().to_owned(), cut: 0 };
        }
        match read_with(value, NewestVisitor { most_bytes }) {
            Ok(Newest { newest, cut }) => {
                let entries: Vec<&str> = newest.into_iter().map(RawValue::get).collect();
                Self { json: format!("[{}]", entries.join(",")), cut }
            }
            // Not a list: it has no newest entries.
            Err(_) => Self { json: "null".to_owned(), cut: 1 },
        }
    }
}

/// Returns the length of `name` as JSON, in which an escape can be six times as long as its character.
fn json_bytes(name: &str) -> usize {
    serde_json::Value::from(name).to_string().len()
}

/// A member of an object.
struct ObjectMember<'a> {
    name: Cow<'a, str>,
    value: &'a RawValue,
}

/// Reads an object's first members.
struct MemberVisitor;

impl MemberVisitor {
    fn read(object: &RawValue, budget: usize) -> Vec<ObjectMember<'_>> {
        let mut members = read_with(object, Self).unwrap_or_default();
        // The names alone must not use up the budget.
        members.truncate((budget / (2 * NAME_BYTES + 128)).max(1));
        members
    }
}

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = Vec<ObjectMember<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<ObjectMember<'de>> = Vec::new();
        while let Some(MemberName(name)) = map.next_key()? {
            let strange = json_bytes(&name) > NAME_BYTES || name == NOTE;
            if members.len() >= MEMBERS || strange || members.iter().any(|known| known.name == name) {
                map.next_value::<IgnoredAny>()?;
            } else {
                members.push(ObjectMember { name, value: map.next_value()? });
            }
        }
        Ok(members)
    }
}

/// A name, borrowed unless it contains escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct MemberName<'a>(#[serde(borrow)] Cow<'a, str>);

/// A list's last entries.
struct Newest<'a> {
    newest: VecDeque<&'a RawValue>,
    cut: u64,
}

/// Reads a list, holding only as many of its last entries as can be retained.
struct NewestVisitor {
    most_bytes: usize,
}

impl<'de> Visitor<'de> for NewestVisitor {
    type Value = Newest<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let (mut newest, mut cut, mut bytes) = (VecDeque::new(), 0, 0);
        while let Some(entry) = list.next_element::<&'de RawValue>()? {
            // With a comma, or a bracket.
            bytes += entry.get().len() + 1;
            newest.push_back(entry);
            while bytes >= self.most_bytes {
                let Some(oldest) = newest.pop_front() else { break };
                bytes -= oldest.get().len() + 1;
                cut += 1;
            }
        }
        Ok(Newest { newest, cut })
    }
}

fn read_with<'de, V: Visitor<'de>>(json: &'de RawValue, visitor: V) -> Result<V::Value, serde_json::Error> {
    serde_json::Deserializer::from_str(json.get()).deserialize_any(visitor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn cut_to(text: &str, most_bytes: usize) -> History {
        keep_newest(serde_json::from_str(text).unwrap(), most_bytes)
    }

    fn parse(history: &History) -> Value {
        serde_json::from_str(&history.json).unwrap_or_else(|error| panic!("{error}: {}", history.json))
    }

    #[test]
    fn short_history_stays_as_it_came() {
        let text = r#"{"b":[1e0 , {}],"a":"x,\"{[:]}\\","b":null}"#;
        assert_eq!(cut_to(text, text.len()), History { json: text.into(), cut_entries: 0 });
    }

    #[test]
    fn newest_entries_and_short_lists_are_kept() {
        let entries: Vec<_> = (0..2000).map(|n| json!({"n": n, "sdp": "v=0".repeat(10)})).collect();
        let sessions = json!([{"username": "Ada", "sessionId": "s"}]);
        let text = json!({"apiHistory": entries, "userSessions": sessions}).to_string();
        let history = cut_to(&text, 20_000);
        assert!(history.json.len() <= 20_000 && history.json.len() > 15_000, "{}", history.json.len());
        let value = parse(&history);
        assert_eq!(value["userSessions"], sessions);
        let retained = value["apiHistory"].as_array().unwrap();
        assert_eq!(retained.last(), entries.last());
        assert_eq!(retained[..], entries[entries.len() - retained.len()..]);
        let cut = entries.len() - retained.len();
        assert_eq!(history.cut_entries, cut as u64);
        assert_eq!(value[NOTE], json!({"apiHistory": cut}));
    }

    #[test]
    fn bare_list_starts_with_the_cut_count() {
        let entries: Vec<_> = (0..1000).collect();
        let history = cut_to(&json!(entries).to_string(), 1024);
        let value = parse(&history);
        let retained = value.as_array().unwrap();
        assert_eq!(retained[0], json!({NOTE: {"entries": 1001 - retained.len()}}));
        assert_eq!(retained[1..].last(), Some(&json!(999)));
        assert_eq!(history.cut_entries as usize, 1001 - retained.len());
    }

    #[test]
    fn values_without_entries_are_cut_and_counted() {
        let long = "x".repeat(3000);
        for (text, left) in [
            (json!(long), json!({NOTE: {"all": 1}})),
            (json!({"a": long}), json!({"a": null, NOTE: {"a": 1}})),
            (json!([long]), json!([{NOTE: {"entries": 1}}])),
            (json!({"a": [1, long]}), json!({"a": [], NOTE: {"a": 2}})),
            (json!({"a": [long, 1], NOTE: "mine"}), json!({"a": [1], NOTE: {"a": 1}})),
        ] {
            assert_eq!(parse(&cut_to(&text.to_string(), 1024)), left);
        }
    }

    #[test]
    fn deep_nesting_stays_within_the_limit() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(cut_to(&deep, 200_000).json, deep);
        let history = cut_to(&format!("{{\"a\":[{deep},1]}}"), 4096);
        assert_eq!(parse(&history), json!({"a": [1], NOTE: {"a": 1}}));
        let history = cut_to(&deep, 4096);
        assert_eq!(parse(&history), json!([{NOTE: {"entries": 1}}]));
    }

    proptest! {
        #[test]
        fn any_history_becomes_json_within_the_limit(
            lists in prop::collection::btree_map("[a-z\"\\\\é\u{1}]{0,50}", prop::collection::vec(".{0,60}", 0..60), 0..8),
            most_bytes in 1024..4000usize,
        ) {
            let value = json!(lists);
            for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                let history = cut_to(&text, most_bytes);
                prop_assert!(history.json.len() <= most_bytes, "{}", history.json);
                let retained = parse(&history);
                if history.cut_entries == 0 {
                    prop_assert_eq!(&history.json, &text);
                } else {
                    prop_assert!(retained.get(NOTE).is_some());
                }
            }
        }
    }
}
