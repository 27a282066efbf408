//! Limits on sessions, tracks and subscriptions, and their timeouts.

use str0m::media::Mid;

use super::client::person;
use super::world::{World, limits};
use super::*;
use crate::error::SfuError;
use crate::network::client_network;
use crate::request::*;
use crate::settings::SfuLimits;

#[test]
fn owner_at_limit_evicts_oldest_unused_session() {
    let mut world = World::with(SfuLimits { sessions_per_owner: 2, ..limits() });
    let open = |world: &mut World| world.join_as(person("ada"), Ice::Lite, Ice::Full);
    let first = open(&mut world).unwrap();
    world.push(first, &[("mic", TrackKind::Audio, &[])]);
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
    world.push(third, &[("mic", TrackKind::Audio, &[])]);
    world.connect();
    assert!(matches!(open(&mut world), Err(SfuError::TooMany(_))));
    assert!(world.join_as(person("bob"), Ice::Lite, Ice::Full).is_ok(), "another may");
    assert_eq!(world.engine.counters().sessions, 3);
}

#[test]
fn sessions_of_server_are_limited() {
    let mut world = World::with(SfuLimits { sessions: 3, ..limits() });
    for _ in 0..3 {
        let peer = world.join();
        world.push(peer, &[("mic", TrackKind::Audio, &[])]);
    }
    world.connect();
    let refused = world.join_as(person("zoe"), Ice::Lite, Ice::Full);
    assert!(matches!(refused, Err(SfuError::TooMany(_))));
    // A caller without a limit of its own cannot evict a connected session either.
    assert!(world.join_as(crate::api::Caller::Ai, Ice::Full, Ice::Full).is_err());
}

fn is_there(world: &mut World, peer: usize) -> bool {
    let session = world.session(peer);
    world.ask(Request::Tracks { session }).is_ok()
}

/// Regression: sessions cost nothing to open, and a hundred cookies filled the table for a day.
#[test]
fn full_server_evicts_unused_sessions_first() {
    let mut world = World::with(SfuLimits { sessions: 3, ..limits() });
    let [unused, negotiated, connected] = [(); 3].map(|()| {
        world.pass(MS);
        world.join()
    });
    world.push(connected, &[("mic", TrackKind::Audio, &[])]);
    world.connect_one(connected);
    world.push(negotiated, &[("mic", TrackKind::Audio, &[])]);
    world.peers[negotiated].gone = true;
    let newer = world.join();
    assert!(!is_there(&mut world, unused), "it never negotiated");
    let newest = world.join();
    assert!(!is_there(&mut world, newer), "the newer one did not either");
    world.push(newest, &[("mic", TrackKind::Audio, &[])]);
    world.connect_one(newest);
    let last = world.join();
    assert!(!is_there(&mut world, negotiated), "it never connected");
    assert!(is_there(&mut world, connected) && is_there(&mut world, newest));
    world.push(last, &[("mic", TrackKind::Audio, &[])]);
    world.connect_one(last);
    let again = world.push(newest, &[("two", TrackKind::Audio, &[])])[0];
    let own = world.states(newest).into_iter().map(|track| track.mid);
    let own: Vec<_> = own.map(|mid| Mid::from(&*mid)).collect();
    assert!(own.contains(&again));
    world.close(newest, &own);
    world.join();
    assert!(!is_there(&mut world, newest), "it is connected for nothing");
    let last = world.join();
    world.push(last, &[("mic", TrackKind::Audio, &[])]);
    world.connect_one(last);
    // A session whose connection was just lost is not evicted for another owner.
    world.peers[connected].gone = true;
    world.pass(20 * SECOND);
    let refused = world.join_as(person("zoe"), Ice::Lite, Ice::Full);
    assert!(matches!(refused, Err(SfuError::TooMany(_))));
}

#[test]
fn network_at_limit_evicts_only_its_own_sessions() {
    let mut world = World::with(SfuLimits { sessions_per_network: 2, ..limits() });
    let mut open = |name: &str, network: &str| {
        world.pass(MS);
        let network = Some(client_network(network.parse().unwrap()));
        world.join_from(person(name), network, Ice::Lite, Ice::Full).unwrap()
    };
    let other = open("ada", "2001:db8:0:1::1");
    let sessions = [other, open("m1", "2001:db8::1"), open("m2", "2001:db8::2"), open("m3", "2001:db8::3")];
    let there = sessions.map(|peer| is_there(&mut world, peer));
    assert_eq!(there, [true, false, true, true]);
}

#[test]
fn repeated_subscription_is_refused() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    world.push(ada, &[("mic", TrackKind::Audio, &[]), ("two", TrackKind::Audio, &[])]);
    world.push(bob, &[("mic", TrackKind::Audio, &[])]);
    world.connect();
    let pulled = world.pull(bob, &[0; 3].map(|_| (ada, "mic", wish(""))));
    assert!(
        matches!(
            &pulled[..],
            [Ok(_), Err(SfuError::RepeatedSubscription), Err(SfuError::RepeatedSubscription)]
        ),
        "{pulled:?}"
    );
    let mic = *pulled[0].as_ref().unwrap();
    assert_eq!(world.pull(bob, &[(ada, "mic", wish(""))]), [Err(SfuError::RepeatedSubscription)]);
    let two = world.pull_one(bob, ada, "two");
    let at = Transceiver::Mid(two.to_string());
    let refused = world.update(bob, at.clone(), Some((ada, "mic")), wish("")).unwrap_err();
    assert_eq!(refused.error, SfuError::RepeatedSubscription);
    assert!(world.update(bob, at, Some((ada, "two")), wish("")).is_ok(), "it carries that already");
    assert_eq!(world.engine.counters().subscriptions, 2);
    world.close(bob, &[mic]);
    world.pull_one(bob, ada, "mic");
}

#[test]
fn subscriptions_of_owner_are_limited() {
    let per_owner =
        SfuLimits { subscriptions_per_owner: 3, subscriptions_per_owner_and_track: 2, ..limits() };
    let mut world = World::with(per_owner);
    let ada = world.join();
    world.push(ada, &[("mic", TrackKind::Audio, &[]), ("two", TrackKind::Audio, &[])]);
    let eves = [(); 3].map(|()| world.join_as(person("eve"), Ice::Lite, Ice::Full).unwrap());
    let bob = world.join();
    for peer in eves.into_iter().chain([bob]) {
        world.push(peer, &[("mic", TrackKind::Audio, &[])]);
    }
    world.connect();
    let mic = world.pull_one(eves[0], ada, "mic");
    world.pull_one(eves[1], ada, "mic");
    let refused = world.pull(eves[2], &[(ada, "mic", wish(""))]);
    assert!(matches!(refused[0], Err(SfuError::TooMany(_))), "{refused:?}");
    world.pull_one(eves[2], ada, "two");
    let refused = world.pull(eves[0], &[(ada, "two", wish(""))]);
    assert!(matches!(refused[0], Err(SfuError::TooMany(_))), "{refused:?}");
    // A replaced subscription does not count any more.
    let at = Transceiver::Mid(mic.to_string());
    world.update(eves[0], at, Some((ada, "two")), wish("")).unwrap();
    world.pull_one(bob, ada, "mic");
}

/// One person can create any number of identities.
#[test]
fn subscribers_of_track_per_network_are_limited() {
    let mut world =
        World::with(SfuLimits { subscribers_per_track: 3, subscribers_per_track_and_network: 2, ..limits() });
    let ada = world.join();
    world.push(ada, &[("mic", TrackKind::Audio, &[])]);
    let mut peers = Vec::new();
    for (name, network) in
        [("m1", "2001:db8::1"), ("m2", "2001:db8::2"), ("m3", "2001:db8::3"), ("bob", "::1")]
    {
        let network = Some(client_network(network.parse().unwrap()));
        let peer = world.join_from(person(name), network, Ice::Lite, Ice::Full).unwrap();
        world.push(peer, &[("mic", TrackKind::Audio, &[])]);
        peers.push(peer);
    }
    world.connect();
    let [m1, m2, m3, bob] = *peers else { panic!("four") };
    let of_m1 = world.pull_one(m1, ada, "mic");
    world.pull_one(m2, ada, "mic");
    let refused = world.pull(m3, &[(ada, "mic", wish(""))]);
    assert!(matches!(refused[0], Err(SfuError::TooMany(_))), "{refused:?}");
    world.pull_one(bob, ada, "mic");
    world.close(m1, &[of_m1]);
    world.pull_one(m3, ada, "mic");
}

#[test]
fn tracks_of_session_are_limited() {
    let mut world = World::with(SfuLimits { tracks_per_session: 2, ..limits() });
    let (ada, bob) = (world.join(), world.join());
    let sound = ("mic", TrackKind::Audio, &[][..]);
    let done =
        world.try_to_push(ada, &[sound, ("two", TrackKind::Audio, &[]), ("three", TrackKind::Audio, &[])]);
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
    let offered =
        Publish { name: "more".into(), mid: None, kind: Some(TrackKind::Audio), way: MediaDirection::In };
    let refused = world.ask(Request::Publish { session, tracks: vec![offered], offer: None });
    assert!(matches!(refused, Err(SfuError::TooMany(_))));
}

#[test]
fn subscribers_of_track_are_limited() {
    let mut world = World::with(SfuLimits { subscribers_per_track: 2, ..limits() });
    let peers: Vec<usize> = (0..4).map(|_| world.join()).collect();
    let [ada, bob, eve, dan] = *peers else { panic!("four") };
    world.push(ada, &[("mic", TrackKind::Audio, &[])]);
    for peer in [bob, eve, dan] {
        world.push(peer, &[("mic", TrackKind::Audio, &[])]);
    }
    world.connect();
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
fn unconnected_session_times_out_before_unused_one() {
    let mut world = World::new();
    let (negotiated, offered, unused) = (world.join(), world.join(), world.join());
    world.push(negotiated, &[("mic", TrackKind::Audio, &[])]);
    let (_, told) = world.ask_to_push(offered, &[("mic", Some(TrackKind::Audio), MediaDirection::In)]);
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
