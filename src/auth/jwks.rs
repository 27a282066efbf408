//! Sets of public keys (JWK sets, RFC 7517) that others publish and rotate, at a URL or in a file.
//!
//! A set is fetched on first use, hourly, and when a token names an unknown key. One task fetches; verifiers read the
//! newest keys and may request newer ones from the task.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::now;

/// Timeout of a whole fetch of the keys.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum bytes of a key set.
pub const MAX_KEYS_BYTES: usize = 1024 * 1024;
/// Maximum keys of a set; further ones are ignored.
const MAX_KEYS: usize = 100;
/// Bytes of a key for Ed25519 (RFC 8032 section 5.1.5).
const ED25519_BYTES: usize = 32;

/// A set of keys, cheaply cloned.
#[derive(Clone, Debug)]
pub(super) struct KeySet {
    keys: watch::Receiver<Keys>,
    refresh: mpsc::Sender<Ask>,
}

/// A request for newer keys, answered once the task has fetched them or decided not to.
type Ask = oneshot::Sender<()>;

impl KeySet {
    /// Starts the task that owns the keys at a URL, called `name` in the log; it ends when the second value is dropped
    /// or aborted.
    ///
    /// # Errors
    /// Returns [`reqwest::Error`] if TLS cannot be set up, such as without any CA certificate.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub(super) fn of_url(
        name: Arc<str>,
        url: &str,
        is_loopback: bool,
        pace: FetchInterval,
    ) -> Result<(Self, AbortOnDropHandle<()>), reqwest::Error> {
        let client = client(is_loopback)?;
        let url: Arc<str> = url.into();
        let fetch = move || fetch(client.clone(), url.clone());
        Ok(Self::start(name, fetch, pace))
    }

    /// Starts the task that owns the keys in a file, which is read as often as a URL.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub(super) fn of_file(
        name: Arc<str>,
        path: PathBuf,
        pace: FetchInterval,
    ) -> (Self, AbortOnDropHandle<()>) {
        let path: Arc<Path> = path.into();
        Self::start(name, move || read_file(path.clone()), pace)
    }

    /// Starts the task with a way to fetch the keys.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub(super) fn start<F, R>(name: Arc<str>, fetch: F, pace: FetchInterval) -> (Self, AbortOnDropHandle<()>)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<Keys, FetchError>> + Send + 'static,
    {
        let (newest, keys) = watch::channel(Keys::default());
        let (refresh, asks) = mpsc::channel(64);
        #[expect(clippy::disallowed_methods, reason = "the caller owns the task")]
        let task = tokio::spawn(own_keys(name, fetch, newest, asks, pace));
        (Self { keys, refresh }, AbortOnDropHandle::new(task))
    }

    /// The key of this id. Waits only if it is unknown, until newer keys are fetched or it is too soon for that.
    pub(super) async fn key(&self, kid: &str) -> Option<SigningKey> {
        if let Some(key) = self.known_key(kid) {
            return Some(key);
        }
        let (ask, answer) = oneshot::channel();
        self.refresh.send(ask).await.ok()?;
        answer.await.ok()?;
        self.known_key(kid)
    }

    fn known_key(&self, kid: &str) -> Option<SigningKey> {
        self.keys.borrow().get(kid).cloned()
    }
}

/// Public keys by their `kid`.
pub(super) type Keys = Arc<HashMap<String, SigningKey>>;

/// A public key, with the one algorithm that it verifies.
#[derive(Clone, Debug)]
pub(super) struct SigningKey {
    pub(super) algorithm: Algorithm,
    pub(super) public: DecodingKey,
}

/// Intervals between fetches of the keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct FetchInterval {
    /// After a successful fetch.
    pub(super) refresh: Duration,
    /// After a failed fetch.
    pub(super) retry: Duration,
    /// Minimum time between a fetch and a requested one: any client can cause requests by forging a
    /// `kid`.
    pub(super) at_least: Duration,
}

impl Default for FetchInterval {
    fn default() -> Self {
        let half_a_minute = Duration::from_secs(30);
        Self { refresh: Duration::from_secs(60 * 60), retry: half_a_minute, at_least: half_a_minute }
    }
}

/// Owns the keys until all handles are dropped.
async fn own_keys<F, R>(
    name: Arc<str>,
    fetch: F,
    newest: watch::Sender<Keys>,
    mut asks: mpsc::Receiver<Ask>,
    pace: FetchInterval,
) where
    F: Fn() -> R,
    R: Future<Output = Result<Keys, FetchError>>,
{
    // The first fetch waits for the first request.
    let mut fetched: Option<Instant> = None;
    let mut due: Option<Instant> = None;
    loop {
        let ask = tokio::select! {
            ask = asks.recv() => match ask {
                Some(ask) => Some(ask),
                None => return,
            },
            () = until(due) => None,
        };
        // Requests made during a fetch get its keys and cause no further one.
        let wanted = ask.is_none() || fetched.is_none_or(|at| at.elapsed() >= pace.at_least);
        if wanted {
            fetched = Some(now());
            let pause = match fetch().await {
                Ok(keys) => {
                    tracing::debug!(of = %name, keys = keys.len(), "keys were fetched");
                    newest.send_replace(keys);
                    pace.refresh
                }
                Err(error) => {
                    let error: &(dyn Error + 'static) = &error;
                    tracing::warn!(of = %name, error, "keys cannot be fetched; the old ones stay");
                    pace.retry
                }
            };
            due = Some(now() + pause);
        }
        if let Some(ask) = ask {
            // The receiver may be gone by now.
            let _ = ask.send(());
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Reasons for a failed fetch of the keys.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The request failed.
    #[error("the request failed")]
    Request(#[source] reqwest::Error),
    /// The file cannot be read.
    #[error("the file cannot be read")]
    File(#[source] io::Error),
    /// The answer has another status than 200.
    #[error("the answer's status is {0}")]
    Status(StatusCode),
    /// The answer is too long.
    #[error("the answer is longer than {MAX_KEYS_BYTES} bytes")]
    TooLong,
    /// The answer is no JWK set.
    #[error("the answer is not a JWK set")]
    Malformed(#[source] serde_json::Error),
    /// The set has no usable key.
    #[error("the JWK set has no public key for RS256, ES256 or EdDSA")]
    NoKeys,
}

/// A client of an issuer, which goes to no other place than it is told.
///
/// # Errors
/// Returns [`reqwest::Error`] if TLS cannot be set up.
pub fn client(is_loopback: bool) -> Result<reqwest::Client, reqwest::Error> {
    let client = reqwest::Client::builder()
        .timeout(FETCH_TIMEOUT)
        // A redirect could lead to a third party's keys.
        .redirect(reqwest::redirect::Policy::none());
    // No proxy can reach the local loopback.
    if is_loopback { client.no_proxy() } else { client }.build()
}

async fn fetch(client: reqwest::Client, url: Arc<str>) -> Result<Keys, FetchError> {
    let answer = client.get(&*url).send().await.map_err(FetchError::Request)?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status(answer.status()));
    }
    parse_keys(&read_body(answer).await?)
}

/// Reads a body of at most [`MAX_KEYS_BYTES`].
///
/// # Errors
/// [`FetchError`].
pub async fn read_body(mut answer: reqwest::Response) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(FetchError::Request)? {
        if body.len() + chunk.len() > MAX_KEYS_BYTES {
            return Err(FetchError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

async fn read_file(path: Arc<Path>) -> Result<Keys, FetchError> {
    let read = async {
        let mut body = Vec::new();
        let file = tokio::fs::File::open(path).await?;
        file.take(MAX_KEYS_BYTES as u64 + 1).read_to_end(&mut body).await?;
        Ok(body)
    };
    let body = read.await.map_err(FetchError::File)?;
    if body.len() > MAX_KEYS_BYTES { Err(FetchError::TooLong) } else { parse_keys(&body) }
}

/// Reads a JWK set.
pub(super) fn parse_keys(body: &[u8]) -> Result<Keys, FetchError> {
    #[derive(Deserialize)]
    struct JwkSet {
        keys: Vec<serde_json::Value>,
    }
    let set: JwkSet = serde_json::from_slice(body).map_err(FetchError::Malformed)?;
    // RFC 7517 section 5: unsupported keys are ignored.
    let mut keys = HashMap::new();
    for (kid, key) in set.keys.into_iter().filter_map(usable).take(MAX_KEYS) {
        // Of two keys with one id the first counts, in whatever order tokens come.
        keys.entry(kid).or_insert(key);
    }
    if keys.is_empty() { Err(FetchError::NoKeys) } else { Ok(Arc::new(keys)) }
}

/// Returns a key with its `kid`, if it verifies RS256, ES256 or EdDSA.
fn usable(jwk: serde_json::Value) -> Option<(String, SigningKey)> {
    // A private key that was published: anybody could sign with it.
    if jwk.get("d").is_some() {
        return None;
    }
    let jwk: Jwk = serde_json::from_value(jwk).ok()?;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            let key = URL_SAFE_NO_PAD.decode(&pair.x).ok()?;
            (key.len() == ED25519_BYTES).then_some(Algorithm::EdDSA)?
        }
        // In particular no symmetric key: in a public set it is no secret.
        _ => return None,
    };
    let for_it = jwk.common.key_algorithm.is_none_or(|declared| declared == algorithm.into());
    let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    if !for_it || !signs {
        return None;
    }
    let public = DecodingKey::from_jwk(&jwk).ok()?;
    Some((jwk.common.key_id?, SigningKey { algorithm, public }))
}
