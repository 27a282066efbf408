//! The page of those who lack rights: controls without them are disabled, with the reason.

use serde_json::json;

use crate::access_tokens::{auth, token_with};
use crate::browser::Browser;
use crate::harness::TestServer;
use crate::page::{join, until_on_stage, until_pressed};

#[tokio::test]
#[ignore = "needs chromium"]
async fn controls_without_a_right_are_disabled() {
    let browser = Browser::start().await;
    let server = TestServer::with(|config| config.auth = auth()).await;
    let token = token_with("Ada", "r", json!({"publish": ["video"], "chat": false}));
    let tab = browser.visitor().await.open(&format!("{}/r?token={token}", server.http())).await;
    tab.until("document.querySelector('#join:enabled')").await;
    let refused = "You are not allowed to use a microphone in this room";
    let told = "document.querySelector('#lobby-devices-microphone-problem').textContent";
    tab.until(&format!("{told} === {}", json!(refused))).await;
    tab.until("document.getElementById('preview').videoWidth > 0").await;
    join(&tab).await;
    until_on_stage(&tab, &["Ada (you)"]).await;
    until_pressed(&tab, "camera", "true").await;
    until_pressed(&tab, "microphone", "false").await;
    for (action, reason) in
        [("microphone", refused), ("screen", "You are not allowed to share a screen in this room")]
    {
        let button = format!("document.querySelector('.controls [data-action={action}]')");
        assert_eq!(tab.eval(&format!("[{button}.disabled, {button}.title]")).await, json!([true, reason]));
    }
    tab.press("m").await;
    tab.until(&format!("document.querySelector('#notices').textContent === {}", json!(refused))).await;
    until_pressed(&tab, "microphone", "false").await;
    tab.click(".controls [data-action=chat]").await;
    tab.until("document.getElementById('line').disabled").await;
    let placeholder = tab.eval("document.getElementById('line').placeholder").await;
    assert_eq!(placeholder, "You are not allowed to write in this room");
    tab.assert_quiet().await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn identity_of_a_link_is_left_by_signing_out() {
    let browser = Browser::start().await;
    let server = TestServer::with(|config| config.auth = auth()).await;
    let visitor = browser.visitor().await;
    let token = token_with("Ada", "*", json!({}));
    let tab = visitor.open(&format!("{}/r?token={token}", server.http())).await;
    tab.click("#sign-out button").await;
    tab.until("location.pathname === '/set-username'").await;
    // A chosen name is left by choosing another one.
    tab.fill("#username", "Ada").await;
    tab.press("Enter").await;
    tab.until(
        "document.getElementById('who')?.checkVisibility() && document.getElementById('sign-out').hidden",
    )
    .await;
    tab.assert_quiet().await;
}
