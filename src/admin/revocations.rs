//! Revocation of access tokens by operators: stored first, then in force, then answered.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Operators;
use super::tokens::NO_KEYS;
use crate::auth::access_token::AccessTokens;
use crate::auth::revocation::{Revocation, Revocations};
use crate::clock::wall_clock;
use crate::http::error::ApiError;
use crate::http::json::defect;
use crate::id::{nfc, text_is_valid};
use crate::room::shared_settings::{EngineSilent, SharedSetting, SharedSettings};
use crate::store::revocations::{RevocationsError, StoredRevocation, StoredRevocations};

/// Maximum number of revocations in force.
const MOST: u32 = 10_000;

/// Maximum characters of an identity, as of a token's `sub`.
const MAX_IDENTITY_CHARS: usize = 128;

/// The routes, which require the operator token.
pub(super) fn routes() -> Router<Arc<Operators>> {
    Router::new().route("/admin/tokens/revoke", post(revoke)).route("/admin/tokens/revocations", get(list))
}

/// Puts the stored revocations in force.
///
/// # Errors
/// [`RevocationsError`].
pub async fn load(
    tokens: &AccessTokens,
    stored: &StoredRevocations,
    now: SystemTime,
) -> Result<(), RevocationsError> {
    for revocation in stored.list(oldest(tokens.lifetime(), seconds(now))).await? {
        tokens.revocations().add(read(revocation), 0);
    }
    Ok(())
}

/// The revocations in force.
#[derive(Clone, Debug)]
pub struct InForce {
    revocations: Revocations,
    /// The longest lifetime of a token in seconds.
    lifetime: u64,
}

impl InForce {
    /// Those of these tokens.
    pub fn new(tokens: &AccessTokens) -> Self {
        Self { revocations: tokens.revocations().clone(), lifetime: tokens.lifetime() }
    }
}

/// Takes a revocation that another node made. It is in force even if it cannot be stored.
pub async fn take(
    InForce { revocations, lifetime }: &InForce,
    stored: &StoredRevocations,
    revocation: StoredRevocation,
    now: SystemTime,
) {
    let oldest = oldest(*lifetime, seconds(now));
    revocations.add(read(revocation.clone()), u64::try_from(oldest).unwrap_or_default());
    if stored.add(&revocation, oldest, MOST).await.is_err() {
        let StoredRevocation { identity, key, .. } = revocation;
        tracing::warn!(event = "revocationNotStored", identity, key);
    }
}

/// The stored revocations in force; none if they cannot be read.
pub async fn in_force(
    InForce { lifetime, .. }: &InForce,
    stored: &StoredRevocations,
    now: SystemTime,
) -> Vec<StoredRevocation> {
    stored.list(oldest(*lifetime, seconds(now))).await.unwrap_or_default()
}

/// Revokes at all nodes.
///
/// # Errors
/// [`EngineSilent`].
async fn revoke_everywhere(
    settings: &dyn SharedSettings,
    revocation: &Revocation,
) -> Result<(), EngineSilent> {
    let StoredRevocation { identity, key, at } = write(revocation);
    let setting = SharedSetting::Revoked { identity, key, at };
    let key = setting.key();
    settings.update(key, Box::new(move |stored| setting.clone().replacing(stored))).await.map(drop)
}

/// The tokens to revoke.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeRequest {
    /// Those of this identity.
    #[serde(default)]
    identity: Option<String>,
    /// Those of this key.
    #[serde(default)]
    key: Option<String>,
}

/// All revocations in force, newest first.
#[derive(Serialize)]
struct RevocationList {
    /// The revocations.
    revocations: Vec<RevocationView>,
}

/// A revocation.
#[derive(Serialize)]
struct RevocationView {
    /// Tokens that were issued until then are revoked.
    at: String,
    /// The identity; null for all.
    identity: Option<String>,
    /// The key; null for all.
    key: Option<String>,
    /// The end of the revocation: no token that it concerns is valid any more.
    until: String,
}

impl RevocationView {
    fn new(tokens: &AccessTokens, revocation: Revocation) -> Self {
        let time = |seconds| {
            let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH);
            humantime::format_rfc3339_seconds(time).to_string()
        };
        let until = time(revocation.until(tokens.lifetime()));
        let Revocation { identity, key, at } = revocation;
        Self { at: time(at), identity, key, until }
    }
}

impl RevokeRequest {
    /// The revocation of the tokens that were issued until this second.
    fn revocation(self, tokens: &AccessTokens, at: u64) -> Result<Revocation, String> {
        let Self { identity, key } = self;
        if identity.is_none() && key.is_none() {
            return Err("\"identity\", \"key\" or both say whose tokens to revoke".to_owned());
        }
        if identity.as_ref().is_some_and(|identity| !text_is_valid(identity, MAX_IDENTITY_CHARS)) {
            let rule = format!("has 1 to {MAX_IDENTITY_CHARS} characters and no control or invisible ones");
            return Err(format!("\"identity\" is the \"sub\" of tokens: it {rule}"));
        }
        if key.as_ref().is_some_and(|key| !tokens.has_key(key)) {
            return Err("\"key\" is not the id of a key of auth.keys, of an issuer of auth.issuers, or \"login\" with auth.oidc".to_owned());
        }
        Ok(Revocation { identity: identity.map(|identity| nfc(&identity).into_owned()), key, at })
    }
}

/// `POST /admin/tokens/revoke`: revokes the tokens of an identity, of a key, or of both, that were issued until now.
async fn revoke(State(operators): State<Arc<Operators>>, body: String) -> Result<Response, ApiError> {
    let tokens = operators.http.identities.access_tokens().ok_or(NO_KEYS)?;
    let refused = |status: StatusCode, error: String| (status, Json(json!({"error": error}))).into_response();
    let now = wall_clock();
    let request = serde_json::from_str::<RevokeRequest>(&body);
    let request = request.map_err(|error| format!("the body is no revocation: {}", defect(&error)));
    let revocation = match request.and_then(|request| request.revocation(tokens, seconds(now))) {
        Ok(revocation) => revocation,
        Err(error) => return Ok(refused(StatusCode::BAD_REQUEST, error)),
    };
    let oldest = oldest(tokens.lifetime(), seconds(now));
    let in_force = || {
        tokens.revocations().add(revocation.clone(), u64::try_from(oldest).unwrap_or_default());
    };
    match operators.revocations.add(&write(&revocation), oldest, MOST).await {
        Ok(true) => in_force(),
        Ok(false) => {
            let error = format!("there are {MOST} revocations; revoke a whole key, or replace it");
            return Ok(refused(StatusCode::CONFLICT, error));
        }
        Err(_) => {
            // A full disk is no reason to let a stolen token work on.
            in_force();
            tracing::warn!(
                event = "revocationNotStored",
                identity = revocation.identity,
                key = revocation.key
            );
            let error = "the tokens are revoked until the server restarts: the store is failing".to_owned();
            return Ok(refused(StatusCode::SERVICE_UNAVAILABLE, error));
        }
    }
    if let Some(settings) = &operators.shared_settings
        && let Err(silent) = revoke_everywhere(&**settings, &revocation).await
    {
        let error = format!("the tokens are revoked at this node, and not at the others: {silent}");
        return Ok(refused(StatusCode::SERVICE_UNAVAILABLE, error));
    }
    tracing::info!(event = "tokensRevoked", identity = revocation.identity, key = revocation.key);
    // Times of issue are whole seconds: a token of the rest of this one would be revoked as well.
    tokio::time::sleep(rest_of_second(now)).await;
    Ok(Json(RevocationView::new(tokens, revocation)).into_response())
}

/// `GET /admin/tokens/revocations`: the revocations in force.
async fn list(State(operators): State<Arc<Operators>>) -> Result<Json<RevocationList>, ApiError> {
    let tokens = operators.http.identities.access_tokens().ok_or(NO_KEYS)?;
    let stored = operators.revocations.list(oldest(tokens.lifetime(), seconds(wall_clock()))).await;
    let stored = stored.map_err(|_| ApiError::StoreFailing)?.into_iter();
    let revocations = stored.map(|stored| RevocationView::new(tokens, read(stored))).collect();
    Ok(Json(RevocationList { revocations }))
}

/// The first second of a revocation that still concerns a token.
fn oldest(lifetime: u64, now: u64) -> i64 {
    let over = Revocation { identity: None, key: None, at: 0 }.until(lifetime);
    i64::try_from(now.saturating_sub(over)).unwrap_or(i64::MAX)
}

fn write(Revocation { identity, key, at }: &Revocation) -> StoredRevocation {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    StoredRevocation { identity: text(identity), key: text(key), at: i64::try_from(*at).unwrap_or(i64::MAX) }
}

fn read(StoredRevocation { identity, key, at }: StoredRevocation) -> Revocation {
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    Revocation { identity: given(identity), key: given(key), at: u64::try_from(at).unwrap_or_default() }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn rest_of_second(time: SystemTime) -> Duration {
    let past = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    Duration::from_secs(1) - Duration::from_nanos(past.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_of_a_second_reaches_the_next() {
        for (nanos, rest) in [(0, 1_000_000_000), (1, 999_999_999), (999_999_999, 1)] {
            let time = UNIX_EPOCH + Duration::new(1_780_000_000, nanos);
            assert_eq!(rest_of_second(time), Duration::from_nanos(rest));
        }
    }

    #[test]
    fn stored_revocation_reads_as_it_was() {
        for (identity, key) in [(Some("ada"), None), (None, Some("app")), (Some("ada"), Some("app"))] {
            let revocation =
                Revocation { identity: identity.map(str::to_owned), key: key.map(str::to_owned), at: 7 };
            assert_eq!(read(write(&revocation)), revocation);
        }
    }
}
