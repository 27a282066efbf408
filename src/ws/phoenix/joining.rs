//! The join of a topic: its parameters, and the membership that it asks for.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use tokio::time::Instant;
use tracing::{Instrument, debug_span};

use super::super::Sockets;
use super::topic::Channel;
use crate::auth::Identity;
use crate::clock::{now, wall_clock};
use crate::id::{InvalidId, MeetingId, RoomName, UserId};
use crate::limit::ConcurrencyPermit;
use crate::network::ClientNetwork;
use crate::protocol::deflate::Encoding;
use crate::protocol::phoenix::{ClientFrame, FramePayload, Ref};
use crate::room::io::{Join, Liveness};
use crate::room::link::MemberLink;
use crate::room::registry::CannotJoin;

/// The prefix of the topics that are rooms; the room's name follows, as it is.
const ROOM_TOPICS: &str = "room:";

/// A join that is under way.
pub(super) struct Joining {
    /// The reference of the join.
    pub(super) join_ref: Option<Ref>,
    /// The reference of its message.
    pub(super) message_ref: Option<Ref>,
    pub(super) user: UserId,
    /// True if the client chose the member's id.
    pub(super) outlasts_socket: bool,
    /// Time of its arrival.
    pub(super) since: Instant,
    /// The reference of the join that this one replaces.
    pub(super) replaced: Option<Option<Ref>>,
    pub(super) permit: ConcurrencyPermit,
    pub(super) joined: BoxFuture<'static, Result<MemberLink, CannotJoin>>,
}

/// A valid request to join.
#[derive(Debug)]
pub(super) struct JoinRequest {
    room: RoomName,
    user: UserId,
    outlasts_socket: bool,
}

/// Reason for refusing a request without asking its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidJoin {
    /// The topic is no room.
    #[error("unmatched topic")]
    Unmatched,
    /// The room's name or the member's id is invalid.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// The parameters are not an object with a text `_pk`.
    #[error("the parameters of a join are an object, in which _pk is a text")]
    Parameters,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Parameters {
    _pk: Option<String>,
}

impl JoinRequest {
    /// Reads a `phx_join`. Without a `_pk` the member's id is random.
    ///
    /// # Errors
    /// [`InvalidJoin`].
    pub(super) fn read(frame: &ClientFrame<'_>) -> Result<Self, InvalidJoin> {
        let room = frame.topic.strip_prefix(ROOM_TOPICS).ok_or(InvalidJoin::Unmatched)?;
        let room = RoomName::parse(room)?;
        let parameters = match frame.payload {
            FramePayload::Json(json) if json.get() == "null" => Parameters::default(),
            // An array would be taken for the values of an object's fields.
            FramePayload::Json(json) if json.get().starts_with('{') => {
                serde_json::from_str(json.get()).map_err(|_| InvalidJoin::Parameters)?
            }
            _ => return Err(InvalidJoin::Parameters),
        };
        let outlasts_socket = parameters._pk.is_some();
        let user = match parameters._pk {
            Some(id) => UserId::parse(&id)?,
            None => UserId::random(),
        };
        Ok(Self { room, user, outlasts_socket })
    }

    /// The room.
    pub(super) fn room(&self) -> &RoomName {
        &self.room
    }

    /// Begins the join. It replaces the `previous` one of its topic, which has ended for the client: another member
    /// leaves before, and the same one is taken over.
    pub(super) fn begin(
        self,
        sockets: &Sockets,
        (identity, network): (&Identity, Option<ClientNetwork>),
        encoding: Encoding,
        frame: &ClientFrame<'_>,
        (previous, permit): (Option<(Option<Ref>, UserId, MemberLink)>, ConcurrencyPermit),
    ) -> Joining {
        let Self { room, user, outlasts_socket } = self;
        let join = Join {
            connection: sockets.tasks.next_id(),
            user: user.clone(),
            identity: identity.id.clone(),
            name: identity.name.clone(),
            grants: identity.grants,
            network,
            new_meeting: MeetingId::beginning(wall_clock()),
            presence: true,
            liveness: Liveness::Connection,
            password: None,
        };
        let registry = sockets.registry.clone();
        let (replaced, previous) = match previous {
            Some((join_ref, other, link)) => (Some(join_ref), Some((other, link))),
            None => (None, None),
        };
        let span = debug_span!("phoenix_join", room = room.as_str());
        let joined = async move {
            let (same, other) = match previous {
                Some((other, link)) if other == join.user => (Some(link), None),
                previous => (None, previous.map(|(_, link)| link)),
            };
            if let Some(other) = other {
                other.leave().await;
            }
            let joined = registry.join(&room, join, encoding).await;
            let unused = if joined.is_err() { same } else { None };
            if let Some(unused) = unused {
                unused.disconnect(false).await;
            }
            joined
        };
        Joining {
            join_ref: frame.join_ref.clone(),
            message_ref: frame.message_ref.clone(),
            user,
            outlasts_socket,
            since: now(),
            replaced,
            permit,
            joined: joined.instrument(span).boxed(),
        }
    }
}

impl Joining {
    /// The channel of the admitted member.
    pub(super) fn into_channel(self, link: MemberLink, number: u32) -> Channel {
        let Self { join_ref, user, outlasts_socket, permit, .. } = self;
        Channel { join_ref, user, outlasts_socket, number, link, is_leaving: false, ended: None, permit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::phoenix::Version;

    fn read(topic: &str, payload: &str) -> Result<JoinRequest, InvalidJoin> {
        let topic = serde_json::Value::from(topic);
        let text = format!(r#"["1","1",{topic},"phx_join",{payload}]"#);
        JoinRequest::read(&ClientFrame::parse(Version::V2, &text).unwrap())
    }

    #[test]
    fn topic_names_a_room_as_it_is() {
        for name in ["a", "a ", "50%25 off", "x/y", "room:a"] {
            assert_eq!(read(&format!("room:{name}"), "{}").unwrap().room.as_str(), name);
        }
        for topic in ["", "room", "rooms:a", "Room:a", "phoenix"] {
            assert_eq!(read(topic, "{}").unwrap_err(), InvalidJoin::Unmatched, "{topic}");
        }
        for topic in ["room:", "room:\n", &format!("room:{}", "x".repeat(129))] {
            assert_eq!(read(topic, "{}").unwrap_err(), InvalidJoin::Id(InvalidId::RoomName), "{topic}");
        }
    }

    #[test]
    fn only_a_chosen_id_outlasts_its_socket() {
        let of =
            |payload: &str| read("room:a", payload).map(|join| (join.user.to_string(), join.outlasts_socket));
        assert_eq!(of(r#"{"_pk":"b-1","x":[1]}"#), Ok(("b-1".to_owned(), true)));
        for payload in ["{}", "null", r#"{"_pk":null}"#] {
            let (id, outlasts) = of(payload).unwrap();
            assert!(id.len() == 36 && !outlasts, "{payload}");
        }
        for payload in [r#"{"_pk":"ai"}"#, r#"{"_pk":""}"#, r#"{"_pk":"é"}"#] {
            assert_eq!(of(payload), Err(InvalidJoin::Id(InvalidId::UserId)), "{payload}");
        }
        for payload in ["7", r#"["b-1"]"#, "\"x\"", r#"{"_pk":7}"#] {
            assert_eq!(of(payload), Err(InvalidJoin::Parameters), "{payload}");
        }
    }
}
