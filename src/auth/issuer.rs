//! Issuers of access tokens, which sign with private keys of their own and publish the public ones.

use jsonwebtoken::Validation;
use serde::Deserialize;
use tokio_util::task::AbortOnDropHandle;

use super::access_token::{AccessClaims, TokenDefect};
use super::jwks::{FetchInterval, KeySet};
use crate::config::TokenIssuer;

/// An issuer and its keys.
#[derive(Debug)]
pub(super) struct Issuer {
    /// Its id here.
    pub(super) id: String,
    issuer: String,
    audience: String,
    keys: KeySet,
    _task: AbortOnDropHandle<()>,
}

/// The claim that names the issuer.
#[derive(Deserialize)]
struct IssuerClaim {
    iss: Option<String>,
}

impl Issuer {
    /// Starts the task that owns the issuer's keys, which ends with it.
    ///
    /// # Errors
    /// Returns [`reqwest::Error`] if TLS cannot be set up, such as without any CA certificate.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub(super) fn start(config: &TokenIssuer) -> Result<Self, reqwest::Error> {
        Self::start_at(config, FetchInterval::default())
    }

    fn start_at(config: &TokenIssuer, pace: FetchInterval) -> Result<Self, reqwest::Error> {
        let TokenIssuer { id, issuer, jwks_url, jwks_file, audience } = config.clone();
        let name = format!("issuer {id}").into();
        let (keys, task) = match (&jwks_url.0, jwks_file.0) {
            (Some(url), _) => KeySet::of_url(name, url.as_str(), url.is_loopback(), pace)?,
            // The configuration has one of both.
            (None, file) => KeySet::of_file(name, file.unwrap_or_default(), pace),
        };
        Ok(Self { id, issuer, audience, keys, _task: task })
    }

    /// The issuer that a token names, which is not yet verified.
    pub(super) fn named<'a>(issuers: &'a [Self], token: &[u8]) -> Option<&'a Self> {
        if issuers.is_empty() {
            return None;
        }
        let claim = jsonwebtoken::dangerous::insecure_decode_claims::<IssuerClaim>(token).ok()?;
        let named = claim.iss?;
        issuers.iter().find(|issuer| issuer.issuer == named)
    }

    /// The claims of a token that is signed by the issuer's key of this id. Waits only if the key is unknown.
    ///
    /// # Errors
    /// [`TokenDefect`].
    pub(super) async fn claims(&self, token: &[u8], kid: &str) -> Result<AccessClaims, TokenDefect> {
        let key = self.keys.key(kid).await.ok_or(TokenDefect::UnknownIssuerKey)?;
        // The key determines the algorithm, never the token.
        let mut rules = Validation::new(key.algorithm);
        rules.set_issuer(&[&self.issuer]);
        // Whoever has a login of the issuer may get tokens for other services from it.
        rules.set_audience(&[&self.audience]);
        rules.set_required_spec_claims(&["iss", "aud", "exp", "sub"]);
        // The library would read the clock itself.
        (rules.validate_exp, rules.validate_nbf) = (false, false);
        let claims = jsonwebtoken::decode::<AccessClaims>(token, &key.public, &rules);
        Ok(claims.map_err(|error| TokenDefect::of(&error))?.claims)
    }
}

#[cfg(test)]
mod tests;
