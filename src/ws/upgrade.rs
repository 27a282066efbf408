//! From an HTTP request to a membership: identity, limits and the join itself precede the upgrade.
//!
//! Refusals are plain HTTP answers, because a client keeps its outgoing messages over a refused
//! upgrade and loses them over a socket that is closed at once (protocol section 1).

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::Uri;
use axum::http::header::UPGRADE;
use axum::middleware::Next;
use axum::response::Response;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::sync::oneshot;
use tokio::time::timeout;
use url::form_urlencoded;

use super::Sockets;
use super::connection::Connection;
use super::handshake::{Handshake, lost_upgrade, report_refusal, with_renewal};
use super::lease::lease;
use super::orange_session::OrangeSession;
use super::refusals::too_many_sockets;
use crate::auth::Auth;
use crate::auth::peer::RemotePeer;
use crate::clock::wall_clock;
use crate::http::context::HttpContext;
use crate::http::error::ApiError;
use crate::http::listener::SocketPeer;
use crate::id::{InvalidId, MeetingId, RoomName, UserId};
use crate::room::io::{Join, Liveness};

/// `GET /parties/rooms/{room}?_pk={id}` with an upgrade to WebSocket; with `&why` and without an
/// upgrade, the last refusal of this `_pk`.
pub async fn upgrade(
    State(http): State<Arc<HttpContext>>,
    State(sockets): State<Arc<Sockets>>,
    peer: RemotePeer,
    Extension(socket): Extension<SocketPeer>,
    request: Request,
) -> Result<Response, ApiError> {
    if asks_why(&request) {
        let last = match claimed_id(request.uri()) {
            Some(user) => sockets.refusals.last(&user).await,
            None => None,
        };
        return Err(last.unwrap_or(ApiError::NotFound));
    }
    let joined = join_room(&http, &sockets, &peer, request).await;
    if let Err(error) = joined {
        report_refusal(&http, &sockets, (&peer, &socket), error);
    }
    joined
}

/// Middleware that stores the refusal of an upgrade for its page; outside of the request guard, whose refusals
/// count as well.
pub async fn store_refusal(State(sockets): State<Arc<Sockets>>, request: Request, next: Next) -> Response {
    let user = claimed_id(request.uri()).filter(|_| !asks_why(&request));
    let response = next.run(request).await;
    if let (Some(user), Some(&error)) = (user, response.extensions().get::<ApiError>()) {
        sockets.refusals.remember(user, error).await;
    }
    response
}

async fn join_room(
    http: &Arc<HttpContext>,
    sockets: &Arc<Sockets>,
    peer: &RemotePeer,
    request: Request,
) -> Result<Response, ApiError> {
    let (room, user) = address(request.uri())?;
    if lost_upgrade(&request) {
        return Err(ApiError::UpgradeLost);
    }
    if !request.headers().contains_key(UPGRADE) {
        return Err(ApiError::NotFound);
    }
    // After the cheap refusals: with Cloudflare Access this verifies a signature, and may wait for its keys.
    let auth = http.identities.identify(request.headers(), peer, wall_clock()).await;
    let Auth::User { identity, renew, .. } = auth else {
        return Err(http.unauthenticated());
    };
    if !identity.may_enter(&room) {
        return Err(ApiError::ForbiddenRoom);
    }
    let handshake = Handshake::new(request, sockets.compression)?;
    http.charge.warn_once(peer);
    let network = peer.network();
    let ticket = sockets.limit.ask(network, &room, &user).map_err(too_many_sockets)?;
    let share = sockets.arrivals.share(network);

    let lease = lease(&http.identities, &identity);
    let connection = sockets.tasks.next_id();
    let join = Join {
        connection,
        user,
        identity: identity.id,
        name: identity.name,
        grants: identity.grants,
        network,
        new_meeting: MeetingId::beginning(wall_clock()),
        presence: false,
        liveness: Liveness::Heartbeat,
        password: None,
    };
    let encoding = handshake.encoding();
    let (on_upgrade, answer_head) = handshake.split();
    // The join belongs to the socket's task, not to this request: a request can be dropped at any
    // moment, and a membership taken for it would stay taken.
    let (joined, answer) = oneshot::channel::<Result<(), ApiError>>();
    let serve = {
        let (http, sockets) = (http.clone(), sockets.clone());
        async move {
            let link = match sockets.registry.join(&room, join, encoding).await {
                Ok(link) => link,
                Err(refusal) => {
                    let _ = joined.send(Err(refusal.into()));
                    return;
                }
            };
            let place = match ticket.redeem().await {
                Ok(place) => place,
                Err(none) => {
                    link.disconnect(false).await;
                    let _ = joined.send(Err(too_many_sockets(none)));
                    return;
                }
            };
            // Fails if nobody waits for the answer; then there is no upgrade either.
            let _ = joined.send(Ok(()));
            let (limits, metrics) = (sockets.connection_limits.clone(), http.metrics.clone());
            // Boxed for the same reason as the task around it (see below).
            let run = Box::pin(async {
                match timeout(sockets.handshake, on_upgrade).await {
                    Ok(Ok(stream)) => {
                        let session = OrangeSession::new(link, sockets.message_limits, metrics.clone());
                        let transport = (TokioIo::new(stream), encoding);
                        let connection =
                            Connection::new(connection, transport, session, share, limits, metrics);
                        connection.leased(lease).run().await;
                    }
                    _ => link.disconnect(false).await,
                }
            });
            tokio::select! {
                () = run => {}
                // The member has another socket, so the room needs no notice of this one's end.
                () = place.given_away() => {}
            }
        }
    };
    // Boxed, since each future that wraps another reserves space for it twice: before and while it runs.
    let serve = Box::pin(serve);
    let abort = sockets.tasks.abort.clone();
    sockets.tasks.tracker.spawn(async move { abort.run_until_cancelled(serve).await });
    answer.await.map_err(|_| ApiError::Internal)??;

    Ok(with_renewal(answer_head, renew))
}

/// True if a page asks for the refusal that its browser did not show it.
fn asks_why(request: &Request) -> bool {
    let query = request.uri().query().unwrap_or_default();
    !request.headers().contains_key(UPGRADE)
        && !lost_upgrade(request)
        && form_urlencoded::parse(query.as_bytes()).any(|(key, _)| key == "why")
}

/// The valid `_pk` in the address of a socket, if any.
pub fn claimed_id(uri: &Uri) -> Option<UserId> {
    let query = uri.path().starts_with("/parties/").then(|| uri.query()).flatten()?;
    let (_, id) = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "_pk")?;
    UserId::parse(&id).ok()
}

/// Parses the room and the claimed id; any other address is not found.
fn address(uri: &Uri) -> Result<(RoomName, UserId), ApiError> {
    // The whole rest: `partysocket` writes a room's name unescaped, slashes too, and x/standup and
    // x/retro are two rooms.
    let room = uri.path().trim_start_matches('/').strip_prefix("parties/rooms/");
    let room = room.ok_or(ApiError::NotFound)?.trim_end_matches('/');
    // A lone % stands for itself: `partysocket` writes the name unescaped into the address, and
    // browsers leave such a % as it is. Otherwise the stock client could not enter a room called "50% off".
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
    use super::*;

    #[test]
    fn room_name_is_the_rest_of_the_path() {
        let room = |uri: &'static str| address(&Uri::from_static(uri)).map(|(room, _)| room.to_string());
        assert_eq!(room("/parties/rooms/caf%C3%A9%2F1/x/y/?_pk=a"), Ok("café/1/x/y".to_owned()));
        assert_eq!(room("/parties/rooms/a"), Ok("a".to_owned()));
        assert_eq!(room("/parties/rooms/50%%20off"), Ok("50% off".to_owned()));
        assert_eq!(room("/parties/rooms/"), Err(ApiError::InvalidId(InvalidId::RoomName)));
        assert_eq!(room("/parties/rooms/%ff"), Err(ApiError::InvalidId(InvalidId::RoomName)));
        assert_eq!(room("/parties/rooms/a?_pk=ai"), Err(ApiError::InvalidId(InvalidId::UserId)));
        assert_eq!(room("/parties/rooms"), Err(ApiError::NotFound));
        assert_eq!(room("/parties/main/a"), Err(ApiError::NotFound));
    }
}
