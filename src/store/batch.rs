//! The changes that are not written yet, merged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::id::{IdentityId, MeetingId, RoomName, UserId};
use crate::store::chat::ChatChanges;
use crate::store::ended::EndedMeeting;
use crate::store::owner::{FencedWrite, OwnerEpoch};
use crate::store::saved::{JournalPlace, MeetingRecord, Persist, SavedMember};

/// The changes that are not written yet, merged by key: the newest value of each wins.
#[derive(Clone, Debug, Default)]
pub(super) struct WriteBatch {
    pub(super) meetings: BTreeMap<MeetingId, Changes>,
    keys: usize,
}

impl WriteBatch {
    /// Number of keys with a value to write.
    pub(super) fn len(&self) -> usize {
        self.keys
    }

    pub(super) fn is_empty(&self) -> bool {
        self.meetings.is_empty()
    }

    /// True if `changes`, a single change, only replaces pending values.
    pub(super) fn knows(&self, meeting: MeetingId, changes: &Changes) -> bool {
        self.meetings.get(&meeting).is_some_and(|known| {
            changes.members.keys().all(|user| known.members.contains_key(user))
                && changes.departed.keys().all(|user| known.departed.contains_key(user))
                && (changes.ai.is_none() || known.ai.is_some())
                && (changes.moderation.is_none() || known.moderation.is_some())
                && (changes.watch.is_none() || known.watch.is_some())
                && (changes.journal.is_none() || known.journal.is_some())
                && changes.chat.adds_nothing()
                && (changes.ended_for.is_none() || known.ended_for.is_some())
                && (changes.unconfirmed.is_none() || known.unconfirmed.is_some())
        })
    }

    /// Adds `newer` changes of a meeting.
    ///
    /// # Errors
    /// [`FencedWrite`] if those of a later owner are pending.
    pub(super) fn put(&mut self, meeting: MeetingId, newer: Changes) -> Result<(), FencedWrite> {
        let changes = self.meetings.entry(meeting).or_default();
        FencedWrite::check(meeting, newer.epoch, changes.epoch)?;
        self.keys -= changes.keys();
        changes.then(newer);
        self.keys += changes.keys();
        Ok(())
    }

    /// Adds a `newer` batch, and returns its changes that are of older owners.
    pub(super) fn then(&mut self, newer: Self) -> Vec<FencedWrite> {
        let put = |(meeting, changes)| self.put(meeting, changes).err();
        newer.meetings.into_iter().filter_map(put).collect()
    }

    /// True if there are unconfirmed events or quarantined rooms, which are written apart.
    pub(super) fn has_bulk(&self) -> bool {
        let is_quarantined =
            |changes: &Changes| changes.row.as_ref().is_some_and(|row| row.life == Life::Quarantined);
        self.meetings.values().any(|changes| changes.unconfirmed.is_some() || is_quarantined(changes))
    }

    /// The changed meetings that have a row once this is written, so that rows can refer to them.
    pub(super) fn stored(&self) -> impl Iterator<Item = (MeetingId, &Changes, &MeetingRow)> {
        let all = self.meetings.iter();
        let rows = all.filter_map(|(id, changes)| Some((*id, changes, changes.row.as_ref()?)));
        rows.filter(|(_, _, row)| !matches!(row.life, Life::Ended | Life::Recorded))
    }
}

/// The merged changes of one meeting.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// The latest owner that made one of them.
    pub(super) epoch: OwnerEpoch,
    pub(super) row: Option<MeetingRow>,
    /// The meeting ended, regardless of later changes: its stored rows are deleted first.
    pub(super) clears: bool,
    pub(super) ai: Option<Arc<str>>,
    pub(super) moderation: Option<Arc<str>>,
    pub(super) watch: Option<Arc<str>>,
    pub(super) journal: Option<JournalPlace>,
    pub(super) chat: ChatChanges,
    /// New values, or none for a removed member.
    pub(super) members: BTreeMap<UserId, Option<SavedMember>>,
    /// Owners of the ids of departed members, or none for an id that is no longer remembered.
    pub(super) departed: BTreeMap<UserId, Option<IdentityId>>,
    pub(super) unconfirmed: Option<Vec<(UserId, Arc<str>)>>,
    /// The members of the meeting, if it was ended for all.
    pub(super) ended_for: Option<EndedMeeting>,
}

/// The new contents of a meeting's row.
#[derive(Clone, Debug)]
pub(super) struct MeetingRow {
    pub(super) room: RoomName,
    pub(super) life: Life,
    pub(super) first: SystemTime,
    pub(super) last: SystemTime,
    pub(super) peak: usize,
}

/// The state of a meeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    /// Running, in a journal: the room itself is not stored.
    Recorded,
    Ended,
    /// Ended by a panic: later changes are ignored.
    Quarantined,
}

impl Life {
    /// True once the meeting has ended.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Ended | Self::Quarantined)
    }
}

impl Changes {
    /// One change of a room.
    pub(super) fn of(at: SystemTime, room: RoomName, what: Persist) -> Self {
        let row = |life, peak| Some(MeetingRow { room, life, first: at, last: at, peak });
        let new = Self::default();
        match what {
            Persist::MeetingStarted => Self { row: row(Life::Running, 0), ..new },
            Persist::Peak { members } => Self { row: row(Life::Running, members), ..new },
            Persist::Member(member) => {
                let members = [(member.user.clone(), Some(member))].into();
                Self { row: row(Life::Running, 0), members, ..new }
            }
            Persist::Departed { user, identity } => {
                Self { row: row(Life::Running, 0), departed: [(user, Some(identity))].into(), ..new }
            }
            // These never bring an ended meeting back: they touch only what there is.
            Persist::MemberRemoved { user } => Self { members: [(user, None)].into(), ..new },
            Persist::DepartedForgotten { user } => Self { departed: [(user, None)].into(), ..new },
            Persist::Ai { json } => Self { ai: Some(json), ..new },
            Persist::Moderation { json } => Self { moderation: Some(json), ..new },
            Persist::Watch { json } => Self { watch: Some(json), ..new },
            Persist::ChatMessage { id, json, first } => {
                Self { chat: ChatChanges::message(id, json, first), ..new }
            }
            Persist::ChatForgotten { first } => Self { chat: ChatChanges::forgotten(first), ..new },
            Persist::MeetingEnded => Self { row: row(Life::Ended, 0), clears: true, ..new },
            Persist::MovedAway => Self { clears: true, ..new },
            Persist::Journal(place) => Self { journal: Some(place), ..new },
        }
    }

    /// Events in place of those persisted before.
    pub(super) fn unconfirmed(events: Vec<(UserId, Arc<str>)>) -> Self {
        Self { unconfirmed: Some(events), ..Self::default() }
    }

    /// The members of a meeting that was ended for all.
    pub(super) fn ended_for(ended: EndedMeeting) -> Self {
        Self { ended_for: Some(ended), ..Self::default() }
    }

    /// A meeting whose room is in a journal.
    pub(super) fn recorded(record: MeetingRecord) -> Self {
        let MeetingRecord { at, room, meeting, members } = record;
        let life = if members.is_some() { Life::Recorded } else { Life::Ended };
        let first = meeting.began().map_or(at, |began| began.min(at));
        let row = MeetingRow { room, life, first, last: at, peak: members.unwrap_or_default() };
        Self { row: Some(row), ..Self::default() }
    }

    /// The end of a meeting whose room panicked.
    pub(super) fn quarantined(at: SystemTime, room: RoomName) -> Self {
        let row = MeetingRow { room, life: Life::Quarantined, first: at, last: at, peak: 0 };
        Self { row: Some(row), ..Self::default() }
    }

    /// The same changes, made by the owner of an epoch.
    pub(super) fn by(self, epoch: OwnerEpoch) -> Self {
        Self { epoch, ..self }
    }

    /// True if the meeting has ended once this is written.
    pub(super) fn ends(&self) -> bool {
        self.clears || self.row.as_ref().is_some_and(|row| row.life.is_over())
    }

    fn keys(&self) -> usize {
        let single = [
            self.row.is_some(),
            self.ai.is_some(),
            self.moderation.is_some(),
            self.watch.is_some(),
            self.journal.is_some(),
            self.unconfirmed.is_some(),
            self.ended_for.is_some(),
        ];
        self.members.len()
            + self.departed.len()
            + self.chat.keys()
            + single.into_iter().filter(|&key| key).count()
    }

    fn then(&mut self, newer: Self) {
        if self.row.as_ref().is_some_and(|row| row.life == Life::Quarantined) {
            return;
        }
        self.epoch = newer.epoch;
        if newer.clears {
            *self = Self {
                epoch: self.epoch,
                // A meeting that goes on elsewhere needs no row.
                row: self.row.take().filter(|_| newer.row.is_some()),
                clears: true,
                ended_for: self.ended_for.take(),
                ..Self::default()
            };
        }
        if let Some(unconfirmed) = &mut self.unconfirmed {
            // A member that returns after leaving is a new member to these events.
            unconfirmed.retain(|(user, _)| !matches!(newer.members.get(user), Some(None)));
        }
        self.members.extend(newer.members);
        self.departed.extend(newer.departed);
        self.watch = newer.watch.or_else(|| self.watch.take());
        self.journal = newer.journal.or_else(|| self.journal.take());
        self.chat.then(newer.chat);
        self.ai = newer.ai.or_else(|| self.ai.take());
        self.moderation = newer.moderation.or_else(|| self.moderation.take());
        self.unconfirmed = newer.unconfirmed.or_else(|| self.unconfirmed.take());
        self.ended_for = newer.ended_for.or_else(|| self.ended_for.take());
        self.row = match (self.row.take(), newer.row) {
            (Some(old), Some(new)) => {
                Some(MeetingRow { first: old.first, peak: old.peak.max(new.peak), ..new })
            }
            (old, new) => new.or(old),
        };
    }
}
