//! The signed cookie: the identity of users who typed a name.

use std::time::{Duration, SystemTime};

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use cookie::SameSite;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::token::{Claims, SigningKey};
use super::{AuthMethod, Identity, InvalidName};
use crate::auth::peer::RemotePeer;
use crate::auth::set_cookie::set_cookie;
use crate::id::{MAX_NAME_CHARS, composed, text_is_valid, visible};

/// Name of the cookie, as on the reference server.
const NAME: &str = "__session";
/// Age from which a cookie is renewed on use.
const RENEWAL_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Claims of the cookie. The random id is the identity and the name is only displayed: two users of one
/// name remain two, and a renamed user remains the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CookieSession {
    sub: String,
    name: String,
}

impl Claims for CookieSession {
    const AUDIENCE: &'static str = "identity";
    const LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);
}

impl CookieSession {
    /// Creates a new user with a validated name.
    pub(super) fn new(name: String) -> Self {
        Self { sub: Uuid::new_v4().to_string(), name }
    }

    /// Renames the user to a validated name, keeping the id.
    pub(super) fn renamed(self, name: String) -> Self {
        Self { name, ..self }
    }

    /// Returns the identity; `None` if its name has no visible character, which older versions allowed.
    pub(super) fn identity(&self) -> Option<Identity> {
        let name = visible(&self.name);
        let name = name.trim();
        (!name.is_empty()).then(|| Identity::new(AuthMethod::Cookie, &self.sub, name))
    }

    /// Builds the `Set-Cookie` value for a client at `peer`.
    pub(super) fn set_cookie(self, key: &SigningKey, peer: &RemotePeer, now: SystemTime) -> HeaderValue {
        let token = key.sign(self, now);
        // With `Strict`, users who follow an invitation on another site would be signed out.
        set_cookie(NAME, &token, peer.base_path.to_string(), SameSite::Lax, Self::LIFETIME, peer.scheme)
    }
}

/// Returns the session of the first valid cookie in a request.
pub(super) fn find(headers: &HeaderMap, key: &SigningKey, now: SystemTime) -> Option<VerifiedSession> {
    let tokens = headers.get_all(COOKIE).iter().flat_map(|line| tokens(line.as_bytes()));
    let verified = tokens.into_iter().find_map(|token| key.verify::<CookieSession>(token, now))?;
    let age = now.duration_since(verified.issued_at).unwrap_or_default();
    let renewal = if age > RENEWAL_AGE { Renewal::Due } else { Renewal::NotDue };
    Some(VerifiedSession { session: verified.claims, renewal })
}

/// A verified session.
pub(super) struct VerifiedSession {
    pub(super) session: CookieSession,
    pub(super) renewal: Renewal,
}

/// Need for a fresh cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    Due,
    NotDue,
}

/// Returns the values of all session cookies in one `Cookie` header (RFC 6265 section 5.4).
///
/// Works on bytes: another application's Latin-1 cookie on this host must not sign a user out.
fn tokens(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b';').filter_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(NAME.as_bytes())?.strip_prefix(b"=")?;
        Some(value)
    })
}

/// Trims and validates a typed name.
pub(super) fn typed_name(name: &str) -> Result<String, InvalidName> {
    let name = composed(name.trim());
    if text_is_valid(&name, MAX_NAME_CHARS) { Ok(name.into()) } else { Err(InvalidName) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::token::tests::{key, today};
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn session(name: &str) -> CookieSession {
        CookieSession::new(name.into())
    }

    fn headers(lines: &[&[u8]]) -> HeaderMap {
        let line = |line: &&[u8]| (COOKIE, HeaderValue::from_bytes(line).unwrap());
        let mut headers = HeaderMap::new();
        lines.iter().map(line).for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    fn found(lines: &[&[u8]]) -> Option<CookieSession> {
        find(&headers(lines), &key(1), today()).map(|found| found.session)
    }

    #[test]
    fn first_valid_cookie_counts() {
        let (ann, bob) = (session("Ann"), session("Bob"));
        let (a, b) = (key(1).sign(ann.clone(), today()), key(1).sign(bob.clone(), today()));
        let forged = key(2).sign(session("Eve"), today());
        let rows: &[(Vec<String>, Option<&CookieSession>)] = &[
            (vec![format!("__session={a}")], Some(&ann)),
            (vec![format!("theme=dark; __session={a}; x=y")], Some(&ann)),
            (vec![format!("  __session={a}  ;")], Some(&ann)),
            (vec![format!("__session={a}; __session={b}")], Some(&ann)),
            (vec![format!("__session={forged}; __session={b}; __session={a}")], Some(&bob)),
            (vec![format!("__session={forged}"), format!("__session={b}")], Some(&bob)),
            (vec!["__session=".into(), "__session".into(), format!("__session={b}")], Some(&bob)),
            (vec![format!("__session={forged}")], None),
            (vec![format!("X__session={a}")], None),
            (vec![format!("__session2={a}")], None),
            (vec![format!("__SESSION={a}")], None),
            (vec![format!("x=__session={a}")], None),
            (vec![format!("__session=\"{a}\"")], None),
            (vec![], None),
        ];
        for (lines, expected) in rows {
            let bytes: Vec<_> = lines.iter().map(String::as_bytes).collect();
            assert_eq!(found(&bytes).as_ref(), *expected, "{lines:?}");
        }
    }

    #[test]
    fn foreign_cookie_bytes_keep_user_signed_in() {
        let ann = session("Ann");
        let mut line = b"city=M\xfcnchen; __session=".to_vec();
        line.extend_from_slice(key(1).sign(ann.clone(), today()).as_bytes());
        assert_eq!(found(&[&line]), Some(ann));
    }

    #[test]
    fn cookie_is_due_for_renewal_after_a_day() {
        let line = format!("__session={}", key(1).sign(session("Ann"), today()));
        let renewal =
            |age| find(&headers(&[line.as_bytes()]), &key(1), today() + age).map(|found| found.renewal);
        assert_eq!(renewal(Duration::ZERO), Some(Renewal::NotDue));
        assert_eq!(renewal(DAY), Some(Renewal::NotDue));
        assert_eq!(renewal(DAY + Duration::from_secs(1)), Some(Renewal::Due));
        assert_eq!(renewal(DAY * 364), Some(Renewal::Due));
        assert_eq!(renewal(DAY * 365), None);
        // The clock was set back.
        assert_eq!(
            find(&headers(&[line.as_bytes()]), &key(1), today() - DAY).unwrap().renewal,
            Renewal::NotDue
        );
    }

    #[test]
    fn typed_name_is_trimmed_and_bounded() {
        let longest = "é".repeat(64);
        let rows = [
            ("Ann", Some("Ann")),
            ("  Ann Bee\t\n", Some("Ann Bee")),
            (longest.as_str(), Some(longest.as_str())),
            (&"é".repeat(65), None),
            ("", None),
            (" \u{3000} ", None),
            ("a\nb", None),
            ("a\0b", None),
            ("a\u{85}b", None),
        ];
        for (typed, expected) in rows {
            assert_eq!(typed_name(typed).ok().as_deref(), expected, "{typed:?}");
        }
    }

    #[test]
    fn cookie_header_of_64_kib_is_read_to_its_end() {
        let ann = session("Ann");
        let own = format!("__session={}", key(1).sign(ann.clone(), today()));
        for filler in ["__session=a.b.c; ", ";", "__session=; ", "=", "__session=.."] {
            let line = format!("{}; {own}", filler.repeat((65_536 - own.len()) / filler.len()));
            assert_eq!(found(&[line.as_bytes()]), Some(ann.clone()), "{filler}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_session(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4),
        ) {
            let mut headers = HeaderMap::new();
            for line in &lines {
                for prefix in [&b""[..], b"__session="] {
                    if let Ok(value) = HeaderValue::from_bytes(&[prefix, line].concat()) {
                        headers.append(COOKIE, value);
                    }
                }
            }
            prop_assert!(find(&headers, &key(1), today()).is_none());
        }
    }
}
