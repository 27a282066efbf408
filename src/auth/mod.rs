//! Authentication by a signed cookie, a trusted proxy's header, or Cloudflare Access.
//!
//! An id includes its authentication method: `cookie:{uuid}`, `proxy:{user in lower case}`,
//! `access:{e-mail in lower case}`. Claims by a client itself are not accepted: the cookie is signed by
//! this server, the assertion by Cloudflare, and the header counts only from a trusted proxy.

pub mod access;
pub mod access_token;
mod cookie;
pub mod id_token;
mod issuer;
pub mod jwks;
pub mod lease;
pub mod minting;
pub mod peer;
mod proxy;
pub mod revocation;
pub mod set_cookie;
mod socket_token;
pub mod token;

use std::sync::Arc;
use std::time::SystemTime;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use self::access::AccessHandle;
use self::access_token::{AccessTokens, TokenDefect};
use self::cookie::CookieSession;
use self::lease::{LeaseEnd, TokenLease};
use self::token::SigningKey;
use crate::auth::peer::RemotePeer;
use crate::config::{AccessLevel, LOGIN_KEY};
pub use crate::id::AuthMethod;
use crate::id::{Grants, IdentityId, RoomName, RoomScope, nfc, text_is_valid, visible};
use crate::limit::{GuessLimit, Rate};
use crate::network::ClientNetwork;

/// Maximum characters of a name from a proxy or Access: an e-mail address' (RFC 5321).
const MAX_EXTERNAL_NAME_CHARS: usize = 254;

/// Maximum cookies with an access token that are verified. A browser has one for each path of this server.
const MAX_COOKIES: usize = 4;

/// An authenticated user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id that owns memberships, session locks and quotas.
    pub id: IdentityId,
    /// Name displayed to others; not unique.
    pub name: Arc<str>,
    /// Rights in rooms and at the media API.
    pub grants: Grants,
    /// The rooms in which it has them.
    pub scope: RoomScope,
    /// The time for which it has them, if they are those of an access token.
    pub lease: Option<Arc<TokenLease>>,
}

impl Identity {
    fn new(method: AuthMethod, subject: &str, name: &str) -> Self {
        let id = IdentityId::new(format!("{}:{subject}", method.prefix()));
        Self { id, name: name.into(), grants: Grants::everyone(), scope: RoomScope::any(), lease: None }
    }

    /// True if the identity may enter the room.
    pub fn may_enter(&self, room: &RoomName) -> bool {
        self.grants.join && self.scope.admits(room)
    }

    /// Creates the identity of a user with an external login; `None` if the name is invalid.
    ///
    /// The id is the name in [`nfc`] alone: names that look the same may be two accounts there. Hidden
    /// characters of such a name cannot be corrected here, so they are only not displayed.
    fn external(method: AuthMethod, name: &str) -> Option<Self> {
        let shown = visible(name);
        let is_name =
            text_is_valid(shown.trim(), MAX_EXTERNAL_NAME_CHARS) && name.len() <= 4 * MAX_EXTERNAL_NAME_CHARS;
        is_name.then(|| Self::new(method, &nfc(&name.to_lowercase()), shown.trim()))
    }
}

/// The authentication result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// An authenticated user.
    User {
        /// The user.
        identity: Identity,
        /// The authentication method.
        by: AuthMethod,
        /// A `Set-Cookie` value for the response if the cookie is due for renewal.
        renew: Option<HeaderValue>,
    },
    /// An unauthenticated client.
    Anonymous,
}

/// An invalid name; the message states the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to 64 characters and no control or invisible characters")]
pub struct InvalidName;

/// The configured authentication methods.
#[derive(Debug)]
pub struct Identities {
    key: SigningKey,
    proxy_header: Option<HeaderName>,
    access: Option<AccessHandle>,
    cookies: Cookies,
    tokens: Option<AccessTokens>,
    guesses: GuessLimit,
    /// Those who are authenticated at all.
    rooms: AccessLevel,
    /// Those who may start a meeting.
    create: AccessLevel,
    /// True if users without an access token moderate.
    moderates: bool,
}

/// Acceptance of this server's own cookie if a proxy or Access authenticates users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cookies {
    /// Not accepted then: a request without the proxy's sign-in is unauthenticated.
    Alone,
    /// Accepted for requests that the other methods do not authenticate.
    Beside,
}

impl Identities {
    /// Creates the methods from the key that signs cookies and, if configured, the header in which
    /// trusted proxies name their user, and Cloudflare Access.
    pub fn new(key: SigningKey, proxy_header: Option<HeaderName>, access: Option<AccessHandle>) -> Self {
        Self {
            key,
            proxy_header,
            access,
            cookies: Cookies::Alone,
            tokens: None,
            guesses: GuessLimit::new(Rate::UNLIMITED),
            rooms: AccessLevel::Anyone,
            create: AccessLevel::Anyone,
            moderates: true,
        }
    }

    /// Accepts cookies of users whom neither the header nor Access authenticates.
    #[must_use]
    pub fn beside_cookies(self) -> Self {
        Self { cookies: Cookies::Beside, ..self }
    }

    /// Accepts access tokens, if there are keys, and from users without one what these levels allow.
    #[must_use]
    pub fn with_tokens(self, tokens: Option<AccessTokens>, rooms: AccessLevel, create: AccessLevel) -> Self {
        Self { tokens, rooms, create, ..self }
    }

    /// Limits guesses of tokens by network.
    #[must_use]
    pub fn limiting_guesses(self, rate: Rate) -> Self {
        Self { guesses: GuessLimit::new(rate), ..self }
    }

    /// The guesses of tokens.
    pub fn guesses(&self) -> &GuessLimit {
        &self.guesses
    }

    /// Lets users without an access token moderate, or not.
    #[must_use]
    pub fn moderating(self, moderates: bool) -> Self {
        Self { moderates, ..self }
    }

    /// The keys of access tokens, if there are any.
    pub fn access_tokens(&self) -> Option<&AccessTokens> {
        self.tokens.as_ref()
    }

    /// True if only holders of an access token are authenticated.
    pub fn needs_token(&self) -> bool {
        self.rooms == AccessLevel::Token
    }

    /// True if users can sign in with an account of the configured issuer.
    pub fn has_login(&self) -> bool {
        self.tokens.as_ref().is_some_and(|tokens| tokens.has_key(LOGIN_KEY))
    }

    /// True if users may choose a name themselves.
    pub fn takes_names(&self) -> bool {
        self.rooms == AccessLevel::Anyone
            && (self.cookies == Cookies::Beside || (self.proxy_header.is_none() && self.access.is_none()))
    }

    /// Returns the key that signs this server's tokens; each kind of token has its own
    /// [`token::Claims`].
    pub fn signing_key(&self) -> &SigningKey {
        &self.key
    }

    /// Authenticates a request with these headers from `peer`.
    ///
    /// With Access configured its assertion counts, otherwise a trusted proxy's header. An ambiguous one
    /// (several values, or an invalid name) leaves the request unauthenticated. So does a missing one: a
    /// login that a client could bypass by choosing a name would be useless. The cookie counts only if
    /// neither is configured, or if cookies are [accepted beside them](Self::beside_cookies).
    ///
    /// An access token of the request counts before all of them: one in a header even if it is invalid, which leaves
    /// the request unauthenticated.
    ///
    /// Waits only for keys of others, if an assertion or a token is signed by an unknown key.
    pub async fn identify(&self, headers: &HeaderMap, peer: &RemotePeer, now: SystemTime) -> Auth {
        if self.tokens.is_some() {
            let by_token = |identity| Auth::User { identity, by: AuthMethod::Token, renew: None };
            if let Some(token) = AccessTokens::presented(headers) {
                let identity = self.identify_by_access_token(token, peer.network(), now).await;
                return identity.map_or(Auth::Anonymous, by_token);
            }
            for token in AccessTokens::in_cookies(headers).take(MAX_COOKIES) {
                if let Some(identity) = self.identify_by_access_token(token, peer.network(), now).await {
                    return by_token(identity);
                }
            }
        }
        match self.identify_user(headers, peer, now).await {
            Auth::User { mut identity, by, renew } if self.is_allowed(self.rooms, by) => {
                identity.grants.create = self.is_allowed(self.create, by);
                identity.grants.moderate = self.moderates;
                Auth::User { identity, by, renew }
            }
            _ => Auth::Anonymous,
        }
    }

    /// True if a request that was authenticated in this way sent nothing but cookies for it, which a browser adds to
    /// the requests of any page.
    pub fn is_by_cookie(by: AuthMethod, headers: &HeaderMap) -> bool {
        match by {
            AuthMethod::Cookie => true,
            AuthMethod::Token => AccessTokens::presented(headers).is_none(),
            AuthMethod::ProxyHeader | AuthMethod::Access => false,
        }
    }

    /// Returns the identity of an access token from a client's network, if known; `None` if it is not valid.
    pub async fn identify_by_access_token(
        &self,
        token: &[u8],
        network: Option<ClientNetwork>,
        now: SystemTime,
    ) -> Option<Identity> {
        let verified = self.verify(self.tokens.as_ref()?, token, network, now).await;
        let refused = |why: &TokenDefect| tracing::debug!(event = "tokenRefused", %why);
        let mut identity = verified.inspect_err(refused).ok()?;
        // Whoever holds a token has signed in.
        identity.grants.create |= self.create != AccessLevel::Token;
        Some(identity)
    }

    /// Verifies an access token from a client's network, if known, unless too many guesses came from there.
    ///
    /// # Errors
    /// [`TokenDefect`].
    pub async fn verify(
        &self,
        tokens: &AccessTokens,
        token: &[u8],
        network: Option<ClientNetwork>,
        now: SystemTime,
    ) -> Result<Identity, TokenDefect> {
        if !self.guesses.allows(network, token) {
            return Err(TokenDefect::TooManyGuesses);
        }
        let verified = tokens.verify(token, now).await;
        match verified {
            Ok(_) => self.guesses.succeeded(token),
            Err(TokenDefect::Signature) => self.guesses.failed(network),
            Err(_) => {}
        }
        verified
    }

    /// Waits until the right of an identity ends; none if it has no end, as without an access token.
    pub fn lease_end(
        &self,
        identity: &Identity,
        now: SystemTime,
    ) -> Option<impl Future<Output = LeaseEnd> + Send + use<>> {
        let lease = TokenLease::clone(identity.lease.as_ref()?);
        Some(lease.end(self.tokens.as_ref()?.revocations().clone(), now))
    }

    /// True if the right of an identity is over.
    fn is_over(&self, lease: &TokenLease, now: SystemTime) -> bool {
        let revocations = self.tokens.as_ref().map(AccessTokens::revocations);
        lease.is_over(now) || revocations.is_none_or(|revocations| revocations.concern(lease))
    }

    /// True if a user without an access token is of the level.
    fn is_allowed(&self, level: AccessLevel, by: AuthMethod) -> bool {
        match level {
            AccessLevel::Anyone => true,
            AccessLevel::SignedIn => by != AuthMethod::Cookie,
            AccessLevel::Token => false,
        }
    }

    /// Authenticates a request without an access token.
    async fn identify_user(&self, headers: &HeaderMap, peer: &RemotePeer, now: SystemTime) -> Auth {
        if let Some(access) = &self.access {
            match access.identify(headers, now).await {
                Some(identity) => {
                    return Auth::User { identity, by: AuthMethod::Access, renew: None };
                }
                None if self.cookies == Cookies::Alone => return Auth::Anonymous,
                None => {}
            }
        }
        let header = self.proxy_header.as_ref();
        match header.map_or(proxy::HeaderIdentity::Nothing, |header| proxy::read(header, headers, peer)) {
            proxy::HeaderIdentity::User(identity) => {
                Auth::User { identity, by: AuthMethod::ProxyHeader, renew: None }
            }
            proxy::HeaderIdentity::Unclear => {
                tracing::debug!("the trusted proxy's user header is not one valid name");
                Auth::Anonymous
            }
            proxy::HeaderIdentity::Nothing if self.takes_names() => self.by_cookie(headers, peer, now),
            proxy::HeaderIdentity::Nothing => Auth::Anonymous,
        }
    }

    fn by_cookie(&self, headers: &HeaderMap, peer: &RemotePeer, now: SystemTime) -> Auth {
        let Some(found) = cookie::find(headers, &self.key, now) else {
            return Auth::Anonymous;
        };
        let Some(identity) = found.session.identity() else {
            return Auth::Anonymous;
        };
        let renew = match found.renewal {
            cookie::Renewal::Due => Some(found.session.set_cookie(&self.key, peer, now)),
            cookie::Renewal::NotDue => None,
        };
        Auth::User { identity, by: AuthMethod::Cookie, renew }
    }

    /// Signs a user in under a name typed into the form, and returns a `Set-Cookie` value.
    ///
    /// A user with a valid cookie keeps the id, so a new name ends no call. Call it only for requests
    /// that [`Identities::identify`] finds unauthenticated or authenticated by the cookie, on a server
    /// that [takes names](Self::takes_names); the other methods provide names themselves.
    ///
    /// # Errors
    /// Returns [`InvalidName`] if the trimmed name is empty, too long, or contains a control character.
    /// The response is a 400 that shows the error.
    pub fn sign_in(
        &self,
        headers: &HeaderMap,
        name: &str,
        peer: &RemotePeer,
        now: SystemTime,
    ) -> Result<HeaderValue, InvalidName> {
        let name = cookie::typed_name(name)?;
        let session = match cookie::find(headers, &self.key, now) {
            Some(found) => found.session.renamed(name),
            None => CookieSession::new(name),
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
    use crate::auth::peer::{Scheme, Trust, TrustedProxies};

    const USER: HeaderName = HeaderName::from_static("x-auth-user");

    fn identities(proxy_header: Option<HeaderName>) -> Identities {
        Identities::new(key(1), proxy_header, None)
    }

    fn peer(scheme: Scheme) -> RemotePeer {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        RemotePeer::new(
            address,
            scheme,
            &Uri::from_static("/"),
            &HeaderMap::new(),
            &TrustedProxies::default(),
        )
    }

    fn trusted_peer() -> RemotePeer {
        RemotePeer { trust: Trust::TrustedProxy, ..peer(Scheme::Http) }
    }

    /// Returns the `Cookie` header that a browser sends after a `Set-Cookie` value.
    fn cookie(set: &HeaderValue) -> HeaderMap {
        let pair = set.to_str().unwrap().split(';').next().unwrap();
        HeaderMap::from_iter([(COOKIE, pair.parse().unwrap())])
    }

    fn sign_in(name: &str) -> HeaderMap {
        let none = HeaderMap::new();
        cookie(&identities(None).sign_in(&none, name, &peer(Scheme::Http), today()).unwrap())
    }

    async fn who(identities: &Identities, headers: &HeaderMap, peer: &RemotePeer) -> Option<Identity> {
        match identities.identify(headers, peer, today()).await {
            Auth::User { identity, .. } => Some(identity),
            Auth::Anonymous => None,
        }
    }

    #[tokio::test]
    async fn users_of_one_name_have_different_ids() {
        let (here, ours) = (peer(Scheme::Http), identities(None));
        let first = who(&ours, &sign_in("Ann"), &here).await.unwrap();
        let second = who(&ours, &sign_in("Ann"), &here).await.unwrap();
        assert_eq!(first.name, second.name);
        assert_ne!(first.id, second.id);
        assert!(first.id.as_str().starts_with("cookie:"));
        assert_eq!(first.id.as_str().len(), "cookie:".len() + 36);
    }

    #[tokio::test]
    async fn new_name_keeps_the_id_of_a_valid_cookie() {
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
    fn invalid_name_is_refused_with_a_message() {
        let long = "x".repeat(65);
        for name in ["", "  ", "a\nb", &long] {
            let refused = identities(None).sign_in(&HeaderMap::new(), name, &peer(Scheme::Http), today());
            assert_eq!(refused, Err(InvalidName));
        }
        let sentence = "a name has 1 to 64 characters and no control or invisible characters";
        assert_eq!(InvalidName.to_string(), sentence);
    }

    #[test]
    fn cookie_is_secure_over_https() {
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
    async fn used_cookie_is_renewed_daily() {
        let (here, ours) = (peer(Scheme::Https), identities(None));
        let day = Duration::from_secs(24 * 60 * 60);
        let ann = sign_in("Ann");
        let at = async |headers: &HeaderMap, now| match ours.identify(headers, &here, now).await {
            Auth::User { identity, by: AuthMethod::Cookie, renew } => (identity, renew),
            other => panic!("{other:?}"),
        };
        let (_, fresh) = at(&ann, today() + day).await;
        assert_eq!(fresh, None);
        let (before, renewed) = at(&ann, today() + day * 300).await;
        let renewed = renewed.unwrap();
        assert!(renewed.to_str().unwrap().contains("; Secure"));
        let (after, _) = at(&cookie(&renewed), today() + day * 600).await;
        assert_eq!(before, after);
        assert_eq!(ours.identify(&ann, &here, today() + day * 365).await, Auth::Anonymous);
    }

    #[tokio::test]
    async fn trusted_proxy_header_overrides_the_cookie() {
        let ours = identities(Some(USER));
        let mut headers = sign_in("Ann");
        headers.append(USER, "Bee@Example.com".parse().unwrap());
        let by = |asked| match asked {
            Auth::User { identity, by, .. } => Some((by, identity.id.as_str().to_owned())),
            Auth::Anonymous => None,
        };
        let trusted = by(ours.identify(&headers, &trusted_peer(), today()).await);
        assert_eq!(trusted, Some((AuthMethod::ProxyHeader, "proxy:bee@example.com".into())));
        // An attack: a client sends the header itself.
        assert_eq!(ours.identify(&headers, &peer(Scheme::Http), today()).await, Auth::Anonymous);
        let beside = identities(Some(USER)).beside_cookies();
        let untrusted = by(beside.identify(&headers, &peer(Scheme::Http), today()).await).unwrap();
        assert_eq!(untrusted.0, AuthMethod::Cookie);
        let trusted = by(beside.identify(&headers, &trusted_peer(), today()).await);
        assert_eq!(trusted, Some((AuthMethod::ProxyHeader, "proxy:bee@example.com".into())));
        // Not configured, so it is ignored like any other header.
        let ignored = by(identities(None).identify(&headers, &trusted_peer(), today()).await).unwrap();
        assert_eq!(ignored.0, AuthMethod::Cookie);
    }

    #[tokio::test]
    async fn configured_login_is_required_by_default() {
        let ours = identities(Some(USER));
        assert!(!ours.takes_names() && identities(None).takes_names());
        for value in ["", " "] {
            let mut headers = sign_in("Ann");
            headers.insert(USER, HeaderValue::from_str(value).unwrap());
            assert_eq!(ours.identify(&headers, &trusted_peer(), today()).await, Auth::Anonymous);
        }
        assert_eq!(ours.identify(&sign_in("Ann"), &trusted_peer(), today()).await, Auth::Anonymous);
        let beside = identities(Some(USER)).beside_cookies();
        assert!(beside.takes_names());
        assert!(who(&beside, &sign_in("Ann"), &trusted_peer()).await.is_some());
    }

    #[tokio::test]
    async fn user_header_from_untrusted_peer_is_ignored() {
        let mut headers = HeaderMap::from_iter([(USER, HeaderValue::from_static("ann"))]);
        headers.insert("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
        let proxies = TrustedProxies::new(["10.0.0.0/8".parse().unwrap()]);
        let ours = identities(Some(USER));
        for (socket, expected) in [("10.0.0.1", Some("proxy:ann")), ("203.0.113.9", None)] {
            let uri = Uri::from_static("/");
            let socket = socket.parse().unwrap();
            let peer = RemotePeer::new(socket, Scheme::Http, &uri, &headers, &proxies);
            let id = who(&ours, &headers, &peer).await.map(|identity| identity.id);
            assert_eq!(id.as_ref().map(IdentityId::as_str), expected);
        }
    }

    #[tokio::test]
    async fn ambiguous_header_overrides_the_cookie() {
        let ours = identities(Some(USER));
        let mut headers = sign_in("Ann");
        headers.append(USER, "bee".parse().unwrap());
        headers.append(USER, "eve".parse().unwrap());
        assert_eq!(ours.identify(&headers, &trusted_peer(), today()).await, Auth::Anonymous);
        headers.insert(USER, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(ours.identify(&headers, &trusted_peer(), today()).await, Auth::Anonymous);
    }

    #[tokio::test]
    async fn access_overrides_other_methods() {
        let team = TeamServer::start().await;
        let (access, _task) = team.access().start().unwrap();
        let ours = Identities::new(key(1), Some(USER), Some(access));
        let mut headers = sign_in("Ann");
        headers.append(USER, "bee".parse().unwrap());
        assert_eq!(ours.identify(&headers, &trusted_peer(), today()).await, Auth::Anonymous);
        headers.append(access::HEADER, team.assertion("Ann@Example.com").parse().unwrap());
        let Auth::User { identity, by: AuthMethod::Access, renew: None } =
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
    fn debug_output_hides_secrets() {
        let set = identities(None).sign_in(&HeaderMap::new(), "Ann", &peer(Scheme::Http), today()).unwrap();
        assert_eq!(format!("{set:?}"), "Sensitive");
        assert!(format!("{:?}", identities(Some(USER))).contains("SigningKey(..)"));
    }
}
