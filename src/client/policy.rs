//! **Pure**: what a page of the stock client may load and use.

use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::{HttpUrl, PolicySources};

/// Where background blur loads its models from.
const MODELS: &str = "https://cdn.jsdelivr.net";

/// What stands where a page's nonce is to be.
const NONCE: &str = "'nonce-…'";

/// What the client needs: `wasm-unsafe-eval` for its encryption and noise suppression, inline styles
/// for its components, sockets of either kind since it chooses by the host's name alone.
#[rustfmt::skip]
const DIRECTIVES: [(&str, &[&str]); 13] = [
    ("default-src", &["'self'"]),
    ("script-src", &["'self'", NONCE, "'wasm-unsafe-eval'", MODELS]),
    ("style-src", &["'self'", "'unsafe-inline'"]),
    ("connect-src", &["'self'", "ws:", "wss:", MODELS]),
    ("worker-src", &["'self'", "blob:"]),
    ("img-src", &["'self'", "data:", "blob:"]),
    ("media-src", &["'self'", "data:", "blob:"]),
    ("font-src", &["'self'", "data:"]),
    ("manifest-src", &["'self'"]),
    ("object-src", &["'none'"]),
    ("base-uri", &["'none'"]),
    ("form-action", &["'self'"]),
    ("frame-ancestors", &["'none'"]),
];

/// Camera, microphone and screen for our own pages, and not for what they may embed.
const PERMISSIONS: HeaderValue =
    HeaderValue::from_static("camera=(self), microphone=(self), display-capture=(self)");

/// Has socket and files go through TLS, too.
const UPGRADE: &str = "upgrade-insecure-requests";

/// The content security policy of the stock client's pages.
#[derive(Clone, Debug)]
pub struct Policy {
    /// With a place for the nonce.
    text: String,
}

impl Policy {
    /// The client's needs, where it looks people up, and what the operator adds.
    pub fn new(directory: Option<&HttpUrl>, added: &[PolicySources]) -> Self {
        let mut directives: Vec<(&str, Vec<&str>)> =
            DIRECTIVES.iter().map(|(name, sources)| (*name, sources.to_vec())).collect();
        let mut add = |name, source| match directives.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sources)) => {
                // It stands for itself alone.
                sources.retain(|&known| known != "'none'" && known != source);
                sources.push(source);
            }
            None => directives.push((name, vec![source])),
        };
        let directory = directory.map(HttpUrl::origin);
        if let Some(directory) = &directory {
            add("connect-src", directory);
        }
        for PolicySources { directive, sources } in added {
            sources.iter().for_each(|source| add(directive, source));
        }
        let lines: Vec<_> =
            directives.iter().map(|(name, sources)| format!("{name} {}", sources.join(" "))).collect();
        Self { text: lines.join("; ") }
    }

    /// The policy of the page with this nonce.
    pub fn of(&self, nonce: &str) -> String {
        self.text.replace(NONCE, &format!("'nonce-{nonce}'"))
    }
}

/// How a page came to its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageTransport {
    /// Over TLS from the browser to us or to a proxy of ours.
    Secure,
    /// As plain text, if only as far as we know.
    Plain,
}

/// Sets the headers that keep a page to itself.
pub fn protect(headers: &mut HeaderMap, policy: &str, way: PageTransport) {
    let text = match way {
        // The client opens ws:// at private addresses, whatever the page came by (protocol section 1).
        PageTransport::Secure => format!("{policy}; {UPGRADE}"),
        PageTransport::Plain => policy.to_owned(),
    };
    if let Ok(policy) = HeaderValue::try_from(text) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(HeaderName::from_static("permissions-policy"), PERMISSIONS);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(texts: &[&str]) -> Vec<PolicySources> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_policy_is_the_one_that_the_client_can_live_with() {
        let policy = Policy::new(None, &[]).of("abc");
        for part in [
            "script-src 'self' 'nonce-abc' 'wasm-unsafe-eval' https://cdn.jsdelivr.net;",
            "style-src 'self' 'unsafe-inline';",
            "connect-src 'self' ws: wss: https://cdn.jsdelivr.net;",
            "worker-src 'self' blob:;",
            "media-src 'self' data: blob:;",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(policy.ends_with("frame-ancestors 'none'"), "{policy}");
    }

    #[test]
    fn the_operator_adds_sources() {
        let directory: HttpUrl = "https://people.example/api?x".parse().unwrap();
        let added = added(&[
            "connect-src https://sentry.example https://people.example",
            "frame-ancestors https://intranet.example",
            "child-src 'self'",
        ]);
        let policy = Policy::new(Some(&directory), &added).of("abc");
        for part in [
            "https://cdn.jsdelivr.net https://sentry.example https://people.example;",
            "; frame-ancestors https://intranet.example;",
            "; child-src 'self'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
    }

    #[test]
    fn only_pages_over_tls_upgrade_what_they_load() {
        for (way, upgrades) in [(PageTransport::Secure, true), (PageTransport::Plain, false)] {
            let mut headers = HeaderMap::new();
            protect(&mut headers, "default-src 'self'", way);
            let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert_eq!(policy.ends_with("; upgrade-insecure-requests"), upgrades, "{policy}");
            assert_eq!(headers["permissions-policy"], PERMISSIONS);
        }
    }
}
