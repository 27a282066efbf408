//! The two mounts of the media API, `/api/calls/` and `/partytracks/` (protocol section 9).

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, SET_COOKIE};
use axum::http::{HeaderValue, Method, StatusCode, request};
use axum::response::{IntoResponse, Response};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::api::{Action, Target};
use super::failure::CallFailure;
use super::heal::{self, Asked, Healing};
use super::session_lock;
use super::turn::{STUN_ONLY, TurnCredentials};
use super::upstream::{Answer, Call, CallBody, Upstream, UpstreamError};
use crate::config::{Calls, Limits};
use crate::http::app::{App, wall_clock};
use crate::id::{IdentityId, SessionId};
use crate::identity::Asked as Caller;
use crate::identity::peer::Peer;
use crate::metrics::Metrics;

/// Bodies up to this length may be read whole at any time; of longer ones only some are in memory.
const SMALL_BYTES: usize = 64 << 10;

/// How many longer bodies are in memory at a time; more wait.
const LARGE_BODIES: usize = 32;

/// What the proxy needs and may use.
#[derive(Debug)]
pub struct Proxy {
    /// Who serves the media API.
    pub upstream: Arc<Upstream>,
    /// The TURN credentials.
    pub turn: TurnCredentials,
    lock: Lock,
    calls: DefaultKeyedRateLimiter<SessionId>,
    sessions: Option<DefaultKeyedRateLimiter<IdentityId>>,
    large_bodies: Semaphore,
    body_bytes: usize,
    timeout: Duration,
}

/// Whether sessions belong to those who opened them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    On,
    Off,
}

/// Where a client reaches the media API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mount {
    /// `/api/calls/`: errors in the media API's own form.
    ApiCalls,
    /// `/partytracks/`: errors from which the library heals.
    Partytracks,
}

impl Mount {
    fn path(self) -> &'static str {
        match self {
            Self::ApiCalls => "/api/calls",
            Self::Partytracks => "/partytracks",
        }
    }
}

impl Proxy {
    /// A proxy to `upstream`.
    pub fn new(upstream: Arc<Upstream>, calls: &Calls, limits: &Limits) -> Self {
        let per_second = NonZeroU32::new(limits.calls_per_second).unwrap_or(NonZeroU32::MIN);
        let per_minute = NonZeroU32::new(limits.new_sessions_per_minute);
        Self {
            turn: TurnCredentials::new(upstream.clone()),
            upstream,
            lock: if calls.session_lock { Lock::On } else { Lock::Off },
            calls: RateLimiter::keyed(Quota::per_second(per_second)),
            sessions: per_minute.map(|most| RateLimiter::keyed(Quota::per_minute(most))),
            large_bodies: Semaphore::new(LARGE_BODIES),
            body_bytes: limits.call_bytes,
            timeout: calls.timeout,
        }
    }

    /// Forgets who called nothing for a while; without it every session ever seen would stay.
    pub fn tidy(&self) {
        self.calls.retain_recent();
        self.calls.shrink_to_fit();
        if let Some(sessions) = &self.sessions {
            sessions.retain_recent();
            sessions.shrink_to_fit();
        }
    }

    /// Whether `identity` may make this call now.
    fn admit(&self, target: &Target, identity: &IdentityId) -> Result<(), CallFailure> {
        match target {
            Target::NewSession => match &self.sessions {
                Some(sessions) if sessions.check_key(identity).is_err() => Err(CallFailure::TooManySessions),
                _ => Ok(()),
            },
            Target::Session { session, .. } => {
                self.calls.check_key(session).map_err(|_| CallFailure::TooManyCalls)
            }
        }
    }

    /// Reads a body of at most `limit` bytes whole.
    async fn read(&self, body: Body, limit: usize) -> Result<Bytes, UpstreamError> {
        let expected = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
        if body.size_hint().lower() > limit as u64 {
            return Err(UpstreamError::RequestTooLong);
        }
        let read = async {
            let _place = match expected {
                Some(bytes) if bytes <= SMALL_BYTES => None,
                _ => self.large_bodies.acquire().await.ok(),
            };
            Limited::new(body, limit).collect().await
        };
        match timeout(self.timeout, read).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(UpstreamError::RequestTooLong),
            Ok(Err(_)) => Err(UpstreamError::RequestBroken),
            Err(_) => Err(UpstreamError::RequestTooSlow),
        }
    }
}

/// `/api/calls/*`: the media API for older clients.
pub async fn api_calls(State(app): State<Arc<App>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Some(target) = target(Mount::ApiCalls, &head) else {
        return api_failure(&app, CallFailure::NotFound);
    };
    let answer = match caller(&app, &head).await {
        Ok(caller) => forward(&app, Mount::ApiCalls, &head, &target, caller, streamed(&head, body)).await,
        Err(nobody) => Err(nobody),
    };
    answer.unwrap_or_else(|failure| api_failure(&app, failure))
}

/// `/partytracks/*`: the media API and the ICE servers for the library of that name.
pub async fn partytracks(State(app): State<Arc<App>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if head.method == Method::GET && head.uri.path() == "/partytracks/generate-ice-servers" {
        return ice_servers(&app, &head).await;
    }
    let Some(target) = target(Mount::Partytracks, &head) else {
        return api_failure(&app, CallFailure::NotFound);
    };
    let caller = caller(&app, &head).await;
    let mut asked = Asked::Unknown;
    let body: Result<CallBody, CallFailure> = match &target {
        Target::Session { action: Action::NewTracks, .. } => {
            // What heals depends on what was asked for, so it is read before anything can fail.
            let limit = if caller.is_ok() { app.calls.body_bytes } else { SMALL_BYTES };
            match app.calls.read(body, limit).await {
                Ok(body) => {
                    asked = Asked::read(&body);
                    Ok(CallBody::Whole(body))
                }
                Err(error) => Err(error.into()),
            }
        }
        _ => Ok(streamed(&head, body)),
    };
    let answer = match caller.and_then(|caller| Ok((caller, body?))) {
        Ok((caller, body)) => forward(&app, Mount::Partytracks, &head, &target, caller, body).await,
        Err(failure) => Err(failure),
    };
    match answer {
        Ok(response) => heal_answer(&app, &target, &asked, response).await,
        Err(failure) => healing_failure(&app, &target, &asked, failure),
    }
}

fn streamed(head: &request::Parts, body: Body) -> CallBody {
    if head.method == Method::GET || body.is_end_stream() { CallBody::Empty } else { CallBody::Stream(body) }
}

fn target(mount: Mount, head: &request::Parts) -> Option<Target> {
    Target::parse(&head.method, head.uri.path().strip_prefix(mount.path())?.strip_prefix('/')?)
}

async fn caller(app: &App, head: &request::Parts) -> Result<IdentityId, CallFailure> {
    let peer = head.extensions.get::<Peer>().ok_or(CallFailure::NoIdentity)?;
    match app.identities.identify(&head.headers, peer, wall_clock()).await {
        Caller::Known { identity, .. } => Ok(identity.id),
        Caller::Nobody => Err(CallFailure::NoIdentity),
    }
}

/// Passes a call on, and its answer back.
async fn forward(
    app: &App,
    mount: Mount,
    head: &request::Parts,
    target: &Target,
    caller: IdentityId,
    body: CallBody,
) -> Result<Response, CallFailure> {
    if let Some(missing) = app.calls.upstream.missing() {
        return Err(UpstreamError::NotConfigured(missing).into());
    }
    let key = app.identities.signing_key();
    if let (Lock::On, Target::Session { session, .. }) = (app.calls.lock, target)
        && !session_lock::is_held(key, session, &caller, &head.headers, wall_clock())
    {
        return Err(CallFailure::NotYourSession);
    }
    app.calls.admit(target, &caller)?;
    let too_long = |body: &Body| body.size_hint().lower() > app.calls.body_bytes as u64;
    if let CallBody::Stream(body) = &body
        && too_long(body)
    {
        return Err(UpstreamError::RequestTooLong.into());
    }
    let query = head.uri.query().map(str::to_owned);
    let call = Call { target: target.clone(), query, body };
    let answer = app.calls.upstream.call(call).await?;
    if *target == Target::NewSession && answer.status.is_success() && app.calls.lock == Lock::On {
        return locked(app, mount, head, &caller, answer).await;
    }
    Ok(pass_on(answer))
}

/// The answer of a new session, with the cookie that locks it to its opener.
async fn locked(
    app: &App,
    mount: Mount,
    head: &request::Parts,
    caller: &IdentityId,
    answer: Answer,
) -> Result<Response, CallFailure> {
    #[derive(Deserialize)]
    struct New {
        #[serde(rename = "sessionId")]
        session: String,
    }
    let Answer { status, headers, body } = answer;
    let body = body.collect().await.map_err(|_| UpstreamError::BadAnswer)?.to_bytes();
    let new = serde_json::from_slice::<New>(&body).ok();
    let session = new.and_then(|new| SessionId::parse(&new.session).ok());
    let mut response = pass_on(Answer { status, headers, body: body.into() });
    let peer = head.extensions.get::<Peer>();
    if let (Some(session), Some(peer)) = (session, peer) {
        let key = app.identities.signing_key();
        let now = wall_clock();
        for cookie in session_lock::set_cookies(key, &session, caller, mount.path(), peer, &head.headers, now)
        {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }
    Ok(response)
}

fn pass_on(answer: Answer) -> Response {
    let mut response = Response::new(answer.body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// Reads an answer in which a failure may hide, and puts a body in its place from which the
/// library heals. What went well passes as it came.
async fn heal_answer(app: &App, target: &Target, asked: &Asked, response: Response) -> Response {
    let may_hide = match target {
        Target::NewSession => true,
        Target::Session { action, .. } => {
            matches!(action, Action::NewTracks | Action::Renegotiate | Action::CloseTracks)
        }
    };
    let status = response.status();
    if status.is_success() && !may_hide {
        return response;
    }
    let (head, body) = response.into_parts();
    let Ok(body) = body.collect().await else {
        return healing_failure(app, target, asked, UpstreamError::BadAnswer.into());
    };
    let body = body.to_bytes();
    let Some(Healing { content_type, text }) = heal::answer(target, asked, status, &body) else {
        return Response::from_parts(head, body.into());
    };
    let mut response = Response::from_parts(head, text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

async fn ice_servers(app: &App, head: &request::Parts) -> Response {
    let servers = match caller(app, head).await {
        Ok(identity) => app.calls.turn.ice_servers(&identity).await.map_err(CallFailure::from),
        Err(nobody) => Err(nobody),
    };
    // The library never reads the status; without TURN many still meet, without a list nobody.
    let (status, body) = match servers {
        Ok(servers) => (StatusCode::OK, servers),
        Err(failure) => {
            Metrics::count(&app.metrics.refusals, failure.label());
            (failure.status(), Bytes::from_static(STUN_ONLY.as_bytes()))
        }
    };
    (status, [(CONTENT_TYPE, JSON), (CACHE_CONTROL, NO_STORE)], body).into_response()
}

/// A failure in the media API's own form.
fn api_failure(app: &App, failure: CallFailure) -> Response {
    refuse(app, failure, JSON, serde_json::json!(failure.to_api()).to_string())
}

/// A failure from which the library heals.
fn healing_failure(app: &App, target: &Target, asked: &Asked, failure: CallFailure) -> Response {
    let Healing { content_type, text } = heal::failure(target, asked, &failure.to_api());
    refuse(app, failure, HeaderValue::from_static(content_type), text)
}

fn refuse(app: &App, failure: CallFailure, content_type: HeaderValue, body: String) -> Response {
    Metrics::count(&app.metrics.refusals, failure.label());
    let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, NO_STORE)];
    let mut response = (failure.status(), headers, body).into_response();
    if let Some(seconds) = failure.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
