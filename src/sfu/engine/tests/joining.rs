//! Publishing and subscribing, in every order.

use super::world::World;
use super::*;
use crate::error::SfuError;
use crate::request::*;

#[test]
fn subscriber_receives_published_track() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let mids = world.push(ada, &[("mic", TrackKind::Audio, &[]), ("cam", TrackKind::Video, &[])]);
    let pulled = world.pull(bob, &[(ada, "mic", wish("")), (ada, "cam", wish(""))]);
    let (mic, cam) = (*pulled[0].as_ref().unwrap(), *pulled[1].as_ref().unwrap());
    world.connect();
    for _ in 0..50 {
        world.speak(ada, mids[0]);
        world.show(ada, mids[1], None, 3);
        world.pass(20 * MS);
    }
    world.pass(100 * MS);
    assert_eq!(world.got(bob, mic).len(), 50);
    assert_complete(&world.got(bob, mic));
    let got = world.got(bob, cam);
    assert_eq!(got.len(), 150);
    assert!(got[0].is_keyframe(), "it starts with a keyframe");
    assert_complete(&got);
    assert_eq!(world.peers[ada].got.len(), 0, "nothing comes back");
}

#[test]
fn subscriber_publishes_on_the_same_connection() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let cam = world.push(ada, &[("cam", TrackKind::Video, &[])])[0];
    let pulled = world.pull_one(bob, ada, "cam");
    world.connect();
    world.film(ada, cam, &[(None, 2)], 10);
    let before = world.got(bob, pulled).len();
    assert!(before > 0);

    let own = world.push(bob, &[("mic", TrackKind::Audio, &[]), ("cam", TrackKind::Video, &[])]);
    let back = world.pull(ada, &[(bob, "cam", wish("")), (bob, "mic", wish(""))]);
    let (their_cam, their_mic) = (*back[0].as_ref().unwrap(), *back[1].as_ref().unwrap());
    for _ in 0..30 {
        world.show(ada, cam, None, 2);
        world.show(bob, own[1], None, 2);
        world.speak(bob, own[0]);
        world.pass(33 * MS);
    }
    world.pass(100 * MS);
    assert_eq!(world.got(bob, pulled).len(), before + 60, "what flowed goes on");
    assert_complete(&world.got(bob, pulled));
    assert!(world.got(ada, their_cam).len() > 40, "{}", world.got(ada, their_cam).len());
    assert_eq!(world.got(ada, their_mic).len(), 30);
    let connections = world.report().sessions.len();
    assert_eq!((connections, world.engine.by_source.len()), (2, 2));
}

#[test]
fn existing_tracks_of_several_are_subscribed() {
    let mut world = World::new();
    let (ada, bob, eve) = (world.join(), world.join(), world.join());
    let mids = world.push(ada, &[("mic", TrackKind::Audio, &[]), ("cam", TrackKind::Video, &[])]);
    let tracks = [
        (ada, "none", wish("")),
        (ada, "mic", wish("")),
        (eve, "mic", wish("")),
        (ada, "cam", wish("")),
        (ada, "", wish("")),
    ];
    let pulled = world.pull(bob, &tracks);
    let failed: Vec<usize> = (0..5).filter(|i| pulled[*i] == Err(SfuError::NoTrack)).collect();
    assert_eq!(failed, [0, 2, 4]);
    world.peers[eve].gone = true;
    world.connect();
    world.talk(ada, mids[0], 10);
    world.pass(50 * MS);
    assert_eq!(world.got(bob, *pulled[1].as_ref().unwrap()).len(), 10);
}

#[test]
fn subscribing_to_missing_tracks_makes_no_offer() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let (done, told) = world.ask_to_pull(bob, &[(ada, "cam", wish("")), (ada, "mic", wish(""))]);
    assert_eq!(done, [Err(SfuError::NoTrack), Err(SfuError::NoTrack)]);
    assert_eq!(told, None);
    let nobody = crate::id::SessionId::parse(&"0".repeat(32)).unwrap();
    for request in [
        Request::Subscribe { session: nobody.clone(), tracks: Vec::new() },
        Request::Tracks { session: nobody.clone() },
        Request::Close { session: nobody.clone(), tracks: vec![Transceiver::Mid("0".into())], offer: None },
    ] {
        assert_eq!(world.ask(request).err(), Some(SfuError::NoSession));
    }
    let subscribe = Subscribe { publisher: nobody, name: "cam".into(), layer: wish("") };
    let request = Request::Subscribe { session: world.session(bob), tracks: vec![subscribe] };
    let Ok(Reply::Tracks { description: None, tracks }) = world.ask(request) else { panic!("an offer") };
    assert_eq!(tracks[0].as_ref().unwrap_err().error, SfuError::NoTrack);
}

#[test]
fn m_lines_of_ended_tracks_are_reused() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let mids = world.push(ada, &[("cam", TrackKind::Video, &[])]);
    world.push(bob, &[("mic", TrackKind::Audio, &[])]);
    world.connect();
    for round in 0..20 {
        let cam = world.pull_one(bob, ada, "cam");
        world.film(ada, mids[0], &[(None, 2)], 20);
        assert!(world.got(bob, cam).len() > 10, "round {round}");
        world.close(bob, &[cam]);
        let report = world.report();
        let bob = report.sessions.iter().find(|session| session.owner == "owner-1").unwrap();
        assert_eq!((bob.sections, bob.subscribes), (2, 0), "round {round}");
    }
}

#[test]
fn late_subscriber_gets_keyframe_at_once() {
    let mut world = World::new();
    let (ada, bob, eve) = (world.join(), world.join(), world.join());
    let cam = world.push(ada, &[("cam", TrackKind::Video, &[])])[0];
    let early = world.pull_one(bob, ada, "cam");
    world.push(eve, &[("mic", TrackKind::Audio, &[])]);
    world.connect();
    world.film(ada, cam, &[(None, 3)], 60);
    world.peers[ada].asked.clear();
    let late = world.pull_one(eve, ada, "cam");
    let since = world.now;
    world.film(ada, cam, &[(None, 3)], 20);
    let got = world.got(eve, late);
    assert!(got[0].is_keyframe());
    assert!(got[0].at - since < 100 * MS, "{:?}", got[0].at - since);
    assert_eq!(world.peers[ada].asked.len(), 1, "one request was enough");
    assert_complete(&got);
    assert_complete(&world.got(bob, early));
}

#[test]
fn hundred_subscribers_receive_the_same() {
    let mut world = World::new();
    let ada = world.join();
    let cam = world.push(ada, &[("cam", TrackKind::Video, &[])])[0];
    world.connect();
    world.show(ada, cam, None, 2);
    let others: Vec<(usize, _)> = (0..100)
        .map(|_| {
            let other = world.join();
            (other, world.pull_one(other, ada, "cam"))
        })
        .collect();
    world.connect();
    world.peers[ada].asked.clear();
    assert_eq!(world.engine.counters().forwarded_packets, 0, "nothing is kept for who is not there yet");
    world.film(ada, cam, &[(None, 3)], 12);
    world.pass(50 * MS);
    // All wait for the same keyframe, which is the second frame at the latest.
    assert!(world.peers[ada].asked.len() <= 1, "{:?}", world.peers[ada].asked.len());
    let [first, rest @ ..] = &*others else { panic!("nobody") };
    let payloads = |(other, mid)| -> Vec<_> {
        let got = world.got(other, mid);
        assert_complete(&got);
        got.into_iter().map(|got| (got.time, got.payload)).collect()
    };
    let expected = payloads(*first);
    assert!(expected.len() >= 30, "{}", expected.len());
    assert!(rest.iter().all(|other| payloads(*other) == expected));
    assert_eq!(world.engine.counters().forwarded_packets, 100 * expected.len() as u64);
}
