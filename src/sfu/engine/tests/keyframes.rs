//! Keyframe requests.

use super::world::World;
use super::*;
use crate::counters::DropReason;
use crate::request::*;

#[test]
fn keyframe_is_requested_until_it_arrives() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let cam = world.push(ada, &[("cam", TrackKind::Video, &[])])[0];
    world.push(bob, &[("mic", TrackKind::Audio, &[])]);
    world.connect();
    world.film(ada, cam, &[(None, 2)], 10);
    world.peers[ada].obliging = false;
    assert!(world.peers[ada].asked.is_empty(), "nobody wants it");
    let pulled = world.pull_one(bob, ada, "cam");
    world.film(ada, cam, &[(None, 2)], 90);
    let asked: Vec<_> = world.peers[ada].asked.iter().map(|(.., at)| *at).collect();
    assert!((8..=11).contains(&asked.len()), "{}", asked.len());
    assert!(asked.windows(2).all(|two| two[1] - two[0] >= 290 * MS));
    assert!(world.got(bob, pulled).is_empty(), "a decoder cannot start in the middle");
    assert!(world.engine.counters().drops_by(DropReason::NoKeyframe) > 100);

    // The video stops, too: no packet triggers another request, only the periodic work.
    world.peers[ada].asked.clear();
    world.pass(3 * SECOND);
    assert!(world.peers[ada].asked.len() >= 5, "{}", world.peers[ada].asked.len());

    world.peers[ada].obliging = true;
    world.film(ada, cam, &[(None, 2)], 30);
    assert!(world.got(bob, pulled)[0].is_keyframe());
    world.peers[ada].asked.clear();
    world.film(ada, cam, &[(None, 2)], 60);
    assert!(world.peers[ada].asked.is_empty(), "it came");
    assert_complete(&world.got(bob, pulled));
}

#[test]
fn repeated_keyframe_requests_are_throttled() {
    let mut world = World::new();
    let (ada, bob, eve) = (world.join(), world.join(), world.join());
    let cam = world.push(ada, &[("cam", TrackKind::Video, &[])])[0];
    let complaining = world.pull_one(bob, ada, "cam");
    let content = world.pull_one(eve, ada, "cam");
    world.connect();
    world.film(ada, cam, &[(None, 2)], 30);
    world.peers[ada].asked.clear();
    let before = world.engine.counters().keyframe_requests_received;
    for _ in 0..150 {
        world.complain(bob, complaining);
        world.film(ada, cam, &[(None, 2)], 1);
    }
    let received = world.engine.counters().keyframe_requests_received - before;
    let passed = world.peers[ada].asked.len();
    assert!(received >= 50, "{received}");
    assert!((3..=6).contains(&passed), "{passed} in five seconds");
    assert_complete(&world.got(eve, content));
    let keyframes = world.got(eve, content).iter().filter(|got| got.is_keyframe()).count();
    assert!(keyframes <= 8, "{keyframes}");
}

#[test]
fn unconnected_subscriber_gets_and_requests_nothing() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let cam = world.push(ada, &[("cam", TrackKind::Video, &[])])[0];
    world.connect_one(ada);
    let pulled = world.pull_one(bob, ada, "cam");
    world.peers[bob].gone = true;
    world.film(ada, cam, &[(None, 2)], 150);
    assert!(world.peers[ada].asked.is_empty(), "{}", world.peers[ada].asked.len());
    assert_eq!(world.engine.counters().forwarded_packets, 0);

    world.peers[bob].gone = false;
    world.connect();
    let since = world.now;
    world.film(ada, cam, &[(None, 2)], 10);
    let got = world.got(bob, pulled);
    assert!(got[0].is_keyframe() && got[0].at + 100 * MS >= since, "the first is a new one");
    assert!(got.len() <= 24, "no burst of what is over: {}", got.len());
}

#[test]
fn returning_subscriber_gets_keyframe() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let cam = world.push(ada, &[("cam", TrackKind::Video, &[])])[0];
    let pulled = world.pull_one(bob, ada, "cam");
    world.connect();
    world.film(ada, cam, &[(None, 2)], 30);
    let state = |world: &mut World| world.report().sessions.iter().map(|s| s.state).collect::<Vec<_>>();
    world.peers[bob].gone = true;
    for _ in 0..60 {
        world.film(ada, cam, &[(None, 2)], 30);
        if state(&mut world).contains(&"lost") {
            break;
        }
    }
    assert!(state(&mut world).contains(&"lost"));
    world.peers[ada].asked.clear();
    world.peers[bob].gone = false;
    let before = world.got(bob, pulled).len();
    world.until("it is back", |world| world.engine.counters().connected == 2);
    world.film(ada, cam, &[(None, 2)], 30);
    assert!(!world.peers[ada].asked.is_empty(), "nobody complained");
    assert!(world.got(bob, pulled)[before..].iter().any(super::client::Got::is_keyframe));
}
