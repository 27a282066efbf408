//! Media through the real server: peers on sockets of this machine, as browsers and as other servers.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use satsuma::config::{Config, Optional};
use serde_json::{Value, json};
use str0m::media::Mid;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::{PATIENCE, Person, TestServer, answer, eventually};
use crate::media_session::{ApiClient, MediaSession};
use crate::peer::{CAMERA, LAYERED_CAMERA, MICROPHONE, Net, Peer, candidates};

const SECRET: &str = "a-secret-for-other-servers";

/// The peers here are in no room.
pub fn without_rooms(config: &mut Config) {
    config.calls.room_check = false;
}

fn for_other_servers(config: &mut Config) {
    config.sfu.api_secret = Optional(Some(SECRET.into()));
    without_rooms(config);
}

/// The mounts: browsers' with cookies, other servers' with the secret.
async fn api_clients(server: &TestServer) -> [ApiClient; 4] {
    [
        ApiClient::for_person(server, "Ada").await,
        ApiClient::for_older_client(server, "Ada").await,
        ApiClient::for_server("/v1/apps/embedded", SECRET),
        ApiClient::for_server("/apps/embedded", SECRET),
    ]
}

fn state(tracks: &Value, mid: Mid) -> &Value {
    tracks.as_array().unwrap().iter().find(|track| track["mid"] == *mid).expect("the track")
}

/// Waits until a metric is counted: the media thread publishes its counts periodically.
async fn until_counted(server: &TestServer, name: &str) {
    eventually(format!("{name} is counted"), async || server.metric(name).await > 0.0).await;
}

/// Two members of whom one receives the other's audio, with its transceiver and the publisher's answer.
async fn bob_hears_ada(server: &TestServer) -> (MediaSession<'_>, MediaSession<'_>, Mid, String) {
    let (ada, bob) = (MediaSession::of(server, "Ada").await, MediaSession::of(server, "Bob").await);
    let (mids, answer) = ada.publish(&[("mic", MICROPHONE)]).await;
    ada.peer.say(mids[0], "hello").await;
    let mic = bob.subscribe(&ada.session, "mic").await;
    bob.peer.until_received(mic, "hello").await;
    (ada, bob, mic, answer)
}

#[tokio::test]
async fn media_flow_through_every_api_mount() {
    let server = TestServer::with(for_other_servers).await;
    for api in api_clients(&server).await {
        let ada = MediaSession::open(&server, api.clone(), Net::Udp).await;
        let bob = MediaSession::open(&server, api, Net::Udp).await;
        let (mids, _) = ada.publish(&[("mic", MICROPHONE), ("cam", CAMERA)]).await;
        ada.peer.until_connected().await;
        let before = ada.tracks().await;
        assert_eq!(
            state(&before, mids[0]),
            &json!({"location": "local", "mid": *mids[0], "trackName": "mic", "status": "initializing"})
        );
        ada.peer.say(mids[0], "hello").await;
        ada.peer.say(mids[1], "waves").await;
        let mic = bob.subscribe(&ada.session, "mic").await;
        let cam = bob.subscribe(&ada.session, "cam").await;
        tokio::join!(bob.peer.until_received(mic, "hello"), bob.peer.until_received(cam, "waves"));
        let after = bob.tracks().await;
        let shown = json!({"location": "remote", "mid": *cam, "trackName": "cam", "status": "active",
                           "sessionId": ada.session});
        assert_eq!(state(&after, cam), &shown);
        assert_eq!(state(&ada.tracks().await, mids[1])["status"], "active");

        // A closed subscription receives nothing more, the others continue.
        bob.close(&[cam]).await;
        assert_eq!(bob.tracks().await.as_array().unwrap().len(), 1);
        bob.peer.until_received(mic, "hello").await;
        // A closed track cannot be subscribed to.
        ada.close(&[mids[1]]).await;
        let pull = json!({"tracks": [{"location": "remote", "sessionId": ada.session, "trackName": "cam"}]});
        let refused = bob.call(Method::POST, "/tracks/new", &pull).await;
        assert_eq!(refused["tracks"][0]["errorCode"], "not_found_track_error", "{refused}");
        bob.peer.until_received(mic, "hello").await;
    }
}

#[tokio::test]
async fn media_flow_both_ways_with_early_subscription() {
    let server = TestServer::with(without_rooms).await;
    let (ada, bob) = (MediaSession::of(&server, "Ada").await, MediaSession::of(&server, "Bob").await);
    let (of_ada, _) = ada.publish(&[("mic", MICROPHONE)]).await;
    ada.peer.say(of_ada[0], "from Ada").await;
    // The server's offer is the first description of Bob's session.
    let bobs_mid = bob.subscribe(&ada.session, "mic").await;
    let (of_bob, _) = bob.publish(&[("mic", MICROPHONE)]).await;
    bob.peer.say(of_bob[0], "from Bob").await;
    let adas_mid = ada.subscribe(&bob.session, "mic").await;
    tokio::join!(
        bob.peer.until_received(bobs_mid, "from Ada"),
        ada.peer.until_received(adas_mid, "from Bob"),
    );
}

#[tokio::test]
async fn publish_without_offer_gets_the_servers_offer() {
    let server = TestServer::with(without_rooms).await;
    let (ada, bob) = (MediaSession::of(&server, "Ada").await, MediaSession::of(&server, "Bob").await);
    let track = json!({"location": "local", "trackName": "mic", "kind": "audio"});
    let response = ada.call(Method::POST, "/tracks/new", &json!({"tracks": [track]})).await;
    assert_eq!(response["requiresImmediateRenegotiation"], true);
    ada.answer(response["sessionDescription"]["sdp"].as_str().unwrap()).await;
    ada.peer.say(Mid::from(response["tracks"][0]["mid"].as_str().unwrap()), "hello").await;
    let mic = bob.subscribe(&ada.session, "mic").await;
    bob.peer.until_received(mic, "hello").await;
}

#[tokio::test]
async fn session_can_be_created_with_an_offer() {
    let server = TestServer::with(for_other_servers).await;
    let api = ApiClient::for_server("/v1/apps/embedded", SECRET);
    let peer = Peer::new(Net::Udp).await;
    let (mics, offer) = peer.offer(&[MICROPHONE]).await;
    let body = json!({"sessionDescription": {"type": "offer", "sdp": offer}});
    let opened = api.call(&server, Method::POST, "new?correlationId=x", &body).await;
    assert_eq!((opened.status, &opened.json()["sessionDescription"]["type"]), (201, &json!("answer")));
    peer.accept(opened.json()["sessionDescription"]["sdp"].as_str().unwrap()).await;
    peer.until_connected().await;

    let session = opened.json()["sessionId"].as_str().unwrap().to_owned();
    let ada = MediaSession { server: &server, api: api.clone(), session, peer };
    let (cams, offer) = ada.peer.offer(&[CAMERA]).await;
    let local = |mid: &str, name: &str| json!({"location": "local", "mid": mid, "trackName": name});
    let body = json!({"tracks": [local(&mics[0], "mic"), local("77", "none"), local(&cams[0], "cam")],
                      "sessionDescription": {"type": "offer", "sdp": offer}});
    let response = ada.call(Method::POST, "/tracks/new", &body).await;
    let codes = [0, 1, 2].map(|place| response["tracks"][place]["errorCode"].clone());
    assert_eq!(codes, [Value::Null, json!("invalid_params"), Value::Null], "{response}");
    ada.peer.accept(response["sessionDescription"]["sdp"].as_str().unwrap()).await;
    ada.peer.say(mics[0], "hello").await;
    ada.peer.say(cams[0], "waves").await;

    // Several subscriptions in one call, one of which fails.
    let bob = MediaSession::open(&server, api, Net::Udp).await;
    let remote = |name: &str| json!({"location": "remote", "sessionId": ada.session, "trackName": name});
    let body = json!({"tracks": [remote("mic"), remote("none"), remote("cam")]});
    let response = bob.call(Method::POST, "/tracks/new", &body).await;
    assert_eq!(response["tracks"][1]["errorCode"], "not_found_track_error");
    bob.answer(response["sessionDescription"]["sdp"].as_str().unwrap()).await;
    let [mic, cam] = [0, 2].map(|place| Mid::from(response["tracks"][place]["mid"].as_str().unwrap()));
    tokio::join!(bob.peer.until_received(mic, "hello"), bob.peer.until_received(cam, "waves"));

    // The client library stops one transceiver of several that it closes; all end.
    let offer = bob.peer.stop(&[mic]).await;
    let body = json!({"tracks": [{"mid": *mic}, {"mid": *cam}], "force": false,
                      "sessionDescription": {"type": "offer", "sdp": offer}});
    let response = bob.call(Method::PUT, "/tracks/close", &body).await;
    bob.peer.accept(response["sessionDescription"]["sdp"].as_str().unwrap()).await;
    assert_eq!(bob.tracks().await, json!([]));
    // With `force` nothing is negotiated.
    let body = json!({"tracks": [{"mid": *cams[0]}, {"mid": "77"}], "force": true});
    let response = ada.call(Method::PUT, "/tracks/close", &body).await;
    assert_eq!(response["tracks"][1]["errorCode"], "close_track_error", "{response}");
    assert_eq!(ada.tracks().await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn update_changes_layer_and_track() {
    let server = TestServer::with(without_rooms).await;
    let (ada, bob) = (MediaSession::of(&server, "Ada").await, MediaSession::of(&server, "Bob").await);
    let (mids, _) = ada.publish(&[("cam", LAYERED_CAMERA), ("screen", CAMERA)]).await;
    ada.peer.say_in(mids[0], Some("a"), "large").await;
    ada.peer.say_in(mids[0], Some("b"), "small").await;
    ada.peer.say(mids[1], "slides").await;
    let of_rid = |rid: &str| {
        json!({"location": "remote", "sessionId": ada.session, "trackName": "cam",
               "simulcast": {"preferredRid": rid}})
    };
    let cam = bob.subscribe_as(of_rid("b")).await;
    bob.peer.until_received(cam, "small").await;
    assert_eq!(bob.peer.received(cam, "large"), 0);

    let updated = |response: &Value| {
        let [track] = &response["tracks"].as_array().unwrap()[..] else { panic!("{response}") };
        assert_eq!((&track["mid"], &track["errorCode"]), (&json!(*cam), &Value::Null));
        assert_eq!(
            (&response["requiresImmediateRenegotiation"], &response["sessionDescription"]),
            (&json!(false), &Value::Null)
        );
    };
    // As the client library does it: the whole of the track's description, without its `mid`.
    updated(&bob.call(Method::PUT, "/tracks/update", &json!({"tracks": [of_rid("a")]})).await);
    bob.peer.until_received(cam, "large").await;

    let swap = json!({"tracks": [{"location": "remote", "mid": *cam, "sessionId": ada.session,
                                  "trackName": "screen"}]});
    updated(&bob.call(Method::PUT, "/tracks/update", &swap).await);
    bob.peer.until_received(cam, "slides").await;
    assert_eq!(state(&bob.tracks().await, cam)["trackName"], "screen");
}

/// Two clients exchange audio and video over this network.
async fn exchange_media(server: &TestServer, net: Net) {
    let ada = MediaSession::open(server, ApiClient::for_person(server, "Ada").await, net).await;
    let bob = MediaSession::open(server, ApiClient::for_person(server, "Bob").await, net).await;
    let (mids, _) = ada.publish(&[("mic", MICROPHONE), ("cam", CAMERA)]).await;
    ada.peer.say(mids[0], "hello").await;
    ada.peer.say(mids[1], "waves").await;
    let mic = bob.subscribe(&ada.session, "mic").await;
    let cam = bob.subscribe(&ada.session, "cam").await;
    tokio::join!(bob.peer.until_received(mic, "hello"), bob.peer.until_received(cam, "waves"));
    let connections = if net == Net::Tcp { 2.0 } else { 0.0 };
    server.until_metric("satsuma_sfu_tcp_connections", connections).await;
}

#[tokio::test]
async fn media_without_udp_flow_over_tcp() {
    exchange_media(&TestServer::with(without_rooms).await, Net::Tcp).await;
}

#[tokio::test]
#[ignore = "needs IPv6"]
async fn media_flow_over_ipv6() {
    let ipv6 = |config: &mut Config| {
        without_rooms(config);
        config.sfu.udp_listen = "[::1]:0".parse().unwrap();
    };
    exchange_media(&TestServer::with(ipv6).await, Net::Udp6).await;
}

#[tokio::test]
async fn tcp_and_udp_peers_exchange_media() {
    let server = TestServer::with(without_rooms).await;
    let ada = MediaSession::open(&server, ApiClient::for_person(&server, "Ada").await, Net::Tcp).await;
    let bob = MediaSession::of(&server, "Bob").await;
    let (of_ada, _) = ada.publish(&[("mic", MICROPHONE)]).await;
    let (of_bob, _) = bob.publish(&[("mic", MICROPHONE)]).await;
    ada.peer.say(of_ada[0], "by TCP").await;
    bob.peer.say(of_bob[0], "by UDP").await;
    let adas_mid = ada.subscribe(&bob.session, "mic").await;
    let bobs_mid = bob.subscribe(&ada.session, "mic").await;
    tokio::join!(ada.peer.until_received(adas_mid, "by UDP"), bob.peer.until_received(bobs_mid, "by TCP"),);
}

#[tokio::test]
async fn disabled_tcp_is_not_advertised() {
    let server = TestServer::with(|config| {
        without_rooms(config);
        config.sfu.tcp = false;
    })
    .await;
    let ada = MediaSession::of(&server, "Ada").await;
    let (_, answer) = ada.publish(&[("mic", MICROPHONE)]).await;
    assert_eq!(candidates(&answer, "tcp"), []);
    assert_eq!(candidates(&answer, "udp").len(), 1);
    ada.peer.until_connected().await;
}

#[tokio::test]
async fn configured_addresses_are_advertised() {
    let server = TestServer::with(|config| {
        without_rooms(config);
        config.sfu.advertise = ["203.0.113.7:4000", "127.0.0.1"]
            .map(|text| {
                use satsuma::config::MediaAddress;
                text.parse().map_or_else(|_| MediaAddress::Ip(text.parse().unwrap()), MediaAddress::Socket)
            })
            .into();
    });
    let server = server.await;
    let ada = MediaSession::of(&server, "Ada").await;
    let (_, answer) = ada.publish(&[("mic", MICROPHONE)]).await;
    let response = candidates(&answer, "udp");
    assert_eq!((response.len(), response[0].ip().is_loopback()), (2, true), "{response:?}");
    assert_eq!(response[1], "203.0.113.7:4000".parse().unwrap());
    ada.peer.until_connected().await;
}

#[tokio::test]
async fn media_survive_random_datagrams() {
    let server = TestServer::with(without_rooms).await;
    let (_ada, bob, mic, answer) = bob_hears_ada(&server).await;

    let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = candidates(&answer, "udp")[0];
    // Marsaglia's xorshift: the same bytes in every run.
    let mut random = 88_172_645_463_325_252_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..2000 {
        let mut datagram: Vec<u8> = (0..next() % 1400 + 1).map(|_| next() as u8).collect();
        // RFC 7983: datagrams like STUN, like DTLS, like media, and like nothing.
        datagram[0] = [0, 22, 128, 255][round % 4];
        if round % 8 == 0 && datagram.len() >= 8 {
            datagram[..8].copy_from_slice(&[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42]);
        }
        let _ = sender.send_to(&datagram, to).await;
    }
    bob.peer.until_received(mic, "hello").await;
    until_counted(&server, r#"satsuma_sfu_drops_total{reason="unknown_source"}"#).await;
    assert_eq!(server.metric(r#"satsuma_sfu_drops_total{reason="panic"}"#).await, 0.0);
    assert_eq!(server.metric("satsuma_sfu_sessions").await, 2.0);
}

/// Requests a session as a client behind a trusted proxy; returns the status.
async fn new_session(server: &TestServer, person: &Person, from: &str) -> u16 {
    let call = server.request(&Method::POST, "/api/calls/sessions/new").header("cookie", person.cookie());
    answer(call.header("x-forwarded-for", from)).await.status
}

/// Sessions are free; a hundred cookies held all of them for a day.
#[tokio::test]
async fn sessions_of_a_network_are_limited() {
    let server = TestServer::with(|config| {
        without_rooms(config);
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    });
    let server = Arc::new(server.await);
    let mut visitors = JoinSet::new();
    for number in 0..27 {
        let server = server.clone();
        visitors.spawn(async move {
            let mallory = Person::log_in(&*server, &format!("Mallory {number}")).await;
            for _ in 0..20 {
                // A network has any number of addresses.
                assert_eq!(new_session(&server, &mallory, &format!("2001:db8::{number:x}")).await, 201);
            }
        });
    }
    visitors.join_all().await;
    // The limit of sfu.sessions_per_network.
    server.until_metric("satsuma_sfu_sessions", 500.0).await;
    let ada = Person::log_in(&*server, "Ada").await;
    assert_eq!(new_session(&server, &ada, "192.0.2.1").await, 201);
}

#[tokio::test]
async fn sfu_metrics_and_report_show_subscriptions() {
    let server = TestServer::with(without_rooms).await;
    let (ada, bob) = (MediaSession::of(&server, "Ada").await, MediaSession::of(&server, "Bob").await);
    assert_eq!(server.admin("/admin/sfu").send().await.unwrap().status(), 401);
    let (mids, _) = ada.publish(&[("cam", CAMERA)]).await;
    ada.peer.say(mids[0], "waves").await;
    // Her first frame has passed, so a keyframe must be requested.
    let has_come = async || state(&ada.tracks().await, mids[0])["status"] == "active";
    eventually("a picture came".to_owned(), has_come).await;
    let cam = bob.subscribe(&ada.session, "cam").await;
    bob.peer.until_received(cam, "waves").await;

    let report = server.admin_get("/admin/sfu").await.json();
    let session = |id: &str| {
        let sessions = report["sessions"].as_array().unwrap();
        sessions.iter().find(|session| session["id"] == id).unwrap_or_else(|| panic!("{report}"))
    };
    let of_ada = session(&ada.session);
    assert_eq!((&of_ada["publishes"], &of_ada["subscribes"]), (&json!(1), &json!(0)));
    assert_eq!(session(&bob.session)["state"], "connected");
    assert!(of_ada["received_bytes"].as_u64().unwrap() > 0);
    let [track] = &report["tracks"].as_array().unwrap()[..] else { panic!("{report}") };
    assert_eq!(
        (&track["session"], &track["name"], &track["kind"]),
        (&json!(ada.session), &json!("cam"), &json!("video"))
    );
    assert_eq!(
        (&track["subscribers"][0]["session"], &track["subscribers"][0]["mid"]),
        (&json!(bob.session), &json!(*cam))
    );
    assert!(track["subscribers"][0]["packets"].as_u64().unwrap() >= 5, "{report}");

    for (name, wanted) in
        [("sessions", 2.0), ("connected_sessions", 2.0), ("tracks", 1.0), ("subscriptions", 1.0)]
    {
        server.until_metric(&format!("satsuma_sfu_{name}"), wanted).await;
    }
    for name in [
        "received_packets_total",
        "received_bytes_total",
        "forwarded_packets_total",
        "forwarded_bytes_total",
        "forward_seconds_count",
    ] {
        until_counted(&server, &format!("satsuma_sfu_{name}")).await;
    }
    until_counted(&server, r#"satsuma_sfu_keyframe_requests_total{reason="sent"}"#).await;
    let calls = r#"satsuma_call_seconds_count{operation="new_tracks",status="200"}"#;
    assert_eq!(server.metric(calls).await, 2.0);
}

#[tokio::test]
async fn shutdown_ends_media_and_frees_the_port() {
    let server = TestServer::with(without_rooms).await;
    let (ada, bob, _, answer) = bob_hears_ada(&server).await;
    // Media continue while the server stops.
    let _talking = [ada.peer, bob.peer];
    let address = candidates(&answer, "udp")[0];
    assert!(UdpSocket::bind(address).await.is_err(), "the server has it");
    timeout(PATIENCE, server.stop()).await.expect("in time");
    UdpSocket::bind(address).await.expect("nobody has it");
    std::net::TcpListener::bind(address).expect("nobody has it");
}

#[tokio::test]
async fn lost_session_after_restart_gets_recoverable_error() {
    let server = TestServer::with(for_other_servers).await;
    let mut person = ApiClient::for_person(&server, "Ada").await;
    let other = ApiClient::for_server("/v1/apps/embedded", SECRET);
    let session = person.open(&server).await;
    let server = server.restart().await;

    let path = |rest: &str| format!("{session}{rest}");
    let gone = other.call(&server, Method::GET, &path(""), &Value::Null).await;
    assert_eq!((gone.status, &gone.json()["errorCode"]), (410, &json!("session_error")));
    let pull = json!({"tracks": [{"location": "remote", "sessionId": "p", "trackName": "t"}]});
    let healing = person.call(&server, Method::POST, &path("/tracks/new"), &pull).await;
    assert_eq!(healing.status, 410);
    let response = healing.json();
    assert_eq!(response["errorCode"], Value::Null, "a code at the top would be final");
    assert_eq!(
        (&response["tracks"][0]["sessionId"], &response["tracks"][0]["errorCode"]),
        (&json!("p"), &json!("session_error"))
    );
    let closing = json!({"tracks": [{"mid": "0"}], "force": true});
    let closed = person.call(&server, Method::PUT, &path("/tracks/close"), &closing).await;
    assert_eq!((closed.status, closed.json()["sessionDescription"].is_object()), (410, true));

    // A new session works at once.
    let ada = MediaSession::open(&server, person, Net::Udp).await;
    ada.publish(&[("mic", MICROPHONE)]).await;
    timeout(Duration::from_secs(5), ada.peer.until_connected()).await.unwrap();
}
