//! The balancers of `config/deploy/cluster`: the real programs take the files, and stand in front of real nodes.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use satsuma::server::Addresses;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use uuid::Uuid;

use crate::client::user_of;
use crate::harness::{Person, Reach, eventually, eventually_within, metric};
use crate::nats_server::{NatsServer, free_port, newest};
use crate::process::Process;
use crate::tls::Authority;

const NODES: usize = 3;

/// Addresses of the nodes in the files.
const WRITTEN: [&str; NODES] = ["10.0.0.1:8787", "10.0.0.2:8787", "10.0.0.3:8787"];

/// Members of each room.
const EACH: usize = 2;

/// Time between two changes of a member.
const RHYTHM: Duration = Duration::from_millis(50);

/// Time after which a refused client tries again.
const RETRY: Duration = Duration::from_millis(100);

/// Timeout until everybody is back, for nodes without optimization on a busy machine.
const RETURN: Duration = Duration::from_secs(60);

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/deploy/cluster").join(name);
    fs::read_to_string(path).unwrap()
}

/// Replaces a part of a file, which has to be there.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in the file");
    text.replace(from, to)
}

/// A file with these nodes in place of those that are written there.
fn with_nodes(text: &str, nodes: &[SocketAddr]) -> String {
    let nodes = WRITTEN.iter().zip(nodes);
    nodes.fold(text.to_owned(), |text, (written, node)| replaced(&text, written, &node.to_string()))
}

/// The site within a configuration of nginx whose files are all in this folder.
fn within_nginx(site: &str, dir: &Path) -> String {
    let dir = dir.display();
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = kinds.map(|kind| format!("{kind}_temp_path {dir}/{kind};\n")).concat();
    format!(
        "pid {dir}/nginx.pid;\nerror_log {dir}/log;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{site}}}\n"
    )
}

/// The program's judgement of a configuration.
fn assert_accepted(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    assert!(!said.contains("[warn]") && !said.contains("[WARNING]"), "{said}");
}

#[test]
#[ignore = "needs nginx"]
fn nginx_accepts_its_configurations() {
    let dir = tempfile::tempdir().unwrap();
    let (chain, key) = Authority::new().issue();
    fs::write(dir.path().join("chain.pem"), chain).unwrap();
    fs::write(dir.path().join("key.pem"), key).unwrap();
    let single = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/deploy/nginx.conf");
    for site in [file("nginx.conf"), fs::read_to_string(single).unwrap()] {
        let live = "/etc/letsencrypt/live/meet.example.org";
        let named = |name: &str| dir.path().join(name).display().to_string();
        let site = replaced(&site, &format!("{live}/fullchain.pem"), &named("chain.pem"));
        let site = replaced(&site, &format!("{live}/privkey.pem"), &named("key.pem"));
        fs::write(dir.path().join("nginx.conf"), within_nginx(&site, dir.path())).unwrap();
        assert_accepted(Command::new("nginx").arg("-t").arg("-c").arg(dir.path().join("nginx.conf")));
    }
}

#[test]
#[ignore = "needs haproxy"]
fn haproxy_accepts_its_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let (chain, key) = Authority::new().issue();
    let pem = dir.path().join("both.pem");
    fs::write(&pem, chain + &key).unwrap();
    let text = replaced(&file("haproxy.cfg"), "/etc/haproxy/meet.example.org.pem", pem.to_str().unwrap());
    fs::write(dir.path().join("haproxy.cfg"), text).unwrap();
    assert_accepted(Command::new("haproxy").arg("-c").arg("-f").arg(dir.path().join("haproxy.cfg")));
}

#[test]
#[ignore = "needs caddy"]
fn caddy_accepts_its_configurations() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/deploy");
    for file in ["cluster/Caddyfile", "Caddyfile"] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("caddy");
        command.args(["validate", "--adapter", "caddyfile", "--config"]).arg(folder.join(file));
        command.env("HOME", dir.path()).env("XDG_DATA_HOME", dir.path()).env("XDG_CONFIG_HOME", dir.path());
        command.env("MEET_HOST", "meet.example.org").env("NODES", WRITTEN.join(" "));
        assert_accepted(&mut command);
    }
}

/// The configuration of the three NATS servers, as the environment of the Compose file fills it.
#[test]
#[ignore = "needs nats-server"]
fn nats_server_accepts_its_configurations() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["nats.conf", "nats-local.conf"] {
        fs::write(dir.path().join(name), file(name)).unwrap();
        let mut command = Command::new(newest());
        command.arg("-t").arg("-c").arg(dir.path().join(name)).current_dir(dir.path());
        command.env("SERVER_NAME", "nats-1").env("NATS_PASSWORD", "\"9e7\"").env("ROUTE_PASSWORD", "\"9e7\"");
        for number in 1..=NODES {
            let route = format!("\"nats://route:9e7@nats-{number}:6222\"");
            command.env(format!("ROUTE_{number}"), route);
        }
        assert_accepted(&mut command);
    }
}

/// A program that is tried.
#[derive(Clone, Copy)]
enum Program {
    Nginx,
    HaProxy,
    Caddy,
}

/// A balancer without TLS on the loopback, killed on drop.
struct Balancer {
    child: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Balancer {
    async fn start(program: Program, nodes: &[SocketAddr]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [address, other] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let mut command = match program {
            Program::Nginx => {
                let site = with_nodes(&file("nginx.conf"), nodes);
                let site = replaced(&site, "listen [::]:80;", "");
                let site = replaced(&site, "listen 80;", &format!("listen {other};"));
                let site = replaced(&site, "listen [::]:443 ssl;", "");
                let site = replaced(&site, "listen 443 ssl;", &format!("listen {address};"));
                let is_plain = |line: &&str| !line.trim_start().starts_with("ssl_certificate");
                let site = site.lines().filter(is_plain).map(|line| format!("{line}\n")).collect::<String>();
                fs::write(dir.path().join("nginx.conf"), within_nginx(&site, dir.path())).unwrap();
                let mut command = Command::new("nginx");
                // Of one process, which a signal ends.
                command.args(["-g", "daemon off; master_process off;", "-c"]);
                command.arg(dir.path().join("nginx.conf"));
                command
            }
            Program::HaProxy => {
                let text = with_nodes(&file("haproxy.cfg"), nodes);
                let text = replaced(&text, "bind :80\n", &format!("bind {other}\n"));
                let secure = "bind :443 ssl crt /etc/haproxy/meet.example.org.pem";
                let text = replaced(&text, secure, &format!("bind {address}"));
                let redirect = "http-request redirect scheme https code 301 unless { ssl_fc }";
                fs::write(dir.path().join("haproxy.cfg"), replaced(&text, redirect, "")).unwrap();
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(dir.path().join("haproxy.cfg"));
                command
            }
            Program::Caddy => {
                let text = format!("{{\n\tadmin off\n}}\n{}", file("Caddyfile"));
                fs::write(dir.path().join("Caddyfile"), text).unwrap();
                let mut command = Command::new("caddy");
                command.args(["run", "--adapter", "caddyfile", "--config"]);
                command.arg(dir.path().join("Caddyfile"));
                let homes = ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"];
                command.envs(homes.map(|home| (home, dir.path())));
                command.env("MEET_HOST", format!("http://{address}"));
                command.env("NODES", nodes.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" "));
                command
            }
        };
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        eventually("the balancer listens".to_owned(), async || TcpStream::connect(address).await.is_ok())
            .await;
        Self { child, address, _dir: dir }
    }
}

impl Reach for Balancer {
    fn reached_at(&self) -> Addresses {
        Addresses { http: self.address, admin: self.address }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Members of rooms behind a balancer, who come back as those of people's browsers do.
struct Crowd {
    balancer: Balancer,
    members: JoinSet<()>,
    seen: Arc<Mutex<Seen>>,
}

/// The members' experience.
#[derive(Default)]
struct Seen {
    /// True for those that are in their room, and see themselves there.
    present: Vec<bool>,
    /// Closed sockets: the member, and the code.
    closes: Vec<(usize, u16)>,
    /// Answers to attempts that did not open a socket.
    refusals: Vec<String>,
}

impl Crowd {
    fn new(balancer: Balancer) -> Self {
        Self { balancer, members: JoinSet::new(), seen: Arc::default() }
    }

    fn size(&self) -> usize {
        self.members.len()
    }

    async fn join(&mut self, room: &str) {
        let person = Person::log_in(&self.balancer, "Ada").await;
        let pk = Uuid::new_v4().to_string();
        let mut seen = self.seen.lock().unwrap();
        seen.present.push(false);
        let member = Member {
            number: seen.present.len() - 1,
            url: format!("ws://{}/parties/rooms/{room}?_pk={pk}", self.balancer.address),
            pk,
            cookie: person.cookie().to_owned(),
            seen: self.seen.clone(),
        };
        drop(seen);
        self.members.spawn(member.live());
    }

    /// Waits until everybody is in its room, and at least so many sockets were closed; returns and forgets them.
    async fn until_in(&self, closed: usize) -> Vec<(usize, u16)> {
        let is_in = async || {
            let seen = self.seen.lock().unwrap();
            seen.closes.len() >= closed && seen.present.iter().all(|is_in| *is_in)
        };
        eventually_within(RETURN, format!("{closed} sockets are closed, and everybody is in"), is_in).await;
        std::mem::take(&mut self.seen.lock().unwrap().closes)
    }

    fn refusals(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap().refusals)
    }
}

struct Member {
    number: usize,
    url: String,
    pk: String,
    cookie: String,
    seen: Arc<Mutex<Seen>>,
}

impl Member {
    async fn live(self) {
        loop {
            match self.open().await {
                Ok(mut socket) => {
                    let code = self.talk(&mut socket).await;
                    let mut seen = self.seen.lock().unwrap();
                    seen.present[self.number] = false;
                    seen.closes.push((self.number, code));
                }
                Err(error) => {
                    let said = match error {
                        Error::Http(answer) => answer.status().to_string(),
                        error => error.to_string(),
                    };
                    self.seen.lock().unwrap().refusals.push(said);
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn open(&self) -> Result<WebSocketStream<TcpStream>, Error> {
        let mut request = self.url.as_str().into_client_request()?;
        request.headers_mut().insert("cookie", self.cookie.parse().unwrap());
        let host = request.uri().authority().unwrap().to_string();
        Ok(client_async(request, TcpStream::connect(host).await?).await?.0)
    }

    /// Says something again and again; returns the code of the close.
    async fn talk(&self, socket: &mut WebSocketStream<TcpStream>) -> u16 {
        let mut rhythm = interval(RHYTHM);
        rhythm.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut code = 1006;
        let mut is_up = false;
        loop {
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        let message: Value = serde_json::from_str(&text).unwrap();
                        if message["type"] == "roomState" && !user_of(&message["state"], &self.pk).is_null() {
                            self.seen.lock().unwrap().present[self.number] = true;
                        }
                    }
                    Some(Ok(Message::Close(frame))) => code = frame.map_or(1005, |frame| frame.code.into()),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return code,
                },
                _ = rhythm.tick() => {
                    is_up = !is_up;
                    for message in [
                        json!({"type": "heartbeat"}),
                        json!({"type": "userUpdate", "user": {"raisedHand": is_up}}),
                    ] {
                        // A socket that is just being closed takes nothing; the next read tells of it.
                        let _ = socket.send(Message::text(message.to_string())).await;
                    }
                }
            }
        }
    }
}

/// The place of a node, which is started again on its address and its data.
struct Place {
    dir: TempDir,
    nats: String,
    /// Chosen at the first start.
    address: Option<String>,
}

impl Place {
    async fn start(&mut self) -> Process {
        let mut settings = vec![
            ("SATSUMA_HTTP__TRUSTED_PROXIES", "127.0.0.1"),
            ("SATSUMA_CLUSTER__NATS", &*self.nats),
            ("SATSUMA_CLUSTER__SECRET", "a-secret-of-tests-that-all-nodes-share"),
            ("SATSUMA_CALLS__ROOM_CHECK", "false"),
        ];
        settings.extend(self.address.as_deref().map(|address| ("SATSUMA_HTTP__LISTEN", address)));
        let node = Process::start(&self.dir.path().join("data"), &settings).await;
        self.address = Some(node.reached_at().http.to_string());
        node
    }
}

async fn sockets(node: &Process) -> usize {
    metric(node, "satsuma_connections").await as usize
}

/// Sockets are on all nodes, and those of a room on one. After `kill -9` of a node its clients come back to others;
/// when all are replaced one after another, only sockets of the one that leaves are closed, each once.
async fn nodes_come_and_go_behind(program: Program) {
    let nats = NatsServer::start(&newest(), "").await;
    let mut places =
        [(); NODES].map(|()| Place { dir: tempfile::tempdir().unwrap(), nats: nats.url(), address: None });
    let mut nodes = Vec::new();
    for place in &mut places {
        nodes.push(place.start().await);
    }
    let addresses: Vec<_> = nodes.iter().map(|node| node.reached_at().http).collect();
    let mut crowd = Crowd::new(Balancer::start(program, &addresses).await);
    let mut held = [0; NODES];
    for room in 0.. {
        for _ in 0..EACH {
            crowd.join(&format!("room-{room}")).await;
        }
        crowd.until_in(0).await;
        for (held, node) in held.iter_mut().zip(&nodes) {
            *held = sockets(node).await;
        }
        // Of a room all are on one node, and what is not in a room is spread as well.
        assert!(held.iter().all(|held| held % EACH == 0), "room {room}: {held:?}");
        assert_eq!(held.iter().sum::<usize>(), crowd.size());
        if held.iter().all(|held| *held >= 2 * EACH) {
            break;
        }
        assert!(room < 100, "not all nodes are given sockets: {held:?}");
    }
    println!("{} sockets are spread as {held:?}", crowd.size());

    nodes.remove(0).kill();
    let closes = crowd.until_in(held[0]).await;
    let refusals = crowd.refusals();
    println!("killed: closed {closes:?}, refused {refusals:?}");
    assert_eq!(closes.len(), held[0], "{closes:?}");
    assert!(refusals.len() <= held[0], "clients come back at once: {refusals:?}");
    assert!(closes.iter().all(|(_, code)| *code == 1006), "{closes:?}");
    nodes.push(places[0].start().await);

    places.rotate_left(1);
    for place in &mut places {
        let leaving = nodes.remove(0);
        let held = sockets(&leaving).await;
        leaving.stop().await;
        let closes = crowd.until_in(held).await;
        let refusals = crowd.refusals();
        println!("stopped: closed {closes:?}, refused {refusals:?}");
        assert!(refusals.len() <= held, "clients come back at once: {refusals:?}");
        let members: BTreeSet<_> = closes.iter().map(|(member, _)| *member).collect();
        assert_eq!((closes.len(), members.len()), (held, held), "{closes:?}");
        assert!(closes.iter().all(|(_, code)| *code == 1012), "{closes:?}");
        nodes.push(place.start().await);
    }
    let mut held = 0;
    for node in &nodes {
        held += sockets(node).await;
    }
    assert_eq!(held, crowd.size());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server and nginx"]
async fn nodes_come_and_go_behind_nginx() {
    nodes_come_and_go_behind(Program::Nginx).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server and haproxy"]
async fn nodes_come_and_go_behind_haproxy() {
    nodes_come_and_go_behind(Program::HaProxy).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nats-server and caddy"]
async fn nodes_come_and_go_behind_caddy() {
    nodes_come_and_go_behind(Program::Caddy).await;
}
