//! A server in this process, its answers, and named identities.

use std::io;
use std::panic::Location;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, Once};
use std::time::Duration;

use axum::http::{HeaderMap, Method};
use reqwest::RequestBuilder;
use reqwest::redirect::Policy;
use satsuma::config::{Config, SettingOrigins};
use satsuma::id::NodeId;
use satsuma::server::{Addresses, EngineNode, Server, StartError};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use url::form_urlencoded;

use crate::memory_engine::MemoryNetwork;

/// Time after which waiting for a fact fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// One connection for each request, so that none outlives a test's runtime or keeps a gauge up.
static HTTP: LazyLock<reqwest::Client> = LazyLock::new(|| {
    let client = reqwest::Client::builder().no_proxy().redirect(Policy::none()).pool_max_idle_per_host(0);
    client.build().unwrap()
});

/// The log of all servers of this process, at the most verbose level.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

static LOGGING: Once = Once::new();

/// A reachable server, in this process or in another.
pub trait Reach {
    /// Its addresses.
    fn reached_at(&self) -> Addresses;
}

impl<T: Reach> Reach for &T {
    fn reached_at(&self) -> Addresses {
        (**self).reached_at()
    }
}

impl<T: Reach> Reach for Arc<T> {
    fn reached_at(&self) -> Addresses {
        (**self).reached_at()
    }
}

impl Reach for Addresses {
    fn reached_at(&self) -> Addresses {
        *self
    }
}

impl Reach for TestServer {
    fn reached_at(&self) -> Addresses {
        self.addresses()
    }
}

/// A POST of a form.
pub fn post_form(server: &impl Reach, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let url = format!("http://{}{path}", server.reached_at().http);
    HTTP.post(url).header("content-type", "application/x-www-form-urlencoded").body(body)
}

/// A request to the operators' listener, without the token.
pub fn ask_admin(server: &impl Reach, path: &str) -> RequestBuilder {
    HTTP.get(format!("http://{}{path}", server.reached_at().admin))
}

/// A running server, with a data directory that is removed with it.
pub struct TestServer {
    server: Server,
    at_rest: Stopped,
}

/// A stopped server: its data and its configuration.
pub struct Stopped {
    dir: TempDir,
    config: Config,
}

impl TestServer {
    /// A server with the default settings.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A server with other settings.
    pub async fn with(edit: impl FnOnce(&mut Config)) -> Self {
        Self::prepare().start_with(edit).await
    }

    fn prepare() -> Stopped {
        LOGGING.call_once(|| {
            let lines = tracing_subscriber::fmt().with_ansi(false).with_env_filter("satsuma=trace");
            lines.with_writer(|| LogWriter).init();
        });
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { data_dir: dir.path().join("data"), ..Config::default() };
        config.http.listen.set_port(0);
        config.admin.listen.set_port(0);
        config.sfu.udp_listen = ([127, 0, 0, 1], 0).into();
        Stopped { dir, config }
    }

    /// A node of a cluster, whose cookies are those of another one if there is one. Media are not checked.
    pub async fn node(
        network: &MemoryNetwork,
        other: Option<&Self>,
        edit: impl FnOnce(&mut Config),
    ) -> (Self, NodeId) {
        let Stopped { dir, mut config } = Self::prepare();
        if let Some(other) = other {
            let key = "signing.key";
            std::fs::create_dir_all(&config.data_dir).unwrap();
            std::fs::copy(other.data_dir().join(key), config.data_dir.join(key)).unwrap();
        }
        config.calls.room_check = false;
        edit(&mut config);
        Stopped { dir, config }.join_cluster(network).await
    }

    /// Tries to start a node with another secret than those of [`Self::node`].
    pub async fn foreign_node(network: &MemoryNetwork) -> Result<Server, StartError> {
        let Stopped { dir: _dir, mut config } = Self::prepare();
        config.calls.room_check = false;
        let id = NodeId::random();
        let (engine, events) = network.node(id);
        let (name, fingerprint) = (id.to_string(), "another".to_owned());
        let node = EngineNode { id, name, fingerprint, engine, events };
        Box::pin(Server::start_as_node(config, SettingOrigins::new(), node)).await
    }

    /// Begins the shutdown, without waiting for it.
    pub fn shutdown(&self) {
        self.server.shutdown();
    }

    /// Stops the server, and waits until it has stored everything and ended.
    pub async fn stop(self) -> Stopped {
        self.server.shutdown();
        self.server.join().await.unwrap();
        self.at_rest
    }

    /// Restarts the server on the same data and other ports.
    pub async fn restart(self) -> Self {
        self.stop().await.start_with(|_| {}).await
    }

    /// Starts another server on the same data while this one runs, which must fail.
    pub async fn start_twin(&self) -> Result<Server, StartError> {
        Server::start(self.at_rest.config.clone()).await
    }

    pub fn data_dir(&self) -> PathBuf {
        self.at_rest.config.data_dir.clone()
    }

    pub fn addresses(&self) -> Addresses {
        self.server.addresses()
    }

    /// The origin of the public listener.
    pub fn http(&self) -> String {
        format!("http://{}", self.addresses().http)
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        HTTP.get(self.http() + path)
    }

    /// A request of any method.
    pub fn request(&self, method: &Method, path: &str) -> RequestBuilder {
        HTTP.request(method.clone(), self.http() + path)
    }

    pub fn post_form(&self, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        post_form(self, path, fields)
    }

    /// A request to the operators' listener, without the token.
    pub fn admin(&self, path: &str) -> RequestBuilder {
        ask_admin(self, path)
    }

    /// A request of any method to the operators' listener, without the token.
    pub fn admin_request(&self, method: &Method, path: &str) -> RequestBuilder {
        HTTP.request(method.clone(), format!("http://{}{path}", self.addresses().admin))
    }

    /// Requests a path of the operators' listener, with the operator token.
    pub async fn admin_get(&self, path: &str) -> Answer {
        answer(self.admin(path).bearer_auth(self.operator_token())).await
    }

    /// Posts JSON to a path of the operators' listener, with the operator token.
    pub async fn admin_post(&self, path: &str, body: &Value) -> Answer {
        let url = format!("http://{}{path}", self.addresses().admin);
        answer(HTTP.post(url).bearer_auth(self.operator_token()).json(body)).await
    }

    /// Puts JSON to a path of the operators' listener, with the operator token.
    pub async fn admin_put(&self, path: &str, body: &Value) -> Answer {
        let url = format!("http://{}{path}", self.addresses().admin);
        answer(HTTP.put(url).bearer_auth(self.operator_token()).json(body)).await
    }

    fn operator_token(&self) -> String {
        std::fs::read_to_string(self.data_dir().join("operator.token")).unwrap().trim().to_owned()
    }

    /// The value of a metric, labels included in its name; 0 if it was never counted.
    pub async fn metric(&self, name: &str) -> f64 {
        metric(self, name).await
    }

    /// Number of upgrades and forms refused for `reason`.
    pub async fn refusals(&self, reason: &str) -> f64 {
        self.metric(&format!("satsuma_refusals_total{{reason=\"{reason}\"}}")).await
    }

    /// Waits until a metric has a value.
    #[track_caller]
    pub fn until_metric(&self, name: &str, wanted: f64) -> impl Future<Output = ()> {
        eventually(format!("{name} is {wanted}"), async move || self.metric(name).await == wanted)
    }

    /// Waits until the server has detected the loss of a member's socket.
    #[track_caller]
    pub fn until_away(&self, room: &str, pk: &str) -> impl Future<Output = ()> {
        eventually(format!("{pk} is away from {room}"), async move || {
            let view = self.admin_get(&format!("/admin/rooms/{room}")).await.json();
            let members = view["members"].as_array().unwrap();
            members.iter().any(|member| member["id"] == pk && member["connection"].is_null())
        })
    }
}

impl Stopped {
    /// Starts a server on the same data, with other settings.
    pub async fn start_with(mut self, edit: impl FnOnce(&mut Config)) -> TestServer {
        edit(&mut self.config);
        // Boxed: the future is large, and some tests hold several on one stack.
        let server = Box::pin(Server::start(self.config.clone())).await.unwrap();
        TestServer { server, at_rest: self }
    }

    /// Starts a node of a cluster on the same data.
    pub async fn start_as_node(mut self, network: &MemoryNetwork) -> (TestServer, NodeId) {
        self.config.calls.room_check = false;
        self.join_cluster(network).await
    }

    async fn join_cluster(self, network: &MemoryNetwork) -> (TestServer, NodeId) {
        let id = NodeId::random();
        let (engine, events) = network.node(id);
        let (name, fingerprint) = (id.to_string(), "tests".to_owned());
        let node = EngineNode { id, name, fingerprint, engine, events };
        let started = Server::start_as_node(self.config.clone(), SettingOrigins::new(), node);
        let server = Box::pin(started).await.unwrap();
        (TestServer { server, at_rest: self }, id)
    }

    /// Starts a server that must fail.
    pub async fn fail_with(&self, edit: impl FnOnce(&mut Config)) -> StartError {
        let mut config = self.config.clone();
        edit(&mut config);
        match Server::start(config).await {
            Ok(_) => panic!("the server started"),
            Err(error) => error,
        }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.config.data_dir.clone()
    }

    /// The database's file.
    pub fn database(&self) -> PathBuf {
        self.dir.path().join("data/satsuma.db")
    }
}

/// The value of a server's metric, labels included in its name; 0 if it was never counted.
pub async fn metric(server: &impl Reach, name: &str) -> f64 {
    let text = answer(ask_admin(server, "/metrics")).await.text;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    /// A header's value; the empty text if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// Sends a request, and waits for the complete answer.
pub async fn answer(request: RequestBuilder) -> Answer {
    let response = request.timeout(PATIENCE).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, text: response.text().await.unwrap() }
}

/// An identity with a name, independent of its sockets.
#[derive(Clone)]
pub struct Person {
    cookie: String,
}

impl Person {
    /// Creates a new identity.
    pub async fn log_in(server: &impl Reach, name: &str) -> Self {
        Self::with_cookie_of(&answer(post_form(server, "/set-username", &[("username", name)])).await)
    }

    /// The same identity under another name.
    pub async fn rename(&self, server: &TestServer, name: &str) -> Self {
        let request = server.post_form("/set-username", &[("username", name)]);
        Self::with_cookie_of(&answer(request.header("cookie", &self.cookie)).await)
    }

    /// A client that presents this cookie.
    pub fn with_cookie(cookie: String) -> Self {
        Self { cookie }
    }

    /// The cookie as a browser sends it.
    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    fn with_cookie_of(answer: &Answer) -> Self {
        assert_eq!(answer.status, 302, "{answer:?}");
        Self { cookie: answer.header("set-cookie").split(';').next().unwrap().to_owned() }
    }
}

/// The log of the servers of all tests until now.
pub fn logged() -> String {
    String::from_utf8(LOG.lock().unwrap().clone()).unwrap()
}

struct LogWriter;

impl io::Write for LogWriter {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until a condition is true.
#[track_caller]
pub fn eventually(what: String, fact: impl AsyncFn() -> bool) -> impl Future<Output = ()> {
    eventually_within(PATIENCE, what, fact)
}

/// The same with another timeout, for example for a process that starts.
#[track_caller]
pub fn eventually_within(
    patience: Duration,
    what: String,
    fact: impl AsyncFn() -> bool,
) -> impl Future<Output = ()> {
    let at = Location::caller();
    async move {
        let poll = async {
            while !fact().await {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(patience, poll).await.is_err() {
            panic!("{at}: waited in vain until {what}");
        }
    }
}
