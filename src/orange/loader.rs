//! The data of the client's pages by route (protocol section 10).

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Orange;
use crate::auth::{AuthMethod, Identity};
use crate::config::Config;
use crate::site::paths::room_of;

/// Time that a page waits for TURN credentials; without them its client requests them itself.
const TURN_WAIT: Duration = Duration::from_secs(2);

/// Routes that are not pages: their own handlers answer their data requests.
const RESOURCES: [&str; 8] = [
    "routes/[site.webmanifest]",
    "routes/new",
    "routes/api.bugReport",
    "routes/api.deadTrack",
    "routes/api.debugInfo",
    "routes/api.reportRefresh",
    "routes/parties.rooms.$roomName.$",
    "routes/partytracks.$",
];

/// True if a route is not a page.
pub fn is_resource(id: &str) -> bool {
    // Older clients have their media proxy below `routes/api.`.
    RESOURCES.contains(&id) || id.starts_with("routes/api.")
}

/// True if the routes lead to a page of a room, whose name is the first segment of the path.
pub fn is_of_room(ids: &[String]) -> bool {
    ids.iter().any(|id| Loader::of(id) == Some(Loader::Room))
}

/// A page route with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    /// Every page.
    Root,
    /// `/`.
    Home,
    /// The layout of lobby and room.
    Room,
    /// `/{room}`.
    Lobby,
    /// `/{room}/room`.
    Meeting,
}

impl Loader {
    /// Returns the loader of a route id.
    pub fn of(id: &str) -> Option<Self> {
        match id {
            "root" => Some(Self::Root),
            "routes/_index" => Some(Self::Home),
            "routes/_room" => Some(Self::Room),
            "routes/_room.$roomName._index" => Some(Self::Lobby),
            "routes/_room.$roomName.room" => Some(Self::Meeting),
            _ => None,
        }
    }
}

/// The client's settings, in its own format.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    root: Root,
    room: RoomData,
    calls_app_id: Option<String>,
    meeting: MeetingData<'static>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Root {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_directory_url: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Home<'a> {
    username: &'a str,
    used_access: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    directory_url: Option<&'a str>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RoomData {
    #[serde(flatten)]
    root: Root,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_extra_params: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ice_servers: Option<Box<RawValue>>,
    feedback_enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_webcam_framerate: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_webcam_bitrate: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_webcam_quality_level: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_api_history: Option<u32>,
    simulcast_enabled: bool,
    e2ee_enabled: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Lobby<'a> {
    username: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    calls_app_id: Option<&'a str>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MeetingData<'a> {
    username: &'a str,
    bug_reports_enabled: bool,
    disable_lobby_enforcement: bool,
    mode: &'static str,
    has_db: bool,
    has_ai_credentials: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    dashboard_debug_logs_base_url: Option<String>,
}

impl ClientSettings {
    /// Converts the configuration.
    pub fn new(config: &Config) -> Self {
        let Config { client, calls, ai, feedback, .. } = config;
        let url = |url: &Option<crate::config::HttpUrl>| url.as_ref().map(|url| url.as_str().to_owned());
        // 0 is the client's own default, which it uses if the number is missing.
        let number = |number: u32| (number > 0).then_some(number);
        let root = Root { user_directory_url: url(&client.user_directory_url) };
        Self {
            room: RoomData {
                root: root.clone(),
                trace_link: client.trace_link.0.clone(),
                api_extra_params: calls.extra_params.0.clone(),
                ice_servers: None,
                feedback_enabled: true,
                max_webcam_framerate: number(client.max_webcam_framerate),
                max_webcam_bitrate: number(client.max_webcam_bitrate),
                max_webcam_quality_level: number(client.max_webcam_quality_level),
                max_api_history: number(client.max_api_history),
                simulcast_enabled: client.simulcast,
                e2ee_enabled: client.e2ee,
            },
            root,
            calls_app_id: if config.embeds_media() {
                Some(config.sfu.app_id.clone())
            } else {
                calls.app_id.0.clone()
            },
            meeting: MeetingData {
                username: "",
                bug_reports_enabled: true,
                disable_lobby_enforcement: client.disable_lobby_enforcement,
                // The development mode skips the lobby and shows debug windows.
                mode: "production",
                has_db: true,
                has_ai_credentials: ai.api_token.is_some() && ai.model_endpoint.is_some(),
                dashboard_debug_logs_base_url: url(&feedback.dashboard_worker_url),
            },
        }
    }

    /// The root's data for a client without a name, on the name form's page.
    pub fn to_nobody(&self) -> Value {
        json(&self.root)
    }
}

impl Orange {
    /// Returns the data of a route for a user, on the page at `path`.
    pub(super) async fn load(
        &self,
        loader: Loader,
        path: &str,
        identity: &Identity,
        by: AuthMethod,
    ) -> Value {
        let settings = &self.settings;
        let username = &*identity.name;
        match loader {
            Loader::Root => json(&settings.root),
            Loader::Home => json(&Home {
                username,
                used_access: by != AuthMethod::Cookie,
                directory_url: settings.root.user_directory_url.as_deref(),
            }),
            Loader::Room => {
                let ice_servers = self.proxy.turn.at_hand(&identity.id, TURN_WAIT).await;
                let (own, room) = (settings.room.api_extra_params.as_deref(), room_of(path).ok());
                let api_extra_params = self.proxy.parameters(own, room.as_ref());
                json(&RoomData { ice_servers, api_extra_params, ..settings.room.clone() })
            }
            Loader::Lobby => json(&Lobby { username, calls_app_id: settings.calls_app_id.as_deref() }),
            Loader::Meeting => json(&MeetingData { username, ..settings.meeting.clone() }),
        }
    }
}

#[expect(clippy::expect_used, reason = "texts, numbers, and JSON that was read before")]
fn json(data: &impl Serialize) -> Value {
    serde_json::to_value(data).expect("the client's data is JSON")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Optional;

    #[test]
    fn unset_settings_are_omitted() {
        let settings = ClientSettings::new(&Config::default());
        assert_eq!(super::json(&settings.root), json!({}));
        let room = json!({"feedbackEnabled": true, "simulcastEnabled": false, "e2eeEnabled": false});
        assert_eq!(super::json(&settings.room), room);

        let mut config = Config::default();
        config.client.max_webcam_framerate = 30;
        config.client.user_directory_url = Optional(Some("https://people.example/?a".parse().unwrap()));
        config.client.e2ee = true;
        config.calls.extra_params = Optional(Some("a=b".to_owned()));
        let settings = ClientSettings::new(&config);
        let root = json!({"userDirectoryUrl": "https://people.example/?a"});
        assert_eq!(settings.to_nobody(), root);
        let room = json!({"userDirectoryUrl": "https://people.example/?a", "apiExtraParams": "a=b",
                          "feedbackEnabled": true, "maxWebcamFramerate": 30, "simulcastEnabled": false,
                          "e2eeEnabled": true});
        assert_eq!(super::json(&settings.room), room);
    }
}
