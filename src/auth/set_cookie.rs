//! `Set-Cookie` values, with the attributes that all cookies of the public listener share.

use std::time::Duration;

use axum::http::HeaderValue;
use cookie::{Cookie, SameSite};

use super::peer::Scheme;

/// Returns a `Set-Cookie` value for a client that came by `scheme`; a lifetime of zero removes the cookie.
///
/// No script reads it, and it goes over `https` alone where the client came by that: browsers refuse a `Secure` cookie
/// over plain http. The value is not logged.
///
/// # Panics
/// If name, value or path are not visible ASCII; those of this server are.
#[expect(clippy::expect_used, reason = "names, values and paths of this server are visible ASCII")]
pub fn set_cookie(
    name: &str,
    value: &str,
    path: String,
    same_site: SameSite,
    lifetime: Duration,
    scheme: Scheme,
) -> HeaderValue {
    let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
    let cookie = Cookie::build((name, value))
        .path(path)
        .http_only(true)
        .same_site(same_site)
        .max_age(cookie::time::Duration::seconds(seconds));
    let cookie = if scheme == Scheme::Https { cookie.secure(true) } else { cookie };
    let mut value =
        HeaderValue::try_from(cookie.build().to_string()).expect("a cookie of ours is visible ASCII");
    value.set_sensitive(true);
    value
}
