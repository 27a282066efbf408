//! A room in which our own page and a page that speaks Phoenix Channels meet, in a real browser.

use std::fs;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::form_urlencoded;

use crate::browser::{Browser, Tab};
use crate::cloud::Cloud;
use crate::harness::{Person, TestServer, answer};
use crate::page::{meet, tile, until_on_stage, until_pressed};

/// Another server, which serves a page made with the npm package `phoenix`.
struct OtherSite {
    origin: String,
    _task: JoinSet<()>,
}

impl OtherSite {
    async fn start() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let page = fs::read_to_string(folder.join("phoenix.html")).unwrap();
        let script = fs::read_to_string(folder.join("node_modules/phoenix/priv/static/phoenix.min.js"))
            .expect("phoenix is missing: run npm ci in tests/clients");
        let script = ([("content-type", "text/javascript")], script);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/", get(async || Html(page)))
            .route("/phoenix.js", get(async || script))
            .route("/favicon.ico", get(async || ""));
        let mut task = JoinSet::new();
        task.spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { origin, _task: task }
    }

    /// The address of its page for a member of a room.
    async fn page(&self, server: &TestServer, room: &str, name: &str, pk: &str) -> String {
        let person = Person::log_in(server, name).await;
        let request = server.post_form("/api/socket-token", &[]).header("cookie", person.cookie());
        let token = answer(request).await.json()["token"].as_str().unwrap().to_owned();
        let address = format!("ws://{}", server.addresses().http);
        let fields = [("server", &*address), ("room", room), ("token", &token), ("pk", pk)];
        let fragment = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        format!("{}/#{}", self.origin, fragment.replace('+', "%20"))
    }
}

/// JavaScript that is true when the Phoenix page lists exactly these.
fn lists(names: &[&str]) -> String {
    let names = json!(json!(names).to_string());
    format!(
        "JSON.stringify([...document.querySelectorAll('#people li')].map(li => li.firstChild.textContent.trim()).sort()) === {names}"
    )
}

/// JavaScript for a person in the Phoenix page's list.
fn person(name: &str) -> String {
    format!(
        "[...document.querySelectorAll('#people li')].find(li => li.firstChild.textContent.trim() === {})",
        json!(name)
    )
}

async fn keep_screenshot(tab: &Tab, name: &str) {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(name), tab.screenshot(1024, 768).await).unwrap();
}

#[tokio::test]
#[ignore = "needs chromium and node"]
async fn our_page_and_a_phoenix_page_meet() {
    let browser = Browser::start().await;
    let cloud = Cloud::start().await;
    let site = OtherSite::start().await;
    let server = TestServer::with(|config| {
        cloud.configure(config);
        config.http.allowed_origins = vec![site.origin.parse().unwrap()];
    })
    .await;
    let ada = meet(&browser.visitor().await, &server, "a room", "Ada").await;
    let bob = browser.visitor().await;
    let bob = bob.open(&site.page(&server, "a room", "Bob", "bobs-own-id").await).await;

    // Both see both.
    bob.until("document.getElementById('state').textContent === 'joined as Bob'").await;
    until_on_stage(&ada, &["Ada (you)", "Bob"]).await;
    bob.until(&lists(&["Ada", "Bob"])).await;

    // The chat.
    bob.fill("#line", "Hello <b>Ada</b>").await;
    bob.click("form button").await;
    bob.until("document.querySelector('#chat li')?.textContent === 'Bob: Hello <b>Ada</b>'").await;
    ada.until("document.querySelector('.controls [data-action=chat]').dataset.count === '1'").await;
    ada.click(".controls [data-action=chat]").await;
    ada.until("document.querySelector('#lines .text').textContent === 'Hello <b>Ada</b>'").await;
    ada.until("document.querySelector('#lines .from').textContent === 'Bob'").await;
    ada.fill("#line", "Hello Bob").await;
    ada.press("Enter").await;
    bob.until("document.querySelector('#chat li:nth-child(2)')?.textContent === 'Ada: Hello Bob'").await;

    // Ada's page knows that Bob's shows the chat.
    assert_eq!(ada.eval("document.querySelectorAll('#lines li').length").await, 2);

    // A raised hand comes as a diff of presence.
    ada.click(".controls [data-action=hand]").await;
    bob.until(&format!("{}?.classList.contains('hand')", person("Ada"))).await;
    keep_screenshot(&bob, "phoenix-page.png").await;
    keep_screenshot(&ada, "phoenix-room.png").await;

    // Each mutes the other.
    until_pressed(&ada, "microphone", "true").await;
    bob.eval(&format!("{}.querySelector('button').click()", person("Ada"))).await;
    until_pressed(&ada, "microphone", "false").await;
    bob.until(&format!("{}?.classList.contains('muted')", person("Ada"))).await;
    ada.click(".controls [data-action=people]").await;
    ada.click("#people [aria-label='Mute Bob']").await;
    bob.until(&format!("{}?.classList.contains('muted')", person("Bob"))).await;
    ada.until(&format!("({})?.querySelector('.muted:not([hidden])')", tile("Bob"))).await;

    // The Phoenix page reloads, and is the same member.
    bob.eval("document.body.dataset.old = 1").await;
    bob.reload().await;
    bob.until(
        "!document.body.dataset.old && document.getElementById('state').textContent === 'joined as Bob'",
    )
    .await;
    bob.until(&lists(&["Ada", "Bob"])).await;
    let view = server.admin_get("/admin/rooms/a%20room").await.json();
    assert_eq!(view["members"].as_array().map(Vec::len), Some(2), "{view}");
    assert_ne!(view["members"][0]["id"], Value::Null);

    // The server restarts; both come back.
    let address = server.addresses().http;
    let server = server.stop().await.start_with(|config| config.http.listen = address).await;
    bob.until("document.getElementById('state').textContent === 'joined as Bob'").await;
    bob.until(&lists(&["Ada", "Bob"])).await;
    ada.until("document.getElementById('reconnecting').hidden").await;
    bob.fill("#line", "back again").await;
    bob.click("form button").await;
    ada.until("[...document.querySelectorAll('#lines .text')].at(-1).textContent === 'back again'").await;

    // Ada leaves, and then Bob.
    ada.click("[data-action=leave]").await;
    bob.until(&lists(&["Bob"])).await;
    assert_eq!(bob.eval("channel.leave(); 1").await, 1);
    server.until_metric("satsuma_members", 0.0).await;
}
