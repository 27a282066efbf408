//! The configuration: one struct, filled from the file, the environment over it, flags over both.
//!
//! All errors are found before the server starts and reported at once, each with the file or variable that
//! holds it. `config/satsuma.toml` lists all settings with their defaults.

mod assistant;
mod auth;
mod base_path;
mod chat;
mod cluster;
mod durable;
mod error;
mod events;
mod files;
mod http;
mod issuers;
mod key_source;
mod oidc;
mod phoenix;
mod policy;
mod room;
mod rules;
mod services;
mod sfu;
mod shared_secret;
mod shown;
mod sources;
mod value;
mod watch;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::HeaderName;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use assistant::AssistantConfig;
pub use auth::{AccessLevel, AuthConfig, ModerationConfig, ModeratorDefault, TokenKey};
pub use base_path::{BasePath, PublicUrl};
pub use chat::ChatConfig;
pub use cluster::{ClusterConfig, NatsUrl};
pub use durable::{DurableConfig, DurableKey};
pub use error::{ConfigError, ConfigErrors};
pub use events::{EVENT_TYPES, EventsConfig, WebhookConfig, pattern_matches, signing_secret};
pub use files::{FilesConfig, Sharing};
pub use http::{Admin, Http};
pub use issuers::TokenIssuer;
pub use key_source::{KeyFileError, KeySource};
pub use oidc::{LOGIN_KEY, OidcConfig, OidcGrant, OidcGroup, OidcSetting};
pub use phoenix::PhoenixConfig;
pub use policy::PolicySources;
pub use room::RoomConfig;
pub use satsuma_sfu::MediaAddress;
pub use services::{AiConfig, Calls, Client, FeedbackConfig, TurnConfig};
pub use sfu::{MediaUpstream, SfuConfig};
pub use shared_secret::SharedSecret;
pub use shown::{SettingOrigins, ShownSetting};
pub use sources::Flags;
pub use value::{
    DomainName, HttpUrl, InvalidText, Optional, Origin, TeamDomain, has_private_address, is_loopback,
};
use value::{text, texts};
pub use watch::WatchConfig;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Default paths of the configuration file, tried in this order when none is named.
const FILES: [&str; 2] = ["satsuma.toml", "config/satsuma.toml"];

/// All settings of the server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of the database, the signing key and the operator token; created if missing.
    pub data_dir: PathBuf,
    /// The public listener.
    pub http: Http,
    /// The operators' listener.
    pub admin: Admin,
    /// Timers of a room.
    pub room: RoomConfig,
    /// Sources of a user's identity beside the signed cookie.
    pub identity: IdentityConfig,
    /// Access to rooms.
    pub auth: AuthConfig,
    /// Moderation of meetings.
    pub moderation: ModerationConfig,
    /// The chat.
    pub chat: ChatConfig,
    /// Limits of one client, one room and the whole server.
    pub limits: LimitsConfig,
    /// Graceful shutdown.
    pub shutdown: Shutdown,
    /// Log filter and format.
    pub log: Log,
    /// The media API.
    pub calls: Calls,
    /// The embedded media server.
    pub sfu: SfuConfig,
    /// Cloudflare's TURN service.
    pub turn: TurnConfig,
    /// The stock client and its settings.
    pub client: Client,
    /// Users' reports: storage and delivery.
    pub feedback: FeedbackConfig,
    /// The AI participant.
    pub ai: AiConfig,
    /// The assistant in the chat.
    pub assistant: AssistantConfig,
    /// Files in the chat.
    pub files: FilesConfig,
    /// Watching videos together.
    pub watch: WatchConfig,
    /// Rooms over Phoenix Channels.
    pub phoenix: PhoenixConfig,
    /// Durable objects.
    pub durable: DurableConfig,
    /// Several nodes as one server.
    pub cluster: ClusterConfig,
    /// The stream of events, and requests of programs outside.
    pub events: EventsConfig,
    /// Destinations of events.
    pub webhooks: Vec<WebhookConfig>,
}

/// Sources of a user's identity beside the signed cookie.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityConfig {
    /// Header in which a trusted proxy names the user; needs `http.trusted_proxies`.
    pub proxy_header: Optional<HeaderName>,
    /// Cloudflare Access team whose assertions are trusted; needs `access_audience`.
    pub access_team_domain: Optional<TeamDomain>,
    /// Audience tag that an assertion must name; needs `access_team_domain`.
    pub access_audience: Optional<String>,
    /// True if every user must be authenticated by the header or by Access, if one of them is set.
    pub required: bool,
}

impl IdentityConfig {
    /// Returns the team domain and the audience if Cloudflare Access is configured.
    pub fn access(&self) -> Option<(&TeamDomain, &str)> {
        self.access_team_domain.as_ref().zip(self.access_audience.as_deref())
    }
}

/// Limits of one client, one room and the whole server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Sockets in total; at least 1.
    pub connections: usize,
    /// Concurrent HTTP connections, sockets not counted; at least 1.
    pub http_connections: usize,
    /// Concurrent HTTP connections from one address that is not a trusted proxy's; 0 is no limit.
    pub http_connections_per_address: usize,
    /// Sockets from one address; 0 is no limit.
    pub connections_per_address: u32,
    /// Concurrent rooms; at least 1.
    pub rooms: usize,
    /// Members in one room; at least 1.
    pub members_per_room: usize,
    /// Members in one room of one identity; 0 is no limit.
    pub members_per_room_per_identity: usize,
    /// Members in one room from one network; 0 is no limit.
    pub members_per_room_per_network: usize,
    /// New rooms a minute for one identity; 0 is no limit.
    pub new_rooms_per_minute: u32,
    /// Concurrent rooms that clients of one network started; 0 is no limit.
    pub rooms_per_network: usize,
    /// New rooms a minute for one network; 0 is no limit.
    pub new_rooms_per_minute_per_network: u32,
    /// Passwords of rooms that one network may try a minute; 0 is no limit.
    pub passwords_per_minute_per_network: u32,
    /// Passwords that may be tried a minute for one room; 0 is no limit.
    pub passwords_per_minute_per_room: u32,
    /// Networks exempt from all limits per address or network.
    #[serde(with = "texts")]
    pub exempt_networks: Vec<IpNet>,
    /// Bytes of one WebSocket message; at least 1,024.
    pub frame_bytes: usize,
    /// Bytes of one `callsApiHistoryEntry`, received and discarded; at least `frame_bytes`.
    pub history_entry_bytes: usize,
    /// Messages a second read from one socket; at least 1.
    pub messages_per_second: u32,
    /// Messages that one socket may send in a burst before it is throttled; at least 1.
    pub message_burst: u32,
    /// Total time for which a socket may be throttled before it is closed.
    #[serde(with = "text")]
    pub throttle_timeout: Duration,
    /// Bytes of one user object as stored; at least 512.
    pub user_bytes: usize,
    /// Bytes of partly received messages of all sockets, half of them from one network; at least 1 MiB.
    pub arriving_bytes: usize,
    /// Bytes of events queued for one member; at least 65,536.
    pub outbox_bytes: usize,
    /// Bytes queued for the members of all rooms, snapshots included; at least 16 MiB.
    pub outboxes_bytes: usize,
    /// Time without a byte written after which a socket is closed.
    #[serde(with = "text")]
    pub write_stall: Duration,
    /// Bytes of a request's headers; 8,192 to 1,048,576.
    pub header_bytes: usize,
    /// Bytes of a request's URL; at least 1,024.
    pub url_bytes: usize,
    /// Bytes of a form's body.
    pub body_bytes: usize,
    /// Bytes of static files and their compressed forms cached in memory.
    pub file_cache_bytes: usize,
    /// Timeout of a TLS handshake, and of a WebSocket's.
    #[serde(with = "text")]
    pub handshake: Duration,
    /// Timeout of the arrival of a request's headers, idle keep-alive included.
    #[serde(with = "text")]
    pub header_timeout: Duration,
    /// Timeout of a request from its headers to its answer.
    #[serde(with = "text")]
    pub request_timeout: Duration,
    /// Calls a second on one session of the media API; at least 1.
    pub calls_per_second: u32,
    /// Concurrent calls of the media API for one identity; 0 is no limit.
    pub calls_per_identity: usize,
    /// New sessions of the media API a minute for one identity; 0 is no limit.
    pub new_sessions_per_minute: u32,
    /// New sessions of the media API a minute for one network; 0 is no limit.
    pub new_sessions_per_minute_per_network: u32,
    /// Access tokens with a wrong signature a minute from one network; 0 is no limit.
    pub token_guesses_per_minute_per_network: u32,
    /// Steps of logins a minute from one network; 0 is no limit.
    pub logins_per_minute_per_network: u32,
    /// Bytes of the body of a call or its answer; at least 1,024.
    pub call_bytes: usize,
    /// Invitations of the AI into one room a minute; 0 is no limit.
    pub ai_starts_per_minute: u32,
    /// Invitations of the AI a minute into rooms that one network started; 0 is no limit.
    pub ai_starts_per_minute_per_network: u32,
}

/// Graceful shutdown.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// Time for the whole drain; container runtimes kill the process after 10 s.
    #[serde(with = "text")]
    pub deadline: Duration,
    /// Time for which a node of several keeps its media sessions before that.
    #[serde(with = "text")]
    pub media_deadline: Duration,
}

/// Log filter and format.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Directives of `tracing`'s filter, for example `info,satsuma=debug`.
    pub filter: String,
    /// Format of the lines.
    pub format: LogFormat,
    /// Bytes of lines queued for the writer.
    pub queue_bytes: usize,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people: one readable line per event.
    Human,
    /// For machines: one JSON object per event.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "data".into(),
            http: Http::default(),
            admin: Admin::default(),
            room: RoomConfig::default(),
            identity: IdentityConfig::default(),
            auth: AuthConfig::default(),
            moderation: ModerationConfig::default(),
            chat: ChatConfig::default(),
            limits: LimitsConfig::default(),
            shutdown: Shutdown::default(),
            log: Log::default(),
            calls: Calls::default(),
            sfu: SfuConfig::default(),
            turn: TurnConfig::default(),
            client: Client::default(),
            feedback: FeedbackConfig::default(),
            ai: AiConfig::default(),
            assistant: AssistantConfig::default(),
            files: FilesConfig::default(),
            watch: WatchConfig::default(),
            phoenix: PhoenixConfig::default(),
            durable: DurableConfig::default(),
            cluster: ClusterConfig::default(),
            events: EventsConfig::default(),
            webhooks: Vec::new(),
        }
    }
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            proxy_header: Optional(None),
            access_team_domain: Optional(None),
            access_audience: Optional(None),
            required: true,
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_address: 1000,
            rooms: 10_000,
            members_per_room: 1_000,
            members_per_room_per_identity: 16,
            members_per_room_per_network: 750,
            http_connections: 4096,
            http_connections_per_address: 1024,
            new_rooms_per_minute: 30,
            rooms_per_network: 200,
            new_rooms_per_minute_per_network: 300,
            passwords_per_minute_per_network: 10,
            passwords_per_minute_per_room: 60,
            exempt_networks: Vec::new(),
            frame_bytes: 1 << 20,
            history_entry_bytes: 8 << 20,
            messages_per_second: 50,
            message_burst: 200,
            throttle_timeout: Duration::from_secs(60),
            user_bytes: 8 << 10,
            outbox_bytes: 8 << 20,
            arriving_bytes: 64 << 20,
            outboxes_bytes: 512 << 20,
            write_stall: Duration::from_secs(20),
            header_bytes: 64 << 10,
            url_bytes: 8 << 10,
            body_bytes: 64 << 10,
            file_cache_bytes: 64 << 20,
            handshake: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            calls_per_second: 50,
            calls_per_identity: 8,
            new_sessions_per_minute: 60,
            new_sessions_per_minute_per_network: 2000,
            token_guesses_per_minute_per_network: 60,
            logins_per_minute_per_network: 300,
            call_bytes: 4 << 20,
            ai_starts_per_minute: 6,
            ai_starts_per_minute_per_network: 30,
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(8), media_deadline: Duration::ZERO }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Human, queue_bytes: 4 << 20 }
    }
}

/// A valid configuration and its sources.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The validated settings.
    pub config: Config,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// Warnings for the operator that do not prevent the start, one sentence each.
    pub warnings: Vec<String>,
    /// The source of each setting that is set.
    pub origins: SettingOrigins,
}

impl Config {
    /// Reads the configuration: `file`, `environment` over it, `flags` over both.
    ///
    /// Without a `file`, `satsuma.toml` or `config/satsuma.toml` is read, if there is one.
    ///
    /// # Errors
    /// All errors of the three sources at once.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &Flags,
    ) -> Result<Loaded, ConfigErrors> {
        let found = || FILES.iter().map(Path::new).find(|path| path.exists());
        let file = file.or_else(found);
        let mut sources = sources::Sources::new();
        if let Some(path) = file {
            sources.read_file(path);
        }
        sources.read_environment(environment);
        sources.read_flags(flags);
        let (config, warnings, origins) = sources.finish()?;
        Ok(Loaded { config, file: file.map(Path::to_owned), warnings, origins })
    }

    /// The address at which people reach the server, as far as the configuration tells; without a slash at its end.
    pub fn public_address(&self) -> String {
        let scheme = if self.speaks_tls() { "https" } else { "http" };
        let path = self.http.base_path();
        match self.http.public_origin() {
            Some(origin) => format!("{origin}{}", path.as_str()),
            None => format!("{scheme}://{}{}", self.http.listen, path.as_str()),
        }
    }

    /// True if all clients come through a proxy of unknown address: the public URL is https, but this server
    /// has no TLS.
    pub fn has_unknown_proxy(&self) -> bool {
        let Http { public_url, trusted_proxies, .. } = &self.http;
        let is_https = public_url.as_ref().is_some_and(PublicUrl::is_https);
        is_https && !self.speaks_tls() && trusted_proxies.is_empty()
    }

    /// True if the public listener speaks TLS.
    pub fn speaks_tls(&self) -> bool {
        self.http.speaks_tls()
    }

    /// True if the embedded media server carries the media.
    pub fn embeds_media(&self) -> bool {
        match self.calls.upstream {
            MediaUpstream::Embedded => true,
            MediaUpstream::Cloudflare => false,
            MediaUpstream::Auto => self.calls.app_id.is_none() && self.calls.app_secret.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use secrecy::{ExposeSecret, SecretString};
    use toml::{Table, Value};

    use super::sources::{ORANGE, SECRETS, variable};
    use super::*;

    const DOCUMENTED: &str = include_str!("../config/satsuma.toml");

    fn load(file: &str, environment: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
        load_with(file, environment, &Flags::default())
    }

    fn load_with(file: &str, environment: &[(&str, &str)], flags: &Flags) -> Result<Loaded, ConfigErrors> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("satsuma.toml");
        fs::write(&path, file).unwrap();
        let environment = environment.iter().map(|&(name, value)| (name.into(), value.into()));
        Config::load(Some(&path), environment, flags).map_err(|ConfigErrors(mut faults)| {
            // The temporary directory's name varies.
            for fault in &mut faults {
                fault.origin = fault.origin.replace(path.to_str().unwrap(), "satsuma.toml");
            }
            ConfigErrors(faults)
        })
    }

    #[test]
    fn former_key_is_accepted_with_a_warning() {
        let variable = [("SATSUMA_LIMITS__KEPT_FILES_BYTES", "2097152")];
        let Loaded { config, warnings, .. } = load("[limits]\nheld_back = \"7s\"", &variable).unwrap();
        assert_eq!(config.limits.throttle_timeout, Duration::from_secs(7));
        assert_eq!(config.limits.file_cache_bytes, 2 << 20);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(
            warnings[0].ends_with("limits.held_back is called limits.throttle_timeout now"),
            "{warnings:?}"
        );
        let expected = "SATSUMA_LIMITS__KEPT_FILES_BYTES is called SATSUMA_LIMITS__FILE_CACHE_BYTES now";
        assert_eq!(warnings[1], expected);
        // The new name wins.
        let both = [variable[0], ("SATSUMA_LIMITS__FILE_CACHE_BYTES", "3145728")];
        assert_eq!(load("", &both).unwrap().config.limits.file_cache_bytes, 3 << 20);
        let both = "[limits]\nfile_cache_bytes = 4194304\nkept_files_bytes = 2097152";
        assert_eq!(load(both, &[]).unwrap().config.limits.file_cache_bytes, 4 << 20);
    }

    fn config(file: &str, environment: &[(&str, &str)]) -> Config {
        load(file, environment).unwrap_or_else(|faults| panic!("{faults}")).config
    }

    fn faults(file: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let faults = load(file, environment).expect_err("a fault").to_string();
        faults.lines().map(str::to_owned).collect()
    }

    fn reveal(secret: &Optional<SecretString>) -> Option<&str> {
        secret.as_ref().map(|secret| secret.expose_secret())
    }

    #[test]
    fn documented_defaults_match_code() {
        let documented = config(DOCUMENTED, &[]);
        assert_eq!(documented.to_settings(), Config::default().to_settings());
        assert_eq!(config("", &[]).to_settings(), Config::default().to_settings());

        let mut written = BTreeSet::new();
        for (section, value) in DOCUMENTED.parse::<Table>().unwrap() {
            match value {
                Value::Table(keys) => {
                    written.extend(keys.keys().map(|key| format!("{section}.{key}")));
                }
                _ => drop(written.insert(section)),
            }
        }
        let real: BTreeSet<_> = Config::default().to_settings().into_keys().collect();
        assert_eq!(written, real);
    }

    #[test]
    fn documented_settings_name_orange_variables() {
        let (mut section, mut before) = ("", ["", ""]);
        for line in DOCUMENTED.lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
            } else if let Some((name, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
                let [above, comment] = before;
                assert!(comment.starts_with("# ") && !above.starts_with('#'), "{section} {name}");
                let key = format!("{section}.{name}");
                let orange = ORANGE.iter().find(|(_, known)| *known == key);
                let named = orange.is_none_or(|(orange, _)| comment.ends_with(&format!(". {orange}")));
                assert!(named, "{key}: {comment}");
            }
            before = [before[1], line];
        }
    }

    #[test]
    fn flags_override_variables_that_override_file() {
        let file = "data_dir = 'file'\n[http]\nlisten = '127.0.0.1:1'\n[room]\ntick = '1s'";
        let variables = [("SATSUMA_HTTP__LISTEN", "127.0.0.1:2"), ("SATSUMA_DATA_DIR", "variable")];
        let layered = config(file, &variables);
        assert_eq!(layered.http.listen.port(), 2);
        assert_eq!(layered.data_dir, Path::new("variable"));
        assert_eq!(layered.room.tick, Duration::from_secs(1));
        assert_eq!(layered.room.heartbeat_timeout, Duration::from_secs(15));

        let flags = Flags {
            listen: Some("127.0.0.1:0".to_owned()),
            data_dir: Some("flag".into()),
            tls_self_signed: true,
            client: Some("public".into()),
        };
        let layered = load_with(file, &variables, &flags).unwrap().config;
        assert!(layered.http.tls_self_signed);
        assert_eq!(layered.http.listen.port(), 0, "port 0 is allowed");
        assert_eq!(layered.data_dir, Path::new("flag"));
        assert_eq!(layered.client.dir.as_deref(), Some(Path::new("public")));
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let file = "
            [http]
            listen = 'localhost'
            lissten = ''
            allowed_origins = ['https://a.example/path']
            [room]
            tick = 'soon'
            heartbeat_timeout = '1ms'
        ";
        let variables = [
            ("SATSUMA_LIMITS__CONNECTIONS", "many"),
            ("SATSUMA_LOG__FORMAT", "xml"),
            ("SATSUMA_ROOMS__TICK", "1s"),
        ];
        let expected = [
            "satsuma.toml: http.lissten: no such setting; did you mean http.listen?",
            "SATSUMA_ROOMS__TICK: no such setting; did you mean SATSUMA_ROOM__TICK?",
            "satsuma.toml: http.allowed_origins: \"https://a.example/path\" is not an origin, \
             scheme://host[:port] with no path; write for example \"https://meet.example.org\"",
            "satsuma.toml: http.listen: \"localhost\" is not an IP address and port; write for \
             example \"127.0.0.1:8787\" or \"[::]:8787\"",
            "SATSUMA_LIMITS__CONNECTIONS: limits.connections: \"many\" is not a whole number from \
             0 to 4294967295",
            "SATSUMA_LOG__FORMAT: log.format: unknown variant `xml`, expected `human` or `json`",
            "satsuma.toml: room.tick: \"soon\" is not a duration; write for example \"15s\" or \
             \"500ms\"",
            "satsuma.toml: room.heartbeat_timeout: 1ms is out of range; write 10ms to 1day",
        ];
        assert_eq!(faults(file, &variables), expected);
    }

    #[test]
    fn wrong_type_errors_name_the_expected_type() {
        for (file, fault) in [
            ("http = 1", "http: is a section; write [http] and its settings below it"),
            (
                "[room]\ntick = 15",
                "room.tick: not a text in quotes; write a duration, for example \"15s\" or \"500ms\"",
            ),
            ("[limits]\nrooms = -1", "limits.rooms: -1 is not a whole number from 0 to 4294967295"),
            ("[client]\ne2ee = 'yes'", "client.e2ee: \"yes\" is neither true nor false"),
            (
                "[http]\ntrusted_proxies = '::1'",
                "http.trusted_proxies: \"::1\" is not a list; write for example [\"…\", \"…\"]",
            ),
            (
                "[http]\ntrusted_proxies = ['::1', 'home']",
                "http.trusted_proxies: \"home\" is not an IP address or network; write for example \
                 \"127.0.0.1\" or \"10.0.0.0/8\"",
            ),
        ] {
            assert_eq!(faults(file, &[]), [format!("satsuma.toml: {fault}")]);
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (key, allowed, refused) in [
            ("room.tick", "'10ms'", "'9ms'"),
            ("room.tick", "'1day'", "'2days'"),
            ("room.restore_grace", "'0s'", "'1000000000years'"),
            ("room.meetings_retention", "'1h'", "'59m'"),
            ("chat.history_messages", "1", "0"),
            ("chat.history_age", "'1s'", "'999ms'"),
            ("chat.history_bytes", "16384", "16383"),
            ("chat.histories_bytes", "1048576", "1048575"),
            ("files.file_bytes", "1", "0"),
            ("files.room_files", "10000", "10001"),
            ("files.room_bytes", "10485760", "10485759"),
            ("files.identity_bytes", "10485760", "10485759"),
            ("files.all_bytes", "104857600", "104857599"),
            ("limits.connections_per_address", "0", "4294967296"),
            ("limits.connections", "1", "0"),
            ("limits.frame_bytes", "1024", "1023"),
            ("limits.messages_per_second", "1", "0"),
            ("limits.user_bytes", "512", "511"),
            ("limits.arriving_bytes", "1048576", "1048575"),
            ("limits.outboxes_bytes", "16777216", "16777215"),
            ("log.queue_bytes", "65536", "65535"),
            ("limits.header_bytes", "8192", "8191"),
            ("limits.header_bytes", "1048576", "1048577"),
            ("limits.url_bytes", "1024", "1023"),
            ("limits.file_cache_bytes", "1048576", "1048575"),
            ("limits.history_entry_bytes", "1048576", "1048575"),
            ("feedback.retention", "'1h'", "'59m'"),
            ("feedback.retention", "'100years'", "'101years'"),
            ("feedback.stored_bytes", "1048576", "1048575"),
            ("feedback.form_bytes", "65536", "65535"),
            ("feedback.form_timeout", "'1day'", "'0s'"),
            ("feedback.history_bytes", "1024", "1023"),
            ("feedback.description_chars", "1", "0"),
            ("log.filter", "'debug'", "' '"),
            ("data_dir", "'.'", "''"),
            ("http.public_url", "'https://a.example'", "'ftp://a.example'"),
            ("http.public_url", "'https://a.example/b'", "'https://a.example/b?c'"),
            ("http.base_path", "'/meet/'", "'meet'"),
            ("http.tls_reload", "'10ms'", "'0s'"),
            ("http.acme_retry", "'1m'", "'0s'"),
            ("http.acme_domains", "['Meet.example.org.', 'bücher.example']", "['*.example.org']"),
            ("http.acme_domains", "['localhost']", "['192.0.2.1']"),
            ("http.acme_domains", "[]", "['a_b.example']"),
            ("identity.access_team_domain", "''", "'http://team.example'"),
            ("durable.path", "'/a/b-c'", "'durable'"),
            ("durable.path", "'/d'", "'/d/'"),
            ("durable.path", "'/d'", "'/Parties'"),
            ("durable.value_bytes", "8388608", "1023"),
            ("durable.objects", "1", "0"),
            ("durable.sockets_per_object", "1", "0"),
            ("durable.memory_bytes", "16777216", "16777215"),
            ("durable.idle_timeout", "'0s'", "'2days'"),
            ("durable.script_time", "'1m'", "'2m'"),
            ("durable.script_time", "'10ms'", "'9ms'"),
            ("durable.script_memory_bytes", "1048576", "1048575"),
            ("durable.script_threads", "0", "1025"),
            ("durable.callback_timeout", "'10ms'", "'0s'"),
            ("durable.callback_secret", "'short'", "5"),
            ("auth.token_lifetime", "'1m'", "'59s'"),
            ("auth.create", "'anyone'", "'all'"),
        ] {
            config(&format!("{key} = {allowed}"), &[]);
            let lines = faults(&format!("{key} = {refused}"), &[]);
            assert!(matches!(&*lines, [line] if line.contains(key)), "{lines:?}");
        }
    }

    #[test]
    fn dependent_settings_are_checked_together() {
        assert_eq!(
            faults("[limits]\nframe_bytes = 16777216", &[]),
            [
                "satsuma.toml: limits.history_entry_bytes: is less than limits.frame_bytes; write \
                 16777216 or more",
                "satsuma.toml: limits.outbox_bytes: holds fewer than two messages of limits.frame_bytes; \
                 write 33554432 or more",
            ]
        );
        assert_eq!(
            faults("", &[("SATSUMA_IDENTITY__PROXY_HEADER", "x-user")]),
            ["SATSUMA_IDENTITY__PROXY_HEADER: identity.proxy_header: needs http.trusted_proxies, \
              the addresses of those who may set the header"]
        );
        assert_eq!(
            faults("identity.access_audience = 'aud'", &[]),
            ["satsuma.toml: identity.access_audience: needs identity.access_team_domain; set both \
              or neither"]
        );
        assert_eq!(
            faults("http.tls_key = 'key.pem'", &[]),
            ["satsuma.toml: http.tls_key: needs http.tls_certificate; set both or neither"]
        );
        let both = "[http]\ntls_certificate = 'a'\ntls_key = 'b'\n";
        assert_eq!(
            faults(&format!("{both}tls_self_signed = true"), &[]),
            ["satsuma.toml: http.tls_self_signed: makes a certificate, but http.tls_certificate names one; \
              set one of them"]
        );
        assert_eq!(
            faults(&format!("{both}public_url = 'http://meet.example'"), &[]),
            ["satsuma.toml: http.public_url: is an http URL, but the server is set up to speak https"]
        );
        assert_eq!(
            faults("[http]\nbase_path = '/'\npublic_url = 'https://meet.example/meet'", &[]),
            [
                "satsuma.toml: http.base_path: is another path than that of http.public_url; write one of them, \
              or the same twice"
            ]
        );
        for below in ["base_path = '/meet'", "public_url = 'https://meet.example/meet/'"] {
            let http = config(&format!("[http]\n{below}"), &[]).http;
            assert_eq!(http.base_path().as_str(), "/meet");
            let lines = faults(&format!("[http]\n{below}\n[client]\ndir = 'orange'"), &[]);
            assert!(matches!(&*lines, [line] if line.contains("cannot work below /meet/: ")), "{lines:?}");
        }
        let twice = "[http]\nbase_path = '/meet'\npublic_url = 'https://meet.example/meet/'";
        assert_eq!(config(twice, &[]).http.base_path().to_string(), "/meet/");
        let apart = "[http]\nbase_path = '/meet'\npublic_url = 'https://meet.example'";
        assert_eq!(config(apart, &[]).http.base_path().to_string(), "/meet/");
        assert_eq!(config(both, &[]).http.tls_key.as_deref(), Some(Path::new("b")));
        // A setting that cannot be read is not reported as missing as well.
        let file = "identity.proxy_header = 'x-user'\nhttp.trusted_proxies = ['home']";
        assert_eq!(faults(file, &[]).len(), 1);
        let lines = faults("=", &[("SATSUMA_IDENTITY__PROXY_HEADER", "x-user")]);
        assert_eq!(lines.len(), 1, "{lines:?}");

        let access = config(
            "[identity]\naccess_team_domain = 'Team.cloudflareaccess.com'\naccess_audience = 'aud'",
            &[],
        );
        let (team, audience) = access.identity.access().unwrap();
        assert_eq!((team.as_str(), audience), ("https://team.cloudflareaccess.com", "aud"));
        assert!(Config::default().identity.access().is_none());
        config("identity = { access_team_domain = 'http://[::1]:9', access_audience = 'a' }", &[]);
        let blank = "identity = { access_team_domain = 'team.example', access_audience = ' ' }";
        assert_eq!(faults(blank, &[]).len(), 1);
    }

    #[test]
    fn token_keys_are_checked_and_never_shown() {
        let key = "{ id = 'a', secret = 'hush-hush-hush-hush-hush-hush-hu' }";
        let auth = config(&format!("[auth]\nkeys = [{key}, {{ id = 'b', secret_file = 'f' }}]"), &[]).auth;
        assert_eq!(auth.keys.iter().map(|key| &*key.id).collect::<Vec<_>>(), ["a", "b"]);
        assert!(!format!("{auth:?}").contains("hush"));
        let by_variable = config("", &[("SATSUMA_AUTH__KEYS", &format!("[{key}]"))]);
        assert_eq!(by_variable.auth.keys.len(), 1);
        assert!(!format!("{:?}", by_variable.to_settings()).contains("hush"));
        for wrong in [
            "keys = 'hush'",
            "keys = ['hush-hush-hush-hush-hush-hush-hu']",
            "keys = [{ id = 'a', secret = 'hush' }]",
            "keys = [{ id = 'a', secret = 5318008 }]",
            "keys = [{ secret = 'hush-hush-hush-hush-hush-hush-hu' }]",
            "keys = [{ id = 'a b', secret = 'hush-hush-hush-hush-hush-hush-hu' }]",
            "keys = [{ id = 'a', secret = 'hush-hush-hush-hush-hush-hush-hu', secret_file = 'hush' }]",
            "keys = [{ id = 'a', key = 'hush-hush-hush-hush-hush-hush-hu' }]",
            &format!("keys = [{key}, {key}]"),
        ] {
            let lines = faults(&format!("[auth]\n{wrong}"), &[]);
            assert!(matches!(&*lines, [line] if line.starts_with("satsuma.toml: auth.keys: ")), "{lines:?}");
            assert!(!lines[0].contains("hush") && !lines[0].contains("5318008"), "{lines:?}");
        }
        assert_eq!(faults("auth.rooms = 'token'", &[]).len(), 1, "nobody could enter");
    }

    #[test]
    fn token_issuers_are_checked() {
        let issuer = "id = 'idp', issuer = 'https://a.example', jwks_url = 'https://a.example/keys'";
        let auth = config(
            &format!("[auth]\nrooms = 'token'\n[[auth.issuers]]\n{}", issuer.replace(", ", "\n")),
            &[],
        );
        let [only] = &*auth.auth.issuers else { panic!() };
        assert_eq!((&*only.id, &*only.audience), ("idp", "satsuma"));
        let key = "keys = [{ id = 'idp', secret_file = 'f' }]";
        for (wrong, problem) in [
            (format!("[{{ {issuer}, jwks_file = 'f' }}]"), "either jwks_url or jwks_file"),
            ("[{ id = 'idp', issuer = 'https://a.example' }]".into(), "either jwks_url or jwks_file"),
            (format!("[{{ {} }}]", issuer.replace("https://a.example/k", "http://a.example/k")), "https URL"),
            (format!("[{{ {} }}]", issuer.replace("'idp'", "'a b'")), "an id has"),
            (format!("[{{ {issuer}, audience = '' }}]"), "an audience"),
            (format!("[{{ {issuer}, secret = 'x' }}]"), "secret"),
            (format!("[{{ {issuer} }}, {{ {issuer} }}]"), "one id or issuer"),
            (format!("[{{ {issuer} }}]\n{key}"), "the id of a key"),
        ] {
            let lines = faults(&format!("[auth]\nissuers = {wrong}"), &[]);
            let [line] = &*lines else { panic!("{lines:?}") };
            assert!(line.starts_with("satsuma.toml: auth.issuers: ") && line.contains(problem), "{line}");
        }
    }

    #[test]
    fn login_is_checked_and_its_secret_never_shown() {
        let public = "[http]\npublic_url = 'https://meet.example'\n";
        let good = "issuer = 'https://login.example'\nclient_id = 'meet'\nclient_secret = 'hush'\n";
        let group = "[[auth.oidc.groups]]\ngroup = 'staff'\ngrants = ['create', 'moderate']\n";
        let whole = config(&format!("{public}[auth]\nrooms = 'token'\n[auth.oidc]\n{good}{group}"), &[]);
        let oidc = whole.auth.oidc.0.as_ref().unwrap();
        assert_eq!((oidc.groups[0].grants.len(), &*oidc.groups_claim), (2, "groups"));
        assert!(!format!("{whole:?} {:?}", whole.to_settings()).contains("hush"));
        let inline = "{ issuer = 'http://[::1]:9/', client_id = 'meet', client_secret_file = 'f' }";
        let by_variable = config(public, &[("SATSUMA_AUTH__OIDC", inline)]);
        assert_eq!(by_variable.auth.oidc.0.unwrap().issuer.as_str(), "http://[::1]:9/");
        assert!(Config::default().auth.oidc.0.is_none());
        for (wrong, problem) in [
            ("client_id = 'meet'", "has an issuer"),
            ("issuer = 'https://login.example'", "has a client_id"),
            ("issuer = 'http://login.example'\nclient_id = 'hush'", "issuer: not an https URL"),
            (&*format!("{good}client_secret_file = 'hush'"), "not both"),
            (&*format!("{good}client_id2 = 'hush'"), "client_id2: no such setting"),
            (&*format!("{good}scopes = 'profile'"), "\"openid\""),
            (&*format!("{good}session = 'hush'"), "session: not a duration"),
            (&*format!("{good}session = '2days'"), "auth.token_lifetime"),
            (&*format!("{good}groups = [{{ group = 'a', grants = ['fly'] }}]"), "fly"),
            (&*format!("{good}groups = [{{ group = '' }}]"), "a group has"),
            (
                "issuer = 'https://login.example'\nclient_id = 'meet'\nclient_secret = 7",
                "client_secret: not a text",
            ),
        ] {
            let lines = faults(&format!("{public}[auth.oidc]\n{wrong}"), &[]);
            let [line] = &*lines else { panic!("{wrong}: {lines:?}") };
            assert!(line.starts_with("satsuma.toml: auth.oidc: ") && line.contains(problem), "{line}");
            assert!(!line.contains("hush"), "{line}");
        }
        let lines = faults(&format!("[auth.oidc]\n{good}"), &[]);
        assert!(matches!(&*lines, [line] if line.contains("http.public_url")), "{lines:?}");
        let key = "keys = [{ id = 'login', secret_file = 'f' }]";
        let lines = faults(&format!("{public}[auth]\n{key}\n[auth.oidc]\n{good}"), &[]);
        assert!(matches!(&*lines, [line] if line.contains("\"login\"")), "{lines:?}");
    }

    #[test]
    fn durable_keys_are_checked_and_never_shown() {
        let file = "[durable]\n[[durable.keys]]\nkey = 'hush-hush-hush-1'\n[[durable.keys]]\nkey_file = 'f'\nprefix = 'a:'";
        let durable = config(file, &[]).durable;
        assert_eq!((durable.keys.len(), &*durable.keys[1].prefix), (2, "a:"));
        assert!(!format!("{durable:?}").contains("hush"));
        let variable = |text| [("SATSUMA_DURABLE__KEYS", text)];
        let both = "hush-hush-hush-1, hush-hush-hush-2";
        assert_eq!(config("", &variable(both)).durable.keys.len(), 2);
        let table = "[{key = 'hush-hush-hush-1', prefix = 'a:'}]";
        assert_eq!(config("", &variable(table)).durable.keys[0].prefix, "a:");
        assert!(!format!("{:?}", config("", &variable(table)).to_settings()).contains("hush"));
        for wrong in [
            "keys = 'hush'",
            "keys = 5318008",
            "keys = ['hush']",
            "keys = [5318008]",
            "keys = [{ key = 5318008 }]",
            "keys = [{ key = 'hush' }]",
            "keys = [{ key = 'hush-hush-hush-/' }]",
            "keys = [{ key = 'hush-hush-hush-1', kee = 'hush' }]",
            "keys = [{ key = 'hush-hush-hush-1', key_file = 'hush' }]",
            "keys = [{ prefix = 'hush' }]",
            "keys = [{ key = 'hush-hush-hush-1', prefix = 'a/b' }]",
            "keys = ['hush-hush-hush-1', 'hush-hush-hush-1']",
        ] {
            let lines = faults(&format!("[durable]\n{wrong}"), &[]);
            assert!(
                matches!(&*lines, [line] if line.starts_with("satsuma.toml: durable.keys: ")),
                "{lines:?}"
            );
            assert!(!lines[0].contains("hush") && !lines[0].contains("5318008"), "{lines:?}");
        }
        let lines = faults("", &variable("[{key = 'hush'"));
        assert!(matches!(&*lines, [line] if !line.contains("hush")), "{lines:?}");
        assert_eq!(faults("durable.value_bytes = 9999999", &[]).len(), 1, "more than an object has");
    }

    #[test]
    fn callback_needs_a_secret_of_its_form() {
        let file = "[durable]\ncallback_url = 'http://127.0.0.1:4000/objects'\n";
        assert_eq!(
            faults(file, &[]),
            [
                "satsuma.toml: durable.callback_url: needs durable.callback_secret, by which the receiver knows the server"
            ]
        );
        for wrong in ["hush", "whsec_", "whsec_aHVzaA==", &"A".repeat(31), &"A".repeat(88)] {
            let lines = faults(&format!("{file}callback_secret = '{wrong}'"), &[]);
            assert!(
                matches!(&*lines, [line] if line.contains("callback_secret: is not 24 to 64 bytes in base64"))
            );
            assert!(!lines[0].contains("hush"), "{lines:?}");
        }
        for right in ["A".repeat(32), format!("whsec_{}", "A".repeat(84))] {
            let read = config(&format!("{file}callback_secret = '{right}'"), &[]);
            assert!(read.durable.callback_key().unwrap().iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn acme_settings_are_checked_together() {
        let file = "[http]\nacme_domains = ['meet.example.org', 'other.example.org']\n";
        let http = config(&format!("{file}public_url = 'https://Other.example.org:8443'"), &[]).http;
        assert!(http.speaks_tls());
        assert_eq!(http.acme_directory.as_str(), "https://acme-v02.api.letsencrypt.org/directory");
        let (names, certificate) = ("http.acme_domains", "http.tls_certificate names one; set one of them");
        for (more, expected) in [
            (
                "tls_certificate = 'a'\ntls_key = 'b'\ntls_self_signed = true",
                &[
                    format!("http.tls_self_signed: makes a certificate, but {certificate}"),
                    format!("{names}: orders a certificate, but {certificate}"),
                    format!(
                        "{names}: orders a certificate, but http.tls_self_signed makes one; set one of them"
                    ),
                ][..],
            ),
            (
                "public_url = 'http://meet.example.org'",
                &["http.public_url: is an http URL, but the server is set up to speak https".to_owned()],
            ),
            (
                "public_url = 'https://example.org'",
                &[format!(
                    "http.public_url: has a host that {names} does not name; browsers would refuse the certificate"
                )],
            ),
            (
                "acme_email = 'ada@a.example, bob@a.example'\nacme_directory = 'http://ca.example/directory'",
                &[
                    "http.acme_directory: is not an https URL".to_owned(),
                    "http.acme_email: is not one e-mail address".to_owned(),
                ],
            ),
        ] {
            let expected: Vec<_> = expected.iter().map(|fault| format!("satsuma.toml: {fault}")).collect();
            assert_eq!(faults(&format!("{file}{more}"), &[]), expected);
        }
        config(
            &format!("{file}acme_email = 'ada+meet@a.example'\nacme_directory = 'http://[::1]:14000/dir'"),
            &[],
        );
        let alone = "[http]\nacme_email = 'ada@a.example'\nacme_directory = 'https://ca.example/directory'";
        let needs = "needs http.acme_domains, the names of the certificate to order";
        assert_eq!(
            faults(alone, &[]),
            ["acme_email", "acme_directory"].map(|key| format!("satsuma.toml: http.{key}: {needs}"))
        );
    }

    #[test]
    fn variables_are_parsed_as_their_settings_type() {
        let read = config(
            "",
            &[
                ("SATSUMA_CALLS__APP_SECRET", "12345"),
                ("SATSUMA_CALLS__APP_ID", "true"),
                ("SATSUMA_LIMITS__ROOMS", " 7 "),
                ("SATSUMA_CLIENT__E2EE", "1"),
                ("SATSUMA_CLIENT__SIMULCAST", "true"),
                ("SATSUMA_HTTP__TRUSTED_PROXIES", "10.0.0.0/8, ::1"),
                ("SATSUMA_HTTP__ALLOWED_ORIGINS", "['https://A.example:443', 'http://b.example:1']"),
                ("SATSUMA_ROOM__TICK", ""),
                ("SATSUMA_LOG__FORMAT", "json"),
            ],
        );
        assert_eq!(reveal(&read.calls.app_secret), Some("12345"));
        assert_eq!(read.calls.app_id.as_deref(), Some("true"));
        assert_eq!(read.limits.rooms, 7);
        assert!(read.client.e2ee && read.client.simulcast);
        assert_eq!(read.http.trusted_proxies, ["10.0.0.0/8", "::1/128"].map(|net| net.parse().unwrap()));
        let origins: Vec<_> = read.http.allowed_origins.iter().map(Origin::as_str).collect();
        assert_eq!(origins, ["https://a.example", "http://b.example:1"]);
        assert_eq!(read.room.tick, Duration::from_secs(15), "an empty variable is not set");
        assert_eq!(read.log.format, LogFormat::Json);
    }

    #[test]
    fn unknown_variables_are_errors_or_one_warning() {
        assert_eq!(
            faults("", &[("SATSUMA_ROOM__INTERVAL", "1s"), ("SATSUMA_RADIO__INTERVAL", "1s")]),
            [
                "SATSUMA_RADIO__INTERVAL: radio.interval: no such setting; there are [admin], [ai], [assistant], \
                 [auth], [calls], [chat], [client], [cluster], [durable], [events], [feedback], [files], [http], \
                 [identity], [limits], [log], [moderation], [phoenix], [room], [sfu], [shutdown], [turn], [watch], \
                 data_dir, webhooks",
                "SATSUMA_ROOM__INTERVAL: room.interval: no such setting; [room] has heartbeat_timeout, \
                 meetings_retention, restore_grace, tick",
            ]
        );
        let loaded = load(
            "",
            &[
                ("SATSUMA_PORT", "tcp://10.0.0.1:8787"),
                ("SATSUMA_SERVICE_HOST", "10.0.0.1"),
                ("SATSUMA_CONFIG", "satsuma.toml"),
                ("PATH", "/bin"),
            ],
        );
        assert_eq!(
            loaded.unwrap().warnings,
            ["unknown variables, ignored: SATSUMA_PORT, SATSUMA_SERVICE_HOST"]
        );
    }

    #[test]
    fn misspelled_keys_name_the_right_one() {
        for (file, fault) in [
            ("[rooms]\ntick = '1s'", "rooms: no such section; did you mean [room]?"),
            ("public_url = ''", "public_url: no such setting; did you mean http.public_url?"),
            ("[log]\nfitler = ''", "log.fitler: no such setting; did you mean log.filter?"),
        ] {
            assert_eq!(faults(file, &[]), [format!("satsuma.toml: {fault}")]);
        }
        let strange = &faults("[radio]\nlisten = ''", &[])[0];
        assert!(
            strange.starts_with("satsuma.toml: radio: no such section; there are [admin], "),
            "{strange}"
        );
    }

    #[test]
    fn misspelled_variables_are_errors() {
        for (name, right) in [
            ("SATSUMA_HTTP_LISTEN", "SATSUMA_HTTP__LISTEN"),
            ("SATSUMA_HTTPLISTEN", "SATSUMA_HTTP__LISTEN"),
            ("SATSUMA_HTTP_LISTN", "SATSUMA_HTTP__LISTEN"),
            ("SATSUMA_PUBLIC_URL", "SATSUMA_HTTP__PUBLIC_URL"),
            ("SATSUMA_DATADIR", "SATSUMA_DATA_DIR"),
            ("SATSUMA_LIMITS_ROOMS", "SATSUMA_LIMITS__ROOMS"),
            ("SATSUMA_LOG_FITLER", "SATSUMA_LOG__FILTER"),
            ("SATSUMA_CALLS_APP_SECRET_FILE", "SATSUMA_CALLS__APP_SECRET_FILE"),
            ("SATSUMA_FEEDBACK_URL", "SATSUMA_FEEDBACK__URL"),
        ] {
            assert_eq!(
                faults("", &[(name, "hush")]),
                [format!("{name}: no such setting; did you mean {right}?")]
            );
        }
        let platform = [
            "SATSUMA_PORT",
            "SATSUMA_PORT_8787_TCP",
            "SATSUMA_PORT_8787_TCP_ADDR",
            "SATSUMA_PORT_8787_UDP_PROTO",
            "SATSUMA_SERVICE_HOST",
            "SATSUMA_SERVICE_PORT",
            "SATSUMA_SERVICE_PORT_HTTP",
            "SATSUMA_HTTP_PORT",
            "SATSUMA_HTTP_SERVICE_HOST",
            "SATSUMA_ADMIN_SERVICE_PORT",
            "SATSUMA_VERSION",
            "SATSUMA_IMAGE",
        ];
        let loaded = load("", &platform.map(|name| (name, "tcp://10.0.0.1:8787")));
        assert_eq!(loaded.unwrap().warnings.len(), 1);
    }

    #[test]
    fn orange_variables_set_their_keys() {
        let defaults = Config::default().to_settings();
        for (name, key) in ORANGE {
            let (text, expected) = match &defaults[key] {
                Value::Integer(_) => ("7", Value::Integer(7)),
                Value::Boolean(_) => ("true", Value::Boolean(true)),
                _ if SECRETS.contains(&key) => ("https://secret.example", "[secret]".into()),
                _ if key.ends_with("_id") => ("an-id", "an-id".into()),
                _ => ("https://a.example/b", "https://a.example/b".into()),
            };
            assert_eq!(config("", &[(name, text)]).to_settings()[key], expected, "{name}");
            assert_eq!(config("", &[(&variable(key), text)]).to_settings()[key], expected, "{key}");
        }
        let both = [("CALLS_APP_ID", "orange"), ("SATSUMA_CALLS__APP_ID", "satsuma")];
        assert_eq!(config("", &both).calls.app_id.as_deref(), Some("satsuma"));
        assert_eq!(
            faults("", &[("E2EE_ENABLED", "on")]),
            ["E2EE_ENABLED: client.e2ee: \"on\" is neither true nor false"]
        );
    }

    #[test]
    fn secret_is_read_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "https://hush.example\r\n").unwrap();
        let path = path.to_str().unwrap();
        for key in SECRETS {
            let orange = ORANGE.iter().find(|(_, known)| *known == key).map(|(name, _)| (*name).to_owned());
            for name in orange.into_iter().chain([variable(key)]) {
                let name = &*name;
                let file_name = format!("{name}_FILE");
                assert_eq!(config("", &[(&file_name, path)]).to_settings()[key], "[secret]".into());
                assert_eq!(
                    faults("", &[(&file_name, path), (name, "https://hush.example")]),
                    [format!("{name}: {key}: {file_name} is set as well; set only one of them")]
                );
                let lines = faults("", &[(&file_name, "/nowhere/secret")]);
                let start = format!("{file_name}: {key}: /nowhere/secret cannot be read: ");
                assert!(lines[0].starts_with(&start) && lines.len() == 1, "{lines:?}");
            }
        }
        let read = config("", &[("FEEDBACK_URL_FILE", path)]);
        assert_eq!(reveal(&read.feedback.url), Some("https://hush.example"));

        fs::write(path, "\n").unwrap();
        assert!(faults("", &[("FEEDBACK_URL_FILE", path)])[0].ends_with("/secret is empty"));
    }

    /// An address may have a password, which has a setting of its own.
    #[test]
    fn address_of_nats_is_never_quoted() {
        let variable = [("SATSUMA_CLUSTER__NATS", "nats://u:5318008@a")];
        for (file, environment) in [
            ("[cluster]\nnats = ['nats://u:5318008@a']", &[][..]),
            ("[cluster]\nnats = 'nats://u:5318008@a'", &[]),
            ("[cluster]\nnats = [['nats://u:5318008@a']]", &[]),
            ("", &variable),
        ] {
            let faults = faults(file, environment);
            assert!(faults.len() == 1 && faults[0].contains("cluster.nats: "), "{faults:?}");
            assert!(!faults[0].contains("5318008"), "{faults:?}");
        }
    }

    #[test]
    fn secrets_are_masked() {
        let all: Vec<_> = SECRETS.map(|key| format!("{key} = 'https://hush.example'")).into();
        let shown = config(&all.join("\n"), &[]);
        assert!(!format!("{shown:?}").contains("hush"));
        assert_eq!(format!("{:?}", shown.to_settings()).matches("[secret]").count(), SECRETS.len());
        assert!(!format!("{:?}", shown.to_settings()).contains("hush"));

        for key in SECRETS {
            for file in [
                format!("{key} = 5318008"),
                format!("{key} = ['5318008']"),
                format!("{key} = {{ a = '5318008' }}"),
                format!("{key} = 5318008oops"),
                format!("{key} = '5318008"),
                format!("{key} = \"5318008\\q\""),
                format!("{key} = '5318008' '"),
                format!("{key} = '5318008'\n{key} = '5318008'"),
            ] {
                let faults = load(&file, &[]).expect_err("a fault");
                assert!(!format!("{faults} {faults:?}").contains("5318008"), "{faults}");
                assert_eq!(faults.0.len(), 1, "{faults}");
            }
        }
        let lines = faults("", &[("FEEDBACK_URL", "5318008")]);
        assert_eq!(lines, ["FEEDBACK_URL: feedback.url: is not an http or https URL"]);
    }

    #[test]
    fn invalid_toml_is_one_error_with_its_position() {
        let lines = faults("data_dir = 'a'\n[http]\nlisten = 'b' c", &[]);
        assert!(lines[0].starts_with("satsuma.toml: line 3, column 14: "), "{lines:?}");
        assert_eq!(lines.len(), 1);

        let lines = faults("[http", &[("SATSUMA_ROOM__TICK", "soon")]);
        assert_eq!(lines.len(), 2, "the environment is judged as well: {lines:?}");
    }

    #[test]
    fn named_file_that_is_missing_is_an_error() {
        let missing = Path::new("/nowhere/satsuma.toml");
        let faults = Config::load(Some(missing), [], &Flags::default()).unwrap_err().to_string();
        assert!(faults.starts_with("/nowhere/satsuma.toml: cannot be read: "), "{faults}");
    }

    #[cfg(unix)]
    #[test]
    fn non_unicode_settings_are_errors() {
        use std::os::unix::ffi::OsStringExt as _;

        let raw = || OsString::from_vec(vec![b'a', 0xff]);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("satsuma.toml");
        fs::write(&file, "").unwrap();
        let variables = ["SATSUMA_DATA_DIR", "CALLS_APP_ID", "LS_COLORS"].map(|name| (name.into(), raw()));
        let flags = Flags { data_dir: Some(raw().into()), ..Flags::default() };
        let faults = Config::load(Some(&file), variables, &flags).unwrap_err().to_string();
        let expected = [
            "CALLS_APP_ID: calls.app_id: is not Unicode",
            "SATSUMA_DATA_DIR: data_dir: is not Unicode",
            "--data-dir: data_dir: is not Unicode",
        ];
        assert_eq!(faults.lines().collect::<Vec<_>>(), expected);
    }
}
