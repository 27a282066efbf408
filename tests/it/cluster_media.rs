//! Media sessions of the embedded servers of several nodes.

use axum::http::Method;
use satsuma::config::{Config, Optional};
use satsuma::id::NodeId;
use serde_json::{Value, json};

use crate::cluster::Mortal;
use crate::harness::{Answer, TestServer};
use crate::media_session::{ApiClient, MediaSession};
use crate::memory_engine::MemoryNetwork;
use crate::peer::{CAMERA, MICROPHONE, Net};

const SECRET: &str = "a-secret-for-other-servers";

const ANSWERED: &str = r#"satsuma_media_calls_passed_on_total{reason="answered"}"#;

/// Two nodes.
async fn two_nodes(edit: impl Fn(&mut Config)) -> [(TestServer, NodeId); 2] {
    let network = MemoryNetwork::default();
    let (a, a_id) = TestServer::node(&network, None, &edit).await;
    let (b, b_id) = TestServer::node(&network, Some(&a), &edit).await;
    [(a, a_id), (b, b_id)]
}

fn pull(session: &str, name: &str) -> Value {
    json!({"tracks": [{"location": "remote", "sessionId": session, "trackName": name}]})
}

fn assert_gone(gone: &Answer) {
    assert_eq!((gone.status, &gone.json()["errorCode"]), (410, &json!("session_error")), "{gone:?}");
    assert_eq!(gone.header("content-type"), "application/json");
}

#[tokio::test]
async fn session_is_used_through_another_node() {
    let [(a, a_id), (b, _)] = two_nodes(|_| {}).await;
    for mut api in [ApiClient::for_person(&a, "Ada").await, ApiClient::for_older_client(&a, "Ada").await] {
        let session = api.open(&a).await;
        assert!(session.len() == 32 && session.starts_with(&a_id.to_string()), "{session} of {a_id}");
        let before = b.metric(ANSWERED).await;
        let peer = crate::peer::Peer::new(Net::Udp).await;
        let ada = MediaSession { server: &b, api, session, peer };
        let (mids, _) = ada.publish(&[("mic", MICROPHONE), ("cam", CAMERA)]).await;
        ada.peer.say(mids[0], "hello").await;
        ada.peer.say(mids[1], "waves").await;
        let bob = MediaSession::of(&a, "Bob").await;
        let bob = MediaSession { server: &b, ..bob };
        let mic = bob.subscribe(&ada.session, "mic").await;
        let cam = bob.subscribe(&ada.session, "cam").await;
        tokio::join!(bob.peer.until_received(mic, "hello"), bob.peer.until_received(cam, "waves"));
        bob.close(&[cam]).await;
        assert_eq!(bob.tracks().await.as_array().unwrap().len(), 1);
        assert!(b.metric(ANSWERED).await >= before + 6.0);
        // Eve knows the id, as every member does, but has no cookie for it.
        let eve = ApiClient::for_person(&b, "Eve").await;
        let refused = eve.call(&b, Method::GET, &ada.session, &Value::Null).await;
        assert_eq!(refused.status, 401, "{refused:?}");
    }
    assert_eq!(a.metric(ANSWERED).await, 0.0);
}

#[tokio::test]
async fn errors_of_another_node_are_passed_back() {
    let [(a, _), (b, _)] = two_nodes(|config| config.sfu.api_secret = Optional(Some(SECRET.into()))).await;
    let mut server = ApiClient::for_server("/v1/apps/embedded", SECRET);
    let mut person = ApiClient::for_older_client(&a, "Ada").await;
    for api in [&mut server, &mut person] {
        let session = api.open(&a).await;
        let ask = async |method: Method, rest: &str, body: Value| {
            let told = api.call(&b, method, &format!("{session}{rest}"), &body).await;
            (told.status, told.json()["errorCode"].as_str().unwrap_or_default().to_owned())
        };
        let offer = json!({"sessionDescription": {"type": "offer", "sdp": "v=0\r\n"}});
        assert_eq!(
            ask(Method::PUT, "/renegotiate", offer).await,
            (406, "invalid_session_description".to_owned())
        );
        assert_eq!(ask(Method::POST, "/tracks/new", json!({"tracks": []})).await.1, "empty_track_error");
        let channel = ask(Method::POST, "/datachannels/establish", json!({})).await;
        assert_eq!(channel.1, "invalid_params");
        assert_eq!(ask(Method::GET, "", Value::Null).await.0, 200);
    }
    let session = person.open(&a).await;
    let ambiguous = json!({"Tracks": []});
    let refused = person.call(&b, Method::POST, &format!("{session}/tracks/new"), &ambiguous).await;
    assert_eq!(
        (refused.status, &refused.json()["errorCode"]),
        (400, &json!("invalid_params")),
        "{refused:?}"
    );
    assert_eq!(a.refusals("call_ambiguous").await, 1.0);
}

#[tokio::test]
async fn long_call_passes_if_the_engine_takes_it() {
    let [(a, _), (b, _)] = two_nodes(|config| config.limits.frame_bytes = 64 << 10).await;
    let mut api = ApiClient::for_older_client(&a, "Ada").await;
    let session = api.open(&a).await;
    // A session description repeats itself, and is short when it is compressed.
    let long = json!({"tracks": [], "note": "a=rtpmap:96 VP8/90000\r\n".repeat(10_000)});
    let told = api.call(&b, Method::POST, &format!("{session}/tracks/new"), &long).await;
    assert_eq!(told.json()["errorCode"], "empty_track_error", "{told:?}");
    let mut random = 88_172_645_463_325_252_u64;
    let noise: String = std::iter::repeat_with(|| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        format!("{random:x}")
    })
    .take(20_000)
    .collect();
    let noise = json!({"tracks": [], "note": noise});
    let refused = api.call(&b, Method::POST, &format!("{session}/tracks/new"), &noise).await;
    assert_eq!((refused.status, &refused.json()["errorCode"]), (413, &json!("payload_too_large")));
}

#[tokio::test]
async fn track_of_another_node_is_refused_and_counted() {
    let [(a, _), (b, _)] = two_nodes(|_| {}).await;
    let ada = MediaSession::of(&a, "Ada").await;
    let (mids, _) = ada.publish(&[("mic", MICROPHONE)]).await;
    ada.peer.say(mids[0], "hello").await;
    let bob = MediaSession::of(&b, "Bob").await;
    for asked in [&b, &a] {
        let refused = bob
            .api
            .call(asked, Method::POST, &format!("{}/tracks/new", bob.session), &pull(&ada.session, "mic"))
            .await;
        assert_eq!(refused.status, 200, "{refused:?}");
        let track = &refused.json()["tracks"][0];
        assert_eq!(
            (&track["errorCode"], &track["sessionId"], &track["trackName"]),
            (&json!("not_found_track_error"), &json!(ada.session), &json!("mic"))
        );
    }
    assert_eq!(b.metric("satsuma_media_pulls_across_nodes_total").await, 2.0);
    assert_eq!(a.metric("satsuma_media_pulls_across_nodes_total").await, 0.0);
}

#[tokio::test]
async fn session_of_a_dead_node_is_gone_at_once() {
    let network = MemoryNetwork::default();
    let (b, _) = TestServer::node(&network, None, |_| {}).await;
    let a = Mortal::start_beside(&network, &b);
    let mut api = ApiClient::for_person(&b, "Ada").await;
    let session = api.open(&a.server).await;
    let read = api.call(&b, Method::GET, &session, &Value::Null).await;
    assert_eq!((read.status, &read.json()["tracks"]), (200, &json!([])));
    let _dead = a.kill();
    // The first call finds it out, the next ones know it.
    for _ in 0..2 {
        assert_gone(&api.call(&b, Method::GET, &session, &Value::Null).await);
    }
    // The library recovers from a failure at each track, whatever the status.
    let told = api.call(&b, Method::POST, &format!("{session}/tracks/new"), &pull(&session, "t")).await;
    assert_eq!((told.status, &told.json()["tracks"][0]["errorCode"]), (410, &json!("session_error")));
    assert_eq!(b.metric(r#"satsuma_media_calls_passed_on_total{reason="gone"}"#).await, 1.0);
    let again = api.open(&b).await;
    assert_ne!(again[..8], session[..8]);
}

#[tokio::test]
async fn session_of_an_unknown_node_is_gone() {
    let [(a, _), _] = two_nodes(|config| config.calls.session_lock = false).await;
    let api = ApiClient::for_older_client(&a, "Ada").await;
    for session in ["0".repeat(32), "f".repeat(32), "0".repeat(31), "abc".to_owned()] {
        assert_gone(&api.call(&a, Method::GET, &session, &Value::Null).await);
    }
}
