//! Moderation on our own page, in a real browser.

use satsuma::config::ModeratorDefault;
use serde_json::json;

use crate::browser::{Browser, Tab};
use crate::cloud::Cloud;
use crate::harness::TestServer;
use crate::page::{join, meet, until_on_stage, until_pressed};

/// A server whose rooms are moderated by whoever came first.
async fn server(cloud: &Cloud) -> TestServer {
    TestServer::with(|config| {
        cloud.configure(config);
        config.moderation.default = ModeratorDefault::First;
    })
    .await
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn visitor_waits_is_let_in_and_is_removed() {
    let browser = Browser::start().await;
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let (ada_visits, bob_visits) = (browser.visitor().await, browser.visitor().await);
    let ada = meet(&ada_visits, &server, "r", "Ada").await;
    let post = async |action| {
        let answered = server.admin_post("/admin/rooms/r/moderate", &action).await;
        assert_eq!(answered.status, 200, "{answered:?}");
    };
    post(json!({"action": "waitingRoom", "on": true})).await;

    let bob = bob_visits.open(&format!("{}/r", server.http())).await;
    bob.fill("#username", "Bob <b>").await;
    bob.press("Enter").await;
    bob.until("document.querySelector('#lasting')?.textContent.includes('has to let you in')").await;
    ada.until(
        "document.querySelector('#knocks:not([hidden]) span')?.textContent === 'Bob <b> wants to join'",
    )
    .await;
    ada.click_text("#knocks button", "Admit").await;
    ada.until("document.querySelector('#knocks[hidden]')").await;
    bob.until("document.querySelector('#join:enabled')").await;
    join(&bob).await;
    until_on_stage(&ada, &["Ada (you)", "Bob <b>"]).await;

    let room = server.admin_get("/admin/rooms/r").await.json();
    let members = room["members"].as_array().unwrap();
    let id = members.iter().find(|member| member["name"] == "Bob <b>").unwrap()["id"].clone();
    post(json!({"action": "remove", "id": id, "reason": "noise"})).await;
    bob.until("document.body.dataset.view === 'left'").await;
    let told = "document.querySelector('#left-title').textContent";
    assert_eq!(bob.eval(told).await, json!("You were removed from this meeting: noise"));
    until_on_stage(&ada, &["Ada (you)"]).await;
    ada.assert_quiet().await;
}

/// Clicks the button that opens the dialog of a member, and an action there.
async fn act(tab: &Tab, name: &str, action: &str) {
    manage(tab, name).await;
    tab.click_text("#member-actions button", action).await;
    tab.until("!document.querySelector('#member').open").await;
}

async fn manage(tab: &Tab, name: &str) {
    tab.click(&format!("#people [aria-label='Moderate {name}']")).await;
    tab.until("document.querySelector('#member').open").await;
}

/// Two hosts and three guests.
#[tokio::test]
#[ignore = "needs chromium"]
async fn hosts_moderate_from_the_page() {
    let browser = Browser::start().await;
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let mut visitors = Vec::new();
    for _ in 0..5 {
        visitors.push(browser.visitor().await);
    }
    let [for_ada, for_ben, for_cyd, for_dan, for_eve] = &visitors[..] else { unreachable!() };
    let ada = meet(for_ada, &server, "r", "Ada").await;
    let ben = meet(for_ben, &server, "r", "Ben").await;
    let cyd = meet(for_cyd, &server, "r", "Cyd").await;
    let dan = meet(for_dan, &server, "r", "Dan").await;
    until_on_stage(&ada, &["Ada (you)", "Ben", "Cyd", "Dan"]).await;
    for host in [&ada, &ben] {
        host.click(".controls [data-action=people]").await;
    }
    ada.until("!document.querySelector('#host').hidden").await;
    assert_eq!(ben.eval("document.querySelector('#host').hidden").await, json!(true));
    assert_eq!(
        ben.eval("document.querySelectorAll('#people [aria-label^=Moderate]:not([hidden])').length").await,
        json!(0)
    );

    // A second host.
    act(&ada, "Ben", "Make a moderator").await;
    ben.until("!document.querySelector('#host').hidden").await;

    // Mute; the muted one hears who did it, and switches itself on again.
    until_pressed(&cyd, "microphone", "true").await;
    act(&ben, "Cyd", "Mute").await;
    until_pressed(&cyd, "microphone", "false").await;
    cyd.until("document.querySelector('#notices').textContent.includes('Ben muted your microphone')").await;
    cyd.click(".controls [data-action=microphone]").await;
    until_pressed(&cyd, "microphone", "true").await;
    act(&ada, "Cyd", "Stop the camera").await;
    until_pressed(&cyd, "camera", "false").await;

    // The spotlight, a name, the chat.
    act(&ada, "Dan", "Put in the spotlight").await;
    dan.until("document.querySelector('.large .tile .name')?.textContent === 'Dan (you)'").await;
    manage(&ada, "Dan").await;
    ada.fill("#member-name", "Daniel").await;
    ada.click_text("#member-rename button", "Rename").await;
    until_on_stage(&cyd, &["Ada", "Ben", "Cyd (you)", "Daniel"]).await;
    ada.click("#rule-chat").await;
    cyd.until("document.querySelector('#line').disabled").await;
    assert_eq!(ben.eval("document.querySelector('#line').disabled").await, json!(false));

    // A password, which somebody new has to enter.
    ada.click_text("#host button", "Password…").await;
    ada.fill("#new-password", "open sesame").await;
    ada.click_text("#password-form button", "Set the password").await;
    ada.until("!document.querySelector('#password-dialog').open").await;
    let eve = for_eve.open(&format!("{}/r", server.http())).await;
    eve.fill("#username", "Eve").await;
    eve.press("Enter").await;
    eve.until("!document.querySelector('#enter').hidden").await;
    eve.fill("#room-password", "wrong").await;
    eve.press("Enter").await;
    eve.until("document.querySelector('#enter-problem').textContent === 'This is not the room’s password.'")
        .await;
    eve.fill("#room-password", "open sesame").await;
    eve.press("Enter").await;
    eve.until("document.querySelector('#join:enabled')").await;
    join(&eve).await;
    until_on_stage(&ada, &["Ada (you)", "Ben", "Cyd", "Daniel", "Eve"]).await;

    // Remove, for a reason; lock; end.
    manage(&ben, "Daniel").await;
    ben.fill("#member-reason", "noise").await;
    ben.click_text("#member-remove button", "Remove").await;
    dan.until("document.body.dataset.view === 'left'").await;
    let told = "document.querySelector('#left-title').textContent";
    assert_eq!(dan.eval(told).await, json!("Ben removed you from this meeting: noise"));
    ada.click("#rule-locked").await;
    ben.until("document.querySelector('#rule-locked').checked").await;
    show(&ada, "people").await;
    manage(&ada, "Eve").await;
    show(&ada, "member").await;
    ada.click_text("#member button", "Close").await;
    ada.click_text("#host button", "End for all…").await;
    ada.click_text("#end-form button", "End for all").await;
    for (tab, title) in
        [(&ben, "Ada ended the meeting"), (&cyd, "Ada ended the meeting"), (&eve, "Ada ended the meeting")]
    {
        tab.until("document.body.dataset.view === 'left'").await;
        assert_eq!(tab.eval(told).await, json!(title));
    }
    ada.until("document.body.dataset.view === 'left'").await;
    ada.assert_quiet().await;
}

/// Writes what a tab shows into a folder, if one is named: to be looked at.
async fn show(tab: &Tab, name: &str) {
    let Ok(folder) = std::env::var("SCREENSHOTS") else { return };
    for (width, height) in [(1200, 800), (360, 740)] {
        let png = tab.screenshot(width, height).await;
        std::fs::write(format!("{folder}/{name}-{width}.png"), png).unwrap();
    }
}
