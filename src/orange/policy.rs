//! **Pure**: the content security policy of the stock client's pages.

use crate::config::{HttpUrl, PolicySources};

/// Origin of the models for background blur.
const MODELS: &str = "https://cdn.jsdelivr.net";

/// Placeholder for a page's nonce.
const NONCE: &str = "'nonce-…'";

/// The client's needs: `wasm-unsafe-eval` for its encryption and noise suppression, inline styles for its
/// components, and both socket schemes, since it chooses by the host's name alone.
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

/// The content security policy of the stock client's pages.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The policy with the placeholder [`NONCE`].
    text: String,
}

impl Policy {
    /// Builds the policy from the client's needs, the user directory and the operator's additions.
    pub fn new(directory: Option<&HttpUrl>, added: &[PolicySources]) -> Self {
        let mut directives: Vec<(&str, Vec<&str>)> =
            DIRECTIVES.iter().map(|(name, sources)| (*name, sources.to_vec())).collect();
        let mut add = |name, source| match directives.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sources)) => {
                // `'none'` is valid only as the sole source.
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

    /// Returns the policy of a page with this nonce.
    pub fn of(&self, nonce: &str) -> String {
        self.text.replace(NONCE, &format!("'nonce-{nonce}'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(texts: &[&str]) -> Vec<PolicySources> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn policy_allows_what_the_client_needs() {
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
    fn operator_sources_are_added() {
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
}
