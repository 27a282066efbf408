//! Watching a video together, over both protocols.

use satsuma::config::ModeratorDefault;
use serde_json::{Value, json};

use crate::access_tokens::{auth, token_with};
use crate::client::{Ask, Client};
use crate::harness::{Person, TestServer, answer};

const URL: &str = "https://example.org/film.webm";

fn watch(action: Value) -> Value {
    let mut message = json!({"type": "watch"});
    message.as_object_mut().unwrap().extend(action.as_object().unwrap().clone());
    message
}

/// The server's time by a member's question.
async fn time(client: &mut Client) -> u64 {
    client.say(json!({"type": "clock", "ref": 1})).await;
    client.until(|message| message["type"] == "clock").await["at"].as_u64().unwrap()
}

async fn refusal(client: &mut Client) -> String {
    let error = client.until(|message| message["type"] == "error").await;
    error["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn late_joiner_is_at_the_position_of_the_others() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let bob = Person::log_in(&server, "Bob").await;
    ada.say(watch(json!({"action": "start", "url": URL}))).await;
    let state = ada.until_state(|state| state["watch"].is_object()).await;
    let mine = ada.pk();
    let started = json!({"kind": "file", "url": URL, "by": mine, "playing": false, "position": 0, "at": state["watch"]["at"]});
    assert_eq!(state["watch"], started);
    ada.say(watch(json!({"action": "play", "position": 60_000}))).await;
    let played = ada.until_state(|state| state["watch"]["playing"] == true).await["watch"].clone();

    // Over the other protocol, later: the first state tells where the video is.
    let mut phoenix = Ask::path("/socket/websocket?vsn=2.0.0")
        .by(&bob)
        .header("origin", &server.http())
        .open(&server)
        .await;
    phoenix.say(json!(["1", "1", "room:r", "phx_join", {"_pk": "b"}])).await;
    let state = phoenix.until(|frame| frame[3] == "roomState").await[4]["state"].clone();
    assert_eq!(state["watch"], played);
    let before = time(&mut ada).await;
    phoenix.say(json!(["1", "2", "room:r", "clock", {"ref": 7}])).await;
    let clock = phoenix.until(|frame| frame[3] == "clock").await[4].clone();
    assert_eq!(clock["ref"], 7);
    // All reckon by one clock, so all have one position: 60 s and the time since `at`.
    let at = clock["at"].as_u64().unwrap();
    assert!(played["at"].as_u64().unwrap() <= before && before <= at && at <= time(&mut ada).await);

    // It controls the video for all, as everyone may.
    phoenix.say(json!(["1", "3", "room:r", "watch", {"action": "pause", "position": 61_000}])).await;
    let reply = phoenix.until(|frame| frame[1] == "3" && frame[3] == "phx_reply").await;
    assert_eq!(reply[4], json!({"status": "ok", "response": {}}));
    let paused = ada.until_state(|state| state["watch"]["playing"] == false).await;
    assert_eq!(paused["watch"]["position"], 61_000);

    // The meeting goes on after a restart, and so does what it watches.
    ada.say(watch(json!({"action": "play", "position": 61_000}))).await;
    let played = ada.until_state(|state| state["watch"]["playing"] == true).await["watch"].clone();
    drop(phoenix);
    let server = server.restart().await;
    let mut ada = ada.ask().open(&server).await;
    let restored = ada.until_state(|_| true).await;
    assert_eq!(restored["watch"], played);
    ada.say(watch(json!({"action": "stop"}))).await;
    let stopped = ada.until_state(|state| state["watch"].is_null()).await;
    assert!(stopped.as_object().unwrap().get("watch").is_none());
}

#[tokio::test]
async fn moderators_decide_who_controls_the_video() {
    let server = TestServer::with(|config| config.moderation.default = ModeratorDefault::First).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    bob.say(watch(json!({"action": "start", "url": URL}))).await;
    ada.until_state(|state| state["watch"]["by"] == bob.pk()).await;
    ada.say(json!({"type": "moderate", "action": "videos", "on": false})).await;
    let state = bob.until_state(|state| state["room"]["videos"] == false).await;
    assert!(state["watch"].is_object(), "it is still watched");
    for action in [json!({"action": "play", "position": 5}), json!({"action": "stop"})] {
        bob.say(watch(action)).await;
        let refused = refusal(&mut bob).await;
        assert_eq!(refused, "only moderators share and control videos at this time");
    }
    ada.say(watch(json!({"action": "play", "position": 5}))).await;
    bob.until_state(|state| state["watch"]["playing"] == true).await;
    // From outside as well.
    let stop = json!({"action": "stopVideo"});
    assert_eq!(server.admin_post("/admin/rooms/r/moderate", &stop).await.status, 200);
    bob.until_state(|state| state["watch"].is_null()).await;
}

#[tokio::test]
async fn whoever_may_share_no_screen_may_share_no_video() {
    let server = TestServer::with(|config| config.auth = auth()).await;
    let token = token_with("viewer", "r", json!({"join": true, "create": true, "publish": ["audio"]}));
    let mut viewer =
        Ask::room("r").pk("v").header("authorization", &format!("Bearer {token}")).open(&server).await;
    viewer.say(watch(json!({"action": "start", "url": URL}))).await;
    assert_eq!(refusal(&mut viewer).await, "you may not share videos");
}

#[tokio::test]
async fn bad_videos_are_refused_with_the_reason() {
    let server = TestServer::with(|config| {
        config.watch.hosts = vec!["example.org".parse().unwrap()];
    })
    .await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let no_url = "watch needs a field \"url\" that is an https:// address of at most 2048 bytes, without a user's name";
    let long = format!("https://example.org/{}", "x".repeat(2048));
    for (message, refused) in [
        (json!({"action": "start", "url": "http://example.org/a"}), no_url),
        (json!({"action": "start", "url": "javascript:alert(1)"}), no_url),
        (json!({"action": "start", "url": "https://ada:secret@example.org/"}), no_url),
        (json!({"action": "start", "url": long}), no_url),
        (
            json!({"action": "start", "url": "https://cdn.example.org/a"}),
            "this server does not let members share videos of that host",
        ),
        (
            json!({"action": "start", "url": "http://127.0.0.1:8080/a"}),
            "this server does not let members share videos of that host",
        ),
        (
            json!({"action": "start", "url": "https://youtu.be/dQw4w9WgXcQ"}),
            "this server does not let members share videos of YouTube",
        ),
        (json!({"action": "start"}), "watch needs a field \"url\" that is a text"),
        (
            json!({"action": "play", "position": -1}),
            "watch needs a field \"position\" that is a whole number of milliseconds of up to a week",
        ),
        (
            json!({"action": "rewind"}),
            "watch needs a field \"action\" that is start, play, pause, seek or stop",
        ),
        (json!({"action": "play", "position": 5}), "no video is shared in this room"),
    ] {
        ada.say(watch(message)).await;
        assert_eq!(refusal(&mut ada).await, refused);
    }
    ada.say(json!({"type": "clock"})).await;
    assert_eq!(refusal(&mut ada).await, "clock needs a field \"ref\" that is a whole number");
}

#[tokio::test]
async fn policy_of_the_page_has_what_is_enabled() {
    let policy = async |server: &TestServer| {
        let page = answer(server.get("/set-username")).await;
        page.header("content-security-policy").to_owned()
    };
    let server = TestServer::with(|config| config.watch.files = false).await;
    let closed = policy(&server).await;
    assert!(
        closed.ends_with("media-src 'self' blob: mediastream:") && !closed.contains("frame-src"),
        "{closed}"
    );
    let mut ada = Client::join(&server, "r", "Ada").await;
    ada.say(watch(json!({"action": "start", "url": URL}))).await;
    assert_eq!(refusal(&mut ada).await, "this server does not let members share videos");
    let server = TestServer::with(|config| {
        config.watch.hosts = vec!["cdn.example.org".parse().unwrap()];
        config.watch.youtube = true;
    })
    .await;
    let open = policy(&server).await;
    assert!(
        open.ends_with("media-src 'self' blob: mediastream: https://cdn.example.org; frame-src https://www.youtube-nocookie.com"),
        "{open}"
    );
}
