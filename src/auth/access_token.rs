//! Access tokens: signed statements of another program about who may enter which rooms, and what they may do there.
//!
//! They are JWTs (RFC 7519) with HS256 and one of the configured keys, or of a configured issuer with a public key; the
//! header names the key. The key determines the algorithm, never the token.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL};
use axum::http::{HeaderMap, HeaderValue};
use cookie::SameSite;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::issuer::Issuer;
use super::lease::{LEEWAY, TokenLease};
use super::peer::RemotePeer;
use super::revocation::Revocations;
use super::set_cookie::set_cookie;
use super::token::seconds;
use super::{AuthMethod, Identity};
use crate::config::{AuthConfig, KeyFileError, LOGIN_KEY, TokenKey};
use crate::id::{Grants, MAX_NAME_CHARS, MediaKind, PublishGrants, RoomScope, nfc, text_is_valid, visible};

/// The audience of a token that names one.
const AUDIENCE: &str = "satsuma";

/// Name of the cookie that holds the token of a link.
const COOKIE_NAME: &str = "satsuma_token";

/// The subprotocol of sockets whose client sends its token as another one: browsers let pages set no header.
pub const SUBPROTOCOL: &str = "satsuma";

/// Prefix of the subprotocol that is a token.
const TOKEN_PREFIX: &str = "satsuma.token.";

/// Maximum characters of the subject and of the name.
const MAX_SUBJECT_CHARS: usize = 128;

/// The claims of a token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccessClaims {
    /// The identity, unique for the key.
    pub sub: String,
    /// The name that others see; the identity, if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The room's name, or the beginning of names and `*`.
    pub room: String,
    /// The rights.
    #[serde(default)]
    pub grants: TokenGrants,
    /// Time of issue, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// Time before which the token is not valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Time of expiry.
    pub exp: u64,
}

/// The rights that a token names. Without one of them it means a participant, who may join, publish, subscribe and
/// chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenGrants {
    /// Join rooms.
    pub join: bool,
    /// Start a meeting.
    pub create: bool,
    /// Act on other members.
    pub moderate: bool,
    /// Publish media: all kinds, none, or those of a list.
    pub publish: TokenPublish,
    /// Receive the media of others.
    pub subscribe: bool,
    /// Write to the chat.
    pub chat: bool,
    /// Be in a room without being shown to its members.
    pub hidden: bool,
    /// Act for a program.
    pub agent: bool,
    /// Use the operators' API.
    pub admin: bool,
}

/// The kinds of media that a token lets publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenPublish {
    /// All kinds, or none.
    All(bool),
    /// These kinds.
    Kinds(Vec<MediaKind>),
}

impl Default for TokenGrants {
    fn default() -> Self {
        Self {
            join: true,
            create: false,
            moderate: false,
            publish: TokenPublish::All(true),
            subscribe: true,
            chat: true,
            hidden: false,
            agent: false,
            admin: false,
        }
    }
}

impl TokenGrants {
    /// The rights.
    pub fn grants(&self) -> Grants {
        let Self { join, create, moderate, ref publish, subscribe, chat, hidden, agent, admin } = *self;
        let publishes = |kind| match publish {
            TokenPublish::All(all) => *all,
            TokenPublish::Kinds(kinds) => kinds.contains(&kind),
        };
        let publish = PublishGrants {
            audio: publishes(MediaKind::Audio),
            video: publishes(MediaKind::Video),
            screen: publishes(MediaKind::Screen),
        };
        Grants { join, create, moderate, publish, subscribe, chat, hidden, agent, admin }
    }
}

/// Reason for refusing a token; for the log, and for whoever makes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenDefect {
    /// It is not a JWT, or asks for an extension.
    #[error("it is not a JWT with the header fields alg, typ and kid alone")]
    Malformed,
    /// Its `kid` is not the id of a key.
    #[error("\"kid\" is not the id of a key of auth.keys")]
    UnknownKey,
    /// The signature is wrong: the token is forged, or signed by another key of the same id.
    #[error("the signature is not of that key")]
    Signature,
    /// The algorithm or the audience is wrong, or a claim is missing or of a wrong type.
    #[error("\"alg\" is not that key's, \"aud\" names others, or a claim is missing or of a wrong type")]
    Invalid,
    /// Its network has guessed signatures too often; it was not verified.
    #[error("too many forged tokens came from its network")]
    TooManyGuesses,
    /// The issuer has no such key, or its keys cannot be fetched.
    #[error("\"kid\" is not the id of a key of its issuer")]
    UnknownIssuerKey,
    /// There is no key to sign with.
    #[error("there is no key in auth.keys, and the issuers of auth.issuers make their tokens themselves")]
    NoSigner,
    /// It is expired, or not yet valid.
    #[error("it is expired, or not yet valid")]
    WrongTime,
    /// It is valid for longer than tokens may be.
    #[error("\"exp\" is more than {} after its issue (auth.token_lifetime)", humantime::format_duration(*.0))]
    TooLong(Duration),
    /// Its subject is empty, too long, or has invisible characters.
    #[error("\"sub\" has 1 to 128 characters and no control or invisible ones")]
    Subject,
    /// Its name is empty, too long, or has invisible characters.
    #[error("\"name\" has 1 to 64 characters and no control or invisible ones")]
    Name,
    /// Its room is neither a name nor the beginning of names.
    #[error("\"room\" is a room's name, or the beginning of names and *")]
    Room,
    /// It was revoked.
    #[error("it was revoked")]
    Revoked,
}

impl TokenDefect {
    /// The defect that the library found.
    pub(super) fn of(error: &jsonwebtoken::errors::Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidSignature => Self::Signature,
            _ => Self::Invalid,
        }
    }
}

/// The keys of access tokens.
pub struct AccessTokens {
    keys: HashMap<String, (EncodingKey, DecodingKey)>,
    /// The id of the first key, which signs.
    signer: Option<String>,
    issuers: Vec<Issuer>,
    lifetime: Duration,
    revocations: Revocations,
}

impl std::fmt::Debug for AccessTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessTokens").field("keys", &self.keys.keys()).finish_non_exhaustive()
    }
}

impl AccessTokens {
    /// The configured keys; none if there are neither keys nor issuers.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn open(config: &AuthConfig) -> Result<Option<Self>, KeyFileError> {
        let tokens = Self::read(config)?;
        Ok((tokens.signer.is_some() || !config.issuers.is_empty()).then_some(tokens))
    }

    fn read(config: &AuthConfig) -> Result<Self, KeyFileError> {
        let mut keys = HashMap::new();
        for key in &config.keys {
            let secret = key.secret.read("auth.keys", TokenKey::secret_defect)?;
            let secret = secret.expose_secret().as_bytes();
            let pair = (EncodingKey::from_secret(secret), DecodingKey::from_secret(secret));
            keys.insert(key.id.clone(), pair);
        }
        let signer = config.keys.first().map(|key| key.id.clone());
        let (lifetime, revocations) = (config.token_lifetime, Revocations::default());
        Ok(Self { keys, signer, issuers: Vec::new(), lifetime, revocations })
    }

    /// The configured keys, and one for those who log in here, whose secret is this.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn with_login(config: &AuthConfig, secret: &str) -> Result<Self, KeyFileError> {
        let mut tokens = Self::read(config)?;
        let secret = secret.as_bytes();
        let pair = (EncodingKey::from_secret(secret), DecodingKey::from_secret(secret));
        tokens.keys.insert(LOGIN_KEY.to_owned(), pair);
        Ok(tokens)
    }

    /// Starts the tasks that own the keys of the configured issuers, which end with this.
    ///
    /// # Errors
    /// Returns [`reqwest::Error`] if TLS cannot be set up, such as without any CA certificate.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn with_issuers(self, config: &AuthConfig) -> Result<Self, reqwest::Error> {
        let issuers = config.issuers.iter().map(Issuer::start).collect::<Result<_, _>>()?;
        Ok(Self { issuers, ..self })
    }

    #[cfg(test)]
    pub(super) fn with_issuer(self, issuer: Issuer) -> Self {
        Self { issuers: vec![issuer], ..self }
    }

    /// The revocations.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Maximum lifetime of a token, in seconds.
    pub fn lifetime(&self) -> u64 {
        self.lifetime.as_secs()
    }

    /// True if there is a key, or an issuer, of this id.
    pub fn has_key(&self, id: &str) -> bool {
        self.keys.contains_key(id) || self.issuers.iter().any(|issuer| issuer.id == id)
    }

    /// Signs a token with the first key.
    ///
    /// # Errors
    /// The defect with which it would be refused.
    pub fn sign(&self, claims: &AccessClaims, now: SystemTime) -> Result<String, TokenDefect> {
        self.sign_by(self.signer.as_ref().ok_or(TokenDefect::NoSigner)?, claims, now)
    }

    /// Signs the token of somebody who logged in.
    ///
    /// # Errors
    /// The defect with which it would be refused.
    pub fn sign_login(&self, claims: &AccessClaims, now: SystemTime) -> Result<String, TokenDefect> {
        self.sign_by(LOGIN_KEY, claims, now)
    }

    fn sign_by(&self, signer: &str, claims: &AccessClaims, now: SystemTime) -> Result<String, TokenDefect> {
        let (key, _) = self.keys.get(signer).ok_or(TokenDefect::UnknownKey)?;
        self.identity(signer, claims.clone(), now)?;
        let header = Header { kid: Some(signer.to_owned()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, claims, key).map_err(|_| TokenDefect::Invalid)
    }

    /// Verifies a token; returns whom it is about.
    ///
    /// Compares signatures in constant time. Waits only for keys of issuers.
    ///
    /// # Errors
    /// [`TokenDefect`].
    pub async fn verify(&self, token: &[u8], now: SystemTime) -> Result<Identity, TokenDefect> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenDefect::Malformed)?;
        // RFC 7515 section 4.1.11: critical extensions, none of which is supported.
        if header.crit.is_some() {
            return Err(TokenDefect::Malformed);
        }
        let kid = header.kid.ok_or(TokenDefect::UnknownKey)?;
        match Issuer::named(&self.issuers, token) {
            Some(issuer) => self.identity(&issuer.id, issuer.claims(token, &kid).await?, now),
            None => self.identity(&kid, self.claims(token, &kid)?, now),
        }
    }

    /// The claims of a token that is signed by the key of this id.
    fn claims(&self, token: &[u8], id: &str) -> Result<AccessClaims, TokenDefect> {
        let (_, key) = self.keys.get(id).ok_or(TokenDefect::UnknownKey)?;
        let mut rules = Validation::new(Algorithm::HS256);
        // A token for somebody else is not for us (RFC 7519 section 4.1.3).
        rules.set_audience(&[AUDIENCE]);
        rules.set_required_spec_claims(&["exp", "sub"]);
        // The library would read the clock itself.
        (rules.validate_exp, rules.validate_nbf) = (false, false);
        let claims = jsonwebtoken::decode::<AccessClaims>(token, key, &rules);
        Ok(claims.map_err(|error| TokenDefect::of(&error))?.claims)
    }

    /// The identity of claims that are signed by the key, or by the issuer, of this id.
    fn identity(&self, key: &str, claims: AccessClaims, now: SystemTime) -> Result<Identity, TokenDefect> {
        let AccessClaims { sub, name, room, grants, iat, nbf, exp } = claims;
        let now = seconds(now);
        if exp.saturating_add(LEEWAY) <= now || nbf.is_some_and(|nbf| nbf > now.saturating_add(LEEWAY)) {
            return Err(TokenDefect::WrongTime);
        }
        // A time of issue in the future would allow any expiry.
        let from = iat.unwrap_or(now).min(now);
        if exp.saturating_sub(from) > self.lifetime.as_secs().saturating_add(LEEWAY) {
            return Err(TokenDefect::TooLong(self.lifetime));
        }
        if !text_is_valid(&sub, MAX_SUBJECT_CHARS) {
            return Err(TokenDefect::Subject);
        }
        let name = name.unwrap_or_else(|| sub.chars().take(MAX_NAME_CHARS).collect());
        let name = visible(&name);
        if !text_is_valid(name.trim(), MAX_NAME_CHARS) {
            return Err(TokenDefect::Name);
        }
        let scope = RoomScope::parse(&room).map_err(|_| TokenDefect::Room)?;
        let subject = nfc(&sub).into_owned();
        let identity = Identity::new(AuthMethod::Token, &format!("{key}:{subject}"), name.trim());
        // A time of issue that has not come, of a clock that is ahead or in milliseconds, would outlast a revocation.
        let issued = iat.filter(|iat| *iat <= now);
        let lease = TokenLease { key: key.to_owned(), subject, issued, expiry: exp };
        if self.revocations.concern(&lease) {
            return Err(TokenDefect::Revoked);
        }
        Ok(Identity { grants: grants.grants(), scope, lease: Some(Arc::new(lease)), ..identity })
    }

    /// The token of a request that presents one beside its cookies: as a bearer token (RFC 6750 section 2.1), or as
    /// a subprotocol of a socket. Of several none counts.
    pub(super) fn presented(headers: &HeaderMap) -> Option<&[u8]> {
        let bearer = headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|line| line.to_str().ok());
        let offered = offered.flat_map(|line| line.split(','));
        let offered = offered.filter_map(|offer| offer.trim().strip_prefix(TOKEN_PREFIX));
        let mut tokens = bearer.chain(offered);
        let first = tokens.next()?;
        Some(if tokens.next().is_some() { b"" } else { first.as_bytes() })
    }

    /// The values of the cookies that hold the token of a link.
    pub(super) fn in_cookies(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
        let lines =
            headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
        lines.filter_map(|pair| pair.trim_ascii().strip_prefix(COOKIE_NAME.as_bytes())?.strip_prefix(b"="))
    }

    /// The `Set-Cookie` value that keeps the token of a link until its expiry; one without a token removes it.
    pub fn set_cookie(token: &str, expiry: u64, peer: &RemotePeer, now: SystemTime) -> HeaderValue {
        let lifetime = Duration::from_secs(expiry.saturating_sub(seconds(now)));
        // With `Strict`, those who follow a link on another site would be sent on without it.
        set_cookie(COOKIE_NAME, token, peer.base_path.to_string(), SameSite::Lax, lifetime, peer.scheme)
    }
}

#[cfg(test)]
mod tests;
