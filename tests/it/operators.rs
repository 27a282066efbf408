//! The operators' listener, and data that must not leave the server.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection, Executor};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use crate::client::{Ask, Client};
use crate::harness::{PATIENCE, Person, TestServer, answer, eventually, logged};

#[tokio::test]
async fn health_and_readiness_need_no_token() {
    let server = TestServer::start().await;
    let health = answer(server.admin("/healthz")).await;
    assert_eq!((health.status, &*health.text), (200, "ok\n"));
    let ready = answer(server.admin("/readyz")).await;
    assert_eq!(
        (ready.status, ready.json()),
        (200, json!({"status": "ready", "rooms": {"status": "ok"}, "store": {"status": "ok"}}))
    );
    assert_eq!(answer(server.admin("/nothing")).await.status, 404);
}

#[tokio::test]
async fn metrics_count_joins_messages_and_requests() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let _bob = Client::join(&server, "r", "Bob").await;
    let _cyd = Client::join(&server, "r2", "Cyd").await;
    ada.say(json!({"type": "heartbeat"})).await;
    ada.say(json!({"type": "no such type"})).await;
    ada.echo().await;
    for (name, value) in [
        ("satsuma_connections", 3.0),
        ("satsuma_members", 3.0),
        ("satsuma_rooms", 2.0),
        (r#"satsuma_messages_total{type="heartbeat"}"#, 1.0),
        (r#"satsuma_messages_total{type="invalid"}"#, 1.0),
        (r#"satsuma_http_request_seconds_count{route="/parties/{*path}",status="101"}"#, 3.0),
        (r#"satsuma_http_request_seconds_count{route="/set-username",status="302"}"#, 3.0),
    ] {
        assert_eq!(server.metric(name).await, value, "{name}");
    }
    assert!(server.metric("satsuma_broadcasts_total").await >= 3.0);
    assert!(server.metric("satsuma_sent_bytes_total").await > 0.0);
    assert!(server.metric("satsuma_received_bytes_total").await > 0.0);
    eventually("the store's writes are timed".to_owned(), async || {
        server.metric("satsuma_store_write_seconds_count").await > 0.0
    })
    .await;

    let metrics = answer(server.admin("/metrics")).await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"), "{metrics:?}");
    assert!(metrics.text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn admin_routes_need_the_token() {
    let server = TestServer::start().await;
    let _ada = Client::join(&server, "r", "Ada").await;
    for path in ["/admin/rooms", "/admin/rooms/r", "/admin/rooms/unknown"] {
        for request in [
            server.admin(path),
            server.admin(path).bearer_auth("wrong"),
            server.admin(path).bearer_auth(""),
            server.admin(path).basic_auth("operator", Some("wrong")),
        ] {
            let refused = answer(request).await;
            assert_eq!(refused.status, 401, "{path}");
            assert!(!refused.text.contains("Ada"));
        }
    }
    let seen = server.admin_get("/admin/rooms").await;
    assert_eq!((seen.status, seen.header("cache-control")), (200, "no-store"));
}

#[tokio::test]
async fn public_listener_has_no_admin_routes() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    let token = std::fs::read_to_string(server.data_dir().join("operator.token")).unwrap();
    for (path, text) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let bare = answer(server.get(path)).await;
        assert_eq!((bare.status, &*bare.text), (200, text), "no login, and no word more");
        assert_eq!(bare.header("cache-control"), "no-store");
        let spelled = answer(server.get(&format!("{}/", path.to_uppercase()))).await;
        assert_eq!((spelled.status, spelled.header("location")), (308, path), "no room has this address");
    }
    for path in ["/admin/rooms", "/admin/rooms/r", "/metrics"] {
        let request = server.get(path).header("cookie", ada.cookie()).bearer_auth(token.trim());
        let seen = answer(request).await;
        let is_a_page = seen.status == 200 && seen.header("content-type").starts_with("text/html");
        assert!(seen.status == 404 || is_a_page, "{path}: {seen:?}");
    }
}

#[tokio::test]
async fn room_view_has_members_and_connections() {
    let server = TestServer::start().await;
    let room = "my room/1";
    let mut ada = Client::join(&server, room, "Ada").await;
    let bob = Client::join(&server, room, "Bob").await;
    let meeting = ada.until_state(|_| true).await["meetingId"].take();
    let bob_pk = bob.pk();
    bob.drop_tcp().await;
    server.until_away("my%20room%2F1", &bob_pk).await;
    ada.say(json!({"type": "e2eeMlsMessage", "payload": "x".repeat(1000)})).await;
    ada.echo().await;

    let seen = server.admin_get("/admin/rooms/my%20room%2F1").await.json();
    assert_eq!((&seen["room"], &seen["meetingId"]), (&json!(room), &meeting));
    let members = seen["members"].as_array().unwrap();
    let [bob, ada] = ["Bob", "Ada"].map(|name| members.iter().find(|member| member["name"] == name).unwrap());
    assert_eq!(members.len(), 2);
    assert_eq!((&bob["id"], &bob["connection"]), (&json!(bob_pk), &json!(null)));
    assert!(bob["queuedBytes"].as_u64().unwrap() > 1000, "{seen}");
    assert!(ada["connection"]["id"].is_u64() && ada["connection"]["ageSeconds"].is_f64(), "{seen}");
    assert!(ada["lastHeartbeatSecondsAgo"].as_f64().unwrap() < 60.0, "{seen}");

    let all = server.admin_get("/admin/rooms").await.json();
    let row = &all["rooms"][0];
    assert_eq!(all["rooms"].as_array().unwrap().len(), 1);
    assert_eq!(
        *row,
        json!({"room": room, "meetingId": meeting, "members": 2, "connections": 1, "queuedBytes": row["queuedBytes"]})
    );
    assert!(row["queuedBytes"].as_u64() >= bob["queuedBytes"].as_u64(), "{row}");
}

#[tokio::test]
async fn room_view_of_unknown_room_is_404() {
    let server = TestServer::start().await;
    assert_eq!(server.admin_get("/admin/rooms").await.json(), json!({"rooms": []}));
    assert_eq!(server.admin_get("/admin/rooms/unknown").await.status, 404);
    assert_eq!(server.admin_get(&format!("/admin/rooms/{}", "x".repeat(129))).await.status, 400);
}

#[tokio::test]
async fn gauges_return_to_zero_after_churn() {
    const ROOMS: usize = 20;
    const JOINS: usize = 10;
    let server = TestServer::with(|config| {
        config.room.tick = Duration::from_millis(50);
        config.room.heartbeat_timeout = Duration::from_secs(2);
        config.limits.new_rooms_per_minute = 0;
    });
    let server = Arc::new(server.await);
    let ada = Person::log_in(&server, "Ada").await;
    let mut rooms = JoinSet::new();
    for room in 0..ROOMS {
        let (server, ada) = (server.clone(), ada.clone());
        rooms.spawn(async move {
            let room = format!("r{room}");
            for join in 0..JOINS {
                let pk = Uuid::new_v4().to_string();
                let mut client = Ask::room(&room).by(&ada).pk(&pk).open(&server).await;
                client.try_say(json!({"type": "e2eeMlsMessage", "payload": "x".repeat(1000)})).await;
                client.try_say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
                match join % 4 {
                    0 => {
                        client.try_say(json!({"type": "userLeft"})).await;
                        client.closed().await;
                    }
                    1 => drop(client.close().await),
                    2 => drop(client.drop_tcp().await),
                    _ => drop(client.drop_tcp().await.open(&server).await),
                }
            }
        });
    }
    rooms.join_all().await;
    for gauge in ["connections", "tcp_connections", "rooms", "members", "outbox_bytes", "store_pending"] {
        server.until_metric(&format!("satsuma_{gauge}"), 0.0).await;
    }
    let route = r#"satsuma_http_request_seconds_count{route="/parties/{*path}",status="101"}"#;
    assert!(server.metric(route).await >= (ROOMS * JOINS) as f64);
    assert_eq!(server.admin_get("/admin/rooms").await.json(), json!({"rooms": []}));
}

#[tokio::test]
async fn stored_files_are_readable_by_their_owner_only() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    ada.echo().await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&server.data_dir()), 0o700);
    let mut names = Vec::new();
    for file in std::fs::read_dir(server.data_dir()).unwrap() {
        let file = file.unwrap();
        let expected = if file.file_type().unwrap().is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&file.path()), expected, "{file:?}");
        names.push(file.file_name().into_string().unwrap());
    }
    for name in ["satsuma.db", "satsuma.db-wal", "signing.key", "operator.token"] {
        assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
    }
}

#[tokio::test]
async fn failing_store_is_shown_and_rooms_continue() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    // Another process locks the database, as a broken backup might.
    let options = SqliteConnectOptions::new().filename(server.data_dir().join("satsuma.db"));
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    ada.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    eventually("readyz says that the store fails".to_owned(), async || {
        let ready = answer(server.admin("/readyz")).await;
        ready.status == 503
            && ready.json()["status"] == "failing"
            && ready.json()["store"]["since"].is_string()
    })
    .await;
    assert!(server.metric("satsuma_store_failures_total").await >= 1.0);
    assert_eq!(answer(server.admin("/healthz")).await.status, 200);
    let mut bob = Client::join(&server, "r", "Bob").await;
    let pk = ada.pk();
    bob.until_state(|state| state["users"].to_string().contains(&pk)).await;

    other.execute("ROLLBACK").await.unwrap();
    eventually("readyz says that all is well".to_owned(), async || {
        answer(server.admin("/readyz")).await.status == 200
    })
    .await;
    let server = server.restart().await;
    assert_eq!(server.metric("satsuma_members").await, 2.0, "what could not be written was written later");
}

#[tokio::test]
async fn unresponsive_client_does_not_delay_shutdown() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    ada.stop_reading().await;
    let ready = server.admin("/readyz");
    let watch = async {
        eventually("readyz says that the server stops".to_owned(), async || {
            let ready = answer(ready.try_clone().unwrap()).await;
            ready.status == 503 && ready.json()["status"] == "stopping"
        })
        .await;
    };
    server.shutdown();
    let (_stopped, ()) = tokio::join!(server.stop(), watch);
}

#[tokio::test]
async fn secrets_and_private_data_are_not_logged() {
    let server = TestServer::start().await;
    let room = Uuid::new_v4().to_string();
    let ada = Person::log_in(&server, "Ada").await;
    let mut client = Ask::room(&room).by(&ada).pk("a").open(&server).await;
    let body =
        json!({"type": "request", "endpoint": "/sessions/new?token=in-a-query", "body": "ice-password"});
    client.say(json!({"type": "callsApiHistoryEntry", "entry": body})).await;
    client.say(json!({"type": "directMessage", "to": "a", "message": "private words"})).await;
    client.say(json!({"type": "teleport", "to": "private place"})).await;
    client.event().await;
    client.event().await;
    let foreign = Ask::room(&room).by(&ada).pk("b").header("origin", "https://evil.example");
    assert_eq!(foreign.answer(&server).await.status, 403);
    assert_eq!(
        Ask::room(&room).by(&Person::with_cookie(format!("{}x", ada.cookie()))).answer(&server).await.status,
        401
    );
    server.admin_get(&format!("/admin/rooms/{room}")).await;
    let file = |name: &str| std::fs::read_to_string(server.data_dir().join(name)).unwrap().trim().to_owned();
    let secrets = [
        ada.cookie().rsplit('.').next().unwrap().to_owned(),
        file("operator.token"),
        file("signing.key"),
        "ice-password".to_owned(),
        "in-a-query".to_owned(),
        "private words".to_owned(),
        "private place".to_owned(),
    ];
    client.close().await;
    let stopped = server.stop().await;

    let log = logged();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(&room)).collect();
    for event in [
        "onStart",
        "onConnect",
        "startingMeeting",
        "clientNegotiationRecord",
        "errorHandlingMessage",
        "onClose",
    ] {
        assert!(lines.iter().any(|line| line.contains(event)), "{event} is not logged: {lines:#?}");
    }
    assert!(log.contains("originRefused") && log.contains("https://evil.example"));
    for secret in secrets {
        assert!(!secret.is_empty());
        let line = log.lines().find(|line| line.contains(&secret));
        assert_eq!(line, None, "{secret} is logged");
    }
    drop(stopped);
}

#[tokio::test]
async fn start_banner_names_the_media_upstream() {
    let banner = async |format: &str, variables: &[(&str, &str)]| {
        let dir = tempfile::tempdir().unwrap();
        let mut run = tokio::process::Command::new(env!("CARGO_BIN_EXE_satsuma"));
        run.args(["--listen", "127.0.0.1:0"]).current_dir(dir.path()).kill_on_drop(true);
        run.env("SATSUMA_ADMIN__LISTEN", "127.0.0.1:0").env("SATSUMA_SFU__UDP_LISTEN", "127.0.0.1:0");
        run.env("SATSUMA_LOG__FORMAT", format).envs(variables.iter().copied()).stdout(Stdio::piped());
        let mut process = run.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let is_last = |line: &str| line.starts_with("page: ") || line.contains(r#""event":"listening""#);
        let mut banner = String::new();
        while !banner.lines().any(is_last) {
            banner += &timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().expect("a further line");
            banner.push('\n');
        }
        banner
    };
    let human = banner("human", &[]).await;
    assert!(
        human.contains("\nmedia: embedded SFU on port ") && human.contains("advertised as 127.0.0.1:"),
        "{human}"
    );
    assert!(human.contains("on: rooms, reports, media;"), "{human}");
    let json: Value = serde_json::from_str(&banner("json", &[]).await).unwrap();
    assert_eq!(json["media"]["upstream"], "embedded");
    assert_eq!(json["media"]["addresses"], json!([json["media"]["bound"]]));
    let cloudflare = [("CALLS_APP_ID", "app"), ("CALLS_APP_SECRET", "s")];
    let json: Value = serde_json::from_str(&banner("json", &cloudflare).await).unwrap();
    assert_eq!(json["media"], json!({"upstream": "cloudflare", "url": "https://rtc.live.cloudflare.com/v1"}));
    let half = banner("human", &cloudflare[..1]).await;
    assert!(half.contains("\nmedia: none\n") && half.contains("CALLS_APP_SECRET is not set"), "{half}");
}
