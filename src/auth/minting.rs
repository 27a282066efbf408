//! Making access tokens, for operators: what is asked for, and the token with its link.

use std::time::{Duration, SystemTime};

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::access_token::{AccessClaims, AccessTokens, TokenDefect, TokenGrants};
use super::token::seconds;

/// Lifetime of a token for which none is asked.
const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// A request for a token.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The room's name, or the beginning of names and `*`.
    pub room: String,
    /// The name that others see.
    pub name: String,
    /// The identity; a random one, if there is none.
    #[serde(default)]
    pub identity: Option<String>,
    /// The rights.
    #[serde(default)]
    pub grants: TokenGrants,
    /// Lifetime of the token; an hour, if there is none.
    #[serde(default, deserialize_with = "duration")]
    pub valid: Option<Duration>,
}

/// A token, and the address that opens its room with it.
#[derive(Clone, Debug, Serialize)]
pub struct MintedToken {
    /// Time of expiry (RFC 3339).
    pub expires: String,
    /// Address of the room's page; null for a token of several rooms.
    pub link: Option<String>,
    /// The token.
    pub token: String,
}

/// Reads a duration such as `30m`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let duration = humantime::parse_duration(&text);
    duration.map(Some).map_err(|_| D::Error::custom("\"valid\" is a duration such as \"30m\" or \"1day\""))
}

impl TokenRequest {
    /// Signs the token; `base` is the address of the server, without a slash at its end.
    ///
    /// # Errors
    /// [`TokenDefect`].
    pub fn mint(
        self,
        tokens: &AccessTokens,
        base: &str,
        now: SystemTime,
    ) -> Result<MintedToken, TokenDefect> {
        let iat = seconds(now);
        let exp = iat.saturating_add(self.valid.unwrap_or(LIFETIME).as_secs());
        let claims = AccessClaims {
            sub: self.identity.unwrap_or_else(|| Uuid::new_v4().to_string()),
            name: Some(self.name),
            room: self.room.clone(),
            grants: self.grants,
            iat: Some(iat),
            nbf: None,
            exp,
        };
        let token = tokens.sign(&claims, now)?;
        let page = |room: &str| {
            let room: String = url::form_urlencoded::byte_serialize(room.as_bytes()).collect();
            // A plus stands for a space in a query, and for itself in a path.
            format!("{base}/{}?token={token}", room.replace('+', "%20"))
        };
        let link = (!self.room.ends_with('*')).then(|| page(&self.room));
        let expires = humantime::format_rfc3339_seconds(now + Duration::from_secs(exp - iat)).to_string();
        Ok(MintedToken { expires, link, token })
    }
}
