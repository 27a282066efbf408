//! The WebSocket handshake (RFC 6455 section 4.2), which all protocols share.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    SET_COOKIE, UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version};
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use tracing::{debug, warn};
use tungstenite::handshake::server::create_response;

use super::Sockets;
use super::extension::{Compression, Malformed};
use crate::auth::access_token::SUBPROTOCOL;
use crate::auth::peer::RemotePeer;
use crate::http::context::HttpContext;
use crate::http::error::ApiError;
use crate::http::listener::SocketPeer;
use crate::metrics::Metrics;
use crate::network::ClientNetwork;
use crate::protocol::deflate::Encoding;

/// `Sec-Fetch-Mode`, by which browsers mark a script's request for a WebSocket.
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// A valid handshake, before its answer.
pub(super) struct Handshake {
    on_upgrade: OnUpgrade,
    answer: Response,
    compression: Option<Compression>,
}

impl Handshake {
    /// Checks the request, and negotiates compression if that is enabled.
    ///
    /// # Errors
    /// [`ApiError::InvalidHandshake`].
    pub(super) fn new(request: Request, compresses: bool) -> Result<Self, ApiError> {
        let (mut parts, _) = request.into_parts();
        let names_ours = has_token(&parts.headers, &SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
        // Absent if the connection cannot be upgraded, as in HTTP/2.
        let on_upgrade = parts.extensions.remove::<OnUpgrade>().ok_or(ApiError::InvalidHandshake)?;
        let compression = match Compression::negotiate(&parts.headers) {
            // A malformed header must be refused (RFC 6455 sections 4.2.1 and 9.1), even if compression
            // is disabled.
            Err(Malformed) => return Err(ApiError::InvalidHandshake),
            Ok(compression) => compression.filter(|_| compresses),
        };
        let answer =
            create_response(&Request::from_parts(parts, ())).map_err(|_| ApiError::InvalidHandshake)?;
        let mut answer = answer.map(|()| Body::empty());
        if let Some(compression) = compression {
            answer.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, compression.answer());
        }
        if names_ours {
            answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        Ok(Self { on_upgrade, answer, compression })
    }

    /// The encoding that both sides may use.
    pub(super) fn encoding(&self) -> Encoding {
        if self.compression.is_some() { Encoding::Deflate } else { Encoding::Identity }
    }

    /// The stream after the answer, and the answer.
    pub(super) fn split(self) -> (OnUpgrade, Response) {
        (self.on_upgrade, self.answer)
    }
}

/// Adds a renewed cookie to an answer.
pub(super) fn with_renewal(mut answer: Response, cookie: Option<HeaderValue>) -> Response {
    if let Some(cookie) = cookie {
        answer.headers_mut().insert(SET_COOKIE, cookie);
    }
    answer
}

/// Counts and logs the refusal of an upgrade.
pub(super) fn report_refusal(
    http: &HttpContext,
    sockets: &Sockets,
    (peer, socket): (&RemotePeer, &SocketPeer),
    error: ApiError,
) {
    Metrics::count(&http.metrics.refusals, error.label());
    debug!(event = "upgradeRefused", reason = error.label(), address = %peer.address);
    warn_of_network_limit(http, peer.network(), error);
    if error == ApiError::UpgradeLost && sockets.refusals.is_first_lost_upgrade() {
        warn!(
            event = "upgradeLost",
            address = %socket.address.ip(),
            mend = "let it pass Upgrade and Connection on, over HTTP/1.1",
            "a proxy drops the Upgrade header of WebSockets: nobody can join a room through it",
        );
    }
}

/// Warns if the refusal is due to a limit of the client's network, which several people may share.
pub(super) fn warn_of_network_limit(http: &HttpContext, network: Option<ClientNetwork>, error: ApiError) {
    if let (Some(setting), Some(network)) = (error.network_limit(), network)
        && http.warnings.check().is_ok()
    {
        warn!(event = "networkLimitReached", %network, setting);
    }
}

/// True if a request for a WebSocket lost its upgrade on the way, as in a proxy that is not
/// configured to forward it, or that speaks HTTP/1.0 or 2 with one of the two sides.
///
/// Scripts cannot set any of the headers that identify such a request, so another page cannot make
/// a client get this answer.
pub(super) fn lost_upgrade(request: &Request) -> bool {
    let headers = request.headers();
    let is_websocket = headers.contains_key(SEC_WEBSOCKET_KEY)
        || headers.contains_key(SEC_WEBSOCKET_VERSION)
        || headers.get(SEC_FETCH_MODE).is_some_and(|mode| mode == "websocket");
    let arrived = request.version() == Version::HTTP_11
        && has_token(headers, &CONNECTION, "upgrade")
        && has_token(headers, &UPGRADE, "websocket");
    is_websocket && !arrived
}

/// True if a header that is a list of tokens has this one, case-insensitively.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|found| found.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn websocket_whose_upgrade_is_incomplete_lost_it() {
        let whole = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let lost = |version, headers: &[(&str, &str)]| {
            let request = Request::builder().version(version);
            let request =
                headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            lost_upgrade(&request.body(Body::empty()).unwrap())
        };
        assert!(!lost(Version::HTTP_11, &[whole[0], whole[1], key]));
        assert!(lost(Version::HTTP_10, &[whole[0], whole[1], key]), "nginx without proxy_http_version 1.1");
        assert!(lost(Version::HTTP_11, &[whole[1], key]), "nginx without Connection");
        assert!(lost(Version::HTTP_11, &[("connection", "close"), whole[1], key]));
        assert!(lost(Version::HTTP_11, &[whole[0], key]));
        assert!(lost(Version::HTTP_11, &[key]));
        assert!(lost(Version::HTTP_11, &[("sec-websocket-version", "13")]), "HTTP/2 has no key (RFC 8441)");
        assert!(lost(Version::HTTP_11, &[("sec-fetch-mode", "websocket")]));
        assert!(!lost(Version::HTTP_11, &[("sec-fetch-mode", "cors")]));
        assert!(!lost(Version::HTTP_11, &[]), "a plain GET asks for no WebSocket");
    }
}
