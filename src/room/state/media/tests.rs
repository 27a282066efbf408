use std::time::Instant;

use super::super::moderation::tests::{enter, hosted};
use super::super::tests::{join, says, seen, user};
use super::*;
use crate::id::{Grants, PublishGrants};
use crate::protocol::user::User;
use crate::room::io::{Input, Join};

fn tracks_of(room: &Room, id: &str) -> Tracks {
    let json = room.members().find(|member| member.user == user(id)).unwrap().json;
    serde_json::from_str::<User>(&json).unwrap().tracks
}

fn switch(room: &mut Room, now: Instant, connection: u64, id: &str, kind: &str, is_on: bool) -> Vec<Effect> {
    let tracks =
        format!(r#"{{"audioUnavailable":false,"audio":"s/mic","screenshare":"s/screen","{kind}":{is_on}}}"#);
    let user = format!(
        r#"{{"id":"{id}","name":"","joined":true,"raisedHand":false,"speaking":false,"tracks":{tracks}}}"#
    );
    room.handle(now, says(connection, &format!(r#"{{"type":"userUpdate","user":{user}}}"#)))
}

/// The rights that effects give to members, by their ids.
fn placed(effects: &[Effect]) -> Vec<(String, MediaRights)> {
    let places = effects.iter().filter_map(|effect| match effect {
        Effect::PlaceMedia { user, place, .. } => Some((user.to_string(), place.rights)),
        _ => None,
    });
    places.collect()
}

#[test]
fn stopped_media_stay_off_until_their_owner_switches_them_on() {
    let (mut room, now) = hosted();
    let off = |kind: &str| MediaRights {
        audio: kind != "audioEnabled",
        video: kind != "videoEnabled",
        screen: kind != "screenShareEnabled",
        subscribe: true,
    };
    for (kind, name) in
        [("audioEnabled", "audio"), ("videoEnabled", "video"), ("screenShareEnabled", "screen")]
    {
        let is_on = |room: &Room| serde_json::to_value(tracks_of(room, "b")).unwrap()[kind] == true;
        switch(&mut room, now, 2, "b", kind, true);
        assert!(is_on(&room), "{kind}");
        let request = format!(r#"{{"type":"moderate","action":"mute","id":"b","kind":"{name}"}}"#);
        let effects = room.handle(now, says(1, &request));
        assert_eq!(placed(&effects), [("b".to_owned(), off(kind))]);
        assert!(!is_on(&room), "{kind}");
        // An update that was under way, or a client that does not obey.
        assert_eq!(placed(&switch(&mut room, now, 2, "b", kind, true)), []);
        assert!(!is_on(&room), "{kind}");
        switch(&mut room, now, 2, "b", kind, false);
        assert_eq!(placed(&switch(&mut room, now, 2, "b", kind, true)), [("b".to_owned(), MediaRights::ALL)]);
        assert!(is_on(&room), "{kind}");
    }
}

#[test]
fn stop_holds_for_all_members_of_an_identity() {
    let (mut room, now) = hosted();
    enter(&mut room, now, 3, "b2", "B");
    for (connection, id) in [(2, "b"), (3, "b2")] {
        switch(&mut room, now, connection, id, "audioEnabled", true);
    }
    let effects = room.handle(now, says(1, r#"{"type":"moderate","action":"mute","id":"b"}"#));
    let silent = MediaRights { audio: false, ..MediaRights::ALL };
    assert_eq!(placed(&effects), [("b".to_owned(), silent), ("b2".to_owned(), silent)]);
    assert!(seen(&effects).contains(&r#"to b2: {"type":"muteMic"}"#.to_owned()));
    assert_eq!(tracks_of(&room, "b2").audio_enabled, Some(false));
    // Neither is a further member of it heard.
    let Input::Join(ask) = join(4, "b3", "B") else { unreachable!() };
    let effects = room.handle(now, Input::Join(Join { grants: Grants::everyone(), ..ask }));
    assert_eq!(placed(&effects), [("b3".to_owned(), silent)]);
    switch(&mut room, now, 4, "b3", "audioEnabled", true);
    assert_eq!(tracks_of(&room, "b3").audio_enabled, Some(true), "its owner switched it on");
}

#[test]
fn media_without_grant_are_not_announced() {
    let (mut room, now) = hosted();
    let publish = PublishGrants { screen: true, ..PublishGrants::default() };
    let Input::Join(ask) = join(3, "c", "C") else { unreachable!() };
    let grants = Grants { publish, subscribe: false, ..Grants::everyone() };
    let effects = room.handle(now, Input::Join(Join { grants, ..ask }));
    let rights = MediaRights { audio: true, screen: true, ..MediaRights::default() };
    assert_eq!(placed(&effects), [("c".to_owned(), rights)], "a screen has sound");
    switch(&mut room, now, 3, "c", "audioEnabled", true);
    let tracks = tracks_of(&room, "c");
    assert_eq!((tracks.audio, tracks.audio_enabled), (None, Some(false)));
    assert_eq!(tracks.screenshare.as_deref(), Some("s/screen"));
}

/// A client that sends an update with these fields of its tracks.
fn update(room: &mut Room, now: Instant, connection: u64, id: &str, tracks: &str) -> Vec<Effect> {
    let user = format!(
        r#"{{"id":"{id}","name":"","joined":true,"raisedHand":false,"speaking":false,"tracks":{{"audioUnavailable":false,{tracks}}}}}"#
    );
    room.handle(now, says(connection, &format!(r#"{{"type":"userUpdate","user":{user}}}"#)))
}

fn screens(effects: &[Effect]) -> Vec<String> {
    let places = effects.iter().filter_map(|effect| match effect {
        Effect::PlaceMedia { place, .. } => Some(&place.screens),
        _ => None,
    });
    places.flatten().map(|(_, track)| track.name.clone()).collect()
}

/// Two moderators at once, and updates of the member that were under way.
#[test]
fn second_stop_does_not_undo_the_first() {
    let (mut room, now) = hosted();
    switch(&mut room, now, 2, "b", "audioEnabled", true);
    for _ in 0..2 {
        room.handle(now, says(1, r#"{"type":"moderate","action":"mute","id":"b"}"#));
    }
    for _ in 0..2 {
        switch(&mut room, now, 2, "b", "audioEnabled", true);
        assert_eq!(tracks_of(&room, "b").audio_enabled, Some(false));
    }
}

#[test]
fn own_mute_is_no_stop() {
    let (mut room, now) = hosted();
    switch(&mut room, now, 2, "b", "audioEnabled", true);
    room.handle(now, says(2, r#"{"type":"moderate","action":"mute","id":"b"}"#));
    assert_eq!(tracks_of(&room, "b").audio_enabled, Some(false));
    assert_eq!(room.moderation.stopped(), 0);
}

#[test]
fn refused_update_lifts_no_stop() {
    let (mut room, now) = hosted();
    switch(&mut room, now, 2, "b", "audioEnabled", true);
    room.handle(now, says(1, r#"{"type":"moderate","action":"mute","id":"b"}"#));
    let long = "x".repeat(room.settings.user_bytes);
    for is_on in [false, true] {
        let effects = update(&mut room, now, 2, "b", &format!(r#""audioEnabled":{is_on},"x":"{long}""#));
        assert!(seen(&effects).iter().any(|effect| effect.contains("the user object has")), "it is too long");
    }
    assert_eq!(room.moderation.stopped(), 1);
}

#[test]
fn screen_stays_one_while_screens_are_off() {
    let (mut room, now) = hosted();
    let on = r#""screenshare":"s/screen","screenShareEnabled":true"#;
    assert_eq!(screens(&update(&mut room, now, 2, "b", on)), ["screen"]);
    let effects = room.handle(now, says(1, r#"{"type":"moderate","action":"screens","on":false}"#));
    let off = MediaRights { screen: false, ..MediaRights::ALL };
    assert_eq!(
        (placed(&effects), screens(&effects)),
        (vec![("b".to_owned(), off)], vec!["screen".to_owned()])
    );
    // A client that does not know of it says the same again, and then less: neither makes it a camera.
    for tracks in [on, r#""videoEnabled":false"#, r#""video":"s/screen","videoEnabled":true"#] {
        let effects = update(&mut room, now, 2, "b", tracks);
        assert!(placed(&effects).iter().all(|(_, rights)| *rights == off), "{tracks}");
        assert!(placed(&effects).is_empty() || screens(&effects) == ["screen"], "{tracks}");
        assert_eq!(tracks_of(&room, "b").screenshare, None);
    }
}
