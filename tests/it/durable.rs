//! Durable objects over HTTP, as the Elixir library `cloudflare_durable` asks for them.

use std::net::SocketAddr;
use std::time::Duration;

use satsuma::config::{Config, DurableKey, KeySource};
use serde_json::{Value, json};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::{Answer, PATIENCE, TestServer, answer, eventually, logged};
use crate::operate::operate;

pub const KEY: &str = "test-key.0123456789";
pub const OTHER: &str = "test-key.of-a-tenant";

/// Sets the keys: one for all objects, one for those of a tenant.
pub fn keys(config: &mut Config) {
    let key = |key: &str, prefix: &str| DurableKey {
        secret: KeySource::Text(key.into()),
        prefix: prefix.to_owned(),
    };
    config.durable.keys = vec![key(KEY, ""), key(OTHER, "b:")];
}

pub async fn server() -> TestServer {
    TestServer::with(keys).await
}

/// A request as the library sends it: its headers alone, in its order.
fn as_sent(address: SocketAddr, method: &str, path: &str, body: Option<&str>) -> String {
    let mut request = format!("{method} {path} HTTP/1.1\r\n");
    if let Some(body) = body {
        request += &format!("content-length: {}\r\n", body.len());
    }
    request += &format!("host: {address}\r\nuser-agent: mint/1.7.1\r\n");
    if body.is_some() {
        request += "content-type: application/json\r\n";
    }
    request + "\r\n" + body.unwrap_or_default()
}

/// A connection of the library's pool.
pub struct Pooled {
    stream: TcpStream,
    address: SocketAddr,
}

impl Pooled {
    pub async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), address }
    }

    /// Sends a request below the key, and returns the status and the body, whose length the answer announces.
    pub async fn call(&mut self, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
        let path = format!("/durable/{KEY}{path}");
        self.send(&as_sent(self.address, method, &path, body)).await
    }

    async fn send(&mut self, request: &str) -> (u16, String) {
        self.try_send(request).await.expect("an answer")
    }

    /// The same; none if the server is gone.
    pub async fn try_call(&mut self, method: &str, path: &str, body: Option<&str>) -> Option<(u16, String)> {
        let path = format!("/durable/{KEY}{path}");
        self.try_send(&as_sent(self.address, method, &path, body)).await
    }

    async fn try_send(&mut self, request: &str) -> Option<(u16, String)> {
        self.stream.write_all(request.as_bytes()).await.ok()?;
        let mut bytes = Vec::new();
        let read = async {
            loop {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    let length: usize = length.expect("a length").parse().unwrap();
                    if body.len() >= length {
                        assert_eq!(body.len(), length);
                        return Some((head[9..12].parse().unwrap(), body.to_owned()));
                    }
                }
                if self.stream.read_buf(&mut bytes).await.ok()? == 0 {
                    return None;
                }
            }
        };
        timeout(PATIENCE, read).await.expect("no answer in time")
    }
}

async fn pooled(server: &TestServer) -> Pooled {
    Pooled::connect(server.addresses().http).await
}

async fn ask(server: &TestServer, method: &str, path: &str, body: Option<&str>) -> Answer {
    let request = server.request(&method.parse().unwrap(), &format!("/durable/{KEY}{path}"));
    answer(body.into_iter().fold(request, |request, body| request.body(body.to_owned()))).await
}

#[tokio::test]
async fn library_requests_are_answered_byte_for_byte() {
    let server = server().await;
    let mut library = pooled(&server).await;
    let document = r#"{"content":"Hello","version":1,"lastModified":""#;
    for (method, path, body, status, expected) in [
        ("GET", "/object/o/state", None, 200, r#"{"data":{}}"#),
        ("GET", "/object/o/state/missing", None, 404, r#"{"error":"Key not found"}"#),
        ("POST", "/initialize/o", Some(r#"{"name":"a","n":4}"#), 200, r#"{"success":true}"#),
        ("POST", "/object/o/method/increment", Some("{}"), 200, r#"{"result":{"value":1},"value":1}"#),
        (
            "POST",
            "/object/o/method/method_increment",
            Some(r#"{"increment":5}"#),
            200,
            r#"{"result":{"value":6},"value":6}"#,
        ),
        ("POST", "/object/o/method/get_value", Some("{}"), 200, r#"{"result":{"value":6},"value":6}"#),
        (
            "POST",
            "/object/o/method/get_value",
            Some(r#"{"key":"z"}"#),
            200,
            r#"{"result":{"value":0},"value":0}"#,
        ),
        ("POST", "/object/o/method/echo", Some(r#"{"a":1}"#), 200, r#"{"result":{"a":1},"a":1}"#),
        ("POST", "/object/o/method/echo", Some("[1]"), 200, r#"{"result":[1]}"#),
        ("POST", "/object/o/method/nothing", Some("{}"), 404, r#"{"error":"Method not found: nothing"}"#),
        (
            "POST",
            "/object/o/method/constructor",
            Some("{}"),
            404,
            r#"{"error":"Method not found: constructor"}"#,
        ),
        ("POST", "/object/o/method/update", Some("{}"), 500, r#"{"error":"Content is required"}"#),
        (
            "POST",
            "/object/o/method/increment",
            Some(r#"{"increment":"3"}"#),
            400,
            r#"{"error":"increment is to be a number"}"#,
        ),
        (
            "PUT",
            "/object/o/state/color",
            Some(r#"{"value":"blue"}"#),
            200,
            r#"{"success":true,"key":"color"}"#,
        ),
        (
            "PUT",
            "/object/o/state/nothing",
            Some(r#"{"value":null}"#),
            200,
            r#"{"success":true,"key":"nothing"}"#,
        ),
        ("GET", "/object/o/state/nothing", None, 200, r#"{"key":"nothing","value":null}"#),
        ("GET", "/object/o/state/color", None, 200, r#"{"key":"color","value":"blue"}"#),
        ("DELETE", "/object/o/state/color", None, 200, r#"{"success":true,"key":"color"}"#),
        ("DELETE", "/object/o/state/color", None, 200, r#"{"success":true,"key":"color"}"#),
        ("GET", "/object/o/state/color", None, 404, r#"{"error":"Key not found"}"#),
        ("GET", "/object/o/state", None, 200, r#"{"data":{"n":4,"name":"a","nothing":null,"value":6}}"#),
        ("GET", "/namespace/chat/id/lobby", None, 200, r#""chat:lobby""#),
        ("PUT", "/object/o/state/k", Some("{}"), 400, r#"{"error":"the body lacks a value"}"#),
        (
            "PUT",
            "/object/o/state/k",
            Some("{"),
            400,
            r#"{"error":"the body is to be a JSON object with a value"}"#,
        ),
        ("POST", "/initialize/o", Some("[1]"), 400, r#"{"error":"the body is to be a JSON object"}"#),
        ("POST", "/object/o/method/echo", Some("{"), 400, r#"{"error":"the body is to be JSON"}"#),
        ("GET", "/initialize/o", None, 405, r#"{"error":"Method not allowed"}"#),
        ("PATCH", "/object/o/state/k", Some("{}"), 405, r#"{"error":"Method not allowed"}"#),
        ("GET", "/health", None, 404, r#"{"error":"Not found"}"#),
    ] {
        let (got, text) = library.call(method, path, body).await;
        assert_eq!((got, &*text), (status, expected), "{method} {path} {body:?}");
    }
    let (status, text) =
        library.call("POST", "/object/o/method/update", Some(r#"{"content":"Hello"}"#)).await;
    assert!(status == 200 && text.starts_with(&format!(r#"{{"result":{document}"#)), "{text}");
    let (_, text) = library.call("GET", "/object/o/state/document", None).await;
    assert!(text.starts_with(&format!(r#"{{"key":"document","value":{document}"#)), "{text}");
    let answer = ask(&server, "GET", "/object/o/state", None).await;
    assert_eq!(
        (answer.header("content-type"), answer.header("cache-control")),
        ("application/json", "no-store")
    );
    for absent in ["access-control-allow-origin", "set-cookie"] {
        assert_eq!(answer.header(absent), "", "{absent}");
    }
    let answer = ask(&server, "POST", "/object/o/state", Some("{}")).await;
    assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"));
}

#[tokio::test]
async fn names_of_keys_are_plain() {
    let server = server().await;
    let mut library = pooled(&server).await;
    for (path, key) in [
        ("a/b//c", "a/b//c"),
        ("/k", "/k"),
        ("k%20x", "k x"),
        ("100%", "100%"),
        ("%2525", "%25"),
        ("__proto__", "__proto__"),
        ("constructor", "constructor"),
        ("caf%C3%A9", "café"),
        ("a%2Fb", "a/b"),
        ("..", ".."),
    ] {
        let path = format!("/object/__proto__/state/{path}");
        let (status, text) = library.call("PUT", &path, Some(r#"{"value":[1.0]}"#)).await;
        assert_eq!(
            (status, serde_json::from_str::<Value>(&text).unwrap()),
            (200, json!({"success": true, "key": key}))
        );
        let (status, text) = library.call("GET", &path, None).await;
        assert_eq!(status, 200, "{path}");
        assert!(text.ends_with(r#""value":[1.0]}"#), "{text}");
        let (status, _) = library.call("DELETE", &path, None).await;
        assert_eq!(status, 200);
    }
    let (_, text) = library.call("GET", "/object/__proto__/state", None).await;
    assert_eq!(text, r#"{"data":{}}"#);
    let (status, _) = library.call("POST", "/initialize/o", Some(r#"{"__proto__":{"a":1},"":1}"#)).await;
    assert_eq!(status, 400, "a key is not empty");
    library.call("POST", "/initialize/o", Some(r#"{"__proto__":{"a":1},"a":2,"a":3}"#)).await;
    let (_, text) = library.call("GET", "/object/o/state", None).await;
    assert_eq!(text, r#"{"data":{"__proto__":{"a":1},"a":3}}"#);
}

#[tokio::test]
async fn only_a_key_opens_its_objects() {
    let server = server().await;
    let status = async |path: &str, bearer: Option<&str>| {
        let request = server.get(path);
        let request = bearer.into_iter().fold(request, |request, key| request.bearer_auth(key));
        answer(request).await
    };
    let wrong = status(&format!("/durable/{KEY}x/object/o/state"), None).await;
    assert_eq!((wrong.status, wrong.header("www-authenticate")), (401, "Bearer"));
    assert_eq!(wrong.json()["error"].as_str().map(|error| error.contains("key")), Some(true));
    for (path, bearer, expected) in [
        (format!("/durable/{KEY}/object/o/state"), None, 200),
        (format!("/durable/{KEY}//object/o/state"), None, 200),
        (format!("/durable//{KEY}/object/o/state"), None, 200),
        ("/durable/object/o/state".to_owned(), Some(KEY), 200),
        ("/durable/object/o/state".to_owned(), Some("wrong"), 401),
        (format!("/durable/{KEY}/object/o/state"), Some("wrong"), 200),
        ("/durable/object/o/state".to_owned(), None, 401),
        ("/durable/anything".to_owned(), None, 401),
        (format!("/durable/{}/object/o/state", KEY.to_uppercase()), None, 401),
        (format!("/durable/{}/object/o/state", KEY.replace('.', "%2E")), None, 401),
        (format!("/Durable/{KEY}/object/o/state"), None, 404),
        (format!("/durable/{OTHER}/object/b:1/state"), None, 200),
        (format!("/durable/{OTHER}/object/b%3A1/state"), None, 200),
        (format!("/durable/{OTHER}/object/o/state"), None, 404),
        (format!("/durable/{OTHER}/namespace/b/id/1"), None, 200),
        (format!("/durable/{OTHER}/namespace/c/id/1"), None, 404),
        (format!("/durable/{OTHER}/object/b:%2F..%2Fo/state"), None, 400),
    ] {
        assert_eq!(status(&path, bearer).await.status, expected, "{path} {bearer:?}");
    }
    let mut library = pooled(&server).await;
    for path in ["/durable/x/..", "/durable/%2E%2E", "/durable/.", "/durable/%2f"] {
        let request = as_sent(server.addresses().http, "GET", &format!("{path}/{KEY}/object/o/state"), None);
        assert_eq!(library.send(&request).await.0, 401, "{path}");
    }
    let long = status(&format!("/durable/{KEY}/object/o/state/{}", "k".repeat(9000)), None).await;
    assert_eq!((long.status, long.json()), (414, json!({"error": "the URL is too long"})));
    let log = logged();
    assert!(!log.contains(KEY) && !log.contains(OTHER), "a key is in the log");
    let metrics = answer(server.admin("/metrics")).await.text;
    assert!(!metrics.contains(KEY) && metrics.contains("/durable/{*path}"));
    assert_eq!(server.metric(r#"satsuma_durable_errors_total{reason="unauthorized"}"#).await, 10.0);
}

#[tokio::test]
async fn objects_are_off_without_a_key() {
    let server = TestServer::start().await;
    for path in [format!("/durable/{KEY}/object/o/state"), "/durable/object/o/state".to_owned()] {
        assert_eq!(answer(server.get(&path)).await.status, 404, "{path}");
    }
    assert!(!server.data_dir().join("objects.db").exists());
}

#[tokio::test]
async fn increments_at_once_are_all_counted() {
    let server = server().await;
    let address = server.addresses().http;
    let mut calls = JoinSet::new();
    for _ in 0..200 {
        calls.spawn(async move {
            let mut library = Pooled::connect(address).await;
            library.call("POST", "/object/counter/method/increment", Some("{}")).await
        });
    }
    let mut seen: Vec<u64> = Vec::new();
    while let Some(called) = calls.join_next().await {
        let (status, text) = called.unwrap();
        assert_eq!(status, 200, "{text}");
        seen.push(serde_json::from_str::<Value>(&text).unwrap()["value"].as_u64().unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=200).collect::<Vec<_>>());
    let server = server.restart().await;
    let state = ask(&server, "GET", "/object/counter/state", None).await;
    assert_eq!(state.text, r#"{"data":{"value":200}}"#);
}

#[tokio::test]
async fn limits_refuse_one_byte_too_many() {
    let server = TestServer::with(|config| {
        keys(config);
        config.durable.value_bytes = 1024;
        config.durable.object_bytes = 2048;
        config.durable.body_bytes = 1500;
        config.durable.keys_per_object = 2;
        config.durable.objects = 2;
    })
    .await;
    let put = async |path: &str, bytes: usize| {
        let body = format!(r#"{{"value":"{}"}}"#, "x".repeat(bytes - 2));
        let answer = ask(&server, "PUT", path, Some(&body)).await;
        (answer.status, answer.json()["error"].as_str().unwrap_or_default().to_owned())
    };
    let ok = (200, String::new());
    assert_eq!(put("/object/o/state/a", 1024).await, ok);
    assert_eq!(put("/object/o/state/a", 1025).await, (413, "the value is too long".to_owned()));
    assert_eq!(put("/object/o/state/b", 1022).await, ok);
    assert_eq!(put("/object/o/state/b", 1023).await, (413, "the object is too large".to_owned()));
    assert_eq!(put("/object/o/state/b", 10).await, ok);
    assert_eq!(put("/object/o/state/c", 10).await, (413, "the object has too many keys".to_owned()));
    assert_eq!(put("/object/p/state/a", 1488).await, (413, "the value is too long".to_owned()));
    assert_eq!(put("/object/p/state/a", 1491).await, (413, "the body is too long".to_owned()));
    assert_eq!(put("/object/p/state/a", 10).await, ok);
    let full = (503, "there are too many objects".to_owned());
    assert_eq!(put("/object/q/state/a", 10).await, full);
    ask(&server, "DELETE", "/object/p/state/a", None).await;
    assert_eq!(put("/object/q/state/a", 10).await, ok, "the last key's end is the object's");
    // Nothing of a refused call is applied, and chunked bodies have the same limit.
    let initialize = ask(&server, "POST", "/initialize/o", Some(r#"{"a":1,"c":2}"#)).await;
    assert_eq!(initialize.status, 413);
    assert_eq!(
        ask(&server, "GET", "/object/o/state/a", None).await.text.len(),
        1024 + r#"{"key":"a","value":}"#.len()
    );
    let chunks = futures_util::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>("x".repeat(100))));
    let request = server.request(&axum::http::Method::POST, &format!("/durable/{KEY}/initialize/o"));
    let chunked = answer(request.body(reqwest::Body::wrap_stream(chunks))).await;
    assert_eq!((chunked.status, chunked.json()), (413, json!({"error": "the body is too long"})));
    let deep = format!(r#"{{"value":{}{}}}"#, "[".repeat(129), "]".repeat(129));
    assert_eq!(ask(&server, "PUT", "/object/q/state/a", Some(&deep)).await.status, 400);
}

#[tokio::test]
async fn calls_too_fast_are_refused() {
    let server = TestServer::with(|config| {
        keys(config);
        config.durable.calls_per_second = 8;
        config.durable.calls_per_second_per_object = 3;
    })
    .await;
    // Enough calls to exceed the rates, however long they take together.
    let at_once = async |object: fn(usize) -> String| {
        let asked = (0..100).map(|n| server.get(&format!("/durable/{KEY}/object/{}/state", object(n))));
        futures_util::future::join_all(asked.map(answer)).await
    };
    for (object, sentence) in [
        ((|_| "o".to_owned()) as fn(usize) -> String, "too many calls on this object"),
        (|n| format!("p{n}"), "too many calls with this key"),
    ] {
        let answers = at_once(object).await;
        let refused = answers.iter().find(|answer| answer.text == format!(r#"{{"error":"{sentence}"}}"#));
        let refused = refused.unwrap_or_else(|| panic!("{sentence}: {answers:?}"));
        assert_eq!((refused.status, refused.header("retry-after")), (429, "1"));
        assert!(answers.iter().any(|answer| answer.status == 200) || object(0) != object(1));
    }
    let other = answer(server.get(&format!("/durable/{OTHER}/object/b:1/state"))).await;
    assert_eq!(other.status, 200, "another key has its own");
}

#[tokio::test]
async fn reading_makes_no_object_and_idle_ones_leave() {
    let server = TestServer::with(|config| {
        keys(config);
        config.durable.idle_timeout = Duration::from_millis(10);
    })
    .await;
    for n in 0..50 {
        ask(&server, "GET", &format!("/object/none{n}/state"), None).await;
    }
    server.until_metric("satsuma_durable_loaded", 0.0).await;
    ask(&server, "PUT", "/object/o/state/k", Some(r#"{"value":1}"#)).await;
    server.until_metric("satsuma_durable_loaded", 0.0).await;
    assert_eq!(server.metric("satsuma_durable_loaded_bytes").await, 0.0);
    assert_eq!(server.metric("satsuma_durable_objects").await, 1.0);
    assert_eq!(ask(&server, "GET", "/object/o/state", None).await.text, r#"{"data":{"k":1}}"#);
    let stopped = server.stop().await;
    let options = SqliteConnectOptions::new().filename(stopped.data_dir().join("objects.db"));
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    let rows: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM objects").fetch_one(&mut database).await.unwrap();
    assert_eq!(rows, 1);
}

#[tokio::test]
async fn operators_list_look_and_remove() {
    let server = server().await;
    for n in 0..3 {
        ask(&server, "POST", &format!("/initialize/shop:{n}"), Some(r#"{"a":[1.0],"b":null}"#)).await;
    }
    ask(&server, "PUT", "/object/odd%20%C3%A9/state/k", Some(r#"{"value":1}"#)).await;
    let ids = async |query: &str| {
        let page = server.admin_get(&format!("/admin/objects{query}")).await.json();
        let ids: Vec<_> = page["objects"]
            .as_array()
            .unwrap()
            .iter()
            .map(|object| object["id"].as_str().unwrap().to_owned())
            .collect();
        (ids.join(" "), page["next"].clone())
    };
    assert_eq!(ids("").await, ("odd é shop:0 shop:1 shop:2".to_owned(), Value::Null));
    assert_eq!(ids("?prefix=shop:&limit=2").await, ("shop:0 shop:1".to_owned(), json!("shop:1")));
    assert_eq!(ids("?prefix=shop:&limit=2&after=shop:1").await, ("shop:2".to_owned(), Value::Null));
    assert_eq!(server.admin_get("/admin/objects?limit=201").await.status, 400);
    let object = server.admin_get("/admin/objects/shop:1").await;
    assert!(object.text.contains(r#""values":{"a":[1.0],"b":null}"#), "{object:?}");
    let object = object.json();
    assert_eq!((&object["keys"], &object["bytes"], &object["version"]), (&json!(2), &json!(11), &json!(1)));

    let run = async |args: &[&str]| operate(&server, args).await.unwrap();
    let listed = run(&["objects", "list", "shop:"]).await;
    let lines: Vec<_> = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(lines[0], ["keys", "bytes", "version", "changed", "id"]);
    assert_eq!((lines.len(), lines[3][0], lines[3][1], lines[3][4]), (4, "2", "11", "shop:2"));
    assert!(
        run(&["objects", "list", "--limit", "2"])
            .await
            .ends_with("shop:0\nthere are more; --limit lists them\n")
    );
    let shown: Value = serde_json::from_str(&run(&["objects", "show", "odd é"]).await).unwrap();
    assert_eq!(shown["values"], json!({"k": 1}));
    assert_eq!(run(&["objects", "delete", "odd é"]).await, "odd é is removed\n");
    let (code, gone) = operate(&server, &["objects", "delete", "odd é"]).await.unwrap_err();
    assert!(code == 5 && gone.contains("no such object"), "{gone}");
    assert_eq!(ask(&server, "GET", "/object/odd%20%C3%A9/state", None).await.text, r#"{"data":{}}"#);
    assert_eq!(server.metric("satsuma_durable_objects").await, 3.0);
}

#[tokio::test]
async fn failing_disk_answers_503_and_loses_nothing() {
    let server = server().await;
    ask(&server, "PUT", "/object/o/state/k", Some(r#"{"value":1}"#)).await;
    let path = server.data_dir().join("objects.db");
    let mut database =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.unwrap();
    sqlx::query("CREATE TRIGGER full BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        .execute(&mut database)
        .await
        .unwrap();
    for _ in 0..3 {
        let refused = ask(&server, "PUT", "/object/o/state/k", Some(r#"{"value":2}"#)).await;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert_eq!(ask(&server, "GET", "/object/o/state/k", None).await.text, r#"{"key":"k","value":1}"#);
    }
    let increment = ask(&server, "POST", "/object/o/method/increment", Some("{}")).await;
    assert_eq!(increment.status, 200, "a new key is inserted");
    sqlx::query("DROP TRIGGER full").execute(&mut database).await.unwrap();
    assert_eq!(ask(&server, "PUT", "/object/o/state/k", Some(r#"{"value":3}"#)).await.status, 200);
    assert_eq!(ask(&server, "GET", "/object/o/state", None).await.text, r#"{"data":{"k":3,"value":1}}"#);
    assert_eq!(server.metric("satsuma_durable_commit_failures_total").await, 3.0);
    assert_eq!(server.metric("satsuma_durable_keys").await, 2.0);
    assert_eq!(server.metric("satsuma_durable_bytes").await, 2.0 + 6.0);
}

#[tokio::test]
async fn unwritable_objects_make_the_server_unready() {
    let server = server().await;
    assert_eq!(answer(server.admin("/readyz")).await.json()["objects"], json!({"status": "ok"}));
    let path = server.data_dir().join("objects.db");
    let mut database =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.unwrap();
    sqlx::query("CREATE TRIGGER full BEFORE UPDATE ON totals BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        .execute(&mut database)
        .await
        .unwrap();
    assert_eq!(ask(&server, "PUT", "/object/o/state/k", Some(r#"{"value":1}"#)).await.status, 503);
    let ready = answer(server.admin("/readyz")).await;
    assert_eq!((ready.status, &ready.json()["store"]), (503, &json!({"status": "ok"})));
    let objects = &ready.json()["objects"];
    assert_eq!(objects["status"], "failing");
    assert!(objects["since"].is_string() && objects["error"].to_string().contains("disk full"), "{objects}");
    assert_eq!(answer(server.get("/readyz")).await.text, "not ready\n");
    sqlx::query("DROP TRIGGER full").execute(&mut database).await.unwrap();
    // Nobody calls an unready server.
    eventually("the server is ready again".to_owned(), async || {
        answer(server.admin("/readyz")).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn long_bodies_and_answers_count_as_many_calls() {
    let server = TestServer::with(|config| {
        keys(config);
        config.durable.calls_per_second_per_object = 10;
        config.durable.value_bytes = 8 << 20;
    })
    .await;
    // As 64 calls more, which take six seconds.
    let long = format!(r#"{{"value":"{}"}}"#, "x".repeat(4 << 20));
    assert_eq!(ask(&server, "PUT", "/object/o/state/k", Some(&long)).await.status, 200);
    assert_eq!(ask(&server, "GET", "/object/o/state/k", None).await.status, 429);
    assert_eq!(ask(&server, "GET", "/object/p/state", None).await.status, 200, "another object");
    let mut server = server;
    let get_value = ("POST", "/object/o/method/get_value", Some(r#"{"key":"k"}"#));
    for (method, path, body) in
        [("GET", "/object/o/state", None), ("GET", "/object/o/state/k", None), get_value]
    {
        // A fresh server has counted nothing.
        server = server.restart().await;
        assert_eq!(ask(&server, method, path, body).await.status, 200, "{path}");
        assert_eq!(ask(&server, method, path, body).await.status, 429, "{path}");
    }
}
