//! The server that is to be loaded.

use std::str::FromStr;

use url::{Host, Url};

/// An origin that speaks plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    host: Host,
    port: u16,
}

/// Why a text names no server that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    /// It is no URL at all.
    #[error("this is no URL ({0}); write for example http://127.0.0.1:8787")]
    NoUrl(#[from] url::ParseError),
    /// It needs TLS, or is of something else.
    #[error("the load tool speaks http:// (or ws://) only, not {0}://; measure behind whatever ends TLS")]
    Scheme(String),
    /// It is more than an origin.
    #[error(
        "give the server's origin alone, such as http://127.0.0.1:8787, without a path, a query or a user"
    )]
    MoreThanOrigin,
}

impl Target {
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

    /// The origin as a URL.
    pub fn origin(&self) -> String {
        format!("http://{}", self.authority())
    }
}

impl FromStr for Target {
    type Err = NoTarget;

    fn from_str(text: &str) -> Result<Self, NoTarget> {
        let url = Url::parse(text)?;
        if !["http", "ws"].contains(&url.scheme()) {
            return Err(NoTarget::Scheme(url.scheme().to_owned()));
        }
        let is_origin = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        match (url.host(), url.port_or_known_default()) {
            (Some(host), Some(port)) if is_origin => Ok(Self { host: host.to_owned(), port }),
            _ => Err(NoTarget::MoreThanOrigin),
        }
    }
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
            let target: Target = text.parse().unwrap();
            assert_eq!((target.host(), target.authority()), (host.into(), authority.into()));
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let refused = |text: &str| text.parse::<Target>().unwrap_err();
        assert!(matches!(refused("127.0.0.1:8787"), NoTarget::NoUrl(_)));
        assert_eq!(refused("wss://a"), NoTarget::Scheme("wss".into()));
        assert_eq!(refused("localhost:8787"), NoTarget::Scheme("localhost".into()));
        for text in ["http://a/room", "http://a/?x", "http://a/#x", "http://me@a", "http://me:secret@a"] {
            assert_eq!(refused(text), NoTarget::MoreThanOrigin, "{text}");
        }
    }
}
