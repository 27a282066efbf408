//! The stock client's contract, tested with a small build of ours: documents, data, forms and files.

use std::fs;
use std::path::{Path, PathBuf};

use axum::http::Method;
use reqwest::RequestBuilder;
use satsuma::config::{Config, MediaUpstream, Optional};
use satsuma::server::{Server, StartError};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::browser::Browser;
use crate::client::Client;
use crate::cloud::{Cloud, Script};
use crate::harness::{Answer, Person, TestServer, answer};

const LOBBY: &str = "routes/_room.$roomName._index";
const MEETING: &str = "routes/_room.$roomName.room";

fn build() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client-build")
}

fn with_client(config: &mut Config) {
    config.client.dir = Optional(Some(build()));
}

/// A copy of the build that a test may change.
fn copied_build() -> TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in from.read_dir().unwrap() {
            let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
            if from.is_dir() {
                copy(&from, &to);
            } else {
                fs::copy(from, to).unwrap();
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    copy(&build(), &dir.path().join("public"));
    dir
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The URL of a data request.
fn data_of(path: &str, id: &str) -> String {
    let mark = if path.contains('?') { '&' } else { '?' };
    format!("{path}{mark}_data={}", encoded(id))
}

fn by(request: RequestBuilder, person: &Person) -> RequestBuilder {
    request.header("cookie", person.cookie())
}

async fn get(server: &TestServer, person: &Person, path: &str) -> Answer {
    answer(by(server.get(path), person)).await
}

async fn data(server: &TestServer, person: &Person, path: &str, id: &str) -> Answer {
    get(server, person, &data_of(path, id)).await
}

/// The context that a document passes to its client.
fn context(document: &Answer) -> Value {
    let text = document.text.split("window.__remixContext=").nth(1).unwrap_or_else(|| panic!("{document:?}"));
    serde_json::from_str(text.split(";</script>").next().unwrap()).unwrap()
}

#[tokio::test]
async fn pages_are_documents_with_their_routes_data() {
    let server = TestServer::with(|config| {
        with_client(config);
        config.client.max_webcam_bitrate = 1_000_000;
    })
    .await;
    let ada = Person::log_in(&server, "Ada </script>").await;
    for (path, routes) in [
        ("/", &["root", "routes/_index"][..]),
        ("/r", &["root", "routes/_room", LOBBY]),
        ("/a%20b%2Fc", &["root", "routes/_room", LOBBY]),
        ("/r?x=1", &["root", "routes/_room", LOBBY]),
        ("/r/", &["root", "routes/_room", LOBBY]),
        ("/r/room", &["root", "routes/_room", MEETING]),
        ("/set-username", &["root"]),
        ("/call-quality-feedback?meetingId=x", &["root"]),
    ] {
        let document = get(&server, &ada, path).await;
        assert_eq!(document.status, 200, "{path}");
        assert_eq!(document.header("content-type"), "text/html; charset=utf-8");
        assert_eq!(document.header("cache-control"), "no-store");
        let context = context(&document);
        // As it was sent, without the query: the client reloads on a difference.
        assert_eq!(context["url"], path.split('?').next().unwrap());
        let loaded = context["state"]["loaderData"].as_object().unwrap();
        assert!(
            routes.iter().all(|id| loaded.contains_key(*id)) && loaded.len() == routes.len(),
            "{path}: {loaded:?}"
        );
        if let Some(room) = loaded.get("routes/_room") {
            assert_eq!(room["maxWebcamBitrate"], 1_000_000);
        }
        assert!(!document.text.contains("Ada </script>"));
        assert_eq!(document.text.matches("</script>").count(), 3, "{path}");
        assert!(document.text.contains("import(\"/build/entry.client-AAAA0010.js\")"));
    }
    let document = get(&server, &ada, "/r").await;
    for part in [
        "import \"/build/manifest-AAAA0011.js\";",
        "<link rel=\"stylesheet\" href=\"/build/_assets/page-AAAA0012.css\">",
        "<link rel=\"modulepreload\" href=\"/build/shared-AAAA0009.js\">",
        "\"routes/_room.$roomName._index\":route2}",
    ] {
        assert!(document.text.contains(part), "{part}: {}", document.text);
    }
    assert_eq!(context(&document)["state"]["loaderData"][LOBBY]["username"], "Ada </script>");
}

#[tokio::test]
async fn document_policy_has_its_own_nonce() {
    let server = TestServer::with(|config| {
        with_client(config);
        config.http.trusted_proxies = vec!["127.0.0.1".parse::<std::net::IpAddr>().unwrap().into()];
        config.client.policy = vec!["connect-src https://sentry.example".parse().unwrap()];
        config.client.user_directory_url = Optional(Some("https://people.example/who".parse().unwrap()));
    })
    .await;
    let ada = Person::log_in(&server, "Ada").await;
    let (first, second) = (get(&server, &ada, "/r").await, get(&server, &ada, "/r").await);
    let nonce = |document: &Answer| {
        let policy = document.header("content-security-policy");
        let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap().to_owned();
        assert_eq!(document.text.matches(&format!("<script nonce=\"{nonce}\"")).count(), 3);
        nonce
    };
    assert_ne!(nonce(&first), nonce(&second));
    let policy = first.header("content-security-policy");
    assert!(
        policy.contains("https://sentry.example") && policy.contains(" https://people.example "),
        "{policy}"
    );
    assert!(!policy.contains("upgrade-insecure-requests"));
    assert_eq!(first.header("x-content-type-options"), "nosniff");
    assert_eq!(first.header("referrer-policy"), "same-origin");
    assert!(first.header("permissions-policy").contains("camera=(self)"));

    for page in ["/r", "/set-username"] {
        let secure = by(server.get(page), &ada).header("x-forwarded-proto", "https");
        let secure = answer(secure).await;
        assert!(secure.header("content-security-policy").ends_with("; upgrade-insecure-requests"), "{page}");
    }
}

#[tokio::test]
async fn user_without_name_is_redirected_and_returns() {
    let server = TestServer::with(with_client).await;
    let to_form = |path: &str| {
        format!("/set-username?return-url={}", encoded(&(server.http() + path)).replace('+', "%20"))
    };
    for path in ["/", "/r", "/r/room", "/r?x=1", "/call-quality-feedback"] {
        let sent = answer(server.get(path)).await;
        assert_eq!((sent.status, sent.header("location")), (302, &*to_form(path)), "{path}");
    }
    for (path, id) in [
        ("/", "root"),
        ("/", "routes/_index"),
        ("/r?x=1", "routes/_room"),
        ("/r", LOBBY),
        ("/r/room", MEETING),
    ] {
        let sent = answer(server.get(&data_of(path, id))).await;
        assert_eq!((sent.status, sent.header("x-remix-redirect")), (204, &*to_form(path)), "{path} {id}");
        assert_eq!(
            (sent.header("x-remix-status"), sent.header("x-remix-revalidate"), &*sent.text),
            ("302", "", "")
        );
    }
    let form = answer(server.get("/set-username?return-url=/r")).await;
    assert_eq!((form.status, context(&form)["state"]["loaderData"].clone()), (200, json!({"root": {}})));
    let root = answer(server.get(&data_of("/set-username", "root"))).await;
    assert_eq!((root.status, root.json()), (200, json!({})));

    let path = data_of("/set-username?return-url=/r", "routes/set-username");
    let named = answer(server.post_form(&path, &[("username", "Ada")])).await;
    assert_eq!((named.status, named.header("x-remix-redirect")), (204, "/r"));
    assert_eq!((named.header("x-remix-status"), named.header("x-remix-revalidate")), ("302", "yes"));
    let ada = Person::with_cookie(named.header("set-cookie").split(';').next().unwrap().to_owned());
    assert_eq!(get(&server, &ada, "/r").await.status, 200);
}

#[tokio::test]
async fn loader_data_match_the_settings() {
    let cloud = Cloud::start().await;
    let server = TestServer::with(|config| {
        cloud.configure(config);
        with_client(config);
        config.client.trace_link = Optional(Some("https://trace.example/".to_owned()));
        config.client.max_api_history = 50;
        config.client.simulcast = true;
        config.feedback.dashboard_worker_url = Optional(Some("https://dash.example".parse().unwrap()));
    })
    .await;
    let ada = Person::log_in(&server, "Ada").await;
    let servers = json!([{"urls": ["stun:stun.example:3478"]},
                         {"urls": ["turn:turn.example:3478"], "username": "u", "credential": "c"}]);
    for (path, id, expected) in [
        ("/", "root", json!({})),
        ("/", "routes/_index", json!({"username": "Ada", "usedAccess": false})),
        ("/r", LOBBY, json!({"username": "Ada", "callsAppId": "app"})),
        (
            "/r/room",
            "routes/_room",
            json!({
            "traceLink": "https://trace.example/", "iceServers": servers, "feedbackEnabled": true,
            "maxApiHistory": 50, "simulcastEnabled": true, "e2eeEnabled": false}),
        ),
        (
            "/r/room",
            MEETING,
            json!({
            "username": "Ada", "bugReportsEnabled": true, "disableLobbyEnforcement": false,
            "mode": "production", "hasDb": true, "hasAiCredentials": true,
            "dashboardDebugLogsBaseUrl": "https://dash.example"}),
        ),
    ] {
        let response = data(&server, &ada, path, id).await;
        assert_eq!((response.status, response.json()), (200, expected), "{path} {id}");
        assert_eq!(response.header("content-type"), "application/json");
        assert_eq!(
            (response.header("x-remix-response"), response.header("cache-control")),
            ("yes", "no-store")
        );
    }
    for (path, id) in [("/r", MEETING), ("/", LOBBY), ("/r", "routes/nothing"), ("/a/b/c", "root")] {
        let response = data(&server, &ada, path, id).await;
        assert_eq!((response.status, response.header("x-remix-error")), (403, "yes"), "{path} {id}");
        assert_eq!(response.json(), json!({"message": "that route is not one of this path"}));
    }
    assert_eq!(data(&server, &ada, "/set-username", "routes/set-username").await.status, 400);
    // The build's file, of any name.
    assert_eq!(
        get(&server, &ada, "/partytracks/generate-ice-servers?_data=root").await.json()["iceServers"],
        servers
    );
    assert_eq!(cloud.seen_at("/generate-ice-servers").len(), 1, "asked for once");
}

#[tokio::test]
async fn own_page_gets_its_settings_as_json() {
    let cloud = Cloud::start().await;
    let server = TestServer::with(|config| {
        cloud.configure(config);
        config.client.max_webcam_bitrate = 500_000;
        config.client.max_api_history = 50;
    })
    .await;
    let ada = Person::log_in(&server, "Ada").await;
    let user = get(&server, &ada, "/api/user").await;
    assert_eq!((user.status, user.json()), (200, json!({"username": "Ada", "rename": true})));
    let settings = get(&server, &ada, "/api/rooms/caf%C3%A9%2F1/settings").await;
    let servers = json!([{"urls": ["stun:stun.example:3478"]},
                         {"urls": ["turn:turn.example:3478"], "username": "u", "credential": "c"}]);
    let expected = json!({"username": "Ada", "rename": true, "media": true, "encryption": false, "ai": true, "chatHistory": true,
                          "grants": {"publish": {"audio": true, "video": true, "screen": true}, "chat": true},
                          "files": {"bytes": 10_485_760, "everyone": false}, "videos": {"files": true},
                          "webcam": {"maxBitrate": 500_000}, "maxApiHistory": 50, "iceServers": servers});
    assert_eq!((settings.status, settings.json()), (200, expected));
    assert_eq!(settings.header("cache-control"), "no-store");
    for path in ["/api/user", "/api/rooms/r/settings"] {
        let refused = answer(server.get(path)).await;
        assert_eq!((refused.status, refused.header("cache-control")), (401, "no-store"), "{path}");
    }
    assert_eq!(get(&server, &ada, "/r?_data=root").await.header("x-remix-response"), "", "no stock client");
}

#[tokio::test]
async fn loader_data_name_the_media_upstream() {
    let named = |name: &'static str| move |config: &mut Config| config.sfu.app_id = name.to_owned();
    let response = async |edit: &dyn Fn(&mut Config)| {
        let edit = |config: &mut Config| {
            with_client(config);
            edit(config);
        };
        let server = TestServer::with(edit).await;
        let ada = Person::log_in(&server, "Ada").await;
        let room = data(&server, &ada, "/r/room", "routes/_room").await.json();
        assert_eq!(room["iceServers"], Value::Null, "without any the client requests them");
        data(&server, &ada, "/r", LOBBY).await.json()["callsAppId"].clone()
    };
    assert_eq!(response(&|_| {}).await, "embedded");
    assert_eq!(response(&named("mine")).await, "mine");
    assert_eq!(response(&|config| config.calls.upstream = MediaUpstream::Cloudflare).await, Value::Null);
    let both = |config: &mut Config| {
        config.calls.app_id = Optional(Some("app".to_owned()));
        config.calls.upstream = MediaUpstream::Embedded;
    };
    assert_eq!(response(&both).await, "embedded");
}

#[tokio::test]
async fn slow_turn_does_not_delay_a_page() {
    let cloud = Cloud::start().await;
    let server = TestServer::with(|config| {
        cloud.configure(config);
        with_client(config);
    })
    .await;
    let ada = Person::log_in(&server, "Ada").await;
    cloud.script("/generate-ice-servers", Script::Silence);
    let document = get(&server, &ada, "/r").await;
    assert!(context(&document)["state"]["loaderData"]["routes/_room"]["iceServers"].is_null());
    cloud.script("/generate-ice-servers", Script::Answer(500, String::new()));
    assert!(data(&server, &ada, "/r", "routes/_room").await.json()["iceServers"].is_null());
    assert!(data(&server, &ada, "/r", "routes/_room").await.json()["iceServers"].is_array());
}

#[tokio::test]
async fn forms_and_resources_answer_in_remix_format() {
    let server = TestServer::with(with_client).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let meeting = ada.until_state(|_| true).await["meetingId"].take();
    let person = Person::log_in(&server, "Bob").await;
    let post = async |path: &str, id: &str, fields: &[(&str, &str)]| {
        answer(by(server.post_form(&data_of(path, id), fields), &person)).await
    };
    let sent = post("/?index", "routes/_index", &[("room", "my room")]).await;
    assert_eq!((sent.status, sent.header("x-remix-redirect")), (204, "/my-room"));
    let refused = post("/?index", "routes/_index", &[]).await;
    assert_eq!((refused.status, refused.header("x-remix-catch")), (400, "yes"));
    assert_eq!(refused.text, "the form needs a field \"room\"\n");

    let info = json!({"roomName": "r", "url": "http://localhost/r", "roomHistory": []}).to_string();
    let sent = post("/api/bugReport", "routes/api.bugReport", &[("description", "d"), ("info", &info)]).await;
    assert_eq!((sent.status, sent.json()), (200, json!({"status": "ok"})));
    assert_eq!(sent.header("x-remix-response"), "yes");
    let quality = [("experiencedIssues", "false"), ("meetingId", meeting.as_str().unwrap())];
    let sent = post("/call-quality-feedback", "routes/call-quality-feedback", &quality).await;
    assert_eq!((sent.status, sent.header("x-remix-redirect")), (204, "/"));
    let sent = post("/api/reportRefresh", "routes/api.reportRefresh", &[]).await;
    assert_eq!((sent.status, sent.header("x-remix-response")), (201, "yes"));
    let track = json!({"pullSessionTrace": "a", "pushedSessionTrace": "b", "trackId": "c"}).to_string();
    let request =
        server.request(&Method::POST, &data_of("/api/deadTrack", "routes/api.deadTrack")).body(track);
    assert_eq!(answer(by(request, &person)).await.json(), json!({"status": "ok"}));

    let sent = data(&server, &person, "/new?x=1", "routes/new").await;
    assert_eq!(sent.status, 204);
    let target = sent.header("x-remix-redirect");
    assert!(target.starts_with('/') && target.ends_with("?x=1") && target.len() > 13, "{sent:?}");
    let path = format!("/api/debugInfo?id={}", Uuid::new_v4());
    let refused = data(&server, &person, &path, "routes/api.debugInfo").await;
    assert_eq!((refused.status, refused.header("x-remix-catch")), (401, "yes"));
    let response = data(&server, &person, "/site.webmanifest", "routes/[site.webmanifest]").await;
    assert_eq!(response.json()["name"], "Orange Meets");
    let plain = get(&server, &person, "/site.webmanifest").await;
    assert_eq!(
        (plain.header("content-type"), plain.header("x-remix-response")),
        ("application/manifest+json", "")
    );
}

#[tokio::test]
async fn only_files_of_the_build_are_served() {
    let dir = copied_build();
    fs::write(dir.path().join("secret.txt"), "secret").unwrap();
    let public = dir.path().join("public");
    fs::write(public.join(".env"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret.txt", public.join("link.txt")).unwrap();
    let server = TestServer::with(|config| config.client.dir = Optional(Some(public.clone()))).await;
    for (path, content_type, cache) in [
        ("/build/root-AAAA0001.js", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"),
        (
            "/build/_assets/page-AAAA0012.css",
            "text/css; charset=utf-8",
            "public, max-age=31536000, immutable",
        ),
        ("/worker.js", "text/javascript; charset=utf-8", "no-cache"),
        ("/empty.wasm", "application/wasm", "no-cache"),
    ] {
        // They need no identity.
        let file = answer(server.get(path)).await;
        assert_eq!((file.status, file.header("content-type")), (200, content_type), "{path}");
        assert_eq!((file.header("cache-control"), file.header("x-content-type-options")), (cache, "nosniff"));
        let again = answer(server.get(path).header("if-none-match", file.header("etag"))).await;
        assert_eq!((again.status, &*again.text), (304, ""), "{path}");
        let head = answer(server.request(&Method::HEAD, path)).await;
        assert_eq!((head.status, head.header("content-length")), (200, file.header("content-length")));
        let part = answer(server.get(path).header("range", "bytes=1-3")).await;
        assert_eq!((part.status, part.header("content-length")), (206, "3"));
    }
    let packed =
        answer(server.get("/build/manifest-AAAA0011.js").header("accept-encoding", "gzip, br")).await;
    assert_eq!((packed.header("content-encoding"), packed.header("vary")), ("br", "accept-encoding"));

    let ada = Person::log_in(&server, "Ada").await;
    for path in [
        "/build/gone-AAAA0001.js",
        "/build/",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/build/..%2f..%2fsecret.txt",
        "/build/%2e%2e/%2e%2e/secret.txt",
        "/build//root-AAAA0001.js",
        "/build/.env",
        "/%5c..%5csecret.txt/x",
        "/build/root-AAAA0001.js%00/x",
    ] {
        let nothing = get(&server, &ada, path).await;
        assert!(!nothing.text.contains("secret\n") && nothing.text != "secret", "{path}: {nothing:?}");
        let is_a_room = nothing.status == 200 && nothing.text.contains("__remixContext");
        assert!(nothing.status == 404 || is_a_room, "{path}: {nothing:?}");
    }
    // As single names these are valid rooms.
    for path in ["/.env", "/link.txt", "/..%2fsecret.txt"] {
        assert!(get(&server, &ada, path).await.text.contains("__remixContext"), "{path}");
    }
}

#[tokio::test]
async fn not_found_has_a_page_and_a_text_form() {
    for has_build in [true, false] {
        let server = TestServer::with(|config| {
            if has_build {
                with_client(config)
            }
        })
        .await;
        let ada = Person::log_in(&server, "Ada").await;
        let page = answer(by(server.get("/a/b/c").header("accept", "text/html,*/*"), &ada)).await;
        assert_eq!((page.status, page.header("content-type")), (404, "text/html; charset=utf-8"));
        assert!(page.text.contains("Page not found") && page.header("etag").is_empty());
        let sentence = get(&server, &ada, "/a/b/c").await;
        assert_eq!((sentence.status, &*sentence.text), (404, "not found\n"));
        let refused = answer(by(server.post_form("/a/b/c", &[]), &ada)).await;
        assert_eq!(refused.status, 404);
    }
}

#[tokio::test]
async fn folder_without_a_build_fails_the_start() {
    let server = TestServer::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config { data_dir: dir.path().join("data"), ..Config::default() };
    config.http.listen.set_port(0);
    config.admin.listen.set_port(0);
    config.sfu.udp_listen = ([127, 0, 0, 1], 0).into();
    config.client.dir = Optional(Some(dir.path().to_owned()));
    let Err(StartError::Client(error)) = Server::start(config).await else { panic!("it started") };
    let place = dir.path().join("build");
    assert!(error.to_string().contains(&format!("{}/manifest-*.js", place.display())), "{error}");

    let flag = ["--client", dir.path().to_str().unwrap()];
    for command in ["check-config", "serve"] {
        let mut run = tokio::process::Command::new(env!("CARGO_BIN_EXE_satsuma"));
        run.arg(command).args(flag).args(["--listen", "127.0.0.1:0"]).current_dir(dir.path());
        run.env("SATSUMA_ADMIN__LISTEN", "127.0.0.1:0").env("SATSUMA_SFU__UDP_LISTEN", "127.0.0.1:0");
        let ended = run.output().await.unwrap();
        let output = String::from_utf8(ended.stderr).unwrap();
        assert!(!ended.status.success() && output.contains("manifest-*.js"), "{command}: {output}");
    }
    server.stop().await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn stock_build_starts_in_a_browser() {
    let browser = Browser::start().await;
    let server = TestServer::with(with_client).await;
    let visitor = browser.visitor().await;
    let tab = visitor.open(&format!("{}/a%20room?x=1", server.http())).await;
    tab.until("window.shown").await;
    assert_eq!(tab.eval("location.pathname").await, "/set-username");
    let form =
        "send(location.pathname + location.search, 'routes/set-username', {username: 'Ada </script><!--'})";
    let sent = tab.eval(form).await;
    let back = sent["redirect"].as_str().unwrap();
    assert_eq!((&sent["status"], back), (&json!(204), "/a%20room?x=1"));

    tab.go(&(server.http() + back)).await;
    tab.until("window.shown && location.pathname === '/a%20room'").await;
    let shown = tab.eval("shown").await;
    assert_eq!(shown["atItsPath"], true);
    assert_eq!(shown["routes"], json!(["root", "routes/_room", LOBBY]));
    assert_eq!(shown["rendered"], json!(["root", "_room", "lobby"]));
    assert_eq!(shown["data"][LOBBY]["username"], "Ada </script><!--");
    assert_eq!(shown["future"].as_object().unwrap().len(), 5);
    assert_eq!((&shown["version"], &shown["shared"]), (&json!("aaaa0011"), &json!("shared")));
    assert_eq!((&shown["style"], &shown["margin"]), (&json!("rgb(1, 2, 3)"), &json!("7px")));
    assert_eq!(shown["worker"], "compiled");
    let response = tab.eval("load('/a%20room/room', 'routes/_room.$roomName.room')").await;
    assert_eq!(
        (&response["status"], &response["data"]["username"]),
        (&json!(200), &json!("Ada </script><!--"))
    );
    let sent = tab.eval("send('/?index', 'routes/_index', {room: 'x y'})").await;
    assert_eq!(sent, json!({"status": 204, "redirect": "/x-y"}));
    // The alert would block the page.
    assert_eq!(tab.eval("alert('You are not connected to CF anycast address'), 'on'").await, "on");
    tab.assert_quiet().await;
    // The policy forbids foreign scripts.
    let foreign = "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.evil = 1'})), \
                   window.evil === undefined";
    assert_eq!(tab.eval(foreign).await, true);
}
