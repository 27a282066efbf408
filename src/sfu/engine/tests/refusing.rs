//! Descriptions that refuse m-lines, or of which m-lines are refused.

use str0m::media::Mid;

use super::client::read;
use super::negotiating::{stopped, two};
use super::world::World;
use super::*;
use crate::error::SfuError;
use crate::request::*;

/// Answers an offer with a modified answer.
fn answer_with(
    world: &mut World,
    peer: usize,
    told: &SessionDescription,
    change: impl FnOnce(String) -> String,
) -> RequestResult {
    let text = change(world.think(peer, told));
    let session = world.session(peer);
    world.ask(Request::Answer { session, answer: read(DescriptionType::Answer, &text) })
}

#[test]
fn answer_refusing_one_track_opens_the_other() {
    let (mut world, ada, bob, cam) = two();
    let first = world.pull_one(bob, ada, "cam");
    let third = world.push(ada, &[("screen", TrackKind::Video, &[])])[0];
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
fn track_with_refused_codec_is_not_sent() {
    for refuse in [
        |text: String| text.replace("rtpmap:96 VP8", "rtpmap:96 AV2"),
        |text: String| text.replace("a=recvonly\r\n", "a=inactive\r\n"),
    ] {
        let mut world = World::new();
        let (ada, bob) = (world.join(), world.join());
        let own = world.push(ada, &[("cam", TrackKind::Video, &[]), ("mic", TrackKind::Audio, &[])]);
        world.push(bob, &[("mic", TrackKind::Audio, &[])]);
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
        let session = world.engine.by_id[&world.session(bob)];
        assert_eq!(world.engine.sessions[session].wanted, u64::MAX, "it takes no bandwidth from others");
    }
}

/// Publishes with a modified offer; returns the answer and the result of each track.
fn publish_with(
    world: &mut World,
    peer: usize,
    tracks: &[(&str, TrackKind)],
    change: impl Fn(String, &[Mid]) -> String,
    mid: impl Fn(Mid) -> String,
) -> (Vec<Result<TrackDone, TrackFailed>>, SessionDescription) {
    let mut api = world.peers[peer].rtc.sdp_api();
    let add = |(_, kind): &(&str, TrackKind)| {
        let kind = crate::engine::forwarding::media_kind(*kind);
        api.add_media(kind, str0m::media::Direction::SendOnly, None, None, None)
    };
    let mids: Vec<Mid> = tracks.iter().map(add).collect();
    let (offer, _) = api.apply().unwrap();
    let text = change(offer.to_sdp_string(), &mids);
    let named = tracks.iter().zip(&mids).map(|((name, _), own)| Publish {
        name: (*name).to_owned(),
        mid: Some(mid(*own)),
        kind: None,
        way: MediaDirection::In,
    });
    let tracks = named.collect();
    let offer = Some(read(DescriptionType::Offer, &text));
    match world.ask(Request::Publish { session: world.session(peer), tracks, offer }).unwrap() {
        Reply::Tracks { description: Some(told), tracks } => (tracks, told),
        other => panic!("not published: {other:?}"),
    }
}

fn m_lines(told: &SessionDescription) -> Vec<&str> {
    told.sdp.lines().filter(|line| line.starts_with("m=")).collect()
}

#[test]
fn only_m_line_of_unknown_codecs_is_refused() {
    // Browsers read the transport of a bundle from its first m-line, which is therefore refused without port 0.
    for (none, lines) in [
        (0, ["m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=video 9 UDP/TLS/RTP/SAVPF 96 97"]),
        (1, ["m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=video 0 UDP/TLS/RTP/SAVPF 0"]),
    ] {
        let mut world = World::new();
        let (ada, bob) = (world.join(), world.join());
        let unknown = |text: String, _: &[Mid]| text.replace([" opus/", " VP8/"][none], " G722/");
        let tracks = [("mic", TrackKind::Audio), ("cam", TrackKind::Video)];
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

        // The server's own offers describe it the same way.
        world.push(bob, &[("mic", TrackKind::Audio, &[])]);
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
    let tracks = [("mic", TrackKind::Audio), ("cam", TrackKind::Video)];
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
    let tracks = [("mic", TrackKind::Audio), ("cam", TrackKind::Video)];
    let (done, told) = publish_with(&mut world, ada, &tracks, unbundled, |mid| mid.to_string());
    assert!(done[0].is_ok() && done[1].is_err(), "{done:?}");
    assert!(!told.sdp.contains("BUNDLE"), "{}", told.sdp);
    let lines = m_lines(&told);
    assert!(lines[0].starts_with("m=audio 9 ") && lines[1] == "m=video 0 UDP/TLS/RTP/SAVPF 0", "{lines:?}");
}
