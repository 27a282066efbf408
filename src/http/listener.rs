//! Accepts connections and serves HTTP on them, within limits on size and time.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::error::ApiError;
use super::tls::acceptor::{AcceptedStream, Acceptor};
use super::tls::http_redirect;
use crate::identity::peer::{Scheme, TrustedProxies};
use crate::limit::{KeyedLimit, LimitReached, Permit};
use crate::metrics::{Counted, Metrics};
use crate::network::{ClientNetwork, client_network};

/// First pause after an `accept` error that would repeat at once, such as too many open files.
const FIRST_BACKOFF: Duration = Duration::from_millis(10);

/// Longest such pause.
const LAST_BACKOFF: Duration = Duration::from_secs(1);

/// Lifetime of a connection. A client that sends requests and never reads has no other limit.
const LIFETIME: Duration = Duration::from_secs(300);

/// Time for a request in progress once the server stops.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// The peer address of the TCP connection; an extension of every request.
#[derive(Clone, Copy, Debug)]
pub struct SocketPeer {
    /// Address and port.
    pub address: SocketAddr,
    /// `Https` if the listener speaks TLS.
    pub scheme: Scheme,
}

/// Limits of a listener.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Maximum bytes of a request's headers.
    pub header_bytes: usize,
    /// Timeout of the headers' arrival, of an idle connection, and of a TLS handshake.
    pub handshake: Duration,
    /// Maximum concurrent connections; upgraded ones are not counted.
    pub connections: usize,
    /// Maximum of those per client network; 0 means no limit.
    pub per_network: usize,
}

/// Connections per client network.
struct ByNetwork {
    limit: KeyedLimit<ClientNetwork>,
    /// Exempt networks, among them proxies: all clients behind a proxy share its address.
    exempt: TrustedProxies,
}

impl ByNetwork {
    /// Counts a connection until the permit is dropped; an exempt address needs none.
    fn acquire(&self, address: IpAddr) -> Result<Option<Permit<ClientNetwork>>, LimitReached> {
        if self.exempt.contain(address) {
            return Ok(None);
        }
        self.limit.acquire(&client_network(address)).map(Some)
    }
}

/// Serves `router` on all connections from `door` until `stop`, then waits for requests in progress.
pub async fn serve(
    listener: TcpListener,
    door: Acceptor,
    router: Router,
    limits: HttpLimits,
    exempt: TrustedProxies,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let by_network = ByNetwork { limit: KeyedLimit::concurrent(limits.per_network), exempt };
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut backoff = FIRST_BACKOFF;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, address, place)) => {
                backoff = FIRST_BACKOFF;
                let Ok(permit) = by_network.acquire(address.ip()) else {
                    Metrics::count(&metrics.refusals, "too_many_of_address");
                    continue;
                };
                let counted = Counted::new(&metrics.tcp_connections, 1);
                let connection = HttpConnection {
                    address,
                    router: router.clone(),
                    limits,
                    metrics: metrics.clone(),
                    stop: stop.clone(),
                };
                let door = door.clone();
                connections.spawn(async move {
                    connection.run(stream, door).await;
                    drop((counted, place, permit));
                });
            }
            Err(error) if is_of_one_connection(&error) => {
                Metrics::count(&metrics.accept_errors, "connection");
            }
            Err(error) => {
                // Retrying at once would burn a core until a file descriptor is free.
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
    while connections.join_next().await.is_some() {}
}

/// Accepts a connection once there is a permit for it; until then it waits in the system's backlog.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, place))
}

/// An accepted connection and its shared state.
struct HttpConnection {
    address: SocketAddr,
    router: Router,
    limits: HttpLimits,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl HttpConnection {
    /// Does any TLS handshake, and serves until the connection ends, is upgraded or gets too old.
    async fn run(self, stream: TcpStream, door: Acceptor) {
        // Small frames must leave at once.
        let _ = stream.set_nodelay(true);
        let opened = tokio::select! {
            opened = door.open(stream, self.limits.handshake) => opened,
            () = self.stop.cancelled() => return,
        };
        let metrics = self.metrics.clone();
        let served = match opened {
            Ok(AcceptedStream::Http(stream)) => self.serve(stream, Scheme::Http).await,
            Ok(AcceptedStream::Https(stream)) => self.serve(stream, Scheme::Https).await,
            Ok(AcceptedStream::Validation) => Ok(()),
            Ok(AcceptedStream::Mistaken(stream)) => {
                Metrics::count(&metrics.tls_failures, ApiError::PlainHttp.label());
                Self { router: http_redirect::router(), ..self }.serve(stream, Scheme::Http).await
            }
            Err(reason) => {
                Metrics::count(&metrics.tls_failures, reason);
                Ok(())
            }
        };
        if let Err(reason) = served {
            Metrics::count(&metrics.refusals, reason);
        }
    }

    /// Serves requests.
    ///
    /// # Errors
    /// Returns the metric label of a request that never reached a handler.
    async fn serve<S>(self, stream: S, scheme: Scheme) -> Result<(), &'static str>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { address, router, limits, stop, .. } = self;
        let peer = SocketPeer { address, scheme };
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let mut request: Request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(peer);
            let router = router.clone();
            async move {
                Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {}))
            }
        });
        // HTTP/1.1 alone: protocol detection waits for the first bytes without a timeout, and a
        // WebSocket needs 1.1 anyway.
        let connection = Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.handshake)
            .max_buf_size(limits.header_bytes)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(connection);
        let grace = tokio::select! {
            result = &mut connection => return result.map_err(failure),
            () = stop.cancelled() => STOP_GRACE,
            () = tokio::time::sleep(LIFETIME) => limits.handshake,
        };
        connection.as_mut().graceful_shutdown();
        match tokio::time::timeout(grace, connection).await {
            Ok(result) => result.map_err(failure),
            Err(_) => Err("connection_too_old"),
        }
    }
}

fn failure(error: hyper::Error) -> &'static str {
    debug!(event = "httpConnectionFailed", %error);
    match error {
        error if error.is_parse_too_large() => "headers_too_large",
        error if error.is_timeout() => "request_too_slow",
        error if error.is_parse() => "invalid_request",
        _ => "connection_lost",
    }
}

/// True if the error concerns one connection that died in the backlog, not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_is_limited_and_proxy_is_exempt() {
        let exempt = TrustedProxies::new(["10.0.0.1/32".parse().unwrap()]);
        let limited = ByNetwork { limit: KeyedLimit::concurrent(2), exempt };
        let acquire = |text: &str| limited.acquire(text.parse().unwrap());
        let first = acquire("192.0.2.1").unwrap();
        let _second = acquire("::ffff:192.0.2.1").unwrap();
        assert!(acquire("192.0.2.1").is_err(), "the same address, written otherwise");
        let _other = acquire("192.0.2.2").unwrap();
        drop(first);
        let _in_its_place = acquire("192.0.2.1").unwrap();
        let proxied: Vec<_> = (0..9).map(|_| acquire("10.0.0.1").unwrap()).collect();
        assert!(proxied.iter().all(Option::is_none));
        let _v6 = (acquire("2001:db8::1").unwrap(), acquire("2001:db8::2").unwrap());
        assert!(acquire("2001:db8::ffff:3").is_err(), "one network");
        let _next = acquire("2001:db8:0:1::1").unwrap();
    }
}
