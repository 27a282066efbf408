//! Checks that the types of the settings cannot express: ranges, and settings that need others.

use std::ops::RangeInclusive;
use std::time::Duration;

use secrecy::ExposeSecret;
use url::Url;

use super::assistant::wrong_assistant;
use super::base_path::{BasePath, PublicUrl};
use super::chat::wrong_chat;
use super::cluster::wrong_cluster;
use super::durable::wrong_durables;
use super::events::wrong_events;
use super::files::wrong_files;
use super::value::{HttpUrl, Text, is_web_url};
use super::watch::wrong_watch;
use super::{
    AccessLevel, Config, FeedbackConfig, Http, IdentityConfig, MediaUpstream, PhoenixConfig, RoomConfig,
};

/// A violated rule.
pub(super) struct Violation {
    /// The settings involved; the first is the one to correct.
    pub(super) keys: Vec<&'static str>,
    /// The error and the allowed values.
    pub(super) problem: String,
}

impl Violation {
    pub(super) fn new(keys: &[&'static str], problem: impl Into<String>) -> Self {
        Self { keys: keys.to_vec(), problem: problem.into() }
    }
}

/// Returns all violations in `config`.
pub(super) fn violations(config: &Config) -> Vec<Violation> {
    let mut violations = Vec::new();
    violations.extend(counts_out_of_range(config));
    violations.extend(reports_out_of_range(&config.feedback));
    violations.extend(retentions_out_of_range(config));
    violations.extend(durations_out_of_range(config));
    violations.extend(empty_texts(config));
    violations.extend(wrong_urls(config));
    violations.extend(wrong_ids(config));
    violations.extend(unmet_needs(config));
    violations.extend(wrong_durables(&config.durable));
    violations.extend(wrong_phoenix(config));
    violations.extend(wrong_auth(config));
    violations.extend(wrong_events(config));
    violations.extend(wrong_chat(&config.chat));
    violations.extend(wrong_assistant(&config.assistant));
    violations.extend(wrong_watch(&config.watch));
    violations.extend(wrong_files(&config.files));
    violations.extend(wrong_cluster(&config.cluster));
    violations
}

fn counts_out_of_range(config: &Config) -> impl Iterator<Item = Violation> {
    // Far above any use, and far below an overflow of sums of sizes.
    const MANY: usize = 1 << 30;
    let Config { limits, sfu, log, .. } = config;
    [
        ("limits.connections", limits.connections, 1..=MANY),
        ("limits.http_connections", limits.http_connections, 1..=MANY),
        ("limits.rooms", limits.rooms, 1..=MANY),
        ("limits.members_per_room", limits.members_per_room, 1..=MANY),
        ("limits.frame_bytes", limits.frame_bytes, 1024..=MANY),
        ("limits.history_entry_bytes", limits.history_entry_bytes, 1024..=MANY),
        ("limits.messages_per_second", limits.messages_per_second as usize, 1..=MANY),
        ("limits.message_burst", limits.message_burst as usize, 1..=MANY),
        ("limits.user_bytes", limits.user_bytes, 512..=MANY),
        ("limits.outbox_bytes", limits.outbox_bytes, 64 << 10..=MANY),
        ("limits.arriving_bytes", limits.arriving_bytes, 1 << 20..=u32::MAX as usize),
        ("limits.outboxes_bytes", limits.outboxes_bytes, 16 << 20..=u32::MAX as usize),
        ("limits.header_bytes", limits.header_bytes, 8 << 10..=1 << 20),
        ("limits.url_bytes", limits.url_bytes, 1024..=MANY),
        ("limits.file_cache_bytes", limits.file_cache_bytes, 1 << 20..=u32::MAX as usize),
        ("limits.body_bytes", limits.body_bytes, 1..=MANY),
        ("limits.calls_per_second", limits.calls_per_second as usize, 1..=MANY),
        ("limits.call_bytes", limits.call_bytes, 1024..=MANY),
        ("log.queue_bytes", log.queue_bytes, 64 << 10..=MANY),
        ("sfu.tcp_connections", sfu.tcp_connections, 1..=MANY),
        ("sfu.tcp_connections_per_network", sfu.tcp_connections_per_network, 1..=MANY),
        ("sfu.sessions", sfu.sessions, 1..=MANY),
        ("sfu.sessions_per_identity", sfu.sessions_per_identity, 1..=MANY),
        ("sfu.subscriptions_per_identity", sfu.subscriptions_per_identity, 1..=MANY),
        ("sfu.subscriptions_per_identity_and_track", sfu.subscriptions_per_identity_and_track, 1..=MANY),
        ("sfu.tracks_per_session", sfu.tracks_per_session, 1..=512),
        ("sfu.subscribers_per_track", sfu.subscribers_per_track, 1..=MANY),
    ]
    .into_iter()
    .filter_map(|(key, value, allowed)| out_of_range(key, &value, &allowed, usize::to_string))
}

fn retentions_out_of_range(config: &Config) -> impl Iterator<Item = Violation> {
    // With a shorter retention a typing error would remove data that nobody has read yet.
    const SHORTEST: Duration = Duration::from_secs(60 * 60);
    const LONGEST: Duration = Duration::from_secs(100 * 31_557_600);
    [
        ("feedback.retention", config.feedback.retention),
        ("room.meetings_retention", config.room.meetings_retention),
    ]
    .into_iter()
    .filter_map(|(key, value)| out_of_range(key, &value, &(SHORTEST..=LONGEST), Duration::write))
}

fn reports_out_of_range(feedback: &FeedbackConfig) -> impl Iterator<Item = Violation> {
    const MOST: usize = 1 << 30;
    [
        ("feedback.stored_bytes", feedback.stored_bytes, 1 << 20..=u32::MAX as usize),
        ("feedback.form_bytes", feedback.form_bytes, 64 << 10..=MOST),
        ("feedback.history_bytes", feedback.history_bytes, 1024..=MOST),
        ("feedback.description_chars", feedback.description_chars, 1..=MOST),
    ]
    .into_iter()
    .filter_map(|(key, value, allowed)| out_of_range(key, &value, &allowed, usize::to_string))
}

/// First segments of paths that other routes have. A test of the routes holds that none is missing.
pub(super) const TAKEN: [&str; 17] = [
    "admin",
    "api",
    "apps",
    "assets",
    "build",
    "call-quality-feedback",
    "healthz",
    "metrics",
    "new",
    "parties",
    "partytracks",
    "readyz",
    "set-username",
    "site.webmanifest",
    "socket",
    "static",
    "v1",
];

/// The defect of a path that a feature's routes are below, none of which may be one of `taken`.
pub(super) fn wrong_path(key: &'static str, path: &str, taken: &[&str]) -> Option<Violation> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let segments = path.strip_prefix('/').map(|path| path.split('/'));
    let is_path = segments.clone().is_some_and(|mut segments| {
        segments.all(|part| !part.trim_matches('.').is_empty() && part.bytes().all(is_plain))
    });
    let first = segments.and_then(|mut segments| segments.next()).unwrap_or_default().to_lowercase();
    let problem = match () {
        () if !is_path => "is not a path such as \"/a\" or \"/a/b\"",
        () if taken.contains(&&*first) => "begins with a name of the server's own; choose another one",
        () => return None,
    };
    Some(Violation::new(&[key], problem))
}

fn wrong_phoenix(config: &Config) -> impl Iterator<Item = Violation> {
    let PhoenixConfig { path, topics, .. } = &config.phoenix;
    // Its own default is not taken by anything else.
    let taken: Vec<&str> = TAKEN.into_iter().filter(|name| *name != "socket").collect();
    let below = |path: &str, other: &str| format!("{path}/").starts_with(&format!("{other}/"));
    let durable = &*config.durable.path;
    let overlap = (below(path, durable) || below(durable, path)).then(|| {
        Violation::new(&["phoenix.path", "durable.path"], "is durable.path too, or one is below the other")
    });
    let topics = out_of_range("phoenix.topics", topics, &(1..=10_000), usize::to_string);
    topics.into_iter().chain(wrong_path("phoenix.path", path, &taken)).chain(overlap)
}

fn wrong_auth(config: &Config) -> impl Iterator<Item = Violation> {
    let Config { auth, identity, .. } = config;
    let lifetime = Duration::from_secs(60)..=Duration::from_secs(100 * 365 * 24 * 60 * 60);
    let lifetime = out_of_range("auth.token_lifetime", &auth.token_lifetime, &lifetime, Duration::write);
    let keys = auth.key_defect().map(|defect| Violation::new(&["auth.keys"], defect));
    let issuers = auth.issuer_defect().map(|defect| Violation::new(&["auth.issuers"], defect));
    let oidc = auth.oidc_defect(config.http.public_url.is_some());
    let oidc = oidc.map(|defect| Violation::new(&["auth.oidc"], defect));
    let has_login = identity.proxy_header.is_some() || identity.access().is_some();
    let unmet = |key, level| match level {
        AccessLevel::Token if !auth.takes_tokens() => Some(Violation::new(
            &[key, "auth.keys", "auth.issuers"],
            "is \"token\", but there is no key in auth.keys, no issuer in auth.issuers, and no auth.oidc",
        )),
        AccessLevel::SignedIn if !auth.takes_tokens() && !has_login => Some(Violation::new(
            &[key],
            "is \"signed-in\", but nobody can sign in; set auth.oidc, auth.keys, auth.issuers, identity.proxy_header \
             or identity.access_team_domain",
        )),
        _ => None,
    };
    let unmet = [("auth.rooms", auth.rooms), ("auth.create", auth.create)]
        .into_iter()
        .filter_map(move |(key, level)| unmet(key, level));
    lifetime.into_iter().chain(keys).chain(issuers).chain(oidc).chain(unmet.collect::<Vec<_>>())
}

fn durations_out_of_range(config: &Config) -> impl Iterator<Item = Violation> {
    // A timer of zero, or one so long that adding it to the current time overflows, would panic the server.
    const SHORTEST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
    let Config { room: RoomConfig { tick, heartbeat_timeout, restore_grace, .. }, limits, .. } = config;
    [
        ("room.tick", *tick, SHORTEST..=LONGEST),
        ("room.heartbeat_timeout", *heartbeat_timeout, SHORTEST..=LONGEST),
        ("room.restore_grace", *restore_grace, Duration::ZERO..=LONGEST),
        ("http.tls_reload", config.http.tls_reload, SHORTEST..=LONGEST),
        ("http.acme_retry", config.http.acme_retry, SHORTEST..=LONGEST),
        ("limits.throttle_timeout", limits.throttle_timeout, SHORTEST..=LONGEST),
        ("limits.write_stall", limits.write_stall, SHORTEST..=LONGEST),
        ("limits.handshake", limits.handshake, SHORTEST..=LONGEST),
        ("limits.header_timeout", limits.header_timeout, SHORTEST..=LONGEST),
        ("limits.request_timeout", limits.request_timeout, SHORTEST..=LONGEST),
        ("calls.connect_timeout", config.calls.connect_timeout, SHORTEST..=LONGEST),
        ("calls.timeout", config.calls.timeout, SHORTEST..=LONGEST),
        ("ai.timeout", config.ai.timeout, SHORTEST..=LONGEST),
        ("feedback.form_timeout", config.feedback.form_timeout, SHORTEST..=LONGEST),
        ("shutdown.deadline", config.shutdown.deadline, Duration::from_secs(1)..=LONGEST),
        ("shutdown.media_deadline", config.shutdown.media_deadline, Duration::ZERO..=LONGEST),
    ]
    .into_iter()
    .filter_map(|(key, value, allowed)| out_of_range(key, &value, &allowed, Duration::write))
}

/// The violation of a range, if the value is out of it.
pub(super) fn out_of_range<T: PartialOrd>(
    key: &'static str,
    value: &T,
    allowed: &RangeInclusive<T>,
    write: fn(&T) -> String,
) -> Option<Violation> {
    let [value_text, least, most] = [value, allowed.start(), allowed.end()].map(write);
    (!allowed.contains(value))
        .then(|| Violation::new(&[key], format!("{value_text} is out of range; write {least} to {most}")))
}

fn empty_texts(config: &Config) -> impl Iterator<Item = Violation> {
    [
        ("data_dir", config.data_dir.as_os_str().is_empty()),
        ("log.filter", config.log.filter.trim().is_empty()),
        ("ai.model_id", config.ai.model_id.trim().is_empty()),
        ("sfu.app_id", config.sfu.app_id.is_empty()),
    ]
    .into_iter()
    .filter(|&(_, empty)| empty)
    .map(|(key, _)| Violation::new(&[key], "may not be empty"))
}

fn wrong_urls(config: &Config) -> impl Iterator<Item = Violation> {
    let own = config.http.public_url.as_ref().filter(|url| !url.is_web());
    let hook = config.feedback.url.as_ref();
    let hook = hook.filter(|url| !is_web_url(url.expose_secret()));
    let web = "is not an http or https URL";
    let directory = &config.http.acme_directory;
    // Orders are signed, but not what the authority answers.
    let is_open = !directory.as_str().starts_with("https:") && !directory.is_loopback();
    let model = config.assistant.url.as_ref();
    let email = config.http.acme_email.as_deref().is_some_and(|email| !is_email(email));
    [
        ("http.public_url", own.is_some(), web),
        ("feedback.url", hook.is_some(), web),
        ("http.acme_directory", is_open, "is not an https URL"),
        ("calls.api_url", !config.calls.api_url.is_base(), "has no query and no fragment"),
        ("assistant.url", !model.is_none_or(HttpUrl::is_base), "has no query and no fragment"),
        ("http.acme_email", email, "is not one e-mail address"),
    ]
    .into_iter()
    .filter(|&(_, wrong, _)| wrong)
    .map(|(key, _, problem)| Violation::new(&[key], problem))
}

/// True for one address, which as a `mailto:` URL has no further headers (RFC 8555 section 7.3).
fn is_email(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_graphic() && !",;?&%<>\"".contains(c);
    text.split_once('@')
        .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'))
        && text.chars().all(is_plain)
}

/// Checks ids that become a part of a URL's path: other characters could change the path.
fn wrong_ids(config: &Config) -> impl Iterator<Item = Violation> {
    let is_id = |id: &str| id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let sfu = Some(config.sfu.app_id.as_str());
    let (calls, turn) = (config.calls.app_id.as_deref(), config.turn.service_id.as_deref());
    [("calls.app_id", calls), ("turn.service_id", turn), ("sfu.app_id", sfu)]
        .into_iter()
        .filter(move |(_, id)| id.is_some_and(|id| !is_id(id)))
        .map(|(key, _)| Violation::new(&[key], "has other characters than A-Z, a-z, 0-9, - and _"))
}

fn unmet_needs(config: &Config) -> impl Iterator<Item = Violation> {
    let Config { http, limits, identity, .. } = config;
    let IdentityConfig { proxy_header, access_team_domain, access_audience, required: _ } = identity;
    let orders = !http.acme_domains.is_empty();
    let is_ordered = |url: &PublicUrl| {
        let host = Url::parse(url.origin().as_str()).ok().and_then(|url| Some(url.host_str()?.to_owned()));
        http.acme_domains.iter().any(|name| host.as_deref() == Some(name.as_str()))
    };
    let default_directory = Http::default().acme_directory;
    let paths = http.base_path.as_ref().zip(http.public_url.as_ref());
    let disagree =
        |(path, url): (&BasePath, &PublicUrl)| !url.base_path().is_root() && path != url.base_path();
    let frame_bytes = limits.frame_bytes;
    [
        (
            ["limits.history_entry_bytes", "limits.frame_bytes"],
            limits.history_entry_bytes < frame_bytes,
            format!("is less than limits.frame_bytes; write {frame_bytes} or more"),
        ),
        (
            ["limits.outbox_bytes", "limits.frame_bytes"],
            limits.outbox_bytes / 2 < frame_bytes,
            format!("holds fewer than two messages of limits.frame_bytes; write {} or more", 2 * frame_bytes),
        ),
        (
            ["identity.proxy_header", "http.trusted_proxies"],
            proxy_header.is_some() && http.trusted_proxies.is_empty(),
            "needs http.trusted_proxies, the addresses of those who may set the header".to_owned(),
        ),
        (
            ["http.tls_self_signed", "http.tls_certificate"],
            http.tls_self_signed && http.tls_certificate.is_some(),
            "makes a certificate, but http.tls_certificate names one; set one of them".to_owned(),
        ),
        (
            ["http.acme_domains", "http.tls_certificate"],
            orders && http.tls_certificate.is_some(),
            "orders a certificate, but http.tls_certificate names one; set one of them".to_owned(),
        ),
        (
            ["http.acme_domains", "http.tls_self_signed"],
            orders && http.tls_self_signed,
            "orders a certificate, but http.tls_self_signed makes one; set one of them".to_owned(),
        ),
        (
            ["http.acme_email", "http.acme_domains"],
            http.acme_email.is_some() && !orders,
            "needs http.acme_domains, the names of the certificate to order".to_owned(),
        ),
        (
            ["http.acme_directory", "http.acme_domains"],
            http.acme_directory != default_directory && !orders,
            "needs http.acme_domains, the names of the certificate to order".to_owned(),
        ),
        (
            ["http.public_url", "http.acme_domains"],
            orders && http.public_url.as_ref().is_some_and(|url| url.is_https() && !is_ordered(url)),
            "has a host that http.acme_domains does not name; browsers would refuse the certificate".to_owned(),
        ),
        (
            ["http.public_url", "http.tls_certificate"],
            http.speaks_tls() && !http.public_url.as_ref().is_none_or(PublicUrl::is_https),
            "is an http URL, but the server is set up to speak https".to_owned(),
        ),
        (
            ["http.base_path", "http.public_url"],
            paths.is_some_and(disagree),
            "is another path than that of http.public_url; write one of them, or the same twice".to_owned(),
        ),
        (
            ["client.dir", "http.base_path"],
            config.client.dir.is_some() && !http.base_path().is_root(),
            format!(
                "the stock client cannot work below {}: its build asks for /build/, /parties/, /partytracks/ and \
                 /api/ of its host; give it a host of its own (no http.base_path, no path in http.public_url), or \
                 leave client.dir out for Satsuma's own page",
                http.base_path()
            ),
        ),
        (
            ["calls.upstream", "calls.app_id"],
            config.calls.upstream == MediaUpstream::Cloudflare && config.calls.app_id.is_none(),
            "is cloudflare, which needs calls.app_id and calls.app_secret".to_owned(),
        ),
        one_without_the_other(["http.tls_certificate", "http.tls_key"], &http.tls_certificate, &http.tls_key),
        one_without_the_other(["http.tls_key", "http.tls_certificate"], &http.tls_key, &http.tls_certificate),
        one_without_the_other(
            ["identity.access_team_domain", "identity.access_audience"],
            access_team_domain,
            access_audience,
        ),
        one_without_the_other(
            ["identity.access_audience", "identity.access_team_domain"],
            access_audience,
            access_team_domain,
        ),
        (
            ["identity.access_audience", "identity.access_team_domain"],
            access_audience.as_deref().is_some_and(|audience| audience.trim().is_empty()),
            "is blank; write the application's AUD tag".to_owned(),
        ),
    ]
    .into_iter()
    .filter_map(|(keys, broken, problem)| broken.then(|| Violation::new(&keys, problem)))
}

fn one_without_the_other<A, B>(
    keys: [&'static str; 2],
    this: &Option<A>,
    other: &Option<B>,
) -> ([&'static str; 2], bool, String) {
    (keys, this.is_some() && other.is_none(), format!("needs {}; set both or neither", keys[1]))
}
