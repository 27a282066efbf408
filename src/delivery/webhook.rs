//! SHELL: posts to a webhook.
//!
//! A webhook's URL often has a token and never appears in a log or an error.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::retry;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::DeliveryFailure;
use super::public_resolver::{PrivateAddress, PublicResolver};
use super::retry::retry_after;
use crate::clock::wall_clock;
use crate::config::{has_private_address, is_loopback};

/// The webhook's client cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum InvalidWebhook {
    /// Invalid URL; the configuration has been checked before.
    #[error("{0} is not a URL")]
    Url(&'static str),
    /// TLS cannot be set up.
    #[error("{0}: {1}")]
    Client(&'static str, reqwest::Error),
}

/// The client of one webhook.
pub struct Webhook {
    client: reqwest::Client,
    url: SecretString,
    /// True if the URL's host is a private address, which no request may reach.
    is_private: bool,
}

impl Webhook {
    /// Creates the client for the URL of a setting, with the timeout of an attempt.
    ///
    /// # Errors
    /// [`InvalidWebhook`] names the setting.
    pub fn new(setting: &'static str, url: SecretString, timeout: Duration) -> Result<Self, InvalidWebhook> {
        let client = client(setting, url.expose_secret(), timeout)?;
        Ok(Self { client, url, is_private: false })
    }

    /// Creates a client that connects to addresses of the public internet only, and to no proxy, which could connect
    /// to others.
    ///
    /// # Errors
    /// [`InvalidWebhook`] names the setting.
    pub fn public(
        setting: &'static str,
        url: SecretString,
        timeout: Duration,
    ) -> Result<Self, InvalidWebhook> {
        let parsed = Url::parse(url.expose_secret()).map_err(|_| InvalidWebhook::Url(setting))?;
        let client = builder(timeout).no_proxy().dns_resolver(Arc::new(PublicResolver));
        let client = client.build().map_err(|error| InvalidWebhook::Client(setting, error.without_url()))?;
        Ok(Self { client, url, is_private: has_private_address(&parsed) })
    }

    /// Posts a body.
    ///
    /// # Errors
    /// [`DeliveryFailure`] if the answer is not 2xx.
    pub async fn post(&self, content_type: HeaderValue, body: String) -> Result<(), DeliveryFailure> {
        self.post_with(HeaderMap::from_iter([(CONTENT_TYPE, content_type)]), body).await
    }

    /// Posts a body with these headers.
    ///
    /// # Errors
    /// [`DeliveryFailure`] if the answer is not 2xx.
    pub async fn post_with(&self, headers: HeaderMap, body: String) -> Result<(), DeliveryFailure> {
        if self.is_private {
            return Err(DeliveryFailure::PrivateAddress);
        }
        let request = self.client.post(self.url.expose_secret()).headers(headers).body(body);
        // Only the answer's status and headers matter; its body is never read.
        let answer = request.send().await.map_err(|error| match () {
            () if PrivateAddress::is_cause(&error) => DeliveryFailure::PrivateAddress,
            () if error.is_timeout() => DeliveryFailure::TimedOut,
            () => DeliveryFailure::Unreachable,
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let header = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let header = header.filter(|_| matches!(status.as_u16(), 429 | 503));
        let retry_after = header.and_then(|value| retry_after(value, wall_clock()));
        Err(DeliveryFailure::Status { status: status.as_u16(), retry_after })
    }
}

/// Creates a client for the URL of a setting, with the timeout of a request and its answer.
///
/// # Errors
/// [`InvalidWebhook`] names the setting.
pub fn client(
    setting: &'static str,
    url: &str,
    timeout: Duration,
) -> Result<reqwest::Client, InvalidWebhook> {
    let client = builder(timeout);
    let parsed = Url::parse(url).map_err(|_| InvalidWebhook::Url(setting))?;
    if !parsed.has_host() {
        return Err(InvalidWebhook::Url(setting));
    }
    // A proxy cannot reach this machine's loopback.
    let client = if is_loopback(&parsed) { client.no_proxy() } else { client };
    client.build().map_err(|error| InvalidWebhook::Client(setting, error.without_url()))
}

fn builder(timeout: Duration) -> reqwest::ClientBuilder {
    // A redirect would send the message to another host; whoever sends it decides about another attempt.
    reqwest::Client::builder().timeout(timeout).redirect(Policy::none()).retry(retry::never())
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Webhook(..)")
    }
}
