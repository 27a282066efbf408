//! The certificate's source: the operator's files, or a self-signed one.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use secrecy::zeroize::Zeroizing;

use super::names::Names;
use super::pair::{Half, Pair};
use super::self_signed;
use crate::config::{Config, ConfigError, ConfigErrors};

/// Maximum bytes to read; far more than any chain needs.
const MAX_BYTES: u64 = 1 << 20;

/// The source of a certificate.
#[derive(Clone, Debug)]
pub enum CertificateSource {
    /// Files provided by the operator.
    Files {
        /// Path of the certificate, followed by its chain.
        certificate: PathBuf,
        /// Path of the key.
        key: PathBuf,
    },
    /// Self-signed by the server.
    SelfSigned {
        /// Directory to save it in.
        directory: PathBuf,
        /// Names that it must cover.
        names: Names,
    },
}

impl CertificateSource {
    /// Returns the configured source; `None` means plain HTTP.
    pub fn of(config: &Config) -> Option<Self> {
        let http = &config.http;
        match (http.tls_certificate.as_ref(), http.tls_key.as_ref()) {
            (Some(certificate), Some(key)) => {
                Some(Self::Files { certificate: certificate.clone(), key: key.clone() })
            }
            _ if http.tls_self_signed => {
                Some(Self::SelfSigned { directory: config.data_dir.clone(), names: Names::of(http) })
            }
            _ => None,
        }
    }

    /// Returns the path of the certificate's file, for messages.
    pub fn place(&self) -> String {
        match self {
            Self::Files { certificate, .. } => certificate.display().to_string(),
            Self::SelfSigned { directory, .. } => directory.join(self_signed::FILE).display().to_string(),
        }
    }

    /// Loads the certificate, or creates it.
    ///
    /// # Errors
    /// Returns all faults, each with its file and its setting.
    pub fn load(&self, now: SystemTime) -> Result<Pair, ConfigErrors> {
        match self {
            Self::Files { certificate, key } => load_files(certificate, key),
            Self::SelfSigned { directory, names } => {
                self_signed::keep(directory, names, now).map_err(|error| {
                    ConfigErrors(vec![ConfigError {
                        origin: self.place(),
                        key: Some("http.tls_self_signed".to_owned()),
                        problem: error.to_string(),
                    }])
                })
            }
        }
    }
}

fn load_files(certificate: &Path, key: &Path) -> Result<Pair, ConfigErrors> {
    let fault = |half, problem| {
        let (path, setting) = match half {
            Half::Certificate => (certificate, "http.tls_certificate"),
            Half::Key => (key, "http.tls_key"),
        };
        ConfigError { origin: path.display().to_string(), key: Some(setting.to_owned()), problem }
    };
    let read = match (read(certificate), read(key)) {
        (Ok(certificate), Ok(key)) => Pair::read(&certificate, &key),
        (certificate, key) => {
            let flaws = [(Half::Certificate, certificate.err()), (Half::Key, key.err())];
            Err(flaws.into_iter().filter_map(|(half, problem)| Some((half, problem?))).collect())
        }
    };
    read.map_err(|flaws| {
        ConfigErrors(flaws.into_iter().map(|(half, problem)| fault(half, problem)).collect())
    })
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut text = Zeroizing::new(Vec::with_capacity(16 << 10));
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("has more than {MAX_BYTES} bytes, which no certificate and no key has"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Optional;

    #[test]
    fn faults_name_file_and_setting() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
        let mut config = Config::default();
        config.http.tls_certificate = Optional(Some(certificate.clone()));
        config.http.tls_key = Optional(Some(key.clone()));
        let faults = || super::super::check(&config).unwrap_err().to_string();
        let missing = "cannot be read: No such file or directory (os error 2)";
        assert_eq!(
            faults(),
            format!(
                "{}: http.tls_certificate: {missing}\n{}: http.tls_key: {missing}",
                certificate.display(),
                key.display()
            )
        );
        fs::write(&key, "no key").unwrap();
        fs::write(&certificate, vec![b'x'; 2 << 20]).unwrap();
        assert!(
            faults().contains("chain.pem: http.tls_certificate: has more than 1048576 bytes"),
            "{}",
            faults()
        );
        fs::write(&certificate, "no certificate").unwrap();
        assert_eq!(faults().lines().count(), 2);

        let made = rcgen::generate_simple_self_signed(vec!["meet.example".to_owned()]).unwrap();
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        assert_eq!(super::super::check(&config).unwrap(), [""; 0]);
    }

    #[test]
    fn config_without_tls_has_no_source() {
        assert!(CertificateSource::of(&Config::default()).is_none());
        assert!(super::super::check(&Config::default()).unwrap().is_empty());
    }
}
