//! Members with a high latency are not evicted because of other members' messages.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use satsuma::server::Addresses;

use crate::client::{Client, Received};
use crate::harness::TestServer;

/// A proxy that delays a client's bytes, pongs included, by `delay`.
struct FarWay {
    addresses: Addresses,
    _carriers: JoinSet<()>,
}

impl FarWay {
    async fn to(server: &TestServer, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = server.addresses();
        let addresses = Addresses { http: listener.local_addr().unwrap(), ..near };
        let mut carriers = JoinSet::new();
        carriers.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(near.http).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                connections.spawn(async move {
                    let _ = copy(&mut from_server, &mut to_client).await;
                });
                connections.spawn(async move {
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok(bytes @ 1..) = from_client.read(&mut buffer).await {
                        sleep(delay).await;
                        if to_server.write_all(&buffer[..bytes]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { addresses, _carriers: carriers }
    }
}

async fn has_all(client: &mut Client, payloads: &[String]) {
    for payload in payloads {
        let wanted = format!(r#"{{"type":"e2eeMlsMessage","payload":"{payload}"}}"#);
        client.until_text(&wanted).await;
    }
    assert!(!client.received_so_far().iter().any(|received| matches!(received, Received::Closed(..))));
}

/// Nine such messages, a few kilobytes when compressed, evicted every member whose pong took 50 ms.
#[tokio::test]
async fn burst_evicts_no_member_with_high_latency() {
    let server = TestServer::start().await;
    let far = FarWay::to(&server, Duration::from_millis(100)).await;
    let mut eve = Client::join(&server, "r", "Eve").await;
    let mut others = Vec::new();
    for name in ["Ada", "Bob", "Cyd"] {
        others.push(Client::join(&far.addresses, "r", name).await);
    }
    let payloads: Vec<String> = (0..9).map(|number| format!("{number}{}", "x".repeat(1_000_000))).collect();
    for payload in &payloads {
        eve.say(json!({"type": "e2eeMlsMessage", "payload": payload})).await;
    }
    for other in &mut others {
        has_all(other, &payloads).await;
    }
    assert!(server.metric("satsuma_held_back_total").await >= 1.0, "the sender waited for them");
    assert_eq!(server.metric("satsuma_members").await, 4.0);
}

/// Each of a hundred joins makes one member send a kilobyte for each member to all others.
#[tokio::test]
async fn encrypted_joins_evict_no_member_with_high_latency() {
    const MEMBERS: usize = 100;
    let server = TestServer::start().await;
    let far = FarWay::to(&server, Duration::from_millis(300)).await;
    let mut first = Client::join(&server, "r", "Ada").await;
    let mut joining: JoinSet<Client> = JoinSet::new();
    for number in 1..MEMBERS {
        let addresses = far.addresses;
        joining.spawn(async move { Client::join(&addresses, "r", &format!("Member {number}")).await });
    }
    let mut others = Vec::new();
    let mut last = String::new();
    while let Some(other) = joining.join_next().await {
        others.push(other.unwrap());
        last = format!("{}{}", others.len(), "x".repeat(1000 * others.len()));
        first.say(json!({"type": "e2eeMlsMessage", "payload": last})).await;
    }
    for other in &mut others {
        has_all(other, std::slice::from_ref(&last)).await;
    }
    assert_eq!(server.metric("satsuma_members").await, MEMBERS as f64);
}
