//! The settings of the two listeners.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::base_path::{BasePath, PublicUrl};
use super::value::{DomainName, HttpUrl, Optional, Origin, text, texts};

/// Directory of Let's Encrypt, the default authority.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// The public listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// The address and port to listen on; port 0 lets the system choose one.
    #[serde(with = "text")]
    pub listen: SocketAddr,
    /// URL at which browsers reach the server; if unset, a `Host` that can only mean this machine is accepted.
    pub public_url: Optional<PublicUrl>,
    /// Path prefix of the public listener; if unset, the path of `public_url`.
    pub base_path: Optional<BasePath>,
    /// Directory of the built-in page's files, used instead of the embedded ones.
    pub static_dir: Optional<PathBuf>,
    /// Further origins whose pages may open sockets and send forms.
    #[serde(with = "texts")]
    pub allowed_origins: Vec<Origin>,
    /// Proxies whose `X-Forwarded-For`, `-Proto`, `-Host` and identity header are trusted.
    #[serde(with = "texts")]
    pub trusted_proxies: Vec<IpNet>,
    /// File of the certificate chain; if set, the listener speaks https.
    pub tls_certificate: Optional<PathBuf>,
    /// File of the certificate's private key.
    pub tls_key: Optional<PathBuf>,
    /// Interval at which those two files are checked for changes and reloaded.
    #[serde(with = "text")]
    pub tls_reload: Duration,
    /// Serves https with a generated self-signed certificate.
    pub tls_self_signed: bool,
    /// Host names of a certificate that is ordered by ACME; if set, the listener speaks https.
    #[serde(with = "texts")]
    pub acme_domains: Vec<DomainName>,
    /// Address at which the authority may reach the operator.
    pub acme_email: Optional<String>,
    /// Directory URL of the authority (RFC 8555 section 7.1.1).
    #[serde(with = "text")]
    pub acme_directory: HttpUrl,
    /// Pause after a failed order, doubled after each further one.
    #[serde(with = "text")]
    pub acme_retry: Duration,
    /// Compresses WebSocket messages (permessage-deflate) for clients that offer it.
    pub socket_compression: bool,
}

/// The operators' listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// The address and port to listen on; port 0 lets the system choose one.
    #[serde(with = "text")]
    pub listen: SocketAddr,
    /// Allowed `Host` names beside IP addresses, names without a dot and this machine's own.
    #[serde(with = "texts")]
    pub allowed_hosts: Vec<String>,
    /// File with the token of those who may look and change nothing.
    pub viewer_token_file: Optional<PathBuf>,
}

impl Http {
    /// Path prefix of the public listener.
    pub fn base_path(&self) -> BasePath {
        let of_url = || self.public_url.as_ref().map(|url| url.base_path().clone());
        self.base_path.as_ref().cloned().or_else(of_url).unwrap_or_default()
    }

    /// True if the listener speaks TLS.
    pub fn speaks_tls(&self) -> bool {
        self.tls_certificate.is_some() || self.tls_self_signed || !self.acme_domains.is_empty()
    }

    /// The server's public origin, if configured.
    pub fn public_origin(&self) -> Option<&Origin> {
        self.public_url.as_ref().map(PublicUrl::origin)
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8787)),
            public_url: Optional(None),
            base_path: Optional(None),
            static_dir: Optional(None),
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            tls_certificate: Optional(None),
            tls_key: Optional(None),
            tls_reload: Duration::from_secs(10),
            tls_self_signed: false,
            acme_domains: Vec::new(),
            acme_email: Optional(None),
            acme_directory: HttpUrl(LETS_ENCRYPT.to_owned()),
            acme_retry: Duration::from_secs(60),
            socket_compression: true,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8788)),
            allowed_hosts: Vec::new(),
            viewer_token_file: Optional(None),
        }
    }
}
