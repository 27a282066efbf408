//! The event bridge of a server: opened, started, and ended.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{StartError, own};
use crate::clock::now;
use crate::config::{Config, EventsConfig};
use crate::delivery::sender::{DeliveryTiming, Sender};
use crate::events::acting::Acting;
use crate::events::api::EventApi;
use crate::events::recorder::Recorder;
use crate::events::stream::EventStreams;
use crate::events::webhook::EventWebhook;
use crate::events::webhooks::Webhooks;
use crate::metrics::Metrics;
use crate::nodes::events::EventNodes;
use crate::room::event_queue::EventQueue;
use crate::room::registry::Registry;
use crate::store::Store;
use crate::store::saved::SavedRoom;

/// Time for attempts under way at a shutdown.
const PATIENCE: Duration = Duration::from_secs(1);

/// The bridge before its tasks run.
pub(super) struct EventBridge {
    pub(super) queue: EventQueue,
    pub(super) webhooks: Webhooks,
    recorder: Recorder,
    nodes: Option<Arc<dyn EventNodes>>,
    senders: Vec<Sender<EventWebhook>>,
}

/// The running bridge.
pub(super) struct RunningEvents {
    stop: CancellationToken,
    recorder: AbortOnDropHandle<()>,
    senders: Vec<AbortOnDropHandle<()>>,
}

impl EventBridge {
    /// Reads the state of before the restart, and creates the clients of the webhooks.
    ///
    /// # Errors
    /// [`StartError`] names the invalid webhook.
    pub(super) async fn open(
        config: &Config,
        store: &Store,
        kept: &[SavedRoom],
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let timing = DeliveryTiming::default();
        let senders = config.webhooks.iter().map(|webhook| {
            let webhook = EventWebhook::open(webhook, timing)?;
            Ok(Sender::new(webhook, store.deliveries(), metrics.clone(), timing))
        });
        let senders = senders.collect::<Result<_, StartError>>()?;
        let queue = EventQueue::default();
        let running: HashSet<_> = kept.iter().map(|room| room.meeting).collect();
        let (events, state) = (store.events(), store.events().state().await?);
        let (settings, webhooks) = (&config.events, &config.webhooks);
        let recorder =
            Recorder::new(settings, webhooks, queue.clone(), events, state, &running, metrics.clone());
        let recorder = if config.cluster.is_configured() { recorder.shared() } else { recorder };
        let webhooks = Webhooks::new(webhooks, store.deliveries(), store.events());
        Ok(Self { queue, webhooks, recorder, nodes: None, senders })
    }

    /// Exchanges events with the other nodes.
    pub(super) fn share(&mut self, nodes: Arc<dyn EventNodes>) {
        nodes.serve(self.recorder.share(), self.queue.clone());
        self.nodes = Some(nodes);
    }

    /// The streams of events, and messages to rooms.
    pub(super) fn api(&self, config: &EventsConfig, registry: Registry, metrics: Arc<Metrics>) -> EventApi {
        EventApi {
            acting: Acting::new(registry, config.requests_per_minute),
            streams: EventStreams::new(self.recorder.log(), self.nodes.clone(), config, metrics),
        }
    }

    /// Starts the tasks. Senders end with `stopping`; the recorder goes on until [`RunningEvents::end`].
    pub(super) fn start(self, stopping: &CancellationToken) -> RunningEvents {
        let stop = CancellationToken::new();
        RunningEvents {
            recorder: own(self.recorder.run(stop.clone())),
            senders: self.senders.into_iter().map(|sender| own(sender.run(stopping.clone()))).collect(),
            stop,
        }
    }
}

impl RunningEvents {
    /// Records what the rooms have published until now, ends the streams, and waits for attempts under way.
    pub(super) async fn end(self, deadline: Instant) {
        self.stop.cancel();
        let _ = timeout_at(deadline, self.recorder).await;
        // One that is cut off is repeated after the restart, which a hanging webhook must not delay.
        let patience = deadline.min(now() + PATIENCE);
        for sender in self.senders {
            let _ = timeout_at(patience, sender).await;
        }
    }
}
