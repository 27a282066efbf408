//! ID tokens (OpenID Connect Core 1.0, section 2): what a login states about a user who has just signed in.

use std::time::SystemTime;

use jsonwebtoken::Validation;
use serde::Deserialize;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;
use tokio_util::task::AbortOnDropHandle;

use super::jwks::{FetchInterval, KeySet};
use super::lease::LEEWAY;
use super::token::seconds;
use crate::config::HttpUrl;

/// The verifier of an issuer's ID tokens for this server.
#[derive(Debug)]
pub struct IdTokens {
    issuer: String,
    client_id: String,
    keys: KeySet,
    _task: AbortOnDropHandle<()>,
}

/// The claims of a verified token.
#[derive(Clone, Debug, Deserialize)]
pub struct IdClaims {
    /// The user, unique at the issuer.
    pub sub: String,
    /// The user's name.
    pub name: Option<String>,
    /// The name by which the user signs in.
    pub preferred_username: Option<String>,
    /// The e-mail address.
    pub email: Option<String>,
    exp: u64,
    nonce: String,
    azp: Option<String>,
    aud: Value,
    /// All other claims.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// Reason for refusing an ID token; for the log alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenDefect {
    /// It is not a JWT, or asks for an extension.
    #[error("the ID token is not a signed JWT")]
    Malformed,
    /// The issuer has no such key, or its keys cannot be fetched.
    #[error("the ID token's key is not one of the issuer's")]
    UnknownKey,
    /// The signature, issuer or audience is wrong, or a claim is missing or of a wrong type.
    #[error("the ID token's signature, issuer, audience or claims are wrong")]
    Invalid,
    /// It is for another client of the issuer.
    #[error("the ID token is for another client")]
    OtherClient,
    /// It is expired.
    #[error("the ID token is expired")]
    Expired,
    /// It is of another login.
    #[error("the ID token has another nonce")]
    OtherNonce,
}

impl IdTokens {
    /// Starts the task that owns the issuer's keys, which ends with this.
    ///
    /// # Errors
    /// Returns [`reqwest::Error`] if TLS cannot be set up, such as without any CA certificate.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn start(issuer: &str, client_id: &str, keys: &HttpUrl) -> Result<Self, reqwest::Error> {
        let pace = FetchInterval::default();
        let (keys, task) = KeySet::of_url("the login".into(), keys.as_str(), keys.is_loopback(), pace)?;
        Ok(Self { issuer: issuer.to_owned(), client_id: client_id.to_owned(), keys, _task: task })
    }

    /// Verifies a token of the login with this nonce.
    ///
    /// # Errors
    /// [`IdTokenDefect`].
    pub async fn verify(&self, token: &str, nonce: &str, now: SystemTime) -> Result<IdClaims, IdTokenDefect> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| IdTokenDefect::Malformed)?;
        // RFC 7515 section 4.1.11: critical extensions, none of which is supported.
        if header.crit.is_some() {
            return Err(IdTokenDefect::Malformed);
        }
        let kid = header.kid.ok_or(IdTokenDefect::UnknownKey)?;
        let key = self.keys.key(&kid).await.ok_or(IdTokenDefect::UnknownKey)?;
        // The key determines the algorithm, never the token.
        let mut rules = Validation::new(key.algorithm);
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(&[&self.client_id]);
        rules.set_required_spec_claims(&["iss", "aud", "exp", "sub"]);
        // The library would read the clock itself.
        (rules.validate_exp, rules.validate_nbf) = (false, false);
        let claims = jsonwebtoken::decode::<IdClaims>(token, &key.public, &rules);
        let claims = claims.map_err(|_| IdTokenDefect::Invalid)?.claims;
        // OpenID Connect Core, section 3.1.3.7, steps 4 and 5.
        let is_for_several = claims.aud.as_array().is_some_and(|all| all.len() > 1);
        if claims.azp.as_ref().map_or(is_for_several, |azp| *azp != self.client_id) {
            return Err(IdTokenDefect::OtherClient);
        }
        if claims.exp.saturating_add(LEEWAY) <= seconds(now) {
            return Err(IdTokenDefect::Expired);
        }
        if !bool::from(claims.nonce.as_bytes().ct_eq(nonce.as_bytes())) {
            return Err(IdTokenDefect::OtherNonce);
        }
        Ok(claims)
    }
}
