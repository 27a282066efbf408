use std::time::{Duration, Instant};

use super::super::moderation::tests::{act, enter, hosted};
use super::super::tests::{join, says, seen, settings, start, user};
use super::*;
use crate::id::{Grants, IdentityId};
use crate::room::io::{Input, Join, JoinRefusal};

fn set(room: &mut Room, now: Instant, change: RulesChange) -> Vec<String> {
    seen(&room.handle(now, Input::SetRules { by: Moderator::Operator, change }))
}

/// The `room` field of the newest state.
fn rules_shown(room: &Room) -> serde_json::Value {
    let mut state: serde_json::Value = serde_json::from_str(&room.encode_snapshot()).unwrap();
    state["state"]["room"].take()
}

#[test]
fn chat_is_for_moderators_alone_while_it_is_off() {
    let (mut room, now) = hosted();
    act(&mut room, now, 1, r#""action":"chat","on":false"#);
    assert_eq!(rules_shown(&room)["chat"], false);
    let chat = |room: &mut Room, connection| {
        seen(&room.handle(now, says(connection, r#"{"type":"chat","message":"hi"}"#)))[0].clone()
    };
    let off = r#"to b: {"type":"error","error":"only moderators write to the chat at this time","code":"chat_off"}"#;
    assert_eq!(chat(&mut room, 2), off);
    assert!(chat(&mut room, 1).starts_with("to all: {\"type\":\"chat\""));
    let direct = says(2, r#"{"type":"directMessage","to":"a","message":"hi"}"#);
    assert_eq!(seen(&room.handle(now, direct))[0], off);
    let own = says(2, r#"{"type":"directMessage","to":"b","message":"hi"}"#);
    assert!(seen(&room.handle(now, own))[0].starts_with("to b: {\"type\":\"directMessage\""));
    act(&mut room, now, 1, r#""action":"chat","on":true"#);
    assert!(chat(&mut room, 2).starts_with("to all: "));
    assert_eq!(rules_shown(&room)["chat"], serde_json::Value::Null);
}

#[test]
fn screens_are_for_moderators_alone_while_they_are_off() {
    let (mut room, now) = hosted();
    let share = |room: &mut Room, connection, id: &str| {
        let tracks = r#"{"audioUnavailable":false,"screenshare":"s/screen","screenShareEnabled":true}"#;
        let user = format!(r#"{{"id":"{id}","name":"","joined":true,"tracks":{tracks}}}"#);
        room.handle(now, says(connection, &format!(r#"{{"type":"userUpdate","user":{user}}}"#)));
        let json = room.members().find(|member| member.user == user_of(id)).unwrap().json;
        json.contains(r#""screenShareEnabled":true"#)
    };
    assert!(share(&mut room, 2, "b"));
    let effects = act(&mut room, now, 1, r#""action":"screens","on":false"#);
    assert_eq!(effects[0], r#"to b: {"type":"muted","kind":"screen"}"#);
    assert!(!share(&mut room, 2, "b"), "whoever shares is stopped");
    assert!(share(&mut room, 1, "a"), "a moderator may");
    act(&mut room, now, 1, r#""action":"grantModeration","id":"b""#);
    assert!(share(&mut room, 2, "b"));
    let revoked = act(&mut room, now, 1, r#""action":"revokeModeration","id":"b""#);
    assert_eq!(revoked[0], r#"to b: {"type":"muted","kind":"screen"}"#);
    act(&mut room, now, 1, r#""action":"screens","on":true"#);
    assert!(share(&mut room, 2, "b"));
}

fn user_of(id: &str) -> UserId {
    user(id)
}

#[test]
fn spotlight_ends_with_its_member() {
    let (mut room, now) = hosted();
    act(&mut room, now, 1, r#""action":"spotlight","id":"b""#);
    assert_eq!(rules_shown(&room)["spotlight"], "b");
    assert!(act(&mut room, now, 1, r#""action":"spotlight","id":"nobody""#)[0].contains("is not a member"));
    room.handle(now, says(2, r#"{"type":"userLeft"}"#));
    assert_eq!(rules_shown(&room)["spotlight"], serde_json::Value::Null);
    act(&mut room, now, 1, r#""action":"spotlight","id":"a""#);
    act(&mut room, now, 1, r#""action":"spotlight""#);
    assert_eq!(rules_shown(&room)["spotlight"], serde_json::Value::Null);
}

#[test]
fn given_name_outlasts_a_reconnect() {
    let (mut room, now) = hosted();
    let name_of = |room: &Room, id: &str| {
        room.members().find(|member| member.user == user(id)).unwrap().name.to_string()
    };
    act(&mut room, now, 1, r#""action":"rename","id":"b","name":" Bee ""#);
    assert_eq!(name_of(&room, "b"), "Bee");
    enter(&mut room, now, 3, "b", "B");
    assert_eq!(name_of(&room, "b"), "Bee", "it came back");
    enter(&mut room, now, 4, "b2", "B");
    assert_eq!(name_of(&room, "b2"), "Bee", "with another id");
    for name in ["", " ", "a\\u202eb", &"x".repeat(65)] {
        let refused = act(&mut room, now, 1, &format!(r#""action":"rename","id":"b","name":"{name}""#));
        assert!(
            refused.first().is_some_and(|text| text.contains("has 1 to 64 characters")),
            "{name:?}: {refused:?}"
        );
    }
    assert!(
        act(&mut room, now, 3, r#""action":"rename","id":"a","name":"X""#)[0].contains("may not moderate")
    );
}

#[test]
fn ended_meeting_is_over_for_all() {
    let (mut room, now) = hosted();
    enter(&mut room, now, 3, "c", "C");
    room.handle(now, says(3, r#"{"type":"userLeft"}"#));
    act(&mut room, now, 1, r#""action":"waitingRoom","on":true"#);
    enter(&mut room, now, 4, "d", "D");
    let refused = act(&mut room, now, 2, r#""action":"end""#);
    assert!(refused[0].contains("you may not moderate this room"), "{refused:?}");
    assert_eq!(
        act(&mut room, now, 1, r#""action":"end""#),
        [
            r#"to a: {"type":"moderated","ref":"1","ok":true}"#,
            r#"to all: {"type":"ended","by":"name of A"}"#,
            "remove a: Ended",
            "remove b: Ended",
            r#"ended: ["a", "b", "c", "d"]"#,
            "retire",
            r#"to a: {"type":"moderated","ref":"1","ok":true}"#,
        ]
    );
    assert_eq!((room.meeting(), room.members().len()), (None, 0));
    let over = room.handle(now, Input::Moderate { by: Moderator::Operator, action: ModerationAction::End });
    assert_eq!(seen(&over)[0], "moderated: Err(NoMeeting)");
}

#[test]
fn identity_moderates_over_http_by_its_role_or_its_token() {
    let (mut room, now) = hosted();
    let mut ask = |identity: &str, moderate| {
        let grants = Grants { moderate, ..Grants::everyone() };
        let by = Moderator::Identity(IdentityId::new(identity), grants);
        seen(&room.handle(now, Input::Moderate { by, action: ModerationAction::Lock { on: true } }))
            .pop()
            .unwrap()
    };
    assert_eq!(ask("token:app:x", true), "moderated: Ok(())");
    assert_eq!(ask("token:app:x", false), "moderated: Err(NoModerator)");
    assert_eq!(ask("cookie:x", false), "moderated: Err(NoModerator)");
    assert_eq!(ask("A", false), "moderated: Ok(())", "the host");
    // A moderator who was removed does not let itself in again.
    act(&mut room, now, 1, r#""action":"lock","on":false"#);
    enter(&mut room, now, 3, "x", "token:app:x");
    act(&mut room, now, 1, r#""action":"remove","id":"x""#);
    let by =
        Moderator::Identity(IdentityId::new("token:app:x"), Grants { moderate: true, ..Grants::everyone() });
    let unban = ModerationAction::Unban { id: user("x") };
    assert_eq!(
        seen(&room.handle(now, Input::Moderate { by, action: unban }))[0],
        "moderated: Err(NoModerator)"
    );
}

#[test]
fn password_is_asked_of_whoever_is_new() {
    let (mut room, now) = hosted();
    let hash: Arc<str> = "$argon2id$1".into();
    set(&mut room, now, RulesChange { password: Some(Some(hash.clone())), ..RulesChange::default() });
    assert_eq!(rules_shown(&room)["password"], true);
    assert!(!room.encode_snapshot().contains("argon2"), "the hash is nobody's business");
    let mut knock = |connection, id: &str, password: Option<&str>, moderate| {
        let Input::Join(ask) = join(connection, id, &format!("token:{id}")) else { unreachable!() };
        let grants = Grants { moderate, ..Grants::everyone() };
        let password = password.map(Into::into);
        seen(&room.handle(now, Input::Join(Join { grants, password, ..ask })))[0].clone()
    };
    let needed = format!("refuse 3: {:?}", JoinRefusal::PasswordNeeded);
    assert_eq!(knock(3, "c", None, false), needed);
    assert_eq!(knock(3, "c", Some("$argon2id$0"), false), needed, "that of an older password");
    assert_eq!(knock(3, "c", Some(&hash), false), "admit 3 as c");
    assert_eq!(knock(4, "c", None, false), "admit 4 as c", "it was here");
    assert_eq!(knock(5, "d", None, true), "admit 5 as d", "a moderator");
    set(&mut room, now, RulesChange { password: Some(None), ..RulesChange::default() });
    assert!(enter(&mut room, now, 6, "e", "E").contains(&"admit 6 as e".to_owned()));
    room.handle(now + Duration::from_secs(1), Input::Wake);
}

/// A refused join keeps a room without a meeting for a while.
#[test]
fn next_meeting_begins_with_the_lasting_settings() {
    let lasting = |change| Input::LastingRules { change };
    let locked = RulesChange { locked: Some(true), ..RulesChange::default() };
    let mut room = Room::new(settings(), start());
    room.handle(start(), lasting(locked.clone()));
    assert!(room.moderation.rules().locked, "no meeting runs");
    let open = RulesChange { locked: Some(false), ..RulesChange::default() };
    room.handle(start(), lasting(open));
    room.handle(start(), join(1, "a", "A"));
    room.handle(start(), lasting(locked));
    assert!(room.moderation.rules().locked, "a meeting runs");
    let by = Moderator::Operator;
    room.handle(start(), Input::Moderate { by, action: ModerationAction::End });
    assert!(room.meeting.is_none() && room.moderation.rules().locked, "the next one");
}
