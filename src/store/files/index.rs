//! The files that are there, and the space that is reserved for those under way. Pure.

use std::collections::HashMap;

use super::{FileError, FileId, FileInfo, FileLimits};
use crate::id::{IdentityId, MeetingId};

/// The files of all meetings.
#[derive(Debug, Default)]
pub(super) struct Index {
    meetings: HashMap<MeetingId, Meeting>,
    owners: HashMap<IdentityId, u64>,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Meeting {
    files: HashMap<FileId, FileInfo>,
    /// Number of files under way.
    under_way: usize,
    /// Bytes of the files, and of those under way at most.
    bytes: u64,
}

impl Index {
    /// Reserves space for a file.
    pub(super) fn reserve(
        &mut self,
        limits: &FileLimits,
        meeting: MeetingId,
        owner: &IdentityId,
        bytes: u64,
    ) -> Result<(), FileError> {
        let (count, of_room) = self
            .meetings
            .get(&meeting)
            .map_or((0, 0), |room| (room.files.len() + room.under_way, room.bytes));
        let of_owner = self.owners.get(owner).copied().unwrap_or_default();
        if count >= limits.room_files {
            return Err(FileError::TooMany(limits.room_files));
        }
        for (used, most, error) in [
            (of_room, limits.room_bytes, FileError::RoomFull(limits.room_bytes)),
            (of_owner, limits.identity_bytes, FileError::IdentityFull(limits.identity_bytes)),
            (self.bytes, limits.all_bytes, FileError::Full),
        ] {
            if used.saturating_add(bytes) > most {
                return Err(error);
            }
        }
        let room = self.meetings.entry(meeting).or_default();
        room.under_way += 1;
        room.bytes += bytes;
        *self.owners.entry(owner.clone()).or_default() += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives the space of a file back that was under way.
    pub(super) fn release(&mut self, meeting: MeetingId, owner: &IdentityId, bytes: u64) {
        if let Some(room) = self.meetings.get_mut(&meeting) {
            room.under_way -= 1;
            room.bytes -= bytes;
            if room.under_way == 0 && room.files.is_empty() {
                self.meetings.remove(&meeting);
            }
        }
        self.give_back(owner, bytes);
    }

    /// Adds a whole file, for which so much was reserved; 0 for one that nothing was reserved for.
    pub(super) fn keep(
        &mut self,
        meeting: MeetingId,
        owner: &IdentityId,
        id: FileId,
        info: FileInfo,
        reserved: u64,
    ) {
        let bytes = info.bytes;
        let room = self.meetings.entry(meeting).or_default();
        room.under_way = room.under_way.saturating_sub(1);
        room.bytes = room.bytes.saturating_sub(reserved) + bytes;
        room.files.insert(id, info);
        *self.owners.entry(owner.clone()).or_default() += bytes;
        self.bytes += bytes;
        self.give_back(owner, reserved);
    }

    /// The description of a file of a meeting.
    pub(super) fn find(&self, meeting: MeetingId, id: &FileId) -> Option<FileInfo> {
        self.meetings.get(&meeting)?.files.get(id).cloned()
    }

    /// Removes a file.
    pub(super) fn remove(&mut self, meeting: MeetingId, id: &FileId) {
        let Some(room) = self.meetings.get_mut(&meeting) else { return };
        let Some(info) = room.files.remove(id) else { return };
        room.bytes -= info.bytes;
        if room.under_way == 0 && room.files.is_empty() {
            self.meetings.remove(&meeting);
        }
        self.give_back(&IdentityId::new(info.owner), info.bytes);
    }

    /// Removes all files of a meeting; false if there was none. What is under way gives its space back by itself.
    pub(super) fn end(&mut self, meeting: MeetingId) -> bool {
        let Some(room) = self.meetings.get_mut(&meeting) else { return false };
        let files: Vec<FileInfo> = std::mem::take(&mut room.files).into_values().collect();
        room.bytes -= files.iter().map(|info| info.bytes).sum::<u64>();
        if room.under_way == 0 {
            self.meetings.remove(&meeting);
        }
        for info in files {
            self.give_back(&IdentityId::new(info.owner), info.bytes);
        }
        true
    }

    fn give_back(&mut self, owner: &IdentityId, bytes: u64) {
        self.bytes -= bytes;
        if let Some(of_owner) = self.owners.get_mut(owner) {
            *of_owner -= bytes;
            if *of_owner == 0 {
                self.owners.remove(owner);
            }
        }
    }
}
