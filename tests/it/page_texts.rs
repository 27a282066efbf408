//! The page's words: one table for each language, chosen by the server, complete, and shown everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use reqwest::header::{ACCEPT_LANGUAGE, IF_NONE_MATCH};
use serde_json::{Value, json};

use crate::browser::{Browser, Tab, Visitor};
use crate::harness::{TestServer, answer};
use crate::page::join;

type Table = BTreeMap<String, Value>;

fn page_files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("static")
}

fn table(language: &str) -> Table {
    let path = page_files().join(format!("texts/{language}.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The texts of an entry: one, or one for each plural category.
fn forms(entry: &Value) -> Vec<&str> {
    match entry {
        Value::String(text) => vec![text],
        Value::Object(forms) => forms.values().map(|text| text.as_str().unwrap()).collect(),
        other => panic!("neither a text nor plural forms: {other}"),
    }
}

/// The names of the placeholders of an entry. One that tells a count may say it in a word in one of its forms.
fn placeholders(entry: &Value) -> BTreeSet<&str> {
    let names = forms(entry).into_iter().flat_map(|text| text.split('{').skip(1));
    names.map(|rest| rest.split_once('}').expect("an unclosed placeholder").0).collect()
}

/// Texts of a kind of file, joined.
fn sources(kind: &str) -> String {
    let mut pending = vec![page_files()];
    let mut text = String::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|end| end == kind)
            && !path.to_str().unwrap().contains("console")
        {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    text
}

#[test]
fn languages_have_the_same_keys_and_placeholders() {
    let english = table("en");
    let mut languages = 0;
    for file in page_files().join("texts").read_dir().unwrap() {
        let language = file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        let other = table(&language);
        languages += 1;
        assert_eq!(other["language"], language);
        assert!(["ltr", "rtl"].contains(&other["direction"].as_str().unwrap()));
        assert_eq!(other.keys().collect::<Vec<_>>(), english.keys().collect::<Vec<_>>(), "{language}");
        for (key, entry) in &other {
            assert_eq!(placeholders(entry), placeholders(&english[key]), "{language}: {key}");
            assert!(entry.is_string() || entry.get("other").is_some(), "{language}: {key} has no `other`");
            assert!(forms(entry).iter().all(|text| !text.trim().is_empty()), "{language}: {key}");
        }
    }
    assert!(languages >= 2);
}

#[test]
fn documents_show_english_texts_and_all_texts_are_used() {
    let english = table("en");
    let (documents, modules) = (sources("html"), sources("js"));
    let mut used = BTreeSet::from(["language".to_owned(), "direction".to_owned()]);
    for (mark, attribute) in [
        ("data-text", ""),
        ("data-label", "aria-label"),
        ("data-title", "title"),
        ("data-placeholder", "placeholder"),
        ("data-alt", "alt"),
    ] {
        for (before, rest) in
            documents.match_indices(&format!(" {mark}=\"")).map(|(at, _)| documents.split_at(at))
        {
            let key = rest.split('"').nth(1).unwrap();
            let text = english.get(key).and_then(Value::as_str).unwrap_or_else(|| panic!("no text {key}"));
            used.insert(key.to_owned());
            let tag = &before[before.rfind('<').unwrap()..];
            let (attributes, content) = rest.split_once('>').unwrap();
            let shown = if attribute.is_empty() {
                // The text in the place of a value is in an element of its own.
                content.split('<').next().unwrap()
            } else {
                let named = format!(" {attribute}=\"");
                let value = [tag, attributes].iter().find_map(|part| part.split_once(&named));
                value.unwrap_or_else(|| panic!("{key}: no {attribute}")).1.split('"').next().unwrap()
            };
            assert_eq!(shown, text.split('{').next().unwrap(), "{key}");
        }
    }
    for key in english.keys() {
        let is_made = ["refusal.", "camera.", "microphone."].iter().any(|start| key.starts_with(start));
        let is_used = used.contains(key) || is_made || modules.contains(&format!("'{key}'"));
        // A link that the server adds to a document.
        assert!(is_used || key == "signIn", "nothing shows {key}");
    }
}

#[tokio::test]
async fn server_chooses_the_language() {
    let server = TestServer::start().await;
    for (accepted, language) in [
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("xx, de;q=0.5", "de"),
        ("de;q=0.5, en-GB", "en"),
        ("xx", "en"),
        ("../secret, %2e%2e/de", "en"),
        ("", "en"),
    ] {
        let found = answer(server.get("/api/texts").header(ACCEPT_LANGUAGE, accepted)).await;
        assert_eq!((found.status, found.header("content-language")), (200, language), "{accepted}");
        assert_eq!(found.json()["language"], language);
        assert!(found.header("vary").contains("accept-language"));
        let again = server.get("/api/texts").header(ACCEPT_LANGUAGE, accepted);
        let again = answer(again.header(IF_NONE_MATCH, found.header("etag"))).await;
        assert_eq!(again.status, 304);
    }
}

#[tokio::test]
async fn refusals_have_a_code() {
    let server = TestServer::start().await;
    let refused = answer(server.get("/api/rooms/r/settings")).await;
    assert_eq!((refused.status, refused.header("error-code")), (401, "no_identity"));
    for (path, field, typed, code) in [
        ("/set-username", "username", "a\u{202e}b", "invalid_name"),
        ("/?index", "room", "a\u{202e}b", "invalid_room_name"),
        ("/?index", "room", "..", "no_page"),
        ("/?index", "room", "static", "name_reserved"),
        ("/?index", "name", "r", "invalid_form"),
    ] {
        let refused = answer(server.post_form(path, &[(field, typed)])).await;
        assert_eq!((refused.status, refused.header("error-code")), (400, code), "{typed}");
    }
}

/// Opens a room's lobby in a language, by way of the form for a name.
async fn enter_in(visitor: &Visitor, server: &TestServer, language: &str) -> Tab {
    let tab = visitor.open("about:blank").await;
    let agent = tab.eval("navigator.userAgent").await;
    tab.call("Network.setUserAgentOverride", json!({"userAgent": agent, "acceptLanguage": language})).await;
    tab.go(&format!("{}/r", server.http())).await;
    tab
}

/// JavaScript for all texts of the document: contents and attributes, those of hidden elements as well.
const SHOWN: &str = "(() => {
    const shown = [document.title];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode;
        if (node.nodeType === Node.TEXT_NODE) {
            if (!node.parentElement.closest('noscript, kbd')) shown.push(node.data.trim());
        } else {
            for (const name of ['aria-label', 'title', 'placeholder']) shown.push(node.getAttribute(name) ?? '');
        }
    }
    return shown;
})()";

/// Asserts that a document shows nothing in English that German has another text for.
async fn assert_german(tab: &Tab) {
    let (english, german) = (table("en"), table("de"));
    let german: BTreeSet<_> = german.values().flat_map(forms).collect();
    let english: BTreeSet<_> =
        english.values().flat_map(forms).filter(|text| !german.contains(text)).collect();
    assert_eq!(tab.eval("document.documentElement.lang").await, "de");
    let shown = tab.eval(SHOWN).await;
    let shown: Vec<_> = shown.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let wrong: Vec<_> = shown.iter().filter(|text| english.contains(*text)).collect();
    assert!(wrong.is_empty() && shown.iter().any(|text| german.contains(text)), "{wrong:?} in {shown:?}");
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn page_speaks_the_language_of_its_reader() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let visitor = browser.visitor().await;
    let tab = enter_in(&visitor, &server, "de-DE,de,en").await;
    tab.until("document.querySelector('h1')?.textContent === 'Willkommen'").await;
    assert_german(&tab).await;
    tab.fill("#username", "Ada").await;
    tab.press("Enter").await;
    tab.until("document.querySelector('#lobby-who')?.textContent === 'Noch ist niemand hier'").await;
    tab.until("document.querySelector('#join:enabled')").await;
    assert_german(&tab).await;
    join(&tab).await;
    tab.click(".controls [data-action=people]").await;
    tab.until("document.querySelector('#people-title').textContent === 'Personen (1)'").await;
    tab.until("document.querySelector('.tile .name')?.textContent === 'Ada (du)'").await;
    assert_german(&tab).await;
    tab.click("[data-action=leave]").await;
    tab.until("document.querySelector('#left-title').textContent === 'Du hast den Raum verlassen'").await;
    tab.go(&server.http()).await;
    tab.until("document.getElementById('who')?.innerText.startsWith('Du bist Ada · ')").await;
    assert_german(&tab).await;
    tab.assert_quiet().await;
    tab.go(&format!("{}/a/b/c", server.http())).await;
    tab.until("document.querySelector('h1')?.textContent === 'Seite nicht gefunden'").await;
    tab.until("getComputedStyle(document.body).opacity === '1'").await;
    assert_german(&tab).await;

    // Refusals, in place and as pages.
    let problem = |text: &str| format!("document.querySelector('#problem')?.textContent === '{text}'");
    tab.go(&format!("{}/set-username", server.http())).await;
    tab.fill("#username", "a\u{202e}b").await;
    tab.press("Enter").await;
    tab.until(&problem("Ein Name hat 1 bis 64 Zeichen, die alle sichtbar sind.")).await;
    tab.go(&server.http()).await;
    tab.fill("#room", "static").await;
    tab.press("Enter").await;
    tab.until(&problem("Diesen Namen braucht der Server selbst. Wähle einen anderen.")).await;
    tab.go(&format!("{}/a%00b", server.http())).await;
    tab.until(&problem("Der Name eines Raums hat 1 bis 128 Zeichen, die alle sichtbar sind.")).await;
    tab.until("getComputedStyle(document.body).opacity === '1'").await;
    assert_german(&tab).await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn language_from_right_to_left_is_one_file() {
    let dir = tempfile::tempdir().unwrap();
    copy(&page_files(), dir.path());
    let mut hebrew = table("en");
    hebrew.insert("language".to_owned(), json!("he"));
    hebrew.insert("direction".to_owned(), json!("rtl"));
    hebrew.insert("lobby.join".to_owned(), json!("הצטרפות"));
    fs::write(dir.path().join("texts/he.json"), serde_json::to_string(&hebrew).unwrap()).unwrap();

    let browser = Browser::start().await;
    let server = TestServer::with(|config| config.http.static_dir.0 = Some(dir.path().to_owned())).await;
    let visitor = browser.visitor().await;
    let tab = enter_in(&visitor, &server, "he-IL").await;
    tab.fill("#username", "עדה").await;
    tab.press("Enter").await;
    tab.until("document.querySelector('#join:enabled')?.textContent === 'הצטרפות'").await;
    assert_eq!(
        tab.eval("[document.documentElement.lang, document.documentElement.dir]").await,
        json!(["he", "rtl"])
    );
    join(&tab).await;
    tab.click(".controls [data-action=chat]").await;
    tab.until("document.querySelector('.tile .name')").await;
    let edges = "(e => { const { left, right } = document.querySelector(e).getBoundingClientRect(); return [left, right] })";
    let edges = async |selector: &str| {
        let found = tab.eval(&format!("{edges}('{selector}')")).await;
        (found[0].as_f64().unwrap(), found[1].as_f64().unwrap())
    };
    // The panel is at the left, the name in the right corner of a tile, and nothing leaves the window.
    let (panel, stage, name, tile) =
        (edges("#chat-panel").await, edges("#stage").await, edges("figcaption").await, edges(".tile").await);
    assert!(panel.1 <= stage.0 && tile.1 - name.1 < name.0 - tile.0, "{panel:?} {stage:?} {name:?} {tile:?}");
    assert_eq!(tab.eval("document.documentElement.scrollWidth === innerWidth").await, true);
    tab.assert_quiet().await;
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
}
