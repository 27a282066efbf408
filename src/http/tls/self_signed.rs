//! A self-signed certificate, kept on disk so that a browser's exception for it remains valid.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, date_time_ymd};
use secrecy::zeroize::Zeroizing;

use super::names::Names;
use super::pair::Pair;
use crate::store::data_dir::{DataDirError, read_private, write_private};

/// File in the data directory: certificate and key in one, so that they always match.
pub const FILE: &str = "self-signed.pem";

/// Validity of a certificate. Apple's systems reject more than 825 days.
const VALID: Duration = Duration::from_secs(800 * DAY);

/// Time before expiry at which a new certificate is made.
const RENEW: Duration = Duration::from_secs(30 * DAY);

/// Backdating of a certificate, for devices with a slow clock.
const BACK: Duration = Duration::from_secs(DAY);

const DAY: u64 = 24 * 60 * 60;

/// Maximum bytes to read; far more than a certificate and its key need.
const MAX_BYTES: u64 = 1 << 20;

/// Reasons for having no self-signed certificate.
#[derive(Debug, thiserror::Error)]
pub enum NoCertificate {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] DataDirError),
    /// The file holds something else; it is never replaced automatically.
    #[error("it {0}; remove it, and a new certificate is made, which browsers then ask about once more")]
    Broken(String),
    /// The library failed to create one.
    #[error("a certificate cannot be made: {0}")]
    NotMade(#[from] rcgen::Error),
}

/// Returns the certificate saved in `directory`, or makes a new one if there is none, it expires soon,
/// or it lacks a needed name.
///
/// # Errors
/// Returns [`NoCertificate`]; a saved certificate is left unchanged.
pub fn keep(directory: &Path, names: &Names, now: SystemTime) -> Result<Pair, NoCertificate> {
    if let Some(text) = read_private(&directory.join(FILE), MAX_BYTES)? {
        let pair = Pair::read_joined(&text).map_err(NoCertificate::Broken)?;
        if now >= pair.validity.from
            && now + RENEW < pair.validity.until
            && names.needed.iter().all(|name| pair.covers(name))
        {
            return Ok(pair);
        }
    }
    let text = make(&names.all, now)?;
    let pair = Pair::read_joined(&text).map_err(NoCertificate::Broken)?;
    write_private(directory, FILE, &text)?;
    Ok(pair)
}

fn make(names: &[String], now: SystemTime) -> Result<Zeroizing<Vec<u8>>, NoCertificate> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    // A clock before 1975 gives a certificate that begins in 1975.
    let moment = |at: Option<SystemTime>| at.map_or_else(|| date_time_ymd(1975, 1, 1), Into::into);
    params.not_before = moment(now.checked_sub(BACK));
    params.not_after = moment(now.checked_add(VALID));
    params.distinguished_name.push(DnType::CommonName, "Satsuma, self-signed");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut text = Zeroizing::new(params.self_signed(&key)?.pem().into_bytes());
    text.extend_from_slice(Zeroizing::new(key.serialize_pem()).as_bytes());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(all: &[&str]) -> Names {
        let all: Vec<_> = all.iter().map(|&name| name.to_owned()).collect();
        Names { needed: all.clone(), all }
    }

    fn at(days: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs((20_000 + days) * DAY)
    }

    #[test]
    fn certificate_is_kept_until_near_expiry() {
        let directory = tempfile::tempdir().unwrap();
        let names = names(&["localhost", "192.168.1.5", "::1"]);
        let first = keep(directory.path(), &names, at(0)).unwrap();
        assert_eq!((first.validity.from, first.validity.until), (at(0) - BACK, at(800)));
        let mode = fs::metadata(directory.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for day in [0, 1, 769] {
            assert_eq!(
                keep(directory.path(), &names, at(day)).unwrap().fingerprint(),
                first.fingerprint(),
                "{day}"
            );
        }
        let second = keep(directory.path(), &names, at(770)).unwrap();
        assert_ne!(second.fingerprint(), first.fingerprint());
        assert_eq!(keep(directory.path(), &names, at(771)).unwrap().fingerprint(), second.fingerprint());
    }

    #[test]
    fn only_a_missing_needed_name_renews() {
        let directory = tempfile::tempdir().unwrap();
        let first = keep(directory.path(), &names(&["localhost", "10.0.0.1"]), at(0)).unwrap();
        let fewer = keep(directory.path(), &names(&["localhost"]), at(0)).unwrap();
        assert_eq!(fewer.fingerprint(), first.fingerprint());
        let mut wanted = names(&["localhost"]);
        wanted.all.push("172.17.0.1".to_owned());
        assert_eq!(keep(directory.path(), &wanted, at(0)).unwrap().fingerprint(), first.fingerprint());
        let other = keep(directory.path(), &names(&["localhost", "10.0.0.2"]), at(0)).unwrap();
        assert_ne!(other.fingerprint(), first.fingerprint());
    }

    #[test]
    fn foreign_file_is_an_error_and_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        fs::write(&path, "mine").unwrap();
        let error = keep(directory.path(), &names(&["localhost"]), at(0)).unwrap_err().to_string();
        assert!(error.contains("remove it"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
