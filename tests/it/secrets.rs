//! Passwords, tokens, cookies and messages are not logged at any level.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::access_tokens::{SECRET as KEY, token};
use crate::client::{Ask, Client as Member};
use crate::cloud::{Cloud, MODEL_TOKEN, SECRET, TURN_TOKEN};
use crate::harness::{Answer, Person, Reach, answer};
use crate::peer::{CAMERA, MICROPHONE, Net, Peer};
use crate::process::{BINARY, Process};
use crate::webhook::{Reply, Webhook};

/// A server in a process of its own with the most verbose log.
struct Talkative {
    process: Process,
    dir: TempDir,
}

impl Talkative {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(BINARY);
        command.stdout(Stdio::null()).stderr(File::create(dir.path().join("log")).unwrap());
        let settings = [&[("SATSUMA_LOG__FILTER", "trace,str0m=trace,is=trace")], settings].concat();
        let process = Process::spawn(command, &dir.path().join("data"), &settings);
        process.until_started().await;
        Self { process, dir }
    }

    fn data(&self, file: &str) -> String {
        fs::read_to_string(self.dir.path().join("data").join(file)).unwrap().trim().to_owned()
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        let client = Client::builder().no_proxy().build().unwrap();
        client.post(format!("http://{}{path}", self.process.reached_at().http)).json(body)
    }

    /// Stops the server, and searches its whole output for each of these.
    async fn assert_silent_about(self, secrets: &[(&str, &str)]) {
        let Self { process, dir } = self;
        process.stop().await;
        let log: PathBuf = dir.path().join("log");
        let log = fs::read_to_string(log).unwrap();
        assert!(log.contains("TRACE") || log.contains("DEBUG"), "everything is logged");
        for (what, secret) in secrets {
            assert!(secret.len() >= 8, "{what} could be there by chance: {secret:?}");
            let response = log.lines().find(|line| line.contains(secret));
            assert_eq!(response, None, "{what} is in the log");
        }
    }
}

/// A media session with a cookie, and the answers to its calls.
async fn call(server: &Talkative, person: &Person, path: &str, body: &Value) -> Answer {
    let called = answer(server.post(path, body).header("cookie", person.cookie())).await;
    assert!(called.status < 300, "{path}: {called:?}");
    called
}

fn ice_password(sdp: &str) -> String {
    sdp.lines().find_map(|line| line.strip_prefix("a=ice-pwd:")).unwrap().trim().to_owned()
}

/// Both passwords of a connection suffice to take over its media.
#[tokio::test]
async fn user_and_media_secrets_are_never_logged() {
    let settings = [("SATSUMA_SFU__API_SECRET", "the-secret-of-the-media-api")];
    let server = Talkative::start(&settings).await;
    let ada = Person::log_in(&server.process, "Ada").await;
    let mut passwords = Vec::new();
    let mut session_cookie = String::new();
    for net in [Net::Udp, Net::Tcp] {
        let opened = call(&server, &ada, "/partytracks/sessions/new", &json!({})).await;
        let session = opened.json()["sessionId"].as_str().unwrap().to_owned();
        let set = opened.header("set-cookie").split(';').next().unwrap().to_owned();
        let ada = Person::with_cookie(format!("{}; {set}", ada.cookie()));
        session_cookie = set.split_once('=').unwrap().1.to_owned();
        let peer = Peer::new(net).await;
        for media in [MICROPHONE, CAMERA] {
            let (mids, offer) = peer.offer(&[media]).await;
            let body = json!({
                "sessionDescription": {"type": "offer", "sdp": offer},
                "tracks": [{"location": "local", "mid": mids[0].to_string(), "trackName": mids[0].to_string()}],
            });
            let path = format!("/partytracks/sessions/{session}/tracks/new");
            let response = call(&server, &ada, &path, &body).await.json();
            let sdp = response["sessionDescription"]["sdp"].as_str().unwrap();
            passwords.extend([ice_password(&offer), ice_password(sdp)]);
            peer.accept(sdp).await;
            peer.until_connected().await;
        }
        // A malformed description is not logged.
        let broken = json!({"sessionDescription": {"type": "offer", "sdp": "v=0\r\na=ice-pwd:broken-password\r\n"}, "tracks": []});
        let refused = server.post(&format!("/partytracks/sessions/{session}/tracks/new"), &broken);
        assert_eq!(answer(refused.header("cookie", ada.cookie())).await.status / 100, 4);
    }
    let app = server.post("/v1/apps/embedded/sessions/new", &json!({}));
    assert_eq!(answer(app.bearer_auth("the-secret-of-the-media-api")).await.status, 201);
    let app = server.post("/v1/apps/embedded/sessions/new", &json!({}));
    assert_eq!(answer(app.bearer_auth("a-wrong-secret")).await.status, 401);

    let mut member = Member::join(&server.process, "r", "Bob").await;
    let entry = json!({"entry": {"type": "request", "endpoint": "/x", "body": "a=ice-pwd:history-password"}});
    for message in [
        json!({"type": "chat", "message": "said-to-everybody"}),
        json!({"type": "directMessage", "to": "nobody", "message": "said-to-nobody"}),
        json!({"type": "e2eeMlsMessage", "payload": "the-payload-of-mls"}),
        json!({"type": "userUpdate", "user": {"x": "what-a-user-shows", "joined": "no"}}),
        json!({"type": "callsApiHistoryEntry", "entry": entry}),
        json!({"type": "no-such-type", "x": "of-no-known-type"}),
    ] {
        member.say(message).await;
    }
    member.say(json!({"type": "userLeft"})).await;
    member.closed().await;
    let token = server.data("operator.token");
    let admin = Client::builder().no_proxy().build().unwrap();
    let rooms = admin.get(format!("http://{}/admin/rooms", server.process.reached_at().admin));
    assert_eq!(answer(rooms.bearer_auth(&token)).await.status, 200);

    let cookie = ada.cookie().split_once('=').unwrap().1.to_owned();
    let mut secrets: Vec<(&str, &str)> =
        passwords.iter().map(|password| ("an ICE password", &**password)).collect();
    secrets.extend([
        ("a broken offer's password", "broken-password"),
        ("a password of the client's history", "history-password"),
        ("the identity's cookie", &*cookie),
        ("the session's cookie", &session_cookie),
        ("the operator's token", &token),
        ("the media API's secret", "the-secret-of-the-media-api"),
        ("a wrong secret", "a-wrong-secret"),
        ("a chat line", "said-to-everybody"),
        ("a direct message", "said-to-nobody"),
        ("an MLS message", "the-payload-of-mls"),
        ("a user's fields", "what-a-user-shows"),
        ("an unknown message", "of-no-known-type"),
    ]);
    server.assert_silent_about(&secrets).await;
}

/// Secrets of other services: the media API, OpenAI, TURN, the webhook.
#[tokio::test]
async fn service_secrets_are_never_logged() {
    let cloud = Cloud::start().await;
    let webhook = Webhook::start([Reply::Redirect, Reply::Status(500)]).await;
    let server = Talkative::start(&[
        ("SATSUMA_CALLS__API_URL", cloud.url("/v1").as_str()),
        ("SATSUMA_CALLS__APP_ID", "app"),
        ("SATSUMA_CALLS__APP_SECRET", SECRET),
        ("SATSUMA_TURN__SERVICE_ID", "key"),
        ("SATSUMA_TURN__SERVICE_TOKEN", TURN_TOKEN),
        ("SATSUMA_AI__MODEL_ENDPOINT", cloud.url("/model").as_str()),
        ("SATSUMA_AI__API_TOKEN", MODEL_TOKEN),
        ("SATSUMA_FEEDBACK__URL", webhook.url()),
    ])
    .await;
    let credential = r#"{"iceServers":[{"urls":["turn:t.example"],"username":"user-of-turn","credential":"credential-of-turn"}]}"#;
    cloud.script("/generate-ice-servers", crate::cloud::Script::Answer(201, credential.to_owned()));
    let ada = Person::log_in(&server.process, "Ada").await;
    let client = Client::builder().no_proxy().build().unwrap();
    let ice =
        client.get(format!("http://{}/partytracks/generate-ice-servers", server.process.reached_at().http));
    let ice = answer(ice.header("cookie", ada.cookie())).await;
    assert!(ice.text.contains("credential-of-turn"), "{ice:?}");
    let opened = call(&server, &ada, "/partytracks/sessions/new", &json!({})).await;
    let session = opened.json()["sessionId"].as_str().unwrap().to_owned();
    let set = opened.header("set-cookie").split(';').next().unwrap().to_owned();
    let both = Person::with_cookie(format!("{}; {set}", ada.cookie()));
    let offer = "v=0\r\na=ice-pwd:forwarded-password\r\n";
    let tracks = [json!({"location": "local", "mid": "0", "trackName": "audio"})];
    let body = json!({"sessionDescription": {"type": "offer", "sdp": offer}, "tracks": tracks});
    call(&server, &both, &format!("/partytracks/sessions/{session}/tracks/new?secret=of-the-query"), &body)
        .await;

    let mut member = Member::join(&server.process, "r", "Bob").await;
    member.say(json!({"type": "enableAi", "instructions": "instructions-to-the-model"})).await;
    cloud.until_seen("/model", 1).await;
    let track = json!({"pullSessionTrace": "a", "pushedSessionTrace": "b", "trackId": "a-reported-track"});
    call(&server, &ada, "/api/deadTrack", &track).await;
    webhook.until(1).await;

    let cookie = ada.cookie().split_once('=').unwrap().1.to_owned();
    server
        .assert_silent_about(&[
            ("the Calls application's secret", SECRET),
            ("the TURN key's token", TURN_TOKEN),
            ("a TURN credential", "credential-of-turn"),
            ("the model's token", MODEL_TOKEN),
            ("the model's instructions", "instructions-to-the-model"),
            ("the webhook's path", "SECRET-PATH"),
            ("the webhook's token", "SECRET-TOKEN"),
            ("a forwarded password", "forwarded-password"),
            ("a query", "of-the-query"),
            ("the identity's cookie", &cookie),
        ])
        .await;
}

/// Query strings of links, headers of API calls and sockets, and the key.
#[tokio::test]
async fn access_tokens_are_never_logged() {
    let keys = format!("[{{id = 'app', secret = '{KEY}'}}]");
    let server = Talkative::start(&[("SATSUMA_AUTH__KEYS", &keys)]).await;
    let token = token("Ada", "standup");
    let (process, client) = (&server.process, Client::builder().no_proxy().build().unwrap());
    let get = |path: &str| client.get(format!("http://{}{path}", process.reached_at().http));
    let forged = format!("{token}x");
    for (request, status) in [
        (get(&format!("/standup?token={token}")), 200),
        (get(&format!("/standup?token={forged}")), 401),
        (get("/api/user").bearer_auth(&token), 200),
        (get("/api/user").bearer_auth(&forged), 401),
        (get("/retro").header("cookie", format!("satsuma_token={token}")), 403),
    ] {
        // The client keeps no cookies, so that a followed link ends at the form for a name.
        assert_eq!(answer(request).await.status, status);
    }
    let media = server.post("/partytracks/sessions/new", &json!({})).bearer_auth(&token);
    assert_eq!(answer(media).await.status, 201);
    let protocols = format!("satsuma, satsuma.token.{token}");
    let ask = Ask::room("standup").header("sec-websocket-protocol", &protocols);
    ask.pk("a").open(process).await.until_users(&["a"]).await;
    let phoenix = Ask::path(&format!("/socket/websocket?vsn=2.0.0&token={token}"));
    phoenix.open(process).await.close().await;
    server.assert_silent_about(&[("a token", &token), ("its key", KEY)]).await;
}
