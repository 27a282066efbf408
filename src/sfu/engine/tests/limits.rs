//! How much of everything there may be, and how long.

use super::client::person;
use super::world::{World, limits};
use super::*;
use crate::sfu::error::SfuError;
use crate::sfu::request::*;

#[test]
fn an_owner_has_so_many_sessions_and_the_oldest_unused_makes_room() {
    let mut world = World::with(Limits { sessions_per_owner: 2, ..limits() });
    let open = |world: &mut World| world.join_as(person("ada"), Ice::Lite, Ice::Full);
    let first = open(&mut world).unwrap();
    world.push(first, &[("mic", Kind::Audio, &[])]);
    world.connect();
    let second = open(&mut world).unwrap();
    world.pass(SECOND);
    let third = open(&mut world).unwrap();
    let is_there = |world: &mut World, peer| {
        let session = world.session(peer);
        world.ask(Request::Tracks { session }).is_ok()
    };
    assert!(is_there(&mut world, first), "it is older, and used");
    assert!(!is_there(&mut world, second));
    world.peers[second].gone = true;
    world.push(third, &[("mic", Kind::Audio, &[])]);
    world.connect();
    assert!(matches!(open(&mut world), Err(SfuError::TooMany(_))));
    assert!(world.join_as(person("bob"), Ice::Lite, Ice::Full).is_ok(), "another may");
    assert_eq!(world.engine.counters().sessions, 3);
}

#[test]
fn the_server_has_so_many_sessions() {
    let mut world = World::with(Limits { sessions: 3, ..limits() });
    for _ in 0..3 {
        world.join();
    }
    let refused = world.join_as(person("zoe"), Ice::Lite, Ice::Full);
    assert!(matches!(refused, Err(SfuError::TooMany(_))));
    // Whose sessions take all the places still gets one of its own anew.
    assert!(world.join_as(crate::calls::api::Caller::Ai, Ice::Full, Ice::Full).is_err());
}

#[test]
fn a_session_has_so_many_tracks() {
    let mut world = World::with(Limits { tracks_per_session: 2, ..limits() });
    let (ada, bob) = (world.join(), world.join());
    let sound = ("mic", Kind::Audio, &[][..]);
    let done = world.try_to_push(ada, &[sound, ("two", Kind::Audio, &[]), ("three", Kind::Audio, &[])]);
    assert!(done[0].is_ok() && done[1].is_ok());
    assert!(matches!(done[2], Err(SfuError::TooMany(_))), "{done:?}");
    world.push(bob, &[sound]);
    let session = world.session(bob);
    let track = |name: &str| Subscribe {
        publisher: world.session(ada),
        name: name.to_owned(),
        layer: LayerWish::default(),
    };
    let tracks = vec![track("mic"), track("two")];
    let refused = world.ask(Request::Subscribe { session: session.clone(), tracks });
    assert!(matches!(refused, Err(SfuError::TooMany(_))));
    assert_eq!(world.engine.counters().subscriptions, 0);
    world.pull_one(bob, ada, "two");
    let offered = Publish { name: "more".into(), mid: None, kind: Some(Kind::Audio), way: Way::In };
    let refused = world.ask(Request::Publish { session, tracks: vec![offered], offer: None });
    assert!(matches!(refused, Err(SfuError::TooMany(_))));
}

#[test]
fn a_track_has_so_many_subscribers_until_one_leaves() {
    let mut world = World::with(Limits { subscribers_per_track: 2, ..limits() });
    let peers: Vec<usize> = (0..4).map(|_| world.join()).collect();
    let [ada, bob, eve, dan] = *peers else { panic!("four") };
    world.push(ada, &[("mic", Kind::Audio, &[])]);
    for peer in [bob, eve, dan] {
        world.push(peer, &[("mic", Kind::Audio, &[])]);
    }
    world.connect();
    // Also where one call asks for it again and again.
    let pulled = world.pull(bob, &[0; 3].map(|_| (ada, "mic", wish(""))));
    assert!(matches!(&pulled[..], [Ok(_), Ok(_), Err(SfuError::TooMany(_))]), "{pulled:?}");
    let both: Vec<_> = pulled.into_iter().flatten().collect();
    world.close(bob, &both);
    let of_bob = world.pull_one(bob, ada, "mic");
    world.pull_one(eve, ada, "mic");
    let refused = world.pull(dan, &[(ada, "mic", wish(""))]);
    assert!(matches!(refused[0], Err(SfuError::TooMany(_))), "{refused:?}");
    let at = Transceiver::Published("mic".into());
    let refused = world.update(dan, at, Some((ada, "mic")), wish("")).unwrap_err();
    assert!(matches!(refused.error, SfuError::TooMany(_)), "{refused:?}");
    world.close(bob, &[of_bob]);
    world.pull_one(dan, ada, "mic");
}

#[test]
fn a_session_that_never_connects_ends_and_one_that_nobody_used_is_kept_longer() {
    let mut world = World::new();
    let (negotiated, offered, unused) = (world.join(), world.join(), world.join());
    world.push(negotiated, &[("mic", Kind::Audio, &[])]);
    let (_, told) = world.ask_to_push(offered, &[("mic", Some(Kind::Audio), Way::In)]);
    assert!(told.is_some());
    for peer in &mut world.peers {
        peer.gone = true;
    }
    let ends = |world: &mut World, peer| {
        let session = world.session(peer);
        world.ask(Request::Tracks { session }).err() == Some(SfuError::NoSession)
    };
    world.pass(29 * SECOND);
    assert_eq!([negotiated, offered, unused].map(|peer| ends(&mut world, peer)), [false; 3]);
    world.pass(2 * SECOND);
    assert_eq!([negotiated, offered, unused].map(|peer| ends(&mut world, peer)), [true, true, false]);
    world.pass(568 * SECOND);
    assert!(!ends(&mut world, unused));
    world.pass(2 * SECOND);
    assert!(ends(&mut world, unused));
    assert_eq!(world.engine.deadline(), None, "nothing is left to do");
}
