//! Networks that lose, delay, reorder and duplicate packets, and sequence numbers that wrap.

use str0m::media::{Mid, SenderFeedback};

use super::world::World;
use super::*;
use crate::request::*;

/// A publisher of audio and video, and a subscriber of both, connected, without the first frames.
fn two() -> (World, [usize; 2], [Mid; 2], [Mid; 2]) {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let own = world.push(ada, &[("mic", TrackKind::Audio, &[]), ("cam", TrackKind::Video, &[])]);
    let pulled = world.pull(bob, &[(ada, "mic", wish("")), (ada, "cam", wish(""))]);
    let pulled = pulled.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    world.connect();
    both(&mut world, ada, &own, 5);
    (world, [ada, bob], [own[0], own[1]], [pulled[0], pulled[1]])
}

fn both(world: &mut World, peer: usize, mids: &[Mid], times: usize) {
    for _ in 0..times {
        world.speak(peer, mids[0]);
        world.show(peer, mids[1], None, 3);
        world.pass(20 * MS);
    }
}

/// Checks that all video packets arrived, each once, in order and unchanged.
#[track_caller]
fn assert_whole(world: &World, peer: usize, cam: Mid, least: usize) {
    let got = world.got(peer, cam);
    assert!(got.len() >= least, "{} of {least}", got.len());
    assert_complete(&got);
    assert!(got.windows(2).all(|two| two[1].number() == two[0].number() + 1), "in its place");
    assert_eq!(got.len(), world.peers[peer].got[&cam].len(), "each once");
}

fn survives(loss: [u64; 2]) {
    let (mut world, [ada, bob], own, [mic, cam]) = two();
    world.loss = loss;
    both(&mut world, ada, &own, 150);
    world.loss = [0, 0];
    both(&mut world, ada, &own, 30);
    world.pass(SECOND);
    assert_whole(&world, bob, cam, 3 * 180);
    // Late audio is useless: lost audio packets are not retransmitted, and no other is missing.
    let heard = world.got(bob, mic);
    let missing = 185 - heard.len() as u64;
    let most = 150 * (loss[0] + loss[1]) / 100;
    assert!((1..=most * 2 + 3).contains(&missing), "{missing} at {loss:?}");
    let said = |got: &Got| u64::from(u16::from_be_bytes([got.payload[2], got.payload[3]]));
    assert!(heard.windows(2).all(|two| said(&two[1]) - said(&two[0]) == two[1].seq - two[0].seq));
    // Losses are counted every two seconds.
    world.pass(3 * SECOND);
    let counters = world.engine.counters();
    assert_eq!(counters.nacks_sent > 0, loss[0] > 0, "{counters:?}");
    // Losses on the uplink show as gaps on the downlink, too.
    assert!(counters.nacks_received > 0, "{counters:?}");
}

#[test]
fn video_survives_2_percent_loss() {
    survives([2, 0]);
    survives([0, 2]);
}

#[test]
fn video_survives_5_percent_loss() {
    survives([5, 0]);
    survives([0, 5]);
}

#[test]
fn video_survives_10_percent_loss() {
    survives([10, 0]);
    survives([0, 10]);
}

#[test]
fn reordered_and_duplicate_packets_are_sorted() {
    let (mut world, [ada, bob], own, [mic, cam]) = two();
    (world.overtaken, world.doubled) = (20, 20);
    both(&mut world, ada, &own, 100);
    world.pass(SECOND);
    assert_whole(&world, bob, cam, 300);
    assert_complete(&world.got(bob, mic));
    assert_eq!(world.peers[bob].got[&mic].len(), 105);
    let in_order = world.peers[bob].got[&mic].windows(2).all(|two| two[0].seq < two[1].seq);
    assert!(!in_order, "the network did what it was told");
}

#[test]
fn sequence_numbers_wrap_without_gap() {
    let (mut world, [ada, bob], [own, _], [mic, _]) = two();
    world.peers[bob].got.clear();
    // Each packet stands for forty: lost audio packets are not requested, so the gaps do not matter.
    let mut number = 20_000;
    let count = 1_800;
    for _ in 0..count {
        world.number_from(ada, own, None, number);
        world.speak(ada, own);
        world.pass(20 * MS);
        number += 40;
    }
    let got = world.got(bob, mic);
    assert_eq!(got.len(), count);
    assert!(got.windows(2).all(|two| two[1].seq - two[0].seq == 40), "all in their places");
    let span = got[count - 1].seq - got[0].seq;
    assert!(span > 70_000, "{span}");
}

/// Seconds between audio and video at a subscriber that synchronizes by these sender reports.
fn skew(audio: &SenderFeedback, video: &SenderFeedback, encoding: Duration) -> f64 {
    // Wall-clock time at which the timestamp was zero.
    let origin = |report: &SenderFeedback, clock_hz: f64| {
        let at = report.sender_info.ntp_time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        at - f64::from(report.sender_info.rtp_time.numer() as u32) / clock_hz
    };
    // The client's audio and video start together at zero, and frames show the scene of `encoding` earlier.
    origin(audio, 48_000.0) - (origin(video, 90_000.0) + encoding.as_secs_f64())
}

#[test]
fn audio_and_video_stay_in_step_under_loss() {
    let mut world = World::new();
    world.delay = [50 * MS; 2];
    let (ada, bob) = (world.join(), world.join());
    let own = world.push(ada, &[("mic", TrackKind::Audio, &[]), ("cam", TrackKind::Video, &[])]);
    let pulled = world.pull(bob, &[(ada, "mic", wish("")), (ada, "cam", wish(""))]);
    let pulled: Vec<Mid> = pulled.into_iter().map(Result::unwrap).collect();
    world.connect();
    // More than the permitted skew: only the publisher's sender reports reveal it.
    let encoding = 80 * MS;
    world.peers[ada].encoding = encoding;
    let since = world.now.duration_since(world.start).as_nanos() as u64;
    world.pass(20 * MS - Duration::from_nanos(since % 20_000_000));
    let since = world.now.duration_since(world.start);
    world.number_from(ada, own[0], None, since.as_millis() as u64 / 20);
    both(&mut world, ada, &own, 300);
    world.peers[bob].reports.clear();
    world.loss = [10, 10];
    both(&mut world, ada, &own, 1500);
    let reports = &world.peers[bob].reports;
    let of = |mid: Mid| reports.iter().filter(move |report| report.mid == mid);
    assert!(of(pulled[0]).count() >= 3 && of(pulled[1]).count() >= 10, "{}", reports.len());
    for audio in of(pulled[0]) {
        for video in of(pulled[1]) {
            let apart = skew(audio, video, encoding);
            assert!(apart.abs() <= 0.040, "{apart}");
        }
    }
}

/// Sends `pictures` frames of `packets` packets, 30 a second, and waits for the last retransmissions.
fn stream(world: &mut World, peer: usize, mid: Mid, packets: usize, pictures: usize) {
    world.film(peer, mid, &[(None, packets)], pictures);
    world.loss = [0, 0];
    world.film(peer, mid, &[(None, 1)], 60);
}

#[test]
fn video_survives_loss_at_long_round_trip() {
    let (mut world, [ada, bob], own, [_, cam]) = two();
    world.delay = [75 * MS; 2];
    world.film(ada, own[1], &[(None, 8)], 30);
    world.loss = [0, 10];
    stream(&mut world, ada, own[1], 8, 150);
    assert_whole(&world, bob, cam, 8 * 180);
}

#[test]
fn second_of_fast_video_is_kept_for_retransmission() {
    let (mut world, [ada, _], own, _) = two();
    stream(&mut world, ada, own[1], 33, 30);
    // Requests take most of a second, so the requested packets are that old.
    world.delay = [900 * MS, 75 * MS];
    world.counted.clear();
    world.loss = [0, 10];
    // 8 Mbit/s in packets of 1,000 bytes.
    world.film(ada, own[1], &[(None, 33)], 60);
    let lost = world.counted[&96][0];
    world.loss = [0, 0];
    world.film(ada, own[1], &[(None, 33)], 60);
    let [_, resent] = world.counted[&97];
    assert!(lost > 80 && resent >= lost, "{resent} of {lost}");
}
