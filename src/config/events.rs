//! The settings of the event bridge: the stream of events, and webhooks.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde::{Deserialize as DeriveDeserialize, Serialize as DeriveSerialize};
use toml::{Table, Value};

use super::Config;
use super::key_source::KeySource;
use super::rules::{Violation, out_of_range};
use super::value::{Text, is_web_url, text};

/// The stream of events, and requests of programs outside.
#[derive(Clone, Debug, DeriveSerialize, DeriveDeserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsConfig {
    /// True if chat messages are in the stream.
    pub chat: bool,
    /// Bytes of the log from which a stream resumes; at least 65,536.
    pub log_bytes: usize,
    /// Concurrent streams; at least 1.
    pub streams: usize,
    /// Concurrent streams of one identity; 0 is no limit.
    pub streams_per_identity: usize,
    /// Interval of the lines that keep a quiet stream open; a second to a day.
    #[serde(with = "text")]
    pub heartbeat: Duration,
    /// Undelivered events of one webhook; at least 100.
    pub undelivered: usize,
    /// Requests a minute of one identity that act in rooms or read their state; 0 is no limit.
    pub requests_per_minute: u32,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self {
            chat: false,
            log_bytes: 16 << 20,
            streams: 100,
            streams_per_identity: 10,
            heartbeat: Duration::from_secs(15),
            undelivered: 10_000,
            requests_per_minute: 120,
        }
    }
}

/// A destination of events.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// The name by which operators know it.
    pub name: String,
    /// The URL that events are posted to; a secret, since it may carry a token.
    pub url: SecretString,
    /// Secret of the signatures.
    pub secret: KeySource,
    /// The secret before, which signs as well until every receiver has the new one.
    pub previous_secret: Option<KeySource>,
    /// Types of the events that it gets, such as `meeting.*`; empty for all.
    pub events: Vec<String>,
    /// Rooms whose events it gets, such as `team-*`; empty for all.
    pub rooms: Vec<String>,
    /// True if it gets chat messages.
    pub chat: bool,
    /// True if its host may have a private address.
    pub allow_private: bool,
}

/// The settings of a webhook, for errors.
const SETTINGS: &str = "name, url, secret, secret_file, previous_secret, previous_secret_file, events, rooms, chat, allow_private";

/// Decodes the secret of signatures: 24 to 64 bytes in base64, with or without the prefix `whsec_`.
///
/// Source: Standard Webhooks, "Signature scheme".
pub fn signing_secret(secret: &str) -> Option<Zeroizing<Vec<u8>>> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).ok().map(Zeroizing::new)?;
    (24..=64).contains(&key.len()).then_some(key)
}

/// True if a pattern, a text or its beginning and a `*`, matches a text.
pub fn pattern_matches(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => text.starts_with(beginning),
        None => pattern == text,
    }
}

impl WebhookConfig {
    fn read(table: Table) -> Result<Self, String> {
        let [mut name, mut url, mut secret, mut secret_file, mut previous, mut previous_file] =
            [const { None }; 6];
        let (mut events, mut rooms, mut chat, mut allow_private) = (Vec::new(), Vec::new(), false, false);
        for (key, value) in table {
            let place = match &*key {
                "name" => &mut name,
                "url" => &mut url,
                "secret" => &mut secret,
                "secret_file" => &mut secret_file,
                "previous_secret" => &mut previous,
                "previous_secret_file" => &mut previous_file,
                "events" | "rooms" => {
                    let list = if key == "events" { &mut events } else { &mut rooms };
                    *list = texts(value).ok_or_else(|| format!("{key}: not a list of texts"))?;
                    continue;
                }
                "chat" | "allow_private" => {
                    let flag = if key == "chat" { &mut chat } else { &mut allow_private };
                    *flag = value.as_bool().ok_or_else(|| format!("{key}: neither true nor false"))?;
                    continue;
                }
                _ => return Err(format!("{key}: no such setting; a webhook has {SETTINGS}")),
            };
            let Value::String(text) = value else { return Err(format!("{key}: not a text in quotes")) };
            *place = Some(text).filter(|text| !text.is_empty());
        }
        let source = |key: &str, text: Option<String>, file: Option<String>| match (text, file) {
            (Some(text), None) => Ok(Some(KeySource::Text(text.into()))),
            (None, Some(file)) => Ok(Some(KeySource::File(PathBuf::from(file)))),
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(format!("{key}: set either {key} or {key}_file")),
        };
        let lacks = |key: &str| format!("a webhook needs {key}");
        Ok(Self {
            name: name.ok_or_else(|| lacks("a name"))?,
            url: url.ok_or_else(|| lacks("a url"))?.into(),
            secret: source("secret", secret, secret_file)?
                .ok_or_else(|| lacks("a secret or a secret_file, by which receivers know the server"))?,
            previous_secret: source("previous_secret", previous, previous_file)?,
            events,
            rooms,
            chat,
            allow_private,
        })
    }

    /// True if it gets events of this type in this room.
    pub fn wants(&self, kind: &str, room: Option<&str>) -> bool {
        let admits = |patterns: &[String], text: &str| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern_matches(pattern, text))
        };
        let is_room = match room {
            Some(room) => admits(&self.rooms, room),
            None => self.rooms.is_empty(),
        };
        // Chat messages are a choice of their own, which no pattern makes by accident.
        is_room && admits(&self.events, kind) && (self.chat || kind != "chat.message")
    }

    /// The first error of its values.
    fn defect(&self) -> Option<String> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let secrets = [Some(&self.secret), self.previous_secret.as_ref()];
        let is_secret = |source: &KeySource| match source {
            KeySource::Text(text) => signing_secret(text.expose_secret()).is_some(),
            KeySource::File(_) => true,
        };
        let wrong = |pattern: &&String| pattern.strip_suffix('*').unwrap_or(pattern).contains('*');
        let patterns = self.events.iter().chain(&self.rooms);
        let name = &self.name;
        if name.len() > 64 || !name.bytes().all(is_name) {
            Some("a webhook's name has 1 to 64 of the characters A-Z, a-z, 0-9, - and _".to_owned())
        } else if !is_web_url(self.url.expose_secret()) {
            Some(format!("{name}: its url is not an http or https URL"))
        } else if !secrets.into_iter().flatten().all(is_secret) {
            Some(format!(
                "{name}: a secret is 24 to 64 bytes in base64; make one by: openssl rand -base64 32"
            ))
        } else if let Some(pattern) = patterns.clone().find(wrong) {
            Some(format!("{name}: {pattern:?} has a * before its end"))
        } else {
            let unknown = |pattern: &&String| !EVENT_TYPES.iter().any(|kind| pattern_matches(pattern, kind));
            let unknown = self.events.iter().find(unknown)?;
            Some(format!("{name}: {unknown:?} is the type of no event; there are {}", EVENT_TYPES.join(", ")))
        }
    }
}

/// All types of events that a webhook may choose.
pub const EVENT_TYPES: [&str; 12] = [
    "meeting.started",
    "meeting.ended",
    "member.joined",
    "member.left",
    "member.updated",
    "hand.raised",
    "hand.lowered",
    "track.published",
    "track.unpublished",
    "chat.message",
    "moderation.action",
    "report.created",
];

/// The first error of all webhooks.
fn webhooks_defect(webhooks: &[WebhookConfig]) -> Option<String> {
    let twice = |at: usize| webhooks[..at].iter().any(|other| other.name == webhooks[at].name);
    webhooks.iter().find_map(WebhookConfig::defect).or_else(|| {
        (0..webhooks.len())
            .find(|&at| twice(at))
            .map(|at| format!("two webhooks are called {}", webhooks[at].name))
    })
}

/// Violations of the settings here.
pub(super) fn wrong_events(config: &Config) -> impl Iterator<Item = Violation> {
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
    let events = &config.events;
    let counts = [
        ("events.log_bytes", events.log_bytes, 64 << 10..=1 << 40),
        ("events.streams", events.streams, 1..=1 << 20),
        ("events.undelivered", events.undelivered, 100..=1 << 30),
    ];
    let counts = counts
        .into_iter()
        .filter_map(|(key, value, allowed)| out_of_range(key, &value, &allowed, usize::to_string));
    let allowed = Duration::from_secs(1)..=LONGEST;
    let heartbeat = out_of_range("events.heartbeat", &events.heartbeat, &allowed, Text::write);
    let webhooks = webhooks_defect(&config.webhooks).map(|problem| Violation::new(&["webhooks"], problem));
    counts.chain(heartbeat).chain(webhooks)
}

fn texts(value: Value) -> Option<Vec<String>> {
    let Value::Array(items) = value else { return None };
    items.into_iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

/// No error quotes a value: it may be a secret.
impl<'de> Deserialize<'de> for WebhookConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Table(table) => Self::read(table).map_err(D::Error::custom),
            _ => Err(D::Error::custom("each of them is a table; write [[webhooks]] above it")),
        }
    }
}

impl Serialize for WebhookConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("url", "[secret]")?;
        let secrets = [("secret", Some(&self.secret)), ("previous_secret", self.previous_secret.as_ref())];
        for (key, source) in secrets {
            match source {
                Some(KeySource::Text(_)) => map.serialize_entry(key, "[secret]")?,
                Some(KeySource::File(path)) => {
                    map.serialize_entry(&format!("{key}_file"), &path.to_string_lossy())?;
                }
                None => {}
            }
        }
        map.serialize_entry("events", &self.events)?;
        map.serialize_entry("rooms", &self.rooms)?;
        map.serialize_entry("chat", &self.chat)?;
        map.serialize_entry("allow_private", &self.allow_private)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn read(text: &str) -> Result<WebhookConfig, String> {
        WebhookConfig::read(text.parse().unwrap())
    }

    fn webhook(more: &str) -> WebhookConfig {
        let text = format!("name = 'a'\nurl = 'https://a.example/?token=hush'\nsecret = '{SECRET}'\n{more}");
        read(&text).unwrap()
    }

    #[test]
    fn webhook_gets_the_events_of_its_filters() {
        let all = webhook("");
        assert!(all.wants("meeting.started", Some("r")) && all.wants("report.created", None));
        assert!(!all.wants("chat.message", Some("r")), "chat is opted in");
        let some = webhook("events = ['meeting.*', 'chat.message']\nrooms = ['team-*', 'x']\nchat = true");
        for (kind, room, wanted) in [
            ("meeting.ended", Some("team-1"), true),
            ("meeting.ended", Some("x"), true),
            ("meeting.ended", Some("x2"), false),
            ("meeting.ended", None, false),
            ("member.joined", Some("x"), false),
            ("chat.message", Some("x"), true),
        ] {
            assert_eq!(some.wants(kind, room), wanted, "{kind} {room:?}");
        }
    }

    #[test]
    fn webhook_errors_name_the_setting_and_no_secret() {
        for (text, expected) in [
            ("", "needs a name"),
            ("name = 'a'", "needs a url"),
            ("name = 'a'\nurl = 'https://a.example'", "needs a secret"),
            ("name = 1", "name: not a text"),
            ("nam = 'hush'", "nam: no such setting"),
            ("events = 'hush'", "events: not a list"),
            ("chat = 'hush'", "chat: neither true nor false"),
            ("name = 'a'\nurl = 'u'\nsecret = 'hush'\nsecret_file = 'f'", "either secret or secret_file"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hush"), "{text}: {error}");
        }
        let defect = |change: fn(&mut WebhookConfig)| {
            let mut config = webhook("");
            change(&mut config);
            config.defect().unwrap_or_default()
        };
        assert_eq!(defect(|_| {}), "");
        assert!(defect(|config| config.name = "a b".into()).contains("a webhook's name"));
        assert!(defect(|config| config.url = "ftp://hush".to_owned().into()).ends_with("or https URL"));
        assert!(defect(|config| config.secret = KeySource::Text("hush".into())).contains("24 to 64 bytes"));
        assert!(defect(|config| config.events = vec!["*.ended".into()]).contains("before its end"));
        assert!(defect(|config| config.events = vec!["meetings.*".into()]).contains("of no event"));
        assert_eq!(webhooks_defect(&[webhook(""), webhook("")]).unwrap(), "two webhooks are called a");
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = Value::try_from(webhook("previous_secret_file = 'f'")).unwrap().to_string();
        assert!(!shown.contains("hush") && !shown.contains("MfKQ") && shown.contains("[secret]"), "{shown}");
        let debug = format!("{:?}", webhook(""));
        assert!(!debug.contains("hush") && !debug.contains("MfKQ"), "{debug}");
    }
}
