//! Moderation on our own page, in a real browser.

use satsuma::config::ModeratorDefault;
use serde_json::json;

use crate::browser::Browser;
use crate::cloud::Cloud;
use crate::harness::TestServer;
use crate::page::{join, meet, until_on_stage};

#[tokio::test]
#[ignore = "needs chromium"]
async fn visitor_waits_is_let_in_and_is_removed() {
    let browser = Browser::start().await;
    let cloud = Cloud::start().await;
    let server = TestServer::with(|config| {
        cloud.configure(config);
        config.moderation.default = ModeratorDefault::First;
    })
    .await;
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
