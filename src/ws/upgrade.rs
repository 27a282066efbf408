//! From an HTTP request to a seat: identity, limits and the seat itself before the upgrade.
//!
//! Refusals come as plain HTTP answers, because a client keeps what it wants to send over a refused
//! upgrade and loses it over a socket that is closed at once (protocol section 1).

use std::sync::{Arc, PoisonError};

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::header::{SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SET_COOKIE, UPGRADE};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{debug, warn};
use tungstenite::handshake::server::create_response;
use url::form_urlencoded;

use super::connection::Connection;
use super::extension::{Compression, Malformed};
use crate::http::app::{App, wall_clock};
use crate::http::error::ApiError;
use crate::id::{InvalidId, MeetingId, RoomName, UserId};
use crate::identity::Asked;
use crate::identity::peer::Peer;
use crate::metrics::Metrics;
use crate::protocol::deflate::Form;
use crate::room::io::Gone;
use crate::room::io::Join;
use crate::room::mailbox::Command;

/// `GET /parties/rooms/{room}?_pk={id}` with an upgrade to WebSocket.
pub async fn upgrade(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    match take_seat(&app, &peer, request).await {
        Ok(response) => response,
        Err(error) => {
            Metrics::count(&app.metrics.refusals, error.label());
            debug!(event = "upgradeRefused", reason = error.label(), address = %peer.address);
            if let (Some(setting), Some(network)) = (error.network_limit(), peer.network())
                && app.warnings.check().is_ok()
            {
                warn!(event = "networkLimitReached", %network, setting);
            }
            if error == ApiError::UpgradeLost && upgrade_was_lost(&app, &peer) {
                warn!(
                    event = "upgradeLost",
                    address = %peer.address,
                    "a socket's request came without its Upgrade header: what stands in front of this server \
                     does not pass WebSockets on, and nobody gets into a room through it"
                );
            }
            error.into_response()
        }
    }
}

/// Remembers from where a request came that had lost its Upgrade; gives back whether it is the first.
fn upgrade_was_lost(app: &App, peer: &Peer) -> bool {
    let mut from = app.upgrade_lost_from.lock().unwrap_or_else(PoisonError::into_inner);
    from.replace(peer.address).is_none()
}

async fn take_seat(app: &Arc<App>, peer: &Peer, request: Request) -> Result<Response, ApiError> {
    let (room, user) = address(request.uri(), request.headers()).map_err(|error| {
        // A page cannot see why its socket was refused, but it can ask for the same address again.
        let lost_from = app.upgrade_lost_from.lock().unwrap_or_else(PoisonError::into_inner);
        let was_lost = error == ApiError::NotFound && *lost_from == Some(peer.address);
        if was_lost && is_rooms(request.uri()) { ApiError::UpgradeLost } else { error }
    })?;
    let asked = app.identities.identify(request.headers(), peer, wall_clock()).await;
    let Asked::Known { identity, renew, .. } = asked else {
        return Err(app.nobody());
    };
    let (mut parts, _) = request.into_parts();
    // Absent where the connection cannot be upgraded, as in HTTP/2.
    let on_upgrade = parts.extensions.remove::<OnUpgrade>().ok_or(ApiError::InvalidHandshake)?;
    let compression = match Compression::negotiate(&parts.headers) {
        // What is malformed is to be refused (RFC 6455 sections 4.2.1 and 9.1), compressing or not.
        Err(Malformed) => return Err(ApiError::InvalidHandshake),
        Ok(compression) => compression.filter(|_| app.socket_compression),
    };
    let handshake =
        create_response(&Request::from_parts(parts, ())).map_err(|_| ApiError::InvalidHandshake)?;
    app.charge.warn_once(peer);
    let network = peer.network();
    let place = app.admission.enter(network)?;

    let connection = app.sockets.next_id();
    let join = Join {
        connection,
        user,
        identity: identity.id,
        name: identity.name,
        network,
        form: if compression.is_some() { Form::Deflated } else { Form::Plain },
        new_meeting: MeetingId::random(),
    };
    // The join belongs to the socket's task, not to this request: a request can be dropped at any
    // moment, and a seat that was taken for it would stay taken.
    let (joined, answer) = oneshot::channel();
    let serve = {
        let app = app.clone();
        async move {
            let seat = match app.registry.join(&room, join).await {
                Ok(seat) => seat,
                Err(refusal) => {
                    let _ = joined.send(Err(refusal));
                    return;
                }
            };
            let mailbox = seat.mailbox.clone();
            // Fails if nobody waits for the answer; then there is no upgrade either.
            let _ = joined.send(Ok(()));
            let (limits, metrics) = (app.connection_limits.clone(), app.metrics.clone());
            match timeout(app.handshake, on_upgrade).await {
                Ok(Ok(stream)) => {
                    Connection::new(connection, TokioIo::new(stream), seat, limits, metrics).run().await;
                }
                // A room that is gone needs no goodbye.
                _ => {
                    drop(mailbox.send(Command::Disconnected(Gone { connection, is_page_left: false })).await)
                }
            }
            drop(place);
        }
    };
    // Boxed, since each future that wraps another holds room for it twice: before and while it runs.
    let serve = Box::pin(serve);
    let abort = app.sockets.abort.clone();
    app.sockets.tasks.spawn(async move { abort.run_until_cancelled(serve).await });
    answer.await.map_err(|_| ApiError::Internal)??;

    let mut response = handshake.map(|()| Body::empty());
    if let Some(compression) = compression {
        response.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, compression.answer());
    }
    if let Some(cookie) = renew {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Reads the room and the claimed id; everything that is no room's socket is not found.
fn is_rooms(uri: &Uri) -> bool {
    uri.path().trim_start_matches('/').starts_with("parties/rooms/")
}

fn address(uri: &Uri, headers: &HeaderMap) -> Result<(RoomName, UserId), ApiError> {
    // All that follows: `partysocket` writes a room's name as it is, slashes too, and x/standup and
    // x/retro are two rooms.
    let room = uri.path().trim_start_matches('/').strip_prefix("parties/rooms/");
    let room = room.ok_or(ApiError::NotFound)?.trim_end_matches('/');
    if !headers.contains_key(UPGRADE) {
        let was_lost = headers.contains_key(SEC_WEBSOCKET_KEY);
        return Err(if was_lost { ApiError::UpgradeLost } else { ApiError::NotFound });
    }
    // A lone % stands for itself: `partysocket` writes the name into the address as it is, and browsers
    // leave such a % alone. The stock client could not enter a room called "50% off" otherwise.
    let room = percent_decode_str(room).decode_utf8().map_err(|_| InvalidId::RoomName)?;
    let room = RoomName::parse(&room)?;
    let query = uri.query().unwrap_or_default();
    let user = match form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "_pk") {
        Some((_, id)) => UserId::parse(&id)?,
        None => UserId::random(),
    };
    Ok((room, user))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn all_that_follows_is_the_rooms_name() {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        let room =
            |uri: &'static str| address(&Uri::from_static(uri), &headers).map(|(room, _)| room.to_string());
        assert_eq!(room("/parties/rooms/caf%C3%A9%2F1/x/y/?_pk=a"), Ok("café/1/x/y".to_owned()));
        assert_eq!(room("/parties/rooms/a"), Ok("a".to_owned()));
        assert_eq!(room("/parties/rooms/50%%20off"), Ok("50% off".to_owned()));
        assert_eq!(room("/parties/rooms/"), Err(ApiError::InvalidId(InvalidId::RoomName)));
        assert_eq!(room("/parties/rooms/%ff"), Err(ApiError::InvalidId(InvalidId::RoomName)));
        assert_eq!(room("/parties/rooms/a?_pk=ai"), Err(ApiError::InvalidId(InvalidId::UserId)));
        assert_eq!(room("/parties/rooms"), Err(ApiError::NotFound));
        assert_eq!(room("/parties/main/a"), Err(ApiError::NotFound));
        let plain = address(&Uri::from_static("/parties/rooms/a"), &HeaderMap::new());
        assert_eq!(plain.map(|_| ()), Err(ApiError::NotFound));
    }
}
