//! The data that the built-in page asks for, as JSON: `GET /api/user` and `GET /api/rooms/{room}/settings`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Site;
use super::paths::room_of;
use crate::auth::{Auth, AuthMethod, Identity};
use crate::config::{Config, FilesConfig, Sharing, WatchConfig};
use crate::http::context::HttpContext;
use crate::http::error::ApiError;
use crate::http::extract::with_cookie;
use crate::id::PublishGrants;
use crate::media_api::proxy::Proxy;

/// Time that the settings wait for TURN credentials; without them the page connects without TURN.
const TURN_WAIT: Duration = Duration::from_secs(2);

/// Settings of a room that are the same for every user.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PageSettings {
    /// True if the server has a media API.
    media: bool,
    /// True if media is to be encrypted end to end.
    encryption: bool,
    /// True if an AI can be invited.
    ai: bool,
    /// Name of the assistant in the chat, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    assistant: Option<String>,
    /// The videos that members may share, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    videos: Option<SharedVideos>,
    /// Files in the chat, if they may be shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<ChatFiles>,
    /// True if rooms remember their chat, unless one has it otherwise.
    chat_history: bool,
    /// Query parameters of every call of the media API.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_extra_params: Option<String>,
    webcam: WebcamSettings,
    /// Number of media API calls that a bug report contains.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_api_history: Option<u32>,
}

/// The videos that members may share.
#[derive(Clone, Debug, Serialize)]
struct SharedVideos {
    /// True if files may be shared.
    files: bool,
    /// The server of YouTube's player, if videos of YouTube may be shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    youtube: Option<String>,
}

impl SharedVideos {
    fn new(watch: &WatchConfig) -> Option<Self> {
        let youtube = watch.frame_source();
        (watch.files || youtube.is_some()).then_some(Self { files: watch.files, youtube })
    }
}

/// Files in the chat.
#[derive(Clone, Debug, Serialize)]
struct ChatFiles {
    /// True if everyone may share them, unless a room has it otherwise.
    everyone: bool,
    /// Bytes of one file.
    bytes: u64,
}

impl ChatFiles {
    fn new(files: &FilesConfig) -> Option<Self> {
        let everyone = files.sharing == Sharing::Everyone;
        (files.sharing != Sharing::Nobody).then_some(Self { everyone, bytes: files.file_bytes })
    }
}

/// Limits of a camera's picture; an unset one is left to the page.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WebcamSettings {
    /// Frames per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_framerate: Option<u32>,
    /// Bits per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bitrate: Option<u32>,
    /// Height in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_quality_level: Option<u32>,
}

impl PageSettings {
    /// Converts the configuration.
    pub fn new(config: &Config) -> Self {
        let Config { client, calls, ai, .. } = config;
        // 0 is the client's own default.
        let number = |number: u32| (number > 0).then_some(number);
        Self {
            media: config.embeds_media() || calls.app_id.is_some(),
            encryption: client.e2ee,
            ai: ai.api_token.is_some() && ai.model_endpoint.is_some(),
            assistant: config.assistant.url.is_some().then(|| config.assistant.name.trim().to_owned()),
            videos: SharedVideos::new(&config.watch),
            files: ChatFiles::new(&config.files),
            chat_history: config.chat.history,
            api_extra_params: calls.extra_params.0.clone(),
            webcam: WebcamSettings {
                max_framerate: number(client.max_webcam_framerate),
                max_bitrate: number(client.max_webcam_bitrate),
                max_quality_level: number(client.max_webcam_quality_level),
            },
            max_api_history: number(client.max_api_history),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct User<'a> {
    username: &'a str,
    /// True if the identity can be left by `POST /api/logout`.
    #[serde(skip_serializing_if = "is_false")]
    sign_out: bool,
    /// True if the user chose the name, and can choose another one by `POST /set-username`.
    #[serde(skip_serializing_if = "is_false")]
    rename: bool,
}

impl<'a> User<'a> {
    fn new(identity: &'a Identity, by: AuthMethod, headers: &HeaderMap) -> Self {
        // A token that a program sends with each request is no cookie to remove.
        let sign_out = by == AuthMethod::Token && !headers.contains_key(AUTHORIZATION);
        Self { username: &identity.name, sign_out, rename: by == AuthMethod::Cookie }
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The rights of a user that a page shows: others are refused without it.
#[derive(Serialize)]
struct PageGrants {
    publish: PublishGrants,
    chat: bool,
}

/// The settings of a room for one user.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RoomSettings<'a> {
    #[serde(flatten)]
    user: User<'a>,
    grants: PageGrants,
    #[serde(flatten)]
    settings: &'a PageSettings,
    /// The `RTCIceServer`s with the user's TURN credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    ice_servers: Option<Box<RawValue>>,
}

/// `GET /api/user`: the user's name.
pub async fn user(
    State(http): State<Arc<HttpContext>>,
    auth: Auth,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Auth::User { identity, by, .. } = auth else { return Err(http.unauthenticated()) };
    Ok(private(&User::new(&identity, by, &headers)))
}

/// `GET /api/rooms/{room}/settings`: everything that a page needs to enter a room.
pub async fn settings(
    State(http): State<Arc<HttpContext>>,
    State(site): State<Arc<Site>>,
    State(media): State<Arc<Proxy>>,
    auth: Auth,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    // The path as sent: the router's own decoding accepts encodings that browsers do not.
    let room = room_of(uri.path().strip_prefix("/api/rooms").unwrap_or_default())?;
    let Auth::User { identity, by, renew } = auth else { return Err(http.unauthenticated()) };
    let ice_servers = media.turn.servers_at_hand(&identity.id, TURN_WAIT).await;
    let grants = PageGrants { publish: identity.grants.publish, chat: identity.grants.chat };
    let user = User::new(&identity, by, &headers);
    let api_extra_params = media.parameters(site.settings.api_extra_params.as_deref(), Some(&room));
    let of_room = PageSettings { api_extra_params, ..site.settings.clone() };
    let settings = RoomSettings { user, grants, settings: &of_room, ice_servers };
    Ok(with_cookie(private(&settings), renew))
}

/// A response that no cache stores.
fn private(data: &impl Serialize) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(data)).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Optional;

    #[test]
    fn unset_settings_are_omitted() {
        let mut config = Config::default();
        let json = |config: &Config| serde_json::to_value(PageSettings::new(config)).unwrap();
        let media = config.embeds_media();
        assert_eq!(
            json(&config),
            json!({"media": media, "encryption": false, "ai": false, "chatHistory": true, "videos": {"files": true}, "files": {"everyone": false, "bytes": 10485760}, "webcam": {}})
        );

        config.client.max_webcam_framerate = 30;
        config.client.e2ee = true;
        config.calls.extra_params = Optional(Some("a=b".to_owned()));
        let expected = json!({"media": media, "encryption": true, "ai": false, "chatHistory": true, "videos": {"files": true}, "files": {"everyone": false, "bytes": 10485760},
                              "apiExtraParams": "a=b",
                              "webcam": {"maxFramerate": 30}});
        assert_eq!(json(&config), expected);
    }
}
