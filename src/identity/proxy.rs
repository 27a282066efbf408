//! The header in which a trusted proxy names its authenticated user.

use axum::http::{HeaderMap, HeaderName};

use super::{AuthMethod, Identity};
use crate::identity::peer::{Peer, Trust};

/// Content of the proxy's header in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
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
pub(super) fn read(header: &HeaderName, headers: &HeaderMap, peer: &Peer) -> Said {
    if peer.trust == Trust::Untrusted {
        return Said::Nothing;
    }
    let mut values = headers.get_all(header).iter();
    let (value, more) = (values.next(), values.next());
    let Some(value) = value else {
        return Said::Nothing;
    };
    let text = match std::str::from_utf8(value.as_bytes()) {
        Ok(text) if more.is_none() => text.trim(),
        _ => return Said::Unclear,
    };
    if text.is_empty() {
        return Said::Nothing;
    }
    if text.contains(',') {
        return Said::Unclear;
    }
    Identity::external(AuthMethod::ProxyHeader, text).map_or(Said::Unclear, Said::User)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, Uri};
    use proptest::prelude::*;

    use super::*;
    use crate::identity::peer::{Scheme, TrustedProxies};

    const HEADER: HeaderName = HeaderName::from_static("x-auth-user");

    fn said(socket: &str, values: &[&[u8]]) -> Said {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        let proxies = TrustedProxies::new(["10.0.0.0/8".parse().unwrap()]);
        let uri = Uri::from_static("/");
        let peer = Peer::new(socket.parse().unwrap(), Scheme::Http, &uri, &headers, &proxies);
        read(&HEADER, &headers, &peer)
    }

    #[test]
    fn trusted_proxy_names_the_user() {
        let Said::User(user) = said("10.0.0.1", &[b" Ann@Example.com "]) else { panic!() };
        assert_eq!(user.id.as_str(), "proxy:ann@example.com");
        assert_eq!(&*user.name, "Ann@Example.com");
        let Said::User(user) = said("10.0.0.1", &["Zoë".as_bytes()]) else { panic!() };
        assert_eq!(user.id.as_str(), "proxy:zoë");
    }

    #[test]
    fn hidden_characters_are_not_displayed() {
        let user = |name: &str| match said("10.0.0.1", &[name.as_bytes()]) {
            Said::User(user) => (user.id.as_str().to_owned(), user.name.to_string()),
            other => panic!("{name:?}: {other:?}"),
        };
        assert_eq!(user("Zoe\u{308}"), user("Zoë"));
        let (turned, name) = user("an\u{202e}n");
        assert_eq!(name, "ann");
        assert_ne!(turned, user("ann").0, "another account");
        assert_eq!(said("10.0.0.1", &["\u{200b}".as_bytes()]), Said::Unclear);
    }

    #[test]
    fn header_from_untrusted_peer_is_ignored() {
        assert_eq!(said("203.0.113.9", &[b"ann@example.com"]), Said::Nothing);
        assert_eq!(said("203.0.113.9", &[b"ann@example.com", b"eve@example.com"]), Said::Nothing);
    }

    #[test]
    fn several_or_invalid_values_are_unclear() {
        assert_eq!(said("10.0.0.1", &[]), Said::Nothing);
        assert_eq!(said("10.0.0.1", &[b" "]), Said::Nothing);
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
            assert_eq!(said("10.0.0.1", values), Said::Unclear, "{values:?}");
        }
        assert!(matches!(said("10.0.0.1", &[&[b'a'; 254]]), Said::User(_)));
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
