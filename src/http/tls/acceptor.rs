//! Acceptance of a new connection: protocol detection and TLS handshake.

use std::io;
use std::time::Duration;

use rustls::Error as TlsError;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::pair::Pair;

/// First byte of every TLS connection: a handshake record (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 0x16;

/// Bytes that a TLS stream buffers ahead of the network. More would only delay messages that the outbox
/// could still replace, and cost memory.
const BUFFER_BYTES: usize = 16 << 10;

/// The protocol of a listener.
#[derive(Clone, Debug)]
pub enum Acceptor {
    /// HTTP.
    Plain,
    /// HTTP over TLS, with the certificate current when a connection arrives.
    Tls(watch::Receiver<Pair>),
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
}

impl Acceptor {
    /// Detects the protocol of a connection and, with TLS, completes its handshake.
    ///
    /// # Errors
    /// Returns the metric label of the failure.
    pub async fn open(&self, stream: TcpStream, time: Duration) -> Result<AcceptedStream, &'static str> {
        match self {
            Self::Plain => Ok(AcceptedStream::Http(stream)),
            Self::Tls(pair) => {
                let config = pair.borrow().config.clone();
                let opening = shake_hands(stream, TlsAcceptor::from(config));
                timeout(time, opening).await.unwrap_or(Err("too_slow"))
            }
        }
    }
}

async fn shake_hands(stream: TcpStream, acceptor: TlsAcceptor) -> Result<AcceptedStream, &'static str> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) if first[0] == HANDSHAKE => {}
        Ok(1) => return Ok(AcceptedStream::Mistaken(stream)),
        _ => return Err("connection_lost"),
    }
    let accepting = acceptor.accept_with(stream, |tls| tls.set_buffer_limit(Some(BUFFER_BYTES)));
    match accepting.await {
        Ok(stream) => Ok(AcceptedStream::Https(Box::new(stream))),
        Err(error) => {
            debug!(event = "tlsHandshakeFailed", %error);
            Err(failure(&error))
        }
    }
}

fn failure(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        // A client that does not trust the certificate sends an alert.
        Some(TlsError::AlertReceived(_)) => "refused_by_client",
        Some(TlsError::PeerIncompatible(_) | TlsError::NoApplicationProtocol) => "nothing_in_common",
        Some(_) => "invalid",
        None => "connection_lost",
    }
}
