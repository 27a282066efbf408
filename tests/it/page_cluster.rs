//! Our own page on several nodes, whose media are on one of them, in real browsers.

use satsuma::config::Config;
use tokio::time::Instant;

use crate::browser::Browser;
use crate::client::Client;
use crate::cluster::{Mortal, chat, told};
use crate::harness::TestServer;
use crate::media::{meet, until_live, video};
use crate::memory_engine::MemoryNetwork;

fn for_pages(config: &mut Config) {
    config.client.max_webcam_quality_level = 360;
    config.calls.room_check = true;
}

#[expect(clippy::disallowed_methods, reason = "a test measures how long people wait")]
fn now() -> Instant {
    Instant::now()
}

/// Two people at two nodes, whose media are on a third, which owns the room as well and is killed.
#[tokio::test]
#[ignore = "needs chromium"]
async fn pictures_come_back_after_the_death_of_their_node() {
    let (browser, network) = (Browser::start().await, MemoryNetwork::default());
    let media = Mortal::start_first(&network, for_pages);
    let mut dot = Client::join(&media.server, "r", "Dot").await;
    // With the next entry it is written where the media are.
    chat(&mut dot, 1).await;
    told(&mut dot, 1).await;
    let (a, _) = TestServer::node(&network, Some(&media.server), for_pages).await;
    let (b, _) = TestServer::node(&network, Some(&media.server), for_pages).await;
    let (ada, bob) = (meet(&browser, &a, "Ada").await, meet(&browser, &b, "Bob").await);
    let seen = [[video("Bob")], [video("Ada")]];
    let both = [(&ada, &seen[0][..], 1), (&bob, &seen[1][..], 1)];
    until_live(&both).await;
    assert_eq!(media.server.metric("satsuma_sfu_sessions").await, 2.0);
    let killed = now();
    drop(media.kill());
    until_live(&both).await;
    println!("pictures and voices were back after {:?}", killed.elapsed());
    let sessions = a.metric("satsuma_sfu_sessions").await + b.metric("satsuma_sfu_sessions").await;
    assert!(sessions >= 2.0, "{sessions}");
}
