//! Session lock: a session of the media API belongs to the identity that opened it.
//!
//! The proof is a cookie, so the server keeps no state, and a restart or another node makes no difference. The
//! cookie's path is the session's own, so a call carries only the proof of its session, and headers stay short
//! for a client with many sessions.

use std::time::{Duration, SystemTime};

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cookie::SameSite;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::auth::peer::RemotePeer;
use crate::auth::set_cookie;
use crate::auth::token::{Claims, SigningKey};
use crate::id::{IdentityId, SessionId};

const PREFIX: &str = "pt";

/// Purpose of the proof's signature: no other signature of this server is valid as a proof.
const PURPOSE: &str = "calls";

/// Purpose of the signature from which the cookie's name is derived: it proves nothing.
const NAME_PURPOSE: &str = "calls name";

/// Characters of the proof's signature: 96 bits, which cannot be guessed over a network.
const PROOF_CHARS: usize = 16;

/// Length of a cookie's name in bytes.
const NAME: usize = PREFIX.len() + NAME_CHARS;

/// Characters of a signature in the cookie's name. They distinguish the sessions' cookies in a client that
/// ignores paths, and keep the header at a few thousand bytes for a hundred sessions.
const NAME_CHARS: usize = 4;

/// Characters of the cookie's hour of creation, in base64.
const HOUR_CHARS: usize = 4;

/// Name prefix of earlier builds' cookies, of 333 bytes each, which a browser sent with all calls. They expire
/// within a day of an upgrade.
const OLD_PREFIX: &str = "partytracks-session-";

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Lifetime of a proof, with a resolution of an hour.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Claims of an old cookie.
#[derive(Serialize, Deserialize)]
struct LockClaims {
    #[serde(rename = "sessionId")]
    session: String,
    #[serde(rename = "sub")]
    identity: String,
}

impl Claims for LockClaims {
    const AUDIENCE: &'static str = "calls";
    const LIFETIME: Duration = LIFETIME;
}

/// State of a session's proof in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockState {
    /// Valid.
    Fresh,
    /// Valid, with less than half of its lifetime left: a new cookie is due.
    Aging,
    /// A cookie of an earlier build, to be replaced.
    Old,
}

/// Returns the state of the request's proof that `identity` opened the session, if it has one.
pub fn proof(
    key: &SigningKey,
    session: &SessionId,
    identity: &IdentityId,
    headers: &HeaderMap,
    now: SystemTime,
) -> Option<LockState> {
    let own = |(name, value): (&[u8], &[u8])| {
        let hour = str::from_utf8(value.get(..HOUR_CHARS)?).ok()?;
        let made = read_hour(hour)?;
        let (own_name, proof) = made_in(key, session, identity, hour);
        let is_own = name == own_name.as_bytes() && bool::from(value.ct_eq(proof.as_bytes()));
        // The clock may have been set back since, which gives an age of zero.
        let age = now.duration_since(made).unwrap_or_default();
        let proof = if age > LIFETIME / 2 { LockState::Aging } else { LockState::Fresh };
        (is_own && age < LIFETIME).then_some(proof)
    };
    let named_alike = |(name, _): &(&[u8], &[u8])| name.starts_with(PREFIX.as_bytes()) && name.len() == NAME;
    if let Some(proof) = cookies(headers).filter(named_alike).find_map(own) {
        return Some(proof);
    }
    let old_name = format!("{OLD_PREFIX}{session}");
    let is_old = |(name, token): (&[u8], &[u8])| {
        name == old_name.as_bytes()
            && key.verify::<LockClaims>(token, now).is_some_and(|held| {
                held.claims.session == session.as_str() && held.claims.identity == identity.as_str()
            })
    };
    cookies(headers).any(is_old).then_some(LockState::Old)
}

/// Returns the `Set-Cookie` value for a session of `identity` at `mount`.
pub fn set_cookie(
    key: &SigningKey,
    session: &SessionId,
    identity: &IdentityId,
    mount: &str,
    peer: &RemotePeer,
    now: SystemTime,
) -> HeaderValue {
    let (name, proof) = made_in(key, session, identity, &hour_of(now));
    let path = format!("{}{mount}/sessions/{session}", peer.base_path.as_str());
    set_cookie::set_cookie(&name, &proof, path, SameSite::Strict, LIFETIME, peer.scheme)
}

/// Returns the `Set-Cookie` value that removes the session's old cookie.
pub fn remove_old_cookie(session: &SessionId, mount: &str, peer: &RemotePeer) -> HeaderValue {
    let (name, path) = (format!("{OLD_PREFIX}{session}"), format!("{}{mount}", peer.base_path.as_str()));
    set_cookie::set_cookie(&name, "", path, SameSite::Strict, Duration::ZERO, peer.scheme)
}

/// Returns the name and value of a session's cookie created in `hour`.
fn made_in(key: &SigningKey, session: &SessionId, identity: &IdentityId, hour: &str) -> (String, String) {
    // Neither session ids nor hours contain a line break. The name is the same in every hour.
    let name = key.sign_text(NAME_PURPOSE, session.as_str());
    let signature = key.sign_text(PURPOSE, &format!("{session}\n{hour}\n{}", identity.as_str()));
    (format!("{PREFIX}{}", &name[..NAME_CHARS]), format!("{hour}{}", &signature[..PROOF_CHARS]))
}

fn hour_of(time: SystemTime) -> String {
    let hours = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / HOUR.as_secs();
    // Three bytes of hours suffice until the year 3883.
    let bytes = u32::try_from(hours).unwrap_or_default().to_be_bytes();
    BASE64_URL_SAFE_NO_PAD.encode(&bytes[1..])
}

fn read_hour(text: &str) -> Option<SystemTime> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    let [a, b, c] = *bytes.as_slice() else { return None };
    Some(SystemTime::UNIX_EPOCH + HOUR * u32::from_be_bytes([0, a, b, c]))
}

/// Returns the name and value of each cookie, as bytes, since other applications of the host may set any.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(COOKIE).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).filter_map(|pair| {
        let pair = pair.trim_ascii();
        let end = pair.iter().position(|byte| *byte == b'=')?;
        Some((&pair[..end], &pair[end + 1..]))
    })
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;
    use secrecy::SecretSlice;

    use super::*;
    use crate::auth::peer::{Scheme, TrustedProxies};

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn key() -> SigningKey {
        SigningKey::new(&SecretSlice::from(vec![7; 64]))
    }

    fn peer(scheme: Scheme) -> RemotePeer {
        let address = [127, 0, 0, 1].into();
        RemotePeer::new(
            address,
            scheme,
            &Uri::from_static("/"),
            &HeaderMap::new(),
            &TrustedProxies::default(),
        )
    }

    fn session(id: &str) -> SessionId {
        SessionId::parse(id).unwrap()
    }

    /// The request headers of a client with these cookies.
    fn sent<'a>(kept: impl IntoIterator<Item = &'a HeaderValue>) -> HeaderMap {
        let pairs: Vec<_> =
            kept.into_iter().map(|value| value.to_str().unwrap().split(';').next().unwrap()).collect();
        HeaderMap::from_iter([(COOKIE, pairs.join("; ").parse().unwrap())])
    }

    fn open(id: &str, identity: &str) -> HeaderValue {
        let identity = IdentityId::new(identity);
        set_cookie(&key(), &session(id), &identity, "/partytracks", &peer(Scheme::Http), NOW)
    }

    fn held(id: &str, identity: &str, headers: &HeaderMap) -> Option<LockState> {
        proof(&key(), &session(id), &IdentityId::new(identity), headers, NOW)
    }

    #[test]
    fn session_is_locked_to_its_identity_for_a_day() {
        let headers = sent([&open("s1", "cookie:ada")]);
        let after = |hours: u32| {
            let ada = IdentityId::new("cookie:ada");
            proof(&key(), &session("s1"), &ada, &headers, NOW + HOUR * hours)
        };
        assert_eq!(after(12), Some(LockState::Fresh));
        assert_eq!(after(23), Some(LockState::Aging));
        assert_eq!(after(24), None);
        assert_eq!(held("s1", "cookie:bob", &headers), None);
        assert_eq!(held("s2", "cookie:ada", &headers), None);
        assert_eq!(held("s1", "cookie:ada", &HeaderMap::new()), None);
    }

    #[test]
    fn cookie_of_another_name_or_key_is_refused() {
        let (ada, own) = (IdentityId::new("cookie:ada"), open("s1", "cookie:ada"));
        let value = own.to_str().unwrap().split(['=', ';']).nth(1).unwrap();
        let other_name = open("s2", "cookie:ada").to_str().unwrap().split('=').next().unwrap().to_owned();
        for forged in [format!("{other_name}={value}"), format!("partytracks-session-s2={value}")] {
            assert_eq!(held("s2", "cookie:ada", &sent([&forged.parse().unwrap()])), None);
        }
        let other = SigningKey::new(&SecretSlice::from(vec![8; 64]));
        assert_eq!(proof(&other, &session("s1"), &ada, &sent([&own]), NOW), None);
        let later = format!("{}{}", hour_of(NOW + LIFETIME), &value[HOUR_CHARS..]);
        let later = sent([&own.to_str().unwrap().replace(value, &later).parse().unwrap()]);
        assert_eq!(proof(&key(), &session("s1"), &ada, &later, NOW + LIFETIME), None);
        let shorter = own.to_str().unwrap().replace(value, &value[..HOUR_CHARS + PROOF_CHARS - 1]);
        assert_eq!(held("s1", "cookie:ada", &sent([&shorter.parse().unwrap()])), None);
    }

    #[test]
    fn cookie_has_session_path_and_is_secure_over_https() {
        let set = |scheme| {
            let ada = IdentityId::new("cookie:ada");
            let value = set_cookie(&key(), &session("s1"), &ada, "/api/calls", &peer(scheme), NOW);
            value.to_str().unwrap().split_once(';').unwrap().1.to_owned()
        };
        let path = "Path=/api/calls/sessions/s1; Max-Age=86400";
        assert_eq!(set(Scheme::Http), format!(" HttpOnly; SameSite=Strict; {path}"));
        assert_eq!(set(Scheme::Https), format!(" HttpOnly; SameSite=Strict; Secure; {path}"));
    }

    #[test]
    fn old_cookie_is_valid_until_it_expires() {
        let token = |session: &str| {
            key().sign(LockClaims { session: session.to_owned(), identity: "cookie:ada".to_owned() }, NOW)
        };
        let old =
            |name: &str, token: &str| sent([&format!("partytracks-session-{name}={token}").parse().unwrap()]);
        let headers = old("s1", &token("s1"));
        assert_eq!(held("s1", "cookie:ada", &headers), Some(LockState::Old));
        assert_eq!(held("s1", "cookie:bob", &headers), None);
        assert_eq!(held("s2", "cookie:ada", &old("s2", &token("s1"))), None);
        let ada = IdentityId::new("cookie:ada");
        assert_eq!(proof(&key(), &session("s1"), &ada, &headers, NOW + LIFETIME), None);
        let removed = remove_old_cookie(&session("s1"), "/partytracks", &peer(Scheme::Http));
        let removed = removed.to_str().unwrap();
        assert!(removed.starts_with("partytracks-session-s1=;"), "{removed}");
        assert!(removed.ends_with("Path=/partytracks; Max-Age=0"), "{removed}");
    }

    #[test]
    fn cookies_of_120_sessions_fit_without_paths() {
        let identity = format!("cookie:{}", uuid::Uuid::nil());
        let id = |number: u32| format!("0123456789abcdef0123456789abc{number:03}");
        let jar: Vec<HeaderValue> = (0..120).map(|number| open(&id(number), &identity)).collect();
        let headers = sent(&jar);
        assert!(headers[COOKIE].len() < 3500, "{} bytes", headers[COOKIE].len());
        assert!((0..120).all(|number| held(&id(number), &identity, &headers) == Some(LockState::Fresh)));
    }
}
