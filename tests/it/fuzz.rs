//! Random bytes on a real server's sockets and routes: it answers or ends the connection, without a panic and
//! without effects on other clients.
//!
//! The cases are the same in every run. A finding becomes a test beside the faulty code. Parsers have
//! tests of their own beside them.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::Client;
use crate::harness::{PATIENCE, Person, TestServer};

/// Number of concurrent connections.
const AT_ONCE: usize = 32;

/// A deterministic sequence of values.
fn cases<T: std::fmt::Debug>(count: usize, strategy: impl Strategy<Value = T>) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// Valid and almost valid text of clients.
fn json_like() -> impl Strategy<Value = Vec<u8>> {
    let kind = "userUpdate|heartbeat|directMessage|chat|muteUser|e2eeMlsMessage|callsApiHistoryEntry|enableAi|\
                disableAi|requestAiControl|relinquishAiControl|partyserver-ping|[a-z]{0,5}";
    let field = "user|to|id|message|payload|entry|sessionId|voice|instructions|track";
    let value = r#"null|true|-0|1e999|18446744073709551616|""|"x{0,40}"|"\\ud800"|\[{0,200}|\{"tracks":(1|\{\}|\{"audioEnabled":"x"\})\}|\{"id":"a","name":[0-9]\}"#;
    let message = format!(r#"\{{"type":"({kind})"(,"({field})":({value})){{0,3}}\}}?"#);
    let sound = r#"\{"type":"userUpdate","user":\{("raisedHand":(true|false|1))?\}\}|\{"type":"heartbeat"\}|\{"type":"chat","message":"x{0,9}"\}|\{"type":"directMessage","to":"m[0-9]","message":"x"\}"#;
    prop_oneof![
        4 => sound.prop_map(String::into_bytes),
        4 => proptest::string::string_regex(&message).unwrap().prop_map(String::into_bytes),
        1 => ".{0,60}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..60),
    ]
}

/// A frame of RFC 6455, possibly with a wrong length, or no frame.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![8 => Just(0x81_u8), 2 => Just(0x01), 2 => Just(0x80), 1 => Just(0x82),
                            1 => Just(0x88), 1 => Just(0x89), 1 => Just(0x8a), 1 => any::<u8>()];
    let lie =
        prop_oneof![12 => Just(0_i64), 1 => -3..4_i64, 1 => Just(i64::from(u32::MAX)), 1 => Just(i64::MIN)];
    let framed = (first, json_like(), any::<[u8; 4]>(), lie).prop_map(|(first, payload, mask, lie)| {
        let length = (payload.len() as i64).wrapping_add(lie) as u64;
        let mut bytes = vec![first];
        match length {
            0..126 => bytes.push(0x80 | length as u8),
            126..0x1_0000 => {
                bytes.push(0x80 | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend(length.to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    });
    prop_oneof![12 => framed, 1 => vec(any::<u8>(), 0..40)]
}

#[tokio::test]
async fn random_frames_end_the_socket_cleanly() {
    let server = TestServer::with(|config| {
        config.room.tick = Duration::from_millis(100);
        config.room.heartbeat_timeout = Duration::from_secs(2);
    });
    let server = server.await;
    let address = server.addresses().http;
    let mallory = Person::log_in(&server, "Mallory").await;
    let mut running = JoinSet::new();
    for (number, frames) in cases(400, vec(frame(), 0..12)).into_iter().enumerate() {
        let cookie = mallory.cookie().to_owned();
        running.spawn(async move {
            let head = format!(
                "GET /parties/rooms/fuzz-{}?_pk=m{number} HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\n\
                 Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                number % 8
            );
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 101");
            exchange(stream, &frames.concat(), End::OfTheRequest).await;
        });
        if running.len() >= AT_ONCE {
            running.join_next().await.unwrap().unwrap();
        }
    }
    running.join_all().await;
    // The inputs had every effect.
    for kind in ["userUpdate", "heartbeat", "chat", "invalid"] {
        assert!(server.metric(&format!("satsuma_messages_total{{type=\"{kind}\"}}")).await > 0.0, "{kind}");
    }
    for reason in ["protocol_error", "invalid_text", "message_too_big", "closed_by_client"] {
        assert!(
            server.metric(&format!("satsuma_closes_total{{reason=\"{reason}\"}}")).await > 0.0,
            "{reason}"
        );
    }
    assert_unharmed(&server).await;
}

/// A request with a path, headers and a body close to real ones, or far from them.
fn request(cookie: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let method = "GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS|[A-Z]{1,9}";
    let path = "(/partytracks/|/api/calls/|/parties/rooms/|/|/set-username|/api/bugReport|/api/debugInfo/|//)\
                (sessions/)?(new|[a-f0-9]{32}|[!-~]{0,20})?\
                (/tracks/(new|close|update)|/renegotiate|/datachannels/new|(/|%2f|%2e|\\.|%|\\\\|[!-~]){0,12})?\
                (\\?[!-~]{0,20})?";
    let name = "cookie|authorization|x-forwarded-for|x-forwarded-proto|x-forwarded-host|forwarded|origin|range|\
                upgrade|connection|content-type|content-encoding|transfer-encoding|expect|if-none-match|\
                if-modified-since|accept-encoding|sec-websocket-key|sec-websocket-version|te|x-[a-z]{1,9}";
    let value = prop_oneof![
        vec(any::<u8>(), 0..60),
        "websocket|upgrade|13|chunked|100-continue|bytes=[0-9-]{0,20}|\"[!-~]{0,8}\"|gzip;q=[0-9.]{0,4}|\
         application/json|application/x-www-form-urlencoded|multipart/form-data; boundary=[a-z]{0,3}|\
         https?://[!-~]{0,12}|[0-9a-f:.,]{0,30}"
            .prop_map(String::into_bytes),
    ];
    let headers = vec((name, value), 0..5);
    let body = prop_oneof![
        json_like(),
        "(username|room|info|description)=[!-~]{0,30}".prop_map(String::into_bytes),
        r#"\{"(tracks|sessionDescription)":(\[\{"location":"(local|remote)","mid":"[0-9]"\}\]|\{"type":"offer","sdp":"(v=0\\r\\n)?[ -!#-Z]{0,30}"\}|[0-9]|null)\}"#
            .prop_map(String::into_bytes),
    ];
    // The whole cookie, or one with an invalid byte.
    let cookie = cookie.to_owned().into_bytes();
    let cookie = prop_oneof![
        3 => Just(cookie.clone()),
        1 => (0..cookie.len(), any::<u8>()).prop_map(move |(at, byte)| {
            let mut cookie = cookie.clone();
            cookie[at] = byte;
            cookie
        }),
    ];
    (method, path, headers, body, cookie).prop_map(|(method, path, headers, body, cookie)| {
        let is_line = |byte: &u8| !matches!(byte, b'\r' | b'\n');
        let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nCookie: ").into_bytes();
        bytes.extend(cookie.into_iter().filter(is_line));
        for (name, value) in headers {
            bytes.extend(format!("\r\n{name}: ").as_bytes());
            bytes.extend(value.into_iter().filter(is_line));
        }
        bytes.extend(format!("\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()).as_bytes());
        bytes.extend(body);
        bytes
    })
}

#[tokio::test]
async fn random_requests_get_no_internal_error() {
    let server = TestServer::with(|config| {
        config.limits.header_timeout = Duration::from_millis(300);
        config.limits.request_timeout = Duration::from_millis(300);
        config.room.tick = Duration::from_millis(100);
    });
    let server = server.await;
    let address = server.addresses().http;
    let mallory = Person::log_in(&server, "Mallory").await;
    let mut running = JoinSet::new();
    let mut statuses = BTreeSet::new();
    for request in cases(1500, request(mallory.cookie())) {
        running.spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            let answer = exchange(stream, &request, End::OfTheAnswer).await;
            let shown = || format!("{}\n{}", request.escape_ascii(), String::from_utf8_lossy(&answer));
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", shown());
            assert!(!answer.starts_with(b"HTTP/1.1 500"), "{}", shown());
            answer.get(9..12).map(|status| String::from_utf8_lossy(status).into_owned())
        });
        if running.len() >= AT_ONCE {
            statuses.extend(running.join_next().await.unwrap().unwrap());
        }
    }
    statuses.extend(running.join_all().await.into_iter().flatten());
    // The requests had every kind of answer.
    for status in ["200", "302", "400", "401", "404", "405"] {
        assert!(statuses.contains(status), "no {status} among {statuses:?}");
    }
    assert_unharmed(&server).await;
}

/// The side that ends the conversation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client has sent everything, and closes.
    OfTheRequest,
    /// The server ends the connection.
    OfTheAnswer,
}

/// Sends all of it, as far as the server reads it, and returns the server's bytes.
async fn exchange(mut stream: TcpStream, request: &[u8], end: End) -> Vec<u8> {
    let (mut reader, mut writer) = stream.split();
    let mut answer = Vec::new();
    let write = async {
        // The server may close before all is sent.
        let _ = writer.write_all(request).await;
        if end == End::OfTheRequest {
            let _ = writer.shutdown().await;
        }
    };
    let read = async {
        // A reset is an end as well.
        let _ = reader.read_to_end(&mut answer).await;
    };
    let over = timeout(PATIENCE, async { tokio::join!(write, read) }).await;
    assert!(over.is_ok(), "still open after {}", request.escape_ascii());
    answer
}

async fn assert_unharmed(server: &TestServer) {
    assert_eq!(server.metric("satsuma_room_panics_total").await, 0.0);
    server.until_metric("satsuma_connections", 0.0).await;
    server.until_metric("satsuma_tcp_connections", 0.0).await;
    server.until_metric("satsuma_outbox_bytes", 0.0).await;
    Client::join(server, "afterwards", "Ada").await.echo().await;
}
