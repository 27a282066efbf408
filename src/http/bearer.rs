//! Bearer tokens (RFC 6750) in requests.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

/// True if the request's bearer token (RFC 6750 section 2.1) equals `token`.
pub fn bears(headers: &HeaderMap, token: &SecretString) -> bool {
    bearer(headers).is_some_and(|given| is_equal(given, token))
}

/// The request's bearer token.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, given) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| given.trim())
}

/// True if a text of the request equals the secret. The time depends on the length alone.
pub fn is_equal(given: &str, secret: &SecretString) -> bool {
    given.as_bytes().ct_eq(secret.expose_secret().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_the_complete_token_is_accepted() {
        let token = SecretString::from("right");
        for (value, opens) in [
            ("Bearer right", true),
            ("bearer right", true),
            ("Bearer righ", false),
            ("Bearer right2", false),
            ("Basic right", false),
            ("right", false),
            ("Bearer ", false),
        ] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
            assert_eq!(bears(&headers, &token), opens, "{value}");
        }
        assert!(!bears(&HeaderMap::new(), &token));
    }
}
