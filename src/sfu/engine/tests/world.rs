//! A simulated network with a virtual clock: the engine and its clients in one thread.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::net::{Protocol, Receive};
use str0m::{Event, Input, Output};

use super::client::{Got, Peer};
use crate::engine::{Address, Datagram, Engine, EngineSettings, IceSecret};
use crate::request::*;
use crate::settings::SfuLimits;

/// Extra delay of a reordered packet.
const LATER: Duration = Duration::from_millis(25);

/// Longest time that a packet may wait for a narrow link.
const QUEUE: Duration = Duration::from_millis(300);

/// Resolution of the virtual clock.
const STEP: Duration = Duration::from_millis(1);

pub(crate) const SERVER: &str = "192.0.2.1:8789";

/// The engine, its clients, and the packets in transit.
pub(crate) struct World {
    pub(super) start: Instant,
    pub(crate) now: Instant,
    pub(crate) engine: Engine,
    pub(crate) peers: Vec<Peer>,
    pub(super) by_address: HashMap<SocketAddr, usize>,
    /// Packets by arrival time; the number keeps the order of simultaneous ones.
    flying: BTreeMap<(Instant, u64), (Flight, Vec<u8>)>,
    count: u64,
    random: u64,
    /// Percent of packets lost on the way to the engine, and from it.
    pub(crate) loss: [u64; 2],
    /// Transit time to the engine, and from it.
    pub(crate) delay: [Duration; 2],
    /// Packets from the engine by payload type: lost, and all.
    pub(crate) counted: HashMap<u8, [usize; 2]>,
    /// Percent of packets reordered, and (`doubled`) duplicated, both ways.
    pub(crate) overtaken: u64,
    pub(crate) doubled: u64,
    /// Datagrams that clients sent, while recording is on.
    pub(crate) recorded: Option<Vec<(usize, Vec<u8>)>>,
    /// Datagrams from the engine to addresses of no client.
    pub(crate) strays: usize,
}

#[derive(Clone, Copy)]
enum Flight {
    Up(usize),
    Down(usize),
}

pub(crate) fn limits() -> SfuLimits {
    SfuLimits {
        sessions: 1000,
        sessions_per_owner: 10,
        sessions_per_network: 500,
        subscriptions_per_owner: 1000,
        subscriptions_per_owner_and_track: 10,
        tracks_per_session: 200,
        subscribers_per_track: 200,
        subscribers_per_track_and_network: 150,
        connect: Duration::from_secs(30),
        idle: Duration::from_secs(600),
    }
}

#[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
fn any_instant() -> Instant {
    Instant::now()
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(limits())
    }

    pub(crate) fn with(limits: SfuLimits) -> Self {
        let now = any_instant();
        let address = SERVER.parse().unwrap();
        let candidates = vec![Address { proto: Protocol::Udp, address }];
        Self {
            start: now,
            now,
            engine: Engine::new(
                EngineSettings {
                    limits,
                    candidates,
                    secret: IceSecret::new(b"a secret"),
                    session_prefix: None,
                },
                now,
            ),
            peers: Vec::new(),
            by_address: HashMap::new(),
            flying: BTreeMap::new(),
            count: 0,
            random: 7,
            loss: [0, 0],
            delay: [Duration::from_millis(5); 2],
            counted: HashMap::new(),
            overtaken: 0,
            doubled: 0,
            recorded: None,
            strays: 0,
        }
    }

    /// True with a probability of `percent`.
    fn chance(&mut self, percent: u64) -> bool {
        // Marsaglia's xorshift: the same packets in every run.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 100 < percent
    }

    fn fly(&mut self, flight: Flight, bytes: Vec<u8>) {
        let (way, peer) = match flight {
            Flight::Up(peer) => (0, peer),
            Flight::Down(peer) => (1, peer),
        };
        if self.peers[peer].gone {
            return;
        }
        let is_lost = self.chance(self.loss[way]);
        if way == 1 && (128..192).contains(&bytes[0]) {
            let counted = self.counted.entry(bytes[1] & 0x7f).or_default();
            counted[0] += usize::from(is_lost);
            counted[1] += 1;
        }
        if is_lost {
            return;
        }
        if let Some(left) = &mut self.peers[peer].remb
            && way == 1
        {
            *left += bytes.len();
        }
        let mut arrives = self.now + self.delay[way];
        if let (Flight::Down(_), Some(bits)) = (flight, self.peers[peer].capacity) {
            let busy = self.peers[peer].busy_until.max(self.now);
            let sent = busy + Duration::from_nanos(bytes.len() as u64 * 8 * 1_000_000_000 / bits);
            if sent - self.now > QUEUE {
                return;
            }
            self.peers[peer].busy_until = sent;
            arrives = sent + self.delay[way];
        }
        if self.chance(self.overtaken) {
            arrives += LATER;
        }
        if self.chance(self.doubled) {
            self.count += 1;
            self.flying.insert((arrives + STEP, self.count), (flight, bytes.clone()));
        }
        self.count += 1;
        self.flying.insert((arrives, self.count), (flight, bytes));
    }

    /// Collects a client's output.
    pub(super) fn poll(&mut self, peer: usize) {
        loop {
            let own = &mut self.peers[peer];
            match own.rtc.poll_output().unwrap() {
                Output::Timeout(at) => {
                    own.due_at = at;
                    break;
                }
                Output::Transmit(transmit) => {
                    let bytes: Vec<u8> = transmit.contents.into();
                    if let Some(recorded) = &mut self.recorded {
                        recorded.push((peer, bytes.clone()));
                    }
                    self.fly(Flight::Up(peer), bytes);
                }
                Output::Event(Event::Connected) => own.connected = true,
                Output::Event(Event::Closed) => own.told = true,
                Output::Event(Event::KeyframeRequest(request)) => {
                    own.asked.push((request.mid, request.rid, self.now));
                    if own.obliging {
                        own.due.insert((request.mid, request.rid), true);
                    }
                }
                Output::Event(Event::SenderFeedback(report)) => own.reports.push(report),
                Output::Event(Event::RtpPacket(packet)) => {
                    let ssrc = packet.header.ssrc;
                    let mid = own.rtc.direct_api().stream_rx(&ssrc).unwrap().mid();
                    let got = Got {
                        seq: *packet.seq_no,
                        time: packet.header.timestamp,
                        payload: packet.payload.to_vec(),
                        at: self.now,
                    };
                    own.got.entry(mid).or_default().push(got);
                }
                Output::Event(_) => {}
            }
        }
    }

    /// Advances the clock.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        // Skips clients that are gone, since tests may add many.
        let alive: Vec<usize> = (0..self.peers.len()).filter(|peer| !self.peers[*peer].gone).collect();
        while self.now < end {
            let next = alive.iter().map(|peer| self.peers[*peer].due_at).chain(self.engine.deadline());
            let next = next.chain(self.flying.first_key_value().map(|(key, _)| key.0)).min();
            self.now = next.unwrap_or(end).max(self.now + STEP).min(end);
            while let Some(entry) = self.flying.first_entry()
                && entry.key().0 <= self.now
            {
                let (flight, bytes) = entry.remove();
                self.arrive(flight, &bytes);
            }
            if self.engine.deadline().is_some_and(|at| at <= self.now) {
                self.engine.advance(self.now);
            }
            self.send();
            for &peer in &alive {
                if self.peers[peer].due_at <= self.now {
                    self.peers[peer].rtc.handle_input(Input::Timeout(self.now)).unwrap();
                    self.poll(peer);
                }
            }
        }
    }

    fn arrive(&mut self, flight: Flight, contents: &[u8]) {
        match flight {
            Flight::Up(peer) => {
                // Simultaneous packets are received before any output is sent, as on the media thread.
                let source = self.peers[peer].address;
                self.receive(source, contents);
            }
            Flight::Down(peer) => {
                let own = &mut self.peers[peer];
                if own.gone {
                    return;
                }
                let server = SERVER.parse().unwrap();
                let receive = Receive::new(Protocol::Udp, server, own.address, contents).unwrap();
                own.rtc.handle_input(Input::Receive(self.now, receive)).unwrap();
                self.poll(peer);
            }
        }
    }

    /// Passes a datagram to the engine, as if from this address.
    pub(crate) fn deliver(&mut self, source: SocketAddr, contents: &[u8]) {
        self.receive(source, contents);
        self.send();
    }

    fn receive(&mut self, source: SocketAddr, contents: &[u8]) {
        let destination = SERVER.parse().unwrap();
        let datagram = Datagram { proto: Protocol::Udp, source, destination, contents };
        self.engine.receive(self.now, datagram);
    }

    /// Puts the engine's output in transit.
    pub(crate) fn send(&mut self) {
        while let Some(transmit) = self.engine.transmit() {
            match self.by_address.get(&transmit.destination) {
                Some(to) => self.fly(Flight::Down(*to), transmit.contents),
                None => self.strays += 1,
            }
        }
    }

    /// Advances the clock until a condition holds.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, fact: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(60);
        while self.now < end {
            if fact(self) {
                return;
            }
            self.pass(STEP);
        }
        panic!("it never came that {what}");
    }

    /// Sends a request to the engine.
    pub(crate) fn ask(&mut self, request: Request) -> RequestResult {
        let outcome = self.engine.handle(self.now, request);
        self.send();
        outcome
    }

    #[track_caller]
    pub(crate) fn report(&mut self) -> SfuReport {
        match self.ask(Request::Report) {
            Ok(Reply::Report(report)) => *report,
            other => panic!("no report: {other:?}"),
        }
    }
}
