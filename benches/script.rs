//! Calls of methods in the operator's script: the time of one call, and calls a second.
//!
//! A call is the whole way through the script's threads; a result and a change are made, and nothing is stored.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench measures time and may panic")]

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use satsuma::config::DurableConfig;
use satsuma::durable::method::{MethodCall, Payer, Target};
use satsuma::durable::methods::Methods;
use satsuma::id::ObjectId;
use satsuma::metrics::Metrics;
use serde_json::value::RawValue;

const CALLS: usize = 2_000;

/// Objects that are called at the same time, to measure calls a second.
const OBJECTS: usize = 64;

const SCRIPT: &str = r#"
export class DurableObject {
  constructor(state) {
    this.storage = state.storage;
  }
  async method_increment(data) {
    const value = (await this.storage.get("value") || 0) + (data.increment || 1);
    await this.storage.put("value", value);
    return { value };
  }
}
"#;

fn main() {
    // `cargo test --benches` runs this as well, where there is nothing to check.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run());
}

async fn run() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("objects.mjs");
    let file =
        std::env::var("SCRIPT").map_or_else(|_| SCRIPT.to_owned(), |path| fs::read_to_string(path).unwrap());
    fs::write(&path, file).unwrap();
    let mut config = DurableConfig::default();
    config.script.0 = Some(path);
    let methods = Methods::load(&config, Metrics::new()).unwrap();
    let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
    let call = MethodCall {
        object: ObjectId::parse("counter").unwrap(),
        target: Target::Method("increment".to_owned()),
        payer: Payer::Alarms,
        params: raw(r#"{"increment":2}"#),
        state: Arc::new([("value".into(), raw("40").into())].into()),
        alarm: None,
        version: 1,
        at: 0,
    };
    assert_eq!(methods.call(call.clone()).await.unwrap().result.get(), r#"{"value":42}"#);

    // Spaced, as calls of a quiet server are, and one right after the other.
    for (pause, name) in
        [(Duration::from_millis(3), "a call in quiet"), (Duration::ZERO, "a call after another")]
    {
        let mut times = Vec::new();
        for _ in 0..CALLS / 4 {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let start = Instant::now();
            methods.call(call.clone()).await.unwrap();
            times.push(start.elapsed());
        }
        times.sort_unstable();
        let at = |share: usize| times[times.len() * share / 100];
        println!("{name}: median {:?}, 95 % {:?}, 99 % {:?}", at(50), at(95), at(99));
    }

    let start = Instant::now();
    let methods = &methods;
    futures_util::future::join_all((0..OBJECTS).map(|_| async {
        for _ in 0..CALLS / OBJECTS {
            methods.call(call.clone()).await.unwrap();
        }
    }))
    .await;
    println!("{OBJECTS} objects at once: {:.0} calls/s", CALLS as f64 / start.elapsed().as_secs_f64());
}
