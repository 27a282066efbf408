//! Rooms over HTTP, for people and programs: to enter one by its password, its settings, and moderation.

mod change;
pub mod files;

use std::sync::Arc;

use axum::extract::{FromRef, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{post, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::warn;

pub use self::change::ChangeBody;
use self::files::FileApi;
use crate::auth::Identity;
use crate::auth::peer::RemotePeer;
use crate::config::LimitsConfig;
use crate::http::context::HttpContext;
use crate::http::error::{ApiError, Refusal};
use crate::http::extract::CurrentUser;
use crate::http::json::defect;
use crate::id::{AuthMethod, Grants, IdentityId, RoomName};
use crate::limit::{KeyedLimit, Rate};
use crate::network::ClientNetwork;
use crate::protocol::moderation::ModerationAction;
use crate::room::passwords::PasswordError;
use crate::room::registry::{CannotModerate, Registry};
use crate::room::rulebook::CannotChange;
use crate::room::rules::{RoomRules, RulesChange};
use crate::room::state::{Denied, Moderator};

/// Requests a minute of one identity, beside passwords.
const REQUESTS: u32 = 120;

/// The answer to requests that act on a meeting, or show it, where there is none.
pub const NO_MEETING: ApiError =
    ApiError::refused(StatusCode::NOT_FOUND, "no_meeting", "no meeting is running in this room");
const WRONG_PASSWORD: ApiError =
    ApiError::refused(StatusCode::FORBIDDEN, "wrong_password", "this is not the room's password");
const TOO_MANY_OF_NETWORK: ApiError = ApiError::Refused(Refusal {
    status: StatusCode::TOO_MANY_REQUESTS,
    label: "too_many_passwords_of_network",
    message: "too many passwords were tried from this network; try again in a minute",
    network_limit: Some("limits.passwords_per_minute_per_network"),
});
const TOO_MANY_OF_ROOM: ApiError = ApiError::refused(
    StatusCode::TOO_MANY_REQUESTS,
    "too_many_passwords_of_room",
    "too many passwords were tried for this room; try again in a minute",
);
const TOO_MANY: ApiError = ApiError::refused(
    StatusCode::TOO_MANY_REQUESTS,
    "too_many_requests",
    "too many requests; try again in a minute",
);
const NO_HASH: ApiError = ApiError::refused(
    StatusCode::SERVICE_UNAVAILABLE,
    "password_not_hashed",
    "the password could not be hashed",
);

/// The state of the routes.
pub struct RoomApi {
    registry: Registry,
    passwords_of_network: KeyedLimit<ClientNetwork>,
    passwords_of_room: KeyedLimit<RoomName>,
    requests: KeyedLimit<IdentityId>,
    files: FileApi,
}

impl RoomApi {
    /// The routes' state for the rooms of `registry`.
    pub fn new(registry: Registry, limits: &LimitsConfig, files: FileApi) -> Self {
        Self {
            registry,
            passwords_of_network: KeyedLimit::rate(Rate::per_minute(limits.passwords_per_minute_per_network)),
            passwords_of_room: KeyedLimit::rate(Rate::per_minute(limits.passwords_per_minute_per_room)),
            requests: KeyedLimit::rate(Rate::per_minute(REQUESTS)),
            files,
        }
    }

    /// Prunes rate limit entries of idle networks, rooms and identities.
    pub fn prune(&self) {
        self.passwords_of_network.prune();
        self.passwords_of_room.prune();
        self.requests.prune();
        self.files.prune();
    }

    /// Charges a password to the network and the room: each costs processor time, and may be a guess.
    fn charge_password(&self, peer: &RemotePeer, room: &RoomName) -> Result<(), ApiError> {
        if peer.network().is_some_and(|network| self.passwords_of_network.check(&network).is_err()) {
            return Err(TOO_MANY_OF_NETWORK);
        }
        self.passwords_of_room.check(room).map_err(|_| TOO_MANY_OF_ROOM)
    }

    /// The room, if the identity may ask for it.
    fn admit(&self, identity: &Identity, room: &str) -> Result<RoomName, ApiError> {
        let room = RoomName::parse(room)?;
        if !identity.may_enter(&room) {
            return Err(ApiError::ForbiddenRoom);
        }
        self.requests.check(&identity.id).map_err(|_| TOO_MANY)?;
        Ok(room)
    }
}

/// Returns the routes.
pub fn router<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<HttpContext>: FromRef<S>,
    Arc<RoomApi>: FromRef<S>,
{
    Router::new()
        .route("/api/rooms/{room}/enter", post(enter))
        .route("/api/rooms/{room}/settings", put(change))
        .route("/api/rooms/{room}/moderate", post(moderate))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    password: String,
}

/// The settings of a room, as clients and operators see them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SettingsView {
    locked: bool,
    waiting_room: bool,
    chat: bool,
    screens: bool,
    videos: bool,
    files: bool,
    chat_history: bool,
    /// True if there is one.
    password: bool,
}

impl From<RoomRules> for SettingsView {
    fn from(rules: RoomRules) -> Self {
        let RoomRules { locked, waiting_room, chat, screens, videos, files, chat_history, password } = rules;
        // The registry answers for the server in a room that says nothing.
        let (files, chat_history) = (files.unwrap_or(false), chat_history.unwrap_or(true));
        Self {
            locked,
            waiting_room,
            chat,
            screens,
            videos,
            files,
            chat_history,
            password: password.is_some(),
        }
    }
}

/// `POST /api/rooms/{room}/enter`: tries the room's password, so that the identity may join.
async fn enter(
    State(api): State<Arc<RoomApi>>,
    CurrentUser(identity): CurrentUser,
    peer: RemotePeer,
    Path(room): Path<String>,
    body: String,
) -> Result<StatusCode, ApiError> {
    let room = api.admit(&identity, &room)?;
    let Ok(Entry { password }) = serde_json::from_str(&body) else {
        return Err(ApiError::InvalidField {
            field: "password",
            rule: "is to be a text, in a JSON object with nothing else",
        });
    };
    // Before the room is looked up: the answer says nothing about a room to whoever may not guess.
    api.charge_password(&peer, &room)?;
    let Some(hash) = api.registry.rules(&room).await.password else { return Ok(StatusCode::NO_CONTENT) };
    match api.registry.prove_password(&room, &identity.id, password, hash).await {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) | Err(PasswordError::Length) => Err(WRONG_PASSWORD),
        Err(PasswordError::Hashing) => Err(NO_HASH),
    }
}

/// The right of whoever asks over HTTP.
fn moderator(identity: &Identity) -> Moderator {
    Moderator::Identity(identity.id.clone(), identity.grants)
}

/// True if the identity's settings of a room outlast its meeting: that of a token with the grants `create` and
/// `moderate`. `create` alone says nothing where everyone may start a meeting.
fn is_lasting(identity: &Identity) -> bool {
    let Grants { create, moderate, .. } = identity.grants;
    create && moderate && identity.id.auth_method() == AuthMethod::Token
}

/// `PUT /api/rooms/{room}/settings`: changes settings; those that are not named stay.
async fn change(
    State(api): State<Arc<RoomApi>>,
    CurrentUser(identity): CurrentUser,
    peer: RemotePeer,
    Path(room): Path<String>,
    body: String,
) -> Result<Response, ApiError> {
    let room = api.admit(&identity, &room)?;
    let asked = match ChangeBody::read(&body) {
        Ok(asked) => asked,
        Err(error) => return Ok(refused(StatusCode::BAD_REQUEST, &error)),
    };
    if asked.password.is_some() {
        api.charge_password(&peer, &room)?;
    }
    let change = match asked.hashed(&api.registry).await {
        Ok(change) => change,
        Err(error) => return Ok(password_refused(error)),
    };
    if !is_lasting(&identity) {
        return moderated(api.registry.set_rules(&room, moderator(&identity), change).await);
    }
    // The meeting may have removed its holder, or taken moderation from it.
    match api.registry.may_change_rules(&room, moderator(&identity)).await {
        Ok(()) | Err(CannotModerate::NoRoom | CannotModerate::Denied(Denied::NoMeeting)) => {
            set_lasting(&api.registry, &room, change).await
        }
        refused => moderated(refused),
    }
}

/// `POST /api/rooms/{room}/moderate`: an action, as members' clients send it.
async fn moderate(
    State(api): State<Arc<RoomApi>>,
    CurrentUser(identity): CurrentUser,
    Path(room): Path<String>,
    body: String,
) -> Result<Response, ApiError> {
    let room = api.admit(&identity, &room)?;
    match read_action(&body) {
        Ok(action) => moderated(api.registry.moderate(&room, moderator(&identity), action).await),
        Err(answer) => Ok(answer),
    }
}

/// Parses an action; the answer to a body that is none.
///
/// # Errors
/// The answer.
#[expect(clippy::result_large_err, reason = "an answer, which is returned at once")]
pub fn read_action(body: &str) -> Result<ModerationAction, Response> {
    serde_json::from_str(body).map_err(|error| {
        refused(StatusCode::BAD_REQUEST, &format!("the body is no action: {}", defect(&error)))
    })
}

/// The answer to a request to moderate.
///
/// # Errors
/// [`ApiError`] if there is no room, or if it is silent.
pub fn moderated(result: Result<(), CannotModerate>) -> Result<Response, ApiError> {
    match result {
        Ok(()) => Ok(Json(json!({"ok": true})).into_response()),
        Err(CannotModerate::NoRoom) => Err(NO_MEETING),
        Err(CannotModerate::Silent) => Err(ApiError::RoomSilent),
        Err(CannotModerate::Denied(denied)) => {
            let status = match denied {
                Denied::TooLong | Denied::InvalidName => StatusCode::BAD_REQUEST,
                Denied::NoModerator | Denied::NoMute => StatusCode::FORBIDDEN,
                _ => StatusCode::CONFLICT,
            };
            Ok(refused(status, &denied.to_string()))
        }
    }
}

/// Changes the settings of a room by its name, and answers.
///
/// # Errors
/// [`ApiError::StoreFailing`].
pub async fn set_lasting(
    registry: &Registry,
    room: &RoomName,
    change: RulesChange,
) -> Result<Response, ApiError> {
    match registry.set_lasting_rules(room, change).await {
        Ok(()) => Ok(Json(json!({"ok": true})).into_response()),
        Err(full @ CannotChange::Full) => Ok(refused(StatusCode::CONFLICT, &full.to_string())),
        Err(silent @ CannotChange::Engine(_)) => {
            Ok(refused(StatusCode::SERVICE_UNAVAILABLE, &silent.to_string()))
        }
        Err(CannotChange::Store(error)) => {
            warn!(event = "roomSettingsNotStored", room = room.as_str(), %error);
            Err(ApiError::StoreFailing)
        }
    }
}

/// The answer to a password that cannot be used.
pub fn password_refused(error: PasswordError) -> Response {
    let status = match error {
        PasswordError::Length => StatusCode::BAD_REQUEST,
        PasswordError::Hashing => StatusCode::SERVICE_UNAVAILABLE,
    };
    refused(status, &error.to_string())
}

/// An answer in the form of moderation's.
pub fn refused(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({"error": error, "ok": false}))).into_response()
}
