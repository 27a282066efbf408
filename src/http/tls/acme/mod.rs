//! The certificate ordered and renewed by ACME.

mod order;
mod saved;
mod schedule;
mod transport;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use self::order::{OrderError, order};
use self::saved::{SavedAccount, SavedCertificate, blocking};
use self::schedule::{pause, renewal_time};
use self::transport::Transport;
use super::certificates::InUse;
use super::pair::Pair;
use super::wall_clock;
use crate::config::{Config, ConfigError, DomainName, HttpUrl};
use crate::metrics::Metrics;

/// Deadline of a whole order.
const ORDER_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Longest sleep before the clock is read again: it may have been set, or the machine suspended.
const LONGEST_SLEEP: Duration = Duration::from_secs(60 * 60);

/// The settings of ACME.
#[derive(Clone, Debug)]
pub struct AcmeSettings {
    /// Names of the certificate; at least one.
    pub domains: Vec<String>,
    /// The operator's e-mail address.
    pub email: Option<String>,
    /// The authority's directory.
    pub directory: HttpUrl,
    /// Pause after a first failure.
    pub retry: Duration,
    /// Directory of the account and the certificate.
    pub data_dir: PathBuf,
}

impl AcmeSettings {
    /// Returns the settings if ACME is configured.
    pub fn of(config: &Config) -> Option<Self> {
        let http = &config.http;
        let mut domains: Vec<String> = Vec::new();
        for name in http.acme_domains.iter().map(DomainName::as_str) {
            if !domains.iter().any(|known| known == name) {
                domains.push(name.to_owned());
            }
        }
        (!domains.is_empty()).then(|| Self {
            domains,
            email: http.acme_email.0.clone(),
            directory: http.acme_directory.clone(),
            retry: http.acme_retry,
            data_dir: config.data_dir.clone(),
        })
    }

    /// Path of the certificate's file.
    pub fn place(&self) -> PathBuf {
        self.data_dir.join(saved::CERTIFICATE)
    }
}

/// The renewal of the certificate, and its first order.
pub struct Renewal {
    settings: AcmeSettings,
    transport: Transport,
    account: Option<SavedAccount>,
    /// A certificate in use that could not be written yet.
    unsaved: Option<SavedCertificate>,
    /// Consecutive failures.
    failures: u32,
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest holds keys.
        f.debug_struct("Renewal").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Renewal {
    /// Reads the saved account and certificate; both are missing before the first order, and are not used
    /// after a change of the authority or of the names.
    ///
    /// # Errors
    /// The file that cannot be used.
    pub fn open(settings: AcmeSettings) -> Result<(Self, Option<Pair>), ConfigError> {
        let fault = |path: &Path, problem: String| ConfigError {
            origin: path.display().to_string(),
            key: Some("http.acme_domains".to_owned()),
            problem,
        };
        let AcmeSettings { data_dir, directory, domains, .. } = &settings;
        let account = SavedAccount::read(data_dir, directory)
            .map_err(|error| fault(&data_dir.join(saved::ACCOUNT), error.to_string()))?;
        let pair = SavedCertificate::read(data_dir, directory)
            .map_err(|error| fault(&settings.place(), error.to_string()))?;
        let pair = pair.filter(|pair| domains.iter().all(|name| pair.covers(name)));
        let transport = Transport::new(directory)
            .map_err(|error| fault(data_dir, format!("the HTTP client cannot be made: {error}")))?;
        Ok((Self { settings, transport, account, unsaved: None, failures: 0 }, pair))
    }

    /// Orders the certificate when it is due, and retries with growing pauses.
    pub async fn run(mut self, mut in_use: InUse) {
        loop {
            let now = wall_clock();
            let due = in_use.validity().map(|validity| renewal_time(&validity));
            let pause = match due.map(|due| due.duration_since(now).unwrap_or_default()) {
                Some(left) if !left.is_zero() => {
                    self.save().await;
                    left.min(LONGEST_SLEEP)
                }
                _ => self.renew(&mut in_use).await,
            };
            sleep(if self.unsaved.is_some() { pause.min(self.settings.retry) } else { pause }).await;
        }
    }

    /// Makes one order, and returns the pause after it.
    async fn renew(&mut self, in_use: &mut InUse) -> Duration {
        let Self { settings, transport, account, .. } = self;
        let (names, directory) = (settings.domains.join(", "), settings.directory.as_str());
        let text = match in_use.validity() {
            None => "https connections wait for the first certificate",
            Some(_) => "the certificate in use is due for renewal",
        };
        info!(event = "certificateOrdered", names, directory, "{text}");
        // An answer that panics the library must not end the renewal.
        let ordering =
            AssertUnwindSafe(order(settings, transport, account, in_use.handshakes())).catch_unwind();
        let ordered = timeout(ORDER_TIMEOUT, ordering).await.unwrap_or(Ok(Err(OrderError::TimedOut)));
        let error = match ordered.unwrap_or(Err(OrderError::Panicked)) {
            Ok((pair, saved)) => {
                (self.failures, self.unsaved) = (0, Some(saved));
                self.save().await;
                in_use.replace(pair);
                Metrics::count(&in_use.metrics().acme_orders, "obtained");
                return self.settings.retry;
            }
            Err(error) => error,
        };
        self.failures = self.failures.saturating_add(1);
        Metrics::count(&in_use.metrics().acme_orders, "failed");
        let pause = pause(settings.retry, self.failures, transport.take_requested_pause());
        let text = match &error {
            OrderError::Refused { .. } => "port 443 of each name has to lead to http.listen",
            _ if in_use.validity().is_none() => "https connections wait until an order succeeds",
            _ => "the certificate in use stays",
        };
        let (error, next_try_seconds) = (error.summary(), pause.as_secs());
        warn!(event = "certificateNotObtained", names, directory, error, next_try_seconds, "{text}");
        in_use.watch_validity(wall_clock());
        pause
    }

    /// Writes a new certificate, and keeps it for the next time if that fails.
    async fn save(&mut self) {
        let Some(unsaved) = self.unsaved.clone() else { return };
        let directory = self.settings.data_dir.clone();
        match blocking(move || unsaved.save(&directory)).await {
            Ok(()) => self.unsaved = None,
            Err(error) => {
                warn!(event = "certificateNotSaved", %error, "it is in use, but a restart would order another one");
            }
        }
    }
}
