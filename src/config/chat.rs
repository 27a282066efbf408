//! The settings of the chat.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rules::{Violation, out_of_range};
use super::value::{Text, text};

/// The history of rooms' chats.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChatConfig {
    /// True if members who join later are sent what was written before.
    pub history: bool,
    /// Messages of one room; 1 to 10,000.
    pub history_messages: usize,
    /// Age of a message; 1 s to 100 years.
    #[serde(with = "text")]
    pub history_age: Duration,
    /// Bytes of one room's messages; 16,384 to 1,048,576.
    pub history_bytes: usize,
    /// Bytes of all rooms' messages; at least 1 MiB.
    pub histories_bytes: usize,
}

impl Default for ChatConfig {
    fn default() -> Self {
        Self {
            history: true,
            history_messages: 200,
            history_age: Duration::from_secs(24 * 60 * 60),
            history_bytes: 128 << 10,
            histories_bytes: 64 << 20,
        }
    }
}

/// Settings of the chat that are out of their range.
pub(super) fn wrong_chat(chat: &ChatConfig) -> impl Iterator<Item = Violation> {
    let longest = Duration::from_secs(100 * 31_557_600);
    let age = Duration::from_secs(1)..=longest;
    let age = out_of_range("chat.history_age", &chat.history_age, &age, Duration::write);
    [
        ("chat.history_messages", chat.history_messages, 1..=10_000),
        ("chat.history_bytes", chat.history_bytes, 16 << 10..=1 << 20),
        ("chat.histories_bytes", chat.histories_bytes, 1 << 20..=1 << 40),
    ]
    .into_iter()
    .filter_map(|(key, value, allowed)| out_of_range(key, &value, &allowed, usize::to_string))
    .chain(age)
}
