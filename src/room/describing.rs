//! The state of a room for operators.

use std::time::Duration;

use super::fanout::LocalFanout;
use super::mailbox::{MemberStatus, RoomView};
use super::state::Room;
use crate::clock::now;

/// The state of a room whose members on this node have their outboxes in `fanout`.
pub fn describe(room: &Room, fanout: &LocalFanout) -> RoomView {
    let now = now();
    let members = room.members().map(|member| {
        let own = fanout.get(&member.user);
        let since = own.map_or(Duration::ZERO, |own| now - own.since());
        MemberStatus {
            connection: member.connection.map(|connection| (connection, since)),
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
        meeting: room.meeting(),
        members: members.collect(),
        rules: room.rules().clone(),
        waiting: room.waiting(),
    }
}
