//! **Pure**: a journal's entries, folded into the object that they lead to.
//!
//! A reader takes an entry only if it continues what it has: the next one of the owner, the first of a whole state by the
//! owner, or the claim of another. An entry that an engine took against its condition is left out by all readers alike.

use bytes::Bytes;

use super::entry::{self, Changes, Header, Step, StepKind, Unreadable};
use crate::id::{NodeId, ObjectId};
use crate::nodes::engine::StoredEntry;
use crate::store::objects::{ObjectRow, SavedObject, Values};

/// The place of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The owner.
    pub by: NodeId,
    /// Its epoch.
    pub epoch: u64,
    /// The number among its entries.
    pub number: u64,
}

/// A journal as it was read.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    /// The object.
    pub object: SavedObject,
    /// The place of the last entry; none if there are no entries.
    pub place: Option<Place>,
    /// The engine's number of the last entry, also of one that is left out; 0 for none.
    pub sequence: u64,
    /// The number and bytes of entries since the last whole state.
    pub since_whole: Growth,
    open: Option<Open>,
}

/// Entries of a journal, and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Their number.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Growth {
    /// Counts an entry.
    pub fn add(&mut self, bytes: usize) {
        self.entries += 1;
        self.bytes += bytes as u64;
    }
}

/// A step whose last part was not read yet.
#[derive(Clone, Debug)]
struct Open {
    kind: StepKind,
    step: Step,
    left: u32,
}

impl Place {
    /// The place of an entry with this header.
    pub fn of(header: &Header) -> Self {
        Self { by: header.by, epoch: header.epoch, number: header.number }
    }
}

impl Fold {
    /// Folds all entries that a journal still has, in order.
    ///
    /// # Errors
    /// [`Unreadable`]: nothing may be done with the object.
    pub fn read(id: &ObjectId, entries: &[StoredEntry]) -> Result<Self, Unreadable> {
        let mut fold = Self::default();
        for stored in entries {
            fold.take(id, stored)?;
        }
        Ok(fold)
    }

    fn take(&mut self, id: &ObjectId, stored: &StoredEntry) -> Result<(), Unreadable> {
        let StoredEntry { sequence, bytes, .. } = stored;
        let (header, part) = entry::decode(id, bytes)?;
        self.sequence = *sequence;
        let place = Place::of(&header);
        let begins_whole = header.step == StepKind::Whole && header.part == 0;
        let is_taken = match self.place {
            // What was before it is purged, or never was.
            None if begins_whole => true,
            None => return Err(Unreadable::Beginning),
            Some(last) if (last.by, last.epoch) == (place.by, place.epoch) => {
                // A gap is left by an engine that lost its end, after which the owner writes the whole state.
                place.number == last.number + 1 || (place.number > last.number && begins_whole)
            }
            Some(last) => place.number == 0 && place.epoch > last.epoch,
        };
        if !is_taken {
            return Ok(());
        }
        self.place = Some(place);
        self.since_whole.add(bytes.len());
        if header.step == StepKind::Claim {
            self.open = None;
            return Ok(());
        }
        self.part(&header, part)
    }

    fn part(&mut self, header: &Header, part: &[u8]) -> Result<(), Unreadable> {
        if header.part == 0 {
            let step = Step { deflated: header.deflated, bytes: Vec::new() };
            self.open = Some(Open { kind: header.step, step, left: header.left + 1 });
        }
        // Without its beginning, which an owner did not come to end, a part is nothing.
        let Some(mut open) = self.open.take() else { return Ok(()) };
        if open.left != header.left + 1 || open.kind != header.step {
            return Err(Unreadable::Step);
        }
        open.step.bytes.extend_from_slice(part);
        open.left = header.left;
        if open.left > 0 {
            self.open = Some(open);
            return Ok(());
        }
        let changes = entry::read(&open.step)?;
        if open.kind == StepKind::Whole {
            self.object.values = Values::new();
            let (entries, bytes) = (u64::from(header.part) + 1, open.step.bytes.len() as u64);
            self.since_whole = Growth { entries, bytes };
        }
        apply(&mut self.object.values, changes);
        self.object.row = ObjectRow::from(header.row);
        Ok(())
    }
}

fn apply(values: &mut Values, changes: Changes) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(values.insert(key, value)),
            None => drop(values.remove(&key)),
        }
    }
}

/// The entries of a step from a place on, each after the one before it.
pub fn entries(
    id: &ObjectId,
    from: Place,
    kind: StepKind,
    step: &Step,
    (before, after): (&ObjectRow, &ObjectRow),
) -> Vec<(Place, Bytes)> {
    let parts = step.parts();
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    let entries = (0..).zip(parts).map(|(number, part)| {
        let place = Place { number: from.number + u64::from(number), ..from };
        let left = count - 1 - number;
        let header = Header {
            object: id.as_str().into(),
            by: place.by,
            epoch: place.epoch,
            number: place.number,
            step: kind,
            part: number,
            left,
            deflated: step.deflated,
            row: if left == 0 { after.into() } else { before.into() },
        };
        (place, entry::encode(&header, part))
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn id() -> ObjectId {
        ObjectId::parse("o").unwrap()
    }

    fn row(version: u64) -> ObjectRow {
        ObjectRow { version, ..ObjectRow::default() }
    }

    fn json(text: &str) -> Arc<RawValue> {
        Arc::from(RawValue::from_string(text.to_owned()).unwrap())
    }

    /// A journal, and the owner that writes it.
    #[derive(Default)]
    struct Scribe {
        entries: Vec<StoredEntry>,
        values: Values,
        place: Option<Place>,
        version: u64,
    }

    impl Scribe {
        fn append(&mut self, place: Place, bytes: Bytes) {
            let expected = self.entries.last().map_or(0, |last| last.sequence);
            // The engine counts the entries of others as well.
            self.entries.push(StoredEntry { sequence: expected + 3, expected, bytes });
            self.place = Some(place);
        }

        fn claim(&mut self, by: u32) {
            let epoch = self.place.map_or(0, |place| place.epoch) + 1;
            let place = Place { by: NodeId::new(by), epoch, number: 0 };
            let step = Step { deflated: false, bytes: Vec::new() };
            let rows = (&row(self.version), &row(self.version));
            let (kind, step) = match self.entries.is_empty() {
                true => (StepKind::Whole, entry::whole(&Values::new())),
                false => (StepKind::Claim, step),
            };
            for (place, bytes) in entries(&id(), place, kind, &step, rows) {
                self.append(place, bytes);
            }
        }

        fn write(&mut self, kind: StepKind, changes: Changes) {
            apply(&mut self.values, changes.clone());
            let step = match kind {
                StepKind::Whole => entry::whole(&self.values),
                _ => entry::changes(&changes),
            };
            let from = self.place.unwrap();
            let from = Place { number: from.number + 1, ..from };
            let rows = (row(self.version), row(self.version + 1));
            self.version += 1;
            for (place, bytes) in entries(&id(), from, kind, &step, (&rows.0, &rows.1)) {
                self.append(place, bytes);
            }
        }

        fn set(&mut self, key: &str, value: &str) {
            self.write(StepKind::Changes, Changes::from([(key.into(), Some(json(value)))]));
        }

        fn read(&self) -> String {
            shown(&Fold::read(&id(), &self.entries).unwrap().object.values)
        }
    }

    fn shown(values: &Values) -> String {
        values.iter().map(|(key, value)| format!("{key}={value} ")).collect()
    }

    #[test]
    fn entry_of_a_fenced_owner_is_left_out() {
        let mut scribe = Scribe::default();
        scribe.claim(1);
        scribe.set("a", "1");
        let late = Place { number: 2, ..scribe.place.unwrap() };
        scribe.claim(2);
        scribe.set("a", "2");
        let owner = scribe.place.unwrap();
        let step = entry::changes(&Changes::from([("a".into(), Some(json("9")))]));
        let (_, bytes) = entries(&id(), late, StepKind::Changes, &step, (&row(1), &row(9))).pop().unwrap();
        // The engine takes it against its condition.
        scribe.append(owner, bytes);
        scribe.set("b", "3");
        assert_eq!(scribe.read(), "a=2 b=3 ");
        let fold = Fold::read(&id(), &scribe.entries).unwrap();
        assert_eq!(fold.place, scribe.place);
    }

    #[test]
    fn step_that_was_not_ended_does_not_count() {
        let mut scribe = Scribe::default();
        scribe.claim(1);
        scribe.set("a", "1");
        let random: String = (0..4 * entry::PART)
            .map(|at| char::from(b'a' + u8::try_from((at * at + at / 7) % 23).unwrap()))
            .collect();
        let stored = scribe.entries.len();
        let noise: String =
            random.chars().rev().zip(random.chars()).map(|(a, b)| format!("{a}{b}")).collect();
        scribe.set("b", &format!("\"{}\"", blurred(&noise)));
        assert!(scribe.entries.len() > stored + 1, "it has several parts");
        let whole = scribe.entries.clone();
        for kept in stored..whole.len() {
            scribe.entries.truncate(kept);
            assert_eq!(scribe.read(), "a=1 ", "{kept}");
            scribe.entries = whole.clone();
        }
        scribe.entries.truncate(whole.len() - 1);
        scribe.place = Fold::read(&id(), &scribe.entries).unwrap().place;
        scribe.claim(2);
        scribe.set("c", "3");
        assert_eq!(scribe.read(), "a=1 c=3 ");
    }

    /// Text that hardly compresses.
    fn blurred(text: &str) -> String {
        let mut state = 7_u64;
        let noise = text.chars().map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap())
        });
        noise.collect()
    }

    #[test]
    fn owner_writes_the_whole_state_after_a_lost_end() {
        let mut scribe = Scribe::default();
        scribe.claim(1);
        scribe.set("a", "1");
        scribe.set("b", "2");
        scribe.set("c", "3");
        let place = scribe.place;
        scribe.entries.truncate(2);
        scribe.place = place;
        scribe.write(StepKind::Whole, Changes::new());
        scribe.set("d", "4");
        assert_eq!(scribe.read(), "a=1 b=2 c=3 d=4 ");
        // A change alone would leave out what is lost.
        scribe.entries.remove(2);
        assert_eq!(scribe.read(), "a=1 ");
    }

    #[test]
    fn journal_without_its_beginning_is_unreadable() {
        let mut scribe = Scribe::default();
        scribe.claim(1);
        scribe.set("a", "1");
        scribe.claim(2);
        assert_eq!(Fold::read(&id(), &scribe.entries[1..]).unwrap_err(), Unreadable::Beginning);
        assert_eq!(Fold::read(&id(), &scribe.entries[2..]).unwrap_err(), Unreadable::Beginning);
        let other = ObjectId::parse("p").unwrap();
        assert_eq!(Fold::read(&other, &scribe.entries).unwrap_err(), Unreadable::Other);
        assert_eq!(Fold::read(&id(), &[]).unwrap().place, None);
    }

    proptest! {
        /// Whatever is written and purged, the state of the owner is that of a reader.
        #[test]
        fn fold_is_what_was_written(
            steps in proptest::collection::vec((0..12_u8, 0..4_u8, 0..100_u32), 0..40)
        ) {
            let mut scribe = Scribe::default();
            scribe.claim(1);
            for (kind, key, value) in steps {
                let key = format!("k{key}");
                match kind {
                    0 => scribe.claim(value % 3),
                    1 => {
                        let first = scribe.entries.len();
                        scribe.write(StepKind::Whole, Changes::new());
                        scribe.entries.drain(..first);
                    }
                    2 | 3 => scribe.write(StepKind::Changes, Changes::from([(key.as_str().into(), None)])),
                    _ => scribe.set(&key, &value.to_string()),
                }
                let fold = Fold::read(&id(), &scribe.entries).unwrap();
                prop_assert_eq!(shown(&fold.object.values), shown(&scribe.values));
                prop_assert_eq!(fold.place, scribe.place);
            }
        }
    }
}
