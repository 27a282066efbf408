//! The embedded media server's API for other servers: `/v1/apps/{appId}/…`, also without the `/v1`.
//!
//! Another Orange server, or any client of the Calls API, may use this one for its media. It authenticates by
//! the application's secret, and is responsible for its own users.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use secrecy::SecretString;

use super::api::{CallTarget, Caller};
use super::call::{Answer, Call};
use super::failure::CallFailure;
use super::proxy::Proxy;
use crate::config::{LimitsConfig, SfuConfig};
use crate::http::bearer::bears;
use crate::http::context::HttpContext;
use crate::id::SessionId;
use crate::limit::{KeyedLimit, Rate};
use crate::metrics::Metrics;
use satsuma_sfu::SfuHandle;

/// The media API for other servers.
#[derive(Debug)]
pub struct MediaApi {
    app_id: String,
    secret: SecretString,
    calls: KeyedLimit<SessionId>,
}

impl MediaApi {
    /// Returns the media API if the settings contain its secret.
    pub fn new(sfu: Option<&SfuHandle>, settings: &SfuConfig, limits: &LimitsConfig) -> Option<Self> {
        sfu?;
        Some(Self {
            app_id: settings.app_id.clone(),
            secret: settings.api_secret.0.clone()?,
            calls: KeyedLimit::rate(Rate::per_second(limits.calls_per_second)),
        })
    }

    /// Prunes rate limit entries of idle sessions.
    pub fn prune(&self) {
        self.calls.prune();
    }
}

/// `/v1/apps/{appId}/sessions/…`: a call of the media API.
pub async fn api(
    State(http): State<Arc<HttpContext>>,
    State(proxy): State<Arc<Proxy>>,
    State(api): State<Option<Arc<MediaApi>>>,
    Path((app_id, _)): Path<(String, String)>,
    request: Request,
) -> Response {
    answer(api.as_deref(), &proxy, &app_id, request).await.unwrap_or_else(|failure| {
        Metrics::count(&http.metrics.refusals, failure.label());
        let text = serde_json::json!(failure.to_api()).to_string();
        json(failure.status(), text)
    })
}

async fn answer(
    api: Option<&MediaApi>,
    proxy: &Proxy,
    app_id: &str,
    request: Request,
) -> Result<Response, CallFailure> {
    let api = api.ok_or(CallFailure::NotFound)?;
    let (head, body) = request.into_parts();
    if !bears(&head.headers, &api.secret) {
        return Err(CallFailure::NoSecret);
    }
    if app_id != api.app_id {
        return Err(CallFailure::NotFound);
    }
    // The raw path: nothing in it is percent-decoded.
    let path = head.uri.path();
    let below = path.find("/sessions/").map(|start| &path[start + 1..]).ok_or(CallFailure::NotFound)?;
    let target = CallTarget::parse(&head.method, below).ok_or(CallFailure::NotFound)?;
    if let CallTarget::Session { session, .. } = &target
        && api.calls.check(session).is_err()
    {
        return Err(CallFailure::TooManyCalls);
    }
    let body = proxy.read(body, None).await?;
    // The other server's address is not its users' address.
    let (caller, network) = (Caller::Server, None);
    let query = head.uri.query().map(str::to_owned);
    let call = Call { target, caller, network, query, body: body.bytes.clone() };
    let Answer { status, mut headers, body } = proxy.upstream.call(call).await?;
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok((status, headers, body).into_response())
}

fn json(status: StatusCode, text: String) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, text).into_response()
}
