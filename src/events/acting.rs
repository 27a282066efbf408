//! SHELL: programs outside that write to rooms: their texts, their rates, and requests that they repeat.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::clock::wall_clock;
use crate::http::error::ApiError;
use crate::id::{IdentityId, MAX_NAME_CHARS, RoomName, UserId, text_is_valid, visible};
use crate::limit::{KeyedLimit, Rate};
use crate::protocol::client::{ClientMessage, MessageLimits};
use crate::room::io::{CannotPost, Post};
use crate::room::registry::{PostError, Registry};
use crate::room::requests::Once;
use crate::room_api::NO_MEETING;

/// The header by which a repeated request is known.
const IDEMPOTENCY_KEY: &str = "x-idempotency-key";

const TOO_MANY: ApiError = ApiError::refused(
    StatusCode::TOO_MANY_REQUESTS,
    "too_many_requests",
    "too many requests; see events.requests_per_minute",
);
const NO_MEMBER: ApiError =
    ApiError::refused(StatusCode::NOT_FOUND, "no_member", "the field \"to\" is not a member of this room");
const OTHER_REQUEST: ApiError = ApiError::refused(
    StatusCode::UNPROCESSABLE_ENTITY,
    "other_request",
    "this X-Idempotency-Key was sent with another request",
);
const WRONG_KEY: ApiError = ApiError::refused(
    StatusCode::BAD_REQUEST,
    "invalid_idempotency_key",
    "an X-Idempotency-Key has 1 to 128 visible ASCII characters",
);
const WRONG_MESSAGE: ApiError = ApiError::InvalidField {
    field: "message",
    rule: "is a text of 1 to 2000 characters, not all of them blank",
};

/// The rooms, for programs outside.
pub struct Acting {
    registry: Registry,
    rate: KeyedLimit<IdentityId>,
}

/// A chat message to everyone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatRequest {
    /// The text.
    message: String,
    /// The name shown as the author's; the program's own otherwise.
    name: Option<String>,
}

/// A message to one member.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectRequest {
    /// The member's id.
    to: String,
    /// The text.
    message: String,
    /// The name shown as the author's; the program's own otherwise.
    name: Option<String>,
}

/// Whoever acts.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The identity that is charged.
    pub id: IdentityId,
    /// The name shown, unless the request has another.
    pub name: Arc<str>,
}

impl Acting {
    /// The rooms of a registry; an identity may act this often in a minute.
    pub fn new(registry: Registry, requests_per_minute: u32) -> Self {
        Self { registry, rate: KeyedLimit::rate(Rate::per_minute(requests_per_minute)) }
    }

    /// The rooms.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Charges a request to its identity.
    ///
    /// # Errors
    /// [`ApiError`] if it sent too many.
    pub fn charge(&self, identity: &IdentityId) -> Result<(), ApiError> {
        self.rate.check(identity).map_err(|_| TOO_MANY)
    }

    /// Removes unused entries of the limit.
    pub fn prune(&self) {
        self.rate.prune();
    }

    /// Writes a chat message, once for each idempotency key.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn chat(
        &self,
        actor: &Actor,
        room: &RoomName,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(), ApiError> {
        let ChatRequest { message, name } = serde_json::from_slice(body).map_err(|_| ApiError::NotJson)?;
        self.post(actor, room, headers, body, (None, message, name)).await
    }

    /// Writes a message to one member, once for each idempotency key.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn direct(
        &self,
        actor: &Actor,
        room: &RoomName,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(), ApiError> {
        let DirectRequest { to, message, name } =
            serde_json::from_slice(body).map_err(|_| ApiError::NotJson)?;
        let to = UserId::parse(&to).map_err(|_| NO_MEMBER)?;
        self.post(actor, room, headers, body, (Some(to), message, name)).await
    }

    async fn post(
        &self,
        actor: &Actor,
        room: &RoomName,
        headers: &HeaderMap,
        body: &[u8],
        (to, message, name): (Option<UserId>, String, Option<String>),
    ) -> Result<(), ApiError> {
        self.charge(&actor.id)?;
        // The same texts as clients may send.
        let text = json!({"message": message}).to_string();
        let Ok(ClientMessage::Chat { message }) =
            ClientMessage::parse_payload("chat", &text, MessageLimits::default())
        else {
            return Err(WRONG_MESSAGE);
        };
        let name = match name {
            None => actor.name.clone(),
            Some(name) => shown(&name)?,
        };
        let since_1970 = wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        let kind = if to.is_some() { "direct" } else { "chat" };
        let post = Post { at, name, to, message };
        let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return self.write(room, post, None).await };
        let key = key
            .to_str()
            .ok()
            .filter(|key| (1..=128).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
        let key = key.ok_or(WRONG_KEY)?.to_owned();
        let digest = fingerprint(&[kind.as_bytes(), room.as_str().as_bytes(), body]);
        self.write(room, post, Some(Once { identity: actor.id.clone(), key, digest })).await
    }

    async fn write(&self, room: &RoomName, post: Post, once: Option<Once>) -> Result<(), ApiError> {
        self.registry.post(room, post, once).await.map_err(|error| match error {
            PostError::Refused(CannotPost::NoMeeting) => NO_MEETING,
            PostError::Refused(CannotPost::UnknownMember) => NO_MEMBER,
            PostError::OtherRequest => OTHER_REQUEST,
            PostError::Refused(CannotPost::OtherNode) | PostError::Silent => ApiError::RoomSilent,
        })
    }
}

/// The name as it is shown.
fn shown(name: &str) -> Result<Arc<str>, ApiError> {
    let name = visible(name);
    let name = name.trim();
    let rule = "is 1 to 64 characters, without control or invisible ones";
    let is_name = text_is_valid(name, MAX_NAME_CHARS);
    if is_name { Ok(name.into()) } else { Err(ApiError::InvalidField { field: "name", rule }) }
}

/// The digest of a request.
fn fingerprint(parts: &[&[u8]]) -> [u8; 32] {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&part.len().to_be_bytes());
        all.extend_from_slice(part);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, &all).as_ref());
    bytes
}
