//! The settings of durable objects.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde::{Deserialize as DeriveDeserialize, Serialize as DeriveSerialize};
use toml::Value;

use super::events::signing_secret;
use super::key_source::KeySource;
use super::rules::{TAKEN, Violation, out_of_range, wrong_path};
use super::value::{HttpUrl, Optional, Text, text};

/// Durable objects, which are off without a key.
#[derive(Clone, Debug, DeriveSerialize, DeriveDeserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DurableConfig {
    /// Path below which the objects are.
    pub path: String,
    /// Keys of access.
    pub keys: Vec<DurableKey>,
    /// True if a call is answered once the disk has what it stores.
    pub sync: bool,
    /// Stored objects; at least 1.
    pub objects: usize,
    /// Bytes of the keys and values of all objects; at least 1,048,576.
    pub stored_bytes: usize,
    /// Keys of one object; at least 1.
    pub keys_per_object: usize,
    /// Bytes of one value; at least 1,024.
    pub value_bytes: usize,
    /// Bytes of the keys and values of one object; at least 1,024.
    pub object_bytes: usize,
    /// Bytes of a request's body; at least 1,024.
    pub body_bytes: usize,
    /// Bytes of all bodies that are being received; at least `body_bytes`.
    pub arriving_bytes: usize,
    /// Calls a second with one key; 0 is no limit.
    pub calls_per_second: u32,
    /// Calls a second on one object; 0 is no limit.
    pub calls_per_second_per_object: u32,
    /// Sockets of all objects; at least 1.
    pub sockets: usize,
    /// Sockets of one object; at least 1.
    pub sockets_per_object: usize,
    /// Bytes of the objects in memory; at least 16,777,216.
    pub memory_bytes: usize,
    /// Time after its last use for which an object stays in memory.
    #[serde(with = "text")]
    pub idle_timeout: Duration,
    /// ES module with the operator's methods.
    pub script: Optional<PathBuf>,
    /// Time of a call of the script; 10 ms to a minute.
    #[serde(with = "text")]
    pub script_time: Duration,
    /// Bytes of memory of a call of the script; at least 1,048,576.
    pub script_memory_bytes: usize,
    /// Concurrent calls of the script; 0 is the number of processors.
    pub script_threads: usize,
    /// URL that methods are posted to which are neither in the script nor built in; needs `callback_secret`.
    pub callback_url: Optional<HttpUrl>,
    /// Secret with which these calls are signed.
    pub callback_secret: Optional<SecretString>,
    /// Timeout of such a call; 10 ms to a minute.
    #[serde(with = "text")]
    pub callback_timeout: Duration,
}

/// A key of access to durable objects.
#[derive(Clone, Debug)]
pub struct DurableKey {
    /// The key itself.
    pub secret: KeySource,
    /// Prefix of the ids of all objects that it opens; empty for all objects.
    pub prefix: String,
}

/// The error of a prefix with which no id of an object can begin; none for a good one.
pub(super) fn prefix_defect(prefix: &str) -> Option<&'static str> {
    let is_good =
        prefix.chars().count() < 128 && !prefix.chars().any(|char| char == '/' || char.is_control());
    (!is_good).then_some("a prefix has up to 127 characters, and no slash or control character")
}

/// A key is a table, or its text alone.
///
/// No error quotes a value: it may be the key.
impl<'de> Deserialize<'de> for DurableKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = |problem: String| D::Error::custom(problem);
        let table = match Value::deserialize(deserializer)? {
            Value::String(key) => {
                return Ok(Self { secret: KeySource::Text(key.into()), prefix: String::new() });
            }
            Value::Table(table) => table,
            _ => {
                return Err(wrong(
                    "each of them is a table with a key; write [[durable.keys]] above it".to_owned(),
                ));
            }
        };
        let (mut key, mut file, mut prefix) = (None, None, None);
        for (name, value) in table {
            let place = match &*name {
                "key" => &mut key,
                "key_file" => &mut file,
                "prefix" => &mut prefix,
                _ => return Err(wrong(format!("{name}: no such setting; a key has key, key_file, prefix"))),
            };
            let Value::String(text) = value else {
                return Err(wrong(format!("{name}: not a text in quotes")));
            };
            *place = Some(text).filter(|text| !text.is_empty());
        }
        let secret = match (key, file) {
            (Some(key), None) => KeySource::Text(key.into()),
            (None, Some(file)) => KeySource::File(file.into()),
            _ => return Err(wrong("each of them has either key or key_file".to_owned())),
        };
        Ok(Self { secret, prefix: prefix.unwrap_or_default() })
    }
}

impl Serialize for DurableKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        match &self.secret {
            KeySource::Text(_) => map.serialize_entry("key", "[secret]")?,
            KeySource::File(path) => map.serialize_entry("key_file", &path.to_string_lossy())?,
        }
        map.serialize_entry("prefix", &self.prefix)?;
        map.end()
    }
}

impl Default for DurableConfig {
    fn default() -> Self {
        Self {
            path: "/durable".to_owned(),
            keys: Vec::new(),
            sync: true,
            objects: 10_000_000,
            stored_bytes: 8 << 30,
            keys_per_object: 10_000,
            value_bytes: 128 << 10,
            object_bytes: 8 << 20,
            body_bytes: 8 << 20,
            arriving_bytes: 64 << 20,
            calls_per_second: 20_000,
            calls_per_second_per_object: 2_000,
            sockets: 10_000,
            sockets_per_object: 1_000,
            memory_bytes: 256 << 20,
            idle_timeout: Duration::from_secs(60),
            script: Optional(None),
            script_time: Duration::from_secs(1),
            script_memory_bytes: 32 << 20,
            script_threads: 0,
            callback_url: Optional(None),
            callback_secret: Optional(None),
            callback_timeout: Duration::from_secs(2),
        }
    }
}

impl DurableConfig {
    /// Decodes the secret of callbacks.
    pub fn callback_key(&self) -> Option<Zeroizing<Vec<u8>>> {
        signing_secret(self.callback_secret.as_ref()?.expose_secret())
    }

    /// The first error of the keys; two may not be equal, since only one of their prefixes could apply.
    pub(super) fn key_defect(&self) -> Option<&'static str> {
        let texts = self.keys.iter().filter_map(|key| match &key.secret {
            KeySource::Text(key) => Some(key.expose_secret()),
            KeySource::File(_) => None,
        });
        let texts: Vec<&str> = texts.collect();
        let is_twice = texts.iter().enumerate().any(|(at, key)| texts[..at].contains(key));
        let defects = texts.iter().copied().find_map(KeySource::defect);
        let prefixes = self.keys.iter().find_map(|key| prefix_defect(&key.prefix));
        defects.or(prefixes).or(is_twice.then_some("two keys are equal"))
    }
}

/// Settings of durable objects that are out of their range, or need others.
pub(super) fn wrong_durables(durable: &DurableConfig) -> impl Iterator<Item = Violation> {
    const MOST: usize = 1 << 30;
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
    let more = |what: &'static str| format!("is more than durable.{what}");
    // While a method runs, its object waits.
    let (least, minute) = (Duration::from_millis(10), Duration::from_secs(60));
    let durations = [
        ("durable.idle_timeout", durable.idle_timeout, Duration::ZERO, LONGEST),
        ("durable.script_time", durable.script_time, least, minute),
        ("durable.callback_timeout", durable.callback_timeout, least, minute),
    ];
    [
        ("durable.objects", durable.objects, 1..=MOST),
        ("durable.stored_bytes", durable.stored_bytes, 1 << 20..=1 << 44),
        ("durable.keys_per_object", durable.keys_per_object, 1..=MOST),
        ("durable.value_bytes", durable.value_bytes, 1024..=MOST),
        ("durable.object_bytes", durable.object_bytes, 1024..=MOST),
        ("durable.body_bytes", durable.body_bytes, 1024..=MOST),
        ("durable.arriving_bytes", durable.arriving_bytes, 1024..=MOST),
        ("durable.sockets", durable.sockets, 1..=MOST),
        ("durable.sockets_per_object", durable.sockets_per_object, 1..=MOST),
        ("durable.memory_bytes", durable.memory_bytes, 16 << 20..=1 << 44),
        ("durable.script_memory_bytes", durable.script_memory_bytes, 1 << 20..=MOST),
        ("durable.script_threads", durable.script_threads, 0..=1024),
    ]
    .into_iter()
    .filter_map(|(key, value, allowed)| out_of_range(key, &value, &allowed, usize::to_string))
    .chain(durations.into_iter().filter_map(|(key, value, shortest, longest)| {
        out_of_range(key, &value, &(shortest..=longest), Duration::write)
    }))
    .chain(wrong_callback(durable))
    .chain(wrong_path("durable.path", &durable.path, &TAKEN))
    .chain(durable.key_defect().map(|problem| Violation::new(&["durable.keys"], problem)))
    .chain(
        (durable.value_bytes > durable.object_bytes)
            .then(|| Violation::new(&["durable.value_bytes", "durable.object_bytes"], more("object_bytes"))),
    )
    .chain(
        (durable.body_bytes > durable.arriving_bytes).then(|| {
            Violation::new(&["durable.body_bytes", "durable.arriving_bytes"], more("arriving_bytes"))
        }),
    )
    .collect::<Vec<_>>()
    .into_iter()
}

fn wrong_callback(durable: &DurableConfig) -> Option<Violation> {
    let (url, secret) = ("durable.callback_url", "durable.callback_secret");
    if durable.callback_url.is_none() || durable.callback_key().is_some() {
        return None;
    }
    Some(match durable.callback_secret.is_some() {
        true => Violation::new(
            &[secret, url],
            "is not 24 to 64 bytes in base64; make one by: openssl rand -base64 32",
        ),
        false => {
            Violation::new(&[url, secret], format!("needs {secret}, by which the receiver knows the server"))
        }
    })
}
