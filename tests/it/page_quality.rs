//! The states of videos and the quality of connections on our own page, in a real browser.

use serde_json::json;

use crate::browser::Browser;
use crate::client::Client;
use crate::harness::Reach;
use crate::page::{meet, tile, until_pressed};
use crate::page_network::{KEEP, bob_with, shows_a_picture};
use crate::process::Process;

fn has(name: &str, class: &str) -> String {
    format!("({})?.classList.contains('{class}')", tile(name))
}

fn part(name: &str, selector: &str) -> String {
    format!("({})?.querySelector('{selector}:not([hidden])')", tile(name))
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn states_of_a_video_are_told_apart() {
    let browser = Browser::start().await;
    let dir = tempfile::tempdir().unwrap();
    // Cy sends no heartbeat.
    let patient = [("SATSUMA_ROOM__HEARTBEAT_TIMEOUT", "600s")];
    let server = Process::start(&dir.path().join("data"), &patient).await;
    let origin = format!("http://{}", server.reached_at().http);
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    // A camera that is on, but of which nothing arrives.
    let mut cy = Client::join(&server, "r", "Cy").await;
    let user =
        |camera: bool| json!({"joined": true, "tracks": {"videoEnabled": camera, "video": "none/none"}});
    cy.say(json!({"type": "userUpdate", "user": user(true)})).await;
    ada.until(&part("Cy", ".spinner")).await;
    assert_eq!(ada.eval(&has("Cy", "picture")).await, false);
    cy.say(json!({"type": "userUpdate", "user": user(false)})).await;
    ada.until(&format!("!{}", part("Cy", ".spinner"))).await;

    let bob = bob_with(&browser, &origin, KEEP).await;
    ada.until(&shows_a_picture("Bob")).await;
    ada.until(&format!("{} && !{}", has("Bob", "picture"), part("Bob", ".spinner"))).await;
    // The encoder stops, but the camera stays on and the microphone is heard.
    let encode = |is: bool| {
        format!(
            "Promise.all(connections.at(-1).getSenders().filter((s) => s.track?.kind === 'video').map((s) => {{
                const parameters = s.getParameters();
                for (const encoding of parameters.encodings) encoding.active = {is};
                return s.setParameters(parameters);
            }}))"
        )
    };
    bob.eval(&encode(false)).await;
    ada.until(&format!("{} && !{}", has("Bob", "frozen"), has("Bob", "lost"))).await;
    assert_eq!(ada.eval(&format!("{}.textContent", part("Bob", ".state"))).await, "Video is frozen");
    bob.eval(&encode(true)).await;
    ada.until(&format!("!{} && !{}", has("Bob", "frozen"), part("Bob", ".state"))).await;
    // A camera that is off is none of these.
    bob.click(".controls [data-action=camera]").await;
    until_pressed(&bob, "camera", "false").await;
    ada.until(&format!("!{} && !{}", has("Bob", "picture"), has("Bob", "frozen"))).await;
    ada.until(&format!("!{} && !{}", part("Bob", ".spinner"), part("Bob", ".state"))).await;
    ada.assert_quiet().await;
}

/// Adds losses to the statistics, as those of a bad network: a local one loses nothing.
const LOSE: &str = "{
    const real = RTCPeerConnection.prototype.getStats;
    let lost = 0;
    RTCPeerConnection.prototype.getStats = async function () {
        const stats = await real.call(this);
        if (window.loses) lost += 200;
        const worse = { 'inbound-rtp': { packetsLost: lost }, 'remote-inbound-rtp': { fractionLost: window.loses ? 0.3 : 0 } };
        return new Map([...stats].map(([id, report]) => [id, { ...report, ...worse[report.type] }]));
    };
}";

#[tokio::test]
#[ignore = "needs chromium"]
async fn quality_is_shown_on_every_tile() {
    let browser = Browser::start().await;
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&dir.path().join("data"), &[]).await;
    let origin = format!("http://{}", server.reached_at().http);
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    let bob = bob_with(&browser, &origin, LOSE).await;
    let bars = |name: &str, title: &str| {
        let bars = part(name, ".bars");
        format!("{bars}?.title === '{title}' && {bars}.ariaLabel === '{title}'")
    };
    for (tab, names) in [(&ada, ["Ada (you)", "Bob"]), (&bob, ["Ada", "Bob (you)"])] {
        for name in names {
            tab.until(&bars(name, "Good connection")).await;
        }
    }
    bob.eval("window.loses = true").await;
    for name in ["Ada", "Bob (you)"] {
        bob.until(&bars(name, "Poor connection")).await;
    }
    // It rises by steps.
    bob.eval("window.loses = false").await;
    for title in ["Fair connection", "Good connection"] {
        bob.until(&bars("Ada", title)).await;
    }
    bob.assert_quiet().await;
}
