//! The operators' console: its session, roles, cross-site requests and guesses, and the page in a real browser.

use std::time::Duration;

use axum::http::Method;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::access_tokens::auth;
use crate::browser::{Browser, Tab};
use crate::client::{Ask, Client};
use crate::durable;
use crate::event_webhooks::webhook;
use crate::feedback::bug;
use crate::harness::{Answer, PATIENCE, Person, Reach, TestServer, answer, ask_admin, eventually, logged};
use crate::media_session::MediaSession;
use crate::peer::{LAYERED_CAMERA, MICROPHONE};
use crate::process::Process;
use crate::webhook::{Reply, Webhook};

const VIEWER: &str = "a-token-of-viewers-with-40-characters-xx";

async fn server() -> TestServer {
    let dir = tempfile::tempdir().unwrap().keep();
    std::fs::write(dir.join("viewer"), format!("{VIEWER}\n")).unwrap();
    TestServer::with(|config| {
        config.admin.viewer_token_file.0 = Some(dir.join("viewer"));
        config.room.tick = Duration::from_millis(50);
        // Browsers take their time.
        config.room.heartbeat_timeout = Duration::from_secs(600);
    })
    .await
}

fn token(server: &TestServer) -> String {
    std::fs::read_to_string(server.data_dir().join("operator.token")).unwrap().trim().to_owned()
}

/// A request of the console's page.
fn own(server: &TestServer, method: &Method, path: &str, cookie: &str) -> RequestBuilder {
    foreign(server, method, path, cookie, &format!("http://{}", server.addresses().admin))
}

/// The same from a page of another origin, if that could send the header.
fn foreign(server: &TestServer, method: &Method, path: &str, cookie: &str, origin: &str) -> RequestBuilder {
    let request = server.admin_request(method, path).header("x-satsuma-console", "1");
    request.header("cookie", cookie).header("origin", origin)
}

async fn login(server: &TestServer, token: &str) -> Answer {
    answer(own(server, &Method::POST, "/admin/session", "").json(&json!({"token": token}))).await
}

/// Signs in; returns the cookie as a browser sends it.
async fn cookie(server: &TestServer, token: &str) -> String {
    let answered = login(server, token).await;
    assert_eq!(answered.status, 200, "{answered:?}");
    answered.header("set-cookie").split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn login_gives_a_guarded_cookie() {
    let server = server().await;
    let token = token(&server);
    let answered = login(&server, &token).await;
    assert_eq!(answered.json()["role"], "operator");
    let set = answered.header("set-cookie");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/admin", "Max-Age=43200"] {
        assert!(set.split("; ").any(|found| found == part), "{part}: {set}");
    }
    assert!(!set.contains("Secure") && !set.contains(&token), "{set}");
    // Behind a proxy that ends TLS.
    let host = format!("{}", server.addresses().admin);
    let secure = foreign(&server, &Method::POST, "/admin/session", "", &format!("https://{host}"));
    let secure = answer(secure.json(&json!({"token": token}))).await;
    assert_eq!(secure.status, 200, "{secure:?}");
    assert!(secure.header("set-cookie").contains("; Secure"));

    let pair = set.split(';').next().unwrap();
    let another = cookie(&server, &token).await;
    assert!(pair != another && pair.len() > 50, "a session has a random token of its own");
    assert_eq!(answer(own(&server, &Method::GET, "/admin/rooms", pair)).await.json(), json!({"rooms": []}));
    let shown = answer(own(&server, &Method::GET, "/admin/session", pair)).await.json();
    assert_eq!(shown["role"], "operator");
    let none = answer(own(&server, &Method::GET, "/admin/session", "satsuma_console=x")).await;
    assert_eq!((none.status, none.json()), (200, json!({"role": null, "version": null})));

    let ended = answer(own(&server, &Method::DELETE, "/admin/session", pair)).await;
    assert!(ended.status == 204 && ended.header("set-cookie").contains("Max-Age=0"), "{ended:?}");
    assert_eq!(answer(own(&server, &Method::GET, "/admin/rooms", pair)).await.status, 401);
    assert_eq!(answer(own(&server, &Method::GET, "/admin/rooms", &another)).await.status, 200);
    let log = logged();
    assert!(log.contains("consoleLogin") && !log.contains(&another) && !log.contains(&token));
    // Sessions are in memory alone.
    let server = server.restart().await;
    assert_eq!(answer(own(&server, &Method::GET, "/admin/rooms", &another)).await.status, 401);
}

#[tokio::test]
async fn cross_site_requests_are_refused() {
    let server = server().await;
    let cookie = cookie(&server, &token(&server)).await;
    let ada = Person::log_in(&server, "Ada").await;
    let mut ada = Ask::room("r").by(&ada).pk("a").open(&server).await;
    ada.until_users(&["a"]).await;
    let path = "/admin/rooms/r/moderate";
    let kick = json!({"action": "remove", "id": "a"}).to_string();
    let public = server.http();
    for origin in ["https://evil.example", "null", &*public, "http://127.0.0.1:1"] {
        let answered =
            answer(foreign(&server, &Method::POST, path, &cookie, origin).body(kick.clone())).await;
        assert_eq!(answered.status, 403, "{origin}: {answered:?}");
        assert_eq!(answer(foreign(&server, &Method::GET, "/admin/rooms", &cookie, origin)).await.status, 403);
        let answered = foreign(&server, &Method::POST, "/admin/session", "", origin);
        assert_eq!(answer(answered.json(&json!({"token": token(&server)}))).await.status, 403, "{origin}");
    }
    let bare = || server.admin_request(&Method::POST, path).header("cookie", &cookie).body(kick.clone());
    let origin = format!("http://{}", server.addresses().admin);
    for request in [
        // A form, and a request that has only one of the two proofs.
        bare(),
        bare().header("origin", &origin),
        bare().header("x-satsuma-console", "1"),
        bare()
            .header("x-satsuma-console", "1")
            .header("origin", &origin)
            .header("sec-fetch-site", "same-site"),
    ] {
        assert_eq!(answer(request).await.status, 403);
    }
    // Browsers ask before they send the header from elsewhere, and are told nothing.
    let asked = server.admin_request(&Method::OPTIONS, path).header("origin", "https://evil.example");
    let asked = answer(asked.header("access-control-request-headers", "x-satsuma-console")).await;
    assert!(asked.status >= 400 && !asked.headers.contains_key("access-control-allow-origin"), "{asked:?}");
    let members = server.admin_get("/admin/rooms/r").await.json()["members"].clone();
    assert_eq!(members[0]["id"], "a", "nobody was removed");
    // The console's own page may.
    let answered = answer(own(&server, &Method::POST, path, &cookie).body(kick)).await;
    assert_eq!((answered.status, answered.json()), (200, json!({"ok": true})));
    // A rebound name is nobody's.
    let rebound = own(&server, &Method::GET, "/admin/rooms", &cookie).header("host", "evil.example:8788");
    assert_eq!(answer(rebound).await.status, 403);
}

#[tokio::test]
async fn viewer_looks_and_changes_nothing() {
    let server = server().await;
    let _ada = Client::join(&server, "r", "Ada").await;
    let cookie = cookie(&server, VIEWER).await;
    let shown = answer(own(&server, &Method::GET, "/admin/session", &cookie)).await;
    assert_eq!(shown.json()["role"], "viewer");
    let by_token = |method: &Method, path: &str| server.admin_request(method, path).bearer_auth(VIEWER);
    for path in ["/admin/rooms", "/admin/rooms/r", "/admin/reports", "/admin/webhooks", "/admin/settings"] {
        assert_eq!(answer(own(&server, &Method::GET, path, &cookie)).await.status, 200, "{path}");
        assert_eq!(answer(by_token(&Method::GET, path)).await.status, 200, "{path}");
    }
    for (method, path) in [
        (Method::POST, "/admin/rooms/r/moderate"),
        (Method::POST, "/admin/rooms/r/chat"),
        (Method::POST, "/admin/rooms/r/messages"),
        (Method::POST, "/admin/tokens"),
        (Method::POST, "/admin/tokens/revoke"),
        (Method::POST, "/admin/webhooks/w/replay"),
        (Method::POST, "/admin/webhooks/w/test"),
        (Method::DELETE, "/admin/objects/o"),
    ] {
        let body = r#"{"action":"lock","on":true}"#;
        for request in [own(&server, &method, path, &cookie), by_token(&method, path)] {
            let answered = answer(request.body(body)).await;
            assert_eq!(answered.status, 403, "{method} {path}: {answered:?}");
            assert!(answered.text.starts_with("viewers may look"), "{answered:?}");
        }
    }
    let bob = Client::join(&server, "r", "Bob").await;
    drop(bob);
    assert_eq!(answer(own(&server, &Method::DELETE, "/admin/session", &cookie)).await.status, 204);
    // The token opens nothing on the public listener.
    let debug = server.get("/api/debugInfo?id=831f3ed2-cafa-4dcc-98bc-4dae5e00c10d").bearer_auth(VIEWER);
    assert_eq!(answer(debug).await.status, 401);
}

#[tokio::test]
async fn guesses_of_the_token_are_limited() {
    let server = server().await;
    let right = token(&server);
    // Right ones cost nothing.
    for _ in 0..12 {
        cookie(&server, &right).await;
    }
    let mut wrong = 0;
    while login(&server, &format!("{right}x")).await.status == 401 {
        wrong += 1;
        assert!(wrong <= 11, "guesses have no end");
    }
    assert!(wrong >= 10, "{wrong}");
    let answered = login(&server, &right).await;
    assert_eq!(answered.status, 429, "a right one would tell a guesser: {answered:?}");
    assert!(answered.headers.contains_key("retry-after") && !answered.headers.contains_key("set-cookie"));
    // Programs with the token go on.
    assert_eq!(server.admin_get("/admin/rooms").await.status, 200);
    assert!(logged().contains("consoleLoginRefused"));
}

#[tokio::test]
async fn end_of_a_session_ends_its_stream() {
    let server = TestServer::with(|config| config.events.heartbeat = Duration::from_secs(1)).await;
    let cookie = cookie(&server, &token(&server)).await;
    let mut stream = own(&server, &Method::GET, "/admin/events", &cookie).send().await.unwrap();
    assert_eq!(stream.status().as_u16(), 200);
    // It outlasts a heartbeat while the session lasts.
    let mut text = String::new();
    while !text.contains("\n:\n") {
        text += std::str::from_utf8(&stream.chunk().await.unwrap().expect("it goes on")).unwrap();
    }
    assert_eq!(answer(own(&server, &Method::DELETE, "/admin/session", &cookie)).await.status, 204);
    tokio::time::timeout(PATIENCE, async { while stream.chunk().await.unwrap().is_some() {} }).await.unwrap();
    server.until_metric("satsuma_event_streams", 0.0).await;
}

#[tokio::test]
async fn malformed_login_is_refused() {
    let server = server().await;
    let post = |body: String| own(&server, &Method::POST, "/admin/session", "").body(body);
    for body in [
        "",
        "{}",
        r#"{"token":1}"#,
        r#"{"token":"a","role":"operator"}"#,
        &format!(r#"{{"token":"{}"}}"#, "x".repeat(9000)),
    ] {
        let answered = answer(post(body.to_owned())).await;
        assert_eq!(answered.status, 400, "{answered:?}");
        assert!(answered.text.contains("\"token\""), "{answered:?}");
    }
}

#[tokio::test]
async fn page_has_a_strict_policy_and_its_files() {
    let server = server().await;
    let start = answer(server.admin("/")).await;
    assert_eq!((start.status, start.header("location")), (307, "/console"));
    let page = answer(server.admin("/console")).await;
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("form-action 'none'"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    let links = page.text.split("=\"/static/").skip(1).map(|rest| rest.split('"').next().unwrap());
    for file in links {
        let found = answer(server.admin(&format!("/static/{file}"))).await;
        assert_eq!(found.status, 200, "{file}");
        assert_eq!(found.header("x-content-type-options"), "nosniff");
    }
    for path in ["/static/nothing.js", "/static/../Cargo.toml", "/static/%2e%2e/Cargo.toml", "/static/"] {
        assert_eq!(answer(server.admin(path)).await.status, 404, "{path}");
    }
    // The public listener has no console.
    for path in
        ["/static/console.html", "/static/console.css", "/static/js/console/open.js", "/admin/session"]
    {
        let found = answer(server.get(path)).await;
        assert!(found.status != 200 || !found.text.contains("console"), "{path}: {found:?}");
    }
}

#[tokio::test]
async fn short_token_of_viewers_is_no_start() {
    let server = TestServer::start().await;
    let file = server.data_dir().join("viewer");
    std::fs::write(&file, "guessable").unwrap();
    let stopped = server.stop().await;
    let error = stopped.fail_with(|config| config.admin.viewer_token_file.0 = Some(file)).await.to_string();
    assert!(error.contains("admin.viewer_token_file") && error.contains("32 to 256"), "{error}");
    assert!(!error.contains("guessable"), "{error}");
}

#[tokio::test]
async fn settings_are_shown_with_their_sources() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::write(dir.path().join("satsuma.toml"), "[room]\ntick = \"2s\"\n[limits]\nrooms = 77\n").unwrap();
    let secret = "https://hooks.example/hush-0123456789";
    let settings = [("SATSUMA_ROOM__TICK", "3s"), ("FEEDBACK_URL", secret)];
    let server = Process::start(&data, &settings).await;
    let token = std::fs::read_to_string(data.join("operator.token")).unwrap();
    assert_eq!(answer(ask_admin(&server, "/admin/settings")).await.status, 401);
    let shown = answer(ask_admin(&server, "/admin/settings").bearer_auth(token.trim())).await;
    assert!(!shown.text.contains("hush"), "a secret is shown");
    let shown = shown.json();
    let setting =
        |key: &str| shown["settings"].as_array().unwrap().iter().find(|row| row["key"] == key).unwrap();
    assert_eq!(
        *setting("room.tick"),
        json!({"key": "room.tick", "value": "3s", "default": "15s", "origin": "SATSUMA_ROOM__TICK"})
    );
    let rooms = setting("limits.rooms");
    assert_eq!((&rooms["value"], &rooms["origin"]), (&json!(77), &json!("satsuma.toml")));
    let url = setting("feedback.url");
    assert_eq!((&url["value"], &url["origin"]), (&json!("[secret]"), &json!("FEEDBACK_URL")));
    let listen = setting("admin.listen");
    assert_eq!(listen["value"], server.reached_at().admin.to_string());
    assert_eq!(setting("room.restore_grace")["origin"], Value::Null);
}

/// Signs in by the form.
async fn sign_in(tab: &Tab, token: &str) {
    tab.until("document.body.dataset.view === 'login'").await;
    tab.fill("#token", token).await;
    tab.press("Enter").await;
    tab.until("document.body.dataset.view === 'console'").await;
}

/// Waits until the view has this text.
#[track_caller]
fn until_shown<'a>(tab: &'a Tab, text: &str) -> impl Future<Output = ()> + use<'a> {
    tab.until(&format!("document.querySelector('#view').innerText.includes({})", json!(text)))
}

/// Takes screenshots of the view in both colour schemes and two widths, if `SCREENSHOTS` names a folder, and asserts
/// that nothing is wider than the screen.
async fn look(tab: &Tab, name: &str) {
    for width in [360, 1200] {
        for scheme in ["light", "dark"] {
            let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
            tab.call("Emulation.setEmulatedMedia", json!({"features": features})).await;
            // Colours change over a moment.
            tab.until("document.getAnimations().length === 0").await;
            let png = tab.screenshot(width, 800).await;
            if let Some(folder) = std::env::var_os("SCREENSHOTS") {
                let file = format!("{name}-{width}-{scheme}.png");
                std::fs::write(std::path::Path::new(&folder).join(file), png).unwrap();
            }
            let wide = tab.eval("document.documentElement.scrollWidth - innerWidth").await;
            assert!(wide.as_i64().unwrap() <= 0, "{name} is wider than {width}: {wide}");
        }
    }
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn operator_watches_and_moderates_in_a_browser() {
    let browser = Browser::start().await;
    let server = server().await;
    let visitor = browser.visitor().await;
    let tab = visitor.open(&format!("http://{}/", server.addresses().admin)).await;
    tab.until("document.body.dataset.view === 'login'").await;
    look(&tab, "login").await;
    sign_in(&tab, &token(&server)).await;
    assert_eq!(tab.eval("document.cookie").await, "", "no script reads the session");
    until_shown(&tab, "No room is running.").await;

    // Members appear live, and their names are text.
    let markup = "<img src=x onerror=\"document.title='owned'\">";
    let people = [("h1", "Ada"), ("h2", "Bob"), ("g", markup)];
    let mut clients = Vec::new();
    for (pk, name) in people {
        let person = Person::log_in(&server, name).await;
        clients.push(Ask::room("team/room").by(&person).pk(pk).open(&server).await);
    }
    let mut guest = clients.pop().unwrap();
    guest.say(json!({"type": "userUpdate", "user": {"id": "g", "name": markup, "joined": true, "raisedHand": true,
        "speaking": false, "tracks": {"audioEnabled": true}}})).await;
    until_shown(&tab, "3 members").await;
    look(&tab, "rooms").await;
    tab.click_text("#view .rows a", "team/room").await;
    until_shown(&tab, markup).await;
    until_shown(&tab, "hand raised").await;
    assert_eq!(tab.eval("document.querySelectorAll('#view img').length").await, 0);
    assert_ne!(tab.eval("document.title").await, "owned");
    look(&tab, "room").await;

    // Moderation.
    tab.click_text("#view li button", "Mute").await;
    guest.until(|message| message["type"] == "muteMic").await;
    tab.click("#view input[name=waitingRoom]").await;
    // Whoever was in the meeting would not have to wait.
    clients[0].until_state(|state| state["room"]["waitingRoom"] == true).await;
    let yan = Person::log_in(&server, "Yan").await;
    let ask = Ask::room("team/room").by(&yan).pk("y");
    assert_eq!(ask.answer(&server).await.text, "a moderator has to let you in; please wait\n");
    tab.click_text("#view .rows button", "Admit").await;
    tab.until("document.querySelector('#notices').innerText.includes('Yan may come in.')").await;
    ask.open(&server).await.until_users(&["g", "h1", "h2", "y"]).await;
    tab.click("#view input[name=locked]").await;
    tab.until("document.querySelector('#notices').innerText.includes('Locked: on.')").await;
    let zoe = Person::log_in(&server, "Zoe").await;
    assert_eq!(Ask::room("team/room").by(&zoe).answer(&server).await.text, "this meeting is locked\n");
    let row = format!(
        "[...document.querySelectorAll('#view .rows li')].find(li => li.innerText.includes({}))",
        json!(markup)
    );
    tab.eval(&format!("{row}.querySelector('button.danger').click()")).await;
    tab.fill("dialog input[name=reason]", "noise").await;
    look(&tab, "remove").await;
    tab.click_text("dialog button", "Remove").await;
    let removed = guest.until(|message| message["type"] == "removed").await;
    assert_eq!(removed, json!({"type": "removed", "reason": "noise"}));
    tab.until(&format!("!({row})")).await;
    tab.fill("form.line-form input", "Five minutes left").await;
    tab.press("Enter").await;
    let said = clients[0].until(|message| message["type"] == "chat").await;
    assert_eq!((&said["name"], &said["message"]), (&json!("Operator"), &json!("Five minutes left")));

    // Events come as they happen.
    tab.click_text("nav a", "Events").await;
    server.until_metric("satsuma_event_streams", 1.0).await;
    clients[1].say(json!({"type": "userLeft"})).await;
    until_shown(&tab, "member.left").await;
    until_shown(&tab, "Bob (h2)").await;
    look(&tab, "events").await;
    tab.click_text("nav a", "Health").await;
    until_shown(&tab, "ready").await;
    server.until_metric("satsuma_event_streams", 0.0).await;
    look(&tab, "health").await;

    // A reload keeps the session, signing out ends it in every tab.
    tab.reload().await;
    tab.until("document.body.dataset.view === 'console' && location.hash === '#/health'").await;
    let second = visitor.open(&format!("http://{}/console#/rooms", server.addresses().admin)).await;
    until_shown(&second, "team/room").await;
    tab.assert_quiet().await;
    tab.click("#logout").await;
    tab.until("document.body.dataset.view === 'login'").await;
    second.until("document.body.dataset.view === 'login'").await;
    assert_eq!(second.eval("document.querySelector('#view').textContent").await, "");
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn viewer_sees_no_controls_in_a_browser() {
    let browser = Browser::start().await;
    let server = server().await;
    let _ada = Client::join(&server, "r", "Ada").await;
    let tab = browser.visitor().await.open(&format!("http://{}/console", server.addresses().admin)).await;
    tab.until("document.body.dataset.view === 'login'").await;
    tab.fill("#token", "wrong").await;
    tab.press("Enter").await;
    tab.until("document.querySelector('#login-problem:not([hidden])')?.textContent === 'This is not the operator token.'").await;
    sign_in(&tab, VIEWER).await;
    tab.click_text("#view .rows a", "r").await;
    until_shown(&tab, "Ada").await;
    let shown: Value = tab
        .eval("[...document.querySelectorAll('#view button')].filter(b => b.getClientRects().length).length")
        .await;
    assert_eq!(shown, 0);
}

/// Marks the events that a webhook refused as given up.
async fn give_up(server: &TestServer) {
    use sqlx::{Connection, Executor};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(server.data_dir().join("satsuma.db"));
    eventually("an event is given up".to_owned(), async || {
        let mut database = sqlx::sqlite::SqliteConnection::connect_with(&options).await.unwrap();
        let all = "UPDATE deliveries SET state = 'dead' WHERE destination = 'webhook:app' AND last_error IS NOT NULL";
        database.execute(all).await.unwrap();
        let dead = server.admin_get("/admin/webhooks/dead").await.json();
        !dead["deadLetters"].as_array().unwrap().is_empty()
    })
    .await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn operator_sees_media_reports_and_settings_in_a_browser() {
    let browser = Browser::start().await;
    let failing = Webhook::start([Reply::Status(500); 1000]).await;
    let server = TestServer::with(|config| {
        config.calls.room_check = false;
        config.auth = auth();
        config.webhooks = vec![webhook("app", failing.url())];
        config.room.heartbeat_timeout = Duration::from_secs(600);
        durable::keys(config);
    })
    .await;
    let tab = browser.visitor().await.open(&format!("http://{}/console", server.addresses().admin)).await;
    sign_in(&tab, &token(&server)).await;

    // Media: bitrates and layers over time.
    let (publisher, subscriber) =
        (MediaSession::of(&server, "Bob").await, MediaSession::of(&server, "Cyd").await);
    let (mids, _) = publisher.publish(&[("cam", LAYERED_CAMERA), ("mic", MICROPHONE)]).await;
    publisher.peer.say_in(mids[0], Some("a"), "large").await;
    let cam = json!({"location": "remote", "sessionId": publisher.session, "trackName": "cam",
                     "simulcast": {"preferredRid": "a"}});
    let mid = subscriber.subscribe_as(cam).await;
    tab.click_text("nav a", "Media").await;
    until_shown(&tab, &publisher.session).await;
    let drawn = "[...document.querySelectorAll('#view .chart path')].some(p => (p.getAttribute('d').match(/L/g) ?? []).length > 2)";
    tab.until(drawn).await;
    tab.until("/received [1-9][0-9.]* k?bit/.test(document.querySelector('#view').innerText)").await;
    subscriber.peer.until_received(mid, "large").await;
    look(&tab, "media").await;
    tab.click_text("#view a", &publisher.session).await;
    until_shown(&tab, "1 subscriber").await;
    until_shown(&tab, "estimated bandwidth").await;
    look(&tab, "media-session").await;
    tab.go(&format!("http://{}/console#/media/{}", server.addresses().admin, subscriber.session)).await;
    until_shown(&tab, &format!("{} / cam", publisher.session)).await;

    // Reports, with a readable history.
    let ada = Person::log_in(&server, "Ada").await;
    let markup = "<b>loud</b>";
    let info = json!({"roomName": "my room", "url": "https://meet.example/", "roomHistory": {
        "apiHistory": [{"timestamp": 1_780_000_000_000_u64, "type": "request", "endpoint": "/sessions/new", "body":
            {"sessionDescription": {"sdp": "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\n"}}}, {"type": "response", "status": 201}],
        "userSessions": [{"name": markup}]}});
    assert_eq!(answer(bug(&server, &ada, "The sound is gone", &info)).await.status, 200);
    tab.click_text("nav a", "Reports").await;
    tab.click_text("#view .rows a", "The sound is gone").await;
    until_shown(&tab, "apiHistory (2)").await;
    until_shown(&tab, "request · /sessions/new").await;
    tab.click("#view details summary").await;
    until_shown(&tab, "o=- 1 2 IN IP4 127.0.0.1\n").await;
    until_shown(&tab, markup).await;
    assert_eq!(tab.eval("document.querySelectorAll('#view b').length").await, 0);
    look(&tab, "report").await;

    // Webhooks: given up, and replayed.
    let _dan = Client::join(&server, "my room", "Dan").await;
    give_up(&server).await;
    tab.click_text("nav a", "Webhooks").await;
    until_shown(&tab, "given up").await;
    until_shown(&tab, "500").await;
    look(&tab, "webhooks").await;
    tab.click_text("#view .pages button", "Replay").await;
    tab.until("document.querySelector('#notices').innerText.includes('tried again')").await;

    // Tokens.
    tab.click_text("nav a", "Tokens").await;
    tab.fill("input[name=room]", "standup").await;
    tab.fill("input[name=name]", "Eve").await;
    tab.click("input[name=moderate]").await;
    look(&tab, "tokens").await;
    tab.click_text("#view button", "Make a token").await;
    tab.until("document.querySelector('input[name=Link]')?.value.includes('/standup?token=')").await;
    let made = tab.eval("document.querySelector('input[name=Token]').value").await;
    let mut eve = Ask::room("standup").header("authorization", &format!("Bearer {}", made.as_str().unwrap()));
    eve = eve.pk("e");
    let mut eve = eve.open(&server).await;
    assert_eq!(eve.until_users(&["e"]).await["users"][0]["name"], "Eve");
    tab.fill("input[name=key]", "app").await;
    tab.click_text("#view button", "Revoke").await;
    tab.click_text("dialog button", "Revoke").await;
    until_shown(&tab, "key app").await;
    eve.closed().await;

    // Objects.
    let put = server.request(&Method::PUT, &format!("/durable/{}/object/shop:1/state/k", durable::KEY));
    assert_eq!(answer(put.body(r#"{"value":[1,"<i>"]}"#)).await.status, 200);
    tab.click_text("nav a", "Objects").await;
    tab.click_text("#view .rows a", "shop:1").await;
    until_shown(&tab, "\"<i>\"").await;
    look(&tab, "object").await;
    tab.click_text("#view button", "Remove").await;
    tab.click_text("dialog button", "Remove").await;
    until_shown(&tab, "There is no object.").await;

    // Settings.
    tab.click_text("nav a", "Settings").await;
    until_shown(&tab, "[secret]").await;
    let secrets = [crate::access_tokens::SECRET, durable::KEY];
    let shown = tab.eval("document.querySelector('#view').innerText").await;
    assert!(secrets.iter().all(|secret| !shown.as_str().unwrap().contains(secret)), "a secret is shown");
    tab.fill("#view input[type=search]", "tick").await;
    until_shown(&tab, "15s").await;
    look(&tab, "settings").await;
    tab.assert_quiet().await;
}
