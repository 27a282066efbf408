//! Autobahn's test suite against the socket that rooms use: `cargo test --test it autobahn -- --ignored`.
//!
//! Its client (`wstest`, of `autobahntestsuite`) needs Python 2, so it is run by hand and not in CI.
//! `WSTEST` is its path, `PATH` is searched otherwise. The relevant cases are repeated in `frames`.

use std::env;
use std::fs;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::echo::Echo;

/// Size of Autobahn's largest message.
const MOST: usize = 16 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs wstest"]
async fn autobahn_suite_passes() {
    let echo = Echo::start(MOST).await;
    let dir = tempfile::tempdir().unwrap();
    let cases = env::var("AUTOBAHN_CASES").unwrap_or_else(|_| "*".to_owned());
    let spec = json!({
        "outdir": dir.path().join("reports"),
        "servers": [{"agent": "satsuma", "url": format!("ws://{}", echo.address)}],
        "cases": cases.split(',').collect::<Vec<_>>(),
        "exclude-cases": [],
    });
    fs::write(dir.path().join("spec.json"), spec.to_string()).unwrap();
    let wstest = env::var_os("WSTEST").unwrap_or_else(|| "wstest".into());
    let mut run = Command::new(wstest);
    run.args(["-m", "fuzzingclient", "-s", "spec.json"]).current_dir(&dir).kill_on_drop(true);
    let status = run.status().await.expect("wstest cannot be started");
    assert!(status.success(), "{status}");

    let index = fs::read_to_string(dir.path().join("reports/index.json")).unwrap();
    let index: Value = serde_json::from_str(&index).unwrap();
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    let mut failed = Vec::new();
    for (case, result) in index["satsuma"].as_object().unwrap() {
        for (what, allowed) in [
            ("behavior", &["OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"][..]),
            ("behaviorClose", &["OK", "INFORMATIONAL", "UNIMPLEMENTED"]),
        ] {
            let word = result[what].as_str().unwrap();
            *counts.entry(format!("{what} {word}")).or_default() += 1;
            if word == "NON-STRICT" || word == "UNIMPLEMENTED" && what == "behavior" {
                println!("{case}: {what} {word}");
            }
            if !allowed.contains(&word) {
                let report = dir.path().join("reports").join(result["reportfile"].as_str().unwrap());
                let report: Value = serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
                failed
                    .push(format!("{case}: {what} {word}: {}, {}", report["result"], report["resultClose"]));
            }
        }
    }
    println!("{counts:#?}");
    assert!(failed.is_empty(), "{failed:#?}");
}
