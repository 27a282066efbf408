//! Tokens with which a signed-in user opens sockets where no cookie is sent, such as from another client than a
//! browser.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::lease::TokenLease;
use super::token::Claims;
use super::{Identities, Identity};
use crate::id::{Grants, IdentityId, RoomScope};

/// Claims of a socket token: the identity that requested it.
#[derive(Debug, Serialize, Deserialize)]
struct SocketTokenClaims {
    sub: String,
    name: String,
    grants: Grants,
    /// The rooms, as an access token writes them; all of them, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    room: Option<String>,
    /// The access token behind the identity, whose end is that of the right to open sockets, and of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<TokenLease>,
}

impl Claims for SocketTokenClaims {
    const AUDIENCE: &'static str = "socket";
    const LIFETIME: Duration = Identities::SOCKET_TOKEN_LIFETIME;
}

impl Identities {
    /// Time within which a socket token opens sockets. A socket outlives it, but not the access token behind it.
    pub const SOCKET_TOKEN_LIFETIME: Duration = Duration::from_secs(5 * 60);

    /// Signs a token with which `identity` can open sockets for a few minutes.
    pub fn socket_token(&self, identity: &Identity, now: SystemTime) -> String {
        let Identity { id, name, grants, scope, lease } = identity;
        let room = (*scope != RoomScope::any()).then(|| scope.to_string());
        let (sub, name, lease) = (id.as_str().to_owned(), name.to_string(), lease.as_deref().cloned());
        let claims = SocketTokenClaims { sub, name, grants: *grants, room, lease };
        self.signing_key().sign(claims, now)
    }

    /// Returns the identity of a socket token; `None` if it is malformed, not ours, or expired.
    pub fn identify_by_socket_token(&self, token: &[u8], now: SystemTime) -> Option<Identity> {
        let claims: SocketTokenClaims = self.signing_key().verify(token, now)?.claims;
        let SocketTokenClaims { sub, name, grants, room, lease } = claims;
        if lease.as_ref().is_some_and(|lease| self.is_over(lease, now)) {
            return None;
        }
        let scope = room.map_or(Some(RoomScope::any()), |room| RoomScope::parse(&room).ok())?;
        Some(Identity {
            id: IdentityId::new(sub),
            name: name.into(),
            grants,
            scope,
            lease: lease.map(Arc::new),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::token::tests::{key, today};
    use super::*;

    #[test]
    fn socket_token_names_its_user_for_minutes() {
        let identities = Identities::new(key(1), None, None);
        let grants = Grants { moderate: false, ..Grants::everyone() };
        let scope = RoomScope::parse("team-*").unwrap();
        let ann = Identity {
            id: IdentityId::new("access:ann@example.com"),
            name: "Ann".into(),
            grants,
            scope,
            lease: None,
        };
        let token = identities.socket_token(&ann, today());
        let who = |token: &str, seconds| {
            identities.identify_by_socket_token(token.as_bytes(), today() + Duration::from_secs(seconds))
        };
        assert_eq!(who(&token, 0), Some(ann.clone()));
        assert_eq!(who(&token, 299), Some(ann.clone()));
        assert_eq!(who(&token, 300), None);
        assert_eq!(who(&token[1..], 0), None);
        assert_eq!(who("", 0), None);
        let others = Identities::new(key(2), None, None);
        assert_eq!(others.identify_by_socket_token(token.as_bytes(), today()), None);
    }

    #[test]
    fn cookie_and_socket_token_are_not_exchangeable() {
        let identities = Identities::new(key(1), None, None);
        let cookie = super::super::cookie::CookieSession::new("Ann".to_owned());
        let cookie = identities.signing_key().sign(cookie, today());
        assert_eq!(identities.identify_by_socket_token(cookie.as_bytes(), today()), None);
    }
}
