//! Overlapping, unanswered and refused offers.

use str0m::media::Mid;

use super::client::read;
use super::world::World;
use super::*;
use crate::description::Description;
use crate::error::SfuError;
use crate::request::*;

pub(super) fn two() -> (World, usize, usize, Mid) {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let cam = world.push(ada, &[("cam", TrackKind::Video, &[]), ("mic", TrackKind::Audio, &[])])[0];
    world.push(bob, &[("mic", TrackKind::Audio, &[])]);
    world.connect();
    (world, ada, bob, cam)
}

#[test]
fn twcc_is_negotiated_only_for_simulcast_subscribers() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let tracks: [(&str, TrackKind, &[&str]); 6] = [
        ("mic 1", TrackKind::Audio, &[]),
        ("mic 2", TrackKind::Audio, &[]),
        ("mic 3", TrackKind::Audio, &[]),
        ("cam", TrackKind::Video, &[]),
        ("other", TrackKind::Video, &[]),
        ("layers", TrackKind::Video, &["a", "b"]),
    ];
    world.push(ada, &tracks);
    let pull = |world: &mut World, name| {
        let (done, description) = world.ask_to_pull(bob, &[(ada, name, wish(""))]);
        let description = description.unwrap();
        world.answer(bob, &description).unwrap();
        (done[0].clone().unwrap(), description.sdp.contains("transport-wide-cc"))
    };
    let (cam, is_asked) = pull(&mut world, "cam");
    assert!(!is_asked);
    let mut swap = |name, next| {
        world.update(bob, Transceiver::Mid(cam.to_string()), Some((ada, name)), wish("")).unwrap();
        pull(&mut world, next).1
    };
    assert!(!swap("other", "mic 1"), "it has one layer, too");
    assert!(swap("layers", "mic 2"));
    assert!(swap("cam", "mic 3"), "what was asked once stays");
}

/// A subscribe request whose offer is not answered yet.
fn pull(world: &World, peer: usize, publisher: usize, name: &str) -> Request {
    let publisher = world.session(publisher);
    let track = Subscribe { publisher, name: name.to_owned(), layer: LayerWish::default() };
    Request::Subscribe { session: world.session(peer), tracks: vec![track] }
}

#[test]
fn overlapping_subscribe_request_is_refused() {
    let (mut world, ada, bob, cam) = two();
    let (done, description) = world.ask_to_pull(bob, &[(ada, "cam", wish(""))]);
    let pulled = done[0].clone().unwrap();
    let second = pull(&world, bob, ada, "mic");
    assert_eq!(world.ask(second).err(), Some(SfuError::OfferPending));
    let session = world.session(bob);
    let track =
        Publish { name: "x".into(), mid: None, kind: Some(TrackKind::Audio), way: MediaDirection::In };
    let push = Request::Publish { session, tracks: vec![track], offer: None };
    assert_eq!(world.ask(push).err(), Some(SfuError::OfferPending));
    world.answer(bob, &description.unwrap()).unwrap();
    world.film(ada, cam, &[(None, 2)], 10);
    assert!(world.got(bob, pulled).len() > 10, "the first stands");
    world.pull_one(bob, ada, "mic");
}

#[test]
fn unanswered_offer_is_superseded() {
    let (mut world, ada, bob, cam) = two();
    for _ in 0..3 {
        let (done, description) = world.ask_to_pull(bob, &[(ada, "cam", wish("")), (ada, "mic", wish(""))]);
        assert!(done.iter().all(Result::is_ok) && description.is_some());
        assert_eq!(world.engine.counters().subscriptions, 2, "not more with each");
        world.pass(5 * SECOND);
    }
    let pulled = world.pull_one(bob, ada, "cam");
    assert_eq!(world.engine.counters().subscriptions, 1);
    world.film(ada, cam, &[(None, 2)], 10);
    assert!(world.got(bob, pulled).len() > 10);

    // A client that closes the offered tracks need not wait.
    let mic = world.ask_to_pull(bob, &[(ada, "mic", wish(""))]).0.remove(0).unwrap();
    let tracks = vec![Transceiver::Mid(mic.to_string())];
    world.ask(Request::Close { session: world.session(bob), tracks, offer: None }).unwrap();
    let (offered, _) = world.ask_to_push(bob, &[("extra", Some(TrackKind::Audio), MediaDirection::In)]);
    assert!(offered[0].is_ok());
    // Neither does a client that makes an offer: that discards the server's.
    let camera = world.push(bob, &[("cam", TrackKind::Video, &[])])[0];
    assert_eq!(world.engine.counters().subscriptions, 1);
    let back = world.pull_one(ada, bob, "cam");
    assert_eq!(world.pull(ada, &[(bob, "extra", wish(""))]), [Err(SfuError::NoTrack)]);
    world.film(bob, camera, &[(None, 2)], 10);
    assert!(world.got(ada, back).len() > 10);
}

#[test]
fn answer_without_offer_is_refused() {
    let (mut world, ada, bob, _) = two();
    let (_, description) = world.ask_to_pull(bob, &[(ada, "cam", wish(""))]);
    let text = world.think(bob, &description.unwrap());
    let session = world.session(bob);
    let answer = |world: &mut World| {
        let answer = read(DescriptionType::Answer, &text);
        world.ask(Request::Answer { session: session.clone(), answer })
    };
    assert!(answer(&mut world).is_ok());
    assert_eq!(answer(&mut world).err(), Some(SfuError::NoOffer));
    let offer = Some(read(DescriptionType::Answer, &text));
    let refused = world.ask(Request::Publish { session: session.clone(), tracks: Vec::new(), offer });
    assert!(matches!(refused, Err(SfuError::Description(_))));
    assert_eq!(world.states(bob).len(), 2, "nothing ended by that");
}

/// Returns a description in which an m-line is stopped.
pub(super) fn stopped(text: &str, mid: Mid) -> String {
    let (session, sections) = text.split_once("m=").unwrap();
    let sections = sections.split("\r\nm=").map(|section| {
        let section = section.trim_end();
        if section.lines().any(|line| line == format!("a=mid:{mid}")) {
            let mut words: Vec<&str> = section.split(' ').collect();
            words[1] = "0";
            words.join(" ")
        } else {
            section.to_owned()
        }
    });
    let mut text: Vec<String> = session.lines().map(str::to_owned).collect();
    for line in text.iter_mut().filter(|line| line.starts_with("a=group:BUNDLE")) {
        *line = line.split(' ').filter(|word| *word != mid.to_string()).collect::<Vec<_>>().join(" ");
    }
    text.extend(sections.map(|section| format!("m={section}")));
    text.join("\r\n") + "\r\n"
}

#[test]
fn m_line_stopped_in_answer_is_reused() {
    let (mut world, ada, bob, cam) = two();
    let first = world.pull_one(bob, ada, "cam");
    let (done, description) = world.ask_to_pull(bob, &[(ada, "mic", wish(""))]);
    let second = *done[0].as_ref().unwrap();
    let text = stopped(&world.think(bob, &description.unwrap()), first);
    let session = world.session(bob);
    let answer = read(DescriptionType::Answer, &text);
    world.ask(Request::Answer { session: session.clone(), answer }).unwrap();
    let carried: Vec<String> = world.states(bob).into_iter().map(|track| track.mid).collect();
    assert!(carried.contains(&second.to_string()) && !carried.contains(&first.to_string()), "{carried:?}");

    // Otherwise every later offer that uses the m-line again would be refused.
    let subscribe =
        Subscribe { publisher: world.session(ada), name: "cam".into(), layer: LayerWish::default() };
    let offered = world.ask(Request::Subscribe { session: session.clone(), tracks: vec![subscribe] });
    let Ok(Reply::Tracks { description: Some(description), tracks }) = offered else { panic!("{offered:?}") };
    let third = tracks[0].as_ref().unwrap().mid.clone();
    assert!(!description.sdp.contains(&format!("a=mid:{first}\r\n")), "{}", description.sdp);
    let place = |mid: &str| {
        description.sdp.split("m=").position(|section| section.contains(&format!("a=mid:{mid}\r\n")))
    };
    let before = text.split("m=").position(|section| section.contains(&format!("a=mid:{first}\r\n")));
    assert_eq!(place(&third), before, "in its place");
    world.film(ada, cam, &[(None, 1)], 3);
    assert_eq!(world.report().sessions.len(), 2);
}

#[test]
fn ice_restart_keeps_media_flowing() {
    let (mut world, ada, bob, cam) = two();
    let pulled = world.pull_one(bob, ada, "cam");
    world.film(ada, cam, &[(None, 2)], 10);
    for peer in [ada, bob] {
        let names: Vec<String> = world.engine.by_ufrag.keys().cloned().collect();
        let mut api = world.peers[peer].rtc.sdp_api();
        api.ice_restart(true);
        let (offer, pending) = api.apply().unwrap();
        let request = Request::Publish {
            session: world.session(peer),
            tracks: Vec::new(),
            offer: Some(read(DescriptionType::Offer, &offer.to_sdp_string())),
        };
        let Ok(Reply::Tracks { description: Some(description), .. }) = world.ask(request) else {
            panic!("refused")
        };
        world.take_answer(peer, pending, &description);
        assert_eq!(world.engine.by_ufrag.len(), 2);
        assert!(world.engine.by_ufrag.keys().any(|name| !names.contains(name)), "it has a new name");
        world.pass(SECOND);
        let report = world.report();
        assert!(report.sessions.iter().all(|session| session.state == "connected"));
    }
    let before = world.got(bob, pulled).len();
    world.film(ada, cam, &[(None, 2)], 30);
    world.pass(50 * MS);
    assert_eq!(world.got(bob, pulled).len(), before + 60);
    assert_complete(&world.got(bob, pulled));
    world.pass(60 * SECOND);
    assert_eq!(world.report().sessions.len(), 2, "nobody takes it for lost");
}

#[test]
fn repeated_track_name_is_refused() {
    let (mut world, ada, bob, _) = two();
    let done = world.try_to_push(ada, &[("cam", TrackKind::Video, &[]), ("new", TrackKind::Audio, &[])]);
    assert_eq!(done[0], Err(SfuError::RepeatedTrack));
    assert!(done[1].is_ok());
    let (done, description) = world.ask_to_push(
        ada,
        &[("cam", Some(TrackKind::Video), MediaDirection::In), ("x", None, MediaDirection::In)],
    );
    assert_eq!(done[0], Err(SfuError::RepeatedTrack));
    assert!(matches!(done[1], Err(SfuError::InvalidParams(_))));
    assert_eq!(description, None);
    world.push(bob, &[("cam", TrackKind::Video, &[])]);
}

#[test]
fn subscription_offers_only_codec_of_its_track() {
    let mut world = World::new();
    let (ada, bob, eve) = (world.join(), world.join(), world.join());
    let own = world.push(ada, &[("mic", TrackKind::Audio, &[]), ("cam", TrackKind::Video, &[])]);
    world.push(eve, &[("cam", TrackKind::Video, &[])]);
    world.connect_one(ada);
    world.film(ada, own[1], &[(None, 1)], 2);
    let (done, description) = world.ask_to_pull(bob, &[(ada, "mic", wish("")), (ada, "cam", wish(""))]);
    let description = description.unwrap();
    let lines: Vec<&str> = description.sdp.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(lines, ["m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=video 9 UDP/TLS/RTP/SAVPF 96 97"]);
    assert!(description.sdp.len() < 2_000, "{} bytes for two sections", description.sdp.len());
    world.answer(bob, &description).unwrap();
    // The m-line may carry another track of the codec.
    let at = Transceiver::Mid(done[1].clone().unwrap().to_string());
    world.update(bob, at, Some((eve, "cam")), wish("")).unwrap();
}

#[test]
fn description_with_most_m_lines_is_accepted() {
    // Chromium's codec list in each m-line of its own offers has up to 6 kB.
    let mut text = String::from("v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE");
    (0..400).for_each(|mid| text.push_str(&format!(" {mid}")));
    text.push_str("\r\na=ice-ufrag:abcd\r\na=ice-pwd:aaaaaaaaaaaaaaaaaaaaaaaa\r\na=setup:actpass\r\n");
    let print = ["AB"; 32].join(":");
    text.push_str(&format!("a=fingerprint:sha-256 {print}\r\n"));
    for mid in 0..400 {
        text.push_str(&format!(
            "m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=recvonly\r\n"
        ));
        text.push_str("a=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n");
        text.push_str(&"a=rtcp-fb:96 goog-remb\r\n".repeat(240));
    }
    assert!(text.len() > 2_300_000);
    let read = Description::parse(DescriptionType::Offer, &text).unwrap();
    assert_eq!(read.sections.len(), 400);
}

#[test]
fn mids_of_large_offers_are_distinct() {
    let mut world = World::new();
    let bob = world.join();
    world.push(bob, &[("mic", TrackKind::Audio, &[])]);
    world.connect();
    let names: Vec<String> = (0..190).map(|number| format!("track {number}")).collect();
    let tracks: Vec<_> =
        names.iter().map(|name| (&**name, Some(TrackKind::Audio), MediaDirection::In)).collect();
    // Without the retries one such offer in eleven has a repeated mid.
    for _ in 0..100 {
        world.pass(10 * SECOND);
        let (done, description) = world.ask_to_push(bob, &tracks);
        let mids: std::collections::HashSet<Mid> = done.into_iter().map(Result::unwrap).collect();
        assert_eq!(mids.len(), 190);
        assert!(Description::parse(DescriptionType::Offer, &description.unwrap().sdp).is_ok());
    }
}

#[test]
fn track_is_closed_by_its_name() {
    let (mut world, ada, bob, _) = two();
    let named = |name: &str| Transceiver::Published(name.to_owned());
    let tracks = vec![named("cam"), named("none")];
    let request = Request::Close { session: world.session(ada), tracks, offer: None };
    let Ok(Reply::Tracks { tracks, .. }) = world.ask(request) else { panic!("refused") };
    assert!(tracks[0].is_ok());
    let failed = tracks[1].as_ref().unwrap_err();
    assert_eq!((failed.mid.as_deref(), &failed.error), (Some("#none"), &SfuError::NothingToClose));
    assert_eq!(world.states(ada).len(), 1);
    assert_eq!(world.pull(bob, &[(ada, "cam", wish(""))]), [Err(SfuError::NoTrack)]);
}
