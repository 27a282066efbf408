//! Activities of members, on our own page in a real browser.

use satsuma::config::ModeratorDefault;
use serde_json::json;

use crate::assistant::Model;
use crate::browser::Browser;
use crate::harness::TestServer;
use crate::page::meet;

#[tokio::test]
#[ignore = "needs chromium"]
async fn file_is_shared_in_the_chat_on_the_page() {
    let browser = Browser::start().await;
    let server = TestServer::with(|config| config.moderation.default = ModeratorDefault::First).await;
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    let bob = meet(&browser.visitor().await, &server, "r", "Bob").await;
    for tab in [&ada, &bob] {
        tab.click(".controls [data-action=chat]").await;
    }
    ada.until("!document.querySelector('#attach').hidden").await;
    assert_eq!(bob.eval("document.querySelector('#attach').hidden").await, true, "a guest may not yet");
    let attach = |name: &str| {
        format!(
            "(() => {{ const files = new DataTransfer(); files.items.add(new File(['hello'], '{name}'));
               const input = document.querySelector('#attach-file'); input.files = files.files;
               input.dispatchEvent(new Event('change')); }})()"
        )
    };
    ada.eval(&attach("<b>notes.txt")).await;
    let link = "[...document.querySelectorAll('#lines a.file')].at(-1)";
    for tab in [&ada, &bob] {
        tab.until(&format!("{link}?.textContent === '<b>notes.txt (5 bytes)'")).await;
    }
    let got = bob.eval(&format!("fetch({link}.href).then((answer) => answer.text())")).await;
    assert_eq!(got, "hello");
    ada.click(".controls [data-action=people]").await;
    ada.click("#rule-files").await;
    bob.until("!document.querySelector('#attach').hidden").await;
    bob.eval(&attach("reply.txt")).await;
    ada.until(&format!("{link}?.textContent === 'reply.txt (5 bytes)'")).await;
    for tab in [&ada, &bob] {
        tab.assert_quiet().await;
    }
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn moderator_clears_the_chat_on_the_page() {
    let browser = Browser::start().await;
    let server = TestServer::with(|config| config.moderation.default = ModeratorDefault::First).await;
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    let bob = meet(&browser.visitor().await, &server, "r", "Bob").await;
    let write = async |text: &str| {
        bob.fill("#line", text).await;
        bob.press("Enter").await;
    };
    bob.click(".controls [data-action=chat]").await;
    write("a slip").await;
    ada.click(".controls [data-action=chat]").await;
    let lines = |texts: &[&str]| {
        format!(
            "JSON.stringify([...document.querySelectorAll('#lines li:not(.direct) .text')].map((line) => line.textContent)) === '{}'",
            json!(texts)
        )
    };
    ada.until(&lines(&["a slip"])).await;
    ada.click(".controls [data-action=people]").await;
    assert_eq!(ada.eval("document.querySelector('#rule-chatHistory').checked").await, true);
    ada.click("#clear-chat").await;
    ada.click_text("#clear-form button", "Clear").await;
    for tab in [&ada, &bob] {
        tab.until(&lines(&[])).await;
    }
    bob.until("document.querySelector('#notices').textContent.includes('Ada cleared the chat')").await;
    write("better").await;
    for tab in [&ada, &bob] {
        tab.until(&lines(&["better"])).await;
    }
    // Off: who comes later sees nothing of it.
    ada.click("#rule-chatHistory").await;
    bob.until("!document.querySelector('#rule-chatHistory').checked").await;
    write("not for later").await;
    ada.until(&lines(&["better", "not for later"])).await;
    let cyd = meet(&browser.visitor().await, &server, "r", "Cyd").await;
    write("and now").await;
    cyd.until(&lines(&["and now"])).await;
    for tab in [&ada, &bob, &cyd] {
        tab.assert_quiet().await;
    }
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn assistant_answers_and_is_stopped_on_the_page() {
    let browser = Browser::start().await;
    let model = Model::start().await;
    let server = TestServer::with(|config| model.configure(config)).await;
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    let bob = meet(&browser.visitor().await, &server, "r", "Bob").await;
    for tab in [&ada, &bob] {
        tab.click(".controls [data-action=chat]").await;
    }
    let stream = model.answer();
    ada.fill("#line", "@ai why?").await;
    ada.press("Enter").await;
    stream.text("<b>Beca");
    for tab in [&ada, &bob] {
        tab.until("document.querySelector('#lines .growing .text')?.textContent === '<b>Beca'").await;
        tab.until("document.querySelector('#lines .growing .from').textContent === 'Assistant'").await;
    }
    assert_eq!(bob.eval("document.querySelectorAll('#lines .growing button').length").await, 0);
    stream.text("use.");
    stream.done();
    let last = |text: &str| {
        format!(
            "!document.querySelector('#lines .growing') && [...document.querySelectorAll('#lines .text')].at(-1).textContent === '{text}'"
        )
    };
    for tab in [&ada, &bob] {
        tab.until(&last("<b>Because.")).await;
    }
    // Ada stops the next one.
    let stream = model.answer();
    ada.fill("#line", "@ai and then?").await;
    ada.press("Enter").await;
    stream.text("Then");
    ada.until("document.querySelector('#lines .growing .text')?.textContent === 'Then'").await;
    ada.click("#lines .growing button").await;
    for tab in [&ada, &bob] {
        tab.until(&last("Then\\n[The answer was stopped.]")).await;
        tab.assert_quiet().await;
    }
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn assistant_is_told_from_an_impostor() {
    let browser = Browser::start().await;
    let model = Model::start().await;
    let server = TestServer::with(|config| model.configure(config)).await;
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    let guest = meet(&browser.visitor().await, &server, "r", "Assistant").await;
    for tab in [&ada, &guest] {
        tab.click(".controls [data-action=chat]").await;
    }
    let stream = model.answer();
    ada.fill("#line", "@ai who are you?").await;
    ada.press("Enter").await;
    stream.text("The one");
    // While it grows, at its end, and in the history.
    ada.until("document.querySelector('#lines .growing .mark')?.textContent === 'AI of this server'").await;
    stream.text(" of this server.");
    stream.done();
    ada.until(
        "!document.querySelector('#lines .growing') && document.querySelectorAll('#lines li').length === 2",
    )
    .await;
    guest.fill("#line", "No, I am.").await;
    guest.press("Enter").await;
    let program = json!({"message": "Neither.", "name": "Assistant"});
    assert_eq!(server.admin_post("/admin/rooms/r/chat", &program).await.status, 204);
    let lines = "JSON.stringify([...document.querySelectorAll('#lines li')].map((line) => [line.querySelector('.from').textContent,
        line.querySelector('.text').textContent, line.querySelector('.mark')?.textContent]))";
    let expected = json!([
        ["Ada", "@ai who are you?", null],
        ["Assistant", "The one of this server.", "AI of this server"],
        ["Assistant", "No, I am.", null],
        ["Assistant", "Neither.", "Program"],
    ]);
    let late = meet(&browser.visitor().await, &server, "r", "Late").await;
    late.click(".controls [data-action=chat]").await;
    late.until(&format!("{lines} === {}", json!(expected.to_string()))).await;
    for tab in [&ada, &guest, &late] {
        tab.assert_quiet().await;
    }
}
