//! TLS on the public listener: certificate source, reload and handshake.

pub mod acceptor;
pub mod acme;
pub mod certificates;
pub mod http_redirect;
pub mod names;
pub mod pair;
pub mod self_signed;
pub mod source;

use crate::clock::wall_clock;
use crate::config::{Config, ConfigErrors};
use acme::AcmeSettings;
use source::CertificateSource;

/// Reads the configured certificate, and returns warnings for the operator.
///
/// A self-signed certificate is made, and one by ACME ordered, only when the server starts; neither is checked here.
///
/// # Errors
/// Returns all faults of the files, each named.
pub fn check(config: &Config) -> Result<Vec<String>, ConfigErrors> {
    if AcmeSettings::of(config).is_some() && config.http.listen.ip().is_loopback() {
        let listen = config.http.listen;
        return Ok(vec![format!(
            "http.listen: {listen} cannot be reached from outside; the certificate of http.acme_domains needs port \
             443 of each name to lead there"
        )]);
    }
    let Some(source @ CertificateSource::Files { .. }) = CertificateSource::of(config) else {
        return Ok(Vec::new());
    };
    let now = wall_clock();
    Ok(source.load(now)?.validity.warning(&source.place(), now).into_iter().collect())
}
