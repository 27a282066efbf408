//! Failed starts leave nothing running.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use satsuma::config::{Config, Optional};
use tokio::runtime::Handle;

use crate::client::{Ask, Client};
use crate::harness::{Person, TestServer, eventually};

/// An address of loopback that is free over TCP and UDP.
fn free() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = tcp.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// Makes a setting invalid.
type Edit<'a> = dyn Fn(&mut Config) + 'a;

/// Rooms, the store and the media thread continued in a process whose start had failed, and held their ports.
#[tokio::test]
async fn failed_start_leaves_nothing_running() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    let mut client: Client = Ask::room("room").by(&ada).pk("ada").open(&server).await;
    client.until_users(&["ada"]).await;
    let stopped = server.stop().await;
    drop(client);

    let [http, admin, media] = [free(), free(), free()];
    let fixed = |config: &mut Config| {
        (config.http.listen, config.admin.listen, config.sfu.udp_listen) = (http, admin, media);
    };
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let taken = taken.local_addr().unwrap();
    let faults: [(&str, &Edit<'_>); 5] = [
        ("admin.listen", &|config| config.admin.listen = taken),
        ("sfu.udp_listen", &|config| config.sfu.udp_listen = taken),
        ("/no/such/folder", &|config| config.client.dir = Optional(Some("/no/such/folder".into()))),
        ("feedback.url", &|config| config.feedback.url = Optional(Some("no URL".into()))),
        ("/no/such/file", &|config| {
            config.http.tls_certificate = Optional(Some("/no/such/file".into()));
            config.http.tls_key = Optional(Some("/no/such/file".into()));
        }),
    ];
    let tasks = Handle::current().metrics();
    for (cause, edit) in faults {
        let error = stopped
            .fail_with(|config| {
                fixed(config);
                edit(config);
            })
            .await;
        assert!(error.to_string().contains(cause), "{cause}: {error}");
        for address in [http, admin, media] {
            assert!(TcpListener::bind(address).is_ok(), "{cause}: {address} is held");
        }
        assert!(UdpSocket::bind(media).is_ok(), "{cause}: {media} is held");
        eventually(format!("{cause}: no task is left"), async || tasks.num_alive_tasks() == 0).await;
    }

    let server = stopped.start_with(fixed).await;
    let mut client: Client = Ask::room("room").by(&ada).pk("ada").open(&server).await;
    client.until_users(&["ada"]).await;
    server.stop().await;
}
