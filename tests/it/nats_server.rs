//! A `nats-server` in a process of its own, and a cable in front of it that can be cut.

#![expect(clippy::disallowed_methods, reason = "each task is aborted with the cable")]

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::harness::eventually;

/// The program: a new one if the environment names it, otherwise that of the path.
pub fn newest() -> String {
    std::env::var("NATS_SERVER").unwrap_or_else(|_| "nats-server".to_owned())
}

/// A server, killed on drop. Its journals are removed with it.
pub struct NatsServer {
    child: Child,
    program: String,
    dir: TempDir,
    port: u16,
}

/// A free port. The server binds it a moment later.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

impl NatsServer {
    /// A single server with JetStream, and these further lines of its configuration.
    pub async fn start(program: &str, lines: &str) -> Self {
        let lines = format!("jetstream {{ store_dir: \"DIR/data\" }}\nmax_payload: 8MB\n{lines}");
        let server = Self::launch(program, &lines);
        server.until_ready().await;
        server
    }

    /// A server with this configuration, in which `DIR/data` is the folder of its journals.
    pub fn launch(program: &str, lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let lines = lines.replace("DIR/data", dir.path().join("data").to_str().unwrap());
        fs::write(dir.path().join("nats.conf"), format!("listen: \"127.0.0.1:{port}\"\n{lines}")).unwrap();
        let child = spawn(program, &dir);
        Self { child, program: program.to_owned(), dir, port }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub async fn until_ready(&self) {
        let address = self.address();
        eventually("nats-server listens".to_owned(), async || TcpStream::connect(address).await.is_ok())
            .await;
    }

    /// Sends SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, on the same port and the same files.
    pub fn restart(&mut self) {
        self.child = spawn(&self.program, &self.dir);
    }

    /// Its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

fn spawn(program: &str, dir: &TempDir) -> Child {
    let mut command = Command::new(program);
    command.arg("-c").arg(dir.path().join("nats.conf")).arg("-l").arg(dir.path().join("log"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"))
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A TCP proxy. While it holds, nothing passes and nothing is closed, as when a cable is pulled.
pub struct Cable {
    address: SocketAddr,
    holds: watch::Sender<bool>,
    _task: AbortOnDropHandle<()>,
}

impl Cable {
    pub async fn new(to: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (holds, held) = watch::channel(false);
        let task = async move {
            let mut open = Vec::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let mut held = held.clone();
                open.push(AbortOnDropHandle::new(tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(to).await else { return };
                    let _ = held.wait_for(|holds| !holds).await;
                    // A copy that is given up loses what it has read: the connection is dead for good.
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => return,
                        _ = held.wait_for(|holds| *holds) => {}
                    }
                    let _ = held.wait_for(|holds| !holds).await;
                })));
            }
        };
        Self { address, holds, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Lets nothing pass any more, or lets new connections pass; the old ones end then.
    pub fn hold(&self, holds: bool) {
        self.holds.send_replace(holds);
    }
}
