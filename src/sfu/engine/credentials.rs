//! ICE credentials: ufrags from the operating system's random generator, and passwords derived from them with a
//! secret.
//!
//! str0m's own generator is seeded by the clock, and a few of its outputs determine all that follow: a client that
//! knows its own session's password could compute the next client's, and take over that client's media path.
//!
//! The secret outlives sessions and restarts, so that a check for a session that no longer exists can be refused.

use std::fmt;

use aws_lc_rs::hmac::{self, HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use str0m::IceCreds;
use str0m::ice::{StunMessage, StunMessageBuilder};

use crate::error::SfuError;

/// Random bytes of a ufrag, and bytes of a password. Their text is base64, whose characters are those that RFC 8839
/// section 5.4 allows.
const UFRAG_BYTES: usize = 12;
const PASSWORD_BYTES: usize = 18;

/// Bytes of a refusal: header, error code, MESSAGE-INTEGRITY and FINGERPRINT.
const REFUSAL_BYTES: usize = 60;

/// The key from which ICE passwords are derived.
#[derive(Clone)]
pub struct IceSecret(hmac::Key);

impl IceSecret {
    /// Derives the key from a secret that may have other uses.
    pub fn new(secret: &[u8]) -> Self {
        let of_ice = hmac::sign(&hmac::Key::new(HMAC_SHA256, secret), b"ICE passwords");
        Self(hmac::Key::new(HMAC_SHA256, of_ice.as_ref()))
    }

    /// Creates credentials with a random ufrag.
    pub(super) fn credentials(&self) -> Result<IceCreds, SfuError> {
        let mut random = [0; UFRAG_BYTES];
        getrandom::fill(&mut random).map_err(|_| SfuError::Internal)?;
        let ufrag = STANDARD_NO_PAD.encode(random);
        Ok(IceCreds { pass: self.password(&ufrag), ufrag })
    }

    fn password(&self, ufrag: &str) -> String {
        STANDARD_NO_PAD.encode(&hmac::sign(&self.0, ufrag.as_bytes()).as_ref()[..PASSWORD_BYTES])
    }

    /// Returns the response to a connectivity check for a session that no longer exists: 403, with which drafts of
    /// RFC 7675 revoked consent. A check without a password of this server gets none, so a client that was never here
    /// learns nothing.
    ///
    /// Browsers then fail the connection; after 401, which RFC 8489 specifies for an unknown username, they retry.
    pub(super) fn refusal(&self, check: &[u8]) -> Option<Vec<u8>> {
        let check = StunMessage::parse(check).ok().filter(StunMessage::is_binding_request)?;
        let password = self.password(check.split_username()?.0);
        if !check.verify(password.as_bytes(), sha1_hmac) {
            return None;
        }
        let refused =
            StunMessageBuilder::new().binding().failure().error_code(403, "").build(check.trans_id());
        let mut bytes = vec![0; REFUSAL_BYTES];
        let length = refused.to_bytes(Some(password.as_bytes()), &mut bytes, sha1_hmac).ok()?;
        bytes.truncate(length);
        Some(bytes)
    }
}

impl fmt::Debug for IceSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IceSecret")
    }
}

/// HMAC-SHA1 for MESSAGE-INTEGRITY (RFC 8489 section 14.5).
fn sha1_hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, key));
    parts.iter().for_each(|part| context.update(part));
    let mut tag = [0; 20];
    tag.copy_from_slice(context.sign().as_ref());
    tag
}

/// Replaces the ICE credentials in a description that str0m wrote.
pub(super) fn with_credentials(text: &str, old: &IceCreds, new: &IceCreds) -> String {
    text.replace(&format!("a=ice-ufrag:{}", old.ufrag), &format!("a=ice-ufrag:{}", new.ufrag))
        .replace(&format!("a=ice-pwd:{}", old.pass), &format!("a=ice-pwd:{}", new.pass))
}

/// Seeds str0m's generator of numbers that are not secret: SSRCs, first sequence numbers, transaction ids.
///
/// The numbers that one client sees then reveal nothing about another's.
pub(super) fn reseed() {
    if let Ok(seed) = getrandom::u64() {
        fastrand::seed(seed);
    }
}
