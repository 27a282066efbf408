//! The media half of a client: a str0m peer, as on the server, on a real socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid, Rid, Simulcast, SimulcastLayer};
use str0m::net::{Protocol, Receive, TcpType};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use crate::harness::eventually;

/// Packet intervals of a microphone and a camera.
const FRAME: Duration = Duration::from_millis(20);

/// The transport of a peer's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    Udp,
    /// Over the loopback of IPv6.
    Udp6,
    /// By TCP alone (RFC 6544), in frames of RFC 4571.
    Tcp,
}

/// An m-line of an offer.
#[derive(Clone, Copy, Debug)]
pub struct Media {
    pub kind: MediaKind,
    /// Its simulcast layers, if any.
    pub rids: &'static [&'static str],
}

pub const MICROPHONE: Media = Media { kind: MediaKind::Audio, rids: &[] };
pub const CAMERA: Media = Media { kind: MediaKind::Video, rids: &[] };
pub const LAYERED_CAMERA: Media = Media { kind: MediaKind::Video, rids: &["a", "b"] };

type Act = Box<dyn FnOnce(&mut Station) + Send>;

/// A peer. A dropped one stops sending without closing, as a machine without power does.
pub struct Peer {
    net: Net,
    acts: mpsc::UnboundedSender<Act>,
    arrived: mpsc::UnboundedSender<(SocketAddr, Vec<u8>)>,
    observed: Arc<Mutex<Observed>>,
    /// The server's address, once there is a connection to it.
    connected_to: Mutex<Option<SocketAddr>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

/// A peer's observations.
#[derive(Default)]
struct Observed {
    connected: bool,
    /// Packets by transceiver and content.
    received: BTreeMap<(Mid, String), u64>,
}

impl Peer {
    pub async fn new(net: Net) -> Self {
        let (acts, todo) = mpsc::unbounded_channel();
        let (arrived, arriving) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let mut rtc = Rtc::builder()
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .enable_bwe(None)
            .build(now());
        let own = match net {
            Net::Udp => "127.0.0.1:0",
            Net::Udp6 => "[::1]:0",
            Net::Tcp => "",
        };
        let link = match net {
            Net::Tcp => Link::None,
            Net::Udp | Net::Udp6 => {
                let socket = Arc::new(UdpSocket::bind(own).await.unwrap());
                let address = socket.local_addr().unwrap();
                rtc.add_local_candidate(Candidate::host(address, "udp").unwrap()).unwrap();
                tasks.spawn(read_datagrams(socket.clone(), arrived.clone()));
                Link::Udp(socket, address)
            }
        };
        let observed = Arc::new(Mutex::new(Observed::default()));
        let voices = Vec::new();
        let station = Station { rtc, link, pending: None, voices, observed: observed.clone() };
        tasks.spawn(station.run(todo, arriving));
        let tasks = Arc::new(Mutex::new(tasks));
        Self { net, acts, arrived, observed, connected_to: Mutex::new(None), tasks }
    }

    /// An offer that adds these tracks; and their transceivers.
    pub async fn offer(&self, media: &[Media]) -> (Vec<Mid>, String) {
        let media = media.to_vec();
        self.with(move |station| {
            let mut api = station.rtc.sdp_api();
            let add = |Media { kind, rids }: &Media| {
                let send = rids.iter().map(|rid| SimulcastLayer::new(rid)).collect();
                let simulcast = (!rids.is_empty()).then(|| Simulcast { send, recv: Vec::new() });
                api.add_media(*kind, Direction::SendOnly, None, None, simulcast)
            };
            let mids = media.iter().map(add).collect();
            let (offer, pending) = api.apply().unwrap();
            station.pending = Some(pending);
            (mids, offer.to_sdp_string())
        })
        .await
    }

    /// An offer in which these transceivers are stopped.
    pub async fn stop(&self, mids: &[Mid]) -> String {
        let mids = mids.to_vec();
        self.with(move |station| {
            station.voices.retain(|voice| !mids.contains(&voice.mid));
            let mut api = station.rtc.sdp_api();
            mids.iter().for_each(|mid| api.stop_media(*mid));
            let (offer, pending) = api.apply().unwrap();
            station.pending = Some(pending);
            offer.to_sdp_string()
        })
        .await
    }

    /// Applies the answer to the last offer.
    pub async fn accept(&self, answer: &str) {
        let answer = SdpAnswer::from_sdp_string(&self.reach(answer).await).unwrap();
        self.with(|station| {
            let pending = station.pending.take().unwrap();
            station.rtc.sdp_api().accept_answer(pending, answer).unwrap();
        })
        .await;
    }

    /// Answers an offer.
    pub async fn answer(&self, offer: &str) -> String {
        let offer = SdpOffer::from_sdp_string(&self.reach(offer).await).unwrap();
        self.with(|station| station.rtc.sdp_api().accept_offer(offer).unwrap().to_sdp_string()).await
    }

    /// Sends packets with this content on a transceiver from now on.
    pub async fn say(&self, mid: Mid, words: &str) {
        self.say_in(mid, None, words).await;
    }

    /// The same in one layer.
    pub async fn say_in(&self, mid: Mid, rid: Option<&str>, words: &str) {
        let (rid, words) = (rid.map(Rid::from), words.to_owned());
        self.with(move |station| {
            match station.voices.iter_mut().find(|voice| voice.mid == mid && voice.rid == rid) {
                Some(voice) => voice.words = words,
                None => {
                    station.voices.push(Voice { mid, rid, words, seq: 1000, time: 0, is_keyframe_due: true });
                }
            }
        })
        .await;
    }

    /// Number of packets received on a transceiver with this content.
    pub fn received(&self, mid: Mid, words: &str) -> u64 {
        self.observed.lock().unwrap().received.get(&(mid, words.to_owned())).copied().unwrap_or_default()
    }

    /// Waits until the connection is established.
    #[track_caller]
    pub fn until_connected(&self) -> impl Future<Output = ()> {
        eventually("the peer is connected".to_owned(), async || self.observed.lock().unwrap().connected)
    }

    /// Waits for further packets with this content on a transceiver.
    #[track_caller]
    pub fn until_received(&self, mid: Mid, words: &str) -> impl Future<Output = ()> {
        let (before, words) = (self.received(mid, words), words.to_owned());
        let fact = async move || self.received(mid, &words) >= before + 5;
        eventually(format!("further packets came on {mid}"), fact)
    }

    /// Runs a function with the peer's state.
    async fn with<T: Send + 'static>(&self, act: impl FnOnce(&mut Station) -> T + Send + 'static) -> T {
        let (sender, observed) = oneshot::channel();
        let act: Act = Box::new(move |station| {
            let _ = sender.send(act(station));
        });
        assert!(self.acts.send(act).is_ok(), "the peer is gone");
        observed.await.expect("the peer lives")
    }

    /// Opens the connection to the server over TCP if needed; returns the server's description without
    /// addresses that this peer does not use.
    async fn reach(&self, sdp: &str) -> String {
        if self.net != Net::Tcp {
            return sdp.to_owned();
        }
        let address = candidates(sdp, "tcp").first().copied().expect("a candidate for TCP");
        let is_new = self.connected_to.lock().unwrap().replace(address).is_none();
        if is_new {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let local = stream.local_addr().unwrap();
            let (reader, writer) = stream.into_split();
            let (frames, waiting) = mpsc::unbounded_channel();
            {
                let mut tasks = self.tasks.lock().unwrap();
                tasks.spawn(read_frames(reader, address, self.arrived.clone()));
                tasks.spawn(write_frames(writer, waiting));
            }
            self.with(move |station| {
                let candidate = Candidate::builder().tcp().host(local).tcptype(TcpType::Active).build();
                station.rtc.add_local_candidate(candidate.unwrap()).unwrap();
                station.link = Link::Tcp(frames, local);
            })
            .await;
        }
        let usable = sdp.split_inclusive('\n').filter(|line| !is_candidate(line, "udp"));
        usable.collect()
    }
}

/// The addresses in a description for a protocol.
pub fn candidates(sdp: &str, protocol: &str) -> Vec<SocketAddr> {
    let lines = sdp.lines().filter(|line| is_candidate(line, protocol));
    let address = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        SocketAddr::new(words[4].parse().unwrap(), words[5].parse().unwrap())
    };
    let mut addresses: Vec<SocketAddr> = lines.map(address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn is_candidate(line: &str, protocol: &str) -> bool {
    let named = line.strip_prefix("a=candidate:").and_then(|rest| rest.split(' ').nth(2));
    named.is_some_and(|named| named.eq_ignore_ascii_case(protocol))
}

/// State of the peer's task.
struct Station {
    rtc: Rtc,
    link: Link,
    /// The offer that waits for its answer.
    pending: Option<SdpPendingOffer>,
    voices: Vec<Voice>,
    observed: Arc<Mutex<Observed>>,
}

enum Link {
    None,
    Udp(Arc<UdpSocket>, SocketAddr),
    Tcp(mpsc::UnboundedSender<Vec<u8>>, SocketAddr),
}

/// A stream of packets on a transceiver.
struct Voice {
    mid: Mid,
    rid: Option<Rid>,
    words: String,
    seq: u64,
    time: u32,
    is_keyframe_due: bool,
}

impl Station {
    async fn run(
        mut self,
        mut todo: mpsc::UnboundedReceiver<Act>,
        mut arriving: mpsc::UnboundedReceiver<(SocketAddr, Vec<u8>)>,
    ) {
        let mut frames = interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let until = self.poll();
            tokio::select! {
                act = todo.recv() => match act {
                    Some(act) => act(&mut self),
                    None => return,
                },
                Some((source, contents)) = arriving.recv() => self.take(source, &contents),
                _ = frames.tick() => self.speak(),
                () = sleep_until(until.into()) => {}
            }
            let _ = self.rtc.handle_input(Input::Timeout(now()));
        }
    }

    fn take(&mut self, source: SocketAddr, contents: &[u8]) {
        let (proto, own) = match &self.link {
            Link::None => return,
            Link::Udp(_, own) => (Protocol::Udp, *own),
            Link::Tcp(_, own) => (Protocol::Tcp, *own),
        };
        let receive = Receive::new(proto, source, own, contents).unwrap();
        let _ = self.rtc.handle_input(Input::Receive(now(), receive));
    }

    /// Sends due packets, records events, and returns the time of the next call.
    fn poll(&mut self) -> Instant {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => return at,
                Ok(Output::Transmit(transmit)) => match &self.link {
                    Link::None => {}
                    Link::Udp(socket, _) => {
                        // A packet that the system refuses is lost, as on any network.
                        let _ = socket.try_send_to(&transmit.contents, transmit.destination);
                    }
                    Link::Tcp(frames, _) => {
                        let _ = frames.send(transmit.contents.into());
                    }
                },
                Ok(Output::Event(event)) => self.note(event),
                // The connection is closed.
                Err(_) => return now() + FRAME,
            }
        }
    }

    fn note(&mut self, event: Event) {
        let mut observed = self.observed.lock().unwrap();
        match event {
            Event::Connected => observed.connected = true,
            Event::KeyframeRequest(request) => {
                let matching = self.voices.iter_mut().filter(|voice| voice.mid == request.mid);
                for voice in matching.filter(|voice| request.rid.is_none() || request.rid == voice.rid) {
                    voice.is_keyframe_due = true;
                }
            }
            Event::RtpPacket(packet) => {
                let mut api = self.rtc.direct_api();
                let mid = api.stream_rx(&packet.header.ssrc).unwrap().mid();
                let is_sound = self.rtc.media(mid).unwrap().kind() == MediaKind::Audio;
                let words = &packet.payload[if is_sound { 0 } else { VP8_HEADER_BYTES }..];
                *observed.received.entry((mid, String::from_utf8(words.to_vec()).unwrap())).or_default() += 1;
            }
            _ => {}
        }
    }

    fn speak(&mut self) {
        let now = now();
        for voice in &mut self.voices {
            let Some(media) = self.rtc.media(voice.mid) else { continue };
            let (kind, Some(&pt)) = (media.kind(), media.remote_pts().first()) else { continue };
            let payload = match kind {
                MediaKind::Audio => voice.words.as_bytes().to_vec(),
                MediaKind::Video => vp8_picture(voice),
            };
            let mut api = self.rtc.direct_api();
            let Some(stream) = api.stream_tx_by_mid(voice.mid, voice.rid) else { continue };
            voice.seq += 1;
            voice.time += if kind == MediaKind::Audio { 960 } else { 1800 };
            let write = RtpWrite::new(pt, voice.seq.into(), voice.time, now, payload);
            let is_picture = kind == MediaKind::Video;
            stream.write_rtp(write.marker(true).nackable(is_picture));
        }
    }
}

/// A descriptor of four bytes, and the first byte of the frame.
const VP8_HEADER_BYTES: usize = 5;

/// A frame of one packet: RFC 7741, extended, with a start and a long PictureID; then the P bit.
fn vp8_picture(voice: &mut Voice) -> Vec<u8> {
    let [high, low] = (voice.seq as u16 | 0x8000).to_be_bytes();
    let is_keyframe = std::mem::take(&mut voice.is_keyframe_due);
    let mut picture = vec![0x90, 0x80, high, low, u8::from(!is_keyframe)];
    picture.extend_from_slice(voice.words.as_bytes());
    picture
}

async fn read_datagrams(socket: Arc<UdpSocket>, arrived: mpsc::UnboundedSender<(SocketAddr, Vec<u8>)>) {
    let mut buffer = [0; 2048];
    loop {
        // A closed port makes the next datagram fail.
        let Ok((length, source)) = socket.recv_from(&mut buffer).await else { continue };
        if arrived.send((source, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

async fn read_frames(
    mut reader: OwnedReadHalf,
    source: SocketAddr,
    arrived: mpsc::UnboundedSender<(SocketAddr, Vec<u8>)>,
) {
    while let Ok(length) = reader.read_u16().await {
        let mut frame = vec![0; usize::from(length)];
        if reader.read_exact(&mut frame).await.is_err() || arrived.send((source, frame)).is_err() {
            return;
        }
    }
}

async fn write_frames(mut writer: OwnedWriteHalf, mut frames: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        let length = u16::try_from(frame.len()).unwrap().to_be_bytes();
        if writer.write_all(&[&length, &frame[..]].concat()).await.is_err() {
            return;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a peer lives in real time")]
fn now() -> Instant {
    Instant::now()
}
