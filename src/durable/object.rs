//! An object as a value: its values by key, and the changes of a call applied as one step or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::method::{AlarmChange, Change, ObjectState};
use crate::store::objects::{Alarm, ObjectRow, SavedObject};

/// Maximum length of a key in bytes.
pub const MAX_KEY_BYTES: usize = 2048;

/// Latest time of an alarm, in milliseconds since 1970: the end of the year 9999.
const LAST_TIME: u64 = 253_402_300_799_999;

/// Maximum nesting of a value's arrays and objects: a reader that recurses must not overflow its stack.
pub const MAX_DEPTH: usize = 128;

/// Limits of one object.
#[derive(Clone, Copy, Debug)]
pub struct ObjectLimits {
    /// Maximum number of keys.
    pub keys: usize,
    /// Maximum bytes of one value.
    pub value_bytes: usize,
    /// Maximum bytes of all keys and values.
    pub object_bytes: usize,
}

/// The limit that a change would break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitBroken {
    /// A key is empty or too long.
    #[error("a key has 1 to 2048 bytes")]
    Key,
    /// A value is too long.
    #[error("the value is too long")]
    Value,
    /// A value is nested too deeply.
    #[error("the value is nested too deeply")]
    Depth,
    /// The object would have too many keys.
    #[error("the object has too many keys")]
    Keys,
    /// The object would be too large.
    #[error("the object is too large")]
    Object,
}

/// An object in memory.
#[derive(Clone, Debug, Default)]
pub struct Object {
    state: Arc<ObjectState>,
    row: ObjectRow,
}

/// Changes that are applied in memory and not stored yet, merged by key: the newest value of each wins.
#[derive(Clone, Debug, Default)]
pub struct Unstored {
    /// The new values; none for a removed key.
    pub changes: BTreeMap<Arc<str>, Option<Arc<RawValue>>>,
    /// The row before the first of them.
    pub before: ObjectRow,
}

/// A step that is checked and not applied yet.
#[derive(Debug)]
pub struct Step {
    changes: BTreeMap<Arc<str>, Option<Arc<RawValue>>>,
    after: ObjectRow,
}

impl Object {
    /// An object as stored.
    pub fn restore(saved: SavedObject) -> Self {
        Self { state: Arc::new(saved.values), row: saved.row }
    }

    /// Its values.
    pub fn state(&self) -> &Arc<ObjectState> {
        &self.state
    }

    /// Everything else that is stored of it.
    pub fn row(&self) -> &ObjectRow {
        &self.row
    }

    /// Checks changes that apply in their order, at `now` in milliseconds since 1970; none if nothing changes.
    ///
    /// An object that is over a limit, which was lowered, may still get smaller.
    ///
    /// # Errors
    /// [`LimitBroken`].
    pub fn step(
        &self,
        now: u64,
        changes: Vec<Change>,
        alarm: Option<AlarmChange>,
        limits: &ObjectLimits,
    ) -> Result<Option<Step>, LimitBroken> {
        let mut merged = BTreeMap::new();
        for change in changes {
            match change {
                Change::Put { key, value } => {
                    if key.is_empty() || key.len() > MAX_KEY_BYTES {
                        return Err(LimitBroken::Key);
                    }
                    if value.get().len() > limits.value_bytes {
                        return Err(LimitBroken::Value);
                    }
                    if depth(value.get()) > MAX_DEPTH {
                        return Err(LimitBroken::Depth);
                    }
                    merged.insert(key, Some(value));
                }
                Change::Delete { key } => drop(merged.insert(key, None)),
            }
        }
        // A removed key that was not there changes nothing.
        merged.retain(|key, value| value.is_some() || self.state.contains_key(key));
        let mut after = self.row;
        for (key, value) in &merged {
            if let Some(old) = self.state.get(key) {
                after.keys -= 1;
                after.bytes = after.bytes.saturating_sub(length(key, old));
            }
            if let Some(value) = value {
                after.keys += 1;
                after.bytes += length(key, value);
            }
        }
        if after.keys > self.row.keys && after.keys > limits.keys as u64 {
            return Err(LimitBroken::Keys);
        }
        if after.bytes > self.row.bytes && after.bytes > limits.object_bytes as u64 {
            return Err(LimitBroken::Object);
        }
        match alarm {
            Some(AlarmChange::Set(due)) => {
                after.alarm = Some(Alarm { due: due.min(LAST_TIME), failures: 0 });
            }
            Some(AlarmChange::Clear) => after.alarm = None,
            None => {}
        }
        Ok(self.step_to(now, merged, after))
    }

    /// The step that changes only the alarm.
    pub fn alarm_step(&self, now: u64, alarm: Option<Alarm>) -> Option<Step> {
        self.step_to(now, BTreeMap::new(), ObjectRow { alarm, ..self.row })
    }

    /// The step that removes everything.
    pub fn removal(&self, now: u64) -> Option<Step> {
        let changes = self.state.keys().map(|key| (key.clone(), None)).collect();
        self.step_to(now, changes, ObjectRow { keys: 0, bytes: 0, alarm: None, ..self.row })
    }

    fn step_to(
        &self,
        now: u64,
        changes: BTreeMap<Arc<str>, Option<Arc<RawValue>>>,
        after: ObjectRow,
    ) -> Option<Step> {
        if changes.is_empty() && after.alarm == self.row.alarm {
            return None;
        }
        Some(Step { changes, after: ObjectRow { version: after.version + 1, changed_at: now, ..after } })
    }

    /// Applies a step, and adds it to the changes that are to be stored.
    pub fn apply(&mut self, step: Step, unstored: &mut Option<Unstored>) {
        let before = self.row;
        let unstored = unstored.get_or_insert_with(|| Unstored { before, ..Unstored::default() });
        let state = Arc::make_mut(&mut self.state);
        for (key, value) in step.changes {
            match &value {
                Some(value) => drop(state.insert(key.clone(), value.clone())),
                None => drop(state.remove(&key)),
            }
            unstored.changes.insert(key, value);
        }
        self.row = step.after;
    }
}

impl Step {
    /// The row once it is applied.
    pub fn after(&self) -> &ObjectRow {
        &self.after
    }
}

fn length(key: &str, value: &RawValue) -> u64 {
    (key.len() + value.get().len()) as u64
}

/// Nesting of arrays and objects in valid JSON.
pub fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut is_text, mut is_escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            b'[' | b'{' if !is_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: ObjectLimits = ObjectLimits { keys: 3, value_bytes: 8, object_bytes: 20 };

    fn json(text: &str) -> Arc<RawValue> {
        Arc::from(RawValue::from_string(text.to_owned()).unwrap())
    }

    fn put(key: &str, value: &str) -> Change {
        Change::Put { key: key.into(), value: json(value) }
    }

    fn delete(key: &str) -> Change {
        Change::Delete { key: key.into() }
    }

    fn shown(object: &Object) -> String {
        object.state.iter().map(|(key, value)| format!("{key}={value} ")).collect()
    }

    /// Applies changes; true if there was anything to apply.
    fn apply(object: &mut Object, changes: Vec<Change>) -> Result<bool, LimitBroken> {
        let step = object.step(7, changes, None, &LIMITS)?;
        let is_some = step.is_some();
        step.into_iter().for_each(|step| object.apply(step, &mut None));
        Ok(is_some)
    }

    #[test]
    fn changes_of_a_call_apply_in_their_order() {
        let mut object = Object::default();
        assert_eq!(
            apply(&mut object, vec![put("a", "1"), put("b", "2"), delete("a"), put("b", "3")]),
            Ok(true)
        );
        assert_eq!(shown(&object), "b=3 ");
        let row = *object.row();
        assert_eq!((row.keys, row.bytes, row.version, row.changed_at), (1, 2, 1, 7));
        assert_eq!(apply(&mut object, vec![delete("a"), put("c", "1"), delete("c")]), Ok(false));
        assert_eq!(*object.row(), row, "nothing changed");
    }

    #[test]
    fn change_over_a_limit_changes_nothing() {
        let mut object = Object::default();
        apply(&mut object, vec![put("a", "1"), put("b", "2"), put("c", "3")]).unwrap();
        for (change, broken) in [
            (put("d", "4"), LimitBroken::Keys),
            (put("a", "\"1234567\""), LimitBroken::Value),
            (put("", "1"), LimitBroken::Key),
            (put(&"k".repeat(2049), "1"), LimitBroken::Key),
        ] {
            assert_eq!(apply(&mut object, vec![put("a", "9"), change]), Err(broken));
            assert_eq!(shown(&object), "a=1 b=2 c=3 ");
        }
        let long = || vec![put("a", "12345678"), put("b", "12345678"), put("c", "1")];
        assert_eq!(apply(&mut object, long()), Ok(true));
        assert_eq!(apply(&mut object, vec![put("c", "12")]), Err(LimitBroken::Object));
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
        let roomy = ObjectLimits { value_bytes: 1 << 20, object_bytes: 1 << 20, ..LIMITS };
        let step =
            |value: &str| object.step(7, vec![put("a", value)], None, &roomy).map(|step| step.is_some());
        assert_eq!(step(&deep), Err(LimitBroken::Depth));
        assert_eq!(step(&deep[1..deep.len() - 1]), Ok(true));
    }

    /// A limit that is lowered must not make its objects useless.
    #[test]
    fn object_over_a_limit_may_get_smaller() {
        let values = ["a", "b", "c", "d", "e"].map(|key| (key.into(), json("12345678")));
        let row = ObjectRow { keys: 5, bytes: 45, ..ObjectRow::default() };
        let mut object = Object::restore(SavedObject { values: values.into(), row });
        assert_eq!(apply(&mut object, vec![put("a", "1")]), Ok(true));
        assert_eq!(apply(&mut object, vec![put("a", "12")]), Err(LimitBroken::Object));
        assert_eq!(apply(&mut object, vec![delete("a")]), Ok(true));
        assert_eq!(apply(&mut object, vec![put("a", "1")]), Err(LimitBroken::Keys));
    }

    #[test]
    fn alarm_and_removal_are_steps() {
        let mut object = Object::default();
        let set = object.step(1, vec![], Some(AlarmChange::Set(u64::MAX)), &LIMITS).unwrap().unwrap();
        object.apply(set, &mut None);
        assert_eq!(object.row().alarm, Some(Alarm { due: LAST_TIME, failures: 0 }));
        assert!(object.row().is_stored());
        assert!(object.step(1, vec![], Some(AlarmChange::Set(u64::MAX)), &LIMITS).unwrap().is_none());
        apply(&mut object, vec![put("a", "1")]).unwrap();
        let mut unstored = None;
        object.apply(object.removal(2).unwrap(), &mut unstored);
        assert!(!object.row().is_stored());
        assert!(object.state().is_empty());
        assert!(object.removal(2).is_none());
        let unstored = unstored.unwrap();
        assert_eq!((unstored.changes.len(), unstored.before.keys), (1, 1));
    }

    #[test]
    fn nesting_is_counted_outside_of_texts() {
        for (json, nesting) in [
            ("1", 0),
            ("[]", 1),
            (r#"{"a":[{}]}"#, 3),
            (r#""[[[""#, 0),
            (r#"["\"[",[]]"#, 2),
            (r#"["\\",[]]"#, 2),
        ] {
            assert_eq!(depth(json), nesting, "{json}");
        }
    }

    proptest! {
        /// The stored values and the merged changes make the values in memory, and the row counts those.
        #[test]
        fn unstored_changes_lead_to_the_state(
            calls in proptest::collection::vec(
                proptest::collection::vec((0..5_u8, proptest::option::of(0..200_u32)), 0..5), 0..20,
            )
        ) {
            let limits = ObjectLimits { keys: 4, value_bytes: 3, object_bytes: 12 };
            let (mut object, mut stored, mut unstored) = (Object::default(), ObjectState::new(), None);
            for call in calls {
                let changes = call.iter().map(|(key, value)| match value {
                    Some(value) => put(&format!("k{key}"), &value.to_string()),
                    None => delete(&format!("k{key}")),
                });
                let before = object.clone();
                match object.step(0, changes.collect(), None, &limits) {
                    Ok(Some(step)) => object.apply(step, &mut unstored),
                    Ok(None) => prop_assert_eq!(shown(&object), shown(&before)),
                    Err(_) => {}
                }
                prop_assert_eq!(object.row().keys, object.state().len() as u64);
                let bytes: u64 = object.state().iter().map(|(key, value)| length(key, value)).sum();
                prop_assert_eq!(object.row().bytes, bytes);
                prop_assert!(object.row().keys <= 4 && bytes <= 12);
            }
            for (key, value) in unstored.unwrap_or_default().changes {
                match value {
                    Some(value) => drop(stored.insert(key, value)),
                    None => drop(stored.remove(&key)),
                }
            }
            let stored = Object { state: Arc::new(stored), row: *object.row() };
            prop_assert_eq!(shown(&stored), shown(&object));
        }
    }
}
