//! The webhooks for operators: their queues, their dead letters, and trying them.

use std::sync::Arc;

use super::envelope::{Envelope, EventData};
use super::webhook::destination;
use crate::clock::wall_clock;
use crate::config::WebhookConfig;
use crate::id::EventId;
use crate::store::dead_letters::{DeadLetter, QueueState};
use crate::store::deliveries::{Deliveries, DeliveriesError};
use crate::store::events::{EventBatch, Events, EventsError, NewEvent};

/// All webhooks; a cheap clone.
#[derive(Clone, Debug)]
pub struct Webhooks {
    configs: Arc<[WebhookConfig]>,
    queue: Deliveries,
    events: Events,
}

impl Webhooks {
    /// The configured webhooks and their queue.
    pub fn new(configs: &[WebhookConfig], queue: Deliveries, events: Events) -> Self {
        Self { configs: configs.into(), queue, events }
    }

    /// Every webhook and its queue.
    ///
    /// # Errors
    /// [`DeliveriesError`].
    pub async fn list(&self) -> Result<Vec<(&WebhookConfig, QueueState)>, DeliveriesError> {
        let mut list = Vec::new();
        for config in &*self.configs {
            list.push((config, self.queue.queue_state(&destination(&config.name)).await?));
        }
        Ok(list)
    }

    /// True if there is a webhook of this name.
    pub fn has(&self, name: &str) -> bool {
        self.configs.iter().any(|config| config.name == name)
    }

    /// Events that were given up, of one webhook or of all, the newest first, before a place in that list.
    ///
    /// # Errors
    /// [`DeliveriesError`].
    pub async fn dead(
        &self,
        name: Option<&str>,
        before: Option<i64>,
        most: u32,
    ) -> Result<Vec<DeadLetter>, DeliveriesError> {
        let name = name.map(destination);
        self.queue.dead(name.as_deref(), before, most).await
    }

    /// Tries events again that were given up: one, or all of a webhook. Returns their number.
    ///
    /// # Errors
    /// [`DeliveriesError`].
    pub async fn replay(&self, name: &str, id: Option<EventId>) -> Result<u64, DeliveriesError> {
        self.queue.replay(&destination(name), id.map(EventId::into), wall_clock()).await
    }

    /// Sends a webhook an event that says nothing.
    ///
    /// # Errors
    /// [`EventsError`].
    pub async fn test(&self, name: &str) -> Result<EventId, EventsError> {
        let event = Envelope {
            id: EventId::random(),
            time: wall_clock(),
            room: None,
            meeting: None,
            data: EventData::WebhookTest {},
        };
        let message = NewEvent { destinations: vec![destination(name)], ..NewEvent::from(&event) };
        let batch = EventBatch { events: vec![message], meetings: Vec::new() };
        // Nothing goes into the log, so its size does not matter.
        self.events.write(&batch, 0).await?;
        Ok(event.id)
    }
}
