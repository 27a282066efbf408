//! The operators' view of rooms and their members.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;

use super::{Operators, seconds};
use crate::events::member::EventMember;
use crate::http::error::ApiError;
use crate::id::{MeetingId, RoomName, UserId};
use crate::protocol::moderation::KnockView;
use crate::room::mailbox::{MemberStatus, RoomView};
use crate::room::registry::CannotDescribe;
use crate::room::requests::{RoomListing, RoomSummary};
use crate::room_api::{NO_MEETING, SettingsView};

/// All running rooms.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RoomList {
    /// A row for each room.
    rooms: Vec<RoomRow>,
    /// The nodes that did not answer in time; absent if all did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    silent_nodes: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum RoomRow {
    Answered(AnsweredRoom),
    Silent(SilentRoom),
}

/// A room in the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AnsweredRoom {
    /// Number of connected members.
    connections: usize,
    /// Id of the running meeting.
    meeting_id: Option<MeetingId>,
    /// Number of members, including disconnected ones.
    members: usize,
    /// Bytes of the members' queued and unconfirmed events.
    queued_bytes: usize,
    /// The room's name.
    room: RoomName,
}

/// A room whose task did not answer in time.
#[derive(Debug, Serialize)]
struct SilentRoom {
    /// The failure.
    error: &'static str,
    /// The room's name.
    room: RoomName,
}

/// A room and its members.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RoomDetails {
    /// Id of the running meeting.
    meeting_id: Option<MeetingId>,
    /// The members, in snapshot order.
    members: Vec<MemberView>,
    /// The room's name.
    room: RoomName,
    /// The settings of the meeting.
    settings: SettingsView,
    /// Those who wait to be admitted, in the order in which they came.
    waiting: Vec<KnockView>,
}

/// A member of a room.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberView {
    /// True while its microphone is on.
    audio: bool,
    /// Its connection; null while it is disconnected.
    connection: Option<ConnectionView>,
    /// True if the other members do not see it.
    hidden: bool,
    /// The member's id, the `_pk` of its connection.
    id: UserId,
    /// True once it has left the lobby.
    joined: bool,
    /// Seconds since its last heartbeat.
    last_heartbeat_seconds_ago: f64,
    /// Its verified name.
    name: Arc<str>,
    /// Bytes of its queued and unconfirmed events.
    queued_bytes: usize,
    /// True while its hand is raised.
    raised_hand: bool,
    /// True while its screen is shared.
    screen: bool,
    /// True while its camera is on.
    video: bool,
}

/// A member's connection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ConnectionView {
    /// Seconds since it was opened.
    age_seconds: f64,
    /// The connection's number, which ends its id in the log.
    id: u64,
}

impl RoomRow {
    fn new(room: RoomName, summary: Option<RoomSummary>) -> Self {
        let Some(RoomSummary { meeting, members, connections, queued_bytes }) = summary else {
            return Self::Silent(SilentRoom { error: "the room did not answer", room });
        };
        Self::Answered(AnsweredRoom { connections, meeting_id: meeting, members, queued_bytes, room })
    }
}

impl From<MemberStatus> for MemberView {
    fn from(member: MemberStatus) -> Self {
        let MemberStatus { user, name, connection, heartbeat_age, queued_bytes, json, is_hidden } = member;
        let EventMember { joined, raised_hand, audio, video, screen, .. } = EventMember::read(&json);
        let connection =
            connection.map(|(id, age)| ConnectionView { age_seconds: seconds(age), id: id.number() });
        Self {
            audio,
            connection,
            hidden: is_hidden,
            id: user,
            joined,
            last_heartbeat_seconds_ago: seconds(heartbeat_age),
            name,
            queued_bytes,
            raised_hand,
            screen,
            video,
        }
    }
}

/// `GET /admin/rooms`: all running rooms, of all nodes.
pub(super) async fn list(State(operators): State<Arc<Operators>>) -> Json<RoomList> {
    let RoomListing { rooms, silent } = operators.registry.describe_all().await;
    let rooms = rooms.into_iter().map(|(room, summary)| RoomRow::new(room, summary));
    Json(RoomList { rooms: rooms.collect(), silent_nodes: silent })
}

/// `GET /admin/rooms/{room}`: a room and its members.
pub(super) async fn one(
    State(operators): State<Arc<Operators>>,
    Path(room): Path<String>,
) -> Result<Json<RoomDetails>, ApiError> {
    let room = RoomName::parse(&room)?;
    let described = operators.registry.describe(&room).await.map_err(|error| match error {
        CannotDescribe::NoRoom => NO_MEETING,
        CannotDescribe::Silent => ApiError::RoomSilent,
    });
    let RoomView { meeting, members, rules, waiting } = described?;
    Ok(Json(RoomDetails {
        meeting_id: meeting,
        members: members.into_iter().map(MemberView::from).collect(),
        room,
        settings: operators.registry.in_force(rules).into(),
        waiting,
    }))
}
