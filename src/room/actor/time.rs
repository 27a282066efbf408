//! The time as rooms show it.

use std::time::UNIX_EPOCH;

use crate::clock::wall_clock;

/// The time in milliseconds since 1970.
pub fn unix_millis() -> u64 {
    let since_1970 = wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// The time in seconds since 1970.
pub fn unix_seconds() -> u64 {
    unix_millis() / 1000
}
