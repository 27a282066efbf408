//! The certificate in use, and the task that replaces it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::acceptor::{Acceptor, Handshakes};
use super::acme::{AcmeSettings, Renewal};
use super::pair::{Pair, Validity};
use super::source::CertificateSource;
use super::wall_clock;
use crate::config::{Config, ConfigErrors};
use crate::metrics::Metrics;

/// The certificate in use and the origin of its successor.
#[derive(Debug)]
pub struct Certificates {
    in_use: InUse,
    successor: Successor,
    facts: CertificateFacts,
}

/// The origin of a new certificate.
#[derive(Debug)]
enum Successor {
    Reload(Reload),
    Renewal(Box<Renewal>),
}

/// Facts about a certificate, logged when the server starts.
#[derive(Clone, Debug)]
pub struct CertificateFacts {
    /// Fingerprint that people compare; `None` before the first order by ACME.
    pub fingerprint: Option<String>,
    text: String,
}

impl fmt::Display for CertificateFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Certificates {
    /// Loads the configured certificate; `None` means plain HTTP.
    ///
    /// # Errors
    /// Returns all faults, each with its file and its setting.
    pub fn open(config: &Config, metrics: Arc<Metrics>) -> Result<Option<Self>, ConfigErrors> {
        if let Some(settings) = AcmeSettings::of(config) {
            return Self::with_renewal(settings, metrics).map(Some);
        }
        CertificateSource::of(config).map(|source| Self::with_reload(source, metrics)).transpose()
    }

    fn with_renewal(settings: AcmeSettings, metrics: Arc<Metrics>) -> Result<Self, ConfigErrors> {
        let place = settings.place().display().to_string();
        let (names, authority) = (settings.domains.join(", "), settings.directory.as_str().to_owned());
        let (renewal, pair) = Renewal::open(settings).map_err(|error| ConfigErrors(vec![error]))?;
        let fingerprint = pair.as_ref().map(Pair::fingerprint);
        let text = match &fingerprint {
            Some(fingerprint) => {
                format!("certificate for {names} in {place}, SHA-256 {fingerprint}; renewed by {authority}")
            }
            None => format!("certificate for {names} is ordered from {authority}; https waits for it"),
        };
        let in_use = InUse::new(pair, place, metrics);
        let facts = CertificateFacts { fingerprint, text };
        Ok(Self { in_use, successor: Successor::Renewal(Box::new(renewal)), facts })
    }

    fn with_reload(source: CertificateSource, metrics: Arc<Metrics>) -> Result<Self, ConfigErrors> {
        let now = wall_clock();
        let (pair, place) = (source.load(now)?, source.place());
        let fingerprint = pair.fingerprint();
        let mut text = format!("certificate in {place}, SHA-256 {fingerprint}");
        if let CertificateSource::SelfSigned { names, .. } = &source {
            let names = names.all.join(", ");
            text +=
                &format!("\nit is self-signed, for {names}; browsers ask about it once: compare the SHA-256");
        }
        let facts = CertificateFacts { fingerprint: Some(fingerprint), text };
        let mut in_use = InUse::new(Some(pair), place, metrics);
        in_use.watch_validity(now);
        Ok(Self { in_use, successor: Successor::Reload(Reload { source, faults: None }), facts })
    }

    /// Creates the acceptor for connections, which always uses the current certificate.
    pub fn acceptor(&self) -> Acceptor {
        Acceptor::Tls(self.in_use.handshakes.subscribe())
    }

    /// Returns the facts to log when the server starts.
    pub fn facts(&self) -> CertificateFacts {
        self.facts.clone()
    }

    /// Renews the certificate by ACME, or reloads its files at the given interval.
    pub async fn keep_fresh(self, reload: Duration) {
        match self.successor {
            Successor::Renewal(renewal) => renewal.run(self.in_use).await,
            Successor::Reload(files) => files.run(self.in_use, reload).await,
        }
    }
}

/// The certificate in use, shared with all handshakes.
#[derive(Debug)]
pub struct InUse {
    handshakes: watch::Sender<Handshakes>,
    /// Path of the certificate's file.
    place: String,
    metrics: Arc<Metrics>,
    /// Last validity warning logged.
    warned: Option<String>,
}

impl InUse {
    fn new(pair: Option<Pair>, place: String, metrics: Arc<Metrics>) -> Self {
        let expires = pair.as_ref().map_or(0, |pair| pair.validity.expires_seconds());
        metrics.tls_certificate_expires.set(expires);
        let handshakes = watch::Sender::new(Handshakes { pair, ..Handshakes::default() });
        Self { handshakes, place, metrics, warned: None }
    }

    /// The certificates for handshakes.
    pub fn handshakes(&self) -> &watch::Sender<Handshakes> {
        &self.handshakes
    }

    /// The server's metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Validity of the certificate; `None` if there is none yet.
    pub fn validity(&self) -> Option<Validity> {
        self.handshakes.borrow().pair.as_ref().map(|pair| pair.validity)
    }

    /// Uses a certificate for new connections, if it is another one.
    pub fn replace(&mut self, pair: Pair) {
        if self.handshakes.borrow().pair.as_ref().is_some_and(|current| current.chain == pair.chain) {
            return;
        }
        info!(event = "certificateTaken", place = self.place, fingerprint = pair.fingerprint());
        Metrics::count(&self.metrics.tls_reloads, "used");
        self.metrics.tls_certificate_expires.set(pair.validity.expires_seconds());
        self.handshakes.send_modify(|handshakes| handshakes.pair = Some(pair));
    }

    /// Logs a warning about the validity of the certificate, once per text.
    pub fn watch_validity(&mut self, now: SystemTime) {
        let warning = self.validity().and_then(|validity| validity.warning(&self.place, now));
        if let Some(warning) = warning.as_ref().filter(|&warning| self.warned.as_ref() != Some(warning)) {
            warn!(event = "certificateValidity", "{warning}");
        }
        self.warned = warning;
    }
}

/// The reload of a certificate's files.
#[derive(Debug)]
struct Reload {
    source: CertificateSource,
    /// Faults found by the last reload, and how often in a row.
    faults: Option<(ConfigErrors, u32)>,
}

impl Reload {
    async fn run(mut self, mut in_use: InUse, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (source, now) = (self.source.clone(), wall_clock());
            // The file may be on a network file system that hangs.
            let Ok(loaded) = spawn_blocking(move || source.load(now)).await else { continue };
            self.take(loaded, &mut in_use);
            in_use.watch_validity(now);
        }
    }

    /// Uses a loaded certificate, or logs faults that were there at two reloads.
    ///
    /// Certificate and key files are written one after the other, so a mismatch may be gone at the next one.
    fn take(&mut self, loaded: Result<Pair, ConfigErrors>, in_use: &mut InUse) {
        match loaded {
            Ok(pair) => {
                self.faults = None;
                in_use.replace(pair);
            }
            Err(faults) => {
                let before =
                    self.faults.take().filter(|(last, _)| *last == faults).map_or(0, |(_, count)| count);
                if before == 1 {
                    warn!(event = "certificateUnusable", error = %faults, "the one before stays in use");
                    Metrics::count(&in_use.metrics.tls_reloads, "unusable");
                }
                self.faults = Some((faults, before.saturating_add(1)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::metrics::ByReason;

    fn files(directory: &Path) -> CertificateSource {
        CertificateSource::Files { certificate: directory.join("chain.pem"), key: directory.join("key.pem") }
    }

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["meet.example".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn shown(certificates: &Certificates) -> String {
        certificates.in_use.handshakes.borrow().pair.as_ref().unwrap().fingerprint()
    }

    /// Reloads once, as the task does.
    fn look(certificates: &mut Certificates) {
        let Successor::Reload(reload) = &mut certificates.successor else { panic!("no files") };
        let loaded = reload.source.load(wall_clock());
        reload.take(loaded, &mut certificates.in_use);
    }

    #[test]
    fn only_persistent_faults_are_logged() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        let ((first, first_key), (second, second_key)) = (made(), made());
        write("chain.pem", &first);
        write("key.pem", &first_key);
        let metrics = Metrics::new();
        let count = |reason| metrics.tls_reloads.get_or_create(&ByReason { reason }).get();
        let mut certificates = Certificates::with_reload(files(directory.path()), metrics.clone()).unwrap();
        let before = shown(&certificates);

        write("chain.pem", &second);
        look(&mut certificates);
        assert_eq!((shown(&certificates), count("unusable")), (before.clone(), 0));
        write("key.pem", &second_key);
        look(&mut certificates);
        let after = shown(&certificates);
        assert_ne!(after, before);
        assert_eq!((count("used"), count("unusable")), (1, 0));

        write("key.pem", "broken");
        for _ in 0..3 {
            look(&mut certificates);
        }
        assert_eq!((shown(&certificates), count("unusable")), (after, 1), "said once");
        write("key.pem", &second_key);
        look(&mut certificates);
        write("key.pem", "broken again");
        look(&mut certificates);
        assert_eq!((count("used"), count("unusable")), (1, 1));
    }
}
