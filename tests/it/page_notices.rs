//! The notices of our own page in a real browser: they cover nothing, and go when what they tell is over.

use serde_json::json;

use crate::browser::Browser;
use crate::client::Client;
use crate::page::{meet, tile, until_on_stage};
use crate::page_stage::{patient_server, size};

/// True if each notice lies apart from all tiles and buttons, and inside the window.
const COVERS_NOTHING: &str = "(() => {
    const boxes = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.getClientRects().length).map((e) => e.getBoundingClientRect());
    const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
    const notices = boxes('#messages p, #knocks p');
    const others = boxes('.tile, .room button, .bar h1');
    // A phone shows the newest one.
    return notices.length >= (innerWidth < 520 ? 2 : 3) && notices.every((n) => n.left >= 0 && n.right <= innerWidth && others.every((o) => apart(n, o)));
})()";

/// The place of the stage.
const STAGE: &str = "JSON.stringify(document.getElementById('stage').getBoundingClientRect())";

fn shows(text: &str) -> String {
    format!("[...document.querySelectorAll('#notices p')].some((p) => p.textContent === {})", json!(text))
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn notices_cover_nothing_and_go_in_time() {
    let browser = Browser::start().await;
    let server = patient_server().await;
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    size(&ada, 360, 740).await;
    let undisturbed = ada.eval(STAGE).await;
    // They stay as long as their cause, so that nothing here depends on time.
    let lasting = "import('/static/js/notices.js').then((notices) => { window.setTimeout = () => 0; \
                   notices.lastingNotice('Audio and video do not work: a long sentence about the cause of it. Trying again…', 'media') })";
    ada.eval(lasting).await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let user = |hand: bool| json!({"type": "userUpdate", "user": {"joined": true, "raisedHand": hand}});
    bob.say(user(false)).await;
    until_on_stage(&ada, &["Ada (you)", "Bob"]).await;
    ada.until(&shows("Bob joined")).await;
    bob.say(user(true)).await;
    ada.until(&shows("Bob raised a hand")).await;
    let line = "Please have a look at the document of yesterday, and write your comments on it before noon.";
    bob.say(json!({"type": "chat", "message": line})).await;
    ada.until(&shows(&format!("Bob: {line}"))).await;
    for (width, height) in [(800, 600), (1280, 800), (360, 740)] {
        size(&ada, width, height).await;
        ada.until(COVERS_NOTHING).await;
    }
    // On a phone they take the place of the room's name, and that of no tile.
    ada.eval("document.querySelector('#lasting p').remove()").await;
    assert_eq!(ada.eval("document.getElementById('room-title').checkVisibility()").await, false);
    assert_eq!(ada.eval(STAGE).await, undisturbed);
    size(&ada, 1280, 800).await;
    bob.say(user(false)).await;
    ada.until(&format!("!{}", shows("Bob raised a hand"))).await;
    ada.click(".controls [data-action=chat]").await;
    ada.until(&format!("!{}", shows(&format!("Bob: {line}")))).await;
    assert_eq!(ada.eval(&shows("Bob joined")).await, true);
    bob.say(json!({"type": "userLeft"})).await;
    ada.until(&format!("{} && !{}", shows("Bob left"), shows("Bob joined"))).await;
    // Somebody stops Ada's microphone, until she switches it on again.
    ada.until("document.querySelector('.controls [data-action=microphone][aria-pressed=true]')").await;
    let mut cy = Client::join(&server, "r", "Cy").await;
    cy.say(user(false)).await;
    let id = ada.eval(&format!("({}).dataset.user", tile("Ada (you)"))).await;
    cy.say(json!({"type": "muteUser", "id": id})).await;
    let muted = "[...document.querySelectorAll('#notices p')].some((p) => /muted your microphone/.test(p.textContent))";
    ada.until(&shows("Cy muted your microphone")).await;
    assert_eq!(ada.eval(&shows("Somebody muted your microphone")).await, false);
    ada.click(".controls [data-action=microphone]").await;
    ada.until(&format!("!{muted}")).await;
    ada.assert_quiet().await;
}
