//! The chat's history for members that join.

use super::Actor;
use crate::id::UserId;
use crate::metrics::{Counted, Metrics};
use crate::protocol::server::MessageKind;
use crate::room::message::SharedMessage;
use crate::room::state::Room;

/// The memory of a room's chat, and the message that tells it.
#[derive(Debug)]
pub(super) struct HistoryFeed {
    memory: Counted,
    /// The history's version and its message, kept for other members that join until the next tick.
    encoded: Option<(u64, SharedMessage)>,
}

impl HistoryFeed {
    /// The feed of a room, which may have been restored with a history.
    pub(super) fn new(metrics: &Metrics, room: &Room) -> Self {
        Self { memory: Counted::new(&metrics.chat_history_bytes, room.chat().bytes()), encoded: None }
    }
}

impl Actor {
    /// Queues the history, if there is one, for a member that joins, before everything that waits for it.
    pub(super) fn queue_history(&mut self, user: &UserId) {
        let version = self.room.chat().version();
        let encoded = self.history.encoded.take().filter(|(known, _)| *known == version);
        let is_known = encoded.is_some();
        let metrics = &self.deps.metrics;
        let new =
            || Some(SharedMessage::new(MessageKind::ChatHistory, self.room.encode_chat_history()?, metrics));
        let Some(message) = encoded.map(|(_, message)| message).or_else(new) else { return };
        self.fanout.put_history(user, &message, is_known);
        self.history.encoded = Some((version, message));
    }

    /// Decides on the memory of the history before an input.
    pub(super) fn check_chat_memory(&mut self) {
        let used = usize::try_from(self.deps.metrics.chat_history_bytes.get()).unwrap_or(0);
        self.room.set_chat_exhausted(used >= self.deps.settings.chat.all_bytes);
    }

    /// Counts the memory of the history after an input.
    pub(super) fn count_chat_memory(&mut self, was_tick: bool) {
        let bytes = self.room.chat().bytes();
        if i64::try_from(bytes) != Ok(self.history.memory.count()) {
            self.history.memory.set(bytes);
        }
        if was_tick {
            self.history.encoded = None;
        }
    }
}
