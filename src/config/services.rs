//! The settings of what the server offers beside rooms: media, reports, the AI.

use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::value::{HttpUrl, Optional, text};

/// The media API.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Calls {
    /// The id of the Cloudflare Calls application.
    pub app_id: Optional<String>,
    /// The application's secret.
    pub app_secret: Optional<SecretString>,
    /// Where the media API is.
    #[serde(with = "text")]
    pub api_url: HttpUrl,
    /// A query string that clients and the AI add to their calls.
    pub extra_params: Optional<String>,
    /// Whether a session may be used only by the identity that opened it.
    pub session_lock: bool,
    /// How long connecting to the media API may take.
    #[serde(with = "text")]
    pub connect_timeout: Duration,
    /// How long a whole call may take, connecting included.
    #[serde(with = "text")]
    pub timeout: Duration,
}

/// Cloudflare's TURN service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Turn {
    /// The id of the TURN key.
    pub service_id: Optional<String>,
    /// The token of the TURN key.
    pub service_token: Optional<SecretString>,
}

/// What the stock client is told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Client {
    /// The link that the client offers to a session's trace.
    pub trace_link: Optional<String>,
    /// Where the client looks up people's names and pictures.
    pub user_directory_url: Optional<HttpUrl>,
    /// Frames a second of a webcam; 0 is the client's own default.
    pub max_webcam_framerate: u32,
    /// Bits a second of a webcam; 0 is the client's own default.
    pub max_webcam_bitrate: u32,
    /// The quality level of a webcam; 0 is the client's own default.
    pub max_webcam_quality_level: u32,
    /// How many requests to the media API the client remembers; 0 is the client's own default.
    pub max_api_history: u32,
    /// Whether webcams are sent in several qualities at once.
    pub simulcast: bool,
    /// Whether media are encrypted from end to end.
    pub e2ee: bool,
    /// Whether a room's page may be opened without its lobby.
    pub disable_lobby_enforcement: bool,
}

/// Where reports of users go.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Feedback {
    /// The webhook that cards are posted to: a secret, since its URL carries a token.
    pub url: Optional<SecretString>,
    /// The dashboard that a card's link to the logs leads to.
    pub dashboard_worker_url: Optional<HttpUrl>,
}

/// The AI participant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ai {
    /// The token for the model's API.
    pub api_token: Optional<SecretString>,
    /// The URL at which the model takes an SDP offer.
    pub model_endpoint: Optional<HttpUrl>,
    /// The model's name.
    pub model_id: String,
    /// How long bringing the AI into a room may take, all calls together.
    #[serde(with = "text")]
    pub timeout: Duration,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            app_id: Optional(None),
            app_secret: Optional(None),
            api_url: HttpUrl("https://rtc.live.cloudflare.com/v1".to_owned()),
            extra_params: Optional(None),
            session_lock: true,
            connect_timeout: Duration::from_secs(3),
            timeout: Duration::from_secs(15),
        }
    }
}

impl Default for Ai {
    fn default() -> Self {
        Self {
            api_token: Optional(None),
            model_endpoint: Optional(None),
            model_id: "gpt-4o-realtime-preview-2024-10-01".to_owned(),
            timeout: Duration::from_secs(60),
        }
    }
}
