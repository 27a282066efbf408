//! The session lock: a session of the media API belongs to the identity that opened it.
//!
//! Its proof is a cookie `partytracks-session-{id}` (protocol section 9), so the server remembers
//! nothing, and a restart or another node changes nothing.

use std::time::{Duration, SystemTime};

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use cookie::{Cookie, SameSite};
use serde::{Deserialize, Serialize};

use crate::id::{IdentityId, SessionId};
use crate::identity::peer::{Peer, Scheme};
use crate::identity::token::{Claims, SigningKey};

const PREFIX: &str = "partytracks-session-";

/// How many cookies of this kind a browser may keep. Every page load adds one; without an end they
/// would fill the limit on headers, and nothing would get through any more.
const COOKIES: usize = 100;

/// What the cookie says. Names are short: a browser sends all of these cookies with every call.
#[derive(Serialize, Deserialize)]
struct Held {
    #[serde(rename = "sessionId")]
    session: String,
    #[serde(rename = "sub")]
    identity: String,
}

impl Claims for Held {
    const AUDIENCE: &'static str = "calls";
    const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
}

/// The `Set-Cookie` values for a session that `identity` opened at `mount`: the session's own, and
/// those that remove the oldest where there are too many.
pub fn set_cookies(
    key: &SigningKey,
    session: &SessionId,
    identity: &IdentityId,
    mount: &'static str,
    peer: &Peer,
    headers: &HeaderMap,
    now: SystemTime,
) -> Vec<HeaderValue> {
    let held = Held { session: session.to_string(), identity: identity.to_string() };
    let new = (format!("{PREFIX}{session}"), key.sign(held, now), Held::LIFETIME);
    let removed = too_many(key, headers, now).into_iter().map(|name| (name, String::new(), Duration::ZERO));
    std::iter::once(new)
        .chain(removed)
        .filter_map(|(name, token, lifetime)| {
            let mut cookie = Cookie::build((name, token))
                .path(mount)
                .http_only(true)
                .same_site(SameSite::Strict)
                .max_age(cookie::time::Duration::seconds(lifetime.as_secs().cast_signed()))
                .build();
            // Browsers refuse a Secure cookie that came over plain http.
            if peer.scheme == Scheme::Https {
                cookie.set_secure(true);
            }
            let mut value = HeaderValue::try_from(cookie.to_string()).ok()?;
            value.set_sensitive(true);
            Some(value)
        })
        .collect()
}

/// A session's proof in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It is good.
    Fresh,
    /// It is good, and has less than half of its life before it: a new cookie is due.
    Aging,
}

/// The proof that `identity` opened the session, if the request has one.
pub fn proof(
    key: &SigningKey,
    session: &SessionId,
    identity: &IdentityId,
    headers: &HeaderMap,
    now: SystemTime,
) -> Option<Proof> {
    let own = cookies(headers).filter(|(id, _)| *id == session.as_str().as_bytes());
    let mut held = own
        .filter_map(|(_, token)| key.verify::<Held>(token, now))
        .filter(|held| held.claims.session == session.as_str() && held.claims.identity == identity.as_str());
    let age = now.duration_since(held.next()?.issued_at).unwrap_or_default();
    Some(if age > Held::LIFETIME / 2 { Proof::Aging } else { Proof::Fresh })
}

/// The names of the oldest cookies, and of those that prove nothing, as many as there are too many.
fn too_many(key: &SigningKey, headers: &HeaderMap, now: SystemTime) -> Vec<String> {
    let all: Vec<_> = cookies(headers).collect();
    let Some(surplus) = (all.len() + 1).checked_sub(COOKIES).filter(|surplus| *surplus > 0) else {
        return Vec::new();
    };
    let made = |token: &[u8]| key.verify::<Held>(token, now).map(|held| held.issued_at);
    let mut by_age: Vec<_> = all.into_iter().map(|(id, token)| (made(token), id)).collect();
    by_age.sort();
    let ids = by_age
        .into_iter()
        .take(surplus)
        .filter_map(|(_, id)| SessionId::parse(str::from_utf8(id).ok()?).ok());
    ids.map(|id| format!("{PREFIX}{id}")).collect()
}

/// The session and the token of each cookie of this kind.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(COOKIE).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).filter_map(|pair| {
        let pair = pair.trim_ascii().strip_prefix(PREFIX.as_bytes())?;
        let end = pair.iter().position(|byte| *byte == b'=')?;
        Some((&pair[..end], &pair[end + 1..]))
    })
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;
    use secrecy::SecretSlice;

    use super::*;
    use crate::identity::peer::TrustedProxies;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn key() -> SigningKey {
        SigningKey::new(&SecretSlice::from(vec![7; 64]))
    }

    fn peer(scheme: Scheme) -> Peer {
        let address = [127, 0, 0, 1].into();
        Peer::new(address, scheme, &Uri::from_static("/"), &HeaderMap::new(), &TrustedProxies::default())
    }

    fn session(id: &str) -> SessionId {
        SessionId::parse(id).unwrap()
    }

    /// The request headers of a browser that kept these cookies.
    fn sent<'a>(kept: impl IntoIterator<Item = &'a HeaderValue>) -> HeaderMap {
        let pairs: Vec<_> =
            kept.into_iter().map(|value| value.to_str().unwrap().split(';').next().unwrap()).collect();
        HeaderMap::from_iter([(COOKIE, pairs.join("; ").parse().unwrap())])
    }

    fn open(id: &str, identity: &str, headers: &HeaderMap, now: SystemTime) -> Vec<HeaderValue> {
        let identity = IdentityId::new(identity);
        set_cookies(&key(), &session(id), &identity, "/partytracks", &peer(Scheme::Http), headers, now)
    }

    #[test]
    fn only_the_identity_that_opened_a_session_holds_it_for_a_day() {
        let headers = sent(&open("s1", "cookie:ada", &HeaderMap::new(), NOW));
        let held = |id: &str, identity: &str, hours: u64| {
            let at = NOW + Duration::from_secs(hours * 3600);
            proof(&key(), &session(id), &IdentityId::new(identity), &headers, at)
        };
        assert_eq!(held("s1", "cookie:ada", 12), Some(Proof::Fresh));
        assert_eq!(held("s1", "cookie:ada", 23), Some(Proof::Aging));
        assert_eq!(held("s1", "cookie:ada", 24), None);
        assert_eq!(held("s1", "cookie:bob", 0), None);
        assert_eq!(held("s2", "cookie:ada", 0), None);
    }

    #[test]
    fn a_cookie_under_another_sessions_name_or_of_another_key_proves_nothing() {
        let ada = IdentityId::new("cookie:ada");
        let [cookie] = &open("s1", "cookie:ada", &HeaderMap::new(), NOW)[..] else { panic!("one cookie") };
        let renamed = cookie.to_str().unwrap().replace("session-s1", "session-s2");
        let headers = sent([&HeaderValue::try_from(renamed).unwrap()]);
        assert_eq!(proof(&key(), &session("s2"), &ada, &headers, NOW), None);
        let other = SigningKey::new(&SecretSlice::from(vec![8; 64]));
        assert_eq!(proof(&other, &session("s1"), &ada, &sent([cookie]), NOW), None);
    }

    #[test]
    fn the_cookie_goes_to_its_mount_alone_and_is_secure_over_https() {
        let set = |scheme| {
            let ada = IdentityId::new("cookie:ada");
            let headers = HeaderMap::new();
            let values =
                set_cookies(&key(), &session("s1"), &ada, "/api/calls", &peer(scheme), &headers, NOW);
            values[0].to_str().unwrap().split_once(';').unwrap().1.to_owned()
        };
        assert_eq!(set(Scheme::Http), " HttpOnly; SameSite=Strict; Path=/api/calls; Max-Age=86400");
        assert_eq!(set(Scheme::Https), " HttpOnly; SameSite=Strict; Secure; Path=/api/calls; Max-Age=86400");
    }

    #[test]
    fn the_oldest_cookies_go_before_they_fill_the_headers() {
        let id = "0123456789abcdef0123456789abcdef";
        let identity = format!("cookie:{}", uuid::Uuid::nil());
        let mut jar: Vec<HeaderValue> = Vec::new();
        for second in 0..150 {
            let id = format!("{}{second:03}", &id[3..]);
            let now = NOW + Duration::from_secs(second);
            let mut set = open(&id, &identity, &sent(&jar), now).into_iter();
            let new = set.next().unwrap();
            for removed in set {
                let name = removed.to_str().unwrap().split('=').next().unwrap().to_owned();
                assert!(removed.to_str().unwrap().ends_with("Max-Age=0"));
                jar.retain(|kept| !kept.to_str().unwrap().starts_with(&name));
            }
            jar.push(new);
        }
        assert_eq!(jar.len(), COOKIES);
        assert!(jar[0].to_str().unwrap().contains("050="), "the oldest 50 are gone");
        let bytes = sent(&jar)[COOKIE].len();
        assert!(bytes < 48 << 10, "{bytes} bytes of cookies leave too little of 64 KiB");
    }
}
