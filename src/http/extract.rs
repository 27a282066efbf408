//! Extractors of a request's client.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, SET_COOKIE};
use axum::http::request::Parts;
use axum::response::Response;

use super::context::HttpContext;
use super::error::ApiError;
use crate::auth::peer::RemotePeer;
use crate::auth::{Auth, Identity};
use crate::clock::wall_clock;

/// The peer that the [request guard](super::request_guard) determined.
impl<S: Sync> FromRequestParts<S> for RemotePeer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().ok_or(ApiError::Internal)
    }
}

/// The authentication result, also of an unauthenticated request.
impl<S: Sync> FromRequestParts<S> for Auth
where
    Arc<HttpContext>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let http = Arc::<HttpContext>::from_ref(state);
        let peer = parts.extensions.get::<RemotePeer>().ok_or(ApiError::Internal)?;
        Ok(http.identities.identify(&parts.headers, peer, wall_clock()).await)
    }
}

/// The authenticated user of a request; any other request is refused.
#[derive(Clone, Debug)]
pub struct CurrentUser(pub Identity);

impl<S: Sync> FromRequestParts<S> for CurrentUser
where
    Arc<HttpContext>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Auth::from_request_parts(parts, state).await? {
            Auth::User { identity, .. } => Ok(Self(identity)),
            Auth::Anonymous => Err(Arc::<HttpContext>::from_ref(state).unauthenticated()),
        }
    }
}

/// Adds the renewed cookie to a response, if one is due.
pub fn with_cookie(mut response: Response, cookie: Option<HeaderValue>) -> Response {
    if let Some(cookie) = cookie {
        // An intermediate cache would otherwise hand the cookie to another user.
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}
