//! Members exchange audio and video on our own page, over the embedded media server, in a real browser.

use std::time::Duration;

use satsuma::config::Config;
use serde_json::json;

use crate::browser::{Browser, Tab, Visitor};
use crate::harness::{TestServer, eventually};
use crate::page::{join, tile, until_on_stage, until_pressed};

/// Measures the media that a page receives; see its comments.
const PROBE: &str = include_str!("media_probe.js");

/// Opens a tab with the probe, on a page without connections.
pub async fn watched(visitor: &Visitor, url: &str) -> Tab {
    let tab = visitor.open(url).await;
    tab.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": PROBE})).await;
    tab
}

/// A server whose pages send small video, since one machine encodes all of it.
pub async fn server_with(edit: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::with(|config| {
        config.client.max_webcam_quality_level = 360;
        edit(config);
    })
    .await
}

/// Waits until each tab shows these moving videos and plays this many audible tracks, all of it newer than
/// this call.
pub async fn until_live(all: &[(&Tab, &[String], usize)]) {
    for (tab, ..) in all {
        tab.eval("probe.mark()").await;
    }
    for (tab, pictures, voices) in all {
        for picture in *pictures {
            tab.until(&format!("probe.shows({picture})")).await;
        }
        tab.until(&format!("probe.audible === {voices}")).await;
    }
}

/// JavaScript for the video in the tile of this name.
pub fn video(name: &str) -> String {
    format!("({})?.querySelector('video')", tile(name))
}

/// Waits until all members receive each other's audio and video.
async fn until_all_live(people: &[(&Tab, &str)]) {
    let seen_by = |own: &str| -> Vec<String> {
        people.iter().filter(|(_, name)| *name != own).map(|(_, name)| video(name)).collect()
    };
    let seen: Vec<_> = people.iter().map(|(_, name)| seen_by(name)).collect();
    let all: Vec<_> =
        people.iter().zip(&seen).map(|((tab, _), seen)| (*tab, seen.as_slice(), seen.len())).collect();
    until_live(&all).await;
}

/// Joins a room under a name, in a tab with the probe.
pub async fn meet(browser: &Browser, server: &TestServer, name: &str) -> Tab {
    let visitor = browser.visitor().await;
    let tab = watched(&visitor, &format!("{}/set-username?return-url=/r", server.http())).await;
    tab.fill("#username", name).await;
    tab.press("Enter").await;
    tab.until("document.querySelector('#join:enabled')").await;
    join(&tab).await;
    tab
}

/// Two members who receive each other.
async fn two_meet(browser: &Browser, server: &TestServer) -> [Tab; 2] {
    let [ada, bob] = [meet(browser, server, "Ada").await, meet(browser, server, "Bob").await];
    until_all_live(&[(&ada, "Ada"), (&bob, "Bob")]).await;
    [ada, bob]
}

async fn click(tab: &Tab, action: &str) {
    tab.click(&format!(".controls [data-action={action}]")).await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn members_exchange_audio_and_video() {
    let browser = Browser::start().await;
    let server = server_with(|_| {}).await;
    let [ada, bob] = two_meet(&browser, &server).await;
    let both = [(&ada, "Ada"), (&bob, "Bob")];

    // Bob mutes and unmutes.
    click(&bob, "microphone").await;
    until_pressed(&bob, "microphone", "false").await;
    ada.eval("probe.mark()").await;
    ada.until("probe.silent === 1").await;
    click(&bob, "microphone").await;
    until_all_live(&both).await;

    // His camera goes off and on.
    let has_picture = format!("({}).classList.contains('picture')", tile("Bob"));
    click(&bob, "camera").await;
    ada.until(&format!("!{has_picture}")).await;
    click(&bob, "camera").await;
    ada.until(&has_picture).await;
    until_all_live(&both).await;

    // He shares his screen, twice.
    for _ in 0..2 {
        click(&bob, "screen").await;
        let screen = [video("Bob’s screen")];
        until_live(&[(&ada, &screen, 1)]).await;
        until_all_live(&both).await;
        click(&bob, "screen").await;
        until_on_stage(&ada, &["Ada (you)", "Bob"]).await;
    }

    // He leaves and returns.
    bob.click("[data-action=leave]").await;
    until_on_stage(&ada, &["Ada (you)"]).await;
    assert_eq!(ada.eval("probe.audible").await, 0);
    bob.click("#return").await;
    bob.until("document.body.dataset.view === 'room'").await;
    until_all_live(&both).await;

    // A third joins and leaves.
    let cy = meet(&browser, &server, "Cy").await;
    until_all_live(&[(&ada, "Ada"), (&bob, "Bob"), (&cy, "Cy")]).await;
    cy.click("[data-action=leave]").await;
    until_all_live(&both).await;
    for tab in [&ada, &bob, &cy] {
        tab.assert_quiet().await;
    }
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn media_resume_after_a_restart() {
    let browser = Browser::start().await;
    let server = server_with(|_| {}).await;
    let [ada, bob] = two_meet(&browser, &server).await;
    let both = [(&ada, "Ada"), (&bob, "Bob")];
    let address = server.addresses().http;
    let server = server.stop().await.start_with(|config| config.http.listen = address).await;
    // The pages send requests by themselves, and do not wait for their connections to fail.
    let metric = r#"satsuma_call_seconds_count{operation="get_session",status="410"}"#;
    server.until_metric(metric, 2.0).await;
    until_all_live(&both).await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn video_arrives_in_every_simulcast_layer() {
    let browser = Browser::start().await;
    let server = server_with(|config| config.client.simulcast = true).await;
    let [ada, bob] = two_meet(&browser, &server).await;
    let both = [(&ada, "Ada"), (&bob, "Bob")];
    let full = bob.eval(&format!("{}.videoWidth", video("Bob (you)"))).await.as_u64().unwrap();
    for _ in 0..2 {
        for (rid, width) in [("a", full), ("b", full / 2)] {
            bob.eval(&format!("probe.sendOnly('{rid}')")).await;
            ada.until(&format!("probe.width({}) === {width}", video("Bob"))).await;
            until_all_live(&both).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn muted_microphone_sends_little() {
    let browser = Browser::start().await;
    let server = server_with(|_| {}).await;
    let [_ada, bob] = two_meet(&browser, &server).await;
    click(&bob, "microphone").await;
    until_pressed(&bob, "microphone", "false").await;
    // Audio packets sent to each of the two, the lower count first.
    let packets = async || {
        let report = server.admin_get("/admin/sfu").await.json();
        let tracks = report["tracks"].as_array().unwrap().iter();
        let audio = tracks.filter(|track| track["kind"] == "audio");
        let mut packets: Vec<u64> =
            audio.filter_map(|track| track["subscribers"][0]["packets"].as_u64()).collect();
        packets.sort_unstable();
        packets
    };
    let is_quiet = async || {
        let before = packets().await;
        // Speech is 50 packets a second.
        if before.len() < 2 {
            return false;
        }
        let now = loop {
            let now = packets().await;
            if now.len() == 2 && now[1] > before[1] + 100 {
                break now;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        // The muted member is the one that has sent fewer, or soon will have.
        now[0] > before[0] && now[0] - before[0] < 20
    };
    eventually("a muted microphone sends a fifth of speech at most".to_owned(), is_quiet).await;
}

/// Shares a drawn picture and a tone, since the fake screen of a browser is a whole one. Runs before the page.
const WINDOW: &str = "navigator.mediaDevices.getDisplayMedia = async (asked) => {
    window.asked = asked;
    const canvas = Object.assign(document.createElement('canvas'), { width: 640, height: 480 });
    const context = canvas.getContext('2d');
    setInterval(() => context.fillRect(Math.random() * 640, Math.random() * 480, 9, 9), 50);
    const audio = new AudioContext();
    const [tone, output] = [new OscillatorNode(audio), audio.createMediaStreamDestination()];
    tone.connect(output);
    tone.start();
    return new MediaStream([...canvas.captureStream(20).getTracks(), ...output.stream.getTracks()]);
};";

#[tokio::test]
#[ignore = "needs chromium"]
async fn screen_is_shared_with_sound_and_watchers() {
    let browser = Browser::start().await;
    let server = server_with(|_| {}).await;
    let ada = meet(&browser, &server, "Ada").await;
    let bob =
        watched(&browser.visitor().await, &format!("{}/set-username?return-url=/r", server.http())).await;
    bob.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": WINDOW})).await;
    bob.fill("#username", "Bob").await;
    bob.press("Enter").await;
    bob.until("document.querySelector('#join:enabled')").await;
    join(&bob).await;
    until_all_live(&[(&ada, "Ada"), (&bob, "Bob")]).await;
    click(&bob, "microphone").await;
    until_pressed(&bob, "microphone", "false").await;
    ada.eval("probe.mark()").await;
    ada.until("probe.silent === 1").await;

    click(&bob, "screen").await;
    let watchers = "document.querySelector('.sharing:not([hidden]) .watchers')?.textContent";
    bob.until(&format!("{watchers} === 'Ada is watching'")).await;
    assert_eq!(bob.eval("asked.selfBrowserSurface").await, "exclude");
    // His own screen is a small preview, and Ada hears the tone although his microphone is off.
    bob.until("document.querySelector('.floating .tile.screen.picture')").await;
    until_live(&[(&ada, &[video("Bob’s screen")], 1)]).await;
    // He shares no sound, and a moving picture.
    bob.click(".sharing input").await;
    ada.eval("probe.mark()").await;
    ada.until("probe.silent === 1").await;
    let hint = "document.querySelector('.floating .tile.screen video').srcObject.getTracks()[0].contentHint";
    assert_eq!(bob.eval(hint).await, "detail");
    let choose = "(s => { s.value = 'motion'; s.dispatchEvent(new Event('change')) })(document.querySelector('.sharing select'))";
    bob.eval(choose).await;
    bob.until(&format!("{hint} === 'motion'")).await;

    bob.click(".sharing button").await;
    until_on_stage(&ada, &["Ada (you)", "Bob"]).await;
    bob.until("document.querySelector('.sharing').hidden").await;
    click(&bob, "microphone").await;
    until_all_live(&[(&ada, "Ada"), (&bob, "Bob")]).await;
    // Both choices are remembered.
    click(&bob, "screen").await;
    bob.until(&format!("{hint} === 'motion' && !document.querySelector('.sharing input').checked")).await;
    for tab in [&ada, &bob] {
        tab.assert_quiet().await;
    }
}
