//! The cost of forwarding: the real server as a process of its own, and clients of the library str0m.
//!
//! Each packet contains its send time, and the system timestamps its arrival, so a packet's transit time through
//! the server is measured by one clock: with the sender's encryption, and without the receivers' work. Processor
//! time and memory are those of the server's media thread and process, as Linux reports them.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench measures time and may panic")]

mod meeting;
mod narrow;
mod peer;
mod server;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use str0m::media::MediaKind;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use peer::{Latency, Peer};
use server::Server;

/// Duration of each measurement.
const MEASURED: Duration = Duration::from_secs(10);

/// Warm-up before that.
const WARM_UP: Duration = Duration::from_secs(3);

fn main() {
    // `cargo test --benches` runs this as well, where there is nothing to check.
    let (flags, wanted): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    if !flags.iter().any(|flag| flag == "--bench") {
        return;
    }
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!(
        "load | forwarded/s | of a core | a packet | latency p50, p99, most | with keyframes p99 | memory"
    );
    for (name, people, speakers, subscribers, bits) in [
        ("1 to 30 at 0.5 Mbit/s", 0, 1, 30, 500_000),
        ("1 to 100 at 0.5 Mbit/s", 0, 1, 100, 500_000),
        ("room of 6 at 0.5 Mbit/s", 6, 6, 0, 500_000),
        ("room of 6 at 2.5 Mbit/s", 6, 6, 0, 2_500_000),
        ("room of 50, 2 speak at 0.5 Mbit/s", 50, 2, 0, 500_000),
    ] {
        if is_wanted(name) {
            runtime.block_on(LocalSet::new().run_until(run(name, people, speakers, subscribers, bits)));
        }
    }
    for bits in [800_000, 100_000] {
        if is_wanted("narrow") {
            runtime.block_on(LocalSet::new().run_until(narrow::run(bits)));
        }
    }
    if is_wanted("meeting") {
        runtime.block_on(LocalSet::new().run_until(meeting::run()));
    }
}

/// Tracks of one call; the API takes 64.
const TRACKS_A_CALL: usize = 60;

/// A load: a room of `people` who all subscribe to each other, of whom `speakers` are not muted, or one
/// video for `subscribers`.
async fn run(name: &str, people: usize, speakers: usize, subscribers: usize, bits: u32) {
    let server = Server::start();
    let empty = server.memory();
    let publishers = people.max(1);
    let (latencies, mut told) = mpsc::unbounded_channel();
    let mut peers = Vec::new();
    for _ in 0..publishers + subscribers {
        peers.push(Peer::join(&server, latencies.clone()).await);
    }
    let mut tracks = Vec::new();
    for (number, peer) in peers.iter().take(publishers).enumerate() {
        let mut names = vec![(format!("video-{number}"), MediaKind::Video)];
        if people > 0 {
            names.push((format!("audio-{number}"), MediaKind::Audio));
        }
        peer.publish(&server, &names, if number < speakers { bits } else { 0 }).await;
        tracks.push((peer.session.clone(), names));
    }
    for (number, peer) in peers.iter().enumerate() {
        let others = tracks.iter().enumerate().filter(|(publisher, _)| *publisher != number);
        let wanted: Vec<Value> = others.flat_map(|(_, (session, names))| wishes(session, names)).collect();
        for wanted in wanted.chunks(TRACKS_A_CALL) {
            peer.subscribe(&server, wanted).await;
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
    while let Ok(Latency { took, of_keyframe, .. }) = told.try_recv() {
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

/// The body of a request for these tracks.
fn wishes(session: &str, names: &[(String, MediaKind)]) -> Vec<Value> {
    let wish = |name| json!({"location": "remote", "sessionId": session, "trackName": name});
    names.iter().map(|(name, _)| wish(name)).collect()
}
