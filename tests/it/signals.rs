//! Signals sent to a process.

use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::client::Client;
use crate::process::{BINARY, Process};

/// A terminal and a wrapper both pass one Ctrl-C on; the second one ended the process without a drain.
#[tokio::test]
async fn two_signals_are_one_shutdown() {
    for signals in [[Signal::TERM, Signal::TERM], [Signal::INT, Signal::TERM], [Signal::HUP, Signal::INT]] {
        let dir = tempfile::tempdir().unwrap();
        let server = Process::start(&dir.path().join("data"), &[]).await;
        let mut ada = Client::join(&server, "room", "Ada").await;
        for signal in signals {
            server.signal(signal);
        }
        assert_eq!(ada.closed().await.0, 1012, "{signals:?}");
        server.ended_well().await;
    }
}

/// A closed terminal ended the process without a drain, and so did signals at which other programs reload.
#[tokio::test]
async fn hangup_drains_and_user_signals_do_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&dir.path().join("data"), &[]).await;
    let mut ada = Client::join(&server, "room", "Ada").await;
    for signal in [Signal::USR1, Signal::USR2] {
        server.signal(signal);
        ada.echo().await;
    }
    server.signal(Signal::HUP);
    assert_eq!(ada.closed().await.0, 1012);
    server.ended_well().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn ignored_hangup_stays_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let mut nohup = Command::new("sh");
    nohup.args(["-c", r#"trap "" HUP; exec "$0""#, BINARY]).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Process::spawn(nohup, &dir.path().join("data"), &[]);
    server.until_started().await;
    let mut ada = Client::join(&server, "room", "Ada").await;
    server.signal(Signal::HUP);
    ada.echo().await;
    server.stop().await;
}
