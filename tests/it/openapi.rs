//! `docs/openapi.json` has all of the operators' routes, and matches real answers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use axum::http::Method;
use satsuma::config::WebhookConfig;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection, Executor};
use uuid::Uuid;

use crate::access_tokens;
use crate::client::Client;
use crate::cloud::Cloud;
use crate::durable;
use crate::event_webhooks::webhook;
use crate::feedback::{bug, info};
use crate::harness::{Answer, Person, TestServer, answer, eventually};
use crate::media_session::MediaSession;
use crate::memory_engine::MemoryNetwork;
use crate::peer::{LAYERED_CAMERA, MICROPHONE};
use crate::webhook::{Reply, Webhook};

/// Properties that are missing, or null, in the answers of this test.
const UNSEEN: [(&str, &str); 6] = [
    ("Setting.origin", "needs a server that is started by its command line"),
    ("RoomList.silentNodes", "needs a node that does not answer"),
    ("MeetingPage.silentNodes", "needs a node that does not answer"),
    ("SilentRoom.error", "needs a room that does not answer"),
    ("SilentRoom.room", "needs a room that does not answer"),
    ("Session.estimate_bits", "needs a congested network"),
];

/// The document, and the properties that answers had.
struct Document {
    json: Value,
    seen: Mutex<BTreeSet<String>>,
}

impl Document {
    fn load() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        let json = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        Self { json, seen: Mutex::default() }
    }

    /// Returns the target of a reference, or the value itself.
    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(reference) = value["$ref"].as_str() else { return value };
        let pointer = reference.strip_prefix('#').unwrap();
        self.json.pointer(pointer).unwrap_or_else(|| panic!("{reference} points to nothing"))
    }

    /// Asserts that an answer is one of those documented for the path: status, content type and body.
    #[track_caller]
    fn check(&self, method: &str, path: &str, answer: &Answer) {
        let at = format!("{method} {path}: {answer:?}");
        let operation = &self.json["paths"][path][method];
        assert!(operation.is_object(), "undocumented: {at}");
        let response = self.resolve(&operation["responses"][answer.status.to_string()]);
        assert!(response.is_object(), "undocumented status: {at}");
        let Some(content) = response["content"].as_object() else { return };
        let kind = answer.header("content-type").split(';').next().unwrap();
        let media = content.get(kind).unwrap_or_else(|| panic!("undocumented content type: {at}"));
        if kind == "application/json" {
            let valid = self.validate(&media["schema"], "", &answer.json());
            assert_eq!(valid, Ok(()), "{at}");
        }
    }

    /// Checks a value, and records its properties that are not null under their schema's name.
    fn validate(&self, schema: &Value, name: &str, value: &Value) -> Result<(), String> {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap();
            return self.validate(self.resolve(schema), name, value);
        }
        if let Some(variants) = schema["oneOf"].as_array() {
            let results: Vec<_> =
                variants.iter().map(|variant| self.validate(variant, name, value)).collect();
            let valid = results.iter().filter(|result| result.is_ok()).count();
            return if valid == 1 { Ok(()) } else { Err(format!("{name} matches {valid} of {results:?}")) };
        }
        let is = |kind: &Value| match kind.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_u64() || value.is_i64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            kind => panic!("the type {kind} is unknown"),
        };
        let is_valid = match &schema["type"] {
            Value::Null => true,
            Value::Array(kinds) => kinds.iter().any(is),
            kind => is(kind),
        };
        if !is_valid {
            return Err(format!("{name} is not of type {}: {value}", schema["type"]));
        }
        if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
            return Err(format!("{name} is none of {}: {value}", schema["enum"]));
        }
        if let Some(text) = value.as_str() {
            let is_valid = match schema["format"].as_str() {
                None => true,
                Some("uuid") => Uuid::try_parse(text).is_ok(),
                Some("date-time") => humantime::parse_rfc3339(text).is_ok(),
                Some("date") => humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).is_ok(),
                Some(format) => panic!("the format {format} is unknown"),
            };
            if !is_valid {
                return Err(format!("{name} is no {}: {text}", schema["format"]));
            }
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            self.validate(&schema["items"], &format!("{name}[{index}]"), item)?;
        }
        let (Some(members), Some(properties)) = (value.as_object(), schema["properties"].as_object()) else {
            return Ok(());
        };
        for required in schema["required"].as_array().unwrap() {
            if !members.contains_key(required.as_str().unwrap()) {
                return Err(format!("{name} lacks {required}"));
            }
        }
        for (key, value) in members {
            let Some(schema) = properties.get(key) else {
                return Err(format!("{name}.{key} is undocumented"));
            };
            let name = format!("{name}.{key}");
            self.validate(schema, &name, value)?;
            if !value.is_null() {
                self.seen.lock().unwrap().insert(name);
            }
        }
        Ok(())
    }

    /// Collects the names of all properties below a schema.
    fn properties(schema: &Value, name: &str, found: &mut BTreeSet<String>) {
        for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
            let name = format!("{name}.{key}");
            Self::properties(schema, &name, found);
            found.insert(name);
        }
    }
}

/// The paths in the source of the operators' listener.
fn operators_routes() -> BTreeSet<String> {
    let mut routes = BTreeSet::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin")).unwrap() {
        let source = fs::read_to_string(entry.unwrap().path()).unwrap();
        let paths = source.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        routes.extend(paths);
    }
    routes
}

#[test]
fn openapi_has_exactly_the_operators_routes() {
    let document = Document::load();
    let default = &document.json["servers"];
    let is_operators = |path: &Value| {
        let servers = if path["servers"].is_array() { &path["servers"] } else { default };
        servers.as_array().unwrap().iter().any(|server| server == &default[0])
    };
    let paths = document.json["paths"].as_object().unwrap();
    let documented: BTreeSet<_> =
        paths.iter().filter(|(_, item)| is_operators(item)).map(|(path, _)| path.clone()).collect();
    assert_eq!(documented, operators_routes());
}

#[test]
fn openapi_describes_every_property() {
    fn check(value: &Value, at: &str) {
        for (key, property) in value["properties"].as_object().into_iter().flatten() {
            let is_described = property["description"].is_string()
                || property["$ref"].is_string()
                || property["oneOf"].is_array();
            assert!(is_described, "{at}.{key} has no description");
        }
        for (key, child) in value.as_object().into_iter().flatten() {
            check(child, &format!("{at}.{key}"));
        }
    }
    check(&Document::load().json, "");
}

#[tokio::test]
async fn answers_match_openapi() {
    let document = Document::load();
    // Always, or a delivery that succeeds meanwhile has no error to show.
    let hook = Webhook::start([Reply::Status(500); 1000]).await;
    let failing = Webhook::start([Reply::Status(500); 1000]).await;
    let server = TestServer::with(|config| {
        config.feedback.url.0 = Some(hook.url().into());
        config.calls.room_check = false;
        config.room.tick = Duration::from_millis(50);
        durable::keys(config);
        config.auth = access_tokens::auth();
        let events = vec!["member.*".to_owned()];
        config.webhooks =
            vec![WebhookConfig { events, rooms: vec!["*".into()], ..webhook("app", failing.url()) }];
    })
    .await;
    let mut client = Client::join(&server, "my room", "Ada").await;
    let meeting = client.until_state(|_| true).await["meetingId"].as_str().unwrap().to_owned();
    let ada = Person::log_in(&server, "Ada").await;

    // Reports, and the counts.
    let post =
        |path: &str, form: &[(&str, &str)]| server.post_form(path, form).header("cookie", ada.cookie());
    document.check("post", "/api/bugReport", &answer(bug(&server, &ada, "no audio", &info("my room"))).await);
    hook.until(1).await;
    let track =
        json!({"pullSessionTrace": "a", "pushedSessionTrace": "b", "trackId": "t", "meetingId": meeting});
    let dead_track = answer(post("/api/deadTrack", &[]).body(track.to_string())).await;
    document.check("post", "/api/deadTrack", &dead_track);
    document.check("post", "/api/reportRefresh", &answer(post("/api/reportRefresh", &[])).await);
    let form = [("experiencedIssues", "true"), ("meetingId", &*meeting)];
    document.check("post", "/call-quality-feedback", &answer(post("/call-quality-feedback", &form)).await);

    // Media with layers.
    let (publisher, subscriber) =
        (MediaSession::of(&server, "Bob").await, MediaSession::of(&server, "Cyd").await);
    let (mids, _) = publisher.publish(&[("cam", LAYERED_CAMERA), ("mic", MICROPHONE)]).await;
    publisher.peer.say_in(mids[0], Some("a"), "large").await;
    let cam = json!({"location": "remote", "sessionId": publisher.session, "trackName": "cam",
                     "simulcast": {"preferredRid": "a"}});
    let mid = subscriber.subscribe_as(cam).await;
    subscriber.peer.until_received(mid, "large").await;

    for (path, url) in [
        ("/healthz", "/healthz"),
        ("/readyz", "/readyz"),
        ("/metrics", "/metrics"),
        ("/console", "/console"),
        ("/admin/settings", "/admin/settings"),
        ("/admin/session", "/admin/session"),
        ("/admin/rooms", "/admin/rooms"),
        ("/admin/rooms/{room}", "/admin/rooms/my%20room"),
        ("/admin/sfu", "/admin/sfu"),
        ("/admin/reports", "/admin/reports?limit=1"),
        ("/admin/feedback", "/admin/feedback"),
        ("/admin/meetings", "/admin/meetings?limit=1"),
    ] {
        let answered = server.admin_get(url).await;
        assert_eq!(answered.status, 200, "{url}: {answered:?}");
        document.check("get", path, &answered);
    }
    let list = async || {
        let answered = server.admin_get("/admin/reports").await;
        document.check("get", "/admin/reports", &answered);
        answered.json()["reports"].as_array().unwrap().clone()
    };
    let failed = |report: &Value| report["delivery"]["lastError"].is_string();
    eventually("a delivery failed".to_owned(), async || list().await.iter().any(failed)).await;
    for report in list().await {
        let id = report["id"].as_str().unwrap();
        let answered = server.admin_get(&format!("/admin/reports/{id}")).await;
        assert_eq!(answered.status, 200, "{answered:?}");
        document.check("get", "/admin/reports/{id}", &answered);
        let refused = answer(server.get(&format!("/api/debugInfo?id={id}"))).await;
        assert_eq!(refused.status, 401);
        document.check("get", "/api/debugInfo", &refused);
        let token = fs::read_to_string(server.data_dir().join("operator.token")).unwrap();
        let opened = server.get(&format!("/api/debugInfo?id={id}")).bearer_auth(token.trim());
        document.check("get", "/api/debugInfo", &answer(opened).await);
    }

    let moderate = "/admin/rooms/{room}/moderate";
    for body in [json!({"action": "lock", "on": false}), json!({"action": "mute", "id": "b"}), json!({})] {
        let answered = server.admin_post("/admin/rooms/my%20room/moderate", &body).await;
        document.check("post", moderate, &answered);
    }
    let settings = "/admin/rooms/{room}/settings";
    for body in [json!({"chat": true}), json!({"password": ""}), json!({"x": 1})] {
        document.check("put", settings, &server.admin_put("/admin/rooms/my%20room/settings", &body).await);
    }
    document.check("get", settings, &server.admin_get("/admin/rooms/my%20room/settings").await);
    server.admin_put("/admin/rooms/other/settings", &json!({"chat": false})).await;
    document.check("get", "/admin/room-settings", &server.admin_get("/admin/room-settings").await);
    for body in [json!({"room": "r", "name": "Ada"}), json!({"room": "*", "name": "Ada"}), json!({})] {
        document.check("post", "/admin/tokens", &server.admin_post("/admin/tokens", &body).await);
    }
    for body in [json!({"identity": "nobody", "key": "app"}), json!({})] {
        let revoked = server.admin_post("/admin/tokens/revoke", &body).await;
        document.check("post", "/admin/tokens/revoke", &revoked);
    }
    let revocations = "/admin/tokens/revocations";
    document.check("get", revocations, &server.admin_get(revocations).await);

    // Durable objects, of which one has an alarm.
    for object in ["a", "b"] {
        let path = format!("/durable/{}/object/{object}/method/increment", durable::KEY);
        assert_eq!(answer(server.request(&Method::POST, &path)).await.status, 200);
    }
    let options = SqliteConnectOptions::new().filename(server.data_dir().join("objects.db"));
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    other.execute("UPDATE objects SET alarm = 4102444800000").await.unwrap();
    for (path, url) in [
        ("/admin/objects", "/admin/objects?limit=1"),
        ("/admin/objects", "/admin/objects?prefix=b&after=a"),
        ("/admin/objects/{id}", "/admin/objects/a"),
    ] {
        let answered = server.admin_get(url).await;
        assert_eq!(answered.status, 200, "{url}: {answered:?}");
        document.check("get", path, &answered);
    }

    webhooks_match(&document, &server).await;
    cluster_matches(&document, &server).await;

    client.say(json!({"type": "userLeft"})).await;
    eventually("the meeting has ended".to_owned(), async || {
        let answered = server.admin_get("/admin/meetings").await;
        document.check("get", "/admin/meetings", &answered);
        answered.json()["meetings"][0]["ended"].is_string()
    })
    .await;

    // A store that cannot write.
    let options = SqliteConnectOptions::new().filename(server.data_dir().join("satsuma.db"));
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let _bob = Client::join(&server, "r", "Bob").await;
    eventually("the store fails".to_owned(), async || {
        let ready = answer(server.admin("/readyz")).await;
        document.check("get", "/readyz", &ready);
        document.check("get", "/readyz", &answer(server.get("/readyz")).await);
        ready.status == 503
    })
    .await;

    let mut documented = BTreeSet::new();
    for (name, schema) in document.json["components"]["schemas"].as_object().unwrap() {
        Document::properties(schema, name, &mut documented);
    }
    let seen = document.seen.into_inner().unwrap();
    let is_unseen = |name: &&String| !UNSEEN.iter().any(|(unseen, _)| unseen == name);
    let unseen: Vec<_> = documented.difference(&seen).filter(is_unseen).collect();
    assert!(unseen.is_empty(), "no answer has {unseen:?}");
}

/// A single node, and the first of two.
async fn cluster_matches(document: &Document, single: &TestServer) {
    document.check("get", "/admin/cluster", &single.admin_get("/admin/cluster").await);
    let network = MemoryNetwork::default();
    let (a, _) = TestServer::node(&network, None, |_| {}).await;
    let (_b, _) = TestServer::node(&network, Some(&a), |_| {}).await;
    let both = async || {
        let answered = a.admin_get("/admin/cluster").await;
        document.check("get", "/admin/cluster", &answered);
        answered.json()["nodes"].as_array().unwrap().len() == 2
    };
    eventually("both nodes are seen".to_owned(), both).await;
    document.check("get", "/readyz", &answer(a.admin("/readyz")).await);
}

/// Webhooks, one of whose events failed, and one was given up.
async fn webhooks_match(document: &Document, server: &TestServer) {
    let post = async |path: &str, url: &str| {
        let answered = server.admin_post(url, &json!({})).await;
        assert_eq!(answered.status, 200, "{url}: {answered:?}");
        document.check("post", path, &answered);
    };
    post("/admin/webhooks/{webhook}/test", "/admin/webhooks/app/test").await;
    let list = async || {
        let answered = server.admin_get("/admin/webhooks").await;
        document.check("get", "/admin/webhooks", &answered);
        answered.json()["webhooks"][0].clone()
    };
    eventually("an event failed".to_owned(), async || list().await["lastError"].is_string()).await;
    let options = SqliteConnectOptions::new().filename(server.data_dir().join("satsuma.db"));
    eventually("an event is given up".to_owned(), async || {
        // An attempt under way may postpone it again.
        let mut other = SqliteConnection::connect_with(&options).await.unwrap();
        other
            .execute("UPDATE deliveries SET state = 'dead' WHERE destination = 'webhook:app' AND last_error IS NOT NULL")
            .await
            .unwrap();
        let dead = server.admin_get("/admin/webhooks/dead?limit=1").await;
        document.check("get", "/admin/webhooks/dead", &dead);
        dead.json()["deadLetters"].as_array().unwrap().len() == 1
    })
    .await;
    post("/admin/webhooks/{webhook}/replay", "/admin/webhooks/app/replay").await;
    for (path, body, status) in [
        ("chat", json!({"message": "x"}), 204),
        ("messages", json!({"to": "nobody", "message": "x"}), 404),
        ("messages", json!({}), 400),
    ] {
        let answered = server.admin_post(&format!("/admin/rooms/my%20room/{path}"), &body).await;
        assert_eq!(answered.status, status, "{answered:?}");
        document.check("post", &format!("/admin/rooms/{{room}}/{path}"), &answered);
    }
}

#[tokio::test]
async fn refusals_match_openapi() {
    let document = Document::load();
    let cloud = Cloud::start().await;
    let server = TestServer::with(|config| cloud.configure(config)).await;
    for path in operators_routes() {
        let url = path.replace("{room}", "r").replace("{id}", "x").replace("{webhook}", "w");
        let method = if document.json["paths"][&path]["get"].is_object() { "get" } else { "post" };
        let foreign = server.admin(&url).header("host", "evil.example");
        let refused = answer(foreign).await;
        assert_eq!(refused.status, 403, "{url}");
        if !["/healthz", "/readyz"].contains(&&*path) {
            document.check(method, &path, &refused);
        }
        // Everybody may ask who is signed in.
        if path.starts_with("/admin/") && path != "/admin/session" {
            let refused = answer(server.admin(&url)).await;
            assert_eq!(refused.status, 401, "{url}");
            document.check(method, &path, &refused);
        }
    }
    for (path, url, status) in [
        ("/admin/sfu", "/admin/sfu".to_owned(), 404),
        ("/admin/rooms/{room}", "/admin/rooms/r".to_owned(), 404),
        ("/admin/rooms/{room}", format!("/admin/rooms/{}", "x".repeat(129)), 400),
        ("/admin/objects", "/admin/objects".to_owned(), 404),
        ("/admin/objects/{id}", "/admin/objects/x".to_owned(), 404),
        ("/admin/reports", "/admin/reports?limit=0".to_owned(), 400),
        ("/admin/reports/{id}", "/admin/reports/x".to_owned(), 400),
        ("/admin/reports/{id}", format!("/admin/reports/{}", Uuid::new_v4()), 404),
        ("/admin/meetings", "/admin/meetings?kind=bug".to_owned(), 400),
    ] {
        let refused = server.admin_get(&url).await;
        assert_eq!(refused.status, status, "{url}");
        document.check("get", path, &refused);
    }
    let ada = Person::log_in(&server, "Ada").await;
    for path in ["/api/bugReport", "/api/deadTrack", "/api/reportRefresh", "/call-quality-feedback"] {
        let refused = answer(server.post_form(path, &[])).await;
        assert_eq!(refused.status, 401, "{path}");
        document.check("post", path, &refused);
        let foreign = server.post_form(path, &[]).header("cookie", ada.cookie());
        let refused = answer(foreign.header("origin", "https://evil.example")).await;
        assert_eq!(refused.status, 403, "{path}");
        document.check("post", path, &refused);
        if path != "/api/reportRefresh" {
            let refused = answer(server.request(&Method::POST, path).header("cookie", ada.cookie())).await;
            assert_eq!(refused.status, 400, "{path}");
            document.check("post", path, &refused);
        }
    }
    let missing = answer(server.get("/api/debugInfo")).await;
    assert_eq!(missing.status, 400);
    document.check("get", "/api/debugInfo", &missing);
}
