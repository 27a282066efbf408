//! A login under way: the secrets that bind it to one browser, in a short-lived cookie.

use std::time::{Duration, SystemTime};

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cookie::SameSite;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::auth::peer::RemotePeer;
use crate::auth::set_cookie::set_cookie;
use crate::auth::token::{Claims, SigningKey};

/// Name of the cookie.
const COOKIE_NAME: &str = "satsuma_login";

/// The path to which the cookie is sent, below the base path.
const PATH: &str = "api/login";

/// Time in which a user signs in at the issuer.
const LIFETIME: Duration = Duration::from_secs(10 * 60);

/// Bytes of each secret.
const SECRET_BYTES: usize = 32;

/// Cookies of this name that are verified; a browser has one.
const MAX_COOKIES: usize = 2;

/// A login under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempt {
    /// Comes back from the issuer with the browser (RFC 6749 section 10.12).
    pub(super) state: String,
    /// Comes back in the ID token.
    pub(super) nonce: String,
    /// The secret of PKCE (RFC 7636).
    pub(super) verifier: String,
    /// The path to lead back to.
    pub(super) back: String,
}

impl Claims for Attempt {
    const AUDIENCE: &'static str = "login";
    const LIFETIME: Duration = LIFETIME;
}

impl Attempt {
    /// A new one, which leads back to a path.
    ///
    /// # Errors
    /// Those of the operating system's generator.
    pub(super) fn random(back: String) -> Result<Self, getrandom::Error> {
        Ok(Self { state: secret()?, nonce: secret()?, verifier: secret()?, back })
    }

    /// The one of the browser that sends these headers, if the issuer sent it back with this state.
    pub(super) fn of_browser(
        headers: &HeaderMap,
        state: &str,
        key: &SigningKey,
        now: SystemTime,
    ) -> Option<Self> {
        let lines =
            headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
        let values = lines
            .filter_map(|pair| pair.trim_ascii().strip_prefix(COOKIE_NAME.as_bytes())?.strip_prefix(b"="));
        let mut attempts =
            values.take(MAX_COOKIES).filter_map(|value| Some(key.verify::<Self>(value, now)?.claims));
        attempts.find(|attempt| attempt.state.as_bytes().ct_eq(state.as_bytes()).into())
    }

    /// The challenge of PKCE: base64 of the verifier's SHA-256.
    pub(super) fn challenge(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.verifier.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(digest)
    }

    /// The `Set-Cookie` value that binds the login to the browser.
    pub(super) fn set_cookie(self, key: &SigningKey, peer: &RemotePeer, now: SystemTime) -> HeaderValue {
        cookie(&key.sign(self, now), LIFETIME, peer)
    }

    /// The `Set-Cookie` value that ends the login.
    pub(super) fn remove_cookie(peer: &RemotePeer) -> HeaderValue {
        cookie("", Duration::ZERO, peer)
    }
}

fn cookie(value: &str, age: Duration, peer: &RemotePeer) -> HeaderValue {
    // With `Strict` it would not come back from the issuer.
    set_cookie(COOKIE_NAME, value, format!("{}{PATH}", peer.base_path), SameSite::Lax, age, peer.scheme)
}

fn secret() -> Result<String, getrandom::Error> {
    let mut random = [0; SECRET_BYTES];
    getrandom::fill(&mut random)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenge_is_that_of_the_specification() {
        // RFC 7636 appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned();
        let attempt = Attempt { state: String::new(), nonce: String::new(), verifier, back: "/".into() };
        assert_eq!(attempt.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn secrets_are_new_for_each_login() {
        let [one, other] = [(); 2].map(|()| Attempt::random("/".into()).unwrap());
        let all = [&one.state, &one.nonce, &one.verifier, &other.state, &other.nonce, &other.verifier];
        assert!(all.iter().all(|secret| secret.len() == 43));
        for (at, secret) in all.iter().enumerate() {
            assert!(!all[..at].contains(secret));
        }
    }
}
