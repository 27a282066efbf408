//! The snapshots of the room, and its chat messages for programs outside.

use tokio::time::Instant;

use super::Actor;
use super::time::unix_seconds;
use crate::id::UserId;
use crate::protocol::server::{ChatMessage, Event};
use crate::room::fanout::Broadcast;
use crate::room::io::RoomEvent;

impl Actor {
    /// Publishes a chat message, if a consumer wants them.
    pub(super) fn publish_chat(&self, event: &Event) {
        if let Event::Chat(ChatMessage { id, from, name, message, .. }) = event
            && self.deps.events.wants_chat()
        {
            let (from, name, message) = (from.clone(), name.clone(), message.as_json().into());
            let chat = RoomEvent::ChatMessage { id: *id, from, name, message };
            self.deps.events.publish(&self.name, self.room.meeting(), chat);
        }
    }

    /// Queues the newest state as a snapshot for all members, and returns the members that are too slow for it.
    pub(super) async fn broadcast(&mut self, now: Instant) -> Vec<UserId> {
        let (snapshot, users) = (self.room.encode_snapshot(), self.room.users());
        let is_ai_online = self.room.ai().user_json().is_some();
        let Broadcast { slow, window } =
            self.fanout.broadcast(unix_seconds, snapshot, users, is_ai_online).await;
        self.room.throttle_snapshots(now.into_std(), window);
        slow
    }
}
