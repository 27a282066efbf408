//! Signing in with an account of an OpenID Connect issuer: the authorization code flow with PKCE (OpenID Connect
//! Core 1.0 section 3.1, RFC 7636).
//!
//! A login is bound to the browser that began it by a cookie with its secrets. What it leads to is an access token of
//! this server in the cookie of links, so that everything about tokens holds: grants, expiry, revocation.

mod attempt;
mod grants;
mod provider;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use moka::future::Cache;
use tracing::{debug, warn};
use url::form_urlencoded;

use self::attempt::Attempt;
use self::grants::token_claims;
use self::provider::Provider;
use crate::auth::access_token::AccessTokens;
use crate::auth::peer::RemotePeer;
use crate::clock::wall_clock;
use crate::config::{Config, KeyFileError};
use crate::http::context::HttpContext;
use crate::http::error::{ApiError, Refusal};
use crate::http::redirect::redirect;
use crate::limit::{KeyedLimit, Rate};
use crate::network::ClientNetwork;
use crate::site::forms::return_path;

/// The path to which the issuer sends users back, below the public address.
const CALLBACK: &str = "/api/login/callback";

/// Maximum characters of the path that a login leads back to, which is kept in a cookie.
const MAX_BACK_CHARS: usize = 1024;

/// Maximum characters of a code, a state and an issuer in the issuer's redirect.
const MAX_PARAMETER_CHARS: usize = 4096;

/// Number of logins whose end is remembered, so that none ends twice.
const REMEMBERED: u64 = 100_000;

/// Time for which it is, which is that of a whole login.
const REMEMBERED_FOR: Duration = Duration::from_secs(11 * 60);

const NOT_BEGUN: ApiError = ApiError::refused(
    StatusCode::BAD_REQUEST,
    "login_not_begun",
    "this sign-in was not begun in this browser, is over already, or took longer than ten minutes; begin again",
);
const DENIED: ApiError = ApiError::refused(
    StatusCode::FORBIDDEN,
    "login_denied",
    "the login that this server relies on did not let you in",
);
const NO_GROUP: ApiError = ApiError::refused(
    StatusCode::FORBIDDEN,
    "login_without_group",
    "your account is in no group that may use this server",
);
const FAILED: ApiError = ApiError::refused(
    StatusCode::BAD_GATEWAY,
    "login_failed",
    "the login that this server relies on does not work at the moment; try again later",
);
const TOO_MANY: ApiError = ApiError::Refused(Refusal {
    status: StatusCode::TOO_MANY_REQUESTS,
    label: "too_many_logins",
    message: "too many sign-ins from your network; try again in a minute",
    network_limit: Some("limits.logins_per_minute_per_network"),
});

/// The login of a server that has one.
pub struct Login {
    http: Arc<HttpContext>,
    provider: Provider,
    rate: KeyedLimit<ClientNetwork>,
    /// The states of logins that have ended.
    ended: Cache<String, ()>,
}

/// A failure to open the login.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The file of the client's secret is unusable.
    #[error(transparent)]
    Secret(#[from] KeyFileError),
    /// The HTTP client cannot be created.
    #[error("the HTTP client cannot be made: {0}")]
    HttpClient(#[from] reqwest::Error),
}

/// The issuer of a login, before the server runs.
pub struct OpenedLogin(Provider);

impl OpenedLogin {
    /// Reads the secret, and creates the client of the issuer; none if no login is configured.
    ///
    /// # Errors
    /// [`LoginError`].
    pub fn open(config: &Config) -> Result<Option<Self>, LoginError> {
        let Some(oidc) = &config.auth.oidc.0 else { return Ok(None) };
        let callback = format!("{}{CALLBACK}", config.public_address());
        Ok(Some(Self(Provider::new(oidc.clone(), oidc.secret()?, callback)?)))
    }

    /// The login.
    pub fn start(self, http: Arc<HttpContext>, rate: Rate) -> Login {
        let ended = Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build();
        Login { http, provider: self.0, rate: KeyedLimit::rate(rate), ended }
    }
}

/// Returns the routes.
pub fn router<S: Clone + Send + Sync + 'static>(login: Arc<Login>) -> Router<S> {
    Router::new().route("/api/login", get(begin)).route("/api/login/callback", get(finish)).with_state(login)
}

/// `GET /api/login?return-url=…`: leads the browser to the issuer.
async fn begin(State(login): State<Arc<Login>>, peer: RemotePeer, uri: Uri) -> Result<Response, ApiError> {
    login.charge(&peer)?;
    let http = &login.http;
    let return_url = parameter(&uri, "return-url").unwrap_or_default();
    let back = return_path(&return_url, &http.base_path, |origin| http.origins.leads_here(origin, &peer));
    let back = if back.len() <= MAX_BACK_CHARS { back } else { "/".to_owned() };
    let discovered = login.provider.discover().await.map_err(|error| login.failed(&*error))?;
    let attempt = Attempt::random(back).map_err(|_| ApiError::Internal)?;
    let url = login.provider.authorization_url(&discovered, &attempt);
    let location = HeaderValue::try_from(String::from(url)).map_err(|_| ApiError::Internal)?;
    let cookie = attempt.set_cookie(http.identities.signing_key(), &peer, wall_clock());
    let no_store = HeaderValue::from_static("no-store");
    let headers = [(LOCATION, location), (CACHE_CONTROL, no_store), (SET_COOKIE, cookie)];
    Ok((StatusCode::FOUND, headers).into_response())
}

/// `GET /api/login/callback`: the browser comes back from the issuer.
async fn finish(State(login): State<Arc<Login>>, peer: RemotePeer, uri: Uri, headers: HeaderMap) -> Response {
    let now = wall_clock();
    let mut response = match login.end(&peer, &uri, &headers, now).await {
        Ok((token, expiry, back)) => {
            let mut response = redirect(&back);
            // It replaces a token that the browser had before: one planted there by somebody else must not stay.
            response.headers_mut().append(SET_COOKIE, AccessTokens::set_cookie(&token, expiry, &peer, now));
            response
        }
        Err(error) => {
            debug!(event = "loginRefused", reason = error.label());
            error.into_response()
        }
    };
    response.headers_mut().append(SET_COOKIE, Attempt::remove_cookie(&peer));
    response
}

impl Login {
    fn charge(&self, peer: &RemotePeer) -> Result<(), ApiError> {
        match peer.network() {
            Some(network) => self.rate.check(&network).map_err(|_| TOO_MANY),
            None => Ok(()),
        }
    }

    fn failed(&self, error: &(dyn Error + 'static)) -> ApiError {
        if self.http.warnings.check().is_ok() {
            warn!(event = "loginFailed", error);
        }
        FAILED
    }

    /// Ends the login of a browser; returns a token, its expiry, and the path to lead back to.
    async fn end(
        &self,
        peer: &RemotePeer,
        uri: &Uri,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Result<(String, u64, String), ApiError> {
        let state = parameter(uri, "state").ok_or(NOT_BEGUN)?;
        let key = self.http.identities.signing_key();
        let attempt = Attempt::of_browser(headers, &state, key, now).ok_or(NOT_BEGUN)?;
        self.charge(peer)?;
        let is_first = self.ended.entry(state).or_insert(()).await.is_fresh();
        if !is_first {
            return Err(NOT_BEGUN);
        }
        let config = self.provider.config();
        // RFC 9207: an answer of another issuer, which could not know the state.
        if parameter(uri, "iss").is_some_and(|issuer| issuer != config.issuer.as_str()) {
            return Err(DENIED);
        }
        let code = parameter(uri, "code").ok_or(DENIED)?;
        let discovered = self.provider.discover().await.map_err(|error| self.failed(&*error))?;
        let exchanged = self.provider.exchange(&discovered, &attempt, &code).await;
        let id_token = exchanged.map_err(|error| self.failed(&error))?;
        let claims = discovered.id_tokens.verify(&id_token, &attempt.nonce, now).await;
        let claims = claims.map_err(|error| self.failed(&error))?;
        let claims = token_claims(config, &claims, now).ok_or(NO_GROUP)?;
        let tokens = self.http.identities.access_tokens().ok_or(ApiError::Internal)?;
        let token = tokens.sign_login(&claims, now).map_err(|defect| self.failed(&defect))?;
        Ok((token, claims.exp, attempt.back))
    }

    /// Removes networks whose whole burst is available.
    pub fn prune(&self) {
        self.rate.prune();
    }
}

/// The first parameter of this name, if it is not too long.
fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let mut query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let found = query.find(|(known, _)| known == name).map(|(_, value)| value.into_owned())?;
    (found.len() <= MAX_PARAMETER_CHARS).then_some(found)
}
