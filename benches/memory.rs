//! The memory of idle connections: starts the real server, opens sockets, and prints its memory.
//!
//! `cargo bench --bench memory` prints resident memory idle, and with 1,000 connections in 100
//! rooms, over plain HTTP and over TLS. The server is a process of its own, so that the client's
//! memory is not counted.

use std::io::{BufRead, BufReader, Error, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const ROOMS: usize = 100;
const CONNECTIONS: usize = 1000;

fn main() -> std::io::Result<()> {
    // `cargo test --benches` runs this as well, where there is nothing to check.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    for (kind, flags) in [("http", &[][..]), ("https", &["--tls-self-signed"])] {
        let dir = tempfile::tempdir()?;
        let mut server = Command::new(env!("CARGO_BIN_EXE_satsuma"))
            .args(flags)
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path())
            .env("SATSUMA_ADMIN__LISTEN", "127.0.0.1:0")
            .env("SATSUMA_SFU__UDP_LISTEN", "127.0.0.1:0")
            .env("SATSUMA_LIMITS__NEW_ROOMS_PER_MINUTE", "0")
            .env("SATSUMA_LOG__FILTER", "warn")
            .stdout(Stdio::piped())
            .spawn()?;
        let result = measure(&mut server, kind, dir.path());
        server.kill()?;
        server.wait()?;
        result?;
    }
    Ok(())
}

fn measure(server: &mut Child, kind: &str, data: &Path) -> std::io::Result<()> {
    let network = Network { address: listening_address(server, kind)?, tls: trust(data)? };
    settle();
    let idle = resident_bytes(server)?;
    println!("{kind}, idle: {:.1} MiB resident", idle as f64 / f64::from(1 << 20));
    let cookie = log_in(&network)?;
    let mut sockets = Vec::new();
    for number in 0..CONNECTIONS {
        sockets.push(join(&network, &cookie, number)?);
    }
    settle();
    let full = resident_bytes(server)?;
    println!(
        "{kind}, {CONNECTIONS} connections in {ROOMS} rooms: {:.1} MiB resident, {:.1} kB a connection",
        full as f64 / f64::from(1 << 20),
        (full - idle) as f64 / CONNECTIONS as f64 / 1000.0
    );
    Ok(())
}

/// The transport to the server.
struct Network {
    address: String,
    tls: Option<Arc<ClientConfig>>,
}

trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

impl Network {
    fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(&self.address)?;
        let Some(config) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from("localhost").map_err(Error::other)?;
        let connection = ClientConnection::new(config.clone(), name).map_err(Error::other)?;
        Ok(Box::new(StreamOwned::new(connection, stream)))
    }
}

/// Trusts the certificate that the server made, if it made one.
fn trust(data: &Path) -> std::io::Result<Option<Arc<ClientConfig>>> {
    let path = data.join("self-signed.pem");
    if !path.exists() {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(path).map_err(Error::other)?).map_err(Error::other)?;
    let crypto = rustls::crypto::aws_lc_rs::default_provider();
    let builder = ClientConfig::builder_with_provider(crypto.into())
        .with_safe_default_protocol_versions()
        .map_err(Error::other)?;
    Ok(Some(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
}

/// Waits for the server's pending work; its allocator has no signal for that.
fn settle() {
    thread::sleep(Duration::from_secs(2));
}

fn listening_address(server: &mut Child, scheme: &str) -> std::io::Result<String> {
    let output = server.stdout.take().ok_or_else(|| std::io::Error::other("no output"))?;
    for line in BufReader::new(output).lines() {
        if let Some(rest) = line?.strip_prefix(&format!("listening on {scheme}://")) {
            return Ok(rest.split(',').next().unwrap_or_default().to_owned());
        }
    }
    Err(std::io::Error::other("the server did not say where it listens"))
}

fn resident_bytes(server: &Child) -> std::io::Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: usize = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default();
    Ok(kib * 1024)
}

/// Reads an HTTP answer's head, and nothing after it.
fn head(stream: &mut dyn Stream) -> std::io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn log_in(network: &Network) -> std::io::Result<String> {
    let (mut stream, address) = (network.connect()?, &network.address);
    write!(
        stream,
        "POST /set-username HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 12\r\n\r\nusername=Ada"
    )?;
    let head = head(&mut *stream)?;
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    cookie
        .and_then(|cookie| cookie.split(';').next())
        .map(str::to_owned)
        .ok_or_else(|| std::io::Error::other(head.clone()))
}

/// Joins a room without a WebSocket library, which would cost memory and time here.
fn join(network: &Network, cookie: &str, number: usize) -> std::io::Result<Box<dyn Stream>> {
    let (mut stream, address) = (network.connect()?, &network.address);
    let (room, member) = (number % ROOMS, number / ROOMS);
    write!(
        stream,
        "GET /parties/rooms/room-{room}?_pk=member-{member} HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )?;
    let head = head(&mut *stream)?;
    if !head.starts_with("HTTP/1.1 101") {
        return Err(std::io::Error::other(head));
    }
    Ok(stream)
}
