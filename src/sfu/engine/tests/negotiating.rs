//! Offers and answers that cross, stay away, or refuse.

use str0m::media::Mid;

use super::client::read;
use super::world::World;
use super::*;
use crate::sfu::description::Description;
use crate::sfu::error::SfuError;
use crate::sfu::request::*;

fn two() -> (World, usize, usize, Mid) {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let cam = world.push(ada, &[("cam", Kind::Video, &[]), ("mic", Kind::Audio, &[])])[0];
    world.push(bob, &[("mic", Kind::Audio, &[])]);
    world.connect();
    (world, ada, bob, cam)
}

#[test]
fn only_who_has_a_choice_is_asked_how_packets_arrive() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let tracks: [(&str, Kind, &[&str]); 6] = [
        ("mic 1", Kind::Audio, &[]),
        ("mic 2", Kind::Audio, &[]),
        ("mic 3", Kind::Audio, &[]),
        ("cam", Kind::Video, &[]),
        ("other", Kind::Video, &[]),
        ("layers", Kind::Video, &["a", "b"]),
    ];
    world.push(ada, &tracks);
    let pull = |world: &mut World, name| {
        let (done, told) = world.ask_to_pull(bob, &[(ada, name, wish(""))]);
        let told = told.unwrap();
        world.answer(bob, &told).unwrap();
        (done[0].clone().unwrap(), told.sdp.contains("transport-wide-cc"))
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

/// A request for others' tracks that is not answered yet.
fn pull(world: &World, peer: usize, publisher: usize, name: &str) -> Request {
    let publisher = world.session(publisher);
    let track = Subscribe { publisher, name: name.to_owned(), layer: LayerWish::default() };
    Request::Subscribe { session: world.session(peer), tracks: vec![track] }
}

#[test]
fn pull_that_overlaps_another_is_refused() {
    let (mut world, ada, bob, cam) = two();
    let (done, told) = world.ask_to_pull(bob, &[(ada, "cam", wish(""))]);
    let pulled = done[0].clone().unwrap();
    let second = pull(&world, bob, ada, "mic");
    assert_eq!(world.ask(second).err(), Some(SfuError::OfferPending));
    let session = world.session(bob);
    let track = Publish { name: "x".into(), mid: None, kind: Some(Kind::Audio), way: Way::In };
    let push = Request::Publish { session, tracks: vec![track], offer: None };
    assert_eq!(world.ask(push).err(), Some(SfuError::OfferPending));
    world.answer(bob, &told.unwrap()).unwrap();
    world.film(ada, cam, &[(None, 2)], 10);
    assert!(world.got(bob, pulled).len() > 10, "the first stands");
    world.pull_one(bob, ada, "mic");
}

#[test]
fn offer_that_nobody_answers_gives_way() {
    let (mut world, ada, bob, cam) = two();
    for _ in 0..3 {
        let (done, told) = world.ask_to_pull(bob, &[(ada, "cam", wish("")), (ada, "mic", wish(""))]);
        assert!(done.iter().all(Result::is_ok) && told.is_some());
        assert_eq!(world.engine.counters().subscriptions, 2, "not more with each");
        world.pass(5 * SECOND);
    }
    let pulled = world.pull_one(bob, ada, "cam");
    assert_eq!(world.engine.counters().subscriptions, 1);
    world.film(ada, cam, &[(None, 2)], 10);
    assert!(world.got(bob, pulled).len() > 10);

    // Who closes what was offered does not wait.
    let mic = world.ask_to_pull(bob, &[(ada, "mic", wish(""))]).0.remove(0).unwrap();
    let tracks = vec![Transceiver::Mid(mic.to_string())];
    world.ask(Request::Close { session: world.session(bob), tracks, offer: None }).unwrap();
    let (offered, _) = world.ask_to_push(bob, &[("extra", Some(Kind::Audio), Way::In)]);
    assert!(offered[0].is_ok());
    // Neither does who makes an offer: it has none of ours.
    let camera = world.push(bob, &[("cam", Kind::Video, &[])])[0];
    assert_eq!(world.engine.counters().subscriptions, 1);
    let back = world.pull_one(ada, bob, "cam");
    assert_eq!(world.pull(ada, &[(bob, "extra", wish(""))]), [Err(SfuError::NoTrack)]);
    world.film(bob, camera, &[(None, 2)], 10);
    assert!(world.got(ada, back).len() > 10);
}

#[test]
fn an_answer_needs_an_offer() {
    let (mut world, ada, bob, _) = two();
    let (_, told) = world.ask_to_pull(bob, &[(ada, "cam", wish(""))]);
    let text = world.think(bob, &told.unwrap());
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

/// A description in which a section is stopped.
fn stopped(text: &str, mid: Mid) -> String {
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
fn a_section_that_was_stopped_while_the_client_answered_is_free() {
    let (mut world, ada, bob, cam) = two();
    let first = world.pull_one(bob, ada, "cam");
    let (done, told) = world.ask_to_pull(bob, &[(ada, "mic", wish(""))]);
    let second = *done[0].as_ref().unwrap();
    let text = stopped(&world.think(bob, &told.unwrap()), first);
    let session = world.session(bob);
    let answer = read(DescriptionType::Answer, &text);
    world.ask(Request::Answer { session: session.clone(), answer }).unwrap();
    let carried: Vec<String> = world.states(bob).into_iter().map(|track| track.mid).collect();
    assert!(carried.contains(&second.to_string()) && !carried.contains(&first.to_string()), "{carried:?}");

    // Were it not, everything that is offered in its place would be refused, for ever.
    let subscribe =
        Subscribe { publisher: world.session(ada), name: "cam".into(), layer: LayerWish::default() };
    let offered = world.ask(Request::Subscribe { session: session.clone(), tracks: vec![subscribe] });
    let Ok(Reply::Tracks { description: Some(told), tracks }) = offered else { panic!("{offered:?}") };
    let third = tracks[0].as_ref().unwrap().mid.clone();
    assert!(!told.sdp.contains(&format!("a=mid:{first}\r\n")), "{}", told.sdp);
    let place =
        |mid: &str| told.sdp.split("m=").position(|section| section.contains(&format!("a=mid:{mid}\r\n")));
    let before = text.split("m=").position(|section| section.contains(&format!("a=mid:{first}\r\n")));
    assert_eq!(place(&third), before, "in its place");
    world.film(ada, cam, &[(None, 1)], 3);
    assert_eq!(world.report().sessions.len(), 2);
}

/// Answers an offer with another text than the client would.
fn answer_with(
    world: &mut World,
    peer: usize,
    told: &Told,
    change: impl FnOnce(String) -> String,
) -> Outcome {
    let text = change(world.think(peer, told));
    let session = world.session(peer);
    world.ask(Request::Answer { session, answer: read(DescriptionType::Answer, &text) })
}

#[test]
fn answer_that_refuses_one_track_takes_the_other() {
    let (mut world, ada, bob, cam) = two();
    let first = world.pull_one(bob, ada, "cam");
    let third = world.push(ada, &[("screen", Kind::Video, &[])])[0];
    let (done, told) = world.ask_to_pull(bob, &[(ada, "mic", wish("")), (ada, "screen", wish(""))]);
    let [mic, screen] = [0, 1].map(|at| *done[at].as_ref().unwrap());
    let answered = answer_with(&mut world, bob, &told.unwrap(), |text| stopped(&text, mic));
    let Ok(Reply::Answered(refused)) = answered else { panic!("{answered:?}") };
    let named: Vec<_> = refused.iter().map(|track| (track.name.as_deref(), &track.error)).collect();
    assert_eq!(named, [(Some("mic"), &SfuError::NotAccepted)]);
    assert_eq!(world.engine.counters().subscriptions, 2);
    world.film(ada, cam, &[(None, 2)], 10);
    world.film(ada, third, &[(None, 2)], 10);
    assert!(world.got(bob, first).len() >= 16, "what flowed goes on");
    assert!(world.got(bob, screen).len() >= 16, "and what was accepted flows");
}

#[test]
fn track_whose_codec_is_not_accepted_is_not_sent() {
    for refuse in [
        |text: String| text.replace("rtpmap:96 VP8", "rtpmap:96 AV2"),
        |text: String| text.replace("a=recvonly\r\n", "a=inactive\r\n"),
    ] {
        let mut world = World::new();
        let (ada, bob) = (world.join(), world.join());
        let own = world.push(ada, &[("cam", Kind::Video, &[]), ("mic", Kind::Audio, &[])]);
        world.push(bob, &[("mic", Kind::Audio, &[])]);
        world.connect();
        world.film(ada, own[0], &[(None, 2)], 2);
        let (done, told) = world.ask_to_pull(bob, &[(ada, "cam", wish(""))]);
        let answered = answer_with(&mut world, bob, &told.unwrap(), refuse);
        let Ok(Reply::Answered(refused)) = answered else { panic!("{answered:?}") };
        assert_eq!(refused.len(), 1);
        world.film(ada, own[0], &[(None, 2)], 10);
        let mid = done[0].as_ref().unwrap().to_string();
        let state = world.states(bob).into_iter().find(|track| track.mid == mid).unwrap();
        assert_eq!(state.status, TrackStatus::Inactive);
        assert_eq!(world.engine.counters().forwarded_packets, 0);
    }
}

/// Publishes by an offer with another text than the client's; gives back the answer and what came of the tracks.
fn publish_with(
    world: &mut World,
    peer: usize,
    tracks: &[(&str, Kind)],
    change: impl Fn(String, &[Mid]) -> String,
    mid: impl Fn(Mid) -> String,
) -> (Vec<Result<TrackDone, TrackFailed>>, Told) {
    let mut api = world.peers[peer].rtc.sdp_api();
    let add = |(_, kind): &(&str, Kind)| {
        let kind = crate::sfu::engine::forwarding::media_kind(*kind);
        api.add_media(kind, str0m::media::Direction::SendOnly, None, None, None)
    };
    let mids: Vec<Mid> = tracks.iter().map(add).collect();
    let (offer, _) = api.apply().unwrap();
    let text = change(offer.to_sdp_string(), &mids);
    let named = tracks.iter().zip(&mids).map(|((name, _), own)| Publish {
        name: (*name).to_owned(),
        mid: Some(mid(*own)),
        kind: None,
        way: Way::In,
    });
    let tracks = named.collect();
    let offer = Some(read(DescriptionType::Offer, &text));
    match world.ask(Request::Publish { session: world.session(peer), tracks, offer }).unwrap() {
        Reply::Tracks { description: Some(told), tracks } => (tracks, told),
        other => panic!("not published: {other:?}"),
    }
}

fn m_lines(told: &Told) -> Vec<&str> {
    told.sdp.lines().filter(|line| line.starts_with("m=")).collect()
}

#[test]
fn section_of_unknown_codecs_is_refused_alone() {
    // Browsers have the transport of a bundle in its first section, which is refused without its end.
    for (none, lines) in [
        (0, ["m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=video 9 UDP/TLS/RTP/SAVPF 96 97"]),
        (1, ["m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=video 0 UDP/TLS/RTP/SAVPF 0"]),
    ] {
        let mut world = World::new();
        let (ada, bob) = (world.join(), world.join());
        let unknown = |text: String, _: &[Mid]| text.replace([" opus/", " VP8/"][none], " G722/");
        let tracks = [("mic", Kind::Audio), ("cam", Kind::Video)];
        let (done, told) = publish_with(&mut world, ada, &tracks, unknown, |mid| mid.to_string());
        assert!(matches!(done[none], Err(TrackFailed { error: SfuError::InvalidParams(_), .. })), "{done:?}");
        let lives = &done[1 - none].as_ref().unwrap().mid;
        assert_eq!(m_lines(&told), lines);
        let group = told.sdp.lines().find(|line| line.starts_with("a=group:BUNDLE")).unwrap();
        assert!(group.ends_with(&**lives), "{group}");
        assert_eq!(group.split(' ').count(), if none == 0 { 3 } else { 2 }, "{group}");
        let first = told.sdp.split("m=").nth(1).unwrap();
        assert!(first.contains("a=ice-ufrag:") && first.contains("a=candidate:"), "{first}");
        assert_eq!(first.contains("a=inactive"), none == 0, "{first}");
        assert_eq!(world.states(ada).len(), 1);

        // The server's own offers tell it in the same way.
        world.push(bob, &[("mic", Kind::Audio, &[])]);
        let (_, told) = world.ask_to_pull(ada, &[(bob, "mic", wish(""))]);
        let told = told.unwrap();
        let places: Vec<_> = m_lines(&told).into_iter().map(str::to_owned).collect();
        assert_eq!(places[0], lines[0]);
        assert_eq!(places.len(), if none == 0 { 3 } else { 2 }, "the place of what ended is used again");
    }
}

#[test]
fn mid_may_be_any_token() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let odd = |mid: Mid| format!("{mid}-+.behind-the-sixteenth");
    let rename = |text: String, mids: &[Mid]| {
        let renamed = |text: String, mid: &Mid| {
            text.replace(&format!("a=mid:{mid}\r\n"), &format!("a=mid:{}\r\n", odd(*mid)))
        };
        let text = mids.iter().fold(text, renamed);
        let group = mids.iter().map(|mid| format!(" {}", odd(*mid))).collect::<String>();
        let lines = text.lines().map(|line| match line.starts_with("a=group:BUNDLE") {
            true => format!("a=group:BUNDLE{group}\r\n"),
            false => format!("{line}\r\n"),
        });
        lines.collect()
    };
    let tracks = [("mic", Kind::Audio), ("cam", Kind::Video)];
    let (done, told) = publish_with(&mut world, ada, &tracks, rename, odd);
    let mids: Vec<String> = done.into_iter().map(|track| track.unwrap().mid).collect();
    assert!(mids.iter().all(|mid| mid.ends_with("-+.behind-the-sixteenth")), "{mids:?}");
    assert!(mids.iter().all(|mid| told.sdp.contains(&format!("a=mid:{mid}\r\n"))), "{}", told.sdp);
    assert!(told.sdp.contains(&format!("a=group:BUNDLE {}\r\n", mids.join(" "))), "{}", told.sdp);
    assert!(world.states(ada).iter().all(|track| mids.contains(&track.mid)));
    assert!(world.pull(bob, &[(ada, "cam", wish(""))])[0].is_ok());
    let tracks = vec![Transceiver::Mid(mids[0].clone())];
    let closed = world.ask(Request::Close { session: world.session(ada), tracks, offer: None }).unwrap();
    let Reply::Tracks { tracks, .. } = closed else { panic!("{closed:?}") };
    assert_eq!(tracks[0].as_ref().unwrap().mid, mids[0]);
}

#[test]
fn offer_without_bundle_has_one_transport() {
    let mut world = World::new();
    let ada = world.join();
    let unbundled = |text: String, _: &[Mid]| {
        let lines = text.lines().filter(|line| !line.starts_with("a=group:BUNDLE"));
        lines.map(|line| format!("{line}\r\n")).collect()
    };
    let tracks = [("mic", Kind::Audio), ("cam", Kind::Video)];
    let (done, told) = publish_with(&mut world, ada, &tracks, unbundled, |mid| mid.to_string());
    assert!(done[0].is_ok() && done[1].is_err(), "{done:?}");
    assert!(!told.sdp.contains("BUNDLE"), "{}", told.sdp);
    let lines = m_lines(&told);
    assert!(lines[0].starts_with("m=audio 9 ") && lines[1] == "m=video 0 UDP/TLS/RTP/SAVPF 0", "{lines:?}");
}

#[test]
fn a_client_restarts_ice() {
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
        let Ok(Reply::Tracks { description: Some(told), .. }) = world.ask(request) else { panic!("refused") };
        world.take_answer(peer, pending, &told);
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
fn names_are_published_once() {
    let (mut world, ada, bob, _) = two();
    let done = world.try_to_push(ada, &[("cam", Kind::Video, &[]), ("new", Kind::Audio, &[])]);
    assert_eq!(done[0], Err(SfuError::RepeatedTrack));
    assert!(done[1].is_ok());
    let (done, told) = world.ask_to_push(ada, &[("cam", Some(Kind::Video), Way::In), ("x", None, Way::In)]);
    assert_eq!(done[0], Err(SfuError::RepeatedTrack));
    assert!(matches!(done[1], Err(SfuError::InvalidParams(_))));
    assert_eq!(told, None);
    world.push(bob, &[("cam", Kind::Video, &[])]);
}

#[test]
fn subscription_is_offered_with_the_codec_of_its_track() {
    let mut world = World::new();
    let (ada, bob, eve) = (world.join(), world.join(), world.join());
    let own = world.push(ada, &[("mic", Kind::Audio, &[]), ("cam", Kind::Video, &[])]);
    world.push(eve, &[("cam", Kind::Video, &[])]);
    world.connect_one(ada);
    world.film(ada, own[1], &[(None, 1)], 2);
    let (done, told) = world.ask_to_pull(bob, &[(ada, "mic", wish("")), (ada, "cam", wish(""))]);
    let told = told.unwrap();
    let lines: Vec<&str> = told.sdp.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(lines, ["m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=video 9 UDP/TLS/RTP/SAVPF 96 97"]);
    assert!(told.sdp.len() < 2_000, "{} bytes for two sections", told.sdp.len());
    world.answer(bob, &told).unwrap();
    // The section may carry another track of the codec.
    let at = Transceiver::Mid(done[1].clone().unwrap().to_string());
    world.update(bob, at, Some((eve, "cam")), wish("")).unwrap();
}

#[test]
fn as_many_sections_as_tracks_are_allowed_are_read() {
    // What Chromium lists in each section of its own offers has up to 6 kB.
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
    world.push(bob, &[("mic", Kind::Audio, &[])]);
    world.connect();
    let names: Vec<String> = (0..190).map(|number| format!("track {number}")).collect();
    let tracks: Vec<_> = names.iter().map(|name| (&**name, Some(Kind::Audio), Way::In)).collect();
    // One such offer in eleven has two alike where nothing is done about it.
    for _ in 0..100 {
        world.pass(10 * SECOND);
        let (done, told) = world.ask_to_push(bob, &tracks);
        let mids: std::collections::HashSet<Mid> = done.into_iter().map(Result::unwrap).collect();
        assert_eq!(mids.len(), 190);
        assert!(Description::parse(DescriptionType::Offer, &told.unwrap().sdp).is_ok());
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
