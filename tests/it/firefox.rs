//! Firefox, driven over WebDriver BiDi. Most tests of the page run in Chromium alone; those here are where browsers differ.

use std::ffi::OsString;
use std::panic::Location;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::SemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Duration, timeout};

use crate::browser::{BROWSER_PATIENCE, Browser, PERMITS, Process, Seen, Wire};

/// Settings of a profile: fake devices that are always allowed, media over loopback, and no request of Firefox's own.
const SETTINGS: [(&str, &str); 19] = [
    ("media.navigator.streams.fake", "true"),
    ("media.navigator.permission.disabled", "true"),
    ("media.autoplay.default", "0"),
    ("media.peerconnection.ice.loopback", "true"),
    ("media.peerconnection.ice.obfuscate_host_addresses", "false"),
    // Without it media would take the default route alone.
    ("permissions.default.camera", "1"),
    ("permissions.default.microphone", "1"),
    ("media.gmp-manager.updateEnabled", "false"),
    ("app.normandy.enabled", "false"),
    ("app.update.disabledForTesting", "true"),
    ("browser.shell.checkDefaultBrowser", "false"),
    ("browser.startup.homepage_override.mstone", "\"ignore\""),
    ("datareporting.policy.dataSubmissionEnabled", "false"),
    ("dom.timeout.enable_budget_timer_throttling", "false"),
    ("network.captive-portal-service.enabled", "false"),
    ("network.connectivity-service.enabled", "false"),
    ("network.proxy.type", "0"),
    ("services.settings.server", "\"data:,\""),
    ("toolkit.telemetry.enabled", "false"),
];

/// A Firefox, which ends on drop.
pub struct Firefox {
    wire: Arc<Wire>,
    _process: Process,
    _profile: TempDir,
    _tasks: JoinSet<()>,
    _permit: Option<SemaphorePermit<'static>>,
}

/// A page, with cookies of its own.
pub struct Page {
    wire: Arc<Wire>,
    context: String,
    seen: Arc<Mutex<Seen>>,
}

impl Firefox {
    /// Starts Firefox: the program that `FIREFOX` names, or `firefox-esr` on the path.
    pub async fn start() -> Self {
        Self::launch(Some(PERMITS.acquire().await.unwrap())).await
    }

    /// Starts Firefox beside another browser, which waited for its turn.
    pub async fn beside(_: &Browser) -> Self {
        Self::launch(None).await
    }

    async fn launch(permit: Option<SemaphorePermit<'static>>) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let settings: String =
            SETTINGS.iter().map(|(name, value)| format!("user_pref(\"{name}\", {value});\n")).collect();
        std::fs::write(profile.path().join("user.js"), settings).unwrap();
        let named = std::env::var_os("FIREFOX").filter(|name| !name.is_empty());
        let mut command = Command::new(named.unwrap_or_else(|| OsString::from("firefox-esr")));
        command.args(["--headless", "--no-remote", "--remote-debugging-port", "0", "--profile"]);
        command.arg(profile.path());
        let mut tasks = JoinSet::new();
        let (process, address) = Process::start(command, "WebDriver BiDi listening on ", &mut tasks).await;
        let wire = Wire::connect(&format!("{address}/session"), &mut tasks).await;
        wire.call(None, "session.new", json!({"capabilities": {}})).await;
        wire.call(None, "session.subscribe", json!({"events": ["log.entryAdded"]})).await;
        Self { wire, _process: process, _profile: profile, _tasks: tasks, _permit: permit }
    }

    /// Opens a page with cookies of its own, which runs `script` before every script of its documents.
    pub async fn open(&self, url: &str, script: &str) -> Page {
        let owner = self.wire.call(None, "browser.createUserContext", json!({})).await["userContext"].clone();
        let asked = json!({"type": "window", "userContext": owner});
        let answer = self.wire.call(None, "browsingContext.create", asked).await;
        let context = answer["context"].as_str().unwrap().to_owned();
        let preload = json!({"functionDeclaration": format!("() => {{ {script} }}"), "contexts": [context]});
        self.wire.call(None, "script.addPreloadScript", preload).await;
        let seen = Arc::<Mutex<Seen>>::default();
        self.wire.tabs.lock().unwrap().insert(context.clone(), seen.clone());
        let page = Page { wire: self.wire.clone(), context, seen };
        let target = json!({"context": page.context, "url": url, "wait": "interactive"});
        page.wire.call(None, "browsingContext.navigate", target).await;
        page
    }
}

impl Page {
    /// Evaluates a JavaScript expression of a plain value, as if its user had acted, and awaits it if it is a promise.
    #[track_caller]
    pub fn eval(&self, script: &str) -> impl Future<Output = Value> {
        let at = Location::caller();
        async move { self.try_eval(script).await.unwrap_or_else(|error| panic!("{at}: {script}: {error}")) }
    }

    async fn try_eval(&self, script: &str) -> Result<Value, String> {
        // The protocol has a form of its own for values.
        let expression = format!("(async () => JSON.stringify((await ({script})) ?? null))()");
        let asked = json!({"expression": expression, "target": {"context": self.context},
                           "awaitPromise": true, "userActivation": true});
        let answer = self.wire.try_call(None, "script.evaluate", asked).await?;
        match answer["result"]["value"].as_str() {
            Some(json) => serde_json::from_str(json).map_err(|error| error.to_string()),
            None => Err(answer["exceptionDetails"]["text"].as_str().unwrap_or("no value").to_owned()),
        }
    }

    /// Waits until a JavaScript expression is true; a page that is unloading is evaluated again.
    #[track_caller]
    pub fn until(&self, script: &str) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            let truth = format!("Boolean({script})");
            let poll = async {
                while self.try_eval(&truth).await != Ok(Value::Bool(true)) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            if timeout(BROWSER_PATIENCE, poll).await.is_err() {
                let page = self.try_eval("location.href + '\\n' + document.body.innerText").await;
                panic!("{at}: waited in vain until {script}\n{page:#?}\n{:#?}", self.complaints());
            }
        }
    }

    /// Waits for an element, and clicks on its middle.
    pub async fn click(&self, selector: &str) {
        let find = format!("document.querySelector({})", json!(selector));
        self.until(&format!("(e => e && !e.disabled && e.getClientRects().length)({find})")).await;
        let place = format!(
            "(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();
               return [Math.round(r.x + r.width / 2), Math.round(r.y + r.height / 2)]; }})({find})"
        );
        let place = self.eval(&place).await;
        let actions = json!([{"type": "pointerMove", "x": place[0], "y": place[1]},
                             {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]);
        self.act(json!({"type": "pointer", "id": "mouse", "actions": actions})).await;
    }

    /// Waits for a field, and types a text and Enter into it.
    pub async fn enter(&self, selector: &str, text: &str) {
        self.click(selector).await;
        let keys = text.chars().chain(['\u{e007}']);
        let actions: Vec<Value> = keys
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()})))
            .collect();
        self.act(json!({"type": "key", "id": "keyboard", "actions": actions})).await;
    }

    async fn act(&self, source: Value) {
        let actions = json!({"context": self.context, "actions": [source]});
        self.wire.call(None, "input.performActions", actions).await;
    }

    fn complaints(&self) -> Vec<String> {
        self.seen.lock().unwrap().complaints.clone()
    }

    /// Asserts that the page had no errors.
    #[track_caller]
    pub fn assert_quiet(&self) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            // The browser sends messages in order, so earlier errors arrived before this answer.
            self.eval("0").await;
            assert!(self.complaints().is_empty(), "{at}: {:#?}", self.complaints());
        }
    }
}
