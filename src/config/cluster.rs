//! The settings of several nodes.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};
use serde::{Deserialize as DeriveDeserialize, Serialize as DeriveSerialize};
use url::Url;

use super::key_source::{KeyFileError, KeySource};
use super::rules::{Violation, out_of_range};
use super::shared_secret::SharedSecret;
use super::value::{Optional, Text};

/// Several nodes on NATS; without an address this is a single node.
#[derive(Clone, Debug, DeriveSerialize, DeriveDeserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// Addresses of NATS servers of one system.
    pub nats: Vec<NatsUrl>,
    /// Secret that all nodes share.
    pub secret: Optional<SecretString>,
    /// File with this secret.
    pub secret_file: Optional<PathBuf>,
    /// First part of all names in NATS, so that several clusters may share it.
    pub prefix: String,
    /// Copies of the journal; 0 is one on a single NATS server, and three on several.
    pub replicas: usize,
    /// Streams over which journals are spread; at least 1.
    pub shards: usize,
    /// User of NATS; needs `password`.
    pub user: Optional<String>,
    /// Password of this user.
    pub password: Optional<SecretString>,
    /// File with a JWT and its key, as NATS' tools write it.
    pub credentials_file: Optional<PathBuf>,
    /// File with the seed of an nkey.
    pub nkey_file: Optional<PathBuf>,
    /// File (PEM) of authorities that sign NATS' certificates, in place of the system's.
    pub tls_ca: Optional<PathBuf>,
}

/// The address of a NATS server: `nats://host:4222`, or `tls://` for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsUrl(String);

impl NatsUrl {
    /// The address as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The error does not quote an address, which may have a password.
impl<'de> Deserialize<'de> for NatsUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || {
            let (noun, example) = (Self::NOUN, Self::EXAMPLE);
            D::Error::custom(format!("an entry is not {noun}; write for example {example}"))
        };
        let text = String::deserialize(deserializer).map_err(|_| wrong())?;
        Self::read(&text).ok_or_else(wrong)
    }
}

impl Serialize for NatsUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Text for NatsUrl {
    const NOUN: &str = "the address of a NATS server without a user name, which is cluster.user";
    const EXAMPLE: &str = "\"nats://10.0.0.1:4222\" or \"tls://nats.example.org:4222\"";

    fn read(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        // Logs and operators see the addresses: secrets have settings of their own.
        let is_anonymous = url.username().is_empty() && url.password().is_none();
        let is_bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        let has_host = url.host_str().is_some_and(|host| !host.is_empty());
        let is_nats = matches!(url.scheme(), "nats" | "tls");
        (is_nats && has_host && is_anonymous && is_bare).then(|| Self(text.to_owned()))
    }

    fn write(&self) -> String {
        self.0.clone()
    }
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            nats: Vec::new(),
            secret: Optional(None),
            secret_file: Optional(None),
            prefix: "satsuma".to_owned(),
            replicas: 0,
            shards: 4,
            user: Optional(None),
            password: Optional(None),
            credentials_file: Optional(None),
            nkey_file: Optional(None),
            tls_ca: Optional(None),
        }
    }
}

impl ClusterConfig {
    /// True if this server is a node of several.
    pub fn is_configured(&self) -> bool {
        !self.nats.is_empty()
    }

    /// Reads the secret that all nodes share; none on a single node.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn shared_secret(&self) -> Result<Option<SharedSecret>, KeyFileError> {
        let source = match (self.secret.as_ref(), self.secret_file.as_ref()) {
            _ if !self.is_configured() => return Ok(None),
            (Some(secret), _) => KeySource::Text(secret.clone()),
            (None, Some(path)) => KeySource::File(path.clone()),
            (None, None) => return Ok(None),
        };
        source.read("cluster.secret_file", secret_defect).map(|secret| Some(SharedSecret::new(secret)))
    }
}

/// The error of a secret that could be guessed; none for a good one.
fn secret_defect(secret: &str) -> Option<&'static str> {
    let is_good = (32..=256).contains(&secret.len()) && secret.bytes().all(|byte| byte.is_ascii_graphic());
    (!is_good).then_some("it has 32 to 256 letters, digits and signs; make one by: openssl rand -base64 32")
}

/// Settings of several nodes that are out of their range, or need others.
pub(super) fn wrong_cluster(cluster: &ClusterConfig) -> Vec<Violation> {
    let ClusterConfig { secret, secret_file, prefix, user, password, credentials_file, nkey_file, .. } =
        cluster;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_prefix = (1..=32).contains(&prefix.len()) && prefix.bytes().all(is_name);
    let secret_defect = secret.as_ref().and_then(|secret| secret_defect(secret.expose_secret()));
    let has_secret = secret.is_some() || secret_file.is_some();
    let ways = [user.is_some(), credentials_file.is_some(), nkey_file.is_some()];
    let ways = ways.into_iter().filter(|is_set| *is_set).count();
    let wrong: [(&[&'static str], bool, &str); 7] = [
        (
            &["cluster.prefix"],
            !is_prefix,
            "is not a name of 1 to 32 of the characters A-Z, a-z, 0-9, - and _",
        ),
        (
            &["cluster.nats", "cluster.secret", "cluster.secret_file"],
            cluster.is_configured() && !has_secret,
            "makes this server a node of several, which needs the secret that all of them share: cluster.secret or \
             cluster.secret_file",
        ),
        (
            &["cluster.secret"],
            cluster.is_configured() && secret_defect.is_some(),
            secret_defect.unwrap_or_default(),
        ),
        (
            &["cluster.secret_file", "cluster.secret"],
            secret.is_some() && secret_file.is_some(),
            "is set, and cluster.secret as well; set only one of them",
        ),
        (
            &["cluster.user", "cluster.password"],
            user.is_some() && password.is_none(),
            "needs cluster.password; set both or neither",
        ),
        (
            &["cluster.password", "cluster.user"],
            password.is_some() && user.is_none() && cluster.is_configured(),
            "needs cluster.user; set both or neither",
        ),
        (
            &["cluster.credentials_file", "cluster.user", "cluster.nkey_file"],
            ways > 1,
            "is one way to log in to NATS; set one of cluster.user, cluster.credentials_file and cluster.nkey_file",
        ),
    ];
    let counts = [("cluster.replicas", cluster.replicas, 0..=5), ("cluster.shards", cluster.shards, 1..=64)];
    let counts = counts
        .into_iter()
        .filter_map(|(key, value, allowed)| out_of_range(key, &value, &allowed, usize::to_string));
    let wrong = wrong.into_iter().filter(|(_, is_wrong, _)| *is_wrong);
    wrong.map(|(keys, _, problem)| Violation::new(keys, problem)).chain(counts).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn problems(edit: impl FnOnce(&mut ClusterConfig)) -> Vec<(&'static str, String)> {
        let mut config = ClusterConfig {
            nats: vec![NatsUrl::read("nats://127.0.0.1:4222").unwrap()],
            secret: Optional(Some("x".repeat(32).into())),
            ..ClusterConfig::default()
        };
        edit(&mut config);
        wrong_cluster(&config).into_iter().map(|violation| (violation.keys[0], violation.problem)).collect()
    }

    #[test]
    fn addresses_have_no_secrets() {
        for good in ["nats://127.0.0.1:4222", "tls://nats.example.org", "nats://[::1]:4222/"] {
            assert_eq!(NatsUrl::read(good).map(|url| url.write()).as_deref(), Some(good));
        }
        for bad in
            ["", "nats", "127.0.0.1:4222", "http://a", "nats://", "nats://u:p@a", "nats://t@a", "nats://a/b"]
        {
            assert_eq!(NatsUrl::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn wrong_settings_are_named() {
        assert_eq!(wrong_cluster(&ClusterConfig::default()).len(), 0);
        assert_eq!(problems(|_| {}), []);
        assert_eq!(problems(|config| config.secret = Optional(None))[0].0, "cluster.nats");
        let (key, problem) = problems(|config| config.secret = Optional(Some("5318008".into()))).remove(0);
        assert_eq!(key, "cluster.secret");
        assert!(problem.contains("32 to 256") && !problem.contains("5318008"), "{problem}");
        assert_eq!(
            problems(|config| config.secret_file = Optional(Some("f".into())))[0].0,
            "cluster.secret_file"
        );
        assert_eq!(problems(|config| config.prefix = "a.b".to_owned())[0].0, "cluster.prefix");
        assert_eq!(problems(|config| config.shards = 0)[0].0, "cluster.shards");
        assert_eq!(problems(|config| config.replicas = 6)[0].0, "cluster.replicas");
        assert_eq!(problems(|config| config.user = Optional(Some("a".to_owned())))[0].0, "cluster.user");
        assert_eq!(problems(|config| config.password = Optional(Some("p".into())))[0].0, "cluster.password");
        let twice = problems(|config| {
            config.nkey_file = Optional(Some("k".into()));
            config.credentials_file = Optional(Some("c".into()));
        });
        assert_eq!(twice[0].0, "cluster.credentials_file");
    }

    #[test]
    fn secret_is_read_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let config = |path: &std::path::Path| ClusterConfig {
            nats: vec![NatsUrl::read("nats://a").unwrap()],
            secret_file: Optional(Some(path.into())),
            ..ClusterConfig::default()
        };
        fs::write(&path, format!("{}\n", "y".repeat(40))).unwrap();
        let secret = config(&path).shared_secret().unwrap().unwrap();
        let wanted = SharedSecret::new("y".repeat(40).into());
        assert_eq!(secret.fingerprint(&[]), wanted.fingerprint(&[]), "without the line break");
        fs::write(&path, "5318008").unwrap();
        let error = config(&path).shared_secret().unwrap_err().to_string();
        assert!(error.starts_with("cluster.secret_file") && !error.contains("5318008"), "{error}");
        assert!(config(&dir.path().join("none")).shared_secret().is_err());
        let single = ClusterConfig { nats: Vec::new(), ..config(&path) };
        assert!(single.shared_secret().unwrap().is_none(), "a single node reads nothing");
    }
}
