//! Who is asking: an identity from a signed cookie, a trusted proxy's header, or Cloudflare Access.
//!
//! An id carries the way it was proven: `cookie:{uuid}`, `proxy:{user in lower case}`,
//! `access:{e-mail in lower case}`. What a client writes itself proves nothing: the cookie is
//! signed by us, the assertion by Cloudflare, and the header counts from a trusted proxy only.

pub mod access;
mod cookie;
pub mod peer;
mod proxy;
pub mod token;

use std::sync::Arc;
use std::time::SystemTime;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use self::access::AccessHandle;
use self::cookie::Session;
use self::token::SigningKey;
pub use crate::id::AuthMethod;
use crate::id::{IdentityId, nfc, text_is_valid, visible};
use crate::identity::peer::Peer;

/// The most characters of a name that a proxy or Access gives: an e-mail address' (RFC 5321).
const MAX_EXTERNAL_NAME_CHARS: usize = 254;

/// Somebody, proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who it is; what seats, session locks and quotas belong to.
    pub id: IdentityId,
    /// What is shown to others; not unique.
    pub name: Arc<str>,
}

impl Identity {
    fn new(method: AuthMethod, subject: &str, name: &str) -> Self {
        Self { id: IdentityId::new(format!("{}:{subject}", method.prefix())), name: name.into() }
    }

    /// Somebody whom a login in front of this server names; `None` if that is no name.
    ///
    /// The identity is the name in [`nfc`] alone: names that look the same may be two accounts there. Hidden
    /// characters of such a name cannot be corrected here, so they are only not shown.
    fn external(method: AuthMethod, name: &str) -> Option<Self> {
        let shown = visible(name);
        let is_name =
            text_is_valid(shown.trim(), MAX_EXTERNAL_NAME_CHARS) && name.len() <= 4 * MAX_EXTERNAL_NAME_CHARS;
        is_name.then(|| Self::new(method, &nfc(&name.to_lowercase()), shown.trim()))
    }
}

/// Who is behind a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Somebody known.
    Known {
        /// Who.
        identity: Identity,
        /// How it was proven.
        by: AuthMethod,
        /// A `Set-Cookie` value to answer with, where the cookie is due for renewal.
        renew: Option<HeaderValue>,
    },
    /// Nobody known.
    Nobody,
}

/// A name that cannot be taken; the message says what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to 64 characters and no control or invisible characters")]
pub struct InvalidName;

/// The ways in which this server learns who is asking.
#[derive(Debug)]
pub struct Identities {
    key: SigningKey,
    proxy_header: Option<HeaderName>,
    access: Option<AccessHandle>,
    cookies: Cookies,
}

/// Whether our own cookie counts where a proxy or Access names users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cookies {
    /// Only where nobody else names users: a request that the proxy did not sign in is nobody's.
    Alone,
    /// For whom the others do not name.
    Beside,
}

impl Identities {
    /// Takes the key that signs cookies, the header in which trusted proxies name their user, and
    /// Cloudflare Access, where they are configured.
    pub fn new(key: SigningKey, proxy_header: Option<HeaderName>, access: Option<AccessHandle>) -> Self {
        Self { key, proxy_header, access, cookies: Cookies::Alone }
    }

    /// Lets in by cookie whom neither the header nor Access names.
    #[must_use]
    pub fn beside_cookies(self) -> Self {
        Self { cookies: Cookies::Beside, ..self }
    }

    /// Whether people may give themselves a name.
    pub fn takes_names(&self) -> bool {
        self.cookies == Cookies::Beside || (self.proxy_header.is_none() && self.access.is_none())
    }

    /// The key that signs this server's tokens; each other kind has its own [`token::Claims`].
    pub fn signing_key(&self) -> &SigningKey {
        &self.key
    }

    /// Finds out who sent a request with these headers from `peer`.
    ///
    /// With Access configured its assertion counts, else a trusted proxy's header; an unclear one
    /// (several values, or no valid name) makes the request nobody's. So does a missing one: a login
    /// that whoever comes around it may replace by a name of their own is none. Only where neither is
    /// configured, or [beside them](Self::beside_cookies), the cookie counts.
    ///
    /// It waits only for Access' keys, where an assertion is signed by a key not seen before.
    pub async fn identify(&self, headers: &HeaderMap, peer: &Peer, now: SystemTime) -> Asked {
        if let Some(access) = &self.access {
            match access.identify(headers, now).await {
                Some(identity) => {
                    return Asked::Known { identity, by: AuthMethod::Access, renew: None };
                }
                None if self.cookies == Cookies::Alone => return Asked::Nobody,
                None => {}
            }
        }
        let header = self.proxy_header.as_ref();
        match header.map_or(proxy::Said::Nothing, |header| proxy::read(header, headers, peer)) {
            proxy::Said::User(identity) => {
                Asked::Known { identity, by: AuthMethod::ProxyHeader, renew: None }
            }
            proxy::Said::Unclear => {
                tracing::debug!("the trusted proxy's user header is not one valid name");
                Asked::Nobody
            }
            proxy::Said::Nothing if self.takes_names() => self.by_cookie(headers, peer, now),
            proxy::Said::Nothing => Asked::Nobody,
        }
    }

    fn by_cookie(&self, headers: &HeaderMap, peer: &Peer, now: SystemTime) -> Asked {
        let Some(found) = cookie::find(headers, &self.key, now) else {
            return Asked::Nobody;
        };
        let Some(identity) = found.session.identity() else {
            return Asked::Nobody;
        };
        let renew = match found.renewal {
            cookie::Renewal::Due => Some(found.session.set_cookie(&self.key, peer, now)),
            cookie::Renewal::NotDue => None,
        };
        Asked::Known { identity, by: AuthMethod::Cookie, renew }
    }

    /// Gives whoever typed `name` into the form a cookie, as a `Set-Cookie` value.
    ///
    /// Somebody with a valid cookie keeps the id, so a new name ends no call. It is for requests
    /// that [`Identities::identify`] finds to be nobody's or proven by the cookie, where the server
    /// [takes names](Self::takes_names); the other methods bring their names along.
    ///
    /// # Errors
    /// [`InvalidName`] if the trimmed name is empty, too long, or holds a control character. The
    /// answer is a 400 that shows the error.
    pub fn sign_in(
        &self,
        headers: &HeaderMap,
        name: &str,
        peer: &Peer,
        now: SystemTime,
    ) -> Result<HeaderValue, InvalidName> {
        let name = cookie::typed_name(name)?;
        let session = match cookie::find(headers, &self.key, now) {
            Some(found) => found.session.renamed(name),
            None => Session::new(name),
        };
        Ok(session.set_cookie(&self.key, peer, now))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use axum::http::header::COOKIE;
    use axum::http::uri::Uri;

    use super::access::tests::TeamServer;
    use super::token::tests::{key, today};
    use super::*;
    use crate::identity::peer::{Scheme, Trust, TrustedProxies};

    const USER: HeaderName = HeaderName::from_static("x-auth-user");

    fn identities(proxy_header: Option<HeaderName>) -> Identities {
        Identities::new(key(1), proxy_header, None)
    }

    fn peer(scheme: Scheme) -> Peer {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Peer::new(address, scheme, &Uri::from_static("/"), &HeaderMap::new(), &TrustedProxies::default())
    }

    fn trusted_peer() -> Peer {
        Peer { trust: Trust::TrustedProxy, ..peer(Scheme::Http) }
    }

    /// What a browser sends back of a `Set-Cookie` value.
    fn cookie(set: &HeaderValue) -> HeaderMap {
        let pair = set.to_str().unwrap().split(';').next().unwrap();
        HeaderMap::from_iter([(COOKIE, pair.parse().unwrap())])
    }

    fn sign_in(name: &str) -> HeaderMap {
        let none = HeaderMap::new();
        cookie(&identities(None).sign_in(&none, name, &peer(Scheme::Http), today()).unwrap())
    }

    async fn who(identities: &Identities, headers: &HeaderMap, peer: &Peer) -> Option<Identity> {
        match identities.identify(headers, peer, today()).await {
            Asked::Known { identity, .. } => Some(identity),
            Asked::Nobody => None,
        }
    }

    #[tokio::test]
    async fn two_people_of_one_name_are_two_identities() {
        let (here, ours) = (peer(Scheme::Http), identities(None));
        let first = who(&ours, &sign_in("Ann"), &here).await.unwrap();
        let second = who(&ours, &sign_in("Ann"), &here).await.unwrap();
        assert_eq!(first.name, second.name);
        assert_ne!(first.id, second.id);
        assert!(first.id.as_str().starts_with("cookie:"));
        assert_eq!(first.id.as_str().len(), "cookie:".len() + 36);
    }

    #[tokio::test]
    async fn a_new_name_keeps_the_id_of_a_valid_cookie() {
        let (here, ours) = (peer(Scheme::Http), identities(None));
        let ann = sign_in(" Ann ");
        let bee = cookie(&ours.sign_in(&ann, "Bee", &here, today()).unwrap());
        let before = who(&ours, &ann, &here).await.unwrap();
        let after = who(&ours, &bee, &here).await.unwrap();
        assert_eq!(before.id, after.id);
        assert_eq!((&*before.name, &*after.name), ("Ann", "Bee"));

        let foreign = Identities::new(key(2), None, None);
        let other = cookie(&foreign.sign_in(&ann, "Bee", &here, today()).unwrap());
        assert_ne!(who(&foreign, &other, &here).await.unwrap().id, before.id);
        assert_eq!(who(&ours, &other, &here).await, None);
    }

    #[test]
    fn a_bad_name_is_refused_with_a_sentence() {
        let long = "x".repeat(65);
        for name in ["", "  ", "a\nb", &long] {
            let refused = identities(None).sign_in(&HeaderMap::new(), name, &peer(Scheme::Http), today());
            assert_eq!(refused, Err(InvalidName));
        }
        let sentence = "a name has 1 to 64 characters and no control or invisible characters";
        assert_eq!(InvalidName.to_string(), sentence);
    }

    #[test]
    fn the_cookie_is_secure_where_the_request_was() {
        let attributes = |scheme| {
            let set = identities(None).sign_in(&HeaderMap::new(), "Ann", &peer(scheme), today());
            let set = set.unwrap();
            assert!(set.is_sensitive());
            let text = set.to_str().unwrap().to_owned();
            assert!(text.starts_with("__session=ey"), "{text}");
            let mut attributes: Vec<_> = text.split("; ").skip(1).map(str::to_owned).collect();
            attributes.sort_unstable();
            attributes.join("; ")
        };
        let plain = "HttpOnly; Max-Age=31536000; Path=/; SameSite=Lax";
        assert_eq!(attributes(Scheme::Http), plain);
        assert_eq!(attributes(Scheme::Https), format!("{plain}; Secure"));
    }

    #[tokio::test]
    async fn a_cookie_in_use_is_renewed_once_a_day_and_so_outlives_its_year() {
        let (here, ours) = (peer(Scheme::Https), identities(None));
        let day = Duration::from_secs(24 * 60 * 60);
        let ann = sign_in("Ann");
        let at = async |headers: &HeaderMap, now| match ours.identify(headers, &here, now).await {
            Asked::Known { identity, by: AuthMethod::Cookie, renew } => (identity, renew),
            other => panic!("{other:?}"),
        };
        let (_, fresh) = at(&ann, today() + day).await;
        assert_eq!(fresh, None);
        let (before, renewed) = at(&ann, today() + day * 300).await;
        let renewed = renewed.unwrap();
        assert!(renewed.to_str().unwrap().contains("; Secure"));
        let (after, _) = at(&cookie(&renewed), today() + day * 600).await;
        assert_eq!(before, after);
        assert_eq!(ours.identify(&ann, &here, today() + day * 365).await, Asked::Nobody);
    }

    #[tokio::test]
    async fn a_trusted_proxys_header_wins_over_the_cookie() {
        let ours = identities(Some(USER));
        let mut headers = sign_in("Ann");
        headers.append(USER, "Bee@Example.com".parse().unwrap());
        let by = |asked| match asked {
            Asked::Known { identity, by, .. } => Some((by, identity.id.as_str().to_owned())),
            Asked::Nobody => None,
        };
        let trusted = by(ours.identify(&headers, &trusted_peer(), today()).await);
        assert_eq!(trusted, Some((AuthMethod::ProxyHeader, "proxy:bee@example.com".into())));
        // The attack: the header straight from a client.
        assert_eq!(ours.identify(&headers, &peer(Scheme::Http), today()).await, Asked::Nobody);
        let beside = identities(Some(USER)).beside_cookies();
        let untrusted = by(beside.identify(&headers, &peer(Scheme::Http), today()).await).unwrap();
        assert_eq!(untrusted.0, AuthMethod::Cookie);
        let trusted = by(beside.identify(&headers, &trusted_peer(), today()).await);
        assert_eq!(trusted, Some((AuthMethod::ProxyHeader, "proxy:bee@example.com".into())));
        // Not configured, so it is a header like others.
        let ignored = by(identities(None).identify(&headers, &trusted_peer(), today()).await).unwrap();
        assert_eq!(ignored.0, AuthMethod::Cookie);
    }

    #[tokio::test]
    async fn a_configured_login_is_required_unless_it_is_said_otherwise() {
        let ours = identities(Some(USER));
        assert!(!ours.takes_names() && identities(None).takes_names());
        for value in ["", " "] {
            let mut headers = sign_in("Ann");
            headers.insert(USER, HeaderValue::from_str(value).unwrap());
            assert_eq!(ours.identify(&headers, &trusted_peer(), today()).await, Asked::Nobody);
        }
        assert_eq!(ours.identify(&sign_in("Ann"), &trusted_peer(), today()).await, Asked::Nobody);
        let beside = identities(Some(USER)).beside_cookies();
        assert!(beside.takes_names());
        assert!(who(&beside, &sign_in("Ann"), &trusted_peer()).await.is_some());
    }

    #[tokio::test]
    async fn a_header_from_an_untrusted_address_names_nobody() {
        let mut headers = HeaderMap::from_iter([(USER, HeaderValue::from_static("ann"))]);
        headers.insert("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
        let proxies = TrustedProxies::new(["10.0.0.0/8".parse().unwrap()]);
        let ours = identities(Some(USER));
        for (socket, expected) in [("10.0.0.1", Some("proxy:ann")), ("203.0.113.9", None)] {
            let uri = Uri::from_static("/");
            let socket = socket.parse().unwrap();
            let peer = Peer::new(socket, Scheme::Http, &uri, &headers, &proxies);
            let id = who(&ours, &headers, &peer).await.map(|identity| identity.id);
            assert_eq!(id.as_ref().map(IdentityId::as_str), expected);
        }
    }

    #[tokio::test]
    async fn an_unclear_header_of_a_trusted_proxy_is_nobodys_even_with_a_cookie() {
        let ours = identities(Some(USER));
        let mut headers = sign_in("Ann");
        headers.append(USER, "bee".parse().unwrap());
        headers.append(USER, "eve".parse().unwrap());
        assert_eq!(ours.identify(&headers, &trusted_peer(), today()).await, Asked::Nobody);
        headers.insert(USER, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(ours.identify(&headers, &trusted_peer(), today()).await, Asked::Nobody);
    }

    #[tokio::test]
    async fn with_access_nothing_else_counts() {
        let team = TeamServer::start().await;
        let (access, _task) = team.access().start().unwrap();
        let ours = Identities::new(key(1), Some(USER), Some(access));
        let mut headers = sign_in("Ann");
        headers.append(USER, "bee".parse().unwrap());
        assert_eq!(ours.identify(&headers, &trusted_peer(), today()).await, Asked::Nobody);
        headers.append(access::HEADER, team.assertion("Ann@Example.com").parse().unwrap());
        let Asked::Known { identity, by: AuthMethod::Access, renew: None } =
            ours.identify(&headers, &peer(Scheme::Http), today()).await
        else {
            panic!()
        };
        assert_eq!(identity.id.as_str(), "access:ann@example.com");
        assert_eq!(identity.id.auth_method(), AuthMethod::Access);
        let beside = ours.beside_cookies();
        headers.remove(access::HEADER);
        headers.remove(USER);
        assert!(
            who(&beside, &headers, &peer(Scheme::Http)).await.unwrap().id.as_str().starts_with("cookie:")
        );
        assert_eq!(&*identity.name, "Ann@Example.com");
    }

    #[test]
    fn nothing_secret_is_shown() {
        let set = identities(None).sign_in(&HeaderMap::new(), "Ann", &peer(Scheme::Http), today()).unwrap();
        assert_eq!(format!("{set:?}"), "Sensitive");
        assert!(format!("{:?}", identities(Some(USER))).contains("SigningKey(..)"));
    }
}
