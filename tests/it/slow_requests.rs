//! Connections that are slow before their first request is complete.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{TestServer, eventually};

/// Detecting HTTP/1 or HTTP/2 in the library waited for the first bytes without a limit: a
/// connection that sent nothing, or half of a preface, stayed for ever.
#[tokio::test]
async fn unfinished_request_is_closed() {
    let server = TestServer::with(|config| {
        config.limits.header_timeout = Duration::from_millis(300);
        config.limits.request_timeout = Duration::from_millis(300);
    })
    .await;
    let beginnings: [&[u8]; 5] = [
        b"",
        b"G",
        b"PRI * HTTP/2.0\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"POST /set-username HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
          Content-Length: 100\r\n\r\nuser",
    ];
    for beginning in beginnings {
        let mut stream = TcpStream::connect(server.addresses().http).await.unwrap();
        stream.write_all(beginning).await.unwrap();
        let mut answer = Vec::new();
        let end = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "still open after {:?}", String::from_utf8_lossy(beginning));
    }
    server.until_metric("satsuma_tcp_connections", 0.0).await;
}

#[tokio::test]
async fn http_connections_of_an_address_are_limited() {
    let server = TestServer::with(|config| config.limits.http_connections_per_address = 2).await;
    let address = server.addresses().http;
    let _first = TcpStream::connect(address).await.unwrap();
    let second = TcpStream::connect(address).await.unwrap();
    let mut third = TcpStream::connect(address).await.unwrap();
    let mut nothing = Vec::new();
    // A reset is as good as an end here.
    let _ = third.read_to_end(&mut nothing).await;
    assert!(nothing.is_empty());
    eventually("a refusal is counted".into(), async || server.refusals("too_many_of_address").await >= 1.0)
        .await;
    drop(second);
    eventually("the place is free again".into(), async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let written = stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await;
        let mut answer = Vec::new();
        written.is_ok() && stream.read_to_end(&mut answer).await.is_ok() && answer.starts_with(b"HTTP/1.")
    })
    .await;
}
