//! The sums over all stored objects, and their limits.

use std::sync::{Arc, Mutex, PoisonError};

use super::error::ObjectError;
use crate::metrics::Metrics;
use crate::store::objects::{ObjectRow, Totals};

/// The sums over all objects, as they are once everything in memory is stored.
#[derive(Debug)]
pub struct StoredTotals {
    totals: Mutex<Totals>,
    max_objects: u64,
    max_bytes: u64,
    metrics: Arc<Metrics>,
}

impl StoredTotals {
    /// The sums as stored, with the limits of objects and of bytes.
    pub fn new(totals: Totals, max_objects: usize, max_bytes: usize, metrics: Arc<Metrics>) -> Self {
        let stored = Self {
            totals: Mutex::new(totals),
            max_objects: max_objects as u64,
            max_bytes: max_bytes as u64,
            metrics,
        };
        stored.show(totals);
        stored
    }

    /// Counts the change of an object from one row to another.
    ///
    /// # Errors
    /// [`ObjectError::Full`] if it would grow beyond a limit; nothing is counted then.
    pub fn change(&self, before: &ObjectRow, after: &ObjectRow) -> Result<(), ObjectError> {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = changed(*totals, before, after);
        if changed.objects > totals.objects && changed.objects > self.max_objects {
            return Err(ObjectError::Full("there are too many objects"));
        }
        if changed.bytes > totals.bytes && changed.bytes > self.max_bytes {
            return Err(ObjectError::Full("the space for objects is used up"));
        }
        *totals = changed;
        self.show(changed);
        Ok(())
    }

    /// Counts a change that was not stored, or was found to be, whatever the limits say.
    pub fn correct(&self, before: &ObjectRow, after: &ObjectRow) {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        *totals = changed(*totals, before, after);
        self.show(*totals);
    }

    /// Takes the sums of all nodes of a cluster, as its engine counts them.
    pub fn follow(&self, objects: u64, bytes: u64) {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        *totals = Totals { objects, bytes, ..*totals };
        self.show(*totals);
    }

    fn show(&self, totals: Totals) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.durable_objects.set(signed(totals.objects));
        self.metrics.durable_keys.set(signed(totals.keys));
        self.metrics.durable_bytes.set(signed(totals.bytes));
    }
}

fn changed(totals: Totals, before: &ObjectRow, after: &ObjectRow) -> Totals {
    let change = |total: u64, before: u64, after: u64| (total + after).saturating_sub(before);
    let is_stored = |row: &ObjectRow| u64::from(row.is_stored());
    Totals {
        objects: change(totals.objects, is_stored(before), is_stored(after)),
        keys: change(totals.keys, before.keys, after.keys),
        bytes: change(totals.bytes, before.bytes, after.bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_beyond_a_limit_is_refused() {
        let metrics = Metrics::new();
        let totals = StoredTotals::new(Totals { objects: 1, keys: 1, bytes: 50 }, 2, 100, metrics.clone());
        let (none, row) =
            (ObjectRow::default(), |bytes| ObjectRow { keys: 1, bytes, ..ObjectRow::default() });
        assert!(totals.change(&none, &row(51)).is_err());
        totals.change(&none, &row(50)).unwrap();
        assert!(totals.change(&none, &row(0)).is_err(), "too many");
        assert!(totals.change(&row(50), &row(51)).is_err(), "too many bytes");
        totals.change(&row(50), &row(10)).unwrap();
        totals.correct(&row(10), &row(99));
        totals.change(&row(99), &row(80)).unwrap();
        assert_eq!((metrics.durable_objects.get(), metrics.durable_bytes.get()), (2, 130));
        totals.change(&row(80), &none).unwrap();
        assert_eq!((metrics.durable_objects.get(), metrics.durable_keys.get()), (1, 1));
    }
}
