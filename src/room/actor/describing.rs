//! The state of a room for operators.

use std::time::Duration;

use super::Actor;
use crate::clock::now;
use crate::room::mailbox::{MemberStatus, RoomView};

impl Actor {
    /// The room's state for operators.
    pub(super) fn describe(&self) -> RoomView {
        let now = now();
        let members = self.room.members().map(|member| {
            let own = self.fanout.get(&member.user);
            MemberStatus {
                connection: member.connection.zip(own.map(|own| now - own.since())),
                heartbeat_age: member
                    .heartbeat
                    .map_or(Duration::ZERO, |heartbeat| now.into_std().saturating_duration_since(heartbeat)),
                queued_bytes: own.map_or(0, |own| own.event_bytes()),
                user: member.user,
                name: member.name,
                json: member.json,
                is_hidden: member.is_hidden,
            }
        });
        RoomView {
            meeting: self.room.meeting(),
            members: members.collect(),
            rules: self.room.rules().clone(),
            waiting: self.room.waiting(),
        }
    }
}
