//! SHELL: a webhook as a destination of events.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use tracing::{debug, info, warn};
use url::Url;

use crate::clock::wall_clock;
use crate::config::{KeyFileError, KeySource, WebhookConfig, signing_secret};
use crate::delivery::sender::DeliveryTiming;
use crate::delivery::signature::{ID, SIGNATURE, SigningKey, TIMESTAMP};
use crate::delivery::webhook::{InvalidWebhook, Webhook};
use crate::delivery::{DeliveryFailure, Destination};
use crate::id::EventId;
use crate::store::deliveries::{Delivery, DeliveryOutcome};

/// Beginning of the names of destinations that are webhooks.
const PREFIX: &str = "webhook:";

/// A webhook cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The file of a secret cannot be read.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// A secret is none.
    #[error("webhooks: {0}: a secret is 24 to 64 bytes in base64; make one by: openssl rand -base64 32")]
    Secret(String),
    /// Its client cannot be created.
    #[error("webhooks: {0}: {1}")]
    Client(String, InvalidWebhook),
}

/// A webhook.
#[derive(Debug)]
pub struct EventWebhook {
    destination: Arc<str>,
    webhook: Webhook,
    /// The newest first.
    keys: Vec<SigningKey>,
}

/// The name under which events are queued for a webhook.
pub fn destination(name: &str) -> Arc<str> {
    format!("{PREFIX}{name}").into()
}

/// The webhook of a destination's name.
pub fn webhook_name(destination: &str) -> &str {
    destination.strip_prefix(PREFIX).unwrap_or(destination)
}

/// The host that a webhook's URL names: the only part of it that is shown.
pub fn host(config: &WebhookConfig) -> String {
    let url = Url::parse(config.url.expose_secret()).ok();
    url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
}

impl EventWebhook {
    /// Creates a webhook's client, and reads its secrets.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub fn open(config: &WebhookConfig, timing: DeliveryTiming) -> Result<Self, WebhookError> {
        let name = &config.name;
        let secrets = [Some(&config.secret), config.previous_secret.as_ref()];
        let keys = secrets.into_iter().flatten().map(|source| key(name, source));
        let keys = keys.collect::<Result<_, _>>()?;
        let new = if config.allow_private { Webhook::new } else { Webhook::public };
        let webhook = new("the url", config.url.clone(), timing.attempt);
        let webhook = webhook.map_err(|error| WebhookError::Client(name.clone(), error))?;
        Ok(Self { destination: destination(name), webhook, keys })
    }

    fn headers(&self, message: &Delivery) -> HeaderMap {
        let id = EventId::from(message.id).to_string();
        let time = wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let signatures: Vec<_> =
            self.keys.iter().map(|key| key.sign(&id, time, message.body.as_bytes())).collect();
        let values = [(ID, id), (TIMESTAMP, time.to_string()), (SIGNATURE, signatures.join(" "))];
        // All of them are ASCII.
        let values = values.into_iter().filter_map(|(name, value)| {
            Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?))
        });
        let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
        values.chain([json]).collect()
    }
}

fn key(name: &str, source: &KeySource) -> Result<SigningKey, WebhookError> {
    let text = source.read("webhooks", |_| None)?;
    let secret = signing_secret(text.expose_secret()).ok_or_else(|| WebhookError::Secret(name.to_owned()))?;
    Ok(SigningKey::new(&secret))
}

impl Destination for EventWebhook {
    fn name(&self) -> &str {
        &self.destination
    }

    async fn send(&self, message: &Delivery) -> Result<(), DeliveryFailure> {
        self.webhook.post_with(self.headers(message), message.body.clone()).await
    }

    fn log(
        &self,
        message: &Delivery,
        attempts: u32,
        outcome: DeliveryOutcome,
        failure: Option<DeliveryFailure>,
    ) {
        let (webhook, id, kind) =
            (webhook_name(&self.destination), EventId::from(message.id), &*message.kind);
        let why = failure.map(DeliveryFailure::text).unwrap_or_default();
        match outcome {
            DeliveryOutcome::Delivered => debug!(event = "eventDelivered", webhook, %id, kind, attempts),
            DeliveryOutcome::Dead => {
                warn!(event = "eventGivenUp", webhook, %id, kind, attempts, why, "it can be replayed");
            }
            // Logged once per event, or an outage of days would fill the log.
            DeliveryOutcome::Postponed { .. } if attempts == 1 => {
                info!(event = "eventNotDelivered", webhook, %id, kind, why, "it is tried again for three days");
            }
            DeliveryOutcome::Postponed { .. } => {
                debug!(event = "eventNotDelivered", webhook, %id, kind, attempts, why);
            }
        }
    }
}
