//! Watching a video together, on our own page in a real browser.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use satsuma::config::ModeratorDefault;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::browser::{Browser, Tab};
use crate::harness::TestServer;
use crate::page::meet;

/// Seconds of the file, of which each has this many samples of one byte.
const SECONDS: usize = 180;
const SAMPLES: usize = 8000;

/// A silent WAV file: the smallest that browsers play, and whose end they know.
fn wav() -> Vec<u8> {
    let samples = (SECONDS * SAMPLES) as u32;
    let rate = SAMPLES as u32;
    let mut file = Vec::new();
    file.extend(b"RIFF");
    file.extend((36 + samples).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16_u32.to_le_bytes());
    // PCM, one channel, one byte a sample.
    for word in [1_u16, 1] {
        file.extend(word.to_le_bytes());
    }
    file.extend(rate.to_le_bytes());
    file.extend(rate.to_le_bytes());
    for word in [1_u16, 8] {
        file.extend(word.to_le_bytes());
    }
    file.extend(b"data");
    file.extend(samples.to_le_bytes());
    file.resize(file.len() + samples as usize, 0x80);
    file
}

/// Another server: it has a file, and a player that speaks as YouTube's does.
struct Elsewhere {
    port: u16,
    /// The commands that players got.
    commands: Arc<Mutex<Vec<Value>>>,
    task: AbortHandle,
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Elsewhere {
    async fn start() -> Self {
        let commands: Arc<Mutex<Vec<Value>>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = Router::new()
            .route("/film.wav", get(file))
            .route("/embed/{id}", get(async || Html(PLAYER)))
            .route("/commands", post(command))
            .with_state(commands.clone());
        #[expect(clippy::disallowed_methods, reason = "it ends with this value")]
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { port, commands, task: task.abort_handle() }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Waits for a command of a player.
    async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) {
        crate::harness::eventually(what.to_owned(), async || {
            self.commands.lock().unwrap().iter().any(&wanted)
        })
        .await;
    }
}

/// The file, or a part of it.
async fn file(headers: HeaderMap) -> Response {
    let file = wav();
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let Some((from, to)) = range.and_then(|range| range.split_once('-')) else {
        return ([(CONTENT_TYPE, "audio/wav"), (ACCEPT_RANGES, "bytes")], file).into_response();
    };
    let from: usize = from.parse().unwrap();
    let to = to.parse().map_or(file.len(), |last: usize| (last + 1).min(file.len()));
    let part = format!("bytes {from}-{}/{}", to - 1, file.len());
    let headers =
        [(CONTENT_TYPE, "audio/wav".to_owned()), (ACCEPT_RANGES, "bytes".to_owned()), (CONTENT_RANGE, part)];
    (StatusCode::PARTIAL_CONTENT, headers, file[from..to].to_vec()).into_response()
}

async fn command(State(commands): State<Arc<Mutex<Vec<Value>>>>, body: String) {
    commands.lock().unwrap().push(serde_json::from_str(&body).unwrap());
}

/// A stand-in for YouTube's player: it takes commands, and tells its state four times a second.
const PLAYER: &str = r#"<!doctype html><title>Player</title><script>
let state = -1, time = 0, since = 0, muted = false, parentOrigin;
const now = () => time + (state === 1 ? (performance.now() - since) / 1000 : 0);
const settle = () => { time = now(); since = performance.now(); };
const tell = () => parentOrigin && parent.postMessage(JSON.stringify(
  { event: 'infoDelivery', id: 1, info: { playerState: state, currentTime: now(), duration: 180, muted } }), parentOrigin);
addEventListener('message', ({ data, origin }) => {
  const { event, func, args } = JSON.parse(data);
  if (event === 'listening') parentOrigin = origin;
  if (func === 'playVideo') { settle(); state = 1; }
  if (func === 'pauseVideo') { settle(); state = 2; }
  if (func === 'seekTo') { settle(); time = args[0]; }
  if (func) fetch('/commands', { method: 'POST', body: JSON.stringify({ func, args, path: location.pathname }) });
  tell();
});
setInterval(tell, 250);
</script>"#;

async fn share(tab: &Tab, url: &str) {
    tab.click(".controls [popovertarget=menu]").await;
    tab.click("#share-video").await;
    tab.fill("#watch-url", url).await;
    tab.click_text("#watch-form button", "Share").await;
}

/// The position of a tab's player, reckoned for the browser's time 0 as if it had always played.
async fn beginning(tab: &Tab) -> f64 {
    let script = "document.querySelector('.watch video').currentTime - (performance.timeOrigin + performance.now()) / 1000";
    tab.eval(script).await.as_f64().unwrap()
}

/// Moves the room by the bar of the tile.
async fn seek(tab: &Tab, seconds: u32) {
    let script = format!(
        "(() => {{ const bar = document.querySelector('.watch-bar input'); bar.value = '{seconds}';
           for (const type of ['input', 'change']) bar.dispatchEvent(new Event(type)); }})()"
    );
    tab.eval(&script).await;
}

const PLAYS: &str = "(() => { const video = document.querySelector('.watch video'); return video && !video.paused && video.currentTime > 60; })()";

#[tokio::test]
#[ignore = "needs chromium"]
async fn late_joiner_watches_at_the_position_of_the_others() {
    let (browser, elsewhere) = (Browser::start().await, Elsewhere::start().await);
    let server = TestServer::with(|config| {
        config.watch.loopback = true;
        config.moderation.default = ModeratorDefault::First;
    })
    .await;
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    share(&ada, &elsewhere.url("/film.wav")).await;
    ada.until("document.querySelector('.watch video')?.readyState >= 1").await;
    ada.click(".watch-bar [title='Play for everyone']").await;
    ada.until("!document.querySelector('.watch video').paused").await;
    seek(&ada, 60).await;
    ada.until(PLAYS).await;

    // Nothing is loaded before the click of whoever did not share it.
    let bob = meet(&browser.visitor().await, &server, "r", "Bob").await;
    let question = "document.querySelector('.watch .consent p')?.textContent";
    bob.until(&format!("{question}?.startsWith('Ada: a video from 127.0.0.1')")).await;
    assert!(bob.requests().iter().all(|request| !request.contains("/film.wav")), "before the click");
    bob.click_text(".watch .consent button", "Watch").await;
    bob.until(PLAYS).await;
    let close = async || (beginning(&ada).await - beginning(&bob).await).abs() < 0.5;
    crate::harness::eventually("both are at one position".to_owned(), close).await;
    assert_eq!(
        bob.eval("document.querySelector('.watch-bar .time').textContent.endsWith(' / 3:00')").await,
        true
    );

    // Everyone controls it, until the moderator decides otherwise.
    bob.click(".watch-bar [title='Pause for everyone']").await;
    ada.until("document.querySelector('.watch video').paused").await;
    ada.click(".controls [data-action=people]").await;
    ada.click("#rule-videos").await;
    bob.until("document.querySelector('.watch-bar [title=\"Play for everyone\"]').disabled").await;
    seek(&ada, 120).await;
    bob.until("Math.abs(document.querySelector('.watch video').currentTime - 120) < 0.5").await;
    show(&ada, "watching").await;
    ada.click_text(".watch-bar button", "End for all").await;
    for tab in [&ada, &bob] {
        tab.until("!document.querySelector('.watch')").await;
        tab.assert_quiet().await;
    }
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn video_of_youtube_plays_in_its_own_player() {
    let (browser, elsewhere) = (Browser::start().await, Elsewhere::start().await);
    let server = TestServer::with(|config| {
        config.watch.youtube = true;
        config.watch.youtube_player = elsewhere.url("").parse().unwrap();
    })
    .await;
    let ada = meet(&browser.visitor().await, &server, "r", "Ada").await;
    share(&ada, "https://www.youtube.com/watch?v=dQw4w9WgXcQ").await;
    ada.until("document.querySelector('.watch-bar .time')?.textContent === '0:00 / 3:00'").await;
    ada.click(".watch-bar [title='Play for everyone']").await;
    elsewhere.until("it plays", |command| command["func"] == "playVideo").await;
    seek(&ada, 90).await;
    let is_seek = |command: &Value| {
        command["func"] == "seekTo"
            && command["args"][0].as_f64().is_some_and(|to| (89.0..95.0).contains(&to))
    };
    elsewhere.until("it is moved", is_seek).await;
    elsewhere.commands.lock().unwrap().clear();
    // The late joiner's player is moved there, too.
    let bob = meet(&browser.visitor().await, &server, "r", "Bob").await;
    bob.click_text(".watch .consent button", "Watch").await;
    let is_late = |command: &Value| {
        command["func"] == "seekTo" && command["args"][0].as_f64().is_some_and(|to| to >= 90.0)
    };
    elsewhere.until("the late joiner's is moved", is_late).await;
    elsewhere.until("and plays", |command| command["func"] == "playVideo").await;
    let path = elsewhere.commands.lock().unwrap()[0]["path"].clone();
    assert_eq!(path, json!("/embed/dQw4w9WgXcQ"));
    bob.click(".watch-bar [title='Pause for everyone']").await;
    elsewhere.until("all pause", |command| command["func"] == "pauseVideo").await;
    for tab in [&ada, &bob] {
        tab.assert_quiet().await;
    }
}

/// Writes what a tab shows into a folder, if one is named: to be looked at.
async fn show(tab: &Tab, name: &str) {
    let Ok(folder) = std::env::var("SCREENSHOTS") else { return };
    for (width, height) in [(1200, 800), (360, 740)] {
        let png = tab.screenshot(width, height).await;
        std::fs::write(format!("{folder}/{name}-{width}.png"), png).unwrap();
    }
}
