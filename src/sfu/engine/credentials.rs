//! Credentials for ICE: names from the operating system's generator, passwords that a secret makes of them.
//!
//! The library's own generator is seeded by the clock, and a few of its numbers tell all that follow: whoever
//! knows its own session's password could compute the next client's, and take over that client's media path.
//!
//! The secret outlives sessions and restarts, so that who asks for a session that is gone can be told so.

use std::fmt;

use aws_lc_rs::hmac::{self, HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use str0m::IceCreds;
use str0m::ice::{StunMessage, StunMessageBuilder};

use crate::sfu::error::SfuError;

/// Random bytes of a name, and bytes of a password. Their text is as long as base64 makes it, whose letters are
/// those that RFC 8839 section 5.4 allows.
const UFRAG_BYTES: usize = 12;
const PASSWORD_BYTES: usize = 18;

/// Bytes of an answer that refuses: a header, an error code, a signature and a fingerprint.
const REFUSAL_BYTES: usize = 60;

/// The secret of which passwords are made.
#[derive(Clone)]
pub struct IceSecret(hmac::Key);

impl IceSecret {
    /// Takes a secret that may have other uses.
    pub fn new(secret: &[u8]) -> Self {
        let of_ice = hmac::sign(&hmac::Key::new(HMAC_SHA256, secret), b"ICE passwords");
        Self(hmac::Key::new(HMAC_SHA256, of_ice.as_ref()))
    }

    /// New credentials.
    pub(super) fn credentials(&self) -> Result<IceCreds, SfuError> {
        let mut random = [0; UFRAG_BYTES];
        getrandom::fill(&mut random).map_err(|_| SfuError::Internal)?;
        let ufrag = STANDARD_NO_PAD.encode(random);
        Ok(IceCreds { pass: self.password(&ufrag), ufrag })
    }

    fn password(&self, ufrag: &str) -> String {
        STANDARD_NO_PAD.encode(&hmac::sign(&self.0, ufrag.as_bytes()).as_ref()[..PASSWORD_BYTES])
    }

    /// The answer to a connectivity check for a session that is not here any more: 403, with which RFC 7675's drafts
    /// revoked consent. Whoever has no password of this server's gets none, and so nobody who was never here.
    ///
    /// Browsers fail the connection then; to 401, which RFC 8489 has for an unknown name, they ask again.
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

/// RFC 8489 section 14.5.
fn sha1_hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, key));
    parts.iter().for_each(|part| context.update(part));
    let mut tag = [0; 20];
    tag.copy_from_slice(context.sign().as_ref());
    tag
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
