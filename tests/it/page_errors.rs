//! Our own page with failures: a dead network, a refusing server, media that cannot be carried.

use std::future::pending;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::browser::{Browser, Tab, Visitor};
use crate::client::Client;
use crate::cloud::{Cloud, Script};
use crate::harness::TestServer;
use crate::page::{join, meet, tile, until_pressed};

/// A network between browsers and a server that can die without closing connections.
struct Network {
    address: SocketAddr,
    deaths: watch::Sender<()>,
    _tasks: JoinSet<()>,
}

impl Network {
    async fn to(server: &TestServer) -> Self {
        let to = server.addresses().http;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let deaths = watch::Sender::new(());
        let mut tasks = JoinSet::new();
        let accepted = deaths.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (browser, _) = listener.accept().await.unwrap();
                connections.spawn(Self::pass(browser, to, accepted.subscribe()));
            }
        });
        Self { address, deaths, _tasks: tasks }
    }

    async fn pass(mut browser: TcpStream, to: SocketAddr, mut death: watch::Receiver<()>) {
        let Ok(mut server) = TcpStream::connect(to).await else { return };
        tokio::select! {
            _ = copy_bidirectional(&mut browser, &mut server) => {}
            _ = death.changed() => pending().await,
        }
    }

    /// Freezes all current connections: they stay open, and carry nothing any more.
    fn die(&self) {
        self.deaths.send_replace(());
    }
}

/// A proxy that does not forward `Upgrade`.
async fn proxy_without_upgrade(server: &TestServer) -> (SocketAddr, JoinSet<()>) {
    let to = server.addresses().http;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (browser, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let mut browser = BufReader::new(browser);
                let mut server = TcpStream::connect(to).await.unwrap();
                let mut line = String::new();
                // A WebSocket is the first request of its connection. An empty line ends the head.
                while browser.read_line(&mut line).await.is_ok_and(|bytes| bytes > 2) {
                    if !line.to_lowercase().starts_with("upgrade:") {
                        server.write_all(line.as_bytes()).await.unwrap();
                    }
                    line.clear();
                }
                server.write_all(line.as_bytes()).await.unwrap();
                let _ = copy_bidirectional(&mut browser, &mut server).await;
            });
        }
    });
    (address, tasks)
}

/// Opens the name form with a room as its target, and runs a script before every following page.
pub async fn before_pages(visitor: &Visitor, origin: &str, room: &str, script: &str) -> Tab {
    let tab = visitor.open(&format!("{origin}/set-username?return-url=/{room}")).await;
    tab.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": script})).await;
    tab
}

/// JavaScript for the texts of all elements of a selector.
fn texts(selector: &str) -> String {
    format!("[...document.querySelectorAll({})].map(e => e.textContent)", json!(selector))
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn dead_network_is_detected_and_lines_resent() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let network = Network::to(&server).await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    bob.say(json!({"type": "userUpdate", "user": {"joined": true}})).await;
    // Heartbeats are sent when this test wants them.
    let heart = "window.Worker = class extends EventTarget {
        constructor() { super(); window.beat = (times) => { while (times--) this.dispatchEvent(new Event('message')) } }
        terminate() {}
    }";
    let origin = format!("http://{}", network.address);
    let tab = before_pages(&browser.visitor().await, &origin, "r", heart).await;
    tab.fill("#username", "Ada").await;
    tab.press("Enter").await;
    tab.until("document.querySelector('#join:enabled')").await;
    join(&tab).await;
    tab.click(".controls [data-action=chat]").await;
    let is_away = "!document.getElementById('reconnecting').hidden";

    network.die();
    tab.fill("#line", "lost").await;
    tab.press("Enter").await;
    tab.until("document.querySelector('#lines .waiting')").await;
    tab.eval("beat(3)").await;
    assert_eq!(tab.eval(is_away).await, false);
    // The server is probed, and has two seconds to answer.
    tab.eval("beat(1)").await;
    tab.until(is_away).await;
    tab.fill("#line", "waits").await;
    tab.press("Enter").await;
    tab.until(&format!("!({is_away})")).await;

    // Waiting messages are sent now; messages that may have arrived are left to their author.
    assert_eq!(bob.event().await["message"], "waits");
    tab.click_text("#lines .lost button", "Send again").await;
    assert_eq!(bob.event().await["message"], "lost");
    tab.until("!document.querySelector('#lines .lost, #lines .waiting')").await;
    let note = "The client of Bob shows no chat. Write to them alone.";
    assert_eq!(tab.eval(&texts("#lines .text")).await, json!([note, "waits", "lost"]));

    // A quiet server is probed, and its answer is not shown.
    let metric = r#"satsuma_messages_total{type="directMessage"}"#;
    for questions in [1.0, 2.0] {
        tab.eval("beat(4)").await;
        server.until_metric(metric, questions).await;
        bob.say(json!({"type": "chat", "message": format!("after {questions}")})).await;
        tab.until(&format!("{}.includes('after {questions}')", texts("#lines .text"))).await;
    }
    assert_eq!(tab.eval(is_away).await, false);
    assert_eq!(tab.eval("document.querySelectorAll('#lines .direct').length").await, 1, "shown once");
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn repeated_chat_line_is_detected_by_its_id() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let socket = "window.WebSocket = class extends WebSocket {
        constructor(...address) { super(...address); window.socket = this }
    };
    window.hear = (id, message) => socket.dispatchEvent(new MessageEvent('message', {
        data: JSON.stringify({type: 'chat', id, from: 'x', name: 'X', message, at: id}),
    }))";
    let tab = before_pages(&browser.visitor().await, &server.http(), "r", socket).await;
    tab.fill("#username", "Ada").await;
    tab.press("Enter").await;
    tab.until("document.querySelector('#join:enabled')").await;
    join(&tab).await;
    bob.say(json!({"type": "chat", "message": "now"})).await;
    tab.until(&format!("{}.length === 1", texts("#lines .text"))).await;
    // As from a restarted server, with its clock set back to 1970.
    tab.eval("hear(5, 'then'); hear(4, 'before'); hear(5, 'then')").await;
    assert_eq!(tab.eval(&texts("#lines .text")).await, json!(["now", "then", "before"]));
    tab.assert_quiet().await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn late_permission_respects_mute_and_leave() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    bob.say(json!({"type": "userUpdate", "user": {"joined": true}})).await;
    // The browser's permission prompt is answered when this test decides.
    let late = "{
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        window.given = [];
        window.questions = 0;
        navigator.mediaDevices.getUserMedia = (wish) => new Promise((resolve, reject) => {
            window.questions += 1;
            window.allow = () => ask(wish).then((stream) => { given.push(...stream.getTracks()); resolve(stream) }, reject);
        });
    }";
    let tab = before_pages(&browser.visitor().await, &server.http(), "r", late).await;
    tab.fill("#username", "Ada").await;
    tab.press("Enter").await;
    tab.until("document.querySelector('#join:enabled')").await;
    join(&tab).await;
    until_pressed(&tab, "microphone", "true").await;
    tab.click(".controls [data-action=microphone]").await;
    until_pressed(&tab, "microphone", "false").await;
    tab.eval("allow()").await;
    tab.until(&format!("({}).classList.contains('picture')", tile("Ada (you)"))).await;
    until_pressed(&tab, "microphone", "false").await;
    let tracks = "given.map(({kind, enabled, readyState}) => `${kind} ${enabled} ${readyState}`).sort()";
    assert_eq!(tab.eval(tracks).await, json!(["audio false live", "video true live"]));
    let seen = |user: &Value| {
        let tracks = &user["tracks"];
        tracks["audioUnavailable"] == false
            && tracks["audioEnabled"] == false
            && tracks["videoEnabled"] == true
    };
    bob.until_state(|state| state["users"].as_array().unwrap().iter().any(seen)).await;
    tab.click(".controls [data-action=microphone]").await;
    until_pressed(&tab, "microphone", "true").await;
    assert_eq!(tab.eval("given[0].enabled && given[1].enabled && questions === 1").await, true);

    tab.reload().await;
    tab.until("window.questions === 1 && given.length === 0 && document.querySelector('#join:enabled')")
        .await;
    join(&tab).await;
    tab.click("[data-action=leave]").await;
    tab.until("document.body.dataset.view === 'left'").await;
    tab.eval("allow()").await;
    tab.until("given.length === 2 && given.every(({readyState}) => readyState === 'ended')").await;
    tab.assert_quiet().await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn lost_identity_redirects_to_the_form_and_back() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let tab = meet(&browser.visitor().await, &server, "r", "Ada").await;
    tab.call("Network.clearBrowserCookies", json!({})).await;
    let address = server.addresses().http;
    let _server = server.stop().await.start_with(|config| config.http.listen = address).await;
    tab.until("location.pathname === '/set-username'").await;
    tab.fill("#username", "Ada again").await;
    tab.press("Enter").await;
    tab.until("location.pathname === '/r' && document.querySelector('#join:enabled')").await;
    assert_eq!(tab.eval("document.getElementById('lobby-name').textContent").await, "Ada again");
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn full_room_is_shown_until_there_is_space() {
    let browser = Browser::start().await;
    let server = TestServer::with(|config| config.limits.members_per_room = 1).await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let tab = browser.visitor().await.open(&format!("{}/r", server.http())).await;
    tab.fill("#username", "Ada").await;
    tab.press("Enter").await;
    let lasting = texts("#lasting p");
    let why = "The room is full. Trying again…";
    tab.until(&format!("{lasting}[0] === {}", json!(why))).await;
    bob.say(json!({"type": "userLeft"})).await;
    tab.until("document.querySelector('#join:enabled')").await;
    assert_eq!(tab.eval(&lasting).await, json!([]));
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn proxy_without_upgrade_is_shown() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let (proxy, _tasks) = proxy_without_upgrade(&server).await;
    let tab = browser.visitor().await.open(&format!("http://{proxy}/r")).await;
    tab.fill("#username", "Ada").await;
    tab.press("Enter").await;
    let why = "Meetings do not work at this address: a proxy in front of the server blocks WebSockets.";
    tab.until(&format!("{}[0]?.startsWith({})", texts("#lasting p"), json!(why))).await;
    assert!(server.refusals("upgrade_lost").await >= 1.0);
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn blocked_sockets_are_shown_after_the_second() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let losing = |sockets: usize| {
        format!(
            "window.attempts = 0;
            window.asked = [];
            const real = fetch;
            window.fetch = (url, ...rest) => {{ asked.push(String(url)); return real(url, ...rest) }};
            window.WebSocket = class extends WebSocket {{
                constructor(url) {{ super(++attempts > {sockets} ? url : url.replace('/parties/', '/lost/')) }}
            }};
            document.addEventListener('DOMContentLoaded', () => {{
                window.results = [];
                const lasting = document.getElementById('lasting');
                if (!lasting) return;
                new MutationObserver(() => results.push({{attempts, text: lasting.textContent}})).observe(lasting, {{childList: true, subtree: true}});
            }});"
        )
    };
    let enter = async |sockets| {
        let visitor = browser.visitor().await;
        let tab = before_pages(&visitor, &server.http(), "r", &losing(sockets)).await;
        tab.fill("#username", "Ada").await;
        tab.press("Enter").await;
        (visitor, tab)
    };
    // The page queries the reason after the second attempt; the server has started before the third.
    let (_visitor, tab) = enter(2).await;
    tab.until("document.querySelector('#join:enabled')").await;
    assert_eq!(tab.eval("attempts").await, 3);
    assert_eq!(tab.eval("asked.filter(url => url.endsWith('&why')).length").await, 1);
    assert_eq!(tab.eval("results").await, json!([]));

    let (_visitor, tab) = enter(usize::MAX).await;
    tab.until("results?.[0]?.text.includes('WebSockets do not reach it')").await;
    assert_eq!(tab.eval("results[0].attempts").await, 3);
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn start_failures_are_shown_on_the_page() {
    let browser = Browser::start().await;
    let server = TestServer::start().await;
    let visitor = browser.visitor().await;
    let failing = "{
        const real = window.fetch;
        const isFor = (url) => String(url).endsWith('/api/rooms/broken/settings');
        window.fetch = (url, ...rest) => isFor(url) ? Promise.resolve(new Response('out of order', {status: 500})) : real(url, ...rest);
    }";
    let tab = before_pages(&visitor, &server.http(), "broken", failing).await;
    let is_loaded = "document.readyState === 'complete'";
    // A refused name can be corrected in place.
    tab.until(is_loaded).await;
    let problems = texts(".warning");
    let a_name = json!(["A name has 1 to 64 characters and no control or invisible characters."]);
    tab.fill("#username", "   ").await;
    tab.press("Enter").await;
    tab.until(&format!("{problems}.length === 1")).await;
    assert_eq!(tab.eval(&problems).await, a_name);
    // A browser without JavaScript shows the same, in the same place.
    tab.eval("window.isOld = true; document.querySelector('form').submit()").await;
    tab.until(&format!("!window.isOld && {is_loaded} && {problems}.length === 1")).await;
    assert_eq!(tab.eval(&problems).await, a_name);
    tab.eval("window.shown = document.querySelector('.warning')").await;
    tab.press("Enter").await;
    tab.until("document.querySelector('#problem') && !window.shown.isConnected").await;
    assert_eq!(tab.eval(&problems).await, a_name);
    tab.fill("#username", "Ada").await;
    tab.press("Enter").await;
    let loading = "document.getElementById('loading')?.textContent";
    tab.until(&format!("{loading} === 'Out of order.'")).await;
    tab.until("getComputedStyle(document.getElementById('loading-again')).visibility === 'visible'").await;

    tab.call("Network.setBlockedURLs", json!({"urls": ["*/js/stage.js"]})).await;
    tab.go(&format!("{}/r", server.http())).await;
    tab.until(&format!("{loading}?.startsWith('The room cannot be opened: ')")).await;

    // The same for a room's name.
    tab.go(&server.http()).await;
    tab.until(is_loaded).await;
    tab.fill("#room", "..").await;
    tab.press("Enter").await;
    tab.until(&format!("{problems}[0]?.startsWith('Browsers cannot open a room named')")).await;
    assert_eq!(tab.eval("location.pathname").await, "/");
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn media_failure_is_shown_once_until_recovery() {
    let browser = Browser::start().await;
    let cloud = Cloud::start().await;
    let server = TestServer::with(|config| cloud.configure(config)).await;
    for _ in 0..3 {
        cloud.script("/sessions/new", Script::Answer(400, "{}".to_owned()));
    }
    // The stand-in carries no media, but this browser can report a connection.
    let faith = "{
        window.results = [];
        new MutationObserver(() => {
            const text = document.querySelector('#lasting p')?.textContent;
            if (text && text !== results.at(-1)) results.push(text);
        }).observe(document, {childList: true, subtree: true});
        const {setRemoteDescription} = RTCPeerConnection.prototype;
        RTCPeerConnection.prototype.setRemoteDescription = function (description) {
            return window.isCarried ? Promise.resolve() : setRemoteDescription.call(this, description);
        };
        const {get} = Object.getOwnPropertyDescriptor(RTCPeerConnection.prototype, 'connectionState');
        Object.defineProperty(RTCPeerConnection.prototype, 'connectionState', {
            get() { return window.isCarried ? 'connected' : get.call(this) },
        });
    }";
    let tab = before_pages(&browser.visitor().await, &server.http(), "r", faith).await;
    tab.fill("#username", "Ada").await;
    tab.press("Enter").await;
    tab.until("document.querySelector('#join:enabled')").await;
    join(&tab).await;
    let lasting = texts("#lasting p");
    tab.until("results.length === 2").await;
    let why = [
        "the media service refuses the request (http_400)",
        "this page and the media service do not understand each other",
    ];
    let why = why.map(|why| format!("Audio and video do not work: {why}. Trying again…"));
    assert_eq!(tab.eval("results").await, json!(why));
    assert_eq!(tab.eval(&format!("{lasting}.length")).await, 1);
    tab.eval("window.isCarried = true").await;
    tab.until(&format!("{lasting}.length === 0")).await;
}
