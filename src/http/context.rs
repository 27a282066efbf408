//! The state that request handlers of every feature share.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::Response;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tracing::warn;

use super::assets::Assets;
use super::charge::AddressClassifier;
use super::error::ApiError;
use super::origin::OriginRule;
use crate::auth::Identities;
use crate::auth::peer::TrustedProxies;
use crate::config::{BasePath, Config};
use crate::metrics::Metrics;

/// The state of the public listener that is independent of its features.
pub struct HttpContext {
    /// Authentication of users.
    pub identities: Identities,
    /// Origins that may send requests and open sockets.
    pub origins: OriginRule,
    /// Proxies with trusted forwarding headers.
    pub proxies: TrustedProxies,
    /// The path below which browsers reach this server.
    pub base_path: BasePath,
    /// Decides to which network a request is charged.
    pub charge: AddressClassifier,
    /// Metrics of the server.
    pub metrics: Arc<Metrics>,
    /// Rate limit of warnings that network input can cause: a burst of 10, then one a second.
    pub warnings: DefaultDirectRateLimiter,
    /// Maximum bytes of a request's headers.
    pub header_bytes: usize,
    /// Maximum bytes of a URL.
    pub url_bytes: usize,
    /// Maximum bytes of a form.
    pub body_bytes: usize,
    /// Timeout of a request from its headers to its answer.
    pub request_timeout: Duration,
}

impl HttpContext {
    /// Creates the state from the configuration.
    pub fn new(config: &Config, identities: Identities, metrics: Arc<Metrics>) -> Self {
        let (http, limits) = (&config.http, &config.limits);
        let burst = const { NonZeroU32::new(10).unwrap() };
        Self {
            identities,
            origins: OriginRule::new(http.public_origin().cloned(), http.allowed_origins.clone()),
            proxies: TrustedProxies::new(http.trusted_proxies.iter().copied()),
            base_path: http.base_path(),
            charge: AddressClassifier::new(config),
            metrics,
            warnings: RateLimiter::direct(Quota::per_second(NonZeroU32::MIN).allow_burst(burst)),
            header_bytes: limits.header_bytes,
            url_bytes: limits.url_bytes,
            body_bytes: limits.body_bytes,
            request_timeout: limits.request_timeout,
        }
    }

    /// Returns the error for an unauthenticated request.
    pub fn unauthenticated(&self) -> ApiError {
        if self.identities.takes_names() {
            ApiError::NoIdentity
        } else if self.identities.has_login() {
            ApiError::SignInNeeded
        } else if self.identities.needs_token() {
            ApiError::TokenNeeded
        } else {
            ApiError::LoginRequired
        }
    }

    /// Answers with a file.
    ///
    /// # Errors
    /// Returns [`ApiError::NotFound`], or [`ApiError::Internal`] for an unreadable file.
    pub async fn file(&self, files: &Assets, path: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
        match files.get(path, headers).await {
            Ok(response) => response.ok_or(ApiError::NotFound),
            Err(error) => {
                if self.warnings.check().is_ok() {
                    warn!(event = "fileUnreadable", path, %error);
                }
                Err(ApiError::Internal)
            }
        }
    }
}
