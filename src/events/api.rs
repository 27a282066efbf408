//! Rooms for programs outside, on the public listener: their state, their events, and messages to them.
//!
//! They need a token with the grant `agent` or `admin` for the room.

use std::sync::Arc;

use axum::extract::{FromRef, Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde::Serialize;

use super::acting::{Acting, Actor};
use super::filter::EventFilter;
use super::member::EventMember;
use super::stream::{EventStreams, StreamAccess};
use crate::auth::peer::RemotePeer;
use crate::auth::{Auth, Identity};
use crate::clock::wall_clock;
use crate::http::context::HttpContext;
use crate::http::error::ApiError;
use crate::http::extract::CurrentUser;
use crate::id::{MeetingId, RoomName};
use crate::room::mailbox::{MemberStatus, RoomView};
use crate::room::registry::{CannotDescribe, Observation};

/// The same for rooms that run and for others.
const NO_AGENT: ApiError = ApiError::refused(
    StatusCode::FORBIDDEN,
    "no_agent",
    "this needs a token with the grant \"agent\" or \"admin\" for the room",
);

const NO_CHAT: ApiError =
    ApiError::refused(StatusCode::FORBIDDEN, "no_chat", "the grants of this token leave out the chat");

/// The bridge, for programs outside.
pub struct EventApi {
    /// Writes to rooms.
    pub acting: Acting,
    /// The streams of events.
    pub streams: EventStreams,
}

/// Returns the routes.
pub fn router<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<HttpContext>: FromRef<S>,
    Arc<EventApi>: FromRef<S>,
{
    Router::new()
        .route("/api/rooms/{room}", get(state))
        .route("/api/rooms/{room}/events", get(events))
        .route("/api/rooms/{room}/chat", post(chat))
        .route("/api/rooms/{room}/messages", post(messages))
}

/// A room and its members.
#[derive(Debug, Serialize)]
struct RoomState {
    /// The room.
    room: RoomName,
    /// Its meeting, if one is running.
    meeting: Option<MeetingId>,
    /// Its members, in order of their ids.
    members: Vec<StateMember>,
}

/// A member of a room.
#[derive(Debug, Serialize)]
struct StateMember {
    #[serde(flatten)]
    member: EventMember,
    /// True while it has a connection.
    connected: bool,
}

impl From<MemberStatus> for StateMember {
    fn from(member: MemberStatus) -> Self {
        Self { connected: member.connection.is_some(), member: EventMember::read(&member.json) }
    }
}

/// True if the identity is a program that may act in the room.
fn is_agent(identity: &Identity, room: &RoomName) -> bool {
    (identity.grants.agent || identity.grants.admin) && identity.scope.admits(room)
}

/// The room, and the program that may act in it.
fn admit(identity: &Identity, room: &str) -> Result<(RoomName, Actor), ApiError> {
    let room = RoomName::parse(room)?;
    if !is_agent(identity, &room) {
        return Err(NO_AGENT);
    }
    Ok((room, Actor { id: identity.id.clone(), name: identity.name.clone() }))
}

/// The room and the program, if it may act there and write.
fn admit_writer(identity: &Identity, room: &str) -> Result<(RoomName, Actor), ApiError> {
    let admitted = admit(identity, room)?;
    if identity.grants.chat { Ok(admitted) } else { Err(NO_CHAT) }
}

/// `GET /api/rooms/{room}`: the room's state.
async fn state(
    State(api): State<Arc<EventApi>>,
    CurrentUser(identity): CurrentUser,
    Path(room): Path<String>,
) -> Result<Json<RoomState>, ApiError> {
    let (room, actor) = admit(&identity, &room)?;
    api.acting.charge(&actor.id)?;
    let view = match api.acting.registry().describe(&room).await {
        Ok(view) => view,
        Err(CannotDescribe::NoRoom) => RoomView::default(),
        Err(CannotDescribe::Silent) => return Err(ApiError::RoomSilent),
    };
    let members = view.members.into_iter().filter(|member| !member.is_hidden).map(StateMember::from);
    Ok(Json(RoomState { meeting: view.meeting, members: members.collect(), room }))
}

/// `GET /api/rooms/{room}/events`: the room's events, as they happen.
async fn events(
    State(api): State<Arc<EventApi>>,
    State(http): State<Arc<HttpContext>>,
    CurrentUser(identity): CurrentUser,
    peer: RemotePeer,
    Path(room): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (room, actor) = admit(&identity, &room)?;
    api.acting.charge(&actor.id)?;
    let filter = EventFilter::read(&uri, Some(room.clone()))?;
    // A stream that ends with the log follows nothing.
    let observer = (filter.is_shown && !filter.ends).then_some(&actor.name);
    let observation = observer.map(|name| api.acting.registry().observe(&room, name.clone()));
    let access = AgentAccess { http, headers: headers.clone(), peer, room, _observation: observation };
    api.streams.open(filter, &headers, Some(&actor.id), access).await
}

/// `POST /api/rooms/{room}/chat`: a chat message.
async fn chat(
    State(api): State<Arc<EventApi>>,
    CurrentUser(identity): CurrentUser,
    Path(room): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let (room, actor) = admit_writer(&identity, &room)?;
    api.acting.chat(&actor, &room, &headers, &body).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/rooms/{room}/messages`: a message to one member.
async fn messages(
    State(api): State<Arc<EventApi>>,
    CurrentUser(identity): CurrentUser,
    Path(room): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let (room, actor) = admit_writer(&identity, &room)?;
    api.acting.direct(&actor, &room, &headers, &body).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The right of a program, by the token of its request.
struct AgentAccess {
    http: Arc<HttpContext>,
    headers: HeaderMap,
    peer: RemotePeer,
    room: RoomName,
    _observation: Option<Observation>,
}

impl StreamAccess for AgentAccess {
    async fn lasts(&self) -> bool {
        match self.http.identities.identify(&self.headers, &self.peer, wall_clock()).await {
            Auth::User { identity, .. } => is_agent(&identity, &self.room),
            Auth::Anonymous => false,
        }
    }
}
