//! Reports: validation, storage and access.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection, Executor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::client::Client;
use crate::harness::{Answer, Person, Reach, TestServer, answer, eventually, logged, post_form};
use crate::webhook::Webhook;

pub const OK: &str = r#"{"status":"ok"}"#;

/// The stock client's value of `info`.
pub fn info(room: &str) -> Value {
    json!({
        "roomName": room,
        "identity": {"id": "x", "name": "Ada", "joined": true},
        "roomHistory": {"apiHistory": [{"endpoint": "/sessions/new"}], "userSessions": []},
        "url": format!("https://meet.example/{room}/room"),
    })
}

/// A report as the stock client posts it.
pub fn bug(server: &impl Reach, by: &Person, description: &str, info: &Value) -> RequestBuilder {
    let info = info.to_string();
    post_form(server, "/api/bugReport", &[("description", description), ("info", &info)])
        .header("cookie", by.cookie())
        .header("user-agent", "Browser/1")
}

/// A request with this content type in place of a form's.
fn with_type(request: RequestBuilder, kind: &str) -> RequestBuilder {
    request.headers(HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())]))
}

fn post(server: &TestServer, by: &Person, path: &str) -> RequestBuilder {
    server.post_form(path, &[]).header("cookie", by.cookie())
}

fn dead_track(server: &TestServer, by: &Person, body: &Value) -> RequestBuilder {
    // As fetch() sends a text.
    let request = post(server, by, "/api/deadTrack").body(body.to_string());
    with_type(request, "text/plain;charset=UTF-8")
}

fn track() -> Value {
    json!({
        "pullSessionTrace": "https://trace.example/a",
        "pushedSessionTrace": "https://trace.example/b",
        "trackId": "t1",
        "pullingUser": "Ada",
        "pushingUser": "Bob",
        "meetingId": "m1",
    })
}

async fn reports(server: &TestServer, query: &str) -> Vec<Value> {
    let seen = server.admin_get(&format!("/admin/reports{query}")).await;
    assert_eq!(seen.status, 200, "{seen:?}");
    seen.json()["reports"].as_array().unwrap().clone()
}

async fn counted(server: &TestServer, kind: &str, outcome: &str) -> f64 {
    server.metric(&format!("satsuma_reports_total{{kind=\"{kind}\",outcome=\"{outcome}\"}}")).await
}

#[tokio::test]
async fn report_is_stored_and_shown_by_default() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    let taken = answer(bug(&server, &ada, "it hangs", &info("my room"))).await;
    assert_eq!((taken.status, &*taken.text), (200, OK));
    assert_eq!(taken.header("content-type"), "application/json");

    let lines = reports(&server, "").await;
    let [line] = &lines[..] else { panic!("{lines:?}") };
    let id = line["id"].as_str().unwrap();
    assert!(line["identity"].as_str().unwrap().starts_with("cookie:"));
    let expected = json!({
        "id": id, "kind": "bug", "created": line["created"], "room": "my room", "meetingId": null,
        "identity": line["identity"], "name": "Ada", "description": "it hangs", "cutEntries": 0,
        "bytes": line["bytes"], "delivery": null,
    });
    assert_eq!(line, &expected);
    let seen = server.admin_get(&format!("/admin/reports/{id}")).await.json();
    let mut whole = expected;
    whole["userAgent"] = "Browser/1".into();
    whole["url"] = "https://meet.example/my room/room".into();
    assert_eq!(seen, json!({"report": whole, "history": info("my room")["roomHistory"]}));

    let token = std::fs::read_to_string(server.data_dir().join("operator.token")).unwrap();
    let json = answer(server.get(&format!("/api/debugInfo?id={id}")).bearer_auth(token.trim())).await;
    assert_eq!((json.status, json.header("content-type")), (200, "application/json"));
    assert_eq!(json.header("cache-control"), "no-store");
    assert_eq!(json.text, info("my room")["roomHistory"].to_string());
    assert_eq!(counted(&server, "bug", "stored").await, 1.0);
}

#[tokio::test]
async fn both_form_encodings_are_parsed() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    let multipart = |fields: &[(&str, &str)]| {
        let mut body = String::new();
        for (name, value) in fields {
            body += &format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        }
        let request = post(&server, &ada, "/api/bugReport").body(body + "--XX--\r\n");
        with_type(request, "multipart/form-data; boundary=XX")
    };
    let info = info("r").to_string();
    let fields = [("other", "y"), ("description", "line 1\r\nline 2 🍊"), ("info", &*info), ("info", "{}")];
    assert_eq!(answer(multipart(&fields)).await.status, 200);
    assert_eq!(reports(&server, "").await[0]["description"], "line 1\r\nline 2 🍊");
    for (fields, field) in [(&fields[..2], "info"), (&fields[2..3], "description")] {
        let refused = answer(multipart(fields)).await;
        assert_eq!(
            (refused.status, &*refused.text),
            (400, &*format!("the form needs a field \"{field}\"\n"))
        );
    }
    for (kind, body, status) in [
        ("multipart/form-data", "x", 400),
        ("multipart/form-data; boundary=XX", "no boundary", 400),
        (
            "multipart/form-data; boundary=XX",
            "--XX\r\nContent-Disposition: form-data; name=\"info\"\r\n\r\n{",
            400,
        ),
        ("application/json", "{}", 400),
        ("", "", 400),
    ] {
        let request = post(&server, &ada, "/api/bugReport").body(body);
        let refused = answer(with_type(request, kind)).await;
        assert_eq!(refused.status, status, "{kind}: {refused:?}");
    }
    assert_eq!(counted(&server, "bug", "refused").await, 7.0);
}

#[tokio::test]
async fn invalid_field_is_named() {
    let server = TestServer::with(|config| config.feedback.description_chars = 10).await;
    let ada = Person::log_in(&server, "Ada").await;
    let with = |field: &str, value: Value| {
        let mut info = info("r");
        info[field] = value;
        info
    };
    for (description, info, field) in [
        ("12345678901", info("r"), "description"),
        ("", json!("text"), "info"),
        ("", with("roomName", json!(null)), "info.roomName"),
        ("", with("url", json!("nowhere")), "info.url"),
        ("", with("identity", json!(7)), "info.identity"),
    ] {
        let refused = answer(bug(&server, &ada, description, &info)).await;
        assert_eq!(refused.status, 400);
        assert!(refused.text.contains(&format!("\"{field}\"")), "{refused:?}");
    }
    for field in ["pullSessionTrace", "pushedSessionTrace", "trackId"] {
        for value in [json!(null), json!(""), json!(7), json!("x".repeat(5000))] {
            let mut track = track();
            track[field] = value;
            let refused = answer(dead_track(&server, &ada, &track)).await;
            assert_eq!(refused.status, 400);
            assert!(refused.text.contains(&format!("\"{field}\"")), "{refused:?}");
        }
    }
    assert_eq!(reports(&server, "").await.len(), 0);
}

#[tokio::test]
async fn dead_track_json_has_any_content_type() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    let taken = answer(dead_track(&server, &ada, &track())).await;
    assert_eq!((taken.status, &*taken.text), (200, OK));
    let least = json!({"pullSessionTrace": "a", "pushedSessionTrace": "b", "trackId": "t"});
    assert_eq!(answer(dead_track(&server, &ada, &least)).await.status, 200);
    for body in ["", "{", "[]", "null", "7", "\"x\"", "{\"trackId\":\"a\",\"trackId\":\"b\"}", "\u{fffd}"] {
        let refused = answer(post(&server, &ada, "/api/deadTrack").body(body)).await;
        assert_eq!((refused.status, &*refused.text), (400, "the body is to be a JSON object\n"), "{body}");
    }
    let long = json!({"trackId": "x".repeat(70_000)});
    assert_eq!(answer(dead_track(&server, &ada, &long)).await.status, 413);

    let lines = reports(&server, "?kind=dead_track").await;
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[1]["description"], &lines[1]["meetingId"]), (&json!("t1"), &json!("m1")));
    let id = lines[1]["id"].as_str().unwrap();
    let seen = server.admin_get(&format!("/admin/reports/{id}")).await.json();
    assert_eq!(seen["history"], track(), "all of it is kept");
}

#[tokio::test]
async fn dead_track_is_listed_under_its_meetings_room() {
    let server = TestServer::start().await;
    let mut client = Client::join(&server, "r", "Ada").await;
    let meeting = client.until_state(|_| true).await["meetingId"].take();
    let ada = Person::log_in(&server, "Ada").await;
    eventually("the meeting has its row".to_owned(), async || {
        server.admin_get("/admin/meetings").await.json()["meetings"][0]["id"] == meeting
    })
    .await;
    let mut track = track();
    track["meetingId"] = meeting.clone();
    answer(dead_track(&server, &ada, &track)).await;
    answer(bug(&server, &ada, "", &info("r"))).await;
    for line in reports(&server, "?room=r").await {
        assert_eq!((&line["room"], &line["meetingId"]), (&json!("r"), &meeting));
    }
    assert_eq!(reports(&server, "?room=r").await.len(), 2);
}

#[tokio::test]
async fn report_without_identity_or_origin_is_refused() {
    let server = TestServer::start().await;
    let info = info("r").to_string();
    let form = [("description", ""), ("info", &*info), ("meetingId", "x"), ("experiencedIssues", "true")];
    for path in ["/api/bugReport", "/api/deadTrack", "/api/reportRefresh", "/call-quality-feedback"] {
        assert_eq!(answer(server.post_form(path, &form)).await.status, 401, "{path}");
        let foreign = server.post_form(path, &form).header("origin", "https://evil.example");
        assert_eq!(answer(foreign).await.status, 403, "{path}");
    }
    assert_eq!(reports(&server, "").await.len(), 0);
}

#[tokio::test]
async fn debug_info_needs_the_signed_link_or_the_token() {
    let hook = Webhook::start([]).await;
    let server = TestServer::with(|config| {
        config.feedback.url.0 = Some(hook.url().into());
        config.http.public_url.0 = Some("https://meet.example".parse().unwrap());
    })
    .await;
    let ada = Person::log_in(&server, "Ada").await;
    for room in ["a", "b"] {
        assert_eq!(answer(bug(&server, &ada, "", &info(room))).await.status, 200);
    }
    let posted = hook.until(2).await;
    let link = |card: &Value| {
        let sections = &card["cardsV2"][0]["card"]["sections"];
        let url = &sections[3]["widgets"][0]["buttonList"]["buttons"][0]["onClick"]["openLink"]["url"];
        url.as_str().unwrap().strip_prefix("https://meet.example").unwrap().to_owned()
    };
    let [first, second] = [link(&posted[0].card), link(&posted[1].card)];
    let seen = answer(server.get(&first)).await;
    assert_eq!((seen.status, seen.header("content-type")), (200, "application/json"));
    assert_eq!(seen.json(), info("a")["roomHistory"]);

    let part = |link: &str, name: &str| {
        let query = link.split_once('?').unwrap().1;
        let parts = url::form_urlencoded::parse(query.as_bytes()).into_owned();
        parts.into_iter().find(|(found, _)| found == name).unwrap().1
    };
    let (id, exp, sig) = (part(&first, "id"), part(&first, "exp"), part(&first, "sig"));
    for path in [
        format!("/api/debugInfo?id={id}"),
        format!("/api/debugInfo?id={id}&exp={exp}"),
        format!("/api/debugInfo?id={id}&sig={sig}"),
        format!("/api/debugInfo?id={id}&exp={exp}&sig="),
        format!("/api/debugInfo?id={id}&exp={exp}0&sig={sig}"),
        format!("/api/debugInfo?id={}&exp={exp}&sig={sig}", part(&second, "id")),
        format!("/api/debugInfo?id={id}&exp={exp}&sig={}", part(&second, "sig")),
        format!("/api/debugInfo?id={}", Uuid::new_v4()),
        "/api/debugInfo?id=no-uuid".to_owned(),
    ] {
        for request in [
            server.get(&path),
            server.get(&path).header("cookie", ada.cookie()),
            server.get(&path).bearer_auth("wrong"),
        ] {
            assert_eq!(answer(request).await.status, 401, "{path}");
        }
    }
    let token = std::fs::read_to_string(server.data_dir().join("operator.token")).unwrap();
    for (path, status) in [
        (format!("/api/debugInfo?id={id}"), 200),
        (format!("/api/debugInfo?id={}", Uuid::new_v4()), 404),
        ("/api/debugInfo?id=no-uuid".to_owned(), 404),
        ("/api/debugInfo".to_owned(), 400),
    ] {
        assert_eq!(answer(server.get(&path).bearer_auth(token.trim())).await.status, status, "{path}");
    }
    let missing = answer(server.get("/api/debugInfo?x=1")).await;
    assert_eq!((missing.status, &*missing.text), (400, "missing id param"));

    let log = logged();
    for secret in [&sig, &exp, "SECRET-TOKEN", "SECRET-PATH", token.trim()] {
        assert!(!log.contains(secret), "{secret} is logged");
    }
}

#[tokio::test]
async fn report_over_the_quota_is_answered_and_dropped() {
    let server = TestServer::with(|config| {
        config.feedback.reports_per_identity = 3;
        config.feedback.reports_per_address = 5;
    })
    .await;
    let ada = Person::log_in(&server, "Ada").await;
    for n in 0..5 {
        let taken = answer(bug(&server, &ada, "", &info(&format!("a{n}")))).await;
        assert_eq!((taken.status, &*taken.text), (200, OK));
    }
    let taken = answer(dead_track(&server, &ada, &track())).await;
    assert_eq!((taken.status, &*taken.text), (200, OK));
    assert_eq!(reports(&server, "").await.len(), 3);
    // All clients of the test have one address.
    let bob = Person::log_in(&server, "Bob").await;
    for n in 0..4 {
        assert_eq!(answer(bug(&server, &bob, "", &info(&format!("b{n}")))).await.text, OK);
    }
    assert_eq!(reports(&server, "").await.len(), 5);
    assert_eq!(counted(&server, "bug", "rate_limited").await, 4.0);
    assert_eq!(counted(&server, "dead_track", "rate_limited").await, 1.0);

    // A report whose body is still under way is answered as well, and its connection stays usable.
    let long = "x".repeat(3 << 20);
    assert_eq!(answer(bug(&server, &bob, &long, &info("b"))).await.text, OK);
}

#[tokio::test]
async fn refreshes_and_quality_are_counted_up_to_the_quota() {
    let server = TestServer::with(|config| config.feedback.counts_per_identity = 4).await;
    let mut client = Client::join(&server, "r", "Ada").await;
    let meeting = client.until_state(|_| true).await["meetingId"].as_str().unwrap().to_owned();
    let ada = Person::log_in(&server, "Ada").await;
    for _ in 0..3 {
        let taken = answer(post(&server, &ada, "/api/reportRefresh")).await;
        assert_eq!((taken.status, &*taken.text), (201, ""));
    }
    let rate = async |by: &Person, issues: &str, meeting: &str| -> Answer {
        let form = [("experiencedIssues", issues), ("meetingId", meeting)];
        answer(server.post_form("/call-quality-feedback", &form).header("cookie", by.cookie())).await
    };
    let bob = Person::log_in(&server, "Bob").await;
    // Counted at once, though the meeting's row is written behind.
    for (by, issues) in [(&ada, "true"), (&bob, "false"), (&ada, "true")] {
        let taken = rate(by, issues, &meeting).await;
        assert_eq!((taken.status, taken.header("location")), (302, "/"), "{taken:?}");
    }
    assert_eq!(answer(post(&server, &ada, "/api/reportRefresh")).await.status, 201);
    let seen = server.admin_get("/admin/feedback").await.json();
    let day = seen["days"][0]["day"].clone();
    let version = env!("CARGO_PKG_VERSION");
    let expected = json!({"days": [{
        "day": day, "version": version, "refreshes": 3, "callsWithIssues": 1, "callsWithoutIssues": 1,
    }]});
    assert_eq!(seen, expected);
    assert_eq!(counted(&server, "refresh", "rate_limited").await, 1.0);
    assert_eq!(counted(&server, "call_quality", "rate_limited").await, 1.0);

    let cyd = Person::log_in(&server, "Cyd").await;
    let unknown = Uuid::new_v4().to_string();
    for (issues, meeting, field) in [
        ("perhaps", &*meeting, "experiencedIssues"),
        ("true", "no-uuid", "meetingId"),
        ("true", &*unknown, "meetingId"),
    ] {
        let refused = rate(&cyd, issues, meeting).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.text.contains(&format!("\"{field}\"")), "{refused:?}");
    }
    let missing = answer(post(&server, &cyd, "/call-quality-feedback")).await;
    assert!(missing.status == 400 && missing.text.contains("experiencedIssues"), "{missing:?}");
    // A page of the same path is unaffected.
    let page = answer(server.get("/call-quality-feedback").header("cookie", ada.cookie())).await;
    assert_eq!(page.status, 200);
}

#[tokio::test]
async fn long_history_keeps_its_newest_entries() {
    let server = TestServer::with(|config| config.feedback.history_bytes = 100_000).await;
    let ada = Person::log_in(&server, "Ada").await;
    let entries: Vec<_> = (0..5000).map(|n| json!({"n": n, "body": "v=0 ".repeat(20)})).collect();
    let mut info = info("r");
    info["roomHistory"] =
        json!({"apiHistory": entries, "userSessions": [{"username": "Bob", "sessionId": "s"}]});
    // Several hundred kilobytes: above the limit of other forms.
    assert_eq!(answer(bug(&server, &ada, "", &info)).await.text, OK);
    let line = reports(&server, "").await.remove(0);
    let seen = server.admin_get(&format!("/admin/reports/{}", line["id"].as_str().unwrap())).await.json();
    let stored = seen["history"]["apiHistory"].as_array().unwrap();
    assert_eq!(stored.last(), entries.last());
    assert_eq!(seen["history"]["userSessions"], info["roomHistory"]["userSessions"]);
    let cut = entries.len() - stored.len();
    assert!(cut > 0 && stored.len() > 100, "{}", stored.len());
    assert_eq!(seen["history"]["satsuma:cut"], json!({"apiHistory": cut}));
    assert_eq!(line["cutEntries"], cut);
}

#[tokio::test]
async fn report_form_has_its_own_size_limit() {
    let server = TestServer::with(|config| {
        config.feedback.form_bytes = 100_000;
        config.limits.request_timeout = Duration::from_millis(300);
    })
    .await;
    let ada = Person::log_in(&server, "Ada").await;
    let mut info = info("r");
    info["roomHistory"] = json!("x".repeat(80_000));
    assert_eq!(answer(bug(&server, &ada, "", &info)).await.status, 200);
    info["roomHistory"] = json!("x".repeat(101_000));
    let long = bug(&server, &ada, "", &info).build().unwrap();
    let body = long.body().unwrap().as_bytes().unwrap().to_vec();
    assert_eq!(answer(bug(&server, &ada, "", &info)).await.status, 413);
    // Without a length the body is counted as it arrives.
    let chunked = format!("{:x}\r\n{}\r\n0\r\n\r\n", body.len(), String::from_utf8(body).unwrap());
    let head = format!(
        "POST /api/bugReport HTTP/1.1\r\nHost: x\r\nCookie: {}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n",
        ada.cookie()
    );
    let status = async |parts: &[&str]| {
        let mut stream = TcpStream::connect(server.addresses().http).await.unwrap();
        for part in parts {
            stream.write_all(part.as_bytes()).await.unwrap();
        }
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(status(&[&head, "Transfer-Encoding: chunked\r\n\r\n", &chunked]).await, "413");
    // Other routes still time out after limits.request_timeout; this one has a longer timeout.
    let slow = head.replace("/api/bugReport", "/api/deadTrack") + "Content-Length: 100\r\n\r\n{";
    assert_eq!(status(&[&slow]).await, "408");
    assert_eq!(answer(post(&server, &ada, "/api/deadTrack").body("x".repeat(70_000))).await.status, 413);
}

#[tokio::test]
async fn report_form_has_its_own_timeout() {
    let server = TestServer::with(|config| {
        config.limits.request_timeout = Duration::from_millis(200);
        config.feedback.form_timeout = Duration::from_secs(3);
    })
    .await;
    let ada = Person::log_in(&server, "Ada").await;
    let mut stream = TcpStream::connect(server.addresses().http).await.unwrap();
    let head = format!(
        "POST /api/bugReport HTTP/1.1\r\nHost: x\r\nCookie: {}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nd",
        ada.cookie()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // An ordinary request that begins later times out earlier.
    let ordinary = head.replace("/api/bugReport", "/set-username");
    let mut other = TcpStream::connect(server.addresses().http).await.unwrap();
    other.write_all(ordinary.as_bytes()).await.unwrap();
    let (mut first, mut second) = (String::new(), String::new());
    tokio::select! {
        biased;
        read = stream.read_to_string(&mut first) => panic!("the report's form was cut off first: {read:?} {first}"),
        read = other.read_to_string(&mut second) => drop(read.unwrap()),
    }
    assert!(second.starts_with("HTTP/1.1 408"), "{second}");
    assert!(
        second.contains("the request took too long: it arrived slowly, or the server is busy"),
        "{second}"
    );
    stream.read_to_string(&mut first).await.unwrap();
    assert!(first.starts_with("HTTP/1.1 408"), "{first}");
    assert_eq!(reports(&server, "").await.len(), 0);
}

/// Memory that was reserved chunk by chunk was held by eight halves of forms, none of which could finish.
#[tokio::test]
async fn large_forms_over_the_budget_are_all_answered() {
    const FORMS: usize = 8;
    const FORM: usize = 30 << 20;
    let server =
        TestServer::with(|config| config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()]);
    let server = server.await;
    let ada = Person::log_in(&server, "Ada").await;
    // The head of an invalid form, so that parsing it takes no time.
    let head = |number: usize| {
        format!(
            "POST /api/bugReport HTTP/1.1\r\nHost: x\r\nCookie: {}\r\nX-Forwarded-For: 192.0.2.{number}\r\n\
             Connection: close\r\nContent-Length: {FORM}\r\n\
             Content-Type: multipart/form-data; boundary=form\r\n\r\n",
            ada.cookie()
        )
    };
    let mut streams = Vec::new();
    for number in 0..FORMS {
        let mut stream = TcpStream::connect(server.addresses().http).await.unwrap();
        stream.write_all(head(number).as_bytes()).await.unwrap();
        streams.push(stream);
    }
    server.until_metric("satsuma_form_bytes", (4 * FORM) as f64).await;
    // Short forms are not delayed.
    let small = bug(&server, &ada, "", &info("r")).header("x-forwarded-for", "192.0.2.200");
    assert_eq!(answer(small).await.status, 200);
    let chunk = vec![b'x'; 1 << 20];
    let mut senders = tokio::task::JoinSet::new();
    for mut stream in streams {
        let chunk = chunk.clone();
        senders.spawn(async move {
            for _ in 0..FORM / chunk.len() {
                stream.write_all(&chunk).await.unwrap();
            }
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text.split(' ').nth(1).unwrap_or_default().to_owned()
        });
    }
    let statuses = senders.join_all().await;
    let read = statuses.iter().filter(|status| *status == "400").count();
    let busy = statuses.iter().filter(|status| *status == "503").count();
    assert!(read >= 4 && read + busy == FORMS, "{statuses:?}");
    server.until_metric("satsuma_form_bytes", 0.0).await;
}

#[tokio::test]
async fn one_network_leaves_upload_memory_for_others() {
    const FORM: usize = 2 << 20;
    let server = TestServer::with(|config| config.feedback.form_bytes = FORM).await;
    let ada = Person::log_in(&server, "Ada").await;
    let head = format!(
        "POST /api/bugReport HTTP/1.1\r\nHost: x\r\nCookie: {}\r\nContent-Length: {FORM}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n",
        ada.cookie()
    );
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.addresses().http).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    server.until_metric("satsuma_form_bytes", (2 * FORM) as f64).await;
    let mut info = info("r");
    info["roomHistory"] = json!("x".repeat(FORM - 10_000));
    let refused = answer(bug(&server, &ada, "", &info)).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "5"));
    assert_eq!(counted(&server, "bug", "refused").await, 1.0);
    slow.pop();
    server.until_metric("satsuma_form_bytes", FORM as f64).await;
    assert_eq!(answer(bug(&server, &ada, "", &info)).await.status, 200);
}

#[tokio::test]
async fn failing_store_answers_503() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    // Another process locks the database for longer than any timeout.
    let options = SqliteConnectOptions::new().filename(server.data_dir().join("satsuma.db"));
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let refused = answer(bug(&server, &ada, "", &info("r"))).await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.text, "the database cannot be written at the moment; try again later\n");
    assert_eq!(refused.header("retry-after"), "5");
    assert_eq!(counted(&server, "bug", "failed").await, 1.0);
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(answer(bug(&server, &ada, "", &info("r"))).await.status, 200);
    assert_eq!(reports(&server, "").await.len(), 1);
}

#[tokio::test]
async fn oldest_reports_are_removed_for_new_ones() {
    let server = TestServer::with(|config| config.feedback.stored_bytes = 1 << 20).await;
    let ada = Person::log_in(&server, "Ada").await;
    for n in 0..4 {
        let mut info = info(&format!("r{n}"));
        info["roomHistory"] = json!("x".repeat(400_000));
        assert_eq!(answer(bug(&server, &ada, "", &info)).await.status, 200);
    }
    let rooms: Vec<_> = reports(&server, "").await.iter().map(|line| line["room"].clone()).collect();
    assert_eq!(rooms, ["r3", "r2"]);
    assert_eq!(server.metric("satsuma_reports_removed_total{reason=\"size\"}").await, 2.0);
}

#[tokio::test]
async fn expired_reports_are_removed_at_start() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    for room in ["old", "new"] {
        answer(bug(&server, &ada, "", &info(room))).await;
    }
    let stopped = server.stop().await;
    let options = SqliteConnectOptions::new().filename(stopped.database());
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    let age = "UPDATE reports SET created = '2020-01-01T00:00:00.000Z' WHERE room = 'old'";
    database.execute(age).await.unwrap();
    database.close().await.unwrap();
    let server = stopped.start_with(|_| {}).await;
    eventually("the old report is gone".to_owned(), async || reports(&server, "").await.len() == 1).await;
    assert_eq!(reports(&server, "").await[0]["room"], "new");
    assert_eq!(server.metric("satsuma_reports_removed_total{reason=\"age\"}").await, 1.0);
}

#[tokio::test]
async fn reports_and_meetings_are_paged() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    for n in 0..5 {
        answer(bug(&server, &ada, "", &info(&format!("r{n}")))).await;
    }
    let mut rooms = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let seen = server.admin_get(&format!("/admin/reports{query}")).await.json();
        rooms.extend(seen["reports"].as_array().unwrap().iter().map(|line| line["room"].clone()));
        let Some(next) = seen["next"].as_str() else { break };
        query = format!("?limit=2&before={next}");
    }
    assert_eq!(rooms, ["r4", "r3", "r2", "r1", "r0"]);
    for (path, name) in [
        ("/admin/reports?limit=0", "limit"),
        ("/admin/reports?kind=cat", "kind"),
        ("/admin/reports?before=x", "before"),
        ("/admin/reports?color=red", "parameters"),
        ("/admin/meetings?kind=bug", "parameters"),
        ("/admin/meetings?limit=x", "limit"),
        ("/admin/reports/no-uuid", "UUID"),
    ] {
        let refused = server.admin_get(path).await;
        assert_eq!(refused.status, 400, "{path}");
        assert!(refused.text.contains(name), "{refused:?}");
    }
    assert_eq!(server.admin_get(&format!("/admin/reports/{}", Uuid::new_v4())).await.status, 404);
    for path in ["/admin/reports", "/admin/reports/x", "/admin/feedback", "/admin/meetings"] {
        assert_eq!(answer(server.admin(path)).await.status, 401, "{path}");
        let public = answer(server.get(path).header("cookie", ada.cookie())).await;
        assert_eq!(public.status, 404, "{path}");
    }
}

#[tokio::test]
async fn meetings_have_peak_and_duration() {
    let server = TestServer::with(|config| config.room.tick = Duration::from_millis(50)).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let meeting =
        ada.until_state(|state| state["users"].as_array().unwrap().len() == 2).await["meetingId"].take();
    let first = async || server.admin_get("/admin/meetings").await.json()["meetings"][0].clone();
    eventually("the meeting runs".to_owned(), async || first().await["peakMembers"] == 2).await;
    let running = first().await;
    assert_eq!((&running["ended"], &running["durationSeconds"]), (&json!(null), &json!(null)));
    for client in [&mut ada, &mut bob] {
        client.say(json!({"type": "userLeft"})).await;
    }
    eventually("the meeting has ended".to_owned(), async || first().await["ended"].is_string()).await;
    let ended = first().await;
    assert_eq!(
        (&ended["id"], &ended["created"], &ended["peakMembers"]),
        (&meeting, &running["created"], &json!(2))
    );
    assert!(ended["durationSeconds"].as_f64().unwrap() < 60.0, "{ended}");
}
