//! TLS on the public listener: certificate source, reload and handshake.

pub mod acceptor;
pub mod certificates;
pub mod http_redirect;
pub mod names;
pub mod pair;
pub mod self_signed;
pub mod source;

use std::time::SystemTime;

use crate::config::{Config, ConfigErrors};
use source::CertificateSource;

/// Reads the configured certificate, and returns warnings for the operator.
///
/// A self-signed certificate is created only when the server starts, and is not checked here.
///
/// # Errors
/// Returns all faults of the files, each named.
pub fn check(config: &Config) -> Result<Vec<String>, ConfigErrors> {
    let Some(source @ CertificateSource::Files { .. }) = CertificateSource::of(config) else {
        return Ok(Vec::new());
    };
    let now = wall_clock();
    Ok(source.load(now)?.validity.warning(&source.place(), now).into_iter().collect())
}

#[expect(clippy::disallowed_methods, reason = "whether a certificate is expired is asked of the clock")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
