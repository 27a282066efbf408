//! A meeting of three hours with joining and leaving members, as fast as requests are answered.

use std::time::Instant;

use str0m::media::MediaKind;
use tokio::sync::mpsc;

use crate::peer::Peer;
use crate::server::Server;
use crate::wishes;

/// Number of members that stay to the end.
const RESIDENTS: usize = 5;

/// Number of visitors, each of which leaves before the next: one every 54 seconds.
const VISITS: usize = 200;

/// Number of visits in the first and the last reported median.
const TOLD: usize = 20;

/// Subscribes every member to the audio and video of all others, and closes ended tracks.
pub async fn run() {
    let server = Server::start();
    let (latencies, _ignored) = mpsc::unbounded_channel();
    let mut residents: Vec<(Peer, Vec<(String, MediaKind)>)> = Vec::new();
    for number in 0..RESIDENTS {
        residents.push(enter(&server, &format!("resident-{number}"), latencies.clone()).await);
    }
    for one in 0..RESIDENTS {
        for other in (0..RESIDENTS).filter(|other| *other != one) {
            let (session, names) = (residents[other].0.session.clone(), residents[other].1.clone());
            residents[one].0.subscribe(&server, &wishes(&session, &names)).await;
        }
    }
    let mut pulls = Vec::new();
    let mut offers = Vec::new();
    let mut busy = vec![server.media_seconds()];
    for visit in 0..VISITS {
        let (visitor, names) = enter(&server, &format!("visitor-{visit}"), latencies.clone()).await;
        for (resident, theirs) in &residents {
            visitor.subscribe(&server, &wishes(&resident.session, theirs)).await;
        }
        let mut pulled = Vec::new();
        for (resident, _) in &residents {
            let start = Instant::now();
            let (mids, offer) = resident.subscribe(&server, &wishes(&visitor.session, &names)).await;
            pulls.push(start.elapsed());
            offers.push(offer);
            pulled.push(mids);
        }
        visitor.leave().await;
        for ((resident, _), mids) in residents.iter().zip(pulled) {
            resident.unsubscribe(&server, &mids).await;
        }
        busy.push(server.media_seconds());
    }
    let most = pulls.iter().max().unwrap().as_secs_f64() * 1e3;
    let told = TOLD * RESIDENTS;
    let median = |of: &[std::time::Duration]| {
        let mut sorted = of.to_vec();
        sorted.sort_unstable();
        sorted[sorted.len() / 2].as_secs_f64() * 1e3
    };
    println!(
        "{VISITS} visits to a meeting of {RESIDENTS} | pull p50 of the first {TOLD} visits {:.1} ms, of the last {:.1} ms, most {most:.1} ms | offer {} B, then {} B | media thread {:.1} ms a visit, then {:.1} ms",
        median(&pulls[..told]),
        median(&pulls[pulls.len() - told..]),
        offers[0],
        offers[offers.len() - 1],
        1e3 * (busy[TOLD] - busy[0]) / TOLD as f64,
        1e3 * (busy[VISITS] - busy[VISITS - TOLD]) / TOLD as f64,
    );
}

async fn enter(
    server: &Server,
    name: &str,
    latencies: mpsc::UnboundedSender<crate::peer::Latency>,
) -> (Peer, Vec<(String, MediaKind)>) {
    let peer = Peer::join(server, latencies).await;
    let names =
        vec![(format!("{name}-video"), MediaKind::Video), (format!("{name}-audio"), MediaKind::Audio)];
    peer.publish(server, &names, 500_000).await;
    (peer, names)
}
