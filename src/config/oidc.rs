//! The settings of a login by OpenID Connect.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::de::{Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};
use serde::{Deserialize, Serialize as DeriveSerialize};
use toml::{Table, Value};

use super::key_source::KeySource;
use super::value::{HttpUrl, Text};

/// Maximum number of groups with grants.
const MOST_GROUPS: usize = 1000;

/// The id of the key that signs the tokens of those who logged in.
pub const LOGIN_KEY: &str = "login";

/// A login by OpenID Connect.
#[derive(Clone, Debug)]
pub struct OidcConfig {
    /// The issuer, below which its configuration is.
    pub issuer: HttpUrl,
    /// The id of this server there.
    pub client_id: String,
    /// The secret of this server there, if it has one.
    pub client_secret: Option<KeySource>,
    /// The requested scopes, separated by spaces.
    pub scopes: String,
    /// The claim with a user's groups, or the path to it.
    pub groups_claim: String,
    /// The grants of groups; without any, everybody who logs in has those of a participant.
    pub groups: Vec<OidcGroup>,
    /// Time for which a login lasts.
    pub session: Duration,
}

/// A group and the grants that its members have beside those of a participant.
#[derive(Clone, Debug, PartialEq, Eq, DeriveSerialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcGroup {
    /// The group; `*` for everybody.
    pub group: String,
    /// The grants.
    #[serde(default)]
    pub grants: Vec<OidcGrant>,
}

/// A grant beside those of a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, DeriveSerialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OidcGrant {
    /// Start a meeting.
    Create,
    /// Act on other members.
    Moderate,
    /// Be in a room without being shown to its members.
    Hidden,
    /// Act for a program.
    Agent,
    /// Use the operators' API.
    Admin,
}

/// The login, if there is one: an empty table stands for none.
#[derive(Clone, Debug, Default)]
pub struct OidcSetting(pub Option<OidcConfig>);

const SETTINGS: &str =
    "issuer, client_id, client_secret, client_secret_file, scopes, groups_claim, groups, session";

impl OidcConfig {
    fn read(table: Table) -> Result<Self, String> {
        let [mut issuer, mut client_id, mut secret, mut secret_file] = [const { None }; 4];
        let mut scopes = "openid profile email".to_owned();
        let (mut groups_claim, mut groups) = ("groups".to_owned(), Vec::new());
        let mut session = Duration::from_secs(12 * 60 * 60);
        for (key, value) in table {
            if key == "groups" {
                // No secret is in them, so the error may tell what is wrong.
                groups = value
                    .try_into()
                    .map_err(|error: toml::de::Error| format!("groups: {}", error.message()))?;
                continue;
            }
            let Value::String(text) = value else { return Err(format!("{key}: not a text in quotes")) };
            let filled = Some(text.clone()).filter(|text| !text.is_empty());
            match &*key {
                "issuer" => issuer = filled,
                "client_id" => client_id = filled,
                "client_secret" => secret = filled,
                "client_secret_file" => secret_file = filled,
                "scopes" => scopes = text,
                "groups_claim" => groups_claim = text,
                "session" => {
                    let wrong = || format!("session: not {}; write for example \"12h\"", Duration::NOUN);
                    session = Duration::read(&text).ok_or_else(wrong)?;
                }
                _ => return Err(format!("{key}: no such setting; there are {SETTINGS}")),
            }
        }
        let issuer = issuer.ok_or("it has an issuer, such as \"https://login.example.org\"")?;
        let issuer = HttpUrl::read(&issuer).filter(HttpUrl::is_https_or_loopback);
        let issuer = issuer.ok_or("issuer: not an https URL")?;
        let client_id = client_id.ok_or("it has a client_id, by which the issuer knows this server")?;
        let client_secret = match (secret, secret_file) {
            (None, None) => None,
            (Some(secret), None) => Some(KeySource::Text(secret.into())),
            (None, Some(file)) => Some(KeySource::File(PathBuf::from(file))),
            (Some(_), Some(_)) => return Err("it has client_secret or client_secret_file, not both".into()),
        };
        let config = Self { issuer, client_id, client_secret, scopes, groups_claim, groups, session };
        config.defect().map_or(Ok(config), |defect| Err(defect.to_owned()))
    }

    fn defect(&self) -> Option<&'static str> {
        let is_text =
            |text: &str| (1..=512).contains(&text.len()) && text.chars().all(|char| !char.is_control());
        let secret = match &self.client_secret {
            Some(KeySource::Text(secret)) => Self::secret_defect(secret.expose_secret()),
            _ => None,
        };
        if secret.is_some() {
            return secret;
        }
        let is_good_group = |group: &OidcGroup| is_text(&group.group);
        let defects = [
            (!is_text(&self.client_id), "client_id has 1 to 512 characters"),
            (!self.scopes.split(' ').any(|scope| scope == "openid"), "scopes contain \"openid\""),
            (!is_text(&self.scopes), "scopes have 1 to 512 characters"),
            (!is_text(&self.groups_claim), "groups_claim has 1 to 512 characters"),
            (!self.groups.iter().all(is_good_group), "a group has 1 to 512 characters"),
            (self.groups.len() > MOST_GROUPS, "there are more than 1000 groups"),
            (self.session < Duration::from_secs(60), "session is 1m or more"),
        ];
        defects.into_iter().find(|(is_wrong, _)| *is_wrong).map(|(_, defect)| defect)
    }

    /// The error of a secret; none for a good one.
    pub fn secret_defect(secret: &str) -> Option<&'static str> {
        let is_good =
            (1..=1024).contains(&secret.len()) && secret.bytes().all(|byte| byte.is_ascii_graphic());
        (!is_good).then_some("a client secret has 1 to 1024 visible ASCII characters")
    }

    /// The secret, if there is one.
    ///
    /// # Errors
    /// [`super::KeyFileError`].
    pub fn secret(&self) -> Result<Option<SecretString>, super::KeyFileError> {
        let read = |source: &KeySource| source.read("auth.oidc", Self::secret_defect);
        self.client_secret.as_ref().map(read).transpose()
    }
}

/// No error quotes a value: it may be the secret.
impl<'de> Deserialize<'de> for OidcSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Value::Table(table) = Value::deserialize(deserializer)? else {
            return Err(D::Error::custom("is a table; write [auth.oidc] above its settings"));
        };
        if table.is_empty() {
            return Ok(Self(None));
        }
        OidcConfig::read(table).map(|config| Self(Some(config))).map_err(D::Error::custom)
    }
}

impl Serialize for OidcSetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut table = Table::new();
        if let Some(config) = &self.0 {
            let mut put = |name: &str, text: String| drop(table.insert(name.to_owned(), Value::String(text)));
            put("issuer", config.issuer.as_str().to_owned());
            put("client_id", config.client_id.clone());
            match &config.client_secret {
                None => {}
                Some(KeySource::Text(_)) => put("client_secret", "[secret]".to_owned()),
                Some(KeySource::File(path)) => {
                    put("client_secret_file", path.to_string_lossy().into_owned());
                }
            }
            put("scopes", config.scopes.clone());
            put("groups_claim", config.groups_claim.clone());
            put("session", config.session.write());
            if let Ok(groups) = Value::try_from(&config.groups) {
                table.insert("groups".to_owned(), groups);
            }
        }
        table.serialize(serializer)
    }
}
