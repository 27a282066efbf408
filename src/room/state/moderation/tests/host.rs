//! Rooms where the first one moderates.

use super::*;

#[test]
fn first_member_moderates_until_it_leaves() {
    let (mut room, now) = room(ModeratorDefault::First);
    let second = Duration::from_secs(1);
    enter(&mut room, now, 1, "z", "Z");
    enter(&mut room, now + second, 2, "a", "A");
    enter(&mut room, now + 2 * second, 3, "b", "B");
    let now = now + 3 * second;
    assert!(
        room.encode_snapshot()
            .ends_with(r#""room":{"moderators":["z"],"locked":false,"waitingRoom":false}}}"#)
    );
    assert_eq!(
        act(&mut room, now, 2, r#""action":"lock","on":true"#)[0],
        failed("a", "you may not moderate this room")
    );
    assert_eq!(
        act(&mut room, now, 2, r#""action":"mute","id":"b""#)[0],
        failed("a", "you may not mute others")
    );
    assert_eq!(act(&mut room, now, 2, r#""action":"mute","id":"a""#)[0], r#"to a: {"type":"muteMic"}"#);
    room.handle(now, says(1, r#"{"type":"userLeft"}"#));
    assert_eq!(
        act(&mut room, now, 2, r#""action":"lock","on":true"#)[0],
        done("a"),
        "the next one present for longest"
    );
    assert_eq!(act(&mut room, now, 2, r#""action":"grantModeration","id":"b""#)[0], done("a"));
    assert_eq!(act(&mut room, now, 3, r#""action":"revokeModeration","id":"a""#)[0], done("b"));
    assert_eq!(
        act(&mut room, now, 2, r#""action":"lock","on":false"#)[0],
        failed("a", "you may not moderate this room")
    );
    assert_eq!(
        act(&mut room, now, 3, r#""action":"remove","id":"b""#)[0],
        failed("b", "leave the room instead of removing yourself")
    );
}

#[test]
fn next_host_after_a_restart_is_who_came_next() {
    let (mut room, now) = room(ModeratorDefault::First);
    let mut members = Vec::new();
    for (connection, id) in [(1, "z"), (2, "y"), (3, "a")] {
        let Input::Join(ask) = join(connection, id, id) else { unreachable!() };
        let grants = Grants { moderate: false, ..Grants::everyone() };
        for change in persisted(&room.handle(now, Input::Join(Join { grants, ..ask }))) {
            if let Persist::Member(member) = change {
                members.push(member);
            }
        }
    }
    let saved = SavedRoom {
        room: RoomName::parse("r").unwrap(),
        meeting: MeetingId::random(),
        ai: None,
        moderation: None,
        watch: None,
        chat: Vec::new(),
        members,
        departed: Vec::new(),
        unconfirmed: Vec::new(),
        journal: None,
    };
    let settings = RoomSettings { moderators: ModeratorDefault::First, ..settings() };
    let mut room = Room::restore(settings, now, &saved);
    for (connection, id) in [(4, "a"), (5, "y"), (6, "z")] {
        enter(&mut room, now, connection, id, id);
    }
    room.handle(now, says(6, r#"{"type":"userLeft"}"#));
    assert!(room.encode_snapshot().contains(r#""moderators":["y"]"#), "{}", room.encode_snapshot());
}

#[test]
fn muted_page_is_told_by_whom() {
    let (mut room, now) = room(ModeratorDefault::Everyone);
    enter(&mut room, now, 1, "a", "A");
    enter(&mut room, now, 2, "b", "B");
    let mute = |room: &mut Room, from| {
        let sent = seen(&room.handle(now, says(from, r#"{"type":"muteUser","id":"b"}"#)));
        sent.into_iter().filter(|sent| sent.starts_with("to b:")).collect::<Vec<_>>()
    };
    let asked = r#"to b: {"type":"muteMic"}"#;
    assert_eq!(mute(&mut room, 1), [asked], "Orange's client");
    room.handle(now, says(2, r#"{"type":"userUpdate","user":{"readsChat":true}}"#));
    assert_eq!(mute(&mut room, 1), [asked, r#"to b: {"type":"muted","kind":"audio","by":"name of A"}"#]);
    assert_eq!(mute(&mut room, 2), [asked], "its own doing");
}
