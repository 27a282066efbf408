//! A real browser: Chromium, driven over its DevTools protocol.
//!
//! Its tests are marked `#[ignore = "needs chromium"]`. Each [`Browser`] is a process with a profile of
//! its own; each [`Visitor`] has cookies of its own; each [`Tab`] collects the errors of its page.
//!
//! ```ignore
//! let browser = Browser::start().await;
//! let ada = browser.visitor().await;
//! let tab = ada.open(&format!("{}/my-room", server.http())).await;
//! tab.until("document.querySelector('#username')").await;   // any JavaScript that becomes true
//! tab.fill("#username", "Ada").await;                       // as if typed
//! tab.click("form button").await;                           // a real click where the element is
//! assert_eq!(tab.eval("location.pathname").await, "/my-room");
//! let png = tab.screenshot(390, 844).await;
//! tab.assert_quiet().await;                                 // no console error, no failed request
//! ```
//!
//! `chromiumoxide`, the maintained crate for this, compiles 60,000 generated lines for the dozen methods
//! that are used here.

use std::collections::HashMap;
use std::ffi::OsString;
use std::panic::Location;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::{SinkExt, StreamExt};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Duration, timeout};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::harness::eventually;

/// Timeout of one step; a browser starts slowly on a busy machine.
pub const BROWSER_PATIENCE: Duration = Duration::from_secs(60);

/// One browser at a time: several on few cores delay each other beyond all timeouts.
pub static PERMITS: Semaphore = Semaphore::const_new(1);

const FLAGS: [&str; 17] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // A tab in the background must not be throttled.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--remote-debugging-port=0",
];

/// Scrolls an element into view, and returns where to click on it. The page may move before the click comes:
/// what would go to another element is stopped, and `aimed` says if the click met this one.
const AIM: &str = "element => {
    element.scrollIntoView({block: 'center'});
    const place = element.getBoundingClientRect();
    const kinds = ['pointerdown', 'mousedown', 'pointerup', 'mouseup', 'click'];
    const label = element.closest('label');
    let met = false;
    const guard = event => {
        const {target} = event;
        if (element.contains(target) || label?.contains(target) || target.closest?.('label')?.control === element) {
            met ||= event.type === 'click';
        } else {
            event.preventDefault();
            event.stopImmediatePropagation();
        }
    };
    for (const kind of kinds) window.addEventListener(kind, guard, true);
    window.aimed = () => {
        for (const kind of kinds) window.removeEventListener(kind, guard, true);
        return met;
    };
    return [place.x + place.width / 2, place.y + place.height / 2];
}";

/// A browser process, killed on drop.
pub struct Browser {
    wire: Arc<Wire>,
    _process: Process,
    _profile: TempDir,
    _tasks: JoinSet<()>,
    _permit: SemaphorePermit<'static>,
}

/// A browser context with cookies of its own.
#[derive(Clone)]
pub struct Visitor {
    wire: Arc<Wire>,
    context: String,
}

/// A tab of a visitor.
pub struct Tab {
    wire: Arc<Wire>,
    session: String,
    target: String,
    seen: Arc<Mutex<Seen>>,
}

/// Events of a tab's page.
#[derive(Debug, Default)]
pub struct Seen {
    /// Errors.
    pub complaints: Vec<String>,
    /// The URLs of pending requests, by their id.
    requests: HashMap<String, String>,
    finished: Vec<String>,
}

/// The connection to the browser.
pub struct Wire {
    out: mpsc::UnboundedSender<String>,
    last_id: AtomicU64,
    pending: Mutex<HashMap<u64, oneshot::Sender<Result<Value, String>>>>,
    /// Events by the sessions that they are of.
    pub tabs: Mutex<HashMap<String, Arc<Mutex<Seen>>>>,
}

impl Browser {
    /// Starts Chromium: what `CHROMIUM` names, or `chromium` on the path.
    pub async fn start() -> Self {
        let permit = PERMITS.acquire().await.unwrap();
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new(chromium());
        command.args(FLAGS).arg(format!("--user-data-dir={}", profile.path().display()));
        command.arg("about:blank");
        let mut tasks = JoinSet::new();
        let (child, address) = Process::start(command, "DevTools listening on ", &mut tasks).await;
        let wire = Wire::connect(&address, &mut tasks).await;
        Self { wire, _process: child, _profile: profile, _tasks: tasks, _permit: permit }
    }

    /// Creates a context with its own cookies.
    pub async fn visitor(&self) -> Visitor {
        let answer = self.wire.call(None, "Target.createBrowserContext", json!({})).await;
        Visitor { wire: self.wire.clone(), context: answer["browserContextId"].as_str().unwrap().to_owned() }
    }
}

/// The processes of a browser, which end on drop.
pub struct Process(Child);

impl Process {
    /// Starts a browser, and returns the address that it prints after `mark` on its standard error.
    pub async fn start(mut command: Command, mark: &str, tasks: &mut JoinSet<()>) -> (Self, String) {
        // A process group of its own: a browser is many processes.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut output = Vec::new();
        let listening = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(address) = line.strip_prefix(mark) {
                    return address.to_owned();
                }
                output.push(line);
            }
            panic!("{command:?} ended: {output:#?}");
        };
        let address = timeout(BROWSER_PATIENCE, listening).await.expect("the browser does not start");
        // A browser blocks once its standard error is full.
        tasks.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        (Self(child), address)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let id = self.0.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        if let Some(id) = id {
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

/// The program that `CHROMIUM` names, or `chromium` on the path.
fn chromium() -> OsString {
    let named = std::env::var_os("CHROMIUM").filter(|name| !name.is_empty());
    named.unwrap_or_else(|| "chromium".into())
}

impl Visitor {
    /// Opens a URL in a new window.
    pub async fn open(&self, url: &str) -> Tab {
        let target = json!({"url": "about:blank", "browserContextId": self.context, "newWindow": true});
        let target = self.wire.call(None, "Target.createTarget", target).await;
        let target = target["targetId"].as_str().unwrap().to_owned();
        let attach = json!({"targetId": target, "flatten": true});
        let session = self.wire.call(None, "Target.attachToTarget", attach).await;
        let session = session["sessionId"].as_str().unwrap().to_owned();
        let seen = Arc::<Mutex<Seen>>::default();
        self.wire.tabs.lock().unwrap().insert(session.clone(), seen.clone());
        let tab = Tab { wire: self.wire.clone(), session, target, seen };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            tab.call(&format!("{domain}.enable"), json!({})).await;
        }
        tab.go(url).await;
        tab
    }
}

impl Tab {
    /// Navigates to a URL.
    pub async fn go(&self, url: &str) {
        let answer = self.call("Page.navigate", json!({"url": url})).await;
        assert!(answer["errorText"].is_null(), "{url}: {answer}");
    }

    /// Reloads the page.
    pub async fn reload(&self) {
        self.call("Page.reload", json!({})).await;
    }

    /// Closes the tab.
    pub async fn close(self) {
        self.wire.call(None, "Target.closeTarget", json!({"targetId": self.target})).await;
    }

    /// Calls any method of the DevTools protocol.
    #[track_caller]
    pub fn call(&self, method: &str, params: Value) -> impl Future<Output = Value> {
        let at = Location::caller();
        async move {
            let answer = self.wire.try_call(Some(&self.session), method, params).await;
            answer.unwrap_or_else(|error| panic!("{at}: {error}"))
        }
    }

    /// Evaluates a JavaScript expression, and awaits it if it is a promise.
    #[track_caller]
    pub fn eval(&self, script: &str) -> impl Future<Output = Value> {
        let at = Location::caller();
        async move { self.try_eval(script).await.unwrap_or_else(|error| panic!("{at}: {script}: {error}")) }
    }

    async fn try_eval(&self, script: &str) -> Result<Value, String> {
        let params =
            json!({"expression": script, "awaitPromise": true, "returnByValue": true, "userGesture": true});
        let answer = self.wire.try_call(Some(&self.session), "Runtime.evaluate", params).await?;
        match &answer["exceptionDetails"] {
            Value::Null => Ok(answer["result"]["value"].clone()),
            details => Err(details["exception"]["description"].as_str().unwrap_or("an exception").to_owned()),
        }
    }

    /// Waits until a JavaScript expression is true; a page that is unloading is evaluated again.
    #[track_caller]
    pub fn until(&self, script: &str) -> impl Future<Output = ()> + use<'_> {
        self.until_true(script.to_owned(), Location::caller())
    }

    /// Waits for an element with this text, and clicks on it.
    #[track_caller]
    pub fn click_text(&self, selector: &str, text: &str) -> impl Future<Output = ()> {
        let find = format!(
            "[...document.querySelectorAll({})].find(e => e.textContent.trim() === {})",
            json!(selector),
            json!(text)
        );
        self.click_found(find)
    }

    /// Waits for an element of this selector, and clicks on it.
    #[track_caller]
    pub fn click(&self, selector: &str) -> impl Future<Output = ()> {
        self.click_found(format!("document.querySelector({})", json!(selector)))
    }

    #[track_caller]
    fn click_found(&self, find: String) -> impl Future<Output = ()> {
        let ready = format!("(e => e && !e.disabled && e.getClientRects().length)({find})");
        let at = Location::caller();
        async move {
            let click = async {
                loop {
                    self.until_true(ready.clone(), at).await;
                    let Ok(place) = self.try_eval(&format!("({AIM})({find})")).await else { continue };
                    for kind in ["mousePressed", "mouseReleased"] {
                        let event = json!({
                            "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1,
                        });
                        self.call("Input.dispatchMouseEvent", event).await;
                    }
                    // A page that the click replaced knows nothing of it.
                    if self.try_eval("window.aimed?.()").await != Ok(Value::Bool(false)) {
                        return;
                    }
                }
            };
            assert!(timeout(BROWSER_PATIENCE, click).await.is_ok(), "{at}: cannot click on {find}");
        }
    }

    async fn until_true(&self, script: String, at: &Location<'_>) {
        let poll = async {
            let truth = format!("Boolean({script})");
            while self.try_eval(&truth).await != Ok(Value::Bool(true)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(BROWSER_PATIENCE, poll).await.is_err() {
            let page = self.try_eval("location.href + '\\n' + document.body?.innerText").await;
            panic!("{at}: waited in vain until {script}\n{page:#?}\n{:#?}", self.complaints());
        }
    }

    /// Waits for a field, and replaces its text by typing.
    #[track_caller]
    pub fn fill(&self, selector: &str, text: &str) -> impl Future<Output = ()> {
        let field = format!("document.querySelector({})", json!(selector));
        let is_there = self.until_true(field.clone(), Location::caller());
        async move {
            is_there.await;
            self.eval(&format!("{field}.focus(), {field}.select?.()")).await;
            self.call("Input.insertText", json!({"text": text})).await;
        }
    }

    /// Presses and releases a key, such as `Enter`, `Tab`, `Escape` or a letter.
    pub async fn press(&self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Tab" => 9,
            "Escape" => 27,
            " " => 32,
            key => key.to_uppercase().bytes().next().map_or(0, u32::from),
        };
        let text = match key {
            "Enter" => "\r",
            key if key.chars().count() == 1 => key,
            _ => "",
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event = json!({"type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    /// A screenshot at this size, as a PNG.
    pub async fn screenshot(&self, width: u32, height: u32) -> Vec<u8> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let image = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        self.call("Emulation.clearDeviceMetricsOverride", json!({})).await;
        BASE64_STANDARD.decode(image["data"].as_str().unwrap()).unwrap()
    }

    /// Errors of the page until now: console errors and failed requests.
    pub fn complaints(&self) -> Vec<String> {
        self.seen.lock().unwrap().complaints.clone()
    }

    /// The URLs of all requests that ended until now, failed ones included.
    pub fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().finished.clone()
    }

    /// Asserts that the page had no errors.
    #[track_caller]
    pub fn assert_quiet(&self) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            // The browser sends messages in order, so earlier errors arrived before this answer.
            self.eval("0").await;
            let complaints = self.complaints();
            assert!(complaints.is_empty(), "{at}: {complaints:#?}");
        }
    }
}

impl Seen {
    fn take(&mut self, method: &str, params: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let id = text(&params["requestId"]);
        match method {
            "Runtime.consoleAPICalled" if matches!(params["type"].as_str(), Some("error" | "assert")) => {
                let output = params["args"].as_array().into_iter().flatten();
                let output = output.map(|arg| match &arg["value"] {
                    Value::Null => text(&arg["description"]),
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                });
                self.complaints.push(format!("console: {}", output.collect::<Vec<_>>().join(" ")));
            }
            "Runtime.exceptionThrown" => {
                let details = &params["exceptionDetails"];
                let what = details["exception"]["description"].as_str().or(details["text"].as_str());
                self.complaints.push(format!("exception: {}", what.unwrap_or_default()));
            }
            "log.entryAdded" if params["level"] == "error" => {
                self.complaints.push(format!("log: {}", text(&params["text"])));
            }
            // Network errors are collected below, with their URL.
            "Log.entryAdded"
                if params["entry"]["level"] == "error" && params["entry"]["source"] != "network" =>
            {
                self.complaints.push(format!("log: {}", text(&params["entry"]["text"])));
            }
            "Network.requestWillBeSent" => {
                self.requests.insert(id, text(&params["request"]["url"]));
            }
            "Network.responseReceived" => {
                let response = &params["response"];
                let status = response["status"].as_u64().unwrap_or_default();
                if status >= 400 {
                    self.complaints.push(format!("{status}: {}", text(&response["url"])));
                }
            }
            "Network.loadingFinished" => self.finished.extend(self.requests.remove(&id)),
            "Network.loadingFailed" => {
                let url = self.requests.remove(&id).unwrap_or_default();
                // A page that unloads aborts its own requests.
                if params["canceled"] != true {
                    let why = text(&params["errorText"]);
                    self.complaints.push(format!("{why} {}: {url}", text(&params["blockedReason"])));
                }
                self.finished.push(url);
            }
            _ => {}
        }
    }
}

impl Wire {
    /// Connects to an address of a browser.
    pub async fn connect(address: &str, tasks: &mut JoinSet<()>) -> Arc<Self> {
        let host = address.strip_prefix("ws://").and_then(|rest| rest.split('/').next()).unwrap();
        let stream = TcpStream::connect(host).await.unwrap();
        // A screenshot is one message.
        let limits = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (socket, _) = client_async_with_config(address, stream, Some(limits)).await.unwrap();
        let (mut sink, mut stream) = socket.split();
        let (out, mut outgoing) = mpsc::unbounded_channel::<String>();
        let wire = Arc::new(Self {
            out,
            last_id: AtomicU64::new(0),
            pending: Mutex::default(),
            tabs: Mutex::default(),
        });
        tasks.spawn(async move {
            while let Some(text) = outgoing.recv().await {
                if sink.send(Message::text(text)).await.is_err() {
                    break;
                }
            }
        });
        let reader = wire.clone();
        tasks.spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                if let Message::Text(text) = message {
                    reader.take(&serde_json::from_str(&text).unwrap());
                }
            }
            // Pending calls end with their channel.
            reader.pending.lock().unwrap().clear();
        });
        wire
    }

    fn take(&self, message: &Value) {
        if let Some(id) = message["id"].as_u64() {
            let waiting = self.pending.lock().unwrap().remove(&id);
            let answer = match &message["error"] {
                Value::Null => Ok(message["result"].clone()),
                error => Err(error.to_string()),
            };
            // The caller may have timed out.
            let _ = waiting.map(|waiting| waiting.send(answer));
        } else if let (Some(owner), Some(method)) = (owner(message), message["method"].as_str()) {
            let tab = self.tabs.lock().unwrap().get(owner).cloned();
            if let Some(tab) = tab {
                tab.lock().unwrap().take(method, &message["params"]);
            }
        }
    }

    /// Calls a method; panics if it fails.
    pub async fn call(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        self.try_call(session, method, params).await.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Calls a method.
    pub async fn try_call(
        &self,
        session: Option<&str>,
        method: &str,
        params: Value,
    ) -> Result<Value, String> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, response) = oneshot::channel();
        self.pending.lock().unwrap().insert(id, sender);
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let _ = self.out.send(message.to_string());
        match timeout(BROWSER_PATIENCE, response).await {
            Ok(Ok(answer)) => answer.map_err(|error| format!("{method}: {error}")),
            Ok(Err(_)) => Err(format!("{method}: the browser is gone")),
            Err(_) => Err(format!("{method}: the browser does not answer")),
        }
    }
}

/// The session that an event is of, or the context in the protocol of [`crate::firefox`].
fn owner(event: &Value) -> Option<&str> {
    event["sessionId"].as_str().or(event["params"]["source"]["context"].as_str())
}

/// Two buttons change places all the time. Tests failed on busy machines because a click came after the page
/// had moved.
#[tokio::test]
#[ignore = "needs chromium"]
async fn browser_driver_clicks_on_nothing_else() {
    let browser = Browser::start().await;
    let page = "data:text/html,<button id=a onclick=\"clicks=(window.clicks||0)%2b1\">A</button>\
                <button onclick=\"wrong=true\">B</button>\
                <script>setInterval(() => document.body.append(document.querySelector('button')), 5)</script>";
    let tab = browser.visitor().await.open(page).await;
    for clicks in 1..=10 {
        tab.click("#a").await;
        assert_eq!(tab.eval("[window.clicks, window.wrong]").await, json!([clicks, null]));
    }
}

/// The driver itself, on the smallest page.
#[tokio::test]
#[ignore = "needs chromium"]
async fn browser_driver_types_clicks_and_reports_errors() {
    let browser = Browser::start().await;
    let tab = browser
        .visitor()
        .await
        .open("data:text/html,<input id=a><button onclick=\"b=a.value\">Go</button>")
        .await;
    tab.fill("#a", "text").await;
    tab.click_text("button", "Go").await;
    tab.until("window.b === 'text'").await;
    tab.click("#a").await;
    tab.press("y").await;
    tab.until("document.querySelector('#a').value.length === 5").await;
    tab.reload().await;
    tab.until("window.b === undefined && document.querySelector('#a').value === ''").await;
    let loads = async || tab.requests().iter().filter(|url| url.starts_with("data:text/html")).count() == 2;
    eventually("both loads are reported".to_owned(), loads).await;
    tab.assert_quiet().await;
    assert!(tab.screenshot(390, 844).await.starts_with(b"\x89PNG"));

    tab.eval("console.error('one', 2)").await;
    tab.eval("setTimeout(() => { throw new Error('three') })").await;
    eventually("both errors are reported".to_owned(), async || tab.complaints().len() == 2).await;
    assert_eq!(tab.complaints()[0], "console: one 2");
    assert!(tab.complaints()[1].starts_with("exception: Error: three"), "{:?}", tab.complaints());
    tab.close().await;
}
