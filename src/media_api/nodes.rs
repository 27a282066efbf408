//! Sessions of other nodes: the place of a session, and the seam to the nodes of a cluster.

use std::fmt;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::future::BoxFuture;
use url::form_urlencoded;

use crate::id::{NodeId, RoomName, SessionId};

/// The other nodes of a cluster, as the media API sees them.
pub trait MediaNodes: fmt::Debug + Send + Sync + 'static {
    /// This node.
    fn own(&self) -> NodeId;

    /// The state of another node, as far as this one knows it.
    fn state(&self, node: NodeId) -> NodeState;

    /// The node on which new sessions of a room are opened.
    fn home(&self, room: RoomName) -> BoxFuture<'static, NodeId>;

    /// Passes a call on to another node, and waits for its answer. It is sent once: a call may not be made twice.
    fn pass_on(
        &self,
        to: NodeId,
        call: Bytes,
        most: Duration,
    ) -> BoxFuture<'static, Result<Bytes, NotPassedOn>>;
}

/// The state of a node, as another one sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It is there.
    Alive,
    /// It ended, or it is taken for dead; its sessions are gone.
    Gone,
    /// Nothing was heard of it.
    Unknown,
}

/// A call that another node did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotPassedOn {
    /// The node is gone.
    Gone,
    /// Nobody listens at its address, although it was there a moment ago.
    Unreachable,
    /// The answer did not come in time.
    TimedOut,
}

/// The parameter of calls that names the room for which a session is opened.
const ROOM: &str = "room";

/// The parameter that names a room.
pub(super) fn room_parameter(room: &RoomName) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair(ROOM, room.as_str()).finish()
}

/// The room that a query names, if it names a valid one.
pub(super) fn room_of(query: &str) -> Option<RoomName> {
    let mut parameters = form_urlencoded::parse(query.as_bytes());
    RoomName::parse(&parameters.find(|(name, _)| name == ROOM)?.1).ok()
}

/// The node that a session's id names: its first eight hexadecimal digits of 32.
pub(super) fn node_of(session: &SessionId) -> Option<NodeId> {
    let id = session.as_str();
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if id.len() != 32 || !id.bytes().all(is_hex) {
        return None;
    }
    u32::from_str_radix(id.get(..8)?, 16).ok().map(NodeId::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_named_by_a_parameter() {
        let room = RoomName::parse("a&b=ü c").unwrap();
        assert_eq!(room_of(&format!("x=1&{}&room=other", room_parameter(&room))), Some(room));
        for query in ["", "x=1", "room=", "room=.", "Room=a", &format!("room={}", "x".repeat(129))] {
            assert_eq!(room_of(query), None, "{query}");
        }
    }

    #[test]
    fn id_of_32_digits_names_its_node() {
        let of = |id: &str| node_of(&SessionId::parse(id).unwrap());
        assert_eq!(of("0000beef0123456789abcdef01234567"), Some(NodeId::new(0xbeef)));
        for id in ["0000BEEF0123456789abcdef01234567", "0000beef", "+000beef0123456789abcdef01234567"] {
            let parsed = SessionId::parse(id).ok();
            assert_eq!(parsed.as_ref().and_then(node_of), None, "{id}");
        }
    }
}
