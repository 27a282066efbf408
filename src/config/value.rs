//! Values written as text in the file, and the errors for invalid texts.

use std::ops::Deref;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use std::{fmt, net::SocketAddr};

use axum::http::HeaderName;
use ipnet::IpNet;
use secrecy::SecretString;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};
use url::Url;

use super::base_path::{BasePath, PublicUrl};
use super::cluster::NatsUrl;
use super::policy::PolicySources;
use crate::network::is_public;
use satsuma_sfu::MediaAddress;

/// A value with a text form, and the descriptions used in errors.
pub trait Text: Sized {
    /// Description of the value, with its article.
    const NOUN: &str;
    /// One or two valid texts, in quotes.
    const EXAMPLE: &str;

    /// Parses `text`; `None` if it is invalid.
    fn read(text: &str) -> Option<Self>;

    /// Formats the value.
    fn write(&self) -> String;
}

/// An optional setting: `""` in the file means unset, since TOML has no null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Optional<T>(pub Option<T>);

impl<T> Default for Optional<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Deref for Optional<T> {
    type Target = Option<T>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T: Text> Serialize for Optional<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.as_ref().map(T::write).unwrap_or_default())
    }
}

impl<'de, T: Text> Deserialize<'de> for Optional<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match &*written::<T, D>(deserializer)? {
            "" => Ok(Self(None)),
            text => parsed(text).map(|value| Self(Some(value))),
        }
    }
}

/// Reads the text. The error does not quote a value of another type: it may be a secret written without quotes.
fn written<'de, T: Text, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map_err(|_| {
        D::Error::custom(format!("not a text in quotes; write {}, for example {}", T::NOUN, T::EXAMPLE))
    })
}

fn parsed<T: Text, E: serde::de::Error>(text: &str) -> Result<T, E> {
    T::read(text)
        .ok_or_else(|| E::custom(format!("{text:?} is not {}; write for example {}", T::NOUN, T::EXAMPLE)))
}

/// For `#[serde(with = "text")]`: one value.
pub mod text {
    use super::{Deserializer, Serializer, Text, parsed, written};

    /// Writes the value as its text.
    pub fn serialize<T: Text, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.write())
    }

    /// Reads the value from its text.
    pub fn deserialize<'de, T: Text, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        parsed(&written::<T, D>(deserializer)?)
    }
}

/// For `#[serde(with = "texts")]`: a list of values.
pub mod texts {
    use serde::Deserialize as _;

    use super::{Deserializer, Serializer, Text, parsed};

    /// Writes the values as a list of their texts.
    pub fn serialize<T: Text, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(T::write))
    }

    /// Reads the values from a list of their texts.
    pub fn deserialize<'de, T: Text, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
        Vec::<String>::deserialize(deserializer)?.iter().map(|text| parsed(text)).collect()
    }
}

/// A web origin, `scheme://host[:port]`, in the form in which browsers send it.
///
/// A default port is left out and a web host is lower case, so two equal origins are equal texts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(String);

impl Origin {
    /// The origin as text, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if the scheme is `http` or `https`.
    pub fn is_web(&self) -> bool {
        self.0.starts_with("https://") || self.0.starts_with("http://")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host name, in lower case and ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainName(String);

impl DomainName {
    /// The name, without a trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The domain of a Cloudflare Access team: `https://team.cloudflareaccess.com`.
///
/// It is the issuer of assertions and serves their signing keys, so plain `http` is valid only for a loopback host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TeamDomain(Origin);

impl TeamDomain {
    /// The domain as in the `iss` claim: an origin without a trailing slash.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// True if the host is loopback, which no proxy can intercept.
    pub fn is_loopback(&self) -> bool {
        Url::parse(self.as_str()).is_ok_and(|url| is_loopback(&url))
    }
}

/// An `http` or `https` URL, kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl(pub(super) String);

impl HttpUrl {
    /// True if the host is loopback, which no proxy can intercept.
    pub fn is_loopback(&self) -> bool {
        Url::parse(&self.0).is_ok_and(|url| is_loopback(&url))
    }

    /// True if nobody on the way can change what is there.
    pub fn is_https_or_loopback(&self) -> bool {
        Url::parse(&self.0).is_ok_and(|url| url.scheme() == "https" || is_loopback(&url))
    }

    /// True if a path can be appended to it.
    pub fn is_base(&self) -> bool {
        !self.0.contains(['?', '#'])
    }

    /// The URL as written, with or without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The origin in the form that browsers send.
    pub fn origin(&self) -> String {
        // Parsed before, so it does not fail.
        Url::parse(&self.0).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
    }
}

/// True if the host of an address is itself an address, for which no name is resolved, and one that is not public.
pub fn has_private_address(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => !is_public(ip.into()),
        Some(url::Host::Ipv6(ip)) => !is_public(ip.into()),
        Some(url::Host::Domain(_)) | None => false,
    }
}

/// True if the host of an address is this computer.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        // A name's last dot says that it is whole; all names below are this computer's as well (RFC 6761, section 6.3).
        Some(url::Host::Domain(name)) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// An invalid text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {0}")]
pub struct InvalidText(&'static str);

macro_rules! text_by_parser {
    ($($type:ty: $noun:expr, $example:expr;)+) => {$(
        impl Text for $type {
            const NOUN: &str = $noun;
            const EXAMPLE: &str = $example;

            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn write(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

text_by_parser! {
    HeaderName: "a header's name", "\"Cf-Access-Authenticated-User-Email\"";
    MediaAddress:
        "an IP address, with a port if that is another than sfu.udp_listen's",
        "\"203.0.113.7\" or \"203.0.113.7:8789\"";
    SocketAddr: "an IP address and port", "\"127.0.0.1:8787\" or \"[::]:8787\"";
    String: "a text", "\"text\"";
}

macro_rules! parse_as_text {
    ($($type:ty),+) => {$(
        impl FromStr for $type {
            type Err = InvalidText;

            fn from_str(text: &str) -> Result<Self, InvalidText> {
                Self::read(text).ok_or(InvalidText(Self::NOUN))
            }
        }
    )+};
}

parse_as_text!(BasePath, DomainName, HttpUrl, NatsUrl, Origin, PolicySources, PublicUrl, TeamDomain);

/// True for an `http` or `https` URL without whitespace, which the parser skips.
pub(super) fn is_web_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
        && !text.contains(char::is_whitespace)
}

impl Text for HttpUrl {
    const NOUN: &str = "an http or https URL without a user name";
    const EXAMPLE: &str = "\"https://example.org/path\"";

    fn read(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok().filter(|_| is_web_url(text))?;
        // Operators and clients see these URLs: secrets have settings of their own.
        let is_anonymous = url.username().is_empty() && url.password().is_none();
        is_anonymous.then(|| Self(text.to_owned()))
    }

    fn write(&self) -> String {
        self.0.clone()
    }
}

impl Text for Origin {
    const NOUN: &str = "an origin, scheme://host[:port] with no path";
    const EXAMPLE: &str = "\"https://meet.example.org\"";

    fn read(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let host = url.host_str().filter(|host| !host.is_empty())?;
        let bare = url.username().is_empty()
            && url.password().is_none()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none();
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        bare.then(|| Self(format!("{}://{host}{port}", url.scheme())))
    }

    fn write(&self) -> String {
        self.0.clone()
    }
}

impl Text for DomainName {
    const NOUN: &str = "a host name without wildcard";
    const EXAMPLE: &str = "\"meet.example.org\"";

    fn read(text: &str) -> Option<Self> {
        let url::Host::Domain(name) = url::Host::parse(text.trim_end_matches('.')).ok()? else { return None };
        let is_label = |label: &str| {
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            let ends = label.starts_with('-') || label.ends_with('-');
            (1..=63).contains(&label.len()) && label.bytes().all(inner) && !ends
        };
        (name.len() <= 253 && name.split('.').all(is_label)).then_some(Self(name))
    }

    fn write(&self) -> String {
        self.0.clone()
    }
}

impl Text for TeamDomain {
    const NOUN: &str = "an Access team's https domain";
    const EXAMPLE: &str = "\"team.cloudflareaccess.com\"";

    fn read(text: &str) -> Option<Self> {
        let text = if text.contains("://") { text } else { &format!("https://{text}") };
        let origin = Origin::read(text)?;
        let url = Url::parse(origin.as_str()).ok()?;
        let trusted = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
        trusted.then_some(Self(origin))
    }

    fn write(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Text for SecretString {
    const NOUN: &str = "the secret";
    const EXAMPLE: &str = "\"…\"";

    fn read(text: &str) -> Option<Self> {
        Some(text.into())
    }

    fn write(&self) -> String {
        "[secret]".to_owned()
    }
}

impl Text for PathBuf {
    const NOUN: &str = "a path";
    const EXAMPLE: &str = "\"/etc/satsuma/file.pem\"";

    fn read(text: &str) -> Option<Self> {
        Some(text.into())
    }

    fn write(&self) -> String {
        self.to_string_lossy().into_owned()
    }
}

impl Text for Duration {
    const NOUN: &str = "a duration";
    const EXAMPLE: &str = "\"15s\" or \"500ms\"";

    fn read(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok()
    }

    fn write(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

impl Text for IpNet {
    const NOUN: &str = "an IP address or network";
    const EXAMPLE: &str = "\"127.0.0.1\" or \"10.0.0.0/8\"";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().or_else(|| Some(Self::from(text.parse::<std::net::IpAddr>().ok()?)))
    }

    fn write(&self) -> String {
        self.to_string()
    }
}
