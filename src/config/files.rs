//! The settings of files in the chat.

use serde::{Deserialize, Serialize};

use super::rules::{Violation, out_of_range};

/// Files in the chat.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilesConfig {
    /// Those who share files, unless a room has it otherwise.
    pub sharing: Sharing,
    /// Bytes of one file; 1 to 4 GiB.
    pub file_bytes: u64,
    /// Files of one meeting; 1 to 10,000.
    pub room_files: usize,
    /// Bytes of one meeting's files; at least `file_bytes`.
    pub room_bytes: u64,
    /// Bytes of one identity's files; at least `file_bytes`.
    pub identity_bytes: u64,
    /// Bytes of one network's files since the start; at least `file_bytes`, or 0 for no limit.
    pub network_bytes: u64,
    /// Bytes of all files; at least `room_bytes`.
    pub all_bytes: u64,
    /// Files a minute of one identity; 0 is no limit.
    pub per_minute: u32,
    /// Files a minute of one network; 0 is no limit.
    pub per_minute_per_network: u32,
}

/// Those who share files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Nobody, whatever a room has.
    Nobody,
    /// Moderators, and in rooms that let them all others.
    #[default]
    Moderators,
    /// All members, unless a room leaves it to moderators.
    Everyone,
}

impl Default for FilesConfig {
    fn default() -> Self {
        Self {
            sharing: Sharing::default(),
            file_bytes: 10 << 20,
            room_files: 200,
            room_bytes: 100 << 20,
            identity_bytes: 50 << 20,
            network_bytes: 512 << 20,
            all_bytes: 1 << 30,
            per_minute: 10,
            per_minute_per_network: 60,
        }
    }
}

/// Settings of files that are out of their range, or do not fit together.
pub(super) fn wrong_files(files: &FilesConfig) -> impl Iterator<Item = Violation> {
    const MOST: u64 = 1 << 40;
    let FilesConfig { file_bytes, room_files, room_bytes, identity_bytes, network_bytes, all_bytes, .. } =
        *files;
    let count = out_of_range("files.room_files", &room_files, &(1..=10_000), usize::to_string);
    [
        ("files.file_bytes", file_bytes, 1..=4 << 30),
        ("files.room_bytes", room_bytes, file_bytes.min(MOST)..=MOST),
        ("files.identity_bytes", identity_bytes, file_bytes.min(MOST)..=MOST),
        (
            "files.network_bytes",
            network_bytes,
            if network_bytes == 0 { 0 } else { file_bytes.min(MOST) }..=MOST,
        ),
        ("files.all_bytes", all_bytes, room_bytes.min(MOST)..=MOST),
    ]
    .into_iter()
    .filter_map(|(key, value, allowed)| out_of_range(key, &value, &allowed, u64::to_string))
    .chain(count)
}
