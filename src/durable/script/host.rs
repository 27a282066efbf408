//! The data of one call: what a script reads, and the changes that it asks for.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::super::method::{
    AlarmChange, Change, MethodCall, MethodError, MethodOutcome, ObjectState, Update,
};
use super::super::object::{MAX_DEPTH, depth};

/// Maximum changes and updates of one call.
const MAX_STEPS: usize = 20_000;

/// Maximum bytes of a key.
const MAX_KEY_BYTES: usize = 2048;

/// Maximum log lines of one call.
const MAX_LINES: u32 = 32;

/// The refusal of a step, which the script sees as an exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) String);

fn refused<T>(problem: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(problem.into()))
}

/// A selection of keys, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub(super) prefix: Option<String>,
    pub(super) start: Option<String>,
    pub(super) start_after: Option<String>,
    pub(super) end: Option<String>,
    pub(super) reverse: bool,
    pub(super) limit: Option<usize>,
}

impl Selection {
    fn contains(&self, key: &str) -> bool {
        self.prefix.as_deref().is_none_or(|prefix| key.starts_with(prefix))
            && self.end.as_deref().is_none_or(|end| key < end)
    }

    /// The least key that may be selected.
    fn first(&self) -> Bound<&str> {
        let start =
            self.start.as_deref().or(self.prefix.as_deref()).map_or(Bound::Unbounded, Bound::Included);
        let after = self.start_after.as_deref();
        match (after, self.prefix.as_deref()) {
            (Some(after), Some(prefix)) if after < prefix => Bound::Included(prefix),
            (Some(after), _) => Bound::Excluded(after),
            (None, Some(prefix)) if self.start.as_deref().is_some_and(|start| start < prefix) => {
                Bound::Included(prefix)
            }
            (None, _) => start,
        }
    }
}

/// The data of one call.
#[derive(Debug)]
pub(super) struct CallData {
    /// The object's id, for the log.
    pub(super) object: String,
    state: Arc<ObjectState>,
    /// Changed values; `None` is a deleted one.
    changed: BTreeMap<Arc<str>, Option<Arc<RawValue>>>,
    updates: Vec<Update>,
    alarm: Option<u64>,
    alarm_change: Option<AlarmChange>,
    steps: usize,
    bytes: usize,
    max_bytes: usize,
    lines: u32,
}

impl CallData {
    /// Creates the data of no call, for the time before one.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            object: String::new(),
            state: Arc::default(),
            changed: BTreeMap::new(),
            updates: Vec::new(),
            alarm: None,
            alarm_change: None,
            steps: 0,
            bytes: 0,
            max_bytes,
            lines: 0,
        }
    }

    /// Begins a call.
    pub(super) fn begin(&mut self, call: &MethodCall) {
        *self = Self {
            object: call.object.as_str().to_owned(),
            state: call.state.clone(),
            alarm: call.alarm,
            ..Self::new(self.max_bytes)
        };
    }

    pub(super) fn get(&self, key: &str) -> Option<&RawValue> {
        match self.changed.get(key) {
            Some(changed) => changed.as_deref(),
            None => self.state.get(key).map(|value| &**value),
        }
    }

    pub(super) fn put(&mut self, key: &str, json: String) -> Result<(), Refused> {
        check_key(key)?;
        self.charge(key.len() + json.len())?;
        self.changed.insert(key.into(), Some(checked(json)?.into()));
        Ok(())
    }

    /// Removes a value; false if there is none.
    pub(super) fn delete(&mut self, key: &str) -> Result<bool, Refused> {
        if self.get(key).is_none() {
            return Ok(false);
        }
        self.charge(key.len())?;
        self.changed.insert(key.into(), None);
        Ok(true)
    }

    pub(super) fn delete_all(&mut self) -> Result<(), Refused> {
        for key in self.list(&Selection::default()).into_iter().map(|(key, _)| key).collect::<Vec<_>>() {
            self.delete(&key)?;
        }
        Ok(())
    }

    /// Returns the selected keys with their values.
    pub(super) fn list(&self, selection: &Selection) -> Vec<(Arc<str>, &RawValue)> {
        let range = || (selection.first(), Bound::<&str>::Unbounded);
        let past = |key: &str| {
            let end = selection.end.as_deref().is_some_and(|end| key >= end);
            let prefix = selection.prefix.as_deref();
            end || prefix.is_some_and(|prefix| !key.starts_with(prefix) && key > prefix)
        };
        let stored = self.state.range::<str, _>(range()).take_while(|(key, _)| !past(key));
        let stored = stored.filter(|(key, _)| !self.changed.contains_key(*key));
        let stored = stored.map(|(key, value)| (key.clone(), &**value));
        let changed = self.changed.range::<str, _>(range()).take_while(|(key, _)| !past(key));
        let changed = changed.filter_map(|(key, value)| Some((key.clone(), value.as_deref()?)));
        let mut listed: Vec<_> = stored.chain(changed).filter(|(key, _)| selection.contains(key)).collect();
        listed.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        if selection.reverse {
            listed.reverse();
        }
        listed.truncate(selection.limit.unwrap_or(usize::MAX));
        listed
    }

    pub(super) fn update(&mut self, key: &str, json: String) -> Result<(), Refused> {
        check_key(key)?;
        self.charge(key.len() + json.len())?;
        self.updates.push(Update { key: key.into(), value: checked(json)?.into() });
        Ok(())
    }

    pub(super) fn alarm(&self) -> Option<u64> {
        self.alarm
    }

    pub(super) fn change_alarm(&mut self, change: AlarmChange) {
        self.alarm = match change {
            AlarmChange::Set(at) => Some(at),
            AlarmChange::Clear => None,
        };
        self.alarm_change = Some(change);
    }

    /// True if the call may log another line, which is counted.
    pub(super) fn take_line(&mut self) -> bool {
        self.lines += 1;
        self.lines <= MAX_LINES
    }

    /// Ends the call with the JSON of its result.
    ///
    /// # Errors
    /// [`MethodError::Failed`] for a result that is no JSON, is nested too deeply or is too large.
    pub(super) fn finish(&mut self, result: String) -> Result<MethodOutcome, MethodError> {
        let result = self.charge(result.len()).and_then(|()| checked(result));
        let result = result.map_err(|Refused(problem)| MethodError::Failed(problem))?;
        let changes = std::mem::take(&mut self.changed).into_iter().map(|(key, value)| match value {
            Some(value) => Change::Put { key, value },
            None => Change::Delete { key },
        });
        Ok(MethodOutcome {
            result,
            changes: changes.collect(),
            updates: std::mem::take(&mut self.updates),
            alarm: self.alarm_change.take(),
        })
    }

    /// Counts a step and its bytes, which are outside of the script's own memory.
    fn charge(&mut self, bytes: usize) -> Result<(), Refused> {
        self.steps += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.steps > MAX_STEPS {
            return refused(format!("a call makes at most {MAX_STEPS} changes"));
        }
        if self.bytes > self.max_bytes {
            return refused(format!("the changes of a call have at most {} bytes", self.max_bytes));
        }
        Ok(())
    }
}

fn check_key(key: &str) -> Result<(), Refused> {
    if (1..=MAX_KEY_BYTES).contains(&key.len()) {
        Ok(())
    } else {
        refused(format!("a key has 1 to {MAX_KEY_BYTES} bytes"))
    }
}

/// Checks a text that a script calls JSON: a script may have replaced what made it.
fn checked(json: String) -> Result<Box<RawValue>, Refused> {
    if depth(&json) > MAX_DEPTH {
        return refused(format!("a value is nested more than {MAX_DEPTH} deep"));
    }
    RawValue::from_string(json).or_else(|_| refused("the value is not JSON"))
}
