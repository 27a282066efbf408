mod host;

use proptest::prelude::*;

use super::super::tests::{join, persisted, room_of_two, says, seen, settings, start, user};
use super::super::{Room, RoomSettings};
use std::time::Duration;

use super::*;
use crate::config::ModeratorDefault;
use crate::id::{ConnectionId, Grants, MeetingId, NodeId, RoomName};
use crate::network::client_network;
use crate::protocol::moderation::KnockView;
use crate::room::io::Input;
use crate::store::saved::SavedRoom;

pub(in crate::room::state) fn room(moderators: ModeratorDefault) -> (Room, Instant) {
    (Room::new(RoomSettings { moderators, members: 20, ..settings() }, start()), start())
}

/// A join of an identity whose grants are those of users without a token in such a room.
pub(in crate::room::state) fn enter(
    room: &mut Room,
    now: Instant,
    connection: u64,
    id: &str,
    identity: &str,
) -> Vec<String> {
    enter_with(room, now, connection, id, identity, |join| join)
}

pub(in crate::room::state) fn enter_with(
    room: &mut Room,
    now: Instant,
    connection: u64,
    id: &str,
    identity: &str,
    edit: impl FnOnce(Join) -> Join,
) -> Vec<String> {
    let Input::Join(ask) = join(connection, id, identity) else { unreachable!() };
    let moderate = room.settings.moderators == ModeratorDefault::Everyone;
    let grants = Grants { moderate, ..Grants::everyone() };
    seen(&room.handle(now, Input::Join(edit(Join { grants, ..ask }))))
}

fn by_operator(action: ModerationAction) -> Input {
    Input::Moderate { by: Moderator::Operator, action }
}

/// A room with a host `a` (connection 1) and `b` (connection 2).
pub(in crate::room::state) fn hosted() -> (Room, Instant) {
    let (mut room, now) = room(ModeratorDefault::First);
    enter(&mut room, now, 1, "a", "A");
    enter(&mut room, now, 2, "b", "B");
    room.handle(now + Duration::from_secs(1), Input::Wake);
    (room, now + Duration::from_secs(1))
}

pub(in crate::room::state) fn act(
    room: &mut Room,
    now: Instant,
    connection: u64,
    action: &str,
) -> Vec<String> {
    seen(&room.handle(now, says(connection, &format!(r#"{{"type":"moderate","ref":"1",{action}}}"#))))
}

fn done(to: &str) -> String {
    format!(r#"to {to}: {{"type":"moderated","ref":"1","ok":true}}"#)
}

fn failed(to: &str, why: &str) -> String {
    format!(r#"to {to}: {{"type":"moderated","ref":"1","ok":false,"error":"{why}"}}"#)
}

fn knocks(to: &str, names: &[(&str, &str)]) -> String {
    let knocks = names.iter().map(|(id, name)| KnockView { id: user(id), name: (*name).to_owned() });
    let notice = ModerationNotice::Knocks { knocks: knocks.collect() };
    format!("to {to}: {}", notice.to_json())
}

#[test]
fn default_room_shows_no_rules() {
    let (mut room, now) = room_of_two();
    assert!(!room.encode_snapshot().contains("\"room\""));
    room.handle(now, by_operator(ModerationAction::Lock { on: true }));
    assert!(room.encode_snapshot().ends_with(r#","room":{"locked":true,"waitingRoom":false}}}"#));
    room.handle(now, by_operator(ModerationAction::Lock { on: false }));
    assert!(!room.encode_snapshot().contains("\"room\""));
}

/// Any visitor could remove the others from their own meeting, and keep them out.
#[test]
fn everyone_mutes_but_keeps_nobody_out() {
    let (mut room, now) = room_of_two();
    for action in [
        r#""action":"remove","id":"a""#,
        r#""action":"unban","id":"a""#,
        r#""action":"lock","on":true"#,
        r#""action":"waitingRoom","on":true"#,
        r#""action":"grantModeration","id":"b""#,
        r#""action":"revokeModeration","id":"a""#,
    ] {
        assert_eq!(
            act(&mut room, now, 2, action)[0],
            failed("b", "you may not moderate this room"),
            "{action}"
        );
    }
    assert_eq!(act(&mut room, now, 2, r#""action":"mute","id":"a""#)[2], done("b"));
    assert_eq!(act(&mut room, now, 2, r#""action":"lowerHands""#)[0], done("b"));
    // A holder of a token with the grant moderates, and is shown to.
    enter_with(&mut room, now, 3, "h", "token:app:h", |join| join);
    assert_eq!(act(&mut room, now, 3, r#""action":"revokeModeration","id":"b""#)[0], done("h"));
    assert_eq!(
        act(&mut room, now, 2, r#""action":"mute","id":"a""#)[0],
        failed("b", "you may not mute others")
    );
    assert!(room.encode_snapshot().contains(r#""room":{"moderators":["h"],"#));
}

#[test]
fn locked_room_admits_who_was_there_alone() {
    let (mut room, now) = hosted();
    assert_eq!(act(&mut room, now, 1, r#""action":"lock","on":true"#)[0], done("a"));
    assert_eq!(enter(&mut room, now, 3, "c", "C"), ["refuse 3: Locked"]);
    // A reloaded page has another id, and so has one that left.
    assert_eq!(enter(&mut room, now, 4, "b2", "B")[0], "admit 4 as b2");
    room.handle(now, says(1, r#"{"type":"userLeft"}"#));
    assert_eq!(enter(&mut room, now, 5, "a2", "A")[0], "admit 5 as a2");
    act(&mut room, now, 2, r#""action":"lock","on":false"#);
    assert_eq!(enter(&mut room, now, 6, "c", "C")[0], "admit 6 as c");
}

#[test]
fn removed_member_hears_why_and_stays_out() {
    let (mut room, now) = hosted();
    enter(&mut room, now, 3, "b2", "B");
    let effects = act(&mut room, now, 1, r#""action":"remove","id":"b","reason":"noise""#);
    let told = |id: &str| format!(r#"to {id}: {{"type":"removed","by":"name of A","reason":"noise"}}"#);
    let left = |id: &str| format!(r#"to all: {{"type":"userLeftNotification","id":"{id}"}}"#);
    let gone = |id: &str| format!("remove {id}: Removed");
    assert_eq!(effects[..6], [told("b"), gone("b"), left("b"), told("b2"), gone("b2"), left("b2")]);
    assert_eq!(effects[6], done("a"));
    for (connection, id) in [(4, "b"), (5, "fresh")] {
        assert_eq!(enter(&mut room, now, connection, id, "B"), [format!("refuse {connection}: Banned")]);
    }
    assert_eq!(act(&mut room, now, 1, r#""action":"unban","id":"b""#)[0], done("a"));
    assert_eq!(enter(&mut room, now, 6, "b", "B")[0], "admit 6 as b");
    let again = act(&mut room, now, 1, r#""action":"unban","id":"b""#);
    assert_eq!(again[0], failed("a", r#"nobody with this \"id\" was removed"#));
}

#[test]
fn ban_ends_with_its_time_and_holds_a_network() {
    let (mut room, now) = hosted();
    let [office, home] =
        [[192, 0, 2, 1], [192, 0, 2, 9]].map(|address: [u8; 4]| Some(client_network(address.into())));
    enter_with(&mut room, now, 3, "c", "C", |join| Join { network: office, ..join });
    act(&mut room, now, 1, r#""action":"remove","id":"c","seconds":60,"network":true"#);
    let mut tries = |at, connection, id: &str, identity: &str, network| {
        enter_with(&mut room, at, connection, id, identity, |join| Join { network, ..join })[0].clone()
    };
    assert_eq!(tries(now, 4, "d", "D", office), "refuse 4: Banned", "another identity of that network");
    assert_eq!(tries(now, 5, "c", "C", home), "refuse 5: Banned", "from another network");
    assert_eq!(tries(now, 6, "e", "E", home), "admit 6 as e");
    let later = now + Duration::from_secs(60);
    for connection in [1, 2] {
        let own = Input::Message {
            connection: ConnectionId::new(NodeId::new(0), connection),
            at: 0,
            message: crate::protocol::client::ClientMessage::Heartbeat,
        };
        room.handle(later, own);
    }
    let back = enter_with(&mut room, later, 7, "c2", "C", |join| Join { network: office, ..join });
    assert!(back.contains(&"admit 7 as c2".to_owned()), "{back:?}");
}

/// One who was refused with the id of another took the other's ban away.
#[test]
fn bans_of_one_id_do_not_replace_each_other() {
    let (mut room, now) = hosted();
    act(&mut room, now, 1, r#""action":"remove","id":"b""#);
    act(&mut room, now, 1, r#""action":"waitingRoom","on":true"#);
    assert_eq!(enter(&mut room, now, 3, "b", "accomplice").last().unwrap(), "refuse 3: Waiting");
    assert!(act(&mut room, now, 1, r#""action":"refuse","id":"b""#).contains(&done("a")));
    act(&mut room, now, 1, r#""action":"waitingRoom","on":false"#);
    assert_eq!(enter(&mut room, now, 4, "b", "B"), ["refuse 4: Banned"]);
    assert_eq!(enter(&mut room, now, 5, "c", "accomplice"), ["refuse 5: Banned"]);
    act(&mut room, now, 1, r#""action":"unban","id":"b""#);
    assert_eq!(enter(&mut room, now, 6, "b", "B")[0], "admit 6 as b");
}

#[test]
fn waiting_room_lets_in_who_is_admitted() {
    let (mut room, now) = room(ModeratorDefault::First);
    enter(&mut room, now, 1, "h", "H");
    assert_eq!(act(&mut room, now, 1, r#""action":"waitingRoom","on":true"#)[0], done("h"));
    let knock = [("c", "name of C")];
    assert_eq!(enter(&mut room, now, 2, "c", "C"), [knocks("h", &knock), "refuse 2: Waiting".to_owned()]);
    assert_eq!(enter(&mut room, now, 3, "c", "C"), ["refuse 3: Waiting"], "nothing new");
    let both = [("c", "name of C"), ("d", "name of D")];
    assert_eq!(enter(&mut room, now, 4, "d", "D")[0], knocks("h", &both));
    let admitted = act(&mut room, now, 1, r#""action":"admit","id":"c""#);
    assert_eq!(admitted[..2], [knocks("h", &both[1..]), done("h")]);
    assert_eq!(enter(&mut room, now, 5, "c", "C")[0], "admit 5 as c");
    let refused = act(&mut room, now, 1, r#""action":"refuse","id":"d""#);
    assert_eq!(refused[..2], [knocks("h", &[]), done("h")]);
    assert_eq!(enter(&mut room, now, 6, "d", "D"), ["refuse 6: Banned"]);
    let nobody = failed("h", r#"nobody with this \"id\" waits to be let in"#);
    assert_eq!(act(&mut room, now, 1, r#""action":"admit","id":"d""#)[0], nobody);
    // An admitted member is no moderator, and is not told of knocks.
    assert_eq!(enter(&mut room, now, 7, "e", "E")[0], knocks("h", &[("e", "name of E")]));
    assert_eq!(
        act(&mut room, now, 5, r#""action":"admit","id":"e""#)[0],
        failed("c", "you may not moderate this room")
    );
}

#[test]
fn knock_is_forgotten_unless_renewed() {
    let (mut room, now) = room(ModeratorDefault::First);
    enter(&mut room, now, 1, "h", "H");
    act(&mut room, now, 1, r#""action":"waitingRoom","on":true"#);
    enter(&mut room, now, 2, "c", "C");
    enter(&mut room, now, 3, "d", "D");
    let renewed = now + Duration::from_secs(29);
    room.handle(renewed, says(1, r#"{"type":"heartbeat"}"#));
    enter(&mut room, renewed, 4, "d", "D");
    let tick = renewed + settings().tick;
    let effects = seen(&room.handle(tick, Input::Wake));
    assert_eq!(effects[0], knocks("h", &[("d", "name of D")]));
    // One knock an identity, eight a network, a hundred in all.
    for number in 0..20 {
        enter_with(&mut room, tick, 100 + number, &format!("n{number}"), &format!("N{number}"), |join| {
            Join { network: Some(client_network([192, 0, 2, 1].into())), ..join }
        });
    }
    assert_eq!(room.moderation.waiting(), 9);
    for number in 0..200 {
        enter(&mut room, tick, 200 + number, &format!("m{number}"), &format!("M{number}"));
    }
    assert_eq!(room.moderation.waiting(), 100);
    act(&mut room, tick, 1, r#""action":"waitingRoom","on":false"#);
    assert_eq!(
        (room.moderation.waiting(), &*enter(&mut room, tick, 500, "x", "X")[0]),
        (0, "admit 500 as x")
    );
}

#[test]
fn hands_are_lowered() {
    let (mut room, now) = hosted();
    for connection in [1, 2] {
        room.handle(now, says(connection, r#"{"type":"userUpdate","user":{"raisedHand":true}}"#));
    }
    assert_eq!(room.encode_snapshot().matches(r#""raisedHand":true"#).count(), 2);
    act(&mut room, now, 1, r#""action":"lowerHands","id":"b""#);
    assert_eq!(room.encode_snapshot().matches(r#""raisedHand":true"#).count(), 1);
    act(&mut room, now, 1, r#""action":"lowerHands""#);
    assert!(!room.encode_snapshot().contains(r#""raisedHand":true"#));
}

#[test]
fn operator_moderates_a_running_meeting() {
    let (mut room, now) = (Room::new(settings(), start()), start());
    let lock = || by_operator(ModerationAction::Lock { on: true });
    assert_eq!(seen(&room.handle(now, lock())), ["moderated: Err(NoMeeting)"]);
    enter(&mut room, now, 1, "a", "A");
    assert!(seen(&room.handle(now, lock())).contains(&"moderated: Ok(())".to_owned()));
    let remove = ModerationAction::Remove { id: user("a"), reason: None, seconds: None, network: false };
    let effects = seen(&room.handle(now, by_operator(remove)));
    assert_eq!(effects[..2], [r#"to a: {"type":"removed"}"#, "remove a: Removed"]);
}

#[test]
fn rules_outlast_a_restart_and_end_with_the_meeting() {
    let (mut room, now) = room(ModeratorDefault::First);
    enter(&mut room, now, 1, "h", "H");
    enter(&mut room, now, 2, "b", "B");
    enter(&mut room, now, 7, "t", "T");
    act(&mut room, now, 1, r#""action":"remove","id":"b""#);
    act(&mut room, now, 1, r#""action":"remove","id":"t","seconds":60"#);
    act(&mut room, now, 1, r#""action":"waitingRoom","on":true"#);
    let effects = room.handle(now, says(1, r#"{"type":"moderate","action":"lock","on":true}"#));
    let Some(Persist::Moderation { json }) = persisted(&effects).pop() else { panic!("{effects:?}") };
    let saved = SavedRoom {
        room: RoomName::parse("r").unwrap(),
        meeting: MeetingId::random(),
        ai: None,
        moderation: Some(json),
        watch: None,
        chat: Vec::new(),
        members: Vec::new(),
        departed: Vec::new(),
        unconfirmed: Vec::new(),
        journal: None,
    };
    let settings = RoomSettings { moderators: ModeratorDefault::First, ..settings() };
    let mut restored = Room::restore(settings.clone(), now, &saved);
    assert_eq!(enter(&mut restored, now, 3, "b", "B"), ["refuse 3: Banned"]);
    assert_eq!(enter(&mut restored, now, 4, "c", "C"), ["refuse 4: Locked"]);
    // A ban for a time ends, counted from the restart; then the room is locked to that one as to others.
    assert_eq!(enter(&mut restored, now, 7, "t", "T"), ["refuse 7: Banned"]);
    let mut later = Room::restore(settings.clone(), now, &saved);
    assert_eq!(enter(&mut later, now + Duration::from_secs(60), 7, "t", "T")[0], "refuse 7: Locked");
    assert_eq!(enter(&mut restored, now, 5, "h2", "H")[0], "admit 5 as h2", "the host is still one");
    // The next meeting has the default rules.
    restored.handle(now, says(5, r#"{"type":"userLeft"}"#));
    restored.handle(now + settings.tick * 2, Input::Wake);
    assert_eq!(enter(&mut restored, now, 6, "b", "B")[0], "admit 6 as b");
    for broken in ["no JSON", "[]", r#"{"banned":[["é","x"]],"locked":true}"#] {
        let rules = super::super::Moderation::restore(ModeratorDefault::Nobody, now, broken);
        assert!(rules.knocks().is_empty(), "{broken}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Enter(u8, u8),
    Leave(u8),
    Act(u8, &'static str, u8),
    Toggle(u8, &'static str, bool),
    Operator(&'static str, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let about = || {
        prop::sample::select(vec![
            "remove",
            "unban",
            "admit",
            "refuse",
            "grantModeration",
            "revokeModeration",
        ])
    };
    let step = prop_oneof![
        (0..4_u8, 0..6_u8).prop_map(|(identity, id)| Step::Enter(identity, id)),
        (0..6_u8).prop_map(Step::Leave),
        (0..6_u8, about(), 0..6_u8).prop_map(|(by, action, id)| Step::Act(by, action, id)),
        (0..6_u8, prop::sample::select(vec!["lock", "waitingRoom"]), any::<bool>())
            .prop_map(|(by, action, on)| Step::Toggle(by, action, on)),
        (about(), 0..6_u8).prop_map(|(action, id)| Step::Operator(action, id)),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    /// Interleavings of joins, leaves and actions: a banned identity is no member, only moderators change anything,
    /// and the rules that are persisted are those that hold.
    #[test]
    fn rules_hold_in_every_interleaving(steps in steps()) {
        let (mut room, now) = room(ModeratorDefault::First);
        let mut connection = 0;
        let mut latest = None;
        for step in steps {
            let before = room.moderation.to_saved();
            let sender = |room: &Room, id: u8| {
                let member = room.members.get(&user(&format!("u{id}")));
                member.and_then(|member| member.connection)
            };
            let (input, by) = match &step {
                Step::Enter(identity, id) => {
                    connection += 1;
                    let Input::Join(ask) = join(connection, &format!("u{id}"), &format!("I{identity}")) else {
                        unreachable!()
                    };
                    let grants = Grants { moderate: false, ..Grants::everyone() };
                    (Some(Input::Join(Join { grants, ..ask })), None)
                }
                Step::Leave(id) => (sender(&room, *id).map(|socket| says(socket.number(), r#"{"type":"userLeft"}"#)), None),
                Step::Act(by, action, id) => {
                    let text = format!(r#"{{"type":"moderate","action":"{action}","id":"u{id}"}}"#);
                    (sender(&room, *by).map(|socket| says(socket.number(), &text)), Some(*by))
                }
                Step::Toggle(by, action, on) => {
                    let text = format!(r#"{{"type":"moderate","action":"{action}","on":{on}}}"#);
                    (sender(&room, *by).map(|socket| says(socket.number(), &text)), Some(*by))
                }
                Step::Operator(action, id) => {
                    let action = serde_json::from_str(&format!(r#"{{"action":"{action}","id":"u{id}"}}"#)).unwrap();
                    (Some(by_operator(action)), None)
                }
            };
            let Some(input) = input else { continue };
            let moderated = by.is_none_or(|by| room.is_moderator(&user(&format!("u{by}"))));
            for change in persisted(&room.handle(now, input)) {
                if let Persist::Moderation { json } = change {
                    latest = Some(json);
                }
            }
            prop_assert!(moderated || room.moderation.to_saved() == before, "{step:?} by no moderator");
            let saved: serde_json::Value = serde_json::from_str(&room.moderation.to_saved()).unwrap();
            let banned = |identity: &IdentityId| {
                saved["banned"].as_array().unwrap().iter().any(|ban| ban[1] == identity.as_str())
            };
            prop_assert!(room.members.iter().all(|(_, member)| !banned(&member.identity)), "{step:?}");
            if let Some(json) = &latest {
                let restored = super::super::Moderation::restore(ModeratorDefault::First, now, json);
                prop_assert_eq!(restored.to_saved(), room.moderation.to_saved());
            }
        }
    }
}
