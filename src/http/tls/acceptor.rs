//! Acceptance of a new connection: protocol detection and TLS handshake.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::Error as TlsError;
use rustls::server::{Acceptor as HelloReader, ClientHello, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::pair::Pair;

/// First byte of every TLS connection: a handshake record (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 0x16;

/// Bytes that a TLS stream buffers ahead of the network. More would only delay messages that the outbox
/// could still replace, and cost memory.
const BUFFER_BYTES: usize = 16 << 10;

/// The protocol that an authority's validation speaks instead of HTTP (RFC 8737 section 4).
pub const VALIDATION_PROTOCOL: &[u8] = b"acme-tls/1";

/// The protocol of a listener.
#[derive(Clone, Debug)]
pub enum Acceptor {
    /// HTTP.
    Plain,
    /// HTTP over TLS, with the certificate current when a connection arrives.
    Tls(watch::Receiver<Handshakes>),
}

/// Certificates for handshakes, replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct Handshakes {
    /// The certificate in use; `None` until the first one is obtained.
    pub pair: Option<Pair>,
    /// Answers to validations by an authority, by host name.
    pub validations: HashMap<String, Arc<ServerConfig>>,
}

/// A connection ready for requests.
#[derive(Debug)]
pub enum AcceptedStream {
    /// Plain HTTP on a plain listener.
    Http(TcpStream),
    /// HTTP over TLS.
    Https(Box<TlsStream<TcpStream>>),
    /// Plain HTTP on a TLS listener.
    Mistaken(TcpStream),
    /// A validation by an authority, which ends with the handshake.
    Validation,
}

impl Acceptor {
    /// Detects the protocol of a connection and, with TLS, completes its handshake.
    ///
    /// # Errors
    /// Returns the metric label of the failure.
    pub async fn open(&self, stream: TcpStream, time: Duration) -> Result<AcceptedStream, &'static str> {
        match self {
            Self::Plain => Ok(AcceptedStream::Http(stream)),
            Self::Tls(handshakes) => match timeout(time, shake_hands(stream, handshakes.clone())).await {
                Ok(accepted) => accepted,
                Err(_) if handshakes.borrow().pair.is_none() => Err("no_certificate"),
                Err(_) => Err("too_slow"),
            },
        }
    }
}

async fn shake_hands(
    stream: TcpStream,
    mut handshakes: watch::Receiver<Handshakes>,
) -> Result<AcceptedStream, &'static str> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) if first[0] == HANDSHAKE => {}
        Ok(1) => return Ok(AcceptedStream::Mistaken(stream)),
        _ => return Err("connection_lost"),
    }
    let start = LazyConfigAcceptor::new(HelloReader::default(), stream).await.map_err(failure)?;
    if let Some(name) = validated_name(&start.client_hello()) {
        let config = handshakes.borrow().validations.get(&name).cloned().ok_or("nothing_in_common")?;
        let mut stream = start.into_stream(config).await.map_err(failure)?;
        // The authority has seen the certificate; it may have closed the connection already.
        let _ = stream.shutdown().await;
        return Ok(AcceptedStream::Validation);
    }
    // A browser that comes before the first certificate waits a moment instead of showing an error.
    let pair =
        handshakes.wait_for(|handshakes| handshakes.pair.is_some()).await.map(|found| found.pair.clone());
    let Ok(Some(Pair { config, .. })) = pair else { return Err("no_certificate") };
    let stream = start.into_stream_with(config, |tls| tls.set_buffer_limit(Some(BUFFER_BYTES))).await;
    Ok(AcceptedStream::Https(Box::new(stream.map_err(failure)?)))
}

/// Returns the name that an authority validates by this connection; `None` for any other client.
fn validated_name(hello: &ClientHello<'_>) -> Option<String> {
    let mut protocols = hello.alpn()?;
    let is_validation = protocols.next() == Some(VALIDATION_PROTOCOL) && protocols.next().is_none();
    is_validation.then(|| hello.server_name().unwrap_or_default().to_ascii_lowercase())
}

fn failure(error: io::Error) -> &'static str {
    debug!(event = "tlsHandshakeFailed", %error);
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        // A client that does not trust the certificate sends an alert.
        Some(TlsError::AlertReceived(_)) => "refused_by_client",
        Some(TlsError::PeerIncompatible(_) | TlsError::NoApplicationProtocol) => "nothing_in_common",
        Some(_) => "invalid",
        None => "connection_lost",
    }
}
