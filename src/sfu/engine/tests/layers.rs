//! Simulcast: layer selection per subscriber.

use str0m::media::Mid;

use super::world::World;
use super::*;
use crate::request::*;

/// About 240 kbit/s, and about 970.
const BOTH: [(Option<&str>, usize); 2] = [(Some("a"), 4), (Some("b"), 1)];
const LOW: [(Option<&str>, usize); 1] = [(Some("b"), 1)];

/// A publisher of a video with two layers, and a subscriber with this wish, both connected.
fn two(wish: LayerWish) -> (World, [usize; 2], [Mid; 2]) {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let cam = world.push(ada, &[("cam", TrackKind::Video, &["a", "b"])])[0];
    let pulled = world.pull(bob, &[(ada, "cam", wish)]).remove(0).unwrap();
    world.connect();
    (world, [ada, bob], [cam, pulled])
}

/// Checks that each change of layer is at a keyframe, and that timestamps advance as at the publisher; returns the
/// sequence of layers without repetitions.
#[track_caller]
fn layers_of(got: &[Got]) -> Vec<u8> {
    assert_complete(got);
    let mut layers = vec![got[0].layer()];
    for two in got.windows(2) {
        let elapsed = (two[1].at - two[0].at).as_millis() as i64;
        let told = i64::from(two[1].time.wrapping_sub(two[0].time) as i32) / 90;
        assert!((elapsed - told).abs() <= 40, "{elapsed} ms passed, {told} ms are told");
        if two[0].layer() != two[1].layer() {
            assert!(two[1].is_keyframe(), "a change without a keyframe");
            layers.push(two[1].layer());
        }
    }
    layers
}

#[test]
fn preferred_layer_is_sent_until_preference_changes() {
    let (mut world, [ada, bob], [cam, pulled]) = two(wish("b"));
    world.film(ada, cam, &BOTH, 30);
    assert_eq!(layers_of(&world.got(bob, pulled)), *b"b");
    for (preferred, expected) in [("a", &b"ba"[..]), ("b", b"bab"), ("a", b"baba")] {
        let at = Transceiver::Mid(pulled.to_string());
        world.update(bob, at, None, wish(preferred)).unwrap();
        let since = world.now;
        // A better layer has to fit the estimate, which has to grow first.
        for _ in 0..15 {
            world.film(ada, cam, &BOTH, 10);
            if layers_of(&world.got(bob, pulled)) == expected {
                break;
            }
        }
        let got = world.got(bob, pulled);
        assert_eq!(layers_of(&got), expected);
        let switched = got.iter().find(|got| got.at > since && got.layer() == preferred.as_bytes()[0]);
        let after = switched.unwrap().at - since;
        let most = if preferred == "b" { 150 * MS } else { 4 * SECOND };
        assert!(after < most, "{after:?}");
    }
    let rid = &world.report().tracks[0].subscribers[0].rid;
    assert_eq!(rid.as_deref(), Some("a"));
}

#[test]
fn stopped_layer_is_replaced_until_it_returns() {
    let (mut world, [ada, bob], [cam, pulled]) = two(wish("a"));
    world.film(ada, cam, &BOTH, 60);
    assert_eq!(layers_of(&world.got(bob, pulled)), *b"a");
    let died = world.now;
    world.film(ada, cam, &LOW, 60);
    let got = world.got(bob, pulled);
    assert_eq!(layers_of(&got), *b"ab");
    let replaced = got.iter().find(|got| got.layer() == b'b').unwrap().at - died;
    assert!(replaced < 1200 * MS, "{replaced:?}");
    world.film(ada, cam, &BOTH, 60);
    assert_eq!(layers_of(&world.got(bob, pulled)), *b"aba");
}

#[test]
fn weak_link_gets_lower_layer_strong_link_unaffected() {
    let (mut world, [ada, bob], [cam, strong]) = two(wish(""));
    let eve = world.join();
    let weak = world.pull_one(eve, ada, "cam");
    world.connect();
    world.peers[eve].capacity = Some(500_000);
    world.film(ada, cam, &BOTH, 300);
    assert_eq!(layers_of(&world.got(bob, strong)), *b"a");
    let end = world.now;
    let lately: Vec<u8> =
        world.got(eve, weak).iter().filter(|got| got.at + 2 * SECOND > end).map(Got::layer).collect();
    assert!(lately.len() >= 50, "the picture moves: {}", lately.len());
    assert!(lately.iter().all(|layer| *layer == b'b'), "{lately:?}");
    let estimate = |owner: &str, world: &mut World| {
        let report = world.report();
        report.sessions.iter().find(|session| session.owner == owner).unwrap().estimate_bits.unwrap()
    };
    assert!(estimate("owner-2", &mut world) < 900_000);
    assert!(estimate("owner-1", &mut world) > 900_000);
    assert_eq!(world.got(bob, strong).len(), world.peers[bob].got[&strong].len(), "each came once");
}
