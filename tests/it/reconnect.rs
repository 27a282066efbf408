//! Members that reconnect, or return after a restart, miss no event: shown with numbered MLS messages.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::client::{Ask, Client, Received, user_of};
use crate::harness::{Person, TestServer, eventually};

async fn send_numbers(client: &mut Client, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        client.say(json!({"type": "e2eeMlsMessage", "payload": number.to_string()})).await;
    }
}

fn number(message: &Value) -> Option<u64> {
    (message["type"] == "e2eeMlsMessage").then(|| message["payload"].as_str().unwrap().parse().unwrap())
}

/// A member's received numbers, over all of its sockets.
#[derive(Default)]
struct Sequence {
    last: u64,
    /// Set by a new socket: numbers may be repeated until the first new one.
    repeats_from: Option<Option<u64>>,
}

impl Sequence {
    /// Begins a new socket.
    fn reconnected(&mut self) {
        self.repeats_from = Some(None);
    }

    /// Takes a message, if it has a number.
    fn take_message(&mut self, message: &Value) {
        number(message).into_iter().for_each(|number| self.take(number));
    }

    /// Takes a number: the one after the last, or a repetition where one may be.
    fn take(&mut self, number: u64) {
        match self.repeats_from {
            Some(None) if number <= self.last => self.repeats_from = Some(Some(number)),
            Some(Some(before)) if number <= self.last => {
                assert_eq!(number, before + 1, "repeated out of order, after {}", self.last);
                self.repeats_from = Some(Some(number));
            }
            Some(Some(before)) => assert_eq!(before, self.last, "the repetition has a gap before {number}"),
            _ => {}
        }
        if number > self.last {
            assert_eq!(number, self.last + 1, "{} was lost", self.last + 1);
            self.last = number;
            self.repeats_from = None;
        } else {
            assert!(self.repeats_from.is_some(), "{number} came again, long after the return");
        }
    }

    /// Reads until `end` was received.
    async fn read_until(&mut self, client: &mut Client, end: u64) {
        while self.last < end {
            self.take(number(&client.event().await).expect("only numbers are sent here"));
        }
    }
}

/// The way in which a member disconnects.
#[derive(Clone, Copy)]
enum Going {
    ByDroppingTcp,
    ByClosing,
}

async fn a_member_misses_nothing(going: Going) {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let mut cyd = Client::join(&server, "r", "Cyd").await;
    let (mut adas, mut cyds) = (Sequence::default(), Sequence::default());
    send_numbers(&mut bob, 1..=10).await;
    adas.read_until(&mut ada, 10).await;

    let pk = ada.pk();
    let reconnect = match going {
        Going::ByDroppingTcp => ada.drop_tcp().await,
        Going::ByClosing => ada.close().await,
    };
    server.until_away("r", &pk).await;
    send_numbers(&mut bob, 11..=20).await;
    bob.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    send_numbers(&mut bob, 21..=30).await;
    cyds.read_until(&mut cyd, 30).await;

    adas.reconnected();
    let mut ada = reconnect.open(&server).await;
    loop {
        let message = ada.next().await;
        let Some(number) = number(&message) else {
            assert_eq!(message["type"], "roomState");
            assert_eq!(adas.last, 30, "a newer snapshot came before what was missed");
            break;
        };
        adas.take(number);
    }
    send_numbers(&mut bob, 31..=40).await;
    adas.read_until(&mut ada, 40).await;
    cyds.read_until(&mut cyd, 40).await;
}

#[tokio::test]
async fn dropped_connection_misses_no_event() {
    a_member_misses_nothing(Going::ByDroppingTcp).await;
}

#[tokio::test]
async fn closed_and_reopened_socket_misses_no_event() {
    a_member_misses_nothing(Going::ByClosing).await;
}

#[tokio::test]
async fn replaced_socket_misses_no_event() {
    let server = TestServer::start().await;
    let mut older = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let mut sequence = Sequence::default();
    send_numbers(&mut bob, 1..=50).await;
    sequence.read_until(&mut older, 20).await;
    let mut newer = older.ask().open(&server).await;
    send_numbers(&mut bob, 51..=60).await;
    assert_eq!(older.closed_after(|message| sequence.take_message(&message)).await.0, 4001);
    sequence.reconnected();
    sequence.read_until(&mut newer, 60).await;
}

#[tokio::test]
async fn flapping_connection_misses_no_event() {
    const END: u64 = 600;
    let server = TestServer::with(|config| {
        config.limits.messages_per_second = 10_000;
        config.limits.message_burst = 10_000;
    });
    let server = server.await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let mut sequence = Sequence::default();
    let mut sent = 0;
    while sequence.last < END {
        let next = (sent + 7).min(END);
        send_numbers(&mut bob, sent + 1..=next).await;
        sent = next;
        // Sometimes right away, sometimes after a few messages; the rest is lost with the connection.
        let until = sequence.last + sent % 5;
        sequence.read_until(&mut ada, until.min(sent)).await;
        let reconnect = ada.drop_tcp_after(|message| sequence.take_message(&message)).await;
        sequence.reconnected();
        ada = reconnect.open(&server).await;
        if sent == END {
            sequence.read_until(&mut ada, END).await;
        }
    }
    assert!(ada.echo().await.iter().all(|message| message["type"] == "roomState"), "{END} is the last");
}

#[tokio::test]
async fn every_event_type_waits_for_an_absent_member() {
    let server = TestServer::start().await;
    let ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let mut cyd = Client::join(&server, "r", "Cyd").await;
    let pk = ada.pk();
    let reconnect = ada.drop_tcp().await;
    server.until_away("r", &pk).await;
    bob.say(json!({"type": "directMessage", "to": pk, "message": "hi"})).await;
    bob.say(json!({"type": "muteUser", "id": pk})).await;
    bob.say(json!({"type": "e2eeMlsMessage", "payload": "1"})).await;
    bob.echo().await;
    cyd.say(json!({"type": "userLeft"})).await;
    cyd.closed().await;

    let mut ada = reconnect.open(&server).await;
    for wanted in [
        json!({"type": "directMessage", "from": "Bob", "message": "hi"}),
        json!({"type": "muteMic"}),
        json!({"type": "e2eeMlsMessage", "payload": "1"}),
        json!({"type": "userLeftNotification", "id": cyd.pk()}),
    ] {
        assert_eq!(ada.next().await, wanted);
    }
    assert_eq!(ada.next().await["type"], "roomState");
}

#[tokio::test]
async fn outbox_over_the_budget_evicts_the_member() {
    let server = TestServer::with(|config| {
        config.limits.outbox_bytes = 100_000;
        config.limits.frame_bytes = 50_000;
        config.limits.write_stall = Duration::from_millis(200);
    });
    let server = server.await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let pk = ada.pk();
    ada.say(json!({"type": "heartbeat"})).await;
    let reconnect = ada.drop_tcp().await;
    server.until_away("r", &pk).await;
    let message = json!({"type": "e2eeMlsMessage", "payload": "x".repeat(40_000)});
    while server.metric(r#"satsuma_drops_total{reason="outbox_over_budget"}"#).await == 0.0 {
        bob.say(message.clone()).await;
    }
    assert_eq!(bob.event().await, json!({"type": "userLeftNotification", "id": pk}));
    // Ada is a fresh user: her client sends the group's keys again.
    let mut ada = reconnect.open(&server).await;
    assert_eq!(ada.next().await["type"], "roomState");
}

#[tokio::test]
async fn restart_keeps_the_meeting_and_its_members() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let (ada_pk, bob_pk) = (ada.pk(), bob.pk());
    ada.say(json!({"type": "userUpdate", "user": {"raisedHand": true, "joined": true, "extra": [1]}})).await;
    bob.say(json!({"type": "enableAi"})).await;
    bob.until_state(|state| {
        user_of(state, &ada_pk)["raisedHand"] == true && state["ai"]["error"].is_string()
    })
    .await;
    bob.say(json!({"type": "userUpdate", "user": {"speaking": true}})).await;
    let before = ada.until_state(|state| user_of(state, &bob_pk)["speaking"] == true).await;

    let server = server.restart().await;
    for client in [&mut ada, &mut bob] {
        assert_eq!(client.closed().await, (1012, "The server restarts".to_owned()));
    }
    assert_eq!(server.metric("satsuma_members").await, 2.0);
    let mut ada = ada.ask().open(&server).await;
    assert_eq!(ada.until_state(|_| true).await, before, "Bob is not back yet, but not gone either");
    let mut bob = bob.ask().open(&server).await;
    assert_eq!(bob.until_state(|_| true).await, before);

    let ended = meetings(&server.stop().await.database()).await;
    assert_eq!(ended, [(before["meetingId"].as_str().unwrap().to_owned(), 2, None)]);
}

#[tokio::test]
async fn restart_loses_no_event_of_any_member() {
    let server = TestServer::start().await;
    let ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let mut cyd = Client::join(&server, "r", "Cyd").await;
    let (mut adas, mut cyds) = (Sequence::default(), Sequence::default());
    let pk = ada.pk();
    let reconnect = ada.drop_tcp().await;
    server.until_away("r", &pk).await;
    send_numbers(&mut bob, 1..=10).await;
    bob.echo().await;

    let server = server.restart().await;
    cyd.closed_after(|message| cyds.take_message(&message)).await;
    cyds.reconnected();
    let mut cyd = cyd.ask().open(&server).await;
    // Bob sends more before Ada has reconnected, as an eager client does.
    let mut bob = bob.ask().open(&server).await;
    send_numbers(&mut bob, 11..=20).await;
    cyds.read_until(&mut cyd, 20).await;

    let server = server.restart().await;
    adas.reconnected();
    let mut ada = reconnect.open(&server).await;
    adas.read_until(&mut ada, 20).await;
    let mut bob = bob.ask().open(&server).await;
    send_numbers(&mut bob, 21..=30).await;
    adas.read_until(&mut ada, 30).await;
}

#[tokio::test]
async fn message_during_shutdown_is_not_lost() {
    let server = TestServer::with(|config| {
        config.limits.messages_per_second = 100_000;
        config.limits.message_burst = 100_000;
    });
    let server = server.await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let mut sequence = Sequence::default();
    send_numbers(&mut bob, 1..=10).await;
    sequence.read_until(&mut ada, 10).await;
    // Bob sends until he receives the server's close, as browsers do: all earlier messages
    // reach the server before the answer to its close frame.
    let sending = async {
        let mut sent = 10;
        while bob.received_so_far().iter().all(|received| !matches!(received, Received::Closed(..))) {
            let message = json!({"type": "e2eeMlsMessage", "payload": (sent + 1).to_string()});
            if bob.try_say(message).await {
                sent += 1;
            }
            tokio::task::yield_now().await;
        }
        sent
    };
    let (sent, server) = tokio::join!(sending, server.restart());
    ada.closed_after(|message| sequence.take_message(&message)).await;
    sequence.reconnected();
    let mut ada = ada.ask().open(&server).await;
    let mut bob = bob.ask().open(&server).await;
    send_numbers(&mut bob, sent + 1..=sent + 1).await;
    sequence.read_until(&mut ada, sent + 1).await;
}

#[tokio::test]
async fn restart_keeps_member_ids_reserved() {
    let server = TestServer::start().await;
    let ada = Client::join(&server, "r", "Ada").await;
    let eve = Person::log_in(&server, "Eve").await;
    let server = server.restart().await;
    let attack = Ask::room("r").by(&eve).pk(&ada.pk());
    assert_eq!(attack.answer(&server).await.status, 403);
    let mut ada = ada.ask().open(&server).await;
    ada.until_users(&[&ada.pk()]).await;
    assert_eq!(attack.answer(&server).await.status, 403);
}

#[tokio::test]
async fn restored_room_without_members_ends() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let state = ada.until_state(|_| true).await;
    let meeting = state["meetingId"].as_str().unwrap().to_owned();
    let stopped = server.stop().await;
    assert_eq!(meetings(&stopped.database()).await, [(meeting.clone(), 1, None)]);

    let server = stopped.start_with(|config| {
        config.room.tick = Duration::from_millis(20);
        config.room.heartbeat_timeout = Duration::from_millis(20);
        config.room.restore_grace = Duration::from_millis(50);
    });
    let server = server.await;
    server.until_metric("satsuma_rooms", 0.0).await;
    let stopped = server.stop().await;
    let ended = meetings(&stopped.database()).await;
    assert!(matches!(&ended[..], [(id, 1, Some(_))] if *id == meeting), "{ended:?}");

    // It stays ended: the next join begins another meeting.
    let server = stopped.start_with(|_| {}).await;
    assert_eq!(server.metric("satsuma_rooms").await, 0.0);
    let mut ada = ada.ask().open(&server).await;
    assert_ne!(ada.until_state(|_| true).await["meetingId"], meeting);
}

#[tokio::test]
async fn restart_keeps_ids_of_departed_members_reserved() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let bob = Client::join(&server, "r", "Bob").await;
    ada.until_state(|state| state["users"].as_array().unwrap().len() == 2).await;
    ada.say(json!({"type": "userLeft"})).await;
    ada.closed().await;
    let server = server.restart().await;
    let mut bob = bob.ask().open(&server).await;
    bob.until_users(&[&bob.pk()]).await;
    let cyd = Person::log_in(&server, "Cyd").await;
    let refused = Ask::room("r").by(&cyd).pk(&ada.pk()).answer(&server).await;
    assert_eq!(refused.status, 403);
    let mut ada = ada.ask().open(&server).await;
    let pk = bob.pk();
    ada.until_state(|state| !user_of(state, &pk).is_null()).await;
}

#[tokio::test]
async fn meeting_peak_and_end_are_stored() {
    let server = TestServer::with(|config| {
        config.room.tick = Duration::from_millis(20);
        // Only a member that leaves is removed.
        config.room.heartbeat_timeout = Duration::from_secs(60);
    });
    let server = server.await;
    let mut clients = Vec::new();
    for name in ["Ada", "Bob", "Cyd"] {
        clients.push(Client::join(&server, "r", name).await);
    }
    for client in &mut clients {
        client.say(json!({"type": "userLeft"})).await;
        client.closed().await;
    }
    server.until_metric("satsuma_rooms", 0.0).await;
    let _second = Client::join(&server, "r", "Ada").await;
    let stored = meetings(&server.stop().await.database()).await;
    let counts: Vec<_> = stored.iter().map(|(_, peak, ended)| (*peak, ended.is_some())).collect();
    assert_eq!(counts, [(3, true), (1, false)]);
}

#[tokio::test]
async fn second_server_on_the_same_data_fails_to_start() {
    let server = TestServer::start().await;
    let Err(error) = server.start_twin().await else { panic!("two servers have one data directory") };
    let sentence = format!(
        "the data directory {} is in use by another satsuma process (pid {}); stop that one, or name another \
         directory by --data-dir",
        server.data_dir().display(),
        std::process::id()
    );
    assert_eq!(error.to_string(), sentence);
    // The first one is unaffected, and its end frees the directory.
    Client::join(&server, "r", "Ada").await.echo().await;
    server.restart().await;
}

#[tokio::test]
async fn changes_are_on_disk_while_the_server_runs() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    ada.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    ada.echo().await;
    let database = server.data_dir().join("satsuma.db");
    // A crash would leave the same data that another process reads now.
    let is_kept = async || {
        let mut connection = open(&database).await;
        let seats: Vec<(String,)> =
            sqlx::query_as("SELECT json FROM kept_seats").fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        seats.iter().any(|(json,)| json.contains("\"raisedHand\":true"))
    };
    eventually("the hand is kept".to_owned(), is_kept).await;
}

async fn open(database: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(database).busy_timeout(Duration::from_secs(5));
    SqliteConnection::connect_with(&options).await.unwrap()
}

/// Every meeting: its id, its peak, and its end, in their order.
async fn meetings(database: &Path) -> Vec<(String, i64, Option<String>)> {
    let mut connection = open(database).await;
    let query = r#"SELECT id, "userCount", ended FROM "Meetings" ORDER BY created"#;
    let meetings = sqlx::query_as(query).fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    meetings
}
