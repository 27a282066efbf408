//! The certificate in use, and the task that reloads it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::acceptor::Acceptor;
use super::pair::{Fingerprint, Pair};
use super::source::CertificateSource;
use super::wall_clock;
use crate::config::ConfigErrors;
use crate::metrics::Metrics;

/// The certificate in use and the source of its successor.
#[derive(Debug)]
pub struct Certificates {
    source: CertificateSource,
    in_use: watch::Sender<Pair>,
    metrics: Arc<Metrics>,
    /// Faults found by the last reload.
    faults: Option<Complaint>,
    /// Last validity warning logged.
    said: Option<String>,
}

/// Facts about a certificate, logged when the server starts.
#[derive(Clone, Debug)]
pub struct CertificateFacts {
    /// Path of its file.
    pub place: String,
    /// Fingerprint that people compare.
    pub fingerprint: Fingerprint,
    /// Names in the certificate, if it is self-signed.
    pub names: Option<Vec<String>>,
}

impl fmt::Display for CertificateFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, fingerprint, names } = self;
        write!(f, "certificate in {place}, SHA-256 {fingerprint}")?;
        match names {
            None => Ok(()),
            Some(names) => write!(
                f,
                "\nit is self-signed, for {}; browsers ask about it once: compare the SHA-256",
                names.join(", ")
            ),
        }
    }
}

/// Faults of the source, and a flag for those already logged.
///
/// Certificate and key files are written one after the other, so a mismatch may be gone at the next
/// reload; only faults that persist are logged.
#[derive(Debug)]
struct Complaint {
    faults: ConfigErrors,
    is_told: bool,
}

impl Certificates {
    /// Loads the first certificate.
    ///
    /// # Errors
    /// Returns all faults, each with its file and its setting.
    pub fn open(source: CertificateSource, metrics: Arc<Metrics>) -> Result<Self, ConfigErrors> {
        let now = wall_clock();
        let pair = source.load(now)?;
        metrics.tls_certificate_expires.set(pair.validity.expires_seconds());
        let mut certificates =
            Self { source, in_use: watch::Sender::new(pair), metrics, faults: None, said: None };
        certificates.watch_validity(now);
        Ok(certificates)
    }

    /// Creates the acceptor for connections, which always uses the current certificate.
    pub fn acceptor(&self) -> Acceptor {
        Acceptor::Tls(self.in_use.subscribe())
    }

    /// Returns the facts to log when the server starts.
    pub fn facts(&self) -> CertificateFacts {
        let names = match &self.source {
            CertificateSource::Files { .. } => None,
            CertificateSource::SelfSigned { names, .. } => Some(names.all.clone()),
        };
        CertificateFacts { place: self.source.place(), fingerprint: self.in_use.borrow().fingerprint, names }
    }

    /// Reloads the source at the given interval, and starts to use a new certificate if it is valid.
    pub async fn keep_fresh(mut self, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (source, now) = (self.source.clone(), wall_clock());
            // The file may be on a network file system that hangs.
            let Ok(looked) = spawn_blocking(move || source.load(now)).await else { continue };
            self.take(looked, now);
        }
    }

    fn take(&mut self, looked: Result<Pair, ConfigErrors>, now: SystemTime) {
        match looked {
            Ok(pair) => {
                self.faults = None;
                let is_new = self.in_use.borrow().chain != pair.chain;
                if is_new {
                    info!(event = "certificateTaken", place = self.source.place(), fingerprint = %pair.fingerprint);
                    Metrics::count(&self.metrics.tls_reloads, "used");
                    self.metrics.tls_certificate_expires.set(pair.validity.expires_seconds());
                    self.in_use.send_replace(pair);
                }
            }
            Err(faults) => match &mut self.faults {
                Some(last) if last.faults == faults => {
                    if !last.is_told {
                        last.is_told = true;
                        warn!(event = "certificateUnusable", error = %faults, "the one before stays in use");
                        Metrics::count(&self.metrics.tls_reloads, "unusable");
                    }
                }
                last => *last = Some(Complaint { faults, is_told: false }),
            },
        }
        self.watch_validity(now);
    }

    /// Logs a warning about the validity of the certificate in use, once per text.
    fn watch_validity(&mut self, now: SystemTime) {
        let warning = self.in_use.borrow().validity.warning(&self.source.place(), now);
        if let Some(warning) = warning.as_ref().filter(|&warning| self.said.as_ref() != Some(warning)) {
            warn!(event = "certificateValidity", "{warning}");
        }
        self.said = warning;
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

    fn shown(certificates: &Certificates) -> Fingerprint {
        certificates.facts().fingerprint
    }

    /// Reloads once, as the task does.
    fn look(certificates: &mut Certificates) {
        let now = wall_clock();
        let looked = certificates.source.load(now);
        certificates.take(looked, now);
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
        let mut certificates = Certificates::open(files(directory.path()), metrics.clone()).unwrap();
        let before = shown(&certificates);

        write("chain.pem", &second);
        look(&mut certificates);
        assert_eq!((shown(&certificates), count("unusable")), (before, 0));
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
