//! Webhooks: signed events in the order of their meeting, at least once, over failures and restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Duration;

use axum::http::Method;
use reqwest::redirect::Policy;
use satsuma::config::{AccessLevel, Config, KeySource, WebhookConfig};
use satsuma::delivery::signature::SigningKey;
use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::access_tokens;
use crate::client::{Ask, Client};
use crate::feedback::{OK, bug, info};
use crate::harness::{Person, Stopped, TestServer, answer, eventually, logged, metric};
use crate::process::Process;
use crate::webhook::{Posted, Reply, Webhook};

pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PREVIOUS: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

/// A webhook of this name with no filters.
pub fn webhook(name: &str, url: &str) -> WebhookConfig {
    WebhookConfig {
        name: name.to_owned(),
        url: url.to_owned().into(),
        secret: KeySource::Text(SECRET.to_owned().into()),
        previous_secret: None,
        events: Vec::new(),
        rooms: Vec::new(),
        chat: false,
        allow_private: true,
    }
}

fn with(hook: &Webhook) -> impl FnOnce(&mut Config) {
    let webhook = webhook("app", hook.url());
    move |config| {
        config.webhooks = vec![webhook];
        // The meeting ends soon after its last member has left.
        config.room.tick = Duration::from_millis(100);
    }
}

/// The types of the posted events.
fn types(posted: &[Posted]) -> Vec<&str> {
    posted.iter().map(|posted| posted.card["type"].as_str().unwrap()).collect()
}

/// Waits for an event of a type, and returns all until then.
async fn until(hook: &Webhook, kind: &str) -> Vec<Posted> {
    eventually(format!("{kind} came"), async || types(&hook.posted()).contains(&kind)).await;
    hook.posted()
}

async fn leave(mut client: Client) {
    client.say(json!({"type": "userLeft"})).await;
    client.closed().await;
}

#[tokio::test]
async fn meeting_is_posted_signed_and_in_order() {
    let hook = Webhook::start([]).await;
    let server = TestServer::with(with(&hook)).await;
    let mut ada = Client::join(&server, "standup", "Ada").await;
    let tracks = json!({"audio": "session/mic", "audioEnabled": true});
    ada.say(json!({"type": "userUpdate", "user": {"joined": true, "raisedHand": true, "tracks": tracks}}))
        .await;
    until(&hook, "hand.raised").await;
    ada.say(json!({"type": "chat", "message": "secret plans"})).await;
    let pk = ada.pk();
    leave(ada).await;
    let posted = until(&hook, "meeting.ended").await;
    assert_eq!(
        types(&posted),
        [
            "meeting.started",
            "member.joined",
            "track.published",
            "hand.raised",
            "member.updated",
            "track.unpublished",
            "member.left",
            "meeting.ended"
        ]
    );
    let key = base64_key(SECRET);
    for (number, posted) in posted.iter().enumerate() {
        let event = &posted.card;
        assert_eq!(event["seq"], number + 1);
        assert_eq!((&event["room"], &event["meeting"]), (&json!("standup"), &posted.card["meeting"]));
        let header = |name: &str| posted.headers[name].to_str().unwrap().to_owned();
        assert_eq!(header("webhook-id"), event["id"].as_str().unwrap());
        assert_eq!(header("content-type"), "application/json");
        let signed =
            key.sign(&header("webhook-id"), header("webhook-timestamp").parse().unwrap(), &posted.body);
        assert_eq!(header("webhook-signature"), signed);
        assert!(!posted.headers.contains_key("cookie"));
    }
    let joined = &posted[1].card["data"];
    assert_eq!((&joined["member"]["name"], &joined["member"]["id"]), (&json!("Ada"), &json!(pk)));
    assert!(joined["identity"].as_str().unwrap().starts_with("cookie:"));
    assert_eq!(posted[2].card["data"]["track"], json!({"kind": "audio", "name": "session/mic"}));
    assert_eq!(posted[6].card["data"]["reason"], "left");
    assert_eq!(posted[7].card["data"], json!({"reason": "empty"}));
    assert!(!logged().contains("SECRET-TOKEN") && !logged().contains("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    server.until_metric("satsuma_deliveries_waiting", 0.0).await;
}

fn base64_key(secret: &str) -> SigningKey {
    SigningKey::new(&satsuma::config::signing_secret(secret).unwrap())
}

#[tokio::test]
async fn filters_choose_events_rooms_and_chat() {
    let (all, some) = (Webhook::start([]).await, Webhook::start([]).await);
    let server = TestServer::with(|config| {
        let chosen = WebhookConfig {
            events: vec!["member.joined".into(), "chat.*".into()],
            rooms: vec!["team-*".into()],
            chat: true,
            ..webhook("some", some.url())
        };
        config.webhooks = vec![webhook("all", all.url()), chosen];
    })
    .await;
    let _other = Client::join(&server, "hall", "Bob").await;
    let mut ada = Client::join(&server, "team-1", "Ada").await;
    ada.say(json!({"type": "chat", "message": "hé\u{1f34a}"})).await;
    let posted = until(&some, "chat.message").await;
    assert_eq!(types(&posted), ["member.joined", "chat.message"]);
    let chat = &posted[1].card["data"];
    assert_eq!((&chat["message"], &chat["from"]["name"]), (&json!("hé\u{1f34a}"), &json!("Ada")));
    let ada_of = BTreeSet::from(["hall", "team-1"]);
    eventually("both rooms were told".into(), async || {
        let posted = all.posted();
        let joined = posted.iter().filter(|posted| posted.card["type"] == "member.joined");
        joined.map(|posted| posted.card["room"].as_str().unwrap()).collect::<BTreeSet<_>>() == ada_of
    })
    .await;
    assert!(!types(&all.posted()).contains(&"chat.message"), "not opted in");
}

#[tokio::test]
async fn rotated_secret_signs_beside_the_previous() {
    let hook = Webhook::start([]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{PREVIOUS}\n")).unwrap();
    let server = TestServer::with(|config| {
        let previous_secret = Some(KeySource::File(file.path().to_owned()));
        config.webhooks = vec![WebhookConfig { previous_secret, ..webhook("app", hook.url()) }];
    })
    .await;
    let tested = server.admin_post("/admin/webhooks/app/test", &json!({})).await;
    let posted = hook.until(1).await.remove(0);
    assert_eq!((&posted.card["type"], &posted.card["id"]), (&json!("webhook.test"), &tested.json()["id"]));
    let header = |name: &str| posted.headers[name].to_str().unwrap();
    let time = header("webhook-timestamp").parse().unwrap();
    let signatures =
        [SECRET, PREVIOUS].map(|key| base64_key(key).sign(header("webhook-id"), time, &posted.body));
    assert_eq!(header("webhook-signature"), signatures.join(" "));
    assert_eq!(server.admin_post("/admin/webhooks/none/test", &json!({})).await.status, 404);
}

#[tokio::test]
async fn failing_webhook_keeps_the_order() {
    let hook = Webhook::start([Reply::Status(500), Reply::Status(500)]).await;
    let server = TestServer::with(with(&hook)).await;
    leave(Client::join(&server, "r", "Ada").await).await;
    let posted = until(&hook, "meeting.ended").await;
    assert_eq!(
        types(&posted),
        [
            "meeting.started",
            "meeting.started",
            "meeting.started",
            "member.joined",
            "member.left",
            "meeting.ended"
        ]
    );
    assert_eq!(posted[0].headers["webhook-id"], posted[2].headers["webhook-id"]);
}

#[tokio::test]
async fn hanging_webhook_delays_no_other() {
    let (hanging, ready) = (Webhook::start([Reply::Nothing; 9]).await, Webhook::start([]).await);
    let server = TestServer::with(|config| {
        config.webhooks = vec![webhook("hanging", hanging.url()), webhook("ready", ready.url())];
        config.room.tick = Duration::from_millis(100);
    })
    .await;
    leave(Client::join(&server, "r", "Ada").await).await;
    until(&ready, "meeting.ended").await;
    assert_eq!(types(&hanging.until(1).await), ["meeting.started"]);
    let listed = server.admin_get("/admin/webhooks").await.json();
    let waiting = |at: usize| listed["webhooks"][at]["waiting"].as_u64().unwrap();
    assert_eq!((waiting(0), &listed["webhooks"][0]["host"]), (4, &json!("127.0.0.1")));
    assert!(!listed.to_string().contains("SECRET"), "{listed}");
}

/// Events queued when the server stopped are delivered by the next one, and the numbers go on.
#[tokio::test]
async fn restart_loses_no_event_and_no_number() {
    let dead = Webhook::start(std::iter::repeat_n(Reply::Status(503), 1000)).await;
    let server = TestServer::with(with(&dead)).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    ada.say(json!({"type": "userUpdate", "user": {"joined": true, "raisedHand": true}})).await;
    ada.say(json!({"type": "userUpdate", "user": {"joined": true, "raisedHand": false}})).await;
    let ask = ada.ask();
    dead.until(1).await;
    let stopped: Stopped = server.stop().await;
    let hook = Webhook::start([]).await;
    let url = hook.url().to_owned();
    let server = stopped.start_with(move |config| config.webhooks[0].url = url.into()).await;
    leave(ask.open(&server).await).await;
    let posted = until(&hook, "meeting.ended").await;
    let numbers: Vec<u64> = posted.iter().map(|posted| posted.card["seq"].as_u64().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{numbers:?} of {:?}", types(&posted));
    let meetings: BTreeSet<_> = posted.iter().map(|posted| posted.card["meeting"].to_string()).collect();
    assert_eq!(meetings.len(), 1, "the meeting survived");
    let kinds = types(&posted);
    assert_eq!((kinds[0], kinds[1]), ("meeting.started", "member.joined"));
    let hands = kinds.iter().filter(|kind| kind.starts_with("hand.")).count();
    assert_eq!(hands % 2, 0, "raised as often as lowered: {kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "member.joined").count(), 1, "a return is no joining");
}

/// Whatever was queued when the process was killed is delivered, and the meeting ends in any case: it is restored, or
/// was not stored yet.
#[tokio::test]
async fn kill_loses_no_queued_event_and_ends_the_meeting() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let settings = |hook: &Webhook| {
        let table =
            format!("[{{name = 'app', url = '{}', secret = '{SECRET}', allow_private = true}}]", hook.url());
        let timers = ["SATSUMA_ROOM__TICK", "SATSUMA_ROOM__HEARTBEAT_TIMEOUT", "SATSUMA_ROOM__RESTORE_GRACE"];
        let timers = timers.map(|name| (name, "200ms".to_owned()));
        [("SATSUMA_WEBHOOKS", table)].into_iter().chain(timers).collect::<Vec<_>>()
    };
    let start = async |hook: &Webhook| {
        let settings = settings(hook);
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, &**value)).collect();
        Process::start(&data, &settings).await
    };
    let down = Webhook::start([Reply::Status(503); 1000]).await;
    let process = start(&down).await;
    let _ada = Client::join(&process, "r", "Ada").await;
    down.until(1).await;
    let queued = metric(&process, "satsuma_deliveries_waiting").await;
    process.kill();
    let up = Webhook::start([]).await;
    let _process = start(&up).await;
    let posted = until(&up, "meeting.ended").await;
    let numbers: Vec<u64> = posted.iter().map(|posted| posted.card["seq"].as_u64().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{numbers:?} of {:?}", types(&posted));
    assert!(posted.len() as f64 > queued, "{queued} were queued: {:?}", types(&posted));
    assert_eq!(types(&posted)[0], "meeting.started");
}

/// A client that changes its state without end causes no more events than its seconds.
#[tokio::test]
async fn flooding_member_is_conflated() {
    let hook = Webhook::start([]).await;
    let server = TestServer::with(|config| {
        with(&hook)(config);
        config.room.tick = Duration::from_secs(15);
    })
    .await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    for round in 0..150 {
        let user = json!({"joined": true, "raisedHand": round % 2 == 0, "n": round});
        ada.say(json!({"type": "userUpdate", "user": user})).await;
    }
    ada.until_state(|state| state["users"][0]["n"] == 149).await;
    leave(ada).await;
    let posted = until(&hook, "member.left").await;
    let hands = types(&posted).into_iter().filter(|kind| kind.starts_with("hand.")).count();
    assert!(hands < 20, "{:?}", types(&posted));
    assert_eq!(hands % 2, 0, "it is down at the end: {:?}", types(&posted));
}

#[tokio::test]
async fn many_meetings_are_each_in_order() {
    let hook = Webhook::start([Reply::Status(500), Reply::Status(200), Reply::Status(500)]).await;
    let server = TestServer::with(with(&hook)).await;
    for round in 0..3 {
        for room in ["a", "b", "c"] {
            leave(Client::join(&server, room, &format!("Ada {round}")).await).await;
        }
    }
    let ended = async || {
        let posted = hook.posted();
        let mut meetings: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
        for posted in posted.iter() {
            let event = &posted.card;
            let entry = meetings.entry(event["meeting"].to_string()).or_default();
            entry.push((event["seq"].as_u64().unwrap(), event["type"].as_str().unwrap().to_owned()));
        }
        meetings
    };
    eventually("all meetings have ended".into(), async || {
        let meetings = ended().await;
        meetings.len() >= 3 && meetings.values().all(|events| events.last().unwrap().1 == "meeting.ended")
    })
    .await;
    for events in ended().await.into_values() {
        // Repeated, but never out of order.
        assert!(events.is_sorted_by_key(|(number, _)| *number), "{events:?}");
        let different: BTreeSet<u64> = events.iter().map(|(number, _)| *number).collect();
        assert!(different.iter().copied().eq(1..=different.len() as u64), "{events:?}");
    }
}

#[tokio::test]
async fn full_queue_is_told_when_it_has_space() {
    let hook = Webhook::start([]).await;
    let server = TestServer::with(|config| {
        with(&hook)(config);
        config.events.undelivered = 1;
    })
    .await;
    let ada = Client::join(&server, "r", "Ada").await;
    // Two events came together, and only one fits.
    assert_eq!(types(&hook.until(1).await), ["meeting.started"]);
    server.until_metric("satsuma_deliveries_waiting", 0.0).await;
    leave(ada).await;
    let posted = until(&hook, "events.lost").await;
    let lost = posted.iter().find(|posted| posted.card["type"] == "events.lost").unwrap();
    assert_eq!(lost.card["data"], json!({"lost": 1}));
    assert!(server.metric("satsuma_drops_total{reason=\"webhook_queue\"}").await >= 1.0);
}

#[tokio::test]
async fn private_addresses_are_refused_when_connecting() {
    let hook = Webhook::start([]).await;
    let port = hook.url().split(':').nth(2).unwrap().split('/').next().unwrap().to_owned();
    // By address, by a name that resolves to loopback, and in the forms that URLs have for one address.
    let hosts = ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "[::1]", "0.0.0.0"];
    let server = TestServer::with(|config| {
        let webhooks = hosts.iter().enumerate().map(|(at, host)| WebhookConfig {
            allow_private: false,
            ..webhook(&format!("w{at}"), &format!("http://{host}:{port}/"))
        });
        config.webhooks = webhooks.collect();
    })
    .await;
    for at in 0..hosts.len() {
        assert_eq!(server.admin_post(&format!("/admin/webhooks/w{at}/test"), &json!({})).await.status, 200);
    }
    let name = "satsuma_deliveries_total{reason=\"private_address\"}";
    eventually("each was tried".into(), async || server.metric(name).await >= hosts.len() as f64).await;
    assert!(hook.posted().is_empty());
    let listed = server.admin_get("/admin/webhooks").await.json();
    for webhook in listed["webhooks"].as_array().unwrap() {
        assert!(webhook["lastError"].as_str().unwrap().contains("allow_private"), "{webhook}");
    }
}

#[tokio::test]
async fn redirect_is_not_followed() {
    let hook = Webhook::start([Reply::Redirect, Reply::Redirect]).await;
    let server = TestServer::with(with(&hook)).await;
    server.admin_post("/admin/webhooks/app/test", &json!({})).await;
    let posted = hook.until(3).await;
    assert!(posted.iter().all(|posted| posted.path.starts_with("/hook/")));
}

#[tokio::test]
async fn report_is_told_without_its_contents() {
    let hook = Webhook::start([]).await;
    let server = TestServer::with(with(&hook)).await;
    let ada = Person::log_in(&server, "Ada").await;
    let _client = Ask::room("r").by(&ada).pk("a").open(&server).await;
    until(&hook, "member.joined").await;
    assert_eq!(answer(bug(&server, &ada, "it hangs", &info("r"))).await.text, OK);
    let posted = until(&hook, "report.created").await;
    let event = &posted.last().unwrap().card;
    assert_eq!((&event["seq"], &event["data"]["report"]["kind"]), (&json!(3), &json!("bug")));
    let id = event["data"]["report"]["id"].as_str().unwrap();
    assert_eq!(server.admin_get(&format!("/admin/reports/{id}")).await.status, 200);
    assert!(!event.to_string().contains("it hangs"));
}

#[tokio::test]
async fn dead_letter_is_listed_and_replayed() {
    let hook = Webhook::start([]).await;
    let server = TestServer::with(with(&hook)).await;
    let stopped = server.stop().await;
    let id = "2f1c3a4e-6a0e-4d0e-9a55-0d3d3c7f9f10";
    let insert = format!(
        "INSERT INTO deliveries (destination, id, kind, body, state, attempts, created, next_try, last_error, lane)
         VALUES ('webhook:app', '{id}', 'member.joined', '{{\"type\":\"member.joined\"}}', 'dead', 91,
            strftime('%Y-%m-%dT%H:%M:%fZ'), strftime('%Y-%m-%dT%H:%M:%fZ'), 'the webhook answered 500', 'm')"
    );
    let options = SqliteConnectOptions::new().filename(stopped.database());
    let mut beside = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&mut beside).await.unwrap();
    beside.close().await.unwrap();
    let server = stopped.start_with(|_| {}).await;
    let dead = server.admin_get("/admin/webhooks/dead?webhook=app&limit=1").await.json();
    let letter = &dead["deadLetters"][0];
    assert_eq!((&letter["webhook"], &letter["attempts"]), (&json!("app"), &json!(91)));
    assert_eq!(letter["event"], json!({"type": "member.joined"}));
    let event = format!("evt_{id}");
    assert_eq!(letter["id"], event.as_str());
    let replay = async |path: &str, body: Value| server.admin_post(path, &body).await;
    assert_eq!(replay("/admin/webhooks/none/replay", json!({})).await.status, 404);
    assert_eq!(replay("/admin/webhooks/app/replay", json!({"id": "x"})).await.status, 400);
    assert_eq!(replay("/admin/webhooks/app/replay", json!({"ids": []})).await.status, 400);
    let replayed = replay("/admin/webhooks/app/replay", json!({"id": event})).await;
    assert_eq!(replayed.json(), json!({"replayed": 1}));
    let posted = hook.until(1).await.remove(0);
    assert_eq!(posted.headers["webhook-id"].to_str().unwrap(), event);
    assert_eq!(server.admin_get("/admin/webhooks/dead").await.json()["deadLetters"], json!([]));
    assert_eq!(
        replay("/admin/webhooks/app/replay", json!({"id": event})).await.status,
        404,
        "delivered by now"
    );
}

#[tokio::test]
async fn webhooks_need_the_operator_token() {
    let server = TestServer::start().await;
    for (method, path) in [
        (Method::GET, "/admin/webhooks"),
        (Method::GET, "/admin/webhooks/dead"),
        (Method::POST, "/admin/webhooks/a/replay"),
        (Method::POST, "/admin/webhooks/a/test"),
    ] {
        let url = format!("http://{}{path}", server.addresses().admin);
        let request = reqwest::Client::builder().no_proxy().build().unwrap().request(method, url);
        assert_eq!(answer(request).await.status, 401, "{path}");
    }
    assert_eq!(server.admin_get("/admin/webhooks").await.json(), json!({"webhooks": []}));
    assert_eq!(server.metric("satsuma_events_total{type=\"meeting.started\"}").await, 0.0);
    let _ada = Client::join(&server, "r", "Ada").await;
    let events = server.metric("satsuma_events_total{type=\"meeting.started\"}").await;
    assert_eq!(events, 0.0, "nothing is recorded for nobody");
}

/// The specification's own library accepts what is posted, with the new secret and with the previous one.
#[tokio::test]
#[ignore = "needs node"]
async fn standard_webhooks_library_verifies_events() {
    let hook = Webhook::start([]).await;
    let server = TestServer::with(|config| {
        let previous_secret = Some(KeySource::Text(PREVIOUS.to_owned().into()));
        config.webhooks = vec![WebhookConfig { previous_secret, ..webhook("app", hook.url()) }];
    })
    .await;
    let _ada = Client::join(&server, "Küche 🍊", "Ada").await;
    for posted in until(&hook, "member.joined").await {
        let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
        let headers = names.map(|name| (name, posted.headers[name].to_str().unwrap()));
        let body = std::str::from_utf8(&posted.body).unwrap();
        let input = json!({"headers": BTreeMap::from(headers), "body": body, "secrets": [SECRET, PREVIOUS]});
        let output = Command::new("node")
            .arg("standardwebhooks.mjs")
            .arg(input.to_string())
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients"))
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.trim(), "valid valid forged", "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The application of the documentation: its link opens the room, and whoever joins by it is greeted.
#[tokio::test]
#[ignore = "needs node"]
async fn documented_application_greets_its_users() {
    let clients = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
    let app = tempfile::tempdir_in(clients).unwrap();
    let script = app.path().join("embed.mjs");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/embed.mjs"), &script).unwrap();
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let server = TestServer::with(|config| {
        config.auth = access_tokens::auth();
        config.auth.rooms = AccessLevel::Token;
        config.auth.create = AccessLevel::Token;
        config.webhooks = vec![webhook("app", &format!("http://127.0.0.1:{port}/hook"))];
    })
    .await;
    let mut child = Command::new("node")
        .arg(&script)
        .env("MEET", server.http())
        .env("KEY_SECRET", access_tokens::SECRET)
        .env("HOOK_SECRET", SECRET)
        .env("PORT", port.to_string())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.next_line().await.unwrap().unwrap();
    let client = reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
    let sent = answer(client.get(address)).await;
    assert_eq!(sent.status, 302);
    let path = sent.header("location").strip_prefix(&server.http()).unwrap().to_owned();
    let exchanged = answer(server.get(&path).header("accept", "text/html")).await;
    let cookie = exchanged.header("set-cookie").split(';').next().unwrap().to_owned();
    let mut ada = Ask::room("standup").by(&Person::with_cookie(cookie)).pk("ada").open(&server).await;
    let greeting = ada.until(|message| message["type"] == "chat").await;
    assert_eq!((&greeting["name"], &greeting["message"]), (&json!("Greeter"), &json!("Welcome, Ada!")));
    let forged = client.post(format!("http://127.0.0.1:{port}/hook")).body("{}");
    assert_eq!(answer(forged).await.status, 401);
}
