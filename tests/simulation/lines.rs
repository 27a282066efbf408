//! The lines of a room's journal: their form, and the state that they lead to.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use satsuma::id::{ConnectionId, Grants, IdentityId, MeetingId, NodeId, RoomName, UserId};
use satsuma::protocol::client::{ClientMessage, MessageLimits};
use satsuma::protocol::close::Close;
use satsuma::room::io::{Disconnection, Effect, Input, Join, Liveness, Recipients};
use satsuma::room::replica::journaled::{JournaledEvent, OutsideEvent};
use satsuma::room::replica::lines::{RecordedEvents, RoomLine, RoomState};
use satsuma::room::state::Room;
use satsuma_cluster::entry::State;

use crate::node::settings;

/// Lines of a room's journal as version 1 of the entries writes them.
const RECORDED: &str = r#"[{"meeting":"6f9619ff-8b86-d011-b42d-00c04fc964ff"},{"member":{"user":"a","identity":"cookie:1","json":"{}","arrival":1}},{"memberRemoved":"a"},{"departed":["a","cookie:1"]},{"departedForgotten":"a"},{"ai":"{}"},{"moderation":"{}"},{"watch":"{}"},{"chat":{"id":7,"json":"{}","first":3}},{"chatForgotten":4},{"admitted":{"user":"a","connection":{"node":7,"number":9},"owed_from":2}},{"event":{"number":5,"to":{"allBut":"a"},"json":"{}","chat":7}},{"event":{"number":6,"to":"all","json":"{}"}},{"removed":{"user":"a","close":"timedOut"}},{"confirmed":[["a",6]]},{"keptOut":["a"]},{"published":{"number":1,"epoch":4,"at":7,"event":"meetingStarted"}},{"published":{"number":2,"epoch":4,"at":8,"event":{"left":{"user":"a","json":"{}","reason":"timedOut"}}}},{"recorded":{"through":1,"seq":1}}]"#;

#[test]
fn recorded_lines_are_read_and_written() {
    let lines: Vec<RoomLine> = serde_json::from_str(RECORDED).unwrap();
    assert_eq!(serde_json::to_string(&lines).unwrap(), RECORDED);
    let mut state = RoomState::default();
    lines.iter().for_each(|line| state.apply(line));
    assert_eq!((state.events(), state.last_chat(), state.sockets().count()), (6, 7, 0));
    let unrecorded: Vec<u64> = state.unrecorded().map(|event| event.number).collect();
    assert_eq!((&unrecorded[..], state.recorded().through, state.published()), (&[2][..], 1, 2));
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

fn event(number: u64, to: Recipients) -> RoomLine {
    RoomLine::Event { number, to, json: format!("{number}").into(), chat: None }
}

fn admitted(id: &str, number: u64, owed_from: u64) -> RoomLine {
    let connection = ConnectionId::new(NodeId::new(1), number);
    RoomLine::Admitted { user: user(id), connection, owed_from }
}

#[test]
fn events_are_owed_until_they_are_confirmed() {
    let mut state = RoomState::default();
    let [a, b] = [user("a"), user("b")];
    for line in [
        RoomLine::Meeting(MeetingId::from_bytes([1; 16])),
        admitted("a", 1, 1),
        event(1, Recipients::All),
        admitted("b", 2, 2),
        event(2, Recipients::AllBut(a.clone())),
        event(3, Recipients::All),
    ] {
        state.apply(&line);
    }
    let owed = |state: &RoomState, user: &UserId| -> Vec<u64> {
        let from = state.socket(user).unwrap().owed_from;
        state.owed(user, from).map(|event| event.number).collect()
    };
    assert_eq!((owed(&state, &a), owed(&state, &b)), (vec![1, 3], vec![2, 3]));
    assert_eq!((state.passed(), state.mark()), (0, 3));
    state.apply(&RoomLine::Confirmed(vec![(a.clone(), 3)]));
    assert_eq!((owed(&state, &a), owed(&state, &b), state.passed()), (vec![], vec![2, 3], 1));
    state.apply(&RoomLine::Removed { user: b, close: Close::TimedOut });
    assert_eq!(state.passed(), 3);
    assert!(state.owed(&a, 0).next().is_none());
}

/// A node whose database is full holds up no journal.
#[test]
fn events_for_programs_are_kept_within_limits() {
    let published = |number: u64, bytes: usize| {
        let (user, json) = (user("a"), "x".repeat(bytes).into());
        let event = OutsideEvent::Left { user, json, reason: Close::TimedOut };
        RoomLine::Published(JournaledEvent { number, epoch: 1, at: 0, event })
    };
    let mut state = RoomState::default();
    (1..=1000).for_each(|number| state.apply(&published(number, 10)));
    let numbers = |state: &RoomState| -> Vec<u64> { state.unrecorded().map(|event| event.number).collect() };
    assert_eq!(numbers(&state), (745..=1000).collect::<Vec<_>>());
    state.apply(&published(1001, 128 << 10));
    assert_eq!((numbers(&state), state.published()), (vec![1001], 1001));
    state.apply(&RoomLine::Recorded(RecordedEvents { through: 1001, seq: 3000 }));
    assert_eq!((numbers(&state), state.published()), (vec![], 1001));
}

/// A journal is read back from entries that are there for their events alone, before the first whole state.
#[test]
fn events_before_a_whole_state_stay() {
    let mut state = RoomState::default();
    state.apply(&RoomLine::Meeting(MeetingId::from_bytes([1; 16])));
    state.apply(&admitted("a", 1, 1));
    let mut read = RoomState::default();
    for line in [event(1, Recipients::All), event(2, Recipients::All)] {
        state.apply(&line);
        read.apply(&line);
    }
    let whole = serde_json::to_string(&state).unwrap();
    read.replace(serde_json::from_str(&whole).unwrap());
    assert_eq!(read, state);
    assert_eq!(read.owed(&user("a"), 1).count(), 2);
}

#[derive(Clone, Debug)]
enum Step {
    Join(u64, usize),
    Gone(u64),
    Say(u64, usize),
    Wait(u64),
}

const SAYS: [&str; 6] = [
    r#"{"type":"chat","message":"hello"}"#,
    r#"{"type":"userLeft"}"#,
    r#"{"type":"heartbeat"}"#,
    r#"{"type":"moderate","action":"lock","on":true}"#,
    r#"{"type":"moderate","action":"remove","id":"u1"}"#,
    r#"{"type":"userUpdate","user":{"id":"x","name":"x","joined":true,"raisedHand":true,"speaking":false,"tracks":{"audioEnabled":true,"audioUnavailable":false,"videoEnabled":false,"screenShareEnabled":false}}}"#,
];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..20_u64, 0..4_usize).prop_map(|(number, user)| Step::Join(number, user)),
        1 => (0..20_u64).prop_map(Step::Gone),
        6 => (0..20_u64, 0..SAYS.len()).prop_map(|(number, text)| Step::Say(number, text)),
        1 => (0..20_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..80)
}

/// Runs the steps; the room, and the lines that its changes are.
fn run(now: &mut Instant, steps: Vec<Step>) -> (Room, Vec<RoomLine>) {
    let mut room = Room::new(settings(), *now);
    let mut lines = Vec::new();
    let mut at = 0;
    for step in steps {
        let input = match step {
            Step::Join(number, user) => Input::Join(Join {
                connection: ConnectionId::new(NodeId::new(0), number),
                user: UserId::parse(&format!("u{user}")).unwrap(),
                identity: IdentityId::new(format!("cookie:{user}")),
                name: format!("User {user}").into(),
                grants: Grants { moderate: true, ..Grants::everyone() },
                network: None,
                new_meeting: MeetingId::from_bytes([number as u8; 16]),
                presence: false,
                liveness: Liveness::Heartbeat,
                password: None,
            }),
            Step::Gone(number) => {
                let connection = ConnectionId::new(NodeId::new(0), number);
                Input::Disconnected(Disconnection { connection, is_page_left: false })
            }
            Step::Say(number, text) => {
                at += 1;
                let message = ClientMessage::parse(SAYS[text], MessageLimits::default()).unwrap();
                Input::Message { connection: ConnectionId::new(NodeId::new(0), number), at, message }
            }
            Step::Wait(seconds) => {
                *now += Duration::from_secs(seconds);
                Input::Wake
            }
        };
        let effects = room.handle(*now, input);
        for effect in effects {
            match effect {
                Effect::Persist { meeting, change } => lines.extend(RoomLine::of_change(meeting, change)),
                // As the journal's end.
                Effect::Retire => lines.clear(),
                _ => {}
            }
        }
    }
    (room, lines)
}

proptest! {
    /// The next owner's room is the last owner's, as far as members see it and as it is persisted.
    #[test]
    fn folded_lines_are_the_room(steps in steps()) {
        let mut now = crate::start();
        let (room, lines) = run(&mut now, steps);
        let mut state = RoomState::default();
        lines.iter().for_each(|line| state.apply(line));
        let name = RoomName::parse("r").unwrap();
        match (room.meeting(), state.to_saved(&name)) {
            (None, saved) => prop_assert!(saved.is_none()),
            (Some(_), None) => prop_assert!(false, "the journal does not know the meeting"),
            (Some(meeting), Some(saved)) => {
                prop_assert_eq!(saved.meeting, meeting);
                let mut next = Room::restore(settings(), now, &saved);
                next.restore_chat(now, 1_000_000, &saved);
                prop_assert_eq!(next.encode_chat_history(), room.encode_chat_history());
                let known = |room: &Room| -> Vec<_> {
                    room.members().map(|member| (member.user, member.name, member.json)).collect()
                };
                prop_assert_eq!(known(&next), known(&room));
                prop_assert_eq!(next.rules(), room.rules());
            }
        }
    }
}
