//! Delivery of cards to the webhook: byte-exact, and at least once.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use crate::feedback::{OK, bug, info};
use crate::harness::{Person, TestServer, answer, eventually, logged};
use crate::process::Process;
use crate::webhook::{Broken, Posted, Reply, Webhook};

async fn server_for(url: &str) -> TestServer {
    TestServer::with(|config| config.feedback.url.0 = Some(url.into())).await
}

async fn delivery(server: &TestServer) -> Value {
    let seen = server.admin_get("/admin/reports").await.json();
    seen["reports"][0]["delivery"].clone()
}

async fn until_state(server: &TestServer, state: &str) {
    eventually(format!("the delivery is {state}"), async || delivery(server).await["state"] == state).await;
}

async fn report(server: &TestServer, room: &str) {
    let ada = Person::log_in(server, "Ada").await;
    let mut info = info(room);
    info["identity"]["name"] = json!(format!("Ada of {room}"));
    assert_eq!(answer(bug(server, &ada, "it hangs", &info)).await.text, OK);
}

fn titles(posted: &[Posted]) -> Vec<&str> {
    posted.iter().map(Posted::title).collect()
}

#[tokio::test]
async fn card_is_delivered_once_and_byte_exact() {
    let hook = Webhook::start([]).await;
    let server = server_for(hook.url()).await;
    report(&server, "r").await;
    let posted = hook.until(1).await.remove(0);
    assert_eq!((posted.method.as_str(), &*posted.path), ("POST", "/hook/SECRET-PATH?token=SECRET-TOKEN"));
    assert_eq!(posted.headers["content-type"], "application/json; charset=UTF-8");
    assert!(!posted.headers.contains_key("cookie") && !posted.headers.contains_key("authorization"));
    let card = &posted.card["cardsV2"][0];
    assert_eq!(card["cardId"], "orange-meets-feedback-card");
    let header = &card["card"]["header"];
    let subtitle = header["subtitle"].as_str().unwrap();
    let time = subtitle.strip_prefix("Time: ").unwrap().split(' ').next().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    let rest = format!(" Environment: meet.example commit: {}", env!("CARGO_PKG_VERSION"));
    assert!(subtitle.ends_with(&rest), "{subtitle}");
    let sections = card["card"]["sections"].as_array().unwrap();
    let texts: Vec<_> = sections[..2].iter().map(|s| &s["widgets"][0]["textParagraph"]["text"]).collect();
    assert_eq!(texts, ["it hangs", "Browser/1"]);
    let button = |at: usize| &sections[at]["widgets"][0]["buttonList"]["buttons"][0];
    assert_eq!(
        *button(2),
        json!({"text": "r", "onClick": {"openLink": {"url": "https://meet.example/r/room"}}})
    );
    // A link to the requested host would be the reporter's choice.
    let debug_info = sections[3]["widgets"][0]["textParagraph"]["text"].as_str().unwrap();
    assert!(debug_info.starts_with("Report ") && debug_info.contains("http.public_url"), "{debug_info}");

    until_state(&server, "delivered").await;
    assert_eq!(delivery(&server).await["attempts"], 1);
    assert_eq!(hook.posted().len(), 1);
    server.until_metric("satsuma_deliveries_total{reason=\"delivered\"}", 1.0).await;
    server.until_metric("satsuma_deliveries_waiting", 0.0).await;
}

#[tokio::test]
async fn dead_track_card_has_its_dashboard_link() {
    let hook = Webhook::start([]).await;
    let server = TestServer::with(|config| {
        config.feedback.url.0 = Some(hook.url().into());
        config.feedback.dashboard_worker_url.0 = Some("https://d.example".parse().unwrap());
    })
    .await;
    let ada = Person::log_in(&server, "Ada").await;
    let track = json!({"pullSessionTrace": "https://t.example/a", "pushedSessionTrace": "https://t.example/b",
        "trackId": "t", "meetingId": "m 1"});
    let request = server.post_form("/api/deadTrack", &[]).header("cookie", ada.cookie());
    assert_eq!(answer(request.body(track.to_string())).await.text, OK);
    let posted = hook.until(1).await.remove(0);
    assert_eq!(posted.title(), "💀 Dead track: Ada had issue pulling from somebody unknown");
    let card = &posted.card["cardsV2"][0]["card"];
    assert!(card["header"]["subtitle"].as_str().unwrap().contains(" Environment: 127.0.0.1 commit: "));
    let dashboard = &card["sections"][2]["widgets"][0]["buttonList"]["buttons"][0];
    let url = dashboard["onClick"]["openLink"]["url"].as_str().unwrap();
    assert!(url.starts_with("https://d.example/observability/logs?view=events&needle=%7B%22value"), "{url}");
    assert!(url.contains("%22m+1%22"), "{url}");
}

#[tokio::test]
async fn failed_card_is_retried_with_growing_delays() {
    let hook = Webhook::start([Reply::Status(500), Reply::Redirect]).await;
    let server = server_for(hook.url()).await;
    report(&server, "r").await;
    let posted = hook.until(3).await;
    assert_eq!(titles(&posted), ["Feedback from Ada of r"; 3]);
    assert!(posted.iter().all(|posted| posted.path.starts_with("/hook/")), "no redirect is followed");
    let [first, second] = [posted[1].at - posted[0].at, posted[2].at - posted[1].at];
    assert!(
        first >= Duration::from_millis(900) && second >= Duration::from_millis(1900),
        "{first:?} {second:?}"
    );
    until_state(&server, "delivered").await;
    assert_eq!(delivery(&server).await["attempts"], 3);
    for reason in ["server_error", "redirected", "delivered"] {
        let name = format!("satsuma_deliveries_total{{reason=\"{reason}\"}}");
        assert_eq!(server.metric(&name).await, 1.0, "{reason}");
    }
}

#[tokio::test]
async fn retry_after_pauses_all_cards() {
    let hook = Webhook::start([Reply::RetryAfter(429, "3")]).await;
    let server = server_for(hook.url()).await;
    report(&server, "a").await;
    hook.until(1).await;
    eventually("the refusal is written down".to_owned(), async || {
        delivery(&server).await["lastError"] == "the webhook answered 429"
    })
    .await;
    report(&server, "b").await;
    let posted = hook.until(3).await;
    let waits: Vec<_> = posted[1..].iter().map(|next| next.at - posted[0].at).collect();
    assert!(waits.iter().all(|wait| *wait >= Duration::from_millis(2900)), "{waits:?}");
    let mut later = titles(&posted[1..]);
    later.sort_unstable();
    assert_eq!(later, ["Feedback from Ada of a", "Feedback from Ada of b"]);
}

#[tokio::test]
async fn slow_webhook_delays_no_reports_and_no_other_cards() {
    let hook = Webhook::start([Reply::Nothing, Reply::Nothing, Reply::Endless]).await;
    let server = server_for(hook.url()).await;
    for room in ["a", "b", "c", "d"] {
        report(&server, room).await;
    }
    let posted = hook.until(4).await;
    assert!(titles(&posted).contains(&"Feedback from Ada of d"));
    eventually("two are delivered while two wait for an answer".to_owned(), async || {
        let seen = server.admin_get("/admin/reports").await.json();
        let states = seen["reports"].as_array().unwrap().iter().map(|line| line["delivery"]["state"].clone());
        states.filter(|state| state == "delivered").count() == 2
    })
    .await;
    server.until_metric("satsuma_deliveries_waiting", 2.0).await;
}

#[tokio::test]
async fn broken_webhook_is_retried_and_its_url_not_logged() {
    let hook = Broken::start().await;
    let server = server_for(&hook.url()).await;
    report(&server, "r").await;
    eventually("it is tried again".to_owned(), async || hook.count() >= 2).await;
    let delivery = delivery(&server).await;
    assert_eq!(delivery["state"], "waiting");
    assert_eq!(delivery["lastError"], "the webhook cannot be reached");
    assert!(delivery["nextTry"].is_string());
    assert!(server.metric("satsuma_deliveries_total{reason=\"unreachable\"}").await >= 1.0);
    server.stop().await;
    let log = logged();
    assert!(log.contains("cardNotDelivered"));
    for secret in ["SECRET-PATH", "SECRET-TOKEN"] {
        assert!(!log.contains(secret), "{secret} is logged");
    }
}

#[tokio::test]
async fn card_survives_restarts_without_a_webhook() {
    let refusing = Webhook::start([Reply::Status(403)]).await;
    let server = server_for(refusing.url()).await;
    report(&server, "r").await;
    refusing.until(1).await;
    eventually("the refusal is written down".to_owned(), async || delivery(&server).await["attempts"] == 1)
        .await;
    let stopped = server.stop().await;
    let server = stopped.start_with(|config| config.feedback.url.0 = None).await;
    assert_eq!(delivery(&server).await["state"], "waiting");
    report(&server, "without").await;
    assert_eq!(delivery(&server).await, Value::Null, "nothing is queued without a webhook");
    let stopped = server.stop().await;
    let hook = Webhook::start([]).await;
    let server = stopped.start_with(|config| config.feedback.url.0 = Some(hook.url().into())).await;
    assert_eq!(titles(&hook.until(1).await), ["Feedback from Ada of r"]);
    server.until_metric("satsuma_deliveries_waiting", 0.0).await;
}

#[tokio::test]
async fn undelivered_card_is_dead_after_three_days() {
    let hook = Webhook::start([Reply::Status(404)]).await;
    let server = TestServer::start().await;
    report(&server, "r").await;
    let stopped = server.stop().await;
    // As if it had been queued four days ago.
    let options = SqliteConnectOptions::new().filename(stopped.database());
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    let queue = "INSERT INTO deliveries (destination, id, kind, body, state, attempts, created, next_try)
                 SELECT 'feedback', id, 'card', '{\"cardsV2\":[]}', 'waiting', 90, $1, $1 FROM reports";
    let four_days =
        std::fs::metadata(stopped.database()).unwrap().modified().unwrap() - Duration::from_secs(4 * 86_400);
    let four_days = humantime::format_rfc3339_millis(four_days).to_string();
    sqlx::query(queue).bind(four_days).execute(&mut database).await.unwrap();
    database.close().await.unwrap();

    let server = stopped.start_with(|config| config.feedback.url.0 = Some(hook.url().into())).await;
    until_state(&server, "dead").await;
    let delivery = delivery(&server).await;
    assert_eq!(
        (&delivery["attempts"], &delivery["lastError"]),
        (&json!(91), &json!("the webhook answered 404"))
    );
    server.until_metric("satsuma_deliveries_dead", 1.0).await;
    assert_eq!(server.metric("satsuma_deliveries_total{reason=\"given_up\"}").await, 1.0);
    assert_eq!(hook.posted().len(), 1);
    let stopped = server.stop().await;
    let server = stopped.start_with(|_| {}).await;
    server.until_metric("satsuma_deliveries_dead", 1.0).await;
}

/// Posts a report to a server in a process of its own, and returns the answer.
async fn report_to(process: &Process) -> (u16, String) {
    let ada = Person::log_in(process, "Ada").await;
    let answer = answer(bug(process, &ada, "", &info("r"))).await;
    (answer.status, answer.text)
}

#[tokio::test]
async fn card_survives_a_crash_before_delivery() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let silent = Webhook::start([Reply::Nothing]).await;
    let process = Process::start(&data, &[("FEEDBACK_URL", silent.url())]).await;
    assert_eq!(report_to(&process).await, (200, OK.to_owned()));
    silent.until(1).await;
    drop(process);

    let hook = Webhook::start([]).await;
    let _process = Process::start(&data, &[("FEEDBACK_URL", hook.url())]).await;
    assert_eq!(titles(&hook.until(1).await), ["Feedback from Ada"]);
    let card = &hook.posted()[0].card;
    assert_eq!(card, &silent.posted()[0].card, "it is the same card");
}
