//! Large meetings on our own page in a real browser: it receives the video of visible tiles alone, in the layers that their sizes need.

use std::time::Duration;

use serde_json::json;

use crate::browser::Browser;
use crate::client::Client;
use crate::media::{meet, server_with, until_live, video};
use crate::page::{join, tile, until_on_stage};
use crate::page_errors::before_pages;
use crate::page_stage::patient_server;

/// Remembers the layer that was asked for last of each track of others.
const REMEMBER: &str = "{
    window.asked = {};
    const real = window.fetch;
    window.fetch = (url, options) => {
        const tracks = /tracks\\/(new|update)/.test(url) ? JSON.parse(options.body).tracks : [];
        for (const { location, trackName, simulcast } of tracks) {
            if (location === 'remote') asked[trackName] = simulcast?.preferredRid ?? 'any';
        }
        return real(url, options);
    };
}";

#[tokio::test]
#[ignore = "needs chromium"]
async fn visible_tiles_alone_receive_video() {
    let browser = Browser::start().await;
    let server = patient_server().await;
    let mut crowd = Vec::new();
    for number in 0..48 {
        let mut member = Client::join(&server, "r", &format!("Member {number}")).await;
        let tracks = json!({"videoEnabled": true, "video": format!("none/video-{number}"), "audio": format!("none/audio-{number}")});
        member.say(json!({"type": "userUpdate", "user": {"joined": true, "tracks": tracks}})).await;
        crowd.push(member);
    }
    let ada = before_pages(&browser.visitor().await, &server.http(), "r", REMEMBER).await;
    let phone = json!({"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": true});
    ada.call("Emulation.setDeviceMetricsOverride", phone).await;
    ada.fill("#username", "Ada").await;
    ada.press("Enter").await;
    ada.until("document.querySelector('#join:enabled')").await;
    join(&ada).await;
    ada.until("document.querySelectorAll('.tile').length === 49").await;
    // The names of the visible tiles' tracks, and of those that were asked for.
    let names = "const place = document.querySelector('.rest').getBoundingClientRect();
        const isSeen = (tile) => { const box = tile.getBoundingClientRect(); return box.bottom > place.top && box.top < place.bottom; };
        const tiles = [...document.querySelectorAll('.rest .tile')].filter((tile) => tile.title.startsWith('Member'));
        const nameOf = (tile) => tile.title.replace('Member ', 'video-');
        const seen = tiles.filter(isSeen).map(nameOf);
        const videos = Object.keys(asked).filter((name) => name.startsWith('video'));";
    ada.until(&format!(
        "(() => {{ {names} return seen.length >= 9 && seen.length < 40 && seen.every((name) => asked[name] === 'c') && videos.length === seen.length; }})()"
    ))
    .await;
    // All are heard.
    ada.until("Object.keys(asked).filter((name) => name.startsWith('audio')).length === 48").await;
    // Scrolled to the end, the last ones are asked for.
    ada.eval("document.querySelector('.rest').scrollTo(0, 1e6)").await;
    ada.until(&format!("(() => {{ {names} return seen.includes(nameOf(tiles.at(-1))) && seen.every((name) => asked[name] === 'c'); }})()"))
        .await;
    // A large one gets the best layer.
    let pin = "const tile = document.querySelector('.rest .tile'); window.pinned = tile.title.replace('Member ', 'video-'); tile.querySelector('.tool').click();";
    ada.eval(&format!("(() => {{ {pin} }})()")).await;
    ada.until("asked[pinned] === 'a' || asked[pinned] === 'b'").await;
    let desktop = json!({"width": 1280, "height": 1000, "deviceScaleFactor": 1, "mobile": false});
    ada.call("Emulation.setDeviceMetricsOverride", desktop).await;
    ada.until("asked[pinned] === 'a'").await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn layer_of_a_video_follows_its_size() {
    let browser = Browser::start().await;
    let server = server_with(|config| {
        config.room.heartbeat_timeout = Duration::from_secs(600);
        config.client.max_webcam_quality_level = 720;
    })
    .await;
    let mut crowd = Vec::new();
    for number in 0..14 {
        let mut member = Client::join(&server, "r", &format!("Member {number}")).await;
        let tracks = json!({"videoEnabled": true, "video": format!("none/video-{number}")});
        member.say(json!({"type": "userUpdate", "user": {"joined": true, "tracks": tracks}})).await;
        crowd.push(member);
    }
    let ada = meet(&browser, &server, "Ada").await;
    let bob = meet(&browser, &server, "Bob").await;
    ada.until("document.querySelectorAll('.tile').length === 16").await;
    let size = json!({"width": 1600, "height": 1300, "deviceScaleFactor": 1, "mobile": false});
    ada.call("Emulation.setDeviceMetricsOverride", size).await;
    let pin = |name: &str| format!("({}).querySelector('.tool').click()", tile(name));
    ada.eval(&pin("Bob")).await;
    bob.until(&format!("{}.videoWidth > 0", video("Bob (you)"))).await;
    let full = bob.eval(&format!("{}.videoWidth", video("Bob (you)"))).await.as_u64().unwrap();
    let width = |width: u64| format!("probe.width({}) === {width}", video("Bob"));
    ada.until(&width(full)).await;
    // In the strip beside another one it is small.
    ada.eval(&pin("Member 0")).await;
    ada.eval(&format!("({}).scrollIntoView()", tile("Bob"))).await;
    ada.until(&width(full / 4)).await;
    // Whoever joins a large room starts muted.
    until_live(&[(&ada, &[video("Bob")], 0)]).await;
    bob.assert_quiet().await;
    ada.assert_quiet().await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn joining_does_not_wait_for_devices() {
    let browser = Browser::start().await;
    let server = patient_server().await;
    let asks = "navigator.mediaDevices.getUserMedia = () => new Promise(() => {})";
    let ada = before_pages(&browser.visitor().await, &server.http(), "r", asks).await;
    ada.fill("#username", "Ada").await;
    ada.press("Enter").await;
    ada.until("document.querySelector('#join:enabled')").await;
    join(&ada).await;
    until_on_stage(&ada, &["Ada (you)"]).await;
    ada.assert_quiet().await;
}
