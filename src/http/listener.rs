//! Accepts connections and serves HTTP on them, with limits on what arrives and how slowly.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::identity::peer::Scheme;
use crate::metrics::{Counted, Metrics};

/// The pause after an error that a further try would meet again, such as too many open files.
const FIRST_BACKOFF: Duration = Duration::from_millis(10);

/// The longest pause.
const LAST_BACKOFF: Duration = Duration::from_secs(1);

/// The socket's other end, as the system knows it; every request carries it.
#[derive(Clone, Copy, Debug)]
pub struct SocketPeer {
    /// Its address.
    pub address: SocketAddr,
    /// Whether the listener speaks TLS.
    pub scheme: Scheme,
}

/// Limits of what arrives.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// The most bytes of a request's headers.
    pub header_bytes: usize,
    /// The time for them to arrive, which is also how long an idle connection is kept.
    pub handshake: Duration,
}

/// Serves `router` on every connection until `stop`; then waits for the requests under way.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    let mut backoff = FIRST_BACKOFF;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                backoff = FIRST_BACKOFF;
                let connection = serve_connection(stream, address, router.clone(), limits, stop.clone());
                let counted = Counted::new(&metrics.tcp_connections, 1);
                connections.spawn(async move {
                    connection.await;
                    drop(counted);
                });
            }
            Err(error) if is_of_one_connection(&error) => {
                Metrics::count(&metrics.accept_errors, "connection");
            }
            Err(error) => {
                // Trying at once would only burn a core until somebody closes something.
                if backoff == FIRST_BACKOFF {
                    warn!(event = "acceptFailed", %error, "accepting pauses");
                }
                Metrics::count(&metrics.accept_errors, "resources");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(LAST_BACKOFF);
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn serve_connection(
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    limits: HttpLimits,
    stop: CancellationToken,
) {
    // Small frames should leave at once.
    let _ = stream.set_nodelay(true);
    let peer = SocketPeer { address, scheme: Scheme::Http };
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(peer);
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    // HTTP/1.1 alone: what tells the versions apart waits for the first bytes without a limit, and
    // a WebSocket needs 1.1 anyway.
    let connection = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.handshake)
        .max_buf_size(limits.header_bytes)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(event = "httpConnectionFailed", %error);
    }
}

/// Whether the error is that of a connection that died while it waited, not of the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
