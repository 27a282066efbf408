//! Media and rooms: who may receive whose tracks, over the real media port and through the proxy.

use axum::http::Method;
use serde_json::{Value, json};
use str0m::media::Mid;

use crate::access_tokens::{auth, token_with};
use crate::client::{Ask, Client};
use crate::cloud::Cloud;
use crate::harness::{Person, TestServer, eventually};
use crate::media_session::{ApiClient, MediaSession};
use crate::peer::{CAMERA, MICROPHONE, Net};

/// A member of a room with a session of the media API.
async fn member<'a>(server: &'a TestServer, room: &str, pk: &str) -> (Client, MediaSession<'a>) {
    let person = Person::log_in(server, pk).await;
    let media = media_of(server, &person).await;
    (Ask::room(room).by(&person).pk(pk).open(server).await, media)
}

async fn media_of<'a>(server: &'a TestServer, person: &Person) -> MediaSession<'a> {
    MediaSession::open(server, ApiClient::for_cookie(person.cookie()), Net::Udp).await
}

fn pull(tracks: &[(&str, &str)]) -> Value {
    let remote = |(session, name): &(&str, &str)| json!({"location": "remote", "sessionId": session, "trackName": name});
    json!({"tracks": tracks.iter().map(remote).collect::<Vec<_>>()})
}

/// The error codes of the tracks of an answer, in their order.
fn errors(answer: &Value) -> Vec<&str> {
    let tracks = answer["tracks"].as_array().unwrap_or_else(|| panic!("no tracks: {answer}"));
    tracks.iter().map(|track| track["errorCode"].as_str().unwrap_or("none")).collect()
}

async fn moderate(server: &TestServer, action: Value) {
    let done = server.admin_post("/admin/rooms/r/moderate", &action).await;
    assert_eq!(done.json(), json!({"ok": true}), "{done:?}");
}

async fn until_status(session: &MediaSession<'_>, mid: Mid, status: &str) {
    let is_so = async || {
        let tracks = session.tracks().await;
        tracks.as_array().unwrap().iter().any(|track| track["mid"] == *mid && track["status"] == status)
    };
    eventually(format!("the track is {status}"), is_so).await;
}

const NOT_FOUND: &str = "not_found_track_error";

#[tokio::test]
async fn track_is_received_by_members_of_its_room_alone() {
    let server = TestServer::start().await;
    let (_a, ada) = member(&server, "r", "ada").await;
    let (_b, bob) = member(&server, "r", "bob").await;
    let (_e, eve) = member(&server, "other", "eve").await;
    let (mids, _) = ada.publish(&[("mic", MICROPHONE)]).await;
    let (own, _) = eve.publish(&[("mic", MICROPHONE)]).await;
    ada.peer.say(mids[0], "hello").await;
    eve.peer.say(own[0], "hello from Eve").await;
    let mic = bob.subscribe(&ada.session, "mic").await;
    bob.peer.until_received(mic, "hello").await;

    // Somebody who only waits to be let in.
    moderate(&server, json!({"action": "waitingRoom", "on": true})).await;
    let kim = Person::log_in(&server, "Kim").await;
    assert_eq!(Ask::room("r").by(&kim).pk("kim").answer(&server).await.status, 403);
    let kim = media_of(&server, &kim).await;
    for stranger in [&eve, &kim] {
        let refused = stranger.call(Method::POST, "/tracks/new", &pull(&[(&ada.session, "mic")])).await;
        assert_eq!(errors(&refused), [NOT_FOUND], "{refused}");
    }
    // The same as of a track that does not exist, in a call with others that do.
    let tracks = [(&*ada.session, "mic"), (&*bob.session, "none"), (&*ada.session, "none")];
    let partly = eve.call(Method::POST, "/tracks/new", &pull(&tracks)).await;
    assert_eq!(errors(&partly), [NOT_FOUND; 3]);
    let tracks = [(&*eve.session, "mic"), (&*ada.session, "mic")];
    let partly = bob.call(Method::POST, "/tracks/new", &pull(&[tracks[0]])).await;
    assert_eq!(errors(&partly), [NOT_FOUND]);

    // Changing what a transceiver carries is no way around.
    let swap = json!({"tracks": [{"mid": mic.to_string(), "location": "remote",
                                  "sessionId": eve.session, "trackName": "mic"}]});
    let swapped = bob.call(Method::PUT, "/tracks/update", &swap).await;
    assert_eq!(errors(&swapped), [NOT_FOUND]);
    let doubled = format!(
        r#"{{"tracks":[{{"mid":"{mic}","sessionId":"{}","sessionId":"{}","trackName":"mic"}}]}}"#,
        ada.session, eve.session
    );
    // Lists that the media server can read as the objects.
    let listed = format!(r#"[null,[["remote","{mic}","{}","mic"]]]"#, eve.session);
    let nested = format!(
        r#"{{"tracks":[{{"mid":"{mic}","sessionId":"{}","trackName":"mic"}}],"x":{}{}}}"#,
        eve.session,
        "[".repeat(500),
        "]".repeat(500)
    );
    let path = format!("{}/tracks/update", bob.session);
    for body in [doubled, listed, nested] {
        let refused = crate::harness::answer(bob.api.ask(&server, Method::PUT, &path).body(body)).await;
        assert_eq!((refused.status, &refused.json()["errorCode"]), (400, &json!("invalid_params")));
    }
    bob.peer.until_received(mic, "hello").await;
    assert_eq!(bob.peer.received(mic, "hello from Eve"), 0);
}

#[tokio::test]
async fn part_of_a_call_is_carried_out() {
    let server = TestServer::start().await;
    let (_a, ada) = member(&server, "r", "ada").await;
    let (_b, bob) = member(&server, "r", "bob").await;
    let (_e, eve) = member(&server, "other", "eve").await;
    let (mids, _) = ada.publish(&[("mic", MICROPHONE), ("cam", CAMERA)]).await;
    eve.publish(&[("mic", MICROPHONE)]).await;
    ada.peer.say(mids[0], "hello").await;
    let tracks =
        [(&*eve.session, "mic"), (&*ada.session, "mic"), (&*eve.session, "cam"), (&*ada.session, "cam")];
    let partly = bob.call(Method::POST, "/tracks/new", &pull(&tracks)).await;
    assert_eq!(errors(&partly), [NOT_FOUND, "none", NOT_FOUND, "none"], "{partly}");
    let named: Vec<&str> =
        partly["tracks"].as_array().unwrap().iter().map(|t| t["trackName"].as_str().unwrap()).collect();
    assert_eq!(named, ["mic", "mic", "cam", "cam"]);
    bob.answer(partly["sessionDescription"]["sdp"].as_str().unwrap()).await;
    let mic = Mid::from(partly["tracks"][1]["mid"].as_str().unwrap());
    bob.peer.until_received(mic, "hello").await;
}

#[tokio::test]
async fn removed_member_receives_and_sends_nothing() {
    let server = TestServer::start().await;
    let (_a, ada) = member(&server, "r", "ada").await;
    let (mut b, bob) = member(&server, "r", "bob").await;
    let (_c, cyd) = member(&server, "r", "cyd").await;
    let (of_ada, _) = ada.publish(&[("mic", MICROPHONE)]).await;
    let (of_bob, _) = bob.publish(&[("mic", MICROPHONE)]).await;
    ada.peer.say(of_ada[0], "before").await;
    bob.peer.say(of_bob[0], "Bob before").await;
    let to_bob = bob.subscribe(&ada.session, "mic").await;
    let to_cyd = cyd.subscribe(&ada.session, "mic").await;
    let from_bob = cyd.subscribe(&bob.session, "mic").await;
    bob.peer.until_received(to_bob, "before").await;
    cyd.peer.until_received(from_bob, "Bob before").await;

    moderate(&server, json!({"action": "remove", "id": "bob"})).await;
    assert_eq!(b.closed().await.0, 4403);
    until_status(&bob, to_bob, "inactive").await;
    until_status(&cyd, from_bob, "inactive").await;
    ada.peer.say(of_ada[0], "after").await;
    bob.peer.say(of_bob[0], "Bob after").await;
    cyd.peer.until_received(to_cyd, "after").await;
    assert_eq!(bob.peer.received(to_bob, "after"), 0);
    assert_eq!(cyd.peer.received(from_bob, "Bob after"), 0);
    let again = bob.call(Method::POST, "/tracks/new", &pull(&[(&ada.session, "mic")])).await;
    assert_eq!(errors(&again), [NOT_FOUND]);
}

#[tokio::test]
async fn holder_of_a_revoked_token_receives_and_sends_nothing() {
    let server = TestServer::with(|config| config.auth = auth()).await;
    let holder = async |name: &str| {
        let person = Person::with_cookie(format!("satsuma_token={}", token_with(name, "r", json!({}))));
        let media = media_of(&server, &person).await;
        (Ask::room("r").by(&person).pk(name).open(&server).await, media)
    };
    let ((_a, ada), (mut b, bob), (_c, cyd)) =
        (holder("ada").await, holder("bob").await, holder("cyd").await);
    let (of_ada, _) = ada.publish(&[("mic", MICROPHONE)]).await;
    let (of_bob, _) = bob.publish(&[("mic", MICROPHONE)]).await;
    bob.peer.say(of_bob[0], "Bob before").await;
    ada.peer.say(of_ada[0], "before").await;
    let to_bob = bob.subscribe(&ada.session, "mic").await;
    let to_cyd = cyd.subscribe(&ada.session, "mic").await;
    let from_bob = cyd.subscribe(&bob.session, "mic").await;
    bob.peer.until_received(to_bob, "before").await;
    cyd.peer.until_received(from_bob, "Bob before").await;

    let revoked = server.admin_post("/admin/tokens/revoke", &json!({"identity": "bob"})).await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    assert_eq!(b.closed().await.0, 4401);
    until_status(&cyd, from_bob, "inactive").await;
    bob.peer.say(of_bob[0], "Bob after").await;
    ada.peer.say(of_ada[0], "after").await;
    cyd.peer.until_received(to_cyd, "after").await;
    assert_eq!(cyd.peer.received(from_bob, "Bob after"), 0);
    assert_eq!(bob.peer.received(to_bob, "after"), 0);
    let again = bob.try_call(Method::POST, "/tracks/new", &pull(&[(&ada.session, "mic")])).await;
    assert_eq!(again.status, 401, "{again:?}");
}

#[tokio::test]
async fn stopped_microphone_is_silent_until_its_owner_switches_it_on() {
    let server = TestServer::start().await;
    let (mut a, ada) = member(&server, "r", "ada").await;
    let (mut b, bob) = member(&server, "r", "bob").await;
    let (mids, _) = ada.publish(&[("mic", MICROPHONE), ("cam", CAMERA)]).await;
    ada.peer.say(mids[0], "before").await;
    ada.peer.say(mids[1], "waves").await;
    let update = |is_on: bool| {
        let (mic, cam) = (format!("{}/mic", ada.session), format!("{}/cam", ada.session));
        json!({"type": "userUpdate", "user": {
            "id": "ada", "name": "ada", "joined": true, "raisedHand": false, "speaking": false,
            "tracks": {"audio": mic, "audioEnabled": is_on, "video": cam, "videoEnabled": true,
                       "audioUnavailable": false}}})
    };
    a.say(update(true)).await;
    let shows = |state: &Value, is_on: bool| {
        state["users"]
            .as_array()
            .unwrap()
            .iter()
            .any(|user| user["tracks"]["audioEnabled"] == is_on && user["id"] == "ada")
    };
    b.until_state(|state| shows(state, true)).await;
    let (mic, cam) = (bob.subscribe(&ada.session, "mic").await, bob.subscribe(&ada.session, "cam").await);
    bob.peer.until_received(mic, "before").await;

    b.say(json!({"type": "muteUser", "id": "ada"})).await;
    a.until(|message| message["type"] == "muteMic").await;
    until_status(&bob, mic, "inactive").await;
    // A client that does not obey, or did not hear of it yet.
    a.say(update(true)).await;
    a.say(json!({"type": "chat", "message": "sent after it"})).await;
    b.until(|message| message["type"] == "chat").await;
    ada.peer.say(mids[0], "while stopped").await;
    bob.peer.until_received(cam, "waves").await;
    assert_eq!(bob.peer.received(mic, "while stopped"), 0);
    b.say(
        json!({"type": "userUpdate", "user": {"id": "bob", "name": "bob", "joined": true, "raisedHand": true,
        "speaking": false, "tracks": {"audioUnavailable": false}}}),
    )
    .await;
    let state = b.until_state(|state| state["users"][1]["raisedHand"] == true).await;
    assert!(shows(&state, false), "{state}");

    a.say(update(false)).await;
    a.say(update(true)).await;
    ada.peer.say(mids[0], "again").await;
    bob.peer.until_received(mic, "again").await;
    assert_eq!(bob.peer.received(mic, "while stopped"), 0);

    // A moderator stops the camera; it goes on with its owner's will.
    moderate(&server, json!({"action": "mute", "id": "ada", "kind": "video"})).await;
    assert_eq!(
        a.until(|message| message["type"] == "muted").await,
        json!({"type": "muted", "kind": "video"})
    );
    until_status(&bob, cam, "inactive").await;
    bob.peer.until_received(mic, "again").await;
}

#[tokio::test]
async fn token_grants_hold_at_the_media_api() {
    let server = TestServer::with(|config| config.auth = auth()).await;
    let holder = async |name: &str, grants: Value| {
        let person = Person::with_cookie(format!("satsuma_token={}", token_with(name, "r", grants)));
        let media = media_of(&server, &person).await;
        (Ask::room("r").by(&person).pk(name).open(&server).await, media)
    };
    let (_a, ada) = holder("ada", json!({})).await;
    let (mut v, viewer) = holder("viewer", json!({"publish": []})).await;
    let (_s, speaker) = holder("speaker", json!({"publish": ["audio"], "subscribe": false})).await;
    let (mids, _) = ada.publish(&[("mic", MICROPHONE)]).await;
    ada.peer.say(mids[0], "hello").await;
    let mic = viewer.subscribe(&ada.session, "mic").await;
    viewer.peer.until_received(mic, "hello").await;

    let push = async |session: &MediaSession<'_>, media| {
        let (mids, offer) = session.peer.offer(&[media]).await;
        let body = json!({"tracks": [{"location": "local", "mid": mids[0].to_string(), "trackName": "t"}],
                          "sessionDescription": {"type": "offer", "sdp": offer}});
        session.try_call(Method::POST, "/tracks/new", &body).await
    };
    for (session, media, status) in [
        (&viewer, MICROPHONE, 403),
        (&viewer, CAMERA, 403),
        (&speaker, CAMERA, 403),
        (&speaker, MICROPHONE, 200),
    ] {
        let pushed = push(session, media).await;
        assert_eq!(pushed.status, status, "{pushed:?}");
    }
    let refused = speaker.call(Method::POST, "/tracks/new", &pull(&[(&ada.session, "mic")])).await;
    assert_eq!(errors(&refused), [NOT_FOUND]);

    // Tracks that may not be sent are not announced either.
    v.say(json!({"type": "userUpdate", "user": {"id": "viewer", "name": "v", "joined": true, "raisedHand": false,
        "speaking": false, "tracks": {"audio": "x/mic", "audioEnabled": true, "screenshare": "x/s",
        "screenShareEnabled": true, "audioUnavailable": false}}}))
    .await;
    let state = v.until_state(|state| state["users"].to_string().contains("\"joined\":true")).await;
    let shown = crate::client::user_of(&state, "viewer");
    assert_eq!(
        shown["tracks"],
        json!({"audioEnabled": false, "audioUnavailable": false, "videoEnabled": false, "screenShareEnabled": false})
    );
}

/// With Cloudflare's API the server sees the calls alone, and decides on each.
#[tokio::test]
async fn calls_to_cloudflare_are_checked() {
    let cloud = Cloud::start().await;
    let server = TestServer::with(|config| cloud.configure(config)).await;
    let person = Person::log_in(&server, "ada").await;
    let mut client = Ask::room("r").by(&person).pk("ada").open(&server).await;
    let mut api = ApiClient::for_cookie(person.cookie());
    let session = api.open(&server).await;
    let before = cloud.seen_at("/tracks/new").len();
    let pull_other =
        api.call(&server, Method::POST, &format!("{session}/tracks/new"), &pull(&[("another", "mic")])).await;
    assert_eq!(errors(&pull_other.json()), [NOT_FOUND]);
    assert_eq!(cloud.seen_at("/tracks/new").len(), before, "it was not forwarded");
    let channel =
        json!({"dataChannels": [{"location": "remote", "sessionId": "another", "dataChannelName": "d"}]});
    let refused = api.call(&server, Method::POST, &format!("{session}/datachannels/new"), &channel).await;
    assert_eq!(refused.status, 404, "{refused:?}");

    // The AI does not listen to another room's track either.
    client.say(json!({"type": "enableAi"})).await;
    client.until_state(|state| state["ai"]["enabled"] == true).await;
    client
        .say(json!({"type": "requestAiControl", "track": {"sessionId": "another", "trackName": "mic"}}))
        .await;
    let error = client.until(|message| message["type"] == "error").await;
    assert_eq!(error["error"], "the AI cannot hear you at this time");
}
