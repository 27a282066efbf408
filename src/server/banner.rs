//! The start-up banner: addresses, active parts, and the settings that inactive parts need.

use std::path::Path;

use super::Addresses;
use crate::config::{AccessLevel, Config, LogFormat, VERSION};
use crate::http::tls::certificates::CertificateFacts;
use crate::media_api::upstream::Upstream;

/// The banner's contents.
pub(super) struct Announced<'a> {
    pub(super) config: &'a Config,
    pub(super) addresses: Addresses,
    pub(super) data: &'a Path,
    pub(super) kept_rooms: usize,
    /// The backend of the media API.
    pub(super) media: &'a Upstream,
    /// The certificate, if the public listener speaks TLS.
    pub(super) tls: Option<&'a CertificateFacts>,
}

/// A part of the server that needs settings.
struct Part {
    name: &'static str,
    /// The missing settings, if it is off.
    missing: Option<&'static str>,
}

/// Formats the banner in the configured log format.
pub(super) fn announcement(announced: &Announced<'_>) -> String {
    let Announced { config, addresses: Addresses { http, admin }, data, kept_rooms, tls, .. } = announced;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let certificate = tls.map(|tls| format!("{tls}\n")).unwrap_or_default();
    let base_path = config.http.base_path();
    let below = if base_path.is_root() { String::new() } else { base_path.to_string() };
    let data = data.canonicalize().unwrap_or_else(|_| data.to_path_buf());
    let identity = identity(config);
    let parts = parts(announced);
    let (media, carried) = media(announced);
    let on: Vec<&str> = parts.iter().filter(|part| part.missing.is_none()).map(|part| part.name).collect();
    let page = match config.client.dir.as_ref() {
        Some(dir) => format!("the Orange client in {}", dir.display()),
        None => "Satsuma's own".to_owned(),
    };
    let off = parts.iter().filter_map(|part| Some((part.name, part.missing?)));
    match config.log.format {
        LogFormat::Human => {
            let off: Vec<String> = off.map(|(name, missing)| format!("{name} ({missing})")).collect();
            let on: String = on.iter().map(|name| format!(", {name}")).collect();
            let off = if off.is_empty() { String::new() } else { format!("off: {}\n", off.join(", ")) };
            format!(
                "satsuma {VERSION}\n\
                 listening on {scheme}://{http}{below}, for operators on http://{admin}\n\
                 {certificate}\
                 data in {}, operator token in {}; {kept_rooms} rooms restored\n\
                 on: rooms, reports{on}; identity by {identity}\n\
                 {off}media: {media}\n\
                 page: {page}\n",
                data.display(),
                data.join("operator.token").display(),
            )
        }
        LogFormat::Json => {
            let off: serde_json::Map<_, _> = off.map(|(name, why)| (name.to_owned(), why.into())).collect();
            let line = serde_json::json!({
                "event": "listening", "version": VERSION, "http": http, "basePath": base_path.to_string(), "admin": admin, "data": data,
                "keptRooms": kept_rooms, "identity": identity, "on": on, "off": off, "page": page, "media": carried,
                "scheme": scheme, "fingerprint": tls.and_then(|tls| tls.fingerprint.as_ref()),
            });
            format!("{line}\n")
        }
    }
}

fn parts(announced: &Announced<'_>) -> Vec<Part> {
    let Config { turn, feedback, ai, assistant, durable, webhooks, .. } = announced.config;
    let unless = |is_set: bool, missing| (!is_set).then_some(missing);
    let has_turn = turn.service_id.is_some() && turn.service_token.is_some();
    let has_model = ai.model_endpoint.is_some() && ai.api_token.is_some();
    let model = "OPENAI_MODEL_ENDPOINT or OPENAI_API_TOKEN is not set";
    let mut parts = vec![
        Part { name: "media", missing: announced.media.missing() },
        Part { name: "TURN", missing: unless(has_turn, "TURN_SERVICE_ID or TURN_SERVICE_TOKEN is not set") },
        Part {
            name: "webhook for reports",
            missing: unless(feedback.url.is_some(), "FEEDBACK_URL is not set"),
        },
        Part { name: "AI", missing: unless(has_model, model).or(announced.media.missing()) },
    ];
    // Parts that few people use are mentioned only where they are on.
    let is_on = [
        ("webhooks", !webhooks.is_empty()),
        ("assistant", assistant.url.is_some()),
        ("durable objects", !durable.keys.is_empty()),
    ];
    parts.extend(is_on.into_iter().filter(|(_, is_on)| *is_on).map(|(name, _)| Part { name, missing: None }));
    // Limits are mentioned only if they have no effect.
    let missing = network_limits_off(announced.config);
    if missing.is_some() {
        parts.push(Part { name: "limits by network", missing });
    }
    parts
}

/// Returns the reason if no limits per client network apply.
fn network_limits_off(config: &Config) -> Option<&'static str> {
    let limits = &config.limits;
    let is_unlimited = limits.connections_per_address == 0
        && limits.rooms_per_network == 0
        && limits.new_rooms_per_minute_per_network == 0;
    if config.has_unknown_proxy() {
        Some("http.public_url is https by a proxy that is not in http.trusted_proxies")
    } else if is_unlimited {
        Some("limits.connections_per_address, rooms_per_network and new_rooms_per_minute_per_network are 0")
    } else {
        None
    }
}

/// Describes the media server in use, for people and for machines.
fn media(announced: &Announced<'_>) -> (String, serde_json::Value) {
    match (announced.media.embedded(), announced.media.missing()) {
        (Some(sfu), _) => {
            let addresses: Vec<String> = sfu.addresses().iter().map(ToString::to_string).collect();
            let text = format!(
                "embedded SFU on port {}, advertised as {}",
                sfu.bound().port(),
                addresses.join(", ")
            );
            (text, serde_json::json!({"upstream": "embedded", "bound": sfu.bound(), "addresses": addresses}))
        }
        (None, None) => {
            let url = announced.config.calls.api_url.as_str();
            (format!("Calls API at {url}"), serde_json::json!({"upstream": "cloudflare", "url": url}))
        }
        (None, Some(_)) => ("none".to_owned(), serde_json::Value::Null),
    }
}

/// The ways by which people get in, for the setting `auth.rooms`.
fn identity(config: &Config) -> String {
    let Config { auth, identity, .. } = config;
    let proxy = match (identity.access(), identity.proxy_header.as_ref()) {
        (Some((team, _)), _) => Some(format!("Cloudflare Access of {}", team.as_str())),
        (None, Some(header)) => Some(format!("the proxy's header {header}")),
        (None, None) => None,
    };
    let takes_cookie = auth.rooms == AccessLevel::Anyone && (proxy.is_none() || !identity.required);
    let proxy = proxy.filter(|_| auth.rooms != AccessLevel::Token);
    let has_tokens = !auth.keys.is_empty() || !auth.issuers.is_empty();
    let tokens = has_tokens.then(|| "access tokens".to_owned());
    let login = auth.oidc.0.as_ref().map(|oidc| format!("the login of {}", oidc.issuer.as_str()));
    let cookie = takes_cookie.then(|| "the signed cookie".to_owned());
    [proxy, tokens, login, cookie].into_iter().flatten().collect::<Vec<_>>().join(", or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Optional;
    use crate::metrics::Metrics;

    fn text(config: &Config) -> String {
        let address = ([127, 0, 0, 1], 1).into();
        let media = Upstream::new(&config.calls, &config.turn, 1024, None, Metrics::new()).unwrap();
        let addresses = Addresses { http: address, admin: address };
        announcement(&Announced {
            config,
            addresses,
            data: Path::new("data"),
            kept_rooms: 0,
            media: &media,
            tls: None,
        })
    }

    #[test]
    fn inactive_parts_name_their_missing_variables() {
        let text = text(&Config::default());
        assert!(text.contains("on: rooms, reports; identity by the signed cookie\noff: media ("), "{text}");
        for variable in ["CALLS_APP_ID", "TURN_SERVICE_ID", "FEEDBACK_URL", "OPENAI_MODEL_ENDPOINT"] {
            assert!(text.contains(variable), "{text}");
        }
    }

    #[test]
    fn identity_names_the_ways_in() {
        let key = "[[keys]]\nid = \"app\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n";
        for (auth, ways) in [
            (key.to_owned(), "access tokens, or the signed cookie"),
            (format!("rooms = \"token\"\n{key}"), "access tokens"),
        ] {
            let config = Config { auth: toml::from_str(&auth).unwrap(), ..Config::default() };
            assert!(text(&config).contains(&format!("identity by {ways}\n")), "{}", text(&config));
        }
        let mut config = Config::default();
        config.identity.proxy_header = Optional(Some("x-user".parse().unwrap()));
        assert!(text(&config).contains("identity by the proxy's header x-user\n"));
        config.identity.required = false;
        assert!(text(&config).contains("identity by the proxy's header x-user, or the signed cookie\n"));
    }

    #[test]
    fn ineffective_network_limits_are_reported() {
        let mut config = Config::default();
        assert!(!text(&config).contains("limits by network"));
        config.http.public_url = Optional(Some("https://meet.example".parse().unwrap()));
        assert!(text(&config).contains("limits by network (http.public_url is https by a proxy"));
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        assert!(!text(&config).contains("limits by network"));
        config.limits.connections_per_address = 0;
        config.limits.rooms_per_network = 0;
        config.limits.new_rooms_per_minute_per_network = 0;
        assert!(text(&config).contains("limits by network (limits.connections_per_address,"));
    }

    #[test]
    fn banner_contains_no_secrets() {
        let mut config = Config::default();
        config.feedback.url = Optional(Some("https://hook.example/?token=secret-token".into()));
        config.log.format = LogFormat::Json;
        config.calls.app_id = Optional(Some("app".into()));
        config.calls.app_secret = Optional(Some("secret-app".into()));
        let text = text(&config);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["on"], serde_json::json!(["media", "webhook for reports"]));
        assert!(!text.contains("secret-"), "{text}");
    }
}
