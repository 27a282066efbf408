//! SHELL: the task that posts cards to the webhook, at least once, retrying for three days.
//!
//! The queue is in the store, so it survives a restart. The webhook's URL carries a token and never appears in
//! a log or an error.

use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use url::{Host, Url};

use super::retry::{after_failure, retry_after, wait};
use crate::clock::{now, wall_clock};
use crate::id::ReportId;
use crate::metrics::Metrics;
use crate::store::reports::{DeliveryOutcome, Due, Reports, ReportsError};

/// Timing of the task; only tests change the default.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryTiming {
    /// Concurrent attempts, so that one slow answer does not delay other cards.
    pub parallel: usize,
    /// Timeout of an attempt.
    pub attempt: Duration,
    /// Pause after a failure of the store.
    pub store_retry: Duration,
    /// Maximum sleep of the task: the wall clock, by which cards are due, may be set.
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

/// The webhook's client cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum InvalidWebhook {
    /// Invalid URL; the configuration has been checked before.
    #[error("feedback.url is not a URL")]
    Url,
    /// TLS cannot be set up.
    #[error("feedback.url: {0}")]
    Client(reqwest::Error),
}

/// Delivers cards.
pub struct Delivery {
    reports: Reports,
    client: reqwest::Client,
    url: SecretString,
    metrics: Arc<Metrics>,
    pace: DeliveryTiming,
}

/// A failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeliveryFailure {
    /// The answer's status was not 2xx.
    Status { status: u16, asked: Option<Duration> },
    /// No answer in time.
    TimedOut,
    /// The webhook cannot be reached, or closed the connection.
    Unreachable,
}

impl DeliveryFailure {
    fn text(self) -> String {
        match self {
            Self::Status { status, .. } => format!("the webhook answered {status}"),
            Self::TimedOut => "the webhook did not answer in time".to_owned(),
            Self::Unreachable => "the webhook cannot be reached".to_owned(),
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Status { status: 429, .. } => "rate_limited",
            Self::Status { status: 300..400, .. } => "redirected",
            Self::Status { status: 400..500, .. } => "refused",
            Self::Status { .. } => "server_error",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
        }
    }
}

impl Delivery {
    /// Creates the task's state.
    ///
    /// # Errors
    /// [`InvalidWebhook`].
    pub fn new(
        reports: Reports,
        url: SecretString,
        metrics: Arc<Metrics>,
        pace: DeliveryTiming,
    ) -> Result<Self, InvalidWebhook> {
        // A redirect would send the card to another host.
        let mut client = reqwest::Client::builder().timeout(pace.attempt).redirect(Policy::none());
        let parsed = Url::parse(url.expose_secret()).map_err(|_| InvalidWebhook::Url)?;
        let loopback = match parsed.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => return Err(InvalidWebhook::Url),
        };
        if loopback {
            // A proxy cannot reach this machine's loopback.
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| InvalidWebhook::Client(error.without_url()))?;
        Ok(Self { reports, client, url, metrics, pace })
    }

    /// Delivers until `stop`, then waits for the current attempts.
    pub async fn run(self, stop: CancellationToken) {
        let mut attempts = FuturesUnordered::new();
        let mut under_way: Vec<ReportId> = Vec::new();
        let mut quiet_until = now();
        loop {
            self.reports.measure_queue().await;
            let next = match self.take(&under_way, quiet_until).await {
                Ok((due, next)) => {
                    for due in due {
                        under_way.push(due.report);
                        attempts.push(self.attempt(due));
                    }
                    next
                }
                Err(error) => {
                    error!(event = "deliveryQueueUnreadable", %error, "it is tried again");
                    self.pace.store_retry
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                Some((report, quiet)) = attempts.next() => {
                    under_way.retain(|id| *id != report);
                    quiet_until = quiet_until.max(now() + quiet);
                }
                () = self.reports.queued() => {}
                () = sleep(next) => {}
            }
        }
        while attempts.next().await.is_some() {}
    }

    /// Returns the cards to send now, and the time to sleep afterwards.
    async fn take(
        &self,
        under_way: &[ReportId],
        quiet_until: Instant,
    ) -> Result<(Vec<Due>, Duration), ReportsError> {
        let longest = self.pace.longest_sleep;
        let free = self.pace.parallel.saturating_sub(under_way.len());
        let quiet = quiet_until.saturating_duration_since(now());
        // An attempt that ends wakes the task as well.
        if free == 0 || !quiet.is_zero() {
            return Ok((Vec::new(), if quiet.is_zero() { longest } else { quiet.min(longest) }));
        }
        let time = wall_clock();
        let due = self.reports.due(time, free, under_way).await?;
        let mut taken = under_way.to_vec();
        taken.extend(due.iter().map(|due| due.report));
        let next = match self.reports.next_due(&taken).await? {
            Some(next) => next.duration_since(time).unwrap_or_default(),
            None => longest,
        };
        // An unreadable row stays due for ever, which would make this a busy loop.
        let shortest = if due.is_empty() { Duration::from_millis(100) } else { Duration::ZERO };
        let next = if taken.len() >= self.pace.parallel { longest } else { next };
        Ok((due, next.clamp(shortest, longest)))
    }

    /// Makes one attempt and stores its outcome; returns the pause that the webhook requires.
    async fn attempt(&self, due: Due) -> (ReportId, Duration) {
        let Due { report, card, attempts, created } = due;
        let result = self.post(card).await;
        let failures = attempts.saturating_add(1);
        let chance = chance();
        let mut quiet = Duration::ZERO;
        let (outcome, failure) = match result {
            Ok(()) => (DeliveryOutcome::Delivered, None),
            Err(failure) => {
                let mut asked = None;
                if let DeliveryFailure::Status { status, asked: header } = failure {
                    // 429 concerns the whole webhook, even without a `Retry-After`.
                    asked = header.or_else(|| (status == 429).then(|| wait(failures, chance)));
                    quiet = asked.unwrap_or_default();
                }
                (after_failure(created, wall_clock(), failures, chance, asked), Some(failure))
            }
        };
        self.report(report, outcome, failure, failures);
        let text = failure.map(DeliveryFailure::text);
        while let Err(error) = self.reports.attempted(report, outcome, text.as_deref()).await {
            Metrics::count(&self.metrics.deliveries, "not_written");
            // Without the outcome the card would be sent again and again.
            error!(event = "deliveryNotWritten", %report, %error, "it is tried again");
            sleep(self.pace.store_retry).await;
        }
        (report, quiet)
    }

    async fn post(&self, card: String) -> Result<(), DeliveryFailure> {
        let request = self.client.post(self.url.expose_secret());
        let request = request.header(CONTENT_TYPE, "application/json; charset=UTF-8").body(card);
        // Only the answer's status and headers matter; its body is never read.
        let answer = request.send().await.map_err(|error| {
            if error.is_timeout() { DeliveryFailure::TimedOut } else { DeliveryFailure::Unreachable }
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let asked = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let asked = asked.filter(|_| matches!(status.as_u16(), 429 | 503));
        let asked = asked.and_then(|value| retry_after(value, wall_clock()));
        Err(DeliveryFailure::Status { status: status.as_u16(), asked })
    }

    fn report(
        &self,
        report: ReportId,
        outcome: DeliveryOutcome,
        failure: Option<DeliveryFailure>,
        attempts: u32,
    ) {
        let label = failure.map_or("delivered", DeliveryFailure::label);
        Metrics::count(&self.metrics.deliveries, label);
        let why = failure.map(DeliveryFailure::text).unwrap_or_default();
        match outcome {
            DeliveryOutcome::Delivered => debug!(event = "cardDelivered", %report, attempts),
            DeliveryOutcome::Dead => {
                Metrics::count(&self.metrics.deliveries, "given_up");
                warn!(event = "cardGivenUp", %report, attempts, why, "the report itself is kept");
            }
            // Logged once per card, or a webhook outage of days would fill the log.
            DeliveryOutcome::Postponed { .. } if attempts == 1 => {
                info!(event = "cardNotDelivered", %report, why, "it is tried again for three days");
            }
            DeliveryOutcome::Postponed { .. } => debug!(event = "cardNotDelivered", %report, attempts, why),
        }
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery").field("pace", &self.pace).finish_non_exhaustive()
    }
}

/// Returns a random number from 0 to 1.
fn chance() -> f64 {
    let number = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(number) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{ConnectOptions, SqliteConnection};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;
    use crate::id::{IdentityId, RoomName};
    use crate::metrics::ByReason;
    use crate::store::Store;
    use crate::store::reports::{NewReport, ReportKind};

    const PACE: DeliveryTiming = DeliveryTiming {
        parallel: 1,
        attempt: Duration::from_millis(100),
        store_retry: Duration::from_millis(5),
        longest_sleep: Duration::from_secs(60),
    };

    struct Scene {
        directory: tempfile::TempDir,
        store: Store,
        metrics: Arc<Metrics>,
        hook: TcpListener,
        stop: CancellationToken,
        task: tokio::task::JoinSet<()>,
    }

    impl Scene {
        async fn start(pace: DeliveryTiming) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("r.db");
            std::fs::File::create(&path).unwrap();
            let metrics = Metrics::new();
            let (store, _) = Store::open(&path, metrics.clone()).await.unwrap();
            let hook = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let address: SocketAddr = hook.local_addr().unwrap();
            let url = format!("http://{address}/hook").into();
            let delivery = Delivery::new(store.reports(), url, metrics.clone(), pace).unwrap();
            let stop = CancellationToken::new();
            let mut task = tokio::task::JoinSet::new();
            task.spawn(delivery.run(stop.clone()));
            Self { directory, store, metrics, hook, stop, task }
        }

        async fn report(&self) -> ReportId {
            let report = NewReport {
                id: ReportId::random(),
                kind: ReportKind::Bug,
                created: wall_clock(),
                room: Some(RoomName::parse("r").unwrap()),
                meeting: None,
                identity: IdentityId::new("cookie:ada"),
                name: "Ada".into(),
                description: String::new(),
                user_agent: String::new(),
                url: String::new(),
                cut_entries: 0,
                json: "null".into(),
            };
            let id = report.id;
            self.store.reports().keep(report, Some("{}".into()), 1 << 30).await.unwrap();
            id
        }

        /// Accepts the next request and reads its headers.
        async fn request(&self) -> TcpStream {
            let (mut stream, _) =
                timeout(Duration::from_secs(10), self.hook.accept()).await.unwrap().unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream
        }

        async fn until_delivered(&self, id: ReportId) {
            let delivered = async {
                while self.state(id).await != "delivered" {
                    tokio::task::yield_now().await;
                }
            };
            timeout(Duration::from_secs(10), delivered).await.expect("it is delivered");
        }

        async fn state(&self, id: ReportId) -> String {
            self.store.reports().look_up(id).await.unwrap().unwrap().line.delivery.unwrap().state
        }

        async fn until_counted(&self, reason: &'static str) {
            let counter = self.metrics.deliveries.get_or_create(&ByReason { reason }).clone();
            let counted = async {
                while counter.get() == 0 {
                    tokio::task::yield_now().await;
                }
            };
            timeout(Duration::from_secs(10), counted).await.unwrap_or_else(|_| panic!("nothing is {reason}"));
        }

        async fn beside(&self) -> SqliteConnection {
            let options = SqliteConnectOptions::new().filename(self.directory.path().join("r.db"));
            options.connect().await.unwrap()
        }
    }

    #[tokio::test]
    async fn timed_out_attempt_is_repeated() {
        let scene = Scene::start(PACE).await;
        let id = scene.report().await;
        let _silent = scene.request().await;
        scene.until_counted("timed_out").await;
        let mut second = scene.request().await;
        second.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        scene.until_counted("delivered").await;
        scene.until_delivered(id).await;
    }

    /// The row stayed due if its outcome could not be written: the card would have been sent again and again
    /// while the disk was full.
    #[tokio::test]
    async fn card_is_sent_once_while_the_store_fails() {
        let scene = Scene::start(DeliveryTiming { attempt: Duration::from_secs(10), ..PACE }).await;
        let id = scene.report().await;
        let mut request = scene.request().await;
        let mut beside = scene.beside().await;
        sqlx::query("ALTER TABLE deliveries RENAME TO away").execute(&mut beside).await.unwrap();
        request.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        scene.until_counted("not_written").await;
        sqlx::query("ALTER TABLE away RENAME TO deliveries").execute(&mut beside).await.unwrap();
        scene.until_delivered(id).await;
        let sent = scene.metrics.deliveries.get_or_create(&ByReason { reason: "delivered" }).get();
        assert_eq!(sent, 1);
    }

    #[tokio::test]
    async fn stop_waits_for_current_attempts_only() {
        let mut scene = Scene::start(DeliveryTiming { attempt: Duration::from_secs(10), ..PACE }).await;
        let [first, second] = [scene.report().await, scene.report().await];
        let mut request = scene.request().await;
        scene.stop.cancel();
        request.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        timeout(Duration::from_secs(10), scene.task.join_next()).await.unwrap().unwrap().unwrap();
        let states = [scene.state(first).await, scene.state(second).await];
        assert_eq!(states, ["delivered", "waiting"]);
    }
}
