//! The header in which a trusted proxy names its authenticated user.

use axum::http::{HeaderMap, HeaderName};

use super::{AuthMethod, Identity};
use crate::auth::peer::{RemotePeer, Trust};

/// Content of the proxy's header in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HeaderIdentity {
    /// No header, an empty one, or one from an untrusted peer.
    Nothing,
    /// Not exactly one valid name. A client may have added a line of its own to the proxy's, so no other
    /// authentication of the request counts either.
    Unclear,
    /// The user's identity.
    User(Identity),
}

/// Reads `header` of a request from `peer`.
///
/// A comma makes a value ambiguous: proxies join lines of one name by commas (RFC 9110 section 5.3), and
/// no user name or e-mail address contains one.
pub(super) fn read(header: &HeaderName, headers: &HeaderMap, peer: &RemotePeer) -> HeaderIdentity {
    if peer.trust == Trust::Untrusted {
        return HeaderIdentity::Nothing;
    }
    let mut values = headers.get_all(header).iter();
    let (value, more) = (values.next(), values.next());
    let Some(value) = value else {
        return HeaderIdentity::Nothing;
    };
    let text = match std::str::from_utf8(value.as_bytes()) {
        Ok(text) if more.is_none() => text.trim(),
        _ => return HeaderIdentity::Unclear,
    };
    if text.is_empty() {
        return HeaderIdentity::Nothing;
    }
    if text.contains(',') {
        return HeaderIdentity::Unclear;
    }
    Identity::external(AuthMethod::ProxyHeader, text).map_or(HeaderIdentity::Unclear, HeaderIdentity::User)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, Uri};
    use proptest::prelude::*;

    use super::*;
    use crate::auth::peer::{Scheme, TrustedProxies};

    const HEADER: HeaderName = HeaderName::from_static("x-auth-user");

    fn said(socket: &str, values: &[&[u8]]) -> HeaderIdentity {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        let proxies = TrustedProxies::new(["10.0.0.0/8".parse().unwrap()]);
        let uri = Uri::from_static("/");
        let peer = RemotePeer::new(socket.parse().unwrap(), Scheme::Http, &uri, &headers, &proxies);
        read(&HEADER, &headers, &peer)
    }

    #[test]
    fn trusted_proxy_names_the_user() {
        let HeaderIdentity::User(user) = said("10.0.0.1", &[b" Ann@Example.com "]) else { panic!() };
        assert_eq!(user.id.as_str(), "proxy:ann@example.com");
        assert_eq!(&*user.name, "Ann@Example.com");
        let HeaderIdentity::User(user) = said("10.0.0.1", &["Zoë".as_bytes()]) else { panic!() };
        assert_eq!(user.id.as_str(), "proxy:zoë");
    }

    #[test]
    fn hidden_characters_are_not_displayed() {
        let user = |name: &str| match said("10.0.0.1", &[name.as_bytes()]) {
            HeaderIdentity::User(user) => (user.id.as_str().to_owned(), user.name.to_string()),
            other => panic!("{name:?}: {other:?}"),
        };
        assert_eq!(user("Zoe\u{308}"), user("Zoë"));
        let (turned, name) = user("an\u{202e}n");
        assert_eq!(name, "ann");
        assert_ne!(turned, user("ann").0, "another account");
        assert_eq!(said("10.0.0.1", &["\u{200b}".as_bytes()]), HeaderIdentity::Unclear);
    }

    #[test]
    fn header_from_untrusted_peer_is_ignored() {
        assert_eq!(said("203.0.113.9", &[b"ann@example.com"]), HeaderIdentity::Nothing);
        assert_eq!(said("203.0.113.9", &[b"ann@example.com", b"eve@example.com"]), HeaderIdentity::Nothing);
    }

    #[test]
    fn several_or_invalid_values_are_unclear() {
        assert_eq!(said("10.0.0.1", &[]), HeaderIdentity::Nothing);
        assert_eq!(said("10.0.0.1", &[b" "]), HeaderIdentity::Nothing);
        let long = "a".repeat(255);
        let unclear: &[&[&[u8]]] = &[
            &[b"ann", b"eve"],
            &[b"ann", b"ann"],
            &[b"ann", b""],
            &[b"", b"ann"],
            &[b"ann,eve"],
            &[b"\xff\xfe"],
            &[b"a\tb"],
            &["a\u{85}b".as_bytes()],
            &[long.as_bytes()],
        ];
        for values in unclear {
            assert_eq!(said("10.0.0.1", values), HeaderIdentity::Unclear, "{values:?}");
        }
        assert!(matches!(said("10.0.0.1", &[&[b'a'; 254]]), HeaderIdentity::User(_)));
    }

    proptest! {
        #[test]
        fn arbitrary_values_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if HeaderValue::from_bytes(&bytes).is_ok() {
                let _ = said("10.0.0.1", &[&bytes]);
            }
        }
    }
}
