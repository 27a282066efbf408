//! A server in a process of its own, which can be killed.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use satsuma::server::Addresses;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Reach, eventually_within};

/// Timeout of a start, in a build without optimization on a busy machine.
const START: Duration = Duration::from_secs(30);

/// The program.
pub const BINARY: &str = env!("CARGO_BIN_EXE_satsuma");

/// A server in a process of its own, killed on drop.
pub struct Process {
    child: Child,
    addresses: Addresses,
}

impl Process {
    /// Starts a server with these settings, and waits until both of its listeners answer.
    pub async fn start(data: &Path, settings: &[(&str, &str)]) -> Self {
        let process = Self::launch(data, settings);
        process.until_started().await;
        process
    }

    /// Starts a server, and waits until its operators' listener answers; the public one may speak TLS.
    pub async fn start_operated(data: &Path, settings: &[(&str, &str)]) -> Self {
        let process = Self::launch(data, settings);
        let address = process.addresses.admin;
        eventually_within(START, "the process answers".to_owned(), async || answers(address).await).await;
        process
    }

    /// Starts a server without waiting for it.
    pub fn launch(data: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(BINARY);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self::spawn(command, data, settings)
    }

    /// Starts a server by a command that runs [`BINARY`], without waiting for it.
    pub fn spawn(mut command: Command, data: &Path, settings: &[(&str, &str)]) -> Self {
        let [http, admin] = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let [http_address, admin_address] = [&http, &admin].map(|listener| listener.local_addr().unwrap());
        let given = |wanted: &str| settings.iter().find(|(name, _)| *name == wanted);
        let chosen = |name: &str, free| given(name).map_or(free, |(_, address)| address.parse().unwrap());
        let http_address = chosen("SATSUMA_HTTP__LISTEN", http_address);
        let admin_address = chosen("SATSUMA_ADMIN__LISTEN", admin_address);
        command
            .current_dir(data.parent().unwrap())
            .env("SATSUMA_DATA_DIR", data)
            .env("SATSUMA_HTTP__LISTEN", http_address.to_string())
            .env("SATSUMA_ADMIN__LISTEN", admin_address.to_string())
            .env("SATSUMA_SFU__UDP_LISTEN", "127.0.0.1:0")
            .envs(settings.iter().copied());
        // The ports are free until the process binds them.
        drop((http, admin));
        let addresses = Addresses { http: http_address, admin: admin_address };
        Self { child: command.spawn().unwrap(), addresses }
    }

    /// Waits until the server answers.
    ///
    /// The kernel accepts connections as soon as the server listens, so an answer is awaited,
    /// not a connection.
    #[track_caller]
    pub fn until_started(&self) -> impl Future<Output = ()> {
        let Addresses { http, admin } = self.addresses;
        eventually_within(START, "the process answers".to_owned(), async move || {
            answers(http).await && answers(admin).await
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGKILL, and waits for the end.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM, and waits for a successful exit, which means that everything is stored.
    pub async fn stop(self) {
        self.signal(Signal::TERM);
        self.ended_well().await;
    }

    pub fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for a successful exit, which means that everything is stored.
    pub async fn ended_well(self) {
        let mut process = self;
        let status = tokio::task::spawn_blocking(move || process.child.wait().unwrap()).await.unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Reach for Process {
    fn reached_at(&self) -> Addresses {
        self.addresses
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL; the process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn answers(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    let mut head = [0; 9];
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.is_ok()
        && stream.read_exact(&mut head).await.is_ok()
        && head.starts_with(b"HTTP/1.")
}
