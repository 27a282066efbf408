//! Issuers of access tokens, which sign with private keys of their own and publish the public ones.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::auth::{AuthConfig, TokenKey};
use super::oidc::LOGIN_KEY;
use super::value::{HttpUrl, Optional};

/// Maximum number of issuers: each has a task, and a set of keys in memory.
const MOST: usize = 16;

/// Maximum bytes of an issuer and of an audience.
const MAX_BYTES: usize = 512;

/// A program or login that issues access tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenIssuer {
    /// Its id here, in identities and for revocation.
    pub id: String,
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The URL of its public keys.
    #[serde(default)]
    pub jwks_url: Optional<HttpUrl>,
    /// A file with its public keys.
    #[serde(default)]
    pub jwks_file: Optional<PathBuf>,
    /// The audience that its tokens name.
    #[serde(default = "default_audience")]
    pub audience: String,
}

fn default_audience() -> String {
    "satsuma".to_owned()
}

impl TokenIssuer {
    fn defect(&self) -> Option<&'static str> {
        let is_text = |text: &str| {
            (1..=MAX_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if let Some(defect) = TokenKey::id_defect(&self.id) {
            return Some(defect);
        }
        if !is_text(&self.issuer) || !is_text(&self.audience) {
            return Some("an issuer and an audience have 1 to 512 visible ASCII characters");
        }
        match (&self.jwks_url.0, &self.jwks_file.0) {
            (Some(url), None) if url.is_https_or_loopback() => None,
            (Some(_), None) => Some("jwks_url is an https URL: keys that arrive unprotected protect nothing"),
            (None, Some(_)) => None,
            _ => Some("each of them has either jwks_url or jwks_file"),
        }
    }
}

impl AuthConfig {
    /// The first error of the issuers; none of them shares its id with a key, since an identity could be of either.
    pub(super) fn issuer_defect(&self) -> Option<&'static str> {
        let defect = self.issuers.iter().find_map(TokenIssuer::defect);
        let is_twice = self.issuers.iter().enumerate().any(|(at, issuer)| {
            let earlier = &self.issuers[..at];
            earlier.iter().any(|other| other.id == issuer.id || other.issuer == issuer.issuer)
                || self.keys.iter().any(|key| key.id == issuer.id)
        });
        defect
            .or(is_twice
                .then_some("two of them have one id or issuer, or one has the id of a key of auth.keys"))
            .or((self.issuers.len() > MOST).then_some("there are more than 16"))
    }

    /// The first error of the login beside its own settings; `is_public` tells that the public URL is set.
    pub(super) fn oidc_defect(&self, is_public: bool) -> Option<&'static str> {
        let oidc = self.oidc.0.as_ref()?;
        let ids = self.keys.iter().map(|key| &key.id).chain(self.issuers.iter().map(|issuer| &issuer.id));
        if !is_public {
            return Some("needs http.public_url, to which the issuer sends users back");
        }
        if oidc.session > self.token_lifetime {
            return Some("has a session longer than auth.token_lifetime");
        }
        ids.into_iter()
            .any(|id| id == LOGIN_KEY)
            .then_some("needs the id \"login\", which a key of auth.keys or an issuer of auth.issuers has")
    }

    /// True if some tokens can be valid.
    pub(super) fn takes_tokens(&self) -> bool {
        !self.keys.is_empty() || !self.issuers.is_empty() || self.oidc.0.is_some()
    }
}
