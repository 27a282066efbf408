//! Attackers, broken clients and broken machines, and their effects on other members.
//!
//! In each test a meeting continues: all its messages arrive, once and in order. Afterwards all resources
//! are released, which the gauges show. `crash.rs` has `kill -9`, `load.rs` the load
//! with joins and leaves, `calls.rs` and `ai.rs` the services that hang.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection, Executor};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Ask, Client, user_of};
use crate::harness::{PATIENCE, Person, TestServer, answer};

/// Two members who exchange messages during an attack.
struct Meeting {
    ada: Client,
    bob: Client,
    sent: u64,
}

impl Meeting {
    async fn begin(server: &TestServer) -> Self {
        let (ada, bob) =
            tokio::join!(Client::join(server, "meeting", "Ada"), Client::join(server, "meeting", "Bob"));
        Self { ada, bob, sent: 0 }
    }

    /// Each sends a message, which the other receives next.
    async fn goes_on(&mut self) {
        self.sent += 1;
        let message = json!({"type": "e2eeMlsMessage", "payload": self.sent.to_string()});
        self.ada.say(message.clone()).await;
        assert_eq!(self.bob.event().await, message);
        self.bob.say(message.clone()).await;
        assert_eq!(self.ada.event().await, message);
    }
}

/// Waits until all resources of sockets and rooms are released.
async fn until_nothing_is_taken(server: &TestServer) {
    for gauge in ["connections", "tcp_connections", "rooms", "members", "outbox_bytes", "store_pending"] {
        server.until_metric(&format!("satsuma_{gauge}"), 0.0).await;
    }
    assert_eq!(server.admin_get("/admin/rooms").await.json(), json!({"rooms": []}));
    assert_eq!(server.metric("satsuma_room_panics_total").await, 0.0);
}

async fn everybody_leaves(server: &TestServer, clients: impl IntoIterator<Item = Client>) {
    for mut client in clients {
        client.say(json!({"type": "userLeft"})).await;
        client.closed().await;
    }
    until_nothing_is_taken(server).await;
}

#[tokio::test]
async fn message_flood_affects_only_its_sender() {
    let server = TestServer::with(|config| {
        config.limits.messages_per_second = 200;
        config.limits.message_burst = 300;
        config.limits.throttle_timeout = Duration::from_millis(200);
        config.room.tick = Duration::from_millis(100);
        // The flooders' members stay until the end of the test, however busy the machine is.
        config.room.heartbeat_timeout = Duration::from_secs(300);
    });
    let server = server.await;
    let mut meeting = Meeting::begin(&server).await;
    let update = json!({"type": "userUpdate", "user": {"raisedHand": true, "extra": "x".repeat(2000)}});
    let floods = [
        Message::text(update.to_string()),
        Message::text("[".repeat(2000)),
        Message::text(json!({"type": "directMessage", "to": "nobody", "message": "x"}).to_string()),
        Message::binary(vec![0; 2000]),
        Message::Ping("flood".into()),
    ];
    let mut flooders = Vec::new();
    for flood in floods {
        let mut eve = Client::join(&server, "meeting", "Eve").await;
        let is_over = Cell::new(false);
        let flooding = async {
            while eve.try_say_raw(flood.clone()).await {}
            is_over.set(true);
        };
        let exchanging = async {
            // At a usual rate: faster senders are throttled.
            for _ in 0..20 {
                meeting.goes_on().await;
            }
        };
        tokio::join!(flooding, exchanging);
        assert!(is_over.get());
        assert_eq!(eve.closed().await.0, 1008, "{flood:.40?}");
        flooders.push(eve.ask());
    }
    server.until_metric(r#"satsuma_closes_total{reason="too_fast"}"#, 5.0).await;
    server.until_metric("satsuma_connections", 2.0).await;
    // A flooder's member stays like any other; it reconnects, and leaves.
    let mut clients = vec![meeting.ada, meeting.bob];
    for ask in flooders {
        clients.push(ask.open(&server).await);
    }
    everybody_leaves(&server, clients).await;
}

/// A member that reconnected with many messages was timed out, since the heartbeats waited behind them.
#[tokio::test]
async fn throttled_member_does_not_time_out() {
    let server = TestServer::with(|config| {
        config.room.tick = Duration::from_millis(100);
        config.room.heartbeat_timeout = Duration::from_millis(300);
    });
    let server = server.await;
    let mut ada = Client::join(&server, "meeting", "Ada").await;
    // Three seconds at 50 a second, ten times the heartbeat timeout.
    const QUEUED: u64 = 350;
    for number in 0..QUEUED {
        ada.say(json!({"type": "chat", "message": number.to_string()})).await;
    }
    for number in 0..QUEUED {
        let event = ada.event().await;
        assert_eq!(event["message"], json!(number.to_string()), "{event}");
    }
    assert!(server.metric("satsuma_held_back_total").await > 0.0);
    everybody_leaves(&server, [ada]).await;
}

/// 17 kB of compressed text became a gigabyte of values, none of which the process released.
#[tokio::test]
async fn json_bomb_is_refused() {
    let server = TestServer::with(|config| config.room.tick = Duration::from_millis(100)).await;
    let mut meeting = Meeting::begin(&server).await;
    let mut eve = Client::join(&server, "meeting", "Eve").await;
    let values = r#"{"a":0},"#.repeat(131_000);
    for _ in 0..2 {
        eve.say_raw(Message::text(format!(r#"{{"type":"userUpdate","user":{{"x":[{values}0]}}}}"#))).await;
        let refusal = eve.event().await;
        assert_eq!(refusal["type"], "error", "{refusal}");
    }
    meeting.goes_on().await;
    everybody_leaves(&server, [meeting.ada, meeting.bob, eve]).await;
}

#[tokio::test]
async fn connection_flood_leaves_meeting_and_gauges_intact() {
    const FLOOD: usize = 120;
    let server = TestServer::with(|config| {
        config.limits.connections = 3;
        config.limits.http_connections = 20;
        config.room.tick = Duration::from_millis(100);
    });
    let server = Arc::new(server.await);
    let mut meeting = Meeting::begin(&server).await;
    let cyd = Person::log_in(&server, "Cyd").await;
    let last = Ask::room("meeting").by(&cyd).pk("last").open(&server).await;
    let seat = meeting.ada.pk();
    // Without identity, malformed, and for an unknown party. A claim on another member's id is refused by the room, unless
    // another such claim is under way.
    let requests = [
        (Ask::room("meeting").pk("x"), [401, 401]),
        (Ask::room("meeting").by(&cyd).pk("x").header("sec-websocket-version", "7"), [400, 400]),
        (Ask::room("").by(&cyd).pk("x"), [400, 400]),
        (Ask::room("meeting").by(&cyd).pk("x"), [503, 503]),
        (Ask::room("meeting").by(&cyd).pk(&seat), [403, 503]),
        (Ask::room("another").by(&cyd).pk("x"), [503, 503]),
    ];
    let mut flood = JoinSet::new();
    for (ask, status) in requests.iter().cycle().take(FLOOD).cloned() {
        let server = server.clone();
        flood.spawn(async move { (ask.answer(&server).await.status, status) });
    }
    while !flood.is_empty() {
        meeting.goes_on().await;
        while let Some(refused) = flood.try_join_next() {
            let (status, wanted) = refused.unwrap();
            assert!(wanted.contains(&status), "{status} in place of {wanted:?}");
        }
    }
    let refused = server.refusals("server_full").await + server.refusals("seat_taken").await;
    assert_eq!(refused, (FLOOD / 2) as f64);
    server.until_metric("satsuma_tcp_connections", 0.0).await;
    assert_eq!((server.metric("satsuma_rooms").await, server.metric("satsuma_members").await), (1.0, 3.0));
    // The flood holds no slot: the next client gets the one that becomes free.
    let ask = last.drop_tcp().await;
    server.until_metric("satsuma_connections", 2.0).await;
    let last = ask.open(&server).await;
    everybody_leaves(&server, [meeting.ada, meeting.bob, last]).await;
}

#[tokio::test]
async fn vanished_peer_is_removed_and_its_socket_closed() {
    let server = TestServer::with(|config| {
        config.room.tick = Duration::from_millis(50);
        config.room.heartbeat_timeout = Duration::from_millis(1500);
    });
    let server = server.await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    // One sends nothing any more; the other vanished in the middle of a message. Neither ends its
    // connection, reads, or answers a close frame.
    let mut silent = Client::join(&server, "r", "Bob").await;
    let mut broken = Client::join(&server, "r", "Cyd").await;
    broken.say_in_pieces("{\"type\":", 3).await;
    let mut missing = vec![silent.pk(), broken.pk()];
    silent.stop_reading().await;
    broken.stop_reading().await;
    let listen = async {
        while !missing.is_empty() || server.metric("satsuma_connections").await > 1.0 {
            ada.say(json!({"type": "heartbeat"})).await;
            // Every tick sends a snapshot.
            let message = ada.next().await;
            if message["type"] == "userLeftNotification" {
                missing.retain(|pk| message["id"] != **pk);
            }
        }
    };
    timeout(PATIENCE, listen).await.expect("both are given up");
    ada.until_users(&[&ada.pk()]).await;
    everybody_leaves(&server, [ada]).await;
}

#[tokio::test]
async fn slow_requests_end_and_block_no_other() {
    const SLOW: usize = 60;
    let server = TestServer::with(|config| {
        config.limits.header_timeout = Duration::from_millis(700);
        config.limits.request_timeout = Duration::from_millis(700);
        config.limits.http_connections = SLOW + 10;
        config.limits.http_connections_per_address = SLOW + 10;
        config.room.tick = Duration::from_millis(100);
    });
    let server = server.await;
    let mut meeting = Meeting::begin(&server).await;
    let beginnings: [&[u8]; 3] = [
        b"G",
        b"GET /parties/rooms/meeting?_pk=x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nX: ",
        b"POST /set-username HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
          Content-Length: 100000\r\n\r\nusername=",
    ];
    let mut slow = Vec::new();
    for beginning in beginnings.iter().cycle().take(SLOW) {
        let mut stream = TcpStream::connect(server.addresses().http).await.unwrap();
        stream.write_all(beginning).await.unwrap();
        slow.push(stream);
    }
    server.until_metric("satsuma_tcp_connections", SLOW as f64).await;
    let drip = async {
        while !slow.is_empty() {
            // One byte each; meanwhile another client joins.
            slow.retain(|stream| {
                let is_open = !matches!(stream.try_read(&mut [0; 1024]), Ok(0));
                is_open && stream.try_write(b"x").is_ok()
            });
            Person::log_in(&server, "Cyd").await;
            meeting.goes_on().await;
        }
    };
    timeout(PATIENCE, drip).await.expect("every slow request is ended");
    server.until_metric("satsuma_tcp_connections", 0.0).await;
    everybody_leaves(&server, [meeting.ada, meeting.bob]).await;
}

#[tokio::test]
async fn unread_events_cost_at_most_the_outbox_budget() {
    const BUDGET: usize = 1 << 20;
    let server = TestServer::with(|config| {
        config.limits.outbox_bytes = BUDGET;
        config.limits.frame_bytes = BUDGET / 4;
        config.limits.write_stall = Duration::from_millis(800);
        config.limits.messages_per_second = 10_000;
        config.limits.message_burst = 10_000;
        config.room.tick = Duration::from_millis(100);
    });
    let server = server.await;
    let Meeting { mut ada, mut bob, .. } = Meeting::begin(&server).await;
    let mut cyd = Client::join(&server, "meeting", "Cyd").await;
    let pk = cyd.pk();
    cyd.stop_reading().await;
    let payload = "x".repeat(50_000);
    let (mut most, mut gone) = (0.0_f64, false);
    while !gone {
        bob.say(json!({"type": "e2eeMlsMessage", "payload": payload})).await;
        loop {
            let event = ada.event().await;
            if event["type"] == "e2eeMlsMessage" {
                break;
            }
            assert_eq!(event, json!({"type": "userLeftNotification", "id": pk}));
            gone = true;
        }
        most = most.max(server.metric("satsuma_outbox_bytes").await);
    }
    // The same bytes wait for several members, and count once.
    assert!(most > 400_000.0 && most <= BUDGET as f64 * 1.5, "{most} bytes were kept");
    assert_eq!(server.metric(r#"satsuma_drops_total{reason="outbox_over_budget"}"#).await, 1.0);
    server.until_metric("satsuma_connections", 2.0).await;
    server.until_metric("satsuma_outbox_bytes", 0.0).await;
    everybody_leaves(&server, [ada, bob]).await;
}

#[tokio::test]
async fn unread_snapshots_cost_one_and_close_the_socket() {
    let server = TestServer::with(|config| {
        config.limits.user_bytes = 500_000;
        config.limits.write_stall = Duration::from_millis(800);
        config.room.tick = Duration::from_millis(100);
    });
    let server = server.await;
    let Meeting { mut ada, mut bob, .. } = Meeting::begin(&server).await;
    let pk = bob.pk();
    let mut cyd = Client::join(&server, "meeting", "Cyd").await;
    cyd.stop_reading().await;
    let extra = "x".repeat(400_000);
    let (mut number, mut most) = (0, 0.0_f64);
    let update = async {
        while server.metric(r#"satsuma_closes_total{reason="stalled"}"#).await == 0.0 {
            number += 1;
            let user = json!({"number": number, "extra": extra});
            bob.say(json!({"type": "userUpdate", "user": user})).await;
            ada.until_state(|state| user_of(state, &pk)["number"] == number).await;
            most = most.max(server.metric("satsuma_outbox_bytes").await);
        }
    };
    timeout(PATIENCE * 3, update).await.expect("the reader is closed");
    // The one that waits, and those that sockets are just given.
    assert!(most < 4.0 * 500_000.0, "{most} bytes were kept after {number} updates");
    server.until_metric("satsuma_connections", 2.0).await;
    let cyd = cyd.ask().open(&server).await;
    everybody_leaves(&server, [ada, bob, cyd]).await;
}

/// Over ten thousand a minute on an idle machine.
#[tokio::test]
async fn joins_of_1000_room_names_add_no_metrics() {
    const WORKERS: usize = 6;
    const JOINS: usize = 1200;
    let server = TestServer::with(|config| {
        config.room.tick = Duration::from_millis(100);
        config.room.heartbeat_timeout = Duration::from_secs(2);
        config.limits.rooms = 200;
        config.limits.new_rooms_per_minute = 0;
        config.limits.exempt_networks = vec!["127.0.0.1/32".parse().unwrap()];
    });
    let server = Arc::new(server.await);
    let eve = Person::log_in(&server, "Eve").await;
    visit(&server, &eve, 0).await;
    let before = lines_of_metrics(&server).await;
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (server, eve) = (server.clone(), eve.clone());
        workers.spawn(async move {
            for number in (1 + worker..JOINS).step_by(WORKERS) {
                visit(&server, &eve, number).await;
            }
        });
    }
    workers.join_all().await;
    until_nothing_is_taken(&server).await;
    // A few new label values may have appeared; names would be a thousand.
    let after = lines_of_metrics(&server).await;
    assert!(after <= before + 100, "{before} lines, then {after}");
}

/// Joins a room of its own, and leaves it in one of the possible ways.
async fn visit(server: &TestServer, eve: &Person, number: usize) {
    let ask = Ask::room(&format!("{number}-evil-{}", "n".repeat(100))).by(eve).pk("e");
    let mut client = loop {
        match ask.clone().try_open(server).await {
            Ok(client) => break client,
            // The earlier rooms end with a tick.
            Err(status) => assert_eq!(status, 503),
        }
    };
    client.try_say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    match number % 4 {
        0 => drop(client.drop_tcp().await),
        1 => drop(client.close().await),
        _ => {
            client.try_say(json!({"type": "userLeft"})).await;
            client.closed().await;
        }
    }
    if number.is_multiple_of(20) {
        for path in ["", "/room", "/no/such/evil"] {
            answer(server.get(&format!("/{number}-evil{path}"))).await;
        }
    }
}

/// Number of lines of the metrics, which have no label chosen by a client.
async fn lines_of_metrics(server: &TestServer) -> usize {
    let text = answer(server.admin("/metrics")).await.text;
    assert!(!text.contains("evil"), "{text}");
    text.lines().count()
}

#[tokio::test]
async fn snapshot_of_megabytes_arrives_whole() {
    const MEMBERS: usize = 40;
    let server = TestServer::with(|config| {
        config.limits.user_bytes = 100_000;
        config.limits.members_per_room_per_identity = 0;
        // Heartbeats are not counted here.
        config.room.heartbeat_timeout = Duration::from_secs(600);
    });
    let server = server.await;
    let eve = Person::log_in(&server, "Eve").await;
    let long: String = ('a'..='z').cycle().take(99_000).collect();
    let ids: Vec<String> = (0..MEMBERS).map(|number| format!("member-{number:02}")).collect();
    for pk in &ids {
        let mut member = Ask::room("meeting").by(&eve).pk(pk).open(&server).await;
        member.say(json!({"type": "userUpdate", "user": {"extra": format!("{pk}{long}")}})).await;
        member.say(json!({"type": "directMessage", "to": pk, "message": "done"})).await;
        member.until_text(r#"{"type":"directMessage","from":"Eve","message":"done"}"#).await;
        // Its member stays, and with it its share of the snapshot.
        member.drop_tcp().await;
    }
    let mut meeting = Meeting::begin(&server).await;
    let (ada, bob) = (meeting.ada.pk(), meeting.bob.pk());
    let state = meeting.ada.until_state(|state| !user_of(state, &bob).is_null()).await;
    for pk in &ids {
        assert_eq!(user_of(&state, pk)["extra"], format!("{pk}{long}"));
    }
    assert!(state.to_string().len() > 3_900_000);
    meeting.ada.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    meeting.bob.until_state(|state| user_of(state, &ada)["raisedHand"] == true).await;
    for _ in 0..5 {
        meeting.goes_on().await;
    }
    // One byte too much is an error for one, and does not affect the others.
    let too_long = json!({"type": "userUpdate", "user": {"extra": "x".repeat(100_000)}});
    meeting.bob.say(too_long).await;
    assert_eq!(meeting.bob.event().await["type"], "error");
    meeting.goes_on().await;
    let returned = Ask::room("meeting").by(&eve).pk(&ids[0]).open(&server).await;
    drop((meeting, returned));
    server.until_metric("satsuma_connections", 0.0).await;
}

#[tokio::test]
async fn hanging_store_does_not_stop_meetings() {
    let server = TestServer::with(|config| config.room.tick = Duration::from_millis(100)).await;
    let mut meeting = Meeting::begin(&server).await;
    let pk = meeting.bob.pk();
    let mut database = open(&server.data_dir().join("satsuma.db")).await;
    database.execute("BEGIN IMMEDIATE").await.unwrap();

    for _ in 0..10 {
        meeting.goes_on().await;
    }
    let Meeting { mut ada, bob, .. } = meeting;
    let ask = bob.drop_tcp().await;
    server.until_away("meeting", &pk).await;
    let message = json!({"type": "e2eeMlsMessage", "payload": "while Bob is away"});
    ada.say(message.clone()).await;
    ada.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    let mut bob = ask.open(&server).await;
    assert_eq!(bob.event().await, message);
    let mut cyd = Client::join(&server, "short", "Cyd").await;
    let state = cyd.until_state(|_| true).await;
    let short = state["meetingId"].as_str().unwrap().to_owned();
    cyd.say(json!({"type": "userLeft"})).await;
    cyd.closed().await;
    server.until_metric("satsuma_rooms", 1.0).await;
    assert!(server.metric("satsuma_store_pending").await > 0.0, "all of it waits");
    assert_eq!(server.metric("satsuma_drops_total{reason=\"store_queue\"}").await, 0.0);

    database.execute("ROLLBACK").await.unwrap();
    // Waiting changes are written by the current attempt, or by the next.
    server.until_metric("satsuma_store_pending", 0.0).await;
    let ended: Option<String> = sqlx::query_scalar(r#"SELECT ended FROM "Meetings" WHERE id = $1"#)
        .bind(&short)
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert!(ended.is_some());
    database.close().await.unwrap();
    let server = server.restart().await;
    let mut bob = bob.ask().open(&server).await;
    bob.until_state(|state| user_of(state, &ada.pk())["raisedHand"] == true).await;
}

/// A clock that is set during a meeting does not end it, since no room, socket or limit reads it: it only
/// stamps stored and shown times, and decides about expiry. A new entry needs an answer for a clock that leaps.
#[test]
fn wall_clock_is_read_only_where_allowed() {
    let mut readers: Vec<String> = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .into_iter()
        .filter(|(_, text)| {
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            code.contains("wall_clock()") || code.contains("SystemTime::now()")
        })
        .map(|(name, _)| name)
        .collect();
    readers.sort();
    let mut allowed = [
        // The upstream's session lock, in cookies.
        "media_api/proxy.rs",
        "clock.rs",
        // Access tokens: those that operators have made, and those of links and headers.
        "admin/access.rs",
        "admin/tokens.rs",
        "admin/revocations.rs",
        "server/mint.rs",
        "server/cluster.rs",
        "server/resources.rs",
        "ws/lease.rs",
        "login/mod.rs",
        "site/token_link.rs",
        // A message's next attempt, its age, and `Retry-After`.
        "delivery/sender.rs",
        "delivery/webhook.rs",
        // The stamps of meetings that go into a cluster, or come back from it.
        "nodes/carry.rs",
        "nodes/room/keeping.rs",
        // The times of meetings in the list of all, and the day after a stream for which events are recorded.
        "nodes/room/meetings.rs",
        "nodes/events.rs",
        // The times that methods of durable objects are given, and those of alarms and signatures.
        "durable/actor.rs",
        "durable/alarm.rs",
        // The tokens of objects.
        "durable/api.rs",
        "durable/callback.rs",
        "durable/channel.rs",
        "durable/cluster/alarms.rs",
        "durable/script/tests.rs",
        "events/acting.rs",
        "events/api.rs",
        "events/log.rs",
        // The time since which the engine is away.
        "nodes/node.rs",
        "events/recorder.rs",
        "events/stream.rs",
        "events/webhook.rs",
        "events/webhooks.rs",
        // The time of a first failed write.
        "store/objects/writer.rs",
        // Times of reports and counts.
        "reports/bug_report.rs",
        "reports/counted.rs",
        "reports/dead_track.rs",
        // Expiry of a signed link.
        "reports/debug_info.rs",
        // The age of reports and meetings.
        "reports/retention.rs",
        // Cookies and tokens.
        "http/extract.rs",
        "ws/phoenix/longpoll.rs",
        // The time that the id of a meeting tells; so does ws/upgrade.rs below.
        "ws/phoenix/joining.rs",
        "ws/phoenix/mod.rs",
        "ws/phoenix/upgrade.rs",
        // Certificates, their renewal, and the challenge's.
        "http/tls/acme/mod.rs",
        "http/tls/acme/order.rs",
        "http/tls/acme/transport.rs",
        "http/tls/certificates.rs",
        "http/tls/mod.rs",
        // Cookies and tokens.
        "orange/data.rs",
        "orange/visit.rs",
        // The times of lines of the chat, and of stored rooms.
        "room/actor.rs",
        "room/actor/ending.rs",
        "room/actor/time.rs",
        "room/events.rs",
        // The times of the lines of the chat that have a file.
        "room_api/files.rs",
        // The time that the oldest datagram has waited in the kernel, as the kernel stamps it.
        "sfu/thread.rs",
        // Cookies.
        "site/forms.rs",
        // Ages at the start, and the time since which the store fails, as operators see it.
        "store/mod.rs",
        "store/task.rs",
        // Cookies and tokens.
        "ws/upgrade.rs",
    ];
    allowed.sort_unstable();
    assert_eq!(readers, allowed);
}

/// Every file of a folder, by its name below it.
fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(sources(&path).into_iter().map(|(below, text)| (format!("{name}/{below}"), text)));
        } else if name.ends_with(".rs") {
            found.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

async fn open(database: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(database).busy_timeout(Duration::from_secs(5));
    SqliteConnection::connect_with(&options).await.unwrap()
}
