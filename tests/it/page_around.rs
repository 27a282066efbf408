//! The chat and what is around a meeting: links, unread lines, invitations, recent rooms, hands in order, coming back.

use std::path::Path;

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::client::Client;
use crate::harness::{Person, TestServer, answer};
use crate::page::{join, meet, until_on_stage};
use crate::page_errors::before_pages;

#[tokio::test]
#[ignore = "needs chromium"]
async fn chat_has_links_unread_lines_and_recipients() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    bob.say(json!({"type": "userUpdate", "user": {"joined": true, "readsChat": true}})).await;
    let tab = meet(&browser.visitor().await, &server, "r", "Ada").await;
    until_on_stage(&tab, &["Ada (you)", "Bob"]).await;
    let written =
        "See https://a.example/b_(c)?d=1, (http://e.example/f) and javascript:alert(1) or https://\u{1F34A}.";
    bob.say(json!({"type": "chat", "message": written})).await;
    tab.until("document.title === '(1) r – Satsuma'").await;
    tab.click(".controls [data-action=chat]").await;
    tab.until("document.title === 'r – Satsuma'").await;
    let links = "[...document.querySelectorAll('#lines a')].map(a => a.getAttribute('href'))";
    let found = tab.eval(links).await;
    let expected = ["https://a.example/b_(c)?d=1", "http://e.example/f"];
    assert_eq!(found.as_array().unwrap()[..2], expected.map(|link| json!(link)), "{found}");
    assert_eq!(tab.eval("document.querySelector('#lines .text').textContent").await, written);
    let safe = "[...document.querySelectorAll('#lines a')].every(a => a.target === '_blank' && a.relList.contains('noopener') && /^https?:/.test(a.href))";
    assert_eq!(tab.eval(safe).await, true);

    // Between two there is no choice of a recipient; among three there is, and of one who was chosen.
    let offered = "document.getElementById('recipient').checkVisibility()";
    assert_eq!(tab.eval(offered).await, false);
    let mut cyd = Client::join(&server, "r", "Cyd").await;
    cyd.say(json!({"type": "userUpdate", "user": {"joined": true, "readsChat": true}})).await;
    tab.until(offered).await;

    // A line break, and a line that is written while the server is away.
    tab.fill("#line", "one\ntwo").await;
    tab.press("Enter").await;
    for line in [written, "one\ntwo"] {
        assert_eq!(bob.event().await["message"], line);
    }
    tab.until("document.querySelector('#lines li.mine:not(.waiting)')").await;
    tab.call(
        "Network.emulateNetworkConditions",
        json!({"offline": true, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}),
    )
    .await;
    tab.until("!document.getElementById('reconnecting').hidden").await;
    tab.fill("#line", "later").await;
    tab.press("Enter").await;
    tab.until("document.querySelector('#lines .waiting .unsent')").await;
    tab.call(
        "Network.emulateNetworkConditions",
        json!({"offline": false, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}),
    )
    .await;
    assert_eq!(bob.event().await["message"], "later");
    tab.until("!document.querySelector('#lines .unsent, #lines .waiting')").await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn meeting_is_left_and_found_again() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let visitor = browser.visitor().await;
    let tab = meet(&visitor, &server, "my-room", "Ada").await;
    // Hands are in the order in which they were raised, by the names it would be another one.
    let mut hands = Vec::new();
    for name in ["Zoe", "Bob"] {
        let mut member = Client::join(&server, "my-room", name).await;
        let raised = json!({"type": "userUpdate", "user": {"joined": true, "raisedHand": true}});
        member.say(raised).await;
        tab.until(&format!("document.querySelector('#people').textContent.includes('{name}')")).await;
        hands.push(member);
    }
    tab.until("document.querySelector('.controls [data-action=people]').dataset.count === '3'").await;
    tab.click(".controls [data-action=people]").await;
    let names = "[...document.querySelectorAll('#people li')].map(li => li.querySelector('.name').textContent + li.querySelector('.order').textContent)";
    tab.until(&format!(
        "JSON.stringify({names}) === {}",
        json!(json!(["Zoe1", "Bob2", "Ada (you)"]).to_string())
    ))
    .await;
    assert_eq!(
        tab.eval("/^00:0[0-9]$|^00:[0-9]{2}$/.test(document.getElementById('clock').textContent)").await,
        true
    );

    // The invitation has the link, and its code.
    tab.click("[data-action=invite]").await;
    let link = format!("{}/my-room", server.http());
    tab.until(&format!("document.getElementById('invite-link').value === {}", json!(link))).await;
    tab.until("document.getElementById('invite-code').naturalWidth > 100").await;
    tab.click_text("#invite button", "Done").await;
    let key = "document.querySelector('.controls [data-action=microphone]').title";
    assert_eq!(tab.eval(key).await, "Mute the microphone (M)");

    // A new name is known to everyone, and keeps the place in the room.
    tab.click("#people [aria-label='Change name']:not([hidden])").await;
    tab.fill("#own-name", "Ada L.").await;
    tab.press("Enter").await;
    tab.until("[...document.querySelectorAll('.tile .name')].some(n => n.textContent === 'Ada L. (you)')")
        .await;
    let room = server.admin_get("/admin/rooms/my-room").await.json();
    let is_ada = |member: &&Value| member["name"].as_str().unwrap().starts_with("Ada");
    let ada: Vec<_> = room["members"].as_array().unwrap().iter().filter(is_ada).collect();
    assert_eq!((ada.len(), &ada[0]["name"]), (1, &json!("Ada L.")));

    // One click leads back, and the start page remembers the room until it is told to forget it.
    tab.click("[data-action=leave]").await;
    tab.click("#return").await;
    tab.until("document.body.dataset.view === 'room'").await;
    tab.until("document.querySelector('.tile .name')").await;
    tab.reload().await;
    tab.until("document.querySelector('#join:enabled')").await;
    assert_eq!(tab.eval("document.body.dataset.view").await, "lobby", "only once");
    tab.go(&server.http()).await;
    tab.click_text("#recent a", "my-room").await;
    tab.until("location.pathname === '/my-room'").await;
    tab.go(&server.http()).await;
    tab.click("#forget").await;
    tab.until("document.getElementById('recent').hidden && localStorage.getItem('satsuma.recent') === null")
        .await;
    tab.assert_quiet().await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn clock_tells_the_age_of_the_meeting() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let _ada = Client::join(&server, "r", "Ada").await;
    // The clock of this machine is three hours fast.
    let wrong = "{ const real = Date.now; Date.now = () => real() + 3 * 3_600_000 }";
    let tab = before_pages(&browser.visitor().await, &server.http(), "r", wrong).await;
    tab.fill("#username", "Bob").await;
    tab.press("Enter").await;
    tab.until("document.querySelector('#join:enabled')").await;
    join(&tab).await;
    tab.until("/^00:[0-5]\\d$/.test(document.getElementById('clock').textContent)").await;
    // A meeting that began an hour ago.
    let age = "import('/static/js/clock.js').then(({ startClock }) => {
        const began = (Date.now() - 3_661_500).toString(16).padStart(12, '0');
        startClock(() => `${began.slice(0, 8)}-${began.slice(8)}-7000-8000-000000000000`, 0, new AbortController().signal);
        return document.getElementById('clock').textContent;
    })";
    assert_eq!(tab.eval(age).await, "1:01:01");
    tab.assert_quiet().await;
}

#[tokio::test]
#[ignore = "needs chromium and node"]
async fn code_of_a_room_leads_to_it() {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/node_modules/jsqr/dist/jsQR.js");
    let reader = std::fs::read_to_string(reader).expect("`npm ci` in tests/page");
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    // As a camera would see it, in a dark window.
    let read = "createImageBitmap(document.getElementById('invite-code')).then((image) => {
        const context = new OffscreenCanvas(300, 300).getContext('2d');
        context.fillRect(0, 0, 300, 300);
        context.drawImage(image, 34, 34, 232, 232);
        return jsQR(context.getImageData(0, 0, 300, 300).data, 300, 300)?.data;
    })";
    let visitor = browser.visitor().await;
    for room in ["r", "café am Markt", &"x".repeat(128)] {
        let room = room.replace(' ', "-");
        let tab = visitor.open(&format!("{}/{}", server.http(), escaped(&room))).await;
        if room == "r" {
            tab.fill("#username", "Ada").await;
            tab.press("Enter").await;
        }
        tab.until("document.querySelector('#join:enabled')").await;
        join(&tab).await;
        tab.eval(&format!("{reader}; 0")).await;
        tab.click("[data-action=invite]").await;
        tab.until("document.getElementById('invite-code').naturalWidth > 100").await;
        assert_eq!(tab.eval(read).await, format!("{}/{}", server.http(), escaped(&room)));
        tab.assert_quiet().await;
        tab.close().await;
    }
}

/// A name of a room in an address.
fn escaped(room: &str) -> String {
    percent_encoding::utf8_percent_encode(room, percent_encoding::NON_ALPHANUMERIC)
        .to_string()
        .replace("%2D", "-")
}

#[tokio::test]
async fn code_of_a_room_is_a_picture_for_members() {
    let server = TestServer::start().await;
    let path = "/api/rooms/caf%C3%A9/code.svg";
    assert_eq!(answer(server.get(path)).await.status, 401);
    let ada = Person::log_in(&server, "Ada").await;
    let get = |path: &str| server.get(path).header("cookie", ada.cookie());
    let code = answer(get(path)).await;
    assert_eq!((code.status, code.header("content-type")), (200, "image/svg+xml"));
    assert!(code.text.contains("<svg") && !code.text.contains("script"), "{}", code.text);
    assert_ne!(answer(get("/api/rooms/cafe/code.svg")).await.text, code.text);
    assert_eq!(answer(get("/api/rooms/%ff/code.svg")).await.status, 400);
    let manifest = answer(server.get("/site.webmanifest")).await;
    assert_eq!((manifest.status, manifest.json()["start_url"].clone()), (200, json!("./")));
}
