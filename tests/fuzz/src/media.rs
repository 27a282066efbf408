//! The embedded media server: descriptions, calls of the API, connectivity checks, and all of it in turn.

use std::net::SocketAddr;
use std::panic;
use std::sync::Once;
use std::time::{Duration, Instant};

use http::Method;
use satsuma::id::SessionId;
use satsuma::media_api::api::{CallTarget, Caller};
use satsuma_sfu::SfuLimits;
use satsuma_sfu::api;
use satsuma_sfu::engine::{Address, Datagram, Engine, EngineSettings, IceSecret, Protocol};
use satsuma_sfu::fuzzing;
use satsuma_sfu::request::{Description, DescriptionType, Ice, Reply, Request, RequestResult};
use serde::de::IgnoredAny;

/// Chromium's offer of audio and video, shortened.
const OFFER: &str = include_str!("../seeds/sdp/offer");

/// The placeholder of the engine's first session in paths and bodies.
const OWN: &str = "self";

/// Operations of one input; each costs the fuzzer time.
const OPERATIONS: usize = 64;

fn limits() -> SfuLimits {
    SfuLimits {
        sessions: 4,
        sessions_per_owner: 4,
        sessions_per_network: 4,
        subscriptions_per_owner: 64,
        subscriptions_per_owner_and_track: 4,
        tracks_per_session: 16,
        subscribers_per_track: 8,
        subscribers_per_track_and_network: 8,
        connect: Duration::from_secs(30),
        idle: Duration::from_secs(600),
    }
}

/// A media server with one session, whose peer sent [`OFFER`].
struct Server {
    engine: Engine,
    now: Instant,
    own: SessionId,
    ufrag: String,
}

/// Lets a panic unwind. The fuzzer's own hook would end the process at any, also at one of str0m for a malformed
/// description: the engine survives it, and ends the session. One that it does not survive still ends the process.
static UNWIND: Once = Once::new();

impl Server {
    fn new() -> Self {
        UNWIND.call_once(|| panic::set_hook(Box::new(|panicked| eprintln!("{panicked}"))));
        let now = Instant::now();
        let address = Address { proto: Protocol::Udp, address: ([192, 0, 2, 1], 8789).into() };
        let secret = IceSecret::new(b"a secret");
        let mut engine = Engine::new(
            EngineSettings { limits: limits(), candidates: vec![address], secret, session_prefix: None },
            now,
        );
        let offer = Description::parse(DescriptionType::Offer, OFFER).expect("an offer");
        let (owner, network) = (Caller::Ai, None);
        let opened = engine.handle(now, Request::Open { owner, network, offer: Some(offer), ice: Ice::Lite });
        let Ok(Reply::Opened { session, description: Some(answer) }) = opened else {
            panic!("not opened: {opened:?}");
        };
        let mut server = Self { engine, now, own: session, ufrag: String::new() };
        server.heed_sdp(&answer.sdp);
        server.drain();
        server
    }

    fn heed_sdp(&mut self, sdp: &str) {
        if let Some(ufrag) = sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")) {
            ufrag.clone_into(&mut self.ufrag);
        }
    }

    /// A call as text: `METHOD path?query`, and the body from the next line on.
    fn call(&mut self, text: &str) {
        let text = text.replace(OWN, self.own.as_str());
        let (line, body) = text.split_once('\n').unwrap_or((&text, ""));
        let (method, path) = line.split_once(' ').unwrap_or((line, ""));
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
        let Some(target) = CallTarget::parse(&method, path) else { return };
        let asked = api::ApiRequest {
            target: target.clone(),
            query: query.map(str::to_owned),
            body: body.to_owned().into(),
            caller: Caller::Ai,
            network: None,
        };
        let outcome = match api::read(&asked) {
            Ok(request) => self.engine.handle(self.now, request),
            Err(error) => Err(error),
        };
        self.heed(&outcome);
        let (_, answer) = api::answer(&target, outcome);
        assert!(serde_json::from_str::<IgnoredAny>(&answer).is_ok(), "no JSON: {answer}");
        self.drain();
    }

    fn heed(&mut self, outcome: &RequestResult) {
        if let Ok(
            Reply::Opened { description: Some(told), .. } | Reply::Tracks { description: Some(told), .. },
        ) = outcome
        {
            // Descriptions for clients can be parsed again.
            Description::parse(told.r#type, &told.sdp).expect("a description of our own");
            let sdp = told.sdp.clone();
            self.heed_sdp(&sdp);
        }
    }

    fn receive(&mut self, source: u8, contents: &[u8]) {
        let source = SocketAddr::from(([203, 0, 113, source], 4000));
        let destination = SocketAddr::from(([192, 0, 2, 1], 8789));
        let datagram = Datagram { proto: Protocol::Udp, source, destination, contents };
        self.engine.receive(self.now, datagram);
        self.drain();
    }

    /// A binding request for the session, with these bytes as its further attributes.
    fn check(&mut self, source: u8, more: &[u8]) {
        let name = format!("{}:peer", self.ufrag);
        let mut attributes = vec![0, 6];
        attributes.extend((name.len() as u16).to_be_bytes());
        attributes.extend(name.as_bytes());
        attributes.resize(attributes.len().next_multiple_of(4), 0);
        attributes.extend(more);
        let mut message = vec![0, 1];
        message.extend((attributes.len() as u16).to_be_bytes());
        message.extend([0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        message.extend(attributes);
        self.receive(source, &message);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for _ in 0..8 {
            if self.engine.deadline().is_none_or(|at| at > self.now) {
                break;
            }
            self.engine.advance(self.now);
            self.drain();
        }
    }

    fn drain(&mut self) {
        let sent = (0..10_000).take_while(|_| self.engine.transmit().is_some()).count();
        assert!(sent < 10_000, "it never ends");
        let counters = self.engine.counters();
        assert!(counters.sessions <= limits().sessions);
        assert!(counters.tracks <= counters.sessions * limits().tracks_per_session);
    }
}

/// A client's session description: it is accepted or refused, and an answer to it has the same m-lines.
pub fn sdp(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    for r#type in [DescriptionType::Offer, DescriptionType::Answer] {
        let Some(read) = fuzzing::description(r#type, text) else { continue };
        if r#type == DescriptionType::Offer {
            let mut server = Server::new();
            let session = server.own.clone();
            let offer = Some(read);
            let outcome =
                server.engine.handle(server.now, Request::Publish { session, tracks: Vec::new(), offer });
            server.heed(&outcome);
            server.drain();
        }
    }
}

/// One call of the media API.
pub fn calls(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut server = Server::new();
    server.call(text);
    server.call("GET sessions/self");
    server.pass(Duration::from_secs(1));
}

/// Datagrams, each behind its length and its source: verbatim, and as attributes of a check.
pub fn stun(data: &[u8]) {
    let mut server = Server::new();
    for (source, contents) in parts(data).take(OPERATIONS) {
        server.receive(source % 4, contents);
        server.check(source % 4, contents);
    }
    server.pass(Duration::from_millis(50));
}

/// Calls, datagrams and time, in turn.
pub fn engine(data: &[u8]) {
    let mut server = Server::new();
    for (what, contents) in parts(data).take(OPERATIONS) {
        let source = what / 4 % 4;
        match what % 4 {
            0 => server.call(&String::from_utf8_lossy(contents)),
            1 => server.receive(source, contents),
            2 => server.check(source, contents),
            _ => server.pass(Duration::from_millis(contents.len() as u64 * 40)),
        }
    }
    server.pass(Duration::from_secs(31));
}

/// Parts of an input: a byte, a length of two bytes, and that many bytes.
fn parts(data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let [what, high, low, after @ ..] = rest else { return None };
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (part, after) = after.split_at(length);
        rest = after;
        Some((*what, part))
    })
}
