//! Signed tokens, written by this server for itself and stored by clients.
//!
//! JWTs (RFC 7519) with the algorithm HS256. Each kind of claims has its own audience, so that a token
//! for one purpose is invalid for any other, although one key signs all.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretSlice};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Claims of one kind of token, besides audience and times; serialize as a JSON object.
pub trait Claims: Serialize + DeserializeOwned {
    /// The `aud` claim, different for each kind of token.
    const AUDIENCE: &'static str;
    /// Lifetime of a token.
    const LIFETIME: Duration;
}

/// The content of a token whose signature and validity period are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T> {
    /// The token's claims.
    pub claims: T,
    /// Time of issue, to the second.
    pub issued_at: SystemTime,
}

#[derive(Serialize, Deserialize)]
struct TokenEnvelope<T> {
    aud: String,
    iat: u64,
    exp: u64,
    #[serde(flatten)]
    claims: T,
}

/// The key that signs this server's tokens.
pub struct SigningKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
    /// A key that signed before, whose tokens are still valid.
    former: Option<DecodingKey>,
}

impl SigningKey {
    /// Takes 64 random bytes.
    pub fn new(key: &SecretSlice<u8>) -> Self {
        let key = key.expose_secret();
        let (encoding, decoding) = (EncodingKey::from_secret(key), DecodingKey::from_secret(key));
        Self { encoding, decoding, former: None }
    }

    /// The same key, which accepts what another one signed as well.
    #[must_use]
    pub fn accepting(self, former: Option<&SecretSlice<u8>>) -> Self {
        let former = former.map(|key| DecodingKey::from_secret(key.expose_secret()));
        Self { former, ..self }
    }

    fn decoding(&self) -> impl Iterator<Item = &DecodingKey> {
        std::iter::once(&self.decoding).chain(&self.former)
    }

    /// Signs a token that is valid from `now` for the kind's lifetime.
    ///
    /// # Panics
    /// Panics if the claims do not serialize as a JSON object.
    #[expect(clippy::expect_used, reason = "HS256 with a secret key takes every JSON object")]
    pub fn sign<T: Claims>(&self, claims: T, now: SystemTime) -> String {
        let iat = seconds(now);
        let exp = iat + T::LIFETIME.as_secs();
        let envelope = TokenEnvelope { aud: T::AUDIENCE.into(), iat, exp, claims };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &envelope, &self.encoding)
            .expect("claims are a JSON object")
    }

    /// Verifies a token of this kind; `None` if it is malformed, not signed by this key, made for
    /// another purpose, or expired at `now`.
    ///
    /// Compares signatures in constant time.
    pub fn verify<T: Claims>(&self, token: &[u8], now: SystemTime) -> Option<Verified<T>> {
        let mut rules = Validation::new(Algorithm::HS256);
        rules.set_audience(&[T::AUDIENCE]);
        rules.set_required_spec_claims(&["aud", "exp"]);
        // The library would read the clock itself.
        rules.validate_exp = false;
        let decode = |key| jsonwebtoken::decode::<TokenEnvelope<T>>(token, key, &rules).ok();
        let token = self.decoding().find_map(decode)?;
        let TokenEnvelope { iat, exp, claims, .. } = token.claims;
        let issued_at = UNIX_EPOCH.checked_add(Duration::from_secs(iat))?;
        (seconds(now) < exp).then_some(Verified { claims, issued_at })
    }
}

impl SigningKey {
    /// Signs a `message` for a `purpose`, for places too short for a whole token: HMAC-SHA256 as
    /// base64url without padding.
    ///
    /// # Panics
    /// Never: HS256 with a secret key takes every message.
    #[expect(clippy::expect_used, reason = "HS256 with a secret key takes every message")]
    pub fn sign_text(&self, purpose: &'static str, message: &str) -> String {
        jsonwebtoken::crypto::sign(&detached(purpose, message), &self.encoding, Algorithm::HS256)
            .expect("HS256 takes every message")
    }

    /// True if `signature` is that of [`Self::sign_text`]; compares in constant time.
    pub fn verify_text(&self, purpose: &'static str, message: &str, signature: &str) -> bool {
        let message = detached(purpose, message);
        let verify = |key| jsonwebtoken::crypto::verify(signature, &message, key, Algorithm::HS256);
        self.decoding().any(|key| verify(key).unwrap_or(false))
    }
}

/// Builds the signed text. Its line break keeps it distinct from any JWT's signing input.
fn detached(purpose: &'static str, message: &str) -> Vec<u8> {
    format!("{purpose}\n{message}").into_bytes()
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// Converts a time to a JWT's NumericDate (RFC 7519 section 2) in whole seconds; 0 before 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
pub(super) mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Returns a fixed moment of 2026.
    pub fn today() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_780_000_000)
    }

    pub fn key(byte: u8) -> SigningKey {
        SigningKey::new(&SecretSlice::from(vec![byte; 64]))
    }

    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct TicketClaims {
        seat: u32,
    }

    impl Claims for TicketClaims {
        const AUDIENCE: &'static str = "ticket";
        const LIFETIME: Duration = Duration::from_secs(100);
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Voucher {
        seat: u32,
    }

    impl Claims for Voucher {
        const AUDIENCE: &'static str = "voucher";
        const LIFETIME: Duration = Duration::from_secs(100);
    }

    fn ticket() -> String {
        key(1).sign(TicketClaims { seat: 7 }, today())
    }

    fn verify(token: &str) -> Option<TicketClaims> {
        key(1).verify::<TicketClaims>(token.as_bytes(), today()).map(|verified| verified.claims)
    }

    fn part(value: &serde_json::Value) -> String {
        URL_SAFE_NO_PAD.encode(value.to_string())
    }

    #[test]
    fn token_contains_the_signed_claims() {
        let verified = key(1).verify::<TicketClaims>(ticket().as_bytes(), today());
        assert_eq!(verified, Some(Verified { claims: TicketClaims { seat: 7 }, issued_at: today() }));
    }

    #[test]
    fn token_of_another_key_or_purpose_is_rejected() {
        assert!(key(2).verify::<TicketClaims>(ticket().as_bytes(), today()).is_none());
        assert!(key(1).verify::<Voucher>(ticket().as_bytes(), today()).is_none());
    }

    #[test]
    fn token_expires_to_the_second() {
        let after = |seconds| {
            let now = today() + Duration::from_secs(seconds);
            key(1).verify::<TicketClaims>(ticket().as_bytes(), now).is_some()
        };
        assert!(after(99));
        assert!(!after(100));
        assert!(!after(1_000_000_000));
    }

    #[test]
    fn changed_token_is_rejected() {
        let token = ticket();
        let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
            panic!("{token}")
        };
        let mine = json!({"aud": "ticket", "iat": 0, "exp": u64::MAX, "seat": 8});
        for forged in [
            format!("{header}.{}.{signature}", part(&mine)),
            format!("{header}.{payload}.{}", URL_SAFE_NO_PAD.encode([0; 32])),
            format!("{header}.{payload}."),
            format!("{header}.{payload}"),
            format!("{header}.{payload}.{signature}."),
            format!("{header}.{payload}.{signature}="),
            String::new(),
            "..".into(),
        ] {
            assert_eq!(verify(&forged), None, "{forged}");
        }
    }

    #[test]
    fn token_header_cannot_choose_the_algorithm() {
        let claims = json!({"aud": "ticket", "iat": 0, "exp": u64::MAX, "seat": 8});
        for alg in ["none", "None", "NONE", "", "RS256", "ES256"] {
            for signature in ["", "AAAA"] {
                let header = part(&json!({"alg": alg, "typ": "JWT"}));
                let token = format!("{header}.{}.{signature}", part(&claims));
                assert_eq!(verify(&token), None, "{alg}");
            }
        }
        // Even with a valid signature: one algorithm is accepted, not its whole family.
        let secret = EncodingKey::from_secret(&[1; 64]);
        for alg in [Algorithm::HS384, Algorithm::HS512] {
            let token = jsonwebtoken::encode(&Header::new(alg), &claims, &secret).unwrap();
            assert_eq!(verify(&token), None, "{alg:?}");
        }
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &secret).unwrap();
        assert_eq!(verify(&token), Some(TicketClaims { seat: 8 }));
    }

    #[test]
    fn audience_times_and_content_are_required() {
        let secret = EncodingKey::from_secret(&[1; 64]);
        for claims in [
            json!({"iat": 0, "exp": u64::MAX, "seat": 8}),
            json!({"aud": "ticket", "exp": u64::MAX, "seat": 8}),
            json!({"aud": "ticket", "iat": 0, "seat": 8}),
            json!({"aud": "ticket", "iat": 0, "exp": u64::MAX}),
            json!({"aud": "ticket", "iat": u64::MAX, "exp": u64::MAX, "seat": 8}),
            json!({"aud": "ticket", "iat": 0, "exp": "never", "seat": 8}),
            json!({"aud": "ticket", "iat": 0, "exp": -1, "seat": 8}),
            json!([1, 2, 3]),
            json!("ticket"),
        ] {
            let token = jsonwebtoken::encode(&Header::default(), &claims, &secret).unwrap();
            assert_eq!(verify(&token), None, "{claims}");
        }
    }

    #[test]
    fn signed_text_is_bound_to_purpose_and_key() {
        let signature = key(1).sign_text("debug info", "id 7");
        assert_eq!(signature.len(), 43);
        assert!(key(1).verify_text("debug info", "id 7", &signature));
        assert!(!key(2).verify_text("debug info", "id 7", &signature));
        assert!(!key(1).verify_text("another purpose", "id 7", &signature));
        assert!(!key(1).verify_text("debug info", "id 8", &signature));
        for forged in ["", "x", "=", &signature[1..], &format!("{signature}="), &format!("{signature}AAAA")] {
            assert!(!key(1).verify_text("debug info", "id 7", forged), "{forged}");
        }
        // A token's signature is invalid here: its signing input has no line break.
        let token = ticket();
        let (input, signature) = token.rsplit_once('.').unwrap();
        assert!(!key(1).verify_text("", input, signature));
    }

    #[test]
    fn debug_output_hides_the_key() {
        assert_eq!(format!("{:?}", key(1)), "SigningKey(..)");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_token(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(key(1).verify::<TicketClaims>(&bytes, today()).is_none());
        }

        #[test]
        fn token_with_a_changed_byte_is_rejected(at in 0..1000usize, byte in any::<u8>()) {
            let mut token = ticket().into_bytes();
            let at = at % token.len();
            prop_assume!(token[at] != byte);
            token[at] = byte;
            prop_assert!(key(1).verify::<TicketClaims>(&token, today()).is_none());
        }
    }
}
