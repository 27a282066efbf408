//! Our own page without failures, in a real browser, and its files in `static/`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use satsuma::config::MediaUpstream;
use serde_json::{Value, json};

use crate::browser::{Browser, Tab, Visitor};
use crate::client::Client;
use crate::cloud::Cloud;
use crate::harness::{Reach, TestServer};

/// A name with markup.
const MARKUP: &str = "<img src=x onerror=\"document.title='owned'\">";

/// Opens a room's lobby under a name.
pub async fn enter(visitor: &Visitor, server: &impl Reach, room: &str, name: &str) -> Tab {
    let tab = visitor.open(&format!("http://{}/{room}", server.reached_at().http)).await;
    tab.fill("#username", name).await;
    tab.press("Enter").await;
    tab.until("document.querySelector('#join:enabled')").await;
    tab
}

/// Joins a room under a name.
pub async fn meet(visitor: &Visitor, server: &impl Reach, room: &str, name: &str) -> Tab {
    let tab = enter(visitor, server, room, name).await;
    join(&tab).await;
    tab
}

/// Joins from the lobby. By the key, since the lobby's layout still changes while devices are found.
pub async fn join(tab: &Tab) {
    tab.until("document.activeElement === document.querySelector('#join:enabled')").await;
    tab.press("Enter").await;
    tab.until("document.body.dataset.view === 'room'").await;
}

/// JavaScript for the tile of this name.
pub fn tile(name: &str) -> String {
    let name = json!(name);
    format!(
        "[...document.querySelectorAll('.tile')].find(t => t.querySelector('.name').textContent === {name})"
    )
}

/// Waits until the stage shows exactly these, in any order.
#[track_caller]
pub fn until_on_stage(tab: &Tab, names: &[&str]) -> impl Future<Output = ()> {
    let mut names = names.to_vec();
    names.sort_unstable();
    tab.until(&format!(
        "JSON.stringify([...document.querySelectorAll('.tile .name')].map(n => n.textContent).sort()) === {}",
        json!(json!(names).to_string())
    ))
}

/// Waits until a control is pressed, or is not.
#[track_caller]
pub fn until_pressed(tab: &Tab, action: &str, pressed: &str) -> impl Future<Output = ()> {
    tab.until(&format!("document.querySelector('.controls [data-action={action}][aria-pressed={pressed}]')"))
}

fn is_shown(tile: &str, part: &str) -> String {
    format!("({tile})?.querySelector('{part}:not([hidden])')")
}

async fn members(server: &TestServer, room: &str) -> usize {
    let view = server.admin_get(&format!("/admin/rooms/{room}")).await.json();
    view["members"].as_array().unwrap().len()
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn two_browsers_meet_and_chat() {
    let browser = Browser::start().await;
    let cloud = Cloud::start().await;
    let server = TestServer::with(|config| cloud.configure(config)).await;
    let (ada_visits, bob_visits) = (browser.visitor().await, browser.visitor().await);
    let ada = meet(&ada_visits, &server, "r", "Ada").await;
    let bob = enter(&bob_visits, &server, "r", "Bob").await;
    bob.until("document.querySelector('#lobby-who').textContent === 'Ada is here'").await;
    until_on_stage(&ada, &["Ada (you)"]).await;
    join(&bob).await;
    until_on_stage(&ada, &["Ada (you)", "Bob"]).await;
    until_on_stage(&bob, &["Ada", "Bob (you)"]).await;
    // Ada sees herself, and her audio and video are offered.
    ada.until(&format!("({}).classList.contains('picture')", tile("Ada (you)"))).await;
    cloud.until_seen("/tracks/new", 1).await;
    let offer = cloud.seen_at("/tracks/new")[0].json();
    assert_eq!(offer["sessionDescription"]["type"], "offer");
    assert!(offer["tracks"].as_array().unwrap().iter().all(|track| track["location"] == "local"), "{offer}");

    // The chat.
    bob.click(".controls [data-action=chat]").await;
    bob.fill("#line", "Hello <b>Ada</b>").await;
    bob.press("Enter").await;
    bob.until("document.querySelector('#lines li:not(.waiting) .text')").await;
    ada.until("document.querySelector('.controls [data-action=chat]').dataset.count === '1'").await;
    ada.click(".controls [data-action=chat]").await;
    ada.until("document.querySelector('#lines .text').textContent === 'Hello <b>Ada</b>'").await;
    ada.until("document.querySelector('#lines .from').textContent === 'Bob'").await;

    // Bob reacts.
    bob.click(".controls [popovertarget=reactions]").await;
    bob.click("#reactions [aria-label=Heart]").await;
    for (tab, name) in [(&ada, "Bob"), (&bob, "Bob (you)")] {
        tab.until(&format!("({})?.querySelector('.reaction')?.textContent === '❤️'", tile(name))).await;
    }

    // A direct line for Bob, from the list of people.
    ada.click(".controls [data-action=people]").await;
    ada.click("#people [aria-label='Write to Bob']").await;
    ada.fill("#line", "only you").await;
    ada.click("#composer .primary").await;
    bob.until("document.querySelector('#lines .direct .from')?.textContent === 'Ada to you alone'").await;

    // Ada mutes Bob.
    until_pressed(&bob, "microphone", "true").await;
    ada.click(".controls [data-action=people]").await;
    ada.click("#people [aria-label='Mute Bob']").await;
    until_pressed(&bob, "microphone", "false").await;
    ada.until(&is_shown(&tile("Bob"), ".muted")).await;
    bob.click(".controls [data-action=microphone]").await;
    ada.until(&format!("!{}", is_shown(&tile("Bob"), ".muted"))).await;

    // Bob raises a hand and switches his camera off.
    bob.click(".controls [data-action=hand]").await;
    ada.until(&is_shown(&tile("Bob"), ".hand")).await;
    bob.click(".controls [data-action=hand]").await;
    ada.until(&format!("!{}", is_shown(&tile("Bob"), ".hand"))).await;
    bob.click(".controls [data-action=camera]").await;
    bob.until(&format!("!({}).classList.contains('picture')", tile("Bob (you)"))).await;

    // Bob reloads, and leaves no second member.
    bob.reload().await;
    // His page sent `userLeft`; he was not timed out.
    server.until_metric(r#"satsuma_messages_total{type="userLeft"}"#, 1.0).await;
    bob.until("document.querySelector('#join:enabled')").await;
    until_on_stage(&ada, &["Ada (you)"]).await;
    join(&bob).await;
    until_on_stage(&ada, &["Ada (you)", "Bob"]).await;
    assert_eq!(members(&server, "r").await, 2);
    // The messages to all are there again, with its author; what was written to one alone is not.
    let lines = "[...document.querySelectorAll('#lines li')].map(line => line.querySelector('.from').textContent + ': ' + line.querySelector('.text').textContent)";
    let before = bob.eval(lines).await;
    assert!(before.as_array().unwrap().contains(&json!("Bob: Hello <b>Ada</b>")), "{before}");
    ada.assert_quiet().await;
    bob.assert_quiet().await;

    // The server restarts, and both reconnect.
    for tab in [&ada, &bob] {
        tab.eval("window.away = 0; new MutationObserver(() => { if (!document.getElementById('reconnecting').hidden) window.away = 1 }).observe(document.getElementById('reconnecting'), {attributes: true})").await;
    }
    bob.click(".controls [data-action=hand]").await;
    ada.until(&is_shown(&tile("Bob"), ".hand")).await;
    let meeting = server.admin_get("/admin/rooms/r").await.json()["meetingId"].clone();
    let address = server.addresses().http;
    let server = server.stop().await.start_with(|config| config.http.listen = address).await;
    for tab in [&ada, &bob] {
        tab.until("window.away === 1 && document.getElementById('reconnecting').hidden").await;
    }
    bob.click(".controls [data-action=chat]").await;
    bob.fill("#line", "back again").await;
    bob.press("Enter").await;
    ada.until("[...document.querySelectorAll('#lines .text')].at(-1).textContent === 'back again'").await;
    let again = bob.eval(&format!("JSON.stringify(({lines}).slice(0, -1))")).await;
    assert_eq!(again, before.to_string(), "the history that comes over a reconnect shows nothing twice");
    until_on_stage(&ada, &["Ada (you)", "Bob"]).await;
    ada.until(&is_shown(&tile("Bob"), ".hand")).await;
    assert_eq!(server.admin_get("/admin/rooms/r").await.json()["meetingId"], meeting);

    // Bob leaves, and reports no trouble.
    bob.click("[data-action=leave]").await;
    until_on_stage(&ada, &["Ada (you)"]).await;
    bob.click_text("#quality button", "No, everything worked").await;
    bob.until("location.pathname === '/' && document.getElementById('name').textContent === 'Bob'").await;
    let days = server.admin_get("/admin/feedback").await.json();
    assert_eq!(days["days"][0]["callsWithoutIssues"], 1, "{days}");
    for tab in [&ada, &bob] {
        // The browser itself reports a refused connection while no server listens, or an aborted request;
        // and a page that queries the refusal of its socket may be answered by a server that accepts it.
        let of_restart = |complaint: &String| {
            ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET"].iter().any(|error| complaint.contains(error))
                || complaint.starts_with("404: ") && complaint.ends_with("&why")
        };
        let complaints: Vec<_> = tab.complaints().into_iter().filter(|c| !of_restart(c)).collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn names_with_markup_are_shown_as_text() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let (ada_visits, eve_visits) = (browser.visitor().await, browser.visitor().await);
    let room = "%3Cimg%20src%3Dx%3E";
    let eve = meet(&eve_visits, &server, room, MARKUP).await;
    let ada = enter(&ada_visits, &server, room, "Ada").await;
    ada.until(&format!(
        "document.querySelector('#lobby-who').textContent === {}",
        json!(format!("{MARKUP} is here"))
    ))
    .await;
    join(&ada).await;
    until_on_stage(&ada, &["Ada (you)", MARKUP]).await;
    eve.click(".controls [data-action=chat]").await;
    eve.fill("#line", MARKUP).await;
    eve.press("Enter").await;
    let notices = "[...document.querySelectorAll('#notices p')].map(p => p.textContent)";
    ada.until(&format!("{notices}.includes({})", json!(format!("{MARKUP}: {MARKUP}")))).await;
    ada.click(".controls [data-action=people]").await;
    ada.click(&format!("#people li:first-child [aria-label={}]", json!(format!("Write to {MARKUP}")))).await;
    ada.until("document.querySelector('#lines .text')").await;
    for tab in [&ada, &eve] {
        assert_eq!(tab.eval("document.querySelectorAll('[src=x], [onerror]').length").await, 0);
        assert_eq!(tab.eval("document.title").await, "<img src=x> – Satsuma");
        tab.assert_quiet().await;
    }
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn page_is_usable_by_keyboard() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let tab = browser.visitor().await.open(&server.http()).await;
    let focus_is = |selector: &str| format!("document.activeElement?.matches({})", json!(selector));
    let write = async |text: &str| drop(tab.call("Input.insertText", json!({"text": text})).await);
    tab.until(&focus_is("#username")).await;
    write("Ada").await;
    tab.press("Enter").await;
    tab.until(&focus_is("#room")).await;
    write("by keyboard").await;
    tab.press("Enter").await;
    tab.until("location.pathname === '/by-keyboard'").await;
    tab.until(&focus_is("#join:enabled")).await;
    tab.press("Enter").await;
    until_on_stage(&tab, &["Ada (you)"]).await;

    tab.press("h").await;
    until_pressed(&tab, "hand", "true").await;
    for (key, action) in [("m", "microphone"), ("v", "camera")] {
        until_pressed(&tab, action, "true").await;
        tab.press(key).await;
        until_pressed(&tab, action, "false").await;
    }
    tab.press("c").await;
    tab.until(&focus_is("#line")).await;
    // Letters are text in here, and no shortcuts.
    write("h").await;
    tab.press("Enter").await;
    tab.until("document.querySelector('#lines li:not(.waiting) .text')?.textContent === 'h'").await;
    until_pressed(&tab, "hand", "true").await;
    tab.press("Escape").await;
    tab.until(&focus_is(".controls [data-action=chat]")).await;
    // Every control is reachable from there, each with a name and a visible focus.
    for _ in 0..2 {
        tab.press("Tab").await;
        tab.until("document.activeElement.matches(':focus-visible') && document.activeElement.ariaLabel")
            .await;
        assert_ne!(tab.eval("getComputedStyle(document.activeElement).outlineStyle").await, "none");
    }
    tab.until(&focus_is("[data-action=leave]")).await;
    tab.press("?").await;
    tab.until("document.getElementById('shortcuts').open").await;
    tab.press("Escape").await;
    tab.until("!document.getElementById('shortcuts').open").await;
    tab.until(&focus_is("[data-action=leave]")).await;
    tab.press("Enter").await;
    tab.until(&focus_is("#return")).await;
    tab.assert_quiet().await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn denied_camera_does_not_prevent_joining() {
    let browser = Browser::start().await;
    // The configured media service is unreachable.
    let server = TestServer::with(|config| config.calls.upstream = MediaUpstream::Cloudflare).await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    bob.say(json!({"type": "userUpdate", "user": {"joined": true}})).await;
    let tab = browser.visitor().await.open(&format!("{}/set-username?return-url=/r", server.http())).await;
    let refuse =
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'))";
    tab.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": refuse})).await;
    tab.fill("#username", "Ada").await;
    tab.press("Enter").await;
    tab.until(
        "document.querySelector('#preview-note')?.textContent.startsWith('The browser blocks the camera.')",
    )
    .await;
    tab.until("!document.getElementById('lobby-problem').hidden").await;
    join(&tab).await;
    until_on_stage(&tab, &["Ada (you)", "Bob"]).await;
    let seen = |user: &Value| user["tracks"]["audioUnavailable"] == true && user["joined"] == true;
    bob.until_state(|state| state["users"].as_array().unwrap().iter().any(seen)).await;
    tab.click(".controls [data-action=camera]").await;
    tab.until("document.querySelector('#notices').textContent.includes('blocks the camera')").await;
    // So none is requested.
    assert!(!tab.requests().iter().any(|url| url.contains("/partytracks/")), "{:?}", tab.requests());
    tab.assert_quiet().await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn bug_report_is_sent_from_the_room() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let tab = meet(&browser.visitor().await, &server, "r", "Ada").await;
    tab.click("[popovertarget=menu]").await;
    tab.click("#menu [data-action=report]").await;
    tab.fill("#description", "It is <b>dark</b>.").await;
    tab.click_text("#report-form button", "Send").await;
    tab.click_text("#report-thanks button", "Close").await;
    tab.until("!document.getElementById('report').open").await;
    let reports = server.admin_get("/admin/reports").await.json();
    let report = &reports["reports"][0];
    assert_eq!(
        (&report["description"], &report["room"], &report["name"]),
        (&json!("It is <b>dark</b>."), &json!("r"), &json!("Ada"))
    );
    tab.assert_quiet().await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn ai_is_invited_and_removed_from_the_page() {
    let browser = Browser::start().await;
    let cloud = Cloud::start().await;
    let server = TestServer::with(|config| cloud.configure(config)).await;
    let tab = meet(&browser.visitor().await, &server, "r", "Ada").await;
    tab.click("[popovertarget=menu]").await;
    tab.click_text("#menu [data-action=ai]", "Invite an AI").await;
    until_on_stage(&tab, &["AI", "Ada (you)"]).await;
    tab.click(".controls [data-action=people]").await;
    tab.until("document.querySelectorAll('#people li').length === 2").await;
    assert_eq!(tab.eval("document.querySelector('#people [aria-label=\"Mute AI\"]').hidden").await, true);
    tab.click("[popovertarget=menu]").await;
    tab.until("document.querySelector('#menu [data-action=ai-ear]:not([hidden])')").await;
    tab.click_text("#menu [data-action=ai]", "Remove the AI").await;
    until_on_stage(&tab, &["Ada (you)"]).await;
    tab.until("document.querySelector('#menu [data-action=ai-ear][hidden]')").await;

    let server = TestServer::with(|config| {
        cloud.configure(config);
        config.ai.api_token.0 = None;
    })
    .await;
    let tab = meet(&browser.visitor().await, &server, "r", "Ada").await;
    tab.click("[popovertarget=menu]").await;
    tab.until("document.querySelector('#menu:popover-open [data-action=ai][hidden]')").await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn page_fits_small_and_large_screens() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page");
    fs::create_dir_all(&dir).unwrap();
    let sizes = [(360, 740), (1024, 768), (1600, 900)];
    let tab = enter(&browser.visitor().await, &server, "r", "Ada").await;
    tab.until("document.getElementById('preview').videoWidth > 0").await;
    for (width, height) in sizes {
        fs::write(dir.join(format!("lobby-{width}.png")), tab.screenshot(width, height).await).unwrap();
    }
    join(&tab).await;
    let mut crowd = Vec::new();
    for people in [1, 2, 9, 49, 60] {
        while crowd.len() + 1 < people {
            let mut member = Client::join(&server, "r", &format!("Member {}", crowd.len())).await;
            member.say(json!({"type": "userUpdate", "user": {"joined": true}})).await;
            crowd.push(member);
        }
        let shown = people.min(49);
        tab.until(&format!("document.querySelectorAll('.tile').length === {shown}")).await;
        for (width, height) in sizes {
            let size =
                json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
            tab.call("Emulation.setDeviceMetricsOverride", size).await;
            let fits = format!(
                "(() => {{
                    const inside = e => {{ const r = e.getBoundingClientRect(); return r.left >= 0 && r.right <= {width} && r.bottom <= {height} }};
                    const all = [...document.querySelectorAll('.tile')].map(t => t.getBoundingClientRect());
                    const tiles = [...document.querySelectorAll('.tile')].filter(t => !t.closest('.floating')).map(t => t.getBoundingClientRect());
                    const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
                    return document.documentElement.scrollWidth <= {width}
                        && [...document.querySelectorAll('.controls button')].filter(b => b.offsetParent).every(inside)
                        && all.every(t => t.width >= 100 && t.height >= 56 && t.left >= 0 && t.right <= {width})
                        && tiles.every((a, i) => tiles.every((b, j) => i === j || apart(a, b)));
                }})()"
            );
            tab.until(&fits).await;
            fs::write(dir.join(format!("room-{people}-{width}.png")), tab.screenshot(width, height).await)
                .unwrap();
        }
    }
    tab.until("document.getElementById('others').textContent === '11 more, not shown'").await;
    tab.assert_quiet().await;
}

/// All files of the page, by their paths in `static/`.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn page_files_and_references_match() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("static");
    let mut all = Vec::new();
    files(&root, &mut all);
    let mut named = BTreeSet::new();
    for file in &all {
        let text = fs::read_to_string(file).unwrap();
        let quoted = text.split(['"', '\'']).filter(|word| !word.contains(char::is_whitespace));
        for word in quoted {
            if let Some(path) = word.strip_prefix("/static/") {
                named.insert(root.join(path));
            } else if word.ends_with(".js") && word.starts_with('.') {
                let mut path = file.parent().unwrap().to_owned();
                for part in word.split('/') {
                    match part {
                        "." => {}
                        ".." => drop(path.pop()),
                        part => path.push(part),
                    }
                }
                named.insert(path);
            }
        }
    }
    let pages = all.iter().filter(|file| file.extension().is_some_and(|kind| kind == "html"));
    named.extend(pages.cloned());
    named.insert(root.join("site.webmanifest"));
    // The server chooses one of these by the browser's languages.
    named.extend(all.iter().filter(|file| file.starts_with(root.join("texts"))).cloned());
    assert_eq!(named, all.into_iter().collect());
}

#[test]
fn pages_contain_nothing_their_policy_forbids() {
    let mut all = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("static"), &mut all);
    for file in all {
        let text = fs::read_to_string(&file).unwrap();
        for word in [
            " style=",
            "<style",
            "<script>",
            " onclick=",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!text.contains(word), "{}: {word}", file.display());
        }
    }
}

#[test]
fn page_is_small_to_transfer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("static");
    let mut all = Vec::new();
    files(&root, &mut all);
    let mut total = 0;
    for file in all {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap();
        // Only one language is loaded, and nothing of the operators' console.
        if name.contains("console") || name.starts_with("texts/") && name != "texts/en.json" {
            continue;
        }
        let mut packed = brotli::CompressorWriter::new(Vec::new(), 4096, 9, 22);
        packed.write_all(&fs::read(file).unwrap()).unwrap();
        total += packed.into_inner().len();
    }
    assert!((50_000..150_000).contains(&total), "{total} bytes");
}
