//! The npm packages `partysocket` and `partytracks` over the embedded media server, in a real browser.
//!
//! `tests/clients/client.js` is a page made of them, as the stock client is; the test bundles it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::browser::{Browser, Tab};
use crate::harness::{Person, TestServer};
use crate::media::{until_live, watched};

/// The page, bundled into a folder that a server can serve.
fn bundle() -> TempDir {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let bundler = source.join("node_modules/esbuild/bin/esbuild");
    assert!(bundler.is_file(), "esbuild is missing: run npm ci in tests/clients");
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(source.join("room.html"), dir.path().join("room.html")).unwrap();
    let mut node = Command::new("node");
    node.arg(bundler).arg(source.join("client.js")).args(["--bundle", "--format=esm", "--log-level=warning"]);
    node.arg(format!("--outfile={}", dir.path().join("room.js").display()));
    assert!(node.status().expect("node cannot be started").success(), "the page cannot be bundled");
    dir
}

/// A member of the room that plays the tracks of all others by their names.
struct Member {
    name: &'static str,
    tab: Tab,
}

impl Member {
    async fn join(browser: &Browser, server: &TestServer, name: &'static str) -> Self {
        let person = Person::log_in(server, name).await;
        let tab = watched(&browser.visitor().await, "about:blank").await;
        let (cookie, value) = person.cookie().split_once('=').unwrap();
        tab.call("Network.setCookie", json!({"name": cookie, "value": value, "url": server.http()})).await;
        let member = Self { name, tab };
        member.enter(server).await;
        member
    }

    async fn enter(&self, server: &TestServer) {
        self.tab.go(&format!("{}/r", server.http())).await;
    }

    /// JavaScript for the element that plays a member's video.
    fn video(name: &str) -> String {
        format!("document.querySelector({})", json!(format!("video[data-owner={name}]")))
    }

    /// Waits for some more frames to be sent in this layer.
    async fn until_sends_more(&self, rid: &str) {
        let before = self.tab.eval(&format!("probe.sent('{rid}')")).await.as_u64().unwrap();
        self.tab.until(&format!("probe.sent('{rid}') > {}", before + 15)).await;
    }

    /// Waits until a member's video arrives here in this width.
    async fn until_width(&self, of: &str, width: &Value) {
        self.tab.until(&format!("probe.width({}) === {width}", Self::video(of))).await;
    }
}

/// Waits until all members receive each other's audio and video, and nothing else.
async fn until_all_live(people: &[&Member]) {
    let others = |own: &Member| -> Vec<String> {
        people.iter().filter(|other| other.name != own.name).map(|other| Member::video(other.name)).collect()
    };
    let seen: Vec<_> = people.iter().map(|own| others(own)).collect();
    let all: Vec<_> =
        people.iter().zip(&seen).map(|(own, seen)| (&own.tab, seen.as_slice(), seen.len())).collect();
    until_live(&all).await;
    for (tab, _, count) in all {
        tab.until(&format!("document.querySelectorAll('video').length === {count}")).await;
    }
}

#[tokio::test]
#[ignore = "needs chromium and node"]
async fn stock_client_packages_exchange_audio_and_video() {
    let page = bundle();
    let browser = Browser::start().await;
    let server = TestServer::with(|config| config.http.static_dir.0 = Some(page.path().to_owned())).await;
    let ada = Member::join(&browser, &server, "Ada").await;
    let bob = Member::join(&browser, &server, "Bob").await;
    until_all_live(&[&ada, &bob]).await;

    // Ada chooses between the layers of Bob's video.
    let (large, small) = (json!(640), json!(320));
    ada.until_width("Bob", &large).await;
    for _ in 0..2 {
        ada.tab.eval("client.prefer('b')").await;
        ada.until_width("Bob", &small).await;
        // By choice: the other layer is available all the time.
        bob.until_sends_more("a").await;
        assert_eq!(ada.tab.eval(&format!("probe.width({})", Member::video("Bob"))).await, small);
        ada.tab.eval("client.prefer('a')").await;
        ada.until_width("Bob", &large).await;
    }
    until_all_live(&[&ada, &bob]).await;
    // Bob still has the layer that he chose.
    bob.until_width("Ada", &large).await;

    // Bob mutes and unmutes.
    bob.tab.eval("client.mic.stopBroadcasting()").await;
    ada.tab.eval("probe.mark()").await;
    ada.tab.until("probe.silent === 1").await;
    bob.tab.eval("client.mic.startBroadcasting()").await;
    until_all_live(&[&ada, &bob]).await;

    // He leaves and returns; a third joins.
    bob.tab.eval("client.leave()").await;
    until_all_live(&[&ada]).await;
    bob.enter(&server).await;
    until_all_live(&[&ada, &bob]).await;
    let cy = Member::join(&browser, &server, "Cy").await;
    until_all_live(&[&ada, &bob, &cy]).await;
    cy.tab.eval("client.leave()").await;
    until_all_live(&[&ada, &bob]).await;

    // The server restarts.
    let address = server.addresses().http;
    let _server = server.stop().await.start_with(|config| config.http.listen = address).await;
    until_all_live(&[&ada, &bob]).await;
}
