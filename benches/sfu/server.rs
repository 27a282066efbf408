//! The server under measurement.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use reqwest::Client;
use serde_json::Value;

/// The server, as a process of its own.
pub struct Server {
    process: Child,
    base: String,
    client: Client,
    _data: tempfile::TempDir,
}

impl Server {
    pub fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        // Another build can be measured for comparison.
        let program = std::env::var_os("SATSUMA").unwrap_or_else(|| env!("CARGO_BIN_EXE_satsuma").into());
        let mut process = Command::new(program)
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

    pub async fn call(&self, method: reqwest::Method, path: &str, body: Value) -> Value {
        let request = self.client.request(method, format!("{}/{path}", self.base)).bearer_auth("bench");
        let answer = request.body(body.to_string()).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert!(!text.contains("errorCode"), "{path}: {text}");
        answer
    }

    /// Processor time of the media thread.
    pub fn media_seconds(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let stats = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap());
        let media = stats.into_iter().find(|stat| stat.contains("(sfu-media)")).unwrap();
        let fields: Vec<&str> = media.rsplit_once(") ").unwrap().1.split(' ').collect();
        // proc(5): utime and stime, in ticks of 10 ms on Linux.
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    /// Resident memory of the process, in bytes.
    pub fn memory(&self) -> u64 {
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
