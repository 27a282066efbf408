//! The media API as the embedded media server serves it to other servers: `/v1/apps/{appId}/…`, and
//! without the `/v1`.
//!
//! Another Orange server, or whatever speaks the Calls API, uses this one for its media. It proves
//! itself by the application's secret, and answers for its own users.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use secrecy::SecretString;

use super::api::{CallTarget, Caller};
use super::failure::CallFailure;
use crate::admin::bears;
use crate::config::{LimitsConfig, SfuConfig};
use crate::http::app::App;
use crate::id::SessionId;
use crate::limit::{KeyedLimit, Rate};
use crate::metrics::Metrics;
use crate::sfu::handle::SfuHandle;
use crate::sfu::wire::ApiRequest;

/// The media API for other servers.
#[derive(Debug)]
pub struct MediaApi {
    sfu: SfuHandle,
    app_id: String,
    secret: SecretString,
    calls: KeyedLimit<SessionId>,
}

impl MediaApi {
    /// The media API of these settings, where they have a secret for it.
    pub fn new(sfu: Option<&SfuHandle>, settings: &SfuConfig, limits: &LimitsConfig) -> Option<Self> {
        Some(Self {
            sfu: sfu?.clone(),
            app_id: settings.app_id.clone(),
            secret: settings.api_secret.0.clone()?,
            calls: KeyedLimit::rate(Rate::per_second(limits.calls_per_second)),
        })
    }

    /// Forgets the sessions that nobody called for a while.
    pub fn prune(&self) {
        self.calls.prune();
    }
}

/// `/v1/apps/{appId}/sessions/…`: a call of the media API.
pub async fn api(
    State(app): State<Arc<App>>,
    Path((app_id, _)): Path<(String, String)>,
    request: Request,
) -> Response {
    answer(&app, &app_id, request).await.unwrap_or_else(|failure| {
        Metrics::count(&app.metrics.refusals, failure.label());
        let text = serde_json::json!(failure.to_api()).to_string();
        json(failure.status(), text)
    })
}

async fn answer(app: &App, app_id: &str, request: Request) -> Result<Response, CallFailure> {
    let api = app.media_api.as_ref().ok_or(CallFailure::NotFound)?;
    let (head, body) = request.into_parts();
    if !bears(&head.headers, &api.secret) {
        return Err(CallFailure::NoSecret);
    }
    if app_id != api.app_id {
        return Err(CallFailure::NotFound);
    }
    // As it was sent: nothing in it is decoded.
    let path = head.uri.path();
    let below = path.find("/sessions/").map(|start| &path[start + 1..]).ok_or(CallFailure::NotFound)?;
    let target = CallTarget::parse(&head.method, below).ok_or(CallFailure::NotFound)?;
    if let CallTarget::Session { session, .. } = &target
        && api.calls.check(session).is_err()
    {
        return Err(CallFailure::TooManyCalls);
    }
    let body = app.calls.read_whole(body).await?;
    // The other server's address says nothing of its users'.
    let (caller, network) = (Caller::Server, None);
    let asked = ApiRequest { target, query: head.uri.query().map(str::to_owned), body, caller, network };
    let (status, text) = api.sfu.serve(asked).await;
    Ok(json(status, text))
}

fn json(status: StatusCode, text: String) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, text).into_response()
}
