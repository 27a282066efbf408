//! Authorization of calls of the embedded media server, and its refusals.

use axum::http::Method;
use futures_util::{StreamExt, stream};
use satsuma::config::{Config, Optional};
use serde_json::{Value, json};

use crate::harness::{Answer, TestServer, answer};
use crate::media_session::{ApiClient, MediaSession};
use crate::peer::{MICROPHONE, Net};
use crate::sfu::without_rooms;

const SECRET: &str = "a-secret-for-other-servers";

fn for_other_servers(config: &mut Config) {
    config.sfu.api_secret = Optional(Some(SECRET.into()));
    without_rooms(config);
}

fn pull(session: &str, name: &str) -> Value {
    json!({"tracks": [{"location": "remote", "sessionId": session, "trackName": name}]})
}

fn assert_refused(refused: &Answer, status: u16, code: &str) {
    assert_eq!((refused.status, &refused.json()["errorCode"]), (status, &json!(code)), "{refused:?}");
    assert!(refused.json()["errorDescription"].as_str().is_some_and(|sentence| !sentence.is_empty()));
    assert_eq!(refused.header("content-type"), "application/json");
}

#[tokio::test]
async fn server_api_needs_secret_and_application_id() {
    let server = TestServer::with(for_other_servers).await;
    for prefix in ["/v1/apps", "/apps"] {
        let new = format!("{prefix}/embedded/sessions/new");
        let none = answer(server.request(&Method::POST, &new)).await;
        assert_refused(&none, 401, "unauthorized");
        for wrong in ["another", "", "a-secret-for-other-server", "a-secret-for-other-serversx"] {
            let refused = answer(server.request(&Method::POST, &new).bearer_auth(wrong)).await;
            assert_refused(&refused, 401, "unauthorized");
        }
        let basic = server.request(&Method::POST, &new).basic_auth("embedded", Some(SECRET));
        assert_refused(&answer(basic).await, 401, "unauthorized");
        let ask = async |method: Method, path: &str| {
            answer(server.request(&method, &format!("{prefix}{path}")).bearer_auth(SECRET)).await
        };
        assert_refused(&ask(Method::POST, "/another/sessions/new").await, 404, "not_found");
        assert_refused(&ask(Method::GET, "/embedded/sessions/new").await, 404, "not_found");
        assert_refused(&ask(Method::POST, "/embedded/sessions/a/nothing").await, 404, "not_found");
        assert_refused(&ask(Method::GET, "/embedded/sessions/a%2Fb").await, 404, "not_found");
        let opened = ask(Method::POST, "/embedded/sessions/new?correlationId=x").await;
        assert_eq!(opened.status, 201);
        assert_eq!(opened.json()["sessionId"].as_str().unwrap().len(), 32);
        assert_eq!(opened.header("set-cookie"), "", "a server needs none");
        let elsewhere =
            answer(server.request(&Method::POST, &format!("{prefix}/embedded")).bearer_auth(SECRET)).await;
        assert_eq!(elsewhere.status, 404);
    }
    assert!(server.refusals("call_no_secret").await >= 10.0);
}

#[tokio::test]
async fn application_id_is_configurable() {
    let server = TestServer::with(|config| {
        for_other_servers(config);
        config.sfu.app_id = "mine".to_owned();
    })
    .await;
    ApiClient::for_server("/v1/apps/mine", SECRET).open(&server).await;
    let other = ApiClient::for_server("/v1/apps/embedded", SECRET);
    assert_refused(&other.call(&server, Method::POST, "new", &json!({})).await, 404, "not_found");
}

#[tokio::test]
async fn server_api_is_off_without_a_secret() {
    let server = TestServer::with(without_rooms).await;
    for prefix in ["/v1/apps/embedded", "/apps/embedded"] {
        for secret in ["", "guessed"] {
            let api = ApiClient::for_server(prefix, secret);
            assert_refused(&answer(api.ask(&server, Method::POST, "new")).await, 404, "not_found");
        }
    }
}

#[tokio::test]
async fn server_api_reports_unknown_sessions_as_gone() {
    let server = TestServer::with(for_other_servers).await;
    let api = ApiClient::for_server("/v1/apps/embedded", SECRET);
    let unknown = "0".repeat(32);
    let offer = json!({"sessionDescription": {"type": "offer", "sdp": "v=0\r\n"}});
    for (method, rest, body) in [
        (Method::GET, "", Value::Null),
        (Method::POST, "/tracks/new", pull(&unknown, "t")),
        (Method::PUT, "/tracks/close", json!({"tracks": [{"mid": "0"}], "force": true})),
        (Method::PUT, "/tracks/update", json!({"tracks": [{"mid": "0"}]})),
    ] {
        let gone = api.call(&server, method, &format!("{unknown}{rest}"), &body).await;
        assert_refused(&gone, 410, "session_error");
    }
    // A malformed body is refused before the session is looked up.
    let answered = api.call(&server, Method::PUT, &format!("{unknown}/renegotiate"), &offer).await;
    assert_refused(&answered, 406, "invalid_session_description");
}

#[tokio::test]
async fn session_is_usable_by_its_owner_only() {
    let server = TestServer::with(without_rooms).await;
    let (ada, bob) = (MediaSession::of(&server, "Ada").await, MediaSession::of(&server, "Bob").await);
    let (mids, _) = ada.publish(&[("mic", MICROPHONE)]).await;
    ada.peer.say(mids[0], "hello").await;
    let mic = bob.subscribe(&ada.session, "mic").await;
    bob.peer.until_received(mic, "hello").await;
    let before = ada.tracks().await;

    // Bob knows the id, as every member does, but has no cookie for it.
    let of_ada = |rest: &str| format!("{}{rest}", ada.session);
    let offer = {
        let (_, offer) = crate::peer::Peer::new(Net::Udp).await.offer(&[MICROPHONE]).await;
        json!({"type": "offer", "sdp": offer})
    };
    let local = json!({"location": "local", "mid": "0", "trackName": "mine"});
    for (method, rest, body) in [
        (Method::GET, "", Value::Null),
        (Method::POST, "/tracks/new", json!({"tracks": [local], "sessionDescription": offer})),
        (Method::POST, "/tracks/new", pull(&ada.session, "mic")),
        (Method::PUT, "/renegotiate", json!({"sessionDescription": {"type": "answer", "sdp": "v=0\r\n"}})),
        (Method::PUT, "/tracks/close", json!({"tracks": [{"mid": *mids[0]}], "force": true})),
        (Method::PUT, "/tracks/update", json!({"tracks": [{"mid": *mids[0]}]})),
    ] {
        let refused = bob.api.call(&server, method, &of_ada(rest), &body).await;
        assert_eq!(refused.status, 401, "{rest}: {refused:?}");
    }
    assert_eq!(server.refusals("call_not_your_session").await, 6.0);
    assert_eq!(ada.tracks().await, before);
    bob.peer.until_received(mic, "hello").await;
}

#[tokio::test]
async fn unknown_session_is_no_publisher() {
    let server = TestServer::with(without_rooms).await;
    let bob = MediaSession::of(&server, "Bob").await;
    let unknown = "0".repeat(32);
    for (session, name) in [(&*unknown, "mic"), (&bob.session, "mic"), ("guessed", "mic")] {
        let response = bob.call(Method::POST, "/tracks/new", &pull(session, name)).await;
        assert_eq!(response["tracks"][0]["errorCode"], "not_found_track_error", "{response}");
        assert_eq!(response["tracks"][0]["sessionId"], *session);
        assert_eq!((&response["errorCode"], &response["sessionDescription"]), (&Value::Null, &Value::Null));
    }
}

#[tokio::test]
async fn calls_per_second_are_limited() {
    let server = TestServer::with(for_other_servers).await;
    let mut api = ApiClient::for_server("/v1/apps/embedded", SECRET);
    let session = api.open(&server).await;
    let calls = (0..300).map(|_| answer(api.ask(&server, Method::GET, &session)));
    let answers: Vec<Answer> = stream::iter(calls).buffer_unordered(16).collect().await;
    let (fine, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert!(fine.len() >= 50, "{} of 300 passed", fine.len());
    assert!(!refused.is_empty(), "all passed");
    refused.into_iter().for_each(|refused| assert_refused(refused, 429, "temporarily_unavailable_error"));
    // Another session has a limit of its own.
    let other = api.open(&server).await;
    assert_eq!(answer(api.ask(&server, Method::GET, &other)).await.status, 200);
}

#[tokio::test]
async fn long_body_is_refused_by_every_mount() {
    let server = TestServer::with(|config| {
        for_other_servers(config);
        config.limits.call_bytes = 100_000;
    })
    .await;
    for mut api in
        [ApiClient::for_person(&server, "Ada").await, ApiClient::for_server("/apps/embedded", SECRET)]
    {
        let session = api.open(&server).await;
        let path = format!("{session}/renegotiate");
        let long = json!({"sessionDescription": {"type": "answer", "sdp": "x".repeat(100_000)}});
        assert_eq!(api.call(&server, Method::PUT, &path, &long).await.status, 413);
        let chunks = [(); 2].map(|()| std::io::Result::Ok(vec![b' '; 60_000]));
        let body = reqwest::Body::wrap_stream(stream::iter(chunks));
        assert_eq!(answer(api.ask(&server, Method::PUT, &path).body(body)).await.status, 413);
        let fits = json!({"sessionDescription": {"type": "answer", "sdp": "x".repeat(99_000)}});
        assert_eq!(api.call(&server, Method::PUT, &path, &fits).await.status, 406);
    }
}

#[tokio::test]
async fn data_channels_are_unsupported() {
    let server = TestServer::with(for_other_servers).await;
    for mut api in
        [ApiClient::for_person(&server, "Ada").await, ApiClient::for_server("/apps/embedded", SECRET)]
    {
        let session = api.open(&server).await;
        for (method, call) in [
            (Method::POST, "establish"),
            (Method::POST, "new"),
            (Method::PUT, "update"),
            (Method::PUT, "close"),
        ] {
            let path = format!("{session}/datachannels/{call}");
            let refused = api.call(&server, method, &path, &json!({"dataChannels": []})).await;
            assert_refused(&refused, 501, "invalid_params");
            assert_eq!(refused.json()["errorDescription"], "this media server has no data channels");
        }
    }
}

#[tokio::test]
async fn session_limit_replaces_unused_sessions() {
    let server = TestServer::with(|config| {
        without_rooms(config);
        config.sfu.sessions_per_identity = 2;
    })
    .await;
    let ada = MediaSession::of(&server, "Ada").await;
    ada.publish(&[("mic", MICROPHONE)]).await;
    ada.peer.until_connected().await;
    let unused = MediaSession::open(&server, ada.api.clone(), Net::Udp).await;
    let used = MediaSession::open(&server, ada.api.clone(), Net::Udp).await;
    assert_eq!(unused.try_call(Method::GET, "", &Value::Null).await.status, 410);
    used.publish(&[("mic", MICROPHONE)]).await;
    used.peer.until_connected().await;
    let refused = answer(ada.api.ask(&server, Method::POST, "new")).await;
    assert_eq!(refused.status, 429);
    assert!(
        refused.header("content-type").starts_with("text/plain"),
        "JSON would count as success: {refused:?}"
    );
    MediaSession::of(&server, "Bob").await;
}

#[tokio::test]
async fn hostile_sdp_is_refused_and_session_continues() {
    let server = TestServer::with(without_rooms).await;
    let ada = MediaSession::of(&server, "Ada").await;
    for sdp in ["", "v=0", "no description", "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", "\0\0\0"] {
        let track = json!({"location": "local", "mid": "0", "trackName": "t"});
        let body = json!({"tracks": [track], "sessionDescription": {"type": "offer", "sdp": sdp}});
        let refused = ada.try_call(Method::POST, "/tracks/new", &body).await;
        assert_eq!(
            (refused.status, &refused.json()["errorCode"]),
            (406, &json!("invalid_session_description")),
            "{sdp:?}: {refused:?}"
        );
    }
    let answer = json!({"sessionDescription": {"type": "answer", "sdp": "v=0\r\n"}});
    let refused = ada.try_call(Method::PUT, "/renegotiate", &answer).await;
    assert_eq!(
        (refused.status, &refused.json()["failureCode"]),
        (406, &json!("invalid_session_description"))
    );
    ada.publish(&[("mic", MICROPHONE)]).await;
    ada.peer.until_connected().await;
}
