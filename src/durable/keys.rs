//! Keys of access, each for the objects whose ids begin with its prefix.

use axum::http::HeaderMap;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::config::{DurableConfig, KeyFileError, KeySource};
use crate::http::bearer::{bears, is_equal};
use crate::id::ObjectId;

/// All keys of access.
#[derive(Debug)]
pub struct AccessKeys(Vec<AccessKey>);

#[derive(Debug)]
struct AccessKey {
    secret: SecretString,
    prefix: String,
}

/// The number of a key in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyNumber(usize);

#[cfg(test)]
impl KeyNumber {
    /// The key of this number, for tests.
    pub fn of(number: usize) -> Self {
        Self(number)
    }
}

impl AccessKeys {
    /// The configured keys; none if there are none, and so no durable objects.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn open(config: &DurableConfig) -> Result<Option<Self>, KeyFileError> {
        let keys = config.keys.iter().map(|key| {
            let secret = key.secret.read("durable.keys", KeySource::defect)?;
            Ok(AccessKey { secret, prefix: key.prefix.clone() })
        });
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        Ok((!keys.is_empty()).then_some(Self(keys)))
    }

    /// Finds the key of a request: its bearer token, or the first part of `path`; and returns the rest of the path.
    pub fn find<'p>(&self, headers: &HeaderMap, path: &'p str) -> Option<(KeyNumber, &'p str)> {
        let path = path.trim_start_matches('/');
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        let in_path = self.position(|secret| is_equal(first, secret));
        let in_header = self.position(|secret| bears(headers, secret));
        let rest = if in_path.is_some() { rest } else { path };
        Some((KeyNumber(in_header.or(in_path)?), rest.trim_start_matches('/')))
    }

    /// The first key that fits; all are compared, so that the time tells nothing.
    fn position(&self, fits: impl Fn(&SecretString) -> bool) -> Option<usize> {
        let mut found = None;
        for (number, key) in self.0.iter().enumerate() {
            if fits(&key.secret) {
                found = found.or(Some(number));
            }
        }
        found
    }

    /// True if the key opens the object.
    pub fn opens(&self, key: KeyNumber, object: &ObjectId) -> bool {
        self.0.get(key.0).is_some_and(|key| object.as_str().starts_with(&key.prefix))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use axum::http::HeaderValue;
    use axum::http::header::AUTHORIZATION;

    use super::*;
    use crate::config::DurableKey;

    const A: &str = "key-a-0123456789";
    const B: &str = "key-b-0123456789";

    fn keys() -> AccessKeys {
        let key = |key: &str, prefix: &str| DurableKey {
            secret: KeySource::Text(key.into()),
            prefix: prefix.into(),
        };
        let config = DurableConfig { keys: vec![key(A, ""), key(B, "b:")], ..DurableConfig::default() };
        AccessKeys::open(&config).unwrap().unwrap()
    }

    #[test]
    fn key_is_found_in_header_or_path() {
        let keys = keys();
        let bearer = |key: &str| {
            let value = HeaderValue::from_str(&format!("Bearer {key}")).unwrap();
            HeaderMap::from_iter([(AUTHORIZATION, value)])
        };
        let none = HeaderMap::new();
        let in_path = |path: &'static str| keys.find(&none, path).map(|(key, rest)| (key.0, rest));
        assert_eq!(in_path("/key-a-0123456789/object/o/state"), Some((0, "object/o/state")));
        assert_eq!(in_path("//key-b-0123456789//object/o"), Some((1, "object/o")));
        assert_eq!(in_path("/key-b-0123456789"), Some((1, "")));
        for wrong in [
            "/object/o/state",
            "/",
            "",
            "/key-a-012345678/object",
            "/key-a-01234567899/object",
            "/KEY-A-0123456789/o",
        ] {
            assert_eq!(in_path(wrong), None, "{wrong}");
        }
        let with =
            |key: &str, path: &'static str| keys.find(&bearer(key), path).map(|(key, rest)| (key.0, rest));
        assert_eq!(with(B, "/object/o"), Some((1, "object/o")));
        assert_eq!(with(B, "/key-a-0123456789/object/o"), Some((1, "object/o")));
        assert_eq!(with("wrong", "/key-a-0123456789/object/o"), Some((0, "object/o")), "a proxy's own token");
        assert_eq!(with("wrong", "/object/o"), None);
    }

    #[test]
    fn key_opens_ids_with_its_prefix() {
        let keys = keys();
        let opens = |key, id| keys.opens(KeyNumber(key), &ObjectId::parse(id).unwrap());
        assert!(opens(0, "anything") && opens(1, "b:1") && opens(1, "b:"));
        assert!(!opens(1, "b") && !opens(1, "B:1") && !opens(1, "ab:1"));
    }

    #[test]
    fn key_is_read_from_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let open = || {
            let key = DurableKey { secret: KeySource::File(path.clone()), prefix: String::new() };
            AccessKeys::open(&DurableConfig { keys: vec![key], ..DurableConfig::default() })
        };
        assert!(matches!(open(), Err(KeyFileError::Unreadable { .. })));
        fs::write(&path, "hush").unwrap();
        let error = open().unwrap_err().to_string();
        assert!(error.contains("16 to 256") && !error.contains("hush"), "{error}");
        fs::write(&path, format!("{A}\n")).unwrap();
        let keys = open().unwrap().unwrap();
        assert!(keys.find(&HeaderMap::new(), "key-a-0123456789/x").is_some());
        assert!(AccessKeys::open(&DurableConfig::default()).unwrap().is_none());
    }
}
