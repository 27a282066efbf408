//! Media sessions of the embedded servers of several nodes.

use std::cell::RefCell;
use std::collections::HashSet;
use std::time::Duration;

use axum::http::Method;
use satsuma::config::{Config, Optional};
use satsuma::id::NodeId;
use serde_json::{Value, json};
use str0m::media::Mid;
use tokio::task::JoinSet;

use crate::client::{Ask, Client};
use crate::cluster::{Mortal, chat, told};
use crate::harness::{Answer, Person, TestServer, answer, eventually};
use crate::media_session::{ApiClient, MediaSession};
use crate::memory_engine::MemoryNetwork;
use crate::peer::{CAMERA, MICROPHONE, Net, Peer};

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
        let peer = Peer::new(Net::Udp).await;
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

/// Opens a session in a room, and returns its id.
async fn open_in(api: &mut ApiClient, server: &TestServer, room: &str) -> String {
    api.open_with(server, &format!("?correlationId=x&room={room}")).await
}

fn home(session: &str) -> &str {
    &session[..8]
}

#[tokio::test]
async fn sessions_of_a_room_are_on_one_node() {
    let [(a, a_id), (b, b_id)] = two_nodes(|_| {}).await;
    let mut homes = Vec::new();
    for number in 0..8 {
        let room = format!("r{number}");
        let mut ada = ApiClient::for_person(&a, "Ada").await;
        let mut bob = ApiClient::for_person(&b, "Bob").await;
        // Before anybody joins, as the lobby of the stock client does it.
        let before = open_in(&mut ada, &a, &room).await;
        let _member = Client::join(if number % 2 == 0 { &a } else { &b }, &room, "Cyd").await;
        for (api, server) in [(&mut ada, &a), (&mut bob, &b)] {
            assert_eq!(home(&open_in(api, server, &room).await), home(&before));
        }
        homes.push(home(&before).to_owned());
    }
    for id in [a_id, b_id] {
        assert!(homes.contains(&id.to_string()), "{id} has no room of {homes:?}");
    }
    // Without a room, or with one that has no valid name, the node that was asked.
    for parameters in ["", "?room=", "?room=%2E%2E"] {
        let session = ApiClient::for_person(&a, "Eve").await.open_with(&a, parameters).await;
        assert_eq!(home(&session), a_id.to_string());
    }
}

#[tokio::test]
async fn members_at_two_nodes_hear_each_other() {
    let [(a, _), (b, _)] = two_nodes(|_| {}).await;
    let mut ada = ApiClient::for_person(&a, "Ada").await;
    let session = open_in(&mut ada, &a, "r").await;
    let ada = MediaSession { server: &a, api: ada, session, peer: Peer::new(Net::Udp).await };
    let mut bob = ApiClient::for_person(&b, "Bob").await;
    let session = open_in(&mut bob, &b, "r").await;
    let bob = MediaSession { server: &b, api: bob, session, peer: Peer::new(Net::Udp).await };
    let (of_ada, _) = ada.publish(&[("mic", MICROPHONE)]).await;
    let (of_bob, _) = bob.publish(&[("mic", MICROPHONE)]).await;
    ada.peer.say(of_ada[0], "from Ada").await;
    bob.peer.say(of_bob[0], "from Bob").await;
    let (at_bob, at_ada) =
        (bob.subscribe(&ada.session, "mic").await, ada.subscribe(&bob.session, "mic").await);
    tokio::join!(bob.peer.until_received(at_bob, "from Ada"), ada.peer.until_received(at_ada, "from Bob"));
}

/// A node that comes is preferred for some rooms, whose media stay where they are.
#[tokio::test]
async fn media_of_a_room_stay_when_a_node_comes() {
    let network = MemoryNetwork::default();
    let (a, _) = TestServer::node(&network, None, |_| {}).await;
    let mut members = Vec::new();
    for number in 0..12 {
        let mut ada = Client::join(&a, &format!("r{number}"), "Ada").await;
        chat(&mut ada, 1).await;
        told(&mut ada, 1).await;
        members.push(ada);
    }
    let (b, b_id) = TestServer::node(&network, Some(&a), |_| {}).await;
    // Until both know each other.
    let mut eve = ApiClient::for_person(&b, "Eve").await;
    let mut number = 0;
    while home(&open_in(&mut eve, &a, &format!("new{number}")).await) != b_id.to_string() {
        number += 1;
        eve = ApiClient::for_person(&b, "Eve").await;
    }
    for number in 0..12 {
        let mut api = ApiClient::for_person(&b, "Bob").await;
        let session = open_in(&mut api, &b, &format!("r{number}")).await;
        assert_ne!(home(&session), b_id.to_string(), "r{number}");
    }
}

#[tokio::test]
async fn media_of_a_room_move_when_their_node_dies() {
    let network = MemoryNetwork::default();
    let (b, b_id) = TestServer::node(&network, None, |_| {}).await;
    let a = Mortal::start_beside(&network, &b);
    let mut room = 0;
    loop {
        let mut api = ApiClient::for_person(&b, "Eve").await;
        if home(&open_in(&mut api, &b, &room.to_string()).await) != b_id.to_string() {
            break;
        }
        room += 1;
    }
    let room = room.to_string();
    let mut ada = Client::join(&b, &room, "Ada").await;
    // The place is written with the next entry.
    chat(&mut ada, 1).await;
    told(&mut ada, 1).await;
    let mut api = ApiClient::for_person(&b, "Ada").await;
    let session = open_in(&mut api, &b, &room).await;
    assert_ne!(home(&session), b_id.to_string());
    let _dead = a.kill();
    let moved = ada.until(|message| message["type"] == "mediaMoved").await;
    assert_eq!(moved, json!({"type": "mediaMoved"}));
    assert_gone(&api.call(&b, Method::GET, &session, &Value::Null).await);
    assert_eq!(home(&open_in(&mut api, &b, &room).await), b_id.to_string());
}

#[tokio::test]
async fn pages_name_their_room_in_a_cluster_alone() {
    let [(a, _), _] = two_nodes(|config| config.calls.extra_params = Optional(Some("a=b".into()))).await;
    let alone = TestServer::with(|config| config.calls.extra_params = Optional(Some("a=b".into()))).await;
    for (server, parameters) in [(&a, "a=b&room=%C3%A9+%26+co"), (&alone, "a=b")] {
        let ada = Person::log_in(server, "Ada").await;
        let asked = server.get("/api/rooms/%C3%A9%20%26%20co/settings").header("cookie", ada.cookie());
        assert_eq!(answer(asked).await.json()["apiExtraParams"], parameters);
    }
}

/// A node that leaves keeps its sessions until the last is closed.
#[tokio::test]
async fn draining_node_keeps_its_sessions() {
    let [(a, a_id), (b, _)] =
        two_nodes(|config| config.shutdown.media_deadline = Duration::from_secs(600)).await;
    let ada = MediaSession::of(&a, "Ada").await;
    let (mids, _) = ada.publish(&[("mic", MICROPHONE)]).await;
    ada.peer.say(mids[0], "hello").await;
    let bob = MediaSession::of(&a, "Bob").await;
    let (ada, bob) = ((ada.api, ada.session, ada.peer), (bob.api, bob.session, bob.peer));
    let mut leaving = JoinSet::new();
    leaving.spawn(a.stop());
    let of_b = |(api, session, peer)| MediaSession { server: &b, api, session, peer };
    let (ada, bob) = (of_b(ada), of_b(bob));
    let mic = bob.subscribe(&ada.session, "mic").await;
    bob.peer.until_received(mic, "hello").await;
    let fresh = async || {
        let mut eve = ApiClient::for_person(&b, "Eve").await;
        home(&open_in(&mut eve, &b, "r").await).to_owned()
    };
    eventually("new rooms go elsewhere".to_owned(), async || fresh().await != a_id.to_string()).await;
    assert!(leaving.try_join_next().is_none(), "it left");
}

#[tokio::test]
async fn draining_node_without_sessions_leaves() {
    let nodes = two_nodes(|config| config.shutdown.media_deadline = Duration::from_secs(600)).await;
    for (node, _) in nodes {
        node.stop().await;
    }
}

/// A member with a session in its room.
async fn member<'a>(server: &'a TestServer, room: &str, pk: &str) -> (Client, MediaSession<'a>) {
    let person = Person::log_in(server, pk).await;
    let client = Ask::room(room).by(&person).pk(pk).open(server).await;
    let mut api = ApiClient::for_cookie(person.cookie());
    let session = open_in(&mut api, server, room).await;
    (client, MediaSession { server, api, session, peer: Peer::new(Net::Udp).await })
}

/// Subscribes to a microphone once that is permitted.
async fn subscribe_soon(session: &MediaSession<'_>, to: &str) -> Mid {
    let offer = RefCell::new(Value::Null);
    let is_permitted = async || {
        let told = session.call(Method::POST, "/tracks/new", &pull(to, "mic")).await;
        let is_permitted = told["tracks"][0]["errorCode"].is_null();
        *offer.borrow_mut() = told;
        is_permitted
    };
    eventually("a member receives another".to_owned(), is_permitted).await;
    let offer = offer.into_inner();
    session.answer(offer["sessionDescription"]["sdp"].as_str().unwrap()).await;
    Mid::from(offer["tracks"][0]["mid"].as_str().unwrap())
}

async fn is_refused(session: &MediaSession<'_>, to: &str) -> bool {
    let told = session.call(Method::POST, "/tracks/new", &pull(to, "mic")).await;
    told["tracks"][0]["errorCode"] == "not_found_track_error"
}

/// The owner of the rooms is the first node; their media are on one or the other.
#[tokio::test]
async fn members_of_a_room_alone_receive_its_media() {
    let nodes = two_nodes(|config| config.calls.room_check = true).await;
    let [(a, a_id), (b, b_id)] = &nodes;
    let mut homes = HashSet::new();
    for number in 0.. {
        let room = format!("r{number}");
        let (_ada, of_ada) = member(a, &room, "ada").await;
        if !homes.insert(home(&of_ada.session).to_owned()) {
            continue;
        }
        let (mut bob, of_bob) = member(b, &room, "bob").await;
        let (_eve, of_eve) = member(b, "other", "eve").await;
        let (mids, _) = of_ada.publish(&[("mic", MICROPHONE)]).await;
        of_ada.peer.say(mids[0], "hello").await;
        let mic = subscribe_soon(&of_bob, &of_ada.session).await;
        of_bob.peer.until_received(mic, "hello").await;
        let kim = Person::log_in(a, "Kim").await;
        let mut api = ApiClient::for_cookie(kim.cookie());
        let session = open_in(&mut api, a, &room).await;
        let of_kim = MediaSession { server: a, api, session, peer: Peer::new(Net::Udp).await };
        for stranger in [&of_eve, &of_kim] {
            assert!(is_refused(stranger, &of_ada.session).await);
        }
        bob.say(json!({"type": "userLeft"})).await;
        bob.closed().await;
        eventually("who left receives nothing".to_owned(), async || {
            is_refused(&of_bob, &of_ada.session).await
        })
        .await;
        let is_inactive = async || {
            let tracks = of_bob.tracks().await;
            tracks.as_array().unwrap().iter().all(|track| track["status"] != "active")
        };
        eventually("what flowed stops".to_owned(), is_inactive).await;
        if homes.len() == 2 {
            break;
        }
    }
    assert_eq!(homes, HashSet::from([a_id.to_string(), b_id.to_string()]));
}

/// The next owner of a room tells its members to the node of the media, which lives on.
#[tokio::test]
async fn check_of_members_outlives_the_owner() {
    let network = MemoryNetwork::default();
    let with_check = |config: &mut Config| config.calls.room_check = true;
    let (b, b_id) = TestServer::node(&network, None, with_check).await;
    let a = Mortal::start_with(&network, &b, with_check);
    let mut number = 0;
    let (room, _owned) = loop {
        let room = format!("r{number}");
        let mut dot = Client::join(&a.server, &room, "Dot").await;
        let mut api = ApiClient::for_person(&b, "Eve").await;
        if home(&open_in(&mut api, &b, &room).await) == b_id.to_string() {
            chat(&mut dot, 1).await;
            told(&mut dot, 1).await;
            break (room, dot);
        }
        number += 1;
    };
    let (mut ada, of_ada) = member(&b, &room, "ada").await;
    let (_bob, of_bob) = member(&b, &room, "bob").await;
    let (mids, _) = of_ada.publish(&[("mic", MICROPHONE)]).await;
    of_ada.peer.say(mids[0], "hello").await;
    let mic = subscribe_soon(&of_bob, &of_ada.session).await;
    of_bob.peer.until_received(mic, "hello").await;
    let _dead = a.kill();
    chat(&mut ada, 2).await;
    told(&mut ada, 2).await;
    let (_cyd, of_cyd) = member(&b, &room, "cyd").await;
    let mic = subscribe_soon(&of_cyd, &of_ada.session).await;
    of_cyd.peer.until_received(mic, "hello").await;
}
