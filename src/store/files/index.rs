//! The files that are there, and the space that is reserved for those under way. Pure.

use std::collections::HashMap;
use std::hash::Hash;

use super::{FileError, FileId, FileInfo, FileLimits, FileOwner};
use crate::id::{IdentityId, MeetingId};
use crate::network::ClientNetwork;

/// The files of all meetings.
#[derive(Debug, Default)]
pub(super) struct Index {
    meetings: HashMap<MeetingId, Meeting>,
    identities: HashMap<IdentityId, u64>,
    networks: HashMap<ClientNetwork, u64>,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Meeting {
    files: HashMap<FileId, KeptFile>,
    /// Number of files under way.
    under_way: usize,
    /// Bytes of the files, and of those under way at most.
    bytes: u64,
}

#[derive(Debug)]
struct KeptFile {
    info: FileInfo,
    owner: FileOwner,
}

impl Index {
    /// Reserves space for a file.
    pub(super) fn reserve(
        &mut self,
        limits: &FileLimits,
        meeting: MeetingId,
        owner: &FileOwner,
        bytes: u64,
    ) -> Result<(), FileError> {
        let (count, of_room) = self
            .meetings
            .get(&meeting)
            .map_or((0, 0), |room| (room.files.len() + room.under_way, room.bytes));
        let of_identity = self.identities.get(&owner.identity).copied().unwrap_or_default();
        let of_network = owner.network.and_then(|network| self.networks.get(&network)).copied();
        let network_bytes = if limits.network_bytes == 0 { u64::MAX } else { limits.network_bytes };
        if count >= limits.room_files {
            return Err(FileError::TooMany(limits.room_files));
        }
        for (used, most, error) in [
            (of_room, limits.room_bytes, FileError::RoomFull(limits.room_bytes)),
            (of_identity, limits.identity_bytes, FileError::IdentityFull(limits.identity_bytes)),
            (of_network.unwrap_or_default(), network_bytes, FileError::NetworkFull(network_bytes)),
            (self.bytes, limits.all_bytes, FileError::Full),
        ] {
            if used.saturating_add(bytes) > most {
                return Err(error);
            }
        }
        let room = self.meetings.entry(meeting).or_default();
        room.under_way += 1;
        room.bytes += bytes;
        self.charge(owner, bytes);
        Ok(())
    }

    /// Gives the space of a file back that was under way.
    pub(super) fn release(&mut self, meeting: MeetingId, owner: &FileOwner, bytes: u64) {
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
        owner: &FileOwner,
        id: FileId,
        info: FileInfo,
        reserved: u64,
    ) {
        let bytes = info.bytes;
        let room = self.meetings.entry(meeting).or_default();
        room.under_way = room.under_way.saturating_sub(1);
        room.bytes = room.bytes.saturating_sub(reserved) + bytes;
        room.files.insert(id, KeptFile { info, owner: owner.clone() });
        self.charge(owner, bytes);
        self.give_back(owner, reserved);
    }

    /// The description of a file of a meeting.
    pub(super) fn find(&self, meeting: MeetingId, id: &FileId) -> Option<FileInfo> {
        Some(self.meetings.get(&meeting)?.files.get(id)?.info.clone())
    }

    /// Removes a file.
    pub(super) fn remove(&mut self, meeting: MeetingId, id: &FileId) {
        let Some(room) = self.meetings.get_mut(&meeting) else { return };
        let Some(KeptFile { info, owner }) = room.files.remove(id) else { return };
        room.bytes -= info.bytes;
        if room.under_way == 0 && room.files.is_empty() {
            self.meetings.remove(&meeting);
        }
        self.give_back(&owner, info.bytes);
    }

    /// Removes all files of a meeting; false if there was none. What is under way gives its space back by itself.
    pub(super) fn end(&mut self, meeting: MeetingId) -> bool {
        let Some(room) = self.meetings.get_mut(&meeting) else { return false };
        let files: Vec<KeptFile> = std::mem::take(&mut room.files).into_values().collect();
        room.bytes -= files.iter().map(|file| file.info.bytes).sum::<u64>();
        if room.under_way == 0 {
            self.meetings.remove(&meeting);
        }
        for KeptFile { info, owner } in files {
            self.give_back(&owner, info.bytes);
        }
        true
    }

    fn charge(&mut self, owner: &FileOwner, bytes: u64) {
        self.bytes += bytes;
        *self.identities.entry(owner.identity.clone()).or_default() += bytes;
        if let Some(network) = owner.network {
            *self.networks.entry(network).or_default() += bytes;
        }
    }

    fn give_back(&mut self, owner: &FileOwner, bytes: u64) {
        self.bytes -= bytes;
        give_back(&mut self.identities, &owner.identity, bytes);
        if let Some(network) = owner.network {
            give_back(&mut self.networks, &network, bytes);
        }
    }
}

fn give_back<K: Eq + Hash>(used: &mut HashMap<K, u64>, key: &K, bytes: u64) {
    if let Some(of_key) = used.get_mut(key) {
        *of_key -= bytes;
        if *of_key == 0 {
            used.remove(key);
        }
    }
}
