//! Security headers of pages.

use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::auth::peer::{RemotePeer, Scheme};

/// Camera, microphone and screen for this server's pages, but not for embedded ones.
const PERMISSIONS: HeaderValue =
    HeaderValue::from_static("camera=(self), microphone=(self), display-capture=(self)");

/// Directive that makes sockets and files use TLS as well.
const UPGRADE: &str = "upgrade-insecure-requests";

/// Sets the content security policy and the permissions policy of a page for `peer`.
pub fn protect(headers: &mut HeaderMap, policy: &str, peer: &RemotePeer) {
    let text = match peer.scheme {
        // The stock client opens ws:// at private addresses even from an https page (protocol section 1).
        Scheme::Https => format!("{policy}; {UPGRADE}"),
        Scheme::Http => policy.to_owned(),
    };
    if let Ok(policy) = HeaderValue::try_from(text) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(HeaderName::from_static("permissions-policy"), PERMISSIONS);
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;

    use super::*;
    use crate::auth::peer::TrustedProxies;

    #[test]
    fn only_secure_pages_upgrade_requests() {
        for (scheme, upgrades) in [(Scheme::Https, true), (Scheme::Http, false)] {
            let (uri, none) = (Uri::from_static("/"), HeaderMap::new());
            let peer =
                RemotePeer::new([127, 0, 0, 1].into(), scheme, &uri, &none, &TrustedProxies::default());
            let mut headers = HeaderMap::new();
            protect(&mut headers, "default-src 'self'", &peer);
            let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert_eq!(policy.ends_with("; upgrade-insecure-requests"), upgrades, "{policy}");
            assert_eq!(headers["permissions-policy"], PERMISSIONS);
        }
    }
}
