//! SHELL: the issuer of a login: its configuration (OpenID Connect Discovery 1.0), and its token endpoint.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use moka::future::Cache;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::{Url, form_urlencoded};

use super::attempt::Attempt;
use crate::auth::id_token::IdTokens;
use crate::auth::jwks::{FetchError, client, read_body};
use crate::config::{HttpUrl, OidcConfig};

/// Time for which the issuer's configuration is used.
const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Pause after a failed attempt to read it: anybody may begin a login.
const PAUSE: Duration = Duration::from_secs(5);

/// The path of the configuration, below the issuer.
const PATH: &str = "/.well-known/openid-configuration";

/// The issuer, as this server knows it.
pub(super) struct Provider {
    client: reqwest::Client,
    config: OidcConfig,
    secret: Option<SecretString>,
    /// The address that users come back to.
    callback: String,
    known: Cache<(), Arc<Discovered>>,
    failed: Cache<(), ()>,
}

/// The issuer's configuration.
pub(super) struct Discovered {
    authorization: Url,
    token: HttpUrl,
    /// True if the secret is sent in the body: the issuer takes it nowhere else.
    takes_secret_in_body: bool,
    /// The verifier of its ID tokens.
    pub(super) id_tokens: IdTokens,
}

/// The issuer's configuration as it writes it.
#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// The answer of the token endpoint.
#[derive(Deserialize)]
struct TokenAnswer {
    id_token: String,
}

/// Reasons for which the issuer cannot be used; for the log alone.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProviderError {
    #[error("the issuer cannot be asked")]
    Fetch(#[from] FetchError),
    #[error("the issuer's answer is not what the specification says")]
    Malformed(#[source] serde_json::Error),
    #[error("the issuer's configuration is of another issuer")]
    OtherIssuer,
    #[error("{0} of the issuer's configuration is not an https URL")]
    Endpoint(&'static str),
    #[error("the issuer could not be asked a moment ago")]
    Paused,
}

impl Provider {
    /// The issuer of a configuration, which sends users back to `callback`.
    ///
    /// # Errors
    /// Returns [`reqwest::Error`] if TLS cannot be set up, such as without any CA certificate.
    pub(super) fn new(
        config: OidcConfig,
        secret: Option<SecretString>,
        callback: String,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self {
            client: client(config.issuer.is_loopback())?,
            config,
            secret,
            callback,
            known: Cache::builder().max_capacity(1).time_to_live(LIFETIME).build(),
            failed: Cache::builder().max_capacity(1).time_to_live(PAUSE).build(),
        })
    }

    /// The settings of the login.
    pub(super) fn config(&self) -> &OidcConfig {
        &self.config
    }

    /// The issuer's configuration, which is read when it is first needed, and hourly; once for all who wait for it.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub(super) async fn discover(&self) -> Result<Arc<Discovered>, Arc<ProviderError>> {
        if self.failed.contains_key(&()) {
            return Err(Arc::new(ProviderError::Paused));
        }
        let discovered = self.known.try_get_with((), async { self.read().await.map(Arc::new) }).await;
        if discovered.is_err() {
            self.failed.insert((), ()).await;
        }
        discovered
    }

    async fn read(&self) -> Result<Discovered, ProviderError> {
        let issuer = self.config.issuer.as_str();
        let url = format!("{}{PATH}", issuer.trim_end_matches('/'));
        let document: Document = self.send(self.client.get(url)).await?;
        // Discovery, section 4.3: otherwise one issuer could stand in for another.
        if document.issuer != issuer {
            return Err(ProviderError::OtherIssuer);
        }
        let endpoint = |name, url: &str| {
            let url: Option<HttpUrl> = url.parse().ok();
            url.filter(HttpUrl::is_https_or_loopback).ok_or(ProviderError::Endpoint(name))
        };
        let authorization = endpoint("authorization_endpoint", &document.authorization_endpoint)?;
        let keys = endpoint("jwks_uri", &document.jwks_uri)?;
        let id_tokens = IdTokens::start(issuer, &self.config.client_id, &keys);
        let methods = document.token_endpoint_auth_methods_supported.unwrap_or_default();
        let takes = |method: &str| methods.iter().any(|known| known == method);
        Ok(Discovered {
            authorization: Url::parse(authorization.as_str())
                .map_err(|_| ProviderError::Endpoint("authorization_endpoint"))?,
            token: endpoint("token_endpoint", &document.token_endpoint)?,
            takes_secret_in_body: takes("client_secret_post") && !takes("client_secret_basic"),
            id_tokens: id_tokens.map_err(FetchError::Request)?,
        })
    }

    /// The address at which a user signs in.
    pub(super) fn authorization_url(&self, discovered: &Discovered, attempt: &Attempt) -> Url {
        let mut url = discovered.authorization.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.config.client_id)
            .append_pair("redirect_uri", &self.callback)
            .append_pair("scope", &self.config.scopes)
            .append_pair("state", &attempt.state)
            .append_pair("nonce", &attempt.nonce)
            .append_pair("code_challenge", &attempt.challenge())
            .append_pair("code_challenge_method", "S256");
        url
    }

    /// Exchanges the code of a login for its ID token.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub(super) async fn exchange(
        &self,
        discovered: &Discovered,
        attempt: &Attempt,
        code: &str,
    ) -> Result<String, ProviderError> {
        let TokenAnswer { id_token } = self.send(self.token_request(discovered, attempt, code)).await?;
        Ok(id_token)
    }

    fn token_request(
        &self,
        discovered: &Discovered,
        attempt: &Attempt,
        code: &str,
    ) -> reqwest::RequestBuilder {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", &self.callback)
            .append_pair("code_verifier", &attempt.verifier);
        let mut request = self.client.post(discovered.token.as_str());
        match &self.secret {
            Some(secret) if !discovered.takes_secret_in_body => {
                // RFC 6749 section 2.3.1: both are encoded as in a form.
                let encoded =
                    |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let secret = encoded(secret.expose_secret());
                request = request.basic_auth(encoded(&self.config.client_id), Some(secret));
            }
            secret => {
                form.append_pair("client_id", &self.config.client_id);
                if let Some(secret) = secret {
                    form.append_pair("client_secret", secret.expose_secret());
                }
            }
        }
        request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.finish())
    }

    async fn send<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, ProviderError> {
        let answer = request.send().await.map_err(FetchError::Request)?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()).into());
        }
        serde_json::from_slice(&read_body(answer).await?).map_err(ProviderError::Malformed)
    }
}
