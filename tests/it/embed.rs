//! The example of the crate `satsuma-sfu`: a server of a hundred lines, without anything of this one.

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::browser::{Browser, Tab};

#[path = "../../src/sfu/examples/embed.rs"]
#[expect(dead_code, reason = "its main function is not used here")]
mod example;

/// Waits until the page shows video of another one: frames are decoded, and arrive still.
async fn until_other_is_seen(tab: &Tab) {
    tab.until("self.other = document.querySelector(\"video[data-track$='/video']\")").await;
    tab.until("other.videoWidth > 0 && other.getVideoPlaybackQuality().totalVideoFrames > 30").await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn two_browsers_meet_in_the_example() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let mut server = JoinSet::new();
    server.spawn(example::serve(listener, async { drop(stopped.await) }));

    let browser = Browser::start().await;
    let ada = browser.visitor().await.open(&url).await;
    ada.until("document.querySelector(\"video[data-track='own']\")").await;
    let bob = browser.visitor().await.open(&url).await;
    until_other_is_seen(&ada).await;
    until_other_is_seen(&bob).await;
    // Both tracks of the other, and no more.
    ada.until("document.querySelectorAll(\"video:not([data-track='own'])\").length === 2").await;
    ada.assert_quiet().await;
    bob.assert_quiet().await;

    drop((ada, bob, browser));
    drop(stop);
    server.join_next().await.unwrap().unwrap().unwrap();
}
