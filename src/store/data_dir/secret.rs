//! Secrets in files of the data directory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use base64::Engine;
use base64::engine::GeneralPurpose;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretSlice};
use subtle::ConstantTimeEq;

use super::{DataDirError, DirAccess, MAX_SECRET_BYTES, write_whole};

/// A kind of secret file.
pub(super) struct SecretFile {
    pub(super) name: &'static str,
    pub(super) encoding: &'static GeneralPurpose,
    pub(super) bytes: usize,
    pub(super) form: &'static str,
    pub(super) loss: &'static str,
}

/// A secret as bytes and as the text that stands for them.
pub(super) type Secret = (Zeroizing<Vec<u8>>, Zeroizing<String>);

impl SecretFile {
    /// Reads a secret, or makes one.
    pub(super) fn read_or_make(&self, directory: &Path, access: DirAccess) -> Result<Secret, DataDirError> {
        let path = directory.join(self.name);
        match File::open(&path) {
            Ok(file) => self.read(file, &path, access),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make(directory, &path, access),
            Err(error) => Err(DataDirError::io("read", &path, error)),
        }
    }

    /// Reads a secret, if there is one.
    pub(super) fn find(
        &self,
        directory: &Path,
        access: DirAccess,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, DataDirError> {
        let path = directory.join(self.name);
        match File::open(&path) {
            Ok(file) => self.read(file, &path, access).map(|(bytes, _)| Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DataDirError::io("read", &path, error)),
        }
    }

    /// Writes a key, unless it is the one that is there.
    pub(super) fn keep(
        &self,
        directory: &Path,
        access: DirAccess,
        old: Option<&SecretSlice<u8>>,
        new: &SecretSlice<u8>,
    ) -> Result<(), DataDirError> {
        if old.is_some_and(|old| old.expose_secret().ct_eq(new.expose_secret()).into()) {
            return Ok(());
        }
        let text = Zeroizing::new(self.encoding.encode(new.expose_secret()));
        write_whole(directory, self.name, text.as_bytes(), access)
            .map_err(|error| DataDirError::io("write", &directory.join(self.name), error))
    }

    fn read(&self, file: File, path: &Path, access: DirAccess) -> Result<Secret, DataDirError> {
        access.close(&file, path)?;
        let mut raw = Zeroizing::new(Vec::with_capacity(128));
        file.take(MAX_SECRET_BYTES)
            .read_to_end(&mut raw)
            .map_err(|error| DataDirError::io("read", path, error))?;
        let text = Zeroizing::new(String::from_utf8_lossy(raw.trim_ascii()).into_owned());
        let decoded = Zeroizing::new(self.encoding.decode(text.as_str()).unwrap_or_default());
        if decoded.len() != self.bytes {
            let path = path.to_owned();
            return Err(DataDirError::Malformed { path, form: self.form, loss: self.loss });
        }
        Ok((decoded, text))
    }

    /// Replaces the text of a secret, if it is another one.
    pub(super) fn replace(
        &self,
        directory: &Path,
        access: DirAccess,
        old: Zeroizing<String>,
        new: Zeroizing<String>,
    ) -> Result<Zeroizing<String>, DataDirError> {
        if bool::from(old.as_bytes().ct_eq(new.as_bytes())) {
            return Ok(old);
        }
        write_whole(directory, self.name, new.as_bytes(), access)
            .map_err(|error| DataDirError::io("replace", &directory.join(self.name), error))?;
        Ok(new)
    }

    /// Writes a new secret so that a crash leaves either all of it or nothing.
    fn make(&self, directory: &Path, path: &Path, access: DirAccess) -> Result<Secret, DataDirError> {
        let mut bytes = Zeroizing::new(vec![0; self.bytes]);
        getrandom::fill(&mut bytes)
            .map_err(|source| DataDirError::Random { path: path.to_owned(), source })?;
        let text = Zeroizing::new(self.encoding.encode(bytes.as_slice()));
        write_whole(directory, self.name, text.as_bytes(), access)
            .map_err(|error| DataDirError::io("create", path, error))?;
        Ok((bytes, text))
    }
}
