//! The settings of Phoenix Channels.

use serde::{Deserialize, Serialize};

/// Rooms over Phoenix Channels.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PhoenixConfig {
    /// True if Phoenix clients may join rooms.
    pub enabled: bool,
    /// Path of the endpoint, as clients are given it.
    pub path: String,
    /// Topics that one socket may join; at least 1.
    pub topics: usize,
}

impl Default for PhoenixConfig {
    fn default() -> Self {
        Self { enabled: true, path: "/socket".to_owned(), topics: 100 }
    }
}
