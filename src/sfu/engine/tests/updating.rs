//! Changes of a transceiver's track, and the reported state of tracks.

use super::world::World;
use super::*;
use crate::api::Caller;
use crate::error::SfuError;
use crate::request::*;

#[test]
fn transceiver_switches_between_tracks() {
    let mut world = World::new();
    let (ada, bob, eve) = (world.join(), world.join(), world.join());
    let of_ada = world.push(ada, &[("mic", TrackKind::Audio, &[]), ("cam", TrackKind::Video, &[])]);
    let of_eve = world.push(eve, &[("mic", TrackKind::Audio, &[])])[0];
    let pulled = world.pull_one(bob, ada, "mic");
    world.connect();
    world.number_from(eve, of_eve, None, 30_000);
    let round = |world: &mut World| {
        for _ in 0..10 {
            world.speak(ada, of_ada[0]);
            world.speak(eve, of_eve);
            world.pass(20 * MS);
        }
    };
    round(&mut world);
    let at = || Transceiver::Mid(pulled.to_string());
    let done = world.update(bob, at(), Some((eve, "mic")), wish("")).unwrap();
    assert_eq!((done.publisher, done.name.as_deref()), (Some(world.session(eve)), Some("mic")));
    round(&mut world);
    let carrying = Transceiver::Carrying(world.session(eve), "mic".into());
    world.update(bob, carrying, Some((ada, "mic")), wish("")).unwrap();
    round(&mut world);
    world.pass(50 * MS);
    let got = world.got(bob, pulled);
    assert_eq!(got.len(), 30);
    assert_complete(&got);
    let numbers: Vec<bool> = got.iter().map(|got| got.payload[2] >= 30_000_u16.to_be_bytes()[0]).collect();
    assert_eq!(numbers.iter().filter(|of_eve| **of_eve).count(), 10);
    assert!(got.windows(2).all(|two| (two[1].time.wrapping_sub(two[0].time) as i32) > 0));

    for (at, track, expected) in [
        (at(), Some((ada, "none")), SfuError::NoTrack),
        (at(), Some((ada, "cam")), SfuError::InvalidParams("the transceiver carries another kind")),
        (Transceiver::Mid("none".into()), Some((ada, "mic")), SfuError::NothingToChange),
        (Transceiver::Published("mic".into()), None, SfuError::NothingToChange),
    ] {
        let failed = world.update(bob, at, track, wish("")).unwrap_err();
        assert_eq!(failed.error, expected);
    }
    // The transceiver is send-only for its client: it cannot carry a subscription.
    let own = Transceiver::Published("mic".into());
    let failed = world.update(eve, own, Some((ada, "mic")), wish("")).unwrap_err();
    assert_eq!(failed.error, SfuError::NothingToChange);
    round(&mut world);
    assert_eq!(world.got(bob, pulled).len(), 40, "what failed changed nothing");
}

/// Handshake of the AI participant, with an ICE-lite service or one that makes checks of its own.
fn the_ai_hears_and_speaks(theirs: Ice) {
    let mut world = World::new();
    let ada = world.join();
    let mic = world.push(ada, &[("mic", TrackKind::Audio, &[])])[0];
    let ai = world.join_as(Caller::Ai, Ice::Full, theirs).unwrap();
    let (done, told) = world.ask_to_push(ai, &[("voice", Some(TrackKind::Audio), MediaDirection::Both)]);
    let voice = *done[0].as_ref().unwrap();
    assert_eq!(world.pull(ada, &[(ai, "voice", wish(""))]), [Err(SfuError::NoTrack)], "not agreed yet");
    world.answer(ai, &told.unwrap()).unwrap();
    world.connect();
    let done = world.update(ai, Transceiver::Published("voice".into()), Some((ada, "mic")), wish(""));
    assert_eq!(done.unwrap().mid, voice.to_string());
    let heard = world.pull_one(ada, ai, "voice");
    for _ in 0..25 {
        world.speak(ada, mic);
        world.speak(ai, voice);
        world.pass(20 * MS);
    }
    world.pass(50 * MS);
    assert_eq!(world.got(ai, voice).len(), 25);
    assert_eq!(world.got(ada, heard).len(), 25);
    let states = world.states(ai);
    assert_eq!(states.len(), 2, "{states:?}");
    assert!(states.iter().all(|track| track.status == TrackStatus::Active));
}

#[test]
fn ai_participant_hears_and_speaks_on_one_transceiver() {
    the_ai_hears_and_speaks(Ice::Full);
}

#[test]
fn ice_lite_ai_participant_hears_and_speaks() {
    the_ai_hears_and_speaks(Ice::Lite);
}

#[test]
fn tracks_have_a_state() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let cam = world.push(ada, &[("cam", TrackKind::Video, &[])])[0];
    let pulled = world.pull_one(bob, ada, "cam");
    world.connect();
    let both = |world: &mut World| [ada, bob].map(|peer| world.states(peer)[0].status);
    assert_eq!(both(&mut world), [TrackStatus::Initializing; 2]);
    world.film(ada, cam, &[(None, 1)], 2);
    assert_eq!(both(&mut world), [TrackStatus::Active; 2]);
    let publisher = world.session(ada);
    let state = world.states(bob).remove(0);
    assert_eq!((state.mid, state.publisher, &*state.name), (pulled.to_string(), Some(publisher), "cam"));
    assert_eq!(world.states(ada)[0].publisher, None);
    world.pass(31 * SECOND);
    assert_eq!(both(&mut world), [TrackStatus::Inactive; 2]);
    assert_eq!(world.report().sessions.len(), 2, "the connections are there");
    world.film(ada, cam, &[(None, 1)], 2);
    assert_eq!(both(&mut world), [TrackStatus::Active; 2], "who was silent speaks again");
}

#[test]
fn report_lists_subscribers_of_tracks() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let cam = world.push(ada, &[("cam", TrackKind::Video, &["a", "b"])])[0];
    let pulled = world.pull_one(bob, ada, "cam");
    world.connect();
    world.film(ada, cam, &[(Some("a"), 4), (Some("b"), 1)], 60);
    let report = world.report();
    let session = report.sessions.iter().find(|session| session.owner == "owner-1").unwrap();
    assert_eq!((session.state, session.publishes, session.subscribes), ("connected", 0, 1));
    assert!(session.sent_bytes > 60 * 4 * 1000, "{}", session.sent_bytes);
    let [track] = &*report.tracks else { panic!("{report:?}") };
    assert_eq!((&*track.name, track.kind, track.codec.as_deref()), ("cam", TrackKind::Video, Some("VP8")));
    let layers: Vec<_> = track.layers.iter().map(|layer| (layer.rid.as_deref(), layer.live)).collect();
    assert_eq!(layers, [(Some("a"), true), (Some("b"), true)]);
    let bits = track.layers[0].bits;
    assert!((800_000..1_200_000).contains(&bits), "{bits}");
    let [subscriber] = &*track.subscribers else { panic!("{report:?}") };
    assert_eq!((&*subscriber.mid, subscriber.rid.as_deref()), (&*pulled.to_string(), Some("a")));
    assert_eq!(subscriber.packets, world.got(bob, pulled).len() as u64);
}

#[test]
fn muted_microphone_stays_active() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let mic = world.push(ada, &[("mic", TrackKind::Audio, &[])])[0];
    let pulled = world.pull_one(bob, ada, "mic");
    world.connect();
    world.talk(ada, mic, 50);
    // DTX: a packet of comfort noise every 400 ms, without gaps in the sequence numbers.
    for _ in 0..100 {
        world.speak(ada, mic);
        world.pass(400 * MS);
    }
    world.talk(ada, mic, 50);
    let got = world.got(bob, pulled);
    assert_complete(&got);
    assert_eq!(got.len(), 200);
    assert_eq!(world.states(bob)[0].status, TrackStatus::Active);
    let eve = world.join();
    world.pull_one(eve, ada, "mic");
}
