//! The settings of services beside rooms: media, reports, the AI.

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
    /// Media server in use.
    pub upstream: MediaUpstream,
    /// Id of the Cloudflare Calls application.
    pub app_id: Optional<String>,
    /// Secret of the application.
    pub app_secret: Optional<SecretString>,
    /// Base URL of the media API.
    #[serde(with = "text")]
    pub api_url: HttpUrl,
    /// Query string that clients and the AI add to their calls.
    pub extra_params: Optional<String>,
    /// True if a session may be used only by the identity that opened it.
    pub session_lock: bool,
    /// True if tracks may be received only by members of the rooms that their publisher is in.
    pub room_check: bool,
    /// Timeout of connecting to the media API.
    #[serde(with = "text")]
    pub connect_timeout: Duration,
    /// Timeout of a whole call, connecting included.
    #[serde(with = "text")]
    pub timeout: Duration,
}

/// Cloudflare's TURN service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TurnConfig {
    /// Id of the TURN key.
    pub service_id: Optional<String>,
    /// Token of the TURN key.
    pub service_token: Optional<SecretString>,
}

/// The stock client and its settings.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Client {
    /// The `public/` directory of a production build of Orange; if unset, the built-in page is served.
    pub dir: Optional<PathBuf>,
    /// Additional sources in its pages' content security policy.
    #[serde(with = "texts")]
    pub policy: Vec<PolicySources>,
    /// Link to a session's trace that the client offers.
    pub trace_link: Optional<String>,
    /// URL of the directory of users' names and pictures.
    pub user_directory_url: Optional<HttpUrl>,
    /// Maximum frame rate of a webcam in frames a second; 0 is the client's own default.
    pub max_webcam_framerate: u32,
    /// Maximum bit rate of a webcam in bits a second; 0 is the client's own default.
    pub max_webcam_bitrate: u32,
    /// Maximum quality level of a webcam; 0 is the client's own default.
    pub max_webcam_quality_level: u32,
    /// Number of media API requests that the client remembers; 0 is the client's own default.
    pub max_api_history: u32,
    /// True if webcams are sent as simulcast.
    pub simulcast: bool,
    /// True if media is encrypted end to end.
    pub e2ee: bool,
    /// True if a room's page may be opened without its lobby.
    pub disable_lobby_enforcement: bool,
}

/// Storage and delivery of users' reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeedbackConfig {
    /// Webhook that cards are posted to; a secret, since its URL carries a token.
    pub url: Optional<SecretString>,
    /// Dashboard that a card's link to the logs leads to.
    pub dashboard_worker_url: Optional<HttpUrl>,
    /// Retention of reports and counts; an hour to 100 years.
    #[serde(with = "text")]
    pub retention: Duration,
    /// Bytes of all reports; above it the oldest are removed; at least 1,048,576.
    pub stored_bytes: usize,
    /// Reports an hour of one identity; 0 is no limit.
    pub reports_per_identity: u32,
    /// Reports an hour of one address; 0 is no limit.
    pub reports_per_address: u32,
    /// Refreshes and call quality answers an hour of one identity; 0 is no limit.
    pub counts_per_identity: u32,
    /// Refreshes and call quality answers an hour of one address; 0 is no limit.
    pub counts_per_address: u32,
    /// Bytes of a report's form; at least 65,536.
    pub form_bytes: usize,
    /// Timeout of receiving and answering a report's form.
    #[serde(with = "text")]
    pub form_timeout: Duration,
    /// Bytes of a report's history as stored; at least 1,024.
    pub history_bytes: usize,
    /// Characters of a report's description; at least 1.
    pub description_chars: usize,
}

/// The AI participant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AiConfig {
    /// Token for the model's API.
    pub api_token: Optional<SecretString>,
    /// URL at which the model accepts an SDP offer.
    pub model_endpoint: Optional<HttpUrl>,
    /// Name of the model.
    pub model_id: String,
    /// Timeout of inviting the AI into a room, all calls together.
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
            room_check: true,
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
