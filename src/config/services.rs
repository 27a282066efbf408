//! The settings of what the server offers beside rooms: media, reports, the AI.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::policy::PolicySources;
use super::sfu::MediaUpstream;
use super::value::{HttpUrl, Optional, text, texts};

/// The media API.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Calls {
    /// Who carries media.
    pub upstream: MediaUpstream,
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
pub struct TurnConfig {
    /// The id of the TURN key.
    pub service_id: Optional<String>,
    /// The token of the TURN key.
    pub service_token: Optional<SecretString>,
}

/// The stock client, and what it is told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Client {
    /// The `public/` folder of a production build of Orange; not set, our own page is served.
    pub dir: Optional<PathBuf>,
    /// Sources that its pages' content security policy allows beside its own.
    #[serde(with = "texts")]
    pub policy: Vec<PolicySources>,
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

/// What becomes of users' reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeedbackConfig {
    /// The webhook that cards are posted to: a secret, since its URL carries a token.
    pub url: Optional<SecretString>,
    /// The dashboard that a card's link to the logs leads to.
    pub dashboard_worker_url: Optional<HttpUrl>,
    /// How long reports and counts are kept; an hour to 100 years.
    #[serde(with = "text")]
    pub retention: Duration,
    /// Bytes of all reports; over it the oldest are removed; at least 1,048,576.
    pub stored_bytes: usize,
    /// Reports an hour of one identity; 0 is no limit.
    pub reports_per_identity: u32,
    /// Reports an hour of one address; 0 is no limit.
    pub reports_per_address: u32,
    /// Refreshes and answers about a call's quality an hour of one identity; 0 is no limit.
    pub counts_per_identity: u32,
    /// The same of one address; 0 is no limit.
    pub counts_per_address: u32,
    /// Bytes of a report's form; at least 65,536.
    pub form_bytes: usize,
    /// How long a report's form may take to arrive and be answered.
    #[serde(with = "text")]
    pub form_timeout: Duration,
    /// Bytes of a report's history as it is stored; at least 1,024.
    pub history_bytes: usize,
    /// Characters of a report's description; at least 1.
    pub description_chars: usize,
}

/// The AI participant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AiConfig {
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
            upstream: MediaUpstream::Auto,
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

impl Default for FeedbackConfig {
    fn default() -> Self {
        Self {
            url: Optional(None),
            dashboard_worker_url: Optional(None),
            retention: Duration::from_secs(90 * 24 * 60 * 60),
            stored_bytes: 2 << 30,
            reports_per_identity: 20,
            reports_per_address: 60,
            counts_per_identity: 60,
            counts_per_address: 600,
            form_bytes: 32 << 20,
            form_timeout: Duration::from_secs(120),
            history_bytes: 4 << 20,
            description_chars: 10_000,
        }
    }
}

impl Default for AiConfig {
    fn default() -> Self {
        Self {
            api_token: Optional(None),
            model_endpoint: Optional(None),
            model_id: "gpt-4o-realtime-preview-2024-10-01".to_owned(),
            timeout: Duration::from_secs(60),
        }
    }
}
