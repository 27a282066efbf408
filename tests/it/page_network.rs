//! Our own page where the network, the server or another's connection is dead.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::browser::{Browser, Tab};
use crate::harness::Reach;
use crate::page::{join, meet, tile, until_on_stage, until_pressed};
use crate::page_trouble::before_pages;
use crate::process::{BINARY, Process};

const IS_AWAY: &str = "!document.getElementById('reconnecting').hidden";

/// Keeps the connections of a page, so that a test can end them.
const KEEP: &str = "window.connections = [];
    window.RTCPeerConnection = class extends RTCPeerConnection {
        constructor(...of) { super(...of); connections.push(this); }
    };";

fn shows_a_picture(name: &str) -> String {
    format!("({})?.querySelector('video').videoWidth > 0", tile(name))
}

fn is_lost(name: &str) -> String {
    format!("({})?.classList.contains('lost')", tile(name))
}

async fn meeting(browser: &Browser, server: &Process) -> [Tab; 2] {
    let ada = meet(&browser.visitor().await, server, "r", "Ada").await;
    let bob = meet(&browser.visitor().await, server, "r", "Bob").await;
    ada.until(&shows_a_picture("Bob")).await;
    bob.until(&shows_a_picture("Ada")).await;
    [ada, bob]
}

#[tokio::test]
async fn a_server_that_stands_still_is_noticed_and_all_goes_on_with_it() {
    let Some(browser) = Browser::start().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&dir.path().join("data"), &[]).await;
    let [ada, _bob] = meeting(&browser, &server).await;
    server.signal(Signal::STOP);
    ada.until(IS_AWAY).await;
    ada.until(&is_lost("Bob")).await;
    assert_eq!(ada.eval("document.body.classList.contains('disconnected')").await, true);
    server.signal(Signal::CONT);
    ada.until(&format!("!({IS_AWAY}) && !{}", is_lost("Bob"))).await;
    ada.until(&shows_a_picture("Bob")).await;
}

#[tokio::test]
async fn anothers_dead_connection_is_marked_and_is_not_ones_own() {
    let Some(browser) = Browser::start().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&dir.path().join("data"), &[]).await;
    let origin = format!("http://{}", server.reached_at().http);
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    let bob = before_pages(&browser.visitor().await, &origin, "r", KEEP).await;
    bob.fill("#username", "Bob").await;
    bob.press("Enter").await;
    bob.until("document.querySelector('#join:enabled')").await;
    join(&bob).await;
    ada.until(&shows_a_picture("Bob")).await;
    bob.eval("connections.forEach((connection) => connection.close())").await;
    ada.until(&is_lost("Bob")).await;
    assert_eq!(ada.eval(IS_AWAY).await, false, "its own connection is well");
    assert_eq!(ada.eval(&format!("({}).classList.contains('speaking')", tile("Bob"))).await, false);
    until_on_stage(&ada, &["Ada (you)", "Bob"]).await;
}

/// Chromium refused its own description, and the session was replaced with all that it carried.
#[tokio::test]
async fn a_camera_that_is_switched_on_late_keeps_the_session() {
    let Some(browser) = Browser::start().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&dir.path().join("data"), &[]).await;
    let origin = format!("http://{}", server.reached_at().http);
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    let off = format!(
        r#"sessionStorage.setItem("satsuma.wanted", '{{"camera":false,"microphone":false}}'); {KEEP}"#
    );
    let bob = before_pages(&browser.visitor().await, &origin, "r", &off).await;
    bob.fill("#username", "Bob").await;
    bob.press("Enter").await;
    bob.until("document.querySelector('#join:enabled')").await;
    join(&bob).await;
    bob.until(&shows_a_picture("Ada")).await;
    bob.click(".controls [data-action=camera]").await;
    ada.until(&shows_a_picture("Bob")).await;
    assert_eq!(bob.eval("connections.length").await, 1);
}

/// With them a participant's media can be taken over.
#[tokio::test]
async fn no_log_has_the_passwords_of_ice() {
    let Some(browser) = Browser::start().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut command = Command::new(BINARY);
    command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let server = Process::spawn(command, &dir.path().join("data"), &[("SATSUMA_LOG__FILTER", "trace")]);
    server.until_started().await;
    let origin = format!("http://{}", server.reached_at().http);
    let bob = before_pages(&browser.visitor().await, &origin, "r", KEEP).await;
    bob.fill("#username", "Bob").await;
    bob.press("Enter").await;
    bob.until("document.querySelector('#join:enabled')").await;
    join(&bob).await;
    bob.until("connections.at(-1)?.connectionState === 'connected'").await;
    let sides = "[connections.at(-1).localDescription.sdp, connections.at(-1).remoteDescription.sdp]";
    let passwords = bob.eval(&format!("{sides}.map((sdp) => sdp.match(/ice-pwd:(.*)/)[1])")).await;
    server.stop().await;
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("TRACE"), "everything is logged");
    for password in passwords.as_array().unwrap() {
        assert!(!log.contains(password.as_str().unwrap()));
    }
}

/// Seven seconds of nothing and a new session was what a change of networks cost.
#[tokio::test]
async fn another_network_is_followed() {
    let Some(browser) = Browser::start().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&dir.path().join("data"), &[]).await;
    let origin = format!("http://{}", server.reached_at().http);
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    let bob = before_pages(&browser.visitor().await, &origin, "r", KEEP).await;
    bob.fill("#username", "Bob").await;
    bob.press("Enter").await;
    bob.until("document.querySelector('#join:enabled')").await;
    join(&bob).await;
    bob.until(&shows_a_picture("Ada")).await;
    ada.until(&shows_a_picture("Bob")).await;
    // Asked before anything can come of it.
    let offered = "connections.at(-1).restartIce = function () {
        this.wasRestarted = true;
        RTCPeerConnection.prototype.restartIce.call(this);
    }";
    bob.eval(offered).await;
    bob.eval("dispatchEvent(new Event('online'))").await;
    bob.until("connections.at(-1).wasRestarted && connections.at(-1).connectionState === 'connected'").await;
    let frames =
        format!("({}).querySelector('video').getVideoPlaybackQuality().totalVideoFrames", tile("Ada"));
    let shown = bob.eval(&frames).await;
    bob.until(&format!("{frames} > {shown} + 5")).await;
}

#[tokio::test]
async fn a_restart_is_over_in_a_moment_and_what_was_off_stays_off() {
    let Some(browser) = Browser::start().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Process::start(&data, &[]).await;
    let http = server.reached_at().http.to_string();
    let [ada, bob] = meeting(&browser, &server).await;
    server.stop().await;
    ada.until(IS_AWAY).await;
    let settings = [("SATSUMA_HTTP__LISTEN", http.as_str())];
    let server = Process::start(&data, &settings).await;
    ada.until(&format!("!({IS_AWAY})")).await;
    ada.until(&shows_a_picture("Bob")).await;
    bob.until(&shows_a_picture("Ada")).await;

    // Whoever switched the camera off does not show itself by loading the page again.
    bob.click(".controls [data-action=camera]").await;
    until_pressed(&bob, "camera", "false").await;
    bob.reload().await;
    bob.until("document.querySelector('#join:enabled')").await;
    bob.until("document.getElementById('preview-note').textContent === 'The camera is off'").await;
    drop(server);
}
