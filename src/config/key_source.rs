//! A key as a setting or in a file.

use std::path::PathBuf;
use std::{fs, io};

use secrecy::SecretString;

/// The place of a key.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// The setting itself.
    Text(SecretString),
    /// A file that contains it.
    File(PathBuf),
}

impl KeySource {
    /// The error of a key that is too short, or that a path would have to escape; none for a good one.
    pub fn defect(key: &str) -> Option<&'static str> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let is_good = (16..=256).contains(&key.len()) && key.bytes().all(is_plain);
        (!is_good).then_some("a key has 16 to 256 of the characters A-Z, a-z, 0-9, -, ., _ and ~")
    }

    /// Reads the key, whose file may end with a line break; `setting` names it in errors, and `defect` tells the
    /// error of one in a file.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn read(
        &self,
        setting: &'static str,
        defect: impl Fn(&str) -> Option<&'static str>,
    ) -> Result<SecretString, KeyFileError> {
        let path = match self {
            Self::Text(key) => return Ok(key.clone()),
            Self::File(path) => path,
        };
        let text = fs::read_to_string(path).map_err(|error| KeyFileError::Unreadable {
            setting,
            path: path.clone(),
            error,
        })?;
        let key = text.trim_end_matches(['\r', '\n']);
        match defect(key) {
            None => Ok(key.into()),
            Some(defect) => Err(KeyFileError::NoKey { setting, path: path.clone(), defect }),
        }
    }
}

/// A key's file is unusable.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("{setting}: {} cannot be read: {error}", path.display())]
    Unreadable {
        /// The setting of the key.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// It does not contain a key.
    #[error("{setting}: {} does not contain a key: {defect}", path.display())]
    NoKey {
        /// The setting of the key.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The rule for keys.
        defect: &'static str,
    },
}
