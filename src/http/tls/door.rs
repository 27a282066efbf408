//! The way in: what a new connection speaks, and its TLS handshake.

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

/// The first byte of every TLS connection: a record that holds a handshake (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 0x16;

/// What a TLS stream takes before the network did; more only delays what the outbox could still
/// replace, and costs memory.
const BUFFER_BYTES: usize = 16 << 10;

/// What a listener speaks.
#[derive(Clone, Debug)]
pub enum Door {
    /// HTTP.
    Plain,
    /// HTTP over TLS, with the certificate that is in use when a connection comes.
    Tls(watch::Receiver<Pair>),
}

/// A connection that may send requests.
#[derive(Debug)]
pub enum Opened {
    /// Without TLS, as the listener wants it.
    Http(TcpStream),
    /// With TLS.
    Https(Box<TlsStream<TcpStream>>),
    /// Without TLS, although the listener speaks TLS.
    Mistaken(TcpStream),
}

impl Door {
    /// Lets a connection in once it has shown what it speaks and, with TLS, has shaken hands.
    ///
    /// # Errors
    /// The word by which the failure is counted.
    pub async fn open(&self, stream: TcpStream, time: Duration) -> Result<Opened, &'static str> {
        match self {
            Self::Plain => Ok(Opened::Http(stream)),
            Self::Tls(pair) => {
                let config = pair.borrow().config.clone();
                let opening = shake_hands(stream, TlsAcceptor::from(config));
                timeout(time, opening).await.unwrap_or(Err("too_slow"))
            }
        }
    }
}

async fn shake_hands(stream: TcpStream, acceptor: TlsAcceptor) -> Result<Opened, &'static str> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) if first[0] == HANDSHAKE => {}
        Ok(1) => return Ok(Opened::Mistaken(stream)),
        _ => return Err("connection_lost"),
    }
    let accepting = acceptor.accept_with(stream, |tls| tls.set_buffer_limit(Some(BUFFER_BYTES)));
    match accepting.await {
        Ok(stream) => Ok(Opened::Https(Box::new(stream))),
        Err(error) => {
            debug!(event = "tlsHandshakeFailed", %error);
            Err(failure(&error))
        }
    }
}

fn failure(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        // A client that does not trust the certificate says so by an alert.
        Some(TlsError::AlertReceived(_)) => "refused_by_client",
        Some(TlsError::PeerIncompatible(_) | TlsError::NoApplicationProtocol) => "nothing_in_common",
        Some(_) => "invalid",
        None => "connection_lost",
    }
}
