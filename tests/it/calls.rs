//! The media API's two mounts, against a scripted stand-in for Cloudflare.

use std::time::Duration;

use axum::http::Method;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use proptest::prelude::*;
use reqwest::RequestBuilder;
use satsuma::config::Config;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::cloud::{Cloud, SECRET, Script, TURN_TOKEN};
use crate::harness::{Answer, Person, TestServer, answer, eventually, logged};

const MOUNTS: [&str; 2] = ["/api/calls", "/partytracks"];

/// A server that uses the stand-in.
async fn server(cloud: &Cloud) -> TestServer {
    server_with(cloud, |_| {}).await
}

async fn server_with(cloud: &Cloud, edit: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::with(|config| {
        cloud.configure(config);
        edit(config);
    })
    .await
}

/// A client of the media API, with its cookies.
struct Caller<'a> {
    server: &'a TestServer,
    cookies: String,
}

impl<'a> Caller<'a> {
    async fn log_in(server: &'a TestServer, name: &str) -> Self {
        Self { server, cookies: Person::log_in(server, name).await.cookie().to_owned() }
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.server.request(&method, path).header("cookie", &self.cookies)
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.ask(Method::POST, path).body(body.to_string())).await
    }

    /// Opens a session and stores its cookie.
    async fn open(&mut self, mount: &str) -> String {
        let opened = answer(self.ask(Method::POST, &format!("{mount}/sessions/new"))).await;
        assert_eq!(opened.status, 201, "{opened:?}");
        self.cookies += &format!("; {}", opened.header("set-cookie").split(';').next().unwrap());
        opened.json()["sessionId"].as_str().unwrap().to_owned()
    }
}

fn push() -> Value {
    json!({"tracks": [{"location": "local", "mid": "0", "trackName": "t"}],
           "sessionDescription": {"type": "offer", "sdp": "v=0\r\n"}})
}

fn pull() -> Value {
    json!({"tracks": [{"location": "remote", "sessionId": "p", "trackName": "t"}]})
}

#[tokio::test]
async fn calls_pass_with_query_body_and_needed_headers() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    for mount in MOUNTS {
        let mut ada = Caller::log_in(&server, "Ada").await;
        let session = ada.open(mount).await;
        let opened = cloud.seen().pop().unwrap();
        assert_eq!((opened.target.as_str(), opened.body.len()), ("/v1/apps/app/sessions/new", 0));
        for (method, rest) in [
            (Method::POST, "/tracks/new?a=b%20c&d=%C3%A9"),
            (Method::PUT, "/renegotiate?correlationId=x"),
            (Method::PUT, "/tracks/close"),
            (Method::PUT, "/tracks/update"),
            (Method::GET, ""),
            (Method::POST, "/datachannels/establish"),
            (Method::POST, "/datachannels/new"),
            (Method::PUT, "/datachannels/update"),
            (Method::PUT, "/datachannels/close"),
        ] {
            let body = if method == Method::GET { String::new() } else { push().to_string() };
            let request = ada
                .ask(method.clone(), &format!("{mount}/sessions/{session}{rest}"))
                .header("content-type", "text/plain;charset=UTF-8")
                .header("authorization", "Bearer the-browsers-own")
                .header("x-forwarded-for", "1.2.3.4")
                .header("accept-language", "fr")
                .header("origin", server.http())
                .body(body.clone());
            let passed = answer(request).await;
            assert_eq!(passed.status, 200, "{method} {rest}: {passed:?}");
            assert_eq!(passed.header("content-type"), "application/json");
            let seen = cloud.seen().pop().unwrap();
            assert_eq!(seen.method, method);
            assert_eq!(seen.target, format!("/v1/apps/app/sessions/{session}{rest}"));
            assert_eq!(seen.body, body);
            let mut names: Vec<&str> = seen.headers.keys().map(|name| name.as_str()).collect();
            names.sort_unstable();
            let expected: &[&str] = match method {
                Method::GET => &["accept", "authorization", "host", "user-agent"],
                _ => &["accept", "authorization", "content-length", "content-type", "host", "user-agent"],
            };
            assert_eq!(names, expected, "{method} {rest}");
            assert_eq!(seen.header("authorization"), format!("Bearer {SECRET}"));
        }
    }
}

#[tokio::test]
async fn answers_pass_without_cookies_and_hop_headers() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let mut ada = Caller::log_in(&server, "Ada").await;
    let session = ada.open("/api/calls").await;
    let path = format!("/api/calls/sessions/{session}/tracks/new");
    for (status, body) in [
        (406, r#"{"errorCode":"invalid_session_description",  "errorDescription":"é"}"#),
        (200, r#"{"tracks":[{"errorCode":"empty_track_error","errorDescription":"no media"}]}"#),
        (425, r#"{"errorCode":"session_error"}"#),
        (500, "<html>not JSON</html>"),
    ] {
        let headers = vec![
            ("set-cookie", "__cf_bm=1; Path=/"),
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("server", "cloudflare"),
            ("retry-after", "7"),
        ];
        cloud.script("/tracks/new", Script::AnswerWith(status, headers, body.to_owned()));
        let passed = ada.post(&path, &push()).await;
        assert_eq!((passed.status, &*passed.text), (status, body));
        assert_eq!(passed.header("retry-after"), "7");
        for dropped in ["set-cookie", "keep-alive", "server", "connection"] {
            assert_eq!(passed.header(dropped), "", "{dropped}");
        }
    }
}

#[tokio::test]
async fn answers_are_streamed() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let mut ada = Caller::log_in(&server, "Ada").await;
    let session = ada.open("/api/calls").await;
    let path = format!("/api/calls/sessions/{session}/renegotiate");

    let (chunks, scripted) = mpsc::unbounded_channel();
    cloud.script("/renegotiate", Script::Chunks(scripted));
    chunks.send(Bytes::from("first")).unwrap();
    let mut answered = ada.ask(Method::PUT, &path).body("{}").send().await.unwrap().bytes_stream();
    assert_eq!(answered.next().await.unwrap().unwrap(), "first");
    chunks.send(Bytes::from("second")).unwrap();
    assert_eq!(answered.next().await.unwrap().unwrap(), "second");
    drop(chunks);
    assert!(answered.next().await.is_none());
}

#[tokio::test]
async fn unknown_api_paths_and_methods_are_refused() {
    let cloud = Cloud::start().await;
    let server = server_with(&cloud, |config| config.calls.session_lock = false).await;
    let ada = Person::log_in(&server, "Ada").await;
    for mount in MOUNTS {
        for (method, path) in [
            ("DELETE", "sessions/a"),
            ("GET", "sessions/new"),
            ("PATCH", "sessions/a/renegotiate"),
            ("OPTIONS", "sessions/a/renegotiate"),
            ("POST", "sessions"),
            ("POST", "sessions/a/tracks/new/"),
            ("POST", "sessions/a//tracks/new"),
            ("POST", "sessions/../sessions/new"),
            ("POST", "sessions/a/../new"),
            ("POST", "../../turn/keys/key/credentials/generate-ice-servers"),
            ("POST", "..%2f..%2fturn"),
            ("POST", "sessions/a%2ftracks%2fnew"),
            ("POST", "sessions/%6eew"),
            ("POST", "generate-ice-servers"),
            ("GET", "anything"),
            ("HEAD", "sessions/a"),
        ] {
            let refused = raw(&server, method, &format!("{mount}/{path}"), ada.cookie(), "").await;
            assert!(refused.starts_with("HTTP/1.1 404 "), "{method} {mount}/{path}: {refused}");
        }
    }
    let refused = raw(&server, "POST", "/api/calls/nothing", ada.cookie(), "").await;
    assert!(refused.contains(r#"{"errorCode":"not_found","errorDescription":"#), "{refused}");
    assert_eq!(cloud.seen().len(), 0, "nothing reached the API");
}

#[tokio::test]
async fn call_without_identity_is_refused() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let refused = answer(server.request(&Method::POST, "/api/calls/sessions/new")).await;
    assert_eq!((refused.status, &refused.json()["errorCode"]), (401, &json!("unauthorized")));
    for (method, path) in [
        (Method::POST, "/api/calls/sessions/a/tracks/new"),
        (Method::POST, "/partytracks/sessions/new"),
        (Method::POST, "/partytracks/sessions/a/tracks/new"),
        (Method::PUT, "/partytracks/sessions/a/renegotiate"),
        (Method::GET, "/partytracks/generate-ice-servers"),
    ] {
        let refused = answer(server.request(&method, path).body(pull().to_string())).await;
        assert_eq!(refused.status, 401, "{path}: {refused:?}");
        assert_eq!(refused.header("cache-control"), "no-store");
    }
    assert_eq!(cloud.seen().len(), 0, "nothing reached the API");
}

#[tokio::test]
async fn session_is_locked_to_the_identity_of_its_opener() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    for mount in MOUNTS {
        let mut ada = Caller::log_in(&server, "Ada").await;
        let mut eve = Caller::log_in(&server, "Eve").await;
        let (first, second) = (ada.open(mount).await, ada.open(mount).await);
        let eves = eve.open(mount).await;
        let path = |session: &str| format!("{mount}/sessions/{session}/tracks/new");
        for own in [&first, &second] {
            assert_eq!(ada.post(&path(own), &push()).await.status, 200, "one may hold several");
        }
        let before = cloud.seen().len();
        assert_eq!(ada.post(&path(&eves), &push()).await.status, 401);
        assert_eq!(eve.post(&path(&first), &push()).await.status, 401);
        // The cookie alone does not open the session.
        eve.cookies = format!("{}; {}", eve.cookies, ada.cookies.split_once("; ").unwrap().1);
        assert_eq!(eve.post(&path(&first), &push()).await.status, 401);
        assert_eq!(cloud.seen().len(), before, "nothing reached the API");
    }
}

#[tokio::test]
async fn lock_cookie_matches_mount_and_scheme() {
    let cloud = Cloud::start().await;
    let server = server_with(&cloud, |config| {
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let ada = Caller::log_in(&server, "Ada").await;
    for mount in MOUNTS {
        let ask = || ada.ask(Method::POST, &format!("{mount}/sessions/new"));
        let plain = answer(ask()).await;
        let session = plain.json()["sessionId"].as_str().unwrap().to_owned();
        let cookie = plain.header("set-cookie");
        let attributes =
            format!("; HttpOnly; SameSite=Strict; Path={mount}/sessions/{session}; Max-Age=86400");
        assert!(cookie.ends_with(&attributes), "{cookie}");
        let tls = answer(ask().header("x-forwarded-proto", "https")).await;
        assert!(tls.header("set-cookie").contains("; Secure; "), "{tls:?}");
    }
}

#[tokio::test]
async fn cookies_of_120_sessions_stay_under_4_kb() {
    let server = TestServer::with(|config| {
        config.limits.new_sessions_per_minute = 0;
        config.sfu.sessions_per_identity = 120;
    })
    .await;
    let mut ada = Caller::log_in(&server, "Ada").await;
    let mut opened = Vec::new();
    for number in 0..120 {
        let mount = MOUNTS[number % 2];
        let answered = answer(ada.ask(Method::POST, &format!("{mount}/sessions/new"))).await;
        assert_eq!(answered.status, 201, "{answered:?}");
        ada.cookies += &format!("; {}", answered.header("set-cookie").split(';').next().unwrap());
        opened.push(format!("{mount}/sessions/{}", answered.json()["sessionId"].as_str().unwrap()));
    }
    assert!(ada.cookies.len() < 4000, "{} bytes", ada.cookies.len());
    for session in opened {
        assert_eq!(answer(ada.ask(Method::GET, &session)).await.status, 200, "{session}");
    }
}

#[tokio::test]
async fn malformed_call_gets_a_specific_error() {
    let server = TestServer::start().await;
    let mut ada = Caller::log_in(&server, "Ada").await;
    for mount in MOUNTS {
        let opened = answer(ada.ask(Method::POST, &format!("{mount}/sessions/new"))).await;
        ada.cookies += &format!("; {}", opened.header("set-cookie").split(';').next().unwrap());
        let session = opened.json()["sessionId"].as_str().unwrap().to_owned();
        for body in [
            "{",
            "{}",
            r#"{"tracks":"x"}"#,
            r#"{"tracks":[{"mid":"0","trackName":"a"}]}"#,
            r#"{"tracks":[{"location":"both","mid":"0","trackName":"a"}]}"#,
        ] {
            let path = format!("{mount}/sessions/{session}/tracks/new");
            let answered = answer(ada.ask(Method::POST, &path).body(body)).await;
            assert_eq!(answered.status, 400, "{mount} {body}: {answered:?}");
            let description = answered.json()["errorDescription"].as_str().unwrap_or_default().to_owned();
            assert!(description.len() > 8, "{mount} {body}: {answered:?}");
        }
    }
}

#[tokio::test]
async fn session_lock_can_be_disabled() {
    let cloud = Cloud::start().await;
    let server = server_with(&cloud, |config| config.calls.session_lock = false).await;
    let ada = Caller::log_in(&server, "Ada").await;
    let opened = answer(ada.ask(Method::POST, "/partytracks/sessions/new")).await;
    assert_eq!((opened.status, opened.header("set-cookie")), (201, ""));
    assert_eq!(ada.post("/partytracks/sessions/any/tracks/new", &push()).await.status, 200);
}

#[tokio::test]
async fn unreachable_api_is_502_and_opens_the_circuit() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let cloud = Cloud::start().await;
    let server = server_with(&cloud, |config| {
        config.calls.api_url = format!("http://{address}/v1").parse().unwrap();
    })
    .await;
    let ada = Caller::log_in(&server, "Ada").await;
    let ask = async || answer(ada.ask(Method::POST, "/api/calls/sessions/new")).await;
    let refused = ask().await;
    assert_eq!(refused.status, 502);
    assert_eq!(
        refused.json(),
        json!({"errorCode": "temporarily_unavailable_error", "errorDescription": "the media API cannot be reached"})
    );
    let open = r#"satsuma_call_seconds_count{operation="new_session",status="circuit_open"}"#;
    eventually("the circuit is open".to_owned(), async || {
        ask().await;
        server.metric(open).await > 0.0
    })
    .await;

    // The API returns at the same address.
    let listener = TcpListener::bind(address).await.unwrap();
    let mut api = JoinSet::new();
    api.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await.unwrap();
        let body = r#"{"sessionId":"back"}"#;
        let text = format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    });
    eventually("a call gets through again".to_owned(), async || ask().await.status == 201).await;
    api.join_next().await.unwrap().unwrap();
    assert!(
        server.metric(r#"satsuma_call_seconds_count{operation="new_session",status="unreachable"}"#).await
            >= 1.0
    );
    assert_eq!(
        server.metric(r#"satsuma_call_seconds_count{operation="new_session",status="201"}"#).await,
        1.0
    );
}

#[tokio::test]
async fn request_that_may_have_arrived_is_not_repeated() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let ada = Caller::log_in(&server, "Ada").await;
    cloud.script("/sessions/new", Script::Drop);
    let refused = answer(ada.ask(Method::POST, "/api/calls/sessions/new")).await;
    assert_eq!((refused.status, cloud.seen().len()), (502, 1));
    cloud.script("/sessions/new", Script::DropInBody);
    let refused = answer(ada.ask(Method::POST, "/partytracks/sessions/new")).await;
    assert_eq!((refused.status, cloud.seen().len()), (502, 2), "{refused:?}");
}

#[tokio::test]
async fn connections_are_reused_and_closed_ones_replaced() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let ada = Caller::log_in(&server, "Ada").await;
    let ask = async || answer(ada.ask(Method::POST, "/api/calls/sessions/new")).await.status;
    for _ in 0..5 {
        assert_eq!(ask().await, 201);
    }
    assert_eq!(cloud.connections(), 1);
    cloud.script(
        "/sessions/new",
        Script::AnswerWith(201, vec![("connection", "close")], r#"{"sessionId":"a"}"#.into()),
    );
    assert_eq!(ask().await, 201);
    assert_eq!(ask().await, 201);
    assert_eq!((cloud.connections(), cloud.seen().len()), (2, 7));
}

#[tokio::test]
async fn slow_api_is_504() {
    let cloud = Cloud::start().await;
    let server = server_with(&cloud, |config| config.calls.timeout = Duration::from_millis(200)).await;
    let ada = Caller::log_in(&server, "Ada").await;
    cloud.script("/sessions/new", Script::Silence);
    let slow = answer(ada.ask(Method::POST, "/api/calls/sessions/new")).await;
    assert_eq!(slow.status, 504);
    assert_eq!(slow.json()["errorDescription"], "the media API did not answer in time");
    assert_eq!(
        server.metric(r#"satsuma_call_seconds_count{operation="new_session",status="timed_out"}"#).await,
        1.0
    );
}

#[tokio::test]
async fn slow_call_does_not_delay_others() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let ada = Caller::log_in(&server, "Ada").await;
    let ask = || answer(ada.ask(Method::POST, "/partytracks/sessions/new"));
    let (open, gate) = oneshot::channel();
    cloud.script("/sessions/new", Script::After(gate));
    let mut slow = JoinSet::new();
    slow.spawn(ask());
    cloud.until_seen("/sessions/new", 1).await;
    assert_eq!(ask().await.status, 201);
    assert!(slow.try_join_next().is_none());
    open.send(()).unwrap();
    assert_eq!(slow.join_next().await.unwrap().unwrap().status, 201);
}

#[tokio::test]
async fn slow_client_is_408_and_no_api_failure() {
    let cloud = Cloud::start().await;
    let server = server_with(&cloud, |config| config.calls.timeout = Duration::from_millis(200)).await;
    let mut ada = Caller::log_in(&server, "Ada").await;
    let session = ada.open("/api/calls").await;
    for _ in 0..8 {
        let stuck = stream::iter([Ok::<_, std::io::Error>("{")]).chain(stream::pending());
        let path = format!("/api/calls/sessions/{session}/renegotiate");
        let request = ada.ask(Method::PUT, &path).body(reqwest::Body::wrap_stream(stuck));
        assert_eq!(answer(request).await.status, 408);
    }
    assert_eq!(
        answer(ada.ask(Method::POST, "/api/calls/sessions/new")).await.status,
        201,
        "the circuit is closed"
    );
}

/// Five clients that used up a call's time with their bodies opened the circuit for everybody.
#[tokio::test]
async fn slow_body_leaves_the_api_its_whole_timeout() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let part = TIMEOUT * 2 / 3;
    let cloud = Cloud::start().await;
    let server = server_with(&cloud, |config| config.calls.timeout = TIMEOUT).await;
    let mut ada = Caller::log_in(&server, "Ada").await;
    let session = ada.open("/api/calls").await;
    let (open, gate) = oneshot::channel();
    cloud.script("/renegotiate", Script::After(gate));
    let chunk = |text: &'static str| Ok::<_, std::io::Error>(text);
    let rest = stream::once(async move {
        sleep(part).await;
        chunk("}")
    });
    let body = reqwest::Body::wrap_stream(stream::iter([chunk("{")]).chain(rest));
    let request = ada.ask(Method::PUT, &format!("/api/calls/sessions/{session}/renegotiate")).body(body);
    let api = async {
        eventually("the call arrives".to_owned(), async || !cloud.seen_at("/renegotiate").is_empty()).await;
        sleep(part).await;
        open.send(()).unwrap();
    };
    assert_eq!(tokio::join!(answer(request), api).0.status, 200);
}

#[tokio::test]
async fn body_of_a_get_is_not_forwarded() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    for mount in MOUNTS {
        let mut ada = Caller::log_in(&server, "Ada").await;
        let session = ada.open(mount).await;
        let request = ada.ask(Method::GET, &format!("{mount}/sessions/{session}")).body("{}");
        assert_eq!(answer(request).await.status, 200, "{mount}");
        let seen = cloud.seen_at(&format!("/sessions/{session}"));
        assert_eq!(seen.last().unwrap().body, "", "{mount}");
    }
}

#[tokio::test]
async fn redirect_or_endless_answer_is_502() {
    let cloud = Cloud::start().await;
    let server = server_with(&cloud, |config| config.limits.call_bytes = 100_000).await;
    let ada = Caller::log_in(&server, "Ada").await;
    let long = format!("\"{}\"", "x".repeat(100_000));
    for script in [
        Script::AnswerWith(302, vec![("location", "https://elsewhere.example/")], String::new()),
        Script::Answer(200, long),
        Script::Endless,
    ] {
        cloud.script("/sessions/new", script);
        let refused = answer(ada.ask(Method::POST, "/api/calls/sessions/new")).await;
        assert_eq!((refused.status, refused.header("location")), (502, ""), "{refused:?}");
    }
}

#[tokio::test]
async fn body_over_the_limit_is_413() {
    let cloud = Cloud::start().await;
    let server = server_with(&cloud, |config| config.limits.call_bytes = 100_000).await;
    for mount in MOUNTS {
        let mut ada = Caller::log_in(&server, "Ada").await;
        let session = ada.open(mount).await;
        for action in ["tracks/new", "renegotiate"] {
            let method = if action == "renegotiate" { Method::PUT } else { Method::POST };
            let path = format!("{mount}/sessions/{session}/{action}");
            let body = format!("{{\"sdp\":\"{}\"}}", "x".repeat(99_990));
            assert_eq!(body.len(), 100_000);
            let fits = answer(ada.ask(method.clone(), &path).body(body)).await;
            assert_ne!(fits.status, 413, "{path}");
            let response = answer(ada.ask(method.clone(), &path).body("x".repeat(100_001))).await;
            assert_eq!(response.status, 413, "{path}: {response:?}");
            let chunks = stream::repeat_with(|| Ok::<_, std::io::Error>("x".repeat(1000))).take(101);
            let untold = answer(ada.ask(method, &path).body(reqwest::Body::wrap_stream(chunks))).await;
            assert_eq!(untold.status, 413, "{path}: {untold:?}");
        }
    }
    assert!(cloud.seen().iter().all(|seen| seen.body.len() <= 100_000));
}

#[tokio::test]
async fn call_rates_by_session_and_identity_are_limited() {
    let cloud = Cloud::start().await;
    let server = server_with(&cloud, |config| {
        config.limits.calls_per_second = 1;
        config.limits.new_sessions_per_minute = 2;
    })
    .await;
    let mut ada = Caller::log_in(&server, "Ada").await;
    let (first, second) = (ada.open("/api/calls").await, ada.open("/api/calls").await);
    let get =
        async |session: &str| answer(ada.ask(Method::GET, &format!("/api/calls/sessions/{session}"))).await;
    assert_eq!((get(&first).await.status, get(&second).await.status), (200, 200));
    let fast = get(&first).await;
    assert_eq!((fast.status, fast.header("retry-after")), (429, "1"));
    assert_eq!(fast.json()["errorDescription"], "too many calls on this session");

    let third = answer(ada.ask(Method::POST, "/api/calls/sessions/new")).await;
    assert_eq!((third.status, third.header("retry-after")), (429, "60"));
    let servers = answer(ada.ask(Method::GET, "/partytracks/generate-ice-servers")).await;
    assert_eq!(servers.status, 429);
    assert!(servers.text.contains("stun:"), "{servers:?}");
    Caller::log_in(&server, "Bob").await.open("/api/calls").await;
    assert_eq!(server.refusals("call_too_many").await, 1.0);
    assert_eq!(server.refusals("call_too_many_sessions").await, 2.0);
}

/// One client could hold every stream to the API with bodies that it did not send.
#[tokio::test]
async fn concurrent_calls_of_an_identity_are_limited() {
    let cloud = Cloud::start().await;
    let server = server_with(&cloud, |config| config.limits.calls_per_identity = 2).await;
    let ada = Caller::log_in(&server, "Ada").await;
    let ask = |caller: &Caller<'_>| answer(caller.ask(Method::POST, "/api/calls/sessions/new"));
    let (gates, scripted): (Vec<_>, Vec<_>) = (0..2).map(|_| oneshot::channel()).unzip();
    let mut under_way = JoinSet::new();
    for gate in scripted {
        cloud.script("/sessions/new", Script::After(gate));
        under_way.spawn(ask(&ada));
    }
    cloud.until_seen("/sessions/new", 2).await;
    let refused = ask(&ada).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"));
    assert_eq!(ask(&Caller::log_in(&server, "Bob").await).await.status, 201);
    drop(gates);
    while let Some(done) = under_way.join_next().await {
        assert_eq!(done.unwrap().status, 201);
    }
    assert_eq!(ask(&ada).await.status, 201, "the places are free again");
}

#[tokio::test]
async fn short_body_is_sent_only_when_complete() {
    let cloud = Cloud::start().await;
    let server = server_with(&cloud, |config| config.calls.timeout = Duration::from_millis(300)).await;
    let mut ada = Caller::log_in(&server, "Ada").await;
    let session = ada.open("/api/calls").await;
    let path = format!("/api/calls/sessions/{session}/renegotiate");
    let mut stream = TcpStream::connect(server.addresses().http).await.unwrap();
    let head =
        format!("PUT {path} HTTP/1.1\r\nhost: x\r\ncookie: {}\r\ncontent-length: 10\r\n\r\n{{", ada.cookies);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answered = [0; 12];
    stream.read_exact(&mut answered).await.unwrap();
    assert_eq!(&answered, b"HTTP/1.1 408");
    assert_eq!(cloud.seen_at("/renegotiate").len(), 0);
    assert_eq!(cloud.connections(), 1, "the one that opened the session");
}

/// Unauthenticated clients could take the permits that long bodies need.
#[tokio::test]
async fn unauthenticated_calls_take_no_permits() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let mut ada = Caller::log_in(&server, "Ada").await;
    let session = ada.open("/partytracks").await;
    let mut unauthenticated = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(server.addresses().http).await.unwrap();
        let head = "POST /partytracks/sessions/x/tracks/new HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        unauthenticated.push(stream);
    }
    let mut long = push();
    long["sessionDescription"]["sdp"] = "v".repeat(200_000).into();
    assert_eq!(ada.post(&format!("/partytracks/sessions/{session}/tracks/new"), &long).await.status, 200);
}

#[tokio::test]
async fn refusal_has_the_format_of_its_mount() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let ada = Caller::log_in(&server, "Ada").await;
    let foreign =
        |path: &str| answer(ada.ask(Method::POST, path).header("origin", "https://evil.example").body("{}"));
    let refused = foreign("/api/calls/sessions/new").await;
    assert_eq!((refused.status, &refused.json()["errorCode"]), (403, &json!("unauthorized")));
    let refused = foreign("/partytracks/sessions/a/tracks/new").await;
    assert_eq!((refused.status, &refused.json()["tracks"]), (403, &json!([])));
    let long = format!("/partytracks/sessions/a/tracks/new?{}", "x".repeat(10_000));
    let refused = answer(ada.ask(Method::POST, &long)).await.json();
    let expected =
        json!({"tracks": [], "failureCode": "invalid_params", "failureDescription": "the URL is too long"});
    assert_eq!(refused, expected);
    assert!(foreign("/partytracks/sessions/new").await.header("content-type").starts_with("text/plain"));
}

#[tokio::test]
async fn missing_half_of_credentials_is_named() {
    let cloud = Cloud::start().await;
    for (id, secret, sentence) in [
        (None, Some("s"), "this server has no media API: CALLS_APP_ID is not set"),
        (Some("a"), None, "this server has no media API: CALLS_APP_SECRET is not set"),
    ] {
        let server = server_with(&cloud, |config| {
            config.calls.app_id.0 = id.map(str::to_owned);
            config.calls.app_secret.0 = secret.map(Into::into);
        })
        .await;
        let ada = Caller::log_in(&server, "Ada").await;
        let refused = answer(ada.ask(Method::POST, "/api/calls/sessions/new")).await;
        assert_eq!(refused.status, 503);
        assert!(refused.json()["errorDescription"].as_str().unwrap().starts_with(sentence), "{refused:?}");
        assert_eq!(ada.post("/api/calls/sessions/a/tracks/new", &push()).await.status, 503);
        let refused = answer(ada.ask(Method::POST, "/partytracks/sessions/new")).await;
        assert_eq!(refused.status, 503);
        assert!(refused.text.starts_with(sentence), "{refused:?}");
    }
}

#[tokio::test]
async fn stun_is_offered_unless_media_are_embedded() {
    let cloud = Cloud::start().await;
    let bare = TestServer::start().await;
    let ada = Caller::log_in(&bare, "Ada").await;
    let servers = answer(ada.ask(Method::GET, "/partytracks/generate-ice-servers")).await;
    assert_eq!((servers.status, servers.json()), (200, json!({"iceServers": []})));
    let settings = answer(ada.ask(Method::GET, "/api/rooms/r/settings")).await.json();
    assert_eq!(settings["iceServers"], json!([]), "a page needs no request for what is known");
    let server = server_with(&cloud, |config| config.turn.service_token.0 = None).await;
    let ada = Caller::log_in(&server, "Ada").await;
    let servers = answer(ada.ask(Method::GET, "/partytracks/generate-ice-servers")).await;
    assert_eq!(
        (servers.status, servers.json()),
        (
            200,
            json!({"iceServers": [{"urls": ["stun:stun.cloudflare.com:3478", "stun:stun.cloudflare.com:53"]}]})
        )
    );
    assert_eq!(cloud.seen().len(), 0);
}

#[tokio::test]
async fn turn_credentials_are_cached_by_identity() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let ada = Caller::log_in(&server, "Ada").await;
    let ask = |caller: &Caller<'_>| answer(caller.ask(Method::GET, "/partytracks/generate-ice-servers"));
    let (first, second) = tokio::join!(ask(&ada), ask(&ada));
    assert_eq!((first.status, &first.text), (200, &second.text));
    assert_eq!(first.json()["iceServers"][1]["username"], "u");
    let [seen] = &cloud.seen()[..] else { panic!("asked more than once") };
    assert_eq!(seen.target, "/v1/turn/keys/key/credentials/generate-ice-servers");
    assert_eq!((seen.json(), &seen.method), (json!({"ttl": 86400}), &Method::POST));
    assert_eq!(seen.header("authorization"), format!("Bearer {TURN_TOKEN}"));

    let bob = Caller::log_in(&server, "Bob").await;
    let older = r#"{"iceServers":{"urls":["turn:t"],"username":"b","credential":"c"}}"#;
    cloud.script("/generate-ice-servers", Script::Answer(201, older.to_owned()));
    assert_eq!(ask(&bob).await.text, older, "the older form passes");
    assert_eq!(cloud.seen().len(), 2);
}

/// A page that read a failure gave up, though the media server worked.
#[tokio::test]
async fn failed_turn_falls_back_to_stun_and_is_retried() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let ada = Caller::log_in(&server, "Ada").await;
    let ask = async || answer(ada.ask(Method::GET, "/partytracks/generate-ice-servers")).await;
    for script in [
        Script::Answer(403, "{}".to_owned()),
        Script::Answer(200, "<html>".to_owned()),
        Script::Answer(200, r#"{"iceServers":null}"#.to_owned()),
        Script::Drop,
    ] {
        cloud.script("/generate-ice-servers", script);
        let failed = ask().await;
        assert_eq!(failed.status, 200);
        assert!(
            failed.json()["iceServers"][0]["urls"][0].as_str().unwrap().starts_with("stun:"),
            "{failed:?}"
        );
    }
    assert_eq!(ask().await.json()["iceServers"][1]["username"], "u");
}

/// Every visitor waited for an unavailable service, and calls were refused meanwhile.
#[tokio::test]
async fn unavailable_turn_delays_no_call() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let ada = Caller::log_in(&server, "Ada").await;
    let ask = async || answer(ada.ask(Method::GET, "/partytracks/generate-ice-servers")).await;
    for _ in 0..5 {
        cloud.script("/generate-ice-servers", Script::Drop);
        assert_eq!(ask().await.status, 200);
    }
    let seen = cloud.seen().len();
    assert_eq!(ask().await.status, 200);
    assert_eq!(cloud.seen().len(), seen, "the service is given a pause");
    assert_eq!(answer(ada.ask(Method::POST, "/api/calls/sessions/new")).await.status, 201);
}

#[tokio::test]
async fn secrets_and_queries_are_not_logged() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let ada = Caller::log_in(&server, "Ada").await;
    for script in [Script::Drop, Script::Endless] {
        cloud.script("/sessions/new", script);
        answer(ada.ask(Method::POST, "/api/calls/sessions/new?a-secret-query=1")).await;
    }
    answer(ada.ask(Method::GET, "/partytracks/generate-ice-servers")).await;
    let lines = logged();
    assert!(lines.contains("mediaApiFailed"), "the failure is logged");
    for secret in [SECRET, TURN_TOKEN, "a-secret-query", &ada.cookies] {
        assert!(!lines.contains(secret), "{secret} is in the log");
    }
}

/// Sends a request verbatim, and reads the answer to its end.
async fn raw(server: &TestServer, method: &str, path: &str, cookie: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(server.addresses().http).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\ncookie: {cookie}\r\nconnection: close\r\n{headers}content-length: 2\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn header() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec![
        "authorization",
        "Cookie",
        "host",
        "connection",
        "x-forwarded-host",
        "x-forwarded-for",
        "upgrade",
        "te",
        "proxy-authorization",
        "x-http-method-override",
        "transfer-encoding",
    ]);
    (names, "[a-z0-9 =;:/._-]{0,20}").prop_map(|(name, value)| format!("{name}: stray-{value}\r\n"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_a_client_sends_leaves_the_application_or_carries_its_headers(
        requests in prop::collection::vec(
            (
                prop::sample::select(vec!["GET", "POST", "PUT", "DELETE", "CONNECT"]),
                prop::sample::select(MOUNTS.to_vec()),
                "(/sessions|/sessions/new|/sessions/a1/tracks/new|/[a-z.%2f/\\\\]{0,12}){1,3}",
                "(\\?[!-~]{0,20})?",
                prop::collection::vec(header(), 0..4),
            ),
            1..6,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let cloud = Cloud::start().await;
            let server = server_with(&cloud, |config| config.calls.session_lock = false).await;
            let ada = Person::log_in(&server, "Ada").await;
            for (method, mount, path, query, headers) in requests {
                let path = format!("{mount}{path}{query}");
                raw(&server, method, &path, ada.cookie(), &headers.concat()).await;
                raw(&server, "POST", &format!("{mount}/sessions/new{query}"), ada.cookie(), &headers.concat()).await;
            }
            raw(&server, "POST", "/partytracks/sessions/new?a=b", ada.cookie(), "x-other: stray-1\r\n").await;
            assert!(!cloud.seen().is_empty(), "something gets through");
            for seen in cloud.seen() {
                let path = seen.target.split('?').next().unwrap();
                assert!(path.starts_with("/v1/apps/app/sessions/"), "{seen:?}");
                assert!(!path.contains("..") && !path.contains('%') && !path.contains("//"), "{seen:?}");
                assert_eq!(seen.header("authorization"), format!("Bearer {SECRET}"));
                assert_eq!(seen.headers.get_all("authorization").iter().count(), 1);
                for (name, value) in &seen.headers {
                    assert_ne!(name, "cookie");
                    assert!(!value.to_str().unwrap().contains("stray-"), "{seen:?}");
                }
            }
        });
    }
}
