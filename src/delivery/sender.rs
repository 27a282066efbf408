//! SHELL: the task that delivers the queued messages of one destination.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::retry::{after_failure, wait};
use super::{DeliveryFailure, Destination};
use crate::clock::{now, wall_clock};
use crate::id::DeliveryId;
use crate::metrics::Metrics;
use crate::store::deliveries::{Deliveries, DeliveriesError, Delivery, DeliveryOutcome};

/// Timing of a sender; only tests change the default.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryTiming {
    /// Concurrent attempts, so that one slow answer does not delay other messages.
    pub parallel: usize,
    /// Timeout of an attempt.
    pub attempt: Duration,
    /// Pause after a failure of the store.
    pub store_retry: Duration,
    /// Maximum sleep of the task: the wall clock, by which messages are due, may be set.
    pub longest_sleep: Duration,
}

impl Default for DeliveryTiming {
    fn default() -> Self {
        Self {
            parallel: 4,
            attempt: Duration::from_secs(10),
            store_retry: Duration::from_secs(5),
            longest_sleep: Duration::from_secs(60),
        }
    }
}

/// The sender of one destination's messages.
#[derive(Debug)]
pub struct Sender<D> {
    destination: D,
    queue: Deliveries,
    metrics: Arc<Metrics>,
    timing: DeliveryTiming,
}

impl<D: Destination> Sender<D> {
    /// Creates the task's state.
    pub fn new(destination: D, queue: Deliveries, metrics: Arc<Metrics>, timing: DeliveryTiming) -> Self {
        Self { destination, queue, metrics, timing }
    }

    /// Delivers until `stop`, then waits for the current attempts.
    pub async fn run(self, stop: CancellationToken) {
        let mut queued = self.queue.watch();
        let mut attempts = FuturesUnordered::new();
        let mut under_way: Vec<DeliveryId> = Vec::new();
        let mut quiet_until = now();
        loop {
            queued.mark_unchanged();
            let reading = async {
                self.queue.measure().await;
                self.take(&under_way, quiet_until).await
            };
            let (taken, ended) = beside(&mut attempts, reading).await;
            let next = match taken {
                Ok((due, next)) => {
                    for due in due {
                        under_way.push(due.id);
                        attempts.push(self.attempt(due));
                    }
                    next
                }
                Err(error) => {
                    error!(event = "deliveryQueueUnreadable", %error, "it is tried again");
                    self.timing.store_retry
                }
            };
            // Attempts that ended meanwhile have made space.
            let next = if ended.is_empty() { next } else { Duration::ZERO };
            for (delivery, quiet) in ended {
                under_way.retain(|id| *id != delivery);
                quiet_until = quiet_until.max(now() + quiet);
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Some((delivery, quiet)) = attempts.next() => {
                    under_way.retain(|id| *id != delivery);
                    quiet_until = quiet_until.max(now() + quiet);
                }
                Ok(()) = queued.changed() => {}
                () = sleep(next) => {}
            }
        }
        while attempts.next().await.is_some() {}
    }

    /// Returns the messages to send now, and the time to sleep afterwards.
    async fn take(
        &self,
        under_way: &[DeliveryId],
        quiet_until: Instant,
    ) -> Result<(Vec<Delivery>, Duration), DeliveriesError> {
        let longest = self.timing.longest_sleep;
        let free = self.timing.parallel.saturating_sub(under_way.len());
        let quiet = quiet_until.saturating_duration_since(now());
        // An attempt that ends wakes the task as well.
        if free == 0 || !quiet.is_zero() {
            return Ok((Vec::new(), if quiet.is_zero() { longest } else { quiet.min(longest) }));
        }
        let (name, time) = (self.destination.name(), wall_clock());
        let due = self.queue.due(name, time, free, under_way).await?;
        let mut taken = under_way.to_vec();
        taken.extend(due.iter().map(|due| due.id));
        let next = match self.queue.next_due(name, &taken).await? {
            Some(next) => next.duration_since(time).unwrap_or_default(),
            None => longest,
        };
        // An unreadable row stays due for ever, which would make this a busy loop.
        let shortest = if due.is_empty() { Duration::from_millis(100) } else { Duration::ZERO };
        let next = if taken.len() >= self.timing.parallel { longest } else { next };
        Ok((due, next.clamp(shortest, longest)))
    }

    /// Makes one attempt and stores its outcome; returns the pause that the destination requires.
    async fn attempt(&self, delivery: Delivery) -> (DeliveryId, Duration) {
        let result = self.destination.send(&delivery).await;
        let attempt = delivery.attempts.saturating_add(1);
        let chance = chance();
        let mut quiet = Duration::ZERO;
        let (outcome, failure) = match result {
            Ok(()) => (DeliveryOutcome::Delivered, None),
            Err(failure) => {
                let mut pause = None;
                if let DeliveryFailure::Status { status, retry_after } = failure {
                    // 429 concerns the whole destination, even without a `Retry-After`.
                    pause = retry_after.or_else(|| (status == 429).then(|| wait(attempt, chance)));
                    quiet = pause.unwrap_or_default();
                }
                (after_failure(delivery.created, wall_clock(), attempt, chance, pause), Some(failure))
            }
        };
        Metrics::count(&self.metrics.deliveries, failure.map_or("delivered", DeliveryFailure::label));
        if outcome == DeliveryOutcome::Dead {
            Metrics::count(&self.metrics.deliveries, "given_up");
        }
        self.destination.log(&delivery, attempt, outcome, failure);
        let (name, id) = (self.destination.name(), delivery.id);
        let text = failure.map(DeliveryFailure::text);
        while let Err(error) = self.queue.attempted(name, id, outcome, text.as_deref()).await {
            Metrics::count(&self.metrics.deliveries, "not_written");
            // Without the outcome the message would be sent again and again.
            error!(event = "deliveryNotWritten", report = %id, %error, "it is tried again");
            sleep(self.timing.store_retry).await;
        }
        (id, quiet)
    }
}

/// Waits for `work`, and meanwhile lets the attempts go on; returns those that ended. An attempt that does not go on may
/// hold the connection to the database for which `work` waits.
async fn beside<A: Future, T>(
    attempts: &mut FuturesUnordered<A>,
    work: impl Future<Output = T>,
) -> (T, Vec<A::Output>) {
    let (mut work, mut ended) = (pin!(work), Vec::new());
    loop {
        tokio::select! {
            result = &mut work => return (result, ended),
            Some(attempt) = attempts.next() => ended.push(attempt),
        }
    }
}

/// Returns a random number from 0 to 1.
fn chance() -> f64 {
    let number = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(number) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;
    use crate::id::ReportId;
    use crate::store::Store;

    /// A destination that reports every message, and answers each the same way.
    struct Recorder {
        name: &'static str,
        failure: Option<DeliveryFailure>,
        sent: mpsc::UnboundedSender<(&'static str, String)>,
    }

    impl Destination for Recorder {
        fn name(&self) -> &str {
            self.name
        }

        async fn send(&self, message: &Delivery) -> Result<(), DeliveryFailure> {
            self.sent.send((self.name, message.body.clone())).unwrap();
            self.failure.map_or(Ok(()), Err)
        }

        fn log(&self, _: &Delivery, _: u32, _: DeliveryOutcome, _: Option<DeliveryFailure>) {}
    }

    #[tokio::test]
    async fn paused_destination_delays_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r.db");
        std::fs::File::create(&path).unwrap();
        let metrics = Metrics::new();
        let (store, _) = Store::open(&path, metrics.clone()).await.unwrap();
        let (sent, mut messages) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let mut senders = tokio::task::JoinSet::new();
        let hour = Some(Duration::from_secs(3600));
        let paused = DeliveryFailure::Status { status: 429, retry_after: hour };
        for (name, failure) in [("paused", Some(paused)), ("ready", None)] {
            let destination = Recorder { name, failure, sent: sent.clone() };
            let timing = DeliveryTiming { parallel: 1, ..DeliveryTiming::default() };
            let sender = Sender::new(destination, store.deliveries(), metrics.clone(), timing);
            senders.spawn(sender.run(stop.clone()));
        }
        let mut next = async || timeout(Duration::from_secs(20), messages.recv()).await.unwrap().unwrap();
        let queue = store.deliveries();
        let add = async |destination, body| {
            let id = ReportId::random().into();
            queue.queue(id, destination, body, wall_clock()).await;
        };
        add("paused", "1").await;
        assert_eq!(next().await, ("paused", "1".to_owned()));
        add("paused", "2").await;
        for body in ["3", "4", "5"] {
            add("ready", body).await;
            assert_eq!(next().await, ("ready", body.to_owned()));
        }
        stop.cancel();
        while senders.join_next().await.is_some() {}
        assert!(messages.try_recv().is_err());
    }
}
