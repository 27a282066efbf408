//! A subscriber behind a narrow link, and its share of 2.4 Mbit/s.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::peer::{Latency, Part, Peer};
use crate::server::Server;

const LAYERS: [(&str, u32); 3] = [("a", 1_700_000), ("b", 500_000), ("c", 150_000)];

/// Maximum queueing delay of the link.
const QUEUE: Duration = Duration::from_millis(300);

/// Time for the server to adapt.
const BEFORE: Duration = Duration::from_secs(8);

const MEASURED: Duration = Duration::from_secs(15);

pub async fn run(bits: u64) {
    let server = Server::start();
    let (ignored, _ignored) = mpsc::unbounded_channel();
    let (latencies, mut told) = mpsc::unbounded_channel();
    let publisher = Peer::join(&server, ignored).await;
    publisher.publish_layers(&server, &LAYERS).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let subscriber = Peer::join(&server, latencies).await;
    let wish = |name: &str| json!({"location": "remote", "sessionId": publisher.session, "trackName": name});
    let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = near.local_addr().unwrap();
    let (tell, far) = std::sync::mpsc::channel();
    let through = move |server: SocketAddr| {
        tell.send(server).unwrap();
        address
    };
    // The link must exist before the answer.
    let link = async {
        let far = loop {
            match far.try_recv() {
                Ok(far) => break far,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        relay(near, far, bits).await;
    };
    let tracks = [wish("audio"), wish("video")];
    let load = async {
        subscriber.subscribe_by(&server, &tracks, Some(&through)).await;
        tokio::time::sleep(BEFORE).await;
        while told.try_recv().is_ok() {}
        tokio::time::sleep(MEASURED).await;
        let (mut audio, mut pictures) = (Vec::new(), HashMap::<(u8, u64), (u8, u8)>::new());
        while let Ok(Latency { took, part, .. }) = told.try_recv() {
            match part {
                None => audio.push(took),
                Some(Part { layer, picture, parts, .. }) => {
                    pictures.entry((layer, picture)).or_insert((0, parts)).0 += 1
                }
            }
        }
        (audio, pictures)
    };
    let (mut audio, pictures) = tokio::select! {
        told = load => told,
        () = link => unreachable!("the link never ends"),
    };
    audio.sort_unstable();
    let at = |share: f64| {
        let index = (audio.len().saturating_sub(1) as f64 * share) as usize;
        audio.get(index).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
    };
    let sent = MEASURED.as_secs_f64() * 50.0;
    let whole =
        |layer: u8| pictures.iter().filter(|((of, _), (got, parts))| *of == layer && got >= parts).count();
    println!(
        "narrow link of {} kbit/s | audio {:.1} % of what was sent, late p50, p99, most: {:.0}, {:.0}, {:.0} ms | \
         whole pictures a second: {:.1} large, {:.1} middle, {:.1} small; {} in pieces",
        bits / 1000,
        100.0 * audio.len() as f64 / sent,
        at(0.5),
        at(0.99),
        at(1.0),
        whole(b'a') as f64 / MEASURED.as_secs_f64(),
        whole(b'b') as f64 / MEASURED.as_secs_f64(),
        whole(b'c') as f64 / MEASURED.as_secs_f64(),
        pictures.values().filter(|(got, parts)| got < parts).count(),
    );
}

/// Forwards a client's packets, and at this bitrate the packets sent to it.
async fn relay(near: UdpSocket, server: SocketAddr, bits: u64) {
    let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (mut client, mut busy_until) = (None, Instant::now());
    let mut queue = std::collections::VecDeque::<(Instant, Vec<u8>)>::new();
    let (mut up, mut down) = (vec![0; 2048], vec![0; 2048]);
    loop {
        let due = queue.front().map(|(at, _)| *at);
        tokio::select! {
            Ok((length, from)) = near.recv_from(&mut up) => {
                client = Some(from);
                let _ = far.try_send_to(&up[..length], server);
            }
            Ok((length, _)) = far.recv_from(&mut down) => {
                let now = Instant::now();
                let sent = busy_until.max(now) + Duration::from_nanos(length as u64 * 8 * 1_000_000_000 / bits);
                if sent - now <= QUEUE {
                    busy_until = sent;
                    queue.push_back((sent, down[..length].to_vec()));
                }
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                if let (Some((_, bytes)), Some(client)) = (queue.pop_front(), client) {
                    let _ = near.try_send_to(&bytes, client);
                }
            }
        }
    }
}
