//! The stage of our own page in a real browser: its views, pinned tiles, screens, and what lies outside.

use std::time::Duration;

use serde_json::{Value, json};

use crate::browser::{Browser, Tab};
use crate::client::Client;
use crate::harness::TestServer;
use crate::page::{join, meet, tile, until_on_stage};

/// A server whose members need no heartbeat, so that a busy machine loses none.
pub async fn patient_server() -> TestServer {
    TestServer::with(|config| config.room.heartbeat_timeout = Duration::from_secs(600)).await
}

/// A member who only speaks the room's protocol.
async fn member(server: &TestServer, name: &str) -> Client {
    let mut member = Client::join(server, "r", name).await;
    member.say(json!({"type": "userUpdate", "user": {"joined": true}})).await;
    member
}

async fn say(member: &mut Client, user: Value) {
    let mut user = user;
    user["joined"] = json!(true);
    member.say(json!({"type": "userUpdate", "user": user})).await;
}

/// Waits until a place of the stage shows exactly these tiles, in this order.
#[track_caller]
fn until_placed(tab: &Tab, place: &str, names: &[&str]) -> impl Future<Output = ()> {
    tab.until(&format!(
        "JSON.stringify([...document.querySelectorAll('.{place} .tile .name')].map(n => n.textContent)) === {}",
        json!(json!(names).to_string())
    ))
}

/// Gives a tab the size of a window.
pub async fn size(tab: &Tab, width: u32, height: u32) {
    let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
    tab.call("Emulation.setDeviceMetricsOverride", size).await;
}

async fn focus(tab: &Tab, selector: &str) {
    tab.eval(&format!("document.querySelector({}).focus()", json!(selector))).await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn two_people_and_movable_preview() {
    let browser = Browser::start().await;
    let server = patient_server().await;
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    until_placed(&ada, "rest", &["Ada (you)"]).await;
    let bob = member(&server, "Bob").await;
    until_placed(&ada, "large", &["Bob"]).await;
    until_placed(&ada, "floating", &["Ada (you)"]).await;
    assert_eq!(ada.eval("document.querySelector('[data-action=view]').hidden").await, true);

    // It is moved by keys, and by dragging it to another corner.
    let corner = |name: &str| format!("document.querySelector('.floating').dataset.corner === '{name}'");
    ada.until(&corner("bottom right")).await;
    focus(&ada, ".floating").await;
    ada.press("ArrowUp").await;
    ada.until(&corner("top right")).await;
    let place = "(e => { const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2, r.right] })(document.querySelector('.floating'))";
    let from = ada.eval(place).await;
    let mouse = async |kind: &str, x: &Value, buttons: u32| {
        let event = json!({"type": kind, "x": x, "y": from[1], "button": "left", "buttons": buttons, "clickCount": 1});
        ada.call("Input.dispatchMouseEvent", event).await;
    };
    mouse("mousePressed", &from[0], 1).await;
    mouse("mouseMoved", &json!(30), 1).await;
    mouse("mouseReleased", &json!(30), 0).await;
    ada.until(&corner("top left")).await;
    ada.reload().await;
    ada.until("document.querySelector('#join:enabled')").await;
    join(&ada).await;
    ada.until(&corner("top left")).await;

    // With a third all are equal, and one's own tile is the last.
    let cy = member(&server, "Cy").await;
    ada.until("document.querySelectorAll('.rest .tile').length === 3").await;
    ada.until("document.querySelector('.rest .tile:last-child .name').textContent === 'Ada (you)'").await;
    until_placed(&ada, "floating", &[]).await;
    drop((bob, cy));
    ada.assert_quiet().await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn speaker_view_is_remembered() {
    let browser = Browser::start().await;
    let server = patient_server().await;
    let (mut bob, mut cy) = (member(&server, "Bob").await, member(&server, "Cy").await);
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    until_on_stage(&ada, &["Ada (you)", "Bob", "Cy"]).await;
    until_placed(&ada, "large", &[]).await;
    let speaking = |is: bool| json!({"speaking": is, "tracks": {"audioEnabled": true}});
    say(&mut bob, speaking(true)).await;
    ada.until(&format!("({})?.classList.contains('speaking')", tile("Bob"))).await;
    ada.click("[data-action=view]").await;
    until_placed(&ada, "large", &["Bob"]).await;
    until_placed(&ada, "rest", &["Cy", "Ada (you)"]).await;
    // A speaker who is interrupted stays until there is silence.
    say(&mut cy, speaking(true)).await;
    ada.until(&format!("({})?.classList.contains('speaking')", tile("Cy"))).await;
    until_placed(&ada, "large", &["Bob"]).await;
    say(&mut bob, speaking(false)).await;
    until_placed(&ada, "large", &["Cy"]).await;
    say(&mut cy, speaking(false)).await;
    ada.until(&format!("!({})?.classList.contains('speaking')", tile("Cy"))).await;
    until_placed(&ada, "large", &["Cy"]).await;

    ada.reload().await;
    ada.until("document.querySelector('#join:enabled')").await;
    join(&ada).await;
    ada.until("document.querySelectorAll('.large .tile').length === 1").await;
    ada.press("l").await;
    until_placed(&ada, "large", &[]).await;
    ada.assert_quiet().await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn screens_and_pinned_tiles_are_large() {
    let browser = Browser::start().await;
    let server = patient_server().await;
    let (mut bob, _cy) = (member(&server, "Bob").await, member(&server, "Cy").await);
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    until_on_stage(&ada, &["Ada (you)", "Bob", "Cy"]).await;
    say(&mut bob, json!({"tracks": {"screenShareEnabled": true}})).await;
    until_placed(&ada, "large", &["Bob’s screen"]).await;
    ada.until("document.querySelectorAll('.rest .tile').length === 3").await;
    // The screen fills its place in each window, and lies apart from the others.
    for (width, height) in [(360, 740), (800, 600), (1280, 800)] {
        size(&ada, width, height).await;
        ada.until(
            "(() => {
                const box = s => document.querySelector(s).getBoundingClientRect();
                const [screen, rest] = [box('.large .tile'), box('.rest')];
                return Math.abs(screen.width / screen.height - 16 / 9) < 0.02
                    && (screen.right <= rest.left || screen.bottom <= rest.top)
                    && screen.width >= innerWidth * 0.75;
            })()",
        )
        .await;
    }
    // Pinned by the keyboard, which keeps the focus.
    focus(&ada, "[aria-label='Pin Cy']").await;
    ada.press("Enter").await;
    until_placed(&ada, "large", &["Cy"]).await;
    let is_focused = "document.activeElement.matches('.large [aria-label=\"Pin Cy\"][aria-pressed=true]')";
    ada.until(is_focused).await;
    ada.press("Enter").await;
    until_placed(&ada, "large", &["Bob’s screen"]).await;

    // All tiles are one stop of the Tab key, and the arrow keys go from one to the next.
    focus(&ada, "[aria-label='Pin Cy']").await;
    assert_eq!(
        ada.eval("document.querySelectorAll('.tile:has(.tool:not([tabindex=\"-1\"]))').length").await,
        1
    );
    ada.press("Home").await;
    ada.until("document.activeElement.matches('.large .tile:first-child .tool')").await;
    ada.press("ArrowRight").await;
    ada.until("document.activeElement.matches('.rest .tile:first-child .tool')").await;
    ada.press("End").await;
    ada.until("document.activeElement.ariaLabel === 'Pin Ada (you)'").await;
    // A double click shows it full screen, and another one ends that.
    let point = ada.eval("(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector('.large .tile').getBoundingClientRect())").await;
    for full in ["document.fullscreenElement?.matches('.tile.screen')", "!document.fullscreenElement"] {
        for count in [1, 2] {
            for kind in ["mousePressed", "mouseReleased"] {
                let event = json!({"type": kind, "x": point[0], "y": point[1], "button": "left", "clickCount": count});
                ada.call("Input.dispatchMouseEvent", event).await;
            }
        }
        ada.until(full).await;
    }
    // Of one's own whole screen there is nothing to show, since it would contain itself.
    say(&mut bob, json!({"tracks": {}})).await;
    until_placed(&ada, "large", &[]).await;
    ada.click(".controls [data-action=screen]").await;
    ada.until("document.querySelector('.sharing:not([hidden])')").await;
    until_on_stage(&ada, &["Ada (you)", "Bob", "Cy"]).await;
    // She is told who watches, whatever others' clients claim.
    let id = ada.eval(&format!("({}).dataset.user", tile("Ada (you)"))).await;
    for (watches, told) in [
        (json!([id.clone()]), "Bob is watching"),
        (json!(7), "Nobody is watching"),
        (json!([null, id.clone()]), "Bob is watching"),
        (json!({"includes": id}), "Nobody is watching"),
    ] {
        say(&mut bob, json!({"watches": watches, "tracks": {}})).await;
        ada.until(&format!("document.querySelector('.watchers').textContent === '{told}'")).await;
    }
    ada.click(".sharing button").await;
    ada.until("document.querySelector('.sharing[hidden]')").await;
    ada.assert_quiet().await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn tiles_below_the_fold_are_hinted() {
    let browser = Browser::start().await;
    let server = patient_server().await;
    let mut crowd = Vec::new();
    for number in 0..40 {
        crowd.push(member(&server, &format!("Member {number}")).await);
    }
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    ada.until("document.querySelectorAll('.tile').length === 41").await;
    size(&ada, 360, 740).await;
    let hint = "document.querySelector('.more:not([hidden])')";
    ada.until(&format!("/^\\d+ more$/.test({hint}?.textContent)")).await;
    let before = ada.eval(&format!("parseInt({hint}.textContent)")).await;
    ada.click(".more").await;
    ada.until(&format!("!({hint}) || parseInt({hint}.textContent) < {before}")).await;
    ada.eval("document.querySelector('.rest').scrollTo(0, 1e6)").await;
    ada.until(&format!("!({hint})")).await;
    // Whoever speaks outside the view comes into it.
    let first = "document.querySelector('.rest .tile:first-child .name').textContent";
    let last = "[...document.querySelectorAll('.rest .tile .name')].at(-2).textContent";
    ada.eval("document.querySelector('.rest').scrollTo(0, 0)").await;
    let name = ada.eval(last).await.as_str().unwrap().to_owned();
    let number: usize = name.strip_prefix("Member ").unwrap().parse().unwrap();
    let speaks = json!({"speaking": true, "tracks": {"audioEnabled": true}});
    say(&mut crowd[number], speaks).await;
    // Its tile counts as near for a moment longer.
    ada.until(&format!("{first} === {}", json!(name))).await;
    ada.assert_quiet().await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn picture_in_picture_shows_the_speaker() {
    let browser = Browser::start().await;
    let server = patient_server().await;
    let (mut bob, mut cy) = (member(&server, "Bob").await, member(&server, "Cy").await);
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    until_on_stage(&ada, &["Ada (you)", "Bob", "Cy"]).await;
    ada.eval("documentPictureInPicture.addEventListener('enter', ({ window: of }) => { window.small = of })")
        .await;
    let open = async || {
        ada.click("[popovertarget=menu]").await;
        ada.click("#menu [data-action=pip]").await;
    };
    let speaking = |is: bool| json!({"speaking": is, "tracks": {"audioEnabled": true}});
    say(&mut bob, speaking(true)).await;
    open().await;
    let shown =
        |name: &str| format!("window.small?.document.querySelector('.name')?.textContent === '{name}'");
    ada.until(&shown("Bob")).await;
    say(&mut cy, speaking(true)).await;
    say(&mut bob, speaking(false)).await;
    ada.until(&shown("Cy")).await;
    // Its buttons act on the meeting, and show its state.
    ada.until("document.querySelector('.controls [data-action=microphone][aria-pressed=true]')").await;
    let muted = "[data-action=microphone][aria-pressed=false]";
    ada.eval("small.document.querySelector('[data-action=microphone]').click()").await;
    ada.until(&format!(
        "document.querySelector('.controls {muted}') && small.document.querySelector('{muted}')"
    ))
    .await;
    open().await;
    ada.until("small.closed").await;
    ada.assert_quiet().await;
}
