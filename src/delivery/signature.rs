//! **Pure**: signatures of messages as by Standard Webhooks.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The header with the message's id, the same in every attempt.
pub const ID: &str = "webhook-id";

/// The header with the time of the attempt, in seconds since 1970.
pub const TIMESTAMP: &str = "webhook-timestamp";

/// The header with the signature.
pub const SIGNATURE: &str = "webhook-signature";

/// The key of signatures.
pub struct SigningKey(hmac::Key);

impl SigningKey {
    /// Creates the key from its bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Returns the value of the header with the signature.
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut signed = hmac::Context::with_key(&self.0);
        for part in [id.as_bytes(), b".", timestamp.to_string().as_bytes(), b".", body] {
            signed.update(part);
        }
        format!("v1,{}", STANDARD.encode(signed.sign()))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_equals_the_specifications_example() {
        // Standard Webhooks, the example of its reference libraries.
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = SigningKey::new(&key).sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
