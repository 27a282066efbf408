//! SHELL: the webhook that receives the cards of reports.

use axum::http::HeaderValue;
use secrecy::SecretString;
use tracing::{debug, info, warn};

use crate::delivery::sender::DeliveryTiming;
use crate::delivery::webhook::{InvalidWebhook, Webhook};
use crate::delivery::{DeliveryFailure, Destination};
use crate::store::deliveries::{Delivery, DeliveryOutcome};
use crate::store::reports::CARDS;

/// The webhook of `feedback.url`.
#[derive(Debug)]
pub struct CardWebhook {
    webhook: Webhook,
}

impl CardWebhook {
    /// Creates its client.
    ///
    /// # Errors
    /// [`InvalidWebhook`].
    pub fn new(url: SecretString, timing: DeliveryTiming) -> Result<Self, InvalidWebhook> {
        Webhook::new("feedback.url", url, timing.attempt).map(|webhook| Self { webhook })
    }
}

impl Destination for CardWebhook {
    fn name(&self) -> &str {
        CARDS
    }

    async fn send(&self, card: &Delivery) -> Result<(), DeliveryFailure> {
        const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=UTF-8");
        self.webhook.post(JSON, card.body.clone()).await
    }

    fn log(
        &self,
        card: &Delivery,
        attempts: u32,
        outcome: DeliveryOutcome,
        failure: Option<DeliveryFailure>,
    ) {
        let report = card.id;
        let why = failure.map(DeliveryFailure::text).unwrap_or_default();
        match outcome {
            DeliveryOutcome::Delivered => debug!(event = "cardDelivered", %report, attempts),
            DeliveryOutcome::Dead => {
                warn!(event = "cardGivenUp", %report, attempts, why, "the report itself is stored");
            }
            // Logged once per card, or a webhook outage of days would fill the log.
            DeliveryOutcome::Postponed { .. } if attempts == 1 => {
                info!(event = "cardNotDelivered", %report, why, "it is tried again for three days");
            }
            DeliveryOutcome::Postponed { .. } => debug!(event = "cardNotDelivered", %report, attempts, why),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{ConnectOptions, SqliteConnection};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::clock::wall_clock;
    use crate::delivery::sender::Sender;
    use crate::id::{IdentityId, ReportId, RoomName};
    use crate::metrics::{ByReason, Metrics};
    use crate::store::Store;
    use crate::store::reports::{NewReport, ReportKind};

    const TIMING: DeliveryTiming = DeliveryTiming {
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
        async fn start(timing: DeliveryTiming) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("r.db");
            std::fs::File::create(&path).unwrap();
            let metrics = Metrics::new();
            let (store, _) = Store::open(&path, metrics.clone()).await.unwrap();
            let hook = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let address: SocketAddr = hook.local_addr().unwrap();
            let url = format!("http://{address}/hook").into();
            let webhook = CardWebhook::new(url, timing).unwrap();
            let sender = Sender::new(webhook, store.deliveries(), metrics.clone(), timing);
            let stop = CancellationToken::new();
            let mut task = tokio::task::JoinSet::new();
            task.spawn(sender.run(stop.clone()));
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
            self.store.reports().add(report, Some("{}".into()), 1 << 30).await.unwrap();
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
        let scene = Scene::start(TIMING).await;
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
        let scene = Scene::start(DeliveryTiming { attempt: Duration::from_secs(10), ..TIMING }).await;
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
        let mut scene = Scene::start(DeliveryTiming { attempt: Duration::from_secs(10), ..TIMING }).await;
        let [first, second] = [scene.report().await, scene.report().await];
        let mut request = scene.request().await;
        scene.stop.cancel();
        request.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        timeout(Duration::from_secs(10), scene.task.join_next()).await.unwrap().unwrap().unwrap();
        let states = [scene.state(first).await, scene.state(second).await];
        assert_eq!(states, ["delivered", "waiting"]);
    }
}
