//! Pictures of the page in its states, for people to look at: 15 states, in 3 sizes and both colour schemes, below
//! `target/tmp/pictures`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use satsuma::config::ModeratorDefault;
use serde_json::json;

use crate::assistant::Model;
use crate::browser::{Browser, Tab};
use crate::client::Client;
use crate::harness::TestServer;
use crate::page::{join, until_on_stage};

/// The devices of the people in the pictures; see its comments.
const ACTOR: &str = include_str!("page_actor.js");

const ROOM: &str = "team-breakfast";
const SIZES: [(u32, u32); 3] = [(360, 740), (800, 600), (1280, 800)];

/// People with a camera, in a browser; the pictures are of the first one's.
const ACTORS: [&str; 5] =
    ["Ada Lovelace", "Katherine Johnson", "Alan Turing", "Annie Easley", "Grace Hopper"];

/// Opens the form for a name, which leads to the room, for the actor of this number.
async fn arrive(browser: &Browser, server: &TestServer, number: usize) -> Tab {
    let visitor = browser.visitor().await;
    let tab = visitor.open(&format!("{}/set-username?return-url=/{ROOM}", server.http())).await;
    let script = format!("const ACTOR = {number};\n{ACTOR}");
    tab.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": script})).await;
    tab.until("document.querySelector('#username')").await;
    tab
}

async fn enter(tab: &Tab, name: &str) {
    tab.fill("#username", name).await;
    tab.press("Enter").await;
    tab.until("document.querySelector('#join:enabled') && document.getElementById('preview').videoWidth > 0")
        .await;
}

/// A member without a camera.
async fn member(server: &TestServer, name: &str) -> Client {
    let mut member = Client::join(server, ROOM, name).await;
    let user = json!({"joined": true, "readsChat": true, "tracks": {"audioEnabled": true}});
    member.say(json!({"type": "userUpdate", "user": user})).await;
    member
}

/// Takes the pictures of a state.
async fn shoot(tab: &Tab, state: &str) {
    let folder = folder();
    for (width, height) in SIZES {
        let is_phone = width < 600;
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone});
        tab.call("Emulation.setDeviceMetricsOverride", size).await;
        tab.call("Emulation.setTouchEmulationEnabled", json!({"enabled": is_phone})).await;
        for scheme in ["light", "dark"] {
            let features = json!([{"name": "prefers-color-scheme", "value": scheme},
                                  {"name": "prefers-reduced-motion", "value": "reduce"}]);
            tab.call("Emulation.setEmulatedMedia", json!({"features": features})).await;
            // Tiles are sized in a frame after that of the window, and smaller ones show other layers.
            tab.eval("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))").await;
            tab.until(
                "![...document.querySelectorAll('.spinner:not([hidden])')].some((e) => e.checkVisibility())",
            )
            .await;
            let image = tab.call("Page.captureScreenshot", json!({"format": "png"})).await;
            let image = BASE64_STANDARD.decode(image["data"].as_str().unwrap()).unwrap();
            std::fs::write(folder.join(format!("{state}-{width}-{scheme}.png")), image).unwrap();
        }
    }
    let desktop = json!({"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": false});
    tab.call("Emulation.setDeviceMetricsOverride", desktop).await;
    tab.call("Emulation.setTouchEmulationEnabled", json!({"enabled": false})).await;
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures")
}

async fn until_pictures(tab: &Tab, place: &str, count: usize) {
    tab.until(&format!("document.querySelectorAll('{place} .tile.picture').length === {count}")).await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn pictures_are_taken_of_every_state() {
    std::fs::create_dir_all(folder()).unwrap();
    let browser = Browser::start().await;
    let model = Model::start().await;
    let server = TestServer::with(|config| {
        model.configure(config);
        config.moderation.default = ModeratorDefault::First;
        config.room.heartbeat_timeout = Duration::from_secs(600);
        config.client.max_webcam_quality_level = 360;
    })
    .await;

    let ada = arrive(&browser, &server, 0).await;
    shoot(&ada, "name").await;
    enter(&ada, ACTORS[0]).await;
    shoot(&ada, "lobby").await;
    join(&ada).await;
    until_on_stage(&ada, &["Ada Lovelace (you)"]).await;
    shoot(&ada, "alone").await;

    let katherine = arrive(&browser, &server, 1).await;
    enter(&katherine, ACTORS[1]).await;
    join(&katherine).await;
    until_pictures(&ada, ".large", 1).await;
    shoot(&ada, "two").await;

    let mut tabs = Vec::new();
    for (number, name) in ACTORS.iter().enumerate().skip(2) {
        let tab = arrive(&browser, &server, number).await;
        enter(&tab, name).await;
        join(&tab).await;
        tabs.push(tab);
    }
    let mut crowd = Vec::new();
    for name in ["Frances Allen", "Dennis Ritchie", "Radia Perlman", "Ken Thompson"] {
        crowd.push(member(&server, name).await);
    }
    let raised = json!({"joined": true, "raisedHand": true, "readsChat": true});
    crowd[1].say(json!({"type": "userUpdate", "user": raised})).await;
    let grace = tabs.last().unwrap();
    grace.click(".controls [data-action=hand]").await;
    grace.eval("speaks.gain.value = 0.5").await;
    until_pictures(&ada, ".rest", 5).await;
    ada.until("document.querySelectorAll('.tile').length === 9 && document.querySelector('.tile.speaking')")
        .await;
    ada.until("!document.querySelector('#notices p')").await;
    shoot(&ada, "grid").await;
    ada.press("l").await;
    until_pictures(&ada, ".large", 1).await;
    shoot(&ada, "speaker").await;
    ada.press("l").await;
    grace.eval("speaks.gain.value = 0").await;

    katherine.click(".controls [data-action=screen]").await;
    ada.until("document.querySelector('.large .tile.screen.picture')").await;
    ada.until("!document.querySelector('.tile.speaking')").await;
    shoot(&ada, "screen").await;
    katherine.click(".controls [data-action=screen]").await;
    ada.click(".controls [data-action=screen]").await;
    ada.until("document.querySelector('.floating .tile.screen.picture')").await;
    shoot(&ada, "sharing").await;
    ada.click(".controls [data-action=screen]").await;

    crowd[3].say(json!({"type": "chat", "message": "Good morning! The build is green again."})).await;
    let link = "The notes of yesterday: https://wiki.example/breakfast";
    crowd[2].say(json!({"type": "chat", "message": link})).await;
    ada.click(".controls [data-action=chat]").await;
    let answer = model.answer();
    ada.fill("#line", "@ai what is left to do?").await;
    ada.press("Enter").await;
    answer.text("Two things: the release notes, and the pictures.");
    answer.done();
    ada.until("document.querySelectorAll('#lines .mark').length === 1 && !document.querySelector('#lines .growing')")
        .await;
    let me = ada.eval("document.querySelector('.tile.mirrored').dataset.user").await;
    crowd[0].say(json!({"type": "directMessage", "to": me, "message": "Could you take the notes?"})).await;
    ada.until("document.querySelectorAll('#lines .direct').length >= 1").await;
    shoot(&ada, "chat").await;
    ada.click(".controls [data-action=people]").await;
    shoot(&ada, "people").await;
    ada.press("Escape").await;
    ada.click("[popovertarget=menu]").await;
    ada.click("#menu [data-action=devices]").await;
    ada.until("document.querySelector('#devices[open] video')?.videoWidth > 0").await;
    shoot(&ada, "devices").await;
    ada.press("Escape").await;
    ada.click("[data-action=invite]").await;
    ada.until("document.getElementById('invite-code').naturalWidth > 0").await;
    shoot(&ada, "invite").await;
    ada.press("Escape").await;
    for tab in tabs.iter().chain([&ada, &katherine]) {
        tab.assert_quiet().await;
    }
    let offline = json!({"offline": true, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
    ada.call("Network.emulateNetworkConditions", offline).await;
    ada.until("!document.getElementById('reconnecting').hidden").await;
    shoot(&ada, "disconnected").await;
    ada.click("[data-action=leave]").await;
    ada.until("document.body.dataset.view === 'left'").await;
    shoot(&ada, "left").await;
    let online = json!({"offline": false, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
    ada.call("Network.emulateNetworkConditions", online).await;
    ada.go(&server.http()).await;
    ada.until("document.getElementById('recent').checkVisibility() && document.getElementById('who').checkVisibility()").await;
    shoot(&ada, "start").await;
}
