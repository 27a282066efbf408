//! Tokens that open one object to whoever holds them: the Phoenix topic of a browser that must not know a key.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::keys::KeyNumber;
use crate::auth::token::{Claims, SigningKey};
use crate::id::ObjectId;

/// Time within which a token opens its object. A topic that was joined outlives it.
pub const LIFETIME: Duration = Duration::from_secs(5 * 60);

/// Claims of a token.
#[derive(Debug, Serialize, Deserialize)]
struct ObjectClaims {
    object: String,
    key: KeyNumber,
}

impl Claims for ObjectClaims {
    const AUDIENCE: &'static str = "object";
    const LIFETIME: Duration = LIFETIME;
}

/// Signs a token for an object, at the cost of the key that asked for it.
pub fn sign(key: &SigningKey, object: &ObjectId, of: KeyNumber, now: SystemTime) -> String {
    key.sign(ObjectClaims { object: object.as_str().to_owned(), key: of }, now)
}

/// The object and the key of a token; `None` if it is malformed, not ours, or expired.
pub fn verify(key: &SigningKey, token: &[u8], now: SystemTime) -> Option<(ObjectId, KeyNumber)> {
    let ObjectClaims { object, key } = key.verify(token, now)?.claims;
    Some((ObjectId::parse(&object).ok()?, key))
}

#[cfg(test)]
mod tests {
    use secrecy::SecretSlice;

    use super::*;

    #[test]
    fn token_names_its_object_for_minutes() {
        let [ours, others] = [1, 2].map(|byte| SigningKey::new(&SecretSlice::from(vec![byte; 64])));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000);
        let object = ObjectId::parse("shop:1").unwrap();
        let token = sign(&ours, &object, KeyNumber::default(), now);
        let at = |key: &SigningKey, seconds| {
            verify(key, token.as_bytes(), now + Duration::from_secs(seconds)).map(|(object, _)| object)
        };
        assert_eq!(at(&ours, 0), Some(object.clone()));
        assert_eq!(at(&ours, 299), Some(object));
        assert_eq!(at(&ours, 300), None);
        assert_eq!(at(&others, 0), None);
        assert_eq!(verify(&ours, b"", now), None);
    }
}
