//! Our own page while the network, the server or another member's connection is dead.

use rustix::process::Signal;
use serde_json::json;

use crate::browser::{Browser, Tab};
use crate::harness::{Reach, TestServer, eventually};
use crate::page::{join, meet, tile, until_on_stage, until_pressed};
use crate::page_errors::before_pages;
use crate::process::Process;

const IS_AWAY: &str = "!document.getElementById('reconnecting').hidden";

/// Collects the connections of a page, so that a test can end them.
pub const KEEP: &str = "window.connections = [];
    window.RTCPeerConnection = class extends RTCPeerConnection {
        constructor(...of) { super(...of); connections.push(this); }
    };";

pub fn shows_a_picture(name: &str) -> String {
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
#[ignore = "needs chromium"]
async fn frozen_server_is_detected_and_recovers() {
    let browser = Browser::start().await;
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

/// The server admits attempts that the page gave up meanwhile. One that came last was taken for a newer window.
#[tokio::test]
#[ignore = "needs chromium"]
async fn own_attempt_is_no_newer_window() {
    let browser = Browser::start().await;
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&dir.path().join("data"), &[]).await;
    let origin = format!("http://{}", server.reached_at().http);
    // A second socket of each attempt after the first stands for the one that the server admits late.
    let late = "window.sockets = [];
        const Socket = WebSocket;
        window.WebSocket = class extends Socket {
            constructor(url) {
                super(url);
                sockets.push(this);
                this.addEventListener('close', ({code}) => this.superseded = code === 4001);
                if (window.isFrozen) this.addEventListener('message', () => (window.late ??= new Socket(url)), {once: true});
            }
        };";
    let bob = bob_with(&browser, &origin, late).await;
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    bob.eval("isFrozen = true").await;
    server.signal(Signal::STOP);
    // The first attempt of the page is given up, and another one begins.
    bob.until("sockets.length > 2").await;
    server.signal(Signal::CONT);
    bob.until("window.late").await;
    bob.until("sockets.some(socket => socket.superseded)").await;
    bob.until(&format!("!({IS_AWAY})")).await;
    until_on_stage(&ada, &["Ada (you)", "Bob"]).await;
    assert_eq!(bob.eval("document.body.dataset.view").await, json!("room"));
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn lost_connection_of_other_member_is_marked() {
    let browser = Browser::start().await;
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&dir.path().join("data"), &[]).await;
    let origin = format!("http://{}", server.reached_at().http);
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    let bob = bob_with(&browser, &origin, KEEP).await;
    ada.until(&shows_a_picture("Bob")).await;
    bob.eval("connections.forEach((connection) => connection.close())").await;
    ada.until(&is_lost("Bob")).await;
    assert_eq!(ada.eval(IS_AWAY).await, false, "its own connection is well");
    assert_eq!(ada.eval(&format!("({}).classList.contains('speaking')", tile("Bob"))).await, false);
    until_on_stage(&ada, &["Ada (you)", "Bob"]).await;
}

/// Chromium rejected its own description, and the session with all its tracks was replaced.
#[tokio::test]
#[ignore = "needs chromium"]
async fn late_camera_keeps_the_media_session() {
    let browser = Browser::start().await;
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&dir.path().join("data"), &[]).await;
    let origin = format!("http://{}", server.reached_at().http);
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    let off = format!(
        r#"sessionStorage.setItem("satsuma.wanted", '{{"camera":false,"microphone":false}}'); {KEEP}"#
    );
    let bob = bob_with(&browser, &origin, &off).await;
    bob.until(&shows_a_picture("Ada")).await;
    bob.click(".controls [data-action=camera]").await;
    ada.until(&shows_a_picture("Bob")).await;
    assert_eq!(bob.eval("connections.length").await, 1);
}

/// A change of networks cost seven seconds and a new session.
#[tokio::test]
#[ignore = "needs chromium"]
async fn network_change_restarts_ice() {
    let browser = Browser::start().await;
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&dir.path().join("data"), &[]).await;
    let origin = format!("http://{}", server.reached_at().http);
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    let bob = bob_with(&browser, &origin, KEEP).await;
    bob.until(&shows_a_picture("Ada")).await;
    ada.until(&shows_a_picture("Bob")).await;
    // Counted before any effect.
    let offered = "connections.at(-1).restartIce = function () {
        this.restarts = (this.restarts ?? 0) + 1;
        RTCPeerConnection.prototype.restartIce.call(this);
    }";
    bob.eval(offered).await;
    let side = "connections.at(-1).remoteDescription.sdp.match(/ice-ufrag:(.*)/)[1]";
    let before = bob.eval(side).await;
    // The browser's new estimate of the same network's speed is no reason.
    bob.eval("navigator.connection.dispatchEvent(new Event('change'))").await;
    bob.eval("dispatchEvent(new Event('online'))").await;
    bob.until(&format!("{side} !== {before} && connections.at(-1).connectionState === 'connected'")).await;
    assert_eq!(bob.eval("connections.at(-1).restarts").await, 1);
    let frames =
        format!("({}).querySelector('video').getVideoPlaybackQuality().totalVideoFrames", tile("Ada"));
    let shown = bob.eval(&frames).await;
    bob.until(&format!("{frames} > {shown} + 5")).await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn restart_is_brief_and_keeps_devices_off() {
    let browser = Browser::start().await;
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

    // A reload does not switch a camera on that its user switched off.
    bob.click(".controls [data-action=camera]").await;
    until_pressed(&bob, "camera", "false").await;
    bob.reload().await;
    bob.until("document.querySelector('#join:enabled')").await;
    bob.until("document.getElementById('preview-note').textContent === 'The camera is off'").await;
    drop(server);
}

/// The page's detection of missing media by received bytes: time and counts are the test's.
#[tokio::test]
#[ignore = "needs chromium"]
async fn arrival_detects_missing_media_only_when_due() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let tab = browser.visitor().await.open(&format!("{}/set-username", server.http())).await;
    tab.until("document.readyState === 'complete'").await;
    let judge = "(async () => {
        const { Arrival } = await import('/static/js/calls/arrival.js');
        // Two samples a second for this many seconds; each of these tracks receives bytes in each.
        const world = () => {
            const arrival = new Arrival();
            const tracks = new Map();
            let bytes = 0;
            const self = { now: 0, arrival, after(seconds, rising, reports = true) {
                for (let look = 0; look < seconds * 2; look += 1) {
                    self.now += 500;
                    for (const id of rising) tracks.set(id, (tracks.get(id) ?? 0) + 100);
                    if (rising.length > 0 || reports) bytes += 100;
                    arrival.take(self.now, { tracks: new Map(tracks), bytes, isSending: true });
                }
                return self;
            }, giveUpWay() {
                bytes -= 100;
                return self;
            } };
            return self;
        };
        const results = {};
        const speech = { audio: 'mic', isMuted: false, since: 0 };

        let w = world().after(10, ['mic']);
        results.speaks = w.arrival.isLost(speech);
        results.pauses = w.after(1.5, []).arrival.isLost(speech);
        results.dies = w.after(0.5, []).arrival.isLost(speech);
        results.diesAlone = w.arrival.isCutOff;

        w = world().after(10, ['mic', 'cam']).after(10, ['mic']);
        results.onlyPictureStands = w.arrival.isLost({ ...speech, video: 'cam' });
        results.bothStand = w.after(2, []).arrival.isLost({ ...speech, video: 'cam' });

        w = world().after(10, ['mic']);
        let muted = { audio: 'mic', isMuted: true, since: w.now };
        results.mutedAndSilent = w.after(1, ['mic']).after(20, []).arrival.isLost(muted);
        results.justUnmuted = w.arrival.isLost({ audio: 'mic', isMuted: false, since: w.now });
        results.unmutedAndSilent = w.after(2, []).arrival.isLost({ audio: 'mic', isMuted: false, since: w.now - 2000 });
        w = world().after(10, ['mic']);
        muted = { audio: 'mic', isMuted: true, since: w.now };
        results.mutedAndSending = w.after(10, ['mic']).arrival.isLost(muted);
        results.mutedAndDead = w.after(2, []).arrival.isLost(muted);
        results.nothingToArrive = world().after(10, []).arrival.isLost({ isMuted: true, since: 0 });

        // An outage does not raise the next timeout.
        w = world().after(10, ['mic']);
        results.cutOff = [1.5, 0.5, 10].map((seconds) => w.after(seconds, [], false).arrival.isCutOff);
        results.back = w.after(0.5, ['mic']).arrival.isCutOff;
        results.again = [1.5, 0.5].map((seconds) => w.after(seconds, [], false).arrival.isCutOff);

        w = world().after(10, ['mic']).after(1.5, [], false).giveUpWay();
        results.shrunk = w.after(0.5, [], false).arrival.isCutOff;
        results.backFromThere = w.after(0.5, ['mic']).arrival.isCutOff;

        // Reports alone may be five seconds apart.
        w = world().after(0.5, []);
        results.rareReports = [];
        for (let round = 0; round < 8; round += 1) {
            results.rareReports.push(w.after(4.5, [], false).arrival.isCutOff);
            w.after(0.5, []);
        }
        return results;
    })()";
    let results = tab.eval(judge).await;
    let expected = json!({
        "speaks": false, "pauses": false, "dies": true, "diesAlone": false,
        "onlyPictureStands": false, "bothStand": true,
        "mutedAndSilent": false, "justUnmuted": false, "unmutedAndSilent": true,
        "mutedAndSending": false, "mutedAndDead": true, "nothingToArrive": false,
        "shrunk": true, "backFromThere": false,
        "cutOff": [false, true, true], "back": false, "again": [false, true],
        "rareReports": [false, false, false, false, false, false, false, false],
    });
    assert_eq!(results, expected);
}

/// Joins the room `r` as Bob, whose connections a test can reach.
pub async fn bob_with(browser: &Browser, origin: &str, script: &str) -> Tab {
    let bob = before_pages(&browser.visitor().await, origin, "r", script).await;
    bob.fill("#username", "Bob").await;
    bob.press("Enter").await;
    bob.until("document.querySelector('#join:enabled')").await;
    join(&bob).await;
    bob
}

/// Overrides the state of the ICE connection.
fn pretend(state: &str) -> String {
    format!(
        "(of => {{
            Object.defineProperty(of, 'connectionState', {{ get: () => '{state}', configurable: true }});
            of.dispatchEvent(new Event('connectionstatechange'));
        }})(connections.at(-1))"
    )
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn close_during_ice_interruption_is_deferred() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let bob = bob_with(&browser, &server.http(), KEEP).await;
    let published = async || {
        let report = server.admin_get("/admin/sfu").await.json();
        report["tracks"].as_array().unwrap().iter().filter(|track| track["kind"] == "video").count()
    };
    eventually("the camera is published".to_owned(), async || published().await == 1).await;
    bob.until("connections.at(-1).connectionState === 'connected'").await;
    bob.eval(&pretend("disconnected")).await;
    bob.click(".controls [data-action=camera]").await;
    until_pressed(&bob, "camera", "false").await;
    // It is published again meanwhile, which needs no connection; the earlier close waits.
    bob.click(".controls [data-action=camera]").await;
    eventually("the next one is published".to_owned(), async || published().await == 2).await;
    let back = "delete connections.at(-1).connectionState,
        connections.at(-1).dispatchEvent(new Event('connectionstatechange'))";
    bob.eval(back).await;
    eventually("the first one is closed".to_owned(), async || published().await == 1).await;
    bob.assert_quiet().await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn replaced_connection_shows_as_disconnected() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let bob = bob_with(&browser, &server.http(), KEEP).await;
    bob.until("connections.at(-1)?.connectionState === 'connected'").await;
    let results = "window.results = [];
        setInterval(() => {
            const banner = document.getElementById('reconnecting').hidden ? '' : 'banner';
            const notice = document.querySelector('#lasting p') ? 'notice' : '';
            const now = banner + notice;
            if (now !== results.at(-1)) results.push(now);
        }, 5)";
    bob.eval(results).await;
    bob.call("Network.setBlockedURLs", json!({"urls": ["*sessions/new*"]})).await;
    bob.eval(&pretend("failed")).await;
    // At the end it is shown with its reason, as one notice.
    bob.until("results.at(-1) === 'notice'").await;
    bob.call("Network.setBlockedURLs", json!({"urls": []})).await;
    bob.until("results.at(-1) === ''").await;
    let results = bob.eval("results.filter((now, place) => place > 0 || now)").await;
    assert_eq!(results.as_array().unwrap()[..2], [json!("banner"), json!("notice")], "{results}");
    bob.until("connections.length === 2 && connections[1].connectionState === 'connected'").await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn lost_socket_reconnects_soon_in_a_small_room() {
    let browser = Browser::start().await;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Process::start(&data, &[]).await;
    let http = server.reached_at().http.to_string();
    let settings = [("SATSUMA_HTTP__LISTEN", http.as_str())];
    // The longest possible pauses. The first one requested after a close is the socket's.
    let chance = "Math.random = () => 1;
        window.closes = [];
        window.opened = 0;
        window.WebSocket = class extends WebSocket {
            constructor(...address) {
                super(...address);
                let isOpened = false;
                this.addEventListener('open', () => { isOpened = true; opened += 1; });
                this.addEventListener('close', ({ code }) => isOpened && closes.push([code]));
            }
        };
        const wait = window.setTimeout;
        window.setTimeout = (then, time, ...more) => {
            if (closes.at(-1)?.length === 1) closes.at(-1).push(time);
            return wait(then, time, ...more);
        }";
    let bob = bob_with(&browser, &format!("http://{http}"), chance).await;
    server.stop().await;
    bob.until("closes.length === 1").await;
    let server = Process::start(&data, &settings).await;
    bob.until("opened === 2").await;
    let cy = bob_with(&browser, &format!("http://{http}"), chance).await;
    server.kill();
    cy.until("closes.length === 1").await;
    let _server = Process::start(&data, &settings).await;
    cy.until("opened === 2").await;
    assert_eq!(bob.eval("closes[0]").await, json!([1012, 170]));
    assert_eq!(cy.eval("closes[0]").await, json!([1006, 650]));
}
