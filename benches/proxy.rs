//! The latency that the proxy adds to a call of the media API, against an upstream in this process.
//!
//! Direct and proxied calls alternate, so that noise affects both alike; medians are compared. All parts, the
//! client included, share this process' cores.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench measures time and may panic")]

use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::{post, put};
use reqwest::Client;
use reqwest::redirect::Policy;
use satsuma::config::{Config, Optional};
use satsuma::server::Server;
use tokio::net::TcpListener;

const CALLS: usize = 5_000;

/// Typical bodies of a browser's call for one video and one audio track.
const DESCRIPTION_BYTES: usize = 6_000;

fn main() {
    // `cargo test --benches` runs this as well, where there is nothing to check.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run());
}

async fn run() {
    let description = format!(r#"{{"sessionDescription":{{"sdp":"{}"}}}}"#, "x".repeat(DESCRIPTION_BYTES));
    let answer = description.clone();
    let session = "/v1/apps/app/sessions/0123456789abcdef0123456789abcdef";
    let upstream = Router::new()
        .route(
            "/v1/apps/app/sessions/new",
            post(async || {
                (axum::http::StatusCode::CREATED, r#"{"sessionId":"0123456789abcdef0123456789abcdef"}"#)
            }),
        )
        .route(
            &format!("{session}/renegotiate"),
            put(async move |body: bytes::Bytes| {
                assert!(body.len() > DESCRIPTION_BYTES);
                answer
            }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, upstream).await });

    let dir = tempfile::tempdir().unwrap();
    let mut config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
    config.http.listen.set_port(0);
    config.admin.listen.set_port(0);
    config.limits.calls_per_second = 1_000_000;
    config.calls.api_url = format!("{base}/v1").parse().unwrap();
    config.calls.app_id = Optional(Some("app".to_owned()));
    config.calls.app_secret = Optional(Some("secret".into()));
    let server = Server::start(config).await.unwrap();
    let own = format!("http://{}", server.addresses().http);

    let client = Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
    let log_in = client.post(format!("{own}/set-username")).body("username=Ada");
    let log_in = log_in.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
    let mut cookies = cookie(&log_in);
    for mount in ["/api/calls", "/partytracks"] {
        let new = client.post(format!("{own}{mount}/sessions/new")).header("cookie", &cookies);
        cookies = format!("{cookies}; {}", cookie(&new.send().await.unwrap()));
    }

    let path = session.strip_prefix("/v1/apps/app").unwrap();
    let urls = [
        ("direct", format!("{base}{session}/renegotiate")),
        ("/api/calls", format!("{own}/api/calls{path}/renegotiate")),
        ("/partytracks", format!("{own}/partytracks{path}/renegotiate")),
    ];
    let mut times = [const { Vec::<Duration>::new() }; 3];
    for round in 0..CALLS + CALLS / 10 {
        for ((_, url), times) in urls.iter().zip(&mut times) {
            let start = Instant::now();
            let request = client.put(url).header("cookie", &cookies).body(description.clone());
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 200);
            assert!(response.bytes().await.unwrap().len() > DESCRIPTION_BYTES);
            // The first calls open connections and fill caches.
            if round >= CALLS / 10 {
                times.push(start.elapsed());
            }
        }
    }
    let medians = times.map(|mut times| {
        times.sort();
        (times[times.len() / 2], times[times.len() * 99 / 100])
    });
    for ((name, _), (median, slow)) in urls.iter().zip(medians) {
        let added = median.saturating_sub(medians[0].0);
        println!("{name:13} median {median:>9.1?}  99th {slow:>9.1?}  added at the median {added:.1?}");
    }
    server.shutdown();
    server.join().await.unwrap();
}

fn cookie(response: &reqwest::Response) -> String {
    response.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
}
