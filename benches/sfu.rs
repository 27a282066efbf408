//! What forwarding costs: the real server as a process of its own, and clients of the library str0m.
//!
//! Clients say in each packet when it was sent, so a packet's way through the server is measured by
//! one clock, their own encryption included. Processor time and memory are those of the server's
//! media thread and process, as the system (Linux) tells them.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench measures time and may panic")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};
use str0m::change::{SdpAnswer, SdpOffer};
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

/// How long each load is measured.
const MEASURED: Duration = Duration::from_secs(10);

/// How long it runs before that.
const WARM_UP: Duration = Duration::from_secs(3);

/// Bytes of a packet of a picture, as browsers make them.
const PICTURE_PACKET: usize = 1100;

fn main() {
    // `cargo test --benches` runs this too; there it has nothing to check.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!(
        "load | forwarded/s | of a core | a packet | latency p50, p99, most | with keyframes p99 | memory"
    );
    for (name, people, subscribers, bits) in [
        ("1 to 30 at 0.5 Mbit/s", 0, 30, 500_000),
        ("1 to 100 at 0.5 Mbit/s", 0, 100, 500_000),
        ("room of 6 at 0.5 Mbit/s", 6, 0, 500_000),
        ("room of 6 at 2.5 Mbit/s", 6, 0, 2_500_000),
    ] {
        runtime.block_on(LocalSet::new().run_until(run(name, people, subscribers, bits)));
    }
}

/// A load: a room of `people` who all see and hear each other, or one picture for `subscribers`.
async fn run(name: &str, people: usize, subscribers: usize, bits: u32) {
    let server = Server::start();
    let epoch = Instant::now();
    let (empty, tell) = (server.memory(), Rc::new(epoch));
    let publishers = people.max(1);
    let (latencies, mut told) = mpsc::unbounded_channel();
    let mut peers = Vec::new();
    for _ in 0..publishers + subscribers {
        peers.push(Peer::join(&server, tell.clone(), latencies.clone()).await);
    }
    let mut tracks = Vec::new();
    for (number, peer) in peers.iter().take(publishers).enumerate() {
        let mut names = vec![(format!("video-{number}"), MediaKind::Video)];
        if people > 0 {
            names.push((format!("audio-{number}"), MediaKind::Audio));
        }
        peer.publish(&server, &names, bits).await;
        tracks.push((peer.session.clone(), names));
    }
    for (number, peer) in peers.iter().enumerate() {
        let others = tracks.iter().enumerate().filter(|(publisher, _)| *publisher != number);
        let wanted: Vec<Value> = others
            .flat_map(|(_, (session, names))| names.iter().map(move |(name, _)| (session, name)))
            .map(|(session, name)| json!({"location": "remote", "sessionId": session, "trackName": name}))
            .collect();
        if !wanted.is_empty() {
            peer.subscribe(&server, &wanted).await;
        }
    }
    tokio::time::sleep(WARM_UP).await;
    let media = server.media_seconds();
    let start = Instant::now();
    while told.try_recv().is_ok() {}
    let (mut plain, mut all) = (Vec::new(), Vec::new());
    tokio::time::sleep(MEASURED).await;
    let took = start.elapsed().as_secs_f64();
    let busy = server.media_seconds() - media;
    while let Ok(Latency { took, of_keyframe }) = told.try_recv() {
        all.push(took);
        if !of_keyframe {
            plain.push(took);
        }
    }
    let packets = all.len();
    let [plain, all] = [plain, all].map(|mut latencies| {
        latencies.sort_unstable();
        latencies
    });
    let at = |sorted: &[Duration], share: f64| {
        let index = ((sorted.len() as f64 - 1.0) * share) as usize;
        sorted.get(index).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
    };
    println!(
        "{name} | {:.0} | {:.1} % | {:.1} µs | {:.2}, {:.2}, {:.1} ms | {:.2} ms | {:.1} MB for {} sessions",
        packets as f64 / took,
        100.0 * busy / took,
        1e6 * busy / packets as f64,
        at(&plain, 0.5),
        at(&plain, 0.99),
        at(&plain, 1.0),
        at(&all, 0.99),
        (server.memory() - empty) as f64 / 1e6,
        peers.len(),
    );
}

/// The server, as a process of its own.
struct Server {
    process: Child,
    base: String,
    client: Client,
    _data: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_satsuma"))
            .env_clear()
            .current_dir(data.path())
            .env("SATSUMA_HTTP__LISTEN", "127.0.0.1:0")
            .env("SATSUMA_ADMIN__LISTEN", "127.0.0.1:0")
            .env("SATSUMA_SFU__UDP_LISTEN", "127.0.0.1:0")
            .env("SATSUMA_SFU__API_SECRET", "bench")
            .env("SATSUMA_LOG__FORMAT", "json")
            .env("SATSUMA_LOG__FILTER", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        let base = format!("http://{}/v1/apps/embedded", said["http"].as_str().unwrap());
        Self { process, base, client: Client::builder().no_proxy().build().unwrap(), _data: data }
    }

    async fn call(&self, method: reqwest::Method, path: &str, body: Value) -> Value {
        let request = self.client.request(method, format!("{}/{path}", self.base)).bearer_auth("bench");
        let answer = request.body(body.to_string()).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert!(!text.contains("errorCode"), "{path}: {text}");
        answer
    }

    /// Processor time of the media thread.
    fn media_seconds(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let stats = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap());
        let media = stats.into_iter().find(|stat| stat.contains("(sfu-media)")).unwrap();
        let fields: Vec<&str> = media.rsplit_once(") ").unwrap().1.split(' ').collect();
        // proc(5): utime and stime, in ticks of which Linux has 100 a second everywhere.
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    /// Resident memory of the process, in bytes.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How long a packet was under way.
struct Latency {
    took: Duration,
    of_keyframe: bool,
}

type Change = Box<dyn FnOnce(&mut Rtc) -> Option<String>>;

/// A client: a task that owns its socket and its library.
struct Peer {
    session: String,
    changes: mpsc::UnboundedSender<(Change, oneshot::Sender<Option<String>>)>,
    streams: mpsc::UnboundedSender<Stream>,
}

/// A stream that a client sends.
struct Stream {
    mid: Mid,
    kind: MediaKind,
    bits: u32,
}

impl Peer {
    async fn join(server: &Server, epoch: Rc<Instant>, latencies: mpsc::UnboundedSender<Latency>) -> Self {
        let opened = server.call(reqwest::Method::POST, "sessions/new", json!({})).await;
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut rtc = Rtc::builder()
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .build(Instant::now());
        rtc.add_local_candidate(Candidate::host(socket.local_addr().unwrap(), "udp").unwrap());
        let (changes, to_change) = mpsc::unbounded_channel();
        let (streams, to_send) = mpsc::unbounded_channel();
        tokio::task::spawn_local(live(rtc, socket, to_change, to_send, epoch, latencies));
        Self { session: opened["sessionId"].as_str().unwrap().to_owned(), changes, streams }
    }

    async fn change(&self, change: impl FnOnce(&mut Rtc) -> Option<String> + 'static) -> Option<String> {
        let (tell, told) = oneshot::channel();
        self.changes.send((Box::new(change), tell)).ok().unwrap();
        told.await.unwrap()
    }

    async fn publish(&self, server: &Server, tracks: &[(String, MediaKind)], bits: u32) {
        let (tell, told) = std::sync::mpsc::channel();
        let kinds: Vec<MediaKind> = tracks.iter().map(|(_, kind)| *kind).collect();
        let offer = self.change(move |rtc| {
            let mut api = rtc.sdp_api();
            let add = |kind: &MediaKind| api.add_media(*kind, Direction::SendOnly, None, None, None);
            let mids: Vec<Mid> = kinds.iter().map(add).collect();
            let (offer, pending) = api.apply().unwrap();
            tell.send((mids, pending)).unwrap();
            Some(offer.to_sdp_string())
        });
        let offer = offer.await.unwrap();
        let (mids, pending) = told.recv().unwrap();
        let named = tracks.iter().zip(&mids);
        let named: Vec<Value> = named
            .map(|((name, _), mid)| json!({"location": "local", "mid": mid.to_string(), "trackName": name}))
            .collect();
        let body = json!({"tracks": named, "sessionDescription": {"type": "offer", "sdp": offer}});
        let path = format!("sessions/{}/tracks/new", self.session);
        let answer = server.call(reqwest::Method::POST, &path, body).await;
        let sdp = answer["sessionDescription"]["sdp"].as_str().unwrap().to_owned();
        self.change(move |rtc| {
            rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&sdp).unwrap()).unwrap();
            None
        })
        .await;
        for ((_, kind), mid) in tracks.iter().zip(mids) {
            self.streams.send(Stream { mid, kind: *kind, bits }).ok().unwrap();
        }
    }

    async fn subscribe(&self, server: &Server, tracks: &[Value]) {
        let path = format!("sessions/{}/tracks/new", self.session);
        let answer = server.call(reqwest::Method::POST, &path, json!({"tracks": tracks})).await;
        let sdp = answer["sessionDescription"]["sdp"].as_str().unwrap().to_owned();
        let answer = self.change(move |rtc| {
            let offer = SdpOffer::from_sdp_string(&sdp).unwrap();
            Some(rtc.sdp_api().accept_offer(offer).unwrap().to_sdp_string())
        });
        let body = json!({"sessionDescription": {"type": "answer", "sdp": answer.await.unwrap()}});
        let path = format!("sessions/{}/renegotiate", self.session);
        server.call(reqwest::Method::PUT, &path, body).await;
    }
}

/// A stream under way.
struct Sending {
    mid: Mid,
    kind: MediaKind,
    /// How often a picture or a piece of sound is sent, and of how many packets it is.
    every: Duration,
    packets: usize,
    next: Instant,
    seq: u64,
    time: u32,
    number: u64,
    keyframe_due: bool,
}

async fn live(
    mut rtc: Rtc,
    socket: UdpSocket,
    mut changes: mpsc::UnboundedReceiver<(Change, oneshot::Sender<Option<String>>)>,
    mut streams: mpsc::UnboundedReceiver<Stream>,
    epoch: Rc<Instant>,
    latencies: mpsc::UnboundedSender<Latency>,
) {
    let mut buffer = vec![0; 2048];
    let mut sending: Vec<Sending> = Vec::new();
    let local = socket.local_addr().unwrap();
    let mut connected = false;
    loop {
        let wake = loop {
            match rtc.poll_output().unwrap() {
                Output::Timeout(at) => break at,
                Output::Transmit(transmit) => {
                    let _ = socket.try_send_to(&transmit.contents, transmit.destination);
                }
                Output::Event(Event::Connected) => connected = true,
                Output::Event(Event::KeyframeRequest(request)) => {
                    for stream in sending.iter_mut().filter(|stream| stream.mid == request.mid) {
                        stream.keyframe_due = true;
                    }
                }
                Output::Event(Event::RtpPacket(packet)) => {
                    let Some(sent) = packet.payload.get(5..13) else { continue };
                    let sent = Duration::from_nanos(u64::from_be_bytes(sent.try_into().unwrap()));
                    let took = epoch.elapsed().saturating_sub(sent);
                    let of_keyframe = packet.payload.get(4) == Some(&0);
                    let _ = latencies.send(Latency { took, of_keyframe });
                }
                Output::Event(_) => {}
            }
        };
        let next = sending.iter().map(|stream| stream.next).min().filter(|_| connected);
        let wake = next.map_or(wake, |next| next.min(wake));
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                let (bytes, source) = received.unwrap();
                take(&mut rtc, &buffer[..bytes], source, local);
                while let Ok((bytes, source)) = socket.try_recv_from(&mut buffer) {
                    take(&mut rtc, &buffer[..bytes], source, local);
                }
            }
            Some((change, tell)) = changes.recv() => {
                let told = change(&mut rtc);
                let _ = tell.send(told);
            }
            Some(Stream { mid, kind, bits }) = streams.recv() => {
                let (every, packets) = match kind {
                    MediaKind::Audio => (Duration::from_millis(20), 1),
                    MediaKind::Video => {
                        let pictures = 30.0;
                        let packets = f64::from(bits) / 8.0 / pictures / PICTURE_PACKET as f64;
                        (Duration::from_secs_f64(packets.ceil() / packets / pictures), packets.ceil() as usize)
                    }
                };
                sending.push(Sending {
                    mid, kind, every, packets, next: Instant::now(), seq: 1000, time: 0, number: 0,
                    keyframe_due: true,
                });
            }
            () = tokio::time::sleep_until(wake.into()) => {}
        }
        let now = Instant::now();
        if connected {
            for stream in sending.iter_mut().filter(|stream| stream.next <= now) {
                send(&mut rtc, stream, *epoch);
            }
        }
        rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
    }
}

fn take(rtc: &mut Rtc, bytes: &[u8], source: SocketAddr, destination: SocketAddr) {
    if let Ok(receive) = Receive::new(Protocol::Udp, source, destination, bytes) {
        rtc.handle_input(Input::Receive(Instant::now(), receive)).unwrap();
    }
}

/// Sends one picture, or one piece of sound.
fn send(rtc: &mut Rtc, stream: &mut Sending, epoch: Instant) {
    let pt = rtc.media(stream.mid).unwrap().remote_pts()[0];
    let keyframe = std::mem::take(&mut stream.keyframe_due) && stream.kind == MediaKind::Video;
    // A keyframe is about eight times as long.
    let packets = if keyframe { stream.packets * 8 } else { stream.packets };
    let id = (stream.number as u16) & 0x7fff;
    for packet in 0..packets {
        let [high, low] = (id | 0x8000).to_be_bytes();
        // RFC 7741: extended, a start at the first packet, a long PictureID; then the P bit.
        let start = if packet == 0 { 0x90 } else { 0x80 };
        let mut payload = vec![start, 0x80, high, low, u8::from(!keyframe)];
        payload.extend_from_slice(&(epoch.elapsed().as_nanos() as u64).to_be_bytes());
        payload.resize(if stream.kind == MediaKind::Audio { 80 } else { PICTURE_PACKET }, 0);
        let write = RtpWrite::new(pt, stream.seq.into(), stream.time, Instant::now(), payload)
            .marker(packet + 1 == packets)
            .nackable(true);
        stream.seq += 1;
        let mut api = rtc.direct_api();
        api.stream_tx_by_mid(stream.mid, None).unwrap().write_rtp(write);
    }
    stream.number += 1;
    let clock = if stream.kind == MediaKind::Audio { 48_000.0 } else { 90_000.0 };
    stream.time = stream.time.wrapping_add((stream.every.as_secs_f64() * clock) as u32);
    stream.next += stream.every;
}
