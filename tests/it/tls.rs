//! The public listener over TLS: pages, sockets, changing certificates, and plain clients.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use satsuma::config::Optional;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::harness::{PATIENCE, Reach, TestServer, eventually};

/// A test's certificate authority, with an intermediate one, as in public chains.
pub struct Authority {
    root: CertifiedIssuer<'static, KeyPair>,
    pub between: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(params.clone(), KeyPair::generate().unwrap()).unwrap();
        let between = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &root).unwrap();
        Self { root, between }
    }

    /// A chain and its key for the loopback, as PEM.
    pub fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.between).unwrap();
        (certificate.pem() + &self.between.pem(), key.serialize_pem())
    }

    /// The root as PEM.
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    pub fn client(&self) -> Https {
        Https::trusting(self.root.der().clone())
    }
}

/// Files of a certificate and its key, and a server that uses them.
struct Files {
    dir: TempDir,
}

impl Files {
    fn new((certificate, key): &(String, String)) -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        files.write("chain.pem", certificate);
        files.write("key.pem", key);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    async fn server(&self) -> TestServer {
        self.server_with(PATIENCE).await
    }

    async fn server_with(&self, handshake: Duration) -> TestServer {
        TestServer::with(|config| {
            config.http.tls_certificate = Optional(Some(self.path("chain.pem")));
            config.http.tls_key = Optional(Some(self.path("key.pem")));
            config.http.tls_reload = Duration::from_millis(20);
            config.limits.handshake = handshake;
        })
        .await
    }
}

/// A client that trusts one authority.
pub struct Https {
    config: ClientConfig,
    name: ServerName<'static>,
}

impl Https {
    pub fn trusting(root: CertificateDer<'static>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(root).unwrap();
        let builder =
            ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        Self { config: builder.with_root_certificates(roots).with_no_client_auth(), name }
    }

    /// The same client, which asks for another name.
    pub fn named(self, name: ServerName<'static>) -> Self {
        Self { name, ..self }
    }

    /// Offers these protocols.
    pub fn speak(&mut self, protocols: &[&[u8]]) {
        self.config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    }

    async fn try_connect(&self, server: &impl Reach) -> Result<TlsStream<TcpStream>, std::io::Error> {
        let stream = TcpStream::connect(server.reached_at().http).await.unwrap();
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        let mut stream = timeout(PATIENCE, connector.connect(self.name.clone(), stream)).await.unwrap()?;
        // With TLS 1.3 a server's refusal comes after the client's part is done.
        stream.flush().await?;
        Ok(stream)
    }

    async fn connect(&self, server: &impl Reach) -> TlsStream<TcpStream> {
        self.try_connect(server).await.unwrap()
    }

    /// The certificate that the server presents.
    pub async fn shown(&self, server: &TestServer) -> Option<CertificateDer<'static>> {
        let stream = self.try_connect(server).await.ok()?;
        Some(stream.get_ref().1.peer_certificates()?[0].clone().into_owned())
    }

    /// The complete answer to a request, which the server ends with a TLS close.
    pub async fn ask(&self, server: &impl Reach, head: &str, body: &str) -> String {
        let mut stream = self.connect(server).await;
        let text = request(server, head, body);
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    /// A new identity in a room.
    pub async fn join(&self, server: &TestServer, room: &str, pk: &str) -> Member {
        let answer = self.ask(server, "POST /set-username", &format!("username={pk}")).await;
        let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        assert!(cookie.contains("; Secure"), "{cookie}");
        let address = server.addresses().http;
        let url = format!("wss://{address}/parties/rooms/{room}?_pk={pk}");
        let mut request = url.into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("cookie", cookie.split(';').next().unwrap().parse().unwrap());
        headers.insert("origin", format!("https://{address}").parse().unwrap());
        let (socket, _) = client_async(request, self.connect(server).await).await.unwrap();
        Member { pk: pk.to_owned(), socket }
    }
}

fn request(server: &impl Reach, head: &str, body: &str) -> String {
    format!(
        "{head} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
        server.reached_at().http,
        body.len()
    )
}

/// A member over TLS.
pub struct Member {
    pk: String,
    socket: WebSocketStream<TlsStream<TcpStream>>,
}

impl Member {
    async fn say(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let message = self.socket.next().await.expect("an open socket").unwrap();
                if let Message::Text(text) = message {
                    let message = serde_json::from_str(&text).unwrap();
                    if wanted(&message) {
                        return message;
                    }
                }
            }
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{} waited in vain for {what}", self.pk))
    }

    /// Sends a message to itself, which only an open socket returns.
    pub async fn echo(&mut self) {
        self.say(json!({"type": "directMessage", "to": self.pk, "message": "echo"})).await;
        self.until("its echo", |message| message["message"] == "echo").await;
    }
}

/// The answer to bytes that are not TLS.
async fn answer_to(server: &TestServer, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.addresses().http).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

async fn until_failures(server: &TestServer, reason: &str, count: f64) {
    server.until_metric(&format!("satsuma_tls_failures_total{{reason=\"{reason}\"}}"), count).await;
}

#[tokio::test]
async fn pages_and_sockets_work_over_tls() {
    let authority = Authority::new();
    let server = Files::new(&authority.issue()).server().await;
    let https = authority.client();
    let page = https.ask(&server, "GET /set-username", "").await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("<form"), "{page}");
    let redirect = https.ask(&server, "GET /some-room", "").await;
    assert!(redirect.contains("return-url=https%3A%2F%2F127.0.0.1"), "{redirect}");

    let mut ada = https.join(&server, "r", "ada").await;
    let mut bob = https.join(&server, "r", "bob").await;
    for member in [&mut ada, &mut bob] {
        member
            .until("both", |message| {
                message["state"]["users"].as_array().is_some_and(|users| users.len() == 2)
            })
            .await;
    }
    // More than the stream encrypts ahead, and more than the network takes at once.
    let payload = "x".repeat(900_000);
    bob.say(json!({"type": "e2eeMlsMessage", "payload": payload})).await;
    let received = ada.until("a long message", |message| message["type"] == "e2eeMlsMessage").await;
    assert_eq!(received["payload"].as_str().map(str::len), Some(payload.len()));
    ada.echo().await;
    bob.say(json!({"type": "userLeft"})).await;
    ada.until("the end of bob", |message| message["type"] == "userLeftNotification").await;
    assert_eq!(server.refusals("connection_lost").await, 0.0);
}

/// As in Kubernetes: the files are links into a folder that is a link, which is replaced.
#[tokio::test]
async fn new_certificate_is_loaded_and_sockets_stay() {
    let (first, second) = (Authority::new(), Authority::new());
    let files = Files::new(&(String::new(), String::new()));
    let put = |folder: &str, (certificate, key): (String, String)| {
        fs::create_dir(files.path(folder)).unwrap();
        files.write(&format!("{folder}/chain.pem"), &certificate);
        files.write(&format!("{folder}/key.pem"), &key);
        symlink(folder, files.path("data.new")).unwrap();
        fs::rename(files.path("data.new"), files.path("data")).unwrap();
    };
    put("v1", first.issue());
    for name in ["chain.pem", "key.pem"] {
        fs::remove_file(files.path(name)).unwrap();
        symlink(Path::new("data").join(name), files.path(name)).unwrap();
    }
    let server = files.server().await;
    let mut ada = first.client().join(&server, "r", "ada").await;

    put("v2", second.issue());
    let https = second.client();
    eventually("the second certificate is shown".to_owned(), async || https.shown(&server).await.is_some())
        .await;
    assert!(first.client().shown(&server).await.is_none());
    ada.echo().await;
    https.join(&server, "r", "bob").await.echo().await;
    assert_eq!(server.metric("satsuma_tls_reloads_total{reason=\"used\"}").await, 1.0);
    assert!(server.metric("satsuma_tls_certificate_expires").await > 1e9);
}

#[tokio::test]
async fn broken_certificate_keeps_the_old_one() {
    let authority = Authority::new();
    let files = Files::new(&authority.issue());
    let server = files.server().await;
    let https = authority.client();
    let shown = https.shown(&server).await.unwrap();
    let (certificate, key) = authority.issue();
    files.write("chain.pem", &certificate);
    let unusable = "satsuma_tls_reloads_total{reason=\"unusable\"}";
    server.until_metric(unusable, 1.0).await;
    assert_eq!(https.shown(&server).await, Some(shown.clone()), "the key is still the old one's");
    fs::remove_file(files.path("key.pem")).unwrap();
    server.until_metric(unusable, 2.0).await;
    assert_eq!(https.shown(&server).await, Some(shown.clone()));
    files.write("key.pem", &key);
    let other = async || https.shown(&server).await.is_some_and(|now| now != shown);
    eventually("the pair is whole, and used".to_owned(), other).await;
}

#[tokio::test]
async fn self_signed_certificate_survives_a_restart() {
    let server = TestServer::with(|config| config.http.tls_self_signed = true).await;
    let certificate = |server: &TestServer| {
        let text = fs::read(server.data_dir().join("self-signed.pem")).unwrap();
        CertificateDer::from_pem_slice(&text).unwrap()
    };
    let first = certificate(&server);
    assert_eq!(Https::trusting(first.clone()).shown(&server).await, Some(first.clone()));
    let server = server.restart().await;
    assert_eq!(Https::trusting(first.clone()).shown(&server).await, Some(first.clone()));
    let stopped = server.stop().await;
    let moved = |config: &mut satsuma::config::Config| {
        config.http.public_url = Optional(Some("https://meet.example".parse().unwrap()));
    };
    let server = stopped.start_with(moved).await;
    let second = certificate(&server);
    assert_ne!(second, first, "the first one was not made for that name");
    assert_eq!(Https::trusting(second.clone()).shown(&server).await, Some(second));
}

#[tokio::test]
async fn slow_tls_handshake_is_cut_and_delays_no_other() {
    let authority = Authority::new();
    let files = Files::new(&authority.issue());
    let server = files.server_with(Duration::from_millis(300)).await;
    let mut slow = Vec::new();
    // Nothing at all, and the beginning of a ClientHello.
    for beginning in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"] {
        let mut stream = TcpStream::connect(server.addresses().http).await.unwrap();
        stream.write_all(beginning).await.unwrap();
        slow.push(stream);
    }
    for mut stream in slow {
        let mut answer = Vec::new();
        // It may end with a reset or not; only the end counts.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end");
    }
    until_failures(&server, "too_slow", 3.0).await;
    server.until_metric("satsuma_tcp_connections", 0.0).await;

    let patient = files.server().await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(patient.addresses().http).await.unwrap());
    }
    patient.until_metric("satsuma_tcp_connections", 20.0).await;
    assert!(authority.client().shown(&patient).await.is_some());
    // A stopping server does not wait for them.
    patient.stop().await;
}

#[tokio::test]
async fn plain_http_on_tls_port_gets_a_hint() {
    let server = Files::new(&Authority::new().issue()).server().await;
    let address = server.addresses().http;
    let page = answer_to(&server, request(&server, "GET /my%20room?a=b", "").as_bytes()).await;
    assert!(page.starts_with("HTTP/1.1 307 "), "{page}");
    assert!(page.contains(&format!("location: https://{address}/my%20room?a=b\r\n")), "{page}");
    assert!(page.contains("cache-control: no-store\r\n"), "{page}");
    let form = answer_to(&server, request(&server, "POST /set-username", "username=ada").as_bytes()).await;
    assert!(form.starts_with("HTTP/1.1 400 ") && !form.contains("set-cookie"), "{form}");
    assert!(form.contains("this port speaks https"), "{form}");
    let other = answer_to(&server, b"SSH-2.0-OpenSSH_9.6\r\n\r\n").await;
    assert!(other.starts_with("HTTP/1.1 400 "), "{other}");
    until_failures(&server, "plain_http", 3.0).await;
}

#[tokio::test]
async fn failed_handshakes_are_counted_by_reason() {
    let authority = Authority::new();
    let server = Files::new(&authority.issue()).server().await;
    assert!(Authority::new().client().shown(&server).await.is_none());
    until_failures(&server, "refused_by_client", 1.0).await;
    let mut newer = authority.client();
    newer.speak(&[b"h2"]);
    assert!(newer.shown(&server).await.is_none());
    until_failures(&server, "nothing_in_common", 1.0).await;
    let hello = [&b"\x16\x03\x01\x00\x04"[..], &[0xff; 4]].concat();
    let mut stream = TcpStream::connect(server.addresses().http).await.unwrap();
    stream.write_all(&hello).await.unwrap();
    until_failures(&server, "invalid", 1.0).await;
    drop(TcpStream::connect(server.addresses().http).await.unwrap());
    until_failures(&server, "connection_lost", 1.0).await;
}
