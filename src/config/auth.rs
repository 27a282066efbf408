//! The settings of access to rooms: who may enter them, who may start a meeting, and the keys of access tokens.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde::{Deserialize as DeriveDeserialize, Serialize as DeriveSerialize};
use toml::Value;

use super::issuers::TokenIssuer;
use super::key_source::KeySource;
use super::oidc::OidcSetting;
use super::value::text;

/// Access to rooms.
#[derive(Clone, Debug, DeriveSerialize, DeriveDeserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Those who may use this server.
    pub rooms: AccessLevel,
    /// Those who may start a meeting.
    pub create: AccessLevel,
    /// Keys of access tokens.
    pub keys: Vec<TokenKey>,
    /// Issuers of access tokens with public keys.
    pub issuers: Vec<TokenIssuer>,
    /// The login of the built-in page.
    pub oidc: OidcSetting,
    /// Maximum lifetime of an access token; a minute to 100 years.
    #[serde(with = "text")]
    pub token_lifetime: Duration,
}

/// A group of users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, DeriveSerialize, DeriveDeserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessLevel {
    /// Everyone, under a name of their choice.
    #[default]
    Anyone,
    /// Users of a login: a proxy's header, Cloudflare Access, or an access token.
    SignedIn,
    /// Holders of an access token.
    Token,
}

/// Moderation of meetings.
#[derive(Clone, Debug, Default, DeriveSerialize, DeriveDeserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModerationConfig {
    /// Those who moderate without a right of their own.
    pub default: ModeratorDefault,
}

/// Those who moderate without a right of their own, such as that of an access token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, DeriveSerialize, DeriveDeserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModeratorDefault {
    /// Everyone mutes others and lowers hands, as in Orange Meets; nobody keeps others out.
    #[default]
    Everyone,
    /// Whoever came first; when that one has left, the one who is present for longest.
    First,
    /// Nobody.
    Nobody,
}

/// A key that signs access tokens.
#[derive(Clone, Debug)]
pub struct TokenKey {
    /// Its id, which tokens name.
    pub id: String,
    /// The key itself.
    pub secret: KeySource,
}

impl TokenKey {
    /// The error of an id; none for a good one.
    pub(super) fn id_defect(id: &str) -> Option<&'static str> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let is_good = (1..=64).contains(&id.len()) && id.bytes().all(is_plain);
        (!is_good).then_some("an id has 1 to 64 of the characters A-Z, a-z, 0-9, -, . and _")
    }

    /// The error of a secret; none for a good one.
    ///
    /// Source: RFC 7518 section 3.2, which asks for as many bits as the hash has.
    pub fn secret_defect(secret: &str) -> Option<&'static str> {
        let is_good =
            (32..=256).contains(&secret.len()) && secret.bytes().all(|byte| byte.is_ascii_graphic());
        (!is_good).then_some("a secret has 32 to 256 visible ASCII characters")
    }
}

/// A key is a table.
///
/// No error quotes a value: it may be the secret.
impl<'de> Deserialize<'de> for TokenKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = |problem: String| D::Error::custom(problem);
        let Value::Table(table) = Value::deserialize(deserializer)? else {
            return Err(wrong(
                "each of them is a table with an id and a secret; write [[auth.keys]] above it".to_owned(),
            ));
        };
        let (mut id, mut secret, mut file) = (None, None, None);
        for (name, value) in table {
            let place = match &*name {
                "id" => &mut id,
                "secret" => &mut secret,
                "secret_file" => &mut file,
                _ => {
                    return Err(wrong(format!("{name}: no such setting; a key has id, secret, secret_file")));
                }
            };
            let Value::String(text) = value else {
                return Err(wrong(format!("{name}: not a text in quotes")));
            };
            *place = Some(text).filter(|text| !text.is_empty());
        }
        let id = id.ok_or_else(|| wrong("each of them has an id".to_owned()))?;
        let secret = match (secret, file) {
            (Some(secret), None) => KeySource::Text(secret.into()),
            (None, Some(file)) => KeySource::File(PathBuf::from(file)),
            _ => return Err(wrong("each of them has either secret or secret_file".to_owned())),
        };
        Ok(Self { id, secret })
    }
}

impl Serialize for TokenKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("id", &self.id)?;
        match &self.secret {
            KeySource::Text(_) => map.serialize_entry("secret", "[secret]")?,
            KeySource::File(path) => map.serialize_entry("secret_file", &path.to_string_lossy())?,
        }
        map.end()
    }
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            rooms: AccessLevel::Anyone,
            create: AccessLevel::Anyone,
            keys: Vec::new(),
            issuers: Vec::new(),
            oidc: OidcSetting::default(),
            token_lifetime: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl AuthConfig {
    /// The first error of the keys; two may not have one id, since a token could be of either.
    pub(super) fn key_defect(&self) -> Option<&'static str> {
        let secrets = self.keys.iter().filter_map(|key| match &key.secret {
            KeySource::Text(secret) => Some(secret),
            KeySource::File(_) => None,
        });
        let defect = |secret: &SecretString| TokenKey::secret_defect(secret.expose_secret());
        let is_twice = self
            .keys
            .iter()
            .enumerate()
            .any(|(at, key)| self.keys[..at].iter().any(|other| other.id == key.id));
        let ids = self.keys.iter().find_map(|key| TokenKey::id_defect(&key.id));
        ids.or(secrets.into_iter().find_map(defect)).or(is_twice.then_some("two keys have one id"))
    }
}
