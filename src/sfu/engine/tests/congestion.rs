//! Narrow links: audio has priority, and video is limited to the layers that fit.

use std::time::Instant;

use str0m::Input;
use str0m::bwe::Bitrate;
use str0m::media::Mid;

use super::sending::{PICTURE, SOUND};
use super::world::World;
use super::*;
use crate::request::*;

/// About 240 kbit/s, 480 and 1,940: 2.4 Mbit/s with the second and third.
const LAYERS: [(Option<&str>, usize); 3] = [(Some("a"), 8), (Some("b"), 2), (Some("c"), 1)];
const SINGLE: [(Option<&str>, usize); 1] = [(None, 10)];

/// Size of a keyframe as a multiple of another frame's.
const KEYFRAME: usize = 4;

struct Call {
    world: World,
    ada: usize,
    bob: usize,
    own: [Mid; 2],
    got: [Mid; 2],
    layers: &'static [(Option<&'static str>, usize)],
}

impl Call {
    /// A publisher of audio and video, and a subscriber behind a link of `capacity` bits per second.
    fn new(layers: &'static [(Option<&'static str>, usize)], capacity: Option<u64>) -> Self {
        let mut world = World::new();
        let (ada, bob) = (world.join(), world.join());
        Self::between(world, [ada, bob], layers, capacity)
    }

    fn between(
        mut world: World,
        [ada, bob]: [usize; 2],
        layers: &'static [(Option<&'static str>, usize)],
        capacity: Option<u64>,
    ) -> Self {
        let rids: Vec<&str> = layers.iter().filter_map(|(rid, _)| *rid).collect();
        let own = world.push(ada, &[("mic", TrackKind::Audio, &[]), ("cam", TrackKind::Video, &rids)]);
        world.connect_one(ada);
        let mut call = Self { world, ada, bob, own: [own[0], own[1]], got: [own[0]; 2], layers };
        // The publisher sends before the subscriber joins.
        call.go_on(2 * SECOND);
        let world = &mut call.world;
        let got = world.pull(bob, &[(ada, "mic", wish("")), (ada, "cam", wish(""))]);
        let got: Vec<Mid> = got.into_iter().map(Result::unwrap).collect();
        call.got = [got[0], got[1]];
        world.peers[bob].capacity = capacity;
        world.connect();
        call
    }

    /// Sends audio and video for some time, with REMB reports.
    fn go_on(&mut self, time: Duration) {
        let Self { world, ada, own: [mic, cam], .. } = self;
        let end = world.now + time;
        let (mut sound, mut picture, mut report) = (world.now, world.now, world.now);
        while world.now < end {
            if world.now >= sound {
                world.speak(*ada, *mic);
                sound += SOUND;
            }
            if world.now >= picture {
                for (rid, packets) in self.layers {
                    let key = (*cam, rid.map(str0m::media::Rid::from));
                    let long = world.peers[*ada].due.get(&key).copied().unwrap_or(true);
                    world.show(*ada, *cam, *rid, if long { packets * KEYFRAME } else { *packets });
                }
                picture += PICTURE;
            }
            if world.now >= report {
                report += 200 * MS;
                report_bandwidth(world, self.bob);
            }
            world.pass(sound.min(picture).min(report).min(end) - world.now);
        }
    }

    /// Returns the highest audio delay since that time, and the number of missing audio packets.
    #[track_caller]
    fn audio_since(&self, since: Instant) -> (Duration, usize) {
        let got: Vec<Got> =
            self.world.got(self.bob, self.got[0]).into_iter().filter(|got| got.at >= since).collect();
        let first = &got[0];
        let late = got.iter().map(|got| {
            // Delay beyond that of the first packet: the timestamp gives the sending time.
            let sent = Duration::from_micros(u64::from(got.time.wrapping_sub(first.time)) * 1000 / 48);
            (got.at - first.at).saturating_sub(sent)
        });
        let span = (got[got.len() - 1].seq - first.seq + 1) as usize;
        (late.max().unwrap(), span - got.len())
    }

    fn video_since(&self, since: Instant) -> Vec<Got> {
        self.world.got(self.bob, self.got[1]).into_iter().filter(|got| got.at >= since).collect()
    }

    fn video_status(&mut self) -> TrackStatus {
        let mid = self.got[1].to_string();
        let states = self.world.states(self.bob);
        states.into_iter().find(|state| state.mid == mid).unwrap().status
    }
}

/// Sends a REMB report: 85 % of the received rate while the link has a queue, otherwise an estimate that grows up to
/// one and a half times that rate.
fn report_bandwidth(world: &mut World, peer: usize) {
    let own = &mut world.peers[peer];
    let Some(bytes) = &mut own.remb else { return };
    let rate = std::mem::take(bytes) as u64 * 8 * 5;
    let queue = own.busy_until.saturating_duration_since(world.now);
    let capacity = own.capacity.unwrap_or(u64::MAX);
    if queue > 50 * MS {
        own.reported = rate.min(capacity) * 85 / 100;
    } else if own.reported < rate * 3 / 2 {
        own.reported += own.reported / 60;
    }
    let reported = Bitrate::from(own.reported);
    for mid in own.got.keys().copied().collect::<Vec<_>>() {
        if let Some(stream) = own.rtc.direct_api().stream_rx_by_mid(mid, None) {
            stream.request_remb(reported);
        }
    }
    let now = world.now;
    world.peers[peer].rtc.handle_input(Input::Timeout(now)).unwrap();
    world.poll(peer);
}

#[test]
fn narrow_link_gets_audio_and_the_layer_that_fits() {
    let mut call = Call::new(&LAYERS, Some(800_000));
    let joined = call.world.now;
    call.go_on(30 * SECOND);
    let (late, missing) = call.audio_since(joined);
    assert!(late <= 100 * MS && missing == 0, "{late:?}, {missing} missing");
    let video = call.video_since(joined + 10 * SECOND);
    assert_complete(&video);
    assert!(video.len() >= 550, "{}", video.len());
    assert!(video.iter().all(|got| got.layer() != b'a'));
    assert_eq!(call.video_status(), TrackStatus::Active);
}

#[test]
fn very_narrow_link_gets_audio_only_until_wider() {
    let mut call = Call::new(&LAYERS, Some(100_000));
    let joined = call.world.now;
    call.go_on(20 * SECOND);
    assert_eq!(call.audio_since(joined + 5 * SECOND).1, 0, "no audio is lost");
    assert_eq!(call.video_since(joined + 10 * SECOND), [], "audio alone");
    assert_eq!(call.video_status(), TrackStatus::Inactive);
    let report = call.world.report();
    let video = report.tracks.iter().find(|track| track.kind == TrackKind::Video).unwrap();
    assert!(video.subscribers[0].paused);

    call.world.peers[call.bob].capacity = Some(3_500_000);
    let wider = call.world.now;
    call.go_on(30 * SECOND);
    let video = call.video_since(wider);
    assert!(video[0].is_keyframe(), "it is resumed with a keyframe");
    assert_eq!(video.last().unwrap().layer(), b'a');
    assert_eq!(call.video_status(), TrackStatus::Active);
}

#[test]
fn low_remb_pauses_single_layer_but_not_audio() {
    for capacity in [800_000, 100_000] {
        let mut call = Call::new(&SINGLE, Some(capacity));
        call.world.peers[call.bob].remb = Some(0);
        let joined = call.world.now;
        call.go_on(20 * SECOND);
        let g = call.world.got(call.bob, call.got[0]);
        for w in g.windows(2) {
            if w[1].seq - w[0].seq > 1 {
                eprintln!("{:?} {}", w[0].at - joined, w[1].seq - w[0].seq);
            }
        }
        let v = call.video_since(joined);
        eprintln!("{:?} {:?}", v.len(), v.last().map(|l| l.at - joined));
        eprintln!("{:?}", call.world.report());
        let (late, missing) = call.audio_since(joined + 3 * SECOND);
        assert!(late <= 100 * MS && missing == 0, "{capacity}: {late:?}, {missing} missing");
        assert_eq!(call.video_since(joined + 3 * SECOND), [], "{capacity}");
        assert_eq!(call.video_status(), TrackStatus::Inactive);

        call.world.peers[call.bob].capacity = None;
        let wider = call.world.now;
        call.go_on(120 * SECOND);
        let video = call.video_since(wider);
        assert!(video[0].is_keyframe(), "it is resumed with a keyframe");
        assert_complete(&video);
        assert_eq!(call.video_status(), TrackStatus::Active);
    }
}

#[test]
fn session_without_twcc_gets_layer_that_fits_remb() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    world.push(bob, &[("mic", TrackKind::Audio, &[])]);
    let mut call = Call::between(world, [ada, bob], &LAYERS, Some(800_000));
    call.world.peers[bob].remb = Some(0);
    let joined = call.world.now;
    call.go_on(20 * SECOND);
    let (late, missing) = call.audio_since(joined + 5 * SECOND);
    assert!(late <= 100 * MS && missing == 0, "{late:?}, {missing} missing");
    let video = call.video_since(joined + 5 * SECOND);
    assert_complete(&video);
    assert!(!video.is_empty() && video.iter().all(|got| got.layer() != b'a'));
}

#[test]
fn wide_link_gets_every_video_at_once() {
    for layers in [&LAYERS[..], &SINGLE[..]] {
        let mut call = Call::new(layers, Some(10_000_000));
        call.world.peers[call.bob].remb = layers[0].0.is_none().then_some(0);
        let joined = call.world.now;
        call.go_on(20 * SECOND);
        let video = call.video_since(joined);
        assert_complete(&video);
        let best = video.iter().find(|got| matches!(got.layer(), b'a' | 0)).unwrap().at - joined;
        assert!(best < 2 * SECOND, "{best:?}");
        let lately = call.video_since(joined + 5 * SECOND);
        assert!(lately.iter().all(|got| matches!(got.layer(), b'a' | 0)), "it stays");
    }
}

#[test]
fn twcc_starts_with_first_simulcast_subscription() {
    let mut world = World::new();
    let (ada, bob) = (world.join(), world.join());
    let own = world.push(ada, &[("plain", TrackKind::Video, &[]), ("cam", TrackKind::Video, &["a", "b"])]);
    world.pull_one(bob, ada, "plain");
    world.connect();
    world.pull_one(bob, ada, "cam");
    world.film(ada, own[1], &[(Some("a"), 4), (Some("b"), 1)], 60);
    let report = world.report();
    let bob = report.sessions.iter().find(|session| session.subscribes == 2).unwrap();
    assert!(bob.estimate_bits > Some(1_000_000), "{bob:?}");
}
