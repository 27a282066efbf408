//! From an HTTP request to a socket of Phoenix Channels: version, identity and limits.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::header::{ORIGIN, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use url::form_urlencoded;

use super::super::Sockets;
use super::super::connection::{Connection, ConnectionLimits};
use super::super::handshake::{Handshake, lost_upgrade, report_refusal, with_renewal};
use super::super::refusals::too_many_sockets;
use super::super::session::Session;
use super::KEEP_ALIVE;
use super::client::{SocketClient, SocketUser};
use super::session::PhoenixSession;
use crate::auth::peer::RemotePeer;
use crate::auth::{Auth, Identities};
use crate::clock::wall_clock;
use crate::http::context::HttpContext;
use crate::http::error::ApiError;
use crate::http::listener::SocketPeer;
use crate::metrics::ByOutcome;
use crate::protocol::phoenix::Version;
use crate::room::io::JoinRefusal;
use crate::room::registry::CannotJoin;

/// Label of this transport in metrics.
const TRANSPORT: &str = "websocket";

/// The subprotocol of clients that send a token as another one.
const PHOENIX: &str = "phoenix";

/// Prefix of the subprotocol that is a token in base64.
const TOKEN_PREFIX: &str = "base64url.bearer.phx.";

/// A token that is malformed, not ours, or expired.
const INVALID_TOKEN: ApiError = ApiError::refused(
    StatusCode::UNAUTHORIZED,
    "invalid_token",
    "the token is invalid or has expired; POST /api/socket-token answers with a new one",
);

/// Offers of subprotocols, none of which is Phoenix's.
const UNKNOWN_SUBPROTOCOL: ApiError =
    ApiError::refused(StatusCode::FORBIDDEN, "unknown_subprotocol", "the only subprotocol is phoenix");

/// `GET {phoenix.path}/websocket?vsn=…` with an upgrade to WebSocket.
pub(super) async fn upgrade(
    State(http): State<Arc<HttpContext>>,
    State(sockets): State<Arc<Sockets>>,
    peer: RemotePeer,
    Extension(socket): Extension<SocketPeer>,
    request: Request,
) -> Result<Response, ApiError> {
    let opened = open(&http, &sockets, &peer, request).await;
    let outcome = opened.as_ref().map_or_else(|error| error.label(), |_| "connected");
    http.metrics.phoenix_connects.get_or_create(&ByOutcome { kind: TRANSPORT, outcome }).inc();
    if let Err(error) = opened {
        report_refusal(&http, &sockets, (&peer, &socket), error);
    }
    opened
}

async fn open(
    http: &Arc<HttpContext>,
    sockets: &Arc<Sockets>,
    peer: &RemotePeer,
    request: Request,
) -> Result<Response, ApiError> {
    let Query { version, mut tokens, answers_pings } = Query::read(request.uri())?;
    if lost_upgrade(&request) {
        return Err(ApiError::UpgradeLost);
    }
    if !request.headers().contains_key(UPGRADE) {
        return Err(ApiError::InvalidHandshake);
    }
    let offered = Subprotocols::read(request.headers())?;
    if sockets.stopping.is_cancelled() {
        return Err(CannotJoin::Refused(JoinRefusal::ShuttingDown).into());
    }
    let token = offered.token.or_else(|| tokens.pop().map(|token| token.into_owned().into_bytes()));
    let (user, renew) = match token {
        Some(token) => (of_token(http, sockets, peer, &token).await?, None),
        None => match http.identities.identify(request.headers(), peer, wall_clock()).await {
            // A page of ours names its origin, which was checked. Other clients have tokens.
            Auth::User { by, .. }
                if Identities::is_by_cookie(by, request.headers())
                    && !request.headers().contains_key(ORIGIN) =>
            {
                return Err(http.unauthenticated());
            }
            Auth::User { identity, renew, .. } => (SocketUser::User(identity), renew),
            Auth::Anonymous => return Err(http.unauthenticated()),
        },
    };
    let handshake = Handshake::new(request, sockets.compression)?;
    http.charge.warn_once(peer);
    let network = peer.network();
    let permits = sockets.limit.acquire_plain(network).map_err(too_many_sockets)?;
    let share = sockets.arrivals.share(network);

    let lease = user.lease(&http.identities);
    let (encoding, id) = (handshake.encoding(), sockets.tasks.next_id());
    let client = SocketClient { user, network, answers_pings };
    let session = PhoenixSession::new(http.clone(), sockets.clone(), client, (version, encoding), TRANSPORT);
    let limits = ConnectionLimits { keep_alive: Some(KEEP_ALIVE), ..sockets.connection_limits.clone() };
    let (metrics, handshake_timeout) = (http.metrics.clone(), sockets.handshake);
    let (on_upgrade, mut answer) = handshake.split();
    // Boxed, since each future that wraps another reserves space for it twice: before and while it runs.
    let serve = Box::pin(async move {
        let _permits = permits;
        match timeout(handshake_timeout, on_upgrade).await {
            Ok(Ok(stream)) => {
                let transport = (TokioIo::new(stream), encoding);
                let connection = Connection::new(id, transport, session, share, limits, metrics);
                connection.leased(lease).run().await;
            }
            _ => session.end(false).await,
        }
    });
    let abort = sockets.tasks.abort.clone();
    sockets.tasks.tracker.spawn(async move { abort.run_until_cancelled(serve).await });
    if offered.names_phoenix {
        answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PHOENIX));
    }
    Ok(with_renewal(answer, renew))
}

/// The user of a token, or the token itself if it is one of a feature.
pub(super) async fn of_token(
    http: &HttpContext,
    sockets: &Sockets,
    peer: &RemotePeer,
    token: &[u8],
) -> Result<SocketUser, ApiError> {
    let (identities, now) = (&http.identities, wall_clock());
    let identity = match identities.identify_by_socket_token(token, now) {
        None => identities.identify_by_access_token(token, peer.network(), now).await,
        found => found,
    };
    if let Some(identity) = identity {
        return Ok(SocketUser::User(identity));
    }
    let features = sockets.phoenix.as_ref().and_then(|endpoint| endpoint.features.get());
    let is_of_feature = features.is_some_and(|topics| topics.opens_socket(token));
    if is_of_feature { Ok(SocketUser::Token(token.into())) } else { Err(INVALID_TOKEN) }
}

/// The query of an endpoint.
pub(super) struct Query<'a> {
    pub(super) version: Version,
    /// The values of all parameters `token`.
    pub(super) tokens: Vec<Cow<'a, str>>,
    /// False with `pings=false`, for clients that fail at a ping.
    answers_pings: bool,
}

impl<'a> Query<'a> {
    /// Reads the query. Without a `vsn` the version is the first one.
    pub(super) fn read(uri: &'a Uri) -> Result<Self, ApiError> {
        let (mut version, mut tokens, mut answers_pings) = (Version::V1, Vec::new(), true);
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            match &*name {
                "token" => tokens.push(value),
                "pings" => answers_pings = value != "false",
                "vsn" => version = Version::parse(&value).ok_or(UNKNOWN_VERSION)?,
                // A nested parameter.
                name if name.starts_with("vsn[") => return Err(UNKNOWN_VERSION),
                _ => {}
            }
        }
        Ok(Self { version, tokens, answers_pings })
    }
}

const UNKNOWN_VERSION: ApiError = ApiError::InvalidQuery("\"vsn\" is 1.0.0 or 2.0.0");

/// The subprotocols that a client offers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Subprotocols {
    names_phoenix: bool,
    token: Option<Vec<u8>>,
}

impl Subprotocols {
    fn read(headers: &HeaderMap) -> Result<Self, ApiError> {
        let (mut found, mut is_any) = (Self::default(), false);
        for line in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
            for offer in line.to_str().map_err(|_| UNKNOWN_SUBPROTOCOL)?.split(',').map(str::trim) {
                is_any |= !offer.is_empty();
                found.names_phoenix |= offer == PHOENIX;
                if let Some(token) = offer.strip_prefix(TOKEN_PREFIX)
                    && found.token.replace(decoded(token)?).is_some()
                {
                    return Err(INVALID_TOKEN);
                }
            }
        }
        let knows_any = found.names_phoenix || found.token.is_some();
        if is_any && !knows_any { Err(UNKNOWN_SUBPROTOCOL) } else { Ok(found) }
    }
}

/// Decodes a token in base64 of either alphabet: browsers have the standard one only.
fn decoded(token: &str) -> Result<Vec<u8>, ApiError> {
    let standard = token.replace('-', "+").replace('_', "/");
    BASE64_STANDARD_NO_PAD.decode(standard).map_err(|_| INVALID_TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subprotocols(lines: &[&str]) -> Result<(bool, Option<String>), u16> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(line).unwrap());
        }
        let found = Subprotocols::read(&headers).map_err(|error| error.status().as_u16())?;
        Ok((found.names_phoenix, found.token.map(|token| String::from_utf8(token).unwrap())))
    }

    #[test]
    fn token_is_a_subprotocol_in_either_alphabet() {
        let token = Some("a?>b?".to_owned());
        assert_eq!(subprotocols(&[]), Ok((false, None)));
        assert_eq!(subprotocols(&["phoenix"]), Ok((true, None)));
        assert_eq!(subprotocols(&["phoenix, base64url.bearer.phx.YT8+Yj8"]), Ok((true, token.clone())));
        assert_eq!(subprotocols(&["base64url.bearer.phx.YT8-Yj8", "phoenix"]), Ok((true, token.clone())));
        assert_eq!(subprotocols(&["x, base64url.bearer.phx.YT8-Yj8"]), Ok((false, token)));
        assert_eq!(subprotocols(&["graphql-ws, x"]), Err(403));
        assert_eq!(subprotocols(&["phoenix, base64url.bearer.phx.%"]), Err(401));
        assert_eq!(subprotocols(&["base64url.bearer.phx.YQ, base64url.bearer.phx.YQ"]), Err(401));
    }

    #[test]
    fn query_names_version_and_token() {
        let read = |query: &str| {
            let uri = format!("/socket/websocket?{query}").parse().unwrap();
            Query::read(&uri)
                .map(|Query { version, mut tokens, .. }| (version, tokens.pop().map(Cow::into_owned)))
        };
        assert_eq!(read(""), Ok((Version::V1, None)));
        assert_eq!(read("vsn=2.0.0&x[y]=1"), Ok((Version::V2, None)));
        assert_eq!(read("token=a&vsn=2.0.0&token=b%2B"), Ok((Version::V2, Some("b+".to_owned()))));
        for (query, answers) in [("", true), ("pings=true", true), ("pings=false", false)] {
            let uri = format!("/socket/websocket?{query}").parse().unwrap();
            assert_eq!(Query::read(&uri).map(|query| query.answers_pings), Ok(answers));
        }
        for query in ["vsn=3.0.0", "vsn=", "vsn[]=2.0.0", "vsn[a]=2.0.0&vsn=2.0.0"] {
            assert_eq!(read(query), Err(UNKNOWN_VERSION), "{query}");
        }
    }
}
