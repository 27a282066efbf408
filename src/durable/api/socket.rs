//! From an HTTP request to a socket on an object. All checks precede the upgrade.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::SEC_WEBSOCKET_EXTENSIONS;
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tungstenite::handshake::server::create_response;

use super::DurableApi;
use crate::durable::command::Command;
use crate::durable::error::ObjectError;
use crate::durable::keys::KeyNumber;
use crate::durable::session::ObjectSession;
use crate::id::ObjectId;
use crate::protocol::deflate::Encoding;
use crate::ws::connection::{Connection, ConnectionLimits};
use crate::ws::extension::{Compression, Malformed};
use crate::ws::keep_alive::KeepAlive;

/// Clients may be silent for ever, so pings tell whether they are there.
const KEEP_ALIVE: KeepAlive =
    KeepAlive { ping_after: Duration::from_secs(30), close_after: Duration::from_secs(60) };

impl DurableApi {
    /// Subscribes a new socket to an object, and answers its handshake.
    pub(super) async fn upgrade(
        self: &Arc<Self>,
        id: ObjectId,
        key: KeyNumber,
        request: Request,
    ) -> Result<Response, ObjectError> {
        let (mut parts, _) = request.into_parts();
        // Absent if the connection cannot be upgraded, as in HTTP/2, or the client did not ask for it.
        let on_upgrade = parts.extensions.remove::<OnUpgrade>().ok_or(ObjectError::InvalidHandshake)?;
        let compression = match Compression::negotiate(&parts.headers) {
            Err(Malformed) => return Err(ObjectError::InvalidHandshake),
            Ok(compression) => compression.filter(|_| self.sockets.compression),
        };
        let handshake =
            create_response(&Request::from_parts(parts, ())).map_err(|_| ObjectError::InvalidHandshake)?;
        let encoding = if compression.is_some() { Encoding::Deflate } else { Encoding::Identity };
        let full = |_| ObjectError::Full("there are too many sockets");
        // A key is no free identity, so its network is not limited; many objects' sockets come from one backend.
        let permits = (
            self.socket_limit.try_acquire(None).map_err(full)?,
            self.sockets.limit.acquire_plain(None).map_err(full)?,
        );
        let socket = self.sockets.tasks.next_id();
        // The subscription belongs to the socket's task, not to this request, which can be dropped at any moment.
        let (subscribed, answer) = oneshot::channel();
        let api = self.clone();
        let serve = Box::pin(async move {
            let _permits = permits;
            let link = match api.registry.subscribe(&id, socket, encoding).await {
                Ok(link) => link,
                Err(error) => return drop(subscribed.send(Err(error))),
            };
            // Fails if nobody waits for the answer; then there is no upgrade either.
            let _ = subscribed.send(Ok(()));
            let Ok(Ok(stream)) = timeout(api.sockets.handshake, on_upgrade).await else {
                let _ = link.commands.send(Command::Gone(socket)).await;
                return;
            };
            let session = ObjectSession::new(socket, (id, key), link, api.rates.clone(), api.intake.clone());
            let share = api.sockets.arrivals.share(None);
            let keep_alive = Some(KEEP_ALIVE);
            let limits = ConnectionLimits { keep_alive, ..api.sockets.connection_limits.clone() };
            let transport = (TokioIo::new(stream), encoding);
            Connection::new(socket, transport, session, share, limits, api.metrics.clone()).run().await;
        });
        let abort = self.sockets.tasks.abort.clone();
        self.sockets.tasks.tracker.spawn(async move { abort.run_until_cancelled(serve).await });
        answer.await.map_err(|_| ObjectError::Internal)??;

        let mut response = handshake.map(|()| Body::empty());
        if let Some(compression) = compression {
            response.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, compression.answer());
        }
        Ok(response)
    }
}
