//! The page's accessibility: axe looks at every state, light and dark, and the page at twice its size.

use std::path::Path;

use serde_json::json;

use crate::browser::{Browser, Tab};
use crate::client::Client;
use crate::harness::TestServer;
use crate::page::{enter, join, until_on_stage};

/// Asserts that axe finds nothing serious, in both colour schemes.
async fn assert_accessible(tab: &Tab, state: &str) {
    let axe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/node_modules/axe-core/axe.min.js");
    let axe = std::fs::read_to_string(axe).expect("`npm ci` in tests/page");
    if tab.eval("typeof window.axe").await == "undefined" {
        tab.eval(&format!("{axe}; 0")).await;
    }
    for scheme in ["light", "dark"] {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme},
                              {"name": "prefers-reduced-motion", "value": "reduce"}]);
        tab.call("Emulation.setEmulatedMedia", json!({"features": features})).await;
        let run = "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations
            .filter(({ impact }) => impact === 'serious' || impact === 'critical')
            .map(({ id, nodes }) => [id, ...nodes.map(({ html, failureSummary }) => html + ' ' + failureSummary)]))";
        let found = tab.eval(run).await;
        assert_eq!(found, json!([]), "{state}, {scheme}: {found:#}");
    }
}

#[tokio::test]
#[ignore = "needs chromium and node"]
async fn axe_finds_nothing_serious() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let visitor = browser.visitor().await;
    let tab = visitor.open(&server.http()).await;
    tab.until("document.querySelector('#username')").await;
    assert_accessible(&tab, "name").await;
    let tab = enter(&visitor, &server, "r", "Ada").await;
    tab.until("document.getElementById('preview').videoWidth > 0").await;
    assert_accessible(&tab, "lobby").await;
    join(&tab).await;
    until_on_stage(&tab, &["Ada (you)"]).await;
    assert_accessible(&tab, "alone").await;

    let mut bob = Client::join(&server, "r", "Bob").await;
    bob.say(json!({"type": "userUpdate", "user": {"joined": true, "raisedHand": true}})).await;
    let mut cyd = Client::join(&server, "r", "Cyd").await;
    let screen = json!({"joined": true, "tracks": {"screenShareEnabled": true}});
    cyd.say(json!({"type": "userUpdate", "user": screen})).await;
    tab.until("document.querySelectorAll('#people li').length === 3").await;
    assert_accessible(&tab, "together").await;
    tab.press("p").await;
    tab.until("document.getElementById('people-panel').checkVisibility()").await;
    assert_accessible(&tab, "people").await;
    tab.press("c").await;
    tab.until("document.getElementById('chat-panel').checkVisibility()").await;
    bob.say(json!({"type": "chat", "message": "See https://a.example."})).await;
    tab.fill("#line", "Mine").await;
    tab.press("Enter").await;
    tab.until(
        "document.querySelectorAll('#lines .text').length >= 2 && !document.querySelector('#lines .waiting')",
    )
    .await;
    assert_accessible(&tab, "chat").await;
    for (opener, dialog) in [("devices", "devices"), ("shortcuts", "shortcuts"), ("report", "report")] {
        tab.click("[popovertarget=menu]").await;
        tab.until("document.querySelector('#menu:popover-open')").await;
        assert_accessible(&tab, "menu").await;
        tab.click(&format!("#menu [data-action={opener}]")).await;
        tab.until(&format!("document.getElementById('{dialog}').open")).await;
        assert_accessible(&tab, dialog).await;
        tab.press("Escape").await;
        tab.until(&format!("!document.getElementById('{dialog}').open")).await;
    }
    tab.click("[data-action=invite]").await;
    tab.until("document.getElementById('invite').open").await;
    assert_accessible(&tab, "invite").await;
    tab.press("Escape").await;
    tab.click("[data-action=leave]").await;
    tab.until("document.body.dataset.view === 'left'").await;
    assert_accessible(&tab, "left").await;
    tab.go(&server.http()).await;
    tab.until("document.getElementById('recent')?.checkVisibility() && document.getElementById('who').checkVisibility()")
        .await;
    assert_accessible(&tab, "start").await;
    tab.go(&format!("{}/a/b/c", server.http())).await;
    tab.until("document.querySelector('h1')?.textContent === 'Page not found'").await;
    tab.until("!document.documentElement.classList.contains('untranslated')").await;
    assert_accessible(&tab, "not found").await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn page_is_usable_at_twice_its_size() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let tab = enter(&browser.visitor().await, &server, "r", "Ada").await;
    // A window of 1280 by 800 at 200 % has this many of its own pixels.
    let size = json!({"width": 640, "height": 400, "deviceScaleFactor": 2, "mobile": false});
    tab.call("Emulation.setDeviceMetricsOverride", size).await;
    let reaches = |selector: &str| {
        format!(
            "[...document.querySelectorAll({})].filter(e => e.checkVisibility()).every(e => {{
                e.scrollIntoView({{block: 'nearest'}});
                const {{ left, right, top, bottom }} = e.getBoundingClientRect();
                return left > -1 && right < 641 && top > -1 && bottom < 401;
            }})",
            json!(selector)
        )
    };
    tab.until(&reaches(".lobby button, .lobby select, .lobby a")).await;
    tab.eval("document.getElementById('join').focus()").await;
    join(&tab).await;
    tab.until(&reaches(".controls button, .bar button")).await;
    tab.press("c").await;
    tab.until(&reaches("#chat-panel button, #line")).await;
    tab.press("Escape").await;
    tab.press("?").await;
    tab.until(&reaches("#shortcuts button, #shortcuts input")).await;
    assert_eq!(tab.eval("document.documentElement.scrollWidth").await, 640);
    tab.assert_quiet().await;
}
