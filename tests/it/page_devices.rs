//! Devices on the page: levels, speakers, previews, devices that come and go, and speaking by a key.

use serde_json::json;

use crate::browser::Browser;
use crate::harness::TestServer;
use crate::page::{join, meet, tile, until_on_stage, until_pressed};
use crate::page_errors::before_pages;

/// Keeps the tracks that the browser gives.
const GIVEN: &str = "{
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    window.given = [];
    navigator.mediaDevices.getUserMedia = async (wish) => {
        const stream = await ask(wish);
        given.push(...stream.getTracks());
        return stream;
    };
}";

#[tokio::test]
#[ignore = "needs chromium"]
async fn devices_are_tried_before_and_during_a_meeting() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let tab = before_pages(&browser.visitor().await, &server.http(), "r", GIVEN).await;
    tab.fill("#username", "Ada").await;
    tab.press("Enter").await;
    tab.until("document.querySelector('#join:enabled')").await;
    // Chromium's microphone for tests beeps.
    tab.until("document.querySelector('#lobby-devices meter').value > 0.3").await;
    tab.until("document.querySelectorAll('#lobby-devices-speaker option[value]').length > 1").await;
    let choose = "(() => { const list = document.getElementById('lobby-devices-speaker'); list.selectedIndex = list.length - 1;
        list.dispatchEvent(new Event('change')); return list.value })()";
    let speaker = tab.eval(choose).await;
    tab.until(&format!("document.getElementById('room-devices-speaker').value === {speaker}")).await;
    tab.click("#lobby-devices .speaker button").await;
    join_by_button(&tab).await;
    until_on_stage(&tab, &["Ada (you)"]).await;
    let audio = "given.filter(({kind, readyState}) => kind === 'audio' && readyState === 'live')[0]";
    assert_eq!(tab.eval(&format!("{audio}.getSettings().noiseSuppression")).await, true);

    // Whoever speaks while muted is told, and the space bar is the way to speak.
    until_pressed(&tab, "microphone", "true").await;
    tab.press("m").await;
    until_pressed(&tab, "microphone", "false").await;
    tab.until("document.getElementById('notices').textContent.includes('You are muted')").await;
    let space = async |kind: &str| {
        let key = json!({"type": kind, "key": " ", "text": if kind == "keyDown" { " " } else { "" }, "windowsVirtualKeyCode": 32});
        tab.call("Input.dispatchKeyEvent", key).await;
    };
    space("keyDown").await;
    until_pressed(&tab, "microphone", "true").await;
    space("keyUp").await;
    until_pressed(&tab, "microphone", "false").await;
    // On a button it presses that button.
    tab.eval("document.querySelector('.controls [data-action=hand]').focus()").await;
    space("keyDown").await;
    space("keyUp").await;
    until_pressed(&tab, "hand", "true").await;
    until_pressed(&tab, "microphone", "false").await;

    // The dialog has a preview, and switches noise suppression.
    tab.click("[popovertarget=menu]").await;
    tab.click("#menu [data-action=devices]").await;
    tab.until("document.querySelector('#room-devices video').videoWidth > 0").await;
    tab.click("#room-devices label.check input").await;
    tab.until(&format!("{audio}.getSettings().noiseSuppression === false")).await;
    tab.press("Escape").await;

    // A camera that is unplugged is replaced.
    let camera = "given.filter(({kind, readyState}) => kind === 'video' && readyState === 'live')";
    assert_eq!(tab.eval(&format!("{camera}.length")).await, 1);
    tab.eval(&format!("window.old = {camera}[0], old.stop(), old.dispatchEvent(new Event('ended'))")).await;
    tab.until(&format!("{camera}.length === 1 && {camera}[0] !== old")).await;
    tab.until("document.getElementById('notices').textContent.includes('The camera was disconnected')").await;
    tab.until(&format!("({}).classList.contains('picture')", tile("Ada (you)"))).await;
    until_pressed(&tab, "camera", "true").await;
    tab.click("[data-action=leave]").await;
    tab.until("given.every(({readyState}) => readyState === 'ended')").await;
    tab.assert_quiet().await;
}

/// The detail of a video's picture, at its edges and in its middle: the mean difference of neighbouring pixels.
const DETAIL: &str = "window.detail = (video) => {
    const { videoWidth: width, videoHeight: height } = video;
    const context = Object.assign(document.createElement('canvas'), { width, height }).getContext('2d');
    context.drawImage(video, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    const sums = { edges: [0, 0], middle: [0, 0] };
    for (let y = 0; y < height; y += 1) for (let x = 1; x < width; x += 1) {
        const away = Math.hypot((x / width - 0.5) * width / height / 0.4, (y / height - 0.55) / 0.6);
        const sum = away > 1.1 ? sums.edges : away < 0.7 ? sums.middle : undefined;
        if (!sum) continue;
        const at = 4 * (y * width + x);
        sum[0] += Math.abs(data[at] - data[at - 4]);
        sum[1] += 1;
    }
    const mean = ([sum, count]) => sum / count;
    return { edges: mean(sums.edges), middle: mean(sums.middle) };
}";

#[tokio::test]
#[ignore = "needs chromium"]
async fn edges_of_the_picture_are_blurred() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    let bob = meet(&browser.visitor().await, &server, "r", "Bob").await;
    until_on_stage(&bob, &["Ada", "Bob (you)"]).await;
    bob.eval(DETAIL).await;
    let video = format!("{}?.querySelector('video')", tile("Ada"));
    bob.until(&format!("{video}?.videoWidth > 0 && detail({video}).edges > 0")).await;
    bob.eval(&format!("window.before = detail({video})")).await;

    // Chromium's camera for tests cannot blur its background, so the page offers what it can do.
    let choice = "[...document.querySelectorAll('#room-devices label.check')]
        .find((label) => label.textContent === 'Blur all but the middle of the picture')";
    ada.click("[popovertarget=menu]").await;
    ada.click("#menu [data-action=devices]").await;
    let toggle = format!("{choice}.querySelector('input').click()");
    ada.eval(&toggle).await;
    let is_blurred = format!(
        "(() => {{ const {{ edges, middle }} = detail({video}); return edges < before.edges / 3 && middle > before.middle / 2 }})()"
    );
    bob.until(&is_blurred).await;
    ada.until("document.querySelector('#room-devices video').videoWidth > 0").await;
    // It holds for the next camera as well.
    ada.press("Escape").await;
    for pressed in ["false", "true"] {
        ada.click(".controls [data-action=camera]").await;
        until_pressed(&ada, "camera", pressed).await;
    }
    bob.until(&is_blurred).await;
    ada.eval(&toggle).await;
    bob.until(&format!("detail({video}).edges > before.edges / 2")).await;
    ada.assert_quiet().await;
}

/// Joins by the button, which has lost the focus to the test of the speaker.
async fn join_by_button(tab: &crate::browser::Tab) {
    tab.eval("document.getElementById('join').focus()").await;
    join(tab).await;
}
