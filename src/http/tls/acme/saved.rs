//! The account and the certificate in the data directory, so that a restart orders nothing.

use std::path::Path;

use instant_acme::{AccountCredentials, Error};
use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::task::spawn_blocking;

use super::AcmeSettings;
use crate::config::HttpUrl;
use crate::http::tls::pair::Pair;
use crate::store::data_dir::{DataDirError, read_private, write_private};

/// File of the certificate and its key in the data directory: one, so that they always match.
pub const CERTIFICATE: &str = "acme.pem";

/// File of the account in the data directory.
pub const ACCOUNT: &str = "acme-account.json";

/// Maximum bytes to read; far more than either file needs.
const MAX_BYTES: u64 = 1 << 20;

/// A file that cannot be used, worded to follow its path; it is never replaced automatically.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] DataDirError),
    /// The file holds no account.
    #[error("it holds no ACME account; remove it, and a new account is made")]
    NoAccount,
    /// The file holds no certificate with its key.
    #[error("it {0}; remove it, and a new certificate is ordered")]
    NoCertificate(String),
}

/// An account with an authority, as in its file.
#[derive(Clone, Serialize, Deserialize)]
pub struct SavedAccount {
    directory: String,
    /// The e-mail address that the authority has.
    pub email: Option<String>,
    /// [`AccountCredentials`], which cannot be cloned.
    credentials: Box<RawValue>,
    /// False until the file has this content.
    #[serde(skip)]
    pub is_written: bool,
}

impl SavedAccount {
    /// Creates the account's file for `credentials`.
    ///
    /// # Errors
    /// None in practice: credentials are JSON.
    pub fn new(settings: &AcmeSettings, credentials: &AccountCredentials) -> Result<Self, Error> {
        let credentials = serde_json::value::to_raw_value(credentials)?;
        let directory = settings.directory.as_str().to_owned();
        Ok(Self { directory, email: settings.email.clone(), credentials, is_written: false })
    }

    /// Reads the account with the authority of `directory`; `None` if there is none.
    ///
    /// # Errors
    /// If the file cannot be read or holds something else.
    pub fn read(data_dir: &Path, directory: &HttpUrl) -> Result<Option<Self>, SavedError> {
        let Some(text) = read_private(&data_dir.join(ACCOUNT), MAX_BYTES)? else { return Ok(None) };
        let mut saved: Self = serde_json::from_slice(&text).map_err(|_| SavedError::NoAccount)?;
        let _ = saved.credentials().map_err(|_| SavedError::NoAccount)?;
        saved.is_written = true;
        Ok(Some(saved).filter(|saved| saved.directory == directory.as_str()))
    }

    /// Returns the credentials.
    ///
    /// # Errors
    /// If they are malformed.
    pub fn credentials(&self) -> Result<AccountCredentials, Error> {
        Ok(serde_json::from_str(self.credentials.get())?)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// [`DataDirError`] names the path.
    pub fn save(&self, data_dir: &Path) -> Result<(), DataDirError> {
        // Strings and JSON cannot fail to serialize.
        let text = Zeroizing::new(serde_json::to_vec(self).unwrap_or_default());
        write_private(data_dir, ACCOUNT, &text)
    }
}

/// A certificate with its key, as in its file.
#[derive(Clone)]
pub struct SavedCertificate(Zeroizing<Vec<u8>>);

impl SavedCertificate {
    /// Joins a key and a chain in PEM form, below the authority that issued it.
    pub fn new(directory: &HttpUrl, key: &str, chain: &str) -> Self {
        let mut text = Zeroizing::new(origin(directory).into_bytes());
        text.extend_from_slice(key.as_bytes());
        text.extend_from_slice(chain.as_bytes());
        Self(text)
    }

    /// Reads the certificate from the authority of `directory`; `None` if there is none.
    ///
    /// # Errors
    /// If the file cannot be read or holds something else.
    pub fn read(data_dir: &Path, directory: &HttpUrl) -> Result<Option<Pair>, SavedError> {
        let Some(text) = read_private(&data_dir.join(CERTIFICATE), MAX_BYTES)? else { return Ok(None) };
        let is_of_authority = text.starts_with(origin(directory).as_bytes());
        let pair = Self(text).pair().map_err(SavedError::NoCertificate)?;
        Ok(Some(pair).filter(|_| is_of_authority))
    }

    /// Parses the certificate and its key.
    ///
    /// # Errors
    /// All faults in one text.
    pub fn pair(&self) -> Result<Pair, String> {
        Pair::read_joined(&self.0)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// [`DataDirError`] names the path.
    pub fn save(&self, data_dir: &Path) -> Result<(), DataDirError> {
        write_private(data_dir, CERTIFICATE, &self.0)
    }
}

/// First line of the certificate's file, which PEM parsers skip.
fn origin(directory: &HttpUrl) -> String {
    format!("# issued by {}\n", directory.as_str())
}

/// Runs file access off the runtime's threads: the file system may be a network's, and hang.
pub async fn blocking<T: Send + 'static>(
    task: impl FnOnce() -> Result<T, DataDirError> + Send + 'static,
) -> Result<T, DataDirError> {
    match spawn_blocking(task).await {
        Ok(result) => result,
        // A panic goes on here; only a runtime that shuts down cancels the task.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}
