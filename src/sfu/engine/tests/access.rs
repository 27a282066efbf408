//! Barred subscriptions: who may receive a track, as the embedding server says.

use super::world::World;
use super::*;
use crate::access::{MediaRights, Place, SessionAccess};
use crate::request::*;
use str0m::media::Mid;

/// The access of an owner in one room.
fn in_room(room: u64, rights: MediaRights) -> SessionAccess {
    SessionAccess { places: vec![Place { room, rights }], screens: Vec::new() }
}

impl World {
    fn set_access(&mut self, peer: usize, access: SessionAccess) {
        let session = self.session(peer);
        self.ask(Request::SetAccess(vec![(session, access)])).unwrap();
    }

    /// Both tracks of a publisher flow for a second.
    fn flow(&mut self, from: usize, [mic, cam]: [Mid; 2]) {
        for _ in 0..50 {
            self.speak(from, mic);
            self.show(from, cam, None, 2);
            self.pass(20 * MS);
        }
        self.pass(100 * MS);
    }
}

#[test]
fn removed_member_receives_nothing_until_it_is_back() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let own = world.push(ada, &[("mic", TrackKind::Audio, &[]), ("cam", TrackKind::Video, &[])]);
    let own = [own[0], own[1]];
    let pulled = [world.pull_one(bob, ada, "mic"), world.pull_one(bob, ada, "cam")];
    for peer in [ada, bob] {
        world.set_access(peer, in_room(1, MediaRights::ALL));
    }
    world.connect();
    world.flow(ada, own);
    let got = |world: &World| pulled.map(|mid| world.got(bob, mid).len());
    let before = got(&world);
    assert_eq!(before, [50, 100]);

    world.set_access(bob, SessionAccess::default());
    world.flow(ada, own);
    assert_eq!(got(&world), before, "nothing is forwarded");
    let states = world.states(bob);
    assert!(states.iter().all(|track| track.status == TrackStatus::Inactive), "{states:?}");

    world.set_access(bob, in_room(1, MediaRights::ALL));
    world.flow(ada, own);
    let after = got(&world);
    assert_eq!(after[0], before[0] + 50);
    assert!(after[1] > before[1] + 80, "{after:?}");
    let back = &world.got(bob, pulled[1])[before[1]];
    assert!(back.is_keyframe(), "a decoder cannot start in the middle");
    for mid in pulled {
        assert_complete(&world.got(bob, mid));
    }
}

#[test]
fn stopped_kind_is_forwarded_to_nobody() {
    let mut world = World::new();
    let (ada, bob, eve) = (world.join(), world.join(), world.join());
    let own = world.push(ada, &[("mic", TrackKind::Audio, &[]), ("cam", TrackKind::Video, &[])]);
    let own = [own[0], own[1]];
    for peer in [ada, bob, eve] {
        world.set_access(peer, in_room(1, MediaRights::ALL));
    }
    let (mic, cam) = (world.pull_one(bob, ada, "mic"), world.pull_one(eve, ada, "cam"));
    world.connect();
    world.flow(ada, own);
    world.set_access(ada, in_room(1, MediaRights { audio: false, ..MediaRights::ALL }));
    let (heard, seen) = (world.got(bob, mic).len(), world.got(eve, cam).len());
    world.flow(ada, own);
    assert_eq!(world.got(bob, mic).len(), heard);
    assert_eq!(world.got(eve, cam).len(), seen + 100, "the other kind goes on");

    // A subscription that begins now gets nothing either.
    let late = world.pull_one(eve, ada, "mic");
    world.flow(ada, own);
    assert_eq!(world.got(eve, late).len(), 0);
    world.set_access(ada, in_room(1, MediaRights::ALL));
    world.flow(ada, own);
    assert_eq!((world.got(eve, late).len(), world.got(bob, mic).len()), (50, heard + 50));
}

#[test]
fn track_of_another_room_is_not_forwarded_after_an_update() {
    let mut world = World::new();
    let (ada, eve, bob) = (world.join(), world.join(), world.join());
    let own = world.push(ada, &[("cam", TrackKind::Video, &[])])[0];
    let other = world.push(eve, &[("cam", TrackKind::Video, &[])])[0];
    for (peer, room) in [(ada, 1), (bob, 1), (eve, 2)] {
        world.set_access(peer, in_room(room, MediaRights::ALL));
    }
    let pulled = world.pull_one(bob, ada, "cam");
    world.connect();
    world.film(ada, own, &[(None, 2)], 30);
    let before = world.got(bob, pulled).len();
    assert!(before > 0);
    let swapped = world.update(bob, Transceiver::Mid(pulled.to_string()), Some((eve, "cam")), wish(""));
    assert!(swapped.is_ok(), "{swapped:?}");
    world.film(eve, other, &[(None, 2)], 30);
    assert_eq!(world.got(bob, pulled).len(), before);
    world.set_access(eve, in_room(1, MediaRights::ALL));
    world.film(eve, other, &[(None, 2)], 30);
    assert!(world.got(bob, pulled).len() > before);
}

#[test]
fn owner_receives_its_own_track_in_no_room() {
    let mut world = World::new();
    let ada = world.join_as(client::person("ada"), Ice::Lite, Ice::Full).unwrap();
    let too = world.join_as(client::person("ada"), Ice::Lite, Ice::Full).unwrap();
    let mic = world.push(ada, &[("mic", TrackKind::Audio, &[])])[0];
    for peer in [ada, too] {
        world.set_access(peer, SessionAccess::default());
    }
    let pulled = world.pull_one(too, ada, "mic");
    world.connect();
    world.talk(ada, mic, 20);
    assert!(!world.got(too, pulled).is_empty());
}
