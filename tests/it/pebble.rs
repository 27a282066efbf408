//! Pebble, the authority of Let's Encrypt's project for tests, with its name server, as processes.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::eventually;
use crate::tls::Authority;

/// An authority that validates names at one port of loopback.
pub struct Pebble {
    processes: [Child; 2],
    folder: TempDir,
    address: SocketAddr,
    management: SocketAddr,
}

/// An address of loopback that is free for as long as nobody else asks.
pub fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}

impl Pebble {
    pub async fn start(tls_port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let [address, management, names, other] = [(); 4].map(|()| free_address());
        let authority = Authority::new();
        let (certificate, key) = authority.issue();
        fs::write(path("chain.pem"), certificate).unwrap();
        fs::write(path("key.pem"), key).unwrap();
        fs::write(path("root.pem"), authority.root_pem()).unwrap();
        let config = json!({"pebble": {
            "listenAddress": address,
            "managementListenAddress": management,
            "certificate": path("chain.pem"),
            "privateKey": path("key.pem"),
            "httpPort": other.port(),
            "tlsPort": tls_port,
        }});
        fs::write(path("config.json"), config.to_string()).unwrap();
        let mut name_server = Command::new("pebble-challtestsrv");
        name_server.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
        name_server.arg("-dns01").arg(names.to_string()).arg("-management").arg(other.to_string());
        let mut pebble = Command::new("pebble");
        pebble
            .arg("-strict")
            .arg("-config")
            .arg(path("config.json"))
            .arg("-dnsserver")
            .arg(names.to_string());
        // Some nonces are refused, and validation takes no extra time.
        pebble.env("PEBBLE_WFE_NONCEREJECT", "10").env("PEBBLE_VA_NOSLEEP", "1");
        let processes = [name_server, pebble].map(|mut command| {
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("Pebble is installed")
        });
        let pebble = Self { processes, folder, address, management };
        let client = pebble.client();
        let directory = pebble.directory();
        eventually("Pebble answers".to_owned(), async || client.get(&directory).send().await.is_ok()).await;
        pebble
    }

    /// The directory's URL.
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.address.port())
    }

    /// File of the root that signed the certificate of Pebble itself.
    pub fn root_file(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// The root of the certificates that are issued.
    pub async fn issuer(&self) -> CertificateDer<'static> {
        let url = format!("https://localhost:{}/roots/0", self.management.port());
        let text = self.client().get(url).send().await.unwrap().text().await.unwrap();
        CertificateDer::from_pem_slice(text.as_bytes()).unwrap()
    }

    fn client(&self) -> reqwest::Client {
        let root = fs::read(self.root_file()).unwrap();
        let root = reqwest::Certificate::from_pem(&root).unwrap();
        reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
