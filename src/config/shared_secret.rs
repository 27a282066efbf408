//! The secret that all nodes share, and the keys that follow from it.

use std::fmt;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretSlice, SecretString};

/// The secret that all nodes share. Every key is derived from it for one purpose (HKDF, RFC 5869), so that none tells
/// another.
pub struct SharedSecret(SecretString);

/// Separates these keys from those that other programs derive from the same secret.
const SALT: &[u8] = b"satsuma cluster 1";

/// Number of bytes to derive.
#[derive(Clone, Copy)]
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl SharedSecret {
    /// A secret that was [checked](super::ClusterConfig::shared_secret).
    pub fn new(secret: SecretString) -> Self {
        Self(secret)
    }

    #[expect(clippy::expect_used, reason = "HKDF fails for more than 8,160 bytes")]
    fn derive(&self, purpose: &str, bytes: usize) -> Zeroizing<Vec<u8>> {
        let key = Salt::new(HKDF_SHA256, SALT).extract(self.0.expose_secret().as_bytes());
        let mut derived = Zeroizing::new(vec![0; bytes]);
        let purpose = [purpose.as_bytes()];
        let output = key.expand(&purpose, Length(bytes)).expect("keys are short");
        output.fill(&mut derived).expect("the length is the same");
        derived
    }

    /// The 64 bytes that cookies are signed with on every node.
    pub fn signing_key(&self) -> SecretSlice<u8> {
        self.derive("cookies", 64).to_vec().into()
    }

    /// The token that operators show to every node.
    pub fn operator_token(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(self.derive("operators", 32).as_slice()))
    }

    /// A text that nodes with the same secret and the same of everything else that they have to agree upon share. It tells
    /// nothing about the secret.
    pub fn fingerprint(&self, agreed: &[(&str, u64)]) -> String {
        let agreed = agreed.iter().map(|(name, value)| format!("{name}={value}"));
        let purpose = format!("fingerprint;{}", agreed.collect::<Vec<_>>().join(";"));
        BASE64_STANDARD_NO_PAD.encode(self.derive(&purpose, 12).as_slice())
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SharedSecret {
        SharedSecret::new(text.into())
    }

    /// Nodes of another release have to derive the same keys. The values are those of Python's `hmac`, by
    /// the two steps of the RFC.
    #[test]
    fn keys_are_those_of_any_hkdf() {
        let secret = secret("0123456789abcdef0123456789abcdef");
        assert_eq!(*secret.operator_token(), "pFBSR2WLYxSBV27Al3QvNKMQxMiBsITnCdSQrb8llQw");
        let key = secret.signing_key();
        assert_eq!(key.expose_secret().len(), 64);
        assert_eq!(BASE64_STANDARD_NO_PAD.encode(&key.expose_secret()[..12]), "511euH8i6Q5staMJ");
        assert_eq!(secret.fingerprint(&[("shards", 4)]), "F89rM7JuE8n9LX+y");
    }

    #[test]
    fn other_secret_or_setting_has_another_fingerprint() {
        let (a, b) = (secret("0123456789abcdef0123456789abcdef"), secret("0123456789abcdef0123456789abcdeF"));
        assert_ne!(a.fingerprint(&[("shards", 4)]), b.fingerprint(&[("shards", 4)]));
        assert_ne!(a.fingerprint(&[("shards", 4)]), a.fingerprint(&[("shards", 5)]));
        assert!(!format!("{a:?}").contains("0123"));
    }
}
