//! Revocation and expiry of access tokens: what they end, and what survives a restart.

use std::fs;
use std::time::Duration;

use axum::http::Method;
use satsuma::config::{AccessLevel, AuthConfig, Config, KeySource, TokenKey};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, Executor, SqliteConnection};
use tokio::process::Command;

use crate::access_tokens::{SECRET, auth, token, token_until, token_with};
use crate::client::{Ask, Client};
use crate::harness::{Answer, PATIENCE, TestServer, answer, eventually};
use crate::process::{BINARY, Process};

const SOCKET: &str = "/socket/websocket?vsn=2.0.0";
const POLL: &str = "/socket/longpoll?vsn=2.0.0";

fn configured(config: &mut Config) {
    let second = TokenKey { id: "web".into(), secret: KeySource::Text(SECRET.to_uppercase().into()) };
    let mut auth = auth();
    auth.keys.push(second);
    config.auth = AuthConfig { rooms: AccessLevel::Token, ..auth };
    config.events.heartbeat = Duration::from_millis(100);
    // Nobody sends heartbeats here.
    config.room.heartbeat_timeout = Duration::from_secs(120);
}

async fn revoke(server: &TestServer, body: Value) -> Answer {
    let revoked = server.admin_post("/admin/tokens/revoke", &body).await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    revoked
}

async fn revocations(server: &TestServer) -> Vec<Value> {
    let list = server.admin_get("/admin/tokens/revocations").await.json();
    list["revocations"].as_array().unwrap().clone()
}

fn bearer(room: &str, token: &str) -> Ask {
    Ask::room(room).header("authorization", &format!("Bearer {token}"))
}

async fn user(server: &TestServer, token: &str) -> u16 {
    answer(server.get("/api/user").bearer_auth(token)).await.status
}

/// A token that the server makes, of an identity.
async fn made(server: &TestServer, identity: &str) -> String {
    let body = json!({"room": "*", "name": identity, "identity": identity});
    server.admin_post("/admin/tokens", &body).await.json()["token"].as_str().unwrap().to_owned()
}

async fn join_phoenix(server: &TestServer, path: &str) -> Client {
    let mut socket = Ask::path(path).open(server).await;
    socket.say(json!(["1", "1", "room:r", "phx_join", {"_pk": "phoenix"}])).await;
    assert_eq!(socket.next().await[4]["status"], "ok");
    socket
}

#[tokio::test]
async fn revocation_ends_everything_that_the_identity_holds() {
    let server = TestServer::with(configured).await;
    let (ada, bob) = (token_until("Ada", "*", 3600), token_until("Bob", "*", 3600));
    let agent = token_with("Ada", "*", json!({"agent": true}));
    let mut orange = bearer("r", &ada).pk("ada").open(&server).await;
    let mut other = bearer("r", &bob).pk("bob").open(&server).await;
    let mut phoenix = join_phoenix(&server, &format!("{SOCKET}&token={ada}")).await;
    // By a token of the server's own, which the revoked one asked for.
    let own = server.request(&Method::POST, "/api/socket-token").bearer_auth(&ada);
    let own = answer(own).await.json()["token"].as_str().unwrap().to_owned();
    let mut by_own = Ask::path(&format!("{SOCKET}&token={own}")).open(&server).await;
    let poll = answer(server.get(&format!("{POLL}&token={ada}"))).await.json();
    let poll = |method| {
        let request = server.request(&method, POLL).header("x-phoenix-authtoken", &ada);
        request.header("x-phoenix-longpoll-token", poll["token"].as_str().unwrap())
    };
    let stream = server.get("/api/rooms/r/events").bearer_auth(&agent).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let admin = token_with("Ada", "*", json!({"admin": true}));
    let events = server.admin("/admin/events").bearer_auth(&admin).send().await.unwrap();
    assert_eq!(events.status(), 200);
    let session = server.request(&Method::POST, "/api/calls/sessions/new").bearer_auth(&ada);
    let session = answer(session).await;
    assert_eq!(session.status, 201, "{session:?}");
    let cookie = session.header("set-cookie").split(';').next().unwrap().to_owned();
    let tracks = format!("/api/calls/sessions/{}", session.json()["sessionId"].as_str().unwrap());
    let tracks = |token: &str| answer(server.get(&tracks).header("cookie", &cookie).bearer_auth(token));
    assert_eq!(tracks(&ada).await.status, 200);
    other.until_users(&["ada", "bob", "phoenix"]).await;

    let revoked = revoke(&server, json!({"identity": "ada"})).await.json();
    assert_eq!((&revoked["identity"], &revoked["key"]), (&json!("ada"), &Value::Null));
    let code = (4401, "The access token was revoked".to_owned());
    assert_eq!(orange.closed().await, code);
    assert_eq!(phoenix.closed().await, code);
    assert_eq!(by_own.closed().await, code);
    // Others see her leave at once, and stay.
    other.until_users(&["bob"]).await;
    let is_over = async || answer(poll(Method::POST).body("")).await.json()["status"] == 410;
    eventually("the session of polls is over".to_owned(), is_over).await;
    assert_eq!(answer(poll(Method::GET)).await.json()["status"], 403);
    for stream in [stream, events] {
        let rest = tokio::time::timeout(PATIENCE, stream.bytes()).await;
        assert!(rest.expect("the stream ends").is_ok(), "in order");
    }
    assert_eq!(tracks(&ada).await.status, 401);
    for refused in [&ada, &agent] {
        assert_eq!(user(&server, refused).await, 401);
        assert_eq!(bearer("r", refused).try_open(&server).await.err(), Some(401));
    }
    for path in [format!("{SOCKET}&token={ada}"), format!("{SOCKET}&token={own}")] {
        assert_eq!(Ask::path(&path).try_open(&server).await.err(), Some(401));
    }
    let link = answer(server.get(&format!("/r?token={ada}")).header("accept", "text/html")).await;
    assert_eq!((link.status, link.headers.get("set-cookie")), (401, None));
    assert_eq!(user(&server, &bob).await, 200);
    // One that is made after the answer works.
    let again = made(&server, "ada").await;
    assert_eq!(user(&server, &again).await, 200);
    bearer("r", &again).pk("ada").open(&server).await.until_users(&["ada", "bob"]).await;
}

#[tokio::test]
async fn revocation_of_a_key_or_of_both_concerns_no_other() {
    let server = TestServer::with(configured).await;
    let (ada, bob) = (token_until("Ada", "*", 3600), token_until("Bob", "*", 3600));
    revoke(&server, json!({"identity": "ada", "key": "web"})).await;
    assert_eq!(user(&server, &ada).await, 200, "of another key");
    revoke(&server, json!({"identity": "ada", "key": "app"})).await;
    assert_eq!([user(&server, &ada).await, user(&server, &bob).await], [401, 200]);
    revoke(&server, json!({"key": "app"})).await;
    assert_eq!(user(&server, &bob).await, 401);
    assert_eq!(revocations(&server).await.len(), 3);
    for (body, problem) in [
        (json!({}), "\"identity\", \"key\" or both"),
        (json!({"identity": ""}), "\"identity\""),
        (json!({"identity": "x".repeat(129)}), "1 to 128"),
        (json!({"identity": 7}), "string"),
        (json!({"key": "no"}), "\"key\" is not the id"),
        (json!({"room": "r"}), "room"),
    ] {
        let refused = server.admin_post("/admin/tokens/revoke", &body).await;
        assert_eq!(refused.status, 400, "{body}");
        assert!(refused.json()["error"].as_str().unwrap().contains(problem), "{body}: {refused:?}");
    }
    let nobody = answer(server.admin("/admin/tokens/revocations").bearer_auth(&ada)).await;
    assert_eq!(nobody.status, 401);
}

#[tokio::test]
async fn revocation_survives_a_restart() {
    let server = TestServer::with(configured).await;
    let (ada, bob) = (token("Ada", "*"), token("Bob", "*"));
    revoke(&server, json!({"identity": "ada"})).await;
    let server = server.restart().await;
    assert_eq!([user(&server, &ada).await, user(&server, &bob).await], [401, 200]);
    let listed = revocations(&server).await;
    let [at, until] =
        ["at", "until"].map(|name| humantime::parse_rfc3339(listed[0][name].as_str().unwrap()).unwrap());
    assert_eq!(until.duration_since(at).unwrap().as_secs(), 24 * 3600 + 120, "as long as a token may last");
    let again = made(&server, "ada").await;
    assert_eq!(user(&server, &again).await, 200);
    let server = server.restart().await;
    assert_eq!(user(&server, &again).await, 200);
}

#[tokio::test]
async fn socket_ends_with_its_token() {
    let server = TestServer::with(configured).await;
    // Tokens are accepted for a minute after their expiry.
    let (ada, bob) = (token_until("Ada", "*", -58), token_until("Bob", "*", 3600));
    let mut bob = bearer("r", &bob).pk("bob").open(&server).await;
    let mut orange = bearer("r", &ada).pk("ada").open(&server).await;
    orange.say(json!({"type": "heartbeat"})).await;
    let mut phoenix = join_phoenix(&server, &format!("{SOCKET}&token={ada}")).await;
    bob.until_users(&["ada", "bob", "phoenix"]).await;
    let code = (4401, "The access token has expired".to_owned());
    assert_eq!(orange.closed().await, code);
    assert_eq!(phoenix.closed().await, code);
    assert_eq!(bearer("r", &ada).try_open(&server).await.err(), Some(401));
    // With a new one she is the same member.
    server.until_away("r", "ada").await;
    let ada = token_until("Ada", "*", 3600);
    bearer("r", &ada).pk("ada").open(&server).await.until_users(&["ada", "bob", "phoenix"]).await;
    assert_eq!(server.metric("satsuma_closes_total{reason=\"token_expired\"}").await, 2.0);
}

#[tokio::test]
async fn operator_revokes_by_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let config = format!("[[auth.keys]]\nid = \"app\"\nsecret = \"{SECRET}\"\n");
    fs::write(directory.path().join("satsuma.toml"), config).unwrap();
    let server = Process::start(&data, &[]).await;
    let admin = crate::harness::Reach::reached_at(&server).admin.to_string();
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.current_dir(directory.path()).env("SATSUMA_DATA_DIR", &data);
        let output = command.env("SATSUMA_ADMIN__LISTEN", &admin).args(arguments).output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let (minted, text) = run(&["token", "--room", "r", "--name", "Ada", "--identity", "ada"]).await;
    assert!(minted && text.starts_with("token    ey"), "{text}");
    let (revoked, text) = run(&["token", "revoke", "--identity", "ada", "--key", "app"]).await;
    assert!(revoked && text.lines().nth(1).unwrap().ends_with("  ada"), "{text}");
    let (listed, text) = run(&["token", "revocations", "--json"]).await;
    let list: Value = serde_json::from_str(&text).unwrap();
    assert!(listed && list["revocations"][0]["identity"] == "ada", "{list}");
    for (arguments, problem) in [
        (&["token", "revoke"][..], "--identity"),
        (&["token", "revoke", "--key", "no"], "not the id of a key"),
        (&["token", "--room", "r"], "--name"),
        (&["token"], "--room"),
    ] {
        let (done, text) = run(arguments).await;
        assert!(!done && text.contains(problem), "{arguments:?}: {text}");
    }
    server.stop().await;
}

/// A full disk, or a database that another process locks, is no reason to let a stolen token work on.
#[tokio::test]
async fn revocation_holds_although_it_cannot_be_stored() {
    let server = TestServer::with(configured).await;
    let token = made(&server, "ada").await;
    let options = SqliteConnectOptions::new().filename(server.data_dir().join("satsuma.db"));
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    assert_eq!(user(&server, &token).await, 200);
    let revoked = server.admin_post("/admin/tokens/revoke", &json!({"identity": "ada"})).await;
    assert_eq!(revoked.status, 503, "{revoked:?}");
    assert!(revoked.text.contains("until the server restarts"), "{revoked:?}");
    assert_eq!(user(&server, &token).await, 401);
    other.execute("ROLLBACK").await.unwrap();
}
