//! Malformed, forged and excessive connectivity checks.

use std::net::SocketAddr;

use super::hostile::{Scene, UNKNOWN_SOURCE};
use super::*;
use crate::counters::DropReason;

#[test]
fn check_with_wrong_password_or_name_is_not_answered() {
    let mut scene = Scene::new();
    let datagrams = scene.datagrams();
    let checks: Vec<&Vec<u8>> =
        datagrams.iter().map(|(_, bytes)| bytes).filter(|bytes| bytes[..2] == [0, 1]).collect();
    assert!(!checks.is_empty());
    let before = scene.world.engine.counters().drops_by(DropReason::UnknownSource);
    for check in &checks {
        // Changes the USERNAME, the first attribute's value, or the bytes that the password signs.
        let name = check.windows(2).position(|bytes| bytes == [0, 6]).unwrap() + 4;
        for at in [name, check.len() - 20] {
            let mut forged = check.to_vec();
            forged[at] ^= 1;
            scene.world.deliver(UNKNOWN_SOURCE.parse().unwrap(), &forged);
        }
    }
    let dropped = scene.world.engine.counters().drops_by(DropReason::UnknownSource) - before;
    let too_many = scene.world.engine.counters().drops_by(DropReason::UnknownTooMany);
    assert_eq!(dropped + too_many, 2 * checks.len() as u64);
    scene.goes_on();
    scene.answers_no_unknown_source();
}

#[test]
fn checks_from_unknown_network_are_limited() {
    let mut scene = Scene::new();
    let stun = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
    for _ in 0..500 {
        scene.world.deliver(UNKNOWN_SOURCE.parse().unwrap(), &stun);
    }
    assert!(scene.world.engine.counters().drops_by(DropReason::UnknownTooMany) >= 300);
    scene.goes_on();
    scene.answers_no_unknown_source();
}

#[test]
fn guessed_checks_from_known_source_are_limited() {
    let mut scene = Scene::new();
    let source = scene.world.peers[0].address;
    let datagrams = scene.datagrams();
    let of_bob = datagrams.iter().find(|(peer, bytes)| *peer == 1 && bytes[0] == 0 && bytes[1] == 1);
    let mut guess = of_bob.unwrap().1.clone();
    // Invalid integrity, as in a check with a guessed password.
    let end = guess.len() - 12;
    guess[end] ^= 1;
    for _ in 0..1000 {
        scene.world.deliver(source, &guess);
    }
    let dropped = |drop| scene.world.engine.counters().drops_by(drop);
    assert!(dropped(DropReason::UnknownTooMany) >= 700, "{:?}", scene.world.engine.counters());
    scene.goes_on();
}

/// Source addresses are easily forged, and a whole office shares one.
#[test]
fn checks_that_name_session_pass_flooded_address() {
    let mut scene = Scene::new();
    let check = scene.datagrams().into_iter().find(|(peer, bytes)| *peer == 0 && bytes[..2] == [0, 1]);
    let noise = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
    let unknown: SocketAddr = UNKNOWN_SOURCE.parse().unwrap();
    for _ in 0..1000 {
        scene.world.deliver(unknown, &noise);
    }
    let other = SocketAddr::new(unknown.ip(), 6000);
    scene.world.by_address.insert(other, 0);
    scene.world.deliver(other, &check.unwrap().1);
    assert!(scene.world.engine.by_source.keys().any(|(_, source)| *source == other));
}

/// Regression: a client that forged another's address in a valid check of its own received all of that client's
/// media.
#[test]
fn address_in_use_belongs_to_its_session() {
    let mut scene = Scene::new();
    let check = scene.datagrams().into_iter().find(|(peer, bytes)| *peer == 1 && bytes[..2] == [0, 1]);
    let (source, check) = (scene.world.peers[0].address, check.unwrap().1);
    let owner = |scene: &Scene| {
        let known = scene.world.engine.by_source.iter().find(|((_, known), _)| *known == source);
        scene.world.engine.sessions[*known.unwrap().1].id.clone()
    };
    scene.world.deliver(source, &check);
    assert_eq!(owner(&scene), scene.world.session(0));
    scene.goes_on();
    // Once the first client has timed out, the address belongs to the session that uses it now.
    scene.world.peers[0].gone = true;
    scene.world.pass(6 * SECOND);
    scene.world.deliver(source, &check);
    assert_eq!(owner(&scene), scene.world.session(1));
}

#[test]
fn path_of_media_outlives_checks_from_other_addresses() {
    let mut scene = Scene::new();
    let address = scene.world.peers[0].address;
    let check = scene.datagrams().into_iter().find(|(peer, bytes)| *peer == 0 && bytes[..2] == [0, 1]);
    let check = check.unwrap().1;
    for port in 0..12 {
        let other = SocketAddr::new(address.ip(), 6000 + port);
        scene.world.by_address.insert(other, 0);
        scene.world.deliver(other, &check);
    }
    let known: Vec<SocketAddr> = scene.world.engine.by_source.keys().map(|(_, source)| *source).collect();
    assert!(known.len() > 2 && known.len() < 12, "{known:?}");
    assert!(known.contains(&address), "{known:?}");
    scene.goes_on();
}
