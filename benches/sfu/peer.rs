//! A client of the library str0m.

use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quinn_udp::{RecvMeta, UdpSocketState};
use reqwest::Method;
use serde_json::{Value, json};
use str0m::change::{SdpAnswer, SdpApi, SdpOffer};
use str0m::media::{Direction, MediaKind, Mid, Rid, Simulcast, SimulcastLayer};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

use super::server::Server;

/// Bytes of a packet of a video frame, as browsers make them.
const PICTURE_PACKET: usize = 1100;

/// Transit time of a packet.
pub struct Latency {
    pub took: Duration,
    pub of_keyframe: bool,
    /// Its part of a video frame; none for audio.
    pub part: Option<Part>,
}

/// A part of a video frame.
pub struct Part {
    /// The first letter of the layer's `rid`; 0 without simulcast.
    pub layer: u8,
    pub picture: u64,
    pub parts: u8,
}

type Change = Box<dyn FnOnce(&mut Rtc) -> Option<String>>;

/// A client: a task that owns its socket and its library.
pub struct Peer {
    pub session: String,
    changes: mpsc::UnboundedSender<(Change, oneshot::Sender<Option<String>>)>,
    streams: mpsc::UnboundedSender<Stream>,
}

/// A stream that a client sends.
struct Stream {
    mid: Mid,
    rid: Option<&'static str>,
    kind: MediaKind,
    bits: u32,
}

impl Peer {
    pub async fn join(server: &Server, latencies: mpsc::UnboundedSender<Latency>) -> Self {
        let opened = server.call(Method::POST, "sessions/new", json!({})).await;
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
        tokio::task::spawn_local(live(rtc, socket, to_change, to_send, latencies));
        Self { session: opened["sessionId"].as_str().unwrap().to_owned(), changes, streams }
    }

    async fn change(&self, change: impl FnOnce(&mut Rtc) -> Option<String> + 'static) -> Option<String> {
        let (sender, receiver) = oneshot::channel();
        self.changes.send((Box::new(change), sender)).ok().unwrap();
        receiver.await.unwrap()
    }

    pub async fn publish(&self, server: &Server, tracks: &[(String, MediaKind)], bits: u32) {
        let kinds: Vec<MediaKind> = tracks.iter().map(|(_, kind)| *kind).collect();
        let names = tracks.iter().map(|(name, _)| name.clone());
        let add = move |api: &mut SdpApi<'_>| {
            kinds.iter().map(|kind| api.add_media(*kind, Direction::SendOnly, None, None, None)).collect()
        };
        let mids = self.offer(server, names, add).await;
        for ((_, kind), mid) in tracks.iter().zip(mids) {
            // A muted client without video sends a packet of audio now and then (DTX).
            if bits == 0 && *kind == MediaKind::Video {
                continue;
            }
            self.streams.send(Stream { mid, rid: None, kind: *kind, bits }).ok().unwrap();
        }
    }

    /// Publishes audio, and video in layers of these bitrates.
    pub async fn publish_layers(&self, server: &Server, layers: &[(&'static str, u32)]) {
        let send = layers.iter().map(|(rid, _)| SimulcastLayer::new(rid)).collect();
        let simulcast = Simulcast { send, recv: Vec::new() };
        let add = move |api: &mut SdpApi<'_>| {
            let audio = api.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None);
            let video = api.add_media(MediaKind::Video, Direction::SendOnly, None, None, Some(simulcast));
            vec![audio, video]
        };
        let mids = self.offer(server, ["audio", "video"].map(str::to_owned), add).await;
        let stream = |mid, rid, kind, bits| self.streams.send(Stream { mid, rid, kind, bits }).ok().unwrap();
        stream(mids[0], None, MediaKind::Audio, 32_000);
        for (rid, bits) in layers {
            stream(mids[1], Some(rid), MediaKind::Video, *bits);
        }
    }

    /// Offers the transceivers that `add` adds, as tracks with these names.
    async fn offer(
        &self,
        server: &Server,
        names: impl IntoIterator<Item = String>,
        add: impl FnOnce(&mut SdpApi<'_>) -> Vec<Mid> + Send + 'static,
    ) -> Vec<Mid> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let offer = self.change(move |rtc| {
            let mut api = rtc.sdp_api();
            let mids = add(&mut api);
            let (offer, pending) = api.apply().unwrap();
            sender.send((mids, pending)).unwrap();
            Some(offer.to_sdp_string())
        });
        let offer = offer.await.unwrap();
        let (mids, pending) = receiver.recv().unwrap();
        let named: Vec<Value> = names
            .into_iter()
            .zip(&mids)
            .map(|(name, mid)| json!({"location": "local", "mid": mid.to_string(), "trackName": name}))
            .collect();
        let body = json!({"tracks": named, "sessionDescription": {"type": "offer", "sdp": offer}});
        let path = format!("sessions/{}/tracks/new", self.session);
        let answer = server.call(Method::POST, &path, body).await;
        let sdp = answer["sessionDescription"]["sdp"].as_str().unwrap().to_owned();
        self.change(move |rtc| {
            rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&sdp).unwrap()).unwrap();
            None
        })
        .await;
        mids
    }

    /// Subscribes; returns the transceivers, and the length of the server's offer.
    pub async fn subscribe(&self, server: &Server, tracks: &[Value]) -> (Vec<Mid>, usize) {
        self.subscribe_by(server, tracks, None).await
    }

    /// Subscribes, with media through the address that `through` returns for the server's own.
    pub async fn subscribe_by(
        &self,
        server: &Server,
        tracks: &[Value],
        through: Option<&dyn Fn(SocketAddr) -> SocketAddr>,
    ) -> (Vec<Mid>, usize) {
        let path = format!("sessions/{}/tracks/new", self.session);
        let answer = server.call(Method::POST, &path, json!({"tracks": tracks})).await;
        let mids = answer["tracks"].as_array().unwrap().iter();
        let mids = mids.map(|track| Mid::from(track["mid"].as_str().unwrap())).collect();
        let mut sdp = answer["sessionDescription"]["sdp"].as_str().unwrap().to_owned();
        if let Some(through) = through {
            let line = sdp.lines().find(|line| line.starts_with("a=candidate:")).unwrap().to_owned();
            let words: Vec<&str> = line.split(' ').collect();
            let other = through(SocketAddr::new(words[4].parse().unwrap(), words[5].parse().unwrap()));
            sdp = sdp.replace(
                &format!(" {} {} typ", words[4], words[5]),
                &format!(" {} {} typ", other.ip(), other.port()),
            );
        }
        let bytes = sdp.len();
        let answer = self.change(move |rtc| {
            let offer = SdpOffer::from_sdp_string(&sdp).unwrap();
            Some(rtc.sdp_api().accept_offer(offer).unwrap().to_sdp_string())
        });
        let body = json!({"sessionDescription": {"type": "answer", "sdp": answer.await.unwrap()}});
        let path = format!("sessions/{}/renegotiate", self.session);
        server.call(Method::PUT, &path, body).await;
        (mids, bytes)
    }

    /// Stops transceivers and closes their tracks.
    pub async fn unsubscribe(&self, server: &Server, mids: &[Mid]) {
        let (sender, receiver) = std::sync::mpsc::channel();
        let stopped = mids.to_vec();
        let offer = self.change(move |rtc| {
            let mut api = rtc.sdp_api();
            stopped.into_iter().for_each(|mid| api.stop_media(mid));
            let (offer, pending) = api.apply().unwrap();
            sender.send(pending).unwrap();
            Some(offer.to_sdp_string())
        });
        let offer = offer.await.unwrap();
        let pending = receiver.recv().unwrap();
        let closed: Vec<Value> = mids.iter().map(|mid| json!({"mid": mid.to_string()})).collect();
        let body = json!({"tracks": closed, "sessionDescription": {"type": "offer", "sdp": offer}});
        let path = format!("sessions/{}/tracks/close", self.session);
        let answer = server.call(Method::PUT, &path, body).await;
        let sdp = answer["sessionDescription"]["sdp"].as_str().unwrap().to_owned();
        self.change(move |rtc| {
            rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&sdp).unwrap()).unwrap();
            None
        })
        .await;
    }

    /// Closes the connection, as a closed page does.
    pub async fn leave(self) {
        self.change(|rtc| {
            rtc.close().unwrap();
            None
        })
        .await;
    }
}

/// A running stream.
struct Sending {
    mid: Mid,
    rid: Option<Rid>,
    kind: MediaKind,
    /// The interval of video or audio frames, and the packets of each.
    every: Duration,
    packets: usize,
    next: Instant,
    seq: u64,
    time: u32,
    number: u64,
    keyframe_due: bool,
}

/// The state of a client's task.
struct Client {
    rtc: Rtc,
    socket: UdpSocket,
    local: SocketAddr,
    sending: Vec<Sending>,
    connected: bool,
    /// Arrival time of the current packet, as the system reports it.
    arrived: Duration,
    latencies: mpsc::UnboundedSender<Latency>,
}

async fn live(
    rtc: Rtc,
    socket: UdpSocket,
    mut changes: mpsc::UnboundedReceiver<(Change, oneshot::Sender<Option<String>>)>,
    mut streams: mpsc::UnboundedReceiver<Stream>,
    latencies: mpsc::UnboundedSender<Latency>,
) {
    let state = UdpSocketState::new((&socket).into()).unwrap();
    let mut buffer = vec![0; 1 << 16];
    let local = socket.local_addr().unwrap();
    let (sending, connected, arrived) = (Vec::new(), false, Duration::ZERO);
    let mut client = Client { rtc, socket, local, sending, connected, arrived, latencies };
    loop {
        let wake = client.poll();
        if !client.rtc.is_alive() {
            return;
        }
        let next = client.sending.iter().map(|stream| stream.next).min().filter(|_| client.connected);
        let wake = next.map_or(wake, |next| next.min(wake));
        tokio::select! {
            () = async { client.socket.readable().await.unwrap() } => {
                let mut meta = [RecvMeta::default()];
                let received = client.socket.try_io(Interest::READABLE, || {
                    state.recv((&client.socket).into(), &mut [IoSliceMut::new(&mut buffer)], &mut meta)
                });
                if received.is_ok() {
                    client.arrived = meta[0].timestamp.unwrap();
                    for bytes in buffer[..meta[0].len].chunks(meta[0].stride) {
                        client.take(bytes, meta[0].addr);
                    }
                }
            }
            Some((change, sender)) = changes.recv() => {
                let result = change(&mut client.rtc);
                let _ = sender.send(result);
            }
            Some(stream) = streams.recv() => client.sending.push(Sending::new(stream)),
            () = tokio::time::sleep_until(wake.into()) => {}
        }
        let now = Instant::now();
        if client.connected {
            for stream in client.sending.iter_mut().filter(|stream| stream.next <= now) {
                send(&mut client.rtc, stream);
            }
        }
        client.rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
    }
}

impl Client {
    /// Polls the library's outputs; returns the time of its next call.
    fn poll(&mut self) -> Instant {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => return at,
                Output::Transmit(transmit) => {
                    let _ = self.socket.try_send_to(&transmit.contents, transmit.destination);
                }
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::KeyframeRequest(request)) => {
                    let matching =
                        |stream: &&mut Sending| stream.mid == request.mid && stream.rid == request.rid;
                    for stream in self.sending.iter_mut().filter(matching) {
                        stream.keyframe_due = true;
                    }
                }
                Output::Event(Event::RtpPacket(packet)) => {
                    let Some(sent) = packet.payload.get(5..13) else { continue };
                    let sent = Duration::from_nanos(u64::from_be_bytes(sent.try_into().unwrap()));
                    let took = self.arrived.saturating_sub(sent);
                    let of_keyframe = packet.payload.get(4) == Some(&0);
                    let part =
                        packet.payload.get(13..24).filter(|_| packet.payload.len() > 80).map(|part| Part {
                            layer: part[0],
                            picture: u64::from_be_bytes(part[1..9].try_into().unwrap()),
                            parts: part[10],
                        });
                    let _ = self.latencies.send(Latency { took, of_keyframe, part });
                }
                Output::Event(_) => {}
            }
        }
    }

    fn take(&mut self, bytes: &[u8], source: SocketAddr) {
        if let Ok(receive) = Receive::new(Protocol::Udp, source, self.local, bytes) {
            self.rtc.handle_input(Input::Receive(Instant::now(), receive)).unwrap();
            // The library keeps one packet at a time.
            self.poll();
        }
    }
}

impl Sending {
    fn new(Stream { mid, rid, kind, bits }: Stream) -> Self {
        let (every, packets) = match kind {
            MediaKind::Audio => (Duration::from_millis(if bits == 0 { 400 } else { 20 }), 1),
            MediaKind::Video => {
                let pictures = 30.0;
                let packets = f64::from(bits) / 8.0 / pictures / PICTURE_PACKET as f64;
                (Duration::from_secs_f64(packets.ceil() / packets / pictures), packets.ceil() as usize)
            }
        };
        let next = Instant::now();
        Self {
            mid,
            rid: rid.map(Rid::from),
            kind,
            every,
            packets,
            next,
            seq: 1000,
            time: 0,
            number: 0,
            keyframe_due: true,
        }
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Sends one video or audio frame.
fn send(rtc: &mut Rtc, stream: &mut Sending) {
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
        payload.extend_from_slice(&(since_1970().as_nanos() as u64).to_be_bytes());
        payload.push(stream.rid.map_or(0, |rid| rid.as_bytes()[0]));
        payload.extend_from_slice(&stream.number.to_be_bytes());
        payload.extend_from_slice(&[packet as u8, packets as u8]);
        payload.resize(if stream.kind == MediaKind::Audio { 80 } else { PICTURE_PACKET }, 0);
        let write = RtpWrite::new(pt, stream.seq.into(), stream.time, Instant::now(), payload)
            .marker(packet + 1 == packets)
            .nackable(true);
        stream.seq += 1;
        let mut api = rtc.direct_api();
        api.stream_tx_by_mid(stream.mid, stream.rid).unwrap().write_rtp(write);
    }
    stream.number += 1;
    let clock = if stream.kind == MediaKind::Audio { 48_000.0 } else { 90_000.0 };
    stream.time = stream.time.wrapping_add((stream.every.as_secs_f64() * clock) as u32);
    stream.next += stream.every;
}
