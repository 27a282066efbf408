//! A server below a path of its host, behind a proxy that passes the path on or strips it.

use std::time::Duration;

use axum::http::Method;
use satsuma::config::Optional;
use satsuma_load::run::run;
use satsuma_load::{Options, Protocols};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::browser::{Browser, Tab, Visitor};
use crate::client::Ask;
use crate::harness::{PATIENCE, Person, TestServer, answer};
use crate::page::{join, tile, until_on_stage};
use crate::raw::Raw;
use crate::webhook::Webhook;

async fn server() -> TestServer {
    TestServer::with(|config| config.http.base_path = Optional(Some("/meet".parse().unwrap()))).await
}

/// A server that trusts a proxy at the address of the tests.
async fn behind_proxy() -> TestServer {
    TestServer::with(|config| {
        config.http.public_url = Optional(Some("https://meet.example/meet/".parse().unwrap()));
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await
}

async fn log_in(server: &TestServer, path: &str) -> Person {
    let named = answer(server.post_form(path, &[("username", "Ada")])).await;
    assert_eq!(named.status, 302, "{named:?}");
    Person::with_cookie(named.header("set-cookie").split(';').next().unwrap().to_owned())
}

#[tokio::test]
async fn links_and_redirects_stay_below_the_base_path() {
    let server = server().await;
    let page = |path: &str| answer(server.get(path).header("accept", "text/html"));
    for (path, location) in [
        ("/meet", (308, "/meet/")),
        ("/meet?x=1", (308, "/meet/?x=1")),
        ("/meet/Set-Username?x=1", (308, "/meet/set-username?x=1")),
        ("/meet/r/room", (302, "/meet/r")),
    ] {
        let moved = page(path).await;
        assert_eq!((moved.status, moved.header("location")), location, "{path}");
    }
    assert!(page("/meet/new").await.header("location").starts_with("/meet/"));
    let form = page("/meet/r?x=1").await;
    let host = server.addresses().http.to_string();
    let back: String =
        url::form_urlencoded::byte_serialize(format!("http://{host}/meet/r?x=1").as_bytes()).collect();
    assert_eq!(
        (form.status, form.header("location")),
        (302, &*format!("/meet/set-username?return-url={back}"))
    );

    let sent = server.post_form(form.header("location"), &[("username", "Ada")]);
    let named = answer(sent.header("origin", server.http())).await;
    assert_eq!((named.status, named.header("location")), (302, "/meet/r?x=1"));
    assert!(named.header("set-cookie").contains("; Path=/meet/;"), "{named:?}");
    let ada = named.header("set-cookie").split(';').next().unwrap();
    for path in ["/meet/", "/meet/r", "/meet/set-username"] {
        let page = answer(server.get(path).header("cookie", ada).header("accept", "text/html")).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(
            page.text.contains("=\"/meet/static/style.css\"") && !page.text.contains("=\"/static"),
            "{}",
            page.text
        );
        // The ETag is that of the rewritten body.
        let known = server.get(path).header("cookie", ada).header("if-none-match", page.header("etag"));
        assert_eq!(answer(known).await.status, 304, "{path}");
    }
    let packed = answer(server.get("/meet/r").header("cookie", ada).header("accept-encoding", "br")).await;
    assert_eq!((packed.status, packed.header("content-encoding")), (200, "br"));
    let opened = answer(server.post_form("/meet/?index", &[("room", "my room")])).await;
    assert_eq!((opened.status, opened.header("location")), (302, "/meet/my-room"));
    let settings = answer(server.get("/meet/api/rooms/r/settings")).await;
    assert_eq!(settings.status, 401);
    let settings = answer(server.get("/meet/api/rooms/r/settings").header("cookie", ada)).await;
    assert_eq!((settings.status, settings.json()["username"].as_str()), (200, Some("Ada")));
    // A proxy that strips the path could not show the page of such a room.
    assert_eq!(answer(server.post_form("/meet/?index", &[("room", "meet")])).await.status, 400);

    let lost = page("/meet/a/b/c").await;
    assert_eq!(lost.status, 404);
    assert!(lost.text.contains("<a class=\"button wide\" href=\"/meet/\""), "{}", lost.text);
    for script in ["/meet/static/js/open.js", "/meet/static/style.css"] {
        assert_eq!(page(script).await.status, 200, "{script}");
    }

    let new = server.request(&Method::POST, "/meet/partytracks/sessions/new").header("cookie", ada);
    let opened = answer(new).await;
    let session = opened.json()["sessionId"].as_str().unwrap().to_owned();
    let path = format!("; Path=/meet/partytracks/sessions/{session};");
    assert!(opened.header("set-cookie").contains(&path), "{opened:?}");
    assert_eq!(
        answer(server.get("/meet/partytracks/generate-ice-servers").header("cookie", ada)).await.status,
        200
    );
    let new = server.request(&Method::POST, "/meet/api/calls/sessions/new").header("cookie", ada);
    assert!(answer(new).await.header("set-cookie").contains("; Path=/meet/api/calls/sessions/"));
    let (_, mut socket) =
        Raw::open(server.addresses().http, "/meet/parties/rooms/r?_pk=a", &[("cookie", ada)]).await;
    let state: Value = serde_json::from_slice(&socket.frame().await.unwrap().payload).unwrap();
    assert_eq!(state["type"], "roomState");
}

#[tokio::test]
async fn outside_the_base_path_only_health_answers() {
    let server = server().await;
    for path in ["/", "/r", "/meeting", "/set-username", "/static/style.css", "/%6deet/", "/MEET/"] {
        let refused = answer(server.get(path)).await;
        assert_eq!(refused.status, 404, "{path}");
        assert!(refused.text.contains("http.base_path"), "{refused:?}");
        assert_eq!(refused.header("x-content-type-options"), "nosniff");
    }
    assert_eq!(answer(server.post_form("/set-username", &[("username", "Ada")])).await.status, 404);
    let calls = answer(server.request(&Method::POST, "/api/calls/sessions/new")).await;
    assert_eq!((calls.status, calls.header("content-type")), (404, "application/json"));
    let page = answer(server.get("/r").header("accept", "text/html")).await;
    assert_eq!((page.status, page.header("content-type")), (404, "text/html; charset=utf-8"));
    assert!(page.text.contains("href=\"/meet/\"") && page.text.contains("http.base_path"), "{}", page.text);
    assert_eq!(server.refusals("outside_base_path").await, 10.0);
    for path in ["/healthz", "/readyz", "/meet/healthz", "/meet/readyz"] {
        assert_eq!(answer(server.get(path)).await.status, 200, "{path}");
    }
    // The operators' listener has no base path.
    assert_eq!(answer(server.admin("/metrics")).await.status, 200);
}

#[tokio::test]
async fn trusted_proxy_may_strip_the_base_path() {
    let server = behind_proxy().await;
    for start in ["", "/meet"] {
        let form = format!("{start}/set-username?return-url=https%3A%2F%2Fmeet.example%2Fmeet%2Fr");
        let named = answer(server.post_form(&form, &[("username", "Ada")])).await;
        assert_eq!((named.status, named.header("location")), (302, "/meet/r"), "{start}");
        assert!(named.header("set-cookie").contains("; Path=/meet/;"), "{named:?}");
        let ada = named.header("set-cookie").split(';').next().unwrap();
        let page = answer(server.get(&format!("{start}/r")).header("cookie", ada)).await;
        assert!(page.text.contains("=\"/meet/static/style.css\""), "{page:?}");
        let style = answer(server.get(&format!("{start}/static/style.css"))).await;
        assert_eq!((style.status, style.header("content-type")), (200, "text/css; charset=utf-8"));
        let path = format!("{start}/parties/rooms/r?_pk=a{}", start.len());
        Raw::open(server.addresses().http, &path, &[("cookie", ada)]).await;
    }
}

#[tokio::test]
async fn untrusted_proxy_prefix_header_is_accepted() {
    let server = server().await;
    // A stripped path may begin with a room of the path's name.
    for (path, start) in
        [("/r", "/meet/set-username?"), ("/meet", "/meet/set-username?"), ("/meet/room", "/meet/meet")]
    {
        let asked = answer(server.get(path).header("x-forwarded-prefix", "/meet/")).await;
        assert!(asked.header("location").starts_with(start), "{path}: {asked:?}");
    }
    assert_eq!(answer(server.get("/r").header("x-forwarded-prefix", "/other")).await.status, 404);
}

#[tokio::test]
async fn card_links_include_the_base_path() {
    let hook = Webhook::start([]).await;
    let server = TestServer::with(|config| {
        config.feedback.url.0 = Some(hook.url().into());
        config.http.public_url.0 = Some("https://meet.example/meet".parse().unwrap());
    })
    .await;
    let ada = log_in(&server, "/meet/set-username").await;
    let info = json!({"roomName": "r", "url": "https://meet.example/meet/r",
                      "roomHistory": {"apiHistory": [], "userSessions": []}});
    let form = [("description", "x"), ("info", &*info.to_string())];
    let sent = server.post_form("/meet/api/bugReport", &form).header("cookie", ada.cookie());
    assert_eq!(answer(sent).await.status, 200);
    let card = hook.until(1).await[0].card.to_string();
    let start = card.split("https://meet.example/meet/api/debugInfo?").nth(1);
    let query = start.and_then(|rest| rest.split('"').next()).unwrap_or_else(|| panic!("{card}"));
    assert_eq!(answer(server.get(&format!("/meet/api/debugInfo?{query}"))).await.status, 200);
}

#[tokio::test]
async fn base_path_of_a_reserved_route_fails_the_start() {
    let stopped = TestServer::start().await.stop().await;
    for (path, name) in [("/api", "/api"), ("/Static/x", "/static")] {
        let edit = |config: &mut satsuma::config::Config| {
            config.http.base_path = Optional(Some(path.parse().unwrap()));
        };
        let error = stopped.fail_with(edit).await.to_string();
        assert!(error.starts_with(&format!("http.base_path: begins with {name}, ")), "{error}");
    }
}

#[tokio::test]
async fn load_tool_finds_the_base_path() {
    let server = server().await;
    let options = Options {
        urls: vec![format!("{}/meet/", server.http()).parse().unwrap()],
        rooms: 1,
        users: 2,
        rate: 20.0,
        protocol: Protocols::Orange,
        deflate: false,
        churn: 0.0,
        duration: Duration::from_millis(200),
        warm_up: Duration::ZERO,
        join_rate: 500.0,
        pids: Vec::new(),
        nats: Vec::new(),
        json: false,
    };
    let report = timeout(PATIENCE, run(&options, CancellationToken::new(), |_| {})).await.unwrap().unwrap();
    assert!(report.refusals.is_empty() && report.updates.seen > 0, "{report}");
    assert_eq!(report.urls, [format!("{}/meet", server.http())]);
}

async fn meet(visitor: &Visitor, server: &TestServer, name: &str) -> Tab {
    let tab = visitor.open(&format!("{}/meet/my%20room", server.http())).await;
    tab.fill("#username", name).await;
    tab.press("Enter").await;
    tab.until("document.querySelector('#join:enabled')").await;
    join(&tab).await;
    tab
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn browsers_meet_below_the_base_path() {
    let browser = Browser::start().await;
    let server = server().await;
    let ada = meet(&browser.visitor().await, &server, "Ada").await;
    let bob = meet(&browser.visitor().await, &server, "Bob").await;
    for (tab, own, other) in [(&ada, "Ada (you)", "Bob"), (&bob, "Bob (you)", "Ada")] {
        until_on_stage(tab, &[own, other]).await;
        tab.until(&format!("({})?.querySelector('video').videoWidth > 0", tile(other))).await;
    }
    assert_eq!(ada.eval("document.getElementById('room-title').textContent").await, "my room");
    ada.eval("navigator.clipboard.writeText = (link) => Promise.resolve(window.copied = link)").await;
    ada.click("[data-action=invite]").await;
    ada.until(&format!("window.copied === {}", json!(format!("{}/meet/my%20room", server.http())))).await;
    for url in ada.requests() {
        let is_ours = url.starts_with(&server.http());
        assert!(!is_ours || url.starts_with(&format!("{}/meet/", server.http())), "{url}");
    }
}

#[tokio::test]
async fn phoenix_endpoint_is_below_the_base_path() {
    let server = server().await;
    let ada = log_in(&server, "/meet/set-username").await;
    let ask = |path: &str| Ask::path(path).by(&ada).header("origin", &server.http());
    assert_eq!(ask("/socket/websocket?vsn=2.0.0").try_open(&server).await.err(), Some(404));
    let mut socket = ask("/meet/socket/websocket?vsn=2.0.0").open(&server).await;
    socket.say(json!(["1", "1", "room:r", "phx_join", {"_pk": "a"}])).await;
    assert_eq!(socket.next().await[4]["response"], json!({"id": "a", "name": "Ada"}));

    let poll = |path: &str| {
        let request = server.get(path).header("cookie", ada.cookie()).header("sec-fetch-site", "same-origin");
        answer(request)
    };
    assert_eq!(poll("/socket/longpoll?vsn=2.0.0").await.status, 404);
    let opened = poll("/meet/socket/longpoll?vsn=2.0.0").await.json();
    assert!(opened["status"] == 410 && opened["token"].is_string(), "{opened}");
    let token =
        answer(server.request(&Method::POST, "/meet/api/socket-token").header("cookie", ada.cookie()));
    assert_eq!(token.await.status, 200);
}
