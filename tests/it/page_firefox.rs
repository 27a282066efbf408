//! Our own page in Firefox: joining, devices, sharing a screen, leaving, and meeting somebody in Chromium.

use serde_json::json;

use crate::browser::Browser;
use crate::firefox::{Firefox, Page};
use crate::harness::TestServer;
use crate::media::{self, server_with, video};
use crate::page::tile;

/// Joins the room under a name, with a script that runs before those of the page.
async fn meet(firefox: &Firefox, server: &TestServer, name: &str, script: &str) -> Page {
    let page = firefox.open(&format!("{}/set-username?return-url=/r", server.http()), script).await;
    page.enter("#username", name).await;
    page.until(
        "document.querySelector('#join:enabled') && document.getElementById('preview').videoWidth > 0",
    )
    .await;
    page.click("#join").await;
    page.until("document.body.dataset.view === 'room'").await;
    page
}

/// Waits until a video moves.
async fn until_moving(page: &Page, video: &str) {
    page.until(&format!("{video}?.videoWidth > 0")).await;
    // More frames than can have waited.
    let frames = format!(
        "new Promise((done) => {{
            const video = {video};
            let left = 5;
            const count = () => (left-- > 0 ? video.requestVideoFrameCallback(count) : done());
            count();
        }})"
    );
    page.eval(&frames).await;
}

async fn until_on_stage(page: &Page, names: &[&str]) {
    let shown =
        "JSON.stringify([...document.querySelectorAll('.tile .name')].map(n => n.textContent).sort())";
    page.until(&format!("{shown} === {}", json!(json!(names).to_string()))).await;
}

async fn press(page: &Page, action: &str, pressed: bool) {
    page.click(&format!(".controls [data-action={action}]")).await;
    page.until(&format!(
        "document.querySelector('.controls [data-action={action}][aria-pressed={pressed}]')"
    ))
    .await;
}

#[tokio::test]
#[ignore = "needs Firefox"]
async fn firefox_members_meet_and_leave() {
    let firefox = Firefox::start().await;
    let server = server_with(|_| {}).await;
    let ada = meet(&firefox, &server, "Ada", "").await;
    let bob = meet(&firefox, &server, "Bob", "").await;
    until_on_stage(&ada, &["Ada (you)", "Bob"]).await;
    until_moving(&ada, &video("Bob")).await;
    until_moving(&bob, &video("Ada")).await;
    until_moving(&bob, &video("Bob (you)")).await;

    // Bob is muted, and without a camera, and neither in the end.
    let is_muted = format!("!({}).querySelector('.muted').hidden", tile("Bob"));
    press(&bob, "microphone", false).await;
    ada.until(&is_muted).await;
    press(&bob, "microphone", true).await;
    ada.until(&format!("!({is_muted})")).await;
    let has_picture = format!("({}).classList.contains('picture')", tile("Bob"));
    press(&bob, "camera", false).await;
    ada.until(&format!("!{has_picture}")).await;
    press(&bob, "camera", true).await;
    until_moving(&ada, &video("Bob")).await;

    // He leaves, and comes back.
    bob.click(".controls [data-action=leave]").await;
    bob.until("document.body.dataset.view === 'left'").await;
    until_on_stage(&ada, &["Ada (you)"]).await;
    bob.click("#return").await;
    bob.until("document.body.dataset.view === 'room'").await;
    until_moving(&ada, &video("Bob")).await;
    until_moving(&bob, &video("Ada")).await;
    for page in [&ada, &bob] {
        page.assert_quiet().await;
    }
}

#[tokio::test]
#[ignore = "needs Firefox"]
async fn firefox_chooses_devices() {
    let firefox = Firefox::start().await;
    let server = server_with(|_| {}).await;
    let ada = meet(&firefox, &server, "Ada", "").await;
    ada.click("[popovertarget=menu]").await;
    ada.click("#menu [data-action=devices]").await;
    // The preview moves, and every device has a name. (Without a sound card Firefox measures no level.)
    until_moving(&ada, "document.querySelector('#devices[open] video')").await;
    let named = "[...document.querySelectorAll('#devices select')].filter((list) => list.options.length > 0 && [...list.options].every((option) => option.label)).length >= 2";
    ada.until(named).await;
    ada.click("#devices form .primary").await;
    ada.until("!document.getElementById('devices').open").await;
    ada.assert_quiet().await;

    // Blocked ones are told, and one joins without them.
    let refuse = "if (navigator.mediaDevices) navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError'); };";
    let bob = firefox.open(&format!("{}/set-username?return-url=/r", server.http()), refuse).await;
    bob.enter("#username", "Bob").await;
    bob.until("document.getElementById('preview-note')?.textContent.startsWith('The browser blocks the camera. To allow it, click the crossed-out')").await;
    bob.click("#join:enabled").await;
    until_on_stage(&bob, &["Ada", "Bob (you)"]).await;
    until_moving(&bob, &video("Ada")).await;
    bob.assert_quiet().await;
}

#[tokio::test]
#[ignore = "needs Firefox"]
async fn firefox_shares_its_screen() {
    // A window to share: there is no picker without a display.
    let window = "if (navigator.mediaDevices) navigator.mediaDevices.getDisplayMedia = async () => {
        const canvas = document.createElement('canvas');
        canvas.width = 640;
        canvas.height = 400;
        const context = canvas.getContext('2d');
        setInterval(() => { context.fillStyle = `hsl(${performance.now() / 10 % 360} 80% 50%)`; context.fillRect(0, 0, 640, 400); }, 50);
        return canvas.captureStream(20);
    };";
    let firefox = Firefox::start().await;
    let server = server_with(|_| {}).await;
    let ada = meet(&firefox, &server, "Ada", window).await;
    let bob = meet(&firefox, &server, "Bob", "").await;
    for _ in 0..2 {
        press(&ada, "screen", true).await;
        until_moving(&bob, &video("Ada’s screen")).await;
        ada.until("[...document.querySelectorAll('.watchers')].some((e) => e.textContent.includes('Bob'))")
            .await;
        press(&ada, "screen", false).await;
        until_on_stage(&bob, &["Ada", "Bob (you)"]).await;
    }
    for page in [&ada, &bob] {
        page.assert_quiet().await;
    }
}

#[tokio::test]
#[ignore = "needs Firefox and chromium"]
async fn firefox_meets_chromium() {
    let browser = Browser::start().await;
    let firefox = Firefox::beside(&browser).await;
    let server = server_with(|_| {}).await;
    let ada = media::meet(&browser, &server, "Ada").await;
    let bob = meet(&firefox, &server, "Bob", "").await;
    media::until_live(&[(&ada, &[video("Bob")], 1)]).await;
    until_moving(&bob, &video("Ada")).await;
    // Ada shares her screen, which Bob sees.
    ada.click(".controls [data-action=screen]").await;
    until_moving(&bob, &video("Ada’s screen")).await;
    ada.assert_quiet().await;
    bob.assert_quiet().await;
}
