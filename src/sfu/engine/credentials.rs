//! Credentials for ICE, from the operating system's generator.
//!
//! The library's own generator is seeded by the clock, and a few of its numbers tell all that follow: whoever
//! knows its own session's password could compute the next client's, and take over that client's media path.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use str0m::IceCreds;

use crate::sfu::error::SfuError;

/// Random bytes of a name and of a password. Their text is as long as base64 makes it, whose letters are those
/// that RFC 8839 section 5.4 allows.
const UFRAG_BYTES: usize = 12;
const PASSWORD_BYTES: usize = 18;

/// New credentials.
pub(super) fn ice_credentials() -> Result<IceCreds, SfuError> {
    let mut random = [0; UFRAG_BYTES + PASSWORD_BYTES];
    getrandom::fill(&mut random).map_err(|_| SfuError::Internal)?;
    let (ufrag, password) = random.split_at(UFRAG_BYTES);
    Ok(IceCreds { ufrag: STANDARD_NO_PAD.encode(ufrag), pass: STANDARD_NO_PAD.encode(password) })
}

/// A description with other credentials than those with which the library wrote it.
pub(super) fn with_credentials(text: &str, old: &IceCreds, new: &IceCreds) -> String {
    text.replace(&format!("a=ice-ufrag:{}", old.ufrag), &format!("a=ice-ufrag:{}", new.ufrag))
        .replace(&format!("a=ice-pwd:{}", old.pass), &format!("a=ice-pwd:{}", new.pass))
}

/// Seeds the library's generator of numbers that are no secrets: SSRCs, first sequence numbers, transaction ids.
///
/// Those that one client sees then tell nothing of another's.
pub(super) fn reseed() {
    if let Ok(seed) = getrandom::u64() {
        fastrand::seed(seed);
    }
}
