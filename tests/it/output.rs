//! A process whose output is not read.

use std::fs::File;
use std::io::{Read, Write, pipe};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::json;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::client::Client;
use crate::harness::{PATIENCE, answer, ask_admin, metric};
use crate::process::{BINARY, Process};

const DROPPED: &str = "satsuma_log_lines_dropped_total";

/// A server that logs a lot, with these two as its output.
fn launch(data: &Path, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Process {
    let mut command = Command::new(BINARY);
    command.stdout(stdout).stderr(stderr);
    let settings = [("SATSUMA_LOG__FILTER", "satsuma=trace"), ("SATSUMA_LOG__QUEUE_BYTES", "65536")];
    Process::spawn(command, data, &settings)
}

/// Members meet and send what is logged.
async fn meet(server: &Process, room: &str) {
    let mut ada = Client::join(server, room, "Ada").await;
    let mut bob = Client::join(server, room, "Bob").await;
    for number in 0..50 {
        ada.say_raw(Message::text("no json")).await;
        ada.say(json!({"type": "directMessage", "to": "nobody", "message": "lost"})).await;
        ada.say(json!({"type": "chat", "message": number.to_string()})).await;
        let line = bob.until(|message| message["type"] == "chat").await;
        assert_eq!(line["message"], json!(number.to_string()));
    }
    ada.say(json!({"type": "userLeft"})).await;
    ada.closed().await;
    assert_eq!(answer(ask_admin(server, "/readyz")).await.status, 200);
}

/// Every upgrade was answered with 500, and SIGTERM had no effect.
#[tokio::test]
async fn output_without_reader_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let closed = || pipe().unwrap().1;
    let server = launch(&dir.path().join("data"), closed(), closed());
    server.until_started().await;
    meet(&server, "one").await;
    meet(&server, "two").await;
    assert!(metric(&server, DROPPED).await > 0.0);
    server.stop().await;
}

/// Running rooms were closed with 1011.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn output_to_a_full_disk_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let server = launch(&dir.path().join("data"), full(), full());
    server.until_started().await;
    meet(&server, "one").await;
    assert!(metric(&server, DROPPED).await > 0.0);
    server.stop().await;
}

/// Everything stopped once the pipe was full, the answer to `healthz` too.
#[tokio::test]
async fn output_with_stalled_reader_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ((mut reader, stderr), (_stalled, stdout)) = (pipe().unwrap(), pipe().unwrap());
    let server = launch(&dir.path().join("data"), stdout, stderr);
    server.until_started().await;
    // Until the pipe and the queue are full.
    for meeting in 0.. {
        meet(&server, &meeting.to_string()).await;
        if metric(&server, DROPPED).await > 0.0 {
            break;
        }
    }
    let log = thread::spawn(move || {
        let mut log = String::new();
        reader.read_to_string(&mut log).unwrap();
        log
    });
    server.stop().await;
    assert!(log.join().unwrap().contains("logLinesDropped"));
}

/// A process wrote its last error to a stalled reader and never ended.
#[tokio::test]
async fn errors_are_written_despite_a_stalled_reader() {
    let (_reader, stderr) = pipe().unwrap();
    let mut full = stderr.try_clone().unwrap();
    rustix::io::ioctl_fionbio(&full, true).unwrap();
    while full.write(&[b'\n'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&full, false).unwrap();
    let mut command = tokio::process::Command::new(BINARY);
    command.args(["--config", "/no/such/file"]).stdout(Stdio::null()).stderr(stderr).kill_on_drop(true);
    let status = timeout(PATIENCE, command.status()).await.expect("the process ends").unwrap();
    assert!(!status.success());
}
