//! The server that is to be loaded.

use std::str::FromStr;

use url::{Host, Url};

/// A server that speaks plain HTTP, perhaps below a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadTarget {
    host: Host,
    port: u16,
    base_path: String,
}

/// An error of parsing the server's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    /// It is no URL at all.
    #[error("invalid URL ({0}); write for example http://127.0.0.1:8787")]
    NoUrl(#[from] url::ParseError),
    /// It needs TLS, or is of something else.
    #[error("the load tool speaks http:// (or ws://) only, not {0}://; measure behind whatever ends TLS")]
    Scheme(String),
    /// It is more than a server's address.
    #[error(
        "give the server's address alone, such as http://127.0.0.1:8787 or http://127.0.0.1:8787/meet, without a query or a user"
    )]
    MoreThanAddress,
}

impl LoadTarget {
    /// The host as sockets are opened to it: without the brackets of an IPv6 address.
    pub fn host(&self) -> String {
        match &self.host {
            Host::Domain(name) => name.clone(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as the header `Host` has them.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The path below which the server is, without a slash at its end.
    pub fn base_path(&self) -> &str {
        &self.base_path
    }

    /// The server's address as a URL, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.authority(), self.base_path)
    }
}

impl FromStr for LoadTarget {
    type Err = NoTarget;

    fn from_str(text: &str) -> Result<Self, NoTarget> {
        let url = Url::parse(text)?;
        if !["http", "ws"].contains(&url.scheme()) {
            return Err(NoTarget::Scheme(url.scheme().to_owned()));
        }
        let is_address = url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        match (url.host(), url.port_or_known_default(), base_path(url.path())) {
            (Some(host), Some(port), Some(base_path)) if is_address => {
                Ok(Self { host: host.to_owned(), port, base_path })
            }
            _ => Err(NoTarget::MoreThanAddress),
        }
    }
}

/// Removes the slash at the end of a path; `None` if the path has characters that a server's base path cannot have.
fn base_path(path: &str) -> Option<String> {
    let is_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'~' | b'.');
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_char);
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/').skip(1).all(is_part).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read() {
        for (text, host, authority) in [
            ("http://127.0.0.1:8787", "127.0.0.1", "127.0.0.1:8787"),
            ("ws://localhost:1/", "localhost", "localhost:1"),
            ("http://meet.example.org", "meet.example.org", "meet.example.org:80"),
            ("http://[::1]:8787", "::1", "[::1]:8787"),
        ] {
            let target: LoadTarget = text.parse().unwrap();
            assert_eq!((target.host(), target.authority()), (host.into(), authority.into()));
        }
    }

    #[test]
    fn path_of_a_server_is_kept() {
        let target: LoadTarget = "http://127.0.0.1:8787/meet/".parse().unwrap();
        assert_eq!(
            (target.url(), target.authority()),
            ("http://127.0.0.1:8787/meet".into(), "127.0.0.1:8787".into())
        );
    }

    #[test]
    fn everything_else_is_refused() {
        let refused = |text: &str| text.parse::<LoadTarget>().unwrap_err();
        assert!(matches!(refused("127.0.0.1:8787"), NoTarget::NoUrl(_)));
        assert_eq!(refused("wss://a"), NoTarget::Scheme("wss".into()));
        assert_eq!(refused("localhost:8787"), NoTarget::Scheme("localhost".into()));
        for text in [
            "http://a//room",
            "http://a/b c",
            "http://a/?x",
            "http://a/#x",
            "http://me@a",
            "http://me:secret@a",
        ] {
            assert_eq!(refused(text), NoTarget::MoreThanAddress, "{text}");
        }
    }
}
