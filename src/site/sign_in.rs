//! The link to the login, in pages for those who are not signed in.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use url::form_urlencoded;

use super::forms::whole_url;
use super::{POLICY, Page, Site};
use crate::auth::peer::RemotePeer;
use crate::http::error::ApiError;
use crate::http::page_policy::protect;
use crate::http::redirect::escape;

/// Placeholder of the link in a page.
const MARK: &str = "<!--sign-in-->";

/// Maximum characters of an address to return to in a link.
const MAX_CHARS: usize = 2000;

impl Site {
    /// The page with a link to the login, if there is one; it leads back to the address that the request names as
    /// `return-url`, or to its own.
    pub(super) fn with_sign_in(&self, html: &str, uri: &Uri, peer: &RemotePeer) -> String {
        let link = if self.sign_in { link(uri, peer) } else { String::new() };
        html.replacen(MARK, &link, 1)
    }

    /// Answers with the form for a name, and a link to the login.
    pub(super) async fn name_page(&self, uri: &Uri, peer: &RemotePeer) -> Result<Response, ApiError> {
        let html = self.files.text(Page::Name.file()).await.map_err(|_| ApiError::Internal)?;
        let html = self.with_sign_in(&html.ok_or(ApiError::NotFound)?, uri, peer);
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
            (CACHE_CONTROL, HeaderValue::from_static("private, no-cache")),
        ];
        let mut response = (headers, html).into_response();
        protect(response.headers_mut(), POLICY, peer);
        Ok(response)
    }

    /// True if users can sign in with an account elsewhere.
    pub(super) fn has_sign_in(&self) -> bool {
        self.sign_in
    }
}

fn link(uri: &Uri, peer: &RemotePeer) -> String {
    let mut query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let named = query.find(|(name, _)| name == "return-url").map(|(_, url)| url.into_owned());
    let back = escape(&named.unwrap_or_else(|| whole_url(uri, peer)));
    // The escaped address has no character that ends the attribute.
    let query = if back.len() <= MAX_CHARS { format!("?return-url={back}") } else { String::new() };
    let base = peer.base_path.as_str();
    format!(
        "<a class=\"button wide\" id=\"sign-in\" data-text=\"signIn\" href=\"{base}/api/login{query}\">Sign in</a>"
    )
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::*;
    use crate::auth::peer::{Scheme, TrustedProxies};

    #[test]
    fn link_leads_back_and_cannot_be_broken_out_of() {
        for (uri, href) in [
            ("/standup?x=1", "/api/login?return-url=%2Fstandup%3Fx%3D1"),
            ("/set-username?return-url=%2Fa%22%3E%3Cscript", "/api/login?return-url=%2Fa%22%3E%3Cscript"),
            ("/a'%22", "/api/login?return-url=%2Fa%27%2522"),
        ] {
            let uri: Uri = uri.parse().unwrap();
            let none = TrustedProxies::default();
            let peer = RemotePeer::new([127, 0, 0, 1].into(), Scheme::Http, &uri, &HeaderMap::new(), &none);
            let link = link(&uri, &peer);
            assert!(link.contains(&format!("href=\"{href}\"")), "{link}");
        }
        let long: Uri = format!("/{}", "a".repeat(MAX_CHARS)).parse().unwrap();
        let none = TrustedProxies::default();
        let peer = RemotePeer::new([127, 0, 0, 1].into(), Scheme::Http, &long, &HeaderMap::new(), &none);
        assert!(link(&long, &peer).contains("href=\"/api/login\""));
    }
}
