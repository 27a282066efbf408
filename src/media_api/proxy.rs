//! The two mounts of the media API, `/api/calls/` and `/partytracks/` (protocol section 9).

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, SET_COOKIE};
use axum::http::{HeaderValue, Method, StatusCode, request};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::api::{Action, CallTarget, Caller};
use super::call::{Answer, Call, CallerRights, UpstreamError};
use super::checking::{CheckedCalls, new_session};
use super::failure::CallFailure;
use super::mount::Mount;
use super::recovery::{self, RecoverableBody, TracksRequest};
use super::session_lock::{self, LockState};
use super::turn::TurnCredentials;
use super::upstream::Upstream;
use crate::auth::peer::RemotePeer;
use crate::auth::{Auth as Identified, Identity};
use crate::clock::{now, wall_clock};
use crate::config::{Calls, LimitsConfig};
use crate::http::context::HttpContext;
use crate::id::{Grants, IdentityId, RoomName, SessionId};
use crate::limit::{ConcurrencyLimit, ConcurrencyPermit, KeyedLimit, Permit, Rate, RateExceeded, UserRate};
use crate::metrics::Metrics;
use crate::network::ClientNetwork;

/// Maximum length of a body that is buffered without a permit; longer ones need one.
const SMALL_BYTES: usize = 64 << 10;

/// Concurrent large bodies, in memory or being forwarded. Without a limit one client that sends its bodies slowly
/// could occupy all streams of the connection to the media API, and all other calls would queue behind it.
const LARGE_BODIES: usize = 32;

/// Concurrent large bodies of one client network: a slow sender holds a permit for the whole timeout of a call.
const LARGE_BODIES_OF_NETWORK: usize = 8;

/// Time that a large body waits for a permit before its call is refused.
const LARGE_BODY_PATIENCE: Duration = Duration::from_secs(3);

/// State and limits of the proxy.
pub struct Proxy {
    /// The backend of the media API.
    pub upstream: Arc<Upstream>,
    /// The TURN credentials.
    pub turn: TurnCredentials,
    /// The calls that are made.
    calls: Arc<CheckedCalls>,
    http: Arc<HttpContext>,
    lock: Lock,
    rates: KeyedLimit<SessionId>,
    sessions: UserRate,
    concurrent_calls: KeyedLimit<IdentityId>,
    large_bodies: ConcurrencyLimit,
    body_bytes: usize,
    timeout: Duration,
}

/// Setting that binds a session to the identity that opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    On,
    Off,
}

impl Proxy {
    /// Creates a proxy for these calls.
    pub fn new(
        calls: Arc<CheckedCalls>,
        settings: &Calls,
        limits: &LimitsConfig,
        http: Arc<HttpContext>,
    ) -> Self {
        let upstream = calls.upstream().clone();
        Self {
            calls,
            http,
            turn: TurnCredentials::new(upstream.clone()),
            upstream,
            lock: if settings.session_lock { Lock::On } else { Lock::Off },
            rates: KeyedLimit::rate(Rate::per_second(limits.calls_per_second)),
            sessions: UserRate::new(
                Rate::per_minute(limits.new_sessions_per_minute),
                Rate::per_minute(limits.new_sessions_per_minute_per_network),
            ),
            concurrent_calls: KeyedLimit::concurrent(limits.calls_per_identity),
            large_bodies: ConcurrencyLimit::new(LARGE_BODIES, LARGE_BODIES_OF_NETWORK),
            body_bytes: limits.call_bytes,
            timeout: settings.timeout,
        }
    }

    /// The query parameters of a client's calls from a room: those of the settings, and the room where it matters.
    pub fn parameters(&self, settings: Option<&str>, room: Option<&RoomName>) -> Option<String> {
        let of_room = room.and_then(|room| self.upstream.room_parameter(room));
        let both = [settings.map(|all| all.trim_end_matches('&').to_owned()), of_room];
        let both: Vec<String> = both.into_iter().flatten().filter(|part| !part.is_empty()).collect();
        (!both.is_empty()).then(|| both.join("&"))
    }

    /// Prunes rate limit entries of idle sessions, identities and networks, which would otherwise accumulate.
    pub fn prune(&self) {
        self.rates.prune();
        self.sessions.prune();
        self.calls.access().prune(now().into_std());
    }

    /// Checks the rate limits of this call by `identity`.
    fn check_rate(
        &self,
        target: &CallTarget,
        identity: &IdentityId,
        network: Option<ClientNetwork>,
    ) -> Result<(), CallFailure> {
        match target {
            CallTarget::NewSession => {
                self.sessions.check(identity, network).map_err(|exceeded| match exceeded {
                    RateExceeded::Identity => CallFailure::TooManySessions,
                    RateExceeded::Network => CallFailure::TooManySessionsOfNetwork,
                })
            }
            CallTarget::Session { session, .. } => {
                self.rates.check(session).map_err(|_| CallFailure::TooManyCalls)
            }
        }
    }

    /// Acquires the permit to read a large body; it waits a few seconds for one.
    async fn large_body(&self, network: Option<ClientNetwork>) -> Result<ConcurrencyPermit, UpstreamError> {
        let permit = self.large_bodies.acquire_many(network, 1, LARGE_BODY_PATIENCE).await;
        permit.ok_or(UpstreamError::RequestsBusy)
    }

    /// Reads the body of a call as a whole, so that a slow client does not occupy the media API. The timeout of the
    /// call itself begins after it: a client that uses all of its time must not count as a failure of the API.
    ///
    /// # Errors
    /// [`UpstreamError`] if it is too long, too slow or incomplete, or if too many large ones are in memory.
    pub(super) async fn read(
        &self,
        body: Body,
        network: Option<ClientNetwork>,
    ) -> Result<RequestBody, UpstreamError> {
        self.read_up_to(self.body_bytes, body, network).await
    }

    async fn read_up_to(
        &self,
        limit: usize,
        mut body: Body,
        network: Option<ClientNetwork>,
    ) -> Result<RequestBody, UpstreamError> {
        if body.size_hint().lower() > limit as u64 {
            return Err(UpstreamError::RequestTooLong);
        }
        let read = async {
            let mut bytes = BytesMut::new();
            let mut permit = None;
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|_| UpstreamError::RequestBroken)?;
                let Ok(chunk) = frame.into_data() else { continue };
                if bytes.len() + chunk.len() > limit {
                    return Err(UpstreamError::RequestTooLong);
                }
                if bytes.len() + chunk.len() > SMALL_BYTES && permit.is_none() {
                    permit = Some(self.large_body(network).await?);
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(RequestBody { bytes: bytes.freeze(), _permit: permit })
        };
        timeout(self.timeout, read).await.unwrap_or(Err(UpstreamError::RequestTooSlow))
    }
}

/// The body of a call in memory.
#[derive(Debug)]
pub(super) struct RequestBody {
    pub(super) bytes: Bytes,
    /// The permit of a large body, held while it is in memory.
    _permit: Option<ConcurrencyPermit>,
}

/// `/api/calls/*`: the media API for older clients.
pub async fn api_calls(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let (head, body) = into_parts(request);
    let Some(target) = Mount::ApiCalls.target(&head) else {
        return api_failure(&proxy, CallFailure::NotFound);
    };
    let answer = async {
        let admitted = admit(&proxy, Mount::ApiCalls, &head, &target).await?;
        let body = proxy.read(body, network(&head)).await?;
        forward(&proxy, &head, &target, admitted, body).await
    };
    answer.await.unwrap_or_else(|failure| api_failure(&proxy, failure))
}

/// `/partytracks/*`: the media API and the ICE servers for the library of that name.
pub async fn partytracks(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let (head, body) = into_parts(request);
    if head.method == Method::GET && head.uri.path() == "/partytracks/generate-ice-servers" {
        return ice_servers(&proxy, &head).await;
    }
    let Some(target) = Mount::Partytracks.target(&head) else {
        return api_failure(&proxy, CallFailure::NotFound);
    };
    let mut asked = TracksRequest::Unknown;
    let answer = async {
        let admitted = admit(&proxy, Mount::Partytracks, &head, &target).await;
        // The recoverable error depends on the tracks, so such a request is also read if it is refused, but only as
        // far as it needs no permit.
        let limit = if admitted.is_ok() { proxy.body_bytes } else { SMALL_BYTES };
        let has_tracks = matches!(target, CallTarget::Session { action: Action::NewTracks, .. });
        if !has_tracks && let Err(failure) = admitted {
            return Err(failure);
        }
        let body = proxy.read_up_to(limit, body, network(&head)).await;
        if has_tracks {
            asked = body.as_ref().map_or(TracksRequest::Unknown, |body| TracksRequest::read(&body.bytes));
        }
        forward(&proxy, &head, &target, admitted?, body?).await
    };
    match answer.await {
        Ok(response) => heal_answer(&proxy, &target, &asked, response).await,
        Err(failure) => healing_failure(&proxy, &target, &asked, failure),
    }
}

/// Splits a request; a body of a GET has no meaning (RFC 9110 section 9.3.1) and is not read.
fn into_parts(request: Request) -> (request::Parts, Body) {
    let (head, body) = request.into_parts();
    let body = if head.method == Method::GET { Body::empty() } else { body };
    (head, body)
}

/// The network that a call is charged to, if known.
fn network(head: &request::Parts) -> Option<ClientNetwork> {
    head.extensions.get::<RemotePeer>().and_then(RemotePeer::network)
}

async fn caller(proxy: &Proxy, head: &request::Parts) -> Result<Identity, CallFailure> {
    let peer = head.extensions.get::<RemotePeer>().ok_or(CallFailure::NoIdentity)?;
    match proxy.http.identities.identify(&head.headers, peer, wall_clock()).await {
        Identified::User { identity, .. } => Ok(identity),
        Identified::Anonymous if proxy.http.identities.takes_names() => Err(CallFailure::NoIdentity),
        Identified::Anonymous => Err(CallFailure::LoginRequired),
    }
}

/// An admitted call.
struct Admitted {
    mount: Mount,
    caller: IdentityId,
    grants: Grants,
    permit: Permit<IdentityId>,
    /// The session whose cookie is due for renewal, and the state of its proof.
    renewal: Option<(SessionId, LockState)>,
}

/// Authenticates the caller and checks its permissions and limits.
async fn admit(
    proxy: &Proxy,
    mount: Mount,
    head: &request::Parts,
    target: &CallTarget,
) -> Result<Admitted, CallFailure> {
    let Identity { id: caller, grants, .. } = caller(proxy, head).await?;
    if let Some(missing) = proxy.upstream.missing() {
        return Err(UpstreamError::NotConfigured(missing).into());
    }
    let mut renewal = None;
    if let (Lock::On, CallTarget::Session { session, .. }) = (proxy.lock, target) {
        let key = proxy.http.identities.signing_key();
        let proof = session_lock::proof(key, session, &caller, &head.headers, wall_clock());
        match proof.ok_or(CallFailure::NotYourSession)? {
            LockState::Fresh => {}
            due @ (LockState::Aging | LockState::Old) => renewal = Some((session.clone(), due)),
        }
    }
    proxy.check_rate(target, &caller, network(head))?;
    let permit = proxy.concurrent_calls.acquire(&caller).map_err(|_| CallFailure::TooManyAtOnce)?;
    Ok(Admitted { mount, caller, grants, permit, renewal })
}

/// Forwards a call and returns its answer.
async fn forward(
    proxy: &Proxy,
    head: &request::Parts,
    target: &CallTarget,
    admitted: Admitted,
    body: RequestBody,
) -> Result<Response, CallFailure> {
    let Admitted { mount, caller, grants, permit, renewal } = admitted;
    let call = Call {
        target: target.clone(),
        caller: Caller::Person((&caller).into()),
        network: network(head),
        query: head.uri.query().map(str::to_owned),
        body: body.bytes.clone(),
    };
    let rights = CallerRights { publish: grants.publish, subscribe: grants.subscribe };
    let mut answer = proxy.calls.call(call, rights).await?;
    drop(body);
    let mut session = renewal;
    let is_locked = proxy.lock == Lock::On;
    let opens = *target == CallTarget::NewSession && answer.status.is_success() && is_locked;
    // A short answer of known length arrives with its headers, and is sent in one piece with ours.
    let is_short = answer.body.size_hint().exact().is_some_and(|bytes| bytes <= SMALL_BYTES as u64);
    if opens || is_short {
        let body = answer.body.collect().await.map_err(|_| UpstreamError::BadAnswer)?.to_bytes();
        if opens && let Some(new) = new_session(&body) {
            session = Some((new, LockState::Fresh));
        }
        answer.body = body.into();
    }
    let mut response = pass_on(answer, permit);
    if let (Some((session, proof)), Some(peer)) = (session, head.extensions.get::<RemotePeer>()) {
        let (key, path) = (proxy.http.identities.signing_key(), mount.path());
        let new = session_lock::set_cookie(key, &session, &caller, path, peer, wall_clock());
        let is_old = proof == LockState::Old;
        let removed = is_old.then(|| session_lock::remove_old_cookie(&session, path, peer));
        for cookie in [new].into_iter().chain(removed) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }
    Ok(response)
}

/// Returns the answer, holding the call's permit until the last byte was forwarded.
fn pass_on(answer: Answer, permit: Permit<IdentityId>) -> Response {
    let body = answer.body.map_err(move |error| {
        let _until_the_end = &permit;
        error
    });
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// Replaces the body of an answer that contains a failure by one from which the library recovers. A successful
/// answer is forwarded unchanged.
async fn heal_answer(
    proxy: &Proxy,
    target: &CallTarget,
    asked: &TracksRequest,
    response: Response,
) -> Response {
    let may_hide = match target {
        CallTarget::NewSession => true,
        CallTarget::Session { action, .. } => {
            matches!(action, Action::NewTracks | Action::Renegotiate | Action::CloseTracks)
        }
    };
    let status = response.status();
    if status.is_success() && !may_hide {
        return response;
    }
    let (head, body) = response.into_parts();
    let Ok(body) = body.collect().await else {
        return healing_failure(proxy, target, asked, UpstreamError::BadAnswer.into());
    };
    let body = body.to_bytes();
    let Some(RecoverableBody { content_type, text }) = recovery::answer(target, asked, status, &body) else {
        return Response::from_parts(head, body.into());
    };
    let mut response = Response::from_parts(head, text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

async fn ice_servers(proxy: &Proxy, head: &request::Parts) -> Response {
    let turn = &proxy.turn;
    let fallback = Bytes::from_static(turn.without_turn().as_bytes());
    // A client requests them once per session, so the rate limit of new sessions applies.
    let admitted = match caller(proxy, head).await {
        Ok(Identity { id, .. }) => proxy.check_rate(&CallTarget::NewSession, &id, network(head)).map(|()| id),
        Err(nobody) => Err(nobody),
    };
    let (status, servers) = match admitted {
        // Many clients connect without TURN, and a client that reads a failure may give up.
        Ok(identity) => (StatusCode::OK, turn.ice_servers(&identity).await.unwrap_or(fallback)),
        // The library never reads the status; without a list no client connects.
        Err(failure) => {
            Metrics::count(&proxy.http.metrics.refusals, failure.label());
            (failure.status(), fallback)
        }
    };
    (status, [(CONTENT_TYPE, JSON), (CACHE_CONTROL, NO_STORE)], servers).into_response()
}

/// Formats a failure as the media API does.
fn api_failure(proxy: &Proxy, failure: CallFailure) -> Response {
    refuse(proxy, failure, JSON, serde_json::json!(failure.to_api()).to_string())
}

/// Formats a failure from which the library recovers.
fn healing_failure(
    proxy: &Proxy,
    target: &CallTarget,
    asked: &TracksRequest,
    failure: CallFailure,
) -> Response {
    let RecoverableBody { content_type, text } = recovery::failure(target, asked, &failure.to_api());
    refuse(proxy, failure, HeaderValue::from_static(content_type), text)
}

fn refuse(proxy: &Proxy, failure: CallFailure, content_type: HeaderValue, body: String) -> Response {
    Metrics::count(&proxy.http.metrics.refusals, failure.label());
    let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, NO_STORE)];
    let mut response = (failure.status(), headers, body).into_response();
    if let Some(seconds) = failure.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
