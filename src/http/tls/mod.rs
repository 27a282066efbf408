//! TLS on the public listener: whose certificate, when it is taken up again, and the handshake.

pub mod certificates;
pub mod door;
pub mod hint;
pub mod names;
pub mod pair;
pub mod self_signed;
pub mod source;

use std::time::SystemTime;

use crate::config::{Config, Faults};
use source::Source;

/// Reads the certificate that `config` names, and says what is to be said about it.
///
/// A certificate of the server's own is only made when the server starts.
///
/// # Errors
/// Everything that is wrong with the files, each named.
pub fn check(config: &Config) -> Result<Vec<String>, Faults> {
    let Some(source @ Source::Files { .. }) = Source::of(config) else { return Ok(Vec::new()) };
    let now = wall_clock();
    Ok(source.load(now)?.validity.warning(&source.place(), now).into_iter().collect())
}

#[expect(clippy::disallowed_methods, reason = "whether a certificate is expired is asked of the clock")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
