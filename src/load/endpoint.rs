//! Joining a server: log in for a cookie, then open a room's socket with it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tungstenite::handshake::client::{Response, generate_key};
use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::machine::TryParse;
use url::form_urlencoded;
use uuid::Uuid;

use super::deflate::{Agreed, OFFER, agreed};
use super::protocol::Protocol;
use super::target::LoadTarget;

/// Timeout of one answer of the server.
const PATIENCE: Duration = Duration::from_secs(10);

/// Timeout of the text of a refusal.
const PATIENCE_FOR_REASONS: Duration = Duration::from_secs(1);

/// The most bytes of an answer's head, or of a refusal.
const LONGEST_ANSWER: usize = 64 << 10;

/// The most characters of a refusal's sentence that are shown.
const LONGEST_SENTENCE: usize = 200;

/// The client's offer of compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionOffer {
    /// As browsers do.
    Deflate,
    /// It is not.
    Nothing,
}

/// The server's address, and the settings for joining.
#[derive(Debug)]
pub struct Endpoint {
    target: LoadTarget,
    addresses: Vec<SocketAddr>,
    offer: CompressionOffer,
    http: reqwest::Client,
}

/// An open socket, which is in its room already if its protocol is Orange's.
#[derive(Debug)]
pub struct OpenSocket {
    /// The connection.
    pub stream: TcpStream,
    /// Bytes received after the answer to the handshake.
    pub rest: Vec<u8>,
    /// The compression, if the server agreed to one.
    pub agreed: Option<Agreed>,
}

/// The server cannot be reached at all.
#[derive(Debug, thiserror::Error)]
#[error("{url} cannot be reached: {error}")]
pub struct Unreachable {
    url: String,
    error: io::Error,
}

/// A user could not join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {says}")]
pub struct Refusal {
    /// The status of the answer, behind `login` if it was that, or the word for why there is none.
    pub kind: String,
    /// The text of the answer.
    pub says: String,
}

impl Refusal {
    pub(super) fn new(kind: impl Into<String>, says: impl ToString) -> Self {
        Self { kind: kind.into(), says: says.to_string() }
    }

    fn of_connection(error: &io::Error) -> Self {
        Self::new("no connection", error)
    }
}

impl Endpoint {
    /// Finds the server.
    ///
    /// # Errors
    /// [`Unreachable`] if nothing listens there, or its name is unknown.
    pub async fn find(target: LoadTarget, offer: CompressionOffer) -> Result<Self, Unreachable> {
        let unreachable = |error| Unreachable { url: target.url(), error };
        let find = async {
            let addresses: Vec<_> = lookup_host((target.host(), target.port())).await?.collect();
            TcpStream::connect(&addresses[..]).await?;
            Ok(addresses)
        };
        let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
        let addresses = timeout(PATIENCE, find).await.map_err(silent).flatten().map_err(unreachable)?;
        let http = reqwest::Client::builder().no_proxy().redirect(Policy::none()).timeout(PATIENCE);
        // Sooner than servers do it: a login over a connection that is just being closed was a refusal.
        let http = http.pool_idle_timeout(Duration::from_secs(2));
        let http = http.build().map_err(|error| unreachable(io::Error::other(error.without_url())))?;
        Ok(Self { target, addresses, offer, http })
    }

    /// The cookies of a new user; `None` if the server needs no login.
    ///
    /// # Errors
    /// The [`Refusal`] of the form.
    pub async fn log_in(&self, name: &str) -> Result<Option<String>, Refusal> {
        let form = form_urlencoded::Serializer::new(String::new()).append_pair("username", name).finish();
        let request = self
            .http
            .post(self.target.url() + "/set-username?return-url=/")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if error.is_timeout() => return Err(Refusal::new("login", "no answer in 10 s")),
            Err(error) => return Err(Refusal::new("login", root(&error.without_url()))),
        };
        let status = answer.status();
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
            return Ok(None);
        }
        let is_good =
            status.is_success() || (status.is_redirection() && answer.headers().contains_key(LOCATION));
        if !is_good {
            let text = answer.bytes().await.unwrap_or_default();
            return Err(Refusal::new(format!("login {}", status.as_u16()), sentence(&text, status)));
        }
        let cookies = answer.headers().get_all(SET_COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
        let pairs: Vec<_> = cookies.filter_map(|cookie| cookie.split(';').next()).collect();
        Ok((!pairs.is_empty()).then(|| pairs.join("; ")))
    }

    /// Opens a socket of a protocol, and with Orange's a room's; its name is of letters, digits and `-`.
    ///
    /// # Errors
    /// The [`Refusal`] of the connection or of the upgrade.
    pub async fn open(
        &self,
        protocol: Protocol,
        room: &str,
        id: Uuid,
        cookies: Option<&str>,
    ) -> Result<OpenSocket, Refusal> {
        let (path, origin) = match protocol {
            Protocol::Orange => (format!("/parties/rooms/{room}?_pk={id}"), String::new()),
            // There the cookie counts only from a page of the server.
            Protocol::Phoenix => (
                "/socket/websocket?vsn=2.0.0".to_owned(),
                format!("Origin: http://{}\r\n", self.target.authority()),
            ),
        };
        let opening = async {
            let stream =
                TcpStream::connect(&self.addresses[..]).await.map_err(|e| Refusal::of_connection(&e))?;
            self.shake_hands(stream, &path, origin, cookies).await
        };
        timeout(PATIENCE, opening)
            .await
            .unwrap_or_else(|_| Err(Refusal::new("no answer", "the handshake took more than 10 s")))
    }

    async fn shake_hands(
        &self,
        mut stream: TcpStream,
        path: &str,
        mut headers: String,
        cookies: Option<&str>,
    ) -> Result<OpenSocket, Refusal> {
        let lost = |error: io::Error| Refusal::of_connection(&error);
        // Small frames should leave at once.
        stream.set_nodelay(true).map_err(lost)?;
        let key = generate_key();
        let (base_path, host) = (self.target.base_path(), self.target.authority());

        if let Some(cookies) = cookies {
            headers += &format!("Cookie: {cookies}\r\n");
        }
        if self.offer == CompressionOffer::Deflate {
            headers += &format!("Sec-WebSocket-Extensions: {OFFER}\r\n");
        }
        let request = format!(
            "GET {base_path}{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await.map_err(lost)?;

        let mut bytes = Vec::with_capacity(1024);
        let (head_bytes, answer) = loop {
            let read = stream.read_buf(&mut bytes).await.map_err(lost)?;
            match Response::try_parse(&bytes) {
                Ok(Some(head)) => break head,
                Ok(None) if read > 0 && bytes.len() < LONGEST_ANSWER => {}
                Ok(None) => return Err(Refusal::new("no answer", "the connection ended in the handshake")),
                Err(_) => return Err(Refusal::new("no answer", "what the server answers is not HTTP")),
            }
        };
        let mut rest = bytes.split_off(head_bytes);
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS.as_u16() {
            let length =
                header(&answer, "content-length").parse().unwrap_or(LONGEST_ANSWER).min(LONGEST_ANSWER);
            let reading = async {
                while rest.len() < length && stream.read_buf(&mut rest).await.is_ok_and(|read| read > 0) {}
            };
            // A body without a length may be followed by nothing, for as long as the connection is kept.
            let _ = timeout(PATIENCE_FOR_REASONS, reading).await;
            let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or_default();
            return Err(Refusal::new(status.as_str(), sentence(&rest, status)));
        }
        if header(&answer, "sec-websocket-accept") != derive_accept_key(key.as_bytes()) {
            return Err(Refusal::new("no answer", "the server upgraded to something that is no WebSocket"));
        }
        let agreed = self.read_extensions(&header(&answer, "sec-websocket-extensions"))?;
        Ok(OpenSocket { stream, rest, agreed })
    }

    fn read_extensions(&self, answer: &str) -> Result<Option<Agreed>, Refusal> {
        match self.offer {
            CompressionOffer::Deflate => agreed(answer).map_err(|error| Refusal::new("no answer", error)),
            CompressionOffer::Nothing if answer.is_empty() => Ok(None),
            CompressionOffer::Nothing => {
                Err(Refusal::new("no answer", "the server answered an extension; none was offered"))
            }
        }
    }
}

/// A header's lines as one value; the empty text if there is none.
fn header(answer: &Response, name: &str) -> String {
    let lines: Vec<_> = answer.headers().get_all(name).iter().filter_map(|line| line.to_str().ok()).collect();
    lines.join(", ")
}

/// The first line of a refusal, or the name of its status.
fn sentence(body: &[u8], status: StatusCode) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    let shown = |char: &char| !char.is_control();
    match line {
        // A page says nothing in its first line.
        Some(line) if !line.starts_with('<') => line.chars().filter(shown).take(LONGEST_SENTENCE).collect(),
        _ => status.canonical_reason().unwrap_or("refused").to_owned(),
    }
}

/// The source of an error of the library, whose own text says only that there is one.
fn root(error: &reqwest::Error) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_server_said() {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(sentence(b"\nthe room is full\nmore\n", status), "the room is full");
        assert_eq!(sentence(b"", status), "Service Unavailable");
        assert_eq!(sentence(b"<html>", status), "Service Unavailable");
        assert_eq!(sentence(b"\x1b[31mred", status), "[31mred");
        assert_eq!(sentence("é".repeat(500).as_bytes(), status).chars().count(), LONGEST_SENTENCE);
    }
}
