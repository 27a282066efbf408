//! `{phoenix.path}/longpoll`: Phoenix's transport for clients that no WebSocket reaches.
//!
//! The status of every answer is 200, and the real one is in its body, since that is what clients read. Those that
//! the stock client does not know break it, so that it is told of a temporary refusal by 500, and tries again.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE,
    ORIGIN,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

use super::super::Sockets;
use super::super::connection::{Connection, ConnectionLimits};
use super::super::handshake::warn_of_network_limit;
use super::super::longpoll::body::{InvalidBody, to_frames};
use super::super::longpoll::{
    Chunk, Gone, OpenSession, PIPE_BYTES, POLL_TIME, Polled, SessionToken, serve as serve_session,
};
use super::super::refusals::too_many_sockets;
use super::client::{SocketClient, SocketUser};
use super::session::PhoenixSession;
use super::upgrade::{Query, of_token};
use super::{KEEP_ALIVE, PhoenixEndpoint};
use crate::auth::peer::RemotePeer;
use crate::auth::{Auth, Identities};
use crate::clock::wall_clock;
use crate::http::context::HttpContext;
use crate::http::error::ApiError;
use crate::metrics::{ByOutcome, Metrics};
use crate::protocol::deflate::Encoding;
use crate::room::io::JoinRefusal;
use crate::room::registry::CannotJoin;

/// Label of this transport in metrics.
const TRANSPORT: &str = "longpoll";

/// A session's token, in place of the parameter.
const SESSION_TOKEN: HeaderName = HeaderName::from_static("x-phoenix-longpoll-token");

/// A user's token, in place of the parameter.
const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-phoenix-authtoken");

/// The relation of the requesting page to this server, as the browser tells it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Number of parameters that may be the user's token.
const MAX_TOKENS: usize = 2;

/// Content type of a body with a message on each line.
const NDJSON: &str = "application/x-ndjson";

/// The real status of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PollStatus {
    /// Messages are there, or were handled.
    Done = 200,
    /// No message came in the time of a poll.
    Empty = 204,
    /// The body is malformed.
    Malformed = 400,
    /// The client may not open a session.
    Forbidden = 403,
    /// The messages were not handled in time.
    TimedOut = 408,
    /// The session has ended, or there was none.
    Gone = 410,
    /// The body is too long.
    TooLong = 413,
    /// No session can be opened at the moment.
    Unavailable = 500,
}

/// Any request of long polling.
pub(super) async fn longpoll(
    State(http): State<Arc<HttpContext>>,
    State(sockets): State<Arc<Sockets>>,
    peer: RemotePeer,
    request: Request,
) -> Result<Response, ApiError> {
    let endpoint = sockets.phoenix.as_ref().ok_or(ApiError::NotFound)?;
    let (parts, body) = request.into_parts();
    let method = parts.method.clone();
    if ![Method::GET, Method::POST, Method::OPTIONS].contains(&method) {
        return Ok(answer(StatusCode::BAD_REQUEST, Body::empty()));
    }
    // That of a GET is checked as well: its answer has what the rooms tell the user.
    if http.origins.check(&Method::POST, &parts.headers, &peer).is_err() {
        Metrics::count(&http.metrics.refusals, ApiError::ForeignOrigin.label());
        return Ok(status(PollStatus::Forbidden));
    }
    if method == Method::OPTIONS {
        return Ok(preflight(&parts.headers));
    }
    let limit = sockets.connection_limits.message_bytes;
    let session = poll_token(&parts).and_then(|token| endpoint.longpoll.find(&token));
    Ok(match (session, method) {
        (Some(session), Method::POST) => status(post(session, parts.headers, body, limit).await),
        (None, Method::POST) => {
            drain(body, limit).await;
            status(PollStatus::Gone)
        }
        (Some(session), _) => match session.poll().await {
            Ok(Polled::Messages(chunks)) => messages_answer(&session.token(), chunks),
            Ok(Polled::Nothing) => session_answer(PollStatus::Empty, &session.token()),
            Err(Gone) => open(&http, &sockets, endpoint, &peer, &parts).await,
        },
        (None, _) => open(&http, &sockets, endpoint, &peer, &parts).await,
    })
}

/// The session's token: of the header, or of the last parameter `token` that has its form. Users' tokens are
/// parameters of the same name.
fn poll_token(request: &Parts) -> Option<SessionToken> {
    if let Some(header) = request.headers.get(SESSION_TOKEN) {
        return SessionToken::parse(header.to_str().ok()?);
    }
    let Query { tokens, .. } = Query::read(&request.uri).ok()?;
    tokens.iter().rev().find_map(|token| SessionToken::parse(token))
}

/// Opens a session, and answers with its token as if an older one had ended.
async fn open(
    http: &Arc<HttpContext>,
    sockets: &Arc<Sockets>,
    endpoint: &PhoenixEndpoint,
    peer: &RemotePeer,
    request: &Parts,
) -> Response {
    let opened = try_open(http, sockets, endpoint, peer, request).await;
    let outcome = opened.as_ref().map_or_else(|error| error.label(), |_| "connected");
    http.metrics.phoenix_connects.get_or_create(&ByOutcome { kind: TRANSPORT, outcome }).inc();
    match opened {
        Ok(session) => session_answer(PollStatus::Gone, &session.token()),
        Err(error) => {
            Metrics::count(&http.metrics.refusals, error.label());
            debug!(event = "longpollRefused", reason = error.label(), address = %peer.address);
            warn_of_network_limit(http, peer.network(), error);
            match error.status() {
                StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    status(PollStatus::Forbidden)
                }
                // A client that had a session comes back at once, and finds the next process.
                _ if sockets.stopping.is_cancelled() && poll_token(request).is_some() => {
                    status(PollStatus::Gone)
                }
                _ => status(PollStatus::Unavailable),
            }
        }
    }
}

async fn try_open(
    http: &Arc<HttpContext>,
    sockets: &Arc<Sockets>,
    endpoint: &PhoenixEndpoint,
    peer: &RemotePeer,
    request: &Parts,
) -> Result<Arc<OpenSession>, ApiError> {
    let query = Query::read(&request.uri)?;
    if sockets.stopping.is_cancelled() {
        return Err(CannotJoin::Refused(JoinRefusal::ShuttingDown).into());
    }
    let user = identify(http, sockets, peer, (&request.headers, &query)).await?;
    http.charge.warn_once(peer);
    let network = peer.network();
    let permits = sockets.limit.acquire_plain(network).map_err(too_many_sockets)?;
    let share = sockets.arrivals.share(network);
    // A connection that has lived for long is closed once its last request has had the time of any.
    let poll_time = POLL_TIME.min(http.request_timeout * 9 / 10);
    let (session, listed, poller) =
        endpoint.longpoll.open(poll_time, share.clone()).map_err(|_| ApiError::Internal)?;

    let lease = user.lease(&http.identities);
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    // The client sees no pings: its next poll answers them.
    let client = SocketClient { user, network, answers_pings: true };
    let format = (query.version, Encoding::Identity);
    let phoenix = PhoenixSession::new(http.clone(), sockets.clone(), client, format, TRANSPORT);
    let limits = ConnectionLimits { keep_alive: Some(KEEP_ALIVE), ..sockets.connection_limits.clone() };
    let pipe = (ours, Encoding::Identity);
    let id = sockets.tasks.next_id();
    let connection = Connection::new(id, pipe, phoenix, share, limits, http.metrics.clone());
    // Boxed, since each future that wraps another reserves space for it twice: before and while it runs.
    let serve = Box::pin(async move {
        let _permits = permits;
        serve_session(connection.leased(lease).run(), (poller, theirs), listed).await;
    });
    let abort = sockets.tasks.abort.clone();
    sockets.tasks.tracker.spawn(async move { abort.run_until_cancelled(serve).await });
    Ok(session)
}

/// The user of a new session, by a token or as for other requests.
async fn identify(
    http: &HttpContext,
    sockets: &Sockets,
    peer: &RemotePeer,
    (headers, query): (&HeaderMap, &Query<'_>),
) -> Result<SocketUser, ApiError> {
    if let Some(token) = headers.get(AUTH_TOKEN) {
        return of_token(http, sockets, peer, token.as_bytes()).await;
    }
    if let Some(user) = by_parameter(http, sockets, peer, query).await {
        return user;
    }
    // A browser names no origin for a GET of the same one, and no other for an image of a foreign page.
    let is_of_our_page =
        headers.contains_key(ORIGIN) || headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "same-origin");
    match http.identities.identify(headers, peer, wall_clock()).await {
        Auth::User { by, .. } if Identities::is_by_cookie(by, headers) && !is_of_our_page => {
            Err(http.unauthenticated())
        }
        Auth::User { identity, .. } => Ok(SocketUser::User(identity)),
        Auth::Anonymous => Err(http.unauthenticated()),
    }
}

/// The user of a parameter `token`, if there is one that is not a session's. The user's own may stand before the
/// token of a session of another time.
async fn by_parameter(
    http: &HttpContext,
    sockets: &Sockets,
    peer: &RemotePeer,
    query: &Query<'_>,
) -> Option<Result<SocketUser, ApiError>> {
    let mut found = None;
    let tokens = query.tokens.iter().rev().filter(|token| SessionToken::parse(token).is_none());
    for token in tokens.take(MAX_TOKENS) {
        let user = of_token(http, sockets, peer, token.as_bytes()).await;
        if user.is_ok() {
            return Some(user);
        }
        found = Some(user);
    }
    found
}

/// Hands the messages of a body of at most `limit` bytes on.
async fn post(session: Arc<OpenSession>, headers: HeaderMap, body: Body, limit: usize) -> PollStatus {
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let announced: usize = announced.unwrap_or(limit);
    if announced > limit {
        drain(body, limit).await;
        return PollStatus::TooLong;
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|content_type| content_type.to_str().ok());
    let is_ndjson = content_type
        .and_then(|content_type| content_type.split(';').next())
        .is_some_and(|content_type| content_type.trim().eq_ignore_ascii_case(NDJSON));
    let handed_on = hand_on(session, body, announced, is_ndjson);
    timeout(POLL_TIME, handed_on).await.unwrap_or(PollStatus::TimedOut)
}

async fn hand_on(session: Arc<OpenSession>, body: Body, limit: usize, is_ndjson: bool) -> PollStatus {
    // The body, and then its messages as frames.
    let permit = session.share.clone().acquire_whole(limit.saturating_mul(2)).await;
    let frames = match read(body, limit).await {
        Ok(body) => to_frames(&body, is_ndjson),
        Err(refused) => return refused,
    };
    match frames {
        Ok(frames) => match session.post(frames, permit).await {
            Ok(()) => PollStatus::Done,
            Err(Gone) => PollStatus::Gone,
        },
        Err(InvalidBody::Malformed) => PollStatus::Malformed,
        Err(InvalidBody::TooMany) => PollStatus::TooLong,
    }
}

/// Reads a body of at most `limit` bytes.
async fn read(body: Body, limit: usize) -> Result<BytesMut, PollStatus> {
    let mut chunks = body.into_data_stream();
    let mut whole = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| PollStatus::Malformed)?;
        if whole.len() + chunk.len() > limit {
            return Err(PollStatus::TooLong);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole)
}

/// Discards a body, whose client may not see an answer before it has sent all.
async fn drain(body: Body, limit: usize) {
    let _ = timeout(POLL_TIME, discard(body, limit)).await;
}

async fn discard(body: Body, limit: usize) {
    let (mut chunks, mut left) = (body.into_data_stream(), limit);
    while let Some(Ok(chunk)) = chunks.next().await
        && chunk.len() <= left
    {
        left -= chunk.len();
    }
}

/// The answer to a browser that asks for permission to send a request of another origin.
fn preflight(headers: &HeaderMap) -> Response {
    let mut response = answer(StatusCode::OK, Body::empty());
    let allowed = response.headers_mut();
    allowed.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("get, post, options"));
    allowed.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
    if let Some(asked) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        allowed.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    response
}

fn status(status: PollStatus) -> Response {
    answer(StatusCode::OK, format!(r#"{{"status":{}}}"#, status as u16))
}

fn session_answer(status: PollStatus, token: &str) -> Response {
    let body = format!(r#"{{"status":{},"token":"{token}","messages":[]}}"#, status as u16);
    answer(StatusCode::OK, body)
}

/// The answer with messages, each a text that holds a frame. It is written as they come; if they break off, so does
/// the answer, and its client knows that it has not all of them.
fn messages_answer(token: &str, chunks: mpsc::Receiver<Chunk>) -> Response {
    let head = format!(r#"{{"status":200,"token":"{token}","messages":["#);
    let rest = stream::unfold(Some(chunks), async |chunks| {
        let mut chunks = chunks?;
        Some(match chunks.recv().await {
            Some(Chunk { bytes, is_last: false }) => (Ok(bytes), Some(chunks)),
            Some(Chunk { bytes, is_last: true }) => (Ok([&bytes[..], b"]}"].concat().into()), None),
            None => (Err(io::ErrorKind::UnexpectedEof), None),
        })
    });
    let body = Body::from_stream(
        stream::iter([Ok(Bytes::from(head))]).chain(rest.map(|chunk| chunk.map_err(io::Error::from))),
    );
    answer(StatusCode::OK, body)
}

/// An answer, which any origin may read: the request's was checked.
fn answer(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}
