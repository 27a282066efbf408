//! The timers of rooms.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value::text;

/// Timers of a room.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoomConfig {
    /// Interval at which a room removes timed-out members and sends a snapshot; at least 10 ms.
    #[serde(with = "text")]
    pub tick: Duration,
    /// Time without a heartbeat after which a tick removes a member; at least 10 ms.
    #[serde(with = "text")]
    pub heartbeat_timeout: Duration,
    /// Time that members of before a restart have to reconnect.
    #[serde(with = "text")]
    pub restore_grace: Duration,
    /// Retention of an ended meeting's row; an hour to 100 years.
    #[serde(with = "text")]
    pub meetings_retention: Duration,
}

impl Default for RoomConfig {
    fn default() -> Self {
        Self {
            tick: Duration::from_secs(15),
            heartbeat_timeout: Duration::from_secs(15),
            restore_grace: Duration::from_secs(30),
            meetings_retention: Duration::from_secs(90 * 24 * 60 * 60),
        }
    }
}
