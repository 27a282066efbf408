//! The AI participant, against a scripted stand-in for the media API and the model.

use std::time::Duration;

use satsuma::config::{Config, Optional};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::client::{Client, ids_of, user_of};
use crate::cloud::{Cloud, MODEL_TOKEN, SECRET, Script, Seen};
use crate::harness::{TestServer, logged};

/// The first session of the stand-in.
const SESSION: &str = "00000000000000000000000000000001";

async fn server(cloud: &Cloud) -> TestServer {
    server_with(cloud, |_| {}).await
}

async fn server_with(cloud: &Cloud, edit: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::with(|config| {
        cloud.configure(config);
        config.limits.ai_starts_per_minute = 0;
        // The track that it is to hear belongs to nobody here.
        config.calls.room_check = false;
        edit(config);
    })
    .await
}

/// Long enough for members to join, short enough for a test.
fn quick_ticks(config: &mut Config) {
    config.room.tick = Duration::from_millis(20);
}

/// Scripts an answer that is sent when the gate is dropped.
fn gate(cloud: &Cloud, path: &str) -> oneshot::Sender<()> {
    let (open, gate) = oneshot::channel();
    cloud.script(path, Script::After(gate));
    open
}

pub fn enable() -> Value {
    json!({"type": "enableAi"})
}

pub fn disable() -> Value {
    json!({"type": "disableAi"})
}

pub fn request() -> Value {
    json!({"type": "requestAiControl", "track": {"sessionId": "abc", "trackName": "mic"}})
}

fn failed() -> Value {
    json!({"enabled": false, "connectionPending": false, "error": "Error establishing connection with AI"})
}

pub fn is_here(state: &Value) -> bool {
    state["ai"]["enabled"] == true
}

/// Invites the AI, and returns the state that shows it.
async fn invite(client: &mut Client) -> Value {
    client.say(enable()).await;
    client.until_state(is_here).await
}

/// The sentence of the next `error`.
async fn error(client: &mut Client) -> String {
    let error = client.event().await;
    assert_eq!(error["type"], "error");
    error["error"].as_str().unwrap().to_owned()
}

fn line(seen: &Seen) -> String {
    format!("{} {}", seen.method, seen.target)
}

/// Waits until the track of the stand-in's first session was closed, and checks the request.
pub async fn until_closed(cloud: &Cloud, meeting: &Value) {
    until_closed_at(cloud, meeting, "0").await;
}

/// The same for this `mid`.
async fn until_closed_at(cloud: &Cloud, meeting: &Value, mid: &str) {
    cloud.until_seen("/tracks/close", 1).await;
    let closings = cloud.seen_at("/tracks/close");
    assert_eq!(closings.len(), 1, "{closings:?}");
    let meeting = meeting.as_str().unwrap();
    assert_eq!(
        line(&closings[0]),
        format!("PUT /v1/apps/app/sessions/{SESSION}/tracks/close?correlationId={meeting}")
    );
    assert_eq!(closings[0].json(), json!({"tracks": [{"mid": mid}], "force": true}));
}

#[tokio::test]
async fn ai_joins_by_four_calls_and_is_listed_last() {
    let cloud = Cloud::start().await;
    let server = server_with(&cloud, |config| {
        config.calls.extra_params = Optional(Some("?debug=1&region=eu".to_owned()));
        config.ai.model_endpoint = Optional(Some(cloud.url("/model?key=k")));
        config.ai.model_id = "a-model".to_owned();
    })
    .await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let open = gate(&cloud, "/sessions/new");
    ada.say(json!({"type": "enableAi", "voice": "alloy", "instructions": "Be brief & kind."})).await;
    let pending = ada.until_state(|state| state["ai"]["connectionPending"] == true).await;
    assert_eq!(pending["ai"], json!({"enabled": false, "connectionPending": true}));
    drop(open);

    let state = ada.until_state(is_here).await;
    assert_eq!(state["ai"], json!({"enabled": true, "connectionPending": false}));
    assert_eq!(ids_of(&state), [&*ada.pk(), "ai"]);
    let user = json!({
        "id": "ai", "name": "AI", "joined": true, "raisedHand": false, "speaking": false,
        "transceiverSessionId": SESSION,
        "tracks": {
            "audioEnabled": true, "audio": format!("{SESSION}/ai-generated-voice"),
            "audioUnavailable": false, "videoEnabled": false, "screenShareEnabled": false,
        },
    });
    assert_eq!(*user_of(&state, "ai"), user);

    let meeting = state["meetingId"].as_str().unwrap();
    let seen = cloud.seen();
    let label = format!("correlationId={meeting}");
    assert_eq!(
        seen.iter().map(line).collect::<Vec<_>>(),
        [
            format!("POST /v1/apps/app/sessions/new?{label}&thirdparty=true&debug=1&region=eu"),
            format!("POST /v1/apps/app/sessions/{SESSION}/tracks/new?{label}&debug=1&region=eu"),
            "POST /model?key=k&voice=alloy&instructions=Be+brief+%26+kind.&model=a-model".to_owned(),
            format!("PUT /v1/apps/app/sessions/{SESSION}/renegotiate?{label}&debug=1&region=eu"),
        ]
    );
    assert_eq!(seen[0].body, "");
    assert_eq!(
        seen[1].body,
        r#"{"tracks":[{"location":"local","trackName":"ai-generated-voice","bidirectionalMediaStream":true,"kind":"audio"}]}"#
    );
    let offer = std::str::from_utf8(&seen[2].body).unwrap();
    assert!(offer.starts_with("v=0\r\n") && offer.contains("a=mid:0\r\na=sendonly"), "{offer}");
    assert_eq!(seen[2].header("content-type"), "application/sdp");
    assert_eq!(seen[2].header("authorization"), format!("Bearer {MODEL_TOKEN}"));
    let answer = offer.replace("a=sendonly", "a=recvonly");
    assert_eq!(seen[3].json(), json!({"sessionDescription": {"type": "answer", "sdp": answer}}));
    server.until_metric(r#"satsuma_ai_jobs_total{kind="invite",outcome="done"}"#, 1.0).await;

    let mut bob = Client::join(&server, "r", "Bob").await;
    let state = bob.until_state(is_here).await;
    assert_eq!(ids_of(&state).last(), Some(&"ai"));
}

#[tokio::test]
async fn failed_ai_job_is_shown_and_its_tracks_closed() {
    let offer = r#""sessionDescription":{"type":"offer","sdp":"v=0\r\n"}"#;
    let answer = |status: u16, text: &str| Script::Answer(status, text.to_owned());
    let cases = [
        ("/sessions/new", answer(503, "<html>"), None, "sessions/new: answered 503"),
        ("/sessions/new", answer(201, "{}"), None, "sessions/new: the answer has no session id"),
        ("/sessions/new", Script::Endless, None, "sessions/new: the answer is too long or incomplete"),
        ("/sessions/new", Script::Drop, None, "sessions/new: the media API cannot be reached"),
        (
            "/tracks/new",
            answer(200, r#"{"tracks":[{"errorCode":"internal_error"}]}"#),
            None,
            "tracks/new: refused, internal_error",
        ),
        (
            "/tracks/new",
            answer(200, &format!(r#"{{"tracks":[],{offer}}}"#)),
            Some("#ai-generated-voice"),
            "tracks/new: the answer has no track",
        ),
        (
            "/tracks/new",
            Script::Drop,
            Some("#ai-generated-voice"),
            "tracks/new: the media API cannot be reached",
        ),
        (
            "/tracks/new",
            answer(200, r#"{"tracks":[{"mid":"0"}]}"#),
            Some("0"),
            "tracks/new: the answer has no SDP offer",
        ),
        ("/model", answer(400, r#"{"error":"the-models-own-words"}"#), Some("0"), "the model: answered 400"),
        ("/model", answer(302, ""), Some("0"), "the model: answered 302"),
        ("/model", answer(200, "<html>"), Some("0"), "the model: the answer has no SDP answer"),
        ("/model", Script::Endless, Some("0"), "the model: the answer is too long or incomplete"),
        ("/model", Script::Drop, Some("0"), "the model: the connection broke off"),
        (
            "/renegotiate",
            answer(406, r#"{"errorCode":"invalid_session_description"}"#),
            Some("0"),
            "renegotiate: answered 406 Not Acceptable, invalid_session_description",
        ),
    ];
    for (path, script, closed, cause) in cases {
        let cloud = Cloud::start().await;
        let server = server(&cloud).await;
        let mut ada = Client::join(&server, "r", "Ada").await;
        cloud.script(path, script);
        ada.say(enable()).await;
        let state = ada.until_state(|state| state["ai"]["error"].is_string()).await;
        assert_eq!(state["ai"], failed(), "{cause}");
        assert_eq!(ids_of(&state), [ada.pk()]);
        let meeting = state["meetingId"].as_str().unwrap();
        if let Some(mid) = closed {
            until_closed_at(&cloud, &state["meetingId"], mid).await;
        }
        // The next job succeeds; by its end all requests of the first one have arrived.
        invite(&mut ada).await;
        assert_eq!(cloud.seen_at("/tracks/close").len(), usize::from(closed.is_some()), "{cause}");
        let log = logged();
        let line = log.lines().find(|line| line.contains(meeting) && line.contains("aiJobFailed")).unwrap();
        assert!(line.contains(cause), "{line}");
        for secret in [SECRET, MODEL_TOKEN, "the-models-own-words"] {
            assert!(!log.contains(secret), "{cause}");
        }
    }
}

#[tokio::test]
async fn hanging_model_times_out() {
    let cloud = Cloud::start().await;
    for whole in [true, false] {
        let server = server_with(&cloud, |config| {
            let timeout = if whole { &mut config.ai.timeout } else { &mut config.calls.timeout };
            *timeout = Duration::from_millis(300);
        });
        let server = server.await;
        let mut ada = Client::join(&server, "r", "Ada").await;
        cloud.script("/model", Script::Silence);
        ada.say(enable()).await;
        ada.until_state(|state| state["ai"] == failed()).await;
    }
    cloud.until_seen("/tracks/close", 2).await;
}

#[tokio::test]
async fn missing_ai_settings_fail_and_are_logged() {
    // Half of the media API's settings: without any of them the embedded media server is used.
    let server = TestServer::with(|config| config.calls.app_id.0 = Some("app".to_owned())).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    ada.say(enable()).await;
    let state = ada.until_state(|state| state["ai"] == failed()).await;
    let log = logged();
    let meeting = state["meetingId"].as_str().unwrap();
    let line = log.lines().find(|line| line.contains(meeting) && line.contains("aiJobFailed")).unwrap();
    for name in ["OPENAI_MODEL_ENDPOINT", "OPENAI_API_TOKEN", "CALLS_APP_SECRET"] {
        assert!(line.contains(name), "{line}");
    }
}

#[tokio::test]
async fn track_opened_after_removal_is_closed() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let open = gate(&cloud, "/tracks/new");
    ada.say(enable()).await;
    cloud.until_seen("/tracks/new", 1).await;
    ada.say(disable()).await;
    let state = ada.until_state(|state| state["ai"] == json!({"enabled": false})).await;
    server.until_metric(r#"satsuma_ai_jobs_total{kind="invite",outcome="cancelled"}"#, 1.0).await;
    assert_eq!(cloud.seen_at("/tracks/close").len(), 0);
    drop(open);
    until_closed(&cloud, &state["meetingId"]).await;
    assert_eq!(cloud.seen_at("/model").len(), 0, "nobody is asked any more");
}

#[tokio::test]
async fn removing_the_ai_closes_its_track_at_any_time() {
    for path in ["/model", "/renegotiate", ""] {
        let cloud = Cloud::start().await;
        let server = server(&cloud).await;
        let mut ada = Client::join(&server, "r", "Ada").await;
        if path.is_empty() {
            invite(&mut ada).await;
        } else {
            cloud.script(path, Script::Silence);
            ada.say(enable()).await;
            cloud.until_seen(path, 1).await;
        }
        ada.say(disable()).await;
        let state = ada.until_state(|state| state["ai"] == json!({"enabled": false})).await;
        assert_eq!(ids_of(&state), [ada.pk()]);
        until_closed(&cloud, &state["meetingId"]).await;
    }
}

#[tokio::test]
async fn failed_track_close_is_retried() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    invite(&mut ada).await;
    cloud.script("/tracks/close", Script::Answer(503, "{}".to_owned()));
    ada.say(disable()).await;
    server.until_metric(r#"satsuma_ai_jobs_total{kind="close",outcome="done"}"#, 1.0).await;
    assert_eq!(cloud.seen_at("/tracks/close").len(), 2);

    invite(&mut ada).await;
    cloud.script("/tracks/close", Script::Answer(403, "{}".to_owned()));
    ada.say(disable()).await;
    server.until_metric(r#"satsuma_ai_jobs_total{kind="close",outcome="failed"}"#, 1.0).await;
    assert_eq!(cloud.seen_at("/tracks/close").len(), 3, "what cannot pass is not tried again");
    assert!(logged().contains("aiTrackNotClosed"));
}

#[tokio::test]
async fn meeting_end_closes_present_and_pending_ai() {
    for comes in [true, false] {
        let cloud = Cloud::start().await;
        let server = server_with(&cloud, quick_ticks).await;
        let mut ada = Client::join(&server, "r", "Ada").await;
        let state = if comes {
            invite(&mut ada).await
        } else {
            cloud.script("/model", Script::Silence);
            ada.say(enable()).await;
            cloud.until_seen("/model", 1).await;
            ada.until_state(|_| true).await
        };
        ada.say(json!({"type": "userLeft"})).await;
        until_closed(&cloud, &state["meetingId"]).await;
        server.until_metric("satsuma_rooms", 0.0).await;
        assert_eq!(cloud.seen_at("/tracks/close").len(), 1);
        let mut bob = Client::join(&server, "r", "Bob").await;
        let state = bob.until_state(|_| true).await;
        assert_eq!(state["ai"], json!({"enabled": false}), "another meeting knows nothing of it");
    }
}

#[tokio::test]
async fn restart_keeps_the_ai_until_the_meeting_ends() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    invite(&mut ada).await;
    ada.say(request()).await;
    let before = ada.until_state(|state| state["ai"]["controllingUser"].is_string()).await;
    let ask = ada.ask();
    let server = server.restart().await;
    let mut ada = ask.open(&server).await;
    let after = ada.until_state(is_here).await;
    assert_eq!(after, before);
    assert_eq!(cloud.seen_at("/tracks/close").len(), 0);
    ada.say(disable()).await;
    until_closed(&cloud, &after["meetingId"]).await;
}

#[tokio::test]
async fn ai_without_returning_members_is_closed() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let state = invite(&mut ada).await;
    let stopped = server.stop().await;
    assert_eq!(cloud.seen_at("/tracks/close").len(), 0);
    let server = stopped.start_with(|config| {
        quick_ticks(config);
        config.room.heartbeat_timeout = Duration::from_millis(20);
        config.room.restore_grace = Duration::ZERO;
    });
    let server = server.await;
    until_closed(&cloud, &state["meetingId"]).await;
    server.until_metric("satsuma_rooms", 0.0).await;
}

#[tokio::test]
async fn shutdown_ends_ai_jobs_and_closes_their_tracks() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    cloud.script("/model", Script::Silence);
    ada.say(enable()).await;
    cloud.until_seen("/model", 1).await;
    let ask = ada.ask();
    let stopped = server.stop().await;
    assert_eq!(cloud.seen_at("/tracks/close").len(), 1, "closed before the process ends");
    let server = stopped.start_with(|_| {}).await;
    let mut ada = ask.open(&server).await;
    let state = ada.until_state(|_| true).await;
    assert_eq!(state["ai"], failed());
}

#[tokio::test]
async fn ai_control_is_exclusive_and_ends_with_its_holder() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    bob.say(request()).await;
    assert_eq!(error(&mut bob).await, "the AI is not in this room");
    let state = invite(&mut ada).await;
    let meeting = state["meetingId"].as_str().unwrap();

    let open = gate(&cloud, "/tracks/new");
    ada.say(request()).await;
    cloud.until_seen("/tracks/new", 2).await;
    bob.say(request()).await;
    assert_eq!(error(&mut bob).await, "somebody else's request to the AI is under way");
    drop(open);
    let is_ada = ada.pk();
    bob.until_state(|state| state["ai"]["controllingUser"] == *is_ada).await;
    let call = cloud.seen_at("/tracks/new").pop().unwrap();
    assert_eq!(
        line(&call),
        format!("POST /v1/apps/app/sessions/{SESSION}/tracks/new?correlationId={meeting}")
    );
    assert_eq!(
        call.body,
        r##"{"tracks":[{"location":"remote","sessionId":"abc","trackName":"mic","mid":"#ai-generated-voice"}]}"##
    );

    let refused = r#"{"tracks":[{"errorCode":"not_found_track_error"}]}"#;
    cloud.script("/tracks/new", Script::Answer(200, refused.to_owned()));
    bob.say(request()).await;
    assert_eq!(error(&mut bob).await, "the AI cannot hear you at this time");
    bob.say(json!({"type": "requestAiControl", "track": {"sessionId": "../x", "trackName": "t"}})).await;
    assert!(error(&mut bob).await.starts_with("requestAiControl needs a field \"track\""));
    bob.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    let pk = bob.pk();
    let state = bob.until_state(|state| user_of(state, &pk)["raisedHand"] == true).await;
    assert_eq!(state["ai"]["controllingUser"], *is_ada, "a failure takes it from nobody");

    ada.say(json!({"type": "userLeft"})).await;
    let state = bob.until_state(|state| ids_of(state).len() == 2).await;
    assert_eq!(state["ai"], json!({"enabled": true, "connectionPending": false}));
    bob.say(request()).await;
    bob.until_state(|state| state["ai"]["controllingUser"] == *pk).await;
    bob.say(json!({"type": "relenquishAiControl"})).await;
    bob.until_state(|state| state["ai"]["controllingUser"].is_null()).await;
}

#[tokio::test]
async fn control_request_of_departed_member_is_dropped() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    invite(&mut ada).await;
    let open = gate(&cloud, "/tracks/new");
    bob.say(request()).await;
    cloud.until_seen("/tracks/new", 2).await;
    bob.say(json!({"type": "userLeft"})).await;
    ada.until_state(|state| ids_of(state).len() == 2).await;
    drop(open);
    server.until_metric(r#"satsuma_ai_jobs_total{kind="hear",outcome="cancelled"}"#, 1.0).await;
    ada.say(request()).await;
    let pk = ada.pk();
    let state = ada.until_state(|state| !state["ai"]["controllingUser"].is_null()).await;
    assert_eq!(state["ai"]["controllingUser"], *pk);
}

#[tokio::test]
async fn room_continues_and_refuses_second_ai_job() {
    let cloud = Cloud::start().await;
    let server = server(&cloud).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    cloud.script("/sessions/new", Script::Silence);
    ada.say(enable()).await;
    cloud.until_seen("/sessions/new", 1).await;
    ada.say(json!({"type": "heartbeat"})).await;
    ada.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    let pk = ada.pk();
    let state = ada.until_state(|state| user_of(state, &pk)["raisedHand"] == true).await;
    assert_eq!(state["ai"], json!({"enabled": false, "connectionPending": true}));
    let mut bob = Client::join(&server, "r", "Bob").await;
    bob.say(enable()).await;
    assert_eq!(error(&mut bob).await, "the AI is already on its way");
    bob.echo().await;
    assert_eq!(cloud.seen().len(), 1);
}

/// New rooms are free, so a limit for each room would be none.
#[tokio::test]
async fn ai_invitations_are_limited_by_network() {
    let cloud = Cloud::start().await;
    let server = server_with(&cloud, |config| config.limits.ai_starts_per_minute_per_network = 2).await;
    let mut visitors = Vec::new();
    for room in ["r1", "r2"] {
        let mut visitor = Client::join(&server, room, "Ada").await;
        invite(&mut visitor).await;
        visitors.push(visitor);
    }
    let mut third = Client::join(&server, "r3", "Ada").await;
    third.say(enable()).await;
    third.until_state(|state| state["ai"]["error"] == "Error establishing connection with AI").await;
    assert_eq!(cloud.seen_at("/sessions/new").len(), 2);
    assert_eq!(server.metric(r#"satsuma_ai_jobs_total{kind="invite",outcome="rate_limited"}"#).await, 1.0);
}

#[tokio::test]
async fn ai_invitations_are_limited_by_room() {
    let cloud = Cloud::start().await;
    let server = server_with(&cloud, |config| config.limits.ai_starts_per_minute = 1).await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    invite(&mut ada).await;
    ada.say(enable()).await;
    assert_eq!(error(&mut ada).await, "the AI is already here");
    ada.say(disable()).await;
    ada.say(enable()).await;
    assert_eq!(error(&mut ada).await, "the AI was called too often; try again in a minute");
    assert_eq!(cloud.seen_at("/sessions/new").len(), 1);
    ada.say(json!({"type": "enableAi", "voice": "x".repeat(65)})).await;
    assert!(error(&mut ada).await.starts_with("enableAi needs a field \"voice\""));
}
