//! Accepts connections and serves HTTP on them, within limits on size and time.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::error::ApiError;
use super::tls::acceptor::{AcceptedStream, Acceptor};
use super::tls::http_redirect;
use crate::auth::peer::{Scheme, TrustedProxies};
use crate::limit::{ConcurrencyLimit, ConcurrencyPermit};
use crate::metrics::{Counted, Metrics};
use crate::network::client_network;

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

/// More time for a request whose body is long; an extension of every request. A connection has one request at a time.
#[derive(Clone, Debug, Default)]
pub struct RequestGrace(Arc<AtomicU64>);

impl RequestGrace {
    /// Lets the request in progress take so long once its connection is too old, until the result is dropped.
    #[must_use]
    pub fn extend(&self, time: Duration) -> ExtendedGrace {
        self.0.store(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        ExtendedGrace(self.clone())
    }

    fn time(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// An extended grace.
#[derive(Debug)]
pub struct ExtendedGrace(RequestGrace);

impl Drop for ExtendedGrace {
    fn drop(&mut self) {
        self.0.0.store(0, Ordering::Relaxed);
    }
}

/// Limits of a listener.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Maximum bytes of a request's headers.
    pub header_bytes: usize,
    /// Timeout of a TLS handshake.
    pub handshake: Duration,
    /// Timeout of the headers' arrival, idle keep-alive included.
    pub header_timeout: Duration,
    /// Time for the request in progress on a connection that became too old.
    pub request_timeout: Duration,
    /// Maximum concurrent connections; upgraded ones are not counted.
    pub connections: usize,
    /// Maximum of those per client network; 0 means no limit.
    pub per_network: usize,
}

/// Serves `router` on all connections from `acceptor` until `stop`, then waits for requests in progress. Addresses
/// of `exempt` are subject to the total limit alone.
pub async fn serve(
    listener: TcpListener,
    acceptor: Acceptor,
    router: Router,
    limits: HttpLimits,
    exempt: TrustedProxies,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let limit = ConcurrencyLimit::new(limits.connections, limits.per_network);
    let mut backoff = FIRST_BACKOFF;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &limit) => accepted,
        };
        match accepted {
            Ok((stream, address, mut permit)) => {
                backoff = FIRST_BACKOFF;
                // All clients behind a proxy share its address.
                if !exempt.contain(address.ip()) && permit.charge(client_network(address.ip())).is_err() {
                    Metrics::count(&metrics.refusals, "too_many_of_address");
                    continue;
                }
                let counted = Counted::new(&metrics.tcp_connections, 1);
                let connection = HttpConnection {
                    address,
                    router: router.clone(),
                    limits,
                    metrics: metrics.clone(),
                    stop: stop.clone(),
                };
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    connection.run(stream, acceptor).await;
                    drop((counted, permit));
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
    limit: &ConcurrencyLimit,
) -> io::Result<(TcpStream, SocketAddr, ConcurrencyPermit)> {
    let permit = limit.acquire().await.ok_or_else(|| io::Error::other("the limit is closed"))?;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, permit))
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
    async fn run(self, stream: TcpStream, acceptor: Acceptor) {
        // Small frames must leave at once.
        let _ = stream.set_nodelay(true);
        let opened = tokio::select! {
            opened = acceptor.open(stream, self.limits.handshake) => opened,
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
        let extended = RequestGrace::default();
        let of_requests = extended.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let mut request: Request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(of_requests.clone());
            let router = router.clone();
            async move {
                Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {}))
            }
        });
        // HTTP/1.1 alone: protocol detection waits for the first bytes without a timeout, and a
        // WebSocket needs 1.1 anyway.
        let connection = Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(limits.header_bytes)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(connection);
        let grace = tokio::select! {
            result = &mut connection => return result.map_err(failure),
            () = stop.cancelled() => STOP_GRACE,
            () = tokio::time::sleep(LIFETIME) => limits.request_timeout.max(extended.time()),
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
    use axum::Extension;
    use axum::body::{Body, Bytes, to_bytes};
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn network_is_limited_and_proxy_is_exempt() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let second = Duration::from_secs(1);
        let limits = HttpLimits {
            header_bytes: 8192,
            handshake: second,
            header_timeout: second,
            request_timeout: second,
            connections: 9,
            per_network: 2,
        };
        for (exempt, admitted) in [(vec![], 2), (vec!["127.0.0.1/32".parse().unwrap()], 4)] {
            let (metrics, stop) = (Metrics::new(), CancellationToken::new());
            let listener = TcpListener::from_std(listener_of(&listener)).unwrap();
            let exempt = TrustedProxies::new(exempt);
            let served =
                serve(listener, Acceptor::Plain, Router::new(), limits, exempt, metrics, stop.clone());
            let clients = async {
                let mut answered = 0;
                let mut open = Vec::new();
                for _ in 0..4 {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
                    answered += usize::from(matches!(stream.read(&mut [0; 64]).await, Ok(1..)));
                    open.push(stream);
                }
                stop.cancel();
                answered
            };
            assert_eq!(tokio::join!(served, clients).1, admitted);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn long_request_may_take_longer_than_its_connection() {
        async fn read(grace: Option<RequestGrace>, body: Body) -> Bytes {
            let _grace = grace.map(|grace| grace.extend(LIFETIME));
            to_bytes(body, 9).await.unwrap_or_default()
        }
        let router = Router::new()
            .route("/long", post(async |Extension(grace), body| read(Some(grace), body).await))
            .route("/short", post(async |body| read(None, body).await));
        let second = Duration::from_secs(1);
        for (path, answered) in [("/long", true), ("/short", false)] {
            let (mut client, stream) = tokio::io::duplex(1 << 16);
            let connection = HttpConnection {
                address: ([127, 0, 0, 1], 1).into(),
                router: router.clone(),
                limits: HttpLimits {
                    header_bytes: 8192,
                    handshake: second,
                    header_timeout: second,
                    request_timeout: second,
                    connections: 1,
                    per_network: 0,
                },
                metrics: Metrics::new(),
                stop: CancellationToken::new(),
            };
            let client = async {
                let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\na");
                client.write_all(head.as_bytes()).await.unwrap();
                tokio::time::sleep(LIFETIME + 10 * second).await;
                let _ = client.write_all(b"b").await;
                let mut answer = String::new();
                let _ = client.read_to_string(&mut answer).await;
                answer
            };
            let (served, answer) = tokio::join!(connection.serve(stream, Scheme::Http), client);
            assert_eq!((served.is_ok(), answer.contains("200 OK")), (answered, answered), "{path}: {answer}");
        }
    }

    fn listener_of(listener: &TcpListener) -> std::net::TcpListener {
        use std::os::fd::AsFd;
        listener.as_fd().try_clone_to_owned().unwrap().into()
    }
}
