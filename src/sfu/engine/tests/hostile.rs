//! Hostile input: it ends no session but the sender's.

use std::cell::RefCell;
use std::net::SocketAddr;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use str0m::media::Mid;

use super::client::{person, read};
use super::world::World;
use super::*;
use crate::counters::DropReason;
use crate::description::Description;
use crate::error::SfuError;
use crate::request::*;

pub(super) const UNKNOWN_SOURCE: &str = "203.0.113.9:5000";

/// Two connected clients, and a check that media still flow between them.
pub(super) struct Scene {
    pub(super) world: World,
    cam: Mid,
    pulled: Mid,
}

impl Scene {
    pub(super) fn new() -> Self {
        let mut world = World::new();
        world.recorded = Some(Vec::new());
        let (ada, bob) = (world.join(), world.join());
        let cam = world.push(ada, &[("cam", TrackKind::Video, &[])])[0];
        let pulled = world.pull_one(bob, ada, "cam");
        world.connect();
        world.film(ada, cam, &[(None, 2)], 10);
        world.pass(3 * SECOND);
        Self { world, cam, pulled }
    }

    /// Datagrams of every kind that both clients sent.
    pub(super) fn datagrams(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.world.recorded.take().unwrap()
    }

    #[track_caller]
    pub(super) fn goes_on(&mut self) {
        self.world.pass(50 * MS);
        let before = self.world.got(1, self.pulled).len();
        self.world.film(0, self.cam, &[(None, 2)], 5);
        self.world.pass(50 * MS);
        let got = self.world.got(1, self.pulled);
        assert_eq!(got.len(), before + 10);
        assert_complete(&got);
    }

    /// Checks that no unknown source got a response or was mapped to a session.
    #[track_caller]
    pub(super) fn answers_no_unknown_source(&self) {
        assert_eq!(self.world.strays, 0, "unknown sources are not answered");
        assert_eq!(self.world.engine.by_source.len(), 2);
    }
}

fn check<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value)) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(strategy, |value| {
        test(value);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn random_datagrams_have_no_effect() {
    let scene = RefCell::new(Scene::new());
    let first = prop_oneof![Just(0_u8), Just(22), Just(128), any::<u8>()];
    let bytes = (first, prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(first, mut bytes)| {
        bytes.insert(0, first);
        bytes
    });
    check(500, &bytes, |bytes| {
        let world = &mut scene.borrow_mut().world;
        let ada = world.peers[0].address;
        world.deliver(UNKNOWN_SOURCE.parse().unwrap(), &bytes);
        world.deliver(ada, &bytes);
        world.deliver(ada, &[]);
    });
    let mut scene = scene.into_inner();
    scene.goes_on();
    scene.answers_no_unknown_source();
    assert_eq!(scene.world.engine.counters().drops_by(DropReason::Panic), 0);
}

/// Change of a datagram.
#[derive(Clone, Debug)]
enum Change {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Double(prop::sample::Index),
    Add(Vec<u8>),
}

impl Change {
    fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            4 => (any::<prop::sample::Index>(), 1..=255_u8).prop_map(|(at, bits)| Self::Flip(at, bits)),
            1 => any::<prop::sample::Index>().prop_map(Self::Cut),
            1 => any::<prop::sample::Index>().prop_map(Self::Double),
            1 => prop::collection::vec(any::<u8>(), 1..20).prop_map(Self::Add),
        ]
    }

    fn apply(self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Flip(at, bits) => {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Double(at) => bytes.extend_from_within(at.index(bytes.len())..),
            Self::Add(more) => bytes.extend(more),
        }
    }
}

#[test]
fn modified_datagrams_have_no_effect() {
    let mut scene = Scene::new();
    let datagrams = scene.datagrams();
    for kind in [0..4_u8, 20..64, 128..192] {
        assert!(datagrams.iter().any(|(_, bytes)| kind.contains(&bytes[0])), "{kind:?} were recorded");
    }
    let scene = RefCell::new(scene);
    let strategy = (any::<prop::sample::Index>(), prop::collection::vec(Change::any(), 1..4));
    check(1000, &strategy, |(which, changes)| {
        let (peer, original) = &datagrams[which.index(datagrams.len())];
        let mut bytes = original.clone();
        changes.into_iter().for_each(|change| change.apply(&mut bytes));
        if bytes == *original {
            return;
        }
        let world = &mut scene.borrow_mut().world;
        let source = world.peers[*peer].address;
        // A check of which only the end was changed may be valid, and a repeated one is answered.
        if bytes[..].first().is_some_and(|first| *first >= 4) {
            world.deliver(UNKNOWN_SOURCE.parse().unwrap(), &bytes);
        }
        world.deliver(source, &bytes);
    });
    let mut scene = scene.into_inner();
    scene.goes_on();
    assert_eq!(scene.world.engine.counters().drops_by(DropReason::Panic), 0);
}

/// Change of a session description.
#[derive(Clone, Debug)]
enum Edit {
    Remove(prop::sample::Index),
    Double(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    Cut(prop::sample::Index, prop::sample::Index),
    Number(prop::sample::Index, u64),
    Word(prop::sample::Index, prop::sample::Index),
}

impl Edit {
    fn any() -> impl Strategy<Value = Self> {
        let at = any::<prop::sample::Index>;
        prop_oneof![
            at().prop_map(Self::Remove),
            at().prop_map(Self::Double),
            (at(), at()).prop_map(|(one, other)| Self::Swap(one, other)),
            (at(), at()).prop_map(|(line, to)| Self::Cut(line, to)),
            (at(), prop_oneof![0..200_u64, any::<u64>()]).prop_map(|(line, to)| Self::Number(line, to)),
            (at(), at()).prop_map(|(line, from)| Self::Word(line, from)),
        ]
    }

    fn apply(self, lines: &mut Vec<String>) {
        let count = lines.len();
        if count == 0 {
            return;
        }
        match self {
            Self::Remove(at) => drop(lines.remove(at.index(count))),
            Self::Double(at) => lines.push(lines[at.index(count)].clone()),
            Self::Swap(one, other) => lines.swap(one.index(count), other.index(count)),
            Self::Cut(at, to) => {
                let line = &mut lines[at.index(count)];
                line.truncate(to.index(line.len() + 1));
            }
            Self::Number(at, to) => {
                let line = &mut lines[at.index(count)];
                let digits = |c: char| c.is_ascii_digit();
                if let Some(start) = line.find(digits) {
                    let end = line[start..].find(|c| !digits(c)).map_or(line.len(), |end| start + end);
                    line.replace_range(start..end, &to.to_string());
                }
            }
            Self::Word(at, from) => {
                let word = lines[from.index(count)].rsplit([' ', ':']).next().unwrap_or("").to_owned();
                let line = &mut lines[at.index(count)];
                if let Some(start) = line.rfind([' ', ':']) {
                    line.replace_range(start + 1.., &word);
                }
            }
        }
    }
}

#[test]
fn modified_descriptions_end_only_their_own_session() {
    let mut scene = Scene::new();
    let (sdp_offer, answer) = {
        let world = &mut scene.world;
        let zoe = world.join();
        let mut api = world.peers[zoe].rtc.sdp_api();
        use str0m::media::{Direction, MediaKind, Simulcast, SimulcastLayer};
        let send = ["a", "b"].map(SimulcastLayer::new).to_vec();
        api.add_media(MediaKind::Audio, Direction::SendRecv, None, None, None);
        api.add_media(
            MediaKind::Video,
            Direction::SendOnly,
            None,
            None,
            Some(Simulcast { send, recv: Vec::new() }),
        );
        let offer = api.apply().unwrap().0.to_sdp_string();
        let yan = world.join();
        let (_, told) = world.ask_to_pull(yan, &[(0, "cam", wish("")), (0, "cam", wish(""))]);
        let answer = world.think(yan, &told.unwrap());
        for peer in [zoe, yan] {
            world.peers[peer].gone = true;
        }
        (offer, answer)
    };
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (sdp_offer, answer) = (lines(&sdp_offer), lines(&answer));
    let scene = RefCell::new(scene);
    let taken = std::cell::Cell::new(0);
    let strategy = (any::<bool>(), prop::collection::vec(Edit::any(), 1..4));
    check(150, &strategy, |(is_offer, edits)| {
        let world = &mut scene.borrow_mut().world;
        let owner = person("mallory");
        let Ok(Reply::Opened { session, .. }) =
            world.ask(Request::Open { owner, network: None, offer: None, ice: Ice::Lite })
        else {
            panic!("not opened");
        };
        let mut lines = if is_offer { sdp_offer.clone() } else { answer.clone() };
        edits.into_iter().for_each(|edit| edit.apply(&mut lines));
        let text = lines.join("\r\n") + "\r\n";
        if is_offer {
            let Ok(offer) = Description::parse(DescriptionType::Offer, &text) else { return };
            let tracks = offer.sections.iter().map(|section| Publish {
                name: format!("track {}", section.mid),
                mid: Some(section.mid.clone()),
                kind: None,
                way: MediaDirection::In,
            });
            let request =
                Request::Publish { session: session.clone(), tracks: tracks.collect(), offer: Some(offer) };
            taken.set(taken.get() + usize::from(world.ask(request).is_ok()));
        } else {
            let Ok(answer) = Description::parse(DescriptionType::Answer, &text) else { return };
            let publisher = world.session(0);
            let track = || Subscribe {
                publisher: publisher.clone(),
                name: "cam".into(),
                layer: LayerWish::default(),
            };
            let request = Request::Subscribe { session: session.clone(), tracks: vec![track(), track()] };
            world.ask(request).unwrap();
            let request = Request::Answer { session: session.clone(), answer };
            taken.set(taken.get() + usize::from(world.ask(request).is_ok()));
        }
        let _ = world.ask(Request::Tracks { session: session.clone() });
        let tracks = vec![Transceiver::Mid("0".into())];
        let _ = world.ask(Request::Close { session, tracks, offer: None });
        world.pass(MS);
    });
    assert!(taken.get() > 10, "some were taken: {}", taken.get());
    scene.into_inner().goes_on();
}

#[test]
fn panic_in_one_peer_ends_only_its_session() {
    let mut scene = Scene::new();
    let eve = scene.world.join();
    let mic = scene.world.push(eve, &[("mic", TrackKind::Audio, &[])])[0];
    scene.world.connect();
    let of_eve = scene.world.pull_one(1, eve, "mic");
    scene.world.talk(eve, mic, 5);
    let session = scene.world.session(eve);
    let now = scene.world.now;
    let engine = &mut scene.world.engine;
    let key = engine.by_id[&session];
    let nothing: Option<Result<(), &str>> = engine.with_rtc(now, key, |_| panic!("as the test wants it"));
    assert!(nothing.is_none());
    assert_eq!(engine.counters().drops_by(DropReason::Panic), 1);
    engine.advance(now);
    assert_eq!(scene.world.ask(Request::Tracks { session }).err(), Some(SfuError::NoSession));
    let states = scene.world.states(1);
    let ended = states.iter().find(|track| track.mid == of_eve.to_string()).unwrap();
    assert_eq!(ended.status, TrackStatus::Inactive);
    scene.world.peers[eve].gone = true;
    scene.world.pass(SECOND);
    scene.goes_on();
    let source: SocketAddr = scene.world.peers[eve].address;
    assert!(!scene.world.engine.by_source.keys().any(|(_, known)| *known == source));
}

/// Returns the ICE credentials of a description.
fn credentials(told: &SessionDescription) -> (String, String) {
    let value = |name: &str| told.sdp.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    (value("a=ice-ufrag:"), value("a=ice-pwd:"))
}

#[test]
fn ice_credentials_do_not_use_library_generator() {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut world = World::new();
        let (ada, bob) = (world.join(), world.join());
        world.push(ada, &[("mic", TrackKind::Audio, &[])]);
        fastrand::seed(7);
        let (_, told) = world.ask_to_pull(bob, &[(ada, "mic", LayerWish::default())]);
        let told = told.unwrap();
        seen.push(credentials(&told));
        world.answer(bob, &told).unwrap();
        world.connect();
        fastrand::seed(7);
        let mut api = world.peers[ada].rtc.sdp_api();
        api.ice_restart(true);
        let (offer, pending) = api.apply().unwrap();
        let offer = Some(read(DescriptionType::Offer, &offer.to_sdp_string()));
        let request = Request::Publish { session: world.session(ada), tracks: Vec::new(), offer };
        let Ok(Reply::Tracks { description: Some(told), .. }) = world.ask(request) else { panic!("refused") };
        seen.push(credentials(&told));
        world.take_answer(ada, pending, &told);
        world.pass(SECOND);
        assert!(world.report().sessions.iter().all(|session| session.state == "connected"));
    }
    for (at, (ufrag, password)) in seen.iter().enumerate() {
        assert!(!seen[..at].iter().any(|(other, secret)| other == ufrag || secret == password), "{seen:?}");
        assert_eq!((ufrag.len(), password.len()), (16, 24), "96 and 144 bits");
    }
}

/// Regression: str0m panicked in each subscriber's session, which ended it.
#[test]
fn oversized_payload_ends_no_session() {
    let mut scene = Scene::new();
    for bytes in [1500, 1501, 1960] {
        let number = scene.world.number(0, scene.cam, None);
        scene.world.write(0, scene.cam, None, number, 90_000, true, vec![0x10; bytes]);
        scene.world.pass(50 * MS);
    }
    let counters = scene.world.engine.counters();
    assert_eq!((counters.drops_by(DropReason::TooLong), counters.drops_by(DropReason::Panic)), (2, 0));
    assert_eq!(counters.sessions, 2);
}
