//! A certificate and its key, read from PEM and checked to match.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs as provider;
use rustls::server::{ParsedCertificate, ServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Time before expiry at which the warning starts, unless the whole validity is short. An automated
/// renewal has happened by then.
const SOON: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A certificate with its chain and its key, ready for connections.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Configuration of a connection's handshake.
    pub config: Arc<ServerConfig>,
    /// Validity period of the certificate.
    pub validity: Validity,
    /// The certificate, and its chain, which may change while the certificate does not.
    pub chain: Vec<CertificateDer<'static>>,
}

/// The file at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The certificate's file.
    Certificate,
    /// The key's file.
    Key,
}

/// A fault of one of the two files, worded to follow the file's name.
pub type CertError = (Half, String);

impl Pair {
    /// Parses a certificate, followed by its chain, and a key. Other PEM blocks are skipped, so that one
    /// file may hold both.
    ///
    /// # Errors
    /// Returns all faults of either.
    pub fn read(certificate: &[u8], key: &[u8]) -> Result<Self, Vec<CertError>> {
        let (chain, key) = match (read_chain(certificate), read_key(key)) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
        };
        let of_certificate = |problem: String| vec![(Half::Certificate, problem)];
        let Some(first) = chain.first() else { return Err(of_certificate(no_certificate())) };
        let validity = Validity::of(first)
            .ok_or_else(|| of_certificate("holds a certificate that cannot be read (X.509)".to_owned()))?;
        let pair = CertifiedKey::from_der(chain.clone(), key, &provider::default_provider());
        let config = pair.and_then(server_config);
        let mut config = config.map_err(|error| vec![flaw(&error)])?;
        // A WebSocket needs HTTP/1.1; see docs/architecture.md.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), validity, chain })
    }

    /// Parses one text that holds a certificate and its key.
    ///
    /// # Errors
    /// Returns all faults as one text, worded to follow the file's name.
    pub fn read_joined(text: &[u8]) -> Result<Self, String> {
        Self::read(text, text).map_err(|flaws| {
            let problems: Vec<_> = flaws.into_iter().map(|(_, problem)| problem).collect();
            problems.join(", and ")
        })
    }

    /// SHA-256 of the certificate as browsers show it, for people to compare.
    pub fn fingerprint(&self) -> String {
        let sum = digest(&SHA256, &self.chain[0]);
        let bytes: Vec<_> = sum.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        bytes.join(":")
    }

    /// True if the certificate is for this host name or address.
    pub fn covers(&self, name: &str) -> bool {
        let Ok(certificate) = ParsedCertificate::try_from(&self.chain[0]) else { return false };
        ServerName::try_from(name).is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
    }
}

fn read_chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err((Half::Certificate, no_certificate())),
        Ok(chain) => Ok(chain),
        Err(_) => Err((Half::Certificate, "holds PEM that is cut off or malformed".to_owned())),
    }
}

fn no_certificate() -> String {
    "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)".to_owned()
}

fn read_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, CertError> {
    // The library's error could reveal part of the key.
    let problem = match PrivateKeyDer::from_pem_slice(text) {
        Ok(key) => return Ok(key),
        Err(pem::Error::NoItemsFound) if contains(text, b"BEGIN ENCRYPTED PRIVATE KEY") => {
            "holds a key under a password; take that off, for example with openssl pkey"
        }
        Err(pem::Error::NoItemsFound) => "holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)",
        Err(_) => "holds PEM that is cut off or malformed",
    };
    Err((Half::Key, problem.to_owned()))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn flaw(error: &rustls::Error) -> CertError {
    match error {
        rustls::Error::InconsistentKeys(_) => (Half::Key, "does not fit the certificate".to_owned()),
        rustls::Error::InvalidCertificate(_) => (
            Half::Certificate,
            "holds a certificate that cannot be used (X.509 version 3 is needed)".to_owned(),
        ),
        _ => (
            Half::Key,
            "holds a key that cannot be used; RSA of 2048 bits or more, ECDSA and Ed25519 can".to_owned(),
        ),
    }
}

/// Creates the configuration of handshakes with a certificate, without application protocols.
///
/// # Errors
/// If the system has no random bytes.
pub fn server_config(pair: CertifiedKey) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    // Session tickets are kept by the clients and cost no memory here.
    config.ticketer = provider::Ticketer::new()?;
    Ok(config)
}

/// Validity period of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First valid moment.
    pub from: SystemTime,
    /// Last valid moment.
    pub until: SystemTime,
}

impl Validity {
    fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let validity = certificate.validity();
        Some(Self {
            from: moment(validity.not_before.timestamp())?,
            until: moment(validity.not_after.timestamp())?,
        })
    }

    /// Returns the last valid moment, in seconds since 1970.
    pub fn expires_seconds(&self) -> i64 {
        let seconds = self.until.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        i64::try_from(seconds).unwrap_or(i64::MAX)
    }

    /// Returns a warning for the operator about the certificate at `place`, if it is not yet valid,
    /// expired or expires soon.
    pub fn warning(&self, place: &str, now: SystemTime) -> Option<String> {
        let (from, until) =
            (humantime::format_rfc3339_seconds(self.from), humantime::format_rfc3339_seconds(self.until));
        let whole = self.until.duration_since(self.from).unwrap_or_default();
        if now > self.until {
            Some(format!("{place}: the certificate expired at {until}; browsers refuse it"))
        } else if now < self.from {
            Some(format!(
                "{place}: the certificate is not valid before {from}; browsers refuse it until then"
            ))
        } else if now + SOON.min(whole / 3) > self.until {
            Some(format!("{place}: the certificate expires soon, at {until}"))
        } else {
            None
        }
    }
}

/// Converts seconds since 1970 to a time; `None` if this machine or a text cannot express it.
fn moment(seconds: i64) -> Option<SystemTime> {
    // The end of the year 9999, which stands for "never" (RFC 5280 section 4.1.2.5).
    const LAST: u64 = 253_402_300_799;
    // Times before 1970 are treated as 1970.
    let seconds = u64::try_from(seconds).unwrap_or(0);
    (seconds <= LAST).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn made(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_before = date_time_ymd(2024, 1, 1);
        params.not_after = date_time_ymd(2025, 1, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn flaws(certificate: &str, key: &str) -> Vec<(Half, String)> {
        Pair::read(certificate.as_bytes(), key.as_bytes()).expect_err("a flaw")
    }

    #[test]
    fn pair_parses_from_one_or_two_texts() {
        let (certificate, key) = made(&["meet.example"]);
        let pair = Pair::read(certificate.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(pair.config.alpn_protocols, [b"http/1.1"]);
        let both = format!("# a comment\n{key}{certificate}{}", made(&["chain.example"]).0);
        let same = Pair::read(both.as_bytes(), both.as_bytes()).unwrap();
        assert_eq!(same.fingerprint(), pair.fingerprint(), "the first certificate is the server's");
        assert_ne!(same.chain, pair.chain);
        let text = pair.fingerprint();
        assert_eq!((text.len(), text.matches(':').count()), (95, 31));
    }

    #[test]
    fn flaws_name_the_file_at_fault() {
        let (certificate, key) = made(&["a.example"]);
        let (_, other_key) = made(&["b.example"]);
        let found = |certificate: &str, key: &str| -> Vec<_> {
            flaws(certificate, key)
                .into_iter()
                .map(|(half, problem)| (half, problem.split(';').next().unwrap().to_owned()))
                .collect()
        };
        let no_certificate = (Half::Certificate, no_certificate());
        let no_key = (Half::Key, "holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)".to_owned());
        assert_eq!(found("", "hello"), [no_certificate.clone(), no_key.clone()]);
        assert_eq!(found(&key, &certificate), [no_certificate, no_key]);
        assert_eq!(found(&certificate, &other_key), [(Half::Key, "does not fit the certificate".to_owned())]);
        let cut = |text: &str| text[..text.len() / 2].to_owned();
        let malformed = "holds PEM that is cut off or malformed".to_owned();
        assert_eq!(found(&cut(&certificate), &key), [(Half::Certificate, malformed.clone())]);
        assert_eq!(found(&certificate, &cut(&key)), [(Half::Key, malformed)]);
        let locked = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        assert_eq!(found(&certificate, &locked), [(Half::Key, "holds a key under a password".to_owned())]);
        let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(found(empty, &key)[0].0, Half::Certificate);
        let empty = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(found(&certificate, empty), [(Half::Key, "holds a key that cannot be used".to_owned())]);
    }

    #[test]
    fn invalid_period_gives_a_warning() {
        let (certificate, key) = made(&["a.example"]);
        let Validity { from, until } = Pair::read(certificate.as_bytes(), key.as_bytes()).unwrap().validity;
        let validity = Validity { from, until };
        let day = Duration::from_secs(24 * 60 * 60);
        let said = |now| validity.warning("a.pem", now).unwrap_or_default();
        assert_eq!(
            said(from - day),
            "a.pem: the certificate is not valid before 2024-01-01T00:00:00Z; browsers refuse it until then"
        );
        assert_eq!(said(from + day), "");
        assert_eq!(said(until - day), "a.pem: the certificate expires soon, at 2025-01-01T00:00:00Z");
        assert_eq!(
            said(until + day),
            "a.pem: the certificate expired at 2025-01-01T00:00:00Z; browsers refuse it"
        );
        let short = Validity { from, until: from + 6 * day };
        assert_eq!(short.warning("a.pem", from + 3 * day), None, "as new as such a certificate should be");
        assert_eq!(validity.expires_seconds(), 1_735_689_600);
    }
}
