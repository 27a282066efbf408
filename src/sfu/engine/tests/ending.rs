//! Ended tracks and sessions.

use str0m::net::Protocol;

use super::world::{World, limits};
use super::*;
use crate::counters::DropReason;
use crate::engine::{Datagram, Engine, EngineSettings, IceSecret};
use crate::error::SfuError;
use crate::request::*;
use crate::settings::SfuLimits;

/// Sizes of the engine's collections, to find leaks.
fn kept(world: &World) -> [usize; 12] {
    let engine = &world.engine;
    [
        engine.sessions.len(),
        engine.tracks.len(),
        engine.by_id.len(),
        engine.by_ufrag.len(),
        engine.by_source.len(),
        engine.by_name.len(),
        engine.timers.len(),
        engine.said.events.len(),
        engine.said.packets.len(),
        engine.ended.len(),
        engine.unsent.len(),
        engine.said.transmits.len(),
    ]
}

#[test]
fn vanished_publisher_session_times_out() {
    let mut world = World::new();
    let (ada, bob, eve) = (world.join(), world.join(), world.join());
    let own = world.push(ada, &[("mic", TrackKind::Audio, &[]), ("cam", TrackKind::Video, &["a", "b"])]);
    world.pull(bob, &[(ada, "mic", wish("")), (ada, "cam", wish(""))]);
    world.push(eve, &[("mic", TrackKind::Audio, &[])]);
    world.connect();
    world.film(ada, own[1], &[(Some("a"), 2), (Some("b"), 1)], 30);
    world.talk(ada, own[0], 30);
    let statuses = |world: &mut World| world.states(bob).iter().map(|t| t.status).collect::<Vec<_>>();
    assert_eq!(statuses(&mut world), [TrackStatus::Active; 2]);

    world.peers[ada].gone = true;
    world.pass(10 * SECOND);
    assert_eq!(statuses(&mut world), [TrackStatus::Active; 2], "it may come back");
    let session = world.session(ada);
    let is_there = |world: &mut World| world.ask(Request::Tracks { session: session.clone() }).is_ok();
    world.pass(21 * SECOND);
    assert_eq!(statuses(&mut world), [TrackStatus::Inactive; 2]);
    assert_eq!(world.pull(eve, &[(ada, "mic", wish(""))]), [Err(SfuError::NoTrack)]);
    assert!(is_there(&mut world), "a connection that is lost may be found again");
    world.pass(45 * SECOND);
    assert!(!is_there(&mut world));
    assert_eq!(statuses(&mut world), [TrackStatus::Inactive; 2]);
    assert_eq!(world.pull(eve, &[(ada, "cam", wish(""))]), [Err(SfuError::NoTrack)]);
    assert_eq!(kept(&world)[..6], [2, 1, 2, 2, 2, 1]);
    let mids: Vec<_> = world.states(bob).iter().map(|t| str0m::media::Mid::from(&*t.mid)).collect();
    world.close(bob, &mids);
    assert_eq!(world.engine.counters().subscriptions, 0);
}

#[test]
fn ended_session_notifies_its_peer() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let own = world.push(ada, &[("mic", TrackKind::Audio, &[])]);
    world.pull(bob, &[(ada, "mic", wish(""))]);
    world.connect();
    world.talk(ada, own[0], 5);
    assert!(matches!(world.ask(Request::EndAll), Ok(Reply::Ended(2))));
    world.pass(10 * MS);
    assert!(world.peers[ada].told && world.peers[bob].told);
    assert_eq!(kept(&world), [0; 12]);
    // A new session works as any other.
    let eve = world.join();
    world.push(eve, &[("mic", TrackKind::Audio, &[])]);
    world.connect_one(eve);
    assert!(!world.peers[eve].told);
}

#[test]
fn check_for_session_before_restart_is_refused() {
    let mut world = World::new();
    world.recorded = Some(Vec::new());
    let ada = world.join();
    world.push(ada, &[("mic", TrackKind::Audio, &[])]);
    world.connect();
    let source = world.peers[ada].address;
    let sent = world.recorded.take().unwrap();
    let check = sent.into_iter().map(|(_, bytes)| bytes).find(|bytes| bytes[..2] == [0, 1]).unwrap();
    let answers = |engine: &mut Engine, proto, contents: &[u8]| {
        let destination = super::world::SERVER.parse().unwrap();
        engine.receive(world.now, Datagram { proto, source, destination, contents });
        std::iter::from_fn(|| engine.transmit()).collect::<Vec<_>>()
    };
    let engine = |secret: &[u8]| {
        let secret = IceSecret::new(secret);
        Engine::new(
            EngineSettings { limits: limits(), candidates: Vec::new(), secret, session_prefix: None },
            world.now,
        )
    };
    let mut next = engine(b"a secret");
    let told = answers(&mut next, Protocol::Udp, &check);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].destination, source);
    assert!(told[0].contents.len() <= check.len());
    let refusal = str0m::ice::StunMessage::parse(&told[0].contents).unwrap();
    assert_eq!((refusal.error_code(), &told[0].contents[8..20]), (Some((403, "")), &check[8..20]));

    // A check without a password of this server gets no response, and neither does one over TCP, which is closed
    // instead.
    let mut forged = check.clone();
    let end = forged.len() - 12;
    forged[end] ^= 1;
    assert_eq!(answers(&mut next, Protocol::Udp, &forged), []);
    assert_eq!(answers(&mut next, Protocol::Tcp, &check), []);
    assert_eq!(answers(&mut engine(b"another"), Protocol::Udp, &check), []);
    assert_eq!(next.counters().drops_by(DropReason::UnknownSource), 3);
}

#[test]
fn client_gone_during_ice_restart_times_out() {
    let mut world = World::new();
    let ada = world.join();
    world.push(ada, &[("mic", TrackKind::Audio, &[])]);
    world.connect();
    let mut api = world.peers[ada].rtc.sdp_api();
    api.ice_restart(false);
    let (offer, _) = api.apply().unwrap();
    // The offer has no address at which the engine could find that the client is gone.
    let offer = super::client::read(DescriptionType::Offer, &offer.to_sdp_string());
    let session = world.session(ada);
    world.ask(Request::Publish { session, tracks: Vec::new(), offer: Some(offer) }).unwrap();
    world.peers[ada].gone = true;
    world.pass(70 * SECOND);
    assert_eq!(kept(&world), [0; 12]);
}

#[test]
fn closed_tracks_end_though_only_one_was_stopped() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let tracks =
        [("mic", TrackKind::Audio, &[][..]), ("cam", TrackKind::Video, &[]), ("two", TrackKind::Audio, &[])];
    let own = world.push(ada, &tracks);
    let tracks = tracks.map(|(name, ..)| (ada, name, wish("")));
    let pulled: Vec<_> = world.pull(bob, &tracks).into_iter().map(Result::unwrap).collect();
    world.connect();
    world.talk(ada, own[0], 5);
    world.talk(ada, own[2], 5);
    world.film(ada, own[1], &[(None, 2)], 5);
    world.pass(50 * MS);
    let before: Vec<usize> = pulled.iter().map(|mid| world.got(bob, *mid).len()).collect();
    assert!(before.iter().all(|count| *count >= 5), "{before:?}");
    let unknown = str0m::media::Mid::from("zzz");
    let closed = world.close_having_stopped(bob, &[pulled[0], unknown, pulled[1]], &[pulled[0]]);
    assert!(closed[0].is_ok() && closed[2].is_ok());
    assert_eq!(closed[1], Err(SfuError::NothingToClose));
    world.talk(ada, own[0], 5);
    world.talk(ada, own[2], 5);
    world.film(ada, own[1], &[(None, 2)], 5);
    world.pass(50 * MS);
    let after: Vec<usize> = pulled.iter().map(|mid| world.got(bob, *mid).len()).collect();
    assert_eq!(after, [before[0], before[1], before[2] + 5]);
    assert_eq!(world.states(bob).len(), 1);

    let again = world.pull_one(bob, ada, "cam");
    world.film(ada, own[1], &[(None, 2)], 10);
    assert!(world.got(bob, again).len() > 10);
}

#[test]
fn force_closed_track_ends_without_offer() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let own = world.push(ada, &[("mic", TrackKind::Audio, &[]), ("two", TrackKind::Audio, &[])]);
    let pulled = world.pull(bob, &[(ada, "mic", wish("")), (ada, "two", wish(""))]);
    let pulled: Vec<_> = pulled.into_iter().map(Result::unwrap).collect();
    world.connect();
    let force = |world: &mut World, peer, mids: &[str0m::media::Mid]| {
        let tracks = mids.iter().map(|mid| Transceiver::Mid(mid.to_string())).collect();
        let session = world.session(peer);
        match world.ask(Request::Close { session, tracks, offer: None }).unwrap() {
            Reply::Tracks { description: None, tracks } => {
                tracks.iter().map(Result::is_ok).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(force(&mut world, bob, &pulled[..1]), [true]);
    assert_eq!(force(&mut world, bob, &pulled), [false, true]);
    assert_eq!(world.engine.counters().subscriptions, 0);
    assert_eq!(force(&mut world, ada, &own[..1]), [true]);
    assert_eq!(world.pull(bob, &[(ada, "mic", wish(""))]), [Err(SfuError::NoTrack)]);
    world.talk(ada, own[0], 5);
    let two = world.pull_one(bob, ada, "two");
    world.talk(ada, own[1], 5);
    world.pass(50 * MS);
    assert_eq!(world.got(bob, two).len(), 5, "the others go on");
}

#[test]
fn force_closed_track_is_published_under_new_name() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let own = world.push(ada, &[("mic", TrackKind::Audio, &[])])[0];
    let pulled = world.pull_one(bob, ada, "mic");
    world.connect();
    world.talk(ada, own, 5);
    world.pass(50 * MS);
    assert_eq!(world.got(bob, pulled).len(), 5);
    let session = world.session(ada);
    let close = Request::Close {
        session: session.clone(),
        tracks: vec![Transceiver::Mid(own.to_string())],
        offer: None,
    };
    assert!(world.ask(close).is_ok());

    // The m-line and its SSRC stay the same.
    let mut api = world.peers[ada].rtc.sdp_api();
    api.add_media(str0m::media::MediaKind::Video, str0m::media::Direction::SendOnly, None, None, None);
    let (offer, pending) = api.apply().unwrap();
    let offer = Some(super::client::read(DescriptionType::Offer, &offer.to_sdp_string()));
    let tracks = vec![Publish {
        name: "again".into(),
        mid: Some(own.to_string()),
        kind: None,
        way: MediaDirection::In,
    }];
    match world.ask(Request::Publish { session, tracks, offer }).unwrap() {
        Reply::Tracks { description: Some(told), tracks } if tracks[0].is_ok() => {
            world.take_answer(ada, pending, &told);
        }
        other => panic!("{other:?}"),
    }
    let again = world.pull_one(bob, ada, "again");
    world.talk(ada, own, 5);
    world.pass(50 * MS);
    assert_eq!(world.got(bob, again).len(), 5);
}

#[test]
fn client_that_closed_all_tracks_publishes_again() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    for round in 0..3 {
        let own = world.push(ada, &[("mic", TrackKind::Audio, &[]), ("cam", TrackKind::Video, &[])]);
        let pulled = world.pull_one(bob, ada, "cam");
        world.connect();
        world.film(ada, own[1], &[(None, 2)], 10);
        world.pass(50 * MS);
        assert!(world.got(bob, pulled).len() >= 16, "round {round}");
        world.close(ada, &own);
        assert_eq!(world.states(ada), [], "round {round}");
        assert_eq!(world.states(bob)[0].status, TrackStatus::Inactive);
        world.close(bob, &[pulled]);
        assert_eq!(world.states(bob), []);
    }
    assert_eq!(world.report().sessions.len(), 2);
}

#[test]
fn ended_sessions_leave_no_state() {
    let mut world = World::with(SfuLimits { connect: 4 * SECOND, ..limits() });
    let ada = world.join();
    let own = world.push(ada, &[("mic", TrackKind::Audio, &[])])[0];
    world.connect();
    for round in 0..300 {
        let guest = world.join();
        let pulled = world.pull_one(guest, ada, "mic");
        if round % 50 == 0 {
            world.connect();
            world.push(guest, &[("cam", TrackKind::Video, &["a", "b"])]);
            world.talk(ada, own, 3);
            world.pass(10 * MS);
            assert_eq!(world.got(guest, pulled).len(), 3, "round {round}");
            if round % 100 == 0 {
                world.close(guest, &[pulled]);
            }
        }
        // The guest vanishes before the next one joins.
        world.peers[guest].gone = true;
        world.pass(40 * MS);
    }
    world.pass(60 * SECOND);
    assert_eq!(kept(&world)[..7], [1, 1, 1, 1, 1, 1, 1]);
    world.peers[ada].gone = true;
    world.pass(80 * SECOND);
    assert_eq!(kept(&world), [0; 12]);
    let counters = world.engine.counters();
    assert_eq!([counters.sessions, counters.connected, counters.tracks, counters.subscriptions], [0; 4]);
}
