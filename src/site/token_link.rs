//! Links with an access token: `?token=` on a page becomes a cookie, and leaves the address.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::{Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use url::form_urlencoded;

use crate::auth::access_token::AccessTokens;
use crate::auth::peer::RemotePeer;
use crate::clock::wall_clock;
use crate::config::LOGIN_KEY;
use crate::http::context::HttpContext;
use crate::http::error::ApiError;
use crate::http::redirect::redirect;

/// Name of the parameter.
const TOKEN: &str = "token";

/// Middleware of the pages: exchanges the token of a link for a cookie at once, by a redirect to the address without
/// it, so that it reaches no history and no `Referer`.
///
/// The cookie is the link's token itself: what a browser held before neither stays nor is joined with it.
pub async fn exchange(State(http): State<Arc<HttpContext>>, request: Request, next: Next) -> Response {
    let is_page = request.method() == Method::GET || request.method() == Method::HEAD;
    let (Some(tokens), true, Some(token)) = (http.identities.access_tokens(), is_page, token(request.uri()))
    else {
        return next.run(request).await;
    };
    let Some(peer) = request.extensions().get::<RemotePeer>() else {
        return ApiError::Internal.into_response();
    };
    let now = wall_clock();
    match http.identities.verify(tokens, token.as_bytes(), peer.network(), now).await {
        // A login is its browser's: a link would sign whoever follows it in to somebody else's account.
        Ok(identity) if identity.lease.as_ref().is_some_and(|lease| lease.key == LOGIN_KEY) => {
            ApiError::InvalidToken.into_response()
        }
        Ok(identity) => {
            let expiry = identity.lease.map_or(0, |lease| lease.expiry);
            let cookie = AccessTokens::set_cookie(&token, expiry, peer, now);
            let mut response = redirect(&without_token(request.uri()));
            response.headers_mut().insert(SET_COOKIE, cookie);
            response
        }
        Err(defect) => {
            tracing::debug!(event = "tokenRefused", %defect);
            ApiError::InvalidToken.into_response()
        }
    }
}

/// The token in an address, if there is one.
fn token(uri: &Uri) -> Option<String> {
    let mut query = form_urlencoded::parse(uri.query()?.as_bytes());
    query.find(|(name, _)| name == TOKEN).map(|(_, token)| token.into_owned())
}

/// The path and query without the token.
fn without_token(uri: &Uri) -> String {
    let others = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let others = others.filter(|(name, _)| name != TOKEN);
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(others).finish();
    // Not two slashes, which a browser would take for another host.
    let path = format!("/{}", uri.path().trim_start_matches('/'));
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_has_everything_but_the_token() {
        for (uri, token_found, left) in [
            ("/standup?token=a.b", Some("a.b"), "/standup"),
            ("/caf%C3%A9?x=1&token=a%2Bb&y=%26", Some("a+b"), "/caf%C3%A9?x=1&y=%26"),
            ("//evil.example/?token=a", Some("a"), "/evil.example/"),
            ("/standup?tokens=a", None, "/standup?tokens=a"),
            ("/standup", None, "/standup"),
        ] {
            let uri = uri.parse().unwrap();
            assert_eq!((token(&uri).as_deref(), &*without_token(&uri)), (token_found, left));
        }
    }
}
